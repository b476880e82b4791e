package db

import (
	"errors"
	"io/fs"
	"net/netip"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tandemgw/tandem/internal/domain/fault"
)

// The databases.
const (
	SQLite   = "sqlite"
	Postgres = "postgres"
)

// Config says where the data is stored.
type Config struct {
	// Driver is the database: "sqlite" (one node, a file) or "postgres" (any number of nodes). Default "sqlite".
	Driver string `yaml:"driver"`
	// File is the SQLite database file. Default empty: tandem.db in the data directory. The directory must exist; the
	// file is created, readable only by its owner, and locked: one process per file.
	File string `yaml:"file"`
	// URL is PostgreSQL's connection string, e.g. postgres://tandem@db.example/tandem?sslmode=verify-full. No default;
	// required with driver "postgres". The password may come from PGPASSWORD or a pgpass file instead. A server on
	// another machine must be reached over TLS: sslmode verify-full (recommended), verify-ca or require; or set
	// insecure.
	URL string `yaml:"url" secret:"true"`
	// Insecure permits a connection without TLS to a PostgreSQL server on another machine: anyone on the network can
	// read and change customers' data. Default false. The log repeats it at each start.
	Insecure bool `yaml:"insecure"`
	// MaxConnections is the maximum number of connections of this node (SQLite: those that read; one more writes).
	// Default 16. More connections help only while the database has idle cores.
	MaxConnections int `yaml:"maxConnections"`
	// ConnectTimeout bounds the wait for a new PostgreSQL connection. Default 1s. More than 2s delays the 503 that
	// callers get while the database is unavailable.
	ConnectTimeout time.Duration `yaml:"connectTimeout"`
	// ProbeInterval is how often PostgreSQL is probed. Default 500ms. A longer interval detects a hanging server later.
	ProbeInterval time.Duration `yaml:"probeInterval"`
	// ProbeTimeout is how long PostgreSQL may take to answer a probe. Default 1s. A server that does not answer in time
	// is treated as unavailable: work in progress is cancelled and answered 503.
	ProbeTimeout time.Duration `yaml:"probeTimeout"`
	// StatementTimeout bounds one statement on PostgreSQL. Default 30s. The server cancels a statement that takes
	// longer, and the request fails. On SQLite a write that takes longer makes the node not ready for the role api.
	StatementTimeout time.Duration `yaml:"statementTimeout"`
	// AllowUnsafeDurability accepts a PostgreSQL server with fsync or full_page_writes off. Default false. With true an
	// acknowledged write may be lost or the database damaged when the server's machine stops: for tests only.
	AllowUnsafeDurability bool `yaml:"allowUnsafeDurability"`
}

// Default returns the configuration used where the file says nothing.
func Default() Config {
	return Config{
		Driver: SQLite, MaxConnections: 16, ConnectTimeout: time.Second, ProbeInterval: 500 * time.Millisecond,
		ProbeTimeout: time.Second, StatementTimeout: 30 * time.Second,
	}
}

// Validate returns every mistake in the configuration. An empty File is allowed: the caller fills it in.
func (c *Config) Validate() []error {
	var errs fault.Problems
	bad := errs.Add
	switch c.Driver {
	case SQLite:
		if c.URL != "" {
			bad("url", "a connection string has no meaning with driver %q; set driver to %q or remove url",
				SQLite, Postgres)
		}
	case Postgres:
		if c.URL == "" {
			bad("url", "driver %q needs a connection string, e.g. postgres://tandem@db.example/tandem", Postgres)
		} else if host, err := c.PlaintextHost(); host != "" && !c.Insecure {
			bad("url", "the connection to %s may be without TLS, so that anyone on the network can read and change "+
				"customers' data; add sslmode=verify-full (and sslrootcert=FILE for an authority of your own), "+
				"or set insecure: true in database", host)
		} else if err != nil && !errors.As(err, new(*fs.PathError)) { // CheckFiles reports problems with files
			// The URL may hold a password: name the problem, never the text.
			bad("url", "not a usable PostgreSQL connection string; want postgres://user@host/database, "+
				"an IPv6 address in brackets, special characters in the password percent-encoded, "+
				"a known sslmode, and PEM files in sslrootcert, sslcert and sslkey")
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

// PlaintextHost returns a host on another machine to which the connection string allows a connection without TLS, or ""
// if there is none. sslmode allow and prefer, the default, count as without TLS: an attacker can make the server refuse
// TLS.
func (c *Config) PlaintextHost() (string, error) {
	if c.Driver != Postgres {
		return "", nil
	}
	pc, err := pgconn.ParseConfig(c.URL)
	if err != nil {
		return "", err
	}
	for _, f := range append(pc.Fallbacks, &pgconn.FallbackConfig{Host: pc.Host, TLSConfig: pc.TLSConfig}) {
		ip, err := netip.ParseAddr(f.Host)
		socket := strings.HasPrefix(f.Host, "/") || strings.HasPrefix(f.Host, "@")
		local := socket || strings.EqualFold(f.Host, "localhost") || err == nil && ip.Unmap().IsLoopback()
		if f.TLSConfig == nil && !local {
			return f.Host, nil
		}
	}
	return "", nil
}

// CheckFiles returns an error if a file that the connection string names, such as sslrootcert, cannot be read on this
// machine. Validate reports all other problems of the connection string.
func (c *Config) CheckFiles() error {
	_, err := c.PlaintextHost()
	var path *fs.PathError
	if !errors.As(err, &path) {
		return nil
	}
	return fault.New(fault.Invalid, "InvalidConfiguration", "a file named in the connection string cannot be read "+
		"(%v); correct its path or permissions", path).At("url")
}
