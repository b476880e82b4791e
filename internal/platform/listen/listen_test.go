package listen_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/platform/listen"
)

// network is a listener whose clients can have any address. It works in fake time.
type network struct {
	taken chan any // a net.Conn or an error
	done  chan struct{}
	once  sync.Once
}

func (n *network) Accept() (net.Conn, error) {
	select {
	case x := <-n.taken:
		if err, ok := x.(error); ok {
			return nil, err
		}
		return x.(net.Conn), nil
	case <-n.done:
		return nil, net.ErrClosed
	}
}

func (n *network) Close() error   { n.once.Do(func() { close(n.done) }); return nil }
func (n *network) Addr() net.Addr { return &net.TCPAddr{} }

type end struct {
	net.Conn
	remote string
}

func (e end) CloseWrite() error    { return nil }
func (e end) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(e.remote)) }

// bed is a server with limits. Its handler echoes the request line, and "Authorization: good" authenticates a request.
type bed struct {
	t   *testing.T
	n   *network
	reg *prometheus.Registry
	log bytes.Buffer // written by one goroutine at a time, read when it waits
}

func newBed(t *testing.T, cfg listen.Config) *bed {
	b := &bed{t: t, n: &network{taken: make(chan any), done: make(chan struct{})}, reg: prometheus.NewRegistry()}
	cfg.Name, cfg.Metrics = "test", listen.NewMetrics(b.reg)
	cfg.Log = slog.New(slog.NewTextHandler(&b.log, nil))
	cfg.Expectation = []byte("HTTP/1.1 417 Expectation Failed\r\nX-Code: ExpectationFailed\r\nConnection: close\r\n" +
		"Content-Length: 4\r\n\r\nours")
	l := listen.New(b.n, cfg)
	srv := &http.Server{Handler: http.HandlerFunc(answer), ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 4 << 10,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	l.Prepare(srv)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
	return b
}

func answer(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") == "good" {
		listen.Authenticated(r.Context())
	}
	if d, err := time.ParseDuration(strings.TrimPrefix(r.URL.Path, "/")); err == nil {
		select {
		case <-time.After(d):
		case <-r.Context().Done():
			return
		}
	}
	body, _ := io.ReadAll(r.Body) // as far as it arrived
	_, _ = fmt.Fprintf(w, "%s %s tls=%v %d", r.Method, r.RequestURI, r.TLS != nil, len(body))
}

// dial returns the client's end of a new connection.
func (b *bed) dial(from string) *client {
	near, far := net.Pipe()
	b.n.taken <- end{far, from}
	c := &client{t: b.t, Conn: near, r: bufio.NewReader(near)}
	b.t.Cleanup(func() { _ = near.Close() })
	synctest.Wait()
	return c
}

type client struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

// ask sends a request; nil means that the connection was closed.
func (c *client) ask(request string) *http.Response {
	c.t.Helper()
	go func() { _, _ = io.WriteString(c, request) }() // a pipe has no buffer; the answer may come before its end
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return nil
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	return res
}

const (
	plainGet = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	goodGet  = "GET / HTTP/1.1\r\nHost: x\r\nAuthorization: good\r\n\r\n"
)

func (c *client) works(request string) bool {
	c.t.Helper()
	res := c.ask(request)
	return res != nil && res.StatusCode == 200
}

// closedAfter returns how long the server keeps a connection on which nothing arrives.
func (c *client) closedAfter() time.Duration {
	start := time.Now()
	_, _ = c.r.ReadByte() // until the end
	return time.Since(start)
}

func (b *bed) count(event string) float64 {
	b.t.Helper()
	families, err := b.reg.Gather()
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			if f.GetName() == "tandem_http_connections" && event == "open" {
				return m.Gauge.GetValue()
			}
			for _, l := range m.Label {
				if l.GetName() == "event" && l.GetValue() == event {
					return m.Counter.GetValue()
				}
			}
		}
	}
	return 0
}

