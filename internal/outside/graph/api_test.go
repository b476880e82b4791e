package graph_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"github.com/tandemgw/tandem/internal/outside/graph"
	"github.com/tandemgw/tandem/internal/platform/secret"
)

// published is the path of the contract on machines that have it. Elsewhere requests are not checked against it.
const published = "../../../../shared/specs/graph-subset.json"

const (
	tenantID = "22222222-aaaa-4bbb-8ccc-000000000002"
	base     = "https://graph.microsoft.com/v1.0"
)

// notCovered is what the contract lacks (docs/verification.md).
const notCovered = "/directory/deletedItems/"

var contract = sync.OnceValues(func() (*openapi3.T, error) {
	raw, err := os.ReadFile(published)
	if err != nil {
		return nil, nil
	}
	doc, err := openapi3.NewLoader().LoadFromData(raw)
	if err != nil {
		return nil, err
	}
	// Graph sends words that the contract lacks (tenant-cases 11); Prefer makes them visible.
	for name, s := range doc.Components.Schemas {
		if strings.HasSuffix(name, "longRunningOperationStatus") {
			s.Value.Enum = append(s.Value.Enum, "skipped")
		}
	}
	return doc, nil
})

// api plays Graph. Each request must match the next step of its script, and both request and answer the contract.
type api struct {
	t      *testing.T
	router routers.Router

	mu    sync.Mutex
	steps []step
	saw   []*http.Request // with their bodies
	// any answers whatever comes, if there is no script.
	any func(r *http.Request) answer
}

// step is one expected exchange.
type step struct {
	request string // method and URI below the base, such as "GET /users?$top=999"
	answer
}

type answer struct {
	status int
	header map[string]string
	body   any   // JSON; a string is sent as it is
	err    error // instead of an answer
}

func newAPI(t *testing.T, steps ...step) *api {
	doc, err := contract()
	if err != nil {
		t.Fatal(err)
	}
	a := &api{t: t, steps: steps}
	if doc == nil {
		t.Log("the contract is not on this machine; requests are not checked against it")
	} else if a.router, err = gorillamux.NewRouter(doc); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if len(a.steps) > 0 {
			t.Errorf("%d requests were not made; the next is %s", len(a.steps), a.steps[0].request)
		}
	})
	return a
}

// RoundTrip implements http.RoundTripper without a network, so that it works in a synctest bubble.
func (a *api) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
	}
	in := r.Clone(context.Background())
	in.Body = io.NopCloser(bytes.NewReader(body))
	a.mu.Lock()
	defer a.mu.Unlock()
	a.saw = append(a.saw, in)

	got := r.Method + " " + strings.TrimPrefix(r.URL.String(), base)
	if r.Header.Get("Authorization") == "" || r.Header.Get("client-request-id") == "" ||
		r.Header.Get("User-Agent") != "Tandem/test" {
		a.t.Errorf("%s has headers %v", got, r.Header)
	}
	check := a.validate(in, body)

	var reply answer
	switch {
	case a.any != nil:
		reply = a.any(in)
	case len(a.steps) == 0 || a.steps[0].request != got:
		a.t.Errorf("unexpected request %s", got)
		reply = answer{status: 501, body: "unexpected"}
	default:
		reply, a.steps = a.steps[0].answer, a.steps[1:]
	}
	in.Body = io.NopCloser(bytes.NewReader(body))
	if reply.err != nil {
		return nil, reply.err
	}

	rec := httptest.NewRecorder()
	rec.Header().Set("request-id", "microsoft-1")
	for k, v := range reply.header {
		rec.Header().Set(k, v)
	}
	if s, ok := reply.body.(string); ok {
		rec.WriteHeader(reply.status)
		_, _ = io.WriteString(rec, s)
		return rec.Result(), nil
	}
	if reply.body != nil {
		rec.Header().Set("Content-Type", "application/json")
	}
	rec.WriteHeader(reply.status)
	if reply.body != nil {
		_ = json.NewEncoder(rec).Encode(reply.body)
	}
	check(rec)
	return rec.Result(), nil
}

