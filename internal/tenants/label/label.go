// Package label proposes the Direct Routing label of a customer from the initial domain of its tenant, and checks one
// that a person chose instead. It writes nothing: a proposal is shown before it is used, and can be changed.
//
//	l, err := label.Propose("muellerbau-gmbh.onmicrosoft.com", "gw.example.com", taken) // "muellerbau"
package label

import (
	"regexp"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
)

const (
	// fallback is the label of a tenant whose name has no character that a label may have.
	fallback = "tenant"
	// shortest is the minimum length of what a cut at a hyphen leaves: "a" says less than "a-verylong".
	shortest = 3
	// lastDigits bounds the search for a free label.
	lastDigits = 9999
)

// trunkRegion are the region labels of Direct Routing, older ones too.
var trunkRegion = regexp.MustCompile(`^[0-9]+-?r[0-9]+$`)

// letters are the usual spellings of letters that are more than a base letter with a mark.
var letters = strings.NewReplacer("ä", "ae", "ö", "oe", "ü", "ue", "ß", "ss", "æ", "ae", "ø", "oe", "å", "aa",
	"œ", "oe", "þ", "th", "ð", "d", "đ", "d", "ł", "l", "ı", "i", "_", "-", " ", "-")

// Check checks a label that a person chose, for names below a base domain. It does not know the labels of other
// accounts.
func Check(label, base string) error {
	if err := domain.CheckLabel(label, base); err != nil {
		return fault.New(fault.Invalid, "InvalidLabel", "%v", err).At("label")
	}
	if reserved(strings.ToLower(label)) {
		return fault.New(fault.Invalid, "ReservedLabel", "%q is a name of the gateway itself; choose another label",
			label).At("label")
	}
	return nil
}

// Propose returns a free label for the tenant with an initial domain: its first label in lower case, letters outside
// a–z replaced by their usual spelling, cut at a hyphen to the contract's bound, and with a number from 2 if it is
// reserved or taken. Digits may come first: a host label allows it (RFC 1123 §2.1). taken reports whether an account
// has a label, which it receives in lower case; its errors are returned.
func Propose(initial, base string, taken func(label string) (bool, error)) (string, error) {
	bound := domain.LabelBound(base)
	if bound < 1 {
		return "", fault.New(fault.Invalid, "InvalidLabel", "the base domain %s is too long for any label", base)
	}

	name := spell(initial)
	if name == "" {
		name = fallback
	}
	for n := 1; n <= lastDigits; n++ {
		l := numbered(name, n, bound)
		if l == "" {
			break
		}
		if reserved(l) {
			continue
		}
		used, err := taken(l)
		if err != nil {
			return "", err
		}
		if !used {
			return l, nil
		}
	}
	return "", fault.New(fault.Conflict, "NoFreeLabel", "no label of at most %d characters made from %q is free; "+
		"choose one", bound, initial).At("label")
}

// spell returns the first label of a domain with the characters of a host label only; it may be empty.
func spell(initial string) string {
	name, _, _ := strings.Cut(strings.ToLower(strings.TrimSpace(initial)), ".")
	if u, err := idna.Punycode.ToUnicode(name); err == nil {
		name = u
	}

	var b strings.Builder
	for _, r := range norm.NFKD.String(letters.Replace(norm.NFC.String(strings.ToLower(name)))) {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			b.WriteRune(r)
		case unicode.Is(unicode.Pd, r) && b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-') // once: "--" marks encoded names
		}
	}
	return strings.TrimRight(b.String(), "-")
}

// numbered returns name cut to bound with its number, which is not written for the first. It is empty if the number
// does not fit.
func numbered(name string, n, bound int) string {
	if n == 1 {
		return cut(name, bound)
	}
	digits := strconv.Itoa(n)
	if c := name[len(name)-1]; '0' <= c && c <= '9' && len(name) < bound || reserved(name+digits) {
		digits = "-" + digits // area51-2, not area512; r-2, not r2
	}
	if len(digits) >= bound {
		return ""
	}
	return cut(name, bound-len(digits)) + digits
}

// cut cuts name to bound, at a hyphen if that leaves enough.
func cut(name string, bound int) string {
	if len(name) <= bound {
		return name
	}
	if i := strings.LastIndexByte(name[:bound+1], '-'); i >= shortest {
		return name[:i]
	}
	return strings.TrimRight(name[:bound], "-")
}

// reserved reports whether a label in lower case is confusable with a name that the zone has for another purpose.
func reserved(label string) bool {
	return domain.OwnHost(label) || domain.OwnRegion(label) || trunkRegion.MatchString(label)
}
