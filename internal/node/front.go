package node

import (
	"context"
	"errors"

	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/front"
	"github.com/tandemgw/tandem/internal/manage"
	"github.com/tandemgw/tandem/internal/platform/auth"
	"github.com/tandemgw/tandem/internal/tenants/invite"
)

// frontHosts are the hosts of the public front, as labels in front of the base domain. The zone has their names. What a
// job serves on one of them is a front.Site in buildFront; the status page is on each.
var frontHosts = []string{"onboard"}

// buildFront makes the role front: the public front, which works without the database.
func (n *node) buildFront(_ context.Context, r *role) error {
	cfg := &n.cfg.Front
	if cfg.Listen == config.Off {
		return nil
	}
	log := n.log.With("part", "front")
	sources, errs := cfg.Sources.Parse()
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	limiter := auth.NewSourceLimiter(cfg.RequestsPerMinutePerSource)
	var sites []front.Site
	for _, host := range frontHosts {
		sites = append(sites, front.Site{Host: host})
	}
	if n.tenants != nil {
		sites[0].Serve, sites[0].MaxBody = n.tenants.invite.Serve, invite.MaxBody
	}
	handler := front.New(front.Config{BaseDomain: n.cfg.Calls.Routing.BaseDomain, Sites: sites, State: n.frontState,
		Sources: sources, Limiter: limiter, Problems: manage.Problems, Log: log, Metrics: n.metrics})
	h := &httpServer{name: "front", cfg: n.bounds.Front.Listener, handler: handler, write: front.WriteTimeout,
		faults: manage.Problems, log: log, sources: sources, limiter: limiter, metrics: n.http,
		obtained: n.obtained}
	n.watchCertificate(h)

	r.static = true // it says that nothing can be changed
	r.parts = []part{{name: h.name, open: h.open, drain: h.drain, needed: true}}
	r.started = func(at *Ready) { at.Front = h.started() }
	r.reload = func(next *config.Loaded) (func(), error) {
		f := &next.Front
		return h.reload(&f.Listener, &f.Sources, f.RequestsPerMinutePerSource)
	}
	return nil
}

// frontState returns what the status page says.
func (n *node) frontState() front.State {
	s := n.core.db.Status()
	return front.State{Limited: !s.Writable, Since: s.Since}
}
