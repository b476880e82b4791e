// Package ua is a small SIP user agent for the simulators: it places calls, accepts calls, changes and ends them, and
// keeps every message it saw.
//
// It is a thin layer on sipgo's transports and transactions, so that our own SIP core is never tested with itself. It
// is not a telephone: it has no media beyond passing bodies on, and does only what a test tells it to, including wrong
// things (silence, lost answers, forked ringing, refusals, dropped packets).
//
// An Agent owns its sockets. A Call is one dialog, placed with Agent.Call or taken from an Incoming. A Behaviour is
// what an agent does with an incoming call, as data. A Log holds what was on the wire.
package ua

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo"
	"github.com/emiago/sipgo/sip"
)

// Config configures an agent. The zero value of every field except the addresses is usable; at least one address must
// be set.
type Config struct {
	Name string // the agent's name in User-Agent and Server; "sim" if empty

	// Addresses to listen on, host:port, port 0 for a free one; "" for none. TCP may be "udp": the same port as UDP.
	UDP, TCP, TLS string

	ServerTLS *tls.Config // needed with TLS: how to answer handshakes
	ClientTLS *tls.Config // needed to send over TLS: how to open connections

	// Resolve turns the host and port of a URI into a socket address, in place of DNS. It is not called for IP
	// addresses. Without it only IP addresses can be reached.
	Resolve func(host string, port int) (string, error)

	// ContactHost is the host in Contact if a call names none; the listening IP address if empty.
	ContactHost string

	// Invite handles a new call in its own goroutine. If it returns without a final response, the caller gets none.
	// Without Invite calls are refused with 480.
	Invite func(ctx context.Context, in *Incoming)

	// Request handles other requests outside a dialog. Without it OPTIONS gets 200 and everything else 405.
	Request func(req *Message) Reply

	// InDialog handles requests inside a dialog except ACK, BYE and CANCEL. A zero Reply means the default: 200, with
	// the agent's session description for a re-INVITE.
	InDialog func(c *Call, req *Message) Reply

	Loss *Loss // packets dropped at the UDP socket; nil for none

	Keep int          // number of messages the Log keeps; 20,000 if 0
	Log  *slog.Logger // the SIP stack's own log; discarded if nil
}

// Loss drops UDP packets, independently in each direction. The same seed drops the same packets of the same sequence.
type Loss struct {
	In, Out float64 // share dropped, 0 to 1
	Seed    uint64
}

// Reply is an answer to a request.
type Reply struct {
	Status  int
	Reason  string
	Headers []Header
	Body    string
}

// Agent is a running user agent. All methods are safe for concurrent use.
type Agent struct {
	cfg Config
	log *Log

	ua     *sipgo.UserAgent
	client *sipgo.Client
	server *sipgo.Server

	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup // listeners, handlers and calls in progress

	closers []io.Closer
	addrs   map[string]net.Addr
	twin    net.Listener // TCP on UDP's port
	packets *packetConn  // the UDP socket, if there is one

	mu     sync.Mutex // guards the fields below
	calls  map[string]*Call
	conns  map[string]*acceptedConn
	frames map[string]*framer
	closed bool
}

// global sets sipgo's package-wide settings. They are the same for every agent, so setting them once is safe.
var global sync.Once

