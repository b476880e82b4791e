package transport

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const reusePort = true

// shareport lets several sockets of ours share one UDP port.
func shareport(_, _ string, c syscall.RawConn) error {
	var err error
	if cerr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}); cerr != nil {
		return cerr
	}
	return err
}

// setUserTimeout bounds how long written data may stay unacknowledged before the kernel gives the connection up.
func setUserTimeout(nc *net.TCPConn, d time.Duration) {
	raw, err := nc.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		// Without it the kernel tries for a quarter of an hour; that is worse, not wrong.
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
	})
}
