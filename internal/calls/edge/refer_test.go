package edge

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

const sipfrag = "Content-Type: message/sipfrag;version=2.0"

// transferring sets up a call in which REFERs of both sides are relayed.
func transferring(t *testing.T, opts ...option) (b *bed, up, down *talk) {
	b = setup(t, append(opts, func(c *bedConfig) { c.service.Refer, c.core.Refer = "relay", "relay" })...)
	up, down = b.established(b.core, b.svc, outside, served)
	return b, up, down
}

// referred sends a REFER from one end to the other and returns its CSeq numbers: as sent, and as received.
func (b *bed) referred(from, to *talk, extra ...string) (sent, arrived int) {
	b.t.Helper()
	from.a.send(from.request("REFER", "", append([]string{"Refer-To: <sip:+442079460777@127.0.0.1>"}, extra...)...))
	ref := to.a.expect("REFER")
	arrived, _ = ref.cseq()
	to.a.send(to.reply(ref, "202 Accepted", ""))
	from.a.expect("202")
	return from.cseq, arrived
}

// notified sends a NOTIFY from one end to the other, checks its Event as received, and answers it.
func (b *bed) notified(from, to *talk, event, want, state, answer string) {
	b.t.Helper()
	from.a.send(from.request("NOTIFY", "SIP/2.0 100 Trying\r\n", "Event: "+event,
		"Subscription-State: "+state, sipfrag))
	n := to.a.expect("NOTIFY")
	if got := n.get("Event"); got != want {
		b.t.Errorf("Event: %s arrived as %q, want %q", event, got, want)
	}
	if n.get("Subscription-State") != state || n.body != "SIP/2.0 100 Trying\r\n" {
		b.t.Errorf("NOTIFY came as\n%s", n.raw)
	}
	to.a.send(to.reply(n, answer, ""))
	from.a.expect(answer[:3])
}

// unknown sends a request that is about no subscription.
func (b *bed) unknown(from *talk, method, event string) {
	b.t.Helper()
	from.a.send(from.request(method, "", "Event: "+event, "Subscription-State: active", "Expires: 60"))
	if m := from.a.expect("481"); m.get("Warning") == "" {
		b.t.Errorf("481 to %s with %q lacks the reason:\n%s", method, event, m.raw)
	}
}

// RFC 3515 §2.4.6: the id of Event is the CSeq of the REFER, on each leg its own.
func TestEventOfARelayedReferNamesTheRefersCSeqOfItsLeg(t *testing.T) {
	covers(t, "D12", "D31")
	for _, way := range []string{"by the service", "by the core"} {
		t.Run(way, func(t *testing.T) {
			b, up, down := transferring(t)
			from, to := down, up
			if way == "by the core" {
				from, to = up, down
			}
			from.cseq += 7 // the legs' numbers differ
			sent1, got1 := b.referred(from, to)
			sent2, got2 := b.referred(from, to)
			if sent1 == got1 {
				t.Fatalf("both legs use CSeq %d: the test shows nothing", sent1)
			}
			id := func(n int) string { return fmt.Sprintf("refer;id=%d", n) }
			b.notified(to, from, id(got2), id(sent2), "active;expires=60", "200 OK")
			b.notified(to, from, id(got1), id(sent1), "active;expires=60", "200 OK")
			// Without id it is the first one, on both legs.
			b.notified(to, from, "refer", "refer", "active;expires=60", "200 OK")
			// Odd spellings of the same; other parameters stay.
			b.notified(to, from, fmt.Sprintf("Refer ; ID=%05d;x=y", got2), fmt.Sprintf("Refer ;id=%d;x=y", sent2),
				"active", "200 OK")
			// Only its subscriber can refresh it (RFC 3515 §2.4.4).
			from.a.send(from.request("SUBSCRIBE", "", "Event: "+id(sent2), "Expires: 600"))
			sub := to.a.expect("SUBSCRIBE")
			if sub.get("Event") != id(got2) || sub.get("Expires") != "600" || sub.contact() == "" {
				t.Errorf("SUBSCRIBE came as\n%s", sub.raw)
			}
			to.a.send(to.reply(sub, "200 OK", "", "Expires: 600"))
			from.a.expect("200")
			b.unknown(to, "SUBSCRIBE", id(got2))
			// An id of no REFER.
			for _, bad := range []string{"refer;id=4711", "refer;id=", "refer;id=x", "refer;id=99999999999"} {
				b.unknown(to, "NOTIFY", bad)
				b.unknown(from, "SUBSCRIBE", bad)
			}
			b.unknown(from, "NOTIFY", id(sent1)) // the wrong way round
			// Other packages are not translated.
			b.notified(to, from, "talk;id="+fmt.Sprint(got1), "talk;id="+fmt.Sprint(got1), "active", "200 OK")
			// The ended one is unknown; the other one is active.
			b.notified(to, from, id(got1), id(sent1), "terminated;reason=noresource", "200 OK")
			b.unknown(to, "NOTIFY", id(got1))
			b.notified(to, from, id(got2), id(sent2), "Terminated", "200 OK")
			b.unknown(to, "NOTIFY", id(got2))
			from.a.quiet()
			b.over(up, down)
			b.idle()
		})
	}
}

