package certificate_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/certificate"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/testkit"
)

// forgetful is a store that does not take the next certificates, as when the database fails at that moment.
type forgetful struct {
	certificate.Store
	fail *atomic.Int64 // that many
}

func (f forgetful) Save(ctx context.Context, run *flow.Run, name string, value []byte, a *certificate.Audit) error {
	if a != nil && f.fail.Add(-1) >= 0 {
		return errors.New("the database fails")
	}
	return f.Store.Save(ctx, run, name, value, a)
}

// A certificate that was obtained while the database failed reaches the other nodes, and none is ordered in its place.
func TestObtainedWhileTheDatabaseFails(t *testing.T) {
	t.Parallel()
	z := newZone(t)
	a := newAuthority(t, z)
	d, ring, fail := testkit.Open(t, testkit.SQLiteConfig(t)), keyring(t), new(atomic.Int64)
	n := start(t, d, z, a.roots, settings{cfg: config(a), ring: ring,
		through: func(s certificate.Store) certificate.Store { return forgetful{s, fail} }})
	n.run()
	for _, what := range []string{"the first one", "a renewal"} {
		orders := a.orderCount()
		if orders > 0 {
			a.renewNow(t, n.served())
			n.advance(7 * time.Hour)
		}
		fail.Store(1)
		n.work()
		end := time.Now().Add(patience)
		for ; n.one().Failed > 0 || n.one().Source != certificate.SourceACME; n.settle() {
			if time.Now().After(end) {
				t.Fatalf("%s: not stored: %+v", what, n.one())
			}
		}
		if got := a.orderCount() - orders; got != 1 {
			t.Errorf("%s: %d orders, want 1", what, got)
		}
		other := start(t, d, z, a.roots, settings{cfg: config(a), ring: ring})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- other.Run(ctx) }()
		for end := time.Now().Add(patience); other.served() == nil && time.Now().Before(end); {
			time.Sleep(20 * time.Millisecond)
		}
		cancel()
		<-ended // always nil
		if got := other.served(); got == nil || !got.Equal(n.served()) {
			t.Errorf("%s: another node serves %v, want the one that was obtained", what, got)
		}
	}
}

// Without the keyring, nothing that the nodes share can be read any more. What is served stays; where there is nothing,
// orders begin again after a time, because nobody knows what the authority has refused.
func TestKeyringLost(t *testing.T) {
	t.Parallel()
	z := newZone(t)
	a := newAuthority(t, z)
	d := testkit.Open(t, testkit.SQLiteConfig(t))
	n := start(t, d, z, a.roots, settings{cfg: config(a), ring: keyring(t)})
	n.run()
	n.work()
	n.stop()
	if n.served() == nil {
		t.Fatal(n.one())
	}

	n = start(t, d, z, a.roots, settings{cfg: config(a), ring: keyring(t)})
	n.run()
	n.work()
	if n.served() != nil || a.orderCount() != 1 || n.log.count("cannot be decrypted with this node's keyring") != 2 {
		t.Errorf("with another keyring: %+v, %d orders", n.one(), a.orderCount())
	}
	n.advance(21 * time.Minute)
	n.work()
	if s := n.one(); n.served() == nil || s.Failed != 0 || a.orderCount() != 2 {
		t.Errorf("21 minutes later: %+v, %d orders; want another certificate", s, a.orderCount())
	}
}
