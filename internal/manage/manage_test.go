package manage_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/prometheus/client_golang/prometheus"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/manage"
)

// contract checks every exchange against api/manage/v1.yaml.
type contract struct {
	t      *testing.T
	doc    *openapi3.T
	router routers.Router
	http   http.Handler
	seen   map[string]bool // operation ids
	sent   int
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
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	return &contract{t: t, doc: doc, router: router, http: h, seen: map[string]bool{}}
}

// do sends a request and returns the answer. Both must match the contract; with badRequest the request must not.
func (c *contract) do(method, path, body string, badRequest bool, headers ...string) *httptest.ResponseRecorder {
	c.t.Helper()
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
	route, params, err := c.router.FindRoute(r)
	if err != nil {
		c.t.Fatalf("%s %s is not in the contract: %v", method, path, err)
	}
	c.seen[route.Operation.OperationID] = true
	c.sent++
	in := &openapi3filter.RequestValidationInput{Request: r, PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc}}
	if err := openapi3filter.ValidateRequest(c.t.Context(), in); (err != nil) != badRequest {
		c.t.Errorf("%s %s %s: validating the request against the contract: %v", method, path, body, err)
	}
	w := httptest.NewRecorder()
	c.http.ServeHTTP(w, newRequest())
	openapi3filter.RegisterBodyDecoder("text/event-stream", firstEvent)
	out := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: w.Code, Header: w.Header(),
		Body:    io.NopCloser(bytes.NewReader(w.Body.Bytes())),
		Options: &openapi3filter.Options{IncludeResponseStatus: true}}
	if err := openapi3filter.ValidateResponse(c.t.Context(), out); err != nil {
		c.t.Errorf("%s %s: the answer %d does not match the contract: %v\n%s", method, path, w.Code, err, w.Body)
	}
	return w
}

// firstEvent decodes the data of the first event of a stream.
func firstEvent(body io.Reader, _ http.Header, _ *openapi3.SchemaRef, _ openapi3filter.EncodingFn) (v any, err error) {
	text, err := io.ReadAll(body)
	if err == nil {
		_, data, _ := strings.Cut(string(text), "data: ")
		err = json.Unmarshal([]byte(data), &v)
	}
	return v, err
}

// job implements every operation and notes what was done.
type job struct{ did []string }

var now = time.Date(2026, 11, 21, 7, 0, 0, 0, time.UTC)

func (j *job) GetHealth(context.Context, api.GetHealthRequestObject) (api.GetHealthResponseObject, error) {
	return api.GetHealth200JSONResponse{Status: api.HealthStatusReady, Reasons: []string{}, Version: "v0", Node: "n1",
		Roles: []string{"edge"}, Started: now, Parts: []api.Part{{Name: "edge", Running: true, Since: now}},
		Database: &api.Database{Engine: "sqlite", Location: "/d/tandem.db", Available: true, Writable: true,
			Since: now},
		Replica: &api.Replica{Loaded: true, Database: "d1", Position: 7, Head: 7, Current: true, Synced: now,
			Held: &api.HeldIndex{Reason: "another database", Database: "d2", Numbers: 1, Since: now}},
		Calls: &api.Calls{Active: 3}, BaseDomain: "gw.example.com",
		Provisioning: &api.Provisioning{APIVersions: []string{"v"}, AllowedSources: []string{},
			Issuers: []api.Issuer{{Name: "i"}}}}, nil
}

func (j *job) GetDrain(context.Context, api.GetDrainRequestObject) (api.GetDrainResponseObject, error) {
	return api.GetDrain200JSONResponse{Headers: api.GetDrain200ResponseHeaders{ETag: `"1"`}}, nil
}

func (j *job) SetDrain(_ context.Context, r api.SetDrainRequestObject) (api.SetDrainResponseObject, error) {
	if r.Params.IfMatch != nil && *r.Params.IfMatch != `"1", W/"2"` {
		return nil, fault.New(fault.Precondition, "ConditionNotMet", "%s does not match", *r.Params.IfMatch)
	}
	j.did = append(j.did, "drain")
	return api.SetDrain200JSONResponse{Body: *r.Body, Headers: api.SetDrain200ResponseHeaders{ETag: `"2"`}}, nil
}

func (j *job) Reload(context.Context, api.ReloadRequestObject) (api.ReloadResponseObject, error) {
	j.did = append(j.did, "reload")
	return api.Reload200JSONResponse{Applied: []string{"log.level"}, Restart: []string{}}, nil
}

func (j *job) FollowEvents(context.Context, api.FollowEventsRequestObject) (api.FollowEventsResponseObject, error) {
	return api.FollowEvents200TextEventStreamResponse{Body: strings.NewReader(`id: 7
data: {"id":"7","time":"2026-11-21T07:00:00Z","kind":"numbers.put","subject":"a","items":3,"actor":{"kind":"client",` +
		`"id":"c"},"data":{"x":1},"restricted":true}` + "\n\n")}, nil
}

func (j *job) ListPeers(context.Context, api.ListPeersRequestObject) (api.ListPeersResponseObject, error) {
	return api.ListPeers200JSONResponse{Groups: []api.PeerGroup{{Name: "core", Service: "core",
		Listen:      []string{"udp 127.0.0.1:5060", "tls 127.0.0.1:5061"},
		Certificate: &api.PeerCertificate{File: "core.pem", Expires: now, Warning: "no client authentication"},
		Peers:       []api.Peer{{Name: "a", Address: "127.0.0.1:5070", State: "up", Since: now}}}}}, nil
}

func (j *job) AcceptIndex(ctx context.Context, r api.AcceptIndexRequestObject) (api.AcceptIndexResponseObject, error) {
	if r.Body.Database == "other" {
		return nil, fault.New(fault.Conflict, "IndexNotHeld", "the index is not held back from %s", r.Body.Database)
	}
	j.did = append(j.did, "accept "+r.Body.Database+" by "+domain.ActorFrom(ctx).ID)
	return api.AcceptIndex202Response{}, nil
}

func (j *job) ExplainCall(_ context.Context, r api.ExplainCallRequestObject) (api.ExplainCallResponseObject, error) {
	switch r.Body.Peer {
	case "none":
		return nil, fault.New(fault.NotFound, "UnknownPeer", "there is no peer %q", r.Body.Peer).At("peer")
	case "bug":
		panic("bug")
	}
	j.did = append(j.did, "explain")
	step := api.Step{Rule: "peer-group", Result: "note", Text: "core",
		Facts: []api.Fact{{Name: "peerGroup", Value: r.Body.Peer}}}
	return api.ExplainCall200JSONResponse{Outcome: "rejected", Rule: "default-service", Text: "404", SIPStatus: 404,
		Steps: []api.Step{step}}, nil
}

func labels(account, pending string) api.LabelsJSONResponse {
	l := api.LabelsJSONResponse{Body: api.Labels{Account: account, Pending: &api.Label{Label: pending}}}
	l.Headers.ETag = `"7"`
	return l
}

