package tenant_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/cli/demo"
	"github.com/tandemgw/tandem/internal/sim/microsoft"
	"github.com/tandemgw/tandem/internal/testkit/graphspec"
)

// The whole way of a customer: the operator's tenant, an invitation, readiness, the plan, its work, users and their
// numbers, drift, the end of it, the return with the snapshot, and a new beginning without it.
func TestWholeWay(t *testing.T) {
	t.Parallel()
	wholeWay(t, start(t), "derived")
}

func wholeWay(t *testing.T, w *world, trunk api.TenantSettingsTrunk) {
	t.Helper()
	ctx := t.Context()
	spec := newWitness(w)
	w.signIn(carrier, w.Operator.Admin, w.Operator.Admin)
	w.setUpCarrier()

	w.account()
	w.invite()
	r, err := w.p.Manage.Readiness(ctx, customer)
	if err != nil || r.Failed > 0 || r.Passed == 0 {
		t.Fatalf("readiness: %+v, %v", r, err)
	}
	before := w.Customer.Dump()
	w.choose(api.TenantSettings{Trunk: trunk})

	mutations := w.Microsoft.Mutations()
	onboarding := api.PlanRequest{Purpose: api.PlanRequestPurposeOnboard}
	p, err := w.p.Manage.PlanTenant(ctx, customer, onboarding)
	if err != nil || len(p.Steps) == 0 || len(p.Conflicts) > 0 {
		t.Fatalf("plan: %+v, %v", p, err)
	}
	if n := w.Microsoft.Mutations() - mutations; n > 0 || !bytes.Equal(before, w.Customer.Dump()) {
		t.Errorf("making the plan sent %d requests that change a tenant", n)
	}

	began := time.Now()
	requests := spec.requests()
	w.carryPlan(customer, p.ID, onboarding, api.TenantStateOnboarded)
	t.Logf("onboarding in %v with %d requests, each answered after %v by a cloud without delays",
		time.Since(began).Round(time.Millisecond), spec.requests()-requests, time.Millisecond)
	w.again("a second plan", 0)

	names := free(w.sync(customer), 5)
	joined := w.state(w.Customer)
	w.activate(customer, names)
	active := w.state(w.Customer)
	w.deactivate(names)
	same(t, "after the deactivation", joined, w.state(w.Customer))
	w.activate(customer, names)
	same(t, "after the second activation", active, w.state(w.Customer))

	w.driftAndRepair()
	same(t, "after the repair", active, w.state(w.Customer))

	w.leave(before)
	w.signIn(customer, w.Customer.Admin, w.ServiceUser())
	all, err := w.p.Manage.Snapshots(ctx, customer)
	if err != nil || len(all) == 0 {
		t.Fatalf("snapshots: %v, %v", all, err)
	}
	w.carry(customer, api.PlanRequest{Purpose: api.PlanRequestPurposeRestore, Snapshot: all[0].ID},
		api.TenantStateOnboarded)
	w.active(customer, wanted(names))
	same(t, "after the restore", active, w.state(w.Customer))

	w.leave(before)
	if err := w.p.Manage.DeleteTenant(ctx, customer); err != nil {
		t.Fatal(err)
	}
	w.signIn(customer, w.Customer.Admin, w.ServiceUser())
	w.choose(api.TenantSettings{Trunk: trunk})
	w.carry(customer, onboarding, api.TenantStateOnboarded)
	same(t, "onboarded again", joined, w.state(w.Customer))
	spec.check(t)
}

// invite walks the pages of an invitation.
func (w *world) invite() {
	w.t.Helper()
	ctx := w.t.Context()
	i, err := w.p.Manage.Invite(ctx, customer, api.InvitationRequest{Days: 3})
	if err != nil {
		w.t.Fatal(err)
	}
	b, err := demo.NewBrowser(w.Lab)
	if err == nil {
		err = b.Open(ctx, i.URL)
	}
	walk := func(ctx context.Context, address, login string) (string, error) {
		to, err := w.Microsoft.Walk(ctx, address, login, nil)
		if err != nil || to == nil {
			return "", errors.Join(errors.New("the login does not send the browser back"), err)
		}
		return to.String(), nil
	}
	if err == nil {
		err = b.Trip(ctx, "/authorise", w.Customer.Admin, walk)
	}
	if err == nil {
		err = b.Trip(ctx, "/integrate", w.ServiceUser(), walk)
	}
	if err != nil {
		w.t.Fatalf("invitation: %v", err)
	}
	a, err := w.p.Manage.TenantAccess(ctx, customer)
	if err != nil || a.State != api.TenantAccessStateIntegrated || a.Tenant != w.Customer.ID {
		w.t.Fatalf("access: %+v, %v", a, err)
	}
}

