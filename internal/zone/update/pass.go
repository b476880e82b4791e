package update

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/zone"
)

// target is the operator's zone. Names of records are complete, without the final dot. Errors that are not a failure
// are of unknown meaning: the request may have been carried out.
type target interface {
	// look returns what the zone has of each set, in their order. The error concerns all of them.
	look(ctx context.Context, sets []set) ([]seen, error)
	// change removes and adds single records. Records that are there already are not added, and those that are gone
	// are not removed.
	change(ctx context.Context, remove, add []zone.Record) error
}

// set names the records of one name and type.
type set struct{ name, kind string }

// seen is what the operator's zone has of a set.
type seen struct {
	records []zone.Record
	err     error // the set cannot be looked at
}

// failure is why records are not as they should be. The text says what to do.
type failure struct {
	error
	whole   bool // it concerns every record, so that there is no use in sending others
	certain bool // the request changed nothing for certain
}

// change is what is to be done with a set.
type change struct {
	set         set
	remove, add []zone.Record
	intended    []Entry // of the records in add
	fresh       []Entry // those of them that had none before
	gone        []Entry // of the records in remove that are not wanted
}

const (
	// portion is how many sets that have changed, and how many others, a run looks at, before the next one looks for
	// newer changes.
	portion = 500
	// Limits of one request, so that it fits a message.
	maxBatch = 100 // records
	maxBytes = 16 << 10
	// maxRefused is how many requests may be refused before any is accepted, until a run ends.
	maxRefused = 20
	// maxNamed is how many records a line of the log names.
	maxNamed = 20
)

// pass is one run.
type pass struct {
	*Updater
	run *flow.Run

	want map[set][]zone.Record
	have map[set]map[zone.Record]Entry // by key

	existing, missing []zone.Record // that others have published, and removed
	taken, denied     int           // requests
	refusal           error         // why some records are not as they should be
	failed            error         // why the run ended early
}

// key returns what makes a record the same record: all but its TTL and the case of host names.
func key(r zone.Record) zone.Record {
	r.TTL = 0
	if r.Type == "SRV" || r.Type == "NS" {
		r.Data = strings.ToLower(r.Data)
	}

	return r
}

func setOf(r zone.Record) set { return set{r.Name, r.Type} }

func compareSets(a, b set) int {
	return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.kind, b.kind))
}

// do brings the operator's zone closer to what is wanted. Errors are those of the database; others are kept.
func (x *pass) do(ctx context.Context) error {
	if err := x.read(ctx); err != nil {
		return err
	}
	if len(x.check) == 0 && time.Since(x.began) >= checkEvery {
		x.began = time.Now()
		x.check = slices.SortedFunc(maps.Keys(x.have), compareSets)
		maps.DeleteFunc(x.foreign, func(k zone.Record, _ bool) bool { return x.want[setOf(k)] == nil })
		for k := range x.foreign {
			x.foreign[k] = false // is looked at again
		}
	}
	sets := x.changed()
	sets = sets[:min(len(sets), portion)]
	checked := x.check[:min(len(x.check), portion)]
	for _, s := range checked {
		if !slices.Contains(sets, s) {
			sets = append(sets, s)
		}
	}

	list, err := x.target.look(ctx, sets)
	if err != nil {
		x.failed = err
		return nil
	}
	var changes []change
	var there []Entry
	for i, s := range sets {
		if list[i].err != nil {
			x.refuse(s, list[i].err)
			continue
		}
		c, found := x.plan(s, list[i].records)
		there = append(there, found...)
		if len(c.add)+len(c.remove) > 0 {
			changes = append(changes, c)
		}
	}
	x.report(ctx, slog.LevelInfo, "records are in the operator's zone already; they stay those of who added them",
		x.existing)
	x.report(ctx, slog.LevelWarn, "somebody removed records of Tandem from the operator's zone; putting them back",
		x.missing)
	put, growing := there, map[string]bool{}
	for _, c := range changes {
		put = append(put, c.intended...)
		growing[c.set.name] = len(c.add) > 0 || growing[c.set.name]
	}
	for k := range x.foreign { // it may come from a wildcard, which no longer covers the name
		x.foreign[k] = x.foreign[k] && !growing[k.Name]
	}
	if err := x.save(ctx, put, nil); err != nil {
		return err
	}
	x.check = x.check[len(checked):] // what is not as it should be is in the table now

	return x.send(ctx, changes, maxBatch)
}

