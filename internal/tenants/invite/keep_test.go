package invite_test

import (
	"context"
	"crypto/sha256"
	"net/url"
	"strings"
	"testing"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/tenants/invite"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
)

func sum(s string) [32]byte { return sha256.Sum256([]byte(s)) }

// integrated is a bed whose tenant is connected.
func integrated(t *testing.T) *bed {
	t.Helper()
	b := newBed(t)
	b.integrate(b.authorise(b.invite(api.InvitationRequest{}))).says(200, "Connected")
	return b
}

// The ways in which a sign-in is lost, each with what the administrator must do. tenant-cases 3: a policy's lifetime.
func TestLosses(t *testing.T) {
	t.Parallel()
	b := integrated(t)
	conflict := func(what string) error { return fault.New(fault.Conflict, "SignInNeeded", "%s", what) }
	for name, c := range map[string]struct {
		err      error
		standing invite.Standing
		lifetime time.Duration
		says     string // "" if it is not lost
	}{
		"works":         {nil, invite.Standing{Roles: []string{teamsRole}}, 0, ""},
		"disabled":      {nil, invite.Standing{Disabled: true, Roles: []string{teamsRole}}, 0, "is disabled"},
		"roles removed": {nil, invite.Standing{}, 0, "it needs the role Teams Telephony Administrator or"},
		"password": {conflict("the sign-in was revoked, for example by a password change"), invite.Standing{}, 0,
			"password change"},
		"frequency": {conflict("a sign-in frequency policy ended the sign-in"), invite.Standing{}, time.Hour,
			"frequency policy"},
		"outage": {fault.New(fault.Unavailable, "EntraUnavailable", "no answer"), invite.Standing{}, 0, ""},
	} {
		b.microsoft.inspected, b.microsoft.standing, b.microsoft.lifetime = c.err, c.standing, c.lifetime
		b.aged()
		err := b.s.Check(t.Context(), "contoso")
		if c.says == "" {
			if err != nil || b.status().Lost != nil {
				t.Errorf("%s: %v, %+v; want a sign-in that is used", name, err, b.status().Lost)
			}
			continue
		}
		if !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
		a := b.reached("needsSignIn")
		for _, command := range []string{"tandem tenant invite contoso", "tandem tenant sign-in contoso"} {
			if !strings.Contains(fault.As(err).Message, command) || !strings.Contains(a.Lost.Reason, command) {
				t.Errorf("%s: the job reads %q, the operator %q; want %q", name, err, a.Lost.Reason, command)
			}
		}
		if a.Lost == nil || !strings.Contains(a.Lost.Reason, c.says) || a.Lost.Lifetime != int(c.lifetime.Seconds()) {
			t.Errorf("%s: lost %+v", name, a.Lost)
		}
		p := b.request("GET", "/", nil).says(200, "A new sign-in is needed", c.says, "continues after the sign-in")
		if strings.Contains(p.text, "tandem tenant") {
			t.Errorf("%s: a command of the operator: %s", name, p.text)
		}
		if c.lifetime > 0 {
			p.says(200, "a sign-in lives for 1h0m0s")
		}

		b.microsoft.inspected, b.microsoft.standing = nil, invite.Standing{Roles: []string{teamsRole}}
		b.integrate(p).says(200, "Connected")
		b.reached("integrated")
		if err := b.s.Check(t.Context(), "contoso"); err != nil {
			t.Errorf("%s: after another sign-in: %v", name, err)
		}
	}
}

// refused tells the service that a job was refused.
func (b *bed) refused(code string, why invite.Lost) error {
	b.t.Helper()
	a, err := b.s.Access(b.t.Context(), "contoso")
	if err != nil {
		b.t.Fatal(err)
	}
	return b.s.Refused(b.t.Context(), a, &why, fault.New(fault.Conflict, code, "says why"))
}

