package provapi

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/domain/strictjson"
	"github.com/tandemgw/tandem/internal/platform/web"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
	"github.com/tandemgw/tandem/internal/provisioning/filter"
)

// Authenticator identifies the caller by a request's Authorization headers: it returns a stable id of the client and
// the client's roles. Its errors are faults of kind Unauthenticated or Unavailable.
type Authenticator interface {
	Authenticate(ctx context.Context, authorization []string) (id string, roles []string, err error)
}

// Sources determines the address a request came from and reports whether it may use the API.
type Sources interface {
	Of(r *http.Request) netip.Addr
	Permits(a netip.Addr) bool
	// TrustsPeer reports whether the connection's other end is a proxy whose forwarding headers are trusted.
	TrustsPeer(r *http.Request) bool
}

// Limiter counts one request against the rate limit. Allow returns 0 if the request may proceed, else how long to wait.
type Limiter interface {
	Allow(ctx context.Context) time.Duration
}

// Issuer is the embedded token issuer, whose paths are served alongside the API's.
type Issuer interface {
	Serves(path string) bool
	ServeFor(w http.ResponseWriter, r *http.Request, source netip.Addr, base string)
}

// Deps are the dependencies of an API. All but Issuer and Metrics are required.
type Deps struct {
	Services      domain.Services // of which those in the contract are served
	Directory     *directory.Directory
	Authenticator Authenticator
	Sources       Sources
	Limiter       Limiter
	Issuer        Issuer // nil for none
	Sealer        web.Sealer
	Log           *slog.Logger
	Metrics       prometheus.Registerer
}

// API serves the Provisioning API. It is safe for concurrent use.
type API struct {
	http.Handler
	cfg      Config
	deps     Deps
	dir      *directory.Directory
	services domain.Services // those in the contract

	accounts, numbers *filter.Table
}

// New returns an API. cfg must be valid.
func New(cfg Config, deps Deps) *API {
	cfg.PublicURL = strings.TrimSuffix(cfg.PublicURL, "/")
	a := &API{cfg: cfg, deps: deps, dir: deps.Directory, services: deps.Services.InContract(),
		accounts: filter.Accounts(deps.Services), numbers: filter.Numbers(deps.Services)}
	a.Handler = web.NewFront("provapi", "provisioning", Faults, deps.Log, deps.Metrics).Handler(a.serve)
	return a
}

// Caller identifies the caller of a request.
type Caller struct {
	ID    string // stable over time and unique
	Roles []string
}

func (c *Caller) may(role string) bool {
	return slices.Contains(c.Roles, role) || slices.Contains(c.Roles, roleAdmin)
}

type trustedKey struct{}

// Trusted marks a request's context as coming from caller, who was authenticated by other means: the permissions of a
// Unix socket. Token, source list and rate limit do not apply to it; roles do.
func Trusted(ctx context.Context, caller Caller) context.Context {
	return context.WithValue(ctx, trustedKey{}, &caller)
}

// Limits that are not configurable.
const (
	maxURIBytes = 8 << 10

	// wholeAccount is the time limit for deleting an account with its numbers: one transaction, however many there are
	// (about 100,000 a second).
	wholeAccount = 5 * time.Minute
	writeGrace   = 30 * time.Second // for the caller to read the answer
)

// WriteTimeout returns the time limit for handling a request and sending the answer, for web.NewServer.
func (a *API) WriteTimeout() time.Duration { return a.cfg.RequestTimeout + writeGrace }

// call is one request in progress.
type call struct {
	r      *http.Request
	x      *web.Exchange
	op     *operation // nil until the path is known
	vars   pathVars
	query  map[string]string
	caller *Caller // nil until known
	kind   string  // of the caller, for the audit log
	source netip.Addr
	body   *strictjson.Node                  // nil if the operation takes none
	render func(*directory.Result) *response // makes the answer of a write

	carried directory.Write // what the request carries besides its body; write sets Once.Render
}

// response is an answer before it is written.
type response struct {
	status int
	header http.Header
	body   []byte
}

func jsonResponse(status int, v any) *response {
	return &response{status: status, header: http.Header{"Content-Type": {"application/json"}}, body: web.Encode(v)}
}

// serve answers one request.
func (a *API) serve(w http.ResponseWriter, r *http.Request) error {
	c := &call{r: r, x: web.Of(r), kind: "client", source: a.deps.Sources.Of(r)}
	c.x.Add("source", c.from())
	if a.deps.Issuer != nil && a.deps.Issuer.Serves(r.URL.Path) && a.permitted(c) == nil {
		c.x.Operation = "issuer"
		a.deps.Issuer.ServeFor(w, r, c.source, a.base(r))
		return nil
	}
	w.Header().Set("Cache-Control", "no-store")
	defer c.describe()
	res, err := a.handle(w, c)
	if err != nil {
		return timedOut(err)
	}
	maps.Copy(w.Header(), res.header)
	if res.body != nil {
		w.Header().Set("Content-Length", strconv.Itoa(len(res.body)))
	}
	w.WriteHeader(res.status)
	_, _ = w.Write(res.body) // writes nothing for HEAD, 204 and 304; an error is logged with the request
	return nil
}

