package replica

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/feed"
)

// Source is the source of the index: the provisioning store.
type Source interface {
	feed.Reader
	// Scan passes every account and number to apply in pieces, in any order; loading is fastest if numbers arrive in
	// order. Together they are the state at the cursor returned, from one consistent read. Scan stops at the first
	// error of apply.
	Scan(ctx context.Context, apply func([]domain.Change) error) (feed.Cursor, error)
}

// Reading the source.
const (
	readEntries = 1000 // feed entries per read

	// The delay after a failure of the source is doubled from retryFirst up to retryMost: calls must use a change
	// within a second once the source is available again.
	retryFirst = 250 * time.Millisecond
	retryMost  = time.Second

	retryDisk   = 30 * time.Second // delay after a snapshot could not be written
	readTimeout = 5 * time.Second  // for one read: a source that does not answer is unavailable
)

// Replica maintains a View. Open creates one. All methods except Run are safe for concurrent use.
type Replica struct {
	// Patience is the time after a read of the feed during which the index counts as current; it must be longer than
	// the source's poll interval. 0 means no limit. Set it before Run.
	Patience time.Duration

	cfg    Config
	src    Source
	sealer Sealer
	log    *slog.Logger
	m      *metrics

	view atomic.Pointer[View]

	// mu is the writer's lock: it guards the view's writer fields and the fields below.
	mu     sync.Mutex
	files  *files
	cur    feed.Cursor   // the view is the state at this cursor
	loaded string        // random id of the last full load
	logged feed.Position // of the last entry of this load passed to a journal
	goal   feed.Position // head of the source when it was first read; 0 before
	// when the last read of the feed began; its result may be that old if the process was paused
	asked   time.Time
	journal *journal // nil until the first write
	changes int      // entries applied since the last snapshot was taken

	stateMu  sync.Mutex // guards the fields below
	state    Status
	accepted string // identity of the database that an operator accepted; empty for none

	snap chan struct{} // requests a snapshot; holds one request
}

// Status is the state of the index.
type Status struct {
	Loaded   bool          // an index is loaded
	CaughtUp bool          // it has been up to date with the source since the process started
	Database string        // identity of the database it was loaded from
	Position feed.Position // position of the index
	Head     feed.Position // the newest position seen at the source
	SyncedAt time.Time     // when it was last known to be up to date; zero before that
	Numbers  int64
	Bytes    int64
	// SourceError says why the source cannot be read at present; empty if it can.
	SourceError string
	// Reloading says why a full load is in progress while the old index serves; empty if there is none.
	Reloading string
	// Held says why the old index serves until an operator accepts the content of the database; nil if it is not held
	// back.
	Held *Held
	// DiskError says why applied changes are not on disk; empty if they are.
	DiskError string
	Snapshot  time.Time // when the newest snapshot was taken; zero if there is none

	until time.Time // the index does not count as current after it; zero for no limit
}

// Current reports whether the index follows the database: its content was verified a moment ago. After a pause of the
// process it is not current until the feed has been read again.
func (s Status) Current() bool {
	return s.Loaded && s.CaughtUp && s.SourceError == "" && s.Reloading == "" && s.Held == nil &&
		(s.until.IsZero() || time.Now().Before(s.until))
}

// Held describes a load that was held back because it would replace the index by data that may be wrong.
type Held struct {
	Reason   string
	Database string    // identity of the database found
	Numbers  int64     // numbers in that database
	Since    time.Time // when it was found
	why      error     // the reason for the load
}

// Open reads the index from dir. It returns an error only if the directory cannot be used at all: damaged files are
// logged and ignored, and without a usable snapshot the view is nil until Run has loaded it. No other replica may use
// dir.
func Open(cfg Config, dir string, src Source, sealer Sealer, log *slog.Logger,
	reg prometheus.Registerer) (*Replica, error) {
	fs, err := openFiles(dir)
	if err != nil {
		return nil, err
	}
	r := &Replica{cfg: cfg.withDefaults(), src: src, sealer: sealer, log: log, files: fs,
		snap: make(chan struct{}, 1)}
	r.m = newMetrics(reg, r)
	start := time.Now()
	v, info, cur, replayed, err := fs.load(sealer, func(file string, err error) {
		if errors.Is(err, errOtherLoad) {
			log.Warn("ignoring a journal of the number index", "file", file, "reason", err)
			return
		}
		r.m.damaged.Inc()
		log.Error("cannot use a file of the number index; using the older files", "file", file, "error", err)
	})
	if err != nil {
		return nil, err
	}
	if v == nil {
		log.Info("no snapshot of the number index; loading it from the database")
		return r, nil
	}
	r.view.Store(v)
	r.cur, r.loaded, r.logged, r.changes = cur, info.Load, cur.Position, replayed
	r.state = Status{Loaded: true, Database: cur.Database, Position: cur.Position, Head: cur.Position,
		Snapshot: info.At}
	log.Info("number index read from disk", "numbers", v.Numbers(), "cursor", cur, "snapshot", info.At, "journaled",
		replayed, "took", time.Since(start))
	return r, nil
}

