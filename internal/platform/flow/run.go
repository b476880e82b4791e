package flow

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
)

// Kind is how one kind of key is reconciled. Its functions must be safe for concurrent use.
type Kind struct {
	// Name is the kind of the keys.
	Name string
	// Reconcile brings the row and the outside systems closer to the desired state within 5 minutes. It must return
	// soon after ctx ends. An error is a failure: the key is run again after a back-off, or RetryAfter if that is
	// longer, and parked after 20 failures in a row, in about two hours. One of kind fault.Invalid is permanent: the
	// key is parked at once. One of kind fault.Limited with RetryAfter is no failure; it also holds Limit.
	Reconcile func(ctx context.Context, run *Run) (Result, error)
	// List returns up to limit ids of rows that are not at their desired state, greater than after and in ascending
	// order. Fewer than limit are the last.
	List func(ctx context.Context, after string, limit int) ([]string, error)
	// Workers is how many keys of the kind run at the same time on one node. Default 4.
	Workers int
	// Limit, if set, is that of the outside service: while it is held no run starts.
	Limit *Limit

	active atomic.Int64 // runs in progress
}

// Result is how a run without an error ended. The zero Result means that the row is at its desired state.
type Result struct {
	Again time.Time // run again then
	Wait  string    // what a person must do before the next run
}

// ErrLost is returned when a worker no longer owns a key or its lease: another may be running the key.
var ErrLost = errors.New("flow: another worker has taken over")

// Run is one run of a key.
type Run struct {
	Key
	Attempt int // 1 for the first run since the last change or success

	kind              *Kind
	q                 *Queue
	owner, reason     string
	token, generation int64
}

// Step must be called in every transaction in which a run writes, after its other writes. It returns ErrLost if the run
// no longer owns its key, and keeps others from taking over before the commit. A progress that is not empty is
// reported; it must hold no secret and no phone number.
func (r *Run) Step(ctx context.Context, tx *db.Tx, progress string) error {
	if _, _, err := r.lock(ctx, tx); err != nil || progress == "" {
		return err
	}
	return r.q.progress(ctx, tx, Item{Key: r.Key, State: Running, Attempts: r.Attempt, Reason: progress})
}

// lock locks the key's row, and returns ErrLost if the run does not own it.
func (r *Run) lock(ctx context.Context, tx *db.Tx) (generation, due int64, err error) {
	ok, err := tx.QueryRow(ctx, "SELECT generation, due FROM work "+
		"WHERE kind = $1 AND id = $2 AND owner = $3 AND token = $4"+tx.ForUpdate(),
		[]any{r.Kind, r.ID, r.owner, r.token}, &generation, &due)
	if err == nil && !ok {
		err = ErrLost
	}
	return generation, due, err
}

// The back-off doubles from the first to the longest. A random quarter more or less keeps keys from running in step.
const (
	firstBackoff   = time.Second
	longestBackoff = 10 * time.Minute
	longestHold    = 24 * time.Hour // bounds the RetryAfter of an outside service
	maxFailures    = 20             // in a row, including runs during which the process ended, until a key is parked
)

// outcome is what follows from a run: its name in the metric, and the key's new state, empty if it is done.
type outcome struct {
	result string
	Item
}

// outcome returns what follows when nothing changed during the run. stopping is set when the worker ended the run.
func (r *Run) outcome(attempt int, res Result, err error, stopping bool) outcome {
	i, now := Item{Key: r.Key, State: Queued}, time.Now()
	switch {
	case err != nil:
	case res.Wait != "":
		i.State, i.Reason = Waiting, clip(res.Wait)
		return outcome{"waiting", i}
	case !res.Again.IsZero():
		i.Due = res.Again
		return outcome{"again", i}
	default:
		i.State = ""
		return outcome{"done", i}
	}

	f := fault.As(err)
	after := min(f.RetryAfter, longestHold)
	i.Attempts, i.Reason = attempt, clip(err.Error())
	switch {
	case stopping && f.Kind != fault.Invalid:
		i.Attempts, i.Reason = attempt-1, r.reason
		return outcome{"stopped", i}
	case f.Kind == fault.Limited && after > 0:
		i.Attempts, i.Due = attempt-1, now.Add(after)
		return outcome{"limited", i}
	case f.Kind == fault.Invalid || attempt >= maxFailures:
		i.State = Parked
		return outcome{"parked", i}
	}
	wait := float64(min(firstBackoff<<min(attempt-1, 20), longestBackoff))
	i.Due = now.Add(max(after, time.Duration(wait*(0.75+0.5*rand.Float64()))))
	return outcome{"failed", i}
}

