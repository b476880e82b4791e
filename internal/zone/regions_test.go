package zone_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tandemgw/tandem/internal/platform/feed"
	"github.com/tandemgw/tandem/internal/zone"
)

// memory is a store in memory, for one source.
type memory struct {
	zone.Store
	zone.Tx

	mu      sync.Mutex
	records []zone.Record
	beats   map[string]zone.Beat
	failure error
	moves   int       // changes of provapi
	stalled time.Time // until then nothing is read
}

func (m *memory) View(ctx context.Context, fn func(context.Context, zone.Reader) error) error {
	return fn(ctx, m)
}

func (m *memory) Update(ctx context.Context, fn func(context.Context, zone.Tx) error) error {
	return fn(ctx, m)
}

func (m *memory) Lock(context.Context) error                                 { return nil }
func (m *memory) Serial(context.Context) (zone.Serial, error)                { return 1, nil }
func (m *memory) Records(context.Context, string) ([]zone.Record, error)     { return m.all(), nil }
func (m *memory) Set(context.Context, string, string) ([]zone.Record, error) { return m.all(), nil }
func (m *memory) Cursor(context.Context) (feed.Cursor, error)                { return feed.Cursor{}, nil }
func (m *memory) Append(context.Context, *zone.Version) error                { return nil }
func (m *memory) Remove(_ context.Context, _ string, rs []zone.Record) error {
	return m.change(rs, nil)
}
func (m *memory) Add(_ context.Context, _ string, rs []zone.Record) error { return m.change(nil, rs) }

func (m *memory) all() []zone.Record {
	m.mu.Lock()
	defer m.mu.Unlock()

	return slices.Clone(m.records)
}

func (m *memory) change(removed, added []zone.Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.records = slices.DeleteFunc(m.records, func(r zone.Record) bool { return slices.Contains(removed, r) })
	m.records = append(m.records, added...)
	if len(added) > 0 {
		m.moves++
	}

	return nil
}

func (m *memory) Beat(_ context.Context, node string, region int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failure != nil {
		return m.failure
	}
	m.beats[node] = zone.Beat{Node: node, Region: region, Count: m.beats[node].Count + 1}

	return nil
}

func (m *memory) Beats(context.Context) ([]zone.Beat, error) {
	m.mu.Lock()
	stalled := m.stalled
	m.mu.Unlock()
	time.Sleep(time.Until(stalled))
	m.mu.Lock()
	defer m.mu.Unlock()

	return slices.Collect(maps.Values(m.beats)), m.failure
}

// moved returns how often provapi was changed.
func (m *memory) moved() int {
	m.mu.Lock()
	defer m.mu.Unlock()

	return m.moves
}

// region returns the region in which provapi is.
func (m *memory) region() string {
	rs := m.all()
	if len(rs) != 1 {
		return "none"
	}

	return map[string]string{"192.0.2.1": "r1", "198.51.100.1": "r2"}[rs[0].Data]
}

// mover runs a mover of two regions with API addresses, and returns what ends it.
func mover(t *testing.T, m *memory, first string) (stop func()) {
	t.Helper()
	regions := []zone.Region{{API: []string{first}}, {API: []string{"198.51.100.1"}}}
	k := zone.NewKeeper(&zone.Names{Regions: regions}, "gw.example.com", []string{"1r1", "1r2"}, nil, m, nil,
		slog.New(slog.NewTextHandler(t.Output(), nil)))
	return run(t, func(ctx context.Context) error { return zone.NewMover(k, m).Run(ctx) })
}

// report runs the beats of a node.
func report(t *testing.T, m *memory, node string, region int) (stop func()) {
	t.Helper()
	return run(t, func(ctx context.Context) error {
		return zone.Report(ctx, m, node, region, func() bool { return true }, slog.New(slog.DiscardHandler))
	})
}

// run runs what ends with its context.
func run(t *testing.T, what func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = what(ctx) })

	return func() {
		cancel()
		running.Wait()
	}
}

