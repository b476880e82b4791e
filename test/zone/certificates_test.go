//go:build deep

package zone_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/node"
	"github.com/tandemgw/tandem/internal/sim/ca"
	"github.com/tandemgw/tandem/internal/testkit"
	"github.com/tandemgw/tandem/internal/testkit/dnspeer"
	"github.com/tandemgw/tandem/internal/testkit/pebble"
)

// orderTime is how long a test waits for an order: its name servers have three minutes.
const orderTime = 5 * time.Minute

// secured is a deployment that obtains certificates from an authority, which asks knot.
type secured struct {
	*deployment
	authority *pebble.Authority
	nsd, knot *dnspeer.Peer
	at        node.Ready
	roots     *x509.CertPool  // of the authority
	peer      tls.Certificate // by which a peer of the group identifies itself
}

// secure starts a deployment whose Provisioning API has the certificate provapi, and its Direct Routing group 1r1.
func secure(t *testing.T, database string) *secured {
	t.Helper()
	private, err := ca.New("peers")
	if err != nil {
		t.Fatal(err)
	}
	s := &secured{}
	if s.peer, err = private.Issue(ca.ServerAndClient, "sip.example.net"); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	files := &deployment{t: t, dir: dir}
	knot := dnspeer.Address(t)
	s.authority = pebble.Start(t, knot.String())
	s.deployment = deployWith(t, knot, fmt.Sprintf(`
%s
certificates:
  directory: %q
  acceptTerms: true
  rootsFile: %q
  order: [provapi, 1r1]
provisioning: {listen: "127.0.0.1:8443", certificate: provapi}
calls:
  routing: {baseDomain: %s, countries: [GB]}
  groups:
    - name: dr
      service: teamsDirectRouting
      bind: {tls: "127.0.0.1:5061"}
      transport: tls
      tls: {certificate: 1r1, rootsFile: %q}
      allowedSources: [127.0.0.0/8]
      peers: [{name: teams, address: "127.0.0.1:5999"}]
    - name: core
      transport: udp
      bind: {udp: "127.0.0.1:5060"}
      peers: [{name: core, address: "127.0.0.1:5998"}]
`, database, s.authority.Directory(), files.write("web.pem", string(s.authority.RootsPEM)), base,
		files.write("peers.pem", string(private.PEM()))))
	s.nsd, s.knot = s.peers[0], s.peers[1]
	s.ready()
	s.roots = s.authority.Roots(t)

	return s
}

// ready waits until the program is ready.
func (s *secured) ready() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	var err error
	if s.at, err = s.run.Ready(ctx); err != nil {
		s.t.Fatal(err)
	}
}

// certificate waits until the node shows a certificate for which a condition holds.
func (s *secured) certificate(name, what string, holds func(api.Certificate) bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), orderTime)
	defer cancel()
	c := s.client()
	for tick := time.NewTicker(100 * time.Millisecond); ; {
		l, err := c.Certificates(ctx)
		if err != nil {
			s.t.Fatal(err)
		}
		var seen api.Certificate
		for _, x := range l.Certificates {
			if x.Name == name {
				seen = x
			}
		}
		if holds(seen) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.t.Fatalf("certificate %s: not seen: %s: %+v", name, what, seen)
		}
	}
}

func obtained(c api.Certificate) bool {
	return c.Source == api.CertificateSourceAcme && !c.NotAfter.IsZero()
}

// dial connects over TLS to the Provisioning API, or to the group.
func (s *secured) dial(name string) (*tls.Conn, error) {
	at := strings.TrimPrefix(s.at.Provisioning, "https://")
	if name != "provapi" {
		at = s.at.SIP.TLS
	}

	return tls.Dial("tcp", at, &tls.Config{ServerName: name + "." + base, RootCAs: s.roots,
		Certificates: []tls.Certificate{s.peer}, MinVersion: tls.VersionTLS12})
}

// serves waits until a new connection gets another certificate than one, and returns it. The authority's root must have
// issued it, for that name.
func (s *secured) serves(name string, other *x509.Certificate) *x509.Certificate {
	s.t.Helper()
	limit := time.Now().Add(orderTime)
	for tick := time.NewTicker(100 * time.Millisecond); ; <-tick.C {
		c, err := s.dial(name)
		if err == nil {
			leaf := c.ConnectionState().PeerCertificates[0]
			_ = c.Close()
			if other == nil || leaf.SerialNumber.Cmp(other.SerialNumber) != 0 {
				return leaf
			}
		}
		if time.Now().After(limit) {
			s.t.Fatalf("%s does not serve another certificate (%v)", name, err)
		}
	}
}

// renew orders a certificate by the command, and returns the one that is served then.
func (s *secured) renew(name, host string) *x509.Certificate {
	s.t.Helper()
	before := s.serves(host, nil)
	if out, code := s.command("certificate", "renew", name); code != 0 {
		s.t.Fatalf("certificate renew: %d\n%s", code, out)
	}

	return s.serves(host, before)
}

