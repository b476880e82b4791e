package dialplan

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/tandemgw/tandem/internal/domain/fault"
)

// Codes of the problems that Check finds.
const (
	CodeEmergencyRewritten = "EmergencyRewritten" // a rule changes an emergency string
	CodeNeverMatches       = "NeverMatches"       // no string matches the rule
	CodeShadowed           = "Shadowed"           // an earlier rule matches every string that the rule matches
	CodeLimitExceeded      = "LimitExceeded"      // Teams would refuse the plan
	CodeInvalidRule        = "InvalidRule"        // the rule cannot be used, or cannot be checked
)

// maxPattern bounds a pattern. Microsoft publishes no limit; the longest that Rules makes has 1,000 characters.
const maxPattern = 2000

var (
	// dialect is the subset of patterns that .NET and Go read alike: literals, ".", classes, \d, groups, alternatives
	// and repetitions between ^ and $. Lookarounds, back references, named groups and options are outside it.
	dialect = regexp.MustCompile(`^\^(?:\((?:\?:)?|\||(?:[0-9A-Za-z ;=,:/.)#-]|\\[dD.*+?^$()\[\]{}|\\/#-]|` +
		`\[\^?(?:[^\[\]\\]|\\[dD.*+?^$|#-])+\])(?:(?:[*+?]|\{[0-9]{1,3}(?:,[0-9]{0,3})?\})\??)?)*\$$`)
	// result is a translation. A digit after "$1" would be read as part of the group's number.
	result    = regexp.MustCompile(`^[0-9]*(?:\$[1-9]|[A-Za-z+*#;=][0-9]*)*$`)
	reference = regexp.MustCompile(`\$([1-9])`)
	identity  = regexp.MustCompile(`^[A-Za-z0-9-][A-Za-z0-9.-]*$`)
	separator = strings.NewReplacer(" ", "", "\u00a0", "", "-", "", ".", "", "(", "", ")", "", "/", "")
)

// CheckPlan checks the identity and the description of a dial plan against the limits of New-CsTenantDialPlan.
func CheckPlan(id, description string) error {
	if !identity.MatchString(id) || len(id) > maxIdentity {
		return limit("identity", "%q is not 1 to %d letters, digits, \"-\" and, not first, \".\"", id, maxIdentity)
	}
	if utf8.RuneCountInString(description) > maxDescription {
		return limit("description", "the description has more than %d characters; shorten it", maxDescription)
	}
	return nil
}

func limit(target, format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, CodeLimitExceeded, format, args...).At(target)
}

// compile returns the rule's pattern and its translation in Go's form.
func (r *Rule) compile() (*regexp.Regexp, string, error) {
	if len(r.Pattern) > maxPattern || !dialect.MatchString(r.Pattern) {
		return nil, "", fmt.Errorf("the pattern is not ^, at most %d characters of digits, classes, groups, "+
			"alternatives and repetitions, and $", maxPattern)
	}
	re, err := regexp.Compile(r.Pattern)
	if err != nil {
		return nil, "", fmt.Errorf("the pattern is no regular expression: %w", err)
	}
	if tree, err := syntax.Parse(r.Pattern, syntax.Perl); err != nil || tree.Op == syntax.OpAlternate {
		return nil, "", errors.New("^ and $ belong to one alternative each; put the alternatives into parentheses")
	}
	if r.Translation == "" || !result.MatchString(r.Translation) {
		return nil, "", errors.New("the translation is not digits, letters, \"+*#;=\" and $1 to $9, which no digit " +
			"may follow")
	}
	for _, m := range reference.FindAllStringSubmatch(r.Translation, -1) {
		if n := int(m[1][0] - '0'); n > re.NumSubexp() {
			return nil, "", fmt.Errorf("the translation has %s, and the pattern has %d groups", m[0], re.NumSubexp())
		}
	}
	return re, reference.ReplaceAllString(r.Translation, "$${$1}"), nil
}

// Plan is a list of rules, ready for use. It is read-only and safe for concurrent use.
type Plan []compiled

// compiled is a rule; re is nil if err is not.
type compiled struct {
	re          *regexp.Regexp
	translation string
	err         error
}

// Compile makes a plan of rules. Invalid rules match nothing; Check reports them.
func Compile(rules []Rule) Plan {
	p := make(Plan, len(rules))
	for i := range rules {
		p[i].re, p[i].translation, p[i].err = rules[i].compile()
	}
	return p
}

// Normalise returns the index of the first rule that matches a number as dialled, and its result; -1 and the number, if
// none matches. Spaces, "-", ".", "/" and parentheses are ignored, as clients do (inferred).
func (p Plan) Normalise(dialled string) (rule int, number string) {
	number = separator.Replace(dialled)
	rule = slices.IndexFunc(p, func(c compiled) bool { return c.err == nil && c.re.MatchString(number) })
	if rule >= 0 {
		number = p[rule].re.ReplaceAllString(number, p[rule].translation)
	}
	return rule, number
}

// Normalise is Plan.Normalise for a single number.
func Normalise(rules []Rule, dialled string) (rule int, number string) {
	return Compile(rules).Normalise(dialled)
}

