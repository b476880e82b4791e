package record

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tandemgw/tandem/internal/domain/fault"
)

// Config is the call record spool's part of the configuration.
type Config struct {
	// Directory is the directory of the spool's files. Default "calls" below the data directory.
	Directory string `yaml:"directory"`
	// QueueRecords is the maximum number of records that wait for the disk; refused calls have another queue of the
	// same length. New records beyond it are dropped and counted. Default 10000.
	QueueRecords int `yaml:"queueRecords"`
	// FileBytes is the size at which a file is closed and the next one started. Default 67108864 (64 MiB).
	FileBytes int64 `yaml:"fileBytes"`
	// FileAge is the age at which a file is closed and the next one started. Default 1h.
	FileAge time.Duration `yaml:"fileAge"`
	// KeepBytes is the maximum total size of the closed files: beyond it the oldest is removed and the removal logged.
	// Files of refused calls do not count; their own limit is an eighth of it, at least fileBytes. Default 4294967296
	// (4 GiB).
	KeepBytes int64 `yaml:"keepBytes"`
	// KeepFor is how long closed files are kept. Default 720h (30 days); 0 keeps them until keepBytes is reached.
	KeepFor time.Duration `yaml:"keepFor"`
	// SyncEvery is how long a written record may wait until it is synced to the disk: the most that a power cut can
	// lose. Default 1s.
	SyncEvery time.Duration `yaml:"syncEvery"`
}

// Default returns the configuration of an empty file.
func Default() Config {
	return Config{QueueRecords: 10_000, FileBytes: 64 << 20, FileAge: time.Hour, KeepBytes: 4 << 30,
		KeepFor: 30 * 24 * time.Hour, SyncEvery: time.Second}
}

// Validate returns every mistake in the configuration.
func (c *Config) Validate() []error {
	var errs fault.Problems
	bad := errs.Add
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
		bad("syncEvery", "must be greater than 0 and at most 1m")
	}
	return errs
}

// Names of the spool's files: the open one ends in partSuffix, closed ones in fileSuffix. The stamp sorts by time.
const (
	callsPrefix   = "calls-"
	refusedPrefix = "refused-"
	fileSuffix    = ".jsonl"
	partSuffix    = ".part"
	fileStamp     = "20060102T150405.000000Z"
)

// Spool writes records to files of JSON lines in a directory, one line each, off the call path. A full queue drops the
// new record and counts it: calls matter more than their records, and a disk that is this far behind will not catch up.
// A file still open when the process died is closed at the next start, without its incomplete last line.
//
// Records of calls that Tandem refused before any peer was tried go to separate files, refused-*.jsonl, with a queue
// and a limit of their own: such calls cost their sender nothing, so a flood of them must not displace the records in
// calls-*.jsonl.
//
// A record counts as written once it is synced to the disk; until then it stays in memory. When writing fails, the file
// is truncated to its synced part, and the other records wait in the queue for the next attempt, at most maxBackoff
// later.
//
// Records are written in batches: the first one queued wakes the writer, which waits briefly for others. Waking a
// goroutine for each call would cost more than the writing.
type Spool struct {
	cfg            Config
	wake           chan struct{} // has a token while something is queued
	calls, refused *book
}

// NewSpool opens the spool of a valid configuration in cfg.Directory, which it creates if necessary. It registers the
// metrics with reg unless reg is nil.
func NewSpool(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Spool, error) {
	if err := os.MkdirAll(cfg.Directory, 0o700); err != nil {
		return nil, fmt.Errorf("create the call record directory: %w", err)
	}
	s := &Spool{cfg: cfg, wake: make(chan struct{}, 1)}
	metrics := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return metrics.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	written := counter("tandem_call_records_written_total", "Call records written to the spool and synced to the disk.")
	failed := counter("tandem_call_records_failed_total", "Call records lost because they could not be written.")
	dropped := counter("tandem_call_records_dropped_total", "Call records dropped because the disk queue was full.")
	flood := counter("tandem_call_records_refused_dropped_total",
		"Records of refused calls dropped because their disk queue was full.")
	s.calls = &book{cfg: cfg, prefix: callsPrefix, create: createFile, log: log, written: written, failed: failed,
		dropped: dropped}
	less := cfg
	less.KeepBytes = max(cfg.KeepBytes/8, cfg.FileBytes)
	s.refused = &book{cfg: less, prefix: refusedPrefix, create: createFile, log: log, written: written,
		failed: failed, dropped: flood}
	metrics.NewGaugeFunc(prometheus.GaugeOpts{Name: "tandem_call_records_disk_up",
		Help: "0 while call records cannot be written and wait in memory."}, func() float64 {
		if s.calls.down.Load() || s.refused.down.Load() {
			return 0
		}
		return 1
	})
	for _, b := range s.books() {
		if err := b.recover(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *Spool) books() [2]*book { return [2]*book{s.calls, s.refused} }

// Put queues a record for writing, or drops it if the queue is full.
func (s *Spool) Put(r *Record) {
	b := s.calls
	if r.refused() {
		b = s.refused
	}
	if b.put(r) {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// gather is how long the writer waits for more records after the first.
const gather = 50 * time.Millisecond

// Run writes queued records until ctx is done, then the remaining ones, and closes the files. Records put after that
// are written when Run is called again.
func (s *Spool) Run(ctx context.Context) error {
	tick := time.NewTicker(s.cfg.SyncEvery)
	defer tick.Stop()
	full := time.NewTimer(time.Hour)
	full.Stop()
	defer full.Stop()
	for {
		select {
		case <-s.wake:
			full.Reset(min(gather, s.cfg.SyncEvery))
		case <-full.C:
			for _, b := range s.books() {
				b.drain()
			}
		case <-tick.C:
			for _, b := range s.books() {
				b.tick()
			}
		case <-ctx.Done():
			return errors.Join(s.calls.stop(), s.refused.stop())
		}
	}
}
