package transport_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/calls/sip/transport"
)

func dialTCP(t *testing.T, to *transport.Endpoint) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", to.Local().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// RFC 3261 §18.3: Content-Length frames messages, wherever the packet boundaries are.
func TestFramingAcrossPackets(t *testing.T) {
	n := newNode(t, transport.Config{})
	ep := n.listen(transport.EndpointConfig{Proto: transport.TCP})
	withBody := strings.Replace(request("SIP/2.0/TCP 127.0.0.1;branch=z9hG4bK1", "body"), "Content-Length: 0\r\n\r\n",
		"Content-Length: 12\r\n\r\nOPTIONS sip:", 1)
	c := dialTCP(t, ep)
	text := request("SIP/2.0/TCP 127.0.0.1;branch=z9hG4bK1", "one") + withBody + "\r\n" +
		request("SIP/2.0/TCP 127.0.0.1;branch=z9hG4bK1", "three")
	for i := range len(text) { // byte by byte
		if _, err := c.Write([]byte{text[i]}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Write([]byte(strings.Repeat(text, 10))); err != nil { // many in one packet
		t.Fatal(err)
	}
	for range 11 {
		for _, want := range []string{"one", "body", "three"} {
			g := n.next(t)
			if g.p != nil || g.m.CallID() != want {
				t.Fatalf("got %s (%v), want %s", g.m.CallID(), g.p, want)
			}
			if want == "body" && g.m.Body() != "OPTIONS sip:" {
				t.Errorf("body = %q", g.m.Body())
			}
		}
	}
}

// RFC 5626 §3.5.1: a double CRLF is a ping, one CRLF its answer.
func TestKeepAlive(t *testing.T) {
	n := newNode(t, transport.Config{})
	ep := n.listen(transport.EndpointConfig{Proto: transport.TCP})
	c := dialTCP(t, ep)
	_, _ = c.Write([]byte("\r\n\r\n"))
	if got := read(t, c, "\r\n"); got != "\r\n" {
		t.Errorf("answer to the ping = %q, want one CRLF", got)
	}
	_, _ = c.Write([]byte("\r\n\r\n" + request("SIP/2.0/TCP 127.0.0.1;branch=z9hG4bK1", "after")))
	if got := n.next(t).m.CallID(); got != "after" {
		t.Errorf("got %s", got)
	}
}

func TestKeepAliveIsSent(t *testing.T) {
	peer, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	n := newNode(t, transport.Config{KeepAlive: 20 * time.Millisecond})
	ep := n.listen(transport.EndpointConfig{Proto: transport.TCP})
	target := transport.Target{From: ep, Addr: peer.Addr().(*net.TCPAddr).AddrPort()}
	if _, err := n.Send([]byte("x"), target, nil); err != nil {
		t.Fatal(err)
	}
	c, err := peer.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	read(t, c, "x\r\n\r\n\r\n\r\n")
}

// field-pains 5: an answer is sent over the connection of its request, whatever the Via says.
func TestResponseOnTheSameConnection(t *testing.T) {
	n := newNode(t, transport.Config{})
	ep := n.listen(transport.EndpointConfig{Proto: transport.TCP})
	c := dialTCP(t, ep)
	_, _ = c.Write([]byte(request("SIP/2.0/TCP 192.0.2.99:5999;branch=z9hG4bK1", "c1")))
	answer(t, n, n.next(t))
	if got := read(t, c, "\r\n\r\n"); !strings.HasPrefix(got, "SIP/2.0 200") {
		t.Errorf("answer = %q", got)
	}
}

// field-pains 5, RFC 3261 §18.2.2: if the connection has closed, the answer goes to the source address of the request
// at the sent-by port.
func TestResponseAfterConnectionLoss(t *testing.T) {
	n := newNode(t, transport.Config{})
	ep := n.listen(transport.EndpointConfig{Proto: transport.TCP})
	back, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	c := dialTCP(t, ep)
	_, _ = fmt.Fprint(c, request("SIP/2.0/TCP 127.0.0.1:"+port(back)+";branch=z9hG4bK1", "c1"))
	g := n.next(t)
	_ = c.Close()
	eventually(t, "the connection is closed", func() bool { return !g.f.Alive() })
	answer(t, n, g)
	answer(t, n, g) // the second one uses the same new connection
	nc, err := back.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if got := read(t, nc, "\r\n\r\n"); !strings.HasPrefix(got, "SIP/2.0 200") {
		t.Errorf("answer = %q", got)
	}
	if got := n.Metrics().ConnsDialled.Load(); got != 1 {
		t.Errorf("%d connections were made, want 1", got)
	}
}

// RFC 3261 §18.2.2, RFC 3263 §5: the last resort is what the sent-by name resolves to.
func TestResponseToTheSentByName(t *testing.T) {
	back, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	n := newNode(t, transport.Config{SentBy: func(host string, _ uint16, _ transport.Proto) []netip.AddrPort {
		if host != "pbx.example.net" {
			t.Errorf("SentBy was called for %q", host)
		}
		return []netip.AddrPort{back.Addr().(*net.TCPAddr).AddrPort()}
	}})
	ep := n.listen(transport.EndpointConfig{Proto: transport.TCP})
	dead, _ := net.Listen("tcp", "127.0.0.1:0")
	deadPort := port(dead)
	_ = dead.Close()
	c := dialTCP(t, ep)
	_, _ = fmt.Fprint(c, request("SIP/2.0/TCP pbx.example.net:"+deadPort+";branch=z9hG4bK1", "c1"))
	g := n.next(t)
	_ = c.Close()
	eventually(t, "the connection is closed", func() bool { return !g.f.Alive() })
	answer(t, n, g)
	nc, err := back.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	read(t, nc, "\r\n\r\n")
}

func port(l net.Listener) string {
	_, p, _ := net.SplitHostPort(l.Addr().String())
	return p
}

// One connection serves all requests to one place; what is sent while it is being made waits, in order.
func TestRequestsShareAConnection(t *testing.T) {
	a, b := newNode(t, transport.Config{}), newNode(t, transport.Config{})
	from := a.listen(transport.EndpointConfig{Proto: transport.TCP})
	to := b.listen(transport.EndpointConfig{Proto: transport.TCP})
	target := transport.Target{From: from, Addr: to.Local()}
	for i := range 200 {
		if _, err := a.Send([]byte(request(target.Via("z9hG4bK1"), fmt.Sprint(i))), target, nil); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 200 {
		if got := b.next(t).m.CallID(); got != fmt.Sprint(i) {
			t.Fatalf("got message %s, want %d", got, i)
		}
	}
	if got := a.Metrics().ConnsDialled.Load(); got != 1 {
		t.Errorf("%d connections, want 1", got)
	}
}

// field-pains 5 (sipgo#361): a BYE to a far side that connected to us uses its connection if the target prefers that
// flow, and a new one if that is closed.
func TestRequestByTheFarSidesConnection(t *testing.T) {
	a, b := newNode(t, transport.Config{}), newNode(t, transport.Config{})
	from := a.listen(transport.EndpointConfig{Proto: transport.TCP})
	to := b.listen(transport.EndpointConfig{Proto: transport.TCP})
	target := transport.Target{From: from, Addr: to.Local()}
	if _, err := a.Send([]byte(request(target.Via("z9hG4bK1"), "there")), target, nil); err != nil {
		t.Fatal(err)
	}
	g := b.next(t)
	back := transport.Target{From: to, Addr: netip.MustParseAddrPort("127.0.0.1:1"), Prefer: g.f}
	f, err := b.Send([]byte(request(back.Via("z9hG4bK2"), "back")), back, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := a.next(t); got.m.CallID() != "back" || !f.Same(transport.Flow(f)) {
		t.Errorf("got %s", got.m.CallID())
	}
	if got := b.Metrics().ConnsDialled.Load(); got != 0 {
		t.Errorf("%d connections were made, want none", got)
	}
	// When it is closed, the address is used.
	a.Close()
	eventually(t, "the flow is closed", func() bool { return !g.f.Alive() })
	w := make(waiter, 1)
	if _, err := b.Send([]byte("x"), back, w); err != nil {
		t.Fatal(err)
	}
	var ce *transport.ConnError
	if err := w.next(t); !errors.As(err, &ce) || ce.Established || ce.Remote.Port() != 1 {
		t.Errorf("SendFailed(%v), want a refused connection to port 1", err)
	}
}

// A connection may fail between being chosen and being given the request. The sender is told as for any connection that
// could not be made, whichever happens first.
func TestConnectionFailsBeforeItIsUsed(t *testing.T) {
	n := newNode(t, transport.Config{})
	ep := n.listen(transport.EndpointConfig{Proto: transport.TCP})
	target := transport.Target{From: ep, Addr: netip.MustParseAddrPort("127.0.0.1:1")} // without a listener
	var senders sync.WaitGroup
	for range 8 {
		senders.Go(func() {
			for range 500 {
				w := make(waiter, 1)
				if _, err := n.Send([]byte("x"), target, w); err != nil {
					t.Errorf("Send = %v, want the failure reported to the waiter", err)
					return
				}
				var ce *transport.ConnError
				if err := w.next(t); !errors.As(err, &ce) || ce.Established {
					t.Errorf("SendFailed(%v), want a refused connection", err)
					return
				}
			}
		})
	}
	senders.Wait()
}

// RFC 5923: "alias" makes a connection opened by the far side usable for requests to the port it names; not on TCP,
// where there is no proof that the far side may use that port.
func TestAliasOverTCP(t *testing.T) {
	n := newNode(t, transport.Config{})
	ep := n.listen(transport.EndpointConfig{Proto: transport.TCP})
	back, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	c := dialTCP(t, ep)
	_, _ = fmt.Fprint(c, request("SIP/2.0/TCP 127.0.0.1:"+port(back)+";alias;branch=z9hG4bK1", "c1"))
	n.next(t)
	target := transport.Target{From: ep, Addr: back.Addr().(*net.TCPAddr).AddrPort()}
	if _, err := n.Send([]byte("request\r\n\r\n"), target, nil); err != nil {
		t.Fatal(err)
	}
	nc, err := back.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	read(t, nc, "request\r\n\r\n")
}

func TestWaiters(t *testing.T) {
	peer, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	n := newNode(t, transport.Config{})
	ep := n.listen(transport.EndpointConfig{Proto: transport.TCP})
	target := transport.Target{From: ep, Addr: peer.Addr().(*net.TCPAddr).AddrPort()}
	kept, forgotten := make(waiter, 1), make(waiter, 1)
	if _, err := n.Send([]byte("a"), target, kept); err != nil {
		t.Fatal(err)
	}
	f, err := n.Send([]byte("b"), target, forgotten)
	if err != nil {
		t.Fatal(err)
	}
	c, err := peer.Accept()
	if err != nil {
		t.Fatal(err)
	}
	read(t, c, "ab")
	n.Forget(f, forgotten)
	_ = c.Close()
	var ce *transport.ConnError
	if err := kept.next(t); !errors.As(err, &ce) || !ce.Established {
		t.Errorf("SendFailed(%v), want a lost connection", err)
	}
	select {
	case err := <-forgotten:
		t.Errorf("the forgotten waiter was told %v", err)
	default:
	}
}

// A far side that does not read loses its connection; Send does not wait for it, and memory stays bounded.
func TestSlowPeer(t *testing.T) {
	peer, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	n := newNode(t, transport.Config{MaxQueueBytes: 256 << 10})
	ep := n.listen(transport.EndpointConfig{Proto: transport.TCP})
	target := transport.Target{From: ep, Addr: peer.Addr().(*net.TCPAddr).AddrPort()}
	w := make(waiter, 1)
	if _, err := n.Send([]byte("hello"), target, w); err != nil {
		t.Fatal(err)
	}
	c, err := peer.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	read(t, c, "hello") // then nothing more
	big := make([]byte, 32<<10)
	for i := 0; ; i++ {
		begun := time.Now()
		_, err = n.Send(big, target, nil)
		if d := time.Since(begun); d > patience {
			t.Fatalf("Send waited %v for a slow peer", d)
		}
		if err != nil {
			break
		}
		if i > 10_000 {
			t.Fatal("the queue has no bound")
		}
	}
	if !errors.Is(err, transport.ErrSlowPeer) {
		t.Errorf("Send = %v, want ErrSlowPeer", err)
	}
	w.next(t)
	if got := n.Metrics().SlowPeers.Load(); got != 1 {
		t.Errorf("%d slow peers counted, want 1", got)
	}
}

// A far side that accepts nothing for the write time-out is disconnected too, even with little data queued.
func TestStuckPeer(t *testing.T) {
	peer, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	n := newNode(t, transport.Config{MaxQueueBytes: 64 << 20, WriteTimeout: 100 * time.Millisecond})
	ep := n.listen(transport.EndpointConfig{Proto: transport.TCP})
	target := transport.Target{From: ep, Addr: peer.Addr().(*net.TCPAddr).AddrPort()}
	w := make(waiter, 1)
	if _, err := n.Send(make([]byte, 32<<20), target, w); err != nil {
		t.Fatal(err)
	}
	c, err := peer.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w.next(t)
}

func TestConnectionBounds(t *testing.T) {
	t.Run("per source", func(t *testing.T) {
		n := newNode(t, transport.Config{MaxConnsPerSource: 2})
		ep := n.listen(transport.EndpointConfig{Proto: transport.TCP})
		first := dialTCP(t, ep)
		dialTCP(t, ep)
		eventually(t, "two are accepted", func() bool { return n.Metrics().ConnsAccepted.Load() == 2 })
		closedSoon(t, dialTCP(t, ep))
		_ = first.Close()
		eventually(t, "one is closed", func() bool { return n.Metrics().ConnsClosed.Load() == 1 })
		c := dialTCP(t, ep)
		_, _ = c.Write([]byte("\r\n\r\n"))
		read(t, c, "\r\n")
	})
	t.Run("in total", func(t *testing.T) {
		n := newNode(t, transport.Config{MaxConns: 1})
		ep := n.listen(transport.EndpointConfig{Proto: transport.TCP})
		dialTCP(t, ep)
		eventually(t, "one is accepted", func() bool { return n.Metrics().ConnsAccepted.Load() == 1 })
		closedSoon(t, dialTCP(t, ep))
		_, err := n.Send([]byte("x"), transport.Target{From: ep, Addr: ep.Local()}, nil)
		if !errors.Is(err, transport.ErrTooManyConnections) {
			t.Errorf("Send = %v, want ErrTooManyConnections", err)
		}
	})
	t.Run("unknown source", func(t *testing.T) {
		n := newNode(t, transport.Config{})
		ep := n.listen(transport.EndpointConfig{Proto: transport.TCP,
			Accept: func(*transport.Endpoint, netip.AddrPort) (any, bool) { return nil, false }})
		if c, err := net.Dial("tcp", ep.Local().String()); err == nil { // else the reset was faster
			closedSoon(t, c)
		}
		eventually(t, "it is counted", func() bool { return n.Metrics().UnknownSource.Load() == 1 })
	})
	t.Run("idle", func(t *testing.T) {
		n := newNode(t, transport.Config{IdleTimeout: 50 * time.Millisecond})
		ep := n.listen(transport.EndpointConfig{Proto: transport.TCP})
		closedSoon(t, dialTCP(t, ep))
		if n.Metrics().ConnsIdle.Load() != 1 {
			t.Error("it was not counted")
		}
	})
	t.Run("a message a byte at a time", func(t *testing.T) {
		n := newNode(t, transport.Config{MessageTimeout: 100 * time.Millisecond})
		ep := n.listen(transport.EndpointConfig{Proto: transport.TCP})
		c := dialTCP(t, ep)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
					_, _ = c.Write([]byte("X"))
				case <-stop:
					return
				}
			}
		})
		closedSoon(t, c)
		close(stop)
		wg.Wait()
	})
}

