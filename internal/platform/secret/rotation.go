package secret

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/domain/fault"
)

// Holder keeps values that the keyring sealed.
type Holder struct {
	Name  string // what the values are, for people
	Local bool   // they are this node's, not shared by all nodes
	// Each passes every value to see, with its place. If see returns another value, Each stores that one in its place.
	Each func(ctx context.Context, see See) error
}

// See is given a sealed value and where it is stored, and returns it, or the same secret sealed again.
type See func(at Place, sealed []byte) (again []byte, err error)

// older counts the values that need an older key.
func older(k api.Keyring) (n int) {
	for _, v := range k.Values {
		n += v.Older
	}
	return n
}

// Rotation replaces the key of a keyring. Its methods are safe for concurrent use.
//
//	┌─▶ primary key ──Rotate──▶ new key added ──(shared: on every node, Rotate again)──▶ new key is primary
//	│                                                                                           │
//	└────── older keys removed ◀──Prune── nothing needs an older key ◀── values sealed again ◀──┘
//
// Each step is durable before the next begins, and Rotate continues at the step that was not completed: older keys
// open everything until Prune removes them.
type Rotation struct {
	Keyring *Keyring
	Holders []Holder
	// Shared is set if other nodes may have copies of the keyring: each must have a new key before one of them seals
	// with it.
	Shared bool
	// Audit writes to the audit log, before another key seals or keys are removed.
	Audit func(ctx context.Context, action, target string, items int, what any) error
	// Seen is told every new count.
	Seen func(api.Keyring)

	mu sync.Mutex // one operation at a time
}

// Keys counts what the keyring sealed.
func (r *Rotation) Keys(ctx context.Context) (api.Keyring, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.walk(ctx, all, false)
}

// SealLocal seals this node's own values with the primary key, which another node's rotation may have replaced.
func (r *Rotation) SealLocal(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err := r.walk(ctx, func(h Holder) bool { return h.Local }, true)
	return err
}

func all(Holder) bool { return true }

// walk counts the values of some holders by key, after sealing them again with the primary key if again is set.
func (r *Rotation) walk(ctx context.Context, of func(Holder) bool, again bool) (api.Keyring, error) {
	s := r.Keyring.state()
	for _, h := range r.Holders {
		if !of(h) {
			continue
		}
		held := api.SealedValues{Name: h.Name}
		err := h.Each(ctx, func(at Place, sealed []byte) ([]byte, error) {
			now, old, err := r.Keyring.reseal(at, sealed)
			switch {
			case errors.Is(err, ErrNotOpened):
				held.Unreadable++
				return sealed, nil
			case err != nil:
				return nil, err
			case old && !again:
				held.Older++
				return sealed, nil
			}
			held.Primary++
			return now, nil
		})
		if err != nil {
			return s, fmt.Errorf("%s: %w", h.Name, err)
		}
		s.Values = append(s.Values, held)
	}
	if r.Seen != nil {
		r.Seen(s)
	}
	return s, nil
}

// Rotate adds a key, makes it the primary one and seals everything again with it. If a rotation was not completed it
// completes that one instead. The key of a shared keyring becomes the primary one only if distributed says that every
// node has it; until then it is in Added. The error is fault.Conflict if the keyring cannot be changed here.
func (r *Rotation) Rotate(ctx context.Context, distributed bool) (api.Keyring, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, err := r.walk(ctx, all, false)
	if err != nil {
		return s, err
	}
	if len(s.Added) == 0 && older(s) == 0 {
		id, err := r.Keyring.addKey()
		if err != nil {
			return s, err
		}
		s.Added = []int64{id}
		if err := r.Audit(ctx, "secret.add", fmt.Sprint(id), 1, map[string]any{"primary": s.Primary}); err != nil {
			return s, err
		}
	}
	if n := len(s.Added); n > 0 && (distributed || !r.Shared) {
		id := s.Added[n-1]
		if err := r.Audit(ctx, "secret.rotate", fmt.Sprint(id), 1, map[string]any{"before": s.Primary}); err != nil {
			return s, err
		}
		if err := r.Keyring.promote(id); err != nil {
			return s, err
		}
	}
	return r.walk(ctx, all, true)
}

// Prune removes the older keys. The error is fault.Conflict if a value still needs one.
func (r *Rotation) Prune(ctx context.Context) (api.Keyring, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, err := r.walk(ctx, all, false)
	if err != nil || len(s.Older) == 0 {
		return s, err
	}
	if n := older(s); n > 0 {
		return s, fault.New(fault.Conflict, "KeysInUse", "%d values on this node are still sealed with older keys; "+
			"run tandem secret rotate, then try again", n)
	}
	if err := r.Audit(ctx, "secret.prune", fmt.Sprint(s.Primary), len(s.Older),
		map[string]any{"removed": s.Older}); err != nil {
		return s, err
	}
	if err := r.Keyring.retire(s.Older); err != nil {
		return s, err
	}
	return r.walk(ctx, all, false)
}

// Reload reads the keyring's file again, in case another node's was copied over it, and returns the function that uses
// it and seals this node's values with its primary key. A file that opens less than the keyring in use is refused.
func (r *Rotation) Reload(ctx context.Context) (apply func(context.Context) error, err error) {
	k := r.Keyring
	if k.path == "" {
		return func(context.Context) error { return nil }, nil
	}
	raw, err := readPrivate(k.path)
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	k.mu.RLock()
	before := k.raw
	k.mu.RUnlock()
	if bytes.Equal(raw, before) {
		return func(context.Context) error { return nil }, nil
	}
	next, err := parse(raw, k.path)
	if err != nil {
		return nil, err
	}
	for _, h := range r.Holders {
		err := h.Each(ctx, func(at Place, sealed []byte) ([]byte, error) {
			if _, err := k.Open(at, sealed); err != nil {
				return sealed, nil
			}
			_, err := next.Open(at, sealed)
			return sealed, err
		})
		if err != nil {
			return nil, fault.New(fault.Conflict, "KeyringLacksKey", "%s lacks a key that is in use here (%s: %v); "+
				"copy the keyring of the node where tandem secret rotate ran last", k.path, h.Name, err)
		}
	}
	return func(ctx context.Context) error {
		k.mu.Lock()
		if bytes.Equal(k.raw, before) { // else a rotation came first
			k.raw, err = raw, k.use(next.handle)
		}
		k.mu.Unlock()
		if err != nil {
			return err
		}
		return r.SealLocal(ctx)
	}, nil
}
