package provapi

import (
	"bytes"
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

// Bodies are read into a tree first and into our types after: encoding/json alone takes the last of two members with one
// name, ignores their case, and cannot tell which member has the wrong type in words that help.

// kinds of JSON values, as they are called in messages.
const (
	kindObject = "an object"
	kindArray  = "an array"
	kindString = "a string"
	kindNumber = "a number"
	kindBool   = "a boolean"
	kindNull   = "null"
)

// node is one JSON value.
type node struct {
	kind    string
	text    string   // of a string, or a number as written
	truth   bool     // of a boolean
	members []member // of an object, in their order
	items   []*node  // of an array
}

type member struct {
	name  string
	value *node
}

const maxJSONDepth = 16 // the contract's bodies have 6 levels

// parseJSON reads exactly one JSON object.
func parseJSON(raw []byte) (*node, error) {
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
		return nil, invalid(CodeInvalidJSON, "", "the body goes on after the JSON value, at byte %d", d.InputOffset())
	}
	if at := halfCharacter(raw); at >= 0 {
		return nil, invalid(CodeInvalidValue, "", "the escape at byte %d is one half of a surrogate pair, which is no character", at)
	}
	if n.kind != kindObject {
		return nil, invalid(CodeInvalidType, "", "the body is %s; send an object", n.kind)
	}
	return n, nil
}

