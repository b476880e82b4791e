package transport

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/calls/sip"
)

// Config bounds a [Stack]. The zero value is usable.
type Config struct {
	// Limits bounds the messages that are read; nil means the defaults of package sip.
	Limits *sip.Limits
	// MaxConns bounds the TCP and TLS connections, incoming and outgoing together; 0 means 20,000.
	MaxConns int
	// MaxConnsPerSource bounds the connections that one address may open to us; 0 means 1,000.
	MaxConnsPerSource int
	// MaxQueueBytes bounds the bytes that wait to be written on one connection, while it is being made or while the far
	// side is slow. Above it the connection is closed. 0 means 1 MiB.
	MaxQueueBytes int
	// IdleTimeout is how long a connection may receive nothing before it is closed; 0 means 10 min. Peers that send
	// OPTIONS or CRLF keep their connections open.
	IdleTimeout time.Duration
	// HandshakeTimeout bounds a TLS handshake; 0 means 5 s.
	HandshakeTimeout time.Duration
	// MessageTimeout bounds the time between the first and last byte of one message; 0 means 30 s.
	MessageTimeout time.Duration
	// WriteTimeout is how long the far side may accept no data while there is some to write; 0 means 20 s.
	WriteTimeout time.Duration
	// KeepAlive is the interval of the double-CRLF pings (RFC 5626 §3.5.1) sent on connections that we opened; 0 means
	// 2 min.
	KeepAlive time.Duration
	// SentBy returns the addresses of a Via's sent-by name, for responses whose connection has closed (RFC 3261
	// §18.2.2, RFC 3263 §5). It must not block. Nil: only the source address of the request is tried.
	SentBy func(host string, port uint16, proto Proto) []netip.AddrPort
}

func (c Config) withDefaults() Config {
	c.MaxConns = cmp.Or(c.MaxConns, 20_000)
	c.MaxConnsPerSource = cmp.Or(c.MaxConnsPerSource, 1_000)
	c.MaxQueueBytes = cmp.Or(c.MaxQueueBytes, 1<<20)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, 10*time.Minute)
	c.HandshakeTimeout = cmp.Or(c.HandshakeTimeout, 5*time.Second)
	c.MessageTimeout = cmp.Or(c.MessageTimeout, 30*time.Second)
	c.WriteTimeout = cmp.Or(c.WriteTimeout, 20*time.Second)
	c.KeepAlive = cmp.Or(c.KeepAlive, 2*time.Minute)
	return c
}

const (
	maxHandshakes = 200             // TLS handshakes of incoming connections that run at once
	dialTimeout   = 5 * time.Second // of one attempt to connect
)

// Stack holds all endpoints of a node with their connections. Life cycle: [New], [Stack.Listen] for each endpoint,
// [Stack.Start], then [Stack.Close]. Its methods are safe for concurrent use.
type Stack struct {
	cfg Config
	log *slog.Logger
	m   *Metrics

	ctx        context.Context // of dialling; cancelled by Close
	cancel     context.CancelFunc
	wg         sync.WaitGroup // every goroutine of the stack
	handler    Handler
	handshakes chan struct{}

	mu        sync.Mutex // guards the fields below
	endpoints []*Endpoint
	conns     map[*conn]struct{}
	perSource map[netip.Addr]int
	byKey     map[connKey]*conn // connections that requests may use
	started   bool
	closed    bool
}

// connKey holds what must be equal for a connection to be reused. A far side that we connected to was verified for
// name; one that connected to us is found under aliasName and checked at each use.
type connKey struct {
	ep       *Endpoint
	remote   netip.AddrPort
	identity string
	name     string
}

// New returns a stack without endpoints. Its metrics are registered with reg unless that is nil; a nil log discards.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Stack, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Stack{cfg: cfg.withDefaults(), log: log, conns: map[*conn]struct{}{}, perSource: map[netip.Addr]int{},
		byKey: map[connKey]*conn{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.handshakes = make(chan struct{}, maxHandshakes)
	s.m = &Metrics{stack: s}
	if reg != nil {
		if err := reg.Register(s.m); err != nil {
			s.cancel()
			return nil, fmt.Errorf("register transport metrics: %w", err)
		}
	}
	return s, nil
}

// Listen opens an endpoint. Messages that arrive before Start wait in the socket. The error names the address that
// could not be opened.
func (s *Stack) Listen(cfg EndpointConfig) (*Endpoint, error) {
	ep, err := newEndpoint(s, cfg)
	if err != nil {
		return nil, fmt.Errorf("SIP endpoint %s: %w", cfg.Name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		ep.closeSockets()
		return nil, fmt.Errorf("SIP endpoint %s: %w", cfg.Name, ErrClosed)
	}
	s.endpoints = append(s.endpoints, ep)
	if s.started {
		ep.start()
	}
	return ep, nil
}

// Start starts reading on all endpoints, and on those opened later, passing messages to h.
func (s *Stack) Start(h Handler) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case h == nil:
		return errors.New("transport needs a handler")
	case s.closed:
		return ErrClosed
	case s.started:
		return errors.New("transport is already started")
	}
	s.handler, s.started = h, true
	for _, ep := range s.endpoints {
		ep.start()
	}
	return nil
}

