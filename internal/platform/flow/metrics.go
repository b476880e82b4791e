package flow

import (
	"context"
	"database/sql"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tandemgw/tandem/internal/platform/db"
)

type metrics struct {
	keys, overdue *prometheus.GaugeVec
	runs          *prometheus.CounterVec
	seconds       *prometheus.HistogramVec
	lost          prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) metrics {
	f := promauto.With(reg)
	return metrics{
		keys: f.NewGaugeVec(prometheus.GaugeOpts{Name: "tandem_work_keys",
			Help: "Keys in the work queue, of all nodes, counted every 15 s."}, []string{"kind", "state"}),
		overdue: f.NewGaugeVec(prometheus.GaugeOpts{Name: "tandem_work_overdue_seconds",
			Help: "For how long the oldest queued key has been due."}, []string{"kind"}),
		runs: f.NewCounterVec(prometheus.CounterOpts{Name: "tandem_work_runs_total",
			Help: "Runs that ended on this node: done, again, failed, limited, waiting, parked, stopped (shutdown), " +
				"lost (another worker has taken over)."}, []string{"kind", "result"}),
		seconds: f.NewHistogramVec(prometheus.HistogramOpts{Name: "tandem_work_run_seconds",
			Help:    "Duration of runs.",
			Buckets: []float64{.01, .05, .1, .5, 1, 5, 10, 30, 60, 120, 300}}, []string{"kind"}),
		lost: f.NewCounter(prometheus.CounterOpts{Name: "tandem_work_leases_lost_total",
			Help: "Leases lost, and with them all runs in progress: the database did not answer in time."}),
	}
}

// measure sets the gauges every 15 s. While the table cannot be read they keep their values.
func (q *Queue) measure(ctx context.Context) {
	type group struct {
		kind, state string
		n, due      int64
	}
	for ; ctx.Err() == nil; db.Sleep(ctx, 15*time.Second) {
		var groups []group
		err := q.d.View(ctx, func(ctx context.Context, tx *db.Tx) (err error) {
			groups, err = db.Rows(ctx, tx, func(rows *sql.Rows) (g group, err error) {
				err = rows.Scan(&g.kind, &g.state, &g.n, &g.due)
				return g, err
			}, "SELECT kind, state, COUNT(*), MIN(CASE due WHEN 0 THEN since ELSE due END) FROM work "+
				"GROUP BY kind, state")
			return err
		})
		if err != nil {
			continue // the database counts its failures
		}
		q.m.keys.Reset() // late, so that a scrape during the query does not miss a series and end an alert
		q.m.overdue.Reset()
		for _, g := range groups {
			q.m.keys.WithLabelValues(g.kind, g.state).Set(float64(g.n))
			if g.state == Queued {
				q.m.overdue.WithLabelValues(g.kind).Set(max(0, time.Since(time.UnixMicro(g.due)).Seconds()))
			}
		}
	}
}
