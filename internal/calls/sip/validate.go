package sip

// Validator checks a parsed message against RFC 3261. The zero value is ready; it
// may be used by any number of goroutines once set up.
type Validator struct {
	// Limits bounds sizes; nil means the defaults.
	Limits *Limits
	// Understands tells whether an option tag of Require is implemented. Nil: none
	// is (every Require of a request gets 420, RFC 3261 §8.2.2.3).
	Understands func(tag string) bool
}

// Check returns the first problem of a message that Parse accepted, nil if there
// is none.
func (v *Validator) Check(m *Message) *Problem {
	return nil
}
