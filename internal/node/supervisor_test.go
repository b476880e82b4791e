package node

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func untilCancelled(ctx context.Context) error { <-ctx.Done(); return nil }

func opened(run func(context.Context) error) func(context.Context) (func(context.Context) error, error) {
	return func(context.Context) (func(context.Context) error, error) { return run, nil }
}

func TestErrorAtStartEndsWhatHadStarted(t *testing.T) {
	t.Parallel()
	var ended atomic.Bool
	s := newSupervisor(quiet(), prometheus.NewRegistry(),
		part{name: "first",
			open: opened(func(ctx context.Context) error { <-ctx.Done(); ended.Store(true); return nil })},
		part{name: "second", open: func(context.Context) (func(context.Context) error, error) {
			return nil, errors.New("port taken")
		}},
		part{name: "third", open: func(context.Context) (func(context.Context) error, error) {
			t.Error("a part after the one that failed was opened")
			return nil, nil
		}})
	_, err := s.start(t.Context())
	if err == nil || err.Error() != "start second: port taken" {
		t.Errorf("start: %v", err)
	}
	if !ended.Load() {
		t.Error("the first part still runs")
	}
}

func TestFailedPartIsRestartedAloneWithGrowingPauses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var starts []time.Time
		opens := 0
		s := newSupervisor(quiet(), prometheus.NewRegistry(),
			part{name: "steady", open: opened(untilCancelled)},
			part{name: "flaky", open: func(context.Context) (func(context.Context) error, error) {
				opens++
				if opens == 3 {
					return nil, errors.New("cannot open") // counts as one more failure
				}
				return func(ctx context.Context) error {
					starts = append(starts, time.Now())
					switch len(starts) {
					case 1:
						return errors.New("broken")
					case 2:
						panic("worse")
					case 3:
						return nil // a failure too
					case 4:
						time.Sleep(steadyAfter)
						return errors.New("after a steady run")
					}
					<-ctx.Done()
					return nil
				}, nil
			}})
		r, err := s.start(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		st := s.state()
		if !st[0].Running || st[0].Restarts != 0 {
			t.Errorf("the steady part was affected: %+v", st[0])
		}
		if !st[1].Running || st[1].Restarts != 5 || len(starts) != 5 {
			t.Fatalf("flaky part: %+v, %d starts", st[1], len(starts))
		}
		within := func(i int, base time.Duration, extra time.Duration) {
			got := starts[i].Sub(starts[i-1]) - extra
			if got < base*8/10 || got > base*12/10 {
				t.Errorf("start %d was %v after the previous one, want about %v", i+1, got, base)
			}
		}
		within(1, firstBackoff, 0)
		if got := starts[2].Sub(starts[1]); got < (2+4)*firstBackoff*8/10 || got > (2+4)*firstBackoff*12/10 {
			t.Errorf("two failures in a row paused %v", got)
		}
		within(3, 8*firstBackoff, 0)
		within(4, firstBackoff, steadyAfter)
		if err := r.stop(nil, time.Second, time.Second); err != nil {
			t.Error(err)
		}
	})
}

func TestStopDrainsThenCuts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var order []string
		s := newSupervisor(quiet(), prometheus.NewRegistry(),
			part{name: "calls",
				open: opened(func(ctx context.Context) error {
					<-ctx.Done()
					order = append(order, "cut")
					return nil
				}),
				drain: func(context.Context) error {
					time.Sleep(3 * time.Second)
					order = append(order, "drained")
					return nil
				}})
		r, err := s.start(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := r.stop(nil, 10*time.Second, time.Second); err != nil {
			t.Error(err)
		}
		if got := strings.Join(order, " "); got != "drained cut" || time.Since(began) != 3*time.Second {
			t.Errorf("stop: %s after %v", got, time.Since(began))
		}
	})
}

func TestPartsEndInTheReverseOfTheirStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var order []string
		ender := func(name string, after time.Duration) part {
			return part{name: name, open: opened(func(ctx context.Context) error {
				<-ctx.Done()
				time.Sleep(after)
				order = append(order, name)
				return nil
			})}
		}
		s := newSupervisor(quiet(), prometheus.NewRegistry(), ender("database", 0), ender("records", 0),
			ender("edge", time.Second))
		r, err := s.start(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := r.stop(nil, time.Second, 10*time.Second); err != nil {
			t.Error(err)
		}
		if got := strings.Join(order, " "); got != "edge records database" {
			t.Errorf("ended in the order %s", got)
		}
	})
}

func TestSecondRequestCutsTheDrain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSupervisor(quiet(), prometheus.NewRegistry(),
			part{name: "calls", open: opened(untilCancelled),
				drain: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }})
		r, err := s.start(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		cut := make(chan struct{})
		time.AfterFunc(2*time.Second, func() { close(cut) })
		began := time.Now()
		if err := r.stop(cut, time.Hour, time.Second); err != nil {
			t.Error(err)
		}
		if time.Since(began) != 2*time.Second {
			t.Errorf("stop took %v", time.Since(began))
		}
	})
}

func TestPartThatDoesNotEndIsNamed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := newSupervisor(quiet(), prometheus.NewRegistry(),
			part{name: "good", open: opened(untilCancelled)},
			part{name: "stuck", open: opened(func(context.Context) error { <-release; return nil })})
		r, err := s.start(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		err = r.stop(nil, time.Second, time.Second)
		if err == nil || !strings.Contains(err.Error(), "stuck") {
			t.Errorf("stop: %v", err)
		}
		synctest.Wait()
		if s.state()[0].Running {
			t.Error("a part was left running because another did not end")
		}
		close(release)
		synctest.Wait()
	})
}
