package db

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	up          prometheus.Gauge
	retries     prometheus.Counter
	unavailable prometheus.Counter
	seconds     *prometheus.HistogramVec // by kind: read, write
}

func newMetrics(reg prometheus.Registerer) metrics {
	m := metrics{
		up: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tandem_db_up", Help: "1 while the database answers."}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{Name: "tandem_db_retries_total",
			Help: "Transactions repeated because they lost against a concurrent one."}),
		unavailable: prometheus.NewCounter(prometheus.CounterOpts{Name: "tandem_db_unavailable_total",
			Help: "Transactions refused or cut off because the database was away."}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "tandem_db_transaction_seconds",
			Help: "Duration of transactions, waiting and repeating included.", Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}}, []string{"kind"}),
	}
	if reg != nil {
		reg.MustRegister(m.up, m.retries, m.unavailable, m.seconds)
	}
	return m
}
