//go:build deep

package static

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sort"
	"testing"
	"time"
)

// index returns the directory of the number index's files.
func (s *site) index() string { return filepath.Join(s.dir, "index") }

// files returns the index's files of a kind ("snapshot", "journal"), oldest first.
func (s *site) files(t *testing.T, kind string) []string {
	t.Helper()
	fs, err := filepath.Glob(filepath.Join(s.index(), kind+"-[0-9]*"))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range fs {
		if filepath.Ext(f) == "" {
			out = append(out, f)
		}
	}
	sort.Strings(out)
	return out
}

// keep copies the index's files and returns a function that restores them.
func (s *site) keep(t *testing.T) (restore func()) {
	t.Helper()
	kept := t.TempDir()
	copyTo := func(from, to string) {
		if err := os.RemoveAll(to); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(to, os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(to, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(kept, "index")
	copyTo(s.index(), dir)
	return func() { copyTo(dir, s.index()) }
}

// Ways to damage a file.
var (
	flip = func(part float64) func([]byte) []byte {
		return func(b []byte) []byte {
			b[int(part*float64(len(b)-1))] ^= 0x20
			return b
		}
	}
	cut = func(part float64) func([]byte) []byte {
		return func(b []byte) []byte { return b[:int(part*float64(len(b)))] }
	}
	loseByte = func(b []byte) []byte { return b[:len(b)-1] }
	zero     = func(b []byte) []byte { clear(b[len(b)/3 : len(b)/2]); return b }
)

func damage(t *testing.T, file string, how func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, how(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedSnapshot starts an edge without its database from damaged files. If the newest snapshot is damaged, the
// one before is used with the journals after it; without an intact one, the edge refuses calls until the database is
// available again.
func TestDamagedSnapshot(t *testing.T) {
	t.Parallel()
	pg, database := cluster(t)
	s := newSite(t, database)
	s.start(t)
	before := s.provision(t)
	s.stop(t) // writes the snapshot before the newest
	s.start(t)
	c := s.api(t)
	after := maps.Clone(before)
	few := map[string]route{} // some changed, some not
	for i := range 10 {
		n, m := nth(firstDR, i), nth(firstZoom, i)
		after[n] = route{oc, fmt.Sprintf("late-%d", i)}
		if err := put(t.Context(), c, n, after[n]); err != nil {
			t.Fatal(err)
		}
		few[n], few[m] = after[n], after[m]
	}
	s.waitRoutes(t, after)
	s.stop(t) // writes the newest snapshot
	pg.Kill(t)

	shots := s.files(t, "snapshot")
	if len(shots) != 2 {
		t.Fatalf("%d snapshots on disk, want the newest and the one before: %v", len(shots), shots)
	}
	previous, newest := shots[0], shots[1]
	restore := s.keep(t)
	for _, x := range []struct {
		name string
		how  func([]byte) []byte
	}{
		{"a bit at the start", flip(0)}, {"a bit in the head", flip(0.02)}, {"a bit in the middle", flip(0.5)},
		{"a bit at the end", flip(1)},
		{"half of it is missing", cut(0.5)}, {"the last byte is missing", loseByte}, {"it is empty", cut(0)},
		{"a part is zeros", zero},
	} {
		t.Run("newest: "+x.name, func(t *testing.T) {
			restore()
			damage(t, newest, x.how)
			s.start(t)
			defer s.kill()
			if err := s.compare(t.Context(), after); err != nil {
				t.Error(err)
			}
			if d := s.metric(t, "tandem_replica_damaged_files_total"); d != 1 {
				t.Errorf("%v damaged files counted, want 1", d)
			}
		})
	}
	t.Run("newest, and the journal is missing: the state of the one before", func(t *testing.T) {
		restore()
		damage(t, newest, flip(0.5))
		for _, j := range s.files(t, "journal") {
			if err := os.Remove(j); err != nil {
				t.Fatal(err)
			}
		}
		s.start(t)
		defer s.kill()
		if err := s.compare(t.Context(), before); err != nil {
			t.Error(err)
		}
	})
	t.Run("newest: calls are routed", func(t *testing.T) {
		restore()
		damage(t, newest, flip(0.7))
		s.start(t)
		defer s.kill()
		s.callThem(t, few)
	})
	t.Run("both: calls are refused until the database is available", func(t *testing.T) {
		restore()
		damage(t, newest, flip(0.3))
		damage(t, previous, cut(0.9))
		s.launch(t)
		s.refusesCalls(t)
		pg.Start(t)
		s.waitReady(t)
		if err := s.compare(t.Context(), after); err != nil {
			t.Error(err)
		}
		s.callThem(t, few)
	})
}

// TestDamagedJournal kills an edge whose last changes are only in its journal, damages the journal, and starts the edge
// without the database. It must know all changes up to some point and none after it; if only the end is damaged, all
// except the last.
func TestDamagedJournal(t *testing.T) {
	t.Parallel()
	pg, database := cluster(t)
	s := newSite(t, database)
	s.start(t)
	states := []map[string]route{s.provision(t)}
	s.stop(t)
	s.start(t)
	c := s.api(t)
	const changes = 40
	for i := range changes {
		n := nth(firstOC, i)
		r := route{zoom, fmt.Sprintf("step-%d", i)}
		if err := put(t.Context(), c, n, r); err != nil {
			t.Fatal(err)
		}
		s.waitRoutes(t, map[string]route{n: r}) // so that each is a separate batch in the journal
		next := maps.Clone(states[i])
		next[n] = r
		states = append(states, next)
	}
	// The position that the index reports is on disk too.
	eventually(t, 5*time.Second, "the index is level", func() error { return s.level(t) })
	pg.Kill(t)
	s.kill()

	journals := s.files(t, "journal")
	if len(journals) == 0 {
		t.Fatal("there is no journal")
	}
	newest := journals[len(journals)-1]
	restore := s.keep(t)
	for _, x := range []struct {
		name string
		how  func([]byte) []byte
		want int // the number of changes that must be known; -1: some, but not all
	}{
		{"nothing", func(b []byte) []byte { return b }, changes},
		{"the last byte is missing", loseByte, changes - 1},
		{"a bit at the end", flip(1), changes - 1},
		{"a bit in the middle", flip(0.5), -1},
		{"a quarter is missing", cut(0.75), -1},
		{"most is missing", cut(0.2), -1},
		{"a part is zeros", zero, -1},
		{"it is empty", cut(0), 0},
	} {
		t.Run("damaged: "+x.name, func(t *testing.T) {
			restore()
			damage(t, newest, x.how)
			s.start(t)
			defer s.kill()
			known := 0
			for known < changes {
				n := nth(firstOC, known)
				got, err := s.routed(t.Context(), n)
				if err != nil {
					t.Fatal(err)
				}
				if got != states[changes][n] {
					break
				}
				known++
			}
			t.Logf("%d of %d changes known", known, changes)
			if x.want >= 0 && known != x.want || x.want < 0 && (known == 0 || known == changes) {
				t.Errorf("%d of %d changes are known, want %d (-1: some)", known, changes, x.want)
			}
			if err := s.compare(t.Context(), states[known]); err != nil {
				t.Errorf("this is not the state after the first %d changes: %v", known, err)
			}
		})
	}
	t.Run("the database is available again: lost changes are read again", func(t *testing.T) {
		restore()
		damage(t, newest, cut(0.6))
		s.start(t)
		pg.Start(t)
		s.waitRoutes(t, states[changes])
	})
}
