package edge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/calls/record"
	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/calls/sip/resolve"
	"github.com/tandemgw/tandem/internal/calls/sip/transaction"
	"github.com/tandemgw/tandem/internal/calls/sip/transport"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
)

// Deps holds the dependencies of an Edge.
type Deps struct {
	// Policy is the routing policy, compiled for the groups of this configuration (see Config.RouteGroups).
	Policy *route.Policy
	// Rules is the header policy.
	Rules *leg.Rules
	// Profiles are the services' call profiles, one for each service that a group has.
	Profiles []leg.Profile
	// View returns the number index, nil until one has been loaded; until then calls get 503. It is called once per
	// call.
	View func() route.View
	// Gateways returns the labels of customers for whose names the phone system has gateway objects, which it monitors
	// apart from the operator's trunk; nil for none.
	Gateways func() []string
	// Records receives a record of each call.
	Records record.Sink
	// Resolver resolves peers' names and those in Contact and Route. Nil: only addresses work.
	Resolver *resolve.Resolver
	// Obtained returns the certificates that groups name instead of files. Required if one does.
	Obtained transport.Obtained
	// Log and Registerer receive log lines and metrics; nil discards them.
	Log        *slog.Logger
	Registerer prometheus.Registerer
	// Transport and Transaction set limits and timers of the layers below, except those that the configuration has. The
	// zero values are those of RFC 3261.
	Transport   transport.Config
	Transaction transaction.Config
}

// Edge is the back-to-back user agent. Life cycle: New (binds all addresses), Run, optionally Drain, then cancel Run's
// context. Its methods are safe for concurrent use.
type Edge struct {
	cfg     Config
	log     *slog.Logger
	policy  *route.Policy
	headers atomic.Pointer[headers]
	limits  atomic.Pointer[Limits]
	view    func() route.View
	records record.Sink
	find    lookup
	tp      *transport.Stack
	tx      *transaction.Layer
	groups  []*group
	byName  map[string]*group
	ports   map[*transport.Endpoint]*port
	keys    []keyFiles
	// obtained returns the certificates that groups name instead of files
	obtained transport.Obtained
	// gateways returns the labels for whose names OPTIONS are sent too; may be nil
	gateways func() []string
	m        *metrics
	server   sip.Header // Server line of our own responses
	agent    sip.Header // User-Agent line of our own requests
	named    bool       // server and agent are sent
	tagHead  string     // prefix of our tags: node and "-"

	calls  table
	active atomic.Int64
	// limited counts the calls that count towards Limits.MaxCalls: an ending call no longer does when its last
	// messages are sent, so that the next call finds its place free. It still is active.
	limited atomic.Int64
	// lingering counts ended calls that are kept for their REFERs' subscriptions: at most Limits.MaxCalls.
	lingering atomic.Int64
	rate      gate
	draining  atomic.Bool
	leaving   atomic.Bool // OPTIONS gets 503, calls are accepted
	stopping  atomic.Bool
	running   atomic.Bool
	idle      chan struct{} // gets a token when the last call ends
	unknown   logGate
	refused   logGate
	sourcesMu sync.Mutex // guards rebuilding the ports' sources, and group.withdrawn
}

// refusalLines is the maximum number of refusals logged per second; call records have them all.
const refusalLines = 100

// port is the edge's state of one endpoint.
type port struct {
	ep      *transport.Endpoint
	proto   transport.Proto
	files   *transport.CertificateFiles // nil without TLS
	sources atomic.Pointer[sources]
}

