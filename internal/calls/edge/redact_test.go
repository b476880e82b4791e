package edge

import (
	"strings"
	"testing"
)

func TestNoNumberIsInTheLogInFull(t *testing.T) {
	b := setup(t)
	for _, c := range []struct{ called, status, hidden string }{{"02079460123", "484", "7946…"},
		{"+442079469999", "", "+44207946…"}} {
		up := b.core.newCall(outside, c.called)
		b.core.send(up.request("INVITE", sdp))
		for m := b.core.next(patience); ; m = b.core.next(patience) {
			if m.raw == "" {
				t.Fatal("no answer")
			}
			if !m.is("100") {
				if c.status != "" && !m.is(c.status) {
					t.Errorf("%s gets %s, want %s", c.called, m.start, c.status)
				}
				b.core.send(up.ackFailure(m))
				break
			}
		}
		r := b.record()
		for line := range strings.Lines(b.log.String()) {
			if strings.Contains(line, " call="+r.ID) && !strings.Contains(line, " call_id="+r.From.CallID) {
				t.Errorf("a line about the call has no Call-ID %s: %s", r.From.CallID, line)
			}
		}
		if log := b.log.String(); strings.Contains(log, c.called) || !strings.Contains(log, c.hidden) {
			t.Errorf("the log has %s in full, or not at all:\n%s", c.called, log)
		}
	}
	b.idle()
}
