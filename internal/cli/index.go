package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/node"
)

func newIndex(t *target) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "index",
		Short: "Show the number index that calls are routed by",
		Args:  cobra.NoArgs,
		RunE:  t.index(false),
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "accept",
		Short: "Replace an index that is held back by what the database holds",
		Long: `Replace an index that is held back by what the database holds.

An index is held back when the database is another one than it was loaded from, as after tandem restore, or when it would
lose too many numbers. Look first with tandem index. Accepting is for this node alone: repeat it on each edge.`,
		Args: cobra.NoArgs,
		RunE: t.index(true),
	})
	return cmd
}

// index accepts what the number index is held back from, or shows the index.
func (t *target) index(accept bool) func(*cobra.Command, []string) error {
	return ask(t, online, func(ctx context.Context, c *client.Client, _ []string) (*api.Replica, error) {
		h, err := c.Health(ctx)
		switch {
		case err != nil:
			return nil, err
		case h.Replica == nil:
			return nil, fault.New(fault.NotFound, "NotOnThisNode", "this node's roles do not include edge; ask a node that has it")
		case accept:
			err = c.AcceptIndex(ctx, cmp.Or(h.Replica.Held, &api.HeldIndex{Database: "none"}).Database)
		}
		return h.Replica, err
	}, func(w io.Writer, r *api.Replica) error {
		if accept {
			_, err := fmt.Fprintln(w, "accepted; this node's index is loaded from the database now (see tandem index)")
			return err
		}
		_, err := fmt.Fprintf(w, "state     %s\nnumbers   %d\nposition  %d of %d\ndatabase  %s\n", indexState(r), r.Numbers, r.Position, r.Head, r.Database)
		if r.Held != nil {
			_, err = fmt.Fprintf(w, `held      for %s: %s
found     %d numbers in database %s

Calls are routed by the old index. If what was found is right, run
tandem index accept on each edge; else correct the database or its settings.
`, age(r.Held.Since), r.Held.Reason, r.Held.Numbers, r.Held.Database)
		}
		return err
	})
}

// indexState is what the index does, in a few words.
func indexState(r *api.Replica) string {
	return either(!r.Loaded, "never loaded", either(r.Current, "follows the database",
		either(r.Held != nil, "held back; see tandem index", "does not follow: "+cmp.Or(r.Error, "the feed was not read lately"))))
}

func newRestore(t *target) *cobra.Command {
	return &cobra.Command{
		Use:   "restore [FILE]",
		Short: "Put a backup of the database in place, or mark a restored one",
		Long: `Put a backup of an SQLite database in the place of the database, and give it a new identity. The database that was there
is kept beside it. Without FILE the database has been restored already, as PostgreSQL is with its own tools; it only gets
the new identity. Edges do not follow it: each routes by the index it has until tandem index accept is run there.

Tandem must not run on the data directory meanwhile. Run it as the user that Tandem runs as.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := t.load(config.Source{})
			if err != nil {
				return err
			}
			identity, replaced, err := node.Restore(cmd.Context(), cfg, append(args, "")[0], t.p.Stderr)
			if err != nil {
				return fmt.Errorf("restore: %w", err)
			}
			answer := map[string]string{"database": identity, "replaced": replaced}
			return show(t, answer, func(w io.Writer, _ map[string]string) error {
				_, err = fmt.Fprintf(w, "The database has the new identity %s.\n%sStart Tandem. Each edge routes by the index it has until you run there:\n    tandem index accept\n",
					identity, either(replaced == "", "", "The one of before is kept as\n    "+replaced+"\n"))
				return err
			})
		},
	}
}
