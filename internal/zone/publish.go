package zone

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tandemgw/tandem/internal/platform/feed"
)

// Reader reads what the database holds of the zone, in one consistent state.
type Reader interface {
	// Serial returns the serial of the newest version, 0 if there is none.
	Serial(ctx context.Context) (Serial, error)
	// Records returns the records of a source, in order.
	Records(ctx context.Context, source string) ([]Record, error)
	// Sources returns the names of the sources that begin with a prefix.
	Sources(ctx context.Context, prefix string) ([]string, error)
	// Set returns the records of a name and type of all sources.
	Set(ctx context.Context, name, kind string) ([]Record, error)
	// All returns the records of all sources.
	All(ctx context.Context) ([]Record, error)
	// Below returns up to limit records at a name and below it, of all sources, by name.
	Below(ctx context.Context, name string, limit int) ([]Published, error)
	// Count returns the number of records of all sources.
	Count(ctx context.Context) (int64, error)
	// Cursor returns the place in the feed of this state.
	Cursor(ctx context.Context) (feed.Cursor, error)
}

// Published is a record of a source.
type Published struct {
	Record
	Source string
	Added  time.Time
}

// Tx changes what the database holds of the zone.
type Tx interface {
	Reader
	// Lock waits for other transactions that change the zone. It is called first.
	Lock(ctx context.Context) error
	// Add adds records to a source, and Remove removes them.
	Add(ctx context.Context, source string, records []Record) error
	Remove(ctx context.Context, source string, records []Record) error
	// Append makes v the newest version, and adds it to the feed as JSON under the topic feed.Zone.
	Append(ctx context.Context, v *Version) error
}

// Store holds the zone in the database. Its methods are safe for concurrent use.
type Store interface {
	feed.Reader
	View(ctx context.Context, fn func(context.Context, Reader) error) error
	Update(ctx context.Context, fn func(context.Context, Tx) error) error
}

// maxSource is the largest number of records of one source.
const maxSource = 10_000

// Publish makes records those of their sources, all in one version, and none of them if it returns an error. A source
// without records is gone. Sources may have records in common, and records of the same name and type; the shortest of
// their TTLs is that of all of them. It is safe for concurrent use.
func Publish(ctx context.Context, s Store, origin string, sources map[string][]Record) error {
	z := New(origin, "", "")
	want := map[string][]Record{}
	for source, records := range sources {
		if len(records) > maxSource {
			return fmt.Errorf("zone: %s has %d records; at most %d are published", source, len(records), maxSource)
		}
		parsed, err := z.parse(records)
		if err != nil {
			return fmt.Errorf("zone: %s: %w", source, err)
		}
		want[source] = Union(z.list(parsed)) // in the form in which a Zone lists them
	}

	return s.Update(ctx, func(ctx context.Context, tx Tx) error {
		if err := tx.Lock(ctx); err != nil {
			return err
		}
		type key struct{ name, kind string }
		before, removed, added := map[key][]Record{}, map[string][]Record{}, map[string][]Record{}
		for source, records := range want {
			old, err := tx.Records(ctx, source)
			if err != nil {
				return err
			}
			removed[source], added[source] = difference(old, records)
			for _, r := range slices.Concat(removed[source], added[source]) {
				before[key{r.Name, r.Type}] = nil
			}
		}
		read := func(sets map[key][]Record) error {
			for k := range sets {
				all, err := tx.Set(ctx, k.name, k.kind)
				if err != nil {
					return err
				}
				sets[k] = merge(all)
			}
			return nil
		}

		if err := read(before); err != nil {
			return err
		}
		for source := range want {
			if err := tx.Remove(ctx, source, removed[source]); err != nil {
				return err
			}
			if err := tx.Add(ctx, source, added[source]); err != nil {
				return err
			}
		}
		after := maps.Clone(before)
		if err := read(after); err != nil {
			return err
		}

		v, sets := &Version{At: time.Now().UTC()}, &Version{To: 1}
		for k := range before {
			gone, come := difference(before[k], after[k])
			v.Removed, v.Added = append(v.Removed, gone...), append(v.Added, come...)
			sets.Added = append(sets.Added, after[k]...)
		}
		if err := New(origin, "", "").Apply(sets); err != nil { // nor would a name server take them
			return fmt.Errorf("zone: not published: %w", err)
		}
		if len(v.Removed)+len(v.Added) == 0 {
			return nil
		}
		slices.SortFunc(v.Removed, Compare)
		slices.SortFunc(v.Added, Compare)

		return next(ctx, tx, v)
	})
}

// next appends a version with the next serial.
func next(ctx context.Context, tx Tx, v *Version) error {
	var err error
	if v.From, err = tx.Serial(ctx); err != nil {
		return err
	}
	v.To = v.From.Next(uint32(v.At.Unix()))

	return tx.Append(ctx, v)
}

// raise makes a version without changes whose serial is above one that a name server has: the database was restored
// from an older copy, or lost transactions.
func raise(ctx context.Context, s Store, above Serial) error {
	return s.Update(ctx, func(ctx context.Context, tx Tx) error {
		if err := tx.Lock(ctx); err != nil {
			return err
		}
		serial, err := tx.Serial(ctx)
		if err != nil || serial.After(above) {
			return err
		}
		now := time.Now().UTC()

		return tx.Append(ctx, &Version{From: serial, To: above.Next(uint32(now.Unix())), At: now})
	})
}

// merge returns the records of one name and type of all sources, once each, with the shortest TTL.
func merge(all []Record) []Record {
	if len(all) == 0 {
		return nil
	}
	ttl := slices.MinFunc(all, func(a, b Record) int { return int(a.TTL) - int(b.TTL) }).TTL
	list := make([]Record, len(all))
	for i, r := range all {
		list[i] = r
		list[i].TTL = ttl
	}
	slices.SortFunc(list, Compare)

	return slices.Compact(list)
}

// difference returns what is in old only, and what is in new only.
func difference(old, new []Record) (removed, added []Record) {
	had := make(map[Record]bool, len(old))
	for _, r := range old {
		had[r] = true
	}
	for _, r := range new {
		if _, ok := had[r]; !ok {
			added = append(added, r)
		}
		had[r] = false
	}
	for _, r := range old {
		if had[r] {
			removed = append(removed, r)
			had[r] = false
		}
	}

	return removed, added
}