func (j *job) GetLabels(_ context.Context, r api.GetLabelsRequestObject) (api.GetLabelsResponseObject, error) {
	return api.GetLabels200JSONResponse{LabelsJSONResponse: labels(r.Account, "b")}, nil
}

func (j *job) PutPendingLabel(_ context.Context,
	r api.PutPendingLabelRequestObject) (api.PutPendingLabelResponseObject, error) {
	j.did = append(j.did, "label "+r.Label+" "+r.Body.Region1Token+r.Body.Region2Token)
	return api.PutPendingLabel200JSONResponse{LabelsJSONResponse: labels(r.Account, r.Label)}, nil
}

func (j *job) RemovePendingLabel(_ context.Context,
	r api.RemovePendingLabelRequestObject) (api.RemovePendingLabelResponseObject, error) {
	j.did = append(j.did, "unlabel "+r.Label)
	return api.RemovePendingLabel200JSONResponse{LabelsJSONResponse: labels(r.Account, "")}, nil
}

func (j *job) ActivateLabel(_ context.Context,
	r api.ActivateLabelRequestObject) (api.ActivateLabelResponseObject, error) {
	j.did = append(j.did, "activate "+r.Label)
	return api.ActivateLabel200JSONResponse{LabelsJSONResponse: labels(r.Account, "a")}, nil
}

func (j *job) ListLabelNumbers(_ context.Context,
	r api.ListLabelNumbersRequestObject) (api.ListLabelNumbersResponseObject, error) {
	return api.ListLabelNumbers200JSONResponse{Numbers: []string{"+442079460123"},
		Next: *cmp.Or(r.Params.Cursor, new(""))}, nil
}

func (j *job) RecordLabel(_ context.Context, r api.RecordLabelRequestObject) (api.RecordLabelResponseObject, error) {
	j.did = append(j.did, fmt.Sprint("record ", r.Body.Label, r.Body.Numbers))
	return api.RecordLabel204Response{}, nil
}

func (j *job) ListClients(_ context.Context, r api.ListClientsRequestObject) (api.ListClientsResponseObject, error) {
	return api.ListClients200JSONResponse{Clients: []api.Client{{ID: "1", Name: "bss", Created: now, Revoked: now,
		Roles: []string{"ProvisioningAPI.Admin"}}}, Next: *cmp.Or(r.Params.Cursor, new(""))}, nil
}

func (j *job) CreateClient(ctx context.Context,
	r api.CreateClientRequestObject) (api.CreateClientResponseObject, error) {
	j.did = append(j.did, "client "+r.Body.Name+" by "+domain.ActorFrom(ctx).ID)
	return api.CreateClient201JSONResponse{Secret: "s",
		Client: api.Client{ID: "2", Name: r.Body.Name, Roles: r.Body.Roles, Created: now}}, nil
}

func (j *job) RevokeClient(_ context.Context, r api.RevokeClientRequestObject) (api.RevokeClientResponseObject, error) {
	if r.ClientID == "busy" {
		return nil, fault.New(fault.Unavailable, "DatabaseUnavailable",
			"the database is unavailable").After(1500 * time.Millisecond)
	}
	j.did = append(j.did, "revoke "+r.ClientID)
	return api.RevokeClient204Response{}, nil
}

func (j *job) CreateToken(_ context.Context, r api.CreateTokenRequestObject) (api.CreateTokenResponseObject, error) {
	j.did = append(j.did, "token")
	return api.CreateToken200JSONResponse{AccessToken: strings.Join(r.Body.Roles, "+"), ExpiresIn: 60}, nil
}

func (j *job) CheckToken(_ context.Context, r api.CheckTokenRequestObject) (api.CheckTokenResponseObject, error) {
	j.did = append(j.did, "check")
	return api.CheckToken200JSONResponse{Checks: []api.TokenCheck{{Name: "format", Result: "failed",
		Detail: strconv.Itoa(len(r.Body.Token)), Remedy: "send a token"}}}, nil
}

func (j *job) VerifyAudit(_ context.Context, r api.VerifyAuditRequestObject) (api.VerifyAuditResponseObject, error) {
	var heads []string
	if r.Body != nil {
		heads = r.Body.Heads
	}
	if len(heads) == 1 && heads[0] == "fail" {
		return nil, errors.New("disk: secret path")
	}
	j.did = append(j.did, "verify")
	return api.VerifyAudit200JSONResponse{Rows: 10, BrokenAt: 5, Reason: "hash differs" + strings.Join(heads, ",")}, nil
}

func (j *job) RotateKeyring(_ context.Context,
	r api.RotateKeyringRequestObject) (api.RotateKeyringResponseObject, error) {
	j.did = append(j.did, fmt.Sprint("rotate ", r.Body != nil && r.Body.Distributed))
	return api.RotateKeyring200JSONResponse{Primary: 8, Sealed: 2, Unreadable: 3}, nil
}

func (j *job) ListWork(_ context.Context, r api.ListWorkRequestObject) (api.ListWorkResponseObject, error) {
	state := *cmp.Or(r.Params.State, new(api.WorkStateWaiting))
	return api.ListWork200JSONResponse{Work: []api.Work{{Kind: "tenant", ID: "1", State: state, Attempts: 2, Due: now,
		Since: now, Reason: "consent"}}, Next: *cmp.Or(r.Params.Cursor, new(""))}, nil
}

func (j *job) RunWork(_ context.Context, r api.RunWorkRequestObject) (api.RunWorkResponseObject, error) {
	j.did = append(j.did, string(r.Action)+" "+r.Kind+" "+r.ID)
	return api.RunWork204Response{}, nil
}

func (j *job) GetZone(_ context.Context, r api.GetZoneRequestObject) (api.GetZoneResponseObject, error) {
	name := *cmp.Or(r.Params.Name, new("the base domain"))
	return api.GetZone200JSONResponse{Zone: "gw.example.com", Publish: "serve", Serial: 7, RecordsInAll: 9,
		Records: []api.ZoneRecord{{Name: name, Type: "A", TTL: 60, Data: "192.0.2.1", Source: "configuration",
			Added: now}}}, nil
}

func (j *job) CheckZone(_ context.Context, r api.CheckZoneRequestObject) (api.CheckZoneResponseObject, error) {
	name := ""
	if r.Body != nil {
		name = r.Body.Name
	}
	return api.CheckZone200JSONResponse{Zone: "gw.example.com", Names: []string{name},
		Servers: []api.ZoneServer{{Name: "ns1", Serial: 7}}, Until: now,
		Findings: []api.ZoneFinding{{Server: "ns1", Problem: api.ZoneFindingProblemLame, Text: "refused"}}}, nil
}

func (j *job) AcceptZone(ctx context.Context, _ api.AcceptZoneRequestObject) (api.AcceptZoneResponseObject, error) {
	j.did = append(j.did, "accept the zone by "+domain.ActorFrom(ctx).ID)
	return api.AcceptZone202Response{}, nil
}

