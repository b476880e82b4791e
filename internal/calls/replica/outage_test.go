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

// TestNotCurrentAfterAPause: a process that was stopped for a while says nothing of the database before it has read it
// again, and what was read before the stop is as old as its question.
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
			t.Error("it says that it follows, though nothing was read for longer than its patience")
		}
		n.wait(src.commit(number(1, "contoso", "after")))
		n.current()

		src.set(func() { src.slow = 3 * time.Second })
		n.wait(src.commit(number(2, "contoso", "slow")))
		if s := n.r.Status(); s.Current() || time.Since(s.SyncedAt) < 3*time.Second {
			t.Errorf("what was asked 3 s ago counts as known now: current %v, level %v ago", s.Current(), time.Since(s.SyncedAt))
		}
		n.stop()
	})
}
