package strict

import (
	"encoding"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Masked replaces a secret that is set.
const Masked = "[secret]"

// Options configures Encode.
type Options struct {
	// Doc returns the documentation of a field of a struct type, written as comment lines above it. Nil writes none.
	Doc func(t reflect.Type, field string) string
	// Mask writes Masked for secrets that are set.
	Mask bool
	// seen holds the types already documented, so that the second item of a list is not documented again.
	seen map[reflect.Type]bool
}

// Encode writes v, a struct or pointer to one, as a YAML document.
func Encode(w io.Writer, v any, o Options) error {
	o.seen = map[reflect.Type]bool{}
	e := &encoder{w: w, o: o}
	e.structure(deref(reflect.ValueOf(v)), 0)
	return e.err
}

// Tree returns v as maps, lists and scalars under its yaml names with secrets masked, for printing as JSON.
func Tree(v any) any { return tree(deref(reflect.ValueOf(v)), false) }

type encoder struct {
	w   io.Writer
	o   Options
	err error
}

func (e *encoder) printf(format string, args ...any) {
	if e.err == nil {
		_, e.err = fmt.Fprintf(e.w, format, args...)
	}
}

func deref(v reflect.Value) reflect.Value {
	for v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	return v
}

func (e *encoder) structure(v reflect.Value, indent int) {
	t := v.Type()
	document := e.o.Doc != nil && !e.o.seen[t]
	e.o.seen[t] = true
	pad := strings.Repeat("  ", indent)
	for i := range t.NumField() {
		f := t.Field(i)
		key, inline := fieldKey(f)
		if inline {
			e.structure(v.Field(i), indent)
			continue
		}
		if key == "" {
			continue
		}
		if document {
			if indent == 0 && i > 0 {
				e.printf("\n")
			}
			for line := range strings.Lines(e.o.Doc(t, f.Name)) {
				e.printf("%s", strings.TrimRight(pad+"# "+line, " \n")+"\n")
			}
		}
		e.field(pad+key+":", v.Field(i), indent, e.o.Mask && f.Tag.Get("secret") == "true")
	}
}

// field writes "head value", with the value on the following lines if it has several.
func (e *encoder) field(head string, v reflect.Value, indent int, secret bool) {
	v = deref(v)
	if s, ok := scalar(v, secret); ok {
		e.printf("%s\n", strings.TrimRight(head+" "+s, " "))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		e.printf("%s\n", head)
		e.structure(v, indent+1)
	case reflect.Map:
		if v.Len() == 0 {
			e.printf("%s {}\n", head)
			return
		}
		e.printf("%s\n", head)
		for _, k := range sortedKeys(v) {
			e.field(strings.Repeat("  ", indent+1)+quote(k.String())+":", v.MapIndex(k), indent+1, secret)
		}
	case reflect.Slice:
		if v.Len() == 0 {
			e.printf("%s []\n", head)
			return
		}
		if items, ok := flow(v, secret); ok {
			e.printf("%s [%s]\n", head, items)
			return
		}
		e.printf("%s\n", head)
		for i := range v.Len() {
			e.item(deref(v.Index(i)), indent+1, secret)
		}
	}
}

// item writes one list item: its first line after "- ", the others under it.
func (e *encoder) item(v reflect.Value, indent int, secret bool) {
	pad := strings.Repeat("  ", indent)
	if s, ok := scalar(v, secret); ok {
		e.printf("%s- %s\n", pad, s)
		return
	}
	var b strings.Builder
	inner := &encoder{w: &b, o: e.o}
	if v.Kind() == reflect.Struct {
		inner.structure(v, indent+1)
	} else {
		inner.field("", v, indent+1, secret)
	}
	// The dash is alone on its line above a documented item, which may begin with a comment.
	body := b.String()
	if first := strings.TrimLeft(body, " "); strings.HasPrefix(first, "#") {
		e.printf("%s-\n%s", pad, body)
	} else {
		e.printf("%s- %s", pad, first)
	}
}

// flow returns a list of plain values in one line, and whether that is possible and short enough.
func flow(v reflect.Value, secret bool) (string, bool) {
	items := make([]string, v.Len())
	for i := range items {
		s, ok := scalar(deref(v.Index(i)), secret)
		if !ok {
			return "", false
		}
		items[i] = s
	}
	s := strings.Join(items, ", ")
	return s, len(s) <= 90
}

func sortedKeys(v reflect.Value) []reflect.Value {
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	return keys
}

// scalar returns the text of a plain value. The second result is false for structs, maps and lists.
func scalar(v reflect.Value, secret bool) (string, bool) {
	switch x := plain(v, secret).(type) {
	case nil:
		return "", v.Kind() == reflect.Pointer
	case string:
		return quote(x), true
	case time.Duration:
		return durationText(x), true
	default:
		return fmt.Sprint(x), true
	}
}

// plain returns a scalar's value as a basic type or time.Duration, and nil for structs, maps, lists and nil pointers.
func plain(v reflect.Value, secret bool) any {
	if v.Kind() == reflect.Pointer {
		return nil // deref leaves nil pointers only
	}
	if secret && v.Kind() == reflect.String && v.Len() > 0 {
		return Masked
	}
	if v.Type() == durationType {
		return time.Duration(v.Int())
	}
	if m, ok := textMarshaler(v); ok {
		b, err := m.MarshalText()
		if err != nil {
			return ""
		}
		if secret && len(b) > 0 {
			return Masked
		}
		return string(b)
	}
	switch v.Kind() {
	case reflect.String:
		return v.String()
	case reflect.Bool:
		return v.Bool()
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return v.Int()
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return v.Uint()
	case reflect.Float32, reflect.Float64:
		return v.Float()
	}
	return nil
}

func textMarshaler(v reflect.Value) (encoding.TextMarshaler, bool) {
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		return m, true
	}
	if v.CanAddr() {
		m, ok := v.Addr().Interface().(encoding.TextMarshaler)
		return m, ok
	}
	return nil, false
}

// durationText returns a duration without the zero parts that time.Duration prints: "1m", not "1m0s".
func durationText(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// bare matches strings that need no quotes in YAML, unless special matches them too.
var (
	bare    = regexp.MustCompile(`^[A-Za-z/][A-Za-z0-9_./+@-]*(:[A-Za-z0-9_./+@-]+)*$`)
	special = regexp.MustCompile(`(?i)^(true|false|null|yes|no|on|off|y|n)$`)
)

func quote(s string) string {
	if bare.MatchString(s) && !special.MatchString(s) {
		return s
	}
	return strconv.Quote(s)
}

func tree(v reflect.Value, secret bool) any {
	v = deref(v)
	switch x := plain(v, secret).(type) {
	case nil:
	case time.Duration:
		return durationText(x)
	default:
		return x
	}
	switch v.Kind() {
	case reflect.Struct:
		m := map[string]any{}
		addFields(m, v)
		return m
	case reflect.Map:
		m := map[string]any{}
		for _, k := range v.MapKeys() {
			m[k.String()] = tree(v.MapIndex(k), secret)
		}
		return m
	case reflect.Slice:
		l := make([]any, v.Len())
		for i := range l {
			l[i] = tree(v.Index(i), secret)
		}
		return l
	}
	return nil
}

func addFields(m map[string]any, v reflect.Value) {
	t := v.Type()
	for i := range t.NumField() {
		f := t.Field(i)
		key, inline := fieldKey(f)
		if inline {
			addFields(m, v.Field(i))
		} else if key != "" {
			m[key] = tree(v.Field(i), f.Tag.Get("secret") == "true")
		}
	}
}
