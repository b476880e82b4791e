package edge

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/calls/record"
)

// hardlyEver makes timers so long that no test passes because of them.
func hardlyEver(c *bedConfig) {
	c.tx.T1 = 500 * time.Millisecond // timeouts of 32 s
	c.cfg.Timers.FailoverAfter = 32 * time.Second
}

// dies closes an agent's port: datagrams to it are answered by ICMP.
func (a *agent) dies() { _ = a.conn.Close() }

// state returns the state of the only address of a peer.
func (b *bed) state(name string) PeerState {
	b.t.Helper()
	for _, s := range b.e.Peers() {
		if s.Peer == name {
			return s
		}
	}
	b.t.Fatalf("no peer %s", name)
	return PeerState{}
}

// A closed port fails over at once (RFC 3261 §8.1.3.1, §18.4).
func TestUnreachablePeerFailsOverAtOnce(t *testing.T) {
	covers(t, "P11", "A10")
	b := setup(t, hardlyEver, func(c *bedConfig) { c.peers = 2 })
	b.svc.dies()
	up := b.core.newCall(outside, served)
	b.core.send(up.request("INVITE", sdp))
	b.core.expect("100")
	inv := b.more[0].expect("INVITE")
	b.more[0].send(b.more[0].called(inv).reply(inv, "486 Busy Here", ""))
	b.more[0].expect("ACK")
	b.core.send(up.ackFailure(b.core.expect("486")))
	r := b.record()
	if len(r.Tried) != 2 || r.Tried[0].Result != "transport" {
		t.Errorf("tried %+v, want a transport failure and then the second peer", r.Tried)
	}
	if s := b.state("svc1"); !strings.Contains(s.Reason, "connection refused") {
		t.Errorf("the closed peer is %+v, want the reason", s)
	}
	b.idle()
}

// Without another peer the caller gets 503 at once.
func TestUnreachableOnlyPeer(t *testing.T) {
	covers(t, "P11")
	b := setup(t, hardlyEver)
	b.svc.dies()
	up := b.core.newCall(outside, served)
	b.core.send(up.request("INVITE", sdp))
	b.core.expect("100")
	b.core.send(up.ackFailure(b.core.expect("503")))
	b.idle()
}

// A port that closes in the call: requests of the call fail at once, and the call can be ended.
func TestPortClosesInTheCall(t *testing.T) {
	covers(t, "P11", "D23")
	b := setup(t, hardlyEver)
	up, _ := b.established(b.core, b.svc, outside, served)
	b.svc.dies()
	for _, method := range []string{"INFO", "UPDATE"} {
		b.core.send(up.request(method, ""))
		b.core.expect("503")
	}
	b.core.send(up.request("INVITE", sdp))
	b.core.expect("100")
	b.core.send(up.ackFailure(b.core.expect("503")))
	b.core.send(up.request("BYE", ""))
	b.core.expect("200")
	b.idle()
}

// An OPTIONS to a closed port fails at once, not after options.timeout; downAfter says how many it takes.
func TestUnreachableOptions(t *testing.T) {
	covers(t, "P11", "P4")
	b := setup(t, hardlyEver, func(c *bedConfig) {
		c.peers = 2
		c.service.Options = Options{Every: time.Second, Timeout: 32 * time.Second, DownAfter: 1, UpAfter: 1}
		c.hookPeers = func(b *bed) { b.svc.dies() }
	})
	await(t, "the closed peer to be down", func() bool { return !b.state("svc1").Up })
	if s := b.state("svc1"); !strings.Contains(s.Reason, "connection refused") {
		t.Errorf("reason %q", s.Reason)
	}
	b.more[0].expect("OPTIONS")
	if s := b.state("svc2"); !s.Up {
		t.Errorf("the other peer is down: %+v", s)
	}
}

const huge = sdp + "a=x:"

// A message too large for UDP is answered 513, and does not change the state of peers (RFC 3261 §18.1.1, §21.5.7).
func TestTooLargeForUDP(t *testing.T) {
	covers(t, "P12")
	t.Run("without TCP", func(t *testing.T) { tooLargeForUDP(t, false) })
	t.Run("with TCP that no peer takes", func(t *testing.T) { tooLargeForUDP(t, true) })
}

func tooLargeForUDP(t *testing.T, tcp bool) {
	b := setup(t, hardlyEver, func(c *bedConfig) {
		c.peers = 2
		c.core.Bind.TCP = "127.0.0.1:0"
		c.service.Options = Options{Off: true, DownAfter: 1}
		if tcp {
			c.service.Bind.TCP = "127.0.0.2:0" // where no peer accepts TCP
		}
	})
	conn, at := b.core.overTCP(b)
	body := huge + strings.Repeat("y", 70000) + "\r\n"
	for range 2 {
		up := conn.newCall(outside, served)
		up.target = "sip:" + served + "@" + at
		conn.send(up.request("INVITE", body))
		conn.expect("100")
		m := conn.expect("513")
		if w := m.get("Warning"); !strings.Contains(w, "bytes do not fit a UDP datagram (at most 65507)") ||
			!strings.Contains(w, "TCP") {
			t.Errorf("Warning %q, want sizes and what to do", w)
		}
		conn.send(up.ackFailure(m))
		if r := b.record(); r.Status != 513 || len(r.Tried) != 2 || r.Tried[0].Result != "local" ||
			r.EndedBy != record.Tandem {
			t.Errorf("record %+v", r)
		}
	}
	for _, s := range b.e.Peers() {
		if !s.Up || s.Reason != "" && s.Address != "" {
			t.Errorf("a size error has changed the health of %s: %+v", s.Peer, s)
		}
	}
	// In a call too.
	up := conn.newCall(outside, served)
	up.target = "sip:" + served + "@" + at
	conn.send(up.request("INVITE", sdp))
	conn.expect("100")
	inv := b.svc.expect("INVITE")
	down := b.svc.called(inv)
	b.svc.send(down.reply(inv, "200 OK", sdp))
	up.answered(conn.expect("200"))
	conn.send(up.ack(1, ""))
	b.svc.expect("ACK")
	for _, method := range []string{"UPDATE", "INVITE"} {
		conn.send(up.request(method, body))
		if method == "INVITE" {
			conn.expect("100")
		}
		m := conn.expect("513")
		if method == "INVITE" {
			conn.send(up.ackFailure(m))
		}
	}
	b.over(up, down)
	b.idle()
}

