package sip

import (
	"slices"
	"strings"
	"testing"
)

// simple returns a small valid request with some lines replaced by name. A whole
// start line replaces the first, "-Name:" removes a line, and a line with a new name
// is appended.
func simple(method string, replace ...string) string {
	lines := []string{
		method + " sip:+15551230000@gw.example.net SIP/2.0",
		"Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKaaa",
		"From: <sip:+15550001111@a.example>;tag=f1",
		"To: <sip:+15551230000@gw.example.net>",
		"Call-ID: c1@a.example",
		"CSeq: 7 " + method,
		"Max-Forwards: 70",
		"Contact: <sip:a@192.0.2.1>",
		"Content-Length: 0",
	}
	for _, r := range replace {
		if strings.HasSuffix(r, " SIP/2.0") || strings.HasPrefix(r, "SIP/2.0 ") {
			lines[0] = r
			continue
		}
		name, _, _ := strings.Cut(r, ":")
		if n, gone := strings.CutPrefix(name, "-"); gone {
			lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, n+":") })
			continue
		}
		i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, name+":") })
		if i < 0 {
			lines = append(lines, r)
		} else {
			lines[i] = r
		}
	}
	return strings.Join(lines, "\r\n") + "\r\n\r\n"
}

func TestParseReportsTheProblemAndReadsTheRest(t *testing.T) {
	good := simple("OPTIONS")
	tests := []struct {
		name   string
		in     string
		status int // 0: discard
		text   string
	}{
		{"two spaces after the method", strings.Replace(good, "OPTIONS sip", "OPTIONS  sip", 1), 400, "one space"},
		{"space inside the Request-URI", strings.Replace(good, ".net SIP", ".net; lr SIP", 1), 400, "one space"},
		{"space after the version", strings.Replace(good, "SIP/2.0\r", "SIP/2.0 \r", 1), 400, "SIP version"},
		{"no version", strings.Replace(good, " SIP/2.0\r", "\r", 1), 400, "SIP version"},
		{"other version", strings.Replace(good, " SIP/2.0\r", " SIP/7.1\r", 1), 505, "SIP/2.0"},
		{"folded start line", strings.Replace(good, " SIP/2.0\r\n", " SIP/2.0\r\n ;x\r\n", 1), 400, "folded"},
		{"method with an illegal character", strings.Replace(good, "OPTIONS sip", "OPT(IONS sip", 1),
			400, "not a token"},
		{"long Request-URI", strings.Replace(good, "@gw", "@"+strings.Repeat("g", 300)+"gw", 1), 414, "256"},
		{"line without colon", strings.Replace(good, "Max-Forwards: 70", "Max-Forwards 70", 1), 400, "colon"},
		{"name with a space inside", strings.Replace(good, "Max-Forwards:", "Max Forwards:", 1), 400, "token"},
		{"empty name", strings.Replace(good, "Max-Forwards:", ":", 1), 400, "token"},
		{"bare LF", strings.Replace(good, "70\r\n", "70\n", 1), 400, "CRLF"},
		{"bare CR in a value", strings.Replace(good, "<sip:a@", "<sip:\ra@", 1), 400, "bare CR"},
		{"LF line ends throughout", strings.ReplaceAll(good, "\r\n", "\n"), 400, "CRLF"},
		{"no empty line at the end", strings.TrimSuffix(good, "\r\n"), 400, "empty line"},
		{"cut within a line", good[:len(good)-8], 400, "empty line"},
		{"cut within a fold", good[:len(good)-2] + " x", 400, "empty line"},
		{"short body", strings.Replace(good, "Length: 0", "Length: 5", 1) + "abcd", 400, "shorter"},
		{"negative Content-Length", strings.Replace(good, "Length: 0", "Length: -1", 1), 400, "not a number"},
		{"huge Content-Length", strings.Replace(good, "Length: 0", "Length: 99999999999999999999999", 1), 400,
			"not a number"},
		{"large body", strings.Replace(good, "Content-Length: 0\r\n", "", 1) + strings.Repeat("b", 128<<10+1), 513,
			"body exceeds"},
		{"large head", strings.Replace(good, "Max-F", "X: "+strings.Repeat("x", 10<<10)+"\r\nMax-F", 1), 513, "exceed"},
		{"many lines", strings.Replace(good, "Call-ID", strings.Repeat("a:\r\n", 250)+"Call-ID", 1), 513, "200"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, p := Parse(tt.in, nil)
			if p == nil {
				t.Fatalf("Parse accepted %q", tt.in)
			}
			if p.Status != tt.status || !strings.Contains(p.Text, tt.text) {
				t.Errorf("problem = %v, want status %d and a text with %q", p, tt.status, tt.text)
			}
			if tt.status == 0 {
				return
			}
			r := p.Answer(m, "tt", "gw.example.net")
			if r == nil {
				t.Fatalf("no answer to %q", tt.in)
			}
			if r.Status() != tt.status || r.Get(KindVia) == "" || r.FromTag() != "f1" || r.ToTag() != "tt" ||
				!strings.HasPrefix(tt.name, "cut") && (r.CallID() != "c1@a.example" || r.Get(KindCSeq) != "7 OPTIONS") {
				t.Errorf("answer lacks a field that identifies the transaction:\n%s", r)
			}
			if w := r.Get(KindWarning); !strings.HasPrefix(w, `399 gw.example.net "`) {
				t.Errorf("Warning = %q", w)
			}
			if _, p := Parse(r.String(), nil); p != nil {
				t.Errorf("the answer does not parse: %v\n%s", p, r)
			}
		})
	}
}

