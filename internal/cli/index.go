package cli

import (
	"cmp"
	"context"

	"github.com/spf13/cobra"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
)

func newIndex(t *target) *cobra.Command {
	cmd := run(t, online,
		&cobra.Command{Use: "index", Short: "Show the number index that calls are routed by"},
		readIndex, printIndex)
	cmd.AddCommand(indexAccept(t))
	return cmd
}

func indexAccept(t *target) *cobra.Command {
	return run(t, online, &cobra.Command{
		Use:   "accept",
		Short: "Replace a held-back index with the content of the database",
	}, func(ctx context.Context, c *client.Client, _ []string) (*api.Replica, error) {
		r, err := readIndex(ctx, c, nil)
		if err == nil && r.Held == nil {
			err = fault.New(fault.Conflict, "IndexNotHeld", "no number index is held back; see tandem index")
		}
		if err != nil {
			return nil, err
		}
		return r, c.AcceptIndex(ctx, r.Held.Database)
	}, func(p *page, _ *api.Replica) {
		p.line("accepted; loading this node's index from the database (see tandem index)")
	})
}

func readIndex(ctx context.Context, c *client.Client, _ []string) (*api.Replica, error) {
	h, err := c.Health(ctx)
	if err != nil {
		return nil, err
	}
	if h.Replica == nil {
		return nil, fault.New(fault.Conflict, "NotOnThisNode",
			"this node does not have the role edge; use a node that has it")
	}
	return h.Replica, nil
}

func printIndex(p *page, r *api.Replica) {
	p.field("state     ", "%s", indexState(r))
	p.line("numbers   %d", r.Numbers)
	p.line("position  %d of %d", r.Position, r.Head)
	p.line("database  %s", r.Database)
	if r.Held != nil {
		p.line("held back for %s: %s", age(r.Held.Since), r.Held.Reason)
		p.line("found     %s in database %s", domain.Count(r.Held.Numbers, "number"), r.Held.Database)
		p.line("\nCalls are routed by the old index. If this database is the right one, run\n" +
			"tandem index accept on each edge. If not, correct the database or its settings.")
	}
}

// indexState describes the state of the index in a few words.
func indexState(r *api.Replica) string {
	return either(!r.Loaded, "never loaded", either(r.Current, "follows the database",
		either(r.Held != nil, "held back",
			"does not follow the database: "+cmp.Or(r.Error, "the change feed was not read recently"))))
}
