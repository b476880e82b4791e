package nameserver_test

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/tandemgw/tandem/internal/zone"
	"github.com/tandemgw/tandem/internal/zone/nameserver"
)

// raw sends a message of which the test made every byte, and returns the response.
func (b *bed) raw(tb testing.TB, network string, data []byte) *dns.Msg {
	tb.Helper()
	r := new(dns.Msg)
	if err := r.Unpack(exchange(tb, network, b.addr, data)); err != nil {
		tb.Fatal(err)
	}

	return r
}

// Rows 1 and 2: messages that are valid but unusual, and malformed ones that a server must still answer well.
func TestUnusual(t *testing.T) {
	b := serve(t, nameserver.Config{}, records())
	option := func(code uint16, size int) func(*dns.Msg) {
		return edns(1232, &dns.EDNS0_LOCAL{Code: code, Data: slices.Repeat([]byte{0xff}, size)})
	}
	question := func(name string, kind, class uint16) func(*dns.Msg) {
		return func(m *dns.Msg) { m.Question[0] = dns.Question{Name: name, Qtype: kind, Qclass: class} }
	}
	tsig := &dns.TSIG{Hdr: dns.RR_Header{Name: keyName + ".", Rrtype: dns.TypeTSIG, Class: dns.ClassANY},
		Algorithm: dns.HmacSHA256, TimeSigned: uint64(now()), Fudge: 300, MACSize: 32,
		MAC: strings.Repeat("00", 32)}
	long := strings.Repeat(strings.Repeat("a", 63)+".", 3)
	type want struct {
		rcode, answers int
		aa, opt        bool
	}
	ok := want{answers: 1, aa: true}
	okOPT := want{answers: 1, aa: true, opt: true}

	for name, x := range map[string]struct {
		opts []func(*dns.Msg)
		want want
	}{
		// Row 1.
		"a dot within a label, at the base": {[]func(*dns.Msg){question(`acme.1r1\.`+origin, dns.TypeA, 1)},
			want{rcode: dns.RcodeRefused}},
		"a dot within a label, below a name": {[]func(*dns.Msg){question(`acme\.1r1.`+origin, dns.TypeA, 1)},
			want{rcode: dns.RcodeNameError, aa: true}},
		"a backslash before the base": {[]func(*dns.Msg){question(`x\\.`+origin, dns.TypeA, 1)},
			want{rcode: dns.RcodeNameError, aa: true}},
		"an asterisk": {[]func(*dns.Msg){question("*.1r1."+origin, dns.TypeA, 1)},
			want{rcode: dns.RcodeNameError, aa: true}},
		"bytes above 127": {[]func(*dns.Msg){question(`\195\132cme.1r1.`+origin, dns.TypeA, 1)},
			want{rcode: dns.RcodeNameError, aa: true}},
		"the longest name": {[]func(*dns.Msg){question(long+strings.Repeat("b", 253-len(long)-len(origin))+"."+origin,
			dns.TypeA, 1)}, want{rcode: dns.RcodeNameError, aa: true}},
		"the root":   {[]func(*dns.Msg){question(".", dns.TypeNS, 1)}, want{rcode: dns.RcodeRefused}},
		"the parent": {[]func(*dns.Msg){question("example.", dns.TypeNS, 1)}, want{rcode: dns.RcodeRefused}},
		"type 0":     {[]func(*dns.Msg){question("acme.1r1."+origin, 0, 1)}, want{aa: true}},
		"type 65535": {[]func(*dns.Msg){question("acme.1r1."+origin, 65535, 1)}, want{aa: true}},
		"RRSIG":      {[]func(*dns.Msg){question(origin, dns.TypeRRSIG, 1)}, want{aa: true}},
		"class NONE": {[]func(*dns.Msg){question("acme.1r1."+origin, dns.TypeA, dns.ClassNONE)},
			want{rcode: dns.RcodeRefused}},
		"class 0": {[]func(*dns.Msg){question("acme.1r1."+origin, dns.TypeA, 0)}, want{rcode: dns.RcodeRefused}},
		"class ANY": {[]func(*dns.Msg){question("acme.1r1."+origin, dns.TypeTXT, dns.ClassANY)},
			want{answers: 1}}, // never authoritative: RFC 1035 §6.2
		"version.bind": {[]func(*dns.Msg){question("version.bind.", dns.TypeTXT, dns.ClassCHAOS)},
			want{rcode: dns.RcodeRefused}},
		"IQUERY": {[]func(*dns.Msg){func(m *dns.Msg) { m.Opcode = dns.OpcodeIQuery }},
			want{rcode: dns.RcodeNotImplemented}},
		"opcode 3": {[]func(*dns.Msg){func(m *dns.Msg) { m.Opcode = 3 }}, want{rcode: dns.RcodeNotImplemented}},
		"opcode 6": {[]func(*dns.Msg){func(m *dns.Msg) { m.Opcode = 6 }}, want{rcode: dns.RcodeNotImplemented}},
		"opcode 15, no question": {[]func(*dns.Msg){func(m *dns.Msg) { m.Opcode, m.Question = 15, nil }},
			want{rcode: dns.RcodeNotImplemented}},
		"AD, CD, RD and Z": {[]func(*dns.Msg){func(m *dns.Msg) {
			m.AuthenticatedData, m.CheckingDisabled, m.RecursionDesired, m.Zero = true, true, true, true
		}}, ok},
		"TC, AA, RA and an rcode": {[]func(*dns.Msg){func(m *dns.Msg) {
			m.Truncated, m.Authoritative, m.RecursionAvailable, m.Rcode = true, true, true, 5
		}}, ok},
		// Row 2.
		"STATUS with OPT": {[]func(*dns.Msg){func(m *dns.Msg) { m.Opcode = dns.OpcodeStatus }, edns(1232)},
			want{rcode: dns.RcodeNotImplemented, opt: true}},
		"UPDATE with OPT": {[]func(*dns.Msg){func(m *dns.Msg) {
			m.SetUpdate(origin)
			m.Insert([]dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: "x." + origin, Rrtype: 16, Class: 1, Ttl: 1},
				Txt: []string{"x"}}, &dns.TXT{Hdr: dns.RR_Header{Name: "y." + origin, Rrtype: 16, Class: 1},
				Txt: []string{"y"}}})
		}, edns(1232)}, want{rcode: dns.RcodeNotImplemented, opt: true}},
		"no question, with OPT": {[]func(*dns.Msg){func(m *dns.Msg) { m.Question = nil }, edns(1232)},
			want{rcode: dns.RcodeFormatError, opt: true}},
		"two questions, with OPT": {[]func(*dns.Msg){func(m *dns.Msg) {
			m.Question = append(m.Question, m.Question[0])
		}, edns(1232)}, want{rcode: dns.RcodeFormatError, opt: true}},
		"another zone, with OPT": {[]func(*dns.Msg){question("www.elsewhere.example.", 1, 1), edns(1232)},
			want{rcode: dns.RcodeRefused, opt: true}},
		"three OPT": {[]func(*dns.Msg){edns(1232), func(m *dns.Msg) {
			m.Extra = append(m.Extra, m.Extra[0], m.Extra[0])
		}}, want{rcode: dns.RcodeFormatError, opt: true}},
		"OPT in the answer section": {[]func(*dns.Msg){edns(1232), func(m *dns.Msg) {
			m.Answer, m.Extra = m.Extra, nil
		}}, want{rcode: dns.RcodeFormatError, opt: true}},
		"OPT in the authority section": {[]func(*dns.Msg){edns(1232), func(m *dns.Msg) {
			m.Ns, m.Extra = m.Extra, nil
		}}, want{rcode: dns.RcodeFormatError, opt: true}},
		"OPT of another name": {[]func(*dns.Msg){edns(1232), func(m *dns.Msg) { m.Extra[0].Header().Name = "x." }},
			want{rcode: dns.RcodeFormatError, opt: true}},
		"OPT and other records": {[]func(*dns.Msg){edns(1232), func(m *dns.Msg) {
			for range 3 {
				m.Extra = append(m.Extra, &dns.A{Hdr: dns.RR_Header{Name: "x.", Rrtype: 1, Class: 1},
					A: net.IPv4(1, 2, 3, 4)})
			}
		}}, okOPT},
		"size 0":     {[]func(*dns.Msg){edns(0)}, okOPT},
		"size 65535": {[]func(*dns.Msg){edns(65535)}, okOPT},
		"version 255": {[]func(*dns.Msg){edns(1232), func(m *dns.Msg) { m.IsEdns0().SetVersion(255) }},
			want{rcode: dns.RcodeBadVers, opt: true}},
		"EDNS flags": {[]func(*dns.Msg){edns(1232), func(m *dns.Msg) { m.Extra[0].Header().Ttl |= 0x7fff }}, okOPT},
		"100 options": {[]func(*dns.Msg){edns(1232, slices.Repeat([]dns.EDNS0{&dns.EDNS0_LOCAL{Code: 65002}},
			100)...)}, okOPT},
		"padding": {[]func(*dns.Msg){edns(1232, &dns.EDNS0_PADDING{Padding: make([]byte, 200)})}, okOPT},
		"TSIG before OPT": {[]func(*dns.Msg){edns(1232), func(m *dns.Msg) { m.Extra = []dns.RR{tsig, m.Extra[0]} }},
			want{rcode: dns.RcodeFormatError, opt: true}},
		"two TSIG": {[]func(*dns.Msg){func(m *dns.Msg) { m.Extra = []dns.RR{tsig, tsig} }},
			want{rcode: dns.RcodeFormatError}},
		"TSIG in the answer section": {[]func(*dns.Msg){func(m *dns.Msg) { m.Answer = []dns.RR{tsig} }},
			want{rcode: dns.RcodeFormatError}},
	} {
		for _, network := range []string{"udp", "tcp"} {
			m := new(dns.Msg).SetQuestion("acme.1r1."+origin, dns.TypeTXT)
			for _, o := range x.opts {
				o(m)
			}
			data, err := m.Pack()
			if err != nil {
				t.Fatal(name, err)
			}
			r := b.raw(t, network, data)
			got := want{r.Rcode, len(r.Answer), r.Authoritative, r.IsEdns0() != nil}
			if got != x.want || r.Id != m.Id || !r.Response || r.Opcode != m.Opcode || r.RecursionAvailable ||
				r.AuthenticatedData || r.Zero || r.Truncated || r.Rcode != dns.RcodeNotImplemented &&
				len(m.Question) == 1 && len(r.Question) != 1 {
				t.Errorf("%s over %s: %+v, want %+v: %v", name, network, got, x.want, r)
			}
			if o := r.IsEdns0(); o != nil && (o.Version() != 0 || len(o.Option) > 0 || o.Hdr.Ttl&0x7fff != 0) {
				t.Errorf("%s over %s: OPT %v", name, network, o)
			}
		}
	}

	// An option that this server does not use is not looked into, whatever its content (RFC 6891 §6.1.2).
	for code := range uint16(21) {
		for _, size := range []int{0, 1, 3, 100} {
			if r := b.ask(t, "udp", "acme.1r1."+origin, dns.TypeTXT, option(code, size)); r.Rcode != 0 ||
				len(r.Answer) != 1 || r.IsEdns0() == nil || len(r.IsEdns0().Option) != 0 {
				t.Errorf("option %d of %d bytes: %v", code, size, r)
			}
		}
	}
}

