package edge

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/calls/sip/resolve"
	"github.com/tandemgw/tandem/internal/calls/sip/transport"
	"github.com/tandemgw/tandem/internal/testkit/pace"
)

// names is a resolve.DNS of the tests: names with addresses.
type names map[string][]netip.Addr

func (n names) LookupSRV(context.Context, string) ([]resolve.SRV, time.Duration, error) {
	return nil, 0, resolve.ErrNotFound
}

func (n names) LookupAddr(_ context.Context, host string, _ bool) ([]netip.Addr, time.Duration, error) {
	if a, ok := n[host]; ok {
		return a, time.Hour, nil
	}
	return nil, 0, resolve.ErrNotFound
}

// tcpAgent returns an agent that listens on TCP and sends over the first connection that it accepts.
func tcpAgent(t *testing.T, name string) *agent {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	a := &agent{t: t, name: name, in: make(chan msg, 64), listener: ln}
	first := make(chan net.Conn, 1)
	a.stream = sync.OnceValue(func() net.Conn { return <-first })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			select {
			case first <- c:
			default:
			}
			go a.read(c)
		}
	}()
	return a
}

// The Contact of the far side is a name with two addresses, and the first of them is dead.
func TestRequestsInACallGoToTheNextAddressOfTheName(t *testing.T) {
	covers(t, "D23")
	for _, c := range []struct{ method, via string }{{"INFO", "tcp"}, {"INVITE", "tcp"}, {"BYE", "tcp"},
		{"INVITE", "udp"}, {"BYE", "udp"}} {
		t.Run(c.method+" over "+c.via, func(t *testing.T) {
			dns := names{"callee.test": {netip.MustParseAddr("127.0.0.98"), netip.MustParseAddr("127.0.0.1")}}
			r, err := resolve.New(resolve.Config{}, dns, slog.New(slog.DiscardHandler), nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(r.Close)
			b := setup(t, func(bc *bedConfig) {
				bc.resolver = r
				bc.peers = 2
				bc.service.Bind.TCP = "127.0.0.2:0"
			})
			alive := b.more[0]
			if c.via == "tcp" {
				alive = tcpAgent(t, "alive")
			}
			at := netip.MustParseAddrPort(alive.addr())
			proto, _ := transport.ParseProto(c.via)
			await(t, "the name to be resolved", func() bool {
				l, ok := r.Lookup(resolve.Query{Host: "callee.test", Port: at.Port(), Proto: proto})
				return ok && len(l) == 2 && l[1] == at
			})
			up := b.core.newCall(outside, served)
			b.core.send(up.request("INVITE", sdp))
			b.core.expect("100")
			inv := b.svc.expect("INVITE")
			down := b.svc.called(inv)
			down.contact = "<sip:callee@callee.test:" + itoa(int(at.Port())) + ";transport=" + c.via + ">"
			b.svc.send(down.reply(inv, "200 OK", sdp))
			up.answered(b.core.expect("200"))
			b.core.send(up.ack(1, "")) // to the dead address

			pass := func(method string) {
				t.Helper()
				body := ""
				if method == "INVITE" {
					body = sdp
				}
				b.core.send(up.request(method, body))
				switch method {
				case "INVITE":
					b.core.expect("100")
				case "BYE":
					b.core.expect("200") // at once
				}
				m := alive.expect(method)
				if n := len(m.all("Via")); n != 1 {
					t.Errorf("%s came with %d Via lines, want ours alone", method, n)
				}
				alive.send(down.reply(m, "200 OK", body))
				if method != "BYE" {
					b.core.expect("200")
				}
				if method == "INVITE" {
					b.core.send(up.ack(up.cseq, ""))
					alive.expect("ACK")
				}
			}
			pass(c.method)
			if c.method != "BYE" {
				// The call stays with the address that responded.
				clock := pace.Start(t)
				pass("INFO")
				if d := clock.Now(); d > time.Second {
					t.Errorf("the next request took %v: it was sent to the dead address again", d)
				}
				pass("BYE")
			}
			b.idle()
		})
	}
}

// When no address is left, the request fails, and the next one starts with the first address.
func TestARequestInACallFailsAfterTheLastAddress(t *testing.T) {
	covers(t, "D23")
	first, second := netip.MustParseAddrPort("192.0.2.1:5060"), netip.MustParseAddrPort("192.0.2.2:5060")
	e := &Edge{find: func(resolve.Query) ([]netip.AddrPort, bool) {
		return []netip.AddrPort{first, second}, true
	}}
	s := &side{group: &group{}, home: transport.Target{Addr: netip.MustParseAddrPort("192.0.2.9:5060")},
		target: "sip:x@callee.test"}
	s.home.From = new(transport.Endpoint)
	m := sip.NewRequest(sip.INFO, s.target)
	s.locate(e)
	if s.dest.Addr != first {
		t.Fatalf("requests begin at %v, want %v", s.dest.Addr, first)
	}
	if s.again(e, m, first) == nil || s.dest.Addr != second {
		t.Errorf("after the first has failed the side is at %v, want %v", s.dest.Addr, second)
	}
	// Another request that was sent to the first as well follows.
	if s.again(e, m, first) == nil || s.dest.Addr != second {
		t.Errorf("the second request that failed there goes to %v, want %v", s.dest.Addr, second)
	}
	if s.again(e, m, second) != nil {
		t.Errorf("a request is sent on after its last address")
	}
	if s.dest.Addr != first {
		t.Errorf("after all have failed the side is at %v, want the first", s.dest.Addr)
	}
	// A request to an old target does not follow the dialog to the new one.
	if s.again(e, m, netip.MustParseAddrPort("192.0.2.77:5060")) != nil {
		t.Errorf("a request to an old target was sent to the new one")
	}
}
