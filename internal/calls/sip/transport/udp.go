package transport

import (
	"cmp"
	"errors"
	"net/netip"
	"syscall"

	"github.com/tandemgw/tandem/internal/calls/sip"
)

// udpPort is one UDP address: one or more sockets that share it.
type udpPort struct {
	local netip.AddrPort
	socks []*udpSock
}

func listenUDP(cfg EndpointConfig) (*udpPort, error) {
	n := cmp.Or(cfg.Readers, 2)
	if !reusePort {
		n = 1
	}
	// Share the port only among our own sockets: another program that shared it would get some of our messages. So test
	// first whether the port is free for a socket that does not share.
	first, err := openUDP(cfg.Bind, false)
	if err != nil {
		return nil, err
	}
	u := &udpPort{local: first.local, socks: []*udpSock{first}}
	if n > 1 {
		first.close()
		u.socks = nil
		for range n {
			s, err := openUDP(u.local, true)
			if err != nil {
				u.close()
				return nil, err
			}
			u.socks = append(u.socks, s)
		}
	}
	for _, s := range u.socks {
		_ = s.c.SetReadBuffer(bufferBytes)
		_ = s.c.SetWriteBuffer(bufferBytes)
	}
	return u, nil
}

// bufferBytes is the requested size of the sockets' buffers; the kernel may grant less (net.core.rmem_max).
const bufferBytes = 4 << 20

func (s *udpSock) close() { _ = s.c.Close() }

func (u *udpPort) close() {
	for _, s := range u.socks {
		s.close()
	}
}

// send writes one datagram. All datagrams to one address go through one socket, so that their order is kept.
func (u *udpPort) send(b []byte, to netip.AddrPort) error {
	if !to.IsValid() || to.Port() == 0 {
		return errors.New("no address to send to")
	}
	if len(b) > MaxUDP {
		return &SizeError{len(b)}
	}
	err := u.socks[int(to.Port())%len(u.socks)].send(b, to)
	if errors.Is(err, syscall.EMSGSIZE) {
		return &SizeError{len(b)}
	}
	return err
}

func (u *udpPort) start(ep *Endpoint) {
	for _, s := range u.socks {
		ep.stack.wg.Go(func() {
			s.read(func(b []byte, src netip.AddrPort) { datagram(ep, b, src) }, ep.stack.unreachable,
				func() { ep.stack.m.ReadErrors.Add(1) })
		})
	}
}

// datagram handles one datagram from a source.
func datagram(ep *Endpoint, b []byte, src netip.AddrPort) {
	s := ep.stack
	tag, ok := ep.known(src)
	if !ok {
		return
	}
	if blank(b) {
		s.m.KeepAlives.Add(1)
		return
	}
	m, p := sip.Parse(string(b), s.cfg.Limits)
	flow := flowOf(ep, nil, src, tag)
	if m.IsRequest() {
		if v, ok := stampVia(m, src); ok && !v.rport {
			// RFC 3261 §18.2.2: to the source address, at the port of sent-by. A maddr is ignored: it would let any
			// peer direct our answers to a third party.
			flow.replyPort = v.port(UDP)
		}
	}
	s.deliver(m, p, flow, len(b))
}

// blank reports whether a datagram is a keep-alive, which consists of line ends or zeros only.
func blank(b []byte) bool {
	for _, c := range b {
		if c != '\r' && c != '\n' && c != 0 {
			return false
		}
	}
	return true
}
