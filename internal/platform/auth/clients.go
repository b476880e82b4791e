package auth

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/google/uuid"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/secret"
)

// Clients manages the API clients of the embedded issuer. It is safe for concurrent use.
type Clients struct {
	store ClientStore

	mu    sync.Mutex // guards known
	known map[string]knownClient
}

// knownClient is the cached state of a client, so that checking a token does not query the database each time.
type knownClient struct {
	revoked bool
	asked   time.Time
}

const (
	clientMemory    = 10 * time.Second // a revoked client's tokens stop working after at most this time
	maxKnownClients = 10_000
)

// NewClients returns a manager of the clients in store.
func NewClients(store ClientStore) *Clients {
	return &Clients{store: store, known: map[string]knownClient{}}
}

// Create creates a client and returns it with its secret, which is shown only once: just a hash is stored. Errors:
// InvalidClientName, fault.Unavailable.
func (c *Clients) Create(ctx context.Context, name string, roles []Role) (Client, secret.Text, error) {
	name = strings.TrimSpace(name)
	if n := len([]rune(name)); n < 1 || n > 100 ||
		strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return Client{}, secret.Text{}, fault.New(fault.Invalid, CodeInvalidClientName,
			"the name of a client must have 1 to 100 printable characters").At("name")
	}
	s := newSecret()
	hash, err := hashSecret(s)
	if err != nil {
		return Client{}, secret.Text{}, fault.Wrap(err, "hash a client's secret")
	}
	roles = slices.Clone(roles)
	slices.Sort(roles)
	cl := Client{ID: uuid.NewString(), Name: name, Roles: slices.Compact(roles), Secret: hash,
		Created: time.Now().UTC().Truncate(time.Microsecond), Creator: domain.ActorFrom(ctx).ID}
	if err := c.store.AddClient(ctx, cl); err != nil {
		return Client{}, secret.Text{}, err
	}
	cl.Secret = ""
	return cl, secret.New(s), nil
}

// Revoke revokes a client: it gets no more tokens, and those it has stop working within seconds. Revoking a client
// twice is not an error. Errors: ClientNotFound, fault.Unavailable.
func (c *Clients) Revoke(ctx context.Context, id string) error {
	id = strings.ToLower(id)
	err := c.store.RevokeClient(ctx, id, time.Now().UTC().Truncate(time.Microsecond))
	if fault.Is(err, fault.NotFound) {
		return fault.New(fault.NotFound, CodeClientNotFound,
			"there is no client %q; list the clients to see their ids", id).At("id")
	}
	if err == nil {
		c.remember(id, true)
	}
	return err
}

// authenticate returns the client if the secret is correct and the client is not revoked, else nil. It takes the same
// time whether or not the client exists.
func (c *Clients) authenticate(ctx context.Context, id, secretText string) (*Client, error) {
	cl, err := c.store.Client(ctx, strings.ToLower(id))
	hash := cl.Secret
	if fault.Is(err, fault.NotFound) {
		hash = decoy
	} else if err != nil {
		return nil, err
	}
	ok := checkSecret(hash, secretText)
	if err != nil || !ok || !cl.Revoked.IsZero() {
		return nil, nil
	}
	return &cl, nil
}

// revoked reports whether a client is revoked or no longer exists. While the store is unavailable it answers from
// memory, and a client that it does not remember counts as not revoked: reads may continue, and writes fail without the
// database anyway.
func (c *Clients) revoked(ctx context.Context, id string) bool {
	c.mu.Lock()
	k, ok := c.known[id]
	c.mu.Unlock()
	if ok && (k.revoked || time.Since(k.asked) < clientMemory) {
		return k.revoked
	}
	cl, err := c.store.Client(ctx, id)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return k.revoked
	}
	k.revoked = err != nil || !cl.Revoked.IsZero()
	c.remember(id, k.revoked)
	return k.revoked
}

func (c *Clients) remember(id string, revoked bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) >= maxKnownClients {
		clear(c.known)
	}
	c.known[id] = knownClient{revoked, time.Now()}
}
