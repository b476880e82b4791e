package edge

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/calls/record"
	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/calls/sip/transaction"
	"github.com/tandemgw/tandem/internal/calls/sip/transport"
	"github.com/tandemgw/tandem/internal/domain"
)

// Request implements [transaction.User].
func (e *Edge) Request(tx *transaction.Server, m *sip.Message) {
	g := e.groupOf(tx.Flow())
	if g == nil {
		e.drop(tx, m)
		return
	}
	g.m.got(m.Method())
	if m.ToTag() != "" {
		e.inDialog(tx, m, g)
		return
	}
	if !e.begins(tx.Flow()) {
		e.drop(tx, m)
		return
	}
	switch m.Method() {
	case sip.INVITE:
		e.newCall(tx, m, g)
	case sip.OPTIONS:
		e.answerOptions(tx, m, g)
	case sip.BYE, sip.UPDATE, sip.PRACK, sip.INFO, sip.NOTIFY:
		e.refuse(tx, m, g, 481, "in-dialog request without a To tag", 0)
	case sip.REFER:
		e.refuse(tx, m, g, 403, "REFER is accepted only within a call", 0)
	default:
		if m.Method().Known() {
			e.refuse(tx, m, g, 405, "method "+string(m.Method())+" is not supported: this gateway carries calls", 0)
		} else {
			e.refuse(tx, m, g, 501, "unknown method; method names are case-sensitive", 0)
		}
	}
}

// Ack implements [transaction.User]: an ACK that matches nothing is ignored (RFC 3261 §17).
func (e *Edge) Ack(*sip.Message, transport.Flow) {}

// answerOptions answers an OPTIONS outside a dialog: 200 if new calls are taken.
func (e *Edge) answerOptions(tx *transaction.Server, m *sip.Message, g *group) {
	why := e.unready(e.view())
	if why == "" && e.leaving.Load() {
		why = "this node is shutting down; send new calls to another"
	}
	if why != "" {
		e.refuse(tx, m, g, 503, why, e.limits.Load().RetryAfter)
		return
	}
	e.optionsOK(tx, m, g)
}

// optionsOK answers an OPTIONS with 200 (RFC 3261 §11.2).
func (e *Edge) optionsOK(tx *transaction.Server, m *sip.Message, g *group) {
	l := leg.Leg{Local: g.local[tx.Flow().Proto()], Refer: g.cfg.Refer == referRelay}
	res := e.answer(m, 200, tx.Tag(), "", l.Local)
	res.Add(sip.KindAccept, "application/sdp, multipart/mixed")
	res.Add(sip.KindSupported, supported)
	if p := e.profile(g); p != nil {
		p.Ping(res, &l)
	} else {
		leg.SetContact(res, l.Local)
		leg.SetAllow(res, l.Allow())
	}
	e.respond(tx, res)
	g.m.sent(sip.OPTIONS, 200)
}

// extensions are the SIP extensions that work through this gateway because it relays what they need; a Require that
// names others is refused with 420.
var extensions = map[string]bool{
	"100rel": true, "timer": true, "precondition": true, "histinfo": true, "privacy": true, "resource-priority": true,
	"geolocation-sip": true, "geolocation-http": true, "early-session": true, "ice": true, "sdp-anat": true,
	"uui": true, "answermode": true, "199": true, "norefersub": true,
}

const supported = "100rel, timer, precondition, histinfo, privacy, resource-priority, geolocation-sip, " +
	"geolocation-http, uui, 199"

// unready returns why all new calls are refused, given the current view of the index; "" if they are accepted.
func (e *Edge) unready(view route.View) string {
	switch {
	case e.Draining():
		return drained
	case view == nil:
		return noIndex
	}
	return ""
}

