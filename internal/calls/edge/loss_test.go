package edge

import (
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/calls/record"
	"github.com/tandemgw/tandem/internal/calls/sip/transport"
)

// lossy is one end of many calls on a bad network: it loses part of what it sends and receives, and retransmits.
type lossy struct {
	t    *testing.T
	conn *net.UDPConn
	loss float64
	lost atomic.Int64

	mu    sync.Mutex // guards calls
	calls map[string]chan msg
	serve func(m msg, in chan msg) // a new Call-ID
}

const again = 40 * time.Millisecond // time between retransmissions of a lossy end

func newLossy(t *testing.T, loss float64) *lossy {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadBuffer(4 << 20)
	l := &lossy{t: t, conn: conn, loss: loss, calls: map[string]chan msg{}}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		buf := make([]byte, 65536)
		for {
			n, _, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if rand.Float64() < l.loss {
				l.lost.Add(1)
				continue
			}
			m := parseMsg(string(buf[:n]))
			l.mu.Lock()
			in := l.calls[m.get("Call-ID")]
			if in == nil && l.serve != nil && m.is("INVITE") {
				in = make(chan msg, 256)
				l.calls[m.get("Call-ID")] = in
				go l.serve(m, in)
			}
			l.mu.Unlock()
			if in != nil {
				in <- m
			}
		}
	}()
	return l
}

// call registers a call of this end and returns the channel of its messages.
func (l *lossy) call(id string) chan msg {
	in := make(chan msg, 256)
	l.mu.Lock()
	l.calls[id] = in
	l.mu.Unlock()
	return in
}

func (l *lossy) write(a *agent, text string) {
	if rand.Float64() < l.loss {
		l.lost.Add(1)
		return
	}
	_, _ = l.conn.WriteToUDPAddrPort([]byte(text), a.edge)
}

// until retransmits text until done returns true for a received message. It reports whether that happened in time.
func (l *lossy) until(a *agent, text string, in chan msg, what string, done func(m msg) bool) bool {
	tick := time.NewTicker(again)
	defer tick.Stop()
	late := time.After(3 * patience)
	l.write(a, text)
	for {
		select {
		case m := <-in:
			if done(m) {
				return true
			}
		case <-tick.C:
			l.write(a, text)
		case <-late:
			l.t.Errorf("timed out: %s", what)
			return false
		}
	}
}

// linger handles late messages for a while: retransmitted finals get their ACK, retransmitted requests their 200.
func linger(in chan msg, d time.Duration, f func(m msg)) {
	end := time.After(d)
	for {
		select {
		case m := <-in:
			f(m)
		case <-end:
			return
		}
	}
}

