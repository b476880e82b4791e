// Package outbox stores the change feed in the database, for the readers of package feed. Other logs with the same
// properties, each in a table of its own, are stored by the same code (see In).
//
// Writers call Append inside their transaction. The counter that assigns positions is locked when everything else in
// the transaction is done, so that positions are in commit order and writers wait for each other as briefly as
// possible. Waiting readers are woken by a commit in this process, on PostgreSQL by NOTIFY from other processes too,
// and in any case by a poll; a notification is never more than a hint.
//
// It stores no cursors: each reader keeps its own. Entries are kept for Config.Keep and then pruned; a reader that
// comes later gets feed.ErrGap and loads everything again.
package outbox

import (
	"cmp"
	"context"
	crand "crypto/rand"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/feed"
)

// Table says where the entries are stored: in the table of that name, with the counter in the table NAME_head.
type Table struct {
	Name  string
	Title string  // for metrics and the log
	Rank  db.Rank // when a transaction takes its positions
	Max   int64   // maximum number of entries kept, whatever their age; 0 for no limit
}

// changeFeed is the table of the change feed. Its counter holds the database's identity too.
var changeFeed = Table{Name: "feed", Title: "change feed", Rank: db.LastFeed}

// channel is PostgreSQL's notification channel. The payload is the newest position.
func (t Table) channel() string { return "tandem_" + t.Name }

// spill is the size of the entries that a transaction collects in memory before it stores them early.
const spill = 1 << 20

// Config is the feed's part of the configuration.
type Config struct {
	// Poll is how often a waiting reader checks for new entries without a notification. Default 250ms. A longer
	// interval delays changes where PostgreSQL's NOTIFY is not available (PgBouncer in transaction mode).
	Poll time.Duration `yaml:"poll"`
	// Keep is how long entries are kept for readers that are stopped. Default 168h. A reader that was stopped for
	// longer loads everything again.
	Keep time.Duration `yaml:"keep"`
}

// Default returns the configuration used where the file says nothing.
func Default() Config { return Config{Poll: 250 * time.Millisecond, Keep: 7 * 24 * time.Hour} }

// Validate returns every mistake in the configuration.
func (c *Config) Validate() []error {
	var errs fault.Problems
	if c.Poll < 10*time.Millisecond || c.Poll > time.Minute {
		errs.Add("poll", "%v is out of range; use 10ms to 1m", c.Poll)
	}
	if c.Keep < time.Minute {
		errs.Add("keep", "%v is too short; use at least 1m", c.Keep)
	}
	return errs
}

// Outbox is the stored feed. Its methods are safe for concurrent use.
type Outbox struct {
	d    *db.DB
	at   Table
	cfg  Config
	log  *slog.Logger
	head atomic.Int64 // newest position known here; may lag behind the database

	mu   sync.Mutex
	wake chan struct{} // closed and replaced at each notification; guarded by mu

	entries prometheus.Counter
	listens prometheus.Gauge
}

var _ feed.Reader = (*Outbox)(nil)

// New returns the change feed stored in d.
func New(d *db.DB, cfg Config, log *slog.Logger, reg prometheus.Registerer) *Outbox {
	return In(d, changeFeed, cfg, log, reg)
}

// In returns a feed of its own, with positions of its own, stored in another table of d.
func In(d *db.DB, at Table, cfg Config, log *slog.Logger, reg prometheus.Registerer) *Outbox {
	f := promauto.With(reg)
	return &Outbox{d: d, at: at, cfg: cfg, log: log, wake: make(chan struct{}),
		entries: f.NewCounter(prometheus.CounterOpts{Name: "tandem_" + at.Name + "_entries_total",
			Help: "Entries appended to the " + at.Title + " by this process."}),
		listens: f.NewGauge(prometheus.GaugeOpts{Name: "tandem_" + at.Name + "_listening",
			Help: "1 while notifications of the " + at.Title + " arrive from other processes (always on SQLite)."}),
	}
}