// A job finds the consent withdrawn: the administrator is sent to step 1, and what waits continues after it; if the
// sign-in did not survive, step 3 follows.
func TestConsentIsWithdrawn(t *testing.T) {
	t.Parallel()
	b := integrated(t)
	err := b.access.Store.Update(t.Context(), nil, "contoso", "", func(ctx context.Context,
		tx onboard.Tx) error {
		return tx.SetTenant(ctx, &onboard.Tenant{Account: "contoso", Pending: true})
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, signIn := range []bool{true, false} { // whether the sign-in works after the new consent
		err := b.refused("ConsentNeeded", invite.Lost{})
		if !fault.HasCode(err, "ConsentNeeded") ||
			!strings.Contains(err.Error(), "tenant sign-in contoso --authorise") {
			t.Errorf("the job: %v", err)
		}
		b.microsoft.inspected = fault.New(fault.Conflict, "ConsentNeeded", "says why")
		b.reached("needsConsent")
		if _, err := b.start("device"); !fault.HasCode(err, "ConsentNeeded") {
			t.Errorf("a device code: %v", err)
		}
		p := b.request("GET", "/", nil).says(200, "A new authorisation is needed", "that admin@contoso.example gave",
			"says why", "continues after the authorisation")
		token := csrf.FindStringSubmatch(p.source)[1]
		problem := b.request("POST", "/integrate", url.Values{"csrf": {token}}).says(409, "says why")
		if strings.Contains(p.text+problem.text, "tandem tenant") {
			t.Errorf("a command of the operator: %s; %s", p.text, problem.text)
		}
		p = p.press("/authorise").says(200)
		p = b.callback("admin_consent", "True", "tenant", tenantID, "state", p.state(invite.Consent)).says(200)
		b.microsoft.inspected = fault.New(fault.Unavailable, "ConsentPropagating", "wait")
		b.callback("code", "c", "state", p.state(invite.Identify)).says(200, "Microsoft is distributing")
		if items, err := b.work.List(t.Context(), onboard.Kind, "", flow.Key{}, 10); err != nil || len(items) != 1 {
			t.Errorf("work that continues: %v, %v", items, err)
		}
		if b.microsoft.inspected = nil; !signIn {
			b.microsoft.inspected = fault.New(fault.Conflict, "SignInNeeded", "the sign-in was revoked")
			p = b.request("GET", "/", nil).says(200, "A new sign-in is needed", "was revoked")
			b.microsoft.inspected = nil
			b.integrate(p)
		}
		b.request("GET", "/", nil).says(200, "Connected")
		b.reached("integrated")
	}
}

// tenant-cases 4: what a job was challenged for is asked for at the next sign-in.
func TestChallengeOfAJob(t *testing.T) {
	t.Parallel()
	b := integrated(t)
	if err := b.refused("SignInNeeded", invite.Lost{Claims: "CLAIMS"}); !fault.HasCode(err, "SignInNeeded") {
		t.Errorf("the job: %v", err)
	}
	b.reached("needsSignIn")
	p := b.request("GET", "/", nil).says(200, "A new sign-in is needed").press("/integrate")
	if !strings.Contains(p.source, "claims=CLAIMS") {
		t.Errorf("the sign-in asks for no claims: %s", p.source)
	}
}

// aged makes the last check an old one.
func (b *bed) aged() {
	b.t.Helper()
	err := b.access.Update(b.t.Context(), nil, func(ctx context.Context, tx invite.Tx) error {
		a, err := tx.Access(ctx, "contoso")
		if err != nil {
			return err
		}
		a.Checked, a.Due = a.Checked.Add(-25*time.Hour), a.Due.Add(-25*time.Hour)
		return tx.SetAccess(ctx, a, nil)
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// The work of the kind checks each day, and what was lost without an action comes back without one.
func TestDailyCheck(t *testing.T) {
	t.Parallel()
	b := integrated(t)
	if due, err := b.s.List(t.Context(), "", 10); err != nil || len(due) != 0 {
		t.Errorf("due after the sign-in: %v, %v", due, err)
	}
	b.aged()
	if due, err := b.s.List(t.Context(), "", 10); err != nil || len(due) != 1 {
		t.Errorf("due after a day: %v, %v", due, err)
	}
	err := b.access.Store.Update(t.Context(), nil, "contoso", "", func(ctx context.Context,
		tx onboard.Tx) error {
		return tx.SetTenant(ctx, &onboard.Tenant{Account: "contoso", Pending: true})
	})
	if err != nil {
		t.Fatal(err)
	}
	waits := func() int { // how much work runs that had waited for the sign-in
		items, err := b.work.List(t.Context(), onboard.Kind, "", flow.Key{}, 10)
		if err != nil {
			t.Fatal(err)
		}
		return len(items)
	}
	for _, lost := range []bool{true, true, false} {
		if n := waits(); n != 0 {
			t.Errorf("work continues although the sign-in is lost: %d", n)
		}
		b.microsoft.standing.Disabled = lost
		b.aged()
		b.run(func(r flow.Result, err error) {
			if in := time.Until(r.Again); err != nil || in < 23*time.Hour || in > 25*time.Hour {
				t.Errorf("run: again in %v, %v; want a day", in, err)
			}
		})
		if (b.status().Lost != nil) != lost {
			t.Errorf("lost %+v, want %v", b.status().Lost, lost)
		}
	}
	if n := waits(); n != 1 {
		t.Errorf("work that waited for the sign-in does not continue: %d", n)
	}
	b.microsoft.inspected = fault.New(fault.Unavailable, "EntraUnavailable", "no answer")
	b.aged()
	b.run(func(r flow.Result, err error) {
		if in := time.Until(r.Again); err != nil || in > time.Hour {
			t.Errorf("during an outage: again in %v, %v; want soon, and no failure", in, err)
		}
	})
}

// A person signs in again while a check of the sign-in before finds it lost: the new one stays.
func TestSignInDuringACheck(t *testing.T) {
	t.Parallel()
	b := integrated(t)
	b.aged()
	b.microsoft.standing = invite.Standing{Disabled: true}
	b.s.Inspector = during{b.microsoft, onceOnly(func() {
		step, err := b.start("browser")
		if err == nil {
			u, _ := url.Parse(step.URL)
			_, err = b.next(step, "code=c&state="+u.Query().Get("state"))
		}
		if err != nil {
			t.Error(err)
		}
	})}
	if err := b.s.Check(t.Context(), "contoso"); err != nil {
		t.Errorf("Check: %v", err)
	}
	if a := b.reached("integrated"); a.Lost != nil {
		t.Errorf("the new sign-in is lost: %+v", a.Lost)
	}
}

// onceOnly returns a function that calls do the first time, also while that runs.
func onceOnly(do func()) func() {
	begun := false
	return func() {
		if !begun {
			begun = true
			do()
		}
	}
}

// during does something while the access is inspected.
type during struct {
	*microsoft
	do func()
}

func (d during) Inspect(ctx context.Context, a *invite.Access) (*invite.Standing, time.Duration, string, error) {
	d.do()
	return d.microsoft.Inspect(ctx, a)
}

// run runs the kind once.
func (b *bed) run(check func(flow.Result, error)) {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.t.Context())
	defer cancel()
	done := make(chan struct{})
	stopped := make(chan error)
	go func() {
		stopped <- b.work.Run(ctx, []*flow.Kind{{Name: invite.Kind, List: b.s.List,
			Reconcile: func(ctx context.Context, run *flow.Run) (flow.Result, error) {
				check(b.s.Reconcile(ctx, run))
				close(done)
				return flow.Result{}, nil
			}}})
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		b.t.Fatal("no run within a minute")
	}
	cancel()
	if err := <-stopped; err != nil {
		b.t.Fatal(err)
	}
}

// After leaving, the sign-in is gone, the page says which account may be deleted, and everything can begin again, in
// another tenant too.
func TestEnd(t *testing.T) {
	t.Parallel()
	b := integrated(t)
	b.progress.work = invite.Work{Left: true}
	b.aged()
	if err := b.s.Check(t.Context(), "contoso"); err != nil {
		t.Errorf("after leaving, while the tenant can be reached: %v", err)
	}
	b.request("GET", "/", nil).says(200, "Disconnected", "You may now delete the account admin@contoso.example")
	b.microsoft.inspected = fault.New(fault.Conflict, "ConsentNeeded", "the app does not exist in the tenant")
	b.aged()
	b.run(func(r flow.Result, err error) {
		if !r.Again.IsZero() || err != nil {
			t.Errorf("after the consent was removed: %+v, %v; want no more checks", r, err)
		}
	})
	if token, err := b.access.Tokens("contoso").RefreshToken(t.Context()); token.Reveal() != "" || err != nil {
		t.Errorf("the sign-in is kept: %v", err)
	}
	b.reached("left")
	b.request("GET", "/", nil).says(200, "Disconnected", "You may now delete the account admin@contoso.example")
	if err := b.s.Check(t.Context(), "contoso"); !fault.HasCode(err, "NotAuthorised") {
		t.Errorf("Check: %v", err)
	}
	if _, err := b.start("device"); !fault.HasCode(err, "NotAuthorised") {
		t.Errorf("a device code: %v", err)
	}
	if due, err := b.s.List(t.Context(), "", 10); err != nil || len(due) != 0 {
		t.Errorf("due: %v, %v", due, err)
	}

	link := b.invite(api.InvitationRequest{Tenant: strangeID})
	b.reached("invited")
	b.microsoft.person.Tenant = strangeID
	p := b.request("GET", link, nil).says(200, "Authorise telephony").press("/authorise")
	p = b.callback("admin_consent", "True", "tenant", strangeID, "state", p.state(invite.Consent))
	b.integrate(b.callback("code", "c", "state", p.state(invite.Identify))).says(200, "Connected")
	if a := b.reached("integrated"); a.Tenant != strangeID {
		t.Errorf("connected to %s, want the new tenant", a.Tenant)
	}
	b.request("GET", "/", nil).says(200, "Connected", "prepares the plan") // not what was left before
	b.progress.work = invite.Work{Done: true}
	b.microsoft.inspected = nil
	b.aged()
	if err := b.s.Check(t.Context(), "contoso"); err != nil {
		t.Error(err)
	}
	b.progress.work = invite.Work{Left: true}
	b.request("GET", "/", nil).says(200, "Disconnected")
}

func (b *bed) start(way api.SignInRequestWay) (api.SignInStep, error) {
	r, err := b.s.StartSignIn(b.t.Context(), api.StartSignInRequestObject{Account: "contoso",
		Body: &api.SignInRequest{Way: way, Port: 4711}})
	if err != nil {
		return api.SignInStep{}, err
	}
	step := api.SignInStep(r.(api.StartSignIn200JSONResponse))
	b.secrets = append(b.secrets, step.ID)
	return step, nil
}

func (b *bed) next(step api.SignInStep, redirect string) (api.SignInStep, error) {
	r, err := b.s.ContinueSignIn(b.t.Context(), api.ContinueSignInRequestObject{Account: "contoso", ID: step.ID,
		Body: &api.SignInContinuation{Redirect: redirect}})
	if err != nil {
		return api.SignInStep{}, err
	}
	return api.SignInStep(r.(api.ContinueSignIn200JSONResponse)), nil
}

// The command line's way: three redirects to the loopback address.
func TestSignInWithoutALink(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	if _, err := b.start("device"); !fault.HasCode(err, "NotAuthorised") {
		t.Errorf("a device code before the consent: %v", err)
	}
	if _, err := b.start("application"); !fault.HasCode(err, "NotAuthorised") {
		t.Errorf("the application before the consent: %v", err)
	}
	step, err := b.start("browser")
	id := step.ID
	for _, want := range []invite.Step{invite.Consent, invite.Identify, invite.Integrate} {
		if err != nil || step.Step != api.SignInStepStep(want) || !strings.HasPrefix(step.URL,
			"https://login.example/"+string(want)) {
			t.Fatalf("step %+v, %v; want %s", step, err, want)
		}
		u, _ := url.Parse(step.URL)
		if _, err := b.next(step, "code=c&state=forged"); !fault.HasCode(err, "InvalidState") {
			t.Errorf("a forged redirect: %v", err)
		}
		step, err = b.next(step, url.Values{"admin_consent": {"True"}, "tenant": {tenantID}, "code": {"c"},
			"state": {u.Query().Get("state")}}.Encode())
	}
	if err != nil || step.ID != "" || step.Access.State != "integrated" {
		t.Errorf("at the end %+v, %v", step, err)
	}
	if r := b.microsoft.redeemed[0].Redirect; r != "http://127.0.0.1:4711" {
		t.Errorf("redirect URI %s", r)
	}
	b.jar["__Host-onboard"] = id
	b.request("GET", "/", nil).says(403, "Open your link again") // it is no browser's visit
	if step, err = b.start("browser"); err != nil || step.Step != "integrate" {
		t.Errorf("again: %+v, %v; want step 3 at once", step, err)
	}
	if _, err := b.s.ContinueSignIn(t.Context(), api.ContinueSignInRequestObject{Account: "other", ID: step.ID,
		Body: &api.SignInContinuation{}}); !fault.HasCode(err, "SignInNotFound") {
		t.Errorf("another account's sign-in: %v", err)
	}
}

func TestDeviceCode(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.authorise(b.invite(api.InvitationRequest{})).says(200)
	step, err := b.start("device")
	if err != nil || step.UserCode != "ABC-DEF" || step.Interval != 5 {
		t.Fatalf("device code: %+v, %v", step, err)
	}
	id := step
	if step, err = b.next(id, ""); err != nil || step.Access.State != "readinessSeen" || step.ID == "" {
		t.Errorf("not entered yet: %+v, %v", step, err)
	}
	b.microsoft.entered = true
	if step, err = b.next(id, ""); err != nil || step.Access.State != "integrated" || step.ID != "" {
		t.Errorf("entered: %+v, %v", step, err)
	}
	b.microsoft.err = fault.New(fault.Conflict, "DeviceCodeBlocked",
		"the tenant's policy blocks device codes [AADSTS53003]")
	if _, err = b.next(id, ""); !fault.HasCode(err, "DeviceCodeBlocked") {
		t.Errorf("blocked: %v", err)
	}
}
