// Package drift compares tenants with what Tandem made there, on a schedule and on demand. What a person has changed is
// a [Difference]: it names the object, the field, what was expected and what was found, and since when. Each is
// repaired by a plan, or accepted, one by one.
//
// A comparison is a run of the tenant's key (package flow). What Tandem itself has changed lately may not be visible
// yet at Microsoft: such a difference is shown, with the time until which it is waited for, and is not drift before.
package drift

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
	"github.com/tandemgw/tandem/internal/tenants/snapshot"
)

// Kind is the kind of the keys in package flow; their ids are names of accounts.
const Kind = "tenantDrift"

const (
	// propagation is how long Microsoft may show old values ("up to 24 hours", New-CsGroupPolicyAssignment).
	propagation = 24 * time.Hour
	// busy is when to look again at a tenant that is being changed.
	busy = 10 * time.Minute
)

// Cause is what kind of difference there is.
type Cause string

// The causes.
const (
	Changed Cause = "changed"
	Missing Cause = "missing" // the object does not exist
	// Unknown is a number that a user has, and the account does not.
	Unknown Cause = "notInInventory"
	// NotActive is a user whom the settings of the tenant select.
	NotActive Cause = "notActive"
)

// maxSelected bounds how many differences with the cause NotActive a tenant has.
const maxSelected = 1000

// Difference is something that is not as Tandem made it.
type Difference struct {
	ID int `json:"id"` // stays while the difference does; unique in its tenant
	plan.Ref
	Cause    Cause     `json:"cause"`
	Field    string    `json:"field,omitempty"` // empty of a missing object
	Expected any       `json:"expected,omitempty"`
	Found    any       `json:"found,omitempty"`
	Since    time.Time `json:"since"` // when it was first seen
	// Until is set if Tandem has changed the object lately, and no comparison since then found it as expected: the
	// difference is not drift before.
	Until time.Time `json:"until,omitzero"`
}

// atMicrosoft reports whether the tenant at Microsoft is not as expected, which our own rows cannot change.
func (d *Difference) atMicrosoft() bool { return d.Cause == Changed || d.Cause == Missing }

func (d *Difference) key() string {
	return strings.ToLower(fmt.Sprint(d.Type, " ", d.Name, " ", d.Cause, " ", d.Field))
}

// State is what the last comparison of a tenant showed.
type State struct {
	Checked time.Time     `json:"checked,omitzero"` // when the tenant was last compared
	Problem string        `json:"problem,omitempty"`
	Next    time.Time     `json:"-"`
	Every   time.Duration `json:"every"`
	// Requests is how many requests a comparison takes.
	Requests    int          `json:"requests"`
	Differences []Difference `json:"differences"`
	Last        int          `json:"last"`            // the greatest id of a difference so far
	Edited      time.Time    `json:"edited,omitzero"` // when a difference was last accepted
}

// Drift returns the number of differences that are drift.
func (s *State) Drift() int { return len(s.drifted()) }

func (s *State) drifted() map[string]bool {
	keys := map[string]bool{}
	for _, d := range s.Differences {
		if d.Until.IsZero() {
			keys[d.key()] = true
		}
	}
	return keys
}

// PerHour returns how many requests the comparisons of the tenant take in an hour.
func (s *State) PerHour() int {
	if s.Every <= 0 {
		return 0
	}
	return int((time.Duration(s.Requests)*time.Hour + s.Every - 1) / s.Every)
}

// Overview is the sum over all tenants.
type Overview struct {
	Tenants, Drifted, Differences, PerHour int
	Oldest                                 time.Time // the oldest last comparison; zero if there is none
}

// Store has the states. It is safe for concurrent use.
type Store interface {
	// State returns the state of a tenant, empty if it was not compared yet.
	State(ctx context.Context, account string) (*State, error)
	// Changes returns when Tandem last changed each object that it has made in a tenant: now, for users that it is
	// about to change.
	Changes(ctx context.Context, account string) (map[plan.Ref]time.Time, error)
	// Save stores, in a step of the run, what fn makes of the present state, with events about what was found and what
	// is gone. A nil state removes it.
	Save(ctx context.Context, run *flow.Run, fn func(*State) (next *State, found, gone int)) error
	// Accept changes what Tandem expects, in a transaction.
	Accept(ctx context.Context, account string, fn func(context.Context, AcceptTx) error) error
	// Check makes a tenant be compared at once.
	Check(ctx context.Context, account string) error
	// Due returns up to limit accounts after one, in order, whose tenants are to be compared.
	Due(ctx context.Context, now time.Time, after string, limit int) ([]string, error)
	Overview(ctx context.Context) (Overview, error)
}

