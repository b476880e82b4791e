//go:build !deep

package flow_test

const (
	killRounds    = 2 // how often processes are killed on each database
	interleavings = 4 // how many are drawn on each database
)
