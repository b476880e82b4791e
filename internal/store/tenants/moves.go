package tenants

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/tenants/move"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
)

// Moves implements move.Store. It is safe for concurrent use.
type Moves struct {
	Store  *Store
	Access *Access
}

var _ move.Store = Moves{}

// ViewMove implements move.Store.
func (s Moves) ViewMove(ctx context.Context, account string, fn func(context.Context, move.Tx) error) error {
	return s.Store.d.View(ctx, func(ctx context.Context, tx *db.Tx) error {
		return fn(ctx, &moves{&transaction{s.Store, tx, account, ""}, s.Access})
	})
}

// UpdateMove implements move.Store.
func (s Moves) UpdateMove(ctx context.Context, run *flow.Run, account string,
	fn func(context.Context, move.Tx) error) error {
	return s.Store.d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
		err := fn(ctx, &moves{&transaction{s.Store, tx, account, tx.ForUpdate()}, s.Access})
		if err != nil || run == nil {
			return err
		}
		return run.Step(ctx, tx, "")
	})
}

// Moves implements move.Store.
func (s Moves) Moves(ctx context.Context, after string, limit int) (accounts []string, err error) {
	err = s.Store.d.View(ctx, func(ctx context.Context, tx *db.Tx) error {
		accounts, err = db.Rows(ctx, tx, db.Column[string], "SELECT account FROM tenant_moves WHERE account > $1 "+
			"ORDER BY account LIMIT $2", after, limit)
		return wrap(err, "list moves")
	})
	return accounts, err
}

// moves implements move.Tx.
type moves struct {
	of     *transaction
	access *Access
}

// Move implements move.Tx.
func (t *moves) Move(ctx context.Context) (*move.Move, error) {
	var text string
	ok, err := t.of.tx.QueryRow(ctx, "SELECT move FROM tenant_moves WHERE account = $1"+t.of.lock,
		[]any{t.of.account}, &text)
	if err == nil && !ok {
		return nil, fault.New(fault.NotFound, "MoveNotFound", "account %s does not move (tandem tenant move begin %s)",
			t.of.account, t.of.account)
	}
	m := &move.Move{Account: t.of.account}
	if err == nil {
		err = json.Unmarshal([]byte(text), m)
	}
	return m, wrap(err, "read the move of "+t.of.account)
}

// SetMove implements move.Tx.
func (t *moves) SetMove(ctx context.Context, m *move.Move, wake bool) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = t.of.tx.Exec(ctx, "INSERT INTO tenant_moves (account, move) VALUES ($1, $2) ON CONFLICT (account) DO "+
		"UPDATE SET move = excluded.move", m.Account, string(text))
	if err == nil && wake && t.of.s.work != nil {
		err = t.of.s.work.Enqueue(ctx, t.of.tx, move.Kind, time.Time{}, m.Account)
	}
	return wrap(err, "store the move of "+m.Account)
}

// DeleteMove implements move.Tx.
func (t *moves) DeleteMove(ctx context.Context) error {
	_, err := t.of.tx.Exec(ctx, "DELETE FROM tenant_moves WHERE account = $1", t.of.account)
	return wrap(err, "delete the move of "+t.of.account)
}

// Tenant implements move.Tx.
func (t *moves) Tenant(ctx context.Context, id string) (*onboard.Tenant, error) {
	return (&transaction{t.of.s, t.of.tx, id, t.of.lock}).Tenant(ctx)
}

// SetTenant implements move.Tx.
func (t *moves) SetTenant(ctx context.Context, n *onboard.Tenant) error {
	return t.of.SetTenant(ctx, n)
}

// Held implements move.Tx.
func (t *moves) Held(ctx context.Context, id string) (n int, err error) {
	_, err = t.of.tx.QueryRow(ctx, "SELECT COUNT(*) FROM tenant_made WHERE account = $1", []any{id}, &n)
	return n, wrap(err, "count what Tandem has in tenant "+id)
}

// Replace implements move.Tx.
func (t *moves) Replace(ctx context.Context) error {
	account, next := t.of.account, t.of.account+onboard.Next
	exec := func(what, query string, args ...any) error {
		if _, err := t.of.tx.Exec(ctx, query, args...); err != nil {
			return fmt.Errorf("%s %s: %w", what, next, err)
		}
		return nil
	}
	for _, table := range tables {
		if err := exec("make room for", "DELETE FROM "+table+" WHERE account = $1", account); err != nil {
			return err
		}
		if err := exec("rename", "UPDATE "+table+" SET account = $1 WHERE account = $2", account, next); err != nil {
			return err
		}
	}
	for _, table := range []string{"tenant_number_history", "tenant_snapshots"} {
		if err := exec("rename", "UPDATE "+table+" SET account = $1 WHERE account = $2", account, next); err != nil {
			return err
		}
	}
	return t.reseal(ctx, next)
}

// reseal seals the refresh token of a tenant for its new place.
func (t *moves) reseal(ctx context.Context, from string) error {
	var sealed []byte
	_, err := t.of.tx.QueryRow(ctx, "SELECT sealed FROM tenant_access WHERE account = $1", []any{t.of.account}, &sealed)
	if err != nil || len(sealed) == 0 {
		return wrap(err, "read the refresh token")
	}
	plain, err := t.access.ring.Open(sealedAt("tenant_access", from), sealed)
	if err != nil {
		return fmt.Errorf("open the refresh token of tenant %s: %w", from, err)
	}
	return (&accessTx{t.of.tx, t.access}).seal(ctx, t.of.account, string(plain))
}

// Audit implements move.Tx.
func (t *moves) Audit(ctx context.Context, action string, what any) error {
	return t.of.Audit(ctx, action, what)
}

// Event implements move.Tx.
func (t *moves) Event(ctx context.Context, kind string, data map[string]any) error {
	return t.of.s.event(ctx, t.of.tx, kind, t.of.account, data)
}
