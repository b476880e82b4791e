package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/calls/edge"
	"github.com/tandemgw/tandem/internal/calls/explain"
	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/calls/record"
	"github.com/tandemgw/tandem/internal/calls/replica"
	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/calls/sip/resolve"
	"github.com/tandemgw/tandem/internal/calls/sip/transport"
	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/services"
)

// calls is the role edge: the SIP edge with what it depends on.
type calls struct {
	*explain.Explainer // implements the operation explainCall of the management API

	n        *node
	groups   []edge.Group
	policy   *route.Policy
	rules    *leg.Rules // these two: guarded by reloads.mu once parts run
	profiles []leg.Profile
	resolver *resolve.Resolver
	replica  *replica.Replica
	records  *record.Spool
	running  atomic.Pointer[edge.Edge] // nil during a restart
	// metrics are those of the edge that was built last. Each has a registry of its own, because a collector cannot be
	// registered twice.
	metrics atomic.Pointer[prometheus.Registry]

	listening []edge.Listening // as bound at the start
}

// edge returns the running edge; nil without the role and during a restart.
func (c *calls) edge() *edge.Edge {
	if c == nil {
		return nil
	}
	return c.running.Load()
}

// buildEdge makes what the edge depends on; the edge itself is built when its part is opened.
func (n *node) buildEdge(_ context.Context, r *role) (err error) {
	cfg := &n.cfg.Calls
	c := &calls{n: n, groups: cfg.Edge.Groups}
	n.calls = c
	if len(n.cfg.Generated) > 0 {
		certificate, key := n.cfg.Path(config.GeneratedCertificate), n.cfg.Path(config.GeneratedKey)
		if err := ensureLoopbackCertificate(certificate, key, n.log); err != nil {
			return fmt.Errorf("loopback certificate: %w", err)
		}
	}
	known := services.All().Services()
	var errs []error
	if c.policy, errs = cfg.Routing.Compile(known, cfg.Edge.RouteGroups(known)); len(errs) > 0 {
		return errors.Join(errs...)
	}
	if c.rules, c.profiles, err = n.headers(cfg); err != nil {
		return err
	}
	var dns resolve.DNS = &resolve.System{}
	if len(cfg.DNS.Servers) > 0 {
		dns = &resolve.Servers{Addrs: cfg.DNS.Servers, Timeout: cfg.DNS.Timeout}
	}
	if c.resolver, err = resolve.New(resolve.Config{IPv6: cfg.DNS.IPv6}, dns, n.log.With("part", "dns"),
		n.metrics); err != nil {
		return fmt.Errorf("calls.dns: %w", err)
	}
	r.close = c.resolver.Close
	c.replica, err = replica.Open(cfg.Index, n.cfg.Path("index"), n.core.store.Source(), keyringSealer{n.core.keyring},
		n.log.With("part", "index"), n.metrics)
	if err != nil {
		return fmt.Errorf("number index: %w", err)
	}
	c.Explainer = &explain.Explainer{View: c.replica.Route, Policy: c.policy, Groups: c.groupNames(),
		Peers: c.peers, Position: func() int64 { return int64(c.replica.Status().Position) }}
	c.replica.Patience = n.cfg.Feed.Poll + time.Second
	if c.records, err = record.NewSpool(cfg.Records, n.log.With("part", "records"), n.metrics); err != nil {
		return fmt.Errorf("call records: %w", err)
	}
	r.static = true
	r.parts = []part{running("index", c.replica.Run), running("records", c.records.Run),
		{name: "edge", open: c.open, drain: c.drain, needed: true}}
	r.ready, r.health, r.started, r.reload = c.ready, c.health, c.started, c.reload
	return nil
}

// headers builds the header rules, and the call profiles of the services that peer groups belong to.
func (n *node) headers(cfg *config.Calls) (*leg.Rules, []leg.Profile, error) {
	rules, list := cfg.Headers.Rules(n.version), services.All()
	profiles, errs := list.Profiles(cfg.Edge.Services(list.Services()), rules, leg.NamesOf(&cfg.Routing))
	return rules, profiles, errors.Join(errs...)
}

