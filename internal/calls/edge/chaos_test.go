package edge

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// TestAnythingAtAnyTime has both sides send random requests and responses at random times: the edge must not panic,
// must answer every request but ACK, and must keep nothing in the end. The bed checks the rest.
func TestAnythingAtAnyTime(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			b := setup(t, func(c *bedConfig) {
				c.peers = 2
				c.service.Refer = "relay"
				c.cfg.Timers.FailoverAfter = 200 * time.Millisecond
			})
			r := rand.New(rand.NewPCG(seed, 7))
			methods := []string{"INVITE", "ACK", "BYE", "CANCEL", "UPDATE", "PRACK", "INFO", "NOTIFY", "REFER",
				"OPTIONS", "MESSAGE", "WEIRD"}
			answers := []string{"100 Trying", "180 Ringing", "183 Session Progress", "200 OK", "202 Accepted",
				"302 Moved", "401 No", "404 Gone", "408 Late", "481 No", "486 Busy", "491 Glare",
				"503 Full", "603 Never"}
			extras := []string{"RAck: 1 1 INVITE", "Require: 100rel", "RSeq: 1", "Session-Expires: 1",
				"Max-Forwards: 0", "Retry-After: 1", "Contact: <sip:odd>", "Contact: <tel:+1>",
				"Record-Route: <sip:127.0.0.1:9>", "Record-Route: bad", "CSeq: 1 INFO",
				"Replaces: a;to-tag=b;from-tag=c", "Reason: Q.850;cause=16"}
			agents := []*agent{b.core, b.svc, b.more[0], b.zoom}
			var talks []*talk
			var asked []struct {
				c *talk
				m msg
			}
			extra := func() (out []string) {
				for range r.IntN(3) {
					out = append(out, extras[r.IntN(len(extras))])
				}
				return out
			}
			body := func() string { return []string{"", sdp}[r.IntN(2)] }
			hear := func() {
				for _, a := range agents {
					for len(a.in) > 0 {
						m := <-a.in
						switch {
						case strings.HasPrefix(m.start, "SIP/2.0"):
							for _, c := range talks {
								if c.callID == m.get("Call-ID") && r.IntN(2) == 0 {
									c.answered(m)
								}
							}
						case m.is("INVITE") && m.tag("To") == "":
							c := a.called(m)
							talks = append(talks, c)
							fallthrough
						default:
							for _, c := range talks {
								if c.callID == m.get("Call-ID") {
									asked = append(asked, struct {
										c *talk
										m msg
									}{c, m})
								}
							}
						}
					}
				}
			}
			for range 1500 {
				hear()
				switch k := r.IntN(10); {
				case k == 0 || len(talks) == 0:
					a := agents[r.IntN(len(agents))]
					c := a.newCall([]string{outside, served}[r.IntN(2)],
						[]string{served, open_, outside, "911"}[r.IntN(4)])
					a.send(c.request("INVITE", sdp))
					talks = append(talks, c)
				case k < 5 && len(asked) > 0:
					x := asked[r.IntN(len(asked))]
					x.c.a.send(x.c.replyAs(x.m, answers[r.IntN(len(answers))], fmt.Sprintf("tag%d", r.IntN(3)),
						body(), extra()...))
				default:
					c := talks[r.IntN(len(talks))]
					switch m := methods[r.IntN(len(methods))]; m {
					case "CANCEL":
						if c.inviteText != "" {
							c.a.send(c.cancel())
						}
					case "ACK":
						c.a.send(c.ack(max(c.cseq, 1), body(), extra()...))
					default:
						c.a.send(c.request(m, body(), extra()...))
					}
				}
			}
			// It still works.
			await(t, "an answer to OPTIONS", func() bool {
				b.zoom.send(b.zoom.newCall(outside, served).request("OPTIONS", ""))
				for m := b.zoom.next(patience); m.raw != ""; m = b.zoom.next(patience) {
					if m.is("200") && strings.HasSuffix(m.get("CSeq"), "OPTIONS") {
						return true
					}
				}
				return false
			})
			// The BYEs get no responses: their timeouts clean up.
			b.e.cut("the test is over")
			b.idle()
			await(t, "transactions to end", func() bool { return b.e.tx.Pending() == 0 })
		})
	}
}
