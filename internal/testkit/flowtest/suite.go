package flowtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/testkit"
)

// Recovery is how long it may take until the keys of a killed worker run again.
const Recovery = 5 * time.Second

// Exercise runs the conformance suite on databases of one kind; config returns the configuration of a new one. The
// points at which a worker is killed and a change made are every step-th of a run, from one that is drawn.
func Exercise(t *testing.T, config func(testing.TB) db.Config, step int) {
	for name, run := range map[string]func(*testing.T, *World){
		"a killed worker loses nothing":                func(t *testing.T, w *World) { killedAnywhere(t, w, step) },
		"a change at any point of a run is reconciled": func(t *testing.T, w *World) { changedAnywhere(t, w, step) },
		"any interleaving ends with the last change":   interleavings,
		"many keys": manyKeys,
		"an emptied queue is filled by the sweep":           emptied,
		"failures back off, then park":                      failures,
		"a permanent error parks at once":                   permanent,
		"a panic is a failure":                              panics,
		"a run that kills its process is parked in the end": deadly,
		"a person is waited for":                            waits,
		"a key is not run before its time":                  notBefore,
		"a rate limit is shared and Retry-After honoured":   limits,
		"a drain waits for runs and starts none":            drains,
		"a drain ends in time while writes wait":            drainsBusy,
		"a panic of the sweep ends nothing":                 sweepPanics,
		"a stop releases runs at once":                      stops,
		"progress is told in the transaction":               progress,
		"keys are listed in pages":                          lists,
		"metrics count keys and runs":                       counts,
		"what an earlier configuration left is removed":     former,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, config(t), run)
		})
	}
	t.Run("a clock that is ahead delays nothing", func(t *testing.T) {
		t.Parallel()
		c := config(t)
		// Outside of the bubble it is decades later than inside.
		if !t.Run("change", func(t *testing.T) { NewWorld(t, testkit.Open(t, c)).Change("x") }) {
			return
		}
		bubble(t, c, func(t *testing.T, w *World) {
			w.NewNode().Start()
			if w.until("x", ""); w.Runs("x") != 1 {
				t.Errorf("%d runs, want 1", w.Runs("x"))
			}
		})
	})
}

// ExerciseTwoNodes runs the part of the suite for databases that several nodes may use.
func ExerciseTwoNodes(t *testing.T, config func(testing.TB) db.Config) {
	for name, run := range map[string]func(*testing.T, *World){
		"a run past its time-out is cancelled":            timeouts,
		"a queue emptied in operation is filled again":    swept,
		"two nodes share the work":                        twoNodes,
		"a worker that hangs stops before another begins": hangs,
		"a worker that lost its key commits nothing":      fenced,
		"a run that never ends does not block the others": stuck,
		"a short loss of the database ends no run":        shortCut,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, config(t), run)
		})
	}
}

// bubble runs a test in faked time.
func bubble(t *testing.T, c db.Config, run func(*testing.T, *World)) {
	synctest.Test(t, func(t *testing.T) {
		w := NewWorld(t, testkit.Open(t, c))
		defer w.Close()
		run(t, w)
	})
}

// failFirst fails the first run of things whose name begins with "fail".
func (w *World) failFirst() {
	w.Act = func(_ context.Context, n *Node, run *flow.Run) (flow.Result, error) {
		if strings.HasPrefix(run.ID, "fail") && run.Attempt == 1 && !n.Killed() {
			return flow.Result{}, errors.New("the first attempt fails")
		}
		return flow.Result{}, nil
	}
}

// atPoints starts a node for each point that it passes while it works on two things, one of which fails once, and calls
// do at that point. It leaves out points as Exercise says.
func (w *World) atPoints(t *testing.T, step int, do func(n *Node, point string, ids []string), after func()) {
	w.failFirst()
	for i := 1 + rand.IntN(step); ; i += step {
		ids := []string{fmt.Sprintf("a%d", i), fmt.Sprintf("fail%d", i)}
		w.Change(ids...)
		n := w.NewNode()
		var passed atomic.Int64
		n.Reached = func(point string) {
			if passed.Add(1) == int64(i) {
				do(n, point, ids)
			}
		}
		n.Start()
		for began := time.Now(); !n.Killed() && !w.Settled() && time.Since(began) < Recovery; {
			time.Sleep(250 * time.Millisecond)
		}
		after()
		w.Close()
		if passed.Load() < int64(i) {
			t.Logf("%d points, every %d. from the %d.", passed.Load(), step, (i-1)%step+1)
			if i < 30 {
				t.Errorf("only %d points: the test does not cover the run", passed.Load())
			}
			return
		}
	}
}

