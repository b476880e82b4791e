package node

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/manage"
	"github.com/tandemgw/tandem/internal/platform/auth"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/platform/web"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
	"github.com/tandemgw/tandem/internal/provisioning/provapi"
	"github.com/tandemgw/tandem/internal/zone/check"
)

// buildManage makes what every process serves, whatever its roles: the management API, metrics and the Unix socket. Of
// an offline command only the handler of the socket is used.
func (n *node) buildManage(_ context.Context, r *role) error {
	streams := manage.NewStreams(n.core.events, n.metrics)
	zoneChecks := check.Operations{Inspector: n.inspector(), Publish: n.cfg.Zone.Publish}
	ops := manage.Operations{
		NodeOperations: n, EventsOperations: streams,
		CallsOperations:        manage.NotHere(config.RoleEdge, n.cfg.Calls.Edge.Node),
		ProvisioningOperations: provapi.Operations{Directory: n.core.directory, Sealer: n.core.keyring},
		AccessOperations: &auth.Operations{Clients: n.core.clients, Issuer: n.core.issuer,
			Verifier: n.core.verifier, Sealer: n.core.keyring, Audit: n.core.audit},
		AuditOperations: db.Operations{DB: n.core.db}, SecretsOperations: n.core.rotation(),
		WorkOperations:         flow.Operations{Queue: n.core.work, Sealer: n.core.keyring},
		ZoneOperations:         zoneOperations{zoneChecks, n},
		CertificatesOperations: certificateOperations{n},
		TenantsOperations:      noOnboarding,
		ReadinessOperations:    noOnboarding,
		CarrierOperations:      n.appToRegister(),
		UsersOperations:        noOnboarding,
		InvitationsOperations:  noOnboarding,
		SnapshotsOperations:    noOnboarding,
		DriftOperations:        noOnboarding,
	}
	switch {
	case !n.purpose.serves:
		ops.NodeOperations, ops.CallsOperations = manage.NotRunning, manage.NotRunning
		ops.EventsOperations, ops.ZoneOperations = manage.NotRunning, manage.NotRunning
		ops.CertificatesOperations, ops.TenantsOperations = manage.NotRunning, manage.NotRunning
		ops.ReadinessOperations, ops.CarrierOperations = manage.NotRunning, manage.NotRunning
	case n.calls != nil:
		ops.CallsOperations = n.calls
	}
	if n.tenants != nil {
		n.tenants.bind(&ops)
	}
	health := http.NewServeMux()
	n.mountHealth(health)
	log := n.log.With("part", "manage")
	n.manage = manage.New(ops, health, log, n.metrics)
	if n.cfg.Manage.Listen != config.Off {
		cfg := &n.cfg.Manage
		sources, errs := cfg.Sources.Parse()
		if len(errs) > 0 {
			return errors.Join(errs...)
		}
		limiter := auth.NewLimiter(nil, "manage", cfg.RequestsPerMinute, time.Minute, log, n.metrics)
		n.manageHTTP = &httpServer{name: "manage", cfg: n.bounds.Manage.Listener, write: longestAnswer,
			faults: manage.Problems, handler: n.manage.Remote(permit(sources), n.identify(limiter)), log: log,
			sources: sources, limiter: limiter, metrics: n.http, obtained: n.obtained}
	}
	if n.cfg.Metrics.Listen != config.Off {
		mux, log := http.NewServeMux(), n.log.With("part", "metrics")
		n.mountHealth(mux)
		mux.Handle("/metrics", promhttp.HandlerFor(prometheus.GathererFunc(n.gather),
			promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
		front := web.NewFront("metrics", "metrics", manage.Problems, log, n.metrics)
		n.metricsHTTP = &httpServer{name: "metrics", cfg: n.bounds.Metrics, write: longestAnswer,
			faults: manage.Problems, handler: front.Handler(web.Probe(mux)), log: log, metrics: n.http,
			obtained: n.obtained}
	}
	for _, h := range []*httpServer{n.manageHTTP, n.metricsHTTP} {
		if h != nil {
			n.watchCertificate(h)
			r.parts = append(r.parts, part{name: h.name, open: h.open}) // needed most while the rest drains
		}
	}
	path, handler, socketLog := n.cfg.Path(SocketName), n.local(), n.log.With("part", "socket")
	socket := func(context.Context) (func(context.Context) error, error) {
		return openSocket(path, handler, socketLog, n.http)
	}
	// Streams are drained on all listeners.
	r.parts = append(r.parts, part{name: "socket", open: socket, drain: streams.Drain})

	r.started = func(at *Ready) {
		if h := n.manageHTTP; h != nil {
			at.Management = h.started()
		}
		if h := n.metricsHTTP; h != nil {
			at.Metrics = h.started() + "/metrics"
		}
		n.log.Info("listening", "for", "management socket", "path", path)
	}
	r.reload = func(next *config.Loaded) (func(), error) {
		manage, err := n.manageHTTP.reload(&next.Manage.Listener, &next.Manage.Sources, next.Manage.RequestsPerMinute)
		if err != nil {
			return nil, err
		}
		metrics, err := n.metricsHTTP.reload(&next.Metrics, nil, 0)
		return func() { manage(); metrics() }, err
	}
	return nil
}

// noOnboarding stands for operations on tenants without an app registration.
var noOnboarding = api.Absent{Err: fault.New(fault.Conflict, "OnboardingOff", "no tenant can be onboarded, because "+
	"the configuration names no app registration; set onboarding.app (tandem carrier app prints what it must be)")}

// longestAnswer is the time limit for handling a request to the management URL or to the metrics: verifying a long
// audit log takes minutes.
const longestAnswer = 5 * time.Minute

// local returns the handler of the Unix socket: both APIs, for every user that may open it.
func (n *node) local() http.Handler {
	mux, operations := http.NewServeMux(), n.manage.Local(localActor)
	for _, path := range []string{"/manage/", "/healthz", "/readyz"} {
		mux.Handle(path, operations)
	}
	if n.trustedProvisioning != nil {
		mux.Handle("/", n.trustedProvisioning)
	} else {
		mux.Handle("/", operations)
	}
	return mux
}

// permit checks the address that a request to the management URL comes from.
func permit(sources *auth.Sources) func(*http.Request) error {
	return func(r *http.Request) error {
		from := sources.Of(r)
		web.Of(r).Add("source", from)
		if !sources.Permits(from) {
			return fault.New(fault.Forbidden, web.CodeSourceNotAllowed,
				"requests from %v are not allowed; add the address to manage.allowedSources", from)
		}
		return nil
	}
}

// identify returns who sent a request to the management URL. Requests without a valid token do not use up the rate
// limit.
func (n *node) identify(limiter *auth.Limiter) manage.Identify {
	return func(r *http.Request) (domain.Actor, []string, error) {
		id, roles, err := n.core.verifier.Authenticate(r.Context(), r.Header.Values("Authorization"))
		if err != nil {
			return domain.Actor{}, nil, err
		}
		if wait := limiter.Allow(r.Context()); wait > 0 {
			return domain.Actor{}, nil, fault.New(fault.Limited, web.CodeTooManyRequests,
				"rate limit of this node exceeded (manage.requestsPerMinute, over all clients); retry after the "+
					"time in Retry-After").After(wait)
		}
		return domain.Actor{Kind: "client", ID: id}, roles, nil
	}
}

// drainTag returns the entity tag of the draining state.
func drainTag(on bool) string { return strconv.Quote(strconv.FormatBool(on)) }

// GetDrain implements the operation getDrain.
func (n *node) GetDrain(context.Context, api.GetDrainRequestObject) (api.GetDrainResponseObject, error) {
	on := n.draining.Load()
	return api.GetDrain200JSONResponse{Body: api.Drain{Draining: on},
		Headers: api.GetDrain200ResponseHeaders{ETag: drainTag(on)}}, nil
}

// SetDrain implements the operation setDrain. It works without the database; then only the log names the actor.
func (n *node) SetDrain(ctx context.Context, r api.SetDrainRequestObject) (api.SetDrainResponseObject, error) {
	was := n.draining.Load()
	if r.Params.IfMatch != nil {
		anyTag, tags, err := web.ParseTags(*r.Params.IfMatch, "If-Match")
		if err != nil {
			return nil, err
		}
		if !anyTag && !slices.Contains(tags, drainTag(was)) {
			return nil, fault.New(fault.Precondition, directory.CodeConditionNotMet,
				"the state changed since it was read; read it again").At("If-Match")
		}
	}
	e, on := n.calls.edge(), r.Body.Draining
	if e == nil {
		return nil, fault.New(fault.Conflict, "NoEdge", "no SIP edge is running on this node")
	}
	if was != on && n.draining.CompareAndSwap(was, on) { // else another request has just set it
		e.SetDraining(on)
		action := map[bool]string{true: "node.drain", false: "node.undrain"}[on]
		n.auditDone(ctx, action, n.cfg.Calls.Edge.Node, 1, r.Body)
	}
	return api.SetDrain200JSONResponse{Body: *r.Body,
		Headers: api.SetDrain200ResponseHeaders{ETag: drainTag(on)}}, nil
}

// auditDone writes an audit row about a completed action, even when the client has disconnected. Draining and renewing
// a certificate must be possible without the database: a row that cannot be written undoes nothing.
func (n *node) auditDone(ctx context.Context, action, target string, items int, what any) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	if err := n.core.audit(ctx, action, target, items, what); err != nil {
		actor := domain.ActorFrom(ctx)
		n.log.Warn("action done, but not recorded in the audit log", "action", action, "target", target,
			"actor", actor.Kind+":"+actor.ID, "error", err)
	}
}
