package sip

import (
	"slices"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	v := &Validator{Understands: func(tag string) bool { return tag == "timer" || tag == "100rel" }}
	long := func(n int) string { return strings.Repeat("x", n) }
	tests := []struct {
		name   string
		in     string
		status int // 0: accepted
		text   string
	}{
		{"plain INVITE", simple("INVITE"), 0, ""},
		{"typical INVITE", typicalINVITE, 0, ""},
		{"no Max-Forwards", simple("INVITE", "-Max-Forwards:"), 0, ""},
		{"no From tag, as RFC 2543 sent it", simple("INVITE", "From: <sip:a@b.example>"), 0, ""},
		{"From without brackets", simple("INVITE", "From: sip:a@b.example;tag=1"), 0, ""},
		{"From with a tel URI", simple("INVITE", "From: <tel:+15550001111;phone-context=x>;tag=1"), 0, ""},
		{"display name of tokens", simple("INVITE", "From: Jane B. Doe <sip:a@b.example>;tag=1"), 0, ""},
		{"display name in UTF-8", simple("INVITE", "From: Zoë <sip:a@b.example>;tag=1"), 0, ""},
		{"display name touching the bracket", simple("INVITE", "From: Jane<sip:a@b.example>;tag=1"), 0, ""},
		{"tel Request-URI", simple("INVITE", "INVITE tel:+15551230000 SIP/2.0"), 0, ""},
		{"understood Require", simple("INVITE", "Require: timer, 100rel"), 0, ""},
		{"unknown header with odd content", simple("INVITE", `X-Odd: ;;,,"<`), 0, ""},
		{"unknown method", simple("FROB"), 0, ""},
		{"quoted control characters", simple("INVITE", "To: \"a\\\x01b\" <sip:a@b.example>"), 0, ""},
		{"a tab in a value", simple("INVITE", "X-Tab: a\tb"), 0, ""},
		{"Via of another protocol below the top",
			simple("INVITE", "Via: SIP/2.0/UDP a.example;branch=z9hG4bK1, FOO/9/BAR b.example"), 0, ""},
		{"more than one Contact", simple("INVITE", "Contact: <sip:a@b.example>, <sip:c@d.example>"), 0, ""},

		{"no Via", simple("INVITE", "-Via:"), 400, "Missing Via"},
		{"no From", simple("INVITE", "-From:"), 400, "Missing From"},
		{"no To", simple("INVITE", "-To:"), 400, "Missing To"},
		{"no Call-ID", simple("INVITE", "-Call-ID:"), 400, "Missing Call-ID"},
		{"no CSeq", simple("INVITE", "-CSeq:"), 400, "Missing CSeq"},
		{"no Contact in INVITE", simple("INVITE", "-Contact:"), 400, "Missing Contact"},
		{"two From", simple("INVITE", "f: <sip:a@b.example>;tag=2"), 400, "More than one From"},
		{"two Call-ID", simple("INVITE", "i: other"), 400, "More than one Call-ID"},
		{"two Content-Length", simple("INVITE", "l: 0"), 400, "More than one Content-Length"},
		{"CSeq of another method", simple("INVITE", "CSeq: 7 OPTIONS"), 400, "does not match"},
		{"CSeq method in lower case", simple("INVITE", "CSeq: 7 invite"), 400, "does not match"},
		{"CSeq of 2^31", simple("INVITE", "CSeq: 2147483648 INVITE"), 400, "Malformed CSeq"},
		{"CSeq without number", simple("INVITE", "CSeq: INVITE"), 400, "Malformed CSeq"},
		{"CSeq without space", simple("INVITE", "CSeq: 7INVITE"), 400, "Malformed CSeq"},
		{"Max-Forwards 256", simple("INVITE", "Max-Forwards: 256"), 400, "Max-Forwards"},
		{"Max-Forwards empty", simple("INVITE", "Max-Forwards:"), 400, "Max-Forwards"},
		{"empty Call-ID", simple("INVITE", "Call-ID:"), 400, "Call-ID"},
		{"Call-ID with a space", simple("INVITE", "Call-ID: a b"), 400, "Call-ID"},
		{"unclosed quote", simple("INVITE", `To: "Jane <sip:a@b.example>`), 400, "quoted string"},
		{"unclosed bracket", simple("INVITE", `To: <sip:a@b.example`), 400, "brackets"},
		{"comma in an unquoted display name", simple("INVITE", `From: Doe, Jane <sip:a@b.example>;tag=1`), 400,
			"display name"},
		{"space inside brackets", simple("INVITE", `To: < sip:a@b.example >`), 400, "To URI"},
		{"text after the address", simple("INVITE", `To: <sip:a@b.example> x`), 400, "after the address"},
		{"empty parameter", simple("INVITE", `To: <sip:a@b.example>;;x`), 400, "parameter"},
		{"trailing semicolon", simple("INVITE", `To: <sip:a@b.example>;x;`), 400, "parameter"},
		{"lone semicolon", simple("INVITE", `To: <sip:a@b.example>;`), 400, "parameter"},
		{"empty tag", simple("INVITE", `From: <sip:a@b.example>;tag=`), 400, "parameter"},
		{"quoted tag", simple("INVITE", `From: <sip:a@b.example>;tag="x"`), 400, "tag"},
		{"To URI without host", simple("INVITE", `To: <sip:a@>`), 400, "host"},
		{"To URI with empty user", simple("INVITE", `To: <sip:@b.example>`), 400, "user"},
		{"To URI with a bad escape", simple("INVITE", `To: <sip:%4g@b.example>`), 400, "user"},
		{"To URI with port 0", simple("INVITE", `To: <sip:a@b.example:0>`), 400, "port"},
		{"To URI with port 65536", simple("INVITE", `To: <sip:a@b.example:65536>`), 400, "port"},
		{"To without scheme", simple("INVITE", `To: <a>`), 400, "scheme"},
		{"Via with empty parameters", simple("INVITE", "Via: SIP/2.0/UDP 192.0.2.1;;,;,,"), 400, "Via"},
		{"Via without transport", simple("INVITE", "Via: SIP/2.0 192.0.2.1;branch=z9hG4bKx"), 400, "Via"},
		{"top Via of another protocol", simple("INVITE", "Via: FOO/9/BAR b.example;branch=z9hG4bKx"), 400, "protocol"},
		{"Via branch of the cookie alone", simple("INVITE", "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK"), 400,
			"cookie"},
		{"Via with a bad port", simple("INVITE", "Via: SIP/2.0/UDP 192.0.2.1:x;branch=z9hG4bKx"), 400, "port"},
		{"Contact with a bare query", simple("INVITE", "Contact: sip:a@b.example?Route=%3Csip:x%3E"), 400, "brackets"},
		{"Contact with a tel URI", simple("INVITE", "Contact: <tel:+15550001111>"), 400, "not a SIP URI"},
		{"Contact star", simple("INVITE", "Contact: *"), 400, "Contact"},
		{"Route without brackets", simple("INVITE", "Route: sip:a@b.example;lr"), 400, "Route"},
		{"Record-Route without end", simple("INVITE", "Record-Route: <sip:a@b.example;lr"), 400, "Record-Route"},
		{"body without Content-Type", simple("INVITE", "Content-Length: 3") + "abc", 400, "Content-Type"},
		{"Content-Type without subtype", simple("INVITE", "Content-Type: sdp"), 400, "Content-Type"},
		{"control character", simple("INVITE", "X-Bell: a\x07b"), 400, "Control character"},
		{"DEL", simple("INVITE", "X-Bell: abcdefgh\x7fb"), 400, "Control character"},
		{"NUL", simple("INVITE", "X-Bell: abcdefghi\x00"), 400, "Control character"},
		{"Request-URI in brackets", simple("INVITE", "INVITE <sip:a@b.example> SIP/2.0"), 400, "Request-URI"},
		{"Request-URI with a headers part", simple("INVITE", "INVITE sip:a@b.example?Subject=x SIP/2.0"), 400,
			"headers part"},
		{"unknown scheme", simple("INVITE", "INVITE news:a.b.c SIP/2.0"), 416, "scheme"},
		{"unknown scheme with slashes", simple("INVITE", "INVITE soap.beep://192.0.2.103:3002 SIP/2.0"), 416, "scheme"},
		{"unknown extension", simple("INVITE", "Require: timer, frobnicate", "Proxy-Require: x, y"), 420, "extension"},

		{"long user part of From", simple("INVITE", "From: <sip:"+long(257)+"@b.example>;tag=1"), 400,
			"User part of From"},
		{"long From host", simple("INVITE", "From: <sip:a@"+long(256)+">;tag=1"), 400, "host"},
		{"long Contact", simple("INVITE", "Contact: <sip:a@b.example;x="+long(256)+">"), 400, "Contact URI exceeds"},
		{"long header name", simple("INVITE", "X-"+long(31)+": v"), 400, "name exceeds"},
		{"header name at the limit", simple("INVITE", "X-"+long(30)+": v"), 0, ""},
		{"long media type", simple("INVITE", "Content-Type: a/"+long(63)), 400, "Media type"},
		{"long Supported", simple("INVITE", "Supported: "+strings.Repeat("a, ", 100)), 400, "Supported exceeds"},
		{"long option tag", simple("INVITE", "Supported: "+long(33)), 400, "Option tag"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, p := v.Read(tt.in)
			if tt.status == 0 {
				if p != nil {
					t.Fatalf("refused: %v\n%s", p, tt.in)
				}
				return
			}
			if p == nil {
				t.Fatalf("accepted:\n%s", tt.in)
			}
			if p.Status != tt.status || !strings.Contains(p.Text, tt.text) || p.Clause == "" {
				t.Errorf("problem %v, want %d and %q", p, tt.status, tt.text)
			}
			if r := p.Answer(m, "x", ""); (r == nil) != (tt.name == "no Via") {
				t.Errorf("answer: %v", r)
			}
		})
	}
}

