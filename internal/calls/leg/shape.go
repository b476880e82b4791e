package leg

import (
	"strings"

	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/domain"
)

// Header names of the services (gateway-calls §2.2).
const (
	HeaderSBC      = "X-MS-SBC"      // to Microsoft: which gateway this is
	HeaderTenantID = "X-MS-TenantID" // from Microsoft: the tenant a call comes from; billing may need it
	HeaderFMC      = "X-MS-FMC"      // the call is anchored in Phone System

	// HeaderRPID is from a draft that preceded RFC 3325; many switches still send it.
	HeaderRPID = "Remote-Party-ID"

	headerTenantIDToo = "X-MSTenantID" // as one page of the published documentation spells it
)

// Methods are the methods that this gateway accepts within a call and passes to the other leg, as listed in Allow.
// NOTIFY is among them because Teams requires it with and without REFER (gateway-calls §3.2).
var Methods = []sip.Method{sip.INVITE, sip.ACK, sip.CANCEL, sip.BYE, sip.OPTIONS, sip.PRACK, sip.UPDATE,
	sip.INFO, sip.NOTIFY}

var (
	allowPlain = allow(Methods)
	allowRefer = allow(append(Methods[:len(Methods):len(Methods)], sip.REFER))
)

func allow(methods []sip.Method) string {
	names := make([]string, len(methods))
	for i, m := range methods {
		names[i] = string(m)
	}
	return strings.Join(names, ", ")
}

// Initial reports whether m is an INVITE that begins a call.
func Initial(m *sip.Message) bool { return m.Method() == sip.INVITE && m.ToTag() == "" }

// about returns the method of the request that m is or responds to; ok is false for 100 and for failure responses.
func about(m *sip.Message) (method sip.Method, ok bool) {
	if m.IsRequest() {
		return m.Method(), true
	}
	c, err := m.CSeq()
	return c.Method, err == nil && m.Status() > 100 && m.Status() < 300
}

// SetContact writes our Contact into a message that should or may have one: requests that set or refresh the far side's
// target, ACK, OPTIONS, and their provisional and successful responses (RFC 3261 §20, table 2; RFC 3311). It removes
// Contact from all others. The user part is the number of our side (From in a request, To in a response), so that it
// stays the same throughout the call and shows nothing that From hides.
//
// SetContact reports whether the message has a Contact now.
func SetContact(m *sip.Message, a Addr) bool {
	method, ok := about(m)
	switch method {
	case sip.INVITE, sip.ACK, sip.UPDATE, sip.OPTIONS, sip.REFER, sip.SUBSCRIBE, sip.NOTIFY:
	default:
		ok = false
	}
	if !ok {
		m.Remove(sip.KindContact)
		return false
	}
	end := sip.KindFrom
	if m.IsResponse() {
		end = sip.KindTo
	}
	user := ""
	if method != sip.OPTIONS {
		user = string(party(m.Get(end)).Number)
	}
	m.Set(sip.KindContact, a.Contact(user))
	return true
}

// SetAllow writes our Allow into the messages that state which methods we accept: INVITE, UPDATE and OPTIONS and their
// provisional and successful responses (RFC 3261 §20.5). It leaves others unchanged.
func SetAllow(m *sip.Message, allow string) {
	method, ok := about(m)
	if !ok {
		return
	}
	switch method {
	case sip.INVITE, sip.UPDATE, sip.OPTIONS:
		m.Set(sip.KindAllow, allow)
	}
}

// Address rewrites the addresses of an INVITE that begins a call for the leg it is sent on: Request-URI and To name the
// peer, From names us. It leaves other messages unchanged: within a call the addresses follow the dialog. Numbers,
// their parameters (";rn=", ";tgrp=", "verstat" …) and display names stay.
func Address(m *sip.Message, local, remote Addr) {
	if !Initial(m) {
		return
	}
	if u, err := m.RURI(); err == nil {
		m.SetRequestURI(rewrite(u, remote))
	}
	// Port and transport have no meaning in From and To and are omitted, as in Microsoft's examples.
	rewriteAddr(m, sip.KindTo, Addr{Host: remote.Host})
	rewriteAddr(m, sip.KindFrom, Addr{Host: local.Host})
}