func (j *job) ListCertificates(context.Context,
	api.ListCertificatesRequestObject) (api.ListCertificatesResponseObject, error) {
	return api.ListCertificates200JSONResponse{Certificates: []api.Certificate{{Name: "provapi", Names: []string{"a"},
		UsedBy: []string{}, NotAfter: now, Source: api.CertificateSourceAcme}}}, nil
}

func (j *job) RenewCertificate(_ context.Context,
	r api.RenewCertificateRequestObject) (api.RenewCertificateResponseObject, error) {
	if r.Name == "limited" {
		return nil, fault.New(fault.Limited, "AuthorityLimit", "not before noon").After(time.Hour)
	}
	return api.RenewCertificate202Response{}, nil
}

func local(*http.Request) domain.Actor { return domain.Actor{Kind: "administrator", ID: "local"} }

func newServer(t *testing.T, ops manage.Operations, log io.Writer) *manage.Server {
	t.Helper()
	return manage.New(ops, http.NewServeMux(), slog.New(slog.NewTextHandler(log, nil)), prometheus.NewRegistry())
}

// all binds every operation to j.
func (j *job) ListTenants(_ context.Context, r api.ListTenantsRequestObject) (api.ListTenantsResponseObject, error) {
	return api.ListTenants200JSONResponse{Tenants: []api.Tenant{sampleTenant}, Next: *cmp.Or(r.Params.Cursor, new(""))},
		nil
}

var sampleTenant = api.Tenant{Account: "acme", State: "waiting",
	Labels:   []api.TenantLabel{{Names: []string{"a.1r1.x"}}},
	Overview: &api.TenantOverview{Drift: 1, SpareLicences: new(0), SignInLost: now, SignInProblem: "disabled"},
	Waiting:  &api.TenantWait{For: "person", Reason: "sign in"}, Settings: api.TenantSettings{Trunk: "derived",
		Extensions: []api.Extensions{{Range: "2xxx"}}, Rules: []api.DialRule{{Name: "a", Pattern: "b",
			Translation: "c"}},
		Emergency: []api.EmergencyNumber{{DialString: "112"}}}}

func (j *job) GetTenant(context.Context, api.GetTenantRequestObject) (api.GetTenantResponseObject, error) {
	return api.GetTenant200JSONResponse{TenantJSONResponse: api.TenantJSONResponse{Body: sampleTenant,
		Headers: api.TenantResponseHeaders{ETag: `"1"`}}}, nil
}

func (j *job) PutTenant(_ context.Context, r api.PutTenantRequestObject) (api.PutTenantResponseObject, error) {
	t := sampleTenant
	t.Settings = *r.Body
	return api.PutTenant200JSONResponse{TenantJSONResponse: api.TenantJSONResponse{Body: t,
		Headers: api.TenantResponseHeaders{ETag: `"2"`}}}, nil
}

func (j *job) DeleteTenant(context.Context, api.DeleteTenantRequestObject) (api.DeleteTenantResponseObject, error) {
	return api.DeleteTenant204Response{}, nil
}

func (j *job) GetDialPlan(_ context.Context, r api.GetDialPlanRequestObject) (api.GetDialPlanResponseObject, error) {
	return api.GetDialPlan200JSONResponse{Country: "GB", Rules: []api.DialRule{}, LeftOut: []string{"x"},
		Examples: []api.DialExample{{Dialled: *cmp.Or(r.Params.Dialled, new("")), Number: "+44"}}}, nil
}

var samplePlan = api.TenantPlan{ID: "p1", Account: "acme", Purpose: "onboard", By: "user:a", Hash: "h",
	Steps: []api.PlanStep{{Action: "create", Type: "domain", Name: "a.1r1.x", Usual: 300,
		Differences: []api.PlanDifference{{Field: "verified", New: true}}}},
	Users: []api.PlanStep{}, Conflicts: []api.PlanNote{{Type: "route", Name: "x", Text: "exists"}},
	Kept:   []api.PlanNote{},
	Opened: []api.PlanNote{}}

func (j *job) PlanTenant(context.Context, api.PlanTenantRequestObject) (api.PlanTenantResponseObject, error) {
	return api.PlanTenant200JSONResponse(samplePlan), nil
}

func (j *job) GetPlan(context.Context, api.GetPlanRequestObject) (api.GetPlanResponseObject, error) {
	return api.GetPlan200JSONResponse(samplePlan), nil
}

func (j *job) ApplyPlan(_ context.Context, r api.ApplyPlanRequestObject) (api.ApplyPlanResponseObject, error) {
	if r.Plan == "refused" {
		return nil, fault.New(fault.Forbidden, "TeamsRoleMissing", "give the role")
	}
	if r.Plan == "expired" {
		return nil, fault.New(fault.Unauthenticated, "TokenRefused", "sign in again")
	}
	if r.Plan == "old" {
		return nil, fault.New(fault.Conflict, "TenantChanged", "changed")
	}
	return api.ApplyPlan202JSONResponse(samplePlan), nil
}

var sampleSnapshot = api.Snapshot{ID: "s1", TenantID: "t", Reason: "leave", Objects: 9}

func (j *job) ListSnapshots(_ context.Context,
	r api.ListSnapshotsRequestObject) (api.ListSnapshotsResponseObject, error) {
	return api.ListSnapshots200JSONResponse{Snapshots: []api.Snapshot{sampleSnapshot},
		Next: *cmp.Or(r.Params.Cursor, new(""))}, nil
}

func (j *job) TakeSnapshot(context.Context, api.TakeSnapshotRequestObject) (api.TakeSnapshotResponseObject, error) {
	return api.TakeSnapshot200JSONResponse(sampleSnapshot), nil
}

func (j *job) ImportSnapshot(_ context.Context,
	r api.ImportSnapshotRequestObject) (api.ImportSnapshotResponseObject, error) {
	s := sampleSnapshot
	s.Users = len(r.Body.Export)
	return api.ImportSnapshot200JSONResponse(s), nil
}

func (j *job) ExportSnapshot(context.Context,
	api.ExportSnapshotRequestObject) (api.ExportSnapshotResponseObject, error) {
	return api.ExportSnapshot200JSONResponse{Snapshot: sampleSnapshot, Export: "{}"}, nil
}

func (j *job) GetLeaveReport(_ context.Context,
	r api.GetLeaveReportRequestObject) (api.GetLeaveReportResponseObject, error) {
	return api.GetLeaveReport200JSONResponse{Account: r.Account, Snapshot: r.Snapshot,
		Outcomes: []api.LeaveOutcome{{Type: "route", Name: "Tandem-E164", Fate: "kept", Reason: "in use"}}}, nil
}

func (j *job) GetDriftOverview(context.Context,
	api.GetDriftOverviewRequestObject) (api.GetDriftOverviewResponseObject, error) {
	return api.GetDriftOverview200JSONResponse{Tenants: 7, RequestsPerHour: 63}, nil
}

var sampleDrift = api.Drift{Account: "acme", Every: 3600, Differences: []api.DriftDifference{{ID: 3, Cause: "changed",
	Type: "route", Name: "Tandem-E164", Field: "gateways", Expected: []string{"a"}, Found: []string{"b"}}}}

