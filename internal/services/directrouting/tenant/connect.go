package tenant

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/entra"
	"github.com/tandemgw/tandem/internal/outside/graph"
	"github.com/tandemgw/tandem/internal/outside/teamsadmin"
	"github.com/tandemgw/tandem/internal/tenants/invite"
	"github.com/tandemgw/tandem/internal/tenants/licence"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
)

// Connector reaches tenants. It is safe for concurrent use.
type Connector struct {
	App       *entra.App
	AppID     string // its application id
	Graph     string // base URL with the version
	Budget    *graph.Budget
	UserAgent string
	Transport http.RoundTripper
	// Teams returns the administration of Teams in a tenant. Nil: there is none.
	Teams func(tenant string, tokens Tokens) (teamsadmin.Admin, error)
	// Lost is called when the identity platform refuses a tenant's tokens until a person in the tenant acts, and
	// returns the error for the caller. Nil: that is the refusal.
	Lost func(ctx context.Context, account string, g Grant, refusal *entra.Refusal, err error) error
	// Prove returns the function that proves who owns the domains of an account; see Cloud.
	Prove func(account string) func(ctx context.Context, domain, text string) error

	mu     sync.Mutex
	clouds map[string]connected // by account
}

// Tokens are those of whoever configures Teams in a tenant: the application, or the person who signed in.
type Tokens struct{ Graph, Teams *entra.Source }

type connected struct {
	grant Grant
	cloud *Cloud
}

// Grant is how Tandem may reach a tenant. Values are compared: equal ones share their tokens.
type Grant struct {
	TenantID    string    // a GUID
	Application bool      // the application configures Teams itself, and nobody signs in
	Consented   time.Time // when an administrator consented; zero if none has
	SignedIn    time.Time // when a person signed in; zero if none has
}

var errTeams = fault.New(fault.Forbidden, "TeamsUnavailable", "nothing here can change the voice configuration of "+
	"Teams; set onboarding.teams")

// Connect returns a tenant, and with tokens of store, which may be nil if no person has signed in. Its Teams is nil if
// nothing can reach that.
func (c *Connector) Connect(account string, g Grant, store entra.Store) (*Cloud, error) {
	if g.Consented.IsZero() {
		return nil, invite.NotAuthorised(account)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if x, ok := c.clouds[account]; ok && x.grant == g {
		return x.cloud, nil
	}

	cloud, _, _, err := c.reach(account, g, store)
	if err != nil {
		return nil, err
	}
	if c.Prove != nil {
		cloud.Prove = c.Prove(account)
	}

	if c.clouds == nil {
		c.clouds = map[string]connected{}
	}
	c.clouds[account] = connected{g, cloud}
	return cloud, nil
}

// reach makes new connections to a tenant. It also returns the tokens of the application, and those of whoever
// configures Teams, which are nil while there are none.
func (c *Connector) reach(account string, g Grant, store entra.Store) (cloud *Cloud, application, who Tokens,
	err error) {
	connect := func(store entra.Store) *entra.Connection {
		conn := c.App.Connect(g.TenantID, store, g.Consented)
		conn.Person = func(ctx context.Context, refusal *entra.Refusal, err error) error {
			// What the application lacks is a consent; another sign-in gives it nothing.
			if c.Lost == nil || store == nil && refusal.Outcome != entra.ConsentNeeded {
				return err
			}
			return c.Lost(ctx, account, g, refusal, err)
		}
		return conn
	}
	app := connect(nil)
	application = Tokens{app.Source(graphResource), app.Source(entra.TeamsAdmin)}
	cloud = &Cloud{AppID: c.AppID, application: application.Graph}
	if cloud.Graph, err = c.graph(g.TenantID, application.Graph); err != nil {
		return nil, application, who, err
	}

	switch {
	case g.Application:
		who = application
	case !g.SignedIn.IsZero():
		person := connect(store)
		who = Tokens{person.Source(graphResource), person.Source(entra.TeamsAdmin)}
		if cloud.Delegated, err = c.graph(g.TenantID, who.Graph); err != nil {
			return nil, application, who, err
		}
	}
	if c.Teams != nil && who.Teams != nil {
		cloud.Teams, err = c.Teams(g.TenantID, who)
	}
	return cloud, application, who, err
}

// Configure is Connect for what needs the administration of Teams. Errors: NotAuthorised, SignInNeeded,
// TeamsUnavailable.
func (c *Connector) Configure(account string, g Grant, store entra.Store) (*Cloud, error) {
	cloud, err := c.Connect(account, g, store)
	switch {
	case err != nil:
		return nil, err
	case cloud.Teams != nil:
		return cloud, nil
	case c.Teams == nil:
		return nil, errTeams
	}
	return nil, invite.NoSignIn(account)
}

func (c *Connector) graph(tenant string, tokens graph.Tokens) (*graph.Client, error) {
	return graph.New(graph.Config{BaseURL: c.Graph, Tenant: tenant, Tokens: tokens, Budget: c.Budget,
		UserAgent: c.UserAgent, Transport: c.Transport})
}

// Spare returns how many more users of the tenant can be given Phone System.
func (c *Cloud) Spare(ctx context.Context) (int, error) {
	skus, err := c.skus(ctx)
	return licence.Spare(skus), err
}

// Facts implements onboard.Source.
func (c *Cloud) Facts(ctx context.Context) (f onboard.Facts, err error) {
	organisation, err := c.organisation(ctx)
	if err != nil {
		return f, err
	}
	_, initial, err := c.domains(ctx)
	if err != nil {
		return f, err
	}
	f.Country, f.Initial = organisation.CountryLetterCode, initial
	skus, err := c.skus(ctx)
	if err != nil {
		return f, fmt.Errorf("read the subscriptions: %w", err)
	}
	f.App, f.Purges = c.AppID, c.Delegated != nil
	if c.application != nil {
		token, err := c.application.Token(ctx)
		if err != nil {
			return f, err
		}
		f.RemovesItself = slices.Contains(entra.Granted(token), "Application.ReadWrite.OwnedBy")
	}
	choices := licence.Choose(skus)
	for _, ch := range choices {
		if !ch.ResourceAccount {
			f.Seats += ch.Free
		}
	}
	if len(choices) > 0 {
		f.Licence = choices[0].Plans[0]
	}
	f.Spare = licence.Spare(skus)
	return f, nil
}

func (c *Cloud) organisation(ctx context.Context) (o graph.Tenant, err error) {
	all, err := graph.Organization().All(ctx, c.Graph)
	if err == nil && len(all) == 0 {
		err = errors.New("there is none in Microsoft's answer")
	}
	if err != nil {
		return o, fmt.Errorf("read the organisation: %w", err)
	}
	return all[0], nil
}

// domains returns the domains of the tenant, and which is the initial one.
func (c *Cloud) domains(ctx context.Context) (all []graph.Domain, initial string, err error) {
	all, err = graph.Domains().All(ctx, c.Graph)
	if err != nil {
		return nil, "", fmt.Errorf("read the domains: %w", err)
	}
	for _, d := range all {
		if d.IsInitial {
			initial = d.ID
		}
	}
	return all, initial, nil
}
