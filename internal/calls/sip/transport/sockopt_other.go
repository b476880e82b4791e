//go:build !linux

package transport

import (
	"net"
	"syscall"
	"time"
)

// Elsewhere one socket per port serves.
const reusePort = false

func shareport(_, _ string, _ syscall.RawConn) error { return nil }

func setUserTimeout(*net.TCPConn, time.Duration) {}
