package sip

import (
	"iter"
	"slices"
	"strings"
)

// Message is one SIP request or response. The zero value is an empty message; use
// Parse, NewRequest or NewResponse to make one. A Message must not be copied by
// value; use Clone.
//
// Multiple goroutines may read a message at the same time; editing needs exclusive
// access.
type Message struct {
	_ noCopy

	raw    string // the whole message as received; "" once edited or if made here
	start  string // the start line as received, without CRLF; "" if made or changed
	method Method // requests only
	uri    string // requests only
	vers   string
	reason string // responses only
	status int    // responses only; 0 marks a request

	lines  []Header
	body   string
	parsed bool // made by Parse: Content-Length is not added when printing
}

// noCopy makes go vet report copies of a Message, which would share lines.
type noCopy struct{}

func (*noCopy) Lock()   {}
func (*noCopy) Unlock() {}

// Header is one header line. It is a value, which may be kept or put into another
// message.
type Header struct {
	raw     string // the line with its CRLF as received; the name if made here
	value   string // without surrounding white space; folds replaced by a space
	nameLen uint16
	kind    Kind
	made    bool
	control bool // value contains a control character (a tab is one here)
}

// Line returns a header line of a known kind. CR and LF in value become spaces, so
// that a value cannot inject another line.
func Line(k Kind, value string) Header {
	if k == KindOther || k >= numKinds {
		return NamedLine("", value) // a programming error: still a well-formed line
	}
	name := canonical[k]
	return Header{raw: name, value: oneLine(value), nameLen: uint16(len(name)), kind: k, made: true}
}

// NamedLine returns a header line with the name spelled as given. Name must be a
// token (RFC 3261 §25.1); other characters in it are replaced by '-'.
func NamedLine(name, value string) Header {
	name = cleanName(name)
	return Header{raw: name, value: oneLine(value), nameLen: uint16(len(name)), kind: KindOf(name), made: true}
}

// Name returns the field name as written in the message.
func (h Header) Name() string { return h.raw[:h.nameLen] }

// Kind returns the known field that the line is, KindOther if none.
func (h Header) Kind() Kind { return h.kind }

// Value returns the field value without surrounding white space. Each fold (RFC
// 3261 §7.3.1) is replaced by one space.
func (h Header) Value() string { return h.value }

// Is reports whether the line is the named field, in any case or form.
func (h Header) Is(name string) bool {
	if k := KindOf(name); k != KindOther {
		return h.kind == k
	}
	return h.kind == KindOther && equalFold(h.Name(), name)
}

// WithValue returns the line with another value and the same spelling of its name.
func (h Header) WithValue(value string) Header {
	return Header{raw: h.Name(), value: oneLine(value), nameLen: h.nameLen, kind: h.kind, made: true}
}

// appendTo prints the line with its CRLF.
func (h *Header) appendTo(dst []byte) []byte {
	if !h.made {
		return append(dst, h.raw...)
	}
	dst = append(dst, h.raw...)
	dst = append(dst, ':', ' ')
	dst = append(dst, h.value...)
	return append(dst, '\r', '\n')
}

// String returns the line as it is printed, without its CRLF.
func (h Header) String() string {
	return strings.TrimSuffix(string(h.appendTo(nil)), "\r\n")
}

// oneLine replaces CR and LF in a value by spaces.
func oneLine(v string) string {
	if strings.IndexByte(v, '\n') < 0 && strings.IndexByte(v, '\r') < 0 {
		return v
	}
	return strings.Map(func(r rune) rune {
		if r == '\r' || r == '\n' {
			return ' '
		}
		return r
	}, v)
}

func cleanName(n string) string {
	if n == "" {
		return "X-Unnamed"
	}
	if len(n) > 1<<15 {
		n = n[:1<<15]
	}
	if isToken(n) {
		return n
	}
	b := []byte(n)
	for i, c := range b {
		if !tokenChar[c] {
			b[i] = '-'
		}
	}
	return string(b)
}

// IsRequest reports whether the message is a request.
func (m *Message) IsRequest() bool { return m.status == 0 }

