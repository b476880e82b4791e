package replica

import (
	"math/bits"
	"sync/atomic"
	"unsafe"
)

// table finds pages by number: open addressing with linear probing. One writer inserts and swaps pages while any number
// of readers look up. A slot in use keeps its key for the lifetime of the table.
type table struct {
	slots []slot
	shift uint8
	used  int // slots in use; for the writer only
}

// slot is one page. full, part and headers are swapped one at a time: a reader may see a number's new value with its
// old header for an instant, never a value or header that was not provisioned for that number.
type slot struct {
	key     atomic.Uint64 // page + 1; 0 for a free slot. Stored last
	full    atomic.Pointer[dense]
	part    atomic.Pointer[sparse]
	headers atomic.Pointer[headers]
}

const slotBytes = 32

// newTable returns a table with room for n pages.
func newTable(n int) *table {
	size := 64
	for size*2/3 < n {
		size *= 2
	}
	t := &table{slots: make([]slot, size), shift: uint8(64 - bits.TrailingZeros(uint(size)))}
	adviseHuge(unsafe.Pointer(unsafe.SliceData(t.slots)), uintptr(len(t.slots))*slotBytes)
	return t
}

// find returns the page's slot, or nil if it has none.
func (t *table) find(page uint64) *slot {
	mask := uint64(len(t.slots) - 1)
	for i := page * 0x9E3779B97F4A7C15 >> t.shift; ; i = (i + 1) & mask {
		s := &t.slots[i]
		switch s.key.Load() {
		case page + 1:
			return s
		case 0:
			return nil
		}
	}
}

// value returns the value of a number by its domain.E164.Key, or 0 if it is not present.
func (t *table) value(key uint64) uint32 {
	s := t.find(key / pageSize)
	if s == nil {
		return 0
	}
	return s.value(int(key % pageSize))
}

// value returns the value of number i of the page in the slot, or 0 if it is not present.
func (s *slot) value(i int) uint32 {
	for {
		if p := s.full.Load(); p != nil {
			return p[i]
		}
		if p := s.part.Load(); p != nil {
			return p.value(i)
		}
		// The writer was between the two stores of publish; the other pointer is set by now.
	}
}

// publish swaps the slot's page. It stores the new part before it removes the old one, so that one is always present.
func (s *slot) publish(full *dense, part *sparse, h *headers) {
	s.headers.Store(h)
	if full != nil {
		s.full.Store(full)
		s.part.Store(nil)
		return
	}
	s.part.Store(part)
	s.full.Store(nil)
}

// insert inserts a page that is not in the table yet. The table must have room.
func (t *table) insert(page uint64, full *dense, part *sparse, h *headers) {
	mask := uint64(len(t.slots) - 1)
	i := page * 0x9E3779B97F4A7C15 >> t.shift
	for t.slots[i].key.Load() != 0 {
		i = (i + 1) & mask
	}
	s := &t.slots[i]
	s.publish(full, part, h)
	s.key.Store(page + 1)
	t.used++
}

// room reports whether one more page may be inserted.
func (t *table) room() bool { return t.used < len(t.slots)*2/3 }

// copy returns a table with room for n pages and the same pages, except those without numbers. The pages themselves are
// shared: they never change.
func (t *table) copy(n int) *table {
	c := newTable(n)
	for i := range t.slots {
		s := &t.slots[i]
		k := s.key.Load()
		if k == 0 {
			continue
		}
		full, part := s.full.Load(), s.part.Load()
		if full == nil && part.there == (bitmap{}) {
			continue
		}
		c.insert(k-1, full, part, s.headers.Load())
	}
	return c
}

// pageBytes returns the approximate heap size of a page; 0 for one without numbers, which the next copy of the table
// omits.
func pageBytes(full *dense, part *sparse, h *headers) (n int) {
	if full != nil {
		n += 416 // the allocator's size class
	} else if part != nil && part.there != (bitmap{}) {
		n += 48 + 4*len(part.values)
	}
	if h != nil {
		n += 16 + len(h.data)
	}
	return n
}
