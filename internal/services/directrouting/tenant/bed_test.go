package tenant_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/entra"
	"github.com/tandemgw/tandem/internal/outside/graph"
	"github.com/tandemgw/tandem/internal/outside/teamsadmin"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/platform/secret"
	"github.com/tandemgw/tandem/internal/services/directrouting/tenant"
	"github.com/tandemgw/tandem/internal/sim/ca"
	"github.com/tandemgw/tandem/internal/sim/microsoft"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
)

const (
	clientID  = "aaaaaaaa-0000-4000-8000-000000000001"
	graphName = "https://graph.microsoft.com"
	callback  = "https://tandem.example/callback"
)

var regions = []string{"1r1.gw.example", "1r2.gw.example"}

var permissions = []string{"Domain.ReadWrite.All", "User.ReadWrite.All", "Organization.Read.All",
	"LicenseAssignment.ReadWrite.All", "Directory.Read.All", "TeamsTelephoneNumber.ReadWrite.All",
	"TeamsUserConfiguration.Read.All", "TeamsPolicyUserAssign.ReadWrite.All"}

var delegated = []string{"User.ReadWrite.All", "Application.ReadWrite.All", "user_impersonation"}

// bed is a simulated cloud with a customer's tenant, and that tenant as Tandem reaches it: as an application, until
// a person has signed in. The cloud runs in real time; what uses it may run in a bubble of testing/synctest, with which
// the cloud's clock keeps up.
type bed struct {
	t         *testing.T
	cloud     *microsoft.Cloud
	tenant    *microsoft.Tenant
	authority *ca.Authority
	real      *http.Transport
	signedIn  *tokens
	reach     *tenant.Cloud

	turn sync.Mutex // guards what follows
	work chan func()
	done chan struct{}
	last time.Time // in the bubble

	mu      sync.Mutex        // guards what follows
	records map[string]string // TXT texts by name
	deaf    int               // attempts to publish that name servers do not notice

	// Requests are disturbed at one of them.
	requests, at int
	how          string
	hits         func(path, body string) bool // also disturbs the first of these
	killed       bool
}

func newBed(t *testing.T) *bed {
	t.Helper()
	return newBedOf(t, microsoft.Spec{Users: 10, Foreign: 3, Seed: 1})
}

// newBedOf returns a bed with such a tenant, whose name is contoso.
func newBedOf(t *testing.T, spec microsoft.Spec) *bed {
	t.Helper()
	spec.Name = "contoso"
	authority, err := ca.New("test")
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{t: t, authority: authority, records: map[string]string{}, work: make(chan func()),
		done: make(chan struct{})}
	b.cloud, err = microsoft.New(microsoft.Config{Authority: authority, DNS: b.nameserver()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.cloud.Close() })
	b.tenant = b.cloud.AddTenant(spec)
	b.cloud.Register(microsoft.App{ID: clientID, Name: "Tandem", Home: b.tenant.ID, MultiTenant: true,
		Application: permissions, Delegated: delegated, RedirectURIs: []string{callback},
		Secrets: []microsoft.Secret{{Value: "secret"}}})
	b.tenant.Consent(clientID, permissions, delegated)
	b.tenant.Edit(func(s *microsoft.State) {
		for _, p := range s.Principals {
			if p.App == clientID {
				s.Assign(p.ID, "Teams Administrator")
			}
		}
	})

	operator := b.cloud.AddTenant(microsoft.Spec{Name: "operator", Seed: 2})
	operator.Edit(func(s *microsoft.State) { // its trunks, from which those of customers are derived
		for _, name := range regions {
			s.Configurations["OnlinePSTNGateway"][name] = map[string]any{"Identity": name}
		}
	})

	b.real = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority.Pool()}}
	t.Cleanup(b.real.CloseIdleConnections)
	go func() {
		for f := range b.work {
			f()
			b.done <- struct{}{}
		}
	}()
	t.Cleanup(func() { close(b.work) })
	b.connect(b.real)
	return b
}

