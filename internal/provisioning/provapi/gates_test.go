package provapi_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/auth"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/web"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
	"github.com/tandemgw/tandem/internal/provisioning/provapi"
	"github.com/tandemgw/tandem/internal/testkit"
	"github.com/tandemgw/tandem/internal/testkit/pace"
)

// clientToken makes a client of the embedded issuer and gets a token from the token endpoint as a BSS would.
func (b *bed) clientToken(roles ...auth.Role) string {
	b.t.Helper()
	c, s, err := b.clients.Create(b.t.Context(), "BSS", roles)
	if err != nil {
		b.t.Fatal(err)
	}
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {c.ID}, "client_secret": {s.Reveal()},
		"scope": {"api://tandem-provisioning/.default"}}
	r := httptest.NewRequest("POST", "http://provapi.test/oauth2/v2.0/token", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	b.api.ServeHTTP(w, r)
	var body struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || w.Code != 200 {
		b.t.Fatalf("the token endpoint answered %d %s", w.Code, w.Body)
	}
	if strings.Contains(b.log.String(), s.Reveal()) || strings.Contains(b.log.String(), body.Token) {
		b.t.Error("the log holds a secret or a token")
	}
	return body.Token
}

// TestRoles: which role may do what, for every operation. The matrix is written from the contract (GET Read, PUT and
// PATCH Write, DELETE Delete) and design decisions for the actions, not from the code's table.
func TestRoles(t *testing.T) {
	b := onSQLite(t, options{})
	matrix := map[string]string{
		"GET /accounts": "Read", "GET /accounts/acme": "Read", "PUT /accounts/acme": "Write",
		"DELETE /accounts/acme":                     "Delete",
		"POST /accounts/acme:createOrUpdateNumbers": "Write", "POST /accounts/acme:deleteNumbers": "Delete",
		"POST /accounts/acme:getTeamsCapabilityPlans":       "Read",
		"POST /accounts/acme:getTeamsAvailableCapabilities": "Read",
		"GET /accounts/acme/numbers":                        "Read", "GET /accounts/acme/numbers/+14255550142": "Read",
		"PUT /accounts/acme/numbers/+14255550142":    "Write",
		"DELETE /accounts/acme/numbers/+14255550142": "Delete", "GET /accounts/acme/teamsCivicAddresses": "Read",
		"GET /accounts/acme/teamsCivicAddresses/x": "Read",
		"GET /numbers": "Read", "GET /teamsRequestsForInformation": "Read",
		"GET /teamsRequestsForInformation/" + tenant:   "Read",
		"PATCH /teamsRequestsForInformation/" + tenant: "Write", "DELETE /accounts/acme?deleteNumbers=true": "Delete",
		"HEAD /accounts": "Read",
	}
	if len(matrix) < 18 {
		t.Fatal("the matrix does not hold every operation")
	}
	for op, needs := range matrix {
		method, path, _ := strings.Cut(op, " ")
		for _, role := range auth.Roles() {
			short := strings.TrimPrefix(string(role), "ProvisioningAPI.")
			may := short == needs || role == auth.RoleAdmin
			e := b.do(method, path, "", header{"Authorization": "Bearer " + b.tokens[role]})
			if refused := e.status == 403; refused == may {
				t.Errorf("%s with role %s answered %d, want refused: %v", op, role, e.status, !may)
			}
			if e.status == 403 && method != "HEAD" {
				e.fails(403, "MissingRole")
				if !strings.Contains(e.error().Message, "ProvisioningAPI."+needs) {
					t.Errorf("%s with role %s: the message does not name the role needed: %s", op, role,
						e.error().Message)
				}
				if h := e.header.Get("WWW-Authenticate"); !strings.Contains(h, "insufficient_scope") {
					t.Errorf("%s: WWW-Authenticate %q", op, h)
				}
			}
		}
	}
	for _, r := range []string{"ProvisioningAPI.Admin", "ProvisioningAPI.Read", "ProvisioningAPI.Write",
		"ProvisioningAPI.Delete"} {
		if _, err := auth.ParseRole(r); err != nil {
			t.Errorf("the issuer does not know the role %s", r)
		}
	}
}

