package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/calls/edge"
	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/calls/record"
	"github.com/tandemgw/tandem/internal/calls/replica"
	"github.com/tandemgw/tandem/internal/calls/sip/resolve"
	"github.com/tandemgw/tandem/internal/calls/sip/transport"
	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/manage"
	"github.com/tandemgw/tandem/internal/platform/auth"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/listen"
	"github.com/tandemgw/tandem/internal/provisioning/provapi"
)

// node is a built process.
type node struct {
	version string
	cfg     *config.Loaded
	log     *slog.Logger
	metrics *registries
	started time.Time

	core     *core
	rules    *leg.Rules // these two: guarded by reloads.mu once parts run
	profiles []leg.Profile
	resolver *resolve.Resolver
	replica  *replica.Replica
	records  *record.Spool
	edge     atomic.Pointer[edge.Edge] // the running one; nil without the role and during a restart

	manage              *manage.Server
	trustedProvisioning http.Handler // nil without the role
	provisioningHTTP    *httpServer  // these are nil when off
	manageHTTP          *httpServer
	metricsHTTP         *httpServer
	http                *listen.Metrics
	bounds              config.Config // with connection limits that fit the process's file descriptors
	sipConnections      int           // maximum number, by the same rule
	supervisor          *supervisor
	draining            atomic.Bool
	leaving             atomic.Bool // shutting down; listeners may still be open
	peerGroups          []edge.Group
	listening           []edge.Listening // as bound at the start

	reloads reloads
}

// build makes everything that can be made before anything runs.
func build(ctx context.Context, cfg *config.Loaded, version string, log *slog.Logger) (_ *node, err error) {
	n := &node{version: version, cfg: cfg, log: log, metrics: newRegistries(), started: time.Now(),
		peerGroups: cfg.Calls.Edge.Groups}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	reg := n.metrics.process
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tandem_build_info",
		Help: "1, with the version as a label."}, []string{"version", "go"})
	info.WithLabelValues(version, runtime.Version()).Set(1)
	reg.MustRegister(info)
	n.reloads.init(cfg, reg)

	if n.core, err = openCore(ctx, cfg, true, log, reg); err != nil {
		return nil, err
	}
	if len(cfg.Generated) > 0 {
		certificate, key := cfg.Path(config.GeneratedCertificate), cfg.Path(config.GeneratedKey)
		if err := ensureLoopbackCertificate(certificate, key, log); err != nil {
			return nil, fmt.Errorf("loopback certificate: %w", err)
		}
	}
	if n.bounds, n.sipConnections, err = shareDescriptors(cfg.Config, descriptorLimit(), log); err != nil {
		return nil, err
	}
	n.http = listen.NewMetrics(reg)
	if cfg.Has(config.RoleEdge) {
		if err := n.buildEdge(); err != nil {
			return nil, err
		}
	}
	if cfg.Has(config.RoleAPI) {
		if err := n.buildProvisioning(); err != nil {
			return nil, err
		}
	}
	if err := n.buildManage(); err != nil {
		return nil, err
	}
	n.supervisor = newSupervisor(log, reg, n.parts()...)
	return n, nil
}

// buildEdge makes what the edge depends on; the edge itself is built when its part is opened.
func (n *node) buildEdge() (err error) {
	calls := &n.cfg.Calls
	var errs []error
	if n.rules, n.profiles, errs = n.cfg.Profiles(n.version); len(errs) > 0 {
		return errors.Join(errs...)
	}
	var dns resolve.DNS = &resolve.System{}
	if len(calls.DNS.Servers) > 0 {
		dns = &resolve.Servers{Addrs: calls.DNS.Servers, Timeout: calls.DNS.Timeout}
	}
	if n.resolver, err = resolve.New(resolve.Config{IPv6: calls.DNS.IPv6}, dns, n.log.With("part", "dns"),
		n.metrics.process); err != nil {
		return fmt.Errorf("calls.dns: %w", err)
	}
	n.replica, err = replica.Open(calls.Index, replicaDir(n.cfg), n.core.store.Source(), keyringSealer{n.core.keyring},
		n.log.With("part", "index"), n.metrics.process)
	if err != nil {
		return fmt.Errorf("number index: %w", err)
	}
	n.replica.Patience = n.cfg.Feed.Poll + time.Second
	if n.records, err = record.NewSpool(calls.Records, n.log.With("part", "records"), n.metrics.process); err != nil {
		return fmt.Errorf("call records: %w", err)
	}
	return nil
}