// Inventory has the numbers of accounts.
type Inventory interface {
	// Missing returns those of the numbers, in E.164 form, that the account does not have.
	Missing(ctx context.Context, account string, numbers []string) ([]string, error)
	// Add gives a number to the account.
	Add(ctx context.Context, account, number string) error
}

// Users are the accounts of tenants. Its methods are safe for concurrent use.
type Users interface {
	// Selected returns the ids of up to limit users that the settings of the tenant select and that could be active,
	// but are not.
	Selected(ctx context.Context, t *onboard.Tenant, limit int) ([]string, error)
	// Activations returns what such users are to have, with the next free numbers, and have now.
	Activations(ctx context.Context, account string, ids []string) ([]plan.Made, error)
	// Accepted is called after a difference of a user was accepted, with what is now expected of it; without fields if
	// it is no longer Tandem's.
	Accepted(ctx context.Context, account string, user plan.Object) error
}

// Checker compares tenants. It is safe for concurrent use.
type Checker struct {
	snapshot.Reader
	Store Store
	// Every returns how often a tenant is compared: an hour by the HTTPS service, six by the PowerShell worker.
	Every     func(account string) time.Duration
	Inventory Inventory // nil: numbers are not looked up
	Users     Users     // nil: settings select none
	// Repair stores a plan that does no more than the given one and activates users, for a person to approve, and
	// returns its id.
	Repair func(ctx context.Context, account string, p *plan.Plan, users []plan.Made) (id string, err error)
	// Compared is called after a tenant was compared, with its row. Its errors are logged. It may be nil.
	Compared func(ctx context.Context, t *onboard.Tenant) error
	Log      *slog.Logger
	metrics  metrics
}

// Kind returns the work of comparing.
func (c *Checker) Kind(reg prometheus.Registerer) *flow.Kind {
	c.metrics = newMetrics(reg)
	return &flow.Kind{Name: Kind, Reconcile: c.reconcile, Workers: 2,
		List: func(ctx context.Context, after string, limit int) ([]string, error) {
			if o, err := c.Store.Overview(ctx); err == nil {
				c.metrics.show(o)
			}
			return c.Store.Due(ctx, time.Now(), after, limit)
		}}
}

// reconcile compares a tenant.
func (c *Checker) reconcile(ctx context.Context, run *flow.Run) (flow.Result, error) {
	began, every := time.Now().UTC().Truncate(time.Microsecond), c.Every(run.ID)
	x, failed := c.Read(ctx, run.ID)
	var own ours
	if failed == nil {
		own, failed = c.ours(ctx, x)
	}
	switch {
	case fault.HasCode(failed, "TenantNotFound"), failed == nil && len(x.Ledger) == 0:
		return flow.Result{}, c.Store.Save(ctx, run, func(old *State) (*State, int, int) { return nil, 0, old.Drift() })
	case ctx.Err() != nil:
		return flow.Result{}, ctx.Err()
	case failed != nil:
		c.Log.Warn("the tenant cannot be compared", "account", run.ID, "error", failed)
		c.metrics.failed.Inc()
	}

	var next time.Time
	err := c.Store.Save(ctx, run, func(old *State) (*State, int, int) {
		s := *old
		s.Next, s.Every, s.Problem = began.Add(every), every, ""
		switch {
		case failed != nil:
			s.Problem = problem(failed)
		case x.Tenant.Pending: // what the ledger says may not be there yet
			s.Next = began.Add(min(every, busy))
		case old.Edited.After(began): // the ledger that was read is no longer the present one
			s.Next = began
		default:
			s.compare(x, own, began)
			s.Checked, s.Requests = began, x.Requests
		}
		next = s.Next
		was, is := old.drifted(), s.drifted()
		return &s, without(is, was), without(was, is)
	})
	if err == nil && failed == nil && c.Compared != nil {
		if err := c.Compared(ctx, x.Tenant); err != nil {
			c.Log.Warn("the free licences of the tenant cannot be read", "account", run.ID, "error", err)
		}
	}
	if o, err := c.Store.Overview(ctx); err == nil {
		c.metrics.show(o)
	}
	return flow.Result{Again: next}, err
}

// without returns how many keys of a are not in b.
func without(a, b map[string]bool) (n int) {
	for k := range a {
		if !b[k] {
			n++
		}
	}
	return n
}

