package auth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"golang.org/x/time/rate"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/secret"
)

// Issuer is the embedded issuer. It is safe for concurrent use.
//
// Its keys are in the store, the private halves sealed, and are shared by all nodes. The life cycle of a key:
//
//	created ──keyPublish──▶ signs ──a newer key signs──▶ only verifies ──linger──▶ deleted
//
// A new key is published before it signs, so that every node knows it when the first token signed with it arrives. The
// very first key signs at once, as does one that is created because the keyring opens none of the stored keys.
type Issuer struct {
	cfg     EmbeddedConfig
	store   KeyStore
	clients *Clients
	keyring *secret.Keyring
	log     *slog.Logger
	keys    *keySet        // the public halves, cached on disk like any issuer's
	guard   *SourceLimiter // of failed sign-ins
	issued  *prometheus.CounterVec

	adding sync.Mutex // held by ensure: callers that find no key at the same time create one

	mu     sync.Mutex // guards what follows
	signer *signer
	until  time.Time // when signer must be chosen again
}

type signer struct {
	id, alg string
	key     crypto.Signer
}

const (
	keyPublish  = 5 * time.Minute  // from creating a key to signing with it
	signerFresh = time.Minute      // how long a chosen signing key is used before the store is read again
	keyPoll     = 30 * time.Second // how often the store is checked for new keys of other nodes
)

// NewIssuer builds the embedded issuer on the stores. It does not access them yet, so it can be built while the
// database is unavailable: tokens are then checked with the keys cached on disk, and none are issued.
func NewIssuer(cfg EmbeddedConfig, keys KeyStore, clients *Clients, deps Deps) *Issuer {
	i := &Issuer{cfg: cfg, store: keys, clients: clients, keyring: deps.Keyring, log: deps.Log,
		guard: NewSourceLimiter(maxFailures),
		issued: promauto.With(deps.Metrics).NewCounterVec(prometheus.CounterOpts{
			Name: "tandem_auth_issued_tokens_total",
			Help: "Requests to the embedded issuer's token endpoint, by outcome: issued, or the error code of " +
				"RFC 6749 section 5.2.",
		}, []string{"outcome"})}
	i.keys = newKeySet(cfg.Issuer, i.publicKeys, deps.Keyring, deps.CacheDir, Default().MaxKeyAge, deps.Log)
	i.keys.fetches.SetLimit(rate.Every(storePause))
	return i
}

// Run reads other nodes' keys, replaces the signing key when it is old and deletes keys that no token needs any longer.
// It blocks until ctx is done and returns nil.
func (i *Issuer) Run(ctx context.Context) error {
	for failing := false; ; {
		err := i.tend(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			i.log.Warn("cannot read the embedded issuer's keys; checking tokens with the known keys and issuing none",
				"error", err)
		}
		if err == nil && failing {
			i.log.Info("embedded issuer's keys read again")
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(keyPoll):
		}
	}
}

func (i *Issuer) tend(ctx context.Context) error {
	if err := i.keys.refresh(ctx); err != nil {
		return err
	}
	stored, added, err := i.ensure(ctx, func(stored []SigningKey) bool {
		ours := i.ours(stored)
		return len(ours) > 0 && time.Since(ours[len(ours)-1].Created) <= i.cfg.KeyLifetime
	})
	if err != nil {
		return err
	}
	if added {
		return i.keys.refresh(ctx)
	}
	current := pickSigner(i.ours(stored), time.Now())
	// A key older than the current signer may still be needed by tokens issued just before the signer took over on the
	// slowest node.
	linger := i.cfg.TokenLifetime + keyPublish + 2*signerFresh + 5*time.Minute
	for _, k := range stored {
		if k.ID == current.ID {
			break
		}
		if time.Since(current.Created.Add(keyPublish)) > linger {
			if err := i.store.DeleteSigningKey(ctx, k.ID); err != nil {
				return err
			}
			i.log.Info("deleted a signing key of the embedded issuer that no token needs any longer", "kid", k.ID)
		}
	}
	return nil
}

