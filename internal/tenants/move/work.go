package move

import (
	"cmp"
	"context"
	"fmt"
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
	case err == nil && m.Stage == Done:
		cmp.Or(s.Log, slog.New(slog.DiscardHandler)).Info("move finished", "account", m.Account, "from", m.Old,
			"to", m.New, "took", time.Since(m.Begun).Round(time.Second))
		return flow.Result{}, nil
	case err != nil:
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
		m.Next = fmt.Sprintf("in use in the old tenant and not in the new one: %s; give each to a user there "+
			"(tandem user activate %s), or take it from the user of the old one", domain.Count(m.Numbers, "number"),
			m.Target())
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
	} else if t.HasLabel(m.Old) {
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
