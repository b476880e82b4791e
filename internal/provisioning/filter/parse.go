package filter

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/tandemgw/tandem/internal/domain/fault"
)

// CodeInvalidFilter is the error code of a filter that cannot be parsed. The message names the position.
const CodeInvalidFilter = "InvalidFilter"

// Limits of an expression. They bound the work that a caller can cause in the database.
const (
	MaxLength   = 2048 // bytes of the whole expression
	MaxDepth    = 32   // nested parentheses and nots
	MaxCompares = 64   // comparisons, startswith included
)

// Parse parses text as a filter on the resource that t describes. Empty text is an error: the caller knows whether the
// parameter was given. Errors are *fault.Error of kind Invalid with code InvalidFilter, target "filter" and a message
// that names the position, counted in characters from 1.
func Parse(t *Table, text string) (Expr, error) {
	p := &parser{table: t, text: text}
	if len(text) > MaxLength {
		return nil, p.errorf(0, "the expression has %d bytes; at most %d are allowed", len(text), MaxLength)
	}
	for i, r := range text {
		if r == utf8.RuneError {
			if _, n := utf8.DecodeRuneInString(text[i:]); n <= 1 {
				return nil, p.errorf(i, "not valid UTF-8")
			}
		}
		if r < ' ' && r != '\t' || r == 0x7f {
			return nil, p.errorf(i, "control characters are not allowed")
		}
	}
	p.next()
	e, err := p.or(0)
	if err != nil {
		return nil, err
	}
	if p.tok.kind != end {
		return nil, p.unexpected("\"and\", \"or\" or the end")
	}
	return e, nil
}

type tokenKind uint8

const (
	end tokenKind = iota
	word
	text
	open
	closing
	comma
	unfinished // a string without its closing quote
	other
)

type token struct {
	kind tokenKind
	pos  int    // byte offset
	s    string // the word, the string's content, or the character
}

type parser struct {
	table    *Table
	text     string
	at       int // offset of the byte after tok
	tok      token
	compares int
}

// next reads one token. It never fails: text that cannot be read becomes a token that no rule accepts.
func (p *parser) next() {
	for p.at < len(p.text) && (p.text[p.at] == ' ' || p.text[p.at] == '\t') {
		p.at++
	}
	start := p.at
	if start == len(p.text) {
		p.tok = token{kind: end, pos: start}
		return
	}
	single := func(k tokenKind) {
		p.at++
		p.tok = token{kind: k, pos: start, s: p.text[start:p.at]}
	}
	switch c := p.text[start]; {
	case c == '(':
		single(open)
	case c == ')':
		single(closing)
	case c == ',':
		single(comma)
	case c == '\'':
		p.quoted(start)
	case wordByte(c):
		for p.at < len(p.text) && wordByte(p.text[p.at]) {
			p.at++
		}
		p.tok = token{kind: word, pos: start, s: p.text[start:p.at]}
	default:
		_, n := utf8.DecodeRuneInString(p.text[start:])
		p.at += n
		p.tok = token{kind: other, pos: start, s: p.text[start:p.at]}
	}
}

func wordByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '/' || c == '_' || c == '.' ||
		c == '$' || c == '-'
}

func (p *parser) quoted(start int) {
	var b strings.Builder
	for i := start + 1; i < len(p.text); i++ {
		if p.text[i] != '\'' {
			b.WriteByte(p.text[i])
			continue
		}
		if i+1 < len(p.text) && p.text[i+1] == '\'' {
			b.WriteByte('\'')
			i++
			continue
		}
		p.at = i + 1
		p.tok = token{kind: text, pos: start, s: b.String()}
		return
	}
	p.at = len(p.text)
	p.tok = token{kind: unfinished, pos: start}
}

func (p *parser) is(keyword string) bool { return p.tok.kind == word && p.tok.s == keyword }

func (p *parser) or(depth int) (Expr, error) {
	return p.chain("or", depth, p.and, func(l, r Expr) Expr { return &Or{l, r} })
}

func (p *parser) and(depth int) (Expr, error) {
	return p.chain("and", depth, p.factor, func(l, r Expr) Expr { return &And{l, r} })
}

// chain parses one or more operands with the keyword between them.
func (p *parser) chain(keyword string, depth int, operand func(depth int) (Expr, error),
	join func(l, r Expr) Expr) (Expr, error) {
	l, err := operand(depth)
	for err == nil && p.is(keyword) {
		p.next()
		var r Expr
		r, err = operand(depth)
		l = join(l, r)
	}
	if err != nil {
		return nil, err
	}
	return l, nil
}

