package record

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

var errFull = errors.New("no space left on device")

// disk simulates a disk that can be full: a write then stores half of the data.
type disk struct {
	full, torn, noCreate atomic.Bool
	created              atomic.Int64
}

type diskFile struct {
	file
	d *disk
}

func (f diskFile) Write(b []byte) (int, error) {
	if f.d.full.Load() {
		n, _ := f.file.Write(b[:len(b)/2])
		return n, errFull
	}
	return f.file.Write(b)
}

func (f diskFile) Truncate(n int64) error {
	if f.d.torn.Load() {
		return errors.New("input/output error")
	}
	return f.file.Truncate(n)
}

func (d *disk) create(path string) (file, error) {
	d.created.Add(1)
	if d.noCreate.Load() {
		return nil, errFull
	}
	f, err := createFile(path)
	if err != nil {
		return nil, err
	}
	return diskFile{f, d}, nil
}

func ids(t *testing.T, s *Spool) string {
	t.Helper()
	var out []string
	for _, r := range lines(t, s) {
		out = append(out, r.ID)
	}
	return strings.Join(out, " ")
}

// pass lets the spool work for d.
func pass(d time.Duration) {
	time.Sleep(d) // fake time
	synctest.Wait()
}

func counts(s *Spool) string {
	return fmt.Sprintf("written %v, dropped %v, failed %v, down %v", testutil.ToFloat64(s.calls.written),
		testutil.ToFloat64(s.calls.dropped), testutil.ToFloat64(s.calls.failed), s.calls.down.Load())
}

func TestAFullDiskLosesNoRecordUncounted(t *testing.T) {
	for _, create := range []bool{false, true} {
		t.Run(fmt.Sprintf("createFails=%v", create), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := config(t.TempDir())
				c.QueueRecords = 4
				s, d := open(t, c), &disk{}
				s.calls.create = d.create
				stop := run(t, s)
				s.Put(&Record{ID: "a"})
				pass(2 * time.Second)
				if got, want := counts(s), "written 1, dropped 0, failed 0, down false"; got != want {
					t.Fatalf("%s, want %s", got, want)
				}
				d.full.Store(true)
				d.noCreate.Store(create)
				s.Put(&Record{ID: "b"})
				pass(2 * time.Second)
				s.Put(&Record{ID: "c"})
				pass(10 * time.Minute)
				if got, want := counts(s), "written 1, dropped 0, failed 0, down true"; got != want {
					t.Errorf("%s, want %s: only the first is synced, none is lost yet", got, want)
				}
				if n := d.created.Load(); n > 20 {
					t.Errorf("%d files started in ten minutes, want growing delays", n)
				}
				if left, _ := filepath.Glob(filepath.Join(c.Directory, "*")); len(left) != 1 {
					t.Errorf("%v left by the attempts, want only the file with the synced record", left)
				}
				for _, id := range []string{"d", "e", "f"} {
					s.Put(&Record{ID: id})
				}
				if got, want := counts(s), "written 1, dropped 1, failed 0, down true"; got != want {
					t.Errorf("%s, want %s: the queue is full", got, want)
				}
				d.full.Store(false)
				d.noCreate.Store(false)
				pass(maxBackoff + 2*time.Second)
				if got, want := counts(s), "written 5, dropped 1, failed 0, down false"; got != want {
					t.Errorf("%s, want %s: the waiting records are written once there is room", got, want)
				}
				stop()
				if got, want := ids(t, s), "a b c d e"; got != want {
					t.Errorf("records %s, want %s: each once, in order", got, want)
				}
			})
		})
	}
}

func TestWhatCannotBeWrittenAtTheEndCountsAsFailed(t *testing.T) {
	s, d := open(t, config(t.TempDir())), &disk{}
	d.full.Store(true)
	s.calls.create = d.create
	for range 1000 { // more than one buffer
		s.Put(&Record{ID: "x", Reason: strings.Repeat("r", 200)})
	}
	if err := s.calls.stop(); err == nil {
		t.Error("stop does not report the lost records")
	}
	if got, want := counts(s), "written 0, dropped 0, failed 1000, down true"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestAFileThatCannotBeCutBackIsNotWrittenTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := config(t.TempDir())
		s, d := open(t, c), &disk{}
		s.calls.create = d.create
		stop := run(t, s)
		s.Put(&Record{ID: "safe"})
		pass(2 * time.Second)
		d.full.Store(true)
		d.torn.Store(true)
		s.Put(&Record{ID: "half"})
		pass(2 * time.Second)
		d.full.Store(false)
		d.torn.Store(false)
		s.Put(&Record{ID: "later"})
		pass(5 * time.Second)
		stop()
		if got, want := ids(t, s), "safe later"; got != want {
			t.Errorf("records %s, want %s", got, want)
		}
		if got, want := counts(s), "written 2, dropped 0, failed 1, down false"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if left, _ := filepath.Glob(filepath.Join(c.Directory, "*"+partSuffix)); len(left) != 0 {
			t.Errorf("%v left open", left)
		}
	})
}

func TestFilesThatCloseByAgeArePruned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := config(t.TempDir())
		c.FileAge, c.KeepFor = time.Minute, time.Hour
		s := open(t, c)
		stop := run(t, s)
		for range 180 {
			s.Put(&Record{ID: "x"})
			pass(time.Minute)
		}
		stop()
		if files, err := s.Files(); err != nil || len(files) < 20 || len(files) > 62 {
			t.Errorf("%d files (%v), want those of the last hour only", len(files), err)
		}
	})
}

func TestAFloodOfRefusedCallsLeavesTheRecordsOfCalls(t *testing.T) {
	c := config(t.TempDir())
	c.FileBytes, c.KeepBytes, c.QueueRecords = 4096, 64<<10, 50
	s := open(t, c)
	call := &Record{ID: "call", Status: 200, EndedBy: Near}
	tried := &Record{ID: "tried", Status: 503, EndedBy: Tandem, Tried: []Try{{Group: "core"}}}
	refused := &Record{ID: "refused", Status: 503, EndedBy: Tandem, Reason: strings.Repeat("r", 200)}
	s.Put(call)
	for range 50 {
		for range 60 {
			s.Put(refused)
		}
		s.refused.drain()
	}
	s.Put(tried)
	run(t, s)()
	got := map[string]int{}
	for _, r := range lines(t, s) {
		got[r.ID]++
	}
	if got["call"] != 1 || got["tried"] != 1 || got["refused"] == 0 {
		t.Errorf("records kept: %v, want both calls and some refusals", got)
	}
	if n := testutil.ToFloat64(s.calls.dropped); n != 0 {
		t.Errorf("%v records of calls dropped", n)
	}
	if n := testutil.ToFloat64(s.refused.dropped); n != 500 {
		t.Errorf("%v records of refused calls dropped, want 10 of each 60, those that exceed the queue", n)
	}
	var bytes int64
	files, err := s.refused.files(fileSuffix)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		st, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		bytes += st.Size()
	}
	if bytes > c.KeepBytes/8 {
		t.Errorf("%d bytes of refused calls kept, want at most an eighth of %d", bytes, c.KeepBytes)
	}
}
