package onboard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
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

// Tenant is the row of a tenant.
type Tenant struct {
	Account  string        `json:"-"`
	ID       string        `json:"id"` // the tenant's id at Microsoft; empty while it is not known
	Wishes   Wishes        `json:"wishes"`
	Settings plan.Settings `json:"settings"`          // as in the newest plan that was applied
	MadeFor  Dial          `json:"madeFor,omitzero"`  // what the rules in Settings were made for
	Purpose  Purpose       `json:"purpose,omitempty"` // of that plan
	// Target is what the approved plan asks for. It is empty for a tenant that leaves.
	Target []plan.Object `json:"-"`
	// Plan is the id of that plan, and Applied when it was approved.
	Plan    string    `json:"plan,omitempty"`
	Applied time.Time `json:"applied,omitzero"`
	// Approved is the hash of the approved plan until its first step.
	Approved string `json:"approved,omitempty"`
	// Asking are the approved plans whose users have not all been asked for what the plan does to them.
	Asking []Asking `json:"asking,omitempty"`
	// RemoveConsent asks to remove Tandem's application when everything else was removed. Removing is set while that is
	// done: from then on the tenant cannot be read. When Onboarder.Done is called, it says whether it was removed.
	RemoveConsent bool `json:"removeConsent,omitempty"`
	Removing      bool `json:"removing,omitempty"`
	// Retire is a label that the next plan removes, because another has taken its place.
	Retire string `json:"retire,omitempty"`
	Spare  *Spare `json:"spare,omitempty"` // as of the newest plan
	// Open are the objects of the steps that the tenant does not show yet.
	Open []plan.Ref `json:"open,omitempty"`
	// Pending is set until the tenant has the target.
	Pending bool     `json:"-"`
	Waiting *Waiting `json:"waiting,omitempty"`
}

// Asking says how far a plan is with its users.
type Asking struct {
	Plan string       `json:"plan"`
	Done int          `json:"done,omitempty"` // how many users were asked for
	By   domain.Actor `json:"by"`             // who has approved it
}

// AskNext asks in a transaction for the next users of a plan, after those that were asked for, and returns how many
// they are: none if all were asked for.
type AskNext func(ctx context.Context, tx Tx, done int) (int, error)

// Spare says how many seats with Phone System were free when a tenant was read.
type Spare struct {
	Seats int       `json:"seats"`
	Read  time.Time `json:"read"`
}

// State is how far a tenant is.
type State string

// The states.
const (
	New       State = "new"     // no plan was applied yet
	Working   State = "working" // a plan is carried out
	Waits     State = "waiting"
	Onboarded State = "onboarded" // it has what the plan said
	Left      State = "left"      // it has nothing of Tandem
)

// States are all states.
var States = []State{New, Working, Waits, Onboarded, Left}

// State returns how far the tenant is.
func (t *Tenant) State() State {
	switch {
	case t.Purpose == "":
		return New
	case t.Waiting != nil:
		return Waits
	case t.Pending:
		return Working
	case t.Purpose == Leave:
		return Left
	}
	return Onboarded
}

// Waiting is what a tenant waits for.
type Waiting struct {
	For    Party    `json:"for"`
	Object plan.Ref `json:"object,omitzero"`
	Reason string   `json:"reason"` // for the operator
	// Customer is what the customer's administrator reads in place of Reason; empty: the same.
	Customer string    `json:"customer,omitempty"`
	Since    time.Time `json:"since"`
	// Usual and Longest are how long it takes; zero if that is not known.
	Usual   time.Duration `json:"usual,omitempty"`
	Longest time.Duration `json:"longest,omitempty"`
	Late    bool          `json:"late,omitempty"` // it takes longer than usual
}

// Party is who has to do something.
type Party string

// The parties.
const (
	Person    Party = "person"
	Microsoft Party = "microsoft"
	DNS       Party = "dns"    // name servers that do not have a record yet
	Tandem    Party = "tandem" // runs for users of the tenant
)

// Tx is a transaction on the rows of one tenant.
type Tx interface {
	// Tenant returns the tenant, locked until the end of the transaction; an error of kind fault.NotFound if there is
	// none.
	Tenant(ctx context.Context) (*Tenant, error)
	// SetTenant stores the tenant but for its target, which SetTarget stores.
	SetTenant(ctx context.Context, t *Tenant) error
	// SetTarget stores what the tenant should have, and has it reconciled.
	SetTarget(ctx context.Context, account string, target []plan.Object) error
	Ledger(ctx context.Context) (plan.Ledger, error)
	// Record stores entries of the ledger, and Forget removes one.
	Record(ctx context.Context, entries ...plan.Made) error
	Forget(ctx context.Context, refs ...plan.Ref) error

	// SetProposal stores a plan, and drops the oldest ones of the account beyond MaxProposals.
	SetProposal(ctx context.Context, p *Proposal) error
	// Proposal returns a plan of the tenant; an error of kind fault.NotFound if there is none with that id.
	Proposal(ctx context.Context, id string) (*Proposal, error)
	// DeleteTenant removes the tenant with its plans, its users, its sign-in and its link; an error of kind
	// fault.NotFound if there is none of that.
	DeleteTenant(ctx context.Context) error
	// Audit and Event enter in the audit log what a person has done, and in the event log what has happened.
	Audit(ctx context.Context, action, target string, what any) error
	Event(ctx context.Context, kind, subject string, data map[string]any) error
}

