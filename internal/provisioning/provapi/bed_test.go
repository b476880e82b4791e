package provapi_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	contract "github.com/tandemgw/tandem/api/provisioning"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/auth"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/feed/outbox"
	"github.com/tandemgw/tandem/internal/platform/secret"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
	"github.com/tandemgw/tandem/internal/provisioning/provapi"
	"github.com/tandemgw/tandem/internal/services"
	authstore "github.com/tandemgw/tandem/internal/store/auth"
	store "github.com/tandemgw/tandem/internal/store/provisioning"
	"github.com/tandemgw/tandem/internal/testkit"
)

const version = "api-version=2024-02-29-preview"

// bed is the API over a real directory, store, issuer and verifier, on one database.
type bed struct {
	t       testing.TB
	api     *provapi.API
	dir     *directory.Directory
	auth    *authstore.Store
	issuer  *auth.Issuer
	clients *auth.Clients
	keyring *secret.Keyring
	limiter *switchLimiter
	log     *logBuffer
	tokens  map[auth.Role]string
}

// options change the parts of a bed.
type options struct {
	config  func(*provapi.Config)
	sources auth.SourcesConfig
	keyring *secret.Keyring // default a new one
	deps    func(*provapi.Deps)
	store   func(directory.Store) directory.Store
}

// onEngines runs fn with a bed on each database.
func onEngines(t *testing.T, fn func(b *bed)) {
	t.Helper()
	testkit.Engines(t, func(t *testing.T, d *db.DB) { fn(newBed(t, d, options{})) })
}

func onSQLite(t *testing.T, o options) *bed {
	t.Helper()
	return newBed(t, testkit.Open(t, testkit.SQLiteConfig(t)), o)
}

func newBed(t testing.TB, d *db.DB, o options) *bed {
	t.Helper()
	log := &logBuffer{}
	logger := slog.New(slog.NewJSONHandler(log, nil))
	ob := outbox.New(d, outbox.Default(), logger, nil)
	s, access := store.New(d, ob, services.All().Services()), authstore.New(d)
	var under directory.Store = s
	if o.store != nil {
		under = o.store(s)
	}
	dir := directory.New(under, directory.Config{}, logger, nil)
	ring := o.keyring
	if ring == nil {
		var err error
		if ring, err = secret.Ephemeral(); err != nil {
			t.Fatal(err)
		}
	}
	cfg := auth.Default()
	deps := auth.Deps{Log: logger, Keyring: ring}
	clients := auth.NewClients(access)
	issuer := auth.NewIssuer(cfg.Embedded, access, clients, deps)
	v, err := auth.NewVerifier(cfg, issuer, deps)
	if err != nil {
		t.Fatal(err)
	}
	sources, problems := o.sources.Parse()
	if len(problems) > 0 {
		t.Fatal(errors.Join(problems...))
	}
	b := &bed{t: t, dir: dir, auth: access, issuer: issuer, clients: clients, keyring: ring,
		limiter: &switchLimiter{}, log: log, tokens: map[auth.Role]string{}}
	apiDeps := provapi.Deps{Services: services.All().Services(), Directory: dir, Authenticator: v, Sources: sources,
		Limiter: b.limiter, Issuer: issuer,
		Sealer: ring, Log: logger}
	if o.deps != nil {
		o.deps(&apiDeps)
	}
	apiCfg := provapi.Default()
	apiCfg.PublicURL = "https://provapi.example.com"
	if o.config != nil {
		o.config(&apiCfg)
	}
	b.api = provapi.New(apiCfg, apiDeps)
	for _, r := range auth.Roles() {
		tok, _, err := issuer.IssueToken(t.Context(), "test", r)
		if err != nil {
			t.Fatal(err)
		}
		b.tokens[r] = tok.Reveal()
	}
	return b
}

// switchLimiter is a limiter that can be given a limit.
type switchLimiter struct {
	mu sync.Mutex
	l  *auth.Limiter
}

