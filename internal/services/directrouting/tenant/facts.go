package tenant

import (
	"context"
	"slices"
	"strings"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/entra"
	"github.com/tandemgw/tandem/internal/outside/graph"
	"github.com/tandemgw/tandem/internal/platform/secret"
	"github.com/tandemgw/tandem/internal/tenants/invite"
	"github.com/tandemgw/tandem/internal/tenants/permission"
	"github.com/tandemgw/tandem/internal/tenants/plan"
	"github.com/tandemgw/tandem/internal/tenants/readiness"
)

// Token gives access tokens of one resource.
type Token interface {
	Token(context.Context) (secret.Text, error)
}

// Facts reads what package readiness checks. It implements readiness.Source for one check: tokens keep the permissions
// that they were issued with, so Connector.Facts connects for it. A Facts is for one goroutine.
type Facts struct {
	AppID   string // of the operator's app
	Name    string // of the person who signed in
	Partner bool   // whose account belongs to another tenant
	// Inventory returns those of some numbers that belong to the account; numbers have no extension. It does not change
	// the list.
	Inventory func(ctx context.Context, numbers []string) ([]string, error)

	cloud *Cloud // its Teams is nil while Teams cannot be configured
	// Tokens of Graph as the application, and of Graph and Teams as the person; the latter nil while there is none.
	app, person, teams Token
	principal          string // the object id of the app in the tenant
}

// Facts connects to the tenant of an account for one check, whose other fields the caller sets. store may be nil if no
// person has signed in.
func (c *Connector) Facts(account string, g Grant, store entra.Store) (*Facts, error) {
	if g.Consented.IsZero() {
		return nil, invite.NotAuthorised(account)
	}
	cloud, application, who, err := c.reach(account, g, store)
	if err != nil {
		return nil, err
	}
	f := &Facts{cloud: cloud, app: application.Graph}
	if cloud.Delegated != nil {
		f.person, f.teams = who.Graph, who.Teams
	}
	return f, nil
}

var _ readiness.Source = (*Facts)(nil)

// Bounds of what a check reads.
const (
	maxUserPages   = 20
	maxNumberPages = 100
	maxHolders     = 20 // a batch
)

// unread enters what the tenant refuses to show. Errors of services that do not answer are returned.
func unread(f *readiness.Facts, what string, err error) error {
	if err == nil {
		return nil
	}
	switch e := fault.As(err); e.Kind {
	case fault.Forbidden, fault.Unauthenticated, fault.Invalid, fault.NotFound, fault.Conflict:
		f.Unread[what] = invite.Told(err) // pages of the customer show it
		return nil
	}
	return err
}

// Consented implements readiness.Source.
func (s *Facts) Consented(ctx context.Context, f *readiness.Facts) error {
	token, err := s.app.Token(ctx)
	if err != nil {
		if failed := unread(&readiness.Facts{Unread: map[string]string{}}, "app", err); failed != nil {
			return failed
		}
		f.Denied = fault.As(err).Message // the pages of the customer show step 1 instead
		return nil
	}
	f.InToken = inToken(token, permission.Application, permission.Graph)

	switch {
	case s.cloud.Teams == nil:
	case s.cloud.Delegated == nil:
		f.Mode = readiness.AsApplication
	default:
		f.Mode = readiness.AsPerson
	}
	f.Person = readiness.Person{Name: s.Name, Partner: s.Partner}
	if f.Mode == readiness.AsApplication {
		f.Person.Name = "the app"
	}

	return readAll(ctx, f, []reading{{"signIn", s.personTokens}, {"grants", s.grants}, {"tenant", s.tenant},
		{"licences", s.licences}, {"users", s.users}})
}

// reading is one thing to read, with the name that it has in Facts.Unread.
type reading struct {
	what string
	read func(context.Context, *readiness.Facts) error
}

func readAll(ctx context.Context, f *readiness.Facts, readings []reading) error {
	for _, r := range readings {
		if err := unread(f, r.what, r.read(ctx, f)); err != nil {
			return err
		}
	}
	return nil
}