// provapi moves when its region is not heard for several beats, stays where it is when none is, ignores gaps shorter
// than that, and returns when the first region has been heard for minutes.
func TestMover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{beats: map[string]zone.Beat{}}
		defer mover(t, m, "192.0.2.1")()
		up := [2]func(){func() {}, func() {}}
		start := func(region int) { up[region-1] = report(t, m, []string{"a", "b"}[region-1], region) }
		defer func() { up[0](); up[1]() }()
		after := func(d time.Duration, want, what string) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if got := m.region(); got != want {
				t.Fatalf("%s: provapi is in %s, want %s", what, got, want)
			}
		}

		after(0, "r1", "at first")
		start(1)
		start(2)
		after(time.Hour, "r1", "both are heard")
		for range 50 { // down and up within a beat or two
			up[0]()
			after(6*time.Second, "r1", "a short gap")
			start(1)
			after(6*time.Second, "r1", "after a short gap")
		}
		up[0]()
		after(10*time.Second, "r1", "one lost beat")
		after(15*time.Second, "r2", "region 1 has ended")
		start(1)
		after(4*time.Minute, "r2", "region 1 is back, but not for long")
		after(2*time.Minute, "r1", "region 1 is back")
		up[1]()
		after(30*time.Second, "r1", "region 2 has ended")
		up[0]()
		after(time.Hour, "r1", "none is heard")
		start(2)
		after(30*time.Second, "r2", "region 2 is heard again")
		if n := m.moved(); n != 4 {
			t.Errorf("%d changes of provapi, want the first one and three moves", n)
		}
	})
}

// A mover that starts does not know who is alive: it moves nothing until it has listened.
func TestMoverStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{records: []zone.Record{address("provapi", "198.51.100.1")}, beats: map[string]zone.Beat{
			"a": {Node: "a", Region: 1, Count: 100}, "b": {Node: "b", Region: 2, Count: 7}}}
		stop := mover(t, m, "192.0.2.1")
		time.Sleep(time.Minute)
		stop()
		if m.moved() != 0 {
			t.Errorf("moved to %s by beats of nodes that ended", m.region())
		}
	})
}

// The addresses in the configuration have changed while the first region is down: provapi gets those of the region that
// is heard, not those of the first one in between.
func TestMoverAddressesChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{records: []zone.Record{address("provapi", "198.51.100.9")}, beats: map[string]zone.Beat{}}
		stop := mover(t, m, "192.0.2.1")
		defer report(t, m, "b", 2)()
		time.Sleep(time.Minute)
		stop()
		if m.moved() != 1 || m.region() != "r2" {
			t.Errorf("provapi is in %s after %d changes, want r2 after 1", m.region(), m.moved())
		}
	})
}

// After the database was unavailable, the nodes of all regions are heard again within a beat: none of them is taken
// for gone because another one was faster.
func TestReportWithoutDatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{beats: map[string]zone.Beat{}}
		defer report(t, m, "a", 1)()
		fail := func(err error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.failure = err
		}
		time.Sleep(time.Minute)
		fail(errors.New("the database is unavailable"))
		time.Sleep(10 * time.Minute)
		fail(nil)
		before, _ := m.Beats(t.Context())
		time.Sleep(6 * time.Second)
		if after, _ := m.Beats(t.Context()); after[0].Count == before[0].Count {
			t.Error("no beat after the database was back")
		}
	})
}

// Two nodes have different addresses of the region in use. They do not answer each other without an end.
func TestMoversDiffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{beats: map[string]zone.Beat{}}
		for _, first := range []string{"192.0.2.1", "192.0.2.9"} {
			defer mover(t, m, first)()
		}
		defer report(t, m, "a", 1)()
		time.Sleep(time.Hour)
		if n := m.moved(); n > 30 {
			t.Errorf("provapi was changed %d times in an hour", n)
		}
	})
}

// The database does not answer for a while, in which no beat gets through, and the second region is the first one that
// is heard again: provapi stays.
func TestMoverStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{beats: map[string]zone.Beat{"a": {Node: "a", Region: 1}, "b": {Node: "b", Region: 2}}}
		defer mover(t, m, "192.0.2.1")()
		beat := func(nodes ...string) {
			for _, n := range nodes {
				_ = m.Beat(t.Context(), n, m.beats[n].Region)
			}
		}
		for range 20 {
			beat("a", "b")
			time.Sleep(5 * time.Second)
		}
		m.mu.Lock()
		m.stalled = time.Now().Add(20 * time.Second)
		m.mu.Unlock()
		time.Sleep(20 * time.Second)
		beat("b")
		time.Sleep(6 * time.Second)
		beat("a")
		time.Sleep(6 * time.Second)
		if m.moved() != 1 {
			t.Errorf("provapi was moved to %s by a stall of the database", m.region())
		}
	})
}
