package dialplan_test

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/nyaruka/phonenumbers"
	"pgregory.net/rapid"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/tenants/dialplan"
)

// countries are all countries of the metadata.
func countries() []string { return slices.Sorted(maps.Keys(phonenumbers.GetSupportedRegions())) }

// everywhere returns a plan for each country.
var everywhere = sync.OnceValue(func() map[string][]dialplan.Rule {
	plans := map[string][]dialplan.Rule{}
	for _, iso := range countries() {
		rules, leftOut, err := dialplan.Rules(dialplan.Options{Country: iso, Emergency: []string{"112", "911", "933"}})
		if err != nil || leftOut != nil {
			panic(fmt.Sprintf("%s: %v, left out %q", iso, err, leftOut))
		}
		plans[iso] = rules
	}
	return plans
})

// made returns the rules of a plan that must be possible.
func made(t interface {
	Helper()
	Fatalf(string, ...any)
}, o dialplan.Options) ([]dialplan.Rule, []string) {
	t.Helper()
	rules, leftOut, err := dialplan.Rules(o)
	if err != nil {
		t.Fatalf("Rules(%+v): %v", o, err)
	}
	return rules, leftOut
}

// by returns the name of a rule.
func by(rules []dialplan.Rule, i int) string {
	if i < 0 {
		return "no rule"
	}
	return rules[i].Name
}

