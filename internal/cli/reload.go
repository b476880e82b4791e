package cli

import (
	"context"

	"github.com/spf13/cobra"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
)

func newReload(t *target) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Apply configuration changes that need no restart",
		Long: `Read the configuration again and apply the changes that need no restart.

The running process reads and checks its own configuration: the file, options
and environment that it was started with. With any mistake nothing changes, and
every mistake is printed. Otherwise certificates, log levels, limits, header
rules and lists of allowed sources take effect at once, without affecting calls
in progress, and the changes that need a restart are listed. SIGHUP does the
same and writes the result to the log.`,
		Args: cobra.NoArgs,
	}
	return run(t, online, cmd, func(ctx context.Context, c *client.Client, _ []string) (*api.Reloaded, error) {
		return c.Reload(ctx)
	}, printReloaded)
}

func printReloaded(p *page, r *api.Reloaded) {
	if len(r.Applied)+len(r.Restart) == 0 {
		p.line("no setting has changed; certificates were reloaded")
		return
	}
	g := &grid{head: []string{"setting", "state"}}
	for _, s := range r.Applied {
		g.add(s, "applied")
	}
	for _, s := range r.Restart {
		g.add(s, "needs a restart")
	}
	p.table(g)
}
