package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	_ "modernc.org/sqlite" // driver "sqlite"
)

// openSQLite opens one connection that writes and a pool that reads.
func (d *DB) openSQLite(ctx context.Context) error {
	if d.cfg.File == "" {
		return errors.New("no database file configured")
	}
	path, err := filepath.Abs(d.cfg.File)
	if err != nil {
		return fmt.Errorf("resolve the path of the database file: %w", err)
	}
	if d.lock, err = lock(path+".lock", "database file "+path); err != nil {
		return err
	}
	// SQLite would create the file with the umask's mode. It creates its log files with the mode of the file.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open the database file: %w", err)
	}
	d.file, d.where = f, path
	// busy_timeout and synchronous apply to a connection, so they are set in the DSN: a pragma executed once would
	// apply to any one connection of the pool. Caches are in KiB, one for each connection. temp_store stays on disk:
	// otherwise the journal of a statement would hold every page it changes in memory.
	common := []string{"busy_timeout(5000)", "synchronous(FULL)"}
	if d.write, err = openSQLiteDB(path, append(common, "cache_size(-16384)", "wal_autocheckpoint(4000)",
		"journal_size_limit(67108864)"), "immediate"); err != nil {
		return err
	}
	d.write.SetMaxOpenConns(1)
	if err := setWAL(ctx, d.write); err != nil {
		return err
	}
	if d.read, err = openSQLiteDB(path, append(common, "cache_size(-4096)", "query_only(1)"), "deferred"); err != nil {
		return err
	}
	d.read.SetMaxOpenConns(d.cfg.MaxConnections)
	d.read.SetMaxIdleConns(d.cfg.MaxConnections)
	if err := assertSQLite(ctx, d.write); err != nil {
		return err
	}
	if err := migrate(ctx, d.write, SQLite, d.schemas); err != nil {
		return err
	}
	d.markReady()
	return nil
}

func openSQLiteDB(path string, pragmas []string, txlock string) (*sql.DB, error) {
	settings := url.Values{"_txlock": {txlock}, "_pragma": pragmas}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: settings.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("open the database file: %w", err)
	}
	return db, nil
}

// setWAL switches the file to write-ahead logging, which persists with the file. The switch needs exclusive access to
// the file for a moment, and reports busy instead of waiting if a backup tool is reading.
func setWAL(ctx context.Context, db *sql.DB) error {
	var mode string
	var err error
	for attempt := range 20 {
		if attempt > 0 && !Sleep(ctx, 100*time.Millisecond) {
			return ctx.Err()
		}
		err = db.QueryRowContext(ctx, "PRAGMA journal_mode=WAL").Scan(&mode)
		if err == nil && strings.EqualFold(mode, "wal") {
			return nil
		}
		if err != nil && classify(err) != again {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("switch the database file to write-ahead logging: %w", err)
	}
	return fmt.Errorf("switch the database file to write-ahead logging: it stays in mode %q; "+
		"is it on a network file system?", mode)
}

// assertSQLite makes sure that a commit is on disk when it returns.
func assertSQLite(ctx context.Context, db *sql.DB) error {
	var sync int
	if err := db.QueryRowContext(ctx, "PRAGMA synchronous").Scan(&sync); err != nil {
		return fmt.Errorf("read the durability setting: %w", err)
	}
	if sync < 2 { // 2 is FULL, 3 is EXTRA
		return fmt.Errorf("refusing to use the database: commits do not wait for the disk (synchronous is %d, want 2)",
			sync)
	}
	return nil
}
