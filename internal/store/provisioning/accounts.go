package provisioning

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
)

var accountsTable = db.Table{Name: "accounts", Columns: []string{"name", "correlation_id", "has_details", "tenant_id",
	"present", "enabled", "sync_enabled", "details", "status", "errors", "version", "modified", "pending",
	"second_active"}, Keys: 1}

var accountColumns = strings.Join(accountsTable.Columns, ", ")

// accountService is the part of an account's service object that has no column: a member of the details document, by
// the contract's service name.
type accountService struct {
	Configuration   *domain.DirectRoutingConfig `json:"configuration,omitempty"`
	SubdomainStatus domain.SubdomainStatus      `json:"subdomainStatus,omitempty"`
}

func (s *Store) scanAccount(rows *sql.Rows) (a domain.Account, err error) {
	var has, present, enabled, sync, modified, second int64
	var details, errs, pending string
	if err := rows.Scan(&a.Name, &a.CorrelationID, &has, &a.TeamsTenantID, &present, &enabled, &sync, &details,
		&a.State.Status, &errs, &a.Version, &modified, &pending, &second); err != nil {
		return a, err
	}
	a.HasServiceDetails, a.Modified, a.SecondActive = has != 0, db.Time(modified), second != 0
	if err := decodeSome(pending, &a.Pending); err != nil {
		return a, fmt.Errorf("account %s: %w", a.Name, err)
	}
	var more map[string]accountService
	if err := decodeSome(details, &more); err != nil {
		return a, fmt.Errorf("account %s: %w", a.Name, err)
	}
	if present != 0 {
		a.Services = make(map[domain.Service]domain.AccountService)
	}
	for _, s := range s.services.In(domain.ServiceSet(present)) {
		m := more[s.String()]
		a.Services[s] = domain.AccountService{Enabled: domain.ServiceSet(enabled).Has(s),
			SyncEnabled: domain.ServiceSet(sync).Has(s), DirectRouting: m.Configuration,
			SubdomainStatus: m.SubdomainStatus}
	}
	err = decodeSome(errs, &a.State.Errors)
	return a, err
}

// Account implements directory.Reader.
func (t *transaction) Account(ctx context.Context, name string) (*domain.Account, error) {
	return t.account(ctx, name, t.tx.ForUpdate())
}

// HoldAccount implements directory.Tx.
func (t *transaction) HoldAccount(ctx context.Context, name string) (*domain.Account, error) {
	return t.account(ctx, name, t.tx.ForShare())
}

func (t *transaction) account(ctx context.Context, name, lock string) (*domain.Account, error) {
	if !storable(name) {
		return nil, nil
	}
	found, err := list(ctx, t.tx, "read account", t.s.scanAccount,
		"SELECT "+accountColumns+" FROM accounts WHERE name = $1"+lock, name)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return &found[0], t.fillCounts(ctx, found)
}

var countsTable = db.Table{Name: "account_counts", Columns: []string{"account", "service", "n"}, Keys: 2}

// fillCounts sets the number counts of the accounts, by service.
func (t *transaction) fillCounts(ctx context.Context, as []domain.Account) error {
	at := make(map[string]int, len(as))
	names := make([]string, len(as))
	for i := range as {
		at[as[i].Name] = i
		names[i] = as[i].Name
	}
	err := t.tx.Find(ctx, &countsTable, names, false, func(rows *sql.Rows) error {
		var name string
		var service, n int64
		if err := rows.Scan(&name, &service, &n); err != nil {
			return err
		}
		a := &as[at[name]]
		for s, d := range a.Services {
			if int64(s.ID()) == service {
				d.NumberCount = n
				a.Services[s] = d
			}
		}
		return nil
	})
	return wrap(err, "read number counts")
}

// FindAccounts implements directory.Reader.
func (t *transaction) FindAccounts(ctx context.Context, names []string) ([]domain.Account, error) {
	var found []domain.Account
	err := t.tx.Find(ctx, &accountsTable, names, true, func(rows *sql.Rows) error {
		a, err := t.s.scanAccount(rows)
		found = append(found, a)
		return err
	})
	return found, wrap(err, "find accounts")
}

// Accounts implements directory.Reader.
func (t *transaction) Accounts(ctx context.Context, q directory.Query) ([]domain.Account, error) {
	c := compiler{s: t.s, fields: accountFields}
	where := c.where(q.Filter, "name > "+c.param(q.After))
	query := "SELECT " + accountColumns + " FROM accounts" + where + " ORDER BY name" + c.limit(q)
	as, err := list(ctx, t.tx, "list accounts", t.s.scanAccount, query, c.args...)
	if err != nil {
		return nil, err
	}
	return as, t.fillCounts(ctx, as)
}

