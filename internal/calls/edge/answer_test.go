package edge

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// ringing places a call that rings, and returns both ends and the far INVITE.
func (b *bed) ringing(from, to *agent, caller, called string, extra ...string) (up, down *talk, inv msg) {
	b.t.Helper()
	up = from.newCall(caller, called)
	from.send(up.request("INVITE", sdp, extra...))
	from.expect("100")
	inv = to.expect("INVITE")
	down = to.called(inv)
	to.send(down.reply(inv, "180 Ringing", ""))
	up.answered(from.expect("180"))
	return up, down, inv
}

func TestProvisionalAnswersPassInOrder(t *testing.T) {
	covers(t, "A1", "A2")
	b := setup(t)
	up := b.core.newCall(outside, served)
	b.core.send(up.request("INVITE", sdp))
	b.core.expect("100")
	inv := b.svc.expect("INVITE")
	down := b.svc.called(inv)
	b.svc.send(down.replyAs(inv, "100 Trying", "", "")) // goes no further
	b.svc.send(down.reply(inv, "181 Call Is Being Forwarded", "", "X-Note: 1"))
	b.svc.send(down.reply(inv, "183 Session Progress", sdp, "P-Early-Media: sendrecv"))
	b.svc.send(down.reply(inv, "180 Ringing", "", "Alert-Info: <http://x/y>"))
	b.svc.send(down.reply(inv, "200 OK", sdp))
	tag := ""
	for _, want := range []struct{ status, field, value, body string }{
		{"181", "X-Note", "1", ""}, {"183", "P-Early-Media", "sendrecv", sdp},
		{"180", "Alert-Info", "<http://x/y>", ""}, {"200", "Content-Type", "application/sdp", sdp},
	} {
		m := b.core.expect(want.status)
		if m.get(want.field) != want.value || m.body != want.body {
			t.Errorf("%s came as\n%s", want.status, m.raw)
		}
		if tag != "" && m.tag("To") != tag {
			t.Errorf("%s has To tag %q, want %q as before", want.status, m.tag("To"), tag)
		}
		tag = m.tag("To")
		up.answered(m)
	}
	b.core.send(up.ack(1, ""))
	b.svc.expect("ACK")
	b.over(up, down)
	b.idle()
}

func TestForkedEarlyDialogsKeepTheirTags(t *testing.T) {
	covers(t, "A3", "A7", "A5")
	b := setup(t)
	up := b.core.newCall(outside, served)
	b.core.send(up.request("INVITE", sdp))
	b.core.expect("100")
	inv := b.svc.expect("INVITE")
	down := b.svc.called(inv)
	tags := map[string]string{}
	for i := range 6 {
		fork := fmt.Sprintf("fork%d", i%3)
		b.svc.send(down.replyAs(inv, "180 Ringing", fork, "", fmt.Sprintf("X-Round: %d", i)))
		m := b.core.expect("180")
		tag := m.tag("To")
		if old, ok := tags[fork]; ok && old != tag {
			t.Errorf("%s is %s near us, and was %s", fork, tag, old)
		}
		for f, other := range tags {
			if f != fork && other == tag {
				t.Errorf("%s and %s have the same near tag", f, fork)
			}
		}
		tags[fork] = tag
	}
	b.svc.send(down.replyAs(inv, "200 OK", "fork1", sdp))
	ok := b.core.expect("200")
	if ok.tag("To") != tags["fork1"] {
		t.Errorf("the 200 has tag %s, want that of its fork %s", ok.tag("To"), tags["fork1"])
	}
	up.answered(ok)
	b.core.send(up.ack(1, ""))
	if ack := b.svc.expect("ACK"); ack.tag("To") != "fork1" {
		t.Errorf("ACK went to %s, want fork1", ack.tag("To"))
	}
	// Another phone was picked up at the same moment.
	b.svc.send(down.replyAs(inv, "200 OK", "fork2", sdp))
	got := b.svc.expectAll("ACK", "BYE")
	for _, m := range got {
		if m.tag("To") != "fork2" {
			t.Errorf("%s went to %s, want fork2", m.start, m.tag("To"))
		}
	}
	b.svc.send(down.reply(got[1], "200 OK", ""))
	b.core.quiet()
	down.localTag = "fork1"
	b.over(down, up)
	b.idle()
}

