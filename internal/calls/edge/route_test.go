package edge

import (
	"net/netip"
	"testing"

	"github.com/tandemgw/tandem/internal/calls/sip/resolve"
	"github.com/tandemgw/tandem/internal/calls/sip/transport"
)

func TestWhereRequestsWithinADialogGo(t *testing.T) {
	covers(t, "D18", "D19", "D34")
	b := setup(t, func(c *bedConfig) {
		c.service.Bind.TCP = c.service.Bind.UDP
	})
	g := b.e.byName["teams"]
	udp, tcp := g.eps[transport.UDP], g.eps[transport.TCP]
	home := netip.MustParseAddrPort("192.0.2.1:5060")
	known := false
	e := &Edge{find: func(q resolve.Query) ([]netip.AddrPort, bool) {
		if !known || q.Host != "proxy.example.net" {
			return nil, false
		}
		port := q.Port
		if port == 0 {
			port = 5099 // as an SRV record would say
		}
		list := []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("192.0.2.77"), port)}
		if port == 5060 {
			list = append(list, home)
		}
		return list, true
	}}
	s := &side{group: g, home: transport.Target{From: udp, Addr: home}}
	for _, c := range []struct {
		name, target string
		routes       []string
		known        bool
		want         string
		from         *transport.Endpoint
		vague        bool
	}{
		{"an address", "sip:x@192.0.2.9:5070", nil, false, "192.0.2.9:5070", udp, false},
		{"an address without port", "sip:192.0.2.9", nil, false, "192.0.2.9:5060", udp, false},
		{"over TCP", "sip:x@192.0.2.9;transport=tcp", nil, false, "192.0.2.9:5060", tcp, false},
		{"over what the group does not speak", "sip:x@192.0.2.9;transport=tls", nil, false,
			"192.0.2.9:5060", udp, false},
		{"a name not resolved yet", "sip:x@proxy.example.net", nil, false, home.String(), udp, true},
		{"a name", "sip:x@proxy.example.net", nil, true, "192.0.2.77:5099", udp, false},
		{"a name that is also where it began", "sip:x@proxy.example.net:5060", nil, true, home.String(), udp, false},
		{"the topmost Route", "sip:x@192.0.2.9", []string{"<sip:192.0.2.5;lr>", "<sip:192.0.2.6;lr>"}, false,
			"192.0.2.5:5060", udp, false},
		{"maddr", "sip:x@elsewhere.test;maddr=192.0.2.8", nil, false, "192.0.2.8:5060", udp, false},
		{"another scheme", "tel:+4420", nil, false, home.String(), udp, false},
		{"rubbish", "<<<", nil, false, home.String(), udp, false},
	} {
		known = c.known
		got, _, vague := e.route(s, c.target, c.routes)
		if got.Addr.String() != c.want || got.From != c.from || vague != c.vague {
			t.Errorf("%s: route(%q, %q) = %v, vague %v; want %s, vague %v", c.name, c.target, c.routes, got, vague,
				c.want, c.vague)
		}
	}
	// The same peer behind NAT: addresses at which it cannot be reached.
	cfg := *g.cfg
	cfg.BehindNAT = true
	behind := &group{cfg: &cfg, proto: g.proto, eps: g.eps, local: g.local}
	for target, want := range map[string]string{
		"sip:x@0.0.0.0:5070": "", "sip:x@10.255.255.254:5076": "", "sip:x@172.31.0.1": "", "sip:x@192.168.1.2": "",
		"sip:x@100.64.3.4": "", "sip:x@127.0.0.1": "", "sip:x@169.254.1.1": "", "sip:x@255.255.255.255": "",
		"sip:x@224.0.0.1": "", "sip:x@[::]": "", "sip:x@[fd00::1]": "", "sip:x@[::ffff:10.0.0.1]": "",
		"sip:x@10.0.0.1;transport=tcp": "", "sip:x@y.example;maddr=10.0.0.1": "",
		"sip:x@172.32.0.1": "172.32.0.1:5060", "sip:x@192.0.2.9:5070": "192.0.2.9:5070",
		"sip:x@[2001:db8::1]": "[2001:db8::1]:5060",
	} {
		for _, routes := range [][]string{nil, {"<" + target + ";lr>"}} {
			nat := &side{group: behind, home: s.home}
			to := target
			if routes != nil {
				to = "sip:x@192.0.2.200"
			}
			wanted := want
			if want == "" {
				wanted = home.String()
			}
			if got, _, _ := e.route(nat, to, routes); got.Addr.String() != wanted {
				t.Errorf("behind NAT: route(%q, %q) = %v, want %s", to, routes, got, wanted)
			}
		}
	}
	nat := &side{group: behind, home: transport.Target{From: udp, Addr: netip.MustParseAddrPort("10.1.1.1:5060")}}
	if got, _, _ := e.route(nat, "sip:x@10.255.0.1", nil); got.Addr.String() != "10.255.0.1:5060" {
		t.Errorf("route = %v for a Contact in the peer's own private network", got)
	}
	if got, _, _ := e.route(nat, "sip:x@192.168.0.1", nil); got.Addr != nat.home.Addr {
		t.Errorf("route = %v for a Contact in another private network", got)
	}
	// A name that was not resolved is looked up again with the next request.
	known = false
	s.target = "sip:x@proxy.example.net"
	s.locate(e)
	if got := s.where(e); got.Addr != home {
		t.Errorf("where() = %v before the name is known, want where the dialog started", got)
	}
	known = true
	if got := s.where(e); got.Addr.String() != "192.0.2.77:5099" {
		t.Errorf("where() = %v once the name is known", got)
	}
}
