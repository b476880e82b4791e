package sip

import (
	"strings"
	"testing"
)

// contactForms are legal Contact lines (RFC 3261 §20.10, §25.1), each with the Request-URI made from it.
var contactForms = []struct{ line, want string }{
	{`Contact: <sip:a@h.example>`, "sip:a@h.example"},
	{`Contact: sip:a@h.example`, "sip:a@h.example"},
	{`m: sip:h.example`, "sip:h.example"},
	{`CONTACT : <SIP:a@H.example>`, "SIP:a@H.example"},
	{`Contact: sip:a@h.example:5062;+g.3gpp.accesstype="cellular";+sip.instance="<urn:gsma:imei:35548888-144050-0>"`,
		"sip:a@h.example:5062"},
	{`Contact: sip:a@h.example;+x="a,b;c<d>\"e";expires=5`, "sip:a@h.example"},
	{`Contact: <sip:a@h.example>;+sip.instance="<urn:uuid:00000000-0000-1000-8000-000A95A0E128>";reg-id=1`,
		"sip:a@h.example"},
	{`Contact: "A, <B>; \"C\"" <sip:a@h.example>;q=0.7`, "sip:a@h.example"},
	{`Contact: A B-C <sip:a@h.example>`, "sip:a@h.example"},
	{`Contact: ""<sip:a@h.example>`, "sip:a@h.example"},
	{`Contact: Jürgen <sip:a@h.example>`, "sip:a@h.example"},
	{"Contact:\r\n  \"A\"\r\n\t<sip:a@h.example>\r\n ; q = 0.5", "sip:a@h.example"},
	{`Contact: <sip:a@h.example>, "B, C" <sip:b@h.example>;x="<,>"`, "sip:a@h.example"},
	{`Contact: sip:a@h.example;x="<,>" , sip:b@h.example`, "sip:a@h.example"},
	{"Contact: sip:a@h.example;q=1\r\nm: <sip:b@h.example>", "sip:a@h.example"},
	{`Contact: <sip:[2001:db8::1]:5070;transport=tcp>`, "sip:[2001:db8::1]:5070;transport=tcp"},
	{`Contact: sip:[2001:db8::1];q=1`, "sip:[2001:db8::1]"},
	{`Contact: <sips:a@h.example>`, "sips:a@h.example"},
	{`Contact: <sip:a;b=c;isub=1,2@h.example;ob;lr>`, "sip:a;b=c;isub=1,2@h.example;ob;lr"},
	{`Contact: <sip:a:secret@h.example>`, "sip:a:secret@h.example"},
	{`Contact: <sip:a%23b@h.example>`, "sip:a%23b@h.example"},
	// Parts not allowed in a Request-URI are removed (RFC 3261 §19.1.1, table 1); "#" is escaped (RFC 3986 §2).
	{`Contact: <sip:a@h.example?Subject=x&Replaces=y%3Bto-tag%3Dz>`, "sip:a@h.example"},
	{`Contact: <sip:a;method=b@h.example;method=INVITE;transport=tcp?Subject=x>`,
		"sip:a;method=b@h.example;transport=tcp"},
	{`Contact: <sip:a@h.example;transport=tcp;method=BYE>`, "sip:a@h.example;transport=tcp"},
	{`Contact: <sip:*21#@h.example>`, "sip:*21%23@h.example"},
	{`Contact: sip:#1@h.example;x="#"`, "sip:%231@h.example"},
}

func TestContactInEveryLegalForm(t *testing.T) {
	v := &Validator{}
	head := "INVITE sip:x@h.example SIP/2.0\r\nVia: SIP/2.0/UDP h.example;branch=z9hG4bK1\r\nMax-Forwards: 70\r\n" +
		"From: <sip:a@h.example>;tag=1\r\nTo: <sip:x@h.example>\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\n"
	for _, c := range contactForms {
		m, p := v.Read(head + c.line + "\r\nContent-Length: 0\r\n\r\n")
		if p != nil {
			t.Errorf("%q in a request: %v, want accepted", c.line, p)
			continue
		}
		if got, ok := m.Target(); !ok || got != c.want {
			t.Errorf("%q in a request: Target = %q, %v, want %q", c.line, got, ok, c.want)
		}
		if _, err := ParseURI(c.want); err != nil {
			t.Errorf("%q: the expectation %q is not a URI: %v", c.line, c.want, err)
		}
		res := strings.Replace(head, "INVITE sip:x@h.example SIP/2.0", "SIP/2.0 200 OK", 1)
		m, p = v.Read(strings.Replace(res, "To: <sip:x@h.example>", "To: <sip:x@h.example>;tag=2", 1) + c.line +
			"\r\nContent-Length: 0\r\n\r\n")
		if p != nil {
			t.Errorf("%q in a response: %v, want accepted", c.line, p)
		} else if got, ok := m.Target(); !ok || got != c.want {
			t.Errorf("%q in a response: Target = %q, %v, want %q", c.line, got, ok, c.want)
		}
	}
}

