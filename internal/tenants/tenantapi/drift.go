package tenantapi

import (
	"context"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/tenants/drift"
)

// Drift implements the operations with the tag drift.
type Drift struct {
	*drift.Checker
	Names Names
}

// GetDriftOverview implements the operation getDriftOverview.
func (o Drift) GetDriftOverview(ctx context.Context,
	_ api.GetDriftOverviewRequestObject) (api.GetDriftOverviewResponseObject, error) {
	x, err := o.Store.Overview(ctx)
	if err != nil {
		return nil, err
	}
	return api.GetDriftOverview200JSONResponse{Tenants: x.Tenants, Drifted: x.Drifted, Differences: x.Differences,
		RequestsPerHour: x.PerHour, Oldest: x.Oldest}, nil
}

func (o Drift) state(ctx context.Context, account string) (d api.Drift, err error) {
	s, err := o.Store.State(ctx, account)
	if err != nil {
		return d, err
	}
	d = api.Drift{Account: account, Checked: s.Checked, Next: s.Next, Every: int(o.Every(account) / time.Second),
		RequestsPerHour: s.PerHour(), Problem: s.Problem, Differences: make([]api.DriftDifference, len(s.Differences))}
	objects := make([]shown, len(s.Differences))
	for i, x := range s.Differences {
		d.Differences[i] = api.DriftDifference{ID: x.ID, Cause: api.DriftDifferenceCause(x.Cause), Type: string(x.Type),
			Name: x.Name, Field: x.Field, Expected: x.Expected, Found: x.Found, Since: x.Since, Until: x.Until}
		a := &d.Differences[i]
		objects[i] = shown{a.Type, a.Name, &a.User, &a.DisplayName}
	}
	return d, o.Names.fill(ctx, account, objects)
}

// GetDrift implements the operation getDrift.
func (o Drift) GetDrift(ctx context.Context, r api.GetDriftRequestObject) (api.GetDriftResponseObject, error) {
	d, err := o.state(ctx, r.Account)
	if err != nil {
		return nil, err
	}
	return api.GetDrift200JSONResponse(d), nil
}

// CheckDrift implements the operation checkDrift.
func (o Drift) CheckDrift(ctx context.Context, r api.CheckDriftRequestObject) (api.CheckDriftResponseObject, error) {
	if err := o.Store.Check(ctx, r.Account); err != nil {
		return nil, err
	}
	return api.CheckDrift202Response{}, nil
}

// AcceptDrift implements the operation acceptDrift.
func (o Drift) AcceptDrift(ctx context.Context, r api.AcceptDriftRequestObject) (api.AcceptDriftResponseObject, error) {
	if err := o.Accept(ctx, r.Account, r.Body.Differences...); err != nil {
		return nil, err
	}
	d, err := o.state(ctx, r.Account)
	if err != nil {
		return nil, err
	}
	return api.AcceptDrift200JSONResponse(d), nil
}

// RepairDrift implements the operation repairDrift.
func (o Drift) RepairDrift(ctx context.Context, r api.RepairDriftRequestObject) (api.RepairDriftResponseObject, error) {
	id, err := o.Plan(ctx, r.Account, r.Body.Differences...)
	if err != nil {
		return nil, err
	}
	return api.RepairDrift200JSONResponse{Plan: id}, nil
}
