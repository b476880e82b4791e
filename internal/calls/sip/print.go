package sip

import "strconv"

func itoa(n int) string { return strconv.Itoa(n) }

// AppendTo appends the message's wire form to dst and returns the extended slice.
//
// Unedited lines are printed with their original bytes. A message made by this
// package (NewRequest, NewResponse and so on) that has no Content-Length line gets
// one as its last line; a parsed message is printed with the lines it has.
func (m *Message) AppendTo(dst []byte) []byte {
	if m.raw != "" {
		return append(dst, m.raw...)
	}
	dst = m.appendHead(dst)
	dst = append(dst, '\r', '\n')
	return append(dst, m.body...)
}

// Size returns the number of bytes that AppendTo appends, or a few more.
func (m *Message) Size() int {
	if m.raw != "" {
		return len(m.raw)
	}
	n := len(m.start) + len(m.method) + len(m.uri) + len(m.vers) + len(m.reason) + 16
	for i := range m.lines {
		n += len(m.lines[i].raw)
		if m.lines[i].made {
			n += len(m.lines[i].value) + 4
		}
	}
	return n + len("Content-Length: 1234567\r\n") + 2 + len(m.body)
}

// Bytes returns the wire form in a new slice.
func (m *Message) Bytes() []byte { return m.AppendTo(make([]byte, 0, m.Size())) }

func (m *Message) appendHead(dst []byte) []byte {
	dst = m.appendStart(dst)
	hasLength := m.parsed
	for i := range m.lines {
		if m.lines[i].kind == KindContentLength {
			hasLength = true
		}
		dst = m.lines[i].appendTo(dst)
	}
	if !hasLength {
		dst = append(dst, "Content-Length: "...)
		dst = strconv.AppendInt(dst, int64(len(m.body)), 10)
		dst = append(dst, '\r', '\n')
	}
	return dst
}

func (m *Message) appendStart(dst []byte) []byte {
	switch {
	case m.start != "":
		dst = append(dst, m.start...)
	case m.status != 0:
		dst = append(dst, m.vers...)
		dst = append(dst, ' ')
		dst = strconv.AppendInt(dst, int64(m.status), 10)
		dst = append(dst, ' ')
		dst = append(dst, m.reason...)
	default:
		dst = append(dst, m.method...)
		dst = append(dst, ' ')
		dst = append(dst, m.uri...)
		dst = append(dst, ' ')
		dst = append(dst, m.vers...)
	}
	return append(dst, '\r', '\n')
}
