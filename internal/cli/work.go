package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
)

func newWork(t *target) *cobra.Command {
	return group("work", "Work on outside systems that is not done", workList(t),
		workRun(t, api.RunWorkParamsActionRetry, "Run work at once that is parked or queued"),
		workRun(t, api.RunWorkParamsActionResume, "Run work at once that waits for a person"))
}

func workList(t *target) *cobra.Command {
	var kind, state string
	cmd := run(t, online, &cobra.Command{Use: "list", Short: "List work that is not done"},
		func(ctx context.Context, c *client.Client, _ []string) (api.WorkList, error) {
			var q api.ListWorkParams
			if kind != "" {
				q.Kind = &kind
			}
			if state != "" {
				q.State = new(api.WorkState(state))
			}
			l, err := c.Work(ctx, q)
			return api.WorkList{Work: l}, err
		}, printWork)
	cmd.Flags().StringVar(&kind, "kind", "", "only this `KIND`")
	cmd.Flags().StringVar(&state, "state", "", "only this `STATE`: queued, running, waiting, parked")
	return cmd
}

func printWork(p *page, l api.WorkList) {
	g := &grid{head: []string{"kind", "id", "state", "for", "runs", "due", "reason"}}
	for _, x := range l.Work {
		due := ""
		if !x.Due.IsZero() {
			due = x.Due.UTC().Format(time.DateTime)
		}
		g.add(x.Kind, x.ID, x.State, age(x.Since), x.Attempts, due, x.Reason)
	}
	p.table(g)
}

func workRun(t *target, action api.RunWorkParamsAction, short string) *cobra.Command {
	cmd := &cobra.Command{Use: string(action) + " KIND ID", Short: short}
	return run(t, online, cmd, func(ctx context.Context, c *client.Client, args []string) (nothing, error) {
		return nothing{}, c.RunWork(ctx, args[0], args[1], action)
	}, nil)
}
