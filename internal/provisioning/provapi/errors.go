package provapi

import (
	"context"
	"errors"
	"net/http"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/web"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
)

// The error codes of this package, as they appear in error.code and x-ms-error-code. docs/provisioning-errors.md lists
// them for callers, with those of package web, strictjson, the directory, the filter and token checking. The status is
// 400 unless noted otherwise.
const (
	CodeMissingAPIVersion     = "MissingApiVersionParameter"     // no api-version
	CodeUnsupportedAPIVersion = "UnsupportedApiVersionValue"     // not supported; the message lists those that are
	CodeNumberMismatch        = "TelephoneNumberMismatch"        // telephoneNumber in the body differs from the path's
	CodeConditionUnsupported  = "ConditionalHeadersNotSupported" // If-Match and the like where there is no ETag
	CodeTimeout               = "RequestTimedOut"                // 503: a write may or may not have been made
)

// errorOf returns the contract's Error object.
func errorOf(f *fault.Error) domain.ServiceError {
	e := domain.ServiceError{Code: f.Code, Message: f.Message, Target: f.Target}
	for i := range f.Details {
		e.Details = append(e.Details, errorOf(&f.Details[i]))
	}
	return e
}

// Faults answers errors with the contract's error body.
var Faults = web.Faults{Realm: "provisioning", Render: func(h http.Header, _ int, f *fault.Error) (string, any) {
	h.Set("x-ms-error-code", f.Code)
	switch f.Code {
	case directory.CodeRepeatabilityExpired, directory.CodeRepeatabilityInvalid, directory.CodeRepeatabilityMismatch:
		h.Set("Repeatability-Result", "rejected")
	}
	return "application/json", struct {
		Error domain.ServiceError `json:"error"`
	}{errorOf(f)}
}}

// timedOut returns err, or the fault that stands for a request that took too long.
func timedOut(err error) error {
	if f := fault.As(err); f.Kind == fault.Internal && errors.Is(err, context.DeadlineExceeded) {
		return fault.New(fault.Unavailable, CodeTimeout, "the request timed out; repeat it with the same "+
			"repeatability headers to learn whether it was done").Because(f)
	}
	return err
}

func invalid(code, target, format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, code, format, args...).At(target)
}
