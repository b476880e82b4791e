package cli

import (
	"context"

	"github.com/spf13/cobra"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
)

func newDrain(t *target) *cobra.Command {
	var off bool
	cmd := run(t, online,
		&cobra.Command{Use: "drain", Short: "Refuse new calls; calls in progress continue", Args: cobra.NoArgs},
		func(ctx context.Context, c *client.Client, _ []string) (api.Drain, error) {
			return api.Drain{Draining: !off}, c.SetDrain(ctx, !off)
		}, func(p *page, d api.Drain) {
			p.line("%s", either(d.Draining, "draining: new calls are refused; see tandem status",
				"accepting calls again"))
		})
	cmd.Flags().BoolVar(&off, "off", false, "accept calls again")
	return cmd
}