func killedAnywhere(t *testing.T, w *World, step int) {
	var slowest time.Duration
	w.atPoints(t, step, func(n *Node, _ string, _ []string) { n.Kill() }, func() {
		w.NewNode().Start()
		// A run that failed before is repeated after a back-off of at most 1.25 s.
		slowest = max(slowest, w.Settle(Recovery+1250*time.Millisecond))
	})
	t.Logf("slowest recovery %v", slowest)
}

func changedAnywhere(t *testing.T, w *World, step int) {
	var changes sync.WaitGroup
	w.atPoints(t, step, func(_ *Node, point string, ids []string) {
		changes.Go(func() { w.Change(ids...) })
		if !strings.HasPrefix(point, "inside") { // there, it may have to wait for the end of the transaction
			changes.Wait()
		}
	}, func() {
		changes.Wait()
		w.Settle(Recovery)
	})
}

// interleavings draws sequences of changes, kills, stops, starts and disconnections of nodes, and runs that fail,
// repeat themselves, panic or take long.
func interleavings(t *testing.T, w *World) {
	shared := w.d.Driver() == db.Postgres
	round := 0
	rapid.Check(struct{ rapid.TB }{t}, func(rt *rapid.T) { // hides t.Deadline, which a bubble does not have
		round++
		var mu sync.Mutex
		endings := map[string][]int{} // how the next runs of a thing end
		w.Act = func(ctx context.Context, n *Node, run *flow.Run) (flow.Result, error) {
			mu.Lock()
			ending := 0
			if e := endings[run.ID]; len(e) > 0 {
				ending, endings[run.ID] = e[0], e[1:]
			}
			mu.Unlock()
			switch ending {
			case 1:
				return flow.Result{}, errors.New("failed")
			case 2:
				return flow.Result{Again: time.Now().Add(time.Second)}, nil
			case 3:
				panic("a mistake")
			case 4:
				select {
				case <-time.After(3 * time.Second):
				case <-ctx.Done():
					return flow.Result{}, ctx.Err()
				}
			}
			return flow.Result{}, nil
		}
		ids := make([]string, 4)
		for i := range ids {
			ids[i] = fmt.Sprintf("r%d-%d", round, i)
			endings[ids[i]] = rapid.SliceOfN(rapid.IntRange(0, 4), 0, 4).Draw(rt, "endings")
		}
		var nodes []*Node
		remove := func(rt *rapid.T) *Node {
			if len(nodes) == 0 {
				rt.Skip("no node")
			}
			i := rapid.IntRange(0, len(nodes)-1).Draw(rt, "node")
			n := nodes[i]
			nodes = append(nodes[:i:i], nodes[i+1:]...)
			return n
		}
		rt.Repeat(map[string]func(*rapid.T){
			"change": func(rt *rapid.T) { w.Change(rapid.SampledFrom(ids).Draw(rt, "thing")) },
			"time": func(rt *rapid.T) {
				time.Sleep(time.Duration(rapid.IntRange(1, 4000).Draw(rt, "ms")) * time.Millisecond)
			},
			"start": func(rt *rapid.T) {
				if len(nodes) >= 3 || !shared && len(nodes) > 0 {
					rt.Skip("enough nodes")
				}
				nodes = append(nodes, w.NewNode().Start())
			},
			"kill": func(rt *rapid.T) { remove(rt).Kill() },
			"stop": func(rt *rapid.T) { remove(rt).Stop() },
			"cut": func(rt *rapid.T) {
				if len(nodes) == 0 || !shared {
					rt.Skip("no network")
				}
				restore := nodes[0].Cut()
				time.Sleep(time.Duration(rapid.IntRange(1, 9000).Draw(rt, "ms")) * time.Millisecond)
				restore()
			},
		})
		if len(nodes) == 0 {
			w.NewNode().Start()
		}
		w.Settle(2 * time.Minute)
		w.Close()
		if t.Failed() {
			rt.Fatal("see above")
		}
	})
}

// keys returns n names.
func keys(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("k%06d", i)
	}
	return ids
}

func manyKeys(t *testing.T, w *World) {
	w.Many(40)
}

