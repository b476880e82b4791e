package node

import (
	"errors"
	"strings"
	"testing"

	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/domain"
)

func TestNumbersAreRedactedWhereverTheyStand(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"+442079460123 is not provisioned":          "+44207946… is not provisioned",
		"<sip:+442079460123@gw>;tag=1234567890":     "<sip:+44207946…@gw>;tag=1234567890",
		"tel:02079460123;phone-context=+44":         "tel:0207946…;phone-context=+44",
		"SIPS:2079460123@x +15551234567,+1555":      "SIPS:207946…@x +1555123…,+1555",
		"10.0.0.1:5060 took 123456789ns +5 of 1e+7": "10.0.0.1:5060 took 123456789ns +5 of 1e+7",
		"02079460123":                      "0207946…",
		"02079460123 is no E.164 number":   "0207946… is no E.164 number",
		"nor is <5551234>, (02079460123).": "nor is <555…>, (0207946…).",
		"20261121T070000Z a-1234567 x=1234567 1.2345678 12345678.5 1234567890123456 123456": "20261121T070000Z a-1234567 x=1234567 1.2345678 12345678.5 1234567890123456 123456",
		"sip:":                                   "sip:",
		"sip:alice@example.com +":                "sip:alice@example.com +",
		"++442079460123":                         "++44207946…",
		"+44207946…":                             "+44207946…",
		"2026-11-21T07:00:00+00:00 tel:+1234567": "2026-11-21T07:00:00+00:00 tel:+123…",
	} {
		if got := redact(in); got != want {
			t.Errorf("redact(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestLoggerRedactsByDefault(t *testing.T) {
	t.Parallel()
	number := domain.E164("+442079460123")
	for _, c := range []struct {
		numbers, format string
		hidden          bool
	}{{"redacted", "text", true}, {"redacted", "json", true}, {"full", "text", false}, {"full", "json", false}} {
		var b strings.Builder
		log := newLogger(&b, config.Log{Level: "info", Format: c.format, Numbers: c.numbers})
		log.With("by", number).Info("call to +442079460123", "to", number, "uri", "sip:+442079460123@x", "error", errors.New("no +442079460123"))
		if got := strings.Contains(b.String(), "0123"); got == c.hidden {
			t.Errorf("numbers=%s format=%s: %s", c.numbers, c.format, b.String())
		}
		if n := strings.Count(b.String(), "+442079460123"); !c.hidden && n != 5 {
			t.Errorf("full log shows %d of 5 numbers: %s", n, b.String())
		}
	}
}

func FuzzRedact(f *testing.F) {
	f.Add("sip:+442079460123@x")
	f.Fuzz(func(t *testing.T, s string) {
		if got := redact(s); len(got) > len(s) {
			t.Errorf("redact(%q) = %q is longer", s, got)
		}
	})
}
