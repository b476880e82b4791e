// Package zone stores the records of the DNS zone and its serial, on both databases with the same statements. It
// contains queries but no rules: those are in internal/zone, whose storage interface it implements.
package zone

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/feed"
	"github.com/tandemgw/tandem/internal/platform/feed/outbox"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/zone"
	"github.com/tandemgw/tandem/internal/zone/update"
)

//go:embed migrations
var migrations embed.FS

// Schema returns the migrations of this package.
func Schema() db.Schema { return db.Schema{Package: "zone", Files: migrations} }

// Store implements zone.Store and update.Store. It is safe for concurrent use.
type Store struct {
	*outbox.Outbox
	d    *db.DB
	work *flow.Queue // nil if no zone of the operator is updated
}

var (
	_ zone.Store   = (*Store)(nil)
	_ zone.Beats   = (*Store)(nil)
	_ update.Store = (*Store)(nil)
)

// New returns the store on d, whose change feed is o. A new version of the zone wakes the updater in work, if that is
// not nil.
func New(d *db.DB, o *outbox.Outbox, work *flow.Queue) *Store { return &Store{o, d, work} }

// View implements zone.Store.
func (s *Store) View(ctx context.Context, fn func(context.Context, zone.Reader) error) error {
	return s.d.View(ctx, func(ctx context.Context, tx *db.Tx) error { return fn(ctx, &transaction{s, tx}) })
}

// Update implements zone.Store.
func (s *Store) Update(ctx context.Context, fn func(context.Context, zone.Tx) error) error {
	return s.d.Update(ctx, func(ctx context.Context, tx *db.Tx) error { return fn(ctx, &transaction{s, tx}) })
}

// transaction implements zone.Tx.
type transaction struct {
	s  *Store
	tx *db.Tx
}

// records is the table of records.
var records = &db.Table{Name: "zone_records", Columns: []string{"source", "name", "type", "data", "ttl", "added"},
	Keys: 4}

// Lock implements zone.Tx.
func (t *transaction) Lock(ctx context.Context) error {
	_, err := t.serial(ctx, t.tx.ForUpdate())
	return err
}

// Serial implements zone.Reader.
func (t *transaction) Serial(ctx context.Context) (zone.Serial, error) { return t.serial(ctx, "") }

func (t *transaction) serial(ctx context.Context, lock string) (zone.Serial, error) {
	var serial int64
	ok, err := t.tx.QueryRow(ctx, "SELECT serial FROM zone_serial WHERE id = 1"+lock, nil, &serial)
	if err == nil && !ok {
		err = errors.New("its row is missing")
	}
	if err != nil {
		return 0, fmt.Errorf("read the serial of the zone: %w", err)
	}

	return zone.Serial(serial), nil
}

// Records implements zone.Reader.
func (t *transaction) Records(ctx context.Context, source string) ([]zone.Record, error) {
	return t.list(ctx, " WHERE source = $1 ORDER BY name, type, data", source)
}

// Sources implements zone.Reader.
func (t *transaction) Sources(ctx context.Context, prefix string) ([]string, error) {
	list, err := db.Rows(ctx, t.tx, func(rows *sql.Rows) (s string, err error) {
		err = rows.Scan(&s)
		return s, err
	}, "SELECT DISTINCT source FROM zone_records WHERE source >= $1 AND source < $2", prefix, prefix+"\U0010FFFF")
	if err != nil {
		return nil, fmt.Errorf("read the sources of zone records: %w", err)
	}

	return list, nil
}

// Set implements zone.Reader.
func (t *transaction) Set(ctx context.Context, name, kind string) ([]zone.Record, error) {
	return t.list(ctx, " WHERE name = $1 AND type = $2", name, kind)
}

// All implements zone.Reader.
func (t *transaction) All(ctx context.Context) ([]zone.Record, error) { return t.list(ctx, "") }

func (t *transaction) list(ctx context.Context, where string, args ...any) ([]zone.Record, error) {
	list, err := db.Rows(ctx, t.tx, func(rows *sql.Rows) (r zone.Record, err error) {
		err = rows.Scan(&r.Name, &r.Type, &r.Data, &r.TTL)
		return r, err
	}, "SELECT name, type, data, ttl FROM zone_records"+where, args...)
	if err != nil {
		return nil, fmt.Errorf("read zone records: %w", err)
	}

	return list, nil
}

// Below implements zone.Reader.
func (t *transaction) Below(ctx context.Context, name string, limit int) ([]zone.Published, error) {
	list, err := db.Rows(ctx, t.tx, func(rows *sql.Rows) (p zone.Published, err error) {
		var added int64
		err = rows.Scan(&p.Source, &p.Name, &p.Type, &p.Data, &p.TTL, &added)
		p.Added = db.Time(added)
		return p, err
	}, `SELECT source, name, type, data, ttl, added FROM zone_records WHERE name = $1 OR length(name) > $2
		AND substr(name, length(name) - $2 + 1) = $3 ORDER BY name, type, data, source LIMIT $4`,
		name, int64(len(name)+1), "."+name, int64(limit))
	if err != nil {
		return nil, fmt.Errorf("read zone records: %w", err)
	}

	return list, nil
}

