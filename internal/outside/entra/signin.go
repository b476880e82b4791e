package entra

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/oauth2"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/secret"
)

// personalTenant holds all personal Microsoft accounts [K].
const personalTenant = "9188040d-6c67-4c5b-b112-36a304b66dad"

// SignIn is an interactive sign-in from its link to its answer. The caller keeps it with the browser's session, the
// Verifier sealed.
type SignIn struct {
	Tenant      string   // a GUID; Organizations if any tenant will do
	RedirectURI string   // a registered one
	Scopes      []string // of one resource; those for the id_token and the refresh token are added
	Prompt      string   // may be empty; "select_account", "consent"
	Claims      string   // may be empty; from the Refusal that this sign-in is to resolve

	State    string      // bound to the browser's session by the caller
	Nonce    string      // comes back in the id_token
	Verifier secret.Text // PKCE (RFC 7636)
}

// NewSignIn returns a sign-in with fresh random values.
func NewSignIn(tenant, redirectURI string, scopes ...string) SignIn {
	return SignIn{Tenant: tenant, RedirectURI: redirectURI, Scopes: scopes, State: rand.Text(), Nonce: rand.Text(),
		Verifier: secret.New(oauth2.GenerateVerifier())}
}

// Grant is the result of a sign-in.
type Grant struct {
	Identity     Identity
	RefreshToken secret.Text
}

// Identity says who signed in, from a checked id_token.
type Identity struct {
	TenantID string // where the sign-in was; the home tenant unless Guest
	ObjectID string // of the user in that tenant
	// Roles are the template ids of the user's directory roles. They are empty if the app registration does not ask for
	// the claim wids (groupMembershipClaims); then Graph's directory roles of the user say more.
	Roles    []string
	Personal bool   // a personal Microsoft account
	Guest    bool   // the account belongs to another tenant, such as a partner's [K]
	Name     string // preferred_username; for display only, it can change
}

// ConsentURL is where an administrator consents for the whole tenant to the permissions of scope, usually
// https://graph.microsoft.com/.default. tenant may be Organizations.
func (a *App) ConsentURL(tenant, redirectURI, state, scope string) string {
	return a.endpoint(tenant, "v2.0/adminconsent") + "?" + url.Values{"client_id": {a.cfg.ClientID},
		"redirect_uri": {redirectURI}, "state": {state}, "scope": {scope}}.Encode()
}

// Consented reads the redirect that ends ConsentURL and returns the tenant it names. Anyone can forge it: the tenant is
// proven by a token from it, not by this.
func Consented(state string, redirect url.Values) (tenant string, err error) {
	if err := checkRedirect(state, redirect); err != nil {
		return "", err
	}
	tenant = redirect.Get("tenant")
	if !strings.EqualFold(redirect.Get("admin_consent"), "true") || !domain.IsGUID(tenant) {
		return "", fault.New(fault.Invalid, "InvalidRedirect", "the answer does not say that an administrator "+
			"consented; open the link again")
	}
	return strings.ToLower(tenant), nil
}

func checkRedirect(state string, redirect url.Values) error {
	if state == "" || subtle.ConstantTimeCompare([]byte(state), []byte(redirect.Get("state"))) != 1 {
		return fault.New(fault.Invalid, "InvalidState", "the answer belongs to another session; open the link again")
	}
	return redirected(redirect)
}

// AuthoriseURL is where the person signs in.
func (a *App) AuthoriseURL(s SignIn) string {
	q := url.Values{"client_id": {a.cfg.ClientID}, "response_type": {"code"}, "response_mode": {"query"},
		"redirect_uri": {s.RedirectURI}, "scope": {withIdentity(s.Scopes)}, "state": {s.State}, "nonce": {s.Nonce},
		"code_challenge":        {oauth2.S256ChallengeFromVerifier(s.Verifier.Reveal())},
		"code_challenge_method": {"S256"}}
	for name, value := range map[string]string{"prompt": s.Prompt, "claims": s.Claims} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return a.endpoint(s.Tenant, "oauth2/v2.0/authorize") + "?" + q.Encode()
}

// withIdentity adds the scopes that give an id_token and a refresh token.
func withIdentity(scopes []string) string {
	return strings.Join(append([]string{"openid", "profile", "offline_access"}, scopes...), " ")
}

// Redeem checks the redirect that ends AuthoriseURL and redeems its code. A code can be redeemed once: after an error
// the person signs in again.
func (a *App) Redeem(ctx context.Context, s SignIn, redirect url.Values) (*Grant, error) {
	if err := checkRedirect(s.State, redirect); err != nil {
		return nil, err
	}
	r, err := a.token(ctx, s.Tenant, url.Values{"grant_type": {"authorization_code"}, "code": {redirect.Get("code")},
		"redirect_uri": {s.RedirectURI}, "scope": {withIdentity(s.Scopes)}, "code_verifier": {s.Verifier.Reveal()}})
	if err != nil {
		return nil, err
	}
	return a.grant(ctx, s.Tenant, s.Nonce, r)
}

