package replica

import (
	"cmp"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are the metrics of the index. Those that can be computed from the replica are functions, so that they need no
// updates.
type metrics struct {
	applied, loads, snapshots, damaged, badChanges, sourceErrors, diskErrors prometheus.Counter
	applySeconds, delay                                                      prometheus.Histogram
}

// newMetrics registers the metrics; reg may be nil.
func newMetrics(reg prometheus.Registerer, r *Replica) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Namespace: "tandem", Subsystem: "replica", Name: name, Help: help})
	}
	gauge := func(name, help string, read func(Status) float64) {
		f.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "tandem", Subsystem: "replica", Name: name, Help: help},
			func() float64 { return read(r.Status()) })
	}
	since := func(t time.Time) float64 {
		if t.IsZero() {
			return -1
		}
		return time.Since(t).Seconds()
	}
	flag := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	gauge("loaded", "1 if the number index is loaded.", func(s Status) float64 { return flag(s.Loaded) })
	gauge("position", "Feed position of the number index.", func(s Status) float64 { return float64(s.Position) })
	gauge("lag_positions", "Feed positions from the number index to the newest one seen.",
		func(s Status) float64 { return float64(max(0, s.Head-s.Position)) })
	gauge("age_seconds", "Time since the number index was last known to be up to date with the database; if never in "+
		"this process, since the snapshot it was read from; -1 if there is no index.",
		func(s Status) float64 { return since(cmp.Or(s.SyncedAt, s.Snapshot)) })
	gauge("numbers", "Numbers in the index.", func(s Status) float64 { return float64(s.Numbers) })
	gauge("bytes", "Approximate memory of numbers and header values.",
		func(s Status) float64 { return float64(s.Bytes) })
	gauge("snapshot_age_seconds", "Time since the newest snapshot was taken; -1 if there is none.",
		func(s Status) float64 { return since(s.Snapshot) })
	gauge("source_up", "1 if the last read of the database succeeded.",
		func(s Status) float64 { return flag(s.SourceError == "") })
	gauge("held", "1 while the old index is kept until an operator accepts the content of the database.",
		func(s Status) float64 { return flag(s.Held != nil) })
	gauge("disk_up", "1 if all applied changes are on disk.", func(s Status) float64 { return flag(s.DiskError == "") })
	return &metrics{
		applied:   counter("entries_applied_total", "Feed entries applied."),
		loads:     counter("loads_total", "Full loads from the database."),
		snapshots: counter("snapshots_total", "Snapshots written."),
		damaged:   counter("damaged_files_total", "Snapshots and journals found damaged at startup."),
		badChanges: counter("bad_changes_total",
			"Invalid feed entries. One that cannot be read triggers a full reload."),
		sourceErrors: counter("source_errors_total", "Failed reads of the database."),
		diskErrors:   counter("disk_errors_total", "Failed writes of snapshots and journals."),
		applySeconds: f.NewHistogram(prometheus.HistogramOpts{Namespace: "tandem", Subsystem: "replica",
			Name: "apply_seconds", Help: "Time to apply a batch of feed entries.",
			Buckets: prometheus.ExponentialBuckets(1e-5, 4, 9)}),
		delay: f.NewHistogram(prometheus.HistogramOpts{Namespace: "tandem", Subsystem: "replica", Name: "delay_seconds",
			Help:    "Time from the commit of a change until calls use it, for the newest change of each batch.",
			Buckets: prometheus.ExponentialBuckets(1e-3, 2, 14)}),
	}
}
