package powershell_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/entra"
	"github.com/tandemgw/tandem/internal/outside/teamsadmin"
	"github.com/tandemgw/tandem/internal/outside/teamsadmin/powershell"
	"github.com/tandemgw/tandem/internal/platform/secret"
	"github.com/tandemgw/tandem/internal/sim/ca"
	"github.com/tandemgw/tandem/internal/sim/microsoft"
	"github.com/tandemgw/tandem/internal/sim/pwsh"
)

// TestMain makes the test the simulated PowerShell, if it was started as that.
func TestMain(m *testing.M) {
	pwsh.Child()
	os.Exit(m.Run())
}

const clientID = "aaaaaaaa-0000-4000-8000-000000000001"

// bed is a worker with simulated PowerShell, in a simulated cloud.
type bed struct {
	t       *testing.T
	dir     string // of the simulated PowerShell
	cloud   *microsoft.Cloud
	tenants []*microsoft.Tenant
	app     *entra.App
	worker  *powershell.Worker
	metrics *prometheus.Registry
	stop    func() // ends Run and waits for it

	mu    sync.Mutex // guards what follows
	log   bytes.Buffer
	wrong []string // what WrongTenant was called with
}

// newBed returns a bed with tenants. change, which may be nil, changes the settings.
func newBed(t *testing.T, tenants int, change func(*powershell.Config, *pwsh.Config)) *bed {
	t.Helper()
	authority, err := ca.New("test")
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{t: t, dir: t.TempDir(), metrics: prometheus.NewRegistry()}
	if b.cloud, err = microsoft.New(microsoft.Config{Authority: authority}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.cloud.Close() })
	for i := range tenants {
		b.tenants = append(b.tenants, b.cloud.AddTenant(microsoft.Spec{Name: "customer" + string(rune('a'+i)),
			Users: 3, Foreign: 1, Seed: uint64(i + 1)}))
	}
	b.cloud.Register(microsoft.App{ID: clientID, Name: "Tandem", Home: b.tenants[0].ID, MultiTenant: true,
		Application: []string{"Organization.Read.All"}, Secrets: []microsoft.Secret{{Value: "secret"}}})
	for _, tenant := range b.tenants {
		tenant.Consent(clientID, []string{"Organization.Read.All"}, nil)
		tenant.Edit(func(s *microsoft.State) {
			for _, p := range s.Principals {
				if p.App == clientID {
					s.Assign(p.ID, "Teams Administrator")
				}
			}
		})
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority.Pool()}}
	t.Cleanup(transport.CloseIdleConnections)
	b.app, err = entra.New(entra.Config{Authority: b.cloud.URL(microsoft.Login), ClientID: clientID,
		Secret: secret.New("secret"), Transport: transport})
	if err != nil {
		t.Fatal(err)
	}

	cfg, sim := powershell.Default(), pwsh.Config{URL: b.cloud.URL(microsoft.Teams), Roots: authority.PEM()}
	if change != nil {
		change(&cfg, &sim)
	}
	command, err := pwsh.Install(b.dir, sim)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Command == "pwsh" {
		cfg.Command = command
	}
	b.worker = powershell.New(cfg, powershell.Options{Metrics: b.metrics,
		Log: slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug})),
		WrongTenant: func(tenant, reached string) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.wrong = append(b.wrong, tenant, reached)
		}})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := b.worker.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	b.stop = func() { cancel(); running.Wait() }
	t.Cleanup(b.stop)
	return b
}

// Write implements io.Writer for the log.
func (b *bed) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log.Write(p)
}

func (b *bed) logged() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log.String()
}

// signIn signs in to a tenant as the application.
func (b *bed) signIn(tenant int) powershell.SignIn {
	c := b.app.Connect(b.tenants[tenant].ID, nil, time.Time{})
	return powershell.SignIn{Graph: c.Source("https://graph.microsoft.com"), Teams: c.Source(entra.TeamsAdmin)}
}

func (b *bed) admin(tenant int) *powershell.Admin {
	return b.worker.Admin(b.tenants[tenant].ID, b.signIn(tenant))
}

func (b *bed) arm(faults ...pwsh.Fault) {
	b.t.Helper()
	if err := pwsh.Arm(b.dir, faults...); err != nil {
		b.t.Fatal(err)
	}
}

// cmdlets returns the cmdlets that children got.
func (b *bed) cmdlets() (names []string) {
	b.t.Helper()
	for _, r := range b.seen() {
		names = append(names, r.Cmdlet)
	}
	return names
}

type request struct {
	Cmdlet     string
	Parameters map[string]any
}

func (b *bed) seen() (all []request) {
	b.t.Helper()
	lines, err := pwsh.Seen(b.dir)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, line := range lines {
		var r request
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			b.t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// children returns the metric of that name.
func (b *bed) children() float64 {
	b.t.Helper()
	families, err := b.metrics.Gather()
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "tandem_tenant_powershell_children" {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	b.t.Fatal("no metric of children")
	return 0
}

// eventually waits for a condition.
func (b *bed) eventually(what string, ok func() bool) {
	b.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			b.t.Fatalf("never: %s; log:\n%s", what, b.logged())
		}
	}
}

var dialPlan = teamsadmin.Object{Type: teamsadmin.DialPlan, Identity: "Tandem", Settings: teamsadmin.Settings{
	"NormalizationRules": []any{map[string]any{"Name": "all", "Pattern": `^(\d+)$`, "Translation": "+$1"}}}}

// exists reports whether a tenant has the dial plan.
func (b *bed) exists(tenant int) (yes bool) {
	b.tenants[tenant].Edit(func(s *microsoft.State) { yes = s.Configurations["TenantDialPlan"]["tandem"] != nil })
	return yes
}

// want fails the test unless err is a fault of this kind and code, whose message has the text.
func want(t *testing.T, what string, err error, kind fault.Kind, code, text string) {
	t.Helper()
	f := fault.As(err)
	if f == nil || f.Kind != kind || f.Code != code || !strings.Contains(f.Message, text) {
		t.Errorf("%s: %v; want %s %s with %q", what, err, kind, code, text)
	}
}
