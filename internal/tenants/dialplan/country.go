package dialplan

import (
	"cmp"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"sync"

	"github.com/nyaruka/phonenumbers"
)

// country holds the metadata of a country. The fields are patterns without groups, empty for none.
type country struct {
	code          string // the country code, digits
	trunk         string // the trunk prefix
	international string // the international prefixes, those that select a carrier included
	number        string // national numbers; Italian ones have their zero
	service       string // those of them that are toll free, shared cost or premium rate, after the trunk prefix
	direct        string // the same, but dialled without trunk prefix
	emergency     string
	short         string // every short code, those for text messages included: the metadata does not tell them apart
	meta          *phonenumbers.PhoneMetadata
}

// countryOf returns the metadata of a country by its ISO 3166 code.
func countryOf(iso string) (*country, error) {
	if !phonenumbers.GetSupportedRegions()[iso] {
		return nil, invalid("country", "%q is not an ISO 3166 country code of two capital letters, such as GB", iso)
	}
	meta := find(phonenumbers.MetadataCollection())(iso)
	shorts := find(phonenumbers.ShortNumberMetadataCollection())(iso)
	c := &country{
		meta:          meta,
		code:          fmt.Sprint(meta.GetCountryCode()),
		trunk:         meta.GetNationalPrefix(),
		international: meta.GetInternationalPrefix(),
		number:        either(meta.GetGeneralDesc()),
		emergency:     either(shorts.GetEmergency()),
		short:         either(shorts.GetShortCode()),
	}
	var service, direct []*phonenumbers.PhoneNumberDesc
	for _, d := range []*phonenumbers.PhoneNumberDesc{meta.GetTollFree(), meta.GetSharedCost(), meta.GetPremiumRate(),
		meta.GetUan()} {
		n, err := phonenumbers.Parse(d.GetExampleNumber(), iso)
		if err == nil && c.trunk != "" && strings.HasPrefix(phonenumbers.Format(n, phonenumbers.NATIONAL), c.trunk) {
			service = append(service, d)
		} else {
			direct = append(direct, d)
		}
	}
	c.service, c.direct = either(service...), either(direct...)
	for form := range strings.SplitSeq(meta.GetNationalPrefixForParsing(), "|") {
		if c.trunk != "" && strings.HasPrefix(form, c.trunk) && strings.Trim(form, "0123456789?") == "" {
			c.trunk = form // Belarus dials 8 and, for most numbers, 0
		}
	}
	return c, nil
}

// find returns a function that finds the metadata of a country. The library has parsed them when it was initialised.
func find(all *phonenumbers.PhoneMetadataCollection, _ error) func(iso string) *phonenumbers.PhoneMetadata {
	return func(iso string) *phonenumbers.PhoneMetadata {
		for _, m := range all.GetMetadata() {
			if m.GetId() == iso {
				return m
			}
		}
		return nil
	}
}

// either returns the pattern for the numbers of any of the descriptions.
func either(descs ...*phonenumbers.PhoneNumberDesc) string {
	var patterns []string
	for _, d := range descs {
		if p := d.GetNationalNumberPattern(); p != "" && p != "NA" && !slices.Contains(patterns, p) {
			patterns = append(patterns, p)
		}
	}
	return strings.Join(patterns, "|")
}

// emergencyRule returns the rule that keeps the emergency numbers of the country and of the deployment.
func (c *country) emergencyRule(deployment []string) (r Rule, err error) {
	known, all := regexp.MustCompile(pattern("", c.emergency)), c.emergency
	for i, dial := range deployment {
		if !emergencyForm.MatchString(dial) {
			return r, invalid(fmt.Sprintf("emergency[%d]", i), "%q is not an emergency number of 1 to 10 digits", dial)
		}
		if !known.MatchString(dial) {
			all = strings.TrimPrefix(all+"|"+dial, "|")
		}
	}
	if all == "" {
		return r, invalid("emergency", "no emergency number of the country is known; add its numbers to the "+
			"deployment's emergency dial strings")
	}
	return Rule{Name: "Emergency", Description: "Emergency numbers, unchanged", Pattern: pattern("", all),
		Translation: "$1"}, nil
}

// EmergencyStrings returns the emergency numbers of a country as dialled, of two to five digits, that libphonenumber
// knows; for a few it knows none. It remembers the result.
func EmergencyStrings(iso string) ([]string, error) {
	if known, ok := emergencyStrings.Load(iso); ok {
		return slices.Clone(known.([]string)), nil
	}
	dial, err := findEmergencyStrings(iso)
	if err == nil {
		emergencyStrings.Store(iso, slices.Clone(dial))
	}
	return dial, err
}

var emergencyStrings sync.Map // by country

func findEmergencyStrings(iso string) (dial []string, err error) {
	c, err := countryOf(iso)
	if err != nil {
		return nil, err
	}
	known := regexp.MustCompile(pattern("", c.emergency))
	for length, end := 2, 100; length <= 5; length, end = length+1, end*10 {
		for n := range end {
			if s := fmt.Sprintf("%0*d", length, n); known.MatchString(s) {
				dial = append(dial, s)
			}
		}
	}
	return dial, nil
}

