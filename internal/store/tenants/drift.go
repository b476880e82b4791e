package tenants

import (
	"context"
	"database/sql"
	"encoding/json"
	"strings"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/tenants/drift"
	"github.com/tandemgw/tandem/internal/tenants/plan"
)

// State implements drift.Store.
func (s Drift) State(ctx context.Context, account string) (state *drift.State, err error) {
	err = view(ctx, s.Store, account, func(ctx context.Context, t *transaction) error {
		state, err = t.State(ctx)
		return err
	})
	return state, err
}

// State implements drift.AcceptTx.
func (t *transaction) State(ctx context.Context) (*drift.State, error) {
	var due int64
	var text string
	ok, err := t.QueryRow(ctx, "SELECT due, state FROM tenant_drift WHERE account = $1"+t.ForUpdate(), []any{t.account},
		&due, &text)
	s := &drift.State{}
	if err == nil && ok {
		s.Next = time.UnixMicro(due).UTC()
		err = json.Unmarshal([]byte(text), s)
	}
	return s, wrap(err, "read the drift of tenant "+t.account)
}

// SetState implements drift.AcceptTx.
func (t *transaction) SetState(ctx context.Context, s *drift.State) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	_, err = t.Exec(ctx, "INSERT INTO tenant_drift (account, due, checked, differences, per_hour, state) VALUES "+
		"($1, $2, $3, $4, $5, $6) ON CONFLICT (account) DO UPDATE SET due = excluded.due, checked = excluded.checked, "+
		"differences = excluded.differences, per_hour = excluded.per_hour, state = excluded.state", t.account,
		db.Micros(s.Next), db.Micros(s.Checked), s.Drift(), s.PerHour(), string(text))
	return wrap(err, "store the drift of tenant "+t.account)
}

// SetExpected implements drift.AcceptTx.
func (t *transaction) SetExpected(ctx context.Context, m plan.Made) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = t.Exec(ctx, "UPDATE tenant_made SET made = $4 WHERE account = $1 AND type = $2 AND name = $3",
		t.account, string(m.Type), strings.ToLower(m.Name), string(text))
	return wrap(err, "store what is expected in tenant "+t.account)
}

// Changes implements drift.Store.
func (s Drift) Changes(ctx context.Context, account string) (map[plan.Ref]time.Time, error) {
	changes := map[plan.Ref]time.Time{}
	err := s.d.View(ctx, func(ctx context.Context, tx *db.Tx) error {
		clear(changes)
		return tx.Query(ctx, func(rows *sql.Rows) error {
			var r plan.Ref
			var at int64
			err := rows.Scan(&r.Type, &r.Name, &at)
			changes[r] = time.UnixMicro(at)
			return err
		}, "SELECT type, name, changed FROM tenant_made WHERE account = $1 UNION ALL SELECT 'user', id, $2 FROM "+
			"tenant_users WHERE account = $1 AND pending = 1", account, time.Now().UnixMicro())
	})
	return changes, wrap(err, "read when tenant "+account+" was changed")
}

// Save implements drift.Store.
func (s Drift) Save(ctx context.Context, run *flow.Run,
	fn func(*drift.State) (next *drift.State, found, gone int)) error {
	return update(ctx, s.Store, run, run.ID, "", func(ctx context.Context, t *transaction) error {
		old, err := t.State(ctx)
		if err != nil {
			return err
		}
		next, found, gone := fn(old)
		if next != nil {
			err = t.SetState(ctx, next)
		} else {
			_, err = t.deleteFrom(ctx, "tenant_drift")
		}
		for kind, n := range map[string]int{"tenant.drift.found": found, "tenant.drift.gone": gone} {
			if err == nil && n > 0 {
				err = t.event(ctx, api.Event{Kind: kind, Subject: run.ID, Items: int64(n)})
			}
		}
		return err
	})
}

// Accept implements drift.Store.
func (s Drift) Accept(ctx context.Context, account string, fn func(context.Context, drift.AcceptTx) error) error {
	return update(ctx, s.Store, nil, account, "", fn)
}

// Check implements drift.Store.
func (s Drift) Check(ctx context.Context, account string) error {
	return update(ctx, s.Store, nil, account, "", func(ctx context.Context, t *transaction) error {
		if _, err := t.Tenant(ctx); err != nil {
			return err
		}
		return t.enqueue(ctx, drift.Kind, account)
	})
}

// Due implements drift.Store.
func (s Drift) Due(ctx context.Context, now time.Time, after string, limit int) ([]string, error) {
	return list(ctx, s.Store, "the tenants to compare", db.Column[string], "SELECT t.account FROM tenants t LEFT JOIN "+
		"tenant_drift d ON d.account = t.account WHERE t.account > $1 AND (d.due <= $2 OR d.account IS NULL AND "+
		"EXISTS (SELECT 1 FROM tenant_made m WHERE m.account = t.account)) ORDER BY t.account LIMIT $3", after,
		db.Micros(now), limit)
}

// Overview implements drift.Store.
func (s Drift) Overview(ctx context.Context) (o drift.Overview, err error) {
	var oldest int64
	err = s.d.View(ctx, func(ctx context.Context, tx *db.Tx) error {
		_, err := tx.QueryRow(ctx, "SELECT COUNT(*), COALESCE(SUM(CASE WHEN differences > 0 THEN 1 ELSE 0 END), 0), "+
			"COALESCE(CAST(SUM(differences) AS BIGINT), 0), COALESCE(CAST(SUM(per_hour) AS BIGINT), 0), "+
			"COALESCE(MIN(NULLIF(checked, 0)), 0) FROM tenant_drift d JOIN tenants t ON t.account = d.account", nil,
			&o.Tenants, &o.Drifted, &o.Differences, &o.PerHour, &oldest)
		return err
	})
	o.Oldest = db.Time(oldest)
	return o, wrap(err, "sum up the drift")
}
