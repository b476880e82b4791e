//go:build !linux

package replica

import "unsafe"

// adviseHuge does nothing here.
func adviseHuge(unsafe.Pointer, uintptr) {}
