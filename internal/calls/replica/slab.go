package replica

import "unsafe"

// slab allocates dense pages side by side while an index is loaded, so that huge memory pages can back them: without,
// each look-up among 100 million numbers costs a page-table walk.
//
// A page in use keeps its whole slab alive. In the worst case, when changes have replaced all but one page of each
// slab, the index takes twice the memory until the process restarts: acceptable with four bytes per number. Pages built
// by changes are allocated one by one.
type slab struct {
	free []dense
	size int // of the next slab, in pages
}

const (
	firstSlab = 64
	largeSlab = 32 << 20 / (4 * pageSize) // 32 MiB: most of it can be huge memory pages, wherever it begins
)

// page returns a page of zeros. expect is the number of pages that are likely to follow; 0 if unknown.
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
