// Package outbox stores the change feed in the database: it is what package feed's readers read.
//
// Writers call Append inside their transaction. The counter that gives positions is locked when everything else in the
// transaction is done, so that positions are in the order of commits and writers wait for each other as briefly as can be.
// Waiting readers are woken by a commit in this process, on PostgreSQL by NOTIFY from other processes too, and by a poll
// in any case; a wake-up is never more than a hint.
//
// It holds no cursors: each reader keeps its own position. Entries are kept for Config.Keep and then pruned; a reader
// that comes later gets feed.ErrGap and loads everything anew.
package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/feed"
)

// channel is PostgreSQL's notification channel. The payload is the newest position.
const channel = "tandem_feed"

// spill is how many bytes of entries a transaction gathers in memory before it stores them ahead of their turn.
const spill = 1 << 20

// Config is the feed's part of the configuration.
type Config struct {
	// Poll is how often a waiting reader looks for new entries without having been woken. Default 250ms. Longer delays
	// changes where PostgreSQL's NOTIFY is not to be had (PgBouncer in transaction mode).
	Poll time.Duration `yaml:"poll"`
	// Keep is how long entries are kept for readers that were away. Default 168h. A reader that was away longer loads
	// everything anew.
	Keep time.Duration `yaml:"keep"`
}

// Default returns the configuration used where the file says nothing.
func Default() Config { return Config{Poll: 250 * time.Millisecond, Keep: 7 * 24 * time.Hour} }

// Validate returns every mistake in the configuration.
func (c *Config) Validate() []error {
	var errs []error
	if c.Poll < 10*time.Millisecond || c.Poll > time.Minute {
		errs = append(errs, fault.New(fault.Invalid, "InvalidConfiguration", "%v is out of range; use 10ms to 1m", c.Poll).At("poll"))
	}
	if c.Keep < time.Minute {
		errs = append(errs, fault.New(fault.Invalid, "InvalidConfiguration", "%v is too short; use at least 1m", c.Keep).At("keep"))
	}
	return errs
}

// Outbox is the stored feed. Its methods are safe for concurrent use.
type Outbox struct {
	d    *db.DB
	cfg  Config
	log  *slog.Logger
	head atomic.Int64 // newest position known here; may lag behind the truth

	mu   sync.Mutex
	wake chan struct{} // closed and replaced at each wake-up; guarded by mu

	entries prometheus.Counter
	listens prometheus.Gauge
}

var _ feed.Reader = (*Outbox)(nil)

// New returns the feed stored in d.
func New(d *db.DB, cfg Config, log *slog.Logger, reg prometheus.Registerer) *Outbox {
	o := &Outbox{d: d, cfg: cfg, log: log, wake: make(chan struct{}),
		entries: prometheus.NewCounter(prometheus.CounterOpts{Name: "tandem_feed_entries_total", Help: "Entries appended to the change feed by this process."}),
		listens: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tandem_feed_listening", Help: "1 while wake-ups from other processes arrive (always on SQLite)."}),
	}
	if reg != nil {
		reg.MustRegister(o.entries, o.listens)
	}
	return o
}

// Batch gathers the entries of one transaction. It is made by Begin, used inside the transaction only, and not safe for
// concurrent use.
type Batch struct {
	o       *Outbox
	tx      *db.Tx
	entries []entry
	bytes   int
	staged  int64 // entries stored ahead under negative positions
	stage   int64 // the first of these positions; they go down from it
	last    feed.Position
}

type entry struct {
	topic   string
	at      int64
	payload []byte
}

// Begin prepares tx for appending. It is called at most once per transaction.
func (o *Outbox) Begin(tx *db.Tx) *Batch {
	b := &Batch{o: o, tx: tx}
	tx.Last(db.LastFeed, b.finish)
	tx.OnCommit(b.committed)
	return b
}

