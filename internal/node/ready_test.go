package node

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/testkit"
)

// runNode starts the parts of a node and ends them with the test.
func runNode(t *testing.T, set ...string) *node {
	t.Helper()
	n := buildNode(t, set...)
	r, err := n.supervisor.start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.stop(nil, time.Second, 5*time.Second); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	n.announce(ctx, nil)
	return n
}

func (n *node) ask(t *testing.T, method, path, body string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(context.WithValue(t.Context(), localUserKey{}, "local:ada.l"), method, path,
		strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	n.local().ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(60 * time.Second); !ok(); {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("never: %s", what)
		}
	}
}

// TestReadinessFollowsWrites: a node whose database file was replaced is ready for calls but not for the API, and
// reports why, where and since when.
func TestReadinessFollowsWrites(t *testing.T) {
	t.Parallel()
	n := runNode(t)
	file := n.cfg.Database.File
	if code, body := n.ask(t, "GET", "/readyz?role=api", ""); code != 200 {
		t.Fatalf("at start: %d %s", code, body)
	}
	if err := os.Rename(file, file+".away"); err != nil {
		t.Fatal(err)
	}
	var code int
	var body string
	eventually(t, "the role api is not ready", func() bool {
		code, body = n.ask(t, "GET", "/readyz?role=api", "")
		return code == 503
	})
	since := n.core.db.Status().Since.UTC().Format(time.RFC3339)
	for _, want := range []string{file, "removed or replaced", "since " + since} {
		if !strings.Contains(body, want) || strings.Contains(body, "Repeatab") {
			t.Errorf("/readyz?role=api answers %s, want %q", body, want)
		}
	}
	if code, body := n.ask(t, "GET", "/readyz", ""); code != 200 || !strings.Contains(body, "removed or replaced") {
		t.Errorf("/readyz: %d %s, want ready for calls with a warning", code, body)
	}
	var h api.Health
	_, body = n.ask(t, "GET", "/manage/v1/health", "")
	if err := json.Unmarshal([]byte(body), &h); err != nil {
		t.Fatal(err)
	}
	if d := h.Database; d.Available || d.Writable || d.Location != file || !strings.Contains(d.Error, "removed") ||
		d.Since.IsZero() || strings.Contains(body, "Repeatab") {
		t.Errorf("health: %s", body)
	}
	if code, body := n.ask(t, "PUT", "/accounts/contoso?api-version=2024-02-29-preview", `{"name":"contoso",
		"serviceDetails":{"zoomPhoneCloudPeering":{"enabled":true,"syncEnabled":false}}}`); code != 503 {
		t.Errorf("a write got %d %s", code, body)
	}
	if err := os.Rename(file+".away", file); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the role api is ready again", func() bool {
		code, _ = n.ask(t, "GET", "/readyz?role=api", "")
		return code == 200
	})
}

