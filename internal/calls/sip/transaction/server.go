package transaction

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/calls/sip/transport"
)

// ServerHandler receives what happens to a request after [User].Request. The package comment says how its methods are
// called.
type ServerHandler interface {
	// Cancel is called when the far side cancels the INVITE; the layer has answered the CANCEL with 200. The user
	// should answer the INVITE with 487. It is called at most once, and not after a final response.
	Cancel(tx *Server, cancel *sip.Message)
	// Ack is called when the far side acknowledges a 2xx sent with [Server.RespondReliably]. It is called at most once.
	Ack(tx *Server, ack *sip.Message)
	// Failed is called when our final response to an INVITE was never acknowledged ([ErrNoAck]) or a response could not
	// be delivered (*[transport.ConnError]). It is called at most once.
	Failed(tx *Server, err error)
}

type serverState uint8

const (
	waiting    serverState = iota // Trying, or Proceeding: no final response yet
	sAccepted                     // INVITE: we sent a 2xx (RFC 6026 §7.1)
	sCompleted                    // we sent another final response
	confirmed                     // INVITE: and received its ACK
	sEnded
)

// Server is a server transaction (RFC 3261 §17.2, RFC 6026).
//
//	             2xx (INVITE)                 L
//	waiting ───────────────────▶ accepted ─────────▶ ended
//	   │ other final               H: Failed, J        ▲
//	   └──────────▶ completed ─────────────────────────┤
//	                    │ ACK (INVITE)           I     │
//	                    └─────────▶ confirmed ─────────┘
type Server struct {
	layer *Layer
	key   key
	flow  transport.Flow

	mu        sync.Mutex // guards the fields below
	state     serverState
	invite    bool
	hasMerged bool
	hasAck    bool // mergedKey, ackKey are in the tables
	cancelled bool
	status    int16
	interval  time.Duration
	again     time.Duration // when to repeat the response, or to send 100; 0: never
	until     time.Duration // when the state ends; 0: never
	h         ServerHandler
	t         timer
	box       box
	tag       string
	req       *sip.Message
	wire      []byte // the latest response, to repeat
	mergedKey uint64
	ackKey    uint64
}

// Flow returns the flow of the request, for use as [transport.Target].Prefer.
func (s *Server) Flow() transport.Flow { return s.flow }

// Handle sets the handler for later events. Without one the layer answers a cancelled INVITE with 487 by itself.
func (s *Server) Handle(h ServerHandler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.h = h
}

// Tag returns the To tag of this transaction's responses; the first call makes it. A user with tags of its own need not
// use it: the tag of the first response that carries one is adopted.
func (s *Server) Tag() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tagLocked()
}

func (s *Server) tagLocked() string {
	if s.tag == "" {
		s.tag = s.layer.cfg.NewTag()
	}
	return s.tag
}

// Respond sends a response, provisional or final. After the final one it returns [ErrDone] and sends nothing. Any other
// error means that the response could not be sent now; a final response counts as sent nevertheless, and is repeated
// according to the rules.
//
// A 2xx to an INVITE is sent once: the user must retransmit it (RFC 6026 §7.1), or use [Server.RespondReliably].
func (s *Server) Respond(res *sip.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.respond(res, false)
}

// RespondReliably sends a 2xx to an INVITE and repeats it until its ACK arrives, which is passed to the handler's Ack;
// without one, Failed is called with [ErrNoAck] after 64×T1 (RFC 3261 §13.3.1.4). It does so over TCP and TLS too,
// because the ACK is end to end. Other responses are sent as by Respond.
func (s *Server) RespondReliably(res *sip.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.respond(res, s.invite && res.Status()/100 == 2)
}

// Drop ends a transaction without a final response, for a far side that is to get no answer. If the request is repeated
// it is a new one.
func (s *Server) Drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == waiting {
		s.end()
	}
}

// Trying sends 100 at once, for users that know that the response will take a while.
func (s *Server) Trying() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != waiting || s.req == nil {
		return ErrDone
	}
	if s.status != 0 {
		return nil
	}
	return s.respond(sip.NewResponse(s.req, 100, "", ""), false)
}