// validate checks a request against the contract, also for what the document itself allows: parameters, properties in
// $select and members of a body that it does not have. It returns the check of the answer.
func (a *api) validate(r *http.Request, body []byte) func(*httptest.ResponseRecorder) {
	none := func(*httptest.ResponseRecorder) {}
	if a.router == nil || strings.Contains(r.URL.Path, notCovered) {
		return none
	}
	what := r.Method + " " + r.URL.String()
	route, params, err := a.router.FindRoute(r)
	if err != nil {
		a.t.Errorf("%s is not in the contract: %v", what, err)
		return none
	}
	for name, values := range r.URL.Query() {
		if name == "$skiptoken" {
			continue // from Graph's own links
		}
		if route.Operation.Parameters.GetByInAndName("query", name) == nil {
			a.t.Errorf("%s: the contract has no parameter %s", what, name)
		}
		if name == "$select" && strings.HasPrefix(r.URL.Path, "/v1.0/users") {
			for property := range strings.SplitSeq(values[0], ",") {
				if route.Spec.Components.Schemas["microsoft.graph.user"].Value.Properties[property] == nil {
					a.t.Errorf("%s: a user has no property %s", what, property)
				}
			}
		}
	}
	if media := route.Operation.RequestBody; media != nil && len(body) > 0 {
		var members map[string]any
		_ = json.Unmarshal(body, &members)
		for name := range members {
			if media.Value.Content["application/json"].Schema.Value.Properties[name] == nil {
				a.t.Errorf("%s: the body has no member %s", what, name)
			}
		}
	} else if media == nil && len(body) > 0 {
		a.t.Errorf("%s has a body %s", what, body)
	}

	in := &openapi3filter.RequestValidationInput{Request: r, PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc}}
	if err := openapi3filter.ValidateRequest(context.Background(), in); err != nil {
		a.t.Errorf("%s does not match the contract: %v", what, err)
	}
	return func(rec *httptest.ResponseRecorder) {
		out := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: rec.Code,
			Header: rec.Header(), Body: io.NopCloser(bytes.NewReader(rec.Body.Bytes())),
			Options: &openapi3filter.Options{}}
		if rec.Body.Len() == 0 {
			return
		}
		if err := openapi3filter.ValidateResponse(context.Background(), out); err != nil {
			a.t.Errorf("our answer to %s does not match the contract: %v", what, err)
		}
	}
}

// client returns a client of the tenant that uses a.
func (a *api) client(tokens graph.Tokens) *graph.Client {
	if tokens == nil {
		tokens = &fixed{tokens: []string{"t1"}}
	}
	c, err := graph.New(graph.Config{Tenant: tenantID, Tokens: tokens, Budget: graph.NewBudget(), Transport: a,
		UserAgent: "Tandem/test"})
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

// fixed gives tokens in their order: the next one after each refusal.
type fixed struct {
	mu       sync.Mutex
	tokens   []string
	refusals []string // WWW-Authenticate
}

func (f *fixed) Token(context.Context) (secret.Text, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.tokens) == 0 {
		return secret.Text{}, errors.New("a sign-in is needed")
	}
	return secret.New(f.tokens[0]), nil
}

func (f *fixed) Refused(token secret.Text, wwwAuthenticate string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.tokens) > 0 && f.tokens[0] == token.Reveal() {
		f.tokens = f.tokens[1:]
	}
	f.refusals = append(f.refusals, wwwAuthenticate)
}

func (f *fixed) Forbidden(secret.Text) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.tokens) > 1 {
		f.tokens = f.tokens[1:]
		return true
	}
	return false
}

type object = map[string]any

func list(items ...any) object { return object{"value": append([]any{}, items...)} }

// refusal is Graph's error envelope.
func refusal(status int, code, message string, header ...string) answer {
	h := map[string]string{}
	for i := 0; i+1 < len(header); i += 2 {
		h[header[i]] = header[i+1]
	}
	return answer{status: status, header: h, body: object{"error": object{"code": code, "message": message,
		"innerError": object{"request-id": "inner-1", "date": "2026-11-29T09:00:00"}}}}
}

// bodies returns the JSON bodies that a saw.
func (a *api) bodies() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []string
	for _, r := range a.saw {
		b, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(b))
		all = append(all, string(b))
	}
	return all
}

// parts returns the requests of the batch in a body.
func parts(t *testing.T, body string) []object {
	var batch struct{ Requests []object }
	if err := json.Unmarshal([]byte(body), &batch); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	return batch.Requests
}

func merged(a object, more object) object {
	m := maps.Clone(a)
	maps.Copy(m, more)
	return m
}
