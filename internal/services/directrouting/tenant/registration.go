package tenant

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/graph"
	"github.com/tandemgw/tandem/internal/tenants/carrier"
	"github.com/tandemgw/tandem/internal/tenants/permission"
)

// Registrar makes and reads app registrations in a tenant, as a person who signed in there. It implements
// carrier.Registrar.
type Registrar struct{ Graph *graph.Client }

var _ carrier.Registrar = Registrar{}

// accessTypes are the kinds of permissions as Graph calls them.
var accessTypes = map[permission.Kind]string{permission.Application: "Role", permission.Delegated: "Scope"}

// application returns a registration as Graph takes it.
func application(r *carrier.Registration) graph.Application {
	a := graph.Application{DisplayName: r.Name, SignInAudience: r.Audience, GroupMembershipClaims: r.Claims,
		Web: graph.WebApplication{RedirectURIs: append([]string{}, r.Redirects...)}}
	for _, p := range r.Permissions {
		i := slices.IndexFunc(a.RequiredResourceAccess, func(x graph.RequiredResource) bool {
			return x.ResourceAppID == p.Resource
		})
		if i < 0 {
			i = len(a.RequiredResourceAccess)
			a.RequiredResourceAccess = append(a.RequiredResourceAccess,
				graph.RequiredResource{ResourceAppID: p.Resource})
		}
		x := &a.RequiredResourceAccess[i]
		x.ResourceAccess = append(x.ResourceAccess, graph.ResourceAccess{ID: p.ID, Type: accessTypes[p.Kind]})
	}
	a.KeyCredentials = []graph.KeyCredential{}
	if c := r.Certificate; c != nil {
		a.KeyCredentials = append(a.KeyCredentials, graph.KeyCredential{Type: "AsymmetricX509Cert", Usage: "Verify",
			DisplayName: c.Subject.String(), Key: c.Raw})
	}
	return a
}

// Manifest returns a registration as Graph takes it, in JSON.
func Manifest(r *carrier.Registration) ([]byte, error) { return json.Marshal(application(r)) }

// Find implements carrier.Registrar.
func (r Registrar) Find(ctx context.Context, clientID, name string) (*carrier.Registration, error) {
	found, err := graph.Applications(clientID, name).All(ctx, r.Graph)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, fault.New(fault.NotFound, "AppNotFound", "there is no app registration %q", cmp.Or(clientID, name))
	}
	a := &found[0]
	got := &carrier.Registration{ClientID: a.AppID, Name: a.DisplayName, Audience: a.SignInAudience,
		Redirects: a.Web.RedirectURIs, Claims: a.GroupMembershipClaims, PublisherDomain: a.PublisherDomain}
	for _, k := range a.KeyCredentials {
		got.Expires = append(got.Expires, k.EndDateTime)
	}
	for _, resource := range a.RequiredResourceAccess {
		for _, x := range resource.ResourceAccess {
			got.Permissions = append(got.Permissions, known(resource.ResourceAppID, x))
		}
	}
	return got, nil
}

// known returns the permission of the table with an id, or one without a name.
func known(resource string, x graph.ResourceAccess) permission.Permission {
	p := permission.Permission{ID: x.ID, Resource: resource, Kind: permission.Delegated}
	if x.Type == accessTypes[permission.Application] {
		p.Kind = permission.Application
	}
	for _, q := range permission.All() {
		if q.ID == p.ID && q.Resource == p.Resource && q.Kind == p.Kind {
			return q
		}
	}
	return p
}

// Create implements carrier.Registrar.
func (r Registrar) Create(ctx context.Context, want *carrier.Registration) (string, error) {
	a, err := graph.CreateApplication(application(want)).Do(ctx, r.Graph)
	return a.AppID, err
}
