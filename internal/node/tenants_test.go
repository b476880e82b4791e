package node

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/secret"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
	"github.com/tandemgw/tandem/internal/tenants/invite"
	"github.com/tandemgw/tandem/internal/tenants/move"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
	"github.com/tandemgw/tandem/internal/tenants/snapshot"
	"github.com/tandemgw/tandem/internal/tenants/tenantapi"
)

// signIn lets the administrator of a tenant sign in for an account.
func (f *fleet) signIn(account, tenant string) {
	f.Helper()
	f.must(f.access.Update(f.Context(), nil, func(ctx context.Context, tx invite.Tx) error {
		now := time.Now()
		return tx.SetAccess(ctx, &invite.Access{Account: account, Tenant: tenant, Mode: invite.Application,
			Consented: now, Integrated: &invite.Mark{At: now}, Checked: now, Due: now.Add(time.Hour)},
			secret.New("token"))
	}))
}

// A plan, what is carried out, and what a snapshot is read from are of the tenant that the row names, whoever signs in.
func TestAnotherTenantSignsIn(t *testing.T) {
	t.Parallel()
	const next = "acme" + onboard.Next
	f := newFleet(t)
	f.account("acme")
	f.apply("acme", onboard.Onboard)
	refused := func(what string, err error) {
		t.Helper()
		if !fault.HasCode(err, "TenantDiffers") {
			t.Errorf("%s: %v", what, err)
		}
	}
	planned := func(id string) error {
		_, err := f.planner.Plan(t.Context(), id, onboard.Order{Purpose: onboard.Onboard}, "test")
		return err
	}

	_, err := f.moves.Begin(t.Context(), "acme", move.Request{TenantID: "22222222-2222-4222-8222-222222222222"}, "test")
	f.must(err)
	link, err := f.invite.CreateInvitation(t.Context(), api.CreateInvitationRequestObject{Account: next,
		Body: &api.InvitationRequest{}})
	f.must(err)
	if got := link.(api.CreateInvitation201JSONResponse).Tenant; got != "22222222-2222-4222-8222-222222222222" {
		t.Errorf("the invitation is for the tenant %q", got)
	}
	ops := tenantapi.Tenants{Store: f.store, Moves: f.moves}
	for _, id := range []string{next, "acme"} { // the move needs both
		_, err := ops.DeleteTenant(t.Context(), api.DeleteTenantRequestObject{Account: id})
		if !fault.HasCode(err, "MoveExists") || !strings.Contains(err.Error(), "22222222-2222-4222-8222-222222222222") {
			t.Errorf("forget %s: %v", id, err)
		}
	}
	f.signIn(next, "33333333-3333-4333-8333-333333333333")
	refused("a plan for the tenant to which the account moves", planned(next))

	f.signIn("acme", "44444444-4444-4444-8444-444444444444")
	refused("a plan for the tenant that is onboarded", planned("acme"))
	_, err = f.cloud(t.Context(), f.tenant("acme"))
	refused("the work on a tenant", err)
	_, err = f.snapshots.Take(t.Context(), "acme", "request")
	refused("a snapshot", err)
}

// An account is not deleted while Tandem has something in its tenant, even if its label is not the onboarding's; then
// nothing of the tenant is left for a later account of the same name.
func TestDeleteAnAccountWithATenant(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.account("acme")
	f.signIn("acme", "22222222-2222-4222-8222-222222222222")
	remove := func() error {
		_, err := f.n.core.directory.DeleteAccount(t.Context(), "acme", false, directory.Write{})
		return err
	}
	f.must(f.store.Update(t.Context(), nil, "acme", "", func(ctx context.Context, tx onboard.Tx) error {
		return tx.Record(ctx, plan.Made{Object: plan.Object{Ref: plan.Ref{Type: plan.Usage, Name: "Tandem-E164"}}})
	}))
	if err := remove(); !fault.HasCode(err, directory.CodeLabelOnboarded) {
		t.Errorf("with objects in the tenant: %v", err)
	}
	f.must(f.store.Update(t.Context(), nil, "acme", "", func(ctx context.Context, tx onboard.Tx) error {
		return tx.Forget(ctx, plan.Ref{Type: plan.Usage, Name: "Tandem-E164"})
	}))
	f.must(remove())
	if a, err := f.accessTo(t.Context(), "acme"); a != nil || err != nil {
		t.Errorf("the access of a deleted account: %+v, %v", a, err)
	}
	if _, err := f.row(t.Context(), "acme"); !fault.Is(err, fault.NotFound) {
		t.Errorf("the tenant of a deleted account: %v", err)
	}
}

