package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/sim/fixtures"
	"github.com/tandemgw/tandem/internal/sim/lab"
	"github.com/tandemgw/tandem/internal/sim/microsoft"
)

const (
	carrier  = ".carrier" // the operator's own tenant
	activate = 20         // users
	// stageLimit bounds each stage of onboarding.
	stageLimit = 40 * time.Second
)

// adatum is the customer whose tenant is onboarded. It has no label yet.
var adatum = fixtures.Customer{Account: "adatum",
	Numbers: []fixtures.Block{{Service: "teamsDirectRouting", First: "+441632960500", Count: 50, Header: "AD-"}}}

// onboarding onboards the operator's and a customer's simulated tenant, as people do: by the management API, the pages
// of the public front and Microsoft's login.
type onboarding struct {
	*lab.Lab
	p     *Product
	v     *view
	stage *Stage // under way

	before  []byte            // what the customer's tenant had before it was changed
	numbers map[string]string // of the activated users, by user principal name
}

// tenants runs the stages of onboarding. Each needs those before, so it ends at the first one that fails.
func tenants(ctx context.Context, l *lab.Lab, p *Product, v *view) (stages []Stage) {
	o := &onboarding{Lab: l, p: p, v: v}
	for _, s := range []struct {
		name, title string
		do          func(context.Context) error
	}{
		{"carrier", "The operator's own tenant, once: names and trunks", o.carrier},
		{"invite", "The customer's administrator opens an invitation", o.invite},
		{"readiness", "Can this tenant be onboarded?", o.readiness},
		{"plan", "What would change there; nothing is written yet", o.plan},
		{"apply", "The plan is approved and carried out", o.apply},
		{"sync", "The users of the tenant", o.sync},
		{"activate", "Users get the next free numbers, a policy and a dial plan", o.activate},
		{"call", "A call to one of these users, and one from there", o.call},
		{"drift", "A person changes the route: found, shown, repaired", o.drift},
		{"leave", "The customer leaves: everything is removed", o.leave},
		{"restore", "The customer comes back: all as it was", o.restore},
	} {
		stage := Stage{Job: "tenant", Name: s.name, Title: s.title, Seen: []string{}}
		o.stage = &stage
		v.begin(&stage)
		limited, cancel := context.WithTimeout(ctx, stageLimit)
		began := time.Now()
		err := s.do(limited)
		cancel()
		if stage.took(began); err != nil {
			stage.Problems = append(stage.Problems, err.Error())
		}
		stage.Passed = err == nil
		v.end(&stage)
		if stages = append(stages, stage); err != nil {
			return stages
		}
	}
	return stages
}

// see adds a line to what is to be looked at.
func (o *onboarding) see(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	o.stage.Seen = append(o.stage.Seen, line)
	o.v.seen(line)
}

// Register registers the operator's application at Microsoft, as Tandem says that it must be.
func Register(ctx context.Context, l *lab.Lab, c *client.Client) (*api.CarrierApp, error) {
	want, err := c.CarrierApp(ctx)
	if err != nil {
		return nil, err
	}
	a := microsoft.App{ID: appID, Name: want.Name, Home: l.Operator.ID,
		MultiTenant: want.SignInAudience == "AzureADMultipleOrgs", GroupClaims: want.GroupMembershipClaims,
		RedirectURIs: want.RedirectUris, Secrets: []microsoft.Secret{{Value: appSecret}}}
	for _, p := range want.Permissions {
		if p.Kind == "application" {
			a.Application = append(a.Application, p.Name)
		} else {
			a.Delegated = append(a.Delegated, p.Name)
		}
	}
	l.Microsoft.Register(a)
	return want, nil
}

