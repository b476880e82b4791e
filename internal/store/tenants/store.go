// Package tenants stores tenants that are onboarded, and the ledger of what Tandem has made in them, on both databases
// with the same statements. It contains no rules: those are in internal/tenants, whose storage interfaces it
// implements.
package tenants

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
)

//go:embed migrations
var migrations embed.FS

// Schema returns the migrations of this package.
func Schema() db.Schema { return db.Schema{Package: "tenants", Files: migrations} }

// Store implements onboard.Store and onboard.PlanStore. It is safe for concurrent use.
type Store struct {
	// Events is the log of what happens to tenants; nil for none.
	Events Events

	d    *db.DB
	work *flow.Queue
}

var (
	_ onboard.Store     = (*Store)(nil)
	_ onboard.PlanStore = (*Store)(nil)
)

// New returns the store on d. Changes of rows are enqueued in work, which may be nil.
func New(d *db.DB, work *flow.Queue) *Store { return &Store{d: d, work: work} }

// View implements onboard.Store.
func (s *Store) View(ctx context.Context, account string, fn func(context.Context, onboard.Tx) error) error {
	return s.d.View(ctx, func(ctx context.Context, tx *db.Tx) error {
		return fn(ctx, &transaction{s, tx, account, ""})
	})
}

// Update implements onboard.Store.
func (s *Store) Update(ctx context.Context, run *flow.Run, account, progress string,
	fn func(context.Context, onboard.Tx) error) error {
	return s.d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
		if err := fn(ctx, &transaction{s, tx, account, tx.ForUpdate()}); err != nil || run == nil {
			return err
		}
		return run.Step(ctx, tx, progress)
	})
}

// transaction implements onboard.Tx.
type transaction struct {
	s       *Store
	tx      *db.Tx
	account string
	lock    string
}

// Tenant implements onboard.Tx.
func (t *transaction) Tenant(ctx context.Context) (*onboard.Tenant, error) {
	var pending int64
	var tenant, target string
	ok, err := t.tx.QueryRow(ctx, "SELECT pending, tenant, target FROM tenants WHERE account = $1"+t.lock,
		[]any{t.account}, &pending, &tenant, &target)
	switch {
	case err != nil:
		return nil, fmt.Errorf("read tenant %s: %w", t.account, err)
	case !ok:
		return nil, t.notFound()
	}

	n := &onboard.Tenant{Account: t.account, Pending: pending == 1}
	if err := json.Unmarshal([]byte(tenant), n); err != nil {
		return nil, fmt.Errorf("read tenant %s: %w", t.account, err)
	}
	if err := json.Unmarshal([]byte(target), &n.Target); err != nil {
		return nil, fmt.Errorf("read the target of tenant %s: %w", t.account, err)
	}
	return n, nil
}

// SetTenant implements onboard.Tx.
func (t *transaction) SetTenant(ctx context.Context, n *onboard.Tenant) error {
	text, err := json.Marshal(n)
	if err != nil {
		return err
	}
	waits, since := "", int64(0)
	if n.Waiting != nil && n.State() == onboard.Waits {
		waits, since = string(n.Waiting.For), db.Micros(n.Waiting.Since)
	}
	_, err = t.tx.Exec(ctx, "INSERT INTO tenants (account, pending, tenant, target, state, waits, since, template) "+
		"VALUES ($1, $2, $3, '[]', $4, $5, $6, $7) ON CONFLICT (account) DO UPDATE SET pending = excluded.pending, "+
		"tenant = excluded.tenant, state = excluded.state, waits = excluded.waits, since = excluded.since, "+
		"template = excluded.template", n.Account, bit(n.Pending), string(text), string(n.State()), waits, since,
		n.Wishes.Template)
	if err != nil {
		return fmt.Errorf("store tenant %s: %w", n.Account, err)
	}
	return nil
}

