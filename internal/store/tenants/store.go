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

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/platform/secret"
	"github.com/tandemgw/tandem/internal/tenants/drift"
	"github.com/tandemgw/tandem/internal/tenants/invite"
	"github.com/tandemgw/tandem/internal/tenants/move"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
	"github.com/tandemgw/tandem/internal/tenants/rollout"
	"github.com/tandemgw/tandem/internal/tenants/snapshot"
	"github.com/tandemgw/tandem/internal/tenants/user"
)

//go:embed migrations
var migrations embed.FS

// Schema returns the migrations of this package.
func Schema() db.Schema { return db.Schema{Package: "tenants", Files: migrations} }

// Events is the event log.
type Events interface {
	Append(ctx context.Context, tx *db.Tx, e api.Event) error
}

// Store implements onboard.Store, and those of move, rollout and snapshot. It is safe for concurrent use.
type Store struct {
	d      *db.DB
	ring   *secret.Keyring
	work   *flow.Queue
	events Events
}

// Users implements user.Store.
type Users struct{ *Store }

// Access implements invite.Store.
type Access struct{ *Store }

// Drift implements drift.Store.
type Drift struct{ *Store }

var (
	_ onboard.Store  = (*Store)(nil)
	_ move.Store     = (*Store)(nil)
	_ rollout.Store  = (*Store)(nil)
	_ snapshot.Store = (*Store)(nil)
	_ user.Store     = Users{}
	_ invite.Store   = Access{}
	_ drift.Store    = Drift{}

	_ interface {
		drift.AcceptTx
		invite.Tx
		move.Tx
		rollout.Tx
		user.Tx
	} = (*transaction)(nil)
)

// New returns the store on d, whose secrets are sealed with ring. Work on changed rows is enqueued in work. work and e
// may be nil: then nothing is enqueued, and there are no events.
func New(d *db.DB, ring *secret.Keyring, work *flow.Queue, e Events) *Store {
	return &Store{d, ring, work, e}
}

// transaction is one on the rows of a tenant, with what every job asks of it: it implements each job's Tx.
type transaction struct {
	*db.Tx
	s       *Store
	account string
}

// view runs fn in a transaction that reads, which has the type T of a job.
func view[T any](ctx context.Context, s *Store, account string, fn func(context.Context, T) error) error {
	return s.d.View(ctx, func(ctx context.Context, tx *db.Tx) error {
		return fn(ctx, any(&transaction{tx, s, account}).(T))
	})
}

// update runs fn in a transaction that writes. If run is not nil, it is a step of the run, with the progress.
func update[T any](ctx context.Context, s *Store, run *flow.Run, account, progress string,
	fn func(context.Context, T) error) error {
	return s.d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
		err := fn(ctx, any(&transaction{tx, s, account}).(T))
		if err != nil || run == nil {
			return err
		}
		return run.Step(ctx, tx, progress)
	})
}

// list returns the rows that a query has, each read by scan.
func list[T any](ctx context.Context, s *Store, what string, scan func(*sql.Rows) (T, error), query string,
	args ...any) (all []T, err error) {
	err = s.d.View(ctx, func(ctx context.Context, tx *db.Tx) error {
		all, err = db.Rows(ctx, tx, scan, query, args...)
		return err
	})
	return all, wrap(err, "list "+what)
}

func wrap(err error, what string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// enqueue has a row reconciled, if there is a queue.
func (t *transaction) enqueue(ctx context.Context, kind string, ids ...string) error {
	if t.s.work == nil {
		return nil
	}
	return t.s.work.Enqueue(ctx, t.Tx, kind, time.Time{}, ids...)
}

// Audit enters in the audit log what a person has done.
func (t *transaction) Audit(ctx context.Context, action, target string, what any) error {
	return t.AuditOf(ctx, action, target, 1, what)
}

// Event makes an event, if there is a log of them.
func (t *transaction) Event(ctx context.Context, kind, subject string, data map[string]any) error {
	return t.event(ctx, api.Event{Kind: kind, Subject: subject, Items: 1, Data: data})
}

func (t *transaction) event(ctx context.Context, e api.Event) error {
	if t.s.events == nil {
		return nil
	}
	return wrap(t.s.events.Append(ctx, t.Tx, e), "append the event "+e.Kind)
}

// View implements onboard.Store.
func (s *Store) View(ctx context.Context, account string, fn func(context.Context, onboard.Tx) error) error {
	return view(ctx, s, account, fn)
}

// Update implements onboard.Store.
func (s *Store) Update(ctx context.Context, run *flow.Run, account, progress string,
	fn func(context.Context, onboard.Tx) error) error {
	return update(ctx, s, run, account, progress, fn)
}

// Tenant implements onboard.Tx.
func (t *transaction) Tenant(ctx context.Context) (*onboard.Tenant, error) {
	var pending int64
	var tenant, target string
	ok, err := t.QueryRow(ctx, "SELECT pending, tenant, target FROM tenants WHERE account = $1"+t.ForUpdate(),
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
	_, err = t.Exec(ctx, "INSERT INTO tenants (account, pending, tenant, target, state, waits, since, template) "+
		"VALUES ($1, $2, $3, '[]', $4, $5, $6, $7) ON CONFLICT (account) DO UPDATE SET pending = excluded.pending, "+
		"tenant = excluded.tenant, state = excluded.state, waits = excluded.waits, since = excluded.since, "+
		"template = excluded.template", n.Account, bit(n.Pending), string(text), string(n.State()), waits, since,
		n.Wishes.Template)
	return wrap(err, "store tenant "+n.Account)
}

// SetTarget implements onboard.Tx.
func (t *transaction) SetTarget(ctx context.Context, account string, target []plan.Object) error {
	text, err := json.Marshal(target)
	if err != nil {
		return err
	}
	_, err = t.Exec(ctx, "UPDATE tenants SET target = $2 WHERE account = $1", account, string(text))
	if err == nil {
		err = t.enqueue(ctx, onboard.Kind, account)
	}
	return wrap(err, "store the target of tenant "+account)
}

// tables are those with what is known of a tenant, the way into it among that. Snapshots and the history of numbers
// outlast it.
var tables = []string{"tenants", "tenant_made", "tenant_plans", "tenant_users", "tenant_syncs", "tenant_access",
	"tenant_invitations", "tenant_sessions", "tenant_drift"}

// DeleteTenant implements onboard.Tx.
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
		deleted, err := t.Exec(ctx, "DELETE FROM "+table+" WHERE account = $1", t.account)
		if err != nil {
			return 0, fmt.Errorf("delete tenant %s: %w", t.account, err)
		}
		n += deleted
	}
	return n, nil
}

