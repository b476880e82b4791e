package ua

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"
)

// Call is one dialog, or the attempt at one. Its methods are safe for concurrent use.
type Call struct {
	a         *Agent
	id        string // Call-ID
	localTag  string
	transport string
	dest      string // where the INVITE went to or came from
	outgoing  bool
	invite    *Message

	answered chan struct{} // closed by the final response to the INVITE
	acked    chan struct{} // incoming: closed by the ACK of our 2xx
	ended    chan struct{} // closed when the dialog has ended or was never established

	mu        sync.Mutex // guards the fields below
	req       *sip.Request
	tx        sip.ClientTransaction
	local     string // From or To value of our side, with tag
	remote    string // the same of the other side
	target    string // remote target URI
	routes    []string
	cseq      int
	remoteTag string
	final     *Message
	err       error
	ack       *sip.Request
	body      string // our last session description
	byeFrom   string // "local" or "remote" once a BYE was sent or received
}

// ID returns the Call-ID.
func (c *Call) ID() string { return c.id }

// Invite returns the INVITE that started the call.
func (c *Call) Invite() *Message { return c.invite }

// Ended returns a channel that is closed when the call has ended.
func (c *Call) Ended() <-chan struct{} { return c.ended }

// Confirmed returns a channel that is closed when the ACK of the answer of an incoming call has arrived.
func (c *Call) Confirmed() <-chan struct{} { return c.acked }

// EndedBy returns which side ended the call: "local", "remote", or "" if it is up or ended without a BYE.
func (c *Call) EndedBy() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byeFrom
}

// RemoteTarget returns the URI to which in-dialog requests go.
func (c *Call) RemoteTarget() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.target
}

// Messages returns all messages of this call that the agent saw, in order.
func (c *Call) Messages() []*Message {
	return c.a.log.Messages(func(m *Message) bool { return m.CallID() == c.id })
}

// Responses returns the received responses to the method, in wire order.
func (c *Call) Responses(method string) []*Message {
	return c.a.log.Messages(func(m *Message) bool {
		return !m.Sent && m.CallID() == c.id && !m.IsRequest() && m.Method() == method
	})
}

// Response returns the first received response to the INVITE with the status, or nil.
func (c *Call) Response(status int) *Message {
	for _, m := range c.Responses("INVITE") {
		if m.Status() == status {
			return m
		}
	}
	return nil
}

// WaitResponse waits for a response to the INVITE with the status.
func (c *Call) WaitResponse(ctx context.Context, status int) (*Message, error) {
	m, err := c.a.log.Wait(ctx, func(m *Message) bool {
		return !m.Sent && m.CallID() == c.id && m.Method() == "INVITE" && m.Status() == status
	})
	if err != nil {
		return nil, fmt.Errorf("%s: no %d to the INVITE: %w", c.a.cfg.Name, status, err)
	}
	return m, nil
}

// Call sends an INVITE. It returns as soon as the INVITE is sent; Call.Wait returns the outcome. A 2xx is acknowledged
// at once and again after each retransmission (RFC 3261 §13.2.2.4).
func (a *Agent) Call(ctx context.Context, r Request) (*Call, error) {
	if r.Transport == "" {
		r.Transport = "udp"
	}
	tag := sip.GenerateTagN(10)
	text := r.text(a, "INVITE", tag)
	req, err := a.build(text, r.Transport, r.Destination)
	if err != nil {
		return nil, err
	}
	if err := a.begin(); err != nil {
		return nil, err
	}
	m := ParseMessage(text)
	cseq, _ := strconv.Atoi(strings.Fields(m.Header("CSeq") + " 0")[0]) // a test that overrides CSeq writes a number
	c := &Call{a: a, id: m.CallID(), localTag: tag, transport: r.Transport, dest: r.Destination, outgoing: true,
		invite: m, req: req, local: r.From + ";tag=" + tag, remote: r.To, target: r.URI, cseq: cseq, body: r.Body,
		answered: make(chan struct{}), acked: make(chan struct{}), ended: make(chan struct{})}
	a.register(c)
	a.sent(req, r.Transport, r.Destination)
	tx, err := a.client.TransactionRequest(ctx, req, asIs)
	if err != nil {
		a.unregister(c)
		a.work.Done()
		return nil, fmt.Errorf("%s: send INVITE to %s: %w", a.cfg.Name, r.Destination, err)
	}
	c.mu.Lock()
	c.tx = tx
	c.mu.Unlock()
	go func() {
		defer a.work.Done()
		c.watch(tx)
	}()
	return c, nil
}

