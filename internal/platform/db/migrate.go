package db

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"encoding/hex"
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
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate the database: %w", err)
	}
	return nil
}

// Schema identifies the schema that this program brings a PostgreSQL database to, for telling two apart.
func Schema() string {
	h := sha256.New()
	dir := "migrations/" + Postgres
	files, err := migrations.ReadDir(dir)
	if err != nil {
		panic(err) // the files are part of the program
	}
	for _, f := range files {
		b, err := migrations.ReadFile(dir + "/" + f.Name())
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(h, "%s %d %s", f.Name(), len(b), b)
	}
	return hex.EncodeToString(h.Sum(nil))
}
