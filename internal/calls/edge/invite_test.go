package edge

import (
	"strings"
	"testing"
)

// refusal sends an INVITE that the edge itself refuses, and returns the response.
func (b *bed) refusal(c *talk, want string, body string, extra ...string) msg {
	b.t.Helper()
	c.a.send(c.request("INVITE", body, extra...))
	m := c.a.next(patience)
	if m.is("100") {
		m = c.a.next(patience)
	}
	if !m.is(want) {
		b.t.Fatalf("waited for %s and got\n%s", want, m.raw)
	}
	c.a.send(c.ackFailure(m))
	return m
}

func TestInviteGets100AtOnceAndTheFarLegItsOwnLines(t *testing.T) {
	covers(t, "I1", "I2", "D19")
	b := setup(t)
	up := b.core.newCall(outside, served)
	up.vias = []string{"Via: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKupstream"}
	b.core.send(up.request("INVITE", sdp, "Max-Forwards:", "Record-Route: <sip:"+b.core.addr()+";lr;x=1>",
		"User-Agent: pbx", "Identity: eyJ;info=<https://x>", "X-List: a", "X-List: b"))
	if trying := b.core.expect("100"); len(trying.all("Via")) != 2 {
		t.Errorf("100 has Via lines %q, want both", trying.all("Via"))
	}
	inv := b.svc.expect("INVITE")
	if got := inv.get("Max-Forwards"); got != "70" && got != "69" {
		t.Errorf("Max-Forwards = %q where none came, want RFC 3261's 70 or one less", got)
	}
	if got := inv.all("X-List"); len(got) != 2 || got[0] != "a" || got[1] != "b" {
		t.Errorf("X-List = %q, want both in order", got)
	}
	for f, want := range map[string]string{"User-Agent": "pbx", "Identity": "eyJ;info=<https://x>",
		"Content-Type": "application/sdp", "CSeq": "1 INVITE"} {
		if got := inv.get(f); got != want {
			t.Errorf("%s = %q, want %q", f, got, want)
		}
	}
	if len(inv.all("Record-Route")) != 0 || len(inv.all("Via")) != 1 {
		t.Errorf("near lines reached the far leg:\n%s", inv.raw)
	}
	down := b.svc.called(inv)
	b.svc.send(down.reply(inv, "200 OK", sdp, "Record-Route: <sip:"+b.svc.addr()+";lr;hop=2>",
		"Record-Route: <sip:"+b.svc.addr()+";lr;hop=1>"))
	ok := b.core.expect("200")
	if got := ok.all("Record-Route"); len(got) != 1 || !strings.Contains(got[0], "x=1") {
		t.Errorf("Record-Route of 200 = %q, want the near INVITE's", got)
	}
	up.answered(ok)
	b.core.send(up.ack(1, ""))
	ack := b.svc.expect("ACK")
	if got := ack.all("Route"); len(got) != 2 || !strings.Contains(got[0], "hop=1") ||
		!strings.Contains(got[1], "hop=2") {
		t.Errorf("Route of ACK = %q, want the far Record-Route reversed", got)
	}
	if got, want := ack.uri(), between(down.contact, "<", ">"); got != want {
		t.Errorf("Request-URI of ACK = %s, want the far Contact %s", got, want)
	}
	b.svc.send(down.request("BYE", ""))
	b.svc.expect("200")
	bye := b.core.expect("BYE")
	if got := bye.all("Route"); len(got) != 1 || !strings.Contains(got[0], "x=1") {
		t.Errorf("Route of BYE = %q, want the near Record-Route", got)
	}
	b.core.send(up.reply(bye, "200 OK", ""))
	b.idle()
}

func TestStrictRouters(t *testing.T) {
	covers(t, "D19")
	b := setup(t)
	up := b.core.newCall(outside, served)
	b.core.send(up.request("INVITE", sdp))
	b.core.expect("100")
	inv := b.svc.expect("INVITE")
	down := b.svc.called(inv)
	b.svc.send(down.reply(inv, "200 OK", sdp, "Record-Route: <sip:strict@"+b.svc.addr()+">"))
	up.answered(b.core.expect("200"))
	b.core.send(up.ack(1, ""))
	ack := b.svc.expect("ACK")
	if got := ack.uri(); got != "sip:strict@"+b.svc.addr() {
		t.Errorf("Request-URI = %s, want the strict router's", got)
	}
	if got := ack.get("Route"); got != down.contact {
		t.Errorf("Route = %s, want the target %s", got, down.contact)
	}
	b.over(up, down)
	b.idle()
}

