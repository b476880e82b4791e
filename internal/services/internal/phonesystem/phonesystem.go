// Package phonesystem is the common part of the services whose trunk ends in Microsoft Phone System under the
// operator's own name: Operator Connect and Teams Phone Mobile.
//
// Phone System finds the tenant by the number, which was uploaded beforehand, so no customer's name is needed: Contact
// holds the name of the trunk in this region, the peer group's advertised name. X-MS-FMC and X-MS-TenantID pass in both
// directions where calls/route lets them. Microsoft's SIP specification for these services is not public; this package
// follows the public pages (gateway-calls §2.2, §4, §5; operator-connect §4, §5).
package phonesystem

import (
	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/domain"
)

// Profile shapes messages for one of the services.
type Profile struct {
	service domain.Service
	rules   *leg.Rules
}

var _ leg.Profile = (*Profile)(nil)

// New returns the profile of a service.
func New(service domain.Service, rules *leg.Rules) *Profile { return &Profile{service, rules} }

// Service returns the service that the profile was made for.
func (p *Profile) Service() domain.Service { return p.service }

// NeedsOffer returns true. operator-connect §5: the same interface as Direct Routing, which does not support a delayed
// offer.
func (p *Profile) NeedsOffer() bool { return true }

// ToService writes the addresses of the trunk and tells Phone System who we are. X-MS-FMC stays as the Mobile Control
// Point wrote it.
func (p *Profile) ToService(m *sip.Message, l *leg.Leg) {
	p.rules.StripForService(m)
	leg.Address(m, l.Local, l.Remote)
	p.rules.Identify(m, l.Local, l)
}

// ToCore shapes the message as for any service; X-MS-FMC and X-MS-TenantID pass. The operator uses the latter for
// rating (gateway-calls §2.2).
func (p *Profile) ToCore(m *sip.Message, l *leg.Leg) { p.rules.ShapeForCore(m, l) }

// Ping writes the trunk's name.
func (p *Profile) Ping(m *sip.Message, l *leg.Leg) {
	if m.IsRequest() {
		leg.AddressPing(m, l.Local)
	}
	p.rules.Identify(m, l.Local, l)
}
