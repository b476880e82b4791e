package edge

import (
	"strings"
	"testing"
)

func TestACallToAService(t *testing.T) {
	b := setup(t)
	up := b.core.newCall(outside, served)
	b.core.send(up.request("INVITE", sdp, "P-Asserted-Identity: <tel:"+outside+">", "X-Odd:  kept as it came",
		"Max-Forwards: 20"))
	b.core.expect("100")
	inv := b.svc.expect("INVITE")
	if got, want := inv.get("Max-Forwards"), "19"; got != want {
		t.Errorf("Max-Forwards = %q, want %q", got, want)
	}
	if inv.get("Call-ID") == up.callID || inv.tag("From") == up.localTag {
		t.Errorf("the far leg has the near one's Call-ID or tag:\n%s", inv.raw)
	}
	if got := len(inv.all("Via")); got != 1 {
		t.Errorf("%d Via lines, want our own only", got)
	}
	if !strings.Contains(inv.raw, "\r\nX-Odd:  kept as it came\r\n") {
		t.Errorf("X-Odd did not pass byte for byte:\n%s", inv.raw)
	}
	if inv.body != sdp {
		t.Errorf("body = %q, want %q", inv.body, sdp)
	}
	if !strings.HasPrefix(inv.uri(), "sip:"+served+"@") {
		t.Errorf("Request-URI = %s, want %s at the peer", inv.uri(), served)
	}
	if c := inv.contact(); !strings.Contains(c, b.svc.edge.String()) {
		t.Errorf("Contact = %s, want our address on that side %s", c, b.svc.edge)
	}
	down := b.svc.called(inv)
	b.svc.send(down.reply(inv, "180 Ringing", ""))
	ring := b.core.expect("180")
	b.svc.send(down.reply(inv, "200 OK", sdp))
	ok := b.core.expect("200")
	if ring.tag("To") != ok.tag("To") || ok.tag("To") == "" || ok.tag("To") == down.localTag {
		t.Errorf("tags of 180 and 200 are %q and %q, want the same, ours", ring.tag("To"), ok.tag("To"))
	}
	if ok.body != sdp {
		t.Errorf("body of 200 = %q, want %q", ok.body, sdp)
	}
	up.answered(ok)
	b.core.send(up.ack(1, ""))
	ack := b.svc.expect("ACK")
	if n, m := ack.cseq(); n != 1 || m != "ACK" || ack.tag("To") != down.localTag {
		t.Errorf("ACK does not fit the far INVITE:\n%s", ack.raw)
	}
	b.over(up, down)
	r := b.record()
	if r.Status != 200 || r.EndedBy != "near" || r.Called != served || r.Caller != outside || r.Account != "acme" ||
		len(r.Tried) != 1 || r.Tried[0].Result != "answered" {
		t.Errorf("record = %+v", r)
	}
	b.idle()
}

func TestACallFromAService(t *testing.T) {
	b := setup(t)
	up := b.svc.newCall(served, outside)
	b.svc.send(up.request("INVITE", sdp))
	b.svc.expect("100")
	inv := b.core.expect("INVITE")
	if got := inv.get("X-MS-Operator-Content"); got != "c-101" {
		t.Errorf("custom header = %q, want that of the calling number", got)
	}
	down := b.core.called(inv)
	b.core.send(down.reply(inv, "200 OK", sdp))
	ok := b.svc.expect("200")
	if h := ok.get("X-MS-Operator-Content"); h != "" {
		t.Errorf("custom header %q went to the service", h)
	}
	up.answered(ok)
	b.svc.send(up.ack(1, ""))
	b.core.expect("ACK")
	b.core.send(down.request("BYE", "", "Reason: Q.850;cause=16;text=\"Normal\""))
	b.core.expect("200")
	bye := b.svc.expect("BYE")
	if got := bye.get("Reason"); !strings.Contains(got, "cause=16") {
		t.Errorf("Reason of BYE = %q, want the one that came", got)
	}
	b.svc.send(up.reply(bye, "200 OK", ""))
	r := b.record()
	if r.EndedBy != "far" || r.Cause != 16 || r.Identity != served || r.Direction != "toCore" {
		t.Errorf("record = %+v", r)
	}
	b.idle()
}
