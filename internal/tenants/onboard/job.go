package onboard

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/tenants/plan"
)

// job is what one run knows of its tenant.
type job struct {
	*Onboarder
	run    *flow.Run
	tenant *Tenant
	cloud  Cloud
	target plan.State
	have   plan.State  // as read when the steps were found
	ledger plan.Ledger // without users
	users  plan.Ledger
	// follow are entries of the ledger for what Microsoft will make of the steps. They are recorded with the first one:
	// later, it may be there already, and nobody knows any more whose it is.
	follow []plan.Made
}

func (j *job) update(ctx context.Context, progress string, fn func(context.Context, Tx) error) error {
	return j.Store.Update(ctx, j.run, j.tenant.Account, progress, fn)
}

// leaves reports whether nothing is to remain in the tenant.
func (j *job) leaves() bool { return len(j.target) == 0 }

// repairs reports whether the ledger stays as it is: it has what Tandem expects, of which the target may be a part.
func (j *job) repairs() bool { return j.tenant.Purpose == Repair }

// records reports whether a step that gives the tenant an object is recorded.
func (j *job) records(r plan.Ref) bool {
	_, known := j.ledger.Get(r)
	return !known || !j.repairs()
}

// waitForUsers is the wait for the runs of users: what users have is not removed.
func (j *job) waitForUsers(n int) error {
	return &wait{Waiting: Waiting{For: Tandem, Object: plan.Ref{Type: plan.User},
		Reason: "settings that Tandem has made are still to be put back: " + domain.Count(n, "user")}}
}

// work does steps until a fresh look at the tenant finds none.
func (j *job) work(ctx context.Context) error {
	for {
		objects, err := j.cloud.Read(ctx, j.named())
		if err != nil {
			return waiting(err, plan.Ref{}, "read the tenant")
		}
		j.have = plan.NewState(objects)
		if err := j.purge(ctx); err != nil {
			return err
		}
		p := plan.Compare(j.tenant.Target, j.have, j.ledger)
		j.waited(p)
		switch {
		case len(p.Conflicts) > 0:
			return changed(p.Conflicts[0].Ref, CodeConflicts, texts(p.Conflicts))
		case j.tenant.Approved != "" && p.Hash() != j.tenant.Approved:
			return changed(plan.Ref{}, "TenantChanged", "the tenant has changed since the plan was made: make a new "+
				"plan")
		case len(p.Steps) == 0:
			return j.finish(ctx, p.Kept)
		case p.Holders(j.users) > 0:
			return j.waitForUsers(p.Holders(j.users))
		}

		j.follow, j.tenant.Open = nil, refs(p.Steps)
		for _, s := range p.Steps {
			if want, ok := j.target.Get(s.Ref); ok && s.Type.Observed() && j.records(s.Ref) {
				j.follow = append(j.follow, j.made(want, s))
			}
		}
		if err := j.steps(ctx, p.Steps); err != nil {
			return err
		}
	}
}

// refs returns the objects of steps.
func refs(steps []plan.Step) []plan.Ref {
	all := make([]plan.Ref, len(steps))
	for i, s := range steps {
		all[i] = s.Ref
	}
	return all
}

// waited counts a step for which an earlier run waited, and which the tenant shows now.
func (j *job) waited(p *plan.Plan) {
	w := j.tenant.Waiting
	if w == nil || w.Object.Type == "" || w.For == Tandem || w.For == Person || len(p.Conflicts) > 0 ||
		slices.ContainsFunc(p.Steps, func(s plan.Step) bool { return s.Ref == w.Object }) {
		return
	}
	j.Metrics.step(w.Object.Type, w.Since, nil)
	j.log(j.tenant).Info("step done", "step", fmt.Sprintf("%s %s", w.Object.Type, w.Object.Name), "took",
		time.Since(w.Since).Round(time.Second))
	j.tenant.Waiting = nil
}

// texts returns what the first notes say.
func texts(notes []plan.Note) string {
	const most = 10
	var lines []string
	for _, n := range notes[:min(len(notes), most)] {
		lines = append(lines, fmt.Sprintf("%s %s %s", n.Type, n.Name, n.Text))
	}
	if more := len(notes) - most; more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(lines, "; ")
}

