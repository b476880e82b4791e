package tenant_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/events"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/platform/secret"
	store "github.com/tandemgw/tandem/internal/store/tenants"
	"github.com/tandemgw/tandem/internal/tenants/drift"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
	"github.com/tandemgw/tandem/internal/tenants/snapshot"
	"github.com/tandemgw/tandem/internal/testkit"
)

// A customer is onboarded by a plan; what a person changes is found, and repaired by plans, some of it and all of it;
// the customer leaves, which is reported; the snapshot that was taken is restored.
func TestPlansFromOnboardingToRestore(t *testing.T) {
	t.Parallel()
	for _, trunk := range []plan.Trunk{plan.Derived, plan.Gateways} {
		t.Run(string(trunk), func(t *testing.T) {
			t.Parallel()
			b, ctx := newBed(t), t.Context()
			d, log := testkit.Open(t, testkit.SQLiteConfig(t)), slog.New(slog.NewTextHandler(t.Output(), nil))
			done := make(chan string, 100)
			q := flow.New(d, func(_ context.Context, tx *db.Tx, i flow.Item) error {
				if i.State == "" || i.Kind == drift.Kind && i.State == flow.Queued {
					tx.OnCommit(func() { done <- i.Kind })
				}
				return nil
			}, log, nil)
			s := store.New(d, nil, q, events.New(d, log, nil))
			ring, err := secret.Ephemeral()
			b.must(err)
			reader := snapshot.Reader{Tenants: s,
				Sources: func(context.Context, *onboard.Tenant) (snapshot.Source, error) { return b.reach, nil }}
			snapshots := &snapshot.Snapshots{Reader: reader, Store: s, Sealer: ring}
			planner := &onboard.Planner{Store: s,
				Deployment: onboard.Deployment{Prefix: "Tandem-E164", Base: "gw.example",
					Regions: []string{"1r1", "1r2"}, Port: 5061,
					Labels: func(context.Context, string) ([]domain.Label, error) { return nil, nil },
					Taken:  func(context.Context, string, string) (bool, error) { return false, nil }},
				Sources:  func(context.Context, *onboard.Tenant) (onboard.Source, error) { return b.reach, nil },
				Missing:  func(context.Context) ([]string, error) { return nil, nil },
				TenantID: func(context.Context, string) (string, error) { return b.tenant.ID, nil },
				Restored: snapshots.Restore,
				Leaving: func(ctx context.Context, t *onboard.Tenant, _ plan.State, _ plan.Ledger) error {
					_, err := snapshots.Take(ctx, t.Account, snapshot.Leave)
					return err
				}}
			rows := store.Drift{Store: s}
			checker := &drift.Checker{Reader: reader, Store: rows, Log: log,
				Every: func(string) time.Duration { return time.Hour },
				Repair: func(ctx context.Context, account string, p *plan.Plan,
					users []plan.Made) (string, error) {
					return planner.Repair(ctx, account, p, users, "test")
				}}
			onboarder := &onboard.Onboarder{Store: s,
				Clouds: func(context.Context, *onboard.Tenant) (onboard.Cloud, error) { return b.reach, nil },
				Left: func(ctx context.Context, t *onboard.Tenant, kept []plan.Note) error {
					_, err := snapshots.ReportLeave(ctx, t.Account, "", kept)
					return err
				}}

			work, cancel := context.WithCancel(ctx)
			stopped := make(chan error)
			none := func(context.Context, string, int) ([]string, error) { return nil, nil }
			compare := checker.Kind(nil)
			compare.List = none
			go func() {
				stopped <- q.Run(work, []*flow.Kind{compare,
					{Name: onboard.Kind, Reconcile: onboarder.Reconcile, List: none}})
			}()
			defer func() {
				cancel()
				b.must(<-stopped)
			}()
			wait := func(kind string) {
				t.Helper()
				limit := time.After(time.Minute)
				for tick := time.NewTicker(20 * time.Millisecond); ; {
					select {
					case <-tick.C:
						b.cloud.Advance(20 * time.Second)
					case k := <-done:
						if k == kind {
							return
						}
					case <-limit:
						items, err := q.List(ctx, "", "", flow.Key{}, 10)
						t.Fatalf("not done: %+v, %v", items, err)
					}
				}
			}
			apply := func(id string) {
				t.Helper()
				_, err := planner.Apply(ctx, "contoso", id)
				b.must(err)
				wait(onboard.Kind)
			}
			carryOut := func(purpose onboard.Purpose, snapshot string) *onboard.Proposal {
				t.Helper()
				p, err := planner.Plan(ctx, "contoso", onboard.Order{Purpose: purpose, Snapshot: snapshot},
					"test")
				b.must(err)
				apply(p.ID)
				return p
			}
			route := plan.Ref{Type: plan.Route, Name: "Tandem-E164"}
			change := func(field string, v any) {
				t.Helper()
				b.must(b.reach.Do(ctx, plan.Step{Action: plan.Change, Ref: route,
					Differences: []plan.Difference{{Field: field, New: v}}}))
			}
			has := func(field string) any {
				t.Helper()
				o, _, err := b.reach.Get(ctx, route)
				b.must(err)
				return o.Fields[field]
			}

			before := b.content()
			b.must(s.Update(ctx, nil, "contoso", "", func(ctx context.Context, tx onboard.Tx) error {
				return tx.SetTenant(ctx, &onboard.Tenant{Account: "contoso", ID: b.tenant.ID,
					Wishes: onboard.Wishes{Label: "contoso", Trunk: trunk, Dial: onboard.Dial{Country: "GB"}}})
			}))
			carryOut(onboard.Onboard, "")
			joined := b.content()

			change("pattern", `^\+44`)
			change("priority", 9)
			b.must(rows.Check(ctx, "contoso"))
			wait(drift.Kind)
			state, err := rows.State(ctx, "contoso")
			b.must(err)
			if len(state.Differences) != 2 || state.Differences[0].Field != "pattern" {
				t.Fatalf("differences: %+v", state)
			}
			id, err := checker.Plan(ctx, "contoso", state.Differences[0].ID)
			b.must(err)
			apply(id)
			if has("pattern") != ".*" || has("priority") != 9 {
				t.Errorf("after some was repaired: %v, %v", has("pattern"), has("priority"))
			}
			carryOut(onboard.Repair, "")
			if diff := cmp.Diff(joined, b.content()); diff != "" {
				t.Errorf("after all was repaired:\n%s", diff)
			}

			carryOut(onboard.Leave, "")
			b.purge()
			if diff := cmp.Diff(before, b.content()); diff != "" {
				t.Errorf("after leaving:\n%s", diff)
			}
			report, err := s.Report(ctx, "contoso", snapshot.Latest)
			b.must(err)
			for _, o := range report.Outcomes {
				if o.Fate != snapshot.Gone {
					t.Errorf("reported: %+v", o)
				}
			}

			p := carryOut(onboard.Restore, report.Snapshot)
			if len(p.Stays) > 0 || len(report.Outcomes) == 0 {
				t.Errorf("plan: %+v; report: %+v", p, report)
			}
			if diff := cmp.Diff(joined, b.content()); diff != "" {
				t.Errorf("restored:\n%s", diff)
			}
		})
	}
}
