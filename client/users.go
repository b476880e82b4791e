package client

import (
	"context"
	"slices"

	api "github.com/tandemgw/tandem/api/manage"
)

// maxUsers is how many users one request activates or deactivates.
const maxUsers = 1000

// Users returns the users of a tenant that q selects, as the last pass saw them.
func (c *Client) Users(ctx context.Context, account string, q api.ListUsersParams) (all []api.User, err error) {
	for q.Limit = new(500); ; {
		l, err := read[api.UserList](c.manage().ListUsers(ctx, account, &q))
		if err != nil {
			return nil, err
		}
		if all = append(all, l.Users...); l.Next == "" {
			return all, nil
		}
		q.Cursor = &l.Next
	}
}

// User returns a user, by user principal name or object id, with the numbers that it had.
func (c *Client) User(ctx context.Context, account, user string) (*api.User, error) {
	return read[api.User](c.manage().GetUser(ctx, account, user))
}

// RefreshUser reads a user at Microsoft.
func (c *Client) RefreshUser(ctx context.Context, account, user string) (*api.User, error) {
	return read[api.User](c.manage().RefreshUser(ctx, account, user))
}

// ActivateUsers gives users numbers and Tandem's policies, as many as are named or selected. More than 1,000 are
// several requests: those before an error are done. A dry run shows the first 1,000 of a rule.
func (c *Client) ActivateUsers(ctx context.Context, account string, r api.UserActivation) ([]api.UserOutcome, error) {
	items := r.Items
	return repeated(func(first int) (*api.UserOutcomes, bool, error) {
		if r.Items = nil; first < len(items) {
			r.Items = items[first:min(len(items), first+maxUsers)]
		}
		l, err := read[api.UserOutcomes](c.manage().ActivateUsers(ctx, account, r))
		return l, first+maxUsers < len(items), err
	}, r.DryRun)
}

// DeactivateUsers gives users back what they had before, as ActivateUsers.
func (c *Client) DeactivateUsers(ctx context.Context, account string,
	r api.UserDeactivation) ([]api.UserOutcome, error) {
	users := r.Users
	return repeated(func(first int) (*api.UserOutcomes, bool, error) {
		if r.Users = nil; first < len(users) {
			r.Users = users[first:min(len(users), first+maxUsers)]
		}
		l, err := read[api.UserOutcomes](c.manage().DeactivateUsers(ctx, account, r))
		return l, first+maxUsers < len(users), err
	}, r.DryRun)
}

// repeated sends requests until all that is named was sent, and a rule selects no other users, or only refused ones.
func repeated(send func(first int) (l *api.UserOutcomes, left bool, err error),
	dryRun bool) (all []api.UserOutcome, err error) {
	for first := 0; ; first += maxUsers {
		l, left, err := send(first)
		if err != nil {
			return all, err
		}
		all = append(all, l.Users...)
		accepted := slices.ContainsFunc(l.Users, func(o api.UserOutcome) bool { return o.Code == "" })
		if !left && (dryRun || !l.More || !accepted) {
			return all, nil
		}
	}
}

// SyncUsers begins a pass over the users of a tenant: "full", or "delta" over what changed.
func (c *Client) SyncUsers(ctx context.Context, account, mode string) error {
	_, err := c.manage().SyncUsers(ctx, account, api.UserSyncRequest{Mode: api.UserSyncRequestMode(mode)})
	return err
}

// UserSyncs returns the newest passes over the users of a tenant.
func (c *Client) UserSyncs(ctx context.Context, account string) ([]api.UserSync, error) {
	l, err := read[api.UserSyncList](c.manage().ListUserSyncs(ctx, account))
	if err != nil {
		return nil, err
	}
	return l.Syncs, nil
}

// NumberUsers returns which users of a tenant had a number, the newest first.
func (c *Client) NumberUsers(ctx context.Context, account, number string) ([]api.NumberUser, error) {
	l, err := read[api.NumberUserList](c.manage().ListNumberUsers(ctx, account, number))
	if err != nil {
		return nil, err
	}
	return l.Users, nil
}