func TestTimeBeforeAuthentication(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, listen.Config{})
		if d := b.dial("192.0.2.1:1").closedAfter(); d != listen.Probation {
			t.Errorf("a silent connection lasts %v, want %v", d, listen.Probation)
		}
		slow := b.dial("192.0.2.1:2")
		go func() {
			for range 100 {
				if _, err := io.WriteString(slow, "GET / HTTP/1.1\r\nHost: x\r\n"[:1]); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}()
		if d := slow.closedAfter(); d > listen.Probation {
			t.Errorf("a client that sends its request byte by byte has %v", d)
		}
		body := b.dial("192.0.2.1:3")
		// An incomplete body.
		go func() { _, _ = io.WriteString(body, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab") }()
		if d := body.closedAfter(); d > listen.Probation {
			t.Errorf("a client that does not send its body has %v", d)
		}
		idle := b.dial("192.0.2.1:4")
		for range 2 {
			if !idle.works(plainGet) {
				t.Fatal("requests without a token are not answered")
			}
		}
		if d := idle.closedAfter(); d != listen.Probation {
			t.Errorf("an idle connection without a token lasts %v, want %v", d, listen.Probation)
		}
		known := b.dial("192.0.2.1:5")
		if !known.works(goodGet) {
			t.Fatal("not answered")
		}
		time.Sleep(time.Minute)
		if !known.works(plainGet) {
			t.Error("a connection that had a good token is closed within a minute")
		}
		if d := known.closedAfter(); d != 2*time.Minute {
			t.Errorf("an idle connection with a token lasts %v, want the server's 2m", d)
		}
		if !b.dial("192.0.2.1:6").works(strings.Replace(goodGet, "GET /", "GET /4m", 1)) {
			t.Error("a long request with a good token is cut")
		}
		if n := b.count("open"); n != 1 {
			t.Errorf("%v connections are counted, want the last one", n)
		}
	})
}

func TestOneSourceCannotTakeAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, listen.Config{Total: 100, PerSource: 10})
		for i := range 1000 {
			b.dial(fmt.Sprintf("192.0.2.1:%d", i+1))
		}
		for i := range 1000 { // one customer's /64
			b.dial(fmt.Sprintf("[2001:db8::%x]:1", i+1))
		}
		if n := b.count("open"); n != 20 {
			t.Errorf("%v connections of two sources are open, want 10 of each", n)
		}
		if !b.dial("192.0.2.1:9").works(plainGet) {
			t.Error("a client at the address of a flood gets no answer")
		}
		if !b.dial("[2001:db8:0:1::1]:9").works(goodGet) {
			t.Error("a client of the next /64 gets no answer")
		}
		if b.count("evicted") < 1900 || b.count("refused_total") != 0 {
			t.Errorf("evicted %v, refused %v", b.count("evicted"), b.count("refused_total"))
		}
		if n := strings.Count(b.log.String(), "\n"); n != 1 ||
			!strings.Contains(b.log.String(), "event=evicted events=1 source=192.0.2.1") {
			t.Errorf("the log has %d lines for 2,000 connections at once, want 1:\n%s", n, b.log.String())
		}
	})
}

func TestManySourcesCannotTakeAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, listen.Config{Total: 50, PerSource: 10})
		var known []*client
		for i := range 8 {
			c := b.dial(fmt.Sprintf("198.51.100.%d:1", i))
			if !c.works(goodGet) {
				t.Fatal("not answered")
			}
			known = append(known, c)
		}
		for i := range 2000 {
			b.dial(fmt.Sprintf("192.0.2.%d:%d", i%200, i+1))
		}
		if n := b.count("open"); n != 50 {
			t.Errorf("%v connections are open, want 50", n)
		}
		if !b.dial("203.0.113.1:1").works(goodGet) {
			t.Error("a client of a new address gets no answer")
		}
		for i, c := range known {
			if !c.works(plainGet) {
				t.Errorf("connection %d that had a good token was closed", i)
			}
		}
		// Connections on which a client authenticated do not make room: new ones are then refused.
		for i := range 60 {
			b.dial(fmt.Sprintf("203.0.113.%d:2", i)).works(goodGet)
		}
		if b.dial("192.0.2.1:1").works(plainGet) || b.count("refused_total") == 0 {
			t.Error("more connections than the total are open")
		}
		if n := b.count("open"); n != 50 {
			t.Errorf("%v connections are open, want 50", n)
		}
	})
}

