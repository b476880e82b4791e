package auth

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/domain/strictjson"
	"github.com/tandemgw/tandem/internal/platform/listen"
	"github.com/tandemgw/tandem/internal/platform/secret"
	"github.com/tandemgw/tandem/internal/platform/web"
)

// MaxTokenBytes is the maximum size of a bearer token. Entra's have 1–2 KB.
const MaxTokenBytes = 16 << 10

// Deps holds the dependencies of a Verifier and an Issuer.
type Deps struct {
	Log     *slog.Logger
	Metrics prometheus.Registerer // may be nil
	Keyring *secret.Keyring       // seals key sets and signing keys
	// CacheDir is the directory for key sets. If it is empty they are kept in memory only.
	CacheDir string
}

// Verifier checks bearer tokens. It is safe for concurrent use.
type Verifier struct {
	issuers  map[string]*trusted
	embedded *Issuer // may be nil
	skew     time.Duration
	refresh  time.Duration
	checked  *prometheus.CounterVec
}

// trusted is an issuer whose tokens are accepted.
type trusted struct {
	rule issuerRule
	keys *keySet
}

// NewVerifier returns a verifier for the issuers of cfg, which must be valid, and for embedded unless it is nil. It
// reads cached key sets from disk and does not use the network yet.
func NewVerifier(cfg Config, embedded *Issuer, deps Deps) (*Verifier, error) {
	client, err := httpClient(cfg.TrustRootsFile)
	if err != nil {
		return nil, err
	}
	v := &Verifier{issuers: map[string]*trusted{}, embedded: embedded, skew: cfg.ClockSkew, refresh: cfg.KeyRefresh,
		checked: promauto.With(deps.Metrics).NewCounterVec(prometheus.CounterOpts{
			Name: "tandem_auth_tokens_total",
			Help: "Bearer tokens checked, by verdict: accepted, or the error code.",
		}, []string{"verdict"})}
	for i := range cfg.Issuers {
		for _, rule := range cfg.Issuers[i].expand() {
			v.issuers[rule.issuer] = &trusted{rule, newKeySet(rule.issuer, remote(client, rule), deps.Keyring,
				deps.CacheDir, cfg.MaxKeyAge, deps.Log)}
		}
	}
	if embedded != nil {
		embedded.keys.maxAge = cfg.MaxKeyAge
		v.issuers[embedded.cfg.Issuer] = &trusted{issuerRule{issuer: embedded.cfg.Issuer,
			audiences: []string{embedded.cfg.Audience}, algorithms: []string{"ES256", "RS256"}}, embedded.keys}
	}
	return v, nil
}

func httpClient(rootsFile string) (*http.Client, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSHandshakeTimeout, t.MaxResponseHeaderBytes = fetchTimeout, 64<<10
	if rootsFile != "" {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool() // only the file's authorities
		}
		pem, err := os.ReadFile(rootsFile)
		if err != nil {
			return nil, fmt.Errorf("trust roots for issuers: %w", err)
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("trust roots for issuers: %s contains no PEM certificate", rootsFile)
		}
		t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return &http.Client{Transport: t, Timeout: fetchTimeout,
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) > 3 {
				return errors.New("more than 3 redirects")
			}
			return checkFetchURL(req.URL.String())
		}}, nil
}

// Run refreshes every issuer's keys. It blocks until ctx is done and returns nil.
func (v *Verifier) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, t := range v.issuers {
		if v.embedded != nil && t.rule.issuer == v.embedded.cfg.Issuer {
			continue // Issuer.Run does that
		}
		wg.Go(func() { t.keys.run(ctx, v.refresh) })
	}
	<-ctx.Done()
	wg.Wait()
	return nil
}

// token is a JSON Web Token (RFC 7519) in the compact form of RFC 7515 §7.1, parsed but not verified.
type token struct {
	kid, alg  string
	signed    string // what the signature is over
	signature []byte

	issuer, tenant      string
	clients             []string // appid (Entra v1), azp (v2, OpenID Connect), client_id (RFC 9068), sub
	audience, roles     []string
	expires             time.Time
	notBefore, issuedAt time.Time // zero if missing
}

