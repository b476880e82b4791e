package microsoft_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/miekg/dns"

	"github.com/tandemgw/tandem/internal/sim/ca"
	"github.com/tandemgw/tandem/internal/sim/microsoft"
)

type object = map[string]any

const (
	clientID  = "aaaaaaaa-0000-4000-8000-000000000001"
	bareID    = "aaaaaaaa-0000-4000-8000-000000000002"
	singleID  = "aaaaaaaa-0000-4000-8000-000000000003"
	secret    = "the secret"
	callback  = "https://app.example/cb"
	graph     = "https://graph.microsoft.com/.default"
	teams     = microsoft.TeamsID + "/.default"
	verifier  = "a verifier that is long enough to be one, 43 characters"
	licensed  = "user000001"
	jwtBearer = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
)

var everything = []string{"Domain.ReadWrite.All", "User.ReadWrite.All", "Organization.Read.All",
	"LicenseAssignment.ReadWrite.All", "RoleManagement.ReadWrite.Directory", "Directory.Read.All",
	"TeamsTelephoneNumber.ReadWrite.All", "TeamsUserConfiguration.Read.All", "TeamsPolicyUserAssign.ReadWrite.All",
	"Application.ReadWrite.All", "AppRoleAssignment.ReadWrite.All", "DelegatedPermissionGrant.ReadWrite.All"}

// bed is a cloud with a customer's tenant, another tenant, an application with consent, and a name server.
type bed struct {
	t              *testing.T
	cloud          *microsoft.Cloud
	tenant         *microsoft.Tenant // contoso
	other          *microsoft.Tenant // fabrikam
	client         *http.Client
	cert, stranger tls.Certificate // of the application, and of nobody
	tokens         map[string]string
	vars           map[string]string

	mu        sync.Mutex // guards what follows
	records   map[string]string
	exchanges []microsoft.Exchange
	leave     func() // called after a request whose answer is lost
}

func newBed(t *testing.T) *bed {
	t.Helper()
	authority, err := ca.New("test")
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{t: t, tokens: map[string]string{}, records: map[string]string{}}
	b.cloud, err = microsoft.New(microsoft.Config{Authority: authority, DNS: b.nameserver(), Observe: b.observe})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.cloud.Close(); err != nil {
			t.Error(err)
		}
	})
	b.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority.Pool()}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(b.client.CloseIdleConnections)
	b.cert, b.stranger = certificates()[0], certificates()[1]

	b.tenant = b.cloud.AddTenant(microsoft.Spec{Name: "contoso", Users: 30, Foreign: 2, Seed: 1})
	b.other = b.cloud.AddTenant(microsoft.Spec{Name: "fabrikam", Users: 2, Seed: 2})
	delegated := append([]string{"user_impersonation", "TeamsResourceAccount.Read.All", "User.Read"}, everything...)
	b.cloud.Register(microsoft.App{ID: clientID, Name: "Tandem", Home: b.other.ID, MultiTenant: true,
		RedirectURIs: []string{callback}, Application: everything, Delegated: delegated,
		Secrets:      []microsoft.Secret{{Value: secret}, {Value: "old", Until: time.Now().Add(-time.Hour)}},
		Certificates: []*x509.Certificate{b.cert.Leaf}})
	b.cloud.Register(microsoft.App{ID: bareID, Name: "Bare", Home: b.other.ID, MultiTenant: true,
		Secrets: []microsoft.Secret{{Value: secret}}})
	b.cloud.Register(microsoft.App{ID: singleID, Name: "Single", Home: b.other.ID, RedirectURIs: []string{callback}})
	b.tenant.Consent(clientID, everything, delegated)
	b.tenant.Consent(bareID, nil, nil)
	b.tenant.Edit(func(s *microsoft.State) {
		for _, p := range s.Principals {
			if p.App == clientID || p.App == bareID {
				s.Assign(p.ID, "Teams Administrator")
			}
		}
		s.Partners[b.other.ID] = []string{"Teams Administrator"}
	})
	b.vars = b.names()

	return b
}

// nameserver answers TXT questions from records.
func (b *bed) nameserver() string {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	up := make(chan struct{})
	s := &dns.Server{PacketConn: conn, NotifyStartedFunc: func() { close(up) },
		Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
			r := new(dns.Msg).SetReply(q)
			b.mu.Lock()
			text, ok := b.records[strings.ToLower(q.Question[0].Name)]
			b.mu.Unlock()
			if ok && q.Question[0].Qtype == dns.TypeTXT {
				r.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT,
					Class: dns.ClassINET, Ttl: 1}, Txt: []string{text}}}
			} else {
				r.Rcode = dns.RcodeNameError
			}
			_ = w.WriteMsg(r)
		})}
	go func() { _ = s.ActivateAndServe() }()
	<-up
	b.t.Cleanup(func() { _ = s.Shutdown() })

	return conn.LocalAddr().String()
}

