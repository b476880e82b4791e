package tenant

import (
	"context"
	"errors"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/entra"
	"github.com/tandemgw/tandem/internal/outside/graph"
	"github.com/tandemgw/tandem/internal/outside/wire"
)

// RemoveConsent implements onboard.Cloud. The person who has signed in does it, or else the application itself.
func (c *Cloud) RemoveConsent(ctx context.Context) error {
	client := c.Graph
	if c.Delegated != nil {
		client = c.Delegated
	}
	if c.AppID == "" { // it would look as if the application was removed already
		return errors.New("the id of Tandem's application is not set")
	}

	err := c.removeApp(ctx, client)
	if fault.HasCode(err, wire.CodeTokenRefused) && c.Delegated != nil { // perhaps with the application
		if _, err := graph.Organization().All(ctx, c.Graph); removed(err) {
			return nil
		}
	}
	if removed(err) {
		return nil
	}
	return err
}

func (c *Cloud) removeApp(ctx context.Context, client *graph.Client) error {
	apps, err := graph.ServicePrincipals(c.AppID).All(ctx, client)
	for _, a := range apps {
		_, err := graph.DeleteServicePrincipal(a.ID).Do(ctx, client)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
	}
	return err
}

// removed reports whether the identity platform no longer knows the application in the tenant.
func removed(err error) bool { return fault.HasCode(err, string(entra.ConsentNeeded)) }
