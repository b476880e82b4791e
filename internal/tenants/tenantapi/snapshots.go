package tenantapi

import (
	"context"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/platform/web"
	"github.com/tandemgw/tandem/internal/tenants/snapshot"
)

// Snapshots implements the operations with the tag snapshots.
type Snapshots struct {
	*snapshot.Snapshots
	Cursors web.Sealer
}

func described(s *snapshot.Summary) api.Snapshot {
	return api.Snapshot{ID: s.ID, TenantID: s.Tenant, Taken: s.Taken, Reason: s.Reason, Objects: s.Objects,
		Users: s.Users, Imported: s.Imported, Report: s.Report}
}

// ListSnapshots implements the operation listSnapshots.
func (o Snapshots) ListSnapshots(ctx context.Context,
	r api.ListSnapshotsRequestObject) (api.ListSnapshotsResponseObject, error) {
	all, next, err := web.Page(o.Cursors, "page snapshots", r.Params.Limit, r.Params.Cursor,
		func(before string, limit int) ([]snapshot.Summary, error) {
			return o.Store.Snapshots(ctx, r.Account, before, limit)
		},
		func(s snapshot.Summary) string { return s.ID })
	if err != nil {
		return nil, err
	}
	page := api.ListSnapshots200JSONResponse{Next: next, Snapshots: make([]api.Snapshot, len(all))}
	for i := range all {
		page.Snapshots[i] = described(&all[i])
	}
	return page, nil
}

// TakeSnapshot implements the operation takeSnapshot.
func (o Snapshots) TakeSnapshot(ctx context.Context,
	r api.TakeSnapshotRequestObject) (api.TakeSnapshotResponseObject, error) {
	s, err := o.Take(ctx, r.Account, snapshot.Request)
	if err != nil {
		return nil, err
	}
	return api.TakeSnapshot200JSONResponse(described(s)), nil
}

// ImportSnapshot implements the operation importSnapshot.
func (o Snapshots) ImportSnapshot(ctx context.Context,
	r api.ImportSnapshotRequestObject) (api.ImportSnapshotResponseObject, error) {
	s, err := o.Import(ctx, r.Account, []byte(r.Body.Export))
	if err != nil {
		return nil, err
	}
	return api.ImportSnapshot200JSONResponse(described(s)), nil
}

// ExportSnapshot implements the operation exportSnapshot.
func (o Snapshots) ExportSnapshot(ctx context.Context,
	r api.ExportSnapshotRequestObject) (api.ExportSnapshotResponseObject, error) {
	s, export, err := o.Store.Snapshot(ctx, r.Account, r.Snapshot)
	if err != nil {
		return nil, err
	}
	return api.ExportSnapshot200JSONResponse{Snapshot: described(s), Export: string(export)}, nil
}

// GetLeaveReport implements the operation getLeaveReport.
func (o Snapshots) GetLeaveReport(ctx context.Context,
	r api.GetLeaveReportRequestObject) (api.GetLeaveReportResponseObject, error) {
	report, err := o.Store.Report(ctx, r.Account, r.Snapshot)
	if err != nil {
		return nil, err
	}
	a := api.GetLeaveReport200JSONResponse{Account: r.Account, Snapshot: report.Snapshot, Read: report.Read,
		Advice: report.Advice, Outcomes: make([]api.LeaveOutcome, len(report.Outcomes))}
	for i, x := range report.Outcomes {
		a.Outcomes[i] = api.LeaveOutcome{Type: string(x.Type), Name: x.Name, Fate: api.LeaveOutcomeFate(x.Fate),
			User: x.User, DisplayName: x.Display, Reason: x.Reason}
	}
	return a, nil
}