// Device is a sign-in by device code (RFC 8628): a person enters UserCode at VerificationURI on any machine. The caller
// keeps it until PollDevice ends it, the Code sealed.
type Device struct {
	Tenant          string
	UserCode        string
	VerificationURI string
	Code            secret.Text
	Expires         time.Time
	Interval        time.Duration // to wait before each poll
}

// StartDevice asks for a device code. Many tenants block it (DeviceCodeBlocked).
func (a *App) StartDevice(ctx context.Context, tenant string, scopes ...string) (*Device, error) {
	var r struct {
		DeviceCode      string `json:"device_code"`
		UserCode        string `json:"user_code"`
		VerificationURI string `json:"verification_uri"`
		ExpiresIn       int64  `json:"expires_in"`
		Interval        int64  `json:"interval"`
	}
	form := url.Values{"scope": {withIdentity(scopes)}}
	if err := a.post(ctx, a.endpoint(tenant, "oauth2/v2.0/devicecode"), form, &r); err != nil {
		return nil, err
	}
	return &Device{tenant, r.UserCode, r.VerificationURI, secret.New(r.DeviceCode),
		time.Now().Add(time.Duration(r.ExpiresIn) * time.Second), time.Duration(max(r.Interval, 1)) * time.Second}, nil
}

// PollDevice asks once whether the person has signed in. Until then, the error has the outcome Wait, and a poll
// without an answer the outcome Unavailable: poll again after d.Interval, which grows when Microsoft asks for it.
func (a *App) PollDevice(ctx context.Context, d *Device) (*Grant, error) {
	r, err := a.token(ctx, d.Tenant, url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"},
		"device_code": {d.Code.Reveal()}})
	if err == nil {
		return a.grant(ctx, d.Tenant, "", r)
	}
	if time.Now().After(d.Expires) {
		return nil, refuse(&Refusal{Outcome: DeviceCodeExpired}, "the code expired; start again for a new one")
	}
	if ref, ok := errors.AsType[*Refusal](err); fault.Is(err, fault.Unavailable) && (!ok || ref.OAuth == "slow_down") {
		d.Interval += 5 * time.Second // RFC 8628 §3.5
	}
	return nil, err
}

// grant checks the id_token: signature by the keys of the tenant that it names, issuer, audience, expiry, nonce, and
// that the tenant is the expected one.
func (a *App) grant(ctx context.Context, tenant, nonce string, r *reply) (*Grant, error) {
	invalid := func(cause error, what string) error {
		return fault.New(fault.Conflict, "InvalidIDToken", "the sign-in's id_token is not valid: %s", what).
			Because(cause)
	}
	var unchecked struct {
		Tenant string `json:"tid"`
		jwt.RegisteredClaims
	}
	_, _, err := jwt.NewParser().ParseUnverified(r.IDToken, &unchecked)
	if err != nil || !domain.IsGUID(unchecked.Tenant) {
		return nil, invalid(err, "it names no tenant")
	}

	ctx = oidc.ClientContext(ctx, a.client)
	provider, err := oidc.NewProvider(ctx, a.endpoint(unchecked.Tenant, "v2.0"))
	if err != nil {
		return nil, unavailable(nil, err)
	}
	verifier := provider.VerifierContext(ctx, &oidc.Config{ClientID: a.cfg.ClientID,
		SupportedSigningAlgs: []string{oidc.RS256}})
	token, err := verifier.Verify(ctx, r.IDToken)
	if err != nil {
		return nil, invalid(err, "signature, issuer, audience or expiry is wrong")
	}
	var claims struct {
		Tenant   string   `json:"tid"`
		Object   string   `json:"oid"`
		Roles    []string `json:"wids"`
		Name     string   `json:"preferred_username"`
		Provider string   `json:"idp"`  // present if the account's home is elsewhere
		Account  *int     `json:"acct"` // optional claim: 0 member, 1 guest
	}
	if err := token.Claims(&claims); err != nil {
		return nil, invalid(err, "a claim has the wrong type")
	}
	if nonce != "" && subtle.ConstantTimeCompare([]byte(nonce), []byte(token.Nonce)) != 1 {
		return nil, invalid(nil, "it does not belong to this sign-in (nonce)")
	}

	id := Identity{TenantID: strings.ToLower(claims.Tenant), ObjectID: claims.Object, Roles: claims.Roles,
		Name:     claims.Name,
		Personal: strings.EqualFold(claims.Tenant, personalTenant) || claims.Provider == "live.com",
		Guest: claims.Account != nil && *claims.Account == 1 ||
			claims.Provider != "" && !strings.Contains(claims.Provider, claims.Tenant)}
	if domain.IsGUID(tenant) && !strings.EqualFold(tenant, claims.Tenant) {
		return nil, refuse(&Refusal{Outcome: AccountUnsuitable}, "the account "+id.Name+" belongs to the tenant "+
			id.TenantID+", not to "+tenant+"; sign in with an administrator's account of that tenant")
	}
	return &Grant{id, secret.New(r.RefreshToken)}, nil
}
