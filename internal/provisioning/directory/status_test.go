package directory_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
	"github.com/tandemgw/tandem/internal/services/directrouting"
)

// observed returns the same directory, in a deployment whose names are looked for in DNS.
func (h *house) observed() *house {
	d := directory.New(h.store, directory.Config{Observed: true}, slog.New(slog.DiscardHandler), nil)
	return &house{d, h.t, h.db, h.feed, h.store}
}

func (h *house) status(name string) domain.SubdomainStatus {
	h.t.Helper()
	a, err := h.Account(h.t.Context(), name)
	if err != nil {
		h.t.Fatal(err)
	}
	return a.Services[directrouting.Service].SubdomainStatus
}

func (h *house) see(s domain.SubdomainStatus, as ...domain.Account) {
	h.t.Helper()
	var seen []directory.Seen
	for _, a := range as {
		seen = append(seen, directory.Seen{Account: a.Name, Label: a.Active(), Status: s})
	}
	if err := h.SetSubdomainStatus(h.t.Context(), seen); err != nil {
		h.t.Fatal(err)
	}
}

// TestSubdomainStatus: a status that was observed changes nothing else. A new label, and new tokens, begin as
// notProvisioned; anything else leaves the status as it is.
func TestSubdomainStatus(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		h = h.observed()
		a, b := account("acme", directrouting.Service), account("beta", directrouting.Service)
		h.putAccount(a)
		h.putAccount(b)
		h.putAccount(account("none"))
		if got := h.status("acme"); got != domain.SubdomainNotProvisioned {
			t.Errorf("a new label is %s", got)
		}
		before, err := h.Account(t.Context(), "acme")
		if err != nil {
			t.Fatal(err)
		}
		rows := len(h.audit())
		_, at := h.changes(0)

		gone := account("gone", directrouting.Service)
		h.see(domain.SubdomainProvisioned, a, b, account("none"), gone)
		after, err := h.Account(t.Context(), "acme")
		if err != nil {
			t.Fatal(err)
		}
		det := before.Services[directrouting.Service]
		det.SubdomainStatus = domain.SubdomainProvisioned
		before.Services[directrouting.Service] = det
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("the account has changed (-want +got):\n%s", diff)
		}
		cs, end := h.changes(at)
		if end != at+1 || len(cs) != 2 || !cs[0].Observed || !cs[1].Observed || cs[0].Account.SubdomainStatus != 0 {
			t.Errorf("feed at %d, then %d: %+v", at, end, cs)
		}
		if n := len(h.audit()); n != rows {
			t.Errorf("%d new audit rows", n-rows)
		}
		h.see(domain.SubdomainProvisioned, a, b)
		if _, again := h.changes(end); again != end {
			t.Error("the same status is in the feed again")
		}

		h.see(domain.SubdomainInconsistent, a)
		more := account("acme", directrouting.Service)
		more.CorrelationID = "crm 7"
		h.putAccount(more)
		if got := h.status("acme"); got != domain.SubdomainInconsistent {
			t.Errorf("after a change of something else: %s", got)
		}
		token := account("acme", directrouting.Service)
		token.Services[directrouting.Service].DirectRouting.Region2Token = "MS=ms3"
		h.putAccount(token)
		if got := h.status("acme"); got != domain.SubdomainNotProvisioned {
			t.Errorf("with a new token: %s", got)
		}
		h.see(domain.SubdomainProvisioned, a) // looked for before the token changed
		if got := h.status("acme"); got != domain.SubdomainNotProvisioned {
			t.Errorf("what was seen of the former token is stored: %s", got)
		}
		h.see(domain.SubdomainProvisioned, token)
		if _, err := h.PutPendingLabel(t.Context(), "acme", label("next"), directory.Write{}); err != nil {
			t.Fatal(err)
		}
		if got := h.status("acme"); got != domain.SubdomainProvisioned {
			t.Errorf("with a pending label: %s", got)
		}
		if _, err := h.ActivateLabel(t.Context(), "acme", "next", directory.Write{}); err != nil {
			t.Fatal(err)
		}
		if got := h.status("acme"); got != domain.SubdomainNotProvisioned {
			t.Errorf("with another active label: %s", got)
		}
		if err := h.SetSubdomainStatus(t.Context(), make([]directory.Seen, directory.MaxSeen+1)); err == nil {
			t.Error("too many accounts are taken")
		}
	})
}

// TestSubdomainStatusOfMany: many accounts turn at once, in one feed entry, while they are written.
func TestSubdomainStatusOfMany(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		h = h.observed()
		var as []domain.Account
		for i := range 500 {
			a := account(fmt.Sprintf("a%03d", i), directrouting.Service)
			as = append(as, a)
			h.putAccount(a)
		}
		_, at := h.changes(0)
		done := make(chan error, 1)
		go func() {
			for i := range as {
				a := account(as[len(as)-1-i].Name, directrouting.Service)
				a.CorrelationID = "changed"
				if _, err := h.PutAccount(t.Context(), a, directory.Write{}); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
		for _, s := range []domain.SubdomainStatus{domain.SubdomainInconsistent, domain.SubdomainProvisioned,
			domain.SubdomainInconsistent} {
			h.see(s, as...)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		for _, a := range as {
			got, err := h.Account(t.Context(), a.Name)
			if err != nil {
				t.Fatal(err)
			}
			if s := h.status(a.Name); s != domain.SubdomainInconsistent || got.CorrelationID != "changed" {
				t.Fatalf("%s is %s, %q", a.Name, s, got.CorrelationID)
			}
		}
		cs, end := h.changes(at)
		if len(cs) != 4*len(as) || int(end-at) != len(as)+3 {
			t.Errorf("%d changes in %d feed entries", len(cs), end-at)
		}
	})
}

// TestNoLongerObserved: where names are not looked for any more, no label stays in the state that was seen last.
func TestNoLongerObserved(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		a := account("acme", directrouting.Service)
		o := h.observed()
		o.putAccount(a)
		o.putAccount(account("none"))
		o.see(domain.SubdomainInconsistent, a)
		_, at := h.changes(0)

		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- h.Run(ctx) }()
		changed, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		if err := h.feed.Wait(changed, at); err != nil {
			t.Fatal(err)
		}
		if got := h.status("acme"); got != domain.SubdomainProvisioned {
			t.Errorf("the status is %s", got)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if cs, _ := h.changes(at); len(cs) != 1 || !cs[0].Observed || cs[0].Account.SubdomainStatus != 0 {
			t.Errorf("feed: %+v", cs)
		}
	})
}
