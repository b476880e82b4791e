package edge

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/calls/sip/transport"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
)

// Peer types.
const (
	typeIP  = "ip"
	typeA   = "a"
	typeSRV = "srv"
)

// REFER policies.
const (
	referRefuse = "refuse"
	referRelay  = "relay"
)

// checker collects the errors of a configuration.
type checker struct {
	fault.Problems
	services domain.Services
}

// Validate fills in the defaults of list elements and returns all errors, each a *fault.Error. services are those that
// a group may belong to.
func (c *Config) Validate(services domain.Services) []error {
	k := checker{services: services}
	if !word(c.Node, 16, "") {
		k.Add("node", "%q is not 1 to 16 letters and digits; the name is part of the tags of this node", c.Node)
	}
	k.atLeast("limits.maxCalls", c.Limits.MaxCalls, 1)
	k.atLeast("limits.maxCallsPerSecond", c.Limits.MaxCallsPerSecond, 1)
	k.between("limits.retryAfter", c.Limits.RetryAfter, time.Second, time.Hour)
	k.within("limits.connectionsPerSource", c.Limits.ConnectionsPerSource, 1, 1_000_000)
	m := &c.Limits.Message
	for _, x := range []struct {
		key            string
		v, least, most int
	}{
		{"head", m.Head, 1 << 10, 1 << 20}, {"body", m.Body, 1 << 10, 1 << 20}, {"lines", m.Lines, 20, 10_000},
		{"requestUri", m.RequestURI, 32, 8192}, {"contactUri", m.ContactURI, 32, 8192},
		{"userInfo", m.UserInfo, 16, 8192},
		{"fromDomain", m.FromDomain, 16, 255}, {"headerName", m.HeaderName, 32, 255}, {"bodyName", m.BodyName, 16, 255},
		{"optionList", m.OptionList, 32, 8192}, {"optionTag", m.OptionTag, 16, 255},
	} {
		k.within("limits.message."+x.key, x.v, x.least, x.most)
	}
	k.between("timers.failoverAfter", c.Timers.FailoverAfter, 100*time.Millisecond, 32*time.Second)
	k.optional("timers.setupTimeout", c.Timers.SetupTimeout, time.Second, 5*time.Minute)
	k.between("timers.ringTimeout", c.Timers.RingTimeout, time.Second, time.Hour)
	k.optional("timers.maxDuration", c.Timers.MaxDuration, time.Second, 30*24*time.Hour)
	k.optional("timers.probeEvery", c.Timers.ProbeEvery, time.Second, 24*time.Hour)
	if strings.ContainsAny(c.UserAgent, "\r\n") {
		k.Add("userAgent", "must be one line")
	}
	names := map[string]int{}
	for i := range c.Groups {
		g := &c.Groups[i]
		at := fmt.Sprintf("groups[%d]", i)
		if !word(g.Name, 32, "-_") {
			k.Add(at+".name", "%q is not 1 to 32 letters, digits, \"-\" or \"_\"", g.Name)
		} else if j, dup := names[g.Name]; dup {
			k.Add(at+".name", "%q is already the name of groups[%d]; give each group its own name", g.Name, j)
		}
		names[g.Name] = i
		k.group(at, g)
	}
	k.shared(c)
	return k.Problems
}

// RouteGroups returns what routing needs to know about the groups; the configuration must be valid.
func (c *Config) RouteGroups(services domain.Services) []route.Group {
	out := make([]route.Group, len(c.Groups))
	for i := range c.Groups {
		g := &c.Groups[i]
		out[i] = route.Group{Name: g.Name, Numbers: g.Numbers}
		out[i].Service, _ = services.ByName(g.Service)
	}
	return out
}

// Services returns the services that the groups belong to; the configuration must be valid.
func (c *Config) Services(known domain.Services) (set domain.ServiceSet) {
	for _, g := range c.RouteGroups(known) {
		set = set.With(g.Service)
	}
	return set
}

// peerNames returns the names of which a certificate presented on a TLS address must carry one: those of all groups
// there, none if a group requires none.
func (c *Config) peerNames(bind string) []string {
	var names []string
	for i := range c.Groups {
		g := &c.Groups[i]
		switch {
		case g.Bind.TLS != bind:
		case len(g.TLS.PeerNames) == 0:
			return nil
		default:
			names = append(names, g.TLS.PeerNames...)
		}
	}
	return names
}