// parseToken reads a token strictly. Unknown claims and header parameters are ignored, except for critical ones.
func parseToken(text string) (*token, error) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return nil, fmt.Errorf("the number of its parts is %d, not 3", len(parts))
	}
	var raw [3][]byte
	for i, p := range parts {
		var err error
		if raw[i], err = base64.RawURLEncoding.Strict().DecodeString(p); err != nil {
			return nil, err
		}
	}
	t := &token{signed: parts[0] + "." + parts[1], signature: raw[2]}
	header, err := strictjson.Parse(raw[0])
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	claims, err := strictjson.Parse(raw[1])
	if err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	var r strictjson.Reader
	c := r.Object(claims, "")
	t.issuer, t.tenant = c.Str("iss", false), c.Str("tid", false)
	t.clients = []string{c.Str("appid", false), c.Str("azp", false), c.Str("client_id", false), c.Str("sub", false)}
	t.audience, t.roles = c.StringOrStrings("aud"), c.StringOrStrings("roles")
	t.expires = numericDate(&r, c, "exp", true)
	t.notBefore, t.issuedAt = numericDate(&r, c, "nbf", false), numericDate(&r, c, "iat", false)
	if err := r.Err(); err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	return t, t.readHeader(r.Object(header, ""), &r)
}

// numericDate reads a NumericDate (RFC 7519 §2): seconds since 1970, possibly with a fraction. It returns the zero time
// if the claim is missing.
func numericDate(r *strictjson.Reader, c *strictjson.Object, name string, required bool) time.Time {
	n := c.Take(name, required)
	if n == nil || !r.Is(n, strictjson.KindNumber, name) {
		return time.Time{}
	}
	const year10000 = 253402300800
	s, err := strconv.ParseFloat(n.Text, 64)
	if err != nil || s < 0 || s >= year10000 {
		r.Add(fault.New(fault.Invalid, strictjson.CodeInvalidValue, "%s is not a time in seconds since 1970", name))
		return time.Time{}
	}
	return time.UnixMicro(int64(s * 1e6))
}

// readHeader reads what the signature needs. It refuses critical extensions, of which none is supported (RFC 7515
// §4.1.11), b64, which is one (RFC 7797 §6), and a typ that is not an access token's (RFC 8725 §3.11).
func (t *token) readHeader(h *strictjson.Object, r *strictjson.Reader) error {
	if h.Take("crit", false) != nil || h.Take("b64", false) != nil {
		return invalid("it has critical extensions, of which none is supported")
	}
	if typ := h.Take("typ", false); typ != nil {
		switch strings.TrimPrefix(strings.ToLower(typ.Text), "application/") {
		case "jwt", "at+jwt":
		default:
			return invalid("its type is %s, not JWT", quote(typ.Text))
		}
	}
	t.alg, t.kid = h.Str("alg", true), h.Str("kid", false)
	if err := r.Err(); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	return nil
}

// Authorization returns the token in an Authorization header (RFC 6750 §2.1). Errors: fault.Unauthenticated,
// MissingAuthenticationToken.
func Authorization(headers []string) (string, error) {
	if len(headers) == 0 {
		return "", fault.New(fault.Unauthenticated, web.CodeMissingToken,
			"the request has no Authorization header; send \"Authorization: Bearer <token>\"")
	}
	if len(headers) > 1 {
		return "", fault.New(fault.Unauthenticated, web.CodeMissingToken,
			"the request has %d Authorization headers; send one", len(headers))
	}
	scheme, token, _ := strings.Cut(headers[0], " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", fault.New(fault.Unauthenticated, web.CodeMissingToken,
			"the Authorization header is not of the form \"Bearer <token>\"")
	}
	return token, nil
}

// Verify checks a token and returns the principal that it proves. Errors are fault.Unauthenticated
// (InvalidAuthenticationToken, ExpiredAuthenticationToken) or fault.Unavailable (IssuerUnavailable: the token cannot be
// checked now).
func (v *Verifier) Verify(ctx context.Context, token string) (*Principal, error) {
	p, err := v.verify(ctx, token, func(api.TokenCheckName, string) {})
	verdict := "accepted"
	if err != nil {
		verdict = fault.As(err).Code
	}
	v.checked.WithLabelValues(verdict).Inc()
	return p, err
}

// Authenticate checks the token in a request's Authorization headers and returns the principal's id and roles:
// [Authorization] and [Verifier.Verify] for front ends that do not depend on this package. It marks the connection that
// carried a valid token as authenticated; ctx is the request's.
func (v *Verifier) Authenticate(ctx context.Context, authorization []string) (id string, roles []string, err error) {
	token, err := Authorization(authorization)
	if err != nil {
		return "", nil, err
	}
	p, err := v.Verify(ctx, token)
	if err != nil {
		return "", nil, err
	}
	listen.Authenticated(ctx)
	return p.ID(), p.Roles, nil
}

