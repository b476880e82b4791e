package flow

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
)

// Times of a lease. Runs have deadAt minus giveUp to end before another worker takes their keys over.
const (
	tickEvery = 500 * time.Millisecond // between renewals, and looks for work and for dead workers
	giveUp    = 2 * time.Second        // after the last renewal began, the worker cancels its runs
	deadAt    = 3 * time.Second        // after a beat was first seen, its worker is dead unless the beat has changed
)

const (
	runTimeout = 5 * time.Minute // bounds one run; larger jobs are several keys, or runs that end with Result.Again
	sweepEvery = 5 * time.Minute // about how often rows that are not at their desired state are enqueued
)

// Run runs keys of the given kinds until ctx is done, and returns nil. It then cancels the runs, waits for them to end
// and queues their keys again. It is called once at a time. former names kinds that the configuration does not have,
// but that an earlier one may have had: their keys are removed, because no worker would ever run them. Keys of all
// other kinds stay queued for nodes that know them.
func (q *Queue) Run(ctx context.Context, kinds []*Kind, former ...string) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, name := range former {
		wg.Go(func() {
			q.sweep(ctx, name, func(string, int) ([]string, error) { return nil, q.remove(ctx, name) })
		})
	}
	if len(kinds) == 0 {
		<-ctx.Done()
		return nil
	}
	wg.Go(func() { q.measure(ctx) })
	for _, k := range kinds {
		wg.Go(func() {
			q.sweep(ctx, k.Name, func(after string, limit int) ([]string, error) {
				return q.sweepPage(ctx, k, after, limit)
			})
		})
	}
	for failing := false; ctx.Err() == nil; db.Sleep(ctx, time.Second) {
		l := &lease{Queue: q, kinds: kinds, id: uuid.NewString()}
		if err := l.join(ctx); err == nil {
			failing = false
			l.work(ctx)
			limit, cancel := context.WithTimeout(ctx, deadAt)
			_ = q.idle(limit) // a run that ignores the end of its context does not keep this node from a new lease
			cancel()
		} else if !failing && ctx.Err() == nil {
			failing = true
			q.log.Warn("no lease stored: this node does no work; trying again every second", "error", err)
		}
	}
	return q.idle(context.WithoutCancel(ctx))
}

// Drain stops the worker from starting runs. It returns when those in progress have ended, or with ctx's error.
func (q *Queue) Drain(ctx context.Context) error {
	q.draining.Store(true)
	return q.idle(ctx)
}

// idle waits until no run is in progress. It returns ctx's error if that takes too long.
func (q *Queue) idle(ctx context.Context) error {
	for q.active.Load() > 0 && ctx.Err() == nil {
		db.Sleep(ctx, 50*time.Millisecond)
	}
	return ctx.Err()
}

// lease is the time during which a worker owns keys.
type lease struct {
	*Queue
	kinds []*Kind
	id    string
	life  context.Context      // ends when the lease is lost
	runs  context.Context      // of life; the worker's shutdown ends it too
	token int64                // of the last claim
	seen  map[string]time.Time // when the present beats of other workers were first seen
}

// work runs keys until ctx is done and its runs have ended, or the lease is lost.
func (l *lease) work(ctx context.Context) {
	life, lose := context.WithCancel(context.WithoutCancel(ctx))
	defer lose()
	runs, stop := context.WithCancel(life)
	defer context.AfterFunc(ctx, stop)()
	defer context.AfterFunc(runs, l.wakeWorker)()
	l.life, l.runs = life, runs
	for last := time.Now(); runs.Err() == nil || l.active.Load() > 0; {
		began := time.Now()
		if err := l.tick(last.Add(giveUp)); err != nil { // whatever the reason: it may have claimed keys
			l.m.lost.Inc()
			l.log.Warn("lease lost; all runs are cancelled", "worker", l.id, "error", err)
			return
		}
		last = began
		select {
		case <-l.wake:
		case <-time.After(tickEvery):
		}
	}
}

// join stores the lease and queues the keys whose owner has none. On SQLite all other leases are those of dead workers:
// only one process uses the file.
func (l *lease) join(ctx context.Context) error {
	return l.d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
		if l.d.Driver() == db.SQLite {
			if _, err := tx.Exec(ctx, "DELETE FROM workers"); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(ctx, "INSERT INTO workers (id, beat) VALUES ($1, 1)", l.id); err != nil {
			return err
		}
		return l.free(ctx, tx)
	})
}

