package directory

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
)

// Accounts lists accounts by name. Errors: InvalidPageSize.
func (d *Directory) Accounts(ctx context.Context, q Query) (Page[domain.Account], error) {
	return list(ctx, d, q, func(a *domain.Account) string { return a.Name }, Reader.Accounts, Reader.CountAccounts)
}

// Account returns the account with that name, its number counts filled in. Errors: AccountNotFound.
func (d *Directory) Account(ctx context.Context, name string) (domain.Account, error) {
	return view(ctx, d, func(ctx context.Context, r Reader) (*domain.Account, error) {
		return mustAccount(ctx, r.Account, name)
	})
}

// mustAccount returns the account that get finds, or an error if there is none.
func mustAccount(ctx context.Context, get func(context.Context, string) (*domain.Account, error),
	name string) (*domain.Account, error) {
	a, err := get(ctx, name)
	if err == nil && a == nil {
		return nil, fault.New(fault.NotFound, CodeAccountNotFound,
			"there is no account %q; account names are case-sensitive", name).At("accountName")
	}
	return a, err
}

// PutAccount creates or replaces the account a.Name. Read-only fields of a are ignored. Errors: the rules on accounts
// in codes.go.
func (d *Directory) PutAccount(ctx context.Context, a domain.Account, w Write) (*Result, error) {
	if err := d.checkAccount(&a); err != nil {
		return nil, err
	}
	return d.write(ctx, w, func(ctx context.Context, tx Tx, r *Result) error {
		old, err := tx.Account(ctx, a.Name)
		if err != nil {
			return err
		}
		was := cmp.Or(old, &domain.Account{})
		if err := w.Condition.check(old != nil, was.Version, was.Modified); err != nil {
			return err
		}
		n := d.settle(a, was)
		if err := cmp.Or(checkReplace(was, &n), checkOnboarded(was, &n)); err != nil {
			return err
		}
		if old != nil && !strings.EqualFold(old.Active().Subdomain, n.Active().Subdomain) {
			if err := unrecorded(ctx, tx, old, old.ActiveSlot()); err != nil {
				return err
			}
		}
		return d.storeAccount(ctx, tx, r, "account.put", &n, old)
	})
}

// settle returns the account as it will be stored: what the caller may write from a, the rest from old, which is empty
// for a new account.
func (d *Directory) settle(a domain.Account, old *domain.Account) domain.Account {
	n := domain.Account{Name: a.Name, CorrelationID: a.CorrelationID, TeamsTenantID: a.TeamsTenantID,
		HasServiceDetails: a.HasServiceDetails || a.TeamsTenantID != "" || len(a.Services) > 0,
		Pending:           old.Pending, SecondActive: old.SecondActive,
		// Nothing is pushed to a back end yet, so what is stored and in the feed is in sync (docs/decisions/0003).
		State: domain.ProvisioningState{Status: domain.SyncSynced}}
	if len(a.Services) > 0 {
		n.Services = make(map[domain.Service]domain.AccountService, len(a.Services))
	}
	for s, det := range a.Services {
		det.NumberCount, det.SubdomainStatus = old.Services[s].NumberCount, 0
		if s.Traits().Labelled {
			det.SubdomainStatus = domain.SubdomainNotProvisioned
			if det.DirectRouting != nil {
				c := *det.DirectRouting
				was := old.Active()
				c.Onboarded = was.Onboarded
				c.Gateway = was.Gateway && strings.EqualFold(was.Subdomain, c.Subdomain)
				det.DirectRouting, det.SubdomainStatus = &c, d.newStatus()
				if d.cfg.Observed && sameNames(c.Label, was) {
					det.SubdomainStatus = old.Services[s].SubdomainStatus
				}
			}
		}
		n.Services[s] = det
	}
	return n
}

// newStatus is the status of a label that an account has just got.
func (d *Directory) newStatus() domain.SubdomainStatus {
	if d.cfg.Observed {
		return domain.SubdomainNotProvisioned
	}
	return domain.SubdomainProvisioned
}

// sameNames reports whether two labels have the same records in DNS.
func sameNames(a, b domain.Label) bool {
	return strings.EqualFold(a.Subdomain, b.Subdomain) && a.Region1Token == b.Region1Token &&
		a.Region2Token == b.Region2Token
}

// Seen is what the name servers answer for the names of a label.
type Seen struct {
	Account string
	Label   domain.Label // the active one, which was looked for
	Status  domain.SubdomainStatus
}

// SetSubdomainStatus stores what name servers answer for up to MaxSeen accounts, in one transaction. An account that is
// gone, or has another label or other tokens by now, stays as it is. Nobody has written anything: the ETags of the
// accounts stay, and the audit log has nothing about it. The feed has.
func (d *Directory) SetSubdomainStatus(ctx context.Context, seen []Seen) error {
	if len(seen) > MaxSeen {
		return fmt.Errorf("store the subdomainStatus of %d accounts; at most %d at a time", len(seen), MaxSeen)
	}
	by := make(map[string]*Seen, len(seen))
	for i := range seen {
		by[seen[i].Account] = &seen[i]
	}
	return d.store.Update(ctx, func(ctx context.Context, tx Tx) error {
		found, err := tx.FindAccounts(ctx, slices.Sorted(maps.Keys(by)))
		if err != nil {
			return err
		}
		var changes []domain.Change
		for i := range found {
			a := &found[i]
			x, s := by[a.Name], a.Labelled()
			det := a.Services[s]
			if s == domain.NoService || det.SubdomainStatus == x.Status || !sameNames(a.Active(), x.Label) {
				continue
			}
			det.SubdomainStatus = x.Status
			a.Services[s] = det
			if err := tx.PutSubdomainStatus(ctx, a); err != nil {
				return err
			}
			changes = append(changes, domain.Change{Account: a.Routing(), Observed: true})
		}
		if len(changes) == 0 {
			return nil
		}
		return tx.Publish(ctx, changes)
	})
}

