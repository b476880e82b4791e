package node

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/tandemgw/tandem/internal/platform/secret"
)

// A loopback certificate is valid for a year and is replaced, at a start, when it expires in less than 30 days.
const (
	loopbackCertificateLife = 365 * 24 * time.Hour
	loopbackCertificateLeft = 30 * 24 * time.Hour
)

// ensureLoopbackCertificate creates the self-signed certificate that SIP over TLS on loopback uses when none is
// configured. Other machines have no reason to trust it.
func ensureLoopbackCertificate(certFile, keyFile string, log *slog.Logger) error {
	if pair, err := tls.LoadX509KeyPair(certFile, keyFile); err == nil &&
		time.Until(pair.Leaf.NotAfter) > loopbackCertificateLeft {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	template := &x509.Certificate{ // it gets a random serial number
		Subject:   pkix.Name{CommonName: "localhost", Organization: []string{"Tandem loopback certificate"}},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(loopbackCertificateLife),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(certFile), 0o700); err != nil {
		return err
	}
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	if err := secret.WriteFile(keyFile, keyPEM); err != nil {
		return err
	}
	if err := secret.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})); err != nil {
		return err
	}
	log.Info("created a self-signed loopback certificate", "file", certFile,
		"until", template.NotAfter.UTC().Format(time.DateOnly))
	return nil
}