// ours returns the keys that the keyring opens. A key that it does not open cannot sign here but still verifies,
// because the public halves are not sealed.
func (i *Issuer) ours(stored []SigningKey) []SigningKey {
	opens := slices.DeleteFunc(slices.Clone(stored), func(k SigningKey) bool {
		_, err := i.keyring.Open(signingPlace(k.ID), k.Sealed)
		return errors.Is(err, secret.ErrNotOpened)
	})
	if len(stored) > 0 && len(opens) == 0 {
		i.log.Error("no signing key opens with this node's keyring; creating a new key. The keyring was lost or "+
			"differs from the other nodes': nodes that share a database need the same keyring", "keys", len(stored))
	}
	return opens
}

// pickSigner returns the newest key that has been published long enough, or the oldest if none has. The keys are
// ordered by creation.
func pickSigner(keys []SigningKey, now time.Time) *SigningKey {
	for n := len(keys) - 1; n >= 0; n-- {
		if now.Sub(keys[n].Created) >= keyPublish || n == 0 {
			return &keys[n]
		}
	}
	return nil
}

func signingPlace(id string) secret.Place {
	return secret.Place{Table: "signing_keys", Row: id, Column: "private"}
}

// SealAgain seals every private key in the store with the keyring's present key. It returns how many it sealed, and how
// many the keyring does not open; those it leaves as they are.
func SealAgain(ctx context.Context, store KeyStore, ring *secret.Keyring) (sealed, unreadable int, err error) {
	keys, err := store.SigningKeys(ctx)
	if err != nil {
		return 0, 0, err
	}
	for _, k := range keys {
		plain, err := ring.Open(signingPlace(k.ID), k.Sealed)
		if err != nil {
			unreadable++
			continue
		}
		again, err := ring.Seal(signingPlace(k.ID), plain)
		if err == nil {
			err = store.SealSigningKey(ctx, k.ID, again)
		}
		if err != nil {
			return sealed, unreadable, err
		}
		sealed++
	}
	return sealed, unreadable, nil
}

// ensure returns the stored keys, and creates one first unless they are enough.
func (i *Issuer) ensure(ctx context.Context, enough func([]SigningKey) bool) (stored []SigningKey, added bool,
	err error) {
	i.adding.Lock()
	defer i.adding.Unlock()
	stored, err = i.store.SigningKeys(ctx)
	if err != nil || enough(stored) {
		return stored, false, err
	}
	if err := i.addKey(ctx); err != nil {
		return nil, false, err
	}
	i.log.Info("created a signing key for the embedded issuer")
	stored, err = i.store.SigningKeys(ctx) // another node may have added one too: the oldest signs everywhere
	return stored, true, err
}

func (i *Issuer) addKey(ctx context.Context) error {
	var key crypto.Signer
	var err error
	if i.cfg.Algorithm == "RS256" {
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		return fault.Wrap(err, "generate a signing key")
	}
	k := SigningKey{ID: uuid.NewString(), Algorithm: i.cfg.Algorithm,
		Created: time.Now().UTC().Truncate(time.Microsecond)}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err == nil {
		k.Public, err = encodeKey(k.ID, k.Algorithm, key.Public())
	}
	if err == nil {
		k.Sealed, err = i.keyring.Seal(signingPlace(k.ID), der)
	}
	if err != nil {
		return fault.Wrap(err, "store a signing key")
	}
	return i.store.AddSigningKey(ctx, k)
}

// publicKeys builds the key set document from the store. It replaces the fetch that other issuers need.
func (i *Issuer) publicKeys(ctx context.Context) ([]byte, error) {
	stored, _, err := i.ensure(ctx, func(stored []SigningKey) bool { return len(stored) > 0 })
	if err != nil {
		return nil, err
	}
	return keySetDocument(stored)
}

func keySetDocument(keys []SigningKey) ([]byte, error) {
	public := make([]json.RawMessage, len(keys))
	for i, k := range keys {
		public[i] = k.Public
	}
	return json.Marshal(map[string]any{"keys": public})
}

