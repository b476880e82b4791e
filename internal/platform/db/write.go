package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Times of the check that the database accepts writes.
const (
	writeEvery = 2 * time.Second  // between two checks; a failed transaction takes precedence over them for half of it
	joinWait   = 10 * time.Second // for the session of a vanished node to end
)

// Status is what is known about the database. Run keeps it up to date.
type Status struct {
	Where     string    // host, port and database, or the file
	Available bool      // it answers and is not damaged
	Writable  bool      // it also accepts writes
	Since     time.Time // of this state
	Cause     string    // why it is not available or not writable
	Rival     string    // the session that holds this node's id instead; empty for none
}

// Status returns what is known about the database, without querying it.
func (d *DB) Status() Status {
	d.mu.Lock()
	defer d.mu.Unlock()

	err := d.bad
	switch {
	case d.epoch == nil:
		err = d.down
	case err == nil && d.node != "" &&
		(d.proven.Before(d.since) || time.Since(d.proven) > d.cfg.StatementTimeout+writeEvery):
		err = errors.New("no write has succeeded recently")
	}
	s := Status{Where: d.where, Available: d.epoch != nil, Writable: err == nil, Since: d.since, Rival: d.rival}
	if err != nil {
		s.Cause = strings.Join(strings.Fields(err.Error()), " ") // on one line
	}
	return s
}

// Join makes this process the node with the given id. From now on Run checks that the database accepts writes, by
// writing the node's row every two seconds. On PostgreSQL the id is held by an advisory lock of the probe's session; an
// error reports that another process holds it. While the database is unavailable the id is claimed later; a conflict is
// then logged and shown by Status. On SQLite the lock on the file keeps others out.
func (d *DB) Join(ctx context.Context, node string) error {
	d.node = node
	for began := time.Now(); ; {
		if d.cfg.Driver == Postgres {
			d.probing <- struct{}{}
			_ = d.ask(ctx) // Run detects an error and logs it
			<-d.probing
		}
		d.prove(ctx)
		rival := d.Status().Rival
		if rival == "" || ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Since(began) >= joinWait {
			return fmt.Errorf("node id %q is held on this database by %s; give each node an id of its own "+
				"(calls.node), or stop the other node", node, rival)
		}
		Sleep(ctx, writeEvery)
	}
}

// watchWrites checks until ctx is done that the database accepts writes.
func (d *DB) watchWrites(ctx context.Context) {
	for tick := time.Tick(writeEvery); ; d.prove(ctx) {
		select {
		case <-tick:
		case <-ctx.Done():
			return
		}
	}
}

// prove writes the node's row once and records the result.
func (d *DB) prove(ctx context.Context) {
	ep, find := d.current(), d.proveSQLite
	if d.cfg.Driver == Postgres {
		find = d.provePostgres
	}
	if d.node == "" || ep == nil && d.cfg.Driver == Postgres {
		return // Run detects when PostgreSQL answers
	}
	if err := find(ctx); ctx.Err() == nil && d.current() == ep {
		d.note(err, true)
	}
}

// note records whether the database accepts writes, as shown by a check (proof) or a transaction.
func (d *DB) note(err error, proof bool) {
	d.mu.Lock()
	was, now := d.bad, time.Now()
	switch {
	case err == nil && now.Sub(d.failed) < writeEvery/2:
		err = was
	case err == nil:
		d.proven = now
	case !proof:
		d.failed = now
	}
	d.bad = err
	if (was == nil) != (err == nil) {
		d.since = now
	}
	d.mu.Unlock()

	switch {
	case err != nil && was == nil:
		d.log.Error("database accepts no writes; answering them with 503", "database", d.where, "error", err)
	case err == nil && was != nil:
		d.log.Info("database accepts writes again", "database", d.where)
	}
	switch {
	case d.cfg.Driver == Postgres: // Run detects it
	case damaged(err):
		d.markUnavailable(err)
	case err == nil:
		d.markReady()
	}
}

// writeNode is the statement that checks that the database accepts writes.
const writeNode = "INSERT INTO nodes (id, written) VALUES ($1, $2) " +
	"ON CONFLICT (id) DO UPDATE SET written = excluded.written"

