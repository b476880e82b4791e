package microsoft

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"html/template"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// App is the registration of an application.
type App struct {
	ID, ObjectID, Name string
	Home               string // id of the tenant where it is registered
	MultiTenant        bool
	Personal           bool   // personal accounts may sign in
	Public             bool   // needs no credential
	GroupClaims        string // groupMembershipClaims
	RedirectURIs       []string
	Secrets            []Secret
	Certificates       []*x509.Certificate
	// Application and Delegated are the permissions that it asks for.
	Application, Delegated []string
}

// Secret is a client secret.
type Secret struct {
	Value string
	Until time.Time
}

// Register adds the registration of an application.
func (c *Cloud) Register(a App) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a.ObjectID = cmp.Or(a.ObjectID, derived("object", a.ID))
	c.apps = append(c.apps, &a)
}

func (c *Cloud) app(id string) *App {
	for _, a := range c.apps {
		if strings.EqualFold(a.ID, id) {
			return a
		}
	}
	return nil
}

// session is a sign-in: behind an authorization code, a device code or a refresh token.
type session struct {
	kind             string // "code", "device" or "refresh"
	app              *App
	tenant           *Tenant
	user             *User
	partner          *Tenant // of the user, if it acts for a partner
	scopes           []string
	redirect, nonce  string
	challenge        string // of PKCE
	userCode         string
	pending, refused bool // a device code that was not entered yet, or declined
	used, mfa        bool
	signedIn, issued time.Time
}

const (
	codeLife    = 10 * time.Minute
	refreshLife = 90 * 24 * time.Hour
	tokenLife   = 75 * time.Minute
	deviceLife  = 15 * time.Minute
)

func loginRoutes() []*route {
	routes := []*route{
		op("GET /common/discovery/instance", instanceDiscovery, "", "", "*"),
		op("GET /{tenant}/v2.0/.well-known/openid-configuration", openIDMetadata, "", "", "*"),
		op("GET /{tenant}/discovery/v2.0/keys", keySet, "", "", "*"),
		op("POST /{tenant}/oauth2/v2.0/devicecode", (*call).deviceCode, "", "", "*"),
		op("POST /{tenant}/oauth2/v2.0/token", (*call).token, "", "", "*"),
	}
	for path, do := range map[string]func(*call, url.Values) (*pageData, error){
		"/{tenant}/oauth2/v2.0/authorize": (*call).authorize, "/{tenant}/v2.0/adminconsent": (*call).adminConsent,
		"/{tenant}/adminconsent": (*call).adminConsent, "/{tenant}/oauth2/deviceauth": (*call).deviceAuth} {
		routes = append(routes, op("GET "+path, page(do), "", "", "*"), op("POST "+path, page(do), "", "", "*"))
	}

	return routes
}

func instanceDiscovery(k *call) error {
	u, _ := url.Parse(k.cloud.urls[Login])
	cloud := Object{"preferred_network": u.Host, "preferred_cache": u.Host, "aliases": []string{u.Host}}
	return k.answer(200, Object{"api-version": "1.1", "metadata": []Object{cloud},
		"tenant_discovery_endpoint": k.cloud.urls[Login] + "/common/v2.0/.well-known/openid-configuration"})
}

// resolve returns the tenant of the path; nil for "common" and "organizations".
func (k *call) resolve() (*Tenant, error) {
	name := k.vars["tenant"]
	if name == "common" || name == "organizations" {
		return nil, nil
	}
	if t := k.cloud.tenant(name); t != nil {
		return t, nil
	}
	return nil, refuse("aadsts-90002", name)
}

func openIDMetadata(k *call) error {
	t, err := k.resolve()
	if err != nil {
		return err
	}
	id := "{tenantid}"
	if t != nil {
		id = t.ID
	}
	host, name := k.cloud.urls[Login], cmp.Or(k.vars["tenant"], "common")
	base := host + "/" + name

	return k.answer(200, Object{"issuer": host + "/" + id + "/v2.0",
		"authorization_endpoint":                base + "/oauth2/v2.0/authorize",
		"token_endpoint":                        base + "/oauth2/v2.0/token",
		"device_authorization_endpoint":         base + "/oauth2/v2.0/devicecode",
		"jwks_uri":                              base + "/discovery/v2.0/keys",
		"response_types_supported":              []string{"code"},
		"response_modes_supported":              []string{"query", "form_post"},
		"subject_types_supported":               []string{"pairwise"},
		"id_token_signing_alg_values_supported": []string{"RS256"},
		"scopes_supported":                      []string{"openid", "profile", "email", "offline_access"},
		"token_endpoint_auth_methods_supported": []string{"client_secret_post", "private_key_jwt"},
		"tenant_region_scope":                   "EU", "cloud_instance_name": "microsoftonline.com"})
}

