package replica

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/feed"
)

// memFile is a journalFile in memory.
type memFile struct{ bytes.Buffer }

func (*memFile) Sync() error  { return nil }
func (*memFile) Close() error { return nil }

// samples returns a snapshot file and a journal file with every kind of record.
func samples(t testing.TB) (snapshot, journalData []byte, v *View) {
	t.Helper()
	src := newSource()
	seed(src)
	src.commit(number(7, "newco", "ONE"), number(109, "contoso", "a-header-value-of-another-length"), gone(3))
	for i := range 40 {
		src.commit(number(250+i, []string{"contoso", "fabrikam"}[i%2], ""))
	}
	v = newView(0)
	for _, e := range src.entries {
		if err := v.applyEntry(e, nil); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if _, err := writeSnapshot(&b, v.hold(src.cursor(src.head), "", time.Unix(0, 0).UTC()), newSealer()); err != nil {
		t.Fatal(err)
	}
	f := &memFile{}
	j, err := newJournal(f, "", time.Unix(0, 0).UTC(), newSealer())
	if err != nil {
		t.Fatal(err)
	}
	if err := j.append(0, src.entries); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), f.Bytes(), v
}

// lookUp performs every kind of look-up, to find values that would crash one.
func lookUp(v *View) {
	t := v.content.Load().table
	for i := range t.slots {
		k := t.slots[i].key.Load()
		if k == 0 {
			continue
		}
		for j := range uint64(pageSize) {
			n := domain.E164FromKey((k-1)*pageSize + j)
			v.ByKey((k-1)*pageSize + j)
			v.CustomHeader(n)
		}
	}
	for _, l := range []string{"", "contoso", "fab"} {
		v.AccountByLabel(l)
	}
}

// FuzzFiles passes whole files to both readers: they must return errors, never panic, and never use unbounded memory.
func FuzzFiles(f *testing.F) {
	s, j, _ := samples(f)
	f.Add(s)
	f.Add(j)
	f.Add(s[:len(s)/2])
	f.Add([]byte(snapshotMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		if v, _, err := readSnapshot(bytes.NewReader(b), newSealer()); (err == nil) != (v != nil) {
			t.Errorf("readSnapshot = %v, %v", v, err)
		} else if v != nil {
			lookUp(v)
		}
		v := newView(0)
		if _, _, err := replayJournal(bytes.NewReader(b), newSealer(), v, "", feed.Cursor{}); err == nil {
			t.Error("a journal has no last chunk, so reading it must end with an error")
		}
		lookUp(v)
	})
}

// FuzzRecords passes the plain text of a chunk to the parsers behind the seal: a chunk that opens may still be invalid
// if another version wrote it.
func FuzzRecords(f *testing.F) {
	for _, data := range [][]byte{first(f, true), first(f, false)} {
		for _, n := range []int{0, 1, len(data) / 2, len(data)} {
			f.Add(data[:n])
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, format1 := range []bool{false, true} {
			l := newLoader(snapshotInfo{Pages: 64, Accounts: 64, IDs: 64}, format1)
			if err := l.load(b); err == nil {
				lookUp(l.done())
			} else if !errors.Is(err, errDamaged) {
				t.Errorf("load = %v, want errDamaged", err)
			}
			v := newView(0)
			if cur, _, err := replayBatch(b, v, feed.Cursor{Position: 1 << 40}); err == nil &&
				cur.Position < 1<<40 {
				t.Errorf("replayBatch went back to %v", cur)
			}
			if _, _, err := replayBatch(b, v, feed.Cursor{}); err != nil && !errors.Is(err, errDamaged) &&
				!errors.Is(err, errMissing) {
				t.Errorf("replayBatch = %v, want errDamaged or errMissing", err)
			}
			lookUp(v)
		}
	})
}

// first returns the plain text of the first chunk of a sample.
func first(t testing.TB, snapshot bool) []byte {
	s, j, _ := samples(t)
	magic, purpose, data := journalMagic, journalPurpose, j
	if snapshot {
		magic, purpose, data = snapshotMagic, snapshotPurpose, s
	}
	sr, err := newSealedReader(bytes.NewReader(data), purpose, newSealer(), magic)
	if err != nil {
		t.Fatal(err)
	}
	b, err := sr.next()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestFilesGiveBackTheView: a written view reads back the same, page by page and header by header.
func TestFilesGiveBackTheView(t *testing.T) {
	s, j, want := samples(t)
	fromShot, info, err := readSnapshot(bytes.NewReader(s), newSealer())
	if err != nil {
		t.Fatal(err)
	}
	if info.Position != 44 || info.Numbers != want.Numbers() {
		t.Errorf("the snapshot says position %d and %d numbers, want 44 and %d", info.Position,
			info.Numbers, want.Numbers())
	}
	fromJournal := newView(0)
	cur, n, err := replayJournal(bytes.NewReader(j), newSealer(), fromJournal, "", feed.Cursor{})
	if cur.Position != 44 || cur.Entry != info.Entry || n != 44 || !errors.Is(err, errTorn) {
		t.Errorf("replayJournal = %v, %d, %v, want 44, 44 and the file's end", cur, n, err)
	}
	for name, got := range map[string]*View{"snapshot": fromShot, "journal": fromJournal} {
		if got.Numbers() != want.Numbers() || got.bytes.Load() != want.bytes.Load() {
			t.Errorf("%s: %d numbers in %d bytes, want %d in %d", name, got.Numbers(), got.bytes.Load(), want.Numbers(),
				want.bytes.Load())
		}
		for i := range uint64(400) {
			e := domain.E164FromKey(442079460000 - 20 + i)
			g, gok := got.Number(e)
			w, wok := want.Number(e)
			if gok != wok || got.CustomHeader(e) != want.CustomHeader(e) || gok &&
				(g.Services != w.Services || *g.Account != *w.Account) {
				t.Errorf("%s: %s reads as %+v, %q; want %+v, %q", name, e, g, got.CustomHeader(e), w,
					want.CustomHeader(e))
			}
		}
		for _, l := range []string{"contoso", "fab", "nobody"} {
			if (got.AccountByLabel(l) == nil) != (want.AccountByLabel(l) == nil) {
				t.Errorf("%s: label %s reads as %v", name, l, got.AccountByLabel(l))
			}
		}
	}
}