// outside runs f outside of the bubble, after the cloud's clock has caught up with it.
func (b *bed) outside(f func()) {
	b.turn.Lock()
	defer b.turn.Unlock()
	now := time.Now()
	elapsed := now.Sub(b.last)
	if b.last.IsZero() {
		elapsed = 0
	}
	b.last = now
	b.work <- func() {
		b.cloud.Advance(elapsed)
		f()
	}
	<-b.done
}

func (b *bed) edit(f func(*microsoft.State)) { b.outside(func() { b.tenant.Edit(f) }) }

func (b *bed) dump() (text string) {
	b.outside(func() { text = string(b.tenant.Dump()) })
	return text
}

var (
	errKilled = errors.New("the process has ended")
	errBroken = errors.New("the connection broke")
)

// RoundTrip implements http.RoundTripper, from inside the bubble. It disturbs one request.
func (b *bed) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body) // of a buffer
	}
	b.requests++
	hit := b.requests == b.at
	if b.hits != nil && b.hits(r.URL.Path, string(body)) {
		hit, b.hits = true, nil
	}
	if b.killed = b.killed || hit && b.how == "kill before"; b.killed {
		return nil, errKilled
	}
	if hit && b.how == "timeout before" {
		return nil, errBroken
	}

	var resp *http.Response
	var answer []byte
	var err error
	b.outside(func() {
		if f, ok := faults[b.how]; ok && hit {
			b.cloud.Inject(f)
		}
		var req *http.Request
		if req, err = http.NewRequest(r.Method, r.URL.String(), bytes.NewReader(body)); err != nil {
			return
		}
		req.Header = r.Header.Clone()
		if resp, err = b.real.RoundTrip(req); err != nil {
			return
		}
		answer, err = io.ReadAll(resp.Body)
		_ = resp.Body.Close() // it has been read
	})
	switch b.killed = hit && b.how == "kill after"; {
	case b.killed:
		return nil, errKilled
	case err != nil:
		return nil, err
	case hit && b.how == "timeout after":
		return nil, errBroken
	}
	return &http.Response{StatusCode: resp.StatusCode, Header: resp.Header, Request: r, ProtoMajor: 1, ProtoMinor: 1,
		ContentLength: int64(len(answer)), Body: io.NopCloser(bytes.NewReader(answer))}, nil
}

// faults are those of the cloud, once.
var faults = map[string]microsoft.Fault{
	"429":     {Kind: microsoft.Refuse, Status: 429, Times: 1},
	"500":     {Kind: microsoft.Refuse, Status: 500, Times: 1},
	"expired": {Kind: microsoft.Expired, Times: 1},
}

func (b *bed) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) app(transport http.RoundTripper) *entra.App {
	app, err := entra.New(entra.Config{Authority: b.cloud.URL(microsoft.Login), ClientID: clientID,
		Secret: secret.New("secret"), Transport: transport})
	b.must(err)
	return app
}

// tokens is a store of a sign-in.
type tokens struct{ refresh secret.Text }

func (s *tokens) RefreshToken(context.Context) (secret.Text, error) { return s.refresh, nil }

func (s *tokens) KeepRefreshToken(_ context.Context, t secret.Text) error { s.refresh = t; return nil }

// signIn signs the administrator in. It is not called in a bubble.
func (b *bed) signIn() {
	app := b.app(b.real)
	s := entra.NewSignIn(b.tenant.ID, callback, graphName+"/.default")
	to, err := b.cloud.Walk(b.t.Context(), app.AuthoriseURL(s), b.tenant.Admin, nil)
	b.must(err)
	g, err := app.Redeem(b.t.Context(), s, to.Query())
	b.must(err)
	b.signedIn = &tokens{g.RefreshToken}
}

