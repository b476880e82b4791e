package teamsadmin_test

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/entra"
	"github.com/tandemgw/tandem/internal/outside/teamsadmin"
	"github.com/tandemgw/tandem/internal/outside/teamsadmin/powershell"
	"github.com/tandemgw/tandem/internal/platform/secret"
	"github.com/tandemgw/tandem/internal/sim/ca"
	"github.com/tandemgw/tandem/internal/sim/microsoft"
	"github.com/tandemgw/tandem/internal/sim/pwsh"
)

const clientID = "aaaaaaaa-0000-4000-8000-000000000001"

type settings = teamsadmin.Settings

// TestMain makes the test the simulated PowerShell, if it was started as that.
func TestMain(m *testing.M) {
	pwsh.Child()
	os.Exit(m.Run())
}

// bed is a simulated cloud, and what administers Teams in a tenant of it, as the application.
type bed struct {
	t          *testing.T
	authority  *ca.Authority
	cloud      *microsoft.Cloud
	tenant     *microsoft.Tenant
	connection *entra.Connection
	client     teamsadmin.Admin

	mu    sync.Mutex // guards what follows
	seen  []microsoft.Exchange
	after func(microsoft.Exchange) // called after each request to the Teams service
}

func newBed(t *testing.T) *bed {
	t.Helper()
	authority, err := ca.New("test")
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{t: t, authority: authority}
	b.cloud, err = microsoft.New(microsoft.Config{Authority: authority, Observe: b.observe})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.cloud.Close(); err != nil {
			t.Error(err)
		}
	})

	b.tenant = b.cloud.AddTenant(microsoft.Spec{Name: "contoso", Users: 10, Foreign: 3, Seed: 1})
	b.cloud.Register(microsoft.App{ID: clientID, Name: "Tandem", Home: b.tenant.ID, MultiTenant: true,
		Application: []string{"Organization.Read.All"}, Secrets: []microsoft.Secret{{Value: "secret"}}})
	b.tenant.Consent(clientID, []string{"Organization.Read.All"}, nil)
	b.role("Teams Administrator")

	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority.Pool()}}
	t.Cleanup(transport.CloseIdleConnections)
	app, err := entra.New(entra.Config{Authority: b.cloud.URL(microsoft.Login), ClientID: clientID,
		Secret: secret.New("secret"), Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	b.connection = app.Connect(b.tenant.ID, nil, time.Time{})
	b.client, err = teamsadmin.New(teamsadmin.Config{Enabled: true, BaseURL: b.cloud.URL(microsoft.Teams),
		Tokens:    b.connection.Source(entra.TeamsAdmin),
		UserAgent: "Tandem/test", Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// eachAdmin runs the conformance suite of Admin with the HTTPS client, and with the PowerShell worker.
func eachAdmin(t *testing.T, test func(*testing.T, *bed)) {
	t.Run("https", func(t *testing.T) {
		t.Parallel()
		test(t, newBed(t))
	})
	for name, unroll := range map[string]bool{"powershell": false, "powershell that unrolls lists": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			b.client = b.worker(unroll)
			test(t, b)
		})
	}
}

// worker returns the administration of the bed's tenant by PowerShell.
func (b *bed) worker(unroll bool) teamsadmin.Admin {
	command, err := pwsh.Install(b.t.TempDir(), pwsh.Config{URL: b.cloud.URL(microsoft.Teams), Roots: b.authority.PEM(),
		Unroll: unroll})
	if err != nil {
		b.t.Fatal(err)
	}
	cfg := powershell.Default()
	cfg.Command = command
	w := powershell.New(cfg, powershell.Options{Log: slog.New(slog.NewTextHandler(b.t.Output(), nil))})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := w.Run(ctx); err != nil {
			b.t.Error(err)
		}
	})
	b.t.Cleanup(func() { cancel(); running.Wait() })
	return w.Admin(b.tenant.ID, powershell.SignIn{Graph: b.connection.Source("https://graph.microsoft.com"),
		Teams: b.connection.Source(entra.TeamsAdmin)})
}

// role gives the application its one role; "" for none.
func (b *bed) role(name string) {
	b.tenant.Edit(func(s *microsoft.State) {
		s.Roles = s.Roles[:1] // the administrator's
		for _, p := range s.Principals {
			if p.App == clientID && name != "" {
				s.Assign(p.ID, name)
			}
		}
	})
}

func (b *bed) observe(e microsoft.Exchange) {
	if e.Service != microsoft.Teams {
		return
	}
	b.mu.Lock()
	b.seen = append(b.seen, e)
	after := b.after
	b.mu.Unlock()
	if after != nil {
		after(e)
	}
}

// sent returns the changes that arrived since the last call, as "METHOD path status".
func (b *bed) sent() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var l []string
	for _, e := range b.seen {
		if e.Request.Method != http.MethodGet {
			path := e.Request.URL.Path
			l = append(l, fmt.Sprint(e.Request.Method, " ", path[strings.LastIndex(path, "/")+1:], " ", e.Status))
		}
	}
	b.seen = nil
	return strings.Join(l, ", ")
}

// object creates an object, which must succeed.
func (b *bed) object(t teamsadmin.Type, identity string, s settings) {
	b.t.Helper()
	if err := b.client.Create(b.t.Context(), teamsadmin.Object{Type: t, Identity: identity, Settings: s}); err != nil {
		b.t.Fatalf("Create %s %s: %v", t, identity, err)
	}
}

// must fails the test unless err is nil.
func (b *bed) must(what string, err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
}

// want fails the test unless err is a fault of this kind and code, whose message has the text, with a correlation id
// in its cause.
func want(t *testing.T, what string, err error, kind fault.Kind, code, text string) {
	t.Helper()
	f := fault.As(err)
	if f == nil {
		t.Fatalf("%s succeeded, want %s", what, code)
	}
	if f.Kind != kind || f.Code != cmp.Or(code, f.Code) || !strings.Contains(f.Message, text) {
		t.Errorf("%s: %s %s: %s; want %s %s with %q", what, f.Kind, f.Code, f.Message, kind, code, text)
	}
	if e, ok := errors.AsType[*teamsadmin.Error](err); ok && e.ClientRequestID == "" {
		t.Errorf("%s: %+v has no correlation id", what, e)
	}
}
