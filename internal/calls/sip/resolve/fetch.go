package resolve

import (
	"cmp"
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
// old, the answer to be replaced, so that one host that fails does not affect the others.
func (r *Resolver) fetch(ctx context.Context, q Query, old []srvHost) ([]srvHost, time.Duration, error) {
	if q.Port != 0 && q.SRV == "" {
		// RFC 3263 §4.2: no SRV look-up with a port.
		return r.addresses(ctx, q.Host, q.Port)
	}
	srvs, ttl, err := r.srv(ctx, q)
	switch {
	case err == nil:
		hosts, addrTTL, err := r.hosts(ctx, srvs, old)
		return hosts, min(ttl, addrTTL), err
	case errors.Is(err, ErrNotFound) && q.SRV != "":
		return nil, ttl, fmt.Errorf("SRV %s: %w", q.SRV, ErrNotFound)
	case errors.Is(err, ErrNotFound):
		// RFC 3263 §4.2: no SRV records, so the host's addresses at the default port.
		return r.addresses(ctx, q.Host, q.Proto.DefaultPort())
	case len(old) > 0 && old[0].priority|old[0].weight != 0:
		return old, retryAfter, nil // from SRV records
	}
	return nil, 0, err
}

// srvNames returns the names of the SRV records for a query. "_sip._tls" is not in RFC 3263, but Microsoft's and many
// operators' networks publish it, so it is queried when there is no "_sips._tcp".
func srvNames(q Query) []string {
	switch {
	case q.SRV != "":
		return []string{q.SRV}
	case q.Proto == transport.TLS:
		return []string{"_sips._tcp." + q.Host, "_sip._tls." + q.Host}
	}
	return []string{"_sip._" + q.Proto.Param() + "." + q.Host}
}

// srv returns the SRV records for a query, sorted by priority.
func (r *Resolver) srv(ctx context.Context, q Query) ([]SRV, time.Duration, error) {
	neg := maxTTL
	for _, name := range srvNames(q) {
		srvs, ttl, err := r.dns.LookupSRV(ctx, name)
		if err == nil {
			slices.SortStableFunc(srvs, func(a, b SRV) int { return cmp.Compare(a.Priority, b.Priority) })
			return srvs[:min(len(srvs), maxSRV)], ttl, nil
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
		out = append(out, srvHost{host: s.Host, port: s.Port, priority: s.Priority, weight: s.Weight,
			addrs: addrs[:min(len(addrs), maxAddrs)]})
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
func (r *Resolver) addresses(ctx context.Context, host string, port uint16) ([]srvHost, time.Duration, error) {
	addrs, ttl, err := r.dns.LookupAddr(ctx, host, r.cfg.IPv6)
	if err != nil {
		return nil, ttl, err
	}
	return []srvHost{{host: host, port: port, addrs: addrs[:min(len(addrs), maxAddrs)]}}, ttl, nil
}
