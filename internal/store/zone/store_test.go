package zone_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/feed/outbox"
	store "github.com/tandemgw/tandem/internal/store/zone"
	"github.com/tandemgw/tandem/internal/testkit"
	"github.com/tandemgw/tandem/internal/zone"
)

const origin = "customers.example"

func open(d *db.DB) *store.Store {
	return store.New(d, outbox.New(d, outbox.Default(), slog.New(slog.DiscardHandler), nil), nil)
}

func address(name string, ttl uint32, a string) zone.Record {
	return zone.Address(name, ttl, netip.MustParseAddr(a))
}

func publish(t *testing.T, s *store.Store, sources map[string][]zone.Record) {
	t.Helper()
	if err := zone.Publish(t.Context(), s, origin, sources); err != nil {
		t.Fatal(err)
	}
}

// server is a name server's copy of the zone.
type server struct {
	*zone.Zone
	*zone.Follower
	changes chan struct{}
	stop    func()
	reg     *prometheus.Registry
	*lines
}

// lines counts lines of a log.
type lines struct {
	io.Writer
	comparing atomic.Int32 // "comparing all records"
}

func (l *lines) Write(b []byte) (int, error) {
	l.comparing.Add(int32(bytes.Count(b, []byte("comparing all records"))))
	return l.Writer.Write(b)
}

// value returns 1 if the zone is held.
func (x *server) value(t *testing.T) float64 {
	t.Helper()
	families, err := x.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "tandem_zone_held" {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}

	return -1
}

// event waits until a condition holds.
func (x *server) event(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for limit := time.Now().Add(time.Minute); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("not seen: %s", what)
		}
	}
}

// follow runs a follower with its files in dir until stop is called or the test ends.
func follow(t *testing.T, s *store.Store, dir string) *server {
	t.Helper()
	x := &server{Zone: zone.New(origin, "ns1.operator.example", "dns@operator.example"),
		changes: make(chan struct{}, 1), reg: prometheus.NewRegistry(), lines: &lines{Writer: t.Output()}}
	var err error
	x.Follower, err = zone.Follow(x.Zone, dir, s, func() {
		select {
		case x.changes <- struct{}{}:
		default:
		}
	}, slog.New(slog.NewTextHandler(x.lines, nil)), x.reg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- x.Run(ctx) }()
	x.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(x.stop)

	return x
}

// until waits until the zone has the records, and returns its serial.
func (x *server) until(t *testing.T, want []zone.Record) zone.Serial {
	t.Helper()
	slices.SortFunc(want, zone.Compare)
	limit := time.After(time.Minute)
	for {
		got, serial := x.Records()
		slices.SortFunc(got, zone.Compare)
		if slices.Equal(got, want) {
			return serial
		}
		select {
		case <-x.changes:
		case <-limit:
			t.Fatalf("zone at serial %d (-want +got):\n%s", serial, cmp.Diff(want, got))
		}
	}
}

// Sources share names and records; each change of the union is one version.
func TestPublish(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		s := open(d)
		x := follow(t, s, t.TempDir())
		challenge := func(text string) zone.Record { return zone.Text("_acme-challenge.1r1", 60, text) }

		publish(t, s, map[string][]zone.Record{
			"a": {address("x", 300, "192.0.2.1"), address("x", 300, "192.0.2.1"), challenge("one")},
			"b": {address("x", 60, "192.0.2.2"), challenge("two")},
		})
		first := x.until(t, []zone.Record{address("x", 60, "192.0.2.1"), address("x", 60, "192.0.2.2"),
			challenge("one"),
			challenge("two")})
		publish(t, s, map[string][]zone.Record{"c": {challenge("two"), address("x", 60, "192.0.2.2")}})
		if err := s.View(t.Context(), func(ctx context.Context, r zone.Reader) error {
			serial, err := r.Serial(ctx)
			if serial != first {
				t.Errorf("serial %d after nothing changed; it was %d", serial, first)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		publish(t, s, map[string][]zone.Record{"b": nil})
		second := x.until(t, []zone.Record{address("x", 60, "192.0.2.1"), address("x", 60, "192.0.2.2"),
			challenge("one"),
			challenge("two")})
		publish(t, s, map[string][]zone.Record{"c": nil})
		third := x.until(t, []zone.Record{address("x", 300, "192.0.2.1"), challenge("one")})
		if second != first || !third.After(first) {
			t.Errorf("serials %d, %d, %d", first, second, third)
		}

		err := zone.Publish(t.Context(), s, origin, map[string][]zone.Record{"a": nil, "d": {{Name: "X", Type: "A"}}})
		if err == nil {
			t.Error("an invalid record was published")
		}
		many := make([]zone.Record, 10_001)
		if err := zone.Publish(t.Context(), s, origin, map[string][]zone.Record{"d": many}); err == nil {
			t.Error("too many records were published")
		}
		for i := range many {
			many[i] = zone.Text("x", 60, fmt.Sprint(strings.Repeat("a", 200), i))
		}
		err = zone.Publish(t.Context(), s, origin, map[string][]zone.Record{"d": many[:200]})
		if err == nil || !strings.Contains(err.Error(), "the TXT records of x.customers.example. have more than") {
			t.Errorf("published more than an answer has room for, which no name server takes: %v", err)
		}
		x.until(t, []zone.Record{address("x", 300, "192.0.2.1"), challenge("one")})
	})
}

// Writers at the same time: every server ends with the union of all, whatever the order.
func TestPublishTogether(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		s := open(d)
		servers := []*server{follow(t, s, t.TempDir()), follow(t, s, t.TempDir())}
		var want []zone.Record
		var running sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			final := address("shared", 60, fmt.Sprint("192.0.2.", i))
			want = append(want, final)
			running.Go(func() {
				for j := range 20 {
					r := []zone.Record{final}
					if j < 19 {
						r = append(r, zone.Text("shared", 60, fmt.Sprint(j)))
					}
					errs[i] = errors.Join(errs[i], zone.Publish(t.Context(), s, origin,
						map[string][]zone.Record{fmt.Sprint("source ", i): r}))
				}
			})
		}
		running.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		if a, b := servers[0].until(t, want), servers[1].until(t, want); a != b {
			t.Errorf("serials %d and %d of the same records", a, b)
		}
	})
}

