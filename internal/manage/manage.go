// Package manage serves the management API (api/manage/v1.yaml): health, explanations of calls, API clients and tokens,
// audit verification, peers and draining. It is a front end: it parses requests, checks permissions, calls the job and
// maps the result; it does not use the database and starts nothing.
//
// The same Server serves the Unix socket in the data directory, where every user that may open the socket may do
// everything, and a URL, where a bearer token determines the permissions. Main types: Jobs, the functions behind the
// API; Server, the handler.
package manage

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/domain/strictjson"
)

// maxBodyBytes bounds request bodies; the largest sensible one is far smaller.
const maxBodyBytes = 64 << 10

// The roles in tokens. Management.Admin includes Management.Read.
const (
	RoleAdmin = "Management.Admin"
	RoleRead  = "Management.Read"
)

// Jobs holds the functions behind the API. They must be safe for concurrent use, and return *fault.Error for errors
// that the caller can fix. A nil function means that this node's roles do not include the job.
type Jobs struct {
	Health      func(ctx context.Context) api.Health
	Drain       func(ctx context.Context, draining bool) error
	Reload      func(ctx context.Context) (*api.Reloaded, error)
	Peers       func() []api.PeerGroup
	AcceptIndex func(ctx context.Context, database string) error
	Explain     func(ctx context.Context, q api.Question) (*api.Explanation, error)
	Clients     func(ctx context.Context) ([]api.Client, error)
	NewClient   func(ctx context.Context, c api.NewClient) (*api.CreatedClient, error)
	Revoke      func(ctx context.Context, id string) error
	NewToken    func(ctx context.Context, roles []string) (*api.Token, error)
	VerifyAudit func(ctx context.Context, heads []string) (*api.AuditReport, error)
}

// Identify returns who sent a request, and with which roles, from its bearer token. It returns a *fault.Error of kind
// Unauthenticated if the request has no valid token, and of kind Limited if the rate limit is exceeded.
type Identify func(r *http.Request) (who domain.Actor, roles []string, err error)

// Server serves the API. Create it with New.
type Server struct {
	jobs     Jobs
	log      *slog.Logger
	requests *prometheus.CounterVec
}

// New returns a server over jobs.
func New(jobs Jobs, log *slog.Logger, reg prometheus.Registerer) *Server {
	s := &Server{jobs: jobs, log: log,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tandem_manage_requests_total",
			Help: "Requests to the management API."}, []string{"operation", "status"})}
	reg.MustRegister(s.requests)
	return s
}

// Local returns the handler for the Unix socket, whose file mode decides who may use it. who returns the sender of a
// request, for the audit log.
func (s *Server) Local(who func(*http.Request) domain.Actor) http.Handler {
	return s.handler(func(r *http.Request) (domain.Actor, []string, error) {
		return who(r), []string{RoleAdmin}, nil
	})
}

// Remote returns the handler for a URL: mux, with the API added to it. permit checks the source address of every
// request, including those for the other handlers of mux; then identify returns who sent an API request.
func (s *Server) Remote(mux *http.ServeMux, permit func(*http.Request) error, identify Identify) http.Handler {
	mux.Handle("/", s.handler(identify))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := permit(r); err != nil {
			s.fail(w, "none", err)
		} else if r.URL.Path == "*" { // OPTIONS *, which ServeMux does not route
			s.notFound(w)
		} else {
			mux.ServeHTTP(w, r)
		}
	})
}

// operation is one operation of the contract.
type operation struct {
	id, method, path string
	role             string // minimum role
	run              func(s *Server, r *http.Request) (status int, body any, err error)
}

