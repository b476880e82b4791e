package sip

import (
	"io"
	"strings"
	"testing"
)

var seeds = []string{
	"", "\r\n", "SIP/2.0 200 OK\r\n\r\n", "a b SIP/2.0\n\n",
	"ACK sip:a SIP/2.0\r\nv:SIP/2.0/UDP h\r\n;branch=1\r\n\r\n",
	"OPTIONS sip:a@[::1]:5060;x SIP/2.0\r\nVia : SIP / 2.0 / TCP  h:1 ; branch=z9hG4bKx,SIP/2.0/UDP i\r\n" +
		"f:\"a\\\"\" <sip:b>;tag=1\r\nTo:<tel:+1-2;ext=3>\r\nCall-ID:c\r\nCSeq:1\r\n OPTIONS\r\n" +
		"Contact:*\r\nl:1\r\n\r\nxy",
}

// FuzzParse checks that nothing crashes, that an accepted message is printed as
// received and splits the same way again, and that the answer to a request with a
// problem is well-formed.
func FuzzParse(f *testing.F) {
	for _, s := range seeds {
		f.Add(s)
	}
	f.Add(typicalINVITE)
	f.Add(simple("BYE", "Route: <sip:a;lr>, <sip:b;lr>", "Require: x"))
	v := &Validator{}
	f.Fuzz(func(t *testing.T, in string) {
		m, p := v.Read(in)
		if m == nil {
			t.Fatal("no message at all")
		}
		_, _ = m.TopVia()
		_, _ = m.From()
		_, _ = m.To()
		_, _ = m.Contact()
		_, _ = m.CSeq()
		_, _ = m.RURI()
		for i := range m.Len() {
			h := m.At(i)
			for v := range SplitValues(h.Value()) {
				_, _ = ParseNameAddr(v)
			}
			if strings.ContainsAny(h.Value(), "\r\n") {
				t.Fatalf("line break in the value %q", h.Value())
			}
		}
		if p == nil {
			skipped := strings.TrimLeft(in, "\r\n")
			out := m.String()
			if !strings.HasPrefix(skipped, out) {
				t.Fatalf("printed %q of %q", out, in)
			}
			c := m.Clone()
			c.edited()
			if got := c.String(); got != out {
				t.Fatalf("printed by lines %q, as a whole %q", got, out)
			}
			again, p := v.Read(out)
			if p != nil || again.String() != out || again.Len() != m.Len() {
				t.Fatalf("parsing %q again: %v", out, p)
			}
		}
		if p == nil && m.IsRequest() {
			p = &Problem{Status: 500, Text: "x"}
		}
		if p == nil {
			return
		}
		a := p.Answer(m, "tag", "agent")
		if a == nil {
			return
		}
		back, q := Parse(a.String(), &Limits{Head: 1 << 30, Lines: 1 << 30})
		if q != nil || back.Status() != p.Status || back.Len() != a.Len()+1 {
			t.Fatalf("the answer %q does not read back: %v", a, q)
		}
	})
}

// FuzzURI checks that nothing crashes, that an accepted URI keeps its text, and that
// its number is "+" and digits or a dial string.
func FuzzURI(f *testing.F) {
	for _, s := range []string{
		"sip:a@b", "sips:a:b@[::1]:5061;x=%41?a=b&c=d", "tel:+1-555;ext=1;phone-context=x",
		"sip:+1%2d5;rn=+2;npdi@h;user=phone",
		"sip:@", "urn:service:sos", "sip:*67@h", "tel:(1)", "SIP:a%00b@c.d",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		u, err := ParseURI(in)
		if err != nil {
			return
		}
		if u.String() != in {
			t.Fatalf("the text of %q changed: %+v", in, u)
		}
		if n, ok := u.TelephoneNumber(); ok {
			if n == "" || n == "+" || strings.Trim(n, "+0123456789*#") != "" || strings.LastIndexByte(n, '+') > 0 {
				t.Fatalf("number %q of %q", n, in)
			}
		}
		for range u.Params.All() {
		}
		for range u.UserParams().All() {
		}
		// An accepted URI can be used in a request line and in a To.
		if u.Scheme != SchemeOther && len(in) <= 256 {
			m, p := Parse("OPTIONS "+in+" SIP/2.0\r\nTo: <"+in+">\r\n\r\n", nil)
			if p != nil {
				t.Fatalf("%q in a request: %v", in, p)
			}
			if a, err := m.To(); err != nil || a.Addr != in || m.RequestURI() != in {
				t.Fatalf("%q in To: %+v %v", in, a, err)
			}
		}
	})
}

// FuzzFrame checks that the reader stops, that its memory is bounded, and that it
// returns the same frames whether the bytes arrive at once or in pieces.
func FuzzFrame(f *testing.F) {
	for _, s := range seeds {
		f.Add(s, uint8(3))
	}
	f.Add(simple("BYE")+"\r\n\r\n"+simple("INVITE", "Content-Length: 3", "c: a/b")+"abc\r\n"+simple("ACK"), uint8(7))
	f.Fuzz(func(t *testing.T, in string, step uint8) {
		lim := &Limits{Head: 2000, Body: 500}
		whole, errA := frames(t, strings.NewReader(in), lim)
		pieces, errB := frames(t, &stepReader{s: in, n: int(step%64) + 1}, lim)
		if errA != errB || strings.Join(whole, "|") != strings.Join(pieces, "|") {
			t.Fatalf("at once %q %v\nin pieces of %d %q %v\ninput %q", whole, errA, step%64+1, pieces, errB, in)
		}
	})
}

type stepReader struct {
	s string
	n int
}

func (r *stepReader) Read(p []byte) (int, error) {
	if r.s == "" {
		return 0, io.EOF
	}
	n := copy(p, r.s[:min(r.n, len(r.s))])
	r.s = r.s[n:]
	return n, nil
}

// frames lists the messages without keep-alives (a ping may arrive in two pieces and
// be reported as pong and ping).
func frames(t *testing.T, src io.Reader, lim *Limits) (out []string, err error) {
	r := NewReader(src, lim)
	for range 1 << 20 {
		f, err := r.Next()
		if err != nil {
			return out, err
		}
		if cap(r.buf) > 32<<10 {
			t.Fatalf("%d bytes held", cap(r.buf))
		}
		if f.Kind != FrameMessage {
			continue
		}
		s := f.Message.String()
		if f.Problem != nil {
			s += "!" + f.Problem.Error()
		}
		out = append(out, s)
	}
	t.Fatal("the reader does not stop")
	return nil, nil
}
