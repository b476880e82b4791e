package config_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/config/strict"
)

var update = flag.Bool("update", false, "rewrite the expected part of testdata")

func load(t *testing.T, text string, set ...string) (*config.Loaded, error) {
	t.Helper()
	return config.Load(config.Source{File: "tandem.yaml", Text: []byte(text), Set: set, Data: t.TempDir(),
		Env: []string{}})
}

// TestMistakes reads testdata/*.txt: a file with mistakes, a line "----", and the messages about it.
func TestMistakes(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			in, want, _ := strings.Cut(string(text), "----\n")
			if _, err = config.Load(config.Source{File: "tandem.yaml", Text: []byte(in), Data: t.TempDir(),
				Env: []string{}, Machine: true}); err == nil {
				t.Error("accepted on a machine")
			}
			_, err = config.Load(config.Source{File: "tandem.yaml", Text: []byte(in), Data: "/nowhere",
				Env: []string{}})
			got := "no mistakes\n"
			if err != nil {
				got = err.Error() + "\n"
			}
			if *update {
				if err := os.WriteFile(file, []byte(in+"----\n"+got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("mistakes of %s (-want +got):\n%s", file, diff)
			}
		})
	}
}

func TestNoConfigurationIsValidAndLoopbackOnly(t *testing.T) {
	t.Parallel()
	l, err := config.Load(config.Source{Env: []string{"HOME=/home/x", "XDG_STATE_HOME=/var/tmp/state"}})
	if err != nil {
		t.Fatal(err)
	}
	var addrs []string
	for _, x := range []config.Listener{l.Metrics, l.Manage.Listener, l.Provisioning.Listener} {
		addrs = append(addrs, x.Listen)
	}
	for _, g := range l.Calls.Edge.Groups {
		addrs = append(addrs, g.Bind.UDP, g.Bind.TCP, g.Bind.TLS)
	}
	for _, a := range addrs {
		if !strings.HasPrefix(a, "127.0.0.1:") {
			t.Errorf("listens on %q by default", a)
		}
	}
	if l.Database.File != filepath.Join(l.Data, "tandem.db") || !filepath.IsAbs(l.Data) {
		t.Errorf("database %q in %q", l.Database.File, l.Data)
	}
	if len(l.Generated) != 1 {
		t.Errorf("generated certificates for %v", l.Generated)
	}
}

func TestDataDirectory(t *testing.T) {
	t.Parallel()
	root := os.Geteuid() == 0
	for _, c := range []struct{ env, want string }{
		{"TANDEM_DATA=/d", "/d"},
		{"XDG_STATE_HOME=/s", "/s/tandem"},
		{"HOME=/h", "/h/.local/state/tandem"},
		{"", "tandem-data"},
	} {
		want := c.want
		if root && !strings.HasPrefix(c.env, "TANDEM") {
			want = "/var/lib/tandem"
		}
		if got := config.DefaultData([]string{c.env}); got != want {
			t.Errorf("DefaultData(%q) = %q, want %q", c.env, got, want)
		}
	}
}

func TestExampleIsValidAndComplete(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	if err := config.WriteExample(&b); err != nil {
		t.Fatal(err)
	}
	l, err := config.Load(config.Source{File: "example.yaml", Text: []byte(b.String()), Env: []string{}})
	if err != nil {
		t.Fatalf("the example is refused:\n%v", err)
	}
	// The documented values must be the actual ones: writing the loaded configuration gives the same settings again.
	var again strings.Builder
	if err := l.WriteShown(&again); err != nil {
		t.Fatal(err)
	}
	again2, err := config.Load(config.Source{File: "shown.yaml", Text: []byte(again.String()), Env: []string{}})
	if err != nil {
		t.Fatalf("the output of config show is refused:\n%v", err)
	}
	want, err := l.Tree()
	got, err2 := again2.Tree()
	if diff := cmp.Diff(want, got); diff != "" || err != nil || err2 != nil {
		t.Errorf("config show does not read back to the same settings: %v, %v\n%s", err, err2, diff)
	}
	for _, line := range strings.Split(b.String(), "\n") {
		if len([]rune(line)) > 120 {
			t.Errorf("line of %d characters: %s", len(line), line)
		}
	}
}

