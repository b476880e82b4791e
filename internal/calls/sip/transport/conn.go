package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tandemgw/tandem/internal/calls/sip"
)

// conn is one TCP or TLS connection.
//
//	connecting ──▶ open ──▶ closed
//	     └──────────────────▶
//
// Incoming connections are connecting during their TLS handshake.
type conn struct {
	stack   *Stack
	ep      *Endpoint
	remote  netip.AddrPort
	inbound bool
	tag     any // as returned by Accept
	// identity is the key of the local certificate; set before the connection opens.
	identity string
	// shown is the certificate presented on an outgoing connection, nil if the far side has asked for none. It belongs
	// to the goroutine that reads.
	shown *tls.Certificate
	// keys are its keys in stack.byKey; guarded by stack.mu.
	keys []connKey

	state atomic.Uint32
	leaf  atomic.Pointer[x509.Certificate]

	mu      sync.Mutex // guards the fields below and serialises writes
	out     *outQueue  // the TCP side
	nc      net.Conn   // what is written to: out, or the TLS connection over it
	pending []pendingMessage
	queued  int // bytes in pending
	waiters map[Waiter]struct{}
	ended   error // set when state becomes closed
}

type pendingMessage struct {
	b     []byte
	w     Waiter
	watch bool
}

const (
	connecting uint32 = iota
	open
	closed
)

func (c *conn) alive() bool { return c.state.Load() != closed }

// fits reports whether a request for name, to be sent as identity, may use the connection.
func (c *conn) fits(identity, name string) bool {
	if c.ep.cfg.Proto != TLS {
		return true
	}
	if c.state.Load() != open || c.identity != identity {
		return false
	}
	leaf := c.leaf.Load()
	if leaf == nil {
		return false
	}
	if name == "" {
		name = c.remote.Addr().String()
	}
	return certCovers(leaf, name)
}

// send writes a message, or queues it until the connection is open. With watch, w is also told of a later loss.
func (c *conn) send(b []byte, w Waiter, watch bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.state.Load() {
	case closed:
		if !watch || w == nil {
			return ErrClosed
		}
		go w.SendFailed(c.ended) // it closed after it was chosen: tell w as if it had waited
		return nil
	case connecting:
		if c.queued+len(b) > c.stack.cfg.MaxQueueBytes {
			return fmt.Errorf("%d bytes queued until the connection is open: %w", c.queued, ErrSlowPeer)
		}
		c.queued += len(b)
		c.pending = append(c.pending, pendingMessage{append([]byte(nil), b...), w, watch})
		return nil
	}
	if _, err := c.nc.Write(b); err != nil {
		// The reader sees the closed socket and cleans up.
		if !gone(err) {
			_ = c.out.TCPConn.Close()
		}
		return err
	}
	c.stack.m.sent(c.ep.cfg.Proto, len(b))
	if watch && w != nil {
		c.watch(w)
	}
	return nil
}

func (c *conn) watch(w Waiter) {
	if c.waiters == nil {
		c.waiters = map[Waiter]struct{}{}
	}
	c.waiters[w] = struct{}{}
}

func (c *conn) forget(w Waiter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiters, w)
	// Drop what has not been sent yet: the request has been abandoned.
	c.pending = slices.DeleteFunc(c.pending, func(p pendingMessage) bool {
		if p.w == w {
			c.queued -= len(p.b)
		}
		return p.w == w
	})
}

// opened marks the connection as open and writes the queued messages.
func (c *conn) opened(out *outQueue, nc net.Conn) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.state.CompareAndSwap(connecting, open) {
		return ErrClosed
	}
	c.out, c.nc = out, nc
	if c.inbound {
		c.stack.m.ConnsAccepted.Add(1)
	} else {
		c.stack.m.ConnsDialled.Add(1)
	}
	var failed error
	for _, p := range c.pending {
		if failed == nil {
			if _, failed = nc.Write(p.b); failed == nil {
				c.stack.m.sent(c.ep.cfg.Proto, len(p.b))
			}
		}
		// On failure close tells all of them.
		if p.w != nil && (p.watch || failed != nil) {
			c.watch(p.w)
		}
	}
	c.pending, c.queued = nil, 0
	if gone(failed) {
		return nil // the reader learns why, and close tells the waiters
	}
	return failed
}

