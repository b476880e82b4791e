package node

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/feed/outbox"
)

// Restored is what Restore did.
type Restored struct {
	Database string `json:"database"`           // new identity of the database
	Replaced string `json:"replaced,omitempty"` // file that holds the database of before; empty if there was none
}

// Restore gives the database a new identity, so that edges keep their index until an operator accepts the restored
// database. With a backup, an SQLite database file, it puts that in place first; else the operator has done so. It holds the
// lock of the data directory: no server may run on it.
func Restore(ctx context.Context, cfg *config.Loaded, backup string, logTo io.Writer) (*Restored, error) {
	log := quietLogger(cfg, logTo)
	if backup != "" && cfg.Database.Driver != db.SQLite {
		return nil, fault.New(fault.Invalid, "InvalidBackup",
			"PostgreSQL is restored with its own tools (pg_restore, psql); do that first, then run tandem restore without a file")
	}
	if err := checkUse(cfg); err != nil {
		return nil, err
	}
	if err := makeDataDir(cfg.Data, log); err != nil {
		return nil, err
	}
	l, err := db.LockDir(cfg.Data)
	if err != nil {
		return nil, err
	}
	defer l.Close()

	ctx = domain.WithActor(ctx, domain.Actor{Kind: "administrator", ID: localUser(uint32(os.Getuid()))})
	done := &Restored{}
	stamp := func(d *db.DB) (err error) {
		done.Database, err = outbox.New(d, cfg.Feed, log, nil).Stamp(ctx)
		return err
	}
	if backup != "" {
		if done.Replaced, err = db.RestoreFile(ctx, cfg.Database, backup, log, stamp); err != nil {
			return nil, fmt.Errorf("restore %s: %w", backup, err)
		}
		return done, nil
	}
	if err := checkDatabase(cfg); err != nil {
		return nil, err
	}
	d, err := db.Open(ctx, cfg.Database, log, nil)
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	defer d.Close()
	return done, stamp(d)
}