// Check returns the problems of a plan that a person edited, each with its rule as the target. emergency are the
// strings that the plan may not change: those of the deployment and EmergencyStrings of the country.
func Check(rules []Rule, emergency []string) (problems []fault.Error) {
	add := func(code, target, format string, args ...any) {
		problems = append(problems, *fault.New(fault.Invalid, code, format, args...).At(target))
	}
	if len(rules) > maxRules {
		add(CodeLimitExceeded, "rules", "the plan has %d rules; Teams allows %d", len(rules), maxRules)
		rules = rules[:maxRules]
	}

	plan, seen := Compile(rules), map[string]int{}
	for i := range rules {
		r, at := &rules[i], fmt.Sprintf("rules[%d]", i)
		name := strings.ToLower(r.Name)
		if j, ok := seen[name]; ok {
			add(CodeLimitExceeded, at+".name", "rule %d has the name %q too; names are unique", j+1, r.Name)
		}
		seen[name] = i
		if r.Name == "" || strings.Contains(r.Name, "/") {
			add(CodeInvalidRule, at+".name", "%q is no name; give one without \"/\"", r.Name)
		}
		if n := utf8.RuneCountInString(r.Description); n > maxRuleDescription {
			add(CodeLimitExceeded, at+".description", "the description has %d characters; Teams allows %d", n,
				maxRuleDescription)
		}
		if err := plan[i].err; err != nil {
			add(CodeInvalidRule, at, "%v", err)
		}
	}

	for _, e := range emergency {
		if i, got := plan.Normalise(e); got != e {
			add(CodeEmergencyRewritten, fmt.Sprintf("rules[%d]", i), "the rule makes %q of the emergency number %s; "+
				"put a rule before it that keeps the number", got, e)
		}
		if i, got := plan.Normalise("+" + e); got != "+"+e && got != e {
			add(CodeEmergencyRewritten, fmt.Sprintf("rules[%d]", i), "the rule makes %q of +%s, a form in which Teams "+
				"knows the emergency number; put a rule before it that keeps the number", got, e)
		}
	}

	first, done := explore(rules)
	for i := range rules {
		if plan[i].err != nil || first[i] != "" || !done {
			continue
		}
		at := fmt.Sprintf("rules[%d].pattern", i)
		if alone, _ := explore(rules[i : i+1]); alone[0] == "" {
			add(CodeNeverMatches, at, "no dialled number matches the pattern; remove the rule")
		} else {
			j, _ := plan.Normalise(alone[0])
			add(CodeShadowed, at, "earlier rules, such as rule %d (%s), match every number that this one matches; "+
				"move it before them or remove it", j+1, rules[j].Name)
		}
	}
	return problems
}

const (
	// dialable are the characters of dialled strings, those of ";ext=" and its other spellings included.
	dialable = "0123456789+*#;=extnEXTN"
	// maxDialled is the maximum length of a dialled string that explore considers (inferred): the longest number of a
	// Direct Routing user has 38 digits, and an extension 12.
	maxDialled = 60
	// maxWork bounds explore to about a second.
	maxWork = 3_000_000
)

// explore returns, for each rule, the shortest dialled string that it is the first to match; empty for none, and for
// invalid rules. It follows the sets of places in all patterns that the same string leads to, so the answers are exact.
// done is not set if that is too much work.
func explore(rules []Rule) (first []string, done bool) {
	first = make([]string, len(rules))
	plan, patterns := Compile(rules), []string{}
	for i := range rules {
		if plan[i].err == nil {
			patterns = append(patterns, rules[i].Pattern)
		}
	}
	tree, err := syntax.Parse(strings.Join(patterns, "|"), syntax.Perl)
	if err != nil {
		return first, false
	}
	program, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return first, false
	}

	type state struct {
		word string
		at   []uint32 // the instructions that may read the next character
	}
	queue, seen := []state{{at: readers(program, []uint32{uint32(program.Start)})}}, map[string]bool{}
	for work := 0; len(queue) > 0; queue = queue[1:] {
		s := queue[0]
		if work += len(dialable) * (len(s.at) + len(rules)); work > maxWork {
			return first, false
		}
		for _, c := range dialable {
			var to []uint32
			for _, pc := range s.at {
				if in := &program.Inst[pc]; in.MatchRune(c) {
					to = append(to, in.Out)
				}
			}
			key, word := fmt.Sprint(to), s.word+string(c)
			if len(to) == 0 || len(word) > maxDialled || seen[key] {
				continue
			}
			seen[key] = true
			queue = append(queue, state{word, readers(program, to)})
			if i, _ := plan.Normalise(word); i >= 0 && first[i] == "" {
				first[i] = word
			}
		}
	}
	return first, true
}

// readers returns the instructions that read a character and can be reached without reading one, in ascending order.
func readers(program *syntax.Prog, from []uint32) (at []uint32) {
	seen := map[uint32]bool{}
	var follow func(pc uint32)
	follow = func(pc uint32) {
		if seen[pc] {
			return
		}
		seen[pc] = true
		switch in := &program.Inst[pc]; in.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			follow(in.Out)
			follow(in.Arg)
		case syntax.InstCapture, syntax.InstNop, syntax.InstEmptyWidth:
			follow(in.Out)
		case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
			at = append(at, pc)
		}
	}
	for _, pc := range from {
		follow(pc)
	}
	slices.Sort(at)
	return at
}
