package tenants_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/platform/secret"
	store "github.com/tandemgw/tandem/internal/store/tenants"
	"github.com/tandemgw/tandem/internal/tenants/drift"
	"github.com/tandemgw/tandem/internal/tenants/invite"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
	"github.com/tandemgw/tandem/internal/tenants/user"
	"github.com/tandemgw/tandem/internal/testkit"
)

// The list of all tenants has what other parts know of each, in pages and filtered; the sums are those of the list.
func TestFleet(t *testing.T) {
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		ctx, log := t.Context(), slog.New(slog.DiscardHandler)
		ring, err := secret.Ephemeral()
		if err != nil {
			t.Fatal(err)
		}
		q := flow.New(d, func(context.Context, *db.Tx, flow.Item) error { return nil }, log, nil)
		s := store.New(d, ring, q, nil)
		access, users := store.Access{Store: s}, store.Users{Store: s}
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
		wait := func(p onboard.Party, hours int) *onboard.Waiting {
			return &onboard.Waiting{For: p, Reason: "r", Since: now.Add(-time.Duration(hours) * time.Hour)}
		}
		for _, x := range []*onboard.Tenant{
			{Account: "a", Purpose: onboard.Onboard, Spare: &onboard.Spare{Seats: 3, Read: now},
				Wishes: onboard.Wishes{Template: "branch"}},
			{Account: "b", Purpose: onboard.Onboard, Pending: true, Waiting: wait(onboard.Person, 2)},
			{Account: "c", Purpose: onboard.Restore, Pending: true, Waiting: wait(onboard.Person, 5)},
			{Account: "d", Purpose: onboard.Leave, Pending: true, Waiting: wait(onboard.Microsoft, 1)},
			{Account: "e", Purpose: onboard.Onboard, Pending: true},
			{Account: "f", Purpose: onboard.Leave},
			{Account: "g"},
		} {
			must(s.Update(ctx, nil, x.Account, "", func(ctx context.Context, tx onboard.Tx) error {
				return tx.SetTenant(ctx, x)
			}))
		}
		must(access.Update(ctx, nil, func(ctx context.Context, tx invite.Tx) error {
			err := tx.SetAccess(ctx, &invite.Access{Account: "a", Tenant: "ta", Consented: now,
				Integrated: &invite.Mark{At: now}}, nil)
			if err != nil {
				return err
			}
			return tx.SetAccess(ctx, &invite.Access{Account: "b", Tenant: "tb", Consented: now,
				Lost: &invite.Lost{Reason: `it says "lost":{`, Since: now}}, nil)
		}))
		must(access.Update(ctx, nil, func(ctx context.Context, tx invite.Tx) error { // a text is no member
			return tx.SetAccess(ctx, &invite.Access{Account: "g", Tenant: "tg", Consented: now,
				Integrated: &invite.Mark{At: now, By: `"lost":{`}}, nil)
		}))
		must((store.Drift{Store: s}).Accept(ctx, "a", func(ctx context.Context, tx drift.AcceptTx) error {
			return tx.SetState(ctx, &drift.State{Checked: now,
				Differences: []drift.Difference{{ID: 1, Field: "a"}, {ID: 2, Field: "b"}}})
		}))
		must(users.Update(ctx, nil, "a", "", func(ctx context.Context, tx user.Tx) error {
			plans := []user.Plan{{Name: "MCOEV", Status: "Enabled"}}
			p := []user.Profile{{ID: "u1", UPN: "u1@x", Facts: user.Facts{Plans: plans}}, {ID: "u2", UPN: "u2@x"}}
			if err := tx.PutProfiles(ctx, 1, p); err != nil {
				return err
			}
			if err := tx.PutVoices(ctx, 1, []user.Voice{{ID: "u1", Kind: "user", Number: "+1"}}); err != nil {
				return err
			}
			u, err := tx.User(ctx, "u1")
			if err != nil {
				return err
			}
			u.Activation = &user.Activation{Activation: plan.Activation{ID: "u1", Number: "+1"}}
			if err := tx.Settle(ctx, u); err != nil {
				return err
			}
			if err := tx.PutPass(ctx, &user.Pass{Number: 1, Mode: user.Full, Began: now, Ended: now}); err != nil {
				return err
			}
			return tx.PutPass(ctx, &user.Pass{Number: 2, Mode: user.Delta, Began: now, Ended: now.Add(time.Hour),
				Failure: "failed"})
		}))

		list := func(f onboard.Filter) (accounts string) {
			t.Helper()
			for after := ""; ; {
				page, err := s.Fleet(ctx, f, after, 2)
				must(err)
				for _, x := range page {
					after, accounts = x.Account, accounts+x.Account
				}
				if len(page) < 2 {
					return accounts
				}
			}
		}
		yes, no := true, false
		for _, c := range []struct {
			filter onboard.Filter
			want   string
		}{
			{onboard.Filter{}, "abcdefg"}, {onboard.Filter{State: onboard.Waits}, "bcd"},
			{onboard.Filter{State: onboard.Onboarded}, "a"}, {onboard.Filter{State: onboard.Working}, "e"},
			{onboard.Filter{State: onboard.Left}, "f"}, {onboard.Filter{State: onboard.New}, "g"},
			{onboard.Filter{Waiting: onboard.Person}, "bc"}, {onboard.Filter{Template: "branch"}, "a"},
			{onboard.Filter{Drift: &yes}, "a"}, {onboard.Filter{Drift: &no}, "bcdefg"},
			{onboard.Filter{Drift: &yes, State: onboard.Waits}, ""},
		} {
			if got := list(c.filter); got != c.want {
				t.Errorf("%+v: %q, want %q", c.filter, got, c.want)
			}
		}
		all, err := s.Fleet(ctx, onboard.Filter{}, "", 2)
		must(err)
		want := []onboard.Listed{{Drift: 2, Compared: now, Consented: now, SignedIn: now, Synced: now, Active: 1},
			{Consented: now, Lost: now, Problem: `it says "lost":{; tandem tenant invite b makes a link, and tandem ` +
				`tenant sign-in b signs in at this machine`}}
		if diff := cmp.Diff(want, all, cmpopts.IgnoreFields(onboard.Listed{}, "Tenant")); diff != "" ||
			all[0].Spare.Seats != 3 {
			t.Errorf("listed (-want +got):\n%s", diff)
		}

		sums, err := s.Sums(ctx)
		must(err)
		if diff := cmp.Diff(onboard.Sums{States: map[onboard.State]int{onboard.New: 1, onboard.Working: 1,
			onboard.Waits: 3, onboard.Onboarded: 1, onboard.Left: 1},
			Waits: map[onboard.Party]int{onboard.Person: 2, onboard.Microsoft: 1},
			Oldest: map[onboard.Party]time.Time{onboard.Person: now.Add(-5 * time.Hour),
				onboard.Microsoft: now.Add(-time.Hour)}, Lost: 1}, sums); diff != "" {
			t.Errorf("sums (-want +got):\n%s", diff)
		}
	})
}