func TestInvitesThatAreRefused(t *testing.T) {
	b := setup(t)
	call := func() *talk { return b.core.newCall(outside, served) }
	t.Run("no hops left", func(t *testing.T) {
		covers(t, "I3")
		b.refusal(call(), "483", sdp, "Max-Forwards: 0")
	})
	t.Run("an extension that does not pass", func(t *testing.T) {
		covers(t, "I7")
		m := b.refusal(call(), "420", sdp, "Require: 100rel, frobnicate, gruu")
		if got := m.get("Unsupported"); got != "frobnicate, gruu" {
			t.Errorf("Unsupported = %q, want those two", got)
		}
	})
	t.Run("by the decision", func(t *testing.T) {
		covers(t, "I8")
		m := b.refusal(b.core.newCall(outside, "+442079469999"), "404", sdp)
		if w := m.get("Warning"); !strings.HasPrefix(w, "399 ") || !strings.Contains(w, "+442079469999") {
			t.Errorf("Warning = %q, want the reason", w)
		}
		if r := b.record(); r.Status != 404 || r.Direction != "rejected" || r.Called != "+442079469999" ||
			!strings.Contains(r.Reason, "+442079469999") {
			t.Errorf("record = %+v, want the refusal with the whole number", r)
		}
		if log := b.log.String(); !strings.Contains(log, "refused") || strings.Contains(log, "+442079469999") ||
			!strings.Contains(log, "+44207946") {
			t.Errorf("the log does not say why, or shows the number:\n%s", log)
		}
	})
	t.Run("no offer towards a service that needs one", func(t *testing.T) {
		covers(t, "I9")
		m := b.refusal(call(), "488", "")
		if w := m.get("Warning"); !strings.Contains(w, "without an offer") {
			t.Errorf("Warning = %q", w)
		}
		b.record()
	})
	t.Run("Replaces", func(t *testing.T) {
		covers(t, "I11")
		b.refusal(call(), "501", sdp, "Replaces: a@b;to-tag=1;from-tag=2")
	})
	b.svc.quiet()
	b.idle()
}

func TestALoopIsFoundAndASpiralIsNot(t *testing.T) {
	covers(t, "I4", "I5")
	b := setup(t)
	// From the service to the core, which sends the same INVITE back.
	call := func() (up *talk, inv msg, back func(number string) string) {
		up = b.svc.newCall(served, outside)
		b.svc.send(up.request("INVITE", sdp))
		b.svc.expect("100")
		inv = b.core.expect("INVITE")
		return up, inv, func(number string) string {
			s := strings.Replace(inv.raw, inv.uri(), "sip:"+number+"@"+b.core.edge.String(), 1)
			return strings.Replace(s, "\r\nVia: ", "\r\nVia: SIP/2.0/UDP "+b.core.addr()+";branch="+
				unique("z9hG4bK")+"\r\nVia: ", 1)
		}
	}
	up, inv, back := call()
	b.core.send(back(outside))
	m := b.core.expect("482")
	if !strings.Contains(m.get("Warning"), "routing loop") {
		t.Errorf("Warning = %q", m.get("Warning"))
	}
	b.core.send(b.core.called(inv).reply(inv, "486 Busy Here", ""))
	b.core.expect("ACK")
	b.svc.send(up.ackFailure(b.svc.expect("486")))

	up, inv, back = call()
	b.core.send(back(open_)) // forwarded to another number
	b.core.expect("100")
	inv2 := b.zoom.expect("INVITE")
	b.zoom.send(b.zoom.called(inv2).reply(inv2, "486 Busy Here", ""))
	b.zoom.expect("ACK")
	b.core.expect("486")
	b.core.send(b.core.called(inv).reply(inv, "486 Busy Here", ""))
	b.core.expect("ACK")
	b.svc.send(up.ackFailure(b.svc.expect("486")))
	b.idle()
}

func TestTheSameRequestTwice(t *testing.T) {
	covers(t, "I6", "I15")
	b := setup(t)
	up := b.core.newCall(outside, served)
	text := up.request("INVITE", sdp)
	b.core.send(text)
	trying := b.core.expect("100")
	inv := b.svc.expect("INVITE")
	b.core.send(text) // a retransmission
	b.core.again(trying)
	b.core.send(up.requestAs("INVITE", 1, "z9hG4bKotherway", sdp)) // the same by another path
	b.core.expect("482")
	down := b.svc.called(inv)
	b.svc.send(down.reply(inv, "180 Ringing", ""))
	ring := b.core.expect("180")
	b.core.send(text)
	b.core.again(ring)
	b.svc.send(down.reply(inv, "486 Busy Here", ""))
	b.svc.expect("ACK")
	up.inviteText = text
	b.core.send(up.ackFailure(b.core.expect("486")))
	b.idle()
	b.svc.quiet() // the far side got one INVITE
}