// Store has the rows of tenants and their plans.
type Store interface {
	View(ctx context.Context, account string, fn func(context.Context, Tx) error) error
	// Update runs fn in a transaction. If run is not nil, it is a step of the run, with the progress.
	Update(ctx context.Context, run *flow.Run, account, progress string, fn func(context.Context, Tx) error) error
	// Tenants returns up to limit tenants whose account follows after, by account, without their targets; if pending is
	// set, only those that do not have their target.
	Tenants(ctx context.Context, after string, limit int, pending bool) ([]*Tenant, error)
}

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

// wait is returned by a step that waits.
type wait struct {
	Waiting
	after time.Duration // at least, until the next attempt
	code  string        // of the fault
}

func (w *wait) Error() string { return w.Reason }

// waiting returns the error of a Cloud as a wait, unless it is a failure, with what was attempted.
func waiting(err error, of plan.Ref, format string, args ...any) error {
	f, ok := errors.AsType[*fault.Error](err)
	if !ok {
		return fmt.Errorf(format+": %w", append(args, err)...)
	}
	w := &wait{Waiting{For: Person, Object: of, Reason: f.Message}, f.RetryAfter, f.Code}
	switch f.Kind {
	case fault.Unauthenticated, fault.Forbidden, fault.Conflict:
		w.Customer = customer(f.Code)
		return w
	case fault.Unavailable, fault.Limited:
		w.Usual, w.Longest = of.Type.Takes()
		if w.For = Microsoft; f.Code == CodeNotPublished {
			w.For, w.Customer = DNS, "your provider's name servers do not all answer yet; you need to do nothing"
		}
		return w
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}

// customers says which waits for a person the customer's administrator ends, by the code of the fault, and what it
// reads: the text or, if that is empty, the reason. The operator ends every other one.
var customers = map[string]string{
	CodeNoLicence: "", CodeConflicts: "", "DomainInUse": "", "NumberHeld": "", "UsagesLost": "",
	"ForeignEmergencyNumbers": "", "TeamsRoleMissing": "",
	"Authorization_RequestDenied": "Microsoft says that a permission is missing: check that the authorisation of the " +
		"application has not been changed; your provider then lets the work continue",
	"DomainElsewhere": "another tenant at Microsoft has this name: an administrator of that tenant removes it there, " +
		"or your provider has to choose another name",
	"NotAuthorised": newSignIn, "ConsentNeeded": newSignIn, "SignInNeeded": newSignIn, "TokenRefused": newSignIn,
	"RolesMissing": newSignIn,
}

// newSignIn is for a sign-in that did not work when it was needed. Once that is recorded, the pages offer another.
const newSignIn = "Microsoft did not accept the sign-in; the work continues when it does. This page shows if you " +
	"have to sign in again"

// customer returns what the customer's administrator reads of a wait for a person.
func customer(code string) string {
	if text, ok := customers[code]; ok {
		return text
	}
	return "your provider has to solve this; you need to do nothing"
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

// last says since when it lasts, and what that means if it is longer than usual.
func (w *Waiting) last(since time.Time) {
	w.Since = since
	waited := time.Since(since)
	w.Late = w.Usual > 0 && waited > w.Usual
	label := w.Object.Type == plan.Domain || w.Object.Type == plan.SIPDomain
	switch {
	case w.Late && waited > w.Longest && label:
		w.say(fmt.Sprintf("; this takes at most %.0f hours: ", w.Longest.Hours()),
			"choose a new label for the account (tandem tenant set --label), or keep waiting",
			"your provider has to choose another name, or wait")
	case w.Late:
		w.say(fmt.Sprintf("; this usually takes %s, and at most %s", w.Usual, w.Longest), "", "")
	}
}

// say adds to what the operator and the customer's administrator read.
func (w *Waiting) say(both, operator, customer string) {
	w.Reason, w.Customer = w.Reason+both+operator, cmp.Or(w.Customer, w.Reason)+both+customer
}

const (
	firstPause   = time.Second
	longestPause = 10 * time.Minute
	longestLook  = 30 * time.Second // at what Tandem itself does: a user can wait for a person for days
)

// pause returns how long to wait before looking again for what has not been there for some time.
func pause(waited time.Duration) time.Duration {
	return min(max(waited/4, firstPause), longestPause)
}

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

// changed is the wait for a person to look at the tenant.
func changed(of plan.Ref, code, reason string) error {
	return &wait{Waiting: Waiting{For: Person, Object: of, Reason: reason, Customer: customer(code)}}
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