// TestNumberingFacts: inputs written from public numbering plans. The deployment has 112, 911 and the test number 933.
func TestNumberingFacts(t *testing.T) {
	areas := map[string]string{"GB": "20", "US": "212", "DE": "30", "AU": "2", "SE": "8", "AR": "11", "BR": "11",
		"RU": "495", "HR": "51"}
	plans, compiled := map[string][]dialplan.Rule{}, map[string]dialplan.Plan{}
	for _, c := range []struct{ country, dialled, want string }{
		// Emergency numbers, also the deployment's, stay.
		{"GB", "999", "999"}, {"GB", "112", "112"}, {"GB", "933", "933"}, {"GB", "911", "911"},
		{"US", "911", "911"}, {"US", "933", "933"}, {"DE", "110", "110"}, {"DE", "112", "112"}, {"FR", "15", "15"},
		{"FR", "18", "18"}, {"AU", "000", "000"}, {"AU", "106", "106"}, {"NL", "112", "112"}, {"BR", "190", "190"},
		{"BR", "193", "193"}, {"IT", "113", "113"}, {"IT", "118", "118"}, {"SM", "115", "115"}, {"ES", "061", "061"},
		{"ZA", "10111", "10111"}, {"SE", "90000", "90000"},
		// Short codes: police and health lines, enquiries, helplines of Europe (116xxx).
		{"GB", "101", "101"}, {"GB", "111", "111"}, {"GB", "105", "105"}, {"GB", "116 123", "116123"},
		{"US", "411", "411"}, {"US", "988", "988"}, {"US", "311", "311"}, {"DE", "115", "115"},
		{"DE", "116 117", "116117"}, {"DE", "11833", "11833"}, {"FR", "3646", "3646"}, {"FR", "118 712", "118712"},
		{"FR", "119", "119"}, {"NL", "144", "144"}, {"NL", "116 111", "116111"}, {"IT", "187", "187"},
		{"SE", "113 13", "11313"}, {"SE", "1177", "1177"}, {"CH", "1414", "1414"},
		// National, with trunk prefix and without.
		{"GB", "020 7946 0123", "+442079460123"}, {"GB", "(01632) 960123", "+441632960123"},
		{"GB", "07700 900123", "+447700900123"}, {"GB", "7700900123", "+447700900123"},
		{"US", "1 (212) 555-0123", "+12125550123"}, {"US", "212-555-0123", "+12125550123"},
		{"DE", "030/23125000", "+493023125000"}, {"DE", "0151 23456789", "+4915123456789"},
		{"FR", "01 40 20 50 50", "+33140205050"}, {"FR", "06.12.34.56.78", "+33612345678"},
		{"AU", "(02) 5550 0123", "+61255500123"}, {"AU", "0491 570 006", "+61491570006"},
		{"NL", "06 12345678", "+31612345678"}, {"ES", "911 23 45 67", "+34911234567"},
		{"RU", "8 (495) 123-45-67", "+74951234567"}, {"HU", "06 1 234 5678", "+3612345678"},
		{"BY", "8 017 234-56-78", "+375172345678"}, {"JP", "03-1234-5678", "+81312345678"},
		{"BR", "(11) 91234-5678", "+5511912345678"}, {"BR", "0 11 91234-5678", "+5511912345678"},
		{"BR", "0 15 11 91234-5678", "+5511912345678"}, {"BR", "0 21 11 3123-4567", "+551131234567"},
		{"BR", "021 98765-4321", "+5521987654321"},
		{"AR", "011 4321-5678", "+541143215678"}, {"AR", "011 15-2345-6789", "+5491123456789"},
		// Italy keeps its zero, and so does San Marino.
		{"IT", "06 6981 2345", "+390669812345"}, {"IT", "02 1234 5678", "+390212345678"},
		{"IT", "333 123 4567", "+393331234567"}, {"SM", "0549 886377", "+3780549886377"},
		// Service numbers.
		{"GB", "0800 1111", "+448001111"}, {"GB", "0845 46 47", "+448454647"}, {"US", "1-800-555-0199", "+18005550199"},
		{"DE", "0800 3301000", "+498003301000"}, {"DE", "0180 5 123456", "+491805123456"},
		{"FR", "0 800 123 456", "+33800123456"}, {"AU", "1800 160 401", "+611800160401"},
		{"AU", "1300 975 707", "+611300975707"}, {"AU", "13 11 14", "+61131114"}, {"IT", "800 123456", "+39800123456"},
		{"NL", "0900 1234", "+319001234"}, {"BR", "0800 123 4567", "+558001234567"},
		{"BR", "4004 0123", "+5540040123"},
		// Local, within the area code of the plan or of the country.
		{"GB", "7946 0123", "+442079460123"}, {"US", "555-0123", "+12125550123"}, {"DE", "23125000", "+493023125000"},
		{"AU", "5550 0123", "+61255500123"}, {"SE", "508 00 000", "+46850800000"}, {"AR", "4321-5678", "+541143215678"},
		{"BR", "91234-5678", "+5511912345678"}, {"BR", "3123-4567", "+551131234567"},
		{"RU", "223-45-67", "+74952234567"}, {"HR", "612-345", "+38551612345"}, {"HR", "112", "112"},
		{"HR", "11888", "11888"}, {"SM", "886377", "+3780549886377"}, {"JE", "888888", "+441534888888"},
		// International.
		{"GB", "00 33 1 40 20 50 50", "+33140205050"}, {"US", "011 44 20 7946 0123", "+442079460123"},
		{"DE", "00390669812345", "+390669812345"}, {"AU", "0011 44 20 7946 0123", "+442079460123"},
		{"RU", "8 10 44 20 7946 0123", "+442079460123"}, {"BR", "00 15 44 20 7946 0123", "+442079460123"},
		{"JP", "010 1 212 555 0123", "+12125550123"}, {"IT", "0049 30 23125000", "+493023125000"},
		{"GB", "0044 20 7946 0123", "+442079460123"}, {"GB", "+44 20 7946 0123", "+442079460123"},
		{"GB", "+39 06 6981 2345", "+390669812345"},
	} {
		if plans[c.country] == nil {
			plans[c.country], _ = made(t, dialplan.Options{Country: c.country, AreaCode: areas[c.country],
				Emergency: []string{"112", "911", "933"}})
			compiled[c.country] = dialplan.Compile(plans[c.country])
		}
		if i, got := compiled[c.country].Normalise(c.dialled); got != c.want {
			t.Errorf("%s: %s gives %s by %s, want %s", c.country, c.dialled, got, by(plans[c.country], i), c.want)
		}
	}
}

