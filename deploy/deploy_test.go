// Package deploy_test checks the files that operators copy: packages, alert rules, dashboard.
package deploy_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
)

// alert is one alert as the runbook and the rules state it.
type alert struct {
	name, expr, wait string
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// runbook returns the alerts of docs/runbook.md.
func runbook(t *testing.T) []alert {
	t.Helper()
	_, section, _ := strings.Cut(read(t, "../docs/runbook.md"), "\n## Alerts worth waking for\n")
	section, _, _ = strings.Cut(section, "\n## ")
	row := regexp.MustCompile("^\\| (\\w+) \\| `(.+?)`(?: for (\\d+) (minute|hour|day)s?)? \\| .+ \\|$")
	var as []alert
	for l := range strings.Lines(section) {
		l = strings.TrimSpace(l)
		if !strings.HasPrefix(l, "| ") || strings.HasPrefix(l, "| Alert ") {
			continue
		}
		m := row.FindStringSubmatch(l)
		if m == nil {
			t.Fatalf("docs/runbook.md: %q is not: | Alert | `expression` for N minutes, hours or days | why |", l)
		}
		a := alert{name: m[1], expr: strings.ReplaceAll(m[2], `\|`, "|")}
		if m[3] != "" {
			a.wait = m[3] + m[4][:1]
		}
		as = append(as, a)
	}
	return as
}

func TestEveryAlertOfTheRunbookIsARule(t *testing.T) {
	var file struct {
		Groups []struct {
			Rules []struct {
				Alert       string            `yaml:"alert"`
				Expr        string            `yaml:"expr"`
				For         string            `yaml:"for"`
				Labels      map[string]string `yaml:"labels"`
				Annotations map[string]string `yaml:"annotations"`
			} `yaml:"rules"`
		} `yaml:"groups"`
	}
	if err := yaml.Unmarshal([]byte(read(t, "prometheus/tandem.rules.yml")), &file); err != nil {
		t.Fatal(err)
	}
	var rules []alert
	tests := read(t, "prometheus/testdata/tandem.rules.test.yml")
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			rules = append(rules, alert{r.Alert, strings.TrimSpace(r.Expr), r.For})
			if s := r.Labels["severity"]; s != "critical" && s != "warning" {
				t.Errorf("%s has severity %q, want critical or warning", r.Alert, s)
			}
			if r.Annotations["summary"] == "" {
				t.Errorf("%s has no summary", r.Alert)
			}
			if !strings.Contains(tests, ", alertname: "+r.Alert+"}\n") ||
				!strings.Contains(tests, "alertname: "+r.Alert+"\n        exp_alerts:") {
				t.Errorf("testdata/tandem.rules.test.yml does not test %s, both healthy and firing", r.Alert)
			}
		}
	}
	byName := func(a, b alert) int { return strings.Compare(a.name, b.name) }
	book := runbook(t)
	slices.SortFunc(book, byName)
	slices.SortFunc(rules, byName)
	if diff := cmp.Diff(book, rules, cmp.AllowUnexported(alert{})); diff != "" {
		t.Errorf("the alerts of docs/runbook.md and prometheus/tandem.rules.yml differ (-runbook +rules):\n%s", diff)
	}
	if len(book) < 20 {
		t.Errorf("docs/runbook.md has %d alerts: its table was not read", len(book))
	}
}

// promtool runs Prometheus's own checker.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed (Debian package prometheus); make test-deep installs it")
	}
	if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestPromtoolAcceptsTheRules(t *testing.T) {
	promtool(t, "check", "rules", "--lint=all", "--lint-fatal", "prometheus/tandem.rules.yml")
}

func TestEachAlertFiresAndOnlyThen(t *testing.T) {
	promtool(t, "test", "rules", "prometheus/testdata/tandem.rules.test.yml")
}