// finish stores the outcome of a run that still owns its key. A key that changed meanwhile is queued in any case, and
// its failures before the change are forgotten.
func (r *Run) finish(ctx context.Context, tx *db.Tx, res Result, err error, stopping bool) (outcome, error) {
	generation, due, err2 := r.lock(ctx, tx)
	if err2 != nil {
		return outcome{}, err2
	}
	o := r.outcome(r.Attempt, res, err, stopping)
	if generation != r.generation {
		o = r.outcome(1, res, err, stopping)
		if o.State != Queued || o.result == "again" && due < db.Micros(o.Due) {
			o.Item = Item{Key: r.Key, State: Queued, Due: db.Time(due)}
		}
	}
	due = never
	if o.State == Queued {
		due = db.Micros(o.Due)
	}
	statement := "UPDATE work SET state = $3, due = $4, attempts = $5, reason = $6, since = $7, owner = '' " +
		"WHERE kind = $1 AND id = $2"
	args := []any{r.Kind, r.ID, o.State, due, o.Attempts, o.Reason, time.Now().UnixMicro()}
	if o.State == "" {
		statement, args = "DELETE FROM work WHERE kind = $1 AND id = $2", args[:2]
	}
	if _, err := tx.Exec(ctx, statement, args...); err != nil {
		return o, fmt.Errorf("store the outcome of a run: %w", err)
	}
	return o, r.q.progress(ctx, tx, o.Item)
}

// clip makes a reason fit in the database and on a line.
func clip(s string) string {
	s = strings.Join(strings.Fields(strings.ReplaceAll(s, "\x00", "")), " ")
	return strings.ToValidUTF8(s[:min(len(s), 1000)], "\uFFFD")
}

// Limit is the rate limit of one outside service, for all workers of a node, and of all nodes if Allow's counter is
// shared. Its methods are safe for concurrent use.
type Limit struct {
	// Allow counts a request and returns 0, or returns how long to wait, as auth.Limiter's does.
	Allow func(context.Context) time.Duration

	until atomic.Int64 // no requests before; Unix microseconds
}

// Wait returns nil when one request may be sent. If that takes more than 5 s, it returns an error for Reconcile to
// return: the key is run again when the time has come.
func (l *Limit) Wait(ctx context.Context) error {
	for ctx.Err() == nil {
		wait := l.held()
		if wait == 0 {
			wait = l.Allow(ctx)
		}
		if wait == 0 {
			return nil
		}
		if wait > 5*time.Second {
			return fault.New(fault.Limited, "OutsideLimit", "rate limit of the outside service exhausted").After(wait)
		}
		db.Sleep(ctx, wait)
	}
	return ctx.Err()
}

// hold stops requests for the RetryAfter of err, if it is of kind fault.Limited.
func (l *Limit) hold(err error) {
	if l != nil && fault.Is(err, fault.Limited) {
		until := time.Now().Add(min(fault.As(err).RetryAfter, longestHold)).UnixMicro()
		for old := l.until.Load(); old < until && !l.until.CompareAndSwap(old, until); old = l.until.Load() {
		}
	}
}

// held returns for how long requests are still stopped.
func (l *Limit) held() time.Duration {
	if l == nil {
		return 0
	}
	return max(0, time.Until(time.UnixMicro(l.until.Load())))
}
