package nameserver

import (
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tandemgw/tandem/internal/zone"
	"github.com/tandemgw/tandem/internal/zone/tsig"
)

// Equal answers to one network are limited, others are not; half of those above the limit ask for TCP, so that a client
// behind an address that somebody misuses still gets its answers.
func TestLimit(t *testing.T) {
	type answer struct {
		from, name string
		kind       uint16
		code       int
	}
	sent := func(t *testing.T, l *limiter, a answer) (sent int) {
		t.Helper()
		var dropped, empty int
		for range 100 {
			switch drop, short := l.exceeds(netip.MustParseAddr(a.from), a.name, a.kind, a.code); {
			case drop:
				dropped++
			case short:
				empty++
			default:
				sent++
			}
		}
		if over := 100 - sent; dropped != over/2 || empty != over/2 {
			t.Errorf("%+v: %d sent, %d dropped, %d empty", a, sent, dropped, empty)
		}
		return sent
	}
	for name, c := range map[string]struct {
		first, second answer
		equal         bool
	}{
		"an address of the same /24": {answer{"192.0.2.1", "a.", 1, 0}, answer{"192.0.2.254", "a.", 1, 0}, true},
		"another /24":                {answer{"192.0.2.1", "a.", 1, 0}, answer{"198.51.100.1", "a.", 1, 0}, false},
		"another type":               {answer{"192.0.2.1", "a.", 1, 0}, answer{"192.0.2.1", "a.", 16, 0}, false},
		"another name":               {answer{"192.0.2.1", "a.", 1, 0}, answer{"192.0.2.1", "b.", 1, 0}, false},
		"a name that does not exist": {answer{"192.0.2.1", "a.", 1, 0}, answer{"192.0.2.1", "", 1, 3}, false},
		"two such names":             {answer{"192.0.2.1", "", 1, 3}, answer{"192.0.2.1", "", 16, 3}, true},
		"an address of the same /56": {answer{"2001:db8::1", "a.", 1, 0}, answer{"2001:db8:0:1::1", "a.", 1, 0}, true},
		"another /56":                {answer{"2001:db8::1", "a.", 1, 0}, answer{"2001:db8:1::1", "a.", 1, 0}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				separate := false
				for range 4 { // counters of different answers collide by chance, with one seed in 16,384
					l := newLimiter(10)
					first, second := sent(t, l, c.first), sent(t, l, c.second)
					if first != 10 || second != 0 && second != 10 {
						t.Errorf("%d and %d sent, want 10 and 0 or 10", first, second)
					}
					separate = separate || second != 0
				}
				if separate == c.equal {
					t.Errorf("counted separately: %v, want %v", separate, !c.equal)
				}
			})
		})
	}

	synctest.Test(t, func(t *testing.T) {
		a, l := answer{"192.0.2.1", "a.", 1, 0}, newLimiter(10)
		for range 3 {
			if n := sent(t, l, a); n != 10 {
				t.Errorf("%d sent within a second, want 10", n)
			}
			time.Sleep(time.Second)
		}
		if n := sent(t, newLimiter(0), a); n != 100 {
			t.Errorf("%d of 100 sent without a limit", n)
		}
	})
}

// listener accepts connections from the addresses that it is given.
type listener struct {
	net.Listener
	from []string
}

type remote struct {
	net.Conn
	addr   net.Addr
	closed bool
}

func (c *remote) RemoteAddr() net.Addr { return c.addr }
func (c *remote) Close() error         { c.closed = true; return nil }

func (l *listener) Accept() (net.Conn, error) {
	if len(l.from) == 0 {
		return nil, io.EOF
	}
	a := l.from[0]
	l.from = l.from[1:]

	return &remote{addr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(a), 9))}, nil
}

// One network, or all together, cannot use up the connections of the others, and room comes back.
func TestConnections(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("MDEyMzQ1Njc4OWFiY2RlZg=="), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Secondaries: []Secondary{{Name: "s", Address: "192.0.2.9:53",
		Key: tsig.Config{Name: "k.example", Algorithm: "hmac-sha256", SecretFile: secret}}}}
	s, err := New(zone.New("example", "", ""), cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	in := &listener{}
	l := newConns(in, s)
	accept := func(n int, from string) (open []net.Conn) {
		for range n {
			in.from = append(in.from, from)
		}
		for {
			c, err := l.Accept()
			if err != nil {
				return open
			}
			open = append(open, c)
		}
	}

	first := accept(60, "198.51.100.1")
	if len(first) != 50 {
		t.Errorf("%d of 60 connections of one address accepted, want 50", len(first))
	}
	if n := testutil.ToFloat64(s.m.refused); n != 10 {
		t.Errorf("%v counted as refused", n)
	}
	if open := accept(60, "2001:db8::1"); len(open) != 50 {
		t.Errorf("%d of 60 connections of another address accepted", len(open))
	}
	if open := accept(1, "2001:db8::2"); len(open) != 0 {
		t.Error("an address of the same /64 is accepted")
	}
	if open := accept(900, "192.0.2.9"); len(open) != 900 {
		t.Errorf("%d of 900 connections of a secondary accepted", len(open))
	}
	if open := accept(1, "203.0.113.1"); len(open) != 0 {
		t.Error("connection 1,001 accepted")
	}
	if open := accept(60, "192.0.2.9"); len(open) != 50 {
		t.Errorf("%d of 60 connections of a secondary accepted beside 1,000 others, want 50", len(open))
	} else {
		for _, c := range open {
			_ = c.Close() // a fake does not fail
		}
	}
	for range 2 { // the second time does nothing
		if err := first[0].Close(); err != nil {
			t.Fatal(err)
		}
	}
	if open := accept(2, "198.51.100.1"); len(open) != 1 {
		t.Errorf("%d connections accepted after one was closed", len(open))
	}
}

// A client that does not read its answers loses its connection, and the room, at the first that it does not take.
func TestAnswersNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := New(zone.New("example", "", ""), Config{}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		near, far := net.Pipe()
		l := newConns(&pipe{c: &remote{Conn: near,
			addr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort("198.51.100.1:9"))}}, s)
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if _, err := c.Write([]byte("answer")); err == nil || time.Since(start) != writeTimeout {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if l.total != 0 || !c.(*conn).Conn.(*remote).closed {
			t.Errorf("the connection is open; %d count", l.total)
		}
		_ = far.Close()
	})
}

// pipe accepts one connection.
type pipe struct {
	net.Listener
	c net.Conn
}

func (p *pipe) Accept() (net.Conn, error) { return p.c, nil }
