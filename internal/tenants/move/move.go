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
	"fmt"
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
		case !has(t, active) || pending != "" && !resumes(pending) ||
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

// has reports whether a tenant has a label.
func has(t *onboard.Tenant, label string) bool {
	return slices.ContainsFunc(t.Settings.Labels, func(l plan.Label) bool { return strings.EqualFold(l.Name, label) })
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

// Work returns the kind for the worker.
func (s *Service) Work() *flow.Kind {
	return &flow.Kind{Name: Kind, Reconcile: s.Reconcile, List: s.Store.Moves}
}

// look is how long to wait before looking again at what others do; longer if many numbers are to be listed for that.
const (
	look = 10 * time.Second
	many = 1000
)

// Reconcile is the function of the kind.
func (s *Service) Reconcile(ctx context.Context, run *flow.Run) (flow.Result, error) {
	m, err := s.Get(ctx, run.ID)
	if fault.Is(err, fault.NotFound) {
		return flow.Result{}, nil
	}
	if err != nil {
		return flow.Result{}, err
	}

	was := *m
	switch m.Stage {
	case Onboard:
		err = s.onboard(ctx, m)
	case Numbers:
		if m.TenantID == "" {
			err = s.switchAll(ctx, run, m)
		} else {
			err = s.numbers(ctx, run, m)
		}
	case Leave:
		err = s.leave(ctx, run, m)
	}
	if err != nil {
		return flow.Result{}, err
	}
	err = s.Store.UpdateMove(ctx, run, run.ID, func(ctx context.Context, tx Tx) error {
		now, err := tx.Move(ctx)
		if fault.Is(err, fault.NotFound) || err == nil && now.Stage != was.Stage {
			return nil // a person has abandoned or continued it
		}
		if err != nil {
			return err
		}
		if m.Stage == Done {
			return s.finish(ctx, tx, m)
		}
		if *m == was {
			return nil
		}
		return tx.SetMove(ctx, m, false)
	})
	switch {
	case err != nil || m.Stage == Done:
		return flow.Result{}, err
	case m.Stage == Ready:
		return flow.Result{Wait: m.Next}, nil
	case m.Stage != was.Stage:
		return flow.Result{Again: time.Now()}, nil
	}
	if m.Numbers > many {
		return flow.Result{Again: time.Now().Add(6 * look)}, nil
	}
	return flow.Result{Again: time.Now().Add(look)}, nil
}

func (s *Service) tenant(ctx context.Context, account, id string) (t *onboard.Tenant, held int, err error) {
	err = s.Store.ViewMove(ctx, account, func(ctx context.Context, tx Tx) error {
		if t, err = tx.Of(id).Tenant(ctx); err != nil {
			return err
		}
		made, err := tx.Of(id).Ledger(ctx)
		held = len(made)
		return err
	})
	return t, held, err
}

// onboard waits until the tenant has the new label.
func (s *Service) onboard(ctx context.Context, m *Move) error {
	t, _, err := s.tenant(ctx, m.Account, m.Target())
	if err != nil {
		return err
	}
	i := slices.IndexFunc(t.Settings.Labels, func(l plan.Label) bool {
		return m.New == "" || strings.EqualFold(l.Name, t.Wishes.Label) || strings.EqualFold(l.Name, m.New)
	})
	if next, waits := progress(t); waits {
		m.Next = next
		return nil
	}
	if i < 0 || t.State() != onboard.Onboarded {
		m.Next = "plan and apply the new label: tandem tenant plan " + m.Target()
		return nil
	}

	m.New = t.Settings.Labels[i].Name
	m.Stage, m.Next = Ready, fmt.Sprintf("the label %s is ready; perhaps try it with a number (tandem number "+
		"label %s NUMBER --label %s), then: tandem tenant move continue %s", m.New, m.Account, m.New, m.Account)
	if m.TenantID != "" {
		m.Next = fmt.Sprintf("the tenant is ready; give its users their numbers (tandem user activate %s), then or "+
			"before: tandem tenant move continue %s", m.Target(), m.Account)
	}
	return nil
}

// progress returns what the plan of a tenant waits for.
func progress(t *onboard.Tenant) (next string, waits bool) {
	if w := t.Waiting; t.Pending && w != nil {
		return fmt.Sprintf("the plan of %s waits for %s: %s", t.Account, w.For, w.Reason), true
	}
	return "the plan of " + t.Account + " is being carried out", t.Pending
}

func (s *Service) settled(m *Move) bool {
	settle := s.Settle
	if settle == 0 {
		settle = time.Minute
	}
	return time.Since(m.Switched) > settle
}

// switchAll makes the new label the one of all numbers.
func (s *Service) switchAll(ctx context.Context, run *flow.Run, m *Move) error {
	active, _, err := s.Labels.Of(ctx, m.Account)
	if err != nil {
		return err
	}
	if !strings.EqualFold(active, m.New) {
		if err := s.switching(ctx, run, m); err != nil {
			return err
		}
		if err := s.Labels.Activate(ctx, m.Account, m.New); err != nil {
			return err
		}
	}
	for {
		ns, err := s.Labels.Recorded(ctx, m.Account, m.Old, "", MaxBatch)
		if err != nil || len(ns) == 0 {
			m.Stage, m.Next, m.Numbers = Leave, "calls use the new label; the old one is kept for a moment", 0
			return err
		}
		if err := s.switching(ctx, run, m); err != nil {
			return err
		}
		if err := s.Labels.Record(ctx, m.Account, "", ns); err != nil {
			return err
		}
	}
}

// switching stores that calls are about to use another label.
func (s *Service) switching(ctx context.Context, run *flow.Run, m *Move) error {
	m.Switched = time.Now().UTC()
	return s.Store.UpdateMove(ctx, run, m.Account, func(ctx context.Context, tx Tx) error {
		now, err := tx.Move(ctx)
		if err != nil {
			return err
		}
		now.Switched = m.Switched
		return tx.SetMove(ctx, now, false)
	})
}

// holder is a user with a number.
type holder struct {
	id, number string
	ours       bool // by Tandem
	active     bool // read back
}

// holders returns the users of a tenant that have numbers, by the number without its extension.
func (s *Service) holders(ctx context.Context, id string) (map[domain.E164][]holder, error) {
	const size = 500
	all := map[domain.E164][]holder{}
	yes := true
	for after := (user.Key{}); ; {
		var page []user.User
		err := s.Users.Store.View(ctx, id, func(ctx context.Context, tx user.Tx) (err error) {
			page, err = tx.Users(ctx, user.Filter{Number: &yes}, after, size)
			return err
		})
		if err != nil {
			return nil, err
		}
		for i := range page {
			u := &page[i]
			h := holder{id: u.ID, number: u.Voice.Number, ours: u.Activation != nil, active: u.State == user.Active}
			base := user.Base(h.number)
			all[base] = append(all[base], h)
			after = user.Key{Login: strings.ToLower(u.UPN), ID: u.ID}
		}
		if len(page) < size {
			break
		}
	}
	for after := ""; ; { // those that are to have a number
		var page []user.User
		err := s.Users.Store.View(ctx, id, func(ctx context.Context, tx user.Tx) (err error) {
			page, err = tx.Activated(ctx, after, size)
			return err
		})
		if err != nil || len(page) == 0 {
			return all, err
		}
		for i := range page {
			u := &page[i]
			if after = u.ID; u.Voice.Number == "" {
				base := user.Base(u.Activation.Number)
				all[base] = append(all[base], holder{id: u.ID, number: u.Activation.Number, ours: true})
			}
		}
	}
}

// numbers moves the numbers that users of the new tenant have.
func (s *Service) numbers(ctx context.Context, run *flow.Run, m *Move) error {
	now, err := s.holders(ctx, m.Target())
	if err != nil {
		return err
	}
	before, err := s.holders(ctx, m.Account)
	if err != nil {
		return err
	}
	recorded := map[domain.E164]bool{}
	for after := domain.E164(""); ; {
		page, err := s.Labels.Recorded(ctx, m.Account, m.New, after, MaxBatch)
		if err != nil {
			return err
		}
		for _, n := range page {
			recorded[n], after = true, n
		}
		if len(page) < MaxBatch {
			break
		}
	}

	var change []domain.E164 // their label
	var give []string        // users that give their number back
	var rest []string        // numbers that only the old tenant has
	for base, users := range now {
		active := slices.ContainsFunc(users, func(h holder) bool { return h.ours && h.active })
		if active && !recorded[base] && covered(before[base], users) {
			change = append(change, base)
		}
	}
	for base, users := range before {
		switch {
		case !recorded[base] && !slices.Contains(change, base):
			rest = append(rest, string(base))
		case recorded[base] && s.settled(m):
			for _, h := range users {
				if h.ours {
					give = append(give, h.id)
				}
			}
		}
	}

	slices.Sort(change)
	for chunk := range slices.Chunk(change, MaxBatch) {
		if err := s.switching(ctx, run, m); err != nil {
			return err
		}
		if err := s.Labels.Record(ctx, m.Account, m.New, chunk); err != nil {
			return err
		}
	}
	for chunk := range slices.Chunk(give, user.MaxItems) {
		if _, _, err := s.Users.Deactivate(ctx, m.Account, chunk, nil, false); err != nil {
			return err
		}
	}
	if rest, err = s.Labels.Has(ctx, m.Account, rest); err != nil {
		return err
	}
	m.Numbers = len(rest)
	switch {
	case m.Numbers > 0:
		m.Next = fmt.Sprintf("%d numbers have users in the old tenant and none in the new one: give them to users "+
			"there (tandem user activate %s), or take them from the users of the old one", m.Numbers, m.Target())
		return nil
	case len(change)+len(give) > 0 || !s.settled(m):
		m.Next = "users of the old tenant give their numbers back"
		return nil
	}
	return s.switchAll(ctx, run, m)
}

// covered reports whether others have all the numbers that some users have.
func covered(users, others []holder) bool {
	for _, u := range users {
		if !slices.ContainsFunc(others, func(o holder) bool { return o.ours && o.active && o.number == u.number }) {
			return false
		}
	}
	return true
}

// leave waits until the old label is removed, or the old tenant left.
func (s *Service) leave(ctx context.Context, run *flow.Run, m *Move) error {
	if !s.settled(m) {
		return nil
	}
	t, held, err := s.tenant(ctx, m.Account, m.Account)
	if err != nil {
		return err
	}
	if next, waits := progress(t); waits {
		m.Next = next
		return nil
	}
	if m.TenantID != "" {
		if t.State() != onboard.Left || held > 0 {
			m.Next = fmt.Sprintf("leave the old tenant: tandem tenant plan %s --leave, then tandem tenant apply",
				m.Account)
			return nil
		}
	} else if slices.ContainsFunc(t.Settings.Labels, func(l plan.Label) bool {
		return strings.EqualFold(l.Name, m.Old)
	}) {
		m.Next = fmt.Sprintf("remove the old label: tandem tenant plan %s, then tandem tenant apply", m.Account)
		if t.Retire == m.Old {
			return nil
		}
		return s.Store.UpdateMove(ctx, run, m.Account, func(ctx context.Context, tx Tx) error {
			t, err := tx.Tenant(ctx)
			if err != nil {
				return err
			}
			t.Retire = m.Old
			return tx.SetTenant(ctx, t)
		})
	}

	m.Stage = Done
	return s.Labels.Release(ctx, m.Account, m.Old)
}

// finish ends a move.
func (s *Service) finish(ctx context.Context, tx Tx, m *Move) error {
	if m.TenantID != "" {
		if err := tx.Replace(ctx); err != nil {
			return err
		}
	}
	t, err := tx.Tenant(ctx)
	if err != nil {
		return err
	}
	if t.Retire = ""; m.TenantID == "" {
		t.Wishes.Label, t.Wishes.Trunk = m.New, m.Trunk
	}
	if err := tx.SetTenant(ctx, t); err != nil {
		return err
	}
	if err := tx.DeleteMove(ctx); err != nil {
		return err
	}
	return tx.Event(ctx, "tenant.moved", m.Account, map[string]any{"old": m.Old, "new": m.New})
}
