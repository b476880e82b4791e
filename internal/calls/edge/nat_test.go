package edge

import "testing"

// Both ends are behind NAT and write addresses of their own networks into Contact.
func TestCallsOfPeersBehindNAT(t *testing.T) {
	covers(t, "D34")
	for _, contact := range []string{"<sip:user@0.0.0.0:5060>", "<sip:user@10.255.255.254:5076>"} {
		t.Run(contact, func(t *testing.T) {
			b := setup(t, func(c *bedConfig) { c.core.BehindNAT, c.service.BehindNAT = true, true })
			up := b.core.newCall(outside, served)
			up.contact = contact
			b.core.send(up.request("INVITE", sdp))
			b.core.expect("100")
			inv := b.svc.expect("INVITE")
			down := b.svc.called(inv)
			down.contact = contact
			b.svc.send(down.reply(inv, "180 Ringing", ""))
			b.core.expect("180")
			b.svc.send(down.reply(inv, "200 OK", sdp))
			if ack := b.svc.expect("ACK"); ack.uri() != between(contact, "<", ">") {
				t.Errorf("ACK names %s, want the Contact", ack.uri())
			}
			up.answered(b.core.expect("200"))
			b.core.send(up.ack(1, ""))
			b.reinvited(down, up, sdp, sdp, "")
			// The NAT of the calling side gives its next request another port.
			moved := newAgent(t, "core")
			moved.edge = b.core.edge
			up.a = moved
			b.reinvited(up, down, sdp, sdp, "")
			b.over(down, up)
			b.idle()
		})
	}
}
