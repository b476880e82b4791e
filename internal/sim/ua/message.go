package ua

import (
	"strconv"
	"strings"
	"time"
)

// Message is one SIP message as it was on the wire. It is read-only and safe for concurrent use.
type Message struct {
	At        time.Time // when it was read from, or written to, the socket
	Sent      bool      // true for what the agent sent, false for what it received
	Transport string    // udp, tcp or tls
	Remote    string    // the other side's socket address
	// Raw holds every byte as read; of a sent message, the bytes as first written (retransmissions are not recorded).
	Raw string

	start   string
	headers []Header
	body    string
}

// Header is one header line: the name as written, the value unfolded and without surrounding white space.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// compact maps the one-letter header names of RFC 3261 §7.3.3, RFC 3515 and RFC 3892 to their long form.
var compact = map[string]string{
	"i": "call-id", "m": "contact", "e": "content-encoding", "l": "content-length", "c": "content-type",
	"f": "from", "s": "subject",
	"k": "supported", "t": "to", "v": "via", "r": "refer-to", "b": "referred-by",
}

func canonical(name string) string {
	n := strings.ToLower(name)
	if l, ok := compact[n]; ok {
		return l
	}
	return n
}

// ParseMessage parses a message. It never fails: it skips what it cannot parse, because it is used to inspect what
// another program sent, however wrong; Raw keeps everything.
func ParseMessage(raw string) *Message {
	m := &Message{Raw: raw}
	head, body, found := strings.Cut(raw, "\r\n\r\n")
	if found {
		m.body = body
	}
	lines := strings.Split(head, "\r\n")
	m.start = lines[0]
	for _, l := range lines[1:] {
		if l == "" {
			continue
		}
		if l[0] == ' ' || l[0] == '\t' { // RFC 3261 §7.3.1: a folded line continues the one before
			if n := len(m.headers); n > 0 {
				m.headers[n-1].Value += " " + strings.TrimSpace(l)
			}
			continue
		}
		name, value, ok := strings.Cut(l, ":")
		if !ok {
			continue
		}
		m.headers = append(m.headers, Header{strings.TrimSpace(name), strings.TrimSpace(value)})
	}
	return m
}

// StartLine returns the request or status line.
func (m *Message) StartLine() string { return m.start }

// IsRequest reports whether the message is a request.
func (m *Message) IsRequest() bool { return !strings.HasPrefix(m.start, "SIP/2.0 ") }

// Method returns a request's method, or the method in a response's CSeq.
func (m *Message) Method() string {
	if m.IsRequest() {
		method, _, _ := strings.Cut(m.start, " ")
		return method
	}
	_, method, _ := strings.Cut(m.Header("CSeq"), " ")
	return strings.TrimSpace(method)
}

// RequestURI returns a request's Request-URI, "" for responses.
func (m *Message) RequestURI() string {
	if !m.IsRequest() {
		return ""
	}
	f := strings.Fields(m.start)
	if len(f) < 2 {
		return ""
	}
	return f[1]
}

// Status returns a response's status code, 0 for requests.
func (m *Message) Status() int {
	if m.IsRequest() {
		return 0
	}
	f := strings.Fields(m.start)
	if len(f) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(f[1]) // a code that is not a number counts as none
	return n
}

// Header returns the first value of the header, "" if it is absent. Names are case-insensitive and may be compact
// forms.
func (m *Message) Header(name string) string {
	if v := m.Values(name); len(v) > 0 {
		return v[0]
	}
	return ""
}

// Has reports whether the header is present, even empty.
func (m *Message) Has(name string) bool { return len(m.Values(name)) > 0 }

// Values returns the value of each line of the header, in order. Lines with commas are not split.
func (m *Message) Values(name string) []string {
	n := canonical(name)
	var out []string
	for _, h := range m.headers {
		if canonical(h.Name) == n {
			out = append(out, h.Value)
		}
	}
	return out
}

// Headers returns every header line in order.
func (m *Message) Headers() []Header { return append([]Header(nil), m.headers...) }

