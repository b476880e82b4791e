// Package certificate stores what the certificate job shares between nodes, on both databases with the same statements:
// certificates with their keys, accounts at authorities, and what an authority refused. Every value is sealed with the
// keyring. [Disk] is the copy of the certificates that a node keeps for itself. What the values mean is the job's
// business.
package certificate

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/tandemgw/tandem/internal/certificate"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/platform/secret"
)

//go:embed migrations
var migrations embed.FS

// Schema returns the migrations of this package.
func Schema() db.Schema { return db.Schema{Package: "certificate", Files: migrations} }

// maxValue bounds a value, in bytes. A chain of four certificates with 100 names has about 30 KiB.
const maxValue = 256 << 10

// Store implements certificate.Store. It is safe for concurrent use.
type Store struct {
	d    *db.DB
	ring *secret.Keyring
	work *flow.Queue
}

var (
	_ certificate.Store = (*Store)(nil)
	_ certificate.Cache = Disk{}
)

// New returns the store on d, whose values are sealed with ring. work is the queue of the job's work.
func New(d *db.DB, ring *secret.Keyring, work *flow.Queue) *Store { return &Store{d, ring, work} }

func place(name string) secret.Place {
	return secret.Place{Table: "certificate_values", Row: name, Column: "sealed"}
}

// Load implements certificate.Store.
func (s *Store) Load(ctx context.Context, name string) ([]byte, error) {
	var sealed []byte
	err := s.d.View(ctx, func(ctx context.Context, tx *db.Tx) error {
		ok, err := tx.QueryRow(ctx, "SELECT sealed FROM certificate_values WHERE name = $1", []any{name}, &sealed)
		if err == nil && !ok {
			err = fault.New(fault.NotFound, "NotStored", "no value is stored")
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	value, err := s.ring.Open(place(name), sealed)
	if errors.Is(err, secret.ErrNotOpened) {
		err = fault.New(fault.NotFound, certificate.CodeSealed, "%s cannot be decrypted", name).Because(err)
	}
	return value, err
}

// Save implements certificate.Store.
func (s *Store) Save(ctx context.Context, run *flow.Run, name string, value []byte, audit *certificate.Audit) error {
	return s.put(ctx, name, value, audit, func(ctx context.Context, tx *db.Tx) error { return run.Step(ctx, tx, "") })
}

// Request implements certificate.Store.
func (s *Store) Request(ctx context.Context, name string, value []byte, audit certificate.Audit) error {
	return s.put(ctx, name, value, &audit, s.enqueue)
}

// Wake implements certificate.Store.
func (s *Store) Wake(ctx context.Context) error { return s.d.Update(ctx, s.enqueue) }

func (s *Store) enqueue(ctx context.Context, tx *db.Tx) error {
	key := certificate.Work()
	return s.work.Enqueue(ctx, tx, key.Kind, time.Time{}, key.ID)
}

// put stores a value and its audit row, then calls last in the same transaction.
func (s *Store) put(ctx context.Context, name string, value []byte, audit *certificate.Audit,
	last func(context.Context, *db.Tx) error) error {
	if len(value) > maxValue {
		return fmt.Errorf("store %s: it has %d bytes; at most %d are allowed", name, len(value), maxValue)
	}
	sealed, err := s.ring.Seal(place(name), value)
	if err != nil {
		return err
	}
	err = s.d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO certificate_values (name, sealed, changed) VALUES ($1, $2, $3) "+
			"ON CONFLICT (name) DO UPDATE SET sealed = excluded.sealed, changed = excluded.changed",
			name, sealed, time.Now().UnixMicro())
		if err == nil && audit != nil {
			err = tx.AuditOf(ctx, audit.Action, audit.Target, 1, audit.Summary)
		}
		if err != nil {
			return err
		}
		return last(ctx, tx)
	})
	if err != nil {
		return fmt.Errorf("store %s: %w", name, err)
	}
	return nil
}

// SealAgain seals every value with the keyring's present key. It returns how many it sealed, and how many do not open.
func (s *Store) SealAgain(ctx context.Context) (sealed, unreadable int, err error) {
	err = s.d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
		sealed, unreadable = 0, 0
		names, err := db.Rows(ctx, tx, db.Column[string], "SELECT name FROM certificate_values ORDER BY name"+
			tx.ForUpdate())
		if err != nil {
			return err
		}
		for _, name := range names {
			var old []byte
			_, err := tx.QueryRow(ctx, "SELECT sealed FROM certificate_values WHERE name = $1", []any{name}, &old)
			if err != nil {
				return err
			}
			plain, err := s.ring.Open(place(name), old)
			if err != nil {
				unreadable++
				continue
			}
			again, err := s.ring.Seal(place(name), plain)
			if err == nil {
				_, err = tx.Exec(ctx, "UPDATE certificate_values SET sealed = $2 WHERE name = $1", name, again)
			}
			if err != nil {
				return fmt.Errorf("seal %s again: %w", name, err)
			}
			sealed++
		}
		return nil
	})
	return sealed, unreadable, err
}

// Disk is a file with a node's copy of the certificates, sealed with the node's keyring.
type Disk struct {
	Path string
	Ring *secret.Keyring
}

var diskPlace = secret.Place{Table: "certificates", Row: "file", Column: "content"}

// Load implements certificate.Cache.
func (d Disk) Load() ([]byte, error) {
	sealed, err := os.ReadFile(d.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "NotStored", "%s does not exist", d.Path)
	}
	if err != nil {
		return nil, err
	}
	return d.Ring.Open(diskPlace, sealed)
}

// Save implements certificate.Cache.
func (d Disk) Save(value []byte) error {
	sealed, err := d.Ring.Seal(diskPlace, value)
	if err != nil {
		return err
	}
	return secret.WriteFile(d.Path, sealed)
}
