package directory_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
	"github.com/tandemgw/tandem/internal/services/directrouting"
)

func label(s string) domain.Label {
	return domain.Label{Subdomain: s, Region1Token: "MS=" + s + "1", Region2Token: "MS=" + s + "2"}
}

// TestMoveToAnotherLabel: the life of a second label, with the errors of each step, its audit rows and its ETags.
func TestMoveToAnotherLabel(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		ctx := t.Context()
		h.putAccount(account("acme", directrouting.Service))
		h.putAccount(account("other", directrouting.Service))
		h.putAccount(account("none"))
		h.putNumber(number("acme", "+442079460001", directrouting.Service))
		h.putNumber(number("acme", "+442079460002", directrouting.Service))
		h.putNumber(number("other", "+442079460003", directrouting.Service))
		rows := len(h.audit())
		_, at := h.changes(0)

		put := func(account, l string) error {
			_, err := h.PutPendingLabel(ctx, account, label(l), directory.Write{})
			return err
		}
		for _, c := range []struct {
			what, account, label string
			kind                 fault.Kind
			code, target         string
		}{
			{"no account", "nobody", "next", fault.NotFound, directory.CodeAccountNotFound, "accountName"},
			{"no label yet", "none", "next", fault.Conflict, directory.CodeLabelState, ""},
			{"the active one", "acme", "ACME", fault.Conflict, directory.CodeLabelState, ""},
			{"another account's", "acme", "Other", fault.Conflict, directory.CodeSubdomainTaken, ""},
			{"no host label", "acme", "-x", fault.Invalid, directory.CodeInvalidSubdomain, "subdomain"},
			{"underscore", "acme", "a_b", fault.Invalid, directory.CodeInvalidSubdomain, "subdomain"},
		} {
			wantCode(t, "pending label: "+c.what, put(c.account, c.label), c.kind, c.code, c.target)
		}
		bad := label("next")
		bad.Region2Token = "a b"
		_, err := h.PutPendingLabel(ctx, "acme", bad, directory.Write{})
		wantCode(t, "a token with a blank", err, fault.Invalid, directory.CodeInvalidSubdomainToken, "region2Token")

		if err := put("acme", "Next"); err != nil {
			t.Fatal(err)
		}
		if err := put("acme", "Next"); err != nil { // the same again changes nothing
			t.Fatal(err)
		}
		wantCode(t, "a third label", put("acme", "third"), fault.Conflict, directory.CodeLabelState, "")
		wantCode(t, "another's pending label", put("other", "neXT"), fault.Conflict, directory.CodeSubdomainTaken, "")
		next := account("other", directrouting.Service)
		next.Services[directrouting.Service].DirectRouting.Subdomain = "next"
		for _, name := range []string{"none", "acme"} {
			next.Name = name
			_, err = h.PutAccount(ctx, next, directory.Write{})
			code := directory.CodeSubdomainTaken
			if name == "acme" {
				code = directory.CodeSubdomainInUse // its numbers use the active one
			}
			wantCode(t, "PUT of "+name+" with the pending label", err, fault.Conflict, code, "")
		}

		// A PUT of the account shows and changes the active label only.
		before, err := h.Account(ctx, "acme")
		if err != nil || before.Active().Subdomain != "acme" || before.Pending == nil ||
			*before.Pending != label("Next") {
			t.Fatalf("account %+v, %v; want labels acme and Next", before, err)
		}
		again := account("acme", directrouting.Service)
		again.CorrelationID = "crm-7"
		if r := h.putAccount(again); r.Account.Pending == nil || r.Account.Pending.Subdomain != "Next" {
			t.Errorf("after a PUT: %+v, want the pending label kept", r.Account)
		}
		stale := directory.Write{Condition: directory.Condition{IfMatch: directory.Tags{
			List: []string{directory.ETag(before.Version)}}}}
		_, err = h.ActivateLabel(ctx, "acme", "next", stale)
		wantCode(t, "activation with an old ETag", err, fault.Precondition, directory.CodeConditionNotMet, "")

		// Numbers: all or none, and a PUT of a number keeps its label.
		err = h.RecordLabel(ctx, "acme", "next", []domain.E164{"+442079460001", "+442079460003", "x"})
		wantCode(t, "a number of another account", err, fault.Invalid, directory.CodeBatchRejected, "numbers")
		if f := fault.As(err); f != nil && (len(f.Details) != 2 || f.Details[0].Target != "numbers[1]" ||
			f.Details[1].Code != directory.CodeNumberNotFound) {
			t.Errorf("details %+v, want numbers[1] and numbers[2]", f.Details)
		}
		err = h.RecordLabel(ctx, "acme", "third", []domain.E164{"+442079460001"})
		wantCode(t, "a label of nobody", err, fault.NotFound, directory.CodeLabelNotFound, "label")
		err = h.RecordLabel(ctx, "acme", "next", make([]domain.E164, directory.MaxBatch+1))
		wantCode(t, "too many", err, fault.Invalid, directory.CodeTooManyItems, "numbers")
		if err := h.RecordLabel(ctx, "acme", "NEXT", []domain.E164{"+442079460001", "+442079460001"}); err != nil {
			t.Fatal(err)
		}
		h.putNumber(number("acme", "+442079460001"))
		h.putNumber(number("acme", "+442079460001", directrouting.Service))
		ns, err := h.LabelNumbers(ctx, "acme", "next", "", 10)
		if err != nil || len(ns) != 1 || ns[0] != "+442079460001" {
			t.Errorf("numbers of the label: %v, %v", ns, err)
		}

		remove := func(l string) error {
			_, err := h.RemovePendingLabel(ctx, "acme", l, directory.Write{})
			return err
		}
		wantCode(t, "removal in use", remove("next"), fault.Conflict, directory.CodeSubdomainInUse, "")
		wantCode(t, "removal of the active label", remove("acme"), fault.Conflict, directory.CodeLabelState, "")
		wantCode(t, "removal of no label", remove("third"), fault.NotFound, directory.CodeLabelNotFound, "label")

		for range 2 { // the second time changes nothing
			r, err := h.ActivateLabel(ctx, "acme", "next", directory.Write{})
			if err != nil || r.Account.Active() != label("Next") || r.Account.Pending.Subdomain != "acme" ||
				!r.Account.Services[directrouting.Service].DirectRouting.CallScreening {
				t.Fatalf("activated: %+v, %v", r, err)
			}
		}
		if n, err := h.Number(ctx, "acme", "+442079460001"); err != nil || n.Slot == domain.NoSlot {
			t.Errorf("number %+v, %v; want its record kept", n, err)
		}
		if err := remove("acme"); err != nil {
			t.Errorf("removal of the former label: %v", err)
		}
		if err := put("other", "acme"); err != nil {
			t.Errorf("a label that was removed is not free: %v", err)
		}
		if _, err := h.DeleteAccount(ctx, "other", true, directory.Write{}); err != nil {
			t.Fatal(err)
		}
		if err := put("acme", "other"); err != nil {
			t.Errorf("the label of a deleted account is not free: %v", err)
		}

		var actions []string
		for _, r := range h.audit()[rows:] {
			actions = append(actions, r.Action)
			if strings.HasPrefix(r.Action, "numbers.label") && !strings.Contains(r.Summary, `"label":"NEXT"`) {
				t.Errorf("audit row %+v does not name the label", r)
			}
		}
		if got, want := strings.Join(actions, " "), "account.label account.put numbers.label number.put number.put "+
			"account.activateLabel account.unlabel account.label account.delete account.label"; got != want {
			t.Errorf("audited %s, want %s", got, want)
		}
		cs, _ := h.changes(at)
		got := map[string]domain.AccountRouting{}
		for _, c := range cs {
			if c.Account != nil {
				got[c.Account.Name] = *c.Account
			}
		}
		if a := got["acme"]; a.Subdomain != "next" || a.Pending != "other" || !a.SecondActive {
			t.Errorf("the feed ends with %+v, want next active in slot 2 and other pending", a)
		}
	})
}

