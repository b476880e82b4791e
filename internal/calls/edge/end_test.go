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
	b.ended(up, down, "has lasted as long")
}

func TestSessionTimer(t *testing.T) {
	covers(t, "E2", "E5")
	b := setup(t)
	up := b.core.newCall(outside, served)
	b.core.send(up.request("INVITE", sdp, "Supported: timer", "Session-Expires: 1", "Min-SE: 1"))
	b.core.expect("100")
	inv := b.svc.expect("INVITE")
	if inv.get("Session-Expires") != "1" || inv.get("Min-SE") != "1" {
		t.Errorf("the session timer's lines did not pass:\n%s", inv.raw)
	}
	down := b.svc.called(inv)
	b.svc.send(down.reply(inv, "200 OK", sdp, "Session-Expires: 1;refresher=uac", "Require: timer"))
	ok := b.core.expect("200")
	if ok.get("Session-Expires") != "1;refresher=uac" {
		t.Errorf("Session-Expires of 200 = %q", ok.get("Session-Expires"))
	}
	up.answered(ok)
	b.core.send(up.ack(1, ""))
	b.svc.expect("ACK")
	// One refresh, then none.
	begun := time.Now()
	b.core.send(up.request("UPDATE", "", "Session-Expires: 2;refresher=uac"))
	upd := b.svc.expect("UPDATE")
	b.svc.send(down.reply(upd, "200 OK", "", "Session-Expires: 2;refresher=uac"))
	b.core.expect("200")
	b.ended(up, down, "refreshed the session")
	if d := time.Since(begun); d < 1900*time.Millisecond {
		t.Errorf("the call ended %v after a refresh for 2 s", d)
	}
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
				// The next ones are answered on the near side until the time-out ends the call.
				for {
					m := b.core.next(patience)
					if m.is("BYE") {
						b.core.send(up.reply(m, "200 OK", ""))
						break
					}
					if !m.is("OPTIONS") {
						t.Fatalf("core got\n%s", m.raw)
					}
					b.core.send(up.reply(m, "405 Method Not Allowed", "")) // any answer but 481 and 408 will do
				}
				for m := b.svc.next(patience); ; m = b.svc.next(patience) {
					if m.is("BYE") {
						b.svc.send(down.reply(m, "200 OK", ""))
						break
					}
				}
				if r := b.record(); !strings.Contains(r.Reason, "far side no longer knows the call") {
					t.Errorf("record = %+v", r)
				}
				b.idle()
				return
			}
			b.ended(up, down, "far side no longer knows the call")
		})
	}
}

func TestWhoDoesNotAnswerOptionsIsNotProbed(t *testing.T) {
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
			answer := func() { asked.send((&talk{a: asked, localTag: "o"}).reply(asked.expect("OPTIONS"), "200 OK", "")) }
			answer() // outside any call
			up, down := b.established(b.core, b.svc, outside, served)
			// It takes 64*T1 = 2 s to find silence out, after the first probe at 1 s.
			for range 4 {
				answer()
			}
			silent.quiet()
			b.over(up, down)
			b.idle()
		})
	}
}
