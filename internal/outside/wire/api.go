package wire

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/google/uuid"

	"github.com/tandemgw/tandem/internal/platform/secret"
)

// MaxWait bounds a wait before a request is repeated; longer ones are the caller's.
const MaxWait = 2 * time.Minute

const (
	timeout   = time.Minute // for one exchange
	maxTries  = 5
	firstWait = time.Second // of the back-off, which doubles
)

// Tokens gives the access tokens of one tenant.
type Tokens interface {
	Token(context.Context) (secret.Text, error)
	// Refused says that the API answered 401 to the token, with this WWW-Authenticate header.
	Refused(token secret.Text, wwwAuthenticate string)
	// Forbidden says that the API answered 403 to the token, and reports whether another one is worth a try.
	Forbidden(token secret.Text) bool
}

// API is one of Microsoft's APIs, as one tenant uses it. Make it with NewAPI, then set the fields that differ. It is
// safe for concurrent use.
type API struct {
	Name      string // for messages, such as "Microsoft Graph"
	Prefix    string // of fault codes that the API does not give, such as "Graph"
	Hint      string // what to do when an answer is not understood; may be empty
	SentID    string // header with our id of a request
	GotID     string // header with the API's id of it
	Base      *url.URL
	Tokens    Tokens
	UserAgent string

	Ready   func(context.Context, []*Request) error // waits until requests may be sent; nil: at once
	Learn   func(*Request, time.Duration)           // sees each answer, and the wait that follows if it is repeated
	Meaning func(*Error) Meaning                    // of refusals; Kind Internal, an empty Code: by the status

	pipe runtime.Pipeline
}

// NewAPI returns an API whose answers have at most maxAnswer bytes. transport carries the trust roots; nil is
// http.DefaultTransport.
func NewAPI(transport http.RoundTripper, maxAnswer int64) *API {
	return &API{
		Ready: func(context.Context, []*Request) error { return nil },
		Learn: func(*Request, time.Duration) {}, Meaning: func(*Error) Meaning { return Meaning{} },
		pipe: runtime.NewPipeline("tandem", "", runtime.PipelineOptions{}, &policy.ClientOptions{
			Retry:     policy.RetryOptions{MaxRetries: -1}, // Run repeats; nothing else does
			Telemetry: policy.TelemetryOptions{Disabled: true},
			Transport: Client(transport, timeout, maxAnswer),
		})}
}

// Request is one request and what came of it.
type Request struct {
	Method, Path string // path below the base URL, with its query; or a whole URL that the API gave
	Header       map[string]string
	Body         any                                         // JSON; nil for none
	Read         func(header http.Header, body []byte) error // takes the answer of a success
	Lane         string                                      // part of the API with limits of its own
	Units        int                                         // estimated cost

	ID     string // ours, new for each try
	Status int    // 0: no answer
	Got    http.Header
	Answer []byte
	Err    error // why there is no answer; after Run, the result
}

// Reads reports whether r changes nothing.
func (r *Request) Reads() bool { return r.Method == http.MethodGet }

// notSent reports whether no connection was made, so that the request had no effect.
func (r *Request) notSent() bool {
	op, ok := errors.AsType[*net.OpError](r.Err)
	return ok && op.Op == "dial"
}

// tooLarge reports whether the answer exceeded its bound.
func (r *Request) tooLarge() bool {
	_, ok := errors.AsType[*http.MaxBytesError](r.Err)
	return ok
}

// Run sends requests until each has a result in its Err. send fills in the answers of one try; Alone sends one request.
//
// What was throttled is repeated after the stated wait, a read also after 5xx, except 501, and a lost connection, with
// jittered back-off. A 401 renews the token once, as does a 403 to a token whose permissions may have changed since. A
// change is never repeated blindly: if its answer is lost, or is 5xx, the result has CodeUnknown.
func (a *API) Run(ctx context.Context, requests []*Request, send func(context.Context, secret.Text, []*Request)) {
	renewed := false
	for try := 1; len(requests) > 0; try++ {
		var token secret.Text
		err := a.Ready(ctx, requests)
		if err == nil { // fetched after the wait, during which one could expire
			token, err = a.Tokens.Token(ctx)
		}
		for _, r := range requests {
			r.ID, r.Status, r.Got, r.Answer, r.Err = uuid.NewString(), 0, http.Header{}, nil, err
		}
		if err != nil {
			return // nothing was sent
		}
		send(ctx, token, requests)

		var again []*Request
		var wait time.Duration
		refused := false
		for _, r := range requests {
			repeat, after := a.judge(r, try)
			switch {
			case r.Status == http.StatusUnauthorized:
				a.Tokens.Refused(token, r.Got.Get("WWW-Authenticate"))
				refused, repeat, after = true, !renewed, 0
			case r.Status == http.StatusForbidden && !renewed && a.Tokens.Forbidden(token):
				refused, repeat, after = true, true, 0
			default:
				repeat = repeat && try < maxTries && InTime(ctx, after)
			}
			if repeat {
				wait, again = max(wait, after), append(again, r)
			} else {
				r.Err = a.result(r, after)
			}
		}
		renewed = renewed || refused

		if err := Sleep(ctx, wait); err != nil {
			for _, r := range again {
				r.Err = a.result(r, wait)
			}
			return
		}
		requests = again
	}
}

// InTime reports whether a wait is no longer than MaxWait and ends before ctx does.
func InTime(ctx context.Context, wait time.Duration) bool {
	end, ok := ctx.Deadline()
	return wait <= MaxWait && (!ok || time.Until(end) > wait)
}

// judge says whether to repeat r, and after how long.
func (a *API) judge(r *Request, try int) (bool, time.Duration) {
	wait, stated := RetryAfter(r.Got, time.Now())
	if !stated {
		wait = time.Duration((0.5 + rand.Float64()) * float64(firstWait<<(try-1)))
	}
	a.Learn(r, wait)

	return r.Status == http.StatusTooManyRequests || r.notSent() ||
		r.Reads() && (r.Err != nil && !r.tooLarge() || r.Status >= 500 && r.Status != http.StatusNotImplemented), wait
}

// Alone sends one request, once.
func (a *API) Alone(ctx context.Context, token secret.Text, requests []*Request) {
	r := requests[0]
	r.Status, r.Got, r.Answer, r.Err = a.Exchange(ctx, token, r)
}

// Exchange sends r, once, and returns the answer.
func (a *API) Exchange(ctx context.Context, token secret.Text, r *Request) (status int, got http.Header, answer []byte,
	err error) {
	got = http.Header{}
	address := r.Path
	if strings.HasPrefix(address, "/") {
		address = a.Base.String() + address
	}
	req, err := runtime.NewRequest(ctx, r.Method, address)
	if err == nil && r.Body != nil {
		err = runtime.MarshalAsJSON(req, r.Body)
	}
	if err != nil {
		return 0, got, nil, err
	}
	h := req.Raw().Header
	for name, value := range r.Header {
		h.Set(name, value)
	}
	h.Set("Authorization", "Bearer "+token.Reveal())
	h.Set(a.SentID, r.ID)
	h.Set("Accept", "application/json")
	h.Set("User-Agent", a.UserAgent)

	resp, err := a.pipe.Do(req)
	if err != nil {
		return 0, got, nil, err
	}
	answer, err = runtime.Payload(resp)
	return resp.StatusCode, resp.Header, answer, err
}
