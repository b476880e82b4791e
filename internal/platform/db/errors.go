package db

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/tandemgw/tandem/internal/domain/fault"
)

// ErrRetry may be returned, bare or wrapped, by the function of an Update that found the data changed by others: the
// transaction is rolled back and run again.
var ErrRetry = errors.New("db: run the transaction again")

// errUnavailable is the cause when work is cancelled because the database stopped answering.
var errUnavailable = errors.New("the database does not answer")

// errDamaged is the cause when the database file is damaged or was replaced.
var errDamaged = errors.New("the database file is damaged")

// errClosed is the cause after Close.
var errClosed = errors.New("the database was closed")

// The codes of the errors that callers get (503).
const (
	CodeUnavailable = "ServiceUnavailable" // the database is unavailable
	CodeBusy        = "TooManyConflicts"   // the transaction conflicted with others too often; nothing was changed
)

// class says what can be done about a database error.
type class uint8

const (
	other  class = iota
	again        // the transaction conflicted with another: run it again
	lost         // the connection or the server is gone
	broken       // the database answers but cannot work: disk full or failing, data damaged, permissions revoked
)

func classify(err error) class {
	if errors.Is(err, ErrRetry) {
		return again
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return lost // whatever the server's reason for refusing connections
	}
	if pe, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch {
		case pe.Code == "40001" || pe.Code == "40P01" || pe.Code == "55P03" || pe.Code == "23505":
			// Serialisation failure, deadlock, lock timeout. A unique violation means that a concurrent transaction
			// stored the same key after this one looked: the next run finds it and names the rule that is broken.
			return again
		case strings.HasPrefix(pe.Code, "08") || strings.HasPrefix(pe.Code, "57P") || pe.Code == "53300" ||
			pe.Code == "25006":
			// Connection exceptions, shutdown or start-up, too many connections, a standby that accepts no writes.
			return lost
		case strings.HasPrefix(pe.Code, "53") || strings.HasPrefix(pe.Code, "58") || strings.HasPrefix(pe.Code, "XX") ||
			pe.Code == "42501":
			return broken // out of disk or memory, I/O errors, damaged data, no permission
		}
		return other
	}
	if se, ok := errors.AsType[*sqlite.Error](err); ok {
		switch se.Code() & 0xff {
		case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
			return again
		case sqlite3.SQLITE_CONSTRAINT:
			if c := se.Code(); c == sqlite3.SQLITE_CONSTRAINT_UNIQUE || c == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY {
				return again
			}
		case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN,
			sqlite3.SQLITE_PERM, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
			return broken
		}
		return other
	}
	var ne net.Error
	switch {
	case errors.As(err, &ne), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, net.ErrClosed), errors.Is(err, driver.ErrBadConn), errors.Is(err, sql.ErrConnDone),
		errors.Is(err, errUnavailable), errors.Is(err, context.DeadlineExceeded), pgconn.SafeToRetry(err),
		strings.Contains(err.Error(), "conn closed"):
		return lost
	}
	return other
}

// damaged reports whether err says that the SQLite file is not what was written.
func damaged(err error) bool {
	if se, ok := errors.AsType[*sqlite.Error](err); ok {
		return se.Code()&0xff == sqlite3.SQLITE_CORRUPT || se.Code()&0xff == sqlite3.SQLITE_NOTADB
	}
	return errors.Is(err, errDamaged)
}

// misconfigured reports whether err is an error of PostgreSQL that waiting does not fix.
func misconfigured(err error) bool {
	var pe *pgconn.PgError
	// Wrong password or role, unknown database, no privilege.
	return errors.As(err, &pe) && (strings.HasPrefix(pe.Code, "28") || pe.Code == "3D000" ||
		strings.HasPrefix(pe.Code, "42"))
}

// unavailable returns the error that callers get while the database cannot work.
func unavailable(cause error, write bool, after time.Duration) error {
	text := "the database is not available"
	if write {
		text += "; the write may or may not have taken effect: repeat it with the same Repeatability-Request-ID"
	}
	return fault.New(fault.Unavailable, CodeUnavailable, "%s", text).After(after).Because(cause)
}
