package sip

import (
	"strings"
	"testing"
)

// crlf turns a readable text into wire form.
func crlf(s string) string {
	return strings.ReplaceAll(strings.TrimPrefix(s, "\n"), "\n", "\r\n")
}

var typicalINVITE = crlf(`
INVITE sip:+15551230000@gw.example.net:5060;user=phone SIP/2.0
Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK-524287-1-0
From: "Front desk" <sip:+442079460123@192.0.2.10:5060>;tag=524287SIPpTag001
To: <sip:+15551230000@gw.example.net:5060>
Call-ID: 1-524287@192.0.2.10
CSeq: 1 INVITE
Contact: <sip:core@192.0.2.10:5060>
Max-Forwards: 70
Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, PRACK
Supported: timer, 100rel
P-Asserted-Identity: <sip:+442079460123@core.example.net;user=phone>
User-Agent: core-bench
Content-Type: application/sdp
Content-Length: 214

v=0
o=- 53655765 2353687637 IN IP4 192.0.2.10
s=-
c=IN IP4 192.0.2.10
t=0 0
m=audio 6000 RTP/AVP 8 0 101
a=rtpmap:8 PCMA/8000
a=rtpmap:0 PCMU/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
a=ptime:20
a=sendrecv
`)

func init() {
	// Compute the body's length here so that the text above stays easy to edit.
	head, body, _ := strings.Cut(typicalINVITE, "\r\n\r\n")
	typicalINVITE = strings.Replace(head, "Content-Length: 214", "Content-Length: "+itoa(len(body)), 1) +
		"\r\n\r\n" + body
}

func mustParse(t testing.TB, s string) *Message {
	t.Helper()
	m, p := Parse(s, nil)
	if p != nil {
		t.Fatalf("Parse(%q): %v", s, p)
	}
	return m
}

func TestParseReadsEverythingAndPrintsTheSameBytes(t *testing.T) {
	m := mustParse(t, typicalINVITE)
	if got := m.String(); got != typicalINVITE {
		t.Errorf("printed differently:\n%q\nwant\n%q", got, typicalINVITE)
	}
	c := m.Clone()
	c.edited()
	if got := c.String(); got != typicalINVITE {
		t.Errorf("printed line by line differently:\n%q\nwant\n%q", got, typicalINVITE)
	}
	if m.Method() != INVITE || m.RequestURI() != "sip:+15551230000@gw.example.net:5060;user=phone" {
		t.Errorf("start line: %q %q", m.Method(), m.RequestURI())
	}
	if m.CallID() != "1-524287@192.0.2.10" || m.FromTag() != "524287SIPpTag001" || m.ToTag() != "" {
		t.Errorf("dialog identifiers: %q %q %q", m.CallID(), m.FromTag(), m.ToTag())
	}
	v, err := m.TopVia()
	if err != nil || v.Transport != "UDP" || v.Host != "192.0.2.10" || v.Port != 5060 ||
		v.Branch() != "z9hG4bK-524287-1-0" {
		t.Errorf("TopVia = %+v, %v", v, err)
	}
	cs, err := m.CSeq()
	if err != nil || cs != (CSeq{1, INVITE}) {
		t.Errorf("CSeq = %+v, %v", cs, err)
	}
	f, err := m.From()
	if err != nil || f.Display != `"Front desk"` || f.Addr != "sip:+442079460123@192.0.2.10:5060" {
		t.Errorf("From = %+v, %v", f, err)
	}
	u, err := m.RURI()
	if err != nil {
		t.Fatal(err)
	}
	if n, ok := u.TelephoneNumber(); !ok || n != "+15551230000" {
		t.Errorf("TelephoneNumber = %q %v", n, ok)
	}
	if u.Host != "gw.example.net" || u.Port != 5060 {
		t.Errorf("URI = %+v", u)
	}
}

func TestResponseCopiesWhatTheRFCNames(t *testing.T) {
	m := mustParse(t, typicalINVITE)
	r := NewResponse(m, 404, "", "abc")
	want := crlf(`
SIP/2.0 404 Not Found
Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK-524287-1-0
From: "Front desk" <sip:+442079460123@192.0.2.10:5060>;tag=524287SIPpTag001
To: <sip:+15551230000@gw.example.net:5060>;tag=abc
Call-ID: 1-524287@192.0.2.10
CSeq: 1 INVITE
Content-Length: 0

`)
	if got := r.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
