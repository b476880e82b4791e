// Package web is the plumbing of every HTTP front end: servers with bounds, request ids, recovery from panics, metrics,
// the access log, strict reading of JSON bodies, checks of requests against a contract (contract.go) and the mapping of
// faults to answers (fault.go). It knows no API: a front end brings its operations, its metrics' name and the form of
// its errors. Limits on connections are below it, in package listen; tokens and source addresses are in package auth.
//
// A front end makes a [Front] and serves the handler that [Front.Handler] makes of a function. The function returns
// errors instead of answering them, and adds what the log should say to the request's [Exchange]:
//
//	front := web.NewFront("manage", "management", faults, log, reg)
//	srv := web.NewServer(front.Handler(serve), time.Minute, log)
package web

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
)

// NewServer returns an HTTP server for handler with limits on the size of headers and on how slowly a client may send
// and read. write is the time limit for handling a request and sending its answer; 0 means none. A handler may extend
// it for its request with http.ResponseController. The caller sets TLS.
func NewServer(handler http.Handler, write time.Duration, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      write,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10, // a token takes up to 16 KiB of it
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// Exchange is a request in progress: what its log line and its metrics say about it. The goroutine that serves the
// request may change it.
type Exchange struct {
	ID        string      // request id: in the answer's header x-ms-request-id, the log and the audit log
	Operation string      // in the contract's words; "none" until it is known
	Quiet     bool        // a success is logged at level debug: probes, and operations that change nothing
	Untrusted bool        // a refusal is logged at level debug too: everybody on the Internet can cause any number
	Attrs     []slog.Attr // more for the log

	fault *fault.Error
}

// Add adds an attribute to the request's log line.
func (x *Exchange) Add(key string, value any) { x.Attrs = append(x.Attrs, slog.Any(key, value)) }

type exchangeKey struct{}

// Of returns the exchange of a request that a Front serves.
func Of(r *http.Request) *Exchange { return r.Context().Value(exchangeKey{}).(*Exchange) }

// Front is an HTTP front end. It is safe for concurrent use.
type Front struct {
	title    string
	faults   Faults
	log      *slog.Logger
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	panics   prometheus.Counter
}

// NewFront returns a front end whose metrics are tandem_<metric>_… and whose log lines say "<title> request". A nil reg
// registers nothing.
func NewFront(metric, title string, faults Faults, log *slog.Logger, reg prometheus.Registerer) *Front {
	name, auto := "tandem_"+metric, promauto.With(reg)
	return &Front{
		title: title, faults: faults, log: log,
		requests: auto.NewCounterVec(prometheus.CounterOpts{
			Name: name + "_requests_total",
			Help: "HTTP requests (" + title + "), by operation (none: refused before it was known) and status.",
		}, []string{"operation", "status"}),
		seconds: auto.NewHistogramVec(prometheus.HistogramOpts{
			Name:    name + "_request_seconds",
			Help:    "Time from a request's arrival to its answer (" + title + "), by operation.",
			Buckets: []float64{.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10},
		}, []string{"operation"}),
		panics: auto.NewCounter(prometheus.CounterOpts{
			Name: name + "_panics_total",
			Help: "Panics while handling requests (" + title + "). Each is a bug in Tandem, and its stack is in the " +
				"log.",
		}),
	}
}

// Handler returns the handler of requests that serve answers. An error that serve returns, or a panic in it, is
// answered as the front end's Faults say.
func (f *Front) Handler(serve func(w http.ResponseWriter, r *http.Request) error) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		start, w := time.Now(), &recorder{ResponseWriter: rw}
		x := &Exchange{ID: newRequestID(), Operation: "none"}
		w.Header().Set("x-ms-request-id", x.ID)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		// The contract's id is a UUID. Any other id is logged, but not echoed.
		id := r.Header.Get("x-ms-client-request-id")
		if domain.IsGUID(id) {
			w.Header().Set("x-ms-client-request-id", id)
		}
		r = r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
		if err := f.run(serve, w, r); err != nil {
			f.Fail(w, r, err)
		}
		if Opaque(id) {
			x.Add("clientRequest", id)
		}
		w.status = cmp.Or(w.status, http.StatusOK) // net/http sends the header of an answer without a body
		f.record(r, w, time.Since(start))
		if x.fault != nil && w.late {
			panic(http.ErrAbortHandler) // the caller must not take what it has for the whole answer
		}
	})
}

