// Package events is the event log: what changed, for programs and people who follow a gateway. An event is a row
// written in the transaction of the change, so it exists if and only if the change does. It names the change and does
// not carry the new state: a follower that needs the state reads it.
//
// Every change that is audited becomes an event by itself (see New). Packages that report anything else, such as the
// progress of long work, call [Log.Append] in their transaction. Levels and counters are metrics, not events.
//
// The log has the properties of the change feed, whose code stores it: positions are commit-ordered, and an event's ID
// is a cursor, so that a reader never continues in another history.
package events

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/feed"
	"github.com/tandemgw/tandem/internal/platform/feed/outbox"
)

//go:embed migrations
var migrations embed.FS

// Schema returns the migrations of this package.
func Schema() db.Schema { return db.Schema{Package: "events", Files: migrations} }

// Table is where events are stored. It is pruned every minute, so it may hold a few more than Max.
var Table = outbox.Table{Name: "events", Title: "event log", Rank: db.LastEvents, Max: 1_000_000}

// keep is how long events are kept, and how often waiting readers look for events of other nodes that no notification
// announced.
var keep = outbox.Config{Keep: 24 * time.Hour, Poll: time.Second}

// restricted are the nouns of audited actions that only Management.Admin may see.
var restricted = map[string]bool{"client": true, "secret": true, "signingKey": true, "token": true}

// Log is the event log of one database. It is safe for concurrent use.
type Log struct{ *outbox.Outbox }

// New returns the event log in d, and makes every audited change of d an event: its kind is the action, its subject the
// target.
func New(d *db.DB, log *slog.Logger, reg prometheus.Registerer) *Log {
	l := &Log{outbox.In(d, Table, keep, log, reg)}
	d.OnAudit(func(ctx context.Context, tx *db.Tx, r *db.AuditRecord) error {
		noun, _, _ := strings.Cut(r.Action, ".")
		e := api.Event{Kind: r.Action, Subject: r.Target, Items: r.Items,
			Actor: &api.Actor{Kind: r.Actor.Kind, ID: r.Actor.ID}, Restricted: restricted[noun]}
		if strings.HasPrefix(r.Action, "tenant.user.") { // whose subject has an object id
			var what struct{ User string }
			if err := json.Unmarshal([]byte(r.Summary), &what); err == nil && what.User != "" {
				e.Data = map[string]any{"user": what.User}
			}
		}
		return l.Append(ctx, tx, e)
	})
	return l
}

// Append adds an event to the log when the transaction commits; its id and its time are set when it is read. Its data
// must contain no secrets and no phone numbers.
func (l *Log) Append(ctx context.Context, tx *db.Tx, e api.Event) error {
	payload, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode an event: %w", err)
	}
	return l.Begin(tx).Append(ctx, "", payload)
}

// Read returns up to limit (1 or more) events after a cursor, in order, and the cursor from which to continue. Without
// all, restricted events are left out, and the cursor moves past them. The error is fault.Gone with the code "resync"
// if the log does not continue from there.
func (l *Log) Read(ctx context.Context, after feed.Cursor, all bool, limit int) ([]api.Event, feed.Cursor, error) {
	page, err := l.Outbox.Read(ctx, "", after, limit)
	if errors.Is(err, feed.ErrGap) || errors.Is(err, feed.ErrFork) || errors.Is(err, feed.ErrOtherDatabase) {
		return nil, after, fault.New(fault.Gone, "resync", "the events after this id are missing: they are kept for a "+
			"day, and the database may have been restored; follow without an id, then read the present state again").
			Because(err)
	}
	if err != nil {
		return nil, after, err
	}
	var out []api.Event
	for _, entry := range page.Entries {
		var e api.Event
		if err := json.Unmarshal(entry.Payload, &e); err != nil {
			return nil, after, fmt.Errorf("decode event %d: %w", entry.Position, err)
		}
		if all || !e.Restricted {
			e.ID = ID(feed.Cursor{Database: page.Head.Database, Position: entry.Position, Entry: entry.ID})
			e.Time = entry.At
			out = append(out, e)
		}
	}
	return out, page.Next, nil
}

// ID returns the ID of the event at a cursor.
func ID(c feed.Cursor) string {
	return fmt.Sprintf("%s.%d.%x", c.Database, c.Position, uint64(c.Entry))
}

// ParseID returns the cursor of the event with an ID.
func ParseID(id string) (feed.Cursor, error) {
	database, rest, _ := strings.Cut(id, ".")
	position, entry, _ := strings.Cut(rest, ".")
	n, err := strconv.ParseInt(position, 10, 64)
	random, err2 := strconv.ParseUint(entry, 16, 64)
	if errors.Join(err, err2, uuid.Validate(database)) != nil || n < 0 {
		return feed.Cursor{}, fault.New(fault.Invalid, "InvalidEventID",
			"this is not the id of an event; send the last id that was received, unchanged").At("Last-Event-ID")
	}
	return feed.Cursor{Database: database, Position: feed.Position(n), Entry: int64(random)}, nil
}
