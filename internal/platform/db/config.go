package db

import (
	"net/url"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
)

// The databases.
const (
	SQLite   = "sqlite"
	Postgres = "postgres"
)

// Config says where the data lives.
type Config struct {
	// Driver is the database: "sqlite" (one node, a file) or "postgres" (any number of nodes). Default "sqlite".
	Driver string `yaml:"driver"`
	// File is the SQLite database file. Default empty: tandem.db in the data directory. The folder must exist; the file is
	// created, readable for its owner only, and locked: one process per file.
	File string `yaml:"file"`
	// URL is PostgreSQL's connection string, e.g. postgres://tandem@db.example/tandem?sslmode=verify-full. No default;
	// needed with driver "postgres". The password may come from PGPASSWORD or a pgpass file instead.
	URL string `yaml:"url" secret:"true"`
	// MaxConnections bounds the connections of this node (SQLite: those that read; one more writes). Default 16. More help
	// only while the database has idle cores.
	MaxConnections int `yaml:"maxConnections"`
	// ConnectTimeout bounds the wait for a new PostgreSQL connection. Default 1s. Longer than 2s delays the 503 that
	// callers get while the database is away.
	ConnectTimeout time.Duration `yaml:"connectTimeout"`
	// ProbeInterval is how often PostgreSQL is asked for a sign of life. Default 500ms. Longer finds out later that it hangs.
	ProbeInterval time.Duration `yaml:"probeInterval"`
	// ProbeTimeout is how long PostgreSQL has to give a sign of life. Default 1s. A server that does not answer in time is
	// treated as away: work in progress is cut off and answered 503.
	ProbeTimeout time.Duration `yaml:"probeTimeout"`
	// StatementTimeout bounds one statement on PostgreSQL. Default 30s. A statement that takes longer is cancelled by the
	// server and the request fails.
	StatementTimeout time.Duration `yaml:"statementTimeout"`
	// AllowUnsafeDurability accepts a PostgreSQL server with fsync or full_page_writes off. Default false. With true an
	// acknowledged write may be lost or the database damaged when the server's machine stops: for tests only.
	AllowUnsafeDurability bool `yaml:"allowUnsafeDurability"`
}

// Default returns the configuration used where the file says nothing.
func Default() Config {
	return Config{
		Driver: SQLite, MaxConnections: 16, ConnectTimeout: time.Second, ProbeInterval: 500 * time.Millisecond, ProbeTimeout: time.Second,
		StatementTimeout: 30 * time.Second,
	}
}

// Validate returns every mistake in the configuration. An empty File is allowed: the caller fills it in.
func (c *Config) Validate() []error {
	var errs []error
	bad := func(target, format string, args ...any) {
		errs = append(errs, fault.New(fault.Invalid, "InvalidConfiguration", format, args...).At(target))
	}
	switch c.Driver {
	case SQLite:
		if c.URL != "" {
			bad("url", "a connection string has no meaning with driver %q; set driver to %q or remove url", SQLite, Postgres)
		}
	case Postgres:
		if c.URL == "" {
			bad("url", "driver %q needs a connection string, e.g. postgres://tandem@db.example/tandem", Postgres)
		} else if strings.Contains(c.URL, "://") {
			// The URL may hold a password: name the problem, never the text.
			if u, err := url.Parse(c.URL); err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
				bad("url", "not a PostgreSQL connection string; want postgres://user@host/database, special characters in the password percent-encoded")
			}
		}
		if c.File != "" {
			bad("file", "a database file has no meaning with driver %q; remove it", Postgres)
		}
	default:
		bad("driver", "unknown database %q; use %q or %q", c.Driver, SQLite, Postgres)
	}
	if c.MaxConnections < 2 || c.MaxConnections > 1000 {
		bad("maxConnections", "%d is out of range; use 2 to 1000", c.MaxConnections)
	}
	for _, d := range []struct {
		name     string
		v        time.Duration
		min, max time.Duration
	}{
		{"connectTimeout", c.ConnectTimeout, 10 * time.Millisecond, time.Minute},
		{"probeInterval", c.ProbeInterval, 10 * time.Millisecond, time.Minute},
		{"probeTimeout", c.ProbeTimeout, 10 * time.Millisecond, time.Minute},
		{"statementTimeout", c.StatementTimeout, 100 * time.Millisecond, time.Hour},
	} {
		if d.v < d.min || d.v > d.max {
			bad(d.name, "%v is out of range; use %v to %v", d.v, d.min, d.max)
		}
	}
	return errs
}
