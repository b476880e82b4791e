package db_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	gooselock "github.com/pressly/goose/v3/lock"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/testkit"
	"github.com/tandemgw/tandem/internal/testkit/pace"
)

// wantWithin is how soon callers must be told that the database is unavailable; margin is what a busy test machine may
// add. Both are measured with a pace.Clock.
const (
	wantWithin = 2 * time.Second
	margin     = 2 * time.Second
)

// TestPostgresAway goes through a server's outages one after the other, with one handle that is never reopened.
func TestPostgresAway(t *testing.T) {
	t.Parallel()
	c := testkit.NewCluster(t, testkit.ClusterOptions{Durable: true})
	c.CreateDatabase(t, "tandem")
	c.Stop(t)

	conf := db.Default() // with the timeouts of production
	conf.Driver, conf.URL = db.Postgres, c.URL("tandem")
	clock := pace.Start(t)
	start := clock.Now()
	d := testkit.Open(t, conf)
	if e := clock.Now() - start; e > wantWithin+margin {
		t.Errorf("Open took %v without a server", e)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := d.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	defer wg.Wait()
	defer cancel()

	write := func() error {
		return d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
			_, err := tx.Exec(ctx, "UPDATE feed_head SET position = position + 1")
			return err
		})
	}
	refused := func(when string, err error, since time.Duration) {
		t.Helper()
		f := fault.As(err)
		if f == nil || f.Kind != fault.Unavailable || f.RetryAfter <= 0 {
			t.Fatalf("%s: %v, want Unavailable with a RetryAfter", when, err)
		}
		if e := clock.Now() - since; e > wantWithin+margin {
			t.Errorf("%s: callers were told after %v, want %v", when, e, wantWithin)
		}
	}
	// recovers waits until a write succeeds. It does nothing but try.
	recovers := func(when string) {
		t.Helper()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		deadline := time.After(2 * time.Minute)
		for {
			err := write()
			if err == nil {
				break
			}
			if !fault.Is(err, fault.Unavailable) {
				t.Fatalf("%s: %v", when, err)
			}
			select {
			case <-tick.C:
			case <-deadline:
				t.Fatalf("%s: still unavailable: %v", when, err)
			}
		}
		if s := d.Status(); !s.Available {
			t.Errorf("%s: a write succeeds but the status is %+v", when, s)
		}
	}

	at := clock.Now()
	refused("never seen", write(), at)
	if s := d.Status(); s.Available || s.Writable || s.Cause == "" {
		t.Errorf("status before the server was seen: %+v", s)
	}
	c.Start(t)
	recovers("appearing after start") // the schema is created now

	c.Kill(t)
	at = clock.Now()
	refused("killed", write(), at)
	c.Start(t)
	recovers("restarted after a kill")

	// A handle without a Run, with connections in its pool and one for probes. After a quick restart they are dead, but
	// the server is available: callers should not notice.
	alone := testkit.Open(t, conf)
	for when, between := range []func(){func() {}, func() { c.Stop(t); c.Start(t) }, func() { c.Stop(t); c.Start(t) }} {
		between()
		err := alone.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
			_, err := tx.Exec(ctx, "UPDATE feed_head SET position = position + 1")
			return err
		})
		if err != nil {
			t.Errorf("first write after %d quick restarts: %v", when, err)
		}
	}
	recovers("quickly restarted")

	// A hung server accepts connections but does not answer. A statement in progress is cancelled too.
	inside, released := make(chan struct{}), make(chan error, 1)
	go func() {
		released <- d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
			select {
			case <-inside:
			default:
				close(inside)
			}
			_, err := tx.Exec(ctx, "SELECT pg_sleep(60)")
			return err
		})
	}()
	<-inside
	c.Pause(t)
	at = clock.Now()
	refused("statement in progress when the server hangs", <-released, at)
	at = clock.Now()
	refused("hung", write(), at)
	c.Resume(t)
	recovers("resumed")
}

