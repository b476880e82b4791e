package replica

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/feed"
)

// image returns a copy of the directory as a crash at this moment would leave it.
func image(t testing.TB, dir string) string {
	t.Helper()
	to := t.TempDir()
	copyDir(t, dir, to)
	return to
}

// away returns an unreachable source.
func away() *memSource {
	s := newSource()
	s.down = errors.New("connection refused")
	return s
}

func glob(t testing.TB, dir, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(names, func(n string) bool {
		return !strings.HasSuffix(pattern, partExt) && filepath.Ext(n) != ""
	})
}

func TestLoadAndFollow(t *testing.T) {
	src := newSource()
	p := seed(src)
	n := start(t, t.TempDir(), src, Config{})
	n.wait(p)
	n.check()
	p = src.commit(number(5, "fabrikam", "NEW-1"), gone(6), account("fabrikam", "fabrikam"))
	n.wait(p)
	n.check()
	if a := n.r.View().AccountByLabel("fab"); a != nil {
		t.Errorf("the old label is still %s's", a.Name)
	}
	if err := n.r.Ready(); err != nil {
		t.Errorf("Ready = %v", err)
	}
	// Positions used by other topics do not prevent it from being up to date.
	n.wait(src.other(3))
	if s := n.r.Status(); s.Position != src.head || s.Head != src.head || !s.CaughtUp {
		t.Errorf("status %+v, want position %d and caught up", s, src.head)
	}
	if src.scans != 1 {
		t.Errorf("%d scans, want 1", src.scans)
	}
}

// TestChangesDuringTheFirstLoad: the index contains the changes made while it was loaded.
func TestChangesDuringTheFirstLoad(t *testing.T) {
	src := newSource()
	seed(src)
	r := rand.New(rand.NewPCG(7, 7))
	i := 0
	src.scanHook = func() {
		i++
		src.commit(number(r.IntN(300), "fabrikam", fmt.Sprintf("during-%d", i)), gone(r.IntN(300)))
	}
	n := start(t, t.TempDir(), src, Config{})
	n.until("loaded", func(s Status) bool { return s.Loaded })
	src.mu.Lock()
	p := src.head
	src.mu.Unlock()
	n.wait(p)
	n.check()
}

func TestNeverLoaded(t *testing.T) {
	src := away()
	n := start(t, t.TempDir(), src, Config{})
	n.until("source error", func(s Status) bool { return s.SourceError != "" })
	if n.r.View() != nil || n.r.Route() != nil {
		t.Error("there is a view although nothing was ever loaded")
	}
	if err := n.r.Ready(); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("Ready = %v, want what is wrong with the source", err)
	}
	p := seed(src)
	src.set(func() { src.down = nil })
	n.wait(p)
	n.check()
	if err := n.r.Ready(); err != nil {
		t.Errorf("Ready = %v once the source is available", err)
	}
}

// TestRestartWithoutSource: killed at any moment, it restarts with the last change that it had applied.
func TestRestartWithoutSource(t *testing.T) {
	src := newSource()
	p := seed(src)
	dir := t.TempDir()
	n := start(t, dir, src, Config{})
	n.wait(p)
	n.until("first snapshot", func(s Status) bool { return !s.Snapshot.IsZero() })
	for i := range 20 {
		n.wait(src.commit(number(i, "fabrikam", fmt.Sprintf("late-%d", i))))
		crashed := start(t, image(t, dir), away(), Config{})
		check(t, crashed.r.View(), src.state)
		crashed.until("source unavailable", func(s Status) bool { return s.SourceError != "" })
		if err := crashed.r.Ready(); err != nil {
			t.Errorf("Ready = %v, want ready: the source is unavailable and there is an index", err)
		}
		if i%7 == 0 {
			n.r.snapshot()
		}
		crashed.stop()
	}
	// After an orderly shutdown there is a snapshot of the last state.
	n.stop()
	r := open(t, dir, away(), Config{})
	check(t, r.View(), src.state)
	if r.changes != 0 {
		t.Errorf("%d entries had to be replayed after an orderly shutdown, want none", r.changes)
	}
}

