package edge

import (
	"net/netip"
	"slices"
	"time"

	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/calls/sip/transport"
	"github.com/tandemgw/tandem/internal/domain"
)

// headers is how messages are shaped. It is replaced as a whole; a call keeps what it began with.
type headers struct {
	rules    *leg.Rules
	profiles map[domain.Service]leg.Profile
}

func newHeaders(rules *leg.Rules, profiles []leg.Profile) *headers {
	h := &headers{rules: rules, profiles: map[domain.Service]leg.Profile{}}
	for _, p := range profiles {
		h.profiles[p.Service()] = p
	}
	return h
}

// profile returns the profile of the group's service, nil for the core.
func (e *Edge) profile(g *group) leg.Profile { return e.headers.Load().profiles[g.service] }

// now returns the group's configuration of which limits and sources hold at present.
func (g *group) now() *Group {
	if live := g.live.Load(); live != nil {
		return live
	}
	return g.cfg
}

// full reports whether the group has the maximum number of calls.
func (g *group) full() bool {
	most := g.now().MaxCalls
	return most > 0 && g.calls.Load() >= int64(most)
}

// Reload takes over limits, sources, certificates and header rules from a valid configuration with the same groups and
// peers in the same order, or returns an error and changes nothing. Calls that are up are untouched: they keep their
// header rules, and a source that is withdrawn may still end its calls, but begin no more. One call at a time.
func (e *Edge) Reload(cfg Config, rules *leg.Rules, profiles []leg.Profile) error {
	var commits []func()
	for _, k := range e.keys {
		commit, err := k.Read(cfg.Groups[k.group].TLS.paths())
		if err != nil {
			return err
		}
		commits = append(commits, commit)
	}
	for _, commit := range commits {
		commit()
	}
	e.headers.Store(newHeaders(rules, profiles))
	e.limits.Store(&cfg.Limits)
	e.tx.SetRetryAfter(cfg.Limits.RetryAfter)
	e.rate.limit(cfg.Limits.MaxCallsPerSecond)
	for i, g := range e.groups {
		live := &cfg.Groups[i]
		g.rate.limit(live.MaxCallsPerSecond)
		e.sourcesMu.Lock()
		g.withdraw(g.now().staticSources(), live.staticSources(), time.Now())
		e.sourcesMu.Unlock()
		g.live.Store(live)
	}
	e.rebuildSources()
	return nil
}

// withdraw notes when the sources were withdrawn that are no longer among those of the configuration.
func (g *group) withdraw(old, left []netip.Prefix, now time.Time) {
	if g.withdrawn == nil {
		g.withdrawn = map[netip.Prefix]time.Time{}
	}
	for _, p := range old {
		g.withdrawn[p] = now
	}
	for p := range g.withdrawn {
		if slices.Contains(left, p) {
			delete(g.withdrawn, p)
		}
	}
}

// begins reports whether requests outside of a call are taken from a flow's other end: it is a source, and not one
// that is known only for the calls it has. A connection may be older than the present list.
func (e *Edge) begins(f transport.Flow) bool {
	po := e.ports[f.Endpoint()]
	if po == nil {
		return true
	}
	s := po.sources.Load()
	if f.Proto() == transport.UDP && !s.withdrawn {
		return true // the endpoint has looked already
	}
	r := s.find(f.Remote().Addr())
	return r != nil && !r.withdrawn
}
