package tenants_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/platform/secret"
	store "github.com/tandemgw/tandem/internal/store/tenants"
	"github.com/tandemgw/tandem/internal/tenants/invite"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/testkit"
)

const tenantID = "11111111-0000-4000-8000-000000000001"

// accessBed is a store with the keyring that it seals with.
type accessBed struct {
	t    *testing.T
	d    *db.DB
	ring *secret.Keyring
	s    store.Access
	work *flow.Queue
}

func eachEngine(t *testing.T, fn func(b *accessBed)) {
	t.Parallel()
	testkit.Engines(t, func(t *testing.T, d *db.DB) {
		ring, err := secret.Ephemeral()
		if err != nil {
			t.Fatal(err)
		}
		q := flow.New(d, func(context.Context, *db.Tx, flow.Item) error { return nil }, slog.New(slog.DiscardHandler),
			nil)
		fn(&accessBed{t, d, ring, store.Access{Store: store.New(d, ring, q, nil)}, q})
	})
}

func (b *accessBed) update(fn func(ctx context.Context, tx invite.Tx) error) {
	b.t.Helper()
	if err := b.s.Update(b.t.Context(), nil, fn); err != nil {
		b.t.Fatal(err)
	}
}

func moment(s int64) time.Time {
	return time.Now().Add(time.Duration(s) * time.Second).UTC().Truncate(time.Microsecond)
}

func TestInvitationsAndSessions(t *testing.T) {
	eachEngine(t, func(b *accessBed) {
		t := b.t
		want := &invite.Invitation{Account: "contoso", Hash: "h1", Tenant: tenantID, Created: moment(0),
			CreatedBy: "client:x",
			Expires:   moment(60)}
		b.update(func(ctx context.Context, tx invite.Tx) error { return tx.SetInvitation(ctx, want) })
		b.update(func(ctx context.Context, tx invite.Tx) error {
			for _, read := range []func() (*invite.Invitation, error){
				func() (*invite.Invitation, error) { return tx.Invitation(ctx, "contoso") },
				func() (*invite.Invitation, error) { return tx.InvitationBy(ctx, "h1") }} {
				got, err := read()
				if diff := cmp.Diff(want, got); diff != "" || err != nil {
					t.Errorf("invitation differs (-want +got), %v:\n%s", err, diff)
				}
			}
			other, err := tx.InvitationBy(ctx, "h2")
			if other != nil {
				t.Errorf("an unknown hash has %+v", other)
			}
			return err
		})

		for i := range invite.MaxSessions + 5 {
			b.update(func(ctx context.Context, tx invite.Tx) error {
				return tx.SetSession(ctx, &invite.Session{ID: fmt.Sprint("s", i), Account: "contoso",
					Created: moment(int64(i)),
					Expires: moment(3600), CSRF: "c", Attempt: &invite.Attempt{Step: invite.Integrate, State: "state",
						Secret: secret.New("verifier")}})
			})
		}
		b.update(func(ctx context.Context, tx invite.Tx) error {
			return tx.SetSession(ctx, &invite.Session{ID: "old", Account: "contoso", Created: moment(-10),
				Expires: moment(-1)})
		})
		b.update(func(ctx context.Context, tx invite.Tx) error {
			kept := []string{}
			for i := range invite.MaxSessions + 5 {
				s, err := tx.Session(ctx, fmt.Sprint("s", i))
				if err != nil {
					return err
				}
				if s == nil {
					continue
				}
				kept = append(kept, s.ID)
				if s.Attempt.Secret.Reveal() != "verifier" || s.CSRF != "c" || s.Account != "contoso" {
					t.Errorf("session read back as %+v", s)
				}
			}
			if len(kept) > invite.MaxSessions || !slices.Contains(kept, fmt.Sprint("s", invite.MaxSessions+4)) ||
				slices.Contains(kept, "s0") {
				t.Errorf("kept %v; want the newest %d", kept, invite.MaxSessions)
			}
			s, err := tx.Session(ctx, "old")
			if s != nil {
				t.Error("an expired session was read")
			}
			return err
		})

		b.update(func(ctx context.Context, tx invite.Tx) error { return tx.RemoveInvitation(ctx, "contoso") })
		b.update(func(ctx context.Context, tx invite.Tx) error {
			i, err := tx.Invitation(ctx, "contoso")
			s, err2 := tx.Session(ctx, fmt.Sprint("s", invite.MaxSessions))
			if i != nil || s != nil || err != nil || err2 != nil {
				t.Errorf("after the revocation: %+v, %+v, %v, %v", i, s, err, err2)
			}
			return nil
		})
	})
}

