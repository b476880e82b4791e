package transaction

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/calls/sip/transport"
)

// ClientHandler receives the outcome of a request. The package comment says how its methods are called.
type ClientHandler interface {
	// Response gets every provisional response, including repeated ones, and the final response: for a request other
	// than INVITE once; for an INVITE every 2xx, those of several forks and repeated ones too, until the user has
	// acknowledged that fork's with [Client.Ack]. A final response other than 2xx to an INVITE is passed once and
	// acknowledged by the layer.
	Response(tx *Client, res *sip.Message)
	// Failed reports that there will be no final response: [ErrTimeout], or a *[transport.ConnError]. It is called at
	// most once, and never after a final response.
	Failed(tx *Client, err error)
}

type clientState uint8

const (
	calling    clientState = iota // INVITE sent / Trying: no response yet
	proceeding                    // a provisional response arrived
	completed                     // a final response arrived; repeated ones are absorbed
	accepted                      // INVITE: a 2xx arrived; more may follow (RFC 6026 §7.2)
	terminated
)

// Client is a client transaction (RFC 3261 §17.1, RFC 6026).
//
//	                 1xx                2xx (INVITE)              M
//	calling ──────────────▶ proceeding ─────────────▶ accepted ──────▶ terminated
//	   │  └── 2xx … 699 ───────┐ │ final                                   ▲
//	   │                       ▼ ▼                      D (INVITE), K      │
//	   │                      completed ───────────────────────────────────┤
//	   └── B or F fires, connection lost: Failed ──────────────────────────┘
type Client struct {
	layer  *Layer
	branch string

	mu sync.Mutex // guards the fields below
	*work
	state    clientState
	cancel   cancelState
	invite   bool
	isCancel bool  // a CANCEL, made by the layer
	retried  bool  // sent again after its connection was lost
	large    bool  // over TCP only because it is too large for UDP
	stopped  bool  // Abandon was called
	status   int16 // of the latest response
	h        ClientHandler
	box      box
	t        timer
	flow     transport.Flow
	again    time.Duration // when to retransmit; 0: never
	until    time.Duration // when the state ends; 0: never
	acks     []sentAck
}

// work holds what a transaction needs only while it has something to send. Most transactions held only absorb
// retransmissions, for half a minute: they must be small.
type work struct {
	req      *sip.Message
	wire     []byte // what to retransmit: the request, later the ACK
	target   transport.Target
	small    *transport.Endpoint // the UDP endpoint to fall back to, if large
	interval time.Duration
	why      []sip.Header // extra lines of the CANCEL to be sent
}

type cancelState uint8

const (
	noCancel   cancelState = iota
	wantCancel             // as soon as a provisional response arrives
	cancelSent
)

// sentAck is the user's ACK for one fork's 2xx.
type sentAck struct {
	tag  string
	wire []byte
	from *transport.Endpoint
	addr netip.AddrPort
	full *transport.Target // nil for UDP, where endpoint and address are enough
}

func (a *sentAck) target() transport.Target {
	if a.full != nil {
		return *a.full
	}
	return transport.Target{From: a.from, Addr: a.addr}
}

// Send sends a request of any method but ACK and CANCEL in a new client transaction. The layer adds the Via on top and
// owns req from then on: the caller must not change it. h must not be nil. An error means that nothing was sent and
// that h will not be called; otherwise h may be called before Send has returned. No callback is made from inside Send
// or any other method.
func (l *Layer) Send(req *sip.Message, t transport.Target, h ClientHandler) (*Client, error) {
	return l.SendWith(req, t, h, false)
}

// SendWith is [Layer.Send]; an urgent request may use the room above MaxTransactions.
func (l *Layer) SendWith(req *sip.Message, t transport.Target, h ClientHandler, urgent bool) (*Client, error) {
	switch {
	case req.Method() == sip.ACK || req.Method() == sip.CANCEL || !req.IsRequest():
		return nil, fmt.Errorf("send %s: not a request with a transaction of its own", req.Method())
	case t.From == nil:
		return nil, errors.New("send SIP request: the target names no endpoint")
	case l.closed.Load():
		return nil, ErrClosed
	}
	bound := int64(l.cfg.MaxTransactions)
	if req.ToTag() != "" || urgent {
		bound = withSpare(bound)
	}
	if l.live.Load() >= bound {
		l.m.Overload.Add(1)
		return nil, ErrOverload
	}
	c := &Client{layer: l, h: h, branch: sip.NewBranch(), invite: req.Method() == sip.INVITE,
		work: &work{req: req, target: t}}
	c.t.owner = c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.begin(); err != nil {
		return nil, err
	}
	return c, nil
}

