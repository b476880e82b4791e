package route

import (
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// emergencyTable holds, for each country that libphonenumber knows, the strings that its IsEmergencyNumber accepts: a
// line "GB 112 999" for each ISO 3166 code. A test compares it with the library, so that neither an update of the
// library nor a mistake here removes a number unnoticed. Using the library at each start instead would cost 2.5 MB of
// binary, 5 MB of memory and an eighth of a second for each country.
//
//go:embed emergency.txt
var emergencyTable string

// countryStrings returns the emergency strings of a country by its upper-case ISO 3166 code. known is false for a code
// that libphonenumber does not know. For a few territories it knows no emergency number.
func countryStrings(code string) (dial []string, known bool) {
	for line := range strings.Lines(emergencyTable) {
		if f := strings.Fields(line); f[0] == code {
			return f[1:], true
		}
	}
	return nil, false
}

// countriesWith returns the countries that have an emergency string.
func countriesWith(dial string) (codes []string) {
	for line := range strings.Lines(emergencyTable) {
		if f := strings.Fields(line); slices.Contains(f[1:], dial) {
			codes = append(codes, f[0])
		}
	}
	return codes
}

// compileEmergency compiles the lists of emergency numbers.
func (c *Config) compileEmergency(p *Policy, bad func(path, format string, args ...any)) {
	for _, s := range p.known {
		if s.Traits().Screening && len(p.services[s.ID()].peers) > 0 && len(c.EmergencyDialStrings) == 0 &&
			len(c.Countries) == 0 {
			bad("emergencyDialStrings", "callers of %s are screened, so a call to an emergency number that is not "+
				"listed may be refused; list the numbers, such as [\"112\", \"999\"], or their countries, such as "+
				"countries: [GB]", s)
		}
	}
	p.emergency = map[string]bool{}
	add := func(dial string) {
		p.emergency[dial] = true
		p.longestDial = max(p.longestDial, len(dial))
	}

	explicit := c.EmergencyDialStrings
	if len(explicit) == 0 && len(c.Countries) == 0 {
		explicit = DefaultEmergencyDialStrings
	}
	for i, s := range explicit {
		if !digits(s, 2, 6) {
			bad(fmt.Sprintf("emergencyDialStrings[%d]", i), "%q is not a number of 2 to 6 digits without \"+\"", s)
			continue
		}
		add(s)
	}
	for i, code := range c.Countries {
		path := fmt.Sprintf("countries[%d]", i)
		dial, known := countryStrings(code)
		switch {
		case !known:
			bad(path, "%q is not an ISO 3166 country code of two capital letters, such as GB", code)
		case len(dial) == 0:
			bad(path, "no emergency number of %s is known; list its numbers in emergencyDialStrings", code)
		}
		for _, s := range dial {
			add(s)
		}
	}
}

// EmergencyStrings returns the emergency numbers of a valid configuration, as dialled, sorted.
func (c *Config) EmergencyStrings() []string {
	p := &Policy{}
	c.compileEmergency(p, func(string, string, ...any) {}) // the problems were reported
	return slices.Sorted(maps.Keys(p.emergency))
}

// Emergency reports whether a dialled number is an emergency number of this deployment. The whole number must match:
// "999" and "+999", as Teams may write it, or "+44999", as Zoom does; "+9991234" is a subscriber's number.
// gateway-calls §7.
func (p *Policy) Emergency(dialled string) bool {
	if len(dialled) > p.longestDial+4 {
		return false
	}
	number, plus := strings.CutPrefix(dialled, "+")
	if p.emergency[number] {
		return true
	}
	return plus && p.afterCountryCode(number, func(dial string) bool { return p.emergency[dial] })
}

// afterCountryCode reports whether number is a country code that may precede an emergency number, followed by a string
// that accepted accepts.
func (p *Policy) afterCountryCode(number string, accepted func(string) bool) bool {
	for n := 1; n <= 3 && n < len(number); n++ {
		if cc := number[:n]; countryCode(cc) && (p.emergencyCC == nil || p.emergencyCC[cc]) && accepted(number[n:]) {
			return true
		}
	}
	return false
}

// NotEmergency returns the text to append to the rejection of a call whose number is an emergency number in some
// country but not in this deployment: the caller may have needed help, and the configured list may be incomplete. It is
// empty for other numbers.
func (p *Policy) NotEmergency(dialled string) string {
	number, plus := strings.CutPrefix(dialled, "+")
	if len(number) > 8 || p.Emergency(dialled) {
		return ""
	}
	countries := countriesWith(number)
	if countries == nil && plus {
		p.afterCountryCode(number, func(dial string) bool { countries = countriesWith(dial); return countries != nil })
	}
	where := list(countries)
	switch n := len(countries); {
	case n == 0:
		return ""
	case n > 3:
		where = fmt.Sprintf("%d countries", n)
	}
	return "; " + dialled + " is an emergency number in " + where + ", but is not configured as one here"
}
