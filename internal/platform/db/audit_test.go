package db_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/testkit"
)

func record(i int) db.AuditRecord {
	return db.AuditRecord{At: time.Now(), Actor: domain.Actor{Kind: "client", ID: "bss", RequestID: fmt.Sprint("r", i)},
		Action: "number.put", Target: "acme", Items: int64(i), Digest: [32]byte{byte(i)}, Summary: `{"é":1}`}
}

func verify(t *testing.T, d *db.DB, noted ...db.AuditHead) db.AuditReport {
	t.Helper()
	rep, err := d.VerifyAudit(t.Context(), noted...)
	if err != nil {
		t.Fatalf("VerifyAudit: %v", err)
	}
	return rep
}

func TestAuditChainDetectsEveryTampering(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		if rep := verify(t, d); rep.Break != nil || rep.Rows != 0 {
			t.Fatalf("empty log: %+v", rep)
		}
		for i := range 10 {
			update(t, d, func(ctx context.Context, tx *db.Tx) error {
				for range 1 + i%2*3 { // some transactions append several
					tx.Audit(record(i))
				}
				return nil
			})
		}
		const rows = 25
		good := verify(t, d)
		if good.Break != nil || good.Rows != rows || good.Head.Seq != rows {
			t.Fatalf("untouched log: %+v", good)
		}
		if h, err := db.ParseAuditHead(good.Head.String()); err != nil || h != good.Head {
			t.Errorf("ParseAuditHead(%q): %v, %v", good.Head, h, err)
		}
		for _, c := range []struct {
			name string
			sql  []string
			seq  int64 // where the break must be reported
			what string
		}{
			{"altered actor", []string{"UPDATE audit SET actor_id = 'someone' WHERE seq = 7"}, 7, "altered"},
			{"altered summary", []string{"UPDATE audit SET summary = '{}' WHERE seq = 1"}, 1, "altered"},
			{"altered count", []string{"UPDATE audit SET items = items + 1 WHERE seq = 25"}, 25, "altered"},
			{"altered time", []string{"UPDATE audit SET at = at + 1 WHERE seq = 12"}, 12, "altered"},
			{"text moved between fields", []string{
				"UPDATE audit SET actor_kind = 'clientb', actor_id = 'ss' WHERE seq = 3",
			}, 3, "altered"},
			{"altered hash", []string{"UPDATE audit SET hash = prev WHERE seq = 9"}, 9, "altered"},
			{"deleted row", []string{"DELETE FROM audit WHERE seq = 13"}, 13, "missing"},
			{"deleted first row", []string{"DELETE FROM audit WHERE seq = 1"}, 1, "missing"},
			{"rows exchanged", []string{
				"UPDATE audit SET seq = -1 WHERE seq = 4",
				"UPDATE audit SET seq = 4 WHERE seq = 5",
				"UPDATE audit SET seq = 5 WHERE seq = -1",
			}, 4, "follow"},
			{"deleted and closed up", []string{
				"DELETE FROM audit WHERE seq = 20",
				"UPDATE audit SET seq = -seq WHERE seq > 20",
				"UPDATE audit SET seq = -seq - 1 WHERE seq < 0",
			}, 20, "follow"},
			{"cut off at the end", []string{"DELETE FROM audit WHERE seq > 22"}, 23, "missing"},
			{"everything gone", []string{"DELETE FROM audit"}, 1, "missing"},
			{"row beyond the head", []string{
				"INSERT INTO audit SELECT 26, at, actor_kind, actor_id, request_id, action, target, items, digest, " +
					"summary, hash, hash FROM audit WHERE seq = 25",
			}, 26, "ends"},
			{"head's hash replaced", []string{
				"UPDATE audit_head SET hash = (SELECT hash FROM audit WHERE seq = 24)",
			}, 25, "head"},
			{"head gone", []string{"DELETE FROM audit_head"}, 0, "head"},
			{"row numbered 0", []string{
				"INSERT INTO audit SELECT 0, at, actor_kind, actor_id, request_id, action, target, items, digest, " +
					"summary, prev, hash FROM audit WHERE seq = 1",
			}, 0, "outside the chain"},
			{"row numbered below 0", []string{
				"INSERT INTO audit SELECT -7, at, actor_kind, actor_id, request_id, action, target, items, digest, " +
					"summary, prev, hash FROM audit WHERE seq = 9",
			}, -7, "outside the chain"},
			{"time far beyond any calendar", []string{
				"UPDATE audit SET at = 9223372036854775807 WHERE seq = 6",
			}, 6, "altered"},
			{"time that is text", []string{
				"sqlite: UPDATE audit SET at = 'yesterday' WHERE seq = 6",
			}, 6, "time is not a number"},
			{"time that is a fraction", []string{
				"sqlite: UPDATE audit SET at = at + 0.5 WHERE seq = 1",
			}, 1, "time is not a number"},
			{"count that is a blob", []string{
				"sqlite: UPDATE audit SET items = x'00' WHERE seq = 25",
			}, 25, "count is not a number"},
			{"head's number that is text", []string{"sqlite: UPDATE audit_head SET seq = 'many'"}, 0, "head"},
		} {
			if statement, only := strings.CutPrefix(c.sql[0], "sqlite: "); only {
				if d.Driver() != db.SQLite {
					continue // PostgreSQL's columns hold only values of their type
				}
				c.sql[0] = statement
			}
			// Each tampering is tried on a copy of the tables, which are restored afterwards.
			update(t, d, func(ctx context.Context, tx *db.Tx) error {
				for _, s := range append([]string{"CREATE TABLE save_audit AS SELECT * FROM audit",
					"CREATE TABLE save_head AS SELECT * FROM audit_head"}, c.sql...) {
					if _, err := tx.Exec(ctx, s); err != nil {
						return fmt.Errorf("%s: %w", s, err)
					}
				}
				return nil
			})
			rep := verify(t, d)
			if rep.Break == nil || rep.Break.Seq != c.seq || !strings.Contains(rep.Break.Reason, c.what) {
				t.Errorf("%s: %+v %+v, want a break at row %d that says %q", c.name, rep, rep.Break, c.seq, c.what)
			}
			update(t, d, func(ctx context.Context, tx *db.Tx) error {
				for _, s := range []string{"DELETE FROM audit", "DELETE FROM audit_head",
					"INSERT INTO audit SELECT * FROM save_audit", "INSERT INTO audit_head SELECT * FROM save_head",
					"DROP TABLE save_audit", "DROP TABLE save_head"} {
					if _, err := tx.Exec(ctx, s); err != nil {
						return fmt.Errorf("%s: %w", s, err)
					}
				}
				return nil
			})
		}
		// Cutting off the end and correcting the head is only detected with a head noted elsewhere.
		update(t, d, func(ctx context.Context, tx *db.Tx) error {
			if _, err := tx.Exec(ctx,
				"UPDATE audit_head SET seq = 24, hash = (SELECT hash FROM audit WHERE seq = 24)"); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "DELETE FROM audit WHERE seq = 25")
			return err
		})
		if rep := verify(t, d); rep.Break != nil {
			t.Errorf("a shortened chain is consistent in itself, but: %+v", rep.Break)
		}
		if rep := verify(t, d, good.Head); rep.Break == nil || rep.Break.Seq != 25 {
			t.Errorf("a shortened chain against a noted head: %+v, want a break at row 25", rep.Break)
		}
		update(t, d, func(ctx context.Context, tx *db.Tx) error { tx.Audit(record(99)); return nil })
		if rep := verify(t, d, good.Head); rep.Break == nil || rep.Break.Seq != 25 {
			t.Errorf("a chain with another row in place of a noted one: %+v, want a break at row 25", rep.Break)
		}
	})
}

func TestAuditChainHoldsUnderConcurrency(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		var wg sync.WaitGroup
		for w := range 6 {
			wg.Go(func() {
				for i := range 15 {
					err := d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
						tx.Audit(record(w))
						if i%5 == 4 {
							return context.DeadlineExceeded // rolled back: leaves no gap
						}
						return nil
					})
					if i%5 != 4 && err != nil {
						t.Errorf("Update: %v", err)
					}
				}
			})
		}
		wg.Go(func() { // verifying meanwhile finds an intact chain too
			for range 5 {
				if rep := verify(t, d); rep.Break != nil {
					t.Errorf("during changes: %+v", rep.Break)
				}
			}
		})
		wg.Wait()
		if rep := verify(t, d); rep.Break != nil || rep.Rows != 6*12 {
			t.Errorf("%+v %+v, want 72 rows and no break", rep, rep.Break)
		}
	})
}
