package zone

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
)

// Names is what the operator publishes in the zone besides the names of customers.
type Names struct {
	// NameServers are all name servers of the zone, as the parent zone lists them. The first is the primary that the
	// SOA record names. Required.
	NameServers []Host `yaml:"nameServers"`
	// Contact is the mail address of the person responsible for the zone, for the SOA record. Required if publish is
	// "serve", else not used: the SOA record is the operator's.
	Contact string `yaml:"contact"`
	// Issuers are the certificate authorities that may issue certificates for names in the zone (CAA records), e.g.
	// "letsencrypt.org". Default none: any authority may.
	Issuers []string `yaml:"issuers"`
	// Regions are the service regions, one or two, in the order of calls.routing.regions. Required, unless publish is
	// "none": then customers' names may have any address.
	Regions []Region `yaml:"regions"`
}

// Host is a host name with its addresses.
type Host struct {
	// Name is the host's name. Required.
	Name string `yaml:"name"`
	// Addresses are the host's IP addresses. Required if the name is in the zone, else not allowed.
	Addresses []string `yaml:"addresses"`
	// CheckAt are the addresses at which checks ask the host, "ip:port". Default port 53 of its addresses; those of a
	// name outside the zone are looked up with the system's resolver.
	CheckAt []string `yaml:"checkAt"`
}

// Region is a service region.
type Region struct {
	// API are the addresses of the Provisioning API in this region: those of provapi.<base domain> while the region is
	// the one in use. Default those of the region's edges.
	API []string `yaml:"api"`
	// Front are the addresses of the public front in this region: onboard.<base domain> has those of all regions.
	// Default none.
	Front []string `yaml:"front"`
	// Edges are the nodes of the region that calls go to. Required.
	Edges []Edge `yaml:"edges"`
}

// Edge is a node that calls go to. Its name in the zone is <name>.r<region>.<base domain>.
type Edge struct {
	// Name is one label: letters, digits and "-". Required.
	Name string `yaml:"name"`
	// Addresses are the IP addresses on which the operator's network reaches the node. Required.
	Addresses []string `yaml:"addresses"`
	// DirectRouting are the IP addresses on which Teams reaches the node. Default those in addresses.
	DirectRouting []string `yaml:"directRouting"`
	// TLS is the port on which the operator's network reaches the node with SIP over TLS, for the region's SRV records.
	// Default 0: none.
	TLS int `yaml:"tls"`
	// TCP is that port for SIP over TCP. Default 0: none.
	TCP int `yaml:"tcp"`
	// UDP is that port for SIP over UDP. Default 0: none.
	UDP int `yaml:"udp"`
}

// Customer is an account with the labels of its Direct Routing names. A label is the first one of names, one in each
// region, with the text that proves the name to Microsoft 365 there; it has no subdomain if there is none.
type Customer struct {
	Account         string
	Active, Pending domain.Label
	Status          domain.SubdomainStatus // of the active label
}

// TTLs in seconds.
const (
	fixedTTL  = 3600 // of what changes with the configuration only
	movingTTL = 60   // of what a person may be waiting for, and of provapi
)

// contents turns names into records.
type contents struct {
	*Names
	origin  string   // absolute
	regions []string // labels of Direct Routing, such as "1r1"
	fronts  []string // labels of the hosts of the public front, such as "onboard"
}

// newContents returns the contents of the zone of a base domain.
func newContents(n *Names, base string, regions, fronts []string) contents {
	c := contents{Names: n, origin: New(base, "", "").Origin(), fronts: fronts}
	for _, r := range regions {
		c.regions = append(c.regions, strings.ToLower(r))
	}

	return c
}

