package edge

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/tandemgw/tandem/internal/calls/sip/transport"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
)

// keyFiles holds the certificate files of an endpoint.
type keyFiles struct {
	*transport.CertificateFiles
	group int // in Config.Groups
}

// paths returns the files that a configuration names.
func (t *TLS) paths() transport.CertificatePaths {
	return transport.CertificatePaths{Certificate: t.CertificateFile, Key: t.KeyFile, Roots: t.RootsFile,
		Name: t.Certificate}
}

// Named reports whether the configuration names a certificate, by files or by its name.
func (t *TLS) Named() bool { return t.CertificateFile != "" || t.KeyFile != "" || t.Certificate != "" }

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

// InheritCertificates gives each group that names no certificate that of the first group on the same TLS address that
// names one: a certificate belongs to an address.
func (c *Config) InheritCertificates() {
	for i := range c.Groups {
		g := &c.Groups[i]
		if g.Bind.TLS == "" || g.TLS.Named() {
			continue
		}
		from := slices.IndexFunc(c.Groups, func(o Group) bool {
			return o.Bind.TLS == g.Bind.TLS && o.TLS.Named()
		})
		if from >= 0 {
			t := &c.Groups[from].TLS
			g.TLS.CertificateFile, g.TLS.KeyFile, g.TLS.Certificate = t.CertificateFile, t.KeyFile, t.Certificate
			g.TLS.RootsFile = cmp.Or(g.TLS.RootsFile, t.RootsFile)
		}
	}
}

// clientAuthWarning returns the warning about a group whose certificate peers may refuse when it connects to them;
// empty if there is none. Services that ask for public certificates expect one for server authentication. cert is nil
// if it has not been obtained yet: it will not have client authentication.
func (g *Group) clientAuthWarning(service domain.Service, paths transport.CertificatePaths,
	cert *tls.Certificate) string {
	if g.Transport != "tls" || service.Traits().PublicCertificate || cert != nil && transport.ClientAuth(cert) {
		return ""
	}
	return transport.ClientAuthWarning(paths)
}

// CheckFiles returns an error for each file of the TLS addresses that is not usable at the time now, and a warning for
// each certificate that peers may refuse nevertheless. services are those that a group may belong to, hosts those of
// CertificateNames; skip names groups whose files are created later. Targets are below groups.
func (c *Config) CheckFiles(services domain.Services, hosts map[string][]string, skip []string,
	now time.Time) (errs, warnings []error) {
	for i := range c.Groups {
		g := &c.Groups[i]
		paths := g.TLS.paths()
		if g.Bind.TLS == "" || paths.Name == "" && (paths.Certificate == "" || paths.Key == "") ||
			slices.Contains(skip, g.Name) {
			continue
		}
		var found [2]error // of the certificate, and of the authorities
		var cert *tls.Certificate
		setting := "certificate"
		if paths.Name == "" {
			var pair tls.Certificate
			pair, found[0] = transport.LoadCertificate(paths.Certificate, paths.Key,
				c.CertificateNames(g.Bind.TLS, hosts), now)
			cert, setting = &pair, "certificateFile"
		}
		if paths.Roots != "" {
			_, found[1] = transport.LoadRoots(paths.Roots)
		}
		at := fmt.Sprintf("groups[%d].tls.", i)
		service, _ := services.ByName(g.Service)
		if text := g.clientAuthWarning(service, paths, cert); text != "" {
			warnings = append(warnings, fault.New(fault.Invalid, "NoClientAuthentication", "%s", text).At(at+setting))
		}
		for _, err := range found {
			if f, ok := errors.AsType[*fault.Error](err); ok {
				errs = append(errs, f.At(at+f.Target))
			}
		}
	}
	return errs, warnings
}

// Identity is the certificate by which a peer group identifies itself over TLS.
type Identity struct {
	Paths      transport.CertificatePaths
	Leaf       *x509.Certificate // nil if it has not been obtained yet
	ClientAuth bool              // it may identify a TLS client
	Warning    string            // why peers of the group may refuse it; empty if nothing is known
}

// Identity returns the certificate in use of a peer group; ok is false if the group has no TLS address.
func (e *Edge) Identity(name string) (id Identity, ok bool) {
	g := e.byName[name]
	ep := g.eps[transport.TLS]
	if ep == nil {
		return Identity{}, false
	}
	files := e.ports[ep].files
	cert, p := files.Certificate(), files.Paths()
	id = Identity{Paths: p, Warning: g.cfg.clientAuthWarning(g.service, p, cert)}
	if cert != nil {
		id.Leaf, id.ClientAuth = cert.Leaf, transport.ClientAuth(cert)
	} else if id.Warning == "" {
		id.Warning = p.String() + " has not been obtained yet, so TLS connections fail; see tandem certificate list"
	}
	return id, true
}

// certificates returns when the certificates in use expire, by file. If several endpoints use a file, the earliest time
// counts: one of them may not have read the renewed certificate yet.
func (e *Edge) certificates() map[string]time.Time {
	ends := map[string]time.Time{}
	for _, k := range e.keys {
		cert := k.Certificate()
		if cert == nil || k.Paths().Name != "" {
			continue // whoever obtains it shows when it expires
		}
		file, until := k.Path(), cert.Leaf.NotAfter
		if end, ok := ends[file]; !ok || until.Before(end) {
			ends[file] = until
		}
	}
	return ends
}
