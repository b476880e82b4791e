package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/feed"
)

// Source is where the index comes from: the provisioning store.
type Source interface {
	feed.Reader
	// Scan hands over every account and number in pieces, in any order; quickest if numbers come in order. Every change after
	// the position returned is in the feed. What it hands over may contain some of those changes already: applying twice is
	// harmless. It stops with the first error of the function.
	Scan(ctx context.Context, apply func([]domain.Change) error) (feed.Position, error)
}

// Reading the source.
const (
	readEntries = 1000                   // feed entries read at once
	retryFirst  = 250 * time.Millisecond // pause after a first failure of the source …
	retryMost   = time.Second            // … doubled up to this: a change is to be routed by within a second of its return
	retryDisk   = 30 * time.Second       // pause after a snapshot could not be written
	readTimeout = 5 * time.Second        // for one read: a source that does not answer is away
)

// Replica keeps a View. Make one with Open; everything but Run may be called from any goroutine.
type Replica struct {
	cfg    Config
	src    Source
	sealer Sealer
	log    *slog.Logger
	m      *metrics

	view atomic.Pointer[View]

	// mu is the writing side: it guards the view's writer fields and the following.
	mu      sync.Mutex
	files   *files
	pos     feed.Position // the view is that of this position
	goal    feed.Position // head of the source when it was first asked; 0 before
	journal *journal      // nil until there is something to write
	changes int           // entries applied since the last snapshot was held

	stateMu sync.Mutex // guards what follows
	state   Status
	moved   chan struct{} // closed when state.Position grows, then replaced

	snap chan struct{} // asks for a snapshot; holds one request
}

// Status tells how the index stands.
type Status struct {
	Loaded   bool          `json:"loaded"`   // there is an index
	CaughtUp bool          `json:"caughtUp"` // it has been level with the source since the process started
	Position feed.Position `json:"position"` // the index is that of this position
	Head     feed.Position `json:"head"`     // the newest position seen at the source
	SyncedAt time.Time     `json:"syncedAt"` // when it was last known to be level; zero before it was
	Numbers  int64         `json:"numbers"`
	Bytes    int64         `json:"bytes"`
	// SourceError is why the source cannot be read now; empty if it can.
	SourceError string `json:"sourceError,omitempty"`
	// DiskError is why what is applied is not on the disk now; empty if it is.
	DiskError string    `json:"diskError,omitempty"`
	Snapshot  time.Time `json:"snapshot"` // when the newest snapshot was taken; zero if there is none
}

// Open reads what lies in dir. It returns an error only if the directory cannot be used at all: damaged files are logged
// and passed over, and without a good snapshot the view is nil until Run has loaded it. Dir must be this replica's alone.
func Open(cfg Config, dir string, src Source, sealer Sealer, log *slog.Logger, reg prometheus.Registerer) (*Replica, error) {
	fs, err := openFiles(dir)
	if err != nil {
		return nil, err
	}
	r := &Replica{cfg: cfg.withDefaults(), src: src, sealer: sealer, log: log, files: fs, moved: make(chan struct{}), snap: make(chan struct{}, 1)}
	r.m = newMetrics(reg, r)
	start := time.Now()
	v, info, pos, replayed, err := fs.load(sealer, func(file string, err error) {
		r.m.damaged.Inc()
		log.Error("a file of the number index cannot be used; what came before it is", "file", file, "error", err)
	})
	if err != nil {
		return nil, err
	}
	if v == nil {
		log.Info("there is no snapshot of the number index; it is loaded from the database")
		return r, nil
	}
	r.view.Store(v)
	r.pos, r.changes = pos, replayed
	r.state = Status{Loaded: true, Position: pos, Snapshot: info.At}
	log.Info("number index read from disk", "numbers", v.Numbers(), "position", pos, "snapshot", info.At, "journaled", replayed, "took", time.Since(start))
	return r, nil
}