// steps does steps in their order. While one waits, those for other objects of its type are begun, but not for domains
// below it, of which each would have to be proven, or above it, which are not removed while it exists.
func (j *job) steps(ctx context.Context, steps []plan.Step) error {
	var waits *wait
	for _, s := range steps {
		if waits != nil && s.Type != waits.Object.Type {
			break
		}
		if waits != nil && s.Type == plan.Domain && (below(s.Name, waits.Object.Name) ||
			below(waits.Object.Name, s.Name)) {
			continue
		}
		began := time.Now()
		if w := j.tenant.Waiting; w != nil && w.Object == s.Ref {
			began = w.Since
		}
		err := j.step(ctx, s, waits == nil)
		j.Metrics.step(s.Type, began, err)
		if err == nil {
			j.log(j.tenant).Info("step done", "step", fmt.Sprintf("%s %s %s", s.Action, s.Type, s.Name), "took",
				time.Since(began).Round(time.Millisecond))
		}
		w, ok := errors.AsType[*wait](err)
		if err != nil && (!ok || w.For == Person) {
			return err
		}
		if ok && waits == nil {
			waits = w
		}
	}
	if waits == nil {
		return nil
	}
	return waits
}

// below reports whether a domain is below another.
func below(domain, other string) bool {
	return strings.HasSuffix(strings.ToLower(domain), "."+strings.ToLower(other))
}

// named returns the objects that the tenant should have, and those that Tandem has made.
func (j *job) named() []plan.Ref {
	var refs []plan.Ref
	for _, o := range j.target {
		refs = append(refs, o.Ref)
	}
	for r, m := range j.ledger {
		if _, ok := j.target.Get(r); !ok {
			refs = append(refs, m.Ref)
		}
	}
	return refs
}

// step records a step, does it and reads back, patiently or once.
func (j *job) step(ctx context.Context, s plan.Step, patiently bool) error {
	progress := fmt.Sprintf("%s %s", s.Action, s.Type)
	want, wanted := j.target.Get(s.Ref)
	var entries []plan.Made
	if wanted && j.records(s.Ref) {
		entries, j.follow = j.follow, nil
		if !slices.ContainsFunc(entries, func(m plan.Made) bool { return m.Ref == s.Ref }) {
			entries = append(entries, j.made(want, s))
		}
	}
	err := j.update(ctx, progress, func(ctx context.Context, tx Tx) error {
		row, err := current(ctx, tx, j.tenant)
		if err != nil {
			return err
		}
		row.Approved, row.Open = "", j.tenant.Open
		if err := tx.SetTenant(ctx, row); err != nil {
			return err
		}
		return tx.Record(ctx, entries...)
	})
	if err != nil {
		return err
	}
	j.tenant.Approved = ""
	for _, m := range entries {
		j.ledger.Set(m)
	}

	if !s.Type.Observed() {
		if err := j.do(ctx, s); err != nil {
			return err
		}
	}
	if err := j.confirm(ctx, s, patiently); err != nil {
		return err
	}
	j.tenant.Open = slices.DeleteFunc(j.tenant.Open, func(r plan.Ref) bool { return r == s.Ref })
	if wanted {
		return nil
	}
	return j.forget(ctx, s.Ref)
}

// do starts a step. One that needs the licence of another activation user, which gives it back soon, waits for that.
func (j *job) do(ctx context.Context, s plan.Step) error {
	err := j.cloud.Do(ctx, s)
	if err == nil {
		return nil
	}
	err = waiting(err, s.Ref, "%s %s %s", s.Action, s.Type, s.Name)
	if w, ok := errors.AsType[*wait](err); ok && w.code == CodeNoLicence && j.seatReturns(s.Ref) {
		w.For, w.Reason = Microsoft, w.Reason+"; one becomes free when another domain is activated"
		w.Usual, w.Longest = plan.SIPDomain.Takes()
	}
	return err
}

// Codes of faults.
const (
	// CodeNoLicence is that of Cloud.Do when no licence is free for an activation user.
	CodeNoLicence = "NoLicence"
	// CodeConflicts is that of a plan that names objects which others have made.
	CodeConflicts = "PlanHasConflicts"
)

