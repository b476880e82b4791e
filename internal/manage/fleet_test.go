package manage_test

import (
	"cmp"
	"context"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/domain/fault"
)

var sampleTemplate = api.Template{Name: "branch", Changed: now, Tenants: 3, Settings: api.TemplateSettings{
	Trunk: "derived", Country: "GB", AreaCode: "20", Licence: "MCOSTANDARD", OwnUsageOnly: true,
	Extensions: []api.Extensions{{Range: "2xxx"}}, Emergency: []api.EmergencyNumber{{DialString: "112"}},
	Rules: []api.DialRule{{Name: "a", Pattern: "b", Translation: "c"}}}}

func (j *job) ListTemplates(_ context.Context,
	r api.ListTemplatesRequestObject) (api.ListTemplatesResponseObject, error) {
	return api.ListTemplates200JSONResponse{Templates: []api.Template{sampleTemplate},
		Next: *cmp.Or(r.Params.Cursor, new(""))}, nil
}

func (j *job) GetTemplate(_ context.Context, r api.GetTemplateRequestObject) (api.GetTemplateResponseObject, error) {
	if r.Template == "none" {
		return nil, fault.New(fault.NotFound, "TemplateNotFound", "no such template")
	}
	return api.GetTemplate200JSONResponse(sampleTemplate), nil
}

func (j *job) PutTemplate(_ context.Context, r api.PutTemplateRequestObject) (api.PutTemplateResponseObject, error) {
	return api.PutTemplate200JSONResponse{Name: r.Template, Changed: now, Settings: *r.Body}, nil
}

func (j *job) DeleteTemplate(context.Context,
	api.DeleteTemplateRequestObject) (api.DeleteTemplateResponseObject, error) {
	return api.DeleteTemplate204Response{}, nil
}

func sampleRollout(state api.RolloutState) api.Rollout {
	return api.Rollout{ID: "r1", Template: "branch", State: state, Begun: now, By: "client:1", Ring: 1, Rings: 2,
		Account: "acme", Reason: "sign in", Tenants: []api.RolloutTenant{{Account: "acme", Ring: 1,
			State: api.RolloutTenantStatePlanned, Plan: "p", Create: 1, Change: 2, Delete: 3, Conflicts: 1,
			Problem: "a group has it"}}}
}

func (j *job) ListRollouts(context.Context, api.ListRolloutsRequestObject) (api.ListRolloutsResponseObject, error) {
	return api.ListRollouts200JSONResponse{Rollouts: []api.Rollout{sampleRollout("done")}}, nil
}

func (j *job) BeginRollout(_ context.Context,
	r api.BeginRolloutRequestObject) (api.BeginRolloutResponseObject, error) {
	x := sampleRollout("planning")
	x.Rings = len(r.Body.Rings)
	return api.BeginRollout202JSONResponse(x), nil
}

func (j *job) GetRollout(context.Context, api.GetRolloutRequestObject) (api.GetRolloutResponseObject, error) {
	return api.GetRollout200JSONResponse(sampleRollout("stopped")), nil
}

func (j *job) RunRollout(_ context.Context, r api.RunRolloutRequestObject) (api.RunRolloutResponseObject, error) {
	j.did = append(j.did, string(r.Action)+" "+r.Rollout)
	return api.RunRollout202JSONResponse(sampleRollout("running")), nil
}

var sampleMove = api.TenantMove{Account: "acme", TenantID: "t", Old: "a", New: "b", Stage: api.TenantMoveStageNumbers,
	Begun: now, By: "client:1", Next: "give the numbers", Numbers: 3}

func (j *job) GetMove(context.Context, api.GetMoveRequestObject) (api.GetMoveResponseObject, error) {
	return api.GetMove200JSONResponse(sampleMove), nil
}

func (j *job) BeginMove(_ context.Context, r api.BeginMoveRequestObject) (api.BeginMoveResponseObject, error) {
	m := sampleMove
	m.New = r.Body.Label
	return api.BeginMove201JSONResponse(m), nil
}

func (j *job) ContinueMove(context.Context, api.ContinueMoveRequestObject) (api.ContinueMoveResponseObject, error) {
	return api.ContinueMove202JSONResponse(sampleMove), nil
}

func (j *job) AbandonMove(context.Context, api.AbandonMoveRequestObject) (api.AbandonMoveResponseObject, error) {
	return api.AbandonMove204Response{}, nil
}
