package edge

import (
	"strings"
	"testing"
)

func TestNumbersAreRedactedInEveryForm(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                  "",
		"999":               "999",
		"+442079460123":     "+44207946…",
		"02079460123":       "0207946…",
		"020-7946-0123":     "020-7946-…",
		"+1 (555) 123-4567": "+1 (555) 123-…",
		"00442079460123":    "0044207946…",
		"*67#5551234":       "*67#555…",
		"+012345678":        "+01234…",
	} {
		if got := redacted(in); got != want {
			t.Errorf("redacted(%q) = %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{
		"":                               "",
		"02079460123 is no E.164 number": "0207946… is no E.164 number",
		"+442079460123 is not provisioned, nor is 5551234.":   "+44207946… is not provisioned, nor is 555….",
		"no peer of core-a at 192.0.2.1:5060 took 112 in 32s": "no peer of core-a at 192.0.2.1:5060 took 112 in 32s",
		"node n12345678 +": "node n12345678 +",
	} {
		if got := redactText(in); got != want {
			t.Errorf("redactText(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestNoNumberIsInTheLogInFull(t *testing.T) {
	b := setup(t)
	for _, c := range []struct{ called, status, hidden string }{{"02079460123", "484", "7946…"}, {"+442079469999", "", "+44207946…"}} {
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
		b.record()
		if log := b.log.String(); strings.Contains(log, c.called) || !strings.Contains(log, c.hidden) {
			t.Errorf("the log has %s in full, or not at all:\n%s", c.called, log)
		}
	}
	b.idle()
}
