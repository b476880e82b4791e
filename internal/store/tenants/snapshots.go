package tenants

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/tenants/snapshot"
)

const summary = "SELECT id, tenant, taken, reason, objects, users, imported, " +
	"CASE WHEN report = '' THEN 0 ELSE 1 END FROM tenant_snapshots WHERE account = $1 "

func scanSummary(rows *sql.Rows) (s snapshot.Summary, err error) {
	var taken, imported, report int64
	err = rows.Scan(&s.ID, &s.Tenant, &taken, &s.Reason, &s.Objects, &s.Users, &imported, &report)
	s.Taken, s.Imported, s.Report = time.UnixMicro(taken).UTC(), imported == 1, report == 1
	return s, err
}

// Snapshots implements snapshot.Store.
func (s *Store) Snapshots(ctx context.Context, account, before string, limit int) ([]snapshot.Summary, error) {
	query, args := summary+"ORDER BY id DESC LIMIT $2", []any{account, limit}
	if before != "" {
		query, args = summary+"AND id < $3 ORDER BY id DESC LIMIT $2", append(args, before)
	}
	return list(ctx, s, "the snapshots of "+account, scanSummary, query, args...)
}

// Snapshot implements snapshot.Store.
func (s *Store) Snapshot(ctx context.Context, account, id string) (sum *snapshot.Summary, export []byte, err error) {
	err = s.d.View(ctx, func(ctx context.Context, tx *db.Tx) error {
		all, err := db.Rows(ctx, tx, scanSummary, summary+"AND id = $2", account, id)
		if err != nil || len(all) == 0 {
			return err
		}
		sum = &all[0]
		_, err = tx.QueryRow(ctx, "SELECT export FROM tenant_snapshots WHERE account = $1 AND id = $2",
			[]any{account, id}, &export)
		return err
	})
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("read a snapshot of %s: %w", account, err)
	case sum == nil:
		return nil, nil, fault.New(fault.NotFound, "SnapshotNotFound",
			"account %s has no snapshot %q; see tandem tenant snapshot list", account, id)
	}
	return sum, export, nil
}

// AddSnapshot implements snapshot.Store.
func (s *Store) AddSnapshot(ctx context.Context, account string, n *snapshot.Summary, export []byte,
	action string) error {
	err := s.d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO tenant_snapshots (account, id, tenant, taken, reason, objects, users, "+
			"imported, export, report) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, '')", account, n.ID, n.Tenant,
			db.Micros(n.Taken), n.Reason, n.Objects, n.Users, bit(n.Imported), export)
		if err != nil {
			return err
		}
		return tx.AuditOf(ctx, action, account, 1, map[string]any{"snapshot": n.ID, "tenant": n.Tenant,
			"reason": n.Reason, "objects": n.Objects, "users": n.Users})
	})
	return wrap(err, "store a snapshot of "+account)
}

// Report implements snapshot.Store.
func (s *Store) Report(ctx context.Context, account, id string) (*snapshot.Report, error) {
	r := &snapshot.Report{}
	var text string
	err := s.d.View(ctx, func(ctx context.Context, tx *db.Tx) error {
		_, err := tx.QueryRow(ctx, "SELECT id, report FROM tenant_snapshots WHERE account = $1 AND (id = $2 OR $2 = '"+
			snapshot.Latest+"') AND report <> '' ORDER BY id DESC LIMIT 1", []any{account, id}, &r.Snapshot, &text)
		return err
	})
	if err == nil && text == "" && id == snapshot.Latest {
		return nil, fault.New(fault.NotFound, "ReportNotFound", "the tenant of account %s was not left yet; the "+
			"report is there when a leave has ended (tandem tenant plan %s --leave)", account, account)
	}
	if err == nil && text == "" {
		return nil, fault.New(fault.NotFound, "ReportNotFound",
			"account %s has no report of a leave with the snapshot %q; there is one when the leave has ended",
			account, id)
	}
	if err == nil {
		err = json.Unmarshal([]byte(text), r)
	}
	return r, wrap(err, "read the report of a leave of "+account)
}

// SetReport implements snapshot.Store.
func (s *Store) SetReport(ctx context.Context, account string, r *snapshot.Report) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	err = s.d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
		n, err := tx.Exec(ctx, "UPDATE tenant_snapshots SET report = $3 WHERE account = $1 AND id = $2", account,
			r.Snapshot, string(text))
		if err == nil && n == 0 {
			err = fault.New(fault.NotFound, "SnapshotNotFound", "account %s has no snapshot %q", account, r.Snapshot)
		}
		return err
	})
	return wrap(err, "store the report of a leave of "+account)
}
