package provisioning

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
	"github.com/tandemgw/tandem/internal/provisioning/filter"
)

// column describes how a filter's field is stored.
type column struct {
	// text is an SQL expression for a string field; absent values are NULL or ''.
	text string
	// key is set when text is an indexed column compared byte by byte.
	key bool
	// present and value are conditions for a boolean field: that the resource has it, and that it is true.
	present, value string
	// json is a path into the details document, for fields without a column.
	json []string
}

// The columns of the fields that have one of their own, by path.
var (
	accountFields = map[string]column{
		"name":                         {text: "name", key: true},
		"correlationId":                {text: "correlation_id"},
		"serviceDetails/teamsTenantId": {text: "tenant_id"},
		"serviceProvisioningStatus":    {text: "status"},
	}
	numberFields = map[string]column{
		"telephoneNumber":               {text: "number", key: true},
		"accountName":                   {text: "account", key: true},
		"configuration/customSipHeader": {text: "custom_header"},
		"serviceProvisioningStatus":     {text: "status"},
	}
	requestFields = map[string]column{
		"tenantId":                  {text: "tenant_id", key: true},
		"accountName":               {text: linkedAccount},
		"productContext":            {text: "'teams'"},
		"serviceProvisioningStatus": {text: "status"},
	}
	civicFields = map[string]column{"id": {text: "id", key: true}}
)

// compiler turns a filter into SQL with parameters. Every expression it makes is true or false, never NULL, so that
// "not" means the opposite, as in the tests' oracle, testkit/filters.
type compiler struct {
	s      *Store
	fields map[string]column // those with a column of their own
	args   []any
}

func (c *compiler) param(v any) string {
	c.args = append(c.args, v)
	return "$" + strconv.Itoa(len(c.args))
}

// where returns a WHERE clause of the conditions and the filter, "" if there are none.
func (c *compiler) where(e filter.Expr, conds ...string) string {
	if e != nil {
		conds = append(conds, c.expr(e))
	}
	if len(conds) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(conds, " AND ")
}

func (c *compiler) limit(q directory.Query) string {
	s := " LIMIT " + c.param(int64(q.Limit))
	if q.Skip > 0 {
		s += " OFFSET " + c.param(int64(q.Skip))
	}
	return s
}

const never = "1=0"

func (c *compiler) expr(e filter.Expr) string {
	switch e := e.(type) {
	case *filter.And:
		return "(" + c.expr(e.Left) + " AND " + c.expr(e.Right) + ")"
	case *filter.Or:
		return "(" + c.expr(e.Left) + " OR " + c.expr(e.Right) + ")"
	case *filter.Not:
		return "(NOT " + c.expr(e.X) + ")"
	case *filter.Compare:
		s := c.equal(c.column(e.Field.Path), e.Value)
		if e.Negated {
			s = "(NOT " + s + ")"
		}
		return s
	case *filter.Prefix:
		return c.prefix(c.column(e.Field.Path), e.Prefix)
	}
	panic("store: unknown filter expression")
}

func (c *compiler) equal(col column, v filter.Value) string {
	if v.Type == filter.Bool {
		if col.json != nil {
			// SQLite returns a JSON boolean as 1 or 0, PostgreSQL as text.
			want := map[bool]string{false: "0", true: "1"}[v.Bool]
			if c.s.d.Driver() == db.Postgres {
				want = "'" + strconv.FormatBool(v.Bool) + "'"
			}
			return "COALESCE(" + c.path(col.json) + " = " + want + ", " + never + ")"
		}
		if v.Bool {
			return "(" + col.present + " AND " + col.value + ")"
		}
		return "(" + col.present + " AND NOT " + col.value + ")"
	}
	if v.Str == "" || !storable(v.Str) {
		return never // an empty string counts as absent, and absent equals nothing
	}
	if col.key {
		return "(" + col.text + " = " + c.param(v.Str) + ")"
	}
	return "(COALESCE(" + c.text(col) + ", '') = " + c.param(v.Str) + ")"
}

func (c *compiler) prefix(col column, p string) string {
	switch {
	case !storable(p):
		return never
	case p == "":
		return "(COALESCE(" + c.text(col) + ", '') <> '')"
	case col.key && !strings.ContainsFunc(p, func(r rune) bool { return r >= 0x7f }):
		// A range, so that the index is used. It ends before p with its last character incremented.
		end := p[:len(p)-1] + string(p[len(p)-1]+1)
		return "(" + col.text + " >= " + c.param(p) + " AND " + col.text + " < " + c.param(end) + ")"
	}
	n := strconv.Itoa(utf8.RuneCountInString(p))
	return "(substr(COALESCE(" + c.text(col) + ", ''), 1, " + n + ") = " + c.param(p) + ")"
}

// column returns how a field is stored: in a column, in the sets of services, or in the details document.
func (c *compiler) column(path string) column {
	if col, ok := c.fields[path]; ok {
		return col
	}
	service, ok := strings.CutPrefix(path, "serviceDetails/")
	if !ok {
		return column{json: strings.Split(path, "/")}
	}
	name, field, _ := strings.Cut(service, "/")
	x, ok := c.s.services.ByName(name)
	if !ok {
		return column{text: "NULL"}
	}
	switch field {
	case "enabled":
		return column{present: bit("present", x), value: bit("enabled", x)}
	case "syncEnabled":
		return column{present: bit("present", x), value: bit("sync_enabled", x)}
	}
	return column{json: append([]string{name}, strings.Split(field, "/")...)}
}

// text returns the SQL expression of a string field.
func (c *compiler) text(col column) string {
	if col.json != nil {
		return c.path(col.json)
	}
	return col.text
}

// path returns the SQL expression of a value in the details document. The names are ours, never the caller's.
func (c *compiler) path(names []string) string {
	if c.s.d.Driver() == db.Postgres {
		return "(NULLIF(details, '')::jsonb #>> '{" + strings.Join(names, ",") + "}')"
	}
	return "json_extract(NULLIF(details, ''), '$." + strings.Join(names, ".") + "')"
}

// storable reports whether a stored text can equal s at all. PostgreSQL refuses other parameters.
func storable(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }

func bit(name string, s domain.Service) string {
	return "((" + name + " & " + strconv.FormatUint(uint64(domain.ServiceSet(0).With(s)), 10) + ") <> 0)"
}
