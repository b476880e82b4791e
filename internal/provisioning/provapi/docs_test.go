package provapi_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tandemgw/tandem/internal/provisioning/filter"
	"github.com/tandemgw/tandem/internal/services"
	"github.com/tandemgw/tandem/internal/testkit/filters"
)

const errorsFile = "../../../docs/provisioning-errors.md"

// documentedCodes reads the tables of docs/provisioning-errors.md: code to status, for this API and for others.
func documentedCodes() (here, elsewhere map[string]int, err error) {
	raw, err := os.ReadFile(errorsFile)
	if err != nil {
		return nil, nil, err
	}
	here, elsewhere = map[string]int{}, map[string]int{}
	into := here
	row := regexp.MustCompile("^\\| `([A-Za-z]+)` \\| ([0-9]{3}) \\|")
	for line := range strings.Lines(string(raw)) {
		if strings.HasPrefix(line, "## Not over this API") {
			into = elsewhere
		}
		m := row.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		if _, twice := into[m[1]]; twice {
			return nil, nil, fmt.Errorf("%s lists %s twice", errorsFile, m[1])
		}
		into[m[1]], _ = strconv.Atoi(m[2]) // three digits
	}
	return here, elsewhere, nil
}

// TestErrorCodesAreDocumented: the page lists exactly the codes that the packages declare.
func TestErrorCodesAreDocumented(t *testing.T) {
	here, elsewhere, err := documentedCodes()
	if err != nil {
		t.Fatal(err)
	}
	inCode := map[string]string{}
	for _, dir := range []string{".", "../directory", "../filter", "../../platform/auth", "../../platform/db",
		"../../platform/web", "../../domain/strictjson"} {
		for name, value := range codeConstants(t, dir) {
			if other, ok := inCode[value]; ok {
				t.Errorf("code %s is declared by %s and by %s/%s: two mistakes must not share a code", value,
					other, dir, name)
			}
			inCode[value] = dir + "/" + name
		}
	}
	if len(inCode) < 60 {
		t.Fatalf("only %d codes found in the code: the search does not see them", len(inCode))
	}
	for code, where := range inCode {
		_, a := here[code]
		_, b := elsewhere[code]
		if !a && !b {
			t.Errorf("%s (%s) is not in %s", code, where, errorsFile)
		}
	}
	for _, m := range []map[string]int{here, elsewhere} {
		for code := range m {
			if inCode[code] == "" {
				t.Errorf("%s lists %s, which no package declares", errorsFile, code)
			}
		}
	}
}

// codeConstants finds the string constants of a package whose names begin with Code.
func codeConstants(t *testing.T, dir string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(dir + "/*.go")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST {
				continue
			}
			for _, s := range g.Specs {
				v := s.(*ast.ValueSpec)
				for i, n := range v.Names {
					if !strings.HasPrefix(n.Name, "Code") || i >= len(v.Values) {
						continue
					}
					if lit, ok := v.Values[i].(*ast.BasicLit); ok && lit.Kind == token.STRING {
						out[n.Name], _ = strconv.Unquote(lit.Value) // a literal that compiles
					}
				}
			}
		}
	}
	return out
}

// checkCodes compares what all tests saw with the page: every code was provoked, with the status that the page lists.
func checkCodes() error {
	here, _, err := documentedCodes()
	if err != nil {
		return err
	}
	for _, code := range slices.Sorted(maps.Keys(here)) {
		statuses := slices.Sorted(maps.Keys(seen.codes[code]))
		switch {
		case len(statuses) == 0:
			return fmt.Errorf("%s lists %s, but no test provokes it", errorsFile, code)
		case slices.Equal(statuses, []int{detailOnly}):
		case !slices.Equal(slices.DeleteFunc(statuses, func(s int) bool { return s == detailOnly }), []int{here[code]}):
			return fmt.Errorf("%s says that %s has status %d, but tests saw %v", errorsFile, code, here[code], statuses)
		}
	}
	return nil
}

// TestFilterFieldsAreDocumented checks the guide's list of fields.
func TestFilterFieldsAreDocumented(t *testing.T) {
	const guide = "../../../docs/provisioning-api.md"
	raw, err := os.ReadFile(guide)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(raw), "\n")
	for _, table := range []*filter.Table{filter.Accounts(services.All().Services()),
		filter.Numbers(services.All().Services()), filter.Requests, filter.CivicAddresses} {
		var fields []string
		for _, f := range filters.Fields(table) {
			s := "`" + f.Path + "`"
			if f.Type == filter.Bool {
				s += " (boolean)"
			}
			fields = append(fields, s)
		}
		prefix := "| " + table.Resource + " | "
		i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, prefix) })
		if i < 0 {
			t.Fatalf("%s has no line for %s", guide, table.Resource)
		}
		want := prefix + strings.Join(fields, ", ") + " |\n"
		if lines[i] != want && !*update {
			t.Errorf("%s: the fields of %s are\n%swant\n%s", guide, table.Resource, lines[i], want)
		}
		lines[i] = want
	}
	if *update {
		if err := os.WriteFile(guide, []byte(strings.Join(lines, "")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
