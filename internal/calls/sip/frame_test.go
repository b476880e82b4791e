package sip

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
)

func readAll(t *testing.T, r *Reader) (frames []Frame, err error) {
	t.Helper()
	for {
		f, err := r.Next()
		if err != nil {
			return frames, err
		}
		frames = append(frames, f)
		if len(frames) > 1000 {
			t.Fatal("the reader does not stop")
		}
	}
}

func shape(frames []Frame) string {
	var b strings.Builder
	for _, f := range frames {
		switch {
		case f.Kind == FramePing:
			b.WriteString("ping ")
		case f.Kind == FramePong:
			b.WriteString("pong ")
		default:
			b.WriteString("msg")
			if f.Problem != nil {
				b.WriteString("!" + itoa(f.Problem.Status))
			}
			if f.Lost {
				b.WriteString("#")
			}
			b.WriteString(" ")
		}
	}
	return strings.TrimSpace(b.String())
}

func TestReaderFindsMessagesHoweverTheStreamIsCut(t *testing.T) {
	a := simple("INVITE", "Content-Type: text/plain", "Content-Length: 12") + "a\r\n\r\nINVITE "
	b := simple("BYE", "Content-Length:\r\n 0")
	tests := []struct {
		name, in, want string
		err            error
	}{
		{"two messages back to back", a + b, "msg msg", io.EOF},
		{"keep-alives between", "\r\n\r\n" + a + "\r\n" + b + "\r\n\r\n\r\n\r\n" + a,
			"ping msg pong msg ping ping msg", io.EOF},
		{"compact Content-Length", strings.Replace(a, "Content-Length", "l", 1) + b, "msg msg", io.EOF},
		{"end inside the head", a + b[:50], "msg", io.ErrUnexpectedEOF},
		{"end inside the body", a[:len(a)-3], "", io.ErrUnexpectedEOF},
		{"no Content-Length", strings.Replace(b, "Content-Length:\r\n 0\r\n", "", 1) + a, "msg!400#", io.EOF},
		{"Content-Length of letters", strings.Replace(b, "\r\n 0", " x", 1) + a, "msg!400#", io.EOF},
		{"contradicting Content-Lengths", strings.Replace(a, "CSeq", "l: 11\r\nCSeq", 1) + a, "msg!400#", io.EOF},
		{"body too large", strings.Replace(b, "\r\n 0", " 131073", 1), "msg!513#", io.EOF},
		{"head too large", strings.Replace(b, "CSeq", "X: "+strings.Repeat("x", 11<<10)+"\r\nCSeq", 1),
			"msg!513#", io.EOF},
		{"head without end", strings.TrimSuffix(b, "\r\n") + "X: " + strings.Repeat("x", 11<<10), "msg!513#", io.EOF},
		{"bad message with a known end", strings.Replace(b, "CSeq:", "CSeq", 1) + a, "msg!400 msg", io.EOF},
		{"LF line ends", strings.ReplaceAll(b, "\r\n", "\n") + a, "msg!400 msg", io.EOF},
		{"not SIP", "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n" + a, "msg!0#", io.EOF},
		{"a TLS greeting", "\x16\x03\x01\x00\x05hello\n\n" + a, "msg!0#", io.EOF},
		{"response without Content-Length", simple("BYE", "SIP/2.0 200 OK", "-Content-Length:"), "msg!0#", io.EOF},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for how, src := range map[string]io.Reader{
				"at once":       strings.NewReader(tt.in),
				"byte by byte":  iotest.OneByteReader(strings.NewReader(tt.in)),
				"halves":        iotest.HalfReader(strings.NewReader(tt.in)),
				"data with EOF": iotest.DataErrReader(strings.NewReader(tt.in)),
			} {
				frames, err := readAll(t, NewReader(src, nil))
				got := shape(frames)
				if how == "byte by byte" {
					// A ping in two pieces looks like a pong until its second half arrives.
					got = strings.ReplaceAll(got, "pong ping", "ping")
				}
				if got != tt.want || !errors.Is(err, tt.err) {
					t.Errorf("%s: frames %q, %v; want %q, %v", how, got, err, tt.want, tt.err)
				}
				for _, f := range frames {
					if f.Problem != nil && f.Problem.Status != 0 && f.Problem.Answer(f.Message, "t", "") == nil {
						t.Errorf("%s: no answer to %v", how, f.Problem)
					}
				}
			}
		})
	}
}

func TestReaderKeepsBodies(t *testing.T) {
	body := strings.Repeat("0123456789abcdef", 5000)
	in := simple("INVITE", "Content-Type: text/plain", "Content-Length: "+itoa(len(body))) + body
	frames, _ := readAll(t, NewReader(strings.NewReader(in+in), nil))
	if len(frames) != 2 || frames[1].Message.Body() != body || frames[0].Message.String() != in {
		t.Errorf("%d frames, bodies differ", len(frames))
	}
}

func TestReaderPassesConnectionErrorsOn(t *testing.T) {
	r := NewReader(iotest.ErrReader(net.ErrClosed), nil)
	if _, err := r.Next(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("err = %v", err)
	}
	r = NewReader(iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("SIP"))), nil)
	if _, err := r.Next(); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("err = %v", err)
	}
}

func TestReaderBoundsItsMemory(t *testing.T) {
	r := NewReader(strings.NewReader(strings.Repeat("X", 10<<20)), nil)
	f, err := r.Next()
	if err != nil || !f.Lost || f.Problem == nil {
		t.Fatalf("%+v %v", f, err)
	}
	if cap(r.buf) > 64<<10 {
		t.Errorf("%d bytes held for a line without end", cap(r.buf))
	}
}
