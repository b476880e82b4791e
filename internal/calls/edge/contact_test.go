package edge

import (
	"strings"
	"testing"
)

// Contact in the forms that RFC 3261 §20.10 allows, on both legs: the call goes through, and what goes back has the
// URI of Contact as its Request-URI.
func TestContactFormsOnBothLegs(t *testing.T) {
	covers(t, "D18")
	b := setup(t)
	for _, c := range []struct{ contact, uri string }{ // ADDR is the agent's address
		{`sip:p1@ADDR;+g.3gpp.accesstype="cellular";+sip.instance="<urn:gsma:imei:35548888-144050-0>"`, "sip:p1@ADDR"},
		{`sip:ADDR;x="a,b;<c>"`, "sip:ADDR"},
		{`"A, <B>" <sip:p1@ADDR>;q=1, <sip:other@192.0.2.1>`, "sip:p1@ADDR"},
		{`<sip:p1@ADDR;method=INVITE?Subject=x>`, "sip:p1@ADDR"},
		{`<sip:p#1@ADDR>`, "sip:p%231@ADDR"},
	} {
		fill := func(s string, a *agent) string { return strings.ReplaceAll(s, "ADDR", a.addr()) }
		up := b.core.newCall(outside, served)
		up.contact = fill(c.contact, b.core)
		b.core.send(up.request("INVITE", sdp))
		b.core.expect("100")
		inv := b.svc.expect("INVITE")
		down := b.svc.called(inv)
		down.contact = fill(c.contact, b.svc)
		b.svc.send(down.reply(inv, "200 OK", sdp))
		up.answered(b.core.expect("200"))
		b.core.send(up.ack(1, ""))
		if m := b.svc.expect("ACK"); m.uri() != fill(c.uri, b.svc) {
			t.Errorf("Contact %s in the 2xx: ACK to %s, want %s", c.contact, m.uri(), fill(c.uri, b.svc))
		}
		b.svc.send(down.request("BYE", ""))
		b.svc.expect("200")
		m := b.core.expect("BYE")
		if m.uri() != fill(c.uri, b.core) {
			t.Errorf("Contact %s in the INVITE: BYE to %s, want %s", c.contact, m.uri(), fill(c.uri, b.core))
		}
		b.core.send(up.reply(m, "200 OK", ""))
		b.idle()
	}
}

// unusable are Contact lines, or none at all, that give no Request-URI.
var unusable = []string{"Contact:", "Contact: *", "Contact: <tel:+442079460100>", "Contact: <http://h.example/>",
	"Contact: <sip:>", `Contact: "A <sip:a@h.example>`, "Contact: <sip:a b@h.example>"}

// A 2xx whose Contact cannot be a Request-URI: the call continues, and requests keep the INVITE's Request-URI and go
// where it went.
func TestAnswerWithoutUsableContact(t *testing.T) {
	covers(t, "A20")
	b := setup(t)
	for _, contact := range unusable {
		up := b.core.newCall(outside, served)
		b.core.send(up.request("INVITE", sdp))
		b.core.expect("100")
		inv := b.svc.expect("INVITE")
		down := b.svc.called(inv)
		b.svc.send(down.reply(inv, "200 OK", sdp, contact))
		up.answered(b.core.expect("200"))
		b.core.send(up.ack(1, ""))
		if m := b.svc.expect("ACK"); m.uri() != inv.uri() {
			t.Errorf("%s: ACK to %q, want the INVITE's %q", contact, m.uri(), inv.uri())
		}
		b.core.send(up.request("BYE", ""))
		b.core.expect("200")
		m := b.svc.expect("BYE")
		if m.uri() != inv.uri() {
			t.Errorf("%s: BYE to %q, want the INVITE's %q", contact, m.uri(), inv.uri())
		}
		b.svc.send(down.reply(m, "200 OK", ""))
		b.idle()
	}
	if n := strings.Count(b.log.String(), "response without a usable Contact"); n != len(unusable) {
		t.Errorf("%d log lines name the Contact, want %d", n, len(unusable))
	}
}

