package directory

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	changes *prometheus.CounterVec // by action
}

func newMetrics(reg prometheus.Registerer) metrics {
	m := metrics{changes: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tandem_directory_changes_total",
		Help: "Accounts, numbers and requests for information changed, by action. Writes that change nothing are " +
			"not counted.",
	}, []string{"action"})}
	if reg != nil {
		reg.MustRegister(m.changes)
	}
	return m
}