// Many reconciles n keys on one node.
func (w *World) Many(n int) {
	ids := keys(n)
	w.Change(ids...)
	node := w.NewNode()
	node.Kind.Workers = 50
	node.Start()
	w.Settle(time.Hour)
	for _, id := range ids {
		if r := w.Runs(id); r != 1 {
			w.t.Fatalf("%s was run %d times, want once", id, r)
		}
	}
}

func emptied(t *testing.T, w *World) {
	w.Sweep = true
	ids := keys(60)
	if w.d.Driver() == db.Postgres { // the other is slow with the race detector
		ids = keys(510) // more than a page of the sweep
	}
	w.Change(ids...)
	w.empty()
	n := w.NewNode()
	n.Kind.Workers = 50
	n.Start()
	t.Logf("settled %v after a start", w.Settle(time.Minute))

}

// swept empties the queue beside a worker.
func swept(t *testing.T, w *World) {
	w.Sweep = true
	var works atomic.Bool
	w.Act = func(context.Context, *Node, *flow.Run) (flow.Result, error) {
		if !works.Load() {
			return flow.Result{}, errors.New("broken")
		}
		return flow.Result{}, nil
	}
	w.NewNode().Start()
	time.Sleep(time.Second)
	w.Change(keys(20)...)
	time.Sleep(5 * time.Second)
	works.Store(true)
	w.empty()
	t.Logf("settled %v after the queue was emptied", w.Settle(7*time.Minute))
}

// empty empties the queue.
func (w *World) empty() {
	w.t.Helper()
	w.update(func(ctx context.Context, tx *db.Tx) error {
		_, err := tx.Exec(ctx, "DELETE FROM work")
		return err
	})
}

// until waits until a thing's key is in a state, or done if state is empty.
func (w *World) until(id, state string) flow.Item {
	w.t.Helper()
	for began := time.Now(); time.Since(began) < 4*time.Hour; time.Sleep(500 * time.Millisecond) {
		if i, _ := w.Item(id); i.State == state {
			return i
		}
	}
	w.t.Fatalf("%s is never %s", id, state)
	return flow.Item{}
}

func failures(t *testing.T, w *World) {
	w.Sweep = true
	var mu sync.Mutex
	var at []time.Time
	broken := true
	w.Act = func(context.Context, *Node, *flow.Run) (flow.Result, error) {
		mu.Lock()
		defer mu.Unlock()
		at = append(at, time.Now())
		if broken {
			return flow.Result{}, fmt.Errorf("it is\x00 broken\n%s", strings.Repeat("é", 600))
		}
		return flow.Result{}, nil
	}
	w.Change("x")
	n := w.NewNode().Start()
	time.Sleep(40 * time.Second)
	mu.Lock()
	if len(at) < 5 {
		t.Errorf("%d runs in 40 s, want at least 5", len(at))
	}
	for i := 1; i < len(at); i++ {
		want := time.Second << (i - 1)
		if got := at[i].Sub(at[i-1]); got < want*3/4 || got > want*5/4+time.Second {
			t.Errorf("back-off %d took %v, want about %v", i, got, want)
		}
	}
	at = nil
	mu.Unlock()
	if i, _ := w.Item("x"); i.State != flow.Queued || i.Attempts < 5 || i.Due.Before(time.Now()) {
		t.Errorf("after some failures: %+v", i)
	}
	w.update(func(ctx context.Context, tx *db.Tx) error { // as if it had failed 18 times
		_, err := tx.Exec(ctx, "UPDATE work SET attempts = 18, due = 0")
		return err
	})
	time.Sleep(time.Second)
	i, _ := w.Item("x")
	if left := time.Until(i.Due); i.Attempts != 19 || left < 449*time.Second || left > 750*time.Second {
		t.Errorf("after 19 failures: %+v, want a back-off of about ten minutes", i)
	}
	w.update(func(ctx context.Context, tx *db.Tx) error {
		_, err := tx.Exec(ctx, "UPDATE work SET due = 0")
		return err
	})
	i = w.until("x", flow.Parked)
	if i.Attempts != 20 || !strings.HasPrefix(i.Reason, "it is broken éé") || len(i.Reason) > 1003 {
		t.Errorf("parked as %+v", i)
	}
	mu.Lock()
	broken = false
	mu.Unlock()

	runs := w.Runs("x")
	n.Stop()
	w.NewNode().Start()
	time.Sleep(5 * time.Second) // the sweep leaves it parked
	if r := w.Runs("x"); r != runs {
		t.Fatalf("%d runs while parked, want none", r-runs)
	}
	ctx := domain.WithActor(context.Background(), domain.Actor{Kind: "local", ID: "local:ann"})
	if err := w.q.ByHand(ctx, "resume", flow.Key{Kind: kindName, ID: "x"}); !fault.Is(err, fault.Conflict) {
		t.Errorf("resume of parked work: %v, want a conflict", err)
	}
	if err := w.q.ByHand(ctx, "retry", flow.Key{Kind: kindName, ID: "none"}); !fault.Is(err, fault.NotFound) {
		t.Errorf("retry of unknown work: %v, want not found", err)
	}
	if err := w.q.ByHand(ctx, "retry", flow.Key{Kind: kindName, ID: "x"}); err != nil {
		t.Errorf("retry: %v", err)
	}
	w.Settle(time.Second)
	rows := testkit.AuditLog(t, w.d)
	if len(rows) != 1 || rows[0].Action != "work.retry" || rows[0].Target != "thing/x" ||
		rows[0].Actor.ID != "local:ann" || !strings.Contains(rows[0].Summary, `"attempts":20`) {
		t.Errorf("audit log: %+v, want one row for the retry", rows)
	}
}

