package invite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
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
		return NotAuthorised(account)
	case a.Mode == "" && a.Lost == nil:
		return NoSignIn(account)
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
		return NotAuthorised(account)
	case a.Lost != nil:
		return a.lostError()
	case a.Mode == "":
		return NoSignIn(account)
	}
	return nil
}

// NoSignIn returns the error about an account whose tenant nobody has signed in to, so that Teams cannot be configured.
func NoSignIn(account string) *fault.Error {
	return fault.New(fault.Conflict, codeSignIn, "no administrator has signed in to configure Teams yet; %s",
		newLink(account, ""))
}

// newLink names the commands with which an administrator signs in.
func newLink(account, flag string) string {
	here := "tandem tenant sign-in " + account + flag
	if account == onboard.Carrier {
		return here
	}
	return fmt.Sprintf("tandem tenant invite %s makes a link, and %s signs in at this machine", account, here)
}

// NotAuthorised returns the error about an account whose tenant Tandem may not reach, because no administrator has
// authorised it, or because it has left since.
func NotAuthorised(account string) *fault.Error {
	if account == onboard.Carrier {
		return fault.New(fault.Conflict, "NotAuthorised", "no administrator has authorised Tandem in the operator's "+
			"own tenant; have one sign in: tandem tenant sign-in %s", account)
	}
	return fault.New(fault.Conflict, "NotAuthorised", "no administrator of the tenant of account %s has authorised "+
		"Tandem; invite one: tandem tenant invite %[1]s, or have one sign in at this machine: tandem tenant sign-in "+
		"%[1]s", account)
}

// Problem returns why the access does not work, for the operator, with the commands that restore it; "" if it does.
func (a *Access) Problem() string {
	switch {
	case a.Lost == nil:
		return ""
	case a.Lost.Consent:
		return a.Lost.Reason + "; " + newLink(a.Account, " --authorise")
	case a.Mode == Application: // its role is given in the tenant, and nobody signs in
		return a.Lost.Reason
	}
	return a.Lost.Reason + "; " + newLink(a.Account, "")
}

// lostError returns the error for those who need an access that is lost. Its message is for the operator; that of its
// cause, for the customer's administrator.
func (a *Access) lostError() error {
	code := codeSignIn
	if a.Lost.Consent {
		code = codeConsent
	}
	return fault.New(fault.Conflict, code, "%s", a.Problem()).
		Because(fault.New(fault.Conflict, code, "%s", a.Lost.Reason))
}

// Told returns what an error says to the customer's administrator: of a lost access, without the operator's commands.
func Told(err error) string {
	f := fault.As(err)
	if f.Code == codeConsent || f.Code == codeSignIn {
		if why, ok := errors.AsType[*fault.Error](f.Cause); ok {
			f = why
		}
	}
	return f.Message
}

// Codes of refusals, which are outcomes of package outside/entra.
const (
	codeConsent = "ConsentNeeded"
	codeSignIn  = "SignInNeeded"
)

// Refused records that the identity platform refuses the access that a job used, and returns the error for the job.
// used says which access that was, by its consent and its sign-in, and why has the details. Errors with other codes
// than those of a lost consent or sign-in are returned as they are.
func (s *Service) Refused(ctx context.Context, used *Access, why *Lost, err error) error {
	f := fault.As(err)
	if f.Code != codeConsent && f.Code != codeSignIn {
		return err
	}
	why.Reason, why.Consent = f.Message, f.Code == codeConsent
	a, failed := s.record(ctx, nil, used, why, nil)
	switch {
	case failed != nil:
		s.Log.Warn("lost access to a tenant is not recorded", "account", used.Account, "error", failed)
	case a.valid() && a.Lost != nil:
		return fault.As(a.lostError()).Because(err)
	}
	return err
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

// End ends the access to the tenant of an account, if it has one: the stored sign-in is destroyed.
func (s *Service) End(ctx context.Context, account string) error {
	return s.Store.Update(ctx, nil, func(ctx context.Context, tx Tx) error {
		a, err := tx.Access(ctx, account)
		if err != nil || !a.valid() {
			return err
		}
		return a.end(ctx, tx)
	})
}

// end ends the access to a tenant that Tandem has left: the sign-in is destroyed. The name
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
	consent := fault.HasCode(err, codeConsent)
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
		if missing := standing.missing(used.Granted); len(missing) > 0 {
			consent, reason = true, "the tenant no longer grants "+strings.Join(missing, ", ")+"; an administrator "+
				"authorises the application again (step 1)"
		} else if err := enough(kind, who, standing.Roles); err != nil && used.Mode != "" {
			reason = fault.As(err).Message
		}
	}
	if reason == "" {
		return s.record(ctx, run, used, nil, standing)
	}
	return s.record(ctx, run, used, &Lost{Reason: reason, Consent: consent, Lifetime: lifetime, Claims: claims}, nil)
}

// missing returns which permissions that were granted no longer are.
func (s *Standing) missing(granted []string) []string {
	if s.Granted == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(granted), func(p string) bool { return slices.Contains(s.Granted, p) })
}

// same reports whether an access has the consent and the sign-in of another one.
func (a *Access) same(b *Access) bool {
	if a.Integrated == nil || b.Integrated == nil {
		return a.Consented.Equal(b.Consented) && a.Integrated == b.Integrated
	}
	return a.Consented.Equal(b.Consented) && a.Integrated.At.Equal(b.Integrated.At)
}

// record records what the use of an access has shown: why it is lost or, if lost is nil, what it is worth.
func (s *Service) record(ctx context.Context, run *flow.Run, used *Access, lost *Lost,
	standing *Standing) (*Access, error) {
	left, err := s.left(ctx, used.Account)
	if err != nil {
		return nil, err
	}
	var a *Access
	err = s.Store.Update(ctx, run, func(ctx context.Context, tx Tx) (err error) {
		if a, err = tx.Access(ctx, used.Account); err != nil || a == nil {
			return err
		}
		if !a.same(used) {
			return nil // a person signed in or consented meanwhile
		}
		if lost != nil && left && !a.AfterLeave {
			return a.end(ctx, tx)
		}
		now, was := time.Now(), a.Lost
		a.AfterLeave = a.AfterLeave && left
		if a.Mode != "" {
			a.Due = now.Add(checkEvery)
		}
		if lost == nil {
			a.Lost, a.Checked = nil, now
			if a.Person != nil {
				a.Person.Roles = standing.Roles
			}
			if standing.Granted != nil {
				a.Granted = standing.Granted
			}
		} else {
			why := *lost
			if why.Consent && a.Authorised != nil {
				why.Reason = fmt.Sprintf("the authorisation that %s gave on %s does not work any more: %s",
					a.Authorised.By, a.Authorised.At.UTC().Format("2 January 2006"), why.Reason)
			}
			if why.Since = now; was != nil && was.Consent == why.Consent {
				why.Since = was.Since
			}
			a.Lost = &why
		}
		if err := tx.SetAccess(ctx, a, nil); err != nil {
			return err
		}
		switch {
		case lost != nil && (was == nil || was.Consent != lost.Consent):
			what, action := "sign-in to a tenant lost", "tenant.signInLost"
			if lost.Consent {
				what, action = "consent of a tenant lost", "tenant.consentLost"
			}
			s.Log.Warn(what, "account", a.Account, "tenant", a.Tenant, "reason", lost.Reason)
			return tx.Audit(ctx, action, a.Account, map[string]any{"tenant": a.Tenant, "reason": lost.Reason})
		case was != nil && lost == nil:
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
