//go:build !deep

package route_test

const deep = false