// free queues the keys whose owner has no lease. It waits for no lock: a worker that hangs inside a transaction must
// not stop the others. What it skips is found by a later tick.
func (l *lease) free(ctx context.Context, tx *db.Tx) error {
	gone, err := db.Rows(ctx, tx, db.Column[string], "SELECT DISTINCT owner FROM work "+
		"WHERE state = 'running' AND owner NOT IN (SELECT id FROM workers)")
	if err != nil {
		return err
	}
	for _, id := range gone { // by name: whoever owns a key meanwhile has a lease that the query above did not see
		n, err := tx.Exec(ctx, `UPDATE work SET state = 'queued', owner = '', due = 0, since = $1 FROM
			(SELECT kind, id FROM work WHERE state = 'running' AND owner = $2`+tx.SkipLocked()+`) AS lost
			WHERE work.kind = lost.kind AND work.id = lost.id`, time.Now().UnixMicro(), id)
		if err != nil {
			return err
		}
		if n > 0 { // else a transaction of a worker that hangs still locks them
			tx.OnCommit(func() { l.log.Warn("a worker ended; its keys are queued again", "worker", id, "keys", n) })
		}
	}
	return nil
}

// tick renews the lease, ends those of dead workers and starts runs, in one transaction that fails at limit. On SQLite
// it only starts runs, and may take longer: nobody can take over, and a large import must not end the runs.
func (l *lease) tick(limit time.Time) error {
	l.active.Add(1) // before the look at draining: Drain waits for a claim that it does not prevent
	starting := l.runs.Err() == nil && !l.draining.Load()
	if starting {
		defer l.active.Add(-1)
	} else {
		l.active.Add(-1)
	}
	ctx := l.life
	if l.d.Driver() != db.SQLite {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, limit)
		defer cancel()
	}
	l.token++
	var claimed []*Run
	err := l.d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
		claimed = nil
		if l.d.Driver() != db.SQLite {
			if err := l.beat(ctx, tx); err != nil {
				return fmt.Errorf("renew the lease: %w", err)
			}
		}
		for _, k := range l.kinds {
			n := int64(cmp.Or(k.Workers, 4)) - k.active.Load()
			if !starting || n <= 0 || k.Limit.held() > 0 {
				continue
			}
			runs, err := l.claim(ctx, tx, k, n)
			if err != nil {
				return fmt.Errorf("claim work of kind %s: %w", k.Name, err)
			}
			claimed = append(claimed, runs...)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, r := range claimed {
		l.active.Add(1)
		r.kind.active.Add(1)
		go func() {
			l.run(r)
			r.kind.active.Add(-1)
			l.active.Add(-1)
			l.wakeWorker()
		}()
	}
	return nil
}

// beat renews the lease and ends those of dead workers. The lock on the lease's row makes whoever takes this worker for
// dead see all keys that it has claimed.
func (l *lease) beat(ctx context.Context, tx *db.Tx) error {
	n, err := tx.Exec(ctx, "UPDATE workers SET beat = beat + 1 WHERE id = $1", l.id)
	if err != nil || n == 0 {
		return cmp.Or(err, ErrLost)
	}
	before := time.Now()
	others, err := db.Rows(ctx, tx, db.Column[string], "SELECT id || ' ' || beat FROM workers WHERE id <> $1", l.id)
	if err != nil {
		return err
	}
	after, seen := time.Now(), map[string]time.Time{}
	for _, other := range others {
		first, ok := l.seen[other]
		if !ok {
			first = after
		}
		seen[other] = first
		if before.Sub(first) < deadAt {
			continue
		}
		_, err := tx.Exec(ctx, "DELETE FROM workers WHERE id = (SELECT id FROM workers WHERE id || ' ' || beat = $1"+
			tx.SkipLocked()+")", other)
		if err != nil {
			return err
		}
	}
	l.seen = seen
	return l.free(ctx, tx)
}

// claim takes up to n keys of kind k that are due.
func (l *lease) claim(ctx context.Context, tx *db.Tx, k *Kind, n int64) ([]*Run, error) {
	return db.Rows(ctx, tx, func(rows *sql.Rows) (*Run, error) {
		r := &Run{Key: Key{Kind: k.Name}, kind: k, q: l.Queue, owner: l.id, token: l.token}
		return r, rows.Scan(&r.ID, &r.generation, &r.Attempt, &r.reason)
	}, `WITH ready AS MATERIALIZED (SELECT kind, id FROM work WHERE state = 'queued' AND kind = $1 AND due <= $2
			ORDER BY due, since LIMIT $3`+tx.SkipLocked()+`)
		UPDATE work SET state = 'running', owner = $4, token = $5, due = $6, since = $2, attempts = attempts + 1
		FROM ready WHERE work.kind = ready.kind AND work.id = ready.id
		RETURNING work.id, work.generation, work.attempts, work.reason`,
		k.Name, time.Now().UnixMicro(), n, l.id, l.token, int64(never))
}

