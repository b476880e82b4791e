package replica

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestFollowsSoonAfterALongOutage: writes are acknowledged as soon as the database is available again, so the index
// must not wait longer than the second that a change may take, however long the outage was.
func TestFollowsSoonAfterALongOutage(t *testing.T) {
	dir := t.TempDir() // outside the bubble: its removal must not be part of it
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

// TestNotCurrentAfterAPause: a process that was paused claims nothing about the database before it has read it again,
// and a result is as old as the request that led to it.
func TestNotCurrentAfterAPause(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		src := newSource()
		src.poll = 10 * time.Second
		p := seed(src)
		n := start(t, dir, src, Config{}, func(r *Replica) { r.Patience = time.Second })
		n.wait(p)
		n.current()
		time.Sleep(2 * time.Second) // nothing is read meanwhile: the source is silent
		if s := n.r.Status(); s.Current() {
			t.Error("the index counts as current although nothing was read for longer than Patience")
		}
		n.wait(src.commit(number(1, "contoso", "after")))
		n.current()

		src.set(func() { src.slow = 3 * time.Second })
		n.wait(src.commit(number(2, "contoso", "slow")))
		if s := n.r.Status(); s.Current() || time.Since(s.SyncedAt) < 3*time.Second {
			t.Errorf("the result of a request made 3 s ago counts as current: current %v, synced %v ago", s.Current(),
				time.Since(s.SyncedAt))
		}
		n.stop()
	})
}
