package nameserver_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/testkit/dnspeer"
	"github.com/tandemgw/tandem/internal/zone"
	"github.com/tandemgw/tandem/internal/zone/nameserver"
)

const (
	origin   = "customers.example."
	patience = time.Minute // a test that waits this long has failed
)

func address(name, a string) zone.Record { return zone.Address(name, 60, netip.MustParseAddr(a)) }

// records is a zone with two regions and one customer.
func records() []zone.Record {
	rs := []zone.Record{
		zone.NameServer(zone.Apex, 3600, "ns1.customers.example"), zone.NameServer(zone.Apex, 3600,
			"ns2.operator.example"),
		address("ns1", "192.0.2.53"), address("ns1", "2001:db8::53"),
		zone.Authority(zone.Apex, 3600, 0, "issue", "ca.example"),
		address("provapi", "192.0.2.10"),
	}
	for _, n := range []string{"1", "2"} {
		rs = append(rs, zone.Service("_sips._tcp.r"+n, 60, 10, 50, 5061, "e1.r"+n+".customers.example"),
			zone.Service("_sips._tcp.r"+n, 60, 20, 50, 5061, "e2.r"+n+".customers.example"),
			address("e1.r"+n, "192.0.2.1"+n), address("e2.r"+n, "192.0.2.2"+n), address("e2.r"+n, "2001:db8::2"+n),
			address("1r"+n, "192.0.2.1"+n),
			address("acme.1r"+n, "192.0.2.1"+n), zone.Text("acme.1r"+n, 60, "MS=ms1000000"+n))
	}

	return rs
}

// bed is a server with its zone.
type bed struct {
	zone   *zone.Zone
	server *nameserver.Server
	addr   netip.AddrPort
	reg    *prometheus.Registry
	at     zone.Serial
}

// serve starts a server until the test ends.
func serve(tb testing.TB, cfg nameserver.Config, rs []zone.Record) *bed {
	tb.Helper()
	b := &bed{addr: dnspeer.Address(tb), reg: prometheus.NewRegistry()}
	b.zone = zone.New(origin, "ns1.customers.example", "dns@operator.example")
	if rs != nil {
		b.change(tb, nil, rs)
	}
	var err error
	if b.server, err = nameserver.New(b.zone, cfg, slog.New(slog.DiscardHandler), b.reg); err != nil {
		tb.Fatal(err)
	}
	p, err := net.ListenPacket("udp", b.addr.String())
	if err != nil {
		tb.Fatal(err)
	}
	l, err := net.Listen("tcp", b.addr.String())
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.server.Serve(ctx, []net.PacketConn{p}, []net.Listener{l}) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Error(err)
		}
	})

	return b
}

// change makes a version, and notifies the secondaries.
func (b *bed) change(tb testing.TB, removed, added []zone.Record) {
	tb.Helper()
	next := b.at.Next(0)
	if err := b.zone.Apply(&zone.Version{From: b.at, To: next, Removed: removed, Added: added}); err != nil {
		tb.Fatal(err)
	}
	b.at = next
	if b.server != nil {
		b.server.Changed()
	}
}

// exchange sends bytes over UDP or TCP and returns those that come back.
func exchange(tb testing.TB, network string, to netip.AddrPort, b []byte) []byte {
	tb.Helper()
	c, err := net.Dial(network, to.String())
	if err != nil {
		tb.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		tb.Fatal(err)
	}
	if network == "tcp" {
		b = append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
	}
	dc := &dns.Conn{Conn: c, UDPSize: 65535}
	for limit := time.Now().Add(patience); ; {
		if _, err := c.Write(b); err != nil {
			tb.Fatal(err)
		}
		if network == "udp" { // datagrams are lost on a busy machine, so ask again
			if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
				tb.Fatal(err)
			}
		}
		res, err := dc.ReadMsgHeader(nil)
		if err == nil {
			return res
		}
		if network != "udp" || !errors.Is(err, os.ErrDeadlineExceeded) || time.Now().After(limit) {
			tb.Fatal(err)
		}
	}
}