// read reads the records that are wanted, and those that were published.
func (x *pass) read(ctx context.Context) error {
	x.want, x.have = map[set][]zone.Record{}, map[set]map[zone.Record]Entry{}
	published, err := x.store.Published(ctx)
	if err != nil {
		return err
	}
	outside := 0
	for _, e := range published {
		if e.Name != x.origin && !strings.HasSuffix(e.Name, "."+x.origin) {
			outside++
			continue
		}
		x.enter(e)
	}
	if outside > x.outside {
		x.log.Warn("records were published in another zone, where they stay; remove them there by hand",
			"count", outside, "zone", x.origin)
	}
	x.outside = outside

	return x.store.View(ctx, func(ctx context.Context, r zone.Reader) error {
		all, err := r.All(ctx)
		if err != nil {
			return err
		}
		for _, r := range zone.Union(all) {
			switch {
			case r.Name != zone.Apex:
				r.Name += "." + x.base
			case r.Type == "NS":
				continue // the operator's
			default:
				r.Name = x.base
			}
			x.want[setOf(r)] = append(x.want[setOf(r)], r)
		}
		return nil
	})
}

func (x *pass) enter(e Entry) {
	s := setOf(e.Record)
	if x.have[s] == nil {
		x.have[s] = map[zone.Record]Entry{}
	}
	x.have[s][key(e.Record)] = e
}

// save stores entries and removes others.
func (x *pass) save(ctx context.Context, put, drop []Entry) error {
	if len(put)+len(drop) == 0 {
		return nil
	}
	if err := x.store.SavePublished(ctx, x.run, put, drop); err != nil {
		return err
	}
	for _, e := range put {
		x.enter(e)
	}
	for _, e := range drop {
		s := setOf(e.Record)
		delete(x.have[s], key(e.Record))
		if len(x.have[s]) == 0 {
			delete(x.have, s)
		}
	}

	return nil
}

// changed returns the sets that are not known to be as they should. Those that failed by themselves are last; else
// short names are first: those of the regions and of provapi before those of customers, which may be thousands.
func (x *pass) changed() []set {
	found := map[set]bool{}
	for s, want := range x.want {
		found[s] = x.refused[s] || slices.ContainsFunc(want, func(r zone.Record) bool {
			e := x.have[s][key(r)]
			return !x.foreign[key(r)] && (!e.There || e.TTL != r.TTL)
		})
	}
	for s, have := range x.have {
		found[s] = found[s] || x.refused[s] || len(unwanted(have, x.want[s])) > 0
	}
	maps.DeleteFunc(found, func(_ set, changed bool) bool { return !changed })
	list := slices.Collect(maps.Keys(found))
	rank := func(s set) int {
		if x.refused[s] {
			return 1 << 10
		}
		return strings.Count(s.name, ".")
	}
	slices.SortFunc(list, func(a, b set) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), compareSets(a, b))
	})

	return list
}

// unwanted returns the entries of records that are not wanted.
func unwanted(have map[zone.Record]Entry, want []zone.Record) []Entry {
	var list []Entry
	for k, e := range have {
		if !slices.ContainsFunc(want, func(r zone.Record) bool { return key(r) == k }) {
			list = append(list, e)
		}
	}

	return list
}

// plan returns what is to be done with a set of which the operator's zone has records, and the entries of those that
// are as they should be, if they are to be stored.
func (x *pass) plan(s set, records []zone.Record) (c change, there []Entry) {
	c.set = s
	delete(x.refused, s)
	have := x.have[s]
	present := map[zone.Record]zone.Record{}
	var others []zone.Record
	for _, r := range records {
		present[key(r)] = r
		if _, ours := have[key(r)]; !ours {
			others = append(others, r)
		}
	}

	for _, r := range x.want[s] {
		k := key(r)
		e, ours := have[k]
		old, found := present[k]
		switch {
		case found && !ours:
			if _, known := x.foreign[k]; !known {
				x.existing = append(x.existing, r)
			}
			x.foreign[k] = true
			continue
		case found && e.There && e.TTL == r.TTL:
			continue
		case found && (old.TTL == r.TTL || len(others) > 0):
			there = append(there, Entry{r, true})
			continue
		case found:
			c.remove = append(c.remove, old)
		case e.There:
			x.missing = append(x.missing, r)
		}
		if delete(x.foreign, k); !ours {
			c.fresh = append(c.fresh, Entry{r, false})
		}
		c.intended = append(c.intended, Entry{r, false})
		if len(others) > 0 {
			r.TTL = others[0].TTL // a set has one TTL (RFC 2181 §5.2), and theirs is not changed
		}
		c.add = append(c.add, r)
	}
	for _, e := range unwanted(have, x.want[s]) {
		r, found := present[key(e.Record)]
		if !found {
			r = e.Record // a request of a process that was killed may be on its way
		}
		c.remove, c.gone = append(c.remove, r), append(c.gone, e)
	}

	return c, there
}