func TestCheckListsUnsupportedExtensions(t *testing.T) {
	v := &Validator{Understands: func(tag string) bool { return tag == "timer" }}
	m, p := v.Read(simple("INVITE", "Require: timer, frob", "Proxy-Require: nicate"))
	if p == nil || p.Status != 420 || !slices.Equal(p.Unsupported, []string{"frob", "nicate"}) {
		t.Fatalf("problem %+v", p)
	}
	if got := p.Answer(m, "x", "").Get(KindUnsupported); got != "frob, nicate" {
		t.Errorf("Unsupported: %q", got)
	}
	for _, method := range []string{"ACK", "CANCEL"} {
		if _, p := v.Read(simple(method, "Require: frob")); p != nil {
			t.Errorf("%s with Require refused: %v", method, p)
		}
	}
}

func TestCheckDiscardsBadResponses(t *testing.T) {
	v := &Validator{}
	ok := simple("INVITE", "SIP/2.0 200 OK", "CSeq: 7 INVITE")
	if _, p := v.Read(ok); p != nil {
		t.Fatalf("good response refused: %v", p)
	}
	for _, in := range []string{
		strings.Replace(ok, "From:", "X-From:", 1),
		strings.Replace(ok, "CSeq: 7", "CSeq: x", 1),
		strings.Replace(ok, "SIP/2.0/UDP", "SIP/2.0", 1),
		strings.Replace(ok, "CSeq: 7", "CSeq: 9292394834772304023312", 1),
	} {
		if _, p := v.Read(in); p == nil || p.Status != 0 {
			t.Errorf("problem %v of\n%s", p, in)
		}
	}
	// Size limits are for requests, not for responses.
	if _, p := v.Read(simple("INVITE", "SIP/2.0 200 OK", "X-"+strings.Repeat("n", 60)+": v")); p != nil {
		t.Errorf("response with a long header name refused: %v", p)
	}
	// A response is never answered: a usable one is not discarded for a fault in a field that is only passed on.
	for _, line := range []string{"Content-Type: application/sdp\r\nContent-Type: application/sdp",
		"Session-Expires: 90\r\nx: 1800", "Server: a\x01b"} {
		if _, p := v.Read(strings.Replace(ok, "From:", line+"\r\nFrom:", 1)); p != nil {
			t.Errorf("response with %q refused: %v", line, p)
		}
	}
}

func TestPrintableFindsEveryControlCharacterAtEveryPosition(t *testing.T) {
	base := []byte("abcdefghijklmnopqrstuvwxyzé~ {}\xff\x80")
	if !printable(string(base)) {
		t.Fatal("clean text refused")
	}
	for i := range base {
		for c := range 256 {
			b := slices.Clone(base)
			b[i] = byte(c)
			if got, want := printable(string(b)), c >= 0x20 && c != 0x7f; got != want {
				t.Fatalf("byte %#x at %d: %v", c, i, got)
			}
		}
	}
}