func permanent(t *testing.T, w *World) {
	var exists atomic.Bool
	w.Act = func(context.Context, *Node, *flow.Run) (flow.Result, error) {
		if !exists.Load() {
			return flow.Result{}, fmt.Errorf("act: %w", fault.New(fault.Invalid, "NoTenant", "no such tenant"))
		}
		return flow.Result{}, nil
	}
	w.Change("x")
	w.NewNode().Start()
	i := w.until("x", flow.Parked)
	if i.Attempts != 1 || i.Reason != "act: NoTenant: no such tenant" || !i.Due.IsZero() {
		t.Errorf("parked as %+v", i)
	}
	exists.Store(true)
	w.Change("x") // it may be what was wrong
	w.Settle(time.Second)
}

func panics(t *testing.T, w *World) {
	w.Act = func(_ context.Context, _ *Node, run *flow.Run) (flow.Result, error) {
		if run.Attempt < 3 {
			panic("a mistake")
		}
		return flow.Result{}, nil
	}
	w.Change("x")
	w.NewNode().Start()
	w.Settle(10 * time.Second)
	if r := w.Runs("x"); r != 3 {
		t.Errorf("%d runs, want 3", r)
	}
}

func deadly(t *testing.T, w *World) {
	w.Act = func(_ context.Context, n *Node, _ *flow.Run) (flow.Result, error) {
		n.Kill()
		return flow.Result{}, errDead
	}
	w.Change("x")
	for range 20 {
		n := w.NewNode().Start()
		for !n.Killed() {
			time.Sleep(50 * time.Millisecond)
		}
	}
	w.NewNode().Start()
	i := w.until("x", flow.Parked)
	if i.Attempts != 21 || !strings.Contains(i.Reason, "the process or its lease ended") {
		t.Errorf("parked as %+v", i)
	}
	if r := w.Runs("x"); r != 20 {
		t.Errorf("%d runs, want 20", r)
	}
}

func waits(t *testing.T, w *World) {
	w.Sweep = true
	var consent atomic.Bool
	w.Act = func(context.Context, *Node, *flow.Run) (flow.Result, error) {
		if !consent.Load() {
			return flow.Result{Wait: "the tenant's administrator must consent"}, nil
		}
		return flow.Result{}, nil
	}
	w.Change("x", "y")
	n := w.NewNode().Start()
	for _, id := range []string{"x", "y"} {
		i := w.until(id, flow.Waiting)
		if i.Reason != "the tenant's administrator must consent" || i.Attempts != 0 || !i.Due.IsZero() {
			t.Errorf("waits as %+v", i)
		}
	}
	n.Stop()
	w.NewNode().Start()
	time.Sleep(5 * time.Second) // the sweep leaves them waiting
	if r := w.Runs("x"); r != 1 {
		t.Errorf("%d runs while waiting, want 1", r)
	}
	key := flow.Key{Kind: kindName, ID: "x"}
	if err := w.q.ByHand(context.Background(), "retry", key); !fault.Is(err, fault.Conflict) {
		t.Errorf("Retry of waiting work: %v, want a conflict", err)
	}
	consent.Store(true)
	if err := w.q.ByHand(context.Background(), "resume", flow.Key{Kind: kindName, ID: "x"}); err != nil {
		t.Errorf("Resume: %v", err)
	}
	w.Change("y")
	w.Settle(time.Second)
	if rows := testkit.AuditLog(t, w.d); len(rows) != 1 || rows[0].Action != "work.resume" {
		t.Errorf("audit log: %+v, want one row for the resume", rows)
	}
}

