package edge

import (
	"crypto/x509"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tandemgw/tandem/internal/calls/sip/transport"
)

// tlsIdentity is the key of a group's certificate in its keyring.
const tlsIdentity = "group"

// keyFiles keeps an endpoint's certificate and roots in step with their files, so that a renewal needs no restart.
type keyFiles struct {
	ring *transport.Keyring
	cfg  TLS
	pool atomic.Pointer[x509.CertPool] // nil: the system's

	mu   sync.Mutex // guards seen
	seen [3]time.Time
}

func (k *keyFiles) roots() *x509.CertPool { return k.pool.Load() }

// load reads the files.
func (k *keyFiles) load() error {
	if k.cfg.RootsFile != "" {
		pem, err := readFile("roots", k.cfg.RootsFile)
		if err != nil {
			return err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return fmt.Errorf("roots %s: the file holds no PEM certificate", k.cfg.RootsFile)
		}
		k.pool.Store(pool)
	}
	return k.ring.LoadFiles(tlsIdentity, k.cfg.CertificateFile, k.cfg.KeyFile)
}

// refresh reads the files again if one has changed, and tells whether it did. On error what was read before stays in use.
func (k *keyFiles) refresh() (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var now [3]time.Time
	for i, name := range []string{k.cfg.CertificateFile, k.cfg.KeyFile, k.cfg.RootsFile} {
		if name == "" {
			continue
		}
		st, err := os.Stat(name)
		if err != nil {
			return false, fmt.Errorf("look for a new certificate: %w", err)
		}
		now[i] = st.ModTime()
	}
	if k.seen == now {
		return false, nil
	}
	first := k.seen == [3]time.Time{}
	if err := k.load(); err != nil {
		return false, err
	}
	k.seen = now
	return !first, nil
}

// certificates returns when the certificates in use end, by their files. Of a file that several endpoints read the earliest counts: one of them may
// not have read the renewed one yet.
func (e *Edge) certificates() map[string]time.Time {
	ends := map[string]time.Time{}
	for _, k := range e.keys {
		c := k.ring.Get(tlsIdentity)
		if c == nil {
			continue
		}
		if end, ok := ends[k.cfg.CertificateFile]; !ok || c.Leaf.NotAfter.Before(end) {
			ends[k.cfg.CertificateFile] = c.Leaf.NotAfter
		}
	}
	return ends
}