func (j *job) GetDrift(context.Context, api.GetDriftRequestObject) (api.GetDriftResponseObject, error) {
	return api.GetDrift200JSONResponse(sampleDrift), nil
}

func (j *job) CheckDrift(context.Context, api.CheckDriftRequestObject) (api.CheckDriftResponseObject, error) {
	return api.CheckDrift202Response{}, nil
}

func (j *job) AcceptDrift(context.Context, api.AcceptDriftRequestObject) (api.AcceptDriftResponseObject, error) {
	return api.AcceptDrift200JSONResponse(sampleDrift), nil
}

func (j *job) RepairDrift(_ context.Context, r api.RepairDriftRequestObject) (api.RepairDriftResponseObject, error) {
	return api.RepairDrift200JSONResponse{Plan: fmt.Sprint("p", r.Body.Differences[0])}, nil
}

func (j *job) CheckReadiness(_ context.Context, r api.CheckReadinessRequestObject) (api.CheckReadinessResponseObject,
	error) {
	return api.CheckReadiness200JSONResponse{Account: r.Account, Stage: "signIn", Failed: 1, Names: []string{"a.1r1.x"},
		Licence: &api.ActivationLicence{Way: "reused"}, Findings: []api.ReadinessFinding{{ID: "permission",
			Level: "fail", Stage: "consent", Reason: "not granted", Remedy: "authorise"}}}, nil
}

func (j *job) CheckCarrier(context.Context, api.CheckCarrierRequestObject) (api.CheckCarrierResponseObject, error) {
	return api.CheckCarrier200JSONResponse{Missing: []string{"x"}, Remarks: []string{}, CredentialExpires: &now}, nil
}

var sampleApp = api.CarrierApp{ClientID: "c", RedirectUris: []string{}, CertificateExpires: &now,
	Permissions: []api.AppPermission{{Kind: "delegated", Steps: []string{"leave"}}},
	Manifest:    map[string]any{"displayName": "Tandem"}}

func (j *job) GetCarrierApp(context.Context, api.GetCarrierAppRequestObject) (api.GetCarrierAppResponseObject, error) {
	return api.GetCarrierApp200JSONResponse(sampleApp), nil
}

func (j *job) CreateCarrierApp(context.Context, api.CreateCarrierAppRequestObject) (
	api.CreateCarrierAppResponseObject, error) {
	return api.CreateCarrierApp201JSONResponse(sampleApp), nil
}

func (j *job) CheckCarrierApp(context.Context, api.CheckCarrierAppRequestObject) (api.CheckCarrierAppResponseObject,
	error) {
	return api.CheckCarrierApp200JSONResponse{ClientID: "c", Differences: []api.AppDifference{{Field: "web"}}}, nil
}

func all(j *job) (ops manage.Operations) {
	for i := range reflect.TypeOf(ops).NumField() {
		if field := reflect.ValueOf(&ops).Elem().Field(i); field.Kind() == reflect.Interface {
			field.Set(reflect.ValueOf(j))
		}
	}
	return ops
}

