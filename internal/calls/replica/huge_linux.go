package replica

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// adviseHuge requests huge memory pages for the size bytes at p: look-ups access them at random, and with pages of 4
// KiB each access also costs a page-table walk (30 of 130 ns measured at 30 million numbers for the table alone). It is
// advice only; nothing depends on it.
func adviseHuge(p unsafe.Pointer, size uintptr) {
	const huge = 2 << 20
	skip := (huge - uintptr(p)%huge) % huge
	if skip+huge > size {
		return
	}
	b := unsafe.Slice((*byte)(unsafe.Add(p, skip)), (size-skip)/huge*huge)
	_ = unix.Madvise(b, unix.MADV_HUGEPAGE) // without them look-ups are only slower
}
