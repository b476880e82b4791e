package edge

import (
	"crypto/tls"
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
	ring  *transport.Keyring
	group int                           // in Config.Groups
	pool  atomic.Pointer[x509.CertPool] // nil: the system's

	cfg atomic.Pointer[TLS] // the files in use

	mu   sync.Mutex // guards seen
	seen [3]time.Time
}

func (k *keyFiles) roots() *x509.CertPool { return k.pool.Load() }

// load reads the files and takes up what they hold.
func (k *keyFiles) load(cfg TLS) error {
	commit, err := k.read(cfg)
	if err == nil {
		commit()
	}
	return err
}

// read reads the files that cfg names. commit takes up what they hold.
func (k *keyFiles) read(cfg TLS) (commit func(), err error) {
	var pool *x509.CertPool
	if cfg.RootsFile != "" {
		pem, err := readFile("roots", cfg.RootsFile)
		if err != nil {
			return nil, err
		}
		pool = x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("roots %s: the file holds no PEM certificate", cfg.RootsFile)
		}
	}
	pair, err := tls.LoadX509KeyPair(cfg.CertificateFile, cfg.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", cfg.CertificateFile, err)
	}
	return func() {
		k.pool.Store(pool)
		_ = k.ring.Put(tlsIdentity, pair) // it is whole
		k.cfg.Store(&cfg)
	}, nil
}

// refresh reads the files again if one has changed, and tells whether it did. On error what was read before stays in use.
func (k *keyFiles) refresh() (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var now [3]time.Time
	cfg := *k.cfg.Load()
	for i, name := range []string{cfg.CertificateFile, cfg.KeyFile, cfg.RootsFile} {
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
	if err := k.load(cfg); err != nil {
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
		file := k.cfg.Load().CertificateFile
		if end, ok := ends[file]; !ok || c.Leaf.NotAfter.Before(end) {
			ends[file] = c.Leaf.NotAfter
		}
	}
	return ends
}
