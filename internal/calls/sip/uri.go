package sip

import (
	"errors"
	"net/netip"
	"strings"
)

// Scheme is the scheme of a URI.
type Scheme uint8

// The known schemes. SchemeOther is any other well-formed one.
const (
	SchemeOther Scheme = iota
	SchemeSIP
	SchemeSIPS
	SchemeTel
)

// URI is a parsed sip, sips or tel URI. The fields hold the text as written,
// escapes included; the whole text is kept too, so that a URI is passed on
// unchanged.
type URI struct {
	Scheme   Scheme
	raw      string
	User     string // sip: user part with its own parameters; tel: the subscriber number
	Password string // sip only, without its colon
	HasUser  bool   // there is an '@'
	Host     string // an IPv6 address with its brackets; "" for tel
	Port     int    // 0 if absent
	Params   Params // URI parameters
	Headers  string // the part after '?', sip only
}

var (
	errScheme = errors.New("URI has no scheme")
	errUser   = errors.New("malformed user part")
	errTel    = errors.New("malformed telephone number")
	errURI    = errors.New("malformed URI")
)

// ParseURI parses a URI (RFC 3261 §19.1, §25.1; RFC 3966 §3). A well-formed URI of
// another scheme is returned with SchemeOther and only its text.
func ParseURI(s string) (URI, error) {
	u := URI{raw: s}
	var rest string
	switch {
	case len(s) > 4 && s[3] == ':' && (s[:3] == "sip" || equalFold(s[:3], "sip")):
		u.Scheme, rest = SchemeSIP, s[4:]
	case len(s) > 5 && s[4] == ':' && equalFold(s[:4], "sips"):
		u.Scheme, rest = SchemeSIPS, s[5:]
	case len(s) > 4 && s[3] == ':' && equalFold(s[:3], "tel"):
		return u.parseTel(s[4:])
	default:
		return u, checkOther(s)
	}
	// Host, port, URI parameters and headers must not contain '@', so the last one
	// ends the user part.
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		u.HasUser = true
		u.User = rest[:at]
		rest = rest[at+1:]
		if c := strings.IndexByte(u.User, ':'); c >= 0 {
			u.User, u.Password = u.User[:c], u.User[c+1:]
			if !allEscaped(u.Password, &passwordChar) {
				return u, errUser
			}
		}
		if u.User == "" || !allEscaped(u.User, &userChar) {
			return u, errUser
		}
	}
	if q := strings.IndexByte(rest, '?'); q >= 0 {
		u.Headers = rest[q+1:]
		rest = rest[:q]
		if err := checkURIHeaders(u.Headers); err != nil {
			return u, err
		}
	}
	if semi := strings.IndexByte(rest, ';'); semi >= 0 {
		u.Params = Params(rest[semi+1:])
		rest = rest[:semi]
		if err := checkURIParams(string(u.Params)); err != nil {
			return u, err
		}
	}
	if strings.IndexByte(rest, ' ') >= 0 || strings.IndexByte(rest, '\t') >= 0 {
		return u, errHost // allowed in a Via's sent-by only
	}
	var err error
	u.Host, u.Port, err = splitHostPort(rest)
	return u, err
}

// checkOther checks that s begins with a scheme and has no character that is never
// allowed in a URI (RFC 3986 §2).
func checkOther(s string) error {
	c := strings.IndexByte(s, ':')
	if c <= 0 || !isAlpha(s[0]) {
		return errScheme
	}
	for i := 0; i < c; i++ {
		if b := s[i]; !isAlpha(b) && !isDigit(b) && b != '+' && b != '-' && b != '.' {
			return errScheme
		}
	}
	switch strings.ToLower(s[:c]) {
	case "sip", "sips", "tel":
		return errURI // nothing after the colon
	}
	for i := c; i < len(s); i++ {
		if b := s[i]; b <= ' ' || b >= 0x7f || b == '<' || b == '>' || b == '"' {
			return errURI
		}
	}
	return nil
}

// parseTel parses a tel URI (RFC 3966): number, then ";name[=value]" parameters.
func (u URI) parseTel(s string) (URI, error) {
	u.Scheme = SchemeTel
	u.User = s
	if semi := strings.IndexByte(s, ';'); semi >= 0 {
		u.User, u.Params = s[:semi], Params(s[semi+1:])
		if err := checkURIParams(string(u.Params)); err != nil {
			return u, err
		}
	}
	digits := 0
	for i := 0; i < len(u.User); i++ {
		switch c := u.User[i]; {
		case isDigit(c):
			digits++
		case c == '+':
			if i != 0 {
				return u, errTel
			}
		case c == '-' || c == '.' || c == '(' || c == ')':
		case c == '*' || c == '#' || hexVal(c) >= 0:
			if u.User[0] == '+' {
				return u, errTel // §3: allowed in local numbers only
			}
			digits++
		case c == '%' && allEscaped(u.User[i:min(i+3, len(u.User))], &hostChar):
			i += 2 // an escaped "#"; TelephoneNumber rejects other characters
			digits++
		default:
			return u, errTel
		}
	}
	if digits == 0 {
		return u, errTel
	}
	return u, nil
}