// TestALabelHasOneOwner: accounts that ask for one label at the same time, as their active or as their pending one.
func TestALabelHasOneOwner(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		names := []string{"a", "b", "c", "d"}
		for _, n := range names {
			h.putAccount(account(n, directrouting.Service))
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		owners := 0
		for i, n := range names {
			wg.Go(func() {
				var err error
				if i%2 == 0 {
					_, err = h.PutPendingLabel(context.Background(), n, label("same"), directory.Write{})
				} else {
					a := account(n, directrouting.Service)
					a.Services[directrouting.Service].DirectRouting.Subdomain = "SAME"
					_, err = h.PutAccount(context.Background(), a, directory.Write{})
				}
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					owners++
				} else if !fault.HasCode(err, directory.CodeSubdomainTaken) {
					t.Errorf("%s: %v", n, err)
				}
			})
		}
		wg.Wait()
		if owners != 1 {
			t.Errorf("%d accounts own the label, want 1", owners)
		}
	})
}

// TestLabelsWrittenByTheReleaseBefore: a program that does not know pending labels may still run on another node. The
// labels that it stores count, it cannot take another account's, and it leaves the pending ones alone.
func TestLabelsWrittenByTheReleaseBefore(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		ctx := t.Context()
		h.putAccount(account("acme", directrouting.Service))
		if _, err := h.PutPendingLabel(ctx, "acme", label("next"), directory.Write{}); err != nil {
			t.Fatal(err)
		}
		write := func(query string, args ...any) error {
			return h.db.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
				_, err := tx.Exec(ctx, query, args...)
				return err
			})
		}
		const insert = "INSERT INTO accounts (name, correlation_id, has_details, tenant_id, tenant_key, present, " +
			"enabled, sync_enabled, subdomain_key, details, status, errors, version, modified) " +
			"VALUES ($1, '', 0, '', '', 0, 0, 0, $2, '', 'synced', '', 1, 1)"
		if err := write(insert, "old", "oldlabel"); err != nil {
			t.Fatal(err)
		}
		if err := write(insert, "thief", "next"); err == nil {
			t.Error("a program of the release before has taken another account's pending label")
		}
		_, err := h.PutPendingLabel(ctx, "acme", label("oldlabel"), directory.Write{})
		wantCode(t, "a label that the release before stored", err, fault.Conflict, directory.CodeLabelState, "")
		b := account("beta", directrouting.Service)
		b.Services[directrouting.Service].DirectRouting.Subdomain = "oldlabel"
		_, err = h.PutAccount(ctx, b, directory.Write{})
		wantCode(t, "a label that the release before stored", err, fault.Conflict, directory.CodeSubdomainTaken,
			"subdomain")
		if err := write("UPDATE accounts SET subdomain_key = $2, correlation_id = 'x' WHERE name = $1", "acme",
			"acme"); err != nil {
			t.Fatal(err)
		}
		if a, err := h.Account(ctx, "acme"); err != nil || a.Pending == nil || a.Pending.Subdomain != "next" {
			t.Errorf("account %+v, %v; want its pending label kept", a, err)
		}
	})
}