func (p *parser) factor(depth int) (Expr, error) {
	if depth > MaxDepth {
		return nil, p.errorf(p.tok.pos, "parentheses and nots are nested deeper than %d", MaxDepth)
	}
	switch {
	case p.is("not"):
		p.next()
		if p.tok.kind != open && !p.is("not") && !p.is("startswith") {
			return nil, p.unexpected("\"(\" or startswith after not")
		}
		x, err := p.factor(depth + 1)
		if err != nil {
			return nil, err
		}
		return &Not{x}, nil
	case p.tok.kind == open:
		p.next()
		x, err := p.or(depth + 1)
		if err != nil {
			return nil, err
		}
		if p.tok.kind != closing {
			return nil, p.unexpected("\"and\", \"or\" or \")\"")
		}
		p.next()
		return x, nil
	case p.tok.kind == word:
		if p.compares++; p.compares > MaxCompares {
			return nil, p.errorf(p.tok.pos, "more than %d comparisons", MaxCompares)
		}
		if p.is("startswith") {
			return p.prefix()
		}
		return p.compare()
	}
	return nil, p.unexpected("a field name, not, startswith or \"(\"")
}

func (p *parser) field() (*Field, error) {
	if p.tok.kind != word {
		return nil, p.unexpected("a field name")
	}
	f := p.table.Fields[p.tok.s]
	if f == nil {
		switch p.tok.s {
		case "eq", "ne", "and", "or", "not", "true", "false":
			return nil, p.unexpected("a field name")
		}
		return nil, p.errorf(p.tok.pos, "%q is not a field of %s that can be filtered on", shorten(p.tok.s),
			p.table.Resource)
	}
	p.next()
	return f, nil
}

func (p *parser) compare() (Expr, error) {
	f, err := p.field()
	if err != nil {
		return nil, err
	}
	c := &Compare{Field: f}
	switch {
	case p.is("eq"):
	case p.is("ne"):
		c.Negated = true
	default:
		return nil, p.unexpected("eq or ne after " + f.Path)
	}
	p.next()
	if err := p.plus(f); err != nil {
		return nil, err
	}
	switch {
	case p.tok.kind == text && f.Type == String:
		c.Value = StringValue(f.fold(p.tok.s))
	case (p.is("true") || p.is("false")) && f.Type == Bool:
		c.Value = BoolValue(p.tok.s == "true")
	case f.Type == Bool:
		return nil, p.unexpected("true or false, as " + f.Path + " is a boolean")
	default:
		return nil, p.unexpected("a string in single quotes, as " + f.Path + " is a string")
	}
	p.next()
	return c, nil
}

func (p *parser) prefix() (Expr, error) {
	p.next()
	if p.tok.kind != open {
		return nil, p.unexpected("\"(\" after startswith")
	}
	p.next()
	at := p.tok.pos
	f, err := p.field()
	if err != nil {
		return nil, err
	}
	if f.Type != String {
		return nil, p.errorf(at, "startswith takes a string field; %s is a boolean", f.Path)
	}
	if p.tok.kind != comma {
		return nil, p.unexpected("\",\" after " + f.Path)
	}
	p.next()
	if p.tok.kind != text {
		return nil, p.unexpected("a string in single quotes")
	}
	if err := p.plus(f); err != nil {
		return nil, err
	}
	e := &Prefix{Field: f, Prefix: f.fold(p.tok.s)}
	p.next()
	if p.tok.kind != closing {
		return nil, p.unexpected("\")\"")
	}
	p.next()
	return e, nil
}

// plus catches a mistake that would otherwise silently match nothing: a "+" written raw in a URL's query arrives as a
// space.
func (p *parser) plus(f *Field) error {
	if p.tok.kind == text && f.Path == "telephoneNumber" && strings.HasPrefix(p.tok.s, " ") {
		return p.errorf(p.tok.pos+1, "a telephone number begins with \"+\"; write it as %%2B in a URL")
	}
	return nil
}

func (f *Field) fold(s string) string {
	if f.Lower {
		return strings.ToLower(s)
	}
	return s
}

func (p *parser) unexpected(want string) error {
	got := fmt.Sprintf("%q", shorten(p.tok.s))
	switch p.tok.kind {
	case end:
		got = "the end"
	case text:
		got = "a string"
	case unfinished:
		return p.errorf(p.tok.pos, "the string that begins here has no closing quote (write a quote inside a "+
			"string twice)")
	}
	return p.errorf(p.tok.pos, "want %s, got %s", want, got)
}

// shorten keeps error messages short whatever was sent.
func shorten(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}

func (p *parser) errorf(offset int, format string, args ...any) error {
	pos := utf8.RuneCountInString(p.text[:offset]) + 1
	return fault.New(fault.Invalid, CodeInvalidFilter, "filter: position %d: %s", pos,
		fmt.Sprintf(format, args...)).At("filter")
}