func (n *node) openEdge(context.Context) (func(context.Context) error, error) {
	n.reloads.mu.Lock()
	defer n.reloads.mu.Unlock()
	calls := n.reloads.live.Calls.Edge
	if n.listening != nil {
		// A restart uses the same ports again.
		calls.Groups = rebound(calls.Groups, n.listening)
	}
	e, err := edge.New(calls, edge.Deps{
		Policy: n.cfg.Policy, Rules: n.rules, Profiles: n.profiles, View: n.replica.Route, Records: n.records,
		Resolver: n.resolver, Log: n.log.With("part", "edge"), Registerer: n.metrics.fresh("edge"),
		Transport: transport.Config{MaxConns: n.sipConnections},
	})
	if err != nil {
		return nil, err
	}
	if n.listening == nil {
		n.listening = e.Listening()
	}
	e.SetDraining(n.draining.Load())
	n.edge.Store(e)
	return func(ctx context.Context) error {
		defer n.edge.Store(nil)
		return e.Run(ctx)
	}, nil
}

// rebound returns groups with the addresses that are in use, where a free port was configured.
func rebound(groups []edge.Group, listening []edge.Listening) []edge.Group {
	out := slices.Clone(groups)
	for i := range out {
		for _, l := range listening {
			if !slices.Contains(l.Groups, out[i].Name) {
				continue
			}
			switch l.Transport {
			case "udp":
				out[i].Bind.UDP = l.Address.String()
			case "tcp":
				out[i].Bind.TCP = l.Address.String()
			case "tls":
				out[i].Bind.TLS = l.Address.String()
			}
		}
	}
	return out
}

// buildProvisioning makes the Provisioning API, for its URL and for the Unix socket.
func (n *node) buildProvisioning() error {
	cfg := &n.cfg.Provisioning
	log := n.log.With("part", "provisioning")
	sources, errs := cfg.Sources.Parse()
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	// On SQLite there is one process: counting in memory is exact and saves a write for each request.
	var limits auth.LimitStore
	if n.cfg.Database.Driver != db.SQLite {
		limits = n.core.store.Auth()
	}
	limiter := auth.NewLimiter(limits, "provapi", cfg.API.RequestsPerMinute, time.Minute, log, n.metrics.process)
	deps := provapi.Deps{
		Directory: n.core.directory, Authenticator: authenticator{n.core.verifier}, Sources: sources,
		Sealer: n.core.keyring, Log: log, Metrics: n.metrics.process, Limiter: limiter,
	}
	if n.core.issuer != nil {
		deps.Issuer = n.core.issuer
	}
	p, err := provapi.New(cfg.API, deps)
	if err != nil {
		return fmt.Errorf("provisioning API: %w", err)
	}
	n.trustedProvisioning = trusted(p)
	if cfg.Listen != config.Off {
		n.provisioningHTTP = &httpServer{name: "provisioning", cfg: n.bounds.Provisioning.Listener,
			server: p.NewServer, log: log, sources: sources, limiter: limiter, metrics: n.http}
	}
	return nil
}

