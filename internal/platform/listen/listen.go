// Package listen bounds what an HTTP listener takes, so that clients that open connections and send nothing cannot
// use up the process's file descriptors, nor keep out clients that have a token.
//
// A [Listener] counts connections in all and of each source (an IPv6 source is a /64). A connection is on probation until
// a request on it authenticates: it is closed after [Probation] without a request, and when the listener or its source is
// full the one longest without a request makes room for a new one, of the same source if it has any. What net/http
// answers itself, without a handler, is counted and logged; 417 gets a body in the shape of the APIs' errors.
// Connections speak HTTP/1.1: Prepare connects a listener with the http.Server that serves it, and front ends call
// [Authenticated].
package listen

import (
	"bytes"
	"cmp"
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
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

// Probation is how long a connection may go without a request, or take to send one (with its TLS handshake, headers and
// body), while no request on it has authenticated.
const Probation = 10 * time.Second

const (
	outsiderShare = 4                // connections of one source outside the allow-list
	logEvery      = 10 * time.Second // between two log lines of one listener
)

// Sources says which addresses may use a server. A proxy may use the whole listener: all its clients have its address.
type Sources interface {
	Permits(a netip.Addr) bool
	IsProxy(a netip.Addr) bool
}

// Config is what a Listener is made of.
type Config struct {
	Name             string      // in metrics and the log
	Total, PerSource int         // the most connections at one time; 0 is no bound
	Sources          Sources     // nil permits every address
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
			Help: "Connections of HTTP listeners: accepted; refused_source and refused_total at a limit; evicted to make " +
				"room; accept_failed; handshake_failed of TLS; malformed_STATUS, a request that the HTTP server refused with that status."},
			[]string{"listener", "event"}),
	}
	reg.MustRegister(m.open, m.events)
	return m
}

// Listener is a bounded net.Listener, for a server that Prepare was called with.
type Listener struct {
	net.Listener
	cfg Config

	mu        sync.Mutex // guards what follows and conn's marked fields
	open      int
	sources   map[netip.Addr]int
	probation list.List // of *conn, the one longest without a request first
	logged    time.Time // when a line was last logged
	unlogged  int       // events since then
}

// New returns a bounded listener over l, which is TCP's or a Unix socket's.
func New(l net.Listener, cfg Config) *Listener {
	cfg.Total, cfg.PerSource = cmp.Or(cfg.Total, math.MaxInt), cmp.Or(cfg.PerSource, math.MaxInt)
	return &Listener{Listener: l, cfg: cfg, sources: map[netip.Addr]int{}}
}

// Accept returns the next connection for which there is room. The only error is that the listener was closed: others,
// such as too many open files, are waited out.
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
			return &watched{tls.Server(c, l.cfg.TLS), c}, nil // the first read shakes hands
		default:
			return &watched{c, c}, nil
		}
	}
}

type socket interface {
	net.Conn
	CloseWrite() error
}

// conn is a connection that counts.
type conn struct {
	socket
	l        *Listener
	source   netip.Addr
	outsider bool
	handled  atomic.Bool // a handler answers the present request

	at   *list.Element // in l.probation; nil when that has ended. Guarded by l.mu
	read time.Time     // the read deadline that the server wants. Guarded by l.mu
	gone bool          // guarded by l.mu
}

// admit counts a connection, in the place of one on probation if need be. It returns nil if there is no room.
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
		bits := min(ip.BitLen(), 64)
		p, _ := ip.Prefix(bits) // an address has that many
		c.source = p.Addr()
	}
	l.mu.Lock()
	full, victim := "", (*conn)(nil)
	own := func(o *conn) bool { return o.source == c.source }
	if l.sources[c.source] >= share {
		full, victim = "refused_source", l.oldest(own)
	} else if l.open >= l.cfg.Total {
		// A source's own first: a flood from fewer sources than there is room for touches no other source's.
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

// oldest returns the connection on probation that fits and is longest without a request. l.mu is held.
func (l *Listener) oldest(fits func(*conn) bool) *conn {
	for e := l.probation.Front(); e != nil; e = e.Next() {
		if c := e.Value.(*conn); fits(c) {
			return c
		}
	}
	return nil
}

// count takes a connection into the count (1) or out of it (-1). l.mu is held.
func (l *Listener) count(c *conn, n int) {
	if n > 0 && c.source.IsValid() { // whoever may open a Unix socket needs no token
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

// endProbation reports whether the connection was on probation. l.mu is held.
func (c *conn) endProbation() bool {
	was := c.at != nil
	if was {
		c.l.probation.Remove(c.at)
		c.at = nil
	}
	return was
}

// Close closes the connection, which counts no more.
func (c *conn) Close() error {
	c.l.mu.Lock()
	c.l.count(c, -1)
	c.l.mu.Unlock()
	return c.socket.Close()
}

// SetReadDeadline keeps the deadline within the probation.
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

// Authenticated ends the probation of the connection that a request came by; ctx is the request's. It does nothing for
// a request that did not come by a Listener.
func Authenticated(ctx context.Context) {
	if w, ok := ctx.Value(connKey{}).(*watched); ok {
		w.c.l.mu.Lock()
		defer w.c.l.mu.Unlock()
		if w.c.endProbation() {
			_ = w.c.socket.SetReadDeadline(w.c.read) // a closed one shows when it is read
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

// watched is a connection, perhaps with TLS over it, on which what net/http answers without a handler is seen.
type watched struct {
	socket
	c *conn
}

// Read tells a client that speaks plain HTTP to a TLS listener so. Why a handshake failed is logged here: net/http
// would take it for a malformed request.
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.socket.Read(p)
	if t, ok := w.socket.(*tls.Conn); !ok || err == nil || t.ConnectionState().HandshakeComplete {
		return n, err
	}
	if re := (tls.RecordHeaderError{}); errors.As(err, &re) && re.Conn != nil {
		const hint = "HTTP/1.0 400 Bad Request\r\n\r\nThis server speaks HTTPS only.\n"
		_, _ = io.WriteString(re.Conn, hint) // it may be gone
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrDeadlineExceeded) {
		w.c.l.note("handshake_failed", "source", w.c.source, "error", err)
	}
	return 0, io.EOF
}

const expectation = `{"error":{"code":"ExpectationFailed","message":"the only expectation that can be met is ` +
	`100-continue; leave the header Expect out","target":"Expect"}}`

// Write writes p, or for a 417 of net/http's own the error that the APIs answer with.
func (w *watched) Write(p []byte) (int, error) {
	if len(p) < len("HTTP/1.1 417") || !bytes.HasPrefix(p, []byte("HTTP/1.")) || w.c.handled.Load() {
		return w.socket.Write(p)
	}
	status := string(p[len("HTTP/1.1 "):len("HTTP/1.1 417")])
	w.c.l.note("malformed_"+status, "source", w.c.source)
	if status != "417" {
		return w.socket.Write(p)
	}
	_, err := fmt.Fprintf(w.socket, "HTTP/1.1 417 Expectation Failed\r\nContent-Type: application/json\r\n"+
		"x-ms-error-code: ExpectationFailed\r\nCache-Control: no-store\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s",
		len(expectation), expectation)
	return len(p), err
}

// note counts an event. It logs one every logEvery at most, with how many there were.
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
