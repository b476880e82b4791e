package leg

import (
	"strings"

	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/calls/sip"
)

// Renumber converts the numbers in a request to E.164 by the rules of the peer group that it came from: in the address
// header lines and, for an INVITE that begins a call, in Request-URI, To and From. Within a call these belong to the
// dialog and stay as they are. The called number of an emergency call stays as dialled.
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

// renumber returns the URI with its number in E.164 form and without the phone-context, which has no meaning then.
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
