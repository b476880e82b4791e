package cases_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// message is one SIP message as it was received.
type message struct {
	raw   string
	start string
	lines []line
	body  string
	from  *net.UDPAddr // where it came from; nil over TCP
}

type line struct{ name, value string }

// parse parses a message. It returns an error if raw is not a SIP message, which the program must never send.
func parse(raw string) (*message, error) {
	head, body, ok := strings.Cut(raw, "\r\n\r\n")
	if !ok {
		return nil, fmt.Errorf("no empty line after the header lines: %q", raw)
	}
	m := &message{raw: raw, body: body}
	all := strings.Split(head, "\r\n")
	m.start = all[0]
	for _, l := range all[1:] {
		if l != "" && (l[0] == ' ' || l[0] == '\t') && len(m.lines) > 0 { // RFC 3261 §7.3.1: folded
			last := &m.lines[len(m.lines)-1]
			last.value += " " + strings.TrimSpace(l)
			continue
		}
		name, value, ok := strings.Cut(l, ":")
		if !ok {
			return nil, fmt.Errorf("header line without a colon: %q in %q", l, raw)
		}
		m.lines = append(m.lines, line{strings.TrimSpace(name), strings.TrimSpace(value)})
	}
	// RFC 3261 §7.1, §7.2: three parts, separated by single spaces.
	w := strings.Split(m.start, " ")
	switch {
	case len(w) >= 3 && w[0] == "SIP/2.0" && len(w[1]) == 3:
	case len(w) == 3 && w[0] != "" && w[1] != "" && w[2] == "SIP/2.0":
	default:
		return nil, fmt.Errorf("malformed start line %q", m.start)
	}
	if v := m.get("Content-Length"); v != "" && v != strconv.Itoa(len(body)) {
		return nil, fmt.Errorf("Content-Length %q, but the body has %d bytes", v, len(body))
	}
	return m, nil
}

var compact = map[string]string{"v": "via", "f": "from", "t": "to", "i": "call-id", "m": "contact",
	"l": "content-length", "c": "content-type", "k": "supported", "x": "session-expires", "r": "refer-to", "o": "event"}

func canonical(name string) string {
	name = strings.ToLower(name)
	if long, ok := compact[name]; ok {
		return long
	}
	return name
}

// all returns the values of the header lines with the name, one for each line.
func (m *message) all(name string) []string {
	var vs []string
	for _, l := range m.lines {
		if canonical(l.name) == canonical(name) {
			vs = append(vs, l.value)
		}
	}
	return vs
}

// get returns the first value of the header, or "".
func (m *message) get(name string) string {
	if vs := m.all(name); len(vs) > 0 {
		return vs[0]
	}
	return ""
}

func (m *message) isRequest() bool { return !strings.HasPrefix(m.start, "SIP/2.0 ") }

// method returns the method of a request, or of the request to which a response belongs.
func (m *message) method() string {
	if m.isRequest() {
		return strings.Split(m.start, " ")[0]
	}
	_, method, _ := strings.Cut(m.get("CSeq"), " ")
	return strings.TrimSpace(method)
}

// code returns the status of a response, 0 for a request.
func (m *message) code() int {
	if m.isRequest() {
		return 0
	}
	n, _ := strconv.Atoi(strings.Split(m.start, " ")[1])
	return n
}

// uri returns a request's Request-URI.
func (m *message) uri() string { return strings.Split(m.start, " ")[1] }

// tag returns the tag parameter of From or To.
func (m *message) tag(name string) string {
	v := m.get(name)
	if i := strings.LastIndexByte(v, '>'); i >= 0 {
		v = v[i:]
	}
	_, v, _ = strings.Cut(v, ";tag=")
	v, _, _ = strings.Cut(v, ";")
	return strings.TrimSpace(v)
}

// contact returns the URI of a Contact line in name-addr form, as the program writes it.
func (m *message) contact() string {
	_, v, ok := strings.Cut(m.get("Contact"), "<")
	if !ok {
		return m.get("Contact")
	}
	v, _, _ = strings.Cut(v, ">")
	return v
}

// token returns a random string for tags, branches and Call-IDs.
func token() string { return strconv.FormatUint(rand.Uint64()|1<<63, 36) }

// peer is one end of the lab: a UDP socket whose messages a goroutine collects.
type peer struct {
	t    *testing.T
	conn *net.UDPConn
	addr string // ip:port
	ip   string

	mu      sync.Mutex // guards the fields below
	inbox   []*message
	copies  map[string]int // how often each message arrived; byte-for-byte copies are not put into inbox
	bad     []error
	changed chan struct{}
}

