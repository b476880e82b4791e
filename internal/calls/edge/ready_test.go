package edge

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// sampled returns the samples of a metric of the edge as text, one to a line.
func (b *bed) sampled(name string) string {
	b.t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(b.e.m)
	fs, err := reg.Gather()
	if err != nil {
		b.t.Fatal(err)
	}
	var out strings.Builder
	for _, f := range fs {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				fmt.Fprintf(&out, "%s=%s ", l.GetName(), l.GetValue())
			}
			fmt.Fprintln(&out, m.GetGauge().GetValue())
		}
	}
	return out.String()
}

// TestPeerIsUnknownUntilItAnswers checks that a peer without a response so far is unknown, and gets calls.
func TestPeerIsUnknownUntilItAnswers(t *testing.T) {
	covers(t, "P20")
	b := setup(t, func(c *bedConfig) {
		c.service.Options = Options{Every: time.Second, Timeout: 100 * time.Millisecond, DownAfter: 1000, UpAfter: 1}
	})
	group := b.peerState("svc1").Group
	if s := b.peerState("svc1"); !s.Unknown || !s.Up {
		t.Errorf("at start: %+v, want unknown and usable", s)
	}
	if got := b.sampled("tandem_peer_up"); strings.Contains(got, "peer=svc1 ") {
		t.Errorf("tandem_peer_up has a sample of an unknown peer:\n%s", got)
	}
	unknown := "group=" + group + " peer=svc1 state=unknown "
	if got := b.sampled("tandem_peer_addresses"); !strings.Contains(got, unknown+"1") {
		t.Errorf("tandem_peer_addresses:\n%s", got)
	}
	o := b.svc.expect("OPTIONS") // left unanswered
	await(t, "a failure", func() bool { return b.peerState("svc1").Reason != "" })
	if s := b.peerState("svc1"); !s.Unknown {
		t.Errorf("after one failure, with many needed for down: %+v, want unknown with the reason", s)
	}
	up := b.core.newCall(outside, served)
	b.core.send(up.request("INVITE", sdp))
	b.core.expect("100")
	for o = b.svc.next(patience); !strings.HasPrefix(o.start, "INVITE"); o = b.svc.next(patience) {
		if o.start == "" {
			t.Fatal("the call does not reach a peer that is unknown")
		}
	}
	b.svc.send((&talk{a: b.svc, localTag: "o"}).reply(o, "486 Busy Here", ""))
	b.core.send(up.ackFailure(b.core.expect("486")))
	await(t, "an answer to a call to count", func() bool { return !b.peerState("svc1").Unknown })
	if s := b.peerState("svc1"); !s.Up || s.Reason != "" {
		t.Errorf("after an answer: %+v", s)
	}
	if got := b.sampled("tandem_peer_up"); !strings.Contains(got, "peer=svc1 1") {
		t.Errorf("tandem_peer_up:\n%s", got)
	}
	if got := b.sampled("tandem_peer_addresses"); !strings.Contains(got, unknown+"0") {
		t.Errorf("tandem_peer_addresses:\n%s", got)
	}
}

// TestLeavingAnswersOptionsWith503AndTakesCalls checks that peers learn to send calls elsewhere before any is refused.
func TestLeavingAnswersOptionsWith503AndTakesCalls(t *testing.T) {
	covers(t, "S20")
	b := setup(t)
	b.e.Leave()
	if m := b.core.ping(); !m.is("503") || m.get("Retry-After") == "" ||
		!strings.Contains(m.get("Warning"), "shutting down") {
		t.Errorf("OPTIONS got\n%s", m.raw)
	}
	up, down := b.established(b.core, b.svc, outside, served)
	b.over(up, down)
	if err := b.e.Ready(); err != nil {
		t.Errorf("Ready: %v; calls are taken", err)
	}
}
