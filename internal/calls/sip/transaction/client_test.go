package transaction_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/calls/sip/transaction"
	"github.com/tandemgw/tandem/internal/calls/sip/transport"
)

const (
	udp = transport.UDP
	tcp = transport.TCP
)

// TestClient covers the paths of both client state machines, timers first. clause names the rule.
func TestClient(t *testing.T) {
	for _, c := range []struct {
		name, clause string
		proto        transport.Proto
		run          func(b *bundle)
	}{
		{"INVITE over UDP doubles timer A until timer B", "RFC 3261 §17.1.1.2", udp, func(b *bundle) {
			b.mustSend(newRequest(sip.INVITE))
			b.at(31900 * time.Millisecond)
			b.wantEvents()
			b.at(33 * time.Second)
			b.wantTimes("INVITE", "0s", "500ms", "1.5s", "3.5s", "7.5s", "15.5s", "31.5s")
			b.wantEvents("failed: no response in time")
			b.wantLive(0)
		}},
		{"INVITE over TCP is sent once and timer B ends it", "RFC 3261 §17.1.1.2", tcp, func(b *bundle) {
			b.mustSend(newRequest(sip.INVITE))
			b.at(33 * time.Second)
			b.wantTimes("INVITE", "0s")
			b.wantEvents("failed: no response in time")
			b.wantLive(0)
		}},
		{"a provisional response stops retransmission and time-out of an INVITE, and each is passed to the user",
			"RFC 3261 §17.1.1.2", udp, func(b *bundle) {
				b.mustSend(newRequest(sip.INVITE))
				req := b.last("INVITE")
				b.at(600 * time.Millisecond)
				b.answer(req, 100, "")
				b.answer(req, 180, "a")
				b.answer(req, 180, "a")
				b.answer(req, 183, "b")
				b.at(10 * time.Minute)
				b.wantTimes("INVITE", "0s", "500ms")
				b.wantEvents("100", "180 a", "180 a", "183 b")
				b.wantLive(1)
				b.answer(req, 200, "a")
				b.wantEvents("100", "180 a", "180 a", "183 b", "200 a")
			}},
		{"a non-2xx final is acknowledged by the layer, again when it is repeated, until timer D",
			"RFC 3261 §17.1.1.2, §17.1.1.3", udp, func(b *bundle) {
				invite := newRequest(sip.INVITE, sip.Line(sip.KindRoute, "<sip:192.0.2.2;lr>"))
				b.mustSend(invite)
				req := b.last("INVITE")
				b.answer(req, 486, "busy")
				ack := b.last("ACK")
				for _, k := range []sip.Kind{sip.KindVia, sip.KindFrom, sip.KindCallID, sip.KindRoute} {
					if k == sip.KindVia {
						if strip(ack.Get(k)) != strip(req.Get(k)) {
							b.t.Errorf("ACK's Via = %q, want the INVITE's %q", ack.Get(k), req.Get(k))
						}
					} else if ack.Get(k) != req.Get(k) {
						b.t.Errorf("ACK's %v = %q, want the INVITE's %q", k, ack.Get(k), req.Get(k))
					}
				}
				if ack.RequestURI() != req.RequestURI() || ack.ToTag() != "busy" || ack.Get(sip.KindCSeq) != "7 ACK" {
					b.t.Errorf("ACK has wrong URI, To tag or CSeq:\n%s", ack)
				}
				b.at(20 * time.Second)
				b.answer(req, 486, "busy")
				b.wantTimes("ACK", "0s", "20s")
				b.at(31900 * time.Millisecond)
				b.wantLive(1)
				b.at(33 * time.Second)
				b.wantLive(0)
				b.answer(req, 486, "busy")
				b.wantTimes("ACK", "0s", "20s")
				b.wantEvents("486 busy")
			}},
		{"over TCP timer D is zero", "RFC 3261 §17.1.1.2", tcp, func(b *bundle) {
			b.mustSend(newRequest(sip.INVITE))
			b.answer(b.last("INVITE"), 503, "x")
			b.wantTimes("ACK", "0s")
			b.wantLive(0)
			b.wantEvents("503 x")
		}},
		{"every 2xx is passed to the user for timer M, from all forks, until the user has acknowledged it",
			"RFC 6026 §7.2, §8.4", udp, func(b *bundle) {
				tx := b.mustSend(newRequest(sip.INVITE))
				req := b.last("INVITE")
				b.answer(req, 200, "a")
				b.answer(req, 200, "a")
				b.answer(req, 200, "b")
				b.answer(req, 180, "c")
				b.answer(req, 486, "c")
				b.wantEvents("200 a", "200 a", "200 b")
				b.wantTimes("ACK")
				ack := newRequest(sip.ACK)
				ack.Set(sip.KindTo, sip.WithParam(ack.Get(sip.KindTo), "tag", "a"))
				if err := tx.Ack(ack, b.target()); err != nil {
					b.t.Fatal(err)
				}
				b.at(10 * time.Second)
				b.answer(req, 200, "a")
				b.wantTimes("ACK", "0s", "10s")
				b.answer(req, 200, "b")
				b.wantEvents("200 a", "200 a", "200 b", "200 b")
				b.at(31900 * time.Millisecond)
				b.wantLive(1)
				b.at(33 * time.Second)
				b.wantLive(0)
				b.answer(req, 200, "b")
				b.wantEvents("200 a", "200 a", "200 b", "200 b")
			}},
		{"timer M runs over TCP too", "RFC 6026 §7.2", tcp, func(b *bundle) {
			b.mustSend(newRequest(sip.INVITE))
			b.answer(b.last("INVITE"), 200, "a")
			b.at(31 * time.Second)
			b.wantLive(1)
			b.at(33 * time.Second)
			b.wantLive(0)
		}},
		{"CANCEL waits for a provisional response", "RFC 3261 §9.1", udp, func(b *bundle) {
			tx := b.mustSend(newRequest(sip.INVITE))
			if err := tx.Cancel(sip.Line(sip.KindReason, "Q.850;cause=16")); err != nil {
				b.t.Fatal(err)
			}
			b.at(400 * time.Millisecond)
			b.wantTimes("CANCEL")
			req := b.last("INVITE")
			b.answer(req, 100, "")
			b.wantTimes("CANCEL", "400ms")
			cancel := b.last("CANCEL")
			if strip(cancel.Get(sip.KindVia)) != strip(req.Get(sip.KindVia)) ||
				cancel.Get(sip.KindCSeq) != "7 CANCEL" ||
				cancel.RequestURI() != req.RequestURI() || cancel.ToTag() != "" ||
				cancel.Get(sip.KindReason) != "Q.850;cause=16" {
				b.t.Errorf("CANCEL does not match its INVITE:\n%s", cancel)
			}
			_ = tx.Cancel() // a second call changes nothing
			b.answer(cancel, 200, "x")
			b.answer(req, 487, "x")
			b.wantEvents("100", "487 x")
			b.wantTimes("ACK", "400ms")
			b.at(40 * time.Second)
			b.wantTimes("CANCEL", "400ms")
			b.wantLive(0)
		}},
		{"CANCEL is retransmitted like any other request", "RFC 3261 §9.1, §17.1.2.2", udp, func(b *bundle) {
			tx := b.mustSend(newRequest(sip.INVITE))
			b.answer(b.last("INVITE"), 180, "x")
			if err := tx.Cancel(); err != nil {
				b.t.Fatal(err)
			}
			b.at(8 * time.Second)
			b.wantTimes("CANCEL", "0s", "500ms", "1.5s", "3.5s", "7.5s")
		}},
		{"an INVITE without a final response ends 64×T1 after its CANCEL", "RFC 3261 §9.1", udp, func(b *bundle) {
			tx := b.mustSend(newRequest(sip.INVITE))
			b.answer(b.last("INVITE"), 180, "x")
			b.at(5 * time.Second)
			if err := tx.Cancel(); err != nil {
				b.t.Fatal(err)
			}
			b.settle()
			b.answer(b.last("CANCEL"), 200, "x")
			b.at(36900 * time.Millisecond)
			b.wantEvents("180 x")
			b.at(38 * time.Second)
			b.wantEvents("180 x", "failed: no response in time")
			b.wantLive(0)
		}},
		{"a 2xx that crosses the CANCEL is passed to the user", "RFC 3261 §9.1", udp, func(b *bundle) {
			tx := b.mustSend(newRequest(sip.INVITE))
			b.answer(b.last("INVITE"), 180, "x")
			if err := tx.Cancel(); err != nil {
				b.t.Fatal(err)
			}
			b.settle()
			b.answer(b.last("INVITE"), 200, "x")
			b.wantEvents("180 x", "200 x")
			if err := tx.Cancel(); !errors.Is(err, transaction.ErrDone) {
				b.t.Errorf("Cancel after the final response = %v, want ErrDone", err)
			}
		}},
		{"an abandoned INVITE is not retransmitted but still accepts responses", "our API", udp, func(b *bundle) {
			tx := b.mustSend(newRequest(sip.INVITE))
			b.at(1 * time.Second)
			tx.Abandon()
			b.at(20 * time.Second)
			b.wantTimes("INVITE", "0s", "500ms")
			b.answer(b.last("INVITE"), 200, "late")
			b.wantEvents("200 late")
			b.at(60 * time.Second)
			b.wantLive(0)
		}},
		{"an abandoned INVITE ends with timer B", "RFC 3261 §17.1.1.2", udp, func(b *bundle) {
			b.mustSend(newRequest(sip.INVITE)).Abandon()
			b.at(33 * time.Second)
			b.wantTimes("INVITE", "0s")
			b.wantEvents("failed: no response in time")
			b.wantLive(0)
		}},
		{"responses that match nothing are dropped", "RFC 3261 §17.1.3, §8.1.3.3", udp, func(b *bundle) {
			b.mustSend(newRequest(sip.INVITE))
			req := b.last("INVITE")
			other := sip.NewResponse(req, 200, "", "x")
			other.Set(sip.KindCSeq, "7 BYE")
			b.say(other.String())
			other = sip.NewResponse(req, 200, "", "x")
			other.Set(sip.KindVia, "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKunknown")
			b.say(other.String())
			other = sip.NewResponse(req, 200, "", "x")
			other.Add(sip.KindVia, "SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bKsecond")
			b.say(other.String())
			other = sip.NewResponse(req, 200, "", "x")
			other.Set(sip.KindVia, req.Get(sip.KindVia)+", SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bKsecond")
			b.say(other.String())
			b.wantEvents()
			if got := b.layer.Metrics().StrayResponses.Load(); got != 4 {
				b.t.Errorf("%d stray responses counted, want 4", got)
			}
		}},
		{"a request over UDP doubles timer E up to T2 until timer F", "RFC 3261 §17.1.2.2", udp, func(b *bundle) {
			b.mustSend(newRequest(sip.BYE))
			b.at(33 * time.Second)
			b.wantTimes("BYE", "0s", "500ms", "1.5s", "3.5s", "7.5s", "11.5s", "15.5s", "19.5s", "23.5s",
				"27.5s", "31.5s")
			b.wantEvents("failed: no response in time")
			b.wantLive(0)
		}},
		{"a request over TCP is sent once and timer F ends it", "RFC 3261 §17.1.2.2", tcp, func(b *bundle) {
			b.mustSend(newRequest(sip.BYE))
			b.at(33 * time.Second)
			b.wantTimes("BYE", "0s")
			b.wantEvents("failed: no response in time")
			b.wantLive(0)
		}},
		{"after a provisional response a request is repeated every T2, and timer F still runs",
			"RFC 3261 §17.1.2.2", udp, func(b *bundle) {
				b.mustSend(newRequest(sip.OPTIONS))
				b.at(600 * time.Millisecond)
				b.answer(b.last("OPTIONS"), 100, "")
				b.at(33 * time.Second)
				b.wantTimes("OPTIONS", "0s", "500ms", "1.5s", "5.5s", "9.5s", "13.5s", "17.5s", "21.5s",
					"25.5s", "29.5s")
				b.wantEvents("100", "failed: no response in time")
			}},
		{"a repeated final is absorbed for timer K", "RFC 3261 §17.1.2.2", udp, func(b *bundle) {
			b.mustSend(newRequest(sip.BYE))
			req := b.last("BYE")
			b.answer(req, 200, "x")
			b.at(4 * time.Second)
			b.answer(req, 200, "x")
			b.answer(req, 481, "x")
			b.wantEvents("200 x")
			b.wantLive(1)
			b.at(5100 * time.Millisecond)
			b.wantLive(0)
			b.wantTimes("BYE", "0s")
		}},
		{"over TCP timer K is zero", "RFC 3261 §17.1.2.2", tcp, func(b *bundle) {
			b.mustSend(newRequest(sip.BYE))
			b.answer(b.last("BYE"), 200, "x")
			b.wantLive(0)
			b.wantEvents("200 x")
		}},
		{"a connection that cannot be made fails the request at once", "RFC 3261 §18.4", tcp, func(b *bundle) {
			b.node.Refuse(farAddr, true)
			b.mustSend(newRequest(sip.INVITE))
			b.wantEvents("failed: connect to 192.0.2.2:5060 over TCP: connection refused")
			b.wantLive(0)
		}},
		{"a BYE whose connection is lost is sent again over a new one", "field-pains 5", tcp,
			func(b *bundle) {
				b.mustSend(newRequest(sip.BYE))
				b.at(time.Second)
				b.node.Break(farAddr)
				b.at(2 * time.Second)
				b.wantTimes("BYE", "0s", "1s")
				b.answer(b.last("BYE"), 200, "x")
				b.wantEvents("200 x")
				b.wantLive(0)
			}},
		{"a request is sent again once only", "our rule", tcp, func(b *bundle) {
			b.mustSend(newRequest(sip.BYE))
			b.node.Break(farAddr)
			b.settle()
			b.node.Break(farAddr)
			b.settle()
			b.wantTimes("BYE", "0s", "0s")
			b.wantEvents("failed: connection with 192.0.2.2:5060 over TCP: broken")
			b.wantLive(0)
		}},
		{"a connection lost after a provisional response does not end the INVITE", "RFC 3261 §18.2.2", tcp,
			func(b *bundle) {
				b.mustSend(newRequest(sip.INVITE))
				b.answer(b.last("INVITE"), 180, "x")
				b.node.Break(farAddr)
				b.settle()
				b.wantTimes("INVITE", "0s")
				b.answer(b.last("INVITE"), 200, "x")
				b.wantEvents("180 x", "200 x")
			}},
	} {
		t.Run(c.name+" ("+c.clause+")", func(t *testing.T) { inBubble(t, c.proto, transaction.Config{}, c.run) })
	}
}

