package edge

import (
	"context"
	"strings"
	"testing"
	"time"
)

// emergency places a call of a service that the core answers with 486, and checks that it was carried as an emergency
// call. The INVITE that the core got is returned.
func (b *bed) emergency(from *agent, caller, called string, extra ...string) msg {
	b.t.Helper()
	c := from.newCall(caller, called)
	from.send(c.request("INVITE", sdp, extra...))
	from.expect("100")
	inv := b.core.expect("INVITE")
	b.core.send(b.core.called(inv).reply(inv, "486 Busy Here", ""))
	b.core.expect("ACK")
	from.send(c.ackFailure(from.expect("486")))
	if r := b.record(); !r.Emergency || r.Status != 486 || r.Direction != "toCore" {
		b.t.Errorf("the record of a call to %s is %+v, want an emergency call to the core with 486", called, r)
	}
	return inv
}

// screened makes the first service one whose callers are screened.
func screened(c *bedConfig) {
	c.service.Service = "teamsDirectRouting"
	c.route.BaseDomain, c.route.Countries = "gw.example.com", []string{"US"}
}

func TestEmergencyCallsAreNotScreened(t *testing.T) {
	covers(t, "X1")
	b := setup(t, screened)
	host := "acme.1r1.gw.example.com"
	for _, target := range []string{"sip:911@" + host, "sip:+911@" + host + ";user=phone",
		"sip:+911@" + host + ":5061;user=phone;transport=tls", "tel:911", "tel:+911", "tel:911;phone-context=+1",
		"sip:911;phone-context=+1@" + host + ";user=phone", "sip:9-1-1@" + host, "sip:%2B911@" + host,
		"sip:+1911@" + host, "sip:112@" + host, "sip:911@nobody.example.net", "sip:911@unknown.1r1.gw.example.com"} {
		c := b.svc.newCall(outside, "911")
		c.target = target
		b.svc.send(c.request("INVITE", sdp))
		b.svc.expect("100")
		inv := b.core.expect("INVITE")
		b.core.send(b.core.called(inv).reply(inv, "486 Busy Here", ""))
		b.core.expect("ACK")
		b.svc.send(c.ackFailure(b.svc.expect("486")))
		if r := b.record(); !r.Emergency {
			t.Errorf("%s: record %+v, want an emergency call", target, r)
		}
	}
	// A subscriber's number that starts like one is screened.
	c := b.svc.newCall(outside, "+9112345678")
	c.target = "sip:+9112345678@" + host
	b.refusal(c, "403", sdp)
	b.idle()
}

func TestEmergencyCallsNeedNoIndex(t *testing.T) {
	covers(t, "X2")
	b := setup(t, screened)
	b.setView(nil)
	b.emergency(b.svc, outside, "911")
	b.emergency(b.zoom, outside, "+1911")
	b.refusal(b.svc.newCall(direct, outside), "503", sdp)
	b.refusal(b.core.newCall(outside, "911"), "503", sdp)
	b.idle()
}

func TestEmergencyCallsPassWhileDraining(t *testing.T) {
	covers(t, "X3")
	b := setup(t, screened)
	b.e.SetDraining(true)
	b.emergency(b.svc, outside, "+911")
	b.refusal(b.svc.newCall(direct, outside), "503", sdp)
	b.e.SetDraining(false)

	up, down := b.established(b.core, b.zoom, outside, open_)
	drained := make(chan error, 1)
	go func() { drained <- b.e.Drain(context.Background()) }()
	await(t, "the drain to begin", func() bool { return b.e.Ready() != nil })
	b.emergency(b.zoom, outside, "911")
	b.over(up, down)
	if err := <-drained; err != nil {
		t.Errorf("Drain: %v", err)
	}
	b.idle()
}

func TestEmergencyCallsAreNotLimited(t *testing.T) {
	covers(t, "X4")
	for name, limit := range map[string]option{
		"calls in all":                 func(c *bedConfig) { c.cfg.Limits.MaxCalls = 1 },
		"calls of the calling group":   func(c *bedConfig) { c.service.MaxCalls = 1 },
		"calls of the core's group":    func(c *bedConfig) { c.core.MaxCalls = 1 },
		"calls a second in all":        func(c *bedConfig) { c.cfg.Limits.MaxCallsPerSecond = 1 },
		"calls a second of the caller": func(c *bedConfig) { c.service.MaxCallsPerSecond = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t, screened, limit)
			up, down := b.established(b.svc, b.core, direct, "911")
			// More than the burst that the rate allows.
			for range 13 {
				b.emergency(b.svc, outside, "+911")
			}
			b.over(up, down)
			b.idle()
		})
	}
}