func TestManyForksAreBounded(t *testing.T) {
	covers(t, "A3")
	b := setup(t)
	up := b.core.newCall(outside, served)
	b.core.send(up.request("INVITE", sdp))
	b.core.expect("100")
	inv := b.svc.expect("INVITE")
	down := b.svc.called(inv)
	for i := range maxForks + 5 {
		b.svc.send(down.replyAs(inv, "180 Ringing", fmt.Sprintf("f%d", i), ""))
	}
	b.svc.send(down.replyAs(inv, "486 Busy Here", "f0", ""))
	b.svc.expect("ACK")
	for range maxForks {
		b.core.expect("180")
	}
	b.core.send(up.ackFailure(b.core.expect("486")))
	b.idle()
}

func TestReliableProvisionalAnswersGoEndToEnd(t *testing.T) {
	covers(t, "A4", "D10", "D9")
	b := setup(t)
	up := b.core.newCall(outside, served)
	b.core.send(up.request("INVITE", sdp, "Supported: 100rel", "CSeq: 41 INVITE"))
	b.core.expect("100")
	inv := b.svc.expect("INVITE")
	if got := inv.get("Supported"); got != "100rel" {
		t.Errorf("Supported = %q, want the near side's", got)
	}
	down := b.svc.called(inv)
	progress := down.reply(inv, "183 Session Progress", sdp, "Require: 100rel", "RSeq: 900")
	b.svc.send(progress)
	m := b.core.expect("183")
	if m.get("RSeq") != "900" || m.get("Require") != "100rel" {
		t.Errorf("the reliable 183 came as\n%s", m.raw)
	}
	b.svc.send(progress) // its PRACK is late: retransmitted end to end
	b.core.again(m)
	up.answered(m)
	up.cseq = 41
	b.core.send(up.request("PRACK", "", "RAck: 900 41 INVITE"))
	prack := b.svc.expect("PRACK")
	if got := prack.get("RAck"); got != "900 1 INVITE" {
		t.Errorf("RAck = %q, want the far leg's CSeq in it", got)
	}
	if prack.tag("To") != down.localTag {
		t.Errorf("PRACK went to tag %s, want %s", prack.tag("To"), down.localTag)
	}
	b.svc.send(down.reply(prack, "200 OK", ""))
	if ok := b.core.expect("200"); !strings.HasSuffix(ok.get("CSeq"), "PRACK") {
		t.Errorf("200 is for %s", ok.get("CSeq"))
	}
	// An UPDATE in the early dialog, each way.
	b.core.send(up.request("UPDATE", sdp))
	upd := b.svc.expect("UPDATE")
	b.svc.send(down.reply(upd, "200 OK", sdp))
	if ok := b.core.expect("200"); ok.body != sdp {
		t.Errorf("body of the 200 to UPDATE = %q", ok.body)
	}
	down.remoteTag = inv.tag("From")
	b.svc.send(down.request("UPDATE", sdp))
	back := b.core.expect("UPDATE")
	if back.tag("From") != m.tag("To") {
		t.Errorf("UPDATE came from tag %s, want that of the early dialog %s", back.tag("From"), m.tag("To"))
	}
	b.core.send(up.reply(back, "200 OK", sdp))
	b.svc.expect("200")
	b.svc.send(down.reply(inv, "200 OK", sdp))
	up.answered(b.core.expect("200"))
	b.core.send(up.ack(41, ""))
	b.svc.expect("ACK")
	b.over(up, down)
	b.idle()
}

func TestA2xxIsRepeatedUntilItsAck(t *testing.T) {
	covers(t, "A5", "A6")
	b := setup(t)
	up := b.core.newCall(outside, served)
	b.core.send(up.request("INVITE", sdp))
	b.core.expect("100")
	inv := b.svc.expect("INVITE")
	down := b.svc.called(inv)
	answer := down.reply(inv, "200 OK", sdp)
	b.svc.send(answer)
	first := b.core.expect("200")
	b.core.again(first)
	ack := b.svc.expect("ACK")
	up.answered(first)
	b.core.send(up.ack(1, ""))
	b.svc.send(answer)
	b.svc.again(ack)
	b.svc.send(down.request("BYE", ""))
	b.svc.expect("200")
	b.core.send(up.reply(b.core.expect("BYE"), "200 OK", ""))
	b.idle()
}

func TestAnAnswerWithoutAckEndsTheCall(t *testing.T) {
	covers(t, "A8")
	b := setup(t)
	up := b.core.newCall(outside, served)
	b.core.send(up.request("INVITE", sdp))
	b.core.expect("100")
	inv := b.svc.expect("INVITE")
	down := b.svc.called(inv)
	b.svc.send(down.reply(inv, "200 OK", sdp))
	up.answered(b.core.expect("200"))
	bye := b.core.expect("BYE")
	b.core.send(up.reply(bye, "200 OK", ""))
	b.svc.expect("ACK")
	bye = b.svc.expect("BYE")
	b.svc.send(down.reply(bye, "200 OK", ""))
	if r := b.record(); r.EndedBy != "tandem" || !strings.Contains(r.Reason, "never acknowledged") {
		t.Errorf("record = %+v", r)
	}
	b.idle()
}

