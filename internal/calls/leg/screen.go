package leg

import (
	"strings"

	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/domain"
)

// Screen takes off a message to the core the asserted identities that a screened customer's call may not carry: each value of
// P-Asserted-Identity, P-Preferred-Identity and Remote-Party-ID that is a number, but neither the customer's nor the caller that
// the decision has accepted. From of the INVITE that begins a call is replaced where the decision says so; where the
// call asks for privacy, by an anonymous one (RFC 3323 §4.1.1.3), as From would show what Privacy hides. The profile
// comes after.
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

// identity reads an asserted identity. number is set when it is one, or no sip, sips or tel URI that can be read (RFC
// 3325 §9.1): others may find a number in it. n is empty if it is not E.164.
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
