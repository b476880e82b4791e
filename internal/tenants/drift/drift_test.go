package drift_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/events"
	"github.com/tandemgw/tandem/internal/platform/feed"
	"github.com/tandemgw/tandem/internal/platform/flow"
	store "github.com/tandemgw/tandem/internal/store/tenants"
	"github.com/tandemgw/tandem/internal/tenants/drift"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
	"github.com/tandemgw/tandem/internal/tenants/snapshot"
	"github.com/tandemgw/tandem/internal/testkit"
)

const own = "Tandem-E164"

func ref(t plan.Type, name string) plan.Ref { return plan.Ref{Type: t, Name: name} }

func object(t plan.Type, name string, f plan.Fields) plan.Object {
	return plan.Object{Ref: ref(t, name), Fields: f}
}

// bed is a tenant in memory whose rows are in a database, and the work that compares it.
type bed struct {
	compared atomic.Int32
	*testing.T
	d       *db.DB
	store   *store.Store
	drift   store.Drift
	checker *drift.Checker
	events  *events.Log
	began   feed.Cursor
	metrics *prometheus.Registry
	ended   chan struct{} // a run

	mu        sync.Mutex // guards what follows
	objects   map[plan.Ref]plan.Object
	broken    error
	inventory map[string]bool
	plans     []*plan.Plan
	accepted  []plan.Object
	inactive  []string // users that the settings select
}