// View returns the index, nil if none was ever loaded. It stays usable when another takes its place.
func (r *Replica) View() *View { return r.view.Load() }

// Route is View for routing: a nil interface if none was ever loaded.
func (r *Replica) Route() route.View {
	if v := r.view.Load(); v != nil {
		return v
	}
	return nil
}

// Ready returns nil if calls can be routed by what is provisioned: the index is loaded and level with what the source held
// at the start, or the source cannot be asked. Otherwise it says what is waited for.
func (r *Replica) Ready() error {
	s := r.Status()
	switch {
	case !s.Loaded && s.SourceError != "":
		return fmt.Errorf("the number index is not loaded: no good snapshot, and the database cannot be read: %s", s.SourceError)
	case !s.Loaded:
		return errors.New("the number index is being loaded")
	case !s.CaughtUp && s.SourceError == "":
		return errors.New("the number index is catching up with the database")
	}
	return nil
}

// Status tells how the index stands.
func (r *Replica) Status() Status {
	r.stateMu.Lock()
	s := r.state
	r.stateMu.Unlock()
	if v := r.view.Load(); v != nil {
		s.Numbers, s.Bytes = v.Numbers(), v.Bytes()
	}
	return s
}

// Wait returns nil once the index holds every change up to position p, on the disk too if that works, or ctx's error.
func (r *Replica) Wait(ctx context.Context, p feed.Position) error {
	for {
		r.stateMu.Lock()
		done, moved := r.state.Loaded && r.state.Position >= p, r.moved
		r.stateMu.Unlock()
		if done {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// change changes the state and wakes those who wait for a position.
func (r *Replica) change(do func(*Status)) {
	r.stateMu.Lock()
	defer r.stateMu.Unlock()
	before := r.state
	do(&r.state)
	if r.state.Position != before.Position || r.state.Loaded != before.Loaded {
		close(r.moved)
		r.moved = make(chan struct{})
	}
}

// Run keeps the index level with the source until ctx ends, then writes a last snapshot if there is anything new. It
// returns nil: a source that is away is waited for, a disk that fails is reported and tried again.
func (r *Replica) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { r.snapshots(ctx) })
	r.follow(ctx)
	wg.Wait()
	r.mu.Lock()
	due := r.changes > 0 && r.view.Load() != nil
	r.mu.Unlock()
	if due {
		r.snapshot()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.endJournal()
	return nil
}

// Reasons to load everything anew.
var (
	errBackwards = errors.New("the database is at an older position than the index: it was set back")
	errNoView    = errors.New("there is no index yet")
)

// follow reads the feed until ctx ends.
func (r *Replica) follow(ctx context.Context) {
	var reload error
	if r.view.Load() == nil {
		reload = errNoView
	}
	pause := retryFirst
	for ctx.Err() == nil {
		var err error
		if reload != nil {
			if err = r.load(ctx, reload); err == nil {
				reload = nil
			}
		} else {
			err = r.step(ctx)
		}
		switch {
		case err == nil:
			pause = retryFirst
			continue
		case ctx.Err() != nil:
			return
		case errors.Is(err, feed.ErrGap), errors.Is(err, errBackwards), errors.Is(err, errPayload):
			reload = err
			if r.view.Load() == nil {
				reload = errNoView
			}
			r.log.Error("the number index must be loaded anew; the old one serves meanwhile", "why", err)
		default:
			r.m.sourceErrors.Inc()
			r.change(func(s *Status) {
				if s.SourceError == "" {
					r.log.Warn("the database cannot be read; calls are routed by the index as it is", "error", err, "position", s.Position)
				}
				s.SourceError = err.Error()
			})
		}
		select {
		case <-time.After(pause):
			pause = min(pause*2, retryMost)
		case <-ctx.Done():
		}
	}
}

// step reads and applies what is new, or waits for it.
func (r *Replica) step(ctx context.Context) error {
	r.mu.Lock()
	pos := r.pos
	r.mu.Unlock()
	head, entries, err := r.read(ctx, pos)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return r.apply(pos, entries, head)
	}
	r.mu.Lock()
	r.pos = max(r.pos, head)
	r.mu.Unlock()
	r.level(head)
	return r.src.Wait(ctx, head)
}

// read returns the next entries. The head is read before them: if nothing of ours is found then, nothing up to that head
// is missing, whatever positions other topics took.
func (r *Replica) read(ctx context.Context, pos feed.Position) (feed.Position, []feed.Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	head, err := r.src.Head(ctx)
	if err != nil {
		return 0, nil, err
	}
	if head < pos {
		return 0, nil, errBackwards
	}
	if r.goal == 0 {
		r.goal = head
	}
	entries, err := r.src.Read(ctx, feed.Provisioning, pos, readEntries)
	return head, entries, err
}

// level notes that the index holds everything up to head, which was the source's a moment ago.
func (r *Replica) level(head feed.Position) {
	r.change(func(s *Status) {
		if s.SourceError != "" {
			r.log.Info("the database can be read again; the index is level with it", "position", head)
		} else if !s.CaughtUp {
			r.log.Info("the number index is level with the database", "position", head)
		}
		s.CaughtUp, s.SourceError = true, ""
		s.Position, s.Head, s.SyncedAt = max(s.Position, head), max(s.Head, head), time.Now()
	})
}

// apply makes a batch visible, then puts it into the journal: calls must not wait for the disk.
func (r *Replica) apply(after feed.Position, entries []feed.Entry, head feed.Position) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := r.view.Load()
	start := time.Now()
	for _, e := range entries {
		if err := v.applyEntry(e, r.badChange(e.Position)); err != nil {
			return fmt.Errorf("feed entry %d: %w", e.Position, err)
		}
	}
	last := entries[len(entries)-1]
	r.pos = last.Position
	r.changes += len(entries)
	r.m.applied.Add(float64(len(entries)))
	r.m.applySeconds.Observe(time.Since(start).Seconds())
	r.m.delay.Observe(max(0, time.Since(last.At).Seconds()))
	if err := r.write(after, entries); err != nil {
		r.diskFailed(err)
		r.endJournal()
		r.ask()
	}
	if r.changes >= r.cfg.SnapshotAfterChanges {
		r.ask()
	}
	// Told last: whoever waits for a position knows that it survives a crash.
	if r.pos >= head {
		r.level(r.pos)
	} else {
		r.change(func(s *Status) {
			s.Position, s.Head, s.SourceError = r.pos, head, ""
			s.CaughtUp = s.CaughtUp || r.pos >= r.goal // it may never stand still long enough to be level
		})
	}
	return nil
}

