package edge

import (
	"strings"
	"testing"

	"github.com/tandemgw/tandem/internal/calls/route"
)

// british are the rules of a British network that writes national and international prefixes, and six-digit local
// numbers.
func british(c *bedConfig) {
	c.core.Numbers = route.Numbers{PhoneContext: true, Prefixes: []route.Prefix{
		{Prefix: "00", Replace: "+"}, {Prefix: "0", Replace: "+44"}, {Digits: 6, Replace: "+442079"}}}
}

// refusedCall places a call that is refused.
func (b *bed) refusedCall(up *talk, status string) {
	b.t.Helper()
	b.core.send(up.request("INVITE", sdp))
	b.core.send(up.ackFailure(b.core.expect(status)))
	b.record()
}

// A number written by the rules of its peer group is the E.164 number: it is looked up and sent as that.
func TestNumbersByRuleOfThePeerGroup(t *testing.T) {
	covers(t, "I18")
	b := setup(t, british)
	for _, c := range []struct{ uri, params string }{ // HOST is our address; params stay
		{"tel:2079460101;phone-context=+44", ""},
		{"tel:460101;phone-context=+44-20-79", ""},
		{"TEL:0101;npdi;phone-context=+44207946;rn=+441632960000", ";npdi;rn=+441632960000"},
		{"sip:2079460101;phone-context=+44@HOST;user=phone", ""},
		{"sip:0101;phone-context=%2B44207946;ext=5@HOST", ";ext=5"},
		{"sip:02079460101@HOST", ""},
		{"sip:00442079460101@HOST", ""},
		{"tel:020-7946-0101;phone-context=example.com", ""},
		{"sip:460101@HOST", ""},
		{"sip:" + served + "@HOST", ""},
	} {
		up := b.core.newCall(outside, served)
		up.target = strings.ReplaceAll(c.uri, "HOST", b.core.edge.String())
		up.local = "<sip:02079460999@" + b.core.addr() + ";user=phone>"
		up.remote = "\"Called, x\" <" + up.target + ">"
		b.core.send(up.request("INVITE", sdp,
			`P-Asserted-Identity: "A, B" <sip:02079460999@core.example>, <tel:2079460999;phone-context=+44>`,
			"Diversion: <sip:020-7946-0888@core.example>;reason=unknown",
			"Remote-Party-ID: <sip:460777@core.example>;party=calling",
			"History-Info: <sip:alice@core.example>;index=1, <sip:0033140205050@core.example>;index=1.1"))
		b.core.expect("100")
		inv := b.svc.expect("INVITE")
		b.svc.send(b.svc.called(inv).reply(inv, "486 Busy Here", ""))
		b.svc.expect("ACK")
		b.core.send(up.ackFailure(b.core.expect("486")))
		if want := "sip:" + served + c.params + "@"; !strings.HasPrefix(inv.uri(), want) ||
			strings.Contains(inv.raw, "phone-context") {
			t.Errorf("%s is sent as %s, want %s…", c.uri, inv.uri(), want)
		}
		for _, w := range []string{"From: <sip:+442079460999@", "To: \"Called, x\" <sip:" + served,
			`P-Asserted-Identity: "A, B" <sip:+442079460999@core.example>, <tel:+442079460999>`,
			"Diversion: <sip:+442079460888@core.example>;reason=unknown",
			"Remote-Party-ID: <sip:+442079460777@core.example>;party=calling",
			"<sip:alice@core.example>;index=1, <sip:+33140205050@core.example>;index=1.1"} {
			if !strings.Contains(inv.raw, w) {
				t.Errorf("%s: the far INVITE lacks %q:\n%s", c.uri, w, inv.raw)
			}
		}
		if r := b.record(); r.Caller != "+442079460999" {
			t.Errorf("%s: the record's caller is %q", c.uri, r.Caller)
		}
	}
	// No rule matches, or the result is not E.164.
	for _, user := range []string{"2079460101", "0", "*0", "%23020", "12345", "1234567", "reception"} {
		up := b.core.newCall(outside, served)
		up.target = "sip:" + user + "@" + b.core.edge.String()
		b.refusedCall(up, "484")
	}
	b.idle()
}