// CountAccounts implements directory.Reader.
func (t *transaction) CountAccounts(ctx context.Context, q directory.Query) (int64, error) {
	c := compiler{s: t.s, fields: accountFields}
	return t.count(ctx, "SELECT COUNT(*) FROM accounts"+c.where(q.Filter), c.args)
}

func (t *transaction) count(ctx context.Context, query string, args []any) (int64, error) {
	var n int64
	_, err := t.tx.QueryRow(ctx, query, args, &n)
	return n, wrap(err, "count")
}

// SubdomainOwner implements directory.Reader.
func (t *transaction) SubdomainOwner(ctx context.Context, label string) (string, error) {
	var name string
	_, err := t.tx.QueryRow(ctx, "SELECT account FROM labels WHERE label = $1", []any{label}, &name)
	return name, wrap(err, "look up a subdomain")
}

// PutAccount implements directory.Tx.
func (t *transaction) PutAccount(ctx context.Context, a *domain.Account, create bool) error {
	var present, sync domain.ServiceSet
	for s, d := range a.Services {
		present = present.With(s)
		if d.SyncEnabled {
			sync = sync.With(s)
		}
	}
	details, err := accountDetails(a)
	if err != nil {
		return err
	}
	errs, err := encodeSome(a.State.Errors, len(a.State.Errors))
	if err != nil {
		return err
	}
	var pendingKey sql.NullString
	pending := ""
	if a.Pending != nil {
		pendingKey = labelKey(*a.Pending)
		if pending, err = encode(a.Pending); err != nil {
			return err
		}
	}
	args := []any{a.Name, a.CorrelationID, flag(a.HasServiceDetails), a.TeamsTenantID, strings.ToLower(a.TeamsTenantID),
		int64(present), int64(a.Enabled()), int64(sync), labelKey(a.Active()), details, string(a.State.Status), errs,
		a.Version, db.Micros(a.Modified), pendingKey, pending, flag(a.SecondActive)}
	q := `UPDATE accounts SET correlation_id = $2, has_details = $3, tenant_id = $4, tenant_key = $5, present = $6,
		enabled = $7, sync_enabled = $8, subdomain_key = $9, details = $10, status = $11, errors = $12, version = $13,
		modified = $14, pending_key = $15, pending = $16, second_active = $17 WHERE name = $1`
	if create {
		q = `INSERT INTO accounts (name, correlation_id, has_details, tenant_id, tenant_key, present, enabled,
			sync_enabled, subdomain_key, details, status, errors, version, modified, pending_key, pending,
			second_active) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)`
	}
	n, err := t.tx.Exec(ctx, q, args...)
	if err != nil {
		return fmt.Errorf("store account: %w", err)
	}
	if n != 1 {
		return db.ErrRetry
	}
	return nil
}

// accountDetails returns the parts of the account's service objects that have no column.
func accountDetails(a *domain.Account) (string, error) {
	more := map[string]accountService{}
	for s, d := range a.Services {
		if m := (accountService{d.DirectRouting, d.SubdomainStatus}); m != (accountService{}) {
			more[s.String()] = m
		}
	}
	return encodeSome(more, len(more))
}

// PutSubdomainStatus implements directory.Tx.
func (t *transaction) PutSubdomainStatus(ctx context.Context, a *domain.Account) error {
	details, err := accountDetails(a)
	if err == nil {
		_, err = t.tx.Exec(ctx, "UPDATE accounts SET details = $2 WHERE name = $1", a.Name, details)
	}
	return wrap(err, "store a subdomainStatus")
}

// labelKey returns how a label is compared with others, NULL for none.
func labelKey(l domain.Label) sql.NullString {
	return sql.NullString{String: strings.ToLower(l.Subdomain), Valid: l.Subdomain != ""}
}

// flag returns how a boolean is stored.
func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// DeleteAccount implements directory.Tx.
func (t *transaction) DeleteAccount(ctx context.Context, name string) error {
	if t.s.Deleting != nil {
		if err := t.s.Deleting(ctx, t.tx, name); err != nil {
			return err
		}
	}
	if _, err := t.tx.Exec(ctx, "DELETE FROM account_counts WHERE account = $1", name); err != nil {
		return fmt.Errorf("delete account: %w", err)
	}
	_, err := t.tx.Exec(ctx, "DELETE FROM accounts WHERE name = $1", name)
	return wrap(err, "delete account")
}
