//go:build deep

package static

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tandemgw/tandem/client"
	"github.com/tandemgw/tandem/internal/testkit"
)

// writer changes numbers in a known order, as a BSS does: it retries a refused write until it is acknowledged, so that
// at the end it knows the expected state of every number.
type writer struct {
	c       *client.Client
	want    map[string]route // what was acknowledged last; the zero route: deleted
	mu      sync.Mutex       // guards the fields below
	acked   int
	refused int
	slowest time.Duration // of the refused
	odd     []string      // wrong responses
}

// run writes until stop is closed: single numbers with every kind of change, and batches. It ends after an
// acknowledgement.
func (w *writer) run(ctx context.Context, stop <-chan struct{}) {
	random := rand.New(rand.NewPCG(1, 2))
	kinds := []service{dr, oc, zoom}
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-ctx.Done():
			return
		default:
		}
		n := nth([]int64{firstDR, firstOC, firstZoom}[random.IntN(3)], random.IntN(perKind))
		r := route{kinds[random.IntN(3)], fmt.Sprintf("v-%d", i)}
		change := map[string]route{n: r}
		write := func() error { return put(ctx, w.c, n, r) }
		switch k := random.IntN(10); {
		case k < 2:
			change[n] = route{}
			write = func() error {
				err := w.c.DeleteNumber(ctx, account, n, client.Condition{})
				if client.IsNotFound(err) {
					return nil // already deleted, perhaps by an attempt whose response was lost
				}
				return err
			}
		case k < 5:
			for range 20 {
				change[nth(firstOC, random.IntN(perKind))] = r
			}
			var batch []client.Number
			for n, r := range change {
				batch = append(batch, number(n, r))
			}
			write = func() error { return w.c.CreateOrUpdateNumbers(ctx, account, batch) }
		}
		w.insist(ctx, write)
		maps.Copy(w.want, change)
	}
}

// insist retries a write until it is acknowledged.
func (w *writer) insist(ctx context.Context, write func() error) {
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for ctx.Err() == nil {
		at := time.Now()
		err := write()
		took := time.Since(at)
		w.mu.Lock()
		if err == nil {
			w.acked++
			w.mu.Unlock()
			return
		}
		w.refused++
		w.slowest = max(w.slowest, took)
		if status, wait := refusal(err); status != 503 || wait == 0 || took > 3*time.Second {
			w.odd = append(w.odd,
				fmt.Sprintf("a write got %v after %v; want 503 with Retry-After within 3 s", err, took))
		}
		w.mu.Unlock()
		<-again.C
	}
}

