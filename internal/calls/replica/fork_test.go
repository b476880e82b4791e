package replica

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/feed"
)

// current waits until the index follows its source and has its newest position.
func (n *node) current() {
	n.t.Helper()
	n.until("level", func(s Status) bool { return s.Current() && s.Position == n.src.position() })
}

// held waits until the index is held back, and returns why.
func (n *node) held() *Held {
	n.t.Helper()
	n.until("held back", func(s Status) bool { return s.Held != nil })
	return n.r.Status().Held
}

func (s *memSource) position() feed.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.head
}

// noted is a note function for Accept.
func noted(*Held) error { return nil }

// large provisions n numbers for contoso.
func large(s *memSource, n int) feed.Position {
	p := s.commit(account("contoso", "contoso"))
	for i := range n {
		p = s.commit(number(i, "contoso", ""))
	}
	return p
}

// TestForkAtTheSamePosition: another history that has reached exactly the position of the index, or gone beyond it, is
// detected while the index runs and when it starts; the index loads the other history while the old one serves.
func TestForkAtTheSamePosition(t *testing.T) {
	t.Parallel()
	for _, lost := range []int{1, 5} {
		for _, more := range []int{0, 1, 7} {
			for _, running := range []bool{true, false} {
				t.Run(fmt.Sprintf("%d lost, %d more, running %v", lost, more, running), func(t *testing.T) {
					t.Parallel()
					src := newSource()
					seed(src)
					backup := src.back(t, src.head)
					for i := range lost {
						src.commit(number(i, "fabrikam", "lost"))
					}
					dir := t.TempDir()
					n := start(t, dir, src, Config{})
					n.wait(src.head)
					if !running {
						n.stop()
					}
					for i := range lost + more {
						backup.commit(number(50+i, "newco", "written on"))
					}
					src.become(backup)
					if !running {
						n = start(t, dir, src, Config{})
					}
					n.until("two loads", func(Status) bool { return src.scanning() == 2 })
					n.current()
					n.check()
					n.wait(src.commit(number(9, "newco", "after")))
					n.stop()
					check(t, open(t, dir, away(), Config{}).View(), src.state)
				})
			}
		}
	}
}

// TestOldIndexServesWhileAForkIsLoaded: the old index answers, is ready, and does not report that it is current.
func TestOldIndexServesWhileAForkIsLoaded(t *testing.T) {
	t.Parallel()
	src := newSource()
	seed(src)
	backup := src.back(t, src.head)
	src.commit(number(0, "fabrikam", "lost"))
	n := start(t, t.TempDir(), src, Config{})
	n.wait(src.head)
	n.current()
	old := n.r.View()
	hold := make(chan struct{})
	backup.commit(number(0, "newco", "written on"))
	src.set(func() { src.scanHook = func() { <-hold } })
	src.become(backup)
	n.until("a reload", func(s Status) bool { return s.Reloading != "" })
	if s := n.r.Status(); s.Current() || n.r.Ready() != nil || n.r.View() != old {
		t.Errorf("during the reload: current %v, ready %v, the old view serves %v; want false, nil, true", s.Current(),
			n.r.Ready(), n.r.View() == old)
	}
	close(hold)
	n.current()
	n.check()
}

// TestCrashBetweenReloadAndSnapshot: journals of the new history must not be replayed on the old history's snapshot,
// whenever the process ends, even if the new history begins at the same place as the first load.
func TestCrashBetweenReloadAndSnapshot(t *testing.T) {
	t.Parallel()
	for _, samePlace := range []bool{false, true} {
		t.Run(fmt.Sprintf("loads of the same place %v", samePlace), func(t *testing.T) {
			t.Parallel()
			src := newSource()
			seed(src)
			backup := src.back(t, src.head)
			if !samePlace {
				src.commit(number(9, "fabrikam", "lost, in the first load"))
			}
			dir := t.TempDir()
			disk := &failing{room: -1}
			n := start(t, dir, src, Config{}, func(r *Replica) {
				r.files.create = func(path string) (journalFile, error) {
					if strings.HasSuffix(path, partExt) && disk.full() {
						return nil, errors.New("no snapshot may be written now")
					}
					return disk.create(path)
				}
			})
			n.wait(src.head)
			n.until("first snapshot", func(s Status) bool { return !s.Snapshot.IsZero() })
			for i := range 3 {
				n.wait(src.commit(number(i, "fabrikam", "lost, in the journal")))
			}
			lost := src.back(t, src.head)
			disk.set(1 << 30)

			src.become(backup)
			n.until("two loads", func(s Status) bool { return src.scanning() == 2 && s.Current() })
			for i := range 6 { // to the position of the lost history, and beyond it
				n.wait(src.commit(number(60+i, "newco", "in a journal of the new history")))
				n.current()
				crashed := image(t, dir)
				// without the database: the last complete state
				check(t, open(t, crashed, away(), Config{}).View(), lost.state)
				again := start(t, crashed, src, Config{})
				again.current()
				again.check()
				again.stop()
			}

			// The lost history returns. Its new journal entries count, although journals of the other history precede
			// them.
			crashed := image(t, dir)
			src.become(lost)
			again := start(t, crashed, src, Config{})
			again.wait(src.commit(number(70, "fabrikam", "not lost after all")))
			check(t, open(t, image(t, crashed), away(), Config{}).View(), src.state)
		})
	}
}

