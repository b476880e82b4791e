package edge

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/services"
	"github.com/tandemgw/tandem/internal/sim/ca"
)

// TestCoreThatRequiresClientAuthentication: a core that verifies clients, as Go and OpenSSL do by default, refuses a
// certificate for server authentication, such as one from a public authority, and accepts one of a private authority
// after a reload. A further reload leaves the connection alone; the next one presents the new certificate.
func TestCoreThatRequiresClientAuthentication(t *testing.T) {
	covers(t, "S13", "S14")
	for name, version := range map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) { coreRequiresClientAuthentication(t, version) })
	}
}

func coreRequiresClientAuthentication(t *testing.T, version uint16) {
	authority, err := ca.New("test")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	install := func(usage ca.Usage) (cert, key, serial string) {
		t.Helper()
		c, err := authority.Issue(usage, "gw.example.net")
		if err == nil {
			cert, key, err = ca.WriteFiles(dir, "core", c)
		}
		if err != nil {
			t.Fatal(err)
		}
		return cert, key, c.Leaf.SerialNumber.String()
	}
	cert, key, _ := install(ca.ServerOnly)
	roots := filepath.Join(dir, "roots.pem")
	if err := os.WriteFile(roots, authority.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	accepted := make(chan string, 64) // serial numbers of the edge's certificate
	core := tlsAgent(t, "core", &tls.Config{Certificates: []tls.Certificate{issue(t, authority, "127.0.0.1")},
		MinVersion: version, MaxVersion: version,
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: authority.Pool(),
		VerifyConnection: func(s tls.ConnectionState) error {
			accepted <- s.PeerCertificates[0].SerialNumber.String()
			return nil
		}})
	core.options.Store(new("200 OK"))
	b := setup(t, func(c *bedConfig) {
		c.tlsCore = core
		c.core.Transport, c.core.Bind.TLS = "tls", "127.0.0.1:0"
		c.core.TLS = TLS{CertificateFile: cert, KeyFile: key, RootsFile: roots}
		c.core.Options = Options{Every: time.Second, Timeout: 32 * time.Second, DownAfter: 1, UpAfter: 1}
	})
	state := func() PeerState {
		for _, p := range b.e.Peers() {
			if p.Group == "core-a" {
				return p
			}
		}
		t.Fatal("the core has no peer")
		return PeerState{}
	}

	// Refused: the reason is in the state of the peer, in the log and, in short, in the answer to the caller.
	const refused = "the peer refused our certificate (tls: bad certificate): "
	lacks := cert + " does not allow client authentication"
	await(t, "the peer to be down", func() bool { return !state().Up })
	if got := state().Reason; !strings.Contains(got, refused+lacks) {
		t.Errorf("reason of the peer is %q, want %q in it", got, refused+lacks)
	}
	if got := b.log.String(); !strings.Contains(got, `level=WARN msg="SIP connection ended"`) ||
		!strings.Contains(got, refused+lacks) {
		t.Errorf("no line with %q in the log:\n%s", refused+lacks, got)
	}
	id, ok := b.e.Identity("core-a")
	if !ok || id.Paths.Certificate != cert || id.ClientAuth || !strings.Contains(id.Warning, lacks) {
		t.Errorf("Identity = %+v, %v, want %s with a warning", id, ok, cert)
	}
	up := b.svc.newCall(served, outside)
	b.svc.send(up.request("INVITE", sdp))
	b.svc.expect("100")
	no := b.svc.expect("503")
	b.svc.send(up.ackFailure(no))
	if w := no.get("Warning"); !strings.Contains(w, "peer c1 of group core-a refused this gateway's TLS certificate") ||
		strings.Contains(w, dir) {
		t.Errorf("Warning = %s", w)
	}
	b.record()
	b.idle()

	// The private certificate is accepted: OPTIONS and a call pass.
	_, _, serial := install(ca.ServerAndClient)
	keep := func(*Config) {}
	if err := b.reload(leg.Default(), keep); err != nil {
		t.Fatal(err)
	}
	await(t, "the peer to be up", func() bool { return state().Up })
	if got := <-accepted; got != serial {
		t.Errorf("the core accepted certificate %s, want the private one, %s", got, serial)
	}
	if id, _ := b.e.Identity("core-a"); !id.ClientAuth || id.Warning != "" {
		t.Errorf("Identity = %+v, want no warning", id)
	}
	up = b.svc.newCall(served, outside)
	b.svc.send(up.request("INVITE", sdp))
	b.svc.expect("100")
	inv := core.expect("INVITE")
	down := core.called(inv)
	down.contact = "<sip:core@" + core.addr() + ";transport=tls>"
	core.send(down.reply(inv, "200 OK", sdp))
	up.answered(b.svc.expect("200"))
	b.svc.send(up.ack(1, ""))
	core.expect("ACK")

	// A new certificate leaves the connection and its call alone.
	_, _, renewed := install(ca.ServerAndClient)
	if err := b.reload(leg.Default(), keep); err != nil {
		t.Fatal(err)
	}
	before := core.probes.Load()
	await(t, "an OPTIONS after the reload", func() bool { return core.probes.Load() > before })
	b.over(up, down)
	b.idle()
	if len(accepted) > 0 {
		t.Errorf("a connection was made after the reload, with certificate %s", <-accepted)
	}
	_ = core.stream().Close()
	if got := <-accepted; got != renewed {
		t.Errorf("the next connection presented certificate %s, want the new one, %s", got, renewed)
	}
}

// TestClientAuthenticationWarning: which groups are warned about a certificate without client authentication.
func TestClientAuthenticationWarning(t *testing.T) {
	t.Parallel()
	authority, err := ca.New("test")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	known := services.All().Services()
	for _, c := range []struct {
		name, service, transport string
		usage                    ca.Usage
		warned                   bool
	}{
		{"a core", "", "tls", ca.ServerOnly, true},
		{"a core, with client authentication", "", "tls", ca.ServerAndClient, false},
		{"a core that only connects by TLS", "", "udp", ca.ServerOnly, false},
		{"Microsoft asks for server authentication", "teamsDirectRouting", "tls", ca.ServerOnly, false},
		{"so for Operator Connect", "teamsOperatorConnect", "tls", ca.ServerOnly, false},
		{"so for Phone Mobile", "teamsPhoneMobile", "tls", ca.ServerOnly, false},
		{"Zoom asks for a public certificate", "zoomPhoneCloudPeering", "tls", ca.ServerOnly, false},
	} {
		leaf, err := authority.Issue(c.usage, "gw.example.net")
		if err != nil {
			t.Fatal(err)
		}
		cert, key, err := ca.WriteFiles(dir, "gw", leaf)
		if err != nil {
			t.Fatal(err)
		}
		cfg := Config{Groups: []Group{{Name: "g", Service: c.service, Transport: c.transport,
			Bind: Addresses{TLS: "192.0.2.1:5061"}, TLS: TLS{CertificateFile: cert, KeyFile: key}}}}
		errs, warnings := cfg.CheckFiles(known, nil, nil, time.Now())
		if len(errs) > 0 || len(warnings) > 0 != c.warned {
			t.Errorf("%s: errors %v, warnings %v, want a warning %v", c.name, errs, warnings, c.warned)
		}
	}
}

// TestInheritCertificates: a certificate belongs to a TLS address, so a group that names none has that of the others
// there.
func TestInheritCertificates(t *testing.T) {
	t.Parallel()
	own := TLS{CertificateFile: "a.pem", KeyFile: "a.key", RootsFile: "roots.pem"}
	for _, c := range []struct {
		name string
		bind string
		tls  TLS
		want TLS
	}{
		{"none named", "192.0.2.1:5061", TLS{}, own},
		{"roots named", "192.0.2.1:5061", TLS{RootsFile: "b.pem"},
			TLS{CertificateFile: "a.pem", KeyFile: "a.key", RootsFile: "b.pem"}},
		{"one named", "192.0.2.1:5061", TLS{CertificateFile: "b.pem", KeyFile: "b.key"},
			TLS{CertificateFile: "b.pem", KeyFile: "b.key"}},
		{"another address", "192.0.2.1:5063", TLS{}, TLS{}},
		{"no TLS", "", TLS{}, TLS{}},
	} {
		cfg := Config{Groups: []Group{{Bind: Addresses{TLS: c.bind}, TLS: c.tls}, {TLS: own},
			{Bind: Addresses{TLS: "192.0.2.1:5061"}, TLS: own}}}
		cfg.InheritCertificates()
		if got := cfg.Groups[0].TLS; got.paths() != c.want.paths() {
			t.Errorf("%s: files are %+v, want %+v", c.name, got.paths(), c.want.paths())
		}
	}
}
