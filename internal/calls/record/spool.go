package record

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/domain/fault"
)

// Config is the call record spool's part of the configuration.
type Config struct {
	// Directory is where the spool's files are. Default "calls" below the data directory.
	Directory string `yaml:"directory"`
	// QueueRecords is how many records may wait for the disk, and as many more of refused calls; beyond that new ones are dropped and counted.
	// Default 10000.
	QueueRecords int `yaml:"queueRecords"`
	// FileBytes is the size at which a file is closed and the next one begun. Default 67108864 (64 MiB).
	FileBytes int64 `yaml:"fileBytes"`
	// FileAge is the age at which a file is closed and the next one begun. Default 1h.
	FileAge time.Duration `yaml:"fileAge"`
	// KeepBytes bounds the closed files together: above it the oldest is removed and logged. Files of refused calls do not count; they have an
	// eighth of it for themselves, at least fileBytes. Default 4294967296 (4 GiB).
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
	callsPrefix   = "calls-"
	refusedPrefix = "refused-"
	fileSuffix    = ".jsonl"
	partSuffix    = ".part"
	fileStamp     = "20060102T150405.000000Z"
)

// Spool writes records to files of JSON lines in a directory, one line each, off the call path. A full queue drops the new record and counts it: calls
// matter more than their records, and a disk that is this far behind will not catch up. A file still open when the process died is
// closed at the next start, its last, half-written line cut off.
//
// Calls that Tandem refused before any peer was tried go to files of their own, refused-*.jsonl, with a queue and a bound of their own: they cost the
// far side nothing, so a flood of them must not push out what calls-*.jsonl says of calls.
//
// A record counts as written once it is on the disk for good; until then it is kept. When writing fails, the file is cut back to what is safe, and the
// others wait in the queue for the next attempt, at most maxBackoff later.
//
// Records are written together: the first one queued wakes the writer, which waits a moment for others. A goroutine woken for each call would cost more
// than the writing.
type Spool struct {
	cfg            Config
	log            *slog.Logger
	wake           chan struct{} // has a token while something is queued
	calls, refused *book
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
	written := counter("tandem_call_records_written_total", "Call records written to the spool and forced to the disk.")
	failed := counter("tandem_call_records_failed_total", "Call records lost because writing failed to the last.")
	dropped := counter("tandem_call_records_dropped_total", "Call records dropped because the queue to the disk was full.")
	flood := counter("tandem_call_records_refused_dropped_total", "Call records of refused calls dropped because their queue to the disk was full.")
	s.calls = &book{cfg: cfg, prefix: callsPrefix, create: createFile, log: log, written: written, failed: failed, dropped: dropped}
	less := cfg
	less.KeepBytes = max(cfg.KeepBytes/8, cfg.FileBytes)
	s.refused = &book{cfg: less, prefix: refusedPrefix, create: createFile, log: log, written: written, failed: failed, dropped: flood}
	up := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tandem_call_records_disk_up",
		Help: "0 while call records cannot be written and wait in memory."}, func() float64 {
		if s.calls.down.Load() || s.refused.down.Load() {
			return 0
		}
		return 1
	})
	if reg != nil {
		for _, c := range []prometheus.Collector{written, failed, dropped, flood, up} {
			if err := reg.Register(c); err != nil {
				return nil, fmt.Errorf("register call record metrics: %w", err)
			}
		}
	}
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

// Run writes what is queued until ctx is done, then what is left, and closes the files. What is put after that is written when Run is called again.
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

// Files returns the closed files, those of calls first, each kind oldest first.
func (s *Spool) Files() ([]string, error) {
	calls, err := s.calls.files()
	refused, err2 := s.refused.files()
	return append(calls, refused...), errors.Join(err, err2)
}
