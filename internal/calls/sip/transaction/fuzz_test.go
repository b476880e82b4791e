package transaction_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/calls/sip/transaction"
	"github.com/tandemgw/tandem/internal/calls/sip/transport"
)

// sink is a transport that sends nothing but checks that each message can be parsed.
type sink struct{ t *testing.T }

func (s sink) check(b []byte) {
	if m, p := sip.Parse(string(b), &sip.Limits{Head: 1 << 30, Body: 1 << 30, Lines: 1 << 30,
		RequestURI: 1 << 30}); p != nil {
		s.t.Errorf("sent a message that cannot be parsed: %v\n%s", p, m)
	}
}

func (s sink) Send(b []byte, t transport.Target, _ transport.Waiter) (transport.Flow, error) {
	s.check(b)
	return t.From.Arrive(nil, t.Addr), nil
}
func (s sink) Forget(transport.Flow, transport.Waiter) {}
func (s sink) Reply(b []byte, _ transport.Flow, _ transport.Waiter) error {
	s.check(b)
	return nil
}

// eager answers everything at once, and relays nothing.
type eager struct{ t *testing.T }

func (e eager) Request(tx *transaction.Server, req *sip.Message) {
	tx.Handle(eagerHandler{e})
	_ = tx.Respond(sip.NewResponse(req, 180, "", tx.Tag()))
	status := 200
	if strings.Contains(req.CallID(), "busy") {
		status = 486
	} else if strings.Contains(req.CallID(), "ring") {
		return
	}
	if err := tx.RespondReliably(sip.NewResponse(req, status, "", tx.Tag())); err != nil &&
		!errors.Is(err, transaction.ErrDone) {
		e.t.Errorf("respond: %v", err)
	}
}
func (e eager) Ack(*sip.Message, transport.Flow) {}

// eagerHandler is eager's ServerHandler.
type eagerHandler struct{ eager }

func (e eagerHandler) Ack(*transaction.Server, *sip.Message) {}
func (e eagerHandler) Cancel(tx *transaction.Server, _ *sip.Message) {
	if req := tx.Request(); req != nil {
		_ = tx.Respond(sip.NewResponse(req, 487, "", tx.Tag()))
	}
}
func (e eagerHandler) Failed(*transaction.Server, error) {}

// FuzzReceive passes sequences of datagrams, split at NUL bytes, to the layer: nothing may panic, and every message
// that it sends must be valid.
func FuzzReceive(f *testing.F) {
	for _, seq := range [][]string{
		{"INVITE", "INVITE", "ACK"}, {"INVITE", "CANCEL", "ACK"}, {"OPTIONS", "OPTIONS"}, {"CANCEL"}, {"ACK"},
		{"BYE", "INVITE"},
	} {
		for _, id := range []string{"call", "busy", "ring"} {
			var text []string
			for _, method := range seq {
				text = append(text, strings.ReplaceAll((&bundle{proto: udp}).farRequest(method, branch), "call-2", id))
			}
			f.Add(strings.ReplaceAll(strings.Join(text, "\x00"), "\n", "\r\n"))
		}
	}
	f.Add("SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKx\r\nFrom: <sip:a@b>;tag=a\r\n" +
		"To: <sip:c@d>;tag=b\r\nCall-ID: x\r\nCSeq: 7 INVITE\r\n\r\n")
	ep := transport.Detached(transport.EndpointConfig{Proto: udp, Bind: nearAddr})
	f.Fuzz(func(t *testing.T, text string) {
		l, err := transaction.New(transaction.Config{}, sink{t}, eager{t}, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c, err := l.Send(newRequest(sip.INVITE),
			transport.Target{From: ep, Addr: netip.MustParseAddrPort("192.0.2.2:5060")}, client{&bundle{t: t}})
		if err != nil {
			t.Fatal(err)
		}
		for _, datagram := range strings.Split(text, "\x00") {
			datagram = strings.ReplaceAll(datagram, "z9hG4bKx", c.Branch())
			m, p := sip.Parse(datagram, nil)
			l.Receive(m, p, ep.Arrive(m, farAddr))
		}
		if n := l.Metrics().Panics.Load(); n > 0 {
			t.Errorf("%d panics", n)
		}
	})
}
