package edge

import (
	"strings"
	"testing"
	"time"
)

// ended answers the BYEs that both ends get, and checks that the record gives the reason.
func (b *bed) ended(up, down *talk, why string) {
	b.t.Helper()
	for _, end := range []*talk{up, down} {
		bye := end.a.expect("BYE")
		if !strings.Contains(bye.get("Reason"), why) {
			b.t.Errorf("Reason of BYE to %s = %q, want %q in it", end.a.name, bye.get("Reason"), why)
		}
		end.a.send(end.reply(bye, "200 OK", ""))
	}
	if r := b.record(); r.EndedBy != "tandem" || !strings.Contains(r.Reason, why) || r.DurationSeconds <= 0 {
		b.t.Errorf("record = %+v, want %q in its reason", r, why)
	}
	b.idle()
}

func TestTheLongestCallEnds(t *testing.T) {
	covers(t, "E1")
	b := setup(t, func(c *bedConfig) { c.cfg.Timers.MaxDuration = time.Second })
	up, down := b.established(b.core, b.svc, outside, served)
	b.ended(up, down, "maximum call duration")
}

// timer returns the time left until a time of the agent's call; 0 if it is not set.
func (b *bed) timer(end *talk, what int) time.Duration {
	b.t.Helper()
	c := b.callOf(end)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.times[what].IsZero() {
		return 0
	}
	return time.Until(c.times[what])
}

// expire sets a time of the agent's call to now.
func (b *bed) expire(end *talk, what int) {
	b.t.Helper()
	c := b.callOf(end)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at(what, time.Now())
	c.arm()
}

func (b *bed) callOf(end *talk) *call {
	b.t.Helper()
	en, ok := b.e.calls.get(baseTag(end.remoteTag))
	if !ok {
		b.t.Fatalf("%s is in no call", end.a.name)
	}
	return en.c
}

// near reports whether d can be the rest of a time of want that was set since the test began.
func (b *bed) near(d, want time.Duration) bool { return d <= want && d >= want-time.Since(b.begun) }

func TestSessionTimer(t *testing.T) {
	covers(t, "E2", "E5")
	b := setup(t)
	up := b.core.newCall(outside, served)
	b.core.send(up.request("INVITE", sdp, "Supported: timer", "Session-Expires: 1800", "Min-SE: 90"))
	b.core.expect("100")
	inv := b.svc.expect("INVITE")
	if inv.get("Session-Expires") != "1800" || inv.get("Min-SE") != "90" {
		t.Errorf("the session timer's lines did not pass:\n%s", inv.raw)
	}
	down := b.svc.called(inv)
	b.svc.send(down.reply(inv, "200 OK", sdp, "Session-Expires: 90;refresher=uac", "Require: timer"))
	ok := b.core.expect("200")
	if ok.get("Session-Expires") != "90;refresher=uac" {
		t.Errorf("Session-Expires of 200 = %q", ok.get("Session-Expires"))
	}
	up.answered(ok)
	b.core.send(up.ack(1, ""))
	b.svc.expect("ACK")
	if d := b.timer(up, atSession); !b.near(d, 90*time.Second) {
		t.Errorf("the session ends in %v, want 90 s", d)
	}
	// One refresh, then none.
	b.core.send(up.request("UPDATE", "", "Session-Expires: 120;refresher=uac"))
	upd := b.svc.expect("UPDATE")
	b.svc.send(down.reply(upd, "200 OK", "", "Session-Expires: 120;refresher=uac"))
	b.core.expect("200")
	if d := b.timer(up, atSession); !b.near(d, 120*time.Second) {
		t.Errorf("the session ends in %v after a refresh for 120 s", d)
	}
	b.expire(up, atSession)
	b.ended(up, down, "session timer expired")
}

