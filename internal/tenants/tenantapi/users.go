package tenantapi

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/web"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/user"
)

// Users implements the operations with the tag users.
type Users struct {
	Service *user.Service
	Sealer  web.Sealer // of cursors
}

var _ api.UsersOperations = Users{}

// ListUsers implements the operation listUsers.
func (o Users) ListUsers(ctx context.Context, r api.ListUsersRequestObject) (api.ListUsersResponseObject, error) {
	q := r.Params
	f := user.Filter{State: user.State(*cmp.Or(q.State, new(api.UserState("")))),
		Department: *cmp.Or(q.Department, new("")), Text: *cmp.Or(q.Text, new("")),
		Kind: string(*cmp.Or(q.AccountType, new(api.ListUsersParamsAccountType(""))))}
	if q.UsageLocation != nil {
		var err error
		if f.Location, err = location(*q.UsageLocation, "usageLocation"); err != nil {
			return nil, err
		}
	}
	if q.Number != nil {
		f.Number = new(*q.Number == api.ListUsersParamsNumberHeld)
	}
	all, next, err := web.Page(o.Sealer, "page users of "+r.Account, q.Limit, q.Cursor,
		func(after user.Key, limit int) (found []user.User, err error) {
			err = o.view(ctx, r.Account, func(ctx context.Context, tx user.Tx) error {
				found, err = tx.Users(ctx, f, after, limit)
				return err
			})
			return found, err
		},
		func(u user.User) user.Key { return user.Key{Login: strings.ToLower(u.UPN), ID: u.ID} })
	if err != nil {
		return nil, err
	}
	page := api.ListUsers200JSONResponse{Next: next, Users: make([]api.User, len(all))}
	for i := range all {
		page.Users[i] = userAnswer(&all[i])
	}
	return page, nil
}

// view is Store.View for an account that has a tenant.
func (o Users) view(ctx context.Context, account string, fn func(context.Context, user.Tx) error) error {
	return o.Service.Store.View(ctx, account, func(ctx context.Context, tx user.Tx) error {
		if _, err := tx.Tenant(ctx); err != nil {
			return err
		}
		return fn(ctx, tx)
	})
}

func userAnswer(u *user.User) api.User {
	a := api.User{ID: u.ID, User: u.UPN, Name: u.Name, Department: u.Department, UsageLocation: u.Location,
		AccountType: u.Voice.Kind, OnPremises: u.OnPremises, State: api.UserState(u.State), Missing: u.Missing(),
		Deleted: u.Deleted, Number: u.Voice.Number, Waiting: waitAnswer(u.Waiting)}
	for _, field := range slices.Sorted(maps.Keys(u.Voice.Policies)) {
		p := u.Voice.Policies[field]
		a.Policies = append(a.Policies, api.UserPolicy{Kind: field, Name: p.Name, Group: p.Group})
	}
	if u.Activation != nil {
		a.Activation = &api.UserItem{User: u.ID, Number: u.Activation.Number, CallerID: u.Activation.CallerID}
	}
	return a
}

func waitAnswer(w *onboard.Waiting) *api.TenantWait {
	if w == nil {
		return nil
	}
	return &api.TenantWait{For: api.TenantParty(w.For), Type: string(w.Object.Type), Name: w.Object.Name,
		Reason: w.Reason, Since: w.Since, Usual: int(w.Usual / time.Second), Longest: int(w.Longest / time.Second)}
}

func owners(all []user.Owned) []api.NumberUser {
	list := make([]api.NumberUser, len(all))
	for i, x := range all {
		list[i] = api.NumberUser{Number: x.Number, ID: x.ID, User: x.UPN, Began: x.Began, Ended: x.Ended}
	}
	return list
}

// most is how many entries of a history are shown.
const most = 100

// GetUser implements the operation getUser.
func (o Users) GetUser(ctx context.Context, r api.GetUserRequestObject) (api.GetUserResponseObject, error) {
	var a api.User
	err := o.view(ctx, r.Account, func(ctx context.Context, tx user.Tx) error {
		u, err := tx.User(ctx, r.User)
		if err != nil {
			return err
		}
		had, err := tx.History(ctx, "", u.ID, most)
		a = userAnswer(u)
		a.History = owners(had)
		return err
	})
	return api.GetUser200JSONResponse(a), err
}

// RefreshUser implements the operation refreshUser.
func (o Users) RefreshUser(ctx context.Context, r api.RefreshUserRequestObject) (api.RefreshUserResponseObject, error) {
	u, err := o.Service.Refresh(ctx, r.Account, r.User)
	if err != nil {
		return nil, err
	}
	return api.RefreshUser200JSONResponse(userAnswer(u)), nil
}