// close closes the connection and tells its waiters. It may be called more than once.
func (c *conn) close(cause error) {
	c.mu.Lock()
	was := c.state.Swap(closed)
	if was == closed {
		c.mu.Unlock()
		return
	}
	established := was == open
	if _, refused := errors.AsType[*RefusedError](cause); refused && established {
		established = false // the far side has not completed its handshake, and has read no message
		c.stack.m.HandshakesFailed.Add(1)
	}
	waiters := slices.Collect(maps.Keys(c.waiters))
	for _, p := range c.pending {
		if p.w != nil {
			waiters = append(waiters, p.w)
		}
	}
	c.waiters, c.pending, c.queued = nil, nil, 0
	err := &ConnError{Proto: c.ep.cfg.Proto, Remote: c.remote, Established: established, Err: cause}
	c.ended = err
	nc := c.nc
	c.mu.Unlock()
	if nc != nil {
		_ = nc.Close() // TLS sends close_notify first; an error changes nothing
	}
	c.stack.remove(c)
	m := c.stack.m
	if was == open {
		m.ConnsClosed.Add(1)
	} else {
		m.ConnsFailed.Add(1)
	}
	level := c.stack.log.Debug
	if !established && !errors.Is(cause, ErrClosed) && !errors.Is(cause, errNoCertificate) {
		level = c.stack.log.Warn // failed handshakes are hard to diagnose without a log line
	}
	level("SIP connection ended", "endpoint", c.ep.cfg.Name, "remote", c.remote.String(), "inbound", c.inbound,
		"had_been_open", established, "err", cause)
	for _, w := range waiters {
		w.SendFailed(err)
	}
}

// serve runs an incoming connection from its handshake until it closes.
func (c *conn) serve(nc *net.TCPConn) {
	out := c.tune(nc)
	stop := context.AfterFunc(c.stack.ctx, func() { _ = nc.Close() })
	defer stop()
	if c.ep.cfg.Proto == TCP {
		if err := c.opened(out, out); err != nil {
			_ = nc.Close()
			c.close(err)
			return
		}
		c.read(out)
		return
	}
	select {
	case c.stack.handshakes <- struct{}{}:
	default:
		c.stack.m.ConnsRefused.Add(1)
		_ = nc.Close()
		c.close(fmt.Errorf("%d TLS handshakes are running: %w", cap(c.stack.handshakes), ErrTooManyConnections))
		return
	}
	var identity string
	tc := tls.Server(out, c.ep.cfg.TLS.server(&identity))
	err := c.handshake(tc)
	<-c.stack.handshakes
	if err == nil {
		c.identity = identity
		err = c.opened(out, tc)
	}
	if err != nil {
		_ = nc.Close()
		c.close(err)
		return
	}
	c.read(tc)
}

// localErrors are the errors of a failed connection attempt whose cause is on this host.
var localErrors = []syscall.Errno{
	syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL,
	syscall.EADDRINUSE, syscall.EPERM, syscall.EACCES, syscall.ENETDOWN,
}

// dial makes an outgoing connection and runs it until it closes.
func (c *conn) dial(to []netip.AddrPort, names []string) {
	var nc *net.TCPConn
	var err error
	for _, addr := range to {
		d := net.Dialer{Timeout: dialTimeout}
		if a := c.ep.cfg.Bind.Addr(); !a.IsUnspecified() {
			d.LocalAddr = &net.TCPAddr{IP: a.AsSlice()}
		}
		var raw net.Conn
		if raw, err = d.DialContext(c.stack.ctx, "tcp", addr.String()); err == nil {
			nc = raw.(*net.TCPConn)
			break
		}
	}
	if err != nil {
		if slices.ContainsFunc(localErrors, func(e syscall.Errno) bool { return errors.Is(err, e) }) {
			err = fmt.Errorf("%w: %w", ErrLocal, err)
		}
		c.close(err)
		return
	}
	stop := context.AfterFunc(c.stack.ctx, func() { _ = nc.Close() })
	defer stop()
	out := c.tune(nc)
	var rw net.Conn = out
	if c.ep.cfg.Proto == TLS {
		var tc *tls.Conn
		tc, err = c.client(out, names)
		rw = tc
	}
	if err == nil {
		err = c.opened(out, rw)
	}
	if err != nil {
		_ = nc.Close()
		c.close(err)
		return
	}
	c.read(rw)
}

func (c *conn) client(out *outQueue, names []string) (*tls.Conn, error) {
	sni := ""
	if len(names) > 0 {
		sni = names[0]
	}
	cfg, err := c.ep.cfg.TLS.client(c.identity, sni, names, &c.shown)
	if err != nil {
		return nil, err
	}
	tc := tls.Client(out, cfg)
	return tc, c.refused(c.handshake(tc))
}