// Batch collects the entries of one transaction. It is used only inside the transaction, and not safe for concurrent
// use.
type Batch struct {
	o       *Outbox
	tx      *db.Tx
	entries []entry
	bytes   int
	staged  int64 // entries stored early under negative positions
	stage   int64 // the first of these positions; the others follow it
	last    feed.Position
}

type entry struct {
	topic   string
	at      int64
	id      int64
	payload []byte
}

// newID returns the id of an entry. It comes from the kernel at each call: a generator's state in this process would be
// copied with a snapshot of the machine, and both copies would give the same ids to different entries.
func newID() int64 {
	var b [8]byte
	crand.Read(b[:]) // never fails
	return int64(binary.BigEndian.Uint64(b[:]))
}

// Begin returns the batch of tx.
func (o *Outbox) Begin(tx *db.Tx) *Batch {
	return tx.Once(o, func() any {
		b := &Batch{o: o, tx: tx}
		tx.Last(o.at.Rank, b.finish)
		tx.OnCommit(b.committed)
		return b
	}).(*Batch)
}

// Append adds an entry to the feed. Entries get consecutive positions in the order of the calls, at the end of the
// transaction. However many there are, only about one MiB of them is held in memory.
func (b *Batch) Append(ctx context.Context, topic string, payload []byte) error {
	b.entries = append(b.entries, entry{topic, time.Now().UnixMicro(), newID(), payload})
	b.bytes += len(payload)
	if b.bytes < spill {
		return nil
	}
	if b.staged == 0 {
		// Readers ask for positions above zero, so they do not see these rows until they are renumbered. Room for 2^20
		// entries above one of 2^42 random places keeps transactions apart; if two collide, the unique key fails.
		b.stage = -((1 + rand.Int64N(1<<42)) << 20)
	}
	if err := b.insert(ctx, b.stage+b.staged); err != nil {
		return err
	}
	b.staged += int64(len(b.entries))
	if b.staged >= 1<<20 {
		return errors.New("too many feed entries in one transaction")
	}
	b.entries, b.bytes = b.entries[:0], 0
	return nil
}

// Position returns the position of the last entry once the transaction has committed, 0 if there is none.
func (b *Batch) Position() feed.Position { return b.last }

func (b *Batch) insert(ctx context.Context, first int64) error {
	for i, e := range b.entries {
		_, err := b.tx.Exec(ctx, "INSERT INTO "+b.o.at.Name+" (position, topic, at, payload, entry) "+
			"VALUES ($1, $2, $3, $4, $5)", first+int64(i), e.topic, e.at, e.payload, e.id)
		if err != nil {
			return fmt.Errorf("append to the %s: %w", b.o.at.Title, err)
		}
	}
	return nil
}

func (b *Batch) finish(ctx context.Context) error {
	n := b.staged + int64(len(b.entries))
	if n == 0 {
		return nil
	}
	var head int64
	ok, err := b.tx.QueryRow(ctx, "UPDATE "+b.o.at.Name+"_head SET position = position + $1 WHERE id = 1 "+
		"RETURNING position", []any{n}, &head)
	if err != nil {
		return fmt.Errorf("take positions in the %s: %w", b.o.at.Title, err)
	}
	if !ok {
		return fmt.Errorf("take positions in the %s: the counter is missing", b.o.at.Title)
	}
	first := head - n + 1
	if b.staged > 0 {
		if _, err := b.tx.Exec(ctx, "UPDATE "+b.o.at.Name+" SET position = position - $1 + $2 "+
			"WHERE position >= $1 AND position < $3", b.stage, first, b.stage+b.staged); err != nil {
			return fmt.Errorf("append to the %s: %w", b.o.at.Title, err)
		}
	}
	if err := b.insert(ctx, first+b.staged); err != nil {
		return err
	}
	b.last = feed.Position(head)
	return b.tx.Notify(ctx, b.o.at.channel(), strconv.FormatInt(head, 10))
}

