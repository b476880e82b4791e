package tenant_test

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/entra"
	"github.com/tandemgw/tandem/internal/outside/graph"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/platform/secret"
	"github.com/tandemgw/tandem/internal/services/directrouting/tenant"
	"github.com/tandemgw/tandem/internal/sim/ca"
	"github.com/tandemgw/tandem/internal/sim/microsoft"
	store "github.com/tandemgw/tandem/internal/store/tenants"
	"github.com/tandemgw/tandem/internal/tenants/invite"
	"github.com/tandemgw/tandem/internal/tenants/permission"
	"github.com/tandemgw/tandem/internal/testkit"
)

const serviceUser = "tandem.service@contoso.onmicrosoft.com"

// signInBed is the operator's app and a customer's tenant that has not authorised it, with a service user in it.
type signInBed struct {
	t        *testing.T
	cloud    *microsoft.Cloud
	customer *microsoft.Tenant
	s        *invite.Service
	access   store.Access
	login    *tenant.Login
}

func newSignInBed(t *testing.T) *signInBed {
	t.Helper()
	authority, err := ca.New("test")
	if err != nil {
		t.Fatal(err)
	}
	cloud, err := microsoft.New(microsoft.Config{Authority: authority})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cloud.Close() })
	b := &signInBed{t: t, cloud: cloud}
	operator := cloud.AddTenant(microsoft.Spec{Name: "operator", Seed: 1})
	b.customer = cloud.AddTenant(microsoft.Spec{Name: "contoso", Users: 2, Seed: 2})
	b.customer.Edit(func(s *microsoft.State) {
		s.Assign(s.AddUser(&microsoft.User{UPN: serviceUser, DisplayName: "Tandem"}).ID, "Teams Administrator")
	})
	app := microsoft.App{ID: clientID, Name: "Example Telecom", Home: operator.ID, MultiTenant: true,
		RedirectURIs: []string{invite.Loopback}, Secrets: []microsoft.Secret{{Value: "secret"}}}
	for _, p := range permission.All() {
		if p.Kind == permission.Application {
			app.Application = append(app.Application, p.Name)
		} else {
			app.Delegated = append(app.Delegated, p.Name)
		}
	}
	cloud.Register(app)

	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority.Pool()}}
	t.Cleanup(transport.CloseIdleConnections)
	client, err := entra.New(entra.Config{Authority: cloud.URL(microsoft.Login), ClientID: clientID,
		Secret: secret.New("secret"), Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	ring, err := secret.Ephemeral()
	if err != nil {
		t.Fatal(err)
	}
	d := testkit.Open(t, testkit.SQLiteConfig(t))
	work := flow.New(d, func(context.Context, *db.Tx, flow.Item) error { return nil }, slog.New(slog.DiscardHandler),
		nil)
	b.access = store.Access{Store: store.New(d, ring, work, nil)}
	b.login = &tenant.Login{ClientID: clientID, Connector: &tenant.Connector{App: client, AppID: clientID,
		Transport: transport, Graph: cloud.URL(microsoft.Graph) + "/v1.0", Budget: graph.NewBudget(),
		UserAgent: "Tandem/test"},
		Tokens: func(account string) entra.Store { return b.access.Tokens(account) }}
	b.s = (&invite.Service{Store: b.access, Login: b.login, Inspector: b.login, Log: slog.New(slog.DiscardHandler),
		Accounts: func(context.Context, string) error { return nil }}).Start(prometheus.NewRegistry())
	b.login.Lost = func(ctx context.Context, account string, g tenant.Grant, r *entra.Refusal, err error) error {
		return b.s.Refused(ctx, &invite.Access{Account: account, Consented: g.Consented,
			Integrated: &invite.Mark{At: g.SignedIn}}, &invite.Lost{Claims: r.Claims, Lifetime: r.Lifetime}, err)
	}
	return b
}

func (b *signInBed) start(way api.SignInRequestWay) (api.SignInStep, error) {
	r, err := b.s.StartSignIn(b.t.Context(), api.StartSignInRequestObject{Account: "contoso",
		Body: &api.SignInRequest{Way: way, Port: 4711}})
	if err != nil {
		return api.SignInStep{}, err
	}
	return api.SignInStep(r.(api.StartSignIn200JSONResponse)), nil
}

// walk does what the step asks as that person, and hands the redirect over.
func (b *signInBed) walk(step api.SignInStep, login string) (api.SignInStep, error) {
	b.t.Helper()
	to, err := b.cloud.Walk(b.t.Context(), step.URL, login, nil)
	if err != nil || to == nil {
		b.t.Fatalf("%s at %s: to %v, %v", login, step.URL, to, err)
	}
	return b.next(step, to.RawQuery)
}

func (b *signInBed) next(step api.SignInStep, redirect string) (api.SignInStep, error) {
	r, err := b.s.ContinueSignIn(b.t.Context(), api.ContinueSignInRequestObject{Account: "contoso", ID: step.ID,
		Body: &api.SignInContinuation{Redirect: redirect}})
	if err != nil {
		return api.SignInStep{}, err
	}
	return api.SignInStep(r.(api.ContinueSignIn200JSONResponse)), nil
}

func (b *signInBed) must(step api.SignInStep, err error) api.SignInStep {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
	return step
}

// authorised goes through the consent, and returns the step that follows.
func (b *signInBed) authorised() api.SignInStep {
	b.t.Helper()
	step := b.must(b.start(api.SignInRequestWayBrowser))
	step = b.must(b.walk(step, b.customer.Admin))
	return b.must(b.walk(step, b.customer.Admin))
}

func (b *signInBed) edit(upn string, change func(s *microsoft.State, u *microsoft.User)) {
	b.customer.Edit(func(s *microsoft.State) { change(s, s.User(upn)) })
}

// lost checks the access and returns why it does not work.
func (b *signInBed) lost() *invite.Lost {
	b.t.Helper()
	err := b.access.Update(b.t.Context(), nil, func(ctx context.Context, tx invite.Tx) error {
		a, err := tx.Access(ctx, "contoso")
		if err != nil {
			return err
		}
		a.Checked = a.Checked.Add(-time.Hour)
		return tx.SetAccess(ctx, a, nil)
	})
	if err != nil {
		b.t.Fatal(err)
	}
	checked := b.s.Check(b.t.Context(), "contoso")
	a, err := b.s.Access(b.t.Context(), "contoso")
	if err != nil || (checked != nil) != (a.Lost != nil) {
		b.t.Fatalf("Check = %v, access %+v, %v", checked, a, err)
	}
	return a.Lost
}

func TestSignInToATenant(t *testing.T) {
	t.Parallel()
	b := newSignInBed(t)
	step := b.authorised()
	if step.Step != api.SignInStepStepIntegrate || step.Access.Tenant != b.customer.ID ||
		step.Access.Authorised.By != b.customer.Admin {
		t.Fatalf("after the consent: %+v", step)
	}
	step = b.must(b.walk(step, serviceUser))
	if a := step.Access; a.State != "integrated" || a.Person.Name != serviceUser ||
		!slices.Equal(a.Person.Roles, []string{"Teams Administrator"}) {
		t.Fatalf("after the sign-in: %+v, %+v", a, a.Person)
	}

	first, _ := b.access.Tokens("contoso").RefreshToken(t.Context())
	if l := b.lost(); l != nil {
		t.Errorf("a good sign-in is lost: %+v", l)
	}
	if newest, _ := b.access.Tokens("contoso").RefreshToken(t.Context()); newest == first {
		t.Error("the newest refresh token is not kept")
	}

	b.edit(serviceUser, func(_ *microsoft.State, u *microsoft.User) { u.Disabled = true })
	if l := b.lost(); l == nil || !strings.Contains(l.Reason, "disabled") {
		t.Errorf("disabled: %+v", l)
	}
	b.edit(serviceUser, func(_ *microsoft.State, u *microsoft.User) { u.Disabled = false })
	if l := b.lost(); l != nil {
		t.Errorf("enabled again: %+v", l)
	}
	b.edit(serviceUser, func(s *microsoft.State, u *microsoft.User) {
		s.Roles = slices.DeleteFunc(s.Roles, func(r microsoft.RoleAssignment) bool { return r.Principal == u.ID })
	})
	if l := b.lost(); l == nil || !strings.Contains(l.Reason, "no directory role; it needs") {
		t.Errorf("roles removed: %+v", l)
	}
	b.edit(serviceUser, func(s *microsoft.State, u *microsoft.User) { s.Assign(u.ID, "Teams Telephony Administrator") })
	if l := b.lost(); l != nil {
		t.Errorf("roles given again: %+v", l)
	}
	b.customer.Revoke(serviceUser)
	if l := b.lost(); l == nil || !strings.Contains(l.Reason, "AADSTS50173") {
		t.Errorf("password reset: %+v", l)
	}

	b.cloud.Advance(time.Second) // the sign-in is later than the reset
	b.must(b.walk(b.must(b.start(api.SignInRequestWayBrowser)), serviceUser))
	if l := b.lost(); l != nil {
		t.Errorf("after another sign-in: %+v", l)
	}
	// tenant-cases 3, with each of the two values of "error".
	for _, text := range []string{"invalid_grant", "interaction_required"} {
		b.customer.Set(func(s *microsoft.Settings) { s.SignInFrequency, s.SignInError = time.Hour, text })
		b.cloud.Advance(2 * time.Hour)
		if l := b.lost(); l == nil || l.Lifetime != time.Hour || !strings.Contains(l.Reason, "certificate mode") {
			t.Errorf("sign-in frequency: %+v", l)
		}
		b.customer.Set(func(s *microsoft.Settings) { s.SignInFrequency = 0 })
	}
}

// tenant-cases 1: the administrator is not sent back to step 1 while the consent propagates.
func TestFreshConsentIsAWaitForSignIns(t *testing.T) {
	t.Parallel()
	b := newSignInBed(t)
	b.customer.Set(func(s *microsoft.Settings) { s.ConsentRefusals = 1 })
	step := b.must(b.walk(b.must(b.start(api.SignInRequestWayBrowser)), b.customer.Admin))
	again := b.must(b.walk(step, b.customer.Admin))
	if again.Step != api.SignInStepStepIdentify || again.Interval == 0 || again.Access.State != "none" {
		t.Fatalf("first try: %+v; want the same step after a wait", again)
	}
	if step = b.must(b.walk(again, b.customer.Admin)); step.Step != api.SignInStepStepIntegrate || step.Interval != 0 {
		t.Errorf("second try: %+v", step)
	}
}

func TestDeclinedAndUnsuitable(t *testing.T) {
	t.Parallel()
	b := newSignInBed(t)
	step := b.must(b.start(api.SignInRequestWayBrowser))
	to, err := b.cloud.Walk(t.Context(), step.URL, b.customer.Admin, url.Values{"action": {"cancel"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.next(step, to.RawQuery); !fault.HasCode(err, "ConsentDeclined") {
		t.Errorf("declined: %v", err)
	}
	if _, err := b.walk(b.must(b.start(api.SignInRequestWayBrowser)), serviceUser); !fault.HasCode(err,
		"ConsentNeeded") {
		t.Errorf("consent by someone who may not: %v", err)
	}

	step = b.authorised()
	b.customer.Edit(func(s *microsoft.State) {
		u := s.AddUser(&microsoft.User{UPN: "guest_partner@contoso.onmicrosoft.com", Guest: true,
			Home: "guest@partner.example"})
		s.Assign(u.ID, "Teams Administrator")
	})
	if _, err := b.walk(step, "guest@partner.example"); !fault.HasCode(err, "AccountUnsuitable") {
		t.Errorf("guest: %v", err)
	}
	step = b.must(b.start(api.SignInRequestWayBrowser))
	if _, err := b.walk(step, "user000001@"+b.customer.Initial); !fault.HasCode(err, "RolesMissing") {
		t.Errorf("no role: %v", err)
	}
	partner := b.cloud.AddTenant(microsoft.Spec{Name: "partner", Seed: 3})
	b.customer.Edit(func(s *microsoft.State) { s.Partners = map[string][]string{partner.ID: {"Teams Administrator"}} })
	if _, err := b.walk(b.must(b.start(api.SignInRequestWayBrowser)), partner.Admin); !fault.HasCode(err,
		"AccountUnsuitable") {
		t.Errorf("partner: %v", err)
	}
	b.s.Partners = true
	step = b.must(b.walk(b.must(b.start(api.SignInRequestWayBrowser)), partner.Admin))
	if step.Access.State != "integrated" {
		t.Errorf("an allowed partner: %+v", step.Access)
	}
}

func TestSignInWithADeviceCode(t *testing.T) {
	t.Parallel()
	b := newSignInBed(t)
	b.authorised()
	step := b.must(b.start(api.SignInRequestWayDevice))
	if again := b.must(b.next(step, "")); again.ID != step.ID || again.Access.Mode != "" {
		t.Fatalf("before the code was entered: %+v", again)
	}
	enter := func(step api.SignInStep) {
		_, err := b.cloud.Walk(t.Context(), step.URL, serviceUser, url.Values{"code": {step.UserCode}})
		if err != nil {
			t.Fatal(err)
		}
	}
	enter(step)
	if step = b.must(b.next(step, "")); step.Access.State != "integrated" || step.Access.Person.Name != serviceUser {
		t.Errorf("after the code was entered: %+v", step)
	}

	b.customer.Set(func(s *microsoft.Settings) { s.BlockDeviceCode = true })
	step = b.must(b.start(api.SignInRequestWayDevice))
	enter(step)
	if _, err := b.next(step, ""); !fault.HasCode(err, "DeviceCodeBlocked") || !strings.Contains(err.Error(),
		"policy") {
		t.Errorf("blocked by a policy: %v", err)
	}
}

func TestApplicationMode(t *testing.T) {
	t.Parallel()
	b := newSignInBed(t)
	b.authorised()
	if _, err := b.start(api.SignInRequestWayApplication); !fault.HasCode(err, "RolesMissing") ||
		!strings.Contains(err.Error(), "Teams Administrator") {
		t.Errorf("without a role: %v", err)
	}
	b.customer.Edit(func(s *microsoft.State) {
		for _, p := range s.Principals {
			if p.App == clientID {
				s.Assign(p.ID, "Teams Administrator")
			}
		}
	})
	step := b.must(b.start(api.SignInRequestWayApplication))
	if step.Access.State != "integrated" || step.Access.Mode != "application" {
		t.Errorf("with the role: %+v", step.Access)
	}
	if l := b.lost(); l != nil {
		t.Errorf("lost: %+v", l)
	}
}

// job reads the tenant as a job does.
func (b *signInBed) job() error {
	b.t.Helper()
	a, err := b.s.Access(b.t.Context(), "contoso")
	if err != nil {
		b.t.Fatal(err)
	}
	c, err := b.login.Connect("contoso", tenant.Grant{TenantID: a.Tenant, Consented: a.Consented,
		SignedIn: a.Integrated.At}, b.access.Tokens("contoso"))
	if err == nil {
		_, err = c.Facts(b.t.Context())
	}
	return err
}

// The administrator takes a permission from the application, and not the others: the consent is needed again, and the
// state says for what. What was never granted is not missed.
func TestPartlyWithdrawnConsent(t *testing.T) {
	t.Parallel()
	for name, withdraw := range map[string]func(p *microsoft.Principal){
		"Domain.ReadWrite.All (application)": func(p *microsoft.Principal) {
			p.Roles = slices.DeleteFunc(p.Roles, func(r microsoft.AppRole) bool {
				return r.Name == "Domain.ReadWrite.All"
			})
		},
		"User.ReadWrite.All (delegated)": func(p *microsoft.Principal) {
			for i := range p.Grants {
				g := &p.Grants[i]
				g.Scopes = slices.DeleteFunc(g.Scopes, func(s string) bool { return s == "User.ReadWrite.All" })
			}
		},
	} {
		b := newSignInBed(t)
		edit := func(change func(p *microsoft.Principal)) {
			b.customer.Edit(func(s *microsoft.State) {
				for _, p := range s.Principals {
					if p.App == clientID {
						change(p)
					}
				}
			})
		}
		step := b.authorised()
		edit(func(p *microsoft.Principal) { // not granted in this tenant from the beginning
			p.Roles = slices.DeleteFunc(p.Roles, func(r microsoft.AppRole) bool {
				return r.Name == "Application.ReadWrite.OwnedBy"
			})
		})
		b.must(b.walk(step, serviceUser))
		if lost := b.lost(); lost != nil {
			t.Fatalf("%s: lost from the beginning: %+v", name, lost)
		}

		edit(withdraw)
		lost := b.lost()
		if lost == nil || !lost.Consent || !strings.Contains(lost.Reason, "no longer grants "+name+";") {
			t.Fatalf("%s: %+v", name, lost)
		}
		if err := b.s.Check(t.Context(), "contoso"); !fault.HasCode(err, "ConsentNeeded") ||
			!strings.Contains(err.Error(), "tandem tenant sign-in contoso --authorise") {
			t.Errorf("%s: a job: %v", name, err)
		}
		step = b.must(b.start(api.SignInRequestWayBrowser))
		if step.Step != api.SignInStepStepConsent || step.Access.State != "needsConsent" {
			t.Fatalf("%s: the next step: %+v", name, step)
		}
		step = b.must(b.walk(b.must(b.walk(step, b.customer.Admin)), b.customer.Admin))
		b.must(b.walk(step, serviceUser))
		if lost := b.lost(); lost != nil {
			t.Errorf("%s: after the consent: %+v", name, lost)
		}
	}
}

// Graph refuses renewed tokens too: a job reads what to do, and not as if the caller's own token was wrong. The next
// check records that the sign-in is lost, and one with tokens that work that it is back.
func TestRefusedTokens(t *testing.T) {
	t.Parallel()
	b := newSignInBed(t)
	b.must(b.walk(b.authorised(), serviceUser))
	b.cloud.Inject(microsoft.Fault{Kind: microsoft.Expired, Service: microsoft.Graph})
	if err := b.job(); !fault.HasCode(err, "TokenRefused") || !fault.Is(err, fault.Conflict) ||
		!strings.Contains(err.Error(), "signs in again") {
		t.Errorf("the job: %v", err)
	}
	if lost := b.lost(); lost == nil || lost.Consent || !strings.Contains(lost.Reason, "signs in again") {
		t.Errorf("lost %+v", lost)
	}
	b.cloud.ClearFaults()
	if lost := b.lost(); lost != nil {
		t.Errorf("still lost: %+v", lost)
	}
}

// The administrator withdraws the consent: a job notices it, whichever way it was done, and the next step is the
// consent again. For some minutes after a consent the same refusal is a wait (tenant-cases 1).
func TestWithdrawnConsent(t *testing.T) {
	t.Parallel()
	for name, withdraw := range map[string]func(s *microsoft.State){
		"application deleted": func(s *microsoft.State) {
			s.Principals = slices.DeleteFunc(s.Principals, func(p *microsoft.Principal) bool {
				return p.App == clientID
			})
		},
		"permissions removed": func(s *microsoft.State) {
			for _, p := range s.Principals {
				if p.App == clientID {
					p.Roles = nil
				}
			}
		},
	} {
		for _, noticed := range []bool{true, false} {
			b := newSignInBed(t)
			b.must(b.walk(b.authorised(), serviceUser))
			b.customer.Edit(withdraw)
			if err := b.job(); !fault.HasCode(err, "ConsentPropagating") || !fault.Is(err, fault.Unavailable) {
				t.Errorf("%s, after a consent of a moment ago: %v", name, err)
			}
			var since time.Time
			err := b.access.Update(t.Context(), nil, func(ctx context.Context, tx invite.Tx) error {
				a, err := tx.Access(ctx, "contoso")
				if err != nil {
					return err
				}
				since = a.Consented
				a.Consented = a.Consented.Add(-time.Hour)
				return tx.SetAccess(ctx, a, nil)
			})
			if err != nil {
				t.Fatal(err)
			}

			if noticed { // else the sign-in looks
				err := b.job()
				for _, says := range []string{b.customer.Admin, "tandem tenant sign-in contoso --authorise",
					"tandem tenant invite contoso"} {
					if !fault.HasCode(err, "ConsentNeeded") || !strings.Contains(err.Error(), says) {
						t.Errorf("%s: %v, want %q", name, err, says)
					}
				}
				r, err := b.s.GetInvitation(t.Context(), api.GetInvitationRequestObject{Account: "contoso"})
				if err != nil {
					t.Fatal(err)
				}
				if a := r.(api.GetInvitation200JSONResponse); a.State != "needsConsent" || a.Lost.Since.Before(since) {
					t.Errorf("%s: %+v", name, a)
				}
			}
			step := b.must(b.start(api.SignInRequestWayBrowser))
			if step.Step != api.SignInStepStepConsent {
				t.Fatalf("%s: the next step is %s", name, step.Step)
			}
			step = b.must(b.walk(b.must(b.walk(step, b.customer.Admin)), b.customer.Admin))
			if step = b.must(b.walk(step, serviceUser)); step.Access.State != "integrated" {
				t.Errorf("%s: after the consent: %+v", name, step)
			}
			if err := b.job(); err != nil {
				t.Errorf("%s: after the consent: %v", name, err)
			}
		}
	}
}
