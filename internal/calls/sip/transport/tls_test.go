package transport_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/calls/sip/transport"
)

// site is a node with one TLS endpoint.
type site struct {
	*node
	ep   *transport.Endpoint
	cert atomic.Pointer[tls.Certificate]
}

// newSite returns a site with a certificate; with an empty one it presents none when it connects.
func newSite(t *testing.T, ca *authority, cfg transport.TLSConfig, cert tls.Certificate) *site {
	t.Helper()
	s := &site{node: newNode(t, transport.Config{})}
	s.cert.Store(&cert)
	cfg.Certificate, cfg.Roots = s.cert.Load, ca.roots
	s.ep = s.listen(transport.EndpointConfig{Proto: transport.TLS, TLS: &cfg})
	return s
}

// to returns the target of b's endpoint from s, under a name.
func (s *site) to(b *site, name string) transport.Target {
	return transport.Target{From: s.ep, Addr: b.ep.Local(), ServerName: name}
}

// send sends an OPTIONS and returns its outcome: the message as received, or why it failed.
func (s *site) send(t *testing.T, b *site, target transport.Target, id string) (received, error) {
	t.Helper()
	w := make(waiter, 1)
	if _, err := s.Send([]byte(request(target.Via("z9hG4bK1"), id)), target, w); err != nil {
		return received{}, err
	}
	select {
	case g := <-b.got:
		if g.m.CallID() != id {
			t.Errorf("got %s, want %s", g.m.CallID(), id)
		}
		return g, nil
	case err := <-w:
		return received{}, err
	case <-time.After(patience):
		t.Fatal("neither a message nor a failure")
		panic("unreachable")
	}
}

func (s *site) sends(t *testing.T, b *site, target transport.Target, id string) received {
	t.Helper()
	g, err := s.send(t, b, target, id)
	if err != nil {
		t.Fatalf("send %s: %v", id, err)
	}
	return g
}

func TestMutualTLS(t *testing.T) {
	ca, stranger := newAuthority(t, "ca"), newAuthority(t, "stranger")
	gw := ca.issue(t, bothAuth, "gw.example.net")
	for _, c := range []struct {
		name   string
		ours   transport.TLSConfig // the side that connects
		mine   tls.Certificate
		theirs transport.TLSConfig
		cert   tls.Certificate
		as     string // the name we want
		fails  string // part of the error, "" for success
	}{
		{name: "both sides present certificates", mine: gw, cert: ca.issue(t, bothAuth, "sbc.example.net"),
			as: "sbc.example.net"},
		{name: "a client certificate for server authentication only is accepted",
			mine: ca.issue(t, serverAuth, "sip.pstnhub.microsoft.com"),
			cert: ca.issue(t, serverAuth, "sbc.example.net"), as: "sbc.example.net"},
		{name: "a client certificate for something else is refused",
			mine: ca.issue(t, codeSigning, "gw.example.net"),
			cert: ca.issue(t, serverAuth, "sbc.example.net"), as: "sbc.example.net", fails: "bad certificate"},
		{name: "a client without certificate is refused",
			cert: ca.issue(t, serverAuth, "sbc.example.net"), as: "sbc.example.net", fails: "certificate"},
		{name: "a client without certificate is accepted where that is allowed",
			theirs: transport.TLSConfig{Anonymous: true},
			cert:   ca.issue(t, serverAuth, "sbc.example.net"), as: "sbc.example.net"},
		{name: "a client certificate of another authority is refused",
			mine: stranger.issue(t, bothAuth, "gw.example.net"),
			cert: ca.issue(t, serverAuth, "sbc.example.net"), as: "sbc.example.net", fails: "bad certificate"},
		{name: "a server certificate of another authority is refused", mine: gw,
			cert: stranger.issue(t, bothAuth, "sbc.example.net"), as: "sbc.example.net", fails: "unknown authority"},
		{name: "a server certificate with another name is refused", mine: gw,
			cert: ca.issue(t, bothAuth, "other.example.net"), as: "sbc.example.net",
			fails: "none of the names sbc.example.net"},
		{name: "a wildcard matches one label", mine: gw, cert: ca.issue(t, bothAuth, "*.1r1.example.net"),
			as: "c1.1r1.example.net"},
		{name: "and not for two", mine: gw, cert: ca.issue(t, bothAuth, "*.example.net"),
			as: "c1.1r1.example.net", fails: "none of the names"},
		{name: "the certificate may carry the address", mine: gw, cert: ca.issue(t, bothAuth, "127.0.0.1"), as: ""},
		{name: "without a name it must carry the address", mine: gw,
			cert: ca.issue(t, bothAuth, "sbc.example.net"), as: "", fails: "none of the names"},
		{name: "names in PeerNames are accepted too", mine: gw,
			ours: transport.TLSConfig{PeerNames: []string{"*.pstnhub.example.net"}},
			cert: ca.issue(t, bothAuth, "sip2.pstnhub.example.net"), as: "sip.example.net"},
		{name: "a client must carry an allowed name", mine: gw,
			theirs: transport.TLSConfig{PeerNames: []string{"core.example.net"}},
			cert:   ca.issue(t, bothAuth, "sbc.example.net"), as: "sbc.example.net", fails: "bad certificate"},
		{name: "a client that carries an allowed name is accepted", mine: gw,
			theirs: transport.TLSConfig{PeerNames: []string{"core.example.net", "*.example.net"}},
			cert:   ca.issue(t, bothAuth, "sbc.example.net"), as: "sbc.example.net"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := newSite(t, ca, c.ours, c.mine), newSite(t, ca, c.theirs, c.cert)
			_, err := a.send(t, b, a.to(b, c.as), "c1")
			switch {
			case c.fails == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.fails != "" && err == nil:
				t.Error("accepted, want refused")
			case c.fails != "" && !strings.Contains(err.Error(), c.fails):
				t.Errorf("refused with %q, want %q in it", err, c.fails)
			}
			var ce *transport.ConnError
			if err != nil && !errors.As(err, &ce) {
				t.Errorf("the error is a %T, want *ConnError", err)
			}
		})
	}
}

