package leg

import (
	"strings"

	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/calls/sip"
)

// Renumber writes the numbers in a request as E.164 where the rules of the peer group it came from say how: in the address
// lines, and in Request-URI, To and From of an INVITE that begins a call; within a call those are the dialog's. The
// number called in an emergency stays as dialled.
func Renumber(m *sip.Message, rules *route.Numbers, emergency bool) {
	if rules.None() {
		return
	}
	initial := Initial(m)
	if initial && !emergency {
		if u, err := m.RURI(); err == nil {
			m.SetRequestURI(renumber(u, rules))
		}
	}
	for i, h := range m.Headers() {
		k := h.Kind()
		if !addressed[k] && !h.Is(HeaderRPID) && !(initial && (k == sip.KindFrom || k == sip.KindTo && !emergency)) {
			continue
		}
		var values []string
		changed := false
		for v := range sip.SplitValues(h.Value()) {
			if a, err := sip.ParseNameAddr(v); err == nil {
				if u, err := a.URI(); err == nil {
					if a.Addr = renumber(u, rules); a.Addr != u.String() {
						v, changed = a.String(), true
					}
				}
			}
			values = append(values, v)
		}
		if changed {
			m.SetAt(i, strings.Join(values, ", "))
		}
	}
}

// renumber returns the URI's text with its number as E.164, and without the phone-context that then has no meaning.
func renumber(u sip.URI, rules *route.Numbers) string {
	raw := u.String()
	number, ok := u.TelephoneNumber()
	if !ok {
		return raw
	}
	e, ok := rules.E164(number, context(u))
	if !ok {
		return raw
	}
	params := ""
	if p := u.UserParams(); p != "" {
		params = sip.WithParam(";"+string(p), "phone-context", "")
	}
	head := strings.IndexByte(raw, ':') + 1
	tail := head + len(u.User)
	if u.Scheme == sip.SchemeTel {
		tail = len(raw)
	}
	return raw[:head] + string(e) + params + raw[tail:]
}
