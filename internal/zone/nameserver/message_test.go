package nameserver

import (
	"bytes"
	"testing"

	"github.com/miekg/dns"
)

// FuzzPlain hides the options of a message: nothing else of it changes, and what could be read still can be.
func FuzzPlain(f *testing.F) {
	for _, options := range [][]dns.EDNS0{nil, {&dns.EDNS0_LOCAL{Code: dns.EDNS0ZONEVERSION},
		&dns.EDNS0_LOCAL{Code: dns.EDNS0SUBNET, Data: []byte{0, 9, 1, 2, 3}}}} {
		m := new(dns.Msg).SetQuestion("acme.1r1.customers.example.", dns.TypeTXT)
		m.SetEdns0(1232, true)
		m.IsEdns0().Option = options
		m.Extra = append(m.Extra, &dns.NS{Hdr: dns.RR_Header{Name: "customers.example.", Rrtype: dns.TypeNS, Class: 1},
			Ns: "ns1.customers.example."})
		for _, compress := range []bool{false, true} {
			m.Compress = compress
			b, err := m.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}

	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		got := plain(b)
		if !bytes.Equal(b, before) || len(got) != len(b) && len(got) != headerSize {
			t.Fatal("the message was changed in place, or has another length")
		}
		if len(got) != len(b) { // malformed
			return
		}
		a, c := new(dns.Msg), new(dns.Msg)
		if a.Unpack(b) != nil {
			return
		}
		if err := c.Unpack(got); err != nil {
			t.Fatal(err)
		}
		for _, m := range []*dns.Msg{a, c} {
			for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
				for _, rr := range section {
					if o, ok := rr.(*dns.OPT); ok {
						o.Option = nil
					}
				}
			}
		}
		if a.String() != c.String() {
			t.Errorf("%v\nbecomes %v", a, c)
		}
	})
}
