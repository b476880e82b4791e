package config

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/calls/sip/transport"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/entra"
	"github.com/tandemgw/tandem/internal/services"
)

// report records a mistake at a path, reportAll the errors of a package's check, below a prefix; a nil error is none.
type (
	report    func(path, format string, args ...any)
	reportAll func(prefix string, errs []error)
)

// CertificatePaths returns the files of the listener's certificate.
func (x *Listener) CertificatePaths() transport.CertificatePaths {
	return transport.CertificatePaths{Certificate: x.CertificateFile, Key: x.KeyFile, Name: x.Certificate}
}

// Plain reports whether the listener serves plain HTTP.
func (x *Listener) Plain() bool { return x.CertificateFile == "" && x.Certificate == "" }

// eachHTTP calls f for each HTTP server that this process opens, with its path.
func (c *Config) eachHTTP(f func(path string, x *Listener)) {
	for _, h := range []struct {
		path, role string // the role that opens it; empty for every process
		x          *Listener
	}{
		{"metrics", "", &c.Metrics}, {"manage", "", &c.Manage.Listener},
		{"provisioning", RoleAPI, &c.Provisioning.Listener}, {"front", RoleFront, &c.Front.Listener},
	} {
		if h.x.Listen != Off && (h.role == "" || c.Has(h.role)) {
			f(h.path, h.x)
		}
	}
}

// socket is an address on which the process will listen.
type socket struct {
	path, use string // place in the configuration; purpose
	addr      netip.AddrPort
}

// overlaps reports whether the system refuses to listen on both addresses. On TCP a wildcard address covers both
// families.
func (s *socket) overlaps(o *socket) bool {
	a, b := s.addr.Addr(), o.addr.Addr()
	udp := strings.HasSuffix(s.use, "UDP")
	if udp != strings.HasSuffix(o.use, "UDP") || s.addr.Port() != o.addr.Port() || s.addr.Port() == 0 {
		return false
	}
	return a == b || (a.IsUnspecified() || b.IsUnspecified()) && (!udp || a.Is4() == b.Is4())
}

// checkSockets reports every address and port that two listeners would use. Peer groups may share one for the same
// transport.
func (l *Loaded) checkSockets(bad report) {
	var sockets []socket
	add := func(path, use, listen string) {
		a, err := netip.ParseAddrPort(listen)
		if err != nil {
			return // reported elsewhere, or not used
		}
		s := socket{path, use, netip.AddrPortFrom(a.Addr().Unmap(), a.Port())}
		for i := range sockets {
			o := &sockets[i]
			if use == o.use && s.addr == o.addr && use != "HTTP" {
				return // shared
			}
			if s.overlaps(o) {
				bad(path, "%s for %s conflicts with %s for %s (%s); give each its own address or port", s.addr, use,
					o.addr, o.use, o.path)
				return
			}
		}
		sockets = append(sockets, s)
	}

	l.eachHTTP(func(path string, x *Listener) {
		host, service, _ := net.SplitHostPort(x.Listen)
		port, _ := net.LookupPort("tcp", service)
		if host == "localhost" {
			host = "127.0.0.1"
		}
		add(path+".listen", "HTTP", net.JoinHostPort(cmp.Or(host, "::"), strconv.Itoa(port)))
	})
	for i := 0; l.Has(RoleDNS) && i < len(l.Zone.Server.Listen); i++ {
		at := fmt.Sprintf("zone.listen[%d]", i)
		add(at, "DNS over UDP", l.Zone.Server.Listen[i])
		add(at, "DNS over TCP", l.Zone.Server.Listen[i])
	}
	for i := 0; l.Has(RoleEdge) && i < len(l.Calls.Edge.Groups); i++ {
		b, at := &l.Calls.Edge.Groups[i].Bind, fmt.Sprintf("calls.groups[%d].bind.", i)
		add(at+"udp", "SIP over UDP", b.UDP)
		add(at+"tcp", "SIP over TCP", b.TCP)
		add(at+"tls", "SIP over TLS", b.TLS)
	}
}

// checkMachine reports files and environment variables that the configuration names and that cannot be used now, and
// warns about those that others may refuse. It changes nothing.
func (l *Loaded) checkMachine(hosts map[string][]string, bad report, badAll, warnAll reportAll) {
	now := time.Now()
	if l.Source.Starting {
		all := badAll
		badAll = func(prefix string, errs []error) {
			all(prefix, slices.DeleteFunc(errs,
				func(err error) bool { return fault.HasCode(err, transport.CodeNotValidNow) }))
		}
	}
	l.eachHTTP(func(path string, x *Listener) {
		if x.CertificateFile != "" && x.KeyFile != "" {
			_, err := transport.LoadCertificate(x.CertificateFile, x.KeyFile, nil, now)
			badAll(path, []error{err})
		}
	})
	if len(l.Zone.problems(l.Calls.Routing.BaseDomain, l.Calls.Routing.Regions)) == 0 { // else they are not readable
		if l.Has(RoleDNS) && l.Zone.Published() {
			badAll("zone", l.Zone.Server.CheckFiles())
		}
		if l.Has(RoleWorker) && l.Zone.Updates() {
			badAll("zone.update", l.Zone.Update.CheckFiles())
		}
	}
	if l.Has(RoleEdge) {
		errs, warnings := l.Calls.Edge.CheckFiles(services.All().Services(), hosts, l.Generated, now)
		badAll("calls", errs)
		warnAll("calls", warnings)
	}
	roots := func(path, file string) {
		if file == "" {
			return
		}
		if _, err := transport.LoadRoots(file); err != nil {
			bad(path, "%s", fault.As(err).Message)
		}
	}
	roots("auth.trustRootsFile", l.Auth.TrustRootsFile)
	if l.Has(RoleWorker) { // which orders certificates
		roots("certificates.rootsFile", l.Certificates.RootsFile)
		badAll("certificates", []error{l.Certificates.CheckFiles()})
	}
	roots("onboarding.rootsFile", l.Onboarding.RootsFile)
	a := &l.Onboarding.App
	_, err := entra.ReadCredential(a.CertificateFile, a.KeyFile, a.SecretFile)
	badAll("onboarding.app", []error{err})
	if err := l.Secrets.CheckEnvironment(l.Source.Getenv); err != nil {
		bad("secrets.keyEnvironment", "%v", err)
	}
	badAll("database", []error{l.Database.CheckFiles()})
}
