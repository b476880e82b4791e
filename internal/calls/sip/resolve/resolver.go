package resolve

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/calls/sip/transport"
)

// Config sets the bounds of a [Resolver]. The zero value is usable.
type Config struct {
	// IPv6 turns on queries for AAAA records. Default false: IPv4 only.
	IPv6 bool
	// MaxEntries bounds the queries in the cache; above it the least recently used one is dropped. 0 means 10,000.
	MaxEntries int
	// Grace is how long a good answer stays in use after the name servers say that the name no longer exists, so that a
	// mistake in a zone does not stop calls at once; 0 means 10 min. While the name servers do not answer at all, an
	// answer is kept forever.
	Grace time.Duration
	// MaxRefreshes bounds the refreshes that run at once; 0 means 64. Above it a look-up does not start another.
	MaxRefreshes int
}

func (c Config) withDefaults() Config {
	c.MaxEntries = cmp.Or(c.MaxEntries, 10_000)
	c.Grace = cmp.Or(c.Grace, 10*time.Minute)
	c.MaxRefreshes = cmp.Or(c.MaxRefreshes, 64)
	return c
}

// Values that no deployment has needed to change.
const (
	minTTL          = time.Second // bounds of a record's time to live
	maxTTL          = 24 * time.Hour
	retryAfter      = 5 * time.Second  // pause after a refresh that failed
	refreshDeadline = 10 * time.Second // for one background refresh with all its queries
)

// Maximum number of records used of one answer; the rest is ignored, so that an unusual zone cannot fill memory.
const (
	maxSRV   = 64
	maxAddrs = 16
)

// Resolver answers queries from a bounded cache that it refreshes itself. It is safe for concurrent use.
type Resolver struct {
	cfg Config
	dns DNS
	log *slog.Logger
	m   metrics

	ctx    context.Context // of the refreshes; cancelled by Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex // guards the fields below, and the entries
	entries  map[Query]*entry
	used     *list.List // of *entry, most recently used first
	inflight int
	closed   bool
}

// entry is the cached answer to one query.
type entry struct {
	key    Query
	at     *list.Element
	hosts  []srvHost     // sorted by priority; nil until the first good answer
	fresh  time.Time     // when the time to live ends
	soon   time.Time     // when to refresh, ahead of fresh
	gone   time.Time     // since when the name servers say that it does not exist
	retry  time.Time     // no refresh before this, after a failure
	asking chan struct{} // not nil while a refresh runs; closed at its end
}

// srvHost is the target of an SRV record, or the host of the query, with its addresses.
type srvHost struct {
	host             string
	port             uint16
	priority, weight uint16
	addrs            []netip.Addr
}

// New returns a resolver. Its metrics are registered with reg unless that is nil.
func New(cfg Config, dns DNS, log *slog.Logger, reg prometheus.Registerer) (*Resolver, error) {
	if dns == nil {
		return nil, errors.New("resolver needs a DNS client")
	}
	r := &Resolver{cfg: cfg.withDefaults(), dns: dns, log: log, entries: map[Query]*entry{}, used: list.New()}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.m.resolver = r
	if reg != nil {
		if err := reg.Register(&r.m); err != nil {
			r.cancel()
			return nil, fmt.Errorf("register resolver metrics: %w", err)
		}
	}
	return r, nil
}

// Close cancels the refreshes and waits for them to end. Lookup still answers from memory afterwards.
func (r *Resolver) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cancel()
	r.wg.Wait()
}

// Lookup returns all addresses for a query from memory, in the order in which to try them. It never blocks. If there is
// no answer yet it returns false and fetches one in the background, for a later Lookup. Each call draws a new order.
func (r *Resolver) Lookup(q Query) ([]netip.AddrPort, bool) {
	q, ok := normal(q)
	if !ok {
		return nil, false
	}
	if a, ok := numeric(q); ok {
		return []netip.AddrPort{a}, true
	}
	now := time.Now()
	r.mu.Lock()
	e := r.touch(q)
	if !now.Before(e.soon) {
		r.refresh(e, now)
	}
	hosts, fresh := e.usable(now, r.cfg.Grace), now.Before(e.fresh)
	r.mu.Unlock()
	switch {
	case hosts == nil:
		r.m.miss.Add(1)
		return nil, false
	case fresh:
		r.m.hit.Add(1)
	default:
		r.m.stale.Add(1)
	}
	return order(hosts), true
}