func TestFailuresPass(t *testing.T) {
	covers(t, "A12", "A9", "A11", "A17")
	for _, c := range []struct {
		status, want string
		extra        []string
		keeps        string // a part of the answer
		lacks        string
	}{
		{"486 Nobody Home", "486 Nobody Home", []string{"Reason: Q.850;cause=17;text=\"busy\""},
			"Reason: Q.850;cause=17", ""},
		{"404 Not Found", "404", nil, "", ""},
		{"422 Session Interval Too Small", "422", []string{"Min-SE: 90"}, "Min-SE: 90", ""},
		{"488 Not Acceptable Here", "488", []string{"Warning: 305 host \"codec\""}, "305 host", ""},
		{"500 Broken", "500 Broken", []string{"Retry-After: 30"}, "Retry-After: 30", ""},
		{"600 Busy Everywhere", "600", nil, "", ""},
		{"603 Decline", "603", nil, "", ""},
		{"302 Moved", "480", []string{"Contact: <sip:elsewhere@127.0.0.1>"}, "redirects are not followed", "elsewhere"},
		{"407 Proxy Authentication Required", "500", []string{"Proxy-Authenticate: Digest realm=\"x\""},
			"credentials", "Digest"},
		{"503 Overloaded", "503 Overloaded", []string{"Retry-After: 30"}, "", "Retry-After"},
	} {
		t.Run(c.status, func(t *testing.T) {
			b := setup(t, func(bc *bedConfig) { bc.peers = 1 })
			up := b.core.newCall(outside, served)
			b.core.send(up.request("INVITE", sdp))
			b.core.expect("100")
			inv := b.svc.expect("INVITE")
			b.svc.send(b.svc.called(inv).reply(inv, c.status, "", c.extra...))
			b.svc.expect("ACK")
			m := b.core.expect(c.want)
			if !strings.Contains(m.raw, c.keeps) || c.lacks != "" && strings.Contains(m.raw, c.lacks) {
				t.Errorf("want %q and not %q in\n%s", c.keeps, c.lacks, m.raw)
			}
			b.core.send(up.ackFailure(m))
			r := b.record()
			if want := strings.Fields(c.want)[0]; fmt.Sprint(r.Status) != want || len(r.Tried) != 1 ||
				fmt.Sprint(r.Tried[0].Status) != strings.Fields(c.status)[0] {
				t.Errorf("record = %+v", r)
			}
			b.idle()
		})
	}
}

