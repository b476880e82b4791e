// Package phonesystem is the common part of the services whose trunk ends in Microsoft Phone System: Operator Connect
// and Teams Phone Mobile, whose trunk has the operator's own name, and Direct Routing, which has names of its own.
//
// Under the operator's own name, Phone System finds the tenant by the number, which was uploaded beforehand, so no
// customer's name is needed: Contact holds the name of the trunk in this region, the peer group's advertised name.
// X-MS-FMC and X-MS-TenantID pass in both directions where calls/route lets them. Microsoft's SIP specification for
// these services is not public; this package follows the public pages (gateway-calls §2.2, §4, §5; operator-connect §4,
// §5).
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

// NeedsOffer returns true. gateway-calls §3.2: Teams does not support a delayed offer. operator-connect §5: the other
// services have the same interface as Direct Routing.
func (p *Profile) NeedsOffer() bool { return true }

// ToService writes the addresses of the trunk and tells Phone System who we are. X-MS-FMC stays as the Mobile Control
// Point wrote it.
func (p *Profile) ToService(m *sip.Message, l *leg.Leg) { p.ToServiceAs(m, l, l.Local) }

// ToServiceAs is ToService with another address of ours than the trunk's.
func (p *Profile) ToServiceAs(m *sip.Message, l *leg.Leg, us leg.Addr) {
	p.rules.StripForService(m)
	leg.Address(m, us, l.Remote)
	p.rules.Identify(m, us, l)
}

// ToCore shapes the message as for any service; X-MS-FMC and X-MS-TenantID pass. The operator uses the latter for
// rating (gateway-calls §2.2).
func (p *Profile) ToCore(m *sip.Message, l *leg.Leg) { p.rules.ShapeForCore(m, l) }

// Ping writes the trunk's name.
func (p *Profile) Ping(m *sip.Message, l *leg.Leg) { p.PingAs(m, l, l.Local) }

// PingAs is Ping with another address of ours than the trunk's.
func (p *Profile) PingAs(m *sip.Message, l *leg.Leg, us leg.Addr) {
	if m.IsRequest() {
		leg.AddressPing(m, us)
	}
	p.rules.Identify(m, us, l)
}