func TestParseDiscardsWhatCannotBeAnswered(t *testing.T) {
	resp := simple("OPTIONS", "SIP/2.0 200 OK")
	ack := simple("ACK")
	for name, in := range map[string]string{
		"empty":                    "",
		"line breaks only":         "\r\n\r\n",
		"one word":                 "hello\r\n\r\n",
		"binary":                   "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n",
		"HTTP":                     "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"status code too large":    strings.Replace(resp, "200", "4294967301", 1),
		"status code below 100":    strings.Replace(resp, "200", "099", 1),
		"response of version 3":    strings.Replace(resp, "SIP/2.0 200", "SIP/3.0 200", 1),
		"response with short body": strings.Replace(resp, "Length: 0", "Length: 7", 1),
		"response without a code":  strings.Replace(resp, "SIP/2.0 200 OK", "SIP/2.0", 1),
		"bad ACK":                  strings.Replace(ack, "Length: 0", "Length: 7", 1),
		"request without Via":      strings.Replace(simple("OPTIONS", "-Via:"), "Length: 0", "Length: 7", 1),
	} {
		m, p := Parse(in, nil)
		if p == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		if r := p.Answer(m, "tt", ""); r != nil {
			t.Errorf("%s: answered\n%s", name, r)
		}
		if m.IsResponse() && p.Status != 0 {
			t.Errorf("%s: problem of a response has a status: %v", name, p)
		}
	}
}

func TestParseKeepsOddSpellings(t *testing.T) {
	in := crlf(`
SIP/2.0 180 
V  : SIP / 2.0 / UDP first.example.com: 4000;ttl=16
 ;maddr=224.2.0.1 ;branch=z9hG4bKa7c6a8dlze.1
via:SIP/2.0/TCP second.example.com;branch=z9hG4bK2
f:<sip:a@b.example>;tag=1
T:	<sip:c@d.example>
i: x@y
cSEQ: 0009
  INVITE
s :
x-odd:   two  spaces   
l: 0

`)
	m := mustParse(t, in)
	m.edited()
	if got := m.String(); got != in {
		t.Errorf("printed\n%q\nwant\n%q", got, in)
	}
	v, err := m.TopVia()
	if err != nil || v.Host != "first.example.com" || v.Port != 4000 || v.Branch() != "z9hG4bKa7c6a8dlze.1" {
		t.Errorf("TopVia = %+v %v", v, err)
	}
	if n := m.Count(KindVia); n != 2 {
		t.Errorf("%d Via lines, want 2", n)
	}
	if cs, err := m.CSeq(); err != nil || cs.Seq != 9 || cs.Method != INVITE {
		t.Errorf("CSeq = %v %v", cs, err)
	}
	if m.Reason() != "" || m.Status() != 180 {
		t.Errorf("status line %d %q", m.Status(), m.Reason())
	}
	if got := m.GetName("X-Odd"); got != "two  spaces" {
		t.Errorf("x-odd = %q", got)
	}
	if m.Get(KindSubject) != "" || !m.Has(KindSubject) {
		t.Errorf("empty Subject lost")
	}
}

func TestParseCutsADatagramAtContentLength(t *testing.T) {
	in := simple("OPTIONS", "Content-Length: 3", "Content-Type: text/plain")
	m := mustParse(t, "\r\n\r\n"+in+"abcdef")
	if m.Body() != "abc" {
		t.Errorf("body %q, want abc", m.Body())
	}
	if got := m.String(); got != in+"abc" {
		t.Errorf("printed %q", got)
	}
	m = mustParse(t, simple("OPTIONS", "-Content-Length:")+"rest")
	if m.Body() != "rest" {
		t.Errorf("without Content-Length the body is %q, want all that follows", m.Body())
	}
}

