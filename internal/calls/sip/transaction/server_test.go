package transaction_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/calls/sip/transaction"
	"github.com/tandemgw/tandem/internal/calls/sip/transport"
)

const branch = "z9hG4bK-far-1"

// TestServer covers the paths of both server state machines, timers first. clause names the rule.
func TestServer(t *testing.T) {
	for _, c := range []struct {
		name, clause string
		proto        transport.Proto
		run          func(b *bundle)
	}{
		{"a 100 is sent if the user has not responded after 200 ms", "RFC 3261 §17.2.1", udp, func(b *bundle) {
			b.say(b.farRequest("INVITE", branch))
			b.at(5 * time.Second)
			b.wantTimes("SIP/2.0 100", "200ms")
			if to := b.last("SIP/2.0 100").ToTag(); to != "" {
				b.t.Errorf("the 100 has To tag %q, want none", to)
			}
		}},
		{"no 100 is sent after the user's response", "RFC 3261 §17.2.1", udp, func(b *bundle) {
			b.say(b.farRequest("INVITE", branch))
			b.mustRespond(180, false)
			b.at(5 * time.Second)
			b.wantTimes("SIP/2.0 100")
			b.wantTimes("SIP/2.0 180", "0s")
		}},
		{"no 100 is sent for other methods", "RFC 4320 §4.1", udp, func(b *bundle) {
			b.say(b.farRequest("OPTIONS", branch))
			b.at(3 * time.Second)
			b.wantTimes("SIP/2.0")
		}},
		{"a repeated INVITE gets the latest provisional response again", "RFC 3261 §17.2.1", udp, func(b *bundle) {
			b.say(b.farRequest("INVITE", branch))
			b.mustRespond(100, false)
			b.say(b.farRequest("INVITE", branch))
			b.mustRespond(180, false)
			b.at(time.Second)
			b.say(b.farRequest("INVITE", branch))
			b.wantTimes("SIP/2.0 100", "0s", "0s")
			b.wantTimes("SIP/2.0 180", "0s", "1s")
			b.wantEvents("request INVITE")
		}},
		{"a non-2xx final is repeated by timer G until timer H", "RFC 3261 §17.2.1", udp, func(b *bundle) {
			b.say(b.farRequest("INVITE", branch))
			b.mustRespond(486, false)
			b.at(31900 * time.Millisecond)
			b.wantEvents("request INVITE")
			b.at(33 * time.Second)
			b.wantTimes("SIP/2.0 486", "0s", "500ms", "1.5s", "3.5s", "7.5s", "11.5s", "15.5s", "19.5s", "23.5s",
				"27.5s", "31.5s")
			b.wantEvents("request INVITE", "failed: no ACK in time")
			b.wantLive(0)
		}},
		{"over TCP timer G does not run, timer H does", "RFC 3261 §17.2.1", tcp, func(b *bundle) {
			b.say(b.farRequest("INVITE", branch))
			b.mustRespond(486, false)
			b.at(33 * time.Second)
			b.wantTimes("SIP/2.0 486", "0s")
			b.wantEvents("request INVITE", "failed: no ACK in time")
		}},
		{"the ACK ends the repetition; retransmissions are absorbed for timer I", "RFC 3261 §17.2.1, §17.2.3", udp,
			func(b *bundle) {
				b.say(b.farRequest("INVITE", branch))
				b.mustRespond(486, false)
				b.at(600 * time.Millisecond)
				ack := strings.Replace(b.farRequest("ACK", branch), "To: <sip:+442079460123@192.0.2.1>",
					"To: "+b.last("SIP/2.0 486").Get(sip.KindTo), 1)
				b.say(ack)
				b.say(ack)
				b.say(b.farRequest("INVITE", branch))
				b.at(5500 * time.Millisecond)
				b.wantLive(1)
				b.at(5700 * time.Millisecond)
				b.wantLive(0)
				b.at(40 * time.Second)
				b.wantTimes("SIP/2.0 486", "0s", "500ms")
				b.wantEvents("request INVITE")
			}},
		{"over TCP timer I is zero", "RFC 3261 §17.2.1", tcp, func(b *bundle) {
			b.say(b.farRequest("INVITE", branch))
			b.mustRespond(486, false)
			b.say(b.farRequest("ACK", branch))
			b.wantLive(0)
		}},
		{"a repeated INVITE in completed gets the final again", "RFC 3261 §17.2.1", udp, func(b *bundle) {
			b.say(b.farRequest("INVITE", branch))
			b.mustRespond(486, false)
			b.at(300 * time.Millisecond)
			b.say(b.farRequest("INVITE", branch))
			b.wantTimes("SIP/2.0 486", "0s", "300ms")
		}},
		{"a 2xx is sent once, and repeated INVITEs are absorbed for timer L", "RFC 6026 §7.1", udp, func(b *bundle) {
			b.say(b.farRequest("INVITE", branch))
			b.mustRespond(200, false)
			b.at(10 * time.Second)
			b.say(b.farRequest("INVITE", branch))
			b.at(31900 * time.Millisecond)
			b.wantLive(1)
			b.at(33 * time.Second)
			b.wantLive(0)
			b.wantTimes("SIP/2.0 200", "0s")
			b.wantEvents("request INVITE")
		}},
		{"the ACK of a 2xx that the user retransmits goes to the user", "RFC 6026 §7.1", udp, func(b *bundle) {
			b.say(b.farRequest("INVITE", branch))
			b.mustRespond(200, false)
			b.say(tagged(b.farRequest("ACK", "z9hG4bK-far-2"), "tt"))
			b.wantEvents("request INVITE", "stray ack tt")
		}},
		{"a reliable 2xx is repeated until its ACK, which is passed to the user once", "RFC 3261 §13.3.1.4", udp,
			func(b *bundle) {
				b.say(b.farRequest("INVITE", branch))
				b.mustRespond(200, true)
				tag := b.last("SIP/2.0 200").ToTag()
				b.at(1 * time.Second)
				b.say(b.farRequest("INVITE", branch)) // absorbed: RFC 6026 §7.1
				b.at(1600 * time.Millisecond)
				ack := tagged(b.farRequest("ACK", "z9hG4bK-far-2"), tag)
				b.say(ack)
				b.say(ack)
				b.at(40 * time.Second)
				b.wantTimes("SIP/2.0 200", "0s", "500ms", "1.5s")
				b.wantEvents("request INVITE", "ack "+tag)
				b.wantLive(0)
			}},
		{"an ACK with the INVITE's own branch is accepted too", "common fault of far sides", udp, func(b *bundle) {
			b.say(b.farRequest("INVITE", branch))
			b.mustRespond(200, true)
			tag := b.last("SIP/2.0 200").ToTag()
			b.say(tagged(b.farRequest("ACK", branch), tag))
			b.wantEvents("request INVITE", "ack "+tag)
		}},
		{"a reliable 2xx without ACK fails after 64×T1", "RFC 3261 §13.3.1.4", udp, func(b *bundle) {
			b.say(b.farRequest("INVITE", branch))
			b.mustRespond(200, true)
			b.at(33 * time.Second)
			b.wantTimes("SIP/2.0 200", "0s", "500ms", "1.5s", "3.5s", "7.5s", "11.5s", "15.5s", "19.5s", "23.5s",
				"27.5s", "31.5s")
			b.wantEvents("request INVITE", "failed: no ACK in time")
			b.wantLive(0)
		}},
		{"a reliable 2xx is repeated over TCP too", "RFC 3261 §13.3.1.4", tcp, func(b *bundle) {
			b.say(b.farRequest("INVITE", branch))
			b.mustRespond(200, true)
			b.at(2 * time.Second)
			b.wantTimes("SIP/2.0 200", "0s", "500ms", "1.5s")
		}},
		{"there is one final response", "RFC 3261 §17.2.1", udp, func(b *bundle) {
			b.say(b.farRequest("INVITE", branch))
			tx := b.tx
			req := tx.Request()
			b.mustRespond(486, false)
			for _, status := range []int{180, 200, 603} {
				if err := tx.Respond(sip.NewResponse(req, status, "", "x")); !errors.Is(err, transaction.ErrDone) {
					b.t.Errorf("Respond(%d) after the final response = %v, want ErrDone", status, err)
				}
			}
			b.wantTimes("SIP/2.0", "0s")
		}},
		{"CANCEL is answered by the layer with the tag of the INVITE's responses, and reported once",
			"RFC 3261 §9.2", udp, func(b *bundle) {
				b.say(b.farRequest("INVITE", branch))
				b.mustRespond(180, false)
				b.say(b.farRequest("CANCEL", branch))
				b.say(b.farRequest("CANCEL", branch))
				ok := b.last("SIP/2.0 200")
				if ok.Get(sip.KindCSeq) != "3 CANCEL" || ok.ToTag() != b.last("SIP/2.0 180").ToTag() {
					b.t.Errorf("answer to CANCEL has wrong CSeq or To tag:\n%s", ok)
				}
				b.wantTimes("SIP/2.0 200", "0s", "0s")
				b.wantEvents("request INVITE", "cancel")
				b.mustRespond(487, false)
				b.say(b.farRequest("CANCEL", branch))
				b.wantEvents("request INVITE", "cancel")
				b.wantTimes("SIP/2.0 200", "0s", "0s", "0s")
			}},
		{"CANCEL after a 2xx changes nothing", "RFC 3261 §9.2", udp, func(b *bundle) {
			b.say(b.farRequest("INVITE", branch))
			b.mustRespond(200, true)
			b.say(b.farRequest("CANCEL", branch))
			b.wantEvents("request INVITE")
			b.wantTimes("SIP/2.0 200", "0s", "0s")
		}},
		{"CANCEL that matches nothing gets 481", "RFC 3261 §9.2", udp, func(b *bundle) {
			b.say(b.farRequest("CANCEL", "z9hG4bK-unknown"))
			b.wantTimes("SIP/2.0 481", "0s")
			b.wantEvents()
			b.wantLive(0)
		}},
		{"CANCEL of an INVITE without a handler makes the layer answer 487", "RFC 3261 §9.2", udp, func(b *bundle) {
			b.noHandler = true
			b.say(b.farRequest("INVITE", branch))
			b.say(b.farRequest("CANCEL", branch))
			b.wantTimes("SIP/2.0 487", "0s")
		}},
		{"a request that arrived by another path too gets 482", "RFC 3261 §8.2.2.2", udp, func(b *bundle) {
			b.say(b.farRequest("INVITE", branch))
			b.say(b.farRequest("INVITE", "z9hG4bK-other-path"))
			b.wantTimes("SIP/2.0 482", "0s")
			b.mustRespond(200, true)
			third := b.farRequest("INVITE", "z9hG4bK-third-path")
			uri := strings.Fields(third)[1]
			user, _, _ := strings.Cut(uri, "@")
			b.say(strings.Replace(third, uri, user+"@another-name-of-ours.example", 1))
			b.wantTimes("SIP/2.0 482", "0s", "0s")
			b.wantEvents("request INVITE")
		}},
		{"a second branch after a refusal is a new request", "RFC 3261 §8.2.2.2: ongoing transactions", udp,
			func(b *bundle) {
				b.say(b.farRequest("INVITE", branch))
				b.mustRespond(486, false)
				b.say(b.farRequest("INVITE", "z9hG4bK-next-branch"))
				b.wantTimes("SIP/2.0 482")
				b.wantEvents("request INVITE", "request INVITE")
			}},
		{"a fork to another number is not a merged request", "RFC 3261 §8.2.2.2, §16.7", udp, func(b *bundle) {
			b.say(b.farRequest("INVITE", branch))
			other := b.farRequest("INVITE", "z9hG4bK-other-number")
			uri := strings.Fields(other)[1]
			b.say(strings.Replace(other, uri, "sip:+15550199@192.0.2.1", 1))
			b.wantTimes("SIP/2.0 482")
			b.wantEvents("request INVITE", "request INVITE")
		}},
		{"an invalid request is answered without a transaction, an invalid ACK is not", "RFC 3261 §8.2, §17.1.1.3", udp,
			func(b *bundle) {
				b.say(strings.Replace(b.farRequest("INVITE", branch), "CSeq: 3 INVITE", "CSeq: 3 BYE", 1))
				b.say(strings.Replace(b.farRequest("ACK", branch), "CSeq: 3 ACK", "CSeq: 3 BYE", 1))
				b.say("NONSENSE\r\n\r\n")
				b.wantTimes("SIP/2.0", "0s")
				res := b.last("SIP/2.0 400")
				if !strings.Contains(res.Get(sip.KindWarning), "CSeq") {
					b.t.Errorf("the 400's Warning %q does not name CSeq", res.Get(sip.KindWarning))
				}
				b.wantEvents()
				b.wantLive(0)
				if m := b.layer.Metrics(); m.Invalid.Load() != 1 || m.Discarded.Load() != 2 {
					b.t.Errorf("counted %d invalid and %d discarded, want 1 and 2", m.Invalid.Load(),
						m.Discarded.Load())
				}
			}},
		{"an RFC 2543 client's INVITE and ACK are matched without the magic cookie", "RFC 3261 §17.2.3", udp,
			func(b *bundle) {
				b.say(b.farRequest("INVITE", "1"))
				b.say(b.farRequest("INVITE", "1"))
				b.wantEvents("request INVITE")
				b.mustRespond(404, false)
				b.say(tagged(b.farRequest("ACK", "1"), b.last("SIP/2.0 404").ToTag()))
				b.at(10 * time.Second)
				b.wantTimes("SIP/2.0 404", "0s")
				b.wantLive(0)
				// Another call with the same branch is another transaction.
				b.say(strings.Replace(b.farRequest("INVITE", "1"), "call-2@", "call-3@", 1))
				b.wantEvents("request INVITE", "request INVITE")
			}},
		{"a repeated request waits in trying, then gets the latest provisional, then the final until timer J",
			"RFC 3261 §17.2.2", udp, func(b *bundle) {
				b.say(b.farRequest("OPTIONS", branch))
				b.say(b.farRequest("OPTIONS", branch))
				b.wantTimes("SIP/2.0")
				b.mustRespond(182, false)
				b.say(b.farRequest("OPTIONS", branch))
				b.wantTimes("SIP/2.0 182", "0s", "0s")
				b.mustRespond(200, false)
				b.at(31 * time.Second)
				b.say(b.farRequest("OPTIONS", branch))
				b.wantTimes("SIP/2.0 200", "0s", "31s")
				b.wantLive(1)
				b.at(33 * time.Second)
				b.wantLive(0)
				b.wantEvents("request OPTIONS")
			}},
		{"over TCP timer J is zero", "RFC 3261 §17.2.2", tcp, func(b *bundle) {
			b.say(b.farRequest("OPTIONS", branch))
			b.mustRespond(200, false)
			b.wantLive(0)
		}},
		{"same branch, other method: another transaction", "RFC 3261 §17.2.3", udp, func(b *bundle) {
			b.say(b.farRequest("OPTIONS", branch))
			b.say(strings.Replace(b.farRequest("INFO", branch), "call-2", "call-3", 1))
			b.wantEvents("request OPTIONS", "request INFO")
		}},
		{"same branch, other sent-by: another transaction", "RFC 3261 §17.2.3", udp, func(b *bundle) {
			b.say(b.farRequest("OPTIONS", branch))
			b.say(strings.NewReplacer("SIP/2.0/UDP 192.0.2.2:5060", "SIP/2.0/UDP 192.0.2.2:5062",
				"call-2", "call-3").Replace(b.farRequest("OPTIONS", branch)))
			b.wantEvents("request OPTIONS", "request OPTIONS")
		}},
		{"a dropped request is never answered and leaves no transaction", "our rule", udp, func(b *bundle) {
			b.onRequest = func(s *transaction.Server, _ *sip.Message) { s.Drop() }
			b.say(b.farRequest("INVITE", branch))
			b.at(5 * time.Second)
			b.say(b.farRequest("INVITE", branch))
			b.at(time.Minute)
			b.wantTimes("SIP/2.0")
			b.wantEvents("request INVITE", "request INVITE")
			if live, pending := b.layer.Live(), b.layer.Pending(); live != 0 || pending != 0 {
				b.t.Errorf("%d transactions are left, %d of them unanswered", live, pending)
			}
		}},
		{"Idle waits for the final response to every request", "our rule", udp, func(b *bundle) {
			b.say(tagged(b.farRequest("BYE", "z9hG4bK-bye"), "t"))
			b.wantEvents("request BYE")
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			if err := b.layer.Idle(ctx); err == nil {
				b.t.Error("Idle returned nil though a BYE is unanswered")
			}
			b.mustRespond(200, false)
			if err := b.layer.Idle(context.Background()); err != nil {
				b.t.Errorf("Idle = %v after the last answer, want nil", err)
			}
		}},
		{"a panic in the user's callback is recovered, counted and answered", "our rule", udp, func(b *bundle) {
			b.onRequest = func(*transaction.Server, *sip.Message) { panic("on purpose") }
			b.say(b.farRequest("OPTIONS", branch))
			b.wantTimes("SIP/2.0 500", "0s")
			b.onRequest = nil
			b.say(strings.Replace(b.farRequest("OPTIONS", "z9hG4bK-2"), "call-2", "call-3", 1))
			b.wantEvents("request OPTIONS", "request OPTIONS")
			if n := b.layer.Metrics().Panics.Load(); n != 1 {
				b.t.Errorf("%d panics counted, want 1", n)
			}
		}},
	} {
		t.Run(c.name+" ("+c.clause+")", func(t *testing.T) { inBubble(t, c.proto, transaction.Config{}, c.run) })
	}
}

