package record

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/domain/fault"
)

// Config is the call record spool's part of the configuration.
type Config struct {
	// Directory is where the spool's files are. Default "calls" below the data directory.
	Directory string `yaml:"directory"`
	// QueueRecords is how many records may wait for the disk; more are dropped, counted and logged. Default 10000.
	QueueRecords int `yaml:"queueRecords"`
	// FileBytes is the size at which a file is closed and the next one begun. Default 67108864 (64 MiB).
	FileBytes int64 `yaml:"fileBytes"`
	// FileAge is the age at which a file is closed and the next one begun. Default 1h.
	FileAge time.Duration `yaml:"fileAge"`
	// KeepBytes bounds the closed files together: above it the oldest is removed and logged. Default 4294967296 (4 GiB).
	KeepBytes int64 `yaml:"keepBytes"`
	// KeepFor is how long closed files are kept. Default 720h (30 days); 0 keeps them until KeepBytes.
	KeepFor time.Duration `yaml:"keepFor"`
	// SyncEvery is how long a written record may wait to be forced to the disk: what a power cut can cost. Default 1s.
	SyncEvery time.Duration `yaml:"syncEvery"`
}

// Default returns the configuration that an empty file means.
func Default() Config {
	return Config{QueueRecords: 10_000, FileBytes: 64 << 20, FileAge: time.Hour, KeepBytes: 4 << 30, KeepFor: 30 * 24 * time.Hour, SyncEvery: time.Second}
}

// Validate returns every mistake in the configuration.
func (c *Config) Validate() []error {
	var errs []error
	bad := func(target, text string) {
		errs = append(errs, fault.New(fault.Invalid, "InvalidConfiguration", "%s", text).At(target))
	}
	if c.QueueRecords < 1 || c.QueueRecords > 10_000_000 {
		bad("queueRecords", "must be from 1 to 10000000")
	}
	if c.FileBytes < 4096 {
		bad("fileBytes", "must be 4096 or more")
	}
	if c.FileAge < time.Second {
		bad("fileAge", "must be 1s or more")
	}
	if c.KeepBytes < c.FileBytes {
		bad("keepBytes", "must not be less than fileBytes")
	}
	if c.KeepFor < 0 {
		bad("keepFor", "must not be negative; 0 keeps files until keepBytes")
	}
	if c.SyncEvery <= 0 || c.SyncEvery > time.Minute {
		bad("syncEvery", "must be more than 0 and at most 1m")
	}
	return errs
}

// Names of the spool's files: the open one ends in partSuffix, closed ones in fileSuffix. The stamp sorts by time.
const (
	filePrefix = "calls-"
	fileSuffix = ".jsonl"
	partSuffix = ".part"
	fileStamp  = "20060102T150405.000000Z"
)

// Spool writes records to files of JSON lines in a directory, one line each, off the call path. A full queue drops the new record and counts it: calls
// matter more than their records, and a disk that is this far behind will not catch up. A file still open when the process died is
// closed at the next start, its last, half-written line cut off.
//
// Records are written together: the first one queued wakes the writer, which waits a moment for others. A goroutine woken for each call would cost more
// than the writing.
type Spool struct {
	cfg  Config
	log  *slog.Logger
	wake chan struct{} // has a token while something is queued

	queueMu sync.Mutex // guards queue
	queue   []*Record

	written, dropped, failed prometheus.Counter

	mu   sync.Mutex // guards file and what is written to it
	file *os.File
	w    *bufio.Writer
	size int64
	born time.Time
	name string
	line []byte // room for one line; Run's only
}

// NewSpool opens the spool in cfg.Directory, which is made if it is missing. Its metrics go to reg unless that is nil.
func NewSpool(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Spool, error) {
	if errs := cfg.Validate(); len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if err := os.MkdirAll(cfg.Directory, 0o700); err != nil {
		return nil, fmt.Errorf("make the call record directory: %w", err)
	}
	s := &Spool{cfg: cfg, log: log, wake: make(chan struct{}, 1)}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	s.written = counter("tandem_call_records_written_total", "Call records written to the spool.")
	s.dropped = counter("tandem_call_records_dropped_total", "Call records dropped because the queue to the disk was full.")
	s.failed = counter("tandem_call_records_failed_total", "Call records lost because writing failed.")
	if reg != nil {
		for _, c := range []prometheus.Collector{s.written, s.dropped, s.failed} {
			if err := reg.Register(c); err != nil {
				return nil, fmt.Errorf("register call record metrics: %w", err)
			}
		}
	}
	if err := s.recover(); err != nil {
		return nil, err
	}
	return s, nil
}

