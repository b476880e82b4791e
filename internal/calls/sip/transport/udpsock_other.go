//go:build !linux

package transport

import (
	"errors"
	"net"
	"net/netip"
)

// On other systems each port has one socket of the standard library.
const reusePort = false

type udpSock struct {
	c     *net.UDPConn
	local netip.AddrPort
}

func openUDP(bind netip.AddrPort, _ bool) (*udpSock, error) {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(bind))
	if err != nil {
		return nil, err
	}
	return &udpSock{c: c, local: localIP(c.LocalAddr())}, nil
}

func (s *udpSock) send(b []byte, to netip.AddrPort) error {
	_, err := s.c.WriteToUDPAddrPort(b, to)
	if errors.Is(err, net.ErrClosed) {
		return ErrClosed
	}
	return err
}

func (s *udpSock) read(f func(b []byte, src netip.AddrPort), _ func([]byte, netip.AddrPort, error), failed func()) {
	buf := make([]byte, 65535)
	for {
		n, src, err := s.c.ReadFromUDPAddrPort(buf)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			failed()
		default:
			f(buf[:n], netip.AddrPortFrom(src.Addr().Unmap(), src.Port()))
		}
	}
}
