//go:build !deep

package flow_test

const (
	killRounds    = 1  // how often processes are killed on each database
	interleavings = 1  // how many are drawn on each database
	steps         = 10 // of an interleaving, on average
	pointStep     = 6  // from one point at which a run is interrupted to the next
)
