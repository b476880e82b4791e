package db

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	retries     prometheus.Counter
	unavailable prometheus.Counter
	seconds     *prometheus.HistogramVec // by kind: read, write
}

func newMetrics(reg prometheus.Registerer, status statusMetrics) metrics {
	m := metrics{
		retries: prometheus.NewCounter(prometheus.CounterOpts{Name: "tandem_db_retries_total",
			Help: "Transactions repeated because they conflicted with a concurrent one."}),
		unavailable: prometheus.NewCounter(prometheus.CounterOpts{Name: "tandem_db_unavailable_total",
			Help: "Transactions refused or cancelled because the database was unavailable."}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "tandem_db_transaction_seconds",
			Help:    "Duration of transactions, including waits and repetitions.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}}, []string{"kind"}),
	}
	if reg != nil {
		reg.MustRegister(m.retries, m.unavailable, m.seconds, status)
	}
	return m
}

// statusMetrics reads the database's status when metrics are collected.
type statusMetrics func() Status

var (
	descUp       = prometheus.NewDesc("tandem_db_up", "1 while the database answers and is not damaged.", nil, nil)
	descWritable = prometheus.NewDesc("tandem_db_writable",
		"1 while the database accepts writes, checked by a write every 2 s.", nil, nil)
	descConflict = prometheus.NewDesc("tandem_node_id_conflict",
		"1 while another process holds this node's id.", nil, nil)
	descFailing = prometheus.NewDesc("tandem_db_failing_since_timestamp_seconds",
		"Unix time since when the database accepts no writes. No sample while it does.",
		[]string{"database", "cause"}, nil)
)

// Describe implements [prometheus.Collector].
func (f statusMetrics) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(f, ch) }

// Collect implements [prometheus.Collector].
func (f statusMetrics) Collect(ch chan<- prometheus.Metric) {
	s, truth := f(), map[bool]float64{true: 1}
	for desc, on := range map[*prometheus.Desc]bool{descUp: s.Available, descWritable: s.Writable,
		descConflict: s.Rival != ""} {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, truth[on])
	}
	if !s.Writable {
		// The cause changes rarely and there is only one series at a time, so that an alert can show it.
		ch <- prometheus.MustNewConstMetric(descFailing, prometheus.GaugeValue, float64(s.Since.Unix()),
			s.Where, s.Cause)
	}
}