// rules returns the rules for all but emergency numbers and extensions.
func (c *country) rules(area string) (rules []Rule, err error) {
	add := func(name, description, pattern, translation string) {
		rules = append(rules, Rule{Name: name, Description: description, Pattern: pattern, Translation: translation})
	}
	e164 := "+" + c.code + "$1"

	local, translation, err := c.local(area)
	if err != nil {
		return nil, err
	}
	if c.direct != "" {
		add("Service-numbers", "Toll free, shared cost and premium rate numbers", pattern("", c.direct), e164)
	}
	if local != "" {
		add("Local", "Numbers dialled without area code, before short codes of the same length", local, translation)
	}
	if c.short != "" {
		add("Short-codes", "Short codes, unchanged", pattern("", c.short), "$1")
	}
	add("International", "Numbers dialled with the international prefix",
		pattern(c.international, `[1-9]\d{5,14}`), "+$1")

	if p, translation := c.transformed(); p != "" {
		add("National-special", "National numbers dialled in a form of their own", p, translation)
	}
	if c.service != "" {
		add("Service-numbers-with-prefix", "Toll free, shared cost and premium rate numbers after the trunk prefix",
			pattern(c.trunk, c.service), e164)
	}
	if c.trunk != "" {
		add("National-with-prefix", "National numbers after the trunk prefix", pattern(c.trunk, c.number), e164)
	}
	add("National", "National numbers without trunk prefix", pattern("", c.number), e164)
	return rules, nil
}

// local returns the rule for numbers that are dialled without their area code: that of the operator, or else the one
// that all numbers of a small country have. Local numbers do not begin with 0 or 1, as most short codes for calls
// do; those that begin with 2 to 9 are mostly for text messages.
func (c *country) local(area string) (pat, translation string, err error) {
	if area == "" {
		if m := ownArea.FindStringSubmatch(c.meta.GetNationalPrefixForParsing()); m != nil {
			if r := c.meta.GetNationalPrefixTransformRule(); !strings.HasPrefix(r, "$") {
				return "^" + m[1] + "$", "+" + c.code + r, nil
			}
		}
		return "", "", nil
	}

	var lengths []int
	if areaForm.MatchString(area) {
		lengths = localLengths(cmp.Or(either(c.meta.GetFixedLine()), c.number), area)
	}
	if len(lengths) == 0 {
		return "", "", invalid("areaCode", "no number of %s has the area code %q: write it in digits as it follows "+
			"+%s, without trunk prefix", c.meta.GetId(), area, c.code)
	}
	lengths = append(lengths, localLengths(either(c.meta.GetMobile()), area)...) // as in Brazil
	slices.Sort(lengths)
	lengths = slices.Compact(lengths)
	var numbers []string
	for i := 0; i < len(lengths); {
		first := i
		for i++; i < len(lengths) && lengths[i] == lengths[i-1]+1; {
			i++
		}
		n := fmt.Sprint(lengths[first] - 1)
		if last := lengths[i-1]; last > lengths[first] {
			n += fmt.Sprint(",", last-1)
		}
		numbers = append(numbers, `[2-9]\d{`+n+"}")
	}
	return pattern("", strings.Join(numbers, "|")), "+" + c.code + area + "$1", nil
}

// localLengths returns the lengths that numbers of a pattern have after an area code.
func localLengths(numbers, area string) (lengths []int) {
	const longest, end = 15, '#' // which no number has
	tree, err := syntax.Parse("(?:"+numbers+")"+string(end), syntax.Perl)
	if err != nil || numbers == "" {
		return nil
	}
	program, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return nil
	}

	at := readers(program, []uint32{uint32(program.Start)})
	for n := 1 - len(area); n <= longest; n++ {
		digits := "0123456789"
		switch {
		case n < 1:
			digits = area[len(area)+n-1 : len(area)+n]
		case n == 1:
			digits = "23456789"
		}
		var to []uint32
		for _, pc := range at {
			if in := &program.Inst[pc]; slices.ContainsFunc([]rune(digits), in.MatchRune) {
				to = append(to, in.Out)
			}
		}
		at = readers(program, to)
		ends := slices.ContainsFunc(at, func(pc uint32) bool { return program.Inst[pc].MatchRune(end) })
		if ends && n >= shortestLocal {
			lengths = append(lengths, n)
		}
	}
	return lengths
}

// shortestLocal is the minimum length of local numbers; shorter ones are short codes.
const shortestLocal = 4

var (
	areaForm = regexp.MustCompile(`^[0-9]{1,6}$`)
	// ownArea matches metadata such as "([25-9]\d{5})$|0": a local number, whose area code the transform rule adds.
	ownArea = regexp.MustCompile(`^(\([^()]+\))\$`)
	// optional matches metadata such as "0?(?:(11|2\d\d)15)?": a form that the transform rule translates.
	optional = regexp.MustCompile(`^.*?\(\?:(\(.+\).*)\)\?$`)
	// own matches metadata such as "0(60\d{6}|61\d{6})": numbers with a prefix that other numbers do not have.
	own = regexp.MustCompile(`^\d+\(.*\)$`)
)

// transformed returns the rule for national numbers whose dialled form contains what the number does not: a carrier in
// Brazil, the 15 of mobile numbers in Argentina, the zero of some numbers in Gabon.
func (c *country) transformed() (pat, translation string) {
	form, rule := c.meta.GetNationalPrefixForParsing(), c.meta.GetNationalPrefixTransformRule()
	if rule == "" {
		return "", ""
	}
	if m := optional.FindStringSubmatch(form); m != nil && strings.HasSuffix(m[1], ")") {
		return "^" + c.trunk + m[1] + "$", "+" + c.code + rule
	} else if m != nil {
		return "^" + c.trunk + m[1] + `(\d{6,8})$`, "+" + c.code + rule + "$2"
	}
	if own.MatchString(form) && rule == "$1" {
		return "^" + form + "$", "+" + c.code + rule
	}
	return "", ""
}
