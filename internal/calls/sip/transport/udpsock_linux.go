package transport

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const reusePort = true

// batch is the maximum number of datagrams read by one system call.
const batch = 16

// udpSock is one UDP socket. It waits in the runtime's poller and reads with recvmmsg. (A reader that blocked in the
// system call, on its own thread, took more than twice the processor time at a thousand calls per second.) The system
// calls never block, so they are raw: the scheduler is not informed of them. Informing it wakes the runtime's monitor
// thread whenever a message arrives while the process is idle, which took a quarter of the processor time of a call.
type udpSock struct {
	c     *net.UDPConn
	raw   syscall.RawConn
	local netip.AddrPort
}

// openUDP opens a socket; share lets other sockets of ours use the same port.
func openUDP(bind netip.AddrPort, share bool) (*udpSock, error) {
	var lc net.ListenConfig
	if share {
		lc.Control = func(_, _ string, c syscall.RawConn) error {
			var err error
			if cerr := c.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			}); cerr != nil {
				return cerr
			}
			return err
		}
	}
	network := "udp4"
	if bind.Addr().Is6() && !bind.Addr().Is4In6() {
		network = "udp6"
	}
	pc, err := lc.ListenPacket(context.Background(), network, bind.String())
	if err != nil {
		return nil, err
	}
	s := &udpSock{c: pc.(*net.UDPConn), local: localIP(pc.LocalAddr())}
	if s.raw, err = s.c.SyscallConn(); err == nil {
		level, name := unix.SOL_IP, unix.IP_RECVERR
		if network == "udp6" {
			level, name = unix.SOL_IPV6, unix.IPV6_RECVERR
		}
		cerr := s.raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, name, 1) })
		err = errors.Join(cerr, err)
	}
	if err != nil {
		_ = pc.Close()
		return nil, err
	}
	return s, nil
}

// send writes one datagram. It blocks only if the socket's send buffer is full.
func (s *udpSock) send(b []byte, to netip.AddrPort) (err error) {
	for range 64 {
		if err = s.write(b, to); err == nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return ErrClosed
		}
		// With IP_RECVERR the ICMP error of an earlier datagram to any address fails the next system call, and only
		// that one. While the error queue holds more of them, each that is read from it fails another one.
		_ = s.c.SetReadDeadline(past) // the reader, which holds no locks, reads the error queue
	}
	return err
}

// outgoing is a datagram on its way to the kernel.
type outgoing struct {
	data     []byte
	name     unix.RawSockaddrInet6 // large enough for both families
	nameSize uintptr
	errno    syscall.Errno
	sendto   func(fd uintptr) bool // for RawConn.Write
}

var outgoings = sync.Pool{New: func() any {
	d := new(outgoing)
	d.sendto = func(fd uintptr) bool {
		for {
			_, _, d.errno = unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(d.data))),
				uintptr(len(d.data)), unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&d.name)), d.nameSize)
			if d.errno != unix.EINTR {
				return d.errno != unix.EAGAIN // else wait in the poller
			}
		}
	}
	return d
}}

// write sends one datagram as WriteToUDPAddrPort does, by a raw system call.
func (s *udpSock) write(b []byte, to netip.AddrPort) error {
	if to.Addr().Zone() != "" {
		_, err := s.c.WriteToUDPAddrPort(b, to) // it resolves interface names
		return err
	}
	d := outgoings.Get().(*outgoing)
	d.data = b
	d.nameSize = setSockaddr(&d.name, to)
	err := s.raw.Write(d.sendto)
	if err == nil && d.errno != 0 {
		err = d.errno
	}
	d.data = nil
	outgoings.Put(d)
	return err
}

// past is a deadline that wakes the reader.
var past = time.Unix(1, 0)

