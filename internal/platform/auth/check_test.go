package auth

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	api "github.com/tandemgw/tandem/api/manage"
)

// TestTryNamesTheCheckThatFails breaks one thing at a time. The checks before it pass, those after it are not reached,
// and no result contains the token.
func TestTryNamesTheCheckThatFails(t *testing.T) {
	a := newAuthority(t)
	issuer := a.URL + "/realm"
	a.discovery("/realm/.well-known/openid-configuration", issuer)
	a.put("/keys", mustKeySet(t, "rsa1"))
	i, _, _ := newIssuer(t)
	cfg := Default()
	cfg.TrustRootsFile = a.roots(t)
	cfg.Issuers = []IssuerConfig{{Issuer: issuer, TenantID: tenant, Audiences: []string{"api://tandem"}},
		{Issuer: "https://127.0.0.1:1", Audiences: []string{"api://tandem"}}}
	v := verifier(t, cfg, i, Deps{})
	now := time.Now()
	good := map[string]any{"iss": issuer, "aud": "tandem", "tid": tenant, "azp": "bss",
		"roles": []string{"Other", "ProvisioningAPI.Read"}, "exp": now.Add(time.Hour).Unix(), "iat": now.Unix()}
	with := func(name string, value any) string {
		claims := maps.Clone(good)
		claims[name] = value
		return sign(t, jwt.SigningMethodRS256, signingKeys()["rsa1"], map[string]any{"kid": "rsa1"}, claims)
	}
	gone, _, err := i.clients.Create(t.Context(), "gone", []Role{RoleRead})
	if err != nil {
		t.Fatal(err)
	}
	revoked, _, err := i.IssueTokenFor(t.Context(), gone.ID+"@"+i.cfg.Issuer, RoleRead)
	if err != nil {
		t.Fatal(err)
	}
	if err := i.clients.Revoke(t.Context(), gone.ID); err != nil {
		t.Fatal(err)
	}

	for _, c := range []struct {
		token  string
		failed api.TokenCheckName
		detail string
	}{
		{with("tid", tenant), "", ""},
		{"Bearer " + with("tid", tenant), "format", "not a signed JSON Web Token"},
		{strings.Repeat("a", MaxTokenBytes+1), "format", "longer than"},
		{with("iss", "https://sts.windows.net/"+tenant+"/"), "issuer", "is not trusted"},
		{sign(t, jwt.SigningMethodHS256, []byte("k"), nil, good), "algorithm", `"HS256" is not accepted`},
		{with("exp", now.Add(-time.Hour).Unix()), "time", "has expired"},
		{with("nbf", now.Add(time.Hour).Unix()), "time", "not valid yet"},
		{with("aud", "https://graph.microsoft.com"), "audience", "https://graph.microsoft.com"},
		{with("tid", "b"+tenant[1:]), "tenant", "another tenant"},
		{with("azp", ""), "client", "names no client"},
		{with("tid", tenant) + "AA", "signature", "signature is wrong"},
		{sign(t, jwt.SigningMethodRS256, signingKeys()["rsa2"], map[string]any{"kid": "rsa2"}, good), "signature",
			`no key "rsa2"`},
		{with("iss", "https://127.0.0.1:1"), "signature", "its issuer cannot be reached"},
		{revoked.Reveal(), "revocation", "has been revoked"},
		{with("roles", []string{"Other"}), "roles", "Other"},
		{with("roles", []string{}), "roles", "none"},
	} {
		state := api.TokenCheckResultOK
		answer, err := (&Operations{Verifier: v}).CheckToken(t.Context(),
			api.CheckTokenRequestObject{Body: &api.TokenQuestion{Token: c.token}})
		if err != nil {
			t.Fatal(err)
		}
		report := answer.(api.CheckToken200JSONResponse)
		results := report.Checks
		if report.OK != (c.failed == "") {
			t.Errorf("%s: the report says ok=%v", c.failed, report.OK)
		}
		if len(results) != len(checks) {
			t.Fatalf("%d results, want %d: %+v", len(results), len(checks), results)
		}
		for n, r := range results {
			want := state
			if r.Name == c.failed {
				want, state = api.TokenCheckResultFailed, api.TokenCheckResultNotReached
			}
			if r.Name != checks[n].name || r.Result != want ||
				(r.Remedy != "") != (want == api.TokenCheckResultFailed) ||
				want == api.TokenCheckResultFailed && !strings.Contains(r.Detail, c.detail) {
				t.Errorf("%s: %+v, want %s", c.failed, r, want)
			}
			if strings.Contains(r.Detail+r.Remedy, c.token) {
				t.Errorf("%s: the result contains the token: %+v", c.failed, r)
			}
		}
		if c.failed != "" && state != api.TokenCheckResultNotReached {
			t.Errorf("no check %q: %+v", c.failed, results)
		}
	}
}
