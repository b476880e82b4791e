package edge

import (
	"cmp"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/calls/record"
	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/calls/sip/resolve"
	"github.com/tandemgw/tandem/internal/calls/sip/transaction"
	"github.com/tandemgw/tandem/internal/calls/sip/transport"
	"github.com/tandemgw/tandem/internal/domain"
)

// state is the state of a call; see the package comment.
type state uint8

const (
	trying   state = iota // the far INVITE is sent, nothing but 100 received
	ringing               // a provisional response was relayed
	answered              // a 2xx was relayed
	over                  // ended; our BYE or CANCEL may still await its response
)

// What a call's timer can be set for.
const (
	atSilence = iota // the peer has sent nothing
	atSetup          // no progress from the peer
	atRing           // no answer, to a re-INVITE too
	atMax            // the call has reached its maximum duration
	atSession        // no session refresh arrived
	atProbe          // the next probe of both sides is due
	atRefers         // the last subscription of an ended call expires
	numTimes
)

// maxForks bounds the early dialogs of one call.
const maxForks = 16

// call is one call: its near (inbound) leg and its far (outbound) leg. mu guards all fields below it.
type call struct {
	e       *Edge
	headers *headers // as of the start of the call
	id      string
	start   time.Time

	mu    sync.Mutex
	state state
	dec   route.Decision
	near  side
	far   *side // of the current attempt; once answered, the far leg

	// While the call is set up.
	srv    *transaction.Server // the near INVITE
	invite *sip.Message
	order  []*address
	next   int // in order
	try    *attempt
	forks  []fork
	last   lastWord
	quit   []string // remote tags of the far leg that sent BYE before the answer
	held   *finish  // how the call ended; set while the near side's BYE waits for the ACK

	// In the call.
	pending []*relay // relayed requests without a final response
	refers  []*refer // subscriptions made by REFERs
	counted bool     // counts towards the limits on calls
	lingers bool     // the call has ended and is kept for refers

	timer *time.Timer
	times [numTimes]time.Time // zero: not set

	rec *record.Record // nil once handed over

	// The first of each; most calls need no more. They are part of the call to save allocations.
	firstOrder [2]*address
	firstFar   side
	firstFork  [1]fork
}

// lastWord is the outcome of the latest attempt; the near side gets it when no peer is left.
type lastWord struct {
	status int
	msg    *sip.Message // nil for silence and transport failures
	text   string
}

// side is one leg of a call as a dialog (RFC 3261 §12). The call's mutex guards it.
type side struct {
	near   bool
	group  *group
	addr   *address // the peer, on the far leg
	leg    leg.Leg
	callID string
	tag    string // the local tag
	base   string // the local tag without a fork's suffix, by which the call is found
	peer   string // the remote tag; on the far leg empty until the answer
	from   string // From of our requests, with the local tag
	to     string // To of our requests, without the remote tag
	target string // Request-URI of our requests
	routes []string
	dest   transport.Target
	// where the first message went to or came from; used while the target's name is not resolved
	home   transport.Target
	vague  bool             // the target is not resolved yet; the next request tries again
	seq    uint32           // CSeq of our latest request
	seen   uint32           // CSeq of the remote end's latest request
	acked  bool             // far leg: the 2xx to our INVITE has been acknowledged
	invite *relay           // a re-INVITE from the remote end in progress
	dead   []netip.AddrPort // addresses of the target's name that have failed since it was resolved
	placed uint32           // CSeq of the remote end's latest INVITE
	passed uint32           // CSeq with which it was relayed to the other side
	bye    bool             // a BYE was received or sent
	ended  bool             // and has been answered, or has failed
	refers int              // REFERs from the remote end, including refused ones
	// referred is set once a REFER has been relayed to the remote end.
	referred bool
}

// fork is one early dialog on the far leg and its counterpart on the near leg.
type fork struct {
	peer   string // the remote tag
	tag    string // our tag for it on the near leg
	target string
	routes []string
	seen   uint32 // CSeq of the far side's latest request in this dialog
	heard  uint32 // CSeq of the near side's latest request in it
}

