package provapi

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/domain/strictjson"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
	"github.com/tandemgw/tandem/internal/provisioning/filter"
)

// Directory is the part of *directory.Directory that the API calls.
type Directory interface {
	Accounts(ctx context.Context, q directory.Query) (directory.Page[domain.Account], error)
	Account(ctx context.Context, name string) (domain.Account, error)
	PutAccount(ctx context.Context, a domain.Account, w directory.Write) (*directory.Result, error)
	DeleteAccount(ctx context.Context, name string, deleteNumbers bool, w directory.Write) (*directory.Result, error)
	Numbers(ctx context.Context, account string, q directory.Query) (directory.Page[domain.Number], error)
	Number(ctx context.Context, account string, n domain.E164) (domain.Number, error)
	PutNumber(ctx context.Context, n domain.Number, w directory.Write) (*directory.Result, error)
	DeleteNumber(ctx context.Context, account string, n domain.E164, w directory.Write) (*directory.Result, error)
	PutNumbers(ctx context.Context, account string, ns []domain.Number, w directory.Write) (*directory.Result, error)
	DeleteNumbers(ctx context.Context, account string, ns []domain.E164, w directory.Write) (*directory.Result, error)
	Requests(ctx context.Context, q directory.Query) (directory.Page[domain.RequestForInformation], error)
	Request(ctx context.Context, tenantID string) (domain.RequestForInformation, error)
	PatchRequest(ctx context.Context, tenantID string, p directory.RelationshipPatch,
		w directory.Write) (*directory.Result, error)
	CivicAddresses(ctx context.Context, account string,
		q directory.Query) (directory.Page[directory.CivicAddress], error)
	CivicAddress(ctx context.Context, account, id string) (directory.CivicAddress, error)
	CapabilityPlans(ctx context.Context, account string, w directory.Write) (*directory.Result, error)
	AvailableCapabilities(ctx context.Context, account string, ns []domain.E164,
		w directory.Write) (*directory.Result, error)
}

var _ Directory = (*directory.Directory)(nil)

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

// Sealer seals texts that callers keep and send back unchanged: page cursors.
type Sealer interface {
	SealToken(purpose string, plain []byte) ([]byte, error)
	OpenToken(purpose string, token []byte) ([]byte, error)
}

// Deps are the dependencies of an API. All but Issuer and Metrics are required.
type Deps struct {
	Services      domain.Services // of which those in the contract are served
	Directory     Directory
	Authenticator Authenticator
	Sources       Sources
	Limiter       Limiter
	Issuer        Issuer // nil for none
	Sealer        Sealer
	Log           *slog.Logger
	Metrics       prometheus.Registerer
}

// API serves the Provisioning API. It is safe for concurrent use.
type API struct {
	cfg  Config
	deps Deps
	dir  Directory
	log  *slog.Logger
	m    *metrics

	accounts, numbers *filter.Table
}

// New returns an API. cfg must be valid.
func New(cfg Config, deps Deps) (*API, error) {
	m, err := newMetrics(deps.Metrics)
	if err != nil {
		return nil, err
	}
	cfg.PublicURL = strings.TrimSuffix(cfg.PublicURL, "/")
	return &API{cfg: cfg, deps: deps, dir: deps.Directory, log: deps.Log, m: m,
		accounts: filter.Accounts(deps.Services), numbers: filter.Numbers(deps.Services)}, nil
}

// Caller identifies the caller of a request.
type Caller struct {
	ID    string // stable over time and unique
	Roles []string
}

func (c *Caller) may(role string) bool {
	return slices.Contains(c.Roles, role) || slices.Contains(c.Roles, roleAdmin)
}

// mayAny reports whether the caller may use any operation.
func (c *Caller) mayAny() bool {
	return slices.ContainsFunc([]string{roleRead, roleWrite, roleDelete}, c.may)
}

type trustedKey struct{}

// Trusted marks a request's context as coming from caller, who was authenticated by other means: the permissions of a
// Unix socket. Token, source list and rate limit do not apply to it; roles do.
func Trusted(ctx context.Context, caller Caller) context.Context {
	return context.WithValue(ctx, trustedKey{}, &caller)
}

