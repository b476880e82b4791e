package strict

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

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
		d.value(doc.Body, reflect.ValueOf(v).Elem(), "")
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
	p := Problem{Source: source}
	e, ok := errors.AsType[yaml.Error](err)
	if !ok {
		p.Message, _, _ = strings.Cut(err.Error(), "\n")
		return p
	}
	p.Message = "not YAML: " + e.GetMessage()
	p.Line, p.Column = placeOf(e.GetToken())
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
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 && !m.IsFlowStyle {
		n = m.Values[0].Key // the mapping's own token is a colon
	}
	return placeOf(n.GetToken())
}

func placeOf(t *token.Token) (line, column int) {
	if t == nil || t.Position == nil {
		return 0, 0
	}
	return t.Position.Line, t.Position.Column
}

func (d *decoder) seen(n ast.Node, path string) {
	line, column := place(n)
	d.doc.positions[path] = position{d.doc.source, line, column}
}

var durationType = reflect.TypeFor[time.Duration]()

// value reads n into v. It recurses as deep as the type of v, however deep the document is.
func (d *decoder) value(n ast.Node, v reflect.Value, path string) {
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
	switch t.Kind() {
	case reflect.Struct:
		d.mapping(n, path, func(keyNode ast.Node, key string, value ast.Node) {
			f, hint := lookup(v, key)
			if hint != "" {
				d.problem(keyNode, join(path, key), "unknown key; %s", hint)
				return
			}
			d.value(value, f, join(path, key))
		})
	case reflect.Map:
		if v.IsNil() {
			v.Set(reflect.MakeMap(t))
		}
		d.mapping(n, path, func(_ ast.Node, key string, value ast.Node) {
			e := reflect.New(t.Elem()).Elem()
			d.value(value, e, join(path, key))
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
			d.value(item, list.Index(i), fmt.Sprintf("%s[%d]", path, i))
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

// mapping calls each for every key of n, in order.
func (d *decoder) mapping(n ast.Node, path string, each func(keyNode ast.Node, key string, value ast.Node)) {
	m, ok := n.(*ast.MappingNode)
	if !ok {
		d.problem(n, path, "want a mapping (\"key: value\" lines), got %s", kindOf(n))
		return
	}
	seen := map[string]int{}
	for _, kv := range m.Values {
		if kv.Key.IsMergeKey() {
			d.problem(kv.Key, path, "merge keys are not supported; write the values out")
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
		if s != "true" && s != "false" {
			return wrong()
		}
		v.SetBool(s == "true")
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		x, err := strconv.ParseInt(strings.ReplaceAll(s, "_", ""), 10, t.Bits())
		if err != nil {
			return wrong()
		}
		v.SetInt(x)
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
	}
	return "a string"
}

func kindOf(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.StringNode, *ast.LiteralNode:
		return "a string"
	case *ast.BoolNode:
		return "true or false"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	}
	return "something else"
}

// setting is a field of a struct that is part of the document.
type setting struct {
	key   string // its yaml name
	value reflect.Value
	field reflect.StructField
	owner reflect.Type // the struct that declares it
}

// settings returns the settings of struct v in order, with those of an inlined struct in its place.
func settings(v reflect.Value) (all []setting) {
	for f, x := range v.Fields() {
		key, rest, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case !f.IsExported() || key == "-":
		case x.Kind() == reflect.Struct && (rest == "inline" || f.Anonymous && key == ""):
			all = append(all, settings(x)...)
		case key != "":
			all = append(all, setting{key, x, f, v.Type()})
		}
	}
	return all
}

// lookup returns the setting of struct v with that name or, if there is none, a hint to what was meant.
func lookup(v reflect.Value, key string) (_ reflect.Value, hint string) {
	var known []string
	for _, s := range settings(v) {
		if s.key == key {
			return s.value, ""
		}
		known = append(known, s.key)
	}
	if near := nearest(key, known); near != "" {
		return v, fmt.Sprintf("did you mean %q?", near)
	}
	return v, "known keys: " + strings.Join(known, ", ")
}
