package invite

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"strings"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/tenants/permission"
)

var _ api.InvitationsOperations = (*Service)(nil)

// tenantID checks the id of a tenant, which may be empty.
func tenantID(id string) (string, error) {
	if id != "" && !domain.IsGUID(id) {
		return "", fault.New(fault.Invalid, "InvalidTenant", "%q is not the id of a tenant, which is a GUID", id).
			At("tenant")
	}
	return strings.ToLower(id), nil
}

// CreateInvitation implements the operation createInvitation.
func (s *Service) CreateInvitation(ctx context.Context, r api.CreateInvitationRequestObject) (
	api.CreateInvitationResponseObject, error) {
	tenant, err := s.named(ctx, r.Account, r.Body.Tenant)
	if err != nil {
		return nil, err
	}
	if s.URL == "" {
		return nil, fault.New(fault.Conflict, "NoFront", "the deployment has no public front, where the link would "+
			"lead: set front.listen, or sign in with tandem tenant sign-in")
	}
	if err := s.account(ctx, r.Account); err != nil {
		return nil, err
	}
	days := defaultDays
	if r.Body.Days != 0 {
		days = r.Body.Days
	}

	token, now := rand.Text()+rand.Text(), time.Now()
	i := &Invitation{Account: r.Account, Hash: hash(token), Tenant: tenant, Created: now, CreatedBy: actor(ctx),
		Expires: now.AddDate(0, 0, days)}
	err = s.Store.Update(ctx, nil, func(ctx context.Context, tx Tx) error {
		a, err := tx.Access(ctx, r.Account)
		if err != nil {
			return err
		}
		if a.valid() && tenant != "" && a.Tenant != tenant {
			return fault.New(fault.Conflict, "TenantDiffers",
				"account %s is connected to the tenant %s; leave it first, then forget it (tandem tenant delete "+
					"%[1]s)", r.Account, a.Tenant)
		}
		if err := tx.RemoveInvitation(ctx, r.Account); err != nil { // an earlier link
			return err
		}
		if err := tx.SetInvitation(ctx, i); err != nil {
			return err
		}
		return tx.Audit(ctx, "tenant.invite", r.Account, map[string]any{"expires": i.Expires.UTC(), "tenant": tenant})
	})
	if err != nil {
		return nil, err
	}
	return api.CreateInvitation201JSONResponse{URL: s.URL + linkPath + token, Expires: i.Expires.UTC(), Tenant: tenant},
		nil
}

// RevokeInvitation implements the operation revokeInvitation.
func (s *Service) RevokeInvitation(ctx context.Context, r api.RevokeInvitationRequestObject) (
	api.RevokeInvitationResponseObject, error) {
	err := s.Store.Update(ctx, nil, func(ctx context.Context, tx Tx) error {
		i, err := tx.Invitation(ctx, r.Account)
		if err != nil {
			return err
		}
		if i == nil {
			return fault.New(fault.NotFound, "InvitationNotFound", "account %s has no invitation", r.Account)
		}
		if err := tx.RemoveInvitation(ctx, r.Account); err != nil {
			return err
		}
		return tx.Audit(ctx, "tenant.revokeInvitation", r.Account, map[string]any{})
	})
	return api.RevokeInvitation204Response{}, err
}

// GetInvitation implements the operation getInvitation.
func (s *Service) GetInvitation(ctx context.Context, r api.GetInvitationRequestObject) (
	api.GetInvitationResponseObject, error) {
	v, err := s.state(ctx, r.Account)
	if err != nil {
		return nil, err
	}
	return api.GetInvitation200JSONResponse(*v), nil
}

