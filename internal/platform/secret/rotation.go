package secret

import (
	"context"
	"fmt"
	"sync"

	api "github.com/tandemgw/tandem/api/manage"
)

// Rotation replaces the key of a keyring. It implements the management API's operation on the keyring, and is safe for
// concurrent use.
//
//	primary key ──▶ new key added ──(shared: on every node)──▶ new key is primary ──▶ database values sealed again
//
// Each step is durable before the next begins. Older keys stay and open what they sealed: backups, and this node's
// files until they are written the next time.
type Rotation struct {
	Keyring *Keyring
	// Shared is set if other nodes may have copies of the keyring: each must have a new key before one of them seals
	// with it.
	Shared bool
	// SealAgain seals every value in the database with the primary key. It returns how many it sealed, and how many do
	// not open.
	SealAgain func(context.Context) (sealed, unreadable int, err error)
	// Audit writes to the audit log.
	Audit func(ctx context.Context, action, target string, items int, what any) error

	mu sync.Mutex // one rotation at a time
}

// RotateKeyring implements the operation rotateKeyring (api/manage/v1.yaml). A key that was added but does not seal yet
// is used in place of another new one.
func (r *Rotation) RotateKeyring(ctx context.Context,
	q api.RotateKeyringRequestObject) (api.RotateKeyringResponseObject, error) {
	distributed := q.Body != nil && q.Body.Distributed
	r.mu.Lock()
	defer r.mu.Unlock()
	primary, newest := r.Keyring.ids()
	if newest == primary && !distributed {
		var err error
		if newest, err = r.Keyring.add(); err != nil {
			return nil, err
		}
		if err := r.Audit(ctx, "secret.add", fmt.Sprint(newest), 1, map[string]any{"primary": primary}); err != nil {
			return nil, err
		}
	}
	if r.Shared && !distributed {
		return api.RotateKeyring200JSONResponse{Primary: int64(primary), Added: int64(newest)}, nil
	}

	if newest != primary {
		if err := r.Audit(ctx, "secret.rotate", fmt.Sprint(newest), 1, map[string]any{"before": primary}); err != nil {
			return nil, err
		}
		if err := r.Keyring.promote(newest); err != nil {
			return nil, err
		}
	}
	sealed, unreadable, err := r.SealAgain(ctx)
	return api.RotateKeyring200JSONResponse{Primary: int64(newest), Sealed: sealed, Unreadable: unreadable}, err
}