// log returns a logger whose lines carry the call's id and the Call-ID of each leg, by which to find it in traces.
func (c *call) log() *slog.Logger {
	l := c.e.log.With("call", c.id, "call_id", c.near.callID)
	if c.far != nil {
		l = l.With("call_id_out", c.far.callID)
	}
	return l
}

// party returns the side's name in records.
func (s *side) party() record.Party {
	if s.near {
		return record.Near
	}
	return record.Far
}

// role returns the side's name in texts for peers.
func (s *side) role() string {
	if s.near {
		return "calling"
	}
	return "called"
}

func (c *call) other(s *side) *side {
	if s.near {
		return c.far
	}
	return &c.near
}

// shape has the service's profile shape a message about to be sent on a side.
func (c *call) shape(m *sip.Message, s *side) {
	p := c.headers.profiles[c.dec.Service]
	if p == nil {
		return
	}
	if s.group.core() {
		if c.dec.Screened {
			view := c.e.view()
			if view == nil {
				view = route.NoNumbers
			}
			leg.Screen(m, &s.leg, view)
		}
		p.ToCore(m, &s.leg)
	} else {
		p.ToService(m, &s.leg)
	}
}

// request builds a request to a side, within the early dialog f; nil stands for the confirmed dialog. It has the lines
// relayed from src, which may be nil. hops is its Max-Forwards.
func (c *call) request(s *side, f *fork, method sip.Method, src *sip.Message, hops int) *sip.Message {
	target, routes, from, peer := s.target, s.routes, s.from, s.peer
	if f != nil {
		if s.near {
			from = sip.WithParam(from, "tag", f.tag)
		} else {
			target, routes, peer = f.target, f.routes, f.peer
		}
	}
	uri, routes := loose(target, routes)
	m := sip.NewRequest(method, uri)
	for _, r := range routes {
		m.Add(sip.KindRoute, r)
	}
	m.Add(sip.KindMaxForwards, itoa(hops))
	m.Add(sip.KindFrom, from)
	to := s.to
	if peer != "" && !s.near {
		to += ";tag=" + peer
	}
	m.Add(sip.KindTo, to)
	m.Add(sip.KindCallID, s.callID)
	s.seq++
	m.Add(sip.KindCSeq, sip.CSeq{Seq: s.seq, Method: method}.String())
	if src != nil {
		c.headers.rules.Relay(m, src)
		leg.Renumber(m, &c.other(s).group.cfg.Numbers, true)
	} else if c.e.named {
		m.Append(c.e.agent)
	}
	c.shape(m, s)
	return m
}

// ackFor builds the ACK for a 2xx on a side; seq is the INVITE's CSeq number.
func (c *call) ackFor(s *side, seq uint32, src *sip.Message) *sip.Message {
	save := s.seq
	s.seq = seq - 1
	m := c.request(s, nil, sip.ACK, src, maxForwards)
	s.seq = save
	return m
}

// maxForwards is the Max-Forwards of our own requests (RFC 3261 §8.1.1.6).
const maxForwards = 70

// response builds the response to req on a side from src, the other side's response.
func (c *call) response(s *side, req, src *sip.Message, status int, tag string) *sip.Message {
	reason := src.Reason()
	if status != src.Status() {
		reason = ""
	}
	m := sip.NewResponse(req, status, reason, tag)
	c.headers.rules.Relay(m, src)
	c.shape(m, s)
	return m
}

// own builds our own response to a request of a side; text, if any, tells the peer the reason.
func (c *call) own(s *side, req *sip.Message, status int, tag, text string) *sip.Message {
	m := c.e.answer(req, status, tag, text, s.leg.Local)
	c.shape(m, s)
	return m
}

// retarget makes the Contact of a message the side's target (RFC 3261 §12.2.1.2, §12.2.2). A Contact that cannot be a
// Request-URI leaves the target unchanged.
func (c *call) retarget(s *side, m *sip.Message) {
	uri, ok := m.Target()
	if !ok || uri == s.target {
		return
	}
	s.target = uri
	s.locate(c.e)
}

// locate finds where requests to the side go.
func (s *side) locate(e *Edge) {
	s.dest, _, s.vague = e.route(s, s.target, s.routes)
	s.dead = nil
}

