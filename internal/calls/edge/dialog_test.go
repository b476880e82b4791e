package edge

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// reinvited sends a re-INVITE from one end to the other and has it accepted.
func (b *bed) reinvited(from, to *talk, offer, answer, ackBody string) {
	b.t.Helper()
	from.a.send(from.request("INVITE", offer))
	from.a.expect("100")
	inv := to.a.expect("INVITE")
	if inv.body != offer {
		b.t.Errorf("re-INVITE has body %q, want %q", inv.body, offer)
	}
	to.a.send(to.reply(inv, "200 OK", answer))
	ok := from.a.expect("200")
	if ok.body != answer {
		b.t.Errorf("its 200 has body %q, want %q", ok.body, answer)
	}
	from.a.send(from.ack(from.cseq, ackBody))
	if ack := to.a.expect("ACK"); ack.body != ackBody {
		b.t.Errorf("its ACK has body %q, want %q", ack.body, ackBody)
	}
}

func TestReinvitesPass(t *testing.T) {
	covers(t, "D4", "D1", "D18")
	b := setup(t)
	up, down := b.established(b.core, b.svc, outside, served)
	hold := strings.Replace(sdp, "sendrecv", "sendonly", 1)
	held := strings.Replace(sdp, "sendrecv", "recvonly", 1)
	b.reinvited(up, down, hold, held, "") // hold
	b.reinvited(up, down, sdp, sdp, "")   // resume
	b.reinvited(down, up, hold, held, "") // the other way
	b.reinvited(down, up, "", hold, held) // no offer: it is in the 200, the answer in the ACK
	b.over(down, up)
	up, down = b.established(b.core, b.zoom, outside, open_)
	b.reinvited(up, down, "", hold, held) // towards a service that accepts such
	b.over(down, up)
	b.idle()
}

func TestGlare(t *testing.T) {
	covers(t, "D5", "D6", "D7")
	b := setup(t)
	up, down := b.established(b.core, b.svc, outside, served)
	b.core.send(up.request("INVITE", sdp))
	b.core.expect("100")
	inv := b.svc.expect("INVITE")
	// The other side, at the same time.
	b.svc.send(down.request("INVITE", sdp))
	m := b.svc.expect("491")
	b.svc.send(down.ackFailure(m))
	// The same side again.
	second := *up
	b.core.send(second.request("INVITE", sdp))
	m = b.core.expect("500")
	if n, err := strconv.Atoi(m.get("Retry-After")); err != nil || n < 0 || n > 10 {
		t.Errorf("Retry-After = %q, want 0 to 10", m.get("Retry-After"))
	}
	b.core.send(second.ackFailure(m))
	up.cseq = second.cseq
	// The far side refuses: the response is relayed, and the call continues.
	for _, final := range []string{"491 Request Pending", "488 Not Acceptable Here"} {
		b.svc.send(down.reply(inv, final, ""))
		b.svc.expect("ACK")
		b.core.send(up.ackFailure(b.core.expect(final)))
		b.core.send(up.request("INVITE", sdp))
		b.core.expect("100")
		inv = b.svc.expect("INVITE")
	}
	b.svc.send(down.reply(inv, "200 OK", sdp))
	b.core.expect("200")
	b.core.send(up.ack(up.cseq, ""))
	b.svc.expect("ACK")
	b.over(up, down)
	b.idle()
}

func TestADialogThatIsGoneEndsTheCall(t *testing.T) {
	covers(t, "D8")
	for _, c := range []struct{ method, answer string }{
		{"INVITE", "481 Call/Transaction Does Not Exist"}, {"INVITE", "408 Request Timeout"},
		{"UPDATE", "481 Gone"}, {"UPDATE", ""},
	} {
		t.Run(c.method+" "+c.answer, func(t *testing.T) {
			b := setup(t)
			up, down := b.established(b.core, b.svc, outside, served)
			b.core.send(up.request(c.method, sdp))
			if c.method == "INVITE" {
				b.core.expect("100")
			}
			req := b.svc.expect(c.method)
			want := "408"
			if c.answer != "" {
				b.svc.send(down.reply(req, c.answer, ""))
				want = c.answer[:3]
			}
			got := b.core.expectAll(want, "BYE")
			if c.method == "INVITE" {
				b.core.send(up.ackFailure(got[0]))
				b.svc.expect("ACK")
			}
			b.core.send(up.reply(got[1], "200 OK", ""))
			bye := b.svc.expect("BYE")
			b.svc.send(down.reply(bye, "200 OK", ""))
			if r := b.record(); r.EndedBy != "tandem" ||
				!strings.Contains(r.Reason, "called side no longer knows the call") {
				t.Errorf("record = %+v", r)
			}
			b.idle()
		})
	}
}

