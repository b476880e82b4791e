package carrier_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/tenants/carrier"
	"github.com/tandemgw/tandem/internal/tenants/plan"
)

// tenant has the registrations of the operator's tenant. The answer of the first Create may be lost.
type tenant struct {
	registrations []carrier.Registration
	lose          bool
}

func (t *tenant) Find(_ context.Context, id, name string) (*carrier.Registration, error) {
	for _, r := range t.registrations {
		if r.ClientID == id || id == "" && r.Name == name {
			return &r, nil
		}
	}
	return nil, fault.New(fault.NotFound, "AppNotFound", "none")
}

func (t *tenant) Create(_ context.Context, r *carrier.Registration) (string, error) {
	made := *r
	made.ClientID = fmt.Sprint("id-", len(t.registrations))
	t.registrations = append(t.registrations, made)
	if t.lose {
		return "", errors.New("connection lost")
	}
	return made.ClientID, nil
}

func app(t *tenant, audited *[]string) *carrier.App {
	return &carrier.App{Want: carrier.Want("gw.example", []string{"https://onboard.gw.example/signin"}, nil),
		Registrar: func(context.Context, bool) (carrier.Registrar, error) { return t, nil },
		Audit: func(_ context.Context, action, target string, _ int, _ any) error {
			*audited = append(*audited, action+" "+target)
			return nil
		}}
}

// TestRegistrationIsMadeOnce: whatever is lost, there is one, and it is named.
func TestRegistrationIsMadeOnce(t *testing.T) {
	t.Parallel()
	x, audited := &tenant{lose: true}, []string{}
	a := app(x, &audited)
	if _, _, err := a.Check(t.Context()); !fault.HasCode(err, "AppNotFound") {
		t.Errorf("before: %v", err)
	}
	if _, err := a.Create(t.Context()); err == nil {
		t.Fatal("the answer was lost")
	}
	if _, err := a.Create(t.Context()); !fault.HasCode(err, "AppExists") || !strings.Contains(err.Error(), "id-0") {
		t.Errorf("again: %v", err)
	}
	if len(x.registrations) != 1 {
		t.Errorf("%d registrations", len(x.registrations))
	}
	id, differences, err := a.Check(t.Context())
	if id != "id-0" || err != nil || len(differences) != 1 || differences[0].Field != "keyCredentials" {
		t.Errorf("check: %s %v %v; want the missing certificate only", id, differences, err)
	}

	x = &tenant{}
	a = app(x, &audited)
	if id, err := a.Create(t.Context()); id != "id-0" || err != nil || !slices.Equal(audited, []string{
		"carrier.createApp id-0"}) {
		t.Errorf("create: %s %v %q", id, err, audited)
	}
}

// TestExpiryIsAnnounced: at 30, 14, 7 and 1 days, once each; a failure is repeated.
func TestExpiryIsAnnounced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const day = 24 * time.Hour
		c := &x509.Certificate{NotAfter: time.Now().Add(40 * day)}
		var announced []string
		fail := true
		announce := func(_ context.Context, _ string, days int, expires time.Time) error {
			if fail = !fail; fail {
				return errors.New("no database")
			}
			announced = append(announced, fmt.Sprintf("%d at %d", days, int(time.Until(expires)/day)))
			return nil
		}
		reg := prometheus.NewRegistry()
		fail = false
		e := carrier.NewExpiry(c, announce, slog.New(slog.DiscardHandler), reg)
		want := fmt.Sprintf("# HELP tandem_tenant_app_credential_expiry_timestamp_seconds When the certificate of the "+
			"app registration expires.\n# TYPE tandem_tenant_app_credential_expiry_timestamp_seconds gauge\n"+
			"tandem_tenant_app_credential_expiry_timestamp_seconds %v\n", float64(c.NotAfter.Unix()))
		if err := testutil.GatherAndCompare(reg, strings.NewReader(want)); err != nil {
			t.Error(err)
		}
		if e.Warning() != "" {
			t.Errorf("40 days before: %q", e.Warning())
		}

		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- e.Run(ctx) }()
		time.Sleep(36 * day)
		if got := e.Warning(); !strings.Contains(got, "expires in 4 days") {
			t.Errorf("4 days before: %q", got)
		}
		time.Sleep(5 * day)
		if got := e.Warning(); !strings.Contains(got, "has expired") {
			t.Errorf("afterwards: %q", got)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if want := []string{"30 at 29", "14 at 13", "7 at 6", "1 at 0"}; !slices.Equal(announced, want) {
			t.Errorf("announced %q, want %q", announced, want)
		}
	})
}