// location returns a usage location as Microsoft writes it.
func location(s, target string) (string, error) {
	code := strings.ToUpper(s)
	if len(code) != 2 || strings.Trim(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		return "", fault.New(fault.Invalid, "InvalidUsageLocation",
			"%q is not an ISO 3166 country code of two letters, such as GB", s).At(target)
	}
	return code, nil
}

func rule(department, place string) (r *onboard.Selection, err error) {
	if department == "" && place == "" {
		return nil, nil
	}
	if place != "" {
		place, err = location(place, "usageLocation")
	}
	return &onboard.Selection{Department: department, Location: place}, err
}

func outcomesAnswer(all []user.Outcome, more bool) api.UserOutcomes {
	a := api.UserOutcomes{More: more, Users: make([]api.UserOutcome, len(all))}
	for i, x := range all {
		a.Users[i] = api.UserOutcome{User: x.User, ID: x.ID, Number: x.Number, Code: x.Code, Reason: x.Refused}
	}
	return a
}

// errNobody is returned for a request without users and without a rule.
var errNobody = fault.New(fault.Invalid, "NoUsers", "name users, or a department or usage location that selects "+
	"them")

// ActivateUsers implements the operation activateUsers.
func (o Users) ActivateUsers(ctx context.Context,
	r api.ActivateUsersRequestObject) (api.ActivateUsersResponseObject, error) {
	b := r.Body
	rule, err := rule(b.Department, b.UsageLocation)
	if err != nil {
		return nil, err
	}
	if len(b.Items) == 0 && rule == nil {
		return nil, errNobody
	}
	q := user.Request{Rule: rule, NextNumber: b.NextNumber, OverrideGroup: b.OverrideGroup, DryRun: b.DryRun}
	for _, x := range b.Items {
		q.Items = append(q.Items, user.Item{User: x.User, Number: x.Number, CallerID: x.CallerID})
	}
	all, more, err := o.Service.Activate(ctx, r.Account, q)
	return api.ActivateUsers200JSONResponse(outcomesAnswer(all, more)), err
}

// DeactivateUsers implements the operation deactivateUsers.
func (o Users) DeactivateUsers(ctx context.Context,
	r api.DeactivateUsersRequestObject) (api.DeactivateUsersResponseObject, error) {
	rule, err := rule(r.Body.Department, r.Body.UsageLocation)
	if err != nil {
		return nil, err
	}
	if len(r.Body.Users) == 0 && rule == nil {
		return nil, errNobody
	}
	all, more, err := o.Service.Deactivate(ctx, r.Account, r.Body.Users, rule, r.Body.DryRun)
	return api.DeactivateUsers200JSONResponse(outcomesAnswer(all, more)), err
}

// ListUserSyncs implements the operation listUserSyncs.
func (o Users) ListUserSyncs(ctx context.Context,
	r api.ListUserSyncsRequestObject) (api.ListUserSyncsResponseObject, error) {
	var passes []user.Pass
	err := o.view(ctx, r.Account, func(ctx context.Context, tx user.Tx) (err error) {
		passes, err = tx.Passes(ctx, 50)
		return err
	})
	a := api.ListUserSyncs200JSONResponse{Syncs: make([]api.UserSync, len(passes))}
	for i, p := range passes {
		a.Syncs[i] = api.UserSync{Pass: int(p.Number), Mode: p.Mode, Why: p.Why, Began: p.Began, Ended: p.Ended,
			Failure: p.Failure, Users: int(p.Users), Voices: int(p.Voices), Removed: int(p.Removed),
			Restarts: int(p.Restarts)}
	}
	return a, err
}

// SyncUsers implements the operation syncUsers.
func (o Users) SyncUsers(ctx context.Context, r api.SyncUsersRequestObject) (api.SyncUsersResponseObject, error) {
	return api.SyncUsers202Response{}, o.Service.Sync(ctx, r.Account, string(r.Body.Mode))
}

// ListNumberUsers implements the operation listNumberUsers.
func (o Users) ListNumberUsers(ctx context.Context,
	r api.ListNumberUsersRequestObject) (api.ListNumberUsersResponseObject, error) {
	number, _, err := user.ParseNumber(r.Number)
	if err != nil {
		return nil, fault.New(fault.Invalid, "InvalidNumber", "%v", err).At("number")
	}
	var had []user.Owned
	err = o.view(ctx, r.Account, func(ctx context.Context, tx user.Tx) (err error) {
		had, err = tx.History(ctx, number, "", most)
		return err
	})
	return api.ListNumberUsers200JSONResponse{Users: owners(had)}, err
}
