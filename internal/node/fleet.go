package node

import (
	"context"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
	"github.com/tandemgw/tandem/internal/tenants/move"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
	"github.com/tandemgw/tandem/internal/tenants/rollout"
)

// buildFleet makes what concerns many tenants, or two tenants of an account.
func (x *tenants) buildFleet() {
	x.work = onboard.NewMetrics(x.n.metrics)
	x.planner.Metrics = x.work
	x.rollouts = &rollout.Service{Store: x.store, Planner: x.planner, Tenant: x.row, Failed: x.failed, Log: x.log}
	x.planner.Template = func(ctx context.Context, name string) (onboard.Wishes, error) {
		t, err := x.rollouts.Get(ctx, name)
		if err != nil {
			return onboard.Wishes{}, err
		}
		return t.Wishes, nil
	}
	x.planner.Log = x.log
	x.moves = &move.Service{Store: x.store, Users: x.users, Log: x.log,
		Labels: accountLabels{x.inventory()}}
}

// row returns the row of a tenant.
func (x *tenants) row(ctx context.Context, id string) (t *onboard.Tenant, err error) {
	err = x.store.View(ctx, id, func(ctx context.Context, tx onboard.Tx) error {
		t, err = tx.Tenant(ctx)
		return err
	})
	return t, err
}

// failed returns why work on a tenant was abandoned; "" if it was not.
func (x *tenants) failed(ctx context.Context, account string) (string, error) {
	const size = 100
	for after := (flow.Key{}); ; {
		parked, err := x.n.core.work.List(ctx, onboard.Kind, flow.Parked, after, size)
		if err != nil {
			return "", err
		}
		for _, i := range parked {
			if after = i.Key; i.ID == account {
				return i.Reason, nil
			}
		}
		if len(parked) < size {
			return "", nil
		}
	}
}

// labelled makes a move that waits for a tenant look at it, and tidies the labels of the account.
func (x *tenants) labelled(ctx context.Context, t *onboard.Tenant) error {
	if t.Account == onboard.Carrier {
		return nil
	}
	account := onboard.Owner(t.Account)
	if _, err := x.moves.Get(ctx, account); err == nil {
		err = x.n.core.db.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
			return x.n.core.work.Enqueue(ctx, tx, move.Kind, time.Now().Add(time.Second), account)
		})
		if err != nil {
			return err
		}
	} else if !fault.Is(err, fault.NotFound) {
		return err
	}
	if t.Purpose == onboard.Leave {
		return nil
	}

	a, err := x.n.core.directory.Account(ctx, account)
	if err != nil || a.Pending == nil {
		return err
	}
	// A label took the place of one that calls have never used, which is the active one of an account until then.
	active := a.Active()
	if active.Onboarded && t.Account == account && !t.HasLabel(active.Subdomain) && t.HasLabel(a.Pending.Subdomain) {
		_, err := x.n.core.directory.ActivateLabel(ctx, account, a.Pending.Subdomain, directory.Write{})
		if err != nil {
			return err
		}
	}
	return x.releasePending(ctx, account, "")
}

// monitored records for which labels of an account a tenant has gateway objects: OPTIONS are sent for their names.
func (x *tenants) monitored(ctx context.Context, t *onboard.Tenant) error {
	if t.Account == onboard.Carrier {
		return nil
	}
	account := onboard.Owner(t.Account)
	var labels []string
	for _, id := range []string{account, account + onboard.Next} {
		row, err := x.row(ctx, id)
		if fault.Is(err, fault.NotFound) || err == nil && row.Purpose == onboard.Leave && id == t.Account {
			continue
		}
		if err != nil {
			return err
		}
		for _, l := range row.Settings.Labels {
			if l.Trunk == plan.Gateways && row.State() != onboard.Left {
				labels = append(labels, l.Name)
			}
		}
	}
	err := x.n.core.directory.SetGateways(ctx, account, labels)
	if t.Purpose == onboard.Leave && fault.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

// releasePending releases the pending label of an account if the onboarding owns it and no tenant of the account has
// it, but for the label except.
func (x *tenants) releasePending(ctx context.Context, account, except string) error {
	a, err := x.n.core.directory.Account(ctx, account)
	if err != nil || a.Pending == nil || !a.Pending.Onboarded || strings.EqualFold(a.Pending.Subdomain, except) {
		return err
	}
	for _, id := range []string{account, account + onboard.Next} {
		t, err := x.row(ctx, id)
		if err == nil && t.HasLabel(a.Pending.Subdomain) {
			return nil
		}
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
	}
	return x.n.core.directory.ReleaseLabel(ctx, account, a.Pending.Subdomain)
}

// ownLabels implements onboard.Deployment.Labels.
func (x *tenants) ownLabels(ctx context.Context, id string) ([]domain.Label, error) {
	a, err := x.n.core.directory.Account(ctx, onboard.Owner(id))
	l := a.Active()
	if id != onboard.Owner(id) { // the account moves there
		if l = (domain.Label{}); a.Pending != nil {
			l = *a.Pending
		}
	}
	if err != nil || l.Subdomain == "" {
		return nil, err
	}
	return []domain.Label{l}, nil
}

// taken implements onboard.Deployment.Taken.
func (x *tenants) taken(ctx context.Context, id, label string) (bool, error) {
	account := onboard.Owner(id)
	owner, err := x.n.core.directory.LabelOwner(ctx, label)
	if err != nil || owner == "" || owner != account || id == account {
		return owner != "" && owner != account, err
	}
	a, err := x.n.core.directory.Account(ctx, account)
	return strings.EqualFold(a.Active().Subdomain, label), err
}

// used implements onboard.Deployment.Used.
func (x *tenants) used(ctx context.Context, id, label string) (bool, error) {
	account := onboard.Owner(id)
	a, err := x.n.core.directory.Account(ctx, account)
	if err != nil || strings.EqualFold(a.Active().Subdomain, label) {
		return err == nil, err
	}
	ns, err := accountLabels{x.inventory()}.Recorded(ctx, account, label, "", 1)
	return len(ns) > 0, err
}

// accountLabels implements move.Labels.
type accountLabels struct{ i inventory }

func (l accountLabels) Of(ctx context.Context, account string) (active, pending string, err error) {
	a, err := l.i.d.Account(ctx, account)
	if a.Pending != nil {
		pending = a.Pending.Subdomain
	}
	return a.Active().Subdomain, pending, err
}

func (l accountLabels) Activate(ctx context.Context, account, label string) error {
	_, err := l.i.d.ActivateLabel(ctx, account, label, directory.Write{})
	return err
}

func (l accountLabels) Recorded(ctx context.Context, account, label string, after domain.E164,
	limit int) ([]domain.E164, error) {
	ns, err := l.i.d.LabelNumbers(ctx, account, label, after, limit)
	if fault.HasCode(err, directory.CodeLabelNotFound) {
		return nil, nil
	}
	return ns, err
}

func (l accountLabels) Record(ctx context.Context, account, label string, ns []domain.E164) error {
	return l.i.d.RecordLabel(ctx, account, label, ns)
}

func (l accountLabels) Release(ctx context.Context, account, label string) error {
	return l.i.d.ReleaseLabel(ctx, account, label)
}

func (l accountLabels) Has(ctx context.Context, account string, ns []string) ([]string, error) {
	return l.i.among(account)(ctx, ns)
}
