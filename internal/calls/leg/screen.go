package leg

import (
	"strings"

	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/domain"
)

// Screen removes from a message to the core the asserted identities that a screened customer's call may not carry: each
// value of P-Asserted-Identity, P-Preferred-Identity and Remote-Party-ID that is a number, but neither the customer's
// nor that of the caller whom the decision has accepted. Where the decision says so, it replaces From of the INVITE
// that begins a call; if the call asks for privacy, by an anonymous From (RFC 3323 §4.1.1.3), because any other would
// show what Privacy hides. The profile's ToCore follows.
func Screen(m *sip.Message, l *Leg, view route.View) {
	d := l.Call
	for i := 0; i < m.Len(); i++ {
		h := m.At(i)
		switch k := h.Kind(); {
		case k == sip.KindPAssertedIdentity, k == sip.KindPPreferredIdentity:
		case k == sip.KindOther && fold(h.Name(), HeaderRPID):
		default:
			continue
		}
		var keep []string
		values := 0
		for v := range sip.SplitValues(h.Value()) {
			values++
			n, number := identity(v)
			if !number || n != "" && (d.Outcome == route.ToCore && n == d.Caller || d.Owns(view, n)) {
				keep = append(keep, v)
			}
		}
		switch {
		case len(keep) == 0:
			m.RemoveAt(i)
			i--
		case len(keep) < values:
			m.SetAt(i, strings.Join(keep, ", "))
		}
	}
	if d.From == "" || !Initial(m) {
		return
	}
	from := "<" + l.Local.PhoneURI(string(d.From)) + ">"
	if p := strings.TrimSpace(m.Get(sip.KindPrivacy)); p != "" && !strings.EqualFold(p, "none") {
		from = `"Anonymous" <sip:anonymous@anonymous.invalid>`
	}
	m.Set(sip.KindFrom, sip.WithParam(from, "tag", m.FromTag()))
}

// identity parses an asserted identity. number is set when it is a number, and also when it is not a readable sip, sips
// or tel URI (RFC 3325 §9.1): other systems may find a number in it. n is empty if the number is not E.164.
func identity(value string) (n domain.E164, number bool) {
	a, err := sip.ParseNameAddr(value)
	if err != nil {
		return "", true
	}
	u, err := a.URI()
	if err != nil || u.Scheme == sip.SchemeOther {
		return "", true
	}
	p := party(value)
	return p.Number, p.Number != "" || p.Numeric()
}
