package powershell

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/wire"
)

//go:embed worker.ps1
var script []byte

const protocol = 1

// oldest is the first version of the module that reports which policies apply to a user.
var oldest = [...]int{7, 1, 1}

// CodeWorker is the code of faults of PowerShell itself: it is missing, dies, or is busy.
const CodeWorker = "PowerShellUnavailable"

// Options are what a Worker needs besides its configuration.
type Options struct {
	Log     *slog.Logger
	Metrics prometheus.Registerer // may be nil
	// WrongTenant is called when a child for one tenant reached another; nothing was written. May be nil.
	WrongTenant func(tenant, reached string)
}

// Worker runs children, for any number of tenants. It is safe for concurrent use.
//
// Life cycle: New, Run, cancel Run's context. Commands of its Admins wait for Run.
type Worker struct {
	cfg        Config
	opt        Options
	checkEvery time.Duration // as the constant; tests change it

	children prometheus.Gauge
	started  *prometheus.CounterVec
	seconds  *prometheus.HistogramVec

	room    chan struct{} // holds an element for each child
	freed   chan struct{} // holds an element after a child has become idle
	begun   chan struct{} // closed when Run has begun
	dir     string        // with the script and the homes of children; set before begun is closed
	running sync.WaitGroup

	mu      sync.Mutex    // guards what follows
	stopped chan struct{} // closed when Run's context has ended; no child starts from then on
	slots   map[string]*slot
}

// slot is the place of a tenant's child. Whoever has its turn uses the other fields.
type slot struct {
	tenant   string
	turn     chan struct{} // holds an element while nobody has the turn
	child    *child
	used     time.Time
	failures int       // in a row
	retry    time.Time // not before
}

// New returns a worker with a valid configuration.
func New(cfg Config, opt Options) *Worker {
	with := promauto.With(opt.Metrics)
	return &Worker{cfg: cfg, opt: opt, checkEvery: checkEvery, room: make(chan struct{}, cfg.MaxChildren),
		freed: make(chan struct{}, 1), begun: make(chan struct{}), stopped: make(chan struct{}),
		slots: map[string]*slot{},
		children: with.NewGauge(prometheus.GaugeOpts{Name: "tandem_tenant_powershell_children",
			Help: "PowerShell processes that run for tenants."}),
		started: with.NewCounterVec(prometheus.CounterOpts{Name: "tandem_tenant_powershell_starts_total",
			Help: "Starts of PowerShell, by outcome (ok, failed). Each tenant has its own process."},
			[]string{"outcome"}),
		seconds: with.NewHistogramVec(prometheus.HistogramOpts{Name: "tandem_tenant_powershell_command_seconds",
			Help:    "Duration of commands of the MicrosoftTeams module, by outcome (ok, refused, lost).",
			Buckets: prometheus.ExponentialBuckets(0.1, 2, 12)}, []string{"outcome"})}
}

// Run stops idle children until ctx ends, and then all, also those with a command.
func (w *Worker) Run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "tandem-powershell-")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "worker.ps1"), script, 0o600)
	}
	if err != nil {
		return fault.Wrap(err, "write the PowerShell script")
	}
	defer func() { _ = os.RemoveAll(dir) }() // a temporary directory
	w.dir = dir
	close(w.begun)
	for wire.Sleep(ctx, w.cfg.IdleTimeout/4) == nil {
		for w.stopIdle(w.cfg.IdleTimeout) {
		}
	}
	w.mu.Lock()
	close(w.stopped)
	w.mu.Unlock()
	w.running.Wait()
	return nil
}

// stopIdle stops the child that was used least recently, if it was not used for idle and has no command. It reports
// whether there was one.
func (w *Worker) stopIdle(idle time.Duration) bool {
	w.mu.Lock()
	var found *slot // whose turn is taken
	for _, s := range w.slots {
		select {
		case <-s.turn:
		default:
			continue
		}
		if s.child != nil && time.Since(s.used) >= idle && (found == nil || s.used.Before(found.used)) {
			s, found = found, s
		}
		if s != nil {
			s.turn <- struct{}{}
		}
	}
	w.mu.Unlock()
	if found == nil {
		return false
	}
	found.child.kill()
	found.child = nil
	found.turn <- struct{}{}
	return true
}

// acquire waits for the turn of a tenant and returns its slot with a child, which it starts if there is none.
func (w *Worker) acquire(ctx context.Context, tenant string) (*slot, error) {
	w.mu.Lock()
	s := w.slots[tenant]
	if s == nil {
		s = &slot{tenant: tenant, turn: make(chan struct{}, 1)}
		s.turn <- struct{}{}
		w.slots[tenant] = s
	}
	w.mu.Unlock()
	for _, wait := range []chan struct{}{w.begun, s.turn} {
		select {
		case <-wait:
			continue // also if ctx is done: start says why there is no child
		default:
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, busy("other commands for this tenant", ctx.Err())
		}
	}

	var err error
	if s.child != nil {
		select {
		case <-s.child.ended:
			s.child = nil
		default:
		}
	}
	if s.child == nil {
		if s.child, err = w.start(ctx, s); err != nil {
			w.release(s)
		}
	}
	return s, err
}

