package flowtest

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/flow"
)

// kindName is the kind of the example job.
const kindName = "thing"

// World is a job whose rows have a desired and an observed version, the outside system that it keeps in step, and the
// nodes that work on it. It fails the test if two workers run a key at the same time.
type World struct {
	t *testing.T
	d *db.DB
	q *flow.Queue // of a node without a worker: changes are made through it

	// Act, if set, is what a run does before it changes the outside system.
	Act func(ctx context.Context, n *Node, run *flow.Run) (flow.Result, error)
	// Sweep lets sweeps find things. Without it a lost wake-up stays lost.
	Sweep bool

	mu      sync.Mutex // guards what follows
	nodes   []*Node
	running map[string]*Node
	outside map[string]int64 // version of each thing in the outside system
	runs    map[string]int   // how often each thing was run
	told    []string         // progress, in the order of commits
}

// NewWorld returns a world on a database with the schema.
func NewWorld(t *testing.T, d *db.DB) *World {
	t.Helper()
	w := &World{t: t, d: d, running: map[string]*Node{}, outside: map[string]int64{}, runs: map[string]int{}}
	w.q = flow.New(d, w.progress, slog.New(slog.DiscardHandler), nil)
	w.update(func(ctx context.Context, tx *db.Tx) error {
		_, err := tx.Exec(ctx, "CREATE TABLE IF NOT EXISTS things (id TEXT NOT NULL PRIMARY KEY, "+
			"desired BIGINT NOT NULL, observed BIGINT NOT NULL)")
		return err
	})
	return w
}

func (w *World) progress(_ context.Context, tx *db.Tx, i flow.Item) error {
	tx.OnCommit(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.told = append(w.told, fmt.Sprintf("%s:%s:%s", i.ID, i.State, i.Reason))
	})
	return nil
}

func (w *World) update(fn func(context.Context, *db.Tx) error) {
	w.t.Helper()
	if err := w.d.Update(context.Background(), fn); err != nil {
		w.t.Errorf("update: %v", err)
	}
}

// Change changes the desired version of things and enqueues them, in one transaction.
func (w *World) Change(ids ...string) { w.ChangeAt(time.Time{}, ids...) }

// ChangeAt is Change with a time before which the things should not run.
func (w *World) ChangeAt(notBefore time.Time, ids ...string) {
	w.t.Helper()
	w.update(func(ctx context.Context, tx *db.Tx) error {
		for _, id := range ids {
			if _, err := tx.Exec(ctx, "INSERT INTO things (id, desired, observed) VALUES ($1, 1, 0) "+
				"ON CONFLICT (id) DO UPDATE SET desired = things.desired + 1", id); err != nil {
				return err
			}
		}
		return w.q.Enqueue(ctx, tx, kindName, notBefore, ids...)
	})
}

// Node is one process with a worker.
type Node struct {
	*Mortal
	w       *World
	Kind    *flow.Kind // nil for a node whose configuration has lost the kind
	Queue   *flow.Queue
	Metrics *prometheus.Registry
	cancel  context.CancelFunc
	ended   chan struct{}
}

// NewNode returns a node that has not started.
func (w *World) NewNode() *Node {
	n := &Node{Mortal: NewMortal(w.d), w: w, Metrics: prometheus.NewRegistry(), ended: make(chan struct{})}
	n.Queue = flow.New(n.Mortal, w.progress, slog.New(slog.DiscardHandler), n.Metrics)
	n.Kind = &flow.Kind{Name: kindName, Reconcile: n.reconcile, List: n.list}
	return n
}

// Start starts the node.
func (n *Node) Start() *Node {
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	n.w.mu.Lock()
	n.w.nodes = append(n.w.nodes, n)
	n.w.mu.Unlock()
	go func() {
		defer close(n.ended)
		kinds, former := []*flow.Kind{n.Kind}, []string(nil)
		if n.Kind == nil {
			kinds, former = nil, []string{kindName}
		}
		if err := n.Queue.Run(ctx, kinds, former...); err != nil {
			n.w.t.Errorf("Run: %v", err)
		}
	}()
	return n
}

// Kill kills the node: its runs have ended, whatever their goroutines do.
func (n *Node) Kill() {
	n.Mortal.Kill()
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	for id, by := range n.w.running {
		if by == n {
			delete(n.w.running, id)
		}
	}
}

// Stop ends the node in an orderly way and waits for it.
func (n *Node) Stop() {
	n.cancel()
	<-n.ended
}

// Close ends all nodes.
func (w *World) Close() {
	w.mu.Lock()
	nodes := w.nodes
	w.nodes = nil
	w.mu.Unlock()
	for _, n := range nodes {
		n.cancel()
		if n.Killed() {
			n.Bury()
		}
		<-n.ended
	}
}