// Route returns the index for routing, a *View, or a nil interface if none was ever loaded. It stays usable when a new
// one replaces it.
func (r *Replica) Route() route.View {
	if v := r.view.Load(); v != nil {
		return v
	}
	return nil
}

// Gateways returns the labels for which Teams has gateway objects; none before an index is loaded.
func (r *Replica) Gateways() []string {
	if v := r.view.Load(); v != nil {
		return v.Gateways()
	}
	return nil
}

// Ready returns nil if calls can be routed by provisioned data: the index is loaded and has reached the source's state
// at startup, or the source cannot be read, or the index is held back until an operator accepts the database. Otherwise
// the error says what is missing.
func (r *Replica) Ready() error {
	s := r.Status()
	switch {
	case !s.Loaded && s.SourceError != "":
		return fmt.Errorf("the number index is not loaded: no usable snapshot, and the database cannot be read: %s",
			s.SourceError)
	case !s.Loaded:
		return errors.New("the number index is being loaded")
	case !s.CaughtUp && s.SourceError == "" && s.Held == nil:
		return errors.New("the number index is catching up with the database")
	}
	return nil
}

// Status returns the state of the index.
func (r *Replica) Status() Status {
	r.stateMu.Lock()
	s := r.state
	r.stateMu.Unlock()
	if v := r.view.Load(); v != nil {
		s.Numbers, s.Bytes = v.Numbers(), v.Bytes()
	}
	return s
}

// change changes the state.
func (r *Replica) change(do func(*Status)) {
	r.stateMu.Lock()
	defer r.stateMu.Unlock()
	do(&r.state)
}

// Run keeps the index up to date with the source until ctx ends, then writes a last snapshot if there are new changes.
// It always returns nil: it waits for an unavailable source, and reports and retries a failing disk.
func (r *Replica) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { r.snapshots(ctx) })
	r.follow(ctx)
	wg.Wait()
	if r.due() {
		r.snapshot()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.endJournal()
	return nil
}

// errNoView is a reason for a full load, in addition to those of the feed.
var errNoView = errors.New("there is no index yet")

// errHeld is returned for a load that waits for an operator; Status.Held says why.
var errHeld = errors.New("the content of the database must be accepted first")

// reason returns the reason for a full load that err wraps, or nil if there is none.
func reason(err error) error {
	for _, why := range []error{errNoView, errPayload, feed.ErrGap, feed.ErrFork, feed.ErrOtherDatabase} {
		if errors.Is(err, why) {
			return why
		}
	}
	return nil
}