func (o *onboarding) carrier(ctx context.Context) error {
	app, err := Register(ctx, o.Lab, o.p.Manage)
	if err != nil {
		return err
	}
	o.see("app registration as tandem carrier app prints it: %s", domain.Count(len(app.Permissions), "permission"))
	step, err := o.p.Manage.StartSignIn(ctx, carrier, api.SignInRequest{Way: api.SignInRequestWayBrowser, Port: 8400})
	for err == nil && step.ID != "" {
		var back string
		if back, err = o.walk(ctx, step.URL, o.Operator.Admin); err == nil {
			_, query, _ := strings.Cut(back, "?")
			step, err = o.p.Manage.ContinueSignIn(ctx, carrier, step.ID, query)
		}
	}
	if err != nil {
		return fmt.Errorf("sign in to the operator's tenant: %w", err)
	}
	o.see("%s signed in", step.Access.Integrated.By)

	p, err := o.planned(ctx, carrier, api.PlanRequest{Purpose: api.PlanRequestPurposeOnboard})
	if err == nil {
		_, err = o.applied(ctx, p, api.TenantStateOnboarded)
	}
	if err != nil {
		return err
	}
	report, err := o.p.Manage.Carrier(ctx)
	if err == nil && !report.Passed {
		err = fmt.Errorf("the operator's tenant is not ready: %s", strings.Join(report.Missing, "; "))
	}
	return err
}

// walk signs in at Microsoft's login and accepts what it asks. It returns where the login sends the browser.
func (o *onboarding) walk(ctx context.Context, address, login string) (string, error) {
	to, err := o.Microsoft.Walk(ctx, address, login, nil)
	if err == nil && to == nil {
		err = errors.New("the login of Microsoft did not send the browser back")
	}
	if err != nil {
		return "", fmt.Errorf("%s at Microsoft's login: %w", login, err)
	}
	return to.String(), nil
}

func (o *onboarding) invite(ctx context.Context) error {
	if err := o.p.provisionTenant(ctx); err != nil {
		return err
	}
	i, err := o.p.Manage.Invite(ctx, adatum.Account, api.InvitationRequest{Days: 3})
	if err != nil {
		return err
	}
	b, err := NewBrowser(o.Lab)
	if err != nil {
		return err
	}
	defer b.http.CloseIdleConnections()
	if err := b.Open(ctx, i.URL); err != nil {
		return err
	}
	o.see("link for an administrator, who has no account in Tandem: %s…; page %q",
		i.URL[:strings.LastIndex(i.URL, "/")+4], b.Title())
	if err := b.Trip(ctx, "/authorise", o.Customer.Admin, o.walk); err != nil {
		return err
	}
	o.see("%s authorises at Microsoft; page %q", o.Customer.Admin, b.Title())
	if err := b.Trip(ctx, "/integrate", o.ServiceUser(), o.walk); err != nil {
		return err
	}
	o.see("%s signs in for the work; page %q", o.ServiceUser(), b.Title())

	a, err := o.p.Manage.TenantAccess(ctx, adatum.Account)
	if err == nil && (a.State != api.TenantAccessStateIntegrated || a.Tenant != o.Customer.ID) {
		err = fmt.Errorf("the access to tenant %s is %q, want integrated with %s", a.Tenant, a.State, o.Customer.ID)
	}
	return err
}

// provisionTenant creates the account of the customer's tenant and its numbers, as a BSS does. The label is left to the
// onboarding.
func (p *Product) provisionTenant(ctx context.Context) error {
	_, err := p.API.PutAccount(ctx, &client.Account{Name: adatum.Account, ServiceDetails: &client.AccountServices{
		TeamsDirectRouting: &client.DirectRoutingAccount{Enabled: true}}}, client.Condition{})
	if err != nil {
		return err
	}
	var numbers []client.Number
	for _, n := range adatum.Numbers[0].List() {
		numbers = append(numbers, Number(adatum.Account, adatum.Numbers[0], n))
	}
	return p.API.CreateOrUpdateNumbers(ctx, adatum.Account, numbers)
}

func (o *onboarding) readiness(ctx context.Context) error {
	r, err := o.p.Manage.Readiness(ctx, adatum.Account)
	if err != nil {
		return err
	}
	o.see("%d checks passed, %d with remarks, %d failed", r.Passed, r.Warned, r.Failed)
	for _, f := range r.Findings {
		if f.Level != "pass" {
			o.see("%s %s: %s", f.Level, f.ID, f.Reason)
		}
	}
	if r.Failed > 0 {
		return errors.New("the tenant is not ready")
	}
	return nil
}

// marks are those of tandem tenant plan.
var marks = map[api.PlanStepAction]string{"create": "+", "change": "~", "delete": "-"}