func (c *calls) open(context.Context) (func(context.Context) error, error) {
	n := c.n
	n.reloads.mu.Lock()
	defer n.reloads.mu.Unlock()
	cfg := n.reloads.live.Calls.Edge
	if c.listening != nil {
		// A restart uses the same ports again.
		cfg.Groups = rebound(cfg.Groups, c.listening)
	}
	c.metrics.Store(prometheus.NewRegistry())
	e, err := edge.New(cfg, edge.Deps{
		Policy: c.policy, Rules: c.rules, Profiles: c.profiles, View: c.replica.Route, Gateways: c.replica.Gateways,
		Records:  c.records,
		Resolver: c.resolver, Log: n.log.With("part", "edge"), Registerer: c.metrics.Load(),
		Transport: transport.Config{MaxConns: n.sipConnections}, Obtained: n.obtained,
	})
	if err != nil {
		return nil, err
	}
	if c.listening == nil {
		c.listening = e.Listening()
	}
	e.SetDraining(n.draining.Load())
	c.running.Store(e)
	return func(ctx context.Context) error {
		defer c.running.Store(nil)
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
			bind := &out[i].Bind
			*map[string]*string{"udp": &bind.UDP, "tcp": &bind.TCP, "tls": &bind.TLS}[l.Transport] = l.Address.String()
		}
	}
	return out
}

func (c *calls) drain(ctx context.Context) error {
	if e := c.edge(); e != nil {
		return e.Drain(ctx)
	}
	return nil
}

func (c *calls) ready(r *readiness) {
	if e := c.edge(); e == nil {
		r.blocked("edge: restarting")
	} else if err := e.Ready(); err != nil && !c.n.draining.Load() {
		r.blocked("edge: %v", err)
	}
	if err := c.replica.Ready(); err != nil {
		r.blocked("index: %v", err)
	}
	if h := c.replica.Status().Held; h != nil {
		r.warn("index: %s; the old index is used until tandem index accept", h.Reason)
	}
	for _, g := range c.peers() {
		// A peer in the state unknown is tried.
		usable := func(p api.Peer) bool { return p.State != api.PeerStateDown }
		if len(g.Peers) > 0 && !slices.ContainsFunc(g.Peers, usable) {
			r.warn("peer group %s: every peer is down; calls to it fail", g.Name)
		}
	}
}

func (c *calls) health(h *api.Health) {
	s := c.replica.Status()
	h.Replica = &api.Replica{Loaded: s.Loaded, Current: s.Current(), Database: s.Database,
		Position: int64(s.Position), Head: int64(s.Head),
		Numbers: s.Numbers, Bytes: s.Bytes, Error: cmp.Or(s.SourceError, s.Reloading), Synced: s.SyncedAt.UTC()}
	if x := s.Held; x != nil {
		h.Replica.Held = &api.HeldIndex{Reason: x.Reason, Database: x.Database, Numbers: x.Numbers,
			Since: x.Since.UTC()}
	}
	if e := c.edge(); e != nil {
		h.Calls = &api.Calls{Active: e.Calls()}
	}
}

func (c *calls) started(at *Ready) {
	log, insecure := c.n.log, map[string]bool{}
	first := map[string]*string{"udp": &at.SIP.UDP, "tcp": &at.SIP.TCP, "tls": &at.SIP.TLS}
	for _, g := range c.groups {
		insecure[g.Name] = g.Insecure
	}
	for _, l := range c.listening {
		a := l.Address.String()
		log.Info("listening", "for", "sip", "transport", l.Transport, "address", a, "advertised", l.Advertised,
			"groups", strings.Join(l.Groups, ","))
		*first[l.Transport] = cmp.Or(*first[l.Transport], a)
		for _, name := range l.Groups {
			if l.Transport != "tls" && insecure[name] && !l.Address.Addr().IsLoopback() {
				log.Warn("insecure: SIP without TLS is reachable from other machines; anyone on the network can "+
					"read and forge calls", "group", name, "transport", l.Transport, "address", a)
			}
		}
	}
	log.Info("emergency numbers in effect; calls to them are never screened, limited or refused",
		"numbers", strings.Join(c.n.cfg.Calls.Routing.EmergencyStrings(), " "))
	for _, name := range c.n.cfg.Generated {
		log.Info("peer group uses the self-signed loopback certificate; other machines do not trust it",
			"group", name)
	}
}