// signingKey returns the key that signs now.
func (i *Issuer) signingKey(ctx context.Context) (*signer, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.signer != nil && time.Now().Before(i.until) {
		return i.signer, nil
	}
	stored, added, err := i.ensure(ctx, func(stored []SigningKey) bool { return len(i.ours(stored)) > 0 })
	if err == nil && added {
		err = i.keys.refresh(ctx)
	}
	if err != nil {
		return nil, err
	}
	k := pickSigner(i.ours(stored), time.Now())
	if k == nil {
		return nil, fault.Wrap(errors.New("the key just created is missing"), "choose a signing key")
	}
	if i.signer == nil || i.signer.id != k.ID {
		der, err := i.keyring.Open(signingPlace(k.ID), k.Sealed)
		if err != nil {
			return nil, fault.Wrap(err, "open signing key %s", k.ID)
		}
		parsed, err := x509.ParsePKCS8PrivateKey(der)
		if err != nil {
			return nil, fault.Wrap(err, "read signing key %s", k.ID)
		}
		s, ok := parsed.(crypto.Signer)
		if !ok {
			return nil, fault.Wrap(fmt.Errorf("unexpected type %T", parsed), "read signing key %s", k.ID)
		}
		i.signer = &signer{k.ID, k.Algorithm, s}
	}
	i.until = time.Now().Add(signerFresh)
	return i.signer, nil
}

// localPrefix begins the client ids of tokens that were issued to the local administrator, without a client.
const localPrefix = "local:"

// IssueToken issues a token with the given roles to the local administrator, without a client: for "tandem token" and
// the demo. name says what the token is for and becomes part of its client id. The token has the issuer's usual
// lifetime. Errors: InvalidRole, fault.Unavailable.
func (i *Issuer) IssueToken(ctx context.Context, name string, roles ...Role) (secret.Text, time.Time, error) {
	return i.issue(ctx, localPrefix+name, roles)
}

// IssueTokenFor is IssueToken for a caller that authenticated with a token; caller is its [Principal.ID]. The new token
// belongs to the same client, so that revoking the client revokes it too. It also returns NotAClient if the caller is
// not a client of this issuer: the new token could not be revoked, and could be used to get the next one, forever.
func (i *Issuer) IssueTokenFor(ctx context.Context, caller string, roles ...Role) (secret.Text, time.Time, error) {
	id, ours := strings.CutSuffix(caller, "@"+i.cfg.Issuer)
	if !ours || strings.HasPrefix(id, localPrefix) {
		return secret.Text{}, time.Time{}, fault.New(fault.Forbidden, CodeNotAClient,
			"only a client of the embedded issuer can request tokens here, so that they can be revoked; create one "+
				"with tandem client create, or run tandem token on the gateway itself")
	}
	return i.issue(ctx, id, roles)
}

// accessClaims are the claims of the embedded issuer's access tokens (RFC 9068 §2.2).
type accessClaims struct {
	jwt.RegisteredClaims
	ClientID string `json:"client_id"`
	AZP      string `json:"azp"`
	Roles    []Role `json:"roles"`
}

func (i *Issuer) issue(ctx context.Context, clientID string, roles []Role) (secret.Text, time.Time, error) {
	roles, err := parseRoles(roles)
	if err != nil {
		return secret.Text{}, time.Time{}, err
	}
	k, err := i.signingKey(ctx)
	if err != nil {
		return secret.Text{}, time.Time{}, err
	}
	now := time.Now().Truncate(time.Second)
	expires := now.Add(i.cfg.TokenLifetime)
	t := jwt.NewWithClaims(jwt.GetSigningMethod(k.alg), accessClaims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: i.cfg.Issuer, Subject: clientID, Audience: jwt.ClaimStrings{i.cfg.Audience}, ID: uuid.NewString(),
			IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now),
			ExpiresAt: jwt.NewNumericDate(expires),
		},
		ClientID: clientID, AZP: clientID, Roles: roles,
	})
	t.Header["kid"], t.Header["typ"] = k.id, "at+jwt"
	s, err := t.SignedString(k.key)
	if err != nil {
		return secret.Text{}, time.Time{}, fault.Wrap(err, "sign a token")
	}
	return secret.New(s), expires, nil
}