// Put queues a record for writing, or drops it if the queue is full.
func (s *Spool) Put(r *Record) {
	s.queueMu.Lock()
	n := len(s.queue)
	if n < s.cfg.QueueRecords {
		s.queue = append(s.queue, r)
	}
	s.queueMu.Unlock()
	switch {
	case n >= s.cfg.QueueRecords:
		s.dropped.Inc()
	case n == 0:
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// gather is how long the writer waits for more records after the first.
const gather = 50 * time.Millisecond

// Run writes what is queued until ctx is done, then what is left, and closes the file. What is put after that is written when Run is called again.
func (s *Spool) Run(ctx context.Context) error {
	tick := time.NewTicker(s.cfg.SyncEvery)
	defer tick.Stop()
	full := time.NewTimer(time.Hour)
	full.Stop()
	defer full.Stop()
	var spare []*Record
	for {
		select {
		case <-s.wake:
			full.Reset(min(gather, s.cfg.SyncEvery))
		case <-full.C:
			spare = s.drain(spare)
		case <-tick.C:
			if err := s.sync(); err != nil {
				s.log.Error("call records not forced to the disk", "error", err)
			}
		case <-ctx.Done():
			s.drain(spare)
			return s.closeFile()
		}
	}
}

// drain writes everything that is queued. The queue goes on in spare, and what it was in is returned.
func (s *Spool) drain(spare []*Record) []*Record {
	s.queueMu.Lock()
	list := s.queue
	s.queue = spare[:0]
	s.queueMu.Unlock()
	var failure error
	failed := 0
	for i, r := range list {
		if err := s.write(r); err != nil {
			failure = err
			failed++
			s.failed.Inc()
		}
		list[i] = nil
	}
	if failed > 0 {
		s.log.Error("call records not written", "records", failed, "error", failure)
	}
	return list
}

// write appends one line, going on to a new file first where the present one is full or old.
func (s *Spool) write(r *Record) error {
	line := append(r.AppendJSON(s.line[:0]), '\n')
	s.line = line
	s.mu.Lock()
	full := s.file != nil && (s.size+int64(len(line)) > s.cfg.FileBytes || time.Since(s.born) > s.cfg.FileAge)
	s.mu.Unlock()
	if full {
		if err := s.closeFile(); err != nil {
			return err
		}
		s.prune()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		if err := s.open(); err != nil {
			return err
		}
	}
	if _, err := s.w.Write(line); err != nil {
		s.abandon()
		return fmt.Errorf("write call record %s: %w", r.ID, err)
	}
	s.size += int64(len(line))
	s.written.Inc()
	return nil
}

// open begins a new file. mu is held.
func (s *Spool) open() error {
	s.born = time.Now()
	s.name = filepath.Join(s.cfg.Directory, filePrefix+s.born.UTC().Format(fileStamp)+fileSuffix)
	f, err := os.OpenFile(s.name+partSuffix, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open call record file: %w", err)
	}
	s.file, s.size = f, 0
	s.w = bufio.NewWriterSize(f, 64<<10)
	return nil
}

// abandon gives up a file that could not be written; what it holds is rescued at the next start. mu is held.
func (s *Spool) abandon() {
	_ = s.file.Close() // the write error is the one to report
	s.file, s.w = nil, nil
}

func (s *Spool) sync() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return nil
	}
	if s.w.Buffered() == 0 && time.Since(s.born) <= s.cfg.FileAge {
		return nil
	}
	if err := errors.Join(s.w.Flush(), s.file.Sync()); err != nil {
		s.abandon()
		return err
	}
	if time.Since(s.born) > s.cfg.FileAge && s.size > 0 {
		return s.closeLocked()
	}
	return nil
}

func (s *Spool) closeFile() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closeLocked()
}

func (s *Spool) closeLocked() error {
	if s.file == nil {
		return nil
	}
	err := errors.Join(s.w.Flush(), s.file.Sync(), s.file.Close())
	s.file, s.w = nil, nil
	if err != nil {
		return fmt.Errorf("close call record file: %w", err)
	}
	if err := os.Rename(s.name+partSuffix, s.name); err != nil {
		return fmt.Errorf("close call record file: %w", err)
	}
	return nil
}

// recover closes the files that an earlier process left open.
func (s *Spool) recover() error {
	parts, err := filepath.Glob(filepath.Join(s.cfg.Directory, filePrefix+"*"+fileSuffix+partSuffix))
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
			s.log.Warn("half-written call record cut off", "file", p)
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

// Files returns the closed files, oldest first.
func (s *Spool) Files() ([]string, error) {
	files, err := filepath.Glob(filepath.Join(s.cfg.Directory, filePrefix+"*"+fileSuffix))
	sort.Strings(files)
	return files, err
}

// prune removes the oldest closed files beyond the bounds.
func (s *Spool) prune() {
	files, err := s.Files()
	if err != nil {
		s.log.Error("list call record files", "error", err)
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
		if s.cfg.KeepFor > 0 {
			stamp := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(f), filePrefix), fileSuffix)
			t, err := time.Parse(fileStamp, stamp)
			old = err == nil && time.Since(t) > s.cfg.KeepFor
		}
		if !old && total <= s.cfg.KeepBytes {
			continue
		}
		if err := os.Remove(f); err != nil {
			s.log.Error("remove old call record file", "file", f, "error", err)
			continue
		}
		total -= sizes[i]
		s.log.Warn("old call record file removed", "file", f, "bytes", sizes[i])
	}
}
