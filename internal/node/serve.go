package node

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/manage"
)

// Options says how a process is run.
type Options struct {
	Config  *config.Loaded
	Version string
	Log     *Output // where log lines go; the caller closes it
	// Lab seeds sample data if there is none at all.
	Lab bool
	// Ready is called once, when the process can do its work.
	Ready func(Ready)
	// Reload gets a value when the configuration is to be read again. Nil never does.
	Reload <-chan os.Signal
	// Cut is closed when draining is to end at once. Nil is never.
	Cut <-chan struct{}
}

// Ready says where a process is reached. Empty is not served.
type Ready struct {
	Ready        bool   `json:"ready"`
	Provisioning string `json:"provisioning"` // URL
	Management   string `json:"management"`   // URL
	Metrics      string `json:"metrics"`      // URL
	SIP          SIP    `json:"sip"`
}

// SIP holds, for each transport, the address of the first peer group that uses it.
type SIP struct {
	UDP string `json:"udp"`
	TCP string `json:"tcp"`
	TLS string `json:"tls"`
}

// readyPoll is how often a starting process looks whether it has become ready.
const readyPoll = 20 * time.Millisecond

// Serve runs a process until ctx ends, then drains and stops it. An error before it runs is one of configuration or of
// this machine; waiting does not mend it.
func Serve(ctx context.Context, o Options) error {
	log := newLogger(o.Log, o.Config.Log)
	o.Log.form.Store(&o.Config.Log)
	n, err := build(ctx, o.Config, o.Version, log)
	if err != nil {
		return err
	}
	defer n.close()
	n.metrics.process.MustRegister(o.Log.dropped)
	if o.Lab {
		if err := seedLab(ctx, n.core.directory, log); err != nil {
			return fmt.Errorf("seed the lab: %w", err)
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
	log.Info("ended")
	return nil
}

// leave makes the node unready and its answers to OPTIONS 503, and takes calls and requests for shutdown.lameDuck all
// the same: load balancers and peers need that long to notice. Cut ends the wait.
func (n *node) leave(cut <-chan struct{}) {
	n.leaving.Store(true)
	if e := n.edge.Load(); e != nil {
		e.Leave()
	}
	n.log.Info("shutting down; not ready, calls and requests are still taken", "for", n.cfg.Shutdown.LameDuck)
	select {
	case <-time.After(n.cfg.Shutdown.LameDuck):
	case <-cut:
	}
}

// announce waits until the process can do its work and then says so, once.
func (n *node) announce(ctx context.Context, tell func(Ready)) {
	t := time.NewTicker(readyPoll)
	defer t.Stop()
	said := ""
	for {
		x := n.readiness("")
		if x.ready {
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
	// Loading leaves several times the index as garbage, which the runtime would keep for long.
	debug.FreeOSMemory()
	n.log.Info("ready", "after", time.Since(n.started).Round(time.Millisecond))
	if tell != nil {
		tell(n.ready())
	}
}

func (n *node) ready() Ready {
	r := Ready{Ready: true}
	if h := n.provisioningHTTP; h != nil {
		r.Provisioning = h.url()
	}
	if h := n.manageHTTP; h != nil {
		r.Management = h.url()
	}
	if h := n.metricsHTTP; h != nil {
		r.Metrics = h.url() + "/metrics"
	}
	for _, l := range n.listening {
		switch a := l.Address.String(); {
		case l.Transport == "udp" && r.SIP.UDP == "":
			r.SIP.UDP = a
		case l.Transport == "tcp" && r.SIP.TCP == "":
			r.SIP.TCP = a
		case l.Transport == "tls" && r.SIP.TLS == "":
			r.SIP.TLS = a
		}
	}
	return r
}

// quietLogger is the logger of commands: warnings and errors, unless more was asked for.
func quietLogger(cfg *config.Loaded, to io.Writer) *slog.Logger {
	quiet := cfg.Log
	if quiet.Level == "info" {
		quiet.Level = "warn"
	}
	return newLogger(to, quiet)
}

// Offline opens a data directory that no server uses, for one command, and returns both APIs as the Unix socket would
// serve them, but for what only a running node can answer. Close gives the directory back.
func Offline(ctx context.Context, cfg *config.Loaded, version string, logTo io.Writer) (http.Handler, func(), error) {
	log := quietLogger(cfg, logTo)
	c, err := openCore(ctx, cfg, false, log, prometheus.NewRegistry())
	if err != nil {
		return nil, nil, err
	}
	n := &node{version: version, cfg: cfg, log: log, metrics: newRegistries(), core: c, started: time.Now()}
	if err := n.buildProvisioning(); err != nil {
		c.close()
		return nil, nil, err
	}
	m := manage.New(manage.Jobs{
		Clients: c.listClients, NewClient: c.newClient, Revoke: c.clients.Revoke, NewToken: c.newToken, VerifyAudit: c.verifyAudit,
	}, log, n.metrics.process)
	mux := http.NewServeMux()
	mux.Handle("/manage/", m.Local(localActor))
	mux.Handle("/", n.trustedProvisioning)
	me := localUser(uint32(os.Getuid()))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), localUserKey{}, me)))
	}), c.close, nil
}
