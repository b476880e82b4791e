package tenant_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/entra"
	"github.com/tandemgw/tandem/internal/outside/graph"
	"github.com/tandemgw/tandem/internal/outside/teamsadmin"
	"github.com/tandemgw/tandem/internal/platform/secret"
	"github.com/tandemgw/tandem/internal/services/directrouting/tenant"
	"github.com/tandemgw/tandem/internal/sim/ca"
	"github.com/tandemgw/tandem/internal/sim/microsoft"
	"github.com/tandemgw/tandem/internal/tenants/label"
	"github.com/tandemgw/tandem/internal/tenants/permission"
	"github.com/tandemgw/tandem/internal/tenants/plan"
	"github.com/tandemgw/tandem/internal/tenants/readiness"
)

// readyBed is a simulated cloud with a tenant whose readiness is checked, as its sign-ins reach it.
type readyBed struct {
	t                 *testing.T
	cloud             *microsoft.Cloud
	tenant            *microsoft.Tenant
	transport         *http.Transport
	app               *entra.App
	user              string // who signs in
	operator          string // id of the operator's tenant
	inventory         []string
	rules             []plan.Rule
	emergency         []plan.EmergencyNumber
	trunk             plan.Trunk
	nameProblem       error
	taken             func(label string) (bool, error)
	ledger            plan.Ledger
	signedIn, service bool // who configures Teams: the person, the app
}

// keeper keeps a refresh token in memory.
type keeper struct {
	mu    sync.Mutex
	token secret.Text
}

func (k *keeper) RefreshToken(context.Context) (secret.Text, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.token, nil
}

func (k *keeper) KeepRefreshToken(_ context.Context, t secret.Text) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.token = t
	return nil
}

const redirect = "https://onboard.gw.example/signin"

// asked returns the names of the permissions that the app asks for.
func asked(kind permission.Kind) (names []string) {
	for _, p := range permission.All() {
		if p.Kind == kind {
			names = append(names, p.Name)
		}
	}
	return names
}

func newReadyBed(t *testing.T) *readyBed {
	t.Helper()
	authority, err := ca.New("test")
	if err != nil {
		t.Fatal(err)
	}
	b := &readyBed{t: t, trunk: plan.Derived, taken: func(string) (bool, error) { return false, nil },
		rules: []plan.Rule{{Name: "keep", Pattern: `^(112|999)$`, Translation: "$1"},
			{Name: "national", Pattern: `^0(\d{10})$`, Translation: "+44$1"}}}
	if b.cloud, err = microsoft.New(microsoft.Config{Authority: authority}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.cloud.Close() })
	b.tenant = b.cloud.AddTenant(microsoft.Spec{Name: "contoso", Users: 10, Foreign: 2, Seed: 1})
	b.user = b.tenant.Admin
	b.transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority.Pool()}}
	t.Cleanup(b.transport.CloseIdleConnections)
	operator := b.cloud.AddTenant(microsoft.Spec{Name: "operator", Seed: 2})
	b.operator = operator.ID
	b.cloud.Register(microsoft.App{ID: clientID, Name: "Tandem", Home: operator.ID, MultiTenant: true,
		Application: asked(permission.Application), Delegated: asked(permission.Delegated),
		RedirectURIs: []string{redirect}, Secrets: []microsoft.Secret{{Value: "secret"}}})
	b.app, err = entra.New(entra.Config{Authority: b.cloud.URL(microsoft.Login), ClientID: clientID,
		Secret: secret.New("secret"), Transport: b.transport})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *readyBed) consent() {
	b.tenant.Consent(clientID, asked(permission.Application), asked(permission.Delegated))
}

