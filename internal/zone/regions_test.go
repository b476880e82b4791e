package zone_test

import (
	"context"
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
	moves   []time.Time
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
		m.moves = append(m.moves, time.Now())
	}

	return nil
}

func (m *memory) Beat(_ context.Context, node string, region int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.beats[node] = zone.Beat{Node: node, Region: region, Count: m.beats[node].Count + 1}

	return m.failure
}

func (m *memory) Beats(context.Context) ([]zone.Beat, error) {
	m.mu.Lock()
	defer m.mu.Unlock()

	return slices.Collect(maps.Values(m.beats)), m.failure
}

// region returns the region in which provapi is.
func (m *memory) region() string {
	rs := m.all()
	if len(rs) != 1 {
		return "none"
	}

	return map[string]string{"192.0.2.1": "r1", "198.51.100.1": "r2"}[rs[0].Data]
}

// provapi moves when its region is not heard for several beats, stays where it is when none is, ignores gaps shorter
// than that, and returns when the first region has been heard for minutes.
func TestMover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{beats: map[string]zone.Beat{}}
		k := zone.NewKeeper(&zone.Names{Regions: []zone.Region{
			{Edges: []zone.Edge{{Name: "e1", Addresses: []string{"192.0.2.1"}}}},
			{Edges: []zone.Edge{{Name: "e1", Addresses: []string{"198.51.100.1"}}}},
		}}, "gw.example.com", []string{"1r1", "1r2"}, nil, m, nil, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var running sync.WaitGroup
		defer running.Wait()
		defer cancel()
		running.Go(func() { _ = zone.NewMover(k, m).Run(ctx) })
		var up [2]func()
		start := func(region int) {
			ctx, stop := context.WithCancel(ctx)
			up[region-1] = stop
			running.Go(func() {
				_ = zone.Report(ctx, m, []string{"a", "b"}[region-1], region, func() bool { return true })
			})
		}
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
		if n := len(m.moves); n != 4 {
			t.Errorf("%d changes of provapi, want the first one and three moves", n)
		}
	})
}

// A mover that starts does not know who is alive: it moves nothing until it has listened.
func TestMoverStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{records: []zone.Record{address("provapi", "198.51.100.1")}, beats: map[string]zone.Beat{
			"a": {Node: "a", Region: 1, Count: 100}, "b": {Node: "b", Region: 2, Count: 7}}}
		regions := []zone.Region{{API: []string{"192.0.2.1"}}, {API: []string{"198.51.100.1"}}}
		k := zone.NewKeeper(&zone.Names{Regions: regions}, "gw.example.com", []string{"1r1", "1r2"}, nil, m, nil,
			slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = zone.NewMover(k, m).Run(ctx) })
		time.Sleep(time.Minute)
		cancel()
		running.Wait()
		if len(m.moves) != 0 {
			t.Errorf("moved to %s by beats of nodes that ended", m.region())
		}
	})
}

// The addresses in the configuration have changed while the first region is down: provapi gets those of the region that
// is heard, not those of the first one in between.
func TestMoverAddressesChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{records: []zone.Record{address("provapi", "198.51.100.9")}, beats: map[string]zone.Beat{}}
		regions := []zone.Region{{API: []string{"192.0.2.1"}}, {API: []string{"198.51.100.1"}}}
		k := zone.NewKeeper(&zone.Names{Regions: regions}, "gw.example.com", []string{"1r1", "1r2"}, nil, m, nil,
			slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = zone.NewMover(k, m).Run(ctx) })
		running.Go(func() { _ = zone.Report(ctx, m, "b", 2, func() bool { return true }) })
		time.Sleep(time.Minute)
		cancel()
		running.Wait()
		if len(m.moves) != 1 || m.region() != "r2" {
			t.Errorf("provapi is in %s after %d changes, want r2 after 1", m.region(), len(m.moves))
		}
	})
}