// halfCharacter returns where in raw, which is JSON, half a surrogate pair is escaped without its other half; -1 if nowhere.
// The decoder would put U+FFFD in its place, and something else would be stored than was sent.
func halfCharacter(raw []byte) int {
	unit := func(at int) rune { // the code unit escaped at at, or 0
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

func readNode(d *json.Decoder, path string, depth int) (*node, error) {
	if depth > maxJSONDepth {
		return nil, invalid(CodeInvalidJSON, clipPath(path), "the body is nested deeper than %d levels", maxJSONDepth)
	}
	tok, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch v := tok.(type) {
	case string:
		if strings.ContainsRune(v, 0) {
			return nil, invalid(CodeInvalidValue, clipPath(path), "the string holds a NUL character, which cannot be stored")
		}
		return &node{kind: kindString, text: v}, nil
	case json.Number:
		return &node{kind: kindNumber, text: v.String()}, nil
	case bool:
		return &node{kind: kindBool, truth: v}, nil
	case nil:
		return &node{kind: kindNull}, nil
	case json.Delim:
		switch v {
		case '[':
			n := &node{kind: kindArray}
			for i := 0; d.More(); i++ {
				item, err := readNode(d, index(path, i), depth+1)
				if err != nil {
					return nil, err
				}
				n.items = append(n.items, item)
			}
			_, err := d.Token()
			return n, err
		case '{':
			n := &node{kind: kindObject}
			seen := map[string]bool{}
			for d.More() {
				tok, err := d.Token()
				if err != nil {
					return nil, err
				}
				name, ok := tok.(string)
				if !ok {
					return nil, fmt.Errorf("a member's name is not a string")
				}
				at := join(path, name)
				if seen[name] {
					return nil, invalid(CodeDuplicateField, clipPath(at), "the member %s is there twice", clipPath(at))
				}
				seen[name] = true
				value, err := readNode(d, at, depth+1)
				if err != nil {
					return nil, err
				}
				n.members = append(n.members, member{name, value})
			}
			_, err := d.Token()
			return n, err
		}
	}
	return nil, fmt.Errorf("unexpected %v", tok)
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// clipPath bounds a path that strangers chose the names of.
func clipPath(s string) string {
	const most = 300
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// canonical writes the value so that two values that say the same write the same. A nil node writes nothing.
func (n *node) canonical(w io.Writer) {
	if n == nil {
		return
	}
	switch n.kind {
	case kindObject:
		m := slices.Clone(n.members)
		slices.SortFunc(m, func(a, b member) int { return strings.Compare(a.name, b.name) })
		_, _ = io.WriteString(w, "{") // w is a hash, which does not fail
		for _, m := range m {
			_, _ = fmt.Fprintf(w, "%q:", m.name)
			m.value.canonical(w)
			_, _ = io.WriteString(w, ",")
		}
		_, _ = io.WriteString(w, "}")
	case kindArray:
		_, _ = io.WriteString(w, "[")
		for _, i := range n.items {
			i.canonical(w)
			_, _ = io.WriteString(w, ",")
		}
		_, _ = io.WriteString(w, "]")
	case kindString:
		_, _ = fmt.Fprintf(w, "%q", n.text)
	case kindNumber:
		_, _ = io.WriteString(w, n.text)
	case kindBool:
		_, _ = fmt.Fprint(w, n.truth)
	default:
		_, _ = io.WriteString(w, "null")
	}
}

// reader reads a tree into our types and collects what is wrong, each with its path.
type reader struct {
	problems []fault.Error
}

const maxProblems = 100

func (r *reader) add(f *fault.Error) {
	if len(r.problems) < maxProblems {
		r.problems = append(r.problems, *f)
	}
}

// err is nil, the one problem, or one error with all of them as details.
func (r *reader) err() error {
	switch len(r.problems) {
	case 0:
		return nil
	case 1:
		return &r.problems[0]
	}
	return fault.New(fault.Invalid, CodeInvalidBody, "the body has %d problems; details names each", len(r.problems)).With(r.problems...)
}

// object is an object being read: members are taken out by name, and done reports what is left.
type object struct {
	r    *reader
	path string
	n    *node
	used map[string]bool
}

func (r *reader) object(n *node, path string) *object {
	if !r.is(n, kindObject, path) {
		n = nil
	}
	return &object{r, path, n, map[string]bool{}}
}

func (r *reader) is(n *node, kind, path string) bool {
	if n.kind == kind {
		return true
	}
	r.add(invalid(CodeInvalidType, clipPath(path), "%s is %s, but must be %s", nameOf(path), n.kind, kind))
	return false
}

func nameOf(path string) string {
	if path == "" {
		return "the body"
	}
	return clipPath(path)
}

// take returns the member, or nil. A required one that is missing is a problem.
func (o *object) take(name string, required bool) *node {
	if o.n == nil {
		return nil // its type is the problem already
	}
	o.used[name] = true
	for _, m := range o.n.members {
		if m.name == name {
			return m.value
		}
	}
	if required {
		at := join(o.path, name)
		o.r.add(invalid(CodeMissingField, clipPath(at), "%s is missing", clipPath(at)))
	}
	return nil
}

func (o *object) str(name string, required bool) string {
	n := o.take(name, required)
	if n == nil || !o.r.is(n, kindString, join(o.path, name)) {
		return ""
	}
	return n.text
}

func (o *object) boolean(name string, required bool) bool {
	n := o.take(name, required)
	return n != nil && o.r.is(n, kindBool, join(o.path, name)) && n.truth
}

// strings returns a list that is never nil if the member is there.
func (o *object) strings(name string, required bool) []string {
	n := o.take(name, required)
	at := join(o.path, name)
	if n == nil || !o.r.is(n, kindArray, at) {
		return nil
	}
	l := make([]string, 0, len(n.items))
	for i, item := range n.items {
		if o.r.is(item, kindString, index(at, i)) {
			l = append(l, item.text)
		}
	}
	return l
}

func (o *object) child(name string, required bool) *object {
	n := o.take(name, required)
	if n == nil {
		return nil
	}
	return o.r.object(n, join(o.path, name))
}

// readOnly takes members that callers may send back and that are not looked at.
func (o *object) readOnly(names ...string) {
	for _, n := range names {
		o.used[n] = true
	}
}

// done reports the members that nobody took.
func (o *object) done() {
	if o.n == nil {
		return
	}
	for _, m := range o.n.members {
		if !o.used[m.name] {
			at := clipPath(join(o.path, m.name))
			o.r.add(invalid(CodeUnknownField, at, "%s is not a member that the contract has", at))
		}
	}
}
