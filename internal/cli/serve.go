package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/node"
)

func newServe(t *target) *cobra.Command {
	var roles []string
	var freePorts, lab bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run Tandem until SIGTERM or Ctrl-C",
		Long: `Run Tandem: the Provisioning API, the SIP edge and the management API.

Without a configuration it keeps its data in SQLite in the data directory and
listens on loopback only. The first SIGTERM or Ctrl-C drains: calls in progress
continue, new ones are refused. The second one ends the remaining calls.

--lab adds sample customers, numbers, requests for information and addresses if
there are no accounts yet.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			reload := outlive(t.p)
			for i, r := range roles {
				if i == 0 {
					t.set = append(t.set, "roles=")
				}
				t.set = append(t.set, fmt.Sprintf("roles[%d]=%s", i, r))
			}
			cfg, err := t.load(config.Source{FreePorts: freePorts, Machine: true, Starting: true})
			if err != nil {
				return err
			}
			var once sync.Once
			return node.Serve(cmd.Context(), node.Options{
				Config: cfg, Version: t.p.Version, Log: t.p.log, Lab: lab, Cut: t.p.Cut, Reload: reload,
				Ready: func(r node.Ready) { once.Do(func() { sayReady(t, r) }) },
			})
		},
	}
	cmd.Flags().StringSliceVar(&roles, "roles", nil, "run only these roles: api, edge, worker (default all)")
	cmd.Flags().BoolVar(&freePorts, "free-ports", false, "listen on free loopback ports, not the configured ones")
	cmd.Flags().BoolVar(&lab, "lab", false, "add sample data if there is none")
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
		b, err := json.Marshal(r)
		if err == nil {
			_, _ = fmt.Fprintf(t.p.Stdout, "%s\n", b) // Stdout may be closed
		}
		return
	}
	p := &page{}
	p.line("Tandem is ready. Press Ctrl-C to stop.")
	g := &grid{head: []string{"what", "where"}}
	for _, x := range [][2]string{{"Provisioning API", r.Provisioning}, {"management API", r.Management},
		{"metrics", r.Metrics}, {"SIP over UDP", r.SIP.UDP}, {"SIP over TCP", r.SIP.TCP},
		{"SIP over TLS", r.SIP.TLS}} {
		if x[1] != "" {
			g.add(x[0], x[1])
		}
	}
	p.table(g)
	_, _ = io.WriteString(t.p.Stdout, p.String()) // Stdout may be closed
}
