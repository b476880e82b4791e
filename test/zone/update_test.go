package zone_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/testkit/dnspeer"
	"github.com/tandemgw/tandem/internal/zone/check"
)

// A BSS puts a customer, and the operator's BIND, whose zone contains the base domain, answers its names; the account
// is provisioned then. While BIND does not run, tandem status says so; a customer of that time is published when it
// runs again. What the operator has there stays when the customer goes.
func TestOperatorsZone(t *testing.T) {
	t.Parallel()
	key := dnspeer.Primary{Zone: "example.com.", Key: "update.example.com", Secret: secret}
	bind := dnspeer.BINDUpdated(t, key, `$TTL 60
example.com. SOA ns1.example.com. dns.example.com. 1 3600 600 86400 60
example.com. NS ns1.example.com.
ns1.example.com. A 127.0.0.1
acme.1r1.gw.example.com. MX 10 mail.example.com.
`, "grant update.example.com subdomain gw.example.com. ANY;")
	d := &deployment{t: t, dir: t.TempDir(), at: bind.Addr, servers: []check.Server{{Name: "bind", Addr: bind.Addr}},
		peers: []*dnspeer.Peer{bind}}
	d.write("secret", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
	d.config = d.write("tandem.yaml", fmt.Sprintf(`
calls:
  routing: {baseDomain: %s}
zone:
  publish: update
  nameServers: [{name: ns1.example.com, checkAt: [%q]}]
  parents: [%[2]q]
  checkEvery: 1s
  regions:
    - edges: [{name: e1, addresses: [%[3]s], tls: 5061}]
    - edges: [{name: e1, addresses: [%[4]s], tls: 5061}]
  update:
    zone: example.com
    server: %[2]q
    key: {name: update.example.com, secretFile: %[5]q}
`, base, bind.Addr, first, second, filepath.Join(d.dir, "secret")))
	d.launch()

	d.put("contoso", "acme")
	d.provisioned("contoso", "acme")
	for name, kind := range map[string]uint16{"provapi." + base: dns.TypeA, "_sips._tcp.r1." + base: dns.TypeSRV} {
		if r, err := check.Ask(t.Context(), bind.Addr, name, kind); err != nil || len(r.Answer) == 0 {
			t.Errorf("%s %s: %v, %v", name, dns.TypeToString[kind], r, err)
		}
	}
	if r, err := d.client().CheckZone(t.Context(), "acme"); err != nil || len(r.Findings) > 0 {
		t.Errorf("report %+v, %v", r, err)
	}

	bind.Kill()
	d.put("fabrikam", "fab")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for tick := time.NewTicker(100 * time.Millisecond); ; {
		if out, _ := d.command("status"); strings.Contains(out, "no answer from "+bind.Addr.String()) {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			out, _ := d.command("status")
			t.Fatalf("tandem status does not say that the operator's server is unavailable:\n%s", out)
		}
	}
	bind.Start(t)
	d.provisioned("fabrikam", "fab")

	if err := d.client().DeleteAccount(t.Context(), "contoso", false, client.Condition{}); err != nil {
		t.Fatal(err)
	}
	d.until("the names are gone", names("acme"), check.Missing)
	if r, err := check.Ask(t.Context(), bind.Addr, "acme.1r1."+base, dns.TypeMX); err != nil || len(r.Answer) != 1 {
		t.Errorf("the operator's record: %v, %v", r, err)
	}
}
