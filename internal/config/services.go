package config

import (
	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/services"
)

// Profiles builds the header rules and the call profiles of the services that the peer groups belong to. version is
// that of the program. Errors are mistakes in the configuration; their targets are below calls.
func (c *Config) Profiles(version string) (*leg.Rules, []leg.Profile, []error) {
	rules, errs := c.Calls.Headers.Rules(version)
	if len(errs) > 0 {
		return nil, nil, below("headers", errs)
	}
	names := leg.Names{BaseDomain: c.Calls.Routing.BaseDomain, Regions: c.Calls.Routing.Regions}
	if len(names.Regions) == 0 {
		names.Regions = route.DefaultRegions
	}
	list := services.All()
	var wanted domain.ServiceSet
	for _, g := range c.Calls.Edge.RouteGroups(list.Services()) {
		wanted = wanted.With(g.Service)
	}
	profiles, errs := list.Profiles(wanted, rules, names)
	return rules, profiles, below("routing", errs)
}
