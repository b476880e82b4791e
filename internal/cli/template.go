package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
)

func tenantTemplate(t *target) *cobra.Command {
	return group("template", "Templates of tenants, and their rollouts", templatePut(t), templateShow(t),
		templateList(t), templateDelete(t), group("rollout", "The way of a changed template to its tenants",
			rolloutBegin(t), rolloutShow(t), rolloutList(t), rolloutRun(t, api.RunRolloutParamsActionApply,
				"Apply a rollout ring after ring, or continue one"),
			rolloutRun(t, api.RunRolloutParamsActionAbandon, "End a rollout; what was applied stays")))
}

func templatePut(t *target) *cobra.Command {
	var w wishes
	cmd := &cobra.Command{Use: "put TEMPLATE", Short: "Make or change a template of tenants",
		Long: "Make or change a template of tenants. What is not said stays as it is.\n\n" +
			"What a tenant's own settings leave out comes from its template, member by member; a\n" +
			"change takes effect with the tenant's next plan, or with a rollout."}
	w.flags(cmd.Flags())
	return run(t, online, cmd, func(ctx context.Context, c *client.Client, args []string) (*api.Template, error) {
		was, err := c.Template(ctx, args[0])
		if remote, ok := errors.AsType[*client.Error](err); ok && remote.Code == "TemplateNotFound" {
			was = &api.Template{}
		} else if err != nil {
			return nil, err
		}
		rules, err := w.dialRules(t, cmd)
		if err != nil {
			return nil, err
		}
		s, err := changed(was.Settings, &w, cmd.Flags(), map[string]any{"rules": rules})
		if err != nil {
			return nil, err
		}
		return c.PutTemplate(ctx, args[0], s)
	}, printTemplate)
}

func templateShow(t *target) *cobra.Command {
	return run(t, online, &cobra.Command{Use: "show TEMPLATE", Short: "Show a template of tenants"},
		func(ctx context.Context, c *client.Client, args []string) (*api.Template, error) {
			return c.Template(ctx, args[0])
		}, printTemplate)
}

func printTemplate(p *page, x *api.Template) {
	field := func(label, format string, args ...any) { p.field(fmt.Sprintf("%-10s", label), format, args...) }
	s := x.Settings
	field("template", "%s", x.Name)
	field("tenants", "%d", x.Tenants)
	field("changed", "%s", stamp(x.Changed))
	printSettings(field, &s)
}

// printSettings adds the settings of a tenant or a template that are set.
func printSettings(field func(label, format string, args ...any), s *api.TemplateSettings) {
	for _, f := range []struct{ label, value string }{{"trunk", string(s.Trunk)}, {"country", s.Country},
		{"area code", s.AreaCode}, {"licence", s.Licence}, {"usages", either(s.OwnUsageOnly, "Tandem's only", "")},
		{"prefix", s.Prefix}, {"pattern", s.RoutePattern}, {"users of", strings.TrimSpace(s.Users.Department + " " +
			s.Users.UsageLocation)}} {
		if f.value != "" {
			field(f.label, "%s", f.value)
		}
	}
	for _, e := range s.Extensions {
		field("extension", "%s %s", e.Range, e.Base)
	}
	for _, e := range s.Emergency {
		field("emergency", "%s %s", e.DialString, e.Mask)
	}
	for _, r := range s.Rules {
		field("rule", "%s: %s -> %s", r.Name, r.Pattern, r.Translation)
	}
}

func templateList(t *target) *cobra.Command {
	return run(t, online, &cobra.Command{Use: "list", Short: "List the templates of tenants"},
		func(ctx context.Context, c *client.Client, _ []string) (api.TemplateList, error) {
			all, err := c.Templates(ctx)
			return api.TemplateList{Templates: all}, err
		}, func(p *page, l api.TemplateList) {
			g := &grid{head: []string{"template", "tenants", "changed"}}
			for _, x := range l.Templates {
				g.add(x.Name, x.Tenants, stamp(x.Changed))
			}
			p.table(g)
		})
}

func templateDelete(t *target) *cobra.Command {
	return run(t, online, &cobra.Command{Use: "delete TEMPLATE", Short: "Delete a template that no tenant has"},
		func(ctx context.Context, c *client.Client, args []string) (nothing, error) {
			return nothing{}, c.DeleteTemplate(ctx, args[0])
		}, nil)
}

func rolloutBegin(t *target) *cobra.Command {
	var rings []string
	cmd := &cobra.Command{Use: "begin TEMPLATE", Short: "Plan a changed template for all its tenants; change nothing",
		Example: "  tandem tenant template rollout begin branch --ring contoso,fabrikam --ring 20%"}
	cmd.Flags().StringArrayVar(&rings, "ring", nil, "`RING`: accounts, or a percentage of all tenants (repeatable; "+
		"default 10%, then the others)")
	return run(t, online, cmd, func(ctx context.Context, c *client.Client, args []string) (*api.Rollout, error) {
		list := make([]api.RolloutRing, len(rings))
		for i, r := range rings {
			percent, isPercent := strings.CutSuffix(r, "%")
			n, err := strconv.Atoi(percent)
			switch {
			case !isPercent:
				list[i].Accounts = strings.Split(r, ",")
			case err != nil:
				return nil, misuse(cmd, fmt.Errorf("--ring %s is neither accounts nor a percentage", r))
			default:
				list[i].Percent = n
			}
		}
		return c.BeginRollout(ctx, args[0], list)
	}, printRollout)
}