// planned makes a plan and shows it. It must not change anything.
func (o *onboarding) planned(ctx context.Context, account string, r api.PlanRequest) (*api.TenantPlan, error) {
	mutations := o.Microsoft.Mutations()
	p, err := o.p.Manage.PlanTenant(ctx, account, r)
	if err != nil {
		return nil, fmt.Errorf("plan to %s: %w", r.Purpose, err)
	}
	count := map[api.PlanStepAction]int{}
	for _, s := range p.Steps {
		count[s.Action]++
		o.see("%s %s %s", marks[s.Action], s.Type, s.Name)
	}
	for _, n := range p.Opened[:min(1, len(p.Opened))] {
		o.see("the users also keep %s of others, such as %s, which %s", domain.Count(len(p.Opened), "usage"),
			n.Name, n.Text)
	}
	o.see("plan: %d to create, %d to change, %d to delete; %s", count["create"], count["change"],
		count["delete"], domain.Count(len(p.Users), "user"))
	switch n := o.Microsoft.Mutations() - mutations; {
	case n > 0:
		return nil, fmt.Errorf("making the plan sent %d requests that can change the tenant", n)
	case len(p.Conflicts) > 0:
		return nil, fmt.Errorf("%s %s: %s", p.Conflicts[0].Type, p.Conflicts[0].Name, p.Conflicts[0].Text)
	case len(p.Steps) == 0:
		return nil, errors.New("the plan has no steps")
	}
	return p, nil
}

// applied approves a plan and shows the work until the tenant is in a state.
func (o *onboarding) applied(ctx context.Context, p *api.TenantPlan, state api.TenantState) (*api.Tenant, error) {
	if _, err := o.p.Manage.ApplyPlan(ctx, p.Account, p.ID); err != nil {
		return nil, fmt.Errorf("apply the plan: %w", err)
	}
	last := ""
	var t *api.Tenant
	err := until(ctx, func(ctx context.Context) (err error) {
		if t, _, err = o.p.Manage.Tenant(ctx, p.Account); err != nil {
			return err
		}
		if w := t.Waiting; w != nil && w.Reason != last {
			last = w.Reason
			usual := ""
			if w.Usual > 0 {
				usual = fmt.Sprintf("; usually %d min", w.Usual/60)
			}
			o.see("%s by Tandem; waits for %s: %s%s", domain.Count(t.Made, "object"), w.For, last, usual)
		}
		if t.State != state {
			return fmt.Errorf("the tenant is %s, want %s; %s", t.State, state, last)
		}
		return nil
	})
	if err == nil {
		o.see("%s: %s by Tandem, %s", t.State, domain.Count(t.Made, "object"), domain.Count(t.Users, "user"))
	}
	return t, err
}

func (o *onboarding) plan(ctx context.Context) error {
	o.before = o.Customer.Dump()
	_, err := o.planned(ctx, adatum.Account, api.PlanRequest{Purpose: api.PlanRequestPurposeOnboard})
	if err == nil && !bytes.Equal(o.before, o.Customer.Dump()) {
		err = errors.New("making the plan has changed the tenant")
	}
	return err
}

func (o *onboarding) apply(ctx context.Context) error {
	p, err := o.p.Manage.PlanTenant(ctx, adatum.Account, api.PlanRequest{Purpose: api.PlanRequestPurposeOnboard})
	if err != nil {
		return err
	}
	_, err = o.applied(ctx, p, api.TenantStateOnboarded)
	return err
}

func (o *onboarding) sync(ctx context.Context) error {
	if err := o.p.Manage.SyncUsers(ctx, adatum.Account, "full"); err != nil {
		return err
	}
	var pass api.UserSync
	err := until(ctx, func(ctx context.Context) error {
		all, err := o.p.Manage.UserSyncs(ctx, adatum.Account)
		if err != nil {
			return err
		}
		if len(all) == 0 || all[0].Ended.IsZero() {
			return errors.New("the users are not synchronised yet")
		}
		pass = all[0]
		return nil
	})
	if err != nil {
		return err
	}
	o.see("%s read in %v", domain.Count(pass.Users, "user"), pass.Ended.Sub(pass.Began).Round(10*time.Millisecond))
	users, err := o.p.Manage.Users(ctx, adatum.Account, api.ListUsersParams{})
	count := map[api.UserState]int{}
	for _, u := range users {
		count[u.State]++
	}
	for _, state := range slices.Sorted(maps.Keys(count)) {
		o.see("%s: %d", state, count[state])
	}
	if err == nil && len(users) < lab.CustomerUsers {
		err = fmt.Errorf("%d users, want at least %d", len(users), lab.CustomerUsers)
	}
	return err
}

