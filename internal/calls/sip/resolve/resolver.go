package resolve

import (
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
	set(&c.MaxEntries, 10_000)
	set(&c.Grace, 10*time.Minute)
	set(&c.MaxRefreshes, 64)
	return c
}

func set[T int | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

// Values that no deployment has needed to change.
const (
	minTTL          = time.Second // bounds of a record's time to live
	maxTTL          = 24 * time.Hour
	retryAfter      = 5 * time.Second  // pause after a refresh that failed
	refreshDeadline = 10 * time.Second // for one background refresh with all its queries
)

// anyProto are the transports to try, in order, when a sip URI names none and has no port.
var anyProto = []transport.Proto{transport.UDP, transport.TCP}

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
	sets   []srvSet      // nil until the first good answer
	fresh  time.Time     // when the time to live ends
	soon   time.Time     // when to refresh, ahead of fresh
	gone   time.Time     // since when the name servers say that it does not exist
	retry  time.Time     // no refresh before this, after a failure
	err    error         // of the latest refresh
	asking chan struct{} // not nil while a refresh runs; closed at its end
}

// srvSet is the hosts of one transport.
type srvSet struct {
	proto transport.Proto
	hosts []srvHost // sorted by priority
}

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
	r.m = newMetrics(r)
	if reg != nil {
		if err := reg.Register(r.m); err != nil {
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

// Lookup returns all targets of a query from memory, in the order in which to try them. It never blocks. If there is no
// answer yet it returns false and fetches one in the background, for a later Lookup. Each call draws a new order.
func (r *Resolver) Lookup(q Query) ([]Target, bool) {
	q, err := normal(q)
	if err != nil {
		return nil, false
	}
	if t, ok := r.numeric(q); ok {
		return t, true
	}
	now := time.Now()
	r.mu.Lock()
	e := r.touch(q)
	if !now.Before(e.soon) {
		r.refresh(e, now)
	}
	sets, fresh := e.usable(now, r.cfg.Grace), now.Before(e.fresh)
	r.mu.Unlock()
	switch {
	case sets == nil:
		r.m.miss.Add(1)
		return nil, false
	case fresh:
		r.m.hit.Add(1)
	default:
		r.m.stale.Add(1)
	}
	return r.order(q, sets), true
}

// normal validates a query and returns its canonical form, the key of the cache.
func normal(q Query) (Query, error) {
	q.Host, q.SRV = canonical(q.Host), canonical(q.SRV)
	switch {
	case q.Host == "" && q.SRV == "":
		return q, errors.New("resolve: the query has neither a host nor an SRV name")
	case len(q.Host) > 253 || len(q.SRV) > 253:
		return q, errors.New("resolve: the name is longer than 253 characters")
	case q.Secure && q.Proto != transport.TLS && q.Proto != transport.Unspecified:
		if q.Proto == transport.UDP {
			return q, errors.New("resolve: a sips URI cannot use UDP (RFC 3261 §26.2.2)")
		}
	case q.SRV != "" && q.Proto == transport.Unspecified:
		return q, fmt.Errorf("resolve: SRV name %s needs a transport", q.SRV)
	}
	if q.Secure {
		q.Proto = transport.TLS // sips with transport=tcp is TLS over TCP (RFC 3261 §26.2.2)
	}
	return q, nil
}

// first returns the transport to use without a look-up: the query's, or UDP if it names none (RFC 3263 §4.1).
func first(q Query) transport.Proto {
	if q.Proto != transport.Unspecified {
		return q.Proto
	}
	return transport.UDP
}

func (r *Resolver) numeric(q Query) ([]Target, bool) {
	if q.SRV != "" || q.Host == "" {
		return nil, false
	}
	if c := q.Host[len(q.Host)-1]; (c < '0' || c > '9') && (c < 'a' || c > 'f') && c != ':' {
		return nil, false // no address ends like this: skip the parser
	}
	a, err := netip.ParseAddr(q.Host)
	if err != nil {
		return nil, false
	}
	p := first(q)
	port := q.Port
	if port == 0 {
		port = p.DefaultPort()
	}
	return []Target{{Proto: p, Addr: netip.AddrPortFrom(a.Unmap(), port), Name: q.Host, Host: q.Host}}, true
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

func (e *entry) usable(now time.Time, grace time.Duration) []srvSet {
	if !e.gone.IsZero() && now.Sub(e.gone) > grace {
		return nil
	}
	return e.sets
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
	old := e.sets
	r.wg.Go(func() {
		ctx, cancel := context.WithTimeout(r.ctx, refreshDeadline)
		defer cancel()
		sets, ttl, err := r.fetch(ctx, e.key, old)
		r.store(e, sets, ttl, err)
	})
}

func (r *Resolver) store(e *entry, sets []srvSet, ttl time.Duration, err error) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inflight--
	close(e.asking)
	e.asking = nil
	e.err = err
	if err == nil {
		ttl = min(max(ttl, minTTL), maxTTL)
		e.sets, e.gone, e.retry = sets, time.Time{}, time.Time{}
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
		r.log.Warn("DNS look-up failed", "host", e.key.Host, "srv", e.key.SRV, "kept_old_answer", e.sets != nil,
			"retry_in", pause, "err", err)
	}
}

// order flattens the sets into targets: transports in the order of the sets, SRV order within each.
func (r *Resolver) order(q Query, sets []srvSet) []Target {
	n := 0
	for _, s := range sets {
		for _, h := range s.hosts {
			n += len(h.addrs)
		}
	}
	out := make([]Target, 0, n)
	for _, s := range sets {
		for _, h := range pick(s.hosts) {
			name := q.Host
			if name == "" {
				name = h.host
			}
			for _, a := range h.addrs {
				out = append(out, Target{Proto: s.proto, Addr: netip.AddrPortFrom(a, h.port), Name: name, Host: h.host,
					Priority: h.priority, Weight: h.weight})
			}
		}
	}
	return out
}