// A PRACK within an early dialog whose 1xx had no usable Contact goes where the INVITE went.
func TestPrackWithoutUsableContact(t *testing.T) {
	covers(t, "A20")
	b := setup(t)
	up := b.core.newCall(outside, served)
	b.core.send(up.request("INVITE", sdp))
	b.core.expect("100")
	inv := b.svc.expect("INVITE")
	down := b.svc.called(inv)
	b.svc.send(down.reply(inv, "183 Session Progress", sdp, "Contact: *", "Require: 100rel", "RSeq: 1"))
	up.answered(b.core.expect("183"))
	b.core.send(up.request("PRACK", "", "RAck: 1 1 INVITE"))
	m := b.svc.expect("PRACK")
	if m.uri() != inv.uri() {
		t.Errorf("PRACK to %q, want the INVITE's %q", m.uri(), inv.uri())
	}
	b.svc.send(down.reply(m, "200 OK", ""))
	b.core.expect("200")
	b.core.send(up.cancel())
	b.core.expectAll("200", "487")
	b.core.send(up.ackFailure(parseMsg("SIP/2.0 487 x\r\nTo: <sip:x@y>;tag=" + up.remoteTag + "\r\n\r\n")))
	c := b.svc.expect("CANCEL")
	b.svc.send(down.reply(c, "200 OK", ""))
	b.svc.send(down.reply(inv, "487 Request Terminated", ""))
	b.svc.expect("ACK")
	b.idle()
}

// A 2xx that is no longer wanted gets ACK and BYE, whatever its Contact.
func TestUnwantedAnswerWithoutUsableContact(t *testing.T) {
	covers(t, "A20", "C3")
	b := setup(t)
	for _, contact := range unusable {
		up := b.core.newCall(outside, served)
		b.core.send(up.request("INVITE", sdp))
		b.core.expect("100")
		inv := b.svc.expect("INVITE")
		down := b.svc.called(inv)
		b.core.send(up.cancel())
		final := b.core.expectAll("200", "487")[1]
		b.core.send(up.ackFailure(final))
		b.svc.send(down.reply(inv, "200 OK", sdp, contact))
		for _, m := range b.svc.expectAll("ACK", "BYE") {
			if m.uri() != inv.uri() && !strings.HasPrefix(m.uri(), "sip:"+served+"@") {
				t.Errorf("%s: %s, want the Request-URI to be the INVITE's or To's", contact, m.start)
			}
			if m.is("BYE") {
				b.svc.send(down.reply(m, "200 OK", ""))
			}
		}
		b.idle()
	}
}

// A target refresh whose Contact cannot be a Request-URI leaves the target unchanged; in a request it is refused (RFC
// 3261 §8.1.1.8).
func TestTargetRefreshWithoutUsableContact(t *testing.T) {
	covers(t, "D24")
	b := setup(t)
	for _, contact := range unusable[1:] {
		up, down := b.established(b.core, b.svc, outside, served)
		for _, method := range []string{"INVITE", "UPDATE"} {
			b.core.send(up.request(method, sdp, contact))
			m := b.core.expect("400")
			if method == "INVITE" {
				b.core.send(up.ackFailure(m))
			}
			if !strings.Contains(m.get("Warning"), "Contact") {
				t.Errorf("%s with %s: 400 with Warning %q, want it to name Contact", method, contact, m.get("Warning"))
			}
			b.core.send(up.request(method, sdp))
			if method == "INVITE" {
				b.core.expect("100")
			}
			m = b.svc.expect(method)
			b.svc.send(down.reply(m, "200 OK", sdp, contact))
			b.core.expect("200")
			if method == "INVITE" {
				b.core.send(up.ack(up.cseq, ""))
				b.svc.expect("ACK")
			}
		}
		b.core.send(up.request("INFO", ""))
		m := b.svc.expect("INFO")
		if want := "sip:" + b.svc.name + "@" + b.svc.addr(); m.uri() != want {
			t.Errorf("after 2xx with %s: INFO to %q, want the old target %q", contact, m.uri(), want)
		}
		b.svc.send(down.reply(m, "200 OK", ""))
		b.core.expect("200")
		b.over(up, down)
		b.idle()
	}
}

