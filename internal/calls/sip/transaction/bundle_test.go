package transaction_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/calls/sip/transaction"
	"github.com/tandemgw/tandem/internal/calls/sip/transport"
	"github.com/tandemgw/tandem/internal/testkit/memnet"
)

var (
	nearAddr = netip.MustParseAddrPort("192.0.2.1:5060")
	farAddr  = netip.MustParseAddrPort("192.0.2.2:5060")
)

// bundle is a layer under test, near, and a far side controlled by the test.
type bundle struct {
	t     *testing.T
	net   *memnet.Net
	node  *memnet.Node // near's
	layer *transaction.Layer
	far   *memnet.Node
	proto transport.Proto
	start time.Time

	mu     sync.Mutex
	heard  []heard // what far received
	events []string
	tx     *transaction.Server
	// onRequest, if set, is called by near's user for a request.
	onRequest func(tx *transaction.Server, req *sip.Message)
	noHandler bool
}

type heard struct {
	at   time.Duration
	m    *sip.Message
	flow transport.Flow
}

// inBubble runs a test in fake time.
func inBubble(t *testing.T, proto transport.Proto, cfg transaction.Config, f func(b *bundle)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bundle{t: t, net: memnet.New(memnet.Config{}), proto: proto, start: time.Now()}
		b.node = b.net.Node(transport.EndpointConfig{Name: "near", Proto: proto, Bind: nearAddr}, nil)
		b.far = b.net.Node(transport.EndpointConfig{Name: "far", Proto: proto, Bind: farAddr}, farSide{b})
		layer, err := transaction.New(cfg, b.node, user{b}, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		b.layer = layer
		b.node.SetHandler(layer)
		f(b)
		b.layer.Close()
		b.net.Close()
	})
}

type farSide struct{ *bundle }

func (farSide) Unreachable(string, netip.AddrPort, error) {}

func (b farSide) Receive(m *sip.Message, p *sip.Problem, f transport.Flow) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p != nil {
		b.t.Errorf("the far side received an invalid message: %v\n%s", p, m)
	}
	b.heard = append(b.heard, heard{time.Since(b.start), m, f})
}

type user struct{ *bundle }

func (u user) Request(tx *transaction.Server, req *sip.Message) {
	u.note("request %s", req.Method())
	u.mu.Lock()
	u.tx = tx
	on, no := u.onRequest, u.noHandler
	u.mu.Unlock()
	if !no {
		tx.Handle(handler(u))
	}
	if on != nil {
		on(tx, req)
	}
}

func (u user) Ack(ack *sip.Message, _ transport.Flow) { u.note("stray ack %s", ack.ToTag()) }

// handler is ServerHandler and ClientHandler in one.
type handler struct{ *bundle }

func (h handler) Cancel(_ *transaction.Server, m *sip.Message) { h.note("cancel") }
func (h handler) Ack(_ *transaction.Server, m *sip.Message)    { h.note("ack %s", m.ToTag()) }

func (h handler) Failed(_ *transaction.Server, err error) { h.note("failed: %v", err) }

type client struct{ *bundle }

func (c client) Response(_ *transaction.Client, m *sip.Message) {
	c.note("%d %s", m.Status(), m.ToTag())
}
func (c client) Failed(_ *transaction.Client, err error) { c.note("failed: %v", err) }

func (b *bundle) note(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = append(b.events, strings.TrimSpace(fmt.Sprintf(format, args...)))
}

// at advances fake time to d after the start and waits for everything due by then.
func (b *bundle) at(d time.Duration) {
	b.t.Helper()
	if w := d - time.Since(b.start); w > 0 {
		time.Sleep(w)
	}
	synctest.Wait()
}

// settle waits for everything that is due now.
func (b *bundle) settle() { synctest.Wait() }

// startLine returns the start line of a message.
func startLine(m *sip.Message) string {
	line, _, _ := strings.Cut(m.String(), "\r\n")
	return line
}

// times returns when far received messages whose start line begins with prefix, rounded down to 100 ms: timers may be a
// tick late.
func (b *bundle) times(prefix string) (out []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, h := range b.heard {
		if strings.HasPrefix(startLine(h.m), prefix) {
			late := h.at % (100 * time.Millisecond)
			if late > 20*time.Millisecond {
				b.t.Errorf("%q arrived at %v, which is not within 20 ms after a multiple of 100 ms", prefix, h.at)
			}
			out = append(out, h.at.Truncate(100*time.Millisecond).String())
		}
	}
	return out
}

