package node

import (
	"context"
	"slices"
	"time"

	"github.com/tandemgw/tandem/internal/domain"
	tenantstore "github.com/tandemgw/tandem/internal/store/tenants"
	"github.com/tandemgw/tandem/internal/tenants/drift"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
	"github.com/tandemgw/tandem/internal/tenants/snapshot"
	"github.com/tandemgw/tandem/internal/tenants/user"
)

// buildUsers makes what keeps users in step, and snapshots and the search for drift, which include users.
func (x *tenants) buildUsers() {
	clouds := func(ctx context.Context, t *onboard.Tenant) (user.Cloud, error) { return x.cloud(ctx, t) }
	x.users = &user.Service{Store: x.rows, Clouds: clouds, Inventory: x.inventory(), Log: x.log}
	x.metrics = user.NewMetrics(x.n.metrics)

	reader := snapshot.Reader{Tenants: x.store,
		Sources: func(ctx context.Context, t *onboard.Tenant) (snapshot.Source, error) { return x.cloud(ctx, t) }}
	x.snapshots = &snapshot.Snapshots{Reader: reader, Store: x.store, Sealer: x.n.core.keyring,
		Advice: x.advice, Names: x.rows.Names}
	every := x.n.cfg.Onboarding.CheckEvery
	if x.worker != nil {
		every = max(every, 6*time.Hour) // each comparison starts a process
	}
	x.drift = &drift.Checker{Reader: reader, Store: tenantstore.Drift{Store: x.store},
		Every: func(string) time.Duration { return every }, Inventory: x.inventory(), Log: x.log,
		Compared: x.readSpare, Users: comparedUsers{x},
		Repair: func(ctx context.Context, account string, p *plan.Plan, users []plan.Made) (string, error) {
			a := domain.ActorFrom(ctx)
			return x.planner.Repair(ctx, account, p, users, a.Kind+":"+a.ID)
		}}
}

// comparedUsers implements drift.Users.
type comparedUsers struct{ x *tenants }

func (c comparedUsers) Selected(ctx context.Context, t *onboard.Tenant, limit int) ([]string, error) {
	w, err := c.x.planner.Resolve(ctx, t.Wishes)
	if err != nil || w.Users == (onboard.Selection{}) {
		return nil, err
	}
	return c.x.users.Selected(ctx, t.Account, w.Users, w.ExceptUsers, limit)
}

func (c comparedUsers) Activations(ctx context.Context, account string, ids []string) ([]plan.Made, error) {
	return c.x.users.Activations(ctx, account, ids)
}

func (c comparedUsers) Accepted(ctx context.Context, account string, found plan.Object) error {
	return c.x.rows.Update(ctx, nil, account, "", func(ctx context.Context, tx user.Tx) error {
		return user.Accept(ctx, tx, found)
	})
}

// readSpare reads how many seats with Phone System a tenant has left.
func (x *tenants) readSpare(ctx context.Context, t *onboard.Tenant) error {
	c, err := x.cloud(ctx, t)
	if err != nil {
		return err
	}
	seats, err := c.Spare(ctx)
	if err != nil {
		return err
	}
	return x.store.Update(ctx, nil, t.Account, "", func(ctx context.Context, tx onboard.Tx) error {
		row, err := tx.Tenant(ctx)
		if err != nil {
			return err
		}
		row.Spare = &onboard.Spare{Seats: seats, Read: time.Now().UTC().Truncate(time.Second)}
		return tx.SetTenant(ctx, row)
	})
}

// usersAtOnce is how many users a transaction asks for: on SQLite, it holds up all others for about 50 ms.
const usersAtOnce = 200

// usersOf returns what asks for the users of an approved plan.
func (x *tenants) usersOf(ctx context.Context, t *onboard.Tenant, id string) (onboard.AskNext, error) {
	if t.Purpose == onboard.Leave { // of all, also those that the plan did not know
		return func(ctx context.Context, tx onboard.Tx, _ int) (int, error) {
			return user.DeactivateNext(ctx, x.rows.In(tx), t.Account, usersAtOnce)
		}, nil
	}
	var p *onboard.Proposal
	err := x.store.View(ctx, t.Account, func(ctx context.Context, tx onboard.Tx) (err error) {
		p, err = tx.Proposal(ctx, id)
		return err
	})
	if err != nil {
		return nil, err
	}
	var repairs []plan.Step
	if p.Purpose == onboard.Repair {
		activates := plan.NewLedger(p.Restores)
		repairs = slices.DeleteFunc(slices.Clone(p.Users), func(s plan.Step) bool {
			_, ok := activates.Get(s.Ref)
			return ok
		})
	}
	return func(ctx context.Context, tx onboard.Tx, done int) (int, error) {
		if next := after(repairs, done); len(next) > 0 {
			return len(next), user.Repair(ctx, x.rows.In(tx), t.Account, next)
		}
		next := after(p.Restores, done-len(repairs))
		return len(next), user.Restore(ctx, x.rows.In(tx), t.Account, activations(next))
	}, nil
}

// after returns up to usersAtOnce entries of a list after the first ones.
func after[T any](all []T, done int) []T {
	done = min(done, len(all))
	return all[done:min(done+usersAtOnce, len(all))]
}

// activations returns what users had by Tandem, or are to have.
func activations(made []plan.Made) []user.Activation {
	all := make([]user.Activation, len(made))
	for i, m := range made {
		all[i].ID = m.Name
		all[i].Number, _ = m.Fields["number"].(string)
		all[i].CallerID, _ = m.Fields["callerID"].(string)
		all[i].OverrideGroup = m.OverrideGroup
	}
	return all
}
