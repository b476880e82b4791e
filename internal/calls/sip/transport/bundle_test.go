package transport_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/calls/sip/transport"
)

// TestMain checks that no goroutine of a closed stack is left.
func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if left := ours(patience); left != "" {
			fmt.Fprintf(os.Stderr, "goroutines left behind:\n%s\n", left)
			code = 1
		}
	}
	os.Exit(code)
}

// ours returns the stacks of goroutines that run code of this package, "" if there are none within the time.
func ours(within time.Duration) string {
	deadline := time.Now().Add(within)
	for {
		buf := make([]byte, 1<<20)
		buf = buf[:runtime.Stack(buf, true)]
		var left []string
		for _, g := range strings.Split(string(buf), "\n\n") {
			if strings.Contains(g, "sip/transport.(") {
				left = append(left, g)
			}
		}
		if len(left) == 0 || time.Now().After(deadline) {
			return strings.Join(left, "\n\n")
		}
		time.Sleep(10 * time.Millisecond) // polling; nothing depends on the interval
	}
}

const patience = time.Minute

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

type received struct {
	m *sip.Message
	p *sip.Problem
	f transport.Flow
}

type unreached struct {
	sent string
	to   netip.AddrPort
	err  error
}

// recorder is a handler that keeps what it is passed.
type recorder struct {
	got  chan received
	lost chan unreached
}

func newRecorder() *recorder {
	return &recorder{got: make(chan received, 10_000), lost: make(chan unreached, 10_000)}
}

func (r *recorder) Unreachable(sent string, to netip.AddrPort, err error) {
	r.lost <- unreached{sent, to, err}
}

func (r *recorder) Receive(m *sip.Message, p *sip.Problem, f transport.Flow) {
	r.got <- received{m, p, f}
}

func (r *recorder) next(t *testing.T) received {
	t.Helper()
	select {
	case g := <-r.got:
		return g
	case <-time.After(patience):
		t.Fatal("no message arrived")
		panic("unreachable")
	}
}

func (r *recorder) none(t *testing.T) {
	t.Helper()
	select {
	case g := <-r.got:
		t.Fatalf("unexpected message:\n%s", g.m)
	case <-time.After(50 * time.Millisecond):
	}
}

// node is a started stack with one handler.
type node struct {
	*transport.Stack
	*recorder
	t *testing.T
}

func newNode(t *testing.T, cfg transport.Config) *node {
	t.Helper()
	s, err := transport.New(cfg, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{s, newRecorder(), t}
	if err := s.Start(n.recorder); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return n
}

func (n *node) listen(cfg transport.EndpointConfig) *transport.Endpoint {
	n.t.Helper()
	if !cfg.Bind.IsValid() {
		cfg.Bind = loopback
	}
	if cfg.Name == "" {
		cfg.Name = cfg.Proto.String()
	}
	ep, err := n.Listen(cfg)
	if err != nil {
		n.t.Fatal(err)
	}
	return ep
}

// request is the text of a request with the given Via value.
func request(via, callID string) string {
	return "OPTIONS sip:gw.example.net SIP/2.0\r\nVia: " + via +
		"\r\nMax-Forwards: 70\r\nFrom: <sip:a@example.net>;tag=a\r\n" +
		"To: <sip:gw.example.net>\r\nCall-ID: " + callID + "\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
}

func answer(t *testing.T, n *node, g received) {
	t.Helper()
	if err := n.Reply(sip.NewResponse(g.m, 200, "", "t").Bytes(), g.f, nil); err != nil {
		t.Fatalf("Reply: %v", err)
	}
}

// waiter is a transport.Waiter that keeps its errors.
type waiter chan error

func (w waiter) SendFailed(err error) { w <- err }

func (w waiter) next(t *testing.T) error {
	t.Helper()
	select {
	case err := <-w:
		return err
	case <-time.After(patience):
		t.Fatal("SendFailed was not called")
		return nil
	}
}

// read reads from a plain connection until the text ends in want.
func read(t *testing.T, c net.Conn, want string) string {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	var all bytes.Buffer
	buf := make([]byte, 4096)
	for !strings.HasSuffix(all.String(), want) {
		n, err := c.Read(buf)
		if err != nil {
			t.Fatalf("read: %v; so far %q", err, all.String())
		}
		all.Write(buf[:n])
	}
	return all.String()
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !f(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		runtime.Gosched()
	}
}

// authority signs certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key, pool: x509.NewCertPool()}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) roots() *x509.CertPool { return a.pool }

var (
	serverAuth  = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	bothAuth    = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	codeSigning = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
)

func (a *authority) issue(t *testing.T, usage []x509.ExtKeyUsage, names ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	tmpl := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: names[0]},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: usage, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// keyring returns a keyring with certs, by identity.
func keyring(t *testing.T, certs map[string]tls.Certificate) *transport.Keyring {
	t.Helper()
	k := transport.NewKeyring()
	for id, c := range certs {
		if err := k.Put(id, c); err != nil {
			t.Fatal(err)
		}
	}
	return k
}