func TestEveryOperationMatchesTheContract(t *testing.T) {
	t.Parallel()
	j := &job{}
	c := newContract(t, newServer(t, all(j), io.Discard).Local(local))
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
		{"GET", "/manage/v1/drain", "", 200, `{"draining":false}`, false},
		{"POST", "/manage/v1/reload", "", 200, `{"applied":["log.level"],"restart":[]}`, false},
		{"GET", "/manage/v1/peers", "", 200, `"clientAuthentication":false`, false},
		{"GET", "/manage/v1/events", "", 200, `"kind":"numbers.put"`, false},
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
		{"POST", "/manage/v1/explain", `{"from":"+15550100","to":"+1","peer":""}`, 400, `"target":"peer"`, true},
		{"GET", "/manage/v1/accounts/acme/labels", "", 200, `"label":"b"`, false},
		{"PUT", "/manage/v1/accounts/acme/labels/b", `{"region1Token":"x","region2Token":"y"}`, 200, `"acme"`, false},
		{"PUT", "/manage/v1/accounts/acme/labels/b", `{"region1Token":"x"}`, 400, "MissingField", true},
		{"DELETE", "/manage/v1/accounts/acme/labels/b", "", 200, `"acme"`, false},
		{"POST", "/manage/v1/accounts/acme/labels/b/activate", "", 200, `"label":"a"`, false},
		{"GET", "/manage/v1/accounts/acme/labels/b/numbers?limit=7&cursor=c", "", 200, `"next":"c"`, false},
		{"POST", "/manage/v1/accounts/acme/recordLabel", `{"label":"b","numbers":["+1"]}`, 204, "", false},
		{"POST", "/manage/v1/accounts/acme/recordLabel", `{"numbers":["+1"]}`, 204, "", false},
		{"POST", "/manage/v1/accounts/acme/recordLabel", `{"numbers":[]}`, 400, "must have 1 to 100 items", true},
		{"GET", "/manage/v1/tenants?limit=7&cursor=c", "", 200, `"next":"c"`, false},
		{"GET", "/manage/v1/tenants?state=waiting&waiting=dns&drift=found&template=branch", "", 200,
			`"spareLicences":0`, false},
		{"GET", "/manage/v1/tenants?state=other", "", 400, "InvalidQueryParameterValue", true},
		{"GET", "/manage/v1/tenants?drift=maybe", "", 400, "InvalidQueryParameterValue", true},
		{"GET", "/manage/v1/tenants/acme/move", "", 200, `"numbers":3`, false},
		{"POST", "/manage/v1/tenants/acme/move", `{"label":"c","trunk":"derived"}`, 201, `"new":"c"`, false},
		{"POST", "/manage/v1/tenants/acme/move", `{"trunk":"other"}`, 400, "InvalidFieldValue", true},
		{"POST", "/manage/v1/tenants/acme/move/continue", "", 202, `"stage":"numbers"`, false},
		{"DELETE", "/manage/v1/tenants/acme/move", "", 204, "", false},
		{"GET", "/manage/v1/templates?limit=7&cursor=c", "", 200, `"next":"c"`, false},
		{"GET", "/manage/v1/templates/branch", "", 200, `"tenants":3`, false},
		{"GET", "/manage/v1/templates/none", "", 404, "TemplateNotFound", false},
		{"PUT", "/manage/v1/templates/branch", `{"country":"DE"}`, 200, `"DE"`, false},
		{"PUT", "/manage/v1/templates/branch", `{"label":"a"}`, 400, "UnknownField", true},
		{"DELETE", "/manage/v1/templates/branch", "", 204, "", false},
		{"GET", "/manage/v1/templates/branch/rollouts", "", 200, `"done"`, false},
		{"POST", "/manage/v1/templates/branch/rollouts", `{"rings":[{"accounts":["a"]},{"percent":50}]}`, 202,
			`"rings":2`, false},
		{"POST", "/manage/v1/templates/branch/rollouts", `{"rings":[{"percent":101}]}`, 400, "InvalidFieldValue", true},
		{"GET", "/manage/v1/templates/branch/rollouts/r1", "", 200, `"problem":"a group has it"`, false},
		{"POST", "/manage/v1/templates/branch/rollouts/r1/apply", "", 202, `"running"`, false},
		{"GET", "/manage/v1/tenants/.carrier", "", 200, `"for":"person"`, false},
		{"PUT", "/manage/v1/tenants/acme", `{"label":"a","extensions":[{"range":"2xxx"}]}`, 200, `"2xxx"`, false},
		{"PUT", "/manage/v1/tenants/acme", `{"trunk":"other"}`, 400, "InvalidFieldValue", true},
		{"PUT", "/manage/v1/tenants/acme", `{"rules":[{"name":"a"}]}`, 400, "MissingField", true},
		{"DELETE", "/manage/v1/tenants/acme", "", 204, "", false},
		{"GET", "/manage/v1/tenants/acme/dialPlan?dialled=112", "", 200, `"dialled":"112"`, false},
		{"POST", "/manage/v1/tenants/acme/plans", `{"purpose":"onboard"}`, 200, `"verified"`, false},
		{"POST", "/manage/v1/tenants/acme/plans", `{"purpose":"other"}`, 400, "InvalidFieldValue", true},
		{"GET", "/manage/v1/tenants/acme/plans/p1", "", 200, `"p1"`, false},
		{"POST", "/manage/v1/tenants/acme/plans/p1/apply", "", 202, `"p1"`, false},
		{"POST", "/manage/v1/tenants/acme/plans/old/apply", "", 409, "TenantChanged", false},
		{"POST", "/manage/v1/tenants/acme/plans/refused/apply", "", 409, "give the role", false},
		{"POST", "/manage/v1/tenants/acme/plans/expired/apply", "", 409, "TokenRefused", false},
		{"GET", "/manage/v1/tenants/acme/snapshots?limit=7&cursor=c", "", 200, `"next":"c"`, false},
		{"POST", "/manage/v1/tenants/acme/snapshots", "", 200, `"s1"`, false},
		{"POST", "/manage/v1/tenants/acme/snapshots/import", `{"export":"` + strings.Repeat("x", 100_000) + `"}`, 200,
			`"users":100000`, false},
		{"POST", "/manage/v1/tenants/acme/snapshots/import", `{"export":""}`, 400, "InvalidFieldValue", true},
		{"GET", "/manage/v1/tenants/acme/snapshots/s1", "", 200, `"export":"{}"`, false},
		{"GET", "/manage/v1/tenants/acme/snapshots/latest/report", "", 200, `"kept"`, false},
		{"GET", "/manage/v1/drift", "", 200, `"requestsPerHour":63`, false},
		{"GET", "/manage/v1/tenants/acme/drift", "", 200, `"found":["b"]`, false},
		{"POST", "/manage/v1/tenants/acme/drift/check", "", 202, "", false},
		{"POST", "/manage/v1/tenants/acme/drift/accept", `{"differences":[3]}`, 200, `"every":3600`, false},
		{"POST", "/manage/v1/tenants/acme/drift/accept", `{"differences":[0]}`, 400, "InvalidFieldValue", true},
		{"POST", "/manage/v1/tenants/acme/drift/repair", `{"differences":[3,4]}`, 200, `"p3"`, false},
		{"POST", "/manage/v1/tenants/acme/drift/repair", `{"differences":[]}`, 400, "InvalidFieldValue", true},
		{"GET", "/manage/v1/tenants/acme/readiness", "", 200, `"remedy":"authorise"`, false},
		{"GET", "/manage/v1/carrier/check", "", 200, `"missing":["x"]`, false},
		{"GET", "/manage/v1/carrier/app", "", 200, `"manifest":{"displayName":"Tandem"}`, false},
		{"POST", "/manage/v1/carrier/app", "", 201, `"clientId":"c"`, false},
		{"GET", "/manage/v1/carrier/app/check", "", 200, `"field":"web"`, false},
		{"GET", "/manage/v1/tenants/acme/users?state=active&number=held&cursor=c", "", 200, `"next":"c"`, false},
		{"GET", "/manage/v1/tenants/acme/users?state=other", "", 400, "InvalidQueryParameterValue", true},
		{"GET", "/manage/v1/tenants/acme/users/anna@contoso.example", "", 200, `"Anna"`, false},
		{"GET", "/manage/v1/tenants/acme/users/nobody", "", 404, "UserNotFound", false},
		{"POST", "/manage/v1/tenants/acme/users/i/refresh", "", 200, `"Anna"`, false},
		{"POST", "/manage/v1/tenants/acme/users/activate",
			`{"items":[{"user":"a","number":"+1"}],"department":"d","nextNumber":true}`, 200, `"more":true`, false},
		{"POST", "/manage/v1/tenants/acme/users/activate", `{"items":[{"number":"+1"}]}`, 400, "MissingField", true},
		{"POST", "/manage/v1/tenants/acme/users/deactivate", `{"users":["a"],"dryRun":true}`, 200, `"user":"a"`, false},
		{"GET", "/manage/v1/tenants/acme/syncs", "", 200, `"pass":7`, false},
		{"POST", "/manage/v1/tenants/acme/syncs", `{"mode":"full"}`, 202, "", false},
		{"POST", "/manage/v1/tenants/acme/syncs", `{"mode":"some"}`, 400, "InvalidFieldValue", true},
		{"GET", "/manage/v1/tenants/acme/numbers/+442079460001/users", "", 200, `"ended"`, false},
		{"GET", "/manage/v1/clients", "", 200, `"revoked"`, false},
		{"GET", "/manage/v1/clients?limit=7&cursor=c", "", 200, `"next":"c"`, false},
		{"GET", "/manage/v1/clients?limit=0", "", 400, "limit must be a whole number (1 to 500)", true},
		{"GET", "/manage/v1/clients?limit=501", "", 400, "InvalidQueryParameterValue", true},
		{"GET", "/manage/v1/clients?limit=x", "", 400, "InvalidQueryParameterValue", true},
		{"GET", "/manage/v1/clients?cursor=", "", 400, "InvalidQueryParameterValue", true},
		{"POST", "/manage/v1/clients", `{"name":"bss","roles":["ProvisioningAPI.Admin"]}`, 201, `"secret":"s"`, false},
		{"POST", "/manage/v1/clients",
			`{"name":"","roles":["ProvisioningAPI.Admin"]}`, 400, "name must have 1 to 100", true},
		{"POST", "/manage/v1/clients", `{"name":"x","roles":[]}`, 400, "roles must have 1 to 10 items", true},
		{"DELETE", "/manage/v1/clients/7", "", 204, "", false},
		{"DELETE", "/manage/v1/clients/busy", "", 503, "DatabaseUnavailable", false},
		{"POST", "/manage/v1/tokens", `{"roles":["a"]}`, 200, `"expiresIn":60`, false},
		{"POST", "/manage/v1/tokens", `{"roles":["a"],"lifetime":59}`, 400, "UnknownField", true},
		{"POST", "/manage/v1/tokens", `{"roles":[]}`, 400, "InvalidFieldValue", true},
		{"POST", "/manage/v1/tokens/check", `{"token":"abc"}`, 200, `"detail":"3"`, false},
		{"POST", "/manage/v1/tokens/check", `{"token":""}`, 400, "InvalidFieldValue", true},
		{"POST", "/manage/v1/keyring/rotate", "", 200, `"primary":8`, false},
		{"POST", "/manage/v1/keyring/rotate", `{"distributed":true}`, 200, `"sealed":2`, false},
		{"POST", "/manage/v1/keyring/rotate", `{}`, 400, "MissingField", true},
		{"POST", "/manage/v1/audit/verify", "", 200, `"brokenAt":5`, false},
		{"POST", "/manage/v1/audit/verify", `{"heads":["7:ab"]}`, 200, `differs7:ab`, false},
		{"POST", "/manage/v1/audit/verify", `{"head":"7:ab"}`, 400, "UnknownField", true},
		{"GET", "/manage/v1/work", "", 200, `"reason":"consent"`, false},
		{"GET", "/manage/v1/work?kind=tenant&state=parked&limit=7&cursor=c", "", 200, `"state":"parked"`, false},
		{"GET", "/manage/v1/work?state=lost", "", 400, "state must be one of queued, running, waiting, parked", true},
		{"GET", "/manage/v1/work?limit=501", "", 400, "InvalidQueryParameterValue", true},
		{"POST", "/manage/v1/work/tenant/a%2Fb/retry", "", 204, "", false},
		{"GET", "/manage/v1/zone", "", 200, `"name":"the base domain"`, false},
		{"GET", "/manage/v1/zone?name=acme", "", 200, `"name":"acme"`, false},
		{"GET", "/manage/v1/zone?name=", "", 400, "InvalidQueryParameterValue", true},
		{"POST", "/manage/v1/zone/check", "", 200, `"problem":"lame"`, false},
		{"POST", "/manage/v1/zone/check", `{"name":"acme"}`, 200, `"names":["acme"]`, false},
		{"POST", "/manage/v1/zone/check", `{"name":""}`, 400, "InvalidFieldValue", true},
		{"POST", "/manage/v1/zone/accept", "", 202, "", false},
		{"GET", "/manage/v1/certificates", "", 200, `"source":"acme"`, false},
		{"POST", "/manage/v1/certificates/provapi/renew", "", 202, "", false},
		{"POST", "/manage/v1/certificates/limited/renew", "", 429, "AuthorityLimit", false},
		{"GET", "/manage/v1/tenants/.carrier/invitation", "", 200, `"account":".carrier"`, false},
		{"POST", "/manage/v1/tenants/acme/invitation", `{"days":90}`, 201, `/i/x`, false},
		{"POST", "/manage/v1/tenants/acme/invitation", `{"days":91}`, 400, "InvalidFieldValue", true},
		{"POST", "/manage/v1/tenants/acme/invitation", `{"tenant":"contoso"}`, 400, "InvalidFieldValue", true},
		{"DELETE", "/manage/v1/tenants/acme/invitation", "", 204, "", false},
		{"POST", "/manage/v1/tenants/acme/sign-in", `{"way":"device"}`, 200, `"userCode":"device"`, false},
		{"POST", "/manage/v1/tenants/acme/sign-in", `{"way":"browser","port":0}`, 400, "InvalidFieldValue", true},
		{"POST", "/manage/v1/tenants/acme/sign-in", `{"way":"password"}`, 400, "way must be one of", true},
		{"PUT", "/manage/v1/tenants/acme/sign-in/s1", `{"redirect":"?a=b"}`, 200, `"id":"s1?a=b"`, false},
		{"PUT", "/manage/v1/tenants/acme/sign-in/s1", `{}`, 200, `"lifetime":3600`, false},
	} {
		w := c.do(x.method, x.path, x.body, x.bad)
		if w.Code != x.status || !strings.Contains(w.Body.String(), x.answer) {
			t.Errorf("%s %s %s = %d %s, want %d …%s…", x.method, x.path, x.body, w.Code, w.Body, x.status, x.answer)
		}
		if x.path == "/manage/v1/clients/busy" && w.Header().Get("Retry-After") != "2" {
			t.Errorf("Retry-After = %q, want 2", w.Header().Get("Retry-After"))
		}
	}
	t.Logf("%d exchanges of %d operations", c.sent, len(c.seen))
	for path, item := range c.doc.Paths.Map() {
		for method, op := range item.Operations() {
			if !c.seen[op.OperationID] {
				t.Errorf("%s %s (%s) is in the contract and was not exercised", method, path, op.OperationID)
			}
		}
	}
	if got := strings.Join(j.did, "; "); got != "drain; reload; accept d2 by local; explain; label b xy; "+
		"unlabel b; activate b; record b[+1]; record [+1]; apply r1; client bss by local; "+
		"revoke 7; token; check; rotate false; rotate true; verify; verify; retry tenant a/b; "+
		"accept the zone by local" {
		t.Errorf("jobs did: %s", got)
	}
}

