package manage_test

import (
	"context"

	api "github.com/tandemgw/tandem/api/manage"
)

var access = api.TenantAccess{Account: "acme", State: "needsSignIn", Tenant: "t", Mode: "delegated", Checked: now,
	Invitation: &api.Invitation{Created: now, CreatedBy: "client:c", Expires: now, Expired: true, Opened: now,
		Tenant: "t"},
	Authorised: &api.TenantMark{At: now, By: "admin"}, Person: &api.TenantPerson{ID: "p", Name: "svc",
		Roles: []string{}},
	Lost: &api.SignInLost{Reason: "disabled", Since: now, Lifetime: 3600}}

func (j *job) GetInvitation(_ context.Context, r api.GetInvitationRequestObject) (api.GetInvitationResponseObject,
	error) {
	a := access
	a.Account = r.Account
	return api.GetInvitation200JSONResponse(a), nil
}

func (j *job) CreateInvitation(context.Context, api.CreateInvitationRequestObject) (
	api.CreateInvitationResponseObject, error) {
	return api.CreateInvitation201JSONResponse{URL: "https://onboard.example/i/x", Expires: now}, nil
}

func (j *job) RevokeInvitation(context.Context, api.RevokeInvitationRequestObject) (
	api.RevokeInvitationResponseObject, error) {
	return api.RevokeInvitation204Response{}, nil
}

func (j *job) StartSignIn(_ context.Context, r api.StartSignInRequestObject) (api.StartSignInResponseObject, error) {
	return api.StartSignIn200JSONResponse{ID: "s1", Step: api.SignInStepStepConsent, URL: "https://login.example",
		UserCode: string(r.Body.Way), Interval: 5, Expires: now, Access: access}, nil
}

func (j *job) ContinueSignIn(_ context.Context, r api.ContinueSignInRequestObject) (api.ContinueSignInResponseObject,
	error) {
	return api.ContinueSignIn200JSONResponse{ID: r.ID + r.Body.Redirect, Access: access}, nil
}
