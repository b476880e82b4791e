package manage_test

import (
	"context"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/domain/fault"
)

// sampleUser has all members of a user.
var sampleUser = api.User{ID: "i", User: "anna@contoso.example", Name: "Anna", Department: "Sales", UsageLocation: "GB",
	AccountType: "user", OnPremises: true, State: api.UserStateActivating, Missing: "MCOEV",
	Deleted:    time.Unix(1, 0).UTC(),
	Number:     "+442079460001;ext=1",
	Policies:   []api.UserPolicy{{Kind: "dialPlan", Name: "Tandem-E164", Group: "g"}},
	Activation: &api.UserItem{User: "i", Number: "+442079460001", CallerID: "c"},
	Waiting: &api.TenantWait{For: api.TenantPartyMicrosoft, Type: "user", Name: "i", Reason: "r",
		Since: time.Unix(1, 0).UTC(), Usual: 60, Longest: 600},
	History: []api.NumberUser{sampleOwner}}

var sampleOwner = api.NumberUser{Number: "+442079460001", ID: "i", User: "anna@contoso.example",
	Began: time.Unix(1, 0).UTC(), Ended: time.Unix(2, 0).UTC()}

func (j *job) ListUsers(_ context.Context, r api.ListUsersRequestObject) (api.ListUsersResponseObject, error) {
	next := ""
	if r.Params.Cursor != nil {
		next = *r.Params.Cursor
	}
	return api.ListUsers200JSONResponse{Users: []api.User{sampleUser}, Next: next}, nil
}

func (j *job) GetUser(_ context.Context, r api.GetUserRequestObject) (api.GetUserResponseObject, error) {
	if r.User == "nobody" {
		return nil, fault.New(fault.NotFound, "UserNotFound", "no such user")
	}
	return api.GetUser200JSONResponse(sampleUser), nil
}

func (j *job) RefreshUser(context.Context, api.RefreshUserRequestObject) (api.RefreshUserResponseObject, error) {
	return api.RefreshUser200JSONResponse(sampleUser), nil
}

func (j *job) ActivateUsers(_ context.Context, r api.ActivateUsersRequestObject) (api.ActivateUsersResponseObject,
	error) {
	a := api.ActivateUsers200JSONResponse{More: true, Users: []api.UserOutcome{}}
	for _, x := range r.Body.Items {
		a.Users = append(a.Users, api.UserOutcome{User: x.User, ID: "i", Number: x.Number, Code: "NumberInUse",
			Reason: "r"})
	}
	return a, nil
}

func (j *job) DeactivateUsers(_ context.Context,
	r api.DeactivateUsersRequestObject) (api.DeactivateUsersResponseObject, error) {
	return api.DeactivateUsers200JSONResponse{Users: []api.UserOutcome{{User: r.Body.Users[0]}}}, nil
}

func (j *job) ListUserSyncs(context.Context, api.ListUserSyncsRequestObject) (api.ListUserSyncsResponseObject, error) {
	return api.ListUserSyncs200JSONResponse{Syncs: []api.UserSync{{Pass: 7, Mode: "full", Why: "requested",
		Began: time.Unix(1, 0).UTC(), Ended: time.Unix(2, 0).UTC(), Failure: "f", Users: 1, Voices: 1, Removed: 1,
		Restarts: 1}}}, nil
}

func (j *job) SyncUsers(context.Context, api.SyncUsersRequestObject) (api.SyncUsersResponseObject, error) {
	return api.SyncUsers202Response{}, nil
}

func (j *job) ListNumberUsers(context.Context,
	api.ListNumberUsersRequestObject) (api.ListNumberUsersResponseObject, error) {
	return api.ListNumberUsers200JSONResponse{Users: []api.NumberUser{sampleOwner}}, nil
}
