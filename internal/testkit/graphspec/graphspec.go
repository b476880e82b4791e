// Package graphspec validates requests to Microsoft Graph, and answers, against the published contract of the subset
// that Tandem uses. Calls that the contract lacks are listed in docs/verification.md.
package graphspec

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
)

// published is the path of the contract, from the module's directory.
const published = "../shared/specs/graph-subset.json"

type operation struct {
	method, path string
	re           *regexp.Regexp
	params       []string
	item         *openapi3.PathItem
	op           *openapi3.Operation
}

// Contract is the published contract.
type Contract struct {
	doc *openapi3.T
	ops []operation
}

// Load reads the contract. It returns nil on machines that do not have it.
func Load(tb testing.TB) *Contract {
	tb.Helper()
	file := filepath.Join(root(tb), published)
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		tb.Logf("the contract is not on this machine (%s)", file)
		return nil
	} else if err != nil {
		tb.Fatal(err)
	}
	doc, err := openapi3.NewLoader().LoadFromData(raw)
	if err != nil {
		tb.Fatal(err)
	}
	c := &Contract{doc: doc}
	variable := regexp.MustCompile(`\\\{([A-Za-z-]+)\\\}`)
	for path, item := range doc.Paths.Map() {
		quoted := regexp.QuoteMeta(path)
		var params []string
		for _, m := range variable.FindAllStringSubmatch(quoted, -1) {
			params = append(params, m[1])
		}
		re := regexp.MustCompile("^" + variable.ReplaceAllString(quoted, "([^/']+)") + "$")
		for method, op := range item.Operations() {
			c.ops = append(c.ops, operation{method, path, re, params, item, op})
		}
	}
	// Literal paths before those with variables: /users/delta is no user.
	slices.SortFunc(c.ops, func(a, b operation) int { return len(a.params) - len(b.params) })

	return c
}

// root returns the module's directory.
func root(tb testing.TB) string {
	tb.Helper()
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		tb.Fatal(err)
	}
	return filepath.Dir(strings.TrimSpace(string(out)))
}

var (
	heading = "\n### Calls that the contract of Microsoft Graph lacks\n"
	item    = regexp.MustCompile("(?m)^- `([^`]+)`")
	id      = regexp.MustCompile("[0-9a-fA-F]{8}-?[0-9a-fA-F-]{23,27}")
)

// Listed returns the calls that docs/verification.md lists as lacking in the contract, as Call names them.
func Listed(tb testing.TB) map[string]bool {
	tb.Helper()
	doc, err := os.ReadFile(filepath.Join(root(tb), "docs", "verification.md"))
	if err != nil {
		tb.Fatal(err)
	}
	_, section, _ := strings.Cut(string(doc), heading)
	section, _, _ = strings.Cut(section, "\n#")
	calls := map[string]bool{}
	for _, m := range item.FindAllStringSubmatch(section, -1) {
		calls[m[1]] = true
	}
	return calls
}

// Call names the operation of a request: the method and the path, with "{id}" in place of ids.
func Call(r *http.Request) string { return r.Method + " " + id.ReplaceAllString(r.URL.Path, "{id}") }

// Operations returns the ids of the contract's operations.
func (c *Contract) Operations() []string {
	ids := make([]string, len(c.ops))
	for i, o := range c.ops {
		ids[i] = o.op.OperationID
	}
	return ids
}

// Exchange is a request to Graph and its answer.
type Exchange struct {
	Request *http.Request // its body has been read
	Body    []byte
	Status  int
	Header  http.Header
	Answer  []byte
}

// Check validates a request and its answer; it returns the operation's id, or "" if the contract has none.
func (c *Contract) Check(t testing.TB, e Exchange) string {
	t.Helper()
	path := strings.TrimPrefix(e.Request.URL.Path, "/v1.0")
	path = regexp.MustCompile(`/operations\('([^']+)'\)$`).ReplaceAllString(path, "/operations/$1")
	for _, o := range c.ops {
		m := o.re.FindStringSubmatch(path)
		if m == nil || o.method != e.Request.Method {
			continue
		}
		params := map[string]string{}
		for i, name := range o.params {
			params[name] = m[i+1]
		}
		r := e.Request.Clone(t.Context())
		r.Body = io.NopCloser(bytes.NewReader(e.Body))
		options := &openapi3filter.Options{IncludeResponseStatus: true, MultiError: true,
			AuthenticationFunc: openapi3filter.NoopAuthenticationFunc}
		in := &openapi3filter.RequestValidationInput{Request: r, PathParams: params, Options: options,
			Route: &routers.Route{Spec: c.doc, Path: o.path, PathItem: o.item, Method: o.method, Operation: o.op}}
		if e.Status < 300 {
			if err := openapi3filter.ValidateRequest(t.Context(), in); err != nil {
				t.Errorf("%s %s: request: %v", o.method, path, err)
			}
		}
		out := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: e.Status, Header: e.Header,
			Body: io.NopCloser(bytes.NewReader(e.Answer)), Options: options}
		if err := openapi3filter.ValidateResponse(t.Context(), out); err != nil {
			t.Errorf("%s %s answers %d %s: %v", o.method, path, e.Status, e.Answer, err)
		}
		c.known(t, o, e)

		return o.op.OperationID
	}

	return ""
}

// known refuses members of objects that the schema does not have: the contract leaves them open.
func (c *Contract) known(t testing.TB, o operation, e Exchange) {
	t.Helper()
	response := o.op.Responses.Value(map[bool]string{true: "201", false: "200"}[e.Status == 201])
	if e.Status >= 300 || response == nil || response.Value.Content.Get("application/json") == nil {
		return
	}
	var v any
	if err := json.Unmarshal(e.Answer, &v); err != nil {
		t.Fatal(err)
	}
	walk(t, o.op.OperationID, response.Value.Content.Get("application/json").Schema.Value, v)
}

func walk(t testing.TB, at string, s *openapi3.Schema, v any) {
	t.Helper()
	switch x := v.(type) {
	case map[string]any:
		for name, member := range x {
			p := s.Properties[name]
			switch {
			case p != nil:
				walk(t, at+"."+name, p.Value, member)
			case !strings.HasPrefix(name, "@") && len(s.Properties) > 0 && !strings.HasPrefix(at, "batch") &&
				!strings.Contains(at, "DnsRecords") && !strings.Contains(at, "ConfigurationRecords") &&
				!strings.Contains(at, "NameReferences"): // collections of derived types
				t.Errorf("%s has %s, which the contract does not", at, name)
			}
		}
	case []any:
		for _, item := range x {
			if s.Items != nil {
				walk(t, at, s.Items.Value, item)
			}
		}
	}
}
