package auth

import (
	"context"
	"strings"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/secret"
	"github.com/tandemgw/tandem/internal/platform/web"
)

// Operations implements the management API's operations on clients and tokens (api/manage/v1.yaml).
type Operations struct {
	Clients  *Clients
	Issuer   *Issuer // nil while the embedded issuer is disabled
	Verifier *Verifier
	Sealer   web.Sealer // of cursors
	// Audit writes a row about an action of the actor in ctx.
	Audit func(ctx context.Context, action, target string, items int, what any) error
}

var errNoIssuer = fault.New(fault.Conflict, "EmbeddedIssuerOff", "the embedded issuer is disabled "+
	"(auth.embedded.enabled); get clients and tokens from your own issuer")

// ListClients implements the operation listClients.
func (o *Operations) ListClients(ctx context.Context,
	r api.ListClientsRequestObject) (api.ListClientsResponseObject, error) {
	l, next, err := web.Page(o.Sealer, "page clients", r.Params.Limit, r.Params.Cursor,
		func(after string, limit int) ([]Client, error) { return o.Clients.store.Clients(ctx, after, limit) },
		func(c Client) string { return c.ID })
	if err != nil {
		return nil, err
	}
	page := api.ListClients200JSONResponse{Next: next, Clients: make([]api.Client, len(l))}
	for i, c := range l {
		page.Clients[i] = wire(c)
	}
	return page, nil
}

// wire returns a client as the contract has it: without the hash of its secret.
func wire(c Client) api.Client {
	return api.Client{ID: c.ID, Name: c.Name, Created: c.Created, Revoked: c.Revoked, Roles: c.Roles}
}

func parseRoles(names []string) ([]Role, error) {
	roles := make([]Role, len(names))
	for i, n := range names {
		r, err := ParseRole(n)
		if err != nil {
			return nil, err
		}
		roles[i] = r
	}
	return roles, nil
}

// CreateClient implements the operation createClient.
func (o *Operations) CreateClient(ctx context.Context,
	r api.CreateClientRequestObject) (api.CreateClientResponseObject, error) {
	if o.Issuer == nil {
		return nil, errNoIssuer
	}
	roles, err := parseRoles(r.Body.Roles)
	if err != nil {
		return nil, err
	}
	c, text, err := o.Clients.Create(ctx, r.Body.Name, roles)
	if err != nil {
		return nil, err
	}
	return api.CreateClient201JSONResponse{Client: wire(c), Secret: text.Reveal()}, nil
}

// RevokeClient implements the operation revokeClient.
func (o *Operations) RevokeClient(ctx context.Context,
	r api.RevokeClientRequestObject) (api.RevokeClientResponseObject, error) {
	return api.RevokeClient204Response{}, o.Clients.Revoke(ctx, r.ClientID)
}

// CreateToken implements the operation createToken.
func (o *Operations) CreateToken(ctx context.Context,
	r api.CreateTokenRequestObject) (api.CreateTokenResponseObject, error) {
	if o.Issuer == nil {
		return nil, errNoIssuer
	}
	roles, err := parseRoles(r.Body.Roles)
	if err != nil {
		return nil, err
	}
	actor := domain.ActorFrom(ctx)
	var text secret.Text
	var expires time.Time
	if actor.Kind == "client" { // over the URL
		text, expires, err = o.Issuer.IssueTokenFor(ctx, actor.ID, roles...)
	} else { // the audit log attributes the token's writes to its user too
		text, expires, err = o.Issuer.IssueToken(ctx, strings.TrimPrefix(actor.ID, "local:"), roles...)
	}
	if err != nil {
		return nil, err
	}
	// A token that the audit log does not record is not issued.
	if err := o.Audit(ctx, "token.issue", actor.ID, 1,
		map[string]any{"roles": roles, "expires": expires.UTC()}); err != nil {
		return nil, err
	}
	return api.CreateToken200JSONResponse{AccessToken: text.Reveal(),
		ExpiresIn: int(time.Until(expires).Round(time.Second).Seconds())}, nil
}
