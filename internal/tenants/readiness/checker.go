package readiness

import (
	"context"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/tenants/plan"
)

// Source reads a tenant, with tokens obtained for this check. What a sign-in may not read is entered in Facts.Unread;
// errors are those of services that do not answer.
type Source interface {
	// Consented reads what the application may read, and says in Mode whether anybody may configure Teams.
	Consented(ctx context.Context, f *Facts) error
	// SignedIn reads the objects of Teams, of domains and users those that are named, and who configures Teams. It is
	// called if Mode is set.
	SignedIn(ctx context.Context, f *Facts, named []plan.Ref) error
}

// Checker checks the tenants of accounts. Functions that are nil leave their facts out. It is safe for concurrent use.
type Checker struct {
	// Source returns the tenant of an account. An error of kind fault.Conflict says that nothing was authorised.
	Source func(ctx context.Context, account string) (Source, error)
	// Settings returns what onboarding would use for an account, the label that it has or would be given included. An
	// error of kind fault.Conflict or fault.Invalid says what a person has to decide first.
	Settings func(ctx context.Context, account string, t Tenant) (*plan.Settings, error)
	// Ledger returns what Tandem has made in the tenant of an account.
	Ledger func(ctx context.Context, account string) (plan.Ledger, error)
	// DNS, Certificate and Reachable say what is wrong with a name at which calls arrive; with an error of kind
	// fault.Unavailable, why that is not known.
	DNS, Certificate, Reachable func(ctx context.Context, name string) error
	Emergency                   []string // the deployment's emergency dial strings
	// Teams says how this deployment configures Teams.
	Teams func() Implementation
}

// Report is the readiness of a tenant.
type Report struct {
	Stage    Stage // what the findings are about: SignedIn includes the findings after the consent
	Findings []Finding
	Names    []string // at which calls would arrive, with the label of the account or a proposed one
	Licence  Seat
}

// Count returns how many findings have a level.
func (r *Report) Count(l Level) int {
	n := 0
	for _, f := range r.Findings {
		if f.Level == l {
			n++
		}
	}
	return n
}

// Note says what the report does not cover; empty if it covers everything.
func (r *Report) Note() string {
	if r.Stage == SignedIn {
		return ""
	}
	return "about half of the checks need the second sign-in (step 3): objects in Teams, routes, emergency " +
		"policies, roles"
}

// Check gathers the facts of an account's tenant and checks them. It writes nothing.
func (c *Checker) Check(ctx context.Context, account string) (*Report, error) {
	f := &Facts{Emergency: c.Emergency, Teams: c.Teams(), Unread: map[string]string{}}
	source, err := c.Source(ctx, account)
	if fault.Is(err, fault.Conflict) {
		f.Denied = fault.As(err).Message
	} else if err == nil {
		err = source.Consented(ctx, f)
	}
	if err != nil && f.Denied == "" {
		return nil, err
	}
	if f.Denied == "" {
		if err := c.settings(ctx, account, f); err != nil {
			return nil, err
		}
	}

	r := &Report{Stage: Consented}
	if f.Mode != "" && f.Denied == "" {
		if f.Ledger, err = c.Ledger(ctx, account); err != nil {
			return nil, err
		}
		if err := source.SignedIn(ctx, f, f.named()); err != nil {
			return nil, err
		}
		r.Stage = SignedIn
	}
	r.Findings = Check(f)
	for _, n := range f.Names {
		r.Names = append(r.Names, n.FQDN)
	}
	if len(f.SKUs) > 0 {
		r.Licence = Seats(f.SKUs, f.unactivated())
	}
	return r, nil
}

// named returns the domains and users that onboarding would make.
func (f *Facts) named() []plan.Ref {
	var refs []plan.Ref
	for _, o := range f.desired() {
		refs = append(refs, o.Ref)
	}
	return refs
}

// settings finds the settings and checks the names.
func (c *Checker) settings(ctx context.Context, account string, f *Facts) (err error) {
	f.Settings, err = c.Settings(ctx, account, f.Tenant)
	if fault.Is(err, fault.Conflict) || fault.Is(err, fault.Invalid) {
		f.Undecided, err = fault.As(err).Message, nil
	}
	if err != nil || f.Settings == nil {
		return err
	}

	for _, name := range f.Settings.Names() {
		n := Name{FQDN: name, Checks: map[string]error{}}
		for id, ask := range map[string]func(context.Context, string) error{"dns": c.DNS, "certificate": c.Certificate,
			"reachable": c.Reachable} {
			if ask != nil {
				n.Checks[id] = ask(ctx, name)
			}
		}
		f.Names = append(f.Names, n)
	}
	return ctx.Err()
}
