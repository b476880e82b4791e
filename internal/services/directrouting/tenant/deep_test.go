//go:build deep

package tenant_test

// every request is disturbed.
const every = 1
