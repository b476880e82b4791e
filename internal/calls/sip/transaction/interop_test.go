package transaction_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/calls/sip/transaction"
	"github.com/tandemgw/tandem/internal/calls/sip/transport"
	"github.com/tandemgw/tandem/internal/sim/ca"
	"github.com/tandemgw/tandem/internal/sim/ua"
	"github.com/tandemgw/tandem/internal/testkit/dialog"
)

// rig is our transport and transaction layer on real sockets, with an agent on an independent SIP stack (sipgo).
type rig struct {
	t        *testing.T
	proto    transport.Proto
	stack    *transport.Stack
	reg      *prometheus.Registry // of the stack
	ep       *transport.Endpoint
	layer    *transaction.Layer
	agent    *ua.Agent
	script   ua.Script
	requests chan *inbound
	acks     chan *sip.Message
}

type inbound struct {
	tx  *transaction.Server
	req *sip.Message
}

func newRig(t *testing.T, proto transport.Proto) *rig {
	t.Helper()
	r := &rig{t: t, proto: proto, reg: prometheus.NewRegistry(), requests: make(chan *inbound, 10),
		acks: make(chan *sip.Message, 10)}
	authority, err := ca.New("lab")
	if err != nil {
		t.Fatal(err)
	}
	issue := func(name string) tls.Certificate {
		c, err := authority.Issue(ca.ServerAndClient, name, "127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	ours, theirs := issue("gw.example.net"), issue("agent.example.net")
	keys := transport.NewKeyring()
	if err := keys.Put("gw", ours); err != nil {
		t.Fatal(err)
	}
	if r.stack, err = transport.New(transport.Config{}, nil, r.reg); err != nil {
		t.Fatal(err)
	}
	cfg := transport.EndpointConfig{Name: "rig", Proto: proto, Bind: netip.MustParseAddrPort("127.0.0.1:0")}
	if proto == transport.TLS {
		cfg.TLS = &transport.TLSConfig{Keys: keys, Identity: "gw", Roots: authority.Pool}
	}
	if r.ep, err = r.stack.Listen(cfg); err != nil {
		t.Fatal(err)
	}
	if r.layer, err = transaction.New(transaction.Config{}, r.stack, r, nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := r.stack.Start(r.layer); err != nil {
		t.Fatal(err)
	}
	agent := ua.Config{Name: "agent", Invite: func(ctx context.Context, in *ua.Incoming) {
		_, _ = in.Play(ctx, r.script.For(""))
	}}
	switch proto {
	case transport.UDP:
		agent.UDP = "127.0.0.1:0"
	case transport.TCP:
		agent.TCP = "127.0.0.1:0"
	case transport.TLS:
		agent.TLS = "127.0.0.1:0"
		agent.ServerTLS = authority.Server(theirs)
		agent.ClientTLS = &tls.Config{RootCAs: authority.Pool(), Certificates: []tls.Certificate{theirs},
			MinVersion: tls.VersionTLS12}
	}
	if r.agent, err = ua.New(agent); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.agent.Close(); err != nil {
			t.Error(err)
		}
		r.stack.Close()
		r.layer.Close()
	})
	return r
}

func (r *rig) Request(tx *transaction.Server, req *sip.Message) { r.requests <- &inbound{tx, req} }
func (r *rig) Ack(ack *sip.Message, _ transport.Flow)           { r.t.Errorf("an ACK matched nothing:\n%s", ack) }
func (r *rig) Cancel(tx *transaction.Server, _ *sip.Message)    { r.requests <- &inbound{tx, nil} }
func (r *rig) AckOf(_ *transaction.Server, m *sip.Message)      { r.acks <- m }
func (r *rig) target() transport.Target                         { return r.to(transport.Flow{}) }
func (r *rig) to(prefer transport.Flow) transport.Target {
	addr, err := netip.ParseAddrPort(r.agent.Addr(r.proto.Param()))
	if err != nil {
		r.t.Fatal(err)
	}
	return transport.Target{From: r.ep, Addr: addr, ServerName: "agent.example.net", Prefer: prefer}
}

func (r *rig) next() *inbound {
	r.t.Helper()
	select {
	case in := <-r.requests:
		return in
	case <-time.After(time.Minute):
		r.t.Fatal("no request arrived")
		return nil
	}
}

func (r *rig) request(method sip.Method, callID string) *sip.Message {
	uri := "sip:+442079460123@" + r.agent.Addr(r.proto.Param()) + ";transport=" + r.proto.Param()
	m := sip.NewRequest(method, uri)
	m.Add(sip.KindMaxForwards, "70")
	m.Add(sip.KindFrom, "<sip:+442079460000@gw.example.net>;tag=ours")
	m.Add(sip.KindTo, "<"+uri+">")
	m.Add(sip.KindCallID, callID)
	m.Add(sip.KindCSeq, "1 "+string(method))
	m.Add(sip.KindContact, "<sip:gw@"+r.ep.SentBy()+";transport="+r.proto.Param()+">")
	return m
}

// collector is a ClientHandler for a waiting goroutine.
type collector struct {
	t   *testing.T
	got chan *sip.Message
	err chan error
}

func newCollector(t *testing.T) *collector {
	return &collector{t, make(chan *sip.Message, 20), make(chan error, 1)}
}

func (c *collector) Response(_ *transaction.Client, m *sip.Message) { c.got <- m }
func (c *collector) Failed(_ *transaction.Client, err error)        { c.err <- err }

// until returns the first response with a status of at least min.
func (c *collector) until(min int) *sip.Message {
	c.t.Helper()
	for {
		select {
		case m := <-c.got:
			if m.Status() >= min {
				return m
			}
		case err := <-c.err:
			c.t.Fatal(err)
		case <-time.After(time.Minute):
			c.t.Fatalf("no response of %d or more", min)
		}
	}
}

func eachProto(t *testing.T, f func(t *testing.T, r *rig)) {
	for _, p := range []transport.Proto{transport.UDP, transport.TCP, transport.TLS} {
		t.Run(p.Param(), func(t *testing.T) {
			t.Parallel()
			f(t, newRig(t, p))
		})
	}
}

// We call an independent stack: answer, hang-up, refusal, cancellation, over each transport.
func TestWeCallSipgo(t *testing.T) {
	eachProto(t, func(t *testing.T, r *rig) {
		r.script.Default(ua.Behaviour{Forks: 3})
		c := newCollector(t)
		invite := r.request(sip.INVITE, "answered")
		tx, err := r.layer.Send(invite, r.target(), c)
		if err != nil {
			t.Fatal(err)
		}
		res := c.until(200)
		if res.Status() != 200 {
			t.Fatalf("final response is %s", startLine(res))
		}
		d, err := dialog.Calling(invite, res)
		if err != nil {
			t.Fatal(err)
		}
		if err := tx.Ack(d.Ack(1), r.to(tx.Flow())); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := r.agent.Log().Wait(ctx, func(m *ua.Message) bool {
			return !m.Sent && m.IsRequest() && m.Method() == "ACK"
		}); err != nil {
			t.Fatalf("the agent got no ACK: %v", err)
		}
		c = newCollector(t)
		if _, err := r.layer.Send(d.Request(sip.BYE), r.to(tx.Flow()), c); err != nil {
			t.Fatal(err)
		}
		if got := c.until(200).Status(); got != 200 {
			t.Errorf("BYE was answered %d", got)
		}

		r.script.Default(ua.Behaviour{Status: 486})
		c = newCollector(t)
		if _, err := r.layer.Send(r.request(sip.INVITE, "refused"), r.target(), c); err != nil {
			t.Fatal(err)
		}
		if got := c.until(200).Status(); got != 486 {
			t.Errorf("refused call ended with %d", got)
		}
		if _, err := r.agent.Log().Wait(ctx, func(m *ua.Message) bool {
			return !m.Sent && m.Method() == "ACK" && m.CallID() == "refused"
		}); err != nil {
			t.Errorf("the 486 was not acknowledged: %v", err)
		}

		r.script.Default(ua.Behaviour{NoAnswer: true})
		c = newCollector(t)
		if tx, err = r.layer.Send(r.request(sip.INVITE, "cancelled"), r.target(), c); err != nil {
			t.Fatal(err)
		}
		if err := tx.Cancel(sip.Line(sip.KindReason, `SIP;cause=200;text="Call completed elsewhere"`)); err != nil {
			t.Fatal(err)
		}
		if got := c.until(200).Status(); got != 487 {
			t.Errorf("cancelled call ended with %d", got)
		}
		if r.proto.Reliable() {
			if n := r.dialled(); n != 1 {
				t.Errorf("%v connections were made for three calls, want 1", n)
			}
		}
		for _, m := range r.agent.Log().Received("INVITE") {
			if m.Header("CSeq") == "" {
				t.Error("unreadable INVITE")
			}
		}
	})
}

// serverSide adapts the rig to ServerHandler.
type serverSide struct{ *rig }

func (s serverSide) Cancel(tx *transaction.Server, m *sip.Message) { s.rig.Cancel(tx, m) }
func (s serverSide) Ack(tx *transaction.Server, m *sip.Message)    { s.AckOf(tx, m) }
func (s serverSide) Failed(_ *transaction.Server, err error) {
	s.t.Errorf("server transaction failed: %v", err)
}

// dialled returns how many connections the stack has made.
func (r *rig) dialled() (n float64) {
	fs, err := r.reg.Gather()
	if err != nil {
		return -1
	}
	for _, f := range fs {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetValue() == "connection_dialled" {
					n += m.GetCounter().GetValue()
				}
			}
		}
	}
	return n
}

