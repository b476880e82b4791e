package web_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/secret"
	"github.com/tandemgw/tandem/internal/platform/web"
)

// faults renders an error as its code, message and details.
var faults = web.Faults{Realm: "tandem", Render: func(_ http.Header, status int, f *fault.Error) (string, any) {
	return "application/fault+json", []any{status, f.Code, f.Message, f.Details}
}}

// lockedBuffer is a log that is read while a handler may write to it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// take returns what was written since the last time.
func (l *lockedBuffer) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.b.Reset()
	return l.b.String()
}

// TestEachRequestHasAnAnswerALogLineAndMetrics: whatever the handler does.
func TestEachRequestHasAnAnswerALogLineAndMetrics(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	reg := prometheus.NewRegistry()
	front := web.NewFront("x", "example", faults, slog.New(slog.NewTextHandler(&log, nil)), reg)
	h := front.Handler(func(w http.ResponseWriter, r *http.Request) error {
		x := web.Of(r)
		x.Operation = strings.TrimPrefix(r.URL.Path, "/")
		switch x.Operation {
		case "quiet":
			x.Quiet = true
			_, err := io.WriteString(w, "fine")
			return err
		case "empty":
			x.Quiet = true
			return nil
		case "panic":
			panic("bug")
		case "late":
			_, _ = io.WriteString(w, "half of")
			_ = http.NewResponseController(w).Flush()
			return errors.New("the other half")
		case "secret":
			return errors.New("disk: secret path")
		case "busy":
			return fault.New(fault.Unavailable, "Busy", "wait")
		case "role":
			return fault.New(fault.Forbidden, web.CodeMissingRole, "no role")
		case "token":
			return fault.New(fault.Unauthenticated, "Expired", "too old")
		case "none":
			return fault.New(fault.Unauthenticated, web.CodeMissingToken, "no token")
		}
		return fault.New(fault.Invalid, "Bad", "two").With(*fault.New(fault.Invalid, "B1", "one").At("a[1]"))
	})
	srv := httptest.NewServer(h)
	defer srv.Close()
	for _, x := range []struct {
		path, body, header, value, level string
		status                           int
	}{
		{"quiet", "fine", "Content-Type", "text/plain; charset=utf-8", "", 200},
		{"empty", "", "Content-Length", "0", "", 200},
		{"panic", "InternalError", "Content-Type", "application/fault+json", "ERROR", 500},
		{"secret", "InternalError", "", "", "ERROR", 500},
		{"busy", `[503,"Busy","wait",null]`, "Retry-After", "5",
			"WARN", 503},
		{"role", "MissingRole", "WWW-Authenticate", `Bearer realm="tandem", error="insufficient_scope"`, "INFO", 403},
		{"token", "Expired", "WWW-Authenticate", `Bearer realm="tandem", error="invalid_token"`, "INFO", 401},
		{"none", "MissingAuth", "WWW-Authenticate", `Bearer realm="tandem"`, "INFO", 401},
		{"bad", `"Code":"B1","Message":"one","Target":"a[1]"`, "X-Content-Type-Options", "nosniff", "INFO",
			400},
		{"late", "", "", "", "ERROR", 200},
	} {
		log.take()
		res, err := srv.Client().Get(srv.URL + "/" + x.path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if cut := err != nil; cut != (x.path == "late") {
			t.Errorf("%s: reading the answer: %v", x.path, err)
		}
		id := res.Header.Get("x-ms-request-id")
		if res.StatusCode != x.status || !strings.Contains(string(body), x.body) || len(id) != 32 ||
			x.header != "" && res.Header.Get(x.header) != x.value || strings.Contains(string(body), "secret path") {
			t.Errorf("%s: %d %v %s", x.path, res.StatusCode, res.Header, body)
		}
		line := log.take() // written before the answer's last byte: a handler that returned has logged
		if x.level == "" && line != "" || x.level != "" && (!strings.Contains(line, "level="+x.level) ||
			!strings.Contains(line, `msg="example request" request=`+id+" operation="+x.path)) {
			t.Errorf("%s: log %s", x.path, line)
		}
	}
	if n, err := testutil.GatherAndCount(reg, "tandem_x_requests_total"); err != nil || n != 10 {
		t.Errorf("%d series of requests, %v", n, err)
	}
	if err := testutil.GatherAndCompare(reg, strings.NewReader("# HELP tandem_x_panics_total Panics while handling "+
		"requests (example). Each is a bug in Tandem, and its stack is in the log.\n"+
		"# TYPE tandem_x_panics_total counter\ntandem_x_panics_total 1\n"), "tandem_x_panics_total"); err != nil {
		t.Error(err)
	}
}

// TestStreamsAreFlushed: a handler sees a writer that can flush, and one whose deadlines it can set.
func TestStreamsAreFlushed(t *testing.T) {
	t.Parallel()
	front := web.NewFront("x", "example", faults, slog.New(slog.DiscardHandler), nil)
	w := httptest.NewRecorder()
	front.Handler(func(w http.ResponseWriter, _ *http.Request) error {
		_, _ = io.WriteString(w, "event")
		return http.NewResponseController(w).Flush()
	}).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))
	if !w.Flushed || w.Body.String() != "event" {
		t.Errorf("flushed %v: %s", w.Flushed, w.Body)
	}
}