// types are the kinds of example numbers of the metadata.
var types = []phonenumbers.PhoneNumberType{phonenumbers.FIXED_LINE, phonenumbers.MOBILE, phonenumbers.TOLL_FREE,
	phonenumbers.PREMIUM_RATE, phonenumbers.SHARED_COST, phonenumbers.VOIP, phonenumbers.PERSONAL_NUMBER,
	phonenumbers.PAGER, phonenumbers.UAN, phonenumbers.VOICEMAIL}

// TestEveryCountry: example numbers of every kind, dialled in their country in national form, with and without trunk
// prefix, and abroad with its international prefix, give what libphonenumber makes of them.
func TestEveryCountry(t *testing.T) {
	plain := regexp.MustCompile(`^\d+$`)
	tried := 0
	for _, iso := range countries() {
		rules := everywhere()[iso]
		plan, meta := dialplan.Compile(rules), metadata(iso)
		prefixes := []string{meta.GetInternationalPrefix(), meta.GetPreferredInternationalPrefix()}
		if p := map[string]string{"BR": "0015", "HK": "001"}[iso]; p != "" {
			prefixes = []string{p} // a carrier must be chosen, or can be: "001" is ambiguous as 00 and 1
		}
		prefixes = slices.DeleteFunc(prefixes, func(p string) bool { return !plain.MatchString(p) })

		for _, of := range []string{iso, "GB", "IT", "SH"} {
			kinds := types
			if of != iso {
				kinds = types[:1]
			}
			for _, typ := range kinds {
				n := phonenumbers.GetExampleNumberForType(of, typ)
				if n == nil || !phonenumbers.IsValidNumberForRegion(n, of) {
					continue
				}
				e164 := phonenumbers.Format(n, phonenumbers.E164)
				dialled := []string{e164}
				for _, p := range prefixes {
					dialled = append(dialled, p+e164[1:])
				}
				if of == iso {
					dialled = append(dialled, phonenumbers.Format(n, phonenumbers.NATIONAL),
						phonenumbers.GetNationalSignificantNumber(n))
				}
				for _, d := range dialled {
					want := "?"
					if p, err := phonenumbers.Parse(d, iso); err == nil {
						want = phonenumbers.Format(p, phonenumbers.E164)
					}
					tried++
					if i, got := plan.Normalise(d); got != want {
						t.Errorf("%s: %s, number %s of %s, gives %s by %s, want %s", iso, d, e164, of, got,
							by(rules, i), want)
					}
				}
			}
		}
	}
	if tried < 3000 {
		t.Errorf("only %d numbers were tried", tried)
	}
}

func metadata(iso string) *phonenumbers.PhoneMetadata {
	all, _ := phonenumbers.MetadataCollection()
	i := slices.IndexFunc(all.GetMetadata(), func(m *phonenumbers.PhoneMetadata) bool { return m.GetId() == iso })
	return all.GetMetadata()[i]
}

// TestEmergencyAndShortCodesStay: the emergency numbers of the country and of the deployment are kept, with and without
// an area code, and so are strings of up to four digits, and of 116 and three, that libphonenumber takes for a valid
// short code.
func TestEmergencyAndShortCodesStay(t *testing.T) {
	for iso, c := range map[string]struct {
		area      string
		emergency string // libphonenumber's, as tried with the pinned version
	}{
		"GB": {"20", "112 999"}, "US": {"212", "112 911"}, "DE": {"30", "110 112"}, "FR": {"1", "112 15 17 18"},
		"AU": {"2", "000 106 112"}, "NL": {"20", "112 911"}, "BR": {"11", "112 128 190 192 193 911"},
		"IT": {"06", "112 113 115 118"}, "SM": {"0549", "113 115 118"},
	} {
		t.Run(iso, func(t *testing.T) {
			t.Parallel()
			deployment := []string{"933", "911", "112", "999", "10111"}
			rules, _ := made(t, dialplan.Options{Country: iso, Emergency: deployment})
			local, _ := made(t, dialplan.Options{Country: iso, AreaCode: c.area, Emergency: deployment})
			plan := dialplan.Compile(rules)
			for _, e := range append(strings.Fields(c.emergency), deployment...) {
				for _, rules := range [][]dialplan.Rule{rules, local} {
					if i, got := dialplan.Normalise(rules, e); i != 0 || got != e {
						t.Errorf("%s gives %s by %s, want it unchanged by the first rule", e, got, by(rules, i))
					}
					if i, got := dialplan.Normalise(rules, "+"+e); i != -1 || got != "+"+e {
						t.Errorf("+%s gives %s by %s, want it unchanged", e, got, by(rules, i))
					}
				}
			}

			shorts := 0
			codes := []string{"116000", "116006", "116111", "116117", "116123"}
			for n := range 10_000 {
				if n < 1000 || n%23 == 0 {
					codes = append(codes, strconv.Itoa(n))
				}
			}
			for _, code := range codes {
				number := &phonenumbers.PhoneNumber{}
				if phonenumbers.ParseToNumber(code, iso, number) != nil ||
					!phonenumbers.IsValidShortNumberForRegion(number, iso) ||
					phonenumbers.GetNationalSignificantNumber(number) != code {
					continue
				}
				shorts++
				if i, got := plan.Normalise(code); got != code {
					t.Errorf("%s gives %s by %s, want it unchanged", code, got, by(rules, i))
				}
			}
			if shorts < 3 {
				t.Errorf("only %d short codes were tried", shorts)
			}
		})
	}
}

