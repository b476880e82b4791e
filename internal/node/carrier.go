package node

import (
	"cmp"
	"context"
	"net"
	"strings"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/services/directrouting/tenant"
	"github.com/tandemgw/tandem/internal/tenants/carrier"
	"github.com/tandemgw/tandem/internal/tenants/invite"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
)

// carrier returns what the operator's own tenant should have.
func (x *tenants) carrier() *plan.CarrierSettings {
	return &plan.CarrierSettings{Base: x.planner.Base, Regions: x.planner.Trunks(), Port: x.planner.Port}
}

// carrierObjects reads the operator's own tenant.
func (x *tenants) carrierObjects(ctx context.Context, named []plan.Ref) ([]plan.Object, error) {
	c, err := x.cloud(ctx, &onboard.Tenant{Account: onboard.Carrier})
	if err != nil {
		return nil, err
	}
	if named == nil {
		for _, o := range x.carrier().Objects("", nil) {
			named = append(named, o.Ref)
		}
	}
	return c.Read(ctx, named)
}

// appToRegister are the operations on the operator's side while no app registration is configured: they show what it
// must be, and nothing else.
func (n *node) appToRegister() carrier.Operations {
	base := strings.ToLower(n.cfg.Calls.Routing.BaseDomain)
	return carrier.Operations{Settings: &plan.CarrierSettings{}, Teams: func() (string, string) { return "", "" },
		Read: func(context.Context, []plan.Ref) ([]plan.Object, error) { return nil, noOnboarding.Err },
		App: &carrier.App{Want: carrier.Want(base, n.redirects(), nil),
			Manifest: func(r *carrier.Registration) ([]byte, error) {
				if base == "" {
					return nil, fault.New(fault.Conflict, "OnboardingOff", "the names of customers are below "+
						"calls.routing.baseDomain, which is not set; set it")
				}
				return tenant.Manifest(r)
			},
			Registrar: func(context.Context, bool) (carrier.Registrar, error) { return nil, noOnboarding.Err }}}
}

// onboardURL is where administrators of tenants open the public front.
func (n *node) onboardURL() string {
	return cmp.Or(n.cfg.Onboarding.FrontURL, "https://onboard."+strings.ToLower(n.cfg.Calls.Routing.BaseDomain))
}

// redirects are the addresses to which sign-ins return.
func (n *node) redirects() []string {
	return []string{n.onboardURL() + invite.CallbackPath, invite.Loopback}
}

// deployment returns what the settings of all tenants have in common.
func (x *tenants) deployment() onboard.Deployment {
	cfg := x.n.cfg
	return onboard.Deployment{
		Prefix: cfg.Onboarding.Prefix, Base: strings.ToLower(cfg.Calls.Routing.BaseDomain),
		Regions: x.regions(), Port: x.port(), Emergency: cfg.Calls.Routing.EmergencyStrings(),
		Labels: x.ownLabels, Taken: x.taken, Used: x.used,
	}
}

// regions returns the labels of the regions that are in use.
func (x *tenants) regions() []string {
	regions := x.n.cfg.Calls.Routing.Regions
	if n := len(x.n.cfg.Zone.Names.Regions); n > 0 {
		regions = regions[:min(n, len(regions))]
	}
	return regions
}

// port returns the port on which Teams reaches the edge.
func (x *tenants) port() int {
	for _, g := range x.n.cfg.Calls.Edge.Groups {
		if g.Service == x.service.String() {
			for _, address := range []string{g.Advertised.TLS, g.Bind.TLS} {
				if _, port, err := net.SplitHostPort(address); err == nil {
					if p, err := net.LookupPort("tcp", port); err == nil && p > 0 {
						return p
					}
				}
			}
		}
	}
	return 5061
}
