package check

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/tandemgw/tandem/internal/zone"
)

const (
	port = 53
	// lookEvery is how often the addresses of hosts outside the zone are looked up.
	lookEvery = 5 * time.Minute
)

// Servers are the name servers of a zone, as the configuration lists them. It is safe for concurrent use.
type Servers struct {
	hosts  []zone.Host
	lookup func(ctx context.Context, host string) ([]netip.Addr, error)

	mu    sync.Mutex // held during look-ups
	known map[string]known
}

// known are the addresses of a host outside the zone.
type known struct {
	addresses []netip.Addr
	until     time.Time
}

// NewServers returns the servers of a valid configuration. lookup returns the addresses of a host outside the zone; nil
// for the system's resolver.
func NewServers(hosts []zone.Host, lookup func(context.Context, string) ([]netip.Addr, error)) *Servers {
	if lookup == nil {
		lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}

	return &Servers{hosts: hosts, lookup: lookup, known: map[string]known{}}
}

// Present returns each address at which a name server is asked, in the order of the configuration. A host without one
// is among them without an address, and a finding says why. An address of a family for which this machine has no route
// is left out if its host has another.
func (s *Servers) Present(ctx context.Context) ([]Server, []Finding) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Server
	var bad []Finding
	for _, h := range s.hosts {
		var at []netip.AddrPort
		for _, a := range h.CheckAt {
			at = append(at, netip.MustParseAddrPort(a)) // validated
		}
		var err error
		if len(at) == 0 {
			at, err = s.addresses(ctx, h)
		}
		if err != nil {
			x := Server{Name: h.Name}
			all, bad = append(all, x), append(bad, Finding{Server: x, Problem: Unreachable,
				Text: "its address is not known: " + err.Error()})
			continue
		}
		for _, a := range routed(at) {
			if x := (Server{h.Name, a}); !slices.Contains(all, x) {
				all = append(all, x)
			}
		}
	}

	return all, bad
}

// addresses returns the addresses of a host, port 53. While the resolver fails, those of the last time are used.
func (s *Servers) addresses(ctx context.Context, h zone.Host) ([]netip.AddrPort, error) {
	var list []netip.Addr
	for _, a := range h.Addresses {
		list = append(list, netip.MustParseAddr(a)) // validated
	}
	if len(list) == 0 {
		k := s.known[h.Name]
		if now := time.Now(); !now.Before(k.until) {
			ctx, cancel := context.WithTimeout(ctx, 2*wait)
			found, err := s.lookup(ctx, h.Name)
			cancel()
			var gone *net.DNSError
			switch {
			case err == nil && len(found) > 0:
				k = known{found, now.Add(lookEvery)}
				s.known[h.Name] = k
			case errors.As(err, &gone) && gone.IsNotFound, len(k.addresses) == 0:
				delete(s.known, h.Name)
				if err == nil {
					err = errors.New("it has none")
				}
				return nil, err
			}
		}
		list = k.addresses
	}

	return ports(list), nil
}

// ports returns the addresses of hosts, port 53.
func ports(hosts []netip.Addr) []netip.AddrPort {
	at := make([]netip.AddrPort, len(hosts))
	for i, a := range hosts {
		at[i] = netip.AddrPortFrom(a.Unmap(), port)
	}

	return at
}

// routed returns the addresses for which there is a route, or all if there is none for any. Nothing is sent.
func routed(at []netip.AddrPort) []netip.AddrPort {
	if len(at) < 2 {
		return at
	}
	var list []netip.AddrPort
	for _, a := range at {
		if c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(a)); err == nil {
			_ = c.Close() // nothing was sent
			list = append(list, a)
		}
	}
	if len(list) == 0 {
		return at
	}

	return list
}
