package auth

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/secret"
)

// memory implements the three stores in memory. It can be made unavailable.
type memory struct {
	mu      sync.Mutex
	down    bool
	clients []Client
	keys    []SigningKey
	limits  map[string]int64
	asked   int
}

var _ interface {
	ClientStore
	KeyStore
	LimitStore
} = (*memory)(nil)

func (m *memory) enter() (func(), error) {
	m.mu.Lock()
	m.asked++
	if m.down {
		m.mu.Unlock()
		return nil, fault.New(fault.Unavailable, "DatabaseUnavailable", "the database is unavailable").
			After(7 * time.Second)
	}
	return m.mu.Unlock, nil
}

func (m *memory) setDown(down bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = down
}

func (m *memory) AddClient(_ context.Context, c Client) error {
	leave, err := m.enter()
	if err != nil {
		return err
	}
	defer leave()
	m.clients = append(m.clients, c)
	return nil
}

func (m *memory) Client(_ context.Context, id string) (Client, error) {
	leave, err := m.enter()
	if err != nil {
		return Client{}, err
	}
	defer leave()
	for _, c := range m.clients {
		if c.ID == id {
			return c, nil
		}
	}
	return Client{}, fault.New(fault.NotFound, CodeClientNotFound, "no such client")
}

func (m *memory) Clients(_ context.Context, after string, limit int) ([]Client, error) {
	leave, err := m.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	at := 1 + slices.IndexFunc(m.clients, func(c Client) bool { return c.ID == after }) // they are in order
	return slices.Clone(m.clients[at:min(at+limit, len(m.clients))]), nil
}

func (m *memory) RevokeClient(_ context.Context, id string, at time.Time) error {
	leave, err := m.enter()
	if err != nil {
		return err
	}
	defer leave()
	for i := range m.clients {
		if m.clients[i].ID == id {
			if m.clients[i].Revoked.IsZero() {
				m.clients[i].Revoked = at
			}
			return nil
		}
	}
	return fault.New(fault.NotFound, CodeClientNotFound, "no such client")
}

func (m *memory) SigningKeys(context.Context) ([]SigningKey, error) {
	leave, err := m.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	return slices.Clone(m.keys), nil
}

func (m *memory) AddSigningKey(_ context.Context, k SigningKey) error {
	leave, err := m.enter()
	if err != nil {
		return err
	}
	defer leave()
	m.keys = append(m.keys, k)
	return nil
}

func (m *memory) SealSigningKey(_ context.Context, id string, sealed []byte) error {
	leave, err := m.enter()
	if err != nil {
		return err
	}
	defer leave()
	for i := range m.keys {
		if m.keys[i].ID == id {
			m.keys[i].Sealed = sealed
		}
	}
	return nil
}

func (m *memory) DeleteSigningKey(_ context.Context, id string) error {
	leave, err := m.enter()
	if err != nil {
		return err
	}
	defer leave()
	m.keys = slices.DeleteFunc(m.keys, func(k SigningKey) bool { return k.ID == id })
	return nil
}

func (m *memory) LimitState(_ context.Context, key string) (int64, error) {
	leave, err := m.enter()
	if err != nil {
		return 0, err
	}
	defer leave()
	return m.limits[key], nil
}

func (m *memory) SwapLimitState(_ context.Context, key string, old, new int64) (bool, error) {
	leave, err := m.enter()
	if err != nil {
		return false, err
	}
	defer leave()
	if m.limits[key] != old {
		return false, nil
	}
	if m.limits == nil {
		m.limits = map[string]int64{}
	}
	m.limits[key] = new
	return true, nil
}

func keyring(t testing.TB) *secret.Keyring {
	t.Helper()
	k, err := secret.Ephemeral()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// signingKeys are generated once, because RSA keys are slow to generate.
var signingKeys = sync.OnceValue(func() map[string]crypto.Signer {
	r1, err1 := rsa.GenerateKey(rand.Reader, 2048)
	r2, err2 := rsa.GenerateKey(rand.Reader, 2048)
	e1, err3 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	e2, err4 := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		panic(err)
	}
	return map[string]crypto.Signer{"rsa1": r1, "rsa2": r2, "p256": e1, "p384": e2}
})

func mustKeySet(t testing.TB, kids ...string) []byte {
	t.Helper()
	var keys []json.RawMessage
	for _, kid := range kids {
		j, err := encodeKey(kid, "", signingKeys()[kid].Public())
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, j)
	}
	b, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// authority is an external OpenID issuer: a TLS server that serves documents by path and counts what is fetched.
type authority struct {
	*httptest.Server
	mu      sync.Mutex
	docs    map[string][]byte
	fetched atomic.Int64
	down    atomic.Bool
}

func newAuthority(t testing.TB) *authority {
	a := &authority{docs: map[string][]byte{}}
	a.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.fetched.Add(1)
		a.mu.Lock()
		doc, ok := a.docs[r.URL.Path]
		a.mu.Unlock()
		switch {
		case a.down.Load():
			w.WriteHeader(http.StatusBadGateway)
		case !ok:
			http.NotFound(w, r)
		default:
			_, _ = w.Write(doc)
		}
	}))
	a.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	t.Cleanup(a.Close)
	return a
}

func (a *authority) put(path string, doc []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.docs[path] = doc
}

func (a *authority) discovery(path, issuer string) {
	a.put(path, []byte(`{"issuer":"`+issuer+`","jwks_uri":"`+a.URL+`/keys"}`))
}

// roots writes the server's certificate to a file, for Config.TrustRootsFile.
func (a *authority) roots(t testing.TB) string {
	t.Helper()
	f := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(f, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw}),
		0o600); err != nil {
		t.Fatal(err)
	}
	return f
}

func verifier(t testing.TB, cfg Config, embedded *Issuer, deps Deps) *Verifier {
	t.Helper()
	if deps.Log == nil {
		deps.Log = quiet()
	}
	if problems := cfg.Validate(); len(problems) > 0 {
		t.Fatal(errors.Join(problems...))
	}
	v, err := NewVerifier(cfg, embedded, deps)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// sign returns a token. A nil key with method none or a []byte for HS256 makes a forgery.
func sign(t testing.TB, method jwt.SigningMethod, key any, header, claims map[string]any) string {
	t.Helper()
	tok := jwt.NewWithClaims(method, jwt.MapClaims(claims))
	for k, v := range header {
		tok.Header[k] = v
	}
	s, err := tok.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func code(err error) string {
	if err == nil {
		return "accepted"
	}
	return fault.As(err).Code
}

// logged returns a logger and what it wrote.
func logged() (*slog.Logger, func() string) {
	var mu sync.Mutex
	var buf bytes.Buffer
	h := slog.NewTextHandler(writerFunc(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return buf.Write(p)
	}), &slog.HandlerOptions{Level: slog.LevelDebug})
	return slog.New(h), func() string {
		mu.Lock()
		defer mu.Unlock()
		return buf.String()
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

var _ io.Writer = writerFunc(nil)

func contains(s, part string) bool { return strings.Contains(s, part) }

// known returns the number of keys in the set with an id and algorithm, whatever they signed.
func (s *keySet) known(ctx context.Context, kid, alg string) (int, error) {
	n, _, err := s.find(ctx, kid, alg, func(publicKey) bool { return true })
	return n, err
}

func hasAny(p *Principal, roles ...Role) bool {
	return slices.ContainsFunc(roles, func(r Role) bool { return slices.Contains(p.Roles, r) })
}
