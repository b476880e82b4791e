package cases_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// apiVersion is the query of the Provisioning API's requests.
const apiVersion = "api-version=2024-02-29-preview"

// Case 20: control characters in correlationId are refused as docs/provisioning-errors.md says (trafficcontrol#6108,
// actor-ts#134, wazuh#38894).
func TestCase20CorrelationIDControls(t *testing.T) {
	t.Parallel()
	l := start(t)
	token := l.prog.Token
	url := l.prog.Ready.Provisioning + "/accounts/uni?" + apiVersion
	try := func(name, id string, want int) {
		t.Run(name, func(t *testing.T) {
			body := `{"name":"uni","correlationId":"` + id +
				`","serviceDetails":{"teamsTenantId":"6f1c9b1e-7a55-4a43-9d0e-0a5f6a1f2c3d"}}`
			status, answer := do(t, http.MethodPut, url, token, body)
			if status/100 != want/100 || want == 400 && status != 400 {
				t.Fatalf("answered %d %s, want %d", status, answer, want)
			}
			// NUL is refused in every string, with its own code.
			if want == 400 && !strings.Contains(id, `\u0000`) && !strings.Contains(answer, "InvalidCorrelationId") {
				t.Errorf("the response does not have the code InvalidCorrelationId: %s", answer)
			}
		})
	}
	for _, c := range []string{`\n`, `\r`, `\t`, `\u0085`, `\u001b`, `\u0000`, `\u0007`, `\b`, `\f`, `\u007f`, `\u009f`,
		`\u0009`, `\r\n`} {
		try("inside "+c, "a"+c+"b", 400)
		try("before "+c, c+"ab", 400)
		try("after "+c, "ab"+c, 400)
	}
	try("none", "a b-c_d.1", 200)
}

// do sends a request with a bearer token.
func do(t *testing.T, method, url, token, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	client := http.Client{Timeout: patience}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// issuer is an OpenID issuer on loopback.
type issuer struct {
	url string

	mu      sync.Mutex // guards the fields below
	keys    []any
	fetches int
}

func newIssuer(t *testing.T, ip string) *issuer {
	t.Helper()
	l, err := net.Listen("tcp4", ip+":9000")
	if err != nil {
		t.Fatal(err)
	}
	is := &issuer{url: "http://" + l.Addr().String()}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		is.mu.Lock()
		defer is.mu.Unlock()
		if strings.Contains(r.URL.Path, "openid") {
			_ = json.NewEncoder(w).Encode(map[string]string{"issuer": is.url, "jwks_uri": is.url + "/keys"})
			return
		}
		is.fetches++
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": is.keys})
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l) // ends with ErrServerClosed
	}()
	t.Cleanup(func() {
		s.Close()
		<-done
	})
	return is
}

// publish replaces the issuer's keys.
func (is *issuer) publish(keys ...*signingKey) {
	is.mu.Lock()
	defer is.mu.Unlock()
	is.keys = nil
	for _, k := range keys {
		is.keys = append(is.keys, k.public())
	}
}

func (is *issuer) fetched() int {
	is.mu.Lock()
	defer is.mu.Unlock()
	return is.fetches
}

type signingKey struct {
	id  string // none if empty
	key *rsa.PrivateKey
}

func newKey(t *testing.T, id string) *signingKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return &signingKey{id, k}
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// public returns the key as RFC 7517 writes it.
func (k *signingKey) public() map[string]string {
	j := map[string]string{"kty": "RSA", "use": "sig", "alg": "RS256",
		"n": b64(k.key.N.Bytes()), "e": b64(big.NewInt(int64(k.key.E)).Bytes())}
	if k.id != "" {
		j["kid"] = k.id
	}
	return j
}

// token signs a token of the issuer (RFC 7515, RFC 7519).
func (k *signingKey) token(t *testing.T, issuer string) string {
	t.Helper()
	head := map[string]string{"alg": "RS256", "typ": "JWT"}
	if k.id != "" {
		head["kid"] = k.id
	}
	now := time.Now().Unix()
	h, _ := json.Marshal(head)
	c, _ := json.Marshal(map[string]any{"iss": issuer, "aud": "x", "sub": "bss", "iat": now, "exp": now + 900,
		"roles": []string{"ProvisioningAPI.Read"}})
	text := b64(h) + "." + b64(c)
	sum := sha256.Sum256([]byte(text))
	sig, err := rsa.SignPKCS1v15(rand.Reader, k.key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + b64(sig)
}

// Case 13: an issuer replaces its key under the same kid. When no cached key verifies a signature, the keys are fetched
// again, whatever the kid (jazz#340), but not for each bad token (jwks-rsa-java#277).
func TestCase13KeyReplacedUnderSameID(t *testing.T) {
	for _, v := range []struct{ name, first, second string }{
		{"given", "A", "A"}, {"no kid", "", ""}, {"kid appears", "", "B"}, {"kid disappears", "A", ""},
		{"other kid", "A", "B"},
	} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			b := block(t)
			is := newIssuer(t, b+"8")
			old, next, never := newKey(t, v.first), newKey(t, v.second), newKey(t, v.first)
			is.publish(old)
			p := serve(t, b, `metrics: {listen: "127.76.0.9:9464"}
manage: {listen: "127.76.0.9:8081"}
provisioning: {listen: "127.76.0.9:8080", requestsPerMinute: 1000000}
auth: {issuers: [{issuer: "`+is.url+`", audiences: ["x"]}]}
calls: {groups: [{name: core, transport: udp, bind: {udp: "127.76.0.10:5060"}, options: {off: true}}]}
`)
			list := func(k *signingKey) int {
				url := strings.TrimRight(p.Ready.Provisioning, "/") + "/accounts?" + apiVersion
				status, _ := do(t, http.MethodGet, url, k.token(t, is.url), "")
				return status
			}
			if s := list(old); s != 200 {
				t.Fatalf("the first key's token was answered %d, want 200", s)
			}
			is.publish(next)
			for deadline := time.Now().Add(patience); list(next) != 200; time.Sleep(200 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("the new key's tokens are still refused after %v; fetches: %d", patience, is.fetched())
				}
			}
			if s := list(old); s != 401 {
				t.Errorf("the withdrawn key's token was answered %d, want 401", s)
			}
			before := is.fetched()
			for range 50 {
				if s := list(never); s != 401 {
					t.Fatalf("the token of an unpublished key was answered %d, want 401", s)
				}
			}
			if n := is.fetched() - before; n > 10 {
				t.Errorf("50 bad tokens caused %d fetches, want at most 10", n)
			}
		})
	}
}
