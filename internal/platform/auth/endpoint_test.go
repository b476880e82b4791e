package auth

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/tandemgw/tandem/internal/domain/fault"
)

func newIssuer(t *testing.T) (*Issuer, *memory, func() string) {
	t.Helper()
	m := &memory{}
	log, text := logged()
	i := NewIssuer(Default().Embedded, m, NewClients(m), Deps{Log: log, Keyring: keyring(t)})
	return i, m, text
}

func post(i *Issuer, form url.Values, change func(*http.Request)) (*httptest.ResponseRecorder, map[string]any) {
	r := httptest.NewRequest(http.MethodPost, "https://provapi.example.com/oauth2/v2.0/token",
		strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	i.ServeFor(w, r, peer(r), "https://provapi.example.com")
	var body map[string]any
	_ = json.Unmarshal(w.Body.Bytes(), &body) // a body that is not JSON appears empty
	return w, body
}

func TestTokenEndpoint(t *testing.T) {
	i, m, log := newIssuer(t)
	cl, s, err := i.clients.Create(t.Context(), "BSS", []Role{RoleRead, RoleDelete})
	if err != nil {
		t.Fatal(err)
	}
	gone, goneSecret, err := i.clients.Create(t.Context(), "old", []Role{RoleRead})
	if err != nil {
		t.Fatal(err)
	}
	if err := i.clients.Revoke(t.Context(), gone.ID); err != nil {
		t.Fatal(err)
	}
	form := func(kv ...string) url.Values {
		f := url.Values{"grant_type": {"client_credentials"}, "client_id": {cl.ID}, "client_secret": {s.Reveal()},
			"scope": {"api://tandem-provisioning/.default"}}
		for n := 0; n < len(kv); n += 2 {
			if kv[n+1] == "" {
				f.Del(kv[n])
			} else {
				f.Set(kv[n], kv[n+1])
			}
		}
		return f
	}
	basic := func(id, secret string) func(*http.Request) {
		return func(r *http.Request) { r.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(secret)) }
	}
	v := verifier(t, Default(), i, Deps{})
	source := byte(0)
	for _, tc := range []struct {
		name   string
		form   url.Values
		change func(*http.Request)
		status int
		error  string
	}{
		{"secret in the body", form(), nil, 200, ""},
		{"secret in the header", form("client_id", "", "client_secret", ""), basic(cl.ID, s.Reveal()), 200, ""},
		{"header and the same id in the body", form("client_secret", ""), basic(cl.ID, s.Reveal()), 200, ""},
		{"id in upper case", form("client_id", strings.ToUpper(cl.ID)), nil, 200, ""},
		{"no scope", form("scope", ""), nil, 200, ""},
		{"scope without api://", form("scope", "tandem-provisioning/.default"), nil, 200, ""},
		{"resource as for Entra v1", form("scope", "", "resource", "api://tandem-provisioning"), nil, 200, ""},
		{"below a tenant", form(), func(r *http.Request) { r.URL.Path = "/common" + r.URL.Path }, 200, ""},

		{"no grant", form("grant_type", ""), nil, 400, "invalid_request"},
		{"another grant", form("grant_type", "password"), nil, 400, "unsupported_grant_type"},
		{"another scope", form("scope", "https://graph.example/.default"), nil, 400, "invalid_scope"},
		{"one right and one wrong scope", form("scope", "api://tandem-provisioning/.default openid"), nil, 400,
			"invalid_scope"},
		{"another resource", form("resource", "api://other"), nil, 400, "invalid_scope"},
		{"wrong secret", form("client_secret", s.Reveal()+"x"), nil, 401, "invalid_client"},
		{"unknown client", form("client_id", "11111111-2222-3333-4444-555555555555"), nil, 401, "invalid_client"},
		{"revoked client", form("client_id", gone.ID, "client_secret", goneSecret.Reveal()), nil, 401,
			"invalid_client"},
		{"wrong secret in the header", form("client_id", "", "client_secret", ""), basic(cl.ID, "x"), 401,
			"invalid_client"},
		{"no secret", form("client_secret", ""), nil, 401, "invalid_client"},
		{"no client", form("client_id", "", "client_secret", ""), nil, 401, "invalid_client"},
		{"bearer header", form(), func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") }, 401,
			"invalid_client"},
		{"assertion", form("client_secret", "", "client_assertion", "x"), nil, 401, "invalid_client"},
		{"secret twice", form(), basic(cl.ID, s.Reveal()), 400, "invalid_request"},
		{"two ids", form("client_secret", "", "client_id", gone.ID), basic(cl.ID, s.Reveal()), 400, "invalid_request"},
		{"parameter twice", url.Values{"grant_type": {"client_credentials", "client_credentials"}}, nil, 400,
			"invalid_request"},
		{"JSON", form(), func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }, 400,
			"invalid_request"},
		{"too large", form("x", strings.Repeat("x", maxFormBytes)), nil, 413, "invalid_request"},
		{"GET", form(), func(r *http.Request) { r.Method = http.MethodGet }, 405, "invalid_request"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			source++ // so that the failures in this table do not add up
			w, body := post(i, tc.form, func(r *http.Request) {
				r.RemoteAddr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, source}), 1000).String()
				if tc.change != nil {
					tc.change(r)
				}
			})
			if w.Code != tc.status || body["error"] != map[bool]any{true: tc.error, false: nil}[tc.error != ""] {
				t.Fatalf("answer %d %s, want %d %s", w.Code, w.Body, tc.status, tc.error)
			}
			if w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("Pragma") != "no-cache" {
				t.Error("the answer may be cached (RFC 6749 §5.1)")
			}
			if tc.status == 401 && !strings.HasPrefix(w.Header().Get("WWW-Authenticate"), "Basic ") {
				t.Error("401 without WWW-Authenticate")
			}
			if tc.status == 405 && w.Header().Get("Allow") != "POST" {
				t.Error("405 without Allow")
			}
			if tc.error != "" {
				if d, _ := body["error_description"].(string); d == "" {
					t.Error("no error_description")
				}
				return
			}
			if body["token_type"] != "Bearer" || body["expires_in"].(float64) < 3500 {
				t.Errorf("answer %s", w.Body)
			}
			p, err := v.Verify(t.Context(), body["access_token"].(string))
			if err != nil || p.ClientID != cl.ID || !hasAny(p, RoleRead) || !hasAny(p, RoleDelete) ||
				hasAny(p, RoleAdmin, RoleWrite) {
				t.Errorf("the token proves %+v, %v", p, err)
			}
		})
	}
	m.setDown(true)
	if w, body := post(i, form(), nil); w.Code != 503 || body["error"] != "temporarily_unavailable" ||
		w.Header().Get("Retry-After") != "7" {
		t.Errorf("with the database unavailable: %d %s, Retry-After %q", w.Code, w.Body, w.Header().Get("Retry-After"))
	}
	if contains(log(), s.Reveal()) || contains(log(), goneSecret.Reveal()) {
		t.Error("a secret is in the log")
	}
}