func (c *conn) handshake(tc *tls.Conn) error {
	ctx, cancel := context.WithTimeout(c.stack.ctx, c.stack.cfg.HandshakeTimeout)
	defer cancel()
	if err := tc.HandshakeContext(ctx); err != nil {
		c.stack.m.HandshakesFailed.Add(1)
		return fmt.Errorf("TLS handshake: %w", err)
	}
	if certs := tc.ConnectionState().PeerCertificates; len(certs) > 0 {
		c.leaf.Store(certs[0])
	}
	return nil
}

// tune sets the socket options and wraps the connection in its write queue.
func (c *conn) tune(nc *net.TCPConn) *outQueue {
	_ = nc.SetNoDelay(true) // Go's default; explicit because it matters
	_ = nc.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second,
		Interval: 10 * time.Second, Count: 3})
	setUserTimeout(nc, c.stack.cfg.WriteTimeout)
	return newOutQueue(nc, c.stack, c.stack.cfg.MaxQueueBytes)
}

// read reads from the connection until it closes.
func (c *conn) read(src net.Conn) {
	in := &deadlined{Conn: src, c: c}
	if c.inbound {
		c.close(c.readAll(in))
		return
	}
	// Pings keep the path through firewalls and NATs open; TCP's own keep-alive detects a far side that has vanished.
	done := make(chan struct{})
	c.stack.wg.Go(func() {
		t := time.NewTicker(c.stack.cfg.KeepAlive)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				if c.control("\r\n\r\n") != nil {
					return
				}
			case <-done:
				return
			}
		}
	})
	err := c.readAll(in)
	close(done)
	c.close(err)
}

// control writes a keep-alive.
func (c *conn) control(s string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.Load() != open {
		return ErrClosed
	}
	_, err := c.nc.Write([]byte(s))
	return err
}

func (c *conn) readAll(in *deadlined) error {
	s := c.stack
	rd := sip.NewReader(in, s.cfg.Limits)
	for first := true; ; first = false {
		in.begun = time.Time{}
		f, err := rd.Next()
		if err != nil {
			if first {
				err = c.refused(err)
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				err = ErrIdle
				s.m.ConnsIdle.Add(1)
			} else if errors.Is(err, io.EOF) {
				err = fmt.Errorf("closed by the peer: %w", err)
			}
			return err
		}
		switch f.Kind {
		case sip.FramePing:
			s.m.KeepAlives.Add(1)
			if err := c.control("\r\n"); err != nil {
				return err
			}
			continue
		case sip.FramePong:
			s.m.KeepAlives.Add(1)
			continue
		}
		flow := flowOf(c.ep, c, c.remote, c.tag)
		if f.Message.IsRequest() {
			c.request(f.Message, &flow)
		}
		s.deliver(f.Message, f.Problem, flow, in.took())
		if f.Lost {
			c.linger(in)
			return errors.New("lost the message boundaries")
		}
	}
}

// linger lets the answer to the last message reach the far side: closing a socket with unread input resets the
// connection and discards the answer.
func (c *conn) linger(in *deadlined) {
	if in.Conn.SetReadDeadline(time.Now().Add(2*time.Second)) != nil {
		return
	}
	c.mu.Lock()
	out := c.out
	c.mu.Unlock()
	if out.TCPConn.CloseWrite() != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, in.Conn, 1<<20) // whatever ends it, the connection closes next
}

// request stamps a request's Via and sets where its response goes.
func (c *conn) request(m *sip.Message, f *Flow) {
	v, ok := stampVia(m, c.remote)
	if !ok {
		return
	}
	f.replyPort = v.port(c.ep.cfg.Proto)
	if v.name != "" {
		host := strings.Clone(v.name) // does not keep the whole message alive
		f.host = &host
	}
	// RFC 5923: a certificate proves that the far side may use the port it names; on plain TCP there is no proof.
	if c.inbound && v.alias && c.leaf.Load() != nil {
		c.stack.alias(c, f.replyPort)
	}
}

// deadlined reads from a connection with the deadline for its state: the idle time-out between messages, a shorter one
// inside a message, so that a peer cannot hold a connection with one byte per minute.
type deadlined struct {
	net.Conn
	c     *conn
	begun time.Time // when the current message began
	n     int       // bytes read since the last call of took
}

func (d *deadlined) Read(p []byte) (int, error) {
	cfg := &d.c.stack.cfg
	until := d.begun.Add(cfg.MessageTimeout)
	if d.begun.IsZero() {
		until = time.Now().Add(cfg.IdleTimeout)
	}
	if err := d.Conn.SetReadDeadline(until); err != nil {
		return 0, err
	}
	n, err := d.Conn.Read(p)
	if n > 0 && d.begun.IsZero() {
		d.begun = time.Now()
	}
	d.n += n
	return n, err
}

func (d *deadlined) took() int {
	n := d.n
	d.n = 0
	return n
}