// connect reaches the tenant, as the person who has signed in, if one has.
func (b *bed) connect(transport http.RoundTripper) {
	app := b.app(transport)
	client := func(c *entra.Connection) *graph.Client {
		g, err := graph.New(graph.Config{BaseURL: b.cloud.URL(microsoft.Graph) + "/v1.0", Tenant: b.tenant.ID,
			Tokens: c.Source(graphName), Budget: graph.NewBudget(), UserAgent: "Tandem/test", Transport: transport})
		b.must(err)
		return g
	}
	application := app.Connect(b.tenant.ID, nil, time.Time{})
	b.reach = &tenant.Cloud{Graph: client(application), AppID: clientID, Prove: b.prove}
	teams := application
	if b.signedIn != nil {
		teams = app.Connect(b.tenant.ID, b.signedIn, time.Time{})
		b.reach.Delegated = client(teams)
	}
	admin, err := teamsadmin.New(teamsadmin.Config{Enabled: true, BaseURL: b.cloud.URL(microsoft.Teams),
		Tokens: teams.Source(entra.TeamsAdmin), UserAgent: "Tandem/test", Transport: transport})
	b.must(err)
	b.reach.Teams = admin
}

// prove implements tenant.Cloud.Prove.
func (b *bed) prove(_ context.Context, domain, text string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.deaf > 0 {
		b.deaf--
		return fault.New(fault.Unavailable, onboard.CodeNotPublished, "ns2.gw.example does not answer the record of "+
			"%s yet", domain)
	}
	b.records[dns.CanonicalName(domain)] = text
	return nil
}

// nameserver answers TXT questions from records.
func (b *bed) nameserver() string {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	b.must(err)
	up := make(chan struct{})
	s := &dns.Server{PacketConn: conn, NotifyStartedFunc: func() { close(up) },
		Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
			r := new(dns.Msg).SetReply(q)
			b.mu.Lock()
			text, ok := b.records[dns.CanonicalName(q.Question[0].Name)]
			b.mu.Unlock()
			if ok && q.Question[0].Qtype == dns.TypeTXT {
				r.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT,
					Class: dns.ClassINET, Ttl: 1}, Txt: []string{text}}}
			}
			_ = w.WriteMsg(r)
		})}
	go func() { _ = s.ActivateAndServe() }()
	<-up
	b.t.Cleanup(func() { _ = s.Shutdown() })
	return conn.LocalAddr().String()
}

func (b *bed) settings(trunk plan.Trunk) *plan.Settings {
	return &plan.Settings{Prefix: "Tandem-E164", Port: 5061, Licence: "MCOSTANDARD",
		Labels: []plan.Label{{Name: "contoso", Trunk: trunk}}, Regions: regions,
		Rules:     []plan.Rule{{Name: "national", Pattern: `^0(\d+)$`, Translation: "+44$1"}},
		Emergency: []plan.EmergencyNumber{{DialString: "112", Mask: "999"}}}
}

// memory is a store of one tenant.
type memory struct {
	onboard.Store // the rest, which is not called
	onboard.Tx

	bed    *bed // nil, or its process ends
	tenant onboard.Tenant
	ledger map[plan.Ref]plan.Made
}

func (b *bed) memory() *memory { return &memory{bed: b, ledger: map[plan.Ref]plan.Made{}} }

func (m *memory) View(ctx context.Context, _ string, fn func(context.Context, onboard.Tx) error) error {
	if m.bed != nil && m.bed.killed {
		return errKilled
	}
	return fn(ctx, m)
}

func (m *memory) Update(ctx context.Context, _ *flow.Run, account, _ string,
	fn func(context.Context, onboard.Tx) error) error {
	return m.View(ctx, account, fn)
}

func (m *memory) Tenant(context.Context) (*onboard.Tenant, error) { c := m.tenant; return &c, nil }

func (m *memory) SetTenant(_ context.Context, n *onboard.Tenant) error { m.tenant = *n; return nil }

