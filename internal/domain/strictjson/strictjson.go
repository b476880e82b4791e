// Package strictjson reads JSON strictly, for input on which decisions depend: request bodies, tokens, key sets. Names
// are case-sensitive, no object has two members of the same name, nothing follows the value, and each member has the
// required type.
//
// encoding/json alone takes the last of two members with the same name, ignores case, replaces invalid characters with
// U+FFFD, and does not say in helpful words which member has the wrong type. The text is therefore read into a tree
// first (Parse) and then into the caller's types (Reader and Object). Errors are *fault.Error of kind Invalid.
package strictjson

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/tandemgw/tandem/internal/domain/fault"
)

// The error codes, in the contract's error vocabulary. docs/provisioning-errors.md lists them for callers.
const (
	CodeInvalidJSON    = "InvalidJson"        // not one JSON value in UTF-8, or nested too deep
	CodeDuplicateField = "DuplicateField"     // an object has two members of the same name
	CodeUnknownField   = "UnknownField"       // a member that is not in the contract
	CodeMissingField   = "MissingField"       // a required member is missing
	CodeInvalidType    = "InvalidFieldType"   // a member has the wrong JSON type
	CodeInvalidValue   = "InvalidFieldValue"  // a string contains a NUL character or half a surrogate pair
	CodeInvalidBody    = "InvalidRequestBody" // several of the above; details lists them
)

// Kinds of JSON values, as named in messages.
const (
	KindObject = "an object"
	KindArray  = "an array"
	KindString = "a string"
	KindNumber = "a number"
	KindBool   = "a boolean"
	KindNull   = "null"
)

// Node is one JSON value.
type Node struct {
	Kind    string
	Text    string   // of a string, or a number as written
	Truth   bool     // of a boolean
	Members []Member // of an object, in their order
	Items   []*Node  // of an array
}

// Member is a member of an object.
type Member struct {
	Name  string
	Value *Node
}

const maxDepth = 16 // the contract's bodies have 6 levels

func invalid(code, target, format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, code, format, args...).At(target)
}