// An independent stack calls us: answer, hang-up by either side, cancellation, over each transport.
func TestSipgoCallsUs(t *testing.T) {
	eachProto(t, func(t *testing.T, r *rig) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		dest := r.ep.Local().String()
		call := func() (*ua.Call, *inbound) {
			c, err := r.agent.Call(ctx, ua.Request{Transport: r.proto.Param(), Destination: dest,
				URI:  "sip:+15550100@" + dest + ";transport=" + r.proto.Param(),
				From: "<sip:+15550199@agent.example.net>", To: "<sip:+15550100@gw.example.net>",
				Body: ua.SDP("agent", 1)})
			if err != nil {
				t.Fatal(err)
			}
			in := r.next()
			in.tx.Handle(serverSide{r})
			return c, in
		}
		answer := func(in *inbound) {
			for _, status := range []int{180, 200} {
				res := sip.NewResponse(in.req, status, "", in.tx.Tag())
				res.Add(sip.KindContact, "<sip:gw@"+r.ep.SentBy()+";transport="+r.proto.Param()+">")
				if err := in.tx.RespondReliably(res); err != nil {
					t.Fatal(err)
				}
			}
			select {
			case <-r.acks:
			case <-ctx.Done():
				t.Fatal("the 200 was not acknowledged")
			}
		}

		c, in := call()
		answer(in)
		if m, err := c.Wait(ctx); err != nil || m.Status() != 200 {
			t.Fatalf("the agent's call: %v, %v", m, err)
		}
		bye := make(chan error, 1)
		go func() {
			m, err := c.Bye(ctx)
			if err == nil && m.Status() != 200 {
				err = errors.New(m.StartLine())
			}
			bye <- err
		}()
		got := r.next()
		if err := got.tx.Respond(sip.NewResponse(got.req, 200, "", "")); err != nil {
			t.Fatal(err)
		}
		if err := <-bye; err != nil {
			t.Errorf("the agent's BYE: %v", err)
		}

		// field-pains 5: we hang up over the connection that the far side made.
		c, in = call()
		answer(in)
		if _, err := c.Wait(ctx); err != nil {
			t.Fatal(err)
		}
		d, err := dialog.Answering(in.req, in.tx.Tag())
		if err != nil {
			t.Fatal(err)
		}
		col := newCollector(t)
		if _, err := r.layer.Send(d.Request(sip.BYE), r.to(in.tx.Flow()), col); err != nil {
			t.Fatal(err)
		}
		if got := col.until(200).Status(); got != 200 {
			t.Errorf("our BYE was answered %d", got)
		}
		if n := r.dialled(); n != 0 {
			t.Errorf("%v connections were made, want the far side's to be used", n)
		}

		c, in = call()
		if err := in.tx.Respond(sip.NewResponse(in.req, 180, "", in.tx.Tag())); err != nil {
			t.Fatal(err)
		}
		if _, err := c.WaitResponse(ctx, 180); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = c.Cancel(ctx) }()
		if x := r.next(); x.tx != in.tx || x.req != nil {
			t.Fatal("the CANCEL was not passed to the user")
		}
		if err := in.tx.Respond(sip.NewResponse(in.req, 487, "", in.tx.Tag())); err != nil {
			t.Fatal(err)
		}
		if m, err := c.Wait(ctx); err != nil || m.Status() != 487 {
			t.Errorf("the cancelled call: %v, %v", m, err)
		}
		for _, m := range r.agent.Log().Messages(func(m *ua.Message) bool {
			return strings.HasPrefix(m.StartLine(), "SIP/2.0 400")
		}) {
			t.Errorf("a 400 was sent:\n%v", m)
		}
	})
}