// seatReturns reports whether there is an activation user other than r that gives its licence back, or just has.
func (j *job) seatReturns(r plan.Ref) bool {
	for _, want := range j.target {
		if _, ok := j.have.Get(want.Ref); ok && want.Fields["release"] == true && want.Ref != r {
			return true
		}
	}
	return false
}

// made returns the entry of the ledger for a step: fields of a shared object that Tandem sets for the first time are
// entered with what they are before.
func (j *job) made(want plan.Object, s plan.Step) plan.Made {
	m := plan.Made{Object: want}
	old, known := j.ledger.Get(s.Ref)
	if s.Action != plan.Change || known && old.Before == nil {
		return m
	}
	got, _ := j.have.Get(s.Ref)
	m.Before = plan.Fields{}
	for n := range want.Fields {
		m.Before[n] = got.Fields[n]
	}
	maps.Copy(m.Before, old.Before)
	return m
}

// confirm waits until the tenant shows what a step has done; if it is not patient, it looks once.
func (j *job) confirm(ctx context.Context, s plan.Step, patiently bool) error {
	began := time.Now()
	for every := 100 * time.Millisecond; ; every = min(2*every, 10*time.Second) {
		got, exists, err := j.cloud.Get(ctx, s.Ref)
		switch {
		case err != nil:
			return waiting(err, s.Ref, "read back %s %s", s.Type, s.Name)
		case s.Done(got, exists):
			if exists {
				j.have.Set(got)
			}
			return nil
		case s.Type.Observed() || !patiently || time.Since(began) > readBack:
			usual, longest := s.Type.Takes()
			return &wait{Waiting: Waiting{For: Microsoft, Object: s.Ref, Usual: usual, Longest: longest,
				Reason: fmt.Sprintf("%s %s is not as it should be yet", s.Type, s.Name)}}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(every):
		}
	}
}

// purge purges what an earlier run has deleted, but perhaps not purged.
func (j *job) purge(ctx context.Context) error {
	for _, m := range j.ledger {
		_, wanted := j.target.Get(m.Ref)
		if _, exists := j.have.Get(m.Ref); wanted || exists || !m.Type.Binned() || j.repairs() {
			continue
		}
		if err := j.cloud.Do(ctx, plan.Step{Action: plan.Delete, Ref: m.Ref}); err != nil {
			return waiting(err, m.Ref, "purge %s %s", m.Type, m.Name)
		}
		if err := j.forget(ctx, m.Ref); err != nil {
			return err
		}
	}
	return nil
}

func (j *job) forget(ctx context.Context, refs ...plan.Ref) error {
	if len(refs) == 0 {
		return nil
	}
	for _, r := range refs {
		j.ledger.Remove(r)
	}
	return j.update(ctx, "", func(ctx context.Context, tx Tx) error { return tx.Forget(ctx, refs...) })
}

// finish forgets what is not wanted: it is gone, or stays for the reason that the plan gave. Then it removes the
// consent, if that was asked for.
func (j *job) finish(ctx context.Context, kept []plan.Note) error {
	if j.leaves() && j.Left != nil {
		if err := j.Left(ctx, j.tenant, kept); err != nil {
			return err
		}
	}
	var unwanted []plan.Ref
	for r := range j.ledger {
		if _, wanted := j.target.Get(r); !wanted && !j.repairs() {
			unwanted = append(unwanted, r)
		}
	}
	if err := j.forget(ctx, unwanted...); err != nil || !j.leaves() || !j.tenant.RemoveConsent {
		return err
	}

	err := j.update(ctx, "remove consent", func(ctx context.Context, tx Tx) error {
		row, err := current(ctx, tx, j.tenant)
		if err != nil {
			return err
		}
		row.Removing, j.tenant.Removing = true, true
		return tx.SetTenant(ctx, row)
	})
	if err != nil {
		return err
	}
	return j.removeConsent(ctx)
}

// removeConsent removes Tandem's application. If Tandem may not do that, the plan has said so.
func (j *job) removeConsent(ctx context.Context) error {
	err := j.cloud.RemoveConsent(ctx)
	if err == nil || fault.Is(err, fault.Forbidden) {
		j.tenant.Removing = err == nil
		return nil
	}
	return waiting(err, plan.Ref{}, "remove the consent")
}
