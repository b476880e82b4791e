package transport_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/calls/sip/transport"
)

// site is a node with one TLS endpoint.
type site struct {
	*node
	ep   *transport.Endpoint
	keys *transport.Keyring
}

func newSite(t *testing.T, ca *authority, cfg transport.TLSConfig, certs map[string]tls.Certificate) *site {
	t.Helper()
	n := newNode(t, transport.Config{})
	cfg.Keys = keyring(t, certs)
	if cfg.Roots == nil {
		cfg.Roots = ca.roots
	}
	return &site{n, n.listen(transport.EndpointConfig{Proto: transport.TLS, TLS: &cfg}), cfg.Keys}
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

func one(name string, c tls.Certificate) map[string]tls.Certificate {
	return map[string]tls.Certificate{name: c}
}

func TestMutualTLS(t *testing.T) {
	ca, stranger := newAuthority(t, "ca"), newAuthority(t, "stranger")
	gw := one("gw", ca.issue(t, bothAuth, "gw.example.net"))
	for _, c := range []struct {
		name   string
		ours   transport.TLSConfig // the side that connects
		mine   map[string]tls.Certificate
		theirs transport.TLSConfig
		cert   map[string]tls.Certificate
		as     string // the name we want
		fails  string // part of the error, "" for success
	}{
		{name: "both sides present certificates", ours: transport.TLSConfig{Identity: "gw"}, mine: gw,
			theirs: transport.TLSConfig{Identity: "sbc"}, cert: one("sbc", ca.issue(t, bothAuth, "sbc.example.net")),
			as: "sbc.example.net"},
		{name: "a client certificate for server authentication only is accepted",
			ours:   transport.TLSConfig{Identity: "gw"},
			mine:   one("gw", ca.issue(t, serverAuth, "sip.pstnhub.microsoft.com")),
			theirs: transport.TLSConfig{Identity: "sbc"},
			cert:   one("sbc", ca.issue(t, serverAuth, "sbc.example.net")), as: "sbc.example.net"},
		{name: "a client certificate for something else is refused", ours: transport.TLSConfig{Identity: "gw"},
			mine: one("gw", ca.issue(t, codeSigning, "gw.example.net")), theirs: transport.TLSConfig{Identity: "sbc"},
			cert: one("sbc", ca.issue(t, serverAuth, "sbc.example.net")), as: "sbc.example.net",
			fails: "bad certificate"},
		{name: "a client without certificate is refused", mine: gw, theirs: transport.TLSConfig{Identity: "sbc"},
			cert: one("sbc", ca.issue(t, serverAuth, "sbc.example.net")), as: "sbc.example.net", fails: "certificate"},
		{name: "a client without certificate is accepted where that is allowed", mine: gw,
			theirs: transport.TLSConfig{Identity: "sbc", Anonymous: true},
			cert:   one("sbc", ca.issue(t, serverAuth, "sbc.example.net")), as: "sbc.example.net"},
		{name: "a client certificate of another authority is refused", ours: transport.TLSConfig{Identity: "gw"},
			mine:   one("gw", stranger.issue(t, bothAuth, "gw.example.net")),
			theirs: transport.TLSConfig{Identity: "sbc"},
			cert:   one("sbc", ca.issue(t, serverAuth, "sbc.example.net")), as: "sbc.example.net",
			fails: "bad certificate"},
		{name: "a server certificate of another authority is refused",
			ours: transport.TLSConfig{Identity: "gw"}, mine: gw,
			theirs: transport.TLSConfig{Identity: "sbc"},
			cert:   one("sbc", stranger.issue(t, bothAuth, "sbc.example.net")), as: "sbc.example.net",
			fails: "unknown authority"},
		{name: "a server certificate with another name is refused", ours: transport.TLSConfig{Identity: "gw"}, mine: gw,
			theirs: transport.TLSConfig{Identity: "sbc"}, cert: one("sbc", ca.issue(t, bothAuth, "other.example.net")),
			as: "sbc.example.net", fails: "none of the names sbc.example.net"},
		{name: "a wildcard matches one label", ours: transport.TLSConfig{Identity: "gw"}, mine: gw,
			theirs: transport.TLSConfig{Identity: "sbc"}, cert: one("sbc", ca.issue(t, bothAuth, "*.1r1.example.net")),
			as: "c1.1r1.example.net"},
		{name: "and not for two", ours: transport.TLSConfig{Identity: "gw"}, mine: gw,
			theirs: transport.TLSConfig{Identity: "sbc"}, cert: one("sbc", ca.issue(t, bothAuth, "*.example.net")),
			as: "c1.1r1.example.net", fails: "none of the names"},
		{name: "the certificate may carry the address", ours: transport.TLSConfig{Identity: "gw"}, mine: gw,
			theirs: transport.TLSConfig{Identity: "sbc"}, cert: one("sbc", ca.issue(t, bothAuth, "127.0.0.1")), as: ""},
		{name: "without a name it must carry the address", ours: transport.TLSConfig{Identity: "gw"}, mine: gw,
			theirs: transport.TLSConfig{Identity: "sbc"}, cert: one("sbc", ca.issue(t, bothAuth, "sbc.example.net")),
			as: "", fails: "none of the names"},
		{name: "names in PeerNames are accepted too",
			ours:   transport.TLSConfig{Identity: "gw", PeerNames: []string{"*.pstnhub.example.net"}},
			mine:   gw,
			theirs: transport.TLSConfig{Identity: "sbc"},
			cert:   one("sbc", ca.issue(t, bothAuth, "sip2.pstnhub.example.net")), as: "sip.example.net"},
		{name: "a client must carry an allowed name", ours: transport.TLSConfig{Identity: "gw"}, mine: gw,
			theirs: transport.TLSConfig{Identity: "sbc", PeerNames: []string{"core.example.net"}},
			cert:   one("sbc", ca.issue(t, bothAuth, "sbc.example.net")), as: "sbc.example.net",
			fails: "bad certificate"},
		{name: "a client that carries an allowed name is accepted", ours: transport.TLSConfig{Identity: "gw"}, mine: gw,
			theirs: transport.TLSConfig{Identity: "sbc", PeerNames: []string{"core.example.net", "*.example.net"}},
			cert:   one("sbc", ca.issue(t, bothAuth, "sbc.example.net")), as: "sbc.example.net"},
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

// The certificate presented is the one for the requested server name, and the flow has its identity.
func TestServerNameChoosesCertificate(t *testing.T) {
	ca := newAuthority(t, "ca")
	a := newSite(t, ca, transport.TLSConfig{Identity: "sbc"}, one("sbc", ca.issue(t, bothAuth, "sbc.example.net")))
	b := newSite(t, ca, transport.TLSConfig{Identity: "base"}, map[string]tls.Certificate{
		"base": ca.issue(t, bothAuth, "gw.example.net"),
		"r1":   ca.issue(t, bothAuth, "1r1.example.net", "*.1r1.example.net"),
		"c7":   ca.issue(t, bothAuth, "c7.1r1.example.net"),
	})
	for name, want := range map[string]string{"gw.example.net": "base", "c1.1r1.example.net": "r1",
		"1r1.example.net": "r1", "c7.1r1.example.net": "c7", "C7.1R1.example.net": "c7"} {
		g := a.sends(t, b, a.to(b, name), name)
		if g.f.Identity() != want {
			t.Errorf("name %s was served with identity %q, want %q", name, g.f.Identity(), want)
		}
		if !g.f.VerifiedFor("sbc.example.net") || g.f.VerifiedFor("other.example.net") {
			t.Errorf("the flow is not verified for exactly the far side's name")
		}
	}
}

// A renewed certificate is presented on the next connections; open connections stay.
func TestCertificateReload(t *testing.T) {
	ca := newAuthority(t, "ca")
	a := newSite(t, ca, transport.TLSConfig{Identity: "sbc"}, one("sbc", ca.issue(t, bothAuth, "sbc.example.net")))
	first := ca.issue(t, bothAuth, "gw.example.net")
	b := newSite(t, ca, transport.TLSConfig{Identity: "gw"}, one("gw", first))
	g := a.sends(t, b, a.to(b, "gw.example.net"), "before")
	second := ca.issue(t, bothAuth, "gw.example.net")
	if err := b.keys.Put("gw", second); err != nil {
		t.Fatal(err)
	}
	if err := a.keys.Put("sbc", ca.issue(t, bothAuth, "sbc2.example.net")); err != nil {
		t.Fatal(err)
	}
	if same := a.sends(t, b, a.to(b, "gw.example.net"), "same"); !same.f.Same(g.f) {
		t.Error("the connection did not outlive the reload")
	}
	c := newSite(t, ca, transport.TLSConfig{Identity: "sbc"}, one("sbc", ca.issue(t, bothAuth, "sbc.example.net")))
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

// field-pains 4 (opensips#1651): a connection made to a far side under one name is never used for another name.
func TestNamesDoNotShareConnections(t *testing.T) {
	ca := newAuthority(t, "ca")
	a := newSite(t, ca, transport.TLSConfig{Identity: "gw"}, one("gw", ca.issue(t, bothAuth, "gw.example.net")))
	b := newSite(t, ca, transport.TLSConfig{Identity: "sip"},
		one("sip", ca.issue(t, bothAuth, "sip.example.org", "sip2.example.org")))
	first := a.sends(t, b, a.to(b, "sip.example.org"), "first")
	if again := a.sends(t, b, a.to(b, "sip.example.org"), "again"); !again.f.Same(first.f) {
		t.Error("the same name did not use its connection again")
	}
	if other := a.sends(t, b, a.to(b, "sip2.example.org"), "other name"); other.f.Same(first.f) {
		t.Error("another name used the connection verified for the first")
	}
	// Even when the caller asks for that flow.
	mine, err := a.Send([]byte(request("SIP/2.0/TLS x;branch=z9hG4bK1", "flow")), a.to(b, "sip.example.org"), nil)
	if err != nil {
		t.Fatal(err)
	}
	b.next(t)
	wrong := a.to(b, "evil.example.org")
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
	certs := one("gw", ca.issue(t, bothAuth, "gw.example.net"))
	a := newSite(t, ca, transport.TLSConfig{Identity: "gw"}, certs)
	second := a.listen(transport.EndpointConfig{Proto: transport.TLS, TLS: &transport.TLSConfig{Identity: "gw",
		Keys: keyring(t, certs), Roots: newAuthority(t, "other").roots}})
	b := newSite(t, ca, transport.TLSConfig{Identity: "sbc"}, one("sbc", ca.issue(t, bothAuth, "sbc.example.net")))
	a.sends(t, b, a.to(b, "sbc.example.net"), "first")
	target := a.to(b, "sbc.example.net")
	target.From = second
	if _, err := a.send(t, b, target, "second"); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("send from the other endpoint = %v, want its own trust to refuse", err)
	}
}

// RFC 5923: a connection opened by the far side carries requests to the port it named, if its certificate covers the
// name they are for and our identity on it is the right one.
func TestAliasOverTLS(t *testing.T) {
	ca := newAuthority(t, "ca")
	a := newSite(t, ca, transport.TLSConfig{Identity: "teams"},
		one("teams", ca.issue(t, serverAuth, "sip.example.org")))
	b := newSite(t, ca, transport.TLSConfig{Identity: "gw"}, map[string]tls.Certificate{
		"gw": ca.issue(t, bothAuth, "gw.example.net"), "c1": ca.issue(t, bothAuth, "c1.example.net"),
	})
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

	// On a connection to c1 we have another identity, also if the caller asks for that flow.
	c := newSite(t, ca, transport.TLSConfig{Identity: "teams"},
		one("teams", ca.issue(t, serverAuth, "sip.example.org")))
	to := c.sends(t, b, c.to(b, "c1.example.net"), "to c1")
	dialled := b.Metrics().ConnsDialled.Load()
	back = transport.Target{From: b.ep, Addr: c.ep.Local(), ServerName: "sip.example.org", Prefer: to.f}
	b.sends(t, c, back, "from gw")
	if got := b.Metrics().ConnsDialled.Load() - dialled; got != 1 {
		t.Errorf("%d connections were made, want one for the other identity", got)
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
			gw := newSite(t, ca, transport.TLSConfig{Identity: "gw"},
				one("gw", ca.issue(t, bothAuth, "gw.example.net")))
			listener := newSite(t, ca, transport.TLSConfig{Identity: "sbc"}, one("sbc", c.cert))
			caller := newSite(t, ca, transport.TLSConfig{Identity: "sbc"},
				one("sbc", ca.issue(t, bothAuth, "sbc.example.net")))
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
	b := newSite(t, ca, transport.TLSConfig{Identity: "gw"}, one("gw", ca.issue(t, bothAuth, "gw.example.net")))
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
	n := newNode(t, transport.Config{HandshakeTimeout: 50 * time.Millisecond})
	ep := n.listen(transport.EndpointConfig{Proto: transport.TLS, TLS: &transport.TLSConfig{Identity: "gw",
		Keys: keyring(t, one("gw", ca.issue(t, bothAuth, "gw.example.net"))), Roots: ca.roots}})
	closedSoon(t, dialTCP(t, ep))
	eventually(t, "it is counted", func() bool { return n.Metrics().HandshakesFailed.Load() == 1 })
}

// While there is no certificate, peers try again and again, and so do we: only other failures are warnings.
func TestNoCertificateYet(t *testing.T) {
	ca := newAuthority(t, "ca")
	log := &lockedBuilder{}
	s, err := transport.New(transport.Config{}, slog.New(slog.NewTextHandler(log, nil)), nil)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{s, newRecorder(), t}
	if err := n.Start(n.recorder); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	cfg := &transport.TLSConfig{Identity: "gw", Keys: transport.NewKeyring(), Roots: ca.roots}
	gw := &site{n, n.listen(transport.EndpointConfig{Proto: transport.TLS, TLS: cfg}), cfg.Keys}
	far := newSite(t, ca, transport.TLSConfig{Identity: "sbc"}, one("sbc", ca.issue(t, bothAuth, "sbc.example.net")))
	for range 3 {
		tc, err := tls.Dial("tcp", gw.ep.Local().String(), &tls.Config{InsecureSkipVerify: true})
		if err == nil {
			_ = tc.Close()
			t.Fatal("a handshake without a certificate succeeded")
		}
		_, err = gw.send(t, far, gw.to(far, "sbc.example.net"), "x")
		if err == nil || !strings.Contains(err.Error(), "no certificate") {
			t.Errorf("sent without a certificate: %v", err)
		}
	}
	plain := dialTCP(t, gw.ep)
	if _, err := plain.Write([]byte(request("SIP/2.0/TCP x", "x"))); err != nil {
		t.Fatal(err)
	}
	closedSoon(t, plain)
	eventually(t, "seven failures are counted", func() bool { return n.Metrics().ConnsFailed.Load() == 7 })
	n.Close() // waits until they are logged
	if got := n.Metrics().HandshakesFailed.Load(); got != 4 {
		t.Errorf("%d failed handshakes are counted, want 4", got)
	}
	text := log.String()
	if got := strings.Count(text, "level=WARN"); got != 1 || !strings.Contains(text, "not look like a TLS") {
		t.Errorf("%d warnings, want one about the peer that speaks no TLS:\n%s", got, text)
	}
}

func TestKeyringMistakes(t *testing.T) {
	k := transport.NewKeyring()
	if err := k.Put("x", tls.Certificate{}); err == nil {
		t.Error("an empty certificate was accepted")
	}
	n := newNode(t, transport.Config{})
	for _, cfg := range []*transport.TLSConfig{nil, {}} {
		if _, err := n.Listen(transport.EndpointConfig{Name: "edge", Proto: transport.TLS, Bind: loopback,
			TLS: cfg}); err == nil {
			t.Errorf("an endpoint opened with TLS configuration %+v", cfg)
		}
	}
}
