package flowtest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/tandemgw/tandem/internal/platform/db"
	"github.com/tandemgw/tandem/internal/platform/flow"
)

// Mortal is a database as one process sees it, which may be killed or cut off.
type Mortal struct {
	flow.Database
	// Reached is called at every point at which the process can be killed: before, inside and after each transaction,
	// and wherever a reconciliation calls At. It may call Kill. Inside a transaction it must not use the database.
	Reached func(point string)

	dead atomic.Bool
	gone chan struct{} // closed when Bury is called
	mu   sync.Mutex
	cut  chan struct{} // closed when the network works again; nil while it does; guarded by mu
}

var _ flow.Database = (*Mortal)(nil)

var errDead = errors.New("flowtest: the process was killed")

// NewMortal returns d as a process sees it that has just started.
func NewMortal(d flow.Database) *Mortal { return &Mortal{Database: d, gone: make(chan struct{})} }

// Kill ends the process: from now on nothing it does has an effect. A transaction in progress is rolled back.
func (m *Mortal) Kill() { m.dead.Store(true) }

// Killed reports whether the process was killed.
func (m *Mortal) Killed() bool { return m.dead.Load() }

// Bury lets the goroutines of a killed process end.
func (m *Mortal) Bury() { close(m.gone) }

// Cut makes the database hang until the returned function is called.
func (m *Mortal) Cut() (restore func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	cut := make(chan struct{})
	m.cut = cut
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.cut = nil
		close(cut)
	}
}

// At is a point at which the process can be killed. It reports whether it lives.
func (m *Mortal) At(point string) bool {
	if !m.dead.Load() && m.Reached != nil {
		m.Reached(point)
	}
	return !m.dead.Load()
}

// View implements flow.Database.
func (m *Mortal) View(ctx context.Context, fn func(context.Context, *db.Tx) error) error {
	return m.run(ctx, "view", m.Database.View, fn)
}

// Update implements flow.Database.
func (m *Mortal) Update(ctx context.Context, fn func(context.Context, *db.Tx) error) error {
	return m.run(ctx, "update", m.Database.Update, fn)
}

func (m *Mortal) run(ctx context.Context, kind string,
	run func(context.Context, func(context.Context, *db.Tx) error) error,
	fn func(context.Context, *db.Tx) error) error {
	m.mu.Lock()
	cut := m.cut
	m.mu.Unlock()
	if cut != nil {
		select {
		case <-cut:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if !m.At("before " + kind) {
		<-m.gone
		return errDead
	}
	err := run(ctx, func(ctx context.Context, tx *db.Tx) error {
		if err := fn(ctx, tx); err != nil {
			return err
		}
		if !m.At("inside " + kind) {
			return errDead
		}
		return nil
	})
	if !m.At("after " + kind) {
		<-m.gone
		return errDead
	}
	return err
}
