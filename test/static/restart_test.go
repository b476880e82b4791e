//go:build deep

package static

import (
	"testing"
	"time"
)

// TestEdgeRestartsWithoutDatabase changes numbers, kills the database and the edge a second later, restarts the edge
// without the database, and places 100 calls, among them one to each changed number.
func TestEdgeRestartsWithoutDatabase(t *testing.T) {
	t.Parallel()
	pg, database := cluster(t)
	s := newSite(t, database)
	s.start(t)
	want := s.provision(t)
	c := s.api(t)
	moved, renamed := nth(firstDR, 7), nth(firstZoom, 7)
	want[moved], want[renamed] = route{oc, "moved-1"}, route{zoom, "new-value"}
	for _, n := range []string{moved, renamed} {
		if err := put(t.Context(), c, n, want[n]); err != nil {
			t.Fatal(err)
		}
	}
	pause(t, time.Second) // so that the change is a second older than the kill
	pg.Kill(t)
	s.kill()

	took := s.start(t)
	t.Logf("ready %v after the process was started without a database", took.Round(time.Millisecond))
	if took > 10*time.Second {
		t.Errorf("ready only after %v", took)
	}
	if err := s.compare(t.Context(), want); err != nil {
		t.Error(err)
	}
	hundred := map[string]route{moved: want[moved], renamed: want[renamed]}
	for n, r := range want {
		if hundred[n] = r; len(hundred) == 100 {
			break
		}
	}
	s.callThem(t, hundred)
	s.checkRecords(t, 100)
	all, err := s.records()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, r := range all {
		if r.Called == moved {
			seen++
			if r.Tried[0].Group != "operator-connect" {
				t.Errorf("the call to the number moved to Operator Connect went to %s", r.Tried[0].Group)
			}
		}
	}
	if seen != 1 {
		t.Errorf("%d records of calls to the moved number, want 1", seen)
	}

	// Existing tokens still authenticate without the database; the response is that it is unavailable.
	err = put(t.Context(), c, moved, route{dr, "x"})
	if status, wait := refusal(err); status != 503 || wait == 0 {
		t.Errorf("a write after the restart: %v; want 503 with Retry-After", err)
	}
	if a, err := s.readyz(t.Context(), ""); err != nil || a.status != 200 {
		t.Errorf("/readyz: %v %v, want 200", a, err)
	}

	// It follows the database again as soon as that is available.
	pg.Start(t)
	at := time.Now()
	eventually(t, 15*time.Second, "writes succeed again",
		func() error { return put(t.Context(), c, moved, route{dr, "home-again"}) })
	want[moved] = route{dr, "home-again"}
	s.waitRoutes(t, want)
	t.Logf("a write is routed %v after PostgreSQL is available again", time.Since(at).Round(time.Millisecond))
}