// A renewed certificate is presented on the next connections; open connections stay.
func TestCertificateReload(t *testing.T) {
	ca := newAuthority(t, "ca")
	a := newSite(t, ca, transport.TLSConfig{}, ca.issue(t, bothAuth, "sbc.example.net"))
	first := ca.issue(t, bothAuth, "gw.example.net")
	b := newSite(t, ca, transport.TLSConfig{}, first)
	g := a.sends(t, b, a.to(b, "gw.example.net"), "before")
	second := ca.issue(t, bothAuth, "gw.example.net")
	b.cert.Store(&second)
	renewed := ca.issue(t, bothAuth, "sbc2.example.net")
	a.cert.Store(&renewed)
	if same := a.sends(t, b, a.to(b, "gw.example.net"), "same"); !same.f.Same(g.f) {
		t.Error("the connection did not outlive the reload")
	}
	c := newSite(t, ca, transport.TLSConfig{}, ca.issue(t, bothAuth, "sbc.example.net"))
	w := make(waiter, 1)
	f, err := c.Send([]byte("\r\n\r\n"), c.to(b, "gw.example.net"), w)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the connection is open", f.Established)
	if got := f.PeerCertificate(); string(got.Raw) != string(second.Certificate[0]) {
		t.Error("the new certificate was not presented on a new connection")
	}
}

