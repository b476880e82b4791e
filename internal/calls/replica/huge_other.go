//go:build !linux

package replica

import "unsafe"

// adviseHuge does nothing on this system.
func adviseHuge(unsafe.Pointer, uintptr) {}
