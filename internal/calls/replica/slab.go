package replica

import "unsafe"

// slab hands out dense pages side by side while an index is loaded, so that large memory pages can lie under them: a
// look-up among 100 million numbers otherwise pays for a walk of the page tables.
//
// A page handed out keeps its whole slab alive. In the worst case, when every page but one of each slab has been replaced
// by a change, an index takes twice the memory until the process starts again: with four bytes a number that is within
// bounds. Pages built by changes are allocated one by one.
type slab struct {
	free []dense
	size int // of the next slab, pages
}

const (
	firstSlab = 64
	largeSlab = 32 << 20 / (4 * pageSize) // 32 MiB: most of it can be large memory pages wherever it begins
)

// page returns a page of zeros. Expect says how many more are likely to come; 0 if nobody knows.
func (s *slab) page(expect int) *dense {
	if len(s.free) == 0 {
		s.size = min(max(2*s.size, firstSlab, expect), largeSlab)
		if expect > 0 {
			s.size = min(s.size, expect)
		}
		s.free = make([]dense, s.size)
		adviseHuge(unsafe.Pointer(unsafe.SliceData(s.free)), uintptr(len(s.free))*unsafe.Sizeof(dense{}))
	}
	p := &s.free[0]
	s.free = s.free[1:]
	return p
}