func TestOtherFailuresWithinACallLeaveItUp(t *testing.T) {
	covers(t, "D7", "D21")
	b := setup(t)
	up, down := b.established(b.core, b.svc, outside, served)
	for _, c := range []struct{ method, answer string }{{"NOTIFY", "481 Subscription does not exist"},
		{"INFO", "481 Gone"}, {"PRACK", "481 Gone"}, {"INFO", "408 Request Timeout"},
		{"INFO", "415 Unsupported Media Type"}, {"UPDATE", "488 No"}, {"NOTIFY", "489 Bad Event"}} {
		b.core.send(up.request(c.method, sdp, "Event: x", "Subscription-State: active"))
		req := b.svc.expect(c.method)
		b.svc.send(down.reply(req, c.answer, ""))
		b.core.expect(c.answer)
	}
	b.core.quiet()
	b.svc.quiet()
	b.over(up, down)
	b.idle()
}

func TestUpdate(t *testing.T) {
	covers(t, "D9", "D18")
	b := setup(t)
	up, down := b.established(b.core, b.svc, outside, served)
	b.core.send(up.request("UPDATE", sdp))
	upd := b.svc.expect("UPDATE")
	b.svc.send(down.request("UPDATE", sdp)) // crosses it
	b.svc.expect("491")
	again := *up
	b.core.send(again.request("UPDATE", sdp))
	b.core.expect("500")
	up.cseq = again.cseq
	b.svc.send(down.reply(upd, "200 OK", sdp, "Contact: <sip:moved@"+b.svc.addr()+";x=y>"))
	if ok := b.core.expect("200"); ok.body != sdp {
		t.Errorf("200 to UPDATE has body %q", ok.body)
	}
	// The new target is used from here on.
	b.core.send(up.request("BYE", ""))
	b.core.expect("200")
	bye := b.svc.expect("BYE")
	if got := bye.uri(); got != "sip:moved@"+b.svc.addr()+";x=y" {
		t.Errorf("Request-URI of BYE = %s, want the new Contact", got)
	}
	b.svc.send(down.reply(bye, "200 OK", ""))
	b.idle()
}

func TestTargetRefreshByTheCallingSide(t *testing.T) {
	covers(t, "D18", "D17")
	b := setup(t)
	up, down := b.established(b.core, b.svc, outside, served)
	up.contact = "<sip:elsewhere@" + b.core.addr() + ">"
	saved := up.local
	up.local = strings.Replace(up.local, ">", ";added=1>", 1) // must not be relayed
	b.reinvited(up, down, sdp, sdp, "")
	up.local = saved
	b.svc.send(down.request("INFO", "", "X-Digits: 5", "From: "+down.local+";tag="+down.localTag+";smuggled=1"))
	info := b.core.expect("INFO")
	if got := info.uri(); got != "sip:elsewhere@"+b.core.addr() {
		t.Errorf("Request-URI = %s, want the new Contact", got)
	}
	if info.get("X-Digits") != "5" || strings.Contains(info.raw, "smuggled") || strings.Contains(info.raw, "added=1") {
		t.Errorf("INFO came as\n%s", info.raw)
	}
	b.core.send(up.reply(info, "200 OK", ""))
	b.svc.expect("200")
	b.over(up, down)
	b.idle()
}

func TestInfoNotifyAndTheLike(t *testing.T) {
	covers(t, "D11", "D13", "D14", "D20")
	b := setup(t)
	up, down := b.established(b.core, b.svc, outside, served)
	for _, ends := range [][2]*talk{{up, down}, {down, up}} {
		from, to := ends[0], ends[1]
		from.a.send(from.request("INFO", "Signal=5\r\n", "Content-Type: application/dtmf-relay"))
		info := to.a.expect("INFO")
		if info.body != "Signal=5\r\n" || info.get("Content-Type") != "application/dtmf-relay" {
			t.Errorf("INFO came as\n%s", info.raw)
		}
		to.a.send(to.reply(info, "200 OK", "", "X-Heard: yes"))
		if ok := from.a.expect("200"); ok.get("X-Heard") != "yes" {
			t.Errorf("200 came as\n%s", ok.raw)
		}
		from.a.send(from.request("NOTIFY", "", "Event: talk", "Subscription-State: active"))
		to.a.send(to.reply(to.a.expect("NOTIFY"), "202 Accepted", ""))
		from.a.expect("202")
		from.a.send(from.request("OPTIONS", ""))
		if ok := from.a.expect("200"); ok.get("Allow") == "" {
			t.Errorf("200 to OPTIONS in the call lacks Allow:\n%s", ok.raw)
		}
		for _, m := range []string{"SUBSCRIBE", "MESSAGE", "PUBLISH", "REGISTER"} {
			from.a.send(from.request(m, "", "Event: x"))
			if no := from.a.expect("405"); no.get("Allow") == "" {
				t.Errorf("405 to %s lacks Allow", m)
			}
		}
		from.a.send(from.request("INFO", "", "Max-Forwards: 0"))
		from.a.expect("483")
		from.a.send(from.request("WINK", ""))
		from.a.expect("501")
		to.a.quiet()
	}
	b.over(up, down)
	b.idle()
}