func TestFailOver(t *testing.T) {
	covers(t, "A10", "A12", "P1", "P9")
	b3 := func(t *testing.T, opts ...option) (*bed, []*agent) {
		b := setup(t, append([]option{hardlyEver, func(c *bedConfig) { c.peers = 3 }}, opts...)...)
		return b, append([]*agent{b.svc}, b.more...)
	}
	for _, first := range []string{"408 Request Timeout", "503 Service Unavailable", "504 Server Time-out", "silence",
		"100 then 503"} {
		t.Run("the next peer after "+first, func(t *testing.T) {
			b, peers := b3(t, func(c *bedConfig) {
				if first == "silence" { // the second peer is the last one: it has all the time it may need
					c.peers, c.cfg.Timers.FailoverAfter = 2, 400*time.Millisecond
				}
			})
			up := b.core.newCall(outside, served)
			b.core.send(up.request("INVITE", sdp))
			b.core.expect("100")
			inv := peers[0].expect("INVITE")
			down := peers[0].called(inv)
			switch first {
			case "silence":
			case "100 then 503":
				peers[0].send(down.replyAs(inv, "100 Trying", "", ""))
				peers[0].send(down.reply(inv, "503 Service Unavailable", ""))
				peers[0].expect("ACK")
			default:
				peers[0].send(down.reply(inv, first, ""))
				peers[0].expect("ACK")
			}
			inv2 := peers[1].expect("INVITE")
			if inv2.get("Call-ID") == inv.get("Call-ID") {
				t.Errorf("the second attempt has the first one's Call-ID: a common far side would call it merged")
			}
			down = peers[1].called(inv2)
			peers[1].send(down.reply(inv2, "200 OK", sdp))
			up.answered(b.core.expect("200"))
			b.core.send(up.ack(1, ""))
			peers[1].expect("ACK")
			b.over(up, down)
			r := b.record()
			if len(r.Tried) != 2 || r.Tried[0].Peer != "svc1" || r.Tried[1].Peer != "svc2" ||
				r.Tried[1].Result != "answered" {
				t.Errorf("tried = %+v", r.Tried)
			}
			b.idle()
			for _, p := range peers[2:] {
				p.quiet()
			}
		})
	}
	for _, final := range []string{"404 Not Found", "486 Busy Here", "500 Oops", "502 Bad Gateway",
		"600 Busy Everywhere", "603 Decline", "480 Gone"} {
		t.Run("no other peer after "+final, func(t *testing.T) {
			b, peers := b3(t)
			up := b.core.newCall(outside, served)
			b.core.send(up.request("INVITE", sdp))
			b.core.expect("100")
			inv := peers[0].expect("INVITE")
			peers[0].send(peers[0].called(inv).reply(inv, final, ""))
			peers[0].expect("ACK")
			b.core.send(up.ackFailure(b.core.expect(final)))
			b.idle()
			peers[1].quiet()
		})
	}
	for _, final := range []string{"408 Request Timeout", "503 Service Unavailable", "504 Server Time-out"} {
		t.Run("no other peer once it rang and then "+final, func(t *testing.T) {
			b, peers := b3(t)
			up, down, inv := b.ringing(b.core, peers[0], outside, served)
			peers[0].send(down.reply(inv, final, ""))
			peers[0].expect("ACK")
			b.core.send(up.ackFailure(b.core.expect(final)))
			b.idle()
			peers[1].quiet()
		})
	}
	t.Run("the last status when all fail", func(t *testing.T) {
		b, peers := b3(t)
		up := b.core.newCall(outside, served)
		b.core.send(up.request("INVITE", sdp))
		b.core.expect("100")
		for i, p := range peers {
			inv := p.expect("INVITE")
			p.send(p.called(inv).reply(inv, []string{"503 a", "408 b", "504 the last one"}[i], ""))
			p.expect("ACK")
		}
		b.core.send(up.ackFailure(b.core.expect("504 the last one")))
		b.idle()
	})
	t.Run("408 when all are silent", func(t *testing.T) {
		b := setup(t, func(c *bedConfig) { c.peers = 3; c.cfg.Timers.FailoverAfter = 400 * time.Millisecond })
		up := b.core.newCall(outside, served)
		b.core.send(up.request("INVITE", sdp))
		b.core.expect("100")
		for _, p := range append([]*agent{b.svc}, b.more...) {
			p.expect("INVITE")
		}
		m := b.core.expect("408")
		if !strings.Contains(m.get("Warning"), "svc3 of group teams did not answer") {
			t.Errorf("Warning = %q", m.get("Warning"))
		}
		b.core.send(up.ackFailure(m))
		b.idle()
	})
}

func TestAPeerThatRespondsLate(t *testing.T) {
	late := func(t *testing.T) (b *bed, up *talk, inv msg, first *talk, second *talk) {
		b = setup(t, hardlyEver, func(c *bedConfig) {
			c.peers, c.cfg.Timers.FailoverAfter = 2, 400*time.Millisecond // for the last peer, 64×T1 = 32 s
		})
		up = b.core.newCall(outside, served)
		b.core.send(up.request("INVITE", sdp))
		b.core.expect("100")
		inv = b.svc.expect("INVITE")
		inv2 := b.more[0].expect("INVITE")
		second = b.more[0].called(inv2)
		b.more[0].send(second.reply(inv2, "200 OK", sdp))
		up.answered(b.core.expect("200"))
		b.core.send(up.ack(1, ""))
		b.more[0].expect("ACK")
		return b, up, inv, b.svc.called(inv), second
	}
	t.Run("with a provisional answer", func(t *testing.T) {
		covers(t, "A14")
		b, up, inv, first, second := late(t)
		b.svc.send(first.reply(inv, "180 Ringing", ""))
		cancel := b.svc.expect("CANCEL")
		b.svc.send(first.reply(cancel, "200 OK", ""))
		b.svc.send(first.reply(inv, "487 Request Terminated", ""))
		b.svc.expect("ACK")
		b.core.quiet()
		b.over(up, second)
		b.idle()
	})
	t.Run("with an answer", func(t *testing.T) {
		covers(t, "A15")
		b, up, inv, first, second := late(t)
		b.svc.send(first.reply(inv, "200 OK", sdp))
		got := b.svc.expectAll("ACK", "BYE")
		if n, _ := got[1].cseq(); n != 2 || got[1].tag("To") != first.localTag {
			t.Errorf("BYE does not fit:\n%s", got[1].raw)
		}
		b.svc.send(first.reply(got[1], "200 OK", ""))
		b.core.quiet()
		b.over(up, second)
		b.idle()
	})
}

