package entra_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/entra"
	"github.com/tandemgw/tandem/internal/platform/secret"
)

const redirectURI = "https://onboard.example/signed-in"

func TestConsent(t *testing.T) {
	app, _ := newApp(t)
	u, err := url.Parse(app.ConsentURL(entra.Organizations, redirectURI, "s1", graph+"/.default"))
	if err != nil {
		t.Fatal(err)
	}
	want := url.Values{"client_id": {clientID}, "redirect_uri": {redirectURI}, "state": {"s1"},
		"scope": {graph + "/.default"}}
	if u.Scheme+"://"+u.Host+u.Path != authority+"/organizations/v2.0/adminconsent" || !cmp.Equal(u.Query(), want) {
		t.Errorf("ConsentURL = %s", u)
	}

	ok := url.Values{"admin_consent": {"True"}, "tenant": {strings.ToUpper(tenantID)}, "state": {"s1"}, "scope": {"x"}}
	if got, err := entra.Consented("s1", ok); err != nil || got != tenantID {
		t.Errorf("Consented = %q, %v", got, err)
	}
	for name, change := range map[string]url.Values{
		"another session's state": {"state": {"s2"}},
		"no state":                {"state": {}},
		"no tenant":               {"tenant": {}},
		"tenant that is no GUID":  {"tenant": {"../evil"}},
		"no consent":              {"admin_consent": {"False"}},
	} {
		q := maps.Clone(ok)
		maps.Copy(q, change)
		if got, err := entra.Consented("s1", q); err == nil {
			t.Errorf("%s: Consented = %q, want an error", name, got)
		}
	}
	if _, err := entra.Consented("", url.Values{"admin_consent": {"True"}, "tenant": {tenantID}}); err == nil {
		t.Error("an empty state was accepted")
	}

	_, err = entra.Consented("s1", url.Values{"state": {"s1"}, "error": {"access_denied"},
		"error_description": {"AADSTS65004: The resource owner or authorization server denied the request."}})
	if ref := outcome(err); ref.Outcome != entra.Declined || ref.Code != 65004 {
		t.Errorf("declined consent: %v", err)
	}
}

