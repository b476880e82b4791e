package node

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/config"
)

func buildNode(t *testing.T, set ...string) *node {
	t.Helper()
	cfg, err := config.Load(config.Source{Data: t.TempDir(), Set: set, FreePorts: true, Env: os.Environ()})
	if err != nil {
		t.Fatal(err)
	}
	n, err := build(t.Context(), cfg, "test", quiet(), serving)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.close)
	return n
}

// TestEdgeIsRebuiltOnTheSamePorts ends the edge as a failure would, and checks what a restart must preserve: the ports,
// which peers know, and the metrics, which cannot be registered twice.
func TestEdgeIsRebuiltOnTheSamePorts(t *testing.T) {
	t.Parallel()
	n := buildNode(t)
	var first []string
	for round := range 3 {
		run, err := n.calls.open(t.Context())
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		var got []string
		for _, l := range n.calls.edge().Listening() {
			got = append(got, l.Transport+" "+l.Address.String())
		}
		if round == 0 {
			first = got
		}
		if strings.Join(got, ",") != strings.Join(first, ",") || len(got) != 3 {
			t.Errorf("round %d listens on %v, before on %v", round, got, first)
		}
		if _, err := n.gather(); err != nil {
			t.Errorf("round %d: metrics: %v", round, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- run(ctx) }()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		if n.calls.edge() != nil {
			t.Error("an edge that has ended is still in use")
		}
	}
}

// TestDrainingOutlivesARestartOfTheEdge drains through the management API, then ends the edge.
func TestDrainingOutlivesARestartOfTheEdge(t *testing.T) {
	t.Parallel()
	n := buildNode(t)
	if err := drain(t.Context(), n, true); err == nil {
		t.Error("a node without a running edge reports that it drains")
	}
	if _, err := n.calls.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := drain(t.Context(), n, true); err != nil {
		t.Fatal(err)
	}
	end(t, n)
	run, err := n.calls.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !n.calls.edge().Draining() {
		t.Error("the edge accepts calls again after a restart")
	}
	if err := drain(t.Context(), n, false); err != nil || n.calls.edge().Draining() {
		t.Errorf("drain --off: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = run(ctx)
}

// end runs and ends the open edge, to free its ports.
func end(t *testing.T, n *node) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.calls.edge().Run(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestReadinessSaysWhy(t *testing.T) {
	t.Parallel()
	n := buildNode(t)
	mux := http.NewServeMux()
	n.mountHealth(mux)
	ask := func(path string) (int, string) {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code, w.Body.String()
	}
	if code, body := ask("/healthz"); code != 200 || !strings.Contains(body, "alive") {
		t.Errorf("healthz: %d %s", code, body)
	}
	if code, body := ask("/readyz"); code != 503 || !strings.Contains(body, "edge: restarting") ||
		!strings.Contains(body, "index: ") {
		t.Errorf("readyz before anything runs: %d %s", code, body)
	}
	if code, body := ask("/readyz?role=portal"); code != 404 || !strings.Contains(body, "api, edge, worker") {
		t.Errorf("readyz of a role that the node does not have: %d %s", code, body)
	}
	r, err := n.supervisor.start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	n.announce(ctx, nil)
	if code, body := ask("/readyz"); code != 200 || !strings.Contains(body, `"reasons":[]`) {
		t.Errorf("readyz of a running node: %d %s", code, body)
	}
	if err := drain(t.Context(), n, true); err != nil {
		t.Fatal(err)
	}
	if code, body := ask("/readyz?role=edge"); code != 503 || !strings.Contains(body, "draining") {
		t.Errorf("readyz while draining: %d %s", code, body)
	}
	if err := r.stop(nil, time.Second, 5*time.Second); err != nil {
		t.Error(err)
	}
}

func TestInsecureIsRepeatedAtStart(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	cfg, err := config.Load(config.Source{Data: t.TempDir(), Env: os.Environ(),
		Set: []string{"provisioning.listen=0.0.0.0:0", "provisioning.insecure=true", "manage.listen=off",
			"metrics.listen=off", `calls.groups[0]={name: core, transport: udp, bind: {udp: "0.0.0.0:0"}, ` +
				`advertised: {udp: gw.example.com}, insecure: true}`}})
	if err != nil {
		t.Fatal(err)
	}
	n, err := build(t.Context(), cfg, "test", newLogger(&b, cfg.Log), serving)
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	r, err := n.supervisor.start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.stop(nil, time.Second, 5*time.Second); err != nil {
		t.Error(err)
	}
	n.logStart()
	for _, want := range []string{"insecure: plain HTTP", "insecure: SIP without TLS"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, &b)
		}
	}
}
