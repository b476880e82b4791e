// Package manage serves the management API (api/manage/v1.yaml): the server generated from the contract, behind checks
// of who calls and of the request against the contract. It is a front end: the operations are implemented by the jobs
// (health and draining by node), which node binds; it does not use the database and starts nothing.
//
// The same Server serves the Unix socket in the data directory, where every user that may open the socket may do
// everything, and a URL, where a bearer token determines the permissions. Main types: Operations, what node binds;
// Server, the handler.
package manage

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/domain/strictjson"
	"github.com/tandemgw/tandem/internal/platform/auth"
	"github.com/tandemgw/tandem/internal/platform/web"
)

// maxBodyBytes bounds request bodies; the largest sensible one is far smaller.
const maxBodyBytes = 64 << 10

// Operations are the operations of the contract, by the job that implements them. They are safe for concurrent use, and
// return *fault.Error for errors that the caller can fix. A job that this node does not have is an api.Absent with the
// answer of NotHere or NotRunning.
type Operations struct {
	api.NodeOperations
	api.EventsOperations
	api.CallsOperations
	api.ProvisioningOperations
	api.AccessOperations
	api.AuditOperations
	api.SecretsOperations
	api.WorkOperations
	api.ZoneOperations
	api.CertificatesOperations
	api.TenantsOperations
	api.ReadinessOperations
	api.CarrierOperations
	api.UsersOperations
	api.InvitationsOperations
	api.SnapshotsOperations
	api.DriftOperations

	// Tenant, if not nil, refuses an operation, by its id, on the tenant of an account that has none.
	Tenant func(ctx context.Context, operation, account string) error
}

var _ api.StrictServerInterface = Operations{}

// NotHere stands for the operations of a role that the node with that id does not have.
func NotHere(role, node string) api.Absent {
	return api.Absent{Err: fault.New(fault.Conflict, "NotOnThisNode",
		"node %s does not have the role %s; use a node that has it", node, role)}
}

// NotRunning stands for operations that an offline command cannot serve.
var NotRunning = api.Absent{Err: fault.New(fault.Unavailable, "NotRunning",
	"tandem serve is not running on this data directory")}

// Identify returns who sent a request, and with which roles, from its bearer token. It returns a *fault.Error of kind
// Unauthenticated if the request has no valid token, and of kind Limited if the rate limit is exceeded.
type Identify func(r *http.Request) (who domain.Actor, roles []string, err error)

// Problems answers errors as problem documents (RFC 9457). The type is always about:blank: the code says which problem
// it is.
var Problems = web.Faults{Realm: "tandem", Render: func(_ http.Header, status int, f *fault.Error) (string, any) {
	p := api.Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Code: f.Code,
		Detail: f.Message, Target: f.Target}
	for _, d := range f.Details {
		p.Details = append(p.Details, api.ProblemDetail{Code: d.Code, Detail: d.Message, Target: d.Target})
	}
	return "application/problem+json", p
}}

var contract = web.MustContract(api.V1, maxBodyBytes)

// Server serves the API. Create it with New.
type Server struct {
	front  *web.Front
	health *http.ServeMux
	api    *http.ServeMux
}

// New returns a server of ops. Health holds handlers that need no identity, for load balancers.
func New(ops Operations, health *http.ServeMux, log *slog.Logger, reg prometheus.Registerer) *Server {
	s := &Server{health: health, api: http.NewServeMux(),
		front: web.NewFront("manage", "management", Problems, log, reg)}
	invalid := func(w http.ResponseWriter, r *http.Request, err error) {
		s.front.Fail(w, r, fault.New(fault.Invalid, strictjson.CodeInvalidValue,
			"the request does not match the contract: %v", err))
	}
	api.HandlerWithOptions(api.NewStrictHandlerWithOptions(ops, []api.StrictMiddlewareFunc{ops.admit},
		api.StrictHTTPServerOptions{
			RequestErrorHandlerFunc: invalid, ResponseErrorHandlerFunc: s.front.Fail,
		}), api.StdHTTPServerOptions{BaseRouter: s.api, ErrorHandlerFunc: invalid})
	return s
}

// admit asks Tenant before operations on tenants. A refusal by Microsoft becomes a conflict: 401 and 403 are about the
// caller's own token.
func (ops Operations) admit(f api.StrictHandlerFunc, operation string) api.StrictHandlerFunc {
	return func(ctx context.Context, w http.ResponseWriter, r *http.Request, request any) (any, error) {
		tenant := strings.HasPrefix(r.URL.Path, "/manage/v1/tenants/")
		if ops.Tenant != nil && tenant {
			if err := ops.Tenant(ctx, operation, r.PathValue("account")); err != nil {
				return nil, err
			}
		}
		answer, err := f(ctx, w, r, request)
		microsoft := tenant || strings.HasPrefix(r.URL.Path, "/manage/v1/carrier")
		if microsoft && (fault.Is(err, fault.Unauthenticated) || fault.Is(err, fault.Forbidden)) {
			refusal := *fault.As(err)
			refusal.Kind, err = fault.Conflict, &refusal
		}
		return answer, err
	}
}

// Local returns the handler for the Unix socket, whose file mode decides who may use it. who returns the sender of a
// request, for the audit log.
func (s *Server) Local(who func(*http.Request) domain.Actor) http.Handler {
	return s.Remote(func(*http.Request) error { return nil },
		func(r *http.Request) (domain.Actor, []string, error) {
			return who(r), []string{auth.RoleManagementAdmin}, nil
		})
}

// Remote returns the handler for a URL. permit checks the source address of every request; then identify returns who
// sent an API request.
func (s *Server) Remote(permit func(*http.Request) error, identify Identify) http.Handler {
	probe := web.Probe(s.health)
	return s.front.Handler(func(w http.ResponseWriter, r *http.Request) error {
		if err := permit(r); err != nil {
			return err
		}
		if _, pattern := s.health.Handler(r); pattern != "" {
			return probe(w, r)
		}
		return s.serve(w, r, identify)
	})
}

// serve checks who calls, then the request, and leaves the rest to the generated server.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, identify Identify) error {
	x := web.Of(r)
	w.Header().Set("Cache-Control", "no-store")
	who, roles, err := identify(r)
	if err != nil {
		return err
	}
	x.Add("actor", who.Kind+":"+who.ID)
	_, pattern, err := web.Route(s.api, w, r)
	if err != nil {
		return err
	}
	op := contract[pattern]
	x.Operation, x.Quiet = op.ID, slices.Contains(op.Roles, auth.RoleManagementRead)
	granted := func(role string) bool { return slices.Contains(roles, role) }
	admin := granted(auth.RoleManagementAdmin)
	if !admin && !slices.ContainsFunc(op.Roles, granted) {
		return fault.New(fault.Forbidden, web.CodeMissingRole, "this operation needs the role %s; the token has %s",
			strings.Join(op.Roles, " or "), cmp.Or(strings.Join(roles, ", "), "none"))
	}
	if err := op.Check(w, r); err != nil {
		return err
	}
	who.RequestID = x.ID
	ctx := context.WithValue(domain.WithActor(r.Context(), who), adminKey{}, admin)
	r = r.WithContext(ctx)
	s.api.ServeHTTP(w, r)
	if account := r.PathValue("account"); account != "" {
		x.Add("account", domain.Text(account))
	}
	return nil
}