func closedSoon(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	var ne net.Error
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.As(err, &ne) && ne.Timeout() {
		t.Errorf("the connection was not closed: %v", err)
	}
}

func TestClose(t *testing.T) {
	n := newNode(t, transport.Config{})
	ep := n.listen(transport.EndpointConfig{Proto: transport.TCP})
	c := dialTCP(t, ep)
	_, _ = fmt.Fprint(c, request("SIP/2.0/TCP 127.0.0.1;branch=z9hG4bK1", "before"))
	n.next(t)
	n.Close()
	if nc, err := net.Dial("tcp", ep.Local().String()); err == nil {
		closedSoon(t, nc)
	}
	closedSoon(t, c)
	_, err := n.Send([]byte("x"), transport.Target{From: ep, Addr: ep.Local()}, nil)
	if !errors.Is(err, transport.ErrClosed) {
		t.Errorf("Send after Close = %v, want ErrClosed", err)
	}
	n.Close() // a second call is harmless
}

// A stream whose message boundaries are lost is answered and closed.
func TestLostBoundaries(t *testing.T) {
	n := newNode(t, transport.Config{})
	ep := n.listen(transport.EndpointConfig{Proto: transport.TCP})
	c := dialTCP(t, ep)
	_, _ = fmt.Fprint(c, strings.Replace(request("SIP/2.0/TCP 127.0.0.1;branch=z9hG4bK1", "c1"), "Content-Length: 0",
		"Content-Length: lots", 1))
	g := n.next(t)
	if g.p == nil || g.p.Status != 400 {
		t.Errorf("problem = %v, want a 400", g.p)
	}
	closedSoon(t, c)
}

type answering struct{ s *transport.Stack }

func (answering) Unreachable(string, netip.AddrPort, error) {}

func (a answering) Receive(m *sip.Message, p *sip.Problem, f transport.Flow) {
	if p != nil {
		_ = a.s.Reply(p.Answer(m, "t", "gw").Bytes(), f, nil)
	}
}

// The answer arrives although more data was on its way to us.
func TestLostBoundariesAreAnswered(t *testing.T) {
	s, err := transport.New(transport.Config{}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ep, err := s.Listen(transport.EndpointConfig{Proto: transport.TCP, Bind: loopback})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(answering{s}); err != nil {
		t.Fatal(err)
	}
	c := dialTCP(t, ep)
	_, _ = fmt.Fprint(c, strings.Replace(request("SIP/2.0/TCP 127.0.0.1;branch=z9hG4bK1", "c1"), "Content-Length: 0",
		"Content-Length: lots", 1)+strings.Repeat("x", 100_000))
	if got := read(t, c, "\r\n\r\n"); !strings.HasPrefix(got, "SIP/2.0 400") {
		t.Errorf("answer = %q", got)
	}
	_ = c.(*net.TCPConn).CloseWrite()
	closedSoon(t, c)
}
