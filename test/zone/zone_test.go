// Package zone_test runs the built program as the name server of a deployment, with name servers of others as
// secondaries.
package zone_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
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

func TestMain(m *testing.M) { rig.Main(m) }

const (
	base     = "gw.example.com"
	patience = time.Minute
	keyName  = "transfer.operator.example"
)

var (
	secret = []byte("0123456789abcdef0123456789abcdef")
	first  = netip.MustParseAddr("192.0.2.11") // of region 1
	second = netip.MustParseAddr("198.51.100.11")
)

// deployment is the program with its secondaries.
type deployment struct {
	t       *testing.T
	dir     string
	config  string
	at      netip.AddrPort // of the program's name server
	servers []check.Server
	peers   []*dnspeer.Peer
	run     *child.Process
	log     *os.File
}

// deploy starts the program with a zone, and nsd and knot as its secondaries. sections are further sections of the
// configuration; calls replaces that of the test. more are further lines of the zone.
func deploy(t *testing.T, sections string, more ...string) *deployment {
	t.Helper()
	return deployWith(t, dnspeer.Address(t), sections, more...)
}

// deployWith is deploy with knot at an address.
func deployWith(t *testing.T, knotAt netip.AddrPort, sections string, more ...string) *deployment {
	t.Helper()
	d := &deployment{t: t, dir: t.TempDir(), at: dnspeer.Address(t)}
	nsdAt := dnspeer.Address(t)
	d.write("secret", base64.StdEncoding.EncodeToString(secret))
	key := fmt.Sprintf("{name: %s, secretFile: %q}", keyName, filepath.Join(d.dir, "secret"))
	if !strings.Contains(sections, "\ncalls:") {
		sections += "\ncalls:\n  routing: {baseDomain: " + base + "}\n"
	}
	d.config = d.write("tandem.yaml", fmt.Sprintf(`
%s
zone:
  nameServers:
    - {name: ns1.%[2]s, addresses: [192.0.2.53], checkAt: [%[5]q]}
    - {name: ns2.operator.example, checkAt: [%[6]q]}
    - {name: ns3.operator.example, checkAt: [%[7]q]}
  checkEvery: 1s
  contact: hostmaster@operator.example
  regions:
    - edges: [{name: e1, addresses: [%[3]s], tls: 5061}]
    - edges: [{name: e1, addresses: [%[4]s], tls: 5061}]
  listen: [%[5]q]
  secondaries:
    - {name: nsd, address: %[6]q, key: %[8]s}
    - {name: knot, address: %[7]q, key: %[8]s}
%[9]s
`, sections, base, first, second, d.at, nsdAt, knotAt, key, strings.Join(more, "\n")))
	d.launch()

	from := dnspeer.Primary{Zone: base + ".", Addr: d.at, Key: keyName, Secret: secret}
	d.peers = []*dnspeer.Peer{dnspeer.NSD(t, nsdAt, from), dnspeer.Knot(t, knotAt, from)}
	d.servers = []check.Server{{Name: "tandem", Addr: d.at}, {Name: "nsd", Addr: nsdAt}, {Name: "knot", Addr: knotAt}}

	return d
}

// launch starts the program, whose log is kept until the test ends.
func (d *deployment) launch() {
	d.t.Helper()
	var err error
	if d.log, err = os.Create(filepath.Join(d.dir, "log")); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		d.run.Kill()
		rig.CheckLog(d.t, d.log.Name())
		if d.t.Failed() {
			b, _ := os.ReadFile(d.log.Name())
			d.t.Logf("log:\n%s", b)
		}
	})
	d.start()
}

func (d *deployment) write(name, text string) string {
	d.t.Helper()
	path := filepath.Join(d.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}

	return path
}

