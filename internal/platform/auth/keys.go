package auth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/tandemgw/tandem/internal/domain/strictjson"
	"github.com/tandemgw/tandem/internal/platform/secret"
)

const (
	fetchTimeout      = 5 * time.Second  // discovery and key set together
	fetchPause        = 30 * time.Second // between fetches for tokens that fit no known key, which anyone can invent
	storePause        = time.Second      // the same for the embedded issuer, whose keys are in the store
	fetchBurst        = 3                // such fetches at once after a quiet period
	keepEvery         = time.Hour        // how often an unchanged set is written to disk again, to update its date
	fetchRetry        = time.Minute      // after a failed fetch in the background
	maxDiscoveryBytes = 64 << 10
)

// keySet holds one issuer's keys: in memory for use, and on disk to survive restarts and outages. It is safe for
// concurrent use.
type keySet struct {
	issuer string
	fetch  func(context.Context) ([]byte, error) // gets the raw key set
	sealer *secret.Keyring
	path   string // of the file; empty for none
	maxAge time.Duration
	log    *slog.Logger

	fetches  *rate.Limiter // of fetches for tokens that fit no known key
	fetching chan struct{} // a semaphore of one, held during a fetch
	begun    atomic.Int64  // fetches started; written while fetching is held
	kept     []byte        // the set as it is on disk; guarded by fetching
	keptAt   time.Time     // its date there; guarded by fetching

	mu      sync.Mutex // guards what follows
	keys    []publicKey
	fetched time.Time // when keys were fetched from the issuer, possibly before a restart
}

func newKeySet(issuer string, fetch func(context.Context) ([]byte, error), sealer *secret.Keyring, dir string,
	maxAge time.Duration, log *slog.Logger) *keySet {
	s := &keySet{issuer: issuer, fetch: fetch, sealer: sealer, maxAge: maxAge,
		fetches: rate.NewLimiter(rate.Every(fetchPause), fetchBurst), log: log.With("issuer", issuer),
		fetching: make(chan struct{}, 1)}
	if dir != "" && sealer != nil {
		sum := sha256.Sum256([]byte(issuer))
		s.path = filepath.Join(dir, hex.EncodeToString(sum[:12])+".keys")
		s.load()
	}
	return s
}

// find looks for a key with this id (any, if kid is empty) that may be used with this algorithm and that fits a
// signature. It returns the number of known keys with that id and algorithm, and whether one fits. If none fits,
// whatever the id, the set is fetched again once: an issuer may have replaced a key under the old id. The fetches are
// limited across all callers: fetchBurst at once, then one per pause. errNoKeys means that the issuer was never
// reached, or too long ago, so that the token cannot be checked.
func (s *keySet) find(ctx context.Context, kid, alg string, fit func(publicKey) bool) (known int,
	fits bool, err error) {
	found, have := s.pick(kid, alg)
	if slices.ContainsFunc(found, fit) {
		return len(found), true, nil
	}
	if s.fetches.Allow() {
		if err := s.refresh(ctx); err != nil && !have {
			return 0, false, fmt.Errorf("%w: %w", errNoKeys, err)
		}
	} else {
		select { // a fetch in progress serves this token too
		case s.fetching <- struct{}{}:
			<-s.fetching
		case <-ctx.Done():
		}
	}
	if found, have = s.pick(kid, alg); !have {
		return 0, false, errNoKeys
	}
	return len(found), slices.ContainsFunc(found, fit), nil
}

// errNoKeys is wrapped by find when there is no usable key set.
var errNoKeys = errors.New("no key set of the issuer")

// pick returns the matching keys, and whether there is a usable set at all.
func (s *keySet) pick(kid, alg string) (found []publicKey, have bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.keys) == 0 || time.Since(s.fetched) > s.maxAge {
		return nil, false
	}
	for _, k := range s.keys {
		if (kid == "" || k.id == kid) && k.fits(alg) && (k.issuer == "" || k.issuer == s.issuer ||
			strings.Contains(k.issuer, "{tenantid}")) {
			found = append(found, k)
		}
	}
	return found, true
}

