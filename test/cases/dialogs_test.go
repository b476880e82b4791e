package cases_test

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Case 18: a relayed transfer. The REFER's subscription outlives the BYE of the transferor (RFC 5057 §5.2,
// RFC 3515 §2.4.4), so the last NOTIFY is passed on (JsSIP#556, siphon-sip#220, #295).
func TestCase18NotifyAfterBye(t *testing.T) {
	t.Parallel()
	l := start(t)
	for _, v := range []struct {
		name  string
		after []string // Subscription-State and status of each NOTIFY after the BYE
	}{
		{"given", []string{"terminated;reason=noresource", "200 OK"}},
		{"active, then terminated",
			[]string{"active;expires=60", "180 Ringing", "terminated;reason=noresource", "200 OK"}},
		{"failed transfer", []string{"terminated;reason=noresource", "486 Busy Here"}},
	} {
		l.sub(t, v.name, func(t *testing.T) {
			c := l.toOC().setUp()
			refer(c, "<sip:+442079460777@"+l.net+"12>")
			notify(c, "refer", "active;expires=60", "100 Trying", 200)
			c.farHangsUp(referCSeq + 1)
			for i := 0; i < len(v.after); i += 2 {
				notify(c, "refer", v.after[i], v.after[i+1], 200)
			}
			c.nearSends("NOTIFY", "SIP/2.0 200 OK\r\n", fragment("refer", "terminated")...)
			if r := c.near.response("NOTIFY", c.id); r.code() != 481 {
				t.Errorf("NOTIFY after the last one was answered %q, want 481 (RFC 6665 §4.1.3)", r.start)
			}
		})
	}
}

// Case 18, several subscriptions: the id of "Event: refer;id=" is the CSeq number of the REFER on the leg on which the
// NOTIFY is sent (RFC 3515 §2.4.6).
func TestCase18NotifyNamesTheREFEROfItsLeg(t *testing.T) {
	t.Parallel()
	l := start(t)
	c := l.toOC().setUp()
	c.farSends("INFO", 50, "") // the legs' numbers differ
	c.near.reply(c.nearGets("INFO"), 200, "", "")
	c.far.response("INFO", c.farID())
	seen := refer(c, "<sip:+442079460777@"+l.net+"12>")
	number, _, _ := strings.Cut(seen.get("CSeq"), " ")
	m := notify(c, "refer;id="+number, "active;expires=60", "100 Trying", 200)
	if got := strings.ReplaceAll(m.get("Event"), " ", ""); got != "refer;id="+strconv.Itoa(referCSeq) {
		t.Errorf("the NOTIFY has Event: %s, want refer;id=%d, the REFER's number on its leg", got, referCSeq)
	}
	c.hangUp()
}

// Case 18: a REFER whose Refer-To carries Replaces is refused: it needs an INVITE that takes over a dialog, which is
// not implemented.
func TestCase18ReferWithReplaces(t *testing.T) {
	t.Parallel()
	l := start(t)
	c := l.toOC().setUp()
	stop := c.near.answerAll("REFER", 202)
	to := "<sip:+442079460777@" + l.net + "12?Replaces=a%40b%3Bto-tag%3D1%3Bfrom-tag%3D2>"
	c.farSends("REFER", referCSeq, "", "Refer-To: "+to)
	r := c.far.response("REFER", c.farID())
	if seen := stop(); len(seen) > 0 || r.code() < 400 {
		t.Errorf("answered %q and passed on %d times, want a refusal", r.start, len(seen))
	}
	c.hangUp()
}

const referCSeq = 60

// refer sends a REFER from the far side, which the near side accepts. It returns what the near side received.
func refer(c *call, to string) *message {
	c.near.t.Helper()
	c.farSends("REFER", referCSeq, "", "Refer-To: "+to)
	m := c.nearGets("REFER")
	c.near.reply(m, 202, "", "", "Contact: <sip:"+c.near.addr+">")
	if r := c.far.response("REFER", c.farID()); r.code() != 202 {
		c.near.t.Fatalf("REFER was answered %q, want 202", r.start)
	}
	return m
}

// fragment returns the header lines of a NOTIFY about a REFER (RFC 3515 §2.4.5).
func fragment(event, state string) []string {
	return []string{"Event: " + event, "Subscription-State: " + state, "Content-Type: message/sipfrag;version=2.0"}
}

