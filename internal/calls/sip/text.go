package sip

import "strings"

// Character classes of RFC 3261 §25.1.
var (
	tokenChar = charset("-.!%*_+`'~")
	// userChar: unreserved, user-unreserved; escapes are checked separately. "#" is never legal in a URI, but Teams and
	// many PBXs send it as dialled: it is accepted, and sent as %23.
	userChar = charset("-_.!~*'()&=+$,;?/#")
	// passwordChar: unreserved and the marks a password may hold.
	passwordChar = charset("-_.!~*'()&=+$,")
	// paramChar: paramchar of a URI parameter, and "#" as in userChar.
	paramChar = charset("-_.!~*'()[]/:&+$#")
	// uriHeaderChar: hname/hvalue of a URI's header part.
	uriHeaderChar = charset("-_.!~*'()[]/?:+$")
	hostChar      = charset("-.")
	// plainURI is what is written unescaped in a Request-URI.
	plainURI = func() (t [256]bool) {
		for c := range t {
			t[c] = c > ' ' && c != 0x7f && c != '#'
		}
		return t
	}()
)

// charset returns the set of letters, digits and extra.
func charset(extra string) (t [256]bool) {
	for c := '0'; c <= '9'; c++ {
		t[c] = true
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c], t[c-32] = true, true
	}
	for i := 0; i < len(extra); i++ {
		t[extra[i]] = true
	}
	return t
}

func all(s string, t *[256]bool) bool {
	for i := 0; i < len(s); i++ {
		if !t[s[i]] {
			return false
		}
	}
	return true
}

// allEscaped is all with %HH escapes allowed.
func allEscaped(s string, t *[256]bool) bool {
	for i := 0; i < len(s); i++ {
		if s[i] == '%' {
			if i+2 >= len(s) || hexVal(s[i+1]) < 0 || hexVal(s[i+2]) < 0 {
				return false
			}
			i += 2
			continue
		}
		if !t[s[i]] {
			return false
		}
	}
	return true
}

func isToken(s string) bool { return s != "" && all(s, &tokenChar) }

func isDigit(c byte) bool { return c-'0' <= 9 }

func isAlpha(c byte) bool { c |= 0x20; return c >= 'a' && c <= 'z' }

func hexVal(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// trim removes linear white space (spaces and tabs; folds have been removed before)
// from both ends.
func trim(s string) string {
	for len(s) > 0 && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for len(s) > 0 && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// parseUint parses a decimal number of at most max; ok is false for anything else.
func parseUint(s string, max uint64) (n uint64, ok bool) {
	if s == "" || len(s) > 20 {
		// Longer than any uint64; there is no use for more leading zeros.
		return 0, false
	}
	for i := 0; i < len(s); i++ {
		if !isDigit(s[i]) {
			return 0, false
		}
		d := uint64(s[i] - '0')
		if n > (max-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, true
}

// cutValue splits a header value at its first comma outside quoted strings and
// angle brackets. more reports whether there was a comma.
func cutValue(s string) (value, rest string, more bool) {
	if strings.IndexByte(s, ',') < 0 {
		return trim(s), "", false
	}
	i := scanTo(s, 0, ',')
	if i >= len(s) {
		return trim(s), "", false
	}
	return trim(s[:i]), trim(s[i+1:]), true
}

// scanTo returns the index of the first stop byte at or after i that is outside
// quoted strings and angle brackets, or len(s).
func scanTo(s string, i int, stop byte) int {
	for i < len(s) {
		switch c := s[i]; c {
		case stop:
			return i
		case '"':
			i = skipQuoted(s, i)
			continue
		case '<':
			j := strings.IndexByte(s[i:], '>')
			if j < 0 {
				return len(s)
			}
			i += j
		}
		i++
	}
	return len(s)
}

// quotedEnd returns the index after the quoted string that starts at i; ok is
// false, and the index len(s), if it has no end.
func quotedEnd(s string, i int) (end int, ok bool) {
	for i++; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1, true
		}
	}
	return len(s), false
}

// skipQuoted is quotedEnd for scanners that leave validation to others.
func skipQuoted(s string, i int) int {
	end, _ := quotedEnd(s, i)
	return end
}

// Unquote returns the text of a quoted-string (RFC 3261 §25.1) without its quotes
// and backslashes; anything else is returned unchanged.
func Unquote(s string) string {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return s
	}
	s = s[1 : len(s)-1]
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b = append(b, s[i])
	}
	return string(b)
}

var quoting = strings.NewReplacer(`"`, `\"`, `\`, `\\`, "\r", " ", "\n", " ")

// Quote returns text as a quoted-string. Line breaks become spaces.
func Quote(text string) string { return `"` + quoting.Replace(text) + `"` }

const upperHex = "0123456789ABCDEF"

// escapeURI percent-escapes what is never allowed in a Request-URI: white space, control characters and "#".
func escapeURI(s string) string {
	for i := 0; i < len(s); i++ {
		if plainURI[s[i]] {
			continue
		}
		b := append(make([]byte, 0, len(s)+8), s[:i]...)
		for ; i < len(s); i++ {
			if c := s[i]; plainURI[c] {
				b = append(b, c)
			} else {
				b = append(b, '%', upperHex[c>>4], upperHex[c&15])
			}
		}
		return string(b)
	}
	return s
}

// EscapeHash writes each "#" in the URIs of a header value, one address or a list of them, as %23 (RFC 3986 §2).
// Display names and header parameters are not changed.
func EscapeHash(v string) string {
	if strings.IndexByte(v, '#') < 0 {
		return v
	}
	b := make([]byte, 0, len(v)+8)
	angle, params := false, false
	for i := 0; i < len(v); i++ {
		switch c := v[i]; {
		case c == '"' && !angle:
			end := skipQuoted(v, i)
			b = append(b, v[i:end]...)
			i = end - 1
			continue
		case c == '<', c == '>':
			angle = c == '<'
		case (c == ';' || c == ',') && !angle:
			params = c == ';'
		case c == '#' && (angle || !params):
			b = append(b, "%23"...)
			continue
		}
		b = append(b, v[i])
	}
	return string(b)
}

// Unescape decodes %HH escapes (RFC 3986 §2.1); a bad escape stays as written.
func Unescape(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if h, l := hexVal(s[i+1]), hexVal(s[i+2]); h >= 0 && l >= 0 {
				b = append(b, byte(h<<4|l))
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}

// printable reports whether s contains no control characters, checking eight bytes
// at a time. Tabs count as control characters here; the slow path allows them.
func printable(s string) bool {
	const (
		ones = 0x0101010101010101
		high = 0x8080808080808080
		low  = ones * 0x20
		del  = ones * 0x7f
	)
	for len(s) >= 8 {
		x := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
			uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
		d := x ^ del
		if ((x-low)&^x|(d-ones)&^d)&high != 0 {
			return false
		}
		s = s[8:]
	}
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}
