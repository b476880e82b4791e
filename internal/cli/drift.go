package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/domain"
)

func tenantDrift(t *target) *cobra.Command {
	var check bool
	var accept, repair []int
	cmd := &cobra.Command{Use: "drift [ACCOUNT]",
		Short: "Show what people have changed in a tenant, and repair or accept it",
		Example: "  tandem tenant drift\n  tandem tenant drift contoso --check\n" +
			"  tandem tenant drift contoso --repair 3"}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 || len(args) == 0 && (check || len(accept)+len(repair) > 0) {
			return misuse(cmd, fmt.Errorf("tenant drift needs ACCOUNT for that; got %d", len(args)))
		}
		return nil
	}
	f := cmd.Flags()
	f.BoolVar(&check, "check", false, "compare the tenant now")
	f.IntSliceVar(&accept, "accept", nil, "accept difference `N` (repeatable)")
	f.IntSliceVar(&repair, "repair", nil, "make a plan that repairs difference `N` (repeatable)")
	cmd.MarkFlagsMutuallyExclusive("check", "accept", "repair")

	return run(t, online, cmd, func(ctx context.Context, c *client.Client, args []string) (any, error) {
		switch {
		case len(args) == 0:
			return c.DriftOverview(ctx)
		case check:
			return checkDrift(ctx, c, args[0])
		case len(accept) > 0:
			return c.AcceptDrift(ctx, args[0], accept...)
		case len(repair) > 0:
			return c.RepairDrift(ctx, args[0], repair...)
		}
		return c.Drift(ctx, args[0])
	}, func(p *page, v any) {
		switch v := v.(type) {
		case *api.DriftOverview:
			printDriftOverview(p, v)
		case *api.RepairPlan:
			p.line("plan %s repairs that and nothing else; to carry it out: tandem tenant apply ACCOUNT %s", v.Plan,
				v.Plan)
		case *api.Drift:
			printDrift(p, v)
		}
	})
}

// checkDrift compares a tenant and returns the result.
func checkDrift(ctx context.Context, c *client.Client, account string) (*api.Drift, error) {
	before, err := c.Drift(ctx, account)
	if err != nil {
		return nil, err
	}
	if err := c.CheckDrift(ctx, account); err != nil {
		return nil, err
	}
	const longest = 5 * time.Minute // of a run
	for began := time.Now(); time.Since(began) < longest; {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
		d, err := c.Drift(ctx, account)
		if err != nil || !d.Next.Equal(before.Next) {
			return d, err
		}
	}
	return nil, errors.New("the tenant was not compared within 5 minutes; does a node with the role worker run? " +
		"see tandem work list")
}

func printDriftOverview(p *page, o *api.DriftOverview) {
	p.line("tenants that differ from what Tandem made there: %d of %d; differences: %d", o.Drifted, o.Tenants,
		o.Differences)
	p.line("comparing them takes %s to Microsoft in an hour", domain.Count(o.RequestsPerHour, "request"))
	if !o.Oldest.IsZero() {
		p.line("the oldest comparison is of %s", stamp(o.Oldest))
	}
}

func printDrift(p *page, d *api.Drift) {
	if d.Problem != "" {
		p.line("the last attempt failed: %s", d.Problem)
	}
	if d.Checked.IsZero() {
		p.line("the tenant of %s was not compared yet", d.Account)
		return
	}
	p.line("compared at %s, next at %s; %s in an hour", stamp(d.Checked), stamp(d.Next),
		domain.Count(d.RequestsPerHour, "request"))
	if len(d.Differences) == 0 {
		p.line("no differences")
		return
	}

	p.line("")
	g := &grid{head: []string{"n", "object", "field", "expected", "found", "since"}}
	for _, x := range d.Differences {
		field, expected, found := x.Field, compact(x.Expected), compact(x.Found)
		switch x.Cause {
		case "missing":
			expected, found = "", "it does not exist"
		case "notInInventory":
			expected, found = "", "assigned in the tenant, not in the inventory: "+found
		case "notActive":
			expected, found = "active: the settings select it", "not active"
		}
		since := stamp(x.Since)
		if !x.Until.IsZero() {
			since = "not before " + stamp(x.Until) + ": changed by Tandem lately"
		}
		g.add(x.ID, x.Type+" "+titled(x.Name, x.User, x.DisplayName), field, expected, found, since)
	}
	p.table(g)
	p.line("")
	p.line("To repair or accept one: tandem tenant drift %s --repair N or --accept N", d.Account)
}
