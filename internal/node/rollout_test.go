package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/flow"
	tenantstore "github.com/tandemgw/tandem/internal/store/tenants"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
	"github.com/tandemgw/tandem/internal/tenants/rollout"
)

// looseRollouts is a store whose runs are not those of a queue, and which can end a process.
type looseRollouts struct {
	*tenantstore.Store
	point func() error
}

func (s looseRollouts) ViewRollouts(ctx context.Context, fn func(context.Context, rollout.Tx) error) error {
	if err := s.point(); err != nil {
		return err
	}
	return s.Store.ViewRollouts(ctx, fn)
}

func (s looseRollouts) UpdateRollouts(ctx context.Context, _ *flow.Run, progress string,
	fn func(context.Context, rollout.Tx) error) error {
	if err := s.point(); err != nil {
		return err
	}
	if err := s.Store.UpdateRollouts(ctx, nil, progress, fn); err != nil {
		return err
	}
	return s.point()
}

// branches are accounts whose tenants are onboarded with a template.
func (f *fleet) branches(n int) (accounts []string) {
	f.Helper()
	f.must(f.rollouts.Put(f.Context(), "branch", onboard.Wishes{Dial: onboard.Dial{Country: "GB"}}))
	for i := range n {
		name := fmt.Sprint("acme", i)
		f.account(name)
		f.wish(name, func(w *onboard.Wishes) { w.Template = "branch" })
		f.apply(name, onboard.Onboard)
		accounts = append(accounts, name)
	}
	return accounts
}

// emergency returns the numbers of the emergency policy of a tenant.
func (f *fleet) emergency(id string) (numbers []string) {
	w := f.world(id)
	f.mu.Lock()
	defer f.mu.Unlock()
	entries, _ := w.objects[key(plan.EmergencyPolicy, "Tandem-E164")].Fields["numbers"].([]plan.EmergencyNumber)
	for _, e := range entries {
		numbers = append(numbers, e.DialString)
	}
	return numbers
}

// rolling is the service, whose process may be ended at a point.
func (f *fleet) rolling(at int) (s *rollout.Service, points *int) {
	points = new(int)
	s = new(*f.rollouts)
	s.Store = looseRollouts{f.store, func() error {
		if *points++; *points == at {
			return fault.New(fault.Unavailable, "Killed", "the process has ended")
		}
		return nil
	}}
	return s, points
}

// roll runs a rollout until it rests, and in between the tenants. It returns the state.
func (f *fleet) roll(s *rollout.Service, r *rollout.Rollout, accounts []string) *rollout.Rollout {
	f.Helper()
	for range 100 {
		_, err := s.Reconcile(f.Context(), &flow.Run{Key: flow.Key{Kind: rollout.Kind, ID: r.ID}, Attempt: 1})
		if err != nil && !fault.HasCode(err, "Killed") {
			f.Fatal(err)
		}
		now, err := f.rollouts.Rollout(f.Context(), "branch", r.ID)
		f.must(err)
		if !now.State.Works() {
			return now
		}
		for _, a := range accounts {
			if t := f.tenant(a); t.Pending && now.State == rollout.Running {
				for _, x := range now.Tenants { // those of earlier rings are done
					if other := f.tenant(x.Account); x.Account != a && x.Ring < now.Ring && other.Pending {
						f.Errorf("%s of ring %d is changed while %s is not done", a, now.Ring, x.Account)
					}
				}
				f.carryOut(a)
				break // one at a time
			}
		}
	}
	f.Fatal("the rollout does not rest")
	return nil
}

