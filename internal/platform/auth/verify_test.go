package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/web"
)

const tenant = "a7f4bd5c-cc01-40f4-8baa-2b6bdb272b8a"

func TestVerify(t *testing.T) {
	a := newAuthority(t)
	issuer := a.URL + "/realm"
	a.discovery("/realm/.well-known/openid-configuration", issuer)
	a.put("/keys", mustKeySet(t, "rsa1", "p256", "p384"))
	cfg := Default()
	cfg.TrustRootsFile = a.roots(t)
	cfg.Issuers = []IssuerConfig{{Issuer: issuer, TenantID: tenant, Audiences: []string{"api://tandem", "0f0e"}}}
	v := verifier(t, cfg, nil, Deps{})

	now := time.Now()
	good := map[string]any{"iss": issuer, "aud": "tandem", "tid": tenant, "sub": "s", "azp": "bss",
		"roles": []string{"ProvisioningAPI.Read", "Other"},
		"exp":   now.Add(time.Hour).Unix(), "nbf": now.Unix(), "iat": now.Unix()}
	claims := func(kv ...any) map[string]any {
		c := maps.Clone(good)
		for i := 0; i < len(kv); i += 2 {
			if kv[i+1] == nil {
				delete(c, kv[i].(string))
			} else {
				c[kv[i].(string)] = kv[i+1]
			}
		}
		return c
	}
	k := signingKeys()
	kid := func(id string) map[string]any { return map[string]any{"kid": id} }
	rs := func(c map[string]any) string { return sign(t, jwt.SigningMethodRS256, k["rsa1"], kid("rsa1"), c) }
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY",
		Bytes: must(x509.MarshalPKIXPublicKey(k["rsa1"].Public()))})
	parts := strings.Split(rs(good), ".")

	for _, tc := range []struct {
		name, token, want string
		part              string // of the message
	}{
		{"RS256", rs(good), "accepted", ""},
		{"PS256 with the same key", sign(t, jwt.SigningMethodPS256, k["rsa1"], kid("rsa1"), good), "accepted", ""},
		{"ES256", sign(t, jwt.SigningMethodES256, k["p256"], kid("p256"), good), "accepted", ""},
		{"no key id", sign(t, jwt.SigningMethodRS256, k["rsa1"], nil, good), "accepted", ""},
		{"access token type", sign(t, jwt.SigningMethodRS256, k["rsa1"], map[string]any{"kid": "rsa1", "typ": "at+JWT"},
			good), "accepted", ""},
		{"audience with api://", rs(claims("aud", "api://0f0e")), "accepted", ""},
		{"audience among others", rs(claims("aud", []string{"x", "api://tandem"})), "accepted", ""},
		{"tenant in upper case", rs(claims("tid", strings.ToUpper(tenant))), "accepted", ""},
		{"expired within the skew", rs(claims("exp", now.Add(-30*time.Second).Unix())), "accepted", ""},
		{"one role as a string", rs(claims("roles", "ProvisioningAPI.Read")), "accepted", ""},

		{"not a token", "abc", CodeInvalidToken, "not a signed JSON Web Token"},
		{"five parts", "a.b.c.d.e", CodeInvalidToken, "not a signed JSON Web Token"},
		{"too long", strings.Repeat("a", MaxTokenBytes+1), CodeInvalidToken, "longer than"},
		{"algorithm none", sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, kid("rsa1"), good),
			CodeInvalidToken, `algorithm "none" is not accepted`},
		{"HS256 keyed with the public key", sign(t, jwt.SigningMethodHS256, publicPEM, kid("rsa1"), good),
			CodeInvalidToken, `algorithm "HS256" is not accepted`},
		{"algorithm outside the list", sign(t, jwt.SigningMethodES384, k["p384"], kid("p384"), good), CodeInvalidToken,
			`algorithm "ES384" is not accepted`},
		{"EC key used as RSA", sign(t, jwt.SigningMethodRS256, k["rsa1"], kid("p256"), good), CodeInvalidToken,
			`no key "p256" for RS256`},
		{"unknown key id", sign(t, jwt.SigningMethodRS256, k["rsa2"], kid("rsa2"), good), CodeInvalidToken,
			`no key "rsa2"`},
		{"another's key under a known id", sign(t, jwt.SigningMethodRS256, k["rsa2"], kid("rsa1"), good),
			CodeInvalidToken, "signature is wrong"},
		{"changed payload", parts[0] + "." + strings.Split(rs(claims("azp", "x")), ".")[1] + "." + parts[2],
			CodeInvalidToken, "signature is wrong"},
		{"no signature", parts[0] + "." + parts[1] + ".", CodeInvalidToken, "signature is wrong"},
		{"other issuer", rs(claims("iss", a.URL+"/other")), CodeInvalidToken, "is not trusted"},
		{"no issuer", rs(claims("iss", nil)), CodeInvalidToken, "is not trusted"},
		{"other audience", rs(claims("aud", "graph")), CodeInvalidToken, "another audience (\"graph\")"},
		{"no audience", rs(claims("aud", nil)), CodeInvalidToken, "another audience"},
		{"audience by prefix", rs(claims("aud", "api://tandem2")), CodeInvalidToken, "another audience"},
		{"other tenant", rs(claims("tid", "b"+tenant[1:])), CodeInvalidToken, "another tenant"},
		{"no tenant", rs(claims("tid", nil)), CodeInvalidToken, "another tenant"},
		{"expired", rs(claims("exp", now.Add(-2*time.Minute).Unix())), CodeExpiredToken, "expired"},
		{"no expiry", rs(claims("exp", nil)), CodeInvalidToken, "exp is missing"},
		{"not yet valid", rs(claims("nbf", now.Add(2*time.Minute).Unix())), CodeInvalidToken, "not valid yet"},
		{"issued in the future", rs(claims("iat", now.Add(2*time.Minute).Unix())), CodeInvalidToken, "not valid yet"},
		{"names no client", rs(claims("sub", nil, "azp", nil)), CodeInvalidToken, "names no client"},
		{"claim of a wrong type", rs(claims("tid", 7)), CodeInvalidToken, "not a signed JSON Web Token"},
		{"critical extension", sign(t, jwt.SigningMethodRS256, k["rsa1"],
			map[string]any{"kid": "rsa1", "crit": []string{"b64"}}, good), CodeInvalidToken, "critical extensions"},
		{"type of another kind of token", sign(t, jwt.SigningMethodRS256, k["rsa1"],
			map[string]any{"kid": "rsa1", "typ": "logout+jwt"}, good), CodeInvalidToken, "its type is"},
		{"key id of a wrong type", sign(t, jwt.SigningMethodRS256, k["rsa1"], map[string]any{"kid": 1}, good),
			CodeInvalidToken, "kid must be a string, not a number"},
		{"key given in the token", sign(t, jwt.SigningMethodRS256, k["rsa2"],
			map[string]any{"kid": "mine", "jku": a.URL + "/evil", "jwk": map[string]any{"kty": "RSA"}}, good),
			CodeInvalidToken, `no key "mine"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, err := v.Verify(t.Context(), tc.token)
			if got := code(err); got != tc.want {
				t.Fatalf("Verify = %v (%s), want %s", err, got, tc.want)
			}
			if err != nil {
				if f := fault.As(err); f.Kind != fault.Unauthenticated || !contains(f.Message, tc.part) {
					t.Errorf("Verify = kind %v, message %q; want unauthenticated and %q in it", f.Kind,
						f.Message, tc.part)
				}
				return
			}
			if p.ClientID != "bss" || p.Issuer != issuer || !hasAny(p, RoleRead) || hasAny(p, RoleAdmin, RoleWrite) ||
				p.ID() != "bss@"+issuer {
				t.Errorf("principal = %+v", p)
			}
		})
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestEntraTenantAcceptsBothFormsOfOneTenant(t *testing.T) {
	a := newAuthority(t)
	sts := "https://sts.example.net"
	v1, v2 := sts+"/"+tenant+"/", a.URL+"/"+tenant+"/v2.0"
	a.discovery("/"+tenant+"/.well-known/openid-configuration", v1)
	a.discovery("/"+tenant+"/v2.0/.well-known/openid-configuration", v2)
	a.put("/keys", mustKeySet(t, "rsa1"))
	cfg := Default()
	cfg.TrustRootsFile = a.roots(t)
	cfg.Issuers = []IssuerConfig{{EntraTenantID: strings.ToUpper(tenant), Audiences: []string{"11112222-aaaa"},
		LoginURL: a.URL, StsURL: sts}}
	v := verifier(t, cfg, nil, Deps{})
	token := func(iss, aud, tid string, more map[string]any) string {
		c := map[string]any{"iss": iss, "aud": aud, "tid": tid, "sub": "object id",
			"exp": time.Now().Add(time.Hour).Unix(), "roles": []string{"ProvisioningAPI.Admin"}}
		maps.Copy(c, more)
		return sign(t, jwt.SigningMethodRS256, signingKeys()["rsa1"], map[string]any{"kid": "rsa1"}, c)
	}
	for _, tc := range []struct {
		name, token, want string
	}{
		{"version 1: appid and api:// audience", token(v1, "api://11112222-aaaa", tenant,
			map[string]any{"appid": "app"}), "accepted"},
		{"version 2: azp and bare audience", token(v2, "11112222-aaaa", tenant, map[string]any{"azp": "app"}),
			"accepted"},
		{"version 2 of another tenant", token(strings.Replace(v2, "a7f4", "b7f4", 1), "11112222-aaaa", "b"+tenant[1:],
			nil), CodeInvalidToken},
		{"our issuer, another tenant's tid", token(v2, "11112222-aaaa", "b"+tenant[1:], nil), CodeInvalidToken},
		{"version 1 without the last slash", token(strings.TrimSuffix(v1, "/"), "11112222-aaaa", tenant, nil),
			CodeInvalidToken},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, err := v.Verify(t.Context(), tc.token)
			if code(err) != tc.want {
				t.Fatalf("Verify = %v, want %s", err, tc.want)
			}
			if err == nil && (p.ClientID != "app" || !hasAny(p, RoleAdmin)) {
				t.Errorf("principal = %+v, want client app with the Admin role", p)
			}
		})
	}
	// The public cloud's names, from the defaults.
	rules := (&IssuerConfig{EntraTenantID: tenant, Audiences: []string{"x"}}).expand()
	got := []string{rules[0].issuer, rules[0].discovery, rules[1].issuer, rules[1].discovery}
	want := []string{
		"https://sts.windows.net/" + tenant + "/",
		"https://login.microsoftonline.com/" + tenant + "/.well-known/openid-configuration",
		"https://login.microsoftonline.com/" + tenant + "/v2.0",
		"https://login.microsoftonline.com/" + tenant + "/v2.0/.well-known/openid-configuration",
	}
	if !slices.Equal(got, want) {
		t.Errorf("issuers of the public cloud = %q, want %q", got, want)
	}
}

// TestIssuerOutage: while the issuer is unavailable tokens are still checked with the sealed file, also after a
// restart; a token that cannot be checked is answered 503, not 401.
func TestIssuerOutage(t *testing.T) {
	a := newAuthority(t)
	issuer := a.URL + "/realm"
	a.discovery("/realm/.well-known/openid-configuration", issuer)
	a.put("/keys", mustKeySet(t, "rsa1"))
	cfg := Default()
	cfg.TrustRootsFile = a.roots(t)
	cfg.Issuers = []IssuerConfig{{Issuer: issuer, Audiences: []string{"tandem"}}}
	ring, dir := keyring(t), t.TempDir()
	token := sign(t, jwt.SigningMethodRS256, signingKeys()["rsa1"], map[string]any{"kid": "rsa1"},
		map[string]any{"iss": issuer, "aud": "tandem", "sub": "bss", "exp": time.Now().Add(time.Hour).Unix()})
	start := func(dir string) *Verifier { return verifier(t, cfg, nil, Deps{Keyring: ring, CacheDir: dir}) }

	a.down.Store(true)
	_, err := start(dir).Verify(t.Context(), token)
	if f := fault.As(err); err == nil || f.Kind != fault.Unavailable || f.Code != CodeIssuerUnavailable ||
		f.RetryAfter <= 0 {
		t.Fatalf("Verify before the issuer was ever reached = %v; want IssuerUnavailable with a time to wait", err)
	}
	a.down.Store(false)
	if _, err := start(dir).Verify(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	a.Close()
	if _, err := start(dir).Verify(t.Context(), token); err != nil {
		t.Errorf("Verify after a restart without the issuer: %v", err)
	}

	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Fatalf("cache directory holds %v, %v; want one file", files, err)
	}
	name := filepath.Join(dir, files[0].Name())
	raw := must(os.ReadFile(name))
	if strings.Contains(string(raw), "rsa1") || strings.Contains(string(raw), "keys") {
		t.Error("the cached key set is not encrypted")
	}
	if st := must(os.Stat(name)); st.Mode().Perm() != 0o600 {
		t.Errorf("the cached key set has mode %v", st.Mode())
	}
	raw[len(raw)-1] ^= 1
	if err := os.WriteFile(name, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	log, text := logged()
	v := verifier(t, cfg, nil, Deps{Keyring: ring, CacheDir: dir, Log: log})
	if _, err := v.Verify(t.Context(), token); code(err) != CodeIssuerUnavailable {
		t.Errorf("Verify with a changed key file = %v; want that it is not used", err)
	}
	if !contains(text(), "cannot be used") {
		t.Errorf("the log does not report the changed file: %s", text())
	}
}

func TestDiscoveryIsDistrusted(t *testing.T) {
	a := newAuthority(t)
	issuer := a.URL + "/realm"
	token := sign(t, jwt.SigningMethodRS256, signingKeys()["rsa1"], map[string]any{"kid": "rsa1"},
		map[string]any{"iss": issuer, "aud": "tandem", "sub": "bss", "exp": time.Now().Add(time.Hour).Unix()})
	keys := string(mustKeySet(t, "rsa1"))
	for _, tc := range []struct{ name, document, keys, want string }{
		{"another issuer's document", `{"issuer":"https://evil.example","jwks_uri":"` + a.URL + `/keys"}`, keys,
			"is for issuer"},
		{"keys over plain HTTP", `{"issuer":"` + issuer + `","jwks_uri":"http://192.0.2.1/keys"}`, keys, "plain HTTP"},
		{"no key set named", `{"issuer":"` + issuer + `"}`, keys, "jwks_uri is missing"},
		{"not JSON", `<html>`, keys, "discovery document"},
		{"huge document", `{"issuer":"` + strings.Repeat("x", maxDiscoveryBytes) + `"}`, keys, "more than"},
		{"empty key set", `{"issuer":"` + issuer + `","jwks_uri":"` + a.URL + `/keys"}`, `{"keys":[]}`,
			"no usable key"},
		{"huge key set", `{"issuer":"` + issuer + `","jwks_uri":"` + a.URL + `/keys"}`, `{"keys":["` +
			strings.Repeat("x", maxKeySetBytes) + `"]}`, "more than"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a.put("/realm/.well-known/openid-configuration", []byte(tc.document))
			a.put("/keys", []byte(tc.keys))
			cfg := Default()
			cfg.TrustRootsFile = a.roots(t)
			cfg.Issuers = []IssuerConfig{{Issuer: issuer, Audiences: []string{"tandem"}}}
			_, err := verifier(t, cfg, nil, Deps{}).Verify(t.Context(), token)
			if code(err) != CodeIssuerUnavailable || !contains(err.Error(), tc.want) {
				t.Errorf("Verify = %v; want IssuerUnavailable because of %q", err, tc.want)
			}
			if f := fault.As(err); contains(f.Message, "evil") || contains(f.Message, a.URL) {
				t.Errorf("the public message reveals too much: %s", f.Message)
			}
		})
	}
}

