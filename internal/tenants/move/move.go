// Package move brings an account to another tenant, or its tenant to another label, perhaps with the other trunk model,
// without a call lost: at every moment, calls to a number in use go to a label of the tenant in which somebody has it.
//
//	onboard ──▶ ready ──continue──▶ numbers ──▶ leave ──▶ done
//
// At first a person plans and applies the new label: in the account's tenant or, for a move, in the new one, whose row
// has the id "ACCOUNT@next" until the end. When the new label is ready, no call uses it, but those to numbers for which
// a person records it; then a person continues.
//
// To convert, the new label becomes the active one. To move, each number that a user of the new tenant has gets the new
// label (a number can be in both tenants: calls go to its label), and a while later the user of the old tenant gets
// back what it had before. When nobody there has a number of the account, the new label becomes the active one.
//
// At last a person plans and applies that the old label is removed, or that the old tenant is left. The row of the new
// tenant takes the place of the old one's.
//
// It is work of package flow: each run begins with what is stored, so a process may be killed at any point.
package move

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
	"github.com/tandemgw/tandem/internal/tenants/user"
)

// Kind is the kind of the keys in package flow; their ids are names of accounts.
const Kind = "tenantMove"

// Stage is how far a move is.
type Stage string

// The stages.
const (
	Onboard Stage = "onboard"
	Ready   Stage = "ready"
	Numbers Stage = "numbers"
	Leave   Stage = "leave"
	Done    Stage = "done"
)

// Move is the move of an account.
type Move struct {
	Account  string     `json:"-"`
	TenantID string     `json:"tenantId,omitempty"` // of the new tenant; empty if the tenant stays
	Old      string     `json:"old"`                // label
	New      string     `json:"new,omitempty"`      // empty before it is known
	Trunk    plan.Trunk `json:"trunk,omitempty"`
	Begun    time.Time  `json:"begun"`
	By       string     `json:"by"`
	Stage    Stage      `json:"stage"`
	Next     string     `json:"next"`    // what a person does next, or what is waited for
	Numbers  int        `json:"numbers"` // that only the old tenant has
	// Switched is when calls last changed to the new label. What they used before stays for a while.
	Switched time.Time `json:"switched,omitzero"`
}

// Target returns the id of the tenant that gets the new label.
func (m *Move) Target() string {
	if m.TenantID == "" {
		return m.Account
	}
	return m.Account + onboard.Next
}

// Tx is a transaction on the move of one account, and on the row of its tenant.
type Tx interface {
	onboard.Tx
	// Of returns the transaction on the row of the tenant with an id.
	Of(id string) onboard.Tx
	// Move returns the move, locked until the end of the transaction; an error of kind fault.NotFound if there is none.
	Move(ctx context.Context) (*Move, error)
	// SetMove stores the move, and enqueues it if wake is set.
	SetMove(ctx context.Context, m *Move, wake bool) error
	DeleteMove(ctx context.Context) error
	// Replace puts what is stored of the tenant "ACCOUNT@next" in the place of what is stored of the account's tenant,
	// of which snapshots and the history of numbers stay.
	Replace(ctx context.Context) error
}

// Store has the moves.
type Store interface {
	ViewMove(ctx context.Context, account string, fn func(context.Context, Tx) error) error
	// UpdateMove runs fn in a transaction. If run is not nil, it is a step of the run.
	UpdateMove(ctx context.Context, run *flow.Run, account string, fn func(context.Context, Tx) error) error
	// Moves returns up to limit accounts that move, after one, in order.
	Moves(ctx context.Context, after string, limit int) ([]string, error)
}

// Labels has the labels of accounts, and the numbers that record them.
type Labels interface {
	// Of returns the labels of an account; empty for none.
	Of(ctx context.Context, account string) (active, pending string, err error)
	Activate(ctx context.Context, account, label string) error
	// Recorded returns up to limit numbers that record a label, after one, in order.
	Recorded(ctx context.Context, account, label string, after domain.E164, limit int) ([]domain.E164, error)
	// Record records a label for up to MaxBatch numbers; an empty one removes the record.
	Record(ctx context.Context, account, label string, ns []domain.E164) error
	Release(ctx context.Context, account, label string) error
	// Has returns those of some numbers that an account has.
	Has(ctx context.Context, account string, ns []string) ([]string, error)
}

// MaxBatch is how many numbers change their label at once.
const MaxBatch = 100

// Service does what callers ask for, and the work. Its methods are safe for concurrent use.
type Service struct {
	Store  Store
	Labels Labels
	Users  *user.Service
	Log    *slog.Logger // may be nil
	// Settle is how long edges may still use the label that a number had before; a minute if 0.
	Settle time.Duration
}

// Request asks for a move. Without a tenant id, the account's tenant gets another label.
type Request struct {
	TenantID, Label string
	Trunk           plan.Trunk
}