// begin adds the transaction to the table and sends the request. c.mu is held.
func (c *Client) begin() error {
	l := c.layer
	c.req.Prepend(sip.KindVia, c.target.Via(c.branch))
	c.wire = c.req.Bytes()
	if large := c.target.From.Large(); len(c.wire) > transport.MaxDatagram && large != nil &&
		!l.refusesLarge(c.target) {
		// RFC 3261 §18.1.1: a request that may exceed the path MTU goes over TCP, with a Via for TCP; if TCP is
		// unavailable it goes over UDP after all.
		c.large, c.small = true, c.target.From
		c.encodeFor(large)
	}
	t := l.ofBranch(c.branch)
	t.mu.Lock()
	if c.isCancel {
		t.cancels[c.branch] = c
	} else {
		t.clients[c.branch] = c
	}
	t.mu.Unlock()
	l.live.Add(1)
	l.pending.Add(1)
	l.m.Clients.Add(1)
	err := c.send()
	if err != nil && c.large {
		err = c.fallBack()
	}
	if err != nil {
		l.m.SendFailed.Add(1)
		c.end()
		return err
	}
	c.arm()
	return nil
}

// encodeFor changes the request's endpoint, and its Via accordingly. c.mu is held.
func (c *Client) encodeFor(ep *transport.Endpoint) {
	c.target.From = ep
	if i := c.req.Find(sip.KindVia); i >= 0 {
		c.req.SetAt(i, c.target.Via(c.branch))
	}
	c.wire = c.req.Bytes()
}

// send passes the request to the transport. c.mu is held.
func (c *Client) send() error {
	f, err := c.layer.tp.Send(c.wire, c.target, c)
	if err == nil {
		c.flow = f
	}
	return err
}

// arm sets the timers of a request just sent for the first time: A and B, or E and F. c.mu is held.
func (c *Client) arm() {
	l := c.layer
	now := l.wheel.now()
	c.until = now + 64*l.cfg.T1
	c.again = 0
	if !c.target.Proto().Reliable() {
		c.interval = l.cfg.T1
		if !c.stopped {
			c.again = now + c.interval
		}
	} else if c.large {
		c.again = now + largePatience
	}
	c.schedule()
}

// largePatience is how long a request that uses TCP only because of its size waits for the connection.
const largePatience = time.Second

// schedule sets the timer to the earlier of both times. c.mu is held.
func (c *Client) schedule() { c.layer.wheel.plan(&c.t, c.until, c.again) }

// Cancel cancels an INVITE (RFC 3261 §9.1), with the given lines, such as Reason, in the CANCEL. The CANCEL is sent
// once a provisional response has arrived. The INVITE still gets its final response, normally 487, or a 2xx that
// crossed the CANCEL; without one, Failed is called 64×T1 after the CANCEL. Cancel returns [ErrDone] if there is a
// final response. A second call does nothing.
func (c *Client) Cancel(lines ...sip.Header) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !c.invite:
		return errors.New("only an INVITE can be cancelled (RFC 3261 §9.1)")
	case c.state > proceeding:
		return ErrDone
	case c.cancel != noCancel:
		return nil
	}
	c.why = lines
	c.cancel = wantCancel
	if c.state == proceeding {
		c.sendCancel()
	}
	return nil
}

// Abandon stops the retransmission of an INVITE to a target that does not answer. Late responses are still passed to
// the handler, until timer B ends the transaction with Failed. After a provisional response Abandon does nothing.
func (c *Client) Abandon() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped = true; c.state == calling {
		c.again = 0
		c.schedule()
	}
}