// TestAFloodFromFewerSourcesThanThereIsRoomFor evicts only connections of its own sources: a slow client of another
// address is not affected.
func TestAFloodFromFewerSourcesThanThereIsRoomFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, listen.Config{Total: 50, PerSource: 10})
		for i := range 200 {
			b.dial(fmt.Sprintf("192.0.2.%d:%d", i%40, i+1))
		}
		slow := b.dial("203.0.113.1:1")
		for i := range 2000 {
			b.dial(fmt.Sprintf("192.0.2.%d:%d", i%40, i+1))
		}
		if !slow.works(plainGet) {
			t.Error("it was closed to make room for others")
		}
	})
}

// TestARequestKeepsItsConnectionAheadOfSilentOnes: the one longest without a request is evicted.
func TestARequestKeepsItsConnectionAheadOfSilentOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, listen.Config{Total: 10})
		busy := b.dial("198.51.100.1:1")
		for i := range 9 {
			b.dial(fmt.Sprintf("192.0.2.%d:1", i))
		}
		if !busy.works(plainGet) {
			t.Fatal("not answered")
		}
		for i := range 9 {
			b.dial(fmt.Sprintf("192.0.2.%d:2", i))
		}
		if !busy.works(plainGet) {
			t.Error("it was closed while nine were longer without a request")
		}
	})
}

type sources struct{ allowed, proxy netip.Prefix }

func (s sources) Permits(a netip.Addr) bool { return s.allowed.Contains(a) }
func (s sources) IsProxy(a netip.Addr) bool { return s.proxy.Contains(a) }

func TestOutsidersAndProxies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, listen.Config{Total: 100, PerSource: 10, Sources: sources{
			allowed: netip.MustParsePrefix("192.0.2.0/24"), proxy: netip.MustParsePrefix("10.0.0.0/8"),
		}})
		for i := range 50 {
			b.dial(fmt.Sprintf("203.0.113.1:%d", i+1))
		}
		if n := b.count("open"); n != 4 {
			t.Errorf("a source outside the list has %v connections, want 4", n)
		}
		c := b.dial("203.0.113.1:99")
		if res := c.ask(plainGet); res == nil || !res.Close { // the handler's answer, which would be 403
			t.Errorf("the answer to a source outside the list is %v; want one that closes", res)
		}
		if d := c.closedAfter(); d > time.Second {
			t.Errorf("it lasts %v after its answer", d)
		}
		for i := range 60 {
			if !b.dial(fmt.Sprintf("10.1.1.1:%d", i+1)).works(goodGet) {
				t.Fatalf("connection %d of a proxy is refused", i)
			}
		}
	})
}

// TestErrorsOfTheSystemDoNotEndTheListener, such as too many open files.
func TestErrorsOfTheSystemDoNotEndTheListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, listen.Config{})
		for range 5 {
			b.n.taken <- errors.New("accept4: too many open files")
		}
		if !b.dial("192.0.2.1:1").works(plainGet) || b.count("accept_failed") != 5 {
			t.Errorf("after %v errors there is no answer", b.count("accept_failed"))
		}
		if !strings.Contains(b.log.String(), "too many open files") {
			t.Errorf("the log does not say why: %s", b.log.String())
		}
	})
}