// parameters fills in the parameters of paths.
var parameters = strings.NewReplacer("{rollout}/{action}", "r1/apply", "{account}", "acme", "{template}", "branch",
	"{rollout}", "r1", "{label}", "b", "{clientId}", "1",
	"{kind}", "tenant", "{plan}", "p1", "{user}", "u", "{number}", "+15550100", "{id}", "1", "{action}", "retry",
	"{name}", "provapi")

func TestRolesDetermineThePermissions(t *testing.T) {
	t.Parallel()
	j := &job{}
	h := newServer(t, all(j), io.Discard).Remote(func(*http.Request) error { return nil },
		func(r *http.Request) (domain.Actor, []string, error) {
			role, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
			if !ok {
				return domain.Actor{}, nil, fault.New(fault.Unauthenticated, "TokenMissing", "send a bearer token")
			}
			return domain.Actor{Kind: "client", ID: "c"}, []string{role}, nil
		})
	c := newContract(t, h)
	read := map[string]bool{"getHealth": true, "getDrain": true, "listPeers": true, "followEvents": true,
		"explainCall": true, "verifyAudit": true, "listWork": true, "getLabels": true, "listLabelNumbers": true,
		"getZone": true, "checkZone": true, "listCertificates": true, "listTenants": true,
		"getTenant": true, "getDialPlan": true, "getPlan": true, "getMove": true, "listTemplates": true,
		"getTemplate": true, "listRollouts": true, "getRollout": true,
		"getInvitation": true, "listSnapshots": true, "getLeaveReport": true, "getDriftOverview": true,
		"getDrift":       true,
		"checkReadiness": true, "checkCarrier": true, "getCarrierApp": true,
		"checkCarrierApp": true,
		"listUsers":       true, "getUser": true, "listUserSyncs": true, "listNumberUsers": true}
	bodies := map[string]string{"setDrain": `{"draining":false}`, "acceptIndex": `{"database":"d2"}`,
		"explainCall":  `{"from":"+15550100","to":"+15550101","peer":"core"}`,
		"createClient": `{"name":"n","roles":["r"]}`, "createToken": `{"roles":["r"]}`,
		"checkToken": `{"token":"t"}`, "rotateKeyring": `{"distributed":true}`,
		"putPendingLabel": `{"region1Token":"x","region2Token":"y"}`, "recordLabel": `{"numbers":["+1"]}`,
		"createInvitation": `{}`, "startSignIn": `{"way":"device"}`, "continueSignIn": `{}`}
	for path, item := range c.doc.Paths.Map() {
		path = parameters.Replace(path)
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
				before := len(j.did)
				body := bodies[op.OperationID]
				if b := op.RequestBody; body == "" && b != nil && b.Value.Required {
					text, _ := json.Marshal(sample(b.Value.Content["application/json"].Schema.Value))
					body = string(text)
				}
				w := c.do(method, path, body, false, auth...)
				if ok := w.Code/100 == 2; ok != want || !ok && w.Code != wantStatus {
					t.Errorf("%s with role %q = %d, want success %v", op.OperationID, role, w.Code, want)
				}
				if !want && len(j.did) != before {
					t.Errorf("%s with role %q was done although refused", op.OperationID, role)
				}
			}
		}
	}
}