// again prepares a request that failed at one address for the next address of the same name, which the side uses from
// then on (RFC 3263 §4.3). It returns nil if none is left; the next request then starts with the first one.
func (s *side) again(e *Edge, m *sip.Message, failed netip.AddrPort) *sip.Message {
	if s.dest.Addr != failed {
		if !slices.Contains(s.dead, failed) {
			return nil // the target has changed since; this request does not name the new one
		}
		// Another request has already moved the side.
	} else {
		s.dead = append(s.dead, failed)
		_, all, _ := e.route(s, s.target, s.routes)
		i := slices.IndexFunc(all, func(a netip.AddrPort) bool { return !slices.Contains(s.dead, a) })
		if i < 0 {
			s.locate(e)
			return nil
		}
		s.dest.Addr = all[i]
	}
	m = m.Clone()
	m.Remove(sip.KindVia)
	return m
}

// where returns where a request to the side goes.
func (s *side) where(e *Edge) transport.Target {
	if s.vague {
		s.locate(e)
	}
	return s.dest
}

// loose returns Request-URI and Route lines for a target and route set: with a strict router first, its URI becomes the
// Request-URI and the target the last Route (RFC 3261 §12.2.1.1).
func loose(target string, routes []string) (uri string, lines []string) {
	if len(routes) == 0 {
		return target, nil
	}
	a, err := sip.ParseNameAddr(routes[0])
	if err != nil {
		return target, routes
	}
	if u, err := a.URI(); err != nil || u.Params.Has("lr") {
		return target, routes
	}
	return a.Addr, append(append([]string(nil), routes[1:]...), "<"+target+">")
}

// route returns where requests within a dialog go: the topmost Route, else the target (RFC 3261 §12.2.1.1, RFC 3263).
// For a name that is not resolved yet and a URI that cannot be parsed, that is where the dialog's first message went to
// or came from; vague reports whether a later call may return another result. all holds all addresses of the name; none
// if there is no name.
func (e *Edge) route(s *side, target string, routes []string) (_ transport.Target, all []netip.AddrPort, vague bool) {
	next := target
	if len(routes) > 0 {
		a, err := sip.ParseNameAddr(routes[0])
		if err != nil {
			return s.home, nil, false
		}
		next = a.Addr
	}
	u, err := sip.ParseURI(next)
	if err != nil || !u.IsSIP() {
		return s.home, nil, false
	}
	t := s.home
	proto := t.From.Proto()
	if v, ok := u.Param("transport"); ok {
		if p, err := transport.ParseProto(v); err == nil && s.group.eps[p] != nil {
			proto = p
		}
	} else if proto == transport.TCP && s.group.proto == transport.UDP && s.group.eps[transport.UDP] != nil {
		proto = transport.UDP // TCP was used only because of the request's size
	}
	if proto != t.From.Proto() {
		t = transport.Target{From: s.group.eps[proto], ServerName: t.ServerName}
	}
	host := strings.Trim(u.Host, "[]")
	if v, ok := u.Param("maddr"); ok {
		host = v
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		addr = addr.Unmap()
		if s.group.cfg.BehindNAT && unroutable(addr, s.home.Addr.Addr()) {
			return s.home, nil, false
		}
		t.Addr = netip.AddrPortFrom(addr, cmp.Or(uint16(u.Port), proto.DefaultPort()))
		return t, nil, false // over TLS, verify the name known already: few certificates carry addresses
	}
	all, ok := e.find(resolve.Query{Host: host, Port: uint16(u.Port), Proto: proto})
	if !ok || len(all) == 0 {
		return s.home, nil, true
	}
	t.Addr = all[0]
	if slices.Contains(all, s.home.Addr) {
		t.Addr = s.home.Addr
	}
	t.ServerName = host
	return t, all, false
}