// field-pains 4 (opensips#1651): a connection made with the certificate of one endpoint is never used for another one's
// requests, nor one made to a far side under one name for another name.
func TestTenantsDoNotShareConnections(t *testing.T) {
	ca := newAuthority(t, "ca")
	a := newSite(t, ca, transport.TLSConfig{}, ca.issue(t, bothAuth, "c1.1r1.example.net"))
	other := ca.issue(t, bothAuth, "c2.1r1.example.net")
	second := a.listen(transport.EndpointConfig{Proto: transport.TLS, TLS: &transport.TLSConfig{Roots: ca.roots,
		Certificate: func() *tls.Certificate { return &other }}})
	b := newSite(t, ca, transport.TLSConfig{}, ca.issue(t, bothAuth, "sip.example.org", "sip2.example.org"))
	from := func(ep *transport.Endpoint, name string) transport.Target {
		target := a.to(b, name)
		target.From = ep
		return target
	}
	c1 := a.sends(t, b, from(a.ep, "sip.example.org"), "c1")
	c2 := a.sends(t, b, from(second, "sip.example.org"), "c2")
	if !c1.f.VerifiedFor("c1.1r1.example.net") || !c2.f.VerifiedFor("c2.1r1.example.net") ||
		c1.f.VerifiedFor("c2.1r1.example.net") || c1.f.Same(c2.f) {
		t.Fatal("two tenants share a connection")
	}
	if again := a.sends(t, b, from(a.ep, "sip.example.org"), "c1 again"); !again.f.Same(c1.f) {
		t.Error("the same tenant did not use its connection again")
	}
	if other := a.sends(t, b, from(a.ep, "sip2.example.org"), "other name"); other.f.Same(c1.f) {
		t.Error("another name used the connection verified for the first")
	}
	// Even when the caller asks for the other tenant's flow.
	mine, err := a.Send([]byte(request("SIP/2.0/TLS x;branch=z9hG4bK1", "flow")), from(a.ep, "sip.example.org"), nil)
	if err != nil {
		t.Fatal(err)
	}
	b.next(t)
	wrong := from(second, "sip.example.org")
	wrong.Prefer = mine
	if g := a.sends(t, b, wrong, "wrong flow"); !g.f.VerifiedFor("c2.1r1.example.net") {
		t.Error("tenant c2's request used tenant c1's connection")
	}
	wrong = from(a.ep, "evil.example.org")
	wrong.Prefer = mine
	if _, err := a.send(t, b, wrong, "wrong name"); err == nil {
		t.Error("a request for evil.example.org used a connection verified for sip.example.org")
	}
	if got := a.Metrics().ReuseRefused.Load(); got != 1 {
		t.Errorf("%d refused reuses counted, want 1", got)
	}
}

// Two endpoints with different trust roots share no connections, even to one address.
func TestEndpointsDoNotShareConnections(t *testing.T) {
	ca := newAuthority(t, "ca")
	a := newSite(t, ca, transport.TLSConfig{}, ca.issue(t, bothAuth, "gw.example.net"))
	second := a.listen(transport.EndpointConfig{Proto: transport.TLS, TLS: &transport.TLSConfig{
		Certificate: a.cert.Load, Roots: newAuthority(t, "other").roots}})
	b := newSite(t, ca, transport.TLSConfig{}, ca.issue(t, bothAuth, "sbc.example.net"))
	a.sends(t, b, a.to(b, "sbc.example.net"), "first")
	target := a.to(b, "sbc.example.net")
	target.From = second
	if _, err := a.send(t, b, target, "second"); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("send from the other endpoint = %v, want its own trust to refuse", err)
	}
}

// RFC 5923: a connection opened by the far side carries requests to the port it named, if its certificate covers the
// name they are for.
func TestAliasOverTLS(t *testing.T) {
	ca := newAuthority(t, "ca")
	a := newSite(t, ca, transport.TLSConfig{}, ca.issue(t, serverAuth, "sip.example.org"))
	b := newSite(t, ca, transport.TLSConfig{}, ca.issue(t, bothAuth, "gw.example.net"))
	a.sends(t, b, a.to(b, "gw.example.net"), "hello") // Via says ;alias and a's port
	back := transport.Target{From: b.ep, Addr: a.ep.Local(), ServerName: "sip.example.org"}
	g := b.sends(t, a, back, "back")
	if got := b.Metrics().ConnsDialled.Load(); got != 0 {
		t.Errorf("%d connections were made, want the far side's to be used", got)
	}
	answer(t, a.node, g)
	b.next(t)
	back = transport.Target{From: b.ep, Addr: a.ep.Local(), ServerName: "evil.example.org"}
	if _, err := b.send(t, a, back, "evil"); err == nil {
		t.Error("a request for another name used the far side's connection")
	}
	// A port other than the one it named is another far side.
	back = transport.Target{From: b.ep, Addr: netip.AddrPortFrom(a.ep.Local().Addr(), 1), ServerName: "sip.example.org"}
	if _, err := b.send(t, a, back, "other port"); err == nil {
		t.Error("a request to another port used the connection")
	}
}

