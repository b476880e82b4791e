package auth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/secret"
)

// MaxTokenBytes bounds a bearer token. Entra's have 1–2 KB.
const MaxTokenBytes = 16 << 10

// Deps is what a Verifier and an Issuer stand on.
type Deps struct {
	Log     *slog.Logger
	Metrics prometheus.Registerer // may be nil
	Keyring *secret.Keyring       // seals key sets and signing keys
	// CacheDir is the directory for key sets; empty keeps them in memory only.
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

// NewVerifier builds a verifier for the issuers of cfg, which is valid, and for embedded unless it is nil. It reads cached
// key sets from disk and talks to nobody yet.
func NewVerifier(cfg Config, embedded *Issuer, deps Deps) (*Verifier, error) {
	client, err := httpClient(cfg.TrustRootsFile)
	if err != nil {
		return nil, err
	}
	v := &Verifier{issuers: map[string]*trusted{}, embedded: embedded, skew: cfg.ClockSkew, refresh: cfg.KeyRefresh,
		checked: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tandem_auth_tokens_total",
			Help: "Bearer tokens checked, by verdict: accepted, or the error code.",
		}, []string{"verdict"})}
	if deps.Metrics != nil {
		if err := deps.Metrics.Register(v.checked); err != nil {
			return nil, err
		}
	}
	for i := range cfg.Issuers {
		for _, rule := range cfg.Issuers[i].expand() {
			v.issuers[rule.issuer] = &trusted{rule, newKeySet(rule.issuer, remote(client, rule), deps.Keyring, deps.CacheDir, cfg.MaxKeyAge, deps.Log)}
		}
	}
	if embedded != nil {
		v.issuers[embedded.cfg.Issuer] = embedded.trust(cfg.MaxKeyAge)
	}
	return v, nil
}

func httpClient(rootsFile string) (*http.Client, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSHandshakeTimeout, t.MaxResponseHeaderBytes = fetchTimeout, 64<<10
	if rootsFile != "" {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool() // the file's authorities alone
		}
		pem, err := os.ReadFile(rootsFile)
		if err != nil {
			return nil, fmt.Errorf("trust roots for issuers: %w", err)
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("trust roots for issuers: %s holds no PEM certificate", rootsFile)
		}
		t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return &http.Client{Transport: t, Timeout: fetchTimeout, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if len(via) > 3 {
			return errors.New("more than 3 redirects")
		}
		return checkFetchURL(req.URL.String())
	}}, nil
}

// Run keeps every issuer's keys fresh. It blocks until ctx is done and returns nil.
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

// claims are the claims we read. A claim of the wrong type makes the token malformed.
type claims struct {
	jwt.RegisteredClaims
	TenantID string           `json:"tid"`
	AppID    string           `json:"appid"`     // Entra v1
	AZP      string           `json:"azp"`       // Entra v2, OpenID Connect
	ClientID string           `json:"client_id"` // RFC 9068
	Roles    jwt.ClaimStrings `json:"roles"`
}

// Authorization takes the token out of an Authorization header (RFC 6750 §2.1). Errors: fault.Unauthenticated,
// MissingAuthenticationToken.
func Authorization(headers []string) (string, error) {
	if len(headers) == 0 {
		return "", fault.New(fault.Unauthenticated, CodeMissingToken, "the request carries no Authorization header; send \"Authorization: Bearer <token>\"")
	}
	if len(headers) > 1 {
		return "", fault.New(fault.Unauthenticated, CodeMissingToken, "the request carries %d Authorization headers; send one", len(headers))
	}
	scheme, token, _ := strings.Cut(headers[0], " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", fault.New(fault.Unauthenticated, CodeMissingToken, "the Authorization header is not of the form \"Bearer <token>\"")
	}
	return token, nil
}

// Verify checks a token and returns who it proves. Errors are fault.Unauthenticated (InvalidAuthenticationToken,
// ExpiredAuthenticationToken) or fault.Unavailable (IssuerUnavailable: nothing can be said about the token now).
func (v *Verifier) Verify(ctx context.Context, token string) (*Principal, error) {
	p, err := v.verify(ctx, token)
	verdict := "accepted"
	if err != nil {
		verdict = fault.As(err).Code
	}
	v.checked.WithLabelValues(verdict).Inc()
	return p, err
}

// Authenticate takes the token out of a request's Authorization headers, checks it and returns the principal's id and
// roles: [Authorization] and [Verifier.Verify] for front ends that know nothing of this package.
func (v *Verifier) Authenticate(ctx context.Context, authorization []string) (id string, roles []string, err error) {
	token, err := Authorization(authorization)
	if err != nil {
		return "", nil, err
	}
	p, err := v.Verify(ctx, token)
	if err != nil {
		return "", nil, err
	}
	for _, r := range p.Roles {
		roles = append(roles, string(r))
	}
	return p.ID(), roles, nil
}

func invalid(format string, args ...any) *fault.Error {
	return fault.New(fault.Unauthenticated, CodeInvalidToken, "the bearer token is refused: "+format, args...)
}

