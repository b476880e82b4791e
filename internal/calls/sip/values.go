package sip

import (
	"errors"
	"iter"
	"strings"
)

// Errors of the value parsers. The caller adds field and clause.
var (
	errEmpty    = errors.New("value is empty")
	errQuote    = errors.New("unterminated quoted string")
	errAngle    = errors.New("missing or unbalanced angle brackets")
	errDisplay  = errors.New("display name must be quoted or consist of tokens")
	errAfter    = errors.New("unexpected text after the address")
	errParam    = errors.New("malformed parameter")
	errVia      = errors.New("expected sent-protocol, sent-by and parameters")
	errProtocol = errors.New("protocol is not SIP/2.0")
	errCSeq     = errors.New("expected a number below 2^31 and a method")
	errHost     = errors.New("malformed host")
	errPort     = errors.New("port is not a number from 1 to 65535")
)

// Params is the text of generic parameters without the first semicolon:
// "tag=a73k;x=\"y\"" (RFC 3261 §25.1 generic-param).
type Params string

// cut splits off the first parameter.
func (p Params) cut() (name, value string, hasValue bool, rest Params) {
	s := string(p)
	i := 0
	if strings.IndexByte(s, '"') < 0 {
		if i = strings.IndexByte(s, ';'); i < 0 {
			i = len(s)
		}
	} else {
		for i < len(s) && s[i] != ';' {
			if s[i] == '"' {
				i = skipQuoted(s, i)
				continue
			}
			i++
		}
	}
	one := s[:i]
	if i < len(s) {
		rest = Params(s[i+1:])
	}
	name, value, hasValue = strings.Cut(one, "=")
	return trim(name), trim(value), hasValue, rest
}

// All yields name and value (as written, with quotes) of each parameter.
func (p Params) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for p != "" {
			n, v, _, rest := p.cut()
			if n != "" && !yield(n, v) {
				return
			}
			p = rest
		}
	}
}

// Get returns the value of the first parameter of that name (case-insensitive), as
// written. It is "" for a parameter without a value too.
func (p Params) Get(name string) (value string, ok bool) {
	for p != "" {
		n, v, _, rest := p.cut()
		if equalFold(n, name) {
			return v, true
		}
		p = rest
	}
	return "", false
}

// Has reports whether a parameter is present, with or without a value.
func (p Params) Has(name string) bool {
	_, ok := p.Get(name)
	return ok
}

// check checks the syntax of each parameter: token [= token / host / quoted-string].
func (p Params) check() error {
	for p != "" {
		n, v, has, rest := p.cut()
		if !isToken(n) || has && !genericValue(v) {
			return errParam
		}
		if rest == "" && strings.HasSuffix(string(p), ";") {
			return errParam // nothing after the semicolon
		}
		p = rest
	}
	return nil
}

// genericValue matches gen-value (RFC 3261 §25.1): token, host or quoted-string.
func genericValue(v string) bool {
	if v == "" {
		return false
	}
	switch v[0] {
	case '"':
		end, ok := quotedEnd(v, 0)
		return ok && end == len(v)
	case '[':
		return validHost(v)
	}
	return isToken(v) || paramValue(v)
}

// paramValue accepts more than token: real networks send ':' and '/' in parameters
// of From, To, Contact and Via, and RFC 3261 lets extensions define their own.
func paramValue(v string) bool {
	for i := 0; i < len(v); i++ {
		switch c := v[i]; {
		case c <= ' ', c == 0x7f, c == '"', c == '<', c == '>', c == ',', c == ';', c == '=':
			return false
		}
	}
	return true
}

// WithParam returns a header value with its header parameter name set to value, or
// removed if value is empty. The rest is kept byte for byte; parameters of a URI
// inside angle brackets are not touched.
func WithParam(headerValue, name, value string) string {
	s := headerValue
	for i := paramsAt(s); i < len(s); {
		// s[i] is the semicolon before a parameter.
		n, _, _, rest := Params(s[i+1:]).cut()
		end := len(s)
		if rest != "" {
			end = len(s) - len(rest) - 1
		} else if s[len(s)-1] == ';' && i < len(s)-1 {
			end = len(s) - 1 // leave a trailing semicolon for the next round, the last
		}
		if equalFold(n, name) {
			if value == "" {
				return s[:i] + s[end:]
			}
			return s[:i+1] + name + "=" + value + s[end:]
		}
		i = end
	}
	if value == "" {
		return s
	}
	return s + ";" + name + "=" + value
}