// forgetStatuses makes the status of every label provisioned, as it is where nothing is observed: an earlier
// configuration may have left another one.
func (d *Directory) forgetStatuses(ctx context.Context) error {
	for q := (Query{Limit: MaxPage}); ; {
		page, err := d.Accounts(ctx, q)
		if err != nil {
			return err
		}
		var seen []Seen
		for i := range page.Items {
			if a := &page.Items[i]; a.Active().Subdomain != "" {
				seen = append(seen, Seen{a.Name, a.Active(), domain.SubdomainProvisioned})
			}
		}
		if err := d.SetSubdomainStatus(ctx, seen); err != nil || page.Next == "" {
			return err
		}
		q.After = page.Next
	}
}

// storeAccount stores n unless it equals old; action is the audited one.
func (d *Directory) storeAccount(ctx context.Context, tx Tx, r *Result, action string, n, old *domain.Account) error {
	r.Account, r.Created = n, old == nil
	if old != nil {
		n.Version, n.Modified = old.Version, old.Modified
		if reflect.DeepEqual(n, old) {
			return nil
		}
	}
	l, at := strings.ToLower(n.Active().Subdomain), "serviceDetails."+n.Labelled().String()+".configuration.subdomain"
	if l != "" && n.Pending != nil && strings.EqualFold(l, n.Pending.Subdomain) {
		return conflict(CodeSubdomainTaken, at, "%q is the account's pending label; activate it (tandem account "+
			"label activate), or choose another", l)
	}
	if err := labelFree(ctx, tx, n.Name, l, at); err != nil {
		return err
	}
	n.Modified = now()
	n.Version = next(n.Version, n.Modified)
	if err := tx.PutAccount(ctx, n, old == nil); err != nil {
		return err
	}
	return d.record(ctx, tx, change{action: action, target: n.Name, items: 1, state: n,
		changes: []domain.Change{{Account: n.Routing()}}})
}

// DeleteAccount deletes the account. With deleteNumbers it deletes the account's numbers in the same transaction,
// however many there are; otherwise it fails with AccountHasNumbers if there are any. Errors: AccountNotFound.
func (d *Directory) DeleteAccount(ctx context.Context, name string, deleteNumbers bool, w Write) (*Result, error) {
	return d.write(ctx, w, func(ctx context.Context, tx Tx, r *Result) error {
		// The account stays locked, so no number can be added meanwhile.
		a, err := mustAccount(ctx, tx.Account, name)
		if err != nil {
			return err
		}
		if err := w.Condition.check(true, a.Version, a.Modified); err != nil {
			return err
		}
		if l := a.Onboarded(); l != nil {
			return conflict(CodeLabelOnboarded, "", "the account's Microsoft 365 tenant is onboarded under the label "+
				"%q; leave the tenant first (tandem tenant plan %s --leave)", l.Subdomain, name)
		}
		n, err := tx.CountNumbers(ctx, name, Query{})
		if err != nil {
			return err
		}
		if n > 0 && !deleteNumbers {
			return fault.New(fault.Invalid, CodeAccountHasNumbers, "the account has %d numbers; delete them first, "+
				"or set deleteNumbers=true (tandem account delete: --delete-numbers)", n)
		}
		digest := sha256.New()
		items, after := 1, domain.E164("")
		for {
			keys, err := tx.TakeNumbers(ctx, name, after, pageChanges)
			if err != nil {
				return err
			}
			if len(keys) == 0 {
				break
			}
			after = keys[len(keys)-1]
			items += len(keys)
			if err := tx.Publish(ctx, deletions(keys)); err != nil {
				return err
			}
			for _, k := range keys {
				_, _ = io.WriteString(digest, string(k)+"\n") // a hash never fails
			}
		}
		if err := tx.DeleteAccount(ctx, name); err != nil {
			return err
		}
		_, _ = io.WriteString(digest, name+"\n")
		return d.record(ctx, tx, change{action: "account.delete", target: name, items: items,
			digest: [32]byte(digest.Sum(nil)), summary: map[string]int{"numbers": items - 1},
			changes: []domain.Change{{Account: &domain.AccountRouting{Name: name, Deleted: true}}}})
	})
}

// deletions returns the feed changes for deleted numbers.
func deletions(ns []domain.E164) []domain.Change {
	cs := make([]domain.Change, len(ns))
	for i, n := range ns {
		cs[i].Number = &domain.NumberRouting{Key: n.Key(), Deleted: true}
	}
	return cs
}
