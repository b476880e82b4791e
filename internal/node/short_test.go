//go:build !deep

package node

// pointStep is how many of the points at which a process can end are left out after each.
const pointStep = 40