func (b *bed) observe(e microsoft.Exchange) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.exchanges = append(b.exchanges, e)
	if e.Fault != "" && b.leave != nil {
		b.leave()
	}
}

// publish gives a domain its verification record.
func (b *bed) publish(domain string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.records[domain+"."] = b.tenant.VerificationText(domain)
}

// names are the values of {…} in the table of refusals.
func (b *bed) names() map[string]string {
	v := map[string]string{"tenant": b.tenant.ID, "other": b.other.ID, "initial": b.tenant.Initial, "client": clientID,
		"secret": secret, "oldsecret": "old", "public": microsoft.CommandLineApp, "single": singleID,
		"verifier": verifier, "admin": b.tenant.Admin, "password": microsoft.Password, "sbc": "sbc.contoso.example",
		"personal": "someone@outlook.example"}
	b.tenant.Edit(func(s *microsoft.State) {
		user := s.User(licensed + "@" + b.tenant.Initial)
		v["user"], v["user upn"], v["admin id"] = user.ID, user.UPN, s.User(b.tenant.Admin).ID
		v["sku"] = s.SKUs[0].ID
		for _, u := range s.Users {
			if len(u.Licenses) == 0 && u.ID != v["admin id"] {
				v["unlicensed"] = u.ID
			}
		}
		for _, p := range s.Principals {
			if p.App == microsoft.GraphID {
				v["graph principal"] = p.ID
			}
		}
	})

	return v
}

