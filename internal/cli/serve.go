package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tandemgw/tandem/internal/cli/demo"
	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/node"
)

// startsWithFreePorts is how often a server that may use any ports starts before it fails because one is in use.
const startsWithFreePorts = 5

func newServe(t *target) *cobra.Command {
	var roles []string
	var freePorts, lab bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run Tandem until SIGTERM or Ctrl-C",
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			reload := outlive(t.p)
			o := node.Options{Version: t.p.Version, Log: t.p.log, Cut: t.p.Cut, Reload: reload}
			ctx, fail := context.WithCancelCause(cmd.Context())
			defer fail(nil)
			prepare := func() error { return nil }
			var peers *demo.Lab
			if lab {
				if peers, err = startLab(ctx, t, freePorts); err != nil {
					return err
				}
				defer func() { err = errors.Join(err, peers.Close()) }()
				o.Seed, prepare, freePorts = peers.Seed, func() error { return peers.Open(ctx) }, false
			}
			for i, r := range roles {
				if i == 0 {
					t.set = append(t.set, "roles=")
				}
				t.set = append(t.set, fmt.Sprintf("roles[%d]=%s", i, r))
			}
			o.Ready = func(r node.Ready) {
				if err := prepare(); err != nil {
					fail(fmt.Errorf("prepare the lab: %w", err))
					return
				}
				sayReady(t, r)
				if lab && t.output == "text" {
					peers.Hints(t.p.Stdout, os.Args[0], o.Config.Data, r.Provisioning)
				}
			}
			for range startsWithFreePorts {
				o.Config, err = t.load(config.Source{FreePorts: freePorts, Machine: true, Starting: true})
				if err != nil {
					return err
				}
				if err = node.Serve(ctx, o); !freePorts || !fault.HasCode(err, "CannotListen") {
					break
				}
				// another process took a port that had been free
			}
			if err != nil {
				return err
			}
			if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
				return cause
			}
			return nil
		},
	}
	cmd.Flags().StringSliceVar(&roles, "roles", nil,
		"run only these `ROLES`: api, edge, worker, dns, front (default all)")
	cmd.Flags().BoolVar(&freePorts, "free-ports", false, "listen on free loopback ports, not the configured ones")
	cmd.Flags().BoolVar(&lab, "lab", false, "add simulated peers and sample customers; not for production")
	return cmd
}

// outlive makes the process independent of its terminal and of the reader of its output: from here on no write to the
// standard streams blocks or ends it, and SIGHUP, which a closing terminal sends, requests a reload.
func outlive(p *Program) (reload <-chan os.Signal) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	signal.Ignore(syscall.SIGPIPE)
	p.log, p.out = node.NewOutput(p.Stderr), node.NewOutput(p.Stdout)
	p.Stderr, p.Stdout = p.log, p.out
	return hangup
}

// sayReady prints the addresses of Tandem: one line of JSON for scripts, or a table.
func sayReady(t *target, r node.Ready) {
	if t.output == "json" {
		_ = json.NewEncoder(t.p.Stdout).Encode(r) // Stdout may be closed
		return
	}
	p := &page{}
	p.line("Tandem is ready. Press Ctrl-C to stop.")
	g := &grid{head: []string{"what", "where"}}
	for _, x := range [][2]string{{"Provisioning API", r.Provisioning}, {"management API", r.Management},
		{"metrics", r.Metrics}, {"public front", r.Front}, {"SIP over UDP", r.SIP.UDP}, {"SIP over TCP", r.SIP.TCP},
		{"SIP over TLS", r.SIP.TLS}} {
		if x[1] != "" {
			g.add(x[0], x[1])
		}
	}
	p.table(g)
	_, _ = io.WriteString(t.p.Stdout, p.String()) // Stdout may be closed
}