// TestTheDashboardIsComplete checks what Grafana needs of each panel. That the queries return data is checked by
// test/packages, with a Prometheus.
func TestTheDashboardIsComplete(t *testing.T) {
	var d struct {
		UID    string
		Panels []struct {
			ID         int
			Type       string
			Title      string
			GridPos    struct{ X, Y, W, H int }
			Datasource struct{ UID string }
			Targets    []struct{ Expr, RefID string }
		}
	}
	dec := json.NewDecoder(strings.NewReader(read(t, "grafana/tandem.json")))
	if err := dec.Decode(&d); err != nil {
		t.Fatal(err)
	}
	ids := map[int]bool{}
	cells := map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] {
			t.Errorf("two panels have id %d", p.ID)
		}
		ids[p.ID] = true
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if cells[at] != "" || at[0] > 23 {
					t.Errorf("%q overlaps %q, or is outside of the grid", p.Title, cells[at])
				}
				cells[at] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Title == "" || p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 {
			t.Errorf("panel %d (%q) lacks a title, the data source variable or a query", p.ID, p.Title)
		}
		for _, q := range p.Targets {
			if !strings.Contains(q.Expr, `instance=~"$instance"`) {
				t.Errorf("%q: %s ignores the choice of nodes", p.Title, q.Expr)
			}
		}
	}
}

// TestDockerfile checks what can be checked without a container engine: that the stages copy what exists, that the Go
// version is that of go.mod, and that the build command is the one of the package.
func TestDockerfile(t *testing.T) {
	text := read(t, "../Dockerfile")
	gomod := regexp.MustCompile(`(?m)^go (\S+)$`).FindStringSubmatch(read(t, "../go.mod"))
	if !strings.Contains(text, "\nFROM golang:"+gomod[1]+"-") {
		t.Errorf("the Dockerfile does not build with Go %s, the version in go.mod", gomod[1])
	}
	if !strings.Contains(text, "Not built here") {
		t.Error("the Dockerfile does not say that it was never built")
	}
	build := regexp.MustCompile(`CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w ` +
		`-X main.version=\$\{?VERSION\}?"`)
	inDocker, inPackage := build.FindString(text), build.FindString(read(t, "../scripts/package.sh"))
	if inDocker == "" || inPackage == "" {
		t.Errorf("Dockerfile and scripts/package.sh do not build alike: %q, %q", inDocker, inPackage)
	}
	lines := strings.Split(strings.ReplaceAll(text, "\\\n", " "), "\n")
	stages := 0
	for _, l := range lines {
		f := strings.Fields(l)
		switch {
		case len(f) == 0 || strings.HasPrefix(f[0], "#"):
		case f[0] == "FROM":
			stages++
		case f[0] == "COPY" && !strings.Contains(l, "--from="):
			for _, src := range f[1 : len(f)-1] {
				if m, err := filepath.Glob(filepath.Join("..", src)); err != nil || len(m) == 0 {
					t.Errorf("%s: there is no %s", l, src)
				}
			}
		case !slices.Contains([]string{"COPY", "RUN", "ARG", "ENV", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL",
			"ENTRYPOINT", "CMD", "WORKDIR"}, f[0]):
			t.Errorf("%q is not an instruction that this file uses", l)
		}
	}
	if stages != 2 || !strings.Contains(text, "\nFROM scratch\n") {
		t.Errorf("%d stages; want one that builds and FROM scratch", stages)
	}
}

// TestMaintainerScripts checks the scripts of the Debian package with the shell that runs them. What they do is
// checked by test/packages, in a Debian.
func TestMaintainerScripts(t *testing.T) {
	for _, name := range []string{"postinst", "prerm", "postrm"} {
		text := read(t, "debian/"+name)
		if !strings.HasPrefix(text, "#!/bin/sh\n") || !strings.Contains(text, "\nset -e\n") {
			t.Errorf("%s does not begin as a script that stops at the first error", name)
		}
		if out, err := exec.Command("sh", "-n", "debian/"+name).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
