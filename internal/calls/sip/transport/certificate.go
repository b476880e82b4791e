package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
)

// How often certificate files are checked, and how long before its expiry a certificate is warned about.
const (
	certificateCheckEvery = 10 * time.Second
	certificateWarning    = 30 * 24 * time.Hour
)

// CertificatePaths names the PEM files of a certificate, its key, and the authorities of the far side; empty for none.
// A certificate that is obtained has a Name instead of the first two.
type CertificatePaths struct{ Certificate, Key, Roots, Name string }

// Obtained returns the certificate in service under a name, nil while there is none.
type Obtained func(name string) *tls.Certificate

// FileIdentity is the identity in [CertificateFiles.Keys].
const FileIdentity = "file"

// CertificateFiles keeps a certificate and its authorities up to date with their files, or with what was obtained, so
// that a renewal needs no restart. A renewal that cannot be used is refused, and the previous certificate and
// authorities stay in use. Its methods are safe for concurrent use.
type CertificateFiles struct {
	Keys     *Keyring // contains the certificate in use
	names    []string
	obtained Obtained
	log      *slog.Logger
	pool     atomic.Pointer[x509.CertPool] // nil: the system's
	paths    atomic.Pointer[CertificatePaths]

	mu      sync.Mutex   // guards the fields below, and changes to those above
	seen    [3]time.Time // when the files in use were written
	refused string       // why the present files are not used
	warned  time.Time    // of the coming expiry
}

// OpenCertificateFiles reads the files; the certificate must carry each of names. A certificate that peers may refuse
// for its dates or names is used nevertheless, and logged: a component that restarts must not stay down because of it.
// One that has not been obtained yet is no error; until it is, handshakes fail.
func OpenCertificateFiles(p CertificatePaths, names []string, obtained Obtained,
	log *slog.Logger) (*CertificateFiles, error) {
	c := &CertificateFiles{Keys: NewKeyring(), names: names, obtained: obtained, log: log}
	commit, err := c.Read(p)
	if commit == nil {
		return nil, err
	}
	commit()
	if err != nil {
		log.Error("using a certificate that peers may refuse", "file", p.Certificate, "error", err)
	}
	if c.Certificate() == nil { // the only line: peers try again and again
		log.Warn("certificate not obtained yet; TLS connections fail until it is", "certificate", p.Name)
	}
	c.Check(time.Now())
	return c, nil
}

// Read reads other files. commit puts them into use; it is nil if an error prevents their use. A certificate that has
// not been obtained yet does not replace the one in use.
func (c *CertificateFiles) Read(p CertificatePaths) (commit func(), err error) {
	take, err := c.read(p)
	if take == nil {
		return nil, err
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		take()
	}, err
}

// read is Read, but take must be called with c.mu held.
func (c *CertificateFiles) read(p CertificatePaths) (take func(), err error) {
	seen := p.written()
	var pool *x509.CertPool
	if p.Roots != "" {
		if pool, err = LoadRoots(p.Roots); err != nil {
			return nil, err
		}
	}
	var pair tls.Certificate
	if p.Name == "" {
		pair, err = LoadCertificate(p.Certificate, p.Key, c.names, time.Now())
	} else if got := c.obtained(p.Name); got != nil {
		pair = *got
	}
	if err != nil && (pair.Leaf == nil || c.Certificate() != nil) {
		return nil, err
	}
	return func() {
		if pair.Leaf != nil {
			_ = c.Keys.Put(FileIdentity, pair) // it is complete
		}
		c.pool.Store(pool)
		c.paths.Store(&p)
		c.seen = seen
	}, err
}

// written returns when the files were last written.
func (p *CertificatePaths) written() (at [3]time.Time) {
	for i, name := range []string{p.Certificate, p.Key, p.Roots} {
		if st, err := os.Stat(name); err == nil {
			at[i] = st.ModTime()
		}
	}
	return at
}

// Check puts changed files into use, or logs once why it does not: they are tried again, as they may become valid. Once
// a day it logs that the certificate in use expires soon.
func (c *CertificateFiles) Check(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := *c.paths.Load()
	if p.written() != c.seen || c.renewed(p.Name) {
		take, err := c.read(p)
		switch {
		case err == nil:
			take()
			c.refused = ""
			c.log.Info("certificate renewed", "file", p.String())
		case err.Error() != c.refused:
			c.refused = err.Error()
			c.log.Error("renewed certificate refused; the previous one stays in use", "file", p.Certificate,
				"error", err)
		}
	}
	if p.Name != "" {
		return // whoever obtains it warns
	}
	end := c.Certificate().Leaf.NotAfter
	if left := end.Sub(now); left <= certificateWarning && now.Sub(c.warned) >= 24*time.Hour {
		c.warned = now
		what := "certificate expires soon; renew it"
		if left < 0 {
			what = "certificate has expired; renew it"
		}
		c.log.Warn(what, "file", p.Certificate, "until", end.UTC().Format(time.DateTime),
			"days_left", int(left.Hours()/24))
	}
}