func (d *failing) full() bool { d.mu.Lock(); defer d.mu.Unlock(); return d.room >= 0 }

// TestAnotherDatabase: an index is not replaced by the content of another database, whether empty, different or nearly
// the same, until that is accepted; it serves, says why, and is ready with or without a restart.
func TestAnotherDatabase(t *testing.T) {
	t.Parallel()
	for name, other := range map[string]func(*memSource){
		"empty":           func(*memSource) {},
		"of its own":      func(s *memSource) { large(s, 300) },
		"nearly the same": func(s *memSource) { seed(s); s.commit(gone(1)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			src := newSource()
			seed(src)
			mine := src.state
			right := src.back(t, src.head)
			dir := t.TempDir()
			n := start(t, dir, src, Config{})
			n.wait(src.head)

			wrong := newSource()
			wrong.database = "d2"
			other(wrong)
			src.become(wrong)
			look := func() {
				t.Helper()
				h := n.held()
				if h.Database != "d2" || h.Numbers != int64(len(wrong.state.numbers)) ||
					!strings.Contains(h.Reason, "another") {
					t.Errorf("held back: %+v", h)
				}
				if s := n.r.Status(); s.Current() || s.Database != "d1" || n.r.Ready() != nil {
					t.Errorf("current %v, ready %v, status %+v; want the old index in service",
						s.Current(), n.r.Ready(), s)
				}
				check(t, n.r.View(), mine)
			}
			look()
			src.commit(number(1, "contoso", "of the wrong database"))
			n.stop()
			n = start(t, dir, src, Config{})
			wrong.state = src.state
			look()

			// The right database returns: the index follows it without a load.
			src.become(right)
			scans := src.scanning()
			n.current()
			n.wait(src.commit(number(2, "contoso", "of the right database")))
			n.check()
			if src.scanning() != scans {
				t.Errorf("%d loads, want none", src.scanning()-scans)
			}

			// The wrong database was the right one after all.
			src.become(wrong)
			n.held()
			for _, database := range []string{"d1", "d3", ""} {
				if err := n.r.Accept(database, noted); !fault.HasCode(err, "IndexNotHeld") {
					t.Errorf("Accept(%q) = %v", database, err)
				}
			}
			failed := errors.New("no audit row")
			if err := n.r.Accept("d2", func(*Held) error { return failed }); !errors.Is(err, failed) {
				t.Errorf("Accept without a note = %v", err)
			}
			if err := n.r.Accept("d2", noted); err != nil {
				t.Errorf("Accept = %v", err)
			}
			n.current()
			n.check()
			if err := n.r.Accept("d2", noted); !fault.HasCode(err, "IndexNotHeld") {
				t.Errorf("Accept of what is not held = %v", err)
			}
			n.stop()
			check(t, open(t, dir, away(), Config{}).View(), src.state)
		})
	}
}

// TestAcceptedWhileTheDatabaseIsAway: the accepted database is loaded when it is available again; a third database is
// not.
func TestAcceptedWhileTheDatabaseIsAway(t *testing.T) {
	t.Parallel()
	src := newSource()
	large(src, 300)
	mine := src.state
	n := start(t, t.TempDir(), src, Config{})
	n.wait(src.head)
	wrong, third := newSource(), newSource()
	wrong.database, third.database = "d2", "d3"
	src.become(wrong)
	n.held()
	src.set(func() { src.down = errors.New("connection refused") })
	n.until("source error", func(s Status) bool { return s.SourceError != "" })
	if err := n.r.Accept("d2", noted); err != nil {
		t.Fatal(err)
	}
	src.become(third)
	src.set(func() { src.down = nil })
	n.until("held back from the third", func(s Status) bool {
		return s.Held != nil && s.Held.Database == "d3" && s.SourceError == ""
	})
	check(t, n.r.View(), mine)
	src.become(wrong)
	n.current()
	n.check()
}