// handle passes the gates in order: address, identity, any role at all, rate limit, path, role, then the request
// itself. Unauthenticated callers learn nothing about existing resources and do not use up the rate limit.
func (a *API) handle(w http.ResponseWriter, c *call) (*response, error) {
	if trusted, ok := c.r.Context().Value(trustedKey{}).(*Caller); ok {
		c.caller, c.kind = trusted, "administrator"
	} else {
		if err := a.permitted(c); err != nil {
			return nil, err
		}
		if len(c.r.RequestURI) > maxURIBytes {
			return nil, fault.New(fault.Invalid, web.CodeURITooLong,
				"the request URI is longer than %d bytes; shorten the filter", maxURIBytes)
		}
		id, roles, err := a.deps.Authenticator.Authenticate(c.r.Context(), c.r.Header.Values("Authorization"))
		if err != nil {
			return nil, err
		}
		c.caller = &Caller{id, roles}
		if !slices.ContainsFunc([]string{roleRead, roleWrite, roleDelete}, c.caller.may) {
			return nil, fault.New(fault.Forbidden, web.CodeMissingRole, "the token has none of the roles %s, %s, %s "+
				"and %s; have one of them granted", roleAdmin, roleRead, roleWrite, roleDelete)
		}
		if wait := a.deps.Limiter.Allow(c.r.Context()); wait > 0 {
			return nil, fault.New(fault.Limited, web.CodeTooManyRequests,
				"rate limit of %d requests a minute over all clients exceeded; wait for the time in Retry-After "+
					"(a batch of 100 numbers counts as one request)", a.cfg.RequestsPerMinute).After(wait)
		}
	}
	op, vars, allow, err := find(c.r.Method, c.r.URL.EscapedPath())
	if err != nil {
		if len(allow) > 0 {
			w.Header().Set("Allow", strings.Join(allow, ", "))
		}
		return nil, err
	}
	c.op, c.vars, c.x.Operation = op, vars, op.id
	if !c.caller.may(op.role) {
		return nil, fault.New(fault.Forbidden, web.CodeMissingRole, "this operation needs the role %s or %s, which "+
			"the token lacks; have it granted", op.role, roleAdmin)
	}
	readBody := func() (err error) {
		c.body, err = web.Body{Most: a.cfg.MaxBodyBytes, Types: op.body}.Read(w, c.r)
		return err
	}
	for _, read := range []func() error{c.readQuery, c.readHeaders, readBody, c.readRepeatability, c.checkNames} {
		if err := read(); err != nil {
			return nil, err
		}
	}
	limit := a.cfg.RequestTimeout
	if c.query["deleteNumbers"] == "true" && limit < wholeAccount {
		limit = wholeAccount
		// The connection must stay open as long. A writer that does not support deadlines (a test's recorder) has none
		// to extend.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(limit + writeGrace))
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), limit)
	defer cancel()
	c.r = c.r.WithContext(domain.WithActor(ctx, domain.Actor{Kind: c.kind, ID: c.caller.ID, RequestID: c.x.ID}))
	return op.do(a, c)
}

func (a *API) permitted(c *call) error {
	if a.deps.Sources.Permits(c.source) {
		return nil
	}
	return fault.New(fault.Forbidden, web.CodeSourceNotAllowed, "requests from %v are not allowed; ask the operator "+
		"to add the address to the allow-list", c.source)
}

// base returns the absolute URL that paths are appended to.
func (a *API) base(r *http.Request) string {
	if a.cfg.PublicURL != "" {
		return a.cfg.PublicURL
	}
	scheme, host := "http", r.Host
	if r.TLS != nil {
		scheme = "https"
	}
	if a.deps.Sources.TrustsPeer(r) {
		if p := lastOf(r.Header.Values("X-Forwarded-Proto")); p == "http" || p == "https" {
			scheme = p
		}
		if h := lastOf(r.Header.Values("X-Forwarded-Host")); h != "" {
			host = h
		}
	}
	return scheme + "://" + host
}

// lastOf returns the last element of a list header: what the nearest proxy wrote.
func lastOf(values []string) string {
	l := strings.Split(strings.Join(values, ","), ",")
	return strings.TrimSpace(l[len(l)-1])
}

// describe adds to the log line who called and what it was about.
func (c *call) describe() {
	if c.caller != nil {
		c.x.Add("client", c.caller.ID)
	}
	if c.vars.account != "" {
		c.x.Add("account", web.Clip(c.vars.account))
	}
	if n, err := domain.ParseE164(string(c.vars.number)); err == nil {
		c.x.Add("number", n)
	}
}

// from names the source for the log.
func (c *call) from() string {
	switch {
	case c.source.IsValid():
		return c.source.String()
	case c.r.Context().Value(trustedKey{}) != nil:
		return "socket"
	}
	return "unknown" // malformed X-Forwarded-For
}
