// Package feed is the change feed: an outbox table that is written in the same transaction as the change it reports,
// and read by cursor.
//
// Positions are in commit order: they come from a one-row counter that the writing transaction locks last, so a reader
// that has seen position p never finds a new entry at or below p later. A notification (NOTIFY, or a signal inside the
// process) only shortens the wait; readers rely on paging by position.
//
// A position alone does not identify an entry: after a failover or a restore that lost transactions it may hold another
// entry. Therefore a database has an identity, an entry has a random id, and a reader keeps both in its Cursor, which
// every Read verifies.
//
// This package is the contract for readers; package feed/outbox implements the storage.
package feed

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Position is a place in the feed. Positions start at 1; 0 is before all entries.
type Position int64

// The topics.
const (
	// Provisioning carries accounts and numbers: each payload is a JSON array of domain.Change.
	Provisioning = "provisioning"
	// Zone carries the versions of the DNS zone: each payload is a zone.Version as JSON.
	Zone = "zone"
)

// Entry is one committed change.
type Entry struct {
	Position Position
	ID       int64 // random; never the same for two entries, whatever their positions
	Topic    string
	At       time.Time // when the writing transaction took its position; UTC
	Payload  []byte
}

// Cursor is a place in the history of one database. Readers store it completely, on their disks too. The zero Cursor is
// not a place in any database.
type Cursor struct {
	Database string   `json:"database"` // identity of the database: a UUID, created with it and by each restore
	Position Position `json:"position"`
	Entry    int64    `json:"entry"` // id of the entry at Position; 0 at position 0
}

// String prints the cursor for logs.
func (c Cursor) String() string { return fmt.Sprintf("%d of database %s", c.Position, c.Database) }

// Errors of Read: the reader must load everything again. It decides itself whether that may replace what it has.
var (
	// ErrGap is returned when entries after the cursor have been pruned.
	ErrGap = errors.New("feed: entries after this position are no longer kept")
	// ErrFork is returned when the database was set back, by a restore or by a failover that lost transactions, and
	// possibly written to since.
	ErrFork = errors.New("feed: the database lost entries that had been read from it")
	// ErrOtherDatabase is returned when the cursor belongs to a database with another identity.
	ErrOtherDatabase = errors.New("feed: the database is not the one that was read before")
)

// State is the state of a feed and of the place of a cursor, from one consistent read.
type State struct {
	Head   Cursor   // the newest entry
	Pruned Position // entries up to here were removed; the id of the last of them is still known
	Entry  int64    // id of the entry at the cursor's position; 0 if there is none
}

// Verify returns nil if the history to which c belongs continues in a feed of state s, else one of the errors above.
// Every Reader uses it.
func (c Cursor) Verify(s State) error {
	switch {
	case c.Database == "" || c.Database != s.Head.Database:
		return ErrOtherDatabase
	case c.Position > s.Head.Position:
		return ErrFork
	case c.Position < s.Pruned:
		return ErrGap
	case c.Entry != s.Entry:
		return ErrFork
	}
	return nil
}

// Page is what Read found.
type Page struct {
	Entries []Entry
	// Next is the cursor from which to continue: that of the last entry, or Head if there are no further entries of the
	// topic.
	Next Cursor
	Head Cursor // the newest entry of any topic; also set with the errors of this package
}

// Reader reads a feed. Implementations are safe for concurrent use.
type Reader interface {
	// Read verifies after and returns up to limit (1 or more) entries of topic that follow it, in order, all in one
	// consistent read. The error is ErrGap, ErrFork or ErrOtherDatabase if the history of the database does not
	// continue from after.
	Read(ctx context.Context, topic string, after Cursor, limit int) (Page, error)
	// Wait returns nil when there may be an entry after the position, at the latest after the poll interval, or ctx's
	// error.
	Wait(ctx context.Context, after Position) error
}
