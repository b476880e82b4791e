package filter

import "strings"

// Type is the type of a field and of the literals it may be compared with.
type Type uint8

// The types.
const (
	String Type = iota + 1
	Bool
)

// Field is one filterable path of a resource. Fields are compared by pointer: a [Table] hands out one per path.
type Field struct {
	Path string // contract spelling, parts joined with "/"
	Type Type
	// Lower fields hold values in lower case only (GUID keys); [Parse] lowers what they are compared with.
	Lower bool
}

// Value is a literal, or what a resource holds in a field.
type Value struct {
	Type Type
	Str  string // set if Type is String
	Bool bool   // set if Type is Bool
}

// StringValue and BoolValue build values.
func StringValue(s string) Value { return Value{Type: String, Str: s} }

// BoolValue builds a boolean value.
func BoolValue(b bool) Value { return Value{Type: Bool, Bool: b} }

// Expr is one node of a parsed filter: *Compare, *Prefix, *And, *Or or *Not. Expressions are read-only once parsed and
// safe for concurrent use.
type Expr interface {
	precedence() int
	print(b *strings.Builder)
}

// Compare is "field eq literal", or "field ne literal" if Negated. An absent field equals nothing: eq is false, ne true.
type Compare struct {
	Field   *Field
	Negated bool
	Value   Value // of the field's type
}

// Prefix is startswith(field,'prefix'), compared byte for byte. It is false for an absent field, and true for every
// present one if Prefix is empty. The field is a String.
type Prefix struct {
	Field  *Field
	Prefix string
}

// And is true if both sides are.
type And struct{ Left, Right Expr }

// Or is true if either side is.
type Or struct{ Left, Right Expr }

// Not is the opposite of X.
type Not struct{ X Expr }

// Precedences: the higher binds tighter.
const (
	precOr = iota + 1
	precAnd
	precNot
	precAtom
)

func (*Or) precedence() int      { return precOr }
func (*And) precedence() int     { return precAnd }
func (*Not) precedence() int     { return precNot }
func (*Compare) precedence() int { return precAtom }
func (*Prefix) precedence() int  { return precAtom }

// Print writes e in the one form that [Parse] reads back as the same tree. Print(nil) is empty.
func Print(e Expr) string {
	if e == nil {
		return ""
	}
	var b strings.Builder
	e.print(&b)
	return b.String()
}

func (e *Or) print(b *strings.Builder)  { printBinary(b, e.Left, " or ", e.Right, precOr) }
func (e *And) print(b *strings.Builder) { printBinary(b, e.Left, " and ", e.Right, precAnd) }

// printBinary relies on both operators being read left to right: a right operand of the same operator needs parentheses.
func printBinary(b *strings.Builder, l Expr, op string, r Expr, prec int) {
	printGrouped(b, l, l.precedence() < prec)
	b.WriteString(op)
	printGrouped(b, r, r.precedence() <= prec)
}

func printGrouped(b *strings.Builder, e Expr, group bool) {
	if group {
		b.WriteByte('(')
	}
	e.print(b)
	if group {
		b.WriteByte(')')
	}
}

func (e *Not) print(b *strings.Builder) {
	b.WriteString("not ")
	switch e.X.(type) {
	case *Not, *Prefix:
		e.X.print(b)
	default:
		printGrouped(b, e.X, true)
	}
}

func (e *Compare) print(b *strings.Builder) {
	b.WriteString(e.Field.Path)
	if e.Negated {
		b.WriteString(" ne ")
	} else {
		b.WriteString(" eq ")
	}
	if e.Value.Type == Bool {
		if e.Value.Bool {
			b.WriteString("true")
		} else {
			b.WriteString("false")
		}
		return
	}
	printString(b, e.Value.Str)
}

func (e *Prefix) print(b *strings.Builder) {
	b.WriteString("startswith(")
	b.WriteString(e.Field.Path)
	b.WriteByte(',')
	printString(b, e.Prefix)
	b.WriteByte(')')
}

func printString(b *strings.Builder, s string) {
	b.WriteByte('\'')
	b.WriteString(strings.ReplaceAll(s, "'", "''"))
	b.WriteByte('\'')
}
