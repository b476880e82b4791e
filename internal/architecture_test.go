// Package internal_test checks the import rules between packages. ARCHITECTURE.md states the same rules in prose.
package internal_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tandemgw/tandem/internal/services"
)

const module = "github.com/tandemgw/tandem/"

// rule forbids imports. It applies to a package whose path below the module matches from and does not match not. Each
// import, of ours or of a library, that matches deny and none of allow is a violation.
type rule struct {
	from []string // path prefixes of the importing package
	not  []string // prefixes of importing packages exempt
	// deny are prefixes of forbidden imports; ours start with "internal/" or another directory of the module. "x/*" is
	// what lies below x.
	deny  []string
	allow []string // exceptions to deny
	why   string
}

var jobs = []string{"internal/provisioning", "internal/calls", "internal/certificate", "internal/tenants",
	"internal/channels", "internal/zone"}

// fronts are the jobs' HTTP front ends.
var fronts = []string{"internal/provisioning/provapi", "internal/tenants/tenantapi"}

// jobRule allows a job its own packages, domain, and the two platform packages that jobs may use.
func jobRule(job string) rule {
	return rule{
		from:  []string{job},
		not:   fronts,
		deny:  []string{"internal/"},
		allow: []string{job, "internal/domain", "internal/platform/flow", "internal/platform/feed"},
		why: "a job imports domain, its own packages, platform/flow and platform/feed; it declares anything else it " +
			"needs as an interface, which node provides",
	}
}

func rules() []rule {
	var rs []rule
	for _, j := range jobs {
		rs = append(rs, jobRule(j))
	}
	return append(rs,
		rule{from: fronts, deny: []string{"internal/"},
			allow: []string{"internal/provisioning", "internal/tenants", "internal/domain", "internal/platform/flow",
				"internal/platform/feed", "internal/platform/web"},
			why: "a job's HTTP front end imports what its job may, and platform/web"},
		rule{from: []string{"internal/platform/listen"}, deny: []string{"internal/"},
			allow: []string{"internal/domain", "internal/platform/listen"},
			why:   "platform/listen knows connections only; platform/web and the front ends are above it"},
		rule{from: []string{""}, not: []string{"api"},
			deny: []string{"*github.com/oapi-codegen"},
			why:  "only generated code imports its run-time library"},
		rule{from: []string{"internal/domain"}, deny: []string{"internal/", "*."}, allow: []string{"internal/domain"},
			why: "domain imports the standard library only"},
		rule{from: []string{"internal/services"}, deny: []string{"internal/"},
			allow: []string{"internal/domain", "internal/calls/leg", "internal/provisioning/provisioner",
				"internal/tenants", "internal/calls/sip", "internal/outside",
				"internal/platform/secret", "internal/services/internal", "@self"},
			why: "a service package holds everything specific to one service and imports the contract packages and " +
				"what services share (services/internal), never another service"},
		rule{from: []string{""}, not: []string{"internal/services", "internal/node", "bench", "test"},
			deny: []string{"internal/services/*"},
			why:  "product code knows the list of services and their traits, not a single service"},
		rule{from: []string{"internal/store"}, deny: []string{"internal/"},
			allow: []string{"internal/domain", "internal/platform", "@job", "@self"},
			why:   "store/<job> imports its job and platform, never a sibling; store itself only lists their schemas"},
		rule{from: []string{"internal/platform"}, deny: []string{"internal/"},
			allow: []string{"internal/domain", "internal/platform"},
			why:   "platform does not depend on jobs"},
		rule{from: []string{"internal/manage", "internal/portal"}, deny: []string{"internal/store", "internal/outside",
			"internal/sim"},
			why: "front ends call jobs"},
		rule{from: []string{"internal/front"}, deny: []string{"internal/"},
			allow: []string{"internal/domain", "internal/platform", "internal/front"},
			why:   "the public front knows no job: node mounts what jobs serve there"},
		rule{from: []string{"internal/cli"}, not: []string{"internal/cli/demo"},
			deny: []string{"internal/sim", "internal/store", "internal/outside", "internal/services"},
			why:  "the command line is a client of the management API; only the demo starts simulators"},
		rule{from: []string{"internal/outside"}, deny: []string{"internal/"},
			allow: []string{"internal/domain", "internal/platform", "internal/outside/wire", "@self"},
			why:   "a client of another's API knows no job and no other client; outside/wire is what they share"},
		rule{from: []string{"internal/sim"}, deny: []string{"internal/", "client", "cmd", "test", "api"},
			allow: []string{"internal/domain", "internal/sim"},
			why:   "simulators are independent of what they test"},
		rule{from: []string{""},
			not:  []string{"internal/sim", "internal/cli/demo", "test", "tools", "bench", "internal/testkit/pebble"},
			deny: []string{"internal/sim", "*github.com/emiago/sipgo"},
			why:  "product code does not depend on simulators, and the edge does not use the SIP stack that tests it"},
		rule{from: []string{""}, not: []string{"internal/platform/db", "tools", "bench", "test", "internal/testkit"},
			deny: []string{"*modernc.org/sqlite", "*github.com/jackc/pgx", "*github.com/pressly/goose"},
			why:  "only platform/db imports SQL drivers"},
		rule{from: []string{"client"}, deny: []string{"internal/"}, why: "client can be imported by other modules"},
	)
}

