package node

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/zone/check"
)

// ask sends a request over the Unix socket's handler. The header is a name and a value, or empty.
func ask(t *testing.T, h http.Handler, method, path, body string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if len(header) == 2 {
		r.Header[header[0]] = []string{header[1]}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// reload reloads the configuration as the management API does.
func reload(ctx context.Context, n *node) (api.Reload200JSONResponse, error) {
	r, err := n.Reload(ctx, api.ReloadRequestObject{})
	out, _ := r.(api.Reload200JSONResponse) // nil with an error
	return out, err
}

// drain changes the draining state as the management API does.
func drain(ctx context.Context, n *node, on bool) error {
	_, err := n.SetDrain(ctx, api.SetDrainRequestObject{Body: &api.Drain{Draining: on}})
	return err
}

// TestDrainingChangesOnlyFromTheStateThatWasRead: two administrators cannot undo each other's change unknowingly.
func TestDrainingChangesOnlyFromTheStateThatWasRead(t *testing.T) {
	t.Parallel()
	n := buildNode(t)
	if _, err := n.calls.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer end(t, n)
	h := n.local()
	const path, on, off = "/manage/v1/drain", `{"draining":true}`, `{"draining":false}`
	read := ask(t, h, "GET", path, "")
	accepting := read.Header().Get("ETag")
	if read.Code != 200 || !strings.Contains(read.Body.String(), off) || accepting == "" {
		t.Fatalf("getDrain: %d %v %s", read.Code, read.Header(), read.Body)
	}
	w := ask(t, h, "PUT", path, on, "If-Match", accepting)
	draining := w.Header().Get("ETag")
	if w.Code != 200 || draining == accepting || draining == "" {
		t.Fatalf("setDrain: %d %v %s", w.Code, w.Header(), w.Body)
	}
	for _, x := range []struct {
		tag    string
		status int
		code   string
	}{{accepting, 412, "ConditionNotMet"}, {"W/" + draining, 412, "ConditionNotMet"}, {"", 400, "InvalidHeaderValue"},
		{"true", 400, "InvalidHeaderValue"}} {
		w := ask(t, h, "PUT", path, off, "If-Match", x.tag)
		if w.Code != x.status || !strings.Contains(w.Body.String(), x.code) || !n.draining.Load() {
			t.Errorf("If-Match: %s: %d %s, want %d %s", x.tag, w.Code, w.Body, x.status, x.code)
		}
	}
	if got := ask(t, h, "GET", path, "").Header().Get("ETag"); got != draining {
		t.Errorf("ETag %s, want %s", got, draining)
	}
	if w := ask(t, h, "PUT", path, off, "If-Match", draining); w.Code != 200 || n.draining.Load() {
		t.Errorf("with the current tag: %d %s", w.Code, w.Body)
	}
	if w := ask(t, h, "PUT", path, on, "If-Match", "*"); w.Code != 200 || !n.draining.Load() {
		t.Errorf("with *: %d %s", w.Code, w.Body)
	}
}

// TestAbsentJobsSaySo: on a node without the edge, and in an offline command.
func TestAbsentJobsSaySo(t *testing.T) {
	t.Parallel()
	n := buildNode(t, `roles=["api"]`, "calls.node=n7", "database.driver=postgres",
		"database.url=postgres://127.0.0.1:1/none") // it does not answer
	edge := "does not have the role edge"
	for _, x := range [][4]string{{"GET", "peers", "", edge}, {"POST", "index/accept", `{"database":"d"}`, edge},
		{"POST", "explain", `{"from":"+1","to":"+2","peer":"core"}`, edge},
		{"POST", "zone/accept", "", "has no name server"}} {
		w := ask(t, n.local(), x[0], "/manage/v1/"+x[1], x[2])
		if w.Code != 409 || !strings.Contains(w.Body.String(), `"code":"NotOnThisNode"`) ||
			!strings.Contains(w.Body.String(), "node n7 "+x[3]) {
			t.Errorf("%s: %d %s", x[1], w.Code, w.Body)
		}
	}
	for path, want := range map[string]string{"carrier/app": "which is not set",
		"carrier/check": "OnboardingOff", "carrier/app/check": "OnboardingOff"} {
		if w := ask(t, n.local(), "GET", "/manage/v1/"+path, ""); w.Code != 409 ||
			!strings.Contains(w.Body.String(), want) {
			t.Errorf("%s without an app registration: %d %s; want %s", path, w.Code, w.Body, want)
		}
	}
	// What it must be can be read before there is one.
	n = buildNode(t, "calls.routing.baseDomain=gw.example")
	w := ask(t, n.local(), "GET", "/manage/v1/carrier/app", "")
	if w.Code != 200 || !strings.Contains(w.Body.String(), `"https://onboard.gw.example/callback"`) {
		t.Errorf("the app registration to make: %d %s", w.Code, w.Body)
	}
	used := buildNode(t)
	used.close()
	cfg, err := config.Load(config.Source{Data: used.cfg.Data, Env: os.Environ()})
	if err != nil {
		t.Fatal(err)
	}
	stop, err := Offline(t.Context(), cfg, "test", os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	c, err := client.NewSocket(cfg.Path(SocketName), client.Options{Attempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Health(t.Context()); !client.HasCode(err, "NotRunning") {
		t.Errorf("health without a server: %v", err)
	}
	if _, err := c.Peers(t.Context()); !client.HasCode(err, "NotRunning") {
		t.Errorf("peers without a server: %v", err)
	}
	if l, err := c.Clients(t.Context()); err != nil || len(l) > 0 {
		t.Errorf("clients without a server: %v, %v", l, err)
	}
}

// TestNamesOfTenants: what is known of a name at which calls would arrive.
func TestNamesOfTenants(t *testing.T) {
	t.Parallel()
	n := buildNode(t)
	if _, err := n.calls.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer end(t, n)
	if err := n.coversName(t.Context(), "localhost"); err != nil {
		t.Errorf("the loopback certificate: %v", err)
	}
	if err := n.coversName(t.Context(), "contoso.1r1.gw.example"); !fault.HasCode(err, "NoCertificate") {
		t.Errorf("another name: %v", err)
	}
	if err := n.answersName(t.Context(), "contoso.1r1.gw.example"); !fault.HasCode(err, "NoZone") {
		t.Errorf("without name servers: %v", err)
	}
	parent := check.Finding{Server: check.Server{Name: "parent"}, Problem: check.Unreachable, Text: "no such host"}
	silent := check.Finding{Server: check.Server{Name: "ns1", Addr: netip.MustParseAddrPort("192.0.2.1:53")},
		Problem: check.Unreachable, Text: "no answer"}
	if err := zoneFault([]check.Finding{parent}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("an unknown parent zone: %v", err)
	}
	if err := zoneFault([]check.Finding{parent, silent}); !fault.HasCode(err, "Zone") {
		t.Errorf("a name server that does not answer: %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := n.reachesTrunk(port)(t.Context(), "contoso.localhost"); err != nil {
		t.Errorf("a listener: %v", err)
	}
	_ = l.Close()
	if err := n.reachesTrunk(port)(t.Context(), "contoso.localhost"); !fault.HasCode(err, "Unreachable") {
		t.Errorf("none: %v", err)
	}
}
