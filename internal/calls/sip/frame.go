package sip

import "io"

// FrameKind tells what a Reader found on a stream.
type FrameKind uint8

const (
	// FrameMessage is a message, good or bad (see Frame.Problem).
	FrameMessage FrameKind = iota
	// FramePing is a double CRLF between messages: answer with one CRLF (RFC 5626
	// §3.5.1).
	FramePing
	// FramePong is a single CRLF between messages: the answer to our ping.
	FramePong
)

// Frame is one unit read from a stream.
type Frame struct {
	Kind    FrameKind
	Message *Message // for FrameMessage; with a Problem, whatever could be read
	Problem *Problem // why the message cannot be accepted
	// Lost means that the next message's beginning is unknown: answer, then close
	// the connection.
	Lost bool
}

// Reader finds messages on a stream connection (TCP, TLS). Content-Length, which
// streams must have (RFC 3261 §18.3), tells where a message ends. It reads ahead,
// so the connection must have no other reader. Not for concurrent use.
type Reader struct {
	src    io.Reader
	limits *Limits
	lim    Limits
	buf    []byte
	r, w   int
}

// NewReader returns a Reader on src; nil limits are the defaults.
func NewReader(src io.Reader, limits *Limits) *Reader {
	return &Reader{src: src, limits: limits, lim: limits.or()}
}

// Next reads the next frame. The error is that of the connection: io.EOF between
// messages, io.ErrUnexpectedEOF inside one.
func (r *Reader) Next() (Frame, error) {
	return Frame{}, io.EOF
}
