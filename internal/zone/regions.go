package zone

import (
	"context"
	"log/slog"
	"slices"
	"time"
)

const (
	beatEvery = 5 * time.Second
	// goneAfter is how long no node of a region may have been heard before provapi moves away from it: several beats.
	goneAfter = 15 * time.Second
	// backAfter is how long the first region must have been heard without a gap before provapi returns to it.
	backAfter = 5 * time.Minute
)

// Beat is what a node that serves the Provisioning API last said.
type Beat struct {
	Node   string
	Region int // from 1
	Count  int64
}

// Beats holds the beats of all nodes in the database. Its methods are safe for concurrent use.
type Beats interface {
	// Beat counts a beat of a node.
	Beat(ctx context.Context, node string, region int) error
	// Beats returns the last beat of each node.
	Beats(ctx context.Context) ([]Beat, error)
}

// Report counts the beats of a node in a region, while ready reports that it serves, until ctx ends. It goes on while
// the database cannot be written: when it can again, all nodes are heard at once.
func Report(ctx context.Context, b Beats, node string, region int, ready func() bool, log *slog.Logger) error {
	failing := false
	for tick := time.NewTicker(beatEvery); ; {
		if ready() {
			err := b.Beat(ctx, node, region)
			if err != nil && !failing && ctx.Err() == nil {
				log.Warn("this node is not heard by the others; trying again", "region", region, "error", err)
			}
			failing = err != nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// end returns nil if ctx has ended, else err.
func end(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}

	return err
}

// heard is what a Mover knows of a region. Times are those of this process: clocks of nodes are not compared.
type heard struct {
	last  time.Time // of the last new beat
	since time.Time // of the first one after a gap; zero while it is not heard
}

// Mover keeps the address of provapi in a region that is heard. Several may run at a time.
type Mover struct {
	k       *Keeper
	beats   Beats
	log     *slog.Logger
	counts  map[string]int64
	regions []heard
	looked  time.Time // when beats were last read
	begun   time.Time // since when they are read without a gap
	own     time.Time // when provapi was last seen in a region of this node's configuration
}

// NewMover returns a mover for the zone of a keeper.
func NewMover(k *Keeper, b Beats) *Mover {
	return &Mover{k: k, beats: b, log: k.log, counts: map[string]int64{}, regions: make([]heard, len(k.Regions))}
}

// Run moves provapi until ctx ends or the database cannot be used.
func (m *Mover) Run(ctx context.Context) error {
	m.looked = time.Time{}
	for tick := time.NewTicker(beatEvery); ; {
		if err := m.look(ctx); err != nil {
			return end(ctx, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// look reads the beats and moves provapi if it must. Before it has looked for long enough it only publishes an address
// where there is none.
func (m *Mover) look(ctx context.Context) error {
	beats, err := m.beats.Beats(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	if now.Sub(m.looked) > 2*beatEvery { // this process or the database stood still, and heard nobody
		m.begun = now
	}
	m.looked = now
	for _, b := range beats {
		before, known := m.counts[b.Node]
		m.counts[b.Node] = b.Count
		if !known || before == b.Count || b.Region < 1 || b.Region > len(m.regions) {
			continue // a node that has ended leaves its last beat
		}
		r := &m.regions[b.Region-1]
		if r.last = now; r.since.IsZero() {
			r.since = now
		}
	}
	for i := range m.regions {
		if r := &m.regions[i]; now.Sub(r.last) > goneAfter {
			r.since = time.Time{}
		}
	}

	present, err := m.present(ctx)
	if err != nil {
		return err
	}
	if present >= 0 {
		m.own = now
	}
	next := m.choose(present, now)
	switch {
	case next == present || next < 0:
		return nil
	case present >= 0:
		m.log.Warn("moving provapi to another region", "from", present+1, "to", next+1)
	case present == elsewhere:
		m.log.Warn("replacing addresses of provapi that are not in the configuration of this node; if that repeats, "+
			"make zone.regions the same on all nodes", "region", next+1)
	}

	return m.k.publish(ctx, map[string][]Record{sourceProvapi: m.k.provapi(next)})
}

// choose returns the region in which provapi should be, -1 to leave it as it is. Addresses of another configuration are
// left for a while: its nodes may be about to get this one, or this node that one.
func (m *Mover) choose(present int, now time.Time) int {
	alive := func(i int) bool { return !m.regions[i].since.IsZero() }
	steady := func(i int) bool { return alive(i) && now.Sub(m.regions[i].since) >= backAfter }
	switch {
	case present == nowhere:
		return 0
	case present > 0 && steady(0):
		return 0
	case now.Sub(m.begun) < goneAfter, present >= 0 && alive(present),
		present == elsewhere && now.Sub(m.own) < backAfter:
		return present
	}
	for i := range m.regions {
		if alive(i) {
			return i
		}
	}

	return max(present, 0) // none is heard: the last address of the configuration is as good as any
}

// Where provapi is, if in no region of the configuration.
const (
	elsewhere = -1 // it has other addresses: the configuration has changed, or another node has another one
	nowhere   = -2 // it has no address
)

// present returns the region in which provapi is, elsewhere or nowhere.
func (m *Mover) present(ctx context.Context) (int, error) {
	var have []Record
	err := m.k.store.View(ctx, func(ctx context.Context, r Reader) (err error) {
		have, err = r.Records(ctx, sourceProvapi)
		return err
	})
	if err != nil {
		return 0, err
	}
	if have = Union(have); len(have) == 0 {
		return nowhere, nil
	}
	for i := range m.k.Regions {
		if slices.Equal(have, Union(m.k.provapi(i))) {
			return i, nil
		}
	}

	return elsewhere, nil
}
