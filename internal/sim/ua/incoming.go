package ua

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"
)

// Incoming is an incoming call that is not answered yet.
type Incoming struct {
	Invite *Message

	a         *Agent
	req       *sip.Request
	tx        sip.ServerTransaction
	transport string
	tag       string
	cancelled chan struct{}
	once      sync.Once
	refused   bool // a final response other than 2xx was sent; only the handler's goroutine uses it
}

// Cancelled returns a channel that is closed when the caller sends CANCEL. The stack then answers 487 by itself.
func (in *Incoming) Cancelled() <-chan struct{} { return in.cancelled }

// Answer is the content of a response.
type Answer struct {
	Tag     string // To tag; the call's own if empty. Others create forked early dialogs.
	Body    string
	Headers []Header
	Contact string // Contact value; the agent's own if empty, none if "-"
}

// Reply sends a provisional response, or refuses the call.
func (in *Incoming) Reply(status int, reason string, x Answer) error {
	return in.respond(in.response(status, reason, x))
}

// response builds a response. It never changes the request that the stack holds: the stack reads it at the same time.
func (in *Incoming) response(status int, reason string, x Answer) *sip.Response {
	var body []byte
	if x.Body != "" {
		body = []byte(x.Body)
	}
	res := sip.NewResponseFromRequest(in.req, status, reason, body)
	if status > 100 {
		if x.Tag == "" {
			x.Tag = in.tag
		}
		if to := res.To(); to != nil {
			to.Params.Add("tag", x.Tag)
		}
	}
	if x.Contact == "" && status > 100 && status < 300 {
		x.Contact = in.a.contact(in.transport, ParseAddress(in.Invite.RequestURI()).User)
	}
	if x.Contact != "" && x.Contact != "-" {
		res.AppendHeader(sip.NewHeader("Contact", x.Contact))
	}
	for _, h := range x.Headers {
		res.AppendHeader(sip.NewHeader(h.Name, h.Value))
	}
	if x.Body != "" {
		res.AppendHeader(sip.NewHeader("Content-Type", "application/sdp"))
	}
	return res
}

func (in *Incoming) respond(res *sip.Response) error {
	in.a.sent(res, in.transport, in.Invite.Remote)
	if err := in.tx.Respond(res); err != nil {
		return fmt.Errorf("%s: send %d: %w", in.a.cfg.Name, res.StatusCode, err)
	}
	in.refused = in.refused || res.StatusCode >= 300
	return nil
}

// Accept answers with 200 and waits for the ACK, retransmitting the 200 as RFC 3261 §13.3.1.4 requires.
func (in *Incoming) Accept(ctx context.Context, x Answer) (*Call, error) {
	if x.Tag == "" {
		x.Tag = in.tag
	}
	m := in.Invite
	c := &Call{a: in.a, id: m.CallID(), localTag: x.Tag, transport: in.transport, dest: m.Remote,
		invite: m, body: x.Body,
		local: m.Header("To") + ";tag=" + x.Tag, remote: m.Header("From"),
		remoteTag: ParseAddress(m.Header("From")).Tag,
		target:    ParseAddress(m.Header("Contact")).URI,
		answered:  make(chan struct{}), acked: make(chan struct{}), ended: make(chan struct{})}
	c.routes = append(c.routes, m.Values("Record-Route")...)
	close(c.answered)
	in.a.register(c) // before the response is sent: the ACK may arrive before the next line runs
	res := in.response(200, "OK", x)
	c.final = ParseMessage(res.String())
	if err := in.respond(res); err != nil {
		c.end("")
		return nil, err
	}
	interval := answerRetry
	repeat := time.NewTimer(interval)
	defer repeat.Stop()
	timeout := time.NewTimer(answerTimeout)
	defer timeout.Stop()
	for {
		select {
		case <-c.acked:
			return c, nil
		case <-c.ended: // a BYE overtook the ACK
			return c, nil
		case <-repeat.C:
			if err := in.tx.Respond(res); err != nil {
				c.end("")
				return nil, fmt.Errorf("%s: retransmit 200: %w", in.a.cfg.Name, err)
			}
			interval = min(2*interval, answerRetryMax)
			repeat.Reset(interval)
		case <-timeout.C:
			c.end("")
			return nil, fmt.Errorf("%s: no ACK within %v", in.a.cfg.Name, answerTimeout)
		case <-ctx.Done():
			c.end("")
			return nil, ctx.Err()
		}
	}
}

func (a *Agent) message(req *sip.Request) *Message {
	m := ParseMessage(req.String())
	m.At, m.Transport, m.Remote = time.Now(), sip.NetworkToLower(req.Transport()), req.Source()
	return m
}

func (a *Agent) onInvite(req *sip.Request, tx sip.ServerTransaction) {
	if a.begin() != nil {
		return
	}
	defer a.work.Done()
	m := a.message(req)
	if ParseAddress(m.Header("To")).Tag != "" {
		a.onReinvite(req, tx, m)
		return
	}
	in := &Incoming{Invite: m, a: a, req: req, tx: tx, transport: m.Transport, tag: sip.GenerateTagN(10),
		cancelled: make(chan struct{})}
	if !tx.OnCancel(func(*sip.Request) { in.once.Do(func() { close(in.cancelled) }) }) {
		return
	}
	if a.cfg.Invite == nil {
		_ = in.Reply(480, "Temporarily Unavailable", Answer{}) // the caller times out if this is lost
		return
	}
	a.cfg.Invite(a.ctx, in)
	if in.refused {
		// Over TCP and TLS the stack drops the transaction when this function returns, but the ACK of a refusal needs
		// it.
		a.linger(tx, m.Transport)
	}
}

