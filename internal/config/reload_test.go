package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tandemgw/tandem/internal/config"
)

const running = `
log: {level: info}
provisioning: {requestsPerMinute: 100, allowedSources: [192.0.2.0/24]}
calls:
  limits: {maxCalls: 100}
  routing: {baseDomain: gw.example.com}
  groups:
    - {name: core-a, transport: udp, bind: {udp: "127.0.0.1:5060"}, peers: [{name: a, address: "127.0.0.1:7060"}]}
    - {name: core-b, transport: udp, bind: {udp: "127.0.0.1:5061"}, maxCalls: 5}
`

func TestReloadTakesOverWhatCanChange(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change           []string // pairs: text, its replacement
		applied, restart []string
		ok               func(*config.Loaded) bool
	}{
		"nothing":   {},
		"a comment": {change: []string{"log:", "# new\nlog:"}},
		"levels": {change: []string{"{level: info}", "{level: warn, levels: {edge: debug}}"},
			applied: []string{"log.level", "log.levels"},
			ok:      func(l *config.Loaded) bool { return l.Log.Level == "warn" && l.Log.Levels["edge"] == "debug" }},
		"format": {change: []string{"{level: info}", "{format: json}"}, restart: []string{"log.format"},
			ok: func(l *config.Loaded) bool { return l.Log.Format == "text" }},
		"limits and sources": {change: []string{"100, allowed", "200, allowed", "192.0.2.0/24", "198.51.100.0/24",
			"maxCalls: 100", "maxCalls: 7"},
			applied: []string{"provisioning.allowedSources", "provisioning.requestsPerMinute", "calls.limits.maxCalls"},
			ok: func(l *config.Loaded) bool {
				return l.Calls.Edge.Limits.MaxCalls == 7 && l.Provisioning.API.RequestsPerMinute == 200 &&
					l.Provisioning.Sources.AllowedSources[0] == "198.51.100.0/24"
			}},
		"TLS turned on": {change: []string{"provisioning: {",
			"provisioning: {certificateFile: c.pem, keyFile: c.key, "},
			restart: []string{"provisioning.certificateFile", "provisioning.keyFile"},
			ok:      func(l *config.Loaded) bool { return l.Provisioning.CertificateFile == "" }},
		"a header": {change: []string{"  routing", "  headers: {customSipHeader: X-Ref}\n  routing"},
			applied: []string{"calls.headers.customSipHeader"},
			ok:      func(l *config.Loaded) bool { return l.Calls.Headers.CustomSIPHeader == "X-Ref" }},
		"a group's and a peer's": {change: []string{"maxCalls: 5",
			"maxCalls: 6, maxCallsPerSecond: 3, allowedSources: [192.0.2.9]", `7060"}`,
			`7060", allowedSources: [192.0.2.8], weight: 3}`},
			applied: []string{"calls.groups[0].peers[0].allowedSources", "calls.groups[1].allowedSources",
				"calls.groups[1].maxCalls", "calls.groups[1].maxCallsPerSecond"},
			restart: []string{"calls.groups[0].peers[0].weight"},
			ok: func(l *config.Loaded) bool {
				a, b := l.Calls.Edge.Groups[0], l.Calls.Edge.Groups[1]
				return a.Peers[0].Weight == 1 && a.Peers[0].AllowedSources[0] == "192.0.2.8" && b.MaxCalls == 6
			}},
		"peers": {change: []string{"name: a, address", "name: c, address",
			`name: core-b, transport: udp, bind: {udp: "127.0.0.1:5061"}`,
			`name: core-b, transport: udp, bind: {udp: "127.0.0.1:5071"}`},
			restart: []string{"calls.groups[0].peers", "calls.groups[1].bind.udp"},
			ok:      func(l *config.Loaded) bool { return l.Calls.Edge.Groups[0].Peers[0].Name == "a" }},
		"another group before": {change: []string{"    - {name: core-a",
			"    - {name: core-0, transport: udp, bind: {udp: \"127.0.0.1:5059\"}}\n    - {name: core-a",
			"maxCalls: 5", "maxCalls: 6"},
			applied: []string{"calls.groups[2].maxCalls"}, restart: []string{"calls.groups"},
			ok: func(l *config.Loaded) bool {
				return len(l.Calls.Edge.Groups) == 2 && l.Calls.Edge.Groups[1].MaxCalls == 6
			}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "tandem.yaml")
			write := func(text string) {
				t.Helper()
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write(running)
			l, err := config.Load(config.Source{File: file, Data: t.TempDir(), Set: []string{"shutdown.drain=1s"},
				FreePorts: name == "nothing"})
			if err != nil {
				t.Fatal(err)
			}
			text := running
			for i := 0; i < len(c.change); i += 2 {
				if !strings.Contains(text, c.change[i]) {
					t.Fatalf("no %q in the text", c.change[i])
				}
				text = strings.Replace(text, c.change[i], c.change[i+1], 1)
			}
			write(text)
			before := *l
			for range 2 { // settings that need a restart are reported again, applied ones are not
				next, ch, err := l.Reload()
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff([][]string{c.applied, c.restart}, [][]string{ch.Applied, ch.Restart},
					cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("changes (-want +got):\n%s", diff)
				}
				if c.ok != nil && !c.ok(next) {
					t.Errorf("the merged configuration is wrong: %+v", next.Config)
				}
				if diff := cmp.Diff(before.Config, l.Config); diff != "" {
					t.Errorf("the running configuration was changed:\n%s", diff)
				}
				if next.Shutdown.Drain != l.Shutdown.Drain {
					t.Errorf("--set does not hold after a reload: %v", next.Shutdown)
				}
				l, before, c.applied = next, *next, nil
			}
		})
	}
}