func (a Addresses) of(p transport.Proto) string { return *a.at(p) }

// at returns the field that holds the address of a transport.
func (a *Addresses) at(p transport.Proto) *string {
	switch p {
	case transport.UDP:
		return &a.UDP
	case transport.TCP:
		return &a.TCP
	case transport.TLS:
		return &a.TLS
	}
	return new(string)
}

var protos = [...]transport.Proto{transport.UDP, transport.TCP, transport.TLS}

func (k *checker) group(at string, g *Group) {
	if g.Service != "" {
		s, ok := k.services.ByName(g.Service)
		if !ok {
			var known []string
			for _, s := range k.services {
				known = append(known, s.String())
			}
			k.Add(at+".service", "%q is not a service; use one of %s, or leave it out for the operator's core",
				g.Service, strings.Join(known, ", "))
		} else if !s.Traits().CarriesCalls {
			k.Add(at+".service", "%s carries no calls in this version; remove the group", s)
		}
	}
	g.Transport = cmp.Or(g.Transport, "tls")
	p, err := transport.ParseProto(g.Transport)
	if err != nil {
		k.Add(at+".transport", "%v", err)
	} else if g.Bind.of(p) == "" {
		k.Add(at+".bind."+p.Param(), "the group sends over %s and needs an address to send from, such as "+
			"\"192.0.2.1:%d\"", p.Param(), p.DefaultPort())
	}
	for _, p := range protos {
		bind, path := g.Bind.of(p), at+".bind."+p.Param()
		if adv := g.Advertised.of(p); adv != "" {
			if bind == "" {
				k.Add(at+".advertised."+p.Param(), "nothing is bound for %s; set %s or remove this", p.Param(), path)
			}
			if _, _, err := hostPort(adv); err != nil {
				k.Add(at+".advertised."+p.Param(), "%q: %v", adv, err)
			}
		}
		if bind == "" {
			continue
		}
		a, err := netip.ParseAddrPort(bind)
		if err != nil {
			if err = domain.CheckBrackets(bind); err == nil {
				err = errors.New("not \"ip:port\", such as \"192.0.2.1:5060\" or \"[2001:db8::1]:5060\"")
			}
			k.Add(path, "%q: %v", bind, err)
			continue
		}
		a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
		*g.Bind.at(p) = a.String() // groups share an address however it is written
		if a.Addr().IsUnspecified() && g.Advertised.of(p) == "" {
			k.Add(path, "peers cannot send to %q; set advertised.%s as well", bind, p.Param())
		}
		switch {
		case p == transport.TLS:
			files := g.TLS.CertificateFile != "" || g.TLS.KeyFile != ""
			switch {
			case files && g.TLS.Certificate != "":
				k.Add(at+".tls.certificate", "is given besides certificateFile and keyFile; remove one or the other")
			case g.TLS.Certificate == "" && (g.TLS.CertificateFile == "" || g.TLS.KeyFile == ""):
				k.Add(at+".tls", "bind.tls needs certificateFile and keyFile, or certificate")
			}
		case !a.Addr().IsLoopback() && !g.Insecure:
			k.Add(path, "SIP over %s beyond loopback can be read and forged; use tls, or set insecure: true if the "+
				"network is trusted", p.Param())
		}
	}
	k.either(at+".tls.clientCertificates", &g.TLS.ClientCertificates, "require", "optional")
	if len(g.TLS.PeerNames) > 0 && g.TLS.ClientCertificates == "optional" {
		k.Add(at+".tls.peerNames", "names cannot be checked when no certificate is required; set clientCertificates "+
			"to require")
	}
	k.either(at+".refer", &g.Refer, referRefuse, referRelay)
	g.Numbers.Validate(func(path, format string, args ...any) { k.Add(at+".numbers."+path, format, args...) })
	k.prefixes(at+".allowedSources", g.AllowedSources)
	o := &g.Options
	o.Every, o.Timeout = cmp.Or(o.Every, 30*time.Second), cmp.Or(o.Timeout, 4*time.Second)
	o.DownAfter, o.UpAfter = cmp.Or(o.DownAfter, 2), cmp.Or(o.UpAfter, 2)
	k.between(at+".options.every", o.Every, time.Second, 10*time.Minute)
	k.between(at+".options.timeout", o.Timeout, 100*time.Millisecond, 32*time.Second)
	k.atLeast(at+".options.downAfter", o.DownAfter, 1)
	k.atLeast(at+".options.upAfter", o.UpAfter, 1)
	k.atLeast(at+".maxCalls", g.MaxCalls, 0)
	k.atLeast(at+".maxCallsPerSecond", g.MaxCallsPerSecond, 0)
	k.optional(at+".failoverAfter", g.FailoverAfter, 100*time.Millisecond, 32*time.Second)
	seen := map[string]int{}
	for i := range g.Peers {
		k.peer(fmt.Sprintf("%s.peers[%d]", at, i), &g.Peers[i])
		if j, dup := seen[g.Peers[i].Name]; dup {
			k.Add(fmt.Sprintf("%s.peers[%d].name", at, i), "%q is already the name of peers[%d]; give each peer its "+
				"own name", g.Peers[i].Name, j)
		}
		seen[g.Peers[i].Name] = i
	}
}