// sample returns a value that matches a schema.
func sample(s *openapi3.Schema) any {
	switch {
	case len(s.Enum) > 0:
		return s.Enum[0]
	case s.Type.Is("object"):
		m := map[string]any{}
		for name, p := range s.Properties {
			m[name] = sample(p.Value)
		}
		return m
	case s.Type.Is("array"):
		return []any{sample(s.Items.Value)}
	case s.Type.Is("boolean"):
		return true
	case s.Type.Is("integer"):
		return 1
	}
	return strings.Repeat("1", int(max(1, s.MinLength)))
}

// TestLaxRequestsAreRefused: for every operation of the contract, what generated decoders let pass is answered with a
// problem document and has no effect.
func TestLaxRequestsAreRefused(t *testing.T) {
	t.Parallel()
	j := &job{}
	c := newContract(t, newServer(t, all(j), io.Discard).Local(local))
	sent := 0
	send := func(id, method, path, mediaType, body string, status int, code, target string) {
		t.Helper()
		sent++
		r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
		if mediaType != "" {
			r.Header.Set("Content-Type", mediaType)
		}
		w := httptest.NewRecorder()
		c.http.ServeHTTP(w, r)
		c.checkProblem(id, w, status, code)
		if !strings.Contains(w.Body.String(), `"target":"`+target) && target != "" {
			t.Errorf("%s %.80s: %s, want the target %s", id, body, w.Body, target)
		}
	}
	const isJSON = "application/json"
	bodies := 0
	for path, item := range c.doc.Paths.Map() {
		path = parameters.Replace(path)
		for method, op := range item.Operations() {
			id := op.OperationID
			send(id, method, path+"?none=1", isJSON, "", 400, "UnknownQueryParameter", "none")
			for _, p := range op.Parameters {
				if p.Value.In == "query" && p.Value.Schema.Value.Enum != nil {
					send(id, method, path+"?"+p.Value.Name+"=bogus", isJSON, "", 400, "InvalidQueryParameterValue",
						p.Value.Name)
				}
			}
			if op.RequestBody == nil {
				send(id, method, path, isJSON, `{"dryRun":true}`, 400, "UnexpectedRequestBody", "")
				send(id, method, path, "", "x", 400, "UnexpectedRequestBody", "")
				send(id, method, path, isJSON, strings.Repeat(" ", 70<<10), 413, "RequestBodyTooLarge", "")
				continue
			}
			bodies++
			schema := op.RequestBody.Value.Content[isJSON].Schema.Value
			good, err := json.Marshal(sample(schema))
			if err != nil {
				t.Fatal(err)
			}
			with := func(member string) string { return strings.TrimSuffix(string(good), "}") + "," + member + "}" }
			for _, x := range []struct{ body, code, target string }{
				{with(`"zzz":1`), "UnknownField", "zzz"},
				{string(good) + "{}", "InvalidJson", ""},
				{string(good) + "x", "InvalidJson", ""},
				{"\ufeff" + string(good), "InvalidJson", ""},
				{with("\"zzz\":\"\xff\""), "InvalidJson", ""},
				{with(`"zzz":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000)), "InvalidJson", ""},
				{"[" + string(good) + "]", "InvalidFieldType", ""},
				{"null", "InvalidFieldType", ""},
				{"true", "InvalidFieldType", ""},
				{"{", "InvalidJson", ""},
			} {
				send(id, method, path, isJSON, x.body, 400, x.code, x.target)
			}
			for name, p := range schema.Properties {
				upper := strings.ToUpper(name[:1]) + name[1:]
				wrong := map[string]any{}
				_ = json.Unmarshal(good, &wrong)
				for _, v := range []any{nil, 1.5, map[string]any{}} {
					if v != nil && v != 1.5 && p.Value.Type.Is("object") {
						v = []any{}
					}
					wrong[name] = v
					text, _ := json.Marshal(wrong)
					code := "InvalidFieldType"
					if v == 1.5 && p.Value.Type.Is("integer") {
						code = "InvalidFieldValue"
					}
					send(id, method, path, isJSON, string(text), 400, code, name)
				}
				if p.Value.Type.Is("array") {
					wrong[name] = []any{sample(p.Value.Items.Value), nil}
					text, _ := json.Marshal(wrong)
					send(id, method, path, isJSON, string(text), 400, "InvalidFieldType", name+"[1]")
				}
				value, _ := json.Marshal(sample(p.Value))
				send(id, method, path, isJSON, with(`"`+upper+`":`+string(value)), 400, "UnknownField", upper)
				send(id, method, path, isJSON, with(`"`+name+`":`+string(value)), 400, "DuplicateField", name)
				escaped := fmt.Sprintf(`"\u%04x%s":`, name[0], name[1:])
				send(id, method, path, isJSON, with(escaped+string(value)), 400, "DuplicateField", name)
				delete(wrong, name)
				text, _ := json.Marshal(wrong)
				if slices.Contains(schema.Required, name) {
					send(id, method, path, isJSON, string(text), 400, "MissingField", name)
				}
			}
			most := 64 << 10
			if own, ok := op.RequestBody.Value.Extensions["x-max-bytes"].(float64); ok {
				most = int(own)
			}
			large := with(`"x":"` + strings.Repeat("x", most) + `"`)
			send(id, method, path, isJSON, large, 413, "RequestBodyTooLarge", "")
			send(id, method, path, "text/plain", string(good), 415, "UnsupportedMediaType", "Content-Type")
			send(id, method, path, "", string(good), 415, "UnsupportedMediaType", "Content-Type")
			if op.RequestBody.Value.Required {
				send(id, method, path, isJSON, "", 400, "MissingRequestBody", "")
			}
		}
	}
	if bodies < 6 {
		t.Errorf("only %d operations with a body were found", bodies)
	}
	if len(j.did) != 0 {
		t.Errorf("refused requests had an effect: %v", j.did)
	}
	t.Logf("%d requests refused", sent)
	// An optional body may be empty, also in chunks, whose length is unknown.
	for _, path := range []string{"reload", "audit/verify"} {
		w := httptest.NewRecorder()
		c.http.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "POST", "/manage/v1/"+path, io.MultiReader()))
		if w.Code != 200 {
			t.Errorf("POST %s with an empty body in chunks = %d %s", path, w.Code, w.Body)
		}
	}
}

// checkProblem checks an error's answer against the schema of problems.
func (c *contract) checkProblem(what string, w *httptest.ResponseRecorder, status int, code string) {
	c.t.Helper()
	var p any
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		c.t.Errorf("%s: %d %s: %v", what, w.Code, w.Body, err)
		return
	}
	if err := c.doc.Components.Schemas["Problem"].Value.VisitJSON(p); err != nil {
		c.t.Errorf("%s: %s: %v", what, w.Body, err)
		return
	}
	m := p.(map[string]any)
	if w.Code != status || m["status"] != float64(status) || m["code"] != code || m["type"] != "about:blank" ||
		m["title"] != http.StatusText(status) || w.Header().Get("Content-Type") != "application/problem+json" {
		c.t.Errorf("%s: %d %v %s, want %d %s", what, w.Code, w.Header(), w.Body, status, code)
	}
}

// TestOnlyKnownKeywords: the schemas of requests use no keyword that package web does not check.
func TestOnlyKnownKeywords(t *testing.T) {
	t.Parallel()
	c := newContract(t, nil)
	var check func(at string, s *openapi3.Schema)
	check = func(at string, s *openapi3.Schema) {
		known := openapi3.Schema{Type: s.Type, Properties: s.Properties, Required: s.Required,
			Items: s.Items, Enum: s.Enum, MinLength: s.MinLength, MaxLength: s.MaxLength, MinItems: s.MinItems,
			MaxItems: s.MaxItems,
			Min:      s.Min, Max: s.Max, Description: s.Description, Default: s.Default, Extensions: s.Extensions,
			AdditionalProperties: s.AdditionalProperties}
		want, err1 := json.Marshal(s)
		got, err2 := json.Marshal(&known)
		if err1 != nil || err2 != nil || !bytes.Equal(want, got) {
			t.Errorf("%s: %s has a keyword that requests are not checked against", at, want)
		}
		if s.Type.Is("object") && (s.AdditionalProperties.Has == nil || *s.AdditionalProperties.Has) {
			t.Errorf("%s: additionalProperties is not false", at)
		}
		for name, p := range s.Properties {
			check(at+"."+name, p.Value)
		}
		if s.Items != nil {
			check(at+"[]", s.Items.Value)
		}
	}
	for path, item := range c.doc.Paths.Map() {
		if len(item.Parameters) > 0 {
			t.Errorf("%s has parameters for all its operations: give them to each operation", path)
		}
		for _, op := range item.Operations() {
			if op.Security == nil || len(*op.Security) != 1 {
				t.Errorf("%s names no role", op.OperationID)
			}
			if op.RequestBody != nil {
				check(op.OperationID, op.RequestBody.Value.Content["application/json"].Schema.Value)
			}
			for _, p := range op.Parameters {
				check(op.OperationID+" "+p.Value.Name, p.Value.Schema.Value)
			}
		}
	}
}

func TestErrorAnswers(t *testing.T) {
	t.Parallel()
	j := &job{}
	ops := all(j)
	ops.AccessOperations = manage.NotHere("api", "n1")
	var log bytes.Buffer
	c := newContract(t, newServer(t, ops, &log).Local(local))
	for _, x := range []struct {
		method, path, body string
		status             int
		code               string
	}{
		{"GET", "/manage/v1/none", "", 404, "ResourceNotFound"},
		{"OPTIONS", "*", "", 404, "ResourceNotFound"},
		{"DELETE", "/manage/v1/clients", "", 405, "UnsupportedHttpVerb"},
		{"POST", "/manage/v1/explain", `{"from":"1","to":"2","peer":"bug"}`, 500, "InternalError"},
		{"GET", "/manage/v1/clients", "", 409, "NotOnThisNode"},
		{"POST", "/manage/v1/audit/verify", `{"heads":["fail"]}`, 500, "InternalError"},
		{"POST", "/manage/v1/audit/verify?%zz", "", 400, "InvalidUri"},
	} {
		r := httptest.NewRequestWithContext(t.Context(), x.method, x.path, strings.NewReader(x.body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		c.http.ServeHTTP(w, r)
		c.checkProblem(x.method+" "+x.path, w, x.status, x.code)
		if strings.Contains(w.Body.String(), "secret path") {
			t.Errorf("the answer contains what only the log may: %s", w.Body)
		}
		id := w.Header().Get("x-ms-request-id")
		if x.status == 500 && (!strings.Contains(w.Body.String(), id) || !strings.Contains(log.String(), id)) {
			t.Errorf("the request id %q is not in the answer %s and in the log %s", id, w.Body, &log)
		}
		if x.status == 405 && w.Header().Get("Allow") != "GET, HEAD, POST" {
			t.Errorf("Allow: %s", w.Header().Get("Allow"))
		}
		if x.code == "NotOnThisNode" && !strings.Contains(w.Body.String(), "node n1 does not have the role api") {
			t.Errorf("an absent job is answered %s", w.Body)
		}
	}
	if !strings.Contains(log.String(), "panic: bug") || !strings.Contains(log.String(), "secret path") {
		t.Errorf("the log does not say what failed: %s", &log)
	}
}

// TestIfMatch: the condition reaches the job as sent; a repeated header is refused.
func TestIfMatch(t *testing.T) {
	t.Parallel()
	j := &job{}
	c := newContract(t, newServer(t, all(j), io.Discard).Local(local))
	for _, x := range []struct {
		tags   []string
		status int
	}{{nil, 200}, {[]string{`"1", W/"2"`}, 200}, {[]string{`"2"`}, 412}, {[]string{""}, 412},
		{[]string{`"1", W/"2"`, `"3"`}, 400}} {
		r := httptest.NewRequestWithContext(t.Context(), "PUT", "/manage/v1/drain",
			strings.NewReader(`{"draining":true}`))
		r.Header.Set("Content-Type", "application/json")
		if x.tags != nil {
			r.Header["If-Match"] = x.tags
		}
		w := httptest.NewRecorder()
		c.http.ServeHTTP(w, r)
		if w.Code != x.status || w.Code == 200 && w.Header().Get("ETag") != `"2"` {
			t.Errorf("If-Match %q: %d %v %s, want %d", x.tags, w.Code, w.Header(), w.Body, x.status)
		}
	}
	if len(j.did) != 2 {
		t.Errorf("done: %v", j.did)
	}
}