// TestSeveralCrashesInARow: each process starts a new journal; together they give the complete index.
func TestSeveralCrashesInARow(t *testing.T) {
	src := newSource()
	p := seed(src)
	dir := t.TempDir()
	n := start(t, dir, src, Config{})
	n.wait(p)
	n.until("first snapshot", func(s Status) bool { return !s.Snapshot.IsZero() })
	for i := range 5 {
		n.wait(src.commit(number(i, "fabrikam", fmt.Sprint("crash-", i))))
		dir = image(t, dir)
		n.stop()
		n = start(t, dir, src, Config{})
		n.check()
	}
	if js := glob(t, dir, "journal-*"); len(js) < 5 {
		t.Errorf("%d journals, want one of each process", len(js))
	}
}

// history returns a directory with two snapshots and journals after each, and the model after every position.
func history(t *testing.T) (dir string, src *memSource, newest string, states []*model) {
	t.Helper()
	src = newSource()
	dir = t.TempDir()
	p := seed(src)
	n := start(t, dir, src, Config{})
	n.wait(p)
	n.until("first snapshot", func(s Status) bool { return !s.Snapshot.IsZero() })
	step := func(i int) {
		n.wait(src.commit(number(i, "fabrikam", fmt.Sprintf("h-%d", i)), gone(200+i)))
		m := newModel()
		for _, e := range src.entries {
			m.apply(changesOf(t, e))
		}
		states = append(states, m)
	}
	for i := range 6 {
		step(i)
	}
	if !n.r.snapshot() {
		t.Fatal("no second snapshot")
	}
	for i := 6; i < 12; i++ {
		step(i)
	}
	dir = image(t, dir)
	shots := glob(t, dir, "snapshot-*")
	if len(shots) != 2 {
		t.Fatalf("%d snapshots, want 2", len(shots))
	}
	return dir, src, shots[1], states
}