// sendCancel sends the CANCEL in a transaction of its own, without a handler. c.mu is held.
func (c *Client) sendCancel() {
	l := c.layer
	c.cancel = cancelSent
	req := sip.NewCancel(c.req)
	req.Remove(sip.KindVia) // begin adds the same one
	for _, h := range c.why {
		req.Append(h)
	}
	k := &Client{layer: l, branch: c.branch, isCancel: true, work: &work{req: req, target: c.sameWay()}}
	k.t.owner = k
	k.mu.Lock()
	if err := k.begin(); err != nil {
		l.log.Warn("CANCEL not sent", "target", c.target.String(), "call_id", req.CallID(), "err", err)
	}
	k.mu.Unlock()
	c.until = l.wheel.now() + 64*l.cfg.T1 // RFC 3261 §9.1: then it counts as cancelled
	c.schedule()
}

// sameWay returns the target for messages that must take the same path as the request. c.mu is held.
func (c *Client) sameWay() transport.Target {
	t := c.target
	t.Prefer = c.flow
	return t
}

// Ack sends the user's ACK for a 2xx to t, with a Via of its own, and remembers it: when the same fork's 2xx is
// repeated, the layer sends the ACK again without calling the user. The layer owns ack from then on.
func (c *Client) Ack(ack *sip.Message, t transport.Target) error {
	if t.From == nil {
		return errors.New("send ACK: the target names no endpoint")
	}
	ack.Prepend(sip.KindVia, t.Via(sip.NewBranch()))
	a := sentAck{tag: strings.Clone(ack.ToTag()), wire: ack.Bytes(), from: t.From, addr: t.Addr}
	if t.Proto().Reliable() || !t.Addr.IsValid() {
		a.full = &t
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == accepted {
		if i := c.ackOf(a.tag); i >= 0 {
			c.acks[i] = a
		} else if len(c.acks) < maxForks {
			c.acks = append(c.acks[:len(c.acks):len(c.acks)], a) // normally there is one
		}
	}
	_, err := c.layer.tp.Send(a.wire, t, nil)
	return err
}

// maxForks bounds the ACKs remembered for one INVITE.
const maxForks = 16

func (c *Client) ackOf(tag string) int {
	return slices.IndexFunc(c.acks, func(a sentAck) bool { return a.tag == tag })
}

// response matches a response with its transaction (RFC 3261 §17.1.3).
func (l *Layer) response(m *sip.Message, f transport.Flow) {
	v, err := m.TopVia()
	cs, err2 := m.CSeq()
	if err != nil || err2 != nil {
		l.m.Discarded.Add(1)
		return
	}
	branch := v.Branch()
	t := l.ofBranch(branch)
	t.mu.Lock()
	c := t.clients[branch]
	if cs.Method == sip.CANCEL {
		c = t.cancels[branch]
	}
	t.mu.Unlock()
	if c == nil || m.Count(sip.KindVia) != 1 || strings.IndexByte(m.Get(sip.KindVia), ',') >= 0 {
		// It matches no transaction, or has several Vias, so it is not for us (§8.1.3.3).
		l.m.StrayResponses.Add(1)
		return
	}
	c.receive(m, f, cs.Method)
}

func (c *Client) receive(m *sip.Message, f transport.Flow, method sip.Method) {
	l := c.layer
	c.mu.Lock()
	if c.work != nil && c.req != nil && c.req.Method() != method {
		c.mu.Unlock()
		l.m.StrayResponses.Add(1)
		return
	}
	status := m.Status()
	switch {
	case c.state == terminated:
		c.mu.Unlock()
		l.m.StrayResponses.Add(1)
		return
	case c.state == completed:
		c.mu.Unlock()
		c.absorb(status)
		return
	case c.state == accepted:
		if status < 200 || status > 299 {
			// A final response of another branch after a 2xx: absorbed (RFC 6026 §7.2).
			c.mu.Unlock()
			l.m.Absorbed.Add(1)
			return
		}
		if i := c.ackOf(m.ToTag()); i >= 0 {
			a := c.acks[i]
			c.mu.Unlock()
			l.m.Absorbed.Add(1)
			if _, err := l.tp.Send(a.wire, a.target(), nil); err != nil {
				l.m.SendFailed.Add(1)
			}
			return
		}
		c.post(event{kind: evResponse, msg: m})
		return
	}
	if c.state == calling {
		l.tp.Forget(c.flow, c)
	}
	c.flow, c.status = f, int16(status)
	switch {
	case status < 200:
		c.provisional()
	case c.invite && status < 300:
		c.succeed()
	case c.invite:
		c.acknowledge(m)
	default:
		c.finish()
	}
	c.post(event{kind: evResponse, msg: m})
}

// provisional handles a 1xx. c.mu is held.
func (c *Client) provisional() {
	first := c.state == calling
	c.state = proceeding
	switch {
	case c.invite && first:
		// §17.1.1.2: no retransmission and no time-out from now on; the user limits how long it may ring.
		c.again, c.until, c.wire = 0, 0, nil
		c.schedule()
		if c.cancel == wantCancel {
			c.sendCancel()
		}
	case !c.invite && c.again != 0:
		c.interval = c.layer.cfg.T2 // §17.1.2.2
	}
}

// succeed handles a 2xx to an INVITE. c.mu is held.
func (c *Client) succeed() {
	l := c.layer
	c.state = accepted
	c.work = nil
	l.pending.Add(-1)
	c.again, c.until = 0, l.wheel.now()+64*l.cfg.T1 // timer M
	c.schedule()
}

// acknowledge handles a final response of 300 to 699 to an INVITE. c.mu is held.
func (c *Client) acknowledge(res *sip.Message) {
	l := c.layer
	ack := sip.NewACK(c.req, res)
	wire := ack.Bytes()
	t := c.sameWay()
	c.work = &work{target: t, wire: wire}
	c.state = completed
	l.pending.Add(-1)
	if _, err := l.tp.Send(wire, t, nil); err != nil {
		l.m.SendFailed.Add(1)
	}
	if t.Proto().Reliable() {
		c.end() // timer D is 0
		return
	}
	c.again, c.until = 0, l.wheel.now()+max(64*l.cfg.T1, 32*time.Second) // timer D: at least 32 s
	c.schedule()
}

// finish handles a final response to a request other than INVITE. c.mu is held.
func (c *Client) finish() {
	l := c.layer
	reliable := c.target.Proto().Reliable()
	c.work = nil
	c.state = completed
	l.pending.Add(-1)
	if reliable {
		c.end() // timer K is 0
		return
	}
	c.again, c.until = 0, l.wheel.now()+l.cfg.T4 // timer K
	c.schedule()
}

// absorb handles a repeated final response.
func (c *Client) absorb(status int) {
	l := c.layer
	l.m.Absorbed.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.invite && status >= 300 && c.work != nil && c.state == completed {
		if _, err := l.tp.Send(c.wire, c.target, nil); err != nil {
			l.m.SendFailed.Add(1)
		}
	}
}

// expire is called by the wheel.
func (c *Client) expire() {
	l := c.layer
	if l.closed.Load() {
		return
	}
	c.mu.Lock()
	now := l.wheel.now()
	switch {
	case c.state == terminated:
	case c.until != 0 && now >= c.until:
		if c.state == calling || c.state == proceeding {
			l.m.Timeouts.Add(1)
			c.fail(ErrTimeout)
			return
		}
		c.end()
	case c.again != 0 && now >= c.again:
		if c.retransmit(now) {
			return
		}
	default:
		c.schedule() // it was moved while it was firing
	}
	c.mu.Unlock()
}

// retransmit handles timer A or E. It returns true if it released c.mu. c.mu is held on entry.
func (c *Client) retransmit(now time.Duration) bool {
	l := c.layer
	if c.large {
		// The TCP connection is not open yet.
		if c.state != calling || c.flow.Established() {
			c.again = 0
			c.schedule()
			return false
		}
		l.tp.Forget(c.flow, c)
		if err := c.fallBack(); err != nil {
			c.fail(err)
			return true
		}
		c.arm()
		return false
	}
	l.m.Retransmissions.Add(1)
	if err := c.send(); err != nil {
		// The network may be available again before timer B or F.
		l.m.SendFailed.Add(1)
	}
	if c.invite {
		c.interval *= 2 // timer A
	} else if c.state == proceeding {
		c.interval = l.cfg.T2
	} else {
		c.interval = min(2*c.interval, l.cfg.T2) // timer E
	}
	c.again = now + c.interval
	c.schedule()
	return false
}

// SendFailed implements transport.Waiter: the connection could not be made, or was lost.
func (c *Client) SendFailed(err error) {
	l := c.layer
	if l.closed.Load() {
		return
	}
	c.mu.Lock()
	if c.state != calling {
		// There was a response, so the request arrived; the final response may use another connection (RFC 3261
		// §18.2.2).
		c.mu.Unlock()
		return
	}
	var ce *transport.ConnError
	established := errors.As(err, &ce) && ce.Established
	switch {
	case c.large && !established:
		if ferr := c.fallBack(); ferr != nil {
			c.fail(ferr)
			return
		}
		c.arm()
	case established && !c.retried:
		// An open connection was lost, perhaps before the request arrived. Send the request again over a new one: the
		// branch is the same, so the far side treats it as a retransmission if it has it.
		c.retried = true
		c.target.Prefer = transport.Flow{}
		l.m.Resent.Add(1)
		if serr := c.send(); serr != nil {
			c.fail(serr)
			return
		}
	default:
		c.fail(err)
		return
	}
	c.mu.Unlock()
}

// Unreachable implements transport.Handler: an ICMP error fails the request quoted in it, as long as that has no
// response (RFC 3261 §18.4). The branch, which cannot be guessed, protects against forged errors.
func (l *Layer) Unreachable(sent string, to netip.AddrPort, err error) {
	m, _ := sip.Parse(sent, nil) // normally truncated
	v, verr := m.TopVia()
	if l.closed.Load() || verr != nil || !m.IsRequest() || m.Method() == sip.CANCEL {
		return
	}
	branch := v.Branch()
	t := l.ofBranch(branch)
	t.mu.Lock()
	c := t.clients[branch]
	t.mu.Unlock()
	if c == nil {
		return
	}
	c.mu.Lock()
	if c.state != calling || c.flow.Proto() != transport.UDP || c.flow.Remote() != to {
		c.mu.Unlock()
		return
	}
	c.fail(&transport.ConnError{Proto: transport.UDP, Remote: to, Err: err})
}

// fallBack sends a large request over UDP after all, and remembers for a while that the far side accepts no TCP. c.mu
// is held.
func (c *Client) fallBack() error {
	l := c.layer
	l.m.LargeFallbacks.Add(1)
	l.noteNoLarge(c.target)
	c.large = false
	c.encodeFor(c.small)
	c.small = nil
	return c.send()
}

// fail ends the transaction and tells the user. c.mu is held on entry and released on return.
func (c *Client) fail(err error) {
	c.end()
	c.post(event{kind: evFailed, err: err})
}

// end removes the transaction from the tables. c.mu is held.
func (c *Client) end() {
	l := c.layer
	if c.state == terminated {
		return
	}
	if c.state == calling || c.state == proceeding {
		l.pending.Add(-1)
		l.tp.Forget(c.flow, c)
	}
	c.state = terminated
	c.work = nil
	c.acks = nil
	l.wheel.clear(&c.t)
	t := l.ofBranch(c.branch)
	t.mu.Lock()
	if c.isCancel {
		delete(t.cancels, c.branch)
	} else {
		delete(t.clients, c.branch)
	}
	t.mu.Unlock()
	l.live.Add(-1)
}

// noLargeFor is how long large requests to a far side that accepted no TCP connection go over UDP at once.
const noLargeFor = 5 * time.Minute

func (l *Layer) refusesLarge(t transport.Target) bool {
	l.largeMu.Lock()
	defer l.largeMu.Unlock()
	at, ok := l.noLarge[t.Addr.String()]
	return ok && time.Since(at) < noLargeFor
}

func (l *Layer) noteNoLarge(t transport.Target) {
	l.largeMu.Lock()
	defer l.largeMu.Unlock()
	if len(l.noLarge) >= 1000 {
		clear(l.noLarge) // far more than the number of peers
	}
	l.noLarge[t.Addr.String()] = time.Now()
}
