// Package rollout keeps the templates of tenants, and carries a changed template to all tenants that have it.
//
// A template has what many tenants have in common. A rollout first makes a plan for each onboarded tenant of the
// template, which changes nothing there. A person approves them as one; then they are applied ring after ring:
//
//	planning ──▶ planned ──apply──▶ running ──▶ done
//	    ▲                            │   ▲
//	    │ a plan was refused         ▼   │ apply
//	    └────────── apply ───────── stopped        (abandoned from each state but done)
//
// The next ring begins when all tenants of the one before are onboarded again. The first failure, refused plan or wait
// for a person stops the rollout. It is work of package flow: each run begins with what is stored, so a process may be
// killed at any point.
package rollout

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
)

// Kind is the kind of the keys in package flow; their ids are those of rollouts.
const Kind = "tenantRollout"

// MaxRollouts is how many rollouts of a template are kept.
const MaxRollouts = 20

// Template is what tenants have in common.
type Template struct {
	Name    string         `json:"-"`
	Changed time.Time      `json:"changed"`
	Wishes  onboard.Wishes `json:"wishes"`
	Tenants int            `json:"-"` // how many have it
}

// State is how far a rollout is.
type State string

// The states.
const (
	Planning  State = "planning"
	Planned   State = "planned"
	Running   State = "running"
	Stopped   State = "stopped"
	Done      State = "done"
	Abandoned State = "abandoned"
)

// Open reports whether the rollout is under way.
func (s State) Open() bool { return s != Done && s != Abandoned }

// Works reports whether the rollout has work to do.
func (s State) Works() bool { return s == Planning || s == Running }

// Rollout is the way of a template to its tenants.
type Rollout struct {
	ID       string    `json:"-"`
	Template string    `json:"-"`
	State    State     `json:"-"`
	Begun    time.Time `json:"begun"`
	By       string    `json:"by"`
	Ring     int       `json:"ring"`  // the present one, from 1 on
	Rings    int       `json:"rings"` // how many
	Account  string    `json:"account,omitempty"`
	Reason   string    `json:"reason,omitempty"`  // why it is stopped
	Refused  bool      `json:"refused,omitempty"` // because of a plan, not of what was applied
	Tenants  []Tenant  `json:"tenants"`
}

// Tenant is a tenant's part of a rollout.
type Tenant struct {
	Account string `json:"account"`
	Ring    int    `json:"ring"`
	Plan    string `json:"plan,omitempty"` // its id; empty before it is made
	// Create, Change and Delete are how many steps the plan has, and Conflicts what a person has to solve first.
	Create    int    `json:"create"`
	Change    int    `json:"change"`
	Delete    int    `json:"delete"`
	Conflicts int    `json:"conflicts"`
	Problem   string `json:"problem,omitempty"` // why there is no plan, or the first conflict
	Waits     string `json:"-"`                 // for what, if it was applied and is not done
	Applied   bool   `json:"applied,omitempty"`
	Done      bool   `json:"done,omitempty"`
}

// Ring selects tenants: accounts, or as many as make up a percentage of all with those of the rings before.
type Ring struct {
	Accounts []string
	Percent  int
}

// Tx is a transaction.
type Tx interface {
	// Template returns a template; an error of kind fault.NotFound if there is none with that name.
	Template(ctx context.Context, name string) (*Template, error)
	SetTemplate(ctx context.Context, t *Template) error
	DeleteTemplate(ctx context.Context, name string) error
	// Members returns the accounts whose tenants have a template and are onboarded, in order.
	Members(ctx context.Context, template string) ([]string, error)
	// Rollout returns a rollout, locked until the end of the transaction; an error of kind fault.NotFound if there is
	// none.
	Rollout(ctx context.Context, id string) (*Rollout, error)
	// Rollouts returns those of a template, the newest first.
	Rollouts(ctx context.Context, template string) ([]*Rollout, error)
	// SetRollout stores a rollout, and enqueues it if it has work to do. The oldest ones beyond MaxRollouts are
	// dropped.
	SetRollout(ctx context.Context, r *Rollout) error
	Audit(ctx context.Context, action, target string, what any) error
	Event(ctx context.Context, kind, subject string, data map[string]any) error
}

