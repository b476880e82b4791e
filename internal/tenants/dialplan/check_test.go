package dialplan_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/tenants/dialplan"
)

// edited makes rules of pairs "pattern → translation".
func edited(pairs ...string) (rules []dialplan.Rule) {
	for i, p := range pairs {
		pattern, translation, _ := strings.Cut(p, " → ")
		rules = append(rules, dialplan.Rule{Name: fmt.Sprint("r", i), Pattern: pattern, Translation: translation})
	}
	return rules
}

// TestCheck: mistakes of people who edit a plan. Problems are written "code at target".
func TestCheck(t *testing.T) {
	named := func(names ...string) (rules []dialplan.Rule) {
		for i, n := range names {
			rules = append(rules, dialplan.Rule{Name: n, Pattern: fmt.Sprintf("^(2%d)$", i), Translation: "$1"})
		}
		return rules
	}
	described := func(n int) []dialplan.Rule {
		r := edited(`^(22)$ → $1`)
		r[0].Description = strings.Repeat("é", n)
		return r
	}
	for _, c := range []struct {
		name  string
		rules []dialplan.Rule
		want  string
	}{
		{"no rule", nil, ""},
		// Emergency strings: 112, 911, 933, 999 here.
		{"9 for an outside line", edited(`^9(\d+)$ → $1`), "EmergencyRewritten at rules[0] EmergencyRewritten at " +
			"rules[0] EmergencyRewritten at rules[0]"},
		{"after a rule that keeps them", edited(`^(112|9(?:11|33|99))$ → $1`, `^9(\d+)$ → $1`), ""},
		{"three-digit extensions", edited(`^([1-8]\d\d)$ → +4416149$1`), "EmergencyRewritten at rules[0]"},
		{"plus before everything", edited(`^\+?(\d+)$ → +$1`), "EmergencyRewritten at rules[0] EmergencyRewritten at " +
			"rules[0] EmergencyRewritten at rules[0] EmergencyRewritten at rules[0]"},
		{"plus removed", edited(`^\+(112)$ → $1`), ""},
		{"plus and country code", edited(`^\+(112)$ → +44$1`), "EmergencyRewritten at rules[0]"},
		{"wholly replaced", edited(`^112$ → +441614960000`), "EmergencyRewritten at rules[0]"},
		{"longer numbers only", edited(`^9(\d{4,15})$ → $1`), ""},
		// Rules without effect.
		{"shadowed by a wider rule", edited(`^0(\d+)$ → +44$1`, `^0(20\d{8})$ → +44$1`),
			"Shadowed at rules[1].pattern"},
		{"the narrower first", edited(`^0(20\d{8})$ → +44$1`, `^0(\d+)$ → +44$1`), ""},
		{"shadowed by two together", edited(`^([3-5]\d)$ → $1`, `^([678]\d)$ → $1`, `^([3-8]\d)$ → +44$1`),
			"Shadowed at rules[2].pattern"},
		{"all but one string", edited(`^([3-5]\d)$ → $1`, `^([67]\d|8[0-8])$ → $1`, `^([3-8]\d)$ → +44$1`), ""},
		{"the same twice", edited(`^(\d{7})$ → +4420$1`, `^(\d{7})$ → +4421$1`), "Shadowed at rules[1].pattern"},
		{"a length more", edited(`^(\d{5,7})$ → $1`, `^(\d{5,8})$ → $1`), ""},
		{"letters", edited(`^(abc)$ → $1`), "NeverMatches at rules[0].pattern"},
		{"nothing", edited(`^()$ → $1`), "NeverMatches at rules[0].pattern"},
		{"longer than what can be dialled", edited(`^(\d{61})$ → $1`), "NeverMatches at rules[0].pattern"},
		{"an invalid rule before", edited(`^(\d+ → $1`, `^(\d{6})$ → $1`), "InvalidRule at rules[0]"},
		// Limits.
		{"description of 512", described(512), ""},
		{"description of 513", described(513), "LimitExceeded at rules[0].description"},
		{"names", named("a b", "A B", "c"), "LimitExceeded at rules[1].name"},
		{"no name", named(""), "InvalidRule at rules[0].name"},
		{"scope in the name", named("Global/x"), "InvalidRule at rules[0].name"},
		// Patterns and translations that cannot be used, or read differently by .NET and Go.
		{"no start", edited(`(\d{6})$ → $1`), "InvalidRule at rules[0]"},
		{"no end", edited(`^(\d{6}) → $1`), "InvalidRule at rules[0]"},
		{"anchors of one alternative", edited(`^(2\d)|(3\d)$ → $1`), "InvalidRule at rules[0]"},
		{"empty", edited(` → $1`), "InvalidRule at rules[0]"},
		{"open group", edited(`^(2\d$ → $1`), "InvalidRule at rules[0]"},
		{"lookahead", edited(`^(?!112)(2\d)$ → $1`), "InvalidRule at rules[0]"},
		{"back reference", edited(`^(\d)\1$ → $1`), "InvalidRule at rules[0]"},
		{"named group", edited(`^(?<x>2\d)$ → $1`), "InvalidRule at rules[0]"},
		{"options", edited(`^(?i)(2\d)$ → $1`), "InvalidRule at rules[0]"},
		{"POSIX class", edited(`^([[:digit:]]{4})$ → $1`), "InvalidRule at rules[0]"},
		{"class subtraction", edited(`^([0-9-[5]]{4})$ → $1`), "InvalidRule at rules[0]"},
		{"possessive", edited(`^(2\d++)$ → $1`), "InvalidRule at rules[0]"},
		{"quoting", edited(`^(\Q2\E)$ → $1`), "InvalidRule at rules[0]"},
		{"large repetition", edited(`^((\d{999}){999})$ → $1`), "InvalidRule at rules[0]"},
		{"long pattern", edited(`^(` + strings.Repeat("2", 2000) + `)$ → $1`), "InvalidRule at rules[0]"},
		{"group that does not exist", edited(`^(2\d)$ → +44$2`), "InvalidRule at rules[0]"},
		{"group 0", edited(`^(2\d)$ → +44$0`), "InvalidRule at rules[0]"},
		{"digit after a group", edited(`^(2\d)$ → +44$10`), "InvalidRule at rules[0]"},
		{"braces", edited(`^(2\d)$ → +44${1}`), "InvalidRule at rules[0]"},
		{"no translation", edited(`^(2\d)$ → `), "InvalidRule at rules[0]"},
		{"space in the result", edited(`^(2\d)$ → +44 $1`), "InvalidRule at rules[0]"},
		// What Microsoft's own pages show is accepted.
		{"samples", edited(`^(\d{4})$ → +1425555$1`, `^5(\d{4})$ → +1425555$1`, `^(\d{7})$ → +1425$1`,
			`^0$ → +14255550100`, `^6222(\d{4})$ → +1425555$1`, `^([3-7]\d{4})$ → +142555$1`,
			`^([2-9]\d\d[2-9]\d{6})$ → 1$1`), ""},
		{"extension rule of a service plan",
			edited(`^((\+)?(\d+))(;)?(ext|extn|EXT|EXTN|x|X)(=)?(\d+)$ → $1;ext=$7`), ""},
	} {
		var got []string
		for _, p := range dialplan.Check(c.rules, []string{"112", "911", "933", "999"}) {
			got = append(got, p.Code+" at "+p.Target)
			if p.Kind != fault.Invalid || p.Message == "" {
				t.Errorf("%s: problem %+v", c.name, p)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}

	many := make([]dialplan.Rule, 51)
	for i := range many {
		many[i] = dialplan.Rule{Name: fmt.Sprint(i), Pattern: fmt.Sprintf("^(2%03d)$", i), Translation: "$1"}
	}
	if got := dialplan.Check(many, nil); len(got) != 1 || got[0].Code != dialplan.CodeLimitExceeded ||
		got[0].Target != "rules" {
		t.Errorf("51 rules: %v, want one problem", got)
	}
	if got := dialplan.Check(many[:50], nil); len(got) != 0 {
		t.Errorf("50 rules: %v, want no problem", got)
	}
}

// TestCheckIsBounded: a pattern whose states are too many to visit ends without a finding on it.
func TestCheckIsBounded(t *testing.T) {
	var rules []dialplan.Rule
	for range 50 {
		rules = append(rules, edited(`^(\d*1\d{25}(?:\d*2\d{25})?\d*3\d{10})$ → $1`)...)
		rules[len(rules)-1].Name += fmt.Sprint(len(rules))
	}
	for _, p := range dialplan.Check(rules, []string{"112"}) {
		t.Errorf("problem %v, want none", p.Error())
	}
}

// TestCheckFindsWhatNeverWins compares with trying all strings of up to five digits; 4 stands for 0 and 4 to 9.
func TestCheckFindsWhatNeverWins(t *testing.T) {
	var all []string
	for from := []string{""}; len(all) < 1300; {
		var longer []string
		for _, s := range from {
			longer = append(longer, s+"1", s+"2", s+"3", s+"4")
		}
		all, from = append(all, longer...), longer
	}

	piece := rapid.SampledFrom([]string{"1", "2", `\d`, "[1-3]", "[013-9]", "(?:1|23)", "2?", "1*", `\d{2}`, "3{1,2}"})
	rapid.Check(t, func(t *rapid.T) {
		var rules []dialplan.Rule
		var compiled []*regexp.Regexp
		for i := range rapid.IntRange(1, 4).Draw(t, "rules") {
			p := "^(" + strings.Join(rapid.SliceOfN(piece, 1, 2).Draw(t, fmt.Sprint("pieces", i)), "") + ")$"
			rules = append(rules, dialplan.Rule{Name: fmt.Sprint("r", i), Pattern: p, Translation: "$1"})
			compiled = append(compiled, regexp.MustCompile(p))
		}
		wins := map[string]bool{}
		for _, s := range all {
			i := slices.IndexFunc(compiled, func(re *regexp.Regexp) bool { return re.MatchString(s) })
			wins[fmt.Sprintf("rules[%d].pattern", i)] = true
		}
		problems := dialplan.Check(rules, nil)
		for i, r := range rules {
			at := fmt.Sprintf("rules[%d].pattern", i)
			found := slices.ContainsFunc(problems, func(p fault.Error) bool { return p.Target == at })
			if found == wins[at] {
				t.Errorf("rule %d, %s, of %v: problem found %v, first to match a string %v", i, r.Pattern, compiled,
					found, wins[at])
			}
		}
	})
}

func TestCheckPlan(t *testing.T) {
	for _, c := range []struct {
		id          string
		description int
		ok          bool
	}{
		{"Tandem-E164", 0, true}, {"a", 1040, true}, {"Tandem.GB-2", 3, true}, {strings.Repeat("a", 49), 0, true},
		{"", 0, false}, {".a", 0, false}, {"a b", 0, false}, {"a_b", 0, false}, {"ä", 0, false},
		{strings.Repeat("a", 50), 0, false}, {"a", 1041, false}, {"a(b)", 0, false}, {"a\n", 0, false},
	} {
		err := dialplan.CheckPlan(c.id, strings.Repeat("é", c.description))
		if c.ok != (err == nil) || err != nil && !fault.HasCode(err, dialplan.CodeLimitExceeded) {
			t.Errorf("CheckPlan(%q, %d characters) = %v, want ok %v", c.id, c.description, err, c.ok)
		}
	}
}

// TestEmergencyStrings: the same as the table that routing uses, which is compared with libphonenumber there.
func TestEmergencyStrings(t *testing.T) {
	table, err := os.ReadFile("../../calls/route/emergency.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, iso := range []string{"FR", "ZA", "GN"} {
		_, rest, _ := strings.Cut(string(table), "\n"+iso)
		line, _, _ := strings.Cut(rest, "\n")
		want := strings.Fields(line)
		if got, err := dialplan.EmergencyStrings(iso); err != nil || !slices.Equal(got, want) {
			t.Errorf("EmergencyStrings(%s) = %q, %v, want %q", iso, got, err, want)
		}
	}
	if _, err := dialplan.EmergencyStrings("XX"); !fault.Is(err, fault.Invalid) {
		t.Errorf("EmergencyStrings(XX): %v, want an error", err)
	}
}
