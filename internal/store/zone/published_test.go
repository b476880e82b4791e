package zone_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/feed/outbox"
	"github.com/tandemgw/tandem/internal/platform/flow"
	store "github.com/tandemgw/tandem/internal/store/zone"
	"github.com/tandemgw/tandem/internal/testkit"
	"github.com/tandemgw/tandem/internal/zone"
	"github.com/tandemgw/tandem/internal/zone/update"
)

// A new version of the zone wakes the updater; what it publishes is stored by record, and only while it owns its key.
func TestPublished(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		log := slog.New(slog.DiscardHandler)
		q := flow.New(d, func(context.Context, *db.Tx, flow.Item) error { return nil }, log, nil)
		s := store.New(d, outbox.New(d, outbox.Default(), log, nil), q)
		entry := func(name, data string, ttl uint32, there bool) update.Entry {
			return update.Entry{Record: zone.Text(name, ttl, data), There: there}
		}
		one, two := entry("a.example", "one", 60, false), entry("a.example", "two", 60, true)
		three := entry("b", "one", 0, true)
		changed := entry("a.example", "one", 30, true)
		steps := make(chan error, 1)
		var former *flow.Run
		work := &flow.Kind{Name: update.Work().Kind,
			List: func(context.Context, string, int) ([]string, error) { return nil, nil },
			Reconcile: func(ctx context.Context, run *flow.Run) (flow.Result, error) {
				former = run
				err := errors.Join(s.SavePublished(ctx, run, []update.Entry{one, two, three}, nil),
					s.SavePublished(ctx, run, []update.Entry{changed},
						[]update.Entry{two, entry("c", "none", 0, true)}))
				steps <- err
				return flow.Result{}, nil
			}}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- q.Run(ctx, []*flow.Kind{work}) }()

		publish(t, s, map[string][]zone.Record{"a": {zone.Text("x", 60, "y")}})
		select {
		case err := <-steps:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(time.Minute):
			t.Fatal("the new version of the zone woke no updater")
		}
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}

		got, err := s.Published(t.Context())
		slices.SortFunc(got, func(a, b update.Entry) int { return zone.Compare(a.Record, b.Record) })
		if want := []update.Entry{changed, three}; err != nil || !cmp.Equal(got, want) {
			t.Errorf("Published: %v (-want +got):\n%s", err, cmp.Diff(want, got))
		}
		if err := s.SavePublished(t.Context(), former, []update.Entry{two}, nil); !errors.Is(err, flow.ErrLost) {
			t.Errorf("SavePublished of a run that has ended: %v, want ErrLost", err)
		}
		if after, err := s.Published(t.Context()); err != nil || len(after) != len(got) {
			t.Errorf("after a refused write: %v, %v", after, err)
		}
	})
}