func notBefore(t *testing.T, w *World) {
	var again atomic.Bool
	w.Act = func(context.Context, *Node, *flow.Run) (flow.Result, error) {
		if again.Swap(false) {
			return flow.Result{Again: time.Now().Add(time.Minute)}, nil
		}
		return flow.Result{}, nil
	}
	w.NewNode().Start()
	w.ChangeAt(time.Now().Add(time.Minute), "later", "sooner")
	w.ChangeAt(time.Now().Add(2*time.Minute), "later")
	w.ChangeAt(time.Now().Add(10*time.Second), "sooner")
	time.Sleep(9 * time.Second)
	if w.Runs("later")+w.Runs("sooner") > 0 {
		t.Error("run before its time")
	}
	time.Sleep(2 * time.Second)
	if w.Runs("later") != 0 || w.Runs("sooner") != 1 {
		t.Errorf("after 11 s: later ran %d times, sooner %d; want 0 and 1", w.Runs("later"), w.Runs("sooner"))
	}
	if took := w.Settle(time.Hour); took < 48*time.Second || took > 52*time.Second {
		t.Errorf("later ran after %v more, want at the earliest time that was asked for", took)
	}
	again.Store(true)
	w.Change("again")
	if took := w.Settle(time.Hour); took < time.Minute || took > 63*time.Second || w.Runs("again") != 2 {
		t.Errorf("again: settled after %v in %d runs, want a minute and 2", took, w.Runs("again"))
	}
}

func limits(t *testing.T, w *World) {
	var mu sync.Mutex
	var requests []time.Time
	refuse := true
	next := time.Now()
	limit := &flow.Limit{Allow: func(context.Context) time.Duration { // ten a second
		mu.Lock()
		defer mu.Unlock()
		if wait := time.Until(next); wait > 0 {
			return wait
		}
		next = time.Now().Add(100 * time.Millisecond)
		return 0
	}}
	w.Act = func(ctx context.Context, _ *Node, _ *flow.Run) (flow.Result, error) {
		if err := limit.Wait(ctx); err != nil {
			return flow.Result{}, err
		}
		mu.Lock()
		defer mu.Unlock()
		requests = append(requests, time.Now())
		if refuse {
			refuse = false
			return flow.Result{}, fault.New(fault.Limited, "TooManyRequests", "slow down").After(time.Minute)
		}
		return flow.Result{}, nil
	}
	n := w.NewNode()
	n.Kind.Limit, n.Kind.Workers = limit, 8
	w.Change(keys(40)...)
	n.Start()
	time.Sleep(30 * time.Second)
	items, err := w.q.List(context.Background(), "", "", flow.Key{}, 100)
	for _, i := range items {
		if i.Attempts != 0 {
			t.Errorf("%+v: being limited counts as a failure", i)
		}
	}
	if len(items) < 30 || err != nil {
		t.Errorf("%d keys (%v) wait for the end of Retry-After, want most", len(items), err)
	}
	w.Settle(3 * time.Minute)
	if len(requests) != 41 {
		t.Fatalf("%d requests, want 41", len(requests))
	}
	for i := 1; i < len(requests); i++ {
		gap := requests[i].Sub(requests[i-1])
		if want := 100 * time.Millisecond; gap < want {
			t.Errorf("request %d came after %v, want at least %v", i, gap, want)
		}
	}
	if gap := requests[1].Sub(requests[0]); gap < time.Minute {
		t.Errorf("the service's Retry-After of a minute was not honoured: next request after %v", gap)
	}
}

// gate lets runs be held: they begin with Act, which waits.
func (w *World) gate() (began chan string, open chan struct{}) {
	began, open = make(chan string, 100), make(chan struct{})
	w.Act = func(ctx context.Context, _ *Node, run *flow.Run) (flow.Result, error) {
		began <- run.ID
		select {
		case <-open:
			return flow.Result{}, nil
		case <-ctx.Done():
			return flow.Result{}, ctx.Err()
		}
	}
	return began, open
}

