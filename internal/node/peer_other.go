//go:build !linux

package node

import (
	"math"
	"net"
)

// peerUID is known on Linux only.
func peerUID(net.Conn) (uid uint32, ok bool) { return 0, false }

// descriptorLimit is not known here.
func descriptorLimit() int { return math.MaxInt }
