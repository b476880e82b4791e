package flow

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
)

//go:embed migrations
var migrations embed.FS

// Schema returns the migrations of this package.
func Schema() db.Schema { return db.Schema{Package: "flow", Files: migrations} }

// Key names what is reconciled.
type Key struct {
	Kind string // chosen by the job, e.g. "tenant"; the same on every node
	ID   string // names a row of that kind: 1 to 200 bytes
}

// The states of a key.
const (
	Queued  = "queued"  // runs when it is due
	Running = "running" // a worker runs it
	Waiting = "waiting" // for a person
	Parked  = "parked"  // failed too often, or permanently
)

// Item is the state of a key, for lists and as progress. The progress of a key that is done has no state.
type Item struct {
	Key
	State    string
	Attempts int       // runs since the last change or success
	Due      time.Time // zero unless queued for later
	Since    time.Time // of the state; only in lists
	Reason   string    // of the state, or of the last failure; as progress of a running key, the step
}

// never is the due time of a key that does not run by itself. One that is to run at once has no due time, stored as 0,
// so that it does not wait if the clock of the node that enqueued it is ahead.
const never = math.MaxInt64

// Database is the part of db.DB that is used. Tests put something between, to end a worker at each step.
type Database interface {
	View(ctx context.Context, fn func(context.Context, *db.Tx) error) error
	Update(ctx context.Context, fn func(context.Context, *db.Tx) error) error
	Driver() string
}

// Queue is the table of keys and the worker of this process. It is safe for concurrent use. Life cycle of the worker:
// Run, optionally Drain, then cancel Run's context.
type Queue struct {
	d        Database
	progress func(context.Context, *db.Tx, Item) error
	log      *slog.Logger
	m        metrics
	wake     chan struct{} // makes the worker look for keys
	active   atomic.Int64  // runs in progress; one more while keys are claimed
	draining atomic.Bool   // Drain was called
}

// New returns the queue stored in d. Progress is called in the transaction of each step and end of a run.
func New(d Database, progress func(context.Context, *db.Tx, Item) error, log *slog.Logger,
	reg prometheus.Registerer) *Queue {
	return &Queue{d: d, progress: progress, log: log, m: newMetrics(reg), wake: make(chan struct{}, 1)}
}

// wakeWorker makes the worker look for keys.
func (q *Queue) wakeWorker() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Enqueue makes keys run, in the transaction that changes their rows and after these writes: at once if notBefore is
// zero. A key that is due earlier stays so. One that is running runs again afterwards, so a run does not enqueue its
// own key. Failures are forgotten, and keys that are waiting or parked are queued again.
func (q *Queue) Enqueue(ctx context.Context, tx *db.Tx, kind string, notBefore time.Time, ids ...string) error {
	return q.insert(ctx, tx, kind, notBefore, ids, `UPDATE SET generation = work.generation + 1,
		due = CASE WHEN excluded.due < work.due THEN excluded.due ELSE work.due END,
		state = CASE work.state WHEN 'running' THEN 'running' ELSE 'queued' END,
		since = CASE WHEN work.state = 'running' OR work.due = 0 THEN work.since ELSE excluded.since END,
		attempts = CASE work.state WHEN 'running' THEN work.attempts ELSE 0 END,
		reason = CASE work.state WHEN 'running' THEN work.reason ELSE '' END`)
}

// insert adds keys; conflict is what is done with those that exist.
func (q *Queue) insert(ctx context.Context, tx *db.Tx, kind string, notBefore time.Time, ids []string,
	conflict string) error {
	now := time.Now()
	if !notBefore.After(now) {
		notBefore = time.Time{}
	}
	ids = slices.Compact(slices.Sorted(slices.Values(ids))) // transactions lock keys in the same order
	for chunk := range slices.Chunk(ids, 200) {
		args := []any{kind, db.Micros(notBefore), now.UnixMicro()}
		var rows strings.Builder
		for _, id := range chunk {
			if id == "" || len(id) > 200 {
				return fmt.Errorf("enqueue work of kind %s: id %.40q has %d bytes; want 1 to 200", kind, id, len(id))
			}
			args = append(args, id)
			fmt.Fprintf(&rows, ", ($1, $%d, 1, 'queued', $2, 0, '', $3, '', 0)", len(args))
		}
		_, err := tx.Exec(ctx, "INSERT INTO work (kind, id, generation, state, due, attempts, reason, since, owner, "+
			"token) VALUES "+rows.String()[2:]+" ON CONFLICT (kind, id) DO "+conflict, args...)
		if err != nil {
			return fmt.Errorf("enqueue work of kind %s: %w", kind, err)
		}
	}
	tx.OnCommit(q.wakeWorker)
	return nil
}

// List returns up to limit keys greater than after, in ascending order. An empty kind or state selects any.
func (q *Queue) List(ctx context.Context, kind, state string, after Key, limit int) ([]Item, error) {
	var items []Item
	err := q.d.View(ctx, func(ctx context.Context, tx *db.Tx) (err error) {
		items, err = db.Rows(ctx, tx, func(rows *sql.Rows) (i Item, err error) {
			var due, since int64
			err = rows.Scan(&i.Kind, &i.ID, &i.State, &i.Attempts, &due, &since, &i.Reason)
			i.Since = db.Time(since)
			if i.State == Queued {
				i.Due = db.Time(due)
			}
			return i, err
		}, "SELECT kind, id, state, attempts, due, since, reason FROM work WHERE (kind, id) > ($1, $2) "+
			"AND ($3 = '' OR kind = $3) AND ($4 = '' OR state = $4) ORDER BY kind, id LIMIT $5",
			after.Kind, after.ID, kind, state, int64(limit))
		return err
	})
	return items, err
}

// byHand are the ways to run a key at once, and the states in which it may be.
var byHand = map[string][]string{"retry": {Queued, Parked}, "resume": {Waiting}}

// ByHand makes a key run at once, with an audit row. The action is "retry" for work that is parked or waits for its
// next attempt, "resume" for work that waits for a person.
func (q *Queue) ByHand(ctx context.Context, action string, k Key) error {
	states := byHand[action]
	if states == nil {
		return fault.New(fault.NotFound, "NotFound", "there is no action %q on work; use retry or resume", action)
	}
	return q.d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
		was := Item{Key: k}
		ok, err := tx.QueryRow(ctx, "SELECT state, attempts, reason FROM work WHERE kind = $1 AND id = $2"+
			tx.ForUpdate(), []any{k.Kind, k.ID}, &was.State, &was.Attempts, &was.Reason)
		switch {
		case err != nil:
			return err
		case !ok:
			return fault.New(fault.NotFound, "WorkNotFound", "there is no work for %s %s: it is done, or never began",
				k.Kind, k.ID)
		case !slices.Contains(states, was.State):
			return fault.New(fault.Conflict, "WorkState", "the work for %s %s is %s; %s is for work that is %s",
				k.Kind, k.ID, was.State, action, strings.Join(states, " or "))
		}
		if err := q.Enqueue(ctx, tx, k.Kind, time.Time{}, k.ID); err != nil {
			return err
		}
		return tx.AuditOf(ctx, "work."+action, k.Kind+"/"+k.ID, 1,
			map[string]any{"state": was.State, "attempts": was.Attempts, "reason": was.Reason})
	})
}
