package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
)

// roleFlag adds the flag --role, which is required.
func roleFlag(cmd *cobra.Command, roles *[]string, usage string) {
	cmd.Flags().StringSliceVar(roles, "role", nil, usage)
	require(cmd, "role")
}

func newClient(t *target) *cobra.Command {
	return group("client", "API clients of the embedded issuer", clientCreate(t), clientList(t), clientRevoke(t))
}

func clientCreate(t *target) *cobra.Command {
	var roles []string
	cmd := run(t, offlineToo, &cobra.Command{
		Use:   "create NAME --role ROLE",
		Short: "Create a client; its secret is shown once",
	}, func(ctx context.Context, c *client.Client, args []string) (*api.CreatedClient, error) {
		return c.CreateClient(ctx, api.ClientRequest{Name: args[0], Roles: roles})
	}, func(p *page, x *api.CreatedClient) {
		p.line("client id      %s", x.Client.ID)
		p.line("client secret  %s", x.Secret)
		p.field("roles          ", "%s", strings.Join(x.Client.Roles, ", "))
		p.line("The secret is not shown again.")
	})
	roleFlag(cmd, &roles, "`ROLE` of its tokens (repeatable)")
	return cmd
}

func clientList(t *target) *cobra.Command {
	return run(t, offlineToo, &cobra.Command{Use: "list", Short: "List the clients"},
		func(ctx context.Context, c *client.Client, _ []string) (api.ClientList, error) {
			l, err := c.Clients(ctx)
			return api.ClientList{Clients: l}, err
		}, printClients)
}

func printClients(p *page, l api.ClientList) {
	g := &grid{head: []string{"id", "name", "roles", "created", "revoked"}}
	for _, x := range l.Clients {
		revoked := ""
		if !x.Revoked.IsZero() {
			revoked = x.Revoked.UTC().Format(time.DateOnly)
		}
		g.add(x.ID, x.Name, strings.Join(x.Roles, " "), x.Created.UTC().Format(time.DateOnly), revoked)
	}
	p.table(g)
}

func clientRevoke(t *target) *cobra.Command {
	cmd := &cobra.Command{Use: "revoke ID", Short: "Revoke a client: it gets no further tokens"}
	return run(t, offlineToo, cmd, func(ctx context.Context, c *client.Client, args []string) (nothing, error) {
		return nothing{}, c.RevokeClient(ctx, args[0])
	}, nil)
}
