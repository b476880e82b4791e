package filter

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
	// Lower fields hold lower-case values only (GUID keys); [Parse] lower-cases what they are compared with.
	Lower bool
}

// Value is a literal, or the value of a resource's field.
type Value struct {
	Type Type
	Str  string // set if Type is String
	Bool bool   // set if Type is Bool
}

// StringValue returns a string value.
func StringValue(s string) Value { return Value{Type: String, Str: s} }

// BoolValue returns a boolean value.
func BoolValue(b bool) Value { return Value{Type: Bool, Bool: b} }

// Expr is one node of a parsed filter: *Compare, *Prefix, *And, *Or or *Not. Expressions are read-only once parsed and
// safe for concurrent use.
type Expr interface{ expr() }

// Compare is "field eq literal", or "field ne literal" if Negated. An absent field equals nothing: eq is false, ne
// true.
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

func (*Or) expr()      {}
func (*And) expr()     {}
func (*Not) expr()     {}
func (*Compare) expr() {}
func (*Prefix) expr()  {}