// New checks the configuration, binds all addresses and returns an edge that does not read from them yet. An error
// names what failed.
func New(cfg Config, d Deps) (*Edge, error) {
	if d.Policy == nil || d.Rules == nil || d.View == nil || d.Records == nil {
		return nil, errors.New("edge needs a routing policy, header rules, a view of the number index and a sink")
	}
	if errs := cfg.Validate(d.Policy.Services()); len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	e := &Edge{cfg: cfg, log: cmp.Or(d.Log, slog.New(slog.DiscardHandler)), policy: d.Policy, view: d.View,
		records: d.Records, obtained: d.Obtained, byName: map[string]*group{}, ports: map[*transport.Endpoint]*port{},
		gateways: d.Gateways, tagHead: cfg.Node + "-", idle: make(chan struct{}, 1)}
	e.find = func(resolve.Query) ([]netip.AddrPort, bool) { return nil, false }
	if d.Resolver != nil {
		e.find = d.Resolver.Lookup
	}
	if ua := cmp.Or(cfg.UserAgent, "Tandem"); ua != "-" {
		e.named, e.server, e.agent = true, sip.Line(sip.KindServer, ua), sip.Line(sip.KindUserAgent, ua)
	}
	e.refused.each = refusalLines
	e.rate.limit(cfg.Limits.MaxCallsPerSecond)
	e.limits.Store(&cfg.Limits)
	e.headers.Store(newHeaders(d.Rules, d.Profiles))
	e.calls.init()
	e.m = newMetrics(e)
	tpc := d.Transport
	tpc.Limits, tpc.MaxConnsPerSource = &e.cfg.Limits.Message, cfg.Limits.ConnectionsPerSource
	if d.Resolver != nil {
		tpc.SentBy = func(host string, port uint16, proto transport.Proto) []netip.AddrPort {
			addrs, _ := e.find(resolve.Query{Host: host, Port: port, Proto: proto})
			return addrs
		}
	}
	var err error
	if e.tp, err = transport.New(tpc, e.log, d.Registerer); err != nil {
		return nil, err
	}
	txc := d.Transaction
	txc.NewTag, txc.Urgent = e.newTag, e.urgentRequest
	txc.RetryAfter = cfg.Limits.RetryAfter
	txc.Validator = &sip.Validator{Limits: tpc.Limits,
		Understands: func(tag string) bool { return extensions[strings.ToLower(tag)] }}
	if e.tx, err = transaction.New(txc, e.tp, e, e.log, d.Registerer); err == nil {
		err = e.listen()
	}
	if err == nil && d.Registerer != nil {
		err = e.m.register(d.Registerer)
	}
	if err != nil {
		e.close()
		return nil, err
	}
	return e, nil
}

// newTag returns a new tag that names this node.
func (e *Edge) newTag() string { return sip.Token(e.tagHead) }

// listen builds the groups and opens their endpoints, one for each distinct address.
func (e *Edge) listen() error {
	open := map[string]*transport.Endpoint{}
	for i := range e.cfg.Groups {
		cfg := &e.cfg.Groups[i]
		g := &group{index: i, cfg: cfg, silence: cmp.Or(cfg.FailoverAfter, e.cfg.Timers.FailoverAfter)}
		g.live.Store(cfg)
		g.proto, _ = transport.ParseProto(cfg.Transport)
		g.service, _ = e.policy.Services().ByName(cfg.Service)
		g.rate.limit(cfg.MaxCallsPerSecond)
		if !g.core() && e.profile(g) == nil {
			return fmt.Errorf("peer group %s: no call profile for %s", cfg.Name, g.service)
		}
		if cfg.Insecure {
			e.log.Warn("peer group accepts SIP without TLS beyond loopback (insecure: true)", "group", cfg.Name)
		}
		// UDP comes after TCP, which it needs for large requests.
		for _, p := range []transport.Proto{transport.TCP, transport.UDP, transport.TLS} {
			bind := cfg.Bind.of(p)
			if bind == "" {
				continue
			}
			key := p.Param() + " " + bind
			ep := open[key]
			if ep == nil {
				var err error
				if ep, err = e.open(cfg, p, g); err != nil {
					return err
				}
				open[key] = ep
			}
			g.eps[p] = ep
			g.local[p] = addrOf(ep.SentBy(), p)
		}
		for j := range cfg.Peers {
			g.peers = append(g.peers, newPeer(g, &cfg.Peers[j]))
		}
		slices.SortStableFunc(g.peers, func(a, b *peer) int { return a.cfg.Priority - b.cfg.Priority })
		g.m = e.m.group(g)
		e.groups = append(e.groups, g)
		e.byName[cfg.Name] = g
	}
	e.rebuildSources()
	return nil
}

