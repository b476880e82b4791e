package drift

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	tenants, drifted, differences, rate, oldest prometheus.Gauge
	failed                                      prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) metrics {
	f := promauto.With(reg)
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: "tandem_tenant_drift_" + name,
			Help: help + " The same on each node with the role worker."})
	}
	return metrics{
		tenants:     gauge("compared_tenants", "Tenants that are compared with what Tandem made there."),
		drifted:     gauge("tenants", "Tenants with differences."),
		differences: gauge("differences", "Differences between tenants and what Tandem made there."),
		rate:        gauge("requests_per_hour", "Requests to Microsoft in an hour that the comparisons take."),
		oldest: gauge("oldest_check_timestamp_seconds", "When the tenant whose last comparison is the oldest was "+
			"compared, in Unix time; 0 if none was."),
		failed: f.NewCounter(prometheus.CounterOpts{Name: "tandem_tenant_drift_failed_checks_total",
			Help: "Comparisons on this node that failed, because a tenant could not be read."}),
	}
}

func (m *metrics) show(o Overview) {
	m.tenants.Set(float64(o.Tenants))
	m.drifted.Set(float64(o.Drifted))
	m.differences.Set(float64(o.Differences))
	m.rate.Set(float64(o.PerHour))
	m.oldest.Set(0)
	if !o.Oldest.IsZero() {
		m.oldest.Set(float64(o.Oldest.Unix()))
	}
}
