package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/client"
)

func newExplain(t *target) *cobra.Command {
	var q api.Question
	cmd := run(t, online, &cobra.Command{
		Use:     "explain --from A --to B --peer P",
		Short:   "Show where a call would go, and every rule that was tried",
		Example: "  tandem explain --from +15550100 --to +442079460123 --peer core-fixed",
	}, func(ctx context.Context, c *client.Client, _ []string) (*api.Explanation, error) {
		return c.Explain(ctx, q)
	}, printExplanation)
	f := cmd.Flags()
	f.StringVar(&q.From, "from", "", "calling `NUMBER` (required)")
	f.StringVar(&q.To, "to", "", "called `NUMBER` or dial string (required)")
	f.StringVar(&q.Peer, "peer", "", "`PEER` or peer group that sends the call (required)")
	f.StringVar(&q.Host, "host", "", "`HOST` of the Request-URI (default: the caller's)")
	f.StringArrayVar(&q.Asserted, "asserted", nil, "P-Asserted-Identity `URI` (repeatable)")
	f.StringArrayVar(&q.History, "history", nil, "History-Info `ENTRY`, oldest first (repeatable)")
	f.StringVar(&q.ReferredBy, "referred-by", "", "Referred-By `URI`")
	f.StringVar(&q.AnchoredBy, "anchored-by", "", "`VALUE` of X-MS-FMC")
	require(cmd, "from", "to", "peer")
	return cmd
}

func printExplanation(p *page, e *api.Explanation) {
	p.line("%s (rule %s)", e.Text, e.Rule)
	for _, x := range [][2]string{{"customer", e.Account}, {"label", e.Label}, {"called", e.Called},
		{"caller", e.Caller}, {"identity", e.Identity + either(e.IdentitySource == "", "", " from "+e.IdentitySource)},
		{"custom header", e.Header}, {"emergency", either(e.Emergency, "yes", "")}} {
		if x[1] != "" {
			p.field(fmt.Sprintf("  %-14s ", x[0]), "%s", x[1])
		}
	}
	for _, x := range e.PeerGroups {
		for _, y := range x.Peers {
			p.field(fmt.Sprintf("  %-14s ", "peer"), "%s of %s%s: %s%s", y.Name, x.Name,
				either(y.Address == "", "", " at "+y.Address), y.State, either(y.Reason == "", "", ", "+y.Reason))
		}
	}
	g := &grid{head: []string{"rule", "result", "why"}}
	for _, s := range e.Steps {
		why := s.Text
		var facts []string
		for _, f := range s.Facts {
			facts = append(facts, f.Name+"="+f.Value)
		}
		if len(facts) > 0 {
			why += " (" + strings.Join(facts, ", ") + ")"
		}
		g.add(s.Rule, s.Result, why)
	}
	p.table(g)
}
