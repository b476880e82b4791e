// Package listen limits the connections of an HTTP listener, so that clients that open connections and send nothing
// cannot use up the process's file descriptors, nor keep out clients that have a token.
//
// A [Listener] counts its connections, in total and by source (an IPv6 source is a /64). A connection is on probation
// until a request on it authenticates. It is closed after [Probation] without a request. When the listener or its
// source is full, the connection on probation that is longest without a request makes room for a new one; it is one of
// the same source if there is any. Responses of net/http itself, without a handler, are counted and logged; 417 is
// replaced by one in the format of the API's errors. Connections speak HTTP/1.1: Prepare connects a listener with the
// http.Server that serves it, and package auth calls [Authenticated].
package listen

import (
	"bytes"
	"cmp"
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Probation is the maximum time that a connection may take between requests, or to send one (with its TLS handshake,
// headers and body), while no request on it has authenticated.
const Probation = 10 * time.Second

const (
	outsiderShare = 4                // maximum connections of one source outside the allow-list
	logEvery      = 10 * time.Second // minimum time between two log lines of one listener
)

// Sources says which addresses may use a server. A proxy may use the whole listener, because all its clients have its
// address.
type Sources interface {
	Permits(a netip.Addr) bool
	IsProxy(a netip.Addr) bool
}

// Config configures a Listener.
type Config struct {
	Name             string      // for metrics and the log
	Total, PerSource int         // maximum number of concurrent connections; 0 for no limit
	Sources          Sources     // nil permits every address
	Expectation      []byte      // the whole response to an unsupported Expect header; nil leaves it to net/http
	TLS              *tls.Config // nil for none
	Log              *slog.Logger
	Metrics          *Metrics
}

// Metrics counts the connections of any number of listeners.
type Metrics struct {
	open   *prometheus.GaugeVec
	events *prometheus.CounterVec
}

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tandem_http_connections",
			Help: "Open connections of HTTP listeners."}, []string{"listener"}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tandem_http_connection_events_total",
			Help: "Connections of HTTP listeners: accepted; refused_source and refused_total at a limit; evicted to " +
				"make room; accept_failed; handshake_failed of TLS; malformed_STATUS, a request that the HTTP server " +
				"refused with that status."}, []string{"listener", "event"}),
	}
	reg.MustRegister(m.open, m.events)
	return m
}

// Listener is a net.Listener with limits, for a server that Prepare was called with.
type Listener struct {
	net.Listener
	cfg Config

	mu        sync.Mutex // guards what follows and conn's marked fields
	open      int
	sources   map[netip.Addr]int
	probation list.List // of *conn; first the one longest without a request
	logged    time.Time // when a line was last logged
	unlogged  int       // events since then
}

// New returns a listener with limits over l, a TCP or Unix socket listener.
func New(l net.Listener, cfg Config) *Listener {
	cfg.Total, cfg.PerSource = cmp.Or(cfg.Total, math.MaxInt), cmp.Or(cfg.PerSource, math.MaxInt)
	for _, event := range []string{"refused_source", "refused_total", "evicted", "accept_failed"} {
		cfg.Metrics.events.WithLabelValues(cfg.Name, event) // alerts must see the first event as an increase from 0
	}
	return &Listener{Listener: l, cfg: cfg, sources: map[netip.Addr]int{}}
}

// Accept returns the next connection for which there is room. The only error is that the listener was closed: after
// other errors, such as too many open files, it waits and retries.
func (l *Listener) Accept() (net.Conn, error) {
	for pause := time.Duration(0); ; {
		nc, err := l.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		if err != nil {
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			l.note("accept_failed", "error", err)
			time.Sleep(pause)
			continue
		}
		pause = 0
		c := l.admit(nc.(socket))
		switch {
		case c == nil:
			_ = nc.Close() // refused
		case l.cfg.TLS != nil:
			return &watched{tls.Server(c, l.cfg.TLS), c}, nil // the first Read does the handshake
		default:
			return &watched{c, c}, nil
		}
	}
}

