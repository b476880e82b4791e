package tenant_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/entra"
	"github.com/tandemgw/tandem/internal/outside/graph"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/secret"
	"github.com/tandemgw/tandem/internal/services/directrouting/tenant"
	"github.com/tandemgw/tandem/internal/sim/microsoft"
	store "github.com/tandemgw/tandem/internal/store/tenants"
	"github.com/tandemgw/tandem/internal/tenants/carrier"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
	"github.com/tandemgw/tandem/internal/testkit"
)

var trunks = &plan.CarrierSettings{Base: "trunk.example", Regions: []string{"1r1.trunk.example", "1r2.trunk.example"},
	Port: 5061}

// carrierState reads what the operator's tenant has of what it should have.
func (b *bed) carrierState() []plan.Object {
	b.t.Helper()
	var refs []plan.Ref
	for _, o := range trunks.Objects("MCOSTANDARD", nil) {
		refs = append(refs, o.Ref)
	}
	objects, err := b.reach.Read(b.t.Context(), refs)
	if err != nil {
		b.t.Fatal(err)
	}
	return objects
}

// ledger returns what was made in the tenant.
func ledger(t *testing.T, d *db.DB) (l plan.Ledger) {
	t.Helper()
	s := store.New(d, nil, nil, nil)
	err := s.View(t.Context(), "contoso", func(ctx context.Context, tx onboard.Tx) (err error) {
		l, err = tx.Ledger(ctx)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// The operator's own tenant is set up like a customer's: then customers can be onboarded, a second plan is empty, what
// a person changes is drift, and leaving restores what there was.
func TestOperatorsTenant(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	d := testkit.Open(t, testkit.SQLiteConfig(t))
	before := string(b.tenant.Dump())
	missing := carrier.Missing(b.carrierState(), trunks)
	want := []string{"trunk.example is not a verified domain of the operator's tenant",
		"1r1.trunk.example is not a verified domain of the operator's tenant",
		"1r2.trunk.example is not a verified domain of the operator's tenant",
		"1r1.trunk.example is not activated: Teams does not accept it for gateways yet",
		"1r2.trunk.example is not activated: Teams does not accept it for gateways yet",
		"trunk.example is not activated: Teams does not accept it for gateways yet",
		"1r1.trunk.example has no gateway object", "1r2.trunk.example has no gateway object"}
	if diff := cmp.Diff(want, missing); diff != "" {
		t.Errorf("missing at first (-want +got):\n%s", diff)
	}

	target := trunks.Objects("MCOSTANDARD", nil)
	b.reconcile(d, target)
	have := b.carrierState()
	if missing := carrier.Missing(have, trunks); len(missing) > 0 {
		t.Errorf("missing afterwards: %q", missing)
	}
	if r := carrier.Remarks(have, trunks); len(r) != 1 {
		t.Errorf("no user has Phone System: %q", r)
	}
	l := ledger(t, d)
	// Nor if another licence would be chosen now.
	p := plan.Compare(trunks.Objects("MCOEV_VIRTUALUSER", l), plan.NewState(have), l)
	if len(p.Steps)+len(p.Conflicts) > 0 {
		t.Errorf("the second plan: %+v", p)
	}
	b.tenant.Edit(func(s *microsoft.State) {
		o := s.Configurations["OnlinePSTNGateway"]["1r1.trunk.example"]
		for setting, want := range map[string]any{"SipSignalingPort": 5061.0, "Enabled": true, "SendSipOptions": true,
			"ForwardCallHistory": true, "ForwardPai": true, "PidfLoSupported": true, "MediaBypass": false} {
			if o[setting] != want {
				t.Errorf("%s is %v, want %v", setting, o[setting], want)
			}
		}
		o["ForwardPai"], o["Enabled"] = false, false
	})

	have = b.carrierState()
	drift := plan.Drift(plan.NewState(have), l)
	wantDrift := []plan.Step{{Action: plan.Change, Ref: plan.Ref{Type: plan.Gateway, Name: "1r1.trunk.example"},
		Differences: []plan.Difference{{Field: "enabled", Old: false, New: true},
			{Field: "forwardPai", Old: false, New: true}}}}
	if diff := cmp.Diff(wantDrift, drift.Steps); diff != "" {
		t.Errorf("drift (-want +got):\n%s", diff)
	}
	want = []string{"the gateway object 1r1.trunk.example is different: enabled is false instead of true, " +
		"forwardPai is false instead of true"}
	if diff := cmp.Diff(want, carrier.Missing(have, trunks)); diff != "" {
		t.Errorf("missing with drift (-want +got):\n%s", diff)
	}

	b.reconcile(d, target) // repairs it
	if missing := carrier.Missing(b.carrierState(), trunks); len(missing) > 0 {
		t.Errorf("missing after the repair: %q", missing)
	}
	b.reconcile(d, nil)
	b.purge()
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(string(b.tenant.Dump()), "\n")); diff != "" {
		t.Errorf("after leaving (-before +after):\n%s", diff)
	}
}

// certificate returns one that expires then.
func certificate(t *testing.T, expires time.Time) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "Tandem"},
		NotBefore: expires.AddDate(-1, 0, 0), NotAfter: expires}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// registrar returns the operator's tenant as its administrator, who signed in with an app that may register apps.
