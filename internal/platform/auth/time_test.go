package auth

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
)

// TestUnknownKeyIDs: a new key is found at once, and invented key ids cause at most one fetch per pause.
func TestUnknownKeyIDs(t *testing.T) {
	signingKeys()
	synctest.Test(t, func(t *testing.T) {
		raw := mustKeySet(t, "rsa1")
		fetches := 0
		s := newKeySet("i", func(context.Context) ([]byte, error) { fetches++; return raw, nil }, nil, "",
			time.Hour*24, quiet())
		find := func(kid string) int {
			t.Helper()
			k, err := s.known(t.Context(), kid, "RS256")
			if err != nil {
				t.Fatal(err)
			}
			return k
		}
		if find("rsa1") != 1 || fetches != 1 {
			t.Fatalf("first use: %d fetches, want 1", fetches)
		}
		for range 100 {
			if find("invented") != 0 {
				t.Fatal("an invented key id has a key")
			}
		}
		if fetches > fetchBurst {
			t.Errorf("100 invented key ids and a first use made %d fetches, want at most %d", fetches, fetchBurst)
		}
		before := fetches
		raw = mustKeySet(t, "rsa1", "rsa2")
		time.Sleep(fetchPause + time.Second)
		if find("rsa2") != 1 || fetches != before+1 {
			t.Errorf("a new key is not found after the pause (%d fetches)", fetches-before)
		}
		raw = mustKeySet(t, "rsa2")
		time.Sleep(fetchPause + time.Second)
		if find("other") != 0 || find("rsa1") != 0 {
			t.Error("a withdrawn key is still used after the set was fetched without it")
		}
	})
}

func TestKeysRunOutWithoutTheirIssuer(t *testing.T) {
	signingKeys()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		down := false
		s := newKeySet("i", func(context.Context) ([]byte, error) {
			mu.Lock()
			defer mu.Unlock()
			if down {
				return nil, errors.New("connection refused")
			}
			return mustKeySet(t, "rsa1"), nil
		}, nil, "", 48*time.Hour, quiet())
		ctx, stop := context.WithCancel(t.Context())
		var done sync.WaitGroup
		done.Go(func() { s.run(ctx, time.Hour) })
		defer func() { stop(); done.Wait() }()
		synctest.Wait()
		setDown := func(d bool) { mu.Lock(); down = d; mu.Unlock() }

		time.Sleep(100 * time.Hour) // kept fresh all the time
		if k, err := s.known(t.Context(), "rsa1", "RS256"); err != nil || k != 1 {
			t.Fatalf("a key kept fresh is not found: %v", err)
		}
		setDown(true)
		time.Sleep(40 * time.Hour)
		if k, err := s.known(t.Context(), "rsa1", "RS256"); err != nil || k != 1 {
			t.Errorf("a key is not used during the outage: %v", err)
		}
		if _, err := s.known(t.Context(), "new", "RS256"); err != nil {
			t.Errorf("an unknown key id during the outage = %v; want no error, because the known set decides", err)
		}
		time.Sleep(10 * time.Hour)
		if _, err := s.known(t.Context(), "rsa1", "RS256"); !errors.Is(err, errNoKeys) {
			t.Errorf("a key older than maxKeyAge = %v, want errNoKeys", err)
		}
		setDown(false)
		time.Sleep(2 * fetchRetry)
		if k, err := s.known(t.Context(), "rsa1", "RS256"); err != nil || k != 1 {
			t.Errorf("the issuer is available again but its key is not: %v", err)
		}
	})
}

// rotateKey creates a new signing key.
func rotateKey(ctx context.Context, i *Issuer) error {
	if err := i.addKey(ctx); err != nil {
		return err
	}
	return i.keys.refresh(ctx)
}