// TestOverload: above the bound new requests get 503 and none are sent; requests inside dialogs have a higher bound.
func TestOverload(t *testing.T) {
	inBubble(t, udp, transaction.Config{MaxTransactions: 8, RetryAfter: 1500 * time.Millisecond}, func(b *bundle) {
		for i := range 8 {
			b.say(strings.Replace(b.farRequest("OPTIONS", branch+strconv.Itoa(i)), "call-2", "call"+strconv.Itoa(i), 1))
		}
		b.wantTimes("SIP/2.0")
		b.say(strings.Replace(b.farRequest("OPTIONS", "z9hG4bK-more"), "call-2", "more", 1))
		if got := b.last("SIP/2.0 503").Get(sip.KindRetryAfter); got != "2" {
			t.Errorf("Retry-After = %q, want 2: whole seconds, rounded up", got)
		}
		_, err := b.layer.Send(newRequest(sip.INVITE), b.target(), client{b})
		if !errors.Is(err, transaction.ErrOverload) {
			t.Errorf("Send = %v, want ErrOverload", err)
		}
		inDialog := tagged(b.farRequest("BYE", "z9hG4bK-bye"), "t")
		b.say(inDialog)
		if got := b.events[len(b.events)-1]; got != "request BYE" {
			t.Errorf("last event is %q, want the BYE of a dialog", got)
		}
		b.say(strings.Replace(inDialog, "bye", "bye2", 1))
		b.wantTimes("SIP/2.0 503", "0s", "0s")
		b.wantLive(9)
	})
}

