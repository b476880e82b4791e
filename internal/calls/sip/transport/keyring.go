package transport

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Keyring holds the certificates that an endpoint may present, each under a key of the caller's choice, its identity.
// It is safe for concurrent use, and may change while connections are made: the next handshake presents the new
// certificate, open connections stay.
type Keyring struct {
	mu  sync.Mutex // serialises writers
	now atomic.Pointer[keys]
}

// keys is one immutable state of a keyring.
type keys struct {
	byID   map[string]*tls.Certificate
	byName map[string]string // lower-case name, possibly "*.x" -> identity
}

// NewKeyring returns an empty keyring.
func NewKeyring() *Keyring {
	k := &Keyring{}
	k.now.Store(&keys{})
	return k
}

// Put adds a certificate with its private key and chain, or replaces the one under that identity.
func (k *Keyring) Put(identity string, cert tls.Certificate) error {
	if identity == "" {
		return errors.New("certificate needs an identity")
	}
	if len(cert.Certificate) == 0 || cert.PrivateKey == nil {
		return fmt.Errorf("certificate %s: certificate or private key is missing", identity)
	}
	if cert.Leaf == nil {
		leaf, err := x509.ParseCertificate(cert.Certificate[0])
		if err != nil {
			return fmt.Errorf("certificate %s: %w", identity, err)
		}
		cert.Leaf = leaf
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	n := &keys{byID: map[string]*tls.Certificate{}, byName: map[string]string{}}
	maps.Copy(n.byID, k.now.Load().byID)
	n.byID[identity] = &cert
	// The order of identities decides between two certificates for one name, so that the choice is always the same.
	for _, id := range slices.Backward(slices.Sorted(maps.Keys(n.byID))) {
		leaf := n.byID[id].Leaf
		for _, name := range slices.Concat(identities(leaf), leaf.DNSNames) { // a client may request either
			n.byName[strings.ToLower(name)] = id
		}
	}
	k.now.Store(n)
	return nil
}

// Get returns the certificate of an identity, nil if there is none.
func (k *Keyring) Get(identity string) *tls.Certificate { return k.now.Load().byID[identity] }

// ForName returns the certificate for a server name (SNI): one with exactly that name in preference to a wildcard,
// which matches exactly one label (RFC 2818 §3.1). It returns "" and nil if there is none.
func (k *Keyring) ForName(name string) (identity string, cert *tls.Certificate) {
	s := k.now.Load()
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if name == "" {
		return "", nil
	}
	id, ok := s.byName[name]
	if !ok {
		if i := strings.IndexByte(name, '.'); i > 0 {
			id, ok = s.byName["*"+name[i:]]
		}
	}
	if !ok {
		return "", nil
	}
	return id, s.byID[id]
}
