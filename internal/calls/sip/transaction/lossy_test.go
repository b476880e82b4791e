package transaction_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/calls/sip/transaction"
	"github.com/tandemgw/tandem/internal/calls/sip/transport"
	"github.com/tandemgw/tandem/internal/testkit/memnet"
)

// TestLossyNetwork makes calls between two layers over a network that loses, duplicates and reorders messages, and
// checks what must hold however bad it is: each request is passed to the user once, each call ends the same way at both
// ends, each 2xx is acknowledged once, and no transaction is left.
func TestLossyNetwork(t *testing.T) {
	for seed := range uint64(25) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { lossy(t, seed) })
		})
	}
}

const lossyCalls = 60

func lossy(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 2))
	net := memnet.New(memnet.Config{Delay: 20 * time.Millisecond, Jitter: 60 * time.Millisecond,
		Loss: rnd.Float64() * 0.25, Duplicate: rnd.Float64() * 0.25, Seed: seed})
	a := net.Node(transport.EndpointConfig{Proto: udp, Bind: nearAddr}, nil)
	b := net.Node(transport.EndpointConfig{Proto: udp, Bind: farAddr}, nil)
	callee := &callee{t: t, calls: map[string]*calleeCall{}, rnd: rand.New(rand.NewPCG(seed, 3))}
	la, err := transaction.New(transaction.Config{}, a, &callee2{t: t}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	lb, err := transaction.New(transaction.Config{}, b, callee, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	a.SetHandler(la)
	b.SetHandler(lb)
	calls := make([]*callerCall, lossyCalls)
	target := transport.Target{From: a.Endpoint(), Addr: farAddr}
	for i := range calls {
		id := fmt.Sprintf("c%d", i)
		c := &callerCall{t: t, layer: la, id: id, target: target, cancel: i%5 == 1}
		calls[i] = c
		req := sip.NewRequest(sip.INVITE, "sip:x@192.0.2.2")
		c.fill(req, "1 INVITE", "")
		if _, err := la.Send(req, target, c); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rnd.IntN(40)) * time.Millisecond)
	}
	time.Sleep(3 * time.Minute) // longer than a call with every timer of RFC 3261
	synctest.Wait()
	callee.mu.Lock()
	defer callee.mu.Unlock()
	for _, c := range calls {
		c.mu.Lock()
		k := callee.calls[c.id]
		if k == nil {
			// With a quarter lost, all seven attempts of an INVITE may be lost, once in ten thousand.
			if c.failed == nil {
				t.Errorf("%s: the callee never received a call that ended with %d", c.id, c.final)
			}
			c.mu.Unlock()
			continue
		}
		if k.invites != 1 || k.byes > 1 || k.cancels > 1 || k.acks > 1 {
			t.Errorf("%s: callee was passed %d INVITE, %d BYE, %d CANCEL, %d ACK: want each at most once", c.id,
				k.invites, k.byes, k.cancels, k.acks)
		}
		if c.failed == nil && k.failed == nil {
			if c.final != k.final {
				t.Errorf("%s: caller saw %d, callee sent %d", c.id, c.final, k.final)
			}
			if k.final == 200 && k.acks != 1 {
				t.Errorf("%s: 2xx was acknowledged %d times", c.id, k.acks)
			}
			if k.final == 200 && c.byeFinal == 200 && k.byes != 1 {
				t.Errorf("%s: BYE was answered but passed to the user %d times", c.id, k.byes)
			}
		}
		if c.finals > 1 && c.final != 200 {
			t.Errorf("%s: %d final responses were passed to the user, want 1", c.id, c.finals)
		}
		c.mu.Unlock()
	}
	if n, m := la.Live(), lb.Live(); n != 0 || m != 0 {
		t.Errorf("%d and %d transactions are left, want none", n, m)
	}
	if n, m := la.Pending(), lb.Pending(); n != 0 || m != 0 {
		t.Errorf("%d and %d transactions count as pending, want none", n, m)
	}
	la.Close()
	lb.Close()
	net.Close()
}

type callerCall struct {
	t      *testing.T
	layer  *transaction.Layer
	id     string
	target transport.Target
	cancel bool

	mu            sync.Mutex
	final, finals int
	byeFinal      int
	failed        error
}