func (n *node) buildManage() error {
	jobs := manage.Jobs{
		Health:      n.health,
		Drain:       n.drain,
		Reload:      n.reload,
		Clients:     n.core.listClients,
		NewClient:   n.core.newClient,
		Revoke:      n.core.clients.Revoke,
		NewToken:    n.core.newToken,
		VerifyAudit: n.core.verifyAudit,
	}
	if n.replica != nil {
		groups := map[string]string{}
		for _, g := range n.peerGroups {
			for _, p := range g.Peers {
				groups[p.Name] = g.Name
			}
		}
		for _, g := range n.peerGroups {
			groups[g.Name] = g.Name // a group takes precedence over a peer of the same name
		}
		x := &manage.Explainer{View: n.replica.Route, Policy: n.cfg.Policy, Groups: groups,
			Position: func() int64 { return int64(n.replica.Status().Position) }}
		jobs.Explain, jobs.Peers, jobs.AcceptIndex = x.Explain, n.peers, n.acceptIndex
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
	for _, h := range n.httpServers() {
		h.watchCertificate(n.metrics.process)
	}
	return nil
}

// httpServers returns the servers that are not off.
func (n *node) httpServers() []*httpServer {
	all := []*httpServer{n.provisioningHTTP, n.manageHTTP, n.metricsHTTP}
	return slices.DeleteFunc(all, func(h *httpServer) bool { return h == nil })
}

// authenticator checks tokens and marks the connection that carried a valid one as authenticated.
type authenticator struct{ *auth.Verifier }

func (a authenticator) Authenticate(ctx context.Context,
	authorization []string) (id string, roles []string, err error) {
	if id, roles, err = a.Verifier.Authenticate(ctx, authorization); err == nil {
		listen.Authenticated(ctx)
	}
	return id, roles, err
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

// acceptIndex allows the number index to be replaced from a database, after writing that to the audit log.
func (n *node) acceptIndex(ctx context.Context, database string) error {
	return n.replica.Accept(database, func(h *replica.Held) error {
		return n.core.audit(ctx, "index.accept", n.cfg.Calls.Edge.Node, 1,
			map[string]any{"database": database, "numbers": h.Numbers, "reason": h.Reason})
	})
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

// parts lists the parts in the order in which they start. They stop in reverse order, so that the edge stops before the
// records and the database that it writes to.
func (n *node) parts() []part {
	running := func(name string, run func(context.Context) error) part {
		return part{name: name, open: func(context.Context) (func(context.Context) error, error) { return run, nil }}
	}
	ps := []part{running("database", n.core.db.Run), running("feed", n.core.feed.Run)}
	if len(n.cfg.Auth.Issuers) > 0 {
		ps = append(ps, running("auth", n.core.verifier.Run))
	}
	if n.core.issuer != nil && n.cfg.Has(config.RoleAPI) {
		ps = append(ps, running("issuer", n.core.issuer.Run))
	}
	if n.cfg.Has(config.RoleWorker) {
		ps = append(ps, running("directory", n.core.directory.Run))
	}
	if n.cfg.Has(config.RoleEdge) {
		ps = append(ps, running("index", n.replica.Run), running("records", n.records.Run),
			part{name: "edge", open: n.openEdge, drain: func(ctx context.Context) error {
				if e := n.edge.Load(); e != nil {
					return e.Drain(ctx)
				}
				return nil
			}})
	}
	for _, h := range n.httpServers() {
		p := part{name: h.name, open: h.open}
		if h == n.provisioningHTTP { // health and metrics are needed most while the rest drains
			p.drain = h.drain
		}
		ps = append(ps, p)
	}
	socket := &socketServer{path: n.cfg.Path(SocketName), handler: n.local(), log: n.log.With("part", "socket"),
		metrics: n.http}
	return append(ps, part{name: "socket", open: socket.open})
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

// close releases what build acquired, after the parts have stopped.
func (n *node) close() {
	if n.resolver != nil {
		n.resolver.Close()
	}
	if n.core != nil {
		n.core.close()
	}
}

// drain stops or resumes accepting new calls, for the management API. It works without the database; then only the log
// names the actor.
func (n *node) drain(ctx context.Context, on bool) error {
	e := n.edge.Load()
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

const peerDown = "down"

func (n *node) peers() []api.PeerGroup {
	groups := make([]api.PeerGroup, len(n.peerGroups))
	byName := map[string]*api.PeerGroup{}
	priority := map[string]int{}
	for i, g := range n.peerGroups {
		groups[i] = api.PeerGroup{Name: g.Name, Service: cmp.Or(g.Service, "core"), Listen: []string{},
			Peers: []api.Peer{}}
		byName[g.Name] = &groups[i]
		for _, p := range g.Peers {
			priority[g.Name+"/"+p.Name] = p.Priority
		}
	}
	e := n.edge.Load()
	if e == nil {
		return groups
	}
	for _, l := range e.Listening() {
		for _, name := range l.Groups {
			byName[name].Listen = append(byName[name].Listen, l.Transport+" "+l.Address.String())
		}
	}
	for _, p := range e.Peers() {
		g := byName[p.Group]
		if g == nil {
			continue
		}
		w := api.Peer{Name: p.Peer, Address: p.Address, Priority: priority[p.Group+"/"+p.Peer], State: peerDown,
			Reason: p.Reason}
		switch {
		case p.RetryAfter.After(time.Now()): // calls go elsewhere until then
		case p.Unknown:
			w.State = "unknown"
		case p.Up:
			w.State, w.Reason = "up", ""
		}
		if !p.Since.IsZero() {
			w.Since = &p.Since
		}
		g.Peers = append(g.Peers, w)
	}
	return groups
}

// logStart logs what listens where, and every insecure setting in effect.
func (n *node) logStart() {
	n.log.Info("tandem started", "version", n.version, "data", n.cfg.Data, "roles", strings.Join(n.cfg.Roles, ","),
		"database", n.core.db.Driver(), "config", cmp.Or(n.cfg.Source.File, "none"))
	for _, h := range n.httpServers() {
		n.log.Info("listening", "for", h.name, "url", h.url())
		if h.cfg.Insecure && h.cfg.CertificateFile == "" && !isLoopback(h.addr) {
			n.log.Warn("insecure: plain HTTP is reachable from other machines; anyone on the network can read tokens "+
				"and phone numbers", "setting", h.name+".insecure", "address", h.addr.String())
		}
	}
	if host, err := n.cfg.Database.PlaintextHost(); err == nil && host != "" {
		n.log.Warn("insecure: the database connection may not use TLS; anyone on the network can read and change "+
			"customer data", "setting", "database.insecure", "host", host)
	}
	n.log.Info("listening", "for", "management socket", "path", n.cfg.Path(SocketName))
	insecure := map[string]bool{}
	for _, g := range n.peerGroups {
		insecure[g.Name] = g.Insecure
	}
	for _, l := range n.listening {
		n.log.Info("listening", "for", "sip", "transport", l.Transport, "address", l.Address.String(), "advertised",
			l.Advertised, "groups", strings.Join(l.Groups, ","))
		for _, name := range l.Groups {
			if l.Transport != "tls" && insecure[name] && !l.Address.Addr().IsLoopback() {
				n.log.Warn("insecure: SIP without TLS is reachable from other machines; anyone on the network can "+
					"read and forge calls", "group", name, "transport", l.Transport, "address", l.Address.String())
			}
		}
	}
	if n.cfg.Has(config.RoleEdge) {
		n.log.Info("emergency numbers in effect; calls to them are never screened, limited or refused",
			"numbers", strings.Join(n.cfg.Policy.EmergencyStrings(), " "))
	}
	for _, name := range n.cfg.Generated {
		n.log.Info("peer group uses the self-signed loopback certificate; other machines do not trust it",
			"group", name)
	}
	if n.cfg.Log.Numbers == "full" {
		n.log.Warn("log.numbers is full: phone numbers are logged unredacted")
	}
}

func isLoopback(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	return ok && t.IP.IsLoopback()
}
