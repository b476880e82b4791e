package transaction

import (
	"testing"
	"unsafe"
)

// Tens of thousands of transactions only absorb retransmissions, for 32 s each: at 1,000 calls/s they take most of the
// gateway's memory.
func TestSizes(t *testing.T) {
	if n := unsafe.Sizeof(Client{}); n > 256 {
		t.Errorf("a Client takes %d bytes, more than the size class of 256", n)
	}
	if n := unsafe.Sizeof(Server{}); n > 288 {
		t.Errorf("a Server takes %d bytes, more than the size class of 288", n)
	}
}