// SetTarget implements onboard.Tx.
func (t *transaction) SetTarget(ctx context.Context, account string, target []plan.Object) error {
	text, err := json.Marshal(target)
	if err != nil {
		return err
	}
	_, err = t.tx.Exec(ctx, "UPDATE tenants SET target = $2 WHERE account = $1", account, string(text))
	if err == nil && t.s.work != nil {
		err = t.s.work.Enqueue(ctx, t.tx, onboard.Kind, time.Time{}, account)
	}
	if err != nil {
		return fmt.Errorf("store the target of tenant %s: %w", account, err)
	}
	return nil
}

// ViewPlans implements onboard.PlanStore.
func (s *Store) ViewPlans(ctx context.Context, account string, fn func(context.Context, onboard.PlanTx) error) error {
	return s.d.View(ctx, func(ctx context.Context, tx *db.Tx) error {
		return fn(ctx, &transaction{s, tx, account, ""})
	})
}

// UpdatePlans implements onboard.PlanStore.
func (s *Store) UpdatePlans(ctx context.Context, account string,
	fn func(context.Context, onboard.PlanTx) error) error {
	return s.d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
		return fn(ctx, &transaction{s, tx, account, tx.ForUpdate()})
	})
}

// tables are those with what is known of a tenant, the way into it among that. Snapshots and the history of numbers
// outlast it.
var tables = []string{"tenants", "tenant_made", "tenant_plans", "tenant_users", "tenant_syncs", "tenant_access",
	"tenant_invitations", "tenant_sessions", "tenant_drift"}

// DeleteTenant implements onboard.PlanTx.
func (t *transaction) DeleteTenant(ctx context.Context) error {
	n, err := t.deleteFrom(ctx, tables...)
	if err == nil && n == 0 {
		err = t.notFound()
	}
	return err
}

// deleteFrom deletes the rows of the tenant, and returns how many there were.
func (t *transaction) deleteFrom(ctx context.Context, tables ...string) (n int64, err error) {
	for _, table := range tables {
		deleted, err := t.tx.Exec(ctx, "DELETE FROM "+table+" WHERE account = $1", t.account)
		if err != nil {
			return 0, fmt.Errorf("delete tenant %s: %w", t.account, err)
		}
		n += deleted
	}
	return n, nil
}

func (t *transaction) notFound() error {
	return fault.New(fault.NotFound, "TenantNotFound", "account %s has no tenant; invite its administrator first",
		t.account)
}

// DeleteAccount forgets the tenants of an account in the transaction that deletes it, so that a later account of the
// same name does not reach them. The error is LabelOnboarded while Tandem has, or makes, something there.
func DeleteAccount(ctx context.Context, tx *db.Tx, account string) error {
	for _, id := range []string{account, account + onboard.Next} {
		t := &transaction{nil, tx, id, tx.ForUpdate()}
		row, err := t.Tenant(ctx)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		made, err := t.Ledger(ctx)
		if err != nil {
			return err
		}
		if len(made) > 0 || row != nil && row.Pending {
			return fault.New(fault.Conflict, "LabelOnboarded", "Tandem has objects in the Microsoft 365 tenant "+
				"of %s; leave the tenant first (tandem tenant plan %[1]s --leave)", id)
		}
		_, err = t.deleteFrom(ctx, append(tables, "tenant_moves", "tenant_number_history", "tenant_snapshots")...)
		if err != nil {
			return err
		}
	}
	return nil
}

// Audit implements onboard.PlanTx.
func (t *transaction) Audit(ctx context.Context, action string, what any) error {
	return t.tx.AuditOf(ctx, action, t.account, 1, what)
}