// TestDrainIsAudited: the audit log records who drained the node and who ended that; without the database the node
// still drains.
func TestDrainIsAudited(t *testing.T) {
	t.Parallel()
	n := runNode(t)
	put := func(body string) {
		t.Helper()
		if code, answer := n.ask(t, "PUT", "/manage/v1/drain", body); code != 200 {
			t.Errorf("PUT drain %s: %d %s", body, code, answer)
		}
	}
	put(`{"draining":true}`)
	put(`{"draining":true}`) // changes nothing
	put(`{"draining":false}`)
	var rows []string
	for _, r := range testkit.AuditLog(t, n.core.db) {
		if strings.HasPrefix(r.Action, "node.") {
			rows = append(rows, r.Action+" "+r.Target+" by "+r.Actor.Kind+" "+r.Actor.ID)
		}
	}
	want := "node.drain n1 by administrator local:ada.l, node.undrain n1 by administrator local:ada.l"
	if strings.Join(rows, ", ") != want {
		t.Errorf("the audit log has %v, want %s", rows, want)
	}

	file := n.cfg.Database.File
	if err := os.Rename(file, file+".away"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the database is unavailable", func() bool { return !n.core.db.Status().Available })
	put(`{"draining":true}`)
	if !n.calls.edge().Draining() {
		t.Error("the node does not drain without its database")
	}
	if err := os.Rename(file+".away", file); err != nil {
		t.Fatal(err)
	}
}

// TestWhatWasDoneIsAuditedThoughTheClientLeft: the action of a client that disconnects before the answer is in the
// audit log.
func TestWhatWasDoneIsAuditedThoughTheClientLeft(t *testing.T) {
	t.Parallel()
	n := runNode(t)
	ctx, leave := context.WithCancel(domain.WithActor(t.Context(), domain.Actor{Kind: "client", ID: "gone"}))
	leave()
	if err := drain(ctx, n, true); err != nil {
		t.Fatal(err)
	}
	if _, err := reload(ctx, n); err != nil {
		t.Fatal(err)
	}
	var rows []string
	for _, r := range testkit.AuditLog(t, n.core.db) {
		if r.Actor.ID == "gone" {
			rows = append(rows, r.Action)
		}
	}
	if want := "node.drain, config.reload"; strings.Join(rows, ", ") != want {
		t.Errorf("the audit log has %v, want %s", rows, want)
	}
}

// TestPeersAreNeverUpBeforeTheyAnswer: nothing listens at the peer's address. Its state goes from unknown to down, and
// status reports that every peer of the group is down.
func TestPeersAreNeverUpBeforeTheyAnswer(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	unused := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	n := runNode(t, `calls.groups[0]={name: core, transport: tcp, bind: {tcp: "127.0.0.1:0"}, `+
		`options: {every: 1s, timeout: 500ms, downAfter: 2, upAfter: 1}, peers: [{name: a, address: "`+unused+`"}]}`)
	states := map[api.PeerState]bool{}
	eventually(t, "the peer is down", func() bool {
		p := n.calls.peers()[0].Peers[0]
		states[p.State] = true
		if p.State == "up" {
			t.Fatalf("a peer that has never answered is up: %+v", p)
		}
		return p.State == "down" && strings.Contains(p.Reason, "refused")
	})
	if !states["unknown"] {
		t.Errorf("the states were %v, want unknown first", states)
	}
	if code, body := n.ask(t, "GET", "/readyz", ""); code != 200 ||
		!strings.Contains(body, "peer group core: every peer is down") {
		t.Errorf("/readyz: %d %s", code, body)
	}
}

// A call counts for the group it comes from and for the one it goes to.
func TestPeerGroupsShowTheirCalls(t *testing.T) {
	t.Parallel()
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	n := runNode(t, `calls.groups[0]={name: core, transport: udp, bind: {udp: "127.0.0.1:0"}, `+
		`allowedSources: ["127.0.0.1"]}`, `calls.groups[1]={name: teams, service: teamsOperatorConnect, `+
		`transport: udp, bind: {udp: "127.0.0.2:0"}, peers: [{address: "`+silent.LocalAddr().String()+
		`", passive: true}]}`, `calls.routing.peerGroupToService={core: teamsOperatorConnect}`,
		`calls.timers.failoverAfter=32s`)
	eventually(t, "the node takes calls", func() bool { return n.calls.edge().Ready() == nil })
	caller, err := net.Dial("udp", n.calls.edge().Listening()[0].Address.String())
	if err != nil {
		t.Fatal(err)
	}
	defer caller.Close()
	request := func(method, body string) string {
		return strings.ReplaceAll(method+` sip:+442079460100@127.0.0.1 SIP/2.0
Via: SIP/2.0/UDP `+caller.LocalAddr().String()+`;branch=z9hG4bK1
Max-Forwards: 70
From: <sip:+442079460101@127.0.0.1>;tag=1
To: <sip:+442079460100@127.0.0.1>
Call-ID: 1
CSeq: 1 `+method+`
Contact: <sip:`+caller.LocalAddr().String()+`>
Content-Type: application/sdp
Content-Length: `+strconv.Itoa(len(body))+`

`, "\n", "\r\n") + body
	}
	calls := func(want int) func() bool {
		return func() bool {
			g := n.calls.peers()
			return g[0].Calls == want && g[1].Calls == want
		}
	}
	for _, step := range []struct {
		method, body string
		want         int
	}{{"INVITE", "v=0", 1}, {"CANCEL", "", 0}} {
		if _, err := caller.Write([]byte(request(step.method, step.body))); err != nil {
			t.Fatal(err)
		}
		eventually(t, step.method+" to count", calls(step.want))
	}
}

// TestLameDuck: after the signal the node is unready but accepts requests; a second signal ends it at once.
func TestLameDuck(t *testing.T) {
	t.Parallel()
	cfg, err := config.Load(config.Source{Data: t.TempDir(), Set: []string{"shutdown.lameDuck=10m"}, FreePorts: true,
		Env: os.Environ()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, signal := context.WithCancel(t.Context())
	defer signal()
	cut := make(chan struct{})
	ready, ended := make(chan Ready, 1), make(chan error, 1)
	log := NewOutput(io.Discard)
	t.Cleanup(log.Close)
	go func() {
		ended <- Serve(ctx, Options{Config: cfg, Version: "test", Log: log,
			Ready: func(r Ready) { ready <- r }, Cut: cut})
	}()
	r := <-ready
	get := func(url string) (int, string) {
		t.Helper()
		// a new connection for each request, to check the listener
		c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		res, err := c.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(b)
	}
	base := strings.TrimSuffix(r.Metrics, "/metrics")
	signal()
	eventually(t, "/readyz is 503", func() bool { code, _ := get(base + "/readyz?role=api"); return code == 503 })
	if _, body := get(base + "/readyz"); !strings.Contains(body, "shutting down") {
		t.Errorf("/readyz answers %s", body)
	}
	if code, body := get(r.Provisioning + "/accounts?api-version=2024-02-29-preview"); code != 401 {
		t.Errorf("a new request in the lame-duck time got %d %s, want the usual answer (401 without a token)", code,
			body)
	}
	select {
	case err := <-ended:
		t.Fatalf("ended early: %v", err)
	default:
	}
	close(cut)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
