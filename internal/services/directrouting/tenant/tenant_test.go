package tenant_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/sim/microsoft"
	store "github.com/tandemgw/tandem/internal/store/tenants"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
	"github.com/tandemgw/tandem/internal/testkit"
)

// reconcile sets the target and lets package flow work, in real time, until the tenant has it.
func (b *bed) reconcile(d *db.DB, target []plan.Object) {
	b.t.Helper()
	log := slog.New(slog.NewTextHandler(b.t.Output(), nil))
	done := make(chan struct{})
	q := flow.New(d, func(_ context.Context, tx *db.Tx, i flow.Item) error {
		if i.State == "" {
			tx.OnCommit(func() { close(done) })
		}
		return nil
	}, log, nil)
	s := store.New(d, nil, q, nil)
	b.must(s.Update(b.t.Context(), nil, "contoso", "", func(ctx context.Context, tx onboard.Tx) error {
		if err := tx.SetTenant(ctx, &onboard.Tenant{Account: "contoso", ID: b.tenant.ID, Pending: true}); err != nil {
			return err
		}
		return tx.SetTarget(ctx, "contoso", target)
	}))

	o := &onboard.Onboarder{Store: s,
		Clouds: func(context.Context, *onboard.Tenant) (onboard.Cloud, error) { return b.reach, nil }}
	ctx, cancel := context.WithCancel(b.t.Context())
	stopped := make(chan error)
	go func() {
		stopped <- q.Run(ctx, []*flow.Kind{{Name: onboard.Kind, Reconcile: o.Reconcile,
			List: func(context.Context, string, int) ([]string, error) { return []string{"contoso"}, nil }}})
	}()
	limit := time.After(time.Minute)
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		select {
		case <-tick.C:
			b.cloud.Advance(20 * time.Second)
			continue
		case <-done:
		case <-limit:
			items, err := q.List(b.t.Context(), "", "", flow.Key{}, 10)
			b.t.Errorf("not done: %+v, %v", items, err)
		}
		break
	}
	cancel()
	b.must(<-stopped)
	if b.t.Failed() {
		b.t.FailNow()
	}
}

// voice returns the voice settings of a user.
func (b *bed) voice(ref plan.Ref) (plan.Object, bool) {
	b.t.Helper()
	found, _, err := b.reach.ReadUsers(b.t.Context(), []string{ref.Name})
	b.must(err)
	if len(found) == 0 {
		return plan.Object{}, false
	}
	return found[0], true
}

func (b *bed) setVoice(s plan.Step) {
	b.t.Helper()
	if detail, err := b.reach.SetVoice(b.t.Context(), s); err != nil || detail != "" {
		b.t.Fatalf("SetVoice(%+v) = %q, %v", s, detail, err)
	}
}

// user brings a user from what it has to what it should have, and returns what it had.
func (b *bed) user(ref plan.Ref, desired []plan.Object, ledger plan.Ledger) plan.Object {
	b.t.Helper()
	before, _ := b.voice(ref)
	for _, s := range plan.Compare(desired, plan.NewState([]plan.Object{before}), ledger).Steps {
		b.setVoice(s)
	}
	after, _ := b.voice(ref)
	if p := plan.Compare(desired, plan.NewState([]plan.Object{after}), ledger); len(p.Steps)+len(p.Conflicts) > 0 {
		b.t.Errorf("user %s: %+v", ref.Name, p)
	}
	return before
}

// activate gives a user what it should have, and returns the entry of the ledger.
func (b *bed) activate(o plan.Object) plan.Made {
	b.t.Helper()
	had := b.user(o.Ref, []plan.Object{o}, plan.Ledger{})
	m := plan.Made{Object: o, Before: plan.Fields{}}
	for field := range o.Fields {
		m.Before[field] = had.Fields[field]
	}
	return m
}

// deactivate puts back what a user had before.
func (b *bed) deactivate(m plan.Made) {
	b.t.Helper()
	b.user(m.Ref, nil, plan.NewLedger([]plan.Made{m}))
}

// A customer is onboarded, a user activated and deactivated, and the customer leaves. Nothing of other people changes,
// and nothing of Tandem is left.
func TestOnboardAndLeave(t *testing.T) {
	t.Parallel()
	for _, trunk := range []plan.Trunk{plan.Derived, plan.Gateways} {
		b := newBed(t)
		d := testkit.Open(t, testkit.SQLiteConfig(t))
		before := string(b.tenant.Dump())
		s := b.settings(trunk)
		target := b.target(s)
		b.reconcile(d, target)
		var refs []plan.Ref
		for _, o := range target {
			refs = append(refs, o.Ref)
		}
		objects, err := b.reach.Read(t.Context(), refs)
		b.must(err)
		if p := plan.Compare(target, plan.NewState(objects), nil); len(p.Steps)+len(p.Conflicts) > 0 {
			t.Errorf("after onboarding: %+v", p)
		}

		var id string
		b.tenant.Edit(func(s *microsoft.State) { id = s.User("user000001@" + b.tenant.Initial).ID })
		b.deactivate(b.activate(plan.UserObject(s, plan.Activation{ID: id, Number: "+442079460999"})))

		b.reconcile(d, nil)
		b.purge()
		b.same("after leaving", before, string(b.tenant.Dump()))
	}
}
