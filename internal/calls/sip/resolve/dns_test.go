package resolve_test

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/tandemgw/tandem/internal/calls/sip/resolve"
	"github.com/tandemgw/tandem/internal/calls/sip/transport"
)

// nameServer runs a name server on a loopback port, UDP and TCP.
func nameServer(t *testing.T, h dns.HandlerFunc) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", pc.LocalAddr().String())
	if err != nil {
		t.Skipf("no TCP port beside the UDP one: %v", err)
	}
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: h}, {Listener: l, Handler: h}} {
		up := make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		go func() { _ = s.ActivateAndServe() }()
		<-up
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return pc.LocalAddr().String()
}

func rr(t *testing.T, s string) dns.RR {
	t.Helper()
	r, err := dns.NewRR(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestServers(t *testing.T) {
	overTCP := atomic.Int32{}
	good := nameServer(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		switch name := q.Question[0].Name; {
		case name == "_sip._tls.core.example.net." && q.Question[0].Qtype == dns.TypeSRV:
			m.Answer = append(m.Answer, rr(t, name+" 300 IN SRV 10 20 5061 A.example.net."),
				rr(t, name+" 200 IN SRV 20 5 5062 b.example.net."))
		case name == "a.example.net." && q.Question[0].Qtype == dns.TypeA:
			m.Answer = append(m.Answer, rr(t, "a.example.net. 60 IN CNAME c.example.net."),
				rr(t, "c.example.net. 90 IN A 192.0.2.1"))
		case name == "b.example.net." && q.Question[0].Qtype == dns.TypeA:
			if w.LocalAddr().Network() == "udp" {
				m.Truncated = true
				break
			}
			overTCP.Add(1)
			for i := range 10 {
				m.Answer = append(m.Answer, rr(t, fmt.Sprintf("b.example.net. 60 IN A 192.0.2.%d", 10+i)))
			}
		case name == "a.example.net.": // AAAA: NODATA
			m.Ns = append(m.Ns, rr(t, "example.net. 40 IN SOA ns. host. 1 2 3 4 30"))
		default:
			m.Rcode = dns.RcodeNameError
			m.Ns = append(m.Ns, rr(t, "example.net. 40 IN SOA ns. host. 1 2 3 4 30"))
		}
		_ = w.WriteMsg(m)
	})
	broken := nameServer(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.Rcode = dns.RcodeServerFailure
		_ = w.WriteMsg(m)
	})
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	c := &resolve.Servers{Addrs: []string{broken, silent.LocalAddr().String(), good}, Timeout: 200 * time.Millisecond}

	srvs, ttl, err := c.LookupSRV(t.Context(), "_sip._tls.core.example.net")
	if err != nil || len(srvs) != 2 ||
		srvs[0] != (resolve.SRV{Host: "a.example.net", Port: 5061, Priority: 10, Weight: 20}) ||
		ttl != 200*time.Second {
		t.Errorf("LookupSRV = %v, %v, %v", srvs, ttl, err)
	}
	addrs, ttl, err := c.LookupAddr(t.Context(), "a.example.net", true)
	if err != nil || len(addrs) != 1 || addrs[0].String() != "192.0.2.1" || ttl != time.Minute {
		t.Errorf("LookupAddr behind an alias = %v, %v, %v; want the alias' shorter time to live", addrs, ttl, err)
	}
	addrs, _, err = c.LookupAddr(t.Context(), "b.example.net", false)
	if err != nil || len(addrs) != 10 || overTCP.Load() != 1 {
		t.Errorf("a cut answer = %v, %v; want ten addresses over TCP", addrs, err)
	}
	if _, ttl, err = c.LookupSRV(t.Context(), "_sip._udp.none.example.net"); !errors.Is(err, resolve.ErrNotFound) ||
		ttl != 30*time.Second {
		t.Errorf("a name that does not exist = %v, %v; want ErrNotFound for 30 s (RFC 2308)", ttl, err)
	}
	all := &resolve.Servers{Addrs: []string{broken}, Timeout: 200 * time.Millisecond}
	if _, _, err = all.LookupAddr(t.Context(), "a.example.net", false); err == nil ||
		errors.Is(err, resolve.ErrNotFound) || !strings.Contains(err.Error(), "SERVFAIL") {
		t.Errorf("with broken name servers: %v, want an error that is not ErrNotFound", err)
	}
	if _, _, err = new(resolve.Servers).LookupAddr(t.Context(), "a.example.net", false); err == nil {
		t.Error("no error without name servers")
	}

	r, err := resolve.New(resolve.Config{}, c, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := r.Resolve(t.Context(), resolve.Query{Host: "core.example.net", Proto: transport.TLS})
	if err != nil || len(got) != 11 || got[0].String() != "192.0.2.1:5061" ||
		got[1].String() != "192.0.2.10:5062" {
		t.Errorf("Resolve = %v, %v", show(got), err)
	}
}

func TestSystem(t *testing.T) {
	s := &resolve.System{}
	addrs, ttl, err := s.LookupAddr(t.Context(), "localhost", false)
	if err != nil || len(addrs) == 0 || addrs[0].String() != "127.0.0.1" || ttl != 30*time.Second {
		t.Errorf("LookupAddr(localhost) = %v, %v, %v", addrs, ttl, err)
	}
}
