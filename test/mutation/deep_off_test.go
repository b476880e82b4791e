//go:build !deep

package mutation_test

// deep is set in the long suite: each mutation builds the program again.
const deep = false
