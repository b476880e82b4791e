// Package client is a client of Tandem's two APIs: the Provisioning API (2024-02-29-preview, which any conforming
// gateway serves) and Tandem's management API. It is for programs that keep customers and numbers in sync, and for
// tools; the command line uses it too.
//
// A Client is made for a base URL with New, or for the management socket in a data directory with NewSocket. Requests
// that are safe to repeat (all except CreateClient and RotateKeyring: writes carry repeatability headers) are repeated:
//
//   - after the time that the server asks for with Retry-After, when it is busy, unavailable or limits the rate;
//   - 61 s after a timeout, a failed connection or another 5xx, or when the server has answered 5xx three times
//     although it was given the time it asked for: by then its DNS record, whose time to live is 60 s, may lead to
//     another region.
//
// A repetition is the same request, with the same repeatability headers, on a new connection: the server's name is
// looked up again, and no connection to the former address is used. Options bounds the number of attempts and each
// pause. If a pause would last beyond the deadline of the caller's context, the error is returned at once.
//
// Lists are iterators that fetch page by page.
//
// Errors that the server reports are *Error. A Client is safe for concurrent use.
package client

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	api "github.com/tandemgw/tandem/api/manage"
)

// APIVersion is the version of the Provisioning API that the client speaks.
const APIVersion = "2024-02-29-preview"

// Options configure how a Client reaches a server. Zero values are usable.
type Options struct {
	// Tokens supplies the bearer token of each request. Nil sends none.
	Tokens TokenSource
	// Insecure allows bearer tokens over plain HTTP to another machine, where anyone on the network can read them.
	Insecure bool
	// HTTPClient sends requests; its transport decides about proxies and trusted roots. It should speak HTTP/1.1 only:
	// a connection of HTTP/2 is kept after a failure while other requests are on it. Nil uses such a client with a
	// timeout of one minute, on a socket of five minutes.
	HTTPClient *http.Client
	// Attempts is the maximum number of attempts for one request. 0 means 5; 1 never retries.
	Attempts int
	// MaxWait is the longest pause before a retry: if the server asks for more, the request is not retried and its
	// answer is the result; after a timeout or a 5xx the pause is no longer than this. 0 means 61 s.
	MaxWait time.Duration
	// Waiting is called before each pause, with the error of the last attempt. If it returns false, the request is not
	// retried and that error is its result. Nil allows every retry.
	Waiting func(err error, pause time.Duration) bool
	// UserAgent identifies the caller in the server's log. Empty means "tandem-client".
	UserAgent string
}

// TokenSource supplies bearer tokens. Implementations are safe for concurrent use and keep a token while it is valid.
type TokenSource interface {
	// Token returns a token that is valid now. refused is a token that the server has just refused, or empty: it must
	// not be returned again if another is available.
	Token(ctx context.Context, refused string) (string, error)
}

// StaticToken is a TokenSource with a single token.
type StaticToken string

// Token returns the token.
func (t StaticToken) Token(context.Context, string) (string, error) { return string(t), nil }

// Client is a client of one server. Create it with New or NewSocket.
type Client struct {
	base  *url.URL
	o     Options
	once  bool // requests that may have been carried out are not repeated
	local bool // a socket: no name to look up, so failures are retried soon
}