// TestKeysOfOtherIssuersInASharedSet: Entra publishes keys of several issuers in one set and names the owner of each.
func TestKeysOfOtherIssuersInASharedSet(t *testing.T) {
	issuer := "https://login.example/" + tenant + "/v2.0"
	key := func(kid, issuer string) string {
		k := strings.TrimSuffix(string(must(encodeKey(kid, "", signingKeys()["p256"].Public()))), "}")
		return k + `,"issuer":"` + issuer + `"}`
	}
	set := `{"keys":[` + key("ours", issuer) + "," + key("any", "https://login.example/{tenantid}/v2.0") + "," +
		key("other", "https://login.example/other/v2.0") + `]}`
	s := newKeySet(issuer, func(context.Context) ([]byte, error) { return []byte(set), nil }, nil, "",
		time.Hour, quiet())
	for kid, want := range map[string]int{"ours": 1, "any": 1, "other": 0} {
		if k, err := s.known(t.Context(), kid, "ES256"); err != nil || k != want {
			t.Errorf("key %q: %d keys, %v; want %d", kid, k, err, want)
		}
	}
}

// TestKeySetsAreNotWrittenWithoutNeed: the embedded issuer's set is refreshed every half minute.
func TestKeySetsAreNotWrittenWithoutNeed(t *testing.T) {
	dir, ring := t.TempDir(), keyring(t)
	raw := mustKeySet(t, "p256")
	s := newKeySet("i", func(context.Context) ([]byte, error) { return raw, nil }, ring, dir, time.Hour, quiet())
	content := func() string {
		t.Helper()
		if err := s.refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		return string(must(os.ReadFile(s.path)))
	}
	first := content()
	if content() != first {
		t.Error("an unchanged set was written again")
	}
	s = newKeySet("i", s.fetch, ring, dir, time.Hour, quiet()) // a restart
	if content() != first {
		t.Error("an unchanged set was written again after a restart")
	}
	raw = mustKeySet(t, "p256", "rsa1")
	if content() == first {
		t.Error("a changed set was not written")
	}
}

