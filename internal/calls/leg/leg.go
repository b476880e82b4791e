package leg

import (
	"strconv"
	"strings"

	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/domain"
)

// Profile is what is special about the messages of one communications service. Implementations hold no state of calls
// and are safe for concurrent use.
//
// Each method gets a message that is complete but for what the profile adds: start line, hop-by-hop lines, From, To and
// whatever Rules.Relay let pass. It must leave the tags of From and To, Call-ID, CSeq, Via and the body as they are, and
// must give the same result for the same message and leg, because retransmissions and tests compare bytes.
type Profile interface {
	// Service says whose profile it is.
	Service() domain.Service
	// NeedsOffer tells that the service refuses an INVITE without SDP (a delayed offer), so that the edge can refuse it
	// with the reason instead.
	NeedsOffer() bool
	// ToService shapes a request or answer about to be sent to the service, on a call in either direction.
	ToService(m *sip.Message, l *Leg)
	// ToCore shapes a request or answer of a call of this service about to be sent to the operator's core.
	ToCore(m *sip.Message, l *Leg)
	// Ping shapes an OPTIONS about to be sent to the service outside of any call, or our answer to the service's.
	Ping(m *sip.Message, l *Leg)
}

// Named is a profile that writes names of its own into messages towards the service, instead of the advertised one.
type Named interface {
	// Names returns them; "*.example.net" stands for names of one label below. The certificate shown to the service's
	// peers must carry each.
	Names() []string
}

// Leg is the leg a message leaves on. The edge fills it once per leg; profiles only read it.
type Leg struct {
	// Call is the decision about the call; nil for an OPTIONS outside of a call.
	Call *route.Decision
	// Local is how we are reached on this leg: the peer group's advertised address. Profiles that have names of their own
	// take only port and transport from it.
	Local Addr
	// Remote is the peer as configured: its host name where it has one, not the address it resolved to.
	Remote Addr
	// Refer tells that REFER is taken from this leg; then Allow names it. Teams transfers by REFER if it does, and by an
	// INVITE of its own if not (direct-routing-sip §7).
	Refer bool
}

// Allow is the Allow value for messages that leave on the leg.
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

// URI writes a sip: URI for the address, with the user part if there is one (RFC 3261 §19.1.1: "@" only with a user).
func (a Addr) URI(user string) string {
	return string(a.appendURI(make([]byte, 0, 16+len(user)+len(a.Host)+24), user, ""))
}

// PhoneURI is URI with user=phone: the user part is a telephone number (RFC 3261 §19.1.1).
func (a Addr) PhoneURI(number string) string {
	return string(a.appendURI(make([]byte, 0, 16+len(number)+len(a.Host)+36), number, ";user=phone"))
}

// Contact writes a Contact value.
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
