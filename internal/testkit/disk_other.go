//go:build !linux

package testkit

import "testing"

// SmallDisk skips the test: it mounts on Linux only.
func SmallDisk(t testing.TB, _ int) string { t.Skip("a full disk needs Linux"); return "" }

// FillDisk is not reached.
func FillDisk(testing.TB, string) (empty func()) { return nil }