func drains(t *testing.T, w *World) {
	began, open := w.gate()
	n := w.NewNode().Start()
	w.Change("x")
	<-began
	drained := make(chan error)
	go func() { drained <- n.Queue.Drain(context.Background()) }()
	synctest.Wait()
	w.Change("y")
	time.Sleep(10 * time.Second)
	select {
	case <-drained:
		t.Error("drained while a run was in progress")
	default:
	}
	if i, _ := w.Item("x"); i.State != flow.Running {
		t.Errorf("x is %q while draining, want running: the lease must be renewed", i.State)
	}
	close(open)
	if err := <-drained; err != nil {
		t.Errorf("Drain: %v", err)
	}
	if _, ok := w.Item("x"); ok || w.Runs("y") != 0 {
		t.Errorf("after the drain: x is done: %v, y ran %d times; want true and 0", !ok, w.Runs("y"))
	}
	n.Stop()
	w.NewNode().Start()
	w.Settle(time.Second)
}

// drainsBusy drains while a long transaction, such as an import, occupies the only writer of SQLite.
func drainsBusy(t *testing.T, w *World) {
	n := w.NewNode().Start()
	time.Sleep(time.Second)
	imported := make(chan struct{})
	var importing sync.WaitGroup
	importing.Go(func() {
		w.update(func(context.Context, *db.Tx) error {
			<-imported
			return nil
		})
	})
	time.Sleep(2 * time.Second)
	drained := make(chan error, 1)
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	go func() { drained <- n.Queue.Drain(ctx) }()
	time.Sleep(2 * time.Second)
	select {
	case <-drained:
	default:
		t.Error("Drain continues a second after its time")
	}
	close(imported)
	importing.Wait()
}

func sweepPanics(t *testing.T, w *World) {
	w.Sweep = true
	w.Change("x")
	w.empty()
	n := w.NewNode()
	list, first := n.Kind.List, true
	n.Kind.List = func(ctx context.Context, after string, limit int) ([]string, error) {
		if first {
			first = false
			panic("a mistake")
		}
		return list(ctx, after, limit)
	}
	n.Start()
	w.Settle(15 * time.Second)
}

// stuck has a run that ignores the end of its context when its worker loses the lease.
func stuck(t *testing.T, w *World) {
	began, end := make(chan struct{}), make(chan struct{})
	n := w.NewNode()
	w.Act = func(_ context.Context, n *Node, run *flow.Run) (flow.Result, error) {
		if run.ID == "stuck" && run.Attempt == 1 {
			close(began)
			n.leave(run.ID) // two runs of it are expected
			<-end
		}
		return flow.Result{}, nil
	}
	n.Start()
	w.Change("stuck")
	<-began
	restore := n.Cut()
	time.Sleep(5 * time.Second)
	restore()
	w.Change("other")
	w.Settle(2 * Recovery)
	close(end)
}

func stops(t *testing.T, w *World) {
	began, open := w.gate()
	n := w.NewNode().Start()
	w.Change("x")
	<-began
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := n.Queue.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Drain past its time: %v", err)
	}
	n.Stop()
	if i, _ := w.Item("x"); i.State != flow.Queued || i.Attempts != 0 || i.Due.After(time.Now()) {
		t.Errorf("after the stop: %+v, want queued at once without a failure", i)
	}
	close(open)
	w.NewNode().Start()
	w.Settle(time.Second)
}

func timeouts(t *testing.T, w *World) {
	w.Act = func(ctx context.Context, _ *Node, run *flow.Run) (flow.Result, error) {
		if run.Attempt == 1 {
			<-ctx.Done()
			return flow.Result{}, ctx.Err()
		}
		return flow.Result{}, nil
	}
	w.NewNode().Start()
	w.Change("x")
	if took := w.Settle(6 * time.Minute); took < 5*time.Minute || w.Runs("x") != 2 {
		t.Errorf("settled after %v in %d runs, want five minutes and 2", took, w.Runs("x"))
	}
}

func progress(t *testing.T, w *World) {
	w.failFirst()
	w.Change("fail")
	w.NewNode().Start()
	w.Settle(5 * time.Second)
	want := []string{"queued:the first attempt fails", "running:version 1", ":"}
	if diff := cmp.Diff(want, w.Progress("fail")); diff != "" {
		t.Errorf("progress differs (-want +got):\n%s", diff)
	}
}

