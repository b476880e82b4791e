// Package directrouting holds what is specific to Microsoft Teams Direct Routing.
//
// Teams learns which customer a message belongs to from the host name in its Contact, so the profile writes the
// customer's own name, <label>.<region>.<base domain>, into the Contact of every message to Teams, whichever side began
// the call (gateway-calls §3.1, §3.2; direct-routing-sip §4). OPTIONS carry the carrier trunk's name, <region>.<base
// domain>, instead (direct-routing-sip §3).
//
// Routing rules, such as screening, are in calls/route; this package changes messages only.
package directrouting

import (
	"strings"

	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/services/internal/phonesystem"
)

// ID is the service's ID, which is stored.
const ID = 1

// Service is Microsoft Teams Direct Routing.
var Service = domain.NewService(domain.Traits{ID: ID, Name: "teamsDirectRouting",
	Title: "Microsoft Teams Direct Routing", Exclusive: true, InContract: true, SyncFlag: true,
	CustomHeader: true, CarriesCalls: true, Screening: true, Labelled: true, PublicCertificate: true,
	PhoneSystem: true})

// Profile shapes messages for Direct Routing.
type Profile struct {
	*phonesystem.Profile
	trunk string // carrier trunk's name: <region>.<base domain>
}

var _ leg.Named = (*Profile)(nil)

// New returns the profile. The region of this node, from the rules, selects the region's label.
func New(rules *leg.Rules, names leg.Names) (leg.Profile, error) {
	base := strings.ToLower(strings.TrimSuffix(names.BaseDomain, "."))
	if base == "" {
		return nil, fault.New(fault.Invalid, "InvalidConfiguration", "Direct Routing has peers and needs a base "+
			"domain: customers' names are <label>.<region>.<baseDomain>").At("baseDomain")
	}
	if rules.Region() > len(names.Regions) {
		return nil, fault.New(fault.Invalid, "InvalidConfiguration", "this node is in region %d, but regions lists "+
			"%d; add its region there", rules.Region(), len(names.Regions)).At("region")
	}
	trunk := strings.ToLower(names.Regions[rules.Region()-1]) + "." + base
	return &Profile{phonesystem.New(Service, rules), trunk}, nil
}

// ToService writes the customer's name into Contact and From, the peer's into Request-URI and To, and tells Teams who
// we are and which methods we accept.
func (p *Profile) ToService(m *sip.Message, l *leg.Leg) { p.ToServiceAs(m, l, p.name(l)) }

// Ping writes the carrier trunk's name: one healthy trunk stands for all customers' names below it (direct-routing-sip
// §3).
func (p *Profile) Ping(m *sip.Message, l *leg.Leg) { p.PingAs(m, l, p.name(l)) }

// Names returns the carrier trunk's name and the pattern of the customers' names below it.
func (p *Profile) Names() []string { return []string{p.trunk, "*." + p.trunk} }

// name returns the name of the call's customer in the region of this node. OPTIONS, and a call without a customer (an
// emergency call that names none), use the carrier trunk's name.
func (p *Profile) name(l *leg.Leg) leg.Addr {
	a := leg.Addr{Host: p.trunk, Port: l.Local.Port, Transport: l.Local.Transport}
	if l.Call != nil && l.Call.Label != "" {
		a.Host = l.Call.Label + "." + p.trunk
	}
	return a
}
