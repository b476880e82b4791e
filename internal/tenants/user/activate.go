package user

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
)

// Kind is the kind of the keys of users in package flow; their ids are "account/objectid".
const Kind = "tenantUser"

const (
	// readBack is how long a run waits until what it did is visible. Grants take about 40 s [C]: another run looks
	// then.
	readBack = 3 * time.Second
	// resend is how long what was done may be invisible until it is done again.
	resend = 5 * time.Minute
	// maxSteps bounds the steps of a run: one, and one for what a person changed meanwhile.
	maxSteps = 3
)

// Activator gives users what they are to have. Its methods are safe for concurrent use.
type Activator struct {
	Store  Store
	Clouds Clouds
}

// Kind returns the kind for the worker.
func (a *Activator) Kind() *flow.Kind {
	return &flow.Kind{Name: Kind, Reconcile: a.Reconcile, List: a.Store.Pending, Workers: 8}
}

// errReplaced ends a run during which something else was asked for the user.
var errReplaced = errors.New("something else was asked for the user")

// wait is returned by a run that waits.
type wait struct{ onboard.Waiting }

func (w *wait) Error() string { return w.Reason }

func person(format string, args ...any) error {
	return &wait{onboard.Waiting{For: onboard.Person, Reason: fmt.Sprintf(format, args...)}}
}

func microsoft(format string, args ...any) error {
	usual, longest := plan.User.Takes()
	return &wait{onboard.Waiting{For: onboard.Microsoft, Reason: fmt.Sprintf(format, args...), Usual: usual,
		Longest: longest}}
}

// Reconcile is the function of the kind.
func (a *Activator) Reconcile(ctx context.Context, run *flow.Run) (flow.Result, error) {
	j := &job{Activator: a, run: run}
	j.account, j.id, _ = strings.Cut(run.ID, "/")
	err := a.Store.View(ctx, j.account, func(ctx context.Context, tx Tx) (err error) {
		if j.tenant, err = tx.Tenant(ctx); err != nil {
			return err
		}
		if j.user, err = tx.User(ctx, j.id); err != nil {
			return err
		}
		j.made, j.known, err = tx.Made(ctx, ref(j.id))
		if err == nil {
			_, j.policies, err = tx.Made(ctx, plan.Ref{Type: plan.RoutingPolicy, Name: j.tenant.Settings.Prefix})
		}
		return err
	})
	switch {
	case fault.Is(err, fault.NotFound):
		return flow.Result{}, nil
	case err != nil || !j.user.Pending:
		return flow.Result{}, err
	}

	j.asked = j.user.Activation
	if j.cloud, err = a.Clouds(ctx, j.tenant); err == nil {
		err = j.work(ctx)
	}
	return j.end(ctx, err)
}

// job is one run.
type job struct {
	*Activator
	run         *flow.Run
	account, id string
	tenant      *onboard.Tenant
	user        *User
	asked       *Activation // what the user was to have when the run began
	cloud       Cloud
	made        plan.Made // the ledger's entry of the user, if known is set
	known       bool
	policies    bool   // the tenant has Tandem's policies
	said        string // what Microsoft said of the number
}

func (j *job) update(ctx context.Context, progress string, fn func(context.Context, Tx) error) error {
	return j.Store.Update(ctx, j.run, j.account, progress, fn)
}

// work does steps until a fresh look at the user finds none.
func (j *job) work(ctx context.Context) error {
	for range maxSteps {
		if there, err := j.look(ctx); err != nil || !there {
			return err
		}
		desired, err := j.desired()
		if err != nil {
			return err
		}

		have := plan.NewState([]plan.Object{j.user.object()})
		p := plan.Compare(desired, have, j.ledger())
		if len(p.Steps) == 0 {
			return nil
		}
		if err := j.step(ctx, desired, p.Steps[0]); err != nil {
			return err
		}
	}
	return microsoft("the user changes again and again; another administrator or program may be setting it too")
}

func (j *job) ledger() plan.Ledger {
	if !j.known {
		return plan.NewLedger(nil)
	}
	return plan.NewLedger([]plan.Made{j.made})
}

// look reads the user and stores what it finds. It reports false for one that is purged: nothing is left to do.
func (j *job) look(ctx context.Context) (bool, error) {
	found, err := j.cloud.Look(ctx, j.id)
	if err != nil {
		return false, fmt.Errorf("read the user: %w", err)
	}
	if found == nil {
		return false, j.deleted(ctx)
	}
	err = j.update(ctx, "", func(ctx context.Context, tx Tx) error {
		u, err := put(ctx, tx, found)
		if err == nil {
			u.Activation, u.Waiting = j.user.Activation, j.user.Waiting // as at the beginning of the run
			j.user = u
		}
		return err
	})
	return err == nil, err
}

