package entra

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/secret"
)

const (
	// consentGrace is for how long after our own consent a refusal because consent is missing, or a token without the
	// new permissions, is a wait. Microsoft publishes no time; reports speak of tens of seconds.
	consentGrace = 5 * time.Minute
	consentRetry = 10 * time.Second
	// refreshAhead is how long before its expiry a token is refreshed.
	refreshAhead = 5 * time.Minute
	// expiryMargin is how long before its expiry a token is not used any more.
	expiryMargin = 30 * time.Second
	// failureKept is for how long a refresh token that wants a sign-in is not tried again.
	failureKept = 10 * time.Minute
	// permissionsKept is for how long a token's permissions are taken for those that the tenant grants.
	permissionsKept = time.Minute
)

// Store keeps a connection's newest refresh token, sealed.
type Store interface {
	// RefreshToken returns it, or the empty text if there is none.
	RefreshToken(context.Context) (secret.Text, error)
	// KeepRefreshToken replaces it.
	KeepRefreshToken(context.Context, secret.Text) error
}

// Connection is the access to one tenant. It is safe for concurrent use. It asks for one token at a time.
type Connection struct {
	app       *App
	tenant    string
	store     Store // nil: the application alone, by client credentials
	consented time.Time
	turn      chan struct{} // holds one element while no token is being asked for

	// Person, if not nil, is called when no token is given out until a person in the tenant acts: it is given the
	// refusal, and returns the error for the caller. Set it before the first Source is used.
	Person func(context.Context, *Refusal, error) error
}

// Connect returns a connection to tenant, a GUID. With a nil store the application acts on its own. consented is when
// the tenant last consented by our own link, or zero; make another connection after a consent, because tokens keep the
// permissions that they were issued with.
func (a *App) Connect(tenant string, store Store, consented time.Time) *Connection {
	c := &Connection{app: a, tenant: tenant, store: store, consented: consented, turn: make(chan struct{}, 1)}
	c.turn <- struct{}{}
	return c
}

// fresh reports whether our own consent may still be propagating.
func (c *Connection) fresh() bool { return time.Since(c.consented) < consentGrace }

// Source gives access tokens for one resource. It is safe for concurrent use.
type Source struct {
	conn     *Connection
	resource string
	need     []string

	mu      sync.Mutex // guards what follows
	token   secret.Text
	issued  time.Time
	renew   time.Time   // when to refresh the token
	expires time.Time   // when it is not used any more
	refused secret.Text // the last token that the resource refused
	claims  string      // what a claims challenge asked for; empty if nothing

	spent   secret.Text // the refresh token that was refused with failure
	failure error
	failed  time.Time
}

// Source returns the tokens for resource: the base URL of Graph, without a path, or TeamsAdmin. While our consent may
// be propagating, tokens without one of the permissions in need are not used.
func (c *Connection) Source(resource string, need ...string) *Source {
	return &Source{conn: c, resource: resource, need: need}
}

// Token returns an access token. It is refreshed ahead of time; while that fails for a passing reason, the token that
// is still valid is returned.
func (s *Source) Token(ctx context.Context) (secret.Text, error) {
	token, renew := s.cached()
	if token != (secret.Text{}) && !renew {
		return token, nil
	}
	if token != (secret.Text{}) {
		select {
		case <-s.conn.turn:
		default:
			return token, nil // another call is refreshing; this one is still valid
		}
	} else {
		select {
		case <-s.conn.turn:
		case <-ctx.Done():
			return secret.Text{}, ctx.Err()
		}
	}
	defer func() { s.conn.turn <- struct{}{} }()

	if token, renew = s.cached(); token != (secret.Text{}) && !renew {
		return token, nil // refreshed while this call waited
	}
	fetched, err := s.fetch(ctx)
	if ref, ok := errors.AsType[*Refusal](err); ok && fault.Is(err, fault.Conflict) && s.conn.Person != nil {
		err = s.conn.Person(ctx, ref, err)
	}
	if err != nil && token != (secret.Text{}) && fault.Is(err, fault.Unavailable) {
		return token, nil
	}
	return fetched, err
}

// cached returns the token, empty if there is none to use, and whether it is time to refresh it.
func (s *Source) cached() (token secret.Text, renew bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if !now.Before(s.expires) {
		return secret.Text{}, true
	}
	return s.token, !now.Before(s.renew)
}

// Refused says that the resource answered 401 to token, with this WWW-Authenticate header, which may be empty. The
// token is not used again; the next one is asked for with the claims that the header wants.
func (s *Source) Refused(token secret.Text, wwwAuthenticate string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = token
	if token != s.token {
		return // an older one
	}
	s.token, s.expires, s.renew = secret.Text{}, time.Time{}, time.Time{}
	s.claims = cmp.Or(challenge(wwwAuthenticate), s.claims)
}

// Forbidden says that the resource answered 403 to token, and reports whether another token is worth a try: a token
// keeps the permissions that it was issued with.
func (s *Source) Forbidden(token secret.Text) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if token != s.token {
		return true // replaced meanwhile
	}
	if time.Since(s.issued) < permissionsKept {
		return false
	}
	s.renew = time.Time{}
	return true
}

// Challenge makes the next token be asked for with claims, which an earlier challenge wanted.
func (s *Source) Challenge(claims string) *Source {
	s.claims = claims
	return s
}

