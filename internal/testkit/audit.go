package testkit

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/platform/db"
)

// AuditLog returns the rows of the audit log, in order, without their hashes.
func AuditLog(t testing.TB, d *db.DB) []db.AuditRecord {
	t.Helper()
	var out []db.AuditRecord
	err := d.View(t.Context(), func(ctx context.Context, tx *db.Tx) error {
		out = nil
		return tx.Query(ctx, func(rows *sql.Rows) error {
			var r db.AuditRecord
			var at int64
			var digest []byte
			if err := rows.Scan(&r.Seq, &at, &r.Actor.Kind, &r.Actor.ID, &r.Actor.RequestID, &r.Action, &r.Target,
				&r.Items, &digest, &r.Summary); err != nil {
				return err
			}
			r.At = time.UnixMicro(at).UTC()
			copy(r.Digest[:], digest)
			out = append(out, r)
			return nil
		}, "SELECT seq, at, actor_kind, actor_id, request_id, action, target, items, digest, summary FROM audit "+
			"ORDER BY seq")
	})
	if err != nil {
		t.Fatalf("read the audit log: %v", err)
	}
	return out
}
