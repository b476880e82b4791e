package check

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/tandemgw/tandem/internal/zone"
)

// Resolver is what is asked for the name servers of the parent zone; *net.Resolver implements it.
type Resolver interface {
	LookupNS(ctx context.Context, name string) ([]*net.NS, error)
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Parents are the name servers of the parent zone.
type Parents struct {
	// At are their addresses. If there are none, they are looked up.
	At     []netip.AddrPort
	Lookup Resolver
}

// present returns the servers. The error says why none is known.
func (p *Parents) present(ctx context.Context, origin string) ([]Server, error) {
	var all []Server
	for _, a := range p.At {
		all = append(all, Server{Name: "parent", Addr: a})
	}
	if len(all) > 0 {
		return all, nil
	}

	ctx, cancel := context.WithTimeout(ctx, 5*wait)
	defer cancel()
	err := fmt.Errorf("%s has no parent", origin)
	for above := origin; dns.CountLabel(above) > 1; { // the zone above may begin further up
		above = above[strings.IndexByte(above, '.')+1:]
		var list []*net.NS
		var none *net.DNSError
		if list, err = p.Lookup.LookupNS(ctx, above); errors.As(err, &none) && none.IsNotFound {
			continue
		}
		for _, ns := range list {
			var as []netip.Addr
			if as, err = p.Lookup.LookupNetIP(ctx, "ip", ns.Host); err != nil {
				continue
			}
			for _, a := range routed(ports(as)) {
				all = append(all, Server{strings.TrimSuffix(ns.Host, "."), a})
			}
		}
		break
	}
	if len(all) > 0 {
		err = nil
	}

	return all, err
}

// check asks the parent zone's name servers about the delegation of a zone to hosts, and returns which it asked.
func (p *Parents) check(ctx context.Context, origin string, hosts []zone.Host) ([]Server, []Finding) {
	servers, err := p.present(ctx, origin)
	if err != nil {
		return nil, []Finding{{Server: Server{Name: "parent"}, Problem: Unreachable,
			Text: "the name servers of the parent zone are not known: " + err.Error()}}
	}
	found := make([][]Finding, len(servers))
	each(servers, func(i int, s Server) { found[i] = delegation(ctx, s, origin, hosts) })

	return servers, slices.Concat(found...)
}

// delegation returns what is wrong with the delegation of a zone at a server of its parent.
func delegation(ctx context.Context, s Server, origin string, hosts []zone.Host) []Finding {
	r, err := Ask(ctx, s.Addr, origin, dns.TypeNS)
	if err != nil {
		return []Finding{{Server: s, Problem: Unreachable, Text: err.Error()}}
	}
	var all []Finding
	bad := func(p Problem, kind uint16, format string, args ...any) {
		all = append(all, Finding{s, p, origin, dns.TypeToString[kind], fmt.Sprintf(format, args...)})
	}
	listed := map[string]bool{}
	for _, rr := range slices.Concat(r.Answer, r.Ns) { // a referral has them in the authority section
		if x, ok := rr.(*dns.NS); ok && dns.CanonicalName(x.Hdr.Name) == origin {
			listed[dns.CanonicalName(x.Ns)] = true
		}
	}
	if len(listed) == 0 {
		bad(Delegation, dns.TypeNS, "the parent zone delegates %s to nobody (it answers %s)", origin,
			dns.RcodeToString[r.Rcode])
		return all
	}

	for _, h := range hosts {
		name := dns.CanonicalName(h.Name)
		if !listed[name] {
			bad(Delegation, dns.TypeNS, "the parent zone does not list %s, which is one of zone.nameServers", h.Name)
			continue
		}
		delete(listed, name)
		if len(h.Addresses) == 0 {
			continue // a name outside the zone
		}
		var glue []dns.RR
		for _, rr := range r.Extra {
			if dns.CanonicalName(rr.Header().Name) == name {
				glue = append(glue, rr)
			}
		}
		var want []netip.Addr
		for _, a := range h.Addresses {
			want = append(want, netip.MustParseAddr(a).Unmap()) // validated
		}
		have := addresses(glue)
		slices.SortFunc(have, netip.Addr.Compare)
		slices.SortFunc(want, netip.Addr.Compare)
		if !slices.Equal(slices.Compact(have), slices.Compact(want)) {
			bad(Glue, dns.TypeA, "the parent zone has the addresses %v of %s; zone.nameServers has %v", have, h.Name,
				want)
		}
	}
	for name := range listed {
		bad(Delegation, dns.TypeNS, "the parent zone lists %s, which is not one of zone.nameServers",
			strings.TrimSuffix(name, "."))
	}

	ds, err := Ask(ctx, s.Addr, origin, dns.TypeDS)
	switch {
	case err != nil:
		all = append(all, Finding{Server: s, Problem: Unreachable, Text: err.Error()})
	case slices.ContainsFunc(ds.Answer, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeDS }):
		bad(Signed, dns.TypeDS, "the parent zone has a DS record: resolvers that validate refuse the zone, which is "+
			"not signed")
	}

	return all
}
