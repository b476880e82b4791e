package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"

	"github.com/mattn/go-isatty"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/domain/strictjson"
)

// readFile reads the JSON of a file, one value or a list; "-" is standard input.
func readFile[T any](t *target, stdin io.Reader, file string) ([]T, error) {
	text, err := readInput(t, stdin, file)
	if err != nil {
		return nil, err
	}
	return decode[T](file, text)
}

// readInput reads a file; "-" is standard input. It tells a user at a terminal what it waits for.
func readInput(t *target, stdin io.Reader, file string) (text []byte, err error) {
	if file != "-" {
		text, err = os.ReadFile(file)
	} else {
		if f, ok := stdin.(*os.File); ok && isatty.IsTerminal(f.Fd()) {
			fmt.Fprintln(t.p.Stderr, "tandem: waiting for input; end it with Ctrl-D")
		}
		text, err = io.ReadAll(stdin)
	}
	if err != nil {
		return nil, usageError{err}
	}
	return text, nil
}

// decode reads the JSON text of a file: one value or a list. It reports every member that is missing, unknown or of
// another type than T has. A member is required unless its tag says omitempty.
func decode[T any](file string, text []byte) ([]T, error) {
	file = either(file == "-", "standard input", file)
	err := json.Unmarshal(text, new(json.RawMessage))
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		line := 1 + bytes.Count(text[:syntax.Offset], []byte("\n"))
		return nil, usageError{fmt.Errorf("%s, line %d: %w", file, line, err)}
	}
	items := []json.RawMessage{text}
	list := bytes.HasPrefix(bytes.TrimSpace(text), []byte("["))
	if list {
		_ = json.Unmarshal(text, &items) // it is valid JSON
	}

	var r strictjson.Reader
	for i, item := range items {
		path := either(list, strictjson.Index("", i), "")
		n, err := strictjson.Parse(item)
		if err != nil {
			f := fault.As(err)
			f.Message = strings.TrimPrefix(path+": "+f.Message, ": ")
			r.Add(f)
			continue
		}
		match(&r, n, reflect.TypeFor[T](), path)
	}
	var problems []error
	for _, p := range r.Problems {
		problems = append(problems, fmt.Errorf("%s: %s", file, p.Message))
	}
	if len(problems) > 0 {
		return nil, usageError{errors.Join(problems...)}
	}
	values := make([]T, len(items))
	for i, item := range items {
		if err := json.Unmarshal(item, &values[i]); err != nil {
			return nil, usageError{fmt.Errorf("%s: %w", file, err)}
		}
	}
	return values, nil
}

// match compares a JSON value with the type that it is read into, and records what does not match. path is its place.
func match(r *strictjson.Reader, n *strictjson.Node, t reflect.Type, path string) {
	switch t.Kind() {
	case reflect.Pointer:
		match(r, n, t.Elem(), path)
	case reflect.Struct:
		o := r.Object(n, path)
		for _, f := range reflect.VisibleFields(t) {
			name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "-" {
				continue
			}
			if member := o.Take(name, !strings.Contains(options, "omitempty")); member != nil {
				match(r, member, f.Type, strictjson.Join(path, name))
			}
		}
		o.Done()
	case reflect.Slice:
		if r.Is(n, strictjson.KindArray, path) {
			for i, item := range n.Items {
				match(r, item, t.Elem(), strictjson.Index(path, i))
			}
		}
	case reflect.Bool:
		r.Is(n, strictjson.KindBool, path)
	case reflect.String:
		r.Is(n, strictjson.KindString, path)
	default:
		r.Is(n, strictjson.KindNumber, path)
	}
}
