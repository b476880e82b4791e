package cases_test

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// Case 08: an INVITE that is too large for UDP is answered 513 (or sent over TCP: RFC 3261 §18.1.1) and does not affect
// the peer's health (ha-plugins#134, dsiprouter#153, nksip#45).
func TestCase08TooLargeForUDP(t *testing.T) {
	t.Parallel()
	l := start(t)
	for _, size := range []int{65_300, 66_000, 70_000, 70_000, 120_000} {
		l.sub(t, fmt.Sprint(size), func(t *testing.T) {
			code := l.inviteOverTCP(offer + "a=x:" + strings.Repeat("y", size) + "\r\n")
			if code != 513 && code != 413 {
				t.Errorf("answered %d, want 513 or 413", code)
			}
			down, n := l.metrics().Sum("tandem_peer_addresses", `group="oc"`, `state="down"`)
			if down != 0 || n == 0 {
				t.Errorf("%v addresses of the peer group are down (%d samples), want none", down, n)
			}
		})
	}
	l.toOC().setUp().hangUp() // an ordinary call still goes to the first peer
}

// Case 08, within a call: a re-INVITE that is too large is refused, and the call continues.
func TestCase08TooLargeReinvite(t *testing.T) {
	t.Parallel()
	l := start(t)
	conn := l.dialTCP()
	c := l.overTCP(conn)
	fmt.Fprint(conn, c.tcpText("INVITE", c.uri, offer))
	c.arrive()
	c.answer(200, offer)
	r := readFinal(t, conn, "INVITE")
	c.to, c.target = r.get("To"), r.contact()
	fmt.Fprint(conn, c.tcpText("ACK", c.target, ""))
	c.farGets("ACK")

	c.cseq++
	fmt.Fprint(conn, c.tcpText("INVITE", c.target, offer+"a=x:"+strings.Repeat("y", 70_000)+"\r\n"))
	if r := readFinal(t, conn, "INVITE"); r.code() != 513 && r.code() != 413 {
		t.Errorf("the re-INVITE was answered %q, want 513 or 413", r.start)
	}

	c.cseq++
	fmt.Fprint(conn, c.tcpText("BYE", c.target, ""))
	if r := readFinal(t, conn, "BYE"); r.code() != 200 {
		t.Errorf("BYE was answered %q, want 200: the call must continue after the refusal", r.start)
	}
	c.far.reply(c.farGets("BYE"), 200, "", "")
}

// stream is a SIP connection over TCP.
type stream struct {
	net.Conn
	in *bufio.Reader
}

// dialTCP connects to the program as the core.
func (l *lab) dialTCP() *stream {
	l.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(l.core.ip)}, Timeout: patience}
	conn, err := d.Dial("tcp4", l.net+"10:5060")
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		l.t.Fatal(err)
	}
	return &stream{conn, bufio.NewReader(conn)}
}

// overTCP prepares a call whose near leg uses the connection.
func (l *lab) overTCP(s *stream) *call {
	c := l.toOC()
	c.contact = "<sip:" + s.LocalAddr().String() + ";transport=tcp>"
	return c
}

func (c *call) tcpText(method, uri, body string) string {
	text := c.text(method, uri, "z9hG4bK"+token(), body)
	addr := strings.TrimSuffix(strings.TrimPrefix(c.contact, "<sip:"), ";transport=tcp>")
	return strings.Replace(text, "SIP/2.0/UDP "+c.near.addr, "SIP/2.0/TCP "+addr, 1)
}

// inviteOverTCP sends an INVITE to the number of Operator Connect and returns the status of its final response.
func (l *lab) inviteOverTCP(body string) int {
	l.t.Helper()
	conn := l.dialTCP()
	defer conn.Close()
	c := l.overTCP(conn)
	fmt.Fprint(conn, c.tcpText("INVITE", c.uri, body))
	r := readFinal(l.t, conn, "INVITE")
	c.to = r.get("To")
	fmt.Fprint(conn, c.tcpText("ACK", c.uri, ""))
	return r.code()
}

// readFinal reads messages up to the final response to the method.
func readFinal(t *testing.T, s *stream, method string) *message {
	t.Helper()
	for {
		m, err := readMessage(s.in)
		if err != nil {
			t.Fatalf("no final response to %s: %v", method, err)
		}
		if m.code() >= 200 && m.method() == method {
			return m
		}
	}
}

// readMessage reads one message from a stream by its Content-Length.
func readMessage(in *bufio.Reader) (*message, error) {
	var head strings.Builder
	for !strings.HasSuffix(head.String(), "\r\n\r\n") {
		l, err := in.ReadString('\n')
		if err != nil {
			return nil, err
		}
		if l == "\r\n" && head.Len() == 0 {
			continue // keep-alive
		}
		head.WriteString(l)
	}
	n := 0
	for l := range strings.Lines(head.String()) {
		if name, v, _ := strings.Cut(l, ":"); canonical(strings.TrimSpace(name)) == "content-length" {
			if _, err := fmt.Sscan(v, &n); err != nil {
				return nil, err
			}
		}
	}
	body := make([]byte, n)
	for got := 0; got < n; {
		k, err := in.Read(body[got:])
		if err != nil {
			return nil, err
		}
		got += k
	}
	return parse(head.String() + string(body))
}

// Case 09: the first peer's UDP port is closed (kamailio#2377). A fatal ICMP error counts as 503 (RFC 3261 §8.1.3.1,
// §18.4), so the second peer is tried at once. The lab's failoverAfter is 30 s: waiting for it fails this test.
func TestCase09UnreachablePeer(t *testing.T) {
	t.Parallel()
	// The ports of 127.76.0.45 and .46, the first choices, are closed.
	l := start(t, "peers:\n        - {name: oc-a", `peers:
        - {name: closed-a, type: ip, address: "127.76.0.45:5060"}
        - {name: closed-b, type: ip, address: "127.76.0.46:5060"}
        - {name: oc-a`, `127.76.0.4:5060"}`, `127.76.0.4:5060", priority: 1}`)
	for range 3 {
		begin := time.Now()
		c := l.toOC()
		c.invite(offer)
		c.arrive()
		if d := time.Since(begin); d > teardown {
			t.Errorf("the second peer was tried after %v: the error was not used", d)
		}
		c.answer(486, "")
		c.answered(486)
	}
}
