package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
	"github.com/tandemgw/tandem/internal/tenants/snapshot"
	"github.com/tandemgw/tandem/internal/tenants/tenantapi"
	"github.com/tandemgw/tandem/internal/tenants/user"
	"github.com/tandemgw/tandem/internal/testkit"
)

// A filter or a rule whose value cannot exist is refused, and does not look like an empty list.
func TestUnknownFilters(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.account("acme")
	f.apply("acme", onboard.Onboard)
	sealer := f.n.core.keyring
	users := tenantapi.Users{Service: f.users, Sealer: sealer}
	tenants := tenantapi.Tenants{Planner: f.planner, Store: f.store, Sealer: sealer, Fleet: f.store.Fleet}
	list := func(location string) error {
		_, err := users.ListUsers(t.Context(), api.ListUsersRequestObject{Account: "acme",
			Params: api.ListUsersParams{UsageLocation: &location}})
		return err
	}
	f.must(list("gb"))
	_, unknown := tenants.ListTenants(t.Context(), api.ListTenantsRequestObject{
		Params: api.ListTenantsParams{Template: new("bogus")}})
	_, activate := users.ActivateUsers(t.Context(), api.ActivateUsersRequestObject{Account: "acme",
		Body: &api.UserActivation{UsageLocation: "1"}})
	_, deactivate := users.DeactivateUsers(t.Context(), api.DeactivateUsersRequestObject{Account: "acme",
		Body: &api.UserDeactivation{UsageLocation: "G8"}})
	for _, c := range []struct {
		err          error
		code, target string
	}{{list("G8"), "InvalidUsageLocation", "usageLocation"}, {activate, "InvalidUsageLocation", "usageLocation"},
		{deactivate, "InvalidUsageLocation", "usageLocation"}, {unknown, "TemplateNotFound", "template"}} {
		if !fault.HasCode(c.err, c.code) || !fault.Is(c.err, fault.Invalid) || fault.As(c.err).Target != c.target {
			t.Errorf("%v, want %s at %s", c.err, c.code, c.target)
		}
	}
}

// mortal is a store whose process ends at a transaction: before it, or after it was committed.
type mortal struct {
	loose
	left  *int // transactions, if not 0
	after bool
}

var errEnded = errors.New("the process has ended")

func (s mortal) Update(ctx context.Context, run *flow.Run, account, progress string,
	fn func(context.Context, onboard.Tx) error) error {
	*s.left--
	if *s.left == 0 && !s.after {
		return errEnded
	}
	err := s.loose.Update(ctx, run, account, progress, fn)
	if *s.left == 0 && s.after {
		return errEnded
	}
	return err
}

