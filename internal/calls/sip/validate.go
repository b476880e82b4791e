package sip

import "strings"

// Validator checks messages that Parse accepted against RFC 3261. The zero value
// is ready to use. It is safe for concurrent use once its fields are set.
//
// It is strict about what a gateway acts on (start line, Via, From, To, Call-ID,
// CSeq, Max-Forwards, Contact, routes, Require, body framing) and does not check
// other fields: those that are only passed on are for the far side to check.
type Validator struct {
	// Limits bounds sizes; nil means the defaults.
	Limits *Limits
	// Understands reports whether an option tag of Require or Proxy-Require is
	// supported. Nil: none is, and any Require gets 420.
	Understands func(tag string) bool
}

// Check returns the first problem of a message, nil if there is none. A problem of
// a response always has Status 0: responses are never answered.
func (v *Validator) Check(m *Message) *Problem {
	c := checker{m: m, lim: v.Limits.or()}
	if m.status != 0 {
		p := c.common()
		if p != nil {
			p.Status = 0
		}
		return p
	}
	if p := c.requestURI(); p != nil {
		return p
	}
	if p := c.common(); p != nil {
		return p
	}
	if p := c.request(); p != nil {
		return p
	}
	return v.extensions(m, &c.lim)
}

type checker struct {
	m   *Message
	lim Limits
}

// once lists the fields that a gateway acts on and that may occur only once: the
// next element could use the other one of two (RFC 3261 §7.3.1, RFC 4475 §3.3.8).
var once = [numKinds]bool{
	KindFrom: true, KindTo: true, KindCallID: true, KindCSeq: true,
	KindMaxForwards: true, KindContentLength: true, KindContentType: true,
	KindExpires: true, KindSessionExpires: true, KindMinSE: true,
	KindEvent: true, KindReferTo: true, KindReplaces: true,
	KindRAck: true, KindRSeq: true,
}

// vital lists the fields needed to match a response with its transaction and
// dialog or to acknowledge it. A response is never answered, so discarding one
// loses the call: faults in other fields are passed on.
var vital = [numKinds]bool{
	KindVia: true, KindFrom: true, KindTo: true, KindCallID: true, KindCSeq: true,
	KindContentLength: true, KindRSeq: true, KindContact: true, KindRecordRoute: true,
}

// common runs the checks for both requests and responses: one each of the fields
// that identify transaction and dialog, and no control characters. In a response
// it checks only the vital fields.
func (c *checker) common() *Problem {
	m := c.m
	var seen [numKinds]bool
	for i := range m.lines {
		h := &m.lines[i]
		k := h.kind
		if m.status != 0 && !vital[k] {
			continue
		}
		if once[k] && seen[k] {
			return bad(canonical[k], "RFC 3261 §7.3.1", "More than one "+canonical[k]+" header field")
		}
		seen[k] = true
		if h.control && !controlsQuoted(h.value) {
			return bad(h.Name(), "RFC 3261 §25.1", "Control character in header field "+h.Name())
		}
		switch k {
		case KindVia:
			if p := c.via(h.value, i); p != nil {
				return p
			}
		case KindFrom, KindTo:
			if p := c.party(h); p != nil {
				return p
			}
		case KindCallID:
			if !validCallID(h.value) {
				return bad("Call-ID", "RFC 3261 §20.8", "Malformed Call-ID")
			}
		case KindCSeq:
			if p := c.cseq(h.value); p != nil {
				return p
			}
		}
	}
	for _, k := range [...]Kind{KindVia, KindFrom, KindTo, KindCallID, KindCSeq} {
		if !seen[k] {
			return bad(canonical[k], "RFC 3261 §8.1.1", "Missing "+canonical[k]+" header field")
		}
	}
	return nil
}

// via checks every value of one Via line. Only the top one must be SIP/2.0.
func (c *checker) via(value string, line int) *Problem {
	top := c.m.Find(KindVia) == line
	for rest, more := value, true; more; {
		var one string
		one, rest, more = cutValue(rest)
		v, err := ParseVia(one)
		if err == nil {
			err = v.Params.check()
		}
		if err == errProtocol && !top {
			continue
		}
		if err != nil {
			return bad("Via", "RFC 3261 §20.42", "Malformed Via: "+err.Error())
		}
		if top && v.Branch() == BranchMagic {
			return bad("Via", "RFC 3261 §8.1.1.7", "Via branch consists of the magic cookie only")
		}
		top = false
	}
	return nil
}

