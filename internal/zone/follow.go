package zone

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/feed"
)

// Follower keeps a zone level with the database, and on disk.
type Follower struct {
	zone    *Zone
	files   *Files
	at      feed.Cursor // zero: compare everything
	store   Store
	changed func()
	log     *slog.Logger
	broken  atomic.Bool // the disk does not take versions

	mu       sync.Mutex // guards what follows
	kept     Kept       // the zero value while the zone is not kept
	keptAt   Serial     // of the database then
	accepted string     // the database whose loss is accepted; empty for none
}

// Kept says how much a database lacks that does not continue the zone, so that a name server keeps the zone it has.
type Kept struct {
	Database      string // its identity
	Records, Lost int    // of the zone
}

// holdLeast is how many records the zone may lose at once without a question, when the versions in the database do not
// continue it. It may lose half of them if that is more.
const holdLeast = 100

// Follow returns a follower of z, which has the newest version on disk in dir by then. changed is called after each
// version.
func Follow(z *Zone, dir string, s Store, changed func(), log *slog.Logger, reg prometheus.Registerer) (*Follower,
	error) {
	files, place, err := Open(dir, z, func(file string, err error) {
		log.Error("zone on disk is not complete; the last whole version is used", "file", file, "error", err)
	})
	if err != nil {
		return nil, err
	}

	f := &Follower{zone: z, files: files, at: place.Cursor, store: s, changed: changed, log: log}
	gauge := func(name, help string, value func() float64) {
		promauto.With(reg).NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	gauge("tandem_zone_serial",
		"Serial of the version of the zone that this name server answers from; 0 if it has none.",
		func() float64 { return float64(z.Serial()) })
	gauge("tandem_zone_records", "Records of the zone on this name server, without the SOA record.",
		func() float64 { return float64(z.Size()) })
	gauge("tandem_zone_disk_up", "1 while versions of the zone can be stored on disk.",
		func() float64 { return one(!f.broken.Load()) })
	gauge("tandem_zone_held",
		"1 while the zone is kept because the database does not continue it and lacks most of its records.",
		func() float64 { return one(f.Kept().Lost > 0) })

	return f, nil
}

// one returns 1 for true, else 0.
func one(is bool) float64 {
	if is {
		return 1
	}

	return 0
}

// Run follows until ctx ends, or the database cannot be read. Only one call may run at a time.
func (f *Follower) Run(ctx context.Context) error {
	defer f.files.Close()
	for {
		page, err := f.store.Read(ctx, feed.Zone, f.at, 100)
		switch {
		case errors.Is(err, feed.ErrGap), errors.Is(err, feed.ErrFork), errors.Is(err, feed.ErrOtherDatabase):
			err = f.compare(ctx, err)
		case err == nil:
			err = f.apply(ctx, &page)
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// apply applies the versions of a page, and waits if there are none.
func (f *Follower) apply(ctx context.Context, page *feed.Page) error {
	for _, e := range page.Entries {
		v := new(Version)
		if err := json.Unmarshal(e.Payload, v); err != nil {
			return fmt.Errorf("zone: feed entry %d: %w", e.Position, err)
		}
		at := feed.Cursor{Database: page.Head.Database, Position: e.Position, Entry: e.ID}
		if err := f.put(v, at); err != nil {
			return f.compare(ctx, err)
		}
		f.at = at
	}
	f.at = page.Next
	if len(page.Entries) == 0 {
		return f.store.Wait(ctx, f.at.Position)
	}

	return nil
}

// put makes v the present version. Answers matter more than the disk: a version that cannot be stored is served, and a
// start without the database then begins with an older one.
func (f *Follower) put(v *Version, at feed.Cursor) error {
	if v.From != f.zone.Serial() {
		return ErrSerial
	}
	err := f.files.Append(f.zone, at, v)
	if failed := f.broken.Swap(err != nil); err != nil && !failed {
		f.log.Error("zone not stored on disk; it is served all the same", "serial", v.To, "error", err)
	}
	if err := f.zone.Apply(v); err != nil {
		f.files.Close() // it has that version now, and is written again
		return fmt.Errorf("zone: version %d: %w", v.To, err)
	}
	f.changed()

	return nil
}

// compare makes the records of the database those of the zone, as one version. why is what keeps the zone from
// following single versions.
func (f *Follower) compare(ctx context.Context, why error) error {
	var want []Record
	var serial Serial
	var at feed.Cursor
	unchanged := false
	err := f.store.View(ctx, func(ctx context.Context, r Reader) (err error) {
		if serial, err = r.Serial(ctx); err != nil {
			return err
		}
		if at, err = r.Cursor(ctx); err != nil {
			return err
		}
		if unchanged = f.keptFor(at.Database, serial); unchanged {
			return nil
		}
		all, err := r.All(ctx)
		want = Union(all)
		return err
	})
	switch {
	case err != nil:
		return err
	case unchanged:
		return f.store.Wait(ctx, at.Position)
	case f.at != (feed.Cursor{}) && f.Kept().Lost == 0:
		f.log.Warn("single versions of the zone cannot be followed; comparing all records", "error", why)
	}

	have, present := f.zone.Records()
	v := &Version{From: present, To: serial}
	v.Removed, v.Added = difference(have, want)
	kept := Kept{at.Database, len(have), len(have) - len(want)}
	if serial == 0 || kept.Lost <= max(holdLeast, len(have)/2) {
		kept = Kept{}
	}
	if f.keep(kept, serial) {
		return f.store.Wait(ctx, at.Position) // then it is compared again
	}

	switch {
	case serial == present && len(v.Removed)+len(v.Added) == 0:
	case serial == 0: // a new database, for which nothing was published yet: no reason to deny what is served
	case present == 0 || serial.After(present):
		if err := f.put(v, at); err != nil {
			return err
		}
	default:
		f.log.Warn("the database has an older version of the zone than this server; raising its serial",
			"database", serial, "server", present)
		return raise(ctx, f.store, present) // its feed entry leads back here
	}
	f.at = at
	f.mu.Lock()
	f.accepted = "" // it was for this once
	f.mu.Unlock()

	return nil
}

// keptFor reports whether the zone is kept because of what a database has at a serial.
func (f *Follower) keptFor(database string, s Serial) bool {
	f.mu.Lock()
	defer f.mu.Unlock()

	return f.kept.Lost > 0 && f.kept.Database == database && f.keptAt == s && f.accepted != database
}

// keep reports whether the zone is kept, and notes why.
func (f *Follower) keep(kept Kept, s Serial) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if kept.Database == f.accepted {
		kept = Kept{}
	}
	if kept.Lost > 0 && f.kept.Lost == 0 {
		f.log.Error("the database does not continue the zone, and lacks most of its records; serving the old zone. If "+
			"the database is right, run tandem zone accept", "records", kept.Records, "lost", kept.Lost,
			"database", kept.Database)
	}
	f.kept, f.keptAt = kept, s

	return kept.Lost > 0
}

// Kept returns why the zone is kept although the database has another one; the zero value if it is not.
func (f *Follower) Kept() Kept {
	f.mu.Lock()
	defer f.mu.Unlock()

	return f.kept
}

// Accept lets a zone that is kept be replaced, once. It calls note before; an error of note is returned, and then
// nothing is accepted. If the zone is not kept, the error is of kind fault.Conflict.
func (f *Follower) Accept(note func(Kept) error) error {
	kept := f.Kept()
	if kept.Lost == 0 {
		return fault.New(fault.Conflict, "ZoneNotHeld", "this name server follows its database; nothing is held back")
	}
	if err := note(kept); err != nil {
		return err
	}
	f.log.Warn("the loss of records is accepted", "records", kept.Records, "lost", kept.Lost)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.kept.Database == kept.Database { // else the records came back meanwhile: a later loss is not accepted
		f.accepted = kept.Database
	}

	return nil
}

// Union returns the records of all sources, once each, with the shortest TTL for each name and type.
func Union(all []Record) []Record {
	slices.SortFunc(all, Compare)
	var list []Record
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n].Name == all[0].Name && all[n].Type == all[0].Type {
			n++
		}
		list = append(list, merge(all[:n])...)
		all = all[n:]
	}

	return list
}
