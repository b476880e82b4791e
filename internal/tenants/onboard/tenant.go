package onboard

import (
	"context"
	"time"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/tenants/plan"
)

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
