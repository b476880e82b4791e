package manage_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/manage"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/events"
	"github.com/tandemgw/tandem/internal/platform/feed"
	"github.com/tandemgw/tandem/internal/testkit"
)

// memory is an event log in memory. Restricted events have a kind that begins with "client.".
type memory struct {
	mu   sync.Mutex
	rows []api.Event
	kept int // events before this one were removed
}

func place(n int) feed.Cursor {
	p, err := events.ParseID(fmt.Sprintf("6f1c9b1e-7a55-4a43-9d0e-0a5f6a1f2c3d.%d.%x", n, n*7))
	if err != nil {
		panic(err)
	}
	return p
}

func idOf(n int) string { return events.ID(place(n)) }

func (m *memory) add(kinds ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range kinds {
		m.rows = append(m.rows, api.Event{ID: idOf(len(m.rows) + 1), Time: time.Now().UTC(), Kind: k,
			Subject: fmt.Sprint(len(m.rows) + 1), Restricted: strings.HasPrefix(k, "client.")})
	}
}

func (m *memory) Head(context.Context) (feed.Cursor, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return place(len(m.rows)), nil
}

func (m *memory) Read(_ context.Context, after feed.Cursor, all bool,
	limit int) (out []api.Event, next feed.Cursor, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := -1
	for i := range len(m.rows) + 1 {
		if place(i) == after {
			at = i
		}
	}
	if at < m.kept {
		return nil, after, fault.New(fault.Gone, "resync", "gone")
	}
	for ; at < len(m.rows) && limit > 0; at++ {
		limit--
		if all || !m.rows[at].Restricted {
			out = append(out, m.rows[at])
		}
	}
	return out, place(at), nil
}

func (m *memory) Wait(ctx context.Context, _ feed.Position) error {
	select {
	case <-time.After(time.Second):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// pipes is a network in memory without any buffer. It is a listener and a dialer.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	dialed func(net.Conn) net.Conn // wraps the client's end
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "memory", Net: "unix"} }

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	a, b := net.Pipe()
	p.conns <- b
	if p.dialed != nil {
		return p.dialed(a), nil
	}
	return a, nil
}

// streamed is a server of event streams whose limits are those of the management URL.
type streamed struct {
	*manage.Streams
	*pipes
	reg *prometheus.Registry
}

// serveStreams serves log in memory, in a synctest bubble.
func serveStreams(t *testing.T, log manage.EventLog) *streamed {
	s := &streamed{reg: prometheus.NewRegistry(),
		pipes: &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}}
	s.Streams = manage.NewStreams(log, s.reg)
	srv := &http.Server{Handler: streamHandler(t, s.Streams), ReadTimeout: time.Minute, WriteTimeout: 5 * time.Minute}
	go func() { _ = srv.Serve(s.pipes) }()
	t.Cleanup(func() { _ = srv.Close() })
	return s
}

// streamHandler returns the management API with streams; a bearer token is the name of its role.
func streamHandler(t *testing.T, s *manage.Streams) http.Handler {
	t.Helper()
	ops := all(&job{})
	ops.EventsOperations = s
	return newServer(t, ops, io.Discard).Remote(func(*http.Request) error { return nil },
		func(r *http.Request) (domain.Actor, []string, error) {
			role := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
			return domain.Actor{Kind: "client", ID: "c"}, []string{role}, nil
		})
}