func invalid(format string, args ...any) *fault.Error {
	return fault.New(fault.Unauthenticated, CodeInvalidToken, "the bearer token is refused: "+format, args...)
}

// verify is Verify without the metric. It calls passed after each check, in the order of checks, with the check's name
// and what it found.
func (v *Verifier) verify(ctx context.Context, text string,
	passed func(check api.TokenCheckName, found string)) (*Principal, error) {
	if len(text) > MaxTokenBytes {
		return nil, invalid("it is longer than %d bytes", MaxTokenBytes)
	}
	// Checks that need no key come first, so that a token that is refused anyway causes no fetch.
	tok, err := parseToken(text)
	if f := (*fault.Error)(nil); errors.As(err, &f) && f.Kind == fault.Unauthenticated {
		return nil, f
	} else if err != nil {
		return nil, invalid("it is not a signed JSON Web Token (RFC 7519): %s", clip(err.Error())).Because(err)
	}
	passed("format", "a signed JSON Web Token")
	t := v.issuers[tok.issuer]
	if t == nil {
		return nil, invalid("its issuer %s is not trusted", quote(tok.issuer))
	}
	passed("issuer", tok.issuer)
	if !slices.Contains(t.rule.algorithms, tok.alg) {
		return nil, invalid("its algorithm %s is not accepted; use one of %s", quote(tok.alg),
			strings.Join(t.rule.algorithms, ", "))
	}
	passed("algorithm", tok.alg)
	p, err := v.claimed(t, tok, passed)
	if err != nil {
		return nil, err
	}
	method := jwt.GetSigningMethod(tok.alg)
	known, fits, err := t.keys.find(ctx, tok.kid, tok.alg, func(k publicKey) bool {
		return method.Verify(tok.signed, tok.signature, k.key) == nil
	})
	switch {
	case err != nil:
		return nil, fault.New(fault.Unavailable, CodeIssuerUnavailable,
			"the token cannot be checked because its issuer cannot be reached; try again later").
			After(fetchPause).Because(err)
	case known == 0:
		return nil, invalid("its issuer has no key %s for %s", quote(tok.kid), tok.alg)
	case !fits:
		return nil, invalid("its signature is wrong")
	}
	passed("signature", "made with a key of the issuer")
	if v.embedded != nil && tok.issuer == v.embedded.cfg.Issuer && !strings.HasPrefix(p.ClientID, localPrefix) &&
		v.embedded.clients.revoked(ctx, p.ClientID) {
		return nil, invalid("its client has been revoked")
	}
	passed("revocation", "not revoked")
	return p, nil
}

// claimed returns the principal that a token proves if its signature is valid: it checks the times (RFC 7519 §4.1), the
// audience and the tenant.
func (v *Verifier) claimed(t *trusted, tok *token,
	passed func(check api.TokenCheckName, found string)) (*Principal, error) {
	now := time.Now()
	early := func(at time.Time) bool { return now.Add(v.skew).Before(at) }
	switch {
	case !now.Add(-v.skew).Before(tok.expires):
		return nil, fault.New(fault.Unauthenticated, CodeExpiredToken, "the bearer token has expired; get a new one")
	case early(tok.notBefore) || early(tok.issuedAt):
		return nil, invalid("it is not valid yet; check the clocks")
	}
	passed("time", "valid until "+tok.expires.UTC().Format(time.RFC3339))
	if !slices.ContainsFunc(tok.audience, func(a string) bool { return slices.Contains(t.rule.audiences, a) }) {
		return nil, invalid("it was issued for another audience (%s)", quote(strings.Join(tok.audience, " ")))
	}
	passed("audience", clip(strings.Join(tok.audience, " ")))
	if t.rule.tenant != "" && strings.ToLower(tok.tenant) != t.rule.tenant {
		return nil, invalid("it was issued by another tenant")
	}
	passed("tenant", clip(tok.tenant))
	p := &Principal{Issuer: tok.issuer, ClientID: cmp.Or(tok.clients...), Roles: tok.roles, Expires: tok.expires}
	if p.ClientID == "" {
		return nil, invalid("it names no client: appid, azp, client_id and sub are all missing")
	}
	passed("client", clip(p.ClientID))
	return p, nil
}

// clip bounds the text of an unverified token that goes into a response or the log.
func clip(s string) string {
	const most = 200
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.ToValidUTF8(s, "�")
}

// quote quotes a part of an unverified token.
func quote(s string) string {
	b, _ := json.Marshal(clip(s)) // a string does not fail
	return string(b)
}
