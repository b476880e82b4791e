package replica

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync/atomic"
	"testing"
)

// rotatingSealer seals with an old key, or with a new one once that is the primary one. Without the old key it opens
// only what the new one sealed.
type rotatingSealer struct {
	testSealer
	primary atomic.Bool
	retired atomic.Bool
	resealt atomic.Int64
}

func newRotatingSealer() *rotatingSealer { return &rotatingSealer{testSealer: newSealer()} }

func (s *rotatingSealer) Seal(purpose string, plain []byte) ([]byte, error) {
	key := byte('o')
	if s.primary.Load() {
		key = 'n'
	}
	sealed, err := s.testSealer.Seal(purpose+string(key), plain)
	return append([]byte{key}, sealed...), err
}

func (s *rotatingSealer) Open(purpose string, sealed []byte) ([]byte, error) {
	if len(sealed) == 0 || sealed[0] == 'o' && s.retired.Load() {
		return nil, errors.New("no such key")
	}
	return s.testSealer.Open(purpose+string(sealed[0]), sealed[1:])
}

// see seals again what the old key sealed.
func (s *rotatingSealer) see(purpose string, sealed []byte) ([]byte, error) {
	if sealed[0] == 'n' {
		return sealed, nil
	}
	plain, err := s.Open(purpose, sealed)
	if err != nil {
		return nil, err
	}
	s.resealt.Add(1)
	return s.Seal(purpose, plain)
}

func openSealed(t *testing.T, dir string, s Sealer) *Replica {
	t.Helper()
	r, err := Open(Config{}, dir, away(), s, discard(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestFilesAreSealedAgainWhileTheIndexChanges: the new key alone opens all files, and no change is missing, whenever
// the process is killed.
func TestFilesAreSealedAgainWhileTheIndexChanges(t *testing.T) {
	src, dir, s := newSource(), t.TempDir(), newRotatingSealer()
	p := seed(src)
	n := start(t, dir, src, Config{}, func(r *Replica) { r.sealer = s })
	n.wait(p)
	n.until("first snapshot", func(s Status) bool { return !s.Snapshot.IsZero() })
	for i := range 5 {
		n.wait(src.commit(number(i, "fabrikam", fmt.Sprint("before-", i))))
	}
	s.primary.Store(true)
	done := make(chan error)
	go func() { done <- n.r.EachKey(s.see) }()
	for i := range 20 {
		n.wait(src.commit(number(i, "fabrikam", fmt.Sprint("during-", i))))
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if s.resealt.Load() < 2 {
		t.Errorf("%d files were sealed again, want the snapshot and the journal", s.resealt.Load())
	}
	only := newRotatingSealer()
	only.retired.Store(true)
	check(t, openSealed(t, image(t, dir), only).View(), src.state)

	n.wait(src.commit(number(1, "fabrikam", "after")))
	check(t, openSealed(t, image(t, dir), only).View(), src.state)
	files := s.resealt.Load()
	if err := n.r.EachKey(s.see); err != nil || s.resealt.Load() != files {
		t.Errorf("a second pass sealed %d files again, %v", s.resealt.Load()-files, err)
	}
}

// TestFilesOfAKilledProcessAreSealedAgain: a journal that ends inside a chunk, or a file that cannot be written, costs
// nothing that could be read before.
func TestFilesOfAKilledProcessAreSealedAgain(t *testing.T) {
	src, dir, s := newSource(), t.TempDir(), newRotatingSealer()
	p := seed(src)
	n := start(t, dir, src, Config{}, func(r *Replica) { r.sealer = s })
	n.wait(p)
	n.until("first snapshot", func(s Status) bool { return !s.Snapshot.IsZero() })
	n.wait(src.commit(number(1, "fabrikam", "kept")))
	state := &model{maps.Clone(src.state.accounts), maps.Clone(src.state.numbers)}
	n.wait(src.commit(number(2, "fabrikam", "torn")))
	dir = image(t, dir)
	journals := glob(t, dir, "journal-*")
	last := journals[len(journals)-1]
	b, err := os.ReadFile(last)
	if err == nil {
		err = os.WriteFile(last, b[:len(b)-3], 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}

	s.primary.Store(true)
	full := errors.New("no space left on device")
	before := readAll(t, dir)
	failing := &files{dir: dir, create: func(string) (journalFile, error) { return nil, full }}
	if err := failing.eachKey(s, s.see, func() {}); !errors.Is(err, full) || !strings.Contains(err.Error(), dir) {
		t.Errorf("on a full disk: %v", err)
	}
	for name, content := range before {
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s changed on a full disk: %v", name, err)
		}
	}
	if err := os.WriteFile(last+partExt, []byte("of a process that died"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := EachKey(dir, s, s.see); err != nil {
		t.Fatal(err)
	}
	s.retired.Store(true)
	check(t, openSealed(t, dir, s).View(), state)

	if err := EachKey(t.TempDir()+"/none", s, s.see); err != nil {
		t.Errorf("without an index: %v", err)
	}
}

func readAll(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for _, name := range glob(t, dir, "*") {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = b
	}
	return out
}
