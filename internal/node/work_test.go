package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/flow"
)

// TestWorkBecomesEvents: a step and the end of a run are events; reasons, which may quote outside services, are not.
func TestWorkBecomesEvents(t *testing.T) {
	t.Parallel()
	c := buildNode(t).core
	start, err := c.events.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	key := flow.Key{Kind: "tenant", ID: "t1"}
	err = c.db.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
		return errors.Join(
			c.progress(ctx, tx, flow.Item{Key: key, State: flow.Running, Reason: "3 of 10 domains"}),
			c.progress(ctx, tx, flow.Item{Key: key, State: flow.Parked, Reason: "the tenant said no"}),
			c.progress(ctx, tx, flow.Item{Key: key}))
	})
	if err != nil {
		t.Fatal(err)
	}
	found, _, err := c.events.Read(t.Context(), start, false, 10)
	if err != nil {
		t.Fatal(err)
	}
	var got []any
	for _, e := range found {
		got = append(got, e.Kind, e.Subject, e.Data["step"])
	}
	want := []any{"work.running", "tenant/t1", "3 of 10 domains", "work.parked", "tenant/t1", nil, "work.done",
		"tenant/t1", nil}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events differ (-want +got):\n%s", diff)
	}
}

// TestAnEarlierConfigurationLeavesNoWork: keys that no worker runs any more would be overdue forever.
func TestAnEarlierConfigurationLeavesNoWork(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // for the name server and the authority: it never answers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="), 0o600); err != nil {
		t.Fatal(err)
	}
	names := fmt.Sprintf(`nameServers: [{name: ns1.example.net, checkAt: [%q]}], contact: hostmaster@example.net,
		regions: [{edges: [{name: e1, addresses: [192.0.2.1], tls: 5061}]},
		{edges: [{name: e1, addresses: [198.51.100.1], tls: 5061}]}]`, silent.Addr())
	base := "calls.routing.baseDomain=gw.example.com"
	former := []string{base, fmt.Sprintf(`zone={%s, publish: update, update: {server: %q,
		key: {name: k.example.net, secretFile: %q}}}`, names, silent.Addr(), secret),
		fmt.Sprintf(`certificates={directory: "https://%s/", acceptTerms: true}`, silent.Addr())}

	for name, c := range map[string]struct {
		set  []string
		want []string
	}{
		"no zone":                   {nil, nil},
		"the zone served":           {[]string{base, "zone={" + names + "}"}, []string{"zone/status"}},
		"the operator runs the DNS": {[]string{base, "zone={" + names + ", publish: none}"}, []string{"zone/status"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			start := func(set []string, want []string) (stop func()) {
				t.Helper()
				cfg, err := config.Load(config.Source{Data: dir, Set: set, FreePorts: true, Env: os.Environ()})
				if err != nil {
					t.Fatal(err)
				}
				n, err := build(t.Context(), cfg, "test", quiet(), serving)
				if err != nil {
					t.Fatal(err)
				}
				r, err := n.supervisor.start(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				stop = sync.OnceFunc(func() {
					if err := r.stop(nil, 0, 5*time.Second); err != nil {
						t.Error(err)
					}
					n.close()
				})
				t.Cleanup(stop)
				eventually(t, fmt.Sprintf("work %q with the configuration %q", want, set), func() bool {
					items, err := n.core.work.List(t.Context(), "", "", flow.Key{}, 10)
					var got []string
					for _, i := range items {
						got = append(got, i.Kind+"/"+i.ID)
					}
					return err == nil && slices.Equal(got, want)
				})
				return stop
			}
			start(former, []string{"certificate/acme", "zone/status", "zone-update/all"})()
			start(c.set, c.want)()
		})
	}
}
