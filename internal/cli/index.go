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
		Short: "Replace a held-back index with the content of the database",
		Long: `Replace a held-back index with the content of the database.

The old index is held back when the database is not the one that it was loaded
from, as after tandem restore, or when it would lose too many numbers. Check
with tandem index first. Accepting applies to this node only: repeat it on each
edge.`,
		Args: cobra.NoArgs,
		RunE: t.index(true),
	})
	return cmd
}

// index returns the RunE of a command that shows the number index or, with accept, accepts the database for which it is
// held back.
func (t *target) index(accept bool) func(*cobra.Command, []string) error {
	return ask(t, online, func(ctx context.Context, c *client.Client, _ []string) (*api.Replica, error) {
		h, err := c.Health(ctx)
		switch {
		case err != nil:
			return nil, err
		case h.Replica == nil:
			return nil, fault.New(fault.NotFound, "NotOnThisNode",
				"this node does not have the role edge; use a node that has it")
		case accept:
			err = c.AcceptIndex(ctx, cmp.Or(h.Replica.Held, &api.HeldIndex{Database: "none"}).Database)
		}
		return h.Replica, err
	}, func(w io.Writer, r *api.Replica) error {
		if accept {
			_, err := fmt.Fprintln(w, "accepted; loading this node's index from the database (see tandem index)")
			return err
		}
		_, err := fmt.Fprintf(w, "state     %s\nnumbers   %d\nposition  %d of %d\ndatabase  %s\n", indexState(r),
			r.Numbers, r.Position, r.Head, r.Database)
		if r.Held != nil {
			_, err = fmt.Fprintf(w, `held back for %s: %s
found     %d numbers in database %s

Calls are routed by the old index. If this database is the right one, run
tandem index accept on each edge. If not, correct the database or its settings.
`, age(r.Held.Since), r.Held.Reason, r.Held.Numbers, r.Held.Database)
		}
		return err
	})
}

// indexState describes the state of the index in a few words.
func indexState(r *api.Replica) string {
	return either(!r.Loaded, "never loaded", either(r.Current, "follows the database",
		either(r.Held != nil, "held back; see tandem index",
			"does not follow the database: "+cmp.Or(r.Error, "the change feed was not read recently"))))
}

func newRestore(t *target) *cobra.Command {
	return &cobra.Command{
		Use:   "restore [FILE]",
		Short: "Restore a backup of the database, or mark a restored database",
		Long: `Replace the SQLite database with the backup in FILE, and give it a new identity.
The previous database is kept beside it. Without FILE the database must have
been restored already, as PostgreSQL is with its own tools; it only gets the new
identity. Edges do not follow a restored database: each routes by its old index
until tandem index accept is run there.

Stop Tandem on the data directory first. Run the command as the same user as
Tandem.`,
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
				_, err = fmt.Fprintf(w, "The database has the new identity %s.\n%sStart Tandem. Each edge routes by "+
					"its old index until you run there:\n    tandem index accept\n",
					identity, either(replaced == "", "", "The previous database is kept as\n    "+replaced+"\n"))
				return err
			})
		},
	}
}