// Without rules nothing is guessed.
func TestNumbersWithoutRules(t *testing.T) {
	covers(t, "I18")
	b := setup(t)
	for _, uri := range []string{"tel:2079460101;phone-context=+44", "sip:02079460101@HOST",
		"sip:0101;phone-context=+44207946@HOST"} {
		up := b.core.newCall(outside, served)
		up.target = strings.ReplaceAll(uri, "HOST", b.core.edge.String())
		b.refusedCall(up, "484")
	}
	up := b.core.newCall("02079460999", served)
	b.core.send(up.request("INVITE", sdp))
	b.core.expect("100")
	inv := b.svc.expect("INVITE")
	if !strings.HasPrefix(inv.get("From"), "<sip:02079460999@") {
		t.Errorf("From = %q, want the number as it came", inv.get("From"))
	}
	b.svc.send(b.svc.called(inv).reply(inv, "486 Busy Here", ""))
	b.svc.expect("ACK")
	b.core.send(up.ackFailure(b.core.expect("486")))
	b.idle()
}

// An emergency number stays as dialled whatever the rules say, and the calling number becomes E.164 beside it.
func TestNumbersLeaveEmergencyAlone(t *testing.T) {
	covers(t, "I18")
	b := setup(t, func(c *bedConfig) {
		c.service.Numbers = route.Numbers{PhoneContext: true, Prefixes: []route.Prefix{{Digits: 3, Replace: "+4420"},
			{Prefix: "0", Replace: "+44"}}}
	})
	for _, uri := range []string{"sip:911@HOST", "tel:911;phone-context=+44"} {
		up := b.svc.newCall("02079460101", "911")
		up.target = strings.ReplaceAll(uri, "HOST", b.svc.edge.String())
		b.svc.send(up.request("INVITE", sdp))
		b.svc.expect("100")
		inv := b.core.expect("INVITE")
		if !strings.HasPrefix(inv.uri(), "sip:911") || !strings.HasPrefix(inv.get("From"), "<sip:"+served) {
			t.Errorf("%s is sent as %s from %s", uri, inv.uri(), inv.get("From"))
		}
		b.core.send(b.core.called(inv).reply(inv, "486 Busy Here", ""))
		b.core.expect("ACK")
		b.svc.send(up.ackFailure(b.svc.expect("486")))
		if r := b.record(); !r.Emergency || r.Caller != served {
			t.Errorf("record: emergency %v, caller %q", r.Emergency, r.Caller)
		}
	}
	b.idle()
}

// Within a call the dialog's own addresses are kept; asserted identities follow the rules.
func TestNumbersWithinACall(t *testing.T) {
	covers(t, "I18")
	b := setup(t, british)
	up, down := b.established(b.core, b.svc, "02079460999", "02079460101")
	from := down.invite.get("From")
	b.core.send(up.request("INVITE", sdp, "P-Asserted-Identity: <sip:02079460999@core.example>"))
	b.core.expect("100")
	m := b.svc.expect("INVITE")
	if m.get("From") != from || m.get("P-Asserted-Identity") != "<sip:+442079460999@core.example>" {
		t.Errorf("the re-INVITE has From %q and P-Asserted-Identity %q", m.get("From"), m.get("P-Asserted-Identity"))
	}
	b.svc.send(down.reply(m, "200 OK", sdp))
	b.core.expect("200")
	b.core.send(up.ack(up.cseq, ""))
	b.svc.expect("ACK")
	b.svc.send(down.request("BYE", ""))
	b.svc.expect("200")
	bye := b.core.expect("BYE")
	if !strings.HasPrefix(bye.get("From"), up.remote) || !strings.HasPrefix(bye.get("To"), up.local) {
		t.Errorf("BYE to the core has From %q and To %q, want the dialog's %q and %q", bye.get("From"), bye.get("To"),
			up.remote, up.local)
	}
	b.core.send(up.reply(bye, "200 OK", ""))
	b.idle()
}
