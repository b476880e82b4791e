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
	cmd := &cobra.Command{Use: "lab", Short: "Try calls in a running tandem serve --lab"}
	var from, to, via string
	call := &cobra.Command{
		Use:   "call --from A --to B",
		Short: "Place a call in a lab and show how it arrives",
		Long: `Place a call between the simulated peers of "tandem serve --lab", through
Tandem, and end it when it is answered. Show the answer, the peer that the call
reached and what that peer received. A number of a customer calls from its
service, any other number from the operator's core. The exit code is 1 if the
call is not answered.`,
		Example: "  tandem lab call --from +442890180001 --to +441632960101",
		Args:    cobra.NoArgs,
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
	f.StringVar(&from, "from", "", "calling number (required)")
	f.StringVar(&to, "to", "", "called number (required)")
	f.StringVar(&via, "via", "", "peer that places the call (default: the caller's)")
	for _, name := range []string{"from", "to"} {
		_ = call.MarkFlagRequired(name) // fails only for an undefined flag
	}
	cmd.AddCommand(call)
	return cmd
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