// A changed template is planned for all its tenants, which changes nothing, and applied ring after ring, wherever the
// process ends. What tenants decide themselves stays.
func TestRollout(t *testing.T) {
	t.Parallel()
	for at := 0; ; at += pointStep {
		f := newFleet(t)
		accounts := f.branches(5)
		f.wish("acme3", func(w *onboard.Wishes) { w.Emergency = []plan.EmergencyNumber{{DialString: "999"}} })
		f.apply("acme3", onboard.Onboard)
		s, points := f.rolling(at)

		f.must(f.rollouts.Put(t.Context(), "branch", onboard.Wishes{Dial: onboard.Dial{Country: "GB",
			Emergency: []plan.EmergencyNumber{{DialString: "112"}}}}))
		rings := []rollout.Ring{{Accounts: []string{"acme2"}}, {Percent: 60}}
		r, err := f.rollouts.Begin(t.Context(), "branch", rings, "test")
		f.must(err)
		if _, err := f.rollouts.Apply(t.Context(), "branch", r.ID); !fault.HasCode(err, "RolloutState") {
			t.Errorf("applied before it was planned: %v", err)
		}
		r = f.roll(s, r, accounts)
		var planned []string
		for _, x := range r.Tenants {
			planned = append(planned, fmt.Sprintf("%d %s +%d ~%d -%d %s", x.Ring, x.Account, x.Create, x.Change,
				x.Delete, x.Problem))
			if got := f.emergency(x.Account); slices.Contains(got, "112") {
				t.Errorf("%s was changed while it was planned: %v", x.Account, got)
			}
		}
		if got, want := strings.Join(planned, "; "), "1 acme2 +1 ~0 -0 ; 2 acme0 +1 ~0 -0 ; 2 acme1 +1 ~0 -0 ; "+
			"3 acme3 +0 ~0 -0 ; 3 acme4 +1 ~0 -0 "; got != want || r.State != rollout.Planned || r.Rings != 3 {
			t.Fatalf("planned %q, %s, %d rings\nwant %q", got, r.State, r.Rings, want)
		}
		if _, err := f.rollouts.Begin(t.Context(), "branch", nil, "test"); !fault.HasCode(err, "RolloutExists") {
			t.Errorf("began twice: %v", err)
		}

		_, err = f.rollouts.Apply(t.Context(), "branch", r.ID)
		f.must(err)
		if r = f.roll(s, r, accounts); r.State != rollout.Done {
			t.Fatalf("%s: %s", r.State, r.Reason)
		}
		for _, a := range accounts {
			want := "112"
			if a == "acme3" {
				want = "999"
			}
			if got := f.emergency(a); len(got) != 1 || got[0] != want {
				t.Errorf("%s has %v, want %s", a, got, want)
			}
		}
		if at > *points || t.Failed() {
			t.Logf("%d points", *points)
			return
		}
	}
}

// A rollout stops at the first tenant that needs a person or whose plan is refused, and continues from there.
func TestRolloutStops(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	accounts := f.branches(4)
	s, _ := f.rolling(-1)
	change := func(number string) *rollout.Rollout {
		t.Helper()
		f.must(f.rollouts.Put(t.Context(), "branch", onboard.Wishes{Dial: onboard.Dial{Country: "GB",
			Emergency: []plan.EmergencyNumber{{DialString: number}}}}))
		rings := []rollout.Ring{{Percent: 25}, {Percent: 50}, {Percent: 75}}
		r, err := f.rollouts.Begin(t.Context(), "branch", rings, "test")
		f.must(err)
		if r = f.roll(s, r, accounts); r.State != rollout.Planned {
			t.Fatalf("%s: %s", r.State, r.Reason)
		}
		return r
	}
	apply := func(r *rollout.Rollout, want rollout.State) *rollout.Rollout {
		t.Helper()
		_, err := f.rollouts.Apply(t.Context(), "branch", r.ID)
		f.must(err)
		if r = f.roll(s, r, accounts); r.State != want {
			t.Fatalf("%s at %s: %s; want %s", r.State, r.Account, r.Reason, want)
		}
		return r
	}

	// The sign-in is lost when a plan was applied.
	r := change("112")
	s.Planner = losing{f}
	r = apply(r, rollout.Stopped)
	s.Planner = f.planner
	if r.Account != "acme1" || r.Reason != "sign in again" || len(f.emergency("acme2")) > 0 || r.Refused {
		t.Errorf("stopped: %+v; the next one has %v", r, f.emergency("acme2"))
	}
	f.world("acme1").failing = nil
	f.carryOut("acme1")
	_ = apply(r, rollout.Done)
	if got := f.emergency("acme3"); len(got) != 1 {
		t.Errorf("the last one has %v", got)
	}

	// A person has changed a tenant since: new plans are made, to be approved.
	r = change("999")
	f.world("acme2").change(plan.Step{Action: plan.Change,
		Ref:         plan.Ref{Type: plan.EmergencyPolicy, Name: "Tandem-E164"},
		Differences: []plan.Difference{{Field: "numbers", New: []plan.EmergencyNumber{{DialString: "000"}}}}})
	r = apply(r, rollout.Stopped)
	if r.Account != "acme2" || !r.Refused || f.emergency("acme1")[0] != "999" || f.emergency("acme3")[0] != "112" {
		t.Errorf("stopped: %+v", r)
	}
	r = apply(r, rollout.Planned)
	_ = apply(r, rollout.Done)
	if f.emergency("acme3")[0] != "999" || f.emergency("acme2")[0] != "999" {
		t.Errorf("the others have %v and %v", f.emergency("acme2"), f.emergency("acme3"))
	}

	if err := f.rollouts.Delete(t.Context(), "branch"); !fault.HasCode(err, "TemplateInUse") {
		t.Errorf("deleted: %v", err)
	}
	r = change("113")
	if r, err := f.rollouts.Abandon(t.Context(), "branch", r.ID); err != nil || r.State != rollout.Abandoned {
		t.Errorf("abandoned: %v, %v", r, err)
	}
	_, err := f.rollouts.Begin(t.Context(), "branch", []rollout.Ring{{}}, "test")
	if !fault.HasCode(err, "InvalidRings") {
		t.Errorf("an empty ring: %v", err)
	}
	_, err = f.rollouts.Begin(t.Context(), "branch", []rollout.Ring{{Accounts: []string{"acme1"}},
		{Accounts: []string{"acme1"}}}, "test")
	if !fault.HasCode(err, "InvalidRings") {
		t.Errorf("an account in two rings: %v", err)
	}
}

