package edge

import (
	"strings"
	"testing"
)

func TestCancel(t *testing.T) {
	t.Run("while it rings", func(t *testing.T) {
		covers(t, "C1", "C4")
		b := setup(t)
		up, down, inv := b.ringing(b.core, b.svc, outside, served)
		b.core.send(up.cancel("Reason: SIP;cause=200;text=\"Call completed elsewhere\""))
		got := b.core.expectAll("200", "487")
		b.core.send(up.ackFailure(got[1]))
		cancel := b.svc.expect("CANCEL")
		if !strings.Contains(cancel.get("Reason"), "completed elsewhere") {
			t.Errorf("Reason = %q, want the near one", cancel.get("Reason"))
		}
		if cancel.get("Via") != inv.get("Via") || cancel.uri() != inv.uri() {
			t.Errorf("CANCEL does not fit its INVITE:\n%s", cancel.raw)
		}
		b.svc.send(down.reply(cancel, "200 OK", ""))
		b.svc.send(down.reply(inv, "487 Request Terminated", ""))
		b.svc.expect("ACK")
		if r := b.record(); r.Status != 487 || r.EndedBy != "near" || r.Tried[0].Result != "canceled" {
			t.Errorf("record = %+v", r)
		}
		b.idle()
		// Too late: it is answered and has no effect.
		b.core.send(up.cancel("X-Again: 1"))
		b.core.again(got[0])
		b.svc.quiet()
	})
	t.Run("before the far side has said anything", func(t *testing.T) {
		covers(t, "C2")
		b := setup(t)
		up := b.core.newCall(outside, served)
		b.core.send(up.request("INVITE", sdp))
		b.core.expect("100")
		inv := b.svc.expect("INVITE")
		b.core.send(up.cancel())
		got := b.core.expectAll("200", "487")
		b.core.send(up.ackFailure(got[1]))
		b.svc.quiet() // no CANCEL yet: RFC 3261 §9.1
		down := b.svc.called(inv)
		b.svc.send(down.replyAs(inv, "100 Trying", "", ""))
		cancel := b.svc.expect("CANCEL")
		b.svc.send(down.reply(cancel, "200 OK", ""))
		b.svc.send(down.reply(inv, "487 Request Terminated", ""))
		b.svc.expect("ACK")
		b.idle()
	})
	t.Run("crossing the answer", func(t *testing.T) {
		covers(t, "C3")
		b := setup(t)
		up, down, inv := b.ringing(b.core, b.svc, outside, served)
		b.core.send(up.cancel())
		got := b.core.expectAll("200", "487")
		b.core.send(up.ackFailure(got[1]))
		cancel := b.svc.expect("CANCEL")
		b.svc.send(down.reply(inv, "200 OK", sdp))
		b.svc.send(down.reply(cancel, "200 OK", ""))
		ends := b.svc.expectAll("ACK", "BYE")
		if ends[0].tag("To") != down.localTag || ends[1].tag("To") != down.localTag {
			t.Errorf("ACK and BYE do not fit the dialog:\n%s\n%s", ends[0].raw, ends[1].raw)
		}
		b.svc.send(down.reply(ends[1], "200 OK", ""))
		b.core.quiet()
		b.idle()
	})
	t.Run("after the answer", func(t *testing.T) {
		covers(t, "C4")
		b := setup(t)
		up, down := b.established(b.core, b.svc, outside, served)
		b.core.send(up.cancel())
		b.core.expect("200")
		b.svc.quiet()
		b.over(up, down)
		b.idle()
	})
}

func TestCancelRacesTheAnswer(t *testing.T) {
	covers(t, "C3")
	// Both at the same time, many times: whatever the outcome, both sides agree and nothing is left.
	b := setup(t)
	for range 200 {
		up, down, inv := b.ringing(b.core, b.svc, outside, served)
		go b.svc.send(down.reply(inv, "200 OK", sdp))
		b.core.send(up.cancel())
		var final msg
		for range 2 { // 200 to CANCEL, and the INVITE's final answer
			if m := b.core.next(patience); !strings.HasSuffix(m.get("CSeq"), "CANCEL") {
				final = m
			}
		}
		switch {
		case final.is("487"):
			b.core.send(up.ackFailure(final))
		case final.is("200"):
			up.answered(final)
			b.core.send(up.ack(1, ""))
			b.core.send(up.request("BYE", ""))
			b.core.expect("200")
		default:
			t.Fatalf("the INVITE got\n%s", final.raw)
		}
		for { // the far side ends too, by ACK and BYE; it may have seen the CANCEL
			m := b.svc.next(patience)
			if m.is("CANCEL") || m.is("BYE") {
				b.svc.send(down.reply(m, "200 OK", ""))
			}
			if m.is("BYE") {
				break
			}
			if m.raw == "" {
				t.Fatalf("the far side was not told that the call is over; the near one had %s", final.start)
			}
		}
	}
	b.idle()
}

func TestByeInAnEarlyDialog(t *testing.T) {
	covers(t, "C5", "C6")
	b := setup(t)
	up, down, inv := b.ringing(b.core, b.svc, outside, served)
	b.svc.send(down.request("BYE", "")) // not allowed
	b.svc.expect("481")
	b.core.send(up.request("BYE", ""))
	got := b.core.expectAll("200", "487")
	b.core.send(up.ackFailure(got[1]))
	cancel := b.svc.expect("CANCEL")
	b.svc.send(down.reply(cancel, "200 OK", ""))
	b.svc.send(down.reply(inv, "487 Request Terminated", ""))
	b.svc.expect("ACK")
	b.idle()
}

func TestCancelOfAReinvite(t *testing.T) {
	covers(t, "C7")
	for _, final := range []string{"487 Request Terminated", "200 OK"} {
		t.Run(final, func(t *testing.T) {
			b := setup(t)
			up, down := b.established(b.core, b.svc, outside, served)
			b.core.send(up.request("INVITE", sdp))
			b.core.expect("100")
			inv := b.svc.expect("INVITE")
			b.svc.send(down.replyAs(inv, "100 Trying", "", ""))
			b.core.send(up.cancel())
			b.core.expect("200")
			cancel := b.svc.expect("CANCEL")
			b.svc.send(down.reply(cancel, "200 OK", ""))
			b.svc.send(down.reply(inv, final, ""))
			m := b.core.expect(final)
			if final == "200 OK" {
				b.core.send(up.ack(2, ""))
			} else {
				b.core.send(up.ackFailure(m))
			}
			b.svc.expect("ACK")
			b.over(up, down) // the call continues
			b.idle()
		})
	}
}