func newBed(t *testing.T, d *db.DB) *bed {
	log := slog.New(slog.DiscardHandler)
	b := &bed{T: t, d: d, metrics: prometheus.NewRegistry(), ended: make(chan struct{}, 100),
		objects: map[plan.Ref]plan.Object{}, inventory: map[string]bool{"+442079460201": true, "+442079460202": true}}
	b.events = events.New(d, log, nil)
	var err error
	if b.began, err = b.events.Head(t.Context()); err != nil {
		t.Fatal(err)
	}
	q := flow.New(d, func(_ context.Context, tx *db.Tx, i flow.Item) error {
		if i.State != flow.Running {
			tx.OnCommit(func() { b.ended <- struct{}{} })
		}
		return nil
	}, log, nil)
	b.store = store.New(d, nil, q, b.events)
	b.drift = store.Drift{Store: b.store}
	b.checker = &drift.Checker{Store: b.drift, Every: func(string) time.Duration { return 6 * time.Hour }, Log: log,
		Inventory: b, Reader: snapshot.Reader{Tenants: b.store,
			Sources: func(context.Context, *onboard.Tenant) (snapshot.Source, error) { return b, nil }},
		Repair: func(_ context.Context, _ string, p *plan.Plan, users []plan.Made) (string, error) {
			for _, u := range users {
				p.Steps = append(p.Steps, plan.Step{Action: plan.Change, Ref: u.Ref})
			}
			b.plans = append(b.plans, p)
			return fmt.Sprint("plan", len(b.plans)), nil
		},
		Compared: func(_ context.Context, x *onboard.Tenant) error {
			if x.Account == "contoso" {
				b.compared.Add(1)
			}
			return nil
		},
		Users: b}

	structure := []plan.Object{object(plan.Usage, own, plan.Fields{}),
		object(plan.RoutingPolicy, own, plan.Fields{"usages": []string{own}}),
		object(plan.Route, own, plan.Fields{"pattern": ".*", "gateways": []string{"a.1r1.x", "a.1r2.x"},
			"usages": []string{own}, "priority": 3}),
		object(plan.DialPlan, own, plan.Fields{"rules": []plan.Rule{{Name: "national"}, {Name: "local"}}})}
	users := []plan.Made{
		{Object: object(plan.User, "user-1", plan.Fields{"number": "+442079460201;ext=1", "routingPolicy": own}),
			Before: plan.Fields{"number": "+442079460101", "routingPolicy": nil}},
		{Object: object(plan.User, "user-2", plan.Fields{"number": "+442079460202", "routingPolicy": own}),
			Before: plan.Fields{"number": nil, "routingPolicy": nil}}}
	made := slices.Clone(users)
	for _, o := range structure {
		b.set(o)
		made = append(made, plan.Made{Object: o})
	}
	for _, u := range users {
		b.set(u.Object)
	}
	b.update(func(ctx context.Context, tx onboard.Tx) error {
		return errors.Join(tx.SetTenant(ctx, &onboard.Tenant{Account: "contoso", ID: "t"}),
			tx.SetTarget(ctx, "contoso", structure), tx.Record(ctx, made...))
	})
	b.age(48 * time.Hour)

	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error)
	go func() { stopped <- q.Run(ctx, []*flow.Kind{b.checker.Kind(b.metrics)}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
	b.wait() // the sweep found it
	if b.compared.Load() != 1 {
		t.Error("what follows a comparison was not done")
	}
	return b
}

func (b *bed) wait() {
	b.Helper()
	select {
	case <-b.ended:
	case <-time.After(time.Minute):
		b.Fatal("no run within a minute")
	}
}

func (b *bed) update(fn func(context.Context, onboard.Tx) error) {
	b.Helper()
	if err := b.store.Update(b.Context(), nil, "contoso", "", fn); err != nil {
		b.Fatal(err)
	}
}

// age makes Tandem's last changes so old.
func (b *bed) age(d time.Duration) {
	b.Helper()
	err := b.d.Update(b.Context(), func(ctx context.Context, tx *db.Tx) error {
		_, err := tx.Exec(ctx, "UPDATE tenant_made SET changed = $1", time.Now().Add(-d).UnixMicro())
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
}

// forgetChecks makes the tenant one that was never compared.
func (b *bed) forgetChecks() {
	b.Helper()
	err := b.d.Update(b.Context(), func(ctx context.Context, tx *db.Tx) error {
		_, err := tx.Exec(ctx, "DELETE FROM tenant_drift")
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bed) set(o plan.Object) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.objects[ref(o.Type, strings.ToLower(o.Name))] = o
}

// change changes a field as a person does.
func (b *bed) change(r plan.Ref, field string, v any) {
	o, _, _ := b.Get(b.Context(), r)
	o.Fields = maps.Clone(o.Fields)
	o.Fields[field] = v
	b.set(o)
}

func (b *bed) remove(r plan.Ref) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.objects, ref(r.Type, strings.ToLower(r.Name)))
}

func (b *bed) Read(context.Context, []plan.Ref) (all []plan.Object, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, o := range b.objects {
		if o.Type != plan.User {
			all = append(all, o)
		}
	}
	return all, b.broken
}

func (b *bed) ReadUsers(_ context.Context, ids []string) (users []plan.Object, requests int, err error) {
	for _, id := range ids {
		if o, ok, _ := b.Get(b.Context(), ref(plan.User, id)); ok {
			users = append(users, o)
		}
	}
	return users, 2, b.broken
}

func (b *bed) Get(_ context.Context, r plan.Ref) (plan.Object, bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	o, ok := b.objects[ref(r.Type, strings.ToLower(r.Name))]
	return o, ok, nil
}

func (b *bed) Missing(_ context.Context, _ string, numbers []string) (missing []string, err error) {
	for _, n := range numbers {
		if !b.inventory[n] {
			missing = append(missing, n)
		}
	}
	return missing, nil
}

func (b *bed) Add(_ context.Context, _, number string) error {
	b.inventory[number] = true
	return nil
}

func (b *bed) Selected(_ context.Context, t *onboard.Tenant, limit int) ([]string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	left := slices.DeleteFunc(slices.Clone(b.inactive), func(id string) bool {
		return slices.Contains(t.Wishes.ExceptUsers, id)
	})
	return left[:min(limit, len(left))], nil
}

func (b *bed) Activations(_ context.Context, _ string, ids []string) (all []plan.Made, err error) {
	for _, id := range ids {
		if id == "user-9" {
			return nil, fault.New(fault.Conflict, "UserUnlicensed", "unlicensed")
		}
		all = append(all, plan.Made{Object: object(plan.User, id, nil)})
	}
	return all, nil
}

func (b *bed) Accepted(_ context.Context, _ string, o plan.Object) error {
	b.accepted = append(b.accepted, o)
	return nil
}

// check compares now and returns the differences in the form "ID cause type name field".
func (b *bed) check() (*drift.State, []string) {
	b.Helper()
	if err := b.drift.Check(b.Context(), "contoso"); err != nil {
		b.Fatal(err)
	}
	b.wait()
	s, err := b.drift.State(b.Context(), "contoso")
	if err != nil {
		b.Fatal(err)
	}
	lines := []string{}
	for _, d := range s.Differences {
		lines = append(lines, strings.TrimSpace(fmt.Sprint(d.ID, " ", d.Cause, " ", d.Type, " ", d.Name, " ", d.Field)))
	}
	return s, lines
}

// seen returns the events of drift so far.
func (b *bed) seen() (seen []string) {
	all, _, err := b.events.Read(b.Context(), b.began, true, 100)
	if err != nil {
		b.Fatal(err)
	}
	for _, e := range all {
		if strings.HasPrefix(e.Kind, "tenant.") {
			seen = append(seen, fmt.Sprintf("%s %s %d", e.Kind, e.Subject, e.Items))
		}
	}
	return seen
}

func (b *bed) want(what string, got, want any) {
	b.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		b.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// Differences are found, keep their ids and ages while they last, and are repaired or accepted one by one.
func TestDrift(t *testing.T) {
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		b := newBed(t, d)
		s, lines := b.check()
		b.want("an unchanged tenant", lines, []string{})
		if s.Checked.IsZero() || s.Requests != 9 || s.PerHour() != 2 {
			t.Errorf("state: %+v", s)
		}

		b.change(ref(plan.Route, own), "pattern", `^\+44`)
		b.change(ref(plan.Route, own), "gateways", []string{"A.1r2.x", "a.1r1.x"}) // no order, no case
		b.remove(ref(plan.DialPlan, own))
		_, lines = b.check()
		b.want("changed", lines, []string{"1 changed route Tandem-E164 pattern", "2 missing dialPlan Tandem-E164"})
		b.change(ref(plan.RoutingPolicy, own), "usages", []string{"Foreign", own})
		s, lines = b.check()
		b.want("changed more", lines, []string{"1 changed route Tandem-E164 pattern", "2 missing dialPlan Tandem-E164",
			"3 changed routingPolicy Tandem-E164 usages"})
		if x := s.Differences[0]; x.Expected != ".*" || x.Found != `^\+44` || !x.Since.Before(s.Differences[2].Since) {
			t.Errorf("difference: %+v", x)
		}
		b.want("events", b.seen(), []string{"tenant.drift.found contoso 2", "tenant.drift.found contoso 1"})
		if n, err := testutil.GatherAndCount(b.metrics); err != nil || n != 6 {
			t.Errorf("metrics: %d, %v", n, err)
		}
		o, err := b.drift.Overview(t.Context())
		if err != nil || o.Tenants != 1 || o.Drifted != 1 || o.Differences != 3 || o.PerHour != 2 ||
			o.Oldest != s.Checked {
			t.Errorf("overview: %+v, %v", o, err)
		}

		// Repair: a plan for the chosen ones, in the order in which they can be done.
		id, err := b.checker.Plan(t.Context(), "contoso", 2, 3)
		if err != nil || id != "plan1" || len(b.plans) != 1 {
			t.Fatalf("repair: %q, %v", id, err)
		}
		b.want("plan", b.plans[0].Steps, []plan.Step{
			{Action: plan.Change, Ref: ref(plan.RoutingPolicy, own), Differences: []plan.Difference{
				{Field: "usages", Old: []string{"Foreign", own}, New: []string{own}}}},
			{Action: plan.Create, Ref: ref(plan.DialPlan, own), Differences: []plan.Difference{
				{Field: "rules", New: []plan.Rule{{Name: "national"}, {Name: "local"}}}}}})

		// Accept: the ledger and the target have what was found, and nothing else changes.
		if err := b.checker.Accept(t.Context(), "contoso", 1, 2); err != nil {
			t.Fatal(err)
		}
		_, lines = b.check()
		b.want("after accepting", lines, []string{"3 changed routingPolicy Tandem-E164 usages"})
		b.update(func(ctx context.Context, tx onboard.Tx) error {
			tenant, err := tx.Tenant(ctx)
			ledger, err2 := tx.Ledger(ctx)
			if err := errors.Join(err, err2); err != nil {
				return err
			}
			p := plan.Compare(tenant.Target, plan.NewState(slices.Collect(maps.Values(b.objects))), ledger)
			if len(p.Steps) != 1+2 || len(tenant.Target) != 3 { // the policy; the users, which the target does not have
				t.Errorf("the target: %v; a plan: %+v", tenant.Target, p.Steps)
			}
			return nil
		})
		var audited []string
		for _, r := range testkit.AuditLog(t, d) {
			audited = append(audited, r.Action+" "+r.Target)
		}
		b.want("audit", audited, []string{"tenant.acceptDrift contoso", "tenant.acceptDrift contoso"})

		b.change(ref(plan.RoutingPolicy, own), "usages", []string{own})
		_, lines = b.check()
		b.want("repaired by hand", lines, []string{})
		if seen := b.seen(); seen[len(seen)-1] != "tenant.drift.gone contoso 1" {
			t.Errorf("events: %v", seen)
		}
		for _, id := range []int{3, 9} {
			_, err := b.checker.Plan(t.Context(), "contoso", id)
			if err2 := b.checker.Accept(t.Context(), "contoso", id); !fault.HasCode(err, "DifferenceNotFound") ||
				!fault.HasCode(err2, "DifferenceNotFound") {
				t.Errorf("difference %d: %v, %v", id, err, err2)
			}
		}
	})
}

// Users are compared too: a number that the BSS has deleted while a user has it, and a user that is gone.
func TestDriftOfUsers(t *testing.T) {
	b := newBed(t, testkit.Open(t, testkit.SQLiteConfig(t)))
	delete(b.inventory, "+442079460201")
	s, lines := b.check()
	b.want("deleted in the inventory", lines, []string{"1 notInInventory user user-1 number"})
	if d := s.Differences[0]; d.Found != "+442079460201;ext=1" {
		t.Errorf("difference: %+v", d)
	}
	if _, err := b.checker.Plan(t.Context(), "contoso", 1); err != nil {
		t.Fatal(err)
	}
	b.want("the number is taken from the user", b.plans[0].Steps, []plan.Step{{Action: plan.Change,
		Ref: ref(plan.User, "user-1"), Differences: []plan.Difference{
			{Field: "number", Old: "+442079460201;ext=1", New: "+442079460101"},
			{Field: "routingPolicy", Old: own}}}})
	if err := b.checker.Accept(t.Context(), "contoso", 1); err != nil || !b.inventory["+442079460201"] {
		t.Errorf("accepted: %v, %v", err, b.inventory)
	}
	_, lines = b.check()
	b.want("accepted", lines, []string{})

	b.change(ref(plan.User, "user-1"), "number", "+15550100") // not in the inventory either: one difference
	b.remove(ref(plan.User, "user-2"))
	_, lines = b.check()
	b.want("changed", lines, []string{"2 changed user user-1 number", "3 missing user user-2"})
	if _, err := b.checker.Plan(t.Context(), "contoso", 3); !fault.HasCode(err, "NotRepairable") {
		t.Errorf("repair of a user that is gone: %v", err)
	}
	if err := b.checker.Accept(t.Context(), "contoso", 2, 3); err != nil {
		t.Fatal(err)
	}
	b.want("what is expected of users", b.accepted, []plan.Object{
		object(plan.User, "user-1", plan.Fields{"number": "+15550100", "routingPolicy": own}),
		object(plan.User, "user-2", nil)})
	b.update(func(ctx context.Context, tx onboard.Tx) error {
		ledger, err := tx.Ledger(ctx)
		m, _ := ledger.Get(ref(plan.User, "user-1"))
		b.want("the ledger", m, plan.Made{Object: b.accepted[0],
			Before: plan.Fields{"number": "+442079460101", "routingPolicy": nil}})
		if _, ok := ledger.Get(ref(plan.User, "user-2")); ok {
			t.Error("the ledger still has user-2")
		}
		return err
	})
}

// Users whom the settings select and who are not active are differences, which a plan repairs and accepting excepts.
func TestSelectedUsers(t *testing.T) {
	b := newBed(t, testkit.Open(t, testkit.SQLiteConfig(t)))
	b.inactive = []string{"user-7", "user-8", "user-9"}
	b.age(time.Hour) // what Tandem does does not make it wait
	s, lines := b.check()
	b.want("found", lines, []string{"1 notActive user user-7", "2 notActive user user-8", "3 notActive user user-9"})
	if s.Drift() != 3 {
		t.Errorf("drift: %d", s.Drift())
	}

	b.change(ref(plan.Route, own), "pattern", `^\+44`)
	b.check()
	if _, err := b.checker.Plan(t.Context(), "contoso", 2, 4); err != nil {
		t.Fatal(err)
	}
	b.want("plan", b.plans[0].Steps, []plan.Step{{Action: plan.Change, Ref: ref(plan.Route, own),
		Differences: []plan.Difference{{Field: "pattern", Old: `^\+44`, New: ".*"}}},
		{Action: plan.Change, Ref: ref(plan.User, "user-8")}})
	if _, err := b.checker.Plan(t.Context(), "contoso", 3); !fault.HasCode(err, "UserUnlicensed") {
		t.Errorf("repair of a user that cannot be active: %v", err)
	}

	if err := b.checker.Accept(t.Context(), "contoso", 1, 3); err != nil {
		t.Fatal(err)
	}
	_, lines = b.check()
	b.want("excepted", lines, []string{"2 notActive user user-8", "4 changed route Tandem-E164 pattern"})
	b.update(func(ctx context.Context, tx onboard.Tx) error {
		x, err := tx.Tenant(ctx)
		b.want("the settings", x.Wishes.ExceptUsers, []string{"user-7", "user-9"})
		b.want("the target", len(x.Target), 4)
		return err
	})
	b.want("users that Tandem had activated", b.accepted, []plan.Object(nil))
	b.mu.Lock()
	b.inactive = nil // activated
	b.mu.Unlock()
	_, lines = b.check()
	b.want("active", lines, []string{"4 changed route Tandem-E164 pattern"})
}

// What Tandem has changed in the last 24 hours, or is about to change, is waited for: shown, but no drift.
func TestPropagationIsNoDrift(t *testing.T) {
	b := newBed(t, testkit.Open(t, testkit.SQLiteConfig(t)))
	b.age(23 * time.Hour)
	b.check()
	b.forgetChecks() // else the object was seen as expected since it was changed
	b.change(ref(plan.User, "user-1"), "routingPolicy", nil)
	s, lines := b.check()
	b.want("shown", lines, []string{"1 changed user user-1 routingPolicy"})
	if until := time.Until(s.Differences[0].Until); until < 50*time.Minute || until > time.Hour || s.Drift() != 0 {
		t.Errorf("waits for %v; drift %d", until, s.Drift())
	}
	b.want("events", b.seen(), []string(nil))

	b.age(25 * time.Hour)
	s, _ = b.check()
	if s.Drift() != 1 || !s.Differences[0].Until.IsZero() {
		t.Errorf("a day later: %+v", s)
	}
	b.want("events", b.seen(), []string{"tenant.drift.found contoso 1"})

	err := b.d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO tenant_users (account, id, pending) VALUES ('contoso', 'user-1', 1)")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if s, _ = b.check(); s.Drift() != 0 {
		t.Errorf("a user that is being deactivated: %+v", s)
	}
}