func TestNothingIsLostOrLeftOnABadNetwork(t *testing.T) {
	const calls, loss = 120, 0.1
	near, far := newLossy(t, loss), newLossy(t, loss)
	b := setup(t, func(c *bedConfig) {
		c.peers = 0
		c.service.Peers = []Peer{{Name: "far", Address: far.conn.LocalAddr().String()}}
		c.tx.T1, c.tx.T2 = 125*time.Millisecond, 500*time.Millisecond // 64×T1 = 8 s, for a busy machine
		c.cfg.Timers.FailoverAfter = 8 * time.Second
		c.serial = true // goroutines are counted
	})
	before := runtime.NumGoroutine()
	nearAgent := &agent{t: t, name: "near", conn: near.conn, edge: b.core.edge}
	farAgent := &agent{t: t, name: "far", conn: far.conn, edge: b.e.groups[1].eps[transport.UDP].Local()}

	serve := func(inv msg, in chan msg) {
		c := farAgent.called(inv)
		ring := c.reply(inv, "180 Ringing", "")
		final := c.reply(inv, "200 OK", sdp)
		refuse := strings.Contains(inv.get("X-Plan"), "busy")
		if refuse {
			final = c.reply(inv, "486 Busy Here", "")
		}
		if strings.Contains(inv.get("X-Plan"), "cancel") {
			cancelled := far.until(farAgent, ring, in, "far waits for CANCEL", func(m msg) bool {
				if m.is("CANCEL") {
					far.write(farAgent, c.reply(m, "200 OK", ""))
					return true
				}
				return false
			})
			if !cancelled {
				return
			}
			final, refuse = c.reply(inv, "487 Request Terminated", ""), true
		} else {
			far.write(farAgent, ring)
		}
		if !far.until(farAgent, final, in, "far waits for ACK", func(m msg) bool { return m.is("ACK") }) {
			return
		}
		if refuse {
			linger(in, time.Second, func(m msg) {
				if m.is("CANCEL") {
					far.write(farAgent, c.reply(m, "200 OK", ""))
				}
			})
			return
		}
		bye := func(m msg) bool {
			if m.is("BYE") {
				far.write(farAgent, c.reply(m, "200 OK", ""))
				return true
			}
			return false
		}
		for end := time.After(3 * patience); ; {
			select {
			case m := <-in:
				if bye(m) {
					linger(in, 2*time.Second, func(m msg) { bye(m) })
					return
				}
			case <-end:
				t.Error("far got no BYE in time")
				return
			}
		}
	}

	far.mu.Lock()
	far.serve = serve
	far.mu.Unlock()

	var wg sync.WaitGroup
	var results [3]atomic.Int64
	for i := range calls {
		wg.Go(func() {
			kind := i % 3
			c := nearAgent.newCall(outside, served)
			in := near.call(c.callID)
			var final msg
			hear := func(m msg) bool {
				if m.is("2") && strings.HasSuffix(m.get("CSeq"), "INVITE") || m.is("4") {
					final = m
					return true
				}
				return false
			}
			invite := c.request("INVITE", sdp, "X-Plan: "+[]string{"answer", "busy", "cancel"}[kind])
			if kind == 2 {
				if !near.until(nearAgent, invite, in, "near waits for 180", func(m msg) bool { return m.is("180") }) {
					return
				}
				if !near.until(nearAgent, c.cancel(), in, "near waits for 487", hear) {
					return
				}
			} else if !near.until(nearAgent, invite, in, "near waits for the answer", hear) {
				return
			}
			if !final.is([]string{"200", "486", "487"}[kind]) {
				t.Errorf("call %d ended with %s", i, final.start)
				return
			}
			results[kind].Add(1)
			if kind != 0 {
				ack := c.ackFailure(final)
				near.write(nearAgent, ack)
				linger(in, time.Second, func(m msg) {
					if m.is("4") {
						near.write(nearAgent, ack)
					}
				})
				return
			}
			c.answered(final)
			ack := c.ack(1, "")
			near.write(nearAgent, ack)
			near.until(nearAgent, c.request("BYE", ""), in, "near waits for 200 to BYE", func(m msg) bool {
				if m.is("200") && strings.HasSuffix(m.get("CSeq"), "INVITE") {
					near.write(nearAgent, ack)
				}
				return m.is("200") && strings.HasSuffix(m.get("CSeq"), "BYE")
			})
		})
	}
	wg.Wait()
	b.idle()
	for kind := range results {
		if got := results[kind].Load(); got != calls/3 {
			t.Errorf("%d calls of kind %d ended right, want %d", got, kind, calls/3)
		}
	}
	if near.lost.Load() < calls/4 || far.lost.Load() < calls/4 {
		t.Errorf("only %d and %d messages were lost: the network was not bad", near.lost.Load(), far.lost.Load())
	}
	seen := map[string]bool{}
	outcomes := map[string]int{}
	for range calls {
		r := b.record()
		if seen[r.ID] {
			t.Errorf("two records of call %s", r.ID)
		}
		seen[r.ID] = true
		outcomes[fmt.Sprintf("%d by %s", r.Status, r.EndedBy)]++
	}
	want := map[string]int{fmt.Sprintf("200 by %s", record.Near): calls / 3,
		fmt.Sprintf("486 by %s", record.Far): calls / 3, fmt.Sprintf("487 by %s", record.Near): calls / 3}
	for k, n := range want {
		if outcomes[k] != n {
			t.Errorf("records: %v, want %v", outcomes, want)
			break
		}
	}
	select {
	case r := <-b.got:
		t.Errorf("a record too many: %+v", r)
	default:
	}
	await(t, "transactions to end", func() bool { return b.e.tx.Pending() == 0 })
	await(t, "goroutines to end", func() bool { return runtime.NumGoroutine() <= before+6 })
}