// Store has the templates and the rollouts.
type Store interface {
	ViewRollouts(ctx context.Context, fn func(context.Context, Tx) error) error
	// UpdateRollouts runs fn in a transaction. If run is not nil, it is a step of the run, with the progress.
	UpdateRollouts(ctx context.Context, run *flow.Run, progress string, fn func(context.Context, Tx) error) error
	// Templates returns up to limit templates after a name, in order.
	Templates(ctx context.Context, after string, limit int) ([]*Template, error)
	// Pending returns up to limit ids after one, in order, of rollouts that have work to do.
	PendingRollouts(ctx context.Context, after string, limit int) ([]string, error)
}

// Planner makes and applies plans of tenants.
type Planner interface {
	Plan(ctx context.Context, account string, o onboard.Order, by string) (*onboard.Proposal, error)
	Apply(ctx context.Context, account, id string) (*onboard.Proposal, error)
}

// Service does what callers ask for, and the work. Its methods are safe for concurrent use.
type Service struct {
	Store   Store
	Planner Planner
	// Tenant returns the row of a tenant. Failed returns why work on it was abandoned; empty if it was not.
	Tenant func(ctx context.Context, account string) (*onboard.Tenant, error)
	Failed func(ctx context.Context, account string) (string, error)
	Log    *slog.Logger
}

// Put stores a template.
func (s *Service) Put(ctx context.Context, name string, w onboard.Wishes) error {
	return s.Store.UpdateRollouts(ctx, nil, "", func(ctx context.Context, tx Tx) error {
		t := &Template{Name: name, Changed: time.Now().UTC().Truncate(time.Second), Wishes: w}
		if err := tx.SetTemplate(ctx, t); err != nil {
			return err
		}
		return tx.Audit(ctx, "template.put", name, w)
	})
}

// Delete deletes a template that no tenant has.
func (s *Service) Delete(ctx context.Context, name string) error {
	return s.Store.UpdateRollouts(ctx, nil, "", func(ctx context.Context, tx Tx) error {
		t, err := tx.Template(ctx, name)
		if err != nil {
			return err
		}
		if t.Tenants > 0 {
			return fault.New(fault.Conflict, "TemplateInUse", "the template %q is used by %s (tandem tenant list "+
				"--template %[1]s); give each another one first", name, domain.Count(t.Tenants, "tenant"))
		}
		if err := tx.DeleteTemplate(ctx, name); err != nil {
			return err
		}
		return tx.Audit(ctx, "template.delete", name, nil)
	})
}

// Get returns a template.
func (s *Service) Get(ctx context.Context, name string) (t *Template, err error) {
	err = s.Store.ViewRollouts(ctx, func(ctx context.Context, tx Tx) error {
		t, err = tx.Template(ctx, name)
		return err
	})
	return t, err
}

// List returns the newest rollouts of a template, the newest first.
func (s *Service) List(ctx context.Context, template string) (all []*Rollout, err error) {
	err = s.Store.ViewRollouts(ctx, func(ctx context.Context, tx Tx) error {
		if _, err := tx.Template(ctx, template); err != nil {
			return err
		}
		all, err = tx.Rollouts(ctx, template)
		return err
	})
	return all, err
}

// Rollout returns a rollout of a template.
func (s *Service) Rollout(ctx context.Context, template, id string) (r *Rollout, err error) {
	err = s.Store.ViewRollouts(ctx, func(ctx context.Context, tx Tx) error {
		r, err = of(ctx, tx, template, id)
		return err
	})
	if err != nil {
		return nil, err
	}
	for i := range r.Tenants {
		x := &r.Tenants[i]
		if !x.Applied || x.Done {
			continue
		}
		t, err := s.Tenant(ctx, x.Account)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return nil, err
		}
		if err == nil && t.Pending && t.Waiting != nil {
			x.Waits = fmt.Sprintf("waits for %s since %s: %s", t.Waiting.For, t.Waiting.Since.UTC().Format(
				"2006-01-02 15:04 UTC"), t.Waiting.Reason)
		}
	}
	return r, nil
}

