package manage_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/prometheus/client_golang/prometheus"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/manage"
)

// contract checks every exchange against api/manage/v1.yaml.
type contract struct {
	t    *testing.T
	doc  *openapi3.T
	http http.Handler
	seen map[string]bool // operation ids
}

func newContract(t *testing.T, h http.Handler) *contract {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(api.V1)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatalf("api/manage/v1.yaml is not valid: %v", err)
	}
	doc.Servers = nil
	return &contract{t: t, doc: doc, http: h, seen: map[string]bool{}}
}

// do sends a request and returns the answer. Both must match the contract; with badRequest the request must not.
func (c *contract) do(method, path, body string, badRequest bool, headers ...string) *httptest.ResponseRecorder {
	c.t.Helper()
	router, err := gorillamux.NewRouter(c.doc)
	if err != nil {
		c.t.Fatal(err)
	}
	newRequest := func() *http.Request {
		r := httptest.NewRequestWithContext(c.t.Context(), method, path, strings.NewReader(body))
		if body != "" {
			r.Header.Set("Content-Type", "application/json")
		}
		for i := 0; i+1 < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		return r
	}
	r := newRequest()
	route, params, err := router.FindRoute(r)
	if err != nil {
		c.t.Fatalf("%s %s is not in the contract: %v", method, path, err)
	}
	c.seen[route.Operation.OperationID] = true
	in := &openapi3filter.RequestValidationInput{Request: r, PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc}}
	if err := openapi3filter.ValidateRequest(c.t.Context(), in); (err != nil) != badRequest {
		c.t.Errorf("%s %s %s: validating the request against the contract: %v", method, path, body, err)
	}
	w := httptest.NewRecorder()
	c.http.ServeHTTP(w, newRequest())
	out := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: w.Code, Header: w.Header(),
		Body:    io.NopCloser(bytes.NewReader(w.Body.Bytes())),
		Options: &openapi3filter.Options{IncludeResponseStatus: true}}
	if err := openapi3filter.ValidateResponse(c.t.Context(), out); err != nil {
		c.t.Errorf("%s %s: the answer %d does not match the contract: %v\n%s", method, path, w.Code, err, w.Body)
	}
	return w
}

func jobs() (manage.Jobs, *[]string) {
	var did []string
	now := time.Date(2026, 11, 21, 7, 0, 0, 0, time.UTC)
	return manage.Jobs{
		Health: func(context.Context) api.Health {
			return api.Health{Status: api.StatusReady, Reasons: []string{}, Version: "v0", Node: "n1",
				Roles: []string{"edge"}, Started: now,
				Parts: []api.Part{{Name: "edge", Running: true, Since: now}}, Database: &api.Database{Engine: "sqlite",
					Location: "/d/tandem.db", Available: true, Writable: true, Since: now},
				Replica: &api.Replica{Loaded: true, Database: "d1", Position: 7, Head: 7, Current: true, Synced: &now,
					Held: &api.HeldIndex{Reason: "another database", Database: "d2", Numbers: 1, Since: now}},
				Calls: &api.Calls{Active: 3}}
		},
		Drain: func(context.Context, bool) error { did = append(did, "drain"); return nil },
		Reload: func(ctx context.Context) (*api.Reloaded, error) {
			did = append(did, "reload")
			return &api.Reloaded{Applied: []string{"log.level"}, Restart: []string{}}, nil
		},
		Peers: func() []api.PeerGroup {
			return []api.PeerGroup{{Name: "core", Service: "core", Listen: []string{"udp 127.0.0.1:5060"},
				Peers: []api.Peer{{Name: "a", Address: "127.0.0.1:5070", State: "up", Since: &now}}}}
		},
		AcceptIndex: func(ctx context.Context, database string) error {
			if database == "other" {
				return fault.New(fault.Conflict, "IndexNotHeld", "the index is not held back from %s", database)
			}
			did = append(did, "accept "+database+" by "+domain.ActorFrom(ctx).ID)
			return nil
		},
		Explain: func(_ context.Context, q api.Question) (*api.Explanation, error) {
			if q.Peer == "none" {
				return nil, fault.New(fault.NotFound, "UnknownPeer", "there is no peer %q", q.Peer).At("peer")
			}
			step := api.Step{Rule: "peer-group", Result: "note", Text: "core",
				Facts: []api.Fact{{Name: "peerGroup", Value: q.Peer}}}
			return &api.Explanation{Outcome: "rejected", Rule: "default-service", Text: "404", SIPStatus: 404,
				Steps: []api.Step{step}}, nil
		},
		Clients: func(context.Context) ([]api.Client, error) {
			return []api.Client{{ID: "1", Name: "bss", Roles: []string{"ProvisioningAPI.Admin"}, Created: now,
				Revoked: &now}}, nil
		},
		NewClient: func(ctx context.Context, n api.NewClient) (*api.CreatedClient, error) {
			did = append(did, "client "+n.Name+" by "+domain.ActorFrom(ctx).ID)
			return &api.CreatedClient{Client: api.Client{ID: "2", Name: n.Name, Roles: n.Roles, Created: now},
				Secret: "s"}, nil
		},
		Revoke: func(_ context.Context, id string) error {
			if id == "busy" {
				return fault.New(fault.Unavailable, "DatabaseUnavailable",
					"the database is unavailable").After(1500 * time.Millisecond)
			}
			did = append(did, "revoke "+id)
			return nil
		},
		NewToken: func(_ context.Context, roles []string) (*api.Token, error) {
			return &api.Token{AccessToken: strings.Join(roles, "+"), ExpiresIn: 60}, nil
		},
		VerifyAudit: func(_ context.Context, heads []string) (*api.AuditReport, error) {
			return &api.AuditReport{OK: false, Rows: 10, BrokenAt: 5,
				Reason: "hash differs" + strings.Join(heads, ",")}, nil
		},
	}, &did
}