func (b *readyBed) registrar() tenant.Registrar {
	const id = "aaaaaaaa-0000-4000-8000-000000000009"
	may := []string{"Application.ReadWrite.All"}
	b.cloud.Register(microsoft.App{ID: id, Name: "first", Home: b.tenant.ID, Delegated: may,
		RedirectURIs: []string{redirect}, Secrets: []microsoft.Secret{{Value: "secret"}}})
	b.tenant.Consent(id, nil, may)
	app, err := entra.New(entra.Config{Authority: b.cloud.URL(microsoft.Login), ClientID: id,
		Secret: secret.New("secret"), Transport: b.transport})
	if err != nil {
		b.t.Fatal(err)
	}
	const resource = "https://graph.microsoft.com"
	signIn := entra.NewSignIn(b.tenant.ID, redirect, resource+"/.default")
	to, err := b.cloud.Walk(b.t.Context(), app.AuthoriseURL(signIn), b.tenant.Admin, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	grant, err := app.Redeem(b.t.Context(), signIn, to.Query())
	if err != nil {
		b.t.Fatal(err)
	}
	return tenant.Registrar{Graph: b.graph(app.Connect(b.tenant.ID, &keeper{token: grant.RefreshToken},
		time.Time{}).Source(resource))}
}

// The app registration is made as it must be, and each thing that a person changes is found.
func TestAppRegistration(t *testing.T) {
	t.Parallel()
	b := newReadyBed(t)
	r, expires := b.registrar(), time.Now().AddDate(1, 0, 0).UTC().Truncate(time.Second)
	redirects := []string{"https://onboard.gw.example/consent", "https://onboard.gw.example/signin", "http://127.0.0.1"}
	want := carrier.Want("gw.example", redirects, certificate(t, expires))
	if _, err := r.Find(t.Context(), "", want.Name); !fault.Is(err, fault.NotFound) {
		t.Fatalf("before it is made: %v", err)
	}
	id, err := r.Create(t.Context(), &want)
	if err != nil {
		t.Fatal(err)
	}

	// It is read as the application too.
	b.consent()
	alone := tenant.Registrar{Graph: b.graph(b.app.Connect(b.tenant.ID, nil, time.Time{}).Source(
		"https://graph.microsoft.com"))}
	if got, err := alone.Find(t.Context(), id, ""); err != nil || got.Name != want.Name {
		t.Errorf("as the application: %+v, %v", got, err)
	}

	// The publisher domain is set in Microsoft's portal.
	publisher := []carrier.Difference{{Field: "publisherDomain", Expected: "gw.example", Found: b.tenant.Initial}}
	differences := func() []carrier.Difference {
		t.Helper()
		got, err := r.Find(t.Context(), id, "")
		if err != nil {
			t.Fatal(err)
		}
		return carrier.Differences(&want, got)
	}
	if diff := cmp.Diff(publisher, differences()); diff != "" {
		t.Errorf("as made (-want +got):\n%s", diff)
	}
	for name, c := range map[string]struct {
		change func(*graph.Application)
		want   carrier.Difference
	}{
		"one tenant only": {func(a *graph.Application) { a.SignInAudience = "AzureADMyOrg" },
			carrier.Difference{Field: "signInAudience", Expected: "AzureADMultipleOrgs", Found: "AzureADMyOrg"}},
		"no roles in tokens": {func(a *graph.Application) { a.GroupMembershipClaims = "SecurityGroup" },
			carrier.Difference{Field: "groupMembershipClaims", Expected: "DirectoryRole", Found: "SecurityGroup"}},
		"a redirect less": {func(a *graph.Application) { a.Web.RedirectURIs = redirects[1:] },
			carrier.Difference{Field: "web.redirectUris", Expected: redirects[0]}},
		"a redirect more": {func(a *graph.Application) {
			a.Web.RedirectURIs = append(slices.Clone(redirects), "https://other.example/")
		}, carrier.Difference{Field: "web.redirectUris", Found: "https://other.example/"}},
		"a permission less": {func(a *graph.Application) { a.RequiredResourceAccess = a.RequiredResourceAccess[:1] },
			carrier.Difference{Field: "requiredResourceAccess", Expected: "user_impersonation (delegated)"}},
		"another certificate": {func(a *graph.Application) {
			a.KeyCredentials[0].Key = certificate(t, expires.AddDate(1, 0, 0)).Raw
		}, carrier.Difference{Field: "keyCredentials", Expected: "a certificate until " + expires.Format(time.RFC3339),
			Found: expires.AddDate(1, 0, 0).Format(time.RFC3339)}},
	} {
		var a graph.Application
		text, err := tenant.Manifest(&want)
		if err == nil {
			err = json.Unmarshal(text, &a)
		}
		if err != nil {
			t.Fatal(err)
		}
		a.DisplayName = name
		c.change(&a)
		made, err := graph.CreateApplication(a).Do(t.Context(), r.Graph)
		if err != nil {
			t.Fatal(err)
		}
		id = made.AppID
		got := slices.DeleteFunc(differences(), func(d carrier.Difference) bool { return d == publisher[0] })
		if diff := cmp.Diff([]carrier.Difference{c.want}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