// TestARecordedLabelStays: a PUT cannot replace or remove the active label while a number records it, also one that
// does not use Direct Routing at present; an account that has no active label any more keeps its pending one.
func TestARecordedLabelStays(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		ctx := t.Context()
		h.putAccount(account("acme", directrouting.Service))
		h.putNumber(number("acme", "+442079460001"))
		if _, err := h.PutPendingLabel(ctx, "acme", label("next"), directory.Write{}); err != nil {
			t.Fatal(err)
		}
		if err := h.RecordLabel(ctx, "acme", "acme", []domain.E164{"+442079460001"}); err != nil {
			t.Fatal(err)
		}
		other := account("acme", directrouting.Service)
		other.Services[directrouting.Service].DirectRouting.Subdomain = "else"
		for _, a := range []domain.Account{other, account("acme")} {
			_, err := h.PutAccount(ctx, a, directory.Write{})
			wantCode(t, "PUT with another label, or none", err, fault.Conflict, directory.CodeSubdomainInUse, "")
		}
		if err := h.RecordLabel(ctx, "acme", "", []domain.E164{"+442079460001"}); err != nil {
			t.Fatal(err)
		}
		if r := h.putAccount(account("acme")); r.Account.Pending == nil {
			t.Errorf("account %+v, want its pending label kept", r.Account)
		}
		_, err := h.ActivateLabel(ctx, "acme", "next", directory.Write{})
		wantCode(t, "activation without a configuration", err, fault.Conflict, directory.CodeLabelState, "")
		if _, err := h.RemovePendingLabel(ctx, "acme", "NEXT", directory.Write{}); err != nil {
			t.Fatal(err)
		}
	})
}

