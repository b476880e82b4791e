package dialog_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/testkit/dialog"
)

func parse(t *testing.T, text string) *sip.Message {
	t.Helper()
	m, p := sip.Parse(strings.ReplaceAll(strings.TrimLeft(text, "\n"), "\n", "\r\n"), nil)
	if p != nil {
		t.Fatalf("parse: %v\n%s", p, text)
	}
	return m
}

const invite = `
INVITE sip:+442079460123@gw.example.net SIP/2.0
Via: SIP/2.0/UDP 192.0.2.2:5060;branch=z9hG4bK1
Max-Forwards: 70
Record-Route: <sip:p2.example.net;lr>, <sip:p1.example.net;lr>
Record-Route: <sip:p0.example.net;lr;x=1>
From: "Ann, A." <sip:+442079460999@core.example.net>;tag=far;x=y
To: <sip:+442079460123@gw.example.net>
Call-ID: c1@core
CSeq: 314159 INVITE
Contact: <sip:ann@192.0.2.2:5070;transport=udp>
Content-Length: 0

`

func response(status int, tag, contact string, recordRoutes ...string) string {
	s := fmt.Sprintf("SIP/2.0 %d X\nVia: SIP/2.0/UDP 192.0.2.2:5060;branch=z9hG4bK1\n", status)
	for _, r := range recordRoutes {
		s += "Record-Route: " + r + "\n"
	}
	s += "From: \"Ann, A.\" <sip:+442079460999@core.example.net>;tag=far;x=y\nTo: <sip:+442079460123@gw.example.net>"
	if tag != "" {
		s += ";tag=" + tag
	}
	s += "\nCall-ID: c1@core\nCSeq: 314159 INVITE\n"
	if contact != "" {
		s += "Contact: " + contact + "\n"
	}
	return s + "Content-Length: 0\n\n"
}

func want[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s = %v, want %v", what, got, want)
	}
}

// RFC 3261 §12.1.1 and §12.2.1.1, at the side that answers.
func TestAnswering(t *testing.T) {
	req := parse(t, invite)
	d, err := dialog.Answering(req, "mine")
	if err != nil {
		t.Fatal(err)
	}
	want(t, "ID", d.ID(), dialog.ID{CallID: "c1@core", Local: "mine", Remote: "far"})
	want(t, "target", d.Target(), "sip:ann@192.0.2.2:5070;transport=udp")
	want(t, "remote sequence number", d.RemoteSeq(), 314159)
	want(t, "confirmed", d.Confirmed(), false)
	routes := []string{"<sip:p2.example.net;lr>", "<sip:p1.example.net;lr>", "<sip:p0.example.net;lr;x=1>"}
	if got := d.Routes(); !slices.Equal(got, routes) {
		t.Errorf("route set = %q, want the Record-Route values in their order", got)
	}
	want(t, "next hop", d.NextHop(), "sip:p2.example.net;lr")
	bye := d.Request(sip.BYE)
	want(t, "BYE", bye.RequestURI(), "sip:ann@192.0.2.2:5070;transport=udp")
	want(t, "From", bye.Get(sip.KindFrom), "<sip:+442079460123@gw.example.net>;tag=mine")
	want(t, "To", bye.Get(sip.KindTo), `"Ann, A." <sip:+442079460999@core.example.net>;tag=far;x=y`)
	want(t, "CSeq", bye.Get(sip.KindCSeq), "1 BYE")
	want(t, "Call-ID", bye.CallID(), "c1@core")
	want(t, "Route lines", bye.Count(sip.KindRoute), 3)
	want(t, "first Route", bye.Get(sip.KindRoute), "<sip:p2.example.net;lr>")
	want(t, "CSeq of the next request", d.Request(sip.INFO).Get(sip.KindCSeq), "2 INFO")
}

