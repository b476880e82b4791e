package transport

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"

	"github.com/tandemgw/tandem/internal/calls/sip"
)

// Handler handles what a [Stack] receives.
type Handler interface {
	// Receive gets one message, on the goroutine that read it. Messages of one flow are passed one at a time and in the
	// order of arrival, so Receive must not block: while it runs, nothing else is read from that flow. p is not nil if
	// [sip.Parse] rejects the message; m then holds what could be read, enough for p.Answer.
	Receive(m *sip.Message, p *sip.Problem, f Flow)
	// Unreachable gets the beginning of a datagram for which an ICMP error was received: its destination cannot be
	// reached (RFC 3261 §18.4). It runs on the goroutine that reads the socket and must not block.
	Unreachable(sent string, to netip.AddrPort, err error)
}

// Waiter is called when a request accepted by [Stack.Send] is lost.
type Waiter interface {
	// SendFailed is called at most once for each Send, on a goroutine other than the one that called Send, when the
	// connection could not be made or closed before [Stack.Forget]. The error is a *[ConnError]. It must not block.
	SendFailed(err error)
}

// ConnError reports that a connection could not be made, or was lost.
type ConnError struct {
	Proto  Proto
	Remote netip.AddrPort
	// Established reports whether the connection had been open: the last messages may or may not have arrived.
	Established bool
	Err         error
}

// Error implements error.
func (e *ConnError) Error() string {
	what := "connect to"
	if e.Established {
		what = "connection with"
	}
	return fmt.Sprintf("%s %s over %s: %v", what, e.Remote, e.Proto, e.Err)
}

// Unwrap returns the cause.
func (e *ConnError) Unwrap() error { return e.Err }

// Errors of Send and Reply, wrapped with details.
var (
	// ErrClosed is returned when the stack or the connection is closed.
	ErrClosed = errors.New("closed")
	// ErrTooManyConnections is returned when a bound of [Config] on connections is reached.
	ErrTooManyConnections = errors.New("too many connections")
	// ErrSlowPeer is returned when the far side does not read what is sent to it; its connection has been closed.
	ErrSlowPeer = errors.New("peer does not read what is sent to it")
	// ErrLocal is returned when the cause is on this host (the message size, a bound of ours, resources); it says
	// nothing about the far side.
	ErrLocal = errors.New("local error")
	// ErrIdle is returned when nothing was received for the idle time-out.
	ErrIdle = errors.New("idle time-out")
	// ErrNotReusable is returned when the preferred flow is closed or belongs to another identity.
	ErrNotReusable = errors.New("flow cannot be used for this target")
)

// SizeError reports that a message does not fit a UDP datagram. Send and Reply wrap it together with [ErrLocal].
type SizeError struct{ Bytes int }

// MaxUDP is the maximum payload of a UDP datagram over IPv4, in bytes (RFC 768, RFC 791).
const MaxUDP = 65507

// Error implements error.
func (e *SizeError) Error() string {
	return fmt.Sprintf("%d bytes do not fit a UDP datagram (at most %d)", e.Bytes, MaxUDP)
}

// Target says where a request goes, and from which endpoint.
type Target struct {
	// From is the endpoint to send from: it sets protocol, local address, advertised name and trust. Required.
	From *Endpoint
	// Addr is the far side's address and port. Required unless Prefer is usable.
	Addr netip.AddrPort
	// ServerName is the name the far side's TLS certificate must carry, and is sent as SNI. Empty: the address itself
	// must be in the certificate. TLS only.
	ServerName string
	// Prefer is a flow to use if it is still open, such as the one on which the dialog's requests arrived. It is used
	// only if it belongs to From, has the endpoint's identity, and its far side is verified for ServerName; otherwise
	// Addr is used.
	Prefer Flow
}

// Proto returns the protocol of the target: that of its endpoint.
func (t Target) Proto() Proto {
	if t.From == nil {
		return Unspecified
	}
	return t.From.cfg.Proto
}