// refresh fetches the set. Callers that arrive during a fetch wait for the next one, which serves them all.
func (s *keySet) refresh(ctx context.Context) error {
	seen := s.begun.Load()
	select {
	case s.fetching <- struct{}{}:
		defer func() { <-s.fetching }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.begun.Load() > seen {
		return nil
	}
	s.begun.Add(1)

	// The fetch serves all callers: the cancellation of one must not abort it for the others.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
	defer cancel()
	raw, err := s.fetch(ctx)
	if err != nil {
		return err
	}
	keys, err := parseKeySet(raw)
	if err != nil {
		return err
	}
	now := time.Now()
	s.mu.Lock()
	s.keys, s.fetched = keys, now
	s.mu.Unlock()
	if bytes.Equal(raw, s.kept) && now.Sub(s.keptAt) < keepEvery {
		return nil
	}
	if err := s.save(raw, now); err == nil {
		s.kept, s.keptAt = raw, now
	} else {
		s.log.Warn("cannot save the issuer's keys to disk; after a restart its clients are refused while the issuer "+
			"is unavailable", "error", err)
	}
	return nil
}

// run keeps the set fresh until ctx is done.
func (s *keySet) run(ctx context.Context, every time.Duration) {
	for failed := false; ; {
		err := s.refresh(ctx)
		wait := every + time.Duration(rand.Int64N(int64(every/10))) // spreads nodes that started together
		if err != nil {
			wait = min(wait, fetchRetry)
			if !failed && ctx.Err() == nil {
				s.mu.Lock()
				fetched := s.fetched
				s.mu.Unlock()
				s.log.Warn("cannot fetch the issuer's keys; the known keys stay in use", "error", err,
					"fetched", fetched)
			}
		} else if failed {
			s.log.Info("issuer's keys fetched again")
		}
		failed = err != nil
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// keyFile is the content of the sealed file on disk.
type keyFile struct {
	Issuer  string          `json:"issuer"`
	Fetched time.Time       `json:"fetched"`
	Keys    json.RawMessage `json:"keys"`
}

func (s *keySet) place() secret.Place {
	return secret.Place{Table: "keysets", Row: s.issuer, Column: "keys"}
}

func (s *keySet) save(raw []byte, at time.Time) error {
	if s.path == "" {
		return nil
	}
	plain, err := json.Marshal(keyFile{s.issuer, at, raw})
	if err != nil {
		return err
	}
	sealed, err := s.sealer.Seal(s.place(), plain)
	if err != nil {
		return err
	}
	return secret.WriteFile(s.path, sealed)
}

// load reads the set from disk. A file that does not open was changed or belongs to another keyring, and is not used.
func (s *keySet) load() {
	sealed, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var f keyFile
	var keys []publicKey
	if err == nil {
		var plain []byte
		if plain, err = s.sealer.Open(s.place(), sealed); err == nil {
			if err = json.Unmarshal(plain, &f); err == nil {
				keys, err = parseKeySet(f.Keys)
			}
		}
	}
	if err != nil {
		s.log.Warn("issuer's keys on disk cannot be used; fetching them again", "file", s.path, "error", err)
		return
	}
	s.keys, s.fetched = keys, f.Fetched
	s.kept, s.keptAt = f.Keys, f.Fetched
}

// remote returns a function that fetches the keys of a remote issuer: discovery (OpenID Connect Discovery 1.0 §4), then
// the key set.
func remote(client *http.Client, rule issuerRule) func(context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) {
		url := rule.keys
		if url == "" {
			raw, err := get(ctx, client, rule.discovery, maxDiscoveryBytes)
			if err != nil {
				return nil, err
			}
			doc, err := strictjson.Parse(raw)
			if err != nil {
				return nil, fmt.Errorf("discovery document %s: %w", rule.discovery, err)
			}
			var r strictjson.Reader
			o := r.Object(doc, "")
			issuer := o.Str("issuer", true)
			url = o.Str("jwks_uri", true)
			if err := r.Err(); err != nil {
				return nil, fmt.Errorf("discovery document %s: %w", rule.discovery, err)
			}
			// §4.3: the document must be the issuer's own.
			if issuer != rule.issuer {
				return nil, fmt.Errorf("discovery document %s is for issuer %q, not for %q", rule.discovery, issuer,
					rule.issuer)
			}
			if err := checkFetchURL(url); err != nil {
				return nil, fmt.Errorf("discovery document %s: jwks_uri: %w", rule.discovery, err)
			}
		}
		return get(ctx, client, url, maxKeySetBytes)
	}
}

func get(ctx context.Context, client *http.Client, url string, most int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %s", url, res.Status)
	}
	raw, err := io.ReadAll(io.LimitReader(res.Body, most+1))
	if err != nil {
		return nil, fmt.Errorf("GET %s: %w", url, err)
	}
	if int64(len(raw)) > most {
		return nil, fmt.Errorf("GET %s: the response has more than %d bytes", url, most)
	}
	return raw, nil
}
