//go:build deep

package flow_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/testkit"
	"github.com/tandemgw/tandem/internal/testkit/flowtest"
)

const (
	killRounds    = 100 // how often processes are killed on each database
	interleavings = 300 // how many are drawn on each database
	steps         = 30  // of an interleaving, on average
	pointStep     = 1   // from one point at which a run is interrupted to the next
)

// TestTenThousandKeys is the conformance suite's test of many keys at the size that the sync of a large tenant has.
func TestTenThousandKeys(t *testing.T) {
	testkit.Configs(t, func(t *testing.T, c db.Config) {
		began := time.Now()
		synctest.Test(t, func(t *testing.T) {
			w := flowtest.NewWorld(t, testkit.Open(t, c))
			defer w.Close()
			w.Many(10_000)
		})
		t.Logf("10,000 keys, each run once, in %v", time.Since(began).Round(time.Millisecond))
	})
}
