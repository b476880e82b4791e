package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"

	"golang.org/x/net/ipv4"

	"github.com/tandemgw/tandem/internal/calls/sip"
)

// udpPort is one UDP address: one or more sockets that share it.
type udpPort struct {
	local netip.AddrPort
	socks []*net.UDPConn
	down  atomic.Bool
}

func listenUDP(cfg EndpointConfig) (*udpPort, error) {
	n := cfg.Readers
	if n <= 0 {
		n = 2
	}
	if n == 1 || !reusePort {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(cfg.Bind))
		if err != nil {
			return nil, err
		}
		u := &udpPort{local: localIP(c.LocalAddr()), socks: []*net.UDPConn{c}}
		return u, u.tune(cfg)
	}
	// Sharing must be with ourselves only: another program that shares the port too would take half of our messages. So find out
	// first whether it is free for one that does not share.
	probe, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(cfg.Bind))
	if err != nil {
		return nil, err
	}
	bind := localIP(probe.LocalAddr())
	_ = probe.Close()
	u := &udpPort{local: bind}
	lc := net.ListenConfig{Control: shareport}
	for range n {
		pc, err := lc.ListenPacket(context.Background(), "udp", bind.String())
		if err != nil {
			u.close()
			return nil, err
		}
		u.socks = append(u.socks, pc.(*net.UDPConn))
	}
	return u, u.tune(cfg)
}

func (u *udpPort) tune(cfg EndpointConfig) error {
	size := cfg.BufferBytes
	if size <= 0 {
		size = 4 << 20
	}
	for _, c := range u.socks {
		if err := c.SetReadBuffer(size); err != nil {
			u.close()
			return fmt.Errorf("set receive buffer: %w", err)
		}
		_ = c.SetWriteBuffer(size) // a smaller one only means that sending waits a little sooner
	}
	return nil
}

func (u *udpPort) close() {
	u.down.Store(true)
	for _, c := range u.socks {
		_ = c.Close()
	}
}

// send writes one datagram. All that goes to one address goes through one socket, so that order holds on the way out too.
func (u *udpPort) send(b []byte, to netip.AddrPort) error {
	if !to.IsValid() || to.Port() == 0 {
		return errors.New("no address to send to")
	}
	if len(b) > 65507 {
		return fmt.Errorf("%d bytes: %w", len(b), ErrTooLarge)
	}
	if u.down.Load() {
		return ErrClosed
	}
	c := u.socks[int(to.Port())%len(u.socks)]
	_, err := c.WriteToUDPAddrPort(b, to)
	return err
}

func (u *udpPort) start(ep *Endpoint) {
	for _, c := range u.socks {
		ep.stack.wg.Go(func() { u.read(ep, c) })
	}
}

// batch is how many datagrams one system call may bring.
const batch = 16

func (u *udpPort) read(ep *Endpoint, c *net.UDPConn) {
	s := ep.stack
	pc := ipv4.NewPacketConn(c)
	msgs := make([]ipv4.Message, batch)
	for i := range msgs {
		msgs[i].Buffers = [][]byte{make([]byte, 65535)}
	}
	for {
		n, err := pc.ReadBatch(msgs, 0)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			s.m.ReadErrors.Add(1) // an ICMP error of an earlier send, say
			continue
		}
		for i := range msgs[:n] {
			m := &msgs[i]
			src, ok := m.Addr.(*net.UDPAddr)
			if !ok {
				continue
			}
			ap := src.AddrPort()
			u.datagram(ep, m.Buffers[0][:m.N], netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()))
		}
	}
}

// datagram handles one datagram from a source.
func (u *udpPort) datagram(ep *Endpoint, b []byte, src netip.AddrPort) {
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
	flow := Flow{ep: ep, remote: src, reply: src, tag: tag}
	if m != nil && m.IsRequest() {
		if v, ok := stampVia(m, src); ok && !v.rport {
			// RFC 3261 §18.2.2: to the source address, at the port of sent-by. A maddr is not followed: it would let any peer
			// have our answers sent to a third party.
			flow.reply = netip.AddrPortFrom(src.Addr(), v.port(UDP))
		}
	}
	s.deliver(m, p, flow, len(b))
}

// blank tells keep-alives, which hold nothing but line ends or zeros, from messages.
func blank(b []byte) bool {
	for _, c := range b {
		if c != '\r' && c != '\n' && c != 0 {
			return false
		}
	}
	return true
}
