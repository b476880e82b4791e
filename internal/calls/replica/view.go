package replica

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/feed"
)

// View is the number index. Reads never block and are safe for concurrent use. The view keeps changing as the feed is
// followed, so that two look-ups may see different states. It implements route.View.
type View struct {
	content atomic.Pointer[content]
	labels  sync.Map // Direct Routing label (string) -> account id (uint32)
	// gateways are the labels for which Teams has gateway objects.
	gateways sync.Map // label (string) -> account id (uint32)

	numbers atomic.Int64 // numbers in the index
	bytes   atomic.Int64 // heap bytes of pages, without the table

	// For the writer; guarded by the replica's mutex, or not shared yet while the view is loaded.
	ids   ids
	names map[string]uint32 // account name -> id, those of deleted accounts too while numbers may still name them
	draft draft
	at    uint64 // page in draft
	slot  *slot  // its slot; nil if it has none yet
	dirty bool   // draft differs from what is published
	open  bool   // draft holds a page
	slab  *slab  // memory of new pages during a full load; nil afterwards
}

var _ route.View = (*View)(nil)

func newView(pages int) *View {
	v := &View{names: map[string]uint32{}, ids: ids{next: 1, sweepAt: firstSweep}}
	v.content.Store(&content{table: newTable(pages)})
	return v
}

// Number implements route.View.
func (v *View) Number(n domain.E164) (route.Number, bool) {
	return v.ByKey(n.Key())
}

// ByKey returns the same as Number for a domain.E164.Key.
func (v *View) ByKey(key uint64) (route.Number, bool) {
	for {
		c := v.content.Load()
		id := c.table.value(key)
		if id == 0 {
			return route.Number{}, false
		}
		if int(id/pairsPerBlock) >= len(c.pairs) {
			continue // the pair is new since c was loaded
		}
		// The account itself is not read: that would be one more cache miss for each look-up.
		p := &c.pairs[id/pairsPerBlock][id%pairsPerBlock]
		n := route.Number{Account: p.account.Load(), Services: domain.ServiceSet(p.services & servicesMask),
			Slot: domain.Slot(p.services >> slotBits)}
		if n.Account == nil && (v.content.Load() != c || c.table.value(key) != id) {
			continue // the number left the account before that was deleted
		}
		// Without an account, it was deleted and the change that removes the number follows: the number is not
		// provisioned.
		return n, n.Account != nil
	}
}

// CustomHeader implements route.View.
func (v *View) CustomHeader(n domain.E164) string {
	key := n.Key()
	s := v.content.Load().table.find(key / pageSize)
	if s == nil {
		return ""
	}
	h := s.headers.Load()
	if h == nil {
		return ""
	}
	return h.value(int(key % pageSize))
}

// AccountByLabel implements route.View.
func (v *View) AccountByLabel(label string) *domain.AccountRouting {
	id, ok := v.labels.Load(label)
	if !ok {
		return nil
	}
	a := v.pair(id.(uint32)).account.Load()
	if a == nil || a.Subdomain != label && a.Pending != label {
		return nil // the label is moving to another account
	}
	return a
}

// Numbers returns the number of numbers in the index.
func (v *View) Numbers() int64 { return v.numbers.Load() }

// Bytes returns the approximate heap size of numbers and header values, without accounts.
func (v *View) Bytes() int64 {
	return v.bytes.Load() + int64(len(v.content.Load().table.slots))*slotBytes
}

// errPayload is returned for a feed entry that cannot be read: its changes are unknown.
var errPayload = errors.New("number index: a feed entry cannot be read")

// errChange is returned for an invalid change.
var errChange = errors.New("number index: invalid change")

// apply makes changes visible, in order, those to one page together. The caller must be the only writer. Invalid
// changes are passed to bad and ignored, so that they do not block all others; bad may be nil.
func (v *View) apply(changes []domain.Change, bad func(error)) error {
	if v.slab == nil && v.ids.used() > v.ids.sweepAt { // nothing is unused during a full load
		v.sweep()
	}
	defer v.flush()
	for i := range changes {
		c := &changes[i]
		var err error
		switch {
		case c.Account != nil && c.Number == nil:
			err = v.applyAccount(c.Account)
		case c.Number != nil && c.Account == nil:
			err = v.applyNumber(c.Number)
		default:
			err = fmt.Errorf("%w: it must have exactly one of account and number", errChange)
		}
		switch {
		case err == nil:
		case !errors.Is(err, errChange):
			return err
		case bad != nil:
			bad(err)
		}
	}
	return nil
}

