package resolve

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Resolve is Lookup that waits for a first answer until ctx ends.
func (r *Resolver) Resolve(ctx context.Context, q Query) ([]netip.AddrPort, error) {
	n, ok := normal(q)
	if !ok {
		return nil, errors.New("the query makes no sense")
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
	return nil, fmt.Errorf("resolve %s: no answer", n.Host)
}