// follow reads the feed until ctx ends.
func (r *Replica) follow(ctx context.Context) {
	pause := retryFirst
	for ctx.Err() == nil {
		err := r.step(ctx)
		switch {
		case err == nil:
			pause = retryFirst
			continue
		case ctx.Err() != nil:
			return
		case errors.Is(err, errHeld):
			pause = retryFirst
		default:
			r.m.sourceErrors.Inc()
			r.change(func(s *Status) {
				if s.SourceError == "" {
					r.log.Warn("cannot read the database; routing calls by the present number index", "error", err,
						"position", s.Position)
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

// step reads and applies new entries, or waits for them. If the feed cannot be continued, it does a full load.
func (r *Replica) step(ctx context.Context) error {
	r.mu.Lock()
	cur := r.cur
	r.mu.Unlock()
	r.asked = time.Now()
	page, err := r.read(ctx, cur)
	if err == nil && len(page.Entries) > 0 {
		err = r.apply(page)
	}
	if why := reason(err); why != nil {
		return r.load(ctx, why, page.Head.Database)
	}
	if err != nil || len(page.Entries) > 0 {
		return err
	}
	r.mu.Lock()
	r.cur = page.Next // past entries of other topics
	r.mu.Unlock()
	r.level(page.Next.Position)
	return r.src.Wait(ctx, page.Next.Position)
}

// read returns the next entries, or a reason for a full load. The page's head is set in both cases.
func (r *Replica) read(ctx context.Context, cur feed.Cursor) (page feed.Page, err error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	page, err = r.src.Read(ctx, feed.Provisioning, cur, readEntries)
	switch {
	case r.view.Load() == nil && errors.Is(err, feed.ErrOtherDatabase): // the zero cursor is in no database
		err = errNoView
	case err == nil && r.goal == 0:
		r.goal = page.Head.Position
	}
	return page, err
}

// healthy records that the source was read and continues the index.
func (r *Replica) healthy(s *Status) {
	if s.Held != nil {
		r.log.Info("the database continues the number index again; following it", "database", r.cur.Database)
	}
	s.SourceError, s.Reloading, s.Held = "", "", nil
	r.accepted = ""
	if r.Patience > 0 {
		s.until = r.asked.Add(r.Patience)
	}
}

// level records that the index holds everything up to head, which was the source's head a moment ago.
func (r *Replica) level(head feed.Position) {
	r.change(func(s *Status) {
		if s.SourceError != "" {
			r.log.Info("database available again; the number index is up to date", "position", head)
		} else if !s.CaughtUp {
			r.log.Info("the number index is up to date with the database", "position", head)
		}
		r.healthy(s)
		s.CaughtUp = true
		s.Position, s.Head, s.SyncedAt = head, head, r.asked
	})
}

// apply makes a batch visible, then writes it to the journal: calls must not wait for the disk.
func (r *Replica) apply(page feed.Page) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := r.view.Load()
	start := time.Now()
	for _, e := range page.Entries {
		if err := v.applyEntry(e, r.badChange(e.Position)); err != nil {
			return fmt.Errorf("feed entry %d: %w", e.Position, err)
		}
	}
	last := page.Entries[len(page.Entries)-1]
	r.cur = page.Next
	r.changes += len(page.Entries)
	r.m.applied.Add(float64(len(page.Entries)))
	r.m.applySeconds.Observe(time.Since(start).Seconds())
	r.m.delay.Observe(max(0, time.Since(last.At).Seconds()))
	if err := r.write(page.Entries); err != nil {
		r.diskFailed(err)
		r.endJournal()
		r.ask()
	}
	if r.changes >= r.cfg.SnapshotAfterChanges {
		r.ask()
	}
	// Updated last: a position that Wait reports survives a crash.
	if r.cur == page.Head {
		r.level(r.cur.Position)
	} else {
		r.change(func(s *Status) {
			r.healthy(s)
			s.Position, s.Head = r.cur.Position, page.Head.Position
			s.CaughtUp = s.CaughtUp || s.Position >= r.goal // the source may never pause long enough for level
		})
	}
	return nil
}

// badChange reports invalid changes; the accounts and numbers in them stay as they were.
func (r *Replica) badChange(pos feed.Position) func(error) {
	return func(err error) {
		r.m.badChanges.Inc()
		r.log.Error("ignoring an invalid change from the database", "position", pos, "error", err)
	}
}

// write appends a batch to the journal, starting one if there is none. The caller holds mu.
func (r *Replica) write(entries []feed.Entry) error {
	after := r.logged
	r.logged = entries[len(entries)-1].Position // even on failure: the next batch must not seem to follow after
	if r.journal == nil {
		j, err := r.files.newJournal(r.loaded, r.sealer)
		if err != nil {
			return fmt.Errorf("start a journal: %w", err)
		}
		r.journal = j
	}
	if err := r.journal.append(after, entries); err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	return nil
}

// endJournal closes the journal; the next batch starts a new one. The caller holds mu.
func (r *Replica) endJournal() {
	if r.journal == nil {
		return
	}
	if err := r.journal.f.Close(); err != nil {
		r.log.Error("cannot close the journal of the number index", "error", err)
	}
	r.journal = nil
}

// diskFailed reports that changes are not on disk.
func (r *Replica) diskFailed(err error) {
	r.m.diskErrors.Inc()
	r.change(func(s *Status) {
		if s.DiskError == "" {
			r.log.Error("cannot write the number index to disk; a restart without the database would use an older one",
				"error", err)
		}
		s.DiskError = err.Error()
	})
}

// load loads everything into a new view and replaces the old one, or holds the new one back until an operator has
// accepted the content of that database, or the source continues the old index again.
func (r *Replica) load(ctx context.Context, why error, database string) error {
	waiting := false
	r.change(func(s *Status) {
		if waiting = s.Held != nil && s.Held.why == why && s.Held.Database == database &&
			r.accepted != database; waiting {
			s.SourceError = "" // the source was read
			return
		}
		if s.Loaded && s.Reloading == "" {
			r.log.Error("reloading the number index; serving the old one until it is ready", "reason", why)
		}
		s.Reloading = why.Error()
	})
	if waiting {
		return errHeld
	}
	start := time.Now()
	r.m.loads.Inc()
	v := newView(0)
	v.slab = &slab{}
	bad := r.badChange(0)
	cur, err := r.src.Scan(ctx, func(changes []domain.Change) error { return v.apply(changes, bad) })
	if err != nil {
		return fmt.Errorf("read all accounts and numbers: %w", err)
	}
	v.slab = nil
	v.ids.settle()
	if reason := r.objection(v, cur); reason != "" {
		r.log.Error("keeping the old number index; if the database is right, run tandem index accept",
			"reason", reason, "database", cur.Database, "numbers", v.Numbers())
		r.change(func(s *Status) {
			s.SourceError, s.Reloading = "", ""
			s.Held = &Held{Reason: reason, Database: cur.Database, Numbers: v.Numbers(), Since: time.Now(), why: why}
		})
		return errHeld
	}

	r.mu.Lock()
	r.view.Store(v)
	r.cur, r.loaded, r.logged = cur, rand.Text(), cur.Position
	r.changes = max(1, r.changes) // so that a snapshot is due, even at shutdown
	r.endJournal()                // it continues another state
	r.mu.Unlock()
	r.change(func(s *Status) {
		s.Held = nil // or healthy would log that the database continues the index
		r.healthy(s)
		s.Loaded, s.CaughtUp = true, true
		s.Database, s.Position, s.Head, s.SyncedAt = cur.Database, cur.Position, cur.Position, r.asked
	})
	r.log.Info("number index loaded from the database", "numbers", v.Numbers(), "cursor", cur, "why", why, "took",
		time.Since(start))
	r.ask()
	return nil
}

// objection returns why a view loaded from the source must not replace the index before an operator has accepted it;
// empty if it may.
func (r *Replica) objection(v *View, cur feed.Cursor) string {
	r.stateMu.Lock()
	accepted := r.accepted == cur.Database
	r.stateMu.Unlock()
	old := r.view.Load()
	if accepted || old == nil || len(old.names) == 0 {
		return "" // without an account there is nothing to lose
	}
	if r.cur.Database != cur.Database {
		return "the index was loaded from another database"
	}
	have, lost := old.Numbers(), old.Numbers()-v.Numbers()
	if lost > int64(r.cfg.MaxShrinkNumbers) && lost*100 > have*int64(r.cfg.MaxShrinkPercent) {
		return fmt.Sprintf("the index would lose %d of its %d numbers", lost, have)
	}
	return ""
}

// Accept allows the content of the database with that identity to replace the index, however many numbers it loses, if
// note returns nil. The load follows as soon as the database can be read; a restart before that cancels the acceptance.
// The error is fault.Conflict if the index is not held back from that database, or the error of note.
func (r *Replica) Accept(database string, note func(*Held) error) error {
	h := r.Status().Held
	if h == nil || h.Database != database {
		return fault.New(fault.Conflict, "IndexNotHeld",
			"the number index is not held back from database %s; check with tandem index", database)
	}
	if err := note(h); err != nil {
		return err
	}
	r.stateMu.Lock()
	defer r.stateMu.Unlock()
	r.accepted = database
	return nil
}

// ask requests a snapshot.
func (r *Replica) ask() {
	select {
	case r.snap <- struct{}{}:
	default: // already requested
	}
}

// due reports whether there are changes since the last snapshot.
func (r *Replica) due() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changes > 0 && r.view.Load() != nil
}

// snapshots writes snapshots on request and at intervals, until ctx ends.
func (r *Replica) snapshots(ctx context.Context) {
	timer := time.NewTimer(r.cfg.SnapshotEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-r.snap:
		}
		next := r.cfg.SnapshotEvery
		if r.due() && !r.snapshot() {
			next = min(next, retryDisk)
		}
		timer.Reset(next)
	}
}

// snapshot writes a snapshot of the present index and reports whether that succeeded. Changes wait while the table is
// copied, not while it is written.
func (r *Replica) snapshot() bool {
	start := time.Now()
	r.mu.Lock()
	v := r.view.Load()
	s := v.hold(r.cur, r.loaded, start.UTC())
	changes := r.changes
	r.changes = 0
	r.endJournal() // later changes go into one with a higher number than the snapshot
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
		r.log.Warn("cannot remove old files of the number index", "error", err)
	}
	r.change(func(st *Status) {
		if st.DiskError != "" {
			r.log.Info("writing the number index to disk again", "position", s.Position)
		}
		st.Snapshot, st.DiskError = s.At, ""
	})
	r.m.snapshots.Inc()
	r.log.Info("snapshot of the number index written", "numbers", s.Numbers, "position", s.Position, "bytes", size,
		"took", time.Since(start), "heldUp", held)
	return true
}
