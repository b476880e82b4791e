package auth

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// signText returns a signed token with exactly this header and these claims.
func signText(t testing.TB, header, claims string) string {
	t.Helper()
	enc := base64.RawURLEncoding.EncodeToString
	text := enc([]byte(header)) + "." + enc([]byte(claims))
	sig, err := jwt.SigningMethodES256.Sign(text, signingKeys()["p256"])
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + enc(sig)
}

// TestTokensAreReadStrictly: claim names are unique and case-sensitive (RFC 7519 §4), so are header parameter names
// (RFC 7515 §4), and each claim has its type (RFC 7519 §4.1). All these tokens are signed with the issuer's own key.
func TestTokensAreReadStrictly(t *testing.T) {
	a := newAuthority(t)
	issuer := a.URL + "/realm"
	a.discovery("/realm/.well-known/openid-configuration", issuer)
	a.put("/keys", mustKeySet(t, "p256"))
	cfg := Default()
	cfg.TrustRootsFile = a.roots(t)
	cfg.Issuers = []IssuerConfig{{Issuer: issuer, TenantID: tenant, Audiences: []string{"us"}}}
	v := verifier(t, cfg, nil, Deps{})

	const header = `{"alg":"ES256","kid":"p256","typ":"JWT"}`
	now := time.Now().Unix()
	claims := map[string]string{"iss": `"` + issuer + `"`, "aud": `"us"`, "tid": `"` + tenant + `"`, "sub": `"bss"`,
		"exp": fmt.Sprint(now + 900), "roles": `["ProvisioningAPI.Read"]`}
	body := func(changes ...string) string { // name, JSON text; an empty text leaves the member out
		c := map[string]string{}
		for k, x := range claims {
			c[k] = x
		}
		for i := 0; i < len(changes); i += 2 {
			c[changes[i]] = changes[i+1]
		}
		var l []string
		for k, x := range c {
			if x != "" {
				l = append(l, `"`+k+`":`+x)
			}
		}
		return "{" + strings.Join(l, ",") + "}"
	}
	with := func(more string) string { return strings.TrimSuffix(body(), "}") + "," + more + "}" }
	const rejected, expired = CodeInvalidToken, CodeExpiredToken
	for _, tc := range []struct{ name, header, claims, want string }{
		{"as it should be", header, body(), "accepted"},
		{"unknown claims of any type", header, with(`"x":{"y":[null,1.5,{"z":true}]},"Nonce":"n"`), "accepted"},
		{"unknown claims in other cases of known names", header,
			with(`"AUD":"other","Roles":["ProvisioningAPI.Admin"],"EXP":1,"Tid":"x"`), "accepted"},
		{"exp with a fraction", header, body("exp", fmt.Sprintf("%d.5", now+900)), "accepted"},
		{"unknown header parameter", `{"alg":"ES256","kid":"p256","x":1}`, body(), "accepted"},

		{"AUD for aud", header, body("aud", "", "AUD", `"us"`), rejected},
		{"Tid for tid", header, body("tid", "", "Tid", `"`+tenant+`"`), rejected},
		{"EXP for exp", header, body("exp", "", "EXP", fmt.Sprint(now+900)), rejected},
		{"ISS for iss", header, body("iss", "", "ISS", `"`+issuer+`"`), rejected},
		{"EXP after an exp that has passed", header, `{"exp":1,` +
			body("exp", "", "EXP", fmt.Sprint(now+900))[1:], expired},
		{"two aud", header, with(`"aud":"us"`), rejected},
		{"two roles", header, with(`"roles":["ProvisioningAPI.Admin"]`), rejected},
		{"two roles, one with an escaped letter", header, with(`"r\u006fles":["ProvisioningAPI.Admin"]`), rejected},
		{"two of an unknown claim", header, with(`"x":1,"x":1`), rejected},
		{"two of a name inside an unknown claim", header, with(`"x":{"y":1,"y":2}`), rejected},
		{"exp as a string", header, body("exp", fmt.Sprintf(`"%d"`, now+900)), rejected},
		{"exp null", header, body("exp", "null"), rejected},
		{"exp true", header, body("exp", "true"), rejected},
		{"exp in a list", header, body("exp", fmt.Sprintf("[%d]", now+900)), rejected},
		{"exp below zero", header, body("exp", "-1"), rejected},
		{"exp beyond any time", header, body("exp", "1e300"), rejected},
		{"exp beyond a float", header, body("exp", "1e999"), rejected},
		{"exp that overflows 64 bits", header, body("exp", "99999999999999999999"), rejected},
		{"exp with a leading zero", header, body("exp", "0"+fmt.Sprint(now+900)), rejected},
		{"nbf as a string", header, body("nbf", `"0"`), rejected},
		{"nbf in the far future", header, body("nbf", "1e11"), rejected},
		{"iat null", header, body("iat", "null"), rejected},
		{"aud a number", header, body("aud", "7"), rejected},
		{"aud a list with a number", header, body("aud", `["us",7]`), rejected},
		{"aud null", header, body("aud", "null"), rejected},
		{"aud an object", header, body("aud", `{"us":1}`), rejected},
		{"roles an object", header, body("roles", `{"ProvisioningAPI.Admin":true}`), rejected},
		{"sub a number", header, body("sub", "7"), rejected},
		{"azp null", header, body("azp", "null"), rejected},
		{"claims a list", header, "[" + body() + "]", rejected},
		{"claims null", header, "null", rejected},
		{"something after the claims", header, body() + "{}", rejected},
		{"a byte order mark", header, "\ufeff" + body(), rejected},
		{"not UTF-8", header, body("x", "\"\xff\""), rejected},
		{"half a surrogate pair", header, body("x", `"\ud800"`), rejected},
		{"nested too deep", header, body("x", strings.Repeat("[", 2000)+strings.Repeat("]", 2000)), rejected},
		{"a comma too many", header, strings.TrimSuffix(body(), "}") + ",}", rejected},

		{"ALG for alg", `{"ALG":"ES256","kid":"p256"}`, body(), rejected},
		{"alg in lower case", `{"alg":"es256","kid":"p256"}`, body(), rejected},
		{"two alg", `{"alg":"ES256","alg":"ES256","kid":"p256"}`, body(), rejected},
		{"none before alg", `{"alg":"none","alg":"ES256","kid":"p256"}`, body(), rejected},
		{"no alg", `{"kid":"p256"}`, body(), rejected},
		{"alg null", `{"alg":null,"kid":"p256"}`, body(), rejected},
		{"two kid", `{"alg":"ES256","kid":"x","kid":"p256"}`, body(), rejected},
		{"kid null", `{"alg":"ES256","kid":null}`, body(), rejected},
		{"empty crit", `{"alg":"ES256","kid":"p256","crit":[]}`, body(), rejected},
		{"crit null", `{"alg":"ES256","kid":"p256","crit":null}`, body(), rejected},
		{"b64 without crit", `{"alg":"ES256","kid":"p256","b64":false}`, body(), rejected},
		{"something after the header", header + " 1", body(), rejected},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, err := v.Verify(t.Context(), signText(t, tc.header, tc.claims))
			if code(err) != tc.want {
				t.Fatalf("Verify = %v, want %s", err, tc.want)
			}
			if err == nil && (hasAny(p, RoleAdmin) || !hasAny(p, RoleRead) || p.ClientID != "bss") {
				t.Errorf("principal = %+v", p)
			}
		})
	}
	good := signText(t, header, body())
	for name, token := range map[string]string{
		"padding":           good + "=",
		"a space":           strings.Replace(good, ".", ". ", 1),
		"standard alphabet": strings.Replace(good, ".", "+.", 1),
		"four parts":        good + ".",
		"a line break":      good[:10] + "\n" + good[10:],
	} {
		if _, err := v.Verify(t.Context(), token); code(err) != rejected {
			t.Errorf("a token with %s: %v", name, err)
		}
	}
}