// respond implements Respond and RespondReliably. s.mu is held.
func (s *Server) respond(res *sip.Message, reliably bool) error {
	l := s.layer
	status := res.Status()
	switch {
	case status < 100 || status > 699:
		return fmt.Errorf("respond with status %d: not a response", status)
	case s.state != waiting:
		return ErrDone
	case l.closed.Load():
		return ErrClosed
	}
	if tag := res.ToTag(); tag != "" {
		s.tag = tag
	}
	s.status = int16(status)
	if reliably {
		s.awaitAck() // before sending: the ACK may arrive before Reply returns
	}
	keep := status < 200 || reliably || !s.invite || status >= 300
	var err error
	if keep {
		s.wire = res.Bytes()
		err = l.tp.Reply(s.wire, s.flow, s.waiter(status))
	} else {
		s.wire = nil
		buf := buffers.Get().(*[]byte)
		*buf = res.AppendTo((*buf)[:0])
		err = l.tp.Reply(*buf, s.flow, s.waiter(status))
		buffers.Put(buf)
	}
	if err != nil {
		l.m.SendFailed.Add(1)
	}
	if status < 200 {
		if s.invite {
			s.again = 0 // the automatic 100 is not needed any more
			s.schedule()
		}
		return err
	}
	s.final(status, reliably)
	return err
}

// waiter returns the Waiter to call if a final response cannot be delivered over a new connection.
func (s *Server) waiter(status int) transport.Waiter {
	if status < 200 || s.h == nil {
		return nil
	}
	return s
}

// final enters the state after a final response. s.mu is held.
func (s *Server) final(status int, reliably bool) {
	l := s.layer
	now := l.wheel.now()
	unreliable := !s.flow.Proto().Reliable()
	l.pending.Add(-1)
	s.again = 0
	if status >= 300 {
		s.dropMerged() // a proxy that forks sequentially tries its next branch now
	}
	switch {
	case s.invite && status < 300:
		s.state = sAccepted
		s.until = now + 64*l.cfg.T1 // timer L
		if reliably {
			s.interval = l.cfg.T1
			s.again = now + s.interval
		}
	case s.invite:
		s.state = sCompleted
		s.until = now + 64*l.cfg.T1 // timer H
		if unreliable {
			s.interval = l.cfg.T1
			s.again = now + s.interval // timer G
		}
	case unreliable:
		s.state = sCompleted
		s.until = now + 64*l.cfg.T1 // timer J
		s.h = nil
	default:
		s.state = sCompleted
		s.end() // timer J is 0
		return
	}
	s.req = nil
	if s.invite {
		s.tag = strings.Clone(s.tag) // for the response to a CANCEL; does not keep its message alive
	} else {
		s.tag = ""
	}
	s.schedule()
}

// awaitAck adds the transaction to the table of those that wait for the ACK of their 2xx. s.mu is held.
func (s *Server) awaitAck() {
	l := s.layer
	cs, _ := s.req.CSeq() // checked on receipt
	s.ackKey, s.hasAck = l.ackKey(s.req.CallID(), s.req.FromTag(), s.tag, cs.Seq), true
	t := l.half(s.ackKey)
	t.mu.Lock()
	t.acks[s.ackKey] = s
	t.mu.Unlock()
}

// schedule sets the timer to the earlier of both times. s.mu is held.
func (s *Server) schedule() { s.layer.wheel.plan(&s.t, s.until, s.again) }

// expire is called by the wheel.
func (s *Server) expire() {
	l := s.layer
	if l.closed.Load() {
		return
	}
	s.mu.Lock()
	now := l.wheel.now()
	switch {
	case s.state == sEnded:
	case s.until != 0 && now >= s.until:
		unacked := s.invite && (s.state == sCompleted || s.state == sAccepted && s.again != 0)
		s.endKeeping()
		if unacked {
			l.m.Timeouts.Add(1)
			s.post(event{kind: evFailed, err: ErrNoAck})
			return
		}
	case s.again != 0 && now >= s.again:
		s.repeat(now)
	default:
		s.schedule() // it was moved while it was firing
	}
	s.mu.Unlock()
}