// TestGeneratedPlans: whatever the options are, the plan is one that Teams accepts, keeps emergency strings, calls each
// extension that is none, and has no rule that Check objects to.
func TestGeneratedPlans(t *testing.T) {
	name := regexp.MustCompile(`^[A-Za-z0-9-][A-Za-z0-9.-]{0,48}$`)
	all := countries()
	rapid.Check(t, func(t *rapid.T) {
		o := dialplan.Options{Country: rapid.SampledFrom(all).Draw(t, "country")}
		dial := rapid.SliceOfN(rapid.StringMatching(`[0-9]{2,6}`), 0, 4).Draw(t, "emergency")
		o.Emergency = append(dial, "112", "933")
		ranges := rapid.SliceOfNDistinct(rapid.StringMatching(`[0-9]{2}x{1,2}`), 0, 8, rapid.ID).Draw(t, "ranges")
		for i, r := range ranges {
			base := rapid.SampledFrom([]string{"", "+1425555", "+3221231212;ext=", "+4420794", "+49302312"}).
				Draw(t, fmt.Sprint("base", i))
			o.Extensions = append(o.Extensions, dialplan.Extensions{Range: r, Base: base})
		}
		rules, _ := made(t, o)

		emergency := slices.Clone(o.Emergency)
		for _, s := range []string{"15", "17", "18", "000", "106", "110", "112", "190", "911", "999", "10111"} {
			if phonenumbers.IsEmergencyNumber(s, o.Country) {
				emergency = append(emergency, s)
			}
		}
		for _, p := range dialplan.Check(rules, emergency) {
			overlap := p.Code == dialplan.CodeShadowed && len(ranges) > 0 // of short codes and extensions
			if !overlap {
				t.Errorf("Check: %v", p.Error())
			}
		}
		if len(rules) > 50 {
			t.Errorf("%d rules", len(rules))
		}
		for _, r := range rules {
			if !name.MatchString(r.Name) || len(r.Description) > 512 || optional(t, r.Pattern) {
				t.Errorf("Teams refuses, or a desk phone does not understand, rule %+v", r)
			}
		}

		for _, x := range o.Extensions {
			e := strings.ReplaceAll(x.Range, "x", rapid.StringMatching(`[0-9]`).Draw(t, "digit"))
			i, got := dialplan.Normalise(rules, e)
			want := x.Base + e
			if slices.Contains(emergency, e) || phonenumbers.IsEmergencyNumber(e, o.Country) {
				want = e
			} else if rules[i].InternalExtension != (x.Base == "") {
				t.Errorf("extension %s: internal is %v", e, rules[i].InternalExtension)
			}
			if got != want {
				t.Errorf("extension %s gives %s by %s, want %s", e, got, by(rules, i), want)
			}
		}
	})
}

