package cli

import (
	"context"

	"github.com/spf13/cobra"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
)

func newSecret(t *target) *cobra.Command {
	return group("secret", "The keyring, which encrypts stored secrets", secretRotate(t))
}

func secretRotate(t *target) *cobra.Command {
	var distributed bool
	cmd := run(t, offlineToo, &cobra.Command{
		Use:   "rotate",
		Short: "Replace the key and encrypt the database's secrets again",
	}, func(ctx context.Context, c *client.Client, _ []string) (*api.Keyring, error) {
		return c.RotateKeyring(ctx, api.KeyringRotation{Distributed: distributed})
	}, printKeyring)
	cmd.Flags().BoolVar(&distributed, "distributed", false, "the key that was added is on every node: use it")
	return cmd
}

func printKeyring(p *page, k *api.Keyring) {
	p.line("primary key  %d", k.Primary)
	if k.Added != 0 {
		p.line("added        %d (does not encrypt yet)", k.Added)
		p.line("Copy the keyring to every other node and restart it. Then run tandem secret rotate --distributed here.")
		return
	}
	p.line("encrypted    secrets in the database: %d", k.Sealed)
	if k.Unreadable > 0 {
		p.line("unreadable   secrets encrypted with another keyring, or changed: %d", k.Unreadable)
	}
}
