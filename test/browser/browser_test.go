//go:build deep

package browser_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/front"
	"github.com/tandemgw/tandem/internal/manage"
	"github.com/tandemgw/tandem/internal/outside/entra"
	"github.com/tandemgw/tandem/internal/outside/graph"
	"github.com/tandemgw/tandem/internal/platform/auth"
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
	"github.com/tandemgw/tandem/test/rig"
)

const (
	clientID    = "aaaaaaaa-0000-4000-8000-000000000001"
	host        = "onboard.gw.example.com"
	serviceUser = "tandem.service@contoso.onmicrosoft.com"
)

// shown is what other jobs show on the pages.
type shown struct {
	mu   sync.Mutex
	work invite.Work
}

func (s *shown) Work(context.Context, string) (*invite.Work, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.work
	return &w, nil
}

func (s *shown) set(change func(*invite.Work)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.work)
}

func (s *shown) Findings(context.Context, string) ([]invite.Finding, error) {
	return []invite.Finding{
		{Group: "Authorisation", Title: "Application permissions", Result: invite.Pass, Reason: "all 11 are granted"},
		{Group: "Authorisation", Title: "Delegated permissions", Result: invite.Pass, Reason: "all 3 are granted"},
		{Group: "Licences", Title: "A licence for the technical user", Result: invite.Warn, Reason: "5 seats of " +
			"MCOSTANDARD, all in the grace period of an expired subscription", Remedy: "renew the subscription"},
		{Group: "Names", Title: "DNS of contoso.1r1.gw.example.com", Result: invite.Fail,
			Reason: "ns2.example.net at " +
				"2001:db8:85a3:1234:5678:9abc:def0:1234 does not answer",
			Remedy: "your operator repairs its name server"},
	}, nil
}

// serve serves the pages of a service over TLS, and returns its port.
func serve(t *testing.T, authority *ca.Authority, s *invite.Service) string {
	sources, _ := (&auth.SourcesConfig{}).Parse()
	handler := front.New(front.Config{BaseDomain: "gw.example.com", Sources: sources,
		Log:      slog.New(slog.DiscardHandler),
		Sites:    []front.Site{{Host: "onboard", Serve: s.Serve, MaxBody: invite.MaxBody}},
		Limiter:  auth.NewSourceLimiter(10_000),
		State:    func() front.State { return front.State{} },
		Problems: manage.Problems, Metrics: prometheus.NewRegistry()})
	cert, err := authority.Issue(ca.ServerOnly, host)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }() // until Close
	t.Cleanup(func() { _ = server.Close() })
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	return port
}

// TestPagesOfAnInvitation walks all pages as the administrator of a simulated tenant, at both sizes. Set TANDEM_SHOTS
// to a directory to keep the pictures.
func TestPagesOfAnInvitation(t *testing.T) {
	dir := rig.NodeProject(t, ".")
	shots := os.Getenv("TANDEM_SHOTS")
	if shots == "" {
		shots = t.TempDir()
	}
	for _, size := range []string{"1280x900", "390x844"} {
		t.Run(size, func(t *testing.T) { walk(t, dir, size, shots) })
	}
}