// Limits that are not configurable.
const (
	maxURIBytes    = 8 << 10
	maxHeaderBytes = 32 << 10 // all headers together; a token takes up to 16 KiB of it

	// wholeAccount is the time limit for deleting an account with its numbers: one transaction, however many there are
	// (about 100,000 a second).
	wholeAccount = 5 * time.Minute
	writeGrace   = 30 * time.Second // for the caller to read the answer
)

// NewServer returns an HTTP server for the API with limits on the size of headers and on how slowly a client may send
// and read. The caller sets TLS and serves it on its listener.
func (a *API) NewServer() *http.Server {
	return &http.Server{
		Handler:           a,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      a.cfg.RequestTimeout + writeGrace,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
	}
}

// call is one request in progress.
type call struct {
	r         *http.Request
	requestID string
	op        *operation // nil until the path is known
	vars      pathVars
	query     map[string]string
	caller    *Caller // nil until known
	kind      string  // of the caller, for the audit log
	source    netip.Addr
	body      *strictjson.Node // nil if the operation takes none
	cond      directory.Condition
	once      *directory.Once // nil unless the request is repeatable; Render is not set
}

// response is an answer before it is written.
type response struct {
	status int
	header http.Header
	body   []byte
	fault  *fault.Error // for the log; nil on success
}

func jsonResponse(status int, v any) *response {
	body, err := encode(v)
	if err != nil {
		panic(fmt.Sprintf("provapi: render %T: %v", v, err)) // our own types: a programming error
	}
	return &response{status: status, header: http.Header{"Content-Type": {"application/json"}}, body: body}
}

// ServeHTTP answers one request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	c := &call{r: r, kind: "client", requestID: newRequestID(), source: a.deps.Sources.Of(r)}
	w.Header().Set("x-ms-request-id", c.requestID)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if a.deps.Issuer != nil && a.deps.Issuer.Serves(r.URL.Path) && a.permitted(c) == nil {
		a.deps.Issuer.ServeFor(w, r, c.source, a.base(r))
		return
	}
	res := a.answer(w, c)
	res.header.Set("Cache-Control", "no-store")
	// The contract's id is a UUID. Any other id is accepted and logged, but not echoed.
	if id := r.Header.Get("x-ms-client-request-id"); domain.IsGUID(id) {
		res.header.Set("x-ms-client-request-id", id)
	}
	for k, v := range res.header {
		w.Header()[k] = v
	}
	if res.body != nil {
		w.Header().Set("Content-Length", strconv.Itoa(len(res.body)))
	}
	w.WriteHeader(res.status)
	_, werr := w.Write(res.body) // writes nothing for HEAD, 204 and 304
	a.record(c, res, time.Since(start), werr)
}

// answer handles the request and recovers from a panic.
func (a *API) answer(w http.ResponseWriter, c *call) (res *response) {
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p)
			}
			a.m.panics.Inc()
			// The stack contains no argument values that could be a number or a secret.
			err := fault.Wrap(fmt.Errorf("panic: %v\n%s", p, debug.Stack()), "handle a request")
			res = answerFault(c, err)
		}
	}()
	res, err := a.handle(w, c)
	if err != nil {
		return a.fail(c, err)
	}
	return res
}

