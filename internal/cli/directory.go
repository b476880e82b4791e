package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tandemgw/tandem/client"
)

// listFlags defines the flags of a list command; example is an example of a filter.
func listFlags(cmd *cobra.Command, l *client.List, example string) {
	cmd.Flags().StringVar(&l.Filter, "filter", "", "filter, such as \""+example+"\"")
	cmd.Flags().IntVar(&l.Top, "top", 0, "maximum number to list (default all)")
}

func newAccount(t *target) *cobra.Command {
	cmd := &cobra.Command{Use: "account", Short: "Customers: list, show, put, delete"}
	var which client.List
	list := &cobra.Command{
		Use: "list", Short: "List the accounts", Args: cobra.NoArgs,
		RunE: t.run(offlineToo, func(ctx context.Context, c *client.Client, _ []string) error {
			return printList(t, c.Accounts(ctx, which), []string{"account", "services", "numbers", "correlation id"},
				func(g *grid, a *client.Account) {
					names, numbers := accountServices(a)
					g.add(a.Name, names, numbers, a.CorrelationID)
				})
		}),
	}
	listFlags(list, &which, "startswith(name,'north')")
	var deleteNumbers bool
	del := &cobra.Command{
		Use: "delete NAME", Short: "Delete an account", Args: exactArgs(1, "NAME"),
		RunE: t.run(offlineToo, func(ctx context.Context, c *client.Client, args []string) error {
			return c.DeleteAccount(ctx, args[0], deleteNumbers, client.Condition{})
		}),
	}
	del.Flags().BoolVar(&deleteNumbers, "delete-numbers", false,
		"delete its numbers too; required if it has any")
	cmd.AddCommand(list, del,
		&cobra.Command{
			Use: "show NAME", Short: "Print an account as JSON", Args: exactArgs(1, "NAME"),
			RunE: ask(t, offlineToo,
				func(ctx context.Context, c *client.Client, args []string) (*client.Account, error) {
					return c.Account(ctx, args[0])
				}, nil),
		},
		&cobra.Command{
			Use: "put FILE", Short: "Create or replace an account from a JSON file (\"-\": stdin)",
			Args: exactArgs(1, "FILE"),
			RunE: func(cmd *cobra.Command, args []string) error {
				var a client.Account
				if err := readJSON(cmd.InOrStdin(), args[0], &a); err != nil {
					return err
				}
				return ask(t, offlineToo,
					func(ctx context.Context, c *client.Client, _ []string) (*client.Account, error) {
						return c.PutAccount(ctx, &a, client.Condition{})
					}, nil)(cmd, args)
			},
		})
	return cmd
}

func newNumber(t *target) *cobra.Command {
	cmd := &cobra.Command{Use: "number", Short: "Numbers: list, show, put, delete"}
	var which client.List
	var account string
	list := &cobra.Command{
		Use: "list", Short: "List the numbers", Args: cobra.NoArgs,
		RunE: t.run(offlineToo, func(ctx context.Context, c *client.Client, _ []string) error {
			head := []string{"number", "account", "services", "custom header"}
			return printList(t, c.Numbers(ctx, account, which), head,
				func(g *grid, n *client.Number) {
					header := ""
					if n.Configuration != nil {
						header = n.Configuration.CustomSIPHeader
					}
					g.add(n.TelephoneNumber, n.AccountName, numberServices(n), header)
				})
		}),
	}
	listFlags(list, &which, "startswith(telephoneNumber,'+4420')")
	list.Flags().StringVar(&account, "account", "", "only this account's (default all)")
	cmd.AddCommand(list,
		&cobra.Command{
			Use: "show NUMBER", Short: "Print a number of any account as JSON", Args: exactArgs(1, "NUMBER"),
			RunE: ask(t, offlineToo,
				func(ctx context.Context, c *client.Client, args []string) (*client.Number, error) {
					filter := "telephoneNumber eq '" + strings.ReplaceAll(args[0], "'", "''") + "'"
					for n, err := range c.Numbers(ctx, "", client.List{Filter: filter}) {
						return n, err
					}
					return nil, &client.Error{Status: 404, Code: "NumberNotFound",
						Message: fmt.Sprintf("no account has the number %s", args[0])}
				}, nil),
		},
		&cobra.Command{
			Use: "put FILE", Short: "Create or replace numbers from JSON, one or a list (\"-\": stdin)",
			Args: exactArgs(1, "FILE"),
			RunE: func(cmd *cobra.Command, args []string) error {
				numbers, err := readNumbers(cmd.InOrStdin(), args[0])
				if err != nil {
					return err
				}
				put := func(ctx context.Context, c *client.Client, _ []string) (map[string]int, error) {
					done := 0
					for chunk := range batches(numbers) {
						if err := c.CreateOrUpdateNumbers(ctx, chunk[0].AccountName, chunk); err != nil {
							return nil, fmt.Errorf("stored %d of %d numbers, then: %w", done, len(numbers), err)
						}
						done += len(chunk)
					}
					return map[string]int{"numbers": done}, nil
				}
				return ask(t, offlineToo, put, func(w io.Writer, done map[string]int) error {
					_, err := fmt.Fprintf(w, "%d numbers stored\n", done["numbers"])
					return err
				})(cmd, args)
			},
		},
		&cobra.Command{
			Use: "delete ACCOUNT NUMBER", Short: "Delete a number of an account",
			Args: exactArgs(2, "ACCOUNT and NUMBER"),
			RunE: t.run(offlineToo, func(ctx context.Context, c *client.Client, args []string) error {
				return c.DeleteNumber(ctx, args[0], args[1], client.Condition{})
			}),
		})
	return cmd
}

