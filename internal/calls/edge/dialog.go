package edge

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/calls/record"
	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/calls/sip/transaction"
)

// baseTag returns one of our tags without its fork's suffix.
func baseTag(tag string) string {
	base, _, _ := strings.Cut(tag, ".")
	return base
}

// inDialog handles a request with a To tag.
func (e *Edge) inDialog(tx *transaction.Server, m *sip.Message, g *group) {
	tag := m.ToTag()
	en, ok := e.calls.get(baseTag(tag))
	if !ok {
		text := "no such call, or it has ended"
		if node, ours := nodeOf(tag); ours && node != e.cfg.Node {
			text = "this call belongs to node " + node + ", and requests are not forwarded between nodes"
		}
		e.refuse(tx, m, g, 481, text, 0)
		return
	}
	c := en.c
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.near
	if !en.near {
		s = c.far
	}
	if s == nil || s.base != baseTag(tag) || s.group != g || m.CallID() != s.callID {
		e.refuse(tx, m, g, 481, "no such call for this peer", 0)
		return
	}
	if c.state == over {
		if m.Method() == sip.BYE {
			// Ours crossed it: both are valid (RFC 3261 §15.1.2).
			if s.near && c.held != nil {
				c.held = nil
				c.unlink(s)
			}
			e.respond(tx, e.answer(m, 200, tx.Tag(), "", s.leg.Local))
			g.m.sent(sip.BYE, 200)
			return
		}
		if sub, _, _ := c.subscribed(s, m); sub == nil || m.Method() != sip.NOTIFY && m.Method() != sip.SUBSCRIBE {
			e.refuse(tx, m, g, 481, "the call has ended", 0)
			return
		}
	}
	var f *fork
	seen := &s.seen
	if c.state < answered {
		if m.Method() == sip.BYE && !s.near && len(c.quit) < maxForks {
			c.quit = append(c.quit, m.FromTag())
		}
		if f = c.forkIn(s, tag, m.FromTag()); f == nil {
			e.refuse(tx, m, g, 481, "no such early dialog", 0)
			return
		}
		seen = &f.seen
		if s.near {
			seen = &f.heard
		}
	} else if m.FromTag() != s.peer || tag != s.tag {
		e.refuse(tx, m, g, 481, "no such call for this peer", 0)
		return
	}
	cs, err := m.CSeq()
	if err != nil || cs.Seq <= *seen && *seen != 0 {
		e.refuse(tx, m, g, 500, "CSeq is not higher than that of the previous request in this call", 0)
		return
	}
	*seen = cs.Seq
	if f := tx.Flow(); g.cfg.BehindNAT && f.Remote() != s.home.Addr { // the NAT has mapped it to another port
		s.home = cameFrom(f)
		s.locate(e)
	}
	if n, ok := m.MaxForwards(); ok && n == 0 && m.Method() != sip.OPTIONS {
		e.refuse(tx, m, g, 483, "Max-Forwards exhausted", 0)
		return
	}
	if (m.Method() == sip.INVITE || m.Method() == sip.UPDATE) && tooShort(m) && !c.dec.Emergency {
		e.refuse(tx, m, g, 422, tooShortText, 0)
		return
	}
	switch m.Method() {
	case sip.BYE:
		c.handleBye(s, tx, m)
	case sip.INVITE:
		why := c.offerless(m, c.other(s).group.core())
		switch {
		case why != "" && c.state == answered:
			e.refuse(tx, m, g, 488, why, 0)
		case c.state < answered && s.near, s.invite != nil:
			e.refuse(tx, m, g, 500, "an earlier INVITE from this side is still in progress", glare())
		case c.state < answered, c.other(s).invite != nil:
			e.refuse(tx, m, g, 491, "", 0)
		default:
			c.relay(s, nil, tx, m, nil, "")
		}
	case sip.UPDATE:
		switch {
		case c.open(s, sip.UPDATE):
			e.refuse(tx, m, g, 500, "an earlier UPDATE from this side is still in progress", glare())
		case c.open(c.other(s), sip.UPDATE) && m.Body() != "":
			e.refuse(tx, m, g, 491, "", 0)
		default:
			c.relay(s, f, tx, m, nil, "")
		}
	case sip.PRACK, sip.INFO:
		c.relay(s, f, tx, m, nil, "")
	case sip.NOTIFY, sip.SUBSCRIBE:
		switch sub, event, ok := c.subscribed(s, m); {
		case !ok:
			e.refuse(tx, m, g, 481, "the id in Event matches no REFER of this call with an active subscription", 0)
		case sub == nil && m.Method() == sip.SUBSCRIBE:
			e.refuse(tx, m, g, 405, "SUBSCRIBE within a call is accepted only to refresh the subscription of a "+
				"REFER", 0)
		default:
			c.relay(s, f, tx, m, sub, event)
		}
	case sip.OPTIONS:
		e.optionsOK(tx, m, g)
	case sip.REFER:
		s.refers++
		c.refers = slices.DeleteFunc(c.refers, func(r *refer) bool { return r.until.Before(time.Now()) })
		switch {
		case s.group.cfg.Refer != referRelay:
			e.refuse(tx, m, g, 403, "call transfer by REFER is not enabled for peer group "+g.cfg.Name, 0)
		case replaces(m):
			e.refuse(tx, m, g, 501, "REFER with Replaces is not supported: this gateway cannot take over a call yet", 0)
		case len(c.refers) >= maxRefers:
			e.refuse(tx, m, g, 500, "too many transfers of this call are in progress", glare())
		default:
			c.relay(s, f, tx, m, nil, "")
		}
	default:
		if m.Method().Known() {
			e.refuse(tx, m, g, 405, "method "+string(m.Method())+" is not supported within a call", 0)
		} else {
			e.refuse(tx, m, g, 501, "unknown method; method names are case-sensitive", 0)
		}
	}
}

