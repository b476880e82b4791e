package sip

import "slices"

// edited records that the message no longer equals its original text.
func (m *Message) edited() { m.raw = "" }

// SetRequestURI changes the Request-URI of a request. White space and line
// breaks, which would break the start line, and "#" are percent-escaped.
func (m *Message) SetRequestURI(uri string) {
	m.edited()
	m.start, m.uri = "", escapeURI(uri)
}

// SetAt changes the value of line i and keeps the spelling of its name.
func (m *Message) SetAt(i int, value string) {
	m.edited()
	m.lines[i] = m.lines[i].WithValue(value)
}

// InsertAt inserts lines before line i; i = Len appends them.
func (m *Message) InsertAt(i int, hs ...Header) {
	m.edited()
	m.lines = slices.Insert(m.lines, i, hs...)
}

// RemoveAt removes line i.
func (m *Message) RemoveAt(i int) {
	m.edited()
	m.lines = slices.Delete(m.lines, i, i+1)
}

// Append adds a line at the end.
func (m *Message) Append(h Header) {
	m.edited()
	m.lines = append(m.lines, h)
}

// Add appends a line of a known kind.
func (m *Message) Add(k Kind, value string) { m.Append(Line(k, value)) }

// AddName appends a line with the given name.
func (m *Message) AddName(name, value string) { m.Append(NamedLine(name, value)) }

// Set sets the value of the first line of a kind (keeping the spelling of its
// name), removes further lines of that kind, and appends a line if there is none.
func (m *Message) Set(k Kind, value string) {
	i := m.Find(k)
	if i < 0 {
		m.Add(k, value)
		return
	}
	m.SetAt(i, value)
	for j := m.FindFrom(k, i+1); j >= 0; j = m.FindFrom(k, j) {
		m.RemoveAt(j)
	}
}

// SetName is Set for a field given by name.
func (m *Message) SetName(name, value string) {
	i := m.FindName(name)
	if i < 0 {
		m.AddName(name, value)
		return
	}
	m.SetAt(i, value)
	for j := m.FindNameFrom(name, i+1); j >= 0; j = m.FindNameFrom(name, j) {
		m.RemoveAt(j)
	}
}

// Prepend inserts a line before the first line of its kind, or before all lines if
// there is none. It pushes a Via, Route or Record-Route.
func (m *Message) Prepend(k Kind, value string) {
	i := m.Find(k)
	if i < 0 {
		i = 0
	}
	m.InsertAt(i, Line(k, value))
}

// Remove removes all lines of a kind.
func (m *Message) Remove(k Kind) {
	m.removeIf(func(h Header) bool { return h.kind == k })
}

// RemoveName is Remove for a field given by name.
func (m *Message) RemoveName(name string) {
	if k := KindOf(name); k != KindOther {
		m.Remove(k)
		return
	}
	m.removeIf(func(h Header) bool { return h.kind == KindOther && equalFold(h.Name(), name) })
}

func (m *Message) removeIf(drop func(Header) bool) {
	n := len(m.lines)
	if m.lines = slices.DeleteFunc(m.lines, drop); len(m.lines) < n {
		m.edited()
	}
}

// CopyFrom appends all lines of the given kinds from src, byte for byte.
func (m *Message) CopyFrom(src *Message, kinds ...Kind) {
	m.edited()
	for _, k := range kinds {
		for i := range src.lines {
			if src.lines[i].kind == k {
				m.lines = append(m.lines, src.lines[i])
			}
		}
	}
}

// SetBody replaces the body. Content-Type becomes contentType, and is removed if
// both contentType and body are empty. Content-Length is updated if the message has
// the line, and added to a parsed message that lacks it.
func (m *Message) SetBody(contentType, body string) {
	m.edited()
	m.body = body
	if body == "" && contentType == "" {
		m.Remove(KindContentType)
	} else if contentType != "" && m.Get(KindContentType) != contentType {
		m.Set(KindContentType, contentType)
	}
	if m.parsed || m.Has(KindContentLength) {
		m.Set(KindContentLength, itoa(len(body)))
	}
}
