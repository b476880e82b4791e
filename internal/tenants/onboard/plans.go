package onboard

import (
	"cmp"
	"context"
	"crypto/rand"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/tenants/plan"
)

// Purpose is what a plan is for.
type Purpose string

// The purposes.
const (
	Onboard Purpose = "onboard" // the tenant has what its settings say
	Leave   Purpose = "leave"   // it has nothing of Tandem
	Restore Purpose = "restore" // it has what a snapshot says
	Repair  Purpose = "repair"  // it has again what a person has changed
)

// MaxProposals is how many plans of a tenant are kept.
const MaxProposals = 20

// Proposal is a plan that can be approved. It was made from what the tenant had at that time.
type Proposal struct {
	ID       string    `json:"id"`
	Account  string    `json:"-"`
	TenantID string    `json:"tenantId"`
	Purpose  Purpose   `json:"purpose"`
	Made     time.Time `json:"made"`
	By       string    `json:"by"`
	// Snapshot is the id of the one to restore.
	Snapshot      string    `json:"snapshot,omitempty"`
	RemoveConsent bool      `json:"removeConsent,omitempty"`
	Applied       time.Time `json:"applied,omitzero"`

	Settings plan.Settings `json:"settings"`
	MadeFor  Dial          `json:"madeFor,omitzero"`
	Target   []plan.Object `json:"target"`
	Plan     plan.Plan     `json:"plan"`
	// Users are the steps for users, which run beside each other and are not part of the hash.
	Users []plan.Step `json:"users,omitempty"`
	// Opened are usages of other people, with the routes that users of Tandem's policy can use through them.
	Opened []plan.Note `json:"opened,omitempty"`
	// Restores are what users get that are to be active: as a snapshot has it, or as the settings select them. Wishes
	// is what was decided when a snapshot was taken, and Stays what a person has changed in between.
	Restores []plan.Made `json:"restores,omitempty"`
	Wishes   *Wishes     `json:"wishes,omitempty"`
	Stays    []plan.Note `json:"stays,omitempty"`
}

// Restoration is what a tenant should have so that it is as in a snapshot.
type Restoration struct {
	Wishes   Wishes
	Settings plan.Settings
	MadeFor  Dial
	Objects  []plan.Object
	Users    []plan.Made // with what they have to have again, and had before Tandem
	Notes    []plan.Note // what a person has changed in between, which stays
}

// Source is a tenant from which plans are made.
type Source interface {
	Cloud
	// Facts returns what settings depend on.
	Facts(ctx context.Context) (Facts, error)
}

// Planner makes plans and approves them. It is safe for concurrent use.
type Planner struct {
	Deployment
	Store   Store
	Sources func(ctx context.Context, t *Tenant) (Source, error)
	// Carrier returns the objects that the operator's own tenant should have, and Missing what it lacks for tenants
	// with derived trunks.
	Carrier func(f Facts, made plan.Ledger) []plan.Object
	Missing func(ctx context.Context) ([]string, error)
	// Restored reads a tenant and returns what it should have so that it is as in a snapshot.
	Restored func(ctx context.Context, account, snapshot string) (*Restoration, error)
	// Leaving is called before a plan to leave is approved, with what Tandem has made: it takes the snapshot.
	Leaving func(ctx context.Context, t *Tenant, have plan.State, ledger plan.Ledger) error
	// TenantID returns the id of the tenant that an administrator of an account has authorised; empty if nobody has.
	TenantID func(ctx context.Context, account string) (string, error)
	// Template returns the wishes of a template; an error of kind fault.NotFound if there is none with that name.
	Template func(ctx context.Context, name string) (Wishes, error)
	Metrics  *Metrics     // may be nil
	Log      *slog.Logger // may be nil
}

// Order asks for a plan.
type Order struct {
	Purpose       Purpose
	Snapshot      string // the id of the one to restore
	RemoveConsent bool   // leaving removes Tandem's application from the tenant, too
}

