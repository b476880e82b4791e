package teamsadmin_test

import (
	"context"
	"slices"
	"testing"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/teamsadmin"
	"github.com/tandemgw/tandem/internal/sim/microsoft"
)

func TestFaults(t *testing.T) {
	plan := teamsadmin.Object{Type: teamsadmin.DialPlan, Identity: "Tandem"}
	for name, c := range map[string]struct {
		fault microsoft.Fault
		code  string // of Create; "" if it succeeds
		sent  string
		there bool // afterwards
	}{
		"a throttled change is repeated after the stated wait": {
			sent:  "POST TenantDialPlan 429, POST TenantDialPlan 200",
			fault: microsoft.Fault{Kind: microsoft.Refuse, Status: 429, RetryAfter: "0.249"}, there: true},
		"a long wait is the caller's": {code: "TooManyRequests", sent: "POST TenantDialPlan 429",
			fault: microsoft.Fault{Kind: microsoft.Refuse, Status: 429, RetryAfter: "0,1200"}},
		"503 to a change leaves its outcome open": {code: teamsadmin.CodeUnknown, sent: "POST TenantDialPlan 503",
			fault: microsoft.Fault{Kind: microsoft.Refuse, Status: 503}},
		"a lost answer leaves it open": {code: teamsadmin.CodeUnknown, sent: "POST TenantDialPlan 200",
			fault: microsoft.Fault{Kind: microsoft.Lost}, there: true},
		"a claims challenge renews the token": {sent: "POST TenantDialPlan 401, POST TenantDialPlan 200",
			fault: microsoft.Fault{Kind: microsoft.Challenge}, there: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			c.fault.Service, c.fault.Method, c.fault.Times = microsoft.Teams, "POST", 1
			b.cloud.Inject(c.fault)
			err := b.client.Create(t.Context(), plan)
			if f := fault.As(err); c.code == "" && err != nil || c.code != "" && (f == nil || f.Code != c.code) {
				t.Errorf("Create: %v, want %q", err, c.code)
			}
			if sent := b.sent(); sent != c.sent {
				t.Errorf("sent %s, want %s", sent, c.sent)
			}
			_, err = b.client.Read(t.Context(), plan.Type, plan.Identity)
			if c.there && err != nil || !c.there && !fault.Is(err, fault.NotFound) {
				t.Errorf("Read afterwards: %v, want it there: %v", err, c.there)
			}
		})
	}
}

// Reads are repeated after 5xx and lost connections.
func TestReadsAreRepeated(t *testing.T) {
	b := newBed(t)
	b.cloud.Inject(microsoft.Fault{Kind: microsoft.Refuse, Status: 502, Service: microsoft.Teams, Times: 1})
	b.cloud.Inject(microsoft.Fault{Kind: microsoft.Lost, Service: microsoft.Teams, Path: "OnlinePstnUsages", Times: 1})
	if got, err := b.client.Usages(t.Context()); err != nil || len(got) != 3 {
		t.Errorf("Usages = %q, %v", got, err)
	}
}

// A 401 that stays asks for a sign-in after one new token, and no token is used twice.
func TestSignInEnded(t *testing.T) {
	b := newBed(t)
	var tokens []string
	b.after = func(e microsoft.Exchange) { tokens = append(tokens, e.Request.Header.Get("Authorization")) }
	b.cloud.Inject(microsoft.Fault{Kind: microsoft.Expired, Service: microsoft.Teams})
	for range 2 {
		_, err := b.client.Usages(t.Context())
		want(t, "Usages", err, fault.Conflict, "TokenRefused", "signs in again")
	}
	slices.Sort(tokens)
	if len(tokens) != 4 || len(slices.Compact(tokens)) != 4 {
		t.Errorf("%d requests, with tokens used twice: %v", len(tokens), tokens)
	}
}

// The answer to a change of usages is lost: reading back tells, and nothing is sent twice.
func TestUsagesWithLostAnswer(t *testing.T) {
	b := newBed(t)
	b.cloud.Inject(microsoft.Fault{Kind: microsoft.Lost, Service: microsoft.Teams, Method: "PUT", Times: 1})
	b.must("AddUsages", b.client.AddUsages(t.Context(), "Tandem"))
	if sent := b.sent(); sent != "PUT Global 200" {
		t.Errorf("sent %s", sent)
	}
}

// A caller that stops waiting for a change does not learn its outcome.
func TestCallerLeaves(t *testing.T) {
	b := newBed(t)
	_, err := b.client.Usages(t.Context()) // service discovery is done
	b.must("Usages", err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b.after = func(microsoft.Exchange) { cancel() }
	b.cloud.Inject(microsoft.Fault{Kind: microsoft.HangAfter, Service: microsoft.Teams, Method: "POST"})
	err = b.client.Create(ctx, teamsadmin.Object{Type: teamsadmin.DialPlan, Identity: "Tandem"})
	want(t, "Create", err, fault.Unavailable, teamsadmin.CodeUnknown, "read the object back")
}