func local(*http.Request) domain.Actor { return domain.Actor{Kind: "administrator", ID: "local"} }

func newServer(t *testing.T, j manage.Jobs) *manage.Server {
	t.Helper()
	return manage.New(j, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
}

func TestEveryOperationMatchesTheContract(t *testing.T) {
	t.Parallel()
	j, did := jobs()
	c := newContract(t, newServer(t, j).Local(local))
	for _, x := range []struct {
		method, path, body string
		status             int
		answer             string // part of the body
		bad                bool   // the request itself breaks the contract
	}{
		{"GET", "/manage/v1/health", "", 200, `"status":"ready"`, false},
		{"PUT", "/manage/v1/drain", `{"draining":true}`, 200, `{"draining":true}`, false},
		{"PUT", "/manage/v1/drain", `{"drain":true}`, 400, "InvalidRequestBody", true},
		{"PUT", "/manage/v1/drain", `{"draining":true}{}`, 400, "InvalidJson", false},
		{"POST", "/manage/v1/reload", "", 200, `{"applied":["log.level"],"restart":[]}`, false},
		{"GET", "/manage/v1/peers", "", 200, `"state":"up"`, false},
		{"POST", "/manage/v1/index/accept", `{"database":"d2"}`, 202, "", false},
		{"POST", "/manage/v1/index/accept", `{"database":"other"}`, 409, "IndexNotHeld", false},
		{"POST", "/manage/v1/index/accept", `{}`, 400, "MissingField", true},
		{"POST", "/manage/v1/explain", `{"from":"+15550100","to":"+442079460123","peer":"core"}`, 200,
			`"sipStatus":404`, false},
		{"POST", "/manage/v1/explain", `{"from":"+15550100","to":"+442079460123","peer":"none"}`, 404,
			"UnknownPeer", false},
		{"POST", "/manage/v1/explain", `{"from":"+15550100","peer":"core"}`, 400, `"target":"to"`, true},
		{"POST", "/manage/v1/explain", `{"to":"+15550100","peer":"core"}`, 400, `"target":"from"`, true},
		{"POST", "/manage/v1/explain", `{"to":"+15550100","from":"+1"}`, 400, `"target":"peer"`, true},
		{"GET", "/manage/v1/clients", "", 200, `"revoked"`, false},
		{"POST", "/manage/v1/clients", `{"name":"bss","roles":["ProvisioningAPI.Admin"]}`, 201, `"secret":"s"`, false},
		{"POST", "/manage/v1/clients", `{"name":"","roles":["ProvisioningAPI.Admin"]}`, 400, "InvalidClientName", true},
		{"POST", "/manage/v1/clients", `{"name":"x","roles":[]}`, 400, "RolesMissing", true},
		{"DELETE", "/manage/v1/clients/7", "", 204, "", false},
		{"DELETE", "/manage/v1/clients/busy", "", 503, "DatabaseUnavailable", false},
		{"POST", "/manage/v1/tokens", `{"roles":["a"]}`, 200, `"expiresIn":60`, false},
		{"POST", "/manage/v1/tokens", `{"roles":["a"],"lifetime":59}`, 400, "UnknownField", true},
		{"POST", "/manage/v1/tokens", `{"roles":[]}`, 400, "RolesMissing", true},
		{"POST", "/manage/v1/audit/verify", "", 200, `"brokenAt":5`, false},
		{"POST", "/manage/v1/audit/verify", `{"heads":["7:ab"]}`, 200, `differs7:ab`, false},
		{"POST", "/manage/v1/audit/verify", `{"head":"7:ab"}`, 400, "UnknownField", true},
	} {
		w := c.do(x.method, x.path, x.body, x.bad)
		if w.Code != x.status || !strings.Contains(w.Body.String(), x.answer) {
			t.Errorf("%s %s %s = %d %s, want %d …%s…", x.method, x.path, x.body, w.Code, w.Body, x.status, x.answer)
		}
		if x.path == "/manage/v1/clients/busy" && w.Header().Get("Retry-After") != "2" {
			t.Errorf("Retry-After = %q, want 2", w.Header().Get("Retry-After"))
		}
	}
	for path, item := range c.doc.Paths.Map() {
		for method, op := range item.Operations() {
			if !c.seen[op.OperationID] {
				t.Errorf("%s %s (%s) is in the contract and was not exercised", method, path, op.OperationID)
			}
		}
	}
	if got := strings.Join(*did, "; "); got != "drain; reload; accept d2 by local; client bss by local; revoke 7" {
		t.Errorf("jobs did: %s", got)
	}
}

func TestRolesDetermineThePermissions(t *testing.T) {
	t.Parallel()
	j, did := jobs()
	h := newServer(t, j).Remote(http.NewServeMux(), func(*http.Request) error { return nil },
		func(r *http.Request) (domain.Actor, []string, error) {
			role, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
			if !ok {
				return domain.Actor{}, nil, fault.New(fault.Unauthenticated, "TokenMissing", "send a bearer token")
			}
			return domain.Actor{Kind: "client", ID: "c"}, []string{role}, nil
		})
	c := newContract(t, h)
	read := map[string]bool{"getHealth": true, "listPeers": true, "explainCall": true, "verifyAudit": true}
	bodies := map[string]string{"setDrain": `{"draining":false}`, "acceptIndex": `{"database":"d2"}`,
		"explainCall":  `{"from":"+15550100","to":"+15550101","peer":"core"}`,
		"createClient": `{"name":"n","roles":["r"]}`, "createToken": `{"roles":["r"]}`}
	for path, item := range c.doc.Paths.Map() {
		path = strings.ReplaceAll(path, "{clientId}", "1")
		for method, op := range item.Operations() {
			for role, want := range map[string]bool{"": false, "Management.Admin": true,
				"Management.Read": read[op.OperationID], "ProvisioningAPI.Admin": false} {
				var auth []string
				wantStatus := 403
				if role == "" {
					wantStatus = 401
				} else {
					auth = []string{"Authorization", "Bearer " + role}
				}
				before := len(*did)
				w := c.do(method, path, bodies[op.OperationID], false, auth...)
				if ok := w.Code/100 == 2; ok != want || !ok && w.Code != wantStatus {
					t.Errorf("%s with role %q = %d, want success %v", op.OperationID, role, w.Code, want)
				}
				if !want && len(*did) != before {
					t.Errorf("%s with role %q was done although refused", op.OperationID, role)
				}
			}
		}
	}
}

// TestBodiesAreReadStrictly: a body that does not match the contract exactly has no effect.
func TestBodiesAreReadStrictly(t *testing.T) {
	t.Parallel()
	j, did := jobs()
	h := newServer(t, j).Local(local)
	for _, x := range []struct{ method, path, body, code string }{
		{"PUT", "drain", `{}`, "MissingField"},
		{"PUT", "drain", ``, "InvalidJson"},
		{"PUT", "drain", `null`, "InvalidFieldType"},
		{"PUT", "drain", `true`, "InvalidFieldType"},
		{"PUT", "drain", `[{"draining":true}]`, "InvalidFieldType"},
		{"PUT", "drain", `{"draining":null}`, "InvalidFieldType"},
		{"PUT", "drain", `{"draining":1}`, "InvalidFieldType"},
		{"PUT", "drain", `{"draining":"true"}`, "InvalidFieldType"},
		{"PUT", "drain", `{"Draining":true}`, "InvalidRequestBody"},
		{"PUT", "drain", `{"draining":true,"DRAINING":false}`, "UnknownField"},
		{"PUT", "drain", `{"draining":true,"draining":false}`, "DuplicateField"},
		{"PUT", "drain", `{"draining":true,"drain\u0069ng":false}`, "DuplicateField"},
		{"PUT", "drain", `{"draining":true}x`, "InvalidJson"},
		{"PUT", "drain", "\ufeff" + `{"draining":true}`, "InvalidJson"},
		{"PUT", "drain", "{\"draining\":true,\"x\":\"\xff\"}", "InvalidJson"},
		{"PUT", "drain", `{"draining":true,"x":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) +
			`}`, "InvalidJson"},
		{"POST", "clients", `{"name":"bss"}`, "MissingField"},
		{"POST", "clients", `{"name":"bss","roles":null}`, "InvalidFieldType"},
		{"POST", "clients", `{"name":7,"roles":["ProvisioningAPI.Read"]}`, "InvalidFieldType"},
		{"POST", "clients", `{"name":"bss","roles":"ProvisioningAPI.Read"}`, "InvalidFieldType"},
		{"POST", "clients", `{"name":"bss","roles":["ProvisioningAPI.Read"],"roles":["ProvisioningAPI.Admin"]}`,
			"DuplicateField"},
		{"POST", "tokens", `{"Roles":["ProvisioningAPI.Read"]}`, "InvalidRequestBody"},
		{"POST", "tokens", `{"roles":[null]}`, "InvalidFieldType"},
		{"POST", "explain", `{"from":"1","to":"2","peer":"p","asserted":"x"}`, "InvalidFieldType"},
		{"POST", "explain", `{"from":"","to":"2","peer":"p"}`, "InvalidQuestion"},
		{"POST", "audit/verify", `{"heads":{}}`, "InvalidFieldType"},
		{"POST", "reload", `{"dryRun":true}`, "UnknownField"},
		{"POST", "reload", `x`, "InvalidJson"},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), x.method, "/manage/v1/"+x.path,
			strings.NewReader(x.body)))
		if w.Code != 400 || w.Header().Get("x-ms-error-code") != x.code {
			t.Errorf("%s %s %.60s = %d %.200s, want 400 %s", x.method, x.path, x.body, w.Code, w.Body, x.code)
		}
	}
	if len(*did) != 0 {
		t.Errorf("refused bodies had an effect: %v", *did)
	}
	// an optional body may be empty, also in chunks, whose length is unknown
	for _, path := range []string{"reload", "audit/verify"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "POST", "/manage/v1/"+path, io.MultiReader()))
		if w.Code != 200 {
			t.Errorf("POST %s with an empty body in chunks = %d %s", path, w.Code, w.Body)
		}
	}
}

func TestErrorAnswers(t *testing.T) {
	t.Parallel()
	j, _ := jobs()
	j.Explain = func(context.Context, api.Question) (*api.Explanation, error) { panic("bug") }
	j.Peers = nil
	j.VerifyAudit = func(context.Context, []string) (*api.AuditReport, error) {
		return nil, errors.New("disk: secret path")
	}
	h := newServer(t, j).Local(local)
	for _, x := range []struct {
		method, path, body string
		status             int
		code               string
	}{
		{"GET", "/manage/v1/none", "", 404, "NotFound"},
		{"DELETE", "/manage/v1/clients", "", 405, "MethodNotAllowed"},
		{"POST", "/manage/v1/explain", `{"from":"1","to":"2","peer":"p"}`, 500, "InternalError"},
		{"GET", "/manage/v1/peers", "", 404, "NotOnThisNode"},
		{"POST", "/manage/v1/audit/verify", "", 500, "InternalError"},
		{"PUT", "/manage/v1/drain", `{"x":"` + strings.Repeat("x", 70<<10) + `"}`, 413, "RequestTooLarge"},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), x.method, x.path, strings.NewReader(x.body)))
		var e api.ErrorBody
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || w.Code != x.status || e.Error.Code != x.code ||
			w.Header().Get("x-ms-error-code") != x.code {
			t.Errorf("%s %s = %d %s (%v), want %d %s", x.method, x.path, w.Code, w.Body, err, x.status, x.code)
		}
		if strings.Contains(w.Body.String(), "secret path") {
			t.Errorf("the answer contains what only the log may: %s", w.Body)
		}
	}
}