// New binds the agent's sockets and starts serving. Close must be called.
func New(cfg Config) (*Agent, error) {
	if cfg.Name == "" {
		cfg.Name = "sim"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	global.Do(func() {
		// sipgo refuses to send packets over 1300 bytes; service traffic is larger (direct-routing-sip §5).
		sip.UDPMTUSize = 65_535
		sip.SetDefaultLogger(slog.New(slog.DiscardHandler))
	})
	a := &Agent{cfg: cfg, log: newLog(cfg.Keep), calls: map[string]*Call{}, conns: map[string]*acceptedConn{},
		frames: map[string]*framer{}, addrs: map[string]net.Addr{}}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	client := cfg.ClientTLS
	if client == nil {
		client = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	u, err := sipgo.NewUA(
		sipgo.WithUserAgent(cfg.Name),
		sipgo.WithUserAgenTLSConfig(client),
		sipgo.WithUserAgentTransportLayerOptions(sip.WithTransportLayerLogger(cfg.Log),
			sip.WithTransportLayerReadFilter(a.capture)),
		sipgo.WithUserAgentTransactionLayerOptions(sip.WithTransactionLayerLogger(cfg.Log)),
	)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", cfg.Name, err)
	}
	a.ua = u
	if a.client, err = sipgo.NewClient(u, sipgo.WithClientLogger(cfg.Log)); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	if a.server, err = sipgo.NewServer(u, sipgo.WithServerLogger(cfg.Log)); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	a.server.OnNoRoute(a.onRequest)
	a.server.OnInvite(a.onInvite)
	a.server.OnAck(a.onAck)
	a.server.OnBye(a.onBye)
	if err := a.listen(); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

// Run blocks until ctx ends, then closes the agent.
func (a *Agent) Run(ctx context.Context) error {
	<-ctx.Done()
	return a.Close()
}

// Close drops every call without sending BYE, closes all sockets and waits until all goroutines of the agent have
// ended. It may be called more than once.
func (a *Agent) Close() error {
	a.mu.Lock()
	done := a.closed
	a.closed = true
	a.mu.Unlock()
	if done {
		return nil
	}
	a.cancel()
	var err error
	for _, c := range a.closers {
		if e := c.Close(); e != nil && !errors.Is(e, net.ErrClosed) {
			err = errors.Join(err, e)
		}
	}
	a.DropConnections()
	// The stack's own connections do not matter: the far side sees the sockets close.
	_ = a.ua.Close()
	a.work.Wait()
	return err
}

// Log returns what the agent sent and received.
func (a *Agent) Log() *Log { return a.log }

// Addr returns the address on which the agent listens for udp, tcp or tls; "" if it does not.
func (a *Agent) Addr(network string) string {
	if x, ok := a.addrs[network]; ok {
		return x.String()
	}
	return ""
}

// Calls returns the number of dialogs that are up or being set up.
func (a *Agent) Calls() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.calls)
}

// Dialog returns the call with that Call-ID that is up or being set up, or nil.
func (a *Agent) Dialog(callID string) *Call {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.calls {
		if c.id == callID {
			return c
		}
	}
	return nil
}

// PeerCertificate returns the certificate that the client at the remote address of an incoming TLS connection
// presented, or nil.
func (a *Agent) PeerCertificate(remote string) *x509.Certificate {
	a.mu.Lock()
	c := a.conns[remote]
	a.mu.Unlock()
	if c == nil {
		return nil
	}
	t, ok := c.Conn.(*tls.Conn)
	if !ok {
		return nil
	}
	if s := t.ConnectionState(); len(s.PeerCertificates) > 0 {
		return s.PeerCertificates[0]
	}
	return nil
}

// Thrown returns the number of UDP packets dropped because of Config.Loss.
func (a *Agent) Thrown() int {
	if a.packets == nil {
		return 0
	}
	a.packets.mu.Lock()
	defer a.packets.mu.Unlock()
	return a.packets.thrown
}

// DropConnections closes every incoming TCP and TLS connection.
func (a *Agent) DropConnections() {
	a.mu.Lock()
	conns := make([]*acceptedConn, 0, len(a.conns))
	for _, c := range a.conns {
		conns = append(conns, c)
	}
	a.mu.Unlock()
	for _, c := range conns {
		_ = c.Close() // it may have been closed in the meantime
	}
}

// DropConnection closes the incoming connection from the remote address.
func (a *Agent) DropConnection(remote string) {
	a.mu.Lock()
	c := a.conns[remote]
	a.mu.Unlock()
	if c != nil {
		_ = c.Close() // it may have been closed in the meantime
	}
}

