package sip

// edited notes that the text as a whole is no longer what came in.
func (m *Message) edited() { m.raw = "" }

// SetRequestURI changes the Request-URI of a request. White space and line
// breaks, which would break the start line, and "#" are percent-escaped.
func (m *Message) SetRequestURI(uri string) {
	m.edited()
	m.start, m.uri = "", escapeURI(uri)
}

// SetAt changes the value of line i and keeps its name as it was spelled.
func (m *Message) SetAt(i int, value string) {
	m.edited()
	m.lines[i] = m.lines[i].WithValue(value)
}

// InsertAt puts lines before line i; i = Len puts them at the end.
func (m *Message) InsertAt(i int, hs ...Header) {
	m.edited()
	n := len(m.lines)
	m.lines = append(m.lines, hs...)
	if i < n {
		copy(m.lines[i+len(hs):], m.lines[i:n])
		copy(m.lines[i:], hs)
	}
}

// RemoveAt takes line i out.
func (m *Message) RemoveAt(i int) {
	m.edited()
	n := copy(m.lines[i:], m.lines[i+1:]) + i
	m.lines[n] = Header{}
	m.lines = m.lines[:n]
}

// Append puts a line at the end.
func (m *Message) Append(h Header) {
	m.edited()
	m.lines = append(m.lines, h)
}

// Add appends a line of a known kind.
func (m *Message) Add(k Kind, value string) { m.Append(Line(k, value)) }

// AddName appends a line with the given name.
func (m *Message) AddName(name, value string) { m.Append(NamedLine(name, value)) }

// Set gives the first line of a kind this value (its name stays as spelled),
// removes further lines of the kind, and appends a line if there was none.
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

// Prepend puts a line before the first line of its kind, or before all lines if
// there is none: how a Via, Route or Record-Route is pushed.
func (m *Message) Prepend(k Kind, value string) {
	i := m.Find(k)
	if i < 0 {
		i = 0
	}
	m.InsertAt(i, Line(k, value))
}

// Remove takes all lines of a kind out and returns how many there were.
func (m *Message) Remove(k Kind) int {
	return m.removeIf(func(h *Header) bool { return h.kind == k })
}

// RemoveName is Remove for a field given by name.
func (m *Message) RemoveName(name string) int {
	if k := KindOf(name); k != KindOther {
		return m.Remove(k)
	}
	return m.removeIf(func(h *Header) bool {
		return h.kind == KindOther && equalFold(h.raw[:h.nameLen], name)
	})
}

func (m *Message) removeIf(drop func(*Header) bool) (removed int) {
	kept := m.lines[:0]
	for i := range m.lines {
		if drop(&m.lines[i]) {
			removed++
			continue
		}
		kept = append(kept, m.lines[i])
	}
	if removed > 0 {
		m.edited()
		clear(m.lines[len(kept):])
		m.lines = kept
	}
	return removed
}

// CopyFrom appends all lines of a kind from another message, byte for byte.
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

// SetBody replaces the body. Content-Type becomes contentType, or goes away with
// an empty body; Content-Length is kept in step where the message has the line,
// and added to a message that came without.
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
