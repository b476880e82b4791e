package transport_test

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/calls/sip/transport"
)

func udpPeer(t *testing.T, to *transport.Endpoint) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to.Local()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// RFC 3261 §18.2.1, §18.2.2 and RFC 3581: what is added to the top Via, and where the answer goes.
func TestViaOverUDP(t *testing.T) {
	n := newNode(t, transport.Config{})
	ep := n.listen(transport.EndpointConfig{Proto: transport.UDP})
	peer := udpPeer(t, ep)
	port := peer.LocalAddr().(*net.UDPAddr).Port
	other, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(loopback))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	otherPort := other.LocalAddr().(*net.UDPAddr).Port
	for _, c := range []struct {
		name, via, want string
		at              net.Conn
	}{
		{"rport requested",
			"SIP/2.0/UDP 127.0.0.1:9;rport;branch=z9hG4bK1",
			fmt.Sprintf("SIP/2.0/UDP 127.0.0.1:9;rport=%d;branch=z9hG4bK1;received=127.0.0.1", port), peer},
		{"no rport, the source address: unchanged, answer to sent-by's port",
			fmt.Sprintf("SIP/2.0/UDP 127.0.0.1:%d;branch=z9hG4bK1", otherPort),
			fmt.Sprintf("SIP/2.0/UDP 127.0.0.1:%d;branch=z9hG4bK1", otherPort), other},
		{"a name: received, answer to sent-by's port",
			fmt.Sprintf("SIP/2.0/UDP pbx.example.net:%d;branch=z9hG4bK1", otherPort),
			fmt.Sprintf("SIP/2.0/UDP pbx.example.net:%d;branch=z9hG4bK1;received=127.0.0.1", otherPort), other},
		{"another address: received with the packet's source",
			fmt.Sprintf("SIP/2.0/UDP 10.1.2.3:%d;branch=z9hG4bK1", otherPort),
			fmt.Sprintf("SIP/2.0/UDP 10.1.2.3:%d;branch=z9hG4bK1;received=127.0.0.1", otherPort), other},
		{"a received parameter in the message is overwritten",
			fmt.Sprintf("SIP/2.0/UDP 127.0.0.1:%d;received=10.9.9.9;branch=z9hG4bK1", otherPort),
			fmt.Sprintf("SIP/2.0/UDP 127.0.0.1:%d;received=127.0.0.1;branch=z9hG4bK1", otherPort), other},
		{"maddr is not followed",
			fmt.Sprintf("SIP/2.0/UDP 127.0.0.1:%d;maddr=10.9.9.9;branch=z9hG4bK1", otherPort),
			fmt.Sprintf("SIP/2.0/UDP 127.0.0.1:%d;maddr=10.9.9.9;branch=z9hG4bK1", otherPort), other},
		{"only the first of several values",
			"SIP/2.0/UDP 127.0.0.1:9;rport;branch=z9hG4bK1, SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK0;rport",
			fmt.Sprintf("SIP/2.0/UDP 127.0.0.1:9;rport=%d;branch=z9hG4bK1;received=127.0.0.1, "+
				"SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK0;rport", port), peer},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := peer.Write([]byte(request(c.via, "c1"))); err != nil {
				t.Fatal(err)
			}
			g := n.next(t)
			if got := g.m.Get(sip.KindVia); got != c.want {
				t.Errorf("Via %q became\n %q, want\n %q", c.via, got, c.want)
			}
			answer(t, n, g)
			if res := read(t, c.at, "\r\n\r\n"); !strings.HasPrefix(res, "SIP/2.0 200") {
				t.Errorf("answer = %q", res)
			}
		})
	}
}

