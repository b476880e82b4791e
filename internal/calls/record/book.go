package record

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Bounds of the delay before a failed write is retried.
const (
	minBackoff = time.Second
	maxBackoff = time.Minute
)

// file is what a book needs from the file it writes to; tests make it fail.
type file interface {
	io.WriteCloser
	Sync() error
	Truncate(size int64) error
}

func createFile(path string) (file, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
}

// book is one kind of the spool's files, and their queue. Only the goroutine in Spool.Run may use it, except for put
// and the metrics.
type book struct {
	cfg    Config
	prefix string
	create func(path string) (file, error)
	log    *slog.Logger

	written, failed, dropped prometheus.Counter
	down                     atomic.Bool // writing failed and has not succeeded since

	mu    sync.Mutex // guards queue
	queue []*Record
	spare []*Record // the queue's second buffer

	file    file // nil: none is open
	w       *bufio.Writer
	name    string // without partSuffix
	born    time.Time
	size    int64     // bytes written
	safe    int64     // of them, synced to the disk
	pending []*Record // written beyond safe
	line    []byte    // buffer for one line

	backoff time.Duration
	retry   time.Time // nothing is written before; zero while writes succeed
	litter  bool      // a file whose write failed could not be repaired
}

// put queues a record and reports whether the queue was empty before.
func (b *book) put(r *Record) (first bool) {
	b.mu.Lock()
	n := len(b.queue)
	if n < b.cfg.QueueRecords {
		b.queue = append(b.queue, r)
	}
	b.mu.Unlock()
	if n >= b.cfg.QueueRecords {
		b.dropped.Inc()
	}
	return n == 0
}

// putBack puts records at the head of the queue. If the queue is then too long, the newest records are dropped.
func (b *book) putBack(list []*Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	list = append(slices.Clone(list), b.queue...)
	if over := len(list) - b.cfg.QueueRecords; over > 0 {
		b.dropped.Add(float64(over))
		clear(list[b.cfg.QueueRecords:])
		list = list[:b.cfg.QueueRecords]
	}
	b.queue = list
}

// drain writes all queued records, unless writing has just failed.
func (b *book) drain() {
	if time.Now().Before(b.retry) {
		return
	}
	b.mu.Lock()
	list := b.queue
	b.queue = b.spare[:0]
	b.mu.Unlock()
	for i, r := range list {
		if err := b.write(r); err != nil {
			b.fail(err, list[i:])
			break
		}
	}
	clear(list)
	b.spare = list
}

// tick syncs what was written to the disk and retries what could not be written.
func (b *book) tick() {
	if !b.retry.IsZero() {
		b.drain()
	}
	if b.file == nil {
		return
	}
	err := b.force()
	if err == nil && time.Since(b.born) > b.cfg.FileAge {
		err = b.close()
	}
	if err != nil {
		b.fail(err, nil)
	}
}

// stop writes what is left and closes the file. What cannot be written now is lost.
func (b *book) stop() error {
	b.retry = time.Time{}
	b.drain()
	if b.retry.IsZero() {
		if err := b.close(); err != nil {
			b.fail(err, nil)
		}
	}
	b.mu.Lock()
	lost := len(b.queue)
	if b.down.Load() {
		b.queue = nil
	} else {
		lost = 0 // queued after drain, for the next Run
	}
	b.mu.Unlock()
	if lost > 0 {
		b.failed.Add(float64(lost))
		return fmt.Errorf("%d call records could not be written and are lost", lost)
	}
	return nil
}

// write appends one line. If the current file is full or too old, it starts a new one first.
func (b *book) write(r *Record) error {
	if len(b.pending) >= b.cfg.QueueRecords { // syncEvery may be long, memory is limited
		if err := b.force(); err != nil {
			return err
		}
	}
	line := append(r.AppendJSON(b.line[:0]), '\n')
	b.line = line
	if b.file != nil && (b.size+int64(len(line)) > b.cfg.FileBytes || time.Since(b.born) > b.cfg.FileAge) {
		if err := b.close(); err != nil {
			return err
		}
	}
	if b.file == nil {
		if err := b.open(); err != nil {
			return err
		}
	}
	if _, err := b.w.Write(line); err != nil {
		return fmt.Errorf("write call record %s: %w", r.ID, err)
	}
	b.size += int64(len(line))
	b.pending = append(b.pending, r)
	return nil
}

// open starts a new file.
func (b *book) open() error {
	if b.litter {
		b.litter = false
		if err := b.recover(); err != nil {
			b.litter = true
			b.log.Error("cannot repair call record file after a failed write", "error", err)
		}
	}
	b.born = time.Now()
	b.name = filepath.Join(b.cfg.Directory, b.prefix+b.born.UTC().Format(fileStamp)+fileSuffix)
	f, err := b.create(b.name + partSuffix)
	if err != nil {
		return fmt.Errorf("open call record file: %w", err)
	}
	b.file, b.size, b.safe = f, 0, 0
	b.w = bufio.NewWriterSize(f, 64<<10)
	return nil
}

