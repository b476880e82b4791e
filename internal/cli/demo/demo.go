package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"

	"github.com/tandemgw/tandem/internal/sim/fixtures"
	"github.com/tandemgw/tandem/internal/sim/lab"
)

// Options configures Run.
type Options struct {
	Once   bool
	JSON   bool
	Data   string // data directory to use and keep; a temporary one if empty
	Stdout io.Writer
}

// Document is the output of --output json.
type Document struct {
	Calls  []lab.Result `json:"calls"`
	Stages []Stage      `json:"stages"` // what is not a call
	Passed int          `json:"passed"` // calls and stages
	Failed int          `json:"failed"`
}

// count counts a result.
func (d *Document) count(passed bool) {
	if passed {
		d.Passed++
	} else {
		d.Failed++
	}
}

// Run runs the demonstration. It returns an error if a call or a stage failed, or the demonstration could not be run.
func Run(ctx context.Context, o Options) error {
	world, calls, err := fixtures.Load()
	if err != nil {
		return err
	}
	executable, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the program to start: %w", err)
	}
	dir := o.Data
	if dir == "" {
		if dir, err = os.MkdirTemp("", "tandem-demo-"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	} else if dir, err = filepath.Abs(dir); err != nil {
		return err
	} else if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	v := &view{out: io.Discard, dir: dir}
	if !o.JSON {
		v.out = o.Stdout
	}
	v.heading()

	l, p, err := Start(ctx, dir, executable, world, lab.Options{Microsoft: true})
	if err != nil {
		return err
	}
	defer func() {
		_ = p.Stop() // the result is printed already
		_ = l.Close()
	}()
	v.started(p)
	arrived, stop := iter.Pull2(p.Manage.Events(ctx, ""))
	defer stop()
	event, err, _ := arrived() // the beginning of the stream
	if err != nil {
		return fmt.Errorf("follow events: %w", err)
	}
	n, err := p.Provision(ctx, world, func(c fixtures.Customer) bool { return c.Demo })
	if err != nil {
		return fmt.Errorf("provision: %w", err)
	}
	for event.Kind != "account.put" {
		if event, err, _ = arrived(); err != nil {
			return fmt.Errorf("follow events: %w", err)
		}
	}
	if err := p.WaitReady(ctx, l); err != nil {
		return err
	}
	v.provisioned(n, event)

	stage := names(ctx, l, p)
	v.stage(stage)
	doc := Document{Calls: []lab.Result{}, Stages: []Stage{stage}}
	doc.count(stage.Passed)
	v.calls()
	for _, c := range calls {
		if !c.Demo {
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r := l.Play(ctx, c)
		v.call(r)
		doc.Calls = append(doc.Calls, r)
		doc.count(r.Passed)
	}
	if len(doc.Calls) == 0 {
		return errors.New("no calls to place")
	}
	if stage.Passed { // tenants are proven by names in DNS
		v.tenants()
		for _, s := range tenants(ctx, l, p, v) {
			doc.Stages = append(doc.Stages, s)
			doc.count(s.Passed)
		}
	}
	if o.JSON {
		e := json.NewEncoder(o.Stdout)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		if err := e.Encode(doc); err != nil {
			return err
		}
	}
	v.summary(doc)
	if !o.Once {
		v.hints(p)
		select {
		case <-ctx.Done():
		case <-p.Exited():
			return fmt.Errorf("tandem exited unexpectedly; its log:\n%s", p.tail(20))
		}
	}
	if doc.Failed > 0 {
		return fmt.Errorf("%d of %d calls and stages failed: results differ from the published pages", doc.Failed,
			doc.Passed+doc.Failed)
	}
	return nil
}

// Start starts the neighbours and a Tandem between them, with the settings in set ("path=value"). The caller must stop
// both.
func Start(ctx context.Context, dir, executable string, w *fixtures.World,
	lo lab.Options, set ...string) (*lab.Lab, *Product, error) {
	var last error
	for range 3 { // another process may have taken a port since it was found free
		g, err := lab.Free(w.BaseDomain)
		if err != nil {
			return nil, nil, err
		}
		l, err := lab.Start(w, g, lo)
		if err != nil {
			return nil, nil, err
		}
		config, err := WriteConfig(dir, l, true)
		if err != nil {
			return nil, nil, errors.Join(err, l.Close())
		}
		p, err := StartProduct(ctx, executable, config, dir, set...)
		if err == nil {
			return l, p, nil
		}
		last = errors.Join(err, l.Close())
		if ctx.Err() != nil || !bindError(err) {
			break
		}
	}
	return nil, nil, last
}

// WaitReady waits until the edge routes the demonstration's customers and the services accept calls.
func (p *Product) WaitReady(ctx context.Context, l *lab.Lab) error {
	for _, c := range l.World.Customers {
		if !c.Demo {
			continue
		}
		for _, b := range c.Numbers {
			if b.Known {
				continue
			}
			peer := "core-fixed"
			if b.Service == "teamsPhoneMobile" {
				peer = "core-mobile"
			}
			n := b.List()
			if err := p.WaitRouted(ctx, peer, n[len(n)-1], b.Service); err != nil {
				return err
			}
		}
	}
	return WaitKnown(ctx, l)
}
