// Package dialog keeps the state of SIP dialogs (RFC 3261 §12): the two sides, the route set, and the sequence numbers
// in use. It builds requests inside a dialog and checks those that arrive.
//
// It is the dialog layer of tests that run the transaction layer alone; the edge keeps the dialogs of a call with the
// call. It sends nothing, has no table of dialogs, and knows nothing about calls. A forked INVITE creates several early
// dialogs; a [Forks] holds them.
//
// Nothing here is safe for concurrent use.
package dialog

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tandemgw/tandem/internal/calls/sip"
)

// ID identifies a dialog at one side (RFC 3261 §12). It is a valid map key.
type ID struct {
	CallID string
	Local  string // our tag
	Remote string // their tag; empty from an RFC 2543 implementation
}

// OfRequest returns the dialog to which a received request belongs: our tag is in To.
func OfRequest(m *sip.Message) ID {
	return ID{CallID: m.CallID(), Local: m.ToTag(), Remote: m.FromTag()}
}

// OfResponse returns the dialog to which a received response belongs: our tag is in From.
func OfResponse(m *sip.Message) ID {
	return ID{CallID: m.CallID(), Local: m.FromTag(), Remote: m.ToTag()}
}

// Dialog is one dialog as seen from our side. Its strings are copies: it keeps no message alive.
type Dialog struct {
	id        ID
	local     string // From of our requests, with our tag
	remote    string // To of our requests, with their tag
	target    string // remote target: the Request-URI of our requests, unless the route set says otherwise
	routes    []string
	confirmed bool
	localSeq  uint32
	remoteSeq uint32
	hasRemote bool // remoteSeq is set
}

// maxRoutes limits a route set: no network has so many proxies.
const maxRoutes = 32

// Answering creates the dialog of a received INVITE (or other request that creates one) at the side that answers it
// (§12.1.1). tag is our To tag. The dialog is early until Confirm.
func Answering(req *sip.Message, tag string) (*Dialog, error) {
	cs, err := req.CSeq()
	if err != nil {
		return nil, fmt.Errorf("make dialog: CSeq: %w", err)
	}
	d := &Dialog{
		id:        ID{CallID: req.CallID(), Local: tag, Remote: req.FromTag()},
		local:     sip.WithParam(req.Get(sip.KindTo), "tag", tag),
		remote:    req.Get(sip.KindFrom),
		remoteSeq: cs.Seq, hasRemote: true,
	}
	if err := d.setTarget(req); err != nil {
		return nil, err
	}
	if d.routes, err = routes(req); err != nil {
		return nil, err
	}
	d.detach()
	return d, nil
}

// Calling creates the dialog of an INVITE (or other request that creates one) at the side that sent it, from a response
// with a To tag (§12.1.2). It is confirmed if the response is a 2xx, otherwise early.
func Calling(req, res *sip.Message) (*Dialog, error) {
	cs, err := req.CSeq()
	if err != nil {
		return nil, fmt.Errorf("make dialog: CSeq: %w", err)
	}
	d := &Dialog{
		id:       ID{CallID: req.CallID(), Local: req.FromTag(), Remote: res.ToTag()},
		local:    req.Get(sip.KindFrom),
		remote:   res.Get(sip.KindTo),
		localSeq: cs.Seq,
		// Until there is a response with Contact, requests go where the INVITE went.
		target: req.RequestURI(),
	}
	if err := d.learn(res); err != nil {
		return nil, err
	}
	d.detach()
	return d, nil
}

// learn takes the route set and the remote target from a response to the request that created the dialog. A 2xx sets
// both (§13.2.2.4); provisional responses without Contact leave the target unchanged.
func (d *Dialog) learn(res *sip.Message) error {
	ok := res.Status()/100 == 2
	if res.Has(sip.KindContact) {
		if err := d.setTarget(res); err != nil {
			return err
		}
	} else if ok {
		return errors.New("2xx that creates a dialog has no Contact (RFC 3261 §12.1.1)")
	}
	r, err := routes(res)
	if err != nil {
		return err
	}
	slices.Reverse(r) // §12.1.2
	d.routes = r
	d.confirmed = d.confirmed || ok
	return nil
}

// setTarget sets the remote target from Contact.
func (d *Dialog) setTarget(m *sip.Message) error {
	uri, ok := m.Target()
	if !ok {
		return errors.New("make dialog: Contact cannot be a Request-URI")
	}
	d.target = uri
	return nil
}

// routes reads the Record-Route set in the message's order.
func routes(m *sip.Message) ([]string, error) {
	var out []string
	for v := range m.Values(sip.KindRecordRoute) {
		if _, err := sip.ParseNameAddr(v); err != nil {
			return nil, fmt.Errorf("make dialog: Record-Route: %w", err)
		}
		if len(out) == maxRoutes {
			return nil, fmt.Errorf("make dialog: more than %d Record-Route values", maxRoutes)
		}
		out = append(out, v)
	}
	return out, nil
}