func (c *callerCall) fill(m *sip.Message, cseq, toTag string) {
	m.Add(sip.KindMaxForwards, "70")
	m.Add(sip.KindFrom, "<sip:a@192.0.2.1>;tag=a")
	to := "<sip:x@192.0.2.2>"
	if toTag != "" {
		to += ";tag=" + toTag
	}
	m.Add(sip.KindTo, to)
	m.Add(sip.KindCallID, c.id)
	m.Add(sip.KindCSeq, cseq)
	m.Add(sip.KindContact, "<sip:192.0.2.1>")
}

func (c *callerCall) Response(tx *transaction.Client, res *sip.Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cs, _ := res.CSeq()
	if cs.Method == sip.BYE {
		c.byeFinal = res.Status()
		return
	}
	switch {
	case res.Status() == 180 && c.cancel:
		_ = tx.Cancel()
	case res.Status() >= 200:
		c.finals++
		if c.final != 0 && c.final != res.Status() {
			c.t.Errorf("%s: a second final response %d arrived after %d", c.id, res.Status(), c.final)
		}
		first := c.final == 0
		c.final = res.Status()
		if c.final != 200 {
			return
		}
		ack := sip.NewRequest(sip.ACK, "sip:x@192.0.2.2")
		c.fill(ack, "1 ACK", res.ToTag())
		if err := tx.Ack(ack, c.target); err != nil {
			c.t.Error(err)
		}
		if first {
			bye := sip.NewRequest(sip.BYE, "sip:x@192.0.2.2")
			c.fill(bye, "2 BYE", res.ToTag())
			if _, err := c.layer.Send(bye, c.target, c); err != nil {
				c.t.Error(err)
			}
		}
	}
}

func (c *callerCall) Failed(_ *transaction.Client, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed = err; c.final != 0 && c.byeFinal != 0 {
		c.t.Errorf("%s: failed with %v after its final responses", c.id, err)
	}
}

// callee2 is the caller's user: it gets no calls.
type callee2 struct{ t *testing.T }

func (c *callee2) Request(tx *transaction.Server, req *sip.Message) {
	c.t.Errorf("the caller got a %s", req.Method())
}
func (c *callee2) Ack(*sip.Message, transport.Flow) { c.t.Error("the caller got an ACK") }

type callee struct {
	t   *testing.T
	rnd *rand.Rand

	mu    sync.Mutex
	calls map[string]*calleeCall
}

type calleeCall struct {
	c                            *callee
	invites, byes, cancels, acks int
	final                        int
	failed                       error
	req                          *sip.Message
}

func (c *callee) Request(tx *transaction.Server, req *sip.Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.calls[req.CallID()]
	if k == nil {
		k = &calleeCall{c: c}
		c.calls[req.CallID()] = k
	}
	if req.Method() == sip.BYE {
		k.byes++
		_ = tx.Respond(sip.NewResponse(req, 200, "", ""))
		return
	}
	k.invites++
	k.req = req
	tx.Handle(k)
	_ = tx.Respond(sip.NewResponse(req, 180, "", tx.Tag()))
	final := []int{200, 200, 200, 486, 603}[c.rnd.IntN(5)]
	time.AfterFunc(time.Duration(c.rnd.IntN(3000))*time.Millisecond, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		k.answer(tx, final)
	})
}

func (k *calleeCall) answer(tx *transaction.Server, status int) {
	if k.final == 0 {
		k.final = status
		if err := tx.RespondReliably(sip.NewResponse(k.req, status, "", tx.Tag())); err != nil {
			k.c.t.Error(err)
		}
	}
}

func (c *callee) Ack(m *sip.Message, _ transport.Flow) {
	// A copy of an ACK that was delayed beyond its transaction: rare, and harmless.
}

func (k *calleeCall) Cancel(tx *transaction.Server, _ *sip.Message) {
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	k.cancels++
	k.answer(tx, 487)
}

func (k *calleeCall) Ack(*transaction.Server, *sip.Message) {
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	k.acks++
}

func (k *calleeCall) Failed(_ *transaction.Server, err error) {
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	k.failed = err
}
