package entra_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/entra"
)

// mustToken fails the test unless the source gives want.
func mustToken(t *testing.T, s *entra.Source, want string) {
	t.Helper()
	got, err := s.Token(t.Context())
	if err != nil || got.Reveal() != want {
		t.Fatalf("Token() = %q, %v; want %q", got.Reveal(), err, want)
	}
}

// tenant-cases 1: twice 65001 after our own consent, then a token without the new permission, then a whole one.
func TestFreshConsentIsAWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app, l := newApp(t)
		source := app.Connect(tenantID, nil, time.Now()).Source(graph, "Organization.Read.All", "Domain.ReadWrite.All")
		whole := withRoles("whole", "Organization.Read.All", "Domain.ReadWrite.All")
		notYet := refusal("invalid_grant", 65001, "The user or administrator has not consented to use the application.")
		l.answer(notYet, notYet, token(withRoles("part", "Organization.Read.All"), ""), token(whole, ""))

		for i := range 3 {
			_, err := source.Token(t.Context())
			f := fault.As(err)
			if outcome(err).Outcome != entra.Wait || f.RetryAfter <= 0 || f.RetryAfter > time.Minute {
				t.Fatalf("call %d: %v after %v; want a wait", i, err, f.RetryAfter)
			}
			time.Sleep(f.RetryAfter)
		}
		mustToken(t, source, whole)
		if n := len(l.asked()); n != 4 {
			t.Errorf("%d requests, want 4: the incomplete token must not be cached", n)
		}
	})
}

func TestLaterTheSameAnswersAreNoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app, l := newApp(t)
		source := app.Connect(tenantID, nil, time.Now()).Source(graph, "Domain.ReadWrite.All")
		time.Sleep(10 * time.Minute)

		l.answer(refusal("invalid_grant", 65001, "not consented"))
		_, err := source.Token(t.Context())
		if outcome(err).Outcome != entra.ConsentNeeded || !fault.Is(err, fault.Conflict) {
			t.Errorf("65001 ten minutes after the consent: %v; want step 1", err)
		}

		// Readiness names what is missing; it needs the token for that.
		part := withRoles("part", "Organization.Read.All")
		l.answer(token(part, ""))
		mustToken(t, source, part)
	})
}

// tenant-cases 3: the code decides, whatever "error" says; the lifetime is shown; nothing is retried.
func TestSignInFrequencyNeedsSignIn(t *testing.T) {
	for _, oauth := range []string{"invalid_grant", "interaction_required"} {
		synctest.Test(t, func(t *testing.T) {
			app, l := newApp(t)
			kept := &store{newest: "r1"}
			source := app.Connect(tenantID, kept, time.Time{}).Source(graph)
			l.answer(refusal(oauth, 70043, "The refresh token has expired or is invalid due to sign-in frequency "+
				"checks by conditional access. The token was issued on … and the maximum allowed lifetime for this "+
				"request is 3600.", "suberror", "token_expired"))

			for range 5 {
				_, err := source.Token(t.Context())
				ref := outcome(err)
				if ref.Outcome != entra.SignInNeeded || ref.Code != 70043 || ref.Lifetime != time.Hour {
					t.Fatalf("%s: %+v; want a sign-in, lifetime 1 h", oauth, ref)
				}
				if m := fault.As(err).Message; !strings.Contains(m, "1h0m0s") || !strings.Contains(m, "exclude") ||
					!strings.Contains(m, "certificate") {
					t.Errorf("%s: message %q; want the lifetime and both remedies", oauth, m)
				}
			}
			if n := len(l.asked()); n != 1 {
				t.Errorf("%s: %d requests, want 1", oauth, n)
			}

			kept.newest = "r2" // a person signed in
			l.answer(token("a2", "r3"))
			mustToken(t, source, "a2")
		})
	}
}

