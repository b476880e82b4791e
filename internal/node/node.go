package node

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"

	"github.com/tandemgw/tandem/internal/certificate"
	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/manage"
	"github.com/tandemgw/tandem/internal/platform/listen"
	"github.com/tandemgw/tandem/internal/zone"
)

// node is a built process.
type node struct {
	purpose purpose
	version string
	cfg     *config.Loaded
	log     *slog.Logger
	metrics *prometheus.Registry // of all parts but the edge
	started time.Time

	http           *listen.Metrics
	bounds         config.Config // with connection limits that fit the process's file descriptors
	sipConnections int           // maximum number, by the same rule

	roles               []*role // in the order in which they were built
	core                *core
	calls               *calls               // nil without the role edge
	certificates        *certificate.Manager // nil if none are obtained
	names               *zone.Follower       // of the name server; nil without one
	tenants             *tenants             // nil without an app registration
	manage              *manage.Server
	trustedProvisioning http.Handler // nil without the role api
	manageHTTP          *httpServer  // these are nil when off
	metricsHTTP         *httpServer
	secured             []*httpServer // those with TLS
	at                  Ready         // the addresses, once all parts run

	supervisor *supervisor
	draining   atomic.Bool
	leaving    atomic.Bool // shutting down; listeners may still be open
	reloads    reloads
}

// build makes everything that can be made before anything runs.
func build(ctx context.Context, cfg *config.Loaded, version string, log *slog.Logger, p purpose) (_ *node, err error) {
	n := &node{purpose: p, version: version, cfg: cfg, log: log, metrics: prometheus.NewRegistry(), started: time.Now(),
		bounds: cfg.Config}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	reg := n.metrics
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tandem_build_info",
		Help: "1, with the version as a label."}, []string{"version", "go"})
	info.WithLabelValues(version, runtime.Version()).Set(1)
	reg.MustRegister(info)
	n.reloads.init(cfg, reg)
	n.http = listen.NewMetrics(reg)
	if p.serves {
		if n.bounds, n.sipConnections, err = shareDescriptors(cfg.Config, descriptorLimit(), log); err != nil {
			return nil, err
		}
	}

	var parts []part
	for _, b := range p.roles {
		if p.serves && b.name != "" && !cfg.Has(b.name) {
			continue
		}
		r := &role{name: b.name}
		n.roles = append(n.roles, r)
		if err := b.build(n, ctx, r); err != nil {
			return nil, err
		}
		parts = append(parts, r.parts...)
	}
	n.supervisor = newSupervisor(log, reg, parts...)
	return n, nil
}

// gather returns the metrics of the process and of its edge.
func (n *node) gather() ([]*dto.MetricFamily, error) {
	all := prometheus.Gatherers{n.metrics}
	if c := n.calls; c != nil && c.metrics.Load() != nil {
		all = append(all, c.metrics.Load())
	}
	return all.Gather()
}

// close releases what build acquired, after the parts have stopped.
func (n *node) close() {
	for _, r := range slices.Backward(n.roles) {
		if r.close != nil {
			r.close()
		}
	}
}

// logWarnings logs what the check of a configuration warns about.
func (n *node) logWarnings(cfg *config.Loaded) {
	for _, w := range cfg.Warnings {
		n.log.Warn("the configuration is valid, but may fail", "warning", w.String())
	}
}

// logStart logs what listens where, every warning about the configuration, and every insecure setting in effect, and
// notes the addresses.
func (n *node) logStart() {
	n.log.Info("tandem started", "version", n.version, "data", n.cfg.Data, "roles", strings.Join(n.cfg.Roles, ","),
		"database", n.core.db.Driver(), "config", cmp.Or(n.cfg.Source.File, "none"))
	n.at = Ready{Ready: true}
	for _, r := range n.roles {
		if r.started != nil {
			r.started(&n.at)
		}
	}
	n.logWarnings(n.cfg)
	if n.cfg.Log.Numbers == "full" {
		n.log.Warn("log.numbers is full: phone numbers are logged unredacted")
	}
}
