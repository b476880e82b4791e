package node

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"

	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/domain"
)

// newLogger returns the process's logger. Unless the configuration says otherwise, it redacts every phone number in a
// line, including those inside texts that other programs sent.
func newLogger(w io.Writer, c config.Log) *slog.Logger {
	o := &slog.HandlerOptions{Level: slog.LevelDebug}
	full := c.Numbers == "full"
	o.ReplaceAttr = func(_ []string, a slog.Attr) slog.Attr {
		if !full {
			a.Value = redact(a)
		}
		return a
	}
	var h slog.Handler
	if c.Format == "json" {
		h = slog.NewJSONHandler(w, o)
	} else {
		h = slog.NewTextHandler(w, o)
	}
	l := leveled{Handler: h, levels: new(atomic.Pointer[map[string]slog.Level]), full: full}
	l.set(c)
	return slog.New(l)
}

// leveled drops records below the level of its part.
type leveled struct {
	slog.Handler
	// levels holds the minimum level by part; "" is that of all other parts. They can change while the process runs.
	levels *atomic.Pointer[map[string]slog.Level]
	part   string
	full   bool // the number types of package domain are printed unredacted: their own LogValue would redact them
}

func (h leveled) set(c config.Log) {
	m := map[string]slog.Level{}
	read := func(part, text string) {
		var level slog.Level
		_ = level.UnmarshalText([]byte(text)) // already validated
		m[part] = level
	}
	read("", c.Level)
	for part, text := range c.Levels {
		read(part, text)
	}
	h.levels.Store(&m)
}

func (h leveled) Enabled(_ context.Context, level slog.Level) bool {
	m := *h.levels.Load()
	least, ok := m[h.part]
	if !ok {
		least = m[""]
	}
	return level >= least
}

func (h leveled) Handle(ctx context.Context, r slog.Record) error {
	if h.full {
		out := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
		r.Attrs(func(a slog.Attr) bool {
			out.AddAttrs(whole(a))
			return true
		})
		r = out
	}
	return h.Handler.Handle(ctx, r)
}

func (h leveled) WithAttrs(as []slog.Attr) slog.Handler {
	for i, a := range as {
		if a.Key == "part" {
			h.part = a.Value.String()
		}
		if h.full {
			as[i] = whole(a) // the slice is the handler's
		}
	}
	h.Handler = h.Handler.WithAttrs(as)
	return h
}

func (h leveled) WithGroup(name string) slog.Handler {
	h.Handler = h.Handler.WithGroup(name)
	return h
}

// whole returns an attribute that prints a number in full.
func whole(a slog.Attr) slog.Attr {
	switch v := a.Value.Any().(type) {
	case domain.E164:
		a.Value = slog.StringValue(string(v))
	case domain.Dialled:
		a.Value = slog.StringValue(string(v))
	case domain.Text:
		a.Value = slog.StringValue(string(v))
	}
	return a
}

// identifiers are attributes whose values must match what is elsewhere: in a trace, on disk, in DNS. They are redacted
// only if they certainly hold a number, one with "+".
var identifiers = map[string]bool{"call": true, "call_id": true, "call_id_out": true, "file": true, "path": true,
	"data": true, "config": true, "serial": true}

// redact returns an attribute's value without phone numbers.
func redact(a slog.Attr) slog.Value {
	clean := func(s string) string {
		if identifiers[a.Key] && !strings.Contains(s, "+") {
			return s
		}
		return domain.Redact(s)
	}
	switch a.Value.Kind() {
	case slog.KindString:
		return slog.StringValue(clean(a.Value.String()))
	case slog.KindAny:
		switch x := a.Value.Any().(type) {
		case *slog.Source, slog.Level: // added by the handler
			return a.Value
		case []string:
			list := make([]string, len(x))
			for i := range x {
				list[i] = clean(x[i])
			}
			return slog.AnyValue(list)
		default:
			return slog.StringValue(clean(fmt.Sprint(x)))
		}
	}
	return a.Value
}
