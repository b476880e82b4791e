package client

import (
	"context"

	api "github.com/tandemgw/tandem/api/manage"
)

// Snapshots returns the snapshots of a tenant, from the newest on.
func (c *Client) Snapshots(ctx context.Context, account string) (all []api.Snapshot, err error) {
	for q := (api.ListSnapshotsParams{}); ; {
		l, err := read[api.SnapshotList](c.manage().ListSnapshots(ctx, account, &q))
		if err != nil {
			return nil, err
		}
		if all = append(all, l.Snapshots...); l.Next == "" {
			return all, nil
		}
		q.Cursor = &l.Next
	}
}

// TakeSnapshot records what a tenant has by Tandem.
func (c *Client) TakeSnapshot(ctx context.Context, account string) (*api.Snapshot, error) {
	return read[api.Snapshot](c.manage().TakeSnapshot(ctx, account))
}

// ExportSnapshot returns a snapshot with its signed content.
func (c *Client) ExportSnapshot(ctx context.Context, account, snapshot string) (*api.SnapshotExport, error) {
	return read[api.SnapshotExport](c.manage().ExportSnapshot(ctx, account, snapshot))
}

// ImportSnapshot stores a snapshot that was exported, of up to 25 MiB.
func (c *Client) ImportSnapshot(ctx context.Context, account, export string) (*api.Snapshot, error) {
	return read[api.Snapshot](c.manage().ImportSnapshot(ctx, account, api.SnapshotImport{Export: export}))
}

// LeaveReport returns what became of each thing that Tandem had made in a tenant, after it was left. The snapshot is
// the one that was taken before, or "latest".
func (c *Client) LeaveReport(ctx context.Context, account, snapshot string) (*api.LeaveReport, error) {
	return read[api.LeaveReport](c.manage().GetLeaveReport(ctx, account, snapshot))
}