// party checks From or To.
func (c *checker) party(h *Header) *Problem {
	name := canonical[h.kind]
	clause := "RFC 3261 §20.20"
	if h.kind == KindTo {
		clause = "RFC 3261 §20.39"
	}
	a, err := ParseNameAddr(h.value)
	if err == nil {
		err = a.Params.check()
	}
	if err != nil {
		return bad(name, clause, "Malformed "+name+": "+err.Error())
	}
	u, err := a.URI()
	if err != nil {
		return bad(name, clause, "Malformed "+name+" URI: "+err.Error())
	}
	if t, ok := a.Params.Get("tag"); ok && !isToken(t) {
		return bad(name, "RFC 3261 §19.3", "Malformed tag in "+name)
	}
	if c.m.status != 0 {
		return nil
	}
	if len(u.User) > c.lim.UserInfo {
		return bad(name, "size limit", "User part of "+name+" exceeds "+itoa(c.lim.UserInfo)+" bytes")
	}
	if h.kind == KindFrom && len(u.Host) > c.lim.FromDomain {
		return bad(name, "size limit", "Host of From exceeds "+itoa(c.lim.FromDomain)+" bytes")
	}
	return nil
}

func (c *checker) cseq(value string) *Problem {
	cs, err := ParseCSeq(value)
	if err != nil {
		return bad("CSeq", "RFC 3261 §20.16", "Malformed CSeq: "+err.Error())
	}
	if c.m.status == 0 && cs.Method != c.m.method {
		return bad("CSeq", "RFC 3261 §8.1.1.5", "CSeq method does not match the request method")
	}
	return nil
}

// requestURI checks the Request-URI (RFC 3261 §8.2.2.1, §19.1.1).
func (c *checker) requestURI() *Problem {
	u, err := c.m.RURI()
	switch {
	case err != nil:
		return bad("", "RFC 3261 §19.1.1", "Malformed Request-URI: "+err.Error())
	case u.Scheme == SchemeOther:
		return &Problem{Status: 416, Text: "Request-URI scheme is not sip, sips or tel", Clause: "RFC 3261 §8.2.2.1"}
	case u.Headers != "":
		return bad("", "RFC 3261 §19.1.1", "Request-URI has a headers part")
	case len(u.User) > c.lim.UserInfo:
		return bad("", "size limit", "User part of the Request-URI exceeds "+itoa(c.lim.UserInfo)+" bytes")
	}
	return nil
}

// request runs the checks for requests only.
func (c *checker) request() *Problem {
	m := c.m
	contacts := 0
	for i := range m.lines {
		h := &m.lines[i]
		switch h.kind {
		case KindOther:
			if len(h.Name()) > c.lim.HeaderName {
				return bad(h.Name()[:c.lim.HeaderName], "size limit", "Header field name exceeds "+
					itoa(c.lim.HeaderName)+" bytes")
			}
		case KindMaxForwards:
			if _, ok := parseUint(h.value, 255); !ok {
				return bad("Max-Forwards", "RFC 3261 §20.22", "Max-Forwards is not a number from 0 to 255")
			}
		case KindContact:
			n, p := c.contact(h.value)
			if p != nil {
				return p
			}
			contacts += n
		case KindRoute, KindRecordRoute:
			if p := c.route(h); p != nil {
				return p
			}
		case KindContentType:
			if p := c.contentType(h.value); p != nil {
				return p
			}
		}
	}
	if contacts == 0 && (m.method == INVITE || m.method == SUBSCRIBE || m.method == REFER) {
		return bad("Contact", "RFC 3261 §8.1.1.8", "Missing Contact header field")
	}
	if m.body != "" && !m.Has(KindContentType) {
		return bad("Content-Type", "RFC 3261 §20.15", "Missing Content-Type header field for the body")
	}
	return nil
}