// Order is kept for each source, however many readers share the port (field-pains (a): reordered 180 and 200).
func TestOrderOverUDP(t *testing.T) {
	n := newNode(t, transport.Config{})
	ep := n.listen(transport.EndpointConfig{Proto: transport.UDP, Readers: 4})
	const sources, each = 8, 400
	for s := range sources {
		peer := udpPeer(t, ep)
		go func() {
			for i := range each {
				_, _ = peer.Write([]byte(request("SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bK1",
					fmt.Sprintf("%d-%d", s, i))))
			}
		}()
	}
	next := map[string]int{}
	for range sources * each {
		s, i, _ := strings.Cut(n.next(t).m.CallID(), "-")
		if got, _ := strconv.Atoi(i); got != next[s] {
			t.Fatalf("source %s: got message %d, want %d", s, got, next[s])
		}
		next[s]++
	}
}

// Datagrams sent at the same time to addresses of both families, including IPv4-mapped ones and one with a zone, each
// reach their own address, complete and in order.
func TestDatagramsReachTheirAddress(t *testing.T) {
	const each = 50 // fewer than the smallest receive buffer holds
	n := newNode(t, transport.Config{})
	var wg sync.WaitGroup
	var check []func()
	for i, ip := range []string{"127.0.0.1", "::1", "127.0.0.1", "::1", "::ffff:127.0.0.1", "::1%lo"} {
		addr := netip.MustParseAddr(ip)
		far := newNode(t, transport.Config{})
		bind := netip.AddrPortFrom(addr.Unmap().WithZone(""), 0)
		at := far.listen(transport.EndpointConfig{Proto: transport.UDP, Bind: bind}).Local()
		name := "u" + strconv.Itoa(i)
		ep := n.listen(transport.EndpointConfig{Name: name, Proto: transport.UDP, Bind: bind})
		to := transport.Target{From: ep, Addr: netip.AddrPortFrom(addr, at.Port())}
		id := func(k int) string { return fmt.Sprintf("%s-%d-%s", ip, k, strings.Repeat(name, k)) }
		wg.Go(func() {
			for k := range each {
				if _, err := n.Send([]byte(request(to.Via("z9hG4bKx"), id(k))), to, nil); err != nil {
					t.Errorf("send to %s: %v", ip, err)
				}
			}
		})
		check = append(check, func() {
			for k := range each {
				if got := far.next(t).m.CallID(); got != id(k) {
					t.Fatalf("%s got %q, want %q", ip, got, id(k))
				}
			}
		})
	}
	wg.Wait()
	for _, c := range check {
		c()
	}
}

func TestUnknownSourcesGetNothing(t *testing.T) {
	n := newNode(t, transport.Config{})
	var allowed atomic.Pointer[netip.AddrPort]
	ep := n.listen(transport.EndpointConfig{Proto: transport.UDP, Readers: 1,
		Accept: func(ep *transport.Endpoint, src netip.AddrPort) (any, bool) {
			return "group of " + ep.Name(), src == *allowed.Load()
		}})
	stranger := udpPeer(t, ep)
	friend := udpPeer(t, ep)
	friendly := friend.LocalAddr().(*net.UDPAddr).AddrPort()
	allowed.Store(&friendly)
	_, _ = stranger.Write([]byte(request("SIP/2.0/UDP 127.0.0.1;rport;branch=z9hG4bK1", "stranger")))
	_, _ = stranger.Write([]byte("garbage"))
	_, _ = friend.Write([]byte(request("SIP/2.0/UDP 127.0.0.1;rport;branch=z9hG4bK1", "friend")))
	g := n.next(t)
	if g.m.CallID() != "friend" || g.f.Tag() != "group of UDP" {
		t.Errorf("got %s with tag %v, want the friend's and its tag", g.m.CallID(), g.f.Tag())
	}
	eventually(t, "two messages of unknown sources are counted",
		func() bool { return n.Metrics().UnknownSource.Load() == 2 })
	n.none(t)
	_ = stranger.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if k, err := stranger.Read(make([]byte, 100)); err == nil {
		t.Errorf("the stranger got %d bytes", k)
	}
}