const keyID = "sim-1"

func keySet(k *call) error {
	key := k.cloud.key
	return k.answer(200, Object{"keys": []Object{{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": keyID,
		"n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()),
		"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes())}}})
}

// loginError is the body of the token endpoint's errors.
func loginError(k *call, r *Refusal, trace string) any {
	at := k.cloud.now().UTC().Format("2006-01-02 15:04:05Z")
	o := Object{"error": r.Code, "timestamp": at, "trace_id": trace,
		"correlation_id": cmp.Or(k.r.Header.Get("client-request-id"), trace)}
	o["error_description"] = "AADSTS" + strconv.Itoa(r.AADSTS) + ": " + r.text + " Trace ID: " + trace +
		" Correlation ID: " + o["correlation_id"].(string) + " Timestamp: " + at
	o["error_codes"] = []int{r.AADSTS}
	o["error_uri"] = k.cloud.urls[Login] + "/error?code=" + strconv.Itoa(r.AADSTS)
	if r.Suberror != "" {
		o["suberror"] = r.Suberror
	}

	return o
}

// Pages.

var pageTemplate = template.Must(template.New("").Parse(`<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{.Title}}</title><h1>{{.Title}}</h1>
{{with .Error}}<p role="alert" id="error">{{.}}</p>{{end}}
{{if .Form}}<form method="post">
{{if .Code}}<p><label>Code <input name="code" value="{{.Given.Get "code"}}"></label>{{end}}
<p><label>Account <input name="login" value="{{.Given.Get "login"}}" autocomplete="username"></label>
<p><label>Password <input name="passwd" type="password"></label>
{{if .MFA}}<p><label>Code of the authenticator <input name="otc" inputmode="numeric"></label>{{end}}
{{with .App}}<p>{{.}} asks for:{{end}}<ul>{{range .Permissions}}<li>{{.}}</li>{{end}}</ul>
<p><button name="action" value="accept">Accept</button> <button name="action" value="cancel">Cancel</button>
</form>{{end}}</html>`))

type pageData struct {
	Title, Error, App string
	Form, Code, MFA   bool
	Given             url.Values
	Permissions       []string
}

// OTC is the code of every user's authenticator.
const OTC = "123456"

// page runs a handler of pages. A refusal is shown on the page; refusals that go to the client are redirected by the
// handler itself.
func page(do func(*call, url.Values) (*pageData, error)) func(*call) error {
	return func(k *call) error {
		given, err := url.ParseQuery(string(k.raw))
		if err != nil || k.r.Method == "GET" {
			given = url.Values{"login": {k.query.Get("login_hint")}, "code": {k.query.Get("code")}}
		}
		data, err := do(k, given)
		status := 200
		if r := (*Refusal)(nil); errors.As(err, &r) {
			if data == nil || !data.Form {
				status = r.Status
			}
			data = cmp.Or(data, &pageData{Title: "Sign in"})
			data.Error = "AADSTS" + strconv.Itoa(r.AADSTS) + ": " + r.text
			data.MFA = data.MFA || r.AADSTS == 50076
		} else if err != nil {
			return err
		}
		if data == nil {
			return nil // redirected
		}
		var b bytes.Buffer
		data.Given = given
		if err := pageTemplate.Execute(&b, data); err != nil {
			return err
		}
		k.header.Set("Content-Type", "text/html; charset=utf-8")
		return k.answer(status, b.Bytes())
	}
}

// redirect sends the browser back to the application.
func (k *call) redirect(to string, q url.Values) error {
	if state := k.query.Get("state"); state != "" {
		q.Set("state", state)
	}
	if k.query.Get("response_mode") == "form_post" {
		var b bytes.Buffer
		err := template.Must(template.New("").Parse(`<!DOCTYPE html><title>Working</title>
<form method="post" action="{{.To}}">{{range $n, $v := .Q}}<input type="hidden" name="{{$n}}" value="{{index $v 0}}">
{{end}}<button>Continue</button></form><script>document.forms[0].submit()</script>`)).
			Execute(&b, map[string]any{"To": to, "Q": q})
		k.header.Set("Content-Type", "text/html; charset=utf-8")
		return errors.Join(err, k.answer(200, b.Bytes()))
	}
	sign := "?"
	if strings.Contains(to, "?") {
		sign = "&"
	}
	k.header.Set("Location", to+sign+q.Encode())

	return k.answer(302, nil)
}

// refuseTo sends the browser back with a refusal.
func (k *call) refuseTo(to string, r *Refusal) error {
	q := url.Values{"error": {r.Code}, "error_description": {"AADSTS" + strconv.Itoa(r.AADSTS) + ": " + r.text}}
	if r.AADSTS == 65004 {
		q.Set("error_subcode", "cancel")
	}
	return k.redirect(to, q)
}

// client returns the application of a page's query after checks that must not redirect.
func (k *call) client() (*App, string, error) {
	for _, name := range []string{"client_id", "redirect_uri"} {
		if k.query.Get(name) == "" {
			return nil, "", refuse("aadsts-900144", name)
		}
	}
	a := k.cloud.app(k.query.Get("client_id"))
	if a == nil {
		return nil, "", refuse("aadsts-700016", k.query.Get("client_id"))
	}
	to := k.query.Get("redirect_uri")
	u, err := url.Parse(to)
	if err == nil && (u.Hostname() == "localhost" || u.Hostname() == "127.0.0.1") && u.Scheme == "http" {
		u.Host = u.Hostname() // RFC 8252 §7.3: any port
		to = strings.TrimSuffix(u.String(), "/")
	}
	for _, r := range a.RedirectURIs {
		if r == k.query.Get("redirect_uri") || strings.TrimSuffix(r, "/") == to {
			return a, k.query.Get("redirect_uri"), nil
		}
	}

	return nil, "", refuse("aadsts-50011", k.query.Get("redirect_uri"))
}

// signIn checks an account and its password, and returns the sign-in.
func (k *call) signIn(a *App, t *Tenant, given url.Values) (*session, error) {
	login := given.Get("login")
	se := &session{app: a, tenant: t, signedIn: k.cloud.now(), mfa: given.Get("otc") == OTC}
	for _, other := range k.cloud.tenants {
		u := other.state.live(login)
		if u == nil {
			for _, v := range other.state.Users {
				if v.Guest && v.Deleted.IsZero() && strings.EqualFold(v.Home, login) && other == t {
					u = v
				}
			}
		}
		if u == nil {
			continue
		}
		if t == nil || other == t {
			se.user, se.tenant, se.partner = u, other, nil
			break
		}
		if len(t.state.Partners[other.ID]) > 0 {
			se.user, se.partner = u, other
		}
	}
	switch {
	case se.user == nil:
		return nil, refuse("aadsts-50020", login)
	case se.tenant.ID == PersonalTenant && (k.vars["tenant"] == "organizations" || !a.Personal):
		return nil, refuse("aadsts-50020", login)
	case given.Get("passwd") != cmp.Or(se.user.Password, Password):
		return nil, refuse("aadsts-50126")
	case se.user.Disabled:
		return nil, refuse("aadsts-50057")
	case !a.MultiTenant && !strings.EqualFold(a.Home, se.tenant.ID):
		return nil, refuse("aadsts-50194", a.ID)
	case se.tenant.settings.MFA && !se.mfa:
		return nil, refuse("aadsts-50076")
	}

	return se, nil
}

// wids returns the ids of the directory roles that the user of a sign-in has.
func (se *session) wids() []string {
	if se.partner == nil {
		return se.tenant.state.wids(se.user.ID)
	}
	var ids []string
	for _, name := range se.tenant.state.Partners[se.partner.ID] {
		ids = append(ids, roles[name])
	}
	return ids
}

func hasAny(ids []string, names ...string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return slices.Contains(ids, roles[n]) })
}

func (k *call) adminConsent(given url.Values) (*pageData, error) {
	t, err := k.resolve()
	if err != nil {
		return nil, err
	}
	a, to, err := k.client()
	if err != nil {
		return nil, err
	}
	v2 := strings.Contains(k.r.URL.Path, "v2.0")
	if v2 && k.query.Get("scope") == "" {
		return nil, refuse("aadsts-900144", "scope")
	}
	data := &pageData{Title: "Permissions requested", Form: true, App: a.Name,
		Permissions: slices.Concat(a.Application, a.Delegated)}
	if k.r.Method == "GET" {
		return data, nil
	}
	if given.Get("action") != "accept" {
		return nil, k.refuseTo(to, refuse("aadsts-65004"))
	}
	se, err := k.signIn(a, t, given)
	if err != nil {
		return data, err
	}
	if !hasAny(se.wids(), "Global Administrator", "Privileged Role Administrator") {
		return nil, k.refuseTo(to, refuse("aadsts-90094", a.Name))
	}

	se.tenant.state.consent(a, a.Application, a.Delegated)
	q := url.Values{"admin_consent": {"True"}, "tenant": {se.tenant.ID}}
	if v2 {
		q.Set("scope", k.query.Get("scope"))
	}

	return nil, k.redirect(to, q)
}

func (k *call) authorize(given url.Values) (*pageData, error) {
	t, err := k.resolve()
	if err != nil {
		return nil, err
	}
	a, to, err := k.client()
	if err != nil {
		return nil, err
	}
	q, scopes := k.query, strings.Fields(k.query.Get("scope"))
	switch {
	case q.Get("response_type") != "code":
		return nil, k.refuseTo(to, refuse("aadsts-700054", q.Get("response_type")))
	case len(scopes) == 0:
		return nil, k.refuseTo(to, refuse("aadsts-900144", "scope"))
	case q.Get("code_challenge") == "" && a.Public:
		return nil, k.refuseTo(to, refuse("aadsts-9002325"))
	case q.Get("code_challenge") != "" && q.Get("code_challenge_method") != "S256":
		return nil, k.refuseTo(to, refuse("aadsts-501491"))
	}
	data := &pageData{Title: "Sign in", Form: true, App: a.Name, Permissions: scopes}
	if k.r.Method == "GET" {
		return data, nil
	}
	if given.Get("action") != "accept" {
		return nil, k.refuseTo(to, refuse("aadsts-65004"))
	}
	se, err := k.signIn(a, t, given)
	if err != nil {
		return data, err
	}
	if err := k.consentOnSignIn(se, scopes); err != nil {
		var r *Refusal
		errors.As(err, &r)
		return nil, k.refuseTo(to, r)
	}

	code := k.cloud.random()
	se.kind, se.scopes, se.redirect, se.nonce = "code", scopes, to, q.Get("nonce")
	se.challenge, se.issued = q.Get("code_challenge"), k.cloud.now()
	k.cloud.codes[code] = se

	return nil, k.redirect(to, url.Values{"code": {code}, "session_state": {k.cloud.random()}})
}

// consentOnSignIn adds the permissions that an administrator accepts by signing in; others need them already.
func (k *call) consentOnSignIn(se *session, scopes []string) error {
	resource, names, err := parseScopes(scopes)
	if err != nil || resource == "" {
		return err
	}
	s, p := se.tenant.state, se.tenant.state.principal(se.app.ID)
	granted := granted(p, resource, se.user.ID)
	missing := slices.DeleteFunc(slices.Clone(names), func(n string) bool {
		return slices.Contains(granted, n) || n == ".default" && len(granted) > 0
	})
	if len(missing) == 0 {
		return nil
	}
	if !hasAny(se.wids(), "Global Administrator", "Privileged Role Administrator") {
		return refuse("aadsts-90094", se.app.Name)
	}
	if slices.Contains(missing, ".default") {
		missing = slices.DeleteFunc(slices.Clone(se.app.Delegated), func(n string) bool {
			return (n == "user_impersonation") != (resource == TeamsID)
		})
	}
	if p == nil {
		p = s.consent(se.app, nil, nil)
	}
	s.grant(p, resource, se.user.ID, missing)

	return nil
}

// granted returns the delegated permissions of a principal for a user.
func granted(p *Principal, resource, user string) []string {
	var scopes []string
	if p == nil {
		return nil
	}
	for _, g := range p.Grants {
		if g.Resource == resource && (g.User == "" || g.User == user) {
			scopes = append(scopes, g.Scopes...)
		}
	}

	return scopes
}

var openIDScopes = []string{"openid", "profile", "email", "offline_access"}

// parseScopes returns the application id of the one resource that the scopes are of, "" for none, and their names.
func parseScopes(scopes []string) (resource string, names []string, err error) {
	for _, scope := range scopes {
		if slices.Contains(openIDScopes, scope) {
			continue
		}
		id, name := GraphID, scope
		if i := strings.LastIndex(scope, "/"); i >= 0 {
			switch id, name = strings.TrimSuffix(scope[:i], "/"), scope[i+1:]; id {
			case graphName, GraphID:
				id = GraphID
			case TeamsID, "api://" + TeamsID:
				id = TeamsID
			default:
				return "", nil, refuse("aadsts-500011", id)
			}
		}
		_, known := permissions[name]
		if name != ".default" && (!known || (name == "user_impersonation") != (id == TeamsID)) {
			return "", nil, refuse("aadsts-70011", scope)
		}
		if resource != "" && resource != id {
			return "", nil, refuse("aadsts-28000")
		}
		resource, names = id, append(names, name)
	}

	return resource, names, nil
}

func (k *call) deviceCode() error {
	form, a, err := k.form()
	if err != nil {
		return err
	}
	t, err := k.resolve()
	if err != nil {
		return err
	}
	scopes := strings.Fields(form.Get("scope"))
	if _, _, err := parseScopes(scopes); err != nil {
		return err
	}
	code := k.cloud.random()
	se := &session{kind: "device", app: a, tenant: t, scopes: scopes, pending: true, issued: k.cloud.now(),
		userCode: k.cloud.random()[:9]}
	k.cloud.codes[code] = se
	uri := k.cloud.urls[Login] + "/common/oauth2/deviceauth"

	return k.answer(200, Object{"device_code": code, "user_code": se.userCode, "verification_uri": uri,
		"expires_in": int(deviceLife.Seconds()), "interval": 5,
		"message": "To sign in, open " + uri + " and enter the code " + se.userCode + "."})
}

func (k *call) deviceAuth(given url.Values) (*pageData, error) {
	data := &pageData{Title: "Enter code", Form: true, Code: true}
	if k.r.Method == "GET" {
		return data, nil
	}
	for code, se := range k.cloud.codes {
		if se.kind != "device" || se.userCode != given.Get("code") || !se.pending {
			continue
		}
		if given.Get("action") != "accept" {
			se.pending, se.refused = false, true
			return &pageData{Title: "Cancelled"}, nil
		}
		in, err := k.signIn(se.app, se.tenant, given)
		if err != nil {
			return data, err
		}
		in.kind, in.scopes, in.userCode, in.issued = "device", se.scopes, se.userCode, se.issued
		if err := k.consentOnSignIn(in, in.scopes); err != nil {
			return data, err
		}
		k.cloud.codes[code] = in
		return &pageData{Title: "Signed in. You may close this window."}, nil
	}

	return data, refuse("aadsts-70019")
}

// form returns the form of a token request and its application.
func (k *call) form() (url.Values, *App, error) {
	form, err := url.ParseQuery(string(k.raw))
	if err != nil || !strings.HasPrefix(k.r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		return nil, nil, refuse("aadsts-900144", "client_id")
	}
	a := k.cloud.app(form.Get("client_id"))
	if form.Get("client_id") == "" {
		return nil, nil, refuse("aadsts-900144", "client_id")
	} else if a == nil {
		return nil, nil, refuse("aadsts-700016", form.Get("client_id"))
	}

	return form, a, nil
}

func (k *call) token() error {
	t, err := k.resolve()
	if err != nil {
		return err
	}
	form, a, err := k.form()
	if err != nil {
		return err
	}
	grant := form.Get("grant_type")
	if err := k.credential(form, a, grant); err != nil {
		return err
	}
	switch grant {
	case "client_credentials":
		return k.clientCredentials(form, a, t)
	case "authorization_code":
		return k.redeem(form, a, t, "code", form.Get("code"))
	case "urn:ietf:params:oauth:grant-type:device_code", "device_code":
		return k.redeem(form, a, t, "device", form.Get("device_code"))
	case "refresh_token":
		return k.redeem(form, a, t, "refresh", form.Get("refresh_token"))
	case "":
		return refuse("aadsts-900144", "grant_type")
	}

	return refuse("aadsts-70003", grant)
}

// credential checks how the application proves itself.
func (k *call) credential(form url.Values, a *App, grant string) error {
	secret, assertion := form.Get("client_secret"), form.Get("client_assertion")
	switch {
	case assertion != "":
		if form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
			return refuse("aadsts-900144", "client_assertion_type")
		}
		return k.assertion(assertion, a)
	case secret != "":
		for _, s := range a.Secrets {
			if s.Value == secret && !s.Until.IsZero() && s.Until.Before(k.cloud.now()) {
				return refuse("aadsts-7000222", a.ID)
			} else if s.Value == secret {
				return nil
			}
		}
		return refuse("aadsts-7000215", a.ID)
	case a.Public && grant != "client_credentials":
		return nil
	}

	return refuse("aadsts-7000218")
}

// assertion checks a JWT that the application signed with its certificate.
func (k *call) assertion(raw string, a *App) error {
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"RS256", "PS256"}), jwt.WithoutClaimsValidation())
	claims := jwt.MapClaims{}
	_, err := parser.ParseWithClaims(raw, claims, func(t *jwt.Token) (any, error) {
		for _, cert := range a.Certificates {
			one, two := sha1.Sum(cert.Raw), sha256.Sum256(cert.Raw)
			if t.Header["x5t"] == base64.RawURLEncoding.EncodeToString(one[:]) ||
				t.Header["x5t#S256"] == base64.RawURLEncoding.EncodeToString(two[:]) {
				return cert.PublicKey, nil
			}
		}
		return nil, errors.New("no such certificate")
	})
	if errors.Is(err, jwt.ErrTokenMalformed) {
		return refuse("aadsts-50027")
	} else if err != nil {
		return refuse("aadsts-700027")
	}
	audience, _ := claims.GetAudience()
	issuer, _ := claims.GetIssuer()
	subject, _ := claims.GetSubject()
	id, _ := claims["jti"].(string)
	host := k.cloud.urls[Login]
	if !slices.ContainsFunc(audience, func(v string) bool {
		return v == host+k.r.URL.Path || strings.HasPrefix(v, host+"/") && strings.HasSuffix(v, "/oauth2/v2.0/token")
	}) {
		return refuse("aadsts-700023", strings.Join(audience, " "))
	}
	if issuer != a.ID || subject != a.ID || id == "" {
		return refuse("aadsts-700021")
	}
	now, skew := k.cloud.now(), 5*time.Minute
	expires, _ := claims.GetExpirationTime()
	from, _ := claims.GetNotBefore()
	if expires == nil || expires.Before(now.Add(-skew)) || from != nil && from.After(now.Add(skew)) {
		return refuse("aadsts-700024")
	}

	return nil
}