func (c *calls) reload(next *config.Loaded) (func(), error) {
	rules, profiles, err := c.n.headers(&next.Calls)
	if err != nil {
		return nil, err
	}
	apply := func() {}
	if e := c.edge(); e != nil {
		if apply, err = e.Reload(next.Calls.Edge, rules, profiles); err != nil {
			return nil, err
		}
	}
	return func() {
		apply()
		c.rules, c.profiles = rules, profiles
	}, nil
}

// groupNames maps the names of peer groups, and of peers, to the name of the group.
func (c *calls) groupNames() map[string]string {
	groups := map[string]string{}
	for _, g := range c.groups {
		for _, p := range g.Peers {
			groups[p.Name] = g.Name
		}
	}
	for _, g := range c.groups {
		groups[g.Name] = g.Name // a group takes precedence over a peer of the same name
	}
	return groups
}

// AcceptIndex implements the operation acceptIndex of the management API. It writes to the audit log first.
func (c *calls) AcceptIndex(ctx context.Context,
	r api.AcceptIndexRequestObject) (api.AcceptIndexResponseObject, error) {
	database := r.Body.Database
	return api.AcceptIndex202Response{}, c.replica.Accept(database, func(h *replica.Held) error {
		return c.n.core.audit(ctx, "index.accept", c.n.cfg.Calls.Edge.Node, 1,
			map[string]any{"database": database, "numbers": h.Numbers, "reason": h.Reason})
	})
}

// ListPeers implements the operation listPeers of the management API.
func (c *calls) ListPeers(context.Context, api.ListPeersRequestObject) (api.ListPeersResponseObject, error) {
	return api.ListPeers200JSONResponse{Groups: c.peers()}, nil
}

func (c *calls) peers() []api.PeerGroup {
	groups := make([]api.PeerGroup, len(c.groups))
	byName := map[string]*api.PeerGroup{}
	for i, g := range c.groups {
		groups[i] = api.PeerGroup{Name: g.Name, Service: cmp.Or(g.Service, "core"), Listen: []string{},
			Peers: []api.Peer{}}
		byName[g.Name] = &groups[i]
	}
	e := c.edge()
	if e == nil {
		return groups
	}
	for name, g := range byName {
		g.Calls = e.GroupCalls(name)
		if id, ok := e.Identity(name); ok {
			g.Certificate = &api.PeerCertificate{File: id.Paths.Certificate, Name: id.Paths.Name,
				ClientAuthentication: id.ClientAuth, Warning: id.Warning}
			if id.Leaf != nil {
				g.Certificate.Expires = id.Leaf.NotAfter.UTC()
			}
		}
	}
	for _, l := range e.Listening() {
		for _, name := range l.Groups {
			byName[name].Listen = append(byName[name].Listen, l.Transport+" "+l.Address.String())
		}
	}
	for _, p := range e.Peers() {
		g := byName[p.Group]
		w := api.Peer{Name: p.Peer, Address: p.Address, Priority: p.Priority, Since: p.Since,
			State: api.PeerStateDown, Reason: p.Reason}
		switch {
		case p.RetryAfter.After(time.Now()): // calls go elsewhere until then
		case p.Unknown:
			w.State = api.PeerStateUnknown
		case p.Up:
			w.State, w.Reason = api.PeerStateUp, ""
		}
		g.Peers = append(g.Peers, w)
	}
	return groups
}
