package sip

import (
	"strings"
	"testing"
)

func lines(m *Message) string {
	var b strings.Builder
	for _, h := range m.Headers() {
		b.WriteString(h.String() + "\n")
	}
	return b.String()
}

func TestEditingChangesOnlyTheLineNamed(t *testing.T) {
	base := crlf(`
INVITE sip:x@h.example SIP/2.0
v:SIP/2.0/UDP a.example;branch=z9hG4bK1
VIA : SIP/2.0/UDP b.example;branch=z9hG4bK2, SIP/2.0/UDP c.example;branch=z9hG4bK3
f : "A"  <sip:a@h>;TAG=old;x=1
t: <sip:x@h>
i:c
CSeq: 1   INVITE
Subject: one
X-Two:  2
  folded
x-two: 3

body`)
	tests := []struct {
		name     string
		edit     func(*Message)
		old, new string
	}{
		{"Request-URI", func(m *Message) { m.SetRequestURI("sip:y@k") }, "sip:x@h.example SIP", "sip:y@k SIP"},
		{"Request-URI cannot break the line", func(m *Message) { m.SetRequestURI("sip:y k\r\nX: y") },
			"sip:x@h.example SIP", "sip:y%20k%0D%0AX:%20y SIP"},
		{"from tag", func(m *Message) { m.Set(KindFrom, WithParam(m.Get(KindFrom), "tag", "new")) },
			`f : "A"  <sip:a@h>;TAG=old;x=1`, `f: "A"  <sip:a@h>;tag=new;x=1`},
		{"from tag removed", func(m *Message) { m.Set(KindFrom, WithParam(m.Get(KindFrom), "tag", "")) },
			`f : "A"  <sip:a@h>;TAG=old;x=1`, `f: "A"  <sip:a@h>;x=1`},
		{"to tag added", func(m *Message) { m.Set(KindTo, WithParam(m.Get(KindTo), "tag", "t")) },
			"t: <sip:x@h>", "t: <sip:x@h>;tag=t"},
		{"Via pushed", func(m *Message) { m.Prepend(KindVia, "SIP/2.0/TLS z;branch=z9hG4bK0") }, "v:SIP",
			"Via: SIP/2.0/TLS z;branch=z9hG4bK0\r\nv:SIP"},
		{"unknown name set, duplicates removed", func(m *Message) { m.SetName("X-TWO", "4") },
			"X-Two:  2\r\n  folded\r\nx-two: 3\r\n", "X-Two: 4\r\n"},
		{"unknown name removed", func(m *Message) { m.RemoveName("X-TWO") },
			"X-Two:  2\r\n  folded\r\nx-two: 3\r\n", ""},
		{"known removed by compact name", func(m *Message) { m.RemoveName("s") }, "Subject: one\r\n", ""},
		{"known set keeps the spelling", func(m *Message) { m.Set(KindCallID, "d") }, "i:c", "i: d"},
		{"line added", func(m *Message) { m.AddName("X-New", "n") }, "x-two: 3\r\n", "x-two: 3\r\nX-New: n\r\n"},
		{"line inserted",
			func(m *Message) { m.InsertAt(m.Find(KindSubject), Line(KindDate, "d"), NamedLine("Q", "q")) },
			"Subject: one", "Date: d\r\nQ: q\r\nSubject: one"},
		{"a value cannot make a second line", func(m *Message) { m.Set(KindSubject, "a\r\nX-Evil: b") },
			"Subject: one", "Subject: a  X-Evil: b"},
		{"a name cannot make a second line", func(m *Message) { m.AddName("X: y\r\nX-Evil", "b") }, "x-two: 3\r\n",
			"x-two: 3\r\nX--y--X-Evil: b\r\n"},
		{"body replaced", func(m *Message) { m.SetBody("text/plain", "other") }, "x-two: 3\r\n\r\nbody",
			"x-two: 3\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nother"},
		{"nothing to remove", func(m *Message) { m.Remove(KindDate); m.RemoveName("X-None") }, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := mustParse(t, base)
			keep := m.Clone()
			tt.edit(m)
			if want := strings.Replace(base, tt.old, tt.new, 1); m.String() != want {
				t.Errorf("got\n%q\nwant\n%q", m.String(), want)
			}
			if keep.String() != base {
				t.Errorf("the clone changed too")
			}
			if n := len(m.AppendTo(nil)); n > m.Size() {
				t.Errorf("Size %d is less than the %d bytes printed", m.Size(), n)
			}
		})
	}
}