// From, To, P-Asserted-Identity and similar fields are parsed by the same code.
func TestAddrSpecWithQuotedBracketsInEveryAddressField(t *testing.T) {
	m, p := (&Validator{}).Read("OPTIONS sip:x@h.example SIP/2.0\r\n" +
		"Via: SIP/2.0/UDP h.example;branch=z9hG4bK1\r\nMax-Forwards: 70\r\n" +
		"From: sip:a@h.example;x=\"<y>\";tag=1\r\nTo: sip:x@h.example;y=\"<,;>\"\r\n" +
		"Call-ID: 1\r\nCSeq: 1 OPTIONS\r\nContact: <tel:+442079460100>\r\nContent-Length: 0\r\n\r\n")
	if p != nil {
		t.Fatalf("refused: %v", p)
	}
	if from, err := m.From(); err != nil || from.Addr != "sip:a@h.example" || from.Tag() != "1" || m.FromTag() != "1" {
		t.Errorf("From = %+v, %v, tag %q", from, err, m.FromTag())
	}
	if got, want := WithParam(m.Get(KindTo), "tag", "2"), `sip:x@h.example;y="<,;>";tag=2`; got != want {
		t.Errorf("To with a tag = %q, want %q", got, want)
	}
}

func TestTargetRefusesWhatIsNotARequestURI(t *testing.T) {
	for _, line := range []string{"", "Contact: *\r\n", "Contact: <tel:+442079460100>\r\n",
		"Contact: <http://h.example/>\r\n", "Contact: <sip:>\r\n",
		"Contact: <im:a@h.example>\r\n", "Contact: \"A <sip:a@h.example>\r\n", "Contact: <sip:a@h.example\r\n",
		"Contact: <sip:a b@h.example>\r\n",
		"Contact: sip:a@h.example;x=<y>\r\n", "Contact: \r\n", "Contact: a;b <sip:a@h.example>\r\n",
		"Contact: <>\r\n"} {
		m, _ := Parse("SIP/2.0 200 OK\r\n"+line+"Content-Length: 0\r\n\r\n", nil)
		got, ok := m.Target()
		if line == "Contact: sip:a@h.example;x=<y>\r\n" {
			ok = ok && got != "sip:a@h.example" // the parameter is malformed, the URI is not
		}
		if ok {
			t.Errorf("Target of %q = %q, want none", line, got)
		}
	}
}

func TestHashInURIs(t *testing.T) {
	for _, s := range []string{"sip:#123@h.example", "sip:*21#;phone-context=+44@h.example",
		"tel:#31#;phone-context=+44", "tel:%2331%23;phone-context=+44",
		"sips:a#b@h.example", "sip:12;postd=p#5@h.example", "tel:12;postd=p#5;phone-context=x.example"} {
		u, err := ParseURI(s)
		if err != nil {
			t.Errorf("ParseURI(%q): %v, want accepted", s, err)
			continue
		}
		escaped, err := ParseURI(strings.ReplaceAll(s, "#", "%23"))
		if err != nil || Unescape(u.User) != Unescape(escaped.User) || u.Host != escaped.Host ||
			Unescape(string(u.Params)) != Unescape(string(escaped.Params)) {
			t.Errorf("%q and its escaped form: %v, want equal URIs (RFC 3261 §19.1.4)", s, err)
		}
		if m := NewRequest(INVITE, s); strings.Contains(m.RequestURI(), "#") {
			t.Errorf("Request-URI %q is sent as %q", s, m.RequestURI())
		}
	}
	for in, want := range map[string]string{"sip:%23123@h": "#123", "tel:%2A21%23": "*21#", "tel:#1": "#1"} {
		u, _ := ParseURI(in)
		if got, ok := u.TelephoneNumber(); !ok || got != want {
			t.Errorf("number of %q = %q, %v, want %q", in, got, ok, want)
		}
	}
	for in, want := range map[string]string{
		`<sip:#1@h>;x="#",sip:#2@h;y="#", "#" <tel:#3>`: `<sip:%231@h>;x="#",sip:%232@h;y="#", "#" <tel:%233>`,
		`sip:+44@h`:                      `sip:+44@h`,
		`<sip:a;b#c@h?Replaces=x#y>;z=#`: `<sip:a;b%23c@h?Replaces=x%23y>;z=#`,
	} {
		if got := EscapeHash(in); got != want {
			t.Errorf("EscapeHash(%q) = %q, want %q", in, got, want)
		}
	}
}

// Spaces and control characters are not visual separators, escaped or not (RFC 3966 §3, RFC 3261 §19.1.4).
func TestEscapedBlanksAreNoSeparators(t *testing.T) {
	for _, c := range []string{"%20", "%09", "%00", "%0D%0A", "%C2%A0", "%E2%80%8B", "%7F"} {
		for _, s := range []string{"sip:+442079460123" + c + "@h", "sip:" + c + "+442079460123@h",
			"sip:+4420" + c + "79460123;rn=1@h", "tel:+442079460123" + c, "tel:7042" + c + ";phone-context=+44"} {
			u, err := ParseURI(s)
			if err != nil {
				t.Errorf("ParseURI(%q): %v", s, err)
			}
			if n, ok := u.TelephoneNumber(); ok {
				t.Errorf("number of %q = %q, want none", s, n)
			}
		}
	}
	for _, s := range []string{"sip:+44 2079460123@h", "sip:+442079460123\t@h", "tel:+44 2079460123",
		"sip:+44\u00a02079460123@h", "tel:+44%2", "tel:1%zz"} {
		if _, err := ParseURI(s); err == nil {
			t.Errorf("ParseURI(%q): no error", s)
		}
	}
	if u, _ := ParseURI("sip:+44%2D(20)%2D7946.0123@h"); true {
		if n, ok := u.TelephoneNumber(); !ok || n != "+442079460123" {
			t.Errorf("escaped visual separators: %q, %v", n, ok)
		}
	}
}
