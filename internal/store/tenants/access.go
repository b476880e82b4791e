package tenants

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/platform/secret"
	"github.com/tandemgw/tandem/internal/tenants/invite"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
)

// sealedTables are the tables with a column "sealed", and their keys.
var sealedTables = map[string]string{"tenant_access": "account", "tenant_sessions": "id"}

func sealedAt(table, row string) secret.Place {
	return secret.Place{Table: table, Row: row, Column: "sealed"}
}

// View implements invite.Store.
func (s Access) View(ctx context.Context, fn func(context.Context, invite.Tx) error) error {
	return view(ctx, s.Store, "", fn)
}

// Update implements invite.Store.
func (s Access) Update(ctx context.Context, run *flow.Run, fn func(context.Context, invite.Tx) error) error {
	return update(ctx, s.Store, run, "", "", fn)
}

// Due implements invite.Store.
func (s Access) Due(ctx context.Context, before time.Time, after string, limit int) ([]string, error) {
	return list(ctx, s.Store, "sign-ins to check", db.Column[string], "SELECT account FROM tenant_access "+
		"WHERE due > 0 AND due <= $1 AND account > $2 ORDER BY account LIMIT $3", db.Micros(before), after, limit)
}

// read reads one JSON value into v. It reports false if there is no such row.
func (t *transaction) read(ctx context.Context, v any, query string, arg any, more ...any) (bool, error) {
	var text string
	ok, err := t.QueryRow(ctx, query+t.ForUpdate(), []any{arg}, append([]any{&text}, more...)...)
	if err == nil && ok {
		err = json.Unmarshal([]byte(text), v)
	}
	if err != nil {
		return false, fmt.Errorf("read the access to a tenant: %w", err)
	}
	return ok, nil
}

// Invitation implements invite.Tx.
func (t *transaction) Invitation(ctx context.Context, account string) (*invite.Invitation, error) {
	return t.invitation(ctx, "SELECT invitation, account, hash FROM tenant_invitations WHERE account = $1", account)
}

// InvitationBy implements invite.Tx.
func (t *transaction) InvitationBy(ctx context.Context, hash string) (*invite.Invitation, error) {
	return t.invitation(ctx, "SELECT invitation, account, hash FROM tenant_invitations WHERE hash = $1", hash)
}

func (t *transaction) invitation(ctx context.Context, query, arg string) (*invite.Invitation, error) {
	var i invite.Invitation
	if ok, err := t.read(ctx, &i, query, arg, &i.Account, &i.Hash); err != nil || !ok {
		return nil, err
	}
	return &i, nil
}

// SetInvitation implements invite.Tx.
func (t *transaction) SetInvitation(ctx context.Context, i *invite.Invitation) error {
	text, err := json.Marshal(i)
	if err != nil {
		return err
	}
	_, err = t.Exec(ctx, "INSERT INTO tenant_invitations (account, hash, invitation) VALUES ($1, $2, $3) "+
		"ON CONFLICT (account) DO UPDATE SET hash = excluded.hash, invitation = excluded.invitation", i.Account, i.Hash,
		string(text))
	return err
}

// RemoveInvitation implements invite.Tx.
func (t *transaction) RemoveInvitation(ctx context.Context, account string) error {
	for _, table := range []string{"tenant_invitations", "tenant_sessions"} {
		if _, err := t.Exec(ctx, "DELETE FROM "+table+" WHERE account = $1", account); err != nil {
			return err
		}
	}
	return nil
}

// Session implements invite.Tx.
func (t *transaction) Session(ctx context.Context, id string) (*invite.Session, error) {
	s := invite.Session{ID: id}
	var created, expires int64
	var sealed []byte
	ok, err := t.read(ctx, &s, "SELECT session, account, created, expires, sealed FROM tenant_sessions WHERE id = $1",
		id,
		&s.Account, &created, &expires, &sealed)
	if err != nil || !ok || expires <= time.Now().UnixMicro() {
		return nil, err
	}
	s.Created, s.Expires = db.Time(created), db.Time(expires)
	if s.Attempt != nil && sealed != nil {
		plain, err := t.s.ring.Open(sealedAt("tenant_sessions", id), sealed)
		if err != nil {
			return nil, fmt.Errorf("read a sign-in of account %s: %w", s.Account, err)
		}
		s.Attempt.Secret = secret.New(string(plain))
	}
	return &s, nil
}

// SetSession implements invite.Tx.
func (t *transaction) SetSession(ctx context.Context, s *invite.Session) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	var sealed []byte
	if s.Attempt != nil && s.Attempt.Secret != nil {
		sealed, err = t.s.ring.Seal(sealedAt("tenant_sessions", s.ID), []byte(s.Attempt.Secret.Reveal()))
		if err != nil {
			return err
		}
	}
	_, err = t.Exec(ctx, "DELETE FROM tenant_sessions WHERE expires <= $1", time.Now().UnixMicro())
	if err != nil {
		return err
	}
	_, err = t.Exec(ctx, "INSERT INTO tenant_sessions (id, account, created, expires, session, sealed) "+
		"VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO UPDATE SET session = excluded.session, "+
		"sealed = excluded.sealed", s.ID, s.Account, db.Micros(s.Created), db.Micros(s.Expires), string(text), sealed)
	if err != nil {
		return err
	}
	_, err = t.Exec(ctx, "DELETE FROM tenant_sessions WHERE account = $1 AND id <> $2 AND id NOT IN (SELECT id "+
		"FROM tenant_sessions WHERE account = $1 AND id <> $2 ORDER BY created DESC, id LIMIT $3)", s.Account, s.ID,
		invite.MaxSessions-1)
	return err
}