// Append adds an entry to the feed. Entries get consecutive positions in the order of the calls, at the end of the
// transaction. However many there are, only about a MiB of them is held in memory.
func (b *Batch) Append(ctx context.Context, topic string, payload []byte) error {
	b.entries = append(b.entries, entry{topic, time.Now().UnixMicro(), payload})
	b.bytes += len(payload)
	if b.bytes < spill {
		return nil
	}
	if b.staged == 0 {
		// Readers ask for positions above zero, so these rows are out of their sight until they are renumbered. Room for
		// 2^20 entries above a random place of 2^42 keeps transactions apart; should two meet, the key's uniqueness tells.
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
		if _, err := b.tx.Exec(ctx, "INSERT INTO feed (position, topic, at, payload) VALUES ($1, $2, $3, $4)", first+int64(i), e.topic, e.at, e.payload); err != nil {
			return fmt.Errorf("append to the feed: %w", err)
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
	ok, err := b.tx.QueryRow(ctx, "UPDATE feed_head SET position = position + $1 WHERE id = 1 RETURNING position", []any{n}, &head)
	if err != nil {
		return fmt.Errorf("take feed positions: %w", err)
	}
	if !ok {
		return errors.New("take feed positions: the counter is missing")
	}
	first := head - n + 1
	if b.staged > 0 {
		if _, err := b.tx.Exec(ctx, "UPDATE feed SET position = position - $1 + $2 WHERE position >= $1 AND position < $3", b.stage, first, b.stage+b.staged); err != nil {
			return fmt.Errorf("append to the feed: %w", err)
		}
	}
	if err := b.insert(ctx, first+b.staged); err != nil {
		return err
	}
	b.last = feed.Position(head)
	return b.tx.Notify(ctx, channel, strconv.FormatInt(head, 10))
}

func (b *Batch) committed() {
	if b.last > 0 {
		b.o.entries.Add(float64(b.staged) + float64(len(b.entries)))
		b.o.woken(int64(b.last))
	}
}

// woken notes that there are entries up to head and wakes all who wait.
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
func (o *Outbox) Read(ctx context.Context, topic string, after feed.Position, limit int) ([]feed.Entry, error) {
	var es []feed.Entry
	err := o.d.View(ctx, func(ctx context.Context, tx *db.Tx) error {
		es = es[:0]
		err := tx.Query(ctx, func(rows *sql.Rows) error {
			var e feed.Entry
			var at int64
			if err := rows.Scan(&e.Position, &e.Topic, &at, &e.Payload); err != nil {
				return err
			}
			e.At = time.UnixMicro(at).UTC()
			es = append(es, e)
			return nil
		}, "SELECT position, topic, at, payload FROM feed WHERE position > $1 AND topic = $2 ORDER BY position LIMIT $3", int64(max(after, 0)), topic, int64(limit))
		if err != nil {
			return err
		}
		// Asked after the entries: what was pruned before they were read shows here.
		var head, pruned int64
		if _, err := tx.QueryRow(ctx, "SELECT position, pruned FROM feed_head WHERE id = 1", nil, &head, &pruned); err != nil {
			return err
		}
		// A position beyond the head comes from a database that has since been put back to an older state.
		if int64(after) > head {
			o.head.Store(head) // or Wait would go on believing in the newer one
			return feed.ErrGap
		}
		if int64(after) < pruned {
			return feed.ErrGap
		}
		return nil
	})
	if err != nil {
		if errors.Is(err, feed.ErrGap) {
			return nil, feed.ErrGap
		}
		return nil, err
	}
	return es, nil
}

// Wait implements feed.Reader. It asks nothing of the database, so it works while that is away.
func (o *Outbox) Wait(ctx context.Context, after feed.Position) error {
	o.mu.Lock()
	wake := o.wake
	o.mu.Unlock()
	if o.head.Load() > int64(after) {
		return ctx.Err()
	}
	t := time.NewTimer(o.cfg.Poll)
	defer t.Stop()
	select {
	case <-wake:
	case <-t.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// Head implements feed.Reader.
func (o *Outbox) Head(ctx context.Context) (feed.Position, error) {
	var head int64
	err := o.d.View(ctx, func(ctx context.Context, tx *db.Tx) error {
		_, err := tx.QueryRow(ctx, "SELECT position FROM feed_head WHERE id = 1", nil, &head)
		return err
	})
	return feed.Position(head), err
}

// Prune removes entries made before t and returns how many. It takes few at a time, so that writers hardly wait.
func (o *Outbox) Prune(ctx context.Context, t time.Time) (int64, error) {
	const step = 1000
	var total int64
	for {
		var n int64
		err := o.d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
			n = 0
			// The newest entry made before t, at most step further than what is pruned already. Times may run backwards a
			// little between nodes; positions do not.
			var upto sql.NullInt64
			_, err := tx.QueryRow(ctx, `SELECT MAX(position) FROM feed WHERE at < $1 AND position > 0 AND position <= (SELECT pruned FROM feed_head WHERE id = 1) + $2`,
				[]any{t.UnixMicro(), int64(step)}, &upto)
			if err != nil || !upto.Valid {
				return err
			}
			if n, err = tx.Exec(ctx, "DELETE FROM feed WHERE position > 0 AND position <= $1", upto.Int64); err != nil {
				return err
			}
			tx.Last(db.LastFeed, func(ctx context.Context) error {
				_, err := tx.Exec(ctx, "UPDATE feed_head SET pruned = $1 WHERE id = 1 AND pruned < $1", upto.Int64)
				return err
			})
			return nil
		})
		total += n
		if err != nil {
			return total, fmt.Errorf("prune the feed: %w", err)
		}
		if n == 0 {
			return total, nil
		}
	}
}

// Run listens for wake-ups from other processes and prunes old entries, until ctx is done; then it returns nil. It
// outlives the loss of the database.
func (o *Outbox) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			err := o.d.Listen(ctx, channel, func() {
				o.listens.Set(1)
				o.woken(0) // something may have come while nobody listened
			}, func(payload string) {
				if head, err := strconv.ParseInt(payload, 10, 64); err == nil {
					o.woken(head)
				}
			})
			o.listens.Set(0)
			if err != nil {
				o.log.Debug("feed wake-ups lost: readers poll until they are back", "error", err)
			}
			pause(ctx, time.Second)
		}
	})
	wg.Go(func() {
		for ctx.Err() == nil {
			if n, err := o.Prune(ctx, time.Now().Add(-o.cfg.Keep)); err != nil {
				o.log.Warn("feed not pruned; trying again in ten minutes", "error", err)
			} else if n > 0 {
				o.log.Info("feed pruned", "entries", n)
			}
			pause(ctx, 10*time.Minute)
		}
	})
	wg.Wait()
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
