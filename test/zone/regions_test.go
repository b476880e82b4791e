//go:build deep

package zone_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/cli/child"
	"github.com/tandemgw/tandem/internal/testkit"
	"github.com/tandemgw/tandem/internal/testkit/dnspeer"
	"github.com/tandemgw/tandem/internal/zone/check"
	"github.com/tandemgw/tandem/test/rig"
)

// TestRegionEnds kills one of two regions: provapi moves to the other one within the time to notice, and the next
// request of a client that runs succeeds unchanged, also if its resolver keeps the former address for the time to live.
func TestRegionEnds(t *testing.T) {
	cluster := testkit.NewCluster(t, testkit.ClusterOptions{})
	cluster.CreateDatabase(t, "tandem")
	var dnsAt, apiAt [2]netip.AddrPort
	for i := range 2 {
		dnsAt[i], apiAt[i] = dnspeer.Address(t), netip.AddrPortFrom(dnspeer.Address(t).Addr(), 8443)
	}
	var regions [2]*child.Process
	var data [2]string
	for i := range 2 {
		dir := t.TempDir()
		data[i] = filepath.Join(dir, "data")
		config := filepath.Join(dir, "tandem.yaml")
		text := fmt.Sprintf(`
database: {driver: postgres, url: %q, allowUnsafeDurability: true}
provisioning: {listen: %q}
manage: {listen: "off"}
metrics: {listen: "off"}
roles: [api, worker, dns]
calls:
  node: region%d
  routing: {baseDomain: %s}
  headers: {region: %[3]d}
zone:
  nameServers: [{name: ns1.operator.example}, {name: ns2.operator.example}]
  contact: hostmaster@operator.example
  regions:
    - {api: [%[5]s], edges: [{name: e1, addresses: [192.0.2.11], tls: 5061}]}
    - {api: [%[6]s], edges: [{name: e1, addresses: [198.51.100.11], tls: 5061}]}
  listen: [%[7]q]
`, cluster.URL("tandem"), apiAt[i], i+1, base, apiAt[0].Addr(), apiAt[1].Addr(), dnsAt[i])
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		log, err := os.Create(filepath.Join(dir, "log"))
		if err != nil {
			t.Fatal(err)
		}
		regions[i], err = child.Start(log, []string{rig.Binary(t)}, "--data", data[i], "--config", config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			regions[i].Kill()
			rig.CheckLog(t, log.Name())
			if t.Failed() {
				b, _ := os.ReadFile(log.Name())
				t.Logf("log of region %d:\n%s", i+1, b)
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		_, err = regions[i].Ready(ctx)
		cancel()
		if err != nil {
			b, _ := os.ReadFile(log.Name())
			t.Fatalf("region %d: %v\n%s", i+1, err, b)
		}
	}

	local, err := client.NewSocket(filepath.Join(data[1], "manage.sock"), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	token, err := local.CreateToken(t.Context(), api.TokenRequest{Roles: []string{"Admin"}})
	if err != nil {
		t.Fatal(err)
	}
	// Clients with the name of the API: one looks it up at the name server of the second region, the other at a
	// resolver that keeps answers for their time to live.
	cache := dnspeer.Unbound(t, dnspeer.Address(t), dnsAt[1], base+".")
	running := func(server netip.AddrPort) *client.Client {
		resolver := &net.Resolver{PreferGo: true,
			Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, server.String())
			}}
		dialer := &net.Dialer{Resolver: resolver, Timeout: 5 * time.Second}
		c, err := client.New("http://provapi."+base+":8443", client.Options{Insecure: true,
			Tokens: client.StaticToken(token.AccessToken),
			HTTPClient: &http.Client{Timeout: 10 * time.Second,
				Transport: &http.Transport{DialContext: dialer.DialContext}}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	clients := map[string]*client.Client{"direct": running(dnsAt[1]), "cached": running(cache.Addr)}
	inRegion := func(want netip.Addr) bool {
		r, err := check.Ask(t.Context(), dnsAt[1], "provapi."+base, dns.TypeA)
		if err != nil || len(r.Answer) != 1 {
			return false
		}
		return r.Answer[0].(*dns.A).A.String() == want.String()
	}
	until := func(what string, limit time.Duration, holds func() bool) {
		t.Helper()
		late := time.After(limit)
		for tick := time.NewTicker(100 * time.Millisecond); !holds(); {
			select {
			case <-tick.C:
			case <-late:
				t.Fatalf("not within %v: %s", limit, what)
			}
		}
	}
	until("provapi is in region 1", patience, func() bool { return inRegion(apiAt[0].Addr()) })
	put := func(c *client.Client, name string) error {
		_, err := c.PutAccount(t.Context(), &client.Account{Name: name, ServiceDetails: &client.AccountServices{}},
			client.Condition{})
		return err
	}
	for name, c := range clients {
		if err := put(c, "before-"+name); err != nil {
			t.Fatal(err)
		}
	}

	regions[0].Kill()
	<-regions[0].Exited()
	killed := time.Now()
	var requests sync.WaitGroup
	defer requests.Wait()
	for name, c := range clients {
		requests.Go(func() {
			err := put(c, "after-"+name)
			took := time.Since(killed)
			t.Logf("%s: the next request returned %v after region 1 ended", name, took.Round(time.Second))
			if err != nil {
				t.Errorf("%s: the next request: %v", name, err)
			}
			// A minute after the failure: no resolver still has the former address then.
			if took > time.Minute+patience/2 {
				t.Errorf("%s: the request took %v", name, took)
			}
		})
	}
	// 15 s without a beat, which is looked for every 5 s.
	until("provapi is in region 2", 20*time.Second+patience/2, func() bool { return inRegion(apiAt[1].Addr()) })
	t.Logf("provapi moved %v after region 1 ended", time.Since(killed).Round(time.Second))
}