// Access implements invite.Tx.
func (t *transaction) Access(ctx context.Context, account string) (*invite.Access, error) {
	a := invite.Access{Account: account}
	var due int64
	ok, err := t.read(ctx, &a, "SELECT access, tenant, due FROM tenant_access WHERE account = $1", account, &a.Tenant,
		&due)
	if err != nil || !ok {
		return nil, err
	}
	a.Due = db.Time(due)
	return &a, nil
}

// Connected implements invite.Tx.
func (t *transaction) Connected(ctx context.Context, tenant string) (account string, err error) {
	_, err = t.QueryRow(ctx, "SELECT account FROM tenant_access WHERE tenant = $1", []any{tenant}, &account)
	return account, err
}

// SetAccess implements invite.Tx.
func (t *transaction) SetAccess(ctx context.Context, a *invite.Access, token invite.Secret) error {
	text, err := json.Marshal(a)
	if err != nil {
		return err
	}
	_, err = t.Exec(ctx, "INSERT INTO tenant_access (account, tenant, due, access) VALUES ($1, $2, $3, $4) "+
		"ON CONFLICT (account) DO UPDATE SET tenant = excluded.tenant, due = excluded.due, access = excluded.access",
		a.Account, a.Tenant,
		db.Micros(a.Due), string(text))
	if err != nil || token == nil {
		return err
	}
	return t.seal(ctx, a.Account, token.Reveal())
}

func (t *transaction) seal(ctx context.Context, account, token string) error {
	sealed, err := t.s.ring.Seal(sealedAt("tenant_access", account), []byte(token))
	if err == nil {
		_, err = t.Exec(ctx, "UPDATE tenant_access SET sealed = $2 WHERE account = $1", account, sealed)
	}
	return err
}

// Continue implements invite.Tx. Work that the account does not have is not made.
func (t *transaction) Continue(ctx context.Context, account string) error {
	var pending int64
	_, err := t.QueryRow(ctx, "SELECT pending FROM tenants WHERE account = $1", []any{account}, &pending)
	if err == nil && pending != 0 {
		err = t.enqueue(ctx, onboard.Kind, account)
	}
	if err != nil {
		return err
	}
	return t.enqueueUsers(ctx, account)
}

// Tokens returns the refresh token of an account: an entra.Store.
func (s *Store) Tokens(account string) *Tokens { return &Tokens{s: s, account: account} }

// Tokens is the newest refresh token of an account. It is safe for concurrent use.
type Tokens struct {
	s       *Store
	account string

	mu   sync.Mutex
	last []byte // the sealed token that was read last
}

// RefreshToken implements entra.Store.
func (k *Tokens) RefreshToken(ctx context.Context) (secret.Text, error) {
	var sealed []byte
	err := k.s.d.View(ctx, func(ctx context.Context, tx *db.Tx) error {
		_, err := tx.QueryRow(ctx, "SELECT sealed FROM tenant_access WHERE account = $1", []any{k.account}, &sealed)
		return err
	})
	if err != nil || sealed == nil {
		return secret.Text{}, err
	}
	k.mu.Lock()
	k.last = sealed
	k.mu.Unlock()
	plain, err := k.s.ring.Open(sealedAt("tenant_access", k.account), sealed)
	return secret.New(string(plain)), err
}

// KeepRefreshToken implements entra.Store. A token that replaces one which is not stored any more is not kept: somebody
// signed in meanwhile, or another node was faster.
func (k *Tokens) KeepRefreshToken(ctx context.Context, token secret.Text) error {
	k.mu.Lock()
	last := k.last
	k.mu.Unlock()
	return update(ctx, k.s, nil, k.account, "", func(ctx context.Context, t *transaction) error {
		var stored []byte
		_, err := t.QueryRow(ctx, "SELECT sealed FROM tenant_access WHERE account = $1"+t.ForUpdate(),
			[]any{k.account}, &stored)
		if err != nil || !bytes.Equal(stored, last) {
			return err
		}
		return t.seal(ctx, k.account, token.Reveal())
	})
}

// SealAgain seals every secret with the keyring's present key. It returns how many it sealed, and how many do not open.
func (s *Store) SealAgain(ctx context.Context) (sealed, unreadable int, err error) {
	err = s.d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
		sealed, unreadable = 0, 0
		for table, key := range sealedTables {
			rows, err := db.Rows(ctx, tx, db.Column[string], "SELECT "+key+" FROM "+table+" WHERE sealed IS NOT NULL "+
				"ORDER BY "+key+tx.ForUpdate())
			if err != nil {
				return err
			}
			for _, row := range rows {
				ok, err := s.sealAgain(ctx, tx, table, key, row)
				if err != nil {
					return fmt.Errorf("seal %s of %s again: %w", table, row, err)
				}
				if ok {
					sealed++
				} else {
					unreadable++
				}
			}
		}
		return nil
	})
	return sealed, unreadable, err
}

// sealAgain seals one value. It reports false if the value does not open.
func (s *Store) sealAgain(ctx context.Context, tx *db.Tx, table, key, row string) (bool, error) {
	var old []byte
	_, err := tx.QueryRow(ctx, "SELECT sealed FROM "+table+" WHERE "+key+" = $1", []any{row}, &old)
	if err != nil {
		return false, err
	}
	plain, err := s.ring.Open(sealedAt(table, row), old)
	if err != nil {
		return false, nil // sealed with a key that this keyring lacks
	}
	again, err := s.ring.Seal(sealedAt(table, row), plain)
	if err == nil {
		_, err = tx.Exec(ctx, "UPDATE "+table+" SET sealed = $2 WHERE "+key+" = $1", row, again)
	}
	return true, err
}