// notify sends a NOTIFY from the near side. It must arrive at the far side, and the far side's response at the near
// side.
func notify(c *call, event, state, status string, code int) *message {
	c.near.t.Helper()
	quit, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	c.nearSends("NOTIFY", "SIP/2.0 "+status+"\r\n", fragment(event, state)...)
	go func() { // a response that is not the far side's ends the wait
		defer stop()
		c.near.await(finalOf("NOTIFY", c.id), quit.Done())
	}()
	m := c.far.poll(of("NOTIFY", c.farID()), quit.Done())
	if m == nil {
		c.near.t.Fatalf("NOTIFY %q was not passed on; the sender got %q", status, c.near.starts())
	}
	c.far.reply(m, code, "", "")
	if r := c.near.response("NOTIFY", c.id); r.code() != code {
		c.near.t.Errorf("NOTIFY was answered %q, want %d", r.start, code)
	}
	return m
}

// Case 19: no session interval below 90 s is accepted (RFC 4028 §4; JsSIP#324, drachtio-server#375). One in a 2xx must
// not end the call: it is read as 90 or ignored, and the interval that is passed on is not below 90.
func TestCase19SessionExpiresBelowMinimum(t *testing.T) {
	for _, v := range []string{"5;refresher=uac", "5;refresher=uas", "5", "1;refresher=uac", "0;refresher=uas",
		"89;refresher=uac"} {
		t.Run(v, func(t *testing.T) {
			t.Parallel()
			l := start(t)
			c := l.toOC()
			c.invite(offer, "Supported: timer")
			c.arrive()
			c.answer(200, offer, "Require: timer", "Session-Expires: "+v)
			r := c.answered(200)
			if s := r.get("Session-Expires"); s != "" && seconds(s) < 90 {
				t.Errorf("the caller gets Session-Expires: %s, want at least 90 or none", s)
			}
			c.ack()
			c.farGets("ACK")
			// The call must outlast the interval. A slow program cannot fail here: it has nothing to send.
			quit, stop := context.WithTimeout(context.Background(), 8*time.Second)
			defer stop()
			if m := c.near.poll(of("BYE", c.id), quit.Done()); m != nil {
				t.Fatalf("the call was ended (%s)", m.get("Reason"))
			}
			c.hangUp()
		})
	}
}

// Case 19, in requests: 422 with Min-SE of at least 90 (RFC 4028 §5, §6, §9).
func TestCase19SessionExpiresBelowMinimumInRequests(t *testing.T) {
	t.Parallel()
	l := start(t)
	check := func(t *testing.T, r *message) {
		t.Helper()
		if r.code() != 422 || seconds(r.get("Min-SE")) < 90 {
			t.Errorf("answered %q with Min-SE %q, want 422 with at least 90", r.start, r.get("Min-SE"))
		}
	}
	for _, v := range []string{"5", "30;refresher=uac", "89"} {
		l.sub(t, "INVITE "+v, func(t *testing.T) {
			c := l.toOC()
			stop := c.far.answerAll("INVITE", 486)
			c.invite(offer, "Supported: timer", "Session-Expires: "+v)
			r := c.near.response("INVITE", c.id)
			c.ackRefusal(r)
			if seen := stop(); len(seen) > 0 {
				t.Error("the INVITE was passed on")
			}
			check(t, r)
		})
	}
	c := l.toOC().setUp("Supported: timer")
	for _, method := range []string{"INVITE", "UPDATE"} {
		for _, v := range []string{"5", "x: 89;refresher=uac"} {
			name, value, ok := strings.Cut(v, ": ")
			if !ok {
				name, value = "Session-Expires", v
			}
			l.sub(t, "in a call, "+method+" "+v, func(t *testing.T) {
				stop := c.far.answerAll(method, 486)
				c.nearSends(method, offer, "Supported: timer", name+": "+value)
				r := c.near.response(method, c.id)
				if seen := stop(); len(seen) > 0 {
					t.Errorf("the %s was passed on", method)
				}
				check(t, r)
			})
		}
	}
	c.hangUp()
}