// Parse reads exactly one JSON object (RFC 8259), in UTF-8.
func Parse(raw []byte) (*Node, error) {
	if !utf8.Valid(raw) {
		return nil, invalid(CodeInvalidJSON, "", "the body is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	n, err := readNode(d, "", 0)
	if f := (*fault.Error)(nil); errors.As(err, &f) {
		return nil, f
	}
	if err != nil {
		where := d.InputOffset()
		if s := (*json.SyntaxError)(nil); errors.As(err, &s) {
			where = s.Offset
		}
		return nil, invalid(CodeInvalidJSON, "", "the body is not JSON: an error at byte %d", where)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, invalid(CodeInvalidJSON, "", "the body continues after the JSON value, at byte %d", d.InputOffset())
	}
	if at := halfCharacter(raw); at >= 0 {
		return nil, invalid(CodeInvalidValue, "",
			"the escape at byte %d is one half of a surrogate pair, which is not a character", at)
	}
	if n.Kind != KindObject {
		return nil, invalid(CodeInvalidType, "", "the body must be an object, not %s", n.Kind)
	}
	return n, nil
}

// halfCharacter returns the offset in raw, which is JSON, of an escaped half of a surrogate pair without its other
// half, or -1. The decoder would replace it with U+FFFD, so that the stored text would differ from the text sent.
func halfCharacter(raw []byte) int {
	unit := func(at int) rune { // the code unit escaped at this offset, or 0
		if at+6 > len(raw) || raw[at] != '\\' || raw[at+1] != 'u' {
			return 0
		}
		v, err := strconv.ParseUint(string(raw[at+2:at+6]), 16, 16)
		if err != nil {
			return 0
		}
		return rune(v)
	}
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		if u := unit(i); utf16.IsSurrogate(u) {
			if utf16.DecodeRune(u, unit(i+6)) == utf8.RuneError {
				return i
			}
			i += 6
		}
		i++ // the escaped character, which may be a backslash
	}
	return -1
}

func readNode(d *json.Decoder, path string, depth int) (*Node, error) {
	if depth > maxDepth {
		return nil, invalid(CodeInvalidJSON, path, "the body is nested deeper than %d levels", maxDepth)
	}
	tok, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch v := tok.(type) {
	case string:
		if strings.ContainsRune(v, 0) {
			return nil, invalid(CodeInvalidValue, path, "the string contains a NUL character, which cannot be stored")
		}
		return &Node{Kind: KindString, Text: v}, nil
	case json.Number:
		return &Node{Kind: KindNumber, Text: v.String()}, nil
	case bool:
		return &Node{Kind: KindBool, Truth: v}, nil
	case nil:
		return &Node{Kind: KindNull}, nil
	}
	if tok == json.Delim('[') {
		n := &Node{Kind: KindArray}
		for i := 0; d.More(); i++ {
			item, err := readNode(d, Index(path, i), depth+1)
			if err != nil {
				return nil, err
			}
			n.Items = append(n.Items, item)
		}
		_, err := d.Token()
		return n, err
	}

	n := &Node{Kind: KindObject}
	seen := map[string]bool{}
	for d.More() {
		tok, err := d.Token()
		if err != nil {
			return nil, err
		}
		name, _ := tok.(string) // the decoder accepts nothing else
		at := Join(path, name)
		if seen[name] {
			return nil, invalid(CodeDuplicateField, at, "the member %s appears twice", at)
		}
		seen[name] = true
		value, err := readNode(d, at, depth+1)
		if err != nil {
			return nil, err
		}
		n.Members = append(n.Members, Member{name, value})
	}
	_, err = d.Token()
	return n, err
}

// Join returns the path of a member of the object at path, cut to a length suitable for a message, because the names
// come from untrusted input.
func Join(path, name string) string {
	if path != "" {
		path += "."
	}
	return clip(path + name)
}

// Index returns the path of an item of the array at path, cut as Join cuts it.
func Index(path string, i int) string { return clip(path + "[" + strconv.Itoa(i) + "]") }

func clip(path string) string {
	const most = 300
	if len(path) > most {
		return strings.ToValidUTF8(path[:most], "") + "…"
	}
	return path
}

// Canonical writes the value in a canonical form: equal values give equal output. A nil node writes nothing.
func (n *Node) Canonical(w io.Writer) {
	if n == nil {
		return
	}
	switch n.Kind {
	case KindObject:
		m := slices.Clone(n.Members)
		slices.SortFunc(m, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
		_, _ = io.WriteString(w, "{") // w is a hash, which does not fail
		for _, m := range m {
			_, _ = fmt.Fprintf(w, "%q:", m.Name)
			m.Value.Canonical(w)
			_, _ = io.WriteString(w, ",")
		}
		_, _ = io.WriteString(w, "}")
	case KindArray:
		_, _ = io.WriteString(w, "[")
		for _, i := range n.Items {
			i.Canonical(w)
			_, _ = io.WriteString(w, ",")
		}
		_, _ = io.WriteString(w, "]")
	case KindString:
		_, _ = fmt.Fprintf(w, "%q", n.Text)
	case KindNumber:
		_, _ = io.WriteString(w, n.Text)
	case KindBool:
		_, _ = fmt.Fprint(w, n.Truth)
	default:
		_, _ = io.WriteString(w, "null")
	}
}

// Reader reads a tree into Go types and collects the problems, each with its path.
type Reader struct {
	Problems []fault.Error
}

const maxProblems = 100

// Add records a problem.
func (r *Reader) Add(f *fault.Error) {
	if len(r.Problems) < maxProblems {
		r.Problems = append(r.Problems, *f)
	}
}

// Err returns nil, the only problem, or one error with all problems as details.
func (r *Reader) Err() error {
	switch len(r.Problems) {
	case 0:
		return nil
	case 1:
		return &r.Problems[0]
	}
	return fault.New(fault.Invalid, CodeInvalidBody, "the body has %d problems; details lists them",
		len(r.Problems)).With(r.Problems...)
}

// Object is an object being read: members are taken out by name, and Done reports what is left.
type Object struct {
	r    *Reader
	Path string
	n    *Node
	used map[string]bool
}

// Object begins to read n, which must be an object; path is its place in the body, empty for the body itself.
func (r *Reader) Object(n *Node, path string) *Object {
	if !r.Is(n, KindObject, path) {
		n = nil
	}
	return &Object{r, path, n, map[string]bool{}}
}

// Is reports whether n is of the given kind, and adds a problem if not.
func (r *Reader) Is(n *Node, kind, path string) bool {
	if n.Kind == kind {
		return true
	}
	r.Add(invalid(CodeInvalidType, path, "%s must be %s, not %s", cmp.Or(path, "the body"), kind, n.Kind))
	return false
}

// Take returns the member, or nil. It adds a problem if a required member is missing.
func (o *Object) Take(name string, required bool) *Node {
	if o.n == nil {
		return nil // its type is already reported
	}
	o.used[name] = true
	for _, m := range o.n.Members {
		if m.Name == name {
			return m.Value
		}
	}
	if required {
		at := Join(o.Path, name)
		o.r.Add(invalid(CodeMissingField, at, "%s is missing", at))
	}
	return nil
}

// Str returns a string, "" if it is missing.
func (o *Object) Str(name string, required bool) string {
	n := o.Take(name, required)
	if n == nil || !o.r.Is(n, KindString, Join(o.Path, name)) {
		return ""
	}
	return n.Text
}

// Bool returns a boolean, false if it is missing.
func (o *Object) Bool(name string, required bool) bool {
	n := o.Take(name, required)
	return n != nil && o.r.Is(n, KindBool, Join(o.Path, name)) && n.Truth
}

// Strings returns a list of strings, which is not nil if the member is present.
func (o *Object) Strings(name string, required bool) []string {
	n := o.Take(name, required)
	at := Join(o.Path, name)
	if n == nil || !o.r.Is(n, KindArray, at) {
		return nil
	}
	l := make([]string, 0, len(n.Items))
	for i, item := range n.Items {
		if o.r.Is(item, KindString, Index(at, i)) {
			l = append(l, item.Text)
		}
	}
	return l
}

// StringOrStrings returns the strings of a member that is a string or a list of strings (RFC 7519 §4.1.3); nil if it is
// missing.
func (o *Object) StringOrStrings(name string) []string {
	n := o.Take(name, false)
	if n != nil && n.Kind == KindString {
		return []string{n.Text}
	}
	return o.Strings(name, false)
}

// Child returns an object, nil if it is missing.
func (o *Object) Child(name string, required bool) *Object {
	n := o.Take(name, required)
	if n == nil {
		return nil
	}
	return o.r.Object(n, Join(o.Path, name))
}

// Ignore accepts members that callers may send back and that have no effect.
func (o *Object) Ignore(names ...string) {
	for _, n := range names {
		o.used[n] = true
	}
}

// Done reports the members that were not taken.
func (o *Object) Done() {
	if o.n == nil {
		return
	}
	for _, m := range o.n.Members {
		if !o.used[m.Name] {
			at := Join(o.Path, m.Name)
			o.r.Add(invalid(CodeUnknownField, at, "%s is not a member that the contract defines", at))
		}
	}
}