// again makes a plan and expects so many steps.
func (w *world) again(what string, steps int) {
	w.t.Helper()
	p, err := w.p.Manage.PlanTenant(w.t.Context(), customer, api.PlanRequest{Purpose: api.PlanRequestPurposeOnboard})
	if err != nil || len(p.Steps) != steps {
		w.t.Errorf("%s: %+v, %v", what, p, err)
	}
}

// wanted returns the numbers of activated users.
func wanted(names []string) map[string]string {
	want := map[string]string{}
	for i, name := range names {
		want[name] = number(i)
	}
	return want
}

func (w *world) deactivate(names []string) {
	w.t.Helper()
	w.do("deactivate users", func(ctx context.Context) error {
		outcomes, err := w.p.Manage.DeactivateUsers(ctx, customer, api.UserDeactivation{Users: names})
		for _, o := range outcomes {
			if o.Code != "" {
				return neverf("%s: %s: %s", o.User, o.Code, o.Reason)
			}
		}
		return err
	})
	w.active(customer, map[string]string{})
}

// driftAndRepair changes the route as a person would, and has it found and repaired.
func (w *world) driftAndRepair() {
	w.t.Helper()
	w.Customer.Edit(func(s *microsoft.State) {
		for key, route := range s.Configurations["OnlineVoiceRoute"] {
			if strings.HasPrefix(key, "tandem-") {
				route["NumberPattern"] = `^\+44`
			}
		}
	})
	earlier, err := w.p.Manage.Drift(w.t.Context(), customer)
	if err == nil {
		err = w.p.Manage.CheckDrift(w.t.Context(), customer)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	var d *api.Drift
	w.do("compare", func(ctx context.Context) (err error) {
		if d, err = w.p.Manage.Drift(ctx, customer); err == nil && !d.Checked.After(earlier.Checked) {
			err = errors.New("the tenant was not compared yet: " + d.Problem)
		}
		return err
	})
	if len(d.Differences) != 1 || d.Differences[0].Type != "route" || d.Differences[0].Field != "pattern" {
		w.t.Fatalf("drift: %+v", d)
	}
	r, err := w.p.Manage.RepairDrift(w.t.Context(), customer, d.Differences[0].ID)
	if err != nil {
		w.t.Fatal(err)
	}
	w.carryPlan(customer, r.Plan, api.PlanRequest{Purpose: api.PlanRequestPurposeRepair}, api.TenantStateOnboarded)
}

// leave removes everything; the tenant must be as before, and the report says so.
func (w *world) leave(before []byte) {
	w.t.Helper()
	w.carry(customer, api.PlanRequest{Purpose: api.PlanRequestPurposeLeave}, api.TenantStateLeft)
	var r *api.LeaveReport
	w.do("the report", func(ctx context.Context) (err error) {
		r, err = w.p.Manage.LeaveReport(ctx, customer, "latest")
		return err
	})
	if len(r.Outcomes) == 0 || slices.ContainsFunc(r.Outcomes, func(o api.LeaveOutcome) bool {
		return o.Fate == "kept" && o.Type != "consent"
	}) {
		w.t.Errorf("the report: %+v", r)
	}
	if len(r.Advice) == 0 || !strings.Contains(r.Advice[0], w.ServiceUser()+" signed in for Tandem") ||
		!strings.Contains(r.Advice[0], "may now be deleted") {
		w.t.Errorf("advice after the leave: %q", r.Advice)
	}
	same(w.t, "after leaving", parse(w.t, before), w.state(w.Customer))
}

// witness records the requests to Graph and their answers.
type witness struct {
	mu        sync.Mutex
	exchanges []microsoft.Exchange
}

func newWitness(w *world) *witness {
	x := &witness{}
	observe := func(e microsoft.Exchange) {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.exchanges = append(x.exchanges, e)
	}
	w.observe.Store(&observe)
	return x
}

// requests returns how many were sent.
func (x *witness) requests() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.exchanges)
}

// check validates the requests to Graph, and the answers, against the published contract, on machines that have it.
// What the contract lacks must be listed.
func (x *witness) check(t *testing.T) {
	t.Helper()
	c := graphspec.Load(t)
	if c == nil {
		return
	}
	listed, lacking := graphspec.Listed(t), map[string]bool{}
	n := 0
	for _, e := range x.exchanges {
		if e.Service != microsoft.Graph {
			continue
		}
		n++
		if c.Check(t, graphspec.Exchange{Request: e.Request, Body: e.Body, Status: e.Status, Header: e.Header,
			Answer: e.Answer}) == "" {
			call := graphspec.Call(e.Request)
			if lacking[call] = true; !listed[call] {
				t.Errorf("%s is neither in the contract nor listed in docs/verification.md", call)
			}
		}
	}
	t.Logf("%d requests to Graph are as in the contract, but for %q", n, slices.Sorted(maps.Keys(lacking)))
}
