package nameserver

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	maxConns       = 1000
	maxConnsSource = 50 // of one network
	maxConnsMore   = 50 // of secondaries, when there are maxConns
	readTimeout    = 2 * time.Second
	idleTimeout    = 10 * time.Second
	writeTimeout   = 10 * time.Second // for one message
	acceptPause    = 50 * time.Millisecond
)

// conns is a listener that accepts a limited number of connections. A secondary is not subject to the limit for one
// network, and strangers cannot use up the connections of all.
type conns struct {
	net.Listener
	s *Server

	mu      sync.Mutex
	total   int
	sources map[netip.Prefix]int
}

func newConns(l net.Listener, s *Server) *conns {
	return &conns{Listener: l, s: s, sources: map[netip.Prefix]int{}}
}

// Accept returns the next connection for which there is room; the others are closed.
func (l *conns) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) { // no more files, for example; the library repeats at once
				l.s.warn("DNS connection not accepted", "error", err)
				time.Sleep(acceptPause)
			}
			return nil, err
		}
		a := address(c.RemoteAddr())
		if n, ok := l.enter(a); ok {
			return &conn{Conn: c, leave: sync.OnceFunc(func() { l.leave(n) })}, nil
		}
		l.s.m.refused.Inc()
		_ = c.Close()
	}
}

func (l *conns) enter(a netip.Addr) (netip.Prefix, bool) {
	bits := 32
	if a.Is6() {
		bits = 64
	}
	n, _ := a.Prefix(bits)

	l.mu.Lock()
	defer l.mu.Unlock()
	total, source := maxConns, maxConnsSource
	if l.s.known(a) {
		total += maxConnsMore
		source = total
	}
	if l.total >= total || l.sources[n] >= source {
		return n, false
	}
	l.total++
	l.sources[n]++

	return n, true
}

func (l *conns) leave(n netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.sources[n]--; l.sources[n] == 0 {
		delete(l.sources, n)
	}
}

// known reports whether a is an address of a secondary.
func (s *Server) known(a netip.Addr) bool {
	for i := range s.peers {
		if s.peers[i].from(a) {
			return true
		}
	}

	return false
}

// conn is a connection that a client who does not read cannot keep: it is closed by the first answer that is not taken
// in time. Nothing can follow half a message.
type conn struct {
	net.Conn
	leave func()
}

func (c *conn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(b)
	if err != nil {
		_ = c.Close()
	}

	return n, err
}

func (c *conn) Close() error {
	c.leave()
	return c.Conn.Close()
}