func (b *readyBed) graph(source *entra.Source) *graph.Client {
	c, err := graph.New(graph.Config{BaseURL: b.cloud.URL(microsoft.Graph) + "/v1.0", Tenant: b.tenant.ID,
		Tokens: source, Budget: graph.NewBudget(), UserAgent: "Tandem/test", Transport: b.transport})
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

func (b *readyBed) connector() *tenant.Connector {
	return &tenant.Connector{App: b.app, Graph: b.cloud.URL(microsoft.Graph) + "/v1.0", Budget: graph.NewBudget(),
		UserAgent: "Tandem/test", Transport: b.transport,
		Teams: func(_ string, tokens tenant.Tokens) (teamsadmin.Admin, error) {
			return teamsadmin.New(teamsadmin.Config{Enabled: true, BaseURL: b.cloud.URL(microsoft.Teams),
				Tokens: tokens.Teams, UserAgent: "Tandem/test", Transport: b.transport})
		}}
}

// source connects to the tenant for one check.
func (b *readyBed) source(context.Context, string) (readiness.Source, error) {
	const resource = "https://graph.microsoft.com"
	c := b.connector()
	grant, store := tenant.Grant{TenantID: b.tenant.ID, Consented: time.Unix(1, 0), Application: b.service}, &keeper{}
	var person entra.Identity
	if b.signedIn {
		signIn := entra.NewSignIn(b.tenant.ID, redirect, resource+"/.default")
		to, err := b.cloud.Walk(b.t.Context(), b.app.AuthoriseURL(signIn), b.user, nil)
		if err != nil {
			b.t.Fatal(err)
		}
		who, err := b.app.Redeem(b.t.Context(), signIn, to.Query())
		if err != nil {
			b.t.Fatal(err)
		}
		grant.SignedIn, store.token, person = time.Unix(2, 0), who.RefreshToken, who.Identity
	}
	f, err := c.Facts("contoso", grant, store)
	if err != nil {
		return nil, err
	}
	f.AppID, f.Name, f.Partner = clientID, person.Name, person.Guest
	f.Inventory = func(_ context.Context, numbers []string) ([]string, error) {
		foreign := func(n string) bool { return !slices.Contains(b.inventory, n) }
		return slices.DeleteFunc(slices.Clone(numbers), foreign), nil
	}
	return f, nil
}

// check checks the tenant, and that nothing was written.
func (b *readyBed) check() *readiness.Report {
	b.t.Helper()
	c := &readiness.Checker{Source: b.source,
		Settings: func(_ context.Context, _ string, tenant readiness.Tenant) (*plan.Settings, error) {
			l, err := label.Propose(tenant.Initial, "gw.example", b.taken)
			return &plan.Settings{Prefix: "Tandem-E164", Port: 5061, Licence: "MCOSTANDARD", Regions: regions,
				Labels: []plan.Label{{Name: l, Trunk: b.trunk}}, Rules: b.rules, Emergency: b.emergency}, err
		},
		Ledger:    func(context.Context, string) (plan.Ledger, error) { return b.ledger, nil },
		DNS:       func(context.Context, string) error { return b.nameProblem },
		Reachable: func(context.Context, string) error { return nil },
		Teams:     func() readiness.Implementation { return readiness.Implementation{Name: "a test"} }}
	r, err := c.Check(b.t.Context(), "contoso")
	if err != nil {
		b.t.Fatal(err)
	}
	if n := b.cloud.Mutations(); n != 0 {
		b.t.Errorf("%d requests of the check could write", n)
	}
	return r
}

// finding returns the finding of a check about something as "level reason".
func finding(r *readiness.Report, id, subject string) string {
	for _, f := range r.Findings {
		if f.ID == id && f.Subject == subject {
			return string(f.Level) + " " + f.Reason
		}
	}
	return ""
}

// failed returns the checks that failed.
func failed(r *readiness.Report) (ids []string) {
	for _, f := range r.Findings {
		if f.Level == readiness.Fail {
			ids = append(ids, strings.TrimSpace(f.ID+" "+f.Subject))
		}
	}
	return ids
}

// tenant-cases 2: a tenant of which only three permissions were granted: each missing one is named, although the person
// is a Global Administrator, and whatever the app registration asks for.
func TestMissingPermissionsAreNamed(t *testing.T) {
	t.Parallel()
	b := newReadyBed(t)
	granted := []string{"Organization.Read.All", "User.ReadWrite.All", "Application.Read.All"}
	b.tenant.Consent(clientID, granted, nil)
	r := b.check()
	for _, p := range permission.All() {
		if p.Kind == permission.Delegated {
			continue
		}
		want := "fail not granted"
		if slices.Contains(granted, p.Name) {
			want = "pass granted"
		}
		if got := finding(r, "permission", p.Name+" (application)"); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", p.Name, got, want)
		}
	}
	// The delegated ones cannot be read without Directory.Read.All, which is said.
	if got := finding(r, "unread", "grants"); !strings.HasPrefix(got, "warn") {
		t.Errorf("grants that cannot be read: %q", got)
	}
	if r.Stage != readiness.Consented || r.Note() == "" {
		t.Errorf("stage %s, note %q", r.Stage, r.Note())
	}

	// The rest is granted, but no delegated permission.
	b.tenant.Consent(clientID, asked(permission.Application), nil)
	r = b.check()
	want := []string{"permission user_impersonation (delegated)",
		"permission RoleManagement.Read.Directory (delegated)", "permission User.ReadWrite.All (delegated)"}
	if got := failed(r); !slices.Equal(got, want) {
		t.Errorf("failed: %q, want %q", got, want)
	}

	// A Global Administrator has signed in: roles do not stand in for permissions.
	b = newReadyBed(t)
	b.tenant.Consent(clientID, granted, asked(permission.Delegated))
	b.signedIn = true
	r = b.check()
	if got := finding(r, "role", "teams"); !strings.HasPrefix(got, "pass ") {
		t.Errorf("the role of the person: %q", got)
	}
	missing := 0
	for _, f := range failed(r) {
		if strings.HasPrefix(f, "permission ") {
			missing++
		}
	}
	if missing != len(asked(permission.Application))-len(granted) {
		t.Errorf("%d missing permissions are named: %q", missing, failed(r))
	}
}

