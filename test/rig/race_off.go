//go:build !race

package rig

// Race is set if the tests run under the race detector.
const Race = false