// do sends a request. as names who sends it; "" for no token.
func (b *bed) do(base, method, path, as string, header map[string]string, body []byte) (*http.Response, object) {
	b.t.Helper()
	path = strings.ReplaceAll(path, " ", "%20")
	r, err := http.NewRequestWithContext(b.t.Context(), method, base+path, bytes.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	if token := b.token(as); token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if len(body) > 0 {
		r.Header.Set("Content-Type", "application/json")
	}
	for name, v := range header {
		if r.Header.Set(name, v); v == "" {
			r.Header.Del(name)
		}
	}
	res, err := b.client.Do(r)
	if err != nil {
		b.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	var o object
	if strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") {
		var v any
		if err := json.Unmarshal(raw, &v); err != nil {
			b.t.Fatalf("%s %s answers %q: %v", method, path, raw, err)
		}
		if o, _ = v.(object); o == nil {
			o = object{"value": v}
		}
	} else {
		o = object{"text": string(raw)}
	}

	return res, o
}

// graph sends a request to Graph and expects the status.
func (b *bed) graph(as, method, path string, body any, want int) object {
	b.t.Helper()
	_, o := b.send(microsoft.Graph, as, method, "/v1.0"+path, body, want, nil)
	return o
}

// teams sends a request to the Teams service and expects the status.
func (b *bed) teams(as, method, path string, body any, want int) object {
	b.t.Helper()
	_, o := b.send(microsoft.Teams, as+" for teams", method, path, body, want, map[string]string{"X-MS-Forest": "sim1"})
	return o
}

func (b *bed) send(s microsoft.Service, as, method, path string, body any, want int,
	header map[string]string) (*http.Response, object) {
	b.t.Helper()
	var raw []byte
	if body != nil {
		raw, _ = json.Marshal(body)
	}
	res, o := b.do(b.cloud.URL(s), method, path, as, header, raw)
	if res.StatusCode != want {
		b.t.Fatalf("%s %s = %d %v, want %d", method, path, res.StatusCode, o, want)
	}

	return res, o
}

// form sends a form to the login's token endpoint.
func (b *bed) form(path string, form map[string]string) (int, object) {
	b.t.Helper()
	q := url.Values{}
	for name, v := range form {
		q.Set(name, v)
	}
	res, o := b.do(b.cloud.URL(microsoft.Login), "POST", path, "",
		map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, []byte(q.Encode()))
	return res.StatusCode, o
}

const tokenPath = "/oauth2/v2.0/token"

// token returns a token: of "app", "bare", "admin", "user" or "partner", for Graph or with " for teams".
func (b *bed) token(as string) string {
	b.t.Helper()
	who, isTeams := strings.CutSuffix(as, " for teams")
	scope := graph
	if isTeams {
		scope = teams
	}
	switch {
	case as == "" || as == "nobody":
		return ""
	case as == "garbage":
		return "garbage"
	case b.tokens[as] != "":
		return b.tokens[as]
	}
	var o object
	switch who {
	case "app", "bare":
		id := map[string]string{"app": clientID, "bare": bareID}[who]
		_, o = b.form("/"+b.tenant.ID+tokenPath, map[string]string{"grant_type": "client_credentials",
			"client_id": id, "client_secret": secret, "scope": scope})
	default:
		upn := map[string]string{"admin": b.tenant.Admin, "user": b.vars["user upn"], "partner": b.other.Admin}[who]
		_, o = b.redeem(b.code(upn, scope+" offline_access openid"), nil)
	}
	token, _ := o["access_token"].(string)
	if token == "" {
		b.t.Fatalf("no token for %s: %v", as, o)
	}
	b.tokens[as] = token

	return token
}

// code signs a person in and returns the authorization code.
func (b *bed) code(upn, scope string) string {
	b.t.Helper()
	sum := sha256.Sum256([]byte(verifier))
	q := url.Values{"client_id": {clientID}, "redirect_uri": {callback}, "response_type": {"code"}, "state": {"s"},
		"scope": {scope}, "code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "nonce": {"n"},
		"code_challenge_method": {"S256"}}
	to, err := b.cloud.Walk(b.t.Context(), b.cloud.URL(microsoft.Login)+"/"+b.tenant.ID+"/oauth2/v2.0/authorize?"+
		q.Encode(), upn, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	if to.Query().Get("state") != "s" || to.Query().Get("code") == "" {
		b.t.Fatalf("sign-in of %s redirects to %s", upn, to)
	}

	return to.Query().Get("code")
}

func (b *bed) redeem(code string, change map[string]string) (int, object) {
	b.t.Helper()
	form := map[string]string{"grant_type": "authorization_code", "client_id": clientID, "client_secret": secret,
		"code": code, "redirect_uri": callback, "code_verifier": verifier}
	maps.Copy(form, change)
	return b.form("/"+b.tenant.ID+tokenPath, form)
}

// refresh redeems a refresh token.
func (b *bed) refresh(token string, change map[string]string) (int, object) {
	b.t.Helper()
	form := map[string]string{"grant_type": "refresh_token", "client_id": clientID, "client_secret": secret,
		"refresh_token": token}
	maps.Copy(form, change)
	return b.form("/"+b.tenant.ID+tokenPath, form)
}

// assertion signs a client assertion; how spoils it.
func (b *bed) assertion(how string) string {
	b.t.Helper()
	now := time.Now()
	claims := jwt.MapClaims{"aud": b.cloud.URL(microsoft.Login) + "/" + b.tenant.ID + tokenPath, "iss": clientID,
		"sub": clientID, "jti": "1", "nbf": now.Unix(), "exp": now.Add(5 * time.Minute).Unix()}
	cert := b.cert
	switch how {
	case "audience":
		claims["aud"] = "https://elsewhere.example"
	case "subject":
		claims["sub"] = bareID
	case "old":
		claims["exp"] = now.Add(-time.Hour).Unix()
	case "stranger":
		cert = b.stranger
	}
	t := jwt.NewWithClaims(jwt.SigningMethodPS256, claims)
	sum := sha256.Sum256(cert.Leaf.Raw)
	t.Header["x5t#S256"] = base64.RawURLEncoding.EncodeToString(sum[:])
	signed, err := t.SignedString(cert.PrivateKey.(crypto.Signer))
	if err != nil {
		b.t.Fatal(err)
	}

	return signed
}

func list(o object) []object {
	values, _ := o["value"].([]any)
	out := make([]object, len(values))
	for i, v := range values {
		out[i], _ = v.(object)
	}
	return out
}

func names(list []object, member string) []string {
	var out []string
	for _, o := range list {
		s, _ := o[member].(string)
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

// certificates are RSA certificates: the login takes no others.
var certificates = sync.OnceValue(func() (out [2]tls.Certificate) {
	for i := range out {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		t := &x509.Certificate{SerialNumber: big.NewInt(int64(i + 1)), NotAfter: time.Now().Add(time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
		if err != nil {
			panic(err)
		}
		leaf, err := x509.ParseCertificate(der)
		if err != nil {
			panic(err)
		}
		out[i] = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	}
	return out
})
