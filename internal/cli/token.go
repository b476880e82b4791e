package cli

import (
	"context"

	"github.com/spf13/cobra"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
)

func newToken(t *target) *cobra.Command {
	var roles []string
	cmd := run(t, offlineToo, &cobra.Command{
		Use:   "token --role ROLE",
		Short: "Print a bearer token of the embedded issuer, and nothing else",
	}, func(ctx context.Context, c *client.Client, _ []string) (*api.Token, error) {
		return c.CreateToken(ctx, api.TokenRequest{Roles: roles})
	}, func(p *page, tok *api.Token) { p.line("%s", tok.AccessToken) })
	roleFlag(cmd, &roles, "`ROLE` of the token (repeatable)")
	return cmd
}