// The program publishes the zone, obtains the certificates, and serves them; a renewal drops no connection; it starts
// with them without the database.
func TestCertificates(t *testing.T) {
	t.Parallel()
	cluster := testkit.NewCluster(t, testkit.ClusterOptions{})
	cluster.CreateDatabase(t, "tandem")
	s := secure(t, fmt.Sprintf("database: {driver: postgres, url: %q, allowUnsafeDurability: true}",
		cluster.URL("tandem")))
	s.certificate("provapi", "obtained", obtained)
	s.certificate("1r1", "obtained", obtained)
	s.serves("provapi", nil)
	s.serves("acme.1r1", nil)
	out, code := s.command("certificate", "list")
	for _, want := range []string{"provapi." + base, "*.1r1." + base, "provisioning", "dr", "acme"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("certificate list: %d, want %q in it\n%s", code, want, out)
		}
	}

	var open []*tls.Conn
	for range 100 {
		c, err := s.dial("acme.1r1")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		open = append(open, c)
	}
	group := s.renew("1r1", "acme.1r1")
	web := s.serves("provapi", nil)
	for i, c := range open {
		if err := ping(c); err != nil {
			t.Errorf("connection %d of 100 is lost: %v", i, err)
		}
	}
	list, err := s.client().Certificates(t.Context())
	if err != nil || len(list.Certificates) != 2 {
		t.Fatalf("certificates = %+v, %v", list, err)
	}
	// The authority's certificates have no client authentication, as those of public ones; peers says so.
	peers, err := s.client().Peers(t.Context())
	if err != nil || peers[0].Certificate == nil || peers[0].Certificate.Name != "1r1" ||
		peers[0].Certificate.ClientAuthentication || !peers[0].Certificate.Expires.Equal(group.NotAfter) {
		t.Errorf("peer groups = %+v, %v", peers, err)
	}
	if out, code := s.command("certificate", "renew", "nothing"); code == 0 || !strings.Contains(out, "provapi, 1r1") {
		t.Errorf("certificate renew nothing: %d\n%s", code, out)
	}

	cluster.Stop(t)
	s.run.Kill()
	s.start()
	s.ready()
	if got := s.serves("provapi", nil); got.SerialNumber.Cmp(web.SerialNumber) != 0 {
		t.Errorf("without the database the Provisioning API serves %v, want %v", got.SerialNumber, web.SerialNumber)
	}
	if got := s.serves("acme.1r1", nil); got.SerialNumber.Cmp(group.SerialNumber) != 0 {
		t.Errorf("without the database the group serves %v, want %v", got.SerialNumber, group.SerialNumber)
	}
	s.certificate("1r1", "from the cache", func(c api.Certificate) bool {
		return c.Source == api.CertificateSourceCache
	})
}

// ping sends a keep-alive and reads its answer (RFC 5626 §3.5.1).
func ping(c *tls.Conn) error {
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write([]byte("\r\n\r\n")); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 2))

	return err
}

// A challenge is offered only when no name server answers without its value: not while the transfer to knot is blocked,
// although the others have the value. The authority asks knot.
func TestBlockedTransfer(t *testing.T) {
	t.Parallel()
	s := secure(t, "")
	s.certificate("1r1", "obtained", obtained)
	before := s.serves("acme.1r1", nil)
	knot := func(command string) {
		t.Helper()
		out, err := exec.Command("knotc", "-s", filepath.Join(s.knot.Dir, "knot.sock"), command, base).CombinedOutput()
		if err != nil {
			t.Fatalf("knotc %s: %v\n%s", command, err, out)
		}
	}
	knot("zone-freeze")
	if out, code := s.command("certificate", "renew", "1r1"); code != 0 {
		t.Fatalf("certificate renew: %d\n%s", code, out)
	}
	time.Sleep(20 * time.Second) // how long the transfer is blocked: part of the case
	knot("zone-thaw")
	s.serves("acme.1r1", before)
	s.certificate("1r1", "no failure", func(c api.Certificate) bool { return obtained(c) && c.Failed == 0 })
	if strings.Contains(s.logged(), "certificate not obtained;") {
		t.Error("an order failed")
	}
}