// A sign-in to the wrong tenant is forgotten with the tenant, also before anything was planned.
func TestForgetASignIn(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	_, err := f.n.core.directory.PutAccount(t.Context(), domain.Account{Name: "acme"}, directory.Write{})
	f.must(err)
	f.signIn("acme", "22222222-2222-4222-8222-222222222222")
	ops := tenantapi.Tenants{Store: f.store, Moves: f.moves}
	for _, want := range []bool{true, false} {
		_, err := ops.DeleteTenant(t.Context(), api.DeleteTenantRequestObject{Account: "acme"})
		if want == fault.HasCode(err, "TenantNotFound") {
			t.Errorf("there is a tenant: %t; %v", want, err)
		}
	}
	if a, err := f.accessTo(t.Context(), "acme"); a != nil || err != nil {
		t.Errorf("the access: %+v, %v", a, err)
	}
}

// A plan that was made for one tenant is not applied to another one that looks the same.
func TestPlanForAnotherTenant(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.account("acme")
	f.onboarder.Done = nil
	f.apply("acme", onboard.Leave) // now any tenant may take its place
	f.signIn("acme", "22222222-2222-4222-8222-222222222222")
	n, err := f.planner.Plan(t.Context(), "acme", onboard.Order{Purpose: onboard.Onboard}, "test")
	f.must(err)
	f.signIn("acme", "33333333-3333-4333-8333-333333333333")
	if _, err := f.planner.Apply(t.Context(), "acme", n.ID); !fault.HasCode(err, "TenantChanged") {
		t.Errorf("%v", err)
	}
}

// A plan with derived trunks is refused while the operator's tenant lacks something, by what it lacks; one with gateway
// objects needs nothing there.
func TestPlanNeedsTheCarrier(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.planner.Missing = func(context.Context) ([]string, error) {
		return []string{"domain 1r1.gw.example.com", "gateway 1r1.gw.example.com"}, nil
	}
	f.account("acme")
	planned := func() error {
		_, err := f.planner.Plan(t.Context(), "acme", onboard.Order{Purpose: onboard.Onboard}, "test")
		return err
	}
	if err := planned(); !fault.HasCode(err, "CarrierNotReady") || !strings.Contains(err.Error(),
		"domain 1r1.gw.example.com; gateway 1r1.gw.example.com") {
		t.Errorf("derived trunks: %v", err)
	}
	f.wish("acme", func(w *onboard.Wishes) { w.Trunk = plan.Gateways })
	f.must(planned())
}

// A plan is refused if a person has changed the tenant since, also by something that only its policy refers to.
func TestPlanOfAChangedTenant(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.account("acme")
	n, err := f.planner.Plan(t.Context(), "acme", onboard.Order{Purpose: onboard.Onboard}, "test")
	f.must(err)
	f.world("acme").change(plan.Step{Action: plan.Create, Ref: plan.Ref{Type: plan.Usage, Name: "Branch"},
		Differences: []plan.Difference{{Field: "place", New: 0}}})
	if _, err := f.planner.Apply(t.Context(), "acme", n.ID); !fault.HasCode(err, "TenantChanged") {
		t.Errorf("after a person added a usage: %v", err)
	}
	if row := f.tenant("acme"); row.Pending || row.Purpose != "" {
		t.Errorf("the refused plan was approved: %+v", row)
	}
	f.apply("acme", onboard.Onboard)
}

