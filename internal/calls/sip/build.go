package sip

import "strings"

// NewRequest returns a request that has only a start line.
func NewRequest(method Method, uri string) *Message {
	m := &Message{method: method, uri: escapeURI(uri), vers: Version}
	if method == INVITE {
		m.lines = make([]Header, 0, 24) // an outbound leg's INVITE has the received lines and those that profiles add
	} else {
		m.lines = make([]Header, 0, 10)
	}
	return m
}

// NewResponse returns a response to a request (RFC 3261 §8.2.6.2): all Via lines,
// From, To, Call-ID and CSeq are copied byte for byte, in their order; toTag is
// added to a To that has no tag (leave it empty for 100). An empty reason means the
// usual phrase. A 100 also copies Timestamp (§8.2.6.1).
func NewResponse(req *Message, status int, reason, toTag string) *Message {
	if reason == "" {
		reason = ReasonPhrase(status)
	}
	m := &Message{vers: Version, status: status, reason: oneLine(reason)}
	m.lines = make([]Header, 0, 12)
	seen := [numKinds]bool{}
	for i := range req.lines {
		h := req.lines[i]
		switch h.kind {
		case KindVia:
		case KindFrom, KindTo, KindCallID, KindCSeq:
			if seen[h.kind] {
				continue // a repeated line gets 400 and is not echoed
			}
			seen[h.kind] = true
			if h.kind == KindTo && toTag != "" && tagOf(h.value) == "" {
				h = h.WithValue(h.value + ";tag=" + toTag)
			}
		case KindTimestamp:
			if status != 100 {
				continue
			}
		default:
			continue
		}
		m.lines = append(m.lines, h)
	}
	return m
}

// NewACK returns the ACK for a non-2xx final response to an INVITE (RFC 3261
// §17.1.1.3): Request-URI, top Via, From, Call-ID, CSeq number and Route of the
// INVITE as sent, To of the response.
func NewACK(invite, response *Message) *Message {
	m := hopRequest(invite, ACK)
	if i := response.Find(KindTo); i >= 0 {
		m.Append(response.lines[i])
	}
	m.CopyFrom(invite, KindCallID)
	m.Add(KindCSeq, seqOf(invite)+" ACK")
	return m
}

// NewCancel returns the CANCEL for a request as sent (RFC 3261 §9.1): same
// Request-URI, top Via, From, To, Call-ID, CSeq number and Route.
func NewCancel(invite *Message) *Message {
	m := hopRequest(invite, CANCEL)
	m.CopyFrom(invite, KindTo, KindCallID)
	m.Add(KindCSeq, seqOf(invite)+" CANCEL")
	return m
}

// hopRequest returns the beginning of a request to the same next hop as invite.
func hopRequest(invite *Message, method Method) *Message {
	m := NewRequest(method, invite.uri)
	if i := invite.Find(KindVia); i >= 0 {
		h := invite.lines[i]
		if first, _, more := cutValue(h.value); more {
			h = h.WithValue(first)
		}
		m.Append(h)
	}
	m.Add(KindMaxForwards, "70")
	m.CopyFrom(invite, KindRoute, KindFrom)
	return m
}

// seqOf returns the digits of the CSeq value as written.
func seqOf(m *Message) string {
	v := m.Get(KindCSeq)
	i := 0
	for i < len(v) && isDigit(v[i]) {
		i++
	}
	return v[:i]
}

// Warning returns a Warning value (RFC 3261 §20.43): code (399 is "miscellaneous"),
// agent (host or pseudonym), text.
func Warning(code int, agent, text string) string {
	if agent == "" {
		agent = "tandem"
	}
	return itoa(code) + " " + agent + " " + Quote(text)
}

// ReasonValue returns a Reason value (RFC 3326): protocol ("SIP", "Q.850"), cause,
// and text if it is not empty.
func ReasonValue(protocol string, cause int, text string) string {
	s := protocol + ";cause=" + itoa(cause)
	if text != "" {
		s += ";text=" + Quote(text)
	}
	return s
}

// ReasonCause parses a Reason value: its protocol, cause (0 if absent) and text.
func ReasonCause(value string) (protocol string, cause int, text string) {
	protocol, rest, _ := strings.Cut(value, ";")
	number, _ := Params(rest).Get("cause")
	n, _ := parseUint(number, 1<<16)
	text, _ = Params(rest).Get("text")
	return trim(protocol), int(n), Unquote(text)
}
