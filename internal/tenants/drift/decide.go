package drift

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
)

// AcceptTx is a transaction on the rows of a tenant.
type AcceptTx interface {
	onboard.Tx
	State(ctx context.Context) (*State, error)
	SetState(ctx context.Context, s *State) error
	// SetExpected replaces the fields of an entry of the ledger. It is no change at Microsoft.
	SetExpected(ctx context.Context, m plan.Made) error
}

// Accept makes what was found what Tandem expects: of a missing object nothing, of a number that the account does not
// have that it has it, of a user who is not active that the settings except it. Errors: DifferenceNotFound,
// TenantChanging, TooManyExceptions.
func (c *Checker) Accept(ctx context.Context, account string, ids ...int) error {
	s, err := c.Store.State(ctx, account)
	if err != nil {
		return err
	}
	for _, id := range ids {
		d, err := s.find(id)
		if err != nil {
			return err
		}
		if d.Cause == Unknown && c.Inventory != nil {
			found, _ := d.Found.(string)
			if err := c.Inventory.Add(ctx, account,
				number(plan.Object{Fields: plan.Fields{"number": found}})); err != nil {
				return err
			}
		}

		var user *plan.Object
		err = c.Store.Accept(ctx, account, func(ctx context.Context, tx AcceptTx) (err error) {
			user, err = accept(ctx, tx, id)
			return err
		})
		if err == nil && user != nil && c.Users != nil {
			err = c.Users.Accepted(ctx, account, *user)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// find returns the difference with an id.
func (s *State) find(id int) (*Difference, error) {
	i := slices.IndexFunc(s.Differences, func(d Difference) bool { return d.ID == id })
	if i < 0 {
		return nil, fault.New(fault.NotFound, "DifferenceNotFound", "the tenant has no difference %d now; see "+
			"tandem tenant drift", id)
	}
	return &s.Differences[i], nil
}

// accept returns what is expected of the user, if the difference is one of a user.
func accept(ctx context.Context, tx AcceptTx, id int) (user *plan.Object, err error) {
	t, err := tx.Tenant(ctx)
	if err != nil {
		return nil, err
	}
	if t.Pending {
		return nil, fault.New(fault.Conflict, "TenantChanging",
			"a plan is being carried out in the tenant; wait until it has ended")
	}
	s, err := tx.State(ctx)
	if err != nil {
		return nil, err
	}
	d, err := s.find(id)
	if err != nil {
		return nil, err
	}
	ledger, err := tx.Ledger(ctx)
	if err != nil {
		return nil, err
	}

	at := slices.IndexFunc(t.Target, func(o plan.Object) bool {
		return o.Type == d.Type && strings.EqualFold(o.Name, d.Name)
	})
	m, _ := ledger.Get(d.Ref)
	switch d.Cause {
	case Missing:
		if at >= 0 {
			t.Target = slices.Delete(t.Target, at, at+1)
		}
		m.Object = plan.Object{Ref: d.Ref}
		err = tx.Forget(ctx, d.Ref)
	case Changed:
		found, e := typed(d.Ref, d.Field, d.Found)
		if e != nil {
			return nil, e
		}
		with := func(f plan.Fields) plan.Fields {
			f = maps.Clone(f)
			f[d.Field] = found
			return f
		}
		m.Fields = with(m.Fields)
		if at >= 0 {
			t.Target[at].Fields = with(t.Target[at].Fields)
		}
		wish(&t.Wishes, d.Ref, found)
		err = tx.SetExpected(ctx, m)
	case NotActive:
		const most = 10_000
		if len(t.Wishes.ExceptUsers) >= most {
			return nil, fault.New(fault.Conflict, "TooManyExceptions", "the settings except %d users already; select "+
				"fewer (tandem tenant set %s --users-department)", most, t.Account)
		}
		t.Wishes.ExceptUsers = append(t.Wishes.ExceptUsers, d.Name)
	}
	if err != nil {
		return nil, err
	}

	if d.Type != plan.User || d.Cause == NotActive {
		if err := tx.SetTenant(ctx, t); err != nil {
			return nil, err
		}
		if err := tx.SetTarget(ctx, t.Account, t.Target); err != nil {
			return nil, err
		}
	}
	what := map[string]any{"type": d.Type, "name": d.Name, "field": d.Field, "cause": d.Cause}
	if d.atMicrosoft() && d.Type == plan.User {
		user = &m.Object
	}
	s.Differences = slices.DeleteFunc(s.Differences, func(x Difference) bool { return x.ID == id })
	s.Edited = time.Now().UTC()
	if err := tx.SetState(ctx, s); err != nil {
		return nil, err
	}
	return user, tx.Audit(ctx, "tenant.acceptDrift", t.Account, what)
}

// wish makes what was found what a later plan wants too, where the wishes have it.
func wish(w *onboard.Wishes, r plan.Ref, found any) {
	switch v := found.(type) {
	case []plan.Rule:
		if r.Type == plan.DialPlan {
			w.Rules = v
		}
	case []plan.EmergencyNumber:
		if r.Type == plan.EmergencyPolicy {
			w.Emergency = v
		}
	}
}

// Plan reads the tenant and makes a plan that repairs the differences and nothing else. A number that the account does
// not have is taken from the user, who gets what it had before; a user whom the settings select gets the next free
// number. Errors: DifferenceNotFound, DifferenceGone, NotRepairable, TenantChanging, and those of Repair and Users.
func (c *Checker) Plan(ctx context.Context, account string, ids ...int) (id string, err error) {
	s, err := c.Store.State(ctx, account)
	if err != nil {
		return "", err
	}
	x, err := c.Read(ctx, account)
	if err != nil {
		return "", err
	}
	if x.Tenant.Pending {
		return "", fault.New(fault.Conflict, "TenantChanging",
			"a plan is being carried out in the tenant; wait until it has ended")
	}

	fresh, limited, inactive := plan.Drift(x.Have, x.Ledger), &plan.Plan{}, []string(nil)
	for _, id := range ids {
		d, err := s.find(id)
		if err != nil {
			return "", err
		}
		switch d.Cause {
		case NotActive:
			inactive = append(inactive, d.Name)
			continue
		case Unknown:
			entry, ok := x.Ledger.Get(d.Ref)
			user, exists := x.Have.Get(d.Ref)
			if !ok || !exists {
				return "", gone(d)
			}
			back := plan.Compare(nil, plan.NewState([]plan.Object{user}), plan.NewLedger([]plan.Made{entry}))
			limited.Steps = append(limited.Steps, back.Steps...)
			continue
		}
		if err := limit(limited, fresh, d); err != nil {
			return "", err
		}
	}
	var activations []plan.Made
	if len(inactive) > 0 {
		if activations, err = c.Users.Activations(ctx, account, inactive); err != nil {
			return "", err
		}
	}
	// In the order of the whole plan.
	slices.SortStableFunc(limited.Steps, func(a, b plan.Step) int {
		place := func(s plan.Step) int {
			return slices.IndexFunc(fresh.Steps, func(f plan.Step) bool { return f.Ref == s.Ref })
		}
		return place(a) - place(b)
	})
	return c.Repair(ctx, account, limited, activations)
}

func gone(d *Difference) error {
	return fault.New(fault.Conflict, "DifferenceGone", "difference %d is no longer there; compare again (tandem "+
		"tenant drift --check)", d.ID)
}

// limit adds what repairs a difference to a plan.
func limit(p, fresh *plan.Plan, d *Difference) error {
	same := func(r plan.Ref) bool { return r.Type == d.Type && strings.EqualFold(r.Name, d.Name) }
	if slices.ContainsFunc(fresh.Conflicts, func(n plan.Note) bool { return same(n.Ref) }) {
		return fault.New(fault.Conflict, "NotRepairable",
			"difference %d cannot be repaired: the %s does not exist; accept it", d.ID, d.Type)
	}
	i := slices.IndexFunc(fresh.Steps, func(s plan.Step) bool { return same(s.Ref) })
	if i < 0 {
		return gone(d)
	}
	step := fresh.Steps[i]
	at := slices.IndexFunc(p.Steps, func(s plan.Step) bool { return s.Ref == step.Ref })
	switch {
	case step.Action == plan.Create: // the whole object, whatever of it was chosen
		if at < 0 {
			p.Steps = append(p.Steps, step)
		}
		return nil
	case d.Cause == Missing:
		return gone(d)
	}

	f := slices.IndexFunc(step.Differences, func(x plan.Difference) bool { return x.Field == d.Field })
	if f < 0 {
		return gone(d)
	}
	if at < 0 {
		at = len(p.Steps)
		p.Steps = append(p.Steps, plan.Step{Action: step.Action, Ref: step.Ref})
	}
	p.Steps[at].Differences = append(p.Steps[at].Differences, step.Differences[f])
	return nil
}
