package auth_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/auth"
	"github.com/tandemgw/tandem/internal/platform/db"
	store "github.com/tandemgw/tandem/internal/store/auth"
	"github.com/tandemgw/tandem/internal/testkit"
)

func TestAccessData(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		a := store.New(d)
		ctx := domain.WithActor(t.Context(), domain.Actor{Kind: "administrator", ID: "root"})
		at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
		in := []auth.Client{
			{ID: "c2", Name: "BSS", Roles: []auth.Role{auth.RoleRead, auth.RoleWrite}, Secret: "hash-of-a-secret",
				Created: at, Creator: "root"},
			{ID: "c1", Name: "Other", Roles: []auth.Role{auth.RoleAdmin}, Secret: "x", Created: at.Add(time.Second),
				Creator: "root"},
		}
		for _, c := range in {
			if err := a.AddClient(ctx, c); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.AddClient(ctx, in[0]); err == nil {
			t.Error("a client was added twice")
		}
		in = append(in, auth.Client{ID: "c5", Name: "Same time", Roles: []auth.Role{auth.RoleAdmin}, Secret: "y",
			Created: in[1].Created, Creator: "root"})
		if err := a.AddClient(ctx, in[2]); err != nil {
			t.Fatal(err)
		}
		for i, after := range []string{"", "c2", "c1", "c5"} {
			want := slices.Concat(nil, in[i:min(i+2, len(in))])
			got, err := a.Clients(ctx, after, 2)
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("clients after %q, %v (-want +got):\n%s", after, err, diff)
			}
		}
		for _, when := range []time.Time{at.Add(time.Hour), at.Add(2 * time.Hour)} {
			if err := a.RevokeClient(ctx, "c2", when); err != nil {
				t.Fatal(err)
			}
		}
		in[0].Revoked = at.Add(time.Hour) // the first time counts
		one, err := a.Client(ctx, "c2")
		if diff := cmp.Diff(in[0], one); err != nil || diff != "" {
			t.Errorf("client, %v (-want +got):\n%s", err, diff)
		}
		if _, err := a.Client(ctx, "c3"); !fault.Is(err, fault.NotFound) {
			t.Errorf("Client with an unknown id: %v", err)
		}
		if err := a.RevokeClient(ctx, "c3", at); !fault.Is(err, fault.NotFound) {
			t.Errorf("RevokeClient with an unknown id: %v", err)
		}
		keys := []auth.SigningKey{{ID: "k2", Algorithm: "ES256", Public: []byte(`{}`), Sealed: []byte{0, 1, 255},
			Created: at}, {ID: "k1", Algorithm: "RS256", Public: []byte(`{}`), Sealed: []byte{2},
			Created: at.Add(1000)}}
		for _, k := range keys {
			if err := a.AddSigningKey(ctx, k); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := a.SigningKeys(ctx); err != nil || !cmp.Equal(keys, got) {
			t.Errorf("signing keys, %v (-want +got):\n%s", err, cmp.Diff(keys, got))
		}
		for range 2 {
			if err := a.DeleteSigningKey(ctx, "k2"); err != nil {
				t.Errorf("DeleteSigningKey: %v", err)
			}
		}
		if got, err := a.SigningKeys(ctx); err != nil || !cmp.Equal(keys[1:], got) {
			t.Errorf("signing keys left: %+v, %v", got, err)
		}
		var actions []string
		for _, r := range testkit.AuditLog(t, d) {
			actions = append(actions, r.Action+" "+r.Target+" by "+r.Actor.ID)
			if strings.Contains(r.Summary, "hash-of-a-secret") {
				t.Errorf("the audit log holds a secret's hash: %s", r.Summary)
			}
		}
		want := []string{"client.create c2 by root", "client.create c1 by root", "client.create c5 by root",
			"client.revoke c2 by root", "signingKey.create k2 by root", "signingKey.create k1 by root",
			"signingKey.delete k2 by root"}
		if diff := cmp.Diff(want, actions); diff != "" {
			t.Errorf("audit (-want +got):\n%s", diff)
		}
	})
}

func TestLimitStateIsSwappedByOneAtATime(t *testing.T) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		a := store.New(d)
		ctx := context.WithoutCancel(t.Context())
		if n, err := a.LimitState(ctx, "k"); err != nil || n != 0 {
			t.Fatalf("LimitState of nothing: %d, %v", n, err)
		}
		if ok, err := a.SwapLimitState(ctx, "k", 5, 6); ok || err != nil {
			t.Errorf("swap of what is not stored: %v, %v", ok, err)
		}
		const workers, each = 6, 15
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for done := 0; done < each; {
					n, err := a.LimitState(ctx, "k")
					if err != nil {
						t.Errorf("LimitState: %v", err)
						return
					}
					ok, err := a.SwapLimitState(ctx, "k", n, n+1)
					if err != nil {
						t.Errorf("SwapLimitState: %v", err)
						return
					}
					if ok {
						done++
					}
				}
			})
		}
		wg.Wait()
		if n, err := a.LimitState(ctx, "k"); err != nil || n != workers*each {
			t.Errorf("%d, %v after %d swaps", n, err, workers*each)
		}
	})
}