// TestSlowTimers: T1 and T2 may be set for slow paths; time-outs longer than one turn of the wheel still fire when they
// are due.
func TestSlowTimers(t *testing.T) {
	inBubble(t, udp, transaction.Config{T1: 2 * time.Second, T2: 8 * time.Second}, func(b *bundle) {
		b.mustSend(newRequest(sip.BYE))
		b.at(127 * time.Second)
		b.wantEvents()
		b.at(129 * time.Second)
		b.wantEvents("failed: no response in time")
		if got := b.times("BYE"); len(got) != 18 || got[1] != "2s" || got[2] != "6s" || got[3] != "14s" ||
			got[4] != "22s" {
			t.Errorf("BYE arrived at %v", got)
		}
		b.wantLive(0)
	})
}

// strip removes received and rport, which far's transport added.
func strip(via string) string {
	via = sip.WithParam(via, "received", "")
	if v, err := sip.ParseVia(via); err == nil {
		if _, ok := v.RPort(); ok {
			via = sip.WithParam(via, "rport", "")
		}
	}
	return via
}

// TestLarge: a request that does not fit a datagram goes over TCP, or over UDP if that fails (RFC 3261 §18.1.1).
func TestLarge(t *testing.T) {
	big := func() *sip.Message {
		m := newRequest(sip.INVITE)
		m.SetBody("application/sdp", strings.Repeat("a=filler\r\n", 150))
		return m
	}
	setup := func(b *bundle) transport.Target {
		near := b.net.Node(transport.EndpointConfig{Proto: tcp, Bind: nearAddr}, b.layer)
		ep := b.net.Node(transport.EndpointConfig{Proto: udp, Bind: nearAddr, Large: near.Endpoint()},
			b.layer).Endpoint()
		return transport.Target{From: ep, Addr: farAddr}
	}
	t.Run("it goes over TCP with the Via of TCP", func(t *testing.T) {
		inBubble(t, udp, transaction.Config{}, func(b *bundle) {
			target := setup(b)
			b.net.Node(transport.EndpointConfig{Proto: tcp, Bind: farAddr}, farSide{b})
			if _, err := b.layer.Send(big(), target, client{b}); err != nil {
				t.Fatal(err)
			}
			b.settle()
			if via := b.last("INVITE").Get(sip.KindVia); !strings.HasPrefix(via, "SIP/2.0/TCP") {
				t.Errorf("Via = %q, want TCP", via)
			}
			if f := b.heard[0].flow.Proto(); f != tcp {
				t.Errorf("arrived over %v, want TCP", f)
			}
		})
	})
	t.Run("it goes over UDP where TCP is refused, and the next one at once", func(t *testing.T) {
		inBubble(t, udp, transaction.Config{}, func(b *bundle) {
			target := setup(b) // far has no TCP node
			for range 2 {
				if _, err := b.layer.Send(big(), target, client{b}); err != nil {
					t.Fatal(err)
				}
				b.settle()
				if via := b.last("INVITE").Get(sip.KindVia); !strings.HasPrefix(via, "SIP/2.0/UDP") {
					t.Errorf("Via = %q, want UDP", via)
				}
			}
			if n := b.layer.Metrics().LargeFallbacks.Load(); n != 1 {
				t.Errorf("%d requests tried TCP first, want 1: the second should know", n)
			}
			b.at(600 * time.Millisecond)
			if got := len(b.times("INVITE")); got != 4 {
				t.Errorf("far received %d INVITEs, want 4: retransmission must run over UDP", got)
			}
			b.wantEvents()
		})
	})
}