// newCall handles an INVITE that starts a call.
func (e *Edge) newCall(tx *transaction.Server, m *sip.Message, g *group) {
	if n, ok := m.MaxForwards(); ok && n == 0 {
		e.refuse(tx, m, g, 483, "Max-Forwards exhausted; probable routing loop", 0)
		return
	}
	start := time.Now()
	facts := leg.Facts(m, g.cfg.Name)
	if en, ok := e.calls.get(baseTag(m.FromTag())); ok && !en.near && en.c.isLoop(m.CallID(), facts.Called) {
		e.refuse(tx, m, g, 482, "routing loop: the call to "+domain.Dialled(facts.Called).Redacted()+
			" came back to this gateway", 0)
		return
	}
	view := e.view()
	why := e.unready(view)
	if view == nil {
		view = route.NoNumbers
	}
	dec := route.Decide(view, e.policy, facts)
	// Rows X1 to X8 of docs/sip-behaviour.md: no state of ours refuses an emergency call from a service.
	urgent := dec.Emergency && dec.Outcome == route.ToCore
	if m.Has(sip.KindReplaces) && !urgent {
		e.refuse(tx, m, g, 501, "INVITE with Replaces is not supported: this gateway cannot take over a call yet", 0)
		return
	}
	if why != "" && (!urgent || e.stopping.Load()) {
		e.refuse(tx, m, g, 503, why+e.policy.NotEmergency(facts.Called), e.limits.Load().RetryAfter)
		return
	}
	c := &call{e: e, dec: dec, headers: e.headers.Load(), id: sip.Token(""), start: start}
	c.begin(tx, m, g, &facts)
	if c.dec.Outcome == route.Rejected {
		c.reject(c.dec.Status, c.dec.Warning, 0)
		return
	}
	if tooShort(m) && !urgent {
		c.reject(422, tooShortText+e.policy.NotEmergency(facts.Called), 0)
		return
	}
	if why := e.admit(g, start, urgent); why != "" {
		c.reject(503, why+e.policy.NotEmergency(facts.Called), e.limits.Load().RetryAfter)
		return
	}
	_ = tx.Trying() // fails only if every later response would too
	g.m.sent(sip.INVITE, 100)
	c.mu.Lock()
	defer c.mu.Unlock()
	e.active.Add(1)
	e.limited.Add(1)
	c.counted = true
	if c.dec.Emergency {
		e.m.emergency.Inc()
	}
	defer c.rescue()
	tx.Handle((*nearInvite)(c))
	f := tx.Flow()
	c.near.home = cameFrom(f)
	c.near.dest = c.near.home
	c.near.routes = routeSet(m, false)
	c.retarget(&c.near, m)
	groups := make([]*group, 0, 4)
	for _, name := range c.dec.Groups {
		if g := e.byName[name]; g != nil {
			groups = append(groups, g)
		}
	}
	c.order = plan(c.firstOrder[:0], groups, e.find, start)
	e.calls.put(c.near.tag, c, true)
	if why := c.offerless(m, c.dec.Outcome == route.ToCore); why != "" {
		c.conclude(488, why, record.Tandem)
		return
	}
	c.at(atRing, start.Add(e.cfg.Timers.RingTimeout))
	c.proceed(start)
}

// cameFrom returns the source of a flow as a target for requests.
func cameFrom(f transport.Flow) transport.Target {
	return transport.Target{From: f.Endpoint(), Addr: f.Remote(), Prefer: f, ServerName: knownAs(f)}
}

// knownAs returns a name that the remote end of a TLS connection has proved by its certificate, so that requests back
// can use the connection, or another one to the same peer, although its Contact is an address; empty without TLS.
func knownAs(f transport.Flow) string {
	names := f.PeerIdentities()
	if len(names) == 0 || f.VerifiedFor(f.Remote().Addr().String()) {
		return ""
	}
	return names[0]
}

// isLoop reports whether an INVITE that carries this call's far From tag is the call's own INVITE, returned for the
// same number; for another number it is a spiral, and a new call (RFC 3261 §16.3 item 4).
func (c *call) isLoop(callID, called string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.far != nil && c.far.callID == callID && c.rec != nil && c.rec.Called == called
}

// urgentRequest reports whether a request not yet admitted is an emergency call: an INVITE from a service.
func (e *Edge) urgentRequest(m *sip.Message, f transport.Flow) bool {
	g := e.groupOf(f)
	return m.Method() == sip.INVITE && g != nil && !g.core() && e.policy.Emergency(leg.Facts(m, g.cfg.Name).Called)
}

// leastEmergency is the shortest maximum duration of an emergency call: long enough that only a call both sides have
// forgotten reaches it.
const leastEmergency = 24 * time.Hour

// admit counts one more call of a group, or returns why the call is refused. An urgent one, an emergency call, is
// always admitted and does not count towards the rates: only the number of SIP transactions bounds such calls.
func (e *Edge) admit(g *group, now time.Time, urgent bool) string {
	switch {
	case urgent:
	case e.limited.Load() >= int64(e.limits.Load().MaxCalls):
		return busyAll
	case g.full():
		return g.fullText()
	case !g.rate.pass(now):
		return "call rate limit of peer group " + g.cfg.Name + " exceeded"
	case !e.rate.pass(now):
		return busyRate
	}
	g.calls.Add(1)
	return ""
}

