package front

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/auth"
	"github.com/tandemgw/tandem/internal/platform/web"
)

// StatusPath is the path of the status page, on every host.
const StatusPath = "/status"

// WriteTimeout is the time limit for handling a request and sending its answer.
const WriteTimeout = 30 * time.Second

// yearOfTLS tells browsers to use TLS only for a year (RFC 6797).
const yearOfTLS = "max-age=31536000"

// Site is what a job serves on a host.
type Site struct {
	// Host is the label of the host, in front of the base domain, in lower case.
	Host string
	// Serve answers requests for every path but StatusPath. An error that it returns is answered as a page or a problem
	// document, by what the request accepts; web.Route makes the errors 404 and 405 of a ServeMux. Nil serves nothing.
	//
	// Headers that it sets replace those of the front. The policy permits styles and images of the host itself, and no
	// scripts.
	Serve func(w http.ResponseWriter, r *http.Request) error
	// MaxBody is the maximum size of a body in bytes. 0 permits none. Reading more fails; the error may be returned.
	MaxBody int64
}

// State is what the status page says.
type State struct {
	Limited bool // nothing can be changed: the database accepts no writes
	Since   time.Time
}

// Config configures New.
type Config struct {
	BaseDomain string
	Sites      []Site
	State      func() State
	Sources    *auth.Sources       // who may use the front, and whose forwarding headers are trusted
	Limiter    *auth.SourceLimiter // of requests
	Problems   web.Faults          // errors for requests that do not prefer HTML
	Log        *slog.Logger
	Metrics    prometheus.Registerer
}

// front is the handler that New returns.
type front struct {
	Config
	hosts  map[string]*Site // by host name
	status *http.ServeMux
}

// New returns the handler of the front, which is safe for concurrent use.
func New(c Config) http.Handler {
	f := &front{Config: c, hosts: map[string]*Site{}, status: http.NewServeMux()}
	for _, s := range c.Sites {
		f.hosts[s.Host+"."+strings.ToLower(c.BaseDomain)] = &s
	}
	f.status.HandleFunc("GET "+StatusPath, f.showStatus)
	return web.NewFront("front", "public", Faults(c.Problems), c.Log, c.Metrics).Handler(f.serve)
}

// Faults returns how the front answers errors: as a page, or as problems does.
func Faults(problems web.Faults) web.Faults {
	problems.Page = errorPage
	return problems
}

// serve answers a request, or returns why it is refused.
func (f *front) serve(w http.ResponseWriter, r *http.Request) error {
	x := web.Of(r)
	x.Untrusted = true
	secure(w.Header(), r.TLS != nil)
	from := f.Sources.Of(r)
	x.Add("source", from)
	if !f.Sources.Permits(from) {
		return fault.New(fault.Forbidden, web.CodeSourceNotAllowed, "requests from this address are not allowed")
	}

	s := f.hosts[host(r)]
	if s != nil {
		x.Operation = s.Host
	}
	if wait := f.Limiter.Allow(from); wait > 0 {
		return fault.New(fault.Limited, web.CodeTooManyRequests, "too many requests; try again later").After(wait)
	}
	if s == nil {
		return fault.New(fault.Invalid, web.CodeMisdirected, "there is nothing at this address")
	}

	return f.visit(s, w, r)
}

// host returns the host name that a request is for (RFC 9112 §3.2): in lower case, without the port and the final dot.
func host(r *http.Request) string {
	name := r.Host
	if h, _, err := net.SplitHostPort(name); err == nil {
		name = h
	}
	return strings.ToLower(strings.TrimSuffix(name, "."))
}

// secure sets the headers that keep browsers from what no page of the front needs.
func secure(h http.Header, tls bool) {
	h.Set("Content-Security-Policy", contentPolicy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	if tls {
		h.Set("Strict-Transport-Security", yearOfTLS)
	}
}

// visit lets a site answer a request, within its limits.
func (f *front) visit(s *Site, w http.ResponseWriter, r *http.Request) error {
	tooLarge := fault.New(fault.TooLarge, web.CodeBodyTooLarge, "the body is larger than %d bytes", s.MaxBody)
	if r.ContentLength > s.MaxBody {
		return tooLarge
	}
	r.Body = http.MaxBytesReader(w, r.Body, s.MaxBody)

	if s.Serve == nil || r.URL.Path == StatusPath {
		h, _, err := web.Route(f.status, w, r)
		if err == nil {
			web.Of(r).Quiet = true
			h.ServeHTTP(w, r)
		}
		return err
	}
	err := s.Serve(w, r)
	if over := (*http.MaxBytesError)(nil); errors.As(err, &over) {
		return tooLarge
	}
	return err
}
