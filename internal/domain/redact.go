package domain

import (
	"log/slog"
	"net/netip"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Phone numbers are personal data: a log shows enough of a number to follow a call, not enough to call it. The types
// that hold numbers, E164, Dialled and Text, redact themselves as log values.

// Dialled is a number in the form a peer wrote it: national, with separators, or a dial string.
type Dialled string

// Text is text that may contain phone numbers, such as the reason for a refusal.
type Text string

// LogValue makes slog print the redacted form.
func (d Dialled) LogValue() slog.Value { return slog.StringValue(d.Redacted()) }

// LogValue makes slog print the text redacted.
func (t Text) LogValue() slog.Value { return slog.StringValue(Redact(string(t))) }

// A run of digits counts as a phone number if it is long enough; a shorter run is a short code. Groups of digits
// without "+" need as many digits as a complete national number, so that a date does not count.
const (
	leastDigits   = 7
	leastGrouped  = 10
	shownOfGroups = 7 // digits shown of a number in groups, whose end is ambiguous
)

// Redacted hides the last four digits of a number of seven digits or more, wherever its separators are.
func (d Dialled) Redacted() string {
	digits, cut, end := 0, 0, 0 // d[cut:end] holds the last four
	for i := len(d) - 1; i >= 0; i-- {
		if !digit(d[i]) {
			continue
		}
		if digits++; digits == 1 {
			end = i + 1
		}
		if digits == 4 {
			cut = i
		}
	}
	if digits < leastDigits {
		return string(d)
	}
	return string(d[:cut]) + "…" + string(d[end:])
}

// Redact hides the ends of all phone numbers in s: runs of 7 to 15 digits (of any length after "+" or with a leading
// 0), whatever surrounds them, and groups of digits in the usual notations: "+1 (555) 123-9987", "555.123.9987". It
// leaves digits that are not phone numbers unchanged: UUIDs and digests, decimal fractions, IP addresses, dates and the
// tags of SIP dialogs.
func Redact(s string) string {
	var b strings.Builder
	kept := 0 // s[:kept] is in b
	for i := 0; i < len(s); {
		if word := i == 0 || !alnum(s[i-1]); word {
			if n := identifier(s[i:]); n > 0 {
				i += n
				continue
			}
		}
		if !digit(s[i]) && s[i] != '+' {
			i++
			continue
		}
		from, to, next := number(s, i)
		if from < to {
			b.WriteString(s[kept:from])
			b.WriteString("…")
			kept = to
		}
		i = next
	}
	if kept == 0 {
		return s
	}
	b.WriteString(s[kept:])
	return b.String()
}

// number examines the digits that begin at s[i], after an optional "+". It returns the part to hide, s[from:to], which
// is empty if they are not a phone number, and the index at which to continue.
func number(s string, i int) (from, to, next int) {
	plus := s[i] == '+'
	if plus {
		i++
	}
	first := run(s, i)
	if n := first; n >= leastDigits {
		end := i + n
		switch {
		case strings.HasPrefix(s[end:], "…"): // redacted already
		case plus, s[i] == '0', n <= MaxDigits && !other(s, i, end):
			return end - 4, end, end
		}
		return 0, 0, end
	}

	// Groups of digits: up to the first run that is a number by itself or, without "+", a different separator.
	digits, groups, kind, end := first, 1, byte(0), i+first
	for {
		sep := separator(s[end:], plus || groups == 1 && i > 0 && s[i-1] == '(')
		n := run(s, end+sep)
		if sep == 0 || n == 0 || n >= leastDigits || digits+n > MaxDigits || !plus && kind != 0 && s[end] != kind {
			break
		}
		if s[end] != ')' {
			kind = s[end]
		}
		end += sep + n
		digits += n
		groups++
	}
	ip, err := netip.ParseAddr(s[i:end])
	switch {
	case strings.HasPrefix(strings.TrimLeft(s[end:], separators), "…"): // redacted already
	case plus && digits >= leastDigits,
		digits >= leastGrouped && (groups > 2 || s[i] == '0') && (err != nil || !ip.Is4()):
		shown := min(shownOfGroups, digits-4)
		for from = i; shown > 0; from++ {
			if digit(s[from]) {
				shown--
			}
		}
		for !digit(s[from]) {
			from++
		}
		return from, end, end
	}
	return 0, 0, max(end, i)
}

// other reports whether the digits s[i:end] are something other than a phone number.
func other(s string, i, end int) bool {
	before, after := s[:i], s[end:]
	fraction := i >= 2 && s[i-1] == '.' && digit(s[i-2])
	decimal := len(after) > 1 && after[0] == '.' && digit(after[1])
	stamp := end-i == 8 && len(after) > 1 && after[0] == 'T' && digit(after[1])
	return fraction || decimal || stamp || strings.HasSuffix(before, "tag=") || strings.HasSuffix(before, "branch=")
}

// separators are the characters that may separate the digits of a number.
const separators = " -._()/"

// separator returns the length of the separator between two groups of a number at the beginning of s, or 0 if there is
// none. Spaces, slashes and parentheses count only if spaced is set.
func separator(s string, spaced bool) int {
	n := 0
	for n < len(s) && n < 3 && strings.IndexByte(separators, s[n]) >= 0 &&
		(spaced || strings.IndexByte("-._", s[n]) >= 0) {
		n++
	}
	return n
}

// identifier returns the length of a UUID, a hexadecimal digest or a hexadecimal number at the beginning of s, or 0.
func identifier(s string) int {
	n := 0
	hex := true
	for n < len(s) && alnum(s[n]) {
		hex = hex && (digit(s[n]) || s[n]|0x20 >= 'a' && s[n]|0x20 <= 'f')
		n++
	}
	switch {
	case n > 2 && s[0] == '0' && s[1] == 'x', hex && (n == 32 || n == 40 || n == 64):
		return n
	case hex && n == 8 && len(s) >= 36 && s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-':
		return 36
	}
	return 0
}

// run returns the number of consecutive digits at s[i].
func run(s string, i int) int {
	n := 0
	for i+n < len(s) && digit(s[i+n]) {
		n++
	}
	return n
}

func digit(c byte) bool { return c >= '0' && c <= '9' }
func alnum(c byte) bool { return digit(c) || c|0x20 >= 'a' && c|0x20 <= 'z' }

// person matches user principal names and mail addresses, and the display names of contacts as Tandem quotes them.
var person = regexp.MustCompile(`([\pL\pN][\pL\pN._%+'#-]*)@([\pL\pN-]+(?:\.[\pL\pN-]+)+)|ontact "[^"]*"`)

// RedactPeople hides the names of people in s as well as phone numbers. Of a user principal name the first letter and
// the domain stay. Activation users (tandem.teams@…) are nobody's.
func RedactPeople(s string) string {
	return Redact(person.ReplaceAllStringFunc(s, func(name string) string {
		local, host, ok := strings.Cut(name, "@")
		switch {
		case !ok:
			return `ontact "…"`
		case strings.EqualFold(local, "tandem.teams"):
			return name
		}
		_, first := utf8.DecodeRuneInString(local)
		return local[:first] + "…@" + host
	}))
}