// icmp reads the socket's error queue (ip(7), IP_RECVERR). For each ICMP error it calls f with the datagram of ours
// that the error quotes and its destination. It returns the number of errors that were queued.
func (s *udpSock) icmp(f func(sent []byte, to netip.AddrPort, err error)) (n int) {
	buf, oob := make([]byte, 1500), make([]byte, 512)
	for ; ; n++ {
		var size, oobSize int
		var to unix.Sockaddr
		err := net.ErrClosed
		_ = s.raw.Control(func(fd uintptr) {
			size, oobSize, _, to, err = unix.Recvmsg(int(fd), buf, oob, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		})
		if err != nil {
			return n
		}
		msgs, _ := unix.ParseSocketControlMessage(oob[:oobSize])
		for _, m := range msgs {
			if len(m.Data) < int(unsafe.Sizeof(unix.SockExtendedErr{})) {
				continue
			}
			e := (*unix.SockExtendedErr)(unsafe.Pointer(&m.Data[0]))
			if !unreachable(e) {
				continue
			}
			switch a := to.(type) {
			case *unix.SockaddrInet4:
				f(buf[:size], netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)), syscall.Errno(e.Errno))
			case *unix.SockaddrInet6:
				f(buf[:size], netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)), syscall.Errno(e.Errno))
			}
		}
	}
}

// unreachable reports whether an error is an ICMP error that RFC 3261 §18.4 calls fatal: host, network, port or
// protocol unreachable, or a parameter problem. "Too big" is not: the kernel has learned the path MTU and fragments
// from now on.
func unreachable(e *unix.SockExtendedErr) bool {
	switch e.Origin {
	case unix.SO_EE_ORIGIN_ICMP:
		return e.Type == 3 && e.Code != 4 || e.Type == 12 // RFC 792
	case unix.SO_EE_ORIGIN_ICMP6:
		return e.Type == 1 || e.Type == 4 // RFC 4443
	}
	return false
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
	_   [4]byte
}

// read passes each datagram to f, in order, until the socket is closed, and ICMP errors to lost. b is valid only during
// the call. failed is called for other errors of the socket.
func (s *udpSock) read(f func(b []byte, src netip.AddrPort), lost func([]byte, netip.AddrPort, error), failed func()) {
	var (
		hdrs  [batch]mmsghdr
		iovs  [batch]unix.Iovec
		names [batch]unix.RawSockaddrInet6 // large enough for both families
		bufs  [batch][]byte
	)
	for i := range hdrs {
		bufs[i] = make([]byte, 65535)
		iovs[i].Base = &bufs[i][0]
		iovs[i].SetLen(len(bufs[i]))
		hdrs[i].hdr.Iov = &iovs[i]
		hdrs[i].hdr.SetIovlen(1)
		hdrs[i].hdr.Name = (*byte)(unsafe.Pointer(&names[i]))
	}
	var n int
	var errno syscall.Errno
	receive := func(fd uintptr) bool {
		for {
			var r uintptr
			r, _, errno = unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&hdrs)), batch,
				unix.MSG_DONTWAIT, 0, 0)
			n = int(r)
			if errno != unix.EINTR {
				return errno != unix.EAGAIN // else wait in the poller
			}
		}
	}
	for {
		for i := range hdrs {
			hdrs[i].hdr.Namelen = uint32(unsafe.Sizeof(names[i]))
		}
		if err := s.raw.Read(receive); errors.Is(err, os.ErrDeadlineExceeded) {
			_ = s.c.SetReadDeadline(time.Time{}) // before the queue is read: later errors set it again
			s.icmp(lost)
			continue
		} else if err != nil {
			return // closed
		}
		if errno != 0 {
			if s.icmp(lost) == 0 {
				failed()
			}
			continue
		}
		for i := range hdrs[:n] {
			f(bufs[i][:hdrs[i].n], source(&names[i]))
		}
	}
}

// source returns the address and port in a socket address of either family.
func source(sa *unix.RawSockaddrInet6) netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:])
	if sa.Family == unix.AF_INET {
		four := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(four.Addr), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), port)
}

// setSockaddr stores to in sa and returns the size of the socket address. It is the inverse of source.
func setSockaddr(sa *unix.RawSockaddrInet6, to netip.AddrPort) uintptr {
	*sa = unix.RawSockaddrInet6{}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:], to.Port())
	if to.Addr().Is4() || to.Addr().Is4In6() {
		four := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		four.Family, four.Addr = unix.AF_INET, to.Addr().As4()
		return unix.SizeofSockaddrInet4
	}
	sa.Family, sa.Addr = unix.AF_INET6, to.Addr().As16()
	return unix.SizeofSockaddrInet6
}
