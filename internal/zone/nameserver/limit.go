package nameserver

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// limiter counts equal answers to a network within a second. It has fixed memory: networks whose counters collide share
// one, until the next second.
type limiter struct {
	most  uint32 // answers a second; 0 for no limit
	seed  maphash.Seed
	begun time.Time
	parts [64]struct {
		sync.Mutex
		counters [256]counter
	}
}

type counter struct {
	second uint32
	n      uint32
}

func newLimiter(most int) *limiter {
	return &limiter{most: uint32(most), seed: maphash.MakeSeed(), begun: time.Now()}
}

// answerKey is what equal answers have in common.
type answerKey struct {
	network netip.Prefix
	name    string // of a name that exists; empty for all others
	kind    uint16
	code    int
}

// exceeds counts an answer. It reports whether to send nothing, or an empty answer that asks for TCP.
func (l *limiter) exceeds(a netip.Addr, name string, kind uint16, code int) (drop, empty bool) {
	if l.most == 0 {
		return false, false
	}
	bits := 24
	if a.Is6() {
		bits = 56
	}
	network, err := a.Prefix(bits)
	if err != nil {
		return false, false
	}
	k := answerKey{network: network, name: name, code: code}
	if name != "" {
		k.kind = kind
	}
	h := maphash.Comparable(l.seed, k)
	second := uint32(time.Since(l.begun) / time.Second)

	p := &l.parts[h%uint64(len(l.parts))]
	p.Lock()
	defer p.Unlock()
	c := &p.counters[h/uint64(len(l.parts))%uint64(len(p.counters))]
	if c.second != second {
		*c = counter{second: second}
	}
	c.n++
	if c.n <= l.most {
		return false, false
	}

	return c.n%2 == 0, c.n%2 == 1
}