// put stores a user that was read alone, and returns its row.
func put(ctx context.Context, tx Tx, c *Change) (*User, error) {
	passes, err := tx.Passes(ctx, 1)
	if err != nil {
		return nil, err
	}
	pass := int64(1)
	if len(passes) > 0 {
		pass = passes[0].Number
	}
	if err := tx.PutProfiles(ctx, pass, []Profile{c.Profile}); err != nil {
		return nil, err
	}
	voice := Voice{ID: c.Profile.ID, Kind: "user"}
	if c.Voice != nil {
		voice = *c.Voice
	}
	if err := tx.PutVoices(ctx, pass, []Voice{voice}); err != nil {
		return nil, err
	}
	return tx.User(ctx, c.Profile.ID)
}

// deleted handles a user that the directory does not list. In the bin it keeps its number and its activation, so that
// it can be restored.
func (j *job) deleted(ctx context.Context) error {
	name, since, binned, err := j.cloud.Binned(ctx, j.id)
	if err != nil {
		return err
	}
	err = j.update(ctx, "", func(ctx context.Context, tx Tx) error { return tx.Remove(ctx, []string{j.id}, nil) })
	if err != nil {
		return err
	}

	if !binned {
		j.user.Activation = nil
		return j.forget(ctx)
	}
	if j.user.Activation != nil {
		return person("%s was deleted on %s and keeps its number until it is purged, 30 days later: restore it, or "+
			"deactivate it", name, since.UTC().Format(time.DateOnly))
	}
	if number, _ := j.made.Fields["number"].(string); j.known && number != "" {
		held, err := j.cloud.Held(ctx, []string{number})
		if err != nil {
			return err
		}
		if held[number].Target == j.id {
			s := plan.Step{Action: plan.Change, Ref: ref(j.id),
				Differences: []plan.Difference{{Field: "number", Old: number}}}
			if _, err := j.cloud.SetVoice(ctx, s); err != nil {
				return err
			}
			return microsoft("the number of the deleted user %s is being taken from it", name)
		}
	}
	return j.forget(ctx)
}

func (j *job) forget(ctx context.Context) error {
	return j.update(ctx, "", func(ctx context.Context, tx Tx) error { return tx.Forget(ctx, ref(j.id)) })
}

// desired returns what the user is to have, none if it is not activated; or why it cannot have it now.
func (j *job) desired() ([]plan.Object, error) {
	a := j.user.Activation
	if a == nil {
		if j.user.Voice.Number != "" && j.known && !j.user.Licensed() {
			return nil, person("unlicensed, still holds %s (%s): give it the licence again, so that Microsoft allows "+
				"the removal", j.user.Voice.Number, j.user.Missing())
		}
		return nil, nil
	}
	switch {
	case !j.policies:
		return nil, microsoft("the tenant does not have Tandem's policies yet")
	case !j.user.Licensed():
		return nil, j.unlicensed()
	}

	o := plan.UserObject(&j.tenant.Settings, a.Activation)
	if why := grouped(o, j.user, a.OverrideGroup); why != "" {
		return nil, person("%s", why)
	}
	return []plan.Object{o}, nil
}

func (j *job) unlicensed() error {
	text := "unlicensed: " + j.user.Missing()
	if j.user.Voice.Number != "" {
		text = fmt.Sprintf("unlicensed, still holds %s: %s", j.user.Voice.Number, j.user.Missing())
	}
	if j.said != "" {
		text += ". Microsoft says: " + j.said
	}
	return person("%s. Assign a licence with Phone System", text)
}

// grouped removes from o the policies that the user has by a group and that are Tandem's. Others are not hidden by
// direct ones, unless they are to be overridden: then it returns why not.
func grouped(o plan.Object, u *User, override bool) string {
	for _, field := range slices.Sorted(maps.Keys(u.Voice.Policies)) {
		p := u.Voice.Policies[field]
		want, ours := o.Fields[field].(string)
		switch {
		case p.Group == "" || !ours:
		case strings.EqualFold(p.Name, want):
			delete(o.Fields, field)
		case !override:
			return fmt.Sprintf("the %s %s comes from the group %s: take the user out of it, or activate it with "+
				"overrideGroup", field, p.Name, p.Group)
		}
	}
	return ""
}

