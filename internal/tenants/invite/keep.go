package invite

import (
	"context"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/tenants/permission"
)

// Kind is the kind of the keys in package flow that keep access alive; their ids are names of accounts.
const Kind = "tenantAccess"

const (
	// checkEvery keeps refresh tokens alive, which lapse after 90 days without use [K]; a loss is noticed within a day.
	checkEvery = 24 * time.Hour
	checkRetry = 15 * time.Minute
	// checkedLately is for how long Check trusts the last check.
	checkedLately = 10 * time.Minute
)

// List is the function of the kind: the accounts whose check is due.
func (s *Service) List(ctx context.Context, after string, limit int) ([]string, error) {
	return s.Store.Due(ctx, time.Now(), after, limit)
}

// Reconcile is the function of the kind: it uses the access, and records whether it works.
func (s *Service) Reconcile(ctx context.Context, run *flow.Run) (flow.Result, error) {
	a, err := s.Access(ctx, run.ID)
	if err != nil || a == nil || a.Mode == "" {
		return flow.Result{}, err
	}
	a, err = s.check(ctx, run, a)
	switch {
	case err != nil && fault.Is(err, fault.Unavailable): // Microsoft's outage is no failure of ours
		return flow.Result{Again: time.Now().Add(max(checkRetry, fault.As(err).RetryAfter))}, nil
	case err != nil:
		return flow.Result{}, err
	}
	return flow.Result{Again: a.Due}, nil
}

// Check returns an error of kind fault.Conflict, which says what the administrator must do, if the access to a tenant
// does not work. It asks Microsoft unless it did within ten minutes; while Microsoft does not answer, it relies on the
// last check.
func (s *Service) Check(ctx context.Context, account string) error {
	a, err := s.Access(ctx, account)
	switch {
	case err != nil:
		return err
	case !a.valid():
		return fault.New(fault.Conflict, "NotAuthorised", "no administrator has authorised Tandem yet; invite one")
	case a.Mode == "":
		return fault.New(fault.Conflict, "SignInNeeded", "no administrator has signed in yet; invite one")
	}
	if a.Lost != nil || time.Since(a.Checked) > checkedLately {
		now, err := s.check(ctx, nil, a)
		if err == nil {
			a = now
		} else if !fault.Is(err, fault.Unavailable) {
			return err
		}
	}
	switch {
	case !a.valid():
		return fault.New(fault.Conflict, "NotAuthorised", "the access to the tenant ended, because Tandem has left it")
	case a.Lost != nil:
		return fault.New(fault.Conflict, "SignInNeeded", "%s", a.Lost.Reason)
	}
	return nil
}

// Access returns how a tenant is reached, nil if it has not authorised Tandem.
func (s *Service) Access(ctx context.Context, account string) (a *Access, err error) {
	err = s.Store.View(ctx, func(ctx context.Context, tx Tx) error {
		a, err = tx.Access(ctx, account)
		return err
	})
	return a, err
}

// left reports whether Tandem has left a tenant.
func (s *Service) left(ctx context.Context, account string) (bool, error) {
	if s.Progress == nil {
		return false, nil
	}
	w, err := s.Progress.Work(ctx, account)
	return err == nil && w.Left, err
}

// end ends the access to a tenant that Tandem has left and can no longer reach: the sign-in is destroyed. The name
// of the account is kept, so that the pages can say that it may be deleted.
func (a *Access) end(ctx context.Context, tx Tx) error {
	a.Mode, a.Lost, a.Consented, a.Due, a.Ended = "", nil, time.Time{}, time.Time{}, time.Now()
	if err := tx.SetAccess(ctx, a, noToken{}); err != nil {
		return err
	}
	return tx.Audit(ctx, "tenant.endAccess", a.Account, map[string]any{"tenant": a.Tenant})
}

// check uses an access and records the result; one that is lost after leaving is ended. An error of kind
// fault.Unavailable says nothing about the access.
func (s *Service) check(ctx context.Context, run *flow.Run, used *Access) (*Access, error) {
	standing, lifetime, claims, err := s.Inspector.Inspect(ctx, used)
	kind, who, reason := permission.App, "the application", ""
	if used.Mode == Delegated {
		kind, who = permission.Person, "the account "+used.Integrated.By
	}
	switch {
	case fault.Is(err, fault.Conflict) || fault.Is(err, fault.Forbidden):
		reason = fault.As(err).Message
	case err != nil:
		s.checks.WithLabelValues("unavailable").Inc()
		return nil, err
	case standing.Disabled:
		reason = who + " is disabled; enable it or choose another account, then sign in again"
	default:
		if err := enough(kind, who, standing.Roles); err != nil {
			reason = fault.As(err).Message
		}
	}

	left, err := s.left(ctx, used.Account)
	if err != nil {
		return nil, err
	}
	var a *Access
	err = s.Store.Update(ctx, run, func(ctx context.Context, tx Tx) (err error) {
		if a, err = tx.Access(ctx, used.Account); err != nil || a == nil {
			return err
		}
		if a.Integrated == nil || !a.Integrated.At.Equal(used.Integrated.At) {
			return nil // a person signed in meanwhile
		}
		if reason != "" && left && !a.AfterLeave {
			return a.end(ctx, tx)
		}
		now, was := time.Now(), a.Lost
		a.AfterLeave = a.AfterLeave && left
		a.Due = now.Add(checkEvery)
		if reason == "" {
			a.Lost, a.Checked = nil, now
			if a.Person != nil {
				a.Person.Roles = standing.Roles
			}
		} else {
			a.Lost = &Lost{reason, now, lifetime, claims}
			if was != nil {
				a.Lost.Since = was.Since
			}
		}
		if err := tx.SetAccess(ctx, a, nil); err != nil {
			return err
		}
		switch {
		case was == nil && reason != "":
			s.Log.Warn("sign-in to a tenant lost", "account", a.Account, "tenant", a.Tenant, "reason", reason)
			return tx.Audit(ctx, "tenant.signInLost", a.Account, map[string]any{"tenant": a.Tenant, "reason": reason})
		case was != nil && reason == "":
			if err := tx.Audit(ctx, "tenant.signInBack", a.Account, map[string]any{"tenant": a.Tenant}); err != nil {
				return err
			}
			return tx.Continue(ctx, a.Account)
		}
		return nil
	})
	if err == nil && a == nil {
		err = fault.New(fault.Conflict, "NotAuthorised", "the access to the tenant was removed")
	}
	if err == nil {
		result := map[bool]string{true: "ok", false: "lost"}[a.Lost == nil]
		s.checks.WithLabelValues(result).Inc()
	}
	return a, err
}
