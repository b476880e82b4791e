package transport_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/calls/sip/transport"
)

// closedPort returns an address of this host without a listener.
func closedPort(t *testing.T, ip string) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(ip)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	a := c.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// A closed port is reported with the datagram sent to it (RFC 3261 §18.4), and no other datagram is lost by the error.
func TestPortUnreachable(t *testing.T) {
	for _, ip := range []string{"127.0.0.1", "::1"} {
		t.Run(ip, func(t *testing.T) {
			n, far := newNode(t, transport.Config{}), newNode(t, transport.Config{})
			bind := netip.AddrPortFrom(netip.MustParseAddr(ip), 0)
			ep := n.listen(transport.EndpointConfig{Proto: transport.UDP, Bind: bind})
			alive := far.listen(transport.EndpointConfig{Proto: transport.UDP, Bind: bind})
			const count = 200
			want := map[string]netip.AddrPort{}
			var dead []netip.AddrPort
			for range 4 {
				dead = append(dead, closedPort(t, ip))
			}
			for i := range count {
				to := transport.Target{From: ep, Addr: dead[i%len(dead)]}
				id := fmt.Sprintf("dead-%d-", i)
				if _, err := n.Send([]byte(request(to.Via("z9hG4bK"+id), id)), to, nil); err != nil {
					t.Fatalf("send to the closed port: %v", err)
				}
				want[id] = to.Addr
				to.Addr = alive.Local()
				if _, err := n.Send([]byte(request(to.Via("z9hG4bKx"), "alive")), to, nil); err != nil {
					t.Fatalf("send to the open port: %v", err)
				}
				far.next(t)
			}
			// The kernel limits the rate of ICMP errors; each one that it sends is reported once, and the first ones
			// are among them.
			for got := 0; got == 0 || n.Metrics().Unreachable.Load() > uint64(got); got++ {
				select {
				case u := <-n.lost:
					_, id, _ := strings.Cut(u.sent, "z9hG4bK")
					id = id[:strings.LastIndex(id[:12], "-")+1]
					if want[id] != u.to || !errors.Is(u.err, syscall.ECONNREFUSED) {
						t.Errorf("%q to %s: %v; want %s, connection refused", id, u.to, u.err, want[id])
					}
				case <-time.After(patience):
					t.Fatalf("%d errors reported, %d counted", got, n.Metrics().Unreachable.Load())
				}
			}
		})
	}
}

// A message that does not fit a datagram is a local error with its size; reaching a bound of ours is a local error too.
func TestLocalErrors(t *testing.T) {
	n := newNode(t, transport.Config{MaxConns: 1})
	udp := n.listen(transport.EndpointConfig{Proto: transport.UDP})
	tcp := n.listen(transport.EndpointConfig{Proto: transport.TCP})
	for _, size := range []int{transport.MaxUDP + 1, 200_000} {
		_, err := n.Send(make([]byte, size), transport.Target{From: udp, Addr: closedPort(t, "127.0.0.1")}, nil)
		var s *transport.SizeError
		if !errors.Is(err, transport.ErrLocal) || !errors.As(err, &s) || s.Bytes != size {
			t.Errorf("%d bytes over UDP: %v, want a local error with the size", size, err)
		}
	}
	for range 2 {
		_, err := n.Send([]byte("x"), transport.Target{From: tcp, Addr: netip.MustParseAddrPort("127.0.0.1:9")}, nil)
		if err != nil && !errors.Is(err, transport.ErrLocal) {
			t.Errorf("too many connections: %v, want a local error", err)
		}
	}
}