func (v *View) applyAccount(a *domain.AccountRouting) error {
	if a.Name == "" {
		return fmt.Errorf("%w: account without a name", errChange)
	}
	id, err := v.account(a.Name)
	if err != nil {
		return err
	}
	v.flush() // numbers that leave the account first are seen to leave it first
	old := v.pair(id).account.Load()
	var now *domain.AccountRouting // nil if it was deleted
	if !a.Deleted {
		now = new(domain.AccountRouting)
		*now = *a
	}
	for p := id; p != 0; p = v.pair(p).next {
		v.pair(p).account.Store(now)
	}
	v.label(id, now)
	if old == nil {
		return nil
	}
	for _, l := range []string{old.Subdomain, old.Pending} {
		if now == nil || l != now.Subdomain && l != now.Pending {
			v.labels.CompareAndDelete(l, id) // unless another account has it by now
			v.gateways.CompareAndDelete(l, id)
		}
	}
	return nil
}

// label makes the labels of an account, which may be nil, resolve to its id.
func (v *View) label(id uint32, a *domain.AccountRouting) {
	if a == nil {
		return
	}
	for l, gateway := range map[string]bool{a.Subdomain: a.Gateway, a.Pending: a.PendingGateway} {
		if l == "" {
			continue
		}
		v.labels.Store(l, id)
		if gateway {
			v.gateways.Store(l, id)
		} else {
			v.gateways.CompareAndDelete(l, id)
		}
	}
}

// Gateways returns the labels for which Teams has gateway objects, in no order.
func (v *View) Gateways() (labels []string) {
	v.gateways.Range(func(l, _ any) bool {
		labels = append(labels, l.(string))
		return true
	})
	return labels
}

func (v *View) applyNumber(n *domain.NumberRouting) error {
	if domain.E164FromKey(n.Key) == "" {
		return fmt.Errorf("%w: %d is not a number", errChange, n.Key)
	}
	val := uint32(0)
	if !n.Deleted {
		if n.Account == "" {
			return fmt.Errorf("%w: number without an account", errChange)
		}
		if len(n.CustomHeader) > maxHeader {
			return fmt.Errorf("%w: custom header value of %d characters", errChange, len(n.CustomHeader))
		}
		if uint32(n.Services)>>slotBits != 0 || n.Slot > 2 {
			return fmt.Errorf("%w: services %b and slot %d", errChange, n.Services, n.Slot)
		}
		id, err := v.account(n.Account)
		if err != nil {
			return err
		}
		if val, err = v.pairOf(id, combine(n.Services, n.Slot)); err != nil {
			return err
		}
	}
	v.turnTo(n.Key / pageSize)
	i := int(n.Key % pageSize)
	if v.draft.values[i] == val && v.draft.headers[i] == n.CustomHeader {
		return nil
	}
	if val == 0 && v.draft.values[i] == 0 {
		return nil
	}
	v.draft.put(i, val, n.CustomHeader)
	v.dirty = true
	return nil
}

// turnTo loads a page into draft.
func (v *View) turnTo(page uint64) {
	if v.open && v.at == page {
		return
	}
	v.flush()
	v.at, v.open = page, true
	v.slot = v.content.Load().table.find(page)
	if v.slot == nil {
		v.draft.read(nil, nil, nil)
		return
	}
	v.draft.read(v.slot.full.Load(), v.slot.part.Load(), v.slot.headers.Load())
}

// flush publishes the page in draft, if it was changed.
func (v *View) flush() {
	v.open = false
	if !v.dirty {
		return
	}
	v.dirty = false
	from := v.slab
	if v.slot != nil {
		from = nil // the page is a replacement: the slab is for pages that stay
	}
	full, part, h := v.draft.build(from)
	size, count := pageBytes(full, part, h), v.draft.there.count()
	if v.slot == nil {
		v.addPage(v.at, full, part, h)
	} else {
		of, op, oh := v.slot.full.Load(), v.slot.part.Load(), v.slot.headers.Load()
		size -= pageBytes(of, op, oh)
		count -= pageCount(of, op)
		v.slot.publish(full, part, h)
	}
	v.bytes.Add(int64(size))
	v.numbers.Add(int64(count))
}

// addPage inserts a new page, enlarging the table if necessary.
func (v *View) addPage(page uint64, full *dense, part *sparse, h *headers) {
	t := v.content.Load().table
	if !t.room() {
		t = t.copy(t.used + t.used/2 + 64)
		// Readers that hold the old table miss this page until they load the new one: they are as old as the view was.
		t.insert(page, full, part, h)
		v.content.Store(&content{t, v.content.Load().pairs})
		return
	}
	t.insert(page, full, part, h)
}

func pageCount(full *dense, part *sparse) int {
	switch {
	case full != nil:
		n := 0
		for _, v := range full {
			if v != 0 {
				n++
			}
		}
		return n
	case part != nil:
		return part.there.count()
	}
	return 0
}

// applyEntry applies one entry of the feed.
func (v *View) applyEntry(e feed.Entry, bad func(error)) error {
	var changes []domain.Change
	if err := json.Unmarshal(e.Payload, &changes); err != nil {
		return fmt.Errorf("%w: %w", errPayload, err)
	}
	return v.apply(changes, bad)
}
