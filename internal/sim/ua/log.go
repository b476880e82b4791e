package ua

import (
	"context"
	"sync"
)

// Log is what an agent sent and received, in the order of its sockets. It is safe for concurrent use and keeps the last
// messages only (Config.Keep).
type Log struct {
	mu      sync.Mutex // guards the fields below
	keep    int
	all     []*Message
	dropped int
	changed chan struct{}
}

func newLog(keep int) *Log {
	if keep <= 0 {
		keep = 20_000
	}
	return &Log{keep: keep, changed: make(chan struct{})}
}

func (l *Log) add(m *Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, m)
	if len(l.all) > l.keep+l.keep/4 { // trimmed in steps, so that a long run costs no copy per message
		l.dropped += len(l.all) - l.keep
		l.all = append([]*Message(nil), l.all[len(l.all)-l.keep:]...)
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// Messages returns the messages kept for which match says true, oldest first; all of them if match is nil.
func (l *Log) Messages(match func(*Message) bool) []*Message {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []*Message
	for _, m := range l.all {
		if match == nil || match(m) {
			out = append(out, m)
		}
	}
	return out
}

// Received returns the received requests of the method, or with method "" all received messages.
func (l *Log) Received(method string) []*Message {
	return l.Messages(func(m *Message) bool {
		return !m.Sent && (method == "" || m.IsRequest() && m.Method() == method)
	})
}

// Wait returns the first message, past or still to come, for which match says true.
func (l *Log) Wait(ctx context.Context, match func(*Message) bool) (*Message, error) {
	next := 0 // messages before this position, counted from the start of time, have been looked at
	for {
		l.mu.Lock()
		ch := l.changed
		start := max(0, next-l.dropped)
		for _, m := range l.all[start:] {
			if match(m) {
				l.mu.Unlock()
				return m, nil
			}
		}
		next = l.dropped + len(l.all)
		l.mu.Unlock()
		select {
		case <-ch:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Reset forgets everything.
func (l *Log) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropped += len(l.all)
	l.all = nil
}