// TestMissing: a domain that Teams accepts counts whoever activated it; the names' case does not.
func TestMissing(t *testing.T) {
	t.Parallel()
	s := &plan.CarrierSettings{Base: "gw.example", Regions: []string{"1r1.gw.example"}, Port: 5061}
	objects := slices.DeleteFunc(s.Objects("MCOEV", nil), func(o plan.Object) bool {
		return o.Type == plan.ActivationUser
	})
	for i := range objects {
		objects[i].Name = strings.ToUpper(objects[i].Name)
	}
	if missing := carrier.Missing(objects, s); len(missing) > 0 {
		t.Errorf("complete: %q", missing)
	}
	s.Port = 5062
	want := []string{"the gateway object 1r1.gw.example is different: port is 5061 instead of 5062"}
	if missing := carrier.Missing(objects, s); !slices.Equal(missing, want) {
		t.Errorf("another port: %q, want %q", missing, want)
	}
	if r := carrier.Remarks(s.Objects("MCOEV", nil), s); len(r) > 0 {
		t.Errorf("a user with Phone System: %q", r)
	}
	if r := carrier.Remarks(objects, s); len(r) != 1 {
		t.Errorf("none: %q", r)
	}
}

// TestOperations: the registration with its manifest, and the operator's tenant without anything.
func TestOperations(t *testing.T) {
	t.Parallel()
	audited := []string{}
	x := &tenant{}
	a := app(x, &audited)
	a.Want.Certificate = &x509.Certificate{Raw: []byte("c"), NotAfter: time.Unix(1e9, 0)}
	a.Manifest = func(r *carrier.Registration) ([]byte, error) {
		return []byte(`{"displayName":"` + r.Name + `"}`), nil
	}
	settings := &plan.CarrierSettings{Base: "gw.example", Regions: []string{"1r1.gw.example"}, Port: 5061}
	var objects []plan.Object
	o := carrier.Operations{App: a, Settings: settings, Teams: func() (string, string) { return "https", "" },
		Read: func(_ context.Context, named []plan.Ref) ([]plan.Object, error) {
			if !slices.Contains(named, plan.Ref{Type: plan.ActivationUser, Name: "tandem.teams@gw.example"}) {
				return nil, fmt.Errorf("named %v", named)
			}
			return objects, nil
		}}

	shown, err := o.GetCarrierApp(t.Context(), api.GetCarrierAppRequestObject{})
	if err != nil {
		t.Fatal(err)
	}
	r := shown.(api.GetCarrierApp200JSONResponse)
	if r.Manifest["displayName"] != "Tandem gw.example" || len(r.Permissions) != len(a.Want.Permissions) ||
		r.CertificateExpires == nil || len(r.Certificate) != 64 || r.ClientID != "" {
		t.Errorf("%+v", r)
	}
	made, err := o.CreateCarrierApp(t.Context(), api.CreateCarrierAppRequestObject{})
	if err != nil || made.(api.CreateCarrierApp201JSONResponse).ClientID != "id-0" {
		t.Errorf("%+v, %v", made, err)
	}
	checked, err := o.CheckCarrierApp(t.Context(), api.CheckCarrierAppRequestObject{})
	if err != nil || len(checked.(api.CheckCarrierApp200JSONResponse).Differences) != 1 { // its stub has no expiry
		t.Errorf("%+v, %v", checked, err)
	}

	for _, complete := range []bool{false, true} {
		if complete {
			objects = settings.Objects("MCOEV", nil)
		}
		answer, err := o.CheckCarrier(t.Context(), api.CheckCarrierRequestObject{})
		if err != nil {
			t.Fatal(err)
		}
		c := answer.(api.CheckCarrier200JSONResponse)
		if c.Passed != complete || (len(c.Missing) == 0) != complete || c.Missing == nil || c.Teams != "https" {
			t.Errorf("complete %t: %+v", complete, c)
		}
	}
}