// TestKeyRotation: at any time every token that has not expired verifies on a second node, and old keys are deleted.
func TestKeyRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, ring := &memory{}, keyring(t)
		cfg := Default()
		cfg.Embedded.KeyLifetime = 24 * time.Hour
		node := func() (*Issuer, *Verifier) {
			i := NewIssuer(cfg.Embedded, m, NewClients(m), Deps{Log: quiet(), Keyring: ring})
			return i, verifier(t, cfg, i, Deps{})
		}
		i1, v1 := node()
		i2, v2 := node()
		ctx, stop := context.WithCancel(t.Context())
		var done sync.WaitGroup
		for _, i := range []*Issuer{i1, i2} {
			done.Go(func() { _ = i.Run(ctx) }) // always nil
		}
		defer func() { stop(); done.Wait() }()
		type token struct {
			text    string
			expires time.Time
		}
		var live []token
		kids := map[string]bool{}
		for step := range 24 * 3 * 4 { // three days, a token every 15 minutes, a rotation by hand in between
			issuer := i1
			if step%2 == 1 {
				issuer = i2
			}
			s, expires, err := issuer.IssueToken(t.Context(), "test", RoleRead)
			if err != nil {
				t.Fatal(err)
			}
			live = append(live, token{s.Reveal(), expires})
			if step == 30 {
				if err := rotateKey(t.Context(), i1); err != nil {
					t.Fatal(err)
				}
			}
			for _, l := range live {
				if time.Now().After(l.expires) {
					continue
				}
				for _, v := range []*Verifier{v1, v2} {
					if _, err := v.Verify(t.Context(), l.text); err != nil {
						t.Fatalf("step %d: a token that expires %v from now: %v", step, time.Until(l.expires), err)
					}
				}
			}
			stored, err := m.SigningKeys(t.Context())
			if err != nil || len(stored) > 4 {
				t.Fatalf("step %d: %d keys are kept, %v", step, len(stored), err)
			}
			for _, k := range stored {
				kids[k.ID] = true
			}
			time.Sleep(15 * time.Minute)
		}
		if len(kids) < 4 {
			t.Errorf("%d keys were created in three days with a lifetime of one day and one rotation by hand, "+
				"want at least 4", len(kids))
		}
		if _, err := v1.Verify(t.Context(), live[0].text); code(err) != CodeInvalidToken &&
			code(err) != CodeExpiredToken {
			t.Errorf("a token of three days ago = %v", err)
		}
	})
}

// TestNewKeysArePublishedBeforeTheySign: other systems that verify our tokens cache our key set; a key that signed at
// once would be unknown to them.
func TestNewKeysArePublishedBeforeTheySign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		i := NewIssuer(Default().Embedded, m, NewClients(m), Deps{Log: quiet(), Keyring: keyring(t)})
		kid := func() string {
			t.Helper()
			s, _, err := i.IssueToken(t.Context(), "test", RoleRead)
			if err != nil {
				t.Fatal(err)
			}
			tok, err := parseToken(s.Reveal())
			if err != nil {
				t.Fatal(err)
			}
			return tok.kid
		}
		first := kid() // the very first key signs at once: there is no other
		time.Sleep(time.Hour)
		if err := rotateKey(t.Context(), i); err != nil {
			t.Fatal(err)
		}
		time.Sleep(keyPublish - time.Second)
		if kid() != first {
			t.Errorf("the new key signs before it has been published for %v", keyPublish)
		}
		time.Sleep(signerFresh + 2*time.Second)
		if kid() == first {
			t.Errorf("the old key still signs %v after the new one was made", keyPublish+signerFresh)
		}
	})
}