// TestDocumentsOfIssuersAreReadStrictly: adding a second member to a document must not change the keys.
func TestDocumentsOfIssuersAreReadStrictly(t *testing.T) {
	keys := string(mustKeySet(t, "p256"))
	for name, doc := range map[string]string{
		"KEYS for keys":             strings.Replace(keys, `"keys"`, `"KEYS"`, 1),
		"two keys":                  `{"keys":[],` + keys[1:],
		"keys not a list":           `{"keys":{}}`,
		"keys null":                 `{"keys":null}`,
		"something after the set":   keys + "x",
		"two members in one key":    strings.Replace(keys, `"kty":"EC"`, `"kty":"EC","x":"","kty":"EC"`, 1),
		"Kty for kty":               strings.Replace(keys, `"kty"`, `"Kty"`, 1),
		"a key id that is a number": strings.Replace(keys, `"p256"`, `7`, 1),
	} {
		if k, err := parseKeySet([]byte(doc)); err == nil {
			t.Errorf("%s: accepted with %d keys", name, len(k))
		}
	}
	if k, err := parseKeySet([]byte(`{"other":{"keys":1},` + keys[1:])); err != nil || len(k) != 1 {
		t.Errorf("a key set with unknown members: %d keys, %v", len(k), err)
	}

	a := newAuthority(t)
	issuer := a.URL + "/realm"
	a.put("/keys", []byte(keys))
	for name, tc := range map[string]struct{ doc, want string }{
		"unknown members": {`{"issuer":"` + issuer + `","x":[1,{"a":null}],"jwks_uri":"` + a.URL +
			`/keys"}`, "accepted"},
		"two issuers": {`{"issuer":"https://evil.example","issuer":"` + issuer + `","jwks_uri":"` + a.URL +
			`/keys"}`, CodeIssuerUnavailable},
		"two jwks_uri": {`{"issuer":"` + issuer + `","jwks_uri":"https://evil.example/keys","jwks_uri":"` + a.URL +
			`/keys"}`, CodeIssuerUnavailable},
		"JWKS_URI":        {`{"issuer":"` + issuer + `","JWKS_URI":"` + a.URL + `/keys"}`, CodeIssuerUnavailable},
		"Issuer":          {`{"Issuer":"` + issuer + `","jwks_uri":"` + a.URL + `/keys"}`, CodeIssuerUnavailable},
		"text after it":   {`{"issuer":"` + issuer + `","jwks_uri":"` + a.URL + `/keys"} {}`, CodeIssuerUnavailable},
		"jwks_uri a list": {`{"issuer":"` + issuer + `","jwks_uri":["` + a.URL + `/keys"]}`, CodeIssuerUnavailable},
		"not UTF-8 inside": {`{"issuer":"` + issuer + `","jwks_uri":"` + a.URL + `/keys","x":"` + "\xff" + `"}`,
			CodeIssuerUnavailable},
	} {
		a.put("/realm/.well-known/openid-configuration", []byte(tc.doc))
		cfg := Default()
		cfg.TrustRootsFile = a.roots(t)
		cfg.Issuers = []IssuerConfig{{Issuer: issuer, Audiences: []string{"us"}}}
		tok := signText(t, `{"alg":"ES256"}`, fmt.Sprintf(`{"iss":%q,"aud":"us","sub":"bss","exp":%d}`, issuer,
			time.Now().Unix()+900))
		if _, err := verifier(t, cfg, nil, Deps{}).Verify(t.Context(), tok); code(err) != tc.want {
			t.Errorf("%s: Verify = %v, want %s", name, err, tc.want)
		}
	}
}