// optional reports whether the first token of a pattern after "^" is optional.
func optional(t interface{ Fatal(...any) }, pattern string) bool {
	re, err := syntax.Parse(strings.TrimPrefix(pattern, "^"), syntax.Perl)
	if err != nil {
		t.Fatal(err)
	}
	for {
		switch re.Op {
		case syntax.OpConcat, syntax.OpAlternate, syntax.OpCapture:
			re = re.Sub[0]
		default:
			return re.Op == syntax.OpQuest || re.Op == syntax.OpStar
		}
	}
}

// TestRandomNumbers: numbers that libphonenumber takes for valid, dialled in national form, give its E.164; and what
// has no "+" stays the same when Teams normalises it once more.
func TestRandomNumbers(t *testing.T) {
	all, valid := countries(), 0
	rapid.Check(t, func(t *rapid.T) {
		iso := rapid.SampledFrom(all).Draw(t, "country")
		rules := everywhere()[iso]
		example := phonenumbers.GetExampleNumberForType(iso, rapid.SampledFrom(types).Draw(t, "type"))
		if example == nil {
			return
		}
		d := phonenumbers.NormalizeDigitsOnly(phonenumbers.Format(example, phonenumbers.NATIONAL))
		n := rapid.IntRange(1, 4).Draw(t, "digits")
		if len(d) <= 6 {
			return
		}
		d = d[:len(d)-n] + rapid.StringMatching(fmt.Sprintf(`[0-9]{%d}`, n)).Draw(t, "tail")
		if number, err := phonenumbers.Parse(d, iso); err == nil && phonenumbers.IsValidNumberForRegion(number, iso) {
			valid++
			want := phonenumbers.Format(number, phonenumbers.E164)
			i, got := dialplan.Normalise(rules, d)
			if got != want {
				t.Errorf("%s: %s gives %s by %s, want %s", iso, d, got, by(rules, i), want)
			}
			if _, err := domain.ParseE164(got); err != nil {
				t.Errorf("%s: %s gives %s: %v", iso, d, got, err)
			}
		}
		junk := rapid.StringMatching(`[0-9*#+]{1,12}`).Draw(t, "junk")
		if _, once := dialplan.Normalise(rules, junk); !strings.HasPrefix(once, "+") {
			if _, twice := dialplan.Normalise(rules, once); twice != once {
				t.Errorf("%s: %s gives %s, and that gives %s", iso, junk, once, twice)
			}
		}
	})
	if valid == 0 {
		t.Error("no valid number was tried")
	}
}

// TestLeftOut: what a plan does not do is said.
func TestLeftOut(t *testing.T) {
	o := dialplan.Options{Country: "GB", Extensions: append(ext("1xx", ""), ext("9xx", "+441")...)}
	_, leftOut := made(t, o)
	if len(leftOut) != 2 || !strings.Contains(leftOut[0], "emergency numbers: 112, 999") ||
		!strings.Contains(leftOut[1], "100, 101, 105, 111, 119") {
		t.Errorf("left out %q, want 112 and 999, then the short codes", leftOut)
	}

	o.Extensions = nil
	for i := range 60 {
		o.Extensions = append(o.Extensions, dialplan.Extensions{Range: fmt.Sprintf("3%02dx", i),
			Base: fmt.Sprintf("+44161496%d", i%45)})
	}
	rules, leftOut := made(t, o)
	if len(rules) != 50 || len(leftOut) == 0 || !strings.Contains(leftOut[0], "at most 50 rules") {
		t.Errorf("%d rules, left out %q, want 50 and the bases that are too many", len(rules), leftOut)
	}
	if i, got := dialplan.Normalise(rules, "3459"); got != "+4416149603459" {
		t.Errorf("3459 gives %s by %s: ranges of one base are merged", got, by(rules, i))
	}
	if _, got := dialplan.Normalise(rules, "020 7946 0123"); got != "+442079460123" {
		t.Errorf("a national number gives %s: rules of the country are kept", got)
	}
}

