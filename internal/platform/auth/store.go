package auth

import (
	"context"
	"time"
)

// Client is an API client of the embedded issuer.
type Client struct {
	ID      string // GUID, lower case; the key and the token's client id
	Name    string // display name, 1–100 printable characters; need not be unique
	Roles   []Role
	Secret  string // hash of the secret, see hash.go; never the secret
	Created time.Time
	Creator string    // id of the actor that created it
	Revoked time.Time // zero while the client may get tokens
}

// ClientStore stores API clients. Implementations are safe for concurrent use. Times are UTC with microseconds. An
// unavailable database is reported as fault.Unavailable, any other failure as fault.Internal. Changes are audited in
// the transaction that makes them (actor: domain.ActorFrom); the audit row must not contain Secret.
type ClientStore interface {
	// AddClient stores a new client. The id is fresh and random.
	AddClient(ctx context.Context, c Client) error
	// Client returns one client, revoked or not; fault.NotFound if there is none.
	Client(ctx context.Context, id string) (Client, error)
	// Clients returns at most limit clients, including revoked ones, in the order of Created and ID: those that follow
	// the client with the id after, or the first ones if that is empty.
	Clients(ctx context.Context, after string, limit int) ([]Client, error)
	// RevokeClient sets Revoked if it is not set yet; fault.NotFound if there is no such client.
	RevokeClient(ctx context.Context, id string, at time.Time) error
}

// SigningKey is a key of the embedded issuer as it is stored.
type SigningKey struct {
	ID        string // the key id (kid) in tokens
	Algorithm string // RS256 or ES256
	Public    []byte // the public key as a JSON Web Key
	Sealed    []byte // the private key (PKCS #8), sealed for secret.Place{"signing_keys", ID, "private"}
	Created   time.Time
}

// KeyStore stores the embedded issuer's signing keys. Errors are as for [ClientStore].
type KeyStore interface {
	// SigningKeys returns all keys, ordered by creation, then id.
	SigningKeys(ctx context.Context) ([]SigningKey, error)
	// AddSigningKey stores a new key. The id is fresh and random.
	AddSigningKey(ctx context.Context, k SigningKey) error
	// SealSigningKey replaces the sealed private key. It is not an error if the key does not exist.
	SealSigningKey(ctx context.Context, id string, sealed []byte) error
	// DeleteSigningKey removes a key. It is not an error if the key does not exist.
	DeleteSigningKey(ctx context.Context, id string) error
}

// LimitStore stores one number per limit, changed by compare-and-swap: the arithmetic is done here. Losing the numbers
// does no harm beyond one minute's limit, so durability may be relaxed and they are not audited.
type LimitStore interface {
	// LimitState returns the number stored under key, or 0.
	LimitState(ctx context.Context, key string) (int64, error)
	// SwapLimitState replaces old by new and reports whether old was still stored (0 stands for nothing stored).
	SwapLimitState(ctx context.Context, key string, old, new int64) (bool, error)
}