func (a *API) fail(c *call, err error) *response {
	res := answerFault(c, err)
	if res.status == http.StatusMethodNotAllowed {
		_, _, allow, _ := find(c.r.Method, c.r.URL.EscapedPath()) // fails as it did before
		res.header.Set("Allow", strings.Join(allow, ", "))
	}
	return res
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
			return nil, fault.New(fault.Invalid, CodeURITooLong,
				"the request URI is longer than %d bytes; shorten the filter", maxURIBytes)
		}
		id, roles, err := a.deps.Authenticator.Authenticate(c.r.Context(), c.r.Header.Values("Authorization"))
		if err != nil {
			return nil, err
		}
		c.caller = &Caller{id, roles}
		if !c.caller.mayAny() {
			return nil, fault.New(fault.Forbidden, CodeMissingRole, "the token has none of the roles %s, %s, %s "+
				"and %s; have one of them granted", roleAdmin, roleRead, roleWrite, roleDelete)
		}
		if wait := a.deps.Limiter.Allow(c.r.Context()); wait > 0 {
			return nil, fault.New(fault.Limited, CodeTooManyRequests,
				"rate limit of %d requests a minute over all clients exceeded; wait for the time in Retry-After "+
					"(a batch of 100 numbers counts as one request)", a.cfg.RequestsPerMinute).After(wait)
		}
	}
	op, vars, _, err := find(c.r.Method, c.r.URL.EscapedPath())
	if err != nil {
		return nil, err
	}
	c.op, c.vars = op, vars
	if !c.caller.may(op.role) {
		return nil, fault.New(fault.Forbidden, CodeMissingRole, "this operation needs the role %s or %s, which the "+
			"token lacks; have it granted", op.role, roleAdmin)
	}
	if err := c.readQuery(); err != nil {
		return nil, err
	}
	if err := c.readHeaders(); err != nil {
		return nil, err
	}
	if err := c.readBody(w, a.cfg.MaxBodyBytes); err != nil {
		return nil, err
	}
	if err := c.readRepeatability(); err != nil {
		return nil, err
	}
	if err := c.checkNames(); err != nil {
		return nil, err
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
	c.r = c.r.WithContext(domain.WithActor(ctx, domain.Actor{Kind: c.kind, ID: c.caller.ID, RequestID: c.requestID}))
	return op.do(a, c)
}

func (a *API) permitted(c *call) error {
	if a.deps.Sources.Permits(c.source) {
		return nil
	}
	return fault.New(fault.Forbidden, CodeSourceNotAllowed, "requests from %v are not allowed; ask the operator "+
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

func newRequestID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails: crypto/rand crashes the process instead
	return hex.EncodeToString(b)
}

// record writes the access log and the metrics. The path is not logged as sent: it may contain a telephone number.
func (a *API) record(c *call, res *response, took time.Duration, werr error) {
	op := "none"
	if c.op != nil {
		op = c.op.id
	}
	a.m.requests.WithLabelValues(op, strconv.Itoa(res.status)).Inc()
	a.m.seconds.WithLabelValues(op).Observe(took.Seconds())
	attrs := []slog.Attr{
		slog.String("request", c.requestID), slog.String("operation", op), slog.Int("status", res.status),
		slog.Duration("took", took), slog.String("source", c.from()),
	}
	if c.caller != nil {
		attrs = append(attrs, slog.String("client", c.caller.ID))
	}
	if c.vars.account != "" {
		attrs = append(attrs, slog.String("account", clip(c.vars.account)))
	}
	if n, err := domain.ParseE164(c.vars.number); err == nil {
		attrs = append(attrs, slog.Any("number", n))
	}
	if id := c.r.Header.Get("x-ms-client-request-id"); id != "" && validOpaque(id) {
		attrs = append(attrs, slog.String("clientRequest", id))
	}
	level := slog.LevelInfo
	if res.fault != nil {
		attrs = append(attrs, slog.String("code", res.fault.Code))
		if res.status >= 500 {
			level = slog.LevelError
			if res.status == http.StatusServiceUnavailable || errors.Is(res.fault, context.Canceled) {
				level = slog.LevelWarn
			}
			attrs = append(attrs, slog.Any("error", res.fault))
		}
	}
	if werr != nil {
		attrs = append(attrs, slog.Any("write", werr))
	}
	a.log.LogAttrs(c.r.Context(), level, "provisioning request", attrs...)
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

// clip limits how much text from a caller goes into logs and messages.
func clip(s string) string {
	const most = 100
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// encode returns v as JSON in the form of the contract's examples: no HTML escaping, no trailing newline.
func encode(v any) ([]byte, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return []byte(strings.TrimSuffix(b.String(), "\n")), nil
}