// Body returns the body as received.
func (m *Message) Body() string { return m.body }

// CallID returns the Call-ID.
func (m *Message) CallID() string { return m.Header("Call-ID") }

// Address is a SIP or tel URI taken out of a header value or a Request-URI.
type Address struct {
	Scheme string
	User   string // without parameters of the user part; of a tel URI the number
	Host   string
	Port   int
	Params string // URI parameters as written, without the leading ";"
	URI    string // the whole URI
	Tag    string // the header's tag parameter
}

// ParseAddress parses the first address of a header value (name-addr or addr-spec) or a bare URI. Like ParseMessage it
// never fails.
func ParseAddress(value string) Address {
	var a Address
	uri, rest := value, ""
	if i := strings.IndexByte(value, '<'); i >= 0 {
		uri = value[i+1:]
		if j := strings.IndexByte(uri, '>'); j >= 0 {
			uri, rest = uri[:j], uri[j+1:]
		}
		if c := strings.IndexByte(rest, ','); c >= 0 { // a list: only the first value counts
			rest = rest[:c]
		}
	} else {
		// RFC 3261 §20: without angle brackets, parameters belong to the header.
		if c := strings.IndexByte(uri, ','); c >= 0 {
			uri = uri[:c]
		}
		rest = uri
	}
	for _, p := range strings.Split(rest, ";") {
		if k, v, ok := strings.Cut(strings.TrimSpace(p), "="); ok && strings.EqualFold(k, "tag") {
			a.Tag = v
		}
	}
	a.URI = strings.TrimSpace(uri)
	scheme, body, ok := strings.Cut(a.URI, ":")
	if !ok {
		return a
	}
	a.Scheme = strings.ToLower(scheme)
	if a.Scheme == "tel" {
		a.User, a.Params, _ = strings.Cut(body, ";")
		return a
	}
	body, _, _ = strings.Cut(body, "?")
	if at := strings.LastIndexByte(body, '@'); at >= 0 {
		a.User, body = body[:at], body[at+1:]
		a.User, _, _ = strings.Cut(a.User, ";")
		a.User, _, _ = strings.Cut(a.User, ":")
	}
	hostport, params, _ := strings.Cut(body, ";")
	a.Params = params
	a.Host = hostport
	if i := strings.LastIndexByte(hostport, ':'); i >= 0 && !strings.HasSuffix(hostport, "]") {
		if p, err := strconv.Atoi(hostport[i+1:]); err == nil {
			a.Host, a.Port = hostport[:i], p
		}
	}
	return a
}

// Param returns the URI parameter's value and whether it is present.
func (a Address) Param(name string) (string, bool) {
	for _, p := range strings.Split(a.Params, ";") {
		k, v, _ := strings.Cut(p, "=")
		if strings.EqualFold(strings.TrimSpace(k), name) {
			return v, true
		}
	}
	return "", false
}

// framer splits a byte stream into messages by Content-Length (RFC 3261 §18.3). It is only for the log: the messages
// that the agent acts on are framed by the SIP stack.
type framer struct{ buf []byte }

// maxPending limits what a framer keeps of an incomplete message.
const maxPending = 1 << 20

func (f *framer) push(data []byte, emit func(string)) {
	f.buf = append(f.buf, data...)
	for {
		for len(f.buf) > 0 && (f.buf[0] == '\r' || f.buf[0] == '\n') { // keep-alives (RFC 5626 §3.5.1)
			f.buf = f.buf[1:]
		}
		s := string(f.buf)
		head := strings.Index(s, "\r\n\r\n")
		if head < 0 {
			if len(f.buf) > maxPending {
				f.buf = nil
			}
			return
		}
		n, _ := strconv.Atoi(ParseMessage(s[:head+4]).Header("Content-Length")) // absent counts as 0
		end := head + 4 + n
		if n < 0 || n > maxPending {
			f.buf = nil
			return
		}
		if len(s) < end {
			return
		}
		emit(s[:end])
		f.buf = append([]byte(nil), f.buf[end:]...)
	}
}
