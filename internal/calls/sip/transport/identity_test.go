package transport_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/calls/sip/transport"
)

// issueSAN returns a certificate with a common name and alternative names in the notation of openssl: URI:…, DNS:…,
// IP:…, email:….
func (a *authority) issueSAN(t *testing.T, cn string, alt ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	tmpl := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: cn},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: bothAuth, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	for _, s := range alt {
		kind, value, _ := strings.Cut(s, ":")
		switch kind {
		case "URI":
			u, err := url.Parse(value)
			if err != nil {
				t.Fatal(err)
			}
			tmpl.URIs = append(tmpl.URIs, u)
		case "DNS":
			tmpl.DNSNames = append(tmpl.DNSNames, value)
		case "IP":
			tmpl.IPAddresses = append(tmpl.IPAddresses, net.ParseIP(value))
		case "email":
			tmpl.EmailAddresses = append(tmpl.EmailAddresses, value)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// Which identities a certificate has (RFC 5922 §7.1, §7.2), both ways: presented by a far side that we connect to, and
// by one that connects to us.
func TestCertificateIdentities(t *testing.T) {
	ca := newAuthority(t, "ca")
	const core = "core.example.net"
	for _, c := range []struct {
		name string
		cn   string
		alt  []string
		want string // the name configured
		ok   bool
	}{
		{"a DNS name", "x", []string{"DNS:" + core}, core, true},
		{"a sip URI alone", "Some Org", []string{"URI:sip:" + core}, core, true},
		{"a sip URI beside another DNS name", "Some Org",
			[]string{"URI:sip:" + core, "DNS:sip1.carrier.example"}, core, true},
		{"a DNS name beside a sip URI of another domain does not count", "x",
			[]string{"URI:sip:other.example", "DNS:" + core}, core, false},
		{"the second of two sip URIs", "x", []string{"URI:sip:other.example", "URI:sip:" + core}, core, true},
		{"schemes and hosts are case-insensitive", "x", []string{"URI:SIP:Core.EXAMPLE.net"}, core, true},
		{"a sip URI with port and parameter", "x", []string{"URI:sip:" + core + ":5061;transport=tls"}, core, true},
		{"a final dot", "x", []string{"URI:sip:" + core + "."}, core, true},
		{"a sip URI with a user names a person", "x", []string{"URI:sip:admin@" + core}, core, false},
		{"a user's URI does not hide the DNS name", "x", []string{"URI:sip:admin@" + core, "DNS:" + core}, core, true},
		{"sips is not a domain identity", "x", []string{"URI:sips:" + core}, core, false},
		{"nor is https", "x", []string{"URI:https://" + core + "/"}, core, false},
		{"another scheme does not hide the DNS name", "x",
			[]string{"URI:https://w.example/", "DNS:" + core}, core, true},
		{"no wildcard in a sip URI", "x", []string{"URI:sip:*.example.net"}, core, false},
		{"a wildcard in a DNS name, as Microsoft's", "x", []string{"DNS:*.example.net"}, core, true},
		{"a pattern of ours with a sip URI", "x", []string{"URI:sip:" + core}, "*.example.net", true},
		{"a pattern stands for one label", "x", []string{"URI:sip:a." + core}, "*.example.net", false},
		{"a longer name", "x", []string{"URI:sip:" + core + ".evil.example"}, core, false},
		{"the common name if there is no alternative name", core, nil, core, true},
		{"a common name with a wildcard", "*.example.net", nil, core, true},
		{"not the common name beside a DNS name", core, []string{"DNS:other.example"}, core, false},
		{"not the common name beside a URI", core, []string{"URI:https://w.example/"}, core, false},
		{"not the common name beside a user's sip URI", core, []string{"URI:sip:admin@" + core}, core, false},
		{"not the common name beside an email address", core, []string{"email:a@" + core}, core, false},
		{"not the common name beside an address", core, []string{"IP:127.0.0.1"}, core, false},
		{"an address", "x", []string{"IP:192.0.2.1", "URI:sip:" + core}, "192.0.2.1", true},
		{"an A-label", "x", []string{"URI:sip:XN--bcher-kva.example"}, "xn--bcher-kva.example", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			cert := one("far", ca.issueSAN(t, c.cn, c.alt...))
			gw := one("gw", ca.issue(t, bothAuth, "gw.example.net"))
			for way, pair := range map[string]struct{ from, to *site }{
				"we connect": {newSite(t, ca, transport.TLSConfig{Identity: "gw"}, gw),
					newSite(t, ca, transport.TLSConfig{Identity: "far"}, cert)},
				"they connect": {newSite(t, ca, transport.TLSConfig{Identity: "far"}, cert),
					newSite(t, ca, transport.TLSConfig{Identity: "gw", PeerNames: []string{c.want}}, gw)},
			} {
				name := c.want
				if way == "they connect" {
					name = "gw.example.net"
				}
				got, err := pair.from.send(t, pair.to, pair.from.to(pair.to, name), "c1")
				if (err == nil) != c.ok {
					t.Errorf("%s: %v, want accepted %v", way, err, c.ok)
				}
				if err == nil && way == "they connect" && !got.f.VerifiedFor(c.want) {
					t.Errorf("VerifiedFor(%q) is false, identities %q", c.want, got.f.PeerIdentities())
				}
			}
		})
	}
}

// A certificate of ours with its name in a sip URI is found by that name and by its DNS names.
func TestServerNameFindsSIPURI(t *testing.T) {
	ca := newAuthority(t, "ca")
	k := keyring(t, one("us", ca.issueSAN(t, "x", "URI:sip:sbc.example.net", "DNS:host.example.net")))
	for _, n := range []string{"sbc.example.net", "host.example.net"} {
		if id, _ := k.ForName(n); id != "us" {
			t.Errorf("ForName(%q) = %q, want us", n, id)
		}
	}
	if id, _ := k.ForName("x"); id != "" {
		t.Errorf("the common name is found although there are alternative names")
	}
}