// String returns the target as written in logs.
func (t Target) String() string {
	s := t.Proto().Param() + ":" + t.Addr.String()
	if t.ServerName != "" {
		s += " (" + t.ServerName + ")"
	}
	return s
}

// Flow is the path of a message: an endpoint and a remote address, and for TCP and TLS one connection. It is a value
// and may be kept for any length of time; the zero Flow is no flow.
type Flow struct {
	ep     *Endpoint
	conn   *conn
	remote netip.AddrPort
	tag    any
	// host is the Via's sent-by host if that is a name, for the last resort of RFC 3261 §18.2.2. Streams only; else
	// nil.
	host *string
	// replyPort is the port at remote's address to which a response to this flow's request goes: always over UDP,
	// otherwise if conn is closed.
	replyPort uint16
}

// flowOf returns the flow between an endpoint and an address, or of one connection.
func flowOf(ep *Endpoint, c *conn, remote netip.AddrPort, tag any) Flow {
	return Flow{ep: ep, conn: c, remote: remote, tag: tag, replyPort: remote.Port()}
}

// Endpoint returns the local endpoint.
func (f Flow) Endpoint() *Endpoint { return f.ep }

// Proto returns the protocol.
func (f Flow) Proto() Proto {
	if f.ep == nil {
		return Unspecified
	}
	return f.ep.cfg.Proto
}

// Remote returns the far side's address and port as seen here.
func (f Flow) Remote() netip.AddrPort { return f.remote }

// Tag returns what the endpoint's Accept hook returned for the source; nil on a connection that we made.
func (f Flow) Tag() any { return f.tag }

// Established reports whether the flow's connection has been made: always true for UDP.
func (f Flow) Established() bool {
	return f.ep != nil && (f.conn == nil || f.conn.state.Load() == open)
}

// PeerCertificate returns the far side's verified certificate, nil without TLS.
func (f Flow) PeerCertificate() *x509.Certificate {
	if f.conn == nil {
		return nil
	}
	return f.conn.leaf.Load()
}

// PeerIdentities returns the SIP domain identities of the far side's verified certificate (RFC 5922 §7.1), none
// without TLS.
func (f Flow) PeerIdentities() []string {
	c := f.PeerCertificate()
	if c == nil {
		return nil
	}
	return identities(c)
}

// VerifiedFor reports whether the far side presented a verified certificate with the name. It is false without TLS.
func (f Flow) VerifiedFor(name string) bool {
	c := f.PeerCertificate()
	return c != nil && certCovers(c, name)
}

// String returns the flow as written in logs.
func (f Flow) String() string {
	if f.ep == nil {
		return "no flow"
	}
	return f.Proto().Param() + ":" + f.remote.String()
}

// Detached returns an endpoint that has no sockets and belongs to no stack, for transports other than Stack, such as
// the in-memory network of package memnet. Flows and targets can name it; a Stack cannot use it.
func Detached(cfg EndpointConfig) *Endpoint {
	return &Endpoint{cfg: cfg, local: cfg.Bind, by: sentBy(cfg.Advertised, cfg.Bind, cfg.Proto)}
}

// Arrive returns the flow of a message that reached a detached endpoint from src, and stamps a request's Via as a Stack
// does.
func (e *Endpoint) Arrive(m *sip.Message, src netip.AddrPort) Flow {
	f := flowOf(e, nil, src, nil)
	if m != nil && m.IsRequest() {
		if v, ok := stampVia(m, src); ok && !v.rport && !e.cfg.Proto.Reliable() {
			f.replyPort = v.port(e.cfg.Proto)
		}
	}
	return f
}

// ReplyTo returns the address to which a response along f goes.
func (f Flow) ReplyTo() netip.AddrPort { return netip.AddrPortFrom(f.remote.Addr(), f.replyPort) }