// of returns a rollout of a template.
func of(ctx context.Context, tx Tx, template, id string) (*Rollout, error) {
	r, err := tx.Rollout(ctx, id)
	if err == nil && r.Template != template {
		err = NotFound(id)
	}
	return r, err
}

// NotFound is the error for a rollout that does not exist.
func NotFound(id string) error {
	return fault.New(fault.NotFound, "RolloutNotFound", "there is no rollout %q (tandem tenant template rollout list)",
		id)
}

// Begin begins a rollout: its plans are made when it returns, or later.
func (s *Service) Begin(ctx context.Context, template string, rings []Ring, by string) (r *Rollout, err error) {
	err = s.Store.UpdateRollouts(ctx, nil, "", func(ctx context.Context, tx Tx) error {
		if _, err := tx.Template(ctx, template); err != nil {
			return err
		}
		others, err := tx.Rollouts(ctx, template)
		if err != nil {
			return err
		}
		if i := slices.IndexFunc(others, func(o *Rollout) bool { return o.State.Open() }); i >= 0 {
			return fault.New(fault.Conflict, "RolloutExists", "rollout %s of the template is %s; apply or abandon it "+
				"first", others[i].ID, others[i].State)
		}
		accounts, err := tx.Members(ctx, template)
		if err != nil {
			return err
		}
		r = &Rollout{ID: rand.Text()[:10], Template: template, State: Planning, By: by, Ring: 1,
			Begun: time.Now().UTC().Truncate(time.Second)}
		if r.Tenants, r.Rings, err = divide(accounts, rings); err != nil {
			return err
		}
		if err := tx.SetRollout(ctx, r); err != nil {
			return err
		}
		return tx.Audit(ctx, "tenant.beginRollout", template, map[string]any{"rollout": r.ID, "tenants": len(accounts)})
	})
	return r, err
}

// divide divides accounts into rings, and returns how many those are. Accounts that no ring has form a last one.
func divide(accounts []string, rings []Ring) (all []Tenant, n int, err error) {
	if len(accounts) == 0 {
		return nil, 0, fault.New(fault.Conflict, "NoTenants", "no onboarded tenant has the template; others get "+
			"what it has with their first plan")
	}
	if len(rings) == 0 {
		rings = []Ring{{Percent: 10}}
	}
	invalid := func(i int, format string, args ...any) error {
		return fault.New(fault.Invalid, "InvalidRings", format, args...).At(fmt.Sprintf("rings[%d]", i))
	}

	left := slices.Clone(accounts)
	take := func(account string) {
		all = append(all, Tenant{Account: account, Ring: n})
		left = slices.DeleteFunc(left, func(a string) bool { return a == account })
	}
	for i, r := range append(slices.Clone(rings), Ring{Percent: 100}) {
		if (len(r.Accounts) > 0) == (r.Percent > 0) {
			return nil, 0, invalid(i, "a ring has either accounts or a percentage")
		}
		before := len(all)
		n++
		for _, account := range r.Accounts {
			if !slices.Contains(left, account) {
				return nil, 0, invalid(i, "account %q is in an earlier ring, or has no onboarded tenant with the "+
					"template", account)
			}
			take(account)
		}
		for len(left) > 0 && r.Percent > 0 && (len(all) == before || (len(all)+1)*100 <= r.Percent*len(accounts)) {
			take(left[0])
		}
		if len(all) == before {
			n-- // nothing is left for it
		}
	}
	return all, n, nil
}