func (s *switchLimiter) Allow(ctx context.Context) time.Duration {
	s.mu.Lock()
	l := s.l
	s.mu.Unlock()
	if l == nil {
		return 0
	}
	return l.Allow(ctx)
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// exchange is a request and its answer.
type exchange struct {
	t      testing.TB
	method string
	target string
	status int
	header http.Header
	body   []byte
}

// header is a request header given to do; "!Name" leaves one out that do would set.
type header map[string]string

// do sends a request as the Admin, unless the headers say otherwise, and checks the answer against both documents. A
// path without api-version gets it.
func (b *bed) do(method, target, body string, headers ...header) *exchange {
	b.t.Helper()
	return b.send(true, method, target, body, headers...)
}

// raw sends a request unchanged.
func (b *bed) raw(method, target, body string, headers ...header) *exchange {
	b.t.Helper()
	return b.send(false, method, target, body, headers...)
}

func (b *bed) send(addVersion bool, method, target, body string, headers ...header) *exchange {
	b.t.Helper()
	if addVersion {
		sep := "?"
		if strings.Contains(target, "?") {
			sep = "&"
		}
		target += sep + version
	}
	var rd io.Reader
	if body != "" {
		rd = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, "http://provapi.test"+target, rd)
	r.Header.Set("Authorization", "Bearer "+b.tokens[auth.RoleAdmin])
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		for k, v := range h {
			if name, ok := strings.CutPrefix(k, "!"); ok {
				r.Header.Del(name)
			} else if k == "RemoteAddr" {
				r.RemoteAddr = v
			} else {
				r.Header.Set(k, v)
			}
		}
	}
	w := httptest.NewRecorder()
	b.api.ServeHTTP(w, r)
	e := &exchange{b.t, method, target, w.Code, w.Result().Header, w.Body.Bytes()}
	validateResponse(b.t, r, e)
	return e
}

func (e *exchange) want(status int) *exchange {
	e.t.Helper()
	if e.status != status {
		e.t.Fatalf("%s %s answered %d, want %d: %s", e.method, e.target, e.status, status, e.body)
	}
	return e
}

// fails checks an error answer: status, code in body and header.
func (e *exchange) fails(status int, code string) *exchange {
	e.t.Helper()
	er := e.error()
	if e.status != status || er.Code != code {
		e.t.Fatalf("%s %s answered %d %q, want %d %q: %s", e.method, e.target, e.status, er.Code, status, code, e.body)
	}
	return e
}

type errorBody struct {
	Code, Message, Target string
	Details               []errorBody
}

func (e *exchange) error() errorBody {
	var v struct{ Error errorBody }
	_ = json.Unmarshal(e.body, &v) // what is not JSON shows as an empty error
	return v.Error
}

func (e *exchange) object() map[string]any {
	e.t.Helper()
	var v map[string]any
	if err := json.Unmarshal(e.body, &v); err != nil {
		e.t.Fatalf("%s %s answered %d with a body that is not an object: %q", e.method, e.target, e.status, e.body)
	}
	return v
}

// keys returns the values of one member of each item of a page.
func (e *exchange) keys(member string) []string {
	e.t.Helper()
	out := []string{}
	for _, v := range e.object()["value"].([]any) {
		out = append(out, v.(map[string]any)[member].(string))
	}
	return out
}

// next returns nextLink without scheme and host, "" if there is none.
func (e *exchange) next() string {
	e.t.Helper()
	link, _ := e.object()["nextLink"].(string)
	if link == "" {
		return ""
	}
	u, err := url.Parse(link)
	if err != nil || !u.IsAbs() {
		e.t.Fatalf("nextLink %q is not an absolute URL", link)
	}
	return u.RequestURI()
}

// The documents that everything is validated against.

const sharedSpecs = "../../../../shared/specs/"

type document struct {
	name string
	doc  *openapi3.T
	ops  []documentOperation
}

type documentOperation struct {
	method, path string
	re           *regexp.Regexp
	params       []string
	item         *openapi3.PathItem
	op           *openapi3.Operation
}

var documents = sync.OnceValue(func() []*document {
	out := []*document{loadDocument("ours", contract.Document20240229Preview)}
	raw, err := os.ReadFile(sharedSpecs + "provisioning-api.openapi.json")
	if err == nil {
		out = append(out, loadDocument("published", raw))
	} else if !errors.Is(err, fs.ErrNotExist) {
		panic(err)
	}
	return out
})

func loadDocument(name string, raw []byte) *document {
	doc, err := openapi3.NewLoader().LoadFromData(raw)
	if err != nil {
		panic(err)
	}
	d := &document{name: name, doc: doc}
	variable := regexp.MustCompile(`\\\{([A-Za-z]+)\\\}`)
	for path, item := range doc.Paths.Map() {
		quoted := regexp.QuoteMeta(path)
		var params []string
		for _, m := range variable.FindAllStringSubmatch(quoted, -1) {
			params = append(params, m[1])
		}
		re := regexp.MustCompile("^" + variable.ReplaceAllString(quoted, "([^/:]+)") + "$")
		for method, op := range item.Operations() {
			d.ops = append(d.ops, documentOperation{method, path, re, params, item, op})
		}
	}
	return d
}

