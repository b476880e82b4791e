package front_test

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/front"
	"github.com/tandemgw/tandem/internal/platform/listen"
	"github.com/tandemgw/tandem/internal/platform/web"
)

// pipes is a listener whose connections are pipes, which work in fake time.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if c, ok := <-p; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (p pipes) Close() error   { close(p); return nil } // the server closes it once
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

type end struct {
	net.Conn
	from string
}

func (e end) CloseWrite() error    { return nil }
func (e end) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(e.from)) }

// Strangers that send or read slowly hold a connection for seconds, and a server full of them still answers others.
func TestSlowStrangers(t *testing.T) {
	drip := func(text string, every time.Duration) func(net.Conn) {
		return func(c net.Conn) {
			for i := range text {
				if _, err := io.WriteString(c, text[i:i+1]); err != nil {
					return
				}
				time.Sleep(every)
			}
		}
	}
	post := "POST /read HTTP/1.1\r\nHost: " + hooks + "\r\nContent-Length: 10\r\n\r\n"
	get := "GET /status HTTP/1.1\r\nHost: " + onboard + "\r\n"
	for name, x := range map[string]struct {
		send func(net.Conn)
		read bool
		most time.Duration // until the connection is closed
	}{
		"nothing":         {func(net.Conn) {}, true, listen.Probation},
		"a slow header":   {drip(get+"X-Slow: "+string(make([]byte, 100)), time.Second), true, listen.Probation},
		"an endless line": {drip("GET /"+string(make([]byte, 100)), time.Second), true, listen.Probation},
		"a slow body": {func(c net.Conn) {
			_, _ = io.WriteString(c, post)
			drip("0123456789", 3*time.Second)(c)
		}, true, 2 * listen.Probation},
		"a body that ends": {func(c net.Conn) { _, _ = io.WriteString(c, post+"012") }, true, 2 * listen.Probation},
		"idle after an answer": {func(c net.Conn) { _, _ = io.WriteString(c, get+"\r\n") }, true,
			2 * listen.Probation},
		"an answer that is not read": {func(c net.Conn) { _, _ = io.WriteString(c, get+"\r\n") }, false,
			front.WriteTimeout + listen.Probation},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBed(t, nil)
			p := make(pipes)
			log := slog.New(slog.DiscardHandler)
			l := listen.New(p, listen.Config{Name: "front", Total: 8, PerSource: 4, Log: log,
				Metrics: listen.NewMetrics(prometheus.NewRegistry())})
			srv := web.NewServer(b.handler, front.WriteTimeout, log)
			l.Prepare(srv)
			done := make(chan error, 1)
			go func() { done <- srv.Serve(l) }()
			dial := func(from string) net.Conn {
				near, far := net.Pipe()
				p <- end{far, from}
				return near
			}

			var sending sync.WaitGroup
			defer sending.Wait()
			start := time.Now()
			slow := dial("198.51.100.1:1")
			sending.Go(func() { x.send(slow) })
			if !x.read {
				time.Sleep(x.most)
			}
			if n, _ := io.Copy(io.Discard, slow); n > 0 && !x.read { // until it is closed
				t.Errorf("%s: the connection is open after %v", name, x.most)
			}
			if took := time.Since(start); took > x.most+time.Second {
				t.Errorf("%s: the connection was closed after %v, want at most %v", name, took, x.most)
			}
			_ = slow.Close()

			// Twice as many as there is room for, from several sources; then somebody who asks.
			for i := range byte(16) {
				c := dial(netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, i / 4}), 1).String())
				sending.Go(func() { x.send(c) })
				defer c.Close()
				synctest.Wait()
			}
			c := dial("192.0.2.9:1")
			defer c.Close()
			sending.Go(func() { _, _ = io.WriteString(c, get+"Connection: close\r\n\r\n") })
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil || res.StatusCode != http.StatusOK {
				t.Errorf("%s: beside 16 such connections a request gets %v, %v", name, res, err)
			} else {
				_, _ = io.Copy(io.Discard, res.Body)
			}
			_ = srv.Close()
			<-done
		})
	}
}