// A REFER that never reached the other leg does not count there: NOTIFYs without id would be taken for those of the
// refused one.
func TestEventWithoutIdAfterARefusedRefer(t *testing.T) {
	covers(t, "D31")
	b, up, down := transferring(t)
	b.svc.send(down.request("REFER", "", "Refer-To: <sip:x@127.0.0.1?Replaces=a>"))
	b.svc.expect("501")
	sent, _ := b.referred(down, up)
	b.notified(up, down, "refer", fmt.Sprintf("refer;id=%d", sent), "active", "200 OK")
	// A REFER that the other side refuses, or for which it makes no subscription (RFC 4488), has none.
	for _, answer := range [][]string{{"603 Decline"}, {"202 Accepted", "Refer-Sub: false"}} {
		b.svc.send(down.request("REFER", "", "Refer-To: <sip:x@127.0.0.1>"))
		ref := b.core.expect("REFER")
		n, _ := ref.cseq()
		b.core.send(up.reply(ref, answer[0], "", answer[1:]...))
		b.svc.expect(answer[0][:3])
		b.unknown(up, "NOTIFY", fmt.Sprintf("refer;id=%d", n))
	}
	// A NOTIFY may arrive before the response to the REFER (RFC 3515 §2.4.4).
	b.svc.send(down.request("REFER", "", "Refer-To: <sip:x@127.0.0.1>"))
	ref := b.core.expect("REFER")
	n, _ := ref.cseq()
	b.notified(up, down, fmt.Sprintf("refer;id=%d", n), fmt.Sprintf("refer;id=%d", down.cseq), "active", "200 OK")
	b.core.send(up.reply(ref, "202 Accepted", ""))
	b.svc.expect("202")
	b.over(up, down)
	b.endTransfers(down)
}

func TestTransfersOfACallAreBounded(t *testing.T) {
	covers(t, "D31")
	b, up, down := transferring(t)
	for range maxRefers {
		b.referred(down, up)
	}
	b.svc.send(down.request("REFER", "", "Refer-To: <sip:x@127.0.0.1>"))
	if m := b.svc.expect("500"); m.get("Retry-After") == "" {
		t.Errorf("no Retry-After in\n%s", m.raw)
	}
	b.core.quiet()
	for _, c := range b.e.calls.all() { // as if the transfers had been silent for long
		c.mu.Lock()
		for _, r := range c.refers {
			r.until = time.Now()
		}
		c.mu.Unlock()
	}
	b.referred(down, up)
	b.over(up, down)
	b.endTransfers(down)
}

