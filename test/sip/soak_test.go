//go:build deep

package sip_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/sim/ua"
	"github.com/tandemgw/tandem/test/rig"
)

// TestSoakWithLoss sends 50 calls a second for a minute through the gateway, over UDP on both legs, while the agents on
// both sides drop 2 % of the packets they send and 2 % of those they receive. Every call must be answered once and
// ended on both sides, the gateway must count exactly as many, and no call may leave anything behind.
//
// The agents use sipgo, not SIPp: SIPp aborts a call if it processes events out of order after a stall of the machine.
func TestSoakWithLoss(t *testing.T) {
	const (
		rate  = 50
		calls = rate * 60
		hold  = 2 * time.Second
		share = 0.02
	)
	g := startSIPp(t, "udp", func(g *sippGateway) { g.timers = "failoverAfter: 8s, ringTimeout: 30s" })
	before := rig.Quiet(t, g.p, 20*time.Second)
	core, service := g.trunks["core"], g.trunks["direct-routing"]

	// answered counts the answers for each Call-ID on the service's side.
	var mu sync.Mutex
	answered := map[string]int{}
	problems := map[string]int{}
	problem := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		problems[fmt.Sprintf(format, args...)]++
	}
	var far sync.WaitGroup
	callee, err := ua.New(ua.Config{Name: "soak-callee", UDP: service.peers[0], Keep: 200_000,
		Loss: &ua.Loss{In: share, Out: share, Seed: 23},
		Invite: func(ctx context.Context, in *ua.Incoming) {
			far.Add(1)
			defer far.Done()
			if got := ua.ParseAddress(in.Invite.Header("Contact")).Host; !strings.HasPrefix(got, "nwind.1r1.") {
				problem("Contact names %s", got)
			}
			c, err := in.Play(ctx, ua.Behaviour{Ring: 150 * time.Millisecond})
			if err != nil || c == nil {
				problem("the callee could not answer: %v", err)
				return
			}
			mu.Lock()
			answered[c.ID()]++
			mu.Unlock()
			far.Add(1)
			go func() {
				defer far.Done()
				select {
				case <-c.Ended():
					if c.EndedBy() != "remote" {
						problem("the callee's call was ended by %q", c.EndedBy())
					}
				case <-time.After(60 * time.Second):
					problem("the callee got no BYE within a minute")
				case <-ctx.Done():
				}
			}()
		}})
	if err != nil {
		t.Fatal(err)
	}
	caller, err := ua.New(ua.Config{Name: "soak-caller", UDP: core.peers[0], Keep: 200_000,
		Loss: &ua.Loss{In: share, Out: share, Seed: 11}})
	if err != nil {
		t.Fatal(err)
	}
	ctx := within(t, 5*time.Minute)
	var near sync.WaitGroup
	tick := time.NewTicker(time.Second / rate)
	defer tick.Stop()
	begin := time.Now()
	for range calls {
		<-tick.C
		near.Go(func() {
			to := "+441632960140"
			uri := "sip:" + to + "@" + core.bind + ";user=phone"
			c, err := caller.Call(ctx, ua.Request{Transport: "udp", Destination: core.bind, URI: uri,
				From: "<sip:+442890180001@core.example;user=phone>", To: "<" + uri + ">",
				Headers: []ua.Header{{Name: "Allow", Value: ua.Allow}}, Body: ua.SDP("core", 1)})
			if err != nil {
				problem("INVITE could not be sent: %v", err)
				return
			}
			m, err := c.Wait(ctx)
			switch {
			case err != nil:
				problem("INVITE: %v", err)
				return
			case m.Status() != 200:
				problem("INVITE got %s", m.StartLine())
				return
			case m.Header(header) != "NW-0140":
				problem("%s is %q in the response", header, m.Header(header))
			}
			up := time.NewTimer(hold)
			defer up.Stop()
			select {
			case <-up.C:
			case <-c.Ended():
				problem("the call was ended by the other side: %s", c.EndedBy())
				return
			}
			if bye, err := c.Bye(ctx); err != nil || bye.Status() != 200 {
				problem("BYE got %v, %v", bye, err)
			}
		})
	}
	near.Wait()
	far.Wait()
	took := time.Since(begin)
	mu.Lock()
	for p, n := range problems {
		t.Errorf("%d times: %s", n, p)
	}
	if len(answered) != calls {
		t.Errorf("the callee answered %d different calls, want %d", len(answered), calls)
	}
	mu.Unlock()
	if n := caller.Calls() + callee.Calls(); n != 0 {
		t.Errorf("the agents still have %d calls", n)
	}
	t.Logf("%d calls in %v; the caller's side dropped %d packets, the callee's side %d", calls, took.Round(time.Second),
		caller.Thrown(), callee.Thrown())
	if caller.Thrown() < calls/20 || callee.Thrown() < calls/20 {
		t.Error("too few packets were dropped: the test is not effective")
	}
	for _, a := range []*ua.Agent{caller, callee} {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
	// Transactions absorb retransmissions for 32 s; after that no call may leave anything behind.
	m := rig.WaitMetrics(t, g.p, 60*time.Second, "calls or transactions are left", func(m rig.Metrics) bool {
		calls, a := m.Sum("tandem_calls_active")
		tx, b := m.Sum("tandem_sip_transactions")
		return a > 0 && b > 0 && calls == 0 && tx == 0
	})
	if m["go_goroutines"] > before["go_goroutines"]+5 {
		t.Errorf("%v goroutines, %v before", m["go_goroutines"], before["go_goroutines"])
	}
	total, ended := m.Sum("tandem_calls_total")
	answers, _ := m.Sum("tandem_calls_total", `outcome="answered"`)
	if total != calls || answers != calls || ended == 0 {
		t.Errorf("tandem counts %v calls and %v answered, want %d each: a lost packet must not make or end a call",
			total, answers, calls)
	}
}