// rotating is a verifier of one issuer whose key set the test replaces, in fake time.
type rotating struct {
	v       *Verifier
	mu      sync.Mutex
	set     []byte
	fetches int
}

func newRotating(t *testing.T, set string) *rotating {
	r := &rotating{set: []byte(set)}
	cfg := Default()
	r.v = verifier(t, cfg, nil, Deps{})
	s := newKeySet("https://i.example", nil, nil, "", 24*time.Hour, quiet())
	s.fetch = r.fetch
	r.v.issuers["https://i.example"] = &trusted{issuerRule{issuer: "https://i.example", audiences: []string{"us"},
		algorithms: defaultAlgorithms}, s}
	return r
}

// TestAnIssuerReplacesItsKey under the same key id, or without one: the next token of the new key causes one fetch.
func TestAnIssuerReplacesItsKey(t *testing.T) {
	signingKeys()
	for _, kid := range []string{"A", ""} {
		synctest.Test(t, func(t *testing.T) {
			set := func(key string) string {
				j := string(must(encodeKey(kid, "RS256", signingKeys()[key].Public())))
				return `{"keys":[` + j + `]}`
			}
			token := func(key string, exp time.Duration) string {
				header := map[string]any{}
				if kid != "" {
					header["kid"] = kid
				}
				return sign(t, jwt.SigningMethodRS256, signingKeys()[key], header,
					map[string]any{"iss": "https://i.example", "aud": "us", "sub": "bss",
						"exp": time.Now().Add(exp).Unix()})
			}
			r := newRotating(t, set("rsa1"))
			check := func(what, tok, want string, most int) {
				t.Helper()
				before := r.count()
				if _, err := r.v.Verify(t.Context(), tok); code(err) != want {
					t.Errorf("key id %q: %s: %v, want %s", kid, what, err, want)
				}
				if n := r.count() - before; n > most {
					t.Errorf("key id %q: %s made %d fetches, want at most %d", kid, what, n, most)
				}
			}
			check("first token", token("rsa1", time.Hour), "accepted", 1)
			time.Sleep(time.Hour / 2)
			r.replace(set("rsa2"))
			check("an expired token of the new key", token("rsa2", -time.Hour), CodeExpiredToken, 0)
			check("a token of the new key", token("rsa2", time.Hour), "accepted", 1)
			check("a token of the old key", token("rsa1", time.Hour), CodeInvalidToken, 1)
			time.Sleep(time.Hour / 2)
			before := r.count()
			for range 500 {
				check("a token of an unknown key", token("rsa1", time.Hour), CodeInvalidToken, 1)
			}
			if n := r.count() - before; n > fetchBurst {
				t.Errorf("key id %q: 500 forged tokens made %d fetches, want at most %d", kid, n, fetchBurst)
			}
			// The issuer changes its key again while tokens are forged: the new key is used one pause later.
			r.replace(set("rsa1"))
			time.Sleep(fetchPause)
			check("a token of the newest key", token("rsa1", time.Hour), "accepted", 1)
		})
	}
}