// begin initialises the near leg and the record.
func (c *call) begin(tx *transaction.Server, m *sip.Message, g *group, facts *domain.CallFacts) {
	e, f := c.e, tx.Flow()
	c.srv, c.invite = tx, m
	s := &c.near
	s.near, s.group, s.callID, s.peer = true, g, m.CallID(), m.FromTag()
	s.tag = e.newTag()
	s.base = s.tag
	s.leg = leg.Leg{Call: &c.dec, Local: g.local[f.Proto()], Remote: leg.Addr{Host: f.Remote().Addr().String()},
		Refer: g.cfg.Refer == referRelay}
	s.from = sip.EscapeHash(m.Get(sip.KindTo)) + ";tag=" + s.tag
	s.to = sip.EscapeHash(m.Get(sip.KindFrom))
	if cs, err := m.CSeq(); err == nil {
		s.seen = cs.Seq
		s.placed = cs.Seq
	}
	paper := &struct {
		record.Record
		tried [1]record.Try
	}{}
	r := &paper.Record
	r.Tried = paper.tried[:0]
	c.rec = r
	d := &c.dec
	r.ID, r.Node, r.Start = c.id, e.cfg.Node, c.start.UTC()
	r.Direction, r.Service, r.Rule = d.Outcome.String(), d.Service, string(d.Rule)
	r.Called, r.Caller, r.Identity = facts.Called, string(d.Caller), string(d.Identity)
	if d.Identity != "" {
		r.IdentitySource = d.IdentitySource.String()
	}
	r.CustomHeader, r.Emergency = d.Header, d.Emergency
	if d.Account != nil {
		r.Account = d.Account.Name
	}
	r.From = record.Side{Group: g.cfg.Name, Addr: f.Remote().String(), CallID: s.callID}
}

// reject refuses an INVITE before the call is set up. The call is in no table yet.
func (c *call) reject(status int, text string, retry time.Duration) {
	e, tx := c.e, c.srv
	res := e.answer(c.invite, status, tx.Tag(), text, c.near.leg.Local)
	if retry > 0 {
		res.Add(sip.KindRetryAfter, seconds(retry))
	}
	c.shape(res, &c.near)
	e.respond(tx, res)
	c.near.group.m.sent(sip.INVITE, status)
	r := c.rec
	r.Status, r.EndedBy, r.Reason, r.End = status, record.Tandem, text, time.Now().UTC()
	e.m.ended(c, r)
	if n, ok := e.refused.pass(c.start); ok {
		c.log().Info("call refused", "group", c.near.group.cfg.Name, "caller", c.dec.Caller, "called",
			domain.Dialled(r.Called), "status", status, "rule", r.Rule, "reason", domain.Text(text),
			"more_since_last", n)
	}
	e.records.Put(r)
}

// attempt is the far INVITE sent to one address of a peer.
type attempt struct {
	e     *Edge
	call  atomic.Pointer[call] // nil once the attempt was abandoned or the call has ended
	addr  *address
	tx    *transaction.Client
	seq   uint32
	heard bool // any response, including 100
	well  bool // a response showed that the peer takes calls
	tried int  // index in the record
}

// home returns where the attempt's INVITE was sent.
func (a *attempt) home() transport.Target {
	p := a.addr.peer
	return transport.Target{From: p.group.eps[p.group.proto], Addr: a.addr.addr, ServerName: p.serverName()}
}

// release detaches the attempt from its call: a later 2xx is acknowledged and gets BYE.
func (a *attempt) release() {
	a.call.Store(nil)
}

// proceed sends the call to the next peer, or ends it if none is left.
func (c *call) proceed(now time.Time) {
	for c.next < len(c.order) {
		a := c.order[c.next]
		c.next++
		if c.offer(a, now) {
			c.arm()
			return
		}
	}
	l := c.last
	switch {
	case len(c.order) == 0:
		c.conclude(503, fmt.Sprintf("peer group %s has no peer with a known address",
			strings.Join(c.dec.Groups, ", ")), record.Tandem)
	case l.msg != nil:
		c.relayFinal(l.msg)
	default:
		c.conclude(l.status, l.text, record.Tandem)
	}
}