// step records a step, does it and reads back.
func (j *job) step(ctx context.Context, desired []plan.Object, s plan.Step) error {
	if w := j.user.Waiting; w != nil && w.For == onboard.Microsoft && w.Object == s.Ref &&
		time.Since(w.Since) < resend {
		return j.invisible(s) // it was done
	}
	if err := j.free(ctx, s); err != nil {
		return err
	}
	if len(desired) > 0 {
		j.made, j.known = j.entry(desired[0], s), true
		err := j.update(ctx, "changing the user", func(ctx context.Context, tx Tx) error {
			u, err := tx.User(ctx, j.id)
			if fault.Is(err, fault.NotFound) || err == nil && !reflect.DeepEqual(u.Activation, j.asked) {
				return errReplaced // a tenant that leaves waits for the users that the ledger has
			}
			if err != nil {
				return err
			}
			return tx.Record(ctx, j.made)
		})
		if err != nil {
			return err
		}
	}

	said, err := j.cloud.SetVoice(ctx, s)
	j.said = said
	if f := fault.As(err); err != nil && f.Kind == fault.Invalid {
		j.said = f.Message // what is there decides
	} else if err != nil {
		return fmt.Errorf("set the voice configuration: %w", err)
	}
	return j.confirm(ctx, s)
}

// entry returns the ledger's entry for a step: what the user had before in the fields that Tandem sets for the first
// time.
func (j *job) entry(want plan.Object, s plan.Step) plan.Made {
	m := plan.Made{Object: want, Before: plan.Fields{}, OverrideGroup: j.user.Activation.OverrideGroup}
	for n := range want.Fields {
		m.Before[n] = nil
	}
	for _, d := range s.Differences {
		m.Before[d.Field] = d.Old
	}
	maps.Copy(m.Before, j.made.Before)
	return m
}

// free returns why a step cannot change the user's number: another account has it, or it is not of direct routing.
func (j *job) free(ctx context.Context, s plan.Step) error {
	for _, d := range s.Differences {
		if d.Field != "number" {
			continue
		}
		old, _ := d.Old.(string)
		number, _ := d.New.(string)
		held, err := j.cloud.Held(ctx, []string{old, number})
		if err != nil {
			return err
		}
		for _, n := range []string{old, number} {
			h, ok := held[n]
			if !ok || n == "" {
				continue
			}
			if why, err := conflict(ctx, j.cloud, h, j.id, j.account, j.Store); err != nil || why != "" {
				return cmp.Or(err, person("%s", why))
			}
		}
	}
	return nil
}

// conflict explains why a number that the tenant has cannot be given to, or taken from, a user; "" if it can.
func conflict(ctx context.Context, c Cloud, h Holding, id, account string, s Store) (string, error) {
	switch {
	case h.Source == "onPremises":
		return fmt.Sprintf("%s is set in the on-premises Active Directory: clear it there first (msRTCSIP-Line)",
			h.Number), nil
	case h.Type != "" && h.Type != "directRouting":
		return fmt.Sprintf("%s is a number of type %s, not of direct routing: release it first", h.Number, h.Type), nil
	case h.Target == "" || h.Target == id:
		return "", nil
	}

	var holder *User
	err := s.View(ctx, account, func(ctx context.Context, tx Tx) (err error) {
		holder, err = tx.User(ctx, h.Target)
		return err
	})
	switch {
	case err == nil && holder.Deleted.IsZero():
		kind := "the user"
		if holder.Voice.Kind == ResourceAccount {
			kind = "the resource account"
		}
		return fmt.Sprintf("%s is held by %s %s: deactivate that one first, or choose another number", h.Number, kind,
			holder.UPN), nil
	case err != nil && !fault.Is(err, fault.NotFound):
		return "", err
	}
	name, since, binned, err := c.Binned(ctx, h.Target)
	switch {
	case err != nil:
		return "", err
	case binned:
		return fmt.Sprintf("%s is held by %s, deleted on %s, until it is purged 30 days later: restore or purge "+
			"that user", h.Number, name, since.UTC().Format(time.DateOnly)), nil
	}
	found, err := c.Look(ctx, h.Target)
	if err != nil {
		return "", err
	}
	if found != nil {
		return fmt.Sprintf("%s is held by the user %s", h.Number, found.Profile.UPN), nil
	}
	return fmt.Sprintf("%s is held by an account that no longer exists: %s (%s). Unassign it with "+
		"Remove-CsPhoneNumberAssignment, or choose another number", h.Number, h.Target, h.Status), nil
}

// confirm waits a moment until the user shows what a step has done.
func (j *job) confirm(ctx context.Context, s plan.Step) error {
	began := time.Now()
	for every := 100 * time.Millisecond; ; every *= 2 {
		if there, err := j.look(ctx); err != nil || !there {
			return err
		}
		done := s.Done(j.user.object(), true)
		if done {
			j.user.Waiting = nil
		}
		if done || j.said != "" && numbered(s).Done(j.user.object(), true) { // the rest is another step
			return nil
		}
		if time.Since(began)+every > readBack {
			return j.undone(s)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(every):
		}
	}
}

