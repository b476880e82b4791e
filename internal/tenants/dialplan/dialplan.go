// Package dialplan makes the normalisation rules of a Teams tenant dial plan for a country from libphonenumber's
// metadata, says what a plan makes of a dialled number, and checks plans that a person edited. It only computes:
// nothing is read or written.
//
//	rules, leftOut, err := dialplan.Rules(dialplan.Options{Country: "GB", AreaCode: "20", Emergency: []string{"933"}})
//	i, number := dialplan.Normalise(rules, "020 7946 0123") // +442079460123
//
// Teams tries the rules from the first to the last and applies the first that matches, so their order is part of the
// result. A number that no rule matches gets "+" and the country code of the user's usage location; a result without
// "+" is normalised once more (Microsoft, "Planning Teams dial plans"). Rules that keep a number therefore match what
// they return. No pattern begins with an optional token ("^0?…"), which some desk phones do not support (Microsoft,
// "Normalization rules").
package dialplan

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
)

// Limits of New-CsTenantDialPlan and New-CsVoiceNormalizationRule, in characters.
const (
	maxRules           = 50
	maxIdentity        = 49
	maxDescription     = 1040
	maxRuleDescription = 512
)

// Rule is one normalisation rule.
type Rule struct {
	Name        string // unique in the plan, whatever the case
	Description string
	Pattern     string // a .NET regular expression; see Check for the subset
	Translation string // the result: "+", digits, "$1" for the first group of the pattern
	// InternalExtension marks the result as a number inside the organisation.
	InternalExtension bool
}

// Options is what a plan depends on besides the metadata.
type Options struct {
	Country string // ISO 3166, e.g. "GB"
	// AreaCode is the area code within which numbers are dialled without it, as it follows the country code, e.g. "20".
	// Empty for none.
	AreaCode string
	// Extensions are the customer's ranges of extensions, which may not overlap.
	Extensions []Extensions
	// Emergency are the deployment's emergency dial strings, test numbers such as 933 included. Those of the country
	// are added.
	Emergency []string
}

// Extensions is a range of extensions.
type Extensions struct {
	Range string `json:"range"` // 2 to 5 digits, "x" for any digit at the end: "2xxx" is 2000 to 2999
	// Base is put before the extension: "+1425555" makes +14255550100 of 0100, "+3221231212;ext=" calls an extension
	// of one main number. If it is empty, the extension is kept and marked as internal.
	Base string `json:"base,omitempty"`
}

var (
	rangeForm     = regexp.MustCompile(`^[0-9]*x*$`)
	baseForm      = regexp.MustCompile(`^\+[1-9][0-9]{1,14}(;ext=)?$`)
	emergencyForm = regexp.MustCompile(`^[0-9]{1,10}$`) // as New-CsTeamsEmergencyNumber has it
)

// Rules makes the rules of a dial plan, at most 50, in their order. leftOut says in a sentence each what the plan does
// not do: extensions that are emergency numbers, short codes that extensions hide, rules beyond the limit.
func Rules(o Options) (rules []Rule, leftOut []string, err error) {
	c, err := countryOf(o.Country)
	if err != nil {
		return nil, nil, err
	}
	emergency, err := c.emergencyRule(o.Emergency)
	if err != nil {
		return nil, nil, err
	}
	extensions, err := extensionRules(o.Extensions)
	if err != nil {
		return nil, nil, err
	}
	others, err := c.rules(o.AreaCode)
	if err != nil {
		return nil, nil, err
	}

	for len(extensions) > maxRules-len(others)-1 {
		last := len(extensions) - 1
		leftOut = append(leftOut, fmt.Sprintf("%s: a plan has at most %d rules", extensions[last].Description,
			maxRules))
		extensions = extensions[:last]
	}
	leftOut = append(leftOut, hidden(o.Extensions, emergency.Pattern, pattern("", c.short))...)

	all := slices.Concat([]Rule{emergency}, extensions, others)
	first, done := explore(all)
	for i, r := range all {
		if !done || first[i] != "" { // else, for example, all short codes of the country are emergency numbers
			r.Name = o.Country + "-" + r.Name
			rules = append(rules, r)
		}
	}
	return rules, leftOut, nil
}