// inToken returns the permissions of the table that a token carries.
func inToken(token secret.Text, kind permission.Kind, resource string) []permission.Permission {
	names := entra.Granted(token)
	return slices.DeleteFunc(permission.All(), func(p permission.Permission) bool {
		return p.Kind != kind || p.Resource != resource || !slices.Contains(names, p.Name)
	})
}

// personTokens reads the delegated permissions in tokens. A sign-in that does not give tokens any more is none.
func (s *Facts) personTokens(ctx context.Context, f *readiness.Facts) error {
	for resource, source := range map[string]Token{permission.Graph: s.person, permission.Teams: s.teams} {
		if source == nil || f.Mode != readiness.AsPerson {
			continue
		}
		token, err := source.Token(ctx)
		if err != nil {
			f.Mode = ""
			return err
		}
		f.InToken = append(f.InToken, inToken(token, permission.Delegated, resource)...)
	}
	return nil
}

// servicePrincipal returns the object id of an app in the tenant.
func (s *Facts) servicePrincipal(ctx context.Context, app string) (string, error) {
	found, err := graph.ServicePrincipals(app).All(ctx, s.cloud.Graph)
	if err == nil && len(found) == 0 {
		err = fault.New(fault.NotFound, "NoServicePrincipal", "the tenant does not have the app %s", app)
	}
	if err != nil {
		return "", err
	}
	return found[0].ID, nil
}

// grants reads what the tenant has granted to the app.
func (s *Facts) grants(ctx context.Context, f *readiness.Facts) error {
	var err error
	if s.principal, err = s.servicePrincipal(ctx, s.AppID); err != nil {
		return err
	}
	roles, err := graph.AppRoleAssignments(s.principal).All(ctx, s.cloud.Graph)
	if err != nil {
		return err
	}
	scopes, err := graph.PermissionGrants(s.principal).All(ctx, s.cloud.Graph)
	if err != nil {
		return err
	}
	resources := map[string]string{}
	for _, app := range []string{permission.Graph, permission.Teams} {
		id, err := s.servicePrincipal(ctx, app)
		if err != nil && !fault.Is(err, fault.NotFound) { // absent until something of it is granted
			return err
		}
		resources[app] = id
	}

	f.Granted = slices.DeleteFunc(permission.All(), func(p permission.Permission) bool {
		if p.Kind == permission.Application {
			return !slices.ContainsFunc(roles, func(a graph.AppRoleAssignment) bool {
				return a.ResourceID == resources[p.Resource] && strings.EqualFold(a.AppRoleID, p.ID)
			})
		}
		return !slices.ContainsFunc(scopes, func(g graph.PermissionGrant) bool {
			return g.ConsentType == "AllPrincipals" && g.ResourceID == resources[p.Resource] &&
				slices.Contains(strings.Fields(g.Scope), p.Name)
		})
	})
	return nil
}

func (s *Facts) tenant(ctx context.Context, f *readiness.Facts) error {
	o, err := s.cloud.organisation(ctx)
	if err != nil {
		return err
	}
	domains, initial, err := s.cloud.domains(ctx)
	if err != nil {
		return err
	}
	f.Tenant = readiness.Tenant{ID: o.ID, Name: o.DisplayName, Type: o.TenantType, Country: o.CountryLetterCode,
		Synced: o.OnPremisesSyncEnabled, Initial: initial}
	for _, d := range domains {
		// The service's name in Graph is that of its predecessor [K].
		f.Tenant.Domains = append(f.Tenant.Domains, readiness.Domain{Name: d.ID, Verified: d.IsVerified,
			Active: slices.Contains(d.SupportedServices, "OfficeCommunicationsOnline")})
	}
	return nil
}

func (s *Facts) licences(ctx context.Context, f *readiness.Facts) (err error) {
	f.SKUs, err = s.cloud.skus(ctx)
	return err
}

