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
)

// Directory is what the API stands on: the operations of *directory.Directory that it calls.
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
	PatchRequest(ctx context.Context, tenantID string, p directory.RelationshipPatch, w directory.Write) (*directory.Result, error)
	CivicAddresses(ctx context.Context, account string, q directory.Query) (directory.Page[directory.CivicAddress], error)
	CivicAddress(ctx context.Context, account, id string) (directory.CivicAddress, error)
	CapabilityPlans(ctx context.Context, account string, w directory.Write) (*directory.Result, error)
	AvailableCapabilities(ctx context.Context, account string, ns []domain.E164, w directory.Write) (*directory.Result, error)
}

var _ Directory = (*directory.Directory)(nil)

// Authenticator finds out who asks from a request's Authorization headers: a stable id of the client, and the roles it
// has. Its errors are faults of kind Unauthenticated or Unavailable.
type Authenticator interface {
	Authenticate(ctx context.Context, authorization []string) (id string, roles []string, err error)
}

// Sources finds the address a request came from and tells whether it may use the API.
type Sources interface {
	Of(r *http.Request) netip.Addr
	Permits(a netip.Addr) bool
	// TrustsPeer reports whether the connection's other end is a proxy whose forwarding headers are believed.
	TrustsPeer(r *http.Request) bool
}

// Limiter takes one request out of the rate limit: 0 if it may go on, else how long to wait.
type Limiter interface {
	Allow(ctx context.Context) time.Duration
}

// Issuer is the embedded token issuer, whose paths are served beside the API's.
type Issuer interface {
	Serves(path string) bool
	ServeFor(w http.ResponseWriter, r *http.Request, source netip.Addr, base string)
}

// Sealer makes texts that callers carry and hand back unchanged: page cursors.
type Sealer interface {
	SealToken(purpose string, plain []byte) ([]byte, error)
	OpenToken(purpose string, token []byte) ([]byte, error)
}

// Deps is what an API stands on. All but Issuer and Metrics are needed.
type Deps struct {
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
}

// New builds an API. cfg is valid.
func New(cfg Config, deps Deps) (*API, error) {
	m, err := newMetrics(deps.Metrics)
	if err != nil {
		return nil, err
	}
	cfg.PublicURL = strings.TrimSuffix(cfg.PublicURL, "/")
	return &API{cfg: cfg, deps: deps, dir: deps.Directory, log: deps.Log, m: m}, nil
}

// Caller is who asks.
type Caller struct {
	ID    string // stable over time and different from everybody else's
	Roles []string
}

func (c *Caller) may(role string) bool {
	return slices.Contains(c.Roles, role) || slices.Contains(c.Roles, roleAdmin)
}

// mayAny reports whether there is an operation that the caller may do.
func (c *Caller) mayAny() bool {
	return slices.ContainsFunc([]string{roleRead, roleWrite, roleDelete}, c.may)
}

type trustedKey struct{}

// Trusted marks a request's context as coming from caller, who was authenticated otherwise: by the permissions of a Unix
// socket. Token, source list and rate limit do not apply to it; roles do.
func Trusted(ctx context.Context, caller Caller) context.Context {
	return context.WithValue(ctx, trustedKey{}, &caller)
}

// Bounds that are not configurable.
const (
	maxURIBytes    = 8 << 10
	maxHeaderBytes = 32 << 10 // of all headers; a token takes up to 16 KiB of it

	// wholeAccount is the time for deleting an account with its numbers: one transaction, however many they are (some
	// 100,000 a second).
	wholeAccount = 5 * time.Minute
	writeGrace   = 30 * time.Second // for the caller to take the answer
)

// NewServer returns an HTTP server for the API with bounds on headers and on how slowly a client may send and read. The
// caller sets TLS, and serves it on its listener.
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

// call is one request on its way.
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

// response is an answer on its way.
type response struct {
	status int
	header http.Header
	body   []byte
	fault  *fault.Error // what the log says; nil for success
}

func jsonResponse(status int, v any) *response {
	body, err := encode(v)
	if err != nil {
		panic(fmt.Sprintf("provapi: render %T: %v", v, err)) // our own types: a programmer's mistake
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
	// The contract's id is a UUID: another is taken, and stands in the log, but does not come back.
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

// answer handles the request and recovers from a panic in doing so.
func (a *API) answer(w http.ResponseWriter, c *call) (res *response) {
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p)
			}
			a.m.panics.Inc()
			// The stack has no argument values in it that could be a number or a secret.
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
		_, _, allow, _ := find(c.r.Method, c.r.URL.EscapedPath()) // failed the same way before
		res.header.Set("Allow", strings.Join(allow, ", "))
	}
	return res
}

// handle goes through the gates in order: address, identity, any role at all, rate, path, role, then the request itself.
// Who is not let in learns nothing of what exists, and does not spend the limit of those who are.
func (a *API) handle(w http.ResponseWriter, c *call) (*response, error) {
	if trusted, ok := c.r.Context().Value(trustedKey{}).(*Caller); ok {
		c.caller, c.kind = trusted, "administrator"
	} else {
		if err := a.permitted(c); err != nil {
			return nil, err
		}
		if len(c.r.RequestURI) > maxURIBytes {
			return nil, fault.New(fault.Invalid, CodeURITooLong, "the request's URI has more than %d bytes", maxURIBytes)
		}
		id, roles, err := a.deps.Authenticator.Authenticate(c.r.Context(), c.r.Header.Values("Authorization"))
		if err != nil {
			return nil, err
		}
		c.caller = &Caller{id, roles}
		if !c.caller.mayAny() {
			return nil, fault.New(fault.Forbidden, CodeMissingRole, "the token has none of the roles %s, %s, %s and %s", roleAdmin, roleRead, roleWrite, roleDelete)
		}
		if wait := a.deps.Limiter.Allow(c.r.Context()); wait > 0 {
			return nil, fault.New(fault.Limited, CodeTooManyRequests,
				"more than %d requests a minute over all clients; wait as long as Retry-After says (a batch of 100 numbers counts once)", a.cfg.RequestsPerMinute).After(wait)
		}
	}
	op, vars, _, err := find(c.r.Method, c.r.URL.EscapedPath())
	if err != nil {
		return nil, err
	}
	c.op, c.vars = op, vars
	if !c.caller.may(op.role) {
		return nil, fault.New(fault.Forbidden, CodeMissingRole, "this operation needs the role %s or %s, which the token does not have", op.role, roleAdmin)
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
		// The connection must last as long. Where the writer cannot say so (a test's recorder) there is no deadline either.
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
	return fault.New(fault.Forbidden, CodeSourceNotAllowed, "requests from %v are not allowed here; ask the operator to add the address to the allow-list", c.source)
}

// base is the absolute URL that paths are appended to.
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
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
	return hex.EncodeToString(b)
}

// record writes the access log and the metrics. The path is not logged as sent: it may hold a telephone number.
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
	return "unknown" // X-Forwarded-For cannot be read
}

// clip bounds what strangers can put into the log.
func clip(s string) string {
	const most = 100
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// encode writes JSON as the contract's examples have it: no HTML escaping, no trailing newline.
func encode(v any) ([]byte, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return []byte(strings.TrimSuffix(b.String(), "\n")), nil
}
