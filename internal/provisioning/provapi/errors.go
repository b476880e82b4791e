package provapi

import (
	"cmp"
	"context"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
)

// The error codes of this package, as they appear in error.code and x-ms-error-code. docs/provisioning-errors.md lists
// them for callers, with strictjson's, the directory's, the filter's and those of token checking.
const (
	// The request line and headers (400 unless noted otherwise).

	CodeMissingAPIVersion     = "MissingApiVersionParameter"     // no api-version
	CodeUnsupportedAPIVersion = "UnsupportedApiVersionValue"     // not supported; the message lists those that are
	CodeUnknownParameter      = "UnknownQueryParameter"          // a query parameter that the operation does not have
	CodeInvalidParameter      = "InvalidQueryParameterValue"     // not a number, out of range, no boolean, or repeated
	CodeInvalidContinuation   = "InvalidContinuation"            // a nextLink that was changed, or is another listing's
	CodeResourceNotFound      = "ResourceNotFound"               // 404: no such path
	CodeMethodNotAllowed      = "UnsupportedHttpVerb"            // 405: the path exists and has other methods
	CodeURITooLong            = "RequestUriTooLong"              // 414
	CodeInvalidURI            = "InvalidUri"                     // invalid percent-encoding
	CodeNumberMismatch        = "TelephoneNumberMismatch"        // telephoneNumber in the body differs from the path's
	CodeInvalidHeader         = "InvalidHeaderValue"             // a header of the contract that cannot be parsed
	CodeConditionUnsupported  = "ConditionalHeadersNotSupported" // If-Match and the like where there is no ETag
	CodeUnsupportedMediaType  = "UnsupportedMediaType"           // 415: the body's type or encoding
	CodeBodyTooLarge          = "RequestBodyTooLarge"            // 413

	// The body (400).

	CodeMissingBody    = "MissingRequestBody"    // the operation needs a body
	CodeUnexpectedBody = "UnexpectedRequestBody" // the operation takes none

	// The caller, and the rate limit.

	CodeMissingRole      = "MissingRole"             // 403: the token lacks the role named in the message
	CodeSourceNotAllowed = "SourceAddressNotAllowed" // 403: the source address is not on the allow-list
	CodeTooManyRequests  = "TooManyRequests"         // 429, with Retry-After

	// Faults on our side.

	CodeInternal = "InternalError"   // 500; the message names the request id to look for in the log
	CodeTimeout  = "RequestTimedOut" // 503: a write may or may not have been made
)

// statusOf returns the HTTP status of a fault. It is the only such mapping.
func statusOf(f *fault.Error) int {
	switch f.Code {
	case CodeMethodNotAllowed:
		return http.StatusMethodNotAllowed
	case CodeURITooLong:
		return http.StatusRequestURITooLong
	case CodeUnsupportedMediaType:
		return http.StatusUnsupportedMediaType
	}
	return cmp.Or(map[fault.Kind]int{
		fault.Invalid:         http.StatusBadRequest,
		fault.Unauthenticated: http.StatusUnauthorized,
		fault.Forbidden:       http.StatusForbidden,
		fault.NotFound:        http.StatusNotFound,
		fault.Conflict:        http.StatusConflict,
		fault.Precondition:    http.StatusPreconditionFailed,
		fault.TooLarge:        http.StatusRequestEntityTooLarge,
		fault.Limited:         http.StatusTooManyRequests,
		fault.Unavailable:     http.StatusServiceUnavailable,
	}[f.Kind], http.StatusInternalServerError)
}

// errorJSON is the contract's Error object.
type errorJSON struct {
	Code    string      `json:"code"`
	Message string      `json:"message"`
	Target  string      `json:"target,omitempty"`
	Details []errorJSON `json:"details,omitempty"`
}

func errorOf(f *fault.Error) errorJSON {
	e := errorJSON{Code: f.Code, Message: f.Message, Target: f.Target}
	for i := range f.Details {
		e.Details = append(e.Details, errorOf(&f.Details[i]))
	}
	return e
}

// defaultRetry is the Retry-After of faults that do not carry one.
const defaultRetry = 5 * time.Second

// answerFault renders an error.
func answerFault(c *call, err error) *response {
	f := fault.As(err)
	if f.Kind == fault.Internal && errors.Is(err, context.DeadlineExceeded) {
		f = fault.New(fault.Unavailable, CodeTimeout, "the request timed out; repeat it with the same "+
			"repeatability headers to learn whether it was done").Because(err)
	}
	status := statusOf(f)
	e := errorOf(f)
	if status == http.StatusInternalServerError {
		// The caller is told where to look, not what failed.
		e = errorJSON{Code: CodeInternal, Message: "internal error; the operator finds it in the log under the " +
			"request id " + c.requestID}
	}
	r := jsonResponse(status, struct {
		Error errorJSON `json:"error"`
	}{e})
	r.fault = f
	r.header.Set("x-ms-error-code", e.Code)
	if f.RetryAfter > 0 || status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
		wait := f.RetryAfter
		if wait <= 0 {
			wait = defaultRetry
		}
		r.header.Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(wait.Seconds())))))
	}
	switch f.Code {
	case directory.CodeRepeatabilityExpired, directory.CodeRepeatabilityInvalid, directory.CodeRepeatabilityMismatch:
		r.header.Set("Repeatability-Result", "rejected")
	}
	switch status {
	case http.StatusUnauthorized:
		r.header.Set("WWW-Authenticate", challenge(f))
	case http.StatusForbidden:
		if f.Code == CodeMissingRole {
			r.header.Set("WWW-Authenticate", `Bearer realm="provisioning", error="insufficient_scope"`)
		}
	}
	return r
}

// challenge returns the WWW-Authenticate header (RFC 6750 §3). It names no error if there was no token.
func challenge(f *fault.Error) string {
	const realm = `Bearer realm="provisioning"`
	if f.Code == "MissingAuthenticationToken" {
		return realm
	}
	return realm + `, error="invalid_token"`
}

func invalid(code, target, format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, code, format, args...).At(target)
}