func TestNoAnswer(t *testing.T) {
	covers(t, "A13")
	b := setup(t, func(c *bedConfig) { c.cfg.Timers.RingTimeout = time.Second })
	up, down, inv := b.ringing(b.core, b.svc, outside, served)
	m := b.core.expect("480")
	if got := m.get("Reason"); !strings.HasPrefix(got, "Q.850;cause=19") {
		t.Errorf("Reason = %q, want Q.850 cause 19", got)
	}
	b.core.send(up.ackFailure(m))
	cancel := b.svc.expect("CANCEL")
	b.svc.send(down.reply(cancel, "200 OK", ""))
	b.svc.send(down.reply(inv, "487 Request Terminated", ""))
	b.svc.expect("ACK")
	if r := b.record(); r.Status != 480 || r.Cause != 19 || r.Tried[0].Result != "canceled" {
		t.Errorf("record = %+v", r)
	}
	b.idle()
}

func TestAPRACKMayComeAfterTheAnswer(t *testing.T) {
	covers(t, "D10", "D21")
	b := setup(t)
	up := b.core.newCall(outside, served)
	up.cseq = 100
	b.core.send(up.request("INVITE", sdp, "Supported: 100rel"))
	b.core.expect("100")
	inv := b.svc.expect("INVITE")
	down := b.svc.called(inv)
	b.svc.send(down.reply(inv, "180 Ringing", "", "Require: 100rel", "RSeq: 7"))
	b.svc.send(down.reply(inv, "200 OK", sdp))
	b.core.expect("180")
	up.answered(b.core.expect("200"))
	b.svc.expect("ACK")
	// The second one is a duplicate.
	for _, answer := range []string{"200 OK", "481 Call/Transaction Does Not Exist"} {
		b.core.send(up.request("PRACK", "", "RAck: 7 101 INVITE"))
		prack := b.svc.expect("PRACK")
		if got := prack.get("RAck"); got != "7 1 INVITE" {
			t.Errorf("RAck = %q, want the far leg's CSeq in it", got)
		}
		b.svc.send(down.reply(prack, answer, ""))
		b.core.expect(answer)
	}
	b.core.send(up.ack(101, ""))

	// The same for a re-INVITE of the other side, whose numbers differ.
	b.svc.send(down.request("INVITE", sdp, "Supported: 100rel"))
	b.svc.expect("100")
	again := b.core.expect("INVITE")
	far, _ := again.cseq()
	near := down.cseq
	if far == near {
		t.Fatalf("both legs have CSeq %d: this would prove nothing", far)
	}
	b.core.send(up.reply(again, "180 Ringing", "", "Require: 100rel", "RSeq: 9"))
	b.core.send(up.reply(again, "200 OK", sdp))
	b.svc.expect("180")
	b.svc.expect("200")
	b.core.expect("ACK")
	b.svc.send(down.request("PRACK", "", fmt.Sprintf("RAck: 9 %d INVITE", near)))
	prack := b.core.expect("PRACK")
	if got, want := prack.get("RAck"), fmt.Sprintf("9 %d INVITE", far); got != want {
		t.Errorf("RAck = %q, want %q", got, want)
	}
	b.core.send(up.reply(prack, "200 OK", ""))
	b.svc.expect("200")
	b.svc.send(down.ack(near, ""))
	b.over(up, down)
	b.idle()
}

func TestAForkAboveTheLimitMayAnswer(t *testing.T) {
	covers(t, "A19")
	b := setup(t)
	up := b.core.newCall(outside, served)
	b.core.send(up.request("INVITE", sdp))
	b.core.expect("100")
	inv := b.svc.expect("INVITE")
	down := b.svc.called(inv)
	tags := map[string]bool{}
	for range maxForks + 1 {
		down.localTag = unique("fork")
		b.svc.send(down.reply(inv, "180 Ringing", ""))
	}
	for range maxForks {
		tags[b.core.expect("180").tag("To")] = true
	}
	b.core.quiet()
	b.svc.send(down.reply(inv, "200 OK", sdp)) // the last fork, whose 180 was not relayed
	ok := b.core.expect("200")
	if tag := ok.tag("To"); len(tags) != maxForks || tags[tag] {
		t.Errorf("the answer has tag %s, that of another fork; %d tags so far", tag, len(tags))
	}
	up.answered(ok)
	b.core.send(up.ack(1, ""))
	b.svc.expect("ACK")
	b.over(up, down)
	b.idle()
}