// A database that was set back has fewer versions than a server has handed out. The server gets its contents, with a
// serial above its own.
func TestSetBack(t *testing.T) {
	t.Parallel()
	testkit.Configs(t, func(t *testing.T, c db.Config) {
		dir := t.TempDir()
		old := []zone.Record{address("old", 60, "192.0.2.1")}
		d, err := db.Open(t.Context(), c, slog.New(slog.DiscardHandler), nil, store.Schema())
		if err != nil {
			t.Fatal(err)
		}
		publish(t, open(d), map[string][]zone.Record{"a": old})
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		backup := testkit.Open(t, testkit.Clone(t, c))

		s := open(testkit.Open(t, c))
		x := follow(t, s, dir)
		var lost []zone.Record
		for i := range 500 {
			lost = []zone.Record{address("new", 60, fmt.Sprintf("198.51.%d.%d", 100+i/250, i%250))}
			publish(t, s, map[string][]zone.Record{"a": lost})
		}
		handed := x.until(t, lost)
		x.stop()

		// Without the database it serves what it had.
		x = follow(t, s, dir)
		if got := x.until(t, lost); got != handed {
			t.Errorf("serial %d after a restart, want %d", got, handed)
		}
		x.stop()

		restored := open(backup)
		x = follow(t, restored, dir)
		serial := x.until(t, old)
		if !serial.After(handed) {
			t.Errorf("serial %d with the contents of the backup; %d was handed out", serial, handed)
		}
		now := []zone.Record{address("now", 60, "192.0.2.1")}
		publish(t, restored, map[string][]zone.Record{"a": now})
		if last := x.until(t, now); !last.After(serial) {
			t.Errorf("serial %d after %d", last, serial)
		}
	})
}