func TestAccessAndItsToken(t *testing.T) {
	eachEngine(t, func(b *accessBed) {
		t := b.t
		want := &invite.Access{Account: "contoso", Tenant: tenantID, Mode: invite.Delegated, Consented: moment(0),
			Person: &invite.Person{ID: "p", Name: "svc", Roles: []string{"r"}}, Due: moment(-5)}
		b.update(func(ctx context.Context, tx invite.Tx) error {
			return tx.SetAccess(ctx, want,
				secret.New("token-1"))
		})
		b.update(func(ctx context.Context, tx invite.Tx) error {
			got, err := tx.Access(ctx, "contoso")
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("access differs (-want +got), %v:\n%s", err, diff)
			}
			account, err := tx.Connected(ctx, tenantID)
			if account != "contoso" || err != nil {
				t.Errorf("Connected = %q, %v", account, err)
			}
			return err
		})
		if due, err := b.s.Due(t.Context(), time.Now(), "", 10); err != nil || !slices.Equal(due, []string{"contoso"}) {
			t.Errorf("due: %v, %v", due, err)
		}

		// A refresh that began before a person signed in again does not undo the sign-in.
		early, late := b.s.Tokens("contoso"), b.s.Tokens("contoso")
		for _, k := range []*store.Tokens{early, late} {
			if got, err := k.RefreshToken(t.Context()); err != nil || got.Reveal() != "token-1" {
				t.Fatalf("RefreshToken: %v, %v", got == secret.New("token-1"), err)
			}
		}
		if err := late.KeepRefreshToken(t.Context(), secret.New("token-2")); err != nil {
			t.Fatal(err)
		}
		if err := early.KeepRefreshToken(t.Context(), secret.New("token-1b")); err != nil {
			t.Fatal(err)
		}
		if got, err := early.RefreshToken(t.Context()); err != nil || got.Reveal() != "token-2" {
			t.Errorf("the newest token is lost: %v", err)
		}
		b.update(func(ctx context.Context, tx invite.Tx) error { return tx.SetAccess(ctx, want, nil) })
		if got, _ := early.RefreshToken(t.Context()); got.Reveal() != "token-2" {
			t.Error("storing the access without a token lost the token")
		}

		var sealed []byte
		read := func() []byte {
			err := b.d.View(t.Context(), func(ctx context.Context, tx *db.Tx) error {
				_, err := tx.QueryRow(ctx, "SELECT sealed FROM tenant_access WHERE account = 'contoso'", nil, &sealed)
				return err
			})
			if err != nil || bytes.Contains(sealed, []byte("token-2")) {
				t.Errorf("stored as %q, %v", sealed, err)
			}
			return sealed
		}
		before := read()
		n, unreadable, err := b.s.SealAgain(t.Context())
		if n != 1 || unreadable != 0 || err != nil || bytes.Equal(before, read()) {
			t.Errorf("SealAgain = %d, %d, %v", n, unreadable, err)
		}
		if got, _ := late.RefreshToken(t.Context()); got.Reveal() != "token-2" {
			t.Error("SealAgain lost the token")
		}

		err = b.s.Store.Update(t.Context(), nil, "contoso", "", func(ctx context.Context,
			tx onboard.Tx) error {
			return tx.DeleteTenant(ctx)
		})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := late.RefreshToken(t.Context()); got.Reveal() != "" || err != nil {
			t.Errorf("after the tenant was deleted: a token, %v", err)
		}
	})
}

// Work that waits for a person runs again after a sign-in; a tenant without work gets none.
func TestWorkContinues(t *testing.T) {
	eachEngine(t, func(b *accessBed) {
		t := b.t
		s := b.s.Store
		for account, pending := range map[string]bool{"waits": true, "rests": false} {
			err := s.Update(t.Context(), nil, account, "", func(ctx context.Context, tx onboard.Tx) error {
				return tx.SetTenant(ctx, &onboard.Tenant{Account: account, Pending: pending})
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		for _, account := range []string{"waits", "rests", "unknown"} {
			b.update(func(ctx context.Context, tx invite.Tx) error { return tx.Continue(ctx, account) })
		}
		items, err := b.work.List(t.Context(), "", "", flow.Key{}, 10)
		if err != nil || len(items) != 1 || items[0].Key != (flow.Key{Kind: onboard.Kind, ID: "waits"}) {
			t.Errorf("enqueued: %+v, %v; want the tenant that waits", items, err)
		}
	})
}