// confined lists ranges whose addresses are valid in one network only, or name no host.
var confined = func() (out []netip.Prefix) {
	for p := range strings.FieldsSeq("0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 " +
		"172.16.0.0/12 192.168.0.0/16 224.0.0.0/3 " +
		"::/128 ::1/128 fc00::/7 fe80::/10 ff00::/8") {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}()

// unroutable reports whether a, which a peer that sends from src gives as its own address, cannot be reached from here:
// it is in a confined range that src is not in.
func unroutable(a, src netip.Addr) bool {
	return slices.ContainsFunc(confined, func(p netip.Prefix) bool { return p.Contains(a) && !p.Contains(src.Unmap()) })
}

// at sets one of the call's times; zero clears it. It takes effect with the next arm.
func (c *call) at(what int, t time.Time) { c.times[what] = t }

// arm sets the timer to the earliest of the times.
func (c *call) arm() {
	var first time.Time
	for _, t := range c.times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	switch {
	case first.IsZero():
		if c.timer != nil {
			c.timer.Stop()
		}
	case c.timer == nil:
		c.timer = time.AfterFunc(time.Until(first), c.tick)
	default:
		c.timer.Reset(time.Until(first))
	}
}

// tick runs when the timer fires.
func (c *call) tick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.rescue()
	now := time.Now()
	if c.state == over {
		switch {
		case !c.lingers:
		case now.Before(c.times[atRefers]):
			c.arm()
		default:
			c.endRefers()
		}
		return
	}
	due := func(what int) bool {
		t := c.times[what]
		if t.IsZero() || now.Before(t) {
			return false
		}
		c.times[what] = time.Time{}
		return true
	}
	switch {
	case due(atMax):
		c.finish(finish{by: record.Tandem, text: "maximum call duration reached", cause: causeNormalUnspecified})
	case due(atSession):
		c.finish(finish{by: record.Tandem, text: "session timer expired without a refresh from either side",
			cause: causeRecoveryOnTimerExpiry})
	case due(atRing):
		if c.state == answered {
			c.unanswered()
		} else {
			c.finish(finish{by: record.Tandem, status: 480, text: "no answer in time", cause: causeNoAnswer})
		}
	case due(atSetup):
		c.stuck()
	case due(atSilence):
		c.silent()
	case due(atProbe):
		c.probe(now)
	}
	if c.state != over {
		c.arm()
	}
}

// finish says how a call ends.
type finish struct {
	by     record.Party
	status int          // for the near INVITE, where it has no final answer yet; 0: 503
	text   string       // why, for the record, and for the peers in Reason
	cause  int          // Q.850
	res    *sip.Message // the final response for the near INVITE if the far INVITE has ended or there is none; else nil
	from   *side        // the side that sent BYE; nil if none did
	bye    *sip.Message // that BYE
	cancel *sip.Message // the CANCEL that ended it
}

// finish ends the call: it answers open requests, sends BYE to a side that has not sent one, and hands over the record.
func (c *call) finish(f finish) {
	if c.state == over {
		return
	}
	was := c.state
	c.state = over
	c.uncount()
	if c.timer != nil {
		c.timer.Stop()
	}
	if was == answered {
		c.linger()
	} else {
		c.refers = nil
	}
	c.pending = slices.DeleteFunc(c.pending, func(r *relay) bool {
		if slices.Contains(c.refers, r.sub) {
			return false // the transfer continues
		}
		r.abort()
		return true
	})
	if was == answered {
		c.hangUp(&c.near, f)
		c.hangUp(c.far, f)
	} else {
		c.abandonSetup(f)
	}
	c.close(f)
}

// hangUp sends BYE to a side that has not sent one, after the ACK if that is still to be sent.
func (c *call) hangUp(s *side, f finish) {
	e := c.e
	if !s.near && !s.acked {
		c.ackFar(nil)
	}
	if s.near && c.srv != nil && s != f.from {
		c.held = &f // RFC 3261 §15: no BYE before the ACK
		return
	}
	if s == f.from || s.bye {
		s.bye = true
		c.unlink(s)
		return
	}
	s.bye = true
	var m *sip.Message
	if f.bye != nil {
		m = c.request(s, nil, sip.BYE, f.bye, hopsLeft(f.bye))
	} else {
		m = c.request(s, nil, sip.BYE, nil, maxForwards)
		if f.text != "" {
			m.Add(sip.KindReason, sip.ReasonValue("Q.850", f.cause, f.text))
		}
	}
	to := s.where(e)
	if _, err := e.tx.Send(m, to, &byeTransaction{c: c, s: s, bye: m, to: to.Addr}); err != nil {
		c.unlink(s)
		e.m.sendFailed.Inc()
		c.log().Warn("BYE not sent", "group", s.group.cfg.Name, "error", err)
	}
}