// A database that has lost most of the zone, such as a new one, does not take the customers' names off the name server:
// it keeps the zone until the database has them again, or an operator accepts the loss.
func TestHeld(t *testing.T) {
	t.Parallel()
	testkit.Configs(t, func(t *testing.T, c db.Config) {
		fixed := []zone.Record{zone.NameServer(zone.Apex, 3600, "ns1.operator.example")}
		var customers, few []zone.Record
		for i := range 300 {
			customers = append(customers, address(fmt.Sprint("c", i, ".1r1"), 60, "192.0.2.1"))
		}
		few = customers[:120]
		empty, other := testkit.Open(t, testkit.Clone(t, c)), testkit.Open(t, c)
		dir := t.TempDir()
		s := open(other)
		publish(t, s, map[string][]zone.Record{"fixed": fixed, "a": customers})
		x := follow(t, s, dir)
		all := slices.Concat(fixed, customers)
		handed := x.until(t, all)
		x.stop()

		// Another database, in which only the configuration was published.
		s = open(empty)
		publish(t, s, map[string][]zone.Record{"fixed": fixed})
		x = follow(t, s, dir)
		x.event(t, "held", func() bool { return x.value(t) == 1 })
		publish(t, s, map[string][]zone.Record{"a": few})
		publish(t, s, map[string][]zone.Record{"b": {address("late", 60, "192.0.2.1")}})
		if got := x.until(t, all); got != handed || x.value(t) != 1 {
			t.Errorf("serial %d is answered, want %d", got, handed)
		}
		publish(t, s, map[string][]zone.Record{"b": {address("later", 60, "192.0.2.1")}})
		if n := x.comparing.Load(); n != 1 {
			t.Errorf("said %d times that all records are compared", n)
		}

		// Most are there again.
		publish(t, s, map[string][]zone.Record{"b": nil, "a": customers[:200]})
		serial := x.until(t, slices.Concat(fixed, customers[:200]))
		if !serial.After(handed) || x.value(t) != 0 {
			t.Errorf("serial %d after %d, held %v", serial, handed, x.value(t))
		}
		x.stop()

		// Back in the first database everything is lost for good, and the operator says so.
		publish(t, open(other), map[string][]zone.Record{"a": nil})
		x = follow(t, open(other), dir)
		x.event(t, "held again", func() bool { return x.value(t) == 1 })
		broken := errors.New("the database accepts no writes")
		if err := x.Accept(func(zone.Kept) error { return broken }); err != broken {
			t.Errorf("Accept without an audit row: %v", err)
		}
		if _, now := x.Records(); now != serial || x.Kept().Lost != 200 || x.Kept().Records != 201 {
			t.Errorf("serial %d, kept %+v; want %d, 200 of 201 records lost", now, x.Kept(), serial)
		}
		if err := x.Accept(func(zone.Kept) error { return nil }); err != nil {
			t.Error(err)
		}
		if last := x.until(t, fixed); !last.After(serial) {
			t.Errorf("serial %d after %d", last, serial)
		}
		if err := x.Accept(func(zone.Kept) error { return nil }); !fault.Is(err, fault.Conflict) {
			t.Errorf("Accept when nothing is kept: %v", err)
		}
	})
}

// What is at and below a name is listed with its sources and since when it is there.
func TestBelow(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		s := open(d)
		before := time.Now().Truncate(time.Microsecond)
		apex := zone.NameServer(zone.Apex, 3600, "ns1.operator.example")
		publish(t, s, map[string][]zone.Record{
			"a": {apex, address("_x.1r1", 60, "192.0.2.1"), address("y.1r1", 60, "192.0.2.1"),
				address("ax.1r1", 60, "192.0.2.1")},
			"b": {address("_x.1r1", 60, "192.0.2.1"), address("y_x.1r1", 60, "192.0.2.1"),
				address("z._x.1r1", 60, "192.0.2.1")},
		})
		for _, x := range []struct {
			name string
			want []string
		}{
			{zone.Apex, []string{"@ a"}},
			{"_x.1r1", []string{"_x.1r1 a", "_x.1r1 b", "z._x.1r1 b"}},
			{"1r1", []string{"_x.1r1 a", "_x.1r1 b", "ax.1r1 a", "y.1r1 a", "y_x.1r1 b", "z._x.1r1 b"}},
			{"r1", nil},
			{"%", nil},
		} {
			var got []string
			err := s.View(t.Context(), func(ctx context.Context, r zone.Reader) error {
				list, err := r.Below(ctx, x.name, 100)
				for _, p := range list {
					got = append(got, p.Name+" "+p.Source)
					if p.Added.Before(before) || p.Added.After(time.Now()) {
						t.Errorf("%s was added %v", p.Name, p.Added)
					}
				}
				if n, err := r.Count(ctx); n != 7 || err != nil {
					t.Errorf("%d records, %v", n, err)
				}
				if few, err := r.Below(ctx, x.name, 1); len(few) > 1 || err != nil {
					t.Errorf("%d records with limit 1, %v", len(few), err)
				}
				return err
			})
			if err != nil || !slices.Equal(got, x.want) {
				t.Errorf("below %s: %v, %v; want %v", x.name, got, err, x.want)
			}
		}
	})
}

// The beats of a node are counted, and forgotten some time after it has ended; those of nodes of an earlier release,
// which have no time, stay.
func TestBeats(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		s := open(d)
		beat := func(node string) {
			t.Helper()
			if err := s.Beat(t.Context(), node, 2); err != nil {
				t.Fatal(err)
			}
		}
		for _, node := range []string{"earlier", "ended", "lately", "runs", "runs"} {
			beat(node)
		}
		if err := d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
			for node, at := range map[string]any{"earlier": nil, "ended": time.Now().AddDate(0, -2, 0).UnixMicro(),
				"lately": time.Now().AddDate(0, 0, -7).UnixMicro()} {
				if _, err := tx.Exec(ctx, "UPDATE zone_beats SET at = $1 WHERE node = $2", at, node); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		beat("runs")
		got, err := s.Beats(t.Context())
		want := []zone.Beat{{Node: "earlier", Region: 2, Count: 1}, {Node: "lately", Region: 2, Count: 1},
			{Node: "runs", Region: 2, Count: 3}}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%v, %v; want %v", got, err, want)
		}
	})
}