// fetch asks for a token and caches it. The caller has the connection's turn.
func (s *Source) fetch(ctx context.Context) (secret.Text, error) {
	s.mu.Lock()
	claims := s.claims
	s.mu.Unlock()
	form := url.Values{"grant_type": {"client_credentials"}, "scope": {s.resource + "/.default"}}
	if claims != "" {
		form.Set("claims", claims)
	}
	var held secret.Text
	if s.conn.store != nil {
		var err error
		if held, err = s.conn.store.RefreshToken(ctx); err != nil {
			return held, fault.New(fault.Unavailable, string(Unavailable), "the stored sign-in cannot be read; retry").
				Because(err)
		}
		if held == (secret.Text{}) {
			return held, refuse(&Refusal{Outcome: SignInNeeded}, "no account has signed in yet; "+interactive)
		}
		if err := s.failedBefore(held); err != nil {
			return secret.Text{}, err
		}
		form.Set("grant_type", "refresh_token")
		form.Set("refresh_token", held.Reveal())
		form.Set("scope", s.resource+"/.default offline_access")
	}

	r, err := s.conn.app.token(ctx, s.conn.tenant, form)
	if err != nil {
		return secret.Text{}, s.refusedBy(err, held, claims)
	}
	if s.conn.store != nil && r.RefreshToken != "" && r.RefreshToken != held.Reveal() {
		if err := s.conn.store.KeepRefreshToken(ctx, secret.New(r.RefreshToken)); err != nil {
			return secret.Text{}, fault.New(fault.Unavailable, string(Unavailable),
				"the newest sign-in cannot be stored; retry").Because(err)
		}
	}
	return s.keep(r)
}

// keep caches the token of r, unless it must not be used.
func (s *Source) keep(r *reply) (secret.Text, error) {
	token := secret.New(r.AccessToken)
	granted := append(Granted(token), scopes(r.Scope)...)
	if s.conn.store == nil && s.resource != TeamsAdmin && without(token) {
		if s.conn.fresh() {
			return secret.Text{}, propagating(&Refusal{Outcome: Wait}, "the token has no permissions yet")
		}
		return secret.Text{}, refuse(&Refusal{Outcome: ConsentNeeded}, "the tenant grants the app no permissions; "+
			"an administrator gives admin consent (step 1)")
	}
	for _, p := range s.need {
		if s.conn.fresh() && !slices.Contains(granted, p) {
			return secret.Text{}, propagating(&Refusal{Outcome: Wait}, "the permission "+p+" is not in the token yet")
		}
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if token == s.refused {
		return secret.Text{}, refuse(&Refusal{Outcome: SignInNeeded},
			"the identity platform gives out a token that the service refused; "+interactive)
	}
	now := time.Now()
	life := time.Duration(r.ExpiresIn) * time.Second
	ahead := max(life-refreshAhead, life/2)
	if in := time.Duration(r.RefreshIn) * time.Second; in > 0 {
		ahead = min(ahead, in)
	}
	s.token, s.issued, s.claims = token, now, ""
	s.expires, s.renew = now.Add(life-expiryMargin), now.Add(ahead)
	return token, nil
}

// refusedBy turns a refusal because consent is missing into a wait while our own is fresh. That a sign-in is needed is
// remembered for the refresh token, so that not every call asks again. claims are those that the request had: if a
// sign-in is needed, it has to ask for them.
func (s *Source) refusedBy(err error, held secret.Text, claims string) error {
	ref, ok := errors.AsType[*Refusal](err)
	if ok {
		ref.Claims = cmp.Or(ref.Claims, claims)
	}
	if ok && (ref.Code == 65001 || ref.Code == 700016) && s.conn.fresh() {
		wait := *ref
		wait.Outcome = Wait
		return propagating(&wait, "the consent is not known everywhere yet")
	}
	if fault.HasCode(err, string(SignInNeeded)) && s.conn.store != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.spent, s.failure, s.failed = held, err, time.Now()
	}
	return err
}

// failedBefore returns the failure remembered for a refresh token.
func (s *Source) failedBefore(held secret.Text) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spent == held && time.Since(s.failed) < failureKept {
		return s.failure
	}
	return nil
}

func propagating(ref *Refusal, what string) *fault.Error {
	return refuse(ref, what+"; this usually takes less than a minute after the consent").After(consentRetry)
}

// Granted returns the permissions that an access token names: roles of the application, and delegated scopes. It does
// not check the token, which came from the token endpoint. A token in another form has none.
func Granted(token secret.Text) []string {
	var claims struct {
		Roles  []string `json:"roles"`
		Scopes string   `json:"scp"`
		jwt.RegisteredClaims
	}
	if _, _, err := jwt.NewParser().ParseUnverified(token.Reveal(), &claims); err != nil {
		return nil
	}
	return append(claims.Roles, scopes(claims.Scopes)...)
}

// without reports whether an access token of an application names no permission at all. A token in another form than a
// JWT does not say.
func without(token secret.Text) bool {
	_, _, err := jwt.NewParser().ParseUnverified(token.Reveal(), &jwt.RegisteredClaims{})
	return err == nil && len(Granted(token)) == 0
}

// scopes splits a list of scopes and cuts the resource in front of each.
func scopes(list string) []string {
	l := strings.Fields(list)
	for i, s := range l {
		l[i] = s[strings.LastIndexByte(s, '/')+1:]
	}
	return l
}

var claimsParameter = regexp.MustCompile(`(?i)\bclaims\s*=\s*(?:"([^"]*)"|([^",\s]+))`)

// challenge returns the claims that a WWW-Authenticate header asks for (Microsoft's page "Claims challenge"), "" if
// none. Values may come without quotes, and the base64 in either alphabet, with or without padding.
func challenge(wwwAuthenticate string) string {
	m := claimsParameter.FindStringSubmatch(wwwAuthenticate)
	if m == nil || len(m[0]) > 8<<10 {
		return ""
	}
	text := strings.NewReplacer("-", "+", "_", "/", "=", "").Replace(m[1] + m[2])
	claims, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil || !json.Valid(claims) {
		return ""
	}
	return string(claims)
}
