package cli

import (
	"cmp"
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
)

// carrierAccount is the account of the operator's own tenant.
const carrierAccount = ".carrier"

func newCarrier(t *target) *cobra.Command {
	app := carrierApp(t)
	app.AddCommand(carrierAppCreate(t), carrierAppCheck(t))
	return group("carrier", "The operator's own side of onboarding", app, carrierCheck(t), carrierPlan(t),
		carrierApply(t))
}

func carrierPlan(t *target) *cobra.Command {
	var leave, repair bool
	cmd := run(t, online, &cobra.Command{Use: "plan", Short: "Show what would change in the operator's tenant"},
		func(ctx context.Context, c *client.Client, _ []string) (*api.TenantPlan, error) {
			r := api.PlanRequest{Purpose: api.PlanRequestPurposeOnboard}
			switch {
			case leave:
				r.Purpose = api.PlanRequestPurposeLeave
			case repair:
				r.Purpose = api.PlanRequestPurposeRepair
			}
			return c.PlanTenant(ctx, carrierAccount, r)
		}, printPlan)
	f := cmd.Flags()
	f.BoolVar(&leave, "leave", false, "remove everything that Tandem has there")
	f.BoolVar(&repair, "repair", false, "put back what others have changed")
	cmd.MarkFlagsMutuallyExclusive("leave", "repair")
	return cmd
}

func carrierApply(t *target) *cobra.Command {
	return run(t, online, &cobra.Command{Use: "apply PLAN", Short: "Approve a plan and begin to carry it out"},
		func(ctx context.Context, c *client.Client, args []string) (*api.TenantPlan, error) {
			return c.ApplyPlan(ctx, carrierAccount, args[0])
		}, func(p *page, x *api.TenantPlan) {
			p.line("plan %s is being carried out: %s; tandem tenant show %s says how far it is", x.ID,
				domain.Count(len(x.Steps), "step"), carrierAccount)
		})
}

func carrierCheck(t *target) *cobra.Command {
	return run(t, online, &cobra.Command{Use: "check",
		Short: "Say whether the operator's tenant is ready for customers"},
		func(ctx context.Context, c *client.Client, _ []string) (*api.CarrierReport, error) {
			r, err := c.Carrier(ctx)
			if err == nil && !r.Passed {
				err = finding{fault.New(fault.Conflict, "CarrierNotReady", "the operator's side is not ready")}
			}
			return r, err
		}, printCarrier)
}

func printCarrier(p *page, r *api.CarrierReport) {
	p.field("teams    ", "%s", cmp.Or(r.Teams, "not configured: "+r.TeamsMissing))
	if r.CredentialExpires != nil {
		p.field("app      ", "its certificate expires %s", r.CredentialExpires.UTC().Format(time.DateOnly))
	}
	for _, m := range r.Missing {
		p.field("missing  ", "%s", m)
	}
	for _, m := range r.Remarks {
		p.field("remark   ", "%s", m)
	}
	if r.Passed {
		p.line("customers can be onboarded")
	} else if len(r.Missing) > 0 {
		p.line("to set it up: tandem carrier plan")
	}
}

func carrierApp(t *target) *cobra.Command {
	var manifest bool
	cmd := &cobra.Command{Use: "app", Args: cobra.NoArgs,
		Short:   "Show the operator's app registration as it must be",
		Example: "  tandem carrier app --manifest"}
	run(t, online, cmd, func(ctx context.Context, c *client.Client, _ []string) (*api.CarrierApp, error) {
		return c.CarrierApp(ctx)
	}, func(p *page, a *api.CarrierApp) {
		if manifest {
			_ = printJSON(p, a.Manifest) // a page takes everything
			return
		}
		printCarrierApp(p, a)
	})
	cmd.Flags().BoolVar(&manifest, "manifest", false, "print it as Microsoft Graph takes it (POST /applications)")
	return cmd
}

