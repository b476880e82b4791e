//go:build deep

package static

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"
)

// TestChangeIsRoutedWithinASecond measures the time from a write's acknowledgement until each edge routes by it (design
// section 5: at most 1 s for 99 of 100). The test fails only above 2 s, because the machine may have other work.
func TestChangeIsRoutedWithinASecond(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		s := newSite(t, "")
		s.start(t)
		s.provision(t)
		measure(t, s, s)
	})
	t.Run("PostgreSQL, two nodes", func(t *testing.T) {
		_, database := cluster(t)
		s := newSite(t, database)
		s.start(t)
		s.provision(t)
		other := newSite(t, database)
		other.roles, other.id = "[edge]", "n2"
		other.start(t)
		measure(t, s, s, other)
	})
}

// measure writes 200 changes through one node, one after the other at irregular times, and waits for each of them on
// each edge.
func measure(t *testing.T, s *site, edges ...*site) {
	t.Helper()
	const changes = 200
	c := s.api(t)
	delays := make([][]time.Duration, len(edges))
	var writes []time.Duration
	for i := range changes {
		n := nth([]int64{firstDR, firstOC, firstZoom}[i%3], i%perKind)
		r := route{[]service{oc, zoom, dr}[(i/7)%3], fmt.Sprintf("delay-%d", i)}
		begin := time.Now()
		if err := put(t.Context(), c, n, r); err != nil {
			t.Fatal(err)
		}
		acked := time.Now()
		writes = append(writes, acked.Sub(begin))
		type seen struct {
			edge int
			at   time.Time
			err  error
		}
		results := make(chan seen, len(edges))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		for k, e := range edges {
			go func() {
				tick := time.NewTicker(2 * time.Millisecond) // polling without a pause would slow down the node
				defer tick.Stop()
				for {
					got, err := e.routed(ctx, n)
					if err != nil || got == r {
						results <- seen{k, time.Now(), err}
						return
					}
					<-tick.C
				}
			}()
		}
		for range edges {
			x := <-results
			if x.err != nil {
				t.Fatalf("edge %d does not route by change %d: %v", x.edge, i, x.err)
			}
			delays[x.edge] = append(delays[x.edge], x.at.Sub(acked))
		}
		cancel()
		pause(t, time.Duration(i*37%50)*time.Millisecond)
	}
	p := func(d []time.Duration, q int) time.Duration {
		slices.Sort(d)
		return d[(len(d)-1)*q/100].Round(10 * time.Microsecond)
	}
	t.Logf("write: p50 %v, p99 %v", p(writes, 50), p(writes, 99))
	for k, d := range delays {
		t.Logf("edge %d: from the acknowledgement until explain shows it: p50 %v, p99 %v, longest %v (%d changes)",
			k+1, p(d, 50), p(d, 99), p(d, 100), changes)
		if x := p(d, 99); x > 2*time.Second {
			t.Errorf("edge %d: p99 %v, want at most 1 s", k+1, x)
		}
	}
}