// TestLocalNumbers: numbers without area code have the lengths that libphonenumber takes for fixed or mobile numbers
// with it, and no others: a number that is too short for the area is none.
func TestLocalNumbers(t *testing.T) {
	for _, c := range []struct {
		iso, area string
		want      []int // where the numbering plan has one length, or few
	}{
		{"GB", "20", []int{8}}, {"GB", "121", []int{7}}, {"GB", "1204", []int{5, 6}}, {"DE", "30", nil},
		{"DE", "3303", nil}, {"US", "212", []int{7}}, {"FR", "1", []int{8}}, {"AU", "2", []int{8}}, {"IT", "06", nil},
		{"JP", "3", []int{8}}, {"BR", "11", []int{8, 9}}, {"CN", "10", []int{5, 6, 8}}, {"RU", "812", []int{7}},
	} {
		rules, _ := made(t, dialplan.Options{Country: c.iso, AreaCode: c.area})
		plan, random := dialplan.Compile(rules), rand.New(rand.NewPCG(1, 2))
		var got []int
		for length := 4; length <= 13; length++ {
			local, valid := 0, 0
			const tries = 500
			least := int(math.Pow10(length - 1))
			for range tries {
				d := fmt.Sprint(2*least + random.IntN(8*least))
				i, normalised := plan.Normalise(d)
				if i >= 0 && rules[i].Name == c.iso+"-Local" {
					local++
					want := fmt.Sprint("+", phonenumbers.GetCountryCodeForRegion(c.iso), c.area, d)
					if normalised != want {
						t.Fatalf("%s %s: %s gives %s, want %s", c.iso, c.area, d, normalised, want)
					}
				}
				n, err := phonenumbers.Parse(c.area+d, c.iso)
				if err != nil || phonenumbers.GetNationalSignificantNumber(n) != c.area+d {
					continue
				}
				switch phonenumbers.GetNumberType(n) {
				case phonenumbers.FIXED_LINE, phonenumbers.FIXED_LINE_OR_MOBILE, phonenumbers.MOBILE:
					valid++
				}
			}
			if local > 0 {
				got = append(got, length)
			}
			if (local > 0) != (valid > 0) {
				t.Errorf("%s %s: %d of %d numbers of %d digits are local, and %d are valid", c.iso, c.area, local,
					tries, length, valid)
			}
		}
		if c.want != nil && !slices.Equal(got, c.want) {
			t.Errorf("%s %s: local numbers have %d digits, want %d", c.iso, c.area, got, c.want)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, c := range []struct {
		o      dialplan.Options
		target string
	}{
		{dialplan.Options{Country: "gb"}, "country"},
		{dialplan.Options{Country: "XX"}, "country"},
		{dialplan.Options{Country: "001"}, "country"},
		{dialplan.Options{}, "country"},
		{dialplan.Options{Country: "GN"}, "emergency"},
		{dialplan.Options{Country: "GB", Emergency: []string{"112", "+999"}}, "emergency[1]"},
		{dialplan.Options{Country: "GB", Emergency: []string{""}}, "emergency[0]"},
		{dialplan.Options{Country: "GB", Emergency: []string{"12345678901"}}, "emergency[0]"},
		{dialplan.Options{Country: "GB", AreaCode: "020"}, "areaCode"},
		{dialplan.Options{Country: "GB", AreaCode: "2 0"}, "areaCode"},
		{dialplan.Options{Country: "GB", AreaCode: "1234567"}, "areaCode"},
		{dialplan.Options{Country: "GB", AreaCode: "7400"}, "areaCode"}, // mobile
		{dialplan.Options{Country: "US", AreaCode: "800"}, "areaCode"},
		{dialplan.Options{Country: "FR", AreaCode: "6"}, "areaCode"},
		{dialplan.Options{Country: "US", AreaCode: "1212"}, "areaCode"},
		{dialplan.Options{Country: "US", AreaCode: "2125550"}, "areaCode"},
		{dialplan.Options{Country: "GB", Extensions: ext("", "")}, "extensions[0]"},
		{dialplan.Options{Country: "GB", Extensions: ext("2", "")}, "extensions[0]"},
		{dialplan.Options{Country: "GB", Extensions: ext("2xxxxx", "")}, "extensions[0]"},
		{dialplan.Options{Country: "GB", Extensions: ext("x2", "")}, "extensions[0]"},
		{dialplan.Options{Country: "GB", Extensions: ext("2|x", "")}, "extensions[0]"},
		{dialplan.Options{Country: "GB", Extensions: ext("2xx", "44161")}, "extensions[0]"},
		{dialplan.Options{Country: "GB", Extensions: ext("2xx", "+0161")}, "extensions[0]"},
		{dialplan.Options{Country: "GB", Extensions: ext("2xx", "+4416149612345")}, "extensions[0]"},
		{dialplan.Options{Country: "GB", Extensions: ext("2xx", "+44;ext=1")}, "extensions[0]"},
		{dialplan.Options{Country: "GB", Extensions: append(ext("2xx", ""), ext("20x", "+44161")...)}, "extensions[1]"},
		{dialplan.Options{Country: "GB", Extensions: append(ext("201", ""), ext("2xx", "")...)}, "extensions[1]"},
	} {
		_, _, err := dialplan.Rules(c.o)
		if f := fault.As(err); f == nil || f.Kind != fault.Invalid || f.Target != c.target {
			t.Errorf("Rules(%+v): %v, want an error at %s", c.o, err, c.target)
		}
	}
	for _, o := range []dialplan.Options{
		{Country: "GN", Emergency: []string{"117"}},
		{Country: "GB", Extensions: append(ext("2xx", ""), ext("2xxx", "+44161496")...)},
		{Country: "GB", Extensions: ext("12345", "+4416149600000;ext=")},
		{Country: "IT", AreaCode: "06"},
		{Country: "RU", AreaCode: "812"}, // the trunk prefix is 8
	} {
		made(t, o)
	}
}

func ext(r, base string) []dialplan.Extensions { return []dialplan.Extensions{{Range: r, Base: base}} }

// TestExamples: what people are shown.
func TestExamples(t *testing.T) {
	rules, _ := made(t, dialplan.Options{Country: "GB", AreaCode: "20", Emergency: []string{"933"},
		Extensions: ext("2xxx", "+442079460")})
	examples, err := dialplan.Examples("GB", rules)
	if err != nil {
		t.Fatal(err)
	}
	shown := map[int]bool{}
	lines := map[string]string{}
	for _, e := range examples {
		lines[e.Dialled] = e.Number
		shown[e.Rule] = true
		if i, got := dialplan.Normalise(rules, e.Dialled); i != e.Rule || got != e.Number {
			t.Errorf("example %+v, but it gives %s by %s", e, got, by(rules, i))
		}
	}
	for dialled, want := range map[string]string{"112": "112", "0121 234 5678": "+441212345678",
		"07400 123456": "+447400123456", "001 201-555-0123": "+12015550123", "2000": "+4420794602000"} {
		if lines[dialled] != want {
			t.Errorf("example of %s: %q, want %q", dialled, lines[dialled], want)
		}
	}
	for i := range rules {
		if !shown[i] {
			t.Errorf("no example shows %s", by(rules, i))
		}
	}

	for i, iso := range countries() {
		if i%5 != 0 {
			continue
		}
		rules := everywhere()[iso]
		examples, err := dialplan.Examples(iso, rules)
		if err != nil || len(examples) < len(rules) {
			t.Errorf("%s: %d examples for %d rules, %v", iso, len(examples), len(rules), err)
		}
		for _, e := range examples {
			if e.Rule < 0 || e.Dialled == "" {
				t.Errorf("%s: example %+v matches no rule", iso, e)
			}
		}
	}
	if _, err := dialplan.Examples("XX", rules); !fault.Is(err, fault.Invalid) {
		t.Errorf("examples of XX: %v, want an error", err)
	}
}

func ExampleNormalise() {
	rules, _, err := dialplan.Rules(dialplan.Options{Country: "IT", Emergency: []string{"112"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, dialled := range []string{"112", "06 6981 2345", "00 44 20 7946 0123"} {
		i, number := dialplan.Normalise(rules, dialled)
		fmt.Println(dialled, "→", number, "by", rules[i].Name)
	}
	// Output:
	// 112 → 112 by IT-Emergency
	// 06 6981 2345 → +390669812345 by IT-National
	// 00 44 20 7946 0123 → +442079460123 by IT-International
}
