package edge

import (
	"fmt"
	"hash/maphash"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// patience is how long a test waits for a message that must arrive; only failing tests wait that long.
const patience = time.Minute

// agent is a SIP user agent of the tests on one UDP socket. It builds and reads messages as plain text, on purpose
// without the parser that it helps to test.
type agent struct {
	t    *testing.T
	name string
	conn *net.UDPConn
	edge netip.AddrPort
	in   chan msg
	// options, if set, is the status for all OPTIONS; the test then does not see them.
	options atomic.Pointer[string]
	probes  atomic.Int64 // how many OPTIONS a TLS agent has answered so
	// A TLS agent has these instead of conn: where it listens, and the connection it uses.
	listener net.Listener
	stream   func() net.Conn

	// A message with the bytes of an earlier one is kept from the test, which can wait for it with again: on a loaded
	// machine requests, and 2xx on any transport, may be retransmitted at any time.
	mu      sync.Mutex
	repeats map[uint64]int // hash of a message received: how many repeats of it no test has waited for
}

// msg is a message that an agent received.
type msg struct {
	start string
	lines []string // "Name: value"
	body  string
	raw   string
}

func newAgent(t *testing.T, name string) *agent {
	t.Helper()
	return newAgentAt(t, name, "127.0.0.1")
}

func newAgentAt(t *testing.T, name, ip string) *agent {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(ip)})
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadBuffer(1 << 20)
	a := &agent{t: t, name: name, conn: conn, in: make(chan msg, 1024)}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		buf := make([]byte, 65536)
		for {
			n, src, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				close(a.in)
				return
			}
			raw := string(buf[:n])
			if a.repeated(raw) {
				continue
			}
			m := parseMsg(raw)
			if status := a.options.Load(); status != nil && m.is("OPTIONS") {
				_, _ = conn.WriteToUDPAddrPort([]byte((&talk{a: a, localTag: "o"}).reply(m, *status, "")), src)
				continue
			}
			a.in <- m
		}
	}()
	return a
}

var seed = maphash.MakeSeed()

// repeated reports whether the message was received before, and counts it.
func (a *agent) repeated(raw string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.repeats == nil {
		a.repeats = map[uint64]int{}
	}
	key := maphash.String(seed, raw)
	n, before := a.repeats[key]
	if before {
		n++
	}
	a.repeats[key] = n
	return before
}

// again waits for a repeat of a message, unless there was one that no earlier call of again has taken. Until then no
// new message may arrive.
func (a *agent) again(m msg) {
	a.t.Helper()
	key := maphash.String(seed, m.raw)
	await(a.t, "a repeat of "+m.start, func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		if n := a.repeats[key]; n > 0 {
			a.repeats[key] = n - 1
			return true
		}
		if len(a.in) > 0 {
			a.t.Fatalf("%s waited for a repeat of\n%s\nand got\n%s", a.name, m.raw, (<-a.in).raw)
		}
		return false
	})
}

func (a *agent) addr() string {
	if a.listener != nil {
		return a.listener.Addr().String()
	}
	return a.conn.LocalAddr().String()
}

// via is the transport of the agent's Via lines.
func (a *agent) via() string {
	if a.stream != nil {
		return "TLS"
	}
	return "UDP"
}

func parseMsg(raw string) msg {
	head, body, _ := strings.Cut(raw, "\r\n\r\n")
	lines := strings.Split(head, "\r\n")
	return msg{start: lines[0], lines: lines[1:], body: body, raw: raw}
}

func (m msg) is(what string) bool {
	if code, ok := strings.CutPrefix(m.start, "SIP/2.0 "); ok {
		return strings.HasPrefix(code, what)
	}
	return strings.HasPrefix(m.start, what+" ")
}

// get returns the first value of a field.
func (m msg) get(name string) string {
	if all := m.all(name); len(all) > 0 {
		return all[0]
	}
	return ""
}

func (m msg) all(name string) []string {
	var out []string
	for _, l := range m.lines {
		n, v, _ := strings.Cut(l, ":")
		if strings.EqualFold(strings.TrimSpace(n), name) {
			out = append(out, strings.TrimSpace(v))
		}
	}
	return out
}

func (m msg) tag(field string) string { return param(m.get(field), "tag") }

func (m msg) uri() string { return strings.Split(m.start, " ")[1] }

// contact returns the URI of Contact.
func (m msg) contact() string { return between(m.get("Contact"), "<", ">") }

func (m msg) cseq() (int, string) {
	n, method, _ := strings.Cut(m.get("CSeq"), " ")
	i, _ := strconv.Atoi(n)
	return i, strings.TrimSpace(method)
}