// reconcile reads the row, acts, and records what it did.
func (n *Node) reconcile(ctx context.Context, run *flow.Run) (res flow.Result, err error) {
	if !n.enter(run.ID) {
		return res, errDead
	}
	defer n.leave(run.ID)
	var desired int64
	err = n.View(ctx, func(ctx context.Context, tx *db.Tx) error {
		_, err := tx.QueryRow(ctx, "SELECT desired FROM things WHERE id = $1", []any{run.ID}, &desired)
		return err
	})
	if err != nil {
		return res, err
	}
	if !n.At("read") {
		return res, errDead
	}
	if n.w.Act != nil {
		if res, err = n.w.Act(ctx, n, run); err != nil || res != (flow.Result{}) {
			return res, err
		}
	}
	n.w.mu.Lock()
	if !n.Killed() {
		n.w.outside[run.ID] = desired
	}
	n.w.mu.Unlock()
	if !n.At("acted") {
		return res, errDead
	}
	return res, n.record(ctx, run, desired)
}

// record stores the observed version, as a job's store does.
func (n *Node) record(ctx context.Context, run *flow.Run, version int64) error {
	return n.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
		_, err := tx.Exec(ctx, "UPDATE things SET observed = $1 WHERE id = $2", version, run.ID)
		if err != nil {
			return err
		}
		return run.Step(ctx, tx, fmt.Sprint("version ", version))
	})
}

func (n *Node) enter(id string) bool {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	if n.Killed() {
		return false
	}
	if n.w.running[id] != nil {
		n.w.t.Errorf("%s is run by two workers at the same time", id)
	}
	n.w.running[id] = n
	n.w.runs[id]++
	return true
}

func (n *Node) leave(id string) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	if n.w.running[id] == n {
		delete(n.w.running, id)
	}
}

func (n *Node) list(ctx context.Context, after string, limit int) ([]string, error) {
	if !n.w.Sweep {
		return nil, nil
	}
	var ids []string
	err := n.View(ctx, func(ctx context.Context, tx *db.Tx) (err error) {
		ids = nil
		return tx.Query(ctx, func(rows *sql.Rows) error {
			var id string
			err := rows.Scan(&id)
			ids = append(ids, id)
			return err
		}, "SELECT id FROM things WHERE desired <> observed AND id > $1 ORDER BY id LIMIT $2", after, int64(limit))
	})
	return ids, err
}

// Settled reports whether every thing is at its desired version and the queue is empty.
func (w *World) Settled() bool {
	w.t.Helper()
	return w.number("SELECT (SELECT COUNT(*) FROM work) + "+
		"(SELECT COUNT(*) FROM things WHERE desired <> observed)") == 0
}

// Settle waits until everything is at its desired version, and fails the test after the limit. It returns how long that
// took.
func (w *World) Settle(limit time.Duration) time.Duration {
	w.t.Helper()
	began := time.Now()
	for !w.Settled() {
		if time.Since(began) > limit {
			items, err := w.q.List(context.Background(), "", "", flow.Key{}, 20)
			w.t.Fatalf("not settled after %v: %+v (%v)", limit, items, err)
		}
		time.Sleep(100*time.Millisecond + time.Since(began)/100)
	}
	took := time.Since(began)
	w.check()
	return took
}

// check compares the outside system with what is desired.
func (w *World) check() {
	w.t.Helper()
	desired := map[string]int64{}
	err := w.d.View(context.Background(), func(ctx context.Context, tx *db.Tx) error {
		return tx.Query(ctx, func(rows *sql.Rows) error {
			var id string
			var v int64
			err := rows.Scan(&id, &v)
			desired[id] = v
			return err
		}, "SELECT id, desired FROM things")
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, v := range desired {
		if w.outside[id] != v {
			w.t.Errorf("%s is at version %d in the outside system, want %d", id, w.outside[id], v)
		}
	}
}

// Behind returns how many things are not at their desired version.
func (w *World) Behind() (n int) {
	return int(w.number("SELECT COUNT(*) FROM things WHERE desired <> observed"))
}

// Desired returns the desired version of a thing.
func (w *World) Desired(id string) int64 {
	return w.number("SELECT desired FROM things WHERE id = $1", id)
}

func (w *World) number(query string, args ...any) (n int64) {
	w.t.Helper()
	err := w.d.View(context.Background(), func(ctx context.Context, tx *db.Tx) error {
		_, err := tx.QueryRow(ctx, query, args, &n)
		return err
	})
	if err != nil {
		w.t.Errorf("look at the things: %v", err)
	}
	return n
}

// Runs returns how often a thing was run.
func (w *World) Runs(id string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.runs[id]
}

// Progress returns what was reported of a thing.
func (w *World) Progress(id string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, line := range w.told {
		if rest, ok := strings.CutPrefix(line, id+":"); ok {
			out = append(out, rest)
		}
	}
	return out
}

// Item returns the state of a thing's key, and whether it has one.
func (w *World) Item(id string) (flow.Item, bool) {
	w.t.Helper()
	items, err := w.q.List(context.Background(), kindName, "", flow.Key{}, 100_000)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, i := range items {
		if i.ID == id {
			return i, true
		}
	}
	return flow.Item{}, false
}
