package node

import (
	"context"
	"slices"
	"strings"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/entra"
	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/services/directrouting/tenant"
	"github.com/tandemgw/tandem/internal/tenants/invite"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
	"github.com/tandemgw/tandem/internal/tenants/snapshot"
)

// buildInvite makes the pages and sign-ins of administrators.
func (x *tenants) buildInvite(login *tenant.Login) {
	cfg := &x.n.cfg.Onboarding
	x.invite = (&invite.Service{Store: x.access, Login: login, Inspector: login, Readiness: x, Progress: x,
		Accounts: x.account, Named: x.named, Usable: func() error {
			if x.connector.Teams == nil {
				return fault.New(fault.Unavailable, "TeamsUnavailable", "%s", x.teams().Missing)
			}
			return nil
		},
		Operator: cfg.Operator, Partners: cfg.Partners, Log: x.log,
		URL: x.n.onboardURL()}).
		Start(x.n.metrics)
}

// account returns an error of kind fault.NotFound if there is no such account.
func (x *tenants) account(ctx context.Context, name string) error {
	if name == onboard.Carrier {
		return nil
	}
	owner := onboard.Owner(name)
	_, err := x.n.core.directory.Account(ctx, owner)
	if err == nil && name != owner {
		if _, err = x.row(ctx, name); fault.Is(err, fault.NotFound) {
			err = fault.New(fault.NotFound, "MoveNotFound", "account %s does not move to another tenant (tandem "+
				"tenant move begin %[1]s)", owner)
		}
	}
	return err
}

// admit refuses operations on the tenant of an account that does not exist, or whose administrator has not authorised
// Tandem, unless they are what comes before that, or are about what is stored.
func (x *tenants) admit(ctx context.Context, operation, account string) error {
	if err := x.account(ctx, account); err != nil {
		return err
	}
	switch operation {
	case "PutTenant", "CreateInvitation", "GetInvitation", "RevokeInvitation", "StartSignIn", "ContinueSignIn",
		"ImportSnapshot":
		return nil
	}
	var known bool
	err := x.access.View(ctx, func(ctx context.Context, tx invite.Tx) error {
		a, err := tx.Access(ctx, account)
		if known = a != nil; known || err != nil || operation != "DeleteTenant" {
			return err
		}
		i, err := tx.Invitation(ctx, account)
		known = i != nil
		return err
	})
	if err != nil || known {
		return err
	}
	t, err := x.row(ctx, account)
	switch {
	case err != nil && !fault.Is(err, fault.NotFound):
		return err
	case err == nil && (t.Purpose != "" || slices.Contains([]string{"GetTenant", "GetDialPlan", "DeleteTenant",
		"GetMove", "AbandonMove"}, operation)):
		return nil
	}
	if slices.Contains([]string{"ListSnapshots", "ExportSnapshot", "GetLeaveReport"}, operation) {
		if stored, err := x.store.Snapshots(ctx, account, "", 1); err != nil || len(stored) > 0 {
			return err // they stay when a tenant is forgotten
		}
	}
	return invite.NotAuthorised(account)
}

// named returns the tenant that an account is to have; empty if it may be any.
func (x *tenants) named(ctx context.Context, account string) (string, error) {
	t, err := x.row(ctx, account)
	switch {
	case fault.Is(err, fault.NotFound):
		return "", nil
	case err != nil || t.State() == onboard.Left:
		return "", err
	}
	return t.ID, nil
}

// accessTo returns how the tenant of an account is reached; nil if nobody has authorised anything.
func (x *tenants) accessTo(ctx context.Context, account string) (a *invite.Access, err error) {
	err = x.access.View(ctx, func(ctx context.Context, tx invite.Tx) error {
		a, err = tx.Access(ctx, account)
		return err
	})
	return a, err
}

// grant returns how the connector reaches a tenant.
func (x *tenants) grant(ctx context.Context, account string) (g tenant.Grant, a *invite.Access, err error) {
	if a, err = x.accessTo(ctx, account); err != nil || a == nil {
		return g, &invite.Access{}, err
	}
	g = tenant.Grant{TenantID: a.Tenant, Application: a.Mode == invite.Application, Consented: a.Consented}
	if a.Integrated != nil {
		g.SignedIn = a.Integrated.At
	}
	return g, a, nil
}

// cloud returns a tenant with the administration of Teams. A sign-in that was lost is an error that says what to do, as
// is one to another tenant than the row's.
func (x *tenants) cloud(ctx context.Context, t *onboard.Tenant) (*tenant.Cloud, error) {
	g, a, err := x.grant(ctx, t.Account)
	if err != nil {
		return nil, err
	}
	if t.ID != "" && a.Tenant != "" && !strings.EqualFold(t.ID, a.Tenant) {
		return nil, fault.New(fault.Conflict, "TenantDiffers", "what is to be done is for the tenant %s, and the "+
			"administrator of %s has signed in to the tenant %s; make a new plan", t.ID, t.Account, a.Tenant)
	}
	if a.Mode != "" && !t.Removing { // a lost sign-in is noticed before the job begins; removing the consent loses it
		if err := x.invite.Check(ctx, t.Account); err != nil {
			return nil, err
		}
	}
	c, err := x.connector.Configure(t.Account, g, x.access.Tokens(t.Account))
	if err != nil {
		return nil, err
	}
	if n, err := x.rows.Size(ctx, t.Account); err != nil {
		return nil, err
	} else if n > 0 { // of a pass that perhaps another node made
		c.Sized(n)
	}
	return c, nil
}

// lost records that the identity platform refuses a tenant's tokens until a person acts, unless Tandem itself is just
// removing its application there.
func (x *tenants) lost(ctx context.Context, account string, g tenant.Grant, refusal *entra.Refusal, err error) error {
	t, missing := x.row(ctx, account)
	if missing == nil && t.Removing {
		return err
	}
	used := &invite.Access{Account: account, Consented: g.Consented}
	if !g.SignedIn.IsZero() {
		used.Integrated = &invite.Mark{At: g.SignedIn}
	}
	return x.invite.Refused(ctx, used, &invite.Lost{Claims: refusal.Claims, Lifetime: refusal.Lifetime}, err)
}

// wrongTenant records that PowerShell reached another tenant than the one it was signed in to. Nothing was written.
func (x *tenants) wrongTenant(want, reached string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := x.n.core.db.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
		return x.n.core.events.Append(ctx, tx, api.Event{Kind: "tenant.wrongTenant", Subject: want,
			Data: map[string]any{"reached": reached}})
	})
	x.log.Error("PowerShell reached another tenant; nothing was written", "tenant", want, "reached", reached,
		"error", err)
}

// endAccess ends a leave: the stored sign-in is deleted if the removal of the consent was asked for, and the report
// says so.
func (x *tenants) endAccess(ctx context.Context, t *onboard.Tenant) error {
	note := plan.ConsentStays(x.connector.AppID, t.RemoveConsent)
	o := snapshot.Outcome{Ref: note.Ref, Fate: snapshot.Kept, Reason: note.Text}
	if t.RemoveConsent && t.Removing {
		o.Fate, o.Reason = snapshot.Gone, "with the stored sign-in; a restore needs a new authorisation and sign-in"
	}
	if err := x.snapshots.AddOutcome(ctx, t.Account, o); err != nil || !t.RemoveConsent {
		return err
	}
	return x.invite.End(ctx, t.Account)
}