// A malformed Record-Route in a response does not lead to a malformed Route.
func TestRouteSetIsWellFormed(t *testing.T) {
	covers(t, "D19")
	b := setup(t)
	up := b.core.newCall(outside, served)
	b.core.send(up.request("INVITE", sdp))
	b.core.expect("100")
	inv := b.svc.expect("INVITE")
	down := b.svc.called(inv)
	rr := []string{"Record-Route: <sip:p#2@" + b.svc.addr() + ";lr>", "Record-Route: sip:" + b.svc.addr() + ";lr",
		`Record-Route: "x <sip:h.example>`, "Record-Route: <tel:+1>"}
	b.svc.send(down.reply(inv, "200 OK", sdp, rr...))
	up.answered(b.core.expect("200"))
	b.core.send(up.ack(1, ""))
	want := "<sip:" + b.svc.addr() + ";lr> <sip:p%232@" + b.svc.addr() + ";lr>"
	if got := strings.Join(b.svc.expect("ACK").all("Route"), " "); got != want {
		t.Errorf("Route = %q, want %q", got, want)
	}
	down.routes = nil
	b.over(up, down)
	b.idle()
}

// Teams and PBXs send "#" unescaped; it is sent as %23 in every URI, and responses repeat it as received.
func TestHashLeavesEscaped(t *testing.T) {
	covers(t, "I16")
	b := setup(t)
	up := b.svc.newCall(served, "#123")
	b.svc.send(up.request("INVITE", sdp, "P-Asserted-Identity: <sip:#5@x.example>, <tel:*6#;phone-context=+44>",
		"Diversion: sip:#7@x.example;reason=unknown;note=\"#\"",
		"History-Info: <sip:#8@x.example>;index=1", "Refer-To: <sip:#9@x.example>", "Subject: room #1"))
	b.svc.expect("100")
	inv := b.core.expect("INVITE")
	for _, w := range []string{"INVITE sip:%23123@", "To: <sip:%23123@",
		"<sip:%235@x.example>, <tel:*6%23;phone-context=+44>",
		"Diversion: sip:%237@x.example;reason=unknown;note=\"#\"",
		"<sip:%238@x.example>", "<sip:%239@x.example>", "Subject: room #1"} {
		if !strings.Contains(inv.raw, w) {
			t.Errorf("the far INVITE lacks %q:\n%s", w, inv.raw)
		}
	}
	down := b.core.called(inv)
	b.core.send(down.reply(inv, "200 OK", sdp))
	ok := b.svc.expect("200")
	if !strings.HasPrefix(ok.get("To"), up.remote) {
		t.Errorf("To of the answer is %q, want what came: %q", ok.get("To"), up.remote)
	}
	up.answered(ok)
	b.svc.send(up.ack(1, ""))
	b.core.expect("ACK")
	b.core.send(down.request("BYE", ""))
	b.core.expect("200")
	bye := b.svc.expect("BYE")
	if !strings.Contains(bye.get("From"), "sip:%23123@") {
		t.Errorf("From of our BYE is %q, want the URI with %%23", bye.get("From"))
	}
	b.svc.send(up.reply(bye, "200 OK", ""))
	b.idle()
}

// A called number with an escaped blank is another number (RFC 3261 §19.1.4, RFC 3966 §3).
func TestEscapedBlankInTheCalledNumber(t *testing.T) {
	covers(t, "I17")
	b := setup(t)
	for _, c := range []string{served + "%20", "%20" + served, served[:5] + "%20" + served[5:], served + "%09",
		served + "%00", served + "%C2%A0", served + "%20;npdi"} {
		up := b.core.newCall(outside, served)
		up.target = "sip:" + c + "@" + b.core.edge.String()
		b.core.send(up.request("INVITE", sdp))
		b.core.send(up.ackFailure(b.core.expect("484")))
		b.record()
	}
	up := b.core.newCall(outside, served)
	up.target = "tel:" + served + "%20"
	b.core.send(up.request("INVITE", sdp))
	b.core.send(up.ackFailure(b.core.expect("484")))
	b.svc.quiet()
	b.idle()
}