// New returns a client of the server at baseURL, such as "https://api.example.com" (what tandem serve prints as
// provisioning or management). With tokens, http:// is refused unless the host is loopback ("localhost" or its IP
// address) or o.Insecure is set.
func New(baseURL string, o Options) (*Client, error) {
	u, err := url.Parse(strings.TrimRight(baseURL, "/"))
	if err != nil {
		return nil, fmt.Errorf("base URL: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.User != nil {
		return nil, fmt.Errorf("base URL %q: want http://host:port or https://host:port", u.Redacted())
	}
	if o.Tokens != nil && !o.Insecure && readable(u) {
		return nil, fmt.Errorf("base URL %q: a bearer token would be sent unencrypted; use https://, or allow it "+
			"with Options.Insecure (--insecure)", u.Redacted())
	}
	if o.HTTPClient == nil {
		// Of its own: its connections are closed after failures. Over HTTP/2 all requests would share one, which is not
		// closed while any of them is on it; a repetition would be too.
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.Protocols = new(http.Protocols)
		t.Protocols.SetHTTP1(true)
		if t.TLSClientConfig != nil {
			t.TLSClientConfig.NextProtos = nil // of the original
		}
		o.HTTPClient = &http.Client{Timeout: time.Minute, Transport: t}
	}
	if o.Attempts <= 0 {
		o.Attempts = 5
	}
	if o.MaxWait <= 0 {
		o.MaxWait = moved
	}
	o.UserAgent = cmp.Or(o.UserAgent, "tandem-client")
	return &Client{base: u, o: o}, nil
}

// Close closes the connections that are not in use. The client can be used again.
func (c *Client) Close() { c.o.HTTPClient.CloseIdleConnections() }

// readable reports whether data sent to u leaves this machine unencrypted.
func readable(u *url.URL) bool {
	if u.Scheme != "http" || strings.EqualFold(u.Hostname(), "localhost") {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return err != nil || !ip.Unmap().IsLoopback()
}

// NewSocket returns a client of the Unix socket at path, which serves both APIs to every process that may open it.
func NewSocket(path string, o Options) (*Client, error) {
	if o.HTTPClient == nil {
		dialer := net.Dialer{Timeout: 5 * time.Second}
		o.HTTPClient = &http.Client{Timeout: 5 * time.Minute, Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialSocket(ctx, &dialer, path)
			},
		}}
	}
	c, err := New("http://localhost", o)
	if err != nil {
		return nil, err
	}
	c.local = true
	return c, nil
}

// Reachable returns nil if the server answers at all, whatever it says. It makes one attempt only.
func (c *Client) Reachable(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base.String()+"/healthz", nil)
	if err != nil {
		return err
	}
	resp, err := c.o.HTTPClient.Do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// dialSocket connects to a Unix socket whatever the length of its path: the system allows 107 bytes, so the directory
// of a longer one is addressed by a descriptor.
func dialSocket(ctx context.Context, d *net.Dialer, path string) (net.Conn, error) {
	if len(path) <= 100 {
		return d.DialContext(ctx, "unix", path)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "unix", Err: err}
	}
	defer func() { _ = dir.Close() }() // only used to address the socket
	return d.DialContext(ctx, "unix", "/proc/self/fd/"+strconv.Itoa(int(dir.Fd()))+"/"+filepath.Base(path))
}

// Error is a server's answer other than success.
type Error struct {
	Status    int    // HTTP status
	Code      string // e.g. "AccountNotFound"; empty if the answer was not from the API
	Message   string
	Target    string // what it is about, e.g. "numbers[17].telephoneNumber"
	Details   []ErrorDetail
	RequestID string // the server's x-ms-request-id or our x-ms-client-request-id, for its log
	// RetryAfter is how long the server asked to wait, or 0.
	RetryAfter time.Duration
}

// ErrorDetail is one of several problems.
type ErrorDetail struct {
	Code    string        `json:"code"`
	Message string        `json:"message"`
	Target  string        `json:"target,omitempty"`
	Details []ErrorDetail `json:"details,omitempty"`
}

// Error returns the code, the target and the message, and each detail on a line of its own.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(cmp.Or(e.Code, fmt.Sprintf("HTTP status %d", e.Status)))
	if e.Target != "" {
		fmt.Fprintf(&b, " (%s)", e.Target)
	}
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	for _, d := range e.Details {
		fmt.Fprintf(&b, "\n  %s (%s): %s", d.Code, d.Target, d.Message)
	}
	return b.String()
}

// HasCode reports whether err is an Error with that code.
func HasCode(err error, code string) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Code == code
}

// IsNotFound reports whether err means that the named resource does not exist.
func IsNotFound(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Status == http.StatusNotFound
}

// request is one request before it is sent.
type request struct {
	method, path string // the path is escaped
	query        url.Values
	header       http.Header
	body         any // marshalled as JSON unless nil
	contentType  string
	// stream reads the answer while it arrives, and calls alive when something arrived. Nil reads all of it.
	stream func(body io.Reader, alive func()) error
}