func lists(t *testing.T, w *World) {
	w.Change("b", "a", "c")
	w.update(func(ctx context.Context, tx *db.Tx) error { return w.q.Enqueue(ctx, tx, "other", time.Time{}, "z") })
	var got []string
	for after := (flow.Key{}); ; {
		page, err := w.q.List(context.Background(), "", "", after, 3)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, i := range page {
			got = append(got, i.Kind+"/"+i.ID+" "+i.State)
		}
		after = page[len(page)-1].Key
	}
	want := []string{"other/z queued", "thing/a queued", "thing/b queued", "thing/c queued"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("list differs (-want +got):\n%s", diff)
	}
	for _, c := range []struct {
		kind, state string
		want        int
	}{{"other", "", 1}, {"", flow.Queued, 4}, {"thing", flow.Parked, 0}} {
		page, err := w.q.List(context.Background(), c.kind, c.state, flow.Key{}, 10)
		if err != nil || len(page) != c.want {
			t.Errorf("List(%q, %q): %d keys, %v; want %d", c.kind, c.state, len(page), err, c.want)
		}
	}
	for _, id := range []string{"", strings.Repeat("x", 201)} {
		err := w.d.Update(context.Background(), func(ctx context.Context, tx *db.Tx) error {
			return w.q.Enqueue(ctx, tx, kindName, time.Time{}, id)
		})
		if err == nil {
			t.Errorf("an id of %d bytes was accepted", len(id))
		}
	}
}

// former changes the configuration of a node that was killed: it no longer has the kind.
func former(t *testing.T, w *World) {
	began := make(chan struct{})
	w.Act = func(ctx context.Context, _ *Node, run *flow.Run) (flow.Result, error) {
		switch run.ID {
		case "parked":
			return flow.Result{}, fault.New(fault.Invalid, "No", "no")
		case "waiting":
			return flow.Result{Wait: "someone"}, nil
		}
		close(began)
		<-ctx.Done()
		return flow.Result{}, ctx.Err()
	}
	w.Change("parked", "waiting", "running")
	n := w.NewNode().Start()
	<-began
	w.until("parked", flow.Parked)
	w.until("waiting", flow.Waiting)
	n.Kill()
	w.Change("queued")
	w.ChangeAt(time.Now().Add(time.Hour), "later")
	w.update(func(ctx context.Context, tx *db.Tx) error { return w.q.Enqueue(ctx, tx, "other", time.Time{}, "z") })

	n = w.NewNode()
	n.Kind = nil
	n.Start()
	left := func() (ids string) {
		items, err := w.q.List(context.Background(), "", "", flow.Key{}, 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range items {
			ids += " " + i.ID
		}
		return ids
	}
	time.Sleep(time.Second)
	if got := left(); got != " z running" {
		t.Errorf("at the start everything but%s is removed, want z of another kind, and what may be running", got)
	}
	time.Sleep(20 * time.Minute)
	if got := left(); got != " z" {
		t.Errorf("everything but%s is removed, want z of another kind", got)
	}
	for _, id := range []string{"parked", "waiting", "running", "queued", "later"} {
		if p := w.Progress(id); len(p) == 0 || p[len(p)-1] != ":" {
			t.Errorf("progress of %s: %q, want that it is done in the end", id, p)
		}
	}
}

func counts(t *testing.T, w *World) {
	w.Act = func(_ context.Context, _ *Node, run *flow.Run) (flow.Result, error) {
		switch run.ID {
		case "parked":
			return flow.Result{}, fault.New(fault.Invalid, "No", "no")
		case "waiting":
			return flow.Result{Wait: "someone"}, nil
		}
		return flow.Result{}, nil
	}
	w.Change("parked", "waiting", "done")
	n := w.NewNode().Start()
	time.Sleep(5 * time.Second)
	w.ChangeAt(time.Now().Add(time.Hour), "later")
	time.Sleep(15 * time.Second)
	want := map[string]float64{
		"tandem_work_keys queued": 1, "tandem_work_keys parked": 1, "tandem_work_keys waiting": 1,
		"tandem_work_runs_total done": 1, "tandem_work_runs_total parked": 1, "tandem_work_runs_total waiting": 1,
		"tandem_work_overdue_seconds ": 0, "tandem_work_leases_lost_total ": 0, "tandem_work_run_seconds ": 3,
	}
	if diff := cmp.Diff(want, n.metrics()); diff != "" {
		t.Errorf("metrics differ (-want +got):\n%s", diff)
	}
}

// metrics returns the node's metrics by name and the label that is not the kind.
func (n *Node) metrics() map[string]float64 {
	n.w.t.Helper()
	families, err := n.Metrics.Gather()
	if err != nil {
		n.w.t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			label := ""
			for _, l := range m.GetLabel() {
				if l.GetName() != "kind" {
					label = l.GetValue()
				}
			}
			out[f.GetName()+" "+label] = m.GetGauge().GetValue() + m.GetCounter().GetValue() +
				float64(m.GetHistogram().GetSampleCount())
		}
	}
	return out
}