func walk(t *testing.T, dir, size, shots string) {
	authority, err := ca.New("test")
	if err != nil {
		t.Fatal(err)
	}
	cloud, err := microsoft.New(microsoft.Config{Authority: authority})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cloud.Close() })
	customer := cloud.AddTenant(microsoft.Spec{Name: "contoso", Users: 2, Seed: 2})
	customer.Set(func(s *microsoft.Settings) { s.ConsentRefusals = 1 })
	customer.Edit(func(s *microsoft.State) {
		s.Assign(s.AddUser(&microsoft.User{UPN: serviceUser, DisplayName: "Tandem"}).ID, "Teams Administrator")
	})
	app := microsoft.App{ID: clientID, Name: "Example Telecom",
		Home:        cloud.AddTenant(microsoft.Spec{Name: "operator"}).ID,
		MultiTenant: true, RedirectURIs: []string{"https://" + host + "/callback"},
		Secrets: []microsoft.Secret{{Value: "secret"}}}
	for _, p := range permission.All() {
		if p.Kind == permission.Application {
			app.Application = append(app.Application, p.Name)
		} else {
			app.Delegated = append(app.Delegated, p.Name)
		}
	}
	cloud.Register(app)

	s, access, view := service(t, cloud, authority)
	port := serve(t, authority, s)
	link := invitation(t, s, "contoso")
	expired := invitation(t, s, "late")
	err = access.Update(t.Context(), nil, func(ctx context.Context, tx invite.Tx) error {
		i, err := tx.Invitation(ctx, "late")
		if err != nil {
			return err
		}
		i.Expires = time.Now().Add(-time.Hour)
		return tx.SetInvitation(ctx, i)
	})
	if err != nil {
		t.Fatal(err)
	}

	node := exec.CommandContext(t.Context(), "node", "walk.mjs")
	node.Dir = dir
	node.Env = append(os.Environ(), "ORIGIN=https://"+host, "PORT="+port, "LINK="+link, "EXPIRED="+expired,
		"ADMIN="+customer.Admin, "SERVICE="+serviceUser, "NOBODY=user000001@"+customer.Initial,
		"PASSWORD="+microsoft.Password, "OTC="+microsoft.OTC, "SIZE="+size, "SHOTS="+shots)
	var errs strings.Builder
	node.Stderr = &errs
	stdin, err := node.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := node.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	needs := map[string]func(){
		"done": func() { view.set(func(w *invite.Work) { w.Done = true }) },
		"lost": func() {
			customer.Revoke(serviceUser)
			aged(t, access)
			if err := s.Check(t.Context(), "contoso"); err == nil {
				t.Error("a revoked sign-in works")
			}
			cloud.Advance(time.Second)
		},
		"left": func() { view.set(func(w *invite.Work) { *w = invite.Work{Left: true} }) },
	}
	var names []string
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		var p struct {
			Name, Title, Text, URL, Need, Complaint string
			Wide                                    bool
			Scripts, Small                          int
		}
		if err := json.Unmarshal(lines.Bytes(), &p); err != nil {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		switch {
		case p.Complaint != "":
			t.Errorf("the browser complains: %s", p.Complaint)
			continue
		case p.Need != "":
			needs[p.Need]()
			_, _ = fmt.Fprintln(stdin, "done") // node says what is wrong
			continue
		}
		names = append(names, p.Name)
		if want := titles[p.Name]; p.Title != want || p.Wide || p.Scripts > 0 || p.Small > 0 {
			t.Errorf("page %s at %s: title %q, want %q; wider than the screen: %v; scripts: %d; small buttons: %d",
				p.Name,
				p.URL, p.Title, want, p.Wide, p.Scripts, p.Small)
		}
	}
	if err := node.Wait(); err != nil || len(names) != len(titles) {
		t.Errorf("%d of %d pages, the last %v; %v: %s", len(names), len(titles), slices.MaxFunc(names,
			func(string, string) int { return -1 }), err, errs.String())
	}
}

// titles are those of the pages, by their name in walk.mjs.
var titles = map[string]string{
	"no-visit":      "Open your link again",
	"expired":       "This link has expired",
	"ask":           "Authorise telephony from Example Telecom",
	"declined":      "You did not accept",
	"wait":          "Microsoft is distributing your authorisation",
	"confirm":       "Confirm your organisation",
	"readiness":     "Check before the integration",
	"other-browser": "Confirm your organisation",
	"forged":        "This page belongs to another visit",
	"role-missing":  "A role is missing",
	"progress":      "Connected",
	"done":          "Everything is in place",
	"lost":          "A new sign-in is needed",
	"left":          "Disconnected",
}

// service returns the service with a simulated cloud.
func service(t *testing.T, cloud *microsoft.Cloud, authority *ca.Authority) (*invite.Service, store.Access, *shown) {
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
	log := slog.New(slog.DiscardHandler)
	work := flow.New(d, func(context.Context, *db.Tx, flow.Item) error { return nil }, log, nil)
	access := store.Access{Store: store.New(d, ring, work, nil)}
	login := &tenant.Login{ClientID: clientID, Connector: &tenant.Connector{App: client, Transport: transport,
		Graph: cloud.URL(microsoft.Graph) + "/v1.0", Budget: graph.NewBudget(), UserAgent: "Tandem/test"},
		Tokens: func(account string) entra.Store { return access.Tokens(account) }}
	view := &shown{work: invite.Work{Tasks: []invite.Task{
		{Title: "Add contoso.1r1.gw.example.com", State: "done"},
		{Title: "Verify contoso.1r1.gw.example.com", State: "waiting", Detail: "for Microsoft since 4 minutes; this " +
			"usually takes 5 minutes, sometimes an hour"},
		{Title: "Create the technical user", State: "running"},
		{Title: "Create the call route Tandem-E164", State: "planned"}}}}
	s := (&invite.Service{Store: access, Login: login, Inspector: login, Readiness: view, Progress: view, Log: log,
		Operator: "Example Telecom", URL: "https://" + host,
		Accounts: func(context.Context, string) error { return nil }}).Start(prometheus.NewRegistry())
	return s, access, view
}

func invitation(t *testing.T, s *invite.Service, account string) string {
	t.Helper()
	r, err := s.CreateInvitation(t.Context(), api.CreateInvitationRequestObject{Account: account,
		Body: &api.InvitationRequest{}})
	if err != nil {
		t.Fatal(err)
	}
	return r.(api.CreateInvitation201JSONResponse).URL
}

// aged makes the last check an old one.
func aged(t *testing.T, access store.Access) {
	t.Helper()
	err := access.Update(t.Context(), nil, func(ctx context.Context, tx invite.Tx) error {
		a, err := tx.Access(ctx, "contoso")
		if err != nil {
			return err
		}
		a.Checked = a.Checked.Add(-time.Hour)
		return tx.SetAccess(ctx, a, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
}