// Begin begins a move.
func (s *Service) Begin(ctx context.Context, account string, r Request, by string) (m *Move, err error) {
	switch {
	case r.TenantID == "" && r.Label == "":
		return nil, fault.New(fault.Invalid, "MissingLabel", "say which label the tenant gets, or the tenant to move "+
			"to").At("label")
	case r.TenantID != "" && !domain.IsGUID(r.TenantID):
		return nil, fault.New(fault.Invalid, "InvalidTenantId", "%q is not the id of a tenant, which is a GUID",
			r.TenantID).At("tenantId")
	}
	active, pending, err := s.Labels.Of(ctx, account)
	if err != nil {
		return nil, err
	}

	err = s.Store.UpdateMove(ctx, nil, account, func(ctx context.Context, tx Tx) error {
		if _, err := tx.Move(ctx); err == nil {
			return fault.New(fault.Conflict, "MoveExists", "the account moves already (tandem tenant move show %s)",
				account)
		} else if !fault.Is(err, fault.NotFound) {
			return err
		}
		t, err := tx.Tenant(ctx)
		if err != nil {
			return err
		}
		m = &Move{Account: account, TenantID: strings.ToLower(r.TenantID), Old: active, New: r.Label, Trunk: r.Trunk,
			Begun: time.Now().UTC().Truncate(time.Second), By: by, Stage: Onboard}
		m.Next = "plan and apply the new label: tandem tenant plan " + m.Target()
		resumes := func(l string) bool { return m.TenantID == "" && strings.EqualFold(l, r.Label) } // an abandoned move
		switch {
		case t.State() != onboard.Onboarded:
			return fault.New(fault.Conflict, "TenantNotOnboarded", "the tenant of %s is not onboarded (%s)", account,
				t.State())
		case !t.HasLabel(active) || pending != "" && !resumes(pending) ||
			slices.ContainsFunc(t.Settings.Labels, func(l plan.Label) bool {
				return !strings.EqualFold(l.Name, active) && !resumes(l.Name)
			}):
			return fault.New(fault.Conflict, "LabelState", "the account has the labels %q and %q; it moves from one "+
				"label of its tenant only, or to the other one", active, pending)
		case strings.EqualFold(r.Label, active):
			return fault.New(fault.Conflict, "LabelState", "%q is the label that the tenant has", r.Label).At("label")
		case m.TenantID == "":
			t.Wishes.Label, t.Wishes.Trunk = r.Label, r.Trunk
		case m.TenantID == t.ID:
			return fault.New(fault.Conflict, "SameTenant", "that is the tenant that the account has").At("tenantId")
		default:
			if t, err = s.newTenant(ctx, tx, t, m); err != nil {
				return err
			}
			m.Next = "have an administrator of the new tenant sign in: tandem tenant invite " + m.Target() +
				" --tenant " + m.TenantID + "; then " + m.Next
		}
		if err := tx.SetTenant(ctx, t); err != nil {
			return err
		}
		if err := tx.SetMove(ctx, m, true); err != nil {
			return err
		}
		return tx.Audit(ctx, "tenant.beginMove", account, map[string]any{"tenantId": r.TenantID, "label": r.Label,
			"trunk": r.Trunk})
	})
	return m, err
}

// newTenant returns the row of the tenant to which an account moves.
func (s *Service) newTenant(ctx context.Context, tx Tx, t *onboard.Tenant, m *Move) (*onboard.Tenant, error) {
	n := &onboard.Tenant{Account: m.Target(), ID: m.TenantID, Wishes: t.Wishes}
	n.Wishes.Label, n.Wishes.Trunk = m.New, m.Trunk
	n.Wishes.Licence = "" // of that tenant
	old, err := tx.Of(n.Account).Tenant(ctx)
	if fault.Is(err, fault.NotFound) {
		return n, nil
	}
	if err == nil {
		err = fault.New(fault.Conflict, "TenantInUse", "an abandoned move has left the tenant %s, %s; leave it first "+
			"(tandem tenant plan %s --leave), and delete it", n.Account, old.State(), n.Account)
	}
	return nil, err
}

// Get returns the move of an account.
func (s *Service) Get(ctx context.Context, account string) (m *Move, err error) {
	err = s.Store.ViewMove(ctx, account, func(ctx context.Context, tx Tx) error {
		m, err = tx.Move(ctx)
		return err
	})
	return m, err
}

// Continue lets calls use the new label.
func (s *Service) Continue(ctx context.Context, account string) (m *Move, err error) {
	err = s.Store.UpdateMove(ctx, nil, account, func(ctx context.Context, tx Tx) error {
		if m, err = tx.Move(ctx); err != nil {
			return err
		}
		switch m.Stage {
		case Onboard:
			return fault.New(fault.Conflict, "MoveNotReady", "the new label is not onboarded yet: %s", m.Next)
		case Ready:
			m.Stage, m.Next = Numbers, "calls change to the new label"
		}
		if err := tx.SetMove(ctx, m, true); err != nil {
			return err
		}
		return tx.Audit(ctx, "tenant.continueMove", account, map[string]any{"label": m.New})
	})
	return m, err
}

// Abandon ends a move. What was done stays.
func (s *Service) Abandon(ctx context.Context, account string) error {
	return s.Store.UpdateMove(ctx, nil, account, func(ctx context.Context, tx Tx) error {
		m, err := tx.Move(ctx)
		if err != nil {
			return err
		}
		t, err := tx.Tenant(ctx)
		if err == nil && t.Retire != "" {
			t.Retire = ""
			err = tx.SetTenant(ctx, t)
		}
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		if err := tx.DeleteMove(ctx); err != nil {
			return err
		}
		return tx.Audit(ctx, "tenant.abandonMove", account, map[string]any{"stage": m.Stage})
	})
}
