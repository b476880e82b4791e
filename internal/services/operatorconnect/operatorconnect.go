// Package operatorconnect holds what is specific to Microsoft Operator Connect (gateway-calls §4, operator-connect
// §5).
package operatorconnect

import (
	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/services/internal/phonesystem"
)

// ID is the service's ID, which is stored.
const ID = 2

// Service is Microsoft Operator Connect.
var Service = domain.NewService(domain.Traits{ID: ID, Name: "teamsOperatorConnect", Title: "Operator Connect",
	Exclusive: true, InContract: true, SyncFlag: true, TenantBound: true,
	CustomHeader: true, CarriesCalls: true, DefaultFor: true, PublicCertificate: true, PhoneSystem: true})

// New returns the call profile. It never fails.
func New(rules *leg.Rules, _ leg.Names) (leg.Profile, error) {
	return phonesystem.New(Service, rules), nil
}
