package node

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
)

// Options configures Serve.
type Options struct {
	Config  *config.Loaded
	Version string
	Log     *Output // where log lines go; the caller closes it
	// Seed, if not nil, is called before anything runs, to add sample data.
	Seed func(context.Context, *directory.Directory) error
	// Ready is called once, when the process is ready.
	Ready func(Ready)
	// Reload receives a value when the configuration is to be reloaded. Nil never does.
	Reload <-chan os.Signal
	// Cut is closed when draining is to end at once. Nil means never.
	Cut <-chan struct{}
}

// Ready holds the addresses of a process. An empty one is not served.
type Ready struct {
	Ready        bool   `json:"ready"`
	Provisioning string `json:"provisioning"` // URL
	Management   string `json:"management"`   // URL
	Metrics      string `json:"metrics"`      // URL
	Front        string `json:"front"`        // URL, with an address instead of a host of the front
	SIP          SIP    `json:"sip"`
}

// SIP holds, for each transport, the address of the first peer group that uses it.
type SIP struct {
	UDP string `json:"udp"`
	TCP string `json:"tcp"`
	TLS string `json:"tls"`
}

// readyPoll is how often a starting process checks whether it is ready.
const readyPoll = 20 * time.Millisecond

// Serve runs a process until ctx ends, then drains and stops it. An error at the start is one of configuration or of
// this machine; waiting does not fix it.
func Serve(ctx context.Context, o Options) error {
	log := newLogger(o.Log, o.Config.Log)
	o.Log.form.Store(&o.Config.Log)
	n, err := build(ctx, o.Config, o.Version, log, serving)
	if err != nil {
		return err
	}
	defer n.close()
	n.metrics.MustRegister(o.Log.dropped)
	if o.Seed != nil {
		if err := o.Seed(ctx, n.core.directory); err != nil {
			return fmt.Errorf("add sample data: %w", err)
		}
	}
	r, err := n.supervisor.start(ctx)
	if err != nil {
		return err
	}
	n.logStart()
	defer n.reloadOn(o.Reload)()
	n.announce(ctx, o.Ready)
	<-ctx.Done()
	n.leave(o.Cut)
	log.Info("shutting down; draining", "longest", n.cfg.Shutdown.Drain)
	n.draining.Store(true)
	if err := r.stop(o.Cut, n.cfg.Shutdown.Drain, n.cfg.Shutdown.Cut); err != nil {
		return err
	}
	log.Info("shutdown complete")
	return nil
}

// leave makes the node unready and its answers to OPTIONS 503, but accepts calls and requests for shutdown.lameDuck:
// load balancers and peers need that long to notice. Closing cut ends the wait.
func (n *node) leave(cut <-chan struct{}) {
	n.leaving.Store(true)
	if e := n.calls.edge(); e != nil {
		e.Leave()
	}
	n.log.Info("shutting down; not ready, still accepting calls and requests", "for", n.cfg.Shutdown.LameDuck)
	select {
	case <-time.After(n.cfg.Shutdown.LameDuck):
	case <-cut:
	}
}

// announce waits until the process is ready, then logs that and calls tell, once.
func (n *node) announce(ctx context.Context, tell func(Ready)) {
	t := time.NewTicker(readyPoll)
	defer t.Stop()
	said := ""
	for {
		x := n.readiness("")
		if x.ready() {
			break
		}
		if why := fmt.Sprint(x.reasons); why != said {
			said = why
			n.log.Info("not ready yet", "reasons", x.reasons)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
	// Loading leaves garbage of several times the size of the index, which the runtime would keep for a long time.
	debug.FreeOSMemory()
	n.log.Info("ready", "after", time.Since(n.started).Round(time.Millisecond))
	if tell != nil {
		tell(n.at)
	}
}

// quietLogger returns the logger of commands: warnings and errors, unless the configuration asks for more.
func quietLogger(cfg *config.Loaded, to io.Writer) *slog.Logger {
	quiet := cfg.Log
	if quiet.Level == "info" {
		quiet.Level = "warn"
	}
	return newLogger(to, quiet)
}

// Offline serves the Unix socket in a data directory that no server uses, for one command: both APIs as a server would
// serve them, except operations that need a running node. It returns when the socket accepts connections; stop ends it
// and releases the directory.
func Offline(ctx context.Context, cfg *config.Loaded, version string, logTo io.Writer) (stop func(), err error) {
	n, err := build(ctx, cfg, version, quietLogger(cfg, logTo), command)
	if err != nil {
		return nil, err
	}
	run, err := openSocket(cfg.Path(SocketName), n.local(), n.log, n.http)
	if err != nil {
		n.close()
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var served sync.WaitGroup
	served.Go(func() { _ = run(ctx) }) // the command gets the error of its request
	return func() {
		cancel()
		served.Wait()
		n.close()
	}, nil
}