func (k *call) clientCredentials(form url.Values, a *App, t *Tenant) error {
	if t == nil {
		return refuse("aadsts-90002", k.vars["tenant"])
	}
	resource, names, err := parseScopes(strings.Fields(form.Get("scope")))
	if err != nil {
		return err
	}
	if len(names) != 1 || names[0] != ".default" {
		return refuse("aadsts-1002012", form.Get("scope"))
	}
	p := t.state.principal(a.ID)
	if p == nil {
		return refuse("aadsts-700016", a.ID)
	}
	if t.state.principal(resource) == nil {
		return refuse("aadsts-500011", resource)
	}
	if p.refusals > 0 {
		p.refusals--
		return refuse("aadsts-65001", a.ID)
	}
	roleNames := []string{}
	for _, r := range p.Roles {
		if r.Resource == resource && !k.lagging(t, p, r.Name) {
			roleNames = append(roleNames, r.Name)
		}
	}
	claims := k.claims(t, a, resource, form)
	claims["oid"], claims["sub"], claims["idtyp"], claims["roles"] = p.ID, p.ID, "app", roleNames
	claims["wids"] = t.state.wids(p.ID)

	return k.answer(200, Object{"token_type": "Bearer", "expires_in": int(tokenLife.Seconds()),
		"ext_expires_in": int(tokenLife.Seconds()), "access_token": k.sign(claims)})
}

