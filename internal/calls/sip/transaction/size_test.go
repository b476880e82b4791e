package transaction

import (
	"testing"
	"unsafe"
)

// Tens of thousands of transactions only absorb retransmissions, for 32 s each: at 1,000 calls/s their size is most of the gateway's memory.
func TestSizes(t *testing.T) {
	if n := unsafe.Sizeof(Client{}); n > 352 {
		t.Errorf("a Client takes %d bytes, more than the size class of 352", n)
	}
	if n := unsafe.Sizeof(Server{}); n > 384 {
		t.Errorf("a Server takes %d bytes, more than the size class of 384", n)
	}
}