// Tokens lack a permission for a while after it was granted: a wait, not a refusal.
func TestFreshConsentIsAWait(t *testing.T) {
	t.Parallel()
	b := newReadyBed(t)
	b.tenant.Set(func(s *microsoft.Settings) {
		s.ConsentMissing, s.ConsentLag = []string{"Domain.ReadWrite.All"}, time.Minute
	})
	b.consent()
	got := finding(b.check(), "permission", "Domain.ReadWrite.All (application)")
	if !strings.HasPrefix(got, "warn granted") {
		t.Errorf("just granted: %q", got)
	}
	b.cloud.Advance(2 * time.Minute)
	if got := finding(b.check(), "permission", "Domain.ReadWrite.All (application)"); got != "pass granted" {
		t.Errorf("later: %q", got)
	}
}

// Without consent there is nothing to read, and the reason is said.
func TestWithoutConsent(t *testing.T) {
	t.Parallel()
	r := newReadyBed(t).check()
	if got := failed(r); !slices.Equal(got, []string{"consent"}) {
		t.Errorf("failed: %q", got)
	}
}

// A tenant is neither planned nor changed before an account has signed in to configure Teams, whatever is consented.
func TestNothingBeforeTheSignIn(t *testing.T) {
	t.Parallel()
	b := newReadyBed(t)
	b.consent()
	c, grant := b.connector(), tenant.Grant{TenantID: b.tenant.ID}
	if _, err := c.Configure("contoso", grant, &keeper{}); !fault.HasCode(err, "NotAuthorised") {
		t.Errorf("before the consent is known: %v", err)
	}
	grant.Consented = time.Unix(1, 0)
	if _, err := c.Configure("contoso", grant, &keeper{}); !fault.HasCode(err, "SignInNeeded") {
		t.Errorf("before the sign-in: %v", err)
	}
	grant.SignedIn = time.Unix(2, 0)
	if _, err := c.Configure("contoso", grant, &keeper{}); err != nil {
		t.Errorf("after the sign-in: %v", err)
	}
}