// field-pains 5 with TLS: the answer arrives after the connection has closed, but only at the sender of the request.
func TestResponseAfterTLSConnectionLoss(t *testing.T) {
	ca := newAuthority(t, "ca")
	for _, c := range []struct {
		name  string
		cert  tls.Certificate // of the listener at the Via's port
		fails bool
	}{
		{"the same far side", ca.issue(t, bothAuth, "sbc.example.net"), false},
		{"another far side", ca.issue(t, bothAuth, "thief.example.net"), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			gw := newSite(t, ca, transport.TLSConfig{}, ca.issue(t, bothAuth, "gw.example.net"))
			listener := newSite(t, ca, transport.TLSConfig{}, c.cert)
			caller := newSite(t, ca, transport.TLSConfig{}, ca.issue(t, bothAuth, "sbc.example.net"))
			target := caller.to(gw, "gw.example.net")
			if _, err := caller.Send([]byte(request(fmt.Sprintf("SIP/2.0/TLS sbc.example.net:%d;branch=z9hG4bK1",
				listener.ep.Local().Port()), "c1")), target, nil); err != nil {
				t.Fatal(err)
			}
			g := gw.next(t)
			caller.Close()
			eventually(t, "the connection is closed", func() bool { return !g.f.Alive() })
			w := make(waiter, 1)
			if err := gw.Reply([]byte("SIP/2.0 200 OK\r\nVia: SIP/2.0/TLS sbc.example.net;branch=z9hG4bK1\r\n"+
				"From: <sip:a@x>;tag=a\r\nTo: <sip:b@x>;tag=b\r\nCall-ID: c1\r\nCSeq: 1 OPTIONS\r\n"+
				"Content-Length: 0\r\n\r\n"), g.f, w); err != nil {
				t.Fatal(err)
			}
			if c.fails {
				if err := w.next(t); !strings.Contains(err.Error(), "none of the names") {
					t.Errorf("SendFailed(%v)", err)
				}
				return
			}
			if got := listener.next(t); got.m.Status() != 200 {
				t.Errorf("got %s", got.m)
			}
		})
	}
}

func TestTLSVersionAndSuites(t *testing.T) {
	ca := newAuthority(t, "ca")
	b := newSite(t, ca, transport.TLSConfig{}, ca.issue(t, bothAuth, "gw.example.net"))
	client := ca.issue(t, bothAuth, "sbc.example.net")
	for _, c := range []struct {
		name  string
		cfg   *tls.Config
		fails bool
	}{
		{"TLS 1.3", &tls.Config{MinVersion: tls.VersionTLS13}, false},
		{"TLS 1.2 with AES-GCM", &tls.Config{MaxVersion: tls.VersionTLS12}, false},
		{"TLS 1.1", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, true},
		{"TLS 1.2 with ChaCha20 only", &tls.Config{MaxVersion: tls.VersionTLS12,
			CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256}}, true},
		{"TLS 1.2 with AES-CBC", &tls.Config{MaxVersion: tls.VersionTLS12,
			CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256}}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.cfg.Certificates, c.cfg.RootCAs, c.cfg.ServerName = []tls.Certificate{client}, ca.pool, "gw.example.net"
			nc, err := tls.Dial("tcp", b.ep.Local().String(), c.cfg)
			if (err != nil) != c.fails {
				t.Errorf("handshake: %v, want failure: %v", err, c.fails)
			}
			if err == nil {
				_ = nc.Close()
			}
		})
	}
}

// A far side that connects and sends nothing is disconnected after the handshake time-out.
func TestHandshakeTimeout(t *testing.T) {
	ca := newAuthority(t, "ca")
	cert := ca.issue(t, bothAuth, "gw.example.net")
	n := newNode(t, transport.Config{HandshakeTimeout: 50 * time.Millisecond})
	ep := n.listen(transport.EndpointConfig{Proto: transport.TLS, TLS: &transport.TLSConfig{
		Certificate: func() *tls.Certificate { return &cert }, Roots: ca.roots}})
	closedSoon(t, dialTCP(t, ep))
	eventually(t, "it is counted", func() bool { return n.Metrics().HandshakesFailed.Load() == 1 })
}

func TestTLSMistakes(t *testing.T) {
	n := newNode(t, transport.Config{})
	for _, cfg := range []*transport.TLSConfig{nil, {}, {Roots: newAuthority(t, "ca").roots}} {
		if _, err := n.Listen(transport.EndpointConfig{Name: "edge", Proto: transport.TLS, Bind: loopback,
			TLS: cfg}); err == nil {
			t.Errorf("an endpoint opened with TLS configuration %+v", cfg)
		}
	}
}