// Close closes all sockets and waits for all goroutines of the stack to end. It must not be called from the handler.
func (s *Stack) Close() {
	s.mu.Lock()
	s.closed = true
	s.cancel()
	for _, ep := range s.endpoints {
		ep.closeSockets()
	}
	conns := slices.Collect(maps.Keys(s.conns))
	s.mu.Unlock()
	for _, c := range conns {
		c.close(ErrClosed)
	}
	s.wg.Wait()
}

// Send sends an encoded request, which must carry the Via line of t.From (see [Endpoint.Via]). It copies b and does not
// block. An error means that nothing was sent and nothing will be. Otherwise it returns the flow used; with a reliable
// protocol w, if not nil, is called if the request is lost with its connection before Forget.
func (s *Stack) Send(b []byte, t Target, w Waiter) (Flow, error) {
	if t.From == nil {
		return Flow{}, errors.New("send: the target names no endpoint")
	}
	if t.From.cfg.Proto == UDP {
		remote := t.Addr
		if !remote.IsValid() && t.Prefer.ep == t.From {
			remote = t.Prefer.remote
		}
		f := flowOf(t.From, nil, remote, nil)
		if err := t.From.udp.send(b, remote); err != nil {
			s.m.SendErrors.Add(1)
			return Flow{}, fmt.Errorf("send to %s over UDP: %w: %w", remote, ErrLocal, err)
		}
		s.m.sent(UDP, len(b))
		return f, nil
	}
	c, err := s.connFor(t)
	if err != nil {
		s.m.SendErrors.Add(1)
		return Flow{}, fmt.Errorf("send to %s: %w: %w", t, ErrLocal, err)
	}
	if err := c.send(b, w, true); err != nil {
		s.m.SendErrors.Add(1)
		return Flow{}, fmt.Errorf("send to %s: %w", t, err)
	}
	return flowOf(t.From, c, c.remote, c.tag), nil
}

// Forget releases w from the connection of f: the request has been answered or abandoned. If the request still waits
// for the connection to be made, it is not sent.
func (s *Stack) Forget(f Flow, w Waiter) {
	if f.conn != nil && w != nil {
		f.conn.forget(w)
	}
}

// Reply sends an encoded response along the flow of its request. It copies b and does not block. If the connection has
// closed, a new one is made to the address in the request's Via (RFC 3261 §18.2.2); w, if not nil, is called if that
// fails.
func (s *Stack) Reply(b []byte, f Flow, w Waiter) error {
	if f.ep == nil {
		return errors.New("reply: no flow")
	}
	if f.conn == nil {
		if err := f.ep.udp.send(b, f.ReplyTo()); err != nil {
			s.m.SendErrors.Add(1)
			return fmt.Errorf("reply to %s over UDP: %w: %w", f.ReplyTo(), ErrLocal, err)
		}
		s.m.sent(UDP, len(b))
		return nil
	}
	if err := f.conn.send(b, nil, false); err == nil {
		return nil
	}
	s.m.ReplyFallbacks.Add(1)
	c, err := s.connBack(f)
	if err == nil {
		err = c.send(b, w, false)
	}
	if err != nil {
		s.m.SendErrors.Add(1)
		return fmt.Errorf("reply to %s: %w", f, err)
	}
	return nil
}

// connFor returns the connection for a target: the preferred one, an open one, or a new one.
func (s *Stack) connFor(t Target) (*conn, error) {
	identity := t.identity()
	if c := t.Prefer.conn; c != nil && t.Prefer.ep == t.From && c.alive() {
		if c.fits(identity, t.ServerName) {
			return c, nil
		}
		s.m.ReuseRefused.Add(1)
	}
	if !t.Addr.IsValid() || t.Addr.Port() == 0 {
		return nil, ErrNotReusable
	}
	key := connKey{ep: t.From, remote: t.Addr, identity: identity}
	if t.From.cfg.Proto == TLS {
		key.name = t.ServerName
		if key.name == "" {
			key.name = t.Addr.Addr().String()
		}
	}
	return s.get(key, []netip.AddrPort{t.Addr}, []string{key.name})
}

func (t Target) identity() string {
	if t.From.cfg.Proto != TLS {
		return ""
	}
	return t.From.cfg.TLS.Identity
}