// fixed returns the records that come from the configuration.
func (c *contents) fixed() []Record {
	var rs []Record
	for _, s := range c.NameServers {
		rs = append(rs, NameServer(Apex, fixedTTL, strings.ToLower(s.Name)))
		if name, ok := c.within(s.Name); ok {
			rs = append(rs, addresses(name, fixedTTL, s.Addresses)...)
		}
	}
	for _, issuer := range c.Issuers {
		rs = append(rs, Authority(Apex, fixedTTL, 0, "issue", issuer))
	}
	for i, r := range c.Regions {
		region := fmt.Sprint("r", i+1)
		for _, e := range r.Edges {
			host := strings.ToLower(e.Name) + "." + region
			rs = append(rs, addresses(host, movingTTL, e.Addresses)...)
			rs = append(rs, addresses(region, movingTTL, e.Addresses)...)
			for _, s := range []struct {
				name string
				port int
			}{{"_sips._tcp", e.TLS}, {"_sip._tls", e.TLS}, {"_sip._tcp", e.TCP}, {"_sip._udp", e.UDP}} {
				if s.port != 0 {
					rs = append(rs, Service(s.name+"."+region, movingTTL, 10, 10, uint16(s.port), host+"."+c.origin))
				}
			}
		}
		rs = append(rs, c.directRouting(i, c.regions[i])...)
		for _, host := range c.fronts {
			rs = append(rs, addresses(host, movingTTL, r.Front)...)
		}
	}

	return rs
}

// Expected returns the records that the zone of a base domain has by its configuration, and those of an account, each
// with its source.
func (n *Names) Expected(base string, regions, fronts []string, x Customer) []Published {
	c := newContents(n, base, regions, fronts)
	var list []Published
	for _, r := range c.fixed() {
		list = append(list, Published{Record: r, Source: sourceFixed})
	}
	for _, r := range c.customer(&x) {
		list = append(list, Published{Record: r, Source: sourceAccount + x.Account})
	}

	return list
}

// directRouting returns the addresses on which Teams reaches a region, under a name.
func (c *contents) directRouting(region int, name string) []Record {
	var rs []Record
	for _, a := range c.Regions[region].DirectRouting() {
		rs = append(rs, Address(name, movingTTL, a))
	}

	return rs
}

// DirectRouting returns the addresses on which Teams reaches a valid region.
func (r *Region) DirectRouting() []netip.Addr {
	var all []netip.Addr
	for _, e := range r.Edges {
		as := e.DirectRouting
		if len(as) == 0 {
			as = e.Addresses
		}
		for _, a := range as {
			all = append(all, netip.MustParseAddr(a).Unmap())
		}
	}

	return all
}

// customer returns the records of a customer: its addresses and its text in each region.
func (c *contents) customer(x *Customer) []Record {
	var rs []Record
	for _, l := range []domain.Label{x.Active, x.Pending} {
		if l.Subdomain == "" {
			continue
		}
		for i, region := range c.regions {
			name := strings.ToLower(l.Subdomain) + "." + region
			switch {
			case i < len(c.Regions):
				rs = append(rs, c.directRouting(i, name)...)
			case len(c.Regions) > 0:
				continue // not in use
			}
			if token := l.Tokens()[i]; token != "" {
				rs = append(rs, Text(name, movingTTL, token))
			}
		}
	}

	return rs
}

// provapi returns the addresses of the Provisioning API in a region.
func (c *contents) provapi(region int) []Record {
	r := &c.Regions[region]
	if len(r.API) > 0 {
		return addresses("provapi", movingTTL, r.API)
	}
	var rs []Record
	for _, e := range r.Edges {
		rs = append(rs, addresses("provapi", movingTTL, e.Addresses)...)
	}

	return rs
}

// addresses returns address records. The addresses have been validated.
func addresses(name string, ttl uint32, as []string) []Record {
	var rs []Record
	for _, a := range as {
		if ip, err := netip.ParseAddr(a); err == nil {
			rs = append(rs, Address(name, ttl, ip))
		}
	}

	return rs
}

// regional reports whether a label below the base domain is a region, whose names are those of edges or customers.
func (c *contents) regional(label string) bool {
	return domain.OwnRegion(label) || slices.Contains(c.regions, label)
}

// within returns the name of a host relative to the origin, if it is in the zone.
func (c *contents) within(host string) (string, bool) {
	return strings.CutSuffix(strings.ToLower(strings.TrimSuffix(host, "."))+".", "."+c.origin)
}