func TestCursors(t *testing.T) {
	t.Parallel()
	ring, err := secret.Ephemeral()
	if err != nil {
		t.Fatal(err)
	}
	text, err := web.SealCursor(ring, "numbers", []string{"+1"})
	if err != nil || strings.Contains(text, "+1") {
		t.Fatalf("SealCursor = %q, %v", text, err)
	}
	var got []string
	if err := web.OpenCursor(ring, "numbers", text, &got); err != nil || len(got) != 1 || got[0] != "+1" {
		t.Errorf("OpenCursor = %v, %v", got, err)
	}
	for _, x := range [][2]string{{"accounts", text}, {"numbers", text[1:]}, {"numbers", "!"}, {"numbers", ""}} {
		if err := web.OpenCursor(ring, x[0], x[1], &got); err == nil {
			t.Errorf("OpenCursor(%q, %q) succeeded", x[0], x[1])
		}
	}
}

const document = `
paths:
  /things:
    put:
      operationId: putThing
      security: [{bearer: [Writer]}]
      parameters:
        - {name: n, in: query, schema: {type: integer, minimum: 2, maximum: 9}}
        - {name: If-Match, in: header, schema: {type: string}}
      requestBody:
        required: true
        content: {application/json: {schema: {$ref: "#/components/schemas/Thing"}}}
components:
  schemas:
    Thing:
      type: object
      required: [name, parts]
      properties:
        name: {type: string, minLength: 2, maxLength: 3}
        kind: {type: string, enum: [a, b]}
        size: {type: integer, minimum: -1}
        on: {type: boolean}
        parts: {type: array, maxItems: 2, items: {$ref: "#/components/schemas/Part"}}
    Part:
      type: object
      properties: {id: {type: integer, maximum: 5}}
`

func TestContract(t *testing.T) {
	t.Parallel()
	c := web.MustContract([]byte(document), 1000)
	op := c["PUT /things"]
	if op == nil || op.ID != "putThing" || len(op.Roles) != 1 || op.Roles[0] != "Writer" ||
		c["GET /things"] != nil {
		t.Fatalf("operations: %+v", op)
	}
	for _, x := range []struct{ query, body, want string }{
		{"", `{"name":"äöü","parts":[],"kind":"a","size":-1,"on":false}`, ""},
		{"n=2", `{"name":"ab","parts":[{},{"id":5}]}`, ""},
		{"n=1", `{}`, "InvalidQueryParameterValue (n): n must be a whole number (2 to 9)"},
		{"n=2&n=3", `{}`, "InvalidQueryParameterValue (n): n is given 2 times; give it once"},
		{"n=+3", `{}`, "InvalidQueryParameterValue (n): n must be a whole number (2 to 9)"},
		{"A=1&N=3&n=0", `{}`, `UnknownQueryParameter (A): this operation has no query parameter "A"`},
		{"N=3", `{}`, `UnknownQueryParameter (N): this operation has no query parameter "N"`},
		{"n=%zz", `{}`, "InvalidUri: the query has an invalid percent-encoding or a semicolon"},
		{"", `{"parts":[]}`, "MissingField (name): name is missing"},
		{"", `{"name":"a","parts":[]}`, "InvalidFieldValue (name): name must have 2 to 3 characters"},
		{"", `{"name":"abcd","parts":[]}`, "InvalidFieldValue (name): name must have 2 to 3 characters"},
		{"", `{"name":"ab","parts":[],"kind":"c"}`, "InvalidFieldValue (kind): kind must be one of a, b"},
		{"", `{"name":7,"parts":[]}`, "InvalidFieldType (name): name must be a string, not a number"},
		{"", `{"name":"ab","parts":[],"size":-2}`,
			"InvalidFieldValue (size): size must be a whole number (at least -1)"},
		{"", `{"name":"ab","parts":[],"size":1.0}`,
			"InvalidFieldValue (size): size must be a whole number (at least -1)"},
		{"", `{"name":"ab","parts":[],"on":"true"}`, "InvalidFieldType (on): on must be a boolean, not a string"},
		{"", `{"name":"ab","parts":[{},{},{}]}`, "InvalidFieldValue (parts): parts must have at most 2 items"},
		{"", `{"name":"ab","parts":[{},{"id":"1"}]}`,
			"InvalidFieldType (parts[1].id): parts[1].id must be a number, not a string"},
		{"", `{"name":"ab","parts":[{"id":6}]}`,
			"InvalidFieldValue (parts[0].id): parts[0].id must be a whole number (at most 5)"},
		{"", `{"name":"ab","parts":[{"ID":1}]}`,
			"UnknownField (parts[0].ID): parts[0].ID is not a member that the contract defines"},
		{"", `[]`, "InvalidFieldType: the body must be an object, not an array"},
	} {
		r := httptest.NewRequestWithContext(t.Context(), "PUT", "/things?"+x.query, strings.NewReader(x.body))
		r.Header.Set("Content-Type", "application/json; charset=utf-8")
		err := op.Check(httptest.NewRecorder(), r)
		if got := errorText(err); got != x.want {
			t.Errorf("?%s %s: %q, want %q", x.query, x.body, got, x.want)
		}
		if again, _ := io.ReadAll(r.Body); err == nil && string(again) != x.body {
			t.Errorf("the body read again is %q", again)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestExpectation: the bytes are a complete response.
func TestExpectation(t *testing.T) {
	t.Parallel()
	res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(faults.Expectation())), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 417 || !res.Close ||
		res.Header.Get("Content-Type") != "application/fault+json" ||
		!strings.Contains(string(body), `[417,"ExpectationFailed"`) {
		t.Errorf("%d %v %s, %v", res.StatusCode, res.Header, body, err)
	}
}
