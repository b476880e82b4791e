package provisioning_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"sort"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/go-cmp/cmp"

	"github.com/tandemgw/tandem/api/provisioning"
)

// published is the path of the published document on machines that have it.
const published = "../../../shared/specs/provisioning-api.openapi.json"

func load(t *testing.T, raw []byte) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(raw)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestDocumentIsValid(t *testing.T) {
	doc := load(t, provisioning.Document20240229Preview)
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	operations := 0
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			operations++
			if op.Summary == "" || op.Description == "" {
				t.Errorf("%s %s has no summary or no description", method, path)
			}
		}
	}
	if operations != 18 {
		t.Errorf("%d operations, want 18", operations)
	}
}

// TestDocumentEqualsThePublishedOne compares everything that a client or a validator can distinguish: paths, operation
// ids, parameters, bodies, statuses, headers, types, limits, enumerations, what is required and what is read-only.
// Texts and the names of shared components may differ, and so may the token URL.
func TestDocumentEqualsThePublishedOne(t *testing.T) {
	raw, err := os.ReadFile(published)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("the published document is not on this machine (%s)", published)
	}
	if err != nil {
		t.Fatal(err)
	}
	want, got := outline(load(t, raw)), outline(load(t, provisioning.Document20240229Preview))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the document differs from the published one (-published +ours):\n%s", diff)
	}
}

func outline(doc *openapi3.T) map[string]any {
	out := map[string]any{"version": doc.Info.Version}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			o := map[string]any{"operationId": op.OperationID, "tags": op.Tags}
			for _, p := range op.Parameters {
				o["parameter "+p.Value.In+" "+strings.ToLower(p.Value.Name)] = []any{p.Value.Name, p.Value.Required,
					shape(p.Value.Schema, 0)}
			}
			if op.RequestBody != nil {
				o["body required"] = op.RequestBody.Value.Required
				for ct, m := range op.RequestBody.Value.Content {
					o["body "+ct] = shape(m.Schema, 0)
				}
			}
			for status, r := range op.Responses.Map() {
				o["status "+status] = true
				for name, h := range r.Value.Headers {
					o["status "+status+" header "+strings.ToLower(name)] = []any{h.Value.Required,
						shape(h.Value.Schema, 0)}
				}
				for ct, m := range r.Value.Content {
					o["status "+status+" body "+ct] = shape(m.Schema, 0)
				}
			}
			out[method+" "+path] = o
		}
	}
	return out
}

// shape returns a schema without texts, with references resolved. Errors refer to themselves: a few levels are enough.
func shape(ref *openapi3.SchemaRef, depth int) any {
	if ref == nil || depth > 12 {
		return nil
	}
	s := ref.Value
	// An allOf with one member is how OpenAPI 3.0 puts a text or readOnly beside a reference.
	if len(s.AllOf) == 1 && s.Type == nil && len(s.Properties) == 0 {
		inner := shape(s.AllOf[0], depth+1)
		if m, ok := inner.(map[string]any); ok && s.ReadOnly {
			m["readOnly"] = true
		}
		return inner
	}
	m := map[string]any{}
	if s.Type != nil {
		m["type"] = strings.Join(*s.Type, ",")
	}
	set := func(k string, v any, present bool) {
		if present {
			m[k] = v
		}
	}
	set("format", s.Format, s.Format != "")
	set("pattern", s.Pattern, s.Pattern != "")
	set("minLength", s.MinLength, s.MinLength > 0)
	if s.MaxLength != nil {
		m["maxLength"] = *s.MaxLength
	}
	if s.MaxItems != nil {
		m["maxItems"] = *s.MaxItems
	}
	set("minItems", s.MinItems, s.MinItems > 0)
	set("default", s.Default, s.Default != nil)
	set("enum", s.Enum, len(s.Enum) > 0)
	set("readOnly", true, s.ReadOnly)
	set("nullable", true, s.Nullable)
	if len(s.Required) > 0 {
		r := append([]string(nil), s.Required...)
		sort.Strings(r)
		m["required"] = r
	}
	if s.Items != nil {
		m["items"] = shape(s.Items, depth+1)
	}
	for _, x := range s.AnyOf {
		l, _ := m["anyOf"].([]any)
		m["anyOf"] = append(l, shape(x, depth+1))
	}
	for name, p := range s.Properties {
		m["property "+name] = shape(p, depth+1)
	}
	if s.AdditionalProperties.Has != nil || s.AdditionalProperties.Schema != nil {
		b, _ := json.Marshal(s.AdditionalProperties) // only to compare it with the other document's
		m["additionalProperties"] = string(b)
	}
	return m
}