// TestANodeCreatesOneFirstKey: the first token may be asked for while the node starts.
func TestANodeCreatesOneFirstKey(t *testing.T) {
	for range 100 {
		m := &memory{}
		i := NewIssuer(Default().Embedded, m, NewClients(m), Deps{Log: quiet(), Keyring: keyring(t)})
		var wg sync.WaitGroup
		for _, f := range []func() error{
			func() error { return i.tend(t.Context()) },
			func() error { return i.keys.refresh(t.Context()) },
			func() error { _, _, err := i.IssueToken(t.Context(), "test", RoleRead); return err },
		} {
			wg.Go(func() {
				if err := f(); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(m.keys) != 1 {
			t.Fatalf("%d signing keys, want 1", len(m.keys))
		}
	}
}

// TestARoleInShortIsIssuedInFull: a token carries what the APIs compare.
func TestARoleInShortIsIssuedInFull(t *testing.T) {
	m, cfg := &memory{}, Default()
	i := NewIssuer(cfg.Embedded, m, NewClients(m), Deps{Log: quiet(), Keyring: keyring(t)})
	text, _, err := i.IssueToken(t.Context(), "test", "read")
	if err != nil {
		t.Fatal(err)
	}
	if p, err := verifier(t, cfg, i, Deps{}).Verify(t.Context(), text.Reveal()); err != nil ||
		len(p.Roles) != 1 || p.Roles[0] != RoleRead {
		t.Errorf("roles %+v, %v; want %s", p, err, RoleRead)
	}
}

// TestSealAgain: every private key that the keyring opens needs the present key only; others stay as they are.
func TestSealAgain(t *testing.T) {
	m, ring := &memory{}, keyring(t)
	i := NewIssuer(Default().Embedded, m, NewClients(m), Deps{Log: quiet(), Keyring: ring})
	for range 2 {
		if err := i.addKey(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	i.keyring = keyring(t)
	if err := i.addKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	before, err := m.SigningKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if sealed, unreadable, err := SealAgain(t.Context(), m, ring); err != nil || sealed != 2 || unreadable != 1 {
		t.Errorf("SealAgain: %d sealed, %d unreadable, %v", sealed, unreadable, err)
	}
	for n, k := range m.keys {
		changed, ours := !bytes.Equal(k.Sealed, before[n].Sealed), n < 2
		if _, err := ring.Open(signingPlace(k.ID), k.Sealed); changed != ours || (err == nil) != ours {
			t.Errorf("key %d: changed %v, %v", n, changed, err)
		}
	}
	m.setDown(true)
	if _, _, err := SealAgain(t.Context(), m, ring); !fault.Is(err, fault.Unavailable) {
		t.Errorf("without the database: %v", err)
	}
}

func TestIssuerWithoutDatabase(t *testing.T) {
	m, ring, dir := &memory{}, keyring(t), t.TempDir()
	cfg := Default()
	node := func() (*Issuer, *Verifier) {
		i := NewIssuer(cfg.Embedded, m, NewClients(m), Deps{Log: quiet(), Keyring: ring, CacheDir: dir})
		return i, verifier(t, cfg, i, Deps{})
	}
	i, v := node()
	s, _, err := i.IssueToken(t.Context(), "test", RoleRead)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(t.Context(), s.Reveal()); err != nil {
		t.Fatal(err)
	}
	m.setDown(true)
	i, v = node() // a restart while the database is unavailable
	if _, err := v.Verify(t.Context(), s.Reveal()); err != nil {
		t.Errorf("Verify after a restart without the database: %v", err)
	}
	if _, _, err := i.IssueToken(t.Context(), "test", RoleRead); !fault.Is(err, fault.Unavailable) {
		t.Errorf("IssueToken without the database = %v, want unavailable", err)
	}
}

// TestALostKeyringStopsNoSignIn: the keys in the store no longer open; issued tokens stay valid.
func TestALostKeyringStopsNoSignIn(t *testing.T) {
	m, cfg := &memory{}, Default()
	var log strings.Builder
	node := func(l *slog.Logger) (*Issuer, *Verifier) {
		i := NewIssuer(cfg.Embedded, m, NewClients(m), Deps{Log: l, Keyring: keyring(t)})
		return i, verifier(t, cfg, i, Deps{})
	}
	first, _ := node(quiet())
	old, _, err := first.IssueToken(t.Context(), "test", RoleRead)
	if err != nil {
		t.Fatal(err)
	}
	second, v := node(slog.New(slog.NewTextHandler(&log, nil)))
	fresh, _, err := second.IssueToken(t.Context(), "test", RoleRead)
	if err != nil {
		t.Fatalf("IssueToken with another keyring: %v", err)
	}
	for _, tok := range []string{old.Reveal(), fresh.Reveal()} {
		if _, err := v.Verify(t.Context(), tok); err != nil {
			t.Errorf("Verify: %v", err)
		}
	}
	if !contains(log.String(), "level=ERROR") || !contains(log.String(), "same keyring") {
		t.Errorf("the log does not report it: %s", &log)
	}
	if err := second.tend(t.Context()); err != nil || len(m.keys) != 2 {
		t.Errorf("after tending there are %d keys (%v), want 2", len(m.keys), err)
	}
	if _, _, err := second.IssueToken(t.Context(), "test", RoleRead); err != nil ||
		strings.Count(log.String(), "level=ERROR") != 1 {
		t.Errorf("again: %v\n%s", err, &log)
	}
	third, v := node(quiet())
	if err := third.tend(t.Context()); err != nil || len(m.keys) != 3 {
		t.Errorf("a node that tends first has %d keys (%v), want 3", len(m.keys), err)
	}
	if _, err := v.Verify(t.Context(), old.Reveal()); err != nil {
		t.Errorf("Verify on it: %v", err)
	}
}

func TestRevokedClientsTokensStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		cfg := Default()
		// Two nodes share the store; the client is revoked on the other.
		c1, c2 := NewClients(m), NewClients(m)
		i := NewIssuer(cfg.Embedded, m, c1, Deps{Log: quiet(), Keyring: keyring(t)})
		v := verifier(t, cfg, i, Deps{})
		cl, secretText, err := c1.Create(t.Context(), " BSS ", []Role{RoleWrite, RoleRead, RoleRead})
		if err != nil || cl.Name != "BSS" || len(cl.Roles) != 2 || cl.Secret != "" {
			t.Fatalf("Create = %+v, %v", cl, err)
		}
		if m.clients[0].Secret == "" || contains(m.clients[0].Secret, secretText.Reveal()) {
			t.Error("the stored client holds no hash, or the secret itself")
		}
		tok, _, err := i.issue(t.Context(), cl.ID, cl.Roles)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.Verify(t.Context(), tok.Reveal()); err != nil {
			t.Fatal(err)
		}
		asked := m.asked
		for range 50 {
			if _, err := v.Verify(t.Context(), tok.Reveal()); err != nil {
				t.Fatal(err)
			}
		}
		if m.asked != asked {
			t.Errorf("50 checks asked the store %d times, want the client to be remembered", m.asked-asked)
		}
		if err := c2.Revoke(t.Context(), cl.ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(clientMemory)
		if _, err := v.Verify(t.Context(), tok.Reveal()); code(err) != CodeInvalidToken ||
			!contains(err.Error(), "revoked") {
			t.Errorf("Verify %v after the client was revoked = %v", clientMemory, err)
		}
		m.setDown(true)
		time.Sleep(time.Minute)
		if _, err := v.Verify(t.Context(), tok.Reveal()); code(err) != CodeInvalidToken {
			t.Errorf("a revoked client is accepted again while the store is unavailable: %v", err)
		}
		m.setDown(false)
		if err := c1.Revoke(t.Context(), "unknown"); code(err) != CodeClientNotFound {
			t.Errorf("Revoke of an unknown client = %v", err)
		}
		for _, name := range []string{"", "a\nb"} {
			if _, _, err := c1.Create(t.Context(), name, []Role{RoleRead}); code(err) != CodeInvalidClientName {
				t.Errorf("Create(%q) = %v, want %s", name, err, CodeInvalidClientName)
			}
		}
	})
}

func TestLimiterSharedByTwoNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		a := NewLimiter(m, "api", 100, time.Minute, quiet(), nil)
		b := NewLimiter(m, "api", 100, time.Minute, quiet(), nil)
		allowed := 0
		for i := range 400 {
			l := a
			if i%3 == 0 {
				l = b
			}
			if l.Allow(t.Context()) == 0 {
				allowed++
			}
		}
		if allowed != 100 {
			t.Fatalf("%d of 400 requests at once were allowed on two nodes, want 100", allowed)
		}
		wait := a.Allow(t.Context())
		if wait <= 0 || wait > time.Second {
			t.Fatalf("told to wait %v, want up to 600ms", wait)
		}
		asked := m.asked
		for range 1000 {
			a.Allow(t.Context())
		}
		if m.asked != asked {
			t.Errorf("a flood that is refused anyway asked the store %d times", m.asked-asked)
		}
		time.Sleep(wait)
		if a.Allow(t.Context()) != 0 {
			t.Error("still refused after waiting for the time returned")
		}
		if b.Allow(t.Context()) == 0 {
			t.Error("the other node does not know of the request just allowed")
		}
		time.Sleep(30 * time.Second)
		allowed = 0
		for range 200 {
			if b.Allow(t.Context()) == 0 {
				allowed++
			}
		}
		if allowed != 50 {
			t.Errorf("%d requests allowed after half a period, want 50", allowed)
		}
	})
}

