package directory

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
)

// A second label of an account, as a move to another tenant needs it. Calls from the service are accepted under both
// labels; calls to the service use the label recorded for the number, else the active one.
//
//	PutPendingLabel    no second label ──▶ pending
//	ActivateLabel      pending ──▶ active, and the former active one ──▶ pending
//	RemovePendingLabel pending ──▶ gone, once no number records it

// PutPendingLabel gives the account a second label, or replaces the tokens of the one it has. The rules are those of
// the active label. Errors: AccountNotFound, ConditionNotMet, InvalidSubdomain, InvalidSubdomainToken, LabelState,
// SubdomainTaken.
func (d *Directory) PutPendingLabel(ctx context.Context, account string, l domain.Label, w Write) (*Result, error) {
	if err := d.checkLabel("", l); err != nil {
		err.Target = err.Target[strings.LastIndexByte(err.Target, '.')+1:]
		return nil, err
	}
	return d.changeLabels(ctx, account, "account.label", w, func(ctx context.Context, tx Tx, a *domain.Account) error {
		active := a.Active().Subdomain
		switch {
		case active == "":
			return conflict(CodeLabelState, "", "the account has no Direct Routing label yet; give it its first one "+
				"with a PUT of the account")
		case strings.EqualFold(active, l.Subdomain):
			return conflict(CodeLabelState, "", "%q is the account's active label; change it with a PUT of the "+
				"account", l.Subdomain)
		case a.Pending != nil && !strings.EqualFold(a.Pending.Subdomain, l.Subdomain):
			return conflict(CodeLabelState, "", "the account already has the pending label %q; remove it first",
				a.Pending.Subdomain)
		case a.Pending != nil && a.Pending.Onboarded:
			return onboardedLabel(a.Pending)
		}
		l.Gateway = a.Pending != nil && a.Pending.Gateway
		a.Pending = &l
		return labelFree(ctx, tx, account, strings.ToLower(l.Subdomain), "")
	})
}

// RemovePendingLabel removes a pending label that no number records. Errors: AccountNotFound, ConditionNotMet,
// LabelNotFound, LabelState, SubdomainInUse.
func (d *Directory) RemovePendingLabel(ctx context.Context, account, label string, w Write) (*Result, error) {
	return d.changeLabels(ctx, account, "account.unlabel", w,
		func(ctx context.Context, tx Tx, a *domain.Account) error {
			slot, err := slotOf(a, label)
			if err != nil {
				return err
			}
			if slot == a.ActiveSlot() {
				return conflict(CodeLabelState, "", "%q is the account's active label; activate the other one first, "+
					"or change it with a PUT of the account", label)
			}
			if a.Pending.Onboarded {
				return onboardedLabel(a.Pending)
			}
			a.Pending = nil
			return unrecorded(ctx, tx, a, slot)
		})
}

func onboardedLabel(l *domain.Label) *fault.Error {
	return conflict(CodeLabelOnboarded, "", "the onboarding of the account's tenant owns the label %q and its tokens; "+
		"change it there (tandem tenant)", l.Subdomain)
}

// OnboardLabel gives an account a label that the onboarding of its tenant owns, or replaces the tokens of the one that
// it has. It is the active label of the service if the account has none, else the pending one. A label that the
// account has already, and that its callers gave, is taken over only if its tokens are the same or own is set. Errors:
// AccountNotFound, InvalidSubdomain, InvalidSubdomainToken, LabelState, LabelOnboarded, SubdomainTaken.
func (d *Directory) OnboardLabel(ctx context.Context, service domain.Service, account string, l domain.Label,
	own bool) error {
	if err := d.checkLabel("", l); err != nil {
		err.Target = err.Target[strings.LastIndexByte(err.Target, '.')+1:]
		return err
	}
	l.Onboarded = true

	_, err := d.changeLabels(ctx, account, "account.onboardLabel", Write{},
		func(ctx context.Context, tx Tx, a *domain.Account) error {
			active := a.Active()
			switch slot := a.SlotOf(l.Subdomain); {
			case slot != domain.NoSlot:
				was := active
				if slot != a.ActiveSlot() {
					was = *a.Pending
				}
				if !was.Onboarded && !own && !sameNames(was, l) {
					return conflict(CodeLabelOnboarded, "", "callers of the Provisioning API own the label %q, and "+
						"its tokens are not those that Microsoft asks for (%q, %q); have them write these, or give "+
						"the label to the onboarding (tandem tenant set %s --own-label)", l.Subdomain, l.Region1Token,
						l.Region2Token, account)
				}
				if slot != a.ActiveSlot() {
					a.Pending = &l
					return nil
				}
				d.setActive(a, service, l)
			case active.Subdomain == "":
				d.setActive(a, service, l)
			case a.Pending != nil:
				return conflict(CodeLabelState, "", "the account has the labels %q and %q already; remove the pending "+
					"one first", active.Subdomain, a.Pending.Subdomain)
			default:
				a.Pending = &l
			}
			return labelFree(ctx, tx, account, strings.ToLower(l.Subdomain), "")
		})
	return err
}

