//go:build deep

package update_test

const deep = true