func TestIdentity(t *testing.T) {
	b := onSQLite(t, options{})
	tok := b.clientToken(auth.RoleRead, auth.RoleWrite)
	b.do("PUT", "/accounts/acme", account("acme"), header{"Authorization": "Bearer " + tok}).want(201)
	b.do("DELETE", "/accounts/acme", "", header{"Authorization": "Bearer " + tok}).fails(403, "MissingRole")
	for _, tc := range []struct {
		name, authorization, code, challenge string
	}{
		{"none", "", "MissingAuthenticationToken", `Bearer realm="provisioning"`},
		{"basic", "Basic eDp5", "MissingAuthenticationToken", `Bearer realm="provisioning"`},
		{"nonsense", "Bearer abc", "InvalidAuthenticationToken", `Bearer realm="provisioning", error="invalid_token"`},
		{"changed", "Bearer " + tok[:len(tok)-4] + "AAAA", "InvalidAuthenticationToken",
			`Bearer realm="provisioning", error="invalid_token"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := header{"Authorization": tc.authorization}
			if tc.authorization == "" {
				h = header{"!Authorization": ""}
			}
			// An unauthenticated caller learns nothing about what exists: neither path, nor version, nor account.
			for _, path := range []string{"/accounts/acme?" + version, "/accounts/nobody", "/nothing",
				"/accounts?api-version=1"} {
				e := b.raw("GET", path, "", h).fails(401, tc.code)
				if got := e.header.Get("WWW-Authenticate"); got != tc.challenge {
					t.Errorf("WWW-Authenticate %q, want %q", got, tc.challenge)
				}
			}
		})
	}
	b.raw("GET", "/accounts", "").fails(400, "MissingApiVersionParameter")
	b.raw("GET", "/accounts?api-version=", "").fails(400, "MissingApiVersionParameter")
	b.raw("GET", "/accounts?api-version=2024-02-29-preview&api-version=2024-02-29-preview", "").fails(400,
		"InvalidQueryParameterValue")
	for _, v := range []string{"2023-10-01", "2024-01-30-preview", "2024-02-29-Preview", "latest"} {
		if e := b.raw("GET", "/accounts?api-version="+v, "").fails(400,
			"UnsupportedApiVersionValue"); !strings.Contains(e.error().Message, "2024-02-29-preview") {
			t.Errorf("the answer to version %s does not name those supported: %s", v, e.body)
		}
	}
}

func TestExpiredAndUncheckableTokens(t *testing.T) {
	for code, kind := range map[string]fault.Kind{"ExpiredAuthenticationToken": fault.Unauthenticated,
		"IssuerUnavailable": fault.Unavailable} {
		b := onSQLite(t, options{deps: func(d *provapi.Deps) {
			d.Authenticator = authenticator(func() (string, []string, error) {
				return "", nil, fault.New(kind, code, "no").After(9 * time.Second)
			})
		}})
		if kind == fault.Unauthenticated {
			b.do("GET", "/accounts", "").fails(401, code)
		} else if e := b.do("GET", "/accounts", "").fails(503, code); e.header.Get("Retry-After") != "9" {
			t.Errorf("Retry-After %q, want 9", e.header.Get("Retry-After"))
		}
	}
}

type authenticator func() (string, []string, error)

func (a authenticator) Authenticate(context.Context, []string) (string, []string, error) { return a() }

func TestSourceAddresses(t *testing.T) {
	b := onSQLite(t, options{sources: auth.SourcesConfig{AllowedSources: []string{"192.0.2.0/24"},
		TrustedProxies: []string{"10.0.0.1"}}})
	from := func(addr, forwarded string) header {
		h := header{"RemoteAddr": addr}
		if forwarded != "" {
			h["X-Forwarded-For"] = forwarded
		}
		return h
	}
	b.do("GET", "/accounts", "", from("192.0.2.7:1", "")).want(200)
	b.do("GET", "/accounts", "", from("10.0.0.1:1", "192.0.2.7")).want(200)
	b.do("GET", "/accounts", "", from("203.0.113.7:1", "")).fails(403, "SourceAddressNotAllowed")
	b.do("GET", "/accounts", "", from("203.0.113.7:1", "192.0.2.7")).fails(403, "SourceAddressNotAllowed")
	b.do("GET", "/accounts", "", from("10.0.0.1:1", "192.0.2.7, 203.0.113.7")).fails(403, "SourceAddressNotAllowed")
	b.do("GET", "/accounts", "", from("10.0.0.1:1", "rubbish")).fails(403, "SourceAddressNotAllowed")
	// The token endpoint is behind the same list.
	b.raw("POST", "/oauth2/v2.0/token", "", from("203.0.113.7:1", "")).fails(403, "SourceAddressNotAllowed")
	if e := b.raw("GET", "/.well-known/openid-configuration", "",
		from("192.0.2.7:1", "")).want(200); !strings.Contains(string(e.body),
		`"https://provapi.example.com/oauth2/v2.0/token"`) {
		t.Errorf("discovery document: %s", e.body)
	}
}

// TestNextLinkFollowsTheCaller: without a configured URL, links point to where the request was sent, taking proxies
// into account.
func TestNextLinkFollowsTheCaller(t *testing.T) {
	b := onSQLite(t, options{config: func(c *provapi.Config) { c.PublicURL = "" },
		sources: auth.SourcesConfig{TrustedProxies: []string{"10.0.0.1"}}})
	for i := range 3 {
		b.do("PUT", fmt.Sprintf("/accounts/a%d", i), fmt.Sprintf(`{"name":"a%d"}`, i)).want(201)
	}
	for _, tc := range []struct {
		h    header
		want string
	}{
		{header{}, "http://provapi.test/accounts?"},
		{header{"X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example"}, "http://provapi.test/accounts?"},
		{header{"RemoteAddr": "10.0.0.1:1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "gw.example.com"},
			"https://gw.example.com/accounts?"},
	} {
		e := b.do("GET", "/accounts?maxpagesize=1", "", tc.h).want(200)
		if link := e.object()["nextLink"].(string); !strings.HasPrefix(link, tc.want) {
			t.Errorf("with %v nextLink is %s, want %s…", tc.h, link, tc.want)
		}
	}
}

// TestATokenWithoutAnyRoleSpendsNoLimit: an issuer may give every application of a tenant a token for the API.
func TestATokenWithoutAnyRoleSpendsNoLimit(t *testing.T) {
	b := onSQLite(t, options{config: func(c *provapi.Config) { c.RequestsPerMinute = 5 }})
	b.limiter.l = auth.NewLimiter(b.auth, "provapi", 5, time.Hour, slog.New(slog.DiscardHandler), nil)
	for _, role := range []auth.Role{auth.RoleManagementRead, auth.RoleManagementAdmin} {
		for range 10 {
			b.do("GET", "/accounts", "", header{"Authorization": "Bearer " + b.tokens[role]}).fails(403, "MissingRole")
			b.do("GET", "/nothing", "", header{"Authorization": "Bearer " + b.tokens[role]}).fails(403, "MissingRole")
		}
	}
	for range 5 {
		b.do("GET", "/accounts", "").want(200)
	}
	b.do("GET", "/accounts", "").fails(429, "TooManyRequests")
}

func TestRateLimit(t *testing.T) {
	b := onSQLite(t, options{config: func(c *provapi.Config) { c.RequestsPerMinute = 5 }})
	b.do("PUT", "/accounts/acme", account("acme", "zoomPhoneCloudPeering")).want(201)
	b.limiter.l = auth.NewLimiter(b.auth, "provapi", 5, time.Hour, slog.New(slog.DiscardHandler), nil)
	var items []string
	for i := range 100 {
		items = append(items, number("acme", fmt.Sprintf("+1425555%04d", i), "zoomPhoneCloudPeering"))
	}
	b.do("POST", "/accounts/acme:createOrUpdateNumbers", batchOf(items...)).want(200) // counts once
	b.do("GET", "/accounts", "", header{"Authorization": "Bearer x"}).fails(401, "InvalidAuthenticationToken")
	b.do("GET", "/accounts", "").want(200)
	b.do("GET", "/nothing", "").fails(404, "ResourceNotFound") // counts: the caller is authenticated
	b.do("GET", "/accounts", "", header{"Authorization": "Bearer " + b.tokens[auth.RoleRead]}).want(200)
	b.do("GET", "/accounts", "").want(200)
	e := b.do("GET", "/accounts", "").fails(429, "TooManyRequests")
	if e.header.Get("Retry-After") == "" || e.header.Get("Retry-After") == "0" {
		t.Errorf("429 with Retry-After %q", e.header.Get("Retry-After"))
	}
	// The limit is over all clients together.
	b.do("GET", "/accounts", "", header{"Authorization": "Bearer " + b.tokens[auth.RoleRead]}).fails(429,
		"TooManyRequests")
	// Another node that shares the store knows it too.
	l := auth.NewLimiter(b.auth, "provapi", 5, time.Hour, slog.New(slog.DiscardHandler), nil)
	if l.Allow(t.Context()) == 0 {
		t.Error("another node allows a request although the limit is used up here")
	}
}

// TestRateLimitIsSharedByNodes: however many nodes and concurrent requests there are, the shared limit is exact to the
// request. (A node that gets no answer in time decides by itself; that happens on a very busy machine.)
func TestRateLimitIsSharedByNodes(t *testing.T) {
	onEngines(t, func(b *bed) {
		var wg sync.WaitGroup
		var registries []*prometheus.Registry
		for range 3 {
			reg := prometheus.NewRegistry()
			registries = append(registries, reg)
			node := auth.NewLimiter(b.auth, "provapi", 30, time.Hour, slog.New(slog.DiscardHandler), reg)
			for range 5 {
				wg.Go(func() {
					for range 10 {
						node.Allow(b.t.Context())
					}
				})
			}
		}
		wg.Wait()
		sum := map[string]float64{}
		for _, reg := range registries {
			families, err := reg.Gather()
			if err != nil {
				b.t.Fatal(err)
			}
			for _, f := range families {
				for _, m := range f.Metric {
					labels := map[string]string{}
					for _, l := range m.Label {
						labels[l.GetName()] = l.GetValue()
					}
					sum[labels["verdict"]+" "+labels["by"]] += m.Counter.GetValue()
				}
			}
		}
		if sum["allowed shared"] != 30 {
			b.t.Errorf("of 150 requests on three nodes: %v; want 30 allowed by the shared limit", sum)
		}
	})
}

// TestTrustedCallers: a caller on the socket needs no token, has no address and no limit, but only its roles.
func TestTrustedCallers(t *testing.T) {
	b := onSQLite(t, options{sources: auth.SourcesConfig{AllowedSources: []string{"192.0.2.0/24"}}})
	b.limiter.l = auth.NewLimiter(nil, "x", 1, time.Hour, slog.New(slog.DiscardHandler), nil)
	for range 3 {
		r := httptest.NewRequest("GET", "http://unix/accounts?"+version, nil)
		r.RemoteAddr = "@"
		w := httptest.NewRecorder()
		b.api.ServeHTTP(w, r.WithContext(provapi.Trusted(r.Context(),
			provapi.Caller{ID: "root", Roles: []string{"ProvisioningAPI.Read"}})))
		if w.Code != 200 {
			t.Errorf("a trusted caller got %d %s", w.Code, w.Body)
		}
	}
	r := httptest.NewRequest("DELETE", "http://unix/accounts/x?"+version, nil)
	w := httptest.NewRecorder()
	b.api.ServeHTTP(w, r.WithContext(provapi.Trusted(r.Context(),
		provapi.Caller{ID: "root", Roles: []string{"ProvisioningAPI.Read"}})))
	if w.Code != 403 {
		t.Errorf("a trusted caller without the role got %d", w.Code)
	}
}

// TestWithoutDatabase: while PostgreSQL is down every operation answers 503 with Retry-After, and quickly; once it is
// available again the API recovers without a restart.
func TestWithoutDatabase(t *testing.T) {
	c := testkit.NewCluster(t, testkit.ClusterOptions{})
	seen.outage = true
	c.CreateDatabase(t, "provapi")
	cfg := db.Default()
	cfg.Driver, cfg.URL, cfg.AllowUnsafeDurability = db.Postgres, c.URL("provapi"), true
	cfg.ConnectTimeout, cfg.ProbeTimeout = 20*time.Second, 4*time.Second // test machines are busy
	d := testkit.Open(t, cfg)
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = d.Run(ctx) }) // nil once ctx is done
	t.Cleanup(func() { stop(); running.Wait() })
	b := newBed(t, d, options{})
	b.seed()
	b.do("PUT", "/accounts/acme", account("acme", "zoomPhoneCloudPeering")).want(201)
	b.limiter.l = auth.NewLimiter(b.auth, "provapi", 10_000, time.Minute, slog.New(slog.DiscardHandler), nil)
	c.Kill(t)
	clock := pace.Start(t)
	for _, op := range []struct{ method, path, body string }{
		{"GET", "/accounts", ""}, {"GET", "/accounts/acme", ""}, {"PUT", "/accounts/acme", account("acme")},
		{"DELETE", "/accounts/acme", ""},
		{"POST", "/accounts/acme:createOrUpdateNumbers",
			batchOf(number("acme", "+14255550142", "zoomPhoneCloudPeering"))},
		{"POST", "/accounts/acme:deleteNumbers", batchOf(`{"telephoneNumber":"+14255550142"}`)},
		{"POST", "/accounts/acme:getTeamsCapabilityPlans", ""}, {"POST", "/accounts/acme:getTeamsAvailableCapabilities",
			batchOf(`{"telephoneNumber":"+14255550142"}`)},
		{"GET", "/accounts/acme/numbers", ""}, {"GET", "/accounts/acme/numbers/+14255550142", ""},
		{"PUT", "/accounts/acme/numbers/+14255550142", number("acme", "+14255550142", "zoomPhoneCloudPeering")},
		{"DELETE", "/accounts/acme/numbers/+14255550142", ""}, {"GET", "/accounts/acme/teamsCivicAddresses", ""},
		{"GET", "/accounts/acme/teamsCivicAddresses/x", ""},
		{"GET", "/numbers", ""}, {"GET", "/teamsRequestsForInformation", ""},
		{"GET", "/teamsRequestsForInformation/" + tenant, ""},
		{"PATCH", "/teamsRequestsForInformation/" + tenant, `{"customerRelationship":{"status":"x"}}`},
	} {
		start := clock.Now()
		e := b.do(op.method, op.path, op.body).fails(503, "ServiceUnavailable")
		if e.header.Get("Retry-After") == "" {
			t.Errorf("%s %s: 503 without Retry-After", op.method, op.path)
		}
		if took := clock.Now() - start; took > 3*time.Second {
			t.Errorf("%s %s: 503 took %v", op.method, op.path, took)
		}
	}
	if t.Failed() {
		return
	}
	// A request that is wrong by itself is refused as such, with or without a database.
	b.do("PUT", "/accounts/acme", "{}").fails(400, "MissingField")
	c.Start(t)
	deadline, tick := time.After(2*time.Minute), time.Tick(50*time.Millisecond)
	for b.do("GET", "/accounts/acme", "").status != 200 {
		select {
		case <-tick:
		case <-deadline:
			t.Fatal("the API does not recover when the database is available again")
		}
	}
	b.do("PUT", "/accounts/acme", account("acme")).want(200)
}

// TestWithHangingDatabase: a database that accepts connections but never answers must not hang the API.
func TestWithHangingDatabase(t *testing.T) {
	c := testkit.NewCluster(t, testkit.ClusterOptions{})
	c.CreateDatabase(t, "provapi")
	cfg := db.Default()
	cfg.Driver, cfg.URL, cfg.AllowUnsafeDurability = db.Postgres, c.URL("provapi"), true
	cfg.ConnectTimeout, cfg.ProbeTimeout = 20*time.Second, 4*time.Second // test machines are busy
	d := testkit.Open(t, cfg)
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = d.Run(ctx) }) // nil once ctx is done
	t.Cleanup(func() { stop(); running.Wait() })
	b := newBed(t, d, options{})
	b.do("PUT", "/accounts/acme", account("acme")).want(201)
	b.limiter.l = auth.NewLimiter(b.auth, "provapi", 10_000, time.Minute, slog.New(slog.DiscardHandler), nil)
	c.Pause(t)
	defer c.Resume(t)
	clock := pace.Start(t)
	for i := range 4 {
		start := clock.Now()
		e := b.do("GET", "/accounts/acme", "")
		took := clock.Now() - start
		t.Logf("request %d: %d %s after %v", i+1, e.status, e.error().Code, took)
		if e.status != 503 || e.header.Get("Retry-After") == "" || took > 12*time.Second ||
			i > 0 && took > 3*time.Second {
			t.Errorf("request %d answered %d after %v with Retry-After %q; want 503, the first within the request's "+
				"time, the others at once", i+1, e.status, took, e.header.Get("Retry-After"))
		}
	}
}

// strangeStore misbehaves on demand: before is called first in each transaction, and its error is the transaction's.
type strangeStore struct {
	directory.Store
	before func(ctx context.Context) error
}

func (s strangeStore) View(ctx context.Context, fn func(context.Context, directory.Reader) error) error {
	if err := s.before(ctx); err != nil {
		return err
	}
	return s.Store.View(ctx, fn)
}

func (s strangeStore) Update(ctx context.Context, fn func(context.Context, directory.Tx) error) error {
	if err := s.before(ctx); err != nil {
		return err
	}
	return s.Store.Update(ctx, fn)
}

// TestTimeForARequest: every request has a time limit, and deleting an account with all its numbers has a longer one.
func TestTimeForARequest(t *testing.T) {
	var left time.Duration
	note := func(ctx context.Context) error {
		at, ok := ctx.Deadline()
		if !ok {
			t.Error("a request without a deadline")
		}
		left = time.Until(at)
		return nil
	}
	b := onSQLite(t, options{
		config: func(c *provapi.Config) { c.RequestTimeout = 20 * time.Second },
		store:  func(s directory.Store) directory.Store { return strangeStore{s, note} },
	})
	for path, most := range map[string]time.Duration{"GET /accounts/acme": 20 * time.Second,
		"DELETE /accounts/acme":                     20 * time.Second,
		"DELETE /accounts/acme?deleteNumbers=false": 20 * time.Second,
		"DELETE /accounts/acme?deleteNumbers=true":  5 * time.Minute} {
		method, target, _ := strings.Cut(path, " ")
		b.do("PUT", "/accounts/acme", account("acme"))
		left = 0
		if e := b.do(method, target, ""); e.status >= 300 || left > most || left < most-10*time.Second {
			t.Errorf("%s answered %d and had %v, want %v", path, e.status, left, most)
		}
	}
}

func TestOurOwnFaults(t *testing.T) {
	var before func(ctx context.Context) error
	b := onSQLite(t, options{
		config: func(c *provapi.Config) { c.RequestTimeout = time.Second },
		store: func(s directory.Store) directory.Store {
			return strangeStore{s, func(ctx context.Context) error { return before(ctx) }}
		},
	})
	before = func(context.Context) error { panic("secret detail") }
	e := b.do("GET", "/accounts/acme", "").fails(500, "InternalError")
	id := e.header.Get("x-ms-request-id")
	if id == "" || !strings.Contains(e.error().Message, id) || strings.Contains(string(e.body), "secret detail") {
		t.Errorf("the answer to a panic: %s", e.body)
	}
	if !strings.Contains(b.log.String(), "secret detail") || !strings.Contains(b.log.String(), id) {
		t.Errorf("the log does not name the panic and the request: %s", b.log)
	}
	before = func(context.Context) error { return nil }
	b.do("GET", "/accounts", "").want(200) // the server still works
	before = func(context.Context) error { return fault.Wrap(fmt.Errorf("disk on fire"), "read account") }
	if e := b.do("GET", "/accounts/acme", "").fails(500, "InternalError"); strings.Contains(string(e.body), "fire") {
		t.Errorf("the answer reveals an internal detail: %s", e.body)
	}
	before = func(ctx context.Context) error {
		<-ctx.Done()
		return fault.Wrap(ctx.Err(), "read account")
	}
	if e := b.do("GET", "/accounts/acme", "").fails(503, "RequestTimedOut"); e.header.Get("Retry-After") == "" {
		t.Error("a request that timed out has no Retry-After")
	}
	before = func(context.Context) error {
		return fault.New(fault.Unavailable, "TooManyConflicts", "busy").After(1500 * time.Millisecond)
	}
	if e := b.do("GET", "/accounts/acme", "").fails(503, "TooManyConflicts"); e.header.Get("Retry-After") != "2" {
		t.Errorf("Retry-After %q, want 2: rounded up", e.header.Get("Retry-After"))
	}
}

func TestLogsHoldNoNumbers(t *testing.T) {
	b := onSQLite(t, options{})
	b.do("PUT", "/accounts/acme", account("acme", "zoomPhoneCloudPeering")).want(201)
	b.do("PUT", "/accounts/acme/numbers/%2B442079460123",
		number("acme", "+442079460123", "zoomPhoneCloudPeering")).want(201)
	b.do("GET", "/accounts/acme/numbers/+442079460123", "").want(200)
	b.do("GET", "/numbers?filter="+url.QueryEscape("telephoneNumber eq '+442079460123'"), "").want(200)
	b.do("PUT", "/accounts/acme/numbers/+442079460123",
		number("acme", "+442079460123", "teamsDirectRouting")).fails(400, "ServiceNotEnabledOnAccount")
	b.do("POST", "/accounts/acme:deleteNumbers", batchOf(`{"telephoneNumber":"+442079460123"}`)).want(204)
	b.do("GET", "/accounts/acme/numbers/442079460123", "").fails(400, "InvalidTelephoneNumber")
	log := b.log.String()
	if strings.Contains(log, "2079460123") {
		t.Errorf("the log holds a whole number:\n%s", log)
	}
	if !strings.Contains(log, "+44207946…") || !strings.Contains(log, `"operation":"Accounts_getNumber"`) {
		t.Errorf("the log holds no redacted number or operation:\n%s", log)
	}
	if strings.Contains(log, b.tokens[auth.RoleAdmin]) {
		t.Error("the log holds a token")
	}
}

// TestClientRequestIDs: the contract's id is a UUID. Another one is accepted and logged but not echoed, or the answer
// would break the contract.
func TestClientRequestIDs(t *testing.T) {
	b := onSQLite(t, options{})
	for id, echoed := range map[string]bool{"6f1c9b1e-7a55-4a43-9d0e-0a5f6a1f2c3d": true,
		"6F1C9B1E-7A55-4A43-9D0E-0A5F6A1F2C3D": true, "order-4711": false,
		"6f1c9b1e7a554a439d0e0a5f6a1f2c3d": false, "{6f1c9b1e-7a55-4a43-9d0e-0a5f6a1f2c3d}": false,
		"6f1c9b1e-7a55-4a43-9d0e-0a5f6a1f2c3g": false} {
		for _, e := range []*exchange{b.do("GET", "/accounts", "", header{"x-ms-client-request-id": id}).want(200),
			b.do("GET", "/accounts/nobody", "", header{"x-ms-client-request-id": id}).want(404)} {
			if got := e.header.Get("x-ms-client-request-id"); (got == id) != echoed || !echoed && got != "" {
				t.Errorf("id %q comes back as %q, want echoed: %v", id, got, echoed)
			}
		}
		if !strings.Contains(b.log.String(), id) {
			t.Errorf("id %q is not in the log", id)
		}
	}
}

// TestOverTheWire: behaviour that only a real connection shows.
func TestOverTheWire(t *testing.T) {
	b := onSQLite(t, options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := web.NewServer(b.api, b.api.WriteTimeout(), slog.New(slog.DiscardHandler))
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
	talk := func(request string) *http.Response {
		t.Helper()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if _, err := io.WriteString(c, request); err != nil {
			t.Fatal(err)
		}
		method, _, _ := strings.Cut(request, " ")
		res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
		if err != nil {
			t.Fatalf("%.60q: %v", request, err)
		}
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		res.Body = io.NopCloser(bytes.NewReader(body))
		return res
	}
	head := func(path string) string {
		return " " + path + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + b.tokens[auth.RoleAdmin] + "\r\n"
	}
	b.do("PUT", "/accounts/acme", account("acme", "zoomPhoneCloudPeering")).want(201)
	num := number("acme", "+14255550142", "zoomPhoneCloudPeering")
	if res := talk("PUT" + head("/accounts/acme/numbers/+14255550142?"+version) +
		fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(num),
			num)); res.StatusCode != 201 {
		t.Errorf("PUT with a raw plus sign: %s", res.Status)
	}
	// A body in chunks, its length unknown.
	if res := talk("PUT" + head("/accounts/acme/numbers/%2b14255550142?"+version) +
		fmt.Sprintf("Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n",
			len(num), num)); res.StatusCode != 200 {
		t.Errorf("PUT in chunks: %s", res.Status)
	}
	res := talk("HEAD" + head("/accounts/acme?"+version) + "\r\n")
	body, _ := io.ReadAll(res.Body)
	if res.StatusCode != 200 || len(body) != 0 || res.Header.Get("ETag") == "" || res.ContentLength <= 0 {
		t.Errorf("HEAD: %s, %d bytes, ETag %q, Content-Length %d", res.Status, len(body), res.Header.Get("ETag"),
			res.ContentLength)
	}
	if res := talk("GET" + head("/accounts?"+version) + "X: " + strings.Repeat("x", 64<<10) +
		"\r\n\r\n"); res.StatusCode != 431 {
		t.Errorf("64 KiB of headers: %s, want 431", res.Status)
	}
	if res := talk("PUT" + head("/accounts/acme?"+version) +
		"Content-Type: application/json\r\nContent-Length: 99999999\r\n\r\n"); res.StatusCode != 413 {
		t.Errorf("a body announced as 100 MB: %s, want 413 before it is sent", res.Status)
	}
	if res := talk("DELETE" + head("/accounts/acme/numbers/+14255550142?"+version) + "\r\n"); res.StatusCode != 204 ||
		res.Header.Get("Content-Length") != "" {
		t.Errorf("DELETE: %s, Content-Length %q", res.Status, res.Header.Get("Content-Length"))
	}
}

func TestConfigProblems(t *testing.T) {
	c := provapi.Default()
	if p := c.Validate(); len(p) != 0 {
		t.Errorf("the default configuration has problems: %v", p)
	}
	c = provapi.Config{PublicURL: "provapi.example.com"}
	var targets []string
	for _, err := range c.Validate() {
		targets = append(targets, fault.As(err).Target)
	}
	if got := strings.Join(targets, " "); got != "publicUrl requestsPerMinute maxBodyBytes requestTimeout" {
		t.Errorf("problems at %s", got)
	}
}