// While a plan of a rollout waits, the rollout says for what, and can be ended; a plan that was abandoned, or whose
// tenant was deleted, stops it.
func TestRolloutWaits(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	accounts := f.branches(2)
	s, _ := f.rolling(-1)
	var abandoned string
	s.Failed = func(context.Context, string) (string, error) { return abandoned, nil }
	f.must(f.rollouts.Put(t.Context(), "branch", onboard.Wishes{Dial: onboard.Dial{Country: "GB",
		Emergency: []plan.EmergencyNumber{{DialString: "112"}}}}))
	r, err := f.rollouts.Begin(t.Context(), "branch", []rollout.Ring{{Accounts: accounts[:1]}}, "test")
	f.must(err)
	_ = f.roll(s, r, accounts)
	_, err = f.rollouts.Apply(t.Context(), "branch", r.ID)
	f.must(err)
	look := func() *rollout.Rollout {
		t.Helper()
		_, err := s.Reconcile(t.Context(), &flow.Run{Key: flow.Key{Kind: rollout.Kind, ID: r.ID}, Attempt: 1})
		f.must(err)
		now, err := f.rollouts.Rollout(t.Context(), "branch", r.ID)
		f.must(err)
		return now
	}
	_ = look()
	f.world("acme0").failing = fault.New(fault.Unavailable, "Busy", "Microsoft is busy")
	f.carryOut("acme0")
	if now := look(); now.State != rollout.Running || !strings.Contains(now.Tenants[0].Waits, "Microsoft is busy") ||
		!strings.Contains(now.Tenants[0].Waits, "waits for microsoft since 20") || now.Tenants[1].Applied {
		t.Errorf("while a plan waits: %+v", now)
	}
	abandoned = "the work has failed"
	if now := look(); now.State != rollout.Stopped || now.Account != "acme0" || now.Reason != abandoned {
		t.Errorf("when its work has failed: %+v", now)
	}
	_, err = f.rollouts.Apply(t.Context(), "branch", r.ID)
	f.must(err)
	s.Tenant = func(context.Context, string) (*onboard.Tenant, error) {
		return nil, fault.New(fault.NotFound, "TenantNotFound", "gone")
	}
	if now := look(); now.State != rollout.Stopped || !strings.Contains(now.Reason, "deleted") {
		t.Errorf("when the tenant was deleted: %+v", now)
	}
	if now, err := f.rollouts.Abandon(t.Context(), "branch", r.ID); err != nil || now.State != rollout.Abandoned {
		t.Errorf("abandoned: %+v, %v", now, err)
	}
}

// losing is a planner under which the sign-in to acme1 is lost once its plan is applied.
type losing struct{ *fleet }

func (l losing) Plan(ctx context.Context, account string, o onboard.Order, by string) (*onboard.Proposal, error) {
	return l.planner.Plan(ctx, account, o, by)
}

func (l losing) Apply(ctx context.Context, account, id string) (*onboard.Proposal, error) {
	p, err := l.planner.Apply(ctx, account, id)
	if account == "acme1" {
		l.world(account).failing = fault.New(fault.Unauthenticated, "SignInNeeded", "sign in again")
	}
	return p, err
}