// TestEveryFieldIsDocumented walks the types: a field without documentation cannot be in the example.
func TestEveryFieldIsDocumented(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	seen := map[reflect.Type]bool{}
	fields := 0
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			walk(typ.Elem())
			return
		case reflect.Struct:
		default:
			return
		}
		if seen[typ] || !strings.Contains(typ.PkgPath(), "tandem") {
			return
		}
		seen[typ] = true
		for i := range typ.NumField() {
			f := typ.Field(i)
			tag := f.Tag.Get("yaml")
			if !f.IsExported() || tag == "-" {
				continue
			}
			if tag == "" {
				b.WriteString(typ.String() + "." + f.Name + " has no yaml tag\n")
				continue
			}
			fields++
			if !strings.HasSuffix(tag, ",inline") && config.FieldDoc(typ, f.Name) == "" {
				b.WriteString(typ.String() + "." + f.Name + " has no documentation (run make generate)\n")
			}
			walk(f.Type)
		}
	}
	walk(reflect.TypeFor[config.Config]())
	if b.Len() > 0 {
		t.Error(b.String())
	}
	if fields < 60 {
		t.Errorf("only %d fields seen", fields)
	}
}

func TestShowMasksSecrets(t *testing.T) {
	t.Parallel()
	l, err := load(t, "database: {driver: postgres, url: 'postgres://u:hunter2@127.0.0.1/t'}\n")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := l.WriteShown(&b); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "hunter2") || !strings.Contains(b.String(), strict.Masked) {
		t.Errorf("shown:\n%s", b.String())
	}
}

func TestSetOverridesAnything(t *testing.T) {
	t.Parallel()
	l, err := load(t, `log: {level: info}
calls: {groups: [{name: core, transport: udp, bind: {udp: '127.0.0.1:5060'}}]}
`,
		"log.level=debug", "calls.groups[0].bind.udp=127.0.0.1:5080",
		"calls.groups[1]={name: dr, service: teamsDirectRouting, transport: tcp, bind: {tcp: '127.0.0.1:5090'}}",
		"calls.groups[1].peers[0].address=127.0.0.1:7000", "calls.timers.failoverAfter=2s",
		"calls.routing.baseDomain=gw.example.com", "calls.routing.countries=[GB]",
		"calls.routing.peerGroupToService.core=teamsOperatorConnect", "calls.routing.peerGroupToService={}")
	if err != nil {
		t.Fatal(err)
	}
	e := l.Calls.Edge
	if l.Log.Level != "debug" || e.Groups[0].Bind.UDP != "127.0.0.1:5080" ||
		e.Groups[1].Peers[0].Address != "127.0.0.1:7000" || e.Groups[1].Peers[0].Name == "" {
		t.Errorf("configuration %+v", e)
	}
	for set, want := range map[string]string{"[1R1, x]": "1r1 x", "[]": "1r1 1r2"} { // as calls use them
		l, err = load(t, "", "calls.routing.regions="+set)
		if err != nil || strings.Join(l.Calls.Routing.Regions, " ") != want {
			t.Errorf("regions %s are %v, error %v; want %s", set, l.Calls.Routing.Regions, err, want)
		}
	}
	_, err = load(t, "", "log.level=loud", "calls.groups[0].name=x", "provisioning.listen=0.0.0.0:80")
	want := `--set: log.level: "loud" is not valid; use one of debug, info, warn, error`
	if err == nil || !strings.Contains(err.Error(), want) ||
		!strings.Contains(err.Error(), "provisioning.listen: 0.0.0.0:80 is reachable from other machines") {
		t.Errorf("errors:\n%v\nwant among them:\n%s", err, want)
	}
}

