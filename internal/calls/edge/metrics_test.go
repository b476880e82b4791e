package edge

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// TestCallsAreCountedByTheRuleThatDecided: the label has the names that explanations and records have.
func TestCallsAreCountedByTheRuleThatDecided(t *testing.T) {
	b := setup(t)
	b.over(b.established(b.core, b.svc, outside, served))
	for _, want := range []struct{ rule, outcome string }{
		{"provisioned-service", "answered"}, {"called-number", "rejected"},
	} {
		if want.outcome == "rejected" {
			up := b.core.newCall(outside, "nobody")
			b.core.send(up.request("INVITE", sdp))
			b.core.send(up.ackFailure(b.core.expect("4")))
		}
		r := b.record()
		n := testutil.ToFloat64(b.e.m.ended_.WithLabelValues(r.Direction, r.Service.String(), want.outcome, want.rule))
		if r.Rule != want.rule || n != 1 {
			t.Errorf("%v calls are counted as %v, and the record has the rule %s; want 1", n, want, r.Rule)
		}
	}
}
