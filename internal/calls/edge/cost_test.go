package edge

import (
	"os"
	"runtime"
	"runtime/pprof"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/calls/sip/transaction"
)

// call places and ends one call as an agent on a good network does.
func (b *bed) call(from, to *agent, caller, called string) {
	up, down := b.established(from, to, caller, called)
	b.over(up, down)
	<-b.got
}

// forget drops the records kept so far.
func (b *bed) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.records = b.records[:0]
}

// TestMemoryOfEndedCalls bounds the memory held by an ended call: its transactions must absorb retransmissions for
// 64×T1, and at 1,000 calls per second that is 32,000 calls.
func TestMemoryOfEndedCalls(t *testing.T) {
	b := setup(t, func(c *bedConfig) {
		c.cfg.Limits.MaxCallsPerSecond = 100_000
		c.tx = transaction.Config{} // RFC 3261's timers
		c.serial = true
	})
	const warm, calls = 200, 1000
	for _, a := range []*agent{b.core, b.svc} { // what the agents remember does not count
		a.mu.Lock()
		a.repeats = make(map[uint64]int, 8*(warm+calls))
		a.mu.Unlock()
	}
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for range warm {
		b.call(b.core, b.svc, outside, served)
	}
	b.forget()
	before, live := heap(), b.transactions()
	begun := time.Now()
	for range calls {
		b.call(b.core, b.svc, outside, served)
		b.forget()
	}
	took := time.Since(begun)
	after := heap()
	if f := os.Getenv("HEAP_PROFILE"); f != "" {
		w, _ := os.Create(f)
		_ = pprof.WriteHeapProfile(w)
		_ = w.Close()
	}
	each := float64(after-before) / calls
	t.Logf("%d calls in %v; %.0f bytes and %.1f transactions left of each", calls, took, each,
		float64(b.transactions()-live)/calls)
	if each > 3500 {
		t.Errorf("%.0f bytes are left of each ended call, want at most 3500", each)
	}
}
