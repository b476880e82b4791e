// Package zoom holds what is specific to Zoom Phone Cloud Peering.
//
// Zoom reads and writes the caller as P-Asserted-Identity, so other headers that name the caller are converted to it in
// both directions (gateway-calls §2.2, §6). Contact holds the peer group's advertised name, which must differ from the
// names used towards the operator (gateway-calls §1.1). Zoom's SIP specification is not public; this package follows
// public pages.
package zoom

import (
	"strings"

	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/domain"
)

// ID is the service's ID, which is stored.
const ID = 4

// Service is Zoom Phone Cloud Peering.
var Service = domain.NewService(domain.Traits{ID: ID, Name: "zoomPhoneCloudPeering", Title: "Zoom Phone Cloud Peering",
	Exclusive: true, InContract: true, SyncFlag: true, CustomHeader: true, CarriesCalls: true,
	PublicCertificate: true})

// Profile shapes messages for Zoom.
type Profile struct{ rules *leg.Rules }

var _ leg.Profile = (*Profile)(nil)

// New returns the profile. It never fails.
func New(rules *leg.Rules, _ leg.Names) (leg.Profile, error) { return &Profile{rules: rules}, nil }

// Service returns Service.
func (p *Profile) Service() domain.Service { return Service }

// NeedsOffer returns true. operator-connect §7: early offer.
func (p *Profile) NeedsOffer() bool { return true }

// ToService writes the name by which Zoom knows us and asserts the caller. It removes X-MS-FMC, which has no meaning
// for Zoom.
func (p *Profile) ToService(m *sip.Message, l *leg.Leg) {
	p.rules.StripForService(m)
	m.RemoveName(leg.HeaderFMC)
	leg.Address(m, l.Local, l.Remote)
	assertIdentity(m, l.Local.Host)
	leg.SetContact(m, l.Local)
	leg.SetAllow(m, l.Allow())
}

// ToCore asserts the caller and shapes the message as for any service.
func (p *Profile) ToCore(m *sip.Message, l *leg.Leg) {
	assertIdentity(m, l.Local.Host)
	p.rules.ShapeForCore(m, l)
}

// Ping writes the name by which Zoom knows us.
func (p *Profile) Ping(m *sip.Message, l *leg.Leg) {
	if m.IsRequest() {
		leg.AddressPing(m, l.Local)
	}
	leg.SetContact(m, l.Local)
	leg.SetAllow(m, l.Allow())
}

// assertIdentity adds a P-Asserted-Identity to an INVITE that begins a call, if it has none: from P-Preferred-Identity,
// else from Remote-Party-ID of the calling party, else from From. It removes the headers that it converts. The host is
// ours: only the number is asserted, and another network's host would reveal its topology. An INVITE that contains no
// number gets none.
func assertIdentity(m *sip.Message, host string) {
	if !leg.Initial(m) {
		return
	}
	number, display := "", ""
	take := func(value string) {
		if number != "" {
			return
		}
		a, err := sip.ParseNameAddr(value)
		if err != nil {
			return
		}
		u, err := a.URI()
		if err != nil {
			return
		}
		if n, ok := u.TelephoneNumber(); ok && strings.HasPrefix(n, "+") {
			number, display = n, a.Display
		}
	}
	asserted := m.Has(sip.KindPAssertedIdentity)
	for v := range m.Values(sip.KindPPreferredIdentity) {
		take(v)
	}
	m.Remove(sip.KindPPreferredIdentity)
	private := false
	for i := m.FindName(leg.HeaderRPID); i >= 0; i = m.FindName(leg.HeaderRPID) {
		for v := range sip.SplitValues(m.At(i).Value()) {
			a, err := sip.ParseNameAddr(v)
			if err != nil {
				continue
			}
			if party, ok := a.Params.Get("party"); ok && !strings.EqualFold(party, "calling") {
				continue
			}
			take(v)
			if privacy, _ := a.Params.Get("privacy"); privacy != "" && !strings.EqualFold(privacy, "off") {
				private = true
			}
		}
		m.RemoveAt(i)
	}
	if !asserted {
		take(m.Get(sip.KindFrom))
		if number == "" {
			return
		}
		value := "<sip:" + number + "@" + host + ";user=phone>"
		if display != "" {
			value = display + " " + value
		}
		m.Add(sip.KindPAssertedIdentity, value)
	}
	// What Remote-Party-ID hid stays hidden, whichever header the number was taken from (RFC 3325 §7, RFC 3323 §4.2).
	switch v := m.Get(sip.KindPrivacy); {
	case !private || hasPrivacy(v, "id") || hasPrivacy(v, "none"):
	case v == "":
		m.Add(sip.KindPrivacy, "id")
	default:
		m.Set(sip.KindPrivacy, v+";id")
	}
}

// hasPrivacy reports whether a Privacy value lists a kind of privacy.
func hasPrivacy(value, kind string) bool {
	for v := range strings.SplitSeq(value, ";") {
		if strings.EqualFold(strings.TrimSpace(v), kind) {
			return true
		}
	}
	return false
}
