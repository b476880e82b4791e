//go:build !linux

package testkit

import "testing"

// SmallDisk skips the test: it can mount on Linux only.
func SmallDisk(t testing.TB, _ int) string { t.Skip("filling a disk needs Linux"); return "" }

// FillDisk is never called: SmallDisk skips the test.
func FillDisk(testing.TB, string) (empty func()) { return nil }