func TestLimiterConcurrently(t *testing.T) {
	m := &memory{}
	var mu sync.Mutex
	allowed := 0
	var wg sync.WaitGroup
	for range 4 {
		l := NewLimiter(m, "api", 100, time.Hour, quiet(), nil)
		for range 4 {
			wg.Go(func() {
				for range 20 {
					if wait, by := l.allow(t.Context()); wait == 0 && by == "shared" {
						mu.Lock()
						allowed++
						mu.Unlock()
					}
				}
			})
		}
	}
	wg.Wait()
	if allowed > 100 {
		t.Errorf("%d requests were allowed by the shared limit of 100", allowed)
	}
	if allowed < 100 {
		t.Errorf("only %d requests were allowed by the shared limit of 100", allowed)
	}
}

func TestLimiterWithoutStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		l := NewLimiter(m, "api", 100, time.Minute, quiet(), nil)
		m.setDown(true)
		allowed := 0
		for range 300 {
			if l.Allow(t.Context()) == 0 {
				allowed++
			}
		}
		if allowed != 100 {
			t.Errorf("%d requests allowed locally, want 100", allowed)
		}
		m.setDown(false)
		for i := range 100 {
			if l.Allow(t.Context()) != 0 {
				t.Fatalf("request %d: the shared limit is not used when the store is available again", i+1)
			}
		}
		m.setDown(true)
		if l.Allow(t.Context()) == 0 {
			t.Error("requests allowed by the shared limit do not count when the store becomes unavailable")
		}
		m.setDown(false)
		alone := NewLimiter(nil, "api", 2, time.Minute, quiet(), nil)
		for i, want := range []bool{true, true, false} {
			if got := alone.Allow(t.Context()) == 0; got != want {
				t.Errorf("request %d of a limit of two on a single node: allowed %v, want %v", i+1, got, want)
			}
		}
		// A clock that was a day ahead must not block all requests.
		if _, err := m.SwapLimitState(t.Context(), "k", 0, time.Now().Add(24*time.Hour).UnixMicro()); err != nil {
			t.Fatal(err)
		}
		if NewLimiter(m, "k", 2, time.Minute, quiet(), nil).Allow(t.Context()) != 0 {
			t.Error("a number far in the future blocks all requests")
		}
	})
}

func TestThrottleForgetsAndIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewSourceLimiter(maxFailures)
		a := netip.MustParseAddr("192.0.2.1")
		for range maxFailures {
			if g.blocked(a) > 0 {
				t.Fatal("blocked too early")
			}
			g.failed(a)
		}
		wait := g.blocked(a)
		if wait <= 0 || g.blocked(netip.MustParseAddr("192.0.2.2")) > 0 {
			t.Fatalf("not blocked after %d failures, or the neighbour is", maxFailures)
		}
		time.Sleep(wait)
		if g.blocked(a) > 0 {
			t.Error("still blocked after waiting for the time returned")
		}
		for i := range byte(maxFailures) {
			g.failed(netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: i}))
		}
		if g.blocked(netip.MustParseAddr("2001:db8::f")) == 0 || g.blocked(netip.MustParseAddr("2001:db8:0:1::1")) > 0 {
			t.Error("an IPv6 /64 is not counted as one")
		}
		for i := range 3 * maxSources {
			g.failed(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
		}
		if len(g.sources) > maxSources {
			t.Errorf("%d addresses are remembered, want at most %d", len(g.sources), maxSources)
		}
	})
}
