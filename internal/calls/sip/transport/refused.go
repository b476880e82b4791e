package transport

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
)

// The alerts by which a far side refuses our certificate (RFC 8446 §6.2). handshake_failure is one only if we have none
// (RFC 5246 §7.4.6).
const (
	handshakeFailure       tls.AlertError = 40
	badCertificate         tls.AlertError = 42
	unsupportedCertificate tls.AlertError = 43
	certificateRevoked     tls.AlertError = 44
	certificateExpired     tls.AlertError = 45
	certificateUnknown     tls.AlertError = 46
	unknownCA              tls.AlertError = 48
	accessDenied           tls.AlertError = 49
	certificateRequired    tls.AlertError = 116
)

// RefusedError reports that the far side of a connection that we opened refused our certificate.
type RefusedError struct {
	// Alert is what the far side sent. Alerts other than certificate_revoked, certificate_expired, unknown_ca and
	// certificate_required do not say why.
	Alert tls.AlertError
	// File is the file of the certificate that was presented; empty if there was none.
	File string
	// ClientAuth reports whether the certificate may identify a client (see [ClientAuth]).
	ClientAuth bool
}

// privateAuthority is the remedy for a certificate without client authentication.
const privateAuthority = "public authorities no longer issue it, so install one of a private authority for this peer " +
	"group"

// Error implements error.
func (e *RefusedError) Error() string {
	var why string
	switch {
	case e.File == "":
		why = "it requires one, and this peer group has none to present"
	case e.Alert == certificateRevoked, e.Alert == certificateExpired:
		why = "renew " + e.File
	case e.Alert == unknownCA:
		why = "it does not trust the authority of " + e.File + ", or the file lacks intermediate certificates; " +
			"complete the file, or install a certificate of an authority that the peer trusts"
	case !e.ClientAuth:
		why = e.File + " does not allow client authentication, which is the probable cause; " + privateAuthority
	default:
		why = e.File + " allows client authentication, so the cause is another; the peer's log names it"
	}
	return fmt.Sprintf("the peer refused our certificate (%v): %s", e.Alert, why)
}

// refused returns a *RefusedError if err is an alert by which the far side refused the certificate that we presented,
// otherwise err. TLS 1.3 lets a client complete its handshake before it learns of that: the alert is then the first
// thing that it reads.
func (c *conn) refused(err error) error {
	op, ok := errors.AsType[*net.OpError](err)
	if c.shown == nil || !ok || op.Op != "remote error" {
		return err // the far side has not asked for a certificate, or has not sent an alert
	}
	none := len(c.shown.Certificate) == 0
	for _, a := range []tls.AlertError{handshakeFailure, badCertificate, unsupportedCertificate, certificateRevoked,
		certificateExpired, certificateUnknown, unknownCA, accessDenied, certificateRequired} {
		switch {
		case op.Err.Error() != a.Error(): // its type is not exported
		case none:
			return &RefusedError{Alert: a}
		case a != handshakeFailure:
			return &RefusedError{Alert: a, File: c.ep.cfg.TLS.name(c.identity), ClientAuth: ClientAuth(c.shown)}
		}
	}
	return err
}

// ClientAuth reports whether a certificate may identify the client of a TLS connection: it has no extended key usages,
// or they include client authentication, and so for each certificate of its chain (RFC 5280 §4.2.1.12; OpenSSL, Go and
// others check the chain too).
func ClientAuth(c *tls.Certificate) bool {
	return !slices.ContainsFunc(c.Certificate, func(der []byte) bool {
		x, err := x509.ParseCertificate(der)
		return err == nil && len(x.ExtKeyUsage)+len(x.UnknownExtKeyUsage) > 0 &&
			!slices.Contains(x.ExtKeyUsage, x509.ExtKeyUsageClientAuth) &&
			!slices.Contains(x.ExtKeyUsage, x509.ExtKeyUsageAny)
	})
}

// ClientAuthWarning is the warning about a certificate without client authentication.
func ClientAuthWarning(p CertificatePaths) string {
	name := p.String()
	if p.Name == "" {
		name = "the certificate in " + name
	}
	return name + " does not allow client authentication (extended key usages, of the certificate and of its " +
		"chain): a core that requires it will refuse the connections to it; " + privateAuthority
}
