package secret

import (
	"fmt"
	"io"
	"log/slog"
)

// hidden is the printed form of every secret.
const hidden = "[secret]"

// Text is a secret string that does not print. The zero value is the empty secret. It may be copied. Comparing with ==
// works but is not constant-time.
type Text struct{ v string }

// New wraps s.
func New(s string) Text { return Text{s} }

// Reveal returns the secret itself. Call it where the secret is used and nowhere else.
func (t Text) Reveal() string { return t.v }

// IsZero reports whether the secret is empty.
func (t Text) IsZero() bool { return t.v == "" }

// String hides the secret.
func (t Text) String() string { return hidden }

// GoString hides the secret from %#v.
func (t Text) GoString() string { return hidden }

// Format hides the secret from every verb, including %x and %d. The error of a failing writer is ignored.
func (t Text) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// LogValue hides the secret from slog.
func (t Text) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText hides the secret from JSON, XML and YAML.
func (t Text) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// UnmarshalText reads a secret from a configuration file.
func (t *Text) UnmarshalText(b []byte) error { t.v = string(b); return nil }

var (
	_ fmt.Formatter  = Text{}
	_ fmt.GoStringer = Text{}
	_ slog.LogValuer = Text{}
)