// Validate returns every mistake in the names, for a base domain with Direct Routing regions. If the names are not
// published but only checked, less is required.
func (n *Names) Validate(base string, regions []string, published bool) []error {
	var errs fault.Problems
	ips := func(target string, as []string, required bool) {
		if required && len(as) == 0 {
			errs.Add(target, "is empty; list the IP addresses")
		}
		for i, a := range as {
			if ip, err := netip.ParseAddr(a); err != nil || ip.Zone() != "" || ip.IsUnspecified() || ip.IsMulticast() {
				errs.Add(fmt.Sprintf("%s[%d]", target, i), "%q is not the IP address of a host", a)
			}
		}
	}

	c := newContents(n, base, regions, nil)
	if len(n.NameServers) == 0 {
		errs.Add("nameServers", "is empty; list every name server of the zone, as its parent zone does")
	}
	hosts := map[string]bool{}
	for i, s := range n.NameServers {
		at, host := fmt.Sprintf("nameServers[%d]", i), dns.CanonicalName(s.Name)
		if err := checkHost(s.Name); err != nil {
			errs.Add(at+".name", "%v", err)
		}
		if hosts[host] {
			errs.Add(at+".name", "%s is listed more than once; list it once, with all its addresses", s.Name)
		}
		hosts[host] = true
		name, ok := c.within(s.Name)
		ips(at+".addresses", s.Addresses, ok)
		if host == c.origin {
			errs.Add(at+".name", "%s is the zone itself; give the host a name below it, such as ns1.%[1]s", base)
		}
		if top := name[strings.LastIndexByte(name, '.')+1:]; ok && (c.regional(top) || domain.OwnHost(top)) {
			errs.Add(at+".name", "%s is at or below a name with another purpose; use one such as ns1.%s", s.Name, base)
		}
		if !ok && len(s.Addresses) > 0 {
			errs.Add(at+".addresses", "%s is not below %s; its addresses belong to another zone", s.Name, base)
		}
		for j, a := range s.CheckAt {
			if x, err := netip.ParseAddrPort(a); err != nil || x.Port() == 0 {
				errs.Add(fmt.Sprintf("%s.checkAt[%d]", at, j), "%q is not an address; use ip:port", a)
			}
		}
	}
	user, host, _ := strings.Cut(n.Contact, "@")
	_, fits := dns.IsDomainName(mailbox(n.Contact))
	if n.Contact != "" && (user == "" || checkHost(host) != nil || !fits) {
		errs.Add("contact", "%q is not a mail address; use name@host", n.Contact)
	}
	for i, issuer := range n.Issuers {
		if err := checkHost(issuer); err != nil {
			errs.Add(fmt.Sprintf("issuers[%d]", i), "%v", err)
		}
	}

	for _, r := range c.regions {
		if published && (domain.OwnRegion(r) || domain.OwnHost(r)) {
			errs.Add("regions", "calls.routing.regions has %q, which has another purpose in the zone; use another", r)
		}
	}
	if len(n.Regions) == 0 && published || len(n.Regions) > len(regions) {
		errs.Add("regions", "has %d regions; calls.routing.regions has %d", len(n.Regions), len(regions))
	}
	for i, r := range n.Regions {
		at := fmt.Sprintf("regions[%d]", i)
		ips(at+".api", r.API, false)
		ips(at+".front", r.Front, false)
		if len(r.Edges) == 0 {
			errs.Add(at+".edges", "is empty; list the nodes that calls go to")
		}
		names := map[string]bool{}
		for j, e := range r.Edges {
			at := fmt.Sprintf("%s.edges[%d]", at, j)
			name := strings.ToLower(e.Name)
			if checkName(name, c.origin) != nil || strings.ContainsAny(name, "._@") || names[name] {
				errs.Add(at+".name", "%q must be one label of letters, digits and \"-\", and unique in its region",
					e.Name)
			}
			names[name] = true
			ips(at+".addresses", e.Addresses, true)
			ips(at+".directRouting", e.DirectRouting, false)
			if e.TLS == 0 && e.TCP == 0 && e.UDP == 0 {
				errs.Add(at, "has no port; set tls, tcp or udp")
			}
			for k, port := range []int{e.TLS, e.TCP, e.UDP} {
				if port < 0 || port > 65535 {
					errs.Add(at+"."+[]string{"tls", "tcp", "udp"}[k], "%d is not a port", port)
				}
			}
		}
	}

	return errs
}

// checkHost returns an error unless name is a host name of at least two labels, and no IP address.
func checkHost(name string) error {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	_, err := netip.ParseAddr(name)
	if checkName(name, "") != nil || !strings.Contains(name, ".") || err == nil {
		return fmt.Errorf("%q is not a host name", name)
	}

	return nil
}