func problem(err error) string {
	if f := fault.As(err); f != nil {
		return f.Message
	}
	return err.Error()
}

// number returns the number of a user without its extension; empty if there is none.
func number(o plan.Object) string {
	s, _ := o.Fields["number"].(string)
	s, _, _ = strings.Cut(s, ";")
	return s
}

// ours is what Tandem itself knows of a tenant when it is compared.
type ours struct {
	missing  []string // numbers that users have and the account does not
	selected []string // ids of users that should be active
	changes  map[plan.Ref]time.Time
}

func (c *Checker) ours(ctx context.Context, x *snapshot.Reading) (o ours, err error) {
	if o.missing, err = c.missing(ctx, x); err != nil {
		return o, err
	}
	if c.Users != nil {
		if o.selected, err = c.Users.Selected(ctx, x.Tenant, maxSelected); err != nil {
			return o, fmt.Errorf("look up the users that the settings select: %w", err)
		}
	}
	o.changes, err = c.Store.Changes(ctx, x.Tenant.Account)
	return o, err
}

// missing returns the numbers that users have and the account does not.
func (c *Checker) missing(ctx context.Context, x *snapshot.Reading) ([]string, error) {
	var numbers []string
	for _, m := range x.Ledger {
		if o, ok := x.Have.Get(m.Ref); ok && m.Type == plan.User && number(o) != "" {
			numbers = append(numbers, number(o))
		}
	}
	if c.Inventory == nil || len(numbers) == 0 {
		return nil, nil
	}
	missing, err := c.Inventory.Missing(ctx, x.Tenant.Account, numbers)
	if err != nil {
		return nil, fmt.Errorf("look up the numbers of the account: %w", err)
	}
	return missing, nil
}

// compare replaces the differences.
func (s *State) compare(x *snapshot.Reading, own ours, now time.Time) {
	old, waited := map[string]Difference{}, map[plan.Ref]bool{}
	for _, d := range s.Differences {
		old[d.key()] = d
		waited[d.Ref] = waited[d.Ref] || !d.Until.IsZero()
	}
	s.Differences = nil
	add := func(d Difference) {
		d.ID, d.Since = old[d.key()].ID, old[d.key()].Since
		if d.ID == 0 {
			s.Last++
			d.ID, d.Since = s.Last, now
		}
		at := own.changes[plan.Ref{Type: d.Type, Name: strings.ToLower(d.Name)}]
		if d.atMicrosoft() && now.Before(at.Add(propagation)) && (s.Checked.Before(at) || waited[d.Ref]) {
			// What was as expected in a comparison since the change has been changed by a person.
			d.Until = at.Add(propagation)
		}
		s.Differences = append(s.Differences, d)
	}

	p := plan.Drift(x.Have, x.Ledger)
	for _, step := range p.Steps {
		if step.Action == plan.Create {
			add(Difference{Ref: step.Ref, Cause: Missing})
			continue
		}
		for _, f := range step.Differences {
			add(Difference{Ref: step.Ref, Cause: Changed, Field: f.Field, Expected: f.New, Found: f.Old})
		}
	}
	for _, n := range p.Conflicts { // users that do not exist
		add(Difference{Ref: n.Ref, Cause: Missing})
	}

	differs := map[plan.Ref]bool{}
	for _, d := range s.Differences {
		differs[d.Ref] = differs[d.Ref] || d.Field == "number"
	}
	for _, m := range slices.SortedFunc(maps.Values(x.Ledger), func(a, b plan.Made) int {
		return strings.Compare(a.Name, b.Name)
	}) {
		o, ok := x.Have.Get(m.Ref)
		if ok && m.Type == plan.User && !differs[m.Ref] && slices.Contains(own.missing, number(o)) {
			add(Difference{Ref: m.Ref, Cause: Unknown, Field: "number", Found: o.Fields["number"]})
		}
	}
	for _, id := range own.selected {
		add(Difference{Ref: plan.Ref{Type: plan.User, Name: id}, Cause: NotActive})
	}
	slices.SortFunc(s.Differences, func(a, b Difference) int { return a.ID - b.ID })
}

// typed returns a value that was stored as JSON as package plan has it in the field.
func typed(r plan.Ref, field string, v any) (any, error) {
	b, err := json.Marshal(map[string]any{"type": r.Type, "name": r.Name, "fields": map[string]any{field: v}})
	if err != nil {
		return nil, err
	}
	var o plan.Object
	if err := json.Unmarshal(b, &o); err != nil {
		return nil, err
	}
	return o.Fields[field], nil
}
