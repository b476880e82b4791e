package config

import (
	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/services/directrouting"
	"github.com/tandemgw/tandem/internal/services/operatorconnect"
	"github.com/tandemgw/tandem/internal/services/phonemobile"
	"github.com/tandemgw/tandem/internal/services/zoom"
)

// services lists the services that carry calls. A profile is built only if a peer group needs it.
var services = map[domain.Service]func(rules *leg.Rules, routing *route.Config) (leg.Profile, error){
	domain.DirectRouting: func(r *leg.Rules, c *route.Config) (leg.Profile, error) {
		return directrouting.New(r, c.BaseDomain, c.Regions)
	},
	domain.OperatorConnect: func(r *leg.Rules, _ *route.Config) (leg.Profile, error) {
		return operatorconnect.New(r), nil
	},
	domain.PhoneMobile: func(r *leg.Rules, _ *route.Config) (leg.Profile, error) { return phonemobile.New(r), nil },
	domain.Zoom:        func(r *leg.Rules, _ *route.Config) (leg.Profile, error) { return zoom.New(r), nil },
}

// Profiles builds the header rules and the call profiles of the services that the peer groups belong to. version is
// that of the program. Errors are mistakes in the configuration; their targets are below calls.
func (c *Config) Profiles(version string) (*leg.Rules, []leg.Profile, []error) {
	rules, errs := c.Calls.Headers.Rules(version)
	if len(errs) > 0 {
		return nil, nil, below("headers", errs)
	}
	routing := c.Calls.Routing
	if len(routing.Regions) == 0 {
		routing.Regions = route.DefaultRegions
	}
	var list []leg.Profile
	seen := domain.ServiceSet(0)
	for _, g := range c.Calls.Edge.RouteGroups() {
		build := services[g.Service]
		if build == nil || seen.Has(g.Service) {
			continue
		}
		seen = seen.With(g.Service)
		p, err := build(rules, &routing)
		if err != nil {
			errs = append(errs, below("routing", []error{err})...)
			continue
		}
		list = append(list, p)
	}
	return rules, list, errs
}