func TestReloadReportsEveryMistake(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "tandem.yaml")
	if err := os.WriteFile(file, []byte(running), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := config.Load(config.Source{File: file, Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string][]string{
		strings.NewReplacer("maxCalls: 100", "maxCalls: -1", "level: info", "level: loud",
			"peers:", "pears:").Replace(running): {"calls.limits.maxCalls", "log.level", "pears"},
		"log: {levels: {edges: debug, edge: loud}}": {"log.levels.edges", `log.levels.edge: "loud"`},
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, _, err := l.Reload()
		if err == nil {
			t.Errorf("Reload: %v", err)
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q is not in %v", w, err)
			}
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Reload(); err == nil || !strings.Contains(err.Error(), "there is no such file") {
		t.Errorf("without the file: %v", err)
	}
}

// TestReloadChecksBothHalvesTogether: the new list of sources is valid with the new address of its group, but not with
// the old one, which stays until a restart.
func TestReloadChecksBothHalvesTogether(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "tandem.yaml")
	group := func(name, bind, source string) string {
		return "    - {name: " + name + ", transport: udp, bind: {udp: \"127.0.0.1:" + bind +
			"\"}, allowedSources: [" + source + "]}\n"
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte("calls:\n  groups:\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(group("a", "5060", "192.0.2.1") + group("b", "5060", "192.0.2.2"))
	l, err := config.Load(config.Source{File: file, Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	write(group("a", "5060", "192.0.2.1") + group("b", "5061", "192.0.2.1"))
	if _, _, err := l.Reload(); err == nil ||
		!strings.Contains(err.Error(), "192.0.2.1/32 is also a source of groups[0]") ||
		!strings.Contains(err.Error(), "only a restart applies") {
		t.Errorf("Reload: %v", err)
	}
}

// TestReloadToObtainedCertificates: a listener cannot use a certificate that is not obtained before a restart. The
// error does not ask for a setting that is there.
func TestReloadToObtainedCertificates(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "tandem.yaml")
	write := func(more string) {
		t.Helper()
		text := "calls: {routing: {baseDomain: gw.example.com}}\nzone:\n  contact: a@example.com\n  nameServers: " +
			"[{name: ns1.example.com}]\n  regions:\n    - edges: [{name: e1, addresses: [192.0.2.1], tls: 5061}]\n" +
			more
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("provisioning: {certificateFile: c.pem, keyFile: c.key}\n")
	l, err := config.Load(config.Source{File: file, Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	write("provisioning: {certificate: provapi}\n" +
		"certificates: {directory: \"https://ca.example/dir\", acceptTerms: true}\n")
	if _, _, err := l.Reload(); err == nil || !strings.Contains(err.Error(), "provisioning.certificate") ||
		!strings.Contains(err.Error(), "only a restart applies") {
		t.Errorf("Reload: %v", err)
	}
}