// printList prints a list of items, as one JSON array or as a table.
func printList[T any](t *target, items iter.Seq2[*T, error], head []string, row func(*grid, *T)) error {
	all := []*T{}
	g := &grid{head: head}
	for x, err := range items {
		if err != nil {
			return err
		}
		if t.output == "json" {
			all = append(all, x)
		} else {
			row(g, x)
		}
	}
	if t.output == "json" {
		return printJSON(t.p.Stdout, all)
	}
	return g.write(t.p.Stdout)
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

func readNumbers(stdin io.Reader, file string) ([]client.Number, error) {
	var raw json.RawMessage
	if err := readJSON(stdin, file, &raw); err != nil {
		return nil, err
	}
	if strings.HasPrefix(strings.TrimSpace(string(raw)), "[") {
		var l []client.Number
		err := strictJSON(file, raw, &l)
		return l, err
	}
	l := make([]client.Number, 1)
	err := strictJSON(file, raw, &l[0])
	return l, err
}

// readJSON reads a file with one JSON value; "-" is standard input.
func readJSON(stdin io.Reader, file string, v any) error {
	var b []byte
	var err error
	if file == "-" {
		b, err = io.ReadAll(stdin)
	} else {
		b, err = os.ReadFile(file)
	}
	if err != nil {
		return usageError{err}
	}
	return strictJSON(file, b, v)
}

func strictJSON(file string, b []byte, v any) error {
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return usageError{fmt.Errorf("%s: %w", file, err)}
	}
	return nil
}

func accountServices(a *client.Account) (names string, numbers int64) {
	s := cmp.Or(a.ServiceDetails, &client.AccountServices{})
	direct := cmp.Or(s.TeamsDirectRouting, &client.DirectRoutingAccount{})
	operator := cmp.Or(s.TeamsOperatorConnect, &client.AccountService{})
	mobile := cmp.Or(s.TeamsPhoneMobile, &client.AccountService{})
	zoom := cmp.Or(s.ZoomPhoneCloudPeering, &client.AccountService{})
	protection := cmp.Or(s.AzureOperatorCallProtection, &client.CallProtection{})
	return serviceNames(direct.Enabled, operator.Enabled, mobile.Enabled, zoom.Enabled, protection.Enabled),
		direct.NumberCount + operator.NumberCount + mobile.NumberCount + zoom.NumberCount + protection.NumberCount
}

func numberServices(n *client.Number) string {
	s, team, plain := &n.ServiceDetails, &client.TeamsNumber{}, &client.NumberService{}
	return serviceNames(cmp.Or(s.TeamsDirectRouting, plain).Enabled, cmp.Or(s.TeamsOperatorConnect, team).Enabled,
		cmp.Or(s.TeamsPhoneMobile, team).Enabled, cmp.Or(s.ZoomPhoneCloudPeering, plain).Enabled,
		cmp.Or(s.AzureOperatorCallProtection, plain).Enabled)
}

// serviceNames lists the enabled services.
func serviceNames(direct, operator, mobile, zoom, protection bool) string {
	names := []string{either(direct, "teamsDirectRouting", ""), either(operator, "teamsOperatorConnect", ""),
		either(mobile, "teamsPhoneMobile", ""), either(zoom, "zoomPhoneCloudPeering", ""),
		either(protection, "azureOperatorCallProtection", "")}
	return strings.Join(slices.DeleteFunc(names, func(n string) bool { return n == "" }), " ")
}