// TestWhatTheServerAnswersItself: RFC 9112 §3.2 and §6.1, RFC 6585 §5 and RFC 9110 §10.1.1 require these; no handler is
// called.
func TestWhatTheServerAnswersItself(t *testing.T) {
	for _, tc := range []struct {
		request string
		status  int
	}{
		{"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		{"GET / HTTP/1.1\r\n\r\n", 400},
		{"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
		{"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400},
		{"GET / HTTP/1.1\r\nHost: x\r\nBad Name: y\r\n\r\n", 400},
		{"GET / HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", 431},
		{"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501},
		{"GET / HTTP/9.9\r\nHost: x\r\n\r\n", 505},
		{"POST / HTTP/1.1\r\nHost: x\r\nExpect: payment\r\nContent-Length: 1\r\n\r\nx", 417},
		{"POST / HTTP/1.0\r\nHost: x\r\nExpect: payment\r\nContent-Length: 1\r\n\r\nx", 417},
	} {
		for _, second := range []bool{false, true} { // also as the second request of a connection
			synctest.Test(t, func(t *testing.T) {
				b := newBed(t, listen.Config{})
				c := b.dial("192.0.2.1:1")
				if second && !c.works(goodGet) {
					t.Fatal("not answered")
				}
				res := c.ask(tc.request)
				if res == nil || res.StatusCode != tc.status || !res.Close {
					t.Fatalf("%.40q: %v, want %d and the connection closed", tc.request, res, tc.status)
				}
				event := fmt.Sprintf("malformed_%d", tc.status)
				if b.count(event) != 1 || !strings.Contains(b.log.String(), event) ||
					!strings.Contains(b.log.String(), "source=192.0.2.1") {
					t.Errorf("%.40q: counted %v, logged %q", tc.request, b.count(event), b.log.String())
				}
				body, _ := io.ReadAll(res.Body)
				if tc.status == 417 && (res.Header.Get("X-Code") != "ExpectationFailed" || string(body) != "ours") {
					t.Errorf("the answer to another expectation: %v %s", res.Header, body)
				}
			})
		}
	}
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, listen.Config{})
		for request, want := range map[string]string{
			"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n":                                            "OPTIONS * tls=false 0",
			"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx": "POST / tls=false 1",
		} {
			c := b.dial("192.0.2.1:1")
			res := c.ask(request)
			if res != nil && res.StatusCode == 100 {
				res, _ = http.ReadResponse(c.r, nil)
			}
			if res == nil {
				t.Fatalf("%q is not answered", request)
			}
			if body, _ := io.ReadAll(res.Body); string(body) != want {
				t.Errorf("%q: %s, want %s", request, body, want)
			}
		}
		if n := b.count("malformed_400"); n != 0 {
			t.Errorf("answers of handlers are counted as the server's own: %v", n)
		}
	})
}

func TestTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
		DNSNames: []string{"x"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots.AddCert(leaf)
	server := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		NextProtos: []string{"http/1.1"}}
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, listen.Config{Total: 10, TLS: server})
		secure := func() *client {
			c := b.dial("192.0.2.1:1")
			tc := tls.Client(c.Conn, &tls.Config{RootCAs: roots, ServerName: "x",
				Time:       func() time.Time { return template.NotAfter.Add(-time.Hour) },
				NextProtos: []string{"h2", "http/1.1"}})
			return &client{t: t, Conn: tc, r: bufio.NewReader(tc)}
		}
		c := secure()
		res := c.ask(goodGet)
		if res == nil {
			t.Fatal("no answer over TLS")
		}
		if body, _ := io.ReadAll(res.Body); string(body) != "GET / tls=true 0" {
			t.Errorf("over TLS: %s", body)
		}
		time.Sleep(time.Minute)
		if !c.works(plainGet) {
			t.Error("a connection that had a good token is closed within a minute")
		}
		res = c.ask("POST / HTTP/1.1\r\nHost: x\r\nExpect: payment\r\n\r\n")
		if res == nil || res.StatusCode != 417 || b.count("malformed_417") != 1 ||
			res.Header.Get("X-Code") != "ExpectationFailed" {
			t.Errorf("another expectation over TLS: %v", res)
		}
		for range 30 { // they never begin their handshake
			b.dial("192.0.2.2:1")
		}
		if !secure().works(goodGet) {
			t.Error("no answer next to silent connections")
		}
		if d := b.dial("192.0.2.2:1").closedAfter(); d != listen.Probation {
			t.Errorf("a connection without a handshake lasts %v", d)
		}
		before := b.count("handshake_failed") // a closed pipe returns another error than a closed socket
		if res := b.dial("192.0.2.3:1").ask(plainGet); res == nil || res.StatusCode != 400 {
			t.Errorf("plain HTTP to a TLS listener: %v, want 400 in plain text", res)
		}
		time.Sleep(time.Minute) // until another line may be logged
		distrusts := tls.Client(b.dial("192.0.2.4:1").Conn, &tls.Config{ServerName: "y", RootCAs: x509.NewCertPool()})
		if err := distrusts.Handshake(); err == nil {
			t.Error("a certificate from an unknown authority is trusted")
		}
		synctest.Wait()
		if n := b.count("handshake_failed") - before; n != 2 || b.count("malformed_400") != 0 ||
			!strings.Contains(b.log.String(), "tls: bad certificate") {
			t.Errorf("%v of 2 failed handshakes are counted; the log is %s", n, b.log.String())
		}
	})
}

func TestAuthenticatedWithoutAListener(t *testing.T) {
	listen.Authenticated(context.Background()) // a test's recorder, or an offline command
}
