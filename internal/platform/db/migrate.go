package db

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
	gooselock "github.com/pressly/goose/v3/lock"
)

//go:embed migrations
var migrations embed.FS

// migrate brings the schema up to date. Nodes that start together take turns.
func migrate(ctx context.Context, db *sql.DB, driver string) error {
	dir, err := fs.Sub(migrations, "migrations/"+driver)
	if err != nil {
		return fmt.Errorf("migrate the database: %w", err)
	}
	dialect := goose.DialectSQLite3
	opts := []goose.ProviderOption{goose.WithDisableGlobalRegistry(true)}
	if driver == Postgres {
		dialect = goose.DialectPostgres
		// Ask for the advisory lock every second, for ten minutes.
		l, err := gooselock.NewPostgresSessionLocker(gooselock.WithLockTimeout(1, 600))
		if err != nil {
			return fmt.Errorf("migrate the database: %w", err)
		}
		opts = append(opts, goose.WithSessionLocker(l))
	}
	p, err := goose.NewProvider(dialect, db, dir, opts...)
	if err != nil {
		return fmt.Errorf("migrate the database: %w", err)
	}
	version, err := p.GetDBVersion(ctx)
	if err != nil {
		return fmt.Errorf("migrate the database: %w", err)
	}
	sources := p.ListSources()
	known := sources[len(sources)-1].Version
	if version > known {
		return compatible(ctx, db, version, known)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate the database: %w", err)
	}
	return nil
}

// errNewer marks a database whose schema is too new for this program.
var errNewer = errors.New("the database was upgraded by a newer Tandem")

// compatible returns nil if the newer schema says that programs that know migrations up to known may still use it. That
// counts only if the schema's last migration said it.
func compatible(ctx context.Context, db *sql.DB, version, known int64) error {
	var said, oldest int64
	err := db.QueryRowContext(ctx, "SELECT version, oldest FROM schema_info WHERE id = 1").Scan(&said, &oldest)
	switch {
	case err == nil && said == version && oldest <= known:
		return nil
	case err != nil && classify(err) == lost:
		return fmt.Errorf("read the schema's version: %w", err)
	}
	return fmt.Errorf("%w: its schema is version %d, and this program works with versions up to %d; "+
		"start the newer program, or restore the backup made before the upgrade", errNewer, version, known)
}
