// Package provisioning stores customers, numbers and requests for information, and the data that replicas load, on both
// databases with the same statements.
//
// It contains queries but no rules: those are in provisioning/directory, whose storage interface it implements (Store).
// Source is what a call replica loads from and follows.
//
// Keys compare byte by byte. Listings start after a key; only a caller's own skip becomes an OFFSET.
package provisioning

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"fmt"
	"time"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/feed"
	"github.com/tandemgw/tandem/internal/platform/feed/outbox"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
)

//go:embed migrations
var migrations embed.FS

// Schema returns the migrations of this package.
func Schema() db.Schema { return db.Schema{Package: "provisioning", Files: migrations} }

// Store implements directory.Store. It is safe for concurrent use.
type Store struct {
	// Deleting, if not nil, is called in the transaction that deletes an account, before it is deleted. Its error
	// prevents that.
	Deleting func(ctx context.Context, tx *db.Tx, account string) error

	d        *db.DB
	feed     *outbox.Outbox
	services domain.Services
}

var _ directory.Store = (*Store)(nil)

// New returns the store on d, whose change feed is o. services are those that accounts and numbers can have.
func New(d *db.DB, o *outbox.Outbox, services domain.Services) *Store {
	return &Store{d: d, feed: o, services: services}
}

// View implements directory.Store.
func (s *Store) View(ctx context.Context, fn func(context.Context, directory.Reader) error) error {
	return s.d.View(ctx, func(ctx context.Context, tx *db.Tx) error { return fn(ctx, &transaction{s, tx}) })
}

// Update implements directory.Store.
func (s *Store) Update(ctx context.Context, fn func(context.Context, directory.Tx) error) error {
	return s.d.Update(ctx, func(ctx context.Context, tx *db.Tx) error { return fn(ctx, &transaction{s, tx}) })
}

// transaction implements directory.Tx.
type transaction struct {
	s  *Store
	tx *db.Tx
}

// Publish implements directory.Tx.
func (t *transaction) Publish(ctx context.Context, changes []domain.Change) error {
	payload, err := encodeChanges(changes)
	if err != nil {
		return err
	}
	return t.s.feed.Begin(t.tx).Append(ctx, feed.Provisioning, payload)
}

// Audit implements directory.Tx.
func (t *transaction) Audit(e directory.AuditEntry) {
	t.tx.Audit(db.AuditRecord{At: e.At, Actor: e.Actor, Action: e.Action, Target: e.Target, Items: int64(e.Count),
		Digest: e.Digest, Summary: e.Summary})
}

// OnCommit implements directory.Tx.
func (t *transaction) OnCommit(fn func(feed.Position)) {
	b := t.s.feed.Begin(t.tx)
	t.tx.OnCommit(func() { fn(b.Position()) })
}

// Remember implements directory.Tx.
func (t *transaction) Remember(ctx context.Context, r *directory.Record) (*directory.Record, error) {
	// On PostgreSQL this waits for a concurrent transaction that has claimed the same record.
	n, err := t.tx.Exec(ctx, "INSERT INTO repeatability (scope, id, first_sent, digest, response, made) VALUES ($1, "+
		"$2, $3, $4, NULL, $5) ON CONFLICT (scope, id) DO NOTHING",
		r.Scope, r.ID, r.FirstSent.UnixMicro(), r.Digest[:], r.Made.UnixMicro())
	if err != nil {
		return nil, fmt.Errorf("claim a repeatable request: %w", err)
	}
	if n == 1 {
		return nil, nil
	}
	old := directory.Record{Scope: r.Scope, ID: r.ID}
	var first, made int64
	var digest []byte
	ok, err := t.tx.QueryRow(ctx, "SELECT first_sent, digest, response, made FROM repeatability WHERE scope = $1 AND "+
		"id = $2", []any{r.Scope, r.ID}, &first, &digest, &old.Response, &made)
	if err != nil {
		return nil, fmt.Errorf("read a repeatable request: %w", err)
	}
	if !ok || len(digest) != 32 {
		return nil, db.ErrRetry // removed in the meantime: claim it again
	}
	old.FirstSent, old.Made, old.Digest = db.Time(first), db.Time(made), [32]byte(digest)
	return &old, nil
}

// Answer implements directory.Tx.
func (t *transaction) Answer(ctx context.Context, scope, id string, response []byte) error {
	if response == nil {
		response = []byte{}
	}
	_, err := t.tx.Exec(ctx, "UPDATE repeatability SET response = $1 WHERE scope = $2 AND id = $3", response, scope, id)
	return wrap(err, "store the answer of a repeatable request")
}

// Forget implements directory.Tx.
func (t *transaction) Forget(ctx context.Context, before time.Time) (int64, error) {
	n, err := t.tx.Exec(ctx, "DELETE FROM repeatability WHERE made < $1", before.UnixMicro())
	return n, wrap(err, "remove records of repeatable requests")
}

// list returns the rows that a query finds. what says in errors what it was for.
func list[T any](ctx context.Context, tx *db.Tx, what string, scan func(*sql.Rows) (T, error), query string,
	args ...any) ([]T, error) {
	all, err := db.Rows(ctx, tx, scan, query, args...)
	return all, wrap(err, what)
}

// only returns the row that list found by its key, or nil if it found none.
func only[T any](found []T, err error) (*T, error) {
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return &found[0], nil
}

// wrap says in an error what failed.
func wrap(err error, what string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

func encode(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), wrap(err, "encode for the database")
}

func decode(s string, v any) error {
	return wrap(json.Unmarshal([]byte(s), v), "decode from the database")
}

// encodeSome encodes v, a list or a map with n entries, and returns "" if there are none.
func encodeSome[T any](v T, n int) (string, error) {
	if n == 0 {
		return "", nil
	}
	return encode(v)
}

// decodeSome is the inverse of encodeSome.
func decodeSome(s string, v any) error {
	if s == "" {
		return nil
	}
	return decode(s, v)
}
