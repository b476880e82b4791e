package db

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
)

func (d *DB) openPostgres(ctx context.Context) error {
	pc, err := pgxpool.ParseConfig(d.cfg.URL)
	if err != nil {
		// The parser's text may quote the connection string, including the password.
		return errors.New("invalid PostgreSQL connection string; want postgres://user@host/database")
	}
	pc.MaxConns = int32(d.cfg.MaxConnections)
	pc.MaxConnIdleTime = 5 * time.Minute
	cc := pc.ConnConfig
	cc.ConnectTimeout = d.cfg.ConnectTimeout
	set := func(k, v string) {
		if _, ok := cc.RuntimeParams[k]; !ok {
			cc.RuntimeParams[k] = v
		}
	}
	cc.RuntimeParams["synchronous_commit"] = "on" // whatever the default of the role or the database
	set("application_name", "tandem")
	set("statement_timeout", strconv.FormatInt(d.cfg.StatementTimeout.Milliseconds(), 10))
	set("lock_timeout", "5000")
	set("idle_in_transaction_session_timeout", "60000")
	set("timezone", "UTC")
	pc.AfterConnect = d.assertPostgres
	d.pgcfg = cc
	d.where = net.JoinHostPort(cc.Host, strconv.Itoa(int(cc.Port))) + "/" + cc.Database
	if d.pool, err = pgxpool.NewWithConfig(context.Background(), pc); err != nil {
		return fmt.Errorf("open PostgreSQL: %w", err)
	}
	d.write = stdlib.OpenDBFromPool(d.pool)
	d.write.SetMaxOpenConns(d.cfg.MaxConnections)
	d.read = d.write

	if err := d.ask(ctx); err != nil {
		if misconfigured(err) || errors.Is(err, errUnsafe) || errors.Is(err, errNewer) {
			return fmt.Errorf("open PostgreSQL: %w", err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		d.markUnavailable(err)
		return nil
	}
	d.markReady()
	return nil
}

// errUnsafe marks a server that may lose acknowledged writes.
var errUnsafe = errors.New("refusing to use a PostgreSQL server that may lose acknowledged writes")

func (d *DB) assertPostgres(ctx context.Context, c *pgx.Conn) error {
	var commit, fsync, pages string
	err := c.QueryRow(ctx, "SELECT current_setting('synchronous_commit'), current_setting('fsync'), "+
		"current_setting('full_page_writes')").Scan(&commit, &fsync, &pages)
	if err != nil {
		return fmt.Errorf("read the durability settings: %w", err)
	}
	switch {
	case commit != "on" && commit != "remote_apply":
		return fmt.Errorf("%w: synchronous_commit is %s; set it to on", errUnsafe, commit)
	case d.cfg.AllowUnsafeDurability:
	case fsync != "on":
		return fmt.Errorf("%w: fsync is %s; set it to on", errUnsafe, fsync)
	case pages != "on":
		return fmt.Errorf("%w: full_page_writes is %s; set it to on", errUnsafe, pages)
	}
	return nil
}

func (d *DB) closePostgres() {
	d.probing <- struct{}{}
	defer func() { <-d.probing }()
	d.writing.Lock()
	defer d.writing.Unlock()
	for _, c := range []**pgx.Conn{&d.probe, &d.session} {
		if *c != nil {
			closeConn(*c)
			*c = nil
		}
	}
	d.pool.Close()
}

// closeConn closes a connection without waiting for a server that may not answer.
func closeConn(c *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = c.Close(ctx) // the connection is dropped either way
}

// Run monitors the database until ctx is done, and returns nil. On PostgreSQL it probes the server at every
// ProbeInterval. If there is no answer within ProbeTimeout it declares the database unavailable and cancels all work in
// progress; the next answer makes it available again. After [DB.Join] it also checks, on both databases, that writes
// succeed.
func (d *DB) Run(ctx context.Context) error {
	if d.cfg.Driver != Postgres {
		d.watchWrites(ctx)
		return nil
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { d.watchWrites(ctx) })
	tick := time.NewTicker(d.cfg.ProbeInterval)
	defer tick.Stop()
	for {
		ep := d.current()
		d.probing <- struct{}{}
		err := d.ask(ctx)
		<-d.probing
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			d.markReady()
		case ep != nil:
			d.lose(ep, err)
		default:
			d.markUnavailable(err) // waiting may not fix it, for example a password that was changed
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// lose declares the database unavailable, unless epoch ep has already ended, and drops all pooled connections.
func (d *DB) lose(ep *epoch, err error) {
	if ep == nil || d.current() != ep {
		return
	}
	d.markUnavailable(err)
	d.pool.Reset()
}

// suspect probes the server after a transaction of epoch ep lost its connection. It reports whether the server answers.
func (d *DB) suspect(ctx context.Context, ep *epoch, cause error) bool {
	d.pool.Reset() // all connections of the pool are as old as the dead one
	if errors.Is(cause, errUnavailable) {
		return false // already detected by Run or another transaction
	}
	select {
	case d.probing <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	defer func() { <-d.probing }()
	if d.current() != ep {
		return d.current() != nil
	}
	if err := d.ask(ctx); err != nil {
		if ctx.Err() == nil {
			d.lose(ep, err)
		}
		return false
	}
	return true
}

// joinProbe is how long a caller waits for a probe that another caller has begun.
const joinProbe = 100 * time.Millisecond

// recover probes a database that is unavailable. Only one caller probes at a time; the others wait briefly for its
// result, because a server that is available again answers at once. It returns nil if the database is still
// unavailable.
func (d *DB) recover(ctx context.Context) *epoch {
	if d.cfg.Driver != Postgres {
		return nil
	}
	select {
	case d.probing <- struct{}{}:
	case <-time.After(joinProbe):
		return nil
	case <-ctx.Done():
		return nil
	}
	defer func() { <-d.probing }()
	if ep := d.current(); ep != nil {
		return ep
	}
	if err := d.ask(ctx); err != nil {
		return nil
	}
	return d.markReady()
}

// ask probes the server on a connection of its own, and migrates the schema the first time the server answers. The
// caller holds d.probing, or is alone.
func (d *DB) ask(ctx context.Context) error {
	pctx, cancel := context.WithTimeout(ctx, d.cfg.ProbeTimeout)
	defer cancel()
	for fresh := false; ; {
		if d.probe == nil {
			c, err := pgx.ConnectConfig(pctx, d.pgcfg.Copy())
			if err != nil {
				return err
			}
			if err := d.assertPostgres(pctx, c); err != nil {
				closeConn(c)
				return err
			}
			d.probe, fresh = c, true
			d.held = false
			d.migrated = false // it may be another server, or one that was upgraded or restored
		}
		err := d.probe.Ping(pctx)
		if err == nil {
			break
		}
		closeConn(d.probe)
		d.probe = nil
		// An existing connection may be left over from before a restart of the server: try a new one, unless the
		// server was silent.
		if fresh || pctx.Err() != nil {
			return fmt.Errorf("no answer within %v: %w", d.cfg.ProbeTimeout, err)
		}
	}
	if err := d.claim(pctx); err != nil {
		return fmt.Errorf("claim the node's id: %w", err)
	}
	if d.migrated {
		return nil
	}
	// Migrations may take long: they get a pool of their own without the statement timeout.
	mc := d.pgcfg.Copy()
	mc.RuntimeParams["statement_timeout"] = "0"
	mc.RuntimeParams["lock_timeout"] = "0"
	db := stdlib.OpenDB(*mc)
	defer db.Close()
	err := d.whileAnswering(ctx, func(ctx context.Context) error { return migrate(ctx, db, Postgres, d.schemas) })
	d.migrated = err == nil
	return err
}

// whileAnswering runs fn, and cancels it if the server does not answer a probe meanwhile. The caller holds d.probing.
func (d *DB) whileAnswering(ctx context.Context, fn func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- fn(ctx) }()

	for tick := time.Tick(d.cfg.ProbeInterval); ; {
		select {
		case err := <-done:
			return err
		case <-tick:
		}
		pctx, stop := context.WithTimeout(ctx, d.cfg.ProbeTimeout)
		err := d.probe.Ping(pctx)
		stop()
		if err != nil {
			cancel()
			<-done
			return fmt.Errorf("no answer within %v: %w", d.cfg.ProbeTimeout, err)
		}
	}
}

// Listen waits for PostgreSQL notifications on channel and calls fn with each payload, on one connection outside the
// pool, until ctx is done or the connection is lost. It calls ready once it listens. On SQLite it waits for ctx,
// because all writers are in this process. Notifications sent while nothing listens are lost, so they may only be used
// to shorten a wait.
func (d *DB) Listen(ctx context.Context, channel string, ready func(), fn func(payload string)) error {
	if d.cfg.Driver != Postgres {
		ready()
		<-ctx.Done()
		return nil
	}
	c, err := pgx.ConnectConfig(ctx, d.pgcfg.Copy())
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer closeConn(c)
	if _, err := c.Exec(ctx, "LISTEN "+pgx.Identifier{channel}.Sanitize()); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	ready()
	for {
		n, err := c.WaitForNotification(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("listen: %w", err)
		}
		fn(n.Payload)
	}
}

// Notify wakes the listeners of channel when the transaction commits. It does nothing on SQLite.
func (t *Tx) Notify(ctx context.Context, channel, payload string) error {
	if t.d.cfg.Driver != Postgres {
		return nil
	}
	_, err := t.Exec(ctx, "SELECT pg_notify($1, $2)", channel, payload)
	return err
}

// Relax lets this transaction's commit return before it is on disk. It is for data that may be lost without harm, and
// does nothing on SQLite.
func (t *Tx) Relax(ctx context.Context) error {
	if t.d.cfg.Driver != Postgres {
		return nil
	}
	_, err := t.Exec(ctx, "SET LOCAL synchronous_commit = off")
	return err
}