// response is a successful answer.
type response struct {
	status int
	header http.Header
	body   []byte
}

// maxAnswerBytes limits the size of an answer. It is far above the largest page.
const maxAnswerBytes = 64 << 20

// do sends a request, with retries if necessary, and decodes the answer into out unless that is nil.
func (c *Client) do(ctx context.Context, r request, out any) (*response, error) {
	var body []byte
	if r.body != nil {
		var err error
		if body, err = json.Marshal(r.body); err != nil {
			return nil, fmt.Errorf("%s %s: %w", r.method, r.path, err)
		}
	}
	requestID := uuid.NewString()
	refused := ""
	for attempt := 1; ; attempt++ {
		resp, token, err := c.try(ctx, r, body, requestID, refused)
		if err == nil {
			if out != nil && len(resp.body) > 0 {
				if err := json.Unmarshal(resp.body, out); err != nil {
					return nil, fmt.Errorf("%s %s: the answer does not match the contract: %w", r.method, r.path, err)
				}
			}
			return resp, nil
		}
		if e, ok := errors.AsType[*Error](err); ok && e.Status == http.StatusUnauthorized && refused == "" &&
			token != "" && attempt < c.o.Attempts {
			refused = token
			continue // once more with another token, which harms nothing: the request was not carried out
		}
		wait, again := c.pause(ctx, r, err, attempt)
		if !again || c.once || attempt >= c.o.Attempts {
			return nil, err
		}
		if deadline, ok := ctx.Deadline(); ok && r.stream == nil && time.Until(deadline) < wait {
			return nil, err
		}
		if wait > 0 && c.o.Waiting != nil && !c.o.Waiting(err, wait) {
			return nil, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, err
		}
		c.o.HTTPClient.CloseIdleConnections() // those that other requests have left since the failure
	}
}

