package node

import (
	"context"
	"io"
	"os"

	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/feed/outbox"
	"github.com/tandemgw/tandem/internal/store"
)

// Restore gives the database a new identity, so that edges keep their index until an operator accepts the restored
// database. With a backup, an SQLite database file, it puts that in place first and returns the name of the file that
// holds the previous database, if there was one. Without a backup, the operator has restored the database already.
// Restore holds the lock of the data directory: no server may run on it.
func Restore(ctx context.Context, cfg *config.Loaded, backup string,
	logTo io.Writer) (identity, replaced string, err error) {
	log := quietLogger(cfg, logTo)
	if backup != "" && cfg.Database.Driver != db.SQLite {
		return "", "", fault.New(fault.Invalid, "InvalidBackup",
			"a PostgreSQL database is restored with its own tools (pg_restore, psql); do that first, then run tandem "+
				"restore without a file")
	}
	p := restoring
	p.creates = backup != ""
	n, err := build(ctx, cfg, "", log, p)
	if err != nil {
		return "", "", err
	}
	defer n.close()
	ctx = domain.WithActor(ctx, domain.Actor{Kind: "administrator", ID: localUser(uint32(os.Getuid()))})
	stamp := func(d *db.DB) (err error) {
		identity, err = outbox.New(d, cfg.Feed, log, nil).Stamp(ctx)
		return err
	}
	if backup != "" {
		replaced, err = db.RestoreFile(ctx, cfg.Database, backup, log, stamp, store.Schemas()...)
		return identity, replaced, err
	}
	d, err := db.Open(ctx, cfg.Database, log, nil, store.Schemas()...)
	if err != nil {
		return "", "", err
	}
	defer d.Close()
	err = stamp(d)
	return identity, "", err
}
