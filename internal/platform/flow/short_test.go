//go:build !deep

package flow_test

const (
	killRounds    = 2  // how often processes are killed on each database
	interleavings = 10 // how many are drawn on each database
)