func (k *checker) peer(at string, p *Peer) {
	// The address without the characters that a name cannot contain.
	p.Name = cmp.Or(p.Name, strings.NewReplacer(":", "-", "[", "", "]", "").Replace(p.Address))
	if !word(p.Name, 64, "-_.") {
		k.Add(at+".name", "%q is not 1 to 64 letters, digits, \"-\", \"_\" or \".\"", p.Name)
	}
	host, port, err := hostPort(p.Address)
	if err != nil {
		k.Add(at+".address", "%q: %v", p.Address, err)
		return
	}
	_, ipErr := netip.ParseAddr(host)
	if p.Type == "" {
		switch {
		case ipErr == nil:
			p.Type = typeIP
		case port != 0:
			p.Type = typeA
		default:
			p.Type = typeSRV
		}
	}
	switch p.Type {
	case typeIP:
		if ipErr != nil {
			k.Add(at+".address", "%q is not an IP address; write one, or use type a or srv for a name", p.Address)
		}
	case typeA, typeSRV:
		if ipErr == nil {
			k.Add(at+".address", "%q is an IP address; use type ip", p.Address)
		}
		if p.Type == typeSRV && port != 0 {
			k.Add(at+".address", "%q: the port comes from the SRV records; leave it out, or use type a", p.Address)
		}
	default:
		k.Add(at+".type", "%q is not one of ip, a, srv", p.Type)
	}
	if p.CertificateName != "" && !hostname(p.CertificateName) {
		k.Add(at+".certificateName", "%q is not a host name", p.CertificateName)
	}
	p.Weight = cmp.Or(p.Weight, 1)
	if p.Weight < 1 || p.Weight > 65535 {
		k.Add(at+".weight", "must be from 1 to 65535")
	}
	if p.Priority < 0 || p.Priority > 65535 {
		k.Add(at+".priority", "must be from 0 (tried first) to 65535")
	}
	k.prefixes(at+".allowedSources", p.AllowedSources)
}

// shared checks that groups on the same address do not contradict each other.
func (k *checker) shared(c *Config) {
	type claim struct {
		proto  transport.Proto
		bind   string
		prefix netip.Prefix
	}
	sources := map[claim]int{}
	owner := map[string]int{}
	for i := range c.Groups {
		g := &c.Groups[i]
		for _, p := range protos {
			bind := g.Bind.of(p)
			if bind == "" {
				continue
			}
			key := p.Param() + " " + bind
			if j, ok := owner[key]; ok {
				o := &c.Groups[j]
				if g.Advertised.of(p) != o.Advertised.of(p) {
					k.Add(fmt.Sprintf("groups[%d].advertised.%s", i, p.Param()), "differs from that of groups[%d] on "+
						"the same address; bind the groups to different addresses or ports", j)
				}
				if p == transport.TLS && !g.TLS.same(&o.TLS) {
					k.Add(fmt.Sprintf("groups[%d].tls", i), "differs from that of groups[%d] on the same address; "+
						"bind the groups to different addresses or ports", j)
				}
			} else {
				owner[key] = i
			}
			for _, pre := range g.staticSources() {
				cl := claim{p, bind, pre}
				if j, ok := sources[cl]; ok && j != i {
					k.Add(fmt.Sprintf("groups[%d].allowedSources", i), "%s is also a source of groups[%d], and both "+
						"listen on %s %s, so a call from it could belong to either; bind the groups to different "+
						"addresses or ports", pre, j, p.Param(), bind)
					continue
				}
				sources[cl] = i
			}
		}
	}
}

