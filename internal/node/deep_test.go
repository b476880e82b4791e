//go:build deep

package node

// pointStep is 1: a process ends at every point.
const pointStep = 1
