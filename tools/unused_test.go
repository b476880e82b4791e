// Package tools_test checks the product's source with analyses that need golang.org/x/tools.
package tools_test

import (
	"bytes"
	"go/ast"
	"go/token"
	"go/types"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/go/packages"
)

const module = "github.com/tandemgw/tandem/"

// mains are the programs whose code counts as used: the product, and the generators of its documents.
var mains = []string{"./cmd/tandem", "./internal/cli/docgen", "./internal/config/docgen"}

// TestNothingIsUnused reports functions, methods, types and variables that none of the programs uses, unless
// scripts/unused.txt names them, and lines of that file that match nothing.
func TestNothingIsUnused(t *testing.T) {
	raw, err := os.ReadFile("../scripts/unused.txt")
	if err != nil {
		t.Fatal(err)
	}
	accepted := map[string]bool{} // by name or prefix: matches something
	for l := range strings.Lines(string(raw)) {
		name, reason, _ := strings.Cut(strings.TrimSpace(l), "|")
		if strings.HasPrefix(l, "#") {
			continue
		}
		if strings.TrimSpace(reason) == "" {
			t.Errorf("scripts/unused.txt: %q has no reason", l)
		}
		accepted[strings.TrimSpace(name)] = false
	}
	found := append(unreachable(t), unreferenced(t)...)
	slices.Sort(found)
	for _, name := range slices.Compact(found) {
		ok := false
		for a := range accepted {
			if name == a || strings.HasSuffix(a, "*") && strings.HasPrefix(name, strings.TrimSuffix(a, "*")) {
				accepted[a], ok = true, true
			}
		}
		if !ok {
			t.Errorf("nothing uses %s: delete it, or move it to the tests that need it", name)
		}
	}
	for a, matched := range accepted {
		if !matched {
			t.Errorf("scripts/unused.txt: %s is used, or does not exist", a)
		}
	}
}

// unreachable runs deadcode.
func unreachable(t *testing.T) []string {
	t.Helper()
	const format = `{{range .Funcs}}{{if not .Generated}}{{printf "%s.%s\n" $.Path .Name}}{{end}}{{end}}`
	c := exec.Command("go", append([]string{"tool", "-modfile=tools/go.mod", "deadcode", "-f", format}, mains...)...)
	var stderr bytes.Buffer
	c.Dir, c.Stderr = "..", &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("deadcode: %v\n%s", err, stderr.String())
	}
	var names []string
	for l := range strings.FieldsSeq(string(out)) {
		names = append(names, strings.TrimPrefix(l, module))
	}
	return names
}

// unreferenced returns what deadcode cannot see: types and variables, and exported methods of values that reach an
// interface, which it counts as used because reflection could call them. A method that an interface of the program
// declares is used.
func unreferenced(t *testing.T) []string {
	t.Helper()
	load := func(patterns []string, mode packages.LoadMode) []*packages.Package {
		ps, err := packages.Load(&packages.Config{Dir: "..", Mode: mode}, patterns...)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range ps {
			for _, e := range p.Errors {
				t.Fatal(e)
			}
		}
		return ps
	}
	var ours []string
	const names = packages.NeedName | packages.NeedImports | packages.NeedDeps
	packages.Visit(load(mains, names), nil, func(p *packages.Package) {
		if strings.HasPrefix(p.PkgPath, module) {
			ours = append(ours, p.PkgPath)
		}
	})
	program := load(ours, names|packages.NeedTypes|packages.NeedSyntax|packages.NeedTypesInfo|packages.NeedExportFile)

	used := map[token.Pos]bool{}
	interfaces := map[string][]*types.Interface{} // by method
	declared := func(x types.Type) {
		if i, ok := x.Underlying().(*types.Interface); ok {
			for m := range i.Methods() {
				interfaces[m.Name()] = append(interfaces[m.Name()], i)
			}
		}
	}
	seen := map[*types.Package]bool{}
	var visit func(*types.Package)
	visit = func(p *types.Package) {
		if seen[p] {
			return
		}
		seen[p] = true
		for _, n := range p.Scope().Names() {
			if x, ok := p.Scope().Lookup(n).(*types.TypeName); ok {
				declared(x.Type())
			}
		}
		for _, i := range p.Imports() {
			visit(i)
		}
	}
	embedded := map[*types.TypeName]bool{} // in a struct, which then has its methods
	for _, p := range program {
		visit(p.Types)
		for _, o := range p.TypesInfo.Defs {
			if f, ok := o.(*types.Var); ok && f.Embedded() {
				if n := named(f.Type()); n != nil {
					embedded[n.Obj()] = true
				}
			}
		}
		for _, x := range p.TypesInfo.Types {
			if x.IsType() {
				declared(x.Type)
			}
		}
		for _, o := range p.TypesInfo.Uses {
			if f, ok := o.(*types.Func); ok {
				o = f.Origin()
			}
			used[o.Pos()] = true
		}
	}
	var out []string
	for _, p := range program {
		for _, f := range p.Syntax {
			if ast.IsGenerated(f) {
				continue
			}
			ast.Inspect(f, func(n ast.Node) bool {
				id, ok := n.(*ast.Ident)
				if !ok {
					return true
				}
				o := p.TypesInfo.Defs[id]
				if o == nil || used[o.Pos()] || slices.Contains([]string{"_", "main", "init"}, o.Name()) {
					return true
				}
				name := strings.TrimPrefix(p.PkgPath, module) + "."
				switch o := o.(type) {
				case *types.Func:
					if r := o.Signature().Recv(); r != nil {
						x := named(r.Type())
						// errors.Is and the like look for these by interfaces that are declared inside functions.
						if x == nil || types.IsInterface(x) ||
							slices.Contains([]string{"Unwrap", "Is", "As"}, o.Name()) ||
							slices.ContainsFunc(interfaces[o.Name()], func(i *types.Interface) bool {
								return types.Implements(types.NewPointer(x), i) || embedded[x.Obj()] && declares(i, o)
							}) {
							return true
						}
						name += x.Obj().Name() + "."
					}
					out = append(out, name+o.Name())
				case *types.TypeName, *types.Var:
					if o.Parent() == p.Types.Scope() {
						out = append(out, name+o.Name())
					}
				}
				return true
			})
		}
	}
	return out
}

// named returns the type, or the one that it points to, without type arguments; nil if it has no name.
func named(t types.Type) *types.Named {
	if p, ok := t.(*types.Pointer); ok {
		t = p.Elem()
	}
	if n, ok := t.(*types.Named); ok {
		return n.Origin()
	}
	return nil
}

// declares reports whether the interface has a method of that name and signature.
func declares(i *types.Interface, f *types.Func) bool {
	for m := range i.Methods() {
		if m.Name() == f.Name() && types.Identical(m.Signature(), f.Signature()) {
			return true
		}
	}
	return false
}