// CheckExtensions checks ranges of extensions, as Rules does.
func CheckExtensions(ranges []Extensions) error {
	_, err := extensionRules(ranges)
	return err
}

// extensionRules returns a rule for each base, whose ranges are merged.
func extensionRules(ranges []Extensions) (rules []Rule, err error) {
	for i, x := range ranges {
		at := fmt.Sprintf("extensions[%d]", i)
		if len(x.Range) < 2 || len(x.Range) > 5 || !rangeForm.MatchString(x.Range) {
			return nil, invalid(at, "%q is not a range of extensions of 2 to 5 digits, such as 2xxx", x.Range)
		}
		number, main := strings.CutSuffix(x.Base, ";ext=")
		if x.Base != "" && (!baseForm.MatchString(x.Base) || !main && len(number+x.Range) > domain.MaxDigits+1) {
			return nil, invalid(at, "%q is not the beginning of a number of at most %d digits, such as +1425555, or a "+
				"number and \";ext=\"", x.Base, domain.MaxDigits)
		}
		for _, y := range ranges[:i] {
			n := min(len(strings.TrimRight(x.Range, "x")), len(strings.TrimRight(y.Range, "x")))
			if len(x.Range) == len(y.Range) && x.Range[:n] == y.Range[:n] {
				return nil, invalid(at, "%s overlaps with %s; give each extension once", x.Range, y.Range)
			}
		}

		extension := strings.ReplaceAll(x.Range, "x", `\d`)
		j := slices.IndexFunc(rules, func(r Rule) bool { return r.Translation == x.Base+"$1" })
		if j < 0 {
			rules = append(rules, Rule{Name: fmt.Sprint("Extensions-", len(rules)+1), Pattern: pattern("", extension),
				Description: "Extensions " + x.Range, Translation: x.Base + "$1", InternalExtension: x.Base == ""})
			continue
		}
		rules[j].Pattern = strings.TrimSuffix(rules[j].Pattern, ")$") + "|" + extension + ")$"
		rules[j].Description = shorten(rules[j].Description + ", " + x.Range)
	}
	return rules, nil
}

// hidden returns sentences on extensions that are emergency numbers, and on short codes that are extensions.
func hidden(ranges []Extensions, emergency, short string) (texts []string) {
	isEmergency, isShort := regexp.MustCompile(emergency), regexp.MustCompile(short)
	var kept, lost []string
	for _, x := range ranges {
		codes := []string{strings.TrimRight(x.Range, "x")}
		for len(codes[0]) < len(x.Range) {
			codes = append(codes[1:], extended(codes[0])...)
		}
		for _, code := range codes {
			switch {
			case isEmergency.MatchString(code):
				kept = append(kept, code)
			case isShort.MatchString(code):
				lost = append(lost, code)
			}
		}
	}
	if kept != nil {
		texts = append(texts, shorten("not extensions, because they are emergency numbers: "+strings.Join(kept, ", ")))
	}
	if lost != nil {
		texts = append(texts, shorten("short codes that extensions hide: "+strings.Join(lost, ", ")))
	}
	return texts
}

// extended returns the strings that are one digit longer.
func extended(code string) (longer []string) {
	for d := range 10 {
		longer = append(longer, fmt.Sprint(code, d))
	}
	return longer
}

// pattern returns a pattern for prefix and then a number, which is its first group.
func pattern(prefix, number string) string {
	if strings.Contains(prefix, "|") {
		prefix = "(?:" + prefix + ")"
	}
	return "^" + prefix + "(" + number + ")$"
}

func shorten(s string) string {
	if len(s) > maxRuleDescription {
		return s[:maxRuleDescription-3] + "..."
	}
	return s
}

func invalid(target, format string, args ...any) error {
	return fault.New(fault.Invalid, "InvalidDialPlan", format, args...).At(target)
}