type socket interface {
	net.Conn
	CloseWrite() error
}

// conn is a counted connection.
type conn struct {
	socket
	l        *Listener
	source   netip.Addr
	outsider bool
	handled  atomic.Bool // a handler answers the current request

	at   *list.Element // in l.probation; nil after the probation. Guarded by l.mu
	read time.Time     // the read deadline that the server wants. Guarded by l.mu
	gone bool          // guarded by l.mu
}

// admit counts a new connection, if necessary in place of one on probation. It returns nil if there is no room.
func (l *Listener) admit(s socket) *conn {
	c := &conn{socket: s, l: l}
	share := l.cfg.PerSource
	if a, err := netip.ParseAddrPort(s.RemoteAddr().String()); err == nil { // else a Unix socket
		ip := a.Addr().Unmap().WithZone("")
		if permits := l.cfg.Sources; permits != nil && permits.IsProxy(ip) {
			share = l.cfg.Total
		} else if permits != nil && !permits.Permits(ip) {
			c.outsider, share = true, min(share, outsiderShare)
		}
		c.source = Widen(ip)
	}
	l.mu.Lock()
	full, victim := "", (*conn)(nil)
	own := func(o *conn) bool { return o.source == c.source }
	if l.sources[c.source] >= share {
		full, victim = "refused_source", l.oldest(own)
	} else if l.open >= l.cfg.Total {
		// The source's own first, so that a flood from a few sources does not affect the connections of others.
		if full, victim = "refused_total", l.oldest(own); victim == nil {
			victim = l.oldest(func(*conn) bool { return true })
		}
	}
	if victim != nil {
		l.count(victim, -1)
	}
	if full == "" || victim != nil {
		l.count(c, 1)
	}
	l.mu.Unlock()
	switch {
	case victim != nil:
		_ = victim.socket.Close()
		l.note("evicted", "source", victim.source)
	case full != "":
		l.note(full, "source", c.source)
		return nil
	}
	l.cfg.Metrics.events.WithLabelValues(l.cfg.Name, "accepted").Inc()
	return c
}

// Widen maps an IPv6 address to its /64, within which a customer can choose any address.
func Widen(a netip.Addr) netip.Addr {
	a = a.Unmap()
	p, _ := a.Prefix(min(a.BitLen(), 64)) // an address has that many
	return p.Addr()
}

// oldest returns the connection on probation that is longest without a request among those for which fits is true. l.mu
// is held.
func (l *Listener) oldest(fits func(*conn) bool) *conn {
	for e := l.probation.Front(); e != nil; e = e.Next() {
		if c := e.Value.(*conn); fits(c) {
			return c
		}
	}
	return nil
}

// count adds a connection to the counts (n is 1) or removes it (n is -1). l.mu is held.
func (l *Listener) count(c *conn, n int) {
	if n > 0 && c.source.IsValid() { // a client that may open a Unix socket needs no token
		c.at = l.probation.PushBack(c)
	} else if n < 0 && c.gone {
		return
	} else if n < 0 {
		c.gone = true
		c.endProbation()
	}
	l.open += n
	if l.sources[c.source] += n; l.sources[c.source] == 0 {
		delete(l.sources, c.source)
	}
	l.cfg.Metrics.open.WithLabelValues(l.cfg.Name).Set(float64(l.open))
}

// endProbation ends the probation and reports whether the connection was on it. l.mu is held.
func (c *conn) endProbation() bool {
	was := c.at != nil
	if was {
		c.l.probation.Remove(c.at)
		c.at = nil
	}
	return was
}

// Close closes the connection and removes it from the counts.
func (c *conn) Close() error {
	c.l.mu.Lock()
	c.l.count(c, -1)
	c.l.mu.Unlock()
	return c.socket.Close()
}

// SetReadDeadline sets the deadline, but not later than the end of the probation.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	c.read = t
	if last := time.Now().Add(Probation); c.at != nil && (t.IsZero() || t.After(last)) {
		t = last
	}
	return c.socket.SetReadDeadline(t)
}