// ask sends a question that opts may change, and returns the response.
func (b *bed) ask(tb testing.TB, network, name string, kind uint16, opts ...func(*dns.Msg)) *dns.Msg {
	tb.Helper()
	m := new(dns.Msg).SetQuestion(name, kind)
	for _, o := range opts {
		o(m)
	}
	data, err := m.Pack()
	if err != nil {
		tb.Fatal(err)
	}
	data = exchange(tb, network, b.addr, data)
	r := new(dns.Msg)
	if err := r.Unpack(data); err != nil {
		tb.Fatal(err)
	}
	if r.Id != m.Id || !r.Response || r.RecursionAvailable || r.AuthenticatedData {
		tb.Errorf("header of the answer: %+v", r.MsgHdr)
	}
	if !strings.Contains(string(data), wire(name)) {
		tb.Errorf("the question is not repeated byte for byte: %q", data)
	}

	return r
}

func wire(name string) string {
	b := make([]byte, 256)
	n, err := dns.PackDomainName(name, b, 0, nil, false)
	if err != nil {
		panic(err)
	}

	return string(b[:n])
}

func texts(rrs []dns.RR) []string {
	var list []string
	for _, rr := range rrs {
		list = append(list, strings.ToLower(strings.Join(strings.Fields(rr.String()), " ")))
	}
	slices.Sort(list)

	return list
}

// An existing name without the type is no error, also with an unknown type or with names below it only; an answer is
// authoritative for names in the zone only (RFC 2308 §2, RFC 4592 §2.2.2, RFC 8020 §2, RFC 8906 §3.1).
func TestAnswers(t *testing.T) {
	b := serve(t, nameserver.Config{}, records())
	for _, network := range []string{"udp", "tcp"} {
		for _, name := range []string{"_tcp.r1.", "r1.", "acme.1r1.", ""} {
			for _, kind := range []uint16{dns.TypeDS, dns.TypeHTTPS, dns.TypeCNAME, dns.TypeMX, 64999} {
				r := b.ask(t, network, name+origin, kind)
				if r.Rcode != dns.RcodeSuccess || len(r.Answer) != 0 || len(r.Ns) != 1 || !r.Authoritative {
					t.Errorf("%s type %d over %s: %v", name+origin, kind, network, r)
				}
			}
		}
		r := b.ask(t, network, "aCmE.1r1.CuStOmErS.example.", dns.TypeTXT)
		if len(r.Answer) != 1 || r.Answer[0].(*dns.TXT).Txt[0] != "MS=ms10000001" {
			t.Errorf("TXT of a name in mixed case over %s: %v", network, r)
		}
		r = b.ask(t, network, "nosuch.1r1."+origin, dns.TypeA)
		if r.Rcode != dns.RcodeNameError || len(r.Ns) != 1 || r.Ns[0].Header().Ttl > 60 || !r.Authoritative {
			t.Errorf("a name that does not exist: %v", r)
		}
		for name, x := range map[string]struct {
			rcode int
			opt   func(*dns.Msg)
		}{
			"another zone": {dns.RcodeRefused, func(m *dns.Msg) { m.Question[0].Name = "www.elsewhere.example." }},
			"class CH":     {dns.RcodeRefused, func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }},
			"STATUS":       {dns.RcodeNotImplemented, func(m *dns.Msg) { m.Opcode = dns.OpcodeStatus }},
			"UPDATE":       {dns.RcodeNotImplemented, func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }},
			"TKEY":         {dns.RcodeFormatError, func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeTKEY }},
			"two questions": {dns.RcodeFormatError, func(m *dns.Msg) {
				m.Question = append(m.Question, dns.Question{Name: ".", Qtype: 1, Qclass: 1})
			}},
			"no question": {dns.RcodeFormatError, func(m *dns.Msg) { m.Question = nil }},
		} {
			m := new(dns.Msg).SetQuestion("r1."+origin, dns.TypeA)
			x.opt(m)
			data, err := m.Pack()
			if err != nil {
				t.Fatal(err)
			}
			r := new(dns.Msg)
			if err := r.Unpack(exchange(t, network, b.addr, data)); err != nil {
				t.Fatal(err)
			}
			if r.Rcode != x.rcode || r.Id != m.Id || r.Opcode != m.Opcode || r.Authoritative {
				t.Errorf("%s over %s: %v, want %s", name, network, r, dns.RcodeToString[x.rcode])
			}
		}
	}

	// A zone that has not been loaded denies no name.
	if r := serve(t, nameserver.Config{}, nil).ask(t, "udp", origin, dns.TypeSOA); r.Rcode != dns.RcodeServerFailure {
		t.Errorf("without a zone: %v", r)
	}
}

