package node

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/tenants/invite"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
)

// Findings implements invite.Readiness.
func (x *tenants) Findings(ctx context.Context, account string) ([]invite.Finding, error) {
	return x.readiness.Findings(ctx, account)
}

// Work implements invite.Progress.
func (x *tenants) Work(ctx context.Context, account string) (*invite.Work, error) {
	t, err := x.row(ctx, account)
	if fault.Is(err, fault.NotFound) {
		return &invite.Work{}, nil
	}
	if err != nil {
		return nil, err
	}

	w := &invite.Work{Done: t.Purpose != "" && !t.Pending && t.Purpose != onboard.Leave,
		Left: t.Purpose == onboard.Leave && !t.Pending}
	if !t.Pending {
		return w, nil
	}
	var made plan.Ledger
	err = x.store.View(ctx, account, func(ctx context.Context, tx onboard.Tx) (err error) {
		made, err = tx.Ledger(ctx)
		return err
	})
	w.Tasks = tasks(t, made)
	return w, err
}

// taskTitles name the work on objects for the customer's administrator. Others are not shown one by one.
var taskTitles = map[plan.Type]string{plan.Domain: "Add the name", plan.ActivationUser: "Create the user",
	plan.SIPDomain: "Microsoft activates", plan.RoutingPolicy: "Create the calling policy",
	plan.Route: "Create the route", plan.DialPlan: "Create the dial plan",
	plan.EmergencyPolicy: "Create the emergency policy"}

// tasks returns the work on a tenant for the customer's administrator, with what it waits for.
func tasks(t *onboard.Tenant, made plan.Ledger) (all []invite.Task) {
	for _, o := range t.Target {
		title, shown := taskTitles[o.Type]
		if !shown {
			continue
		}
		task := invite.Task{Title: title + " " + o.Name, State: "planned"}
		_, begun := made.Get(o.Ref)
		if open := slices.Contains(t.Open, o.Ref); begun && !open {
			task.State = "done"
		} else if begun && t.Approved == "" &&
			(!o.Type.Observed() || t.Waiting != nil && t.Waiting.Object.Type == o.Type) {
			task.State = "running" // what Microsoft makes is recorded before its turn
		}
		if w := t.Waiting; w != nil && w.Object == o.Ref {
			task.State, task.Detail = "waiting", cmp.Or(w.Customer, w.Reason)
			if w.Longest > 0 && !w.Late {
				task.Detail += fmt.Sprintf(" (usually %s, at most %s)", w.Usual, w.Longest)
			}
		}
		all = append(all, task)
	}

	waits := slices.ContainsFunc(all, func(x invite.Task) bool { return x.State == "waiting" })
	if w := t.Waiting; w != nil && !waits {
		all = append(all, invite.Task{Title: "The work", State: "waiting", Detail: cmp.Or(w.Customer, w.Reason)})
	}
	if len(all) == 0 {
		all = append(all, invite.Task{Title: "Remove what was made", State: "running"})
	}
	return all
}
