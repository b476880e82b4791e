package testkit

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/platform/db"
)

// SQLiteConfig is the configuration of a fresh SQLite database for one test.
func SQLiteConfig(t testing.TB) db.Config {
	c := db.Default()
	c.File = filepath.Join(t.TempDir(), "tandem.db")
	return c
}

// PostgresConfig is the configuration of a fresh database, schema in place, on the shared cluster. Time-outs are long:
// test machines are busy.
func PostgresConfig(t testing.TB) db.Config {
	t.Helper()
	c := patient("")
	c.URL = sharedCluster(t).fromTemplate(t, db.Schema(), func(url string) error {
		d, err := db.Open(context.Background(), patient(url), slog.New(slog.DiscardHandler), nil)
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

// Open opens a database for one test and closes it afterwards.
func Open(t testing.TB, c db.Config) *db.DB {
	t.Helper()
	d, err := db.Open(t.Context(), c, slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})), nil)
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

// Engines runs fn as a parallel subtest on each database, with a fresh one each.
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
