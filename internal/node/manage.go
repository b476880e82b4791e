package node

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/manage"
	"github.com/tandemgw/tandem/internal/platform/auth"
	"github.com/tandemgw/tandem/internal/provisioning/provapi"
)

// buildManage makes what every process serves, whatever its roles: the management API, metrics and the Unix socket. Of
// an offline command only the handler of the socket is used.
func (n *node) buildManage(_ context.Context, r *role) error {
	jobs := manage.Jobs{
		Clients:     n.core.listClients,
		NewClient:   n.core.newClient,
		Revoke:      n.core.clients.Revoke,
		NewToken:    n.core.newToken,
		VerifyAudit: n.core.verifyAudit,
	}
	if n.purpose.serves {
		jobs.Health, jobs.Drain, jobs.Reload = n.health, n.drain, n.reload
	}
	if n.calls != nil {
		jobs.Explain, jobs.Peers, jobs.AcceptIndex = n.calls.explainer().Explain, n.calls.peers, n.calls.acceptIndex
	}
	n.manage = manage.New(jobs, n.log.With("part", "manage"), n.metrics.process)
	if n.cfg.Manage.Listen != config.Off {
		cfg, log := &n.cfg.Manage, n.log.With("part", "manage")
		sources, errs := cfg.Sources.Parse()
		if len(errs) > 0 {
			return errors.Join(errs...)
		}
		mux := http.NewServeMux()
		n.mountHealth(mux)
		limiter := auth.NewLimiter(nil, "manage", cfg.RequestsPerMinute, time.Minute, log, n.metrics.process)
		handler := n.manage.Remote(mux, permit(sources), n.identify(limiter))
		n.manageHTTP = &httpServer{name: "manage", cfg: n.bounds.Manage.Listener, handler: handler, log: log,
			sources: sources, limiter: limiter, metrics: n.http}
	}
	if n.cfg.Metrics.Listen != config.Off {
		mux := http.NewServeMux()
		n.mountHealth(mux)
		mux.Handle("/metrics", promhttp.HandlerFor(n.metrics, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
		n.metricsHTTP = &httpServer{name: "metrics", cfg: n.bounds.Metrics, handler: mux,
			log: n.log.With("part", "metrics"), metrics: n.http}
	}
	for _, h := range []*httpServer{n.manageHTTP, n.metricsHTTP} {
		if h != nil {
			h.watchCertificate(n.metrics.process)
			r.parts = append(r.parts, part{name: h.name, open: h.open}) // needed most while the rest drains
		}
	}
	socket := &socketServer{path: n.cfg.Path(SocketName), handler: n.local(), log: n.log.With("part", "socket"),
		metrics: n.http}
	r.parts = append(r.parts, part{name: "socket", open: socket.open})

	r.started = func(at *Ready) {
		if h := n.manageHTTP; h != nil {
			at.Management = h.started()
		}
		if h := n.metricsHTTP; h != nil {
			at.Metrics = h.started() + "/metrics"
		}
		n.log.Info("listening", "for", "management socket", "path", socket.path)
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

// local returns the handler of the Unix socket: both APIs, for every user that may open it.
func (n *node) local() http.Handler {
	mux := http.NewServeMux()
	n.mountHealth(mux)
	mux.Handle("/manage/", n.manage.Local(localActor))
	if n.trustedProvisioning != nil {
		mux.Handle("/", n.trustedProvisioning)
	} else {
		mux.Handle("/", n.manage.Local(localActor))
	}
	return mux
}

// permit checks the address that a request to the management URL comes from.
func permit(sources *auth.Sources) func(*http.Request) error {
	return func(r *http.Request) error {
		if from := sources.Of(r); !sources.Permits(from) {
			return fault.New(fault.Forbidden, provapi.CodeSourceNotAllowed,
				"requests from %v are not allowed; add the address to manage.allowedSources", from)
		}
		return nil
	}
}

// identify returns who sent a request to the management URL. Requests without a valid token do not use up the rate
// limit.
func (n *node) identify(limiter *auth.Limiter) manage.Identify {
	return func(r *http.Request) (domain.Actor, []string, error) {
		id, roles, err := authenticator{n.core.verifier}.Authenticate(r.Context(), r.Header.Values("Authorization"))
		if err != nil {
			return domain.Actor{}, nil, err
		}
		if wait := limiter.Allow(r.Context()); wait > 0 {
			return domain.Actor{}, nil, fault.New(fault.Limited, provapi.CodeTooManyRequests,
				"rate limit of this node exceeded (manage.requestsPerMinute, over all clients); retry after the "+
					"time in Retry-After").After(wait)
		}
		return domain.Actor{Kind: "client", ID: id}, roles, nil
	}
}

// drain stops or resumes accepting new calls, for the management API. It works without the database; then only the log
// names the actor.
func (n *node) drain(ctx context.Context, on bool) error {
	e := n.calls.edge()
	if e == nil {
		return fault.New(fault.Conflict, "NoEdge", "no SIP edge is running on this node")
	}
	if n.draining.Swap(on) == on {
		return nil
	}
	e.SetDraining(on)
	action := "node.undrain"
	if on {
		action = "node.drain"
	}
	n.auditDone(ctx, action, n.cfg.Calls.Edge.Node, 1, api.Drain{Draining: on})
	return nil
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
