package resolve

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/tandemgw/tandem/internal/calls/sip/transport"
)

// fetch gets all records that one query needs from the name servers. Records that are unavailable now are taken from
// old, the answer to be replaced, so that one host or transport that fails does not affect the others.
func (r *Resolver) fetch(ctx context.Context, q Query, old []srvSet) ([]srvSet, time.Duration, error) {
	if q.Port != 0 && q.SRV == "" {
		// RFC 3263 §4.2: no SRV look-up with a port.
		return r.addresses(ctx, first(q), q.Host, q.Port, old)
	}
	protos := []transport.Proto{q.Proto}
	if q.Proto == transport.Unspecified {
		protos = anyProto
	}
	var sets []srvSet
	var failed error
	ttl := maxTTL
	neg := maxTTL
	for _, p := range protos {
		srvs, t, err := r.srv(ctx, q, p)
		switch {
		case err == nil:
			hosts, ht, err := r.hosts(ctx, srvs, setOf(old, p))
			if err != nil {
				if !errors.Is(err, ErrNotFound) {
					failed = err
				} else if failed == nil {
					failed = err
				}
				continue
			}
			ttl = min(ttl, t, ht)
			sets = append(sets, srvSet{proto: p, hosts: hosts})
		case errors.Is(err, ErrNotFound):
			neg = min(neg, t)
		default:
			failed = err
			if s := setOf(old, p); s != nil && s[0].priority|s[0].weight != 0 {
				sets = append(sets, srvSet{proto: p, hosts: s})
				ttl = min(ttl, retryAfter)
			}
		}
	}
	switch {
	case len(sets) > 0:
		if failed != nil {
			ttl = min(ttl, retryAfter) // part of it is missing or old: retry soon
		}
		return sets, ttl, nil
	case failed != nil:
		return nil, 0, failed
	case q.SRV != "":
		return nil, neg, fmt.Errorf("SRV %s: %w", q.SRV, ErrNotFound)
	}
	// RFC 3263 §4.2: no SRV records, so the host's addresses at the default port.
	p := first(q)
	return r.addresses(ctx, p, q.Host, p.DefaultPort(), old)
}

func setOf(sets []srvSet, p transport.Proto) []srvHost {
	for _, s := range sets {
		if s.proto == p && len(s.hosts) > 0 {
			return s.hosts
		}
	}
	return nil
}

// srvNames returns the names of the SRV records for a transport. "_sip._tls" is not in RFC 3263, but Microsoft's and
// many operators' networks publish it, so it is queried when there is no "_sips._tcp".
func srvNames(q Query, p transport.Proto) []string {
	switch {
	case q.SRV != "":
		return []string{q.SRV}
	case p == transport.TLS:
		return []string{"_sips._tcp." + q.Host, "_sip._tls." + q.Host}
	case p == transport.TCP:
		return []string{"_sip._tcp." + q.Host}
	}
	return []string{"_sip._udp." + q.Host}
}

// srv returns the SRV records of a transport, sorted by priority.
func (r *Resolver) srv(ctx context.Context, q Query, p transport.Proto) ([]SRV, time.Duration, error) {
	neg := maxTTL
	for _, name := range srvNames(q, p) {
		srvs, ttl, err := r.dns.LookupSRV(ctx, name)
		if err == nil {
			slices.SortStableFunc(srvs, func(a, b SRV) int { return int(a.Priority) - int(b.Priority) })
			if len(srvs) > maxSRV {
				srvs = srvs[:maxSRV]
			}
			return srvs, ttl, nil
		}
		if !errors.Is(err, ErrNotFound) {
			return nil, 0, err
		}
		neg = min(neg, ttl)
	}
	return nil, neg, ErrNotFound
}

// hosts returns the SRV targets with their addresses, looked up several at a time.
func (r *Resolver) hosts(ctx context.Context, srvs []SRV, old []srvHost) ([]srvHost, time.Duration, error) {
	type result struct {
		addrs []netip.Addr
		ttl   time.Duration
		err   error
	}
	res := make([]result, len(srvs))
	sem := make(chan struct{}, 8)
	var wg sync.WaitGroup
	for i, s := range srvs {
		if s.Host == "" { // the target "." means that the service is not offered (RFC 2782)
			res[i].err = ErrNotFound
			continue
		}
		sem <- struct{}{}
		wg.Go(func() {
			defer func() { <-sem }()
			a, t, err := r.dns.LookupAddr(ctx, s.Host, r.cfg.IPv6)
			res[i] = result{a, t, err}
		})
	}
	wg.Wait()
	ttl := maxTTL
	var out []srvHost
	var failed error
	for i, s := range srvs {
		addrs, err := res[i].addrs, res[i].err
		if err != nil && !errors.Is(err, ErrNotFound) {
			failed = err
			ttl = min(ttl, retryAfter)
			addrs = addrsOf(old, s.Host)
		} else if err == nil {
			ttl = min(ttl, res[i].ttl)
		}
		if len(addrs) == 0 {
			continue
		}
		if len(addrs) > maxAddrs {
			addrs = addrs[:maxAddrs]
		}
		out = append(out, srvHost{host: s.Host, port: s.Port, priority: s.Priority, weight: s.Weight, addrs: addrs})
	}
	switch {
	case len(out) > 0:
		return out, ttl, nil
	case failed != nil:
		return nil, 0, failed
	}
	return nil, 0, fmt.Errorf("no target of the SRV records has an address: %w", ErrNotFound)
}

func addrsOf(old []srvHost, host string) []netip.Addr {
	for _, h := range old {
		if h.host == host {
			return h.addrs
		}
	}
	return nil
}

// addresses returns the answer made from a host's addresses alone.
func (r *Resolver) addresses(ctx context.Context, p transport.Proto, host string, port uint16,
	_ []srvSet) ([]srvSet, time.Duration, error) {
	addrs, ttl, err := r.dns.LookupAddr(ctx, host, r.cfg.IPv6)
	if err != nil {
		return nil, ttl, err
	}
	if len(addrs) > maxAddrs {
		addrs = addrs[:maxAddrs]
	}
	return []srvSet{{proto: p, hosts: []srvHost{{host: host, port: port, addrs: addrs}}}}, ttl, nil
}
