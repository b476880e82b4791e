package transaction

import (
	"math/bits"
	"sync"
	"time"
)

// tick is the wheel's precision. A timer fires up to one tick late, never early.
const tick = 10 * time.Millisecond

// slots is the number of slots of the wheel, about 41 s: longer than 64×T1, so that a timer is nearly always visited
// once. A power of two.
const slots = 4096

// wheel is a timing wheel: setting, moving or stopping a timer takes a few pointer writes, whatever the number of
// timers, and one goroutine serves all of them.
type wheel struct {
	start time.Time
	stop  chan struct{}
	once  sync.Once // of closing stop
	wake  chan struct{}
	done  sync.WaitGroup

	mu     sync.Mutex // guards the fields below, and all timers' links
	slot   [slots]*timer
	used   [slots / 64]uint64 // which slots are not empty
	count  int
	passed int64 // all ticks up to this one have been handled
	until  int64 // the tick until which the goroutine sleeps
}

// timer is an entry of the wheel, embedded in its owner.
type timer struct {
	next, prev *timer
	tick       int64 // 0: not on the wheel
	owner      interface{ expire() }
}

func newWheel() *wheel {
	w := &wheel{start: time.Now(), stop: make(chan struct{}), wake: make(chan struct{}, 1)}
	w.done.Go(w.run)
	return w
}

func (w *wheel) close() {
	w.once.Do(func() { close(w.stop) })
	w.done.Wait()
}

// now returns the time of the wheel's own clock, which is monotonic.
func (w *wheel) now() time.Duration { return time.Since(w.start) }

// plan makes t fire at the earlier of two times, replacing any time set before; 0 means never.
func (w *wheel) plan(t *timer, a, b time.Duration) {
	switch {
	case a == 0 && b == 0:
		w.clear(t)
	case a == 0 || b != 0 && b < a:
		w.set(t, b)
	default:
		w.set(t, a)
	}
}

// set makes t fire at the given time, replacing any time set before.
func (w *wheel) set(t *timer, at time.Duration) {
	n := int64((at + tick - 1) / tick)
	w.mu.Lock()
	n = max(n, w.passed+1)
	if t.tick != n {
		if t.tick != 0 {
			w.unlink(t)
		}
		t.tick = n
		i := n & (slots - 1)
		t.prev, t.next = nil, w.slot[i]
		if t.next != nil {
			t.next.prev = t
		}
		w.slot[i] = t
		w.used[i/64] |= 1 << (i % 64)
		w.count++
	}
	sooner := n < w.until
	w.mu.Unlock()
	if sooner {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// clear removes t from the wheel. It may still fire if it is already due: its owner checks.
func (w *wheel) clear(t *timer) {
	w.mu.Lock()
	if t.tick != 0 {
		w.unlink(t)
	}
	w.mu.Unlock()
}

func (w *wheel) unlink(t *timer) {
	i := t.tick & (slots - 1)
	if t.prev != nil {
		t.prev.next = t.next
	} else if w.slot[i] = t.next; t.next == nil {
		w.used[i/64] &^= 1 << (i % 64)
	}
	if t.next != nil {
		t.next.prev = t.prev
	}
	t.next, t.prev, t.tick = nil, nil, 0
	w.count--
}

const never = int64(1) << 62

// nextUsed returns the first tick after passed whose slot is not empty. w.mu is held.
func (w *wheel) nextUsed() int64 {
	if w.count == 0 {
		return never
	}
	from := w.passed + 1
	for off := int64(0); off < slots; {
		i := (from + off) & (slots - 1)
		if word := w.used[i/64] >> (i % 64); word != 0 {
			return from + off + int64(bits.TrailingZeros64(word))
		}
		off += 64 - i%64
	}
	return from + slots
}

func (w *wheel) run() {
	sleep := time.NewTimer(time.Hour)
	defer sleep.Stop()
	var due []*timer
	for {
		w.mu.Lock()
		now := int64(w.now() / tick)
		for w.passed < now {
			n := w.nextUsed()
			if n > now {
				w.passed = now
				break
			}
			w.passed = n
			for t := w.slot[n&(slots-1)]; t != nil; {
				next := t.next
				if t.tick <= n { // otherwise it is for a later round
					w.unlink(t)
					due = append(due, t)
				}
				t = next
			}
		}
		w.until = w.nextUsed()
		until := w.until
		w.mu.Unlock()
		for i, t := range due {
			t.owner.expire()
			due[i] = nil
		}
		if len(due) > 0 {
			due = due[:0]
			select {
			case <-w.stop:
				return
			default:
			}
			continue // time has passed, and timers were set
		}
		if until == never {
			select {
			case <-w.wake:
			case <-w.stop:
				return
			}
			continue
		}
		sleep.Reset(time.Duration(until)*tick - w.now())
		select {
		case <-sleep.C:
		case <-w.wake:
		case <-w.stop:
			return
		}
	}
}