// The users of a plan are asked for in several transactions, so that others can write in between. Wherever the process
// ends, each is asked for once, in the name of who has approved the plan.
func TestUsersAreAskedForInParts(t *testing.T) {
	t.Parallel()
	const users = 250
	ctx := domain.WithActor(t.Context(), domain.Actor{Kind: "client", ID: "anna"})
	for _, purpose := range []onboard.Purpose{onboard.Leave, onboard.Restore, onboard.Repair} {
		for at := range 4 {
			for _, after := range []bool{false, true}[:min(at+1, 2)] {
				f := newFleet(t)
				f.account("acme")
				f.apply("acme", onboard.Onboard)
				made := make([]plan.Made, users)
				var steps []plan.Step
				var profiles []user.Profile
				for i := range made {
					made[i] = plan.Made{OverrideGroup: i == 3, Object: plan.UserObject(&plan.Settings{Prefix: "T"},
						plan.Activation{ID: fmt.Sprintf("u%03d", i), Number: fmt.Sprintf("+4420794600%03d", i)})}
					steps = append(steps, plan.Step{Action: plan.Change, Ref: made[i].Ref})
					profiles = append(profiles, user.Profile{ID: made[i].Name, UPN: made[i].Name + "@acme.example"})
				}
				f.must(f.rows.Update(ctx, nil, "acme", "", func(ctx context.Context, tx user.Tx) error {
					err := tx.PutProfiles(ctx, 1, profiles)
					for i, a := range activations(made) {
						if purpose != onboard.Restore {
							err = errors.Join(err, tx.Settle(ctx, &user.User{Profile: profiles[i], Activation: &a}))
						}
					}
					return err
				}))
				var id, action string
				var err error
				switch purpose {
				case onboard.Leave:
					action = "tenant.user.deactivate"
				case onboard.Restore:
					action = "tenant.user.activate"
					f.apply("acme", onboard.Leave)
					f.planner.Restored = func(context.Context, string, string) (*onboard.Restoration, error) {
						return &onboard.Restoration{Users: made}, nil
					}
				case onboard.Repair:
					action = "tenant.user.repair"
					id, err = f.planner.Repair(ctx, "acme", &plan.Plan{Steps: steps}, nil, "test")
				}
				if id == "" {
					var n *onboard.Proposal
					if n, err = f.planner.Plan(ctx, "acme", onboard.Order{Purpose: purpose}, "test"); err == nil {
						id = n.ID
					}
				}
				f.must(err)
				_, err = f.planner.Apply(ctx, "acme", id)
				f.must(err)

				transactions := at
				f.onboarder.Store = mortal{loose{f.store}, &transactions, after}
				reconcile := func() error {
					_, err := f.onboarder.Reconcile(t.Context(), &flow.Run{Key: flow.Key{Kind: onboard.Kind,
						ID: "acme"}})
					return err
				}
				for range 3 {
					if err := reconcile(); err != nil && !errors.Is(err, errEnded) {
						t.Fatal(err)
					}
				}
				if at == 0 && -transactions < (users+usersAtOnce-1)/usersAtOnce {
					t.Errorf("%s: %d transactions for %d users", purpose, -transactions, users)
				}

				asked := map[string]int{}
				for _, r := range testkit.AuditLog(t, f.n.core.db) {
					if r.Action == action {
						asked[r.Target]++
						if r.Actor.ID != "anna" {
							t.Errorf("%s in the name of %+v", r.Action, r.Actor)
						}
					}
				}
				for target, n := range asked {
					if n != 1 {
						t.Errorf("%s, ended at %d: %s was asked for %d times", purpose, at, target, n)
					}
				}
				pending, err := f.rows.Pending(t.Context(), "", users+1)
				f.must(err)
				if len(asked) != users || len(pending) != users || len(f.tenant("acme").Asking) > 0 {
					t.Errorf("%s, ended at %d: %d users were asked for, %d are pending, %+v", purpose, at, len(asked),
						len(pending), f.tenant("acme").Asking)
				}
				if purpose == onboard.Restore {
					f.must(f.rows.View(t.Context(), "acme", func(ctx context.Context, tx user.Tx) error {
						u, err := tx.User(ctx, "u003")
						if err == nil && !u.Activation.OverrideGroup {
							t.Errorf("the consent to override a group is lost: %+v", u.Activation)
						}
						return err
					}))
				}
			}
		}
	}
}

// Work that waits for a person continues with the next synchronisation of users; other waits have their own time.
func TestSynchronisationContinuesTheWork(t *testing.T) {
	t.Parallel()
	for party, want := range map[onboard.Party]int{onboard.Person: 1, onboard.Microsoft: 0} {
		f := newFleet(t)
		f.account("acme")
		f.must(f.store.Update(t.Context(), nil, "acme", "", func(ctx context.Context, tx onboard.Tx) error {
			x, err := tx.Tenant(ctx)
			if err != nil {
				return err
			}
			x.Purpose, x.Pending, x.Waiting = onboard.Onboard, true, &onboard.Waiting{For: party}
			return tx.SetTenant(ctx, x)
		}))
		f.must(f.rows.Update(t.Context(), nil, "acme", "", func(ctx context.Context, tx user.Tx) error {
			return tx.Wake(ctx)
		}))
		due, err := f.n.core.work.List(t.Context(), onboard.Kind, flow.Queued, flow.Key{}, 10)
		f.must(err)
		if len(due) != want {
			t.Errorf("a wait for %s: due %+v, want %d", party, due, want)
		}
	}
}

// free is a tenant at Microsoft that has no numbers yet.
type free struct{ user.Cloud }

func (free) Held(context.Context, []string) (map[string]user.Holding, error) { return nil, nil }