// TestPostgresHangsDuringMigration: a server that stops answering while a node waits to migrate, or migrates, is found
// to be unavailable as at any other time.
func TestPostgresHangsDuringMigration(t *testing.T) {
	t.Parallel()
	c := testkit.NewCluster(t, testkit.ClusterOptions{Durable: true})
	c.CreateDatabase(t, "tandem")
	conf := db.Default() // with the timeouts of production
	conf.Driver, conf.URL = db.Postgres, c.URL("tandem")
	clock := pace.Start(t)
	d := testkit.Open(t, conf)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	}()

	// Another node migrates.
	other, err := pgx.Connect(t.Context(), conf.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(context.Background())
	if _, err := other.Exec(t.Context(), "SELECT pg_advisory_lock($1)", gooselock.DefaultLockID); err != nil {
		t.Fatal(err)
	}
	// The probe's connection is lost, so the node has to look whether it must migrate.
	if _, err := other.Exec(t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "+
		"WHERE datname = current_database() AND pid <> pg_backend_pid()"); err != nil {
		t.Fatal(err)
	}
	go func() { ended <- d.Run(ctx) }()
	wait := func(what string, ok func() bool) {
		t.Helper()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for limit := time.After(2 * time.Minute); !ok(); {
			select {
			case <-tick.C:
			case <-limit:
				t.Fatalf("%s: never", what)
			}
		}
	}
	wait("the node waits for the other's migration", func() bool {
		waiting := 0
		if err := other.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity "+
			"WHERE query LIKE '%pg_try_advisory_lock%' AND pid <> pg_backend_pid()").Scan(&waiting); err != nil {
			t.Fatal(err)
		}
		return waiting > 0
	})

	c.Pause(t)
	at := clock.Now()
	wait("the hanging server is found", func() bool { return !d.Status().Available })
	if e := clock.Now() - at; e > wantWithin+margin {
		t.Errorf("the hanging server was found after %v, want %v", e, wantWithin)
	}
	c.Resume(t)
	if _, err := other.Exec(t.Context(), "SELECT pg_advisory_unlock_all()"); err != nil {
		t.Fatal(err)
	}
	wait("the server is available again", func() bool { return d.Status().Available })
}

func TestMisconfigurationIsNotRetried(t *testing.T) {
	t.Parallel()
	conf := testkit.PostgresConfig(t)
	for name, url := range map[string]string{
		"unknown database": replaceDatabase(conf.URL, "no_such_database"),
		"unknown role":     replaceRole(conf.URL),
	} {
		c := conf
		c.URL = url
		d, err := db.Open(t.Context(), c, discard, nil)
		if err == nil {
			d.Close()
			t.Errorf("%s: a mistake in the configuration was taken for an outage", name)
		}
	}
}

func TestPanickingCallerLeavesNoConnectionBehind(t *testing.T) {
	t.Parallel()
	conf := testkit.PostgresConfig(t)
	conf.MaxConnections = 2
	d := testkit.Open(t, conf)
	for range 5 {
		func() {
			defer func() { _ = recover() }()
			_ = d.View(t.Context(), func(context.Context, *db.Tx) error { panic("oops") })
		}()
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := d.View(ctx, func(context.Context, *db.Tx) error { return nil }); err != nil {
		t.Errorf("View after panics: %v", errors.Unwrap(err))
	}
}

// TestPostgresRefusesConnections: a server that answers on existing connections but refuses new ones counts as
// unavailable.
func TestPostgresRefusesConnections(t *testing.T) {
	t.Parallel()
	c := testkit.NewCluster(t, testkit.ClusterOptions{Durable: true})
	c.CreateDatabase(t, "tandem")
	conf := db.Default()
	conf.Driver = db.Postgres
	conf.URL = c.URL("postgres")
	admin := testkit.Open(t, conf)
	conf.URL = c.URL("tandem")
	d := testkit.Open(t, conf)
	if err := d.View(t.Context(), func(context.Context, *db.Tx) error { return nil }); err != nil {
		t.Fatal(err)
	}
	err := admin.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
		_, err := tx.Exec(ctx, "ALTER DATABASE tandem ALLOW_CONNECTIONS false")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	// More transactions at once than there are connections.
	release, events := make(chan struct{}), make(chan error, 2*conf.MaxConnections)
	var wg sync.WaitGroup
	for range conf.MaxConnections {
		wg.Go(func() {
			entered := false
			err := d.View(t.Context(), func(ctx context.Context, _ *db.Tx) error {
				if !entered {
					entered = true
					events <- nil
				}
				select {
				case <-release:
				case <-ctx.Done():
				}
				return nil
			})
			if !entered {
				events <- err
			}
		})
	}
	refused := 0
	for range conf.MaxConnections {
		if err := <-events; err != nil {
			refused++
			if f := fault.As(err); f.Kind != fault.Unavailable || f.RetryAfter <= 0 {
				t.Errorf("a transaction without a connection got %v, want Unavailable with a RetryAfter", err)
			}
		}
	}
	close(release)
	wg.Wait()
	if refused == 0 {
		t.Fatal("every transaction found a connection: the test shows nothing")
	}
}