// rewriteAddr writes the host of a into the address line k, except for anonymous parties, whose host must stay (RFC
// 3323 §4.1.1.3).
func rewriteAddr(m *sip.Message, k sip.Kind, a Addr) {
	i := m.Find(k)
	if i < 0 {
		return
	}
	v := m.At(i).Value()
	n, err := sip.ParseNameAddr(v)
	if err != nil {
		return
	}
	u, err := n.URI()
	if err != nil || u.Scheme == sip.SchemeOther ||
		strings.HasSuffix(strings.ToLower(strings.TrimSuffix(u.Host, ".")), ".invalid") {
		return
	}
	n.Addr, n.Angle = rewrite(u, a), true
	m.SetAt(i, n.String())
}

// hopParams are URI parameters that describe how to reach the URI's host (RFC 3261 §19.1.1, RFC 5626, RFC 5627); with
// another host they would be wrong.
var hopParams = map[string]bool{"transport": true, "maddr": true, "ttl": true, "lr": true, "method": true, "ob": true,
	"gr": true, "user": true}

// rewrite returns u with another host, port and transport. A telephone number loses its visual separators and gets
// user=phone; a tel: URI becomes a sip: URI (RFC 3261 §19.1.6). Passwords and headers in the URI are dropped.
func rewrite(u sip.URI, a Addr) string {
	params := ""
	user, number := u.TelephoneNumber()
	if number {
		_, err := domain.ParseE164(user)
		v, _ := u.Param("user")
		if err == nil || u.Scheme == sip.SchemeTel || strings.EqualFold(v, "phone") {
			params = ";user=phone"
		}
		if p := u.UserParams(); p != "" {
			user += ";" + string(p)
		}
	} else {
		user = u.User
	}
	user = strings.ReplaceAll(user, "#", "%23") // decoded above, or accepted raw (RFC 3986 §2)
	if u.Scheme != sip.SchemeTel {
		for name, value := range u.Params.All() {
			if hopParams[strings.ToLower(name)] {
				continue
			}
			params += ";" + name
			if value != "" {
				params += "=" + value
			}
		}
	}
	return string(a.appendURI(make([]byte, 0, 64), user, params))
}

// operatorOnly lists the header lines that stay within the operator's own network (RFC 7315 §4: they are removed when a
// message leaves it).
var operatorOnly = [256]bool{sip.KindPChargingVector: true, sip.KindPChargingFunctionAddresses: true,
	sip.KindPVisitedNetworkID: true, sip.KindPAccessNetworkInfo: true, sip.KindPServedUser: true}

// StripForService removes what must not leave the operator's network: charging and access-network lines, the tenant of
// another customer's call, and the custom header, even if the edge's own message had it. Profiles call it first in
// ToService.
func (r *Rules) StripForService(m *sip.Message) {
	for i := 0; i < m.Len(); {
		h := m.At(i)
		if operatorOnly[h.Kind()] || h.Kind() == sip.KindOther &&
			(fold(h.Name(), r.custom) || fold(h.Name(), HeaderTenantID) || fold(h.Name(), headerTenantIDToo)) {
			m.RemoveAt(i)
			continue
		}
		i++
	}
}

// fold reports whether two names are equal, ignoring case; most differ in length.
func fold(a, b string) bool { return len(a) == len(b) && strings.EqualFold(a, b) }

// Identify tells Microsoft who we are and which methods we accept: it writes Contact with the given name, X-MS-SBC
// along with it, and Allow.
func (r *Rules) Identify(m *sip.Message, us Addr, l *Leg) {
	if SetContact(m, us) {
		m.SetName(HeaderSBC, r.product)
	}
	SetAllow(m, l.Allow())
}

// ShapeForCore shapes a message to the core in the same way for every service: addresses, Contact, Allow, and the
// custom header where the service has one. gateway-calls §2.1: every message of the call carries it, with the calling
// number's value on calls to the core and the called number's on messages returned for calls from it; the decision has
// chosen which.
func (r *Rules) ShapeForCore(m *sip.Message, l *Leg) {
	Address(m, l.Local, l.Remote)
	SetContact(m, l.Local)
	SetAllow(m, l.Allow())
	m.RemoveName(r.custom)
	if l.Call == nil || l.Call.Header == "" || !l.Call.Service.Traits().CustomHeader {
		return
	}
	m.AddName(r.custom, l.Call.Header)
}

// AddressPing writes our name into From of an OPTIONS outside a call. The edge writes its Request-URI and To.
func AddressPing(m *sip.Message, local Addr) {
	rewriteAddr(m, sip.KindFrom, Addr{Host: local.Host, Port: local.Port})
}
