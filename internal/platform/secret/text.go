package secret

import (
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

// hidden is what every printed form of a secret shows.
const hidden = "[secret]"

// Text is a secret string that does not print. The zero value is the empty secret. It is copied freely; comparing with
// == works but is not constant-time, use [Text.Equal].
type Text struct{ v string }

// New wraps s.
func New(s string) Text { return Text{s} }

// Reveal returns the secret itself. Call it where the secret is used and nowhere else.
func (t Text) Reveal() string { return t.v }

// IsZero reports whether the secret is empty.
func (t Text) IsZero() bool { return t.v == "" }

// Equal compares in time that depends on the lengths only.
func (t Text) Equal(u Text) bool { return subtle.ConstantTimeCompare([]byte(t.v), []byte(u.v)) == 1 }

// String hides the secret.
func (t Text) String() string { return hidden }

// GoString hides the secret from %#v.
func (t Text) GoString() string { return hidden }

// Format hides the secret from every verb, %x and %d included.
func (t Text) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) } // nothing to do about a writer that fails

// LogValue hides the secret from slog.
func (t Text) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText hides the secret from JSON, XML and YAML.
func (t Text) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// UnmarshalText takes a secret from a configuration file.
func (t *Text) UnmarshalText(b []byte) error { t.v = string(b); return nil }

var (
	_ fmt.Formatter  = Text{}
	_ fmt.GoStringer = Text{}
	_ slog.LogValuer = Text{}
)