// watch follows the INVITE transaction to its final response.
func (c *Call) watch(tx sip.ClientTransaction) {
	for {
		select {
		case res := <-tx.Responses():
			m := ParseMessage(res.String())
			if res.IsProvisional() {
				c.early(m)
				continue
			}
			if !res.IsSuccess() {
				c.finish(m, nil)
				return
			}
			c.establish(m)
			if err := c.sendAck(); err != nil {
				c.finish(m, err)
				return
			}
			// sipgo passes retransmitted 2xx to this hook: each must be acknowledged again.
			tx.OnRetransmission(func(r *sip.Response) {
				if ParseAddress(ParseMessage(r.String()).Header("To")).Tag == c.tagOfRemote() {
					_ = c.resendAck() // the next retransmission retries
				}
			})
			c.finish(m, nil)
			return
		case <-tx.Done():
			c.finish(nil, cause(tx))
			return
		case <-c.a.ctx.Done():
			tx.Terminate()
			c.finish(nil, ErrClosed)
			return
		}
	}
}

// early learns the remote target of an early dialog, so that the call can be changed or cancelled before it is
// answered.
func (c *Call) early(m *Message) {
	if tag := ParseAddress(m.Header("To")).Tag; tag != "" && m.Has("Contact") {
		c.mu.Lock()
		c.remoteTag, c.remote, c.target = tag, m.Header("To"), ParseAddress(m.Header("Contact")).URI
		c.mu.Unlock()
	}
}

func (c *Call) establish(m *Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remote, c.remoteTag = m.Header("To"), ParseAddress(m.Header("To")).Tag
	if m.Has("Contact") {
		c.target = ParseAddress(m.Header("Contact")).URI
	}
	c.routes = nil
	for _, v := range m.Values("Record-Route") { // RFC 3261 §12.1.2: the caller reverses the order
		for _, r := range strings.Split(v, ",") {
			c.routes = append([]string{strings.TrimSpace(r)}, c.routes...)
		}
	}
}

func (c *Call) tagOfRemote() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.remoteTag
}

// finish records how the INVITE ended: with the final response m, or with err, which is not nil if there is none.
func (c *Call) finish(m *Message, err error) {
	c.mu.Lock()
	c.final, c.err = m, err
	c.mu.Unlock()
	close(c.answered)
	if err != nil || m.Status() >= 300 {
		c.end("")
	}
}

// end closes the call once.
func (c *Call) end(by string) {
	c.mu.Lock()
	select {
	case <-c.ended:
		c.mu.Unlock()
		return
	default:
	}
	c.byeFrom = by
	c.a.unregister(c)
	close(c.ended)
	c.mu.Unlock()
}

// Wait returns the final response to the INVITE. A refusal is not an error: check its status.
func (c *Call) Wait(ctx context.Context) (*Message, error) {
	select {
	case <-c.answered:
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.final, c.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: no final answer to the INVITE: %w", c.a.cfg.Name, ctx.Err())
	}
}

// inDialog builds a request of the dialog. The ACK of a 2xx keeps the INVITE's sequence number.
func (c *Call) inDialog(method string, r Request) (*sip.Request, string, string, error) {
	c.mu.Lock()
	if method != "ACK" {
		c.cseq++
	}
	cseq := c.cseq
	local, remote, target, routes := c.local, c.remote, c.target, append([]string(nil), c.routes...)
	c.mu.Unlock()

	next := target
	if len(routes) > 0 { // loose routing only (RFC 3261 §12.2.1.1): strict routers are no longer in use
		next = ParseAddress(routes[0]).URI
	}
	transport, dest, err := c.a.address(ParseAddress("<"+next+">"), c.transport)
	if err != nil {
		return nil, "", "", err
	}
	usual := []Header{{"Via", c.a.via(transport)}}
	for _, x := range routes {
		usual = append(usual, Header{"Route", x})
	}
	usual = append(usual,
		Header{"Max-Forwards", "70"},
		Header{"From", local},
		Header{"To", remote},
		Header{"Call-ID", c.id},
		Header{"CSeq", strconv.Itoa(cseq) + " " + method},
	)
	if method == "INVITE" || method == "UPDATE" {
		usual = append(usual, Header{"Contact", c.contact()})
	}
	usual = append(usual, Header{"User-Agent", c.a.cfg.Name})
	req, err := c.a.build(compose(method+" "+target+" SIP/2.0", usual, r.Headers, r.ContentType, r.Body),
		transport, dest)
	return req, transport, dest, err
}

