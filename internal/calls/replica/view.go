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
	table    atomic.Pointer[table]
	accounts accounts
	labels   sync.Map // Direct Routing label (string) -> account id (uint32)

	numbers atomic.Int64 // numbers in the index
	bytes   atomic.Int64 // heap bytes of pages, without the table

	// For the writer; guarded by the replica's mutex, or not shared yet while the view is loaded.
	names map[string]uint32 // account name -> id, deleted ones too: numbers may still name them
	draft draft
	at    uint64 // page in draft
	slot  *slot  // its slot; nil if it has none yet
	dirty bool   // draft differs from what is published
	open  bool   // draft holds a page
	slab  *slab  // memory of new pages during a full load; nil afterwards
}

var _ route.View = (*View)(nil)

func newView(pages int) *View {
	v := &View{names: map[string]uint32{}}
	v.table.Store(newTable(pages))
	return v
}

// Number implements route.View.
func (v *View) Number(n domain.E164) (route.Number, bool) {
	return v.ByKey(n.Key())
}

// ByKey returns the same as Number for a domain.E164.Key.
func (v *View) ByKey(key uint64) (route.Number, bool) {
	val := v.value(key)
	if val == 0 {
		return route.Number{}, false
	}
	a := v.accounts.get(val >> serviceBits)
	if a == nil {
		// The account was deleted and the change that removes the number follows: a number without an account is not
		// provisioned.
		return route.Number{}, false
	}
	return route.Number{Account: a, Services: domain.ServiceSet(val&(1<<serviceBits-1)) << 1}, true
}

func (v *View) value(key uint64) uint32 {
	s := v.table.Load().find(key / pageSize)
	if s == nil {
		return 0
	}
	return s.value(int(key % pageSize))
}

// CustomHeader implements route.View.
func (v *View) CustomHeader(n domain.E164) string {
	key := n.Key()
	s := v.table.Load().find(key / pageSize)
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
	a := v.accounts.get(id.(uint32))
	if a == nil || a.Subdomain != label {
		return nil // the label is moving to another account
	}
	return a
}

// Numbers returns the number of numbers in the index.
func (v *View) Numbers() int64 { return v.numbers.Load() }

// missing returns how many numbers of v are not in the view in.
func (v *View) missing(in *View) (n int64) {
	slots := v.table.Load().slots
	for i := range slots {
		key := slots[i].key.Load()
		for j := range uint64(pageSize) {
			if key > 0 && slots[i].value(int(j)) != 0 && in.value((key-1)*pageSize+j) == 0 {
				n++
			}
		}
	}
	return n
}

// Bytes returns the approximate heap size of numbers and header values, without accounts.
func (v *View) Bytes() int64 {
	return v.bytes.Load() + int64(len(v.table.Load().slots))*slotBytes
}

// accounts holds the accounts by id, in blocks that never move, so that readers need no lock.
type accounts struct {
	blocks atomic.Pointer[[]*accountBlock]
	next   uint32 // id of the next new account, for the writer only; 0 before the first, which gets 1
}

const accountsPerBlock = 1024

type accountBlock [accountsPerBlock]atomic.Pointer[domain.AccountRouting]

// get returns the account with an id in use, or nil if it was deleted. It does not read the account: that would be one
// more cache miss for each look-up.
func (a *accounts) get(id uint32) *domain.AccountRouting {
	return (*a.blocks.Load())[id/accountsPerBlock][id%accountsPerBlock].Load()
}

func (a *accounts) set(id uint32, r *domain.AccountRouting) {
	blocks := a.blocks.Load()
	if blocks == nil || int(id/accountsPerBlock) >= len(*blocks) {
		var more []*accountBlock
		if blocks != nil {
			more = append(more, *blocks...)
		}
		for int(id/accountsPerBlock) >= len(more) {
			more = append(more, new(accountBlock))
		}
		(*more[id/accountsPerBlock])[id%accountsPerBlock].Store(r)
		a.blocks.Store(&more)
		return
	}
	(*blocks)[id/accountsPerBlock][id%accountsPerBlock].Store(r)
}

var errAccounts = fmt.Errorf("number index: more than %d accounts", maxAccounts)

// account returns the id of the account of that name. If it is new, it creates one with nothing enabled: numbers may
// arrive before their account.
func (v *View) account(name string) (uint32, error) {
	if id, ok := v.names[name]; ok {
		return id, nil
	}
	id := max(v.accounts.next, 1)
	if id > maxAccounts {
		return 0, errAccounts
	}
	v.accounts.next = id + 1
	v.accounts.set(id, &domain.AccountRouting{Name: name})
	v.names[name] = id
	return id, nil
}

// errPayload is returned for a feed entry that cannot be read: its changes are unknown.
var errPayload = errors.New("number index: a feed entry cannot be read")

// errChange is returned for an invalid change.
var errChange = errors.New("number index: invalid change")

// apply makes changes visible, in order, those to one page together. The caller must be the only writer. Invalid
// changes are passed to bad and ignored, so that they do not block all others; bad may be nil.
func (v *View) apply(changes []domain.Change, bad func(error)) error {
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
	old, label := v.accounts.get(id), ""
	if a.Deleted {
		v.accounts.set(id, nil)
	} else {
		r := *a
		label = r.Subdomain
		v.accounts.set(id, &r)
	}
	if label != "" {
		v.labels.Store(label, id)
	}
	if old != nil && old.Subdomain != "" && old.Subdomain != label {
		v.labels.CompareAndDelete(old.Subdomain, id) // unless another account has it by now
	}
	return nil
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
		id, err := v.account(n.Account)
		if err != nil {
			return err
		}
		val = id<<serviceBits | uint32(n.Services>>1)
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
	v.slot = v.table.Load().find(page)
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
	t := v.table.Load()
	if !t.room() {
		t = t.copy(t.used + t.used/2 + 64)
		// Readers that hold the old table miss this page until they load the new one: they are as old as the view was.
		t.insert(page, full, part, h)
		v.table.Store(t)
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
