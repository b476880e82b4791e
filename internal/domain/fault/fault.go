// Package fault defines the one error type that crosses package boundaries.
//
// A fault separates three things: what a caller can do about it (its Kind), what a customer may read (Code, Message,
// Target, Details: the members of the Provisioning API's error object), and what only the operator's log may hold (the
// wrapped cause). Every front end maps it exactly once: to an HTTP error body, a SIP status or an exit code.
//
// It is not for errors that stay inside a package; those are plain wrapped errors.
package fault

import (
	"errors"
	"fmt"
	"time"
)

// Kind says what a caller can do about an error.
type Kind uint8

// The kinds. Internal is the zero value, so that an error without a kind counts as internal.
const (
	Internal        Kind = iota // an error in Tandem; the detail stays in the log
	Invalid                     // the request can never succeed as written
	Unauthenticated             // no identity, or one that could not be verified
	Forbidden                   // the identity is known but not allowed to do this
	NotFound                    // the named resource does not exist
	Gone                        // it existed, but is no longer kept: start again without it
	Conflict                    // the request conflicts with the current state
	Precondition                // the condition of a header is not met
	TooLarge                    // a limit on size or count was exceeded
	Limited                     // too many requests: retry after RetryAfter
	Unavailable                 // a dependency is unavailable: retry after RetryAfter
)

var kindNames = [...]string{"internal", "invalid", "unauthenticated", "forbidden", "notFound", "gone",
	"conflict", "precondition", "tooLarge", "limited", "unavailable"}

// String returns the kind's name in lower camel case, for logs and metrics.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "internal"
}

// Error is the one error type. Fields may be set until it is shared; afterwards it is read-only and safe for concurrent
// use.
type Error struct {
	Kind Kind
	// Code is the contract's machine-readable code, e.g. "AccountNotFound". It is never empty at a front end.
	Code    string
	Message string  // safe for customers: what is wrong and how to fix it
	Target  string  // the part of the request that is wrong, e.g. "numbers[17].telephoneNumber"; may be empty
	Details []Error // one entry per invalid item, in the order of the request
	// RetryAfter is how long the caller should wait before a retry; zero means not stated.
	RetryAfter time.Duration
	Cause      error // for the operator's log only; may be nil
}

// New builds an error whose code and message are shown to customers.
func New(k Kind, code, format string, args ...any) *Error {
	return &Error{Kind: k, Code: code, Message: fmt.Sprintf(format, args...)}
}

// Wrap builds an internal error around cause. Customers read only "internal error".
func Wrap(cause error, format string, args ...any) *Error {
	return &Error{Kind: Internal, Code: "InternalError", Message: "internal error",
		Cause: fmt.Errorf(format+": %w", append(args, cause)...)}
}

// At sets the target and returns e, for use while building.
func (e *Error) At(target string) *Error { e.Target = target; return e }

// After sets RetryAfter and returns e, for use while building.
func (e *Error) After(d time.Duration) *Error { e.RetryAfter = d; return e }

// Because sets the cause and returns e, for use while building.
func (e *Error) Because(cause error) *Error { e.Cause = cause; return e }

// With appends details and returns e, for use while building.
func (e *Error) With(details ...Error) *Error { e.Details = append(e.Details, details...); return e }

// Problems collects the mistakes in a configuration, each an *Error whose target is the field.
type Problems []error

// Add adds a mistake in the field target: what is wrong and how to fix it.
func (p *Problems) Add(target, format string, args ...any) {
	*p = append(*p, New(Invalid, "InvalidConfiguration", format, args...).At(target))
}

// Error returns the text for the operator, which includes the cause. Front ends show Message instead.
func (e *Error) Error() string {
	s := e.Code
	if e.Target != "" {
		s += " (" + e.Target + ")"
	}
	s += ": " + e.Message
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// As returns err as an *Error. Any other error is wrapped in one of kind Internal, so that a front end always has
// something safe to show. As(nil) is nil.
func As(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Kind: Internal, Code: "InternalError", Message: "internal error", Cause: err}
}

// Is reports whether err is, or wraps, an Error of kind k.
func Is(err error, k Kind) bool {
	var e *Error
	return errors.As(err, &e) && e.Kind == k
}

// HasCode reports whether err is, or wraps, an Error with the given code.
func HasCode(err error, code string) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}