// A name server that answers nothing, or refuses, is left out after a minute.
func TestNameServerWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(*testing.T, *dnspeer.Peer){
		"silent": func(t *testing.T, nsd *dnspeer.Peer) { nsd.Signal(t, syscall.SIGSTOP) },
		"refuses": func(t *testing.T, nsd *dnspeer.Peer) {
			nsd.Signal(t, syscall.SIGKILL)
			for answers := true; answers; {
				_, err := nsd.Ask(t.Context(), "tcp", base+".", dns.TypeSOA)
				answers = err == nil
			}
			other := dnspeer.NSDPrimary(t, nsd.Addr, "example.org.",
				"$ORIGIN example.org.\n@ 60 SOA a b 1 60 60 60 60\n@ 60 NS a\n")
			r, err := other.Ask(t.Context(), "udp", base+".", dns.TypeSOA)
			if err != nil || r.Rcode != dns.RcodeRefused {
				t.Fatalf("nsd without the zone answers %v, %v", r, err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := secure(t, "")
			s.certificate("1r1", "obtained", obtained)
			fail(t, s.nsd)
			s.renew("1r1", "acme.1r1")
			if !strings.Contains(s.logged(), "name servers do not answer; the challenge is offered without them") {
				t.Error("no warning about the name server")
			}
		})
	}
}

// operated is a deployment whose DNS is BIND, with example.com and challenges.example.net, which takes updates too. The
// authority asks it through unbound, which follows CNAMEs.
type operated struct {
	*secured
	bind, resolver *dnspeer.Peer
}

// texts returns the TXT records that BIND has at a name itself.
func (o *operated) texts(ctx context.Context, name string) []string {
	r, err := o.bind.Ask(ctx, "tcp", name, dns.TypeTXT)
	if err != nil {
		return []string{err.Error()}
	}
	var list []string
	for _, rr := range r.Answer {
		if x, ok := rr.(*dns.TXT); ok && x.Hdr.Name == name {
			list = append(list, x.Txt...)
		}
	}

	return list
}

// alias replaces the CNAME at a name, as the operator does.
func (o *operated) alias(name, target string) {
	o.t.Helper()
	rr, err := dns.NewRR(name + " 60 CNAME " + target)
	if err != nil {
		o.t.Fatal(err)
	}
	m := new(dns.Msg).SetUpdate("example.com.")
	m.RemoveRRset([]dns.RR{rr})
	m.Insert([]dns.RR{rr})
	const key = "update.example.com."
	m.SetTsig(key, dns.HmacSHA256, 300, time.Now().Unix())
	c := &dns.Client{Net: "tcp", TsigSecret: map[string]string{key: base64.StdEncoding.EncodeToString(secret)}}
	r, _, err := c.ExchangeContext(o.t.Context(), m, o.bind.Addr.String())
	if err != nil || r.Rcode != dns.RcodeSuccess {
		o.t.Fatalf("update of the CNAME: %v %v", r, err)
	}
}

// operate starts a deployment that obtains the certificate 1r1. records are further ones of example.com; update is the
// configuration of publish, and of the zone in update. In challenges.example.net is a foreign text.
func operate(t *testing.T, publish, zone, policy, records string) *operated {
	t.Helper()
	key := dnspeer.Primary{Zone: "example.com.", Key: "update.example.com", Secret: secret}
	bind := dnspeer.BINDUpdated(t, key, `$TTL 60
example.com. SOA ns1.example.com. dns.example.com. 1 3600 600 86400 60
example.com. NS ns1.example.com.
ns1.example.com. A 127.0.0.1
`+records, policy, dnspeer.Zone{Name: "challenges.example.net.", Text: `$TTL 60
challenges.example.net. SOA ns1.example.com. dns.example.com. 1 3600 600 86400 60
challenges.example.net. NS ns1.example.com.
1r1.challenges.example.net. TXT "foreign"
`, Options: dnspeer.Policy("grant update.example.com zonesub TXT;")})
	resolver := dnspeer.Unbound(t, dnspeer.Address(t), bind.Addr, "example.com.", "challenges.example.net.")
	authority := pebble.Start(t, resolver.Addr.String())
	s := &secured{deployment: &deployment{t: t, dir: t.TempDir(), at: bind.Addr, peers: []*dnspeer.Peer{bind}}}
	s.config = s.write("tandem.yaml", fmt.Sprintf(`
calls:
  routing: {baseDomain: %s}
certificates: {directory: %q, acceptTerms: true, rootsFile: %q, order: [1r1]}
zone:
  publish: %s
  nameServers: [{name: ns1.example.com, checkAt: [%q]}]
  parents: [%[5]q]
  regions:
    - edges: [{name: e1, addresses: [%[6]s], tls: 5061}]
  update:
    %[7]s
    server: %[5]q
    key: {name: update.example.com, secretFile: %[8]q}
`, base, authority.Directory(), s.write("web.pem", string(authority.RootsPEM)), publish, bind.Addr, first, zone,
		s.write("secret", base64.StdEncoding.EncodeToString(secret))))
	s.launch()

	return &operated{s, bind, resolver}
}

