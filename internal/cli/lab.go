package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/cli/demo"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/node"
)

func newLab(t *target) *cobra.Command {
	var from, to, via string
	call := &cobra.Command{
		Use:     "call --from A --to B",
		Short:   "Place a call in a lab and show how it arrives",
		Example: "  tandem lab call --from +442890180001 --to +441632960101",
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := t.dataDir()
			if err != nil {
				return err
			}
			r, err := demo.TryCall(cmd.Context(), dir, from, to, via)
			if err == nil {
				err = show(t, r, printTrial)
			}
			if err == nil && (r.Status/100 != 2 || len(r.Problems) > 0) {
				err = errors.New("the call failed")
			}
			return err
		},
	}
	f := call.Flags()
	f.StringVar(&from, "from", "", "calling `NUMBER` (required)")
	f.StringVar(&to, "to", "", "called `NUMBER` (required)")
	f.StringVar(&via, "via", "", "`PEER` that places the call (default: the caller's)")
	require(call, "from", "to")
	return group("lab", "Try calls in a running tandem serve --lab", call)
}

func printTrial(p *page, r *demo.Trial) {
	for _, l := range r.Text() {
		text := strings.TrimLeft(l, " ")
		p.field(l[:len(l)-len(text)], "%s", text)
	}
}

// startLab starts the simulated peers of serve --lab and makes t use the configuration of a Tandem between them.
func startLab(ctx context.Context, t *target, freePorts bool) (*demo.Lab, error) {
	if t.configFile != "" {
		return nil, usageError{errors.New("--lab has a configuration of its own; omit --config and TANDEM_CONFIG")}
	}
	dir, err := t.dataDir()
	if err != nil {
		return nil, err
	}
	c, err := client.NewSocket(filepath.Join(dir, node.SocketName), client.Options{UserAgent: "tandem-lab"})
	if err != nil {
		return nil, err
	}
	if c.Reachable(ctx) == nil { // a second lab would write over the first one's files
		return nil, fault.New(fault.Conflict, "InUse", "tandem serve is running on %s; stop it, or use another "+
			"directory", dir)
	}
	l, err := demo.StartLab(dir, freePorts, c)
	if err != nil {
		return nil, fmt.Errorf("start the lab: %w", err)
	}
	t.configFile = l.ConfigFile
	return l, nil
}
