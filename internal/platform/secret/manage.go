package secret

import (
	"context"

	api "github.com/tandemgw/tandem/api/manage"
)

// The methods below implement the management API's operations on the keyring (api/manage/v1.yaml).

// GetKeyring implements the operation getKeyring.
func (r *Rotation) GetKeyring(ctx context.Context,
	_ api.GetKeyringRequestObject) (api.GetKeyringResponseObject, error) {
	k, err := r.Keys(ctx)
	return api.GetKeyring200JSONResponse(k), err
}

// RotateKeyring implements the operation rotateKeyring.
func (r *Rotation) RotateKeyring(ctx context.Context,
	q api.RotateKeyringRequestObject) (api.RotateKeyringResponseObject, error) {
	k, err := r.Rotate(ctx, q.Body != nil && q.Body.Distributed)
	return api.RotateKeyring200JSONResponse(k), err
}

// PruneKeyring implements the operation pruneKeyring.
func (r *Rotation) PruneKeyring(ctx context.Context,
	_ api.PruneKeyringRequestObject) (api.PruneKeyringResponseObject, error) {
	k, err := r.Prune(ctx)
	return api.PruneKeyring200JSONResponse(k), err
}
