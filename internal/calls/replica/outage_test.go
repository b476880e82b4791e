package replica

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestFollowsSoonAfterALongOutage: writes are acknowledged as soon as the database is back, so the index must not wait
// longer than the second a change may take, however long the outage was.
func TestFollowsSoonAfterALongOutage(t *testing.T) {
	dir := t.TempDir() // outside: its removal is no part of the bubble
	synctest.Test(t, func(t *testing.T) {
		src := newSource()
		p := seed(src)
		n := start(t, dir, src, Config{})
		n.wait(p)
		for _, outage := range []time.Duration{time.Second, time.Minute, 37 * time.Minute} {
			src.set(func() { src.down = errors.New("connection refused") })
			time.Sleep(outage) // of the bubble's clock
			src.set(func() { src.down = nil })
			back := time.Now()
			n.wait(src.commit(number(1, "contoso", outage.String())))
			if d := time.Since(back); d > time.Second {
				t.Errorf("after %v without the database a change took %v, want 1 s at most", outage, d)
			}
		}
		n.check()
		n.stop()
	})
}
