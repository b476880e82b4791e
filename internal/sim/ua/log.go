package ua

import (
	"context"
	"sync"
)

// Log holds what an agent sent and received, in the order of its sockets. It is safe for concurrent use and keeps only
// the last messages (Config.Keep).
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
	if len(l.all) > l.keep+l.keep/4 { // trimmed in steps, so that a long run does not copy for each message
		l.dropped += len(l.all) - l.keep
		l.all = append([]*Message(nil), l.all[len(l.all)-l.keep:]...)
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// Messages returns the kept messages for which match returns true, oldest first; all of them if match is nil.
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

// Received returns the received requests with the method; all received messages if method is "".
func (l *Log) Received(method string) []*Message {
	return l.Messages(func(m *Message) bool {
		return !m.Sent && (method == "" || m.IsRequest() && m.Method() == method)
	})
}

// Wait returns the first message, past or future, for which match returns true.
func (l *Log) Wait(ctx context.Context, match func(*Message) bool) (*Message, error) {
	next := 0 // messages before this position, counted from the first one ever, have been checked
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

// Reset removes all messages.
func (l *Log) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropped += len(l.all)
	l.all = nil
}
