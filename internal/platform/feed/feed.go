// Package feed is the change feed: an outbox table written in the same transaction as the change it tells of, read by
// position.
//
// Positions are commit-ordered: they come from a one-row counter that the writing transaction locks last, so a reader
// that has seen position p will never again find a new entry at or below p. A wake-up (NOTIFY, or a signal inside the
// process) only shortens the wait; paging by position is the truth.
//
// This package is the contract readers use; package feed/outbox stores it.
package feed

import (
	"context"
	"errors"
	"time"
)

// Position is a place in the feed. Positions start at 1; 0 is "before everything".
type Position int64

// The topics.
const (
	// Provisioning carries accounts and numbers: each payload is a JSON array of domain.Change.
	Provisioning = "provisioning"
)

// Entry is one committed change.
type Entry struct {
	Position Position
	Topic    string
	At       time.Time // when the writing transaction took its position; UTC
	Payload  []byte
}

// ErrGap is returned by Read when entries after the asked position have been pruned: the reader must load everything
// anew.
var ErrGap = errors.New("feed: entries after this position are no longer kept")

// Reader reads a feed. Implementations are safe for concurrent use.
type Reader interface {
	// Read returns up to limit entries of topic after position after, in order, and ErrGap if some were pruned.
	Read(ctx context.Context, topic string, after Position, limit int) ([]Entry, error)
	// Wait returns nil when an entry after the position may exist, at the latest after the poll interval, or ctx's error.
	Wait(ctx context.Context, after Position) error
	// Head returns the position of the newest entry.
	Head(ctx context.Context) (Position, error)
}
