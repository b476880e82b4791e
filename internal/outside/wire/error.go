package wire

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
)

// Codes of faults that are not the API's own.
const (
	// CodeUnknown: a change was sent and its answer is lost. Read the object back before repeating it.
	CodeUnknown = "OutcomeUnknown"
	// CodeUnreadable: the answer is not what is known of the API.
	CodeUnreadable = "UnreadableAnswer"
	// CodeTokenRefused: the API answers 401, to a renewed token too.
	CodeTokenRefused = "TokenRefused"
)

// TokenRefused is what a 401 means. It is a conflict: an answer 401 to our own callers would be about their tokens.
var TokenRefused = Meaning{Kind: fault.Conflict, Code: CodeTokenRefused,
	What: "an administrator signs in again with the link"}

// Error is the cause of faults: a refused request, or one without an answer.
type Error struct {
	Method, Path    string // the path without its query
	Status          int    // 0: no answer
	Code, Message   string // the API's, the message cut to 500 bytes
	RequestID       string // the API's; empty without an answer
	ClientRequestID string // ours
	Cause           error  // of the missing or unreadable answer
}

// Error returns everything that Microsoft's support asks for.
func (e *Error) Error() string {
	s := fmt.Sprintf("%s %s: %d %s %s (request id %s, ours %s)", e.Method, e.Path, e.Status, e.Code, e.Message,
		e.RequestID, e.ClientRequestID)
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Meaning is what callers can do about a refusal.
type Meaning struct {
	Kind fault.Kind
	Code string        // empty: the API's own
	What string        // to do; may be empty
	Wait time.Duration // before a retry, at least
}

// kinds says what callers can do about a status. Others from 500 on are Unavailable, the rest Invalid.
var kinds = map[int]fault.Kind{
	http.StatusForbidden:             fault.Forbidden,
	http.StatusNotFound:              fault.NotFound,
	http.StatusConflict:              fault.Conflict,
	http.StatusGone:                  fault.Gone,
	http.StatusPreconditionFailed:    fault.Precondition,
	http.StatusRequestEntityTooLarge: fault.TooLarge,
	http.StatusFailedDependency:      fault.Precondition,
	http.StatusTooManyRequests:       fault.Limited,
}

// result takes the answer of r and returns nil, or the fault. wait is when to retry, if that may help.
func (a *API) result(r *Request, wait time.Duration) error {
	e := &Error{Method: r.Method, Status: r.Status, RequestID: Clip(r.Got.Get(a.GotID), 100), ClientRequestID: r.ID,
		Cause: r.Err}
	e.Path, _, _ = strings.Cut(r.Path, "?")
	if r.Err == nil && r.Status/100 == 2 {
		if e.Cause = r.Read(r.Got, r.Answer); e.Cause == nil {
			return nil
		}
	}
	if r.Err == nil && r.Status >= 300 {
		e.parse(r.Answer)
	}

	switch {
	case !r.Reads() && !r.notSent() && (e.Cause != nil || r.Status >= 500):
		return fault.New(fault.Unavailable, CodeUnknown, "whether %s %s took effect is unknown, because its answer is "+
			"lost; read the object back before repeating it", e.Method, e.Path).Because(e)
	case r.tooLarge():
		return a.Unreadable(e.Path, "too large", e)
	case r.Err != nil:
		return fault.New(fault.Unavailable, a.Prefix+"Unavailable", "%s does not answer; retry", a.Name).After(wait).
			Because(e)
	case e.Cause != nil:
		return a.Unreadable(e.Path, "not the expected JSON", e)
	}
	return a.refusal(e, wait)
}

func (a *API) refusal(e *Error, wait time.Duration) error {
	m := a.Meaning(e)
	if e.Status == http.StatusUnauthorized {
		m = TokenRefused
	}
	if m.Kind == fault.Internal {
		m.Kind = fault.Invalid
		if kind, ok := kinds[e.Status]; ok {
			m.Kind = kind
		} else if e.Status >= 500 {
			m.Kind = fault.Unavailable
		}
	}
	text := strings.TrimSuffix(cmp.Or(e.Message, "no message")+"; "+m.What, "; ")
	f := fault.New(m.Kind, cmp.Or(m.Code, e.Code, fmt.Sprint(a.Prefix, "Status", e.Status)), "%s refused %s %s with "+
		"%d: %s [request id %s]", a.Name, e.Method, e.Path, e.Status, text, cmp.Or(e.RequestID, e.ClientRequestID)).
		Because(e)
	if m.Kind == fault.Limited || m.Kind == fault.Unavailable {
		f.After(max(wait, m.Wait))
	}
	return f
}

// Unreadable returns the fault of the answer to a read that is not what is known of the API.
func (a *API) Unreadable(path, what string, cause error) error {
	return fault.New(fault.Unavailable, CodeUnreadable, "%s's answer to GET %s is not understood (%s)%s", a.Name, path,
		what, a.Hint).Because(cause)
}

// parse reads a refusal: Graph's envelope, in a batch with the request id, or a message alone.
func (e *Error) parse(body []byte) {
	var answer struct {
		Error struct {
			Code    any
			Message string
			Inner   struct {
				RequestID string `json:"request-id"`
			} `json:"innerError"`
		}
		Message string
	}
	_ = json.Unmarshal(body, &answer) // what has neither form has no message
	if answer.Error.Code != nil {
		e.Code = Clip(fmt.Sprint(answer.Error.Code), 100)
	}
	e.Message = Clip(cmp.Or(answer.Error.Message, answer.Message), 500)
	e.RequestID = cmp.Or(e.RequestID, Clip(answer.Error.Inner.RequestID, 100))
}