// repeat handles timer G, the repetition of a 2xx, and the automatic 100. s.mu is held.
func (s *Server) repeat(now time.Duration) {
	l := s.layer
	if s.state == waiting {
		s.again = 0
		l.m.AutoTrying.Add(1)
		_ = s.respond(sip.NewResponse(s.req, 100, "", ""), false) // counted; the client repeats its INVITE
		return
	}
	l.m.Retransmissions.Add(1)
	if err := l.tp.Reply(s.wire, s.flow, nil); err != nil {
		l.m.SendFailed.Add(1)
	}
	s.interval = min(2*s.interval, l.cfg.T2)
	s.again = now + s.interval
	s.schedule()
}

// SendFailed implements transport.Waiter: a final response could not be delivered.
func (s *Server) SendFailed(err error) {
	if s.layer.closed.Load() {
		return
	}
	s.mu.Lock()
	if s.state == sEnded || s.again != 0 && s.state == sAccepted {
		// The 2xx will be repeated anyway.
		s.mu.Unlock()
		return
	}
	s.endKeeping()
	s.post(event{kind: evFailed, err: err})
}

// endKeeping is end, but keeps the handler for a last callback. s.mu is held.
func (s *Server) endKeeping() {
	h := s.h
	s.end()
	s.h = h
}

// end removes the transaction from the tables. s.mu is held.
func (s *Server) end() {
	l := s.layer
	if s.state == sEnded {
		return
	}
	if s.state == waiting {
		l.pending.Add(-1)
	}
	s.state = sEnded
	s.req, s.wire, s.h = nil, nil, nil
	l.wheel.clear(&s.t)
	s.dropMerged()
	if s.hasAck {
		t := l.half(s.ackKey)
		t.mu.Lock()
		if t.acks[s.ackKey] == s {
			delete(t.acks, s.ackKey)
		}
		t.mu.Unlock()
	}
	t := l.at(s.key)
	t.mu.Lock()
	delete(t.servers, s.key)
	t.mu.Unlock()
	l.live.Add(-1)
}

func (s *Server) dropMerged() {
	if !s.hasMerged {
		return
	}
	s.hasMerged = false
	t := s.layer.half(s.mergedKey)
	t.mu.Lock()
	if t.merged[s.mergedKey] == s {
		delete(t.merged, s.mergedKey)
	}
	t.mu.Unlock()
}

func (l *Layer) ackKey(callID, remoteTag, localTag string, seq uint32) uint64 {
	return l.hash(l.seed1, "ack", callID, remoteTag, localTag, strconv.Itoa(int(seq)))
}

// serverKey returns the key by which a request is matched (RFC 3261 §17.2.3), with the given method in place of its
// own. A branch without the magic cookie is from an RFC 2543 client: then the Request-URI, From tag, Call-ID, CSeq and
// the whole top Via count. The To tag does not: the ACK has one and the INVITE has none, and it distinguishes nothing
// else.
func (l *Layer) serverKey(m *sip.Message, v sip.Via, method sip.Method, seq uint32) key {
	branch := v.Branch()
	if len(branch) > len(sip.BranchMagic) && branch[:len(sip.BranchMagic)] == sip.BranchMagic {
		// Host names are case-insensitive, but a client repeats its own Via unchanged.
		return l.key(branch, v.Host, strconv.Itoa(v.Port), string(method))
	}
	return l.key("2543", m.RequestURI(), m.FromTag(), m.CallID(), strconv.Itoa(int(seq)),
		m.First(sip.KindVia), string(method))
}

