package client

import (
	"context"

	api "github.com/tandemgw/tandem/api/manage"
)

// Invite makes a link with which an administrator of the account's tenant authorises Tandem and signs in. It is not
// shown again, and an earlier one stops working.
func (c *Client) Invite(ctx context.Context, account string, r api.InvitationRequest) (*api.CreatedInvitation, error) {
	return read[api.CreatedInvitation](c.manage().CreateInvitation(ctx, account, r))
}

// RevokeInvitation makes the link of an account useless.
func (c *Client) RevokeInvitation(ctx context.Context, account string) error {
	_, err := c.manage().RevokeInvitation(ctx, account)
	return err
}

// TenantAccess returns how far the administrator of a tenant is, and who signed in.
func (c *Client) TenantAccess(ctx context.Context, account string) (*api.TenantAccess, error) {
	return read[api.TenantAccess](c.manage().GetInvitation(ctx, account))
}

// StartSignIn begins a sign-in to a tenant without a link.
func (c *Client) StartSignIn(ctx context.Context, account string, r api.SignInRequest) (*api.SignInStep, error) {
	return read[api.SignInStep](c.manage().StartSignIn(ctx, account, r))
}

// ContinueSignIn hands over the query of the redirect that ends a step in the browser, or polls a device code.
func (c *Client) ContinueSignIn(ctx context.Context, account, id, redirect string) (*api.SignInStep, error) {
	return read[api.SignInStep](c.manage().ContinueSignIn(ctx, account, id, api.SignInContinuation{Redirect: redirect}))
}
