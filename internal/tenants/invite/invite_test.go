package invite_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/front"
	"github.com/tandemgw/tandem/internal/manage"
	"github.com/tandemgw/tandem/internal/platform/auth"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/platform/secret"
	store "github.com/tandemgw/tandem/internal/store/tenants"
	"github.com/tandemgw/tandem/internal/tenants/invite"
	"github.com/tandemgw/tandem/internal/testkit"
)

const (
	tenantID  = "11111111-0000-4000-8000-000000000001"
	strangeID = "22222222-0000-4000-8000-000000000002"
	teamsRole = "69091246-20e8-4a56-aa4d-066075b2a7a8" // Teams Administrator
	host      = "onboard.gw.example.com"

	// These must not appear anywhere.
	verifier = "VERIFIER-of-PKCE"
	refresh  = "REFRESH-token"
	device   = "DEVICE-code"
)

// microsoft is what the person does at Microsoft, and what Microsoft says.
type microsoft struct {
	mu        sync.Mutex // guards what follows
	person    invite.Person
	redeemed  []*invite.Attempt
	err       error // of the next redemption, or poll
	entered   bool  // the device code
	standing  invite.Standing
	lifetime  time.Duration
	inspected error
}

func (m *microsoft) Begin(_ context.Context, step invite.Step, tenant, redirect, claims string) (*invite.Attempt,
	error) {
	state := rand.Text()
	return &invite.Attempt{Step: step, Tenant: tenant, Redirect: redirect, State: state,
		Secret: secret.New(verifier), URL: "https://login.example/" + string(step) + "?claims=" + claims + "&state=" +
			state}, nil
}

func (m *microsoft) BeginDevice(_ context.Context, tenant string) (*invite.Attempt, error) {
	return &invite.Attempt{Step: invite.Integrate, Tenant: tenant, Secret: secret.New(device), UserCode: "ABC-DEF",
		URL: "https://login.example/device", Interval: 5 * time.Second, Expires: time.Now().Add(time.Minute)}, nil
}

func (m *microsoft) Consented(_ *invite.Attempt, redirect url.Values) (string, error) {
	if redirect.Get("error") != "" {
		return "", fault.New(fault.Conflict, "ConsentDeclined", "the consent was declined [AADSTS65004]")
	}
	return redirect.Get("tenant"), nil
}

func (m *microsoft) Redeem(_ context.Context, a *invite.Attempt, _ url.Values) (*invite.Grant, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.redeemed = append(m.redeemed, a)
	if err := m.err; err != nil {
		m.err = nil
		return nil, err
	}
	return &invite.Grant{Person: m.person, RefreshToken: secret.New(refresh)}, nil
}

func (m *microsoft) Poll(context.Context, *invite.Attempt) (*invite.Grant, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &invite.Grant{Person: m.person, RefreshToken: secret.New(refresh)}, m.entered, m.err
}

func (m *microsoft) Inspect(context.Context, *invite.Access) (*invite.Standing, time.Duration, string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &m.standing, m.lifetime, "", m.inspected
}

type readiness struct {
	findings []invite.Finding
	err      error
}

func (r *readiness) Findings(context.Context, string) ([]invite.Finding, error) {
	return r.findings, r.err
}

type progress struct{ work invite.Work }

func (p *progress) Work(context.Context, string) (*invite.Work, error) { return &p.work, nil }

// bed is the service behind a public front, with one browser.
type bed struct {
	t         *testing.T
	s         *invite.Service
	d         *db.DB
	work      *flow.Queue
	access    store.Access
	microsoft *microsoft
	readiness *readiness
	progress  *progress
	handler   http.Handler
	log       bytes.Buffer
	seen      bytes.Buffer // everything that was answered, but for cookies
	jar       map[string]string
	secrets   []string // that must not be seen
}