// byeTransaction waits for the response to a BYE; until then a BYE that crosses it finds its call.
type byeTransaction struct {
	c   *call // nil once it is answered: the transaction lingers, the call need not
	s   *side
	bye *sip.Message
	to  netip.AddrPort
}

// Response implements [transaction.ClientHandler].
func (b *byeTransaction) Response(_ *transaction.Client, m *sip.Message) {
	if c := b.c; m.Status() >= 200 && c != nil {
		c.mu.Lock()
		c.unlink(b.s)
		c.mu.Unlock()
		b.c, b.s, b.bye = nil, nil, nil
	}
}

// Failed implements [transaction.ClientHandler]: it sends the BYE to the next address of the name, so that the other
// side is not left in a dead call.
func (b *byeTransaction) Failed(_ *transaction.Client, err error) {
	c := b.c
	if c == nil {
		return
	}
	e := c.e
	c.mu.Lock()
	defer c.mu.Unlock()
	if lost(err) {
		if m := b.s.again(e, b.bye, b.to); m != nil {
			b.bye, b.to = m, b.s.dest.Addr
			if _, err := e.tx.Send(m, b.s.dest, b); err == nil {
				return
			}
			e.m.sendFailed.Inc()
		}
	}
	c.unlink(b.s)
}

// lost reports whether a request failed because of the address it was sent to.
func lost(err error) bool { return broken(err) || errors.Is(err, transaction.ErrTimeout) }

// broken reports whether a request failed because its connection did.
func broken(err error) bool {
	var ce *transport.ConnError
	return errors.As(err, &ce)
}

// uncount takes the call out of the limits on calls.
func (c *call) uncount() {
	if !c.counted {
		return
	}
	c.counted = false
	c.e.limited.Add(-1)
	c.near.group.calls.Add(-1)
	if c.far != nil {
		c.far.group.calls.Add(-1)
	}
}

// close hands over the record of the call, which is no longer active.
func (c *call) close(f finish) {
	e := c.e
	if c.dec.Emergency {
		e.m.emergency.Dec()
	}
	now := time.Now()
	r := c.rec
	c.rec = nil
	r.End = now.UTC()
	if !r.Answer.IsZero() {
		r.DurationSeconds = r.End.Sub(r.Answer).Seconds()
	}
	r.EndedBy, r.Reason, r.Cause = f.by, f.text, f.cause
	if f.bye != nil {
		if p, cause, text := sip.ReasonCause(f.bye.Get(sip.KindReason)); strings.EqualFold(p, "Q.850") {
			r.Cause, r.Reason = cause, text
		} else if text != "" {
			r.Reason = text
		}
	}
	e.m.ended(c, r)
	if f.by == record.Tandem {
		c.log().Info("call ended by the gateway", "status", r.Status, "reason", domain.Text(r.Reason),
			"caller", c.dec.Caller, "called", domain.Dialled(r.Called))
	}
	e.records.Put(r)
	c.srv, c.invite, c.order, c.forks = nil, nil, nil, nil
	if c.try != nil {
		c.try.release() // its transaction lingers; the call need not
	}
	if e.active.Add(-1) == 0 {
		select {
		case e.idle <- struct{}{}:
		default:
		}
	}
}

// cut ends the call from outside. It reports whether the call had not ended before.
func (c *call) cut(why string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == over {
		c.endRefers()
		return false
	}
	c.refers = nil
	c.finish(finish{by: record.Tandem, text: why, cause: causeTemporaryFailure})
	return true
}

// hopsLeft returns the Max-Forwards of the request as relayed (RFC 3261 §16.6 item 3). Requests with none left have
// been answered 483 before.
func hopsLeft(m *sip.Message) int {
	n, ok := m.MaxForwards()
	if !ok {
		return maxForwards
	}
	return max(n-1, 0)
}