// idToken signs claims as the login does, unless another key or method is given.
func idToken(t *testing.T, change map[string]any, method jwt.SigningMethod, key any) string {
	claims := jwt.MapClaims{"iss": authority + "/" + tenantID + "/v2.0", "aud": clientID, "tid": tenantID,
		"oid": objectID, "iat": time.Now().Unix(), "nbf": time.Now().Unix(),
		"exp": time.Now().Add(time.Hour).Unix(), "ver": "2.0",
		"sub": "pairwise", "preferred_username": "admin@contoso.example",
		"wids": []string{"62e90394-69f5-4237-9190-012177145e10", "69091246-20e8-4a56-aa4d-066075b2a7a8"}}
	maps.Copy(claims, change)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	tok := jwt.NewWithClaims(method, claims)
	tok.Header["kid"] = "k1"
	s, err := tok.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// signedIn is the answer that ends a sign-in.
func signedIn(t *testing.T, change map[string]any) reply {
	return token("a1", "r1", "id_token", idToken(t, change, jwt.SigningMethodRS256, keys()[1]))
}

func TestSignInByCode(t *testing.T) {
	app, l := newApp(t)
	s := entra.NewSignIn(tenantID, redirectURI, graph+"/.default")
	s.Prompt, s.Claims = "select_account", claimsText
	u, err := url.Parse(app.AuthoriseURL(s))
	if err != nil {
		t.Fatal(err)
	}
	if u.Scheme+"://"+u.Host+u.Path != authority+"/"+tenantID+"/oauth2/v2.0/authorize" {
		t.Errorf("AuthoriseURL = %s", u)
	}
	sum := sha256.Sum256([]byte(s.Verifier.Reveal()))
	want := url.Values{"client_id": {clientID}, "response_type": {"code"}, "response_mode": {"query"},
		"redirect_uri": {redirectURI}, "state": {s.State}, "nonce": {s.Nonce}, "code_challenge_method": {"S256"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "prompt": {"select_account"},
		"claims": {claimsText}, "scope": {"openid profile offline_access " + graph + "/.default"}}
	if diff := cmp.Diff(want, u.Query()); diff != "" {
		t.Errorf("query of AuthoriseURL (-want +got):\n%s", diff)
	}

	l.answer(signedIn(t, map[string]any{"nonce": s.Nonce}))
	grant, err := app.Redeem(t.Context(), s, url.Values{"state": {s.State}, "code": {"c1"}})
	if err != nil {
		t.Fatal(err)
	}
	id := entra.Identity{TenantID: tenantID, ObjectID: objectID, Name: "admin@contoso.example",
		Roles: []string{"62e90394-69f5-4237-9190-012177145e10", "69091246-20e8-4a56-aa4d-066075b2a7a8"}}
	if diff := cmp.Diff(id, grant.Identity); diff != "" || grant.RefreshToken.Reveal() != "r1" {
		t.Errorf("grant (-want +got):\n%s refresh token %q", diff, grant.RefreshToken.Reveal())
	}
	form := l.asked()[0]
	if form.Get("code") != "c1" || form.Get("code_verifier") != s.Verifier.Reveal() ||
		form.Get("redirect_uri") != redirectURI {
		t.Errorf("redeemed with %v", form)
	}

	for name, q := range map[string]url.Values{
		"another state": {"state": {"x"}, "code": {"c1"}},
		"no state":      {"code": {"c1"}},
		"refusal":       {"state": {s.State}, "error": {"access_denied"}, "error_description": {"AADSTS65004: no"}},
	} {
		if _, err := app.Redeem(t.Context(), s, q); err == nil {
			t.Errorf("%s was redeemed", name)
		}
	}
	if n := len(l.asked()); n != 0 {
		t.Errorf("%d codes were redeemed after wrong redirects", n)
	}
}

func TestIDTokensThatAreNotAccepted(t *testing.T) {
	rs, ours := jwt.SigningMethodRS256, keys()[1]
	for name, c := range map[string]struct {
		change map[string]any
		method jwt.SigningMethod
		key    any
	}{
		"another audience":         {map[string]any{"aud": otherID}, rs, ours},
		"another nonce":            {map[string]any{"nonce": "x"}, rs, ours},
		"no nonce":                 {map[string]any{"nonce": nil}, rs, ours},
		"another issuer":           {map[string]any{"iss": "https://evil.example/" + tenantID + "/v2.0"}, rs, ours},
		"issuer of another tenant": {map[string]any{"iss": authority + "/" + otherID + "/v2.0"}, rs, ours},
		"no tenant":                {map[string]any{"tid": nil}, rs, ours},
		"a path as tenant":         {map[string]any{"tid": "../" + tenantID}, rs, ours},
		"expired":                  {map[string]any{"exp": time.Now().Add(-time.Hour).Unix()}, rs, ours},
		"a stranger's key":         {nil, rs, keys()[2]},
		"not signed":               {nil, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType},
		"signed by shared key":     {nil, jwt.SigningMethodHS256, []byte("key")},
		"roles of another type":    {map[string]any{"wids": "62e90394"}, rs, ours},
	} {
		app, l := newApp(t)
		s := entra.NewSignIn(tenantID, redirectURI, graph+"/.default")
		change := map[string]any{"nonce": s.Nonce}
		maps.Copy(change, c.change)
		l.answer(token("a1", "r1", "id_token", idToken(t, change, c.method, c.key)))
		_, err := app.Redeem(t.Context(), s, url.Values{"state": {s.State}, "code": {"c1"}})
		if !fault.HasCode(err, "InvalidIDToken") {
			t.Errorf("%s: %v; want InvalidIDToken", name, err)
		}
	}
}

func TestWhoSignedIn(t *testing.T) {
	const personal = "9188040d-6c67-4c5b-b112-36a304b66dad"
	for name, c := range map[string]struct {
		change          map[string]any
		personal, guest bool
	}{
		"member": {map[string]any{"acct": 0}, false, false},
		"guest":  {map[string]any{"acct": 1}, false, true},
		"guest without the optional claim": {map[string]any{"idp": "https://sts.windows.net/" + otherID + "/"},
			false, true},
		"member with its own provider": {map[string]any{"idp": "https://sts.windows.net/" + tenantID + "/"},
			false, false},
		"personal account as guest": {map[string]any{"idp": "live.com"}, true, true},
		"personal account": {map[string]any{"tid": personal, "iss": authority + "/" + personal + "/v2.0", "wids": nil},
			true, false},
	} {
		app, l := newApp(t)
		s := entra.NewSignIn(entra.Organizations, redirectURI, graph+"/.default")
		change := map[string]any{"nonce": s.Nonce}
		maps.Copy(change, c.change)
		l.answer(signedIn(t, change))
		grant, err := app.Redeem(t.Context(), s, url.Values{"state": {s.State}, "code": {"c1"}})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if id := grant.Identity; id.Personal != c.personal || id.Guest != c.guest {
			t.Errorf("%s: %+v; want personal %v, guest %v", name, id, c.personal, c.guest)
		}
	}
}

func TestSignInToAnotherTenantIsRefused(t *testing.T) {
	app, l := newApp(t)
	s := entra.NewSignIn(otherID, redirectURI, graph+"/.default")
	l.answer(signedIn(t, map[string]any{"nonce": s.Nonce}))
	_, err := app.Redeem(t.Context(), s, url.Values{"state": {s.State}, "code": {"c1"}})
	if outcome(err).Outcome != entra.AccountUnsuitable || !strings.Contains(fault.As(err).Message, tenantID) ||
		!strings.Contains(fault.As(err).Message, otherID) {
		t.Errorf("%v; want the account refused, with both tenants", err)
	}
}

func TestSignInByDeviceCode(t *testing.T) {
	started := reply{200, nil, map[string]any{"device_code": "d1", "user_code": "ABCD-EFGH", "expires_in": 900,
		"verification_uri": "https://login.example/device", "interval": 5, "message": "…"}}
	pending := refusal("authorization_pending", 70016, "pending")
	for name, c := range map[string]struct {
		answers []reply
		want    entra.Outcome // "" for success
		within  time.Duration
	}{
		"entered":      {[]reply{pending, pending}, "", 15 * time.Second},
		"slowed down":  {[]reply{refusal("slow_down", 70016, "slow down"), pending}, "", 25 * time.Second},
		"login hiccup": {[]reply{{503, nil, "x"}, pending}, "", 25 * time.Second},
		"blocked": {[]reply{pending, refusal("access_denied", 53003, "Access has been blocked by Conditional Access")},
			entra.DeviceCodeBlocked, 10 * time.Second},
		"declined": {[]reply{refusal("authorization_declined", 999999, "declined")}, entra.Declined, 5 * time.Second},
		"expired":  {[]reply{refusal("expired_token", 70019, "expired")}, entra.DeviceCodeExpired, 5 * time.Second},
		"nobody":   {slices.Repeat([]reply{pending}, 200), entra.DeviceCodeExpired, 905 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			app, l := newApp(t)
			l.answer(started)
			d, err := app.StartDevice(t.Context(), tenantID, graph+"/.default")
			if err != nil || d.UserCode != "ABCD-EFGH" || d.VerificationURI != "https://login.example/device" {
				t.Fatalf("%s: StartDevice = %+v, %v", name, d, err)
			}
			l.answer(c.answers...)
			l.answer(signedIn(t, nil))

			begin := time.Now()
			grant, err := awaitDevice(t, app, d)
			if c.want == "" && (err != nil || grant.RefreshToken.Reveal() != "r1" ||
				grant.Identity.ObjectID != objectID) {
				t.Errorf("%s: %+v, %v", name, grant, err)
			}
			if c.want != outcome(err).Outcome || time.Since(begin) != c.within {
				t.Errorf("%s: %v after %v; want %q after %v", name, err, time.Since(begin), c.want, c.within)
			}
		})
	}
}

// awaitDevice polls until the sign-in ends.
func awaitDevice(t *testing.T, app *entra.App, d *entra.Device) (*entra.Grant, error) {
	for {
		time.Sleep(d.Interval) // in a synctest bubble
		grant, err := app.PollDevice(t.Context(), d)
		if !fault.Is(err, fault.Unavailable) {
			return grant, err
		}
	}
}

// The codes of teams-tenant §1 and of tenant-cases 1, 3 and 4, each with two values of "error": the code decides.
func TestEachCodeSaysWhatToDo(t *testing.T) {
	for code, want := range map[int]struct {
		outcome entra.Outcome
		says    string
	}{
		65001:   {entra.ConsentNeeded, "step 1"},
		90094:   {entra.ConsentNeeded, "administrator"},
		65004:   {entra.Declined, "declined"},
		50076:   {entra.SignInNeeded, "multi-factor"},
		50079:   {entra.SignInNeeded, "multi-factor"},
		50158:   {entra.SignInNeeded, "conditional access"},
		53003:   {entra.SignInNeeded, "conditional access"},
		700082:  {entra.SignInNeeded, "signs in again"},
		70043:   {entra.SignInNeeded, "frequency"},
		50173:   {entra.SignInNeeded, "revoked"},
		70008:   {entra.SignInNeeded, "expired"},
		700016:  {entra.ConsentNeeded, "does not exist in the tenant"},
		500011:  {entra.ConsentNeeded, "does not exist in the tenant"},
		7000215: {entra.OurFault, "operator"},
		7000222: {entra.OurFault, "operator"},
		700027:  {entra.OurFault, "certificate"},
		90002:   {entra.TenantNotFound, "tenant"},
		900023:  {entra.TenantNotFound, "tenant"},
	} {
		for _, oauth := range []string{"invalid_grant", "interaction_required"} {
			app, l := newApp(t)
			l.answer(refusal(oauth, code, "text"))
			_, err := app.Connect(tenantID, &store{newest: "r1"}, time.Time{}).Source(graph).Token(t.Context())
			ref, f := outcome(err), fault.As(err)
			if ref.Outcome != want.outcome || f.Code != string(want.outcome) || ref.Code != code {
				t.Errorf("%d with %s: %v, code %d; want %s", code, oauth, err, ref.Code, want.outcome)
			}
			if !strings.Contains(f.Message, want.says) || !strings.Contains(f.Message, fmt.Sprintf("AADSTS%d", code)) {
				t.Errorf("%d: message %q; want %q and the code in it", code, f.Message, want.says)
			}
			if operators := want.outcome == entra.OurFault; fault.Is(err, fault.Conflict) == operators {
				t.Errorf("%d: kind %v; a conflict is for the tenant's people", code, f.Kind)
			}
			if ref.Trace != "trace-1" || ref.Correlation != "correlation-1" {
				t.Errorf("%d: %+v; want Microsoft's ids", code, ref)
			}
		}
	}
}

func TestCodesWithoutARule(t *testing.T) {
	for _, c := range []struct {
		answer reply
		want   entra.Outcome
		code   int
	}{
		{refusal("invalid_grant", 999999, "new"), entra.SignInNeeded, 999999},
		{refusal("invalid_client", 999999, "new"), entra.OurFault, 999999},
		{refusal("invalid_request", 999999, "new"), entra.Refused, 999999},
		{reply{400, nil, map[string]any{"error": "invalid_grant", "error_description": "AADSTS70043: expired"}},
			entra.SignInNeeded, 70043}, // the list of codes is missing
		{refusal("invalid_grant", 50000, "x", "error_codes", []int{50000, 65001}), entra.ConsentNeeded, 65001},
		{reply{400, nil, "<html>"}, "", 0},
		{reply{200, nil, "<html>"}, "", 0},
		{reply{200, nil, map[string]any{"token_type": "Bearer"}}, "", 0},
		{reply{200, nil, strings.Repeat(" ", 2<<20)}, "", 0},
	} {
		app, l := newApp(t)
		l.answer(c.answer)
		_, err := app.Connect(tenantID, nil, time.Time{}).Source(graph).Token(t.Context())
		if ref := outcome(err); ref.Outcome != c.want || ref.Code != c.code {
			t.Errorf("%.200v: %v; want %q %d", c.answer.body, err, c.want, c.code)
		}
		if c.want == "" && !fault.HasCode(err, string(entra.Unavailable)) {
			t.Errorf("%.200v: %v; want unavailable", c.answer.body, err)
		}
	}
}

func TestRefusalsDuringSignIn(t *testing.T) {
	app, l := newApp(t)
	s := entra.NewSignIn(tenantID, redirectURI, graph+"/.default")
	l.answer(refusal("invalid_grant", 54005, "The code was already redeemed."))
	_, err := app.Redeem(t.Context(), s, url.Values{"state": {s.State}, "code": {"c1"}})
	if outcome(err).Outcome != entra.SignInNeeded {
		t.Errorf("a code redeemed twice: %v", err)
	}

	l.answer(refusal("invalid_request", 90002, "Tenant not found."))
	if _, err := app.StartDevice(t.Context(), otherID, "x"); outcome(err).Outcome != entra.TenantNotFound {
		t.Errorf("a device code of an unknown tenant: %v", err)
	}
}

func TestDelegatedScopesCountAsGranted(t *testing.T) {
	app, l := newApp(t)
	source := app.Connect(tenantID, &store{newest: "r1"}, time.Now()).Source(graph, "User.Read.All")
	l.answer(token("opaque", "", "scope", graph+"/User.Read.All openid"))
	mustToken(t, source, "opaque")
}

func TestClientSecret(t *testing.T) {
	l := &login{t: t}
	app, err := entra.New(entra.Config{Authority: authority, ClientID: clientID, Secret: secret.New("hunter2"),
		Transport: l})
	if err != nil {
		t.Fatal(err)
	}
	l.answer(refusal("invalid_client", 7000222, "The provided client secret keys are expired."), token("a1", ""))
	source := app.Connect(tenantID, nil, time.Time{}).Source(graph)
	_, err = source.Token(t.Context())
	if outcome(err).Outcome != entra.OurFault || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v; want the operator's fault, without the secret", err)
	}
	mustToken(t, source, "a1")
	if form := l.asked()[1]; form.Get("client_secret") != "hunter2" || form.Has("client_assertion") {
		t.Errorf("asked with %v", form)
	}
}

