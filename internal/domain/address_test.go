package domain_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/tandemgw/tandem/internal/domain"
)

func TestParsePrefix(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1":             "192.0.2.1/32",
		"192.0.2.0/24":          "192.0.2.0/24",
		"0.0.0.0/0":             "0.0.0.0/0",
		"2001:db8::1":           "2001:db8::1/128",
		"2001:db8::/32":         "2001:db8::/32",
		"::/0":                  "::/0",
		"::ffff:192.0.2.1":      "192.0.2.1/32",
		"::FFFF:c000:0201":      "192.0.2.1/32",
		"::ffff:192.0.2.0/120":  "192.0.2.0/24",
		"::ffff:192.0.2.1/128":  "192.0.2.1/32",
		"::ffff:c000:200/120":   "192.0.2.0/24",
		"::ffff:0:0/96":         "0.0.0.0/0",
		"::ffff:0.0.0.0/97":     "0.0.0.0/1",
		"::ffff:192.0.2.0/95":   "!96 or more",
		"::ffff:0:0/80":         "!96 or more",
		"::ffff:192.0.2.1/120":  "!write 192.0.2.0/24",
		"192.0.2.1/24":          "!write 192.0.2.0/24, or the address with /32",
		"2001:db8::1/32":        "!write 2001:db8::/32, or the address with /128",
		"fe80::1%eth0":          "!neither",
		"fe80::%eth0/64":        "!neither",
		"192.0.2.0/33":          "!neither",
		"192.0.2.0/24 ":         "!neither",
		"example.com":           "!neither",
		"192.0.2.1:5060":        "!neither",
		"":                      "!neither",
		"192.0.2.0/255.255.0.0": "!neither",
	} {
		got, err := domain.ParsePrefix(in)
		if text, bad := strings.CutPrefix(want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("ParsePrefix(%q) = %v, %v, want an error with %q", in, got, err, text)
			}
		} else if err != nil || got != netip.MustParsePrefix(want) {
			t.Errorf("ParsePrefix(%q) = %v, %v, want %s", in, got, err, want)
		}
	}
}

func TestCheckBrackets(t *testing.T) {
	for in, want := range map[string]string{
		"2001:db8::1:5060":          `write "[2001:db8::1]:5060"`,
		"::1:5060":                  `write "[::1]:5060"`,
		"2001:db8::1:2":             `write "[2001:db8::1]:2"`,
		"2001:db8:0:0:0:0:0:1:5061": `write "[2001:db8::1]:5061"`,
		"fe80::1%eth0:5060":         `write "[fe80::1%eth0]:5060"`,
		"::ffff:192.0.2.1:5060":     `write "[::ffff:192.0.2.1]:5060"`,
		"[2001:db8::1]:5060":        "",
		"[2001:db8::1]":             "",
		"2001:db8::1":               "",
		"2001:db8:0:0:0:0:0:1":      "",
		"::1":                       "",
		"::":                        "",
		"2001:db8::1:abcd":          "",
		"192.0.2.1:5060":            "",
		"192.0.2.1":                 "",
		"sbc.example.com:5061":      "",
		":8080":                     "",
		"":                          "",
	} {
		err := domain.CheckBrackets(in)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("CheckBrackets(%q) = %v, want %q", in, err, want)
		}
	}
}
