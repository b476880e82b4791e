package client

import (
	"context"
	"net/http"
	"net/url"

	api "github.com/tandemgw/tandem/api/manage"
)

// Health returns the state of the node.
func (c *Client) Health(ctx context.Context) (*api.Health, error) {
	return manage[api.Health](ctx, c, http.MethodGet, "/health", nil)
}

// SetDrain stops (true) or resumes (false) accepting new calls.
func (c *Client) SetDrain(ctx context.Context, draining bool) error {
	_, err := manage[api.Drain](ctx, c, http.MethodPut, "/drain", api.Drain{Draining: draining})
	return err
}

// Reload makes the node read its configuration again, and returns which changed settings are in effect and which need a
// restart. If the configuration has mistakes nothing changes, and the error lists them as details.
func (c *Client) Reload(ctx context.Context) (*api.Reloaded, error) {
	return manage[api.Reloaded](ctx, c, http.MethodPost, "/reload", nil)
}

// Peers returns the peer groups and the state of their peers.
func (c *Client) Peers(ctx context.Context) ([]api.PeerGroup, error) {
	l, err := manage[api.PeerGroupList](ctx, c, http.MethodGet, "/peers", nil)
	if err != nil {
		return nil, err
	}
	return l.Groups, nil
}

// AcceptIndex allows the node to replace its number index with the contents of the database with that identity, which
// is Health.Replica.Held.Database of an index that is held back.
func (c *Client) AcceptIndex(ctx context.Context, database string) error {
	_, err := c.do(ctx, request{method: http.MethodPost, path: "/manage/v1/index/accept",
		body: api.IndexAcceptance{Database: database}}, nil)
	return err
}

// Explain returns where a call would go and every rule that was tried.
func (c *Client) Explain(ctx context.Context, q api.Question) (*api.Explanation, error) {
	return manage[api.Explanation](ctx, c, http.MethodPost, "/explain", q)
}

// Clients returns the API clients of the embedded issuer.
func (c *Client) Clients(ctx context.Context) ([]api.Client, error) {
	l, err := manage[api.ClientList](ctx, c, http.MethodGet, "/clients", nil)
	if err != nil {
		return nil, err
	}
	return l.Clients, nil
}

// CreateClient creates an API client. The secret in the result is never shown again. The request is not retried when
// the answer is lost: check Clients and revoke what is not wanted.
func (c *Client) CreateClient(ctx context.Context, n api.NewClient) (*api.CreatedClient, error) {
	once := *c
	once.o.Attempts = 1
	return manage[api.CreatedClient](ctx, &once, http.MethodPost, "/clients", n)
}

// RevokeClient revokes an API client.
func (c *Client) RevokeClient(ctx context.Context, id string) error {
	_, err := c.do(ctx, request{method: http.MethodDelete, path: "/manage/v1/clients/" + url.PathEscape(id)}, nil)
	return err
}

// CreateToken creates a bearer token of the embedded issuer.
func (c *Client) CreateToken(ctx context.Context, n api.NewToken) (*api.Token, error) {
	return manage[api.Token](ctx, c, http.MethodPost, "/tokens", n)
}

// VerifyAudit checks the audit log's hash chain, and that it still contains the heads that earlier checks returned.
func (c *Client) VerifyAudit(ctx context.Context, heads ...string) (*api.AuditReport, error) {
	return manage[api.AuditReport](ctx, c, http.MethodPost, "/audit/verify", api.AuditQuestion{Heads: heads})
}

func manage[T any](ctx context.Context, c *Client, method, path string, body any) (*T, error) {
	var out T
	if _, err := c.do(ctx, request{method: method, path: "/manage/v1" + path, body: body}, &out); err != nil {
		return nil, err
	}
	return &out, nil
}