// paramsAt returns the index of the semicolon that begins the header parameters
// of an address value, or len(s).
func paramsAt(s string) int {
	if strings.IndexByte(s, '"') >= 0 {
		return scanTo(s, 0, ';')
	}
	i := strings.IndexByte(s, '<')
	if i >= 0 && strings.IndexByte(s[:i], ';') < 0 {
		j := strings.IndexByte(s[i:], '>')
		if j < 0 {
			return len(s)
		}
		i += j
	} else {
		i = 0
	}
	j := strings.IndexByte(s[i:], ';')
	if j < 0 {
		return len(s)
	}
	if i += j; strings.IndexByte(s[:i], '<') == strings.LastIndexByte(s[:i], '<') {
		return i
	}
	return scanTo(s, 0, ';') // more than one bracket: take the slow path
}

// NameAddr is an address with its display name: the value of From, To, Contact,
// Route, P-Asserted-Identity, Refer-To and similar fields (RFC 3261 §20.10).
type NameAddr struct {
	Display string // as written, with quotes; Unquote gives the text
	Addr    string // the URI as written, without angle brackets
	Params  Params // header parameters
	Angle   bool   // the URI is in angle brackets
}

// ParseNameAddr parses one address value (for lists see Message.Values). It checks
// the display name and the brackets; the method URI checks the URI.
func ParseNameAddr(s string) (NameAddr, error) {
	var a NameAddr
	s = trim(s)
	if s == "" {
		return a, errEmpty
	}
	rest := ""
	i := 0
	if s[0] == '"' {
		end, ok := quotedEnd(s, 0)
		if !ok {
			return a, errQuote
		}
		i = end
	}
	lt := strings.IndexByte(s[i:], '<')
	if lt >= 0 && i == 0 && strings.IndexByte(s[:lt], ';') >= 0 {
		lt = -1 // a display name has no semicolon: the bracket is in a quoted header parameter
	}
	if lt < 0 {
		if i > 0 {
			return a, errAngle
		}
		// addr-spec: parameters after it belong to the header (§20.10).
		if j := strings.IndexByte(s, ';'); j >= 0 {
			a.Addr, rest = trim(s[:j]), s[j:]
		} else {
			a.Addr = s
		}
		if strings.IndexByte(a.Addr, '>') >= 0 || strings.IndexByte(a.Addr, '"') >= 0 {
			return a, errAngle
		}
		if strings.IndexByte(a.Addr, ',') >= 0 || strings.IndexByte(a.Addr, '?') >= 0 {
			return a, errAngle // §20.10: such a URI must be in brackets
		}
	} else {
		lt += i
		a.Display, a.Angle = trim(s[:lt]), true
		if i > 0 && trim(s[i:lt]) != "" || i == 0 && !displayTokens(a.Display) {
			return a, errDisplay
		}
		gt := strings.IndexByte(s[lt:], '>')
		if gt < 0 {
			return a, errAngle
		}
		a.Addr, rest = s[lt+1:lt+gt], trim(s[lt+gt+1:])
	}
	if a.Addr == "" {
		return a, errEmpty
	}
	if rest == "" {
		return a, nil
	}
	if rest[0] != ';' {
		return a, errAfter
	}
	a.Params = Params(rest[1:])
	if a.Params == "" {
		return a, errParam
	}
	return a, nil
}

// displayTokens matches *(token LWS), the unquoted display name. Non-ASCII letters
// are accepted: much equipment writes names that way.
func displayTokens(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; !tokenChar[c] && c != ' ' && c != '\t' && c < 0x80 {
			return false
		}
	}
	return true
}

// URI parses the address.
func (a NameAddr) URI() (URI, error) { return ParseURI(a.Addr) }

// String returns the value in its usual form. (An unedited header line is printed
// as received.)
func (a NameAddr) String() string {
	s := a.Addr
	if a.Angle || a.Display != "" || strings.ContainsAny(a.Addr, ",;?") {
		s = "<" + s + ">"
	}
	if a.Display != "" {
		s = a.Display + " " + s
	}
	if a.Params != "" {
		s += ";" + string(a.Params)
	}
	return s
}

// Via is one Via value (RFC 3261 §20.42).
type Via struct {
	Transport string // as written: "UDP", "TCP", "TLS" …
	Host      string // sent-by host; an IPv6 address with its brackets
	Port      int    // sent-by port, 0 if absent
	Params    Params
}