func TestCopyingLinesKeepsTheirBytes(t *testing.T) {
	src := mustParse(t, crlf(`
INVITE sip:x@h.example SIP/2.0
P-Asserted-Identity :  <sip:+1555@h>
p-asserted-identity: <tel:+1555>
k:  timer,
 100rel

`))
	m := NewRequest(INVITE, "sip:y@k")
	m.CopyFrom(src, KindSupported, KindPAssertedIdentity, KindDate)
	want := crlf(`
INVITE sip:y@k SIP/2.0
k:  timer,
 100rel
P-Asserted-Identity :  <sip:+1555@h>
p-asserted-identity: <tel:+1555>
Content-Length: 0

`)
	if got := m.String(); got != want {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
}

func TestMessagesHoldManyLines(t *testing.T) {
	m := NewRequest(OPTIONS, "sip:h")
	for i := range 3 * parseLines {
		m.AddName("X-"+itoa(i), itoa(i))
	}
	c := m.Clone()
	m.RemoveAt(0)
	m.InsertAt(0, NamedLine("X-First", "f"))
	if m.Len() != 3*parseLines || m.At(0).Name() != "X-First" || c.At(0).Name() != "X-0" || m.At(1) != c.At(1) {
		t.Errorf("lines:\n%s", lines(m))
	}
	got := mustParse(t, m.String())
	if got.Len() != m.Len()+1 { // Content-Length
		t.Errorf("%d lines after a round trip", got.Len())
	}
}

func TestBuildACKAndCANCEL(t *testing.T) {
	inv := mustParse(t, simple("INVITE",
		"Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKaaa, SIP/2.0/UDP x;branch=z9hG4bKb",
		"Route: <sip:p1;lr>", "Require: timer", "Supported: 100rel"))
	resp := NewResponse(inv, 486, "", "totag")
	if got, want := NewACK(inv, resp).String(), crlf(`
ACK sip:+15551230000@gw.example.net SIP/2.0
Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKaaa
Max-Forwards: 70
Route: <sip:p1;lr>
From: <sip:+15550001111@a.example>;tag=f1
To: <sip:+15551230000@gw.example.net>;tag=totag
Call-ID: c1@a.example
CSeq: 7 ACK
Content-Length: 0

`); got != want {
		t.Errorf("ACK\n%s\nwant\n%s", got, want)
	}
	if got, want := NewCancel(inv).String(), crlf(`
CANCEL sip:+15551230000@gw.example.net SIP/2.0
Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKaaa
Max-Forwards: 70
Route: <sip:p1;lr>
From: <sip:+15550001111@a.example>;tag=f1
To: <sip:+15551230000@gw.example.net>
Call-ID: c1@a.example
CSeq: 7 CANCEL
Content-Length: 0

`); got != want {
		t.Errorf("CANCEL\n%s\nwant\n%s", got, want)
	}
	v := &Validator{}
	for _, m := range []*Message{NewACK(inv, resp), NewCancel(inv), resp} {
		if _, p := v.Read(m.String()); p != nil {
			t.Errorf("%v:\n%s", p, m)
		}
	}
}

func TestResponseDetails(t *testing.T) {
	req := mustParse(t, simple("INVITE", "To: <sip:a@b;tag=inside>;tag=have", "Timestamp: 54",
		"v: SIP/2.0/UDP p2;branch=z9hG4bK2"))
	r := NewResponse(req, 200, "Fine\r\nX: y", "other")
	if r.Get(KindTo) != "<sip:a@b;tag=inside>;tag=have" || r.Has(KindTimestamp) || r.Count(KindVia) != 2 ||
		r.Reason() != "Fine  X: y" {
		t.Errorf("response\n%s", r)
	}
	if r := NewResponse(req, 100, "", ""); !r.Has(KindTimestamp) || r.Reason() != "Trying" {
		t.Errorf("100\n%s", r)
	}
	req = mustParse(t, simple("INVITE", "To: <sip:a@b;tag=inside>"))
	if r := NewResponse(req, 180, "", "new"); r.ToTag() != "new" || r.Get(KindTo) != "<sip:a@b;tag=inside>;tag=new" {
		t.Errorf("the tag of a URI was taken for the header's:\n%s", r)
	}
}

func TestResponseDoesNotEchoARepeatedField(t *testing.T) {
	m, p := (&Validator{}).Read(simple("INVITE", "f: <sip:other@b>;tag=2", "i: other"))
	r := p.Answer(m, "x", "")
	if r.Count(KindFrom) != 1 || r.Count(KindCallID) != 1 || r.FromTag() != "f1" {
		t.Errorf("answer\n%s", r)
	}
}

func TestNewLinesCannotHoldLineBreaks(t *testing.T) {
	m := NewRequest(BYE, "sip:h")
	m.Add(KindSubject, "a\r\nX-Evil: b")
	m.AddName("X-Note", "c\nX-Evil: d")
	m.Append(Line(KindOther, "e"))
	got := mustParse(t, m.String())
	if got.Has(KindOther) == false || got.FindName("X-Evil") >= 0 || got.Len() != 4 {
		t.Errorf("printed\n%s", m)
	}
}

func TestReasonAndWarningTexts(t *testing.T) {
	if got, want := Warning(399, "gw.example", "say \"no\" \\ and\r\nstop"),
		`399 gw.example "say \"no\" \\ and  stop"`; got != want {
		t.Errorf("Warning %q, want %q", got, want)
	}
	v := ReasonValue("Q.850", 16, `Normal "clearing"`)
	if v != `Q.850;cause=16;text="Normal \"clearing\""` {
		t.Errorf("Reason %q", v)
	}
	if p, c, x := ReasonCause(v); p != "Q.850" || c != 16 || x != `Normal "clearing"` {
		t.Errorf("ReasonCause = %q %d %q", p, c, x)
	}
	if p, c, x := ReasonCause("SIP ; cause=x"); p != "SIP" || c != 0 || x != "" {
		t.Errorf("ReasonCause = %q %d %q", p, c, x)
	}
	for status, want := range map[int]string{404: "Not Found", 499: "Client Error", 698: "Global Failure",
		0: "Unknown", 299: "OK"} {
		if got := ReasonPhrase(status); got != want {
			t.Errorf("ReasonPhrase(%d) = %q", status, got)
		}
	}
}

func TestTokensAreUniqueAndWellFormed(t *testing.T) {
	seen := map[string]bool{}
	for range 5000 {
		for _, s := range []string{NewTag(), NewBranch(), NewCallID(), Token("n7-")} {
			if seen[s] {
				t.Fatalf("%q was generated twice", s)
			}
			seen[s] = true
		}
	}
	if b := NewBranch(); !strings.HasPrefix(b, BranchMagic) || !isToken(b) || len(b) < 20 {
		t.Errorf("branch %q", b)
	}
	if c := NewCallID(); !validCallID(c) || len(c) < 20 {
		t.Errorf("Call-ID %q", c)
	}
	if a := testing.AllocsPerRun(100, func() { NewTag() }); a > 1 {
		t.Errorf("a tag takes %v allocations, want 1", a)
	}
}

func TestNameAddr(t *testing.T) {
	tests := []struct{ in, display, addr, tag string }{
		{`"A, \"B\" <x>" <sip:a@b;x=y>;tag=1;q="a;tag=2"`, `"A, \"B\" <x>"`, "sip:a@b;x=y", "1"},
		{`<sip:a@b>`, "", "sip:a@b", ""},
		{`sip:a@b;tag=1`, "", "sip:a@b", "1"},
		{`sip:a@b ;  tag = 1`, "", "sip:a@b", "1"},
		{`Jane Doe <tel:+1>;Tag=x`, "Jane Doe", "tel:+1", "x"},
		{`*`, "", "*", ""},
		{`"" <sip:a@b>`, `""`, "sip:a@b", ""},
	}
	for _, tt := range tests {
		a, err := ParseNameAddr(tt.in)
		if err != nil || a.Display != tt.display || a.Addr != tt.addr || a.Tag() != tt.tag {
			t.Errorf("ParseNameAddr(%q) = %+v, %v", tt.in, a, err)
		}
		b, err := ParseNameAddr(a.String())
		if err != nil || b.Addr != a.Addr || b.Tag() != a.Tag() || b.Display != a.Display {
			t.Errorf("%q printed as %q reads %+v, %v", tt.in, a.String(), b, err)
		}
	}
	if got := Unquote(`"a\"b\\c"`); got != `a"b\c` {
		t.Errorf("Unquote = %q", got)
	}
	if got := Quote(`a"b\c`); got != `"a\"b\\c"` {
		t.Errorf("Quote = %q", got)
	}
	for in, want := range map[string]string{"a%41%4": "aA%4", "%": "%", "plain": "plain", "%2b1": "+1"} {
		if got := Unescape(in); got != want {
			t.Errorf("Unescape(%q) = %q", in, got)
		}
	}
}

func TestViaParameters(t *testing.T) {
	v, err := ParseVia("SIP/2.0/TLS [2001:db8::9:1]:5061;received=[2001:db8::9:255];rport=4711;branch=z9hG4bKas3;alias")
	if err != nil {
		t.Fatal(err)
	}
	if port, ok := v.RPort(); !ok || port != 4711 {
		t.Errorf("rport %d %v", port, ok)
	}
	// RFC 5118 §4.5: an IPv6 address may be with or without brackets.
	received, _ := v.Params.Get("received")
	if received != "[2001:db8::9:255]" || v.Branch() != "z9hG4bKas3" || v.Host != "[2001:db8::9:1]" ||
		v.Port != 5061 || !v.Params.Has("alias") {
		t.Errorf("%+v", v)
	}
	v, err = ParseVia("SIP/2.0/UDP h;rport")
	if port, ok := v.RPort(); err != nil || !ok || port != 0 {
		t.Errorf("empty rport: %d %v %v", port, ok, err)
	}
}