func newBed(t *testing.T) *bed {
	t.Helper()
	d := testkit.Open(t, testkit.SQLiteConfig(t))
	ring, err := secret.Ephemeral()
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{t: t, d: d, jar: map[string]string{}, readiness: &readiness{}, progress: &progress{},
		microsoft: &microsoft{person: invite.Person{Tenant: tenantID, ID: "p1", Name: "admin@contoso.example",
			Roles: []string{teamsRole}}, standing: invite.Standing{Roles: []string{teamsRole}}},
		secrets: []string{verifier, refresh, device}}
	log := slog.New(slog.NewTextHandler(&b.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	b.work = flow.New(d, func(context.Context, *db.Tx, flow.Item) error { return nil }, log, nil)
	b.access = store.Access{Store: store.New(d, ring, b.work, nil)}
	b.s = (&invite.Service{Store: b.access, Login: b.microsoft, Inspector: b.microsoft, Readiness: b.readiness,
		Progress: b.progress, Operator: "Example Telecom", URL: "https://" + host, Log: log,
		Accounts: func(_ context.Context, account string) error {
			if account == "nobody" {
				return fault.New(fault.NotFound, "AccountNotFound", "no such account")
			}
			return nil
		}}).Start(prometheus.NewRegistry())
	sources, _ := (&auth.SourcesConfig{}).Parse()
	b.handler = front.New(front.Config{BaseDomain: "gw.example.com", Sources: sources, Log: log,
		Sites:    []front.Site{{Host: "onboard", Serve: b.s.Serve, MaxBody: invite.MaxBody}},
		Limiter:  auth.NewSourceLimiter(100_000),
		State:    func() front.State { return front.State{} },
		Problems: manage.Problems, Metrics: prometheus.NewRegistry()})
	t.Cleanup(b.checkSecrets)
	return b
}

// checkSecrets is the property of every test: no page, log or error has shown a secret.
func (b *bed) checkSecrets() {
	for _, s := range b.secrets {
		for where, text := range map[string]string{"a page": b.seen.String(), "the log": b.log.String()} {
			if strings.Contains(text, s) {
				b.t.Errorf("%s shows the secret %s", where, s)
			}
		}
	}
}

// page is an answer.
type page struct {
	b      *bed
	status int
	text   string // without tags
	source string
	header http.Header
}

// request sends what the browser sends, and follows redirects on the host.
func (b *bed) request(method, target string, form url.Values) *page {
	b.t.Helper()
	for range 5 {
		r := httptest.NewRequestWithContext(b.t.Context(), method, target, strings.NewReader(form.Encode()))
		r.Host, r.TLS = host, &tls.ConnectionState{}
		r.Header.Set("Accept", "text/html")
		if method == "POST" {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		for name, value := range b.jar {
			r.AddCookie(&http.Cookie{Name: name, Value: value})
		}
		w := httptest.NewRecorder()
		b.handler.ServeHTTP(w, r)
		res := w.Result()
		for _, c := range res.Cookies() {
			if !strings.HasPrefix(c.Name, "__Host-") || !c.Secure || !c.HttpOnly ||
				c.SameSite != http.SameSiteLaxMode ||
				c.Path != "/" || c.Domain != "" {
				b.t.Errorf("cookie %v; want __Host-, Secure, HttpOnly, SameSite=Lax, Path=/", c)
			}
			b.jar[c.Name] = c.Value
			b.secrets = append(b.secrets, c.Value)
		}
		body, _ := io.ReadAll(res.Body)
		b.seen.Write(body)
		b.seen.WriteString(res.Header.Get("Location"))
		if res.StatusCode != http.StatusSeeOther {
			return b.newPage(res.StatusCode, string(body), res.Header)
		}
		method, target, form = "GET", res.Header.Get("Location"), nil
	}
	b.t.Fatal("redirected forever")
	return nil
}

var (
	tags   = regexp.MustCompile(`(?s)<style.*?</style>|<[^>]*>`)
	spaces = regexp.MustCompile(`\s+`)
)

func (b *bed) newPage(status int, source string, header http.Header) *page {
	text := spaces.ReplaceAllString(html.UnescapeString(tags.ReplaceAllString(source, " ")), " ")
	if strings.Contains(source, "<script") || !strings.Contains(source, "</html>") {
		b.t.Errorf("not a page without scripts: %s", source)
	}
	if header.Get("Content-Security-Policy") == "" || header.Get("Cache-Control") != "no-store" {
		b.t.Errorf("headers %v; want the front's policy, no-store", header)
	}
	return &page{b, status, text, source, header}
}

// says checks the status and texts of a page.
func (p *page) says(status int, texts ...string) *page {
	p.b.t.Helper()
	if p.status != status {
		p.b.t.Fatalf("status %d, want %d: %s", p.status, status, p.text)
	}
	for _, text := range texts {
		if !strings.Contains(p.text, text) {
			p.b.t.Fatalf("the page does not say %q: %s", text, p.text)
		}
	}
	return p
}

var csrf = regexp.MustCompile(`name="csrf" value="([^"]+)"`)

// press posts the form of the page with that action.
func (p *page) press(action string) *page {
	p.b.t.Helper()
	if !strings.Contains(p.source, `action="`+action+`"`) {
		p.b.t.Fatalf("the page has no button for %s: %s", action, p.text)
	}
	return p.b.request("POST", action, url.Values{"csrf": {csrf.FindStringSubmatch(p.source)[1]}})
}

var leads = regexp.MustCompile(`content="0;url=([^"]+)"`)

// state returns the state of the trip to Microsoft that the page leads to.
func (p *page) state(step invite.Step) string {
	p.b.t.Helper()
	m := leads.FindStringSubmatch(p.source)
	if m == nil {
		p.b.t.Fatalf("the page leads nowhere: %s", p.text)
	}
	u, err := url.Parse(html.UnescapeString(m[1]))
	if err != nil || u.Path != "/"+string(step) {
		p.b.t.Fatalf("the page leads to %s (%v), want the step %s", m[1], err, step)
	}
	return u.Query().Get("state")
}

func (b *bed) callback(q ...string) *page {
	b.t.Helper()
	v := url.Values{}
	for i := 0; i < len(q); i += 2 {
		v.Set(q[i], q[i+1])
	}
	return b.request("GET", "/callback?"+v.Encode(), nil)
}

// invite makes a link and returns its path.
func (b *bed) invite(request api.InvitationRequest) string {
	b.t.Helper()
	r, err := b.s.CreateInvitation(b.t.Context(), api.CreateInvitationRequestObject{Account: "contoso", Body: &request})
	if err != nil {
		b.t.Fatal(err)
	}
	link, _ := strings.CutPrefix(r.(api.CreateInvitation201JSONResponse).URL, "https://"+host)
	b.secrets = append(b.secrets, strings.TrimPrefix(link, "/i/"))
	return link
}

func (b *bed) status() api.TenantAccess {
	b.t.Helper()
	r, err := b.s.GetInvitation(b.t.Context(), api.GetInvitationRequestObject{Account: "contoso"})
	if err != nil {
		b.t.Fatal(err)
	}
	return api.TenantAccess(r.(api.GetInvitation200JSONResponse))
}

func (b *bed) reached(state api.TenantAccessState) api.TenantAccess {
	b.t.Helper()
	a := b.status()
	if a.State != state {
		b.t.Errorf("state %s, want %s: %+v", a.State, state, a)
	}
	return a
}

// authorise goes through step 1 and returns the page after it.
func (b *bed) authorise(link string) *page {
	b.t.Helper()
	p := b.request("GET", link, nil).says(200, "Authorise telephony from Example Telecom").press("/authorise").
		says(200, "goes to Microsoft")
	p = b.callback("admin_consent", "True", "tenant", tenantID, "state", p.state(invite.Consent)).says(200)
	return b.callback("code", "c", "state", p.state(invite.Identify))
}

// integrate goes through step 3 and returns the page after it.
func (b *bed) integrate(p *page) *page {
	b.t.Helper()
	return b.callback("code", "c", "state", p.press("/integrate").says(200).state(invite.Integrate))
}

func TestTheWholeWay(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.reached("none")
	link := b.invite(api.InvitationRequest{Tenant: tenantID})
	if a := b.reached("invited"); a.Invitation.Tenant != tenantID || !a.Invitation.Opened.IsZero() ||
		a.Invitation.Expires.Sub(a.Invitation.Created).Round(time.Hour) != 14*24*time.Hour {
		t.Errorf("invitation %+v; want 14 days, not opened", a.Invitation)
	}
	b.request("GET", link, nil).says(200, "Domain.ReadWrite.All",
		"Privileged Role Administrator or Global Administrator",
		"What is never touched", tenantID)
	if b.reached("invited").Invitation.Opened.IsZero() {
		t.Error("it is not seen that the link was opened")
	}

	b.readiness.findings = []invite.Finding{{"Licences", "A free licence", invite.Pass, "3 seats are free", ""},
		{"Licences", "Users with Phone System", invite.Warn, "none", "buy Teams Phone"},
		{"Names", "DNS", invite.Fail, "not delegated", "ask Example Telecom"}}
	p := b.authorise(link).says(200, "Check before the integration", "Users with Phone System", "buy Teams Phone",
		"Some checks failed", "Teams Telephony Administrator", "tandem.service")
	a := b.reached("readinessSeen")
	if a.Authorised.By != "admin@contoso.example" || a.Tenant != tenantID || a.Mode != "" {
		t.Errorf("access %+v", a)
	}

	b.progress.work = invite.Work{Tasks: []invite.Task{{"Verify the domain", "waiting",
		"for Microsoft, usually 5 minutes"}}}
	b.microsoft.person = invite.Person{Tenant: tenantID, ID: "p2", Name: "tandem.service@contoso.example",
		Roles: []string{teamsRole}}
	p = b.integrate(p).says(200, "Connected", "Verify the domain", "usually 5 minutes")
	if !strings.Contains(p.source, `http-equiv="refresh" content="10;url=/"`) {
		t.Error("the progress does not load itself again")
	}
	a = b.reached("integrated")
	if a.Person.Name != "tandem.service@contoso.example" || a.Person.Roles[0] != "Teams Administrator" ||
		a.Mode != "delegated" || a.Checked.IsZero() {
		t.Errorf("access %+v, person %+v", a, a.Person)
	}
	if token, err := b.access.Tokens("contoso").RefreshToken(t.Context()); token.Reveal() != refresh || err != nil {
		t.Errorf("the refresh token is not kept: %v", err)
	}

	b.progress.work.Done = true
	b.request("GET", "/", nil).says(200, "Everything is in place", "Keep the account tandem.service@contoso.example")
	b.progress.work = invite.Work{Left: true}
	b.request("GET", "/", nil).says(200, "You may now delete the account tandem.service@contoso.example")

	// The same link in another browser shows nothing before the person has proven to belong to the tenant.
	b.jar = map[string]string{}
	p = b.request("GET", link, nil).says(200, "Confirm your organisation", "has authorised")
	if strings.Contains(p.text, "tandem.service") {
		t.Error("a stranger with the link sees who signed in")
	}
	p = p.press("/confirm")
	b.callback("code", "c", "state", p.state(invite.Identify)).says(200, "Disconnected")
}

// Every refusal of Microsoft is a page that says what happened and what to do.
func TestRefusalsAreExplained(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.authorise(b.invite(api.InvitationRequest{})).says(200)
	for code, want := range map[string]struct {
		kind   fault.Kind
		status int
		title  string
	}{
		"ConsentDeclined":   {fault.Conflict, 409, "You did not accept"},
		"SignInNeeded":      {fault.Conflict, 409, "another sign-in"},
		"AccountUnsuitable": {fault.Conflict, 409, "This account cannot be used"},
		"TenantNotFound":    {fault.Conflict, 409, "does not know this organisation"},
		"SignInRefused":     {fault.Conflict, 409, "Microsoft refused"},
		"AppRegistration":   {fault.Unavailable, 503, "The operator must repair this"},
		"EntraUnavailable":  {fault.Unavailable, 503, "Microsoft does not answer"},
		"InvalidIDToken":    {fault.Conflict, 409, "could not be checked"},
		"DeviceCodeBlocked": {fault.Conflict, 409, "not possible now"},
	} {
		state := b.request("GET", "/", nil).press("/integrate").state(invite.Integrate)
		b.microsoft.err = fault.New(want.kind, code, "text of the outcome [AADSTS12345]").
			Because(errors.New("Microsoft's own words"))
		q := b.callback("code", "c", "state", state).says(want.status, want.title,
			"Text of the outcome [AADSTS12345].", "What to do:")
		if strings.Contains(q.source, "own words") {
			t.Errorf("%s: Microsoft's text is on the page", code)
		}
		b.reached("readinessSeen")
	}
	b.integrate(b.request("GET", "/", nil)).says(200, "Connected") // it can be repeated
}

func TestConsentIsDeclined(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.request("GET", b.invite(api.InvitationRequest{}), nil).press("/authorise")
	b.callback("error", "access_denied", "state", p.state(invite.Consent)).says(409, "You did not accept",
		"Nothing was changed")
	b.reached("invited")
	b.request("GET", "/", nil).says(200, "Authorise telephony")
}

// tenant-cases 1: for some minutes after the consent, a refusal because it is missing is a wait.
func TestConsentPropagates(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	refused := fault.New(fault.Conflict, "ConsentNeeded", "the tenant has not consented [AADSTS65001]")
	p := b.request("GET", b.invite(api.InvitationRequest{}), nil).press("/authorise")
	p = b.callback("admin_consent", "True", "tenant", tenantID, "state", p.state(invite.Consent))
	b.microsoft.err = refused
	p = b.callback("code", "c", "state", p.state(invite.Identify)).says(200, "Microsoft is distributing",
		"You do not need to authorise again")
	if !strings.Contains(p.source, `http-equiv="refresh" content="1`) {
		t.Errorf("the page does not continue automatically: %s", p.source)
	}
	b.reached("invited")

	b.session(func(s *invite.Session) { s.Wait = time.Now() }) // it has passed
	p = b.request("GET", "/", nil).says(200, "Confirm your organisation").press("/confirm")
	b.readiness.err = fault.New(fault.Unavailable, "ConsentPropagating", "not yet").After(3 * time.Second)
	b.callback("code", "c", "state", p.state(invite.Identify)).says(200, "Microsoft is distributing")
	b.reached("authorised")
	b.readiness.err = refused
	b.request("GET", "/", nil).says(200, "Microsoft is distributing")
	b.readiness.err = nil
	b.request("GET", "/", nil).says(200, "Check before the integration")

	// Later it is a refusal.
	err := b.access.Update(t.Context(), nil, func(ctx context.Context, tx invite.Tx) error {
		a, err := tx.Access(ctx, "contoso")
		if err != nil {
			return err
		}
		a.Consented = a.Consented.Add(-time.Hour)
		return tx.SetAccess(ctx, a, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	b.readiness.err = refused
	p = b.request("GET", "/", nil).says(409, "The authorisation is missing", "step 1").press("/authorise")
	p = b.callback("admin_consent", "True", "tenant", tenantID, "state", p.state(invite.Consent))
	b.readiness.err = nil
	b.callback("code", "c", "state", p.state(invite.Identify)).says(200, "Check before the integration")
	if a, err := b.s.Access(t.Context(), "contoso"); err != nil || time.Since(a.Consented) > time.Minute {
		t.Errorf("the second consent is not kept: %+v, %v", a, err)
	}
}

// session changes the session of the browser.
func (b *bed) session(change func(*invite.Session)) {
	b.t.Helper()
	err := b.access.Update(b.t.Context(), nil, func(ctx context.Context, tx invite.Tx) error {
		s, err := tx.Session(ctx, hash(b.jar["__Host-onboard"]))
		if err != nil || s == nil {
			return cmp.Or(err, errors.New("no session"))
		}
		change(s)
		return tx.SetSession(ctx, s)
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

func TestLinks(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.request("GET", "/", nil).says(403, "Open your link again")
	b.request("GET", "/i/unknown", nil).says(404, "This link is not valid", "Example Telecom")
	first := b.invite(api.InvitationRequest{})
	second := b.invite(api.InvitationRequest{Days: 1})
	b.request("GET", first, nil).says(404, "replaced by a newer one")
	b.request("GET", second, nil).says(200)
	b.expire(second)
	b.request("GET", second, nil).says(410, "This link has expired")
	third := b.invite(api.InvitationRequest{})
	b.request("GET", third, nil).says(200)
	if _, err := b.s.RevokeInvitation(t.Context(), api.RevokeInvitationRequestObject{Account: "contoso"}); err != nil {
		t.Fatal(err)
	}
	b.request("GET", "/", nil).says(403, "Open your link again") // the visit ended with the link
	b.request("GET", third, nil).says(404, "It was revoked")
	if _, err := b.s.RevokeInvitation(t.Context(),
		api.RevokeInvitationRequestObject{Account: "contoso"}); !fault.HasCode(err,
		"InvitationNotFound") {
		t.Errorf("revoked twice: %v", err)
	}
	b.reached("none")
	_, err := b.s.CreateInvitation(t.Context(), api.CreateInvitationRequestObject{Account: "nobody",
		Body: &api.InvitationRequest{}})
	if !fault.Is(err, fault.NotFound) {
		t.Errorf("an unknown account was invited: %v", err)
	}
}

func (b *bed) expire(link string) {
	b.t.Helper()
	err := b.access.Update(b.t.Context(), nil, func(ctx context.Context, tx invite.Tx) error {
		i, err := tx.InvitationBy(ctx, hash(strings.TrimPrefix(link, "/i/")))
		if err != nil || i == nil {
			return cmp.Or(err, errors.New("no invitation"))
		}
		i.Expires = time.Now()
		return tx.SetInvitation(ctx, i)
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// Redirects and forms that another person has written do nothing.
func TestForgeries(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	link := b.invite(api.InvitationRequest{Tenant: tenantID})
	p := b.request("GET", link, nil)
	for _, form := range []url.Values{{}, {"csrf": {"guessed"}}, {"csrf": {""}}} {
		b.request("POST", "/authorise", form).says(400, "This page belongs to another visit")
	}
	b.request("POST", "/authorise", url.Values{"csrf": {strings.Repeat("x", 5000)}}).says(413)
	b.request("POST", "/", nil).says(404)
	b.request("POST", "/confirm", url.Values{"csrf": {csrfOf(b)}}).says(409, "Step 1 comes first")
	state := p.press("/authorise").state(invite.Consent)
	b.callback("admin_consent", "True", "tenant", tenantID, "state", "forged").says(400, "belongs to another visit")
	b.callback("admin_consent", "True", "tenant", tenantID).says(400, "belongs to another visit")

	// In another browser: the person who was sent the answer of another person's visit.
	mine := b.jar
	b.jar = map[string]string{}
	b.callback("admin_consent", "True", "tenant", tenantID, "state", state).says(403, "Open your link again")
	b.request("GET", link, nil).says(200)
	b.callback("admin_consent", "True", "tenant", tenantID, "state", state).says(400, "belongs to another visit")

	// The right browser, with another tenant than that of the invitation.
	b.jar = mine
	b.callback("admin_consent", "True", "tenant", strangeID, "state", state).says(409, "This is another organisation",
		tenantID, strangeID)
	state = b.request("GET", "/", nil).press("/authorise").state(invite.Consent)
	p = b.callback("admin_consent", "True", "tenant", tenantID, "state", state)

	// The redirect names the invited tenant, the token of the person another one: the token decides.
	b.microsoft.person.Tenant = strangeID
	b.callback("code", "c", "state", p.state(invite.Identify)).says(409, "belongs to the tenant "+strangeID)
	b.reached("invited")
	b.microsoft.person.Tenant = tenantID
	state = b.request("GET", "/", nil).press("/confirm").state(invite.Identify)
	b.callback("code", "c", "state", state).says(200, "Check before")
	n := len(b.microsoft.redeemed)
	b.callback("code", "c", "state", state).says(200, "Check before") // replayed: shown, not redeemed again
	if len(b.microsoft.redeemed) != n {
		t.Error("a replayed redirect was redeemed")
	}
}

// The accounts that must not sign in for a tenant, with what is said about them.
func TestUnsuitableAccounts(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.authorise(b.invite(api.InvitationRequest{})).says(200)
	for _, c := range []struct {
		name     string
		person   invite.Person
		partners bool
		says     string // "" for success
	}{
		{"personal", invite.Person{Tenant: tenantID, Personal: true}, false, "personal Microsoft account"},
		{"guest", invite.Person{Tenant: tenantID, Guest: true}, false,
			"guest in this organisation or belongs to a partner"},
		{"other tenant", invite.Person{Tenant: strangeID, Roles: []string{teamsRole}}, false,
			"belongs to the tenant"},
		{"no role", invite.Person{Tenant: tenantID}, false,
			"no directory role; it needs the role Teams Telephony"},
		{"wrong role", invite.Person{Tenant: tenantID, Roles: []string{"f2ef992c-3afb-46b9-b7cf-a126ee74c451"}}, false,
			"has Global Reader; it needs"},
		{"partner allowed", invite.Person{Tenant: tenantID, Guest: true, Roles: []string{teamsRole}}, true, ""},
	} {
		b.s.Partners = c.partners
		c.person.Name = c.name + "@example"
		b.microsoft.person = c.person
		p := b.integrate(b.request("GET", "/", nil))
		if c.says == "" {
			p.says(200, "Connected", "works for a partner")
			if !b.reached("integrated").Person.Partner {
				t.Error("the operator does not see that a partner signed in")
			}
			continue
		}
		p.says(409, c.says, "What to do:")
		if a := b.reached("readinessSeen"); a.Mode != "" || a.Person != nil {
			t.Errorf("%s: kept as %+v", c.name, a)
		}
		if token, _ := b.access.Tokens("contoso").RefreshToken(t.Context()); token.Reveal() != "" {
			t.Errorf("%s: the sign-in was kept", c.name)
		}
	}
}

func TestATenantBelongsToOneAccount(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.authorise(b.invite(api.InvitationRequest{})).says(200)
	err := b.access.Update(t.Context(), nil, func(ctx context.Context, tx invite.Tx) error {
		return tx.SetAccess(ctx, &invite.Access{Account: "other", Tenant: strangeID}, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := b.s.CreateInvitation(t.Context(), api.CreateInvitationRequestObject{Account: "third",
		Body: &api.InvitationRequest{}})
	if err != nil {
		t.Fatal(err)
	}
	b.jar = map[string]string{}
	link := strings.TrimPrefix(r.(api.CreateInvitation201JSONResponse).URL, "https://"+host)
	b.authorise(link).says(409, "already connected")
	_, err = b.s.CreateInvitation(t.Context(), api.CreateInvitationRequestObject{Account: "contoso",
		Body: &api.InvitationRequest{Tenant: strangeID}})
	if !fault.HasCode(err, "TenantDiffers") {
		t.Errorf("invited to another tenant than the connected one: %v", err)
	}
}

func TestWithoutAnImplementation(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.s.Usable = func() error {
		return fault.New(fault.Unavailable, "TeamsUnavailable",
			"nothing can administer Teams here; set onboarding.teams")
	}
	p := b.authorise(b.invite(api.InvitationRequest{})).says(200, "set onboarding.teams",
		"Example Telecom must do this")
	if strings.Contains(p.source, `action="/integrate"`) {
		t.Error("step 3 is offered")
	}
	token := csrfOf(b)
	b.request("POST", "/integrate", url.Values{"csrf": {token}}).says(503, "The operator must install something")
}

func csrfOf(b *bed) (token string) {
	b.session(func(s *invite.Session) { token = s.CSRF })
	return token
}

func TestTheApplicationsOwnRole(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.authorise(b.invite(api.InvitationRequest{})).says(200, "Without such an account")
	b.microsoft.standing.Roles = nil
	p.press("/application").says(409, "A role is missing", "the role Teams Administrator")
	b.microsoft.standing.Roles = []string{teamsRole}
	b.request("GET", "/", nil).press("/application").says(200, "Connected")
	if a := b.reached("integrated"); a.Mode != "application" || a.Person != nil {
		t.Errorf("access %+v", a)
	}
}

// Whoever of the tenant has the link cannot replace the administrator's sign-in while that works.
func TestTheApplicationDoesNotReplaceASignIn(t *testing.T) {
	t.Parallel()
	b := integrated(t)
	b.request("POST", "/application", url.Values{"csrf": {csrfOf(b)}}).says(200, "Connected")
	if a := b.reached("integrated"); a.Mode != "delegated" {
		t.Errorf("access %+v", a)
	}
}

func hash(s string) string { return fmt.Sprintf("%x", sum(s)) }