func rolloutShow(t *target) *cobra.Command {
	return run(t, online, &cobra.Command{Use: "show TEMPLATE ROLLOUT", Short: "Show how far a rollout is"},
		func(ctx context.Context, c *client.Client, args []string) (*api.Rollout, error) {
			return c.Rollout(ctx, args[0], args[1])
		}, printRollout)
}

func rolloutList(t *target) *cobra.Command {
	return run(t, online, &cobra.Command{Use: "list TEMPLATE", Short: "List the newest rollouts of a template"},
		func(ctx context.Context, c *client.Client, args []string) (api.RolloutList, error) {
			all, err := c.Rollouts(ctx, args[0])
			return api.RolloutList{Rollouts: all}, err
		}, func(p *page, l api.RolloutList) {
			g := &grid{head: []string{"rollout", "state", "begun", "ring", "stopped at"}}
			for _, x := range l.Rollouts {
				g.add(x.ID, x.State, stamp(x.Begun), fmt.Sprintf("%d of %d", x.Ring, x.Rings),
					strings.TrimPrefix(x.Account+": "+x.Reason, ": "))
			}
			p.table(g)
		})
}

func rolloutRun(t *target, action api.RunRolloutParamsAction, short string) *cobra.Command {
	return run(t, online, &cobra.Command{Use: string(action) + " TEMPLATE ROLLOUT", Short: short},
		func(ctx context.Context, c *client.Client, args []string) (*api.Rollout, error) {
			return c.RunRollout(ctx, args[0], args[1], action)
		}, printRollout)
}

func printRollout(p *page, x *api.Rollout) {
	field := func(label, format string, args ...any) { p.field(fmt.Sprintf("%-10s", label), format, args...) }
	field("rollout", "%s of template %s", x.ID, x.Template)
	field("state", "%s, ring %d of %d", x.State, x.Ring, x.Rings)
	if x.Reason != "" {
		field("stopped", "at %s: %s", x.Account, x.Reason)
	}
	p.line("")
	g := &grid{head: []string{"ring", "account", "state", "create", "change", "delete", "problem or wait"}}
	for _, t := range x.Tenants {
		g.add(t.Ring, t.Account, t.State, t.Create, t.Change, t.Delete, cmp.Or(t.Problem, t.Waiting))
	}
	p.table(g)
	if x.State != api.RolloutStateDone && x.State != api.RolloutStateAbandoned {
		p.line("")
		p.line("To end it: tandem tenant template rollout abandon %s %s", x.Template, x.ID)
	}
	switch x.State {
	case api.RolloutStatePlanning:
		p.line("")
		p.line("The plans are being made; see tandem tenant template rollout show %s %s", x.Template, x.ID)
	case api.RolloutStatePlanned, api.RolloutStateStopped:
		p.line("")
		p.line("To continue: tandem tenant template rollout apply %s %s", x.Template, x.ID)
	}
}

func tenantMove(t *target) *cobra.Command {
	var r api.MoveRequest
	var trunk string
	begin := &cobra.Command{Use: "begin ACCOUNT", Short: "Begin to move an account to another tenant or label",
		Long: "Begin to move an account to another tenant (--to), or its tenant to another label,\n" +
			"perhaps with the other trunk model, without a lost call.\n\n" +
			"tandem tenant move show says what to do next.",
		Example: "  tandem tenant move begin contoso --to 3f2504e0-4f89-41d3-9a0c-0305e82c3301\n" +
			"  tandem tenant move begin contoso --label contoso2 --trunk derived"}
	f := begin.Flags()
	f.StringVar(&r.TenantID, "to", "", "`ID` of the new tenant at Microsoft")
	f.StringVar(&r.Label, "label", "", "the new `LABEL` (default with --to: made from the new tenant's name)")
	f.StringVar(&trunk, "trunk", "", "trunk `MODEL` of the new label: derived (default) or gateways")
	run(t, online, begin, func(ctx context.Context, c *client.Client, args []string) (*api.TenantMove, error) {
		r.Trunk = api.MoveRequestTrunk(trunk)
		return c.BeginMove(ctx, args[0], r)
	}, printMove)

	return group("move", "Moves of accounts to another tenant or trunk model", begin,
		run(t, online, &cobra.Command{Use: "show ACCOUNT", Short: "Show how far a move is, and what to do next"},
			func(ctx context.Context, c *client.Client, args []string) (*api.TenantMove, error) {
				return c.Move(ctx, args[0])
			}, printMove),
		run(t, online, &cobra.Command{Use: "continue ACCOUNT", Short: "Let calls use the new label"},
			func(ctx context.Context, c *client.Client, args []string) (*api.TenantMove, error) {
				return c.ContinueMove(ctx, args[0])
			}, printMove),
		run(t, online, &cobra.Command{Use: "abandon ACCOUNT", Short: "End a move; what was done stays"},
			func(ctx context.Context, c *client.Client, args []string) (nothing, error) {
				return nothing{}, c.AbandonMove(ctx, args[0])
			}, nil))
}

func printMove(p *page, x *api.TenantMove) {
	field := func(label, format string, args ...any) { p.field(fmt.Sprintf("%-10s", label), format, args...) }
	field("account", "%s", x.Account)
	if x.TenantID != "" {
		field("to tenant", "%s", x.TenantID)
	}
	field("label", "%s -> %s", x.Old, either(x.New == "", "(not known yet)", x.New))
	field("stage", "%s", x.Stage)
	if x.Numbers > 0 {
		field("numbers", "%d to go", x.Numbers)
	}
	field("next", "%s", x.Next)
}