// Each fact is read from a tenant that a person edited.
func TestFactsOfATenant(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, id, subject, want string
		edit                    func(*readyBed, *microsoft.State)
	}{
		{"as it is", "tenant", "contoso", "pass a tenant of an organisation in GB", nil},
		{"users", "users", "", "pass ", nil},
		{"label", "label", "contoso", "pass ", nil},
		{"label that is taken", "label", "contoso2", "pass ", func(b *readyBed, _ *microsoft.State) {
			b.taken = func(l string) (bool, error) { return l == "contoso", nil }
		}},
		{"no free label", "settings", "", "fail no label of at most", func(b *readyBed, _ *microsoft.State) {
			b.taken = func(string) (bool, error) { return true, nil }
		}},
		{"name", "dns", "contoso.1r1.gw.example", "pass ", nil},
		{"domains", "domains", "contoso.onmicrosoft.com", "pass 2 verified domains", nil},
		{"a tenant for customers", "tenant", "contoso", `fail a tenant of type "AAD B2C"`,
			func(_ *readyBed, s *microsoft.State) { s.Organization["tenantType"] = "AAD B2C" }},
		{"synchronised", "synchronised", "", "warn users are synchronised",
			func(_ *readyBed, s *microsoft.State) { s.Organization["onPremisesSyncEnabled"] = true }},
		{"government", "cloud", "", "warn ", func(_ *readyBed, s *microsoft.State) {
			s.SKUs[0].Plans = append(s.SKUs[0].Plans, microsoft.Plan{ID: "x", Name: "MCOEV_GOV"})
		}},
		{"nobody has Teams Phone", "users", "", "warn no user has", func(_ *readyBed, s *microsoft.State) {
			for _, u := range s.Users {
				for len(u.Licenses) > 0 {
					s.Unlicense(u, u.Licenses[0].SKU)
				}
			}
		}},
		{"grace period", "licence", "MCOSTANDARD", "warn 5 free", func(_ *readyBed, s *microsoft.State) {
			s.SKUs = []*microsoft.SKU{microsoft.NewSKU("MCOSTANDARD", 0)}
			s.SKUs[0].Warning, s.SKUs[0].Extra = 25, 20
		}},
		{"more used than paid for", "licence", "", "fail no licence is free; MCOSTANDARD: 1 more in use than paid for",
			func(_ *readyBed, s *microsoft.State) {
				s.SKUs = []*microsoft.SKU{microsoft.NewSKU("MCOSTANDARD", 5)}
				s.SKUs[0].Extra = 6
			}},
		{"one seat", "licence", "MCOSTANDARD", "warn 1 free for 2 names", func(_ *readyBed, s *microsoft.State) {
			s.SKUs = []*microsoft.SKU{microsoft.NewSKU("MCOSTANDARD", 1)}
		}},
		{"resource accounts only", "licence", "PHONESYSTEM_VIRTUALUSER", "warn only the free licence",
			func(_ *readyBed, s *microsoft.State) {
				s.SKUs = []*microsoft.SKU{microsoft.NewSKU("PHONESYSTEM_VIRTUALUSER", 25)}
			}},
		{"name server", "dns", "contoso.1r2.gw.example", "fail ns1 refuses", func(b *readyBed, _ *microsoft.State) {
			b.nameProblem = fault.New(fault.Conflict, "Zone", "ns1 refuses")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newReadyBed(t)
			b.consent()
			if c.edit != nil {
				b.tenant.Edit(func(s *microsoft.State) { c.edit(b, s) })
			}
			if got := finding(b.check(), c.id, c.subject); !strings.HasPrefix(got, c.want) {
				t.Errorf("%s %s: %q, want %q", c.id, c.subject, got, c.want)
			}
		})
	}
}

func put(s *microsoft.State, kind, name string, o microsoft.Object) {
	o["Identity"] = name
	s.Configurations[kind][strings.ToLower(name)] = o
}

// give assigns a number as a person would, to the first user who has a licence and none.
func give(s *microsoft.State, n *microsoft.Number) *microsoft.User {
	s.Numbers[n.Number] = n
	for _, u := range s.Users {
		if len(u.Licenses) > 0 && n.Target == "" {
			n.Target = u.ID
			return u
		}
	}
	return nil
}