func TestTokenEndpointSlowsGuessing(t *testing.T) {
	i, _, _ := newIssuer(t)
	cl, s, err := i.clients.Create(t.Context(), "BSS", []Role{RoleRead})
	if err != nil {
		t.Fatal(err)
	}
	from := func(a string) func(*http.Request) {
		return func(r *http.Request) { r.RemoteAddr = a }
	}
	try := func(secret, addr string) *httptest.ResponseRecorder {
		w, _ := post(i, url.Values{"grant_type": {"client_credentials"}, "client_id": {cl.ID},
			"client_secret": {secret}}, from(addr))
		return w
	}
	for n := range maxFailures {
		if w := try("guess", "192.0.2.1:1000"); w.Code != 401 {
			t.Fatalf("guess %d answered %d", n+1, w.Code)
		}
	}
	w := try(s.Reveal(), "192.0.2.1:1001")
	if w.Code != 429 || w.Header().Get("Retry-After") == "" {
		t.Errorf("after %d guesses: %d, Retry-After %q; want 429", maxFailures, w.Code, w.Header().Get("Retry-After"))
	}
	if w := try(s.Reveal(), "192.0.2.2:1000"); w.Code != 200 {
		t.Errorf("another address is blocked too: %d", w.Code)
	}
}

func TestDiscoveryAndKeysLeadToTheToken(t *testing.T) {
	i, m, _ := newIssuer(t)
	tok, _, err := i.IssueToken(t.Context(), "cli", RoleAdmin)
	if err != nil {
		t.Fatal(err)
	}
	get := func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, "https://provapi.example.com"+path, nil)
		i.ServeFor(w, r, peer(r), "https://provapi.example.com")
		return w
	}
	for _, path := range []string{"/.well-known/openid-configuration", "/v2.0/.well-known/openid-configuration",
		"/some-tenant/v2.0/.well-known/openid-configuration"} {
		var doc map[string]any
		w := get(path)
		if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil ||
			doc["jwks_uri"] != "https://provapi.example.com/discovery/v2.0/keys" ||
			doc["token_endpoint"] != "https://provapi.example.com/oauth2/v2.0/token" ||
			doc["issuer"] != Default().Embedded.Issuer {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	w := get("/discovery/v2.0/keys")
	keys, err := parseKeySet(w.Body.Bytes())
	if err != nil || len(keys) != 1 || contains(w.Body.String(), `"d"`) {
		t.Fatalf("key set: %d %s: %v", w.Code, w.Body, err)
	}
	// Another system's verifier accepts the token with only the published documents.
	a := newAuthority(t)
	a.put("/keys", w.Body.Bytes())
	cfg := Default()
	cfg.Embedded.Enabled, cfg.TrustRootsFile = false, a.roots(t)
	cfg.Issuers = []IssuerConfig{{Issuer: Default().Embedded.Issuer, KeysURL: a.URL + "/keys",
		Audiences: []string{"tandem-provisioning"}}}
	if p, err := verifier(t, cfg, nil, Deps{}).Verify(t.Context(), tok.Reveal()); err != nil ||
		p.ClientID != "local:cli" || !hasAny(p, RoleAdmin) {
		t.Errorf("another verifier: %+v, %v", p, err)
	}
	m.setDown(true)
	if w := get("/discovery/v2.0/keys"); w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("keys with the database unavailable: %d", w.Code)
	}
	for path, want := range map[string]bool{
		"/oauth2/v2.0/token":        true,
		"/common/oauth2/v2.0/token": true,
		"/accounts":                 false,
		"/a/b/oauth2/v2.0/token":    false,
		"/accounts/x/numbers":       false,
		"/oauth2/v2.0/token/":       false,
	} {
		if i.Serves(path) != want {
			t.Errorf("Serves(%q) = %v", path, !want)
		}
	}
	if w := get("/accounts"); w.Code != 404 {
		t.Errorf("a path that is not the issuer's: %d", w.Code)
	}
	if _, _, err := i.IssueToken(t.Context(), "cli", "Root"); !fault.HasCode(err, CodeInvalidRole) {
		t.Errorf("IssueToken with an unknown role = %v", err)
	}
}

