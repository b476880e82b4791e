package secret

import (
	"encoding"
	"fmt"
	"io"
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

// Format hides the secret from every verb, including %x, %d and %#v. The error of a failing writer is ignored.
func (t Text) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// MarshalText hides the secret from slog, JSON, XML and YAML.
func (t Text) MarshalText() ([]byte, error) { return []byte(hidden), nil }

var (
	_ fmt.Formatter          = Text{}
	_ encoding.TextMarshaler = Text{}
)