// renewed reports whether another certificate than the one in use was obtained under a name.
func (c *CertificateFiles) renewed(name string) bool {
	if name == "" {
		return false
	}
	got, used := c.obtained(name), c.Certificate()
	return got != nil && (used == nil || !got.Leaf.Equal(used.Leaf))
}

// Watch checks the files until ctx ends.
func (c *CertificateFiles) Watch(ctx context.Context) {
	tick := time.NewTicker(certificateCheckEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			c.Check(time.Now())
		case <-ctx.Done():
			return
		}
	}
}

// Certificate returns the certificate in use, nil while there is none.
func (c *CertificateFiles) Certificate() *tls.Certificate { return c.Keys.Get(FileIdentity) }

// Roots returns the authorities in use, nil for the system's.
func (c *CertificateFiles) Roots() *x509.CertPool { return c.pool.Load() }

// Present returns the certificate in use, or an error that says which one is missing.
func (c *CertificateFiles) Present() (*tls.Certificate, error) {
	if cert := c.Certificate(); cert != nil {
		return cert, nil
	}
	return nil, fmt.Errorf("no certificate to present: %s has not been obtained yet", c.Path())
}

// Paths returns the files in use, or the name.
func (c *CertificateFiles) Paths() CertificatePaths { return *c.paths.Load() }

// Path returns the certificate's file; of one that is obtained "certificate" and its name.
func (c *CertificateFiles) Path() string { return c.paths.Load().String() }

// String implements fmt.Stringer.
func (p CertificatePaths) String() string {
	if p.Name != "" {
		return "certificate " + p.Name
	}
	return p.Certificate
}

// Error codes for certificate files.
const (
	codeInvalid     = "InvalidCertificate"
	CodeNotValidNow = "CertificateNotValidNow" // it has expired, or is not valid yet by this machine's clock
)

// LoadCertificate reads the PEM files of a certificate, followed by its chain, and of its key, and checks that they can
// be presented at time now: that they belong together, that the certificate is valid, and that it carries each of
// names. An error is a *fault.Error that says how to correct it; its Target is certificateFile or keyFile. The pair is
// also returned with an error about validity, which has the code CodeNotValidNow, or about names.
func LoadCertificate(certFile, keyFile string, names []string, now time.Time) (tls.Certificate, error) {
	var pair tls.Certificate
	code := codeInvalid
	bad := func(target, format string, args ...any) (tls.Certificate, error) {
		return pair, fault.New(fault.Invalid, code, format, args...).At(target)
	}
	chain, err := os.ReadFile(certFile)
	if err != nil {
		return bad("certificateFile",
			"the certificate cannot be read (%v); correct the path or the file's permissions", err)
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return bad("keyFile",
			"the private key cannot be read (%v); correct the path or the file's permissions", err)
	}

	if !x509.NewCertPool().AppendCertsFromPEM(chain) {
		return bad("certificateFile", "%s holds no certificate in PEM form that can be read; "+
			"write the certificate there, followed by its chain", certFile)
	}
	loaded, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return bad("keyFile", "%s is not the private key of the certificate in %s (%v); "+
			"install both files of one certificate", keyFile, certFile, err)
	}

	pair = loaded
	leaf := pair.Leaf
	const form = "2006-01-02 15:04 UTC"
	code = CodeNotValidNow
	switch {
	case now.After(leaf.NotAfter):
		return bad("certificateFile", "the certificate in %s expired on %s; install a renewed one",
			certFile, leaf.NotAfter.UTC().Format(form))
	case now.Before(leaf.NotBefore):
		return bad("certificateFile", "the certificate in %s is not valid before %s; "+
			"install one that is valid now, or correct this machine's clock",
			certFile, leaf.NotBefore.UTC().Format(form))
	}
	code = codeInvalid
	for _, n := range names {
		if !certCovers(leaf, n) {
			return bad("certificateFile", "the certificate in %s is for %s and does not cover %s, "+
				"which is advertised to peers; install one that does, or advertise a name that it covers",
				certFile, describe(leaf), n)
		}
	}
	return pair, nil
}

// LoadRoots reads a PEM file of authorities, which must hold at least one. An error is a *fault.Error whose Target is
// rootsFile.
func LoadRoots(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	pool := x509.NewCertPool()
	switch {
	case err != nil:
		err = fault.New(fault.Invalid, codeInvalid,
			"the authorities cannot be read (%v); correct the path or the file's permissions", err).At("rootsFile")
	case !pool.AppendCertsFromPEM(text):
		err = fault.New(fault.Invalid, codeInvalid,
			"%s holds no certificate in PEM form that can be read, so that nothing would be trusted; "+
				"write the trusted authorities there", file).At("rootsFile")
	}
	return pool, err
}