// report logs records, by name the first of them.
func (x *pass) report(ctx context.Context, level slog.Level, what string, rs []zone.Record) {
	if len(rs) == 0 {
		return
	}
	var names []string
	for _, r := range rs[:min(len(rs), maxNamed)] {
		names = append(names, r.Name+" "+r.Type+" "+r.Data)
	}
	x.log.Log(ctx, level, what, "count", len(rs), "records", names, "zone", x.origin)
}

// refuse notes that a set failed by itself.
func (x *pass) refuse(s set, err error) {
	x.refused[s] = true
	if x.refusal == nil {
		x.refusal = fmt.Errorf("%s %s: %w", s.name, s.kind, err)
	}
}

// send makes changes, up to a number of records in a request. If a request with several sets is refused, each is sent
// alone, so that one does not hold up the others. Errors are those of the database.
func (x *pass) send(ctx context.Context, changes []change, most int) error {
	for len(changes) > 0 && x.failed == nil {
		var remove, add []zone.Record
		n, size := 0, 0
		for _, c := range changes {
			for _, r := range slices.Concat(c.remove, c.add) {
				size += len(r.Name) + len(r.Data) + 20
			}
			if n > 0 && (len(remove)+len(add)+len(c.remove)+len(c.add) > most || size > maxBytes) {
				break
			}
			n++
			remove, add = append(remove, c.remove...), append(add, c.add...)
		}
		batch := changes[:n]
		changes = changes[n:]

		err := x.target.change(ctx, remove, add)
		f, _ := err.(*failure)
		switch {
		case err == nil:
			x.taken++
			if err := x.verify(ctx, batch); err != nil {
				return err
			}
		case f != nil && f.whole || ctx.Err() != nil:
			x.failed = err
		case n > 1:
			if err := x.send(ctx, batch, 0); err != nil {
				return err
			}
		default:
			x.refuse(batch[0].set, err)
			if x.denied++; x.denied >= maxRefused && x.taken == 0 {
				x.failed = x.refusal
			}
		}
		if f != nil && f.certain && (f.whole || n == 1) {
			if err := x.forget(ctx, batch); err != nil {
				return err
			}
		}
	}
	if x.failed != nil {
		return x.forget(ctx, changes) // were not sent
	}

	return nil
}

// forget removes the entries of records that were certainly not sent: if somebody else adds them, they are not ours.
func (x *pass) forget(ctx context.Context, changes []change) error {
	var drop []Entry
	for _, c := range changes {
		drop = append(drop, c.fresh...)
	}

	return x.save(ctx, nil, drop)
}

// verify looks at sets that were changed, and stores what is there and what is gone. A server ignores records that are
// added at a name with a CNAME, and makes no error of it (RFC 2136 §3.4.2.2).
func (x *pass) verify(ctx context.Context, changes []change) error {
	sets := make([]set, len(changes))
	for i, c := range changes {
		sets[i] = c.set
	}
	list, err := x.target.look(ctx, sets)
	if err != nil {
		x.failed = err
		return nil
	}

	// What an UPDATE removed is gone, although a wildcard may answer the same; a provider may have removed nothing.
	_, sure := x.target.(*server)
	var put, drop []Entry
	for i, c := range changes {
		present := map[zone.Record]bool{}
		for _, r := range list[i].records {
			present[key(r)] = true
		}
		wrong := list[i].err
		for _, e := range c.intended {
			if present[key(e.Record)] {
				put = append(put, Entry{e.Record, true})
			} else if wrong == nil {
				wrong = fmt.Errorf("the operator's server accepted the record %s and does not have it; "+
					"if the name is a CNAME there, remove that", e.Data)
			}
		}
		for _, e := range c.gone {
			if sure || list[i].err == nil && !present[key(e.Record)] {
				drop = append(drop, e)
			} else if wrong == nil {
				wrong = fmt.Errorf("the operator's server accepted the removal of %s and still has it", e.Data)
			}
		}
		if wrong != nil {
			x.refuse(c.set, wrong)
		}
	}

	return x.save(ctx, put, drop)
}
