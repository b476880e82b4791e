package web

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/domain/strictjson"
)

// Contract is an OpenAPI 3.0.3 document, as far as requests are checked against it before generated code reads them:
// generated decoders ignore case, repeated and unknown members, bounds and what follows the body.
//
// Of a schema it knows type, properties, required, items, $ref, enum and the bounds of lengths and integers. Objects
// are closed, whether or not additionalProperties says so. Of parameters it checks those in the query. The key is a
// pattern of http.ServeMux such as "GET /manage/v1/health".
type Contract map[string]*Operation

// Operation is one operation of a contract.
type Operation struct {
	ID string
	// Roles are those of which the caller needs one (the scopes in the document's security).
	Roles []string

	schemas map[string]*schema // of the contract
	query   map[string]*schema
	body    Body
	schema  *schema // of the body
}

type schema struct {
	Ref        string             `yaml:"$ref"`
	Type       string             `yaml:"type"`
	Properties map[string]*schema `yaml:"properties"`
	Required   []string           `yaml:"required"`
	Items      *schema            `yaml:"items"`
	Enum       []string           `yaml:"enum"`
	MinLength  *int               `yaml:"minLength"`
	MaxLength  *int               `yaml:"maxLength"`
	MinItems   *int               `yaml:"minItems"`
	MaxItems   *int               `yaml:"maxItems"`
	Minimum    *int64             `yaml:"minimum"`
	Maximum    *int64             `yaml:"maximum"`
}

// MustContract reads a document in YAML, which is part of the program: it panics if it cannot. maxBody is the maximum
// size of request bodies in bytes; x-max-bytes of a request body is that of one operation.
func MustContract(doc []byte, maxBody int64) Contract {
	var d struct {
		Paths map[string]map[string]struct {
			OperationID string                `yaml:"operationId"`
			Security    []map[string][]string `yaml:"security"`
			Parameters  []struct {
				Name, In string
				Schema   *schema
			} `yaml:"parameters"`
			RequestBody *struct {
				Required bool
				MaxBytes int64 `yaml:"x-max-bytes"`
				Content  map[string]struct{ Schema *schema }
			} `yaml:"requestBody"`
		} `yaml:"paths"`
		Components struct{ Schemas map[string]*schema } `yaml:"components"`
	}
	if err := yaml.Unmarshal(doc, &d); err != nil {
		panic(fmt.Sprintf("web: read a contract: %v", err))
	}
	c := Contract{}
	for path, item := range d.Paths {
		for method, op := range item {
			o := &Operation{ID: op.OperationID, schemas: d.Components.Schemas, query: map[string]*schema{},
				body: Body{Most: maxBody}}
			for _, requirement := range op.Security {
				for _, roles := range requirement {
					o.Roles = append(o.Roles, roles...)
				}
			}
			for _, p := range op.Parameters {
				if p.In == "query" {
					o.query[p.Name] = p.Schema
				}
			}
			if b := op.RequestBody; b != nil {
				o.body.Optional, o.body.Most = !b.Required, cmp.Or(b.MaxBytes, maxBody)
				for mediaType, content := range b.Content {
					o.body.Types, o.schema = append(o.body.Types, mediaType), content.Schema
				}
			}
			c[strings.ToUpper(method)+" "+path] = o
		}
	}
	return c
}

// Check checks the request's query and body against the contract. Afterwards r.Body can be read once more.
func (o *Operation) Check(w http.ResponseWriter, r *http.Request) error {
	query := checker{schemas: o.schemas, code: CodeInvalidParameter}
	if err := query.query(o.query, r.URL.RawQuery); err != nil {
		return err
	}
	n, err := o.body.Read(w, r)
	if err != nil || n == nil {
		return err
	}
	body := checker{schemas: o.schemas, code: strictjson.CodeInvalidValue}
	body.value(n, o.schema, "")
	return body.Err()
}

// checker collects what is wrong with a request.
type checker struct {
	strictjson.Reader
	schemas map[string]*schema
	code    string // of a value outside its bounds
}

func (c *checker) query(known map[string]*schema, raw string) error {
	q, err := url.ParseQuery(raw)
	if err != nil {
		return fault.New(fault.Invalid, CodeInvalidURI, "the query has an invalid percent-encoding or a semicolon")
	}
	for _, name := range slices.Sorted(maps.Keys(q)) { // the same request gets the same answer
		s, ok := known[name]
		switch {
		case !ok:
			c.Add(fault.New(fault.Invalid, CodeUnknownParameter, "this operation has no query parameter %q",
				Clip(name)).At(Clip(name)))
		case len(q[name]) > 1:
			c.invalid(name, "is given %d times; give it once", len(q[name]))
		case s.Type == "integer":
			c.value(&strictjson.Node{Kind: strictjson.KindNumber, Text: q[name][0]}, s, name)
		default:
			c.value(&strictjson.Node{Kind: strictjson.KindString, Text: q[name][0]}, s, name)
		}
	}
	c.Problems = c.Problems[:min(1, len(c.Problems))] // several would be reported as problems of the body
	return c.Err()
}

func (c *checker) invalid(at, format string, args ...any) {
	c.Add(fault.New(fault.Invalid, c.code, at+" "+format, args...).At(at))
}

// value checks n, which is at the path at, against its schema.
func (c *checker) value(n *strictjson.Node, s *schema, at string) {
	if s.Ref != "" {
		s = c.schemas[s.Ref[strings.LastIndexByte(s.Ref, '/')+1:]]
	}
	switch s.Type {
	case "object":
		o := c.Object(n, at)
		for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
			if m := o.Take(name, slices.Contains(s.Required, name)); m != nil {
				c.value(m, s.Properties[name], strictjson.Join(at, name))
			}
		}
		o.Done()
	case "array":
		if !c.Is(n, strictjson.KindArray, at) {
			return
		}
		c.length(len(n.Items), s.MinItems, s.MaxItems, "items", at)
		for i, item := range n.Items {
			c.value(item, s.Items, strictjson.Index(at, i))
		}
	case "string":
		if !c.Is(n, strictjson.KindString, at) {
			return
		}
		c.length(utf8.RuneCountInString(n.Text), s.MinLength, s.MaxLength, "characters", at)
		if s.Enum != nil && !slices.Contains(s.Enum, n.Text) {
			c.invalid(at, "must be one of %s", strings.Join(s.Enum, ", "))
		}
	case "boolean":
		c.Is(n, strictjson.KindBool, at)
	case "integer":
		if !c.Is(n, strictjson.KindNumber, at) {
			return
		}
		v, err := strconv.ParseInt(n.Text, 10, 64)
		if err != nil || strings.HasPrefix(n.Text, "+") || s.Minimum != nil && v < *s.Minimum ||
			s.Maximum != nil && v > *s.Maximum {
			c.invalid(at, "must be a whole number (%s)", bounds(s.Minimum, s.Maximum))
		}
	}
}

func (c *checker) length(n int, least, most *int, what, at string) {
	if least != nil && n < *least || most != nil && n > *most {
		c.invalid(at, "must have %s %s", bounds(least, most), what)
	}
}

// bounds returns "1 to 10", "at least 1" or "at most 10", as far as there are bounds.
func bounds[T int | int64](least, most *T) string {
	switch {
	case least != nil && most != nil:
		return fmt.Sprintf("%d to %d", *least, *most)
	case least != nil:
		return fmt.Sprintf("at least %d", *least)
	case most != nil:
		return fmt.Sprintf("at most %d", *most)
	}
	return "any size"
}
