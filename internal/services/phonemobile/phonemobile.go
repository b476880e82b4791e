// Package phonemobile holds what is specific to Microsoft Teams Phone Mobile.
//
// Its trunk is that of a mobile network, and X-MS-FMC tells the core that Phone System has anchored a call: it passes
// to the core, and arrives from the core only through a Mobile Control Point; calls/route refuses it from elsewhere.
// There is no custom header (gateway-calls §2.1). Microsoft's SIP specification for this service is not public; this
// package follows the public pages (gateway-calls §2.2, §5; operator-connect §4).
package phonemobile

import (
	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/domain"
)

// Profile shapes messages for Teams Phone Mobile.
type Profile struct{ rules *leg.Rules }

var _ leg.Profile = (*Profile)(nil)

// New returns the profile.
func New(rules *leg.Rules) *Profile { return &Profile{rules: rules} }

// Service returns domain.PhoneMobile.
func (p *Profile) Service() domain.Service { return domain.PhoneMobile }

// NeedsOffer returns true. The interface is that of Operator Connect, which does not support a delayed offer.
func (p *Profile) NeedsOffer() bool { return true }

// ToService writes the addresses of the trunk and tells Phone System who we are. X-MS-FMC stays as the Mobile Control
// Point wrote it.
func (p *Profile) ToService(m *sip.Message, l *leg.Leg) {
	p.rules.StripForService(m)
	leg.Address(m, l.Local, l.Remote)
	p.rules.Identify(m, l.Local, l)
}

// ToCore shapes the message as for any service; X-MS-FMC and X-MS-TenantID pass.
func (p *Profile) ToCore(m *sip.Message, l *leg.Leg) { p.rules.ShapeForCore(m, l) }

// Ping writes the trunk's name.
func (p *Profile) Ping(m *sip.Message, l *leg.Leg) {
	if m.IsRequest() {
		leg.AddressPing(m, l.Local)
	}
	p.rules.Identify(m, l.Local, l)
}