func edns(size uint16, options ...dns.EDNS0) func(*dns.Msg) {
	return func(m *dns.Msg) {
		m.SetEdns0(size, false)
		m.IsEdns0().Option = options
	}
}

// EDNS(0) as in RFC 6891 §6 and §7.
func TestEDNS(t *testing.T) {
	rs := records()
	for i := range 20 {
		rs = append(rs, zone.Text("long", 60, fmt.Sprint(i, strings.Repeat("x", 30)))) // > 512 and ≤ 1232 bytes
	}
	for i := range 60 {
		rs = append(rs, zone.Text("huge", 60, fmt.Sprint(i, strings.Repeat("x", 30))))
	}
	b := serve(t, nameserver.Config{}, rs)

	for name, x := range map[string]struct {
		host string
		opts []func(*dns.Msg)
		ok   func(r *dns.Msg) bool
	}{
		"no OPT": {"acme.1r1.", nil, func(r *dns.Msg) bool { return r.IsEdns0() == nil && len(r.Answer) == 1 }},
		"no OPT, long": {"long.", nil,
			func(r *dns.Msg) bool { return r.IsEdns0() == nil && r.Truncated && len(r.Answer) == 0 }},
		"100 bytes": {"acme.1r1.", []func(*dns.Msg){edns(100)},
			func(r *dns.Msg) bool { return r.IsEdns0() != nil && len(r.Answer) == 1 }},
		"100 bytes, long": {"long.", []func(*dns.Msg){edns(100)},
			func(r *dns.Msg) bool { return r.IsEdns0() != nil && r.Truncated }},
		"1232 bytes, long": {"long.", []func(*dns.Msg){edns(1232)},
			func(r *dns.Msg) bool { return !r.Truncated && len(r.Answer) == 20 }},
		"65535 bytes, huge": {"huge.", []func(*dns.Msg){edns(65535)},
			func(r *dns.Msg) bool { return r.Truncated && r.IsEdns0() != nil }},
		"an unknown option": {"acme.1r1.",
			[]func(*dns.Msg){edns(1232, &dns.EDNS0_LOCAL{Code: 65001, Data: make([]byte, 100)})},
			func(r *dns.Msg) bool { return len(r.Answer) == 1 && len(r.IsEdns0().Option) == 0 }},
		"version 1": {"acme.1r1.", []func(*dns.Msg){edns(1232), func(m *dns.Msg) { m.IsEdns0().SetVersion(1) }},
			func(r *dns.Msg) bool {
				return r.Rcode == dns.RcodeBadVers && r.IsEdns0().Version() == 0 && len(r.Question) == 1 &&
					r.Answer == nil
			}},
		"two": {"acme.1r1.", []func(*dns.Msg){edns(1232), func(m *dns.Msg) { m.Extra = append(m.Extra, m.Extra[0]) }},
			func(r *dns.Msg) bool { return r.Rcode == dns.RcodeFormatError && r.IsEdns0() != nil }},
		"DNSSEC OK": {"acme.1r1.", []func(*dns.Msg){edns(1232), func(m *dns.Msg) { m.IsEdns0().SetDo() }},
			func(r *dns.Msg) bool { return r.IsEdns0().Do() && len(r.Answer) == 1 }},
	} {
		if r := b.ask(t, "udp", x.host+origin, dns.TypeTXT, x.opts...); !x.ok(r) {
			t.Errorf("%s: %v", name, r)
		}
	}
	if n := b.value(t, "tandem_zone_queries_total", "BADVERS"); n != 1 {
		t.Errorf("%v requests counted with BADVERS", n)
	}
	if r := b.ask(t, "tcp", "huge."+origin, dns.TypeTXT); len(r.Answer) != 60 {
		t.Errorf("over TCP: %d records", len(r.Answer))
	}
}