// TestManyTokensOfANewKeyAtOnce: those that may not fetch wait for the fetch in progress.
func TestManyTokensOfANewKeyAtOnce(t *testing.T) {
	signingKeys()
	synctest.Test(t, func(t *testing.T) {
		r := newRotating(t, string(mustKeySet(t, "rsa1")))
		r.v.issuers["https://i.example"].keys.fetch = r.slowly(r.fetch)
		tok := func(key string) string {
			return sign(t, jwt.SigningMethodRS256, signingKeys()[key], nil, map[string]any{"iss": "https://i.example",
				"aud": "us", "sub": "bss", "exp": time.Now().Add(time.Hour).Unix()})
		}
		if _, err := r.v.Verify(t.Context(), tok("rsa1")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour / 2)
		r.replace(string(mustKeySet(t, "rsa2")))
		text := tok("rsa2")
		var done sync.WaitGroup
		first := make(chan struct{})
		done.Go(func() {
			close(first)
			if _, err := r.v.Verify(t.Context(), text); err != nil {
				t.Error(err)
			}
		})
		<-first
		time.Sleep(time.Millisecond) // in fake time: the fetch is in progress
		for range 50 {
			done.Go(func() {
				if _, err := r.v.Verify(t.Context(), text); err != nil {
					t.Error(err)
				}
			})
		}
		done.Wait()
		if n := r.count(); n > 1+fetchBurst {
			t.Errorf("51 tokens of a new key at once made %d fetches", n)
		}
	})
}

func (r *rotating) fetch(context.Context) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fetches++
	return r.set, nil
}

// slowly returns a fetch that takes a second of fake time.
func (r *rotating) slowly(fetch func(context.Context) ([]byte, error)) func(context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) {
		time.Sleep(time.Second)
		return fetch(ctx)
	}
}

func (r *rotating) replace(set string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.set = []byte(set)
}

func (r *rotating) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fetches
}