func printCarrierApp(p *page, a *api.CarrierApp) {
	field := func(label, format string, args ...any) {
		p.field(label+strings.Repeat(" ", 13-len(label)), format, args...)
	}
	field("name", "%s", a.Name)
	field("client id", "%s", cmp.Or(a.ClientID, "none yet: set onboarding.app.id when there is one"))
	field("accounts", "%s (of any organisation)", a.SignInAudience)
	for _, r := range a.RedirectUris {
		field("redirect", "%s", r)
	}
	field("roles", "groupMembershipClaims: %s", a.GroupMembershipClaims)
	field("publisher", "%s (set it in Microsoft's portal)", a.PublisherDomain)
	if a.CertificateExpires != nil {
		field("certificate", "%s, expires %s", a.Certificate, a.CertificateExpires.UTC().Format(time.DateOnly))
	} else {
		field("certificate", "none: set onboarding.app.certificateFile and keyFile")
	}
	for _, x := range a.Permissions {
		p.line("")
		p.line("%s, %s, %s", x.Name, x.Kind, x.ID)
		p.field("  ", "%s Needed for: %s.", x.Why, strings.Join(x.Steps, ", "))
	}
}

func carrierAppCreate(t *target) *cobra.Command {
	return run(t, online, &cobra.Command{Use: "create", Short: "Make the app registration in the operator's tenant"},
		func(ctx context.Context, c *client.Client, _ []string) (*api.CarrierApp, error) {
			return c.CreateCarrierApp(ctx)
		}, func(p *page, a *api.CarrierApp) {
			p.line("made %s; set onboarding.app.id to %s, and its publisher domain in Microsoft's portal", a.Name,
				a.ClientID)
		})
}

func carrierAppCheck(t *target) *cobra.Command {
	return run(t, online, &cobra.Command{Use: "check", Short: "Compare the app registration with how it must be"},
		func(ctx context.Context, c *client.Client, _ []string) (*api.CarrierAppReport, error) {
			r, err := c.CheckCarrierApp(ctx)
			if err == nil && len(r.Differences) > 0 {
				err = finding{fault.New(fault.Conflict, "AppDiffers", "the app registration is not as it must be; "+
					"differences: %d", len(r.Differences))}
			}
			return r, err
		}, printCarrierAppReport)
}

func printCarrierAppReport(p *page, r *api.CarrierAppReport) {
	if len(r.Differences) == 0 {
		p.line("%s is as it must be", r.ClientID)
		return
	}
	g := &grid{head: []string{"field", "must be", "is"}}
	for _, d := range r.Differences {
		g.add(d.Field, cmp.Or(d.Expected, "absent"), cmp.Or(d.Found, "absent"))
	}
	p.table(g)
}

// tenantCheck is the command tenant check.
func tenantCheck(t *target) *cobra.Command {
	var all bool
	cmd := run(t, online, &cobra.Command{Use: "check ACCOUNT",
		Short: "Say whether a tenant can be onboarded, and what to change first"},
		func(ctx context.Context, c *client.Client, args []string) (*api.Readiness, error) {
			r, err := c.Readiness(ctx, args[0])
			if err == nil && r.Failed > 0 {
				err = finding{fault.New(fault.Conflict, "NotReady", "the tenant is not ready; failed checks: %d",
					r.Failed)}
			}
			return r, err
		}, func(p *page, r *api.Readiness) { printReadiness(p, r, all) })
	cmd.Flags().BoolVar(&all, "all", false, "also show the checks that passed")
	return cmd
}

func printReadiness(p *page, r *api.Readiness, all bool) {
	for _, level := range []api.ReadinessFindingLevel{"fail", "warn", "pass"} {
		for _, f := range r.Findings {
			if f.Level != level || level == "pass" && !all {
				continue
			}
			p.field(string(level)+"  ", "%s%s: %s", f.ID, either(f.Subject == "", "", " "+f.Subject), f.Reason)
			if f.Remedy != "" {
				p.field("      ", "-> %s", f.Remedy)
			}
		}
	}
	p.line("checks: %d failed, %d with remarks, %d passed", r.Failed, r.Warned, r.Passed)
	if len(r.Names) > 0 {
		p.line("names: %s", strings.Join(r.Names, ", "))
	}
	if r.Note != "" {
		p.line("not checked yet: %s", r.Note)
	}
}
