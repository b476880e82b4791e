package node

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/config"
)

// What an Output holds for a reader that is slow: about half a minute of a busy log.
const (
	outputLines = 10_000
	outputBytes = 4 << 20
)

const (
	outputRetry = 5 * time.Second
	outputFlush = time.Second // how long Close waits for the reader
	outputBatch = 4096        // PIPE_BUF: a pipe takes so much as a whole or not at all
)

// Output writes lines to a standard stream without ever making the caller wait: the stream may be a pipe that nothing
// reads. Lines wait in a queue of bounded length and size; those that find it full are dropped and counted, and the number
// is the first line written when the stream takes lines again. After an error the write is repeated every outputRetry; a
// line that was written in part is completed first, so that no line is torn. Output is safe for concurrent use.
type Output struct {
	w       io.Writer
	dropped prometheus.Counter
	wake    chan struct{} // has room for one token: there is something to do
	closing chan struct{} // closed by Close
	done    chan struct{} // closed by run

	mu     sync.Mutex // guards what follows
	lines  [][]byte
	bytes  int
	missed uint64                // dropped and not yet reported in the stream
	notice func(n uint64) []byte // the line that reports them
}

// NewOutput returns an Output to w. Close ends its goroutine.
func NewOutput(w io.Writer) *Output {
	o := &Output{w: w, wake: make(chan struct{}, 1), closing: make(chan struct{}), done: make(chan struct{}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{Name: "tandem_log_dropped_total",
			Help: "Log lines dropped because standard error did not take them in time."}),
		notice: func(n uint64) []byte {
			return fmt.Appendf(nil, "tandem: %d lines dropped: the reader is too slow\n", n)
		}}
	go o.run()
	return o
}

// Write queues p, which is one or several whole lines. It never blocks and never fails.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	if len(o.lines) >= outputLines || o.bytes+len(p) > outputBytes {
		o.missed++
		o.dropped.Inc()
	} else {
		o.lines, o.bytes = append(o.lines, bytes.Clone(p)), o.bytes+len(p)
	}
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
	return len(p), nil
}

// Stream returns what the Output writes to.
func (o *Output) Stream() io.Writer { return o.w }

// Close writes what is queued and returns, after outputFlush even if the stream has not taken it. It must be called once.
func (o *Output) Close() {
	close(o.closing)
	select {
	case <-o.done:
	case <-time.After(outputFlush):
	}
}

// run writes. torn is what is left of a line that was written in part, batch are whole lines.
func (o *Output) run() {
	defer close(o.done)
	var torn, batch []byte
	last := false
	for {
		if len(torn)+len(batch) == 0 {
			if batch = o.take(); batch == nil {
				return
			}
		}
		var n int
		var err error
		missed, notice := o.missing()
		switch {
		case len(torn) > 0:
			n, err = o.w.Write(torn)
			torn = torn[n:]
		case missed > 0:
			if n, err = o.w.Write(notice); n > 0 {
				o.told(missed)
				torn = notice[n:]
			}
		default:
			n, err = o.w.Write(batch)
			rest := batch[n:]
			if n > 0 && batch[n-1] != '\n' {
				end := bytes.IndexByte(rest, '\n') + 1
				torn, rest = rest[:end], rest[end:]
			}
			batch = rest
		}
		if err == nil {
			continue
		}
		if last {
			return
		}
		retry := time.NewTimer(outputRetry)
		select {
		case <-retry.C:
		case <-o.closing:
			last = true // one more attempt
		}
		retry.Stop()
	}
}

// take waits for lines and returns as many as a pipe takes in one piece, or a longer one alone. It returns nil when the
// Output is closed and empty.
func (o *Output) take() []byte {
	for {
		o.mu.Lock()
		var batch []byte
		n := 0
		for n < len(o.lines) && (n == 0 || len(batch)+len(o.lines[n]) <= outputBatch) {
			batch = append(batch, o.lines[n]...)
			n++
		}
		clear(o.lines[:n])
		o.lines, o.bytes = o.lines[n:], o.bytes-len(batch)
		o.mu.Unlock()
		if n > 0 {
			return batch
		}
		select {
		case <-o.wake:
		case <-o.closing:
			// Whatever was queued before Close is there to be taken.
			if len(o.wake) == 0 {
				return nil
			}
		}
	}
}

// missing returns how many lines were dropped and not reported yet, with the line that reports them.
func (o *Output) missing() (n uint64, notice []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.missed > 0 {
		notice = o.notice(o.missed)
	}
	return o.missed, notice
}

// told notes that n dropped lines were reported.
func (o *Output) told(n uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.missed -= n
}

// report sets how dropped lines are reported: by a line in the form of the log.
func (o *Output) report(c config.Log) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.notice = func(n uint64) []byte {
		var b bytes.Buffer
		newLogger(&b, c).Error("log lines dropped: standard error was not read in time", "dropped", n)
		return b.Bytes()
	}
}