func checkURIParams(s string) error {
	for more := true; more; {
		var one string
		one, s, more = strings.Cut(s, ";")
		name, value, has := strings.Cut(one, "=")
		if name == "" || !allEscaped(name, &paramChar) || has && (value == "" || !allEscaped(value, &paramChar)) {
			return errParam
		}
	}
	return nil
}

func checkURIHeaders(s string) error {
	for more := true; more; {
		var one string
		one, s, more = strings.Cut(s, "&")
		name, value, has := strings.Cut(one, "=")
		if name == "" || !has || !allEscaped(name, &uriHeaderChar) || !allEscaped(value, &uriHeaderChar) {
			return errURI
		}
	}
	return nil
}

// splitHostPort parses hostport (RFC 3261 §25.1). White space around the colon is
// allowed, as in a Via's sent-by.
func splitHostPort(s string) (host string, port int, err error) {
	host = s
	portText, has := "", false
	if s != "" && s[0] == '[' {
		i := strings.IndexByte(s, ']')
		if i < 0 {
			return "", 0, errHost
		}
		host = s[:i+1]
		if after := trim(s[i+1:]); after != "" {
			if after[0] != ':' {
				return "", 0, errHost
			}
			portText, has = trim(after[1:]), true
		}
	} else if i := strings.IndexByte(s, ':'); i >= 0 {
		host, portText, has = trim(s[:i]), trim(s[i+1:]), true
	}
	if has {
		n, ok := parseUint(portText, 65535)
		if !ok || n == 0 || len(portText) > 5 {
			return "", 0, errPort
		}
		port = int(n)
	}
	if !validHost(host) {
		return "", 0, errHost
	}
	return host, port, nil
}

// validHost matches host: a name, an IPv4 address or a bracketed IPv6 address.
// Underscores are accepted: they are illegal, but many private networks use them.
func validHost(h string) bool {
	if h == "" || len(h) > 255 {
		return false
	}
	if h[0] == '[' {
		if h[len(h)-1] != ']' {
			return false
		}
		a, err := netip.ParseAddr(h[1 : len(h)-1])
		return err == nil && a.Is6() && a.Zone() == ""
	}
	for i := 0; i < len(h); i++ {
		c := h[i]
		if !hostChar[c] && c != '_' {
			return false
		}
		if c == '.' && (i == 0 || h[i-1] == '.') {
			return false
		}
	}
	return h[0] != '-'
}

// String returns the URI as it was written.
func (u URI) String() string { return u.raw }

// IsSIP reports whether the URI is a sip or sips URI.
func (u URI) IsSIP() bool { return u.Scheme == SchemeSIP || u.Scheme == SchemeSIPS }

// Param returns a URI parameter's value with escapes decoded, and whether it is
// present. Names are case-insensitive (RFC 3261 §19.1.4).
func (u URI) Param(name string) (value string, ok bool) {
	v, ok := u.Params.Get(name)
	return Unescape(v), ok
}

// UserOnly returns the user part up to its first semicolon, decoded: the part
// before the telephone-subscriber parameters of RFC 3966 in a SIP URI.
func (u URI) UserOnly() string {
	user, _, _ := strings.Cut(u.User, ";")
	return Unescape(user)
}

// UserParams returns the parameters inside a SIP URI's user part, such as
// "rn=+1…;npdi" (RFC 3261 §19.1.6, RFC 4694); for tel, the URI's parameters.
func (u URI) UserParams() Params {
	if u.Scheme == SchemeTel {
		return u.Params
	}
	_, p, _ := strings.Cut(u.User, ";")
	return Params(p)
}

// TelephoneNumber returns the number to look up: "+" and digits for a global
// number, the dial string ("911") for a local one. Visual separators are removed,
// escapes are decoded, and all parameters are ignored (";rn=", ";npdi", ";ext=",
// ";phone-context=", ";isub=", "verstat" and others); the URI's own text keeps them.
// ok is false if the user part is not a telephone number. A space, escaped or not,
// is not a visual separator. RFC 3966 §3, RFC 3261 §19.1.6.
func (u URI) TelephoneNumber() (number string, ok bool) {
	if u.Scheme == SchemeOther || u.User == "" {
		return "", false
	}
	user := u.User
	if i := strings.IndexByte(user, ';'); i >= 0 {
		user = user[:i]
	}
	clean := true
	for i := 0; i < len(user); i++ {
		if !isDigit(user[i]) && (i != 0 || user[i] != '+') {
			clean = false
			break
		}
	}
	if clean {
		return user, user != "" && user != "+"
	}
	user = Unescape(user)
	if i := strings.IndexByte(user, ';'); i >= 0 {
		user = user[:i] // an escaped semicolon begins parameters too
	}
	b := make([]byte, 0, len(user))
	digits := 0
	for i := 0; i < len(user); i++ {
		switch c := user[i]; {
		case isDigit(c):
			b = append(b, c)
			digits++
		case c == '+' && len(b) == 0:
			b = append(b, c)
		case c == '-' || c == '.' || c == '(' || c == ')':
		case (c == '*' || c == '#') && (len(b) == 0 || b[0] != '+'):
			b = append(b, c)
			digits++
		default:
			return "", false
		}
	}
	if digits == 0 {
		return "", false
	}
	return string(b), true
}

// RURI parses the Request-URI.
func (m *Message) RURI() (URI, error) { return ParseURI(m.uri) }
