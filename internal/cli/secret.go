package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
)

func newSecret(t *target) *cobra.Command {
	return group("secret", "The keyring, which encrypts stored secrets", secretStatus(t), secretRotate(t),
		secretPrune(t))
}

func secretStatus(t *target) *cobra.Command {
	return run(t, offlineToo, &cobra.Command{
		Use:   "status",
		Short: "Show the keys, and how many values need an older one",
	}, func(ctx context.Context, c *client.Client, _ []string) (*api.Keyring, error) {
		return c.Keyring(ctx)
	}, printKeyring)
}

func secretRotate(t *target) *cobra.Command {
	var distributed bool
	cmd := run(t, offlineToo, &cobra.Command{
		Use:   "rotate",
		Short: "Replace the key and encrypt everything stored again",
	}, func(ctx context.Context, c *client.Client, _ []string) (*api.Keyring, error) {
		return c.RotateKeyring(ctx, api.KeyringRotation{Distributed: distributed})
	}, printKeyring)
	cmd.Flags().BoolVar(&distributed, "distributed", false, "the key that was added is on every node: use it")
	return cmd
}

func secretPrune(t *target) *cobra.Command {
	return run(t, offlineToo, &cobra.Command{
		Use:   "prune",
		Short: "Remove the older keys, once nothing needs them",
	}, func(ctx context.Context, c *client.Client, _ []string) (*api.Keyring, error) {
		return c.PruneKeyring(ctx)
	}, printKeyring)
}

func printKeyring(p *page, k *api.Keyring) {
	ids := func(keys []int64) string { return strings.Trim(fmt.Sprint(keys), "[]") }
	p.line("primary key  %d", k.Primary)
	if len(k.Added) > 0 {
		p.field("added        ", "%s (does not encrypt yet)", ids(k.Added))
	}
	if len(k.Older) > 0 {
		p.field("older keys   ", "%s", ids(k.Older))
	}
	older := 0
	g := &grid{head: []string{"values", "primary key", "older key", "unreadable"}}
	for _, v := range k.Values {
		g.add(v.Name, v.Primary, v.Older, v.Unreadable)
		older += v.Older
	}
	p.table(g)
	switch {
	case len(k.Added) > 0:
		p.line("Copy the keyring to every other node and run tandem reload there. Then run tandem secret rotate " +
			"--distributed here.")
	case older > 0:
		p.line("Run tandem secret rotate to encrypt the remaining values again.")
	case len(k.Older) > 0:
		p.line("No value here needs the older keys: tandem secret prune removes them.")
	}
}
