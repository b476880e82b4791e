package sip

import (
	"bytes"
	"io"
	"strings"
)

// FrameKind is the kind of unit that a Reader found on a stream.
type FrameKind uint8

const (
	// FrameMessage is a message, valid or not (see Frame.Problem).
	FrameMessage FrameKind = iota
	// FramePing is a double CRLF between messages, to be answered with one CRLF
	// (RFC 5626 §3.5.1).
	FramePing
	// FramePong is a single CRLF between messages: the answer to our ping, or
	// padding to be ignored (RFC 3261 §7.5).
	FramePong
)

// Frame is one unit read from a stream.
type Frame struct {
	Kind    FrameKind
	Message *Message // for FrameMessage; with a Problem, the part that could be read
	Problem *Problem // why Parse rejected the message
	// Lost means that the start of the next message cannot be found: respond, then
	// close the connection. Next returns only io.EOF from then on.
	Lost bool
}

// Reader splits a stream connection (TCP, TLS) into messages. Content-Length,
// mandatory on streams (RFC 3261 §18.3), marks the end of a message. A Reader
// reads ahead, so the connection must have no other reader. It buffers at most one
// message within the limits, plus 4 KiB. It is not safe for concurrent use.
type Reader struct {
	src    io.Reader
	limits *Limits
	lim    Limits
	buf    []byte
	r, w   int // buf[r:w] has been read but not consumed
	scan   int // buf[r:r+scan] does not contain the end of the header section
	half   bool
	lost   bool
}

const readerStart = 4 << 10

// NewReader returns a Reader on src; nil limits mean the defaults.
func NewReader(src io.Reader, limits *Limits) *Reader {
	return &Reader{src: src, limits: limits, lim: limits.or()}
}

// Next returns the next frame. The error is that of the connection: io.EOF between
// messages, io.ErrUnexpectedEOF inside one.
func (r *Reader) Next() (Frame, error) {
	if r.lost {
		return Frame{}, io.EOF
	}
	for {
		if f, ok := r.take(); ok {
			return f, nil
		}
		if err := r.fill(); err != nil {
			if err == io.EOF && r.w > r.r {
				err = io.ErrUnexpectedEOF
			}
			return Frame{}, err
		}
	}
}

