package route

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tandemgw/tandem/internal/domain"
)

// Numbers says how the numbers that a peer group writes without "+" become E.164: called and calling numbers of its
// INVITEs alike. Emergency numbers stay as dialled. The zero value changes nothing.
type Numbers struct {
	// PhoneContext joins a local number to its phone-context where that is a global prefix (RFC 3966 §5.1.5):
	// "tel:2079460123;phone-context=+44" is then +442079460123. Default false: the context is ignored.
	PhoneContext bool `yaml:"phoneContext"`
	// Prefixes turn what begins numbers into a country code; the first that fits a number counts. Default none.
	Prefixes []Prefix `yaml:"prefixes"`
}

// Prefix is one rule of Numbers.
type Prefix struct {
	// Prefix is what the number begins with, such as "0" or "00"; at most 15 digits. Empty, the default, fits any
	// number.
	Prefix string `yaml:"prefix"`
	// Digits is how many digits the number has, the prefix included: 1 to 15. Default 0: any. Required with an empty
	// prefix, or short numbers of the network would become others' numbers.
	Digits int `yaml:"digits"`
	// Replace takes the prefix's place: "+" and the digits of a country code and perhaps area code, such as "+44";
	// "+" alone where the number goes on with its country code. Required. What would not be E.164 then is not
	// changed.
	Replace string `yaml:"replace"`
}

// Validate returns every mistake as path below the rules and text.
func (n *Numbers) Validate(bad func(path, format string, args ...any)) {
	for i, p := range n.Prefixes {
		at := fmt.Sprintf("prefixes[%d]", i)
		if p.Prefix != "" && !digits(p.Prefix, 1, domain.MaxDigits) {
			bad(at+".prefix", "%q is not 1 to %d digits", p.Prefix, domain.MaxDigits)
		}
		if p.Digits < 0 || p.Digits > domain.MaxDigits || p.Prefix == "" && p.Digits == 0 {
			bad(at+".digits", "%d is out of range: 1 to %d, or 0 for any with a prefix", p.Digits, domain.MaxDigits)
		}
		if rest, plus := strings.CutPrefix(p.Replace, "+"); !plus || rest != "" && (!digits(rest, 1, 12) || rest[0] == '0') {
			bad(at+".replace", "%q is not \"+\" and a country code such as \"+44\"", p.Replace)
		}
	}
}

// None reports whether there are no rules.
func (n *Numbers) None() bool { return !n.PhoneContext && len(n.Prefixes) == 0 }

// E164 returns a number without "+" as E.164; ok is false where no rule fits or the outcome would not be E.164. context
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
		if rest, ok := strings.CutPrefix(number, p.Prefix); ok && rest != "" && (p.Digits == 0 || len(number) == p.Digits) {
			e, err := domain.ParseE164(p.Replace + rest)
			return e, err == nil
		}
	}
	return "", false
}

// numbers reads the facts' numbers by the rules of the group the call came from.
func (x *decision) numbers(n *Numbers) {
	if n.None() {
		return
	}
	if e, ok := n.E164(x.f.Called, x.f.CalledContext); ok && !x.p.Emergency(x.f.Called) {
		if x.rec != nil {
			x.rec.add(RuleNumbers, Note, "the called number is "+string(e)+" by the rules of the peer group",
				Fact{"called", x.f.Called})
		}
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
