package check

import (
	"net/netip"
	"strings"
	"sync"

	"github.com/miekg/dns"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/zone"
)

// names says what name servers should answer for the labels of customers.
type names struct {
	origin    string
	regions   []string       // labels of Direct Routing
	addresses [][]netip.Addr // by region; empty if any will do
}

func newNames(n *zone.Names, base string, regions []string) *names {
	x := &names{origin: dns.CanonicalName(base), regions: regions, addresses: make([][]netip.Addr, len(regions))}
	if len(n.Regions) > 0 {
		x.regions = regions[:len(n.Regions)]
	}
	for i := range n.Regions {
		x.addresses[i] = n.Regions[i].DirectRouting()
	}

	return x
}

// of returns the names of a label, one in each region.
func (x *names) of(l domain.Label) []Name {
	list := make([]Name, len(x.regions))
	for i, region := range x.regions {
		list[i] = Name{Name: strings.ToLower(l.Subdomain) + "." + region + "." + x.origin,
			Addresses: x.addresses[i], Text: l.Tokens()[i]}
	}

	return list
}

// each calls fn for all items at the same time, and returns when all calls have.
func each[T any](all []T, fn func(int, T)) {
	var running sync.WaitGroup
	for i, x := range all {
		running.Go(func() { fn(i, x) })
	}
	running.Wait()
}