// IsResponse reports whether the message is a response.
func (m *Message) IsResponse() bool { return m.status != 0 }

// Method returns the request's method, "" for a response (see CSeq).
func (m *Message) Method() Method { return m.method }

// RequestURI returns the Request-URI as written, "" for a response.
func (m *Message) RequestURI() string { return m.uri }

// Status returns the status code, 0 for a request.
func (m *Message) Status() int { return m.status }

// Reason returns the reason phrase as written; it may be empty.
func (m *Message) Reason() string { return m.reason }

// Body returns the message body; it may be empty.
func (m *Message) Body() string { return m.body }

// Len returns the number of header lines.
func (m *Message) Len() int { return len(m.lines) }

// At returns header line i, 0 ≤ i < Len.
func (m *Message) At(i int) Header { return m.lines[i] }

// Headers yields every header line with its index, in order. No lines may be added
// or removed during the iteration.
func (m *Message) Headers() iter.Seq2[int, Header] {
	return slices.All(m.lines)
}

// Find returns the index of the first line of a kind, or -1.
func (m *Message) Find(k Kind) int { return m.FindFrom(k, 0) }

// FindFrom returns the index of the first line of a kind at or after i, or -1.
func (m *Message) FindFrom(k Kind, i int) int {
	for ; i < len(m.lines); i++ {
		if m.lines[i].kind == k {
			return i
		}
	}
	return -1
}

// FindName returns the index of the first line with that name (case-insensitive,
// compact or long form), or -1.
func (m *Message) FindName(name string) int { return m.FindNameFrom(name, 0) }

// FindNameFrom is FindName starting at line i.
func (m *Message) FindNameFrom(name string, i int) int {
	if k := KindOf(name); k != KindOther {
		return m.FindFrom(k, i)
	}
	for ; i < len(m.lines); i++ {
		if l := &m.lines[i]; l.kind == KindOther && equalFold(l.raw[:l.nameLen], name) {
			return i
		}
	}
	return -1
}

// Has reports whether there is a line of that kind.
func (m *Message) Has(k Kind) bool { return m.Find(k) >= 0 }

// Count returns the number of lines of that kind.
func (m *Message) Count(k Kind) (n int) {
	for i := range m.lines {
		if m.lines[i].kind == k {
			n++
		}
	}
	return n
}

// Get returns the value of the first line of that kind, "" if there is none. It is
// the value of the whole line: see Values for lists.
func (m *Message) Get(k Kind) string {
	if i := m.Find(k); i >= 0 {
		return m.lines[i].value
	}
	return ""
}

// Values yields the comma-separated values of all lines of that kind in order
// (RFC 3261 §7.3.1). Use it only for fields whose grammar is a list: Date, the
// authorization fields and others have commas of their own.
func (m *Message) Values(k Kind) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range m.lines {
			if m.lines[i].kind != k {
				continue
			}
			for rest, more := m.lines[i].value, true; more; {
				var v string
				v, rest, more = cutValue(rest)
				if v != "" && !yield(v) {
					return
				}
			}
		}
	}
}

// First returns the first comma-separated value of the first line of that kind.
func (m *Message) First(k Kind) string {
	v, _, _ := cutValue(m.Get(k))
	return v
}

// SplitValues yields the comma-separated values of one header value, honouring
// quoted strings and angle brackets. Empty elements are left out.
func SplitValues(value string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for rest, more := value, true; more; {
			var v string
			v, rest, more = cutValue(rest)
			if v != "" && !yield(v) {
				return
			}
		}
	}
}

// Clone returns an independent copy. It shares the immutable text.
func (m *Message) Clone() *Message {
	c := &Message{
		raw: m.raw, start: m.start, method: m.method, uri: m.uri, vers: m.vers,
		reason: m.reason, status: m.status, body: m.body, parsed: m.parsed,
	}
	c.lines = append(make([]Header, 0, len(m.lines)+4), m.lines...)
	return c
}

// String returns the message as it is printed.
func (m *Message) String() string { return string(m.AppendTo(nil)) }