// offer sends the far INVITE to one address. It reports whether the INVITE was sent.
func (c *call) offer(to *address, now time.Time) bool {
	e, g := c.e, to.peer.group
	if c.far != nil {
		e.calls.remove(c.far.base)
		c.far.group.calls.Add(-1)
		c.far = nil
	}
	if g.full() && !c.dec.Emergency {
		c.last = lastWord{status: 503, text: g.fullText()}
		return false
	}
	a := &attempt{e: e, addr: to} // not part of the call: the transaction that holds it may outlive the call
	s := &c.firstFar
	if c.try != nil {
		s = &side{}
	}
	*s = side{group: g, addr: to, callID: sip.NewCallID(), tag: e.newTag(), home: a.home()}
	s.base = s.tag
	s.dest = s.home
	s.leg = leg.Leg{Call: &c.dec, Local: g.local[g.proto], Remote: to.peer.remote(), Refer: g.cfg.Refer == referRelay}
	a.call.Store(c)

	m := sip.NewRequest(sip.INVITE, c.invite.RequestURI())
	m.Add(sip.KindMaxForwards, itoa(hopsLeft(c.invite)))
	m.Append(sip.Line(sip.KindFrom, sip.EscapeHash(sip.WithParam(c.invite.Get(sip.KindFrom), "tag", s.tag))))
	m.Append(sip.Line(sip.KindTo, sip.EscapeHash(c.invite.Get(sip.KindTo))))
	m.Add(sip.KindCallID, s.callID)
	s.seq, a.seq = 1, 1
	c.near.passed = a.seq
	m.Add(sip.KindCSeq, "1 INVITE")
	c.headers.rules.Relay(m, c.invite)
	leg.Renumber(m, &c.near.group.cfg.Numbers, c.dec.Emergency)
	c.shape(m, s)
	s.from, s.to, s.target = m.Get(sip.KindFrom), m.Get(sip.KindTo), m.RequestURI()

	c.try, c.far = a, s
	g.calls.Add(1)
	e.calls.put(s.base, c, false)
	a.tried = len(c.rec.Tried)
	c.rec.Tried = append(c.rec.Tried, record.Try{Group: g.cfg.Name, Peer: to.peer.cfg.Name, Addr: to.addr.String(),
		At: now.UTC(), Result: "open"})
	c.rec.FarCallID = s.callID
	tx, err := e.tx.SendWith(m, s.home, a, c.dec.Emergency)
	if err != nil {
		c.lost(a, now, err)
		return false
	}
	a.tx = tx
	g.m.sentRequest(sip.INVITE)
	c.at(atSilence, now.Add(g.silence))
	if d := e.cfg.Timers.SetupTimeout; d > 0 {
		c.at(atSetup, now.Add(d))
	}
	return true
}

// lost records that an attempt failed in the transport or timed out.
func (c *call) lost(a *attempt, now time.Time, err error) {
	peer := a.addr.peer
	t := &c.rec.Tried[a.tried]
	c.last = lastWord{status: 503, text: peer.String() + " could not be reached"}
	t.Result = "transport"
	if _, refused := errors.AsType[*transport.RefusedError](err); refused {
		c.last.text = peer.String() + " refused this gateway's TLS certificate"
	}
	if err == nil || errors.Is(err, transaction.ErrTimeout) {
		c.last = lastWord{status: 408, text: peer.String() + " did not answer in time"}
		t.Result = "silence"
	}
	if local(err) {
		c.last = c.e.localFailure(sip.INVITE, peer.String(), err)
		t.Result = "local"
	} else {
		why := "no answer to INVITE"
		if err != nil {
			why = err.Error()
		}
		a.addr.bad(now, why, 0, c.e.log)
	}
	peer.group.m.failover(t.Result)
	a.release()
}

// local reports whether a request failed on this host; that says nothing about the peer.
func local(err error) bool {
	return errors.Is(err, transport.ErrLocal) || errors.Is(err, transaction.ErrOverload) ||
		errors.Is(err, transaction.ErrClosed)
}