// route finds the document's operation for a request; nil if it has none.
func (d *document) route(r *http.Request) (*routers.Route, map[string]string) {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	for _, o := range d.ops {
		m := o.re.FindStringSubmatch(r.URL.Path)
		if m == nil || o.method != method {
			continue
		}
		params := map[string]string{}
		for i, p := range o.params {
			params[p] = m[i+1]
		}
		return &routers.Route{Spec: d.doc, Path: o.path, PathItem: o.item, Method: o.method, Operation: o.op}, params
	}
	return nil, nil
}

// validateResponse checks an answer against every document and notes the status for the coverage table.
func validateResponse(t testing.TB, r *http.Request, e *exchange) {
	t.Helper()
	if e.status >= 400 && r.Method != http.MethodHead {
		er := e.error()
		if er.Code == "" || er.Message == "" || e.header.Get("x-ms-error-code") != er.Code {
			t.Errorf("%s %s: error answer %d has code %q in the body, %q in x-ms-error-code, message %q", e.method,
				e.target, e.status, er.Code, e.header.Get("x-ms-error-code"), er.Message)
		}
		seen.code(er.Code, e.status)
		for _, d := range er.Details {
			seen.code(d.Code, detailOnly)
		}
	}
	for _, d := range documents() {
		route, params := d.route(r)
		if route == nil {
			continue
		}
		if d.name == "ours" {
			seen.status(route.Operation.OperationID, e.status)
		}
		if e.status == http.StatusNotModified || r.Method == http.MethodHead {
			continue // 304 is RFC 9110's, and has no body
		}
		in := &openapi3filter.ResponseValidationInput{
			RequestValidationInput: &openapi3filter.RequestValidationInput{Request: r,
				PathParams: params, Route: route},
			Status: e.status, Header: e.header,
			Options: &openapi3filter.Options{IncludeResponseStatus: true, MultiError: true},
		}
		in.SetBodyBytes(e.body)
		if len(e.body) == 0 {
			in.Body = nil
		}
		if e.status == http.StatusNoContent && len(e.body) > 0 {
			t.Errorf("%s %s: 204 with a body", e.method, e.target)
		}
		if err := openapi3filter.ValidateResponse(t.Context(), in); err != nil {
			t.Errorf("%s %s: the answer %d does not fit the %s document: %v\n%s", e.method, e.target, e.status,
				d.name, err, e.body)
		}
	}
}

// validateRequest checks that a request which must succeed is one that the documents allow, so that the tests follow
// the contract and not just what the code accepts.
func validateRequest(t testing.TB, method, target, body string, h header) {
	t.Helper()
	for _, d := range documents() {
		r := httptest.NewRequest(method, "http://provapi.test"+target, strings.NewReader(body))
		if body != "" {
			r.Header.Set("Content-Type", "application/json")
		} else {
			r.Body = http.NoBody
		}
		for k, v := range h {
			r.Header.Set(k, v)
		}
		route, params := d.route(r)
		if route == nil {
			t.Errorf("%s %s is not an operation of the %s document", method, target, d.name)
			continue
		}
		err := openapi3filter.ValidateRequest(t.Context(), &openapi3filter.RequestValidationInput{
			Request: r, PathParams: params, Route: route,
			Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc,
				MultiError: true},
		})
		if err != nil {
			t.Errorf("%s %s: the request does not fit the %s document: %v", method, target, d.name, err)
		}
	}
}

// seen collects what the tests exercised.
var seen = &exercised{statuses: map[string]map[int]bool{}, codes: map[string]map[int]bool{}}

// detailOnly stands for a status where a code was seen in an error's details.
const detailOnly = 0

type exercised struct {
	mu       sync.Mutex
	statuses map[string]map[int]bool
	codes    map[string]map[int]bool // statuses by code
	// PostgreSQL was available to be stopped: without it some statuses are not exercised
	outage bool
}

func (x *exercised) status(op string, status int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.statuses[op] == nil {
		x.statuses[op] = map[int]bool{}
	}
	x.statuses[op][status] = true
}

func (x *exercised) code(code string, status int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.codes[code] == nil {
		x.codes[code] = map[int]bool{}
	}
	x.codes[code][status] = true
}

var update = flag.Bool("update", false, "rewrite the files that tests generate")