func (c *Call) contact() string {
	if c.outgoing {
		return c.invite.Header("Contact")
	}
	return c.a.contact(c.transport, ParseAddress(c.invite.RequestURI()).User)
}

func (c *Call) sendAck() error {
	req, transport, dest, err := c.inDialog("ACK", Request{})
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.ack = req
	c.mu.Unlock()
	c.a.sent(req, transport, dest)
	return c.a.client.WriteRequest(req, asIs)
}

func (c *Call) resendAck() error {
	c.mu.Lock()
	req := c.ack
	c.mu.Unlock()
	if req == nil {
		return nil
	}
	return c.a.client.WriteRequest(req.Clone(), asIs)
}

// Cancel sends a CANCEL for an INVITE that has no final response yet (RFC 3261 §9.1) and returns the response to the
// CANCEL. Wait returns the outcome of the call.
func (c *Call) Cancel(ctx context.Context) (*Message, error) {
	if !c.outgoing {
		return nil, errors.New("only the caller can cancel")
	}
	m := c.invite
	var usual []Header
	for _, n := range []string{"Via", "Max-Forwards", "Route", "From", "To", "Call-ID"} {
		for _, v := range m.Values(n) {
			usual = append(usual, Header{n, v})
		}
	}
	n, _, _ := strings.Cut(m.Header("CSeq"), " ")
	usual = append(usual, Header{"CSeq", n + " CANCEL"})
	req, err := c.a.build(compose("CANCEL "+m.RequestURI()+" SIP/2.0", usual, nil, "", ""), c.transport, c.dest)
	if err != nil {
		return nil, err
	}
	return c.a.do(ctx, req, c.transport, c.dest)
}

// Bye ends the call and returns the response to the BYE.
func (c *Call) Bye(ctx context.Context, headers ...Header) (*Message, error) {
	m, err := c.Send(ctx, "BYE", Request{Headers: headers})
	c.end("local")
	return m, err
}

// Reinvite changes the session with an INVITE inside the dialog with the given body. It acknowledges a 2xx and returns
// the final response.
func (c *Call) Reinvite(ctx context.Context, body string, headers ...Header) (*Message, error) {
	m, err := c.Send(ctx, "INVITE", Request{Body: body, Headers: headers})
	if err != nil || m.Status() < 200 || m.Status() > 299 {
		return m, err
	}
	if m.Has("Contact") {
		c.mu.Lock()
		c.target = ParseAddress(m.Header("Contact")).URI
		c.mu.Unlock()
	}
	return m, c.sendAck()
}

// Send sends a request inside the dialog and returns its final response. It uses only Headers, ContentType and Body of
// r.
func (c *Call) Send(ctx context.Context, method string, r Request) (*Message, error) {
	req, transport, dest, err := c.inDialog(method, r)
	if err != nil {
		return nil, err
	}
	return c.a.do(ctx, req, transport, dest)
}

func (a *Agent) register(c *Call) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls[c.id+" "+c.localTag] = c
}

func (a *Agent) unregister(c *Call) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.calls, c.id+" "+c.localTag)
}

// dialog finds the call that an in-dialog request belongs to.
func (a *Agent) dialog(m *Message) *Call {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.calls[m.CallID()+" "+ParseAddress(m.Header("To")).Tag]
}

// answerRetry is the first interval at which an unacknowledged 2xx is retransmitted; it doubles up to answerRetryMax.
// After answerTimeout the call is abandoned (RFC 3261 §13.3.1.4, T1, T2 and 64·T1).
const (
	answerRetry    = 500 * time.Millisecond
	answerRetryMax = 4 * time.Second
	answerTimeout  = 32 * time.Second
)