// open opens one endpoint.
func (e *Edge) open(cfg *Group, p transport.Proto, g *group) (*transport.Endpoint, error) {
	bind, _ := netip.ParseAddrPort(cfg.Bind.of(p))
	po := &port{proto: p}
	po.sources.Store(&sources{})
	ec := transport.EndpointConfig{
		Name: cfg.Name + "/" + p.Param(), Proto: p, Bind: bind, Advertised: cfg.Advertised.of(p),
		Accept: func(_ *transport.Endpoint, src netip.AddrPort) (tag any, ok bool) {
			if g := po.sources.Load().group(src.Addr()); g != nil {
				return g, true
			}
			if n, ok := e.unknown.pass(time.Now()); ok {
				e.log.Warn("SIP message from an unknown source dropped", "source", src.String(), "transport", p.Param(),
					"at", bind.String(), "more_since_last", n)
			}
			return nil, false
		},
	}
	if p == transport.UDP {
		ec.Large = g.eps[transport.TCP]
	}
	if p == transport.TLS {
		profiles := slices.Collect(maps.Values(e.headers.Load().profiles))
		names := e.cfg.CertificateNames(cfg.Bind.TLS, leg.HostNames(profiles))
		files, err := transport.OpenCertificateFiles(cfg.TLS.paths(), names, e.obtained, e.log)
		if err != nil {
			return nil, fmt.Errorf("peer group %s: %w", cfg.Name, err)
		}
		po.files = files
		e.keys = append(e.keys, keyFiles{files, g.index})
		ec.TLS = &transport.TLSConfig{Keys: files.Keys, Identity: transport.FileIdentity, File: files.Path,
			Roots:     files.Roots,
			Anonymous: cfg.TLS.ClientCertificates == "optional",
			PeerNames: e.cfg.peerNames(cfg.Bind.TLS)}
	}
	ep, err := e.tp.Listen(ec)
	if err != nil {
		setting := fmt.Sprintf("calls.groups[%d].bind.%s", g.index, p.Param())
		return nil, fault.CannotListen(setting, bind.String(), err)
	}
	po.ep = ep
	e.ports[ep] = po
	return ep, nil
}

// rebuildSources rebuilds the endpoints' tables of known sources.
func (e *Edge) rebuildSources() {
	e.sourcesMu.Lock()
	defer e.sourcesMu.Unlock()
	for _, g := range e.groups {
		maps.DeleteFunc(g.withdrawn,
			func(_ netip.Prefix, at time.Time) bool { return time.Since(at) > e.sourceGrace() })
	}
	for _, po := range e.ports {
		po.sources.Store(newSources(e.groups, po.ep, po.proto))
	}
}

// Listening is one address the edge listens on.
type Listening struct {
	Groups     []string
	Transport  string         // udp, tcp, tls
	Address    netip.AddrPort // as bound
	Advertised string
}

// Listening returns the bound addresses, with the actual port in place of port 0.
func (e *Edge) Listening() []Listening {
	var out []Listening
	at := map[*transport.Endpoint]int{}
	for _, g := range e.groups {
		for _, p := range protos {
			ep := g.eps[p]
			if ep == nil {
				continue
			}
			i, ok := at[ep]
			if !ok {
				i = len(out)
				at[ep] = i
				out = append(out, Listening{Transport: p.Param(), Address: ep.Local(), Advertised: ep.SentBy()})
			}
			out[i].Groups = append(out[i].Groups, g.cfg.Name)
		}
	}
	return out
}

// Run handles messages and calls, and monitors the peers, until ctx is done. Then it ends every remaining call with BYE
// and closes everything.
func (e *Edge) Run(ctx context.Context) error {
	defer e.close()
	if err := e.tp.Start(e.tx); err != nil {
		return err
	}
	e.running.Store(true)
	defer e.running.Store(false)
	w := newWatch(e)
	var wg sync.WaitGroup
	wctx, stop := context.WithCancel(ctx)
	wg.Go(func() { w.run(wctx) })
	for _, k := range e.keys {
		wg.Go(func() { k.Watch(wctx) })
	}
	<-ctx.Done()
	e.stopping.Store(true)
	stop()
	wg.Wait()
	n := e.cut("the gateway is shutting down")
	// Wait briefly for the responses to BYE and CANCEL, and the ACKs for 487 and 503.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), cutPatience)
	defer cancel()
	if err := e.tx.Idle(last); err != nil && n > 0 {
		e.log.Warn("stopped before all peers had responded", "error", err)
	}
	return nil
}

