package edge

import (
	"net/netip"
	"testing"

	"github.com/tandemgw/tandem/internal/calls/sip/resolve"
	"github.com/tandemgw/tandem/internal/calls/sip/transport"
)

func TestWhereRequestsWithinADialogGo(t *testing.T) {
	covers(t, "D18", "D19")
	b := setup(t, func(c *bedConfig) {
		c.service.Bind.TCP = c.service.Bind.UDP
	})
	g := b.e.byName["teams"]
	udp, tcp := g.eps[transport.UDP], g.eps[transport.TCP]
	home := netip.MustParseAddrPort("192.0.2.1:5060")
	known := false
	e := &Edge{find: func(q resolve.Query) ([]resolve.Target, bool) {
		if !known || q.Host != "proxy.example.net" {
			return nil, false
		}
		port := q.Port
		if port == 0 {
			port = 5099 // as an SRV record would say
		}
		list := []resolve.Target{{Addr: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.77"), port)}}
		if port == 5060 {
			list = append(list, resolve.Target{Addr: home})
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
		{"over what the group does not speak", "sip:x@192.0.2.9;transport=tls", nil, false, "192.0.2.9:5060", udp, false},
		{"a name not resolved yet", "sip:x@proxy.example.net", nil, false, home.String(), udp, true},
		{"a name", "sip:x@proxy.example.net", nil, true, "192.0.2.77:5099", udp, false},
		{"a name that is also where it began", "sip:x@proxy.example.net:5060", nil, true, home.String(), udp, false},
		{"the topmost Route", "sip:x@192.0.2.9", []string{"<sip:192.0.2.5;lr>", "<sip:192.0.2.6;lr>"}, false, "192.0.2.5:5060", udp, false},
		{"maddr", "sip:x@elsewhere.test;maddr=192.0.2.8", nil, false, "192.0.2.8:5060", udp, false},
		{"another scheme", "tel:+4420", nil, false, home.String(), udp, false},
		{"rubbish", "<<<", nil, false, home.String(), udp, false},
	} {
		known = c.known
		got, vague := e.route(s, c.target, c.routes)
		if got.Addr.String() != c.want || got.From != c.from || vague != c.vague {
			t.Errorf("%s: route(%q, %q) = %v, vague %v; want %s, vague %v", c.name, c.target, c.routes, got, vague, c.want, c.vague)
		}
	}
	// What was not resolved is asked for again with the next request.
	known = false
	s.target = "sip:x@proxy.example.net"
	s.locate(e)
	if got := s.where(e); got.Addr != home {
		t.Errorf("where() = %v before the name is known, want where the dialog began", got)
	}
	known = true
	if got := s.where(e); got.Addr.String() != "192.0.2.77:5099" {
		t.Errorf("where() = %v once the name is known", got)
	}
}
