package domain_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/tandemgw/tandem/internal/domain"
)

func TestNumbersInTextAreRedacted(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		// Alone, with "+", in URIs.
		"":                                      "",
		"+442079460123 is not provisioned":      "+44207946… is not provisioned",
		"<sip:+442079460123@gw>;tag=1234567890": "<sip:+44207946…@gw>;tag=1234567890",
		"tel:02079460123;phone-context=+44":     "tel:0207946…;phone-context=+44",
		"SIPS:2079460123@x +15551234567,+1555":  "SIPS:207946…@x +1555123…,+1555",
		"02079460123 is no E.164 number":        "0207946… is no E.164 number",
		"nor is <5551234>, (02079460123).":      "nor is <555…>, (0207946…).",
		"++442079460123":                        "++44207946…",
		"0011442079460123456":                   "001144207946012…",
		// Next to a letter, "_", "-", "=", "%", "/".
		"tel-15551239987":                    "tel-1555123…",
		"tel_15551239987_a":                  "tel_1555123…_a",
		"acme15551239987":                    "acme1555123…",
		"15551239987x and 5551239987-fax":    "1555123…x and 555123…-fax",
		"rn=15551239987":                     "rn=1555123…",
		"/accounts/c15551239987/numbers/%2B": "/accounts/c1555123…/numbers/%2B",
		"%2B15551239987":                     "%2B1555123…",
		"user:15551239987/x":                 "user:1555123…/x",
		"\"15551239987\"":                    "\"1555123…\"",
		"n+15551239987a":                     "n+1555123…a",
		// In groups.
		"+1-555-123-9987":              "+1-555-123-…",
		"+1 (555) 123-9987 is busy":    "+1 (555) 123-… is busy",
		"+1.555.123.9987":              "+1.555.123.…",
		"+44 20 7946 0123":             "+44 20 794…",
		"tel:+44-20-7946-0123;ext=5":   "tel:+44-20-794…;ext=5",
		"555-123-9987":                 "555-123-…",
		"(555) 123-9987":               "(555) 123-…",
		"1.555.123.9987":               "1.555.123.…",
		"acme_1_555_123_9987":          "acme_1_555_123_…",
		"+1_555_123_9987":              "+1_555_123_…",
		"020-7946-0123":                "020-7946-…",
		"0207-946012 from a neighbour": "0207-94… from a neighbour",
		"+1-5551239987":                "+1-555123…",
		"+1-555-1239987":               "+1-555-123…",
		// Already redacted.
		"+44207946…": "+44207946…",
	} {
		got := domain.Redact(in)
		if got != want {
			t.Errorf("Redact(%q) = %q, want %q", in, got, want)
		}
		if again := domain.Redact(got); again != got {
			t.Errorf("Redact twice: %q, then %q", got, again)
		}
	}
	for _, in := range []string{ // what is not a number
		"sip:", "sip:alice@example.com +", "+",
		"10.0.0.1:5060 took +5 of 1e+7, 192.168.100.200-192.168.100.201",
		"20261121T070000Z 1.2345678 12345678.5 1234567890123456 123456",
		"2026-11-21T07:00:00.123456789+00:00 and 2026-11-21 07:00:00",
		"6f1c9b1e-1234-4c7a-9d60-123456789012",
		"0123456789abcdef0123456789abcdef 0xc000123456",
		"ports 10000-20000 [100 200 300 400] 911 112",
		"[2001:db8::1]:5061",
	} {
		if got := domain.Redact(in); got != in {
			t.Errorf("Redact(%q) = %q, want it unchanged", in, got)
		}
	}
}

// TestNoNumberSurvives puts one number, in its usual notations, next to every printable character.
func TestNoNumberSurvives(t *testing.T) {
	t.Parallel()
	for _, n := range []string{"+15551239987", "15551239987", "5551239987", "+1-555-123-9987", "+1 555 123 9987",
		"+1 (555) 123-9987", "555-123-9987", "02079469987", "00442079469987"} {
		for c := byte(' '); c <= '~'; c++ {
			if c >= '0' && c <= '9' || c == '.' && !strings.HasPrefix(n, "+") {
				continue
			}
			for _, in := range []string{string(c) + n, n + string(c), "a" + string(c) + n + string(c) + "z"} {
				if got := domain.Redact(in); strings.Contains(got, "9987") {
					t.Errorf("Redact(%q) = %q", in, got)
				}
			}
		}
	}
}

func TestDialledNumbersAreRedactedInEveryForm(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                  "",
		"999":               "999",
		"+442079460123":     "+44207946…",
		"02079460123":       "0207946…",
		"020-7946-0123":     "020-7946-…",
		"+1 (555) 123-4567": "+1 (555) 123-…",
		"00442079460123":    "0044207946…",
		"*67#5551234":       "*67#555…",
		"+012345678":        "+01234…",
		"020%207946%200123": "020%207946%20…",
	} {
		if got := domain.Dialled(in).Redacted(); got != want {
			t.Errorf("Redacted(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestLogValuesAreRedacted(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "a", domain.Dialled("020-7946-0123"), "b",
		domain.Text("no 02079460123"), "c", domain.E164("+442079460123"))
	if s := b.String(); strings.Contains(s, "0123") || strings.Count(s, "…") != 3 {
		t.Errorf("logged %s", s)
	}
}

func FuzzRedact(f *testing.F) {
	f.Add("sip:+442079460123@x")
	f.Add("+1 (555) 123-9987 6f1c9b1e-1234-4c7a-9d60-123456789012")
	f.Fuzz(func(t *testing.T, s string) {
		got := domain.Redact(s)
		if len(got) > len(s) {
			t.Errorf("Redact(%q) = %q is longer", s, got)
		}
	})
}

// Names of people are hidden as phone numbers are; those of activation users, which are nobody's, stay.
func TestRedactPeople(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"user bob.smith@contoso.example names it":            "user b…@contoso.example names it",
		"held by Ärmin_o'neil#EXT#@x.onmicrosoft.com: wait":  "held by Ä…@x.onmicrosoft.com: wait",
		`reference orgContact "Bob Smith" names it`:          `reference orgContact "…" names it`,
		"activationUser tandem.teams@contoso.1r1.gw.example": "activationUser tandem.teams@contoso.1r1.gw.example",
		"+442079460123 is held by anna@contoso.example":      "+44207946… is held by a…@contoso.example",
		"group Sales 24 hours":                               "group Sales 24 hours",
	} {
		if got := domain.RedactPeople(text); got != want {
			t.Errorf("RedactPeople(%q) = %q, want %q", text, got, want)
		}
	}
}