// numbered returns the part of a step that concerns the number.
func numbered(s plan.Step) plan.Step {
	s.Differences = slices.DeleteFunc(slices.Clone(s.Differences), func(d plan.Difference) bool {
		return d.Field != "number"
	})
	return s
}

// undone explains a step whose effect does not show. What Microsoft said of the number is not believed before the
// licence and the directory are.
func (j *job) undone(s plan.Step) error {
	switch {
	case j.said == "":
		return j.invisible(s)
	case !j.user.Licensed():
		return j.unlicensed()
	case j.user.OnPremises && strings.Contains(strings.ToLower(j.said), "on-premises"):
		return person("the number is set in the on-premises Active Directory: clear it there first. Microsoft says: %s",
			j.said)
	case takes(s) && !j.asks():
		return microsoft("a number that is to be taken was refused, perhaps because an ended process has taken it; "+
			"Microsoft says: %s", j.said)
	}
	return person("Microsoft refused the number: %s", j.said)
}

// takes reports whether a step takes the number from the user.
func takes(s plan.Step) bool {
	return slices.ContainsFunc(s.Differences, func(d plan.Difference) bool {
		number, _ := d.New.(string)
		return d.Field == "number" && number == ""
	})
}

// asks reports whether a person is to be asked about a refusal: what has been waited for was not the visibility of a
// step, and long.
func (j *job) asks() bool {
	w := j.user.Waiting
	return w != nil && w.For == onboard.Microsoft && w.Object == (plan.Ref{}) && time.Since(w.Since) > resend
}

func (j *job) invisible(s plan.Step) error {
	w := microsoft("what was changed is not visible yet").(*wait)
	w.Object = s.Ref
	return w
}

// end records how a run ended.
func (j *job) end(ctx context.Context, err error) (flow.Result, error) {
	var waiting *onboard.Waiting
	f := fault.As(err)
	w, isWait := errors.AsType[*wait](err)
	switch {
	case err == nil:
	case errors.Is(err, errReplaced):
		return flow.Result{Again: time.Now()}, nil
	case isWait:
		waiting = &w.Waiting
	case f.Kind == fault.Unauthenticated || f.Kind == fault.Forbidden || f.Kind == fault.Conflict ||
		f.Kind == fault.Invalid:
		waiting = &onboard.Waiting{For: onboard.Person, Reason: f.Message}
	case f.Kind == fault.Unavailable && j.run.Attempt > 3: // for hours, perhaps
		waiting = &onboard.Waiting{For: onboard.Microsoft, Reason: f.Message}
	default:
		return flow.Result{}, err
	}

	var result flow.Result
	if waiting != nil {
		waiting.Since = time.Now()
		if old := j.user.Waiting; old != nil && old.For == waiting.For && old.Object == waiting.Object {
			waiting.Since = old.Since
		}
		if waiting.For == onboard.Person {
			result.Wait = domain.RedactPeople(waiting.Reason)
		} else {
			waited := time.Since(waiting.Since)
			result.Again = time.Now().Add(min(max(waited/4, 5*time.Second), 10*time.Minute))
		}
	}
	return result, j.update(ctx, "", func(ctx context.Context, tx Tx) error { return j.settle(ctx, tx, waiting) })
}

// settle stores the outcome, unless the user is to have something else by now.
func (j *job) settle(ctx context.Context, tx Tx, waiting *onboard.Waiting) error {
	u, err := tx.User(ctx, j.id)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil || !reflect.DeepEqual(u.Activation, j.asked) {
		return err
	}
	u.Activation, u.Pending, u.Waiting = j.user.Activation, waiting != nil, waiting
	if err := tx.Settle(ctx, u); err != nil || waiting != nil {
		return err
	}

	event, number := "tenant.user.inactive", ""
	if u.Activation != nil {
		event, number = "tenant.user.active", u.Activation.Number
		if j.known && j.made.OverrideGroup != u.Activation.OverrideGroup { // asked again, without a step
			j.made.OverrideGroup = u.Activation.OverrideGroup
			if err := tx.Record(ctx, j.made); err != nil {
				return err
			}
		}
	} else if err := tx.Forget(ctx, ref(j.id)); err != nil {
		return err
	}
	if err := tx.Owns(ctx, u, number); err != nil {
		return err
	}
	return tx.Event(ctx, event, j.account+"/"+j.id, map[string]any{"user": u.UPN})
}