func TestRefer(t *testing.T) {
	covers(t, "D12")
	t.Run("refused", func(t *testing.T) {
		b := setup(t)
		up, down := b.established(b.core, b.svc, outside, served)
		b.svc.send(down.request("REFER", "", "Refer-To: <sip:x@127.0.0.1>"))
		if m := b.svc.expect("403"); !strings.Contains(m.get("Warning"), "REFER") {
			t.Errorf("Warning = %q", m.get("Warning"))
		}
		b.core.quiet()
		b.over(up, down)
		b.idle()
	})
	t.Run("relayed", func(t *testing.T) {
		b := setup(t, func(c *bedConfig) { c.service.Refer = "relay" })
		up := b.core.newCall(outside, served)
		b.core.send(up.request("INVITE", sdp))
		b.core.expect("100")
		inv := b.svc.expect("INVITE")
		if !strings.Contains(inv.get("Allow"), "REFER") {
			t.Errorf("Allow = %q, want it to name REFER", inv.get("Allow"))
		}
		down := b.svc.called(inv)
		b.svc.send(down.reply(inv, "200 OK", sdp))
		ok := b.core.expect("200")
		if strings.Contains(ok.get("Allow"), "REFER") {
			t.Errorf("Allow = %q towards a group whose REFERs are refused", ok.get("Allow"))
		}
		up.answered(ok)
		b.core.send(up.ack(1, ""))
		b.svc.expect("ACK")
		long := "<sip:x-m=8:orgid:" + strings.Repeat("a", 300) + "@sip.pstnhub.microsoft.com;x-t=1234>"
		b.svc.send(down.request("REFER", "", "Refer-To: "+long, "Referred-By: <sip:b@x>"))
		ref := b.core.expect("REFER")
		if ref.get("Refer-To") != long || ref.get("Referred-By") != "<sip:b@x>" {
			t.Errorf("REFER came as\n%s", ref.raw)
		}
		b.core.send(up.reply(ref, "202 Accepted", ""))
		b.svc.expect("202")
		b.core.send(up.request("NOTIFY", "SIP/2.0 200 OK\r\n", "Event: refer", "Subscription-State: terminated",
			"Content-Type: message/sipfrag"))
		n := b.svc.expect("NOTIFY")
		if n.body != "SIP/2.0 200 OK\r\n" {
			t.Errorf("NOTIFY came as\n%s", n.raw)
		}
		b.svc.send(down.reply(n, "200 OK", ""))
		b.core.expect("200")
		b.over(up, down)
		b.idle()
	})
}

func TestByeFromBothSidesAtOnce(t *testing.T) {
	covers(t, "D2", "D3")
	b := setup(t)
	for range 50 {
		up, down := b.established(b.core, b.svc, outside, served)
		go b.core.send(up.request("BYE", ""))
		b.svc.send(down.request("BYE", ""))
		for _, end := range []*talk{up, down} {
			answered, asked := false, false
			for !answered {
				switch m := end.a.next(patience); {
				case m.is("200"), m.is("481") && asked:
					// 481: our BYE was answered before this one was read, so that nothing crossed.
					answered = true
				case m.is("BYE"):
					asked = true
					end.a.send(end.reply(m, "200 OK", ""))
				default:
					t.Fatalf("%s got\n%s", end.a.name, m.raw)
				}
			}
		}
		b.idle()
		// Messages that crossed may still be queued.
		for _, a := range []*agent{b.core, b.svc} {
			for m := a.ping(); !strings.HasSuffix(m.get("CSeq"), "OPTIONS"); m = a.next(patience) {
				if m.raw == "" {
					t.Fatalf("%s got no answer to OPTIONS", a.name)
				}
				if m.is("BYE") {
					a.send((&talk{a: a}).reply(m, "200 OK", ""))
				}
			}
		}
		b.record()
	}
}

