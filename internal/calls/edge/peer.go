package edge

import (
	"cmp"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/calls/sip/resolve"
	"github.com/tandemgw/tandem/internal/calls/sip/transport"
	"github.com/tandemgw/tandem/internal/domain"
)

// group is the state of a peer group. After New only the counters and what a reload changes are modified.
type group struct {
	index   int // in Config.Groups
	cfg     *Group
	live    atomic.Pointer[Group] // cfg as of the last reload; only its limits and sources are in effect
	service domain.Service        // NoService: the operator's core
	proto   transport.Proto
	eps     [len(protos) + 1]*transport.Endpoint // by transport.Proto; nil where nothing is bound
	local   [len(protos) + 1]leg.Addr            // how peers reach each endpoint
	peers   []*peer                              // by priority
	silence time.Duration                        // failover after this time
	calls   atomic.Int64
	rate    gate
	m       groupMetrics

	withdrawn map[netip.Prefix]time.Time // sources removed by a reload, and when; guarded by Edge.sourcesMu
}

func (g *group) core() bool { return g.service == domain.NoService }

// lookup returns the addresses of a query from memory, as [resolve.Resolver.Lookup] does.
type lookup func(resolve.Query) ([]netip.AddrPort, bool)

// peer is the state of one configured peer.
type peer struct {
	group *group
	cfg   *Peer
	host  string // as configured
	port  uint16
	query resolve.Query
	fixed *address // the only address of a peer of type ip

	mu    sync.Mutex // guards addrs
	addrs map[netip.AddrPort]*address
}

// newPeer returns the peer for a valid configuration.
func newPeer(g *group, cfg *Peer) *peer {
	host, port, _ := hostPort(cfg.Address)
	p := &peer{group: g, cfg: cfg, host: host, port: port, addrs: map[netip.AddrPort]*address{}}
	switch cfg.Type {
	case typeIP:
		p.port = cmp.Or(p.port, g.proto.DefaultPort())
		a, _ := netip.ParseAddr(host)
		p.fixed = p.at(netip.AddrPortFrom(a.Unmap(), p.port))
	case typeA:
		p.port = cmp.Or(p.port, g.proto.DefaultPort())
		p.query = resolve.Query{Host: host, Port: p.port, Proto: g.proto}
	case typeSRV:
		p.query = resolve.Query{Host: host, Proto: g.proto}
		if strings.HasPrefix(host, "_") {
			p.query.SRV = host
			// The name to verify is the domain of the record (RFC 5922 §4).
			if parts := strings.SplitN(host, ".", 3); len(parts) == 3 {
				p.host = parts[2]
				p.query.Host = p.host
			}
		}
	}
	return p
}

// at returns the state of one of the peer's addresses.
func (p *peer) at(ap netip.AddrPort) *address {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.addrs[ap]
	if a == nil {
		a = &address{peer: p, addr: ap, up: true, since: time.Now()}
		p.addrs[ap] = a
	}
	return a
}

// addresses appends the peer's addresses to dst in the order to try them.
func (p *peer) addresses(find lookup, dst []*address) []*address {
	if p.fixed != nil {
		return append(dst, p.fixed)
	}
	addrs, _ := find(p.query)
	for _, a := range addrs {
		dst = append(dst, p.at(a))
	}
	return dst
}

// keep records which addresses the peer's name has now. Calls no longer go to an address that the name has lost, but
// calls in progress still use it, and rotating DNS may bring it back: for the grace it stays a known source and keeps
// its state. keep reports whether the known sources have changed.
func (p *peer) keep(have []*address, now time.Time, grace time.Duration) (changed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for ap, a := range p.addrs {
		switch {
		case slices.Contains(have, a):
			changed = changed || !a.gone.IsZero()
			a.gone = time.Time{}
		case a.gone.IsZero():
			a.gone, changed = now, true
		case now.Sub(a.gone) > grace:
			delete(p.addrs, ap)
			changed = true
		}
	}
	return changed
}