func TestAReferThatTakesOverACallIsRefused(t *testing.T) {
	covers(t, "D32")
	b, up, down := transferring(t)
	for _, to := range []string{
		"Refer-To: <sip:b@127.0.0.1?Replaces=a%40b%3Bto-tag%3D1%3Bfrom-tag%3D2>",
		"Refer-To: \"B\" <sip:b@127.0.0.1;user=phone?Subject=x&replaces=a%40b>;x=y",
		"r: <sip:b@127.0.0.1?%52ePlAcEs=a%40b>",
		"Refer-To: sip:b@127.0.0.1?REPLACES=a%40b",
	} {
		for _, end := range []*talk{up, down} {
			end.a.send(end.request("REFER", "", to))
			if m := end.a.expect("501"); !strings.Contains(m.get("Warning"), "Replaces") {
				t.Errorf("%s: Warning = %q, want the reason", to, m.get("Warning"))
			}
		}
	}
	b.core.quiet()
	b.svc.quiet()
	b.svc.send(down.request("REFER", "", "Refer-To: <sip:replaces@127.0.0.1;replaces=no?Subject=Replaces>"))
	b.core.send(up.reply(b.core.expect("REFER"), "603 Decline", ""))
	b.svc.expect("603")
	b.over(up, down)
	b.idle()
}

// endTransfers ends the subscriptions of the agent's call, and checks that nothing is left.
func (b *bed) endTransfers(end *talk) {
	b.t.Helper()
	await(b.t, "the call to end", func() bool { return b.e.Calls() == 0 })
	b.expire(end, atRefers)
	b.idle()
	if n := b.e.lingering.Load(); n != 0 {
		b.t.Errorf("%d calls are kept for transfers", n)
	}
}

// RFC 5057 §4: the subscription of a REFER is a usage of its own. The transferor hangs up before the transfer is done.
func TestNotifyPassesAfterByeWhileItsSubscriptionLives(t *testing.T) {
	covers(t, "D33")
	for _, who := range []string{"transferor", "transferee", "both"} {
		t.Run(who+" hangs up", func(t *testing.T) {
			b, up, down := transferring(t)
			sent, got := b.referred(down, up)
			here, there := fmt.Sprintf("refer;id=%d", got), fmt.Sprintf("refer;id=%d", sent)
			b.notified(up, down, "refer", "refer", "active;expires=60", "200 OK")
			switch who {
			case "transferor":
				b.over(down, up)
			case "transferee":
				b.over(up, down)
			default:
				b.svc.send(down.request("BYE", ""))
				b.svc.expect("200")
				bye := b.core.expect("BYE")
				b.core.send(up.request("BYE", "")) // ours has crossed it
				b.core.expect("200")
				b.core.send(up.reply(bye, "481 Gone", ""))
			}
			if r := b.record(); r.EndedBy == "tandem" {
				t.Errorf("record = %+v", r)
			}
			await(t, "the call to end", func() bool { return b.e.Calls() == 0 })
			b.notified(up, down, here, there, "active;expires=60", "200 OK")
			// The transferor may refresh; the dialog has no other usage now.
			b.svc.send(down.request("SUBSCRIBE", "", "Event: "+there, "Expires: 60"))
			b.core.send(up.reply(b.core.expect("SUBSCRIBE"), "200 OK", "", "Expires: 60"))
			b.svc.expect("200")
			for _, end := range []*talk{up, down} {
				for _, method := range []string{"INFO", "OPTIONS", "UPDATE", "REFER"} {
					end.a.send(end.request(method, "", "Refer-To: <sip:x@127.0.0.1>"))
					end.a.expect("481")
				}
			}
			b.unknown(up, "NOTIFY", "talk")
			b.unknown(up, "NOTIFY", "refer;id=9")
			b.core.send(up.requestAs("NOTIFY", 1, unique("z9hG4bK"), "", "Event: "+here, "Subscription-State: active"))
			b.core.expect("500") // CSeq
			b.notified(up, down, here, there, "terminated;reason=noresource", "200 OK")
			b.idle()
			b.unknown(up, "NOTIFY", here)
			if n := b.e.lingering.Load(); n != 0 {
				t.Errorf("%d calls are kept for transfers", n)
			}
		})
	}
}