// request handles a request that passed all checks.
func (l *Layer) request(m *sip.Message, f transport.Flow) {
	v, err := m.TopVia()
	cs, err2 := m.CSeq()
	if err != nil || err2 != nil {
		l.m.Discarded.Add(1) // the validator accepted it, so there is no explanation to give
		return
	}
	switch m.Method() {
	case sip.ACK:
		l.ack(m, v, cs.Seq, f)
	case sip.CANCEL:
		l.cancelRequest(m, v, cs.Seq, f)
	default:
		l.open(m, v, cs, f)
	}
}

// open finds the transaction of a request, or starts one.
func (l *Layer) open(m *sip.Message, v sip.Via, cs sip.CSeq, f transport.Flow) {
	k := l.serverKey(m, v, m.Method(), cs.Seq)
	t := l.at(k)
	t.mu.Lock()
	old := t.servers[k]
	t.mu.Unlock()
	if old != nil {
		old.repeated()
		return
	}
	inDialog := m.ToTag() != ""
	if l.overloaded(m, f, inDialog) {
		return
	}
	s := &Server{layer: l, key: k, flow: f, invite: m.Method() == sip.INVITE, req: m}
	s.t.owner = s
	s.box.queue = &noEvents // other events wait until Request returns
	if !inDialog && !l.fileMerged(s, m, cs) {
		l.m.Merged.Add(1)
		res := sip.NewResponse(m, 482, "", l.cfg.NewTag())
		res.Add(sip.KindWarning, sip.Warning(399, agent,
			"merged request: it has already arrived by another path (RFC 3261 section 8.2.2.2)"))
		l.Reply(res, f)
		return
	}
	t.mu.Lock()
	if old = t.servers[k]; old == nil {
		t.servers[k] = s
	}
	t.mu.Unlock()
	if old != nil { // it arrived on two flows at the same moment
		s.dropMerged()
		old.repeated()
		return
	}
	l.live.Add(1)
	l.pending.Add(1)
	l.m.Servers.Add(1)
	if s.invite {
		s.mu.Lock()
		if s.state == waiting && s.status == 0 {
			s.again = l.wheel.now() + trying
			s.schedule()
		}
		s.mu.Unlock()
	}
	s.deliver(event{kind: evRequest, msg: m})
}

// fileMerged adds a request outside a dialog to the table of requests that may be merged. It returns false if a copy
// that arrived by another path is there. The user part of the Request-URI counts: a gateway's address serves many user
// agents, and a proxy may fork one request to two of them. The host does not: two paths may use different names of
// ours.
func (l *Layer) fileMerged(s *Server, m *sip.Message, cs sip.CSeq) bool {
	callee := m.RequestURI()
	if u, err := m.RURI(); err == nil && u.User != "" {
		callee = u.User
	}
	k := l.hash(l.seed1, "merged", callee, m.FromTag(), m.CallID(), strconv.Itoa(int(cs.Seq)), string(cs.Method))
	t := l.half(k)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.merged[k] != nil {
		return false
	}
	t.merged[k] = s
	s.mergedKey, s.hasMerged = k, true
	return true
}

// repeated handles a retransmission of the request.
func (s *Server) repeated() {
	l := s.layer
	l.m.Absorbed.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	// It is absorbed in accepted and confirmed (RFC 6026 §7.1, RFC 3261 §17.2.1); before the first response there is
	// nothing to repeat.
	if s.wire == nil || s.state == sAccepted || s.state == confirmed || s.state == sEnded {
		return
	}
	if err := l.tp.Reply(s.wire, s.flow, nil); err != nil {
		l.m.SendFailed.Add(1)
	}
}

// inviteOf returns the transaction of the INVITE to which an ACK or CANCEL may belong, nil if there is none.
func (l *Layer) inviteOf(m *sip.Message, v sip.Via, seq uint32) *Server {
	k := l.serverKey(m, v, sip.INVITE, seq)
	t := l.at(k)
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.servers[k]
}