// listen opens a peer. At the end of the test it is closed, and everything that it received must have been well-formed.
func listen(t *testing.T, ip string) *peer {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(ip), Port: 5060})
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, conn: conn, addr: conn.LocalAddr().String(), ip: ip,
		copies: map[string]int{}, changed: make(chan struct{})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.collect()
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
		for _, err := range p.bad {
			t.Errorf("%s received something that is not a SIP message: %v", p.addr, err)
		}
	})
	return p
}

func (p *peer) collect() {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := p.conn.ReadFromUDP(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error of an earlier send
		}
		raw := string(buf[:n])
		m, err := parse(raw)
		p.mu.Lock()
		p.copies[raw]++
		switch {
		case err != nil:
			p.bad = append(p.bad, err)
		case p.copies[raw] == 1:
			m.from = from
			p.inbox = append(p.inbox, m)
		}
		close(p.changed)
		p.changed = make(chan struct{})
		p.mu.Unlock()
	}
}

// poll removes the first matching message from the inbox and returns it. It waits for it until quit is closed, and then
// returns nil.
func (p *peer) poll(fits func(*message) bool, quit <-chan struct{}) *message {
	return p.look(fits, quit, true)
}

// await is like poll, but leaves the message in the inbox.
func (p *peer) await(fits func(*message) bool, quit <-chan struct{}) *message {
	return p.look(fits, quit, false)
}

func (p *peer) look(fits func(*message) bool, quit <-chan struct{}, take bool) *message {
	for {
		p.mu.Lock()
		for i, m := range p.inbox {
			if !fits(m) {
				continue
			}
			if take {
				p.inbox = append(p.inbox[:i:i], p.inbox[i+1:]...)
			}
			p.mu.Unlock()
			return m
		}
		changed := p.changed
		p.mu.Unlock()
		select {
		case <-changed:
		case <-quit:
			return nil
		}
	}
}

// find is like poll, but waits for at most patience.
func (p *peer) find(fits func(*message) bool) *message {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return p.poll(fits, ctx.Done())
}

// expect waits for a message and fails the test if it does not arrive.
func (p *peer) expect(what string, fits func(*message) bool) *message {
	p.t.Helper()
	m := p.find(fits)
	if m == nil {
		p.t.Fatalf("%s: %s did not arrive within %v; in the inbox: %q", p.addr, what, patience, p.starts())
	}
	return m
}

// response waits for the final response to a request with the given Call-ID.
func (p *peer) response(method, callID string) *message {
	p.t.Helper()
	return p.expect("the final response to "+method, func(m *message) bool {
		return m.code() >= 200 && m.method() == method && m.get("Call-ID") == callID
	})
}

// has reports whether a matching message is in the inbox.
func (p *peer) has(fits func(*message) bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.inbox {
		if fits(m) {
			return true
		}
	}
	return false
}

func (p *peer) starts() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var s []string
	for _, m := range p.inbox {
		s = append(s, m.start)
	}
	return s
}

// send sends a message to "ip:port".
func (p *peer) send(to, text string) {
	p.t.Helper()
	a, err := net.ResolveUDPAddr("udp4", to)
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.conn.WriteToUDP([]byte(text), a); err != nil {
		p.t.Fatal(err)
	}
}

// compose joins a message and computes its Content-Length.
func compose(start string, lines []string, body string) string {
	return start + "\r\n" + strings.Join(lines, "\r\n") + "\r\n" +
		"Content-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
}

// reply sends a response to the source of a request. Further lines follow those that every response copies (RFC 3261
// §8.2.6.2).
func (p *peer) reply(m *message, code int, toTag, body string, more ...string) {
	p.t.Helper()
	p.send(m.from.String(), response(m, code, toTag, body, more...))
}

func response(m *message, code int, toTag, body string, more ...string) string {
	var ls []string
	for _, v := range m.all("Via") {
		ls = append(ls, "Via: "+v)
	}
	for _, v := range m.all("Record-Route") {
		ls = append(ls, "Record-Route: "+v)
	}
	to := m.get("To")
	if m.tag("To") == "" && toTag != "" {
		to += ";tag=" + toTag
	}
	ls = append(ls, "From: "+m.get("From"), "To: "+to, "Call-ID: "+m.get("Call-ID"), "CSeq: "+m.get("CSeq"))
	ls = append(ls, more...)
	if body != "" && !mentions(more, "Content-Type") {
		ls = append(ls, "Content-Type: application/sdp")
	}
	return compose("SIP/2.0 "+strconv.Itoa(code)+" Status", ls, body)
}

// mentions reports whether one of the lines is a header of the name.
func mentions(lines []string, name string) bool {
	for _, l := range lines {
		n, _, _ := strings.Cut(l, ":")
		if canonical(strings.TrimSpace(n)) == canonical(name) {
			return true
		}
	}
	return false
}
