package edge

import (
	"net/netip"
	"slices"
	"time"

	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/calls/sip/transport"
	"github.com/tandemgw/tandem/internal/domain"
)

// headers holds the rules and profiles that shape messages. It is replaced as a whole; a call keeps what it started
// with.
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

// full reports whether the group has the maximum number of calls.
func (g *group) full() bool {
	most := g.live.Load().MaxCalls
	return most > 0 && g.calls.Load() >= int64(most)
}

// fullText is the reason for refusing a call because the group is full.
func (g *group) fullText() string {
	return "maximum number of concurrent calls of peer group " + g.cfg.Name + " reached"
}

// Reload prepares limits, sources, certificates and header rules from a valid configuration with the same groups and
// peers in the same order, and returns the function that applies them; an error changes nothing. Calls in progress are
// not touched: they keep their header rules, and a withdrawn source can still end its calls but not start new ones.
// Neither Reload nor the function may be called concurrently.
func (e *Edge) Reload(cfg Config, rules *leg.Rules, profiles []leg.Profile) (apply func(), err error) {
	var commits []func()
	for _, k := range e.keys {
		commit, err := k.Read(cfg.Groups[k.group].TLS.paths())
		if err != nil {
			return nil, err
		}
		commits = append(commits, commit)
	}
	return func() {
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
			g.withdraw(g.live.Load().staticSources(), live.staticSources(), time.Now())
			e.sourcesMu.Unlock()
			g.live.Store(live)
		}
		e.rebuildSources()
	}, nil
}

// withdraw records when sources were withdrawn: those in old that are no longer in left.
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

// begins reports whether requests outside a call are accepted from a flow's remote end: it is an allowed source, not
// one kept only for its calls in progress. A connection may be older than the current list.
func (e *Edge) begins(f transport.Flow) bool {
	s := e.ports[f.Endpoint()].sources.Load()
	if f.Proto() == transport.UDP && !s.withdrawn {
		return true // the endpoint has checked already
	}
	r := s.find(f.Remote().Addr())
	return r != nil && !r.withdrawn
}