// Two people apply plans at the same time: a plan is applied once, and no plan takes the place of a leave.
func TestPlansAtTheSameTime(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.account("acme")
	f.apply("acme", onboard.Onboard)
	planFor := func(p onboard.Purpose) string {
		n, err := f.planner.Plan(t.Context(), "acme", onboard.Order{Purpose: p}, "test")
		f.must(err)
		return n.ID
	}
	onboarding, leaving := planFor(onboard.Onboard), planFor(onboard.Leave)
	for _, c := range []struct{ first, second, code string }{
		{onboarding, onboarding, "PlanApplied"}, {leaving, planFor(onboard.Onboard), "TenantLeaves"}} {
		slow := *f.planner
		slow.Sources = func(ctx context.Context, t *onboard.Tenant) (onboard.Source, error) {
			_, err := f.planner.Apply(ctx, "acme", c.first) // after the look at the row
			return f.world(t.Account), err
		}
		if _, err := slow.Apply(t.Context(), "acme", c.second); !fault.HasCode(err, c.code) {
			t.Errorf("want %s: %v", c.code, err)
		}
	}
	if row := f.tenant("acme"); row.Purpose != onboard.Leave || len(row.Target) > 0 {
		t.Errorf("after the leave was approved: %s, %d objects", row.Purpose, len(row.Target))
	}
}

// The operator's own tenant is not left while a customer has its trunks.
func TestLeaveTheCarrier(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	leave := func() error {
		_, err := f.planner.Plan(t.Context(), onboard.Carrier, onboard.Order{Purpose: onboard.Leave}, "test")
		return err
	}
	f.account("acme")
	f.must(leave())
	f.apply("acme", onboard.Onboard)
	if err := leave(); !fault.HasCode(err, "CarrierInUse") {
		t.Errorf("with a customer: %v", err)
	}
	f.apply("acme", onboard.Leave)
	f.must(leave())
}

// unnumbered is a tenant whose users have no numbers.
type unnumbered struct{ *world }

func (unnumbered) ReadUsers(_ context.Context, ids []string) (users []plan.Object, requests int, err error) {
	for _, id := range ids {
		users = append(users, plan.Object{Ref: plan.Ref{Type: plan.User, Name: id}, Fields: plan.Fields{}})
	}
	return users, 1, nil
}

// A snapshot gives no user a number that is another customer's by now.
func TestRestoreNumbersOfTheAccountOnly(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.account("acme")
	f.account("other")
	f.apply("acme", onboard.Onboard)
	f.apply("other", onboard.Onboard)
	f.number("acme", numbered[0])
	f.number("other", numbered[1])
	f.snapshots.Sources = func(_ context.Context, t *onboard.Tenant) (snapshot.Source, error) {
		return unnumbered{f.world(t.Account)}, nil
	}
	d := &snapshot.Document{Format: snapshot.Format, Account: "acme", Tenant: "t-acme", Taken: time.Now()}
	for i := range 2 {
		o := plan.UserObject(&plan.Settings{Prefix: "Tandem-E164"}, plan.Activation{ID: fmt.Sprint("user", i),
			Number: string(numbered[i])})
		d.Entries = append(d.Entries, snapshot.Entry{Made: plan.Made{Object: o, Before: plan.Fields{},
			OverrideGroup: true}})
	}
	export, err := snapshot.Sign(f.snapshots.Sealer, d)
	f.must(err)
	s, err := f.snapshots.Import(t.Context(), "acme", export)
	f.must(err)

	r, err := f.planner.Restored(t.Context(), "acme", s.ID)
	f.must(err)
	if len(r.Users) != 1 || r.Users[0].Name != "user0" || !r.Users[0].OverrideGroup ||
		len(r.Notes) != 1 || r.Notes[0].Name != "user1" {
		t.Errorf("users %+v, notes %+v", r.Users, r.Notes)
	}
}