func (b *bundle) wantTimes(prefix string, want ...string) {
	b.t.Helper()
	if got := b.times(prefix); !slices.Equal(got, want) {
		b.t.Errorf("far received %q at %v, want %v", prefix, got, want)
	}
}

func (b *bundle) wantEvents(want ...string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Equal(b.events, want) {
		b.t.Errorf("the user's events are\n %q, want\n %q", b.events, want)
	}
}

func (b *bundle) wantLive(n int) {
	b.t.Helper()
	if got := b.layer.Live(); got != n {
		b.t.Errorf("%d transactions are held, want %d", got, n)
	}
	if p := b.layer.Pending(); n == 0 && p != 0 {
		b.t.Errorf("%d transactions count as pending though none is held", p)
	}
}

// last returns the latest message received by far whose start line begins with prefix.
func (b *bundle) last(prefix string) *sip.Message {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, h := range slices.Backward(b.heard) {
		if strings.HasPrefix(startLine(h.m), prefix) {
			return h.m
		}
	}
	b.t.Fatalf("far received no %q", prefix)
	return nil
}

// target returns the target of far, from near.
func (b *bundle) target() transport.Target {
	return transport.Target{From: b.node.Endpoint(), Addr: farAddr}
}

// say sends text from far to near. Lines may end in LF.
func (b *bundle) say(text string) {
	b.t.Helper()
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\n", "\r\n")
	if _, err := b.far.Send([]byte(text), transport.Target{From: b.far.Endpoint(), Addr: nearAddr}, nil); err != nil {
		b.t.Fatal(err)
	}
	synctest.Wait()
}

// answer sends far's response to a request that it received.
func (b *bundle) answer(req *sip.Message, status int, tag string) {
	b.t.Helper()
	res := sip.NewResponse(req, status, "", tag)
	b.say(res.String())
}

func newRequest(method sip.Method, lines ...sip.Header) *sip.Message {
	m := sip.NewRequest(method, "sip:+442079460123@192.0.2.2")
	m.Add(sip.KindMaxForwards, "70")
	for _, l := range lines {
		m.Append(l)
	}
	m.Add(sip.KindFrom, "<sip:+442079460000@192.0.2.1>;tag=near")
	m.Add(sip.KindTo, "<sip:+442079460123@192.0.2.2>")
	m.Add(sip.KindCallID, "call-1@192.0.2.1")
	m.Add(sip.KindCSeq, "7 "+string(method))
	m.Add(sip.KindContact, "<sip:192.0.2.1>")
	return m
}

// farRequest returns the text of a request from far.
func (b *bundle) farRequest(method, branch string) string {
	return method + " sip:+442079460123@192.0.2.1 SIP/2.0\n" +
		"Via: SIP/2.0/" + b.proto.String() + " 192.0.2.2:5060;branch=" + branch + "\n" +
		"Max-Forwards: 70\n" +
		"From: <sip:+442079460999@192.0.2.2>;tag=far\n" +
		"To: <sip:+442079460123@192.0.2.1>\n" +
		"Call-ID: call-2@192.0.2.2\n" +
		"CSeq: 3 " + method + "\n" +
		"Contact: <sip:192.0.2.2>\n" +
		"Content-Length: 0\n\n"
}

// respond makes near's user answer the latest request.
func (b *bundle) respond(status int, reliably bool) error {
	b.mu.Lock()
	tx := b.tx
	b.mu.Unlock()
	req := tx.Request()
	if req == nil {
		return transaction.ErrDone
	}
	res := sip.NewResponse(req, status, "", tx.Tag())
	if reliably {
		return tx.RespondReliably(res)
	}
	return tx.Respond(res)
}

func (b *bundle) mustRespond(status int, reliably bool) {
	b.t.Helper()
	if err := b.respond(status, reliably); err != nil {
		b.t.Fatalf("respond %d: %v", status, err)
	}
	synctest.Wait()
}

func (b *bundle) mustSend(req *sip.Message) *transaction.Client {
	b.t.Helper()
	c, err := b.layer.Send(req, b.target(), client{b})
	if err != nil {
		b.t.Fatalf("send %s: %v", req.Method(), err)
	}
	synctest.Wait()
	return c
}