// lagging reports whether a consented permission is not visible yet.
func (k *call) lagging(t *Tenant, p *Principal, name string) bool {
	return k.cloud.now().Before(p.consented.Add(t.settings.ConsentLag)) &&
		slices.Contains(t.settings.ConsentMissing, name)
}

// redeem gives tokens for a code, a device code or a refresh token.
func (k *call) redeem(form url.Values, a *App, t *Tenant, kind, code string) error {
	se := k.cloud.codes[code]
	now := k.cloud.now()
	switch {
	case code == "":
		return refuse("aadsts-900144", kind)
	case se == nil || se.kind != kind || se.app != a:
		return refuse("aadsts-9002313")
	case kind == "device" && se.refused:
		return refuse("aadsts-65004-token")
	case kind == "device" && now.After(se.issued.Add(deviceLife)):
		return refuse("aadsts-70020")
	case kind == "device" && se.pending:
		return refuse("aadsts-70016")
	case kind == "device" && se.tenant.settings.BlockDeviceCode:
		return refuse("aadsts-53003")
	case kind == "code" && se.used:
		return refuse("aadsts-54005")
	case kind == "code" && now.After(se.issued.Add(codeLife)):
		return refuse("aadsts-70008")
	case kind == "code" && form.Get("redirect_uri") != se.redirect:
		return refuse("aadsts-500112")
	case t != nil && t != se.tenant:
		return refuse("aadsts-700005")
	}
	if kind == "code" && se.challenge != "" {
		sum := sha256.Sum256([]byte(form.Get("code_verifier")))
		if base64.RawURLEncoding.EncodeToString(sum[:]) != se.challenge {
			return refuse("aadsts-501481")
		}
	}
	if err := k.alive(se, kind); err != nil {
		return err
	}

	scopes := se.scopes
	if form.Get("scope") != "" {
		scopes = strings.Fields(form.Get("scope"))
	}
	out, err := k.delegated(form, se, scopes)
	if err != nil {
		return err
	}
	se.used = true
	if kind == "device" {
		delete(k.cloud.codes, code)
	}
	if slices.Contains(scopes, "offline_access") || slices.Contains(se.scopes, "offline_access") {
		next := *se
		next.kind, next.issued, next.used = "refresh", now, false
		next.scopes = append(slices.Clone(scopes), "offline_access")
		token := k.cloud.random() + k.cloud.random()
		k.cloud.codes[token] = &next
		out["refresh_token"] = token
	}

	return k.answer(200, out)
}

