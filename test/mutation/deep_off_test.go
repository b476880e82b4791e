//go:build !deep

package mutation_test

// deep tells whether this is the long suite: each mutation builds the program anew.
const deep = false
