//go:build race

package rig

// Race tells whether the tests run under the race detector.
const Race = true
