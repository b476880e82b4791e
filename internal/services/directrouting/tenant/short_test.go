//go:build !deep

package tenant_test

// every so many requests one is disturbed.
const every = 900