// cutPatience is how long Run waits at its end for the responses to BYE and CANCEL.
const cutPatience = 2 * time.Second

func (e *Edge) close() {
	e.tp.Close()
	if e.tx != nil {
		e.tx.Close()
	}
}

// Drain refuses new calls from now on, and answers OPTIONS with 503 so that peers send calls elsewhere. It returns when
// the last call has ended or ctx is done; the error then says how many calls are left. Cancelling Run's context ends
// those.
func (e *Edge) Drain(ctx context.Context) error {
	e.draining.Store(true)
	e.log.Info("draining; refusing new calls", "calls", e.active.Load())
	for {
		n := e.active.Load()
		if n == 0 {
			return nil
		}
		select {
		case <-e.idle:
		case <-ctx.Done():
			return fmt.Errorf("%d calls still in progress: %w", e.active.Load(), ctx.Err())
		}
	}
}

// Leave answers OPTIONS with 503 from now on, so that peers send new calls elsewhere; calls that still arrive are
// accepted.
func (e *Edge) Leave() { e.leaving.Store(true) }

// SetDraining refuses or accepts new calls, without waiting. Once Run's context is done it has no effect.
func (e *Edge) SetDraining(on bool) {
	if e.draining.Swap(on) != on {
		e.log.Info("draining switched", "on", on, "calls", e.active.Load())
	}
}

// Draining reports whether new calls are refused.
func (e *Edge) Draining() bool { return e.draining.Load() || e.stopping.Load() }

// cut ends all calls and returns how many there were.
func (e *Edge) cut(why string) int {
	n := 0
	for _, c := range e.calls.all() {
		if c.cut(why) {
			n++
		}
	}
	if n > 0 {
		e.log.Warn("calls in progress ended", "calls", n, "reason", why)
	}
	return n
}

// Ready returns nil if new calls are accepted, else what is missing.
func (e *Edge) Ready() error {
	switch {
	case !e.running.Load():
		return errors.New("the SIP edge is not running")
	case e.Draining():
		return errors.New("the SIP edge is draining")
	case e.view() == nil:
		return errors.New(noIndex)
	}
	return nil
}

// Calls returns the number of calls being set up or in progress.
func (e *Edge) Calls() int { return int(e.active.Load()) }

// GroupCalls returns the number of calls from and to a peer group, being set up or in progress.
func (e *Edge) GroupCalls(name string) int { return int(e.byName[name].calls.Load()) }

// Peers returns the state of every address of every peer.
func (e *Edge) Peers() []PeerState {
	var out []PeerState
	for _, g := range e.groups {
		for _, p := range g.peers {
			out = p.states(out)
		}
	}
	return out
}

// groupOf returns the group that a message belongs to, nil if its source is unknown.
func (e *Edge) groupOf(f transport.Flow) *group {
	g, _ := f.Tag().(*group)
	switch {
	case g == nil:
		// A connection that we opened: its remote end has proved the name that we connected to, which need not be
		// among those of peers that connect to us.
		return e.ports[f.Endpoint()].sources.Load().group(f.Remote().Addr())
	case f.Proto() != transport.TLS, len(g.cfg.TLS.PeerNames) == 0,
		slices.ContainsFunc(g.cfg.TLS.PeerNames, f.VerifiedFor):
		return g
	}
	return nil
}

// Texts for peers that are used in several places.
const (
	noIndex       = "this gateway has not loaded its number index yet"
	drained       = "this gateway is being taken out of service"
	busyAll       = "maximum number of concurrent calls reached"
	busyRate      = "call rate limit exceeded"
	internalError = "internal error; see the gateway's log"
)

// answer builds a response of our own. text, if any, tells the peer, who knows us as local, the reason.
func (e *Edge) answer(m *sip.Message, status int, tag, text string, local leg.Addr) *sip.Message {
	res := sip.NewResponse(m, status, "", tag)
	if e.named {
		res.Append(e.server)
	}
	if status == 422 {
		res.Add(sip.KindMinSE, itoa(leg.MinSession))
	}
	if text != "" {
		res.Add(sip.KindWarning, sip.Warning(399, hostOf(local), text))
	}
	return res
}

