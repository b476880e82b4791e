package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tandemgw/tandem/internal/certificate"
)

// KnownCertificates returns the certificates that the deployment can have. A job that needs one for a name of its own
// adds it here.
func (c *Config) KnownCertificates() []certificate.Wanted {
	base := "." + strings.ToLower(c.Calls.Routing.BaseDomain)
	known := []certificate.Wanted{{Name: "provapi", Names: []string{"provapi" + base}}}
	for i := range c.Zone.Names.Regions {
		region := fmt.Sprint("r", i+1)
		known = append(known, certificate.Wanted{Name: region, Names: []string{region + base}})
	}
	for _, label := range c.Calls.Routing.Regions[:min(len(c.Zone.Names.Regions), len(c.Calls.Routing.Regions))] {
		host := strings.ToLower(label) + base
		known = append(known, certificate.Wanted{Name: strings.ToLower(label), Names: []string{host, "*." + host}})
	}

	return append(known, certificate.Wanted{Name: "onboard", Names: []string{"onboard" + base}, Optional: true})
}

// WantedCertificates returns the certificates that are obtained; none without an authority.
func (c *Config) WantedCertificates() []certificate.Wanted {
	if !c.Certificates.Enabled() {
		return nil
	}
	return c.Certificates.Choose(c.KnownCertificates())
}

// UsedCertificates returns the names of the obtained certificates that listeners and peer groups of this process use.
func (l *Loaded) UsedCertificates() []string {
	var names []string
	l.eachHTTP(func(_ string, x *Listener) { names = append(names, x.Certificate) })
	if l.Has(RoleEdge) {
		for i := range l.Calls.Edge.Groups {
			names = append(names, l.Calls.Edge.Groups[i].TLS.Certificate)
		}
	}

	return slices.DeleteFunc(names, func(s string) bool { return s == "" })
}

// checkCertificates reports mistakes about certificates that are obtained, and about the names by which listeners and
// peer groups refer to them. hosts are those of edge.Config.CertificateNames, nil if they are not known.
func (l *Loaded) checkCertificates(hosts map[string][]string, bad report, badAll reportAll) {
	badAll("certificates", l.Certificates.Validate(l.KnownCertificates()))
	if l.Certificates.Enabled() && !l.Zone.Published() && !(l.Zone.Enabled() && l.Zone.Updates()) {
		bad("certificates", "an authority asks for records in DNS, so Tandem must publish them; set zone.nameServers "+
			"and a zone.publish other than none, or zone.update.server and key for a zone to which CNAMEs at "+
			"_acme-challenge lead, or remove certificates and use files")
	}
	wanted := l.WantedCertificates()
	check := func(path, name string, covers []string) {
		i := slices.IndexFunc(wanted, func(w certificate.Wanted) bool { return w.Name == name })
		switch {
		case name == "":
		case !l.Certificates.Enabled():
			bad(path, "certificates are obtained only if certificates.directory is set; set it, or use "+
				"certificateFile and keyFile")
		case i < 0:
			bad(path, "%q is not among the certificates that are obtained; use one of those in certificates.order, or "+
				"add it there", name)
		default:
			for _, host := range covers {
				if !wanted[i].Covers(host) {
					bad(path, "%s is for %s and does not cover %s, which is advertised to peers; use another "+
						"certificate, or advertise a name that it covers", name,
						strings.Join(wanted[i].Names, ", "), host)
				}
			}
		}
	}

	l.eachHTTP(func(path string, x *Listener) { check(path+".certificate", x.Certificate, nil) })
	for i := 0; l.Has(RoleEdge) && i < len(l.Calls.Edge.Groups); i++ {
		g := &l.Calls.Edge.Groups[i]
		check(fmt.Sprintf("calls.groups[%d].tls.certificate", i), g.TLS.Certificate,
			l.Calls.Edge.CertificateNames(g.Bind.TLS, hosts))
	}
}