func busy(with string, cause error) error {
	return fault.New(fault.Unavailable, CodeWorker, "the PowerShell worker is busy with %s; retry", with).
		After(time.Minute).Because(cause)
}

// release gives the turn back.
func (w *Worker) release(s *slot) {
	s.used = time.Now()
	s.turn <- struct{}{}
	select {
	case w.freed <- struct{}{}:
	default:
	}
}

// broke notes that a child, or its start, failed: the next start waits 1 s to 1 minute.
func (s *slot) broke() {
	wait := min(time.Second<<min(s.failures, 6), time.Minute)
	s.failures++
	s.retry = time.Now().Add(time.Duration((0.5 + rand.Float64()/2) * float64(wait)))
}

// start starts a child for a slot, after the back-off of its failures.
func (w *Worker) start(ctx context.Context, s *slot) (*child, error) {
	if wait := time.Until(s.retry); !wire.InTime(ctx, wait) || wire.Sleep(ctx, wait) != nil {
		return nil, fault.New(fault.Unavailable, CodeWorker, "PowerShell failed %d times in a row; see the log, then "+
			"retry", s.failures).After(wait)
	}
	for roomy := false; !roomy; {
		select {
		case w.room <- struct{}{}:
			roomy = true
			continue
		default:
		}
		w.stopIdle(0)
		select {
		case w.room <- struct{}{}:
			roomy = true
		case <-w.freed:
		case <-ctx.Done():
			return nil, busy("other tenants (maxChildren)", ctx.Err())
		}
	}

	log := w.opt.Log.With("tenant", s.tenant)
	c, err := w.spawn(log)
	if err == nil {
		if err = w.greet(ctx, c); err == nil {
			w.started.WithLabelValues("ok").Inc()
			return c, nil
		}
		c.kill()
	}
	if ctx.Err() == nil {
		s.broke()
	}
	w.started.WithLabelValues("failed").Inc()
	log.Warn("PowerShell cannot be used", "error", err)
	return nil, fault.New(fault.Unavailable, CodeWorker, "PowerShell, or its MicrosoftTeams module, cannot be used on "+
		"this node: %s", hint(err)).After(time.Until(s.retry)).Because(err)
}

// spawn starts a process, for which there is room, and gives the room back when it has ended.
func (w *Worker) spawn(log *slog.Logger) (*child, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.stopped:
		<-w.room
		return nil, errors.New("the worker has stopped")
	default:
	}
	home, err := os.MkdirTemp(w.dir, "home-")
	var c *child
	if err == nil {
		c, err = spawn(w.cfg.Command, filepath.Join(w.dir, "worker.ps1"), home, log)
	}
	if err != nil {
		<-w.room
		return nil, err
	}
	w.children.Inc()
	w.running.Go(func() {
		select {
		case <-c.ended:
		case <-w.stopped:
			c.kill()
		}
		_ = os.RemoveAll(home) // in a temporary directory
		w.children.Dec()
		<-w.room
	})
	return c, nil
}

// errOld is the cause of a fault when the module is too old.
var errOld = errors.New("the module is too old")

// greet has a child load the module, and checks versions.
func (w *Worker) greet(ctx context.Context, c *child) error {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.StartTimeout)
	defer cancel()
	_, a, err := c.call(ctx, request{Protocol: protocol, Module: w.cfg.Module})
	if err == nil && a.Protocol != protocol {
		err = fmt.Errorf("the script speaks protocol %d, not %d", a.Protocol, protocol)
	}
	if err != nil {
		return err
	}
	for i, part := range strings.SplitN(a.Version, ".", len(oldest)) {
		n, err := strconv.Atoi(part)
		if err != nil || n < oldest[i] {
			return fmt.Errorf("version %q: %w", wire.Clip(a.Version, 30), errOld)
		} else if n > oldest[i] {
			break
		}
	}
	c.log.Info("PowerShell started", "module", a.Version, "pid", c.cmd.Process.Pid)
	return nil
}

// hint says what to do about a failed start.
func hint(err error) string {
	e, reported := errors.AsType[*cmdletError](err)
	switch {
	case errors.Is(err, errOld):
		return fmt.Sprintf("update the module to %d.%d.%d or later", oldest[0], oldest[1], oldest[2])
	case errors.Is(err, os.ErrNotExist) || errors.Is(err, exec.ErrNotFound):
		return "install PowerShell 7, or set its path"
	case reported && strings.Contains(e.Code, "ModuleNotFound"):
		return "install the module for all users, or set its path"
	}
	return "see the log"
}