// Both values of a name and its wildcard are published in a zone that the operator runs, beside a foreign value, which
// stays when they go: at the name itself, also if a wildcard makes a CNAME there, or where a CNAME of its own leads,
// also if Tandem publishes nothing else.
func TestCertificatesInTheOperatorsZone(t *testing.T) {
	t.Parallel()
	const (
		challenge = "_acme-challenge.1r1." + base + "."
		other     = "1r1.challenges.example.net."
		all       = "grant update.example.com subdomain gw.example.com. A AAAA TXT SRV CAA;"
		none      = "grant update.example.com name none.example.com. TXT;"
	)
	zone, alias, wildcard := "zone: example.com", challenge+" CNAME "+other, "*.1r1."+base+". CNAME "
	for name, c := range map[string]struct {
		publish, zone, policy, records string
		place                          string // where the foreign value is
	}{
		"at the name":                   {"update", zone, all, challenge + ` TXT "foreign"`, challenge},
		"CNAME":                         {"update", zone, all, alias, other},
		"CNAME of a wildcard":           {"update", zone, all, wildcard + "www.example.org.", ""},
		"CNAME like that of a wildcard": {"update", zone, all, alias + "\n" + wildcard + other, other},
		"wildcard to the other zone":    {"update", zone, all, wildcard + other, other},
		"CNAME, published by hand":      {"none", "", none, alias, other},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := operate(t, c.publish, c.zone, c.policy, c.records+"\n")
			s.certificate("1r1", "obtained", obtained)
			s.bind.Until(t, "the foreign value alone", func(ctx context.Context) bool {
				if c.place == "" {
					return len(s.texts(ctx, challenge)) == 0
				}
				return slices.Equal(s.texts(ctx, c.place), []string{"foreign"})
			})
			// BIND logs each change.
			atName := "adding an RR at '_acme-challenge.1r1." + base + "' TXT"
			atOther := "adding an RR at '1r1.challenges.example.net' TXT"
			followed := strings.HasPrefix(c.records, challenge+" CNAME")
			log := s.bind.Log()
			if got := strings.Count(log, atOther); followed && got != 2 || !followed && got != 0 {
				t.Errorf("%d values were put where the CNAME leads", got)
			}
			if got := strings.Count(log, atName); followed && got != 0 || !followed && got != 2 {
				t.Errorf("%d values were put at the name", got)
			}
			if strings.Contains(s.logged(), "certificate not obtained;") {
				t.Error("an order failed")
			}
		})
	}
}

// A CNAME to a name that Tandem cannot update fails at once, with the names and what to do, and is followed once it is
// right.
func TestChallengeBehindAForeignCNAME(t *testing.T) {
	t.Parallel()
	const challenge = "_acme-challenge.1r1." + base
	s := operate(t, "update", "zone: example.com", "grant update.example.com subdomain gw.example.com. ANY;",
		challenge+". CNAME challenges.example.org.\n")
	s.certificate("1r1", "the cause", func(c api.Certificate) bool {
		return c.Failed == 1 && c.Cause == "nameServers" && strings.Contains(c.Error, challenge+
			" is a CNAME to challenges.example.org, where Tandem cannot put the value")
	})
	s.alias(challenge+".", "1r1.challenges.example.net.")
	if out, code := s.command("certificate", "renew", "1r1"); code != 0 {
		t.Fatalf("certificate renew: %d\n%s", code, out)
	}
	s.certificate("1r1", "obtained", obtained)
}

// Values of a process that was killed go from where they were put, although the CNAME leads elsewhere since.
func TestKilledWithValuesBehindACNAME(t *testing.T) {
	t.Parallel()
	const challenge, place = "_acme-challenge.1r1." + base + ".", "1r1.challenges.example.net."
	s := operate(t, "update", "zone: example.com", "grant update.example.com subdomain gw.example.com. ANY;",
		challenge+" CNAME "+place+"\n")
	s.certificate("1r1", "obtained", obtained)
	s.bind.Until(t, "the foreign value alone", func(ctx context.Context) bool { return len(s.texts(ctx, place)) == 1 })
	s.resolver.Signal(t, syscall.SIGSTOP) // holds up the authority
	if out, code := s.command("certificate", "renew", "1r1"); code != 0 {
		t.Fatalf("certificate renew: %d\n%s", code, out)
	}
	s.bind.Until(t, "both values", func(ctx context.Context) bool { return len(s.texts(ctx, place)) == 3 })
	s.run.Kill()
	s.alias(challenge, "other.challenges.example.net.")
	s.resolver.Signal(t, syscall.SIGCONT)

	s.start()
	s.bind.Until(t, "the foreign value alone, after the restart", func(ctx context.Context) bool {
		return slices.Equal(s.texts(ctx, place), []string{"foreign"})
	})
}

// logged returns the program's log.
func (s *secured) logged() string {
	s.t.Helper()
	b, err := os.ReadFile(s.log.Name())
	if err != nil {
		s.t.Fatal(err)
	}

	return string(b)
}