func (o *onboarding) activate(ctx context.Context) error {
	users, err := o.p.Manage.Users(ctx, adatum.Account, api.ListUsersParams{State: new(api.UserState("inactive")),
		Number: new(api.ListUsersParamsNumber("none")), AccountType: new(api.ListUsersParamsAccountTypeUser)})
	if err != nil {
		return err
	}
	r := api.UserActivation{NextNumber: true}
	for _, u := range users[:min(activate, len(users))] {
		r.Items = append(r.Items, api.UserItem{User: u.User})
	}
	outcomes, err := o.p.Manage.ActivateUsers(ctx, adatum.Account, r)
	if err != nil {
		return err
	}
	o.numbers = map[string]string{}
	for _, x := range outcomes {
		if x.Code != "" {
			return fmt.Errorf("%s was refused: %s", x.User, x.Reason)
		}
		o.numbers[x.User] = x.Number
	}
	if err := o.active(ctx); err != nil {
		return err
	}
	for i, user := range slices.Sorted(maps.Keys(o.numbers)) {
		if i < 3 {
			o.see("%s has %s", user, o.numbers[user])
		}
	}
	o.see("… %s in all; each was read back at Microsoft", domain.Count(len(o.numbers), "user"))
	return nil
}

// active waits until the users are active and have their numbers.
func (o *onboarding) active(ctx context.Context) error {
	return until(ctx, func(ctx context.Context) error {
		users, err := o.p.Manage.Users(ctx, adatum.Account, api.ListUsersParams{State: new(api.UserState("active"))})
		if err != nil {
			return err
		}
		found := map[string]string{}
		for _, u := range users {
			found[u.User] = u.Number
		}
		if !maps.Equal(found, o.numbers) {
			return fmt.Errorf("%d of %d users are active with their numbers", len(found), len(o.numbers))
		}
		return nil
	})
}

func (o *onboarding) call(ctx context.Context) error {
	number := slices.Min(slices.Collect(maps.Values(o.numbers)))
	if err := o.p.WaitRouted(ctx, "core-fixed", number, "teamsDirectRouting"); err != nil {
		return err
	}
	host := adatum.Account + ".1r1." + o.Gateway.Base
	for _, c := range []fixtures.Call{
		{Name: "to a user", Direction: "to-service", Neighbour: "core-fixed", From: "+442890180001", To: number,
			Expect: fixtures.Expect{Text: "answered by Teams", Status: 200, Arrives: "teams-1",
				Clause: "gateway-calls §2", Seen: []fixtures.Check{
					{Header: "Contact", Host: host, Clause: "gateway-calls §3.1: Contact rewrite"},
					{Header: "Request-URI", Number: number, Clause: "direct-routing-sip §4 rule 5"}}}},
		{Name: "from a user", Direction: "to-core", Neighbour: "teams-1", From: number, To: "+442890180002",
			Expect: fixtures.Expect{Text: "answered by the core", Status: 200, Arrives: "core-fixed",
				Clause: "gateway-calls §2", Seen: []fixtures.Check{
					{Header: "P-Asserted-Identity", Number: number, Clause: "direct-routing-sip §5, RFC 3325"},
					{Header: "X-MS-Operator-Content", Equals: adatum.Numbers[0].Value(number),
						Clause: "gateway-calls §2.1: value of the calling number"}}}},
	} {
		c.Service = "teamsDirectRouting"
		r := o.Play(ctx, c)
		o.see("%s -> %s: %d, reached %s in %d ms", r.From, r.To, r.Status, r.Arrived, r.Took.Milliseconds())
		for _, h := range telling(r)[:min(1, len(telling(r)))] {
			o.see("%s", h)
		}
		if !r.Passed {
			return fmt.Errorf("the call %s: %s", c.Name, strings.Join(r.Problems, "; "))
		}
	}
	return nil
}