// sendsFrom reports whether an address is one of the peer's.
func (p *peer) sendsFrom(a netip.Addr) bool {
	a = a.Unmap()
	peers := p.group.live.Load().Peers
	if i := slices.IndexFunc(peers, func(x Peer) bool { return x.Name == p.cfg.Name }); i >= 0 {
		for _, t := range peers[i].AllowedSources {
			if pre, err := domain.ParsePrefix(t); err == nil && pre.Contains(a) {
				return true
			}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for ap := range p.addrs {
		if ap.Addr() == a {
			return true
		}
	}
	return false
}

// String names the peer in texts.
func (p *peer) String() string { return "peer " + p.cfg.Name + " of group " + p.group.cfg.Name }

// serverName returns the name that the peer's certificate must carry; empty if it must carry the address itself.
func (p *peer) serverName() string {
	switch {
	case p.cfg.CertificateName != "":
		return p.cfg.CertificateName
	case p.cfg.Type == typeIP:
		return ""
	}
	return p.host
}

// remote returns the peer as its service's profile sees it.
func (p *peer) remote() leg.Addr {
	port := p.port
	if p.cfg.Type == typeSRV {
		port = 0
	}
	return leg.Addr{Host: p.host, Port: port, Transport: p.group.proto.Param()}
}

// address is one address of a peer and its state.
type address struct {
	peer *peer
	addr netip.AddrPort
	gone time.Time // when the peer's name was first seen without it; zero: it has it. Guarded by the peer's mutex.

	known atomic.Bool // it has responded once, or is down; until then up is an assumption

	mu           sync.Mutex // guards the fields below
	up           bool       // calls try it first
	fails        int        // failures in a row
	oks          int        // successes in a row
	backoffUntil time.Time  // end of the peer's Retry-After
	trial        time.Time  // when calls try a peer again that is down and not probed by OPTIONS
	since        time.Time  // time of the last change
	reason       string     // of the last failure
}

// usable reports whether calls try the address first.
func (a *address) usable(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now.Before(a.backoffUntil) {
		return false
	}
	return a.up || !a.trial.IsZero() && !now.Before(a.trial)
}

// good records a success of the address.
func (a *address) good(now time.Time, log *slog.Logger) {
	o := &a.peer.group.cfg.Options
	a.mu.Lock()
	a.fails = 0
	a.oks++
	if a.up && !a.known.Swap(true) {
		a.since, a.reason = now, ""
	}
	risen := !a.up && a.oks >= o.UpAfter
	if risen {
		a.up, a.since, a.reason, a.trial = true, now, "", time.Time{}
	}
	a.mu.Unlock()
	if risen {
		log.Info("peer up", "group", a.peer.group.cfg.Name, "peer", a.peer.cfg.Name, "address", a.addr.String())
	}
}

// bad records a failure of the address, and the Retry-After it sent, if any.
func (a *address) bad(now time.Time, why string, retryAfter time.Duration, log *slog.Logger) {
	o := &a.peer.group.cfg.Options
	a.mu.Lock()
	a.oks = 0
	a.fails++
	a.reason = why
	if retryAfter > 0 {
		a.backoffUntil = now.Add(min(retryAfter, maxBackoff))
	}
	fallen := a.up && a.fails >= o.DownAfter
	if fallen {
		a.up, a.since = false, now
		a.known.Store(true)
	}
	if !a.up && (a.peer.cfg.Passive || o.Off) {
		a.trial = now.Add(o.Every)
	}
	a.mu.Unlock()
	switch {
	case fallen:
		log.Warn("peer down", "group", a.peer.group.cfg.Name, "peer", a.peer.cfg.Name, "address", a.addr.String(),
			"reason", why)
	case retryAfter > 0:
		log.Warn("peer sent Retry-After; backing off", "group", a.peer.group.cfg.Name, "peer", a.peer.cfg.Name,
			"address", a.addr.String(), "for", retryAfter, "reason", why)
	}
}

// maxBackoff bounds a peer's Retry-After, so that a mistake of the peer does not take it out of use for days.
const maxBackoff = 10 * time.Minute

// PeerState is the state of one address of a peer.
type PeerState struct {
	Group    string
	Peer     string
	Priority int
	Address  string // empty while the peer's name has not been resolved
	Up       bool   // calls try it first
	Unknown  bool   // it has neither responded nor failed often enough to be down; Up is an assumption
	// Since is when Up last changed, RetryAfter the end of the Retry-After that the peer sent.
	Since, RetryAfter time.Time
	Reason            string // of the last failure
}

// states appends the states of the peer's addresses to dst.
func (p *peer) states(dst []PeerState) []PeerState {
	base := PeerState{Group: p.group.cfg.Name, Peer: p.cfg.Name, Priority: p.cfg.Priority}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.addrs) == 0 {
		base.Reason = fmt.Sprintf("%s has not been resolved", p.cfg.Address)
		return append(dst, base)
	}
	first := len(dst)
	for _, a := range p.addrs {
		if !a.gone.IsZero() {
			continue
		}
		s := base
		a.mu.Lock()
		s.Address, s.Up, s.Unknown, s.Since = a.addr.String(), a.up, !a.known.Load(), a.since
		s.RetryAfter, s.Reason = a.backoffUntil, a.reason
		a.mu.Unlock()
		dst = append(dst, s)
	}
	slices.SortFunc(dst[first:], func(x, y PeerState) int { return strings.Compare(x.Address, y.Address) })
	return dst
}

// plan appends the addresses of the groups' peers to dst in the order to try them: by group, by priority, within a
// priority at random by weight (RFC 2782), all addresses of a peer before the next peer; then those that are down, in
// the same order. See gateway-calls §9.2, §11.
func plan(dst []*address, groups []*group, find lookup, now time.Time) []*address {
	first := len(dst)
	var room [8]*peer
	for _, g := range groups {
		peers := g.peers
		for lo := 0; lo < len(peers); {
			hi := lo + 1
			for hi < len(peers) && peers[hi].cfg.Priority == peers[lo].cfg.Priority {
				hi++
			}
			for _, p := range draw(append(room[:0], peers[lo:hi]...)) {
				dst = p.addresses(find, dst)
			}
			lo = hi
		}
	}
	tried := dst[first:]
	if len(tried) < 2 {
		return dst
	}
	var downRoom [8]*address
	down := downRoom[:0]
	n := 0
	for i, a := range tried {
		switch {
		case slices.Contains(tried[:n], a) || slices.Contains(down, a):
			// Two names with the same address: try it once.
		case a.usable(now):
			tried[n] = tried[i]
			n++
		default:
			down = append(down, a)
		}
	}
	n += copy(tried[n:], down)
	return dst[:first+n]
}

// draw orders peers of one priority at random, with chances in proportion to their weights.
func draw(peers []*peer) []*peer {
	sum := 0
	for _, p := range peers {
		sum += p.cfg.Weight
	}
	for i := range peers[:len(peers)-1] {
		at := rand.IntN(sum)
		j := i
		for ; at >= peers[j].cfg.Weight; j++ {
			at -= peers[j].cfg.Weight
		}
		peers[i], peers[j] = peers[j], peers[i]
		sum -= peers[i].cfg.Weight
	}
	return peers
}

// sources maps source addresses to groups, for one endpoint. It is replaced as a whole.
type sources struct {
	ranges    []sourceRange // the longest prefixes first
	withdrawn bool          // a range is withdrawn
}

type sourceRange struct {
	prefix    netip.Prefix
	group     *group
	withdrawn bool // known only for calls in progress
}

// group returns the group that a source belongs to, nil for an unknown one.
func (s *sources) group(a netip.Addr) *group {
	if r := s.find(a); r != nil {
		return r.group
	}
	return nil
}

// find returns the range that a source is in, nil for an unknown one.
func (s *sources) find(a netip.Addr) *sourceRange {
	if a.Is4In6() {
		a = a.Unmap()
	}
	for i := range s.ranges {
		if s.ranges[i].prefix.Contains(a) {
			return &s.ranges[i]
		}
	}
	return nil
}

// newSources builds the table for the groups that listen on an endpoint: what the configuration allows, what the peers'
// names resolve to now and, after all other prefixes of the same length, what they resolved to recently.
func newSources(groups []*group, ep *transport.Endpoint, proto transport.Proto) *sources {
	s := &sources{}
	var gone []sourceRange
	for _, g := range groups {
		if g.eps[proto] != ep {
			continue
		}
		for _, p := range g.live.Load().staticSources() {
			s.ranges = append(s.ranges, sourceRange{prefix: p, group: g})
		}
		for p := range g.withdrawn {
			gone = append(gone, sourceRange{p, g, true})
			s.withdrawn = true
		}
		for _, p := range g.peers {
			if p.fixed != nil {
				continue
			}
			p.mu.Lock()
			for ap, a := range p.addrs {
				r := sourceRange{prefix: netip.PrefixFrom(ap.Addr(), ap.Addr().BitLen()), group: g}
				if a.gone.IsZero() {
					s.ranges = append(s.ranges, r)
				} else {
					gone = append(gone, r)
				}
			}
			p.mu.Unlock()
		}
	}
	s.ranges = append(s.ranges, gone...)
	slices.SortStableFunc(s.ranges, func(a, b sourceRange) int { return b.prefix.Bits() - a.prefix.Bits() })
	return s
}

// gate is a rate limit: so many events per second, spread evenly, with a burst of 10 events or 0.1 s, whichever is
// more. The zero gate has no limit.
type gate struct {
	every atomic.Int64 // nanoseconds per event; 0: no limit
	next  atomic.Int64 // when the next event is due, in nanoseconds
}

func (g *gate) limit(perSecond int) {
	every := int64(0)
	if perSecond > 0 {
		every = int64(time.Second) / int64(perSecond)
	}
	g.every.Store(every)
}

// pass reports whether one more event is within the limit, and counts it if so.
func (g *gate) pass(now time.Time) bool {
	every := g.every.Load()
	if every == 0 {
		return true
	}
	burst := max(10*every, int64(time.Second)/10) // how far ahead the limit may be used
	t := now.UnixNano()
	for {
		due := g.next.Load()
		if due-t > burst {
			return false
		}
		if g.next.CompareAndSwap(due, max(due, t)+every) {
			return true
		}
	}
}

// addrOf parses a Via sent-by as one of our addresses.
func addrOf(sentBy string, p transport.Proto) leg.Addr {
	host, port, err := hostPort(sentBy)
	if err != nil {
		host, port = sentBy, 0
	}
	return leg.Addr{Host: host, Port: port, Transport: p.Param()}
}

// hostOf returns an address as the agent of a Warning.
func hostOf(a leg.Addr) string {
	if a.Port == 0 {
		return a.Host
	}
	return net.JoinHostPort(a.Host, itoa(int(a.Port)))
}