// contact checks every value of a Contact line (RFC 3261 §8.1.1.8, §20.10).
func (c *checker) contact(value string) (n int, p *Problem) {
	if value == "*" && c.m.method == REGISTER {
		return 1, nil
	}
	for rest, more := value, true; more; {
		var one string
		one, rest, more = cutValue(rest)
		a, err := ParseNameAddr(one)
		if err == nil {
			err = a.Params.check()
		}
		if err != nil {
			return n, bad("Contact", "RFC 3261 §20.10", "Malformed Contact: "+err.Error())
		}
		u, err := a.URI()
		if err != nil {
			return n, bad("Contact", "RFC 3261 §20.10", "Malformed Contact URI: "+err.Error())
		}
		if (c.m.method == INVITE || c.m.method == UPDATE) && !u.IsSIP() {
			return n, bad("Contact", "RFC 3261 §8.1.1.8", "Contact of "+string(c.m.method)+" is not a SIP URI")
		}
		if len(a.Addr) > c.lim.ContactURI {
			return n, bad("Contact", "size limit", "Contact URI exceeds "+itoa(c.lim.ContactURI)+" bytes")
		}
		if len(u.User) > c.lim.UserInfo {
			return n, bad("Contact", "size limit", "User part of Contact exceeds "+itoa(c.lim.UserInfo)+" bytes")
		}
		n++
	}
	return n, nil
}

// route checks Route and Record-Route: name-addr only (RFC 3261 §20.30, §20.34).
func (c *checker) route(h *Header) *Problem {
	name := canonical[h.kind]
	for rest, more := h.value, true; more; {
		var one string
		one, rest, more = cutValue(rest)
		a, err := ParseNameAddr(one)
		if err == nil && !a.Angle {
			err = errAngle
		}
		if err == nil {
			_, err = a.URI()
		}
		if err == nil {
			err = a.Params.check()
		}
		if err != nil {
			return bad(name, "RFC 3261 §20.34", "Malformed "+name+": "+err.Error())
		}
	}
	return nil
}

// contentType checks type/subtype and parameters (RFC 3261 §20.15).
func (c *checker) contentType(value string) *Problem {
	media, params := value, Params("")
	if i := scanTo(value, 0, ';'); i < len(value) {
		media, params = value[:i], Params(value[i+1:])
	}
	kind, subtype, _ := strings.Cut(media, "/")
	if !isToken(trim(kind)) || !isToken(trim(subtype)) || params.check() != nil {
		return bad("Content-Type", "RFC 3261 §20.15", "Malformed Content-Type")
	}
	if len(trim(media)) > c.lim.BodyName {
		return bad("Content-Type", "size limit", "Media type exceeds "+itoa(c.lim.BodyName)+" bytes")
	}
	return nil
}

// extensions checks the option tags of Require and Proxy-Require (RFC 3261
// §8.2.2.3, §16.3 step 5). Both are ignored in CANCEL and ACK.
func (v *Validator) extensions(m *Message, lim *Limits) *Problem {
	if m.method == ACK || m.method == CANCEL {
		return nil
	}
	var unknown []string
	for i := range m.lines {
		h := &m.lines[i]
		switch h.kind {
		case KindSupported, KindRequire, KindProxyRequire:
		default:
			continue
		}
		if len(h.value) > lim.OptionList {
			return bad(canonical[h.kind], "size limit", canonical[h.kind]+" exceeds "+itoa(lim.OptionList)+" bytes")
		}
		for rest, more := h.value, true; more; {
			var tag string
			tag, rest, more = cutValue(rest)
			if tag == "" {
				continue // an empty Supported is allowed (§25.1), and others are harmless
			}
			if !isToken(tag) {
				return bad(canonical[h.kind], "RFC 3261 §19.2", "Malformed option tag in "+canonical[h.kind])
			}
			if len(tag) > lim.OptionTag {
				return bad(canonical[h.kind], "size limit", "Option tag in "+canonical[h.kind]+" exceeds "+
					itoa(lim.OptionTag)+" bytes")
			}
			if h.kind != KindSupported && (v.Understands == nil || !v.Understands(tag)) {
				unknown = append(unknown, tag)
			}
		}
	}
	if unknown == nil {
		return nil
	}
	return &Problem{
		Status: 420, Field: "Require", Text: "Required extension is not supported",
		Clause: "RFC 3261 §8.2.2.3", Unsupported: unknown,
	}
}

// validCallID accepts more than callid: deployed equipment uses other characters
// too, and the value is only compared.
func validCallID(s string) bool {
	if s == "" {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == ',' || c == ';' {
			return false
		}
	}
	return true
}

// controlsQuoted reports whether each control character of a value is a tab or
// follows a backslash in a quoted string, the one place where RFC 3261 §25.1
// (quoted-pair) allows them.
func controlsQuoted(s string) bool {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted:
			i++
		case c == '\t':
		case c < ' ' || c == 0x7f:
			return false
		}
	}
	return true
}