// Count implements zone.Reader.
func (t *transaction) Count(ctx context.Context) (n int64, err error) {
	if _, err = t.tx.QueryRow(ctx, "SELECT COUNT(*) FROM zone_records", nil, &n); err != nil {
		return 0, fmt.Errorf("count zone records: %w", err)
	}

	return n, nil
}

// Cursor implements zone.Reader.
func (t *transaction) Cursor(ctx context.Context) (feed.Cursor, error) {
	return outbox.HeadIn(ctx, t.tx)
}

// Add implements zone.Tx.
func (t *transaction) Add(ctx context.Context, source string, rs []zone.Record) error {
	now := time.Now().UnixMicro()
	_, err := t.tx.Upsert(ctx, records, len(rs), func(i int, dst []any) {
		dst[0], dst[1], dst[2], dst[3], dst[4] = source, rs[i].Name, rs[i].Type, rs[i].Data, int64(rs[i].TTL)
		dst[5] = now
	})
	if err != nil {
		return fmt.Errorf("store zone records: %w", err)
	}

	return nil
}

// Remove implements zone.Tx.
func (t *transaction) Remove(ctx context.Context, source string, rs []zone.Record) error {
	for _, r := range rs {
		_, err := t.tx.Exec(ctx, "DELETE FROM zone_records WHERE source = $1 AND name = $2 AND type = $3 AND data = $4",
			source, r.Name, r.Type, r.Data)
		if err != nil {
			return fmt.Errorf("remove zone records: %w", err)
		}
	}

	return nil
}

// Append implements zone.Tx.
func (t *transaction) Append(ctx context.Context, v *zone.Version) error {
	if _, err := t.tx.Exec(ctx, "UPDATE zone_serial SET serial = $1 WHERE id = 1", int64(v.To)); err != nil {
		return fmt.Errorf("store the serial of the zone: %w", err)
	}
	if q := t.s.work; q != nil {
		if err := q.Enqueue(ctx, t.tx, update.Work().Kind, time.Time{}, update.Work().ID); err != nil {
			return err
		}
	}
	payload, err := json.Marshal(v)
	if err != nil {
		return err
	}

	return t.s.Begin(t.tx).Append(ctx, feed.Zone, payload)
}

// beatsFor is how long the last beat of a node that has ended is kept. Names of nodes may be used once only.
const beatsFor = 30 * 24 * time.Hour

// Beat implements zone.Beats.
func (s *Store) Beat(ctx context.Context, node string, region int) error {
	return s.d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
		now := time.Now()
		_, err := tx.Exec(ctx, "INSERT INTO zone_beats (node, region, beat, at) VALUES ($1, $2, 1, $3) "+
			"ON CONFLICT (node) DO UPDATE SET region = excluded.region, beat = zone_beats.beat + 1, at = excluded.at",
			node, int64(region), now.UnixMicro())
		if err == nil {
			_, err = tx.Exec(ctx, "DELETE FROM zone_beats WHERE at < $1", now.Add(-beatsFor).UnixMicro())
		}
		if err != nil {
			return fmt.Errorf("store the beat of a node: %w", err)
		}

		return nil
	})
}

// Beats implements zone.Beats.
func (s *Store) Beats(ctx context.Context) (list []zone.Beat, err error) {
	err = s.d.View(ctx, func(ctx context.Context, tx *db.Tx) error {
		list, err = db.Rows(ctx, tx, func(rows *sql.Rows) (b zone.Beat, err error) {
			err = rows.Scan(&b.Node, &b.Region, &b.Count)
			return b, err
		}, "SELECT node, region, beat FROM zone_beats ORDER BY node")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the beats of nodes: %w", err)
	}

	return list, nil
}

// published is the table of records in the operator's zone.
var published = &db.Table{Name: "zone_published", Columns: []string{"name", "type", "data", "ttl", "there"}, Keys: 3}

// Published implements update.Store.
func (s *Store) Published(ctx context.Context) (list []update.Entry, err error) {
	err = s.d.View(ctx, func(ctx context.Context, tx *db.Tx) error {
		list, err = db.Rows(ctx, tx, func(rows *sql.Rows) (e update.Entry, err error) {
			err = rows.Scan(&e.Name, &e.Type, &e.Data, &e.TTL, &e.There)
			return e, err
		}, "SELECT name, type, data, ttl, there FROM zone_published")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the records of the operator's zone: %w", err)
	}

	return list, nil
}

// SavePublished implements update.Store.
func (s *Store) SavePublished(ctx context.Context, run *flow.Run, put, drop []update.Entry) error {
	err := s.d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
		_, err := tx.Upsert(ctx, published, len(put), func(i int, dst []any) {
			e := &put[i]
			dst[0], dst[1], dst[2], dst[3], dst[4] = e.Name, e.Type, e.Data, int64(e.TTL), int64(0)
			if e.There {
				dst[4] = int64(1)
			}
		})
		for i := 0; i < len(drop) && err == nil; i++ {
			_, err = tx.Exec(ctx, "DELETE FROM zone_published WHERE name = $1 AND type = $2 AND data = $3",
				drop[i].Name, drop[i].Type, drop[i].Data)
		}
		if err != nil {
			return err
		}

		return run.Step(ctx, tx, "")
	})
	if err != nil {
		return fmt.Errorf("store the records of the operator's zone: %w", err)
	}

	return nil
}
