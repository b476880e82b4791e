// Package phonemobile holds what is specific to Microsoft Teams Phone Mobile.
//
// Its trunk is that of a mobile network, and X-MS-FMC tells the core that Phone System has anchored a call: it passes
// to the core, and arrives from the core only through a Mobile Control Point; calls/route refuses it from elsewhere.
// There is no custom header (gateway-calls §2.1, §5; operator-connect §4).
package phonemobile

import (
	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/services/internal/phonesystem"
)

// ID is the service's ID, which is stored.
const ID = 3

// Service is Microsoft Teams Phone Mobile.
var Service = domain.NewService(domain.Traits{ID: ID, Name: "teamsPhoneMobile", Title: "Teams Phone Mobile",
	Exclusive: true, InContract: true, SyncFlag: true, TenantBound: true,
	CarriesCalls: true, DefaultFor: true, PublicCertificate: true, PhoneSystem: true})

// New returns the call profile. It never fails.
func New(rules *leg.Rules, _ leg.Names) (leg.Profile, error) {
	return phonesystem.New(Service, rules), nil
}