// alive checks that a sign-in still holds.
func (k *call) alive(se *session, kind string) error {
	set, now := se.tenant.settings, k.cloud.now()
	switch {
	case !se.user.Deleted.IsZero():
		return refuse("aadsts-50034", se.user.UPN)
	case se.user.Disabled:
		return refuse("aadsts-50057")
	case kind == "refresh" && se.signedIn.Before(se.user.revoked):
		return refuse("aadsts-50173")
	case kind == "refresh" && now.After(se.issued.Add(refreshLife)):
		return refuse("aadsts-700082")
	case set.SignInFrequency > 0 && kind == "refresh" && now.After(se.signedIn.Add(set.SignInFrequency)):
		r := refuse("aadsts-70043", int(set.SignInFrequency.Seconds()))
		r.Code = cmp.Or(set.SignInError, r.Code)
		return r
	case set.MFA && !se.mfa:
		return refuse("aadsts-50076")
	}

	return nil
}

// delegated makes the tokens of a sign-in.
func (k *call) delegated(form url.Values, se *session, scopes []string) (Object, error) {
	resource, names, err := parseScopes(scopes)
	if err != nil {
		return nil, err
	}
	if resource == "" {
		resource, names = GraphID, []string{"User.Read"}
	}
	s, p := se.tenant.state, se.tenant.state.principal(se.app.ID)
	if s.principal(resource) == nil {
		return nil, refuse("aadsts-500011", resource)
	}
	if p != nil && p.refusals > 0 {
		p.refusals--
		return nil, refuse("aadsts-65001", se.app.ID)
	}
	consented := granted(p, resource, se.user.ID)
	for _, n := range names {
		if n != ".default" && n != "User.Read" && !slices.Contains(consented, n) ||
			n == ".default" && len(consented) == 0 {
			return nil, refuse("aadsts-65001", se.app.ID)
		}
	}
	if resource == GraphID && !slices.Contains(consented, "User.Read") {
		consented = append(consented, "User.Read")
	}
	if p != nil {
		consented = slices.DeleteFunc(consented, func(n string) bool { return k.lagging(se.tenant, p, n) })
	}

	claims := k.claims(se.tenant, se.app, resource, form)
	claims["scp"] = strings.Join(consented, " ")
	k.personal(claims, se)
	scope := slices.Clone(consented)
	for i := range scope {
		if scope[i] = graphName + "/" + scope[i]; resource == TeamsID {
			scope[i] = TeamsID + "/user_impersonation"
		}
	}
	out := Object{"token_type": "Bearer", "scope": strings.Join(scope, " "), "access_token": k.sign(claims),
		"expires_in": int(tokenLife.Seconds()), "ext_expires_in": int(tokenLife.Seconds())}
	if slices.Contains(scopes, "openid") || slices.Contains(se.scopes, "openid") {
		id := k.claims(se.tenant, se.app, se.app.ID, form)
		k.personal(id, se)
		if se.nonce != "" {
			id["nonce"] = se.nonce
		}
		out["id_token"] = k.sign(id)
	}
	if form.Get("client_info") == "1" {
		info, _ := json.Marshal(Object{"uid": se.user.ID, "utid": se.tenant.ID})
		out["client_info"] = base64.RawURLEncoding.EncodeToString(info)
	}

	return out, nil
}

