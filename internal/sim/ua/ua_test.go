package ua

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
)

// pair starts two agents on UDP and TCP; the second handles calls with the behaviour in the returned script.
func pair(t *testing.T, cfg func(*Config)) (caller, callee *Agent, s *Script) {
	t.Helper()
	s = &Script{}
	c := Config{Name: "callee", UDP: "127.0.0.1:0", TCP: "udp", Invite: func(ctx context.Context, in *Incoming) {
		_, _ = in.Play(ctx, s.For(ParseAddress(in.Invite.RequestURI()).User))
	}}
	if cfg != nil {
		cfg(&c)
	}
	callee, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	caller, err = New(Config{Name: "caller", UDP: "127.0.0.1:0", TCP: "udp"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := caller.Close(); err != nil {
			t.Errorf("close caller: %v", err)
		}
		if err := callee.Close(); err != nil {
			t.Errorf("close callee: %v", err)
		}
	})
	return caller, callee, s
}

func invite(callee *Agent, transport string) Request {
	return Request{Transport: transport, Destination: callee.Addr(transport),
		URI:  "sip:+15550100@" + callee.Addr(transport) + ";transport=" + transport,
		From: "<sip:+15550199@caller.example>", To: "<sip:+15550100@callee.example>", Body: SDP("caller", 1)}
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestCallIsAnsweredChangedAndEnded(t *testing.T) {
	for _, transport := range []string{"udp", "tcp"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			caller, callee, s := pair(t, nil)
			s.Default(Behaviour{EarlyMedia: true, Forks: 3})
			ctx := within(t)
			c, err := caller.Call(ctx, invite(callee, transport))
			if err != nil {
				t.Fatal(err)
			}
			final, err := c.Wait(ctx)
			if err != nil || final.Status() != 200 {
				t.Fatalf("Wait = %v, %v, want 200", final, err)
			}
			if !strings.HasPrefix(final.Body(), "v=0") {
				t.Errorf("answer has body %q, want a session description", final.Body())
			}
			tags := map[string]bool{}
			for _, m := range c.Responses("INVITE") {
				if m.Status() == 180 {
					tags[ParseAddress(m.Header("To")).Tag] = true
				}
			}
			if len(tags) != 3 {
				t.Errorf("180s had %d To tags, want 3", len(tags))
			}
			if m := c.Response(183); m == nil || m.Body() == "" {
				t.Errorf("183 = %v, want one with a session description", m)
			}
			re, err := c.Reinvite(ctx, SDP("caller", 2))
			if err != nil || re.Status() != 200 {
				t.Fatalf("Reinvite = %v, %v, want 200", re, err)
			}
			far := callee.Dialog(c.ID())
			bye, err := c.Bye(ctx)
			if err != nil || bye.Status() != 200 {
				t.Fatalf("Bye = %v, %v, want 200", bye, err)
			}
			select {
			case <-far.Ended(): // after its answer
			case <-ctx.Done():
				t.Fatal("the callee's call is not ended")
			}
			if n := caller.Calls() + callee.Calls(); n != 0 {
				t.Errorf("%d calls left, want 0", n)
			}
			if acks := len(callee.Log().Received("ACK")); acks < 2 {
				t.Errorf("callee saw %d ACKs, want 2", acks)
			}
		})
	}
}

func TestCalleeHangsUp(t *testing.T) {
	t.Parallel()
	caller, callee, s := pair(t, nil)
	s.Default(Behaviour{HangUp: time.Millisecond})
	ctx := within(t)
	c, err := caller.Call(ctx, invite(callee, "udp"))
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.Ended():
	case <-ctx.Done():
		t.Fatal("the call was not ended by the callee")
	}
	if c.EndedBy() != "remote" {
		t.Errorf("EndedBy = %q, want remote", c.EndedBy())
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	caller, callee, s := pair(t, nil)
	for _, transport := range []string{"udp", "tcp"} {
		for _, status := range []int{486, 503, 603} {
			s.Default(Behaviour{Status: status, RetryAfter: time.Second})
			ctx := within(t)
			c, err := caller.Call(ctx, invite(callee, transport))
			if err != nil {
				t.Fatal(err)
			}
			final, err := c.Wait(ctx)
			if err != nil || final.Status() != status {
				t.Fatalf("Wait = %v, %v, want %d", final, err, status)
			}
			if final.Header("Retry-After") != "1" {
				t.Errorf("Retry-After = %q, want 1", final.Header("Retry-After"))
			}
			ack, err := callee.Log().Wait(ctx, func(m *Message) bool {
				return !m.Sent && m.Method() == "ACK" && m.CallID() == c.ID()
			})
			if err != nil {
				t.Errorf("%d over %s was not acknowledged: %v", status, transport, err)
			} else if ack.Transport != transport {
				t.Errorf("ACK arrived over %s, want %s", ack.Transport, transport)
			}
		}
	}
}

