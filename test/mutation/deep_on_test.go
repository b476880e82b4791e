//go:build deep

package mutation_test

const deep = true
