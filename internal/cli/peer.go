package cli

import (
	"cmp"
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
)

func newPeers(t *target) *cobra.Command {
	return run(t, online,
		&cobra.Command{Use: "peers", Short: "Show the peer groups and the state of their peers"},
		func(ctx context.Context, c *client.Client, _ []string) (api.PeerGroupList, error) {
			groups, err := c.Peers(ctx)
			return api.PeerGroupList{Groups: groups}, err
		}, printPeers)
}

func printPeers(p *page, l api.PeerGroupList) {
	for i, x := range l.Groups {
		if i > 0 {
			p.line("")
		}
		p.line("%s: %s, calls %d, listens on %s", x.Name, x.Service, x.Calls, strings.Join(x.Listen, ", "))
		if c := x.Certificate; c != nil {
			p.line("certificate %s, %s", cmp.Or(c.Name, c.File), either(c.Expires.IsZero(), "not obtained yet",
				"expires "+c.Expires.UTC().Format(time.DateOnly)))
			if c.Warning != "" {
				p.line("warning: %s", c.Warning)
			}
		}
		g := &grid{head: []string{"peer", "address", "priority", "state", "why"}}
		for _, y := range x.Peers {
			g.add(y.Name, y.Address, y.Priority, y.State, y.Reason)
		}
		if len(x.Peers) > 0 {
			p.table(g)
		}
	}
}