// users counts users who can get a number, and the emergency policies that users have, directly or by a group.
func (s *Facts) users(ctx context.Context, f *readiness.Facts) error {
	uses, pages := map[string]int{}, 0
	query := graph.Query{Select: []string{"id", "featureTypes", "effectivePolicyAssignments"}}
	for page, err := range graph.UserConfigurations(query).Pages(ctx, s.cloud.Graph, "") {
		if err != nil {
			return err
		}
		for _, u := range page.Items {
			if slices.Contains(u.FeatureTypes, "PhoneSystem") {
				f.Phone++
			}
			for _, p := range u.EffectivePolicyAssignments {
				if p.PolicyType == string(policies["emergencyPolicy"]) {
					uses[p.Assignment.DisplayName]++
				}
			}
		}
		if pages++; pages == maxUserPages {
			f.MoreUsers = page.Next != ""
			break
		}
	}
	for name, n := range uses {
		f.Policies = append(f.Policies, readiness.PolicyUse{Name: name, Users: n})
	}
	slices.SortFunc(f.Policies, func(a, b readiness.PolicyUse) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

// SignedIn implements readiness.Source.
func (s *Facts) SignedIn(ctx context.Context, f *readiness.Facts, named []plan.Ref) error {
	return readAll(ctx, f, []reading{{"roles", s.roles}, {"numbers", s.numbers},
		{"teams", func(ctx context.Context, f *readiness.Facts) error {
			objects, err := s.cloud.Read(ctx, named)
			if err == nil {
				f.State = plan.NewState(objects)
			}
			return err
		}}})
}

// roles reads the directory roles of the person or of the app.
func (s *Facts) roles(ctx context.Context, f *readiness.Facts) (err error) {
	if f.Mode == readiness.AsPerson {
		f.Person.Roles, err = personRoles(ctx, s.cloud.Delegated)
		return err
	}
	if s.principal == "" {
		return fault.New(fault.NotFound, "NoServicePrincipal", "the app was not found in the tenant")
	}
	f.Person.Roles, err = appRoles(ctx, s.cloud.Graph, s.principal)
	return err
}

// numbers reads who has numbers of the account.
func (s *Facts) numbers(ctx context.Context, f *readiness.Facts) error {
	pages := 0
	query := graph.Query{Filter: "assignmentStatus ne 'unassigned'", Top: 1000}
	for page, err := range graph.NumberAssignments(query).Pages(ctx, s.cloud.Graph, "") {
		if err != nil {
			return err
		}
		bases := make([]string, len(page.Items))
		for i, n := range page.Items {
			bases[i], _, _ = strings.Cut("+"+strings.TrimPrefix(n.TelephoneNumber, "+"), ";")
		}
		ours, err := s.Inventory(ctx, bases)
		if err != nil {
			return err
		}
		for i, n := range page.Items {
			if slices.Contains(ours, bases[i]) {
				f.Holders = append(f.Holders, readiness.Holder{Number: n.TelephoneNumber, Type: n.NumberType,
					Source: n.NumberSource, ID: n.AssignmentTargetID})
			}
		}
		if pages++; len(f.Holders) > maxHolders || pages == maxNumberPages {
			f.MoreNumber = len(f.Holders) > maxHolders || page.Next != ""
			f.Holders = f.Holders[:min(len(f.Holders), maxHolders)]
			break
		}
	}
	return s.holders(ctx, f.Holders)
}

// holders reads the accounts that have numbers: one may be in the bin, or gone with its number still assigned.
func (s *Facts) holders(ctx context.Context, holders []readiness.Holder) error {
	if len(holders) == 0 {
		return nil
	}
	var users []*graph.Call[graph.User]
	var parts []graph.Part
	for _, h := range holders {
		c := graph.GetUser(h.ID, "id", "displayName", "userPrincipalName")
		users, parts = append(users, c), append(parts, c)
	}
	if err := s.cloud.Graph.Batch(ctx, parts...); err != nil {
		return err
	}
	for i, c := range users {
		h := &holders[i]
		err := c.Err()
		if err == nil {
			h.Name = c.Value.UserPrincipalName
			continue
		}
		if !fault.Is(err, fault.NotFound) {
			return err
		}
		o, err := graph.GetDeleted(h.ID).Do(ctx, s.cloud.Graph)
		switch {
		case fault.Is(err, fault.NotFound):
			h.Gone = true
		case err != nil:
			return err
		default:
			h.Name = o.UserPrincipalName
			if o.DeletedDateTime != nil {
				h.Deleted = *o.DeletedDateTime
			}
		}
	}
	return nil
}