// personal adds the claims about the user.
func (k *call) personal(claims jwt.MapClaims, se *session) {
	u := se.user
	claims["oid"], claims["name"], claims["wids"], claims["idtyp"] = u.ID, u.DisplayName, se.wids(), "user"
	claims["sub"] = derived(u.ID, se.app.ID)
	claims["preferred_username"], claims["upn"] = cmp.Or(u.Home, u.UPN), u.UPN
	if u.Guest { // [K]: optional claim acct, and the home of the account
		claims["acct"], claims["idp"] = 1, stsName+derived("tenant of", u.Home)+"/"
	}
	if se.partner != nil {
		claims["idp"] = stsName + se.partner.ID + "/"
	}
}

// claims returns what every token has.
func (k *call) claims(t *Tenant, a *App, audience string, form url.Values) jwt.MapClaims {
	now := k.cloud.now()
	if audience == GraphID {
		audience = graphName
	}
	claims := jwt.MapClaims{"aud": audience, "iss": k.cloud.urls[Login] + "/" + t.ID + "/v2.0", "tid": t.ID,
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(tokenLife).Unix(), "ver": "2.0", "azp": a.ID,
		"appid": a.ID, "uti": strconv.FormatInt(now.UnixNano(), 36)}
	if strings.Contains(form.Get("claims"), `"cp1"`) {
		claims["xms_cc"] = []string{"cp1"} // the client handles claims challenges
	}

	return claims
}

