package tenants

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/tenants/move"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
)

// ViewMove implements move.Store.
func (s *Store) ViewMove(ctx context.Context, account string, fn func(context.Context, move.Tx) error) error {
	return view(ctx, s, account, fn)
}

// UpdateMove implements move.Store.
func (s *Store) UpdateMove(ctx context.Context, run *flow.Run, account string,
	fn func(context.Context, move.Tx) error) error {
	return update(ctx, s, run, account, "", fn)
}

// Moves implements move.Store.
func (s *Store) Moves(ctx context.Context, after string, limit int) ([]string, error) {
	return list(ctx, s, "moves", db.Column[string], "SELECT account FROM tenant_moves WHERE account > $1 ORDER BY "+
		"account LIMIT $2", after, limit)
}

// Move implements move.Tx.
func (t *transaction) Move(ctx context.Context) (*move.Move, error) {
	var text string
	ok, err := t.QueryRow(ctx, "SELECT move FROM tenant_moves WHERE account = $1"+t.ForUpdate(),
		[]any{t.account}, &text)
	if err == nil && !ok {
		return nil, fault.New(fault.NotFound, "MoveNotFound", "account %s does not move (tandem tenant move begin %s)",
			t.account, t.account)
	}
	m := &move.Move{Account: t.account}
	if err == nil {
		err = json.Unmarshal([]byte(text), m)
	}
	return m, wrap(err, "read the move of "+t.account)
}

// SetMove implements move.Tx.
func (t *transaction) SetMove(ctx context.Context, m *move.Move, wake bool) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = t.Exec(ctx, "INSERT INTO tenant_moves (account, move) VALUES ($1, $2) ON CONFLICT (account) DO "+
		"UPDATE SET move = excluded.move", m.Account, string(text))
	if err == nil && wake {
		err = t.enqueue(ctx, move.Kind, m.Account)
	}
	return wrap(err, "store the move of "+m.Account)
}

// DeleteMove implements move.Tx.
func (t *transaction) DeleteMove(ctx context.Context) error {
	_, err := t.deleteFrom(ctx, "tenant_moves")
	return err
}

// Of implements move.Tx.
func (t *transaction) Of(id string) onboard.Tx { return &transaction{t.Tx, t.s, id} }

// Replace implements move.Tx.
func (t *transaction) Replace(ctx context.Context) error {
	next := t.account + onboard.Next
	if _, err := t.deleteFrom(ctx, tables...); err != nil {
		return err
	}
	for _, table := range append(tables, "tenant_number_history", "tenant_snapshots") {
		_, err := t.Exec(ctx, "UPDATE "+table+" SET account = $1 WHERE account = $2", t.account, next)
		if err != nil {
			return fmt.Errorf("rename %s: %w", next, err)
		}
	}
	return t.reseal(ctx, next)
}

// reseal seals the refresh token of a tenant for its new place.
func (t *transaction) reseal(ctx context.Context, from string) error {
	var sealed []byte
	_, err := t.QueryRow(ctx, "SELECT sealed FROM tenant_access WHERE account = $1", []any{t.account}, &sealed)
	if err != nil || len(sealed) == 0 {
		return wrap(err, "read the refresh token")
	}
	plain, err := t.s.ring.Open(sealedAt("tenant_access", from), sealed)
	if err != nil {
		return fmt.Errorf("open the refresh token of tenant %s: %w", from, err)
	}
	return t.seal(ctx, t.account, string(plain))
}
