package replica

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// TestAgeGrowsThoughTheDatabaseWasNeverSeen: the age of an index read from disk grows too; otherwise no alert would
// fire while the database stays unavailable.
func TestAgeGrowsThoughTheDatabaseWasNeverSeen(t *testing.T) {
	age := func(reg *prometheus.Registry) float64 {
		t.Helper()
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "tandem_replica_age_seconds" {
				return f.GetMetric()[0].GetGauge().GetValue()
			}
		}
		t.Fatal("no age is exposed")
		return 0
	}
	observed := func(dir string, src *memSource) (*Replica, *prometheus.Registry) {
		t.Helper()
		reg := prometheus.NewRegistry()
		r, err := Open(Config{}, dir, src, newSealer(), discard(), reg)
		if err != nil {
			t.Fatal(err)
		}
		return r, reg
	}
	if _, reg := observed(t.TempDir(), away()); age(reg) != -1 {
		t.Errorf("age %v without an index, want -1", age(reg))
	}

	src, dir := newSource(), t.TempDir()
	p := seed(src)
	n := start(t, dir, src, Config{})
	n.wait(p)
	n.until("first snapshot", func(s Status) bool { return !s.Snapshot.IsZero() })
	n.stop()
	r, reg := observed(dir, away())
	if got := age(reg); got < 0 || got > 300 {
		t.Errorf("age %v just after a restart without the database, want that of the snapshot", got)
	}
	r.change(func(s *Status) { s.Snapshot = s.Snapshot.Add(-time.Hour) })
	if got := age(reg); got < 3600 {
		t.Errorf("age %v with a snapshot of an hour ago, want at least 3600", got)
	}
	r.asked = time.Now()
	r.level(p)
	if got := age(reg); got > 300 {
		t.Errorf("age %v although the index is up to date with the database", got)
	}
}
