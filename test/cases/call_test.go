package cases_test

import (
	"context"
	"fmt"
	"strings"
)

// offer is a session description.
const offer = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n" +
	"m=audio 40000 RTP/AVP 8 101\r\na=rtpmap:101 telephone-event/8000\r\n"

// call is one call from near through the program to far. Its methods send what a well-behaved caller and callee send.
type call struct {
	near, far *peer
	edge      string // the program's address to which near sends
	id        string // Call-ID of the near leg
	uri       string // Request-URI of the near leg's INVITE
	from, to  string // near leg, From with its tag
	contact   string // near leg's Contact value
	branch    string // of the near INVITE
	cseq      int
	target    string   // the program's Contact on the near leg
	farInvite *message // what far received
	farTag    string   // far's To tag
}

// dial prepares a call; nothing is sent yet.
func (l *lab) dial(near, far *peer, edge, number string) *call {
	host, _, _ := strings.Cut(edge, ":")
	return &call{near: near, far: far, edge: edge, id: token() + "@" + near.ip, uri: "sip:" + number + "@" + host,
		from: "<sip:" + stranger + "@" + near.ip + ">;tag=" + token(), to: "<sip:" + number + "@" + host + ">",
		contact: "<sip:" + near.addr + ">", branch: "z9hG4bK" + token(), cseq: 1, farTag: token()}
}

// toOC prepares a call from the core to the Operator Connect number.
func (l *lab) toOC() *call { return l.dial(l.core, l.oc, l.net+"10:5060", ocNumber) }

// toDR prepares a call from the core to the Direct Routing number.
func (l *lab) toDR() *call { return l.dial(l.core, l.dr, l.net+"10:5060", drNumber) }

// text writes a request of the near leg.
func (c *call) text(method, uri, branch, body string, more ...string) string {
	ls := []string{"Via: SIP/2.0/UDP " + c.near.addr + ";branch=" + branch + ";rport", "Max-Forwards: 70",
		"From: " + c.from, "To: " + c.to, "Call-ID: " + c.id, fmt.Sprintf("CSeq: %d %s", c.cseq, method)}
	switch method {
	case "INVITE", "UPDATE", "SUBSCRIBE", "REFER", "NOTIFY":
		if !mentions(more, "Contact") {
			ls = append(ls, "Contact: "+c.contact)
		}
	}
	ls = append(ls, more...)
	if body != "" && !mentions(more, "Content-Type") {
		ls = append(ls, "Content-Type: application/sdp")
	}
	return compose(method+" "+uri+" SIP/2.0", ls, body)
}

// invite sends the INVITE.
func (c *call) invite(body string, more ...string) {
	c.near.t.Helper()
	c.near.send(c.edge, c.text("INVITE", c.uri, c.branch, body, more...))
}

// ackRefusal acknowledges a final response other than 2xx (RFC 3261 §17.1.1.3).
func (c *call) ackRefusal(r *message) {
	c.near.t.Helper()
	to := c.to
	c.to = r.get("To")
	c.near.send(c.edge, c.text("ACK", c.uri, c.branch, ""))
	c.to = to
}

// arrive waits for the INVITE at the far side. A final response to the near side before it fails the test at once.
func (c *call) arrive() *message {
	c.far.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	go func() {
		defer cancel()
		c.near.await(finalOf("INVITE", c.id), ctx.Done())
	}()
	c.farInvite = c.far.poll(is("INVITE"), ctx.Done())
	if c.farInvite == nil {
		c.far.t.Fatalf("the INVITE did not arrive at %s; the near side got %q", c.far.addr, c.near.starts())
	}
	return c.farInvite
}

// answer answers the INVITE at the far side.
func (c *call) answer(code int, body string, more ...string) {
	c.far.t.Helper()
	if code < 300 && !mentions(more, "Contact") {
		more = append(more, "Contact: <sip:"+c.far.addr+">")
	}
	c.far.reply(c.farInvite, code, c.farTag, body, more...)
}

// answered waits for the final response at the near side, which must have the status, and learns the dialog from a
// 2xx.
func (c *call) answered(code int) *message {
	c.near.t.Helper()
	r := c.near.response("INVITE", c.id)
	if r.code() != code {
		c.near.t.Fatalf("the INVITE was answered %q, want %d\n%s", r.start, code, r.raw)
	}
	if code < 300 {
		c.to, c.target = r.get("To"), r.contact()
	} else {
		c.ackRefusal(r)
	}
	return r
}