// start starts the program, and waits until its name server answers.
func (d *deployment) start() {
	d.t.Helper()
	var err error
	d.run, err = child.Start(d.log, []string{rig.Binary(d.t)}, "--free-ports", "--data",
		filepath.Join(d.dir, "data"), "--config", d.config, "--output", "json")
	if err != nil {
		d.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	for tick := time.NewTicker(50 * time.Millisecond); ; {
		if r, err := check.Ask(ctx, d.at, base, dns.TypeSOA); err == nil && r.Rcode == dns.RcodeSuccess {
			if c, err := net.Dial("unix", filepath.Join(d.dir, "data", "manage.sock")); err == nil {
				_ = c.Close()
				return
			}
		}
		select {
		case <-tick.C:
		case <-d.run.Exited():
			b, _ := os.ReadFile(d.log.Name())
			d.t.Fatalf("the program has ended:\n%s", b)
		case <-ctx.Done():
			d.t.Fatal("the name server does not answer, or the management socket")
		}
	}
}

// client returns a client of the Provisioning API over the management socket.
func (d *deployment) client() *client.Client {
	d.t.Helper()
	c, err := client.NewSocket(filepath.Join(d.dir, "data", "manage.sock"), client.Options{})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(c.Close)

	return c
}

// put creates a customer, or changes its label and tokens.
func (d *deployment) put(name, label string) {
	d.t.Helper()
	_, err := d.client().PutAccount(d.t.Context(), &client.Account{Name: name, ServiceDetails: &client.AccountServices{
		TeamsDirectRouting: &client.DirectRoutingAccount{Enabled: true,
			Configuration: &client.DirectRoutingConfig{Subdomain: label,
				SubdomainTokens: client.SubdomainTokens{Region1Token: "MS=ms1" + label,
					Region2Token: "MS=ms2" + label}}}}},
		client.Condition{})
	if err != nil {
		d.t.Fatal(err)
	}
}

// names returns what name servers should answer for a label.
func names(label string) []check.Name {
	return []check.Name{
		{Name: label + ".1r1." + base, Addresses: []netip.Addr{first}, Text: "MS=ms1" + label},
		{Name: label + ".1r2." + base, Addresses: []netip.Addr{second}, Text: "MS=ms2" + label},
	}
}

// until waits until what is wrong with the name servers is of the kinds in want, which is empty for nothing.
func (d *deployment) until(what string, ns []check.Name, want ...check.Problem) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	for tick := time.NewTicker(50 * time.Millisecond); ; {
		_, found := check.Zone(ctx, base, 0, d.servers, ns)
		var got []check.Problem
		for _, f := range found {
			got = append(got, f.Problem)
		}
		slices.Sort(got)
		if slices.Equal(slices.Compact(got), want) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			d.t.Fatalf("%s: %+v", what, found)
		}
	}
}

// A customer's names are on every name server, primary and secondaries, with its addresses and tokens in both regions;
// they follow its labels, the pending one too, and go with them.
func TestCustomer(t *testing.T) {
	t.Parallel()
	d := deploy(t, "")
	d.put("contoso", "Acme")
	d.put("fabrikam", "fab")
	d.until("the names", slices.Concat(lower("acme", "Acme"), names("fab")))
	_, err := d.client().PutPendingLabel(t.Context(), "fabrikam", "fabnew",
		api.LabelTokens{Region1Token: "MS=ms1fabnew", Region2Token: "MS=ms2fabnew"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	d.until("the pending label, beside the active one", slices.Concat(names("fab"), names("fabnew")))
	if _, err := d.client().ActivateLabel(t.Context(), "fabrikam", "fabnew", nil); err != nil {
		t.Fatal(err)
	}
	d.put("contoso", "acme2")
	d.until("the new label", slices.Concat(names("acme2"), names("fab"), names("fabnew")))
	d.until("the former label is gone", lower("acme", "Acme"), check.Missing)

	if err := d.client().DeleteAccount(t.Context(), "contoso", false, client.Condition{}); err != nil {
		t.Fatal(err)
	}
	for _, s := range d.servers {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		for tick := time.NewTicker(50 * time.Millisecond); ; {
			r, err := check.Ask(ctx, s.Addr, "acme2.1r1."+base, dns.TypeTXT)
			if err == nil && r.Rcode == dns.RcodeNameError {
				break
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatalf("%s still has the name of a deleted account: %v %v", s.Name, r, err)
			}
		}
	}
}

// lower returns the names of a label that was given with capitals, which its tokens keep.
func lower(label, given string) []check.Name {
	ns := names(given)
	for i := range ns {
		ns[i].Name = fmt.Sprintf("%s.1r%d.%s", label, i+1, base)
	}

	return ns
}

// The name server starts, and answers everything, without the database; afterwards it catches up.
func TestWithoutTheDatabase(t *testing.T) {
	t.Parallel()
	cluster := testkit.NewCluster(t, testkit.ClusterOptions{})
	cluster.CreateDatabase(t, "tandem")
	d := deploy(t, fmt.Sprintf("database: {driver: postgres, url: %q, allowUnsafeDurability: true}",
		cluster.URL("tandem")))
	d.put("contoso", "acme")
	d.until("the names", names("acme"))

	cluster.Stop(t)
	d.run.Kill()
	<-d.run.Exited()
	d.start()
	d.until("the names without the database", names("acme"))
	cluster.Start(t)
	limit := time.Now().Add(patience)
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, err := d.client().Account(ctx, "contoso")
		cancel()
		if err == nil {
			break
		}
		if time.Now().After(limit) {
			t.Fatal(err)
		}
	}
	d.put("fabrikam", "fab")
	d.until("the names of a customer that came later", slices.Concat(names("acme"), names("fab")))
}
