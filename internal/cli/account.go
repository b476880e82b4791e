package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tandemgw/tandem/client"
)

func newAccount(t *target) *cobra.Command {
	return group("account", "Customers: list, show, put, delete, labels", accountList(t), accountShow(t),
		accountPut(t), accountDelete(t), accountLabel(t))
}

func accountList(t *target) *cobra.Command {
	var which client.List
	cmd := run(t, offlineToo, &cobra.Command{Use: "list", Short: "List the accounts"},
		func(ctx context.Context, c *client.Client, _ []string) ([]*client.Account, error) {
			return collect(c.Accounts(ctx, which))
		}, printAccounts)
	listFlags(cmd, &which, "startswith(name,'north')")
	return cmd
}

func printAccounts(p *page, accounts []*client.Account) {
	g := &grid{head: []string{"account", "services", "numbers", "correlation id"}}
	for _, a := range accounts {
		services, numbers := enabledServices(a.ServiceDetails)
		g.add(a.Name, services, numbers, a.CorrelationID)
	}
	p.table(g)
}

func accountShow(t *target) *cobra.Command {
	return run(t, offlineToo,
		&cobra.Command{Use: "show NAME", Short: "Print an account as JSON"},
		func(ctx context.Context, c *client.Client, args []string) (*client.Account, error) {
			return c.Account(ctx, args[0])
		}, nil)
}

func accountPut(t *target) *cobra.Command {
	var accounts []client.Account
	cmd := &cobra.Command{
		Use: "put FILE", Short: "Create or replace an account from a JSON file (\"-\": stdin)",
		PreRunE: func(cmd *cobra.Command, args []string) (err error) {
			accounts, err = readFile[client.Account](t, cmd.InOrStdin(), args[0])
			if err == nil && len(accounts) != 1 {
				err = usageError{fmt.Errorf("%s has %d accounts; put one at a time", args[0], len(accounts))}
			}
			return err
		},
	}
	return run(t, offlineToo, cmd, func(ctx context.Context, c *client.Client, _ []string) (*client.Account, error) {
		return c.PutAccount(ctx, &accounts[0], client.Condition{})
	}, nil)
}

func accountDelete(t *target) *cobra.Command {
	var deleteNumbers bool
	cmd := run(t, offlineToo,
		&cobra.Command{Use: "delete NAME", Short: "Delete an account"},
		func(ctx context.Context, c *client.Client, args []string) (nothing, error) {
			return nothing{}, c.DeleteAccount(ctx, args[0], deleteNumbers, client.Condition{})
		}, nil)
	cmd.Flags().BoolVar(&deleteNumbers, "delete-numbers", false,
		"delete its numbers too; required if it has any")
	return cmd
}

// listFlags defines the flags of a list command; example is an example of a filter.
func listFlags(cmd *cobra.Command, l *client.List, example string) {
	cmd.Flags().StringVar(&l.Filter, "filter", "", "`FILTER`, such as \""+example+"\"")
	cmd.Flags().IntVar(&l.Top, "top", 0, "maximum `COUNT` of items (default all)")
}

// collect returns the items of a list, or its error.
func collect[T any](items iter.Seq2[T, error]) ([]T, error) {
	all := []T{}
	for x, err := range items {
		if err != nil {
			return nil, err
		}
		all = append(all, x)
	}
	return all, nil
}

// enabledServices returns the names of the enabled services in the serviceDetails of an account or a number, and how
// many numbers have them.
func enabledServices(serviceDetails any) (names string, numbers int64) {
	var members map[string]json.RawMessage
	if b, err := json.Marshal(serviceDetails); err == nil {
		_ = json.Unmarshal(b, &members) // null if there are none
	}
	var enabled []string
	for name, raw := range members {
		var service struct {
			Enabled     bool
			NumberCount int64
		}
		if json.Unmarshal(raw, &service) != nil {
			continue // teamsTenantId is no service
		}
		numbers += service.NumberCount
		if service.Enabled {
			enabled = append(enabled, name)
		}
	}
	slices.Sort(enabled)
	return strings.Join(enabled, " "), numbers
}