// Row 1 and 2: what is no message at all.
func TestNoMessage(t *testing.T) {
	b := serve(t, nameserver.Config{}, records())
	q, err := new(dns.Msg).SetQuestion("acme.1r1."+origin, dns.TypeTXT).Pack()
	if err != nil {
		t.Fatal(err)
	}
	loop := slices.Clone(q)
	copy(loop[12:], []byte{0xc0, 12})
	ahead := slices.Clone(q)
	copy(ahead[12:], []byte{0xc0, 200})
	behind := append(slices.Concat(q[:12], []byte{0xc0, 18}, q[len(q)-4:]), q[12:]...)
	more := func(section int) []byte {
		m := slices.Clone(q)
		m[7+2*section] = 1
		return m
	}
	half := append(more(2), 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 1) // an OPT record without its last byte

	for name, x := range map[string]struct {
		data  []byte
		rcode int
	}{
		"a name that points to itself": {loop, dns.RcodeFormatError},
		"a name that points ahead":     {ahead, dns.RcodeFormatError},
		"a name after the question":    {behind, dns.RcodeFormatError},
		"no answer, which it counts":   {more(0), dns.RcodeFormatError},
		"no authority":                 {more(1), dns.RcodeFormatError},
		"no additional record":         {more(2), dns.RcodeFormatError},
		"half an OPT record":           {half, dns.RcodeFormatError},
		"a label of 64 bytes":          {append(slices.Clone(q[:12]), 64, 'a'), dns.RcodeFormatError},
		"half a question":              {q[:20], dns.RcodeFormatError},
		"bytes after the message":      {append(slices.Clone(q), 1, 2, 3), 0},
	} {
		for _, network := range []string{"udp", "tcp"} {
			if r := b.raw(t, network, x.data); r.Rcode != x.rcode || !r.Response || len(r.Answer) > 0 && x.rcode > 0 {
				t.Errorf("%s over %s: %v", name, network, r)
			}
		}
	}

	// A response is never answered, because two servers would answer each other without end; nor is half a header.
	for name, data := range map[string][]byte{"a response": append(slices.Clone(q[:2]), append([]byte{q[2] | 0x80},
		q[3:]...)...), "half a header": q[:11]} {
		c, err := net.Dial("udp", b.addr.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, x := range [][]byte{data, q} { // the answer to the second question is the first that comes
			if _, err := c.Write(x); err != nil {
				t.Fatal(err)
			}
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		r, err := (&dns.Conn{Conn: c}).ReadMsg()
		if err != nil || r.Rcode != 0 || len(r.Answer) != 1 {
			t.Errorf("%s: %v %v", name, r, err)
		}
	}
}

// Row 3: what is wrong with a signature is said as RFC 8945 §5.2 has it, and nothing of the zone.
func TestSignatures(t *testing.T) {
	b := serve(t, nameserver.Config{Secondaries: []nameserver.Secondary{secondary(t, "listed", addrOf("127.0.0.1"))}},
		records())
	for name, x := range map[string]struct {
		at           int64
		change       func(m []byte, mac int) []byte // mac is where the MAC is
		rcode, error int
	}{
		"valid":                {},
		"a clock 299 s behind": {at: -290},
		"a clock 301 s behind": {at: -310, rcode: dns.RcodeNotAuth, error: dns.RcodeBadTime},
		"a clock a year ahead": {at: 365 * 86400, rcode: dns.RcodeNotAuth, error: dns.RcodeBadTime},
		"half of the signature": {change: func(m []byte, at int) []byte { return shorten(m, at, 16) },
			rcode: dns.RcodeNotAuth, error: dns.RcodeBadTrunc},
		"31 of 32 bytes": {change: func(m []byte, at int) []byte { return shorten(m, at, 31) },
			rcode: dns.RcodeNotAuth, error: dns.RcodeBadTrunc},
		"half, and wrong": {change: func(m []byte, at int) []byte { m[at]++; return shorten(m, at, 16) },
			rcode: dns.RcodeNotAuth, error: dns.RcodeBadSig},
		"15 bytes": {change: func(m []byte, at int) []byte { return shorten(m, at, 15) },
			rcode: dns.RcodeFormatError},
		"no bytes": {change: func(m []byte, at int) []byte { return shorten(m, at, 0) },
			rcode: dns.RcodeFormatError},
		"33 bytes": {change: func(m []byte, at int) []byte { return shorten(m, at, 33) },
			rcode: dns.RcodeFormatError},
		"a wrong byte": {change: func(m []byte, at int) []byte { m[at+31] ^= 1; return m },
			rcode: dns.RcodeNotAuth, error: dns.RcodeBadSig},
		"another question": {change: func(m []byte, _ int) []byte { m[13] ^= 0x20; return m },
			rcode: dns.RcodeNotAuth, error: dns.RcodeBadSig},
	} {
		for _, kind := range []uint16{dns.TypeAXFR, dns.TypeSOA} {
			m := new(dns.Msg).SetQuestion(origin, kind)
			m.SetTsig(keyName+".", dns.HmacSHA256, 300, now()+x.at)
			data, mac, err := dns.TsigGenerate(m, base64.StdEncoding.EncodeToString(secret), "", false)
			if err != nil {
				t.Fatal(err)
			}
			if x.change != nil {
				sum, _ := hex.DecodeString(mac)
				data = x.change(data, strings.Index(string(data), string(sum)))
			}
			answer := exchange(t, "tcp", b.addr, data)
			r := new(dns.Msg)
			if err := r.Unpack(answer); err != nil {
				t.Fatal(err)
			}
			code := 0
			if s := r.IsTsig(); s != nil {
				code = int(s.Error)
			}
			if r.Rcode != x.rcode || code != x.error || (len(r.Answer) > 0) != (x.rcode == 0) {
				t.Errorf("%s, %s: %v", name, dns.TypeToString[kind], r)
			}
			if code == dns.RcodeBadTime { // signed, with the server's clock
				s := r.IsTsig()
				sum, _ := hex.DecodeString(s.OtherData)
				if len(sum) != 6 || s.MACSize != 32 {
					t.Errorf("%s: %v", name, s)
				}
			}
		}
	}
}

// shorten leaves n bytes of the signature at a place in a message.
func shorten(m []byte, at, n int) []byte {
	mac := append(slices.Clone(m[at:at+32]), 7)[:n]
	head, tail := slices.Clone(m[:at]), m[at+32:]
	binary.BigEndian.PutUint16(head[at-2:], uint16(n))
	// The length of the record's data is before the algorithm's name, time (6), fudge (2) and size (2).
	length := at - 10 - len(wire(dns.HmacSHA256)) - 2
	binary.BigEndian.PutUint16(head[length:], binary.BigEndian.Uint16(head[length:])-32+uint16(n))

	return slices.Concat(head, mac, tail)
}

// Row 4: every kind of asker of an incremental transfer.
func TestIncremental(t *testing.T) {
	b := serve(t, nameserver.Config{Secondaries: []nameserver.Secondary{secondary(t, "listed", addrOf("127.0.0.1"))}},
		records())
	first := b.at
	for i := range 700 {
		r := zone.Text("_acme-challenge.1r1", 60, fmt.Sprint("challenge ", i))
		b.change(t, nil, []zone.Record{r})
		b.change(t, []zone.Record{r}, nil)
	}
	size := len(b.zone.All())

	ask := func(network string, serial uint32, change func(*dns.Msg)) *dns.Msg {
		t.Helper()
		m := new(dns.Msg).SetIxfr(origin, serial, "ns1."+origin, "dns."+origin)
		change(m)
		m.SetTsig(keyName+".", dns.HmacSHA256, 300, now())
		data, _, err := dns.TsigGenerate(m, base64.StdEncoding.EncodeToString(secret), "", false)
		if err != nil {
			t.Fatal(err)
		}

		return b.raw(t, network, data)
	}
	for name, x := range map[string]struct {
		network string
		serial  uint32
		answers int
	}{
		"the present one":         {"tcp", uint32(b.at), 1},
		"a newer one":             {"tcp", uint32(b.at) + 7, 1},
		"the last one":            {"tcp", uint32(b.at) - 1, 5},
		"ten changes ago":         {"tcp", uint32(b.at) - 10, 32},
		"one that was dropped":    {"tcp", uint32(first), size},
		"one that never was":      {"tcp", uint32(first) - 1, size},
		"half the circle away":    {"tcp", uint32(b.at) + 1<<31, size},
		"0":                       {"tcp", 0, size},
		"over UDP, the last one":  {"udp", uint32(b.at) - 1, 1},
		"over UDP, a dropped one": {"udp", uint32(first), 1},
		"over UDP, a newer one":   {"udp", uint32(b.at) + 7, 1},
	} {
		r := ask(x.network, x.serial, func(*dns.Msg) {})
		soa, ok := r.Answer[0].(*dns.SOA)
		if r.Rcode != 0 || len(r.Answer) != x.answers || !ok || soa.Serial != uint32(b.at) {
			t.Errorf("%s: %d answers, want %d: %v", name, len(r.Answer), x.answers, r)
		}
	}
	for name, change := range map[string]func(*dns.Msg){
		"no SOA record": func(m *dns.Msg) { m.Ns = nil },
		"no SOA but NS": func(m *dns.Msg) {
			m.Ns[0] = &dns.NS{Hdr: dns.RR_Header{Name: origin, Rrtype: 2,
				Class: 1}, Ns: "x."}
		},
		"of a name below": func(m *dns.Msg) { m.Ns[0].Header().Name = "1r1." + origin },
	} {
		if r := ask("tcp", 1, change); r.Rcode != dns.RcodeFormatError || len(r.Answer) != 0 {
			t.Errorf("%s: %v", name, r)
		}
	}
}

// Rows 1 and 2: several questions on one connection, in pieces and at once, are all answered.
func TestPipeline(t *testing.T) {
	b := serve(t, nameserver.Config{}, records())
	c, err := net.Dial("tcp", b.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	var all []byte
	for i := range 100 {
		m := new(dns.Msg).SetQuestion("acme.1r1."+origin, dns.TypeTXT)
		m.Id = uint16(i)
		data, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		all = append(binary.BigEndian.AppendUint16(all, uint16(len(data))), data...)
	}
	for len(all) > 0 {
		n := min(len(all), 997)
		if _, err := c.Write(all[:n]); err != nil {
			t.Fatal(err)
		}
		all = all[n:]
	}
	got := map[uint16]bool{}
	for range 100 {
		r, err := (&dns.Conn{Conn: c}).ReadMsg()
		if err != nil || len(r.Answer) != 1 {
			t.Fatal(r, err)
		}
		got[r.Id] = true
	}
	if len(got) != 100 {
		t.Errorf("%d of 100 questions answered", len(got))
	}
}

// Rows 1 and 2: an answer that fits no message over TCP with the addresses of its hosts is sent without them.
func TestAdditionalTooLarge(t *testing.T) {
	rs := records()
	for i := range 300 {
		host := fmt.Sprint("edge", i, ".r1")
		rs = append(rs, zone.Service("_sip._udp.r1", 60, 10, 10, 5060, host+"."+origin))
		for j := range 12 {
			rs = append(rs, address(host, fmt.Sprintf("2001:db8::%x:%x", i, j)))
		}
	}
	b := serve(t, nameserver.Config{}, rs)
	if r := b.ask(t, "tcp", "_sip._udp.r1."+origin, dns.TypeSRV); len(r.Answer) != 300 || len(r.Extra) != 0 {
		t.Errorf("%d answers, %d additional records", len(r.Answer), len(r.Extra))
	}
	if r := b.ask(t, "udp", "_sip._udp.r1."+origin, dns.TypeSRV); len(r.Answer) != 0 || !r.Truncated {
		t.Errorf("over UDP: %d answers, truncated %v", len(r.Answer), r.Truncated)
	}
}

// Row 4: a secondary is notified from the address that it transfers from, the one that it knows.
func TestNotifySource(t *testing.T) {
	sec, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer sec.Close()
	at := sec.LocalAddr().(*net.UDPAddr).AddrPort()
	b := serve(t, nameserver.Config{Secondaries: []nameserver.Secondary{secondary(t, "x", at)}}, records())

	_ = sec.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 1232)
	n, from, err := sec.ReadFrom(buf)
	if err != nil {
		t.Fatal(err)
	}
	m := new(dns.Msg)
	if err := m.Unpack(buf[:n]); err != nil || m.Opcode != dns.OpcodeNotify {
		t.Fatal(m, err)
	}
	if ip := from.(*net.UDPAddr).AddrPort().Addr(); ip != b.addr.Addr() {
		t.Errorf("notified from %s; the server listens on %s", ip, b.addr.Addr())
	}
}

// A secondary that did not answer is notified of a change when it is made, not when the next repetition is due.
func TestNotifyAfterRefusals(t *testing.T) {
	p, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan uint32, 100)
	sink := &dns.Server{PacketConn: p, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		told <- q.Answer[0].(*dns.SOA).Serial
		_ = w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeRefused))
	})}
	sink.MsgAcceptFunc = func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }
	ended := make(chan error)
	go func() { ended <- sink.ActivateAndServe() }()
	t.Cleanup(func() {
		_ = p.Close()
		<-ended
	})

	b := serve(t, nameserver.Config{Secondaries: []nameserver.Secondary{secondary(t, "s",
		p.LocalAddr().(*net.UDPAddr).AddrPort())}}, records())
	late := time.After(patience)
	for i := range 8 { // repetitions alone would take minutes
		name := fmt.Sprint("new", i)
		b.change(t, nil, []zone.Record{address(name, "192.0.2.1")})
		for want := uint32(b.zone.Serial()); ; {
			select {
			case got := <-told:
				if got != want {
					continue
				}
			case <-late:
				t.Fatalf("change %d was not told", i)
			}
			break
		}
	}
}

// Row 2: a client that varies the case of a name, or asks for names that are not there, is limited all the same.
func TestLimitIgnoresCase(t *testing.T) {
	b := serve(t, nameserver.Config{AnswersPerSecond: 1}, records())
	c, err := net.Dial("udp", b.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	label := []byte("provapi")
	for range 100 {
		label[0] ^= 0x20
		for i := 1; label[i-1] >= 'a' && i < len(label); i++ {
			label[i] ^= 0x20
		}
		q, err := new(dns.Msg).SetQuestion(string(label)+"."+origin, dns.TypeA).Pack()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(q); err != nil {
			t.Fatal(err)
		}
	}
	for limit := time.Now().Add(patience); b.value(t, "tandem_zone_queries_total", "NOERROR") < 50; {
		if time.Now().After(limit) {
			t.Fatal("fewer than 50 of 100 questions arrived")
		}
		runtime.Gosched()
	}
	if n := b.value(t, "tandem_zone_answers_limited_total"); n == 0 {
		t.Error("no answer was limited")
	}
}