// What was as expected in a comparison since Tandem changed it is not waited for: a person has changed it.
func TestChangedAfterItWasSeen(t *testing.T) {
	b := newBed(t, testkit.Open(t, testkit.SQLiteConfig(t)))
	b.age(time.Hour)
	b.check()
	b.change(ref(plan.User, "user-1"), "routingPolicy", nil)
	b.remove(ref(plan.Usage, own))
	if s, lines := b.check(); s.Drift() != 2 {
		t.Errorf("drift %d of %q", s.Drift(), lines)
	}
}

// A tenant that cannot be read keeps its differences and says why; one that is being changed is compared later; one
// that was left is compared no more.
func TestTenantsThatAreNotCompared(t *testing.T) {
	b := newBed(t, testkit.Open(t, testkit.SQLiteConfig(t)))
	b.remove(ref(plan.Usage, own))
	before, _ := b.check()

	b.mu.Lock()
	b.broken = fault.New(fault.Unauthenticated, "SignInNeeded", "sign in again")
	b.mu.Unlock()
	s, lines := b.check()
	b.want("differences", lines, []string{"1 missing usage Tandem-E164"})
	if s.Problem != "sign in again" || s.Checked != before.Checked || !s.Next.After(before.Next) {
		t.Errorf("state: %+v", s)
	}
	b.mu.Lock()
	b.broken = nil
	b.mu.Unlock()

	pending := func(p bool) {
		b.update(func(ctx context.Context, tx onboard.Tx) error {
			x, err := tx.Tenant(ctx)
			if err != nil {
				return err
			}
			x.Pending = p
			return tx.SetTenant(ctx, x)
		})
	}
	pending(true)
	s, _ = b.check()
	if s.Problem != "" || s.Checked != before.Checked || time.Until(s.Next) > 10*time.Minute {
		t.Errorf("a tenant that is being changed: %+v", s)
	}
	_, err := b.checker.Plan(t.Context(), "contoso", 1)
	if err2 := b.checker.Accept(t.Context(), "contoso", 1); !fault.HasCode(err, "TenantChanging") ||
		!fault.HasCode(err2, "TenantChanging") {
		t.Errorf("repair: %v; accept: %v", err, err2)
	}
	pending(false)

	b.update(func(ctx context.Context, tx onboard.Tx) error {
		ledger, err := tx.Ledger(ctx)
		if err != nil {
			return err
		}
		return tx.Forget(ctx, slices.Collect(maps.Keys(ledger))...)
	})
	s, _ = b.check()
	if due, err := b.drift.Due(t.Context(), time.Now().Add(48*time.Hour), "", 10); err != nil || len(due) > 0 ||
		!s.Checked.IsZero() || len(s.Differences) > 0 {
		t.Errorf("a tenant that was left: %+v, due %v, %v", s, due, err)
	}
	if err := b.drift.Check(t.Context(), "nobody"); !fault.HasCode(err, "TenantNotFound") {
		t.Errorf("check of no tenant: %v", err)
	}
}