func TestRunBlocksWithoutOtherIssuers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := verifier(t, Default(), nil, Deps{})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- v.Run(ctx) }()
		synctest.Wait()
		if len(done) > 0 {
			t.Error("Run returned before its context was done")
		}
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
}

func TestKeySetsLeaveOutUnusableKeys(t *testing.T) {
	ec := signingKeys()["p256"].Public().(*ecdsa.PublicKey)
	good := string(must(encodeKey("good", "", ec)))
	rsaKey := string(must(encodeKey("x", "", signingKeys()["rsa1"].Public().(*rsa.PublicKey))))
	for _, tc := range []struct{ name, key string }{
		{"encryption key", strings.Replace(good, `"sig"`, `"enc"`, 1)},
		{"symmetric key", `{"kty":"oct","k":"AAAA"}`},
		{"short RSA key", `{"kty":"RSA","n":"` + strings.Repeat("A", 20) + `8","e":"AQAB"}`},
		{"even exponent", strings.Replace(rsaKey, `"AQAB"`, `"AQAC"`, 1)},
		{"point off the curve", strings.Replace(good, `"y":"`, `"y":"A`, 1)},
		{"unknown curve", strings.Replace(good, "P-256", "secp256k1", 1)},
		{"not an object", `7`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := parseKeySet([]byte(`{"keys":[` + tc.key + `]}`)); err == nil {
				t.Errorf("a set of only %s is accepted", tc.key)
			}
			keys, err := parseKeySet([]byte(`{"keys":[` + tc.key + `,` + strings.Replace(good, "good", "g2", 1) + `]}`))
			if err != nil || len(keys) != 1 || keys[0].id != "g2" {
				t.Errorf("next to a good key: %v, %v; want only the good one", keys, err)
			}
		})
	}
}