// Tenants implements onboard.PlanStore.
func (s *Store) Tenants(ctx context.Context, after string, limit int, pending bool) (all []*onboard.Tenant, err error) {
	where := "account > $1"
	if pending {
		where += " AND pending = 1"
	}
	err = s.d.View(ctx, func(ctx context.Context, tx *db.Tx) error {
		all, err = db.Rows(ctx, tx, func(rows *sql.Rows) (*onboard.Tenant, error) {
			n := &onboard.Tenant{}
			var pending int64
			var text string
			if err := rows.Scan(&n.Account, &pending, &text); err != nil {
				return nil, err
			}
			n.Pending = pending == 1
			return n, json.Unmarshal([]byte(text), n)
		}, "SELECT account, pending, tenant FROM tenants WHERE "+where+" ORDER BY account LIMIT $2", after, limit)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list tenants: %w", err)
	}
	return all, nil
}

// SetProposal implements onboard.PlanTx.
func (t *transaction) SetProposal(ctx context.Context, p *onboard.Proposal) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	_, err = t.tx.Exec(ctx, "INSERT INTO tenant_plans (account, id, made, plan) VALUES ($1, $2, $3, $4) "+
		"ON CONFLICT (account, id) DO UPDATE SET plan = excluded.plan", p.Account, p.ID, db.Micros(p.Made),
		string(text))
	if err == nil {
		_, err = t.tx.Exec(ctx, "DELETE FROM tenant_plans WHERE account = $1 AND made < (SELECT made FROM "+
			"tenant_plans WHERE account = $1 ORDER BY made DESC LIMIT 1 OFFSET $2)", p.Account, onboard.MaxProposals-1)
	}
	if err != nil {
		return fmt.Errorf("store a plan of tenant %s: %w", p.Account, err)
	}
	return nil
}

// Proposal implements onboard.PlanTx.
func (t *transaction) Proposal(ctx context.Context, id string) (*onboard.Proposal, error) {
	var text string
	ok, err := t.tx.QueryRow(ctx, "SELECT plan FROM tenant_plans WHERE account = $1 AND id = $2",
		[]any{t.account, id}, &text)
	if err == nil && !ok {
		return nil, fault.New(fault.NotFound, "PlanNotFound", "account %s has no plan %q; make one (tandem tenant "+
			"plan %s)", t.account, id, t.account)
	}
	p := &onboard.Proposal{Account: t.account}
	if err == nil {
		err = json.Unmarshal([]byte(text), p)
	}
	if err != nil {
		return nil, fmt.Errorf("read a plan of tenant %s: %w", t.account, err)
	}
	return p, nil
}

// Event makes an event of a tenant in a transaction of the store.
func (s *Store) Event(ctx context.Context, tx onboard.Tx, kind, account string, data map[string]any) error {
	return s.event(ctx, tx.(*transaction).tx, kind, account, data)
}

// Ledger implements onboard.Tx.
func (t *transaction) Ledger(ctx context.Context) (plan.Ledger, error) {
	entries, err := db.Rows(ctx, t.tx, func(rows *sql.Rows) (m plan.Made, err error) {
		var text string
		if err = rows.Scan(&text); err == nil {
			err = json.Unmarshal([]byte(text), &m)
		}
		return m, err
	}, "SELECT made FROM tenant_made WHERE account = $1", t.account)
	if err != nil {
		return nil, fmt.Errorf("read what was made in tenant %s: %w", t.account, err)
	}
	return plan.NewLedger(entries), nil
}

var made = &db.Table{Name: "tenant_made", Columns: []string{"account", "type", "name", "made", "changed"}, Keys: 3}

// Record implements onboard.Tx.
func (t *transaction) Record(ctx context.Context, entries ...plan.Made) error {
	texts := make([]string, len(entries))
	for i, m := range entries {
		text, err := json.Marshal(m)
		if err != nil {
			return err
		}
		texts[i] = string(text)
	}
	now := time.Now().UnixMicro()
	_, err := t.tx.Upsert(ctx, made, len(entries), func(i int, dst []any) {
		dst[0], dst[1], dst[2] = t.account, string(entries[i].Type), strings.ToLower(entries[i].Name)
		dst[3], dst[4] = texts[i], now
	})
	if err != nil {
		return fmt.Errorf("record what is made in tenant %s: %w", t.account, err)
	}
	return nil
}

// Forget implements onboard.Tx.
func (t *transaction) Forget(ctx context.Context, refs ...plan.Ref) error {
	for _, r := range refs {
		_, err := t.tx.Exec(ctx, "DELETE FROM tenant_made WHERE account = $1 AND type = $2 AND name = $3", t.account,
			string(r.Type), strings.ToLower(r.Name))
		if err != nil {
			return fmt.Errorf("forget what was made in tenant %s: %w", t.account, err)
		}
	}
	return nil
}
