// Package operatorconnect holds what is specific to Microsoft Operator Connect.
//
// Phone System finds the tenant by the number, which was uploaded beforehand, so no customer's name is needed: Contact
// holds the name of the trunk in this region, the peer group's advertised name. Microsoft's SIP specification for this
// service is not public; this package follows the public pages (gateway-calls §4, operator-connect §5).
package operatorconnect

import (
	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/domain"
)

// Profile shapes messages for Operator Connect.
type Profile struct{ rules *leg.Rules }

var _ leg.Profile = (*Profile)(nil)

// New returns the profile.
func New(rules *leg.Rules) *Profile { return &Profile{rules: rules} }

// Service returns domain.OperatorConnect.
func (p *Profile) Service() domain.Service { return domain.OperatorConnect }

// NeedsOffer returns true. operator-connect §5: the same interface as Direct Routing, which does not support a delayed
// offer.
func (p *Profile) NeedsOffer() bool { return true }

// ToService writes the addresses of the trunk and tells Phone System who we are.
func (p *Profile) ToService(m *sip.Message, l *leg.Leg) {
	p.rules.StripForService(m)
	leg.Address(m, l.Local, l.Remote)
	p.rules.Identify(m, l.Local, l)
}

// ToCore shapes the message as for any service. X-MS-TenantID passes: the operator uses it for rating (gateway-calls
// §2.2).
func (p *Profile) ToCore(m *sip.Message, l *leg.Leg) { p.rules.ShapeForCore(m, l) }

// Ping writes the trunk's name.
func (p *Profile) Ping(m *sip.Message, l *leg.Leg) {
	if m.IsRequest() {
		leg.AddressPing(m, l.Local)
	}
	p.rules.Identify(m, l.Local, l)
}
