package edge

import (
	"fmt"
	"strings"
	"testing"
)

// RFC 3261 §13.2.2.4: each 2xx of the callee is acknowledged, whatever happens to the caller's ACK.
func TestTheAnswerToAnOfferIsAcknowledgedAtOnce(t *testing.T) {
	covers(t, "A30", "A6", "D1")
	mixed := "--b\r\nContent-Type: application/sdp\r\n\r\n" + sdp + "\r\n--b--\r\n"
	for name, c := range map[string]struct{ offer, answer, lines string }{
		"offer in the INVITE":    {sdp, sdp, ""},
		"in a multipart body":    {mixed, sdp, "Content-Type: multipart/mixed;boundary=b"},
		"answered in 18x":        {sdp, "", ""},
		"no offer at all so far": {"", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			up := b.core.newCall(outside, open_)
			b.core.send(up.request("INVITE", c.offer, c.lines))
			b.core.expect("100")
			inv := b.zoom.expect("INVITE")
			down := b.zoom.called(inv)
			answer := down.reply(inv, "200 OK", c.answer)
			b.zoom.send(answer)
			ack := b.zoom.expect("ACK")
			if ack.uri() != "sip:zoom@"+b.zoom.addr() || ack.body != "" || ack.get("CSeq") != "1 ACK" {
				t.Errorf("ACK came as\n%s", ack.raw)
			}
			b.zoom.send(answer)
			b.zoom.again(ack)
			up.answered(b.core.expect("200"))
			b.core.send(up.ack(1, "not for the callee"))
			b.zoom.quiet()
			b.core.send(up.request("BYE", ""))
			b.zoom.send(down.reply(b.zoom.expect("BYE"), "200 OK", ""))
			b.idle()
		})
	}
}

func TestAnOfferInTheAnswerWaitsForTheCallersAck(t *testing.T) {
	covers(t, "A30", "D1", "A6")
	b := setup(t)
	up := b.core.newCall(outside, open_)
	b.core.send(up.request("INVITE", ""))
	b.core.expect("100")
	inv := b.zoom.expect("INVITE")
	down := b.zoom.called(inv)
	b.zoom.send(down.reply(inv, "200 OK", sdp))
	up.answered(b.core.expect("200"))
	b.zoom.send(down.reply(inv, "200 OK", sdp))
	b.zoom.quiet()
	b.core.send(up.ack(1, sdp))
	if ack := b.zoom.expect("ACK"); ack.body != sdp {
		t.Errorf("the answer in the ACK is %q", ack.body)
	}
	// A re-INVITE of the other side with its offer in the 200, and one of each side with the offer in the INVITE.
	b.reinvited(down, up, "", sdp, sdp)
	for _, ends := range [][2]*talk{{up, down}, {down, up}} {
		from, to := ends[0], ends[1]
		from.a.send(from.request("INVITE", sdp))
		from.a.expect("100")
		again := to.a.expect("INVITE")
		to.a.send(to.reply(again, "200 OK", sdp))
		to.a.expect("ACK")
		from.a.expect("200")
		from.a.send(from.ack(from.cseq, ""))
		to.a.quiet()
	}
	b.over(up, down)
	b.idle()
}

// The ACK must not go to another host than the one that answered.
func TestAnAnswerFromANameThatIsNotResolvedWaits(t *testing.T) {
	covers(t, "A30")
	b := setup(t)
	up := b.core.newCall(outside, served)
	b.core.send(up.request("INVITE", sdp))
	b.core.expect("100")
	inv := b.svc.expect("INVITE")
	down := b.svc.called(inv)
	down.contact = "<sip:svc1@behind.example>"
	b.svc.send(down.reply(inv, "200 OK", sdp))
	up.answered(b.core.expect("200"))
	b.svc.quiet()
	b.core.send(up.ack(1, ""))
	b.svc.expect("ACK")
	b.over(up, down)
	b.idle()
}

// RFC 3261 §15: the caller gets no BYE before its ACK.
func TestTheCallerGetsNoByeBeforeItsAck(t *testing.T) {
	for _, how := range []string{"the ACK arrives", "no ACK arrives", "the caller hangs up too"} {
		t.Run(how, func(t *testing.T) {
			covers(t, "A31")
			b := setup(t)
			up := b.core.newCall(outside, served)
			b.core.send(up.request("INVITE", sdp))
			b.core.expect("100")
			inv := b.svc.expect("INVITE")
			down := b.svc.called(inv)
			b.svc.send(down.reply(inv, "200 OK", sdp))
			b.svc.expect("ACK")
			up.answered(b.core.expect("200"))
			b.svc.send(down.request("BYE", "", "Reason: Q.850;cause=16"))
			b.svc.expect("200")
			if r := b.record(); r.EndedBy != "far" || r.Status != 200 {
				t.Errorf("record = %+v", r)
			}
			switch how {
			case "the ACK arrives":
				b.core.quiet()
				b.core.send(up.ack(1, ""))
			case "the caller hangs up too":
				b.core.send(up.request("BYE", ""))
				b.core.expect("200")
				b.core.send(up.ack(1, ""))
				b.core.quiet()
				b.idle()
				return
			}
			bye := b.core.expect("BYE")
			if got := bye.get("Reason"); got != "Q.850;cause=16" {
				t.Errorf("Reason = %q", got)
			}
			b.core.send(up.reply(bye, "200 OK", ""))
			b.idle()
		})
	}
}

// The callee's first 200 was lost, and it hung up: the retransmitted 200 gets ACK and BYE.
func TestACalleeThatHangsUpBeforeItsAnswerArrives(t *testing.T) {
	for _, rings := range []bool{true, false} {
		t.Run(fmt.Sprintf("rings %v", rings), func(t *testing.T) {
			covers(t, "C6")
			b := setup(t)
			up := b.core.newCall(outside, served)
			b.core.send(up.request("INVITE", sdp))
			b.core.expect("100")
			inv := b.svc.expect("INVITE")
			down := b.svc.called(inv)
			if rings {
				b.svc.send(down.reply(inv, "180 Ringing", ""))
				b.core.expect("180")
			}
			bye := down.request("BYE", "")
			b.svc.send(bye)
			b.svc.expect("481")
			b.svc.send(down.reply(inv, "200 OK", sdp))
			m := b.core.expect("480")
			if w := m.get("Warning"); !strings.Contains(w, "hung up") {
				t.Errorf("Warning = %q, want the reason", w)
			}
			b.core.send(up.ackFailure(m))
			got := b.svc.expectAll("ACK", "BYE")
			b.svc.send(down.reply(got[1], "481 Gone", ""))
			if r := b.record(); r.Status != 480 || r.EndedBy != "far" {
				t.Errorf("record = %+v", r)
			}
			b.idle()
		})
	}
}