func TestBadDatagrams(t *testing.T) {
	n := newNode(t, transport.Config{})
	ep := n.listen(transport.EndpointConfig{Proto: transport.UDP})
	peer := udpPeer(t, ep)
	for _, blank := range []string{"", "\r\n\r\n", "\x00\x00\x00\x00"} {
		_, _ = peer.Write([]byte(blank))
	}
	_, _ = peer.Write([]byte("OPTIONS sip:x SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1;rport;branch=z9hG4bK1\r\n" +
		"No colon here\r\n\r\n"))
	g := n.next(t)
	if g.p == nil || g.p.Status != 400 || g.p.Answer(g.m, "t", "gw") == nil {
		t.Errorf("problem = %v, want one that can be answered with 400", g.p)
	}
	eventually(t, "blank datagrams are counted", func() bool { return n.Metrics().KeepAlives.Load() == 3 })
	if _, err := n.Send(make([]byte, 70_000),
		transport.Target{From: ep, Addr: peer.LocalAddr().(*net.UDPAddr).AddrPort()}, nil); err == nil {
		t.Error("70,000 bytes were sent in a datagram")
	}
}

type panicking struct{ *recorder }

func (panicking) Unreachable(string, netip.AddrPort, error) {}

func (p panicking) Receive(m *sip.Message, pr *sip.Problem, f transport.Flow) {
	if m.CallID() == "bang" {
		panic("on purpose")
	}
	p.recorder.Receive(m, pr, f)
}

func TestHandlerPanicIsSurvived(t *testing.T) {
	s, err := transport.New(transport.Config{}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := newRecorder()
	ep, err := s.Listen(transport.EndpointConfig{Proto: transport.UDP, Bind: loopback})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(panicking{r}); err != nil {
		t.Fatal(err)
	}
	peer := udpPeer(t, ep)
	_, _ = peer.Write([]byte(request("SIP/2.0/UDP 127.0.0.1;rport;branch=z9hG4bK1", "bang")))
	_, _ = peer.Write([]byte(request("SIP/2.0/UDP 127.0.0.1;rport;branch=z9hG4bK2", "after")))
	if got := r.next(t).m.CallID(); got != "after" {
		t.Errorf("got %s, want the message after the panic", got)
	}
	if got := s.Metrics().Panics.Load(); got != 1 {
		t.Errorf("%d panics counted, want 1", got)
	}
}

// Only our own sockets share a port: another program must fail to bind it, and we must fail if another has it.
func TestPortIsOurs(t *testing.T) {
	n := newNode(t, transport.Config{})
	ep := n.listen(transport.EndpointConfig{Proto: transport.UDP})
	_, err := n.Listen(transport.EndpointConfig{Name: "second", Proto: transport.UDP, Bind: ep.Local()})
	if err == nil {
		t.Error("a second endpoint bound the same UDP port")
	} else if !strings.Contains(err.Error(), "second") {
		t.Errorf("error %q does not name the endpoint", err)
	}
}

func TestAdvertised(t *testing.T) {
	n := newNode(t, transport.Config{})
	for _, c := range []struct{ advertised, want string }{
		{"", "127.0.0.1:PORT"},
		{"203.0.113.7", "203.0.113.7:PORT"},
		{"gw.example.net:5070", "gw.example.net:5070"},
		{"2001:db8::1", "[2001:db8::1]:PORT"},
	} {
		ep := n.listen(transport.EndpointConfig{Proto: transport.UDP, Advertised: c.advertised, Readers: 1})
		want := strings.Replace(c.want, "PORT", strconv.Itoa(int(ep.Local().Port())), 1)
		if ep.SentBy() != want {
			t.Errorf("advertised %q: sent-by %q, want %q", c.advertised, ep.SentBy(), want)
		}
		target := transport.Target{From: ep}
		if got := target.Via("z9hG4bKx"); got != "SIP/2.0/UDP "+want+";rport;branch=z9hG4bKx" {
			t.Errorf("Via = %q", got)
		}
	}
}
