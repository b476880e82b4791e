package strict

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxDepth bounds nesting: no setting is deeper, and the decoder is recursive.
const maxDepth = 32

// Document is a document that was read. It records the position of each value, so that later checks can point at it.
type Document struct {
	source    string
	positions map[string]position
}

type position struct {
	source       string
	line, column int
}

// NewDocument returns an empty document, for starting from defaults.
func NewDocument() *Document {
	return &Document{source: "defaults", positions: map[string]position{}}
}

// Decode reads text over v, which must be a pointer to a struct holding the defaults. It returns the document and every
// mistake; v holds what could be read. source names the text in problems.
func Decode(source string, text []byte, v any) (*Document, Problems) {
	d := &decoder{doc: &Document{source: source, positions: map[string]position{}}}
	file, err := parser.ParseBytes(text, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return d.doc, Problems{syntaxProblem(source, err)}
	}
	docs := 0
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if docs++; docs > 1 {
			d.problem(doc.Body, "", "a second document begins here; put all settings into one")
			break
		}
		d.value(doc.Body, reflect.ValueOf(v).Elem(), "", 0)
	}
	return d.doc, d.problems
}

// At returns a problem about the value at path: at its position in the document, or at that of the nearest enclosing
// value that the document has.
func (doc *Document) At(path, format string, args ...any) Problem {
	p := Problem{Source: doc.source, Path: path, Message: fmt.Sprintf(format, args...)}
	for at := path; ; at = Parent(at) {
		if pos, ok := doc.positions[at]; ok {
			p.Source, p.Line, p.Column = pos.source, pos.line, pos.column
			return p
		}
		if at == "" {
			return p
		}
	}
}

// Has reports whether the document has a value at path.
func (doc *Document) Has(path string) bool {
	_, ok := doc.positions[path]
	return ok
}

// Parent returns path without its last step.
func Parent(path string) string {
	i := strings.LastIndexAny(path, ".[")
	if i < 0 {
		return ""
	}
	return path[:i]
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// syntaxProblem turns the parser's error, which quotes the source over several lines, into a problem of one line.
func syntaxProblem(source string, err error) Problem {
	p := Problem{Source: source, Message: err.Error()}
	var withToken interface {
		GetToken() *token.Token
		GetMessage() string
	}
	if e, ok := err.(interface {
		GetToken() *token.Token
		GetMessage() string
	}); ok {
		withToken = e
	}
	if withToken == nil {
		p.Message, _, _ = strings.Cut(p.Message, "\n")
		return p
	}
	p.Message = "not YAML: " + withToken.GetMessage()
	if t := withToken.GetToken(); t != nil && t.Position != nil {
		p.Line, p.Column = t.Position.Line, t.Position.Column
	}
	return p
}

type decoder struct {
	doc      *Document
	problems Problems
}

func (d *decoder) problem(n ast.Node, path, format string, args ...any) {
	p := Problem{Source: d.doc.source, Path: path, Message: fmt.Sprintf(format, args...)}
	p.Line, p.Column = place(n)
	d.problems = append(d.problems, p)
}

func place(n ast.Node) (line, column int) {
	if n == nil {
		return 0, 0
	}
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 && !m.IsFlowStyle {
		n = m.Values[0].Key // the mapping's own token is a colon
	}
	if m, ok := n.(*ast.MappingValueNode); ok {
		n = m.Key
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line, t.Position.Column
	}
	return 0, 0
}

func (d *decoder) seen(n ast.Node, path string) {
	line, column := place(n)
	d.doc.positions[path] = position{d.doc.source, line, column}
}

var (
	durationType    = reflect.TypeFor[time.Duration]()
	unmarshalerType = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// value reads n into v.
func (d *decoder) value(n ast.Node, v reflect.Value, path string, depth int) {
	if depth > maxDepth {
		d.problem(n, path, "nested too deeply")
		return
	}
	switch x := n.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode:
		d.problem(n, path, "anchors and aliases are not supported; write the value out")
		return
	case *ast.TagNode:
		d.problem(n, path, "tag %q is not supported; write the plain value", x.GetToken().Value)
		return
	case *ast.NullNode:
		return // "key:" without a value keeps the default
	}
	if _, known := d.doc.positions[path]; !known {
		d.seen(n, path)
	}
	t := v.Type()
	if t.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(t.Elem()))
		}
		d.value(n, v.Elem(), path, depth+1)
		return
	}
	if t != durationType && reflect.PointerTo(t).Implements(unmarshalerType) {
		s, ok := d.text(n, path, t)
		if !ok {
			return
		}
		if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(s)); err != nil {
			d.problem(n, path, "%q: %v", s, err)
		}
		return
	}
	switch t.Kind() {
	case reflect.Struct:
		d.mapping(n, path, func(keyNode ast.Node, key string, value ast.Node) {
			f, ok := fieldByName(v, key)
			if !ok {
				d.unknown(keyNode, join(path, key), key, fieldNames(t))
				return
			}
			d.value(value, f, join(path, key), depth+1)
		})
	case reflect.Map:
		if v.IsNil() {
			v.Set(reflect.MakeMap(t))
		}
		d.mapping(n, path, func(_ ast.Node, key string, value ast.Node) {
			e := reflect.New(t.Elem()).Elem()
			d.value(value, e, join(path, key), depth+1)
			v.SetMapIndex(reflect.ValueOf(key).Convert(t.Key()), e)
		})
	case reflect.Slice:
		seq, ok := n.(*ast.SequenceNode)
		if !ok {
			d.problem(n, path, "want a list, got %s; write \"- \" before each item", kindOf(n))
			return
		}
		list := reflect.MakeSlice(t, len(seq.Values), len(seq.Values))
		for i, item := range seq.Values {
			if _, null := item.(*ast.NullNode); null {
				d.problem(item, fmt.Sprintf("%s[%d]", path, i), "empty item; set a value or remove it")
				continue
			}
			d.value(item, list.Index(i), fmt.Sprintf("%s[%d]", path, i), depth+1)
		}
		v.Set(list)
	default:
		s, ok := d.text(n, path, t)
		if !ok {
			return
		}
		if err := setScalar(v, s); err != nil {
			d.problem(n, path, "%v", err)
		}
	}
}

