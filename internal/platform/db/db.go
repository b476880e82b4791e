package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/domain/fault"
)

// maxAttempts is how often a transaction that conflicts with others is run at most.
const maxAttempts = 12

// DB is an open database. Its methods are safe for concurrent use.
type DB struct {
	cfg     Config
	schemas []Schema // besides platform
	log     *slog.Logger
	m       metrics
	audited func(context.Context, *Tx, *AuditRecord) error // see OnAudit

	write, read *sql.DB         // the same pool on PostgreSQL
	pool        *pgxpool.Pool   // PostgreSQL only
	pgcfg       *pgx.ConnConfig // PostgreSQL only
	lock        *Lock           // SQLite only
	file        *os.File        // SQLite only; closing it earlier than the pools would drop their locks
	where       string          // host, port and database, or the file's path
	node        string          // as given to Join; if empty nothing is written

	probing  chan struct{} // a semaphore of one, held during a probe; guards migrated, probe and held
	migrated bool
	probe    *pgx.Conn // kept open between probes; PostgreSQL only
	held     bool      // probe holds the lock on the node's id, or there is a pooler

	writing sync.Mutex // guards session
	session *pgx.Conn  // on which the node's row is written; PostgreSQL only

	mu     sync.Mutex // guards the fields below
	epoch  *epoch
	down   error     // why epoch is nil
	bad    error     // why writes fail; nil while they succeed
	since  time.Time // when epoch or bad last began or ended
	proven time.Time // when a write check last succeeded
	failed time.Time // when a transaction last failed because of the database
	rival  string    // the session that holds the node's id instead of this node
}

// epoch is a period in which the database is available. Its context ends with it, which cancels all work in progress. A
// nil *epoch means that the database is unavailable.
type epoch struct {
	ctx context.Context
	end context.CancelCauseFunc
}