func (a *Agent) listen() error {
	if a.cfg.UDP == "" && a.cfg.TCP == "" && a.cfg.TLS == "" {
		return fmt.Errorf("start %s: no address to listen on", a.cfg.Name)
	}
	// All sockets are bound before the first of them is served: from then on several goroutines read the addresses.
	var serve []func()
	if a.cfg.UDP != "" {
		c, err := a.packetSocket()
		if err != nil {
			return fmt.Errorf("start %s: %w", a.cfg.Name, err)
		}
		p := &packetConn{PacketConn: c, ready: make(chan struct{})}
		if l := a.cfg.Loss; l != nil {
			p.in, p.out = l.In, l.Out
			p.rand = rand.New(rand.NewPCG(l.Seed, 1))
		}
		a.closers = append(a.closers, p)
		a.packets = p
		a.addrs["udp"] = c.LocalAddr()
		serve = append(serve, func() {
			a.work.Go(func() { _ = a.server.ServeUDP(p) }) // ends when the socket is closed
			<-p.ready
		})
	}
	for _, network := range []string{"tcp", "tls"} {
		addr := map[string]string{"tcp": a.cfg.TCP, "tls": a.cfg.TLS}[network]
		if addr == "" {
			continue
		}
		if network == "tls" && a.cfg.ServerTLS == nil {
			return fmt.Errorf("start %s: TLS needs a certificate", a.cfg.Name)
		}
		inner, err := a.streamSocket(addr)
		if err != nil {
			return fmt.Errorf("start %s: %w", a.cfg.Name, err)
		}
		l := &listener{Listener: inner, agent: a, ready: make(chan struct{})}
		a.closers = append(a.closers, l)
		a.addrs[network] = inner.Addr()
		run := a.server.ServeTCP
		if network == "tls" {
			l.Listener = tls.NewListener(inner, a.cfg.ServerTLS)
			run = a.server.ServeTLS
		}
		serve = append(serve, func() {
			a.work.Go(func() { _ = run(l) }) // ends when the socket is closed
			<-l.ready
		})
	}
	for _, f := range serve {
		f()
	}
	return nil
}

// packetSocket binds UDP. With TCP on the same port it binds both, and retries if the free UDP port is in use for TCP.
func (a *Agent) packetSocket() (net.PacketConn, error) {
	for try := 0; ; try++ {
		c, err := net.ListenPacket("udp", a.cfg.UDP)
		if err != nil || a.cfg.TCP != "udp" {
			return c, err
		}
		l, err := net.Listen("tcp", c.LocalAddr().String())
		if err == nil {
			a.twin = l
			return c, nil
		}
		if e := c.Close(); e != nil || try == 20 {
			return nil, errors.Join(err, e)
		}
	}
}

func (a *Agent) streamSocket(addr string) (net.Listener, error) {
	if addr == "udp" && a.twin != nil {
		return a.twin, nil
	}
	return net.Listen("tcp", addr)
}

// capture records all received bytes before the stack handles them.
func (a *Agent) capture(info sip.TransportReadProps, data []byte) ([]byte, error) {
	network := strings.ToLower(info.Transport)
	remote := info.RemoteAddr.String()
	record := func(raw string) {
		m := ParseMessage(raw)
		m.At, m.Transport, m.Remote = time.Now(), network, remote
		a.log.add(m)
	}
	if network == "udp" {
		if len(data) > 4 {
			record(string(data))
		}
		return data, nil
	}
	a.mu.Lock()
	f := a.frames[network+remote]
	if f == nil {
		f = &framer{}
		a.frames[network+remote] = f
	}
	a.mu.Unlock()
	f.push(data, record) // one goroutine reads each connection
	return data, nil
}

func (a *Agent) sent(m sip.Message, network, remote string) {
	x := ParseMessage(m.String())
	x.At, x.Sent, x.Transport, x.Remote = time.Now(), true, strings.ToLower(network), remote
	a.log.add(x)
}

// address resolves a URI to transport and socket address.
func (a *Agent) address(uri Address, transport string) (string, string, error) {
	if t, ok := uri.Param("transport"); ok {
		transport = strings.ToLower(t)
	}
	port := uri.Port
	if port == 0 {
		port = sip.DefaultPort(transport)
	}
	if net.ParseIP(strings.Trim(uri.Host, "[]")) != nil {
		return transport, net.JoinHostPort(strings.Trim(uri.Host, "[]"), strconv.Itoa(port)), nil
	}
	if a.cfg.Resolve == nil {
		return "", "", fmt.Errorf("%s cannot resolve %q", a.cfg.Name, uri.Host)
	}
	addr, err := a.cfg.Resolve(uri.Host, uri.Port)
	if err != nil {
		return "", "", fmt.Errorf("%s cannot resolve %q: %w", a.cfg.Name, uri.Host, err)
	}
	return transport, addr, nil
}

