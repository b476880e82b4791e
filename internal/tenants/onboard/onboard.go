package onboard

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/tenants/plan"
)

// Kind is the kind of the keys in package flow; their ids are names of accounts.
const Kind = "tenant"

// Cloud is a tenant at Microsoft, as one sign-in sees it. Its methods are safe for concurrent use.
//
// An error of kind fault.Unauthenticated, fault.Forbidden or fault.Conflict asks for a person; its message says who
// must do what. One of kind fault.Unavailable or fault.Limited ends without an action. Every other one is a failure.
// None says anything about what has happened.
type Cloud interface {
	// Read returns the objects of the types of package plan, other people's among them; of domains and users, those
	// that are named.
	Read(ctx context.Context, named []plan.Ref) ([]plan.Object, error)
	// Get returns one object; false if it is not there.
	Get(ctx context.Context, r plan.Ref) (plan.Object, bool, error)
	// Do starts a step. What is there afterwards is for Get to say. It may be called again for the same step.
	// To delete what is in the tenant's bin is to purge it, if a person has signed in who can.
	Do(ctx context.Context, s plan.Step) error
	// RemoveConsent removes Tandem's application from the tenant, unless that was done before; afterwards nothing can
	// reach the tenant. An error of kind fault.Forbidden says that Tandem may not do so.
	RemoveConsent(ctx context.Context) error
}

// CodeNotPublished is the code of the fault of Cloud.Do when name servers, which its message names, do not have the
// record that proves a domain yet.
const CodeNotPublished = "NotPublished"

// Onboarder carries out approved plans. Its methods are safe for concurrent use.
type Onboarder struct {
	Store  Store
	Clouds func(ctx context.Context, t *Tenant) (Cloud, error)
	// Users returns what asks for the users of a plan. It may be nil if no plan has users.
	Users func(ctx context.Context, t *Tenant, plan string) (AskNext, error)
	// Left, if not nil, is called when nothing is to be removed any more from a tenant that leaves, before the consent
	// is, with why things are kept; again if it fails.
	Left func(ctx context.Context, t *Tenant, kept []plan.Note) error
	// Done, if not nil, is called when a tenant has what its plan asks for, before that is recorded; again if it fails.
	Done    func(ctx context.Context, t *Tenant) error
	Metrics *Metrics     // may be nil
	Log     *slog.Logger // may be nil
}

// log returns the logger for a tenant.
func (o *Onboarder) log(t *Tenant) *slog.Logger {
	return cmp.Or(o.Log, slog.New(slog.DiscardHandler)).With("account", t.Account, "plan", t.Plan)
}

const (
	runFor = 4 * time.Minute // package flow allows 5
	// readBack is how long a run waits for what it has done to be visible, before another continues.
	readBack = 2 * time.Minute
)

// Reconcile is the function of the kind.
func (o *Onboarder) Reconcile(ctx context.Context, run *flow.Run) (flow.Result, error) {
	var t *Tenant
	err := o.Store.View(ctx, run.ID, func(ctx context.Context, tx Tx) (err error) {
		t, err = tx.Tenant(ctx)
		return err
	})
	if fault.Is(err, fault.NotFound) { // it was deleted, or has another id now
		return flow.Result{}, nil
	}
	if err != nil || !t.Pending {
		return flow.Result{}, err
	}

	limited, cancel := context.WithTimeout(ctx, runFor)
	defer cancel()
	err = o.work(limited, run, t)
	if errors.Is(err, errReplaced) || err != nil && limited.Err() != nil && ctx.Err() == nil {
		return flow.Result{Again: time.Now()}, nil // another run continues
	}
	return o.end(ctx, run, t, err)
}

func (o *Onboarder) work(ctx context.Context, run *flow.Run, t *Tenant) error {
	if err := o.askForUsers(ctx, run, t); err != nil {
		return err
	}
	j := &job{Onboarder: o, run: run, tenant: t, target: plan.NewState(t.Target)}
	err := o.Store.View(ctx, t.Account, func(ctx context.Context, tx Tx) error {
		ledger, err := tx.Ledger(ctx)
		j.ledger, j.users = ledger.Split()
		return err
	})
	if err != nil {
		return err
	}
	if j.leaves() && len(j.users) > 0 {
		return j.waitForUsers(len(j.users))
	}

	if j.cloud, err = o.Clouds(ctx, t); err != nil {
		return waiting(err, plan.Ref{}, "reach the tenant")
	}
	if j.leaves() && t.Removing {
		return j.removeConsent(ctx)
	}
	return j.work(ctx)
}