// Plan reads a tenant and returns what is to be done. It changes nothing at Microsoft.
func (p *Planner) Plan(ctx context.Context, account string, o Order, by string) (*Proposal, error) {
	n, r, err := p.propose(ctx, account, o, nil)
	if err != nil {
		return nil, err
	}
	return n, p.store(ctx, n, r.tenant.Spare, by)
}

// store stores a plan, and what its reading says of licences, which may be nil.
func (p *Planner) store(ctx context.Context, n *Proposal, spare *Spare, by string) error {
	n.ID, n.Made, n.By = rand.Text()[:10], time.Now().UTC().Truncate(time.Second), by
	return p.Store.Update(ctx, nil, n.Account, "", func(ctx context.Context, tx Tx) error {
		t, err := tx.Tenant(ctx)
		if err == nil && spare != nil {
			t.Spare = spare
			err = tx.SetTenant(ctx, t)
		}
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		if err := tx.SetProposal(ctx, n); err != nil {
			return err
		}
		return tx.Audit(ctx, "tenant.plan", n.Account, map[string]any{"plan": n.ID, "purpose": n.Purpose,
			"steps": len(n.Plan.Steps), "users": len(n.Users), "conflicts": len(n.Plan.Conflicts)})
	})
}

// Repair stores a plan that does some of the steps that repair a tenant, and activates users, and returns its id.
func (p *Planner) Repair(ctx context.Context, account string, some *plan.Plan, users []plan.Made,
	by string) (string, error) {
	n := &Proposal{Account: account, Purpose: Repair, Plan: plan.Plan{Steps: []plan.Step{}}, Restores: users}
	for _, s := range some.Steps {
		if s.Type == plan.User {
			n.Users = append(n.Users, s)
		} else {
			n.Plan.Steps = append(n.Plan.Steps, s)
		}
	}
	n.Users = append(n.Users, restoredUsers(users)...)
	err := p.store(ctx, n, nil, by)
	return n.ID, err
}

// reading is what a plan was made from.
type reading struct {
	tenant *Tenant
	have   plan.State
	ledger plan.Ledger
}