// Every operation on the tenant of an account answers in one way if there is no such account, and in one way if its
// administrator has not authorised Tandem, unless it comes before that.
func TestAccountsWithoutATenant(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	_, err := f.n.core.directory.PutAccount(t.Context(), domain.Account{Name: "acme"}, directory.Write{})
	f.must(err)
	_, err = f.n.core.directory.PutAccount(t.Context(), domain.Account{Name: "set"}, directory.Write{})
	f.must(err)
	h := f.n.local()
	const user = `{"items":[{"user":"u@x"}],"nextNumber":true}`
	const before = "comes before" // what comes before the authorisation
	if w := ask(t, h, "PUT", "/manage/v1/tenants/set", `{"country":"GB"}`); w.Code != 200 {
		t.Fatal(w.Body)
	}
	asked := map[string]bool{}
	for _, c := range []struct{ method, path, body, kind string }{
		{"GET", "", "", "set"},
		{"GET", "/dialPlan", "", "set"},
		{"POST", "/plans", `{"purpose":"onboard"}`, ""},
		{"GET", "/plans/P", "", ""},
		{"POST", "/plans/P/apply", "", ""},
		{"GET", "/move", "", "set"},
		{"POST", "/move", `{"label":"acme2"}`, ""},
		{"DELETE", "/move", "", "set"},
		{"POST", "/move/continue", "", ""},
		{"GET", "/invitation", "", before},
		{"DELETE", "/invitation", "", before},
		{"POST", "/sign-in", `{"way":"browser","port":4711}`, before},
		{"PUT", "/sign-in/S", `{"redirect":"code=c"}`, before},
		{"GET", "/users", "", ""},
		{"GET", "/users/u", "", ""},
		{"POST", "/users/u/refresh", "", ""},
		{"POST", "/users/activate", user, ""},
		{"POST", "/users/deactivate", `{"users":["u@x"]}`, ""},
		{"GET", "/syncs", "", ""},
		{"POST", "/syncs", `{"mode":"full"}`, ""},
		{"GET", "/numbers/+442079460100/users", "", ""},
		{"GET", "/snapshots", "", ""},
		{"POST", "/snapshots", "", ""},
		{"POST", "/snapshots/import", `{"export":"x"}`, before},
		{"GET", "/snapshots/S", "", ""},
		{"GET", "/snapshots/latest/report", "", ""},
		{"GET", "/drift", "", ""},
		{"POST", "/drift/check", "", ""},
		{"POST", "/drift/accept", `{"differences":[1]}`, ""},
		{"POST", "/drift/repair", `{"differences":[1]}`, ""},
		{"GET", "/readiness", "", ""},
		{"DELETE", "", "", "set"},
		{"POST", "/invitation", `{}`, before},
		{"PUT", "", `{}`, before},
	} {
		asked[c.method+" "+c.path] = true
		for account, want := range map[string]string{"nobody": "AccountNotFound",
			"nobody" + onboard.Next: "AccountNotFound",
			"acme":                  "NotAuthorised", "acme" + onboard.Next: "MoveNotFound", "set": "NotAuthorised"} {
			w := ask(t, h, c.method, "/manage/v1/tenants/"+account+c.path, c.body)
			if strings.HasPrefix(want, "Not") && (c.kind == before || c.kind == account) {
				if strings.Contains(w.Body.String(), want) {
					t.Errorf("%s %s of %s: %s", c.method, c.path, account, w.Body)
				}
				continue
			}
			owner := onboard.Owner(account)
			says := map[string]string{"AccountNotFound": `\"nobody\"`, "MoveNotFound": "account acme does not move",
				"NotAuthorised": "account " + owner + " has authorised Tandem; invite one: tandem tenant invite " +
					owner}[want]
			status := map[string]int{"NotAuthorised": 409}[want]
			if w.Code != cmp.Or(status, 404) || !strings.Contains(w.Body.String(), `"`+want+`"`) ||
				!strings.Contains(w.Body.String(), says) {
				t.Errorf("%s %s of %s: %d %s; want %s, %q", c.method, c.path, account, w.Code, w.Body, want, says)
			}
		}
	}
	if w := ask(t, h, "DELETE", "/manage/v1/tenants/acme", ""); w.Code != 204 { // the link
		t.Errorf("forget an invitation: %s", w.Body)
	}

	var contract struct {
		Paths map[string]map[string]any `yaml:"paths"`
	}
	f.must(yaml.Unmarshal(api.V1, &contract))
	names := strings.NewReplacer("{plan}", "P", "{id}", "S", "{user}", "u", "{number}", "+442079460100",
		"{snapshot}", "S")
	for path, operations := range contract.Paths {
		rest, ok := strings.CutPrefix(path, "/manage/v1/tenants/{account}")
		for method := range operations {
			if what := strings.ToUpper(method) + " " + strings.ReplaceAll(names.Replace(rest), "S/report",
				"latest/report"); ok && !asked[what] {
				t.Errorf("%s is not asked", what)
			}
		}
	}
}

