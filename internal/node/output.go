package node

import (
	"bytes"
	"io"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/config"
)

// The queue of an Output, for a slow reader: a few seconds of a busy log.
const (
	outputLines = 10_000
	outputBytes = 4 << 20
)

const (
	outputRetry = 5 * time.Second
	outputFlush = time.Second // how long Close waits for the reader
)

// Output writes lines to a standard stream without ever blocking the caller: the stream may be a pipe that nothing
// reads. Lines wait in a queue of bounded length and size. When it is full, further lines are dropped and counted, and
// the first line written after that reports the number. After an error the write is retried every outputRetry; a
// partially written line is completed first, so that no line is torn. Output is safe for concurrent use.
type Output struct {
	w       io.Writer
	lines   chan []byte
	bytes   atomic.Int64
	dropped prometheus.Counter
	missed  atomic.Int64               // dropped and not yet reported in the stream
	form    atomic.Pointer[config.Log] // format of the line that reports them
	closing chan struct{}              // closed by Close
	done    chan struct{}              // closed by run
}

// NewOutput returns an Output to w. Close ends its goroutine.
func NewOutput(w io.Writer) *Output {
	o := &Output{w: w, lines: make(chan []byte, outputLines), closing: make(chan struct{}), done: make(chan struct{}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{Name: "tandem_log_dropped_total",
			Help: "Log lines dropped because standard error was not read in time."})}
	o.form.Store(&config.Log{Level: "info"})
	go o.run()
	return o
}

// Write queues p, which must be one or more whole lines. It never blocks and never fails.
func (o *Output) Write(p []byte) (int, error) {
	size := int64(len(p))
	if o.bytes.Add(size) <= outputBytes {
		select {
		case o.lines <- append([]byte{}, p...): // a copy that is never nil, which would mean the end
			return len(p), nil
		default:
		}
	}
	o.bytes.Add(-size)
	o.missed.Add(1)
	o.dropped.Inc()
	return len(p), nil
}

// Close writes the queued lines and returns, at the latest after outputFlush. Call it once.
func (o *Output) Close() {
	close(o.closing)
	select {
	case <-o.done:
	case <-time.After(outputFlush):
	}
}

// next waits for the next line. It returns nil when the Output is closed and empty.
func (o *Output) next() (line []byte) {
	select {
	case line = <-o.lines:
	case <-o.closing:
		select {
		case line = <-o.lines:
		default:
		}
	}
	o.bytes.Add(-int64(len(line)))
	return line
}

// run writes the queued lines. torn is the rest of a line that was written in part.
func (o *Output) run() {
	defer close(o.done)
	var torn, line []byte
	for last := false; ; {
		if len(torn)+len(line) == 0 {
			if line = o.next(); line == nil {
				return
			}
		}
		var n int
		var err error
		switch missed := o.missed.Load(); {
		case len(torn) > 0:
			n, err = o.w.Write(torn)
			torn = torn[n:]
		case missed > 0:
			notice := o.notice(missed)
			if n, err = o.w.Write(notice); n > 0 {
				torn = notice[n:]
				o.missed.Add(-missed)
			}
		default:
			if n, err = o.w.Write(line); n > 0 {
				torn, line = line[n:], nil
			}
		}
		if err == nil {
			continue
		}
		if last {
			return
		}
		select {
		case <-time.After(outputRetry):
		case <-o.closing:
			last = true // one more attempt
		}
	}
}

// notice returns the line that reports n dropped lines.
func (o *Output) notice(n int64) []byte {
	var b bytes.Buffer
	newLogger(&b, *o.form.Load()).Error("log lines dropped: standard error was not read in time", "dropped", n)
	return b.Bytes()
}
