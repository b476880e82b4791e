// Package tsig has the shared keys that sign DNS messages (RFC 8945): their settings, and how messages are signed and
// verified with them.
package tsig

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"os"

	"github.com/miekg/dns"

	"github.com/tandemgw/tandem/internal/domain/fault"
)

// Config is the settings of a shared key.
type Config struct {
	// Name is the key's name, which both sides must write alike: a domain name. Required.
	Name string `yaml:"name"`
	// Algorithm is "hmac-sha256", "hmac-sha384" or "hmac-sha512". Default "hmac-sha256".
	Algorithm string `yaml:"algorithm"`
	// SecretFile is the file with the secret in base64, at least 16 bytes, as tsig-keygen and keymgr print it.
	// Required.
	SecretFile string `yaml:"secretFile"`
}

// Validate returns every mistake, and sets the default of the algorithm. It reads no files.
func (c *Config) Validate() []error {
	var errs fault.Problems
	if c.Algorithm == "" {
		c.Algorithm = "hmac-sha256"
	}
	if (&Key{Algorithm: dns.Fqdn(c.Algorithm)}).hash() == nil {
		errs.Add("algorithm", "%q is not supported; use hmac-sha256, hmac-sha384 or hmac-sha512", c.Algorithm)
	}
	if _, ok := dns.IsDomainName(c.Name); !ok || c.Name == "" {
		errs.Add("name", "%q is not a domain name", c.Name)
	}
	if c.SecretFile == "" {
		errs.Add("secretFile", "is required: a request without a key is refused")
	}

	return errs
}

// Key is a shared key, read. Its names are canonical.
type Key struct {
	Name, Algorithm string
	secret          []byte
}

// Read returns the key of valid settings. The error names the file, and never quotes the secret.
func (c *Config) Read() (*Key, error) {
	k := &Key{Name: dns.CanonicalName(c.Name), Algorithm: dns.CanonicalName(c.Algorithm)}
	text, err := os.ReadFile(c.SecretFile)
	if err != nil {
		return k, err
	}
	if k.secret, err = base64.StdEncoding.DecodeString(string(bytes.TrimSpace(text))); err != nil {
		return k, fmt.Errorf("%s is not base64", c.SecretFile)
	}
	if len(k.secret) < 16 {
		return k, fmt.Errorf("%s has a secret of %d bytes; use at least 16", c.SecretFile, len(k.secret))
	}

	return k, nil
}

// Equal reports whether two keys of one name are the same.
func (k *Key) Equal(o *Key) bool { return k.Algorithm == o.Algorithm && hmac.Equal(k.secret, o.secret) }

// hash returns the algorithm of a key, nil if it is not supported.
func (k *Key) hash() func() hash.Hash {
	switch k.Algorithm {
	case dns.HmacSHA256:
		return sha256.New
	case dns.HmacSHA384:
		return sha512.New384
	case dns.HmacSHA512:
		return sha512.New
	}

	return nil
}

// Keys are keys by name. It implements dns.TsigProvider; the algorithm is the key's, not the message's.
type Keys map[string]*Key

var _ dns.TsigProvider = Keys(nil)

// Generate implements dns.TsigProvider.
func (ks Keys) Generate(msg []byte, t *dns.TSIG) ([]byte, error) {
	k := ks[dns.CanonicalName(t.Hdr.Name)]
	if k == nil || k.Algorithm != dns.CanonicalName(t.Algorithm) {
		return nil, dns.ErrSecret
	}
	h := hmac.New(k.hash(), k.secret)
	h.Write(msg)

	return h.Sum(nil), nil
}

// The errors of Verify besides those of package dns.
var (
	ErrLength    = errors.New("tsig: the signature has an impossible length")
	ErrShortened = errors.New("tsig: the signature is shortened")
)

// Verify implements dns.TsigProvider. Shortened signatures are refused (RFC 8945 §5.2.2.1 and §5.2.4).
func (ks Keys) Verify(msg []byte, t *dns.TSIG) error {
	want, err := ks.Generate(msg, t)
	if err != nil {
		return err
	}
	got, err := hex.DecodeString(t.MAC)
	switch n := len(got); {
	case err != nil || n > len(want) || n < max(10, len(want)/2):
		return ErrLength
	case !hmac.Equal(want[:n], got):
		return dns.ErrSig
	case n < len(want):
		return ErrShortened
	}

	return nil
}