// ack handles an ACK: of an INVITE's non-2xx final response (§17.2.3), of a 2xx that waits for it, or of neither.
func (l *Layer) ack(m *sip.Message, v sip.Via, seq uint32, f transport.Flow) {
	s := l.inviteOf(m, v, seq)
	if s != nil && s.confirm() {
		return
	}
	ak := l.ackKey(m.CallID(), m.FromTag(), m.ToTag(), seq)
	t := l.half(ak)
	t.mu.Lock()
	s = t.acks[ak]
	t.mu.Unlock()
	if s == nil {
		l.m.UnmatchedAcks.Add(1)
		func() {
			defer l.recovered()
			l.user.Ack(m, f)
		}()
		return
	}
	s.mu.Lock()
	if s.state != sAccepted || s.again == 0 {
		s.mu.Unlock()
		l.m.Absorbed.Add(1)
		return
	}
	s.again, s.wire = 0, nil // it is no longer repeated
	s.schedule()
	s.post(event{kind: evAck, msg: m})
}

// confirm handles the ACK of a non-2xx final response. It returns false if the transaction has none to acknowledge.
func (s *Server) confirm() bool {
	l := s.layer
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.invite:
		return false
	case s.state == confirmed:
		l.m.Absorbed.Add(1)
		return true
	case s.state != sCompleted:
		// An ACK that uses the INVITE's branch for a 2xx is wrong but common.
		return s.state == waiting
	}
	s.state = confirmed
	s.wire, s.h = nil, nil
	s.again = 0
	if s.flow.Proto().Reliable() {
		s.end() // timer I is 0
		return true
	}
	s.until = l.wheel.now() + l.cfg.T4 // timer I
	s.schedule()
	return true
}

// cancelRequest answers a CANCEL (RFC 3261 §9.2). It needs no transaction: the same CANCEL gets the same response.
func (l *Layer) cancelRequest(m *sip.Message, v sip.Via, seq uint32, f transport.Flow) {
	s := l.inviteOf(m, v, seq)
	if s == nil {
		l.m.StrayCancels.Add(1)
		l.Reply(sip.NewResponse(m, 481, "", l.cfg.NewTag()), f)
		return
	}
	s.mu.Lock()
	tag := s.tagLocked()
	tell := s.state == waiting && !s.cancelled
	s.cancelled = s.cancelled || tell
	s.mu.Unlock()
	l.Reply(sip.NewResponse(m, 200, "", tag), f)
	if !tell {
		return
	}
	s.mu.Lock()
	s.post(event{kind: evCancel, msg: m})
}

// post makes the callback for e now or leaves it to the goroutine that is making callbacks. s.mu is held on entry and
// released on return.
func (s *Server) post(e event) {
	mine := s.box.put(e)
	s.mu.Unlock()
	if mine {
		s.deliver(e)
	}
}

// deliver makes callbacks until there are no more. The caller has the box's turn.
func (s *Server) deliver(e event) {
	for mine := true; mine; {
		s.call(e)
		s.mu.Lock()
		e, mine = s.box.next()
		s.mu.Unlock()
	}
}

func (s *Server) call(e event) {
	if e.kind == evRequest {
		s.request(e.msg)
		return
	}
	defer s.layer.recovered()
	s.mu.Lock()
	h := s.h
	if e.kind == evAck {
		s.h = nil // it was the last event; do not keep a call alive for timer L
	}
	if h == nil && e.kind == evCancel && s.state == waiting {
		_ = s.respond(sip.NewResponse(s.req, 487, "", s.tagLocked()), false) // counted
	}
	s.mu.Unlock()
	if h == nil {
		return
	}
	switch e.kind {
	case evCancel:
		h.Cancel(s, e.msg)
	case evAck:
		h.Ack(s, e.msg)
	case evFailed:
		h.Failed(s, e.err)
	}
}

// request passes the request to the user. If the user panics, the layer answers the request: otherwise the transaction
// would stay forever.
func (s *Server) request(m *sip.Message) {
	fine := false
	defer func() {
		if !fine {
			_ = s.Respond(sip.NewResponse(m, 500, "", s.Tag())) // counted; ErrDone if the user had answered
		}
	}()
	defer s.layer.recovered()
	s.layer.user.Request(s, m)
	fine = true
}