// state returns how far the administrator of a tenant is.
func (s *Service) state(ctx context.Context, account string) (*api.TenantAccess, error) {
	if err := s.account(ctx, account); err != nil {
		return nil, err
	}
	var i *Invitation
	var a *Access
	err := s.Store.View(ctx, func(ctx context.Context, tx Tx) (err error) {
		if i, err = tx.Invitation(ctx, account); err == nil {
			a, err = tx.Access(ctx, account)
		}
		return err
	})
	if err != nil {
		return nil, err
	}

	v := &api.TenantAccess{Account: account, State: "none"}
	if i != nil {
		v.State = "invited"
		v.Invitation = &api.Invitation{Created: i.Created.UTC(), CreatedBy: i.CreatedBy, Expires: i.Expires.UTC(),
			Expired: time.Now().After(i.Expires), Opened: i.Opened, Tenant: i.Tenant}
	}
	if a == nil {
		return v, nil
	}
	if a.Ended.IsZero() {
		v.State = "authorised"
	} else if i == nil || i.Created.Before(a.Ended) {
		v.State = "left"
	}
	v.Tenant, v.Mode, v.Checked = a.Tenant, string(a.Mode), a.Checked
	v.Authorised, v.ReadinessSeen, v.Integrated = mark(a.Authorised), mark(a.ReadinessSeen), mark(a.Integrated)
	if a.ReadinessSeen != nil && a.valid() {
		v.State = "readinessSeen"
	}
	if a.Mode != "" {
		v.State = "integrated"
	}
	if a.Person != nil {
		v.Person = &api.TenantPerson{ID: a.Person.ID, Name: a.Person.Name, Roles: permission.RoleNames(a.Person.Roles),
			Partner: a.Person.Guest}
	}
	if a.Lost != nil {
		if v.State = "needsSignIn"; a.Lost.Consent {
			v.State = "needsConsent"
		}
		v.Lost = &api.SignInLost{Reason: a.Problem(), Since: a.Lost.Since.UTC(),
			Lifetime: int(a.Lost.Lifetime.Seconds())}
	}
	return v, nil
}

func mark(m *Mark) *api.TenantMark {
	if m == nil {
		return nil
	}
	return &api.TenantMark{At: m.At.UTC(), By: m.By}
}

// StartSignIn implements the operation startSignIn.
func (s *Service) StartSignIn(ctx context.Context, r api.StartSignInRequestObject) (api.StartSignInResponseObject,
	error) {
	tenant, err := s.named(ctx, r.Account, r.Body.Tenant)
	if err != nil {
		return nil, err
	}
	if err := s.account(ctx, r.Account); err != nil {
		return nil, err
	}
	a, err := s.Access(ctx, r.Account)
	if err == nil && a.valid() { // which step is next depends on what works
		now, failed := s.check(ctx, nil, a)
		if failed == nil {
			a = now
		} else if !fault.Is(failed, fault.Unavailable) {
			err = failed
		}
	}
	if err != nil {
		return nil, err
	}
	if r.Body.Way != api.SignInRequestWayBrowser && !a.valid() {
		return nil, NotAuthorised(r.Account)
	}
	if r.Body.Way == api.SignInRequestWayApplication {
		step, err := s.useApplication(ctx, r.Account, a)
		return api.StartSignIn200JSONResponse(step), err
	}

	se, id := newSession(r.Account)
	se.Expected = tenant
	var attempt *Attempt
	step := next(se, a)
	if r.Body.Way == api.SignInRequestWayDevice {
		if err := s.usable(a); err != nil {
			return nil, err
		}
		if attempt, err = s.Login.BeginDevice(ctx, a.Tenant); err != nil {
			return nil, err
		}
		se.Attempt = attempt
	} else if r.Body.Port == 0 {
		return nil, fault.New(fault.Invalid, "MissingPort", "a sign-in in the browser needs the port of the caller").
			At("port")
	}
	if r.Body.Authorise {
		step = Consent
	}
	err = s.Store.Update(ctx, nil, func(ctx context.Context, tx Tx) error { return tx.SetSession(ctx, se) })
	if err == nil && attempt == nil {
		attempt, err = s.begin(ctx, se.ID, step, fmt.Sprintf("%s:%d", Loopback, r.Body.Port))
	}
	if err != nil {
		return nil, err
	}
	answer, err := s.stepOf(ctx, r.Account, id, attempt)
	return api.StartSignIn200JSONResponse(answer), err
}

