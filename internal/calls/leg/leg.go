package leg

import (
	"strconv"
	"strings"

	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/domain"
)

// Profile adapts messages to one communications service. Implementations hold no call state and are safe for concurrent
// use.
//
// Each method gets a message that is complete except for what the profile adds: it has its start line, hop-by-hop
// lines, From, To and everything that Rules.Relay passed on. The method must leave the tags of From and To, Call-ID,
// CSeq, Via and the body as they are, and must give the same result for the same message and leg, because
// retransmissions and tests compare bytes.
type Profile interface {
	// Service returns the service that the profile is for.
	Service() domain.Service
	// NeedsOffer reports whether the service refuses an INVITE without SDP (a delayed offer). The edge then refuses
	// such an INVITE itself and gives the reason.
	NeedsOffer() bool
	// ToService shapes a request or response about to be sent to the service, on a call in either direction.
	ToService(m *sip.Message, l *Leg)
	// ToCore shapes a request or response about to be sent to the operator's core, on a call of this service.
	ToCore(m *sip.Message, l *Leg)
	// Ping shapes an OPTIONS about to be sent to the service outside a call, or our response to one from the service.
	Ping(m *sip.Message, l *Leg)
}

// Names are the names of the deployment from which a profile may form its own.
type Names struct {
	BaseDomain string   // may be empty
	Regions    []string // DNS labels of the Direct Routing regions
}

// NamesOf returns the names that are configured for routing.
func NamesOf(c *route.Config) Names {
	return Names{c.BaseDomain, route.Regions(c.Regions)}
}

// Named is implemented by a profile that writes host names of its own, not the advertised name, into messages to the
// service.
type Named interface {
	// Names returns these names; "*.example.net" means all names one label below example.net. The certificate presented
	// to the service's peers must contain each of them.
	Names() []string
}

// HostNames returns the names that profiles write into messages, by service; see Named.
func HostNames(profiles []Profile) map[string][]string {
	hosts := map[string][]string{}
	for _, p := range profiles {
		if n, ok := p.(Named); ok {
			hosts[p.Service().String()] = n.Names()
		}
	}
	return hosts
}

// Leg is the leg that a message is sent on. The edge fills it once per leg; profiles only read it.
type Leg struct {
	// Call is the decision about the call; nil for an OPTIONS outside a call.
	Call *route.Decision
	// Local is our address on this leg: the peer group's advertised address. Profiles with names of their own take only
	// port and transport from it.
	Local Addr
	// Remote is the peer as configured: its host name where it has one, not the address it resolved to.
	Remote Addr
	// Refer is set when REFER is accepted on this leg; Allow then lists it. Teams transfers by REFER if Allow lists it,
	// and by an INVITE of its own otherwise (direct-routing-sip §7).
	Refer bool
}

// Allow returns the Allow value for messages sent on the leg.
func (l *Leg) Allow() string {
	if l.Refer {
		return allowRefer
	}
	return allowPlain
}

// Addr is a host with port and transport, as written in a SIP URI.
type Addr struct {
	Host      string // DNS name or IP address (IPv6 without brackets)
	Port      uint16 // 0: not written
	Transport string // udp, tcp or tls in lower case; empty or udp: not written
}

// URI returns a sip: URI for the address, with the user part if there is one (RFC 3261 §19.1.1: "@" only with a user).
func (a Addr) URI(user string) string {
	return string(a.appendURI(make([]byte, 0, 16+len(user)+len(a.Host)+24), user, ""))
}

// PhoneURI returns the same as URI, with user=phone: the user part is a telephone number (RFC 3261 §19.1.1).
func (a Addr) PhoneURI(number string) string {
	return string(a.appendURI(make([]byte, 0, 16+len(number)+len(a.Host)+36), number, ";user=phone"))
}

// Contact returns a Contact value for the address.
func (a Addr) Contact(user string) string {
	b := append(make([]byte, 0, 18+len(user)+len(a.Host)+24), '<')
	return string(append(a.appendURI(b, user, ""), '>'))
}

func (a Addr) appendURI(b []byte, user, params string) []byte {
	b = append(b, "sip:"...)
	if user != "" {
		b = append(append(b, user...), '@')
	}
	if strings.IndexByte(a.Host, ':') >= 0 {
		b = append(append(append(b, '['), a.Host...), ']')
	} else {
		b = append(b, a.Host...)
	}
	if a.Port != 0 {
		b = strconv.AppendUint(append(b, ':'), uint64(a.Port), 10)
	}
	b = append(b, params...)
	if a.Transport != "" && a.Transport != "udp" {
		b = append(append(b, ";transport="...), a.Transport...)
	}
	return b
}
