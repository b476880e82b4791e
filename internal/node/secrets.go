package node

import (
	"context"

	"github.com/tandemgw/tandem/internal/platform/auth"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/secret"
)

// rotation returns the rotation of the keyring over every secret in the database. A new kind of secret that is stored
// there belongs into SealAgain.
func (c *core) rotation() *secret.Rotation {
	return &secret.Rotation{
		Keyring: c.keyring,
		Shared:  c.db.Driver() != db.SQLite,
		Audit:   c.audit,
		SealAgain: func(ctx context.Context) (sealed, unreadable int, err error) {
			sealed, unreadable, err = auth.SealAgain(ctx, c.access, c.keyring)
			if err != nil {
				return sealed, unreadable, err
			}
			for _, again := range []func(context.Context) (int, int, error){c.sealed.SealAgain, c.tenants.SealAgain} {
				s, u, err := again(ctx)
				sealed, unreadable = sealed+s, unreadable+u
				if err != nil {
					return sealed, unreadable, err
				}
			}
			return sealed, unreadable, nil
		},
	}
}

// keyringSealer seals the keys of the replica's files with the node's keyring.
type keyringSealer struct{ k *secret.Keyring }

func (s keyringSealer) place(purpose string) secret.Place {
	return secret.Place{Table: "replica", Row: purpose, Column: "key"}
}

func (s keyringSealer) Seal(purpose string, plain []byte) ([]byte, error) {
	return s.k.Seal(s.place(purpose), plain)
}

func (s keyringSealer) Open(purpose string, sealed []byte) ([]byte, error) {
	return s.k.Open(s.place(purpose), sealed)
}