// force syncs what was written to the disk. Only then does it count as written.
func (b *book) force() error {
	if len(b.pending) == 0 {
		return nil
	}
	if err := errors.Join(b.w.Flush(), b.file.Sync()); err != nil {
		return fmt.Errorf("sync call records to disk: %w", err)
	}
	b.safe = b.size
	b.written.Add(float64(len(b.pending)))
	clear(b.pending)
	b.pending = b.pending[:0]
	if b.down.Swap(false) {
		b.log.Info("writing call records again")
	}
	b.backoff, b.retry = 0, time.Time{}
	return nil
}

// close closes the open file, if there is one, and removes files beyond the limits.
func (b *book) close() error {
	if b.file == nil {
		return nil
	}
	if err := b.force(); err != nil {
		return err
	}
	err := b.file.Close()
	b.file, b.w = nil, nil
	if err = errors.Join(err, os.Rename(b.name+partSuffix, b.name)); err != nil {
		b.litter = true // all of it is on the disk
		return fmt.Errorf("close call record file: %w", err)
	}
	b.prune()
	return nil
}

// fail closes the file, keeps its synced part, and re-queues the rest for a later attempt, followed by the records in
// next.
func (b *book) fail(err error, next []*Record) {
	b.backoff = min(max(2*b.backoff, minBackoff), maxBackoff)
	b.retry = time.Now().Add(b.backoff)
	b.down.Store(true)
	if b.file != nil {
		// If the truncation fails, the lines stay in the file and may be complete: writing them again could bill a call
		// twice.
		cut := b.file.Truncate(b.safe)
		closed := b.file.Close()
		b.file, b.w = nil, nil
		if cut != nil {
			b.failed.Add(float64(len(b.pending)))
			b.pending = b.pending[:0]
		}
		put := os.Rename
		if b.safe == 0 {
			put = func(part, _ string) error { return os.Remove(part) }
		}
		if cut != nil {
			b.litter = true
		} else if e := put(b.name+partSuffix, b.name); e != nil {
			b.litter = true
			closed = errors.Join(closed, e)
		}
		err = errors.Join(err, cut, closed)
		b.prune()
	}
	b.putBack(append(slices.Clone(b.pending), next...))
	clear(b.pending)
	b.pending = b.pending[:0]
	b.mu.Lock()
	n := len(b.queue)
	b.mu.Unlock()
	b.log.Error("cannot write call records; retrying later", "waiting", n, "retry_in", b.backoff, "error", err)
}

// recover closes the files that an earlier process or a failure left open.
func (b *book) recover() error {
	parts, err := b.files(fileSuffix + partSuffix)
	if err != nil {
		return err
	}
	for _, p := range parts {
		data, err := os.ReadFile(p)
		if err != nil {
			return fmt.Errorf("recover call records: %w", err)
		}
		whole := int64(strings.LastIndexByte(string(data), '\n') + 1)
		if whole < int64(len(data)) {
			b.log.Warn("removed an incomplete call record", "file", p)
			if err := os.Truncate(p, whole); err != nil {
				return fmt.Errorf("recover call records: %w", err)
			}
		}
		if whole == 0 {
			err = os.Remove(p)
		} else {
			err = os.Rename(p, strings.TrimSuffix(p, partSuffix))
		}
		if err != nil {
			return fmt.Errorf("recover call records: %w", err)
		}
	}
	return nil
}

// files returns the paths of the node's files whose names end in suffix, oldest first.
func (b *book) files(suffix string) (files []string, err error) {
	entries, err := os.ReadDir(b.cfg.Directory)
	for _, e := range entries {
		if n := e.Name(); strings.HasPrefix(n, b.prefix) && strings.HasSuffix(n, suffix) {
			files = append(files, filepath.Join(b.cfg.Directory, n))
		}
	}
	return files, err
}

// prune removes the oldest closed files beyond the limits.
func (b *book) prune() {
	files, err := b.files(fileSuffix)
	if err != nil {
		b.log.Error("cannot list call record files", "error", err)
		return
	}
	var total int64
	sizes := make([]int64, len(files))
	for i, f := range files {
		if st, err := os.Stat(f); err == nil {
			sizes[i] = st.Size()
			total += st.Size()
		}
	}
	for i, f := range files {
		old := false
		if b.cfg.KeepFor > 0 {
			stamp := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(f), b.prefix), fileSuffix)
			t, err := time.Parse(fileStamp, stamp)
			old = err == nil && time.Since(t) > b.cfg.KeepFor
		}
		if !old && total <= b.cfg.KeepBytes {
			continue
		}
		if err := os.Remove(f); err != nil {
			b.log.Error("cannot remove old call record file", "file", f, "error", err)
			continue
		}
		total -= sizes[i]
		b.log.Warn("removed old call record file", "file", f, "bytes", sizes[i])
	}
}
