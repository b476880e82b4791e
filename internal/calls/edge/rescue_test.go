package edge

import (
	"sync/atomic"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/tandemgw/tandem/internal/calls/sip"
)

// saboteur is a profile's hook that panics over some messages.
type saboteur struct {
	over atomic.Pointer[func(*sip.Message) bool]
}

func (f *saboteur) set(over func(*sip.Message) bool) { f.over.Store(&over) }

func (f *saboteur) hook(m *sip.Message) {
	if over := f.over.Load(); over != nil && (*over)(m) {
		panic("test: this message cannot be shaped")
	}
}

func (b *bed) panics() float64 {
	var m dto.Metric
	if err := b.e.m.panics.Write(&m); err != nil {
		b.t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

func TestAPanicEndsItsCallAndNoOther(t *testing.T) {
	covers(t, "E6")
	asks := func(method sip.Method) func(*sip.Message) bool {
		return func(m *sip.Message) bool { return m.IsRequest() && m.Method() == method }
	}
	everything := func(*sip.Message) bool { return true }
	nothing := func(*sip.Message) bool { return false }

	for name, c := range map[string]struct {
		over   func(*sip.Message) bool
		panics float64
	}{"over the INVITE": {asks(sip.INVITE), 1}, "over everything": {everything, 2}} {
		t.Run(name, func(t *testing.T) {
			f := &saboteur{}
			b := setup(t, func(c *bedConfig) { c.hook = f.hook })
			other, otherFar := b.established(b.core, b.svc, outside, served)
			f.set(c.over)
			up := b.core.newCall(outside, served)
			b.core.send(up.request("INVITE", sdp))
			b.core.expect("100")
			b.core.send(up.ackFailure(b.core.expect("500")))
			await(t, "the call to end", func() bool { return b.e.Calls() == 1 && b.e.calls.len() == 2 })
			if r := b.record(); r.Status != 500 || r.EndedBy != "tandem" {
				t.Errorf("record = %+v", r)
			}
			if n := b.panics(); n != c.panics {
				t.Errorf("%v panics are counted, want %v", n, c.panics)
			}
			f.set(nothing)
			b.over(other, otherFar)
			b.idle()
		})
	}

	t.Run("on the timer while the call is set up", func(t *testing.T) {
		f := &saboteur{}
		b := setup(t, func(c *bedConfig) {
			c.hook, c.peers = f.hook, 2
			c.cfg.Timers.FailoverAfter = 200 * time.Millisecond
		})
		var invites atomic.Int32
		f.set(func(m *sip.Message) bool { return asks(sip.INVITE)(m) && invites.Add(1) > 1 })
		up := b.core.newCall(outside, served)
		b.core.send(up.request("INVITE", sdp))
		b.core.expect("100")
		b.svc.expect("INVITE") // no response: the INVITE to the second peer cannot be built
		b.core.send(up.ackFailure(b.core.expect("500")))
		b.record()
		b.idle()
	})

	t.Run("over an answer", func(t *testing.T) {
		f := &saboteur{}
		b := setup(t, func(c *bedConfig) { c.hook = f.hook })
		up, down, inv := b.ringing(b.core, b.svc, outside, served)
		f.set(func(m *sip.Message) bool { return m.Status() == 200 })
		b.svc.send(down.reply(inv, "200 OK", sdp))
		b.core.send(up.ackFailure(b.core.expect("500")))
		b.svc.send(down.reply(inv, "200 OK", sdp)) // it has got no ACK
		b.svc.expect("ACK")
		b.svc.send(down.reply(b.svc.expect("BYE"), "200 OK", ""))
		b.record()
		b.idle()
	})

	t.Run("on the timer in the call", func(t *testing.T) {
		f := &saboteur{}
		b := setup(t, func(c *bedConfig) {
			c.hook = f.hook
			c.cfg.Timers.MaxDuration = time.Second
		})
		up, _ := b.established(b.core, b.svc, outside, served)
		f.set(everything)
		if r := b.record(); r.EndedBy != "tandem" || r.DurationSeconds <= 0 {
			t.Errorf("record = %+v", r)
		}
		b.idle()
		f.set(nothing)
		b.core.send(up.request("BYE", "")) // no BYE could be built for it
		b.core.expect("481")
	})
}
