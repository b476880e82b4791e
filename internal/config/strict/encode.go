package strict

import (
	"bytes"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

// Masked replaces a secret that is set.
const Masked = "[secret]"

// Options configures Encode.
type Options struct {
	// Doc returns the documentation of a field of a struct type, written as comment lines above it. Nil writes none.
	Doc func(t reflect.Type, field string) string
	// Mask writes Masked for secrets that are set.
	Mask bool
}

// Encode writes v, a pointer to a struct, as a YAML document.
func Encode(w io.Writer, v any, o Options) error {
	e := &encoder{o: o, documented: map[docKey]bool{}}
	e.structure(reflect.ValueOf(v).Elem(), 0)
	_, err := io.WriteString(w, e.String())
	return err
}

// Tree returns v, a pointer to a struct, as maps, lists and scalars under its yaml names with secrets masked, for
// printing as JSON.
func Tree(v any) (tree any, err error) {
	var b bytes.Buffer
	_ = Encode(&b, v, Options{Mask: true}) // a buffer takes everything
	err = yaml.Unmarshal(b.Bytes(), &tree)
	return tree, err
}

type encoder struct {
	strings.Builder
	o Options
	// documented holds the fields already documented, so that the second item of a list is not documented again.
	documented map[docKey]bool
}

type docKey struct {
	owner reflect.Type
	field string
}

func (e *encoder) structure(v reflect.Value, indent int) {
	pad := strings.Repeat("  ", indent)
	for i, s := range settings(v) {
		if key := (docKey{s.owner, s.field.Name}); e.o.Doc != nil && !e.documented[key] {
			e.documented[key] = true
			if indent == 0 && i > 0 {
				e.WriteString("\n")
			}
			for line := range strings.Lines(e.o.Doc(s.owner, s.field.Name)) {
				e.WriteString(strings.TrimRight(pad+"# "+line, " \n") + "\n")
			}
		}
		e.field(pad+s.key+":", s.value, indent, e.o.Mask && s.field.Tag.Get("secret") == "true")
	}
}

// field writes "head value", with the value on the following lines if it has several.
func (e *encoder) field(head string, v reflect.Value, indent int, secret bool) {
	if s, ok := scalar(v, secret); ok {
		fmt.Fprintf(e, "%s\n", strings.TrimRight(head+" "+s, " "))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		fmt.Fprintf(e, "%s\n", head)
		e.structure(v, indent+1)
	case reflect.Map:
		if v.Len() == 0 {
			fmt.Fprintf(e, "%s {}\n", head)
			return
		}
		fmt.Fprintf(e, "%s\n", head)
		byName := func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) }
		for _, k := range slices.SortedFunc(slices.Values(v.MapKeys()), byName) {
			e.field(strings.Repeat("  ", indent+1)+quote(k.String())+":", v.MapIndex(k), indent+1, secret)
		}
	case reflect.Slice:
		if v.Len() == 0 {
			fmt.Fprintf(e, "%s []\n", head)
			return
		}
		if items, ok := flow(v, secret); ok {
			fmt.Fprintf(e, "%s [%s]\n", head, items)
			return
		}
		fmt.Fprintf(e, "%s\n", head)
		for i := range v.Len() {
			e.item(v.Index(i), indent+1, secret)
		}
	}
}

// item writes one list item, a scalar or a struct: its first line after "- ", the others under it.
func (e *encoder) item(v reflect.Value, indent int, secret bool) {
	pad := strings.Repeat("  ", indent)
	if s, ok := scalar(v, secret); ok {
		fmt.Fprintf(e, "%s- %s\n", pad, s)
		return
	}
	inner := &encoder{o: e.o, documented: e.documented}
	inner.structure(v, indent+1)
	// The dash is alone on its line above a documented item, which may begin with a comment.
	body := inner.String()
	if first := strings.TrimLeft(body, " "); strings.HasPrefix(first, "#") {
		fmt.Fprintf(e, "%s-\n%s", pad, body)
	} else {
		fmt.Fprintf(e, "%s- %s", pad, first)
	}
}

// flow returns a list of plain values in one line, and whether that is possible and short enough.
func flow(v reflect.Value, secret bool) (string, bool) {
	items := make([]string, v.Len())
	for i := range items {
		s, ok := scalar(v.Index(i), secret)
		if !ok {
			return "", false
		}
		items[i] = s
	}
	s := strings.Join(items, ", ")
	return s, len(s) <= 90
}

// scalar returns the text of a plain value. The second result is false for structs, maps and lists.
func scalar(v reflect.Value, secret bool) (string, bool) {
	switch {
	case v.Type() == durationType:
		return durationText(time.Duration(v.Int())), true
	case v.Kind() == reflect.String && v.Len() > 0 && secret:
		return quote(Masked), true
	case v.Kind() == reflect.String:
		return quote(v.String()), true
	case v.Kind() == reflect.Struct || v.Kind() == reflect.Map || v.Kind() == reflect.Slice:
		return "", false
	}
	return fmt.Sprint(v), true
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
