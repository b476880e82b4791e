package auth

import (
	"crypto"
	"encoding/json"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/time/rate"

	"github.com/tandemgw/tandem/internal/domain/fault"
)

// FuzzVerify: only a token that was signed for us is accepted, and every refusal is a fault with one of our codes.
func FuzzVerify(f *testing.F) {
	key := signingKeys()["p256"]
	s := newKeySet("https://i.example", nil, nil, "", time.Hour, quiet())
	keys, err := parseKeySet(mustKeySet(f, "p256", "rsa1"))
	if err != nil {
		f.Fatal(err)
	}
	s.keys, s.fetched, s.fetches = keys, time.Now(), rate.NewLimiter(0, 0) // never fetches
	cfg := Default()
	v := verifier(f, cfg, nil, Deps{})
	v.issuers["https://i.example"] = &trusted{issuerRule{issuer: "https://i.example", audiences: []string{"us"},
		algorithms: defaultAlgorithms}, s}
	good := map[string]bool{}
	for _, c := range []map[string]any{
		{"iss": "https://i.example", "aud": "us", "sub": "s", "exp": time.Now().Add(100 * time.Hour).Unix(),
			"roles": []string{"ProvisioningAPI.Read"}},
		{"iss": "https://i.example", "aud": []string{"us"}, "azp": "s", "exp": time.Now().Add(100 * time.Hour).Unix()},
	} {
		tok := sign(f, jwt.SigningMethodES256, key, map[string]any{"kid": "p256"}, c)
		if _, err := v.Verify(f.Context(), tok); err != nil {
			f.Fatal(err)
		}
		good[tok] = true
		f.Add(tok)
	}
	f.Add(sign(f, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil,
		map[string]any{"iss": "https://i.example", "aud": "us", "sub": "s", "exp": 4e9}))
	f.Add("eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJodHRwczovL2kuZXhhbXBsZSJ9.")
	f.Add("..")
	f.Fuzz(func(t *testing.T, token string) {
		p, err := v.Verify(t.Context(), token)
		if err == nil {
			// ECDSA signatures have spare bits in the last character of base64: what counts is the principal.
			if p.Issuer != "https://i.example" || p.ClientID != "s" || !p.Expires.After(time.Now()) {
				t.Fatalf("Verify(%q) proves %+v", token, p)
			}
			return
		}
		if good[token] {
			t.Fatalf("Verify of a good token = %v", err)
		}
		if e := fault.As(err); e.Kind != fault.Unauthenticated && e.Kind != fault.Unavailable || len(e.Message) > 500 {
			t.Fatalf("Verify(%q) = %v (%v): not a short fault of ours", token, err, e.Kind)
		}
	})
}

// FuzzKeySet: a key set is read or refused; what was read can be written and read again as the same key.
func FuzzKeySet(f *testing.F) {
	f.Add(string(mustKeySet(f, "p256", "p384")))
	f.Add(string(mustKeySet(f, "rsa1")))
	f.Add(`{"keys":[{"kty":"oct","k":"AA"},{"kty":"EC","crv":"P-256","x":"","y":""},7]}`)
	f.Add(`{"keys":{}}`)
	f.Fuzz(func(t *testing.T, raw string) {
		keys, err := parseKeySet([]byte(raw))
		if err != nil {
			return
		}
		if len(keys) == 0 || len(keys) > maxKeys {
			t.Fatalf("parseKeySet(%q) gives %d keys and no error", raw, len(keys))
		}
		for _, k := range keys {
			j, err := encodeKey(k.id, k.alg, k.key)
			if err != nil {
				t.Fatal(err)
			}
			again, err := parseKeySet([]byte(`{"keys":[` + string(j) + `]}`))
			if err != nil {
				t.Fatalf("the key %s written as %s is refused: %v", raw, j, err)
			}
			if eq, ok := k.key.(interface{ Equal(x crypto.PublicKey) bool }); !ok || !eq.Equal(again[0].key) {
				t.Fatalf("the key of %s came back as another one", raw)
			}
			if !json.Valid(j) {
				t.Fatalf("%s is not JSON", j)
			}
		}
	})
}
