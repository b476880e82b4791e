package tenant

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/entra"
	"github.com/tandemgw/tandem/internal/outside/graph"
	"github.com/tandemgw/tandem/internal/platform/secret"
	"github.com/tandemgw/tandem/internal/tenants/invite"
	"github.com/tandemgw/tandem/internal/tenants/permission"
)

// graphResource is Microsoft Graph as a resource of tokens.
const graphResource = "https://graph.microsoft.com"

// Login is the identity platform, as package invite needs it. It is safe for concurrent use.
type Login struct {
	*Connector
	ClientID string // of its App
	// Tokens returns where the refresh token of an account is kept.
	Tokens func(account string) entra.Store
}

var (
	_ invite.Login     = (*Login)(nil)
	_ invite.Inspector = (*Login)(nil)
)

// scopes of a step: for the identity no resource is needed.
func scopes(step invite.Step) []string {
	if step == invite.Integrate {
		return []string{entra.TeamsAdmin + "/.default"}
	}
	return nil
}

// Begin implements invite.Login.
func (x *Login) Begin(_ context.Context, step invite.Step, tenant, redirect, claims string) (*invite.Attempt, error) {
	tenant = cmp.Or(tenant, entra.Organizations)
	a := &invite.Attempt{Step: step, Tenant: tenant, Redirect: redirect}
	if step == invite.Consent {
		a.State = rand.Text()
		a.URL = x.App.ConsentURL(tenant, redirect, a.State, graphResource+"/.default")
	} else {
		s := entra.NewSignIn(tenant, redirect, scopes(step)...)
		s.Claims = claims
		if step == invite.Integrate {
			s.Prompt = "select_account" // the service user, not the one who consented
		}
		a.State, a.Nonce, a.Secret, a.URL = s.State, s.Nonce, s.Verifier, x.App.AuthoriseURL(s)
	}
	if tenant == entra.Organizations {
		a.Tenant = ""
	}
	return a, nil
}

// BeginDevice implements invite.Login.
func (x *Login) BeginDevice(ctx context.Context, tenant string) (*invite.Attempt, error) {
	d, err := x.App.StartDevice(ctx, tenant, scopes(invite.Integrate)...)
	if err != nil {
		return nil, err
	}
	return &invite.Attempt{Step: invite.Integrate, Tenant: tenant, Secret: d.Code, URL: d.VerificationURI,
		UserCode: d.UserCode, Interval: d.Interval, Expires: d.Expires}, nil
}

// Consented implements invite.Login.
func (x *Login) Consented(a *invite.Attempt, redirect url.Values) (string, error) {
	return entra.Consented(a.State, redirect)
}

// Redeem implements invite.Login.
func (x *Login) Redeem(ctx context.Context, a *invite.Attempt, redirect url.Values) (*invite.Grant, error) {
	g, err := x.App.Redeem(ctx, entra.SignIn{Tenant: cmp.Or(a.Tenant, entra.Organizations), RedirectURI: a.Redirect,
		Scopes: scopes(a.Step), State: a.State, Nonce: a.Nonce, Verifier: secret.New(a.Secret.Reveal())}, redirect)
	if err != nil {
		return nil, err
	}
	return x.grant(ctx, a, g)
}

