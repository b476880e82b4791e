// Package pace measures the time in which a test's process runs, so that a limit on how long something takes holds on a
// loaded machine: times at which the process does not run do not count.
//
// It is imported by tests only.
package pace

import (
	"sync/atomic"
	"testing"
	"time"
)

// tick is how often the clock reads the time; of a longer pause it counts only two ticks.
const tick = 5 * time.Millisecond

// Clock counts the time in which the process runs. It is safe for concurrent use.
type Clock struct{ ran atomic.Int64 }

// Start returns a clock that runs until the test ends.
func Start(tb testing.TB) *Clock {
	tb.Helper()
	c := &Clock{}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		t := time.NewTicker(tick)
		defer t.Stop()
		for last := time.Now(); ; {
			select {
			case <-t.C:
				now := time.Now()
				c.ran.Add(int64(min(now.Sub(last), 2*tick)))
				last = now
			case <-quit:
				return
			}
		}
	}()
	tb.Cleanup(func() {
		close(quit)
		<-done
	})
	return c
}

// Now returns how long the process has run since Start.
func (c *Clock) Now() time.Duration { return time.Duration(c.ran.Load()) }