// A leave of a tenant in which Tandem has nothing has a report of its own; that of an earlier leave stays as it is. Its
// snapshot has nothing to restore.
func TestLeaveOfNothing(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.snapshots.Sources = func(_ context.Context, t *onboard.Tenant) (snapshot.Source, error) {
		return unnumbered{f.world(t.Account)}, nil
	}
	f.planner.Leaving, f.onboarder.Left = f.leaving, f.left
	f.account("acme")
	f.signIn("acme", "t-acme")
	const older = "20250101T000000-aaaaaa"
	before := snapshot.Report{Snapshot: older, Read: time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC),
		Outcomes: []snapshot.Outcome{{Ref: plan.Ref{Type: plan.Route, Name: "Tandem-E164"}, Fate: snapshot.Kept,
			Reason: "then"}}}
	f.must(f.store.AddSnapshot(t.Context(), "acme", &snapshot.Summary{ID: older, Reason: snapshot.Leave}, []byte("x"),
		"tenant.snapshot"))
	f.must(f.store.SetReport(t.Context(), "acme", &before))

	n, err := f.planner.Plan(t.Context(), "acme", onboard.Order{Purpose: onboard.Leave, RemoveConsent: true}, "test")
	f.must(err)
	_, err = f.planner.Apply(t.Context(), "acme", n.ID)
	f.must(err)
	f.carryOut("acme")
	if s := f.tenant("acme").State(); s != onboard.Left {
		t.Fatalf("state %s", s)
	}

	r, err := f.store.Report(t.Context(), "acme", older)
	f.must(err)
	if !reflect.DeepEqual(r, &before) {
		t.Errorf("the report of the earlier leave is now %+v", r)
	}
	r, err = f.store.Report(t.Context(), "acme", snapshot.Latest)
	f.must(err)
	if r.Snapshot == older || len(r.Outcomes) != 1 || r.Outcomes[0].Type != plan.Consent ||
		r.Outcomes[0].Fate != snapshot.Gone {
		t.Errorf("the report is %+v", r)
	}
	if _, err := f.snapshots.Restore(t.Context(), "acme", r.Snapshot); !fault.HasCode(err, "NothingToRestore") {
		t.Errorf("a restore of nothing: %v", err)
	}
}

// A leave that removes the consent ends with the deletion of the stored sign-in; one that keeps the consent keeps it.
// The plan and the report say which.
func TestSignInAfterALeave(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		remove, may bool
		fate        snapshot.Fate
		plan, says  string
	}{
		{false, true, snapshot.Kept, "sign-in is kept for a restore", "sign-in is kept for a restore"},
		{true, true, snapshot.Gone, "", "with the stored sign-in"},
		{true, false, snapshot.Kept, "sign-in is deleted", "sign-in is deleted"},
	} {
		f := newFleet(t)
		f.account("acme")
		f.signIn("acme", "t-acme")
		f.apply("acme", onboard.Onboard)
		f.world("acme").stays = !c.may
		n, err := f.planner.Plan(t.Context(), "acme", onboard.Order{Purpose: onboard.Leave, RemoveConsent: c.remove},
			"test")
		f.must(err)
		kept := ""
		for _, k := range n.Plan.Kept {
			if k.Type == plan.Consent {
				kept += k.Text
			}
		}
		if !strings.Contains(kept, c.plan) || c.plan == "" && kept != "" {
			t.Errorf("%+v: the plan keeps %q", c, kept)
		}
		_, err = f.planner.Apply(t.Context(), "acme", n.ID)
		f.must(err)
		f.must(f.store.AddSnapshot(t.Context(), "acme", &snapshot.Summary{ID: "S", Reason: snapshot.Leave}, []byte("x"),
			"tenant.snapshot"))
		f.must(f.store.SetReport(t.Context(), "acme", &snapshot.Report{Snapshot: "S"}))
		f.carryOut("acme")

		token, err := f.access.Tokens("acme").RefreshToken(t.Context())
		if err != nil || (token.Reveal() == "") != c.remove {
			t.Errorf("%+v: the sign-in is deleted: %t, %v", c, token.Reveal() == "", err)
		}
		if _, err := f.cloud(t.Context(), f.tenant("acme")); c.remove != fault.HasCode(err, "NotAuthorised") {
			t.Errorf("%+v: a restore: %v", c, err)
		}
		r, err := f.store.Report(t.Context(), "acme", snapshot.Latest)
		f.must(err)
		if len(r.Outcomes) != 1 || r.Outcomes[0].Type != plan.Consent || r.Outcomes[0].Fate != c.fate ||
			!strings.Contains(r.Outcomes[0].Reason, c.says) {
			t.Errorf("%+v: the report says %+v", c, r.Outcomes)
		}
	}
}
