package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/node"
)

func newRestore(t *target) *cobra.Command {
	return &cobra.Command{
		Use:   "restore [FILE]",
		Short: "Restore a backup of the database, or mark a restored database",
		Args:  cobra.MaximumNArgs(1),
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
			return show(t, answer, func(p *page, _ map[string]string) {
				p.line("The database has the new identity %s.", identity)
				if replaced != "" {
					p.line("The previous database is kept as\n    %s", replaced)
				}
				p.line("Start Tandem. Each edge routes by its old index until you run there:\n    tandem index accept")
			})
		},
	}
}
