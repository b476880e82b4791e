package ua

import (
	"context"
	"fmt"
	"sync"
)

// Script holds the Behaviour of a simulator, for all calls and for single called numbers. The zero value answers every
// call. It is safe for concurrent use and may be changed while calls arrive.
type Script struct {
	mu     sync.Mutex // guards the fields below
	all    Behaviour
	number map[string]Behaviour
}

// Default sets the behaviour for calls to numbers without their own.
func (s *Script) Default(b Behaviour) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = b
}

// Set sets the behaviour for one called number.
func (s *Script) Set(number string, b Behaviour) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.number == nil {
		s.number = map[string]Behaviour{}
	}
	s.number[number] = b
}

// Unset removes the behaviour of one called number.
func (s *Script) Unset(number string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.number, number)
}

// Clear resets s to the zero value.
func (s *Script) Clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all, s.number = Behaviour{}, nil
}

// For returns the behaviour for a called number.
func (s *Script) For(number string) Behaviour {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b, ok := s.number[number]; ok {
		return b
	}
	return s.all
}

// WaitInvite waits for the first INVITE, past or future, that starts a call to the number.
func (l *Log) WaitInvite(ctx context.Context, number string) (*Message, error) {
	m, err := l.Wait(ctx, func(m *Message) bool { return IsNewCall(m) && ParseAddress(m.RequestURI()).User == number })
	if err != nil {
		return nil, fmt.Errorf("no INVITE to %s: %w", number, err)
	}
	return m, nil
}

// IsNewCall reports whether the message is a received INVITE outside any dialog. Retransmissions count too.
func IsNewCall(m *Message) bool {
	return !m.Sent && m.IsRequest() && m.Method() == "INVITE" && ParseAddress(m.Header("To")).Tag == ""
}