func (v *Verifier) verify(ctx context.Context, token string) (*Principal, error) {
	if len(token) > MaxTokenBytes {
		return nil, invalid("it is longer than %d bytes", MaxTokenBytes)
	}
	// First without trust: whose is it said to be? Everything read here is checked again below.
	var said claims
	unverified, _, err := jwt.NewParser().ParseUnverified(token, &said)
	if err != nil {
		return nil, invalid("it is not a signed JSON Web Token").Because(err)
	}
	t := v.issuers[said.Issuer]
	if t == nil {
		return nil, invalid("its issuer %s is not one that is trusted here", quote(said.Issuer))
	}
	kid, err := checkHeader(unverified.Header)
	if err != nil {
		return nil, err
	}
	alg := unverified.Method.Alg()
	if !slices.Contains(t.rule.algorithms, alg) {
		return nil, invalid("its algorithm %s is not accepted; accepted are %s", quote(alg), strings.Join(t.rule.algorithms, ", "))
	}
	keys, err := t.keys.find(ctx, kid, alg)
	if err != nil {
		return nil, fault.New(fault.Unavailable, CodeIssuerUnavailable, "the token's issuer cannot be reached to check the token; try again later").After(fetchPause).Because(err)
	}
	if len(keys) == 0 {
		return nil, invalid("its issuer has no key %s for %s", quote(kid), alg)
	}
	set := jwt.VerificationKeySet{}
	for _, k := range keys {
		set.Keys = append(set.Keys, k.key)
	}
	var c claims
	parser := jwt.NewParser(jwt.WithValidMethods(t.rule.algorithms), jwt.WithIssuer(t.rule.issuer), jwt.WithExpirationRequired(),
		jwt.WithIssuedAt(), jwt.WithLeeway(v.skew))
	_, err = parser.ParseWithClaims(token, &c, func(*jwt.Token) (any, error) { return set, nil })
	switch {
	case errors.Is(err, jwt.ErrTokenSignatureInvalid) || errors.Is(err, jwt.ErrTokenUnverifiable):
		return nil, invalid("its signature is wrong").Because(err)
	case errors.Is(err, jwt.ErrTokenExpired):
		return nil, fault.New(fault.Unauthenticated, CodeExpiredToken, "the bearer token has expired; get a new one").Because(err)
	case errors.Is(err, jwt.ErrTokenNotValidYet) || errors.Is(err, jwt.ErrTokenUsedBeforeIssued):
		return nil, invalid("it is not valid yet; check the clocks").Because(err)
	case errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		return nil, invalid("it has no exp claim").Because(err)
	case err != nil:
		return nil, invalid("it is malformed").Because(err)
	}
	return v.accept(ctx, t, &c)
}

// accept checks what golang-jwt does not: audience, tenant and, for our own clients, that they are not revoked.
func (v *Verifier) accept(ctx context.Context, t *trusted, c *claims) (*Principal, error) {
	if !slices.ContainsFunc(c.Audience, func(a string) bool { return slices.Contains(t.rule.audiences, a) }) {
		return nil, invalid("it was made for another audience (%s)", quote(strings.Join(c.Audience, " ")))
	}
	if t.rule.tenant != "" && strings.ToLower(c.TenantID) != t.rule.tenant {
		return nil, invalid("it was made by another tenant")
	}
	p := &Principal{Issuer: c.Issuer, Subject: c.Subject, TenantID: c.TenantID, Expires: c.ExpiresAt.Time}
	for _, id := range []string{c.AppID, c.AZP, c.ClientID, c.Subject} {
		if id != "" {
			p.ClientID = id
			break
		}
	}
	if p.ClientID == "" {
		return nil, invalid("it names nobody: none of appid, azp, client_id and sub is there")
	}
	for _, r := range c.Roles {
		p.Roles = append(p.Roles, Role(r))
	}
	if v.embedded != nil && c.Issuer == v.embedded.cfg.Issuer {
		if err := v.embedded.checkClient(ctx, p.ClientID); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// checkHeader returns the key id. RFC 7515 §4.1.11: a token with a critical extension that we do not know (we know none)
// is refused. RFC 8725 §3.11: a typ that is not an access token's is refused.
func checkHeader(h map[string]any) (kid string, err error) {
	if _, ok := h["crit"]; ok {
		return "", invalid("it has critical extensions, of which none is known here")
	}
	if typ, ok := h["typ"]; ok {
		s, _ := typ.(string)
		switch strings.TrimPrefix(strings.ToLower(s), "application/") {
		case "jwt", "at+jwt":
		default:
			return "", invalid("its type is %s, not JWT", quote(fmt.Sprint(typ)))
		}
	}
	if k, ok := h["kid"]; ok {
		if kid, ok = k.(string); !ok {
			return "", invalid("its key id is not a string")
		}
	}
	return kid, nil
}

// quote shows a piece of an unchecked token without letting it fill the log.
func quote(s string) string {
	const most = 100
	if len(s) > most {
		s = s[:most] + "…"
	}
	b, err := json.Marshal(s)
	if err != nil {
		return "?"
	}
	return string(b)
}

func containsTemplate(issuer string) bool { return strings.Contains(issuer, "{tenantid}") }