func TestOldSequenceNumbers(t *testing.T) {
	covers(t, "D15")
	b := setup(t)
	up, down := b.established(b.core, b.svc, outside, served)
	b.core.send(up.request("INFO", "", "CSeq: 9 INFO"))
	b.svc.send(down.reply(b.svc.expect("INFO"), "200 OK", ""))
	b.core.expect("200")
	b.core.send(up.request("INFO", "", "CSeq: 8 INFO"))
	b.core.expect("500")
	b.svc.quiet()
	up.cseq = 9
	b.over(up, down)
	b.idle()
}

func TestOrderHoldsWithinADialog(t *testing.T) {
	covers(t, "D16")
	b := setup(t)
	up, down := b.established(b.core, b.svc, outside, served)
	const n = 15
	for i := range n {
		b.core.send(up.request("INFO", "", fmt.Sprintf("X-Number: %d", i)))
	}
	for i := range n {
		info := b.svc.expect("INFO")
		if got := info.get("X-Number"); got != strconv.Itoa(i) {
			t.Fatalf("INFO %s came as number %d", got, i)
		}
		b.svc.send(down.reply(info, "200 OK", ""))
	}
	for range n {
		b.core.expect("200")
	}
	b.over(up, down)
	b.idle()
}

func TestRequestsUnderWayWhenTheCallEnds(t *testing.T) {
	covers(t, "D2")
	b := setup(t)
	up, down := b.established(b.core, b.svc, outside, served)
	b.core.send(up.request("INVITE", sdp))
	b.core.expect("100")
	inv := b.svc.expect("INVITE")
	b.svc.send(down.request("BYE", ""))
	b.svc.expect("200")
	got := b.core.expectAll("487", "BYE")
	b.core.send(up.ackFailure(got[0]))
	b.core.send(up.reply(got[1], "200 OK", ""))
	b.svc.send(down.reply(inv, "487 Request Terminated", ""))
	b.svc.expect("ACK")
	b.idle()
}

func TestAReInviteTimesOut(t *testing.T) {
	covers(t, "D22")
	for _, answer := range []string{"487 Request Terminated", ""} {
		t.Run(answer, func(t *testing.T) {
			b := setup(t, func(c *bedConfig) { c.cfg.Timers.RingTimeout = time.Second })
			up, down := b.established(b.core, b.svc, outside, served)
			b.core.send(up.request("INVITE", sdp))
			b.core.expect("100")
			inv := b.svc.expect("INVITE")
			b.svc.send(down.reply(inv, "100 Trying", ""))
			b.svc.send(down.reply(b.svc.expect("CANCEL"), "200 OK", ""))
			if answer != "" {
				b.svc.send(down.reply(inv, answer, ""))
				b.svc.expect("ACK")
				b.core.send(up.ackFailure(b.core.expect("487")))
				// The next one is relayed, and the call continues.
				b.svc.send(down.request("INVITE", sdp))
				b.svc.expect("100")
				back := b.core.expect("INVITE")
				b.core.send(up.reply(back, "488 Not Acceptable Here", ""))
				b.core.expect("ACK")
				m := b.svc.expect("488")
				down.inviteText = down.lastRequest
				b.svc.send(down.ackFailure(m))
				b.over(up, down)
				b.idle()
				return
			}
			got := b.core.expectAll("408", "BYE")
			b.core.send(up.ackFailure(got[0]))
			b.core.send(up.reply(got[1], "200 OK", ""))
			b.svc.send(down.reply(b.svc.expect("BYE"), "200 OK", ""))
			b.idle()
		})
	}
}

// TestAReInviteEndsWithItsCall checks that a re-INVITE that rings when the call ends is cancelled, and that its
// transaction ends without a final response.
func TestAReInviteEndsWithItsCall(t *testing.T) {
	covers(t, "D35")
	b := setup(t)
	up, down := b.established(b.core, b.svc, outside, served)
	b.core.send(up.request("INVITE", sdp))
	b.core.expect("100")
	inv := b.svc.expect("INVITE")
	b.svc.send(down.reply(inv, "183 Session Progress", ""))
	b.core.expect("183")

	reinvite := *up
	b.core.send(up.request("BYE", ""))
	for _, m := range b.core.expectAll("200", "487") {
		if m.is("487") {
			b.core.send(reinvite.ackFailure(m))
		}
	}
	for _, m := range b.svc.expectAll("BYE", "CANCEL") {
		b.svc.send(down.reply(m, "200 OK", ""))
	}
	b.idle()
	await(t, "transactions to end", func() bool { return b.e.tx.Pending() == 0 })
}