// glare returns the Retry-After for a second INVITE or UPDATE sent too early: a random time of 1 to 10 s, within the
// range of RFC 3261 §14.2.
func glare() time.Duration { return time.Duration(1+rand.IntN(10)) * time.Second }

// forkIn returns the early dialog of a request received on side s, nil if there is none.
func (c *call) forkIn(s *side, tag, from string) *fork {
	for i := range c.forks {
		f := &c.forks[i]
		if s.near && f.tag == tag && from == s.peer || !s.near && f.peer == from && tag == s.tag {
			return f
		}
	}
	return nil
}

// open reports whether a request of that method from side s is in progress.
func (c *call) open(s *side, method sip.Method) bool {
	return slices.ContainsFunc(c.pending, func(r *relay) bool { return r.from == s && r.method == method })
}

// handleBye handles a BYE: it answers at once, whatever the other side responds.
func (c *call) handleBye(s *side, tx *transaction.Server, m *sip.Message) {
	e := c.e
	if c.state < answered && !s.near {
		e.refuse(tx, m, s.group, 481, "the called side must not send BYE before the call is answered "+
			"(RFC 3261 section 15)", 0)
		return
	}
	res := c.own(s, m, 200, tx.Tag(), "")
	e.respond(tx, res)
	s.group.m.sent(sip.BYE, 200)
	c.finish(finish{by: s.party(), status: 487, from: s, bye: m})
}

// relay is a request within the call that was relayed from one side to the other and awaits its final response.
type relay struct {
	c      *call
	from   *side
	method sip.Method
	in     *transaction.Server
	out    *transaction.Client
	req    *sip.Message
	seq    uint32 // CSeq of the request as relayed
	// the request as relayed; nil once it must not go to another address: a response arrived, it was cancelled, or it
	// belongs to an early dialog
	sent  *sip.Message
	to    netip.AddrPort // where it was sent
	done  bool           // has its final response
	acked bool           // INVITE: and the ACK was sent
	sub   *refer         // REFER, NOTIFY, SUBSCRIBE: the subscription it is about
}

// inbound is a relay as the handler of its server transaction; the relay itself handles its client transaction.
type inbound relay

// maxPending bounds the relayed requests of one call that await their final responses.
const maxPending = 16