// Users whom the settings of a tenant or its template select, and who could be active, are found, but for those who
// were excepted. A plan shows the next free numbers for them, and gives them; a user who was activated meanwhile keeps
// its number.
func TestSelectedUsers(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.users.Clouds = func(context.Context, *onboard.Tenant) (user.Cloud, error) { return free{}, nil }
	f.must(f.rollouts.Put(t.Context(), "sales", onboard.Wishes{Users: onboard.Selection{Department: "Sales",
		Location: "GB"}}))
	f.account("acme")
	f.apply("acme", onboard.Onboard)
	for _, n := range []domain.E164{"+442079460001", "+442079460002", "+442079460003"} {
		f.number("acme", n)
	}
	profile := func(id, department, location string, blocked, licensed bool) user.Profile {
		p := user.Profile{ID: id, UPN: id + "@acme.example", Department: department, Location: location,
			Blocked: blocked}
		if licensed {
			p.Plans = []user.Plan{{Name: "MCOEV", Status: "Enabled"}}
		}
		return p
	}
	f.must(f.rows.Update(t.Context(), nil, "acme", "", func(ctx context.Context, tx user.Tx) error {
		var voices []user.Voice
		profiles := []user.Profile{profile("a", "Sales", "GB", false, true), profile("b", "Sales", "GB", false, true),
			profile("c", "Sales", "GB", false, true), profile("d", "Sales", "DE", false, true),
			profile("e", "IT", "GB", false, true), profile("f", "Sales", "GB", true, true),
			profile("g", "Sales", "GB", false, false)}
		for _, p := range profiles {
			voices = append(voices, user.Voice{ID: p.ID, Kind: "user"})
		}
		return errors.Join(tx.PutProfiles(ctx, 1, profiles), tx.PutVoices(ctx, 1, voices))
	}))
	selected := func(limit int) string {
		ids, err := f.drift.Users.Selected(t.Context(), f.tenant("acme"), limit)
		f.must(err)
		return strings.Join(ids, "")
	}
	if got := selected(10); got != "" {
		t.Errorf("nothing is selected: %s", got)
	}
	f.wish("acme", func(w *onboard.Wishes) { w.Template = "sales" })
	if all, two := selected(10), selected(2); all != "abc" || two != "ab" {
		t.Errorf("selected: %s; two of them: %s", all, two)
	}
	f.wish("acme", func(w *onboard.Wishes) { w.ExceptUsers = []string{"a"} })
	if all, one := selected(10), selected(1); all != "bc" || one != "b" {
		t.Errorf("without a: %s; one of them: %s", all, one)
	}

	if _, err := f.drift.Users.Activations(t.Context(), "acme", []string{"b", "g"}); !fault.HasCode(err,
		"UserUnlicensed") || !strings.Contains(err.Error(), "g@acme.example") {
		t.Errorf("a user without licence: %v", err)
	}
	made, err := f.drift.Users.Activations(t.Context(), "acme", []string{"b", "c"})
	f.must(err)
	id, err := f.drift.Repair(t.Context(), "acme", &plan.Plan{}, made)
	f.must(err)
	var n *onboard.Proposal
	f.must(f.store.View(t.Context(), "acme", func(ctx context.Context, tx onboard.Tx) (err error) {
		n, err = tx.Proposal(ctx, id)
		return err
	}))
	var shown []string
	for _, s := range n.Users {
		for _, d := range s.Differences {
			shown = append(shown, fmt.Sprint(s.Name, " ", d.Field, " ", d.Old, " ", d.New))
		}
	}
	if got, want := strings.Join(shown, "; "), "b dialPlan <nil> Tandem-E164; b number <nil> +442079460001; "+
		"b routingPolicy <nil> Tandem-E164; c dialPlan <nil> Tandem-E164; c number <nil> +442079460002; "+
		"c routingPolicy <nil> Tandem-E164"; got != want {
		t.Errorf("the plan shows %s, want %s", got, want)
	}

	f.give("acme", "c", "+442079460003") // meanwhile
	_, err = f.planner.Apply(t.Context(), "acme", id)
	f.must(err)
	_, err = f.onboarder.Reconcile(t.Context(), &flow.Run{Key: flow.Key{Kind: onboard.Kind, ID: "acme"}})
	f.must(err)
	f.must(f.rows.View(t.Context(), "acme", func(ctx context.Context, tx user.Tx) error {
		for id, want := range map[string]string{"b": "+442079460001", "c": "+442079460003"} {
			u, err := tx.User(ctx, id)
			if err != nil {
				return err
			}
			if u.Activation == nil || u.Activation.Number != want || !u.Pending {
				t.Errorf("%s is to have %+v, want %s", id, u.Activation, want)
			}
		}
		return nil
	}))
	if got := selected(10); got != "" {
		t.Errorf("still inactive: %s", got)
	}
}