// SetGateways records for which labels of an account the customer's tenant has gateway objects, whatever their case.
// Errors: AccountNotFound.
func (d *Directory) SetGateways(ctx context.Context, account string, labels []string) error {
	has := func(l domain.Label) bool {
		return slices.ContainsFunc(labels, func(s string) bool { return strings.EqualFold(s, l.Subdomain) })
	}
	_, err := d.changeLabels(ctx, account, "account.gateways", Write{},
		func(_ context.Context, _ Tx, a *domain.Account) error {
			s := a.Labelled()
			if det := a.Services[s]; det.DirectRouting != nil {
				c := *det.DirectRouting
				c.Gateway = has(c.Label)
				det.DirectRouting = &c
				a.Services[s] = det
			}
			if a.Pending != nil {
				l := *a.Pending
				l.Gateway = has(l)
				a.Pending = &l
			}
			return nil
		})
	return err
}

// ReleaseLabel ends the ownership of the onboarding over a label, whatever its case. The label is removed unless
// numbers use or record it; a pending one then takes the place of the active one. An account without the label stays as
// it is. Errors: AccountNotFound.
func (d *Directory) ReleaseLabel(ctx context.Context, account, label string) error {
	_, err := d.changeLabels(ctx, account, "account.releaseLabel", Write{},
		func(ctx context.Context, tx Tx, a *domain.Account) error {
			slot := a.SlotOf(label)
			if slot == domain.NoSlot {
				return nil
			}
			used := unrecorded(ctx, tx, a, slot)
			if used != nil && !fault.HasCode(used, CodeSubdomainInUse) {
				return used
			}
			if slot != a.ActiveSlot() {
				free := *a.Pending
				free.Onboarded = false
				a.Pending = &free
				if used == nil {
					a.Pending = nil
				}
				return nil
			}

			s := a.Labelled()
			det := a.Services[s]
			c := *det.DirectRouting
			c.Onboarded = false
			det.DirectRouting = &c
			switch {
			case used != nil || det.NumberCount > 0:
			case a.Pending != nil:
				c.Label, det.SubdomainStatus = *a.Pending, d.newStatus()
				a.Pending, a.SecondActive = nil, !a.SecondActive
			default:
				det.DirectRouting, det.Enabled, det.SubdomainStatus = nil, false, domain.SubdomainNotProvisioned
			}
			a.Services[s] = det
			return nil
		})
	return err
}

// setActive makes a label the active one of an account that has none, or that has it already, and enables its service.
func (d *Directory) setActive(a *domain.Account, s domain.Service, l domain.Label) {
	if a.Services == nil {
		a.Services = map[domain.Service]domain.AccountService{}
	}
	a.HasServiceDetails = true
	det := a.Services[s]
	c := domain.DirectRoutingConfig{}
	if det.DirectRouting != nil {
		c = *det.DirectRouting
	}
	if !sameNames(c.Label, l) {
		det.SubdomainStatus = d.newStatus()
	}
	c.Label = l
	det.DirectRouting, det.Enabled = &c, true
	a.Services[s] = det
}

// ActivateLabel makes a label of the account the active one; the one that was active becomes the pending label. If it
// is active already, nothing changes. Errors: AccountNotFound, ConditionNotMet, LabelNotFound, LabelState.
func (d *Directory) ActivateLabel(ctx context.Context, account, label string, w Write) (*Result, error) {
	return d.changeLabels(ctx, account, "account.activateLabel", w,
		func(_ context.Context, _ Tx, a *domain.Account) error {
			slot, err := slotOf(a, label)
			if err != nil || slot == a.ActiveSlot() {
				return err
			}
			s := a.Labelled()
			det := a.Services[s]
			if det.DirectRouting == nil {
				return conflict(CodeLabelState, "", "the account has no Direct Routing configuration that %q could be "+
					"the label of; PUT the account with one first", label)
			}
			c, was := *det.DirectRouting, det.DirectRouting.Label
			c.Label = *a.Pending
			det.DirectRouting, det.SubdomainStatus = &c, d.newStatus()
			a.Services[s], a.Pending, a.SecondActive = det, &was, !a.SecondActive
			return nil
		})
}