// stepOf describes what a person has to do now; attempt is nil if it is done.
func (s *Service) stepOf(ctx context.Context, account, id string, attempt *Attempt) (api.SignInStep, error) {
	v, err := s.state(ctx, account)
	if err != nil || attempt == nil {
		if v == nil {
			v = &api.TenantAccess{}
		}
		return api.SignInStep{Access: *v}, err
	}
	return api.SignInStep{ID: id, Step: api.SignInStepStep(attempt.Step), URL: attempt.URL, UserCode: attempt.UserCode,
		Interval: int(attempt.Interval.Seconds()), Expires: attempt.Expires, Access: *v}, nil
}

// ContinueSignIn implements the operation continueSignIn.
func (s *Service) ContinueSignIn(ctx context.Context, r api.ContinueSignInRequestObject) (
	api.ContinueSignInResponseObject, error) {
	var se *Session
	err := s.Store.View(ctx, func(ctx context.Context, tx Tx) (err error) {
		se, err = tx.Session(ctx, hash(r.ID))
		return err
	})
	if err == nil && (se == nil || se.Account != r.Account || se.Invited) {
		err = errNoSession
	}
	if err != nil {
		return nil, err
	}
	attempt := se.Attempt
	if attempt != nil && attempt.Interval > 0 {
		attempt, err = s.poll(ctx, se)
	} else {
		attempt, err = s.redirected(ctx, se, r.Body.Redirect)
	}
	if err != nil {
		return nil, err
	}
	answer, err := s.stepOf(ctx, r.Account, r.ID, attempt)
	return api.ContinueSignIn200JSONResponse(answer), err
}

// poll asks whether the device code was entered. It returns nil when the sign-in is done.
func (s *Service) poll(ctx context.Context, se *Session) (*Attempt, error) {
	g, done, err := s.Login.Poll(ctx, se.Attempt)
	if err != nil {
		return nil, err
	}
	if !done {
		return se.Attempt, s.keep(ctx, se.ID, se.Attempt) // the interval may have grown
	}
	return nil, s.granted(ctx, se, se.Attempt, g)
}

// redirected uses a redirect and begins what follows. It returns nil when the sign-in is done.
func (s *Service) redirected(ctx context.Context, se *Session, query string) (*Attempt, error) {
	q, err := url.ParseQuery(query)
	if err != nil || se.Attempt == nil {
		return nil, errForged
	}
	last := se.Attempt
	err = s.finish(ctx, se.ID, q)
	if fault.HasCode(err, "ConsentPropagating") { // not back to the consent
		again, err := s.begin(ctx, se.ID, last.Step, last.Redirect)
		if err == nil {
			again.Interval = consentRetry // of this answer only: it is stored without
		}
		return again, err
	}
	if err != nil {
		return nil, err
	}
	switch last.Step {
	case Consent:
		return s.begin(ctx, se.ID, Identify, last.Redirect)
	case Identify:
		return s.begin(ctx, se.ID, Integrate, last.Redirect)
	}
	return nil, nil
}

// useApplication makes the application's own role the access to a tenant.
func (s *Service) useApplication(ctx context.Context, account string, a *Access) (api.SignInStep, error) {
	if err := s.usable(a); err != nil {
		return api.SignInStep{}, err
	}
	try := *a
	try.Mode = Application
	standing, _, _, err := s.Inspector.Inspect(ctx, &try)
	if err != nil {
		return api.SignInStep{}, err
	}
	if err := enough(permission.App, "the application", standing.Roles); err != nil {
		return api.SignInStep{}, err
	}
	left, err := s.left(ctx, account)
	if err != nil {
		return api.SignInStep{}, err
	}
	err = s.Store.Update(ctx, nil, func(ctx context.Context, tx Tx) error {
		a, err := tx.Access(ctx, account)
		if err != nil || a == nil {
			return err
		}
		a.AfterLeave = left
		return s.integrate(ctx, tx, a, Application, nil, noToken{})
	})
	if err != nil {
		return api.SignInStep{}, err
	}
	return s.stepOf(ctx, account, "", nil)
}

// noToken replaces the refresh token of a person.
type noToken struct{}

func (noToken) Reveal() string { return "" }