// askForUsers begins what plans do to users. Each transaction is short, whatever the number of users, and says how far
// it is: after a process has ended, another run continues there.
func (o *Onboarder) askForUsers(ctx context.Context, run *flow.Run, t *Tenant) error {
	for o.Users != nil && len(t.Asking) > 0 {
		ask, err := o.Users(ctx, t, t.Asking[0].Plan)
		if err != nil {
			return err
		}
		for left := len(t.Asking); left == len(t.Asking); {
			var row *Tenant
			const progress = "asking for users"
			err := o.Store.Update(ctx, run, t.Account, progress, func(ctx context.Context, tx Tx) (err error) {
				if row, err = current(ctx, tx, t); err != nil {
					return err
				}
				if !slices.Equal(row.Asking, t.Asking) {
					return errReplaced
				}
				first := &row.Asking[0]
				n, err := ask(domain.WithActor(ctx, first.By), tx, first.Done)
				if err != nil {
					return err
				}
				if first.Done += n; n == 0 {
					row.Asking = row.Asking[1:]
				}
				return tx.SetTenant(ctx, row)
			})
			if err != nil {
				return err
			}
			t.Asking = row.Asking
		}
	}
	return nil
}

// end records how a run ended.
func (o *Onboarder) end(ctx context.Context, run *flow.Run, t *Tenant, err error) (flow.Result, error) {
	var result flow.Result
	var stored *Waiting
	if w, ok := errors.AsType[*wait](err); ok {
		stored = &w.Waiting
		since := time.Now()
		if old := t.Waiting; old != nil && old.For == w.For && old.Object == w.Object {
			since = old.Since
		}
		stored.last(since)
		switch w.For {
		case Person:
			result.Wait = domain.RedactPeople(w.Reason)
		case Tandem:
			result.Again = time.Now().Add(min(pause(time.Since(since)), longestLook))
		default:
			result.Again = time.Now().Add(max(pause(time.Since(since)), w.after))
		}
	} else if err != nil {
		return result, err
	}
	if stored == nil && o.Done != nil {
		if err := o.Done(ctx, t); err != nil {
			return result, err
		}
	}

	err = o.Store.Update(ctx, run, t.Account, "", func(ctx context.Context, tx Tx) error {
		row, err := current(ctx, tx, t)
		if err != nil {
			return err
		}
		if row.Waiting, row.Pending = stored, stored != nil; !row.Pending {
			row.RemoveConsent, row.Removing, t.Open = false, false, nil
		}
		row.Open = t.Open
		if err := tx.SetTenant(ctx, row); err != nil {
			return err
		}
		return o.event(ctx, tx, row, t.Waiting)
	})
	if errors.Is(err, errReplaced) {
		return flow.Result{Again: time.Now()}, nil
	}
	if err == nil && stored == nil {
		done := map[Purpose]string{Onboard: "tenant onboarded", Leave: "tenant left", Restore: "tenant restored",
			Repair: "tenant repaired"}
		o.log(t).Info(done[t.Purpose], "took", time.Since(t.Applied).Round(time.Second))
	}
	return result, err
}

// event makes an event of how a run ended, unless the tenant waits for the same as before.
func (o *Onboarder) event(ctx context.Context, tx Tx, t *Tenant, before *Waiting) error {
	w := t.Waiting
	kind, data := "tenant.onboarded", map[string]any{"purpose": t.Purpose}
	switch {
	case w != nil && before != nil && w.For == before.For && w.Object == before.Object:
		return nil
	case w != nil:
		kind, data = "tenant.waiting", map[string]any{"for": w.For, "reason": domain.RedactPeople(w.Reason)}
	case t.Purpose == Leave:
		kind = "tenant.left"
	}
	return tx.Event(ctx, kind, t.Account, data)
}

// errReplaced ends a run during which another plan was approved.
var errReplaced = errors.New("another plan was approved")

// current returns the row of a tenant, or errReplaced.
func current(ctx context.Context, tx Tx, t *Tenant) (*Tenant, error) {
	row, err := tx.Tenant(ctx)
	if err == nil && row.Approved != t.Approved {
		return nil, errReplaced
	}
	return row, err
}
