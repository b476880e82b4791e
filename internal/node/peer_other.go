//go:build !linux

package node

import (
	"math"
	"net"
)

// peerUID is supported on Linux only.
func peerUID(net.Conn) (uid uint32, ok bool) { return 0, false }

// descriptorLimit returns the maximum int: the limit is read on Linux only.
func descriptorLimit() int { return math.MaxInt }