// TestOverloadLeavesRoomForUrgentRequests: in both directions, with the same bound as requests inside dialogs.
func TestOverloadLeavesRoomForUrgentRequests(t *testing.T) {
	urgent := func(m *sip.Message, _ transport.Flow) bool { return strings.HasPrefix(m.CallID(), "urgent") }
	inBubble(t, udp, transaction.Config{MaxTransactions: 16, Urgent: urgent}, func(b *bundle) {
		for i := range 16 {
			b.say(strings.Replace(b.farRequest("OPTIONS", branch+strconv.Itoa(i)), "call-2", "call"+strconv.Itoa(i), 1))
		}
		b.say(strings.Replace(b.farRequest("INVITE", "z9hG4bK-more"), "call-2", "more", 1))
		b.wantTimes("SIP/2.0 503", "0s")
		b.say(strings.Replace(b.farRequest("INVITE", "z9hG4bK-urgent"), "call-2", "urgent", 1))
		if got := b.events[len(b.events)-1]; got != "request INVITE" {
			t.Errorf("last event is %q, want the urgent INVITE", got)
		}
		_, err := b.layer.Send(newRequest(sip.INVITE), b.target(), client{b})
		if !errors.Is(err, transaction.ErrOverload) {
			t.Errorf("Send = %v, want ErrOverload", err)
		}
		if _, err := b.layer.SendWith(newRequest(sip.INVITE), b.target(), client{b}, true); err != nil {
			t.Errorf("SendWith an urgent request = %v, want nil", err)
		}
		b.say(strings.Replace(b.farRequest("INVITE", "z9hG4bK-urgent2"), "call-2", "urgent2", 1))
		b.wantTimes("SIP/2.0 503", "0s", "0s")
		b.wantLive(18)
	})
}