// ack acknowledges a 2xx.
func (c *call) ack() {
	c.near.t.Helper()
	c.near.send(c.edge, c.text("ACK", c.target, "z9hG4bK"+token(), ""))
}

// setUp sets the call up: both sides have its answer and its ACK. Further lines go into the INVITE.
func (c *call) setUp(more ...string) *call {
	c.near.t.Helper()
	c.invite(offer, more...)
	c.arrive()
	c.answer(200, offer)
	c.answered(200)
	c.ack()
	c.farGets("ACK")
	return c
}

// farGets waits for a request of the call at the far side.
func (c *call) farGets(method string) *message {
	c.far.t.Helper()
	return c.far.expect(method, of(method, c.farID()))
}

// nearGets waits for a request of the call at the near side.
func (c *call) nearGets(method string) *message {
	c.near.t.Helper()
	return c.near.expect(method, of(method, c.id))
}

// nearSends sends a request of the near side within the dialog.
func (c *call) nearSends(method, body string, more ...string) {
	c.near.t.Helper()
	c.cseq++
	c.near.send(c.edge, c.text(method, c.target, "z9hG4bK"+token(), body, more...))
}

// farSends sends a request of the far side within the dialog.
func (c *call) farSends(method string, cseq int, body string, more ...string) {
	c.far.t.Helper()
	to := c.farInvite.from.String()
	ls := []string{"Via: SIP/2.0/UDP " + c.far.addr + ";branch=z9hG4bK" + token() + ";rport", "Max-Forwards: 70",
		"From: " + c.farInvite.get("To") + ";tag=" + c.farTag,
		"To: " + c.farInvite.get("From"), "Call-ID: " + c.farID(), fmt.Sprintf("CSeq: %d %s", cseq, method)}
	switch method {
	case "INVITE", "UPDATE", "REFER", "NOTIFY":
		ls = append(ls, "Contact: <sip:"+c.far.addr+">")
	}
	ls = append(ls, more...)
	if body != "" && !mentions(more, "Content-Type") {
		ls = append(ls, "Content-Type: application/sdp")
	}
	c.far.send(to, compose(method+" "+c.farInvite.contact()+" SIP/2.0", ls, body))
}

// farID returns the Call-ID of the far leg.
func (c *call) farID() string { return c.farInvite.get("Call-ID") }

// hangUp ends the call from the near side and checks that it ends at both sides.
func (c *call) hangUp() {
	c.near.t.Helper()
	c.nearSends("BYE", "")
	if r := c.near.response("BYE", c.id); r.code() != 200 {
		c.near.t.Errorf("BYE was answered %q, want 200", r.start)
	}
	c.far.reply(c.farGets("BYE"), 200, "", "")
}

// farHangsUp ends the call from the far side and checks that it ends at both sides. It returns the BYE that near
// received.
func (c *call) farHangsUp(cseq int) *message {
	c.near.t.Helper()
	c.farSends("BYE", cseq, "")
	if r := c.far.response("BYE", c.farID()); r.code() != 200 {
		c.near.t.Errorf("BYE was answered %q, want 200", r.start)
	}
	bye := c.nearGets("BYE")
	c.near.reply(bye, 200, "", "")
	return bye
}

// finalOf matches the final response to a request.
func finalOf(method, callID string) func(*message) bool {
	return func(m *message) bool {
		return m.code() >= 200 && m.method() == method && m.get("Call-ID") == callID
	}
}

// of matches a request with the method and the Call-ID.
func of(method, callID string) func(*message) bool {
	return func(m *message) bool { return m.isRequest() && m.method() == method && m.get("Call-ID") == callID }
}

// is matches a request with the method.
func is(method string) func(*message) bool {
	return func(m *message) bool { return m.isRequest() && m.method() == method }
}

// answerAll answers every request with the method until stop is called. stop returns the requests.
func (p *peer) answerAll(method string, code int) (stop func() []*message) {
	quit, done := make(chan struct{}), make(chan struct{})
	var seen []*message
	go func() {
		defer close(done)
		for {
			m := p.poll(is(method), quit)
			if m == nil {
				return
			}
			seen = append(seen, m)
			p.reply(m, code, token(), "")
		}
	}()
	return func() []*message {
		close(quit)
		<-done
		return seen
	}
}