// linger waits a moment for the ACK of a refusal sent over a stream.
func (a *Agent) linger(tx sip.ServerTransaction, transport string) {
	if transport == "udp" {
		return
	}
	t := time.NewTimer(200 * time.Millisecond)
	defer t.Stop()
	select {
	case <-tx.Acks():
	case <-tx.Done():
	case <-t.C:
	case <-a.ctx.Done():
	}
}

func (a *Agent) onReinvite(req *sip.Request, tx sip.ServerTransaction, m *Message) {
	c := a.dialog(m)
	in := &Incoming{Invite: m, a: a, req: req, tx: tx, transport: m.Transport, tag: ParseAddress(m.Header("To")).Tag}
	if c == nil {
		// If it is lost, the retransmitted request gets it again.
		_ = in.respond(sip.NewResponseFromRequest(req, 481, "Call/Transaction Does Not Exist", nil))
		return
	}
	if m.Has("Contact") {
		c.mu.Lock()
		c.target = ParseAddress(m.Header("Contact")).URI
		c.mu.Unlock()
	}
	r := Reply{}
	if a.cfg.InDialog != nil {
		r = a.cfg.InDialog(c, m)
	}
	if r.Status == 0 {
		c.mu.Lock()
		r = Reply{Status: 200, Reason: "OK", Body: c.body}
		c.mu.Unlock()
	}
	x := Answer{Body: r.Body, Headers: r.Headers, Contact: c.contact()}
	if r.Status >= 300 {
		x.Contact = "-"
	}
	res := in.response(r.Status, r.Reason, x)
	if err := in.respond(res); err != nil {
		return
	}
	if r.Status < 300 {
		a.awaitAck(in, res, c)
		return
	}
	a.linger(tx, m.Transport)
}

// awaitAck retransmits the 2xx of a re-INVITE until its ACK arrives.
func (a *Agent) awaitAck(in *Incoming, res *sip.Response, c *Call) {
	ctx, cancel := context.WithTimeout(a.ctx, answerTimeout)
	defer cancel()
	number := in.Invite.Header("CSeq")
	n, _ := strconv.Atoi(firstField(number))
	got := make(chan struct{})
	go func() {
		defer close(got)
		_, _ = a.log.Wait(ctx, func(m *Message) bool { // ends with ctx if no ACK arrives
			if m.Sent || m.CallID() != c.id || !m.IsRequest() || m.Method() != "ACK" {
				return false
			}
			k, _ := strconv.Atoi(firstField(m.Header("CSeq")))
			return k == n
		})
	}()
	interval := answerRetry
	t := time.NewTimer(interval)
	defer t.Stop()
	for {
		select {
		case <-got:
			return
		case <-c.ended:
			cancel()
			<-got
			return
		case <-t.C:
			_ = in.tx.Respond(res) // the next retransmission retries
			interval = min(2*interval, answerRetryMax)
			t.Reset(interval)
		}
	}
}

func firstField(s string) string {
	for i, r := range s {
		if r == ' ' || r == '\t' {
			return s[:i]
		}
	}
	return s
}

func (a *Agent) onAck(req *sip.Request, _ sip.ServerTransaction) {
	c := a.dialog(a.message(req))
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.acked:
	default:
		close(c.acked)
	}
}

func (a *Agent) onBye(req *sip.Request, tx sip.ServerTransaction) {
	m := a.message(req)
	c := a.dialog(m)
	status, reason := 200, "OK"
	if c == nil {
		status, reason = 481, "Call/Transaction Does Not Exist"
	}
	res := sip.NewResponseFromRequest(req, status, reason, nil)
	a.sent(res, m.Transport, m.Remote)
	_ = tx.Respond(res) // if it is lost, the other side retransmits its request
	if c != nil {
		c.end("remote")
	}
}

// onRequest handles every other method.
func (a *Agent) onRequest(req *sip.Request, tx sip.ServerTransaction) {
	m := a.message(req)
	r := Reply{}
	switch {
	case ParseAddress(m.Header("To")).Tag != "":
		c := a.dialog(m)
		if c == nil {
			r = Reply{Status: 481, Reason: "Call/Transaction Does Not Exist"}
			break
		}
		if a.cfg.InDialog != nil {
			r = a.cfg.InDialog(c, m)
		}
		if r.Status == 0 {
			r = Reply{Status: 200, Reason: "OK"}
		}
	case m.Method() == "CANCEL": // sipgo answers those it can match
		r = Reply{Status: 481, Reason: "Call/Transaction Does Not Exist"}
	case a.cfg.Request != nil:
		r = a.cfg.Request(m)
	case m.Method() == "OPTIONS":
		r = Reply{Status: 200, Reason: "OK", Headers: []Header{{"Allow", Allow}}}
	default:
		r = Reply{Status: 405, Reason: "Method Not Allowed", Headers: []Header{{"Allow", Allow}}}
	}
	if r.Status == 0 { // silence
		return
	}
	var body []byte
	if r.Body != "" {
		body = []byte(r.Body)
	}
	res := sip.NewResponseFromRequest(req, r.Status, r.Reason, body)
	for _, h := range r.Headers {
		res.AppendHeader(sip.NewHeader(h.Name, h.Value))
	}
	a.sent(res, m.Transport, m.Remote)
	_ = tx.Respond(res) // if it is lost, the other side retransmits its request
}

// Allow lists the methods that the agents support. Teams requires NOTIFY (direct-routing-sip §7).
const Allow = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, NOTIFY, PRACK, UPDATE"