// ParseVia parses one Via value.
func ParseVia(s string) (Via, error) {
	var v Via
	s = trim(s)
	if s == "" {
		return v, errEmpty
	}
	// sent-protocol = protocol-name SLASH protocol-version SLASH transport, with
	// white space allowed around the slashes.
	if strings.HasPrefix(s, "SIP/2.0/") {
		s = s[len("SIP/2.0/"):]
	} else {
		name, rest, ok := strings.Cut(s, "/")
		vers, rest, ok2 := strings.Cut(rest, "/")
		if !ok || !ok2 {
			return v, errVia
		}
		if !equalFold(trim(name), "SIP") || trim(vers) != "2.0" {
			if !isToken(trim(name)) || !isToken(trim(vers)) {
				return v, errVia
			}
			return v, errProtocol
		}
		s = trim(rest)
	}
	i := 0
	for i < len(s) && tokenChar[s[i]] {
		i++
	}
	if i == 0 || i == len(s) || s[i] != ' ' && s[i] != '\t' {
		return v, errVia
	}
	v.Transport, s = s[:i], trim(s[i:])
	by := s
	if j := strings.IndexByte(s, ';'); j >= 0 {
		by, v.Params = trim(s[:j]), Params(s[j+1:])
		if v.Params == "" {
			return v, errParam
		}
	}
	var err error
	v.Host, v.Port, err = splitHostPort(by)
	return v, err
}

// Branch returns the branch parameter.
func (v Via) Branch() string { b, _ := v.Params.Get("branch"); return b }

// RPort returns the rport parameter (RFC 3581). ok reports whether it is present;
// port is 0 if it has no value or an invalid one.
func (v Via) RPort() (port int, ok bool) {
	s, ok := v.Params.Get("rport")
	n, _ := parseUint(s, 65535)
	return int(n), ok
}

// CSeq is the value of a CSeq line (RFC 3261 §20.16).
type CSeq struct {
	Seq    uint32 // below 2^31
	Method Method
}

// ParseCSeq parses a CSeq value.
func ParseCSeq(s string) (CSeq, error) {
	i := 0
	for i < len(s) && isDigit(s[i]) {
		i++
	}
	n, ok := parseUint(s[:i], 1<<31-1)
	if !ok || i == len(s) || s[i] != ' ' && s[i] != '\t' {
		return CSeq{}, errCSeq
	}
	word := trim(s[i:])
	if k := knownMethod(word); k != "" {
		return CSeq{uint32(n), k}, nil
	}
	if !isToken(word) {
		return CSeq{}, errCSeq
	}
	return CSeq{uint32(n), Method(word)}, nil
}

// String returns the value as it is printed.
func (c CSeq) String() string { return itoa(int(c.Seq)) + " " + string(c.Method) }

// TopVia parses the first Via value.
func (m *Message) TopVia() (Via, error) { return ParseVia(m.First(KindVia)) }

// To parses the To line.
func (m *Message) To() (NameAddr, error) { return ParseNameAddr(m.Get(KindTo)) }

// Contact parses the first Contact value. A lone "*" (REGISTER) has Addr "*".
func (m *Message) Contact() (NameAddr, error) { return ParseNameAddr(m.First(KindContact)) }

// Target returns the first Contact URI as a Request-URI, which has neither a headers part nor a method parameter
// (RFC 3261 §19.1.1, table 1). ok is false if Contact is missing, "*", malformed, or not a sip or sips URI.
func (m *Message) Target() (uri string, ok bool) {
	a, err := m.Contact()
	if err != nil {
		return "", false
	}
	u, err := a.URI()
	if err != nil || !u.IsSIP() {
		return "", false
	}
	uri = a.Addr
	if u.Headers != "" {
		uri = uri[:len(uri)-len(u.Headers)-1]
	}
	if u.Params.Has("method") {
		base := uri[:len(uri)-len(u.Params)-1]
		uri = base + WithParam(";"+string(u.Params), "method", "")
	}
	return escapeURI(uri), true
}

// CSeq parses the CSeq line.
func (m *Message) CSeq() (CSeq, error) { return ParseCSeq(m.Get(KindCSeq)) }

// CallID returns the Call-ID value, "" if there is none.
func (m *Message) CallID() string { return m.Get(KindCallID) }

// FromTag returns the tag of the From line, "" if there is none.
func (m *Message) FromTag() string { return tagOf(m.Get(KindFrom)) }

// ToTag returns the tag of the To line, "" if there is none.
func (m *Message) ToTag() string { return tagOf(m.Get(KindTo)) }

func tagOf(value string) string {
	i := paramsAt(value)
	if i >= len(value) {
		return ""
	}
	t, _ := Params(value[i+1:]).Get("tag")
	return t
}

// MaxForwards returns the Max-Forwards value; ok is false if it is missing or not
// a number from 0 to 255.
func (m *Message) MaxForwards() (n int, ok bool) {
	v, ok := parseUint(m.Get(KindMaxForwards), 255)
	return int(v), ok
}

// HasOption reports whether a list field such as Supported, Require or Allow
// contains a token, in any case.
func (m *Message) HasOption(k Kind, tag string) bool {
	for v := range m.Values(k) {
		if equalFold(v, tag) {
			return true
		}
	}
	return false
}
