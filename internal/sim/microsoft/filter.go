package microsoft

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// filterParser reads the part of OData's filters that the product can need: and, or, not, eq, ne, in, startsWith,
// and any with a condition.
type filterParser struct {
	tokens   []string
	kind     string
	variable string   // of the surrounding any
	advanced bool     // needs ConsistencyLevel: eventual and $count=true
	names    []string // of the properties that it reads
	text     string
}

type predicate func(Object) bool

var filterTokens = regexp.MustCompile(`\s*('(?:[^']|'')*'|[(),:]|[^\s(),:']+)`)

// parseFilter returns a filter's condition, and the parser for what it found. An empty filter holds.
func parseFilter(text, kind string) (predicate, *filterParser, error) {
	p := &filterParser{kind: kind, text: text}
	if text == "" {
		return func(Object) bool { return true }, p, nil
	}
	for _, m := range filterTokens.FindAllStringSubmatch(text, -1) {
		p.tokens = append(p.tokens, m[1])
	}
	f, err := p.or()
	if err == nil && len(p.tokens) > 0 {
		err = p.fail()
	}

	return f, p, err
}

func (p *filterParser) fail() error { return refuse("graph-filter", p.text) }

func (p *filterParser) peek() string {
	if len(p.tokens) == 0 {
		return ""
	}
	return p.tokens[0]
}

func (p *filterParser) take() string {
	t := p.peek()
	if t != "" {
		p.tokens = p.tokens[1:]
	}
	return t
}

func (p *filterParser) expect(t string) error {
	if p.take() != t {
		return p.fail()
	}
	return nil
}

func (p *filterParser) or() (predicate, error) {
	left, err := p.and()
	for err == nil && p.peek() == "or" {
		p.take()
		var right predicate
		before := left
		right, err = p.and()
		left = func(o Object) bool { return before(o) || right(o) }
	}

	return left, err
}

func (p *filterParser) and() (predicate, error) {
	left, err := p.unary()
	for err == nil && p.peek() == "and" {
		p.take()
		var right predicate
		before := left
		right, err = p.unary()
		left = func(o Object) bool { return before(o) && right(o) }
	}

	return left, err
}

func (p *filterParser) unary() (predicate, error) {
	switch p.peek() {
	case "not":
		p.take()
		p.advanced = true
		f, err := p.unary()
		return func(o Object) bool { return !f(o) }, err
	case "(":
		p.take()
		f, err := p.or()
		if err != nil {
			return nil, err
		}
		return f, p.expect(")")
	case "startsWith", "startswith":
		p.take()
		return p.startsWith()
	}

	return p.comparison()
}

func (p *filterParser) startsWith() (predicate, error) {
	if err := p.expect("("); err != nil {
		return nil, err
	}
	get, err := p.path()
	if err != nil {
		return nil, err
	}
	if err := p.expect(","); err != nil {
		return nil, err
	}
	want, ok := p.literal().(string)
	if !ok {
		return nil, p.fail()
	}

	return func(o Object) bool {
		v, _ := get(o).(string)
		return strings.HasPrefix(strings.ToLower(v), strings.ToLower(want))
	}, p.expect(")")
}

// path reads a property, below the variable of an any where there is one.
func (p *filterParser) path() (func(Object) any, error) {
	name := p.take()
	if p.variable != "" {
		below, ok := strings.CutPrefix(name, p.variable+"/")
		switch {
		case name == p.variable:
			return func(o Object) any { return o[""] }, nil
		case !ok:
			return nil, p.fail()
		}
		return func(o Object) any { return o[below] }, nil
	}
	if !slices.Contains(known[p.kind], name) {
		return nil, refuse("graph-property", name, p.kind)
	}

	p.names = append(p.names, name)

	return func(o Object) any { return o[name] }, nil
}

func (p *filterParser) comparison() (predicate, error) {
	if list, ok := strings.CutSuffix(p.peek(), "/any"); ok && p.variable == "" {
		p.take()
		return p.any(list)
	}
	get, err := p.path()
	if err != nil {
		return nil, err
	}
	op := p.take()
	if op == "in" {
		return p.in(get)
	}
	want := p.literal()
	if want == errLiteral || op != "eq" && op != "ne" {
		return nil, p.fail()
	}
	if op == "ne" || p.variable != "" && strings.Contains(p.text, "capabilityStatus") {
		p.advanced = true
	}

	return func(o Object) bool { return equal(get(o), want) == (op == "eq") }, nil
}

func (p *filterParser) in(get func(Object) any) (predicate, error) {
	if err := p.expect("("); err != nil {
		return nil, err
	}
	var list []any
	for {
		v := p.literal()
		if v == errLiteral {
			return nil, p.fail()
		}
		list = append(list, v)
		if p.peek() != "," {
			break
		}
		p.take()
	}

	return func(o Object) bool {
		return slices.ContainsFunc(list, func(v any) bool { return equal(get(o), v) })
	}, p.expect(")")
}

func (p *filterParser) any(list string) (predicate, error) {
	if !slices.Contains(known[p.kind], list) {
		return nil, refuse("graph-property", list, p.kind)
	}
	if err := p.expect("("); err != nil {
		return nil, err
	}
	p.variable, p.names = p.take(), append(p.names, list)
	if err := p.expect(":"); err != nil {
		return nil, err
	}
	f, err := p.or()
	if err != nil {
		return nil, err
	}
	p.variable = ""

	return func(o Object) bool {
		switch values := o[list].(type) {
		case []Object:
			return slices.ContainsFunc(values, f)
		case []string:
			return slices.ContainsFunc(values, func(v string) bool { return f(Object{"": v}) })
		}
		return false
	}, p.expect(")")
}

// errLiteral is what literal returns for what is no literal.
var errLiteral any = new(int)

func (p *filterParser) literal() any {
	t := p.take()
	switch {
	case strings.HasPrefix(t, "'"):
		return strings.ReplaceAll(t[1:len(t)-1], "''", "'")
	case t == "null":
		return nil
	case t == "true" || t == "false":
		return t == "true"
	case isGUID(t):
		return t
	}

	return errLiteral
}

// equal compares values; text without regard to case.
func equal(a, b any) bool {
	x, isText := a.(string)
	y, both := b.(string)
	if isText && both {
		return strings.EqualFold(x, y)
	}
	return !isText && !both && fmt.Sprint(a) == fmt.Sprint(b) && (a == nil) == (b == nil)
}
