// Package mutation_test breaks the program on purpose and checks that the demonstration fails: a demonstration that
// passes whatever the gateway does proves nothing.
package mutation_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/cli/demo"
	"github.com/tandemgw/tandem/test/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

// mutation is one breakage: the replacement of a piece of a file's text.
type mutation struct {
	name     string
	file     string
	old, new string
	notices  []string // calls and stages of the demonstration that must fail
	deep     bool     // left to the long suite
}

var mutations = []mutation{
	{"Contact names the trunk and not the customer", "internal/services/directrouting/directrouting.go",
		`a.Host = l.Call.Label + "." + p.trunk`, `a.Host = p.trunk`,
		[]string{"direct-routing-in", "direct-routing-out"}, true},
	{"screening accepts every caller", "internal/calls/route/fromservice.go",
		`case !a.CallScreening:`, `case true:`,
		[]string{"screened"}, true},
	{"screening ignores the forwarding number", "internal/calls/leg/facts.go",
		`f.History = history(m)`, `_ = history(m)`,
		[]string{"forwarded"}, true},
	{"the custom header does not reach the core", "internal/calls/leg/shape.go",
		`m.AddName(r.custom, l.Call.Header)`, `_ = m`,
		[]string{"direct-routing-in", "direct-routing-out", "operator-connect-out", "zoom-in"}, true},
	{"the custom header goes to the service", "internal/services/internal/phonesystem/phonesystem.go",
		"p.rules.StripForService(m)\n",
		"p.rules.StripForService(m)\n\tdefer m.AddName(\"X-MS-Operator-Content\", \"leaked\")\n",
		[]string{"direct-routing-in"}, true},
	{"503 is not failed over", "internal/calls/edge/setup.go",
		`(status == 408 || status == 503 || status == 504)`, `(status == 408 || status == 504)`,
		[]string{"failover"}, false},
	{"every refusal is failed over", "internal/calls/edge/setup.go",
		`(status == 408 || status == 503 || status == 504)`, `status >= 400`,
		[]string{"busy"}, true},
	{"the customer's text is not in the zone", "internal/zone/contents.go",
		`rs = append(rs, Text(name, movingTTL, token))`, `continue`,
		[]string{"names"}, true},
	{"deleted activation users stay in the bin", "internal/services/directrouting/tenant/activation.go",
		`_, err = graph.Purge(u.ID).Do(ctx, c.Delegated)`, `_ = graph.Purge(u.ID)`,
		[]string{"leave"}, true},
	{"drift does not look at patterns of routes", "internal/tenants/plan/object.go",
		`Route: {fields: map[string]field{"pattern": text,`,
		`Route: {fields: map[string]field{"pattern": {value: "", compare: never},`,
		[]string{"drift"}, true},
}

// run runs the demonstration of a program and returns its exit code and document.
func run(t *testing.T, binary string) (int, demo.Document) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "demo", "--once", "--output", "json")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	var d demo.Document
	if e := json.Unmarshal(out.Bytes(), &d); e != nil {
		t.Fatalf("the demonstration printed no document: %v\n%s\n%s", e, out.String(), errs.String())
	}
	return cmd.ProcessState.ExitCode(), d
}

func TestTheDemonstrationPasses(t *testing.T) {
	code, d := run(t, rig.Binary(t))
	if code != 0 || d.Failed != 0 || d.Passed != len(d.Calls)+len(d.Stages) || d.Passed == 0 {
		t.Errorf("exit code %d with %d passed and %d failed of %d calls and %d stages, want 0 and all passed", code,
			d.Passed, d.Failed, len(d.Calls), len(d.Stages))
	}
	ways := map[string]int{}
	for _, c := range d.Calls {
		if c.Passed && c.Status == 200 {
			ways[c.Service+" "+c.Direction]++
		}
		if !c.Passed {
			t.Errorf("%s: %s", c.Name, strings.Join(c.Problems, "; "))
		}
	}
	for _, s := range d.Stages {
		if s.Seconds <= 0 || !s.Passed {
			t.Errorf("stage %s of %s took %v s: %s", s.Name, s.Job, s.Seconds, strings.Join(s.Problems, "; "))
		}
	}
	if n := len(d.Stages); n != 12 {
		t.Errorf("%d stages, want the names in DNS and 11 of tenants", n)
	}
	if len(ways) != 8 {
		t.Errorf("answered calls by service and direction %v, want four services both ways", ways)
	}
}

func TestTheDemonstrationNoticesWhatIsBroken(t *testing.T) {
	root, err := rig.Root()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			if m.deep && !deep {
				t.Skip("left to make test-deep")
			}
			file := filepath.Join(root, m.file)
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(src), m.old); n != 1 {
				t.Fatalf("%s contains %q %d times, want once: update the mutation", m.file, m.old, n)
			}
			dir := t.TempDir()
			patched, binary := filepath.Join(dir, "patched.go"), filepath.Join(dir, "tandem")
			if err := os.WriteFile(patched, []byte(strings.Replace(string(src), m.old, m.new, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{file: patched}})
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
				t.Fatal(err)
			}
			build := exec.CommandContext(t.Context(), "go", "build", "-overlay", filepath.Join(dir, "overlay.json"),
				"-o", binary, "./cmd/tandem")
			build.Dir = root
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("the mutated program does not build: %v\n%s", err, out)
			}
			code, d := run(t, binary)
			if code != 1 || d.Failed == 0 {
				t.Errorf("exit code %d with %d failed, want 1 and at least one", code, d.Failed)
			}
			var failed []string
			for _, s := range d.Stages {
				if !s.Passed {
					failed = append(failed, s.Name)
				}
			}
			for _, c := range d.Calls {
				if !c.Passed {
					failed = append(failed, c.Name)
				}
			}
			for _, n := range m.notices {
				if !slices.Contains(failed, n) {
					t.Errorf("%s passed although it is broken; failed are %v", n, failed)
				}
			}
		})
	}
}