// TestShrinkBound: a database that was set back may remove numbers up to the limit. Changes from the feed are applied,
// however many numbers they remove.
func TestShrinkBound(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		have, left int
		cfg        Config
		held       bool
	}{
		{have: 300, left: 150}, // exactly half
		{have: 300, left: 149, held: true},
		{have: 300, left: 0, held: true},
		{have: 100, left: 0}, // no more than 100
		{have: 101, left: 0, held: true},
		{have: 300, left: 149, cfg: Config{MaxShrinkPercent: 51}},
		{have: 300, left: 0, cfg: Config{MaxShrinkPercent: 100}},
		{have: 300, left: 0, cfg: Config{MaxShrinkNumbers: 300}},
		{have: 20, left: 9, cfg: Config{MaxShrinkNumbers: 10}, held: true},
	} {
		t.Run(fmt.Sprintf("%d of %d left, %+v", c.left, c.have, c.cfg), func(t *testing.T) {
			t.Parallel()
			src := newSource()
			large(src, c.have)
			mine := src.state
			backup := src.back(t, feed.Position(1+c.left))
			src.commit(number(0, "contoso", "lost"))
			n := start(t, t.TempDir(), src, c.cfg)
			n.wait(src.head)
			backup.commit(account("fabrikam", "written-on"))
			src.become(backup)
			if c.held {
				if h := n.held(); h.Database != "d1" || h.Numbers != int64(c.left) {
					t.Errorf("held back: %+v", h)
				}
				check(t, n.r.View(), mine)
				if err := n.r.Accept("d1", noted); err != nil {
					t.Fatal(err)
				}
			}
			n.current()
			n.check()
			if loads := src.scanning(); !c.held && loads != 2 {
				t.Errorf("%d loads, want 2", loads)
			}
		})
	}
	t.Run("changes that are read", func(t *testing.T) {
		t.Parallel()
		src := newSource()
		large(src, 300)
		n := start(t, t.TempDir(), src, Config{})
		n.wait(src.head)
		for i := range 300 {
			src.commit(gone(i))
		}
		n.wait(src.head)
		n.current()
		n.check()
		if src.scanning() != 1 {
			t.Errorf("%d loads, want only the first", src.scanning())
		}
	})
	t.Run("a gap", func(t *testing.T) { // entries were pruned: what they removed is unknown
		t.Parallel()
		src := newSource()
		large(src, 300)
		dir := t.TempDir()
		n := start(t, dir, src, Config{})
		n.wait(src.head)
		n.stop()
		for i := range 300 {
			src.commit(gone(i))
		}
		src.set(func() { src.pruned = src.head })
		n = start(t, dir, src, Config{})
		n.held()
	})
}

// TestNothingToLose: an index without an account accepts any database.
func TestNothingToLose(t *testing.T) {
	t.Parallel()
	src := newSource()
	dir := t.TempDir()
	n := start(t, dir, src, Config{})
	n.current()
	other := newSource()
	other.database = "d2"
	seed(other)
	src.become(other)
	n.current()
	n.check()
}

// TestFormatBeforeIdentities: an index that does not say from which database it is, is refused: without the database
// there is no index rather than one of another database, and with it everything is loaded and written again.
func TestFormatBeforeIdentities(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "format1"))); err != nil {
		t.Fatal(err)
	}
	n := start(t, dir, away(), Config{})
	n.until("source error", func(s Status) bool { return s.SourceError != "" })
	if n.r.View() != nil || n.r.Ready() == nil {
		t.Fatalf("the index is used: view %v, ready %v", n.r.View(), n.r.Ready())
	}
	n.stop()
	src := newSource()
	seed(src)
	src.commit(number(5, "fabrikam", "of the new index"))
	n = start(t, dir, src, Config{})
	n.current()
	n.check()
	n.stop()
	check(t, open(t, dir, away(), Config{}).View(), src.state)

	// Nor is a journal of that time, if it is all that follows a snapshot.
	old, err := os.ReadFile(filepath.Join("testdata", "format1", "journal-000000000002"))
	if err != nil {
		t.Fatal(err)
	}
	v := newView(0)
	cur := feed.Cursor{Database: "d1"}
	if got, applied, err := replayJournal(bytes.NewReader(old), newSealer(), v, "", cur); !errors.Is(err, errDamaged) ||
		got != cur || applied != 0 || v.Numbers() != 0 {
		t.Errorf("a journal of the first format: cursor %v, %d entries, %v; want none and %v", got, applied, err,
			errDamaged)
	}
}

// TestOtherTopicsAndTheJournal: positions used by other topics are in no journal; the journals still form a chain.
func TestOtherTopicsAndTheJournal(t *testing.T) {
	t.Parallel()
	src := newSource()
	seed(src)
	dir := t.TempDir()
	n := start(t, dir, src, Config{})
	n.wait(src.head)
	n.until("first snapshot", func(s Status) bool { return !s.Snapshot.IsZero() })
	for i := range 4 {
		n.wait(src.commit(number(i, "fabrikam", "before")))
		n.wait(src.other(3))
		n.wait(src.commit(number(10+i, "fabrikam", "after")))
		check(t, open(t, image(t, dir), away(), Config{}).View(), src.state)
	}
}