func (k *call) sign(claims jwt.MapClaims) string {
	t := jwt.NewWithClaims(jwt.SigningMethodRS256, claims)
	t.Header["kid"] = keyID
	signed, err := t.SignedString(k.cloud.key)
	if err != nil {
		panic(err) // an RSA key signs
	}
	return signed
}

// Walk does what a person does in a browser: it opens a page of the login, signs in with a user's password and
// accepts, and returns the address that the login redirects to; nil if there is none. The values given replace those
// of the form, for example "action": "cancel". A refusal shown on the page is an error.
func (c *Cloud) Walk(ctx context.Context, address, login string, given url.Values) (*url.URL, error) {
	form := url.Values{"login": {login}, "passwd": {Password}, "otc": {OTC}, "action": {"accept"}}
	for name, v := range given {
		form[name] = v
	}
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	client := &http.Client{CheckRedirect: stay,
		Transport: &http.Transport{DisableKeepAlives: true,
			TLSClientConfig: &tls.Config{RootCAs: c.cfg.Authority.Pool()}}}
	for _, method := range []string{"GET", "POST"} {
		var body io.Reader
		if method == "POST" {
			body = strings.NewReader(form.Encode())
		}
		r, err := http.NewRequestWithContext(ctx, method, address, body)
		if err != nil {
			return nil, err
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		res, err := client.Do(r)
		if err != nil {
			return nil, err
		}
		b, err := io.ReadAll(res.Body)
		_ = res.Body.Close() // it has been read
		if err != nil {
			return nil, err
		}
		if res.StatusCode == 302 {
			return res.Location()
		}
		if _, text, ok := strings.Cut(string(b), `id="error">`); ok {
			text, _, _ = strings.Cut(text, "</p>")
			return nil, errors.New(text)
		}
	}

	return nil, nil
}
