package sip

// GetName is Get for a field given by name.
func (m *Message) GetName(name string) string {
	if i := m.FindName(name); i >= 0 {
		return m.lines[i].value
	}
	return ""
}

// Tag returns the tag parameter, "" if there is none.
func (a NameAddr) Tag() string {
	t, _ := a.Params.Get("tag")
	return t
}

// StartLine returns the start line as it is printed, without its CRLF.
func (m *Message) StartLine() string {
	if m.start != "" {
		return m.start
	}
	b := m.appendStart(nil)
	return string(b[:len(b)-2])
}

// From parses the From line.
func (m *Message) From() (NameAddr, error) { return ParseNameAddr(m.Get(KindFrom)) }

// Read is Parse and Check in one: it returns the first problem of either.
func (v *Validator) Read(data string) (*Message, *Problem) {
	m, p := Parse(data, v.Limits)
	if p == nil {
		p = v.Check(m)
	}
	return m, p
}