// levels are the levels at which results are logged; others are not.
var levels = map[string]slog.Level{"failed": slog.LevelWarn, "limited": slog.LevelWarn, "lost": slog.LevelWarn,
	"parked": slog.LevelError, "waiting": slog.LevelInfo}

// run runs one key and stores the outcome, for as long as the lease lasts.
func (l *lease) run(r *Run) {
	log := l.log.With("kind", r.Kind, "id", r.ID, "attempt", r.Attempt)
	began := time.Now()
	res, err := l.reconcile(r, log)
	stopping := l.runs.Err() != nil
	r.kind.Limit.hold(err)
	l.m.seconds.WithLabelValues(r.Kind).Observe(time.Since(began).Seconds())

	var o outcome
	failed := ErrLost
	for l.life.Err() == nil {
		failed = l.d.Update(l.life, func(ctx context.Context, tx *db.Tx) (err2 error) {
			o, err2 = r.finish(ctx, tx, res, err, stopping)
			return err2
		})
		if failed == nil || errors.Is(failed, ErrLost) {
			break
		}
		log.Warn("outcome of a run not stored; trying again while the lease lasts", "error", failed)
		db.Sleep(l.life, time.Second)
	}
	if failed != nil {
		o = outcome{result: "lost"}
	}
	l.m.runs.WithLabelValues(r.Kind, o.result).Inc()
	if level, ok := levels[o.result]; ok {
		log.Log(l.life, level, "work "+o.result, "reason", o.Reason, "next", o.Due.UTC(), "error", err)
	}
}

// reconcile calls the kind's function and turns a panic into an error.
func (l *lease) reconcile(r *Run, log *slog.Logger) (res Result, err error) {
	if r.Attempt > maxFailures {
		return res, fault.New(fault.Invalid, "WorkerEnded", "the process or its lease ended during too many runs; "+
			"last failure: %s", cmp.Or(r.reason, "none"))
	}
	ctx, cancel := context.WithTimeout(l.runs, runTimeout)
	defer cancel()
	defer caught(log, &err)
	return r.kind.Reconcile(ctx, r)
}

// caught turns a panic of a job's function into an error. It is deferred.
func caught(log *slog.Logger, err *error) {
	if p := recover(); p != nil {
		log.Error("panic in a run or a sweep; it counts as a failure", "panic", p, "stack", string(debug.Stack()))
		*err = fmt.Errorf("panic: %v", p)
	}
}

// sweep sweeps a kind at the start and from time to time, in pages of ids greater than after.
func (q *Queue) sweep(ctx context.Context, kind string, sweepPage func(after string, limit int) ([]string, error)) {
	const page = 500
	failing := false
	for after := ""; ctx.Err() == nil; {
		ids, err := sweepPage(after, page)
		if err != nil && !failing && ctx.Err() == nil {
			q.log.Warn("work queue not swept; trying again every 10 s", "kind", kind, "error", err)
		}
		failing = err != nil
		switch {
		case failing:
			db.Sleep(ctx, 10*time.Second)
		case len(ids) < page:
			after = ""
			db.Sleep(ctx, time.Duration(float64(sweepEvery)*(0.75+0.5*rand.Float64())))
		default:
			after = ids[len(ids)-1]
		}
	}
}

// sweepPage enqueues one page of the rows of a kind that are not at their desired state, and returns it. Keys that
// exist stay as they are, waiting and parked ones too.
func (q *Queue) sweepPage(ctx context.Context, k *Kind, after string, limit int) (ids []string, err error) {
	defer caught(q.log.With("kind", k.Name), &err)
	ids, err = k.List(ctx, after, limit)
	if err != nil {
		return nil, err
	}
	return ids, q.d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
		return q.insert(ctx, tx, k.Name, time.Time{}, ids, "NOTHING")
	})
}

// remove removes the keys of a kind that the configuration does not have. Those that another node runs stay for a later
// sweep: it may have the earlier configuration still, or be dead.
func (q *Queue) remove(ctx context.Context, kind string) error {
	ended := time.Now().Add(-2 * runTimeout).UnixMicro() // no run that began before goes on
	return q.d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
		ids, err := db.Rows(ctx, tx, db.Column[string], "DELETE FROM work WHERE kind = $1 AND "+
			"(state <> 'running' OR since < $2) RETURNING id", kind, ended)
		for _, id := range ids {
			err = errors.Join(err, q.progress(ctx, tx, Item{Key: Key{kind, id}}))
		}
		if n := len(ids); n > 0 {
			tx.OnCommit(func() {
				q.log.Info("removed work that an earlier configuration left", "kind", kind, "keys", n)
			})
		}
		return err
	})
}
