package client

import (
	"context"
	"errors"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
)

// Tenants returns the Microsoft 365 tenants of all accounts that have one. The filter's members limit and cursor are
// ignored.
func (c *Client) Tenants(ctx context.Context, filter api.ListTenantsParams) (all []api.Tenant, err error) {
	for filter.Cursor, filter.Limit = nil, nil; ; {
		l, err := read[api.TenantList](c.manage().ListTenants(ctx, &filter))
		if err != nil {
			return nil, err
		}
		if all = append(all, l.Tenants...); l.Next == "" {
			return all, nil
		}
		filter.Cursor = &l.Next
	}
}

// Tenant returns the tenant of an account. tag is the ETag of its settings.
func (c *Client) Tenant(ctx context.Context, account string) (t *api.Tenant, tag string, err error) {
	return readTagged[api.Tenant](c.manage().GetTenant(ctx, account))
}

// PutTenant replaces the settings of a tenant. With a tag, it fails if they were changed since.
func (c *Client) PutTenant(ctx context.Context, account string, s api.TenantSettings,
	tag *string) (*api.Tenant, error) {
	return read[api.Tenant](c.manage().PutTenant(ctx, account, &api.PutTenantParams{IfMatch: tag}, s))
}

// DeleteTenant forgets a tenant in which Tandem has nothing.
func (c *Client) DeleteTenant(ctx context.Context, account string) error {
	_, err := c.manage().DeleteTenant(ctx, account)
	return err
}

// DialPlan returns the rules of a tenant's dial plan and what they make of examples, and of a number as it is dialled
// if that is not empty.
func (c *Client) DialPlan(ctx context.Context, account, dialled string) (*api.DialPlan, error) {
	var q api.GetDialPlanParams
	if dialled != "" {
		q.Dialled = &dialled
	}
	return read[api.DialPlan](c.manage().GetDialPlan(ctx, account, &q))
}

// PlanTenant reads a tenant and returns what would change in it. It changes nothing there.
func (c *Client) PlanTenant(ctx context.Context, account string, r api.PlanRequest) (*api.TenantPlan, error) {
	return read[api.TenantPlan](c.manage().PlanTenant(ctx, account, r))
}

// Plan returns a plan that was made.
func (c *Client) Plan(ctx context.Context, account, plan string) (*api.TenantPlan, error) {
	return read[api.TenantPlan](c.manage().GetPlan(ctx, account, plan))
}

// ApplyPlan approves a plan. The work then continues automatically; see Tenant.
func (c *Client) ApplyPlan(ctx context.Context, account, plan string) (*api.TenantPlan, error) {
	return read[api.TenantPlan](c.manage().ApplyPlan(ctx, account, plan))
}

// BeginMove begins to move an account to another tenant or, without a tenant id, its tenant to another label.
func (c *Client) BeginMove(ctx context.Context, account string, r api.MoveRequest) (*api.TenantMove, error) {
	return read[api.TenantMove](c.manage().BeginMove(ctx, account, r))
}

// Move returns how far an account has moved. It does not exist any more when the move is done.
func (c *Client) Move(ctx context.Context, account string) (*api.TenantMove, error) {
	return read[api.TenantMove](c.manage().GetMove(ctx, account))
}

// ContinueMove lets calls use the new label.
func (c *Client) ContinueMove(ctx context.Context, account string) (*api.TenantMove, error) {
	return read[api.TenantMove](c.manage().ContinueMove(ctx, account))
}

// AwaitMove returns the move of an account when it has reached a stage; nil when it is done, after which no move
// exists. It looks twice a second, until ctx is done.
func (c *Client) AwaitMove(ctx context.Context, account string, stage api.TenantMoveStage) (*api.TenantMove, error) {
	for tick := time.NewTicker(500 * time.Millisecond); ; {
		m, err := c.Move(ctx, account)
		remote, known := errors.AsType[*Error](err)
		switch {
		case known && remote.Code == "MoveNotFound" && stage == api.TenantMoveStageDone:
			return nil, nil
		case err != nil || m.Stage == stage:
			return m, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return m, ctx.Err()
		}
	}
}

// AbandonMove ends a move. What was done stays.
func (c *Client) AbandonMove(ctx context.Context, account string) error {
	_, err := c.manage().AbandonMove(ctx, account)
	return err
}

// Templates returns the templates of tenants.
func (c *Client) Templates(ctx context.Context) (all []api.Template, err error) {
	for q := (api.ListTemplatesParams{}); ; {
		l, err := read[api.TemplateList](c.manage().ListTemplates(ctx, &q))
		if err != nil {
			return nil, err
		}
		if all = append(all, l.Templates...); l.Next == "" {
			return all, nil
		}
		q.Cursor = &l.Next
	}
}

// Template returns a template of tenants.
func (c *Client) Template(ctx context.Context, name string) (*api.Template, error) {
	return read[api.Template](c.manage().GetTemplate(ctx, name))
}

// PutTemplate makes or replaces a template.
func (c *Client) PutTemplate(ctx context.Context, name string, s api.TemplateSettings) (*api.Template, error) {
	return read[api.Template](c.manage().PutTemplate(ctx, name, s))
}

// DeleteTemplate deletes a template that no tenant has.
func (c *Client) DeleteTemplate(ctx context.Context, name string) error {
	_, err := c.manage().DeleteTemplate(ctx, name)
	return err
}

// BeginRollout plans a template for all onboarded tenants that have it.
func (c *Client) BeginRollout(ctx context.Context, template string, rings []api.RolloutRing) (*api.Rollout, error) {
	return read[api.Rollout](c.manage().BeginRollout(ctx, template, api.RolloutRequest{Rings: rings}))
}

// Rollouts returns the newest rollouts of a template, the newest first.
func (c *Client) Rollouts(ctx context.Context, template string) ([]api.Rollout, error) {
	l, err := read[api.RolloutList](c.manage().ListRollouts(ctx, template))
	if err != nil {
		return nil, err
	}
	return l.Rollouts, nil
}

// Rollout returns a rollout.
func (c *Client) Rollout(ctx context.Context, template, id string) (*api.Rollout, error) {
	return read[api.Rollout](c.manage().GetRollout(ctx, template, id))
}

// RunRollout applies or abandons a rollout.
func (c *Client) RunRollout(ctx context.Context, template, id string,
	action api.RunRolloutParamsAction) (*api.Rollout, error) {
	return read[api.Rollout](c.manage().RunRollout(ctx, template, id, action))
}
