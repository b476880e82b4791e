package sip_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/sim/core"
	"github.com/tandemgw/tandem/internal/sim/fixtures"
	"github.com/tandemgw/tandem/internal/sim/lab"
	"github.com/tandemgw/tandem/internal/sim/ua"
	"github.com/tandemgw/tandem/test/rig"
)

// TestCalls plays every fixture, and then the cases that fixtures cannot express, through one gateway between all
// neighbours: TLS with certificates on both sides towards the services, UDP and TCP towards the core.
func TestCalls(t *testing.T) {
	t.Parallel()
	l, p := rig.Start(t, lab.Options{PingEvery: time.Second},
		"calls.timers.failoverAfter=4s", "calls.timers.ringTimeout=10s")
	before := rig.Quiet(t, p, patience)
	_, calls, err := fixtures.Load()
	if err != nil {
		t.Fatal(err)
	}
	// Calls that need a peer to fail come last: a peer that failed is tried last for a while.
	slices.SortStableFunc(calls, func(a, b fixtures.Call) int { return len(a.Expect.Tried) - len(b.Expect.Tried) })
	for _, c := range calls {
		if len(c.Expect.Tried) > 0 {
			continue
		}
		t.Run("fixture/"+c.Name, func(t *testing.T) { play(t, l, c) })
	}
	t.Run("agents", func(t *testing.T) { agents(t, l) })
	for _, c := range calls {
		if len(c.Expect.Tried) == 0 {
			continue
		}
		t.Run("fixture/"+c.Name, func(t *testing.T) { play(t, l, c) })
	}
	t.Run("failover", func(t *testing.T) { failover(t, l) })

	if v := l.Violations(); len(v) > 0 {
		t.Errorf("the services saw broken rules:\n%s", strings.Join(v, "\n"))
	}
	rig.Quiet(t, p, patience)
	if n := l.Calls(); n != 0 {
		t.Errorf("the neighbours still have %d active calls", n)
	}
	allowed := before["go_goroutines"] + 30 // connections opened since
	rig.WaitMetrics(t, p, patience, fmt.Sprintf("more than %v goroutines", allowed), func(m rig.Metrics) bool {
		n, samples := m.Sum("go_goroutines")
		return samples > 0 && n <= allowed
	})
}

func play(t *testing.T, l *lab.Lab, c fixtures.Call) {
	r := l.Play(t.Context(), c)
	for _, p := range r.Problems {
		t.Errorf("%s (%s -> %s): %s", c.Title, c.From, c.To, p)
	}
}

// toTeams returns a call from the fixed core to a Direct Routing number.
func toTeams(n int) fixtures.Call {
	return fixtures.Call{Neighbour: "core-fixed", From: "+442890180001", To: fmt.Sprintf("+44163296%04d", n)}
}

// toCore returns a call from a Direct Routing number to the fixed core.
func toCore(n int) fixtures.Call {
	return fixtures.Call{Neighbour: "teams-1", From: "+441632960101", To: fmt.Sprintf("+44289018%04d", n)}
}

// up places a call and waits until both sides have confirmed it.
func up(t *testing.T, l *lab.Lab, f fixtures.Call, far string) (near, other *ua.Call) {
	t.Helper()
	ctx := within(t, patience)
	near, err := l.Place(ctx, f)
	if err != nil {
		t.Fatal(err)
	}
	m, err := near.Wait(ctx)
	if err != nil || m.Status() != 200 {
		t.Fatalf("Wait = %v, %v, want 200", m, err)
	}
	in, err := l.Agent(far).Log().WaitInvite(ctx, f.To)
	if err != nil {
		t.Fatal(err)
	}
	other = l.Agent(far).Dialog(in.CallID())
	if other == nil {
		t.Fatalf("%s has no call %s", far, in.CallID())
	}
	select {
	case <-other.Confirmed():
	case <-ctx.Done():
		t.Fatalf("%s got no ACK", far)
	}
	return near, other
}

func ended(t *testing.T, c *ua.Call, by string) {
	t.Helper()
	select {
	case <-c.Ended():
		if c.EndedBy() != by {
			t.Errorf("the call was ended by %q, want %q", c.EndedBy(), by)
		}
	case <-within(t, patience).Done():
		t.Error("the call was not ended")
	}
}