// localFailure logs a request to a peer that failed on this host, and returns what the near side gets.
func (e *Edge) localFailure(method sip.Method, to string, err error) lastWord {
	e.log.Warn("SIP request not sent", "method", string(method), "to", to, "error", err)
	var size *transport.SizeError
	switch {
	case errors.As(err, &size): // RFC 3261 §18.1.1, §21.5.7
		return lastWord{status: 513, text: fmt.Sprintf("%s to %s is too large: %v, and TCP cannot be used; shorten it "+
			"or enable TCP or TLS on the peer", method, to, size)}
	case errors.Is(err, transaction.ErrOverload):
		return lastWord{status: 503, text: "this gateway is overloaded: maximum number of SIP transactions reached"}
	}
	return lastWord{status: 503, text: fmt.Sprintf("%s to %s could not be sent by this gateway", method, to)}
}

// silent handles a peer that has not responded in time: the attempt is abandoned, but a late response is still handled.
func (c *call) silent() {
	a := c.try
	if a == nil || c.state != trying {
		return
	}
	a.tx.Abandon()
	_ = a.tx.Cancel() // is sent if the peer responds after all
	now := time.Now()
	c.lost(a, now, nil)
	c.proceed(now)
}

// stuck handles a peer that sent 100 and then nothing in time. The next peer gets the call, with the same time limit.
func (c *call) stuck() {
	a := c.try
	if a == nil || c.state != trying {
		return
	}
	if c.next == len(c.order) {
		a.addr.bad(time.Now(), "only 100 in response to INVITE", 0, c.e.log)
		c.finish(finish{by: record.Tandem, status: 408, text: "no peer showed progress in time",
			cause: causeRecoveryOnTimerExpiry})
		return
	}
	c.silent()
}