func TestRS256Issuer(t *testing.T) {
	m, cfg := &memory{}, Default()
	cfg.Embedded.Algorithm = "RS256"
	i := NewIssuer(cfg.Embedded, m, NewClients(m), Deps{Log: quiet(), Keyring: keyring(t)})
	tok, _, err := i.IssueToken(t.Context(), "cli", RoleRead)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verifier(t, cfg, i, Deps{}).Verify(t.Context(), tok.Reveal()); err != nil ||
		m.keys[0].Algorithm != "RS256" {
		t.Errorf("key %s: %v", m.keys[0].Algorithm, err)
	}
	if contains(string(m.keys[0].Sealed), "PRIVATE") || contains(string(m.keys[0].Public), `"d"`) {
		t.Error("the private key is stored in the clear")
	}
}

func TestSecretHashes(t *testing.T) {
	s := newSecret()
	h, err := hashSecret(s)
	if err != nil || !checkSecret(h, s) || checkSecret(h, s+"x") || checkSecret(h, "") {
		t.Errorf("hash %q, %v does not distinguish its secret from others", h, err)
	}
	if len(s) < 43 || s == newSecret() {
		t.Errorf("secret %q is short or repeats", s)
	}
	for _, bad := range []string{"", "x", "pbkdf2-sha256$0$AAAA$AAAA", "pbkdf2-sha256$99999999999$AAAA$AAAA",
		"pbkdf2-sha256$10$!$AAAA", decoy} {
		if checkSecret(bad, "") || checkSecret(bad, s) {
			t.Errorf("hash %q accepts a secret", bad)
		}
	}
	if parts := strings.Split(decoy, "$"); len(parts) != 4 || len(decoy) != len(h) {
		t.Errorf("the decoy %q is not shaped like a hash %q: an unknown client would answer faster", decoy, h)
	}
}