// badChange reports changes that make no sense; what they were about stays as it was.
func (r *Replica) badChange(pos feed.Position) func(error) {
	return func(err error) {
		r.m.badChanges.Inc()
		r.log.Error("a change from the database is left out of the number index", "position", pos, "error", err)
	}
}

// write puts a batch into the journal, beginning one if there is none. The caller holds mu.
func (r *Replica) write(after feed.Position, entries []feed.Entry) error {
	if r.journal == nil {
		j, err := r.files.newJournal(func(f journalFile) (*journal, error) {
			return newJournal(f, after, time.Now().UTC(), r.sealer)
		})
		if err != nil {
			return fmt.Errorf("begin a journal: %w", err)
		}
		r.journal = j
	}
	if err := r.journal.append(after, entries); err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	return nil
}

// endJournal closes the journal; the next batch begins another. The caller holds mu.
func (r *Replica) endJournal() {
	if r.journal == nil {
		return
	}
	if err := r.journal.close(); err != nil {
		r.log.Error("close the journal of the number index", "error", err)
	}
	r.journal = nil
}

// diskFailed reports that changes are not on the disk.
func (r *Replica) diskFailed(err error) {
	r.m.diskErrors.Inc()
	r.change(func(s *Status) {
		if s.DiskError == "" {
			r.log.Error("the number index cannot be kept on disk; a restart without the database would route by an older one", "error", err)
		}
		s.DiskError = err.Error()
	})
}