// Open opens the database and brings its schemas up to date: that of this package and the given ones. PostgreSQL may be
// unavailable: Open then succeeds, and the schemas are migrated when the server is available. Open returns only errors
// that waiting does not fix: a locked or unreadable file, a wrong password, a database that does not guarantee
// durability or was upgraded by a newer program.
func Open(ctx context.Context, cfg Config, log *slog.Logger, reg prometheus.Registerer,
	schemas ...Schema) (*DB, error) {
	if errs := cfg.Validate(); len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	d := &DB{cfg: cfg, schemas: schemas, log: log, probing: make(chan struct{}, 1), since: time.Now(),
		audited: func(context.Context, *Tx, *AuditRecord) error { return nil }}
	d.m = newMetrics(reg, d.Status)
	var err error
	if cfg.Driver == SQLite {
		err = d.openSQLite(ctx)
	} else {
		err = d.openPostgres(ctx)
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// Driver returns SQLite or Postgres.
func (d *DB) Driver() string { return d.cfg.Driver }

// Close closes all connections and releases the file's lock. Transactions in progress fail.
func (d *DB) Close() error {
	d.markUnavailable(errClosed)
	var errs []error
	if d.write != nil {
		errs = append(errs, d.write.Close())
	}
	if d.read != nil && d.read != d.write {
		errs = append(errs, d.read.Close())
	}
	if d.pool != nil {
		d.closePostgres()
	}
	if d.file != nil {
		errs = append(errs, d.file.Close())
	}
	if d.lock != nil {
		errs = append(errs, d.lock.Close())
	}
	return errors.Join(errs...)
}

// View runs fn in a read-only transaction that sees one snapshot of the database: it does not see what others commit
// meanwhile. fn must use the context it is given; it may run more than once.
func (d *DB) View(ctx context.Context, fn func(context.Context, *Tx) error) error {
	return d.run(ctx, false, fn)
}

// Update runs fn in a transaction and commits it if fn returns nil. fn must use the context it is given. It may run
// more than once, because a transaction that conflicts with a concurrent one is rolled back and repeated; so it must
// have no effects outside the transaction. If the connection is lost during the commit, the error is fault.Unavailable
// and it is unknown whether the change was made.
func (d *DB) Update(ctx context.Context, fn func(context.Context, *Tx) error) error {
	return d.run(ctx, true, fn)
}

func (d *DB) run(ctx context.Context, write bool, fn func(context.Context, *Tx) error) error {
	start := time.Now()
	for attempt := 1; ; attempt++ {
		ep := d.current()
		if ep == nil {
			// Without a Run, or between two of its probes, the request itself detects that the database is available.
			if ep = d.recover(ctx); ep == nil {
				return d.done(ctx, write, start, errUnavailable)
			}
		}
		began, err := d.once(ctx, ep, write, fn)
		if err == nil {
			return d.done(ctx, write, start, nil)
		}
		if _, ours := errors.AsType[*fault.Error](err); ours || ctx.Err() != nil || attempt >= maxAttempts {
			return d.done(ctx, write, start, err)
		}
		switch classify(err) {
		case again:
			d.m.retries.Inc()
			// Up to 1, 2, 4 … 256 ms: long enough for the other to finish, random so that two losers do not meet again.
			wait := time.Duration(1+rand.Int64N(1<<min(attempt-1, 8)*1000)) * time.Microsecond
			if !Sleep(ctx, wait) {
				return d.done(ctx, write, start, err)
			}
		case lost:
			if d.cfg.Driver != Postgres {
				return d.done(ctx, write, start, err)
			}
			// Perhaps only this pooled connection is dead, left over from before a restart of the server. A transaction
			// that failed before it began may be repeated if the server answers a probe; any other may have been
			// committed already.
			alive := d.suspect(ctx, ep, err)
			if began || !alive || attempt > 2 {
				return d.done(ctx, write, start, err)
			}
		default:
			return d.done(ctx, write, start, err)
		}
	}
}

// once runs one transaction. began is false if it failed before fn ran.
func (d *DB) once(ctx context.Context, ep *epoch, write bool,
	fn func(context.Context, *Tx) error) (began bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(ep.ctx, func() { cancel(context.Cause(ep.ctx)) })()
	defer func() {
		// Drivers report a cancelled context in their own ways; the cause shows that the database became unavailable.
		if err != nil && ctx.Err() != nil && errors.Is(context.Cause(ctx), errUnavailable) {
			err = fmt.Errorf("%w: %w", errUnavailable, err)
		}
	}()
	pool := d.read
	if write {
		pool = d.write
	}
	conn, err := pool.Conn(ctx)
	if err != nil {
		return false, fmt.Errorf("get a connection: %w", err)
	}
	defer conn.Close()
	o := &sql.TxOptions{}
	if !write && d.cfg.Driver == Postgres {
		// On SQLite every transaction is a snapshot, and query_only keeps the pool from writing.
		o.ReadOnly, o.Isolation = true, sql.LevelRepeatableRead
	}
	stx, err := conn.BeginTx(ctx, o)
	if err != nil {
		return false, fmt.Errorf("begin: %w", err)
	}
	tx := &Tx{d: d, conn: conn, tx: stx, write: write}
	// A panic in fn must not leave the only writing connection inside a transaction.
	committed := false
	defer func() {
		if !committed {
			_ = stx.Rollback() // the error of interest is the one being returned
		}
	}()
	if err := fn(ctx, tx); err != nil {
		return true, err
	}
	if err := tx.finish(ctx); err != nil {
		return true, err
	}
	if err := stx.Commit(); err != nil {
		return true, fmt.Errorf("commit: %w", err)
	}
	committed = true
	for _, f := range tx.committed {
		f()
	}
	return true, nil
}

// done returns the error that callers get for the outcome of a transaction, and counts it.
func (d *DB) done(ctx context.Context, write bool, start time.Time, err error) error {
	kind := "read"
	if write {
		kind = "write"
	}
	d.m.seconds.WithLabelValues(kind).Observe(time.Since(start).Seconds())
	if err == nil {
		return nil
	}
	if _, ours := errors.AsType[*fault.Error](err); ours {
		return err
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("the caller cancelled: %w", context.Canceled)
	}
	switch classify(err) {
	case again:
		return fault.New(fault.Unavailable, CodeBusy,
			"too many concurrent changes to the same resources; nothing was changed").
			After(time.Second).Because(fmt.Errorf("conflict with concurrent transactions, %d times: %w",
			maxAttempts, err))
	case lost:
		d.m.unavailable.Inc()
		return unavailable(err, write, 2*time.Second)
	case broken:
		if d.node != "" { // else nothing would detect that it works again
			d.note(err, false)
		}
		d.m.unavailable.Inc()
		return unavailable(err, write, 30*time.Second)
	}
	if write && !d.Status().Writable {
		return unavailable(err, write, 30*time.Second)
	}
	return fault.Wrap(err, "database")
}

func (d *DB) current() *epoch {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.epoch
}

// markReady starts an epoch unless one is running.
func (d *DB) markReady() *epoch {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.epoch == nil {
		ctx, end := context.WithCancelCause(context.Background())
		d.epoch, d.down, d.since = &epoch{ctx, end}, nil, time.Now()
		d.log.Info("database available", "database", d.where)
	}
	return d.epoch
}

// markUnavailable ends the epoch and with it all work in progress, and records the cause.
func (d *DB) markUnavailable(cause error) {
	d.mu.Lock()
	ep, was := d.epoch, d.down
	d.epoch, d.down = nil, cause
	if ep != nil {
		d.since = time.Now()
	}
	d.mu.Unlock()
	if cause != errClosed && (was == nil || was.Error() != cause.Error()) {
		d.log.Warn("database unavailable; refusing writes until it answers", "database", d.where, "error", cause)
	}
	if ep != nil {
		ep.end(fmt.Errorf("%w: %w", errUnavailable, cause))
	}
}

// Tx is a transaction. It must be used by one goroutine at a time and only until the function it was given to returns.
type Tx struct {
	d         *DB
	conn      *sql.Conn
	tx        *sql.Tx
	write     bool
	last      [lastRanks]func(context.Context) error
	once      map[any]any
	committed []func()
	audits    []AuditRecord
}

// Rank orders the steps at the end of a transaction. Every transaction takes their locks in this order, so that
// transactions never deadlock on them.
type Rank int

// The ranks.
const (
	LastFeed   Rank = iota // the change feed's counter
	LastEvents             // the event log's counter
	LastAudit              // the audit chain's head
	lastRanks
)

// Last registers fn as the step of that rank, to run when the transaction's function has returned nil and before the
// commit. There is one step per rank and transaction; Last registers nothing if there is one already.
func (t *Tx) Last(r Rank, fn func(context.Context) error) {
	if t.last[r] == nil {
		t.last[r] = fn
	}
}

// Once returns what fn returned when Once was first called with this key in the transaction.
func (t *Tx) Once(key any, fn func() any) any {
	v, ok := t.once[key]
	if !ok {
		if t.once == nil {
			t.once = map[any]any{}
		}
		v = fn()
		t.once[key] = v
	}
	return v
}

// OnCommit registers fn to be run after the commit. It must not block.
func (t *Tx) OnCommit(fn func()) { t.committed = append(t.committed, fn) }

func (t *Tx) finish(ctx context.Context) error {
	for i := range t.audits {
		if err := t.d.audited(ctx, t, &t.audits[i]); err != nil {
			return err
		}
	}
	for _, fn := range t.last {
		if fn != nil {
			if err := fn(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// Exec runs a statement and returns how many rows it changed.
func (t *Tx) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	r, err := t.tx.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// Query runs a query and calls scan for each row.
func (t *Tx) Query(ctx context.Context, scan func(*sql.Rows) error, query string, args ...any) error {
	rows, err := t.tx.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Rows returns the rows that a query finds, as scan reads them.
func Rows[T any](ctx context.Context, t *Tx, scan func(*sql.Rows) (T, error), query string, args ...any) ([]T, error) {
	var all []T
	err := t.Query(ctx, func(rows *sql.Rows) error {
		x, err := scan(rows)
		all = append(all, x)
		return err
	}, query, args...)
	return all, err
}

// Column reads the only column of a row, for Rows.
func Column[T any](rows *sql.Rows) (x T, err error) {
	err = rows.Scan(&x)
	return x, err
}

// QueryRow runs a query for at most one row. It reports false if there is none.
func (t *Tx) QueryRow(ctx context.Context, query string, args []any, dst ...any) (bool, error) {
	err := t.tx.QueryRowContext(ctx, query, args...).Scan(dst...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// ForUpdate returns the clause that locks the rows of a SELECT against other transactions until this one ends. It is
// empty on SQLite, where only one transaction writes at a time, and in a View.
func (t *Tx) ForUpdate() string { return t.locking(" FOR UPDATE") }

// SkipLocked is ForUpdate for a SELECT that leaves out rows that another transaction has locked, instead of waiting.
func (t *Tx) SkipLocked() string { return t.locking(" FOR UPDATE SKIP LOCKED") }

// ForShare returns the clause that protects the rows of a SELECT from changes, but lets other transactions do the same.
func (t *Tx) ForShare() string { return t.locking(" FOR SHARE") }

func (t *Tx) locking(clause string) string {
	if t.write && t.d.cfg.Driver == Postgres {
		return clause
	}
	return ""
}

// Sleep waits for d. It reports whether d has passed before ctx ended.
func Sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// Micros returns the stored form of a time, in Unix microseconds; that of the zero time is 0.
func Micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// Time is the inverse of Micros. The time is in UTC.
func Time(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}
