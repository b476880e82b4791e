package node

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/platform/auth"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/provisioning/provapi"
	"github.com/tandemgw/tandem/internal/services"
)

// buildAPI makes the role api: the Provisioning API, for its URL and for the Unix socket.
func (n *node) buildAPI(_ context.Context, r *role) error {
	cfg := &n.cfg.Provisioning
	log := n.log.With("part", "provisioning")
	sources, errs := cfg.Sources.Parse()
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	// On SQLite there is one process: counting in memory is exact and saves a write for each request.
	var limits auth.LimitStore
	if n.cfg.Database.Driver != db.SQLite {
		limits = n.core.access
	}
	limiter := auth.NewLimiter(limits, "provapi", cfg.API.RequestsPerMinute, time.Minute, log, n.metrics)
	deps := provapi.Deps{
		Services: services.All().Services(), Directory: n.core.directory,
		Authenticator: n.core.verifier, Sources: sources,
		Sealer: n.core.keyring, Log: log, Metrics: n.metrics, Limiter: limiter,
	}
	if n.core.issuer != nil {
		deps.Issuer = n.core.issuer
	}
	var url atomic.Value // a string
	url.Store(cfg.API.PublicURL)
	r.health = func(h *api.Health) {
		at := url.Load().(string)
		h.Provisioning = &api.Provisioning{URL: at, APIVersions: []string{provapi.Version},
			AllowedSources: sources.Allowed(), Issuers: n.cfg.Auth.Describe(at)}
	}
	p := provapi.New(cfg.API, deps)
	n.trustedProvisioning = trusted(p)
	if cfg.Listen == config.Off {
		return nil
	}
	h := &httpServer{name: "provisioning", cfg: n.bounds.Provisioning.Listener, handler: p, write: p.WriteTimeout(),
		faults: provapi.Faults, log: log, sources: sources, limiter: limiter, metrics: n.http,
		obtained: n.obtained}
	n.watchCertificate(h)
	r.parts = append(n.beat(), part{name: h.name, open: h.open, drain: h.drain, needed: true})
	r.started = func(at *Ready) {
		at.Provisioning = h.started()
		url.CompareAndSwap("", at.Provisioning)
	}
	r.reload = func(next *config.Loaded) (func(), error) {
		p := &next.Provisioning
		return h.reload(&p.Listener, &p.Sources, p.API.RequestsPerMinute)
	}
	return nil
}

// trusted serves the Provisioning API, as an administrator, to every user that may open the Unix socket.
func trusted(p http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller := provapi.Caller{ID: localActor(r).ID, Roles: []string{auth.RoleAdmin}}
		p.ServeHTTP(w, r.WithContext(provapi.Trusted(r.Context(), caller)))
	})
}