// relay relays a request to the other side. If sub is not nil, a NOTIFY or SUBSCRIBE is about that subscription and
// gets event as its Event.
func (c *call) relay(s *side, f *fork, tx *transaction.Server, m *sip.Message, sub *refer, event string) {
	e := c.e
	if len(c.pending) >= maxPending {
		e.refuse(tx, m, s.group, 500, "too many requests of this call are in progress", glare())
		return
	}
	o := c.other(s)
	if m.Method() == sip.UPDATE { // RFC 3311 §5.2; a re-INVITE's Contact takes effect once it is accepted
		if f == nil || s.near {
			c.retarget(s, m)
		} else if uri, ok := m.Target(); ok {
			f.target = uri
		}
	}
	r := &relay{c: c, from: s, method: m.Method(), in: tx, req: m, sub: sub}
	out := c.request(o, f, m.Method(), m, hopsLeft(m))
	r.seq = o.seq
	if m.Method() == sip.PRACK {
		s.translateRAck(out)
	}
	if m.Method() == sip.REFER {
		r.sub = c.refer(s, m, r.seq)
	} else if sub != nil {
		out.Set(sip.KindEvent, event)
	}
	dest := o.where(e)
	if f != nil && !o.near {
		dest, _, _ = e.route(o, f.target, f.routes)
	} else {
		r.sent, r.to = out, dest.Addr
	}
	if m.Method() == sip.INVITE {
		_ = tx.Trying() // fails only if every later response would too
		s.invite = r
		s.placed, s.passed = s.seen, r.seq
	}
	tx.Handle((*inbound)(r))
	var err error
	if r.out, err = e.tx.Send(out, dest, r); err != nil {
		r.failed(err)
		return
	}
	o.group.m.sentRequest(m.Method())
	c.pending = append(c.pending, r)
	r.wait(time.Now())
}

// wait bounds the time that a re-INVITE stays without a final response: until then, others are refused (RFC 3261
// §14.2). The transaction layer has a limit only until the first response.
func (r *relay) wait(now time.Time) {
	if c := r.c; r.method == sip.INVITE {
		c.at(atRing, now.Add(c.e.cfg.Timers.RingTimeout))
		c.arm()
	}
}

// unanswered cancels a re-INVITE that took too long. It ends with the 487 that follows, or with 408 if there is none.
func (c *call) unanswered() {
	for _, r := range c.pending {
		if r.method == sip.INVITE && r.out != nil {
			_ = r.out.Cancel() // an error means that the final response has arrived
		}
	}
}

// translateRAck puts the other side's CSeq number of the INVITE into RAck (RFC 3262 §7.2). The INVITE may have been
// answered already: a PRACK can arrive after the 2xx (RFC 3262 §3). A RAck that names another INVITE than the side's
// latest stays unchanged, and the other side refuses it.
func (s *side) translateRAck(out *sip.Message) {
	parts := strings.Fields(out.Get(sip.KindRAck))
	if len(parts) != 3 || s.passed == 0 || parts[1] != strconv.FormatUint(uint64(s.placed), 10) {
		return
	}
	parts[1] = strconv.FormatUint(uint64(s.passed), 10)
	out.Set(sip.KindRAck, strings.Join(parts, " "))
}

// settle records that the relay has its final response.
func (r *relay) settle() {
	r.done = true
	c := r.c
	if i := slices.Index(c.pending, r); i >= 0 {
		c.pending = slices.Delete(c.pending, i, i+1)
	}
	if r.from.invite == r {
		r.from.invite = nil
		c.at(atRing, time.Time{}) // an answered call never has two INVITEs in progress
	}
}

// Response implements [transaction.ClientHandler].
func (r *relay) Response(tx *transaction.Client, m *sip.Message) {
	c, status := r.c, m.Status()
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.other(r.from)
	if o != nil {
		o.group.m.received(r.method, status)
	}
	r.out, r.sent = tx, nil
	if r.done {
		if r.method == sip.INVITE && status/100 == 2 && c.state == over {
			// The call has ended meanwhile; the 2xx must still be acknowledged.
			_ = tx.Ack(c.ackFor(o, r.seq, nil), o.where(c.e))
		}
		return
	}
	if status == 100 {
		return
	}
	if status < 200 {
		r.wait(time.Now())
		res := c.response(r.from, r.req, m, status, "")
		c.e.respond(r.in, res)
		return
	}
	r.settle()
	r.renew(status, m)
	sent := status
	if status < 400 && status >= 300 || status == 401 || status == 407 {
		sent = 500 // neither redirects nor challenges are relayed (see relayFinal)
	}
	res := c.response(r.from, r.req, m, sent, "")
	if status == 503 {
		res.Remove(sip.KindRetryAfter)
	}
	now := time.Now()
	if status < 300 && (r.method == sip.INVITE || r.method == sip.UPDATE) {
		if c.state == answered {
			c.retarget(r.from, r.req)
			c.retarget(o, m)
			c.session(m, now)
			c.arm()
		} else if f := c.forkIn(o, o.tag, m.ToTag()); f != nil && r.from.near {
			f.learn(m, c)
		}
	}
	r.from.group.m.sent(r.method, sent)
	if r.method == sip.INVITE && status < 300 {
		if size := oversize(r.in, res); size != nil { // the two sides no longer agree on the session
			c.e.respond(r.in, res)
			_ = tx.Ack(c.ackFor(o, r.seq, nil), o.where(c.e)) // must precede its BYE
			c.finish(finish{by: record.Tandem, text: tooLargeAnswer(size), cause: causeInterworkingUnspecified})
			return
		}
		if err := r.in.RespondReliably(res); err != nil {
			c.e.m.sendFailed.Inc()
		}
		if leg.HasSDP(r.req) || !leg.HasSDP(m) { // as for the first INVITE, see ackAtOnce
			r.ack(nil)
		}
		return
	}
	c.e.respond(r.in, res)
	c.endIfGone(r, status)
}

