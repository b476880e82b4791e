package user

import (
	"context"
	"slices"
	"strings"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
)

// DeactivateNext asks to put back what up to limit users of a tenant that leaves had, and returns how many those are:
// none if it was asked for all. It has ended when the ledger has no entry of type plan.User.
func DeactivateNext(ctx context.Context, tx Tx, account string, limit int) (int, error) {
	page, err := tx.Activated(ctx, "", limit)
	if err != nil {
		return 0, err
	}
	for i := range page {
		if err := deactivate(ctx, tx, account, &page[i]); err != nil {
			return 0, err
		}
	}
	return len(page), nil
}

// Selected returns the ids of up to limit inactive users that are selected, in order, without those excepted.
func (s *Service) Selected(ctx context.Context, account string, rule onboard.Selection, except []string,
	limit int) (ids []string, err error) {
	err = s.Store.View(ctx, account, func(ctx context.Context, tx Tx) error {
		f := Filter{State: Inactive, Department: rule.Department, Location: rule.Location, Kind: "user"}
		for after := (Key{}); ; {
			page, err := tx.Users(ctx, f, after, limit)
			if err != nil {
				return err
			}
			for _, u := range page {
				if after = (Key{strings.ToLower(u.UPN), u.ID}); !slices.Contains(except, u.ID) {
					ids = append(ids, u.ID)
				}
			}
			if len(page) < limit || len(ids) >= limit {
				return nil
			}
		}
	})
	return ids[:min(len(ids), limit)], err
}

// Activations returns what inactive users are to have, with the next free numbers, and have now. An error says which of
// them cannot be activated, and why.
func (s *Service) Activations(ctx context.Context, account string, ids []string) (made []plan.Made, err error) {
	r := Request{NextNumber: true, DryRun: true}
	for _, id := range ids {
		r.Items = append(r.Items, Item{User: id})
	}
	outcomes, _, err := s.Activate(ctx, account, r)
	if err != nil {
		return nil, err
	}

	err = s.Store.View(ctx, account, func(ctx context.Context, tx Tx) error {
		t, err := tx.Tenant(ctx)
		if err != nil {
			return err
		}
		for _, o := range outcomes {
			if o.Code != "" {
				return fault.New(fault.Conflict, o.Code, "%s cannot be activated: %s", o.User, o.Refused)
			}
			u, err := tx.User(ctx, o.ID)
			if err != nil {
				return err
			}
			want := plan.UserObject(&t.Settings, plan.Activation{ID: u.ID, Number: o.Number})
			grouped(want, u, false)
			made = append(made, plan.Made{Object: want, Before: u.object().Fields})
		}
		return nil
	})
	return made, err
}

// Restore asks to activate users as a plan has them, but for those that are active again. The rows of users are
// forgotten some time after a leave: each gets one again, and what no longer exists is found out by its run.
func Restore(ctx context.Context, tx Tx, account string, activations []Activation) error {
	for _, a := range activations {
		u, err := tx.User(ctx, a.ID)
		if fault.Is(err, fault.NotFound) {
			if err = tx.PutProfiles(ctx, 1, []Profile{{ID: a.ID}}); err == nil {
				u, err = tx.User(ctx, a.ID)
			}
		}
		if err != nil {
			return err
		}
		if u.Activation != nil {
			continue
		}
		u.Activation, u.Pending, u.Waiting = new(a), true, nil
		if err := tx.Ask(ctx, u); err != nil {
			return err
		}
		err = tx.Audit(ctx, "tenant.user.activate", account+"/"+u.ID, map[string]any{"user": u.UPN,
			"number": Base(a.Number).Redacted(), "overrideGroup": a.OverrideGroup})
		if err != nil {
			return err
		}
	}
	return nil
}

// Repair asks to put back what a plan to repair says of users: what Tandem gave them or, where a step takes that, what
// they had before.
func Repair(ctx context.Context, tx Tx, account string, steps []plan.Step) error {
	for _, s := range steps {
		u, err := tx.User(ctx, s.Name)
		if err != nil {
			return err
		}
		for _, d := range s.Differences {
			if d.Field == "number" && u.Activation != nil && d.New != u.Activation.Number {
				u.Activation = nil
			}
		}
		u.Pending, u.Waiting = true, nil
		if err := tx.Ask(ctx, u); err != nil {
			return err
		}
		if err := tx.Audit(ctx, "tenant.user.repair", account+"/"+u.ID, map[string]any{"user": u.UPN}); err != nil {
			return err
		}
	}
	return nil
}

// Accept makes what was found of a user what it is to have, by fields of package plan; without fields it is no longer
// Tandem's, and keeps what it has.
func Accept(ctx context.Context, tx Tx, found plan.Object) error {
	u, err := tx.User(ctx, found.Name)
	if fault.Is(err, fault.NotFound) || err == nil && u.Activation == nil {
		return nil
	}
	if err != nil {
		return err
	}

	number, _ := found.Fields["number"].(string)
	if len(found.Fields) == 0 || number == "" {
		u.Activation = nil
	} else {
		u.Activation.Number = number
		u.Activation.CallerID, _ = found.Fields["callerID"].(string)
	}
	u.Pending, u.Waiting = false, nil
	return tx.Settle(ctx, u)
}
