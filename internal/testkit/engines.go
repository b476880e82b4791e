package testkit

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/store"
)

// SQLiteConfig returns the configuration of a new SQLite database for one test.
func SQLiteConfig(t testing.TB) db.Config {
	c := db.Default()
	c.File = filepath.Join(t.TempDir(), "tandem.db")
	return c
}

// PostgresConfig returns the configuration of a new database with all schemas on the shared cluster. Timeouts are long
// because test machines are busy.
func PostgresConfig(t testing.TB) db.Config {
	t.Helper()
	c := patient("")
	c.URL = sharedCluster(t).fromTemplate(t, schema(t), func(url string) error {
		d, err := db.Open(context.Background(), patient(url), slog.New(slog.DiscardHandler), nil, store.Schemas()...)
		if err != nil {
			return err
		}
		return d.Close()
	})
	return c
}

func patient(url string) db.Config {
	c := db.Default()
	c.Driver, c.URL = db.Postgres, url
	c.ConnectTimeout, c.ProbeTimeout = 20*time.Second, 20*time.Second
	c.AllowUnsafeDurability = true
	return c
}

// Open opens a database, with the schemas of all packages, for one test and closes it afterwards.
func Open(t testing.TB, c db.Config) *db.DB {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	d, err := db.Open(t.Context(), c, log, nil, store.Schemas()...)
	if err != nil {
		t.Fatalf("open the database: %v", err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close the database: %v", err)
		}
	})
	return d
}

// Engines runs fn as a parallel subtest on a new database of each kind.
func Engines(t *testing.T, fn func(t *testing.T, d *db.DB)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		fn(t, Open(t, SQLiteConfig(t)))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		fn(t, Open(t, PostgresConfig(t)))
	})
}

// Clone returns the configuration of a copy of a database in its current state. The database must not be open. The copy
// is removed at the end of the test.
func Clone(t testing.TB, c db.Config) db.Config {
	t.Helper()
	if c.Driver == db.Postgres {
		c.URL = sharedCluster(t).clone(t, c.URL)
		return c
	}
	b, err := os.ReadFile(c.File)
	if err != nil {
		t.Fatalf("copy the database: %v", err)
	}
	if st, err := os.Stat(c.File + "-wal"); err == nil && st.Size() > 0 {
		t.Fatal("copy the database: it is still open, or was not closed properly")
	}
	c.File = filepath.Join(t.TempDir(), "tandem.db")
	if err := os.WriteFile(c.File, b, 0o600); err != nil {
		t.Fatalf("copy the database: %v", err)
	}
	return c
}

// Configs runs fn as a parallel subtest for each kind of database, with the configuration of a new one that has all
// schemas and is not open.
func Configs(t *testing.T, fn func(t *testing.T, c db.Config)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		c := SQLiteConfig(t)
		d, err := db.Open(t.Context(), c, slog.New(slog.DiscardHandler), nil, store.Schemas()...)
		if err != nil {
			t.Fatalf("open the database: %v", err)
		}
		if err := d.Close(); err != nil {
			t.Fatalf("close the database: %v", err)
		}
		fn(t, c)
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		fn(t, PostgresConfig(t))
	})
}

// schema returns all migrations of PostgreSQL, which identify templates.
func schema(t testing.TB) string {
	t.Helper()
	_, here, _, _ := runtime.Caller(0)
	files, err := filepath.Glob(filepath.Join(filepath.Dir(here), "../*/*/migrations/postgres/*.sql"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no migrations beside %s (%v)", here, err)
	}
	var all strings.Builder
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&all, "%s %d %s", f, len(b), b)
	}
	return all.String()
}