func TestConfiguration(t *testing.T) {
	cert, key, sec := certificate(), keys()[0], secret.New("x")
	for name, c := range map[string]struct {
		cfg entra.Config
		ok  bool
	}{
		"certificate": {entra.Config{ClientID: clientID, Certificate: cert, Key: key}, true},
		"secret":      {entra.Config{ClientID: clientID, Secret: sec}, true},
		"national cloud": {entra.Config{Authority: "https://login.example", ClientID: clientID,
			Secret: sec}, true},
		"no credential":           {entra.Config{ClientID: clientID}, false},
		"certificate without key": {entra.Config{ClientID: clientID, Certificate: cert, Secret: sec}, false},
		"key without certificate": {entra.Config{ClientID: clientID, Key: key}, false},
		"no client id":            {entra.Config{Secret: sec}, false},
		"plain HTTP": {entra.Config{Authority: "http://login.example", ClientID: clientID,
			Secret: sec}, false},
	} {
		if _, err := entra.New(c.cfg); (err == nil) != c.ok {
			t.Errorf("%s: %v; accepted should be %v", name, err, c.ok)
		}
	}
}

func TestErrorsHoldNoTokens(t *testing.T) {
	app, l := newApp(t)
	s := entra.NewSignIn(tenantID, redirectURI)
	bad := idToken(t, map[string]any{"aud": otherID}, jwt.SigningMethodRS256, keys()[1])
	l.answer(token("access-1", "refresh-1", "id_token", bad))
	_, err := app.Redeem(t.Context(), s, url.Values{"state": {s.State}, "code": {"code-1"}})
	text := err.Error() + fmt.Sprintf("%+v", err)
	for _, hidden := range []string{"access-1", "refresh-1", "code-1", bad, s.Verifier.Reveal()} {
		if strings.Contains(text, hidden) {
			t.Errorf("%q holds %q", text, hidden)
		}
	}
	if b, _ := json.Marshal(s); strings.Contains(string(b), s.Verifier.Reveal()) {
		t.Error("the verifier is in the JSON of a SignIn")
	}
}