// fill reads more bytes into the buffer.
func (r *Reader) fill() error {
	switch {
	case r.r == r.w:
		r.r, r.w = 0, 0
		if len(r.buf) > 16*readerStart || r.buf == nil {
			r.buf = make([]byte, readerStart) // release the memory of a large message
		}
	case r.w == len(r.buf) && r.r > 0:
		r.w = copy(r.buf, r.buf[r.r:r.w])
		r.r = 0
	}
	if r.w == len(r.buf) {
		r.buf = append(r.buf, make([]byte, len(r.buf))...)
	}
	for range 100 {
		n, err := r.src.Read(r.buf[r.w:])
		r.w += n
		if n > 0 {
			return nil // an error that came with data is returned again
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// take cuts the next frame from the buffer; ok is false if more bytes are needed.
func (r *Reader) take() (f Frame, ok bool) {
	if f, ok, done := r.keepAlive(); done {
		return f, ok
	}
	b := r.buf[r.r:r.w]
	head, ok := r.headEnd(b)
	if !ok {
		if len(b) <= r.lim.Head {
			return Frame{}, false
		}
		return r.abandon(b[:r.lim.Head], tooLong(r.lim.Head)), true
	}
	if head > r.lim.Head {
		return r.abandon(b[:head], tooLong(r.lim.Head)), true
	}
	n, p := contentLength(b[:head])
	if p == nil && n > r.lim.Body {
		p = tooLarge("Content-Length", "body exceeds "+itoa(r.lim.Body)+" bytes")
	}
	if p != nil {
		return r.abandon(b[:head], p), true
	}
	if len(b) < head+n {
		return Frame{}, false
	}
	m, p := Parse(string(b[:head+n]), r.limits)
	r.r += head + n
	r.scan, r.half = 0, false
	f = Frame{Message: m, Problem: p}
	if p != nil && m.start == "" || p != nil && p.Status == 0 && m.status == 0 {
		f.Lost, r.lost = true, true // not SIP at all
	}
	return f, true
}

// keepAlive consumes CRLFs between messages. done is false when a message follows.
func (r *Reader) keepAlive() (f Frame, ok, done bool) {
	b := r.buf[r.r:r.w]
	switch {
	case len(b) == 0:
		return f, false, true
	case b[0] == '\n':
		// Not a CRLF, but no message can begin with LF either.
		r.r++
		return r.keepAlive()
	case b[0] != '\r':
		return f, false, false
	case len(b) == 1:
		return f, false, true
	case b[1] != '\n':
		return f, false, false // Parse reports the bare CR
	case len(b) >= 4 && b[2] == '\r' && b[3] == '\n':
		r.r += 4
		r.half = false
		return Frame{Kind: FramePing}, true, true
	case len(b) == 3 && b[2] == '\r':
		return f, false, true
	}
	r.r += 2
	if r.half { // the second half of a ping that arrived in two pieces
		r.half = false
		return Frame{Kind: FramePing}, true, true
	}
	r.half = true
	return Frame{Kind: FramePong}, true, true
}

// headEnd returns the index after the empty line that ends the header section.
// A lone LF counts as a line end too, so that Parse rejects such a message instead
// of the message blocking the connection.
func (r *Reader) headEnd(b []byte) (int, bool) {
	for i := r.scan; ; {
		nl := bytes.IndexByte(b[i:], '\n')
		if nl < 0 {
			r.scan = len(b)
			return 0, false
		}
		i += nl + 1
		switch {
		case i == len(b) || b[i] == '\r' && i+1 == len(b):
			r.scan = i - 1 // check this line end again when more bytes are there
			return 0, false
		case b[i] == '\n':
			return i + 1, true
		case b[i] == '\r' && b[i+1] == '\n':
			return i + 2, true
		}
	}
}

// abandon returns the frame for a message whose end cannot be found, and marks the
// stream as lost.
func (r *Reader) abandon(head []byte, p *Problem) Frame {
	r.lost = true
	m, pp := Parse(string(head), r.limits)
	if pp != nil && pp.Status == 0 {
		p = pp // not SIP: no response
	}
	if m.status != 0 {
		q := *p
		q.Status = 0
		p = &q
	}
	return Frame{Message: m, Problem: p, Lost: true}
}

func tooLong(n int) *Problem { return tooLarge("", "start line and headers exceed "+itoa(n)+" bytes") }

// contentLength returns the body size announced by a header section.
func contentLength(head []byte) (n int, p *Problem) {
	n = -1
	for i := bytes.IndexByte(head, '\n') + 1; i > 0 && i < len(head); {
		end := i
		for { // one line with its folds
			nl := bytes.IndexByte(head[end:], '\n')
			if nl < 0 {
				end = len(head)
				break
			}
			end += nl + 1
			if end >= len(head) || head[end] != ' ' && head[end] != '\t' {
				break
			}
		}
		line := head[i:end]
		i = end
		if c := line[0] | 0x20; c != 'c' && c != 'l' {
			continue
		}
		name, value, ok := bytes.Cut(line, []byte{':'})
		if !ok || KindOf(string(bytes.TrimRight(name, " \t"))) != KindContentLength {
			continue
		}
		v, ok := parseUint(strings.Trim(string(value), " \t\r\n"), 1<<31-1)
		if !ok {
			return 0, bad("Content-Length", "RFC 3261 §20.14", "Content-Length is not a number")
		}
		if n >= 0 && n != int(v) {
			return 0, bad("Content-Length", "RFC 3261 §20.14", "conflicting Content-Length header fields")
		}
		n = int(v)
	}
	if n < 0 {
		return 0, bad("Content-Length", "RFC 3261 §18.3",
			"Missing Content-Length header field, required over TCP and TLS")
	}
	return n, nil
}