func changesOf(t testing.TB, e feed.Entry) []domain.Change {
	t.Helper()
	var c []domain.Change
	if err := jsonUnmarshal(e.Payload, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// damage calls do for copies of a file, each damaged in a different way: truncated to some length, or with one bit
// flipped.
func damage(t *testing.T, path string, seed uint64, do func(what string)) {
	t.Helper()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(seed, 1))
	write := func(b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	lengths := []int{0, 1, 7, 8, 11, 12, 13, len(whole) - 1, len(whole) - 17}
	for range 25 {
		lengths = append(lengths, r.IntN(len(whole)))
	}
	for _, l := range lengths {
		write(whole[:l])
		do(fmt.Sprintf("cut at %d of %d", l, len(whole)))
	}
	for range 60 {
		b := append([]byte(nil), whole...)
		i, bit := r.IntN(len(b)), r.IntN(8)
		b[i] ^= 1 << bit
		write(b)
		do(fmt.Sprintf("bit %d of byte %d of %d flipped", bit, i, len(whole)))
	}
	write(append(append([]byte(nil), whole...), 0))
	do("a byte too long")
	write(whole)
}

// TestDamagedSnapshot: whatever happens to the newest snapshot, the one before it and the journals since then give the
// same index.
func TestDamagedSnapshot(t *testing.T) {
	dir, src, newest, _ := history(t)
	damage(t, newest, 1, func(what string) {
		r := open(t, dir, away(), Config{})
		if t.Failed() {
			return
		}
		check(t, r.View(), src.state)
		// It was set aside; put it back for the next case.
		if err := os.Remove(newest + damagedExt); err != nil {
			t.Errorf("%s: the damaged snapshot was not set aside: %v", what, err)
		}
	})
	r := open(t, dir, away(), Config{})
	check(t, r.View(), src.state)
}

// TestBothSnapshotsDamaged: then there is no index rather than a wrong one, and both files stay in case the right key
// becomes available again.
func TestBothSnapshotsDamaged(t *testing.T) {
	dir, src, _, _ := history(t)
	shots := glob(t, dir, "snapshot-*")
	for _, s := range shots {
		b, err := os.ReadFile(s)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 4
		if err := os.WriteFile(s, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n := start(t, dir, away(), Config{})
	if n.r.View() != nil {
		t.Fatal("an index was made of damaged snapshots")
	}
	n.until("source unavailable", func(s Status) bool { return s.SourceError != "" })
	if n.r.Ready() == nil {
		t.Error("ready without an index")
	}
	if left := glob(t, dir, "snapshot-*"); len(left) != 2 {
		t.Errorf("%d snapshots left, want both: %v", len(left), left)
	}
	n.stop()
	// The database is available again: the index is reloaded.
	n = start(t, dir, src, Config{})
	n.wait(src.head)
	n.check()
}

// TestDamagedJournal: a journal damaged at any place gives a state that once existed, never any other.
func TestDamagedJournal(t *testing.T) {
	dir, _, _, states := history(t)
	journals := glob(t, dir, "journal-*")
	last := journals[len(journals)-1]
	reached := map[int]bool{}
	damage(t, last, 2, func(what string) {
		r := open(t, dir, away(), Config{})
		v := r.View()
		if v == nil {
			t.Fatalf("%s: no index", what)
		}
		// Positions of the states: three entries of seed, then one each.
		i := int(r.Status().Position) - 4
		if i < 5 || i >= len(states) {
			t.Fatalf("%s: position %d, want one from the second snapshot on", what, r.Status().Position)
		}
		reached[i] = true
		check(t, v, states[i])
	})
	if len(reached) < 4 {
		t.Errorf("the damage led to %d states only: the test covers too little", len(reached))
	}
}

// TestMissingJournal: if a journal between two others is missing, the changes after the gap are not applied.
func TestMissingJournal(t *testing.T) {
	dir, _, newest, _ := history(t)
	for _, j := range glob(t, dir, "journal-*")[:1] {
		if err := os.Remove(j); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(newest); err != nil {
		t.Fatal(err)
	}
	r := open(t, dir, away(), Config{})
	// The first snapshot is that of seed; the remaining journal continues a later state.
	src := newSource()
	seed(src)
	check(t, r.View(), src.state)
}

// TestWrongKey: files sealed with another key are not used and not set aside.
func TestWrongKey(t *testing.T) {
	dir, src, _, _ := history(t)
	r, err := Open(Config{}, dir, away(), badSealer{}, discard(), nil)
	if err != nil || r.View() != nil {
		t.Fatalf("Open with another key: error %v, view %v; want neither", err, r.View())
	}
	check(t, open(t, dir, away(), Config{}).View(), src.state)
}

type badSealer struct{ testSealer }

func (badSealer) Open(string, []byte) ([]byte, error) { return nil, errors.New("wrong key") }

// TestGap: when the feed no longer holds the missed entries, everything is reloaded while the old index serves.
func TestGap(t *testing.T) {
	src := newSource()
	p := seed(src)
	dir := t.TempDir()
	n := start(t, dir, src, Config{})
	n.wait(p)
	n.until("first snapshot", func(s Status) bool { return !s.Snapshot.IsZero() })
	old := n.r.View()
	hold := make(chan struct{})
	once := sync.OnceFunc(func() { <-hold })
	src.set(func() {
		src.scanHook = once
		src.down = errors.New("away")
	})
	p = src.commit(number(1, "fabrikam", "after-gap"))
	src.set(func() { src.pruned, src.down = p, nil })
	for src.scanning() < 2 {
		time.Sleep(time.Millisecond) // polls a counter; nothing depends on its length
	}
	if n.r.View() != old {
		t.Error("the old view was removed before the new one was ready")
	}
	if got, ok := old.Number("+442079460002"); !ok || got.Account.Name != "contoso" {
		t.Errorf("the old view no longer answers: %+v", got)
	}
	close(hold)
	n.wait(p)
	n.check()
	// The new state is on disk too, whatever the old journals say.
	n.until("a newer snapshot", func(s Status) bool {
		return s.Snapshot.After(s.SyncedAt.Add(-time.Minute)) && len(glob(t, dir, "snapshot-*")) == 2
	})
	check(t, open(t, image(t, dir), away(), Config{}).View(), src.state)
}

func (s *memSource) scanning() int { s.mu.Lock(); defer s.mu.Unlock(); return s.scans }

// TestSetBack: a database restored from a backup is older than the index; the index goes back with it.
func TestSetBack(t *testing.T) {
	src := newSource()
	p := seed(src)
	n := start(t, t.TempDir(), src, Config{})
	n.wait(p)
	backup := src.back(t, p)
	for i := range 5 {
		p = src.commit(number(i, "fabrikam", "lost"))
	}
	n.wait(p)
	src.become(backup)
	n.until("the older position", func(s Status) bool { return s.Position == backup.head })
	n.check()
	n.wait(src.commit(number(9, "newco", "after")))
	n.check()
}

// TestBadEntries: an entry that cannot be read triggers a full reload; an invalid change is ignored.
func TestBadEntries(t *testing.T) {
	src := newSource()
	p := seed(src)
	n := start(t, t.TempDir(), src, Config{})
	n.wait(p)
	src.set(func() {
		src.append([]byte(`{"number":`))
		src.state.apply([]domain.Change{number(3, "fabrikam", "only-in-the-table")})
	})
	n.wait(p + 1)
	n.check()
	if s := src.scanning(); s != 2 {
		t.Errorf("%d scans, want a second one", s)
	}
	p = src.commit(number(4, "fabrikam", "good"))
	src.set(func() {
		src.append([]byte(`[{"number":{"key":7}},{}]`))
	})
	n.wait(p + 1)
	n.check()
	if s := src.scanning(); s != 2 {
		t.Errorf("%d scans, want no third one", s)
	}
}

// failing is a disk with limited space.
type failing struct {
	mu    sync.Mutex
	room  int // bytes left; -1: no limit
	fails int
}

type failingFile struct {
	journalFile
	d *failing
}

func (d *failing) create(path string) (journalFile, error) {
	f, err := createFile(path)
	if err != nil {
		return nil, err
	}
	return &failingFile{f, d}, nil
}

func (f *failingFile) Write(b []byte) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.d.room < 0 {
		return f.journalFile.Write(b)
	}
	n := min(len(b), f.d.room)
	f.d.room -= n
	m, err := f.journalFile.Write(b[:n])
	if err == nil && n < len(b) {
		f.d.fails++
		err = &fs.PathError{Op: "write", Path: "index", Err: syscall.ENOSPC}
	}
	return m, err
}

func (d *failing) set(room int) { d.mu.Lock(); defer d.mu.Unlock(); d.room = room }

// TestDiskFull: calls are still routed by provisioned data, the problem is reported, what was on disk stays valid, and
// once there is space again the rest is written.
func TestDiskFull(t *testing.T) {
	src := newSource()
	p := seed(src)
	dir := t.TempDir()
	disk := &failing{room: -1}
	n := start(t, dir, src, Config{}, func(r *Replica) { r.files.create = disk.create })
	n.wait(p)
	n.until("first snapshot", func(s Status) bool { return !s.Snapshot.IsZero() })
	n.wait(src.commit(number(0, "fabrikam", "on-disk")))
	disk.set(100) // not enough for a batch, so that it is written in part
	n.wait(src.commit(number(1, "fabrikam", "in-memory")))
	n.check()
	n.until("the disk's error", func(s Status) bool { return strings.Contains(s.DiskError, "no space left") })
	if n.r.snapshot() {
		t.Fatal("a snapshot was written on a full disk")
	}
	for _, extra := range []int{0, 300, 900} { // more incomplete files
		disk.set(extra)
		n.wait(src.commit(number(2, "fabrikam", fmt.Sprint("more-", extra))))
	}
	n.check()
	if n.r.Ready() != nil {
		t.Error("a full disk must not take the edge out of service")
	}
	r := open(t, image(t, dir), away(), Config{})
	if h := r.View().CustomHeader("+442079460000"); h != "on-disk" {
		t.Errorf("after a restart, the last change on disk reads %q", h)
	}
	if left := glob(t, r.files.dir, "*"+partExt); len(left) > 0 {
		t.Errorf("incomplete files are left: %v", left)
	}
	disk.set(-1)
	if !n.r.snapshot() {
		t.Fatal("no snapshot although there is space again")
	}
	if s := n.r.Status(); s.DiskError != "" {
		t.Errorf("the disk's error stays: %+v", s)
	}
	check(t, open(t, image(t, dir), away(), Config{}).View(), src.state)
	n.wait(src.commit(number(3, "fabrikam", "journaled again")))
	check(t, open(t, image(t, dir), away(), Config{}).View(), src.state)
}

// TestSnapshotsAndFilesStayFew: snapshots are written after the configured number of changes, and old files are
// removed.
func TestSnapshotsAndFilesStayFew(t *testing.T) {
	src := newSource()
	p := seed(src)
	dir := t.TempDir()
	n := start(t, dir, src, Config{SnapshotAfterChanges: 10})
	n.wait(p)
	for i := range 200 {
		p = src.commit(number(i%50, "fabrikam", fmt.Sprint("v", i)))
		if i%9 == 0 {
			n.wait(p)
		}
	}
	n.wait(p)
	n.stop()
	if s, j := glob(t, dir, "snapshot-*"), glob(t, dir, "journal-*"); len(s) != keepShots || len(j) > 3 {
		t.Errorf("left are %v and %v, want %d snapshots and few journals", s, j, keepShots)
	}
	check(t, open(t, dir, away(), Config{}).View(), src.state)
}

// TestIncompleteSnapshotIsRemoved: what a crash left of a snapshot goes at the next start, whatever the name of the
// directory.
func TestIncompleteSnapshotIsRemoved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "node [1]")
	if _, err := openFiles(dir); err != nil {
		t.Fatal(err)
	}
	part := filepath.Join(dir, "snapshot-000000000001"+partExt)
	if err := os.WriteFile(part, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openFiles(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(part); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the incomplete snapshot is still there: %v", err)
	}
}

// TestCrashWhileChangesStream takes images of the directory while changes arrive and snapshots are written: each must
// give the state at its position.
func TestCrashWhileChangesStream(t *testing.T) {
	src := newSource()
	p := seed(src)
	dir := t.TempDir()
	n := start(t, dir, src, Config{SnapshotAfterChanges: 40})
	n.wait(p)
	n.until("first snapshot", func(s Status) bool { return !s.Snapshot.IsZero() })
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		r := rand.New(rand.NewPCG(9, 9))
		for i := 0; ctx.Err() == nil; i++ {
			n.wait(src.commit(number(r.IntN(300), "fabrikam", fmt.Sprint("s", i)), gone(r.IntN(300))))
		}
	})
	for range 25 {
		before := n.r.Status().Position
		r := open(t, image(t, dir), away(), Config{})
		pos := r.Status().Position
		if pos < before {
			t.Errorf("the image is of position %d, but %d had been applied", pos, before)
		}
		m := newModel()
		src.mu.Lock()
		for _, e := range src.entries {
			if e.Position <= pos {
				m.apply(changesOf(t, e))
			}
		}
		src.mu.Unlock()
		check(t, r.View(), m)
	}
	cancel()
	wg.Wait()
}

// copyDir copies journals, then snapshots, then the journals again, which have grown in the meantime: files may appear
// and disappear, as they may while an image of a disk is taken.
func copyDir(t testing.TB, from, to string) {
	t.Helper()
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{journalKind, snapshotKind, journalKind} { // journals again: they have grown
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), kind) {
				continue
			}
			b, err := os.ReadFile(filepath.Join(from, e.Name()))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err == nil {
				err = os.WriteFile(filepath.Join(to, e.Name()), b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if entries, err = os.ReadDir(from); err != nil {
			t.Fatal(err)
		}
	}
}
