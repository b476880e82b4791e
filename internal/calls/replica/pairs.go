package replica

import (
	"errors"
	"sync/atomic"

	"github.com/tandemgw/tandem/internal/domain"
)

// content is what look-ups read: the pages, and the pairs of account and services whose ids are the values of numbers.
// A pair keeps its id, account name and services as long as its content is in use, so a look-up needs no lock: it takes
// both parts from one content. The parts grow in place, in a new content that shares the rest. Ids that no number has
// are used again only in a content whose parts are copies; see View.sweep.
type content struct {
	table *table
	pairs []*pairBlock // by id; blocks never move
}

// pair is one account with one set of services and one slot. Each account has a chain of pairs, one for each such
// combination that its numbers have. The id of the first pair is the id of the account too: it exists as long as the
// account does.
type pair struct {
	account  atomic.Pointer[domain.AccountRouting] // nil if the account was deleted
	services uint32                                // see combine; 0 while no number has had the pair
	next     uint32                                // the account's next pair, 0 for none; for the writer only
}

// A set of services leaves room for more in the same word.
const (
	taken        = 1                       // marks what numbers have or had: bit 0 stands for no service
	slotBits     = domain.MaxServiceID + 1 // the first bit of the slot of the number's label
	servicesMask = 1<<slotBits - 1 - taken
)

// combine returns a set of services with a slot. A number without services needs no slot: a program from before slots
// would take it for a service.
func combine(set domain.ServiceSet, slot domain.Slot) uint32 {
	if set == 0 {
		return taken
	}
	return uint32(set) | uint32(slot)<<slotBits | taken
}

const (
	maxPairs      = 1 << 31
	pairsPerBlock = 1024
	firstSweep    = 1 << 14 // with fewer pairs, looking for unused ones is not worth it
)

type pairBlock [pairsPerBlock]pair

// errPairs is returned when no further account or set of services fits.
var errPairs = errors.New("number index: too many accounts")

// ids are the writer's view of the ids of pairs.
type ids struct {
	next    uint32   // the next new one; ids start at 1
	free    []uint32 // below next, but neither a page nor an account has them
	sweepAt int      // View.sweep is due when there are more
}

// used returns the number of ids in use.
func (x *ids) used() int { return int(x.next) - 1 - len(x.free) }

// settle makes the next sweep due when the number of pairs has doubled.
func (x *ids) settle() { x.sweepAt = max(firstSweep, 2*x.used()) }

// pair returns the pair of an id. For a look-up, which has loaded the content before, see ByKey.
func (v *View) pair(id uint32) *pair {
	return &v.content.Load().pairs[id/pairsPerBlock][id%pairsPerBlock]
}

// reserve makes room for ids below next.
func (v *View) reserve(next uint32) {
	v.ids.next = next
	blocks := (int(next) + pairsPerBlock - 1) / pairsPerBlock
	old := v.content.Load()
	if len(old.pairs) >= blocks {
		return
	}
	c := &content{old.table, old.pairs}
	for len(c.pairs) < blocks {
		c.pairs = append(c.pairs, new(pairBlock)) // beyond what look-ups in progress see
	}
	v.content.Store(c)
}

// add returns the id of a pair that no number has.
func (v *View) add(account *domain.AccountRouting, services uint32) (uint32, error) {
	id := v.ids.next
	if n := len(v.ids.free); n > 0 {
		id, v.ids.free = v.ids.free[n-1], v.ids.free[:n-1]
	} else if id == maxPairs {
		return 0, errPairs
	} else {
		v.reserve(id + 1)
	}
	v.take(id, account, services)
	return id, nil
}

// take puts an id below next into use.
func (v *View) take(id uint32, account *domain.AccountRouting, services uint32) {
	p := v.pair(id)
	p.account.Store(account)
	p.services, p.next = services, 0
}

// link adds a pair to the chain of its account.
func (v *View) link(account, id uint32) {
	first := v.pair(account)
	v.pair(id).next, first.next = first.next, id
}

// pairOf returns the id of the pair of an account and what combine has returned; it creates the pair if there is none.
func (v *View) pairOf(account, want uint32) (uint32, error) {
	for id := account; id != 0; id = v.pair(id).next {
		p := v.pair(id)
		if p.services == 0 { // the first pair
			p.services = want
		}
		if p.services == want {
			return id, nil
		}
	}
	id, err := v.add(v.pair(account).account.Load(), want)
	if err == nil {
		v.link(account, id)
	}
	return id, err
}

// account returns the id of the account of that name. If it is new, it creates one with nothing enabled: numbers may
// arrive before their account.
func (v *View) account(name string) (uint32, error) {
	if id, ok := v.names[name]; ok {
		return id, nil
	}
	id, err := v.add(&domain.AccountRouting{Name: name}, 0)
	if err == nil {
		v.names[name] = id
	}
	return id, err
}

// sweep makes the ids available of pairs that no number has, and of accounts that were deleted. Look-ups in progress
// keep the former content, which does not change any more: an id that they have read still stands for its old pair. The
// caller must be the only writer and must have published all pages.
func (v *View) sweep() {
	old := v.content.Load()
	c := &content{table: old.table.copy(old.table.used)}
	for _, b := range old.pairs {
		n := new(pairBlock)
		for i := range n {
			n[i].account.Store(b[i].account.Load())
			n[i].services, n[i].next = b[i].services, b[i].next
		}
		c.pairs = append(c.pairs, n)
	}
	v.content.Store(c)

	used := make([]bool, v.ids.next)
	for i := range c.table.slots {
		s := &c.table.slots[i]
		if full := s.full.Load(); full != nil {
			for _, id := range full {
				used[id] = true
			}
		} else if part := s.part.Load(); part != nil {
			used[part.same] = true // or id 0
			for _, id := range part.values {
				used[id] = true
			}
		}
	}
	for name, account := range v.names {
		for p := v.pair(account); p.next != 0; {
			if id := p.next; used[id] {
				p = v.pair(id)
			} else {
				p.next = v.pair(id).next
				v.ids.free = append(v.ids.free, id)
			}
		}
		if p := v.pair(account); p.account.Load() == nil && !used[account] && p.next == 0 {
			delete(v.names, name)
			v.ids.free = append(v.ids.free, account)
		}
	}
	v.ids.settle()
}
