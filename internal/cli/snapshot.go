package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/domain"
)

func tenantSnapshot(t *target) *cobra.Command {
	return group("snapshot", "What a tenant had by Tandem, to restore it", snapshotList(t), snapshotTake(t),
		snapshotExport(t), snapshotImport(t))
}

func snapshotList(t *target) *cobra.Command {
	return run(t, online, &cobra.Command{Use: "list ACCOUNT",
		Short: "List the snapshots of a tenant, the newest first"},
		func(ctx context.Context, c *client.Client, args []string) (api.SnapshotList, error) {
			all, err := c.Snapshots(ctx, args[0])
			return api.SnapshotList{Snapshots: all}, err
		}, func(p *page, l api.SnapshotList) {
			g := &grid{head: []string{"snapshot", "taken", "reason", "objects", "users", "report of the leave"}}
			for _, s := range l.Snapshots {
				g.add(s.ID, stamp(s.Taken), s.Reason+either(s.Imported, ", imported", ""),
					s.Objects, s.Users, either(s.Report, "yes", ""))
			}
			p.table(g)
		})
}

func printSnapshot(p *page, s *api.Snapshot) {
	p.line("snapshot %s: %s, %s", s.ID, domain.Count(s.Objects, "object"), domain.Count(s.Users, "user"))
}

func snapshotTake(t *target) *cobra.Command {
	return run(t, online, &cobra.Command{Use: "take ACCOUNT", Short: "Record what a tenant has by Tandem"},
		func(ctx context.Context, c *client.Client, args []string) (*api.Snapshot, error) {
			return c.TakeSnapshot(ctx, args[0])
		}, printSnapshot)
}

func snapshotExport(t *target) *cobra.Command {
	return run(t, online, &cobra.Command{Use: "export ACCOUNT SNAPSHOT",
		Short:   "Print a snapshot with its signature",
		Example: "  tandem tenant snapshot export contoso 20261129T114500-k3xv7q > contoso.json"},
		func(ctx context.Context, c *client.Client, args []string) (*api.SnapshotExport, error) {
			return c.ExportSnapshot(ctx, args[0], args[1])
		}, func(p *page, s *api.SnapshotExport) { p.WriteString(s.Export + "\n") })
}

func snapshotImport(t *target) *cobra.Command {
	cmd := &cobra.Command{Use: "import ACCOUNT FILE", Short: "Store a snapshot that was exported; - is standard input"}
	return run(t, online, cmd, func(ctx context.Context, c *client.Client, args []string) (*api.Snapshot, error) {
		text, err := readInput(t, cmd.InOrStdin(), args[1])
		if err != nil {
			return nil, err
		}
		return c.ImportSnapshot(ctx, args[0], string(text))
	}, printSnapshot)
}

func tenantReport(t *target) *cobra.Command {
	cmd := &cobra.Command{Use: "report ACCOUNT [SNAPSHOT]",
		Short: "Show what became of what Tandem had made in a tenant"}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) < 1 || len(args) > 2 {
			return misuse(cmd, fmt.Errorf("tenant report takes ACCOUNT and one SNAPSHOT at most; got %d", len(args)))
		}
		return nil
	}
	return run(t, online, cmd, func(ctx context.Context, c *client.Client, args []string) (*api.LeaveReport, error) {
		return c.LeaveReport(ctx, args[0], either(len(args) == 2, args[len(args)-1], "latest"))
	}, printReport)
}

func printReport(p *page, r *api.LeaveReport) {
	p.line("The tenant of %s was read after the leave, at %s.", r.Account, stamp(r.Read))
	p.line("")
	texts := map[api.LeaveOutcomeFate]string{"gone": "gone", "putBack": "as before Tandem", "kept": "kept"}
	g := &grid{head: []string{"type", "name", "state"}}
	kept := 0
	for _, o := range r.Outcomes {
		if o.Fate == "kept" {
			kept++
		}
		g.add(o.Type, titled(o.Name, o.User, o.DisplayName), texts[o.Fate]+either(o.Reason == "", "", ": "+o.Reason))
	}
	p.table(g)
	p.line("")
	p.line("%d in all, %d kept.", len(r.Outcomes), kept)
	for _, a := range r.Advice {
		p.line("%s", a)
	}
}