// TestImports walks every Go file that is not a test and reports each import that a rule forbids, with the reason.
func TestImports(t *testing.T) {
	root := ".."
	files := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			name := d.Name()
			if path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules" ||
				name == "tools") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		files++
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, filepath.Dir(path))
		pkg := filepath.ToSlash(rel)
		for _, im := range f.Imports {
			p, err := strconv.Unquote(im.Path.Value)
			if err != nil {
				return err
			}
			for _, why := range violations(pkg, p) {
				t.Errorf("%s imports %s: %s", path, p, why)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 50 {
		t.Fatalf("only %d files were checked: the walk does not cover the tree", files)
	}
}

// TestRulesBite checks that each kind of rule rejects what it is meant to reject.
func TestRulesBite(t *testing.T) {
	for _, c := range []struct{ pkg, imp string }{
		{"internal/domain", "github.com/google/uuid"},
		{"internal/domain", module + "internal/platform/db"},
		{"internal/calls/edge", module + "internal/provisioning/directory"},
		{"internal/calls/edge", module + "internal/services/zoom"},
		{"internal/calls/edge", "github.com/emiago/sipgo/sip"},
		{"internal/services/zoom", module + "internal/services/acs"},
		{"internal/services/zoom", module + "internal/calls/edge"},
		{"internal/services/zoom", module + "internal/services"},
		{"internal/config", module + "internal/services/zoom"},
		{"internal/store/provisioning", module + "internal/calls/replica"},
		{"internal/store/provisioning", module + "internal/store/tenants"},
		{"internal/store/auth", module + "internal/store/provisioning"},
		{"internal/store/auth", module + "internal/store"},
		{"internal/platform/db", module + "internal/provisioning/directory"},
		{"internal/provisioning/directory", "github.com/jackc/pgx/v5"},
		{"internal/manage", module + "internal/store/provisioning"},
		{"internal/front", module + "internal/zone"},
		{"internal/calls/edge", module + "internal/platform/web"},
		{"internal/provisioning/provapi", module + "internal/platform/auth"},
		{"internal/platform/listen", module + "internal/platform/web"},
		{"internal/outside/graph", module + "internal/outside/entra"},
		{"internal/outside/entra", module + "internal/tenants/onboard"},
		{"internal/manage", "github.com/oapi-codegen/runtime"},
		{"internal/cli", module + "internal/sim/teams"},
		{"internal/sim/teams", module + "internal/calls/sip"},
		{"client", module + "internal/domain"},
	} {
		if len(violations(c.pkg, c.imp)) == 0 {
			t.Errorf("violations(%q, %q) = none, want a finding", c.pkg, c.imp)
		}
	}
	for _, c := range []struct{ pkg, imp string }{
		{"internal/domain", "net/netip"},
		{"internal/calls/edge", module + "internal/calls/sip/transaction"},
		{"internal/calls/replica", module + "internal/platform/feed"},
		{"internal/tenants/onboard", module + "internal/platform/flow"},
		{"internal/services/zoom", module + "internal/calls/leg"},
		{"internal/services/directrouting/tenant", module + "internal/tenants/plan"},
		{"internal/services/zoom", module + "internal/services/internal/phonesystem"},
		{"internal/services", module + "internal/services/zoom"},
		{"internal/config", module + "internal/services"},
		{"internal/store/provisioning", module + "internal/provisioning/directory"},
		{"internal/store/auth", module + "internal/platform/auth"},
		{"internal/store", module + "internal/store/auth"},
		{"internal/outside/graph", module + "internal/outside/wire"},
		{"internal/outside/entra", module + "internal/platform/secret"},
		{"internal/node", module + "internal/services/zoom"},
		{"internal/provisioning/provapi", module + "internal/platform/web"},
		{"internal/calls/explain", module + "api/manage"},
		{"internal/cli/demo", module + "internal/sim/teams"},
	} {
		if v := violations(c.pkg, c.imp); len(v) != 0 {
			t.Errorf("violations(%q, %q) = %v, want none", c.pkg, c.imp, v)
		}
	}
}

func violations(pkg, imp string) []string {
	ours, isOurs := strings.CutPrefix(imp, module)
	third := !isOurs && strings.Contains(strings.SplitN(imp, "/", 2)[0], ".")
	var out []string
	for _, r := range rules() {
		if !anyPrefix(pkg, r.from) || anyPrefix(pkg, r.not) {
			continue
		}
		denied := false
		for _, d := range r.deny {
			if lib, ok := strings.CutPrefix(d, "*"); ok {
				denied = denied || third && (lib == "." || under(imp, lib))
			} else if dir, ok := strings.CutSuffix(d, "/*"); ok {
				denied = denied || isOurs && ours != dir && under(ours, dir)
			} else {
				denied = denied || isOurs && under(ours, d)
			}
		}
		if !denied {
			continue
		}
		allowed := false
		for _, a := range r.allow {
			switch a {
			case "@self":
				allowed = allowed || ours == pkg || under(ours, pkg) || under(pkg, ours) &&
					strings.Count(ours, "/") >= 2
			case "@job":
				job := strings.TrimPrefix(pkg, "internal/store/")
				allowed = allowed || under(ours, "internal/"+job)
			default:
				allowed = allowed || isOurs && under(ours, a)
			}
		}
		if !allowed {
			out = append(out, r.why)
		}
	}
	return out
}

func anyPrefix(p string, prefixes []string) bool {
	for _, x := range prefixes {
		if x == "" || under(p, x) {
			return true
		}
	}
	return false
}

// under reports whether p is dir or lies below it.
func under(p, dir string) bool {
	dir = strings.TrimSuffix(dir, "/")
	return p == dir || strings.HasPrefix(p, dir+"/")
}

// TestNoServiceByName reports comparisons with the name of a service in product code. What differs by service is a
// trait or a contract. Simulators and the demo play the services and their customers, so they know them.
func TestNoServiceByName(t *testing.T) {
	names := map[string]bool{}
	for _, s := range services.All().Services() {
		names[strconv.Quote(s.String())] = true
	}
	compared := 0
	for _, dir := range []string{"../cmd", "../client", "../internal"} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() && slices.Contains([]string{"services", "sim", "testkit", "demo", "testdata"}, d.Name()) {
				return filepath.SkipDir
			}
			if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return nil
			}
			files := token.NewFileSet()
			f, err := parser.ParseFile(files, path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(f, func(n ast.Node) bool {
				var with []ast.Expr
				switch n := n.(type) {
				case *ast.BinaryExpr:
					with = []ast.Expr{n.X, n.Y}
				case *ast.CaseClause:
					with = n.List
				}
				for _, e := range with {
					if l, ok := e.(*ast.BasicLit); ok {
						compared++
						if names[l.Value] {
							t.Errorf("%s: comparison with service %s; use a trait", files.Position(l.Pos()), l.Value)
						}
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if compared < 500 {
		t.Fatalf("only %d comparisons were checked: the walk does not cover the tree", compared)
	}
}

// TestConfigBuildsNoObjects: package config checks settings and leaves building to node. It calls no function of ours
// that builds something, except faults and the YAML document.
func TestConfigBuildsNoObjects(t *testing.T) {
	files, err := filepath.Glob("config/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	builds := regexp.MustCompile(`^(New|Open|Parse|Compile|Build|Rules|Profiles?)([A-Z]|$)`)
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		may := map[string]bool{} // packages by name: whether config may build what is theirs
		for _, im := range f.Imports {
			p := strings.Trim(im.Path.Value, `"`)
			may[p[strings.LastIndex(p, "/")+1:]] = !strings.HasPrefix(p, module) ||
				strings.HasPrefix(p, module+"internal/config/") || p == module+"internal/domain/fault"
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			fun, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || !builds.MatchString(fun.Sel.Name) {
				return true
			}
			if pkg, ok := fun.X.(*ast.Ident); ok && may[pkg.Name] {
				return true
			}
			t.Errorf("%s: %s builds an object; config checks settings, node builds", fset.Position(call.Pos()),
				fun.Sel.Name)
			return true
		})
	}
}

// TestPackageComments checks that every package has a package comment, which says what the package is for and what it
// is not for.
func TestPackageComments(t *testing.T) {
	has := map[string]bool{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != ".." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" ||
			d.Name() == "node_modules") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, src, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		dir := filepath.Dir(path)
		has[dir] = has[dir] || f.Doc != nil && len(f.Doc.Text()) > 40
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for dir, ok := range has {
		if !ok {
			t.Errorf("%s has no package comment", dir)
		}
	}
}
