package strict

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Set applies one "path=value" to v, a pointer to a struct. The value is YAML in one line; a list index one past the
// end appends. Set returns every mistake, and records in doc that the value came from source.
func (doc *Document) Set(source, assignment string, v any) Problems {
	path, text, ok := strings.Cut(assignment, "=")
	path = strings.TrimSpace(path)
	fail := func(format string, args ...any) Problems {
		return Problems{{Source: source, Path: path, Message: fmt.Sprintf(format, args...)}}
	}
	if !ok || path == "" {
		message := fmt.Sprintf("%q: want path=value, such as log.level=debug", assignment)
		return Problems{{Source: source, Message: message}}
	}
	target, set, err := walk(reflect.ValueOf(v).Elem(), path)
	if err != nil {
		return fail("%v", err)
	}
	d := &decoder{doc: &Document{source: source, positions: map[string]position{}}}
	if k := target.Kind(); k != reflect.Struct && k != reflect.Map && k != reflect.Slice {
		// Taken verbatim, so that "#", ":" or "*" in a value need no YAML quoting in addition to the shell's.
		d.value(&ast.StringNode{BaseNode: &ast.BaseNode{}, Value: unquote(text)}, target, path)
	} else {
		if target.Kind() == reflect.Map {
			target.SetZero() // a whole map replaces the previous one, as a whole list does
		}
		file, err := parser.ParseBytes([]byte(text), 0, parser.AllowDuplicateMapKey())
		if err != nil {
			p := syntaxProblem(source, err)
			return fail("%s", p.Message)
		}
		if len(file.Docs) == 0 || file.Docs[0].Body == nil {
			target.SetZero() // "list=" empties it
		} else {
			d.value(file.Docs[0].Body, target, path)
		}
	}
	for i := range d.problems {
		d.problems[i].Line, d.problems[i].Column = 0, 0
	}
	if len(d.problems) > 0 {
		return d.problems
	}
	set()
	doc.positions[path] = position{source: source}
	for p := range d.doc.positions {
		doc.positions[p] = position{source: source}
	}
	return nil
}

func unquote(s string) string {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		if u, err := strconv.Unquote(s); err == nil {
			return u
		}
	}
	return s
}

// walk finds the value at path. Values in maps are copies: call set after changing the value to store it.
func walk(v reflect.Value, path string) (target reflect.Value, set func(), err error) {
	set = func() {}
	at := ""
	for rest := path; rest != ""; {
		if rest[0] == '[' {
			index, after, ok := strings.Cut(rest[1:], "]")
			i, err := strconv.Atoi(index)
			if !ok || err != nil || i < 0 {
				return v, nil, fmt.Errorf("want a list index such as [0] after %q", at)
			}
			if v.Kind() != reflect.Slice {
				return v, nil, fmt.Errorf("%q is not a list", at)
			}
			if i > v.Len() {
				return v, nil, fmt.Errorf("%q has %d items; [%d] would append one", at, v.Len(), v.Len())
			}
			if i == v.Len() {
				v.Set(reflect.Append(v, reflect.New(v.Type().Elem()).Elem()))
			}
			v = v.Index(i)
			at += "[" + index + "]"
			rest = strings.TrimPrefix(after, ".")
			continue
		}
		end := strings.IndexAny(rest, ".[")
		key := rest
		if end >= 0 {
			key = rest[:end]
		}
		switch v.Kind() {
		case reflect.Struct:
			f, hint := lookup(v, key)
			if hint != "" {
				return v, nil, fmt.Errorf("unknown key %q; %s", key, hint)
			}
			v = f
		case reflect.Map:
			m, k, outer := v, reflect.ValueOf(key).Convert(v.Type().Key()), set
			if m.IsNil() {
				m.Set(reflect.MakeMap(m.Type()))
			}
			e := reflect.New(m.Type().Elem()).Elem()
			if old := m.MapIndex(k); old.IsValid() {
				e.Set(old)
			}
			v, set = e, func() { m.SetMapIndex(k, e); outer() }
		default:
			return v, nil, fmt.Errorf("%q has no settings below it", at)
		}
		at = join(at, key)
		rest = strings.TrimPrefix(rest[len(key):], ".")
	}
	return v, set, nil
}
