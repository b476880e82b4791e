package node

import (
	"context"
	"errors"
	"os"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/config/strict"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
)

// reloads is the state of reloading the configuration.
type reloads struct {
	ok, at prometheus.Gauge

	mu   sync.Mutex     // one reload at a time; guards live
	live *config.Loaded // the configuration at the start, with the changes that reloads have applied since
}

func (r *reloads) init(cfg *config.Loaded, reg prometheus.Registerer) {
	r.live = cfg
	r.ok = prometheus.NewGauge(prometheus.GaugeOpts{Name: "tandem_config_last_reload_successful",
		Help: "1 if the configuration was valid when it was last read, at the start or a reload; 0 while the " +
			"previous one is in use."})
	r.at = prometheus.NewGauge(prometheus.GaugeOpts{Name: "tandem_config_last_reload_success_timestamp_seconds",
		Help: "When a valid configuration was last read, in Unix time."})
	r.ok.Set(1)
	r.at.SetToCurrentTime()
	reg.MustRegister(r.ok, r.at)
}

// reloadOn reloads the configuration at each signal, in the background, until the function it returns is called.
func (n *node) reloadOn(signals <-chan os.Signal) (stop func()) {
	ctx, cancel := context.WithCancel(domain.WithActor(context.Background(),
		domain.Actor{Kind: "system", ID: "SIGHUP"}))
	var loop sync.WaitGroup
	loop.Go(func() {
		for {
			select {
			case <-signals:
				_, _ = n.Reload(ctx, api.ReloadRequestObject{}) // the result was logged
			case <-ctx.Done():
				return
			}
		}
	})
	return func() { cancel(); loop.Wait() }
}

// Reload reads the configuration again and applies the settings that can change while the process runs. With any
// mistake it changes nothing. SIGHUP and the operation reload of the management API share it.
func (n *node) Reload(ctx context.Context, _ api.ReloadRequestObject) (api.ReloadResponseObject, error) {
	n.reloads.mu.Lock()
	defer n.reloads.mu.Unlock()
	changes, err := n.apply()
	if err != nil {
		n.reloads.ok.Set(0)
		f := fault.New(fault.Invalid, "InvalidConfiguration", "the configuration has mistakes; nothing was changed")
		problems, ok := errors.AsType[strict.Problems](err)
		if !ok {
			problems = strict.Problems{{Source: "reload", Message: err.Error()}}
		}
		for _, p := range problems {
			n.log.Error("configuration not reloaded; the previous one stays in use", "problem", p.String())
			path := p.Path
			p.Path = "" // the target has it
			f.With(*fault.New(fault.Invalid, "InvalidConfiguration", "%s", p.String()).At(path))
		}
		return nil, f
	}
	n.reloads.ok.Set(1)
	n.reloads.at.SetToCurrentTime()
	out := api.Reload200JSONResponse{Applied: append([]string{}, changes.Applied...),
		Restart: append([]string{}, changes.Restart...)}
	n.log.Info("configuration reloaded", "applied", out.Applied, "needs_restart", out.Restart)
	n.logWarnings(n.reloads.live)
	n.auditDone(ctx, "config.reload", "configuration", len(out.Applied), out)
	return out, nil
}

// apply applies the settings that can change while the process runs. Every step that can fail precedes the first
// change.
func (n *node) apply() (config.Changes, error) {
	live, changes, err := n.reloads.live.Reload()
	if err != nil {
		return changes, err
	}
	commits := []func(){func() { n.reloads.live = live }}
	for _, r := range n.roles {
		if r.reload == nil {
			continue
		}
		commit, err := r.reload(live)
		if err != nil {
			return changes, err
		}
		commits = append(commits, commit)
	}

	// From here on nothing fails.
	for _, commit := range commits {
		commit()
	}
	if h, ok := n.log.Handler().(leveled); ok {
		h.set(live.Log)
	}
	return changes, nil
}