var operations = []operation{
	{"getHealth", "GET", "/manage/v1/health", RoleRead, (*Server).getHealth},
	{"setDrain", "PUT", "/manage/v1/drain", RoleAdmin, (*Server).setDrain},
	{"reload", "POST", "/manage/v1/reload", RoleAdmin, (*Server).reload},
	{"listPeers", "GET", "/manage/v1/peers", RoleRead, (*Server).listPeers},
	{"acceptIndex", "POST", "/manage/v1/index/accept", RoleAdmin, (*Server).acceptIndex},
	{"explainCall", "POST", "/manage/v1/explain", RoleRead, (*Server).explainCall},
	{"listClients", "GET", "/manage/v1/clients", RoleAdmin, (*Server).listClients},
	{"createClient", "POST", "/manage/v1/clients", RoleAdmin, (*Server).createClient},
	{"revokeClient", "DELETE", "/manage/v1/clients/{clientId}", RoleAdmin, (*Server).revokeClient},
	{"createToken", "POST", "/manage/v1/tokens", RoleAdmin, (*Server).createToken},
	{"verifyAudit", "POST", "/manage/v1/audit/verify", RoleRead, (*Server).verifyAudit},
}

func (s *Server) handler(identify Identify) http.Handler {
	mux := http.NewServeMux()
	methods := map[string][]string{}
	for _, op := range operations {
		methods[op.path] = append(methods[op.path], op.method)
		mux.HandleFunc(op.method+" "+op.path,
			func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, op, identify) })
	}
	for path, allowed := range methods {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", strings.Join(allowed, ", "))
			s.refuse(w, "none", http.StatusMethodNotAllowed, fault.New(fault.Invalid, "MethodNotAllowed",
				"%s is not allowed here; use %s", r.Method, strings.Join(allowed, " or ")))
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { s.notFound(w) })
	return mux
}