// detach copies all strings into one of the dialog's own, so that it does not keep alive the messages it was made from.
func (d *Dialog) detach() {
	fields := []*string{&d.id.CallID, &d.id.Local, &d.id.Remote, &d.local, &d.remote, &d.target}
	for i := range d.routes {
		fields = append(fields, &d.routes[i])
	}
	n := 0
	for _, f := range fields {
		n += len(*f)
	}
	var b strings.Builder
	b.Grow(n)
	for _, f := range fields {
		b.WriteString(*f)
	}
	all := b.String()
	for _, f := range fields {
		*f, all = all[:len(*f)], all[len(*f):]
	}
}

// ID returns the dialog's identity.
func (d *Dialog) ID() ID { return d.id }

// Confirmed reports whether the dialog is confirmed, not early.
func (d *Dialog) Confirmed() bool { return d.confirmed }

// Target returns the remote target URI.
func (d *Dialog) Target() string { return d.target }

// Routes returns the route set in the order of the Route lines. The caller must not change it.
func (d *Dialog) Routes() []string { return d.routes }

// NextHop returns the URI to which a request of the dialog must be sent: the first route, or the remote target if there
// is none (§12.2.1.1, §8.1.2).
func (d *Dialog) NextHop() string {
	if len(d.routes) == 0 {
		return d.target
	}
	a, _ := sip.ParseNameAddr(d.routes[0]) // parsed before without an error
	return a.Addr
}

// LocalSeq returns the sequence number of the latest request that we sent, 0 if there is none.
func (d *Dialog) LocalSeq() uint32 { return d.localSeq }

// RemoteSeq returns the sequence number of the latest request that we received, 0 if there is none.
func (d *Dialog) RemoteSeq() uint32 { return d.remoteSeq }

// Confirm confirms an early dialog at the side that answered with a 2xx.
func (d *Dialog) Confirm() { d.confirmed = true }

// Answered updates the dialog from a response, provisional or 2xx, to the request that created it (§12.1.2, §13.2.2.4).
// An error leaves the dialog unchanged.
func (d *Dialog) Answered(res *sip.Message) error {
	was := *d
	if err := d.learn(res); err != nil {
		*d = was
		return err
	}
	d.detach()
	return nil
}

// Refresh sets the remote target from a target refresh request, or from the 2xx to one of ours: re-INVITE and UPDATE
// (§12.2). It reports whether the message has a valid Contact; without one it changes nothing. The route set never
// changes.
func (d *Dialog) Refresh(m *sip.Message) bool {
	if !m.Has(sip.KindContact) || d.setTarget(m) != nil {
		return false
	}
	d.target = strings.Clone(d.target)
	return true
}

// Receive checks a request of the dialog and records its sequence number (§12.2.2). A request whose number is not
// higher than all previous ones is out of order: the problem's status is 500. ACK and CANCEL carry their INVITE's
// number and pass.
func (d *Dialog) Receive(req *sip.Message) *sip.Problem {
	if req.Method() == sip.ACK || req.Method() == sip.CANCEL {
		return nil
	}
	cs, err := req.CSeq()
	if err != nil {
		return &sip.Problem{Status: 400, Field: "CSeq", Text: "CSeq: " + err.Error(), Clause: "RFC 3261 §20.16"}
	}
	if d.hasRemote && cs.Seq <= d.remoteSeq {
		return &sip.Problem{Status: 500, Field: "CSeq", Clause: "RFC 3261 §12.2.2",
			Text: "CSeq " + strconv.Itoa(int(cs.Seq)) + " is not higher than " + strconv.Itoa(int(d.remoteSeq)) +
				", the latest in this dialog"}
	}
	d.remoteSeq, d.hasRemote = cs.Seq, true
	return nil
}

// Request makes the next request of the dialog, with Max-Forwards, Route, From, To, Call-ID and CSeq (§12.2.1.1). It is
// not for ACK and CANCEL. The transaction layer adds Via, the caller Contact and the rest.
func (d *Dialog) Request(method sip.Method) *sip.Message {
	d.localSeq++
	return d.request(method, d.localSeq)
}

// Ack makes the ACK for a 2xx to the INVITE with sequence number seq (§13.2.2.4).
func (d *Dialog) Ack(seq uint32) *sip.Message { return d.request(sip.ACK, seq) }

func (d *Dialog) request(method sip.Method, seq uint32) *sip.Message {
	uri, route := d.target, d.routes
	strict := len(route) > 0 && !loose(route[0])
	if strict {
		// The first proxy is a strict router of RFC 2543: it becomes the Request-URI, and the target the last route
		// (§12.2.1.1).
		a, _ := sip.ParseNameAddr(route[0])
		uri, route = a.Addr, route[1:]
	}
	m := sip.NewRequest(method, uri)
	for _, r := range route {
		m.Add(sip.KindRoute, r)
	}
	if strict {
		m.Add(sip.KindRoute, "<"+d.target+">")
	}
	m.Add(sip.KindMaxForwards, "70")
	m.Add(sip.KindFrom, d.local)
	m.Add(sip.KindTo, d.remote)
	m.Add(sip.KindCallID, d.id.CallID)
	m.Add(sip.KindCSeq, strconv.FormatUint(uint64(seq), 10)+" "+string(method))
	return m
}

// loose reports whether a route is a loose router: its URI has the parameter lr (§19.1.1).
func loose(route string) bool {
	a, err := sip.ParseNameAddr(route)
	if err != nil {
		return true
	}
	u, err := a.URI()
	if err != nil {
		return true
	}
	return u.Params.Has("lr")
}