func TestCallerCancels(t *testing.T) {
	t.Parallel()
	caller, callee, s := pair(t, nil)
	s.Default(Behaviour{NoAnswer: true})
	for _, transport := range []string{"udp", "tcp"} {
		ctx := within(t)
		c, err := caller.Call(ctx, invite(callee, transport))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.WaitResponse(ctx, 180); err != nil {
			t.Fatal(err)
		}
		m, err := c.Cancel(ctx)
		if err != nil || m.Status() != 200 {
			t.Fatalf("Cancel = %v, %v, want 200", m, err)
		}
		final, err := c.Wait(ctx)
		if err != nil || final.Status() != 487 {
			t.Fatalf("Wait = %v, %v, want 487", final, err)
		}
	}
}

func TestSilenceAndLostAnswerGiveNoFinalAnswer(t *testing.T) {
	t.Parallel()
	caller, callee, s := pair(t, nil)
	s.Set("+15550100", Behaviour{Silent: true})
	ctx := within(t)
	c, err := caller.Call(ctx, invite(callee, "udp"))
	if err != nil {
		t.Fatal(err)
	}
	// Three transmissions prove that there was no response in between (RFC 3261 timer A: 0, 0.5 s, 1.5 s).
	seen := 0
	if _, err := callee.Log().Wait(ctx, func(m *Message) bool {
		if IsNewCall(m) && m.CallID() == c.ID() {
			seen++
		}
		return seen == 3
	}); err != nil {
		t.Fatal(err)
	}
	if r := c.Responses("INVITE"); len(r) != 0 {
		t.Errorf("a silent callee sent %q", r[0].StartLine())
	}
}

func TestDialogsOfOthersGet481(t *testing.T) {
	t.Parallel()
	caller, callee, _ := pair(t, nil)
	ctx := within(t)
	for _, method := range []string{"BYE", "INFO"} {
		m, err := caller.Do(ctx, Request{Method: method, Destination: callee.Addr("udp"),
			URI:  "sip:x@" + callee.Addr("udp"),
			From: "<sip:a@caller.example>", To: "<sip:b@callee.example>;tag=unknown"})
		if err != nil || m.Status() != 481 {
			t.Errorf("%s outside a dialog = %v, %v, want 481", method, m, err)
		}
	}
	m, err := caller.Do(ctx, Request{Method: "OPTIONS", Destination: callee.Addr("udp"),
		URI:  "sip:" + callee.Addr("udp"),
		From: "<sip:a@caller.example>", To: "<sip:b@callee.example>"})
	if err != nil || m.Status() != 200 {
		t.Errorf("OPTIONS = %v, %v, want 200", m, err)
	}
}

// TestCallsSurviveLoss checks that retransmissions keep calls working when a fifth of all packets is lost each way.
func TestCallsSurviveLoss(t *testing.T) {
	t.Parallel()
	caller, callee, _ := pair(t, func(c *Config) { c.Loss = &Loss{In: 0.2, Out: 0.2, Seed: 7} })
	ctx := within(t)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			c, err := caller.Call(ctx, invite(callee, "udp"))
			if err != nil {
				t.Error(err)
				return
			}
			if final, err := c.Wait(ctx); err != nil || final.Status() != 200 {
				t.Errorf("Wait = %v, %v, want 200", final, err)
				return
			}
			if m, err := c.Bye(ctx); err != nil || m.Status() != 200 {
				t.Errorf("Bye = %v, %v, want 200", m, err)
			}
		})
	}
	wg.Wait()
}

func TestCloseLeavesNothingBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	callee, err := New(Config{UDP: "127.0.0.1:0", TCP: "udp", Invite: func(ctx context.Context, in *Incoming) {
		_, _ = in.Play(ctx, Behaviour{NoAnswer: true})
	}})
	if err != nil {
		t.Fatal(err)
	}
	caller, err := New(Config{UDP: "127.0.0.1:0", TCP: "udp"})
	if err != nil {
		t.Fatal(err)
	}
	for _, transport := range []string{"udp", "tcp"} {
		c, err := caller.Call(ctx, invite(callee, transport))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.WaitResponse(ctx, 180); err != nil {
			t.Fatal(err)
		}
	}
	for _, a := range []*Agent{caller, callee, caller} {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
	// The stack's connection readers end by themselves once their sockets are closed.
	for runtime.NumGoroutine() > before {
		select {
		case <-ctx.Done():
			buf := make([]byte, 1<<16)
			t.Fatalf("%d goroutines, want %d\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		default:
			runtime.Gosched()
		}
	}
	if _, err := caller.Call(ctx, invite(callee, "udp")); err == nil {
		t.Error("Call on a closed agent succeeded")
	}
}

func TestParseAddress(t *testing.T) {
	for in, want := range map[string]Address{
		`"A, B" <sip:+15550100;npdi@h.example:5063;user=phone;transport=tls?X=y>;tag=7`: {Scheme: "sip",
			User: "+15550100", Host: "h.example", Port: 5063, Params: "user=phone;transport=tls",
			URI: "sip:+15550100;npdi@h.example:5063;user=phone;transport=tls?X=y", Tag: "7"},
		"<tel:+15550100;ext=3>, <sip:a@b>": {Scheme: "tel", User: "+15550100", Params: "ext=3",
			URI: "tel:+15550100;ext=3"},
		"<sip:h.example;transport=tls>": {Scheme: "sip", Host: "h.example", Params: "transport=tls",
			URI: "sip:h.example;transport=tls"},
		"<sip:[2001:db8::1]>": {Scheme: "sip", Host: "[2001:db8::1]", URI: "sip:[2001:db8::1]"},
		"sip:+15550100@127.0.0.1;user=phone": {Scheme: "sip", User: "+15550100", Host: "127.0.0.1",
			Params: "user=phone", URI: "sip:+15550100@127.0.0.1;user=phone"},
		"": {},
	} {
		if got := ParseAddress(in); got != want {
			t.Errorf("ParseAddress(%q) =\n %+v, want\n %+v", in, got, want)
		}
	}
}

func TestFramerCutsStreamsAnywhere(t *testing.T) {
	one := "OPTIONS sip:a SIP/2.0\r\nl: 5\r\n\r\nhello"
	two := "SIP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"
	stream := "\r\n\r\n" + one + two + "\r\n" + one
	for size := 1; size < len(stream); size++ {
		var f framer
		var got []string
		for i := 0; i < len(stream); i += size {
			f.push([]byte(stream[i:min(i+size, len(stream))]), func(s string) { got = append(got, s) })
		}
		if want := []string{one, two, one}; strings.Join(got, "|") != strings.Join(want, "|") {
			t.Fatalf("pieces of %d bytes: got %q, want %q", size, got, want)
		}
	}
}

// deadTransaction has ended without a response or an error, like sipgo's for a moment when it is terminated, because it
// closes Done before it stores the error.
type deadTransaction struct{ sip.ClientTransaction }

func (deadTransaction) Responses() <-chan *sip.Response { return nil }
func (deadTransaction) Err() error                      { return nil }
func (deadTransaction) Done() <-chan struct{} {
	done := make(chan struct{})
	close(done)
	return done
}

func TestTransactionThatEndsWithoutAnswer(t *testing.T) {
	caller, _, _ := pair(t, nil)

	c := &Call{a: caller, answered: make(chan struct{}), ended: make(chan struct{})}
	c.watch(deadTransaction{})
	if m, err := c.Wait(within(t)); m != nil || err == nil {
		t.Errorf("Wait() = %v, %v, want no message and an error", m, err)
	}
	select {
	case <-c.Ended():
	default:
		t.Error("the call is not ended")
	}

	m, err := caller.final(within(t), deadTransaction{})
	if m != nil || err == nil || strings.Contains(err.Error(), "%!") {
		t.Errorf("final() = %v, %v, want no message and an error", m, err)
	}
}

// TestCloseWhileRequestsWait checks that calls and requests that wait for a response fail when their agent is closed.
func TestCloseWhileRequestsWait(t *testing.T) {
	for range 20 {
		_, callee, s := pair(t, func(c *Config) { c.Request = func(*Message) Reply { return Reply{} } })
		s.Default(Behaviour{Silent: true})
		caller, err := New(Config{Name: "caller", UDP: "127.0.0.1:0", TCP: "udp"})
		if err != nil {
			t.Fatal(err)
		}
		ctx := within(t)
		var wg sync.WaitGroup
		for _, transport := range []string{"udp", "tcp"} {
			c, err := caller.Call(ctx, invite(callee, transport))
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				if m, err := c.Wait(ctx); m != nil || err == nil {
					t.Errorf("Wait() = %v, %v, want no message and an error", m, err)
				}
			})
			wg.Go(func() {
				m, err := caller.Do(ctx, Request{Method: "OPTIONS", Transport: transport,
					Destination: callee.Addr(transport), URI: "sip:" + callee.Addr(transport),
					From: "<sip:a@caller.example>", To: "<sip:b@callee.example>"})
				if m != nil || err == nil {
					t.Errorf("Do() = %v, %v, want no message and an error", m, err)
				}
			})
		}
		for _, method := range []string{"INVITE", "OPTIONS"} { // both are sent before the agent is closed
			for n := range 2 {
				seen := 0
				if _, err := callee.Log().Wait(ctx, func(m *Message) bool {
					if !m.Sent && m.IsRequest() && m.Method() == method {
						seen++
					}
					return seen > n
				}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := caller.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
	}
}
