package transaction_test

import (
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/calls/sip/transaction"
	"github.com/tandemgw/tandem/internal/calls/sip/transport"
)

// An ICMP error fails the request that it quotes, at once, and no other (RFC 3261 §8.1.3.1, §18.4).
func TestUnreachable(t *testing.T) {
	for _, c := range []struct {
		name   string
		quote  func(wire string) string // the part of the request in the ICMP error
		to     netip.AddrPort
		answer int // received before
		fails  bool
	}{
		{name: "the whole request", to: farAddr, fails: true},
		{name: "its first 150 bytes", quote: func(w string) string { return w[:150] }, to: farAddr, fails: true},
		{name: "too little to identify it", quote: func(w string) string { return w[:40] }, to: farAddr},
		{name: "nothing", quote: func(string) string { return "" }, to: farAddr},
		{name: "another branch",
			quote: func(w string) string { return strings.Replace(w, "branch=z9hG4bK", "branch=z9hG4bKx", 1) },
			to:    farAddr},
		{name: "another port", to: netip.AddrPortFrom(farAddr.Addr(), 5061)},
		{name: "another host", to: nearAddr},
		{name: "a CANCEL", quote: func(w string) string { return strings.Replace(w, "INVITE", "CANCEL", 1) },
			to: farAddr},
		{name: "a request that has an answer", to: farAddr, answer: 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, transport.UDP, transaction.Config{}, func(b *bundle) {
				req := sip.NewRequest(sip.INVITE, "sip:x@192.0.2.2")
				req.Add(sip.KindMaxForwards, "70")
				req.Add(sip.KindFrom, "<sip:a@192.0.2.1>;tag=1")
				req.Add(sip.KindTo, "<sip:x@192.0.2.2>")
				req.Add(sip.KindCallID, "c1")
				req.Add(sip.KindCSeq, "1 INVITE")
				req.Add(sip.KindContact, "<sip:192.0.2.1>")
				tx, err := b.layer.Send(req, transport.Target{From: b.node.Endpoint(), Addr: farAddr}, client{b})
				if err != nil {
					t.Fatal(err)
				}
				wire := req.String()
				time.Sleep(100 * time.Millisecond) // fake time
				if c.answer != 0 {
					b.mu.Lock()
					h := b.heard[0]
					b.mu.Unlock()
					res := sip.NewResponse(h.m, c.answer, "", "")
					_ = b.far.Reply(res.Bytes(), h.flow, nil)
					time.Sleep(100 * time.Millisecond)
				}
				if c.quote != nil {
					wire = c.quote(wire)
				}
				b.layer.Unreachable(wire, c.to, syscall.ECONNREFUSED)
				b.mu.Lock()
				failed := strings.Contains(strings.Join(b.events, "\n"), "connection refused")
				b.mu.Unlock()
				if failed != c.fails {
					t.Errorf("failed %v, want %v: %v", failed, c.fails, b.events)
				}
				tx.Abandon()
			})
		})
	}
}
