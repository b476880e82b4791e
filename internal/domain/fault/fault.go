// Package fault holds the one error type that crosses a room's border.
//
// A fault says three things apart: what a caller can do about it (its Kind), what a customer may read (Code, Message,
// Target, Details: the words of the Provisioning API's error object), and what only the operator's log may hold (the
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

// The kinds. Internal is the zero value, so that a forgotten kind shows as our own fault.
const (
	Internal        Kind = iota // a fault of ours; the detail stays in the log
	Invalid                     // the request can never succeed as written
	Unauthenticated             // no identity, or one that could not be verified
	Forbidden                   // the identity is known and may not do this
	NotFound                    // the thing named does not exist
	Conflict                    // the request disagrees with the present state
	Precondition                // a condition header did not hold
	TooLarge                    // a bound on size or count was exceeded
	Limited                     // too many requests: try again after RetryAfter
	Unavailable                 // something we need is away: try again after RetryAfter
)

var kindNames = [...]string{"internal", "invalid", "unauthenticated", "forbidden", "notFound", "conflict", "precondition", "tooLarge", "limited", "unavailable"}

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
	Kind    Kind
	Code    string  // the contract's machine-readable code, e.g. "AccountNotFound"; never empty once it reaches a front end
	Message string  // safe for customers: what is wrong and how to mend it
	Target  string  // what it is about, e.g. "numbers[17].telephoneNumber"; may be empty
	Details []Error // one entry per bad item, in the order of the request
	// RetryAfter is how long the caller should wait before trying again; zero means not stated.
	RetryAfter time.Duration
	Cause      error // for the operator's log only; may be nil
}

// New builds an error whose code and message are shown to customers.
func New(k Kind, code, format string, args ...any) *Error {
	return &Error{Kind: k, Code: code, Message: fmt.Sprintf(format, args...)}
}

// Wrap builds an internal error around cause. Customers read only that something of ours went wrong.
func Wrap(cause error, format string, args ...any) *Error {
	return &Error{Kind: Internal, Code: "InternalError", Message: "internal error", Cause: fmt.Errorf(format+": %w", append(args, cause)...)}
}

// At sets the target and returns e, for use while building.
func (e *Error) At(target string) *Error { e.Target = target; return e }

// After sets RetryAfter and returns e, for use while building.
func (e *Error) After(d time.Duration) *Error { e.RetryAfter = d; return e }

// Because sets the cause and returns e, for use while building.
func (e *Error) Because(cause error) *Error { e.Cause = cause; return e }

// With appends details and returns e, for use while building.
func (e *Error) With(details ...Error) *Error { e.Details = append(e.Details, details...); return e }

// Error is the operator's text: it includes the cause. Front ends show Message instead.
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

// As returns err as an *Error. An error that is none becomes an Internal one around it, so that a front end always has
// something safe to show. As(nil) is nil.
func As(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
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