func TestRefusedRefreshTokenIsTriedAgainLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app, l := newApp(t)
		source := app.Connect(tenantID, &store{newest: "r1"}, time.Time{}).Source(graph)
		l.answer(refusal("invalid_grant", 50057, "The user account is disabled."))
		if _, err := source.Token(t.Context()); outcome(err).Outcome != entra.SignInNeeded {
			t.Fatal(err)
		}
		time.Sleep(15 * time.Minute) // the account is enabled again

		l.answer(token("a1", "r2"))
		mustToken(t, source, "a1")
	})
}

// The header of tenant-cases 4, with one value unquoted.
const claimsHeader = `Bearer realm="", authorization_uri=https://login.example/common/oauth2/authorize, ` +
	`client_id="00000003-0000-0000-c000-000000000000", error="insufficient_claims", ` +
	`claims="eyJhY2Nlc3NfdG9rZW4iOnsibmJmIjp7ImVzc2VudGlhbCI6dHJ1ZSwidmFsdWUiOiIxNzk1ODY0NDE3In19fQ=="`

const claimsText = `{"access_token":{"nbf":{"essential":true,"value":"1795864417"}}}`

// tenant-cases 4: the token is dropped at once, and the next is asked for with the claims.
func TestClaimsChallengeRefreshesWithTheClaims(t *testing.T) {
	app, l := newApp(t)
	kept := &store{newest: "r1"}
	source := app.Connect(tenantID, kept, time.Time{}).Source(graph)
	l.answer(token("a1", "r2"), token("a2", "r3"))
	mustToken(t, source, "a1")
	first, _ := source.Token(t.Context())

	source.Refused(first, claimsHeader)
	mustToken(t, source, "a2")
	asked := l.asked()
	if len(asked) != 2 || asked[0].Has("claims") || asked[1].Get("claims") != claimsText {
		t.Fatalf("claims of the requests = %q; want none, then %s", asked, claimsText)
	}
	if asked[1].Get("refresh_token") != "r2" || kept.newest != "r3" {
		t.Errorf("refreshed with %q, kept %q; want r2, r3", asked[1].Get("refresh_token"), kept.newest)
	}

	source.Refused(first, claimsHeader) // a late answer to the old token
	mustToken(t, source, "a2")
	if n := len(l.asked()); n != 0 {
		t.Errorf("%d more requests for the refusal of an old token", n)
	}
}

func TestClaimsThatWantInteractionNeedSignIn(t *testing.T) {
	app, l := newApp(t)
	source := app.Connect(tenantID, &store{newest: "r1"}, time.Time{}).Source(graph)
	l.answer(token("a1", ""), refusal("interaction_required", 50076, "you must use multi-factor authentication",
		"claims", claimsText))
	mustToken(t, source, "a1")
	a1, _ := source.Token(t.Context())

	source.Refused(a1, claimsHeader)
	for range 3 {
		if got, err := source.Token(t.Context()); outcome(err).Outcome != entra.SignInNeeded || got.Reveal() != "" ||
			outcome(err).Claims != claimsText {
			t.Fatalf("Token() = %q, %v; want no token, a sign-in with the claims", got.Reveal(), err)
		}
	}
	if n := len(l.asked()); n != 2 {
		t.Errorf("%d requests, want 2", n)
	}
}

// The platform does not always repeat the claims that it was asked for.
func TestClaimsOfAChallengeAreKept(t *testing.T) {
	app, l := newApp(t)
	conn := app.Connect(tenantID, &store{newest: "r1"}, time.Time{})
	asked := ""
	conn.Person = func(_ context.Context, r *entra.Refusal, err error) error { asked = r.Claims; return err }
	source := conn.Source(graph)
	l.answer(token("a1", ""), refusal("interaction_required", 50076, "you must use multi-factor authentication"))
	a1, _ := source.Token(t.Context())
	source.Refused(a1, claimsHeader)
	if _, err := source.Token(t.Context()); outcome(err).Outcome != entra.SignInNeeded || asked != claimsText {
		t.Errorf("%v, claims %q; want a sign-in with %s", err, asked, claimsText)
	}
}

