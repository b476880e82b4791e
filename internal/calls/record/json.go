package record

import (
	"encoding/json"
	"strconv"
	"time"
	"unicode/utf8"
)

// AppendJSON appends the record as encoding/json writes it, without a newline. It is hand-written because it runs for
// each call; a test compares the two.
func (r *Record) AppendJSON(b []byte) []byte {
	w := writer{b: b, first: true}
	w.begin()
	w.text("id", r.ID)
	w.text("node", r.Node)
	w.time("start", r.Start)
	w.timeIf("progress", r.Progress)
	w.timeIf("answer", r.Answer)
	w.time("end", r.End)
	w.float("durationSeconds", r.DurationSeconds)
	w.text("direction", r.Direction)
	w.text("service", r.Service.String())
	w.textIf("account", r.Account)
	w.textIf("called", r.Called)
	w.textIf("caller", r.Caller)
	w.textIf("identity", r.Identity)
	w.textIf("identitySource", r.IdentitySource)
	w.textIf("customHeader", r.CustomHeader)
	if r.Emergency {
		w.key("emergency")
		w.b = append(w.b, "true"...)
	}
	w.textIf("rule", r.Rule)
	w.key("from")
	w.begin()
	w.text("group", r.From.Group)
	w.text("address", r.From.Addr)
	w.text("callId", r.From.CallID)
	w.end()
	if len(r.Tried) > 0 {
		w.key("tried")
		w.b = append(w.b, '[')
		for i := range r.Tried {
			if i > 0 {
				w.b = append(w.b, ',')
			}
			t := &r.Tried[i]
			w.begin()
			w.text("group", t.Group)
			w.text("peer", t.Peer)
			w.text("address", t.Addr)
			w.time("at", t.At)
			w.intIf("status", t.Status)
			w.text("result", t.Result)
			w.end()
		}
		w.b = append(w.b, ']')
	}
	w.textIf("farCallId", r.FarCallID)
	w.int("status", r.Status)
	w.text("endedBy", string(r.EndedBy))
	w.textIf("reason", r.Reason)
	w.intIf("q850", r.Cause)
	w.end()
	return w.b
}

// writer builds JSON objects.
type writer struct {
	b     []byte
	first bool
}

func (w *writer) begin() { w.b, w.first = append(w.b, '{'), true }
func (w *writer) end()   { w.b, w.first = append(w.b, '}'), false }

func (w *writer) key(k string) {
	if !w.first {
		w.b = append(w.b, ',')
	}
	w.first = false
	w.b = append(w.b, '"')
	w.b = append(w.b, k...)
	w.b = append(w.b, '"', ':')
}

func (w *writer) text(k, v string) {
	w.key(k)
	w.b = appendString(w.b, v)
}

func (w *writer) textIf(k, v string) {
	if v != "" {
		w.text(k, v)
	}
}

func (w *writer) int(k string, v int) {
	w.key(k)
	w.b = strconv.AppendInt(w.b, int64(v), 10)
}

func (w *writer) intIf(k string, v int) {
	if v != 0 {
		w.int(k, v)
	}
}

// float rounds to microseconds: more digits would be noise.
func (w *writer) float(k string, v float64) {
	w.key(k)
	w.b = strconv.AppendFloat(w.b, float64(int64(v*1e6+.5))/1e6, 'f', -1, 64)
}

func (w *writer) time(k string, t time.Time) {
	w.key(k)
	w.b = append(w.b, '"')
	w.b = t.Truncate(time.Microsecond).AppendFormat(w.b, time.RFC3339Nano)
	w.b = append(w.b, '"')
}

func (w *writer) timeIf(k string, t time.Time) {
	if !t.IsZero() {
		w.time(k, t)
	}
}

// appendString appends a JSON string; anything but plain printable ASCII is left to encoding/json.
func appendString(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(s) // never fails for a string
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