// A plan to leave and the report of the leave name users as people know them, the report also after they were
// forgotten; what became of the application is in the report.
func TestLeaveNamesUsers(t *testing.T) {
	t.Parallel()
	for _, remove := range []bool{false, true} {
		f := newFleet(t)
		f.snapshots.Sources = func(_ context.Context, t *onboard.Tenant) (snapshot.Source, error) {
			return unnumbered{f.world(t.Account)}, nil
		}
		f.planner.Leaving, f.onboarder.Left = f.leaving, f.left
		f.account("acme")
		f.apply("acme", onboard.Onboard)
		o := plan.UserObject(&plan.Settings{Prefix: "Tandem-E164"}, plan.Activation{ID: "u-1", Number: "+442079460001"})
		f.must(f.rows.Update(t.Context(), nil, "acme", "", func(ctx context.Context, tx user.Tx) error {
			err := tx.PutProfiles(ctx, 1, []user.Profile{{ID: "u-1", UPN: "anna@acme.example", Name: "Anna Meier"}})
			return errors.Join(err, tx.Record(ctx, plan.Made{Object: o, Before: plan.Fields{"number": nil}}))
		}))
		ops := tenantapi.Tenants{Planner: f.planner, Store: f.store, Names: f.rows.Names}
		answer, err := ops.PlanTenant(t.Context(), api.PlanTenantRequestObject{Account: "acme", Body: &api.PlanRequest{
			Purpose: api.PlanRequestPurposeLeave, RemoveConsent: remove}})
		f.must(err)
		p := answer.(api.PlanTenant200JSONResponse)
		if len(p.Users) != 1 || p.Users[0].Name != "u-1" || p.Users[0].User != "anna@acme.example" ||
			p.Users[0].DisplayName != "Anna Meier" {
			t.Errorf("users of the plan: %+v", p.Users)
		}
		_, err = f.planner.Apply(t.Context(), "acme", p.ID)
		f.must(err)
		f.must(f.rows.Update(t.Context(), nil, "acme", "", func(ctx context.Context, tx user.Tx) error {
			return tx.Forget(ctx, o.Ref) // its run has ended
		}))
		f.carryOut("acme")
		f.must(f.rows.Update(t.Context(), nil, "acme", "", func(ctx context.Context, tx user.Tx) error {
			return tx.Clear(ctx)
		}))

		report, err := tenantapi.Snapshots{Snapshots: f.snapshots}.GetLeaveReport(t.Context(),
			api.GetLeaveReportRequestObject{Account: "acme", Snapshot: snapshot.Latest})
		f.must(err)
		found := map[string]api.LeaveOutcome{}
		for _, o := range report.(api.GetLeaveReport200JSONResponse).Outcomes {
			found[o.Type] = o
		}
		if u := found["user"]; u.Name != "u-1" || u.User != "anna@acme.example" || u.DisplayName != "Anna Meier" {
			t.Errorf("the user in the report: %+v", u)
		}
		if c := found["consent"]; remove && c.Fate != "gone" || !remove && (c.Fate != "kept" ||
			!strings.Contains(c.Reason, "its removal was not asked for")) {
			t.Errorf("the application in the report, removed %t: %+v", remove, c)
		}
	}
}

// Events name the users of Tandem, and hide the names of others.
func TestNamesInEvents(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.account("acme")
	f.apply("acme", onboard.Onboard)
	f.give("acme", "u-1", "+442079460001")
	head, err := f.n.core.events.Head(t.Context())
	f.must(err)
	n, err := f.planner.Plan(t.Context(), "acme", onboard.Order{Purpose: onboard.Leave}, "test")
	f.must(err)
	_, err = f.planner.Apply(t.Context(), "acme", n.ID)
	f.must(err)
	name := f.tenant("acme").Settings.Names()[0]
	for _, who := range []string{"user bob.smith@" + name, `orgContact "Bob Smith"`} {
		r := plan.Ref{Type: plan.Reference, Name: who}
		f.world("acme").objects[key(r.Type, r.Name)] = plan.Object{Ref: r, Fields: plan.Fields{"domain": name}}
	}
	result, err := f.onboarder.Reconcile(t.Context(), &flow.Run{Key: flow.Key{Kind: onboard.Kind, ID: "acme"}})
	f.must(err)
	if w := f.tenant("acme").Waiting; w == nil || !strings.Contains(w.Reason, "bob.smith@") ||
		!strings.Contains(w.Reason, "Bob Smith") {
		t.Errorf("the operator is not told who has a name in the domain: %+v", w)
	}

	all, _, err := f.n.core.events.Read(t.Context(), head, true, 1000)
	f.must(err)
	texts := result.Wait // in lists of work and in logs
	found := map[string]api.Event{}
	for _, e := range all {
		found[e.Kind] = e
		texts += fmt.Sprintf("\n%+v", e)
	}
	if w := found["tenant.waiting"].Data["reason"]; w == nil || !strings.Contains(w.(string), "b…@"+name) {
		t.Errorf("the event of the wait: %+v", found["tenant.waiting"])
	}
	if u := found["tenant.user.deactivate"]; u.Subject != "acme/u-1" || u.Data["user"] != "u-1@example" {
		t.Errorf("the event of the user: %+v", u)
	}
	if strings.Contains(texts, "mith") {
		t.Errorf("names in events:\n%s", texts)
	}
}