func (s *Server) notFound(w http.ResponseWriter) {
	s.fail(w, "none", fault.New(fault.NotFound, "NotFound",
		"there is nothing at this path; the management API is under /manage/v1/"))
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request, op operation, identify Identify) {
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p)
			}
			s.log.Error("management request panicked", "operation", op.id, "panic", p, "stack", string(debug.Stack()))
			s.fail(w, op.id, fault.Wrap(fmt.Errorf("panic: %v", p), "%s", op.id))
		}
	}()
	who, roles, err := identify(r)
	if err != nil {
		if fault.Is(err, fault.Unauthenticated) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="tandem"`)
		}
		s.fail(w, op.id, err)
		return
	}
	if !slices.Contains(roles, op.role) && !slices.Contains(roles, RoleAdmin) {
		has := cmp.Or(strings.Join(roles, ", "), "none")
		s.fail(w, op.id, fault.New(fault.Forbidden, "RoleMissing",
			"this operation needs the role %s; the token has %s", op.role, has))
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBodyBytes)
	status, body, err := op.run(s, r.WithContext(domain.WithActor(r.Context(), who)))
	if err != nil {
		s.fail(w, op.id, err)
		return
	}
	if op.role == RoleAdmin {
		s.log.Info("management request", "operation", op.id, "actor", who.Kind+":"+who.ID, "status", status)
	}
	s.answer(w, op.id, status, body)
}

func (s *Server) answer(w http.ResponseWriter, op string, status int, body any) {
	s.requests.WithLabelValues(op, strconv.Itoa(status)).Inc()
	w.Header().Set("Cache-Control", "no-store")
	if body == nil {
		w.WriteHeader(status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // an error means that the client has disconnected
}

// fail answers with an error: the only mapping from faults to HTTP.
func (s *Server) fail(w http.ResponseWriter, op string, err error) {
	f := fault.As(err)
	status, ok := statuses[f.Kind]
	if !ok {
		status = http.StatusInternalServerError
	}
	if status == http.StatusInternalServerError {
		s.log.Error("management request failed", "operation", op, "error", err)
	}
	s.refuse(w, op, status, f)
}

var statuses = map[fault.Kind]int{
	fault.Invalid:         http.StatusBadRequest,
	fault.Unauthenticated: http.StatusUnauthorized,
	fault.Forbidden:       http.StatusForbidden,
	fault.NotFound:        http.StatusNotFound,
	fault.Conflict:        http.StatusConflict,
	fault.Precondition:    http.StatusPreconditionFailed,
	fault.TooLarge:        http.StatusRequestEntityTooLarge,
	fault.Limited:         http.StatusTooManyRequests,
	fault.Unavailable:     http.StatusServiceUnavailable,
}

func (s *Server) refuse(w http.ResponseWriter, op string, status int, f *fault.Error) {
	w.Header().Set("x-ms-error-code", f.Code)
	if f.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(f.RetryAfter.Seconds()))))
	}
	s.answer(w, op, status, api.ErrorBody{Error: publicError(*f)})
}

func publicError(f fault.Error) api.Error {
	e := api.Error{Code: f.Code, Message: f.Message, Target: f.Target}
	for _, d := range f.Details {
		e.Details = append(e.Details, publicError(d))
	}
	return e
}

// read reads the body strictly: take extracts the members that the contract defines; any other member is an error. An
// empty body is an error if required is set; otherwise take is not called for it.
func read[T any](r *http.Request, required bool, take func(o *strictjson.Object) T) (v T, err error) {
	raw, err := io.ReadAll(r.Body)
	if large := (*http.MaxBytesError)(nil); errors.As(err, &large) {
		return v, fault.New(fault.TooLarge, "RequestTooLarge", "the request body exceeds %d bytes", maxBodyBytes)
	}
	if err != nil {
		return v, fault.New(fault.Invalid, strictjson.CodeInvalidJSON, "the request body could not be read completely")
	}
	if len(raw) == 0 && !required {
		return v, nil
	}
	n, err := strictjson.Parse(raw)
	if err != nil {
		return v, err
	}
	var in strictjson.Reader
	o := in.Object(n, "")
	v = take(o)
	o.Done()
	return v, in.Err()
}

func notHere(what string) error {
	return fault.New(fault.NotFound, "NotOnThisNode",
		"this node does not have the role %s; use a node that has it", what)
}

func (s *Server) getHealth(r *http.Request) (int, any, error) {
	if s.jobs.Health == nil {
		return 0, nil, errNotRunning
	}
	return http.StatusOK, s.jobs.Health(r.Context()), nil
}

// errNotRunning is the answer to operations that an offline command cannot serve.
var errNotRunning = fault.New(fault.Unavailable, "NotRunning", "tandem serve is not running on this data directory")

// noEdge returns the answer to operations that need an edge, where none runs.
func (s *Server) noEdge() error {
	if s.jobs.Health == nil {
		return errNotRunning
	}
	return notHere("edge")
}

func (s *Server) setDrain(r *http.Request) (int, any, error) {
	if s.jobs.Drain == nil {
		return 0, nil, errNotRunning
	}
	d, err := read(r, true,
		func(o *strictjson.Object) api.Drain { return api.Drain{Draining: o.Bool("draining", true)} })
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, d, s.jobs.Drain(r.Context(), d.Draining)
}

func (s *Server) reload(r *http.Request) (int, any, error) {
	if s.jobs.Reload == nil {
		return 0, nil, errNotRunning
	}
	// The body has no members: an option that a client sends must not be ignored silently.
	if _, err := read(r, false, func(*strictjson.Object) (none struct{}) { return none }); err != nil {
		return 0, nil, err
	}
	done, err := s.jobs.Reload(r.Context())
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, done, nil
}

func (s *Server) listPeers(*http.Request) (int, any, error) {
	if s.jobs.Peers == nil {
		return 0, nil, s.noEdge()
	}
	groups := s.jobs.Peers()
	if groups == nil {
		groups = []api.PeerGroup{}
	}
	return http.StatusOK, api.PeerGroupList{Groups: groups}, nil
}

func (s *Server) acceptIndex(r *http.Request) (int, any, error) {
	if s.jobs.AcceptIndex == nil {
		return 0, nil, s.noEdge()
	}
	q, err := read(r, true, func(o *strictjson.Object) api.IndexAcceptance {
		return api.IndexAcceptance{Database: o.Str("database", true)}
	})
	if err != nil {
		return 0, nil, err
	}
	return http.StatusAccepted, nil, s.jobs.AcceptIndex(r.Context(), q.Database)
}

func (s *Server) explainCall(r *http.Request) (int, any, error) {
	if s.jobs.Explain == nil {
		return 0, nil, s.noEdge()
	}
	q, err := read(r, true, func(o *strictjson.Object) api.Question {
		text := func(name string) string { return o.Str(name, false) }
		return api.Question{From: o.Str("from", true), To: o.Str("to", true), Peer: o.Str("peer", true),
			Host: text("host"), Asserted: o.Strings("asserted", false), History: o.Strings("history", false),
			ReferredBy: text("referredBy"), AnchoredBy: text("anchoredBy")}
	})
	if err != nil {
		return 0, nil, err
	}
	for _, f := range [][2]string{{"to", q.To}, {"from", q.From}, {"peer", q.Peer}} {
		if f[1] == "" {
			return 0, nil, fault.New(fault.Invalid, "InvalidQuestion",
				`%s is empty; "to" is the called number as dialled, "from" the calling number, "peer" the peer or `+
					"peer group that sends the call", f[0]).At(f[0])
		}
	}
	e, err := s.jobs.Explain(r.Context(), q)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, e, nil
}

func (s *Server) listClients(r *http.Request) (int, any, error) {
	if s.jobs.Clients == nil {
		return 0, nil, notHere("api")
	}
	cs, err := s.jobs.Clients(r.Context())
	if err != nil {
		return 0, nil, err
	}
	if cs == nil {
		cs = []api.Client{}
	}
	return http.StatusOK, api.ClientList{Clients: cs}, nil
}

func (s *Server) createClient(r *http.Request) (int, any, error) {
	if s.jobs.NewClient == nil {
		return 0, nil, notHere("api")
	}
	n, err := read(r, true, func(o *strictjson.Object) api.NewClient {
		return api.NewClient{Name: o.Str("name", true), Roles: o.Strings("roles", true)}
	})
	if err != nil {
		return 0, nil, err
	}
	if n.Name == "" || len(n.Name) > 100 {
		return 0, nil, fault.New(fault.Invalid, "InvalidClientName",
			"a client needs a name of 1 to 100 characters").At("name")
	}
	if len(n.Roles) == 0 {
		return 0, nil, fault.New(fault.Invalid, "RolesMissing", "a client needs at least one role").At("roles")
	}
	c, err := s.jobs.NewClient(r.Context(), n)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusCreated, c, nil
}

func (s *Server) revokeClient(r *http.Request) (int, any, error) {
	if s.jobs.Revoke == nil {
		return 0, nil, notHere("api")
	}
	return http.StatusNoContent, nil, s.jobs.Revoke(r.Context(), r.PathValue("clientId"))
}

func (s *Server) createToken(r *http.Request) (int, any, error) {
	if s.jobs.NewToken == nil {
		return 0, nil, notHere("api")
	}
	n, err := read(r, true,
		func(o *strictjson.Object) api.NewToken { return api.NewToken{Roles: o.Strings("roles", true)} })
	if err != nil {
		return 0, nil, err
	}
	if len(n.Roles) == 0 {
		return 0, nil, fault.New(fault.Invalid, "RolesMissing", "a token needs at least one role").At("roles")
	}
	t, err := s.jobs.NewToken(r.Context(), n.Roles)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, t, nil
}

func (s *Server) verifyAudit(r *http.Request) (int, any, error) {
	if s.jobs.VerifyAudit == nil {
		return 0, nil, notHere("api")
	}
	q, err := read(r, false, func(o *strictjson.Object) api.AuditQuestion {
		return api.AuditQuestion{Heads: o.Strings("heads", false)}
	})
	if err != nil {
		return 0, nil, err
	}
	rep, err := s.jobs.VerifyAudit(r.Context(), q.Heads)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, rep, nil
}
