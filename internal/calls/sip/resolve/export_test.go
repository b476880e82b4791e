package resolve

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Resolve is Lookup that waits for a first answer until ctx ends. Its error says why there is none.
func (r *Resolver) Resolve(ctx context.Context, q Query) ([]Target, error) {
	n, err := normal(q)
	if err != nil {
		return nil, err
	}
	if t, ok := r.Lookup(n); ok {
		return t, nil
	}
	r.mu.Lock()
	e := r.touch(n)
	r.refresh(e, time.Now())
	asking := e.asking
	r.mu.Unlock()
	if asking != nil {
		select {
		case <-asking:
		case <-ctx.Done():
			return nil, fmt.Errorf("resolve %s: %w", n.Host, ctx.Err())
		}
	}
	if t, ok := r.Lookup(n); ok {
		return t, nil
	}
	r.mu.Lock()
	err = e.err
	r.mu.Unlock()
	if err == nil {
		err = errors.New("too many look-ups are running, or the resolver is closed")
	}
	return nil, fmt.Errorf("resolve %s: %w", n.Host, err)
}
