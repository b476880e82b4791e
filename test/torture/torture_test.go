package torture

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tandemgw/tandem/internal/calls/sip"
)

// read reads a message as the transport reads a datagram.
func read(c *testCase) (*sip.Message, *sip.Problem) {
	v := &sip.Validator{Limits: c.limits, Understands: func(tag string) bool { return slices.Contains(c.options, tag) }}
	m, p := sip.Parse(c.wire, v.Limits)
	if p == nil {
		p = v.Check(m)
	}
	return m, p
}

func TestVerdicts(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range sections() {
		for _, c := range s.cases {
			if seen[c.name] {
				t.Fatalf("two cases are named %q", c.name)
			}
			seen[c.name] = true
			t.Run(c.name, func(t *testing.T) {
				m, p := read(&c)
				if c.accept {
					if p != nil {
						t.Fatalf("rejected: %v\n%q", p, c.wire)
					}
					if got := m.String(); !strings.HasPrefix(c.wire, got) {
						t.Errorf("printed\n%q\nof\n%q", got, c.wire)
					}
					return
				}
				if p == nil {
					t.Fatalf("accepted, want %s\n%q", c.verdict(), c.wire)
				}
				answer := p.Answer(m, "torture", "")
				if c.status == 0 {
					if answer != nil {
						t.Errorf("answered, want silence\n%s", answer)
					}
					return
				}
				if answer == nil {
					t.Fatalf("no answer: %v", p)
				}
				if answer.Status() != c.status || !strings.Contains(p.Text, c.text) {
					t.Errorf("answer %d (%v), want %d with %q", answer.Status(), p, c.status, c.text)
				}
				if _, p := sip.Parse(answer.String(), nil); p != nil {
					t.Errorf("the answer is malformed: %v\n%q", p, answer)
				}
				for _, k := range []sip.Kind{sip.KindVia, sip.KindFrom, sip.KindCallID, sip.KindCSeq} {
					if m.Has(k) && !answer.Has(k) {
						t.Errorf("the answer lacks %v\n%s", k, answer)
					}
				}
				if !strings.HasPrefix(answer.Get(sip.KindWarning), "399 ") {
					t.Errorf("the answer does not say why\n%s", answer)
				}
			})
		}
	}
}

// TestStreamsGiveTheSameVerdict sends each case that states its size on a stream, followed by a valid message: a bad
// message must not break the connection.
func TestStreamsGiveTheSameVerdict(t *testing.T) {
	good := end(base(optionsStart, "after@192.0.2.33", noBody), "")
	for _, s := range sections() {
		for _, c := range s.cases {
			t.Run(c.name, func(t *testing.T) {
				m, p := sip.Parse(c.wire, c.limits)
				n, err := strconv.ParseUint(m.Get(sip.KindContentLength), 10, 31)
				if err != nil || m.Count(sip.KindContentLength) != 1 ||
					p != nil && p.Status != 400 && p.Status != 505 ||
					p == nil && int(n) != len(m.Body()) || strings.Contains(c.about, "datagram") {
					t.Skip("its size is not known on a stream")
				}
				r := sip.NewReader(strings.NewReader(c.wire+good), c.limits)
				f, err := r.Next()
				if err != nil || f.Lost || (f.Problem == nil) != (p == nil) {
					t.Fatalf("on a stream %+v %v; in a datagram %v", f, err, p)
				}
				f, err = r.Next()
				if err != nil || f.Problem != nil || f.Message.String() != good {
					t.Fatalf("the message after it: %+v %v", f, err)
				}
			})
		}
	}
}

func TestLookUpNumbersOfTheTelephoneCases(t *testing.T) {
	for _, c := range ours() {
		want := ""
		switch c.name {
		case "number-portability-parameters", "tel-request-uri":
			want = "+15551230000"
		default:
			continue
		}
		m, p := read(&c)
		if p != nil {
			t.Fatal(p)
		}
		u, err := m.RURI()
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := u.TelephoneNumber(); !ok || got != want {
			t.Errorf("%s: number %q %v, want %q", c.name, got, ok, want)
		}
	}
}
