package node

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tandemgw/tandem/internal/platform/secret"
)

// A certificate made for loopback lasts a year and is made anew, at a start, when less than a month of it is left.
const (
	loopbackCertificateLife = 365 * 24 * time.Hour
	loopbackCertificateLeft = 30 * 24 * time.Hour
)

// ensureLoopbackCertificate makes the self-signed certificate that SIP over TLS on loopback uses when none is configured.
// Nobody has reason to trust it beyond this machine.
func ensureLoopbackCertificate(certFile, keyFile string, log *slog.Logger) error {
	if pair, err := tls.LoadX509KeyPair(certFile, keyFile); err == nil && time.Until(pair.Leaf.NotAfter) > loopbackCertificateLeft {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "localhost", Organization: []string{"Tandem loopback certificate"}},
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
	if err := secret.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})); err != nil {
		return err
	}
	if err := secret.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})); err != nil {
		return err
	}
	log.Info("made a self-signed certificate for loopback", "file", certFile, "until", template.NotAfter.UTC().Format(time.DateOnly))
	return nil
}

// certificateCheckEvery is how often a server looks whether its certificate file has changed.
const certificateCheckEvery = 10 * time.Second

// certificateFiles serves a certificate from its files and takes up a new one without a restart. A new one that cannot be
// read leaves the old one in use.
type certificateFiles struct {
	log *slog.Logger

	mu                sync.Mutex // guards what follows
	certFile, keyFile string
	current           *tls.Certificate
	stamp             [2]time.Time // of the files that were last tried
	next              time.Time    // of the next look
}

func openCertificate(certFile, keyFile string, log *slog.Logger) (*certificateFiles, error) {
	c := &certificateFiles{log: log}
	commit, err := c.read(certFile, keyFile)
	if err != nil {
		return nil, err
	}
	commit()
	return c, nil
}

// read reads a pair of files. commit takes them into use.
func (c *certificateFiles) read(certFile, keyFile string) (commit func(), err error) {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", certFile, keyFile, err)
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.certFile, c.keyFile, c.current = certFile, keyFile, &pair
		c.stamp, c.next = c.stamps(), time.Now().Add(certificateCheckEvery)
	}, nil
}

func (c *certificateFiles) stamps() (s [2]time.Time) {
	for i, f := range []string{c.certFile, c.keyFile} {
		if st, err := os.Stat(f); err == nil {
			s[i] = st.ModTime()
		}
	}
	return s
}

func (c *certificateFiles) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.After(c.next) {
		c.next = now.Add(certificateCheckEvery)
		if s := c.stamps(); s != c.stamp {
			c.stamp = s
			pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
			if err != nil {
				c.log.Error("the new certificate cannot be used; the old one stays", "file", c.certFile, "error", err)
			} else {
				c.current = &pair
				c.log.Info("took up a new certificate", "file", c.certFile, "until", pair.Leaf.NotAfter.UTC().Format(time.DateOnly))
			}
		}
	}
	return c.current, nil
}