// RFC 4028 §4: the absolute minimum of a session interval is 90 s.
func TestASessionIntervalBelowTheMinimumEndsNoCall(t *testing.T) {
	covers(t, "E7", "E8")
	b := setup(t)
	for _, c := range []struct{ says, passes string }{
		{"5;refresher=uac", "90;refresher=uac"},
		{"5 ;refresher=uas", "90;refresher=uas"},
		{"0", "90"},
		{"89", "90"},
		{"soon", "soon"},
		{"-90", "-90"},
	} {
		up := b.core.newCall(outside, served)
		b.core.send(up.request("INVITE", sdp, "Supported: timer"))
		b.core.expect("100")
		inv := b.svc.expect("INVITE")
		down := b.svc.called(inv)
		b.svc.send(down.reply(inv, "200 OK", sdp, "Session-Expires: "+c.says))
		ok := b.core.expect("200")
		if got := ok.get("Session-Expires"); got != c.passes {
			t.Errorf("%q in the answer passed as %q, want %q", c.says, got, c.passes)
		}
		up.answered(ok)
		b.core.send(up.ack(1, ""))
		b.svc.expect("ACK")
		if d := b.timer(up, atSession); d != 0 {
			t.Errorf("%q ends the call after %v", c.says, d)
		}
		// In the response to a refresh too, which ends a timer agreed before.
		for _, says := range []string{"180;refresher=uac", c.says} {
			b.core.send(up.request("UPDATE", "", "Session-Expires: 180", "Supported: timer"))
			b.svc.send(down.reply(b.svc.expect("UPDATE"), "200 OK", "", "Session-Expires: "+says))
			b.core.expect("200")
		}
		if d := b.timer(up, atSession); d != 0 {
			t.Errorf("%q in the answer to UPDATE ends the call after %v", c.says, d)
		}
		b.over(up, down)
		b.record()
	}
	b.idle()
}

func TestARequestForAShortSessionIntervalIsRefused(t *testing.T) {
	covers(t, "E7")
	b := setup(t)
	short := []string{"Supported: 100rel, timer", "Session-Expires: 60;refresher=uac"}
	refused := func(m msg) {
		t.Helper()
		if m.get("Min-SE") != "90" || !strings.Contains(m.get("Warning"), "90 seconds") {
			t.Errorf("422 lacks Min-SE: 90 or the reason:\n%s", m.raw)
		}
	}
	refused(b.refusal(b.core.newCall(outside, served), "422", sdp, short...))
	b.record()
	b.svc.quiet()
	// A side that does not support the timer would not understand 422.
	up := b.core.newCall(outside, served)
	b.core.send(up.request("INVITE", sdp, "Session-Expires: 60", "Min-SE: 45"))
	b.core.expect("100")
	inv := b.svc.expect("INVITE")
	if inv.get("Session-Expires") != "90" || inv.get("Min-SE") != "90" {
		t.Errorf("a short interval went on as\n%s", inv.raw)
	}
	down := b.svc.called(inv)
	b.svc.send(down.reply(inv, "200 OK", sdp, "Session-Expires: 90;refresher=uas"))
	up.answered(b.core.expect("200"))
	b.core.send(up.ack(1, ""))
	b.svc.expect("ACK")
	for _, ends := range [][2]*talk{{up, down}, {down, up}} {
		from, to := ends[0], ends[1]
		from.a.send(from.request("UPDATE", "", short...))
		refused(from.a.expect("422"))
		from.a.send(from.request("INVITE", sdp, short...))
		m := from.a.expect("422")
		refused(m)
		from.a.send(from.ackFailure(m))
		to.a.quiet()
	}
	if d := b.timer(up, atSession); !b.near(d, 90*time.Second) {
		t.Errorf("the session ends in %v, want the 90 s agreed before", d)
	}
	// The other end's own 422 is relayed, with its minimum raised.
	b.core.send(up.request("UPDATE", "", "Supported: timer", "Session-Expires: 100"))
	b.svc.send(down.reply(b.svc.expect("UPDATE"), "422 Session Interval Too Small", "", "Min-SE: 30"))
	if m := b.core.expect("422"); m.get("Min-SE") != "90" {
		t.Errorf("Min-SE of the other end's 422 = %q", m.get("Min-SE"))
	}
	b.over(up, down)
	b.idle()
}