func agents(t *testing.T, l *lab.Lab) {
	for _, c := range []struct {
		name string
		call fixtures.Call
		far  string
	}{
		{"from the core", toTeams(150), "teams-1"},
		{"from Teams", toCore(1150), "core-fixed"},
	} {
		t.Run("CANCEL while it rings/"+c.name, func(t *testing.T) {
			t.Parallel()
			ctx := within(t, patience)
			l.Script(c.far).Set(c.call.To, ua.Behaviour{NoAnswer: true})
			call, err := l.Place(ctx, c.call)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := call.WaitResponse(ctx, 180); err != nil {
				t.Fatal(err)
			}
			if m, err := call.Cancel(ctx); err != nil || m.Status() != 200 {
				t.Errorf("CANCEL got %v, %v, want 200 (RFC 3261 §9.2)", m, err)
			}
			if m, err := call.Wait(ctx); err != nil || m.Status() != 487 {
				t.Errorf("INVITE got %v, %v, want 487 (RFC 3261 §9.2)", m, err)
			}
			in, err := l.Agent(c.far).Log().WaitInvite(ctx, c.call.To)
			if err != nil {
				t.Fatal(err)
			}
			for _, method := range []string{"CANCEL", "ACK"} {
				if _, err := l.Agent(c.far).Log().Wait(ctx, func(m *ua.Message) bool {
					return !m.Sent && m.IsRequest() && m.Method() == method && m.CallID() == in.CallID()
				}); err != nil {
					t.Errorf("%s got no %s for the cancelled call", c.far, method)
				}
			}
		})
	}

	// The answer arrives within a few milliseconds of the CANCEL. Either outcome is right, as long as both sides agree.
	t.Run("CANCEL and answer cross", func(t *testing.T) {
		t.Parallel()
		answered, cancelled := 0, 0
		for i := range 24 {
			f := toTeams(160)
			l.Script("teams-1").Set(f.To, ua.Behaviour{Ring: time.Duration(i%8) * 700 * time.Microsecond})
			ctx := within(t, patience)
			begin := time.Now()
			call, err := l.Place(ctx, f)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := call.WaitResponse(ctx, 180); err != nil {
				t.Fatal(err)
			}
			if m, err := call.Cancel(ctx); err != nil || m.Status() != 200 && m.Status() != 481 {
				t.Errorf("CANCEL got %v, %v, want 200 or, after the answer, 481", m, err)
			}
			m, err := call.Wait(ctx)
			if err != nil {
				t.Fatal(err)
			}
			in, err := l.Agent("teams-1").Log().Wait(ctx, func(m *ua.Message) bool {
				return ua.IsNewCall(m) && m.At.After(begin) && ua.ParseAddress(m.RequestURI()).User == f.To
			})
			if err != nil {
				t.Fatal(err)
			}
			switch m.Status() {
			case 200:
				answered++
				if bye, err := call.Bye(ctx); err != nil || bye.Status() != 200 {
					t.Errorf("BYE got %v, %v, want 200", bye, err)
				}
			case 487:
				cancelled++
			default:
				t.Errorf("INVITE got %s, want 200 or 487", m.StartLine())
			}
			// The far side learns of the end by CANCEL or BYE.
			if _, err := l.Agent("teams-1").Log().Wait(ctx, func(m *ua.Message) bool {
				return !m.Sent && m.IsRequest() && m.CallID() == in.CallID() &&
					(m.Method() == "BYE" || m.Method() == "CANCEL")
			}); err != nil {
				t.Error("Teams got neither CANCEL nor BYE")
			}
		}
		t.Logf("%d answered, %d cancelled", answered, cancelled)
	})

	t.Run("no answer", func(t *testing.T) {
		t.Parallel()
		ctx := within(t, patience)
		f := toTeams(151)
		l.Script("teams-1").Set(f.To, ua.Behaviour{NoAnswer: true})
		call, err := l.Place(ctx, f)
		if err != nil {
			t.Fatal(err)
		}
		m, err := call.Wait(ctx)
		if err != nil || m.Status() != 480 && m.Status() != 408 {
			t.Errorf("INVITE got %v, %v, want 480 or 408 (direct-routing-sip §6)", m, err)
		}
		in, err := l.Agent("teams-1").Log().WaitInvite(ctx, f.To)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Agent("teams-1").Log().Wait(ctx, func(m *ua.Message) bool {
			return !m.Sent && m.Method() == "CANCEL" && m.CallID() == in.CallID()
		}); err != nil {
			t.Error("Teams got no CANCEL")
		}
	})

	t.Run("the session changes, from either side", func(t *testing.T) {
		t.Parallel()
		ctx := within(t, patience)
		f := toTeams(152)
		near, far := up(t, l, f, "teams-1")
		hold := strings.Replace(ua.SDP("caller", 2), "sendrecv", "inactive", 1)
		for i, c := range []*ua.Call{near, far} {
			m, err := c.Reinvite(ctx, hold)
			if err != nil || m.Status() != 200 {
				t.Fatalf("re-INVITE %d got %v, %v, want 200", i, m, err)
			}
			if m.Body() == "" {
				t.Errorf("re-INVITE %d: the response has no session description", i)
			}
			other := []*ua.Call{far, near}[i]
			found := false
			for _, m := range other.Messages() {
				if !m.Sent && m.IsRequest() && m.Method() == "INVITE" && ua.ParseAddress(m.Header("To")).Tag != "" {
					found = found || m.Body() == hold
				}
			}
			if !found {
				t.Errorf("re-INVITE %d did not arrive with an unchanged session description", i)
			}
		}
		// Teams' strict rule also applies to requests in a dialog.
		for _, m := range far.Messages() {
			if !m.Sent && m.Method() == "INVITE" && m.Has("Contact") &&
				ua.ParseAddress(m.Header("Contact")).Host != "nwind.1r1."+l.Gateway.Base {
				t.Errorf("Contact %s towards Teams, want the customer's name (field-pains 1)", m.Header("Contact"))
			}
		}
		if m, err := near.Bye(ctx); err != nil || m.Status() != 200 {
			t.Errorf("BYE got %v, %v, want 200", m, err)
		}
		ended(t, far, "remote")
	})

	t.Run("INFO passes, OPTIONS in the call is answered", func(t *testing.T) {
		t.Parallel()
		ctx := within(t, patience)
		near, far := up(t, l, toTeams(153), "teams-1")
		if m, err := near.Send(ctx, "INFO", ua.Request{ContentType: "application/dtmf-relay",
			Body: "Signal=5\r\nDuration=160\r\n"}); err != nil || m.Status() != 200 {
			t.Errorf("INFO got %v, %v, want 200", m, err)
		}
		if m, err := near.Send(ctx, "OPTIONS", ua.Request{}); err != nil || m.Status() != 200 {
			t.Errorf("OPTIONS got %v, %v, want 200", m, err)
		}
		if m, err := far.Bye(ctx); err != nil || m.Status() != 200 {
			t.Errorf("BYE got %v, %v, want 200", m, err)
		}
		ended(t, near, "remote")
	})

	t.Run("both hang up at once", func(t *testing.T) {
		t.Parallel()
		ctx := within(t, patience)
		near, far := up(t, l, toTeams(154), "teams-1")
		var wg sync.WaitGroup
		for _, c := range []*ua.Call{near, far} {
			wg.Go(func() {
				// One side's dialog may have ended when the other side's BYE arrives: a 481 is then the agent's, not
				// the gateway's.
				if m, err := c.Bye(ctx); err != nil || m.Status() != 200 && m.Status() != 481 {
					t.Errorf("BYE got %v, %v, want 200", m, err)
				}
			})
		}
		wg.Wait()
	})

	// Both cut connections of the same neighbours, so they run one after the other.
	t.Run("lost connections", func(t *testing.T) {
		t.Parallel()
		t.Run("a call outlives its connections", func(t *testing.T) {
			ctx := within(t, patience)
			f := fixtures.Call{Neighbour: "core-mobile", From: "+442890180001", To: "+447700900150"}
			near, far := up(t, l, f, "tpm-1")
			l.Agent("tpm-1").DropConnections()
			l.Agent("core-mobile").DropConnections()
			if m, err := near.Bye(ctx); err != nil || m.Status() != 200 {
				t.Errorf("BYE got %v, %v, want 200", m, err)
			}
			ended(t, far, "remote") // field-pains 5: "BYE lost, leg stays up"
		})

		t.Run("the final answer is lost with its connection", func(t *testing.T) {
			ctx := within(t, patience)
			f := fixtures.Call{Neighbour: "core-mobile", From: "+442890180001", To: "+447700900151"}
			l.Script("tpm-1").Set(f.To, ua.Behaviour{LostAnswer: true, Ring: 20 * time.Millisecond, Drop: true})
			call, err := l.Place(ctx, f)
			if err != nil {
				t.Fatal(err)
			}
			if m, err := call.Wait(ctx); err != nil || !slices.Contains([]int{408, 480, 503, 504}, m.Status()) {
				t.Errorf("INVITE got %v, %v, want 408, 480, 503 or 504 (direct-routing-sip §6), not silence", m, err)
			}
		})
	})

	t.Run("a message larger than a packet", func(t *testing.T) {
		t.Parallel()
		ctx := within(t, patience)
		f := toCore(1155)
		for i := range 40 { // Teams' messages can exceed 1,500 bytes (direct-routing-sip §5)
			f.Headers = append(f.Headers, ua.Header{Name: fmt.Sprintf("X-Filler-%d", i),
				Value: strings.Repeat("x", 60)})
		}
		near, far := up(t, l, f, "core-fixed")
		if got := far.Invite().Header("X-Filler-39"); got != strings.Repeat("x", 60) {
			t.Errorf("X-Filler-39 is %q, want it complete", got)
		}
		if m, err := near.Bye(ctx); err != nil || m.Status() != 200 {
			t.Errorf("BYE got %v, %v, want 200", m, err)
		}
		ended(t, far, "remote")
	})

	// field-pains (a): proxies with several workers reorder responses that arrive back to back, and about 1 % of calls
	// fail.
	t.Run("180 and 200 back to back keep their order", func(t *testing.T) {
		t.Parallel()
		ctx := within(t, patience)
		for i := range 150 {
			for _, f := range []fixtures.Call{toTeams(157), toCore(1157)} {
				call, err := l.Place(ctx, f)
				if err != nil {
					t.Fatal(err)
				}
				m, err := call.Wait(ctx)
				if err != nil || m.Status() != 200 {
					t.Fatalf("call %d: INVITE got %v, %v, want 200", i, m, err)
				}
				var order []int
				seen := map[string]bool{}
				for _, m := range call.Responses("INVITE") {
					if !seen[m.Raw] { // a repeat after a slow answer or ACK counts once
						order = append(order, m.Status())
					}
					seen[m.Raw] = true
				}
				if want := []int{100, 180, 200}; !slices.Equal(order, want) {
					t.Errorf("call %d from %s: responses arrived as %v, want %v", i, f.Neighbour, order, want)
				}
				if bye, err := call.Bye(ctx); err != nil || bye.Status() != 200 {
					t.Fatalf("call %d: BYE got %v, %v, want 200", i, bye, err)
				}
			}
		}
	})

	t.Run("an unknown source gets nothing", func(t *testing.T) {
		t.Parallel()
		ctx := within(t, patience)
		stranger, err := core.New(core.Config{Name: "stranger", UDP: "127.0.0.2:0"})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := stranger.Close(); err != nil {
				t.Error(err)
			}
		}()
		short, cancel := context.WithTimeout(ctx, 700*time.Millisecond) // long enough for a retransmission
		defer cancel()
		if m, err := stranger.Ping(short, "udp", l.Gateway.CoreFixed); err == nil {
			t.Errorf("OPTIONS from a stranger got %s", m.StartLine())
		}
		if _, err := stranger.Place(ctx, core.Call{Destination: l.Gateway.CoreFixed, From: "+442890180001",
			To: "+441632960156"}); err != nil {
			t.Fatal(err)
		}
		// A later request of the core is answered: by then the gateway has seen the stranger's INVITE.
		if m, err := l.Cores["core-fixed"].Ping(ctx, "udp", l.Gateway.CoreFixed); err != nil || m.Status() != 200 {
			t.Errorf("OPTIONS from the core got %v, %v, want 200", m, err)
		}
		if got := stranger.Log().Received(""); len(got) != 0 {
			t.Errorf("a stranger got %s", got[0].StartLine())
		}
	})

	t.Run("OPTIONS to and from the core", func(t *testing.T) {
		t.Parallel()
		ctx := within(t, patience)
		if _, err := l.Agent("core-fixed").Log().Wait(ctx, func(m *ua.Message) bool {
			return !m.Sent && m.IsRequest() && m.Method() == "OPTIONS"
		}); err != nil {
			t.Error("the core got no OPTIONS (gateway-calls §11: the gateway also sends OPTIONS to its peers)")
		}
		if m, err := l.Cores["core-fixed"].Ping(ctx, "udp", l.Gateway.CoreFixed); err != nil || m.Status() != 200 {
			t.Errorf("OPTIONS from the core got %v, %v, want 200 (gateway-calls §11)", m, err)
		}
	})
}