// Apply approves a rollout that is planned, or continues one that has stopped.
func (s *Service) Apply(ctx context.Context, template, id string) (*Rollout, error) {
	return s.change(ctx, template, id, "tenant.applyRollout", func(r *Rollout) error {
		switch {
		case r.State == Stopped && r.Refused: // the plans are old: a person approves new ones
			r.State = Planning
			for i := range r.Tenants {
				if t := &r.Tenants[i]; !t.Applied {
					*t = Tenant{Account: t.Account, Ring: t.Ring}
				}
			}
		case r.State == Stopped:
			r.State = Running
		case r.State != Planned:
			return wrongState(r)
		default:
			for _, t := range r.Tenants {
				if t.Problem != "" && !t.Applied {
					return fault.New(fault.Conflict, "RolloutHasConflicts", "tenant %s: %s; solve that, abandon this "+
						"rollout and begin another", t.Account, t.Problem)
				}
			}
			r.State = Running
		}
		r.Account, r.Reason, r.Refused = "", "", false
		return nil
	})
}

// Abandon ends a rollout. What was applied stays.
func (s *Service) Abandon(ctx context.Context, template, id string) (*Rollout, error) {
	return s.change(ctx, template, id, "tenant.abandonRollout", func(r *Rollout) error {
		if !r.State.Open() {
			return wrongState(r)
		}
		r.State = Abandoned
		return nil
	})
}

func wrongState(r *Rollout) error {
	return fault.New(fault.Conflict, "RolloutState", "rollout %s is %s", r.ID, r.State)
}

func (s *Service) change(ctx context.Context, template, id, action string, fn func(*Rollout) error) (r *Rollout,
	err error) {
	err = s.Store.UpdateRollouts(ctx, nil, "", func(ctx context.Context, tx Tx) error {
		if r, err = of(ctx, tx, template, id); err != nil {
			return err
		}
		if err := fn(r); err != nil {
			return err
		}
		if err := tx.SetRollout(ctx, r); err != nil {
			return err
		}
		return tx.Audit(ctx, action, template, map[string]any{"rollout": id, "state": r.State})
	})
	return r, err
}

// Work returns the kind for the worker.
func (s *Service) Work() *flow.Kind {
	return &flow.Kind{Name: Kind, Reconcile: s.Reconcile, List: s.Store.PendingRollouts}
}

const (
	runFor = 4 * time.Minute // package flow allows 5
	look   = 5 * time.Second // between looks at the tenants of a ring
)

// Reconcile is the function of the kind.
func (s *Service) Reconcile(ctx context.Context, run *flow.Run) (flow.Result, error) {
	for began := time.Now(); time.Since(began) < runFor; {
		var r *Rollout
		err := s.Store.ViewRollouts(ctx, func(ctx context.Context, tx Tx) (err error) {
			r, err = tx.Rollout(ctx, run.ID)
			return err
		})
		switch {
		case fault.Is(err, fault.NotFound):
			return flow.Result{}, nil
		case err != nil:
			return flow.Result{}, err
		case r.State == Planning:
			err = s.plan(ctx, run, r)
		case r.State == Running:
			var wait bool
			if wait, err = s.apply(ctx, run, r); wait {
				return flow.Result{Again: time.Now().Add(look)}, nil
			}
		default:
			return flow.Result{}, nil
		}
		if err != nil {
			return flow.Result{}, err
		}
	}
	return flow.Result{Again: time.Now()}, nil
}

// plan makes the next plan.
func (s *Service) plan(ctx context.Context, run *flow.Run, r *Rollout) error {
	i := slices.IndexFunc(r.Tenants, func(t Tenant) bool { return !t.Applied && t.Plan == "" && t.Problem == "" })
	if i < 0 {
		return s.save(ctx, run, r, func(r *Rollout) { r.State = Planned }, "")
	}
	t := r.Tenants[i]
	p, err := s.Planner.Plan(ctx, t.Account, onboard.Order{Purpose: onboard.Onboard}, r.By)
	if f := fault.As(err); transient(run, err) {
		return fmt.Errorf("plan tenant %s: %w", t.Account, err)
	} else if err != nil {
		t.Problem = f.Message
	} else {
		t.Plan, t.Conflicts = p.ID, len(p.Plan.Conflicts)
		if t.Conflicts > 0 {
			c := p.Plan.Conflicts[0]
			t.Problem = fmt.Sprintf("%s %s: %s", c.Type, c.Name, c.Text)
		}
		for _, step := range p.Plan.Steps {
			*map[plan.Action]*int{plan.Create: &t.Create, plan.Change: &t.Change, plan.Delete: &t.Delete}[step.Action]++
		}
	}
	return s.save(ctx, run, r, func(r *Rollout) { r.Tenants[i] = t }, "plan "+t.Account)
}

