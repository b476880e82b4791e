package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
)

func newEvents(t *target) *cobra.Command {
	var since string
	cmd := &cobra.Command{Use: "events", Short: "Follow what changes: accounts, numbers, requests, clients, nodes"}
	cmd.Flags().StringVar(&since, "since", "", "`ID` of the last event that was seen (default: from now on)")
	return run(t, online, cmd, func(ctx context.Context, c *client.Client, _ []string) (_ nothing, err error) {
		defer func() {
			if since != "" && !client.HasCode(err, "resync") && !client.HasCode(err, "InvalidEventID") {
				fmt.Fprintf(t.p.Stderr, "to continue: tandem events --since \\\n  %s\n", since)
			}
		}()
		for e, err := range c.Events(ctx, since) {
			if err != nil {
				return nothing{}, err
			}
			if t.output == "json" {
				err = json.NewEncoder(t.p.Stdout).Encode(e)
			} else {
				_, err = fmt.Fprintln(t.p.Stdout, eventLine(e))
			}
			if err != nil {
				return nothing{}, err
			}
			since = e.ID
		}
		return nothing{}, nil
	}, nil)
}

// eventLine describes an event, with its time in UTC. What does not fit a terminal is on a second line.
func eventLine(e api.Event) string {
	line := strings.TrimRight(fmt.Sprintf("%s  %-20s %s", e.Time.UTC().Format("15:04:05"), e.Kind, e.Subject), " ")
	if e.Items > 1 {
		line += fmt.Sprintf(" (%d)", e.Items)
	}
	if e.Actor != nil {
		by := " by " + e.Actor.Kind + " " + e.Actor.ID
		line += either(len(line+by) > screenWidth, "\n         ", "") + by
	}
	return line
}