// failover covers what fixtures cannot express: a cut connection, failure of all datacentres, and a provisional
// response that rules out another attempt.
func failover(t *testing.T, l *lab.Lab) {
	tried := func(f fixtures.Call, since time.Time) []string {
		var out []string
		for _, n := range []string{"teams-1", "teams-2", "teams-3"} {
			if len(l.Agent(n).Log().Messages(func(m *ua.Message) bool {
				return ua.IsNewCall(m) && m.At.After(since) && ua.ParseAddress(m.RequestURI()).User == f.To
			})) > 0 {
				out = append(out, n)
			}
		}
		return out
	}
	clear := func(numbers ...string) {
		for _, n := range []string{"teams-1", "teams-2", "teams-3"} {
			for _, x := range numbers {
				l.Script(n).Unset(x)
			}
		}
	}
	t.Run("every datacentre answers 504", func(t *testing.T) {
		ctx := within(t, patience)
		f := toTeams(170)
		defer clear(f.To)
		for _, n := range []string{"teams-1", "teams-2", "teams-3"} {
			l.Script(n).Set(f.To, ua.Behaviour{Status: 504})
		}
		begin := time.Now()
		call, err := l.Place(ctx, f)
		if err != nil {
			t.Fatal(err)
		}
		if m, err := call.Wait(ctx); err != nil || m.Status() != 504 {
			t.Errorf("INVITE got %v, %v, want 504", m, err)
		}
		if got := tried(f, begin); len(got) != 3 {
			t.Errorf("tried %v, want all three (gateway-calls §3.2)", got)
		}
	})
	t.Run("no other attempt after ringing", func(t *testing.T) {
		ctx := within(t, patience)
		f := toTeams(171)
		defer clear(f.To)
		for _, n := range []string{"teams-1", "teams-2", "teams-3"} {
			l.Script(n).Set(f.To, ua.Behaviour{Status: 503, Ring: 30 * time.Millisecond})
		}
		begin := time.Now()
		call, err := l.Place(ctx, f)
		if err != nil {
			t.Fatal(err)
		}
		if m, err := call.Wait(ctx); err != nil || m.Status() != 503 {
			t.Errorf("INVITE got %v, %v, want 503", m, err)
		}
		if got := tried(f, begin); len(got) != 1 {
			t.Errorf("tried %v, want one only (direct-routing-sip §5: only if no provisional other than 100 was sent)",
				got)
		}
	})
	for _, status := range []int{404, 480, 486, 488, 500, 600, 603} {
		t.Run(fmt.Sprintf("no other attempt after %d", status), func(t *testing.T) {
			ctx := within(t, patience)
			f := toTeams(172)
			defer clear(f.To)
			for _, n := range []string{"teams-1", "teams-2", "teams-3"} {
				l.Script(n).Set(f.To, ua.Behaviour{Status: status})
			}
			begin := time.Now()
			call, err := l.Place(ctx, f)
			if err != nil {
				t.Fatal(err)
			}
			if m, err := call.Wait(ctx); err != nil || m.Status() != status {
				t.Errorf("INVITE got %v, %v, want %d", m, err, status)
			}
			if got := tried(f, begin); len(got) != 1 {
				t.Errorf("tried %v, want one only (gateway-calls §11: never retry on other codes)", got)
			}
		})
	}
	t.Run("503 with Retry-After and a cut connection", func(t *testing.T) {
		ctx := within(t, patience)
		f := toTeams(173)
		defer clear(f.To)
		for _, n := range []string{"teams-1", "teams-2"} {
			l.Script(n).Set(f.To, ua.Behaviour{Status: 503, RetryAfter: time.Second, Drop: true})
		}
		begin := time.Now()
		call, err := l.Place(ctx, f)
		if err != nil {
			t.Fatal(err)
		}
		if m, err := call.Wait(ctx); err != nil || m.Status() != 200 {
			t.Fatalf("INVITE got %v, %v, want 200 from the third datacentre (direct-routing-sip §4)", m, err)
		}
		if got := tried(f, begin); !slices.Contains(got, "teams-3") {
			t.Errorf("tried %v, want teams-3 among them", got)
		}
		if m, err := call.Bye(ctx); err != nil || m.Status() != 200 {
			t.Errorf("BYE got %v, %v, want 200", m, err)
		}
	})
}
