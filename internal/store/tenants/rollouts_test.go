package tenants_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/platform/secret"
	store "github.com/tandemgw/tandem/internal/store/tenants"
	"github.com/tandemgw/tandem/internal/tenants/invite"
	"github.com/tandemgw/tandem/internal/tenants/move"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
	"github.com/tandemgw/tandem/internal/tenants/rollout"
	"github.com/tandemgw/tandem/internal/testkit"
)

// Templates know how many tenants have them; rollouts are kept in a bounded number, and those with work to do are
// found.
func TestRollouts(t *testing.T) {
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		s, ctx := store.New(d, nil, nil, nil), t.Context()
		for i, x := range []onboard.Tenant{{Purpose: onboard.Onboard}, {Purpose: onboard.Leave}, {},
			{Purpose: onboard.Onboard, Pending: true}} {
			x.Account, x.Wishes.Template = fmt.Sprint("acme", i), "branch"
			err := s.Update(ctx, nil, x.Account, "", func(ctx context.Context, tx onboard.Tx) error {
				return tx.SetTenant(ctx, &x)
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		want := &rollout.Template{Name: "branch", Changed: time.Unix(1, 0).UTC(), Tenants: 4,
			Wishes: onboard.Wishes{Dial: onboard.Dial{Country: "GB"}}}
		began := time.Unix(1000, 0).UTC()
		err := s.UpdateRollouts(ctx, nil, "", func(ctx context.Context, tx rollout.Tx) error {
			for _, name := range []string{"branch", "other"} {
				x := *want
				x.Name = name
				for range 2 { // the second time it is replaced
					if err := tx.SetTemplate(ctx, &x); err != nil {
						return err
					}
				}
			}
			for i := range rollout.MaxRollouts + 3 {
				r := &rollout.Rollout{ID: fmt.Sprintf("r%02d", i), Template: "branch", State: rollout.Done,
					Begun:   began.Add(time.Duration(i) * time.Minute),
					Tenants: []rollout.Tenant{{Account: "acme0", Ring: 1}}}
				if i%5 == 4 {
					r.State = rollout.Running
				}
				if err := tx.SetRollout(ctx, r); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}

		err = s.UpdateRollouts(ctx, nil, "", func(ctx context.Context, tx rollout.Tx) error { // with locks
			got, err := tx.Template(ctx, "branch")
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("template (-want +got):\n%s", diff)
			}
			members, err2 := tx.Members(ctx, "branch")
			all, err3 := tx.Rollouts(ctx, "branch")
			r, err4 := tx.Rollout(ctx, "r22")
			if len(members) != 2 || members[0] != "acme0" || members[1] != "acme3" || len(all) != rollout.MaxRollouts ||
				all[0].ID != "r22" || r.Tenants[0].Account != "acme0" || !r.Begun.Equal(all[0].Begun) {
				t.Errorf("members %v, %d rollouts, %+v", members, len(all), r)
			}
			_, err5 := tx.Rollout(ctx, "r00")
			_, err6 := tx.Template(ctx, "none")
			if !fault.HasCode(err5, "RolloutNotFound") || !fault.HasCode(err6, "TemplateNotFound") {
				t.Errorf("what does not exist: %v, %v", err5, err6)
			}
			return errors.Join(err, err2, err3, err4, tx.DeleteTemplate(ctx, "other"))
		})
		pending, err2 := s.PendingRollouts(ctx, "r04", 2)
		templates, err3 := s.Templates(ctx, "", 10)
		err = errors.Join(err, err2, err3)
		if err != nil || len(pending) != 2 || pending[0] != "r09" || len(templates) != 1 {
			t.Errorf("pending %v, %d templates, %v", pending, len(templates), err)
		}
	})
}

// What is stored of the second tenant of an account takes the place of the first one's, its sealed token included.
func TestMovesReplaceTenants(t *testing.T) {
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		ring, err := secret.Ephemeral()
		if err != nil {
			t.Fatal(err)
		}
		log := slog.New(slog.DiscardHandler)
		q := flow.New(d, func(context.Context, *db.Tx, flow.Item) error { return nil }, log, nil)
		s := store.New(d, ring, q, nil)
		for _, id := range []string{"acme", "acme" + onboard.Next, "acme2"} {
			err := errors.Join(s.Update(ctx, nil, id, "", func(ctx context.Context, tx onboard.Tx) error {
				return errors.Join(tx.SetTenant(ctx, &onboard.Tenant{Account: id, ID: "t-" + id}),
					tx.SetProposal(ctx, &onboard.Proposal{ID: "p-" + id, Account: id}),
					tx.Record(ctx, plan.Made{Object: plan.Object{Ref: plan.Ref{Type: plan.Usage, Name: id}}}))
			}), store.Access{Store: s}.Update(ctx, nil, func(ctx context.Context, tx invite.Tx) error {
				return tx.SetAccess(ctx, &invite.Access{Account: id, Tenant: "t-" + id}, secret.New("token-"+id))
			}))
			if err != nil {
				t.Fatal(err)
			}
		}

		err = s.UpdateMove(ctx, nil, "acme", func(ctx context.Context, tx move.Tx) error {
			return errors.Join(tx.SetMove(ctx, &move.Move{Account: "acme", Old: "a"}, true), tx.Replace(ctx))
		})
		if err != nil {
			t.Fatal(err)
		}
		accounts, err := s.Moves(ctx, "", 10)
		if len(accounts) != 1 || err != nil {
			t.Errorf("moves %v, %v", accounts, err)
		}
		err = s.UpdateMove(ctx, nil, "acme", func(ctx context.Context, tx move.Tx) error {
			m, err := tx.Move(ctx)
			row, err2 := tx.Tenant(ctx)
			held, err3 := tx.Ledger(ctx)
			_, err4 := tx.Of("acme" + onboard.Next).Tenant(ctx)
			if m.Old != "a" || row.ID != "t-acme@next" || len(held) != 1 || !fault.Is(err4, fault.NotFound) {
				t.Errorf("%+v, %+v, %v held, %v", m, row, held, err4)
			}
			return errors.Join(err, err2, err3, tx.DeleteMove(ctx))
		})
		token, err2 := s.Tokens("acme").RefreshToken(ctx)
		other, err3 := s.Tokens("acme2").RefreshToken(ctx)
		if err := errors.Join(err, err2, err3); err != nil || token.Reveal() != "token-acme@next" ||
			other.Reveal() != "token-acme2" {
			t.Errorf("tokens %q and %q, %v", token.Reveal(), other.Reveal(), err)
		}
		err = s.View(ctx, "acme", func(ctx context.Context, tx onboard.Tx) error {
			_, err := tx.Proposal(ctx, "p-acme@next")
			return err
		})
		if err != nil {
			t.Error(err)
		}
		err = s.ViewMove(ctx, "acme", func(ctx context.Context, tx move.Tx) error {
			_, err := tx.Move(ctx)
			return err
		})
		if !fault.HasCode(err, "MoveNotFound") {
			t.Errorf("the move: %v", err)
		}
	})
}