// A token keeps the permissions that it was issued with: a 403 to one that is not new is worth another.
func TestForbiddenTokensAreRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app, l := newApp(t)
		source := app.Connect(tenantID, nil, time.Time{}).Source(graph)
		l.answer(token("a1", ""), token("a2", ""))
		a1, _ := source.Token(t.Context())
		if source.Forbidden(a1) {
			t.Error("a new token is renewed")
		}
		time.Sleep(2 * time.Minute)
		if !source.Forbidden(a1) {
			t.Error("an older token is not renewed")
		}
		mustToken(t, source, "a2")
		if !source.Forbidden(a1) {
			t.Error("a replaced token is not worth another try")
		}
	})
}

func TestRefusedTokenIsNeverUsedAgain(t *testing.T) {
	app, l := newApp(t)
	source := app.Connect(tenantID, nil, time.Time{}).Source(graph)
	l.answer(token("a1", ""), token("a1", "")) // the platform gives the same one out again
	mustToken(t, source, "a1")
	a1, _ := source.Token(t.Context())

	source.Refused(a1, "")
	if got, err := source.Token(t.Context()); outcome(err).Outcome != entra.SignInNeeded || got.Reveal() != "" {
		t.Errorf("Token() = %q, %v; want no token, a sign-in", got.Reveal(), err)
	}
}

func TestClaimsAreReadInEveryForm(t *testing.T) {
	padded := "eyJhY2Nlc3NfdG9rZW4iOnsibmJmIjp7ImVzc2VudGlhbCI6dHJ1ZSwidmFsdWUiOiIxNzk1ODY0NDE3In19fQ=="
	other := `{"a":"???>>>"}` // differs between the two alphabets
	for header, want := range map[string]string{
		claimsHeader: claimsText,
		"Bearer error=insufficient_claims, claims=" + padded:                          claimsText,
		"Bearer claims=" + strings.TrimRight(padded, "=") + ", realm=x":               claimsText,
		`Bearer Claims = "` + padded + `"`:                                            claimsText,
		`Bearer claims="` + base64.StdEncoding.EncodeToString([]byte(other)) + `"`:    other,
		`Bearer claims="` + base64.RawURLEncoding.EncodeToString([]byte(other)) + `"`: other,
		`Bearer claims="%%%"`:          "",
		`Bearer claims="bm90IEpTT04="`: "",
		`Bearer error="invalid_token"`: "",
		``:                             "",
		`Bearer claims="` + strings.Repeat("A", 20_000) + `"`: "",
	} {
		app, l := newApp(t)
		source := app.Connect(tenantID, nil, time.Time{}).Source(graph)
		l.answer(token("a1", ""), token("a2", ""))
		a1, _ := source.Token(t.Context())
		source.Refused(a1, header)
		mustToken(t, source, "a2")
		if got := l.asked()[1].Get("claims"); got != want {
			t.Errorf("claims for %.80q = %q, want %q", header, got, want)
		}
	}
}

func FuzzClaims(f *testing.F) {
	f.Add(claimsHeader)
	f.Add("Bearer claims=e30")
	f.Fuzz(func(t *testing.T, header string) {
		app, l := newApp(t)
		source := app.Connect(tenantID, nil, time.Time{}).Source(graph)
		l.answer(token("a1", ""), token("a2", ""))
		a1, _ := source.Token(t.Context())
		source.Refused(a1, header)
		mustToken(t, source, "a2")
		if claims := l.asked()[1].Get("claims"); claims != "" && !json.Valid([]byte(claims)) {
			t.Errorf("claims for %q = %q, which is not JSON", header, claims)
		}
	})
}