func (t *TLS) same(o *TLS) bool {
	return t.paths() == o.paths() && t.ClientCertificates == o.ClientCertificates
}

// staticSources returns the ranges that the configuration allows: those listed, and the peers' own addresses.
func (g *Group) staticSources() []netip.Prefix {
	var out []netip.Prefix
	add := func(texts []string) {
		for _, t := range texts {
			if p, err := domain.ParsePrefix(t); err == nil {
				out = append(out, p)
			}
		}
	}
	add(g.AllowedSources)
	for i := range g.Peers {
		p := &g.Peers[i]
		add(p.AllowedSources)
		if p.Type != typeIP {
			continue
		}
		host, _, err := hostPort(p.Address)
		if err != nil {
			continue
		}
		if a, err := netip.ParseAddr(host); err == nil {
			out = append(out, netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()))
		}
	}
	return out
}

func (k *checker) within(at string, n, least, most int) {
	if n < least || n > most {
		k.Add(at, "%d is out of range: %d to %d", n, least, most)
	}
}

func (k *checker) prefixes(at string, texts []string) {
	for i, t := range texts {
		if _, err := domain.ParsePrefix(t); err != nil {
			k.Add(fmt.Sprintf("%s[%d]", at, i), "%q: %v", t, err)
		}
	}
}

// hostPort splits "host", "host:port" or "[v6]:port"; port is 0 if there is none.
func hostPort(s string) (host string, port uint16, err error) {
	if err := domain.CheckBrackets(s); err != nil {
		if _, whole := netip.ParseAddr(s); whole == nil {
			err = fmt.Errorf("%w, or \"[%s]\" for an address without a port", err, s)
		}
		return "", 0, err
	}
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return a.String(), 0, nil
	}
	host, text, found := strings.Cut(s, ":")
	if strings.HasPrefix(s, "[") || strings.Contains(text, ":") {
		if host, text, err = net.SplitHostPort(s); err != nil {
			return "", 0, fmt.Errorf("not \"host\" or \"host:port\"")
		}
		found = true
	}
	if found {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil || n == 0 {
			return "", 0, fmt.Errorf("the port must be a number from 1 to 65535")
		}
		port = uint16(n)
	}
	if _, err := netip.ParseAddr(host); err != nil && !hostname(host) {
		return "", 0, fmt.Errorf("%q is neither an address nor a host name", host)
	}
	return host, port, nil
}

// hostname reports whether s is a DNS name, or the name of an SRV record.
func hostname(s string) bool {
	if s == "" || len(s) > 255 {
		return false
	}
	for l := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if !word(l, 63, "-_") {
			return false
		}
	}
	return true
}

// word reports whether s is 1 to limit letters, digits and characters of more.
func word(s string, limit int, more string) bool {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	return s != "" && len(s) <= limit && strings.Trim(s, letters+more) == ""
}

// either fills in the default and checks that there is no third value.
func (k *checker) either(at string, v *string, def, other string) {
	*v = cmp.Or(*v, def)
	if *v != def && *v != other {
		k.Add(at, "%q is neither %s nor %s", *v, def, other)
	}
}

func (k *checker) atLeast(at string, n, low int) {
	if n < low {
		k.Add(at, "must be %d or more", low)
	}
}

func (k *checker) between(at string, d, low, high time.Duration) {
	if d < low || d > high {
		k.Add(at, "must be from %v to %v", low, high)
	}
}

func (k *checker) optional(at string, d, low, high time.Duration) {
	if d != 0 && (d < low || d > high) {
		k.Add(at, "must be 0, or from %v to %v", low, high)
	}
}