// propose makes a plan that is not stored.
//
// repair has the steps of a plan that repairs some of what a person has changed; nil for all.
func (p *Planner) propose(ctx context.Context, account string, o Order,
	repair []plan.Step) (*Proposal, *reading, error) {
	r, purpose := &reading{}, o.Purpose
	err := p.Store.View(ctx, account, func(ctx context.Context, tx Tx) (err error) {
		if r.tenant, err = tenantOrNew(ctx, tx, account); err == nil {
			r.ledger, err = tx.Ledger(ctx)
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	if id, err := p.TenantID(ctx, account); err != nil {
		return nil, nil, err
	} else if id != "" {
		if t := r.tenant; t.ID != "" && !strings.EqualFold(t.ID, id) && t.State() != Left {
			return nil, nil, fault.New(fault.Conflict, "TenantDiffers", "%s is to have the tenant %s, and an "+
				"administrator of the tenant %s has signed in; forget %[1]s (tandem tenant delete) and invite an "+
				"administrator of the right one", account, t.ID, id)
		}
		r.tenant.ID = id
	}
	if r.tenant.Wishes, err = p.Resolve(ctx, r.tenant.Wishes); err != nil {
		return nil, nil, err
	}
	if err := p.possible(ctx, r, purpose); err != nil {
		return nil, nil, err
	}
	source, err := p.Sources(ctx, r.tenant)
	if err != nil {
		return nil, nil, err
	}
	facts, err := source.Facts(ctx)
	if err != nil {
		return nil, nil, err
	}
	r.tenant.Spare = &Spare{facts.Spare, time.Now().UTC().Truncate(time.Second)}
	if account != Carrier && purpose == Onboard {
		if err := p.settle(ctx, r.tenant, facts); err != nil {
			return nil, nil, err
		}
	}

	n := &Proposal{Account: account, TenantID: r.tenant.ID, Purpose: purpose, Snapshot: o.Snapshot,
		RemoveConsent: o.RemoveConsent}
	structure, users := r.ledger.Split()
	if err := p.target(ctx, n, r, source, facts); err != nil {
		return nil, nil, err
	}
	if purpose == Repair {
		if repair == nil {
			repair = plan.Drift(r.have, structure).Steps
		}
		n.Target = repaired(structure, r.have, repair)
	}
	n.Settings, n.MadeFor = r.tenant.Settings, r.tenant.MadeFor
	n.Plan = *plan.Compare(n.Target, r.have, structure)
	n.Opened = plan.Opened(n.Target, r.have)
	switch purpose {
	case Leave:
		n.Users = leavingUsers(users)
		if !facts.Purges {
			n.Plan.Binned()
		}
		if !o.RemoveConsent || !facts.RemovesItself {
			n.Plan.Kept = append(n.Plan.Kept, plan.ConsentStays(facts.App, o.RemoveConsent))
		}
	case Restore:
		n.Users = restoredUsers(n.Restores)
	}

	return n, r, nil
}

// Resolve returns wishes with what their template has.
func (p *Planner) Resolve(ctx context.Context, w Wishes) (Wishes, error) {
	if w.Template == "" {
		return w, nil
	}
	t, err := p.Template(ctx, w.Template)
	return w.With(t), err
}

// possible refuses a plan that cannot be made now.
func (p *Planner) possible(ctx context.Context, r *reading, purpose Purpose) error {
	t := r.tenant
	switch {
	case t.leaves() && purpose != Leave:
		return errLeaves(t)
	case purpose == Restore && len(r.ledger) > 0:
		return fault.New(fault.Conflict, "TenantInUse", "Tandem still has objects in the tenant of %s; a snapshot is "+
			"restored after it was left", t.Account)
	case t.Account == Carrier && purpose == Leave:
		return p.needed(ctx)
	case t.Account == Carrier || purpose == Leave || t.Wishes.Trunk == plan.Gateways:
		return nil
	}

	missing, err := p.Missing(ctx)
	if err == nil && len(missing) > 0 {
		err = fault.New(fault.Conflict, "CarrierNotReady", "the operator's own tenant is not ready for derived "+
			"trunks: %s (tandem carrier plan)", strings.Join(missing, "; "))
	}
	return err
}

// needed refuses to leave the operator's own tenant while calls of customers depend on its trunks.
func (p *Planner) needed(ctx context.Context) error {
	const size = 100
	for after := ""; ; {
		all, err := p.Store.Tenants(ctx, after, size, false)
		if err != nil {
			return err
		}
		for _, t := range all {
			derived := slices.ContainsFunc(t.Settings.Labels, func(l plan.Label) bool {
				return l.Trunk == plan.Derived
			})
			if after = t.Account; t.Account != Carrier && derived && t.State() != New && t.State() != Left {
				return fault.New(fault.Conflict, "CarrierInUse", "the tenant of %s, and perhaps others, has the "+
					"operator's derived trunks, and would lose its calls; leave those first (tandem tenant list)",
					t.Account)
			}
		}
		if len(all) < size {
			return nil
		}
	}
}

// HasLabel reports whether the tenant has, or is to have, a label.
func (t *Tenant) HasLabel(name string) bool {
	return slices.ContainsFunc(t.Settings.Labels, func(l plan.Label) bool { return strings.EqualFold(l.Name, name) })
}

// leaves reports whether the tenant is being left.
func (t *Tenant) leaves() bool { return t.Pending && t.Purpose == Leave }

func errLeaves(t *Tenant) error {
	return fault.New(fault.Conflict, "TenantLeaves", "tenant %s is being left; make a new plan when that is done",
		t.Account)
}

// target reads the tenant and decides what it should have.
func (p *Planner) target(ctx context.Context, n *Proposal, r *reading, source Source, f Facts) error {
	read := func(named []plan.Object) error {
		refs := slices.Collect(maps.Keys(r.ledger))
		for _, o := range named {
			refs = append(refs, o.Ref)
		}
		refs = slices.DeleteFunc(refs, func(r plan.Ref) bool { return r.Type == plan.User })
		objects, err := source.Read(ctx, refs)
		r.have = plan.NewState(objects)
		return err
	}

	switch {
	case n.Purpose == Leave || n.Purpose == Repair:
		return read(nil)
	case n.Purpose == Restore:
		x, err := p.Restored(ctx, n.Account, n.Snapshot)
		if err != nil {
			return err
		}
		n.Target, n.Restores, n.Stays, n.Wishes = x.Objects, x.Users, x.Notes, &x.Wishes
		r.tenant.Settings, r.tenant.MadeFor = x.Settings, x.MadeFor
		return read(n.Target)
	case n.Account == Carrier:
		n.Target = p.Carrier(f, r.ledger)
		return read(n.Target)
	}

	// What depends on other people's objects needs them; which domains and users are read needs the names.
	if err := read(r.tenant.Settings.Objects(nil, r.ledger)); err != nil {
		return err
	}
	r.tenant.Settings.Labels = r.tenant.replaced(r.have, r.ledger)
	n.Target = r.tenant.Settings.Objects(r.have, r.ledger)
	return nil
}

// leavingUsers returns what leaving does to users: each gets what it had before.
func leavingUsers(users plan.Ledger) []plan.Step {
	var have []plan.Object
	for _, m := range users {
		have = append(have, m.Object)
	}
	return plan.Compare(nil, plan.NewState(have), users).Steps
}

// restoredUsers returns what makes users active that were not: each gets what it is to have.
func restoredUsers(users []plan.Made) []plan.Step {
	var want, have []plan.Object
	for _, m := range users {
		want, have = append(want, m.Object), append(have, plan.Object{Ref: m.Ref, Fields: m.Before})
	}
	return plan.Compare(want, plan.NewState(have), plan.NewLedger(users)).Steps
}

// repaired returns what a tenant should have when some steps have repaired it: what they change is again as Tandem made
// it, and all else as it is.
func repaired(ledger plan.Ledger, have plan.State, steps []plan.Step) []plan.Object {
	var target []plan.Object
	for _, m := range ledger {
		now, exists := have.Get(m.Ref)
		i := slices.IndexFunc(steps, func(s plan.Step) bool {
			return s.Type == m.Type && strings.EqualFold(s.Name, m.Name)
		})
		if !exists && i < 0 {
			continue
		}

		o := plan.Object{Ref: m.Ref, Fields: plan.Fields{}}
		for name := range m.Fields {
			o.Fields[name] = now.Fields[name]
			if i >= 0 && (!exists || slices.ContainsFunc(steps[i].Differences,
				func(d plan.Difference) bool { return d.Field == name })) {
				o.Fields[name] = m.Fields[name]
			}
		}
		target = append(target, o)
	}
	return target
}

// Preview returns the settings that onboarding would have for an account, by what is known. Errors of kind
// fault.Conflict and fault.Invalid say what a person has to decide first.
func (p *Planner) Preview(ctx context.Context, account string, f Facts) (*plan.Settings, error) {
	var t *Tenant
	err := p.Store.View(ctx, account, func(ctx context.Context, tx Tx) (err error) {
		t, err = tenantOrNew(ctx, tx, account)
		return err
	})
	if err != nil {
		return nil, err
	}
	if t.Wishes, err = p.Resolve(ctx, t.Wishes); err != nil {
		return nil, err
	}
	f.Licence = cmp.Or(f.Licence, "none") // what is free is a finding of its own
	if err := p.settle(ctx, t, f); err != nil {
		return nil, err
	}
	return &t.Settings, nil
}

// Apply approves a plan. It is refused if the tenant is no longer as it was when the plan was made.
func (p *Planner) Apply(ctx context.Context, account, id string) (*Proposal, error) {
	began := time.Now()
	var n *Proposal
	err := p.Store.View(ctx, account, func(ctx context.Context, tx Tx) (err error) {
		n, err = tx.Proposal(ctx, id)
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case !n.Applied.IsZero():
		return nil, errApplied(id)
	case len(n.Plan.Conflicts) > 0:
		c := n.Plan.Conflicts[0]
		return nil, fault.New(fault.Conflict, CodeConflicts, "%s %s: %s; solve that and make a new plan", c.Type,
			c.Name, c.Text)
	}

	var repair []plan.Step
	if n.Purpose == Repair {
		repair = n.Plan.Steps
	}
	now, r, err := p.propose(ctx, account, Order{n.Purpose, n.Snapshot, n.RemoveConsent}, repair)
	if err != nil {
		return nil, err
	}
	if n.Purpose == Repair {
		now.Plan.Kept = nil // about what is not repaired
		n.Settings, n.MadeFor, n.Target, n.TenantID = now.Settings, now.MadeFor, now.Target, now.TenantID
	}
	if now.Plan.Hash() != n.Plan.Hash() || !strings.EqualFold(now.TenantID, n.TenantID) {
		return nil, fault.New(fault.Conflict, "TenantChanged", "the tenant, or its settings, have changed since plan "+
			"%s was made; make a new one", id)
	}
	if n.Purpose == Leave {
		if err := p.Leaving(ctx, r.tenant, r.have, r.ledger); err != nil {
			return nil, err
		}
	}

	n.Applied = time.Now().UTC().Truncate(time.Second)
	err = p.Store.Update(ctx, nil, account, "", func(ctx context.Context, tx Tx) error {
		t, err := tenantOrNew(ctx, tx, account)
		if err != nil {
			return err
		}
		stored, err := tx.Proposal(ctx, id) // somebody else may have applied it, or another plan, meanwhile
		switch {
		case err != nil:
			return err
		case !stored.Applied.IsZero():
			return errApplied(id)
		case t.leaves() && n.Purpose != Leave:
			return errLeaves(t)
		}
		t.ID, t.Settings, t.MadeFor, t.Purpose = n.TenantID, n.Settings, n.MadeFor, n.Purpose
		t.Plan, t.Applied = n.ID, n.Applied
		if n.Wishes != nil {
			t.Wishes = *n.Wishes
		}
		t.Approved, t.Pending, t.Waiting, t.Open = n.Plan.Hash(), true, nil, refs(n.Plan.Steps)
		t.RemoveConsent, t.Removing, t.Spare = n.RemoveConsent, false, r.tenant.Spare
		asking := Asking{Plan: n.ID, By: domain.ActorFrom(ctx)}
		switch {
		case n.Purpose == Leave: // of all, whatever was asked for
			t.Asking = []Asking{asking}
		case len(n.Users)+len(n.Restores) > 0:
			t.Asking = append(t.Asking, asking)
		}
		if err := tx.SetTenant(ctx, t); err != nil {
			return err
		}
		if err := tx.SetProposal(ctx, n); err != nil {
			return err
		}
		if err := tx.SetTarget(ctx, account, n.Target); err != nil {
			return err
		}
		return tx.Audit(ctx, "tenant.apply", account, map[string]any{"plan": n.ID, "purpose": n.Purpose,
			"steps": len(n.Plan.Steps), "users": len(n.Users)})
	})
	if err != nil {
		return nil, err
	}
	p.Metrics.applied(n.Purpose)
	cmp.Or(p.Log, slog.New(slog.DiscardHandler)).Info("plan applied", "account", account, "plan", n.ID, "purpose",
		n.Purpose, "steps", len(n.Plan.Steps), "users", len(n.Users), "took", time.Since(began).Round(time.Millisecond))
	return n, nil
}

func errApplied(id string) error {
	return fault.New(fault.Conflict, "PlanApplied", "plan %s has been applied already; make a new one", id)
}

// tenantOrNew returns the row of a tenant, or a new one.
func tenantOrNew(ctx context.Context, tx Tx, account string) (*Tenant, error) {
	t, err := tx.Tenant(ctx)
	if fault.Is(err, fault.NotFound) {
		return &Tenant{Account: account}, nil
	}
	return t, err
}
