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