// A BYE may overtake pending responses of the transfer: to a REFER, or to a NOTIFY.
func TestAByeDoesNotAbortATransferUnderWay(t *testing.T) {
	covers(t, "D33")
	b, up, down := transferring(t)
	b.svc.send(down.request("REFER", "", "Refer-To: <sip:x@127.0.0.1>"))
	ref := b.core.expect("REFER")
	b.core.send(up.request("NOTIFY", "", "Event: refer", "Subscription-State: active"))
	early := b.svc.expect("NOTIFY")
	b.over(down, up)
	b.svc.send(down.reply(early, "200 OK", ""))
	b.core.expect("200")
	b.core.send(up.reply(ref, "202 Accepted", ""))
	b.svc.expect("202")
	b.notified(up, down, "refer", "refer", "terminated", "200 OK")
	b.idle()
}

func TestWhatEndsASubscriptionAfterBye(t *testing.T) {
	covers(t, "D33")
	for name, end := range map[string]func(b *bed, up, down *talk){
		"481 to NOTIFY": func(b *bed, up, down *talk) {
			b.notified(up, down, "refer", "refer", "active;expires=60", "481 Subscription Does Not Exist")
		},
		"no answer to NOTIFY": func(b *bed, up, down *talk) {
			b.core.send(up.request("NOTIFY", "", "Event: refer", "Subscription-State: active"))
			b.svc.expect("NOTIFY")
			b.core.expect("408")
		},
		"481 to SUBSCRIBE": func(b *bed, up, down *talk) {
			b.svc.send(down.request("SUBSCRIBE", "", "Event: refer", "Expires: 60"))
			b.core.send(up.reply(b.core.expect("SUBSCRIBE"), "481 Gone", ""))
			b.svc.expect("481")
		},
		"its time": func(b *bed, up, down *talk) {
			b.notified(up, down, "refer", "refer", "active;expires=40", "200 OK")
			if d := b.timer(down, atRefers); !b.near(d, 40*time.Second) {
				b.t.Errorf("the subscription ends in %v, want 40 s", d)
			}
			b.notified(up, down, "refer", "refer", "active;expires=4000000000", "200 OK")
			if d := b.timer(down, atRefers); !b.near(d, maxReferLife) {
				b.t.Errorf("the subscription ends in %v, want %v", d, maxReferLife)
			}
			b.expire(down, atRefers)
		},
		"the gateway's end": func(b *bed, _, _ *talk) { b.e.cut("the test is over") },
	} {
		t.Run(name, func(t *testing.T) {
			b, up, down := transferring(t)
			b.referred(down, up)
			b.over(down, up)
			await(t, "the call to end", func() bool { return b.e.Calls() == 0 })
			if d := b.timer(down, atRefers); !b.near(d, referLife) {
				t.Errorf("the subscription ends in %v, want %v", d, referLife)
			}
			end(b, up, down)
			b.idle()
			if n := b.e.lingering.Load(); n != 0 {
				t.Errorf("%d calls are kept for transfers", n)
			}
		})
	}
}

// A NOTIFY that may be sent again (RFC 6665 §4.2.2) ends nothing.
func TestANotifyToBeSentAgainKeepsItsSubscription(t *testing.T) {
	covers(t, "D33")
	b, up, down := transferring(t)
	b.referred(down, up)
	b.over(down, up)
	b.core.send(up.request("NOTIFY", "", "Event: refer", "Subscription-State: active"))
	b.svc.send(down.reply(b.svc.expect("NOTIFY"), "500 Later", "", "Retry-After: 1"))
	b.core.expect("500")
	b.notified(up, down, "refer", "refer", "terminated", "200 OK")
	b.idle()
}

func TestCallsKeptForTransfersAreBounded(t *testing.T) {
	covers(t, "D33")
	b, up, down := transferring(t, func(c *bedConfig) { c.cfg.Limits.MaxCalls = 1 })
	b.referred(down, up)
	b.over(down, up)
	await(t, "the call to end", func() bool { return b.e.Calls() == 0 })
	u2, d2 := b.established(b.core, b.svc, outside, served)
	b.referred(d2, u2)
	b.over(d2, u2)
	await(t, "the second call to be forgotten", func() bool { return b.e.Calls() == 0 && b.e.calls.len() == 2 })
	b.unknown(u2, "NOTIFY", "refer")
	b.notified(up, down, "refer", "refer", "terminated", "200 OK")
	b.idle()
}
