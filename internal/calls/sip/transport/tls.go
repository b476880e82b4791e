package transport

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/calls/sip"
)

// TLSConfig says how an endpoint identifies itself and whom it trusts. Both directions are mutual TLS.
type TLSConfig struct {
	// Certificate returns the certificate to present, with its private key and chain; it is called at each handshake,
	// so it may change: open connections stay. Required.
	Certificate func() *tls.Certificate
	// Roots returns the trusted authorities; it is called at each handshake, so they may change. A nil pool: the
	// system's. Required.
	Roots func() *x509.CertPool
	// PeerNames, if not empty, are the names of which a far side's certificate must carry at least one (RFC 5922 §7.1):
	// "sbc.example.net", or "*.example.net" for any one label in place of the star. On outgoing connections the
	// target's ServerName is one more. Empty: every far side with a certificate from the roots may connect to us.
	PeerNames []string
	// Anonymous lets far sides connect without a certificate. A certificate that is presented is still verified.
	// Default false: mutual TLS.
	Anonymous bool
}

// suites are the cipher suites offered for TLS 1.2 (gateway-calls §10); those of TLS 1.3 are fixed in Go.
var suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
}

func (c *TLSConfig) base() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS12,
		CipherSuites:           suites,
		SessionTicketsDisabled: true, // a resumed session would reuse the verification for another name
		Renegotiation:          tls.RenegotiateNever,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.Certificate(), nil },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return c.Certificate(), nil
		},
	}
}

// server returns the configuration of incoming connections.
func (c *TLSConfig) server() *tls.Config {
	t := c.base()
	t.ClientAuth = tls.RequireAnyClientCert
	if c.Anonymous {
		t.ClientAuth = tls.RequestClientCert
	}
	t.VerifyConnection = func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) == 0 {
			if c.Anonymous {
				return nil
			}
			return errors.New("peer presented no certificate")
		}
		return c.verify(s.PeerCertificates, c.PeerNames)
	}
	return t
}

// client returns the configuration of one outgoing connection. The far side's certificate must carry one of names, of
// which the first is sent as SNI.
func (c *TLSConfig) client(names []string) *tls.Config {
	t := c.base()
	if _, err := netip.ParseAddr(names[0]); err != nil {
		t.ServerName = names[0] // RFC 6066 §3: an address is not a server name
	}
	t.InsecureSkipVerify = true // VerifyConnection below verifies, by our rules for names and usages
	names = append(names[:len(names):len(names)], c.PeerNames...)
	t.VerifyConnection = func(s tls.ConnectionState) error { return c.verify(s.PeerCertificates, names) }
	return t
}

// verify checks a chain against the roots and the leaf against the names. A certificate for server authentication is
// accepted from a client too: since 2026 public authorities no longer issue any for client authentication, and
// Microsoft's SIP proxies present server certificates on the connections they make.
func (c *TLSConfig) verify(chain []*x509.Certificate, names []string) error {
	opts := x509.VerifyOptions{
		Roots:         c.Roots(),
		Intermediates: x509.NewCertPool(),
		CurrentTime:   time.Now(),
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, i := range chain[1:] {
		opts.Intermediates.AddCert(i)
	}
	if _, err := chain[0].Verify(opts); err != nil {
		return fmt.Errorf("certificate of %s: %w", describe(chain[0]), err)
	}
	if len(names) == 0 || slices.ContainsFunc(names, func(n string) bool { return certCovers(chain[0], n) }) {
		return nil
	}
	return fmt.Errorf("certificate of %s carries none of the names %s", describe(chain[0]), strings.Join(names, ", "))
}

func describe(c *x509.Certificate) string {
	if n := identities(c); len(n) > 0 {
		return strings.Join(n, ", ")
	}
	return c.Subject.String()
}

// identities returns the SIP domain identities of a certificate (RFC 5922 §7.1): the hosts of its sip URIs that have no
// user part; if there are none, its DNS names; the common name only if there is no alternative name of any kind.
func identities(c *x509.Certificate) []string {
	var hosts []string
	for _, uri := range c.URIs {
		if u, err := sip.ParseURI(uri.String()); err == nil && u.Scheme == sip.SchemeSIP && !u.HasUser {
			hosts = append(hosts, strings.TrimSuffix(u.Host, "."))
		}
	}
	switch {
	case hosts != nil:
		return hosts
	case slices.ContainsFunc(c.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(subjectAltName) }):
		return c.DNSNames
	case c.Subject.CommonName != "" && !strings.ContainsAny(c.Subject.CommonName, " /"):
		return []string{c.Subject.CommonName}
	}
	return nil
}

var subjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

// certCovers reports whether a certificate carries a name: a host name, an address, or a pattern "*.example.net",
// which matches any name with one label in place of the star. A DNS name or common name of the certificate may be such
// a pattern too (RFC 2818 §3.1, as Microsoft's are); a sip URI cannot (RFC 5922 §7.2).
func certCovers(c *x509.Certificate, name string) bool {
	if ip := net.ParseIP(strings.Trim(name, "[]")); ip != nil {
		return c.VerifyHostname(ip.String()) == nil
	}
	name = strings.TrimSuffix(name, ".")
	label, parent, _ := strings.Cut(name, ".")
	return name != "" && slices.ContainsFunc(identities(c), func(id string) bool {
		l, p, _ := strings.Cut(id, ".")
		return strings.EqualFold(id, name) || (label == "*" || l == "*") && parent != "" && strings.EqualFold(p, parent)
	})
}