func (b *Batch) committed() {
	if b.last > 0 {
		b.o.entries.Add(float64(b.staged) + float64(len(b.entries)))
		b.o.woken(int64(b.last))
	}
}

// woken records that there are entries up to head and wakes all waiting readers.
func (o *Outbox) woken(head int64) {
	for {
		old := o.head.Load()
		if head <= old || o.head.CompareAndSwap(old, head) {
			break
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.wake)
	o.wake = make(chan struct{})
}

// Read implements feed.Reader.
func (o *Outbox) Read(ctx context.Context, topic string, after feed.Cursor, limit int) (feed.Page, error) {
	var page feed.Page
	var misplaced error
	known := o.head.Load()
	err := o.d.View(ctx, func(ctx context.Context, tx *db.Tx) error {
		s, err := state(ctx, tx, o.at.Name, after.Position)
		if err != nil {
			return err
		}
		page = feed.Page{Head: s.Head, Next: s.Head}
		if misplaced = after.Verify(s); misplaced != nil || after.Position == s.Head.Position {
			return nil
		}

		page.Entries, err = db.Rows(ctx, tx, func(rows *sql.Rows) (e feed.Entry, err error) {
			var at int64
			err = rows.Scan(&e.Position, &e.ID, &e.Topic, &at, &e.Payload)
			e.At = db.Time(at)
			return e, err
		}, "SELECT position, entry, topic, at, payload FROM "+o.at.Name+" WHERE position > $1 AND topic = $2 "+
			"ORDER BY position LIMIT $3", int64(after.Position), topic, int64(limit))
		if n := len(page.Entries); n > 0 && n == limit {
			last := page.Entries[n-1]
			page.Next = feed.Cursor{Database: s.Head.Database, Position: last.Position, Entry: last.ID}
		}
		return err
	})
	if err != nil {
		return feed.Page{}, err
	}
	// If the head is lower than the one known, the entries beyond it were lost: Wait must not expect them.
	o.head.CompareAndSwap(known, int64(page.Head.Position))
	return page, misplaced
}

// state reads the state of the feed in a table, with the id of the entry at a position, in one statement.
func state(ctx context.Context, tx *db.Tx, table string, at feed.Position) (feed.State, error) {
	var s feed.State
	var head, here sql.NullInt64
	var prunedEntry int64
	ok, err := tx.QueryRow(ctx, `SELECT f.database, h.position, h.pruned, h.pruned_entry,
			(SELECT entry FROM `+table+` WHERE position = h.position), (SELECT entry FROM `+table+` WHERE position = $1)
		FROM `+table+`_head h, feed_head f WHERE h.id = 1 AND f.id = 1`,
		[]any{int64(at)}, &s.Head.Database, &s.Head.Position, &s.Pruned, &prunedEntry, &head, &here)
	if err != nil {
		return s, fmt.Errorf("read the state of the %s: %w", table, err)
	}
	if !ok {
		return s, fmt.Errorf("read the state of the %s: its counter is missing", table)
	}
	s.Head.Entry, s.Entry = head.Int64, here.Int64
	if s.Head.Position == s.Pruned {
		s.Head.Entry = prunedEntry
	}
	if at == s.Pruned {
		s.Entry = prunedEntry
	}
	return s, nil
}

// Wait implements feed.Reader. It does not use the database, so it works while that is unavailable.
func (o *Outbox) Wait(ctx context.Context, after feed.Position) error {
	o.mu.Lock()
	wake := o.wake
	o.mu.Unlock()
	if o.head.Load() > int64(after) {
		return ctx.Err()
	}
	select {
	case <-wake:
	case <-time.After(o.cfg.Poll):
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// Head returns the cursor of the newest entry.
func (o *Outbox) Head(ctx context.Context) (head feed.Cursor, err error) {
	err = o.d.View(ctx, func(ctx context.Context, tx *db.Tx) error {
		s, err := state(ctx, tx, o.at.Name, 0)
		head = s.Head
		return err
	})
	return head, err
}

// HeadIn returns the cursor of the newest entry of the change feed as tx sees it: everything else that tx reads is the
// state at that cursor.
func HeadIn(ctx context.Context, tx *db.Tx) (feed.Cursor, error) {
	s, err := state(ctx, tx, changeFeed.Name, 0)
	return s.Head, err
}

// Stamp gives the database a new identity and returns it, with an audit row in the same transaction. It is for a
// restored database: readers of the previous database must not mistake it for that one.
func (o *Outbox) Stamp(ctx context.Context) (identity string, err error) {
	err = o.d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
		head, err := HeadIn(ctx, tx)
		if err != nil {
			return err
		}
		if head.Position == 0 {
			return fault.New(fault.Invalid, "EmptyDatabase",
				"no change was ever written to this database; it is not the one to restore")
		}
		identity = uuid.NewString()
		if _, err := tx.Exec(ctx, "UPDATE feed_head SET database = $1 WHERE id = 1", identity); err != nil {
			return fmt.Errorf("give the database a new identity: %w", err)
		}
		return tx.AuditOf(ctx, "database.restore", identity, 1,
			map[string]any{"database": identity, "before": head.Database, "position": head.Position})
	})
	return identity, err
}

// Prune removes entries created before t, and the oldest of more entries than the table's Max, and returns how many. It
// removes few at a time, so that writers hardly wait.
func (o *Outbox) Prune(ctx context.Context, t time.Time) (int64, error) {
	const step = 1000
	most := cmp.Or(o.at.Max, math.MaxInt64)
	var total int64
	for {
		var n int64
		err := o.d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
			n = 0
			// The newest entry to remove, at most step positions beyond those pruned already. Times may go backwards a
			// little between nodes; positions do not.
			var upto, entry int64
			ok, err := tx.QueryRow(ctx, `SELECT e.position, e.entry FROM `+o.at.Name+` e, `+o.at.Name+`_head h
				WHERE h.id = 1 AND (e.at < $1 OR e.position <= h.position - $2)
					AND e.position > 0 AND e.position <= h.pruned + $3 ORDER BY e.position DESC LIMIT 1`,
				[]any{t.UnixMicro(), most, int64(step)}, &upto, &entry)
			if err != nil || !ok {
				return err
			}
			if n, err = tx.Exec(ctx, "DELETE FROM "+o.at.Name+" WHERE position > 0 AND position <= $1",
				upto); err != nil {
				return err
			}
			tx.Last(o.at.Rank, func(ctx context.Context) error {
				_, err := tx.Exec(ctx, "UPDATE "+o.at.Name+"_head SET pruned = $1, pruned_entry = $2 "+
					"WHERE id = 1 AND pruned < $1", upto, entry)
				return err
			})
			return nil
		})
		total += n
		if err != nil {
			return total, fmt.Errorf("prune the %s: %w", o.at.Title, err)
		}
		if n == 0 {
			return total, nil
		}
	}
}

// Run listens for notifications from other processes and prunes old entries, until ctx is done; then it returns nil. It
// continues while the database is unavailable.
func (o *Outbox) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			err := o.d.Listen(ctx, o.at.channel(), func() {
				o.listens.Set(1)
				o.woken(0) // entries may have been added before it listened
			}, func(payload string) {
				if head, err := strconv.ParseInt(payload, 10, 64); err == nil {
					o.woken(head)
				}
			})
			o.listens.Set(0)
			if err != nil {
				o.log.Debug("notifications lost; readers poll until they resume", "of", o.at.Title, "error", err)
			}
			db.Sleep(ctx, time.Second)
		}
	})
	wg.Go(func() {
		for ctx.Err() == nil {
			if n, err := o.Prune(ctx, time.Now().Add(-o.cfg.Keep)); err != nil {
				o.log.Warn(o.at.Title+" not pruned; retrying in a minute", "error", err)
			} else if n > 0 {
				o.log.Debug(o.at.Title+" pruned", "entries", n)
			}
			db.Sleep(ctx, time.Minute)
		}
	})
	wg.Wait()
	return nil
}
