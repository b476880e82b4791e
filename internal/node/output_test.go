package node

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tandemgw/tandem/internal/config"
)

// stream is standard error with a reader that can be stuck (writes block), lost (each write fails) and slow (writes
// accept some bytes and then fail).
type stream struct {
	mu    sync.Mutex
	taken strings.Builder
	fails int           // writes that fail, -1 for all
	takes int           // bytes that a failing write accepts first
	tries int           // writes seen
	gate  chan struct{} // when not nil, a write waits until it is closed
}

func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	gate := s.gate
	s.mu.Unlock()
	if gate != nil {
		<-gate
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tries++
	if s.fails != 0 {
		s.fails = max(s.fails-1, -1)
		n := min(s.takes, len(p))
		s.taken.Write(p[:n])
		return n, errors.New("broken pipe")
	}
	s.taken.Write(p)
	return len(p), nil
}

func (s *stream) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken.String()
}

func lines(o *Output, from, to int) {
	for i := from; i < to; i++ {
		fmt.Fprintf(o, "line %d\n", i)
	}
}

// TestAStuckReaderBlocksNoWriter: while nothing is read, lines are dropped and counted, and the first line written
// afterwards is their number.
func TestAStuckReaderBlocksNoWriter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &stream{gate: make(chan struct{})}
		o := NewOutput(s)
		o.form.Store(&config.Log{Level: "info", Format: "json"})
		fmt.Fprintln(o, "in the pipe")
		synctest.Wait() // the writer is blocked on it
		lines(o, 0, outputLines+25)
		if got := testutil.ToFloat64(o.dropped); got != 25 {
			t.Errorf("tandem_log_dropped_total is %v, want 25", got)
		}
		begun := time.Now()
		close(s.gate)
		o.Close()
		got := strings.Split(s.String(), "\n")
		if len(got) != 2+outputLines+1 || got[0] != "in the pipe" || !strings.Contains(got[1], `"dropped":25`) ||
			got[2] != "line 0" || got[len(got)-2] != fmt.Sprintf("line %d", outputLines-1) {
			t.Errorf("%d lines written, beginning with %q", len(got), got[:min(4, len(got))])
		}
		if took := time.Since(begun); took > 0 {
			t.Errorf("Close waited %v although the stream was read", took)
		}
	})
}

func TestCloseLeavesAStuckReader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &stream{gate: make(chan struct{})}
		o := NewOutput(s)
		lines(o, 0, 10)
		begun := time.Now()
		o.Close()
		if took := time.Since(begun); took != outputFlush {
			t.Errorf("Close took %v, want %v", took, outputFlush)
		}
		close(s.gate)
	})
}

// TestAnEmptyWriteEndsNothing: fmt.Fprint of an empty string writes nil.
func TestAnEmptyWriteEndsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &stream{}
		o := NewOutput(s)
		_, _ = o.Write(nil)
		synctest.Wait()
		lines(o, 0, 1)
		o.Close()
		if s.String() != "line 0\n" {
			t.Errorf("written %q after an empty write", s)
		}
	})
}

// TestLargeLinesAreBoundedBySize: the queue's size counts too.
func TestLargeLinesAreBoundedBySize(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &stream{gate: make(chan struct{})}
		o := NewOutput(s)
		fmt.Fprintln(o, "in the pipe")
		synctest.Wait()
		line := []byte(strings.Repeat("x", 64<<10-1) + "\n")
		for range outputBytes/len(line) + 3 {
			_, _ = o.Write(line)
		}
		if got := testutil.ToFloat64(o.dropped); got != 3 {
			t.Errorf("%v lines dropped, want 3", got)
		}
		close(s.gate)
		o.Close()
	})
}

// TestAClosedReaderIsTriedAgain: after an error the write is retried every five seconds. The number of dropped lines
// comes first, whole lines follow, and a line that was cut by the error is completed.
func TestAClosedReaderIsTriedAgain(t *testing.T) {
	t.Parallel()
	for takes := range 40 { // bytes that the stream accepts before it fails
		synctest.Test(t, func(t *testing.T) {
			s := &stream{fails: -1, takes: takes}
			o := NewOutput(s)
			fmt.Fprintln(o, "the line that fails, long enough to be cut anywhere")
			synctest.Wait()
			s.mu.Lock()
			s.takes = 0
			s.mu.Unlock()
			lines(o, 0, outputLines+7)
			time.Sleep(time.Minute - time.Second)
			synctest.Wait()
			if s.tries != 12 {
				t.Errorf("%d attempts in a minute, want 12", s.tries)
			}
			s.mu.Lock()
			s.fails = 0
			s.mu.Unlock()
			time.Sleep(5 * time.Second)
			synctest.Wait()
			got := strings.Split(strings.TrimSuffix(s.String(), "\n"), "\n")
			at := 0
			if takes > 0 { // the rest of the line that was cut comes first
				at = 1
			}
			if len(got) != outputLines+2 || !strings.Contains(got[at], "dropped=7") {
				t.Fatalf("cut after %d bytes: %d lines, beginning with %q", takes, len(got), got[:3])
			}
			want := append([]string{"the line that fails, long enough to be cut anywhere"},
				make([]string, outputLines)...)
			for i := range outputLines {
				want[i+1] = "line " + strconv.Itoa(i)
			}
			kept := append(append([]string{}, got[:at]...), got[at+1:]...)
			for i := range want {
				if kept[i] != want[i] {
					t.Fatalf("cut after %d bytes: line %d is %q, want %q", takes, i, kept[i], want[i])
				}
			}
			o.Close()
		})
	}
}

// TestTheReportOfDroppedLinesIsNotTornEither: the report itself may be cut.
func TestTheReportOfDroppedLinesIsNotTornEither(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &stream{fails: 1}
		o := NewOutput(s)
		fmt.Fprintln(o, "first")
		synctest.Wait()
		lines(o, 0, outputLines+1)
		s.mu.Lock()
		s.fails, s.takes = 1, 12
		s.mu.Unlock()
		time.Sleep(outputRetry)
		synctest.Wait()
		lines(o, 0, 3) // dropped while the report is partly written
		time.Sleep(outputRetry)
		o.Close()
		got := strings.Split(s.String(), "\n")
		if !strings.Contains(got[0], "dropped=1") || !strings.Contains(got[1], "dropped=3") || got[2] != "first" ||
			got[3] != "line 0" {
			t.Errorf("the stream begins with %q", got[:4])
		}
	})
}
