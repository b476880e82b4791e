package client

import (
	"context"

	api "github.com/tandemgw/tandem/api/manage"
)

// DriftOverview returns how many tenants differ from what Tandem made there.
func (c *Client) DriftOverview(ctx context.Context) (*api.DriftOverview, error) {
	return read[api.DriftOverview](c.manage().GetDriftOverview(ctx))
}

// Drift returns what people have changed in a tenant, as the last comparison shows.
func (c *Client) Drift(ctx context.Context, account string) (*api.Drift, error) {
	return read[api.Drift](c.manage().GetDrift(ctx, account))
}

// CheckDrift makes a tenant be compared at once; Drift shows the result.
func (c *Client) CheckDrift(ctx context.Context, account string) error {
	_, err := c.manage().CheckDrift(ctx, account)
	return err
}

// AcceptDrift makes what was found what Tandem expects, and returns what remains.
func (c *Client) AcceptDrift(ctx context.Context, account string, differences ...int) (*api.Drift, error) {
	return read[api.Drift](c.manage().AcceptDrift(ctx, account, api.Differences{Differences: differences}))
}

// RepairDrift makes a plan that repairs differences and nothing else.
func (c *Client) RepairDrift(ctx context.Context, account string, differences ...int) (*api.RepairPlan, error) {
	return read[api.RepairPlan](c.manage().RepairDrift(ctx, account, api.Differences{Differences: differences}))
}