func twoNodes(t *testing.T, w *World) {
	var by [2]atomic.Int64
	nodes := []*Node{w.NewNode(), w.NewNode()}
	w.Act = func(_ context.Context, n *Node, _ *flow.Run) (flow.Result, error) {
		for i := range nodes {
			if nodes[i] == n {
				by[i].Add(1)
			}
		}
		time.Sleep(10 * time.Millisecond)
		return flow.Result{}, nil
	}
	ids := keys(300)
	w.Change(ids...)
	for _, n := range nodes {
		n.Kind.Workers = 10
		n.Start()
	}
	for i := range 5 {
		w.Change(ids[i*50 : i*50+100]...)
	}
	w.Settle(time.Hour)
	t.Logf("%d and %d runs", by[0].Load(), by[1].Load())
	if by[0].Load() < 50 || by[1].Load() < 50 {
		t.Errorf("runs by node: %d and %d, want both to take part", by[0].Load(), by[1].Load())
	}
}

func hangs(t *testing.T, w *World) {
	a, b := w.NewNode(), w.NewNode()
	var cancelled, taken time.Time
	began := make(chan struct{})
	w.Act = func(ctx context.Context, n *Node, run *flow.Run) (flow.Result, error) {
		if n == b {
			taken = time.Now()
		}
		if n == b || run.ID != "x" {
			return flow.Result{}, nil
		}
		close(began)
		<-ctx.Done()
		cancelled = time.Now()
		return flow.Result{}, ctx.Err()
	}
	a.Start()
	w.Change("x")
	<-began
	b.Start()
	restore := a.Cut()
	cut := time.Now()
	took := w.Settle(Recovery)
	if cancelled.IsZero() || cancelled.After(taken.Add(-500*time.Millisecond)) {
		t.Errorf("the run was cancelled %v after the cut and begun by another worker after %v, want half a second "+
			"between", cancelled.Sub(cut), taken.Sub(cut))
	}
	t.Logf("cancelled after %v, taken over after %v, settled after %v", cancelled.Sub(cut), taken.Sub(cut), took)
	time.Sleep(5 * time.Second)
	restore()
	time.Sleep(5 * time.Second)
	if m := a.metrics(); m["tandem_work_leases_lost_total "] != 1 || m["tandem_work_runs_total lost"] != 1 {
		t.Errorf("the worker that hung counted %v, want one lease and one run lost", m)
	}
	b.Stop()
	w.Change("y") // the one that hung works again
	w.Settle(Recovery)
}

func fenced(t *testing.T, w *World) {
	a, b := w.NewNode(), w.NewNode()
	began, taken, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	w.Act = func(ctx context.Context, n *Node, run *flow.Run) (flow.Result, error) {
		if n == b {
			close(taken)
			return flow.Result{}, nil
		}
		close(began)
		a.leave(run.ID) // it is about to be taken over on purpose
		<-taken
		// As a run does that does not look at its context, in a process that was paused.
		ended <- w.d.Update(context.WithoutCancel(ctx), func(ctx context.Context, tx *db.Tx) error {
			if _, err := tx.Exec(ctx, "UPDATE things SET observed = 99"); err != nil {
				return err
			}
			return run.Step(ctx, tx, "too late")
		})
		return flow.Result{}, nil
	}
	a.Start()
	w.Change("x")
	<-began
	b.Start()
	defer a.Cut()()
	if err := <-ended; !errors.Is(err, flow.ErrLost) {
		t.Errorf("write of a run that lost its key: %v, want %v", err, flow.ErrLost)
	}
	w.Settle(Recovery)
}

func shortCut(t *testing.T, w *World) {
	a, b := w.NewNode(), w.NewNode()
	began, open := w.gate()
	a.Start()
	w.Change("x")
	<-began
	b.Start()
	for range 5 {
		restore := a.Cut()
		time.Sleep(1400 * time.Millisecond)
		restore()
		time.Sleep(1100 * time.Millisecond)
	}
	close(open)
	w.Settle(time.Second)
	if r := w.Runs("x"); r != 1 {
		t.Errorf("%d runs, want 1", r)
	}
}