// refuse answers a request with a status and a reason, and logs both. The text must be fit for a peer to read.
func (e *Edge) refuse(tx *transaction.Server, m *sip.Message, g *group, status int, text string, retry time.Duration) {
	res := e.answer(m, status, tx.Tag(), text, g.local[tx.Flow().Proto()])
	if retry > 0 {
		res.Add(sip.KindRetryAfter, seconds(retry))
	}
	if status == 405 || status == 501 {
		res.Add(sip.KindAllow, g.allow())
	}
	e.respond(tx, res)
	g.m.sent(m.Method(), status)
	if n, ok := e.refused.pass(time.Now()); ok {
		e.log.Info("SIP request refused", "group", g.cfg.Name, "source", tx.Flow().Remote().String(), "method",
			string(m.Method()), "status", status, "reason", domain.Text(text), "call_id", m.CallID(),
			"more_since_last", n)
	}
}

// drop leaves a request unanswered for which there is no group: its address is known but its certificate belongs to
// another group, or it came over a connection opened by us from an address that no group allows.
func (e *Edge) drop(tx *transaction.Server, m *sip.Message) {
	tx.Drop()
	e.m.dropped.Inc()
	n, ok := e.unknown.pass(time.Now())
	if !ok {
		return
	}
	f := tx.Flow()
	e.log.Warn("SIP request from an unknown peer dropped", "source", f.Remote().String(),
		"transport", f.Proto().Param(), "at", f.Endpoint().Local().String(), "certificate_names", f.PeerIdentities(),
		"method", string(m.Method()), "call_id", m.CallID(), "more_since_last", n)
}

// respond sends a response that needs no ACK, or a non-2xx final one, which the transaction layer retransmits. One that
// does not fit a datagram is sent without its body, a success as 513.
func (e *Edge) respond(tx *transaction.Server, res *sip.Message) {
	if size := oversize(tx, res); size != nil {
		e.log.Warn("SIP response too large", "to", tx.Flow().String(), "status", res.Status(), "call_id",
			res.CallID(), "error", size)
		if s := res.Status(); s < 200 {
			return
		} else if s < 300 {
			res = sip.NewResponse(res, 513, "", "") // for its Via, From, To, Call-ID and CSeq
			res.Add(sip.KindWarning, sip.Warning(399, tx.Flow().Endpoint().SentBy(), tooLargeAnswer(size)))
		}
		res.SetBody("", "")
	}
	if err := tx.Respond(res); err != nil && !errors.Is(err, transaction.ErrDone) {
		e.m.sendFailed.Inc()
		e.log.Debug("SIP response not sent", "status", res.Status(), "error", err)
	}
}

// oversize returns an error if a response over UDP does not fit a datagram, else nil.
func oversize(tx *transaction.Server, res *sip.Message) *transport.SizeError {
	if n := res.Size(); n > transport.MaxUDP && tx.Flow().Proto() == transport.UDP {
		return &transport.SizeError{Bytes: n}
	}
	return nil
}

// tooLargeAnswer is the reason for not relaying a response that is too large.
func tooLargeAnswer(size *transport.SizeError) string {
	return "the other side's response cannot be relayed: " + size.Error() + "; use TCP or TLS, or shorten it"
}

// allow returns the Allow value for the group.
func (g *group) allow() string {
	l := leg.Leg{Refer: g.cfg.Refer == referRelay}
	return l.Allow()
}

func seconds(d time.Duration) string {
	return strconv.Itoa(int((d + time.Second - 1) / time.Second))
}

// logGate limits log lines to each per second, one if that is zero, and counts the others.
type logGate struct {
	each int // lines a second

	mu     sync.Mutex // guards the fields below
	second time.Time
	passed int
	quiet  int
}

// pass reports whether to log now, and returns how many lines were suppressed since the last time.
func (g *logGate) pass(now time.Time) (kept int, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.Sub(g.second) >= time.Second {
		g.second, g.passed = now, 0
	}
	if g.passed >= max(g.each, 1) {
		g.quiet++
		return 0, false
	}
	g.passed++
	kept, g.quiet = g.quiet, 0
	return kept, true
}

// nodeOf returns the node named in a tag of one of our nodes; ok is false for a tag of another form.
func nodeOf(tag string) (node string, ok bool) {
	node, rest, ok := strings.Cut(tag, "-")
	return node, ok && len(rest) >= 20
}