// proveSQLite also checks the file: a process that has it open can continue for a long time after it was damaged or
// replaced, or after the disk filled up. The write drops the readers' caches, so that the next read comes from the
// file. It waits for transactions in progress, because only one connection writes. A file that is known to be damaged
// is read completely instead.
func (d *DB) proveSQLite(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.StatementTimeout)
	defer cancel()

	head := make([]byte, 16)
	if _, err := d.file.ReadAt(head, 0); err != nil || string(head) != "SQLite format 3\x00" {
		return fmt.Errorf("%w: it does not begin with the SQLite header", errDamaged)
	}
	opened, err := d.file.Stat()
	if now, err2 := os.Stat(d.where); err != nil || err2 != nil || !os.SameFile(opened, now) {
		return fmt.Errorf("%w: it was removed or replaced while in use", errDamaged)
	}
	if err := d.lock.room(); err != nil {
		return fmt.Errorf("write next to the database: %w", err)
	}
	var text string
	if d.current() == nil {
		// Close idle connections: their caches may be damaged.
		for pool, idle := range map[*sql.DB]int{d.write: 1, d.read: d.cfg.MaxConnections} {
			pool.SetMaxIdleConns(0)
			pool.SetMaxIdleConns(idle)
		}
		if err := d.read.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&text); err != nil || text == "ok" {
			return err
		}
		return fmt.Errorf("%w: %s", errDamaged, text)
	}
	if _, err := d.write.ExecContext(ctx, writeNode, d.node, time.Now().UnixMicro()); err != nil {
		return err
	}
	err = d.read.QueryRowContext(ctx,
		`SELECT 'SELECT ' || group_concat('EXISTS (SELECT 1 FROM "' || name || '")', ' + ')
		FROM sqlite_master WHERE type = 'table'`).Scan(&text) // a query for the first row of every table
	if err == nil {
		err = d.read.QueryRowContext(ctx, text).Scan(&text)
	}
	return err
}

// provePostgres writes on a session of its own, which it opens if necessary. It also needs room for a small file in the
// data directory (an exported snapshot, removed at once), because updating a row needs none on a full disk, and looks
// for tables on which the permission to write was revoked.
func (d *DB) provePostgres(ctx context.Context) (err error) {
	d.writing.Lock()
	defer d.writing.Unlock()
	ctx, cancel := context.WithTimeout(ctx, d.cfg.ProbeTimeout)
	defer cancel()

	if d.session == nil {
		if d.session, err = pgx.ConnectConfig(ctx, d.pgcfg.Copy()); err != nil {
			return err
		}
	}
	var denied *string
	if _, err = d.session.Exec(ctx, writeNode, d.node, time.Now().UnixMicro()); err == nil {
		err = d.session.QueryRow(ctx,
			`SELECT pg_export_snapshot(), (SELECT string_agg(t.relname, ', ' ORDER BY t.relname)
			FROM pg_class n JOIN pg_class t
				ON t.relnamespace = n.relnamespace AND t.relowner = n.relowner AND t.relkind = 'r'
			WHERE n.oid = 'nodes'::regclass AND NOT has_table_privilege(t.oid, 'INSERT, UPDATE'))`).Scan(nil, &denied)
	}
	switch {
	case err != nil && (d.session.IsClosed() || classify(err) == lost): // another server may be the primary now
		closeConn(d.session)
		d.session = nil
	case denied != nil:
		err = fmt.Errorf("permission denied to write to %s", *denied)
	}
	return err
}

// claim takes the lock on the node's id for the lifetime of the probe's session, unless it is already held. That
// session never writes: a hanging write would keep the session, and the lock, after the process was killed. Keep-alives
// let the server end the session of a vanished machine within nine seconds. A connection pooler could give the session
// to other clients: then nothing is locked.
func (d *DB) claim(ctx context.Context) error {
	if d.held || d.node == "" {
		return nil
	}
	var pid uint32
	if err := d.probe.QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&pid); err != nil {
		return err
	}
	if pid != d.probe.PgConn().PID() {
		d.log.Warn("connection pooler in use; two nodes with the same id are not detected", "node", d.node)
		d.held = true
		return nil
	}
	rival := ""
	err := d.probe.QueryRow(ctx,
		`SELECT pg_try_advisory_lock(key), (SELECT COALESCE(string_agg(
				COALESCE(host(a.client_addr), 'a local process') || ', server process ' || a.pid
				|| ', since ' || date_trunc('second', a.backend_start), '; '), 'a session that has ended')
			FROM pg_locks l JOIN pg_stat_activity a USING (pid)
			WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND a.datname = current_database()
				AND (l.classid::bigint << 32) | l.objid::bigint = key)
		FROM (SELECT hashtextextended($1, 0) AS key,
			set_config('tcp_keepalives_idle', '3', false), set_config('tcp_keepalives_interval', '2', false),
			set_config('tcp_keepalives_count', '3', false), set_config('tcp_user_timeout', '9000', false)) AS s`,
		"tandem node "+d.node).Scan(&d.held, &rival)
	if err != nil {
		return err
	}
	if d.held {
		rival = ""
	}
	d.mu.Lock()
	was := d.rival
	d.rival = rival
	d.mu.Unlock()
	if rival != "" && was == "" {
		d.log.Error("another session holds this node's id; if this persists, give each node an id of its own "+
			"(calls.node)", "node", d.node, "holder", rival)
	}
	return nil
}