// RecordLabel records one of the account's labels, whatever its case, for up to MaxBatch numbers of the account, all or
// none; an empty label removes the record, so that calls to them use the active label. Errors: AccountNotFound,
// LabelNotFound, TooManyItems, BatchRejected.
func (d *Directory) RecordLabel(ctx context.Context, account, label string, ns []domain.E164) error {
	if err := CheckBatch(len(ns)); err != nil {
		return err
	}
	_, err := d.write(ctx, Write{}, func(ctx context.Context, tx Tx, _ *Result) error {
		a, err := mustAccount(ctx, tx.HoldAccount, account)
		if err != nil {
			return err
		}
		slot := domain.NoSlot
		if label != "" {
			if slot, err = slotOf(a, label); err != nil {
				return err
			}
		}
		found, err := tx.FindNumbers(ctx, distinct(ns))
		if err != nil {
			return err
		}
		b := &batch{account: a, label: label, old: make(map[domain.E164]*domain.Number)}
		for i := range found {
			if found[i].AccountName == account {
				b.old[found[i].TelephoneNumber] = &found[i]
				b.ns = append(b.ns, found[i])
				b.ns[len(b.ns)-1].Slot = slot
			}
		}
		var details []fault.Error
		for i, n := range ns {
			if b.old[n] == nil {
				details = append(details, *fault.New(fault.NotFound, CodeNumberNotFound,
					"the number does not exist on this account").At(fmt.Sprintf("numbers[%d]", i)))
			}
		}
		if err := rejected(details, len(ns)); err != nil {
			return err
		}
		return d.storeNumbers(ctx, tx, "numbers.label", b)
	})
	return err
}

// LabelNumbers returns up to limit numbers of the account after the given one that record a label, in order. Errors:
// AccountNotFound, LabelNotFound.
func (d *Directory) LabelNumbers(ctx context.Context, account, label string, after domain.E164,
	limit int) (ns []domain.E164, err error) {
	err = d.store.View(ctx, func(ctx context.Context, r Reader) error {
		a, err := mustAccount(ctx, r.Account, account)
		if err != nil {
			return err
		}
		slot, err := slotOf(a, label)
		if err == nil {
			ns, err = r.SlotNumbers(ctx, account, slot, after, limit)
		}
		return err
	})
	return ns, err
}

// LabelOwner returns the name of the account that has a label, active or pending, whatever its case; empty if none has.
func (d *Directory) LabelOwner(ctx context.Context, label string) (account string, err error) {
	err = d.store.View(ctx, func(ctx context.Context, r Reader) (err error) {
		account, err = r.SubdomainOwner(ctx, strings.ToLower(label))
		return err
	})
	return account, err
}

// changeLabels makes one change of an account that a PUT cannot make.
func (d *Directory) changeLabels(ctx context.Context, account, action string, w Write,
	edit func(ctx context.Context, tx Tx, a *domain.Account) error) (*Result, error) {
	return d.write(ctx, w, func(ctx context.Context, tx Tx, r *Result) error {
		old, err := mustAccount(ctx, tx.Account, account)
		if err != nil {
			return err
		}
		if err := w.Condition.check(true, old.Version, old.Modified); err != nil {
			return err
		}
		n := *old
		n.Services = maps.Clone(old.Services)
		if err := edit(ctx, tx, &n); err != nil {
			return err
		}
		return d.storeAccount(ctx, tx, r, action, &n, old)
	})
}

// slotOf returns the slot of a label of the account.
func slotOf(a *domain.Account, label string) (domain.Slot, error) {
	slot := a.SlotOf(label)
	if slot == domain.NoSlot {
		return slot, fault.New(fault.NotFound, CodeLabelNotFound,
			"the account has no label %q; tandem account label show lists its labels", label).At("label")
	}
	return slot, nil
}

// unrecorded returns an error if numbers of the account record the label in a slot.
func unrecorded(ctx context.Context, tx Tx, a *domain.Account, slot domain.Slot) error {
	ns, err := tx.SlotNumbers(ctx, a.Name, slot, "", 1)
	if err == nil && len(ns) > 0 {
		err = conflict(CodeSubdomainInUse, "", "numbers of the account record the label (tandem account label numbers "+
			"lists them); record another one for them first")
	}
	return err
}

// labelFree returns an error if another account has a label, given in lower case.
func labelFree(ctx context.Context, tx Tx, account, label, at string) error {
	if label == "" {
		return nil
	}
	owner, err := tx.SubdomainOwner(ctx, label)
	if err == nil && owner != "" && owner != account {
		err = conflict(CodeSubdomainTaken, at, "another account has the subdomain %q (case is ignored); choose another",
			label)
	}
	return err
}
