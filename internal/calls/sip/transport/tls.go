package transport

import (
	"cmp"
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
	// Keys holds the certificates to present. Required.
	Keys *Keyring
	// Identity is the key of the certificate to present when the far side requests none that we have (SNI), and on
	// outgoing connections. Handshakes fail until Keys has it.
	Identity string
	// File returns the file of the certificate, or what else errors name; it is called at each. Nil: they name its
	// identity.
	File func() string
	// Roots returns the trusted authorities; it is called at each handshake, so they may change. Nil, or a nil pool:
	// the system's.
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

func (c *TLSConfig) check() error {
	if c == nil || c.Keys == nil {
		return errors.New("a TLS endpoint needs a keyring")
	}
	return nil
}

func (c *TLSConfig) base() *tls.Config {
	t := &tls.Config{
		MinVersion:             tls.VersionTLS12,
		CipherSuites:           suites,
		SessionTicketsDisabled: true, // a resumed session would reuse the verification for another identity
		Renegotiation:          tls.RenegotiateNever,
	}
	return t
}

func (c *TLSConfig) roots() *x509.CertPool {
	if c.Roots == nil {
		return nil
	}
	return c.Roots()
}

// name names a certificate in errors.
func (c *TLSConfig) name(identity string) string {
	if c.File == nil {
		return identity
	}
	return c.File()
}

// errNoCertificate is in the errors of connections that fail because there is no certificate yet.
var errNoCertificate = errors.New("no certificate")

// server returns the configuration of one incoming connection. chosen receives the identity that was presented.
func (c *TLSConfig) server(chosen *string) *tls.Config {
	t := c.base()
	t.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		id, cert := c.Keys.ForName(h.ServerName)
		if cert == nil {
			id, cert = c.Identity, c.Keys.Get(c.Identity)
		}
		if cert == nil {
			return nil, fmt.Errorf("%w for server name %q: there is no %s", errNoCertificate, h.ServerName,
				c.name(c.Identity))
		}
		*chosen = id
		return cert, nil
	}
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

// client returns the configuration of one outgoing connection. The far side's certificate must carry one of names.
// shown receives the certificate that was presented, an empty one if there is none, and stays nil if the far side asks
// for none.
func (c *TLSConfig) client(identity, sni string, names []string, shown **tls.Certificate) (*tls.Config, error) {
	t := c.base()
	if _, err := netip.ParseAddr(sni); err != nil {
		t.ServerName = sni // RFC 6066 §3: an address is not a server name
	}
	if identity != "" && c.Keys.Get(identity) == nil {
		return nil, fmt.Errorf("%w to present: there is no %s", errNoCertificate, c.name(identity))
	}
	t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		*shown = cmp.Or(c.Keys.Get(identity), &tls.Certificate{}) // an empty one: present none
		return *shown, nil
	}
	t.InsecureSkipVerify = true // VerifyConnection below verifies, by our rules for names and usages
	names = append(names[:len(names):len(names)], c.PeerNames...)
	t.VerifyConnection = func(s tls.ConnectionState) error { return c.verify(s.PeerCertificates, names) }
	return t, nil
}

// verify checks a chain against the roots and the leaf against the names. A certificate for server authentication is
// accepted from a client too: since 2026 public authorities no longer issue any for client authentication, and
// Microsoft's SIP proxies present server certificates on the connections they make.
func (c *TLSConfig) verify(chain []*x509.Certificate, names []string) error {
	opts := x509.VerifyOptions{
		Roots:         c.roots(),
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
	if len(names) == 0 {
		return nil
	}
	for _, n := range names {
		if certCovers(chain[0], n) {
			return nil
		}
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
