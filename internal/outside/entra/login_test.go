package entra_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/tandemgw/tandem/internal/outside/entra"
	"github.com/tandemgw/tandem/internal/platform/secret"
)

const (
	clientID  = "11111111-aaaa-4bbb-8ccc-000000000001"
	tenantID  = "22222222-aaaa-4bbb-8ccc-000000000002"
	otherID   = "33333333-aaaa-4bbb-8ccc-000000000003"
	objectID  = "44444444-aaaa-4bbb-8ccc-000000000004"
	authority = "https://login.example"
	graph     = "https://graph.example"
)

// keys returns the key of our certificate, the login's signing key, and one of a stranger.
var keys = sync.OnceValue(func() (k [3]*rsa.PrivateKey) {
	for i := range k {
		var err error
		if k[i], err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			panic(err)
		}
	}
	return k
})

var certificate = sync.OnceValue(func() *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1),
		Subject: pkix.Name{CommonName: "tandem"}, NotAfter: time.Now().Add(time.Hour)},
		&x509.Certificate{Subject: pkix.Name{CommonName: "tandem"}}, keys()[0].Public(), keys()[0])
	if err != nil {
		panic(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return c
})

// login plays the identity platform. It checks each request for a token by teams-tenant §1 and gives the next of its
// answers.
type login struct {
	t *testing.T

	mu      sync.Mutex
	answers []reply
	forms   []url.Values // token requests
}

type reply struct {
	status int
	header http.Header
	body   any // JSON; a string is sent as it is
}

// RoundTrip implements http.RoundTripper without a network, so that it works in a synctest bubble.
func (l *login) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	rec := httptest.NewRecorder()
	in := r.Clone(context.Background())
	if in.Body == nil {
		in.Body = http.NoBody
	}
	l.serve(rec, in)
	return rec.Result(), nil
}

func (l *login) serve(w http.ResponseWriter, r *http.Request) {
	tenant, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch {
	case r.Method == "GET" && path == "v2.0/.well-known/openid-configuration":
		l.send(w, reply{200, nil, map[string]any{"issuer": authority + "/" + tenant + "/v2.0",
			"authorization_endpoint":                authority + "/" + tenant + "/oauth2/v2.0/authorize",
			"token_endpoint":                        authority + "/" + tenant + "/oauth2/v2.0/token",
			"jwks_uri":                              authority + "/" + tenant + "/discovery/v2.0/keys",
			"id_token_signing_alg_values_supported": []string{"RS256"}}})
	case r.Method == "GET" && path == "discovery/v2.0/keys":
		pub := keys()[1].PublicKey
		l.send(w, reply{200, nil, map[string]any{"keys": []any{map[string]any{"kty": "RSA", "use": "sig", "kid": "k1",
			"n": base64.RawURLEncoding.EncodeToString(pub.N.Bytes()), "e": "AQAB"}}}})
	case r.Method == "POST" && (path == "oauth2/v2.0/token" || path == "oauth2/v2.0/devicecode"):
		body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		form, err := url.ParseQuery(string(body))
		if err != nil || r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" || r.URL.RawQuery != "" {
			l.t.Errorf("token request is not a form: %q", body)
		}
		l.check(form, authority+r.URL.Path)
		l.mu.Lock()
		l.forms = append(l.forms, form)
		next := reply{500, nil, "no answer prepared"}
		if len(l.answers) > 0 {
			next, l.answers = l.answers[0], l.answers[1:]
		}
		l.mu.Unlock()
		l.send(w, next)
	default:
		l.t.Errorf("unexpected %s %s", r.Method, r.URL)
		w.WriteHeader(http.StatusNotFound)
	}
}

func (l *login) send(w http.ResponseWriter, r reply) {
	for k, v := range r.header {
		w.Header()[k] = v
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(r.status)
	if s, ok := r.body.(string); ok {
		_, _ = io.WriteString(w, s)
		return
	}
	_ = json.NewEncoder(w).Encode(r.body)
}

// check requires what teams-tenant §1 lists for each grant.
func (l *login) check(form url.Values, endpoint string) {
	if form.Get("client_id") != clientID {
		l.t.Errorf("client_id = %q, want %q", form.Get("client_id"), clientID)
	}
	want := map[string][]string{
		"authorization_code": {"code", "redirect_uri", "code_verifier", "scope"},
		"refresh_token":      {"refresh_token", "scope"},
		"client_credentials": {"scope"},
		"urn:ietf:params:oauth:grant-type:device_code": {"device_code"},
	}
	grant := form.Get("grant_type")
	if strings.HasSuffix(endpoint, "/devicecode") {
		return
	}
	if want[grant] == nil {
		l.t.Errorf("grant_type %q", grant)
	}
	for _, name := range want[grant] {
		if form.Get(name) == "" {
			l.t.Errorf("%s without %s", grant, name)
		}
	}
	if grant == "client_credentials" && !strings.HasSuffix(form.Get("scope"), "/.default") {
		l.t.Errorf("client credentials for scope %q, want resource/.default", form.Get("scope"))
	}
	if form.Get("client_secret") != "" {
		return
	}
	if form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
		l.t.Errorf("client_assertion_type = %q", form.Get("client_assertion_type"))
	}
	checkAssertion(l.t, form.Get("client_assertion"), endpoint)
}