// try sends a request once.
func (c *Client) try(ctx context.Context, r request, body []byte, requestID, refused string) (*response,
	string, error) {
	alive := func() {}
	if r.stream != nil {
		var cancel context.CancelCauseFunc
		ctx, cancel = context.WithCancelCause(ctx)
		defer cancel(nil)
		silence := time.AfterFunc(eventSilence, func() { cancel(errSilent) })
		defer silence.Stop()
		alive = func() { silence.Reset(eventSilence) }
	}
	u := c.base.String() + r.path
	if len(r.query) > 0 {
		u += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, u, bytes.NewReader(body))
	if err != nil {
		return nil, "", err
	}
	maps.Copy(req.Header, r.header)
	req.Header.Set("User-Agent", c.o.UserAgent)
	req.Header.Set("x-ms-client-request-id", requestID)
	req.Header.Set("Accept", cmp.Or(r.header.Get("Accept"), "application/json, application/problem+json"))
	if body != nil {
		req.Header.Set("Content-Type", cmp.Or(r.contentType, "application/json"))
	}
	token := ""
	if c.o.Tokens != nil {
		if token, err = c.o.Tokens.Token(ctx, refused); err != nil {
			return nil, "", fmt.Errorf("get a token: %w", err)
		}
		if refused != "" && token == refused {
			return nil, "", &Error{Status: http.StatusUnauthorized, Code: "TokenRefused",
				Message: "the server refused the token, and no other token is available", RequestID: requestID}
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	hc := *c.o.HTTPClient
	if r.stream != nil {
		hc.Timeout = 0
	}
	resp, err := hc.Do(req)
	if err != nil {
		return nil, token, err
	}
	defer func() { _ = resp.Body.Close() }() // already read
	if r.stream != nil && resp.StatusCode == http.StatusOK {
		if t := resp.Header.Get("Content-Type"); !strings.HasPrefix(t, eventStream) {
			return nil, token, fmt.Errorf("%s %s: the answer is of type %q, not %s; is this the server?",
				r.method, r.path, t, eventStream)
		}
		return nil, token, r.stream(resp.Body, alive)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes+1))
	if err != nil {
		return nil, token, fmt.Errorf("%s %s: read the answer: %w", r.method, r.path, err)
	}
	if len(text) > maxAnswerBytes {
		return nil, token, fmt.Errorf("%s %s: the answer is larger than %d bytes", r.method, r.path, maxAnswerBytes)
	}
	if resp.StatusCode/100 == 2 || resp.StatusCode == http.StatusNotModified {
		return &response{resp.StatusCode, resp.Header, text}, token, nil
	}
	return nil, token, answerError(resp, text, requestID)
}

func answerError(resp *http.Response, text []byte, requestID string) *Error {
	e := &Error{Status: resp.StatusCode, Code: resp.Header.Get("x-ms-error-code"),
		RetryAfter: retryAfter(resp.Header.Get("Retry-After")),
		RequestID:  cmp.Or(resp.Header.Get("x-ms-request-id"), requestID)}
	var b struct {
		Error       ErrorDetail `json:"error"` // of the Provisioning API
		api.Problem             // of the management API
	}
	if err := json.Unmarshal(text, &b); err != nil {
		return e
	}
	if p := b.Problem; p.Code != "" {
		b.Error = ErrorDetail{Code: p.Code, Message: p.Detail, Target: p.Target}
		for _, d := range p.Details {
			b.Error.Details = append(b.Error.Details, ErrorDetail{Code: d.Code, Message: d.Detail, Target: d.Target})
		}
	}
	if b.Error.Code != "" {
		e.Code, e.Message, e.Target, e.Details = b.Error.Code, b.Error.Message, b.Error.Target, b.Error.Details
	}
	return e
}

// retryAfter parses the header (RFC 9110 §10.2.3): seconds or a date. It returns 0 for anything else.
func retryAfter(s string) time.Duration {
	if n, err := strconv.Atoi(s); err == nil && n >= 0 && n < 1<<20 {
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(s); err == nil {
		return max(0, time.Until(t))
	}
	return 0
}

// maxBackoff is the longest pause before a retry of a request that a server on this machine or a busy one did not carry
// out.
const maxBackoff = 10 * time.Second

// moved is how long after a timeout or a 5xx a request is repeated: the server's DNS record, whose time to live is
// 60 s, may lead to another region by then (provisioning-api §3.6). Resolvers count whole seconds, and may have asked
// for the record just before the attempt: after 60 s exactly they may still return the former address, and the request
// would fail for another minute.
const moved = 61 * time.Second

// persists is the number of attempts after which a server that answers 5xx with Retry-After is taken to have failed: it
// asks for a few seconds, in which it repairs itself or not, and a minute leads to another region.
const persists = 3

// pause returns how long to wait before a retry, and whether one makes sense.
func (c *Client) pause(ctx context.Context, r request, err error, attempt int) (time.Duration, bool) {
	backoff := time.Duration(float64(200*time.Millisecond) * math.Pow(2, float64(min(attempt, 10)-1)) * (0.8 +
		0.4*rand.Float64()))
	backoff = min(backoff, maxBackoff, c.o.MaxWait)
	e, answered := errors.AsType[*Error](err)
	_, failed := errors.AsType[net.Error](err)
	switch {
	case ctx.Err() != nil || !answered && !failed && !errors.Is(err, io.ErrUnexpectedEOF) &&
		!errors.Is(err, io.EOF):
		return 0, false
	case answered && e.Status < 500 && e.Status != http.StatusTooManyRequests && e.Status != http.StatusRequestTimeout:
		return 0, false
	case answered && e.RetryAfter > 0:
		wait := max(backoff, e.RetryAfter)
		if attempt >= persists && e.Status >= 500 && !c.local {
			wait = max(wait, min(moved, c.o.MaxWait))
		}
		return wait, e.RetryAfter <= c.o.MaxWait
	case answered && e.Status < 500 || c.local:
		return backoff, !answered || e.Status != http.StatusInternalServerError
	}
	c.o.HTTPClient.CloseIdleConnections() // so that the name is looked up again
	return min(moved, c.o.MaxWait), r.repeatable()
}

// repeatable reports whether a request that may have been executed can be sent again without harm: it is idempotent
// (RFC 9110 §9.2.2), or the server recognises the repetition.
func (r request) repeatable() bool {
	return r.method != http.MethodPost && r.method != http.MethodPatch || r.header.Get("Repeatability-Request-ID") != ""
}