func TestSources(t *testing.T) {
	s, problems := (&SourcesConfig{
		[]string{"192.0.2.0/24", "2001:db8::/32", "198.51.100.7"},
		[]string{"10.0.0.0/8"},
	}).Parse()
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, tc := range []struct {
		remote string
		xff    []string
		want   string
		permit bool
	}{
		{"192.0.2.9:1", nil, "192.0.2.9", true},
		{"203.0.113.9:1", nil, "203.0.113.9", false},
		{"[2001:db8::5]:1", nil, "2001:db8::5", true},
		{"[::ffff:192.0.2.9]:1", nil, "192.0.2.9", true},
		{"198.51.100.7:1", nil, "198.51.100.7", true},
		{"203.0.113.9:1", []string{"192.0.2.9"}, "203.0.113.9", false}, // not a proxy: its header is ignored
		{"10.1.1.1:1", []string{"192.0.2.9"}, "192.0.2.9", true},
		{"10.1.1.1:1", []string{"192.0.2.9, 203.0.113.9"}, "203.0.113.9", false}, // the caller wrote the left one
		{"10.1.1.1:1", []string{"192.0.2.9, 10.2.2.2"}, "192.0.2.9", true},
		{"10.1.1.1:1", []string{"203.0.113.9", "192.0.2.9, 10.2.2.2"}, "192.0.2.9", true},
		{"10.1.1.1:1", []string{"192.0.2.9:4711"}, "192.0.2.9", true},
		{"10.1.1.1:1", []string{"[2001:db8::5]:4711"}, "2001:db8::5", true},
		{"10.1.1.1:1", []string{"192.0.2.9, unknown"}, "invalid IP", false},
		{"10.1.1.1:1", nil, "10.1.1.1", false},
		{"@", nil, "invalid IP", false},
	} {
		r := &http.Request{RemoteAddr: tc.remote, Header: http.Header{"X-Forwarded-For": tc.xff}}
		a := s.Of(r)
		if a.String() != tc.want || s.Permits(a) != tc.permit {
			t.Errorf("from %s with X-Forwarded-For %q: %v, permitted %v; want %s, %v", tc.remote, tc.xff, a,
				s.Permits(a), tc.want, tc.permit)
		}
	}
	if problems := (&SourcesConfig{[]string{"192.0.2.1/24", "x", "fe80::1%eth0"},
		[]string{"10.0.0.0/33"}}).Validate(); len(problems) != 4 ||
		fault.As(problems[0]).Target != "allowedSources[0]" || fault.As(problems[3]).Target != "trustedProxies[0]" {
		t.Errorf("problems = %v", problems)
	}
	everyone, _ := (&SourcesConfig{}).Parse()
	if !everyone.Permits(netip.MustParseAddr("203.0.113.9")) {
		t.Error("an empty list does not permit every address")
	}
}
