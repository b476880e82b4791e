package transaction_test

import (
	"net/netip"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/calls/sip/transaction"
	"github.com/tandemgw/tandem/internal/calls/sip/transport"
)

// BenchmarkCallUDP makes calls from one layer to another over loopback: INVITE, 100, 180, 200, ACK, BYE, 200, each sent
// and received by this process, so that one call costs as much as the 14 messages of a back-to-back user agent, without
// its own work. cpu-s/1000 is the processor time, kernel included, of 1,000 calls.
func BenchmarkCallUDP(b *testing.B) { benchCalls(b, 0) }

// BenchmarkCallUDPAt1000 is the same at 1,000 calls/s, where wake-ups cost more than the work itself.
func BenchmarkCallUDPAt1000(b *testing.B) { benchCalls(b, 1000) }

func benchCalls(b *testing.B, rate int) {
	near, far := newBenchNode(b), newBenchNode(b)
	target := transport.Target{From: near.ep, Addr: far.ep.Local()}
	window := make(chan struct{}, 40)
	begun, start := cpu(), time.Now()
	b.ResetTimer()
	for i := range b.N {
		if rate > 0 {
			// paces the load; it does not wait for anything
			time.Sleep(time.Until(start.Add(time.Duration(i) * time.Second / time.Duration(rate))))
		}
		window <- struct{}{}
		c := &benchCall{near: near, target: target, window: window, id: "bench-" + strconv.Itoa(i)}
		req := c.request(sip.INVITE, "1 INVITE", "")
		req.SetBody("application/sdp", benchSDP)
		if _, err := near.layer.Send(req, target, c); err != nil {
			b.Fatal(err)
		}
	}
	for range cap(window) {
		window <- struct{}{}
	}
	b.StopTimer()
	runtime.GC()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	b.ReportMetric(float64(mem.HeapAlloc)/float64(b.N), "heap-B/call") // what remains of a call at both ends
	b.ReportMetric((cpu()-begun).Seconds()/float64(b.N)*1000, "cpu-s/1000")
	if n := near.layer.Metrics().Retransmissions.Load() + far.layer.Metrics().Retransmissions.Load(); n > 0 {
		b.ReportMetric(float64(n), "retransmissions")
	}
}

const benchSDP = "v=0\r\no=user1 53655765 2353687637 IN IP4 127.0.0.1\r\ns=-\r\n" +
	"c=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 6000 RTP/AVP 8 0 101\r\n" +
	"a=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n" +
	"a=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n"

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

type benchNode struct {
	layer *transaction.Layer
	ep    *transport.Endpoint
}

func newBenchNode(b *testing.B) *benchNode {
	stack, err := transport.New(transport.Config{}, nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	n := &benchNode{}
	if n.ep, err = stack.Listen(transport.EndpointConfig{Proto: transport.UDP,
		Bind: netip.MustParseAddrPort("127.0.0.1:0")}); err != nil {
		b.Fatal(err)
	}
	if n.layer, err = transaction.New(transaction.Config{MaxTransactions: 1 << 30}, stack, n, nil, nil); err != nil {
		b.Fatal(err)
	}
	if err := stack.Start(n.layer); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { stack.Close(); n.layer.Close() })
	return n
}

func (n *benchNode) Request(tx *transaction.Server, req *sip.Message) {
	if req.Method() == sip.BYE {
		_ = tx.Respond(sip.NewResponse(req, 200, "", ""))
		return
	}
	_ = tx.Trying()
	for _, status := range []int{180, 200} {
		res := sip.NewResponse(req, status, "", tx.Tag())
		res.Add(sip.KindContact, "<sip:127.0.0.1>")
		if status == 200 {
			res.SetBody("application/sdp", benchSDP)
		}
		_ = tx.RespondReliably(res)
	}
}

func (n *benchNode) Ack(*sip.Message, transport.Flow) {}

type benchCall struct {
	near   *benchNode
	target transport.Target
	window chan struct{}
	id     string
}

func (c *benchCall) request(method sip.Method, cseq, tag string) *sip.Message {
	m := sip.NewRequest(method, "sip:+442079460123@127.0.0.1")
	m.Add(sip.KindMaxForwards, "70")
	m.Add(sip.KindFrom, "<sip:+442079460000@127.0.0.1>;tag=near")
	if tag == "" {
		m.Add(sip.KindTo, "<sip:+442079460123@127.0.0.1>")
	} else {
		m.Add(sip.KindTo, "<sip:+442079460123@127.0.0.1>;tag="+tag)
	}
	m.Add(sip.KindCallID, c.id)
	m.Add(sip.KindCSeq, cseq)
	m.Add(sip.KindContact, "<sip:127.0.0.1>")
	m.Add(sip.KindAllow, "INVITE, ACK, CANCEL, BYE, OPTIONS")
	return m
}

func (c *benchCall) Response(tx *transaction.Client, res *sip.Message) {
	if res.Status() < 200 {
		return
	}
	if cs, _ := res.CSeq(); cs.Method == sip.BYE {
		<-c.window
		return
	}
	_ = tx.Ack(c.request(sip.ACK, "1 ACK", res.ToTag()), c.target)
	_, _ = c.near.layer.Send(c.request(sip.BYE, "2 BYE", res.ToTag()), c.target, c)
}

func (c *benchCall) Failed(*transaction.Client, error) { <-c.window }