func TestAuthorization(t *testing.T) {
	for _, tc := range []struct {
		headers []string
		want    string
	}{
		{[]string{"Bearer abc"}, "abc"},
		{[]string{"bearer  abc "}, "abc"},
		{nil, ""},
		{[]string{""}, ""},
		{[]string{"Bearer"}, ""},
		{[]string{"Bearer "}, ""},
		{[]string{"Basic abc"}, ""},
		{[]string{"Bearer a", "Bearer b"}, ""},
	} {
		got, err := Authorization(tc.headers)
		if got != tc.want || (err == nil) != (tc.want != "") {
			t.Errorf("Authorization(%q) = %q, %v; want %q", tc.headers, got, err, tc.want)
		}
		if err != nil && code(err) != web.CodeMissingToken {
			t.Errorf("Authorization(%q): code %s", tc.headers, code(err))
		}
	}
}

func TestAuthenticate(t *testing.T) {
	i, _, _ := newIssuer(t)
	s, _, err := i.IssueToken(t.Context(), "cli", RoleRead, RoleWrite)
	if err != nil {
		t.Fatal(err)
	}
	v := verifier(t, Default(), i, Deps{})
	id, roles, err := v.Authenticate(t.Context(), []string{"Bearer " + s.Reveal()})
	if err != nil || id != "local:cli@"+Default().Embedded.Issuer ||
		strings.Join(roles, " ") != "ProvisioningAPI.Read ProvisioningAPI.Write" {
		t.Errorf("Authenticate = %q, %q, %v", id, roles, err)
	}
	if _, _, err := v.Authenticate(t.Context(), nil); code(err) != web.CodeMissingToken {
		t.Errorf("Authenticate without a header = %v", err)
	}
	if _, _, err := v.Authenticate(t.Context(), []string{"Bearer x"}); code(err) != CodeInvalidToken {
		t.Errorf("Authenticate with an invalid token = %v", err)
	}
}

