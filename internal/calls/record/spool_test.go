package record

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tandemgw/tandem/internal/services/directrouting"
	"github.com/tandemgw/tandem/internal/services/zoom"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func config(dir string) Config {
	c := Default()
	c.Directory = dir
	return c
}

func open(t *testing.T, c Config) *Spool {
	t.Helper()
	s, err := NewSpool(c, quiet(), prometheus.NewRegistry())
	if err != nil {
		t.Fatalf("NewSpool: %v", err)
	}
	return s
}

// run starts the spool and returns a function that stops it and waits.
func run(t *testing.T, s *Spool) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

func lines(t *testing.T, s *Spool) []Record {
	t.Helper()
	files, err := s.Files()
	if err != nil {
		t.Fatal(err)
	}
	var out []Record
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for l := range bytes.Lines(data) {
			var r Record
			if err := json.Unmarshal(l, &r); err != nil && !strings.Contains(err.Error(), "Service") {
				t.Fatalf("line %q of %s: %v", l, f, err)
			}
			out = append(out, r)
		}
	}
	return out
}

func TestARecordIsOneCompleteLine(t *testing.T) {
	s := open(t, config(t.TempDir()))
	stop := run(t, s)
	s.Put(&Record{ID: "c1", Called: "+442079460123", Caller: "+33140205050", Service: zoom.Service,
		Status: 200, EndedBy: Near,
		Tried: []Try{{Group: "zoom", Peer: "z1", Status: 200, Result: "answered"}}})
	stop()
	files, err := s.Files()
	if err != nil || len(files) != 1 {
		t.Fatalf("Files() = %v, %v; want one file", files, err)
	}
	data, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"id":"c1"`, `"called":"+442079460123"`, `"caller":"+33140205050"`,
		`"service":"zoomPhoneCloudPeering"`, `"endedBy":"near"`, `"peer":"z1"`} {
		if !strings.Contains(string(data), want) {
			t.Errorf("line %s lacks %s", data, want)
		}
	}
	if n := strings.Count(string(data), "\n"); n != 1 || !strings.HasSuffix(string(data), "\n") {
		t.Errorf("%d line ends in %q, want 1 at the end", n, data)
	}
}

// plain is Record without its methods, so that encoding/json uses its tags.
type plain Record

func TestTheHandWrittenJSONIsThatOfTheTags(t *testing.T) {
	at := time.Date(2026, 11, 21, 7, 0, 0, 123456000, time.UTC)
	for _, r := range []*Record{
		{},
		{ID: "a", Start: at, End: at},
		{ID: "c1", Node: "n1", Start: at, Progress: at.Add(time.Millisecond), Answer: at.Add(time.Second),
			End: at.Add(2 * time.Second), DurationSeconds: 1.25, Direction: "toCore",
			Service: directrouting.Service, Account: "acme", Called: "+442079460123", Caller: "+33140205050",
			Identity: "+44", IdentitySource: "From", CustomHeader: "c-1", Emergency: true,
			Rule: "provisioned-service", From: Side{Group: "core", Addr: "127.0.0.1:5060", CallID: "x\"<y>\\z@h"},
			FarCallID: "q", Status: 486, EndedBy: Far, Reason: "Besetzt – später &\n", Cause: 17,
			Tried: []Try{{Group: "g", Peer: "p", Addr: "[::1]:5060", At: at, Status: 503, Result: "refused"},
				{Group: "g", Peer: "p2", At: at, Result: "silence"}}},
	} {
		want, err := json.Marshal((*plain)(r))
		if err != nil {
			t.Fatal(err)
		}
		if got := string(r.AppendJSON(nil)); got != string(want) {
			t.Errorf("AppendJSON wrote\n%s\nencoding/json writes\n%s", got, want)
		}
	}
}

func TestAFullQueueDropsAndCounts(t *testing.T) {
	c := config(t.TempDir())
	c.QueueRecords = 3
	s := open(t, c)
	for range 5 {
		s.Put(&Record{ID: "x"})
	}
	if got := testutil.ToFloat64(s.calls.dropped); got != 2 {
		t.Errorf("dropped = %v, want 2", got)
	}
	run(t, s)()
	if got := len(lines(t, s)); got != 3 {
		t.Errorf("%d records written, want the 3 that were queued", got)
	}
}

func TestFilesRollBySizeAndOldOnesGo(t *testing.T) {
	c := config(t.TempDir())
	c.FileBytes, c.KeepBytes = 4096, 20000
	s := open(t, c)
	stop := run(t, s)
	for i := range 200 {
		s.Put(&Record{ID: strings.Repeat("i", 100), Status: i})
	}
	stop()
	files, err := s.Files()
	if err != nil {
		t.Fatal(err)
	}
	var total int64
	for _, f := range files {
		st, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		if st.Size() > c.FileBytes {
			t.Errorf("%s has %d bytes, want at most %d", f, st.Size(), c.FileBytes)
		}
		total += st.Size()
	}
	if len(files) < 4 || total > c.KeepBytes+c.FileBytes {
		t.Errorf("%d files with %d bytes, want several and at most about %d", len(files), total, c.KeepBytes)
	}
	got := lines(t, s)
	if got[len(got)-1].Status != 199 {
		t.Errorf("last record has status %d, want 199: the oldest must go, not the newest", got[len(got)-1].Status)
	}
	if n := testutil.ToFloat64(s.calls.written); n != 200 {
		t.Errorf("written = %v, want 200", n)
	}
}

func TestAFileLeftOpenByADeadProcessIsClosedWithoutItsHalfLine(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "node [1]") // a name that is not a pattern
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	part := filepath.Join(dir, "calls-20260101T000000.000000Z.jsonl.part")
	if err := os.WriteFile(part, []byte("{\"id\":\"whole\"}\n{\"id\":\"ha"), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(dir, "calls-20260101T000001.000000Z.jsonl.part")
	if err := os.WriteFile(empty, []byte("{\"id"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, config(dir))
	got := lines(t, s)
	if len(got) != 1 || got[0].ID != "whole" {
		t.Errorf("records after recovery = %v, want the complete one only", got)
	}
	for _, p := range []string{part, empty} {
		if _, err := os.Stat(p); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left open (%v)", p, err)
		}
	}
}

func TestAFileCloses_WhenItIsOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := config(t.TempDir())
		c.FileAge = time.Minute
		s := open(t, c)
		stop := run(t, s)
		s.Put(&Record{ID: "one"})
		synctest.Wait()
		time.Sleep(time.Minute + 2*time.Second) // fake time
		synctest.Wait()
		if got := len(lines(t, s)); got != 1 {
			t.Errorf("%d records in closed files after FileAge, want 1 without waiting for another record", got)
		}
		stop()
	})
}

func TestValidateNamesEveryMistake(t *testing.T) {
	c := Config{KeepFor: -1}
	if got := len(c.Validate()); got != 5 {
		t.Errorf("Validate() found %d mistakes, want 5: %v", got, c.Validate())
	}
	d := Default()
	if errs := d.Validate(); len(errs) != 0 {
		t.Errorf("Default() is not valid: %v", errs)
	}
}
