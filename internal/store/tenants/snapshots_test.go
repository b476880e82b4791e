package tenants_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
	store "github.com/tandemgw/tandem/internal/store/tenants"
	"github.com/tandemgw/tandem/internal/tenants/plan"
	"github.com/tandemgw/tandem/internal/tenants/snapshot"
	"github.com/tandemgw/tandem/internal/testkit"
)

// Snapshots of an account are listed from the newest on, and are read with the report of the leave.
func TestSnapshots(t *testing.T) {
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		s, ctx := store.New(d, nil, nil, nil), t.Context()
		var all []snapshot.Summary
		for i := range 3 {
			n := snapshot.Summary{ID: fmt.Sprint("2026112", i), Tenant: "t", Reason: "leave", Objects: 9, Users: i,
				Taken: time.Date(2026, 11, 29, 1, 2, i, 0, time.UTC), Imported: i == 1}
			all = append([]snapshot.Summary{n}, all...)
			err := s.AddSnapshot(ctx, "contoso", &n, fmt.Appendf(nil, "export %d", i), "tenant.snapshot")
			if err := errors.Join(err, s.AddSnapshot(ctx, "other", &n, []byte("x"),
				"tenant.importSnapshot")); err != nil {
				t.Fatal(err)
			}
		}
		report := &snapshot.Report{Snapshot: all[0].ID, Read: all[0].Taken, Outcomes: []snapshot.Outcome{
			{Ref: plan.Ref{Type: plan.Route, Name: "Tandem-E164"}, Fate: snapshot.Kept, Reason: "in use"}}}
		if err := s.SetReport(ctx, "contoso", report); err != nil {
			t.Fatal(err)
		}
		all[0].Report = true

		first, err := s.Snapshots(ctx, "contoso", "", 2)
		second, err2 := s.Snapshots(ctx, "contoso", all[1].ID, 2)
		if diff := cmp.Diff(all, append(first, second...)); diff != "" || len(first) != 2 ||
			errors.Join(err, err2) != nil {
			t.Errorf("listed (-want +got): %v, %v\n%s", err, err2, diff)
		}
		sum, export, err := s.Snapshot(ctx, "contoso", all[1].ID)
		if err != nil || *sum != all[1] || string(export) != "export 1" {
			t.Errorf("read: %+v %q %v", sum, export, err)
		}
		for _, id := range []string{all[0].ID, snapshot.Latest} {
			got, err := s.Report(ctx, "contoso", id)
			if diff := cmp.Diff(report, got); diff != "" || err != nil {
				t.Errorf("report of %s (-want +got): %v\n%s", id, err, diff)
			}
		}

		_, _, err = s.Snapshot(ctx, "contoso", "none")
		_, err2 = s.Report(ctx, "contoso", all[1].ID)
		_, err3 := s.Report(ctx, "other", snapshot.Latest)
		if !fault.HasCode(err, "SnapshotNotFound") || !fault.HasCode(err2, "ReportNotFound") ||
			!fault.HasCode(err3, "ReportNotFound") ||
			!fault.HasCode(s.SetReport(ctx, "other", &snapshot.Report{Snapshot: "none"}), "SnapshotNotFound") {
			t.Errorf("not stored: %v, %v, %v", err, err2, err3)
		}
		if log := testkit.AuditLog(t, d); len(log) != 6 || log[0].Action != "tenant.snapshot" ||
			log[0].Target != "contoso" {
			t.Errorf("audit: %+v", log)
		}
	})
}