// checkAssertion verifies the assertion with crypto/rsa alone.
func checkAssertion(t *testing.T, assertion, endpoint string) {
	parts := strings.Split(assertion, ".")
	if len(parts) != 3 {
		t.Fatalf("the assertion has %d parts", len(parts))
	}
	var header, claims map[string]any
	for i, into := range []*map[string]any{&header, &claims} {
		raw, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil || json.Unmarshal(raw, into) != nil {
			t.Fatalf("part %d of the assertion is not base64url JSON", i)
		}
	}
	thumbprint := sha256.Sum256(certificate().Raw)
	if header["alg"] != "PS256" || header["x5t#S256"] != base64.RawURLEncoding.EncodeToString(thumbprint[:]) {
		t.Errorf("assertion header = %v", header)
	}
	now := float64(time.Now().Unix())
	nbf, _ := claims["nbf"].(float64)
	exp, _ := claims["exp"].(float64)
	if claims["aud"] != endpoint || claims["iss"] != clientID || claims["sub"] != clientID || claims["jti"] == "" ||
		nbf > now || exp < now+60 || exp > now+600 {
		t.Errorf("assertion claims = %v at %v for %s", claims, now, endpoint)
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	sig, _ := base64.RawURLEncoding.DecodeString(parts[2])
	if err := rsa.VerifyPSS(&keys()[0].PublicKey, crypto.SHA256, sum[:], sig,
		&rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}); err != nil {
		t.Errorf("signature of the assertion: %v", err)
	}
}

func (l *login) answer(rs ...reply) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answers = append(l.answers, rs...)
}

// asked returns the token requests since the last call.
func (l *login) asked() []url.Values {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.forms
	l.forms = nil
	return f
}

// token is a successful answer.
func token(access, refresh string, more ...any) reply {
	body := map[string]any{"token_type": "Bearer", "expires_in": 3600, "ext_expires_in": 3600, "access_token": access}
	if refresh != "" {
		body["refresh_token"] = refresh
	}
	for i := 0; i < len(more); i += 2 {
		body[more[i].(string)] = more[i+1]
	}
	return reply{200, nil, body}
}

// withRoles is an access token in JWT form that has these application permissions.
func withRoles(name string, roles ...string) string {
	s, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"jti": name, "roles": roles}).
		SignedString([]byte("not checked by clients"))
	if err != nil {
		panic(err)
	}
	return s
}

func refusal(oauth string, code int, text string, more ...any) reply {
	body := map[string]any{"error": oauth, "error_codes": []int{code}, "timestamp": "2026-11-29 09:00:00Z",
		"trace_id": "trace-1", "correlation_id": "correlation-1",
		"error_description": fmt.Sprintf("AADSTS%d: %s Trace ID: trace-1 Correlation ID: correlation-1", code, text)}
	for i := 0; i < len(more); i += 2 {
		body[more[i].(string)] = more[i+1]
	}
	return reply{400, nil, body}
}

func newApp(t *testing.T) (*entra.App, *login) {
	l := &login{t: t}
	app, err := entra.New(entra.Config{Authority: authority, ClientID: clientID, Certificate: certificate(),
		Key: keys()[0], Transport: l})
	if err != nil {
		t.Fatal(err)
	}
	return app, l
}

// store is a Store in memory.
type store struct {
	mu     sync.Mutex
	newest string
	broken bool
}

func (s *store) RefreshToken(context.Context) (secret.Text, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return secret.New(s.newest), nil
}

func (s *store) KeepRefreshToken(_ context.Context, newest secret.Text) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken {
		return errors.New("database is unavailable")
	}
	s.newest = newest.Reveal()
	return nil
}

// outcome returns the refusal in err, an empty one if it has none.
func outcome(err error) entra.Refusal {
	if ref, ok := errors.AsType[*entra.Refusal](err); ok {
		return *ref
	}
	return entra.Refusal{}
}
