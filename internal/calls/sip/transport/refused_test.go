package transport_test

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/tandemgw/tandem/internal/calls/sip/transport"
)

// alerting is a connection that sends the alert as in place of the one that the TLS layer above it sends in the clear.
type alerting struct {
	net.Conn
	as byte
}

func (a alerting) Write(b []byte) (int, error) {
	const alertRecord, length = 21, 7 // type, version, length; level, description (RFC 5246 §6.2.1, §7.2)
	if a.as != 0 && len(b) == length && b[0] == alertRecord {
		b = append(b[:length-1:length-1], a.as)
	}
	return a.Conn.Write(b)
}

// farSide is a TLS server that is not ours. It begins handshakes once start is closed.
type farSide struct {
	addr  netip.AddrPort
	start chan struct{}
}

// newFarSide returns a far side with the given settings. If alert is not 0, it sends that in place of others in the
// clear.
func newFarSide(t *testing.T, cfg *tls.Config, alert byte) farSide {
	t.Helper()
	ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(loopback))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	f := farSide{ln.Addr().(*net.TCPAddr).AddrPort(), make(chan struct{})}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				<-f.start
				_, _ = io.Copy(io.Discard, tls.Server(alerting{c, alert}, cfg)) // also makes the handshake
			}()
		}
	}()
	return f
}

// numbered is one of several waiters that share a channel.
type numbered struct {
	waiter
	n int
}

// refusal sends requests to a far side, all by one connection, and returns why they failed: the same for each, also if
// some were written after the far side had closed the connection.
func refusal(t *testing.T, s *site, to farSide) *transport.ConnError {
	t.Helper()
	const requests = 10
	w := make(waiter, requests)
	target := transport.Target{From: s.ep, Addr: to.addr, ServerName: "core.example.net"}
	for i := range requests {
		if _, err := s.Send([]byte(request(target.Via("z9hG4bK1"), "c1")), target, numbered{w, i}); err != nil {
			t.Fatal(err)
		}
	}
	close(to.start)
	var first *transport.ConnError
	for range requests {
		var ce *transport.ConnError
		if err := w.next(t); !errors.As(err, &ce) {
			t.Fatalf("%v is not a *ConnError", err)
		}
		first = cmp.Or(first, ce)
		if ce.Error() != first.Error() {
			t.Errorf("requests on one connection failed with %q and %q", first, ce)
		}
	}
	return first
}

var versions = map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13}

// A far side that verifies clients refuses a certificate without client authentication; the error says so, and only
// then, whether the refusal arrives during our handshake (TLS 1.2) or after it (TLS 1.3).
func TestRefusedCertificate(t *testing.T) {
	ca, stranger := newAuthority(t, "ca"), newAuthority(t, "stranger")
	server := ca.issue(t, serverAuth, "core.example.net")
	const file = "/etc/tandem/core.pem"
	verifying := func(version uint16) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{server}, MinVersion: version, MaxVersion: version,
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool}
	}
	for _, c := range []struct {
		name  string
		ours  tls.Certificate
		more  func(*tls.Config) // further settings of the far side
		alert tls.AlertError
		says  string
	}{
		{"without client authentication", ca.issue(t, serverAuth, "gw.example.net"), nil, 42,
			file + " does not allow client authentication, which is the probable cause; public authorities no longer " +
				"issue it, so install one of a private authority for this peer group"},
		{"of an authority that the far side does not trust", stranger.issue(t, bothAuth, "gw.example.net"), nil, 48,
			"it does not trust the authority of " + file},
		{"of such an authority, and without client authentication", stranger.issue(t, serverAuth, "gw.example.net"),
			nil, 48, "it does not trust the authority of " + file},
		{"for another reason", ca.issue(t, bothAuth, "gw.example.net"),
			func(c *tls.Config) {
				c.VerifyConnection = func(tls.ConnectionState) error { return errors.New("not on the list") }
			}, 42, file + " allows client authentication, so the cause is another; the peer's log names it"},
	} {
		for version, v := range versions {
			t.Run(c.name+" over "+version, func(t *testing.T) {
				cfg := verifying(v)
				if c.more != nil {
					c.more(cfg)
				}
				s := newSite(t, ca, transport.TLSConfig{Identity: "gw", File: func() string { return file }},
					one("gw", c.ours))
				err := refusal(t, s, newFarSide(t, cfg, 0))
				r, ok := errors.AsType[*transport.RefusedError](err)
				if !ok || r.Alert != c.alert || r.File != file {
					t.Fatalf("error is %v, want a refusal of %s by alert %v", err, file, c.alert)
				}
				if err.Established {
					t.Error("the connection counts as made; the far side has read no message")
				}
				want := fmt.Sprintf("the peer refused our certificate (%v): %s", c.alert, c.says)
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error is %q, want %q in it", err, want)
				}
				if n := s.Metrics().HandshakesFailed.Load(); n != 1 {
					t.Errorf("%d failed handshakes were counted, want 1", n)
				}
			})
		}
	}

	t.Run("none to present", func(t *testing.T) {
		for version, v := range versions {
			s := newSite(t, ca, transport.TLSConfig{}, nil)
			err := refusal(t, s, newFarSide(t, verifying(v), 0))
			if !strings.Contains(err.Error(), "it requires one, and this peer group has none to present") {
				t.Errorf("over %s: %v", version, err)
			}
		}
	})
}