// A response too large for the near side's UDP: the caller gets 513, and the called side BYE.
func TestAnswerTooLargeForUDP(t *testing.T) {
	covers(t, "A21")
	body := huge + strings.Repeat("y", 70000) + "\r\n"
	setupTCP := func(t *testing.T) (*bed, *agent) {
		far := tcpAgent(t, "far")
		b := setup(t, hardlyEver, func(c *bedConfig) {
			c.service.Transport, c.service.Bind.TCP = "tcp", "127.0.0.2:0"
			c.service.Peers = []Peer{{Name: "far", Address: far.addr(), Priority: 0}}
			c.peers = 0
		})
		return b, far
	}
	b, far := setupTCP(t)
	up := b.core.newCall(outside, served)
	b.core.send(up.request("INVITE", sdp))
	b.core.expect("100")
	inv := far.expect("INVITE")
	down := far.called(inv)
	down.contact = "<sip:far@" + far.addr() + ";transport=tcp>"
	far.send(down.reply(inv, "183 Session Progress", body)) // cannot be relayed
	far.send(down.reply(inv, "200 OK", body))
	m := b.core.expect("513")
	if !strings.Contains(m.get("Warning"), "do not fit a UDP datagram") {
		t.Errorf("Warning %q", m.get("Warning"))
	}
	b.core.send(up.ackFailure(m))
	for _, m := range far.expectAll("ACK", "BYE") {
		if m.is("BYE") {
			far.send(down.reply(m, "200 OK", ""))
		}
	}
	if r := b.record(); r.Status != 513 || len(r.Tried) != 1 || r.Tried[0].Status != 200 ||
		r.Tried[0].Result != "answered" {
		t.Errorf("record %+v", r)
	}

	// A refusal keeps its status.
	up = b.core.newCall(outside, served)
	b.core.send(up.request("INVITE", sdp))
	b.core.expect("100")
	inv = far.expect("INVITE")
	down = far.called(inv)
	far.send(down.reply(inv, "488 Not Acceptable Here", body))
	far.expect("ACK")
	m = b.core.expect("488")
	if m.body != "" {
		t.Errorf("a body of %d bytes came", len(m.body))
	}
	b.core.send(up.ackFailure(m))
	b.record()

	// In a call: INFO fails, a re-INVITE ends it, because the two sides no longer agree on the session.
	up = b.core.newCall(outside, served)
	b.core.send(up.request("INVITE", sdp))
	b.core.expect("100")
	inv = far.expect("INVITE")
	down = far.called(inv)
	down.contact = "<sip:far@" + far.addr() + ";transport=tcp>"
	far.send(down.reply(inv, "200 OK", sdp))
	up.answered(b.core.expect("200"))
	b.core.send(up.ack(1, ""))
	far.expect("ACK")
	b.core.send(up.request("INFO", ""))
	far.send(down.reply(far.expect("INFO"), "200 OK", body))
	b.core.expect("513")
	b.core.send(up.request("INVITE", sdp))
	b.core.expect("100")
	far.send(down.reply(far.expect("INVITE"), "200 OK", body))
	got := b.core.expectAll("513", "BYE")
	b.core.send(up.ackFailure(got[0]))
	b.core.send(up.reply(got[1], "200 OK", ""))
	for _, m := range far.expectAll("ACK", "BYE") {
		if m.is("BYE") {
			far.send(down.reply(m, "200 OK", ""))
		}
	}
	b.idle()
}

// overTCP connects to the core's TCP address from where the agent is, and returns an agent on that connection and the
// address.
func (a *agent) overTCP(b *bed) (*agent, string) {
	a.t.Helper()
	at := ""
	for _, l := range b.e.Listening() {
		if l.Transport == "tcp" && l.Groups[0] == "core-a" {
			at = l.Address.String()
		}
	}
	c, err := net.Dial("tcp", at)
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { _ = c.Close() })
	conn := &agent{t: a.t, name: a.name, in: make(chan msg, 64), listener: fixedAddr{c},
		stream: func() net.Conn { return c }}
	conn.edge = b.core.edge
	go conn.read(c)
	return conn, at
}

// fixedAddr gives an agent on a connection its address.
type fixedAddr struct{ c net.Conn }

func (f fixedAddr) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (f fixedAddr) Close() error              { return nil }
func (f fixedAddr) Addr() net.Addr            { return f.c.LocalAddr() }