// client returns a client with a role.
func (s *streamed) client(t *testing.T, role string) *client.Client {
	t.Helper()
	c, err := client.New("http://localhost", client.Options{Tokens: client.StaticToken(role),
		HTTPClient: &http.Client{Transport: &http.Transport{DialContext: s.dial, DisableKeepAlives: true}}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// raw opens a stream and returns its body, or the answer's status and code.
func (s *streamed) raw(t *testing.T, role, after string) (io.ReadCloser, string) {
	t.Helper()
	tr := &http.Transport{DialContext: s.dial, DisableKeepAlives: true}
	r, err := http.NewRequestWithContext(t.Context(), "GET", "http://localhost/manage/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+role)
	if after != "" {
		r.Header.Set("Last-Event-ID", after)
	}
	resp, err := tr.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 200 {
		defer resp.Body.Close()
		var p api.Problem
		if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
			t.Error(err)
		}
		return nil, fmt.Sprintf("%d %s retry %s", resp.StatusCode, p.Code, resp.Header.Get("Retry-After"))
	}
	if ct := resp.Header.Get("Content-Type"); ct != "text/event-stream" {
		t.Errorf("Content-Type %q", ct)
	}
	return resp.Body, ""
}

// counts returns how many streams are open, and how many ended for each reason.
func (s *streamed) counts(t *testing.T) string {
	t.Helper()
	families, err := s.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			switch f.GetName() {
			case "tandem_manage_event_streams":
				out = append(out, fmt.Sprintf("open %v", m.GetGauge().GetValue()))
			case "tandem_manage_event_streams_ended_total":
				out = append(out, fmt.Sprintf("%s %v", m.GetLabel()[0].GetValue(), m.GetCounter().GetValue()))
			}
		}
	}
	return strings.Join(out, ", ")
}

const (
	admin  = "Management.Admin"
	reader = "Management.Read"
)

// collect follows the log after an event until it has n events, and returns their subjects.
func collect(ctx context.Context, c *client.Client, after string, n int) (string, error) {
	var got []string
	for e, err := range c.Events(ctx, after) {
		if err != nil {
			return strings.Join(got, " "), err
		}
		if got = append(got, e.Subject); len(got) == n {
			break
		}
	}
	return strings.Join(got, " "), nil
}

// severed is the client's end of a connection that breaks after a number of bytes.
type severed struct {
	net.Conn
	left int
}

func (s *severed) Read(p []byte) (int, error) {
	if s.left == 0 {
		_ = s.Close()
		return 0, &net.OpError{Op: "read", Net: "pipe", Err: errors.New("connection reset")}
	}
	n, err := s.Conn.Read(p[:min(len(p), s.left)])
	s.left -= n
	return n, err
}

// TestStreamCutAtEveryByte breaks the connection after every number of bytes: the client continues on another one and
// gets each event once, in order.
func TestStreamCutAtEveryByte(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &memory{}
		log.add("account.put", "client.create", "numbers.put", "account.delete")
		s := serveStreams(t, log)
		connections, after := 0, 0
		s.dialed = func(c net.Conn) net.Conn {
			if connections++; connections == 1 {
				return &severed{c, after}
			}
			return c
		}
		for ; ; after++ {
			connections = 0
			got, err := collect(t.Context(), s.client(t, reader), idOf(0), 3)
			if got != "1 3 4" || err != nil {
				t.Fatalf("cut after %d bytes: %q, %v; want each event once", after, got, err)
			}
			if connections == 1 {
				break // all events arrived before the cut
			}
		}
		t.Logf("%d cuts", after)
		if after < 600 {
			t.Errorf("only %d cuts", after)
		}
	})
}

// TestStreamTimes follows a silent stream: comments, the end after an hour, the place past restricted events.
func TestStreamTimes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &memory{}
		s := serveStreams(t, log)
		body, refused := s.raw(t, reader, "")
		if refused != "" {
			t.Fatal(refused)
		}
		began := time.Now()
		lines := bufio.NewReader(body)
		next := func() string {
			line, err := lines.ReadString('\n')
			if err != nil {
				return err.Error()
			}
			return strings.TrimSuffix(line, "\n")
		}
		if id, data, end := next(), next(), next(); id != "id: "+idOf(0) ||
			!strings.Contains(data, `"kind":"stream.start"`) || end != "" {
			t.Errorf("the stream begins with %q, %q, %q", id, data, end)
		}
		for i := range 3 {
			if line, end := next(), next(); line != ":" || end != "" {
				t.Errorf("a silent stream sends %q, %q", line, end)
			}
			n := time.Duration(i + 1)
			if at := time.Since(began); at < n*15*time.Second || at > n*17*time.Second {
				t.Errorf("comment %d after %v", i+1, at)
			}
		}
		log.add("client.create", "client.revoke")
		if id, end := next(), next(); id != "id: "+idOf(2) || end != "" {
			t.Errorf("after restricted events a reader gets %q, %q; want the new place", id, end)
		}
		log.add("account.put")
		if id, data := next(), next(); id != "id: "+idOf(3) || !strings.Contains(data, `"account.put"`) {
			t.Errorf("event: %q, %q", id, data)
		}
		for {
			line := next()
			if line == "EOF" {
				break
			}
			if line != "" && line != ":" {
				t.Fatalf("unexpected %q after %v", line, time.Since(began))
			}
		}
		if at := time.Since(began); at < time.Hour || at > time.Hour+time.Minute {
			t.Errorf("the stream ended after %v, want an hour", at)
		}
		synctest.Wait()
		if got := s.counts(t); got != "open 0, age 1" {
			t.Errorf("streams ended: %q", got)
		}
	})
}

// TestSlowReaderIsDisconnected: a client that takes nothing is disconnected after ten seconds, and loses nothing.
func TestSlowReaderIsDisconnected(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &memory{}
		s := serveStreams(t, log)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		log.add("account.put")
		n := 0
		for e, err := range s.client(t, admin).Events(ctx, idOf(0)) {
			if n++; err != nil || e.Subject != fmt.Sprint(n) {
				t.Fatalf("event %d: %+v, %v", n, e, err)
			}
			switch n {
			case 1:
				for range 500 {
					log.add("numbers.put")
				}
				time.Sleep(time.Minute) // the consumer is busy
				if got := s.counts(t); got != "open 0, slow 1" {
					t.Errorf("after a minute without a read: streams ended %q", got)
				}
			case 501:
				cancel()
			}
		}
		if n != 501 {
			t.Errorf("%d events, want 501", n)
		}
	})
}