// normal returns the canonical form of a query, the key of the cache; ok is false if the query makes no sense.
func normal(q Query) (_ Query, ok bool) {
	q.Host, q.SRV = canonical(q.Host), canonical(q.SRV)
	return q, (q.Host != "" || q.SRV != "") && len(q.Host) <= 253 && len(q.SRV) <= 253 &&
		q.Proto != transport.Unspecified
}

// numeric returns the address of a query for one.
func numeric(q Query) (_ netip.AddrPort, ok bool) {
	if q.SRV != "" {
		return netip.AddrPort{}, false
	}
	if c := q.Host[len(q.Host)-1]; (c < '0' || c > '9') && (c < 'a' || c > 'f') && c != ':' {
		return netip.AddrPort{}, false // no address ends like this: skip the parser
	}
	a, err := netip.ParseAddr(q.Host)
	return netip.AddrPortFrom(a.Unmap(), cmp.Or(q.Port, q.Proto.DefaultPort())), err == nil
}

// touch returns the entry of a query, creating it if it is new. r.mu is held.
func (r *Resolver) touch(q Query) *entry {
	if e := r.entries[q]; e != nil {
		r.used.MoveToFront(e.at)
		return e
	}
	if len(r.entries) >= r.cfg.MaxEntries {
		old := r.used.Remove(r.used.Back()).(*entry)
		delete(r.entries, old.key)
		r.m.evicted.Add(1)
	}
	e := &entry{key: q}
	e.at = r.used.PushFront(e)
	r.entries[q] = e
	return e
}

func (e *entry) usable(now time.Time, grace time.Duration) []srvHost {
	if !e.gone.IsZero() && now.Sub(e.gone) > grace {
		return nil
	}
	return e.hosts
}

// refresh starts a refresh of e unless one is running, one has just failed, or too many are running. r.mu is held.
func (r *Resolver) refresh(e *entry, now time.Time) {
	if e.asking != nil || r.closed || now.Before(e.retry) {
		return
	}
	if r.inflight >= r.cfg.MaxRefreshes {
		r.m.skipped.Add(1)
		return
	}
	r.inflight++
	e.asking = make(chan struct{})
	old := e.hosts
	r.wg.Go(func() {
		ctx, cancel := context.WithTimeout(r.ctx, refreshDeadline)
		defer cancel()
		hosts, ttl, err := r.fetch(ctx, e.key, old)
		r.store(e, hosts, ttl, err)
	})
}

func (r *Resolver) store(e *entry, hosts []srvHost, ttl time.Duration, err error) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inflight--
	close(e.asking)
	e.asking = nil
	if err == nil {
		ttl = min(max(ttl, minTTL), maxTTL)
		e.hosts, e.gone, e.retry = hosts, time.Time{}, time.Time{}
		e.fresh = now.Add(ttl)
		e.soon = now.Add(ttl * 4 / 5) // ahead of time, so that a name in use does not go stale
		r.m.ok.Add(1)
		return
	}
	r.m.failed.Add(1)
	pause := retryAfter
	if errors.Is(err, ErrNotFound) {
		if e.gone.IsZero() {
			e.gone = now
		}
		pause = min(max(ttl, pause), 5*time.Minute)
	}
	e.retry = now.Add(pause)
	if r.log != nil && r.ctx.Err() == nil {
		r.log.Warn("DNS look-up failed", "host", e.key.Host, "srv", e.key.SRV, "kept_old_answer", e.hosts != nil,
			"retry_in", pause, "err", err)
	}
}

// order returns the addresses of all hosts, in SRV order.
func order(hosts []srvHost) []netip.AddrPort {
	out := make([]netip.AddrPort, 0, 2*len(hosts))
	for _, h := range pick(hosts) {
		for _, a := range h.addrs {
			out = append(out, netip.AddrPortFrom(a, h.port))
		}
	}
	return out
}