// One refresh token is redeemed for two resources; the newest is kept.
func TestOneSignInGivesTokensForTwoResources(t *testing.T) {
	app, l := newApp(t)
	kept := &store{newest: "r1"}
	conn := app.Connect(tenantID, kept, time.Time{})
	l.answer(token("for graph", "r2"), token("for teams", "r3"))
	mustToken(t, conn.Source(graph), "for graph")
	mustToken(t, conn.Source(entra.TeamsAdmin), "for teams")

	asked := l.asked()
	for i, want := range []struct{ scope, refresh string }{
		{graph + "/.default", "r1"}, {"48ac35b8-9aa8-4d74-927d-1f4a14a0b239/.default", "r2"}} {
		if got := strings.Fields(asked[i].Get("scope")); got[0] != want.scope || got[1] != "offline_access" ||
			len(got) != 2 || asked[i].Get("refresh_token") != want.refresh {
			t.Errorf("request %d: %v; want %+v", i, asked[i], want)
		}
	}
	if kept.newest != "r3" {
		t.Errorf("kept %q, want r3", kept.newest)
	}
}

func TestTokensAreRefreshedAheadOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app, l := newApp(t)
		source := app.Connect(tenantID, nil, time.Time{}).Source(graph)
		l.answer(token("a1", ""), token("a2", ""))
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { mustToken(t, source, "a1") })
		}
		wg.Wait()
		time.Sleep(54 * time.Minute)
		mustToken(t, source, "a1")
		if n := len(l.asked()); n != 1 {
			t.Fatalf("%d requests by 50 callers within 54 minutes, want 1", n)
		}

		time.Sleep(2 * time.Minute) // within five minutes of the expiry
		mustToken(t, source, "a2")
	})
}

func TestPassingErrorsKeepAValidToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app, l := newApp(t)
		source := app.Connect(tenantID, nil, time.Time{}).Source(graph)
		l.answer(token("a1", ""))
		mustToken(t, source, "a1")
		time.Sleep(56 * time.Minute)
		l.answer(reply{503, nil, "busy"})
		mustToken(t, source, "a1")

		time.Sleep(5 * time.Minute) // expired
		l.answer(reply{503, map[string][]string{"Retry-After": {"0.249"}}, "busy"})
		_, err := source.Token(t.Context())
		if f := fault.As(err); f.Code != string(entra.Unavailable) || f.RetryAfter != time.Second {
			t.Errorf("%v after %v; want unavailable, 1 s", err, f.RetryAfter)
		}
		l.answer(refusal("temporarily_unavailable", 90033, "A transient error has occurred."))
		if _, err := source.Token(t.Context()); outcome(err).Outcome != entra.Unavailable {
			t.Errorf("%v; want unavailable", err)
		}
	})
}

func TestTokenIsNotUsedUnlessTheNewestSignInIsStored(t *testing.T) {
	app, l := newApp(t)
	kept := &store{newest: "r1", broken: true}
	source := app.Connect(tenantID, kept, time.Time{}).Source(graph)
	l.answer(token("a1", "r2"))
	if _, err := source.Token(t.Context()); !fault.Is(err, fault.Unavailable) {
		t.Fatalf("%v; want unavailable", err)
	}
	kept.broken = false
	l.answer(token("a2", "r3"))
	mustToken(t, source, "a2")
	if asked := l.asked(); asked[1].Get("refresh_token") != "r1" {
		t.Errorf("refreshed with %q, want r1, which stays valid", asked[1].Get("refresh_token"))
	}
}

func TestNobodySignedIn(t *testing.T) {
	app, l := newApp(t)
	source := app.Connect(tenantID, &store{}, time.Time{}).Source(graph)
	if _, err := source.Token(t.Context()); outcome(err).Outcome != entra.SignInNeeded {
		t.Errorf("%v; want a sign-in", err)
	}
	if n := len(l.asked()); n != 0 {
		t.Errorf("%d requests, want none", n)
	}
}

func TestWaitingCallersLeaveWithTheirContext(t *testing.T) {
	app, _ := newApp(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := app.Connect(tenantID, nil, time.Time{}).Source(graph).Token(ctx)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Token with an ended context: %v", err)
	}
}
