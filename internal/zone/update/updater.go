package update

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/zone"
)

// Entry is a record that Tandem has published in the operator's zone, or is about to publish. Its name is complete,
// without the final dot.
type Entry struct {
	zone.Record
	There bool // it was seen in the zone; else it may be there or not
}

// Store holds the records of the zone and those that were published. Its methods are safe for concurrent use.
type Store interface {
	View(ctx context.Context, fn func(context.Context, zone.Reader) error) error
	// Published returns the entries of all published records.
	Published(ctx context.Context) ([]Entry, error)
	// SavePublished stores entries and removes others, in one transaction of a run.
	SavePublished(ctx context.Context, run *flow.Run, put, drop []Entry) error
}

// Work returns the key of the updater's work, so that a new version of the zone can wake it. There is one for all
// records, so that one node at a time does it.
func Work() flow.Key { return flow.Key{Kind: "zone-update", ID: "all"} }

const (
	// checkEvery is how often it is checked that the records that were published are still there.
	checkEvery = 5 * time.Minute
	// runFor bounds a run.
	runFor = 4 * time.Minute
	// Times until a failed run is repeated.
	leastWait = time.Second
	mostWait  = time.Minute
)

// Updater keeps the records of the zone in the operator's zone.
type Updater struct {
	base, origin string // of the zone, and the operator's zone: without the final dot
	target       target
	store        Store
	log          *slog.Logger
	pending      prometheus.Gauge
	success      prometheus.Gauge
	problem      atomic.Pointer[problem]

	busy     sync.Mutex           // held by a run; guards what follows
	began    time.Time            // when the last check of everything began
	check    []set                // what is left of it
	foreign  map[zone.Record]bool // records that are wanted, and that others have published; by key
	refused  map[set]bool         // sets that failed by themselves: others go first
	outside  int                  // records in another zone, as logged
	failures int                  // runs in a row
}

// problem is why a run did not leave the operator's zone as it should be.
type problem struct {
	text string
	at   time.Time
}

// New returns an updater for the zone of a base domain. The configuration is valid; the errors are about its files.
func New(cfg Config, base string, s Store, log *slog.Logger, reg prometheus.Registerer) (*Updater, error) {
	t, errs := cfg.open()
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	u := &Updater{base: plain(base), origin: plain(cfg.Zone), target: t, store: s, log: log,
		foreign: map[zone.Record]bool{}, refused: map[set]bool{}}

	f := promauto.With(reg)
	u.pending = f.NewGauge(prometheus.GaugeOpts{Name: "tandem_zone_update_pending",
		Help: "Names and types at which the operator's zone is not as it should be, after the last run on this node."})
	u.success = f.NewGauge(prometheus.GaugeOpts{Name: "tandem_zone_update_success_timestamp_seconds",
		Help: "When a run on this node last left the operator's zone as it should be; before that, its start."})
	u.success.SetToCurrentTime()

	return u, nil
}

// plain returns a domain name in lower case, without the final dot.
func plain(name string) string { return strings.TrimSuffix(dns.CanonicalName(name), ".") }

// Problem returns why the operator's zone is not up to date, as far as this node knows; empty if it is, or if another
// node has done the work since.
func (u *Updater) Problem() string {
	if p := u.problem.Load(); p != nil && time.Since(p.at) < 2*checkEvery {
		return p.text
	}

	return ""
}

// Kind returns the work of updating the operator's zone, which a worker does.
func (u *Updater) Kind() *flow.Kind {
	return &flow.Kind{Name: Work().Kind, Workers: 1, Reconcile: u.reconcile,
		List: func(_ context.Context, after string, _ int) ([]string, error) {
			if after != "" {
				return nil, nil
			}
			return []string{Work().ID}, nil
		}}
}

// reconcile does one run. It returns no errors of the operator's server: work that was parked would not go on by itself
// when the server is available again.
func (u *Updater) reconcile(ctx context.Context, run *flow.Run) (flow.Result, error) {
	u.busy.Lock()
	defer u.busy.Unlock()
	limited, cancel := context.WithTimeout(ctx, runFor)
	defer cancel()
	x := &pass{Updater: u, run: run}
	err := x.do(limited)
	if errors.Is(err, flow.ErrLost) || ctx.Err() != nil {
		return flow.Result{}, errors.Join(err, ctx.Err())
	}
	if err != nil {
		x.failed = err
	}

	return flow.Result{Again: time.Now().Add(u.after(x))}, nil
}

// after reports how a run ended, and returns when the next one is due.
func (u *Updater) after(x *pass) time.Duration {
	left := x.changed()
	u.pending.Set(float64(len(left)))
	err := cmp.Or(x.failed, x.refusal)
	switch {
	case err == nil && len(left)+len(u.check) == 0:
		if u.problem.Swap(nil) != nil {
			u.log.Info("records are published in the operator's zone again", "zone", u.origin)
		}
		u.failures = 0
		u.success.SetToCurrentTime()
		return max(0, time.Until(u.began.Add(checkEvery)))
	case err == nil, x.failed == nil && len(left) > 0 && !u.refused[left[0]]:
		return 0 // there is more to do
	}

	text := fmt.Sprintf("not all records are published in the operator's zone %s: %v", u.origin, err)
	if old := u.problem.Swap(&problem{text, time.Now()}); old == nil || old.text != text {
		u.log.Error("records not published in the operator's zone; trying again", "zone", u.origin, "error", err,
			"pending", len(left))
	}
	u.failures++

	return min(leastWait<<min(u.failures-1, 10), mostWait)
}