func (t *transaction) notFound() error {
	return fault.New(fault.NotFound, "TenantNotFound", "nothing is known of the tenant of account %s; make a plan "+
		"(tandem tenant plan %[1]s)", t.account)
}

// DeleteAccount forgets the tenants of an account in the transaction that deletes it, so that a later account of the
// same name does not reach them. The error is LabelOnboarded while Tandem has, or makes, something there.
func DeleteAccount(ctx context.Context, tx *db.Tx, account string) error {
	for _, id := range []string{account, account + onboard.Next} {
		t := &transaction{tx, nil, id}
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

// Tenants implements onboard.Store.
func (s *Store) Tenants(ctx context.Context, after string, limit int, pending bool) ([]*onboard.Tenant, error) {
	where := "account > $1"
	if pending {
		where += " AND pending = 1"
	}
	return list(ctx, s, "tenants", scanTenant, "SELECT account, pending, tenant FROM tenants WHERE "+where+
		" ORDER BY account LIMIT $2", after, limit)
}

// scanTenant reads a tenant without its target.
func scanTenant(rows *sql.Rows) (*onboard.Tenant, error) {
	n := &onboard.Tenant{}
	var pending int64
	var text string
	if err := rows.Scan(&n.Account, &pending, &text); err != nil {
		return nil, err
	}
	n.Pending = pending == 1
	return n, json.Unmarshal([]byte(text), n)
}

// SetProposal implements onboard.Tx.
func (t *transaction) SetProposal(ctx context.Context, p *onboard.Proposal) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	_, err = t.Exec(ctx, "INSERT INTO tenant_plans (account, id, made, plan) VALUES ($1, $2, $3, $4) "+
		"ON CONFLICT (account, id) DO UPDATE SET plan = excluded.plan", p.Account, p.ID, db.Micros(p.Made),
		string(text))
	if err == nil { // those that are still needed are in the row of the tenant
		_, err = t.Exec(ctx, "DELETE FROM tenant_plans WHERE account = $1 AND made < (SELECT made FROM "+
			"tenant_plans WHERE account = $1 ORDER BY made DESC LIMIT 1 OFFSET $2) AND NOT EXISTS (SELECT 1 FROM "+
			"tenants t WHERE t.account = $1 AND t.tenant LIKE '%\"plan\":\"' || tenant_plans.id || '\"%')", p.Account,
			onboard.MaxProposals-1)
	}
	return wrap(err, "store a plan of tenant "+p.Account)
}

// Proposal implements onboard.Tx.
func (t *transaction) Proposal(ctx context.Context, id string) (*onboard.Proposal, error) {
	var text string
	ok, err := t.QueryRow(ctx, "SELECT plan FROM tenant_plans WHERE account = $1 AND id = $2",
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

// Ledger implements onboard.Tx.
func (t *transaction) Ledger(ctx context.Context) (plan.Ledger, error) {
	entries, err := db.Rows(ctx, t.Tx, func(rows *sql.Rows) (m plan.Made, err error) {
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
	encoded, err := texts(entries, func(m plan.Made) any { return m })
	if err != nil {
		return err
	}
	now := time.Now().UnixMicro()
	_, err = t.Upsert(ctx, made, len(entries), func(i int, dst []any) {
		dst[0], dst[1], dst[2] = t.account, string(entries[i].Type), strings.ToLower(entries[i].Name)
		dst[3], dst[4] = encoded[i], now
	})
	return wrap(err, "record what is made in tenant "+t.account)
}

// Forget implements onboard.Tx.
func (t *transaction) Forget(ctx context.Context, refs ...plan.Ref) error {
	for _, r := range refs {
		_, err := t.Exec(ctx, "DELETE FROM tenant_made WHERE account = $1 AND type = $2 AND name = $3", t.account,
			string(r.Type), strings.ToLower(r.Name))
		if err != nil {
			return fmt.Errorf("forget what was made in tenant %s: %w", t.account, err)
		}
	}
	return nil
}