func TestFreePortsKeepWhatIsShared(t *testing.T) {
	t.Parallel()
	text := `calls:
  groups:
    - {name: a, transport: udp, bind: {udp: "192.0.2.1:5060", tcp: "192.0.2.1:5060"},
       advertised: {udp: "gw.example.com:5060"}, allowedSources: [10.0.0.1], insecure: true}
    - {name: b, service: zoomPhoneCloudPeering, transport: udp, bind: {udp: "192.0.2.1:5060"},
       advertised: {udp: "gw.example.com:5060"}, allowedSources: [10.0.0.2], insecure: true}
    - {name: c, service: teamsOperatorConnect, transport: udp, bind: {udp: "127.0.0.9:5061"},
       advertised: {udp: "gw.example.com:7777"}}
`
	l, err := config.Load(config.Source{File: "t", Text: []byte(text), Data: t.TempDir(), FreePorts: true,
		Env: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	g := l.Calls.Edge.Groups
	if g[0].Bind.UDP != g[1].Bind.UDP || g[0].Bind.UDP != g[0].Bind.TCP ||
		!strings.HasPrefix(g[0].Bind.UDP, "127.0.0.1:") || g[0].Bind.UDP == "127.0.0.1:5060" {
		t.Errorf("a and b: %+v %+v", g[0].Bind, g[1].Bind)
	}
	_, port, _ := strings.Cut(g[0].Bind.UDP, ":")
	if g[0].Advertised.UDP != "gw.example.com:"+port || g[2].Advertised.UDP != "gw.example.com:7777" {
		t.Errorf("advertised %q and %q", g[0].Advertised.UDP, g[2].Advertised.UDP)
	}
	if !strings.HasPrefix(g[2].Bind.UDP, "127.0.0.9:") || l.Provisioning.Listen != "127.0.0.1:0" {
		t.Errorf("c: %q, provisioning %q", g[2].Bind.UDP, l.Provisioning.Listen)
	}
}

// Addresses that differ get ports that differ.
func TestFreePortsDiffer(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	text.WriteString("calls:\n  groups:\n")
	for i := range 300 {
		fmt.Fprintf(&text, "    - {name: g%d, transport: udp, bind: {udp: \"127.0.0.1:%d\"}, "+
			"allowedSources: [10.0.0.1]}\n", i, 5000+i)
	}
	l, err := config.Load(config.Source{File: "t", Text: []byte(text.String()), Data: t.TempDir(), FreePorts: true,
		Env: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]string{}
	for _, g := range l.Calls.Edge.Groups {
		if other := used[g.Bind.UDP]; other != "" {
			t.Errorf("%s and %s both get %s", other, g.Name, g.Bind.UDP)
		}
		used[g.Bind.UDP] = g.Name
	}
}

func TestFileThatIsNotThere(t *testing.T) {
	t.Parallel()
	_, err := config.Load(config.Source{File: "/no/such/file.yaml"})
	if err == nil || !strings.Contains(err.Error(), "tandem config example") {
		t.Errorf("error %v", err)
	}
}

func FuzzLoad(f *testing.F) {
	var b strings.Builder
	if err := config.WriteExample(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.String())
	f.Add("calls:\n  groups:\n    - name: core\n      peers: [{address: '[::1]:5060'}]\n")
	f.Add("roles: [edge, edge]\nlog: {level: x}\n")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := config.Load(config.Source{File: "f", Text: []byte(text), Data: "/d", Env: []string{}})
		if err != nil {
			if len(err.(strict.Problems)) == 0 {
				t.Fatal("refused without a reason")
			}
			return
		}
		var shown strings.Builder
		if err := l.WriteShown(&shown); err != nil {
			t.Fatal(err)
		}
		if _, err := config.Load(config.Source{File: "f", Text: []byte(shown.String()), Env: []string{}}); err != nil &&
			!strings.Contains(shown.String(), strict.Masked) {
			t.Fatalf("the output of config show is refused: %v\n%s", err, shown.String())
		}
	})
}
