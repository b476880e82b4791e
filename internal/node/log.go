package node

import (
	"context"
	"io"
	"log/slog"
	"strings"

	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/domain"
)

// newLogger returns the process's logger. Unless the configuration says otherwise, every phone number in a line is
// redacted, wherever it stands: also inside texts that other programs sent.
func newLogger(w io.Writer, c config.Log) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Level)) // it was checked
	o := &slog.HandlerOptions{Level: level}
	full := c.Numbers == "full"
	o.ReplaceAttr = func(_ []string, a slog.Attr) slog.Attr {
		if !full && a.Value.Kind() == slog.KindString {
			a.Value = slog.StringValue(redact(a.Value.String()))
		}
		if !full && a.Value.Kind() == slog.KindAny {
			if err, ok := a.Value.Any().(error); ok {
				a.Value = slog.StringValue(redact(err.Error()))
			}
		}
		return a
	}
	var h slog.Handler
	if c.Format == "json" {
		h = slog.NewJSONHandler(w, o)
	} else {
		h = slog.NewTextHandler(w, o)
	}
	if full {
		h = fullNumbers{h}
	}
	return slog.New(h)
}

// fullNumbers prints domain.E164 values whole: their own LogValue would redact them.
type fullNumbers struct{ slog.Handler }

func (h fullNumbers) Handle(ctx context.Context, r slog.Record) error {
	out := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		out.AddAttrs(whole(a))
		return true
	})
	return h.Handler.Handle(ctx, out)
}

func (h fullNumbers) WithAttrs(as []slog.Attr) slog.Handler {
	out := make([]slog.Attr, len(as))
	for i, a := range as {
		out[i] = whole(a)
	}
	return fullNumbers{h.Handler.WithAttrs(out)}
}

func (h fullNumbers) WithGroup(name string) slog.Handler {
	return fullNumbers{h.Handler.WithGroup(name)}
}

func whole(a slog.Attr) slog.Attr {
	if n, ok := a.Value.Any().(domain.E164); ok {
		return slog.String(a.Key, string(n))
	}
	return a
}

// redact replaces the last four digits of everything in s that looks like a phone number: "+" or "tel:" or "sip:" and then
// at least seven digits, or 7 to 15 digits that stand alone, as numbers in national form do.
func redact(s string) string {
	var b strings.Builder
	kept := 0 // s[:kept] is in b
	for i := 0; i < len(s); {
		start := i
		switch {
		case s[i] == '+':
			i++
		case hasScheme(s, i):
			i = strings.IndexByte(s[i:], ':') + i + 1
			if i < len(s) && s[i] == '+' {
				i++
			}
		case s[i] >= '0' && s[i] <= '9':
			if n := alone(s, i); n > 0 {
				b.WriteString(s[kept : i+n-4])
				b.WriteString("…")
				kept = i + n
			}
			for i < len(s) && s[i] >= '0' && s[i] <= '9' {
				i++
			}
			continue
		default:
			i++
			continue
		}
		first := i
		for i < len(s) && s[i] >= '0' && s[i] <= '9' {
			i++
		}
		if i-first >= 7 && !strings.HasPrefix(s[i:], "…") { // not redacted already
			b.WriteString(s[kept : i-4])
			b.WriteString("…")
			kept = i
		}
		if i == start {
			i++
		}
	}
	if kept == 0 {
		return s
	}
	b.WriteString(s[kept:])
	return b.String()
}

// alone returns how many digits begin at s[i], if they are as many as a phone number has and neither they nor what is around
// them says that they are something else: a part of a word, a date, a parameter's value, a fraction, an amount with its unit.
func alone(s string, i int) int {
	n := 0
	for i+n < len(s) && s[i+n] >= '0' && s[i+n] <= '9' {
		n++
	}
	const before, after = " \t\"'<([,", " \t\"'>)],;:!?@"
	if n < 7 || n > 15 || i > 0 && strings.IndexByte(before, s[i-1]) < 0 {
		return 0
	}
	rest := s[i+n:]
	if rest == "" || strings.IndexByte(after, rest[0]) >= 0 || rest[0] == '.' && (len(rest) == 1 || rest[1] == ' ') {
		return n
	}
	return 0
}

func hasScheme(s string, i int) bool {
	for _, scheme := range [...]string{"tel:", "sip:", "sips:"} {
		if len(s)-i >= len(scheme) && strings.EqualFold(s[i:i+len(scheme)], scheme) {
			return true
		}
	}
	return false
}