// Which alerts are about our certificate (RFC 5246 §7.2.2, RFC 8446 §6.2), and which of them may be about its usage.
func TestAlertsAboutOurCertificate(t *testing.T) {
	ca := newAuthority(t, "ca")
	server := ca.issue(t, serverAuth, "core.example.net")
	s := newSite(t, ca, transport.TLSConfig{Identity: "gw", File: func() string { return "gw.pem" }},
		one("gw", ca.issue(t, serverAuth, "gw.example.net")))
	const usage = "client authentication"
	for alert, want := range map[byte]string{
		42: usage, 43: usage, 46: usage, 49: usage,
		44: "(tls: revoked certificate): renew gw.pem", 45: "(tls: expired certificate): renew gw.pem",
		48: "does not trust the authority of gw.pem", 116: usage,
		40: "TLS handshake: remote error: tls: handshake failure", 51: "remote error: tls: error decrypting message",
		80: "TLS handshake: remote error: tls: internal error", 112: "remote error: tls: unrecognized name",
	} {
		cfg := &tls.Config{Certificates: []tls.Certificate{server}, MaxVersion: tls.VersionTLS12,
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool}
		err := refusal(t, s, newFarSide(t, cfg, alert))
		if !strings.Contains(err.Error(), want) || want != usage && strings.Contains(err.Error(), usage) {
			t.Errorf("alert %d: %v, want %q", alert, err, want)
		}
	}

	// A far side that has not asked for our certificate does not refuse it.
	cfg := &tls.Config{Certificates: []tls.Certificate{server}, MaxVersion: tls.VersionTLS12,
		VerifyConnection: func(tls.ConnectionState) error { return errors.New("not from here") }}
	err := refusal(t, s, newFarSide(t, cfg, 49))
	if !strings.Contains(err.Error(), "remote error: tls: access denied") {
		t.Errorf("access denied without a request for a certificate: %v", err)
	}
}

// A far side that verifies clients accepts a certificate with client authentication.
func TestPrivateCertificateIsAccepted(t *testing.T) {
	ca := newAuthority(t, "ca")
	for version, v := range versions {
		seen := make(chan []*x509.Certificate, 1)
		cfg := &tls.Config{Certificates: []tls.Certificate{ca.issue(t, serverAuth, "core.example.net")}, MinVersion: v,
			MaxVersion: v, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool,
			VerifyConnection: func(s tls.ConnectionState) error { seen <- s.PeerCertificates; return nil }}
		s := newSite(t, ca, transport.TLSConfig{Identity: "gw"}, one("gw", ca.issue(t, bothAuth, "gw.example.net")))
		to := newFarSide(t, cfg, 0)
		close(to.start)
		target := transport.Target{From: s.ep, Addr: to.addr, ServerName: "core.example.net"}
		if _, err := s.Send([]byte(request(target.Via("z9hG4bK1"), "c1")), target, nil); err != nil {
			t.Fatal(err)
		}
		if got := (<-seen)[0].Subject.CommonName; got != "gw.example.net" {
			t.Errorf("over %s the far side got the certificate of %s", version, got)
		}
	}
}

func TestClientAuth(t *testing.T) {
	ca := newAuthority(t, "ca")
	chained := func(leaf, intermediate []x509.ExtKeyUsage) tls.Certificate {
		c := ca.issue(t, leaf, "gw.example.net")
		c.Certificate = append(c.Certificate, ca.issue(t, intermediate, "intermediate").Certificate...)
		return c
	}
	for _, c := range []struct {
		name string
		cert tls.Certificate
		want bool
	}{
		{"no usages", ca.issue(t, nil, "a"), true},
		{"any usage", ca.issue(t, []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, "a"), true},
		{"both", ca.issue(t, bothAuth, "a"), true},
		{"server authentication", ca.issue(t, serverAuth, "a"), false},
		{"another usage", ca.issue(t, codeSigning, "a"), false},
		{"of an intermediate without usages", chained(bothAuth, nil), true},
		{"of an intermediate for servers", chained(bothAuth, serverAuth), false},
		{"without usages, of an intermediate for servers", chained(nil, serverAuth), false},
	} {
		if got := transport.ClientAuth(&c.cert); got != c.want {
			t.Errorf("%s: ClientAuth = %v, want %v", c.name, got, c.want)
		}
	}
}
