// Package services is the list of the communications services that Tandem knows. Everything special about one of them
// is in its folder below; a new service is one more folder and one more line here.
//
// The packages that need the list get it from config and node, so that tests can give them another one.
package services

import (
	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/services/acs"
	"github.com/tandemgw/tandem/internal/services/callprotection"
	"github.com/tandemgw/tandem/internal/services/directrouting"
	"github.com/tandemgw/tandem/internal/services/operatorconnect"
	"github.com/tandemgw/tandem/internal/services/phonemobile"
	"github.com/tandemgw/tandem/internal/services/zoom"
)

// Definition is what the program needs to know of a service.
type Definition struct {
	Service domain.Service
	// Profile returns the call profile. It is nil for a service that carries no calls.
	Profile func(*leg.Rules, leg.Names) (leg.Profile, error)
}

// List is a list of services in the order of their IDs.
type List []Definition

// definitions are by ID, so that the compiler refuses an ID that is used twice. Index 0 is no service.
var definitions = [...]Definition{
	directrouting.ID:   {directrouting.Service, directrouting.New},
	operatorconnect.ID: {operatorconnect.Service, operatorconnect.New},
	phonemobile.ID:     {phonemobile.Service, phonemobile.New},
	zoom.ID:            {zoom.Service, zoom.New},
	callprotection.ID:  {callprotection.Service, nil},
	acs.ID:             {acs.Service, nil},
}

// Does not compile if an ID does not fit into a domain.ServiceSet.
const _ = uint(domain.MaxServiceID + 1 - len(definitions))

// All returns the services of this program. The caller may change the list that it gets.
func All() List {
	var l List
	for _, d := range definitions {
		if d.Service != domain.NoService { // an ID that is not used
			l = append(l, d)
		}
	}
	return l
}

// Services returns the services without what builds them.
func (l List) Services() domain.Services {
	out := make(domain.Services, len(l))
	for i := range l {
		out[i] = l[i].Service
	}
	return out
}

// Profiles builds the call profiles of the services in the set that carry calls. Errors are mistakes in the
// configuration; their targets are fields of route.Config.
func (l List) Profiles(wanted domain.ServiceSet, rules *leg.Rules, names leg.Names) ([]leg.Profile, []error) {
	var profiles []leg.Profile
	var errs []error
	for _, d := range l {
		if d.Profile == nil || !wanted.Has(d.Service) {
			continue
		}
		p, err := d.Profile(rules, names)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		profiles = append(profiles, p)
	}
	return profiles, errs
}

// Check returns the mistakes that Profiles would report, and the host names of the profiles by service (leg.HostNames).
// The header settings must be valid.
func (l List) Check(wanted domain.ServiceSet, headers *leg.Config, names leg.Names) (map[string][]string, []error) {
	profiles, errs := l.Profiles(wanted, headers.Rules(""), names)
	return leg.HostNames(profiles), errs
}
