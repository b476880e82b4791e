package tenantapi

import (
	"context"
	"regexp"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/web"
	"github.com/tandemgw/tandem/internal/tenants/move"
	"github.com/tandemgw/tandem/internal/tenants/plan"
	"github.com/tandemgw/tandem/internal/tenants/rollout"
)

// ListTemplates implements the operation listTemplates.
func (o Tenants) ListTemplates(ctx context.Context,
	r api.ListTemplatesRequestObject) (api.ListTemplatesResponseObject, error) {
	all, next, err := web.Page(o.Sealer, "page templates", r.Params.Limit, r.Params.Cursor,
		func(after string, limit int) ([]*rollout.Template, error) {
			return o.Rollouts.Store.Templates(ctx, after, limit)
		},
		func(t *rollout.Template) string { return t.Name })
	if err != nil {
		return nil, err
	}
	page := api.ListTemplates200JSONResponse{Next: next, Templates: make([]api.Template, len(all))}
	for i, t := range all {
		if page.Templates[i], err = template(t); err != nil {
			return nil, err
		}
	}
	return page, nil
}

func template(t *rollout.Template) (a api.Template, err error) {
	a = api.Template{Name: t.Name, Changed: t.Changed, Tenants: t.Tenants}
	a.Settings, err = convert[api.TemplateSettings](t.Wishes)
	return a, err
}

// GetTemplate implements the operation getTemplate.
func (o Tenants) GetTemplate(ctx context.Context,
	r api.GetTemplateRequestObject) (api.GetTemplateResponseObject, error) {
	t, err := o.Rollouts.Get(ctx, r.Template)
	if err != nil {
		return nil, err
	}
	a, err := template(t)
	return api.GetTemplate200JSONResponse(a), err
}