// contact returns the Contact value for a transport.
func (a *Agent) contact(transport, user string) string {
	host, port, _ := net.SplitHostPort(a.Addr(transport)) // our own address always splits
	if a.cfg.ContactHost != "" {
		host = a.cfg.ContactHost
	}
	if user != "" {
		user += "@"
	}
	return fmt.Sprintf("<sip:%s%s:%s;transport=%s>", user, host, port, transport)
}

// via returns a Via value with a new branch.
func (a *Agent) via(transport string) string {
	return fmt.Sprintf("SIP/2.0/%s %s;branch=%s;rport", strings.ToUpper(transport), a.Addr(transport),
		sip.GenerateBranchN(16))
}

// build makes a request for the stack from its text.
func (a *Agent) build(text, transport, dest string) (*sip.Request, error) {
	m, err := sip.ParseMessage([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("build request: %w\n%s", err, text)
	}
	req, ok := m.(*sip.Request)
	if !ok {
		return nil, fmt.Errorf("build request: not a request:\n%s", text)
	}
	req.SetTransport(strings.ToUpper(transport))
	req.SetDestination(dest)
	if transport == "udp" {
		// Send from the listening socket, so that responses and the far side's source check use the same address.
		if u, ok := a.addrs["udp"].(*net.UDPAddr); ok {
			req.Laddr = sip.Addr{IP: u.IP, Port: u.Port}
		}
	}
	return req, nil
}

func asIs(*sipgo.Client, *sip.Request) error { return nil }

// Request is a request outside any dialog, and the INVITE that starts one.
type Request struct {
	Method      string // ignored by Call
	Transport   string // udp, tcp or tls
	Destination string // socket address to send to
	URI         string // Request-URI
	From, To    string // header values without tag
	Contact     string // header value; the agent's own if empty, none if "-"
	// Headers are added in order. One named Via, Max-Forwards, Call-ID or CSeq replaces the usual line of that name.
	Headers     []Header
	ContentType string // application/sdp if empty and there is a body
	Body        string
}

// text writes a request. r.Headers override the usual lines.
func (r Request) text(a *Agent, method, tag string) string {
	usual := []Header{
		{"Via", a.via(r.Transport)},
		{"Max-Forwards", "70"},
		{"From", r.From + ";tag=" + tag},
		{"To", r.To},
		{"Call-ID", sip.GenerateTagN(24) + "@" + a.cfg.Name},
		{"CSeq", "1 " + method},
	}
	switch r.Contact {
	case "-":
	case "":
		usual = append(usual, Header{"Contact", a.contact(r.Transport, ParseAddress(r.From).User)})
	default:
		usual = append(usual, Header{"Contact", r.Contact})
	}
	usual = append(usual, Header{"User-Agent", a.cfg.Name})
	return compose(method+" "+r.URI+" SIP/2.0", usual, r.Headers, r.ContentType, r.Body)
}

func compose(start string, usual, extra []Header, contentType, body string) string {
	var b strings.Builder
	b.WriteString(start + "\r\n")
	replaced := map[string]bool{}
	for _, h := range extra {
		switch strings.ToLower(h.Name) {
		case "via", "max-forwards", "call-id", "cseq":
			replaced[strings.ToLower(h.Name)] = true
		}
	}
	for _, h := range usual {
		if !replaced[strings.ToLower(h.Name)] {
			b.WriteString(h.Name + ": " + h.Value + "\r\n")
		}
	}
	for _, h := range extra {
		b.WriteString(h.Name + ": " + h.Value + "\r\n")
	}
	if body != "" {
		if contentType == "" {
			contentType = "application/sdp"
		}
		b.WriteString("Content-Type: " + contentType + "\r\n")
	}
	b.WriteString("Content-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body)
	return b.String()
}

// Do sends a request outside any dialog and returns its final response. It is not for ACK, CANCEL and INVITE.
func (a *Agent) Do(ctx context.Context, r Request) (*Message, error) {
	if r.Transport == "" {
		r.Transport = "udp"
	}
	req, err := a.build(r.text(a, r.Method, sip.GenerateTagN(10)), r.Transport, r.Destination)
	if err != nil {
		return nil, err
	}
	return a.do(ctx, req, r.Transport, r.Destination)
}

func (a *Agent) do(ctx context.Context, req *sip.Request, transport, dest string) (*Message, error) {
	if err := a.begin(); err != nil {
		return nil, err
	}
	defer a.work.Done()
	a.sent(req, transport, dest)
	tx, err := a.client.TransactionRequest(ctx, req, asIs)
	if err != nil {
		return nil, fmt.Errorf("%s: send %s to %s: %w", a.cfg.Name, req.Method, dest, err)
	}
	defer tx.Terminate()
	m, err := a.final(ctx, tx)
	if err != nil {
		return nil, fmt.Errorf("%s: %s to %s: %w", a.cfg.Name, req.Method, dest, err)
	}
	return m, nil
}

// final returns the final response of a transaction, and an error if there is none.
func (a *Agent) final(ctx context.Context, tx sip.ClientTransaction) (*Message, error) {
	for {
		select {
		case res := <-tx.Responses():
			if !res.IsProvisional() {
				return ParseMessage(res.String()), nil
			}
		case <-tx.Done():
			return nil, cause(tx)
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-a.ctx.Done():
			return nil, ErrClosed
		}
	}
}

// cause returns why a transaction ended without a final response. It is never nil: sipgo closes Done before it stores
// the error of a transaction that is terminated.
func cause(tx sip.ClientTransaction) error {
	if err := tx.Err(); err != nil {
		return err
	}
	return sip.ErrTransactionTerminated
}

// ErrClosed is returned for calls and requests whose agent is closed.
var ErrClosed = errors.New("user agent closed")

// begin adds one to a.work, unless the agent is closed.
func (a *Agent) begin() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return ErrClosed
	}
	a.work.Add(1)
	return nil
}