// TestCallbackOrder: events that arrive while the user handles one of the same transaction wait, in order; other
// transactions do not wait.
func TestCallbackOrder(t *testing.T) {
	inBubble(t, udp, transaction.Config{}, func(b *bundle) {
		enter, leave := make(chan struct{}), make(chan struct{})
		b.onRequest = func(tx *transaction.Server, req *sip.Message) {
			if req.Method() == sip.INVITE {
				close(enter)
				<-leave
				b.note("request done")
			}
		}
		// Request would block the network's only goroutine, so use others.
		go b.layer.Receive(parse(t, b.farRequest("INVITE", branch)), nil, b.node.Endpoint().Arrive(nil, farAddr))
		<-enter
		b.layer.Receive(parse(t, b.farRequest("CANCEL", branch)), nil, b.node.Endpoint().Arrive(nil, farAddr))
		b.say(strings.Replace(b.farRequest("OPTIONS", "z9hG4bK-2"), "call-2", "call-3", 1))
		b.wantEvents("request INVITE", "request OPTIONS")
		close(leave)
		synctest.Wait()
		b.wantEvents("request INVITE", "request OPTIONS", "request done", "cancel")
	})
}

// tagged adds a To tag to the text of a request from far.
func tagged(request, tag string) string {
	return strings.Replace(request, "@192.0.2.1>\nCall", "@192.0.2.1>;tag="+tag+"\nCall", 1)
}

func parse(t *testing.T, text string) *sip.Message {
	t.Helper()
	m, p := sip.Parse(strings.ReplaceAll(text, "\n", "\r\n"), nil)
	if p != nil {
		t.Fatalf("parse: %v", p)
	}
	return m
}