var templateName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]*$`)

// PutTemplate implements the operation putTemplate.
func (o Tenants) PutTemplate(ctx context.Context,
	r api.PutTemplateRequestObject) (api.PutTemplateResponseObject, error) {
	if !templateName.MatchString(r.Template) {
		return nil, fault.New(fault.Invalid, "InvalidTemplateName", "the name of a template has letters, digits, "+
			"\"_\" and \"-\"")
	}
	w, err := wishes(r.Body)
	if err == nil {
		err = o.Planner.Check(w, "")
	}
	if err == nil {
		err = o.Rollouts.Put(ctx, r.Template, w)
	}
	if err != nil {
		return nil, err
	}
	t, err := o.Rollouts.Get(ctx, r.Template)
	if err != nil {
		return nil, err
	}
	a, err := template(t)
	return api.PutTemplate200JSONResponse(a), err
}

// DeleteTemplate implements the operation deleteTemplate.
func (o Tenants) DeleteTemplate(ctx context.Context,
	r api.DeleteTemplateRequestObject) (api.DeleteTemplateResponseObject, error) {
	return api.DeleteTemplate204Response{}, o.Rollouts.Delete(ctx, r.Template)
}

// ListRollouts implements the operation listRollouts.
func (o Tenants) ListRollouts(ctx context.Context,
	r api.ListRolloutsRequestObject) (api.ListRolloutsResponseObject, error) {
	all, err := o.Rollouts.List(ctx, r.Template)
	a := api.ListRollouts200JSONResponse{Rollouts: make([]api.Rollout, len(all))}
	for i, x := range all {
		a.Rollouts[i] = rolled(x)
	}
	return a, err
}

func rolled(r *rollout.Rollout) api.Rollout {
	a := api.Rollout{ID: r.ID, Template: r.Template, State: api.RolloutState(r.State), Begun: r.Begun, By: r.By,
		Ring: r.Ring, Rings: r.Rings, Account: r.Account, Reason: r.Reason,
		Tenants: make([]api.RolloutTenant, len(r.Tenants))}
	for i, t := range r.Tenants {
		state := api.RolloutTenantStateUnplanned
		switch {
		case t.Done:
			state = api.RolloutTenantStateDone
		case t.Applied:
			state = api.RolloutTenantStateApplied
		case t.Plan != "":
			state = api.RolloutTenantStatePlanned
		}
		a.Tenants[i] = api.RolloutTenant{Account: t.Account, Ring: t.Ring, State: state, Plan: t.Plan, Create: t.Create,
			Change: t.Change, Delete: t.Delete, Conflicts: t.Conflicts, Problem: t.Problem, Waiting: t.Waits}
	}
	return a
}

// BeginRollout implements the operation beginRollout.
func (o Tenants) BeginRollout(ctx context.Context,
	r api.BeginRolloutRequestObject) (api.BeginRolloutResponseObject, error) {
	rings := make([]rollout.Ring, len(r.Body.Rings))
	for i, x := range r.Body.Rings {
		rings[i] = rollout.Ring{Accounts: x.Accounts, Percent: x.Percent}
	}
	x, err := o.Rollouts.Begin(ctx, r.Template, rings, caller(ctx))
	if err != nil {
		return nil, err
	}
	return api.BeginRollout202JSONResponse(rolled(x)), nil
}

// GetRollout implements the operation getRollout.
func (o Tenants) GetRollout(ctx context.Context, r api.GetRolloutRequestObject) (api.GetRolloutResponseObject, error) {
	x, err := o.Rollouts.Rollout(ctx, r.Template, r.Rollout)
	if err != nil {
		return nil, err
	}
	return api.GetRollout200JSONResponse(rolled(x)), nil
}

// RunRollout implements the operation runRollout.
func (o Tenants) RunRollout(ctx context.Context, r api.RunRolloutRequestObject) (api.RunRolloutResponseObject, error) {
	run := o.Rollouts.Apply
	switch r.Action {
	case api.RunRolloutParamsActionApply:
	case api.RunRolloutParamsActionAbandon:
		run = o.Rollouts.Abandon
	default:
		return nil, fault.New(fault.NotFound, "UnknownAction", "a rollout has no action %q", r.Action)
	}
	x, err := run(ctx, r.Template, r.Rollout)
	if err != nil {
		return nil, err
	}
	return api.RunRollout202JSONResponse(rolled(x)), nil
}

func moved(m *move.Move) api.TenantMove {
	return api.TenantMove{Account: m.Account, TenantID: m.TenantID, Old: m.Old, New: m.New,
		Stage: api.TenantMoveStage(m.Stage), Begun: m.Begun, By: m.By, Next: m.Next, Numbers: m.Numbers}
}

// GetMove implements the operation getMove.
func (o Tenants) GetMove(ctx context.Context, r api.GetMoveRequestObject) (api.GetMoveResponseObject, error) {
	m, err := o.Moves.Get(ctx, r.Account)
	if err != nil {
		return nil, err
	}
	return api.GetMove200JSONResponse(moved(m)), nil
}

// BeginMove implements the operation beginMove.
func (o Tenants) BeginMove(ctx context.Context, r api.BeginMoveRequestObject) (api.BeginMoveResponseObject, error) {
	if r.Body.Label != "" {
		if err := o.Planner.CheckLabel(ctx, r.Account, r.Body.Label); err != nil {
			return nil, err
		}
	}
	m, err := o.Moves.Begin(ctx, r.Account, move.Request{TenantID: r.Body.TenantID, Label: r.Body.Label,
		Trunk: plan.Trunk(r.Body.Trunk)}, caller(ctx))
	if err != nil {
		return nil, err
	}
	return api.BeginMove201JSONResponse(moved(m)), nil
}

// ContinueMove implements the operation continueMove.
func (o Tenants) ContinueMove(ctx context.Context,
	r api.ContinueMoveRequestObject) (api.ContinueMoveResponseObject, error) {
	m, err := o.Moves.Continue(ctx, r.Account)
	if err != nil {
		return nil, err
	}
	return api.ContinueMove202JSONResponse(moved(m)), nil
}

// AbandonMove implements the operation abandonMove.
func (o Tenants) AbandonMove(ctx context.Context,
	r api.AbandonMoveRequestObject) (api.AbandonMoveResponseObject, error) {
	return api.AbandonMove204Response{}, o.Moves.Abandon(ctx, r.Account)
}