// TestOnboardedLabel: while the onboarding of a tenant owns a label, nobody else changes it; a label that callers own
// is taken over only with the same tokens, or when that was asked for.
func TestOnboardedLabel(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		ctx, s := t.Context(), directrouting.Service
		h.putAccount(account("new"))
		h.putAccount(account("acme", s))
		first := domain.Label{Subdomain: "new", Region1Token: "MS=1", Region2Token: domain.NoToken}
		if err := h.OnboardLabel(ctx, s, "new", first, false); err != nil {
			t.Fatal(err)
		}
		second := first
		second.Region2Token = "MS=2"
		if err := h.OnboardLabel(ctx, s, "new", second, false); err != nil {
			t.Fatal(err)
		}
		a, err := h.Account(ctx, "new")
		if err != nil {
			t.Fatal(err)
		}
		second.Onboarded = true
		if a.Active() != second || !a.Services[s].Enabled {
			t.Errorf("active label %+v, want %+v, enabled", a.Active(), second)
		}

		// Which names have gateway objects is kept when a caller writes the account, and is in the feed.
		for range 2 {
			if err := h.SetGateways(ctx, "new", []string{"NEW", "other"}); err != nil {
				t.Fatal(err)
			}
		}
		if a, err = h.Account(ctx, "new"); err != nil || !a.Active().Gateway || !a.Routing().Gateway {
			t.Errorf("label with gateway objects: %+v, %v", a.Active(), err)
		}

		same := a // as a caller sends it back, who does not know who owns it
		c := *a.Services[s].DirectRouting
		c.Onboarded, c.Gateway, c.CallScreening = false, false, true
		same.Services = map[domain.Service]domain.AccountService{s: {Enabled: true, DirectRouting: &c}}
		if _, err := h.PutAccount(ctx, same, directory.Write{}); err != nil {
			t.Errorf("PUT with the same label: %v", err)
		}
		if a, err := h.Account(ctx, "new"); err != nil || !a.Active().Gateway {
			t.Errorf("after a PUT: %+v, %v", a.Active(), err)
		}
		for what, edit := range map[string]func(*domain.DirectRoutingConfig){
			"token": func(c *domain.DirectRoutingConfig) { c.Region1Token = "MS=other" },
			"label": func(c *domain.DirectRoutingConfig) { c.Subdomain = "other" },
		} {
			d := c
			edit(&d)
			other := a
			other.Services = map[domain.Service]domain.AccountService{s: {Enabled: true, DirectRouting: &d}}
			_, err := h.PutAccount(ctx, other, directory.Write{})
			wantCode(t, "PUT with another "+what, err, fault.Conflict, directory.CodeLabelOnboarded,
				"serviceDetails.teamsDirectRouting.configuration")
		}
		_, err = h.PutAccount(ctx, account("new"), directory.Write{})
		wantCode(t, "PUT without the label", err, fault.Conflict, directory.CodeLabelOnboarded,
			"serviceDetails.teamsDirectRouting.configuration")
		_, err = h.DeleteAccount(ctx, "new", true, directory.Write{})
		wantCode(t, "DELETE", err, fault.Conflict, directory.CodeLabelOnboarded, "")

		mine := domain.Label{Subdomain: "acme", Region1Token: "MS=9", Region2Token: domain.NoToken}
		wantCode(t, "tokens of callers", h.OnboardLabel(ctx, s, "acme", mine, false), fault.Conflict,
			directory.CodeLabelOnboarded, "")
		if err := h.OnboardLabel(ctx, s, "acme", mine, true); err != nil {
			t.Errorf("take over: %v", err)
		}
		next := domain.Label{Subdomain: "next", Region1Token: "MS=3", Region2Token: "MS=4"}
		if err := h.OnboardLabel(ctx, s, "acme", next, false); err != nil {
			t.Fatal(err)
		}
		_, err = h.PutPendingLabel(ctx, "acme", label("next"), directory.Write{})
		wantCode(t, "tokens of the pending label", err, fault.Conflict, directory.CodeLabelOnboarded, "")
		_, err = h.RemovePendingLabel(ctx, "acme", "next", directory.Write{})
		wantCode(t, "removal of the pending label", err, fault.Conflict, directory.CodeLabelOnboarded, "")
		if _, err := h.ActivateLabel(ctx, "acme", "next", directory.Write{}); err != nil {
			t.Errorf("activate: %v", err) // both belong to it
		}

		for account, l := range map[string]string{"new": "NEW", "acme": "acme"} {
			if err := h.ReleaseLabel(ctx, account, l); err != nil {
				t.Fatal(err)
			}
		}
		if a, err = h.Account(ctx, "new"); err != nil || a.Active().Subdomain != "" {
			t.Errorf("released: %+v %v, want no label", a.Active(), err)
		}
		if a, err = h.Account(ctx, "acme"); err != nil || a.Pending != nil || a.Active().Subdomain != "next" {
			t.Errorf("released: %+v %+v %v, want next alone", a.Active(), a.Pending, err)
		}

		if err := h.OnboardLabel(ctx, s, "acme", mine, false); err != nil {
			t.Fatal(err)
		}
		if err := h.ReleaseLabel(ctx, "acme", "next"); err != nil { // the active one first
			t.Fatal(err)
		}
		mine.Onboarded = true
		a, err = h.Account(ctx, "acme")
		if err != nil || a.Pending != nil || a.Active() != mine || !a.Services[s].Enabled {
			t.Errorf("released: %+v %+v %v, want acme alone, enabled", a.Active(), a.Pending, err)
		}
	})
}