// run calls serve and turns a panic into an error.
func (f *Front) run(serve func(http.ResponseWriter, *http.Request) error, w http.ResponseWriter,
	r *http.Request) (err error) {
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p)
			}
			f.panics.Inc()
			// The stack contains no argument values that could be a number or a secret.
			err = fault.Wrap(fmt.Errorf("panic: %v\n%s", p, debug.Stack()), "handle a request")
		}
	}()
	return serve(w, r)
}

// record writes the access log and the metrics. The path is not logged as sent: it may contain a telephone number.
func (f *Front) record(r *http.Request, w *recorder, took time.Duration) {
	x := Of(r)
	f.requests.WithLabelValues(x.Operation, strconv.Itoa(w.status)).Inc()
	f.seconds.WithLabelValues(x.Operation).Observe(took.Seconds())
	attrs := []slog.Attr{slog.String("request", x.ID), slog.String("operation", x.Operation),
		slog.Int("status", w.status), slog.Duration("took", took)}
	attrs = append(attrs, x.Attrs...)
	level := slog.LevelInfo
	if x.fault == nil && x.Quiet || x.fault != nil && x.Untrusted {
		level = slog.LevelDebug
	}
	if x.fault != nil {
		attrs = append(attrs, slog.String("code", x.fault.Code))
		if w.status >= 500 || w.late {
			level = slog.LevelError
			if w.status == http.StatusServiceUnavailable || errors.Is(x.fault, context.Canceled) {
				level = slog.LevelWarn
			}
			attrs = append(attrs, slog.Any("error", x.fault))
		}
	}
	if w.err != nil {
		attrs = append(attrs, slog.Any("write", w.err))
	}
	f.log.LogAttrs(r.Context(), level, f.title+" request", attrs...)
}

// recorder notes what was answered.
type recorder struct {
	http.ResponseWriter
	status int   // 0 until the header is sent
	late   bool  // an error occurred after that
	err    error // of writing the body
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(p)
	w.err = errors.Join(w.err, err)
	return n, err
}

// Unwrap is for http.ResponseController, which also reports whether a flush failed.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func newRequestID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails: crypto/rand crashes the process instead
	return fmt.Sprintf("%x", b)
}

// Opaque reports whether s may be an id chosen by a caller: 1 to 128 visible ASCII characters.
func Opaque(s string) bool {
	return len(s) >= 1 && len(s) <= 128 && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// Encode returns v as JSON without HTML escaping and without a trailing newline. v is of a type of ours: if it cannot
// be encoded, that is a programming error, and Encode panics.
func Encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(fmt.Sprintf("web: encode %T: %v", v, err))
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// WriteJSON answers with v, as Encode encodes it. mediaType is empty for application/json.
func WriteJSON(w http.ResponseWriter, status int, mediaType string, v any) {
	if mediaType == "" {
		mediaType = "application/json"
	}
	body := Encode(v)
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // an error is logged with the request
}

// WriteHTML answers with a page.
func WriteHTML(w http.ResponseWriter, status int, page []byte) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(page)))
	w.WriteHeader(status)
	_, _ = w.Write(page) // an error is logged with the request
}

// Route returns mux's handler for r and its pattern. The error is 404, or 405 with the header Allow set.
func Route(mux *http.ServeMux, w http.ResponseWriter, r *http.Request) (http.Handler, string, error) {
	if r.URL.Path == "*" { // OPTIONS *, which ServeMux does not route
		return nil, "", notFound()
	}
	if h, pattern := mux.Handler(r); pattern != "" {
		return h, pattern, nil
	}
	var allow []string
	for _, m := range []string{"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"} {
		as := *r
		as.Method = m
		if _, pattern := mux.Handler(&as); pattern != "" {
			allow = append(allow, m)
		}
	}
	if allow == nil {
		return nil, "", notFound()
	}
	w.Header().Set("Allow", strings.Join(allow, ", "))
	return nil, "", fault.New(fault.Invalid, CodeMethodNotAllowed, "%s is not allowed on this path; use %s", r.Method,
		strings.Join(allow, " or "))
}

func notFound() error {
	return fault.New(fault.NotFound, CodeResourceNotFound, "there is nothing at this path")
}

// Probe returns a function for Front.Handler that serves what mux routes, and is quiet about it: health and metrics.
func Probe(mux *http.ServeMux) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		h, pattern, err := Route(mux, w, r)
		if err != nil {
			return err
		}
		x := Of(r)
		x.Operation, x.Quiet = pattern, true
		h.ServeHTTP(w, r)
		return nil
	}
}