func (o *onboarding) drift(ctx context.Context) error {
	pattern := func(set string) (was any) {
		o.Customer.Edit(func(s *microsoft.State) {
			for key, route := range s.Configurations["OnlineVoiceRoute"] {
				if strings.HasPrefix(key, "tandem-") {
					if was = route["NumberPattern"]; set != "" {
						route["NumberPattern"] = set
					}
				}
			}
		})
		return was
	}
	old := pattern(`^\+44`)
	before, err := o.p.Manage.Drift(ctx, adatum.Account)
	if err == nil {
		err = o.p.Manage.CheckDrift(ctx, adatum.Account)
	}
	if err != nil {
		return err
	}
	var d *api.Drift
	err = until(ctx, func(ctx context.Context) (err error) {
		if d, err = o.p.Manage.Drift(ctx, adatum.Account); err == nil && !d.Checked.After(before.Checked) {
			err = errors.New("the tenant was not compared yet")
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, x := range d.Differences {
		o.see("%s %s: %s is %v, expected %v", x.Type, x.Name, x.Field, x.Found, x.Expected)
	}
	if len(d.Differences) != 1 || d.Differences[0].Type != "route" || d.Differences[0].Field != "pattern" {
		return fmt.Errorf("the comparison found %d differences, want the pattern of the route", len(d.Differences))
	}

	r, err := o.p.Manage.RepairDrift(ctx, adatum.Account, d.Differences[0].ID)
	if err != nil {
		return err
	}
	_, err = o.applied(ctx, &api.TenantPlan{ID: r.Plan, Account: adatum.Account}, api.TenantStateOnboarded)
	if err != nil {
		return err
	}
	if now := pattern(""); now != old {
		return fmt.Errorf("the route's pattern is %v, want %v", now, old)
	}
	return nil
}

func (o *onboarding) leave(ctx context.Context) error {
	p, err := o.planned(ctx, adatum.Account, api.PlanRequest{Purpose: api.PlanRequestPurposeLeave})
	if err == nil {
		_, err = o.applied(ctx, p, api.TenantStateLeft)
	}
	if err != nil {
		return err
	}
	report, err := o.p.Manage.LeaveReport(ctx, adatum.Account, "latest")
	if err != nil {
		return err
	}
	fates, others := map[api.LeaveOutcomeFate]int{}, 0
	for _, x := range report.Outcomes {
		if fates[x.Fate]++; x.Fate == "kept" {
			o.see("kept: %s %s: %s", x.Type, x.Name, x.Reason)
			if x.Type != "consent" { // which the restore needs
				others++
			}
		}
	}
	o.see("report, from a fresh read: %d gone, %d as before Tandem, %d kept", fates["gone"], fates["putBack"],
		fates["kept"])
	switch {
	case len(report.Outcomes) == 0 || others > 0:
		return fmt.Errorf("the report says of %d things that %d besides the consent were kept", len(report.Outcomes),
			others)
	case !bytes.Equal(o.before, o.Customer.Dump()):
		return errors.New("the tenant is not as it was before")
	}
	o.see("the tenant is to the byte as it was before the plan")
	return nil
}

func (o *onboarding) restore(ctx context.Context) error {
	all, err := o.p.Manage.Snapshots(ctx, adatum.Account)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return errors.New("leaving took no snapshot")
	}
	o.see("snapshot %s, taken before the leave: %s, %s", all[0].ID,
		domain.Count(all[0].Objects, "object"), domain.Count(all[0].Users, "user"))
	p, err := o.planned(ctx, adatum.Account, api.PlanRequest{Purpose: api.PlanRequestPurposeRestore,
		Snapshot: all[0].ID})
	if err == nil && len(p.Users) != len(o.numbers) {
		err = fmt.Errorf("the plan names %d users, want %d", len(p.Users), len(o.numbers))
	}
	if err == nil {
		_, err = o.applied(ctx, p, api.TenantStateOnboarded)
	}
	if err == nil {
		err = o.active(ctx)
	}
	if err == nil {
		o.see("active again, with the numbers that they had: %s", domain.Count(len(o.numbers), "user"))
	}
	return err
}
