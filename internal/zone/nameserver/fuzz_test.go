package nameserver_test

import (
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"net"
	"testing"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/zone"
	"github.com/tandemgw/tandem/internal/zone/nameserver"
)

// writer takes what the server writes, over UDP or TCP.
type writer struct {
	dns.ResponseWriter // nil: other methods are not called
	remote             net.Addr
	wrote              [][]byte
	status             error
}

func (w *writer) RemoteAddr() net.Addr { return w.remote }
func (w *writer) TsigStatus() error    { return w.status }
func (w *writer) Close() error         { return nil }
func (w *writer) WriteMsg(m *dns.Msg) error {
	b, err := m.Pack()
	w.wrote = append(w.wrote, b)
	return err
}

func (w *writer) Write(b []byte) (int, error) {
	w.wrote = append(w.wrote, b)
	return len(b), nil
}

// questions are valid messages that the fuzzer and the test of malformed packets change.
func questions(tb testing.TB) [][]byte {
	tb.Helper()
	var list [][]byte
	add := func(m *dns.Msg) {
		b, err := m.Pack()
		if err != nil {
			tb.Fatal(err)
		}
		list = append(list, b)
	}
	add(new(dns.Msg).SetQuestion("acme.1r1."+origin, dns.TypeTXT))
	add(new(dns.Msg).SetQuestion("_sips._tcp.r1."+origin, dns.TypeSRV).SetEdns0(1232, true))
	add(new(dns.Msg).SetQuestion(origin, dns.TypeANY))
	add(new(dns.Msg).SetAxfr(origin))
	add(new(dns.Msg).SetIxfr(origin, 3, "ns1."+origin, "dns."+origin))
	add(new(dns.Msg).SetNotify(origin))
	signed := new(dns.Msg).SetAxfr(origin)
	signed.SetTsig(keyName+".", dns.HmacSHA256, 300, 1_795_000_000)
	signed.Extra[0].(*dns.TSIG).MAC, signed.Extra[0].(*dns.TSIG).MACSize = "00112233445566778899aabbccddeeff", 16
	add(signed)

	// Valid and not: opcodes, questions, OPT and TSIG records where they should not be.
	many := new(dns.Msg).SetQuestion("aCmE.1r1."+origin, dns.TypeTXT).SetEdns0(100, true)
	many.Question = append(many.Question, dns.Question{Name: `x\.` + origin, Qtype: 255, Qclass: 255})
	many.IsEdns0().SetVersion(1)
	many.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0011223344556677"},
		&dns.EDNS0_LOCAL{Code: dns.EDNS0ZONEVERSION}, &dns.EDNS0_LOCAL{Code: 65001, Data: make([]byte, 100)}}
	many.Extra = append(many.Extra, many.Extra[0], signed.Extra[0], many.Extra[0])
	many.Answer, many.Ns = many.Extra[:1], many.Extra[2:3]
	add(many)
	add(new(dns.Msg).SetUpdate(origin))
	update := new(dns.Msg).SetUpdate(origin).SetEdns0(1232, false)
	update.Insert([]dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: "x." + origin, Rrtype: dns.TypeTXT}, Txt: []string{"x"}}})
	add(update)
	add(&dns.Msg{MsgHdr: dns.MsgHdr{Id: 7, Opcode: 15, RecursionDesired: true, Zero: true}})

	return list
}

// FuzzServer feeds messages to the server: every answer can be read and belongs to its question.
func FuzzServer(f *testing.F) {
	z := zone.New(origin, "ns1."+origin, "dns@operator.example")
	if err := z.Apply(&zone.Version{To: 5, Added: records()}); err != nil {
		f.Fatal(err)
	}
	s, err := nameserver.New(z, nameserver.Config{Secondaries: []nameserver.Secondary{secondary(f, "x",
		addrOf("127.0.0.1"))}},
		slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		f.Fatal(err)
	}
	for _, q := range questions(f) {
		f.Add(q, true, false)
		f.Add(q, false, true)
	}

	f.Fuzz(func(t *testing.T, data []byte, udp, valid bool) {
		q := new(dns.Msg)
		if q.Unpack(data) != nil || q.Response {
			return // answered by the library, or not at all
		}
		w := &writer{remote: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9}, status: dns.ErrSig}
		if udp {
			w.remote = &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9}
		}
		if valid {
			w.status = nil
		}
		s.ServeDNS(w, q)
		for _, b := range w.wrote {
			r := new(dns.Msg)
			if err := r.Unpack(b); err != nil || r.Id != q.Id || !r.Response || r.Opcode != q.Opcode {
				t.Errorf("answer %v, %v", r, err)
			}
			if udp && len(b) > 1232+400 { // room for a signature
				t.Errorf("%d bytes over UDP", len(b))
			}
		}
	})
}

// Malformed packets do no harm: the server answers the next question.
func TestMalformed(t *testing.T) {
	b := serve(t, nameserver.Config{Secondaries: []nameserver.Secondary{secondary(t, "x", addrOf("127.0.0.1"))}},
		records())
	rnd := rand.New(rand.NewPCG(1, 2))
	udp, err := net.Dial("udp", b.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()

	qs := questions(t)
	for i := range 10_000 {
		p := append([]byte{}, qs[i%len(qs)]...)
		for range 1 + rnd.IntN(8) {
			switch rnd.IntN(3) {
			case 0:
				p[rnd.IntN(len(p))] = byte(rnd.Uint32())
			case 1:
				p = p[:1+rnd.IntN(len(p))]
			default:
				p = append(p, byte(rnd.Uint32()))
			}
		}
		if i%50 > 0 {
			if _, err := udp.Write(p); err != nil {
				t.Fatal(err)
			}
			continue
		}
		tcp, err := net.DialTimeout("tcp", b.addr.String(), patience)
		if err != nil {
			t.Fatal(err)
		}
		_, err = tcp.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(p)+rnd.IntN(3))), p...))
		if err != nil {
			t.Fatal(err)
		}
		_ = tcp.Close()
	}
	for _, network := range []string{"udp", "tcp"} {
		if r := b.ask(t, network, "acme.1r1."+origin, dns.TypeTXT); len(r.Answer) != 1 {
			t.Errorf("over %s: %v", network, r)
		}
	}
}
