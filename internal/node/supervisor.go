package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	api "github.com/tandemgw/tandem/api/manage"
)

// A restart waits firstBackoff after the first failure, twice as long after each further one up to maxBackoff, and a
// random fifth more or less so that nodes do not restart in step. A part that ran for steadyAfter begins again with
// firstBackoff.
const (
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = 30 * time.Second
	steadyAfter  = time.Minute
)

// part is one long-running piece of the process.
//
//	        open fails at start: the process ends
//	       ┌────────────────────────────────────▶ (end)
//	(start)┤                  run returns, panics
//	       └▶ open ─▶ running ─────────────────────▶ waiting ─▶ open ─▶ running …
//	                     │ drain, then cancel            ▲  fails │
//	                     ▼                               └────────┘
//	                   (end)
type part struct {
	name string
	// open acquires what the part needs to run (a port, a file) and returns the function that runs it until its
	// context ends and then releases everything.
	open func(ctx context.Context) (run func(context.Context) error, err error)
	// drain, if set, stops the part from accepting new work and returns when its current work is done or ctx has ended.
	// The part keeps running.
	drain func(ctx context.Context) error
	// needed is set if the role of the part is not ready while the part does not run.
	needed bool
}

// running returns a part that needs nothing to run.
func running(name string, run func(context.Context) error) part {
	return part{name: name, open: func(context.Context) (func(context.Context) error, error) { return run, nil }}
}

// supervisor runs parts concurrently. An error while they are opened for the first time is returned; afterwards each is
// restarted on its own.
type supervisor struct {
	log      *slog.Logger
	parts    []part
	up       *prometheus.GaugeVec
	restarts *prometheus.CounterVec

	mu     sync.Mutex
	states []api.Part // guarded by mu
}

func newSupervisor(log *slog.Logger, reg prometheus.Registerer, parts ...part) *supervisor {
	s := &supervisor{
		log: log, parts: parts, states: make([]api.Part, len(parts)),
		up: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tandem_part_up",
			Help: "1 while the part of the process is running, 0 while it waits for a restart."}, []string{"part"}),
		restarts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tandem_part_restarts_total",
			Help: "Restarts of the part of the process after a failure."}, []string{"part"}),
	}
	for i, p := range parts {
		s.states[i] = api.Part{Name: p.name, Since: time.Now().UTC()}
		s.up.WithLabelValues(p.name).Set(0)
		s.restarts.WithLabelValues(p.name)
	}
	reg.MustRegister(s.up, s.restarts)
	return s
}

// state returns the state of each part, in their order.
func (s *supervisor) state() []api.Part {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.states)
}

func (s *supervisor) set(i int, running bool, why error) {
	s.mu.Lock()
	st := &s.states[i]
	st.Running, st.Since, st.Error = running, time.Now().UTC(), ""
	if why != nil {
		st.Error = why.Error()
	}
	s.mu.Unlock()
	v := 0.0
	if running {
		v = 1
	}
	s.up.WithLabelValues(s.parts[i].name).Set(v)
}

// runningParts is a set of parts that were opened and started, in their order.
type runningParts struct {
	s     *supervisor
	parts []started
}

type started struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when the part has ended
}

// end cancels the parts in reverse order, each when the ones that may need it have ended; when limit fires it cancels
// the rest at once. It reports whether all have ended by then.
func (r *runningParts) end(limit <-chan time.Time) bool {
	late := false
	for _, p := range slices.Backward(r.parts) {
		p.cancel()
		if late {
			continue
		}
		select {
		case <-p.done:
		case <-limit:
			late = true
		}
	}
	for _, p := range r.parts {
		select {
		case <-p.done:
		default: // it was not waited for
			return false
		}
	}
	return true
}

// start opens every part in order and runs them. If one cannot be opened, it stops those before it and returns an error
// that names it. The parts' context is not ctx: they run until stop.
func (s *supervisor) start(ctx context.Context) (*runningParts, error) {
	r := &runningParts{s: s}
	for i, p := range s.parts {
		run, err := s.open(ctx, i)
		if err != nil {
			r.end(nil)
			return nil, fmt.Errorf("start %s: %w", p.name, err)
		}
		s.set(i, true, nil)
		inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
		done := make(chan struct{})
		r.parts = append(r.parts, started{cancel, done})
		go func() {
			defer close(done)
			s.keep(inner, i, run)
		}()
	}
	return r, nil
}

func (s *supervisor) open(ctx context.Context, i int) (run func(context.Context) error, err error) {
	err = s.protect(ctx, i, func(ctx context.Context) (err error) {
		run, err = s.parts[i].open(ctx)
		return err
	})
	return run, err
}

// protect calls do and turns a panic into an error.
func (s *supervisor) protect(ctx context.Context, i int, do func(context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("part panicked", "part", s.parts[i].name, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return do(ctx)
}

// keep runs one part and restarts it whenever it ends before ctx does.
func (s *supervisor) keep(ctx context.Context, i int, run func(context.Context) error) {
	name := s.parts[i].name
	wait := firstBackoff
	for {
		began := time.Now()
		err := s.protect(ctx, i, run)
		if ctx.Err() != nil {
			if err != nil && !errors.Is(err, context.Canceled) {
				s.log.Warn("part stopped with an error", "part", name, "error", err)
			}
			s.set(i, false, nil)
			return
		}
		if err == nil {
			err = errors.New("exited unexpectedly")
		}
		if time.Since(began) >= steadyAfter {
			wait = firstBackoff
		}
		for {
			pause := time.Duration(float64(wait) * (0.8 + 0.4*rand.Float64()))
			s.log.Error("part failed; restarting", "part", name, "error", err, "in", pause.Round(time.Millisecond))
			s.set(i, false, err)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return
			}
			wait = min(2*wait, maxBackoff)
			s.restarts.WithLabelValues(name).Inc()
			s.mu.Lock()
			s.states[i].Restarts++
			s.mu.Unlock()
			if run, err = s.open(ctx, i); err == nil {
				break
			}
		}
		s.set(i, true, nil)
		s.log.Info("part restarted", "part", name)
	}
}

// stop ends the parts in two stages. First it drains every part that can be drained, for at most drainFor, unless cut
// is closed; then it cancels them, the last one started first, and waits for at most cutFor. It returns an error if a
// part did not end in time.
func (r *runningParts) stop(cut <-chan struct{}, drainFor, cutFor time.Duration) error {
	drainCtx, cancelDrain := context.WithTimeout(context.Background(), drainFor)
	defer cancelDrain()
	drained := make(chan struct{})
	go func() {
		var wg sync.WaitGroup
		for _, p := range r.s.parts {
			if p.drain == nil {
				continue
			}
			wg.Go(func() {
				if err := p.drain(drainCtx); err != nil {
					r.s.log.Warn("part stopped before it had drained", "part", p.name, "error", err)
				}
			})
		}
		wg.Wait()
		close(drained)
	}()
	select {
	case <-drained:
	case <-cut:
		cancelDrain()
		<-drained
	}
	limit := time.NewTimer(cutFor)
	defer limit.Stop()
	if r.end(limit.C) {
		return nil
	}
	var late []string
	for _, st := range r.s.state() {
		if st.Running {
			late = append(late, st.Name)
		}
	}
	return fmt.Errorf("parts did not stop within %v: %v", cutFor, late)
}