// TestStreamLimitsAndDrain opens the maximum number of streams, and drains them.
func TestStreamLimitsAndDrain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &memory{}
		s := serveStreams(t, log)
		var bodies []io.ReadCloser
		for range 64 {
			body, refused := s.raw(t, admin, "")
			if refused != "" {
				t.Fatal(refused)
			}
			bodies = append(bodies, body)
		}
		if _, refused := s.raw(t, admin, ""); refused != "503 TooManyStreams retry 10" {
			t.Errorf("stream 65: %s", refused)
		}
		if got := s.counts(t); got != "open 64" {
			t.Errorf("streams: %s", got)
		}
		_ = bodies[0].Close()
		synctest.Wait()
		body, refused := s.raw(t, admin, "")
		if refused != "" {
			t.Fatalf("after one was closed: %s", refused)
		}
		bodies[0] = body
		if err := s.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, b := range bodies {
			text, err := io.ReadAll(b)
			if err != nil || !strings.HasSuffix(string(text), "\n\n") {
				t.Fatalf("a drained stream ends with %q, %v; want the end after a complete block", text, err)
			}
		}
		if _, refused := s.raw(t, admin, ""); refused != "503 ShuttingDown retry 1" {
			t.Errorf("a stream while draining: %s", refused)
		}
		synctest.Wait()
		if got := s.counts(t); got != "open 0, client 1, drain 64" {
			t.Errorf("streams ended: %s", got)
		}
	})
}

// TestResync: the client reports that events are missing and does not continue by itself.
func TestResync(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &memory{}
		log.add("account.put", "account.put", "account.put")
		log.kept = 2
		s := serveStreams(t, log)
		if _, refused := s.raw(t, admin, idOf(1)); refused != "410 resync retry " {
			t.Errorf("an id that is no longer kept: %s", refused)
		}
		if _, refused := s.raw(t, admin, "7"); refused != "400 InvalidEventID retry " {
			t.Errorf("an id that is none: %s", refused)
		}
		if _, err := collect(t.Context(), s.client(t, admin), idOf(1), 1); !client.HasCode(err, "resync") {
			t.Errorf("Events after an id that is no longer kept: %v", err)
		}
		if got, err := collect(t.Context(), s.client(t, admin), idOf(2), 1); got != "3" || err != nil {
			t.Errorf("Events after the last removed one: %q, %v", got, err)
		}
	})
}

// TestStreamFromDatabase follows the log of a database while every connection is cut after one event, and the server is
// replaced by another one each time, on PostgreSQL with a connection of its own.
func TestStreamFromDatabase(t *testing.T) {
	t.Parallel()
	testkit.Configs(t, func(t *testing.T, c db.Config) {
		dbs := []*db.DB{testkit.Open(t, c)}
		if c.Driver == db.Postgres {
			dbs = append(dbs, testkit.Open(t, c))
		}
		var logs []*events.Log
		var nodes []*httptest.Server
		for _, d := range dbs {
			l := events.New(d, slog.New(slog.DiscardHandler), nil)
			s := httptest.NewServer(streamHandler(t, manage.NewStreams(l, prometheus.NewRegistry())))
			defer s.Close()
			defer s.CloseClientConnections()
			logs, nodes = append(logs, l), append(nodes, s)
		}
		start, err := logs[0].Head(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		const total = 8
		writes := 0
		write := func() {
			d := dbs[writes%len(dbs)]
			writes++
			err := d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
				return tx.AuditOf(ctx, "account.put", fmt.Sprint("change ", writes), 1, nil)
			})
			if err != nil {
				t.Error(err)
			}
		}
		write()
		connections := 0
		transport := &http.Transport{DisableKeepAlives: true,
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				connections++
				return new(net.Dialer).DialContext(ctx, network,
					nodes[connections%len(nodes)].Listener.Addr().String())
			}}
		cl, err := client.New("http://localhost", client.Options{Tokens: client.StaticToken(admin),
			HTTPClient: &http.Client{Transport: transport}})
		if err != nil {
			t.Fatal(err)
		}
		var got []api.Event
		for e, err := range cl.Events(t.Context(), events.ID(start)) {
			if err != nil {
				t.Fatal(err)
			}
			if got = append(got, e); len(got) == total {
				break
			}
			for _, n := range nodes {
				n.CloseClientConnections()
			}
			write()
		}
		all, _, err := logs[0].Read(t.Context(), start, true, total+1)
		if err != nil || len(all) != total {
			t.Fatalf("%d events in the log, %v", len(all), err)
		}
		for i, e := range got {
			if e.ID != all[i].ID || e.Kind != "account.put" || !e.Time.Equal(all[i].Time) {
				t.Errorf("event %d is %+v, want %+v", i, e, all[i])
			}
		}
		if connections < total {
			t.Errorf("only %d connections", connections)
		}
		// A database with another identity has none of these places.
		other := strings.Replace(got[0].ID, got[0].ID[:8], "00000000", 1)
		for range nodes {
			if _, err := collect(t.Context(), cl, other, 1); !client.HasCode(err, "resync") {
				t.Errorf("an id of another database: %v", err)
			}
		}
	})
}
