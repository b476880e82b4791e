//go:build !linux

package replica

// adviseHuge does nothing here.
func adviseHuge([]slot) {}