func (m *memory) Event(context.Context, string, string, map[string]any) error { return nil }

func (m *memory) SetTarget(context.Context, string, []plan.Object) error { return nil }

func (m *memory) Ledger(context.Context) (plan.Ledger, error) {
	return plan.NewLedger(slices.Collect(maps.Values(m.ledger))), nil
}

func (m *memory) Record(_ context.Context, entries ...plan.Made) error {
	for _, e := range entries {
		m.ledger[e.Ref] = e
	}
	return nil
}

func (m *memory) Forget(_ context.Context, refs ...plan.Ref) error {
	for _, r := range refs {
		maps.DeleteFunc(m.ledger, func(k plan.Ref, _ plan.Made) bool {
			return k.Type == r.Type && strings.EqualFold(k.Name, r.Name)
		})
	}
	return nil
}

// run runs once.
func (b *bed) run(m *memory) (flow.Result, error) {
	o := &onboard.Onboarder{Store: m,
		Clouds: func(context.Context, *onboard.Tenant) (onboard.Cloud, error) { return b.reach, nil }}
	return o.Reconcile(b.t.Context(), &flow.Run{Key: flow.Key{Kind: onboard.Kind, ID: "contoso"}})
}

// bubble runs f in a bubble, from which the tenant is reached.
func (b *bed) bubble(f func()) {
	outer := b.t
	defer func() { b.t = outer }()
	synctest.Test(outer, func(t *testing.T) {
		b.t = t
		b.connect(b)
		f()
	})
}

// join runs, in a bubble, until the tenant has the target: when a run asks for it, a while after a failure, after the
// end of the process, and after a person has read what is to be done. It returns what was waited for, once each.
func (b *bed) join(m *memory, target []plan.Object) (waits []string) {
	b.t.Helper()
	for !b.attempt(m, target, &waits) {
		if len(waits) > 100 {
			b.t.Fatalf("not done: %v", waits)
		}
		target = m.tenant.Target
	}
	return waits
}

// attempt runs until the tenant has the target, which it reports, or a person is asked for something.
func (b *bed) attempt(m *memory, target []plan.Object, waits *[]string) bool {
	b.t.Helper()
	m.tenant = onboard.Tenant{Account: "contoso", ID: b.tenant.ID, Target: target, Pending: true,
		RemoveConsent: m.tenant.RemoveConsent}
	for range 1000 {
		result, err := b.run(m)
		w := m.tenant.Waiting
		switch {
		case b.killed:
			b.killed = false
			b.connect(b) // another process
			continue
		case err != nil:
			*waits = append(*waits, "failure: "+err.Error())
			time.Sleep(10 * time.Second)
			return false
		case !m.tenant.Pending:
			return true
		case w == nil: // the run took too long
			continue
		}
		if s := fmt.Sprintf("%s: %s", w.For, w.Reason); !w.Late && !slices.Contains(*waits, s) {
			*waits = append(*waits, s)
		}
		time.Sleep(max(time.Until(result.Again), 5*time.Second))
		if result.Wait != "" {
			return false
		}
	}
	b.t.Fatalf("not done: %v", *waits)
	return false
}

// target returns what the tenant should have by the settings.
func (b *bed) target(s *plan.Settings) []plan.Object {
	b.t.Helper()
	objects, err := b.reach.Read(b.t.Context(), nil)
	b.must(err)
	return s.Objects(plan.NewState(objects), nil)
}

// same compares two dumps.
func (b *bed) same(what, want, got string) {
	b.t.Helper()
	if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")); diff != "" {
		b.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// purge empties the bin of Tandem's users, as Microsoft does after 30 days.
func (b *bed) purge() {
	b.edit(func(s *microsoft.State) {
		for _, u := range slices.Clone(s.Users) {
			if strings.HasPrefix(u.UPN, "tandem.teams@") && !u.Deleted.IsZero() {
				s.PurgeUser(u)
			}
		}
	})
}