// connBack returns a connection for a response whose own connection has closed.
func (s *Stack) connBack(f Flow) (*conn, error) {
	reply, host := f.ReplyTo(), ""
	if f.host != nil {
		host = *f.host
	}
	key := connKey{ep: f.ep, remote: reply, identity: f.conn.identity}
	to := []netip.AddrPort{reply}
	var names []string
	if f.ep.cfg.Proto == TLS {
		// The far side must be the sender of the request: the host in the Via, or one with the same certificate names.
		key.name = "reply to " + host
		if host != "" {
			names = append(names, host)
		}
		if leaf := f.conn.leaf.Load(); leaf != nil {
			names = append(names, identities(leaf)...)
		}
		if len(names) == 0 {
			names = append(names, reply.Addr().String())
		}
	}
	if host != "" && s.cfg.SentBy != nil {
		for _, a := range s.cfg.SentBy(host, reply.Port(), f.ep.cfg.Proto) {
			if a != reply && len(to) < 4 {
				to = append(to, a)
			}
		}
	}
	return s.get(key, to, names)
}

// get returns the connection under a key, or starts making one to the first of the addresses that accepts it.
func (s *Stack) get(key connKey, to []netip.AddrPort, names []string) (*conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.byKey[key]; c != nil {
		if c.alive() {
			return c, nil
		}
		delete(s.byKey, key)
	}
	if key.name != "" || key.ep.cfg.Proto == TCP {
		// A connection that the far side opened and offered for reuse.
		alias := key
		alias.name = aliasName
		if c := s.byKey[alias]; c != nil && c.alive() {
			for _, n := range names {
				if c.fits(key.identity, n) {
					return c, nil
				}
			}
			s.m.ReuseRefused.Add(1)
		}
	}
	if s.closed {
		return nil, ErrClosed
	}
	if len(s.conns) >= s.cfg.MaxConns {
		s.m.ConnsRefused.Add(1)
		return nil, ErrTooManyConnections
	}
	c := &conn{stack: s, ep: key.ep, remote: to[0], identity: key.identity, keys: []connKey{key}}
	s.conns[c] = struct{}{}
	s.byKey[key] = c
	s.wg.Go(func() { c.dial(to, names) })
	return c, nil
}

// aliasName is the name in a connKey of a connection opened by the far side; it is not a host name.
const aliasName = "\x00alias"

// alias makes a connection that the far side opened usable for requests to port of its address (RFC 5923).
func (s *Stack) alias(c *conn, port uint16) {
	key := connKey{ep: c.ep, remote: netip.AddrPortFrom(c.remote.Addr(), port), identity: c.identity, name: aliasName}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byKey[key] == c {
		return
	}
	if len(c.keys) >= 4 {
		return // bounds the table space of a far side that claims many ports
	}
	// The newest connection wins: an older one may be half-open.
	c.keys = append(c.keys, key)
	s.byKey[key] = c
}

// admit registers an incoming connection, or refuses it.
func (s *Stack) admit(c *conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := c.remote.Addr()
	switch {
	case s.closed:
		return ErrClosed
	case len(s.conns) >= s.cfg.MaxConns:
		return ErrTooManyConnections
	case s.perSource[a] >= s.cfg.MaxConnsPerSource:
		s.m.ConnsPerSource.Add(1)
		return fmt.Errorf("%w from this source: %d are open", ErrTooManyConnections, s.perSource[a])
	}
	s.perSource[a]++
	s.conns[c] = struct{}{}
	return nil
}

// remove removes a closed connection from the tables.
func (s *Stack) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	for _, k := range c.keys {
		if s.byKey[k] == c {
			delete(s.byKey, k)
		}
	}
	if c.inbound {
		a := c.remote.Addr()
		if s.perSource[a]--; s.perSource[a] <= 0 {
			delete(s.perSource, a)
		}
	}
}

// deliver passes a message to the handler and recovers from its panics.
func (s *Stack) deliver(m *sip.Message, p *sip.Problem, f Flow, size int) {
	defer s.recovered("panic while handling a SIP message", f)
	s.m.received(f.ep.cfg.Proto, size)
	s.handler.Receive(m, p, f)
}

// unreachable passes an ICMP error to the handler and recovers from its panics.
func (s *Stack) unreachable(sent []byte, to netip.AddrPort, err error) {
	defer s.recovered("panic while handling an ICMP error", to)
	s.m.Unreachable.Add(1)
	s.handler.Unreachable(string(sent), to, err)
}

// recovered recovers from a panic of the handler, counts and logs it.
func (s *Stack) recovered(what string, flow fmt.Stringer) {
	if r := recover(); r != nil {
		s.m.Panics.Add(1)
		s.log.Error(what, "flow", flow.String(), "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
	}
}

func localIP(a net.Addr) netip.AddrPort {
	ap := a.(interface{ AddrPort() netip.AddrPort }).AddrPort() // a TCP or UDP address
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
