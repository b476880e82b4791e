package sip

import "testing"

func TestParseURI(t *testing.T) {
	tests := []struct {
		in         string
		scheme     Scheme
		user, pass string
		host       string
		port       int
		params     Params
		headers    string
	}{
		{"sip:atlanta.example", SchemeSIP, "", "", "atlanta.example", 0, "", ""},
		{"SIP:a@b.example:5060", SchemeSIP, "a", "", "b.example", 5060, "", ""},
		{"sips:a:pw@b.example;transport=tcp?Subject=x&Priority=urgent", SchemeSIPS, "a", "pw", "b.example", 0,
			"transport=tcp", "Subject=x&Priority=urgent"},
		{"sip:+1-555-123;isub=4;x=y@h.example;user=phone", SchemeSIP, "+1-555-123;isub=4;x=y", "", "h.example", 0,
			"user=phone", ""},
		{"sip:a@[2001:db8::1]:5070;lr", SchemeSIP, "a", "", "[2001:db8::1]", 5070, "lr", ""},
		{"sip:[::ffff:192.0.2.1]", SchemeSIP, "", "", "[::ffff:192.0.2.1]", 0, "", ""},
		{"sip:sips%3Ab%40c.example@d.example", SchemeSIP, "sips%3Ab%40c.example", "", "d.example", 0, "", ""},
		{"sip:a?b/c;d@h", SchemeSIP, "a?b/c;d", "", "h", 0, "", ""},
		{"sip:a:@h", SchemeSIP, "a", "", "h", 0, "", ""},
		{"sip:a@under_score.example", SchemeSIP, "a", "", "under_score.example", 0, "", ""},
		{"tel:+1(555)123.00-00;ext=12;phone-context=example.com", SchemeTel, "+1(555)123.00-00", "", "", 0,
			"ext=12;phone-context=example.com", ""},
		{"TEL:911", SchemeTel, "911", "", "", 0, "", ""},
		{"tel:*67#A;phone-context=+1", SchemeTel, "*67#A", "", "", 0, "phone-context=+1", ""},
		{"urn:service:sos", SchemeOther, "", "", "", 0, "", ""},
	}
	for _, tt := range tests {
		u, err := ParseURI(tt.in)
		if err != nil {
			t.Errorf("ParseURI(%q): %v", tt.in, err)
			continue
		}
		if u.Scheme != tt.scheme || u.User != tt.user || u.Password != tt.pass || u.Host != tt.host ||
			u.Port != tt.port || u.Params != tt.params || u.Headers != tt.headers || u.String() != tt.in {
			t.Errorf("ParseURI(%q) = %+v", tt.in, u)
		}
	}
	for _, in := range []string{
		"", "sip", "sip:", "sips:", "tel:", ":", "a b", "9a:x", "<sip:a@b>", "sip:a@", "sip:@b",
		"sip:a b@c", "sip:a@b c",
		"sip:a@b:", "sip:a@b:0", "sip:a@b:65536", "sip:a@b:5060x", "sip:a@b:05060000", "sip:a@b;", "sip:a@b;;x",
		"sip:a@b;=x", "sip:a@b;x=",
		"sip:a@b?", "sip:a@b?x", "sip:a@b?=y", "sip:a@b?x=y&", "sip:%@b", "sip:%4@b", "sip:%zz@b", "sip:a@b;x=%4",
		"sip:a@-b", "sip:a@b..c", "sip:a@.b",
		"sip:a@[2001:db8::1", "sip:a@2001:db8::1", "sip:a@[2001:db8:::1]", "sip:a@[fe80::1%25eth0]",
		"sip:a@[192.0.2.1]", "sip:a@[::1]x", "sip:\"a\"@b", "sip:a@b@c d",
		"tel:", "tel:+", "tel:()-", "tel:12+3", "tel:+1#", "tel:+12a", "tel:hello", "tel:+1;", "tel:+1;=x", "sip:aé@b",
		"sip:a@b ", "sip:a@b:1 ", "sip:a@ b:1", "sip:a@b\t:1", "sip:a@[::1] :1", "urn:a b", "urn:<x>",
	} {
		if u, err := ParseURI(in); err == nil {
			t.Errorf("ParseURI(%q) accepted: %+v", in, u)
		}
	}
}

func TestTelephoneNumberIgnoresSeparatorsAndParameters(t *testing.T) {
	for in, want := range map[string]string{
		"sip:+15551230000@h":                                     "+15551230000",
		"sip:15551230000@h;user=phone":                           "15551230000",
		"sip:+1-555-123.0000@h":                                  "+15551230000",
		"sip:+1(555)1230000@h":                                   "+15551230000",
		"sip:+15551230000;rn=+15559990000;npdi@h;user=phone":     "+15551230000",
		"sip:+15551230000;npdi=yes@h":                            "+15551230000",
		"sip:+15551230000;ext=77@h":                              "+15551230000",
		"sip:+15551230000;isub=9@h":                              "+15551230000",
		"sip:+15551230000;verstat=TN-Validation-Passed@h":        "+15551230000",
		"sip:1230000;phone-context=+1555@h":                      "1230000",
		"sip:%2B15551230000@h":                                   "+15551230000",
		"sip:%2b1%35551230000%3bnpdi@h":                          "+15551230000",
		"sip:+15551230000;tgrp=core-a;trunk-context=x.example@h": "+15551230000",
		"tel:+1-555-123-0000;rn=+1555;npdi":                      "+15551230000",
		"tel:+15551230000;ext=12":                                "+15551230000",
		"tel:911;phone-context=example.com":                      "911",
		"sip:911@h":                                              "911",
		"sip:*67@h":                                              "*67",
		"sip:+15551230000:secret@h":                              "+15551230000",
		"sips:+442079460123@h":                                   "+442079460123",
	} {
		u, err := ParseURI(in)
		if err != nil {
			t.Errorf("ParseURI(%q): %v", in, err)
			continue
		}
		if got, ok := u.TelephoneNumber(); !ok || got != want {
			t.Errorf("TelephoneNumber of %q = %q %v, want %q", in, got, ok, want)
		}
		if u.String() != in {
			t.Errorf("text of %q changed: %q", in, u.String())
		}
	}
	for _, in := range []string{"sip:alice@h", "sip:h", "sip:+@h", "sip:++1555@h", "sip:1+555@h", "sip:+1555*2@h",
		"sip:%00555@h", "urn:service:sos", "sip:+1555a@h", "sip:;rn=5@h"} {
		u, _ := ParseURI(in)
		if got, ok := u.TelephoneNumber(); ok {
			t.Errorf("TelephoneNumber of %q = %q, want none", in, got)
		}
	}
}

func TestURIParameters(t *testing.T) {
	u, err := ParseURI("sip:+1555;RN=+1666;npdi@h;Transport=TCP;x=%41;lr")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"transport": "TCP", "X": "A", "lr": ""} {
		if got, ok := u.Param(name); !ok || got != want {
			t.Errorf("Param(%q) = %q %v", name, got, ok)
		}
	}
	if _, ok := u.Param("rn"); ok {
		t.Error("a user parameter was taken for a URI parameter")
	}
	if got, ok := u.UserParams().Get("rn"); !ok || got != "+1666" {
		t.Errorf("UserParams rn = %q %v", got, ok)
	}
	if u.UserOnly() != "+1555" {
		t.Errorf("UserOnly %q", u.UserOnly())
	}
}
