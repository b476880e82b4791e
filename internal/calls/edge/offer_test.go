package edge

import (
	"strings"
	"testing"
)

// offerless are bodies without an offer, with their lines: a service that needs an offer would refuse or misread them.
var offerless = []struct{ name, body, lines string }{
	{"no body", "", ""},
	{"no body of type SDP", "", "Content-Type: application/sdp"},
	{"ISUP alone", "not-an-offer", "Content-Type: application/isup;version=itu-t92+"},
	{"multipart without SDP", "--b\r\nContent-Type: application/pidf+xml\r\n\r\n<presence/>\r\n--b--\r\n",
		"Content-Type: multipart/mixed;boundary=b"},
	{"SDP to be shown", sdp, "Content-Disposition: render"},
}

func TestAServiceThatNeedsAnOfferGetsNoInviteWithoutOne(t *testing.T) {
	covers(t, "I9", "D30")
	b := setup(t)
	for _, c := range offerless {
		m := b.refusal(b.core.newCall(outside, served), "488", c.body, c.lines)
		if w := m.get("Warning"); !strings.Contains(w, "without an offer") {
			t.Errorf("%s: Warning = %q, want the reason", c.name, w)
		}
		b.record()
	}
	b.svc.quiet()
	up, down := b.established(b.core, b.svc, outside, served)
	for _, c := range offerless {
		b.core.send(up.request("INVITE", c.body, c.lines))
		m := b.core.expect("488")
		if w := m.get("Warning"); !strings.Contains(w, "without an offer") {
			t.Errorf("re-INVITE, %s: Warning = %q, want the reason", c.name, w)
		}
		b.core.send(up.ackFailure(m))
	}
	b.svc.quiet()
	// The call continues, and an INVITE with an offer is relayed: alone, or beside a location.
	b.reinvited(up, down, sdp, sdp, "")
	body := "--B\r\nContent-Type: application/pidf+xml\r\n\r\n<presence/>\r\n--B\r\nContent-Type: " +
		"application/sdp\r\n\r\n" + sdp + "\r\n--B--\r\n"
	b.core.send(up.request("INVITE", body, "Content-Type: Multipart/Mixed; boundary=\"B\""))
	b.core.expect("100")
	inv := b.svc.expect("INVITE")
	if inv.body != body {
		t.Errorf("the multipart body came as\n%q", inv.body)
	}
	b.svc.send(down.reply(inv, "200 OK", sdp))
	b.core.expect("200")
	b.core.send(up.ack(up.cseq, ""))
	b.svc.expect("ACK")
	b.over(up, down)
	b.idle()
}