// Poll implements invite.Login.
func (x *Login) Poll(ctx context.Context, a *invite.Attempt) (*invite.Grant, bool, error) {
	d := &entra.Device{Tenant: a.Tenant, Code: secret.New(a.Secret.Reveal()), Expires: a.Expires, Interval: a.Interval}
	g, err := x.App.PollDevice(ctx, d)
	if fault.HasCode(err, string(entra.Wait)) || fault.HasCode(err, string(entra.Unavailable)) {
		a.Interval = d.Interval
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	grant, err := x.grant(ctx, a, g)
	return grant, err == nil, err
}

// grant adds the roles to a sign-in whose token names none.
func (x *Login) grant(ctx context.Context, a *invite.Attempt, g *entra.Grant) (*invite.Grant, error) {
	id := &g.Identity
	p := invite.Person{Tenant: id.TenantID, ID: id.ObjectID, Name: id.Name, Roles: id.Roles, Personal: id.Personal,
		Guest: id.Guest}
	if a.Step != invite.Integrate || len(p.Roles) > 0 || p.Personal {
		return &invite.Grant{Person: p, RefreshToken: g.RefreshToken}, nil
	}
	kept := &memory{token: g.RefreshToken}
	roles, err := x.myRoles(ctx, id.TenantID, x.App.Connect(id.TenantID, kept, time.Time{}).Source(graphResource))
	if err != nil {
		return nil, err
	}
	p.Roles = roles
	token, _ := kept.RefreshToken(ctx) // it cannot fail
	return &invite.Grant{Person: p, RefreshToken: token}, nil
}

// myRoles reads the directory roles of the person whose tokens they are.
func (x *Login) myRoles(ctx context.Context, tenant string, tokens *entra.Source) ([]string, error) {
	client, err := x.graph(tenant, tokens)
	if err != nil {
		return nil, err
	}
	return personRoles(ctx, client)
}

// personRoles returns the template ids of the directory roles of the person who signed in, also those by group.
func personRoles(ctx context.Context, client *graph.Client) ([]string, error) {
	list, err := graph.MyRoles().All(ctx, client)
	roles := make([]string, len(list))
	for i, r := range list {
		roles[i] = r.RoleTemplateID
	}
	return roles, err
}

// appRoles returns the template ids of the directory roles that a service principal has in the whole tenant.
func appRoles(ctx context.Context, client *graph.Client, principal string) (roles []string, err error) {
	assigned, err := graph.RoleAssignments(principal).All(ctx, client)
	for _, r := range assigned {
		if r.DirectoryScopeID == "/" { // not of an administrative unit
			roles = append(roles, r.RoleDefinitionID)
		}
	}
	return roles, err
}

// Inspect implements invite.Inspector.
func (x *Login) Inspect(ctx context.Context, a *invite.Access) (*invite.Standing, time.Duration, string, error) {
	s, err := x.inspect(ctx, a)
	if ref, ok := errors.AsType[*entra.Refusal](err); ok {
		return nil, ref.Lifetime, ref.Claims, err
	}
	return s, 0, "", err
}

func (x *Login) inspect(ctx context.Context, a *invite.Access) (*invite.Standing, error) {
	alone := x.App.Connect(a.Tenant, nil, a.Consented)
	tokens := alone.Source(graphResource)
	client, err := x.graph(a.Tenant, tokens)
	if err != nil {
		return nil, err
	}
	own, err := tokens.Token(ctx) // without the consent, nothing else says more
	if err != nil {
		return nil, err
	}
	granted := permissions(own, permission.Application, permission.Graph)
	if a.Mode == "" {
		return &invite.Standing{Granted: granted}, nil
	}
	if a.Mode == invite.Application {
		if _, err := alone.Source(entra.TeamsAdmin).Token(ctx); err != nil {
			return nil, err
		}
		s, err := x.application(ctx, client)
		if err == nil {
			s.Granted = granted
		}
		return s, err
	}

	signedIn := x.App.Connect(a.Tenant, x.Tokens(a.Account), a.Consented)
	claims := ""
	if a.Lost != nil {
		claims = a.Lost.Claims // without them it would seem to work
	}
	teams, err := signedIn.Source(entra.TeamsAdmin).Challenge(claims).Token(ctx)
	if err != nil {
		return nil, err
	}
	user, err := graph.GetUser(a.Person.ID, "id", "accountEnabled").Do(ctx, client)
	switch {
	case fault.Is(err, fault.NotFound):
		return &invite.Standing{Disabled: true}, nil
	case fault.Is(err, fault.Forbidden): // it may not be read: the sign-in works
		user.AccountEnabled = true
	case err != nil:
		return nil, err
	}
	person := signedIn.Source(graphResource)
	roles, err := x.myRoles(ctx, a.Tenant, person)
	if fault.Is(err, fault.Forbidden) || fault.HasCode(err, string(entra.ConsentNeeded)) {
		roles, err = a.Person.Roles, nil // no delegated permission for it: those of the sign-in
	}
	if err != nil {
		return nil, err
	}
	s := &invite.Standing{Disabled: !user.AccountEnabled, Roles: roles}
	configures := permissions(teams, permission.Delegated, permission.Teams)
	if granted == nil || configures == nil {
		return s, nil
	}
	s.Granted = append(granted, configures...)
	token, err := person.Token(ctx)
	if fault.HasCode(err, string(entra.ConsentNeeded)) { // none of Graph
		return s, nil
	}
	s.Granted = append(s.Granted, permissions(token, permission.Delegated, permission.Graph)...)
	return s, err
}

// permissions returns the permissions of the table that a token carries, with their kind; nil if it does not say.
func permissions(token secret.Text, kind permission.Kind, resource string) (all []string) {
	if len(entra.Granted(token)) > 0 {
		all = []string{}
	}
	for _, p := range inToken(token, kind, resource) {
		all = append(all, fmt.Sprintf("%s (%s)", p.Name, p.Kind))
	}
	return all
}

// application reads the roles of the application's service principal.
func (x *Login) application(ctx context.Context, client *graph.Client) (*invite.Standing, error) {
	principals, err := graph.ServicePrincipals(x.ClientID).All(ctx, client)
	if err != nil {
		return nil, err
	}
	if len(principals) == 0 {
		return nil, fault.New(fault.Conflict, string(entra.ConsentNeeded), "the application is not in the tenant; an "+
			"administrator authorises it again (step 1)")
	}
	roles, err := appRoles(ctx, client, principals[0].ID)
	return &invite.Standing{Disabled: !principals[0].AccountEnabled, Roles: roles}, err
}

// memory keeps the refresh token of a sign-in that is not stored yet.
type memory struct {
	mu    sync.Mutex // guards token
	token secret.Text
}

// RefreshToken implements entra.Store.
func (m *memory) RefreshToken(context.Context) (secret.Text, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.token, nil
}

// KeepRefreshToken implements entra.Store.
func (m *memory) KeepRefreshToken(_ context.Context, token secret.Text) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.token = token
	return nil
}
