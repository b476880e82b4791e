package dialplan

import (
	"slices"
	"strings"

	"github.com/nyaruka/phonenumbers"
)

// Example shows what a plan makes of a dialled number.
type Example struct {
	Dialled, Number string
	Rule            int // the rule that matches; -1 for none
}

// kinds are the kinds of number that examples show.
var kinds = []phonenumbers.PhoneNumberType{phonenumbers.FIXED_LINE, phonenumbers.MOBILE, phonenumbers.TOLL_FREE,
	phonenumbers.SHARED_COST, phonenumbers.PREMIUM_RATE}

// Examples returns what the rules make of numbers as they are dialled in a country: an emergency number, the metadata's
// example numbers in national form, a number abroad with the international prefix, and for each rule that none of these
// shows the shortest number that it applies to.
func Examples(iso string, rules []Rule) (examples []Example, err error) {
	c, err := countryOf(iso)
	if err != nil {
		return nil, err
	}
	plan := Compile(rules)
	add := func(dialled string) {
		if !slices.ContainsFunc(examples, func(e Example) bool { return e.Dialled == dialled }) {
			i, number := plan.Normalise(dialled)
			examples = append(examples, Example{Dialled: dialled, Number: number, Rule: i})
		}
	}

	if e := find(phonenumbers.ShortNumberMetadataCollection())(iso).GetEmergency().GetExampleNumber(); e != "" {
		add(e)
	}
	for _, kind := range kinds {
		if n := phonenumbers.GetExampleNumberForType(iso, kind); n != nil {
			add(phonenumbers.Format(n, phonenumbers.NATIONAL))
		}
	}
	abroad := phonenumbers.GetExampleNumber("GB")
	if abroad.GetCountryCode() == c.meta.GetCountryCode() {
		abroad = phonenumbers.GetExampleNumber("US")
	}
	add(c.prefix() + strings.TrimPrefix(phonenumbers.Format(abroad, phonenumbers.INTERNATIONAL), "+"))

	first, _ := explore(rules)
	for i, dialled := range first {
		if dialled != "" && !slices.ContainsFunc(examples, func(e Example) bool { return e.Rule == i }) {
			add(dialled)
		}
	}
	return examples, nil
}

// prefix returns an international prefix of the country: the preferred one, or else the shortest.
func (c *country) prefix() string {
	if p := c.meta.GetPreferredInternationalPrefix(); p != "" {
		return strings.ReplaceAll(p, "~", "")
	}
	shortest, _ := explore([]Rule{{Pattern: pattern("", c.international), Translation: "$1"}})
	return shortest[0]
}
