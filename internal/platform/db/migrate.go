package db

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/pressly/goose/v3"
	gooselock "github.com/pressly/goose/v3/lock"
)

//go:embed migrations
var migrations embed.FS

// Schema is the part of the database that belongs to one package. Its migrations are numbered on their own, from 1, and
// use no tables of other packages, except "schemas": 00004_packages.sql of this package says what each of them writes
// there.
type Schema struct {
	Package string // a lower-case name that no other Schema has
	Files   fs.FS  // migrations/sqlite/NNNNN_title.sql and migrations/postgres/NNNNN_title.sql
}

// platform is the schema of this package. Its migrations run before those of all others.
var platform = Schema{"platform", migrations}

// migrate brings all schemas up to date. It changes none of them if one is too new for this program. Nodes that start
// together take turns. After an interruption it continues with the first migration that was not committed.
func migrate(ctx context.Context, db *sql.DB, driver string, schemas []Schema) error {
	dialect := goose.DialectSQLite3
	if driver == Postgres {
		dialect = goose.DialectPostgres
		locked, err := lockMigrations(ctx, db)
		if err != nil {
			return fmt.Errorf("migrate the database: %w", err)
		}
		defer locked.Close()
	}
	have, known := map[string]int64{}, map[string]int64{} // newest migration of each package
	var behind []*goose.Provider
	for _, s := range append([]Schema{platform}, schemas...) {
		dir, err := fs.Sub(s.Files, "migrations/"+driver)
		if err != nil {
			return fmt.Errorf("migrations of %s: %w", s.Package, err)
		}
		table := "goose_" + s.Package
		if s.Package == platform.Package {
			table = goose.DefaultTablename // older than the other schemas
		}
		p, err := goose.NewProvider(dialect, db, dir, goose.WithDisableGlobalRegistry(true), goose.WithTableName(table))
		if err != nil {
			return fmt.Errorf("migrations of %s: %w", s.Package, err)
		}
		if have[s.Package], err = p.GetDBVersion(ctx); err != nil {
			return fmt.Errorf("read the schema version of %s: %w", s.Package, err)
		}
		sources := p.ListSources()
		if known[s.Package] = sources[len(sources)-1].Version; have[s.Package] < known[s.Package] {
			behind = append(behind, p)
		}
	}
	if err := compatible(ctx, db, have, known); err != nil {
		return err
	}
	for _, p := range behind {
		if _, err := p.Up(ctx); err != nil {
			return fmt.Errorf("migrate the database: %w", err)
		}
	}
	return nil
}

// lockMigrations takes the lock of the migrations, which it asks for every second, for ten minutes. The session of the
// connection returned holds the lock until db is closed: an explicit unlock would wait for a server that does not
// answer.
func lockMigrations(ctx context.Context, db *sql.DB) (*sql.Conn, error) {
	l, err := gooselock.NewPostgresSessionLocker(gooselock.WithLockTimeout(1, 600))
	if err != nil {
		return nil, err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	if err := l.SessionLock(ctx, conn); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// errNewer marks a database with a schema that is too new for this program.
var errNewer = errors.New("the database was upgraded by a newer Tandem")

// compatible returns nil if this program, which knows the migrations of each package up to known, may use a database
// that has them up to have. Newer migrations may say so in "schemas"; that counts only if the last one said it. A
// package that this program lacks is known up to 0.
func compatible(ctx context.Context, db *sql.DB, have, known map[string]int64) error {
	const packages = 4 // the migration that creates the table schemas
	if have[platform.Package] < packages {
		return nil // last used by an older program
	}
	oldest := map[string]int64{} // that must be known to use what is there
	rows, err := db.QueryContext(ctx, "SELECT package, version, oldest FROM schemas")
	if err == nil {
		defer rows.Close()
		for rows.Next() {
			var p string
			var version, old int64
			if err := rows.Scan(&p, &version, &old); err != nil {
				return fmt.Errorf("read the schema versions: %w", err)
			}
			if _, ours := have[p]; !ours || have[p] == version {
				have[p], oldest[p] = version, old
			}
		}
		err = rows.Err()
	}
	if err != nil && classify(err) == lost {
		return fmt.Errorf("read the schema versions: %w", err)
	}
	for _, p := range slices.Sorted(maps.Keys(have)) {
		if old, said := oldest[p]; have[p] > known[p] && (!said || old > known[p]) {
			return fmt.Errorf("%w: its schema of %s is version %d, and this program works with versions up to %d; "+
				"start the newer program, or restore the backup made before the upgrade", errNewer, p, have[p],
				known[p])
		}
	}
	return nil
}