// endIfGone ends the call if a response shows that the side it came from no longer knows the call (RFC 5057 §5.1, RFC
// 3261 §12.2.1.2). Only INVITE and UPDATE concern the call itself: 481 to NOTIFY is about a subscription, to PRACK
// about a provisional response, and the call continues without either.
func (c *call) endIfGone(r *relay, status int) {
	refresh := r.method == sip.INVITE || r.method == sip.UPDATE
	if c.state != answered || !refresh || status != 481 && status != 408 {
		return
	}
	text := fmt.Sprintf("the %s side no longer knows the call (%d to %s)", c.other(r.from).role(), status, r.method)
	c.finish(finish{by: record.Tandem, text: text, cause: causeTemporaryFailure})
}

// Failed implements [transaction.ClientHandler]: no response arrived. It counts as 408, a broken connection as 503.
func (r *relay) Failed(_ *transaction.Client, err error) {
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	if r.done || r.elsewhere(err) {
		return
	}
	r.failed(err)
}

// elsewhere sends the request to the next address of the name, and reports whether it was sent. Non-INVITE requests are
// not retried after a timeout: the sender's timer F has fired as well.
func (r *relay) elsewhere(err error) bool {
	if r.sent == nil || !broken(err) && (r.method != sip.INVITE || !lost(err)) {
		return false
	}
	e, o := r.c.e, r.c.other(r.from)
	m := o.again(e, r.sent, r.to)
	if m == nil {
		return false
	}
	out, err := e.tx.Send(m, o.dest, r)
	if err != nil {
		e.m.sendFailed.Inc()
		return false
	}
	r.out, r.sent, r.to = out, m, o.dest.Addr
	return true
}

func (r *relay) failed(err error) {
	c := r.c
	status, text := 503, "the other side of the call could not be reached"
	if errors.Is(err, transaction.ErrTimeout) {
		status, text = 408, "the other side of the call did not answer in time"
	}
	if local(err) {
		w := c.e.localFailure(r.method, "the other side of the call", err)
		status, text = w.status, w.text
	}
	r.settle()
	r.renew(status, nil)
	c.e.respond(r.in, c.own(r.from, r.req, status, "", text))
	r.from.group.m.sent(r.method, status)
	if status == 408 {
		c.endIfGone(r, status)
	}
}

// abort answers a request whose call has ended meanwhile (RFC 3261 §15.1.2). A re-INVITE is cancelled on the other side
// as well: one that rings has no time limit of its own.
func (r *relay) abort() {
	r.done = true
	if r.method == sip.INVITE && r.out != nil {
		_ = r.out.Cancel() // an error means that the final response has arrived
	}
	status := 487
	if r.method != sip.INVITE {
		status = 481
	}
	r.c.e.respond(r.in, r.c.own(r.from, r.req, status, "", "the call has ended"))
	r.from.group.m.sent(r.method, status)
	if r.from.invite == r {
		r.from.invite = nil
	}
}

// Cancel implements [transaction.ServerHandler]: it cancels a re-INVITE. The other side's final response is relayed, so
// that a 200 that crosses the CANCEL counts on both sides.
func (i *inbound) Cancel(*transaction.Server, *sip.Message) {
	r := (*relay)(i)
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	r.sent = nil
	if !r.done && r.out != nil {
		_ = r.out.Cancel() // an error means that the final response has arrived
	}
}

// Ack implements [transaction.ServerHandler]: the ACK for a re-INVITE's 2xx.
func (i *inbound) Ack(tx *transaction.Server, m *sip.Message) {
	r := (*relay)(i)
	c := r.c
	c.mu.Lock()
	defer c.mu.Unlock()
	tx.Handle(nil)
	if r.out != nil {
		r.ack(m)
	}
}