// No limit of ours refuses an emergency call.
func TestAnEmergencyCallIsNotRefusedForItsSessionInterval(t *testing.T) {
	covers(t, "E7")
	b := setup(t)
	up := b.svc.newCall(served, "911")
	b.svc.send(up.request("INVITE", sdp, "Supported: timer", "Session-Expires: 60"))
	b.svc.expect("100")
	inv := b.core.expect("INVITE")
	if inv.get("Session-Expires") != "90" {
		t.Errorf("Session-Expires = %q, want 90", inv.get("Session-Expires"))
	}
	down := b.core.called(inv)
	b.core.send(down.reply(inv, "200 OK", sdp))
	up.answered(b.svc.expect("200"))
	b.svc.send(up.ack(1, ""))
	b.core.expect("ACK")
	b.reinvited(down, up, "", sdp, sdp) // nor is a re-INVITE in it refused because it has no offer
	b.over(up, down)
	b.idle()
}

func TestAProbeFindsACallThatIsGone(t *testing.T) {
	covers(t, "E3")
	for _, answer := range []string{"481 Gone", ""} {
		t.Run(answer, func(t *testing.T) {
			b := setup(t, func(c *bedConfig) {
				c.cfg.Timers.ProbeEvery = time.Second
				c.core.Options, c.service.Options = Options{Every: 10 * time.Minute}, Options{Every: 10 * time.Minute}
			})
			for _, a := range []*agent{b.core, b.svc} { // once outside any call
				a.send((&talk{a: a, localTag: "o"}).reply(a.expect("OPTIONS"), "200 OK", ""))
			}
			up, down := b.established(b.core, b.svc, outside, served)
			o := b.core.expect("OPTIONS")
			if o.tag("To") != up.localTag || o.tag("From") != up.remoteTag {
				t.Errorf("the probe is not within the call:\n%s", o.raw)
			}
			b.core.send(up.reply(o, "200 OK", ""))
			o = b.svc.expect("OPTIONS")
			if answer != "" {
				b.svc.send(down.reply(o, answer, ""))
			} else {
				// The next ones are answered on the near side until the timeout ends the call.
				for {
					m := b.core.next(patience)
					if m.is("BYE") {
						b.core.send(up.reply(m, "200 OK", ""))
						break
					}
					if !m.is("OPTIONS") {
						t.Fatalf("core got\n%s", m.raw)
					}
					b.core.send(up.reply(m, "405 Method Not Allowed", "")) // any response but 481 and 408 will do
				}
				for m := b.svc.next(patience); ; m = b.svc.next(patience) {
					if m.raw == "" {
						t.Fatal("the far side got no BYE")
					}
					if m.is("BYE") {
						b.svc.send(down.reply(m, "200 OK", ""))
						break
					}
				}
				if r := b.record(); !strings.Contains(r.Reason, "called side no longer knows the call") {
					t.Errorf("record = %+v", r)
				}
				b.idle()
				return
			}
			b.ended(up, down, "called side no longer knows the call")
		})
	}
}

func TestSidesThatDoNotAnswerOptionsAreNotProbed(t *testing.T) {
	covers(t, "E3", "P7")
	for _, c := range []struct {
		name    string
		near    bool // it is the near side that does not answer
		passive string
	}{{"near passive", true, "c1"}, {"near off", true, ""}, {"far passive", false, "svc1"}, {"far off", false, ""}} {
		t.Run(c.name, func(t *testing.T) {
			b := setup(t, func(bc *bedConfig) {
				bc.cfg.Timers.ProbeEvery = time.Second
				bc.passive = c.passive
				if c.passive != "" || !c.near {
					bc.core.Options = Options{Every: 10 * time.Minute}
				}
				if c.passive != "" || c.near {
					bc.service.Options = Options{Every: 10 * time.Minute}
				}
			})
			asked, silent := b.core, b.svc
			if c.near {
				asked, silent = silent, asked
			}
			answer := func() {
				asked.send((&talk{a: asked, localTag: "o"}).reply(asked.expect("OPTIONS"),
					"200 OK", ""))
			}
			answer() // outside any call
			up, down := b.established(b.core, b.svc, outside, served)
			// It takes 64*T1 = 2 s to detect silence, after the first probe at 1 s.
			for range 4 {
				answer()
			}
			silent.quiet()
			b.over(up, down)
			b.idle()
		})
	}
}
