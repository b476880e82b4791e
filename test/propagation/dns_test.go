package propagation

import (
	"context"
	"encoding/json"
	"log/slog"
	"testing"

	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/feed"
	"github.com/tandemgw/tandem/internal/platform/feed/outbox"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
	"github.com/tandemgw/tandem/internal/services"
	"github.com/tandemgw/tandem/internal/services/directrouting"
	"github.com/tandemgw/tandem/internal/store/provisioning"
	"github.com/tandemgw/tandem/internal/testkit"
)

func routing(t *testing.T) *route.Policy {
	t.Helper()
	cfg := route.Default()
	cfg.BaseDomain, cfg.EmergencyDialStrings = "gw.example.com", []string{"112"}
	cfg.ServiceToPeerGroup = map[string]string{"teamsDirectRouting": "core"}
	p, errs := cfg.Compile(services.All().Services(),
		[]route.Group{{Name: "core"}, {Name: "teams", Service: directrouting.Service}})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	return p
}

// TestCallsDoNotDependOnDNS: a label takes calls in both directions whatever its state in DNS, by an index that loads
// the database and by one that follows the feed; an explanation says so. Nodes of the release of November 2026 reject
// calls of accounts without subdomainLive, so it must be in every entry.
func TestCallsDoNotDependOnDNS(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		ctx := context.Background()
		log := slog.New(slog.DiscardHandler)
		o := outbox.New(d, outbox.Default(), log, nil)
		st := provisioning.New(d, o, services.All().Services())
		dir := directory.New(st, directory.Config{}, log, nil)
		run(t, d.Run, o.Run)
		if _, err := dir.PutAccount(ctx, account("contoso", "contoso", true), directory.Write{}); err != nil {
			t.Fatal(err)
		}
		n := number(1, "contoso", directrouting.Service, "")
		if _, err := dir.PutNumber(ctx, n, directory.Write{}); err != nil {
			t.Fatal(err)
		}
		follower := open(t, t.TempDir(), st.Source())
		run(t, follower.Run)
		policy := routing(t)

		for _, status := range []domain.SubdomainStatus{domain.SubdomainInconsistent, domain.SubdomainNotProvisioned,
			domain.SubdomainProvisioned} {
			var at feed.Position
			err := st.Update(ctx, func(ctx context.Context, tx directory.Tx) error {
				a, err := tx.Account(ctx, "contoso")
				if err != nil {
					return err
				}
				det := a.Services[directrouting.Service]
				det.SubdomainStatus = status
				a.Services[directrouting.Service] = det
				if err := tx.PutAccount(ctx, a, false); err != nil {
					return err
				}
				tx.OnCommit(func(p feed.Position) { at = p })
				return tx.Publish(ctx, []domain.Change{{Account: a.Routing()}})
			})
			if err != nil {
				t.Fatal(err)
			}
			wait(t, follower, at)
			loader := open(t, t.TempDir(), st.Source())
			stop := run(t, loader.Run)
			wait(t, loader, at)
			for name, view := range map[string]route.View{"follows": follower.Route(), "loads": loader.Route()} {
				for _, f := range []domain.CallFacts{
					{PeerGroup: "core", Called: "+442079460001", From: domain.Party{Number: "+12025550199"}},
					{PeerGroup: "teams", Called: "+12025550199", Host: "contoso.1r1.gw.example.com",
						From: domain.Party{Number: "+442079460001"}},
				} {
					x := route.Explain(view, policy, f)
					if x.Decision.Outcome == route.Rejected || x.Decision.Account.Name != "contoso" {
						t.Errorf("%s, an index that %s, call from %s: %+v, want it carried", status, name, f.PeerGroup,
							x.Decision)
					}
					warned := false
					for _, s := range x.Steps {
						warned = warned || s.Result == route.Warns
					}
					if warned != (status != domain.SubdomainProvisioned) {
						t.Errorf("%s, call from %s: warned %v by %+v", status, f.PeerGroup, warned, x.Steps)
					}
				}
			}
			stop()
		}

		head, err := o.Head(ctx)
		if err != nil {
			t.Fatal(err)
		}
		page, err := o.Read(ctx, feed.Provisioning, feed.Cursor{Database: head.Database}, 100)
		if err != nil {
			t.Fatal(err)
		}
		accounts := 0
		for _, e := range page.Entries {
			var old []struct{ Account *struct{ SubdomainLive bool } }
			if err := json.Unmarshal(e.Payload, &old); err != nil {
				t.Fatal(err)
			}
			for _, c := range old {
				if c.Account != nil {
					accounts++
				}
				if c.Account != nil && !c.Account.SubdomainLive {
					t.Errorf("entry %s rejects the label's calls on a node of the release before", e.Payload)
				}
			}
		}
		if accounts != 4 {
			t.Errorf("%d entries of the account read, want 4", accounts)
		}
	})
}
