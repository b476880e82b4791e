package check_test

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/miekg/dns"

	"github.com/tandemgw/tandem/internal/testkit/dnspeer"
	"github.com/tandemgw/tandem/internal/zone/check"
)

const zoneName = "gw.example.com"

// server answers questions with a function until the test ends.
func server(t *testing.T, name string, answer func(q, r *dns.Msg)) check.Server {
	t.Helper()
	at := dnspeer.Address(t)
	p, err := net.ListenPacket("udp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	h := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		r := new(dns.Msg).SetReply(q)
		r.Authoritative = true
		answer(q, r)
		if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
			r.Truncate(512)
		}
		_ = w.WriteMsg(r) // the client may have gone
	})
	for _, s := range []*dns.Server{{PacketConn: p, Handler: h}, {Listener: l, Handler: h}} {
		up, done := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		go func() {
			defer close(done)
			_ = s.ActivateAndServe() // ends with the test
		}()
		<-up
		t.Cleanup(func() {
			_ = s.ShutdownContext(context.Background())
			<-done
		})
	}

	return check.Server{Name: name, Addr: at}
}

// records returns a function that answers from a zone file.
func records(t *testing.T, lines ...string) func(q, r *dns.Msg) {
	t.Helper()
	var rrs []dns.RR
	for _, l := range lines {
		rr, err := dns.NewRR(l)
		if err != nil {
			t.Fatal(err)
		}
		rrs = append(rrs, rr)
	}

	return func(q, r *dns.Msg) {
		for _, rr := range rrs {
			if h := rr.Header(); h.Name == q.Question[0].Name && h.Rrtype == q.Question[0].Qtype {
				r.Answer = append(r.Answer, rr)
			}
		}
	}
}

const (
	soa   = "gw.example.com. 60 SOA ns1.gw.example.com. dns.operator.example. 7 900 60 1209600 60"
	old   = "gw.example.com. 60 SOA ns1.gw.example.com. dns.operator.example. 6 900 60 1209600 60"
	addr  = "acme.1r1.gw.example.com. 60 A 192.0.2.1"
	addr6 = "acme.1r1.gw.example.com. 60 AAAA 2001:db8::1"
	token = `acme.1r1.gw.example.com. 60 TXT "MS=ms10000001"`
)

func wanted() []check.Name {
	return []check.Name{{Name: "acme.1r1.gw.example.com.", Text: "MS=ms10000001",
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}}}
}

// Each thing that can be wrong with a name server has a name of its own.
func TestZone(t *testing.T) {
	long := []string{soa, addr, addr6, token}
	for range 10 {
		long = append(long, `acme.1r1.gw.example.com. 60 TXT "something else, so that they do not fit a datagram"`)
	}
	good := server(t, "good", records(t, long...)) // its answer about TXT comes over TCP
	silent := check.Server{Name: "silent", Addr: dnspeer.Address(t)}

	for name, x := range map[string]struct {
		server check.Server
		names  []check.Name
		want   []check.Problem
	}{
		"good":        {good, wanted(), nil},
		"unreachable": {silent, wanted(), []check.Problem{check.Unreachable}},
		"refused": {server(t, "x", func(_, r *dns.Msg) { r.Rcode, r.Authoritative = dns.RcodeRefused, false }),
			wanted(), []check.Problem{check.Lame}},
		"not authoritative": {server(t, "x", func(q, r *dns.Msg) {
			records(t, long...)(q, r)
			r.Authoritative = false
		}), wanted(), []check.Problem{check.Lame}},
		"another question": {server(t, "x", func(q, r *dns.Msg) {
			records(t, long...)(q, r)
			r.Question[0].Name = "other.example.com."
		}), wanted(), []check.Problem{check.Unreachable}},
		"another zone":  {server(t, "x", records(t, addr)), wanted(), []check.Problem{check.Lame}},
		"an old serial": {server(t, "x", records(t, old, addr, addr6, token)), wanted(), []check.Problem{check.Stale}},
		"no token":      {server(t, "x", records(t, soa, addr, addr6)), wanted(), []check.Problem{check.Missing}},
		"another token": {server(t, "x", records(t, soa, addr, addr6, token[:len(token)-2]+`2"`)), wanted(),
			[]check.Problem{check.Missing}},
		"no address": {server(t, "x", records(t, soa, token, addr6)), wanted(), []check.Problem{check.Missing}},
		"another address": {server(t, "x", records(t, soa, token, addr, addr6, addr[:len(addr)-1]+"9")), wanted(),
			[]check.Problem{check.Wrong}},
		"any address": {good, []check.Name{{Name: "acme.1r1.gw.example.com."}}, nil},
		"none at all": {good, []check.Name{{Name: "nosuch.1r1.gw.example.com."}}, []check.Problem{check.Missing}},
		"a failure": {server(t, "x", func(q, r *dns.Msg) {
			if records(t, soa)(q, r); r.Answer == nil {
				r.Rcode = dns.RcodeServerFailure
			}
		}), wanted(), []check.Problem{check.Lame}},
	} {
		t.Run(name, func(t *testing.T) {
			_, found := check.Zone(t.Context(), zoneName, 7, []check.Server{x.server}, x.names)
			var got []check.Problem
			for _, f := range found {
				got = append(got, f.Problem)
				if f.Text == "" || f.Server != x.server {
					t.Errorf("finding %+v", f)
				}
			}
			if !slices.Equal(got, x.want) {
				t.Errorf("found %+v, want %v", found, x.want)
			}
		})
	}

	// A server of the zone above has another zone, whatever its serial; one of that alone has all names.
	above := server(t, "above", func(q, r *dns.Msg) {
		if records(t, addr, addr6, token)(q, r); r.Answer == nil {
			soa, err := dns.NewRR("example.com. 60 SOA a. b. 2026112901 1 1 1 1")
			if err != nil {
				t.Error(err)
			}
			r.Ns = []dns.RR{soa}
		}
	})
	serials, found := check.Zone(t.Context(), zoneName, 0, []check.Server{good, above}, wanted())
	if len(found) != 1 || found[0].Problem != check.Lame || found[0].Server != above || serials[1] != 0 {
		t.Errorf("found %+v, serials %d; want the zone above reported as lame", found, serials)
	}
	if serials, found = check.Zone(t.Context(), zoneName, 0, []check.Server{above}, wanted()); len(found) > 0 ||
		serials[0] != 2026112901 {
		t.Errorf("found %+v, serials %d with the zone above alone", found, serials)
	}

	// Without a serial to expect, the newest of any server counts, by the arithmetic of serials.
	wrapped := server(t, "wrapped", records(t, "gw.example.com. 60 SOA a. b. 3 1 1 1 1"))
	high := server(t, "high", records(t, "gw.example.com. 60 SOA a. b. 4294967290 1 1 1 1"))
	_, found = check.Zone(t.Context(), zoneName, 0, []check.Server{wrapped, high}, nil)
	if len(found) != 1 || found[0].Problem != check.Stale || found[0].Server != high {
		t.Errorf("found %+v, want an old serial at the server with the high one", found)
	}
}