// ack acknowledges a re-INVITE's 2xx, if that has not been done yet.
func (r *relay) ack(src *sip.Message) {
	if r.acked {
		return
	}
	r.acked = true
	c := r.c
	o := c.other(r.from)
	if err := r.out.Ack(c.ackFor(o, r.seq, src), o.where(c.e)); err != nil {
		c.e.m.sendFailed.Inc()
	}
}

// Failed implements [transaction.ServerHandler].
func (i *inbound) Failed(_ *transaction.Server, err error) {
	r := (*relay)(i)
	c := r.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == answered && r.method == sip.INVITE && errors.Is(err, transaction.ErrNoAck) {
		r.ack(nil) // must precede its BYE
		c.finish(finish{by: record.Tandem, text: "the answer to a re-INVITE was never acknowledged",
			cause: causeRecoveryOnTimerExpiry})
	}
}

// session monitors the session timer that the two ends have agreed on (RFC 4028): each 2xx to INVITE or UPDATE restarts
// it. An interval below the minimum is relayed as the minimum, and never ends a call here: its sender does not follow
// RFC 4028, so its refreshes cannot be relied on. The probe finds a dead call.
func (c *call) session(m *sip.Message, now time.Time) {
	secs, ok := leg.SessionInterval(m.Get(sip.KindSessionExpires))
	if !ok || secs < leg.MinSession {
		c.at(atSession, time.Time{})
		return
	}
	c.at(atSession, now.Add(time.Duration(min(secs, 1<<20))*time.Second))
}

// tooShort reports whether a request asks for a session interval below the minimum. Its sender must understand 422;
// for one that does not, the interval is raised instead (RFC 4028 §8.1).
func tooShort(m *sip.Message) bool {
	secs, ok := leg.SessionInterval(m.Get(sip.KindSessionExpires))
	return ok && secs < leg.MinSession && m.HasOption(sip.KindSupported, "timer")
}

const tooShortText = "the session interval is below the minimum of 90 seconds (RFC 4028 section 4)"

// offerless returns why the service on the side that m goes to would refuse it because it has no offer; empty if it
// would not.
func (c *call) offerless(m *sip.Message, core bool) string {
	p := c.headers.profiles[c.dec.Service]
	if p == nil || core || c.dec.Emergency || !p.NeedsOffer() || leg.HasSDP(m) {
		return ""
	}
	return c.dec.Service.Traits().Title + " does not accept an INVITE without an offer; send SDP in the INVITE"
}

// probe asks by OPTIONS whether the sides still know the call. It skips a side that is known not to answer OPTIONS,
// whose silence would mean nothing.
func (c *call) probe(now time.Time) {
	for _, s := range []*side{&c.near, c.far} {
		if !s.answersOptions() {
			continue
		}
		m := c.request(s, nil, sip.OPTIONS, nil, maxForwards)
		if _, err := c.e.tx.Send(m, s.where(c.e), &probe{c: c, s: s}); err != nil {
			c.e.m.sendFailed.Inc()
		}
		s.group.m.sentRequest(sip.OPTIONS)
	}
	c.at(atProbe, now.Add(c.e.cfg.Timers.ProbeEvery))
}

// answersOptions reports whether the side answers OPTIONS, according to the configuration of its group and peer.
func (s *side) answersOptions() bool {
	switch {
	case s.group.cfg.Options.Off:
		return false
	case s.addr != nil:
		return !s.addr.peer.cfg.Passive
	}
	from := s.home.Addr.Addr() // the near side: the sender of the INVITE
	return !slices.ContainsFunc(s.group.peers, func(p *peer) bool { return p.cfg.Passive && p.sendsFrom(from) })
}

// probe waits for the response to an OPTIONS within a call.
type probe struct {
	c *call
	s *side
}

// Response implements [transaction.ClientHandler].
func (p *probe) Response(_ *transaction.Client, m *sip.Message) {
	if s := m.Status(); s == 481 || s == 408 {
		p.gone(fmt.Sprintf("it answered OPTIONS with %d", s))
	}
}

// Failed implements [transaction.ClientHandler].
func (p *probe) Failed(_ *transaction.Client, err error) {
	if errors.Is(err, transaction.ErrTimeout) {
		p.gone("it did not answer OPTIONS")
	}
}

// gone ends an answered call because the side no longer knows it.
func (p *probe) gone(how string) {
	c := p.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != answered {
		return
	}
	text := fmt.Sprintf("the %s side no longer knows the call: %s", p.s.role(), how)
	c.finish(finish{by: record.Tandem, text: text, cause: causeDestinationOutOfOrder})
}