func TestADelayedOffer(t *testing.T) {
	covers(t, "I10", "D1")
	b := setup(t)
	up := b.core.newCall(outside, open_)
	b.core.send(up.request("INVITE", ""))
	b.core.expect("100")
	inv := b.zoom.expect("INVITE")
	if inv.body != "" {
		t.Errorf("the far INVITE has a body: %q", inv.body)
	}
	down := b.zoom.called(inv)
	b.zoom.send(down.reply(inv, "200 OK", sdp))
	ok := b.core.expect("200")
	if ok.body != sdp {
		t.Errorf("the offer in the 200 is %q", ok.body)
	}
	up.answered(ok)
	answer := strings.Replace(sdp, "sendrecv", "recvonly", 1)
	b.core.send(up.ack(1, answer))
	ack := b.zoom.expect("ACK")
	if ack.body != answer || ack.get("Content-Type") != "application/sdp" {
		t.Errorf("the answer in the ACK is %q of type %q", ack.body, ack.get("Content-Type"))
	}
	b.over(up, down)
	b.idle()
}

func TestFormsOfTheCalledNumber(t *testing.T) {
	covers(t, "I12")
	b := setup(t)
	for _, c := range []struct{ uri, keeps string }{
		{"sip:" + served + "@" + "gw.example.net;user=phone", served},
		{"tel:" + served, served},
		{"sip:" + served + ";rn=+442079460000;npdi@gw.example.net", served + ";rn=+442079460000;npdi@"},
		{"tel:" + served + ";ext=12;tgrp=tg1;trunk-context=example.net",
			served + ";ext=12;tgrp=tg1;trunk-context=example.net@"},
		{"sip:+44-20-7946-0101@gw.example.net", served},
	} {
		up := b.core.newCall(outside, served)
		up.target = c.uri
		b.core.send(up.request("INVITE", sdp))
		b.core.expect("100")
		inv := b.svc.expect("INVITE")
		if !strings.HasPrefix(inv.uri(), "sip:"+c.keeps) {
			t.Errorf("%s went on as %s, want it to begin with sip:%s", c.uri, inv.uri(), c.keeps)
		}
		b.svc.send(b.svc.called(inv).reply(inv, "486 Busy Here", ""))
		b.svc.expect("ACK")
		b.core.send(up.ackFailure(b.core.expect("486")))
		if r := b.record(); r.Called != served {
			t.Errorf("%s was looked up as %s, want %s", c.uri, r.Called, served)
		}
	}
	b.idle()
}

func TestNoPeerIsConfigured(t *testing.T) {
	covers(t, "I13")
	b := setup(t, func(c *bedConfig) { c.peers = 0 })
	m := b.refusal(b.core.newCall(outside, served), "503", sdp)
	if w := m.get("Warning"); !strings.Contains(w, "teams has no peer") {
		t.Errorf("Warning = %q", w)
	}
	b.idle()
}

func TestOtherBodiesPass(t *testing.T) {
	covers(t, "I14")
	b := setup(t)
	body := "--b1\r\nContent-Type: application/sdp\r\n\r\n" + sdp + "\r\n--b1\r\nContent-Type: " +
		"application/pidf+xml\r\nContent-ID: <loc@x>\r\n\r\n<presence/>\r\n--b1--\r\n"
	up := b.svc.newCall(served, "911")
	b.svc.send(up.request("INVITE", body, "Content-Type: multipart/mixed;boundary=b1", "Geolocation: <cid:loc@x>",
		"MIME-Version: 1.0"))
	b.svc.expect("100")
	inv := b.core.expect("INVITE")
	if inv.body != body || inv.get("Content-Type") != "multipart/mixed;boundary=b1" ||
		inv.get("Geolocation") != "<cid:loc@x>" || inv.get("MIME-Version") != "1.0" {
		t.Errorf("the emergency call's body or its lines changed:\n%s", inv.raw)
	}
	b.core.send(b.core.called(inv).reply(inv, "486 Busy Here", ""))
	b.core.expect("ACK")
	b.svc.send(up.ackFailure(b.svc.expect("486")))
	if r := b.record(); !r.Emergency {
		t.Errorf("record does not mark the emergency call: %+v", r)
	}
	b.idle()
}