type connKey struct{}

// Authenticated ends the probation of the connection that a request arrived on; ctx is the request's. It does nothing
// for a request that did not arrive through a Listener.
func Authenticated(ctx context.Context) {
	if w, ok := ctx.Value(connKey{}).(*watched); ok {
		w.c.l.mu.Lock()
		defer w.c.l.mu.Unlock()
		if w.c.endProbation() {
			_ = w.c.socket.SetReadDeadline(w.c.read) // the next Read reports a closed connection
		}
	}
}

// Prepare makes srv serve l's connections: it wraps the handler and sets the hooks. "OPTIONS *" reaches the handler.
func (l *Listener) Prepare(srv *http.Server) {
	next, about := srv.Handler, srv.ConnContext
	srv.DisableGeneralOptionsHandler = true
	srv.ConnContext = func(ctx context.Context, nc net.Conn) context.Context {
		w := nc.(*watched)
		if about != nil {
			ctx = about(ctx, w.c.socket)
		}
		return context.WithValue(ctx, connKey{}, w)
	}
	srv.ConnState = func(nc net.Conn, s http.ConnState) {
		if s == http.StateIdle {
			nc.(*watched).c.handled.Store(false)
		}
	}
	srv.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w := r.Context().Value(connKey{}).(*watched)
		w.c.handled.Store(true)
		l.mu.Lock()
		if w.c.at != nil {
			l.probation.MoveToBack(w.c.at)
		}
		l.mu.Unlock()
		if t, ok := w.socket.(*tls.Conn); ok {
			s := t.ConnectionState()
			r.TLS = &s
		}
		if w.c.outsider {
			rw.Header().Set("Connection", "close")
		}
		next.ServeHTTP(rw, r)
	})
}

// watched is a connection, possibly with TLS, that detects net/http's responses without a handler.
type watched struct {
	socket
	c *conn
}

// Read tells a client that uses plain HTTP on a TLS listener about it. The reason for a failed handshake is logged
// here, because net/http would treat it as a malformed request.
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.socket.Read(p)
	if t, ok := w.socket.(*tls.Conn); !ok || err == nil || t.ConnectionState().HandshakeComplete {
		return n, err
	}
	if re := (tls.RecordHeaderError{}); errors.As(err, &re) && re.Conn != nil {
		const hint = "HTTP/1.0 400 Bad Request\r\n\r\nThis server speaks HTTPS only.\n"
		_, _ = io.WriteString(re.Conn, hint) // fails if the client disconnected
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrDeadlineExceeded) {
		w.c.l.note("handshake_failed", "source", w.c.source, "error", err)
	}
	return 0, io.EOF
}

// Write writes p or, instead of a 417 of net/http itself, the configured response.
func (w *watched) Write(p []byte) (int, error) {
	if len(p) < len("HTTP/1.1 417") || !bytes.HasPrefix(p, []byte("HTTP/1.")) || w.c.handled.Load() {
		return w.socket.Write(p)
	}
	status := string(p[len("HTTP/1.1 "):len("HTTP/1.1 417")])
	w.c.l.note("malformed_"+status, "source", w.c.source)
	if status != "417" || w.c.l.cfg.Expectation == nil {
		return w.socket.Write(p)
	}
	_, err := w.socket.Write(w.c.l.cfg.Expectation)
	return len(p), err
}

// note counts an event. It logs at most one event per logEvery, with the number of events since the last line.
func (l *Listener) note(event string, attrs ...any) {
	l.cfg.Metrics.events.WithLabelValues(l.cfg.Name, event).Inc()
	l.mu.Lock()
	l.unlogged++
	n, due := l.unlogged, time.Since(l.logged) >= logEvery
	if due {
		l.logged, l.unlogged = time.Now(), 0
	}
	l.mu.Unlock()
	if due {
		attrs = append([]any{"listener", l.cfg.Name, "event", event, "events", n}, attrs...)
		l.cfg.Log.Warn("HTTP connection refused, or closed early", attrs...)
	}
}