// transient reports whether to try again soon.
func transient(run *flow.Run, err error) bool {
	const attempts = 5
	if err == nil {
		return false
	}
	switch fault.As(err).Kind {
	case fault.Internal, fault.Limited:
		return true
	case fault.Unavailable:
		return run.Attempt < attempts
	}
	return false
}

// apply applies the plans of a ring, and goes on to the next when its tenants are onboarded again. It reports whether
// there is nothing to do but to wait for them.
func (s *Service) apply(ctx context.Context, run *flow.Run, r *Rollout) (wait bool, err error) {
	for i, t := range r.Tenants {
		if t.Ring != r.Ring || t.Done {
			continue
		}
		if !t.Applied {
			// A process that ended here has perhaps applied the plan already.
			_, err := s.Planner.Apply(ctx, t.Account, t.Plan)
			if f := fault.As(err); err != nil && f.Code != "PlanApplied" {
				if transient(run, err) {
					return false, fmt.Errorf("apply the plan of tenant %s: %w", t.Account, err)
				}
				return false, s.stop(ctx, run, r, t.Account, f.Message, true)
			}
			t.Applied = true
			return false, s.save(ctx, run, r, func(r *Rollout) { r.Tenants[i] = t }, "apply "+t.Account)
		}

		row, err := s.Tenant(ctx, t.Account)
		if fault.Is(err, fault.NotFound) {
			return false, s.stop(ctx, run, r, t.Account, "the tenant was deleted; abandon the rollout", false)
		}
		if err != nil {
			return false, err
		}
		failed, err := s.Failed(ctx, t.Account)
		switch w := row.Waiting; {
		case err != nil:
			return false, err
		case failed != "":
			return false, s.stop(ctx, run, r, t.Account, failed, false)
		case row.Purpose == onboard.Leave:
			return false, s.stop(ctx, run, r, t.Account, "the tenant is being left", false)
		case row.Pending && w != nil && w.For == onboard.Person:
			return false, s.stop(ctx, run, r, t.Account, w.Reason, false)
		case row.Pending:
			wait = true
		default:
			t.Done = true
			return false, s.save(ctx, run, r, func(r *Rollout) { r.Tenants[i] = t }, "")
		}
	}
	if wait {
		return true, nil
	}
	return false, s.save(ctx, run, r, func(r *Rollout) {
		if r.Ring++; r.Ring > r.Rings {
			r.Ring, r.State = r.Rings, Done
		}
	}, "")
}

func (s *Service) stop(ctx context.Context, run *flow.Run, r *Rollout, account, reason string, refused bool) error {
	s.Log.Warn("a rollout has stopped", "template", r.Template, "rollout", r.ID, "account", account, "reason", reason)
	return s.save(ctx, run, r, func(r *Rollout) {
		r.State, r.Account, r.Reason, r.Refused = Stopped, account, reason, refused
	}, "")
}

// save stores a change, unless a person has changed the state meanwhile.
func (s *Service) save(ctx context.Context, run *flow.Run, was *Rollout, fn func(*Rollout), progress string) error {
	return s.Store.UpdateRollouts(ctx, run, progress, func(ctx context.Context, tx Tx) error {
		r, err := tx.Rollout(ctx, was.ID)
		if err != nil || r.State != was.State {
			return err
		}
		fn(r)
		if err := tx.SetRollout(ctx, r); err != nil {
			return err
		}
		switch {
		case r.State == Stopped:
			return tx.Event(ctx, "tenant.rolloutStopped", r.Template, map[string]any{"rollout": r.ID,
				"account": r.Account, "reason": domain.RedactPeople(r.Reason)})
		case r.State == Done:
			return tx.Event(ctx, "tenant.rolledOut", r.Template, map[string]any{"rollout": r.ID})
		}
		return nil
	})
}