// §12.1.2: the caller's route set is the response's in reverse order.
func TestCalling(t *testing.T) {
	req := parse(t, invite)
	d, err := dialog.Calling(req, parse(t, response(183, "ms1", "<sip:early@192.0.2.9>", "<sip:a;lr>, <sip:b;lr>")))
	if err != nil {
		t.Fatal(err)
	}
	want(t, "ID", d.ID(), dialog.ID{CallID: "c1@core", Local: "far", Remote: "ms1"})
	want(t, "confirmed", d.Confirmed(), false)
	if got := d.Routes(); !slices.Equal(got, []string{"<sip:b;lr>", "<sip:a;lr>"}) {
		t.Errorf("route set = %q, want it in reverse order", got)
	}
	// §13.2.2.4: the 2xx sets the route set and the target again.
	if err := d.Answered(parse(t, response(200, "ms1", "<sip:late@192.0.2.9>", "<sip:c;lr>"))); err != nil {
		t.Fatal(err)
	}
	want(t, "confirmed", d.Confirmed(), true)
	ack := d.Ack(314159)
	want(t, "ACK", ack.RequestURI(), "sip:late@192.0.2.9")
	want(t, "ACK's CSeq", ack.Get(sip.KindCSeq), "314159 ACK")
	want(t, "ACK's Route", ack.Get(sip.KindRoute), "<sip:c;lr>")
	want(t, "ACK's To tag", ack.ToTag(), "ms1")
	want(t, "CSeq of the next request", d.Request(sip.BYE).Get(sip.KindCSeq), "314160 BYE")
}

// §12.2.1.1: a strict router gets the request addressed to itself.
func TestStrictRouter(t *testing.T) {
	d, err := dialog.Calling(parse(t, invite),
		parse(t, response(200, "ms1", "<sip:end@192.0.2.9>", "<sip:loose;lr>", "<sip:strict.example.net>")))
	if err != nil {
		t.Fatal(err)
	}
	bye := d.Request(sip.BYE)
	want(t, "Request-URI", bye.RequestURI(), "sip:strict.example.net")
	var got []string
	for v := range bye.Values(sip.KindRoute) {
		got = append(got, v)
	}
	if !slices.Equal(got, []string{"<sip:loose;lr>", "<sip:end@192.0.2.9>"}) {
		t.Errorf("Route = %q, want the rest of the set and then the target", got)
	}
	want(t, "next hop", d.NextHop(), "sip:strict.example.net")
}

// §12.2.2: numbers must increase; ACK and CANCEL carry their INVITE's.
func TestReceive(t *testing.T) {
	d, err := dialog.Answering(parse(t, invite), "mine")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		cseq   string
		status int
	}{
		{"314158 INFO", 500},
		{"314159 INFO", 500},
		{"314159 ACK", 0},
		{"314165 INFO", 0}, // gaps are allowed
		{"314164 UPDATE", 500},
		{"314165 CANCEL", 0},
		{"314166 BYE", 0},
		{"2147483647 INFO", 0},
	} {
		method := c.cseq[strings.IndexByte(c.cseq, ' ')+1:]
		m := sip.NewRequest(sip.Method(method), "sip:x")
		m.Add(sip.KindCSeq, c.cseq)
		got := 0
		if p := d.Receive(m); p != nil {
			got = p.Status
		}
		if got != c.status {
			t.Errorf("Receive(%s) = %d, want %d", c.cseq, got, c.status)
		}
	}
}

// A dialog that we began has no remote sequence number until a request arrives (§12.1.2).
func TestFirstRemoteSequenceNumber(t *testing.T) {
	d, err := dialog.Calling(parse(t, invite), parse(t, response(200, "ms1", "<sip:end@192.0.2.9>")))
	if err != nil {
		t.Fatal(err)
	}
	m := sip.NewRequest(sip.BYE, "sip:x")
	m.Add(sip.KindCSeq, "0 BYE")
	if p := d.Receive(m); p != nil {
		t.Errorf("first request with CSeq 0: %v, want it accepted", p)
	}
	if p := d.Receive(m); p == nil {
		t.Error("the same number a second time was accepted")
	}
}

func TestRefresh(t *testing.T) {
	d, err := dialog.Answering(parse(t, invite), "mine")
	if err != nil {
		t.Fatal(err)
	}
	m := sip.NewRequest(sip.INVITE, "sip:x")
	want(t, "refresh without Contact", d.Refresh(m), false)
	m.Add(sip.KindContact, "<sip:new@192.0.2.7>")
	want(t, "refresh", d.Refresh(m), true)
	want(t, "target", d.Target(), "sip:new@192.0.2.7")
	m.Set(sip.KindContact, "<<")
	want(t, "refresh with a broken Contact", d.Refresh(m), false)
	want(t, "target", d.Target(), "sip:new@192.0.2.7")
	want(t, "routes", len(d.Routes()), 3)
}

