package edge

import (
	"bufio"
	"context"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/calls/sip/transport"
)

func TestAnUnknownSourceGetsNothing(t *testing.T) {
	covers(t, "S1")
	b := setup(t)
	stranger := newAgentAt(t, "stranger", "127.0.0.77")
	stranger.edge = b.core.edge
	begun := time.Now()
	stranger.send(stranger.newCall(outside, served).request("INVITE", sdp))
	stranger.send(stranger.newCall(outside, served).request("OPTIONS", ""))
	stranger.send("rubbish\r\n\r\n")
	await(t, "the log line", func() bool { return strings.Contains(b.log.String(), "unknown source") })
	b.core.quiet() // the edge works and has read on
	b.svc.quiet()
	if m := stranger.next(50 * time.Millisecond); m.raw != "" {
		t.Errorf("a stranger got an answer:\n%s", m.raw)
	}
	most := 1 + int(time.Since(begun)/time.Second) // one for each second that they were spread over
	if got := strings.Count(b.log.String(), "unknown source"); got < 1 || got > most {
		t.Errorf("%d log lines for three messages at once, want 1 for each second, at most %d", got, most)
	}
}

// A Contact may lead to an address that no group allows. Our connection to it is not a message from it.
func TestOwnConnectionsAreNotLoggedAsUnknownSources(t *testing.T) {
	covers(t, "S1", "S10")
	b := setup(t, func(c *bedConfig) {
		c.service.Transport, c.service.Bind.TCP = "tcp", "127.0.0.2:0"
	})
	ln, err := net.Listen("tcp", "127.0.0.77:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	g := b.e.byName["teams"]
	m := sip.NewRequest(sip.OPTIONS, "sip:"+ln.Addr().String()+";transport=tcp")
	m.Add(sip.KindMaxForwards, "70")
	m.Add(sip.KindFrom, "<sip:us@127.0.0.2>;tag="+b.e.newTag())
	m.Add(sip.KindTo, "<sip:them@127.0.0.77>")
	m.Add(sip.KindCallID, sip.NewCallID())
	m.Add(sip.KindCSeq, "1 OPTIONS")
	to := transport.Target{From: g.eps[transport.TCP], Addr: ln.Addr().(*net.TCPAddr).AddrPort()}
	if _, err := b.e.tx.Send(m, to,
		&peerProbe{e: b.e, a: g.peers[0].fixed, timer: time.NewTimer(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	out := textproto.NewReader(bufio.NewReader(conn))
	if l, err := out.ReadLine(); err != nil || !strings.HasPrefix(l, "OPTIONS ") {
		t.Fatalf("read %q, %v, want our OPTIONS", l, err)
	}
	if log := b.log.String(); strings.Contains(log, "unknown source") {
		t.Errorf("the log calls our own connection an unknown source:\n%s", log)
	}
	// A request over it is from an unknown source.
	if _, err := conn.Write([]byte(strings.Replace(b.core.newCall(outside, served).request("INVITE", sdp),
		"SIP/2.0/UDP", "SIP/2.0/TCP", 1))); err != nil {
		t.Fatal(err)
	}
	await(t, "the request to be dropped", func() bool { return b.dropped() == 1 })
	_ = conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	for {
		l, err := out.ReadLine()
		if err != nil {
			break
		}
		if strings.HasPrefix(l, "SIP/2.0 ") {
			t.Errorf("a request from an unknown source by our own connection got %s", l)
		}
	}
}

func TestARequestForAnotherGroupsCallIsRefused(t *testing.T) {
	covers(t, "S4")
	b := setup(t)
	up, down := b.established(b.core, b.svc, outside, served)
	forged := *up
	forged.a = b.zoom
	b.zoom.send(forged.request("BYE", ""))
	b.zoom.expect("481")
	b.svc.quiet()
	b.over(up, down)
	b.idle()
}

func TestWithoutAnIndexNewCallsGet503(t *testing.T) {
	covers(t, "S5")
	b := setup(t)
	up, down := b.established(b.core, b.svc, outside, served)
	b.setView(nil)
	if err := b.e.Ready(); err == nil {
		t.Errorf("Ready() = nil without an index")
	}
	for _, method := range []string{"OPTIONS", "INVITE"} {
		c := b.core.newCall(outside, served)
		b.core.send(c.request(method, ""))
		m := b.core.expect("503")
		if m.get("Retry-After") != "5" || !strings.Contains(m.get("Warning"), "number index") {
			t.Errorf("503 to %s lacks Retry-After or the reason:\n%s", method, m.raw)
		}
		if method == "INVITE" {
			b.core.send(c.ackFailure(m))
		}
	}
	b.over(up, down)
	b.idle()
	b.setView(testIndex())
	if err := b.e.Ready(); err != nil {
		t.Errorf("Ready() = %v with an index", err)
	}
}

func TestDrainKeepsCallsAndRefusesNewOnes(t *testing.T) {
	covers(t, "S6")
	b := setup(t)
	up, down := b.established(b.core, b.svc, outside, served)
	drained := make(chan error, 1)
	go func() { drained <- b.e.Drain(context.Background()) }()
	await(t, "the drain to begin", func() bool { return b.e.Ready() != nil })
	if m := b.core.ping(); !m.is("503") || m.get("Retry-After") == "" {
		t.Errorf("OPTIONS while draining got\n%s", m.raw)
	}
	c := b.core.newCall(outside, served)
	b.core.send(c.request("INVITE", sdp))
	b.core.send(c.ackFailure(b.core.expect("503")))
	select {
	case err := <-drained:
		t.Errorf("Drain returned %v with a call up", err)
	default:
	}
	b.over(up, down)
	select {
	case err := <-drained:
		if err != nil {
			t.Errorf("Drain: %v", err)
		}
	case <-time.After(patience):
		t.Errorf("Drain did not return when the last call ended")
	}
	b.e.SetDraining(false)
	if err := b.e.Ready(); err != nil {
		t.Errorf("Ready() = %v after the drain was taken back", err)
	}
	up, down = b.established(b.core, b.svc, outside, served)
	b.over(up, down)
}

func TestShutdownEndsRemainingCalls(t *testing.T) {
	covers(t, "E4", "S6")
	b := setup(t, func(c *bedConfig) { c.shutdown = true })
	up, down := b.established(b.core, b.svc, outside, served)
	half := b.core.newCall(outside, open_)
	b.core.send(half.request("INVITE", sdp))
	b.core.expect("100")
	inv := b.zoom.expect("INVITE")
	callee := b.zoom.called(inv)
	b.zoom.send(callee.reply(inv, "180 Ringing", ""))
	b.core.expect("180")
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if err := b.e.Drain(ctx); err == nil {
		t.Errorf("Drain = nil with two calls up")
	}
	b.stop()
	got := b.core.expectAll("BYE", "503")
	b.core.send(up.reply(got[0], "200 OK", ""))
	b.core.send(half.ackFailure(got[1]))
	bye := b.svc.expect("BYE")
	if !strings.Contains(bye.get("Reason"), "shutting down") {
		t.Errorf("Reason of the BYE = %q, want it to say that the gateway is shutting down", bye.get("Reason"))
	}
	b.svc.send(down.reply(bye, "200 OK", ""))
	cancelled := b.zoom.expect("CANCEL")
	b.zoom.send(callee.reply(cancelled, "200 OK", ""))
	b.zoom.send(callee.reply(inv, "487 Request Terminated", ""))
	if err := <-b.stopped; err != nil {
		t.Errorf("Run: %v", err)
	}
	for range 2 {
		if r := b.record(); r.EndedBy != "tandem" {
			t.Errorf("record says ended by %s, want tandem", r.EndedBy)
		}
	}
}

func TestLimits(t *testing.T) {
	covers(t, "S7")
	refused := func(t *testing.T, b *bed, a *agent, from, to, why string) {
		t.Helper()
		c := a.newCall(from, to)
		a.send(c.request("INVITE", sdp))
		m := a.next(patience)
		if m.is("100") {
			m = a.next(patience)
		}
		if !m.is("503") {
			t.Fatalf("waited for 503 and got\n%s", m.raw)
		}
		if !strings.Contains(m.get("Warning"), why) {
			t.Errorf("503 says %q, want %q", m.get("Warning"), why)
		}
		a.send(c.ackFailure(m))
	}
	t.Run("calls in all", func(t *testing.T) {
		b := setup(t, func(c *bedConfig) { c.cfg.Limits.MaxCalls = 1 })
		up, down := b.established(b.core, b.svc, outside, served)
		refused(t, b, b.core, outside, served, "maximum number of concurrent calls reached")
		// An emergency call is still admitted.
		em := b.svc.newCall(served, "911")
		b.svc.send(em.request("INVITE", sdp))
		b.svc.expect("100")
		inv := b.core.expect("INVITE")
		b.core.send(b.core.called(inv).reply(inv, "486 Busy Here", ""))
		b.core.expect("ACK")
		b.svc.send(em.ackFailure(b.svc.expect("486")))
		b.over(up, down)
		b.idle()
		up, down = b.established(b.core, b.svc, outside, served)
		b.over(up, down)
	})
	t.Run("calls of a group", func(t *testing.T) {
		b := setup(t, func(c *bedConfig) { c.service.MaxCalls = 1 })
		up, down := b.established(b.core, b.svc, outside, served)
		refused(t, b, b.core, outside, served, "concurrent calls of peer group teams reached")
		u2, d2 := b.established(b.core, b.zoom, outside, open_)
		b.over(u2, d2)
		b.over(up, down)
	})
	t.Run("the next call at once", func(t *testing.T) {
		b := setup(t, func(c *bedConfig) {
			c.cfg.Limits.MaxCalls, c.service.MaxCalls = 1, 1
			c.cfg.Limits.MaxCallsPerSecond = 100_000
		})
		for range 200 {
			c := b.core.newCall(outside, served)
			b.core.send(c.request("INVITE", sdp))
			b.core.expect("100")
			inv := b.svc.expect("INVITE")
			b.svc.send(b.svc.called(inv).reply(inv, "486 Busy Here", ""))
			b.core.send(c.ackFailure(b.core.expect("486")))
			b.svc.expect("ACK")
		}
	})
	t.Run("calls a second", func(t *testing.T) {
		b := setup(t, func(c *bedConfig) { c.core.MaxCallsPerSecond = 1 })
		// The burst is ten.
		for range 10 {
			c := b.core.newCall(outside, served)
			b.core.send(c.request("INVITE", sdp))
			b.core.expect("100")
			inv := b.svc.expect("INVITE")
			b.svc.send(b.svc.called(inv).reply(inv, "486 Busy Here", ""))
			b.svc.expect("ACK")
			b.core.send(c.ackFailure(b.core.expect("486")))
		}
		for i := 0; ; i++ {
			c := b.core.newCall(outside, served)
			b.core.send(c.request("INVITE", sdp))
			if m := b.core.next(patience); m.is("503") {
				if !strings.Contains(m.get("Warning"), "rate limit of peer group core-a exceeded") {
					t.Errorf("Warning = %q", m.get("Warning"))
				}
				b.core.send(c.ackFailure(m))
				return
			}
			if i > 3 {
				t.Fatalf("the limit of one call a second lets %d more through", i)
			}
			inv := b.svc.expect("INVITE")
			b.svc.send(b.svc.called(inv).reply(inv, "486 Busy Here", ""))
			b.svc.expect("ACK")
			b.core.send(c.ackFailure(b.core.expect("486")))
		}
	})
}

func TestMalformedRequestsAreAnswered(t *testing.T) {
	covers(t, "S8")
	b := setup(t)
	for _, c := range []struct{ name, from, to, want string }{
		{"CSeq of another method", "CSeq: 1 INVITE", "CSeq: 1 BYE", "400"},
		{"version", " SIP/2.0\r\n", " SIP/7.0\r\n", "505"},
		{"scheme", "INVITE sip:", "INVITE http:", "416"},
		{"Content-Length too large", "Content-Length: " + strconv.Itoa(len(sdp)), "Content-Length: 99999", "400"},
	} {
		call := b.core.newCall(outside, served)
		text := call.request("INVITE", sdp)
		if !strings.Contains(text, c.from) {
			t.Fatalf("%s: the request has no %q", c.name, c.from)
		}
		b.core.send(strings.Replace(text, c.from, c.to, 1))
		m := b.core.next(patience)
		if !m.is(c.want) {
			t.Errorf("%s: got %q, want %s", c.name, m.start, c.want)
		}
	}
	b.svc.quiet()
}

func TestRequestsOutsideADialog(t *testing.T) {
	b := setup(t)
	t.Run("OPTIONS", func(t *testing.T) {
		covers(t, "N1")
		for _, hops := range []string{"70", "0"} {
			b.core.send(b.core.newCall(outside, served).request("OPTIONS", "", "Max-Forwards: "+hops))
			m := b.core.expect("200")
			for _, f := range []string{"Allow", "Accept", "Supported", "Contact"} {
				if m.get(f) == "" {
					t.Errorf("200 to OPTIONS with Max-Forwards %s lacks %s:\n%s", hops, f, m.raw)
				}
			}
			if !strings.Contains(m.get("Allow"), "NOTIFY") || strings.Contains(m.get("Allow"), "REFER") {
				t.Errorf("Allow = %q, want NOTIFY, and no REFER where it is refused", m.get("Allow"))
			}
		}
	})
	for _, c := range []struct{ row, method, want, allow string }{
		{"N2", "BYE", "481", ""}, {"N2", "UPDATE", "481", ""}, {"N2", "PRACK", "481", ""}, {"N2", "INFO", "481", ""},
		{"N2", "NOTIFY", "481", ""},
		{"N3", "REFER", "403", ""},
		{"N4", "REGISTER", "405", "INVITE"}, {"N4", "SUBSCRIBE", "405", "INVITE"}, {"N4", "MESSAGE", "405", "INVITE"},
		{"N4", "PUBLISH", "405", "INVITE"},
		{"N5", "invite", "501", "INVITE"}, {"N5", "HELLO", "501", "INVITE"},
	} {
		t.Run(c.method, func(t *testing.T) {
			extra := []string{}
			switch c.method {
			case "PRACK":
				extra = append(extra, "RAck: 1 1 INVITE")
			case "REFER":
				extra = append(extra, "Refer-To: <sip:x@127.0.0.1>")
			case "NOTIFY", "SUBSCRIBE", "PUBLISH":
				extra = append(extra, "Event: presence", "Subscription-State: active")
			}
			b.core.send(b.core.newCall(outside, served).request(c.method, "", extra...))
			m := b.core.expect(c.want)
			if !strings.Contains(m.get("Allow"), c.allow) {
				t.Errorf("Allow = %q, want it to name %s", m.get("Allow"), c.allow)
			}
			if m.get("Warning") == "" {
				t.Errorf("%s to %s lacks the reason:\n%s", c.want, c.method, m.raw)
			}
		})
	}
	covers(t, "N2", "N3", "N4", "N5")
	b.svc.quiet()
}

func TestStrayMessages(t *testing.T) {
	covers(t, "N6", "N7", "N8", "A16")
	b := setup(t)
	c := b.core.newCall(outside, served)
	c.request("INVITE", sdp) // never sent
	b.core.send(c.cancel())
	b.core.expect("481")
	c.remoteTag = "n1-aaaaaaaaaaaaaaaaaaaa"
	b.core.send(c.ack(1, "")) // ignored
	b.core.send(c.request("BYE", ""))
	if m := b.core.expect("481"); !strings.Contains(m.get("Warning"), "no such call") {
		t.Errorf("Warning = %q", m.get("Warning"))
	}
	c.remoteTag = "n7-aaaaaaaaaaaaaaaaaaaa"
	b.core.send(c.request("BYE", ""))
	if m := b.core.expect("481"); !strings.Contains(m.get("Warning"), "node n7") {
		t.Errorf("Warning = %q, want the node that has the call", m.get("Warning"))
	}
	b.core.send("SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP " + b.core.edge.String() + ";branch=z9hG4bKnobody\r\nFrom: " +
		"<sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n")
	b.core.quiet()
	if got := b.events("tandem_sip_transaction_events_total", "stray_response"); got != 1 {
		t.Errorf("%v stray responses counted, want 1", got)
	}
}
