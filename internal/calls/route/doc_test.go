package route_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestDocumentNamesEveryRule: docs/routing.md has a row for every rule, and none for a rule that does not exist.
func TestDocumentNamesEveryRule(t *testing.T) {
	text, err := os.ReadFile("../../../docs/routing.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| \\d+ \\| `([a-z-]+)` \\|").FindAllStringSubmatch(string(text), -1) {
		documented[m[1]] = true
	}
	f, err := parser.ParseFile(token.NewFileSet(), "decision.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	rules := 0
	ast.Inspect(f, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok || len(v.Values) != 1 || !strings.HasPrefix(v.Names[0].Name, "Rule") {
			return true
		}
		lit, ok := v.Values[0].(*ast.BasicLit)
		if !ok {
			return true
		}
		name, _ := strconv.Unquote(lit.Value)
		rules++
		if !documented[name] {
			t.Errorf("docs/routing.md has no row for rule %s", name)
		}
		delete(documented, name)
		return true
	})
	for name := range documented {
		t.Errorf("docs/routing.md has a row for %s, which is not a rule", name)
	}
	if rules < 16 {
		t.Errorf("found %d rules in decision.go, want at least 16", rules)
	}
}