// load builds a new view from the source and puts it in the place of the old one once it has caught up with the head the
// source had at the start.
func (r *Replica) load(ctx context.Context, why error) error {
	start := time.Now()
	r.m.loads.Inc()
	head, err := r.src.Head(ctx)
	if err != nil {
		return err
	}
	v := newView(0)
	v.slab = &slab{}
	bad := r.badChange(0)
	pos, err := r.src.Scan(ctx, func(changes []domain.Change) error { return v.apply(changes, bad) })
	if err != nil {
		return fmt.Errorf("read all accounts and numbers: %w", err)
	}
	v.slab = nil
	for pos < head {
		entries, err := r.src.Read(ctx, feed.Provisioning, pos, readEntries)
		if err != nil {
			return err
		}
		if len(entries) == 0 {
			pos = head // the rest belongs to other topics
			break
		}
		for _, e := range entries {
			if err := v.applyEntry(e, r.badChange(e.Position)); err != nil {
				return fmt.Errorf("feed entry %d: %w", e.Position, err)
			}
		}
		pos = entries[len(entries)-1].Position
	}
	r.mu.Lock()
	r.view.Store(v)
	r.pos, r.changes = pos, max(1, r.changes) // so that a snapshot is due, also at shutdown
	r.endJournal()                            // it went on from another state
	r.mu.Unlock()
	r.change(func(s *Status) {
		s.Loaded, s.CaughtUp, s.SourceError = true, true, ""
		s.Position, s.Head, s.SyncedAt = pos, max(head, pos), time.Now()
	})
	r.log.Info("number index loaded from the database", "numbers", v.Numbers(), "position", pos, "why", why, "took", time.Since(start))
	r.ask()
	return nil
}

// ask asks for a snapshot.
func (r *Replica) ask() {
	select {
	case r.snap <- struct{}{}:
	default: // one is asked for already
	}
}

// snapshots writes snapshots when asked and when it is time, until ctx ends.
func (r *Replica) snapshots(ctx context.Context) {
	timer := time.NewTimer(r.cfg.SnapshotEvery)
	defer timer.Stop()
	for {
		asked := r.snap
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-asked:
		}
		next := r.cfg.SnapshotEvery
		r.mu.Lock()
		due := r.changes > 0 && r.view.Load() != nil
		r.mu.Unlock()
		if due && !r.snapshot() {
			next = min(next, retryDisk)
		}
		timer.Reset(next)
	}
}

// snapshot writes a snapshot of the index as it is now and tells whether that worked. Changes wait while the table is
// copied, not while it is written.
func (r *Replica) snapshot() bool {
	start := time.Now()
	r.mu.Lock()
	v := r.view.Load()
	s := v.hold(r.pos, start.UTC())
	changes := r.changes
	r.changes = 0
	r.endJournal() // what comes now goes into one with a higher number than the snapshot
	n := r.files.take()
	r.mu.Unlock()
	held := time.Since(start)

	size, err := r.files.writeSnapshot(s, n, r.sealer)
	if err != nil {
		r.mu.Lock()
		r.changes += changes
		r.mu.Unlock()
		r.diskFailed(fmt.Errorf("write a snapshot: %w", err))
		return false
	}
	if err := r.files.prune(); err != nil {
		r.log.Warn("old files of the number index stay", "error", err)
	}
	r.change(func(st *Status) {
		if st.DiskError != "" {
			r.log.Info("the number index is on disk again", "position", s.Position)
		}
		st.Snapshot, st.DiskError = s.At, ""
	})
	r.m.snapshots.Inc()
	r.log.Info("snapshot of the number index written", "numbers", s.Numbers, "position", s.Position, "bytes", size, "took", time.Since(start), "heldUp", held)
	return true
}
