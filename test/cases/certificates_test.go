package cases_test

import (
	"bufio"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// authority signs the certificates of one test.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  crypto.Signer
	n    int64
}

// identity is what a certificate says about its holder.
type identity struct {
	commonName string
	uris       []string
	dns        []string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Lab CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{dir: t.TempDir(), cert: cert, key: key, n: 1}
	a.write(t, "ca.pem", "CERTIFICATE", der)
	return a
}

func (a *authority) write(t *testing.T, name, kind string, der []byte) {
	t.Helper()
	text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(filepath.Join(a.dir, name), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// issue makes a certificate that is valid for both ends of a connection and writes it to NAME.pem and NAME.key.
func (a *authority) issue(t *testing.T, name string, id identity) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a.n++
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(a.n), Subject: pkix.Name{CommonName: id.commonName}, DNSNames: id.dns,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, u := range id.uris {
		p, err := url.Parse(u)
		if err != nil {
			t.Fatal(err)
		}
		tmpl.URIs = append(tmpl.URIs, p)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	k, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	a.write(t, name+".pem", "CERTIFICATE", der)
	a.write(t, name+".key", "PRIVATE KEY", k)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// identities are certificates, and whether each names the SIP domain core.example.net according to RFC 5922 §7.1 and
// §7.2 (siphon-ai#600, mbedtls#9605).
var identities = []struct {
	name string
	id   identity
	ok   bool
}{
	{"dns", identity{"x", nil, []string{"core.example.net"}}, true},
	{"uri", identity{"Some Org", []string{"sip:core.example.net"}, nil}, true},
	{"uri and another DNS name",
		identity{"Some Org", []string{"sip:core.example.net"}, []string{"sip1.carrier.example"}}, true},
	{"uri and the same DNS name",
		identity{"Some Org", []string{"sip:core.example.net"}, []string{"core.example.net"}}, true},
	{"several URIs",
		identity{"Some Org", []string{"sip:other.example", "sip:core.example.net", "https://core.example"}, nil}, true},
	{"uri in capitals", identity{"Some Org", []string{"sip:CORE.example.NET"}, nil}, true},
	{"common name alone", identity{"core.example.net", nil, nil}, true},
	{"common name beside a DNS name", identity{"core.example.net", nil, []string{"other.example"}}, false},
	{"common name beside a URI", identity{"core.example.net", []string{"sip:other.example"}, nil}, false},
	{"uri of a user", identity{"Some Org", []string{"sip:core@core.example.net"}, nil}, false},
	{"uri of a user with the name", identity{"Some Org", []string{"sip:core.example.net@other.example"}, nil}, false},
	{"uri of another scheme", identity{"Some Org", []string{"https://core.example.net"}, nil}, false},
	{"another uri", identity{"Some Org", []string{"sip:evil.example"}, nil}, false},
	{"uri of a subdomain", identity{"Some Org", []string{"sip:a.core.example.net"}, nil}, false},
	{"uri with the name at its end", identity{"Some Org", []string{"sip:evil-core.example.net"}, nil}, false},
}

// Case 10: a peer that connects presents a certificate that names it by URI.
func TestCase10PeerThatConnects(t *testing.T) {
	t.Parallel()
	a, b := newAuthority(t), block(t)
	a.issue(t, "gw", identity{"sbc.gw.example.com", nil, []string{"sbc.gw.example.com"}})
	serve(t, b, fmt.Sprintf(`metrics: {listen: "127.76.0.9:9464"}
manage: {listen: "127.76.0.9:8081"}
provisioning: {listen: "127.76.0.9:8080"}
calls:
  groups:
    - name: core
      transport: tls
      bind: {tls: "127.76.0.10:5061"}
      advertised: {tls: sbc.gw.example.com}
      peers: []
      allowedSources: ["127.76.0.2/32"]
      options: {off: true}
      tls: {certificateFile: %[1]s/gw.pem, keyFile: %[1]s/gw.key, rootsFile: %[1]s/ca.pem,
        peerNames: [core.example.net]}
`, a.dir))
	for _, v := range identities {
		t.Run(v.name, func(t *testing.T) {
			cert := a.issue(t, "peer", v.id)
			d := tls.Dialer{
				NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(b + "2")}, Timeout: patience},
				Config: &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: a.pool(),
					ServerName: "sbc.gw.example.com"},
			}
			start, err := ask(t, d, b+"10:5061")
			if ok := err == nil && strings.HasPrefix(start, "SIP/2.0 200"); ok != v.ok {
				t.Errorf("OPTIONS over the connection: %q, %v; want a response: %v", start, err, v.ok)
			}
		})
	}
}

// ask connects and sends OPTIONS. It returns the start line of the response.
func ask(t *testing.T, d tls.Dialer, addr string) (string, error) {
	t.Helper()
	conn, err := d.DialContext(t.Context(), "tcp4", addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	_, err = fmt.Fprint(conn, compose("OPTIONS sip:"+addr+" SIP/2.0", []string{
		"Via: SIP/2.0/TLS " + conn.LocalAddr().String() + ";branch=z9hG4bK" + token(), "Max-Forwards: 70",
		"From: <sip:a@core.example.net>;tag=1", "To: <sip:b@x.example>", "Call-ID: " + token(), "CSeq: 1 OPTIONS"}, ""))
	if err != nil {
		return "", err
	}
	m, err := readMessage(bufio.NewReader(conn))
	if err != nil {
		return "", err
	}
	return m.start, nil
}

// Case 10, in the other direction: the program connects to a peer whose certificate names it by URI.
func TestCase10PeerThatIsConnectedTo(t *testing.T) {
	t.Parallel()
	a, b := newAuthority(t), block(t)
	a.issue(t, "gw", identity{"sbc.gw.example.com", nil, []string{"sbc.gw.example.com"}})

	// One peer for each identity, all started before the program.
	peers := make([]string, len(identities))
	results := make([]chan error, len(identities))
	for i, v := range identities {
		addr := fmt.Sprintf("%s%d:5061", b, 100+i)
		cert := a.issue(t, "peer", v.id)
		l, err := tls.Listen("tcp4", addr, &tls.Config{Certificates: []tls.Certificate{cert}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		results[i] = make(chan error, 1)
		go func() {
			conn, err := l.Accept()
			if err != nil {
				results[i] <- err
				return
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patience)) // does not fail on an open connection
			m, err := readMessage(bufio.NewReader(conn))
			if err == nil {
				_, err = fmt.Fprint(conn, response(m, 200, token(), ""))
			}
			results[i] <- err
		}()
		peers[i] = fmt.Sprintf(`{name: p%d, type: ip, address: "%s", certificateName: core.example.net}`, i, addr)
	}
	serve(t, b, fmt.Sprintf(`metrics: {listen: "127.76.0.9:9464"}
manage: {listen: "127.76.0.9:8081"}
provisioning: {listen: "127.76.0.9:8080"}
calls:
  groups:
    - name: core
      transport: tls
      bind: {tls: "127.76.0.10:5061"}
      advertised: {tls: sbc.gw.example.com}
      peers: [%[2]s]
      tls: {certificateFile: %[1]s/gw.pem, keyFile: %[1]s/gw.key, rootsFile: %[1]s/ca.pem}
`, a.dir, strings.Join(peers, ", ")))
	for i, v := range identities {
		t.Run(v.name, func(t *testing.T) {
			if err := <-results[i]; (err == nil) != v.ok {
				t.Errorf("OPTIONS to the peer: %v; want it to arrive: %v", err, v.ok)
			}
		})
	}
}