func TestParseRole(t *testing.T) {
	for s, want := range map[string]Role{
		"Read":                  RoleRead,
		"admin":                 RoleAdmin,
		"ProvisioningAPI.Write": RoleWrite,
		"Management.Admin":      RoleManagementAdmin,
		"Management.read":       "",
		"":                      "",
		"Root":                  "",
	} {
		if r, err := ParseRole(s); r != want || (err == nil) != (want != "") {
			t.Errorf("ParseRole(%q) = %q, %v; want %q", s, r, err, want)
		}
	}
}

func TestConfigProblemsAreAllReported(t *testing.T) {
	cfg := Default()
	if p := cfg.Validate(); len(p) != 0 {
		t.Fatalf("the default configuration has problems: %v", p)
	}
	cfg.ClockSkew = time.Hour
	cfg.Embedded.Algorithm = "HS256"
	cfg.Embedded.Audience = "a b"
	cfg.Issuers = []IssuerConfig{
		{},
		{EntraTenantID: "common", Audiences: []string{"a"}},
		{Issuer: "http://issuer.example", Audiences: []string{"a"}, Algorithms: []string{"RS256", "none"}},
		{Issuer: "https://ok.example", Audiences: []string{"a"}},
		{Issuer: "https://ok.example", Audiences: []string{"b"}},
		{Issuer: cfg.Embedded.Issuer, Audiences: []string{"b"}},
	}
	var targets []string
	for _, err := range cfg.Validate() {
		targets = append(targets, fault.As(err).Target)
	}
	want := "clockSkew embedded.audience embedded.algorithm issuers[0].issuer issuers[0].audiences " +
		"issuers[1].entraTenantId issuers[2].algorithms[1] issuers[2].issuer issuers[4].issuer issuers[5].issuer"
	if got := strings.Join(targets, " "); got != want {
		t.Errorf("problems at\n%s, want\n%s", got, want)
	}
	cfg = Default()
	cfg.Embedded.Enabled = false
	if p := cfg.Validate(); len(p) != 1 || !contains(p[0].Error(), "no client could sign in") {
		t.Errorf("without any issuer: %v", p)
	}
}