// seconds returns the delta-seconds before any parameter, -1 if there are none.
func seconds(v string) int {
	v, _, _ = strings.Cut(v, ";")
	n, err := strconv.Atoi(strings.TrimSpace(v))
	if err != nil {
		return -1
	}
	return n
}

// Case 23: the callee hangs up before its 200, which is lost at first, has arrived (pjproject#798). Strictly it must
// not (RFC 3261 §15), so its BYE is answered 481; when the 200 arrives, the call must be ended and not connected.
func TestCase23CalleeHangsUpBeforeItsLostAnswer(t *testing.T) {
	t.Parallel()
	l := start(t)
	c := l.toOC()
	c.invite(offer)
	c.arrive()
	c.answer(180, "")
	c.near.expect("180", func(m *message) bool { return m.code() == 180 && m.get("Call-ID") == c.id })
	c.farSends("BYE", 1, "")
	c.far.response("BYE", c.farID())
	c.answer(200, offer)
	begin := time.Now()
	// The caller gets a refusal, or an answer and then BYE.
	if r := c.near.response("INVITE", c.id); r.code() >= 300 {
		c.ackRefusal(r)
	} else {
		c.to, c.target = r.get("To"), r.contact()
		c.ack()
		c.near.reply(c.nearGets("BYE"), 200, "", "")
	}
	c.farGets("ACK")
	if d := time.Since(begin); d > teardown {
		t.Errorf("the call was ended after %v: not because of the callee's BYE", d)
	}
}

// teardown is less than the 32 s (64×T1) after which an unacknowledged call is ended, and more than a loaded machine
// needs for what happens at once.
const teardown = 25 * time.Second

// Case 25: if the offer is in the INVITE and the answer in the 2xx, each 2xx of the callee is acknowledged at once,
// whatever happens to the caller's ACK (RFC 3261 §13.2.2.4; siphon-sip#389).
func TestCase25AnswerIsAcknowledgedAtOnce(t *testing.T) {
	t.Parallel()
	l := start(t)
	c := l.toOC()
	c.invite(offer)
	c.arrive()
	for range 3 { // the second and third are retransmissions
		c.answer(200, offer)
	}
	c.answered(200)
	begin := time.Now()
	c.farGets("ACK") // the caller has not sent one
	if d := time.Since(begin); d > teardown {
		t.Errorf("the callee's 200 was acknowledged after %v: only when the call was abandoned", d)
	}
	c.ack()
	c.hangUp()
}

// Case 05: a caller behind NAT whose Contact cannot be reached (rvoip#167, sipgo PR#174). If its peer group has
// behindNat, in-dialog requests go to the source of the INVITE; otherwise they go to the Contact (RFC 3261 §12.2.1.1).
func TestCase05UnreachableContact(t *testing.T) {
	for _, nat := range []bool{true, false} {
		t.Run("behindNat "+strconv.FormatBool(nat), func(t *testing.T) {
			t.Parallel()
			l := start(t, "name: core\n", "name: core\n      behindNat: "+strconv.FormatBool(nat)+"\n")
			contacts := []string{"<sip:user@" + l.net + "77:5076>"} // nothing listens there
			if nat {
				contacts = []string{"<sip:user@0.0.0.0:5060>", "<sip:user@0.0.0.0>", "<sip:user@10.255.255.254:5076>",
					"<sip:user@192.168.1.2>", "<sip:user@100.64.1.1;transport=udp>",
					"<sip:user@169.254.3.4:5060>;expires=60"}
			}
			for _, contact := range contacts {
				l.sub(t, contact, func(t *testing.T) {
					c := l.toOC()
					c.contact = contact
					c.setUp()
					if nat {
						if bye := c.farHangsUp(1); !strings.HasPrefix(contact, "<"+bye.uri()+">") {
							t.Errorf("BYE names %s, want the caller's Contact %s", bye.uri(), contact)
						}
						return
					}
					c.farSends("BYE", 1, "")
					if r := c.far.response("BYE", c.farID()); r.code() != 200 {
						t.Errorf("BYE was answered %q, want 200", r.start)
					}
					l.toOC().setUp().hangUp() // by then a BYE to the source would have arrived
					if c.near.has(of("BYE", c.id)) {
						t.Error("BYE went to the source address although the peer group is not behind NAT")
					}
				})
			}
		})
	}
}