// What the second sign-in shows.
func TestFactsOfTeams(t *testing.T) {
	t.Parallel()
	const number, prefix = "+442079460123", "Tandem-E164"
	for _, c := range []struct {
		name, id, subject, want string
		edit                    func(*readyBed, *microsoft.State)
	}{
		{"nothing collides", "collision", "", "pass ", nil},
		{"nothing is shadowed", "shadow", "", "pass ", nil},
		{"role", "role", "teams", "pass admin@contoso.onmicrosoft.com has", nil},
		{"purge", "role", "purge", "pass ", nil},
		{"dial plan", "dialPlan", "", "pass ", nil},
		{"Global emergency policy", "emergency", "Global", "pass ", nil},
		{"a policy with our name", "collision", "routingPolicy " + prefix, "fail exists, is different",
			func(_ *readyBed, s *microsoft.State) {
				put(s, "OnlineVoiceRoutingPolicy", prefix, microsoft.Object{"OnlinePstnUsages": []any{"Foreign-1"}})
			}},
		{"a dial plan with our name", "collision", "dialPlan " + prefix, "fail exists, is different",
			func(_ *readyBed, s *microsoft.State) {
				put(s, "TenantDialPlan", "Tag:tandem-e164", microsoft.Object{"NormalizationRules": []any{}})
				plans := s.Configurations["TenantDialPlan"]
				plans["tandem-e164"] = plans["tag:tandem-e164"]
				delete(plans, "tag:tandem-e164")
			}},
		{"an old gateway object", "collision", "gateway contoso.1r1.gw.example", "fail is a gateway object",
			func(_ *readyBed, s *microsoft.State) {
				put(s, "OnlinePSTNGateway", "contoso.1r1.gw.example", microsoft.Object{"SipSignalingPort": 5061.0})
			}},
		{"a route with our usage", "shadow", "Foreign-1", "fail the route has our usage", func(_ *readyBed,
			s *microsoft.State) {
			s.Configurations["OnlinePstnUsages"]["global"]["Usage"] = []any{"Foreign-1", "Foreign-2", prefix}
			s.Configurations["OnlineVoiceRoute"]["foreign-1"]["OnlinePstnUsages"] = []any{prefix}
			s.Configurations["OnlineVoiceRoute"]["foreign-1"]["Priority"] = 0.0
		}},
		{"assigned by direct routing", "number", number, "warn assigned to ", func(b *readyBed, s *microsoft.State) {
			b.inventory = []string{number}
			give(s, &microsoft.Number{Number: number})
		}},
		{"assigned with an extension", "number", number + ";ext=12", "warn assigned to ",
			func(b *readyBed, s *microsoft.State) {
				b.inventory = []string{number}
				give(s, &microsoft.Number{Number: number + ";ext=12"})
			}},
		{"of another operator", "number", number, "", func(_ *readyBed, s *microsoft.State) {
			give(s, &microsoft.Number{Number: number})
		}},
		{"assigned as a calling plan", "number", number, "fail the number is assigned as callingPlan",
			func(b *readyBed, s *microsoft.State) {
				b.inventory = []string{number}
				give(s, &microsoft.Number{Number: number, Type: "callingPlan"})
			}},
		{"from Active Directory", "number", number, "fail user000001@contoso.onmicrosoft.com has the number from",
			func(b *readyBed, s *microsoft.State) {
				b.inventory = []string{number}
				give(s, &microsoft.Number{Number: number, Source: "onPremises",
					Target: s.User("user000001@contoso.onmicrosoft.com").ID})
			}},
		{"held by nobody", "number", number, "warn held by an account that no longer exists",
			func(b *readyBed, s *microsoft.State) {
				b.inventory = []string{number}
				give(s, &microsoft.Number{Number: number, VoiceApp: true,
					Target: "12345678-1234-4234-8234-123456789012"})
			}},
		{"held from the bin", "number", number, "warn held by ", func(b *readyBed, s *microsoft.State) {
			b.inventory = []string{number}
			s.DeleteUser(give(s, &microsoft.Number{Number: number}))
		}},
		{"emergency calls by another's route", "emergency", "Global 112", "warn users without a policy of their own: " +
			"the usage Foreign-1 leads to Foreign-1", func(_ *readyBed, s *microsoft.State) {
			s.Configurations["OnlineVoiceRoute"]["foreign-1"]["NumberPattern"] = ".*"
			s.Configurations["TeamsEmergencyCallRoutingPolicy"]["global"]["EmergencyNumbers"] = []any{
				map[string]any{"EmergencyDialString": "112", "OnlinePSTNUsage": "Foreign-1"}}
		}},
		{"emergency calls without a route", "emergency", "Global 112", "fail users without a policy of their own: no " +
			"route has the usage Foreign-1", func(_ *readyBed, s *microsoft.State) {
			delete(s.Configurations["OnlineVoiceRoute"], "foreign-1")
			s.Configurations["TeamsEmergencyCallRoutingPolicy"]["global"]["EmergencyNumbers"] = []any{
				map[string]any{"EmergencyDialString": "112", "OnlinePSTNUsage": "Foreign-1"}}
		}},
		{"emergency policy of a group", "emergency", "Foreign-1 911", "fail 1 user: no route has", func(_ *readyBed,
			s *microsoft.State) {
			s.Groups = append(s.Groups, &microsoft.Group{ID: "g", Members: []string{s.Users[1].ID}})
			s.GroupGrants = append(s.GroupGrants, microsoft.GroupGrant{Group: "g",
				Type: "TeamsEmergencyCallRoutingPolicy", Policy: "Foreign-1", Rank: 1})
		}},
		{"an emergency policy of our own", "emergency", prefix, "pass users whom Tandem activates",
			func(b *readyBed, _ *microsoft.State) { b.emergency = []plan.EmergencyNumber{{DialString: "112"}} }},
		{"a rule that rewrites 112", "dialPlan", "rules[0]", "fail the rule makes", func(b *readyBed,
			_ *microsoft.State) {
			b.rules = []plan.Rule{{Name: "short", Pattern: `^(\d{3})$`, Translation: "+44207946$1"}}
		}},
		{"no Teams role", "role", "teams", "fail user000001@contoso.onmicrosoft.com lacks the role Teams Telephony " +
			"Administrator or Teams Administrator", func(b *readyBed, s *microsoft.State) {
			b.user = "user000001@contoso.onmicrosoft.com"
		}},
		{"a Teams Administrator cannot purge", "role", "purge", "warn user000001@contoso.onmicrosoft.com lacks",
			func(b *readyBed, s *microsoft.State) {
				b.user = "user000001@contoso.onmicrosoft.com"
				s.Assign(s.User(b.user).ID, "Teams Administrator")
			}},
		{"a partner's account", "partner", "admin@operator.onmicrosoft.com", "warn the account is a partner's. It " +
			"cannot change the tenant's default policies (40301)", func(b *readyBed, s *microsoft.State) {
			b.user = "admin@operator.onmicrosoft.com"
			s.Partners[b.operator] = []string{"Teams Administrator"}
		}},
		{"a partner's roles", "role", "teams", "pass admin@operator.onmicrosoft.com has", func(b *readyBed,
			s *microsoft.State) {
			b.user = "admin@operator.onmicrosoft.com"
			s.Partners[b.operator] = []string{"Teams Administrator"}
		}},
		{"the app's role", "role", "teams", "pass the app has the role Teams Administrator", func(b *readyBed,
			s *microsoft.State) {
			b.signedIn, b.service = false, true
			for _, p := range s.Principals {
				if p.App == clientID {
					s.Assign(p.ID, "Teams Administrator")
				}
			}
		}},
		{"the app without a role", "role", "teams", "fail the app lacks the role Teams Administrator", func(b *readyBed,
			_ *microsoft.State) {
			b.signedIn, b.service = false, true
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newReadyBed(t)
			b.signedIn = true
			b.consent()
			if c.edit != nil {
				b.tenant.Edit(func(s *microsoft.State) { c.edit(b, s) })
			}
			r := b.check()
			got := finding(r, c.id, c.subject)
			if !strings.HasPrefix(got, c.want) || c.want == "" && got != "" {
				t.Errorf("%s %s: %q, want %q\n%s", c.id, c.subject, got, c.want, text(r))
			}
			if r.Stage != readiness.SignedIn || r.Note() != "" {
				t.Errorf("stage %s, note %q", r.Stage, r.Note())
			}
		})
	}
}

func text(r *readiness.Report) string {
	var b strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintln(&b, f.Level, f.ID, f.Subject, f.Reason)
	}
	return b.String()
}
