package web

import (
	"bytes"
	"cmp"
	"io"
	"math"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
)

// The error codes of this package. docs/provisioning-errors.md lists them for callers of the Provisioning API.
const (
	// The request line and headers (400 unless noted otherwise).

	CodeResourceNotFound     = "ResourceNotFound"           // 404: no such path
	CodeMethodNotAllowed     = "UnsupportedHttpVerb"        // 405: the path exists and has other methods
	CodeURITooLong           = "RequestUriTooLong"          // 414
	CodeInvalidURI           = "InvalidUri"                 // invalid percent-encoding
	CodeUnknownParameter     = "UnknownQueryParameter"      // a query parameter that the operation does not have
	CodeInvalidParameter     = "InvalidQueryParameterValue" // not a number, out of range, no boolean, or repeated
	CodeInvalidHeader        = "InvalidHeaderValue"         // a header of the contract that cannot be parsed
	CodeInvalidContinuation  = "InvalidContinuation"        // a cursor that was changed, or is another listing's
	CodeUnsupportedMediaType = "UnsupportedMediaType"       // 415: the body's type or encoding

	// The body (400 unless noted otherwise).

	CodeBodyTooLarge   = "RequestBodyTooLarge"   // 413
	CodeMissingBody    = "MissingRequestBody"    // the operation needs a body
	CodeUnexpectedBody = "UnexpectedRequestBody" // the operation takes none

	// The caller, and the rate limit.

	CodeMissingToken     = "MissingAuthenticationToken" // 401
	CodeMissingRole      = "MissingRole"                // 403: the token lacks the role named in the message
	CodeSourceNotAllowed = "SourceAddressNotAllowed"    // 403: the source address is not on the allow-list
	CodeTooManyRequests  = "TooManyRequests"            // 429, with Retry-After
	CodeMisdirected      = "MisdirectedRequest"         // 421: the server has no such host

	CodeInternal = "InternalError" // 500; the message names the request id to look for in the log
)

// Faults is how a front end answers errors.
type Faults struct {
	// Realm is the realm of WWW-Authenticate (RFC 6750 §3).
	Realm string
	// Render returns the body of an error and its media type. It may set headers.
	Render func(h http.Header, status int, f *fault.Error) (mediaType string, body any)
	// Page returns an error as an HTML page, for requests that prefer HTML to JSON. Nil answers none so.
	Page func(status int, f *fault.Error) []byte
}

// statusByCode is for codes whose status is not that of their kind.
var statusByCode = map[string]int{
	CodeMethodNotAllowed:     http.StatusMethodNotAllowed,
	CodeURITooLong:           http.StatusRequestURITooLong,
	CodeMisdirected:          http.StatusMisdirectedRequest,
	CodeUnsupportedMediaType: http.StatusUnsupportedMediaType,
}

var statusByKind = map[fault.Kind]int{
	fault.Invalid:         http.StatusBadRequest,
	fault.Unauthenticated: http.StatusUnauthorized,
	fault.Forbidden:       http.StatusForbidden,
	fault.NotFound:        http.StatusNotFound,
	fault.Gone:            http.StatusGone,
	fault.Conflict:        http.StatusConflict,
	fault.Precondition:    http.StatusPreconditionFailed,
	fault.TooLarge:        http.StatusRequestEntityTooLarge,
	fault.Limited:         http.StatusTooManyRequests,
	fault.Unavailable:     http.StatusServiceUnavailable,
}

// Status returns the HTTP status of the answer to a fault.
func Status(f *fault.Error) int {
	return cmp.Or(statusByCode[f.Code], statusByKind[f.Kind], http.StatusInternalServerError)
}

// defaultRetry is the Retry-After of faults that do not carry one.
const defaultRetry = 5 * time.Second

// Fail answers with an error: the only mapping from faults to HTTP. If the answer has begun already it only notes the
// error for the log, and the connection is cut.
func (f *Front) Fail(w http.ResponseWriter, r *http.Request, err error) {
	x, shown := Of(r), fault.As(err)
	x.fault = shown
	if rec, ok := w.(*recorder); ok && rec.status != 0 {
		rec.late = true
		return
	}
	status := Status(shown)
	if status == http.StatusInternalServerError {
		// The caller is told where to look, not what failed.
		shown = fault.New(fault.Internal, CodeInternal, "internal error; the operator finds it in the log under the "+
			"request id %s", x.ID)
	}
	h := w.Header()
	if shown.RetryAfter > 0 || status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
		RetryAfter(h, cmp.Or(shown.RetryAfter, defaultRetry))
	}
	challenge := `Bearer realm="` + f.faults.Realm + `"`
	switch {
	case status == http.StatusUnauthorized && shown.Code == CodeMissingToken: // names no error if there was no token
		h.Set("WWW-Authenticate", challenge)
	case status == http.StatusUnauthorized:
		h.Set("WWW-Authenticate", challenge+`, error="invalid_token"`)
	case shown.Code == CodeMissingRole:
		h.Set("WWW-Authenticate", challenge+`, error="insufficient_scope"`)
	}
	if f.faults.Page != nil {
		h.Add("Vary", "Accept")
		if prefersHTML(r.Header) {
			WriteHTML(w, status, f.faults.Page(status, shown))
			return
		}
	}
	mediaType, body := f.faults.Render(h, status, shown)
	WriteJSON(w, status, mediaType, body)
}

// prefersHTML reports whether a request names HTML in Accept, and no form of JSON with a higher weight (RFC 9110
// §12.5.1): browsers do, programs do not.
func prefersHTML(h http.Header) bool {
	html, other := 0.0, 0.0
	for part := range strings.SplitSeq(strings.Join(h.Values("Accept"), ","), ",") {
		t, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		q, err := strconv.ParseFloat(cmp.Or(params["q"], "1"), 64)
		if err != nil {
			continue
		}
		switch t {
		case "text/html", "application/xhtml+xml":
			html = max(html, q)
		case "application/json", "application/problem+json":
			other = max(other, q)
		}
	}
	return html > 0 && html >= other
}

// Expectation returns the whole response to an Expect header other than 100-continue, for listen.Config: net/http
// answers 417 itself, without a body.
func (f Faults) Expectation() []byte {
	h := http.Header{"Cache-Control": {"no-store"}}
	mediaType, v := f.Render(h, http.StatusExpectationFailed, fault.New(fault.Invalid, "ExpectationFailed",
		"the only supported expectation is 100-continue; omit the Expect header").At("Expect"))
	h.Set("Content-Type", mediaType)
	body := Encode(v)
	res := http.Response{StatusCode: http.StatusExpectationFailed, ProtoMajor: 1, ProtoMinor: 1, Header: h, Close: true,
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body))}
	var out bytes.Buffer
	_ = res.Write(&out) // a buffer does not fail
	return out.Bytes()
}

// RetryAfter sets the header (RFC 9110 §10.2.3) to wait, in whole seconds, at least one.
func RetryAfter(h http.Header, wait time.Duration) {
	h.Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(wait.Seconds())))))
}
