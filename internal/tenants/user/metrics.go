package user

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics are the metrics of the package. Those of users are sums over all tenants.
type Metrics struct {
	users   *prometheus.GaugeVec
	seconds *prometheus.HistogramVec
	failed  *prometheus.CounterVec
}

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	f := promauto.With(reg)
	m := &Metrics{
		users: f.NewGaugeVec(prometheus.GaugeOpts{Name: "tandem_tenant_users",
			Help: "Users and resource accounts of all tenants, by state."}, []string{"state"}),
		seconds: f.NewHistogramVec(prometheus.HistogramOpts{Name: "tandem_tenant_sync_seconds",
			Help:    "Time from the beginning to the end of a complete pass over the users of a tenant.",
			Buckets: prometheus.ExponentialBuckets(0.25, 4, 8)}, []string{"mode"}),
		failed: f.NewCounterVec(prometheus.CounterOpts{Name: "tandem_tenant_syncs_failed_total",
			Help: "Passes over the users of a tenant that were abandoned."}, []string{"mode"}),
	}
	for _, mode := range []string{Full, Delta} {
		m.failed.WithLabelValues(mode) // increase() does not see the first event of a series
	}
	return m
}

func (m *Metrics) pass(p *Pass) {
	if p.Failure != "" {
		m.failed.WithLabelValues(p.Mode).Inc()
		return
	}
	m.seconds.WithLabelValues(p.Mode).Observe(p.Ended.Sub(p.Began).Seconds())
}

// Run counts the users every minute until ctx is done.
func (m *Metrics) Run(ctx context.Context, s Store, log *slog.Logger) error {
	for tick := time.NewTicker(time.Minute); ; {
		if n, err := s.Count(ctx); err == nil {
			for _, state := range States {
				m.users.WithLabelValues(string(state)).Set(float64(n[state]))
			}
		} else if ctx.Err() == nil {
			log.Warn("the users of tenants cannot be counted", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			tick.Stop()
			return nil
		}
	}
}