func param(value, name string) string {
	if i := strings.LastIndexByte(value, '>'); i >= 0 {
		value = value[i:]
	}
	for _, p := range strings.Split(value, ";")[1:] {
		n, v, _ := strings.Cut(p, "=")
		if strings.EqualFold(strings.TrimSpace(n), name) {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func between(s, a, z string) string {
	_, s, _ = strings.Cut(s, a)
	s, _, _ = strings.Cut(s, z)
	return s
}

func (a *agent) send(text string) {
	a.t.Helper()
	if a.stream != nil {
		if _, err := a.stream().Write([]byte(text)); err != nil {
			a.t.Errorf("%s sends: %v", a.name, err)
		}
		return
	}
	if _, err := a.conn.WriteToUDPAddrPort([]byte(text), a.edge); err != nil {
		a.t.Errorf("%s sends: %v", a.name, err)
	}
}

// expect waits for the next message, which must be what: a method, or the start of a status.
func (a *agent) expect(what string) msg {
	a.t.Helper()
	m := a.next(patience)
	if m.raw == "" {
		a.t.Fatalf("%s waited for %s and got nothing", a.name, what)
	}
	if !m.is(what) {
		a.t.Fatalf("%s waited for %s and got\n%s", a.name, what, m.raw)
	}
	return m
}

// expectAll waits for messages in any order, and returns them in the order asked for.
func (a *agent) expectAll(whats ...string) []msg {
	a.t.Helper()
	out := make([]msg, len(whats))
next:
	for range whats {
		m := a.next(patience)
		for i, w := range whats {
			if out[i].raw == "" && m.raw != "" && m.is(w) {
				out[i] = m
				continue next
			}
		}
		a.t.Fatalf("%s waited for %q and got\n%s", a.name, whats, m.raw)
	}
	return out
}

// next returns the next message, or an empty one if none arrives in time.
func (a *agent) next(wait time.Duration) msg {
	select {
	case m := <-a.in:
		return m
	case <-time.After(wait):
		return msg{}
	}
}

// quiet checks that no message arrives: all earlier ones have been handled once a new OPTIONS is answered.
func (a *agent) quiet() {
	a.t.Helper()
	m := a.ping()
	if !m.is("200") && !m.is("503") {
		a.t.Fatalf("%s expected nothing more and got\n%s", a.name, m.raw)
	}
}

// ping sends an OPTIONS and returns the next message.
func (a *agent) ping() msg {
	a.t.Helper()
	a.send(a.newCall("+10000000", "+10000001").request("OPTIONS", ""))
	m := a.next(patience)
	if m.raw == "" {
		a.t.Fatalf("%s got no answer to OPTIONS", a.name)
	}
	return m
}

var counter atomic.Int64

func unique(prefix string) string { return fmt.Sprintf("%s%d", prefix, counter.Add(1)) }

// talk is an agent's side of a dialog, or of a future one.
type talk struct {
	a                       *agent
	callID, localTag        string
	local, remote           string // header values without tag
	remoteTag               string
	target                  string // Request-URI
	cseq                    int
	invite                  msg // the INVITE we received, for the called side
	inviteText, lastRequest string
	routes                  []string
	contact                 string
	vias                    []string // further Via lines below ours
}

// newCall prepares a call from this agent.
func (a *agent) newCall(from, to string) *talk {
	return &talk{a: a, callID: unique("call-") + "@" + a.name, localTag: unique("t"),
		local:   "<sip:" + from + "@" + a.addr() + ">",
		remote:  "<sip:" + to + "@" + a.edge.String() + ">",
		target:  "sip:" + to + "@" + a.edge.String(),
		contact: "<sip:" + a.name + "@" + a.addr() + ">"}
}

const sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n" +
	"m=audio 4000 RTP/AVP 8\r\na=sendrecv\r\n"

// request writes the next request of the dialog. Extra lines have no line ends; one that is "Name:" alone leaves that
// line out.
func (c *talk) request(method, body string, extra ...string) string {
	if method != "ACK" && method != "CANCEL" {
		c.cseq++
	}
	return c.requestAs(method, c.cseq, unique("z9hG4bK"), body, extra...)
}

func (c *talk) requestAs(method string, cseq int, branch, body string, extra ...string) string {
	to := c.remote
	if c.remoteTag != "" {
		to += ";tag=" + c.remoteTag
	}
	lines := []string{"Via: SIP/2.0/" + c.a.via() + " " + c.a.addr() + ";branch=" + branch + ";rport"}
	lines = append(lines, c.vias...)
	for _, r := range c.routes {
		lines = append(lines, "Route: "+r)
	}
	lines = append(lines, "Max-Forwards: 70", "From: "+c.local+";tag="+c.localTag, "To: "+to, "Call-ID: "+c.callID,
		fmt.Sprintf("CSeq: %d %s", cseq, method))
	if c.contact != "" && method != "BYE" && method != "CANCEL" {
		lines = append(lines, "Contact: "+c.contact)
	}
	if body != "" {
		lines = append(lines, "Content-Type: application/sdp")
	}
	lines = merge(lines, extra)
	text := fmt.Sprintf("%s %s SIP/2.0\r\n%s\r\nContent-Length: %d\r\n\r\n%s", method, c.target,
		strings.Join(lines, "\r\n"), len(body), body)
	c.lastRequest = text
	if method == "INVITE" {
		c.inviteText = text
	}
	return text
}

// merge adds lines, replacing those of the same name that are not lists.
func merge(lines, extra []string) []string {
	for _, e := range extra {
		name, value, _ := strings.Cut(e, ":")
		if name == "Via" || name == "Record-Route" || name == "X-List" {
			lines = append(lines, e)
			continue
		}
		for i := 0; i < len(lines); i++ {
			if n, _, _ := strings.Cut(lines[i], ":"); strings.EqualFold(n, name) {
				lines = append(lines[:i], lines[i+1:]...)
				i--
			}
		}
		if value != "" {
			lines = append(lines, e)
		}
	}
	return lines
}

// cancel writes the CANCEL of the last INVITE.
func (c *talk) cancel(extra ...string) string {
	inv := parseMsg(c.inviteText)
	cseq, _ := inv.cseq()
	return c.requestAs("CANCEL", cseq, param(inv.get("Via"), "branch"), "", extra...)
}

// ack writes the ACK of a 2xx.
func (c *talk) ack(cseq int, body string, extra ...string) string {
	return c.requestAs("ACK", cseq, unique("z9hG4bK"), body, extra...)
}

// ackFailure writes the ACK for a non-2xx final response to the last INVITE.
func (c *talk) ackFailure(answer msg) string {
	inv := parseMsg(c.inviteText)
	cseq, _ := inv.cseq()
	save, route := c.remoteTag, c.routes
	defer func() { c.remoteTag, c.routes = save, route }()
	c.remoteTag = answer.tag("To")
	return c.requestAs("ACK", cseq, param(inv.get("Via"), "branch"), "")
}

// answered takes remote tag, target and route set from a 2xx, or from a provisional response that makes a dialog.
func (c *talk) answered(m msg) {
	c.remoteTag = m.tag("To")
	if u := m.contact(); u != "" {
		c.target = u
	}
	c.routes = nil
	rr := m.all("Record-Route")
	for i := len(rr) - 1; i >= 0; i-- {
		c.routes = append(c.routes, rr[i])
	}
}

// called returns the called side's dialog for a received INVITE.
func (a *agent) called(invite msg) *talk {
	return &talk{a: a, callID: invite.get("Call-ID"), localTag: unique("u"), local: invite.get("To"),
		remote: strings.Split(invite.get("From"), ";tag=")[0], remoteTag: invite.tag("From"), target: invite.contact(),
		invite: invite, contact: "<sip:" + a.name + "@" + a.addr() + ">", cseq: 100,
		routes: invite.all("Record-Route")}
}

// reply writes a response to a request.
func (c *talk) reply(req msg, status, body string, extra ...string) string {
	return c.replyAs(req, status, c.localTag, body, extra...)
}

func (c *talk) replyAs(req msg, status, tag, body string, extra ...string) string {
	var lines []string
	for _, v := range req.all("Via") {
		lines = append(lines, "Via: "+v)
	}
	to := req.get("To")
	if param(to, "tag") == "" && tag != "" {
		to += ";tag=" + tag
	}
	lines = append(lines, "From: "+req.get("From"), "To: "+to, "Call-ID: "+req.get("Call-ID"), "CSeq: "+req.get("CSeq"))
	for _, v := range req.all("Record-Route") {
		lines = append(lines, "Record-Route: "+v)
	}
	_, method := req.cseq()
	if (method == "INVITE" || method == "UPDATE") && !strings.HasPrefix(status, "100") {
		lines = append(lines, "Contact: "+c.contact)
	}
	if body != "" {
		lines = append(lines, "Content-Type: application/sdp")
	}
	lines = merge(lines, extra)
	return fmt.Sprintf("SIP/2.0 %s\r\n%s\r\nContent-Length: %d\r\n\r\n%s", status, strings.Join(lines, "\r\n"),
		len(body), body)
}
