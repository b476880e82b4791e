package graph

import (
	"context"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/wire"
)

// Budget keeps the app below the limits of Graph's identity service (teams-tenant §2, from an older copy of the page
// "Throttling limits"). A bucket never lets more through than a limit allows in its window: a fifth at once,
// the rest evenly. Limits that follow from these (requests per app, writes per tenant of all apps) are not counted.
//
// Other nodes and apps use the same limits. Graph says how full they are, and how long to wait when they are exceeded;
// both slow down the whole tenant. The Teams services publish no limits: there, only such answers count.
type Budget struct {
	app   lane
	mu    sync.Mutex
	lanes map[string]*lane // by tenant, and by tenant + the lane's name
}

const teamsLane = " teams"

// NewBudget returns the budget of one app registration.
func NewBudget() *Budget {
	return &Budget{lanes: map[string]*lane{},
		app: lane{units: bucket(150_000, 20*time.Second), writes: bucket(70_000, 5*time.Minute)}}
}

// lane is what one tenant, or the app, may use of a service.
type lane struct {
	units, writes *rate.Limiter

	mu     sync.Mutex
	paused time.Time // until when, after a 429
	users  int       // of the tenant; 0 if that is not known
}

func bucket(n int, window time.Duration) *rate.Limiter {
	return rate.NewLimiter(steady(n, window), n/5)
}

// steady is the rate at which what the burst leaves of the limit is spent.
func steady(n int, window time.Duration) rate.Limit {
	return rate.Limit(float64(n-n/5) / window.Seconds())
}

// lane returns a tenant's lane; before its size is known, that of a small tenant.
func (b *Budget) lane(tenant, name string) *lane {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.lanes[tenant+name]
	if l == nil {
		l = &lane{units: bucket(3_500, 10*time.Second), writes: bucket(3_000, 150*time.Second)}
		if name == teamsLane {
			l.units, l.writes = rate.NewLimiter(rate.Inf, 0), rate.NewLimiter(rate.Inf, 0)
		}
		b.lanes[tenant+name] = l
	}
	return l
}

// SetUsers sets the limit of a tenant with this number of users: 3,500, 5,000 (from 50) or 8,000 (above 500) resource
// units per 10 s.
func (b *Budget) SetUsers(tenant string, users int) {
	units := 3_500
	switch {
	case users > 500:
		units = 8_000
	case users >= 50:
		units = 5_000
	}
	l := b.lane(tenant, "")
	l.mu.Lock()
	l.users = users
	l.mu.Unlock()
	l.units.SetLimit(steady(units, 10*time.Second))
	l.units.SetBurst(units / 5)
}

func (b *Budget) users(tenant string) int {
	l := b.lane(tenant, "")
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.users
}

// wait blocks until requests may be sent. If that takes longer than wire.MaxWait or ctx, it fails at once.
func (b *Budget) wait(ctx context.Context, tenant string, requests []*wire.Request) error {
	retry, err := b.take(ctx, tenant, requests)
	if err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	return fault.New(fault.Limited, "GraphBudgetUsed", "Microsoft Graph allows no more requests for this tenant now; "+
		"retry").After(retry).Because(err)
}

// take takes what requests cost. With an error it says when to retry.
func (b *Budget) take(ctx context.Context, tenant string, requests []*wire.Request) (time.Duration, error) {
	for _, r := range requests {
		l := b.lane(tenant, r.Lane)
		l.mu.Lock()
		pause := time.Until(l.paused)
		l.mu.Unlock()
		if !wire.InTime(ctx, pause) {
			return pause, context.DeadlineExceeded
		}
		if err := wire.Sleep(ctx, pause); err != nil {
			return 0, err
		}

		for _, l := range []*lane{&b.app, l} {
			if err := l.units.WaitN(ctx, r.Units); err != nil {
				return 10 * time.Second, err
			}
			if !r.Reads() {
				if err := l.writes.Wait(ctx); err != nil {
					return 10 * time.Second, err
				}
			}
		}
	}
	return 0, nil
}

// learn corrects the budget by what the answer to r says.
func (b *Budget) learn(tenant string, r *wire.Request, wait time.Duration) {
	l := b.lane(tenant, r.Lane)
	if r.Status == http.StatusTooManyRequests {
		l.mu.Lock()
		if until := time.Now().Add(wait); until.After(l.paused) {
			l.paused = until
		}
		l.mu.Unlock()
	}
	if r.Lane == teamsLane {
		return
	}

	burst := l.units.Burst()
	if units, err := strconv.Atoi(r.Got.Get("x-ms-resource-unit")); err == nil {
		l.units.ReserveN(time.Now(), min(max(units-r.Units, 0), burst))
	}
	// The percentage is sent from 0.8 on; 1 is the limit. What is left of it is what the bucket may hold.
	if used, err := strconv.ParseFloat(r.Got.Get("x-ms-throttle-limit-percentage"), 64); err == nil && used >= 0.8 {
		left := (1 - math.Min(used, 1.8)) * float64(l.units.Limit()) * 10 / 0.8
		l.units.ReserveN(time.Now(), min(max(int(l.units.Tokens()-left), 0), burst))
	}
}

// cost is what a request is known to cost in resource units (teams-tenant §2); what Graph reports corrects it.
func cost(method, path string) int {
	path, query, _ := strings.Cut(path, "?")
	units := 1
	switch {
	case method != http.MethodGet:
	case strings.HasPrefix(path, "/users"):
		units = 2
	case path == "/subscribedSkus":
		units = 3
	case strings.HasSuffix(path, "/domainNameReferences"):
		units = 4
	}
	if strings.Contains(query, "select=") {
		units--
	}
	return max(units, 1)
}
