package edge

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/tandemgw/tandem/internal/calls/sip/transport"
	"github.com/tandemgw/tandem/internal/domain/fault"
)

// keyFiles holds the certificate files of an endpoint.
type keyFiles struct {
	*transport.CertificateFiles
	group int // in Config.Groups
}

// paths returns the files that a configuration names.
func (t *TLS) paths() transport.CertificatePaths {
	return transport.CertificatePaths{Certificate: t.CertificateFile, Key: t.KeyFile, Roots: t.RootsFile}
}

// CertificateNames returns the names under which a TLS address is advertised to peers, which its certificate must
// carry: those in advertised, and those of the services, by leg.HostNames. Addresses are left out: a peer that gets an
// address is told the expected name by other means.
func (c *Config) CertificateNames(bind string, hosts map[string][]string) []string {
	var names []string
	for i := range c.Groups {
		g := &c.Groups[i]
		if g.Bind.TLS != bind {
			continue
		}
		host, _, err := hostPort(g.Advertised.TLS)
		if _, ipErr := netip.ParseAddr(host); err == nil && ipErr != nil {
			names = append(names, host)
		}
		names = append(names, hosts[g.Service]...)
	}
	return names
}

// CheckFiles returns an error for each file of the TLS addresses that is not usable at the time now. hosts are those of
// CertificateNames; skip names groups whose files are created later. Error targets are below groups.
func (c *Config) CheckFiles(hosts map[string][]string, skip []string, now time.Time) []error {
	var errs []error
	for i := range c.Groups {
		g := &c.Groups[i]
		if g.Bind.TLS == "" || g.TLS.CertificateFile == "" || g.TLS.KeyFile == "" || slices.Contains(skip, g.Name) {
			continue
		}
		_, certificate := transport.LoadCertificate(g.TLS.CertificateFile, g.TLS.KeyFile,
			c.CertificateNames(g.Bind.TLS, hosts), now)
		var roots error
		if g.TLS.RootsFile != "" {
			_, roots = transport.LoadRoots(g.TLS.RootsFile)
		}
		for _, err := range []error{certificate, roots} {
			var f *fault.Error
			if errors.As(err, &f) {
				errs = append(errs, f.At(fmt.Sprintf("groups[%d].tls.%s", i, f.Target)))
			}
		}
	}
	return errs
}

// certificates returns when the certificates in use expire, by file. If several endpoints use a file, the earliest time
// counts: one of them may not have read the renewed certificate yet.
func (e *Edge) certificates() map[string]time.Time {
	ends := map[string]time.Time{}
	for _, k := range e.keys {
		file, until := k.Path(), k.Certificate().Leaf.NotAfter
		if end, ok := ends[file]; !ok || until.Before(end) {
			ends[file] = until
		}
	}
	return ends
}
