// Package auth stores the access data of the APIs: clients, signing keys and the state of rate limits, on both
// databases with the same statements. The rules are in platform/auth, whose storage interfaces it implements.
package auth

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/auth"
	"github.com/tandemgw/tandem/internal/platform/db"
)

//go:embed migrations
var migrations embed.FS

// Schema returns the migrations of this package.
func Schema() db.Schema { return db.Schema{Package: "auth", Files: migrations} }

// Store stores access data. It is safe for concurrent use.
type Store struct{ d *db.DB }

var (
	_ auth.ClientStore = (*Store)(nil)
	_ auth.KeyStore    = (*Store)(nil)
	_ auth.LimitStore  = (*Store)(nil)
)

// New returns the store on d.
func New(d *db.DB) *Store { return &Store{d} }

const clientColumns = "id, name, roles, secret, created, creator, revoked"

func scanClient(rows *sql.Rows) (c auth.Client, err error) {
	var roles string
	var created, revoked int64
	if err := rows.Scan(&c.ID, &c.Name, &roles, &c.Secret, &created, &c.Creator, &revoked); err != nil {
		return c, err
	}
	c.Roles = strings.Fields(roles)
	c.Created, c.Revoked = db.Time(created), db.Time(revoked)
	return c, nil
}

// AddClient implements auth.ClientStore.
func (s *Store) AddClient(ctx context.Context, c auth.Client) error {
	return s.d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO api_clients ("+clientColumns+") VALUES ($1, $2, $3, $4, $5, $6, $7)",
			c.ID, c.Name, strings.Join(c.Roles, " "), c.Secret, db.Micros(c.Created), c.Creator, db.Micros(c.Revoked))
		if err != nil {
			return fmt.Errorf("store client: %w", err)
		}
		return tx.AuditOf(ctx, "client.create", c.ID, 1, map[string]any{"name": c.Name, "roles": c.Roles})
	})
}

// Client implements auth.ClientStore.
func (s *Store) Client(ctx context.Context, id string) (auth.Client, error) {
	found, err := s.clients(ctx, " WHERE id = $1", id)
	if err != nil {
		return auth.Client{}, err
	}
	if len(found) == 0 {
		return auth.Client{}, noClient()
	}
	return found[0], nil
}

func noClient() error { return fault.New(fault.NotFound, "ClientNotFound", "there is no such client") }

// Clients implements auth.ClientStore.
func (s *Store) Clients(ctx context.Context, after string, limit int) ([]auth.Client, error) {
	return s.clients(ctx, " WHERE $1 = '' OR (created, id) > "+
		"(SELECT created, id FROM api_clients WHERE id = $1) ORDER BY created, id LIMIT $2", after, int64(limit))
}

func (s *Store) clients(ctx context.Context, where string, args ...any) ([]auth.Client, error) {
	return list(ctx, s, "read clients", scanClient, "SELECT "+clientColumns+" FROM api_clients"+where, args...)
}

// list returns the rows that a query finds. what says in errors what it was for.
func list[T any](ctx context.Context, s *Store, what string, scan func(*sql.Rows) (T, error), query string,
	args ...any) (all []T, err error) {
	err = s.d.View(ctx, func(ctx context.Context, tx *db.Tx) error {
		if all, err = db.Rows(ctx, tx, scan, query, args...); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	})
	return all, err
}

// RevokeClient implements auth.ClientStore.
func (s *Store) RevokeClient(ctx context.Context, id string, at time.Time) error {
	return s.d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
		var revoked int64
		ok, err := tx.QueryRow(ctx, "SELECT revoked FROM api_clients WHERE id = $1"+tx.ForUpdate(), []any{id}, &revoked)
		switch {
		case err != nil:
			return fmt.Errorf("read client: %w", err)
		case !ok:
			return noClient()
		case revoked != 0:
			return nil
		}
		if _, err := tx.Exec(ctx, "UPDATE api_clients SET revoked = $1 WHERE id = $2", db.Micros(at), id); err != nil {
			return fmt.Errorf("revoke client: %w", err)
		}
		return tx.AuditOf(ctx, "client.revoke", id, 1, map[string]any{"revoked": at.UTC()})
	})
}

// SigningKeys implements auth.KeyStore.
func (s *Store) SigningKeys(ctx context.Context) ([]auth.SigningKey, error) {
	return list(ctx, s, "read signing keys", func(rows *sql.Rows) (k auth.SigningKey, err error) {
		var created int64
		err = rows.Scan(&k.ID, &k.Algorithm, &k.Public, &k.Sealed, &created)
		k.Created = db.Time(created)
		return k, err
	}, "SELECT id, algorithm, public, sealed, created FROM signing_keys ORDER BY created, id")
}

// AddSigningKey implements auth.KeyStore.
func (s *Store) AddSigningKey(ctx context.Context, k auth.SigningKey) error {
	return s.d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO signing_keys (id, algorithm, public, sealed, created) VALUES ($1, $2, "+
			"$3, $4, $5)", k.ID, k.Algorithm, k.Public, k.Sealed, db.Micros(k.Created))
		if err != nil {
			return fmt.Errorf("store signing key: %w", err)
		}
		return tx.AuditOf(ctx, "signingKey.create", k.ID, 1, map[string]any{"algorithm": k.Algorithm})
	})
}

// SealSigningKey implements auth.KeyStore.
func (s *Store) SealSigningKey(ctx context.Context, id string, sealed []byte) error {
	return s.changeKey(ctx, "signingKey.seal", id, "UPDATE signing_keys SET sealed = $2 WHERE id = $1", id, sealed)
}

// DeleteSigningKey implements auth.KeyStore.
func (s *Store) DeleteSigningKey(ctx context.Context, id string) error {
	return s.changeKey(ctx, "signingKey.delete", id, "DELETE FROM signing_keys WHERE id = $1", id)
}

// changeKey runs a statement that changes a signing key, with an audit row if the key exists.
func (s *Store) changeKey(ctx context.Context, action, id, statement string, args ...any) error {
	return s.d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
		n, err := tx.Exec(ctx, statement, args...)
		if err != nil {
			return fmt.Errorf("%s: %w", action, err)
		}
		if n == 0 {
			return nil
		}
		return tx.AuditOf(ctx, action, id, 1, map[string]any{})
	})
}

// LimitState implements auth.LimitStore.
func (s *Store) LimitState(ctx context.Context, key string) (int64, error) {
	var state int64
	err := s.d.View(ctx, func(ctx context.Context, tx *db.Tx) error {
		state = 0
		_, err := tx.QueryRow(ctx, "SELECT state FROM rate_limits WHERE bucket = $1", []any{key}, &state)
		if err != nil {
			return fmt.Errorf("read rate limit: %w", err)
		}
		return nil
	})
	return state, err
}

// SwapLimitState implements auth.LimitStore.
func (s *Store) SwapLimitState(ctx context.Context, key string, old, new int64) (bool, error) {
	var n int64
	err := s.d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
		// Losing the state in a crash does no harm, so the commit need not wait for the disk.
		if err := tx.Relax(ctx); err != nil {
			return err
		}
		var err error
		n, err = tx.Exec(ctx, "UPDATE rate_limits SET state = $1 WHERE bucket = $2 AND state = $3", new, key, old)
		if err != nil || n == 1 || old != 0 {
			return err
		}
		n, err = tx.Exec(ctx, "INSERT INTO rate_limits (bucket, state) VALUES ($1, $2) ON CONFLICT (bucket) DO "+
			"NOTHING", key, new)
		return err
	})
	return n == 1, err
}