// text returns the zone as a file for other servers.
func (b *bed) text() string {
	var s strings.Builder
	for _, rr := range b.zone.All() {
		fmt.Fprintln(&s, rr)
	}

	return s.String()
}

// TestLikeBIND compares the answers for all names, types and classes, and for unusual messages, with those of BIND for
// the same zone file. They differ on purpose in this:
//
//   - A positive answer has no NS records in the authority section; BIND adds those of the zone.
//   - The additional section has the addresses of the hosts in the answer, over TCP however many they are, and not
//     those of hosts in the authority section. A truncated answer has no records.
//   - ANY gets the records of one type (RFC 8482 §4.1), not of all.
//   - Class ANY is answered, without authority; BIND says FORMERR. Class NONE is REFUSED; BIND says FORMERR.
//   - A transfer of a name that is no zone is REFUSED; BIND says NOTAUTH. NOTIFY is REFUSED; BIND says FORMERR.
//   - FORMERR for two OPT records has one itself; STATUS and FORMERR repeat the question.
func TestLikeBIND(t *testing.T) {
	rs := append(records(), zone.Text("big.1r1", 60, strings.Repeat("long ", 40)))
	for i := range 40 {
		rs = append(rs, zone.Text("big.1r1", 60, fmt.Sprint(i, strings.Repeat("x", 100))))
		host := fmt.Sprint("e", i, ".r9")
		rs = append(rs, zone.Service("_sip._tcp.r9", 60, 10, 10, 5060, host+"."+origin), address(host, "192.0.2.1"))
	}
	b := serve(t, nameserver.Config{}, rs)
	text := b.text()
	text = text[:strings.LastIndexByte(strings.TrimSpace(text), '\n')+1] // the SOA record once
	bind := dnspeer.BINDPrimary(t, origin, text, "")
	bind.Until(t, "it has the zone", func(ctx context.Context) bool { return bind.Serial(ctx, origin) != 0 })
	like := &bed{zone: b.zone, addr: bind.Addr}

	names := []string{"nosuch.", "nosuch.1r1.", "x.acme.1r1.", "_sips.", "_tcp.r1.", "_udp.r1.", "1r3.", "*.1r1.",
		"r9.", `acme\.1r1.`, "ACME.1r1."}
	for _, r := range records() {
		names = append(names, strings.TrimPrefix(r.Name+".", "@."))
	}
	slices.Sort(names)
	kinds := []uint16{dns.TypeSOA, dns.TypeNS, dns.TypeA, dns.TypeAAAA, dns.TypeTXT, dns.TypeSRV, dns.TypeCAA,
		dns.TypeMX, dns.TypeCNAME, dns.TypeDNAME, dns.TypeDS, dns.TypeDNSKEY, dns.TypeRRSIG, dns.TypeNSEC,
		dns.TypePTR, dns.TypeHTTPS, dns.TypeTLSA, 64999, 65535}
	asked := 0
	compare := func(network, name string, kind uint16, opts ...func(*dns.Msg)) {
		t.Helper()
		want, got := like.ask(t, network, name, kind, opts...), b.ask(t, network, name, kind, opts...)
		asked++
		for _, r := range []*dns.Msg{want, got} {
			hosts := map[string]bool{}
			for _, rr := range r.Answer[:len(r.Answer)%20] { // BIND adds no addresses of many hosts
				switch rr := rr.(type) {
				case *dns.NS:
					hosts[rr.Ns] = true
				case *dns.SRV:
					hosts[rr.Target] = true
				}
			}
			if len(r.Answer) > 0 || r.Truncated {
				r.Ns = nil
			}
			opt := r.IsEdns0()
			r.Extra = slices.DeleteFunc(r.Extra, func(rr dns.RR) bool { return !hosts[rr.Header().Name] })
			if opt != nil { // options aside
				r.Extra = append(r.Extra, &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT, Class: 1232,
					Ttl: opt.Hdr.Ttl}})
			}
			if r.Truncated {
				r.Answer = nil // a reader ignores them (RFC 2181 §9)
			}
			r.Id = 0
		}
		if diff := cmp.Diff(want.MsgHdr, got.MsgHdr); diff != "" {
			t.Errorf("%s type %d over %s: header:\n%s", name, kind, network, diff)
		}
		for i, x := range [][2][]dns.RR{{want.Answer, got.Answer}, {want.Ns, got.Ns}, {want.Extra, got.Extra}} {
			if diff := cmp.Diff(texts(x[0]), texts(x[1])); diff != "" {
				t.Errorf("%s type %d over %s: section %d:\n%s", name, kind, network, i+1, diff)
			}
		}
	}

	for _, network := range []string{"udp", "tcp"} {
		for _, name := range slices.Compact(names) {
			for _, kind := range kinds {
				compare(network, name+origin, kind, edns(1232))
				compare(network, name+origin, kind)
			}
		}
		for _, name := range []string{"big.1r1.", "_sip._tcp.r9."} { // larger than a datagram
			for _, kind := range []uint16{dns.TypeTXT, dns.TypeSRV, dns.TypeA} {
				for _, size := range []uint16{0, 512, 1232, 4096} {
					compare(network, name+origin, kind, edns(size))
				}
				compare(network, name+origin, kind)
			}
		}
		for _, name := range []string{".", "example.", "elsewhere.example.", "xcustomers.example.", "com.",
			`acme\.customers.example.`} {
			compare(network, name, dns.TypeA, edns(1232))
		}
		for _, change := range map[string]func(*dns.Msg){
			"DO":        func(m *dns.Msg) { m.IsEdns0().SetDo() },
			"version 1": func(m *dns.Msg) { m.IsEdns0().SetVersion(1) },
			"AD, CD":    func(m *dns.Msg) { m.AuthenticatedData, m.CheckingDisabled, m.Zero = true, true, true },
			"RD":        func(m *dns.Msg) { m.RecursionDesired = true },
			"TC":        func(m *dns.Msg) { m.Truncated, m.Authoritative, m.RecursionAvailable = true, true, true },
			"class CH":  func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS },
			"MAILB":     func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeMAILB },
			"TSIG":      func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeTSIG },
			"TKEY":      func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeTKEY },
			"OPT":       func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeOPT },
		} {
			compare(network, "acme.1r1."+origin, dns.TypeTXT, edns(1232), change)
		}
	}
	t.Logf("%d answers compared", asked)
}

// A resolver that minimises its queries strictly, and varies their case, finds a name below names without records.
func TestUnbound(t *testing.T) {
	b := serve(t, nameserver.Config{}, records())
	resolver := dnspeer.Unbound(t, dnspeer.Address(t), b.addr, origin)
	for name, kind := range map[string]uint16{"_sips._tcp.r1." + origin: dns.TypeSRV, "acme.1r2." + origin: dns.TypeTXT,
		"provapi." + origin: dns.TypeA} {
		r, err := resolver.Ask(t.Context(), "udp", name, kind)
		if err != nil || r.Rcode != dns.RcodeSuccess || len(r.Answer) == 0 {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
}