// Response implements [transaction.ClientHandler] for the far INVITE.
func (a *attempt) Response(tx *transaction.Client, m *sip.Message) {
	status := m.Status()
	a.addr.peer.group.m.received(sip.INVITE, status)
	c := a.call.Load()
	if c == nil {
		a.late(tx, m)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.rescue()
	if c.state == over || c.try != a {
		a.late(tx, m)
		return
	}
	a.tx = tx
	now := time.Now()
	if !a.heard {
		a.heard = true
		c.at(atSilence, time.Time{})
	}
	switch {
	case status == 100: // says only that the INVITE has arrived
	case status < 200:
		a.good(now)
		c.progress(m, now)
	case status < 300:
		a.good(now)
		c.success(a, tx, m, now)
	default:
		c.failure(a, m, now)
	}
}

// good records that the peer takes calls, once per attempt.
func (a *attempt) good(now time.Time) {
	if !a.well {
		a.well = true
		a.addr.good(now, a.e.log)
	}
}

// Failed implements [transaction.ClientHandler] for the far INVITE.
func (a *attempt) Failed(_ *transaction.Client, err error) {
	c := a.call.Load()
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.rescue()
	if c.state == over || c.try != a {
		return
	}
	now := time.Now()
	rang := c.state != trying
	c.lost(a, now, err)
	if rang {
		c.conclude(c.last.status, c.last.text, record.Tandem)
		return
	}
	c.proceed(now)
}

// late handles a response from a peer whose call went elsewhere or has ended: it ends the unwanted dialog that a 2xx
// made, from nothing but that 2xx, by ACK and BYE (RFC 3261 §13.2.2.4). The CANCEL was requested when the attempt was
// abandoned.
func (a *attempt) late(tx *transaction.Client, m *sip.Message) {
	cs, err := m.CSeq()
	if err != nil || m.Status()/100 != 2 {
		return
	}
	e, s := a.e, &side{group: a.addr.peer.group, home: a.home()}
	target, ok := m.Target()
	s.target, s.routes = target, routeSet(m, true)
	dest := s.home
	if ok || len(s.routes) > 0 {
		dest, _, _ = e.route(s, s.target, s.routes)
	}
	if !ok {
		// The INVITE's Request-URI is no longer known, but its To names the same peer.
		to, err := m.To()
		if s.target = to.Addr; err != nil {
			return
		}
	}
	uri, routes := loose(s.target, s.routes)
	make := func(method sip.Method, seq uint32) *sip.Message {
		r := sip.NewRequest(method, uri)
		for _, x := range routes {
			r.Add(sip.KindRoute, x)
		}
		r.Add(sip.KindMaxForwards, itoa(maxForwards))
		r.CopyFrom(m, sip.KindFrom, sip.KindTo, sip.KindCallID)
		r.Add(sip.KindCSeq, sip.CSeq{Seq: seq, Method: method}.String())
		return r
	}
	if err := tx.Ack(make(sip.ACK, cs.Seq), dest); err != nil {
		e.m.sendFailed.Inc()
	}
	bye := make(sip.BYE, cs.Seq+1)
	bye.Add(sip.KindReason, sip.ReasonValue("SIP", 487, "call completed elsewhere or abandoned"))
	if _, err := e.tx.Send(bye, dest, ignore{}); err != nil {
		e.m.sendFailed.Inc()
	}
}

// ignore is a handler for requests whose response changes nothing.
type ignore struct{}

func (ignore) Response(*transaction.Client, *sip.Message) {}
func (ignore) Failed(*transaction.Client, error)          {}

// routeSet returns the route set in Record-Route, reversed for the side that sent the request (RFC 3261 §12.1.1,
// §12.1.2).
func routeSet(m *sip.Message, reversed bool) []string {
	if !m.Has(sip.KindRecordRoute) {
		return nil
	}
	var set []string
	for v := range m.Values(sip.KindRecordRoute) {
		a, err := sip.ParseNameAddr(v)
		if err != nil {
			continue // a Route made of it would be malformed
		}
		if u, err := a.URI(); err != nil || !u.IsSIP() {
			continue
		}
		if !a.Angle {
			v = "<" + v + ">" // RFC 3261 §20.34: Route has brackets
		}
		set = append(set, sip.EscapeHash(v))
	}
	if reversed {
		slices.Reverse(set)
	}
	return set
}

// forkOf returns the fork of the dialog that a response on the far leg makes, and adds it if it is new. It returns nil
// if there are too many and the dialog is an early one; a 2xx is never refused.
func (c *call) forkOf(m *sip.Message) *fork {
	tag := m.ToTag()
	for i := range c.forks {
		if c.forks[i].peer == tag {
			return &c.forks[i]
		}
	}
	n := len(c.forks)
	switch {
	case n == 0:
		c.forks = c.firstFork[:0]
	case n >= maxForks && m.Status() < 200:
		return nil
	}
	f := fork{peer: tag, tag: c.near.base, heard: c.near.seen, target: c.far.target}
	if n > 0 {
		f.tag += "." + itoa(n)
	}
	c.forks = append(c.forks, f)
	return &c.forks[n]
}

// learn takes target and route set of a fork from its response, and has the name looked up, so that it is resolved when
// the ACK must be sent.
func (f *fork) learn(m *sip.Message, c *call) {
	uri, ok := m.Target()
	if !ok && m.Status() < 200 {
		return
	}
	f.routes = routeSet(m, true)
	switch {
	case !ok:
		c.e.log.Warn("response without a usable Contact; sending requests of the call where its INVITE went",
			"call", c.id, "group", c.far.group.cfg.Name, "call_id", c.far.callID)
	case f.target != uri:
		f.target = uri
		_, _, _ = c.e.route(c.far, f.target, f.routes)
	}
}

// progress handles 101 to 199. It relays them, retransmissions included: a reliable one is retransmitted until its
// PRACK has arrived from end to end (RFC 3262 §3).
func (c *call) progress(m *sip.Message, now time.Time) {
	f := c.forkOf(m)
	if f == nil {
		return
	}
	f.learn(m, c)
	if c.state == trying {
		c.state = ringing
		c.rec.Progress = now.UTC()
		c.at(atSetup, time.Time{})
		c.e.m.progress(c, now)
	}
	c.at(atRing, now.Add(c.e.cfg.Timers.RingTimeout))
	res := c.response(&c.near, c.invite, m, m.Status(), f.tag)
	res.CopyFrom(c.invite, sip.KindRecordRoute)
	c.e.respond(c.srv, res)
	c.near.group.m.sent(sip.INVITE, m.Status())
	c.arm()
}

// success handles 2xx.
func (c *call) success(a *attempt, tx *transaction.Client, m *sip.Message, now time.Time) {
	if c.state == answered {
		if m.ToTag() != c.far.peer {
			a.late(tx, m)
		}
		c.ackAtOnce(m) // a retransmission: not yet acknowledged, or its ACK is on the way
		return
	}
	e, s := c.e, c.far
	t := &c.rec.Tried[a.tried]
	t.Status, t.Result = m.Status(), "answered"
	if slices.Contains(c.quit, m.ToTag()) {
		a.late(tx, m)
		c.conclude(480, "the called side hung up before its answer arrived", record.Far)
		return
	}
	f := c.forkOf(m)
	f.learn(m, c)
	s.peer, s.routes, s.seen, s.target = f.peer, f.routes, f.seen, f.target
	s.locate(e)
	near := &c.near
	near.tag = f.tag
	near.from = sip.WithParam(near.from, "tag", f.tag)
	near.seen = max(near.seen, f.heard)

	res := c.response(near, c.invite, m, m.Status(), f.tag)
	res.CopyFrom(c.invite, sip.KindRecordRoute)
	if size := oversize(c.srv, res); size != nil {
		a.late(tx, m)
		c.conclude(513, tooLargeAnswer(size), record.Tandem)
		return
	}
	c.state = answered
	c.rec.Status = m.Status()
	c.rec.Answer = now.UTC()
	if c.rec.Progress.IsZero() {
		e.m.progress(c, now)
	}
	c.times = [numTimes]time.Time{}
	if d := e.cfg.Timers.MaxDuration; d > 0 {
		if c.dec.Emergency {
			d = max(d, leastEmergency)
		}
		c.at(atMax, now.Add(d))
	}
	if d := e.cfg.Timers.ProbeEvery; d > 0 {
		c.at(atProbe, now.Add(d))
	}
	c.session(m, now)
	if err := c.srv.RespondReliably(res); err != nil {
		e.m.sendFailed.Inc()
		c.log().Debug("SIP response not sent", "error", err)
	}
	near.group.m.sent(sip.INVITE, m.Status())
	c.ackAtOnce(m)
	c.forks, c.order, c.quit = nil, nil, nil
	c.arm()
}

// nearInvite is the call as the handler of the near INVITE's transaction.
type nearInvite call

// Cancel implements [transaction.ServerHandler].
func (n *nearInvite) Cancel(_ *transaction.Server, m *sip.Message) {
	c := (*call)(n)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state >= answered {
		return
	}
	c.finish(finish{by: record.Near, status: 487, cancel: m, text: "cancelled by the calling side"})
}

// Ack implements [transaction.ServerHandler].
func (n *nearInvite) Ack(tx *transaction.Server, m *sip.Message) {
	c := (*call)(n)
	c.mu.Lock()
	defer c.mu.Unlock()
	tx.Handle(nil)
	if c.state == answered && !c.far.acked {
		c.ackFar(m)
	}
	c.acked()
}

// acked records that the near 2xx has been acknowledged, or that the time for its ACK is up. It sends the BYE that
// waited for this.
func (c *call) acked() {
	c.srv, c.invite = nil, nil
	if f := c.held; f != nil {
		c.held = nil
		c.hangUp(&c.near, *f)
	}
}

// Failed implements [transaction.ServerHandler].
func (n *nearInvite) Failed(_ *transaction.Server, err error) {
	c := (*call)(n)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state >= answered {
		c.acked()
	}
	switch {
	case c.state == over:
	case errors.Is(err, transaction.ErrNoAck):
		c.finish(finish{by: record.Tandem, text: "the calling side never acknowledged the answer",
			cause: causeRecoveryOnTimerExpiry})
	default:
		c.finish(finish{by: record.Tandem, text: "the calling side can no longer be reached",
			cause: causeDestinationOutOfOrder})
	}
}

// ackAtOnce acknowledges the far 2xx without waiting for the near side's ACK, unless that must carry the answer to an
// offer in the 2xx (RFC 3261 §13.2.2.4) or the name in Contact is not resolved yet. See
// docs/decisions/0011-ack-at-once.md.
func (c *call) ackAtOnce(m *sip.Message) {
	s := c.far
	if s.acked || !leg.HasSDP(c.invite) && leg.HasSDP(m) {
		return
	}
	if s.where(c.e); !s.vague {
		c.ackFar(nil)
	}
}

// ackFar acknowledges the far 2xx, with the lines and body of the near ACK if that has arrived.
func (c *call) ackFar(src *sip.Message) {
	s, a := c.far, c.try
	s.acked = true
	m := c.ackFor(s, a.seq, src)
	if err := a.tx.Ack(m, s.where(c.e)); err != nil {
		c.e.m.sendFailed.Inc()
		c.log().Debug("ACK not sent", "error", err)
	}
}

// failure handles 300 to 699. On 408, 503 and 504, and as long as only 100 has arrived, the next peer gets the call
// (gateway-calls §11) and the response counts as a failure of the peer; after another provisional response, 408 and 504
// may come from a party behind the peer, and only 503 counts.
func (c *call) failure(a *attempt, m *sip.Message, now time.Time) {
	status := m.Status()
	peer := a.addr.peer
	t := &c.rec.Tried[a.tried]
	t.Status, t.Result = status, "refused"
	unable := c.state == trying && (status == 408 || status == 503 || status == 504)
	switch {
	case status == 503:
		a.addr.bad(now, "503 to INVITE", retryAfter(m), c.e.log)
	case unable:
		a.addr.bad(now, fmt.Sprintf("%d to INVITE", status), 0, c.e.log)
	default:
		a.good(now)
	}
	if unable && c.next < len(c.order) {
		peer.group.m.failover(strconv.Itoa(status))
		c.last = lastWord{status: status, msg: m}
		a.release()
		c.proceed(now)
		return
	}
	c.relayFinal(m)
}

// relayFinal relays a failure to the near side.
func (c *call) relayFinal(m *sip.Message) {
	status := m.Status()
	peer := "the peer"
	if c.try != nil && c.try.addr != nil {
		peer = "peer " + c.try.addr.peer.cfg.Name
	}
	switch {
	case status < 400:
		c.conclude(480, fmt.Sprintf("%s redirected the call (%d); redirects are not followed", peer, status),
			record.Far)
	case status == 401 || status == 407:
		c.conclude(500, fmt.Sprintf("%s requires credentials (%d); none are configured", peer, status),
			record.Far)
	default:
		res := c.response(&c.near, c.invite, m, status, c.near.base)
		if status == 503 {
			res.Remove(sip.KindRetryAfter) // it is about the far side; the near side would apply it to us
		}
		_, cause, text := sip.ReasonCause(m.Get(sip.KindReason))
		c.finish(finish{by: record.Far, res: res, text: cmp.Or(text, m.Reason()), cause: cause})
	}
}

// conclude ends an unanswered call, whose far INVITE is not in progress, with a response of our own.
func (c *call) conclude(status int, text string, by record.Party) {
	res := c.own(&c.near, c.invite, status, c.near.base, text)
	c.log().Info("call failed", "group", c.near.group.cfg.Name, "caller", c.dec.Caller, "called",
		domain.Dialled(c.rec.Called), "status", status, "reason", domain.Text(text))
	c.finish(finish{by: by, res: res, text: text})
}

// drop removes an unanswered call from the tables.
func (c *call) drop() {
	c.e.calls.remove(c.near.base)
	if c.far != nil {
		c.e.calls.remove(c.far.base)
	}
	if c.try != nil {
		c.try.release()
	}
}

// abandonSetup ends a call during setup: it answers the near INVITE, and cancels the far one if that is in progress.
func (c *call) abandonSetup(f finish) {
	res := f.res
	if res == nil {
		text := ""
		if f.by == record.Tandem {
			text = f.text
		}
		res = c.own(&c.near, c.invite, cmp.Or(f.status, 503), c.near.base, text)
		if f.cause != 0 {
			res.Add(sip.KindReason, sip.ReasonValue("Q.850", f.cause, ""))
		}
	}
	c.rec.Status = res.Status()
	c.e.respond(c.srv, res)
	c.srv.Handle(nil)
	c.near.group.m.sent(sip.INVITE, c.rec.Status)
	if a := c.try; f.res == nil && a != nil && a.tx != nil {
		var lines []sip.Header
		if f.cancel != nil {
			for i := range f.cancel.Len() {
				if h := f.cancel.At(i); h.Kind() == sip.KindReason {
					lines = append(lines, h)
				}
			}
		} else if f.cause != 0 {
			lines = append(lines, sip.Line(sip.KindReason, sip.ReasonValue("Q.850", f.cause, f.text)))
		}
		_ = a.tx.Cancel(lines...) // an error means that the final response has arrived; a 2xx gets ACK and BYE
		if t := &c.rec.Tried[a.tried]; t.Result == "open" {
			t.Result = "canceled"
		}
	}
	c.drop()
}

// retryAfter returns the value of Retry-After; 0 if there is none.
func retryAfter(m *sip.Message) time.Duration {
	v := m.Get(sip.KindRetryAfter)
	i := 0
	for i < len(v) && v[i] >= '0' && v[i] <= '9' && i < 7 {
		i++
	}
	n, _ := strconv.Atoi(v[:i])
	return time.Duration(n) * time.Second
}
