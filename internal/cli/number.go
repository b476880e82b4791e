package cli

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tandemgw/tandem/client"
)

func newNumber(t *target) *cobra.Command {
	return group("number", "Numbers: list, show, put, delete, label", numberList(t), numberShow(t), numberPut(t),
		numberDelete(t), numberLabel(t))
}

func numberList(t *target) *cobra.Command {
	var which client.List
	var account string
	cmd := run(t, offlineToo, &cobra.Command{Use: "list", Short: "List the numbers"},
		func(ctx context.Context, c *client.Client, _ []string) ([]*client.Number, error) {
			return collect(c.Numbers(ctx, account, which))
		}, printNumbers)
	listFlags(cmd, &which, "startswith(telephoneNumber,'+4420')")
	cmd.Flags().StringVar(&account, "account", "", "only this `ACCOUNT` (default all)")
	return cmd
}

func printNumbers(p *page, numbers []*client.Number) {
	g := &grid{head: []string{"number", "account", "services", "custom header"}}
	for _, n := range numbers {
		header := ""
		if n.Configuration != nil {
			header = n.Configuration.CustomSIPHeader
		}
		services, _ := enabledServices(n.ServiceDetails)
		g.add(n.TelephoneNumber, n.AccountName, services, header)
	}
	p.table(g)
}

func numberShow(t *target) *cobra.Command {
	cmd := &cobra.Command{Use: "show NUMBER", Short: "Print a number of any account as JSON"}
	return run(t, offlineToo, cmd, func(ctx context.Context, c *client.Client, args []string) (*client.Number, error) {
		filter := "telephoneNumber eq '" + strings.ReplaceAll(args[0], "'", "''") + "'"
		for n, err := range c.Numbers(ctx, "", client.List{Filter: filter}) {
			return n, err
		}
		return nil, &client.Error{Status: 404, Code: "NumberNotFound",
			Message: fmt.Sprintf("no account has the number %s", args[0])}
	}, nil)
}

func numberPut(t *target) *cobra.Command {
	var numbers []client.Number
	cmd := &cobra.Command{
		Use: "put FILE", Short: "Create or replace numbers from JSON, one or a list (\"-\": stdin)",
		PreRunE: func(cmd *cobra.Command, args []string) (err error) {
			numbers, err = readFile[client.Number](t, cmd.InOrStdin(), args[0])
			return err
		},
	}
	return run(t, offlineToo, cmd, func(ctx context.Context, c *client.Client, _ []string) (map[string]int, error) {
		done := 0
		for chunk := range batches(numbers) {
			if err := c.CreateOrUpdateNumbers(ctx, chunk[0].AccountName, chunk); err != nil {
				return nil, fmt.Errorf("stored %d of %d numbers, then: %w", done, len(numbers), err)
			}
			done += len(chunk)
		}
		return map[string]int{"numbers": done}, nil
	}, func(p *page, done map[string]int) { p.line("numbers stored: %d", done["numbers"]) })
}

func numberDelete(t *target) *cobra.Command {
	cmd := &cobra.Command{Use: "delete ACCOUNT NUMBER", Short: "Delete a number of an account"}
	return run(t, offlineToo, cmd, func(ctx context.Context, c *client.Client, args []string) (nothing, error) {
		return nothing{}, c.DeleteNumber(ctx, args[0], args[1], client.Condition{})
	}, nil)
}

// batches splits numbers into runs of one account that fit into a batch.
func batches(numbers []client.Number) iter.Seq[[]client.Number] {
	return func(yield func([]client.Number) bool) {
		for len(numbers) > 0 {
			n := 1
			for n < len(numbers) && n < client.MaxBatch && numbers[n].AccountName == numbers[0].AccountName {
				n++
			}
			if !yield(numbers[:n]) {
				return
			}
			numbers = numbers[n:]
		}
	}
}
