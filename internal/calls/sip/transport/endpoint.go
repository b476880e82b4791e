package transport

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// EndpointConfig describes one [Endpoint].
type EndpointConfig struct {
	// Name names the endpoint in logs and errors.
	Name string
	// Proto is UDP, TCP or TLS. Required.
	Proto Proto
	// Bind is the local address and port; port 0 chooses a free one. Required.
	Bind netip.AddrPort
	// Advertised is the "host" or "host:port" written in Via lines, for a far side that sees us under an address other
	// than Bind's or needs a name. Empty: Bind's. Without a port, Bind's port is added unless it is the protocol's
	// default.
	Advertised string
	// Accept reports whether a source is known. It is called for each incoming datagram and connection, before anything
	// is parsed; those it rejects are dropped without an answer, and counted. tag, for example a pointer, is returned
	// by [Flow.Tag] for every message of that flow; it must be comparable. Connections that we make have no tag: Accept
	// is not called for them. It must be fast and safe for concurrent use. Nil: all sources are known.
	Accept func(ep *Endpoint, src netip.AddrPort) (tag any, ok bool)
	// TLS is required for TLS, and only then.
	TLS *TLSConfig
	// Large is the TCP endpoint of the same peer group for requests that do not fit a datagram (RFC 3261 §18.1.1). Only
	// for UDP; nil: they are sent over UDP nevertheless.
	Large *Endpoint
	// Readers is the number of UDP sockets that share the port, each with its reader; the kernel assigns each source
	// address and port to one of them, so that order is kept. 0 means 2. Only for UDP.
	Readers int
}

// MaxDatagram is the size above which requests should not use UDP, as the path MTU is unknown (RFC 3261 §18.1.1).
const MaxDatagram = 1300

// Endpoint is one local address with one protocol. See [Stack.Listen].
type Endpoint struct {
	stack *Stack
	cfg   EndpointConfig
	local netip.AddrPort
	by    string // sent-by for Via
	udp   *udpPort
	ln    *net.TCPListener
}

func newEndpoint(s *Stack, cfg EndpointConfig) (*Endpoint, error) {
	ep := &Endpoint{stack: s, cfg: cfg}
	if !cfg.Bind.IsValid() {
		return nil, errors.New("bind address is missing")
	}
	var err error
	switch cfg.Proto {
	case UDP:
		if cfg.Large != nil && cfg.Large.cfg.Proto != TCP {
			return nil, errors.New("the endpoint for large messages must be a TCP endpoint")
		}
		if ep.udp, err = listenUDP(cfg); err != nil {
			return nil, err
		}
		ep.local = ep.udp.local
	case TLS:
		if err = cfg.TLS.check(); err != nil {
			return nil, err
		}
		fallthrough
	case TCP:
		if cfg.Large != nil {
			return nil, errors.New("only a UDP endpoint can have an endpoint for large messages")
		}
		if ep.ln, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(cfg.Bind)); err != nil {
			return nil, err
		}
		ep.local = localIP(ep.ln.Addr())
	default:
		return nil, fmt.Errorf("protocol is %s: use UDP, TCP or TLS", cfg.Proto)
	}
	ep.by = sentBy(cfg.Advertised, ep.local, cfg.Proto)
	return ep, nil
}

// sentBy returns the host and port for our Via lines.
func sentBy(advertised string, local netip.AddrPort, p Proto) string {
	if advertised == "" {
		return local.String()
	}
	if _, _, err := net.SplitHostPort(advertised); err == nil {
		return advertised
	}
	if strings.Count(advertised, ":") > 1 && advertised[0] != '[' {
		advertised = "[" + advertised + "]"
	}
	if local.Port() == p.DefaultPort() {
		return advertised
	}
	return advertised + ":" + strconv.Itoa(int(local.Port()))
}

// Proto returns the protocol.
func (e *Endpoint) Proto() Proto { return e.cfg.Proto }

// Local returns the bound address and port.
func (e *Endpoint) Local() netip.AddrPort { return e.local }

// SentBy returns the "host:port" of the endpoint's Via lines, which a Contact may use too.
func (e *Endpoint) SentBy() string { return e.by }

// Large returns the endpoint for requests that do not fit a datagram, nil if there is none.
func (e *Endpoint) Large() *Endpoint { return e.cfg.Large }

// Via returns the Via value for a request to t with this branch. It requests rport (RFC 3581 §3), and on TLS the reuse
// of the connection (RFC 5923 §5).
func (t Target) Via(branch string) string {
	params := ";rport;branch="
	if t.From.cfg.Proto == TLS {
		params = ";rport;alias;branch="
	}
	return "SIP/2.0/" + t.From.cfg.Proto.String() + " " + t.From.by + params + branch
}

func (e *Endpoint) known(src netip.AddrPort) (tag any, ok bool) {
	if e.cfg.Accept == nil {
		return nil, true
	}
	if tag, ok = e.cfg.Accept(e, src); !ok {
		e.stack.m.UnknownSource.Add(1)
	}
	return tag, ok
}

// start starts reading. The stack's mutex is held.
func (e *Endpoint) start() {
	if e.udp != nil {
		e.udp.start(e)
		return
	}
	e.stack.wg.Go(e.acceptLoop)
}

func (e *Endpoint) acceptLoop() {
	s := e.stack
	var refused time.Time // when a refusal was last logged
	for pause := time.Duration(0); ; {
		nc, err := e.ln.AcceptTCP()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// Probably out of file descriptors: wait and retry.
			s.m.AcceptErrors.Add(1)
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.log.Error("cannot accept SIP connection", "endpoint", e.cfg.Name, "err", err, "pause", pause)
			select {
			case <-time.After(pause):
				continue
			case <-s.ctx.Done():
				return
			}
		}
		pause = 0
		remote := localIP(nc.RemoteAddr())
		tag, ok := e.known(remote)
		if !ok {
			_ = nc.SetLinger(0) // reset: an unknown source gets nothing
			_ = nc.Close()
			continue
		}
		c := &conn{stack: s, ep: e, remote: remote, inbound: true, tag: tag}
		if err := s.admit(c); err != nil {
			s.m.ConnsRefused.Add(1)
			if now := time.Now(); now.Sub(refused) >= time.Second {
				refused = now // a flood must not fill the log
				s.log.Warn("SIP connection refused", "endpoint", e.cfg.Name, "source",
					remote.Addr().String(), "err", err)
			}
			_ = nc.Close()
			continue
		}
		s.wg.Go(func() { c.serve(nc) })
	}
}

func (e *Endpoint) closeSockets() {
	if e.ln != nil {
		_ = e.ln.Close()
	}
	if e.udp != nil {
		e.udp.close()
	}
}