// TestConvergesWithoutRestart writes a known stream of changes while PostgreSQL is killed, hung and stopped in turn.
// When it is available again, with the same edge running throughout, the directory must hold every acknowledged change
// and the index exactly what the directory holds; calls to changed numbers must show it.
func TestConvergesWithoutRestart(t *testing.T) {
	t.Parallel()
	pg, database := cluster(t)
	s := newSite(t, database)
	s.start(t)
	other := newSite(t, database)
	other.roles, other.id = "[edge]", "n2"
	other.start(t)
	w := &writer{c: s.api(t), want: s.provision(t)}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { w.run(t.Context(), stop) })
	count := func() (int, int) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.acked, w.refused
	}
	progress := func(what string) {
		t.Helper()
		a, _ := count()
		eventually(t, 20*time.Second, "writes are acknowledged "+what, func() error {
			if now, _ := count(); now < a+30 {
				return fmt.Errorf("%d of 30", now-a)
			}
			return nil
		})
	}
	for round := range 2 {
		for _, o := range []struct {
			name       string
			away, back func()
		}{
			{"killed", func() { pg.Kill(t) }, func() { pg.Start(t) }},
			{"hung", func() { pg.Pause(t) }, func() { pg.Resume(t) }},
			{"stopped", func() { pg.Stop(t) }, func() { pg.Start(t) }},
			{"closed to new sessions", func() { admin(t, pg, false) }, func() { admin(t, pg, true) }},
		} {
			progress("before PostgreSQL is " + o.name)
			_, r := count()
			o.away()
			at := time.Now()
			eventually(t, 10*time.Second, "writes are refused", func() error {
				if _, now := count(); now < r+5 {
					return fmt.Errorf("%d refused", now-r)
				}
				return nil
			})
			pause(t, time.Duration(round)*2*time.Second)
			a, _ := count()
			o.back()
			back := time.Now()
			eventually(t, 20*time.Second, "writes are acknowledged again", func() error {
				if now, _ := count(); now == a {
					return errors.New("none yet")
				}
				return nil
			})
			t.Logf("PostgreSQL %s for %v; the first write was acknowledged %v after it was available again", o.name,
				back.Sub(at).Round(time.Millisecond), time.Since(back).Round(time.Millisecond))
		}
	}
	progress("after the last outage")
	close(stop)
	wg.Wait()
	ended := time.Now()
	for _, o := range w.odd {
		t.Error(o)
	}

	// The directory against what was acknowledged.
	held := map[string]route{}
	for x, err := range w.c.Numbers(t.Context(), account, client.List{}) {
		if err != nil {
			t.Fatal(err)
		}
		r := route{}
		switch d := x.ServiceDetails; {
		case d.TeamsDirectRouting != nil && d.TeamsDirectRouting.Enabled:
			r.service = dr
		case d.TeamsOperatorConnect != nil && d.TeamsOperatorConnect.Enabled:
			r.service = oc
		case d.ZoomPhoneCloudPeering != nil && d.ZoomPhoneCloudPeering.Enabled:
			r.service = zoom
		}
		if x.Configuration != nil {
			r.header = x.Configuration.CustomSIPHeader
		}
		held[x.TelephoneNumber] = r
	}
	missing := 0
	for n, r := range w.want {
		if held[n] != r {
			if missing++; missing <= 5 {
				t.Errorf("the directory has %s as %+v; acknowledged was %+v", n, held[n], r)
			}
		}
	}
	if missing > 0 {
		t.Errorf("%d of %d numbers are not as they were acknowledged", missing, len(w.want))
	}
	if len(w.want) != 3*perKind {
		t.Errorf("%d numbers were written, want %d", len(w.want), 3*perKind)
	}

	// The index against the directory, deleted numbers too.
	s.waitRoutes(t, w.want)
	alike := time.Since(ended)
	other.waitRoutes(t, w.want)
	for _, x := range []*site{s, other} {
		eventually(t, 10*time.Second, "the index is level", func() error { return x.level(t) })
		if n := x.metric(t, "tandem_replica_numbers"); int(n) != len(held) {
			t.Errorf("the index has %v numbers, the directory %d", n, len(held))
		}
		if n := x.metric(t, "tandem_replica_loads_total"); n != 1 {
			t.Errorf("the index was loaded from the database %v times, want 1: after an outage it must follow the feed",
				n)
		}
	}
	a, r := count()
	t.Logf("%d writes acknowledged, %d refused and retried (slowest response %v); %d numbers in directory and index, "+
		"equal %v after the last write", a, r, w.slowest.Round(time.Millisecond), len(held),
		alike.Round(time.Millisecond))
	if out, err := s.local.VerifyAudit(t.Context()); err != nil || !out.OK {
		t.Errorf("audit: %+v %v", out, err)
	}
	few := map[string]route{}
	for n, r := range held {
		if r.header[:2] == "v-" && len(few) < 60 {
			few[n] = r
		}
	}
	s.callThem(t, few)
}

// admin closes the tests' database to new sessions and ends the existing ones, or opens it again.
func admin(t *testing.T, pg *testkit.Cluster, open bool) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), pg.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	statements := []string{fmt.Sprintf("ALTER DATABASE tandem ALLOW_CONNECTIONS %v", open)}
	if !open {
		statements = append(statements,
			"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'tandem'")
	}
	for _, q := range statements {
		if _, err := c.Exec(t.Context(), q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
}

// TestNothingIsHeldUpByAHangingDatabase places calls while PostgreSQL accepts connections and never answers.
func TestNothingIsHeldUpByAHangingDatabase(t *testing.T) {
	t.Parallel()
	pg, database := cluster(t)
	s := newSite(t, database)
	s.start(t)
	want := s.provision(t)
	token := s.token(t)
	pg.Pause(t)
	defer pg.Resume(t)
	a, err := s.putZoom(t.Context(), token, nth(firstOC, 0))
	if err != nil || a.status != 503 || a.retryAfter == "" || a.took > 3*time.Second {
		t.Errorf("the first PUT while PostgreSQL hangs: %v %v; want 503 with Retry-After within 3 s", a, err)
	}
	t.Logf("the first PUT while PostgreSQL hangs: %v", a)
	ctx, stop := context.WithCancel(t.Context())
	var w watch
	var wg sync.WaitGroup
	wg.Go(func() { w.run(ctx, s, token) })
	few := map[string]route{}
	for n, r := range want {
		if few[n] = r; len(few) == 100 {
			break
		}
	}
	s.callThem(t, few)
	stop()
	wg.Wait()
	t.Logf("%d requests; the slowest took %v", w.asked, w.slowest.Round(time.Millisecond))
	for _, p := range w.problems {
		t.Error(p)
	}

	// A restart while it hangs: neither the start nor readiness waits for it.
	s.kill()
	took := s.start(t)
	t.Logf("ready %v after the process was started with a hanging database", took.Round(time.Millisecond))
	if took > 10*time.Second {
		t.Errorf("ready only after %v", took)
	}
	if err := s.compare(t.Context(), want); err != nil {
		t.Error(err)
	}
}