func TestBadInput(t *testing.T) {
	req := parse(t, invite)
	noContact := parse(t, invite)
	noContact.Remove(sip.KindContact)
	if _, err := dialog.Answering(noContact, "x"); err == nil {
		t.Error("an INVITE without Contact created a dialog")
	}
	if _, err := dialog.Calling(req, parse(t, response(200, "a", ""))); err == nil {
		t.Error("a 2xx without Contact created a dialog")
	}
	if d, err := dialog.Calling(req, parse(t, response(180, "a", ""))); err != nil || d.Target() != req.RequestURI() {
		t.Errorf("a 180 without Contact: %v, want an early dialog whose target is the INVITE's Request-URI", err)
	}
	many := parse(t, invite)
	for i := range 40 {
		many.Add(sip.KindRecordRoute, fmt.Sprintf("<sip:p%d;lr>", i))
	}
	if _, err := dialog.Answering(many, "x"); err == nil {
		t.Error("a route set of 43 was accepted")
	}
	d, err := dialog.Calling(req, parse(t, response(180, "a", "<sip:first@192.0.2.9>")))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Answered(parse(t, response(200, "a", "<<"))); err == nil || d.Confirmed() ||
		d.Target() != "sip:first@192.0.2.9" {
		t.Errorf("a broken 2xx: err %v, target %s: want an error and the dialog unchanged", err, d.Target())
	}
}

// §12.1, §13.2.2: Teams rings each client with its own To tag.
func TestForks(t *testing.T) {
	f := dialog.NewForks(parse(t, invite))
	step := func(status int, tag, contact string, wantDialog, wantFresh bool) *dialog.Dialog {
		t.Helper()
		d, fresh, err := f.Response(parse(t, response(status, tag, contact)))
		if err != nil || (d != nil) != wantDialog || fresh != wantFresh {
			t.Errorf("Response(%d, tag %q) = %v, fresh %v, %v; want a dialog: %v, fresh: %v", status, tag, d, fresh,
				err, wantDialog, wantFresh)
		}
		return d
	}
	step(100, "", "", false, false)
	step(180, "", "", false, false)
	a := step(180, "a", "<sip:a@192.0.2.9>", true, true)
	b := step(180, "b", "<sip:b@192.0.2.9>", true, true)
	if step(183, "a", "<sip:a2@192.0.2.9>", true, false) != a {
		t.Error("the same tag created another dialog")
	}
	want(t, "target of a", a.Target(), "sip:a2@192.0.2.9")
	step(486, "c", "", false, false)
	if step(200, "b", "<sip:b@192.0.2.9>", true, false) != b || !b.Confirmed() || a.Confirmed() {
		t.Error("the 200 of b must confirm b only")
	}
	// A provisional response that the 2xx overtook changes nothing.
	step(183, "b", "<sip:old@192.0.2.9>", true, false)
	want(t, "target of b", b.Target(), "sip:b@192.0.2.9")
	c := step(200, "c", "<sip:c@192.0.2.9>", true, true)
	want(t, "confirmed c", c.Confirmed(), true)
	want(t, "dialogs", len(f.All()), 3)
	f.Keep(b)
	f.Release()
	want(t, "dialogs kept", len(f.All()), 1)
	if _, _, err := f.Response(parse(t, response(200, "late", "<sip:c@192.0.2.9>"))); err == nil {
		t.Error("a fork after Release created a dialog")
	}
	for i := range 20 {
		res := parse(t, response(180, fmt.Sprint(i), "<sip:x@192.0.2.9>"))
		if _, _, err := dialog.NewForks(parse(t, invite)).Response(res); err != nil {
			t.Error(err)
		}
	}
}

func TestForksAreBounded(t *testing.T) {
	f := dialog.NewForks(parse(t, invite))
	var failed int
	for i := range 40 {
		if _, _, err := f.Response(parse(t, response(180, fmt.Sprint(i), "<sip:x@192.0.2.9>"))); err != nil {
			failed++
		}
	}
	want(t, "refused forks", failed, 24)
}

func TestIDs(t *testing.T) {
	want(t, "OfResponse", dialog.OfResponse(parse(t, response(200, "theirs", ""))),
		dialog.ID{CallID: "c1@core", Local: "far", Remote: "theirs"})
	m := parse(t, invite)
	m.Set(sip.KindTo, sip.WithParam(m.Get(sip.KindTo), "tag", "ours"))
	want(t, "OfRequest", dialog.OfRequest(m), dialog.ID{CallID: "c1@core", Local: "ours", Remote: "far"})
}
