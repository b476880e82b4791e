package auth

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"golang.org/x/time/rate"

	"github.com/tandemgw/tandem/internal/platform/listen"
)

// Limiter allows a number of requests per period, shared by all nodes: the generic cell rate algorithm (ITU-T I.371
// annex A) on one stored number, the time at which the limit's bucket would be empty. The requests of a full period may
// arrive at once.
//
// While the store is unavailable each node limits on its own: at worst the limit is multiplied by the number of nodes,
// at a time when nothing can be written anyway. Limiter is safe for concurrent use.
type Limiter struct {
	store  LimitStore // nil on a single node
	key    string
	period time.Duration
	step   atomic.Int64 // nanoseconds: period divided by requests
	log    *slog.Logger
	asked  *prometheus.CounterVec

	turn chan struct{} // a semaphore of one: requests of this node use the store in turn, so that only nodes race

	mu    sync.Mutex // guards what follows
	local int64      // the bucket used without a store, microseconds
	full  int64      // until when the shared bucket is known to be full, microseconds
	down  bool       // the store is unavailable
}

// limitTimeout bounds the time spent on the store, including races lost against other nodes.
const limitTimeout = 2 * time.Second

// NewLimiter returns a limiter of requests per period. key names it in the store; store may be nil on a single node.
func NewLimiter(store LimitStore, key string, requests int, period time.Duration, log *slog.Logger,
	reg prometheus.Registerer) *Limiter {
	l := &Limiter{store: store, key: key, period: period, log: log, turn: make(chan struct{}, 1),
		asked: promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
			Name:        "tandem_auth_limit_total",
			Help:        "Requests checked against the rate limit, by verdict and by the limit used (shared or local).",
			ConstLabels: prometheus.Labels{"limit": key},
		}, []string{"verdict", "by"})}
	l.SetRequests(requests)
	return l
}

// SetRequests changes the limit to that many requests per period.
func (l *Limiter) SetRequests(n int) {
	l.step.Store(int64(max(l.period/time.Duration(n), time.Microsecond)))
}

// take is the algorithm. tat and now are in microseconds; it returns the new state, or how long to wait.
func (l *Limiter) take(tat, now int64) (next int64, wait time.Duration) {
	next = max(tat, now) + time.Duration(l.step.Load()).Microseconds()
	if over := next - now - l.period.Microseconds(); over > 0 {
		return tat, time.Duration(over) * time.Microsecond
	}
	return next, 0
}

// Allow counts a request against the limit. It returns 0 if the request may proceed, else how long to wait.
func (l *Limiter) Allow(ctx context.Context) time.Duration {
	wait, by := l.allow(ctx)
	verdict := "allowed"
	if wait > 0 {
		verdict = "limited"
	}
	l.asked.WithLabelValues(verdict, by).Inc()
	return wait
}

func (l *Limiter) allow(ctx context.Context) (wait time.Duration, by string) {
	if l.store == nil {
		return l.allowLocal(), "local"
	}
	if wait := l.known(); wait > 0 {
		return wait, "shared"
	}
	ctx, cancel := context.WithTimeout(ctx, limitTimeout)
	defer cancel()
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return l.allowLocal(), "local"
	}
	if wait := l.known(); wait > 0 { // learnt by an earlier request
		return wait, "shared"
	}
	var err error
	for ctx.Err() == nil {
		var tat int64
		if tat, err = l.store.LimitState(ctx, l.key); err != nil {
			break
		}
		now := time.Now().UnixMicro()
		from := tat
		if tat > now+2*l.period.Microseconds() {
			from = 0 // written with a clock that was far ahead: it must not block all requests
		}
		next, wait := l.take(from, now)
		if wait > 0 {
			l.mu.Lock()
			l.full = now + wait.Microseconds()
			l.mu.Unlock()
			l.reachable(true, nil)
			return wait, "shared"
		}
		var swapped bool
		if swapped, err = l.store.SwapLimitState(ctx, l.key, tat, next); err != nil {
			break
		}
		if swapped {
			l.reachable(true, nil)
			_ = l.allowLocal() // count it locally too, in case the store becomes unavailable
			return 0, "shared"
		}
	}
	if err != nil {
		l.reachable(false, err)
	}
	return l.allowLocal(), "local"
}

// known returns how long to wait if the limit is known to be exhausted. The stored number only grows, so a known
// refusal remains valid: a flood is refused without the database.
func (l *Limiter) known() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(0, time.Duration(l.full-time.Now().UnixMicro())*time.Microsecond)
}

func (l *Limiter) allowLocal() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	next, wait := l.take(l.local, time.Now().UnixMicro())
	l.local = next
	return wait
}

func (l *Limiter) reachable(ok bool, err error) {
	l.mu.Lock()
	changed := l.down == ok
	l.down = !ok
	l.mu.Unlock()
	switch {
	case changed && ok:
		l.log.Info("rate-limit store available again; limiting across all nodes")
	case changed:
		l.log.Warn("rate-limit store unavailable; limiting on this node only", "error", err)
	}
}

// maxSources is how many sources a SourceLimiter remembers.
const maxSources = 10_000

// SourceLimiter limits how often each source address (IPv6: each /64) may do something on this node. It is bounded: of
// more than 10,000 sources that have used a part of their limit it forgets all, because who has that many addresses is
// not held back by a limit for one. It is safe for concurrent use.
type SourceLimiter struct {
	mu      sync.Mutex // guards what follows
	most    int        // at once
	step    time.Duration
	sources map[netip.Addr]*rate.Limiter
}

// NewSourceLimiter returns a limiter of n requests per minute from each source. All of them may arrive at once.
func NewSourceLimiter(n int) *SourceLimiter {
	l := &SourceLimiter{}
	l.SetRequests(n)
	return l
}

// SetRequests changes the limit to n requests per minute from each source, and forgets what was counted.
func (l *SourceLimiter) SetRequests(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.most, l.step, l.sources = n, time.Minute/time.Duration(n), map[netip.Addr]*rate.Limiter{}
}

// Allow counts a request from a. It returns 0 if the request may proceed, else how long to wait, and counts nothing.
func (l *SourceLimiter) Allow(a netip.Addr) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	wait := l.wait(a)
	if wait == 0 {
		l.count(a)
	}
	return wait
}

// blocked returns how long a must wait, 0 if it need not.
func (l *SourceLimiter) blocked(a netip.Addr) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.wait(a)
}

// failed counts against a, also beyond its limit: sign-ins that began together.
func (l *SourceLimiter) failed(a netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count(a)
}

// wait returns how long a must wait. l.mu is held.
func (l *SourceLimiter) wait(a netip.Addr) time.Duration {
	s := l.sources[listen.Widen(a)]
	if s == nil {
		return 0
	}
	wait := time.Duration((1 - s.Tokens()) * float64(l.step))
	return max(0, wait.Round(time.Millisecond))
}

// count counts against a. l.mu is held.
func (l *SourceLimiter) count(a netip.Addr) {
	a = listen.Widen(a)
	if l.sources[a] == nil && len(l.sources) >= maxSources {
		maps.DeleteFunc(l.sources, func(_ netip.Addr, s *rate.Limiter) bool { return s.Tokens() >= float64(l.most) })
		if len(l.sources) >= maxSources {
			clear(l.sources) // a flood from many addresses: forgetting is better than growing
		}
	}
	if l.sources[a] == nil {
		l.sources[a] = rate.NewLimiter(rate.Every(l.step), l.most)
	}
	l.sources[a].Reserve()
}
