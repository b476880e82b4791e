package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
)

func accountLabel(t *target) *cobra.Command {
	var tokens api.LabelTokens
	put := run(t, offlineToo, &cobra.Command{Use: "put ACCOUNT LABEL", Short: "Give an account a pending label"},
		func(ctx context.Context, c *client.Client, args []string) (*api.Labels, error) {
			return c.PutPendingLabel(ctx, args[0], args[1], tokens, nil)
		}, printLabels)
	put.Flags().StringVar(&tokens.Region1Token, "region1-token", "", "`TXT` value of its name in region 1")
	put.Flags().StringVar(&tokens.Region2Token, "region2-token", "", "`TXT` value of its name in region 2")
	require(put, "region1-token", "region2-token")
	return group("label", "Direct Routing labels of an account, active and pending",
		run(t, offlineToo, &cobra.Command{Use: "show ACCOUNT", Short: "Show the labels of an account"},
			func(ctx context.Context, c *client.Client, args []string) (*api.Labels, error) {
				l, _, err := c.Labels(ctx, args[0])
				return l, err
			}, printLabels),
		put,
		run(t, offlineToo, &cobra.Command{Use: "activate ACCOUNT LABEL",
			Short: "Make a label the active one, and the other one pending"},
			func(ctx context.Context, c *client.Client, args []string) (*api.Labels, error) {
				return c.ActivateLabel(ctx, args[0], args[1], nil)
			}, printLabels),
		run(t, offlineToo, &cobra.Command{Use: "remove ACCOUNT LABEL", Short: "Remove the pending label of an account"},
			func(ctx context.Context, c *client.Client, args []string) (*api.Labels, error) {
				return c.RemovePendingLabel(ctx, args[0], args[1], nil)
			}, printLabels),
		run(t, offlineToo, &cobra.Command{Use: "numbers ACCOUNT LABEL", Short: "List the numbers that record a label"},
			func(ctx context.Context, c *client.Client, args []string) (api.NumberList, error) {
				ns, err := c.LabelNumbers(ctx, args[0], args[1])
				return api.NumberList{Numbers: ns}, err
			}, func(p *page, l api.NumberList) {
				for _, n := range l.Numbers {
					p.line("%s", n)
				}
			}))
}

func printLabels(p *page, l *api.Labels) {
	g := &grid{head: []string{"label", "state", "region 1 token", "region 2 token"}}
	if x := l.Active; x != nil {
		g.add(x.Label, "active", x.Region1Token, x.Region2Token)
	}
	if x := l.Pending; x != nil {
		g.add(x.Label, "pending", x.Region1Token, x.Region2Token)
	}
	p.table(g)
}

func numberLabel(t *target) *cobra.Command {
	var label string
	cmd := run(t, offlineToo, &cobra.Command{Use: "label ACCOUNT NUMBER...",
		Short: "Record which label of the account calls to numbers use",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return misuse(cmd, errors.New("number label needs ACCOUNT and at least one NUMBER"))
			}
			return nil
		}},
		func(ctx context.Context, c *client.Client, args []string) (nothing, error) {
			done := 0
			for chunk := range slices.Chunk(args[1:], client.MaxBatch) {
				if err := c.RecordLabel(ctx, args[0], api.LabelRecord{Label: label, Numbers: chunk}); err != nil {
					return nothing{}, fmt.Errorf("recorded for %d of %d numbers, then: %w", done, len(args)-1, err)
				}
				done += len(chunk)
			}
			return nothing{}, nil
		}, nil)
	cmd.Flags().StringVar(&label, "label", "", "the `LABEL` (default: none is recorded, the active one is used)")
	return cmd
}