func (d *decoder) unknown(n ast.Node, path, key string, known []string) {
	if near := nearest(key, known); near != "" {
		d.problem(n, path, "unknown key; did you mean %q?", near)
		return
	}
	d.problem(n, path, "unknown key; known keys: %s", strings.Join(known, ", "))
}

// mapping calls each for every key of n, in order.
func (d *decoder) mapping(n ast.Node, path string, each func(keyNode ast.Node, key string, value ast.Node)) {
	var values []*ast.MappingValueNode
	switch x := n.(type) {
	case *ast.MappingNode:
		values = x.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{x}
	default:
		d.problem(n, path, "want a mapping (\"key: value\" lines), got %s", kindOf(n))
		return
	}
	seen := map[string]int{}
	for _, kv := range values {
		if kv.Key == nil || kv.Key.IsMergeKey() {
			d.problem(kv, path, "merge keys are not supported; write the values out")
			continue
		}
		key := kv.Key.GetToken().Value
		line, _ := place(kv.Key)
		if before, twice := seen[key]; twice {
			d.problem(kv.Key, join(path, key), "given twice, first on line %d; keep one", before)
			continue
		}
		seen[key] = line
		d.seen(kv.Key, join(path, key))
		if kv.Value == nil {
			continue
		}
		each(kv.Key, key, kv.Value)
	}
}

// text returns the text of a scalar as written.
func (d *decoder) text(n ast.Node, path string, t reflect.Type) (string, bool) {
	switch x := n.(type) {
	case *ast.StringNode:
		return x.Value, true
	case *ast.LiteralNode:
		return x.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	d.problem(n, path, "want %s, got %s", typeName(t), kindOf(n))
	return "", false
}

// setScalar parses s into v.
func setScalar(v reflect.Value, s string) error {
	t := v.Type()
	wrong := func() error { return fmt.Errorf("want %s, got %q", typeName(t), s) }
	if t == durationType {
		if s == "0" {
			v.SetInt(0)
			return nil
		}
		x, err := time.ParseDuration(s)
		if err != nil {
			if _, numeric := strconv.ParseFloat(s, 64); numeric == nil {
				return fmt.Errorf("want a duration, got %q: add a unit, such as %q", s, s+"s")
			}
			return wrong()
		}
		v.SetInt(int64(x))
		return nil
	}
	switch t.Kind() {
	case reflect.String:
		v.SetString(s)
	case reflect.Bool:
		switch s {
		case "true":
			v.SetBool(true)
		case "false":
			v.SetBool(false)
		default:
			return wrong()
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		x, err := strconv.ParseInt(strings.ReplaceAll(s, "_", ""), 10, t.Bits())
		if err != nil {
			return wrong()
		}
		v.SetInt(x)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		x, err := strconv.ParseUint(strings.ReplaceAll(s, "_", ""), 10, t.Bits())
		if err != nil {
			return wrong()
		}
		v.SetUint(x)
	case reflect.Float32, reflect.Float64:
		x, err := strconv.ParseFloat(s, t.Bits())
		if err != nil {
			return wrong()
		}
		v.SetFloat(x)
	default:
		return fmt.Errorf("settings of type %s are not supported", t)
	}
	return nil
}

func typeName(t reflect.Type) string {
	switch {
	case t == durationType:
		return "a duration such as \"5s\""
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() >= reflect.Int && t.Kind() <= reflect.Int64:
		return "a whole number"
	case t.Kind() >= reflect.Uint && t.Kind() <= reflect.Uint64:
		return fmt.Sprintf("a whole number from 0 to %d", ^uint64(0)>>(64-t.Bits()))
	case t.Kind() == reflect.Float32 || t.Kind() == reflect.Float64:
		return "a number"
	}
	return "a string"
}

func kindOf(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.NullNode:
		return "nothing"
	case *ast.StringNode, *ast.LiteralNode:
		return "a string"
	case *ast.BoolNode:
		return "true or false"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	}
	return "something else"
}

// fieldByName returns the field of struct v with that yaml name, also from inlined structs.
func fieldByName(v reflect.Value, name string) (reflect.Value, bool) {
	t := v.Type()
	for i := range t.NumField() {
		key, inline := fieldKey(t.Field(i))
		if inline {
			if f, ok := fieldByName(v.Field(i), name); ok {
				return f, true
			}
			continue
		}
		if key != "" && key == name {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

func fieldNames(t reflect.Type) []string {
	var names []string
	for i := range t.NumField() {
		key, inline := fieldKey(t.Field(i))
		if inline {
			names = append(names, fieldNames(t.Field(i).Type)...)
		} else if key != "" {
			names = append(names, key)
		}
	}
	return names
}

// fieldKey returns the yaml name of a field, or "" if it is not part of the document, and whether it is inlined.
func fieldKey(f reflect.StructField) (key string, inline bool) {
	if !f.IsExported() {
		return "", false
	}
	key, rest, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	if key == "-" {
		return "", false
	}
	if f.Type.Kind() == reflect.Struct && (rest == "inline" || f.Anonymous && key == "") {
		return "", true
	}
	return key, false
}