func TestEmergencyCallsUseTheSpareTransactions(t *testing.T) {
	covers(t, "X5")
	b := setup(t, screened, func(c *bedConfig) { c.tx.MaxTransactions = 16 })
	for !b.zoom.ping().is("503") {
	}
	b.emergency(b.svc, outside, "911")
	b.idle()
}

func TestEmergencyCallWithReplaces(t *testing.T) {
	covers(t, "X6")
	b := setup(t, screened)
	inv := b.emergency(b.svc, outside, "911", "Replaces: a@b;to-tag=1;from-tag=2")
	if got := inv.all("Replaces"); len(got) != 0 {
		t.Errorf("the core got Replaces %q, which names a dialog it does not have", got)
	}
	b.idle()
}

func TestEmergencyCallsTryPeersThatAreDown(t *testing.T) {
	covers(t, "X7")
	b := setup(t, screened)
	core := b.e.byName["core-a"].peers[0].fixed
	for range b.e.byName["core-a"].cfg.Options.DownAfter {
		core.bad(time.Now(), "on purpose", time.Minute, b.e.log)
	}
	if core.usable(time.Now()) {
		t.Fatal("the core's peer is up")
	}
	b.emergency(b.svc, outside, "+911")
	b.idle()
}

func TestEmergencyCallsAreNotEndedForTheirLength(t *testing.T) {
	covers(t, "X8")
	b := setup(t, screened, func(c *bedConfig) { c.cfg.Timers.MaxDuration = time.Second })
	up, down := b.established(b.svc, b.core, outside, "911")
	// An ordinary call that started later ends first.
	u2, d2 := b.established(b.zoom, b.core, open_, outside)
	for _, end := range []*talk{u2, d2} {
		bye := end.a.expect("BYE")
		if bye.get("Call-ID") != end.callID {
			t.Fatalf("%s got BYE for %s, want the ordinary call %s", end.a.name, bye.get("Call-ID"), end.callID)
		}
		end.a.send(end.reply(bye, "200 OK", ""))
	}
	b.over(up, down)
	b.idle()
}

func TestEmergencyCallsFromTheCoreAreRefused(t *testing.T) {
	covers(t, "X9")
	b := setup(t, screened)
	for _, called := range []string{"911", "+911", "+1911", "112"} {
		m := b.refusal(b.core.newCall(outside, called), "403", sdp)
		if w := m.get("Warning"); !strings.Contains(w, "from a service only") {
			t.Errorf("Warning = %q", w)
		}
	}
	b.idle()
}

func TestWhatStillRefusesAnEmergencyCall(t *testing.T) {
	covers(t, "X10")
	b := setup(t, screened)
	b.refusal(b.svc.newCall(outside, "911"), "483", sdp, "Max-Forwards: 0")
	b.refusal(b.svc.newCall(outside, "911"), "420", sdp, "Require: unheard-of")
	b.refusal(b.svc.newCall(outside, "911"), "400", sdp, "Contact:")
	b.e.stopping.Store(true)
	if m := b.refusal(b.svc.newCall(outside, "911"), "503", sdp); m.get("Retry-After") == "" {
		t.Errorf("503 of a process that ends its calls:\n%s", m.raw)
	}
	b.e.stopping.Store(false)
	b.idle()
}

func TestRefusalOfAnotherCountrysEmergencyNumber(t *testing.T) {
	covers(t, "X11")
	const why = "but is not configured as one here"
	b := setup(t, screened)
	says := func(c *talk, status, text string) {
		t.Helper()
		if m := b.refusal(c, status, sdp); !strings.Contains(m.get("Warning"), text) {
			t.Errorf("Warning of %s = %q, want %q in it", status, m.get("Warning"), text)
		}
	}
	says(b.svc.newCall(outside, "999"), "403", "999 is an emergency number in 48 countries, "+why)
	says(b.core.newCall(outside, "000"), "484", "000 is an emergency number in 4 countries, "+why)
	b.e.SetDraining(true)
	says(b.svc.newCall(outside, "999"), "503", why)
	b.e.SetDraining(false)
	b.setView(nil)
	says(b.svc.newCall(outside, "999"), "503", why)
	b.idle()
}