func TestLimitsCanBeRaisedAndLowered(t *testing.T) {
	long := strings.Replace(simple("OPTIONS"), "@gw", "@"+strings.Repeat("g", 300)+"gw", 1)
	if _, p := Parse(long, &Limits{RequestURI: 400}); p != nil {
		t.Errorf("raised limit: %v", p)
	}
	if _, p := Parse(long, &Limits{RequestURI: 100}); p == nil || p.Status != 414 {
		t.Errorf("lowered limit: %v", p)
	}
}

func TestLinesOfAFloodAreNotKept(t *testing.T) {
	for _, line := range []string{"v:\r\n", "x:\r\n"} {
		m, p := Parse("OPTIONS sip:h SIP/2.0\r\n"+strings.Repeat(line, 15000)+"\r\n", nil)
		if p == nil || p.Status != 513 || m.Len() > 2*defaultLimits.Lines {
			t.Errorf("%q: %d lines kept, %v", line, m.Len(), p)
		}
	}
	// The fields that the answer needs are found beyond the limit too.
	in := strings.Replace(simple("OPTIONS"), "Via", strings.Repeat("x:\r\n", 600)+"Via", 1)
	m, p := Parse(in, nil)
	if p == nil || p.Answer(m, "t", "") == nil || m.CallID() != "c1@a.example" {
		t.Errorf("%v\n%s", p, m)
	}
}

func TestEqualFoldAppliesToLettersOnly(t *testing.T) {
	for _, s := range [][2]string{{"@", "`"}, {"[", "{"}, {"\x00", " "}, {"a", "A\x00"}} {
		if equalFold(s[0], s[1]) {
			t.Errorf("%q equals %q", s[0], s[1])
		}
	}
	if !equalFold("aZ-9", "Az-9") {
		t.Error("case matters")
	}
}

func TestValuesSplitAtCommasOnlyBetweenValues(t *testing.T) {
	m := mustParse(t, simple("INVITE",
		`Contact: "Doe, Jane" <sip:j,d@h.example;x=a,b>;q=0.7 , <sip:k@h>,sip:l@h;q=1`,
		`m: <sip:z@h>`, `Allow: INVITE,ACK ,, BYE,`))
	got := slices.Collect(m.Values(KindContact))
	want := []string{`"Doe, Jane" <sip:j,d@h.example;x=a,b>;q=0.7`, `<sip:k@h>`, `sip:l@h;q=1`, `<sip:z@h>`}
	if !slices.Equal(got, want) {
		t.Errorf("Contact values\n%q\nwant\n%q", got, want)
	}
	if got := slices.Collect(m.Values(KindAllow)); !slices.Equal(got, []string{"INVITE", "ACK", "BYE"}) {
		t.Errorf("Allow values %q", got)
	}
	for range m.Values(KindContact) {
		break // an iterator must allow an early exit
	}
	if !m.HasOption(KindAllow, "BYE") || m.HasOption(KindAllow, "REFER") {
		t.Errorf("HasOption")
	}
}

func TestKindOf(t *testing.T) {
	for k := KindOther + 1; k < numKinds; k++ {
		name := canonical[k]
		if name == "" {
			t.Fatalf("kind %d has no name", k)
		}
		for _, n := range []string{name, strings.ToLower(name), strings.ToUpper(name)} {
			if got := KindOf(n); got != k {
				t.Errorf("KindOf(%q) = %v", n, got)
			}
		}
		for _, n := range []string{name + "s", name[1:], "X-" + name, name[:len(name)-1]} {
			if got := KindOf(n); got == k && len(n) > 1 {
				t.Errorf("KindOf(%q) = %v", n, got)
			}
		}
		if k.String() != name {
			t.Errorf("String of %d = %q", k, k.String())
		}
	}
	for c, k := range map[string]Kind{"v": KindVia, "F": KindFrom, "t": KindTo, "i": KindCallID, "m": KindContact,
		"L": KindContentLength, "c": KindContentType, "k": KindSupported, "r": KindReferTo, "b": KindReferredBy,
		"x": KindSessionExpires, "o": KindEvent, "y": KindIdentity, "z": KindOther, "1": KindOther, "": KindOther} {
		if got := KindOf(c); got != k {
			t.Errorf("KindOf(%q) = %v, want %v", c, got, k)
		}
	}
}
