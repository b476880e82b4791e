package route

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tandemgw/tandem/internal/domain"
)

// Numbers defines how numbers that a peer group sends without "+" are converted to E.164: both called and calling
// numbers of its INVITEs. Emergency numbers stay as dialled. The zero value changes nothing.
type Numbers struct {
	// PhoneContext puts the phone-context before a local number if it is a global prefix (RFC 3966 §5.1.5):
	// "tel:2079460123;phone-context=+44" becomes +442079460123. Default false: the context is ignored.
	PhoneContext bool `yaml:"phoneContext"`
	// Prefixes replace the beginning of numbers by a country code; the first rule that matches a number applies.
	// Default none.
	Prefixes []Prefix `yaml:"prefixes"`
}

// Prefix is one rule of Numbers.
type Prefix struct {
	// Prefix is the beginning of the number, such as "0" or "00"; at most 15 digits. Empty, the default, matches any
	// number.
	Prefix string `yaml:"prefix"`
	// Digits is the number of digits, including the prefix: 1 to 15. Default 0: any. It is required with an empty
	// prefix; without it, short numbers of the network would become other subscribers' numbers.
	Digits int `yaml:"digits"`
	// Replace replaces the prefix: "+" and the digits of a country code, possibly with an area code, such as "+44"; "+"
	// alone if the rest of the number begins with its country code. Required. A number that would not be E.164 then is
	// not changed.
	Replace string `yaml:"replace"`
}

// Validate calls bad for every mistake, with a path relative to the rules and a text.
func (n *Numbers) Validate(bad func(path, format string, args ...any)) {
	for i, p := range n.Prefixes {
		at := fmt.Sprintf("prefixes[%d]", i)
		if p.Prefix != "" && !digits(p.Prefix, 1, domain.MaxDigits) {
			bad(at+".prefix", "%q is not 1 to %d digits", p.Prefix, domain.MaxDigits)
		}
		if p.Digits < 0 || p.Digits > domain.MaxDigits || p.Prefix == "" && p.Digits == 0 {
			bad(at+".digits", "%d is out of range: 1 to %d, or 0 for any with a prefix", p.Digits, domain.MaxDigits)
		}
		if rest, plus := strings.CutPrefix(p.Replace, "+"); !plus || rest != "" &&
			(!digits(rest, 1, 12) || rest[0] == '0') {
			bad(at+".replace", "%q is not \"+\" and a country code such as \"+44\"", p.Replace)
		}
	}
}

// None reports whether there are no rules.
func (n *Numbers) None() bool { return !n.PhoneContext && len(n.Prefixes) == 0 }

// E164 converts a number without "+" to E.164; ok is false if no rule matches or the result would not be E.164. context
// is its phone-context without visual separators, empty if it has none.
func (n *Numbers) E164(number, context string) (e domain.E164, ok bool) {
	if strings.HasPrefix(number, "+") {
		return "", false
	}
	if n.PhoneContext && strings.HasPrefix(context, "+") {
		e, err := domain.ParseE164(context + number)
		return e, err == nil
	}
	for _, p := range n.Prefixes {
		if rest, ok := strings.CutPrefix(number, p.Prefix); ok && rest != "" &&
			(p.Digits == 0 || len(number) == p.Digits) {
			e, err := domain.ParseE164(p.Replace + rest)
			return e, err == nil
		}
	}
	return "", false
}

// numbers converts the facts' numbers by the rules of the peer group that the call came from.
func (x *decision) numbers(n *Numbers) {
	if n.None() {
		return
	}
	if e, ok := n.E164(x.f.Called, x.f.CalledContext); ok && !x.p.Emergency(x.f.Called) {
		x.note(RuleNumbers, Note, sentence{"the called number is ", string(e), " by the rules of the peer group"},
			Fact{"called", x.f.Called})
		x.f.Called, x.d.Called = string(e), e
	}
	read := func(p domain.Party) domain.Party {
		if e, ok := n.E164(p.Text, p.Context); ok {
			p.Number = e
		}
		return p
	}
	x.f.From, x.f.ReferredBy = read(x.f.From), read(x.f.ReferredBy)
	x.f.Asserted, x.f.History = slices.Clone(x.f.Asserted), slices.Clone(x.f.History)
	for i := range x.f.Asserted {
		x.f.Asserted[i] = read(x.f.Asserted[i])
	}
	for i := range x.f.History {
		x.f.History[i] = read(x.f.History[i])
	}
}
