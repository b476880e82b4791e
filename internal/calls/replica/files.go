package replica

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/platform/feed"
)

// Files are named <kind>-<number>. All kinds share one sequence of numbers, in the order in which the files were
// started: a journal holds the changes after every snapshot with a lower number.
const (
	snapshotKind = "snapshot"
	journalKind  = "journal"
	damagedExt   = ".damaged" // set aside, for investigation
	partExt      = ".part"    // not finished
	keepShots    = 2          // the newest snapshot and the one before it
)

// files is the directory of an index.
type files struct {
	dir    string
	create func(path string) (journalFile, error) // replaced by tests that make the disk fail
	next   uint64                                 // number of the next file
}

func openFiles(dir string) (*files, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("directory of the number index: %w", err)
	}
	f := &files{dir: dir, create: createFile, next: 1}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("directory of the number index: %w", err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), partExt) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return nil, fmt.Errorf("remove an incomplete snapshot: %w", err)
			}
		}
		_, n, _ := strings.Cut(strings.TrimSuffix(e.Name(), damagedExt), "-")
		if n, err := strconv.ParseUint(n, 10, 63); err == nil {
			f.next = max(f.next, n+1)
		}
	}
	return f, nil
}

func createFile(path string) (journalFile, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

func (f *files) path(kind string, n uint64) string {
	return filepath.Join(f.dir, fmt.Sprintf("%s-%012d", kind, n))
}

// take returns the next file number.
func (f *files) take() uint64 {
	f.next++
	return f.next - 1
}

// list returns the file numbers of a kind, in ascending order.
func (f *files) list(kind string) ([]uint64, error) {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, err
	}
	var ns []uint64
	for _, e := range entries {
		k, n, ok := strings.Cut(e.Name(), "-")
		if !ok || k != kind {
			continue
		}
		if n, err := strconv.ParseUint(n, 10, 63); err == nil {
			ns = append(ns, n)
		}
	}
	slices.Sort(ns)
	return ns, nil
}

// newJournal starts a journal that continues a load.
func (f *files) newJournal(load string, sealer Sealer) (*journal, error) {
	path := f.path(journalKind, f.take())
	file, err := f.create(path)
	if err != nil {
		return nil, err
	}
	j, err := newJournal(file, load, time.Now().UTC(), sealer)
	if err == nil {
		err = syncDir(f.dir)
	}
	if err != nil {
		_ = file.Close()    // the error that matters is err
		_ = os.Remove(path) // it holds no change yet
		return nil, err
	}
	return j, nil
}

// writeSnapshot writes s as snapshot n: first under another name, then synced and renamed, so that a snapshot exists as
// a whole or not at all.
func (f *files) writeSnapshot(s *still, n uint64, sealer Sealer) (size int64, err error) {
	path := f.path(snapshotKind, n)
	file, err := f.create(path + partExt)
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(path + partExt) // openFiles tries again
		}
	}()
	size, err = writeSnapshot(file, s, sealer)
	if err == nil {
		err = file.Sync()
	}
	if cerr := file.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return 0, err
	}
	if err = os.Rename(path+partExt, path); err != nil {
		return 0, err
	}
	return size, syncDir(f.dir)
}

// prune removes the files that no restart needs: all but the newest snapshots, and journals older than the oldest of
// those kept. The journal being written is never among them: it was started after the newest snapshot was taken.
func (f *files) prune() error {
	shots, err := f.list(snapshotKind)
	if err != nil || len(shots) == 0 {
		return err
	}
	kept := shots[max(0, len(shots)-keepShots):]
	var errs []error
	for _, n := range shots[:len(shots)-len(kept)] {
		errs = append(errs, os.Remove(f.path(snapshotKind, n)))
	}
	journals, err := f.list(journalKind)
	errs = append(errs, err)
	for _, n := range journals {
		if n < kept[0] {
			errs = append(errs, os.Remove(f.path(journalKind, n)))
		}
	}
	return errors.Join(errs...)
}

// load reads the newest usable snapshot and the journals after it. The view is nil if there is no usable snapshot. load
// passes damaged files to report and sets damaged snapshots aside.
func (f *files) load(sealer Sealer, report func(file string, err error)) (v *View, info snapshotInfo, cur feed.Cursor,
	replayed int, err error) {
	shots, err := f.list(snapshotKind)
	if err != nil {
		return nil, info, cur, 0, fmt.Errorf("directory of the number index: %w", err)
	}
	var damaged []string
	var shot uint64
	for _, shot = range slices.Backward(shots) {
		path := f.path(snapshotKind, shot)
		err := f.read(path, func(r io.Reader) (err error) {
			v, info, err = readSnapshot(r, sealer)
			return err
		})
		if err == nil {
			break
		}
		v = nil
		report(path, err)
		if errors.Is(err, errDamaged) {
			damaged = append(damaged, path)
		}
	}
	if v == nil {
		// If none can be opened, the key is the more likely cause: keep them until it is available again.
		return nil, info, cur, 0, nil
	}
	for _, path := range damaged {
		// Set aside, so that it does not count as one of the snapshots kept. The operator may delete it.
		if err := os.Rename(path, path+damagedExt); err != nil {
			report(path, err)
		}
	}
	cur = info.Cursor
	journals, err := f.list(journalKind)
	if err != nil {
		return nil, info, cur, 0, fmt.Errorf("directory of the number index: %w", err)
	}
	for _, n := range journals {
		if n < shot {
			continue // the snapshot contains it, or it belongs to an earlier load than the snapshot
		}
		path := f.path(journalKind, n)
		err := f.read(path, func(r io.Reader) (err error) {
			var more int
			cur, more, err = replayJournal(r, sealer, v, info.Load, cur)
			replayed += more
			return err
		})
		// A journal has no last chunk: its file simply ends, inside a chunk or between two. The next journal continues
		// there, or reports that something is missing.
		if err == nil || errors.Is(err, errTorn) || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		report(path, err)
		if errors.Is(err, errMissing) {
			break
		}
	}
	return v, info, cur, replayed, nil
}

func (f *files) read(path string, do func(io.Reader) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return do(file)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