// packetConn is the UDP socket, with loss.
type packetConn struct {
	net.PacketConn
	ready chan struct{} // closed by the first read: the stack serves from now on
	once  sync.Once

	mu      sync.Mutex // guards the fields below
	in, out float64
	rand    *rand.Rand
	thrown  int
}

func (p *packetConn) drop(share float64) bool {
	if p.rand == nil || share <= 0 {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rand.Float64() >= share {
		return false
	}
	p.thrown++
	return true
}

func (p *packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	p.once.Do(func() { close(p.ready) })
	for {
		n, addr, err := p.PacketConn.ReadFrom(b)
		if err != nil || !p.drop(p.in) {
			return n, addr, err
		}
	}
}

func (p *packetConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	if p.drop(p.out) {
		return len(b), nil
	}
	return p.PacketConn.WriteTo(b, addr)
}

// listener keeps track of the connections it accepts, so that certificates can be checked and connections closed.
type listener struct {
	net.Listener
	agent *Agent
	ready chan struct{}
	once  sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	l.once.Do(func() { close(l.ready) })
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	x := &acceptedConn{Conn: c, agent: l.agent}
	a := l.agent
	a.mu.Lock()
	closed := a.closed
	if !closed {
		a.conns[c.RemoteAddr().String()] = x
	}
	a.mu.Unlock()
	if closed {
		_ = c.Close()
		return nil, net.ErrClosed
	}
	return x, nil
}

type acceptedConn struct {
	net.Conn
	agent *Agent
}

func (c *acceptedConn) Close() error {
	remote := c.RemoteAddr().String()
	c.agent.mu.Lock()
	if c.agent.conns[remote] == c {
		delete(c.agent.conns, remote)
		delete(c.agent.frames, "tcp"+remote)
		delete(c.agent.frames, "tls"+remote)
	}
	c.agent.mu.Unlock()
	return c.Conn.Close()
}
