package node

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/config"
)

// TestANewRoleIsOneBuilder adds a role to a process: its parts start after those before it and stop before them, its
// reasons and its part decide about its readiness, and it is closed first.
func TestANewRoleIsOneBuilder(t *testing.T) {
	t.Parallel()
	cfg, err := config.Load(config.Source{Data: t.TempDir(), FreePorts: true, Env: os.Environ()})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Roles = append(cfg.Roles, "dns")
	var n *node
	var events []string
	missing := "the zone is not loaded"
	dns := builder{"dns", func(_ *node, _ context.Context, r *role) error {
		r.parts = []part{{name: "zone", needed: true, open: func(context.Context) (func(context.Context) error, error) {
			if n.calls.edge() == nil {
				t.Error("the edge starts after a role that follows it")
			}
			return func(ctx context.Context) error {
				<-ctx.Done()
				if n.calls.edge() == nil {
					t.Error("the edge stopped before a role that follows it")
				}
				events = append(events, "stopped")
				return nil
			}, nil
		}}}
		r.ready = func(r *readiness) {
			if missing != "" {
				r.blocked("dns: %s", missing)
			}
		}
		r.health = func(h *api.Health) { h.Reasons = append(h.Reasons, "zone served") }
		r.close = func() { events = append(events, "closed") }
		return nil
	}}
	p := serving
	p.roles = append(slices.Clone(serving.roles), dns)
	if n, err = build(t.Context(), cfg, "test", quiet(), p); err != nil {
		t.Fatal(err)
	}
	running, err := n.supervisor.start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	reasons := func(name string) string { return strings.Join(n.readiness(name).reasons, "; ") }
	eventually(t, "everything but the new role is ready", func() bool { return reasons("") == "dns: "+missing })
	if got := reasons("edge") + reasons("api") + reasons("worker"); got != "" {
		t.Errorf("the new role makes others unready: %s", got)
	}
	missing = ""
	if got := reasons("dns"); got != "" {
		t.Errorf("the role is not ready: %s", got)
	}
	h, err := n.GetHealth(t.Context(), api.GetHealthRequestObject{})
	if err != nil || !slices.Contains(h.(api.GetHealth200JSONResponse).Reasons, "zone served") {
		t.Errorf("the health has %+v, %v", h, err)
	}
	if err := running.stop(nil, time.Second, 5*time.Second); err != nil {
		t.Error(err)
	}
	if got := reasons("dns"); !strings.HasPrefix(got, "zone: ") {
		t.Errorf("without its part the role has the reasons %q", got)
	}
	n.close()
	if got := strings.Join(events, ", "); got != "stopped, closed" {
		t.Errorf("events: %s", got)
	}
}

// TestAPartBlocksItsRoleOnly: a listener that could not be opened again makes the role api unready, also when asked for
// alone, and the others only through the whole node.
func TestAPartBlocksItsRoleOnly(t *testing.T) {
	t.Parallel()
	n := runNode(t)
	for i, s := range n.supervisor.state() {
		if s.Name == "provisioning" {
			n.supervisor.set(i, false, errors.New("address in use"))
		}
	}
	for path, status := range map[string]int{"/readyz": 503, "/readyz?role=api": 503, "/readyz?role=edge": 200,
		"/readyz?role=worker": 200} {
		code, body := n.ask(t, "GET", path, "")
		if code != status || strings.Contains(body, "provisioning: address in use") != (status == 503) {
			t.Errorf("%s: %d %s, want %d", path, code, body, status)
		}
	}
}

// TestAFailedBuildReleasesTheDirectory: a role that cannot be built leaves nothing locked.
func TestAFailedBuildReleasesTheDirectory(t *testing.T) {
	t.Parallel()
	cfg, err := config.Load(config.Source{Data: t.TempDir(), FreePorts: true, Env: os.Environ()})
	if err != nil {
		t.Fatal(err)
	}
	fails := builder{"", func(*node, context.Context, *role) error { return errors.New("no zone") }}
	p := serving
	p.roles = append(slices.Clone(serving.roles), fails)
	if _, err := build(t.Context(), cfg, "test", quiet(), p); err == nil || err.Error() != "no zone" {
		t.Fatalf("build: %v", err)
	}
	n, err := build(t.Context(), cfg, "test", quiet(), serving)
	if err != nil {
		t.Fatal(err)
	}
	n.close()
}
