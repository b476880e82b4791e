//go:build deep

package zone_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/tandemgw/tandem/internal/testkit/dnspeer"
)

// An account is inconsistent while one of the secondaries has stopped, and provisioned again by itself.
func TestStatusWhileAServerStops(t *testing.T) {
	d := deploy(t, "")
	d.put("contoso", "acme")
	d.provisioned("contoso", "acme")

	nsd := d.peers[0]
	nsd.Signal(t, syscall.SIGSTOP)
	t.Cleanup(func() { nsd.Signal(t, syscall.SIGCONT) })
	d.becomes("contoso", "inconsistent")
	r, err := d.client().CheckZone(t.Context(), "acme")
	if err != nil || len(r.Findings) != 1 || r.Findings[0].Server != "ns2.operator.example" ||
		r.Findings[0].Problem != "unreachable" {
		t.Errorf("report %+v, %v", r, err)
	}
	d.put("fabrikam", "fab")
	d.becomes("fabrikam", "inconsistent")
	nsd.Signal(t, syscall.SIGCONT)
	d.provisioned("contoso", "acme")
	d.provisioned("fabrikam", "fab")
}

// A resolver that was asked too early answers at the latest when zone check says, whatever it was asked for.
func TestResolverAskedTooEarly(t *testing.T) {
	d := deploy(t, "")
	resolver := dnspeer.Unbound(t, dnspeer.Address(t), d.at, base+".")
	names := []string{"acme.1r1." + base + ".", "acme.1r2." + base + "."}
	for i, kind := range []uint16{dns.TypeTXT, dns.TypeA} {
		m, err := resolver.Ask(t.Context(), "udp", names[i], kind)
		if err != nil || m.Rcode != dns.RcodeNameError {
			t.Fatalf("before the account is there: %v, %v", m, err)
		}
	}
	d.put("contoso", "acme")
	d.provisioned("contoso", "acme")
	r, err := d.client().CheckZone(t.Context(), "acme")
	if err != nil || len(r.Findings) > 0 || time.Until(r.Until) < 10*time.Second {
		t.Fatalf("report %+v, %v", r, err)
	}
	time.Sleep(time.Until(r.Until.Add(time.Second)))
	for _, name := range names {
		for _, kind := range []uint16{dns.TypeTXT, dns.TypeA} {
			m, err := resolver.Ask(t.Context(), "udp", name, kind)
			if err != nil || len(m.Answer) != 1 {
				t.Errorf("%s %s after the time: %v, %v", name, dns.TypeToString[kind], m, err)
			}
		}
	}
}