const coverageFile = "../../../docs/verification.md"

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	whole := flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.skip").Value.String() == "" &&
		flag.Lookup("test.list").Value.String() == "" && flag.Lookup("test.fuzz").Value.String() == "" &&
		!testing.Short()
	if code == 0 && whole && seen.outage {
		if err := errors.Join(checkCodes(), checkCoverage()); err != nil {
			fmt.Println("FAIL:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// The table is between these two lines.
const coverageBegin, coverageEnd = "<!-- operations: made by go test ./internal/provisioning/provapi -update -->\n",
	"<!-- end of operations -->\n"

// checkCoverage compares what was exercised with the table in docs, or writes it.
func checkCoverage() error {
	var b strings.Builder
	b.WriteString("| Operation | Method and path | Statuses |\n|---|---|---|\n")
	ops := documents()[0].ops
	slices.SortFunc(ops, func(a, c documentOperation) int {
		return cmp.Or(strings.Compare(a.path, c.path), strings.Compare(a.method, c.method))
	})
	for _, o := range ops {
		statuses := slices.Sorted(maps.Keys(seen.statuses[o.op.OperationID]))
		fmt.Fprintf(&b, "| `%s` | %s `%s` | %s |\n", o.op.OperationID, o.method, o.path,
			strings.Trim(fmt.Sprint(statuses), "[]"))
	}
	fmt.Fprintf(&b, "\nError codes exercised: %d.\n", len(seen.codes))
	page, err := os.ReadFile(coverageFile)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(page), coverageBegin)
	have, after, ok2 := strings.Cut(rest, coverageEnd)
	switch {
	case !ok || !ok2:
		return fmt.Errorf("%s has no place for the table: want the lines %q and %q", coverageFile,
			coverageBegin, coverageEnd)
	case *update:
		return os.WriteFile(coverageFile, []byte(before+coverageBegin+b.String()+coverageEnd+after), 0o644)
	case have != b.String():
		return fmt.Errorf("%s is not what the tests exercised; run go test ./internal/provisioning/provapi "+
			"-update\n%s", coverageFile, b.String())
	}
	return nil
}

// Data that many tests use.

const tenant = "a7f4bd5c-cc01-40f4-8baa-2b6bdb272b8a"

func account(name string, services ...string) string {
	parts := []string{`"teamsTenantId":"` + tenant + `"`}
	for _, s := range services {
		sync := `"syncEnabled":false,`
		if s == "azureOperatorCallProtection" {
			sync = ""
		}
		parts = append(parts, `"`+s+`":{`+sync+`"enabled":true}`)
	}
	return `{"name":"` + name + `","serviceDetails":{` + strings.Join(parts, ",") + `}}`
}

func number(acc, num, service string) string {
	return `{"telephoneNumber":"` + num + `","accountName":"` + acc + `","serviceDetails":{"` + service +
		`":{"enabled":true}}}`
}

func batchOf(items ...string) string { return `{"numbers":[` + strings.Join(items, ",") + `]}` }

// seed fills in what callers cannot write: requests for information, civic addresses, capability plans.
func (b *bed) seed() {
	b.t.Helper()
	at := time.Date(2024, 1, 18, 7, 58, 49, 570_000_000, time.UTC)
	err := errors.Join(
		b.dir.SaveRequest(b.t.Context(), domain.RequestForInformation{ID: "214b3a0e-fb7c-481f-9f38-fcb7eab5fad3",
			TenantID: tenant, OperatorID: "75f9fed4-d8e9-4c90-bc28-523cfdb83244",
			Status: "active", ConsentedOn: at, LastModifiedOn: at, ConsentedCountries: []string{"US", "UK"},
			Contacts: []domain.Contact{{FullName: "John Smith", Email: "johnsmith@commsgw.operator.com",
				TelephoneNumber: "+15105850321", CompanyName: "operator", CompanySize: "L1_U1"}},
			State: domain.ProvisioningState{Status: domain.SyncSynced}}),
		b.dir.SaveCivicAddresses(b.t.Context(), tenant,
			[]domain.CivicAddress{{ID: "ebfee340-a791-11ed-9bfa-ed8bb5c41be4", Country: "US", HouseNumber: "11600",
				StreetName:      "Sunrise Valley",
				StateOrProvince: "VA", CityOrTown: "Reston", PostalOrZipCode: "20191", CompanyName: "contoso",
				DefaultLocationID: "653c9fed-f8a7-4a6c-917b-b5b1ad4d45f7",
				ValidationStatus:  "validated", TenantID: tenant,
				Locations: []domain.Location{{ID: "653c9fed-f8a7-4a6c-917b-b5b1ad4d45f7",
					CivicAddressID: "ebfee340-a791-11ed-9bfa-ed8bb5c41be4", IsDefault: true, Description: "911"}}}}),
		b.dir.SaveCapabilityPlans(b.t.Context(), tenant,
			[]domain.CapabilityPlan{{Name: "capability-plan", OfferTypes: []string{"Calling"},
				Usage:                 "CallingUserAssignment",
				MandatoryCapabilities: []string{"UserAssignment"}, ChoosableCapabilities: []string{"UserAssignment"},
				SupportsTollFree: true}}),
	)
	if err != nil {
		b.t.Fatal(err)
	}
}
