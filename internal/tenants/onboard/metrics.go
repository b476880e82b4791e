package onboard

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tandemgw/tandem/internal/tenants/plan"
)

// Sums are sums over all tenants.
type Sums struct {
	States map[State]int
	Waits  map[Party]int
	Oldest map[Party]time.Time // since when the tenant waits that has waited longest
	Lost   int                 // sign-ins that do not work
}

// Metrics are the metrics of the package. Methods on nil do nothing.
type Metrics struct {
	tenants, waits, oldest *prometheus.GaugeVec
	lost                   prometheus.Gauge
	plans, steps           *prometheus.CounterVec
	seconds                *prometheus.HistogramVec
}

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	f := promauto.With(reg)
	const same = " The same on each node with the role worker."
	m := &Metrics{
		tenants: f.NewGaugeVec(prometheus.GaugeOpts{Name: "tandem_tenant_tenants",
			Help: "Tenants, by state." + same}, []string{"state"}),
		waits: f.NewGaugeVec(prometheus.GaugeOpts{Name: "tandem_tenant_waiting",
			Help: "Tenants whose plan waits, by who has to act." + same}, []string{"for"}),
		oldest: f.NewGaugeVec(prometheus.GaugeOpts{Name: "tandem_tenant_oldest_wait_timestamp_seconds",
			Help: "Since when the tenant waits that has waited longest, in Unix time; 0 if none waits." + same},
			[]string{"for"}),
		lost: f.NewGauge(prometheus.GaugeOpts{Name: "tandem_tenant_sign_ins_lost",
			Help: "Tenants that an administrator must sign in to again." + same}),
		plans: f.NewCounterVec(prometheus.CounterOpts{Name: "tandem_tenant_plans_applied_total",
			Help: "Plans that were approved on this node, by purpose."}, []string{"purpose"}),
		steps: f.NewCounterVec(prometheus.CounterOpts{Name: "tandem_tenant_steps_total",
			Help: "Attempts at steps of plans on this node, by type of object and result (done, waiting, failed)."},
			[]string{"type", "result"}),
		seconds: f.NewHistogramVec(prometheus.HistogramOpts{Name: "tandem_tenant_step_seconds",
			Help:    "Time from the beginning of a step to when the tenant shows its effect, by type of object.",
			Buckets: []float64{0.25, 1, 4, 15, 60, 300, 1800, 3 * 3600, 24 * 3600}}, []string{"type"}),
	}
	for _, p := range []Purpose{Onboard, Leave, Restore, Repair} {
		m.plans.WithLabelValues(string(p)) // increase() does not see the first event of a series
	}
	return m
}

func (m *Metrics) applied(p Purpose) {
	if m != nil {
		m.plans.WithLabelValues(string(p)).Inc()
	}
}

func (m *Metrics) step(t plan.Type, began time.Time, err error) {
	if m == nil {
		return
	}
	result := "failed"
	if _, ok := errors.AsType[*wait](err); ok {
		result = "waiting"
	} else if err == nil {
		result = "done"
		m.seconds.WithLabelValues(string(t)).Observe(time.Since(began).Seconds())
	}
	m.steps.WithLabelValues(string(t), result).Inc()
}

// Run sums up the tenants every minute until ctx is done.
func (m *Metrics) Run(ctx context.Context, sum func(context.Context) (Sums, error), log *slog.Logger) error {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		if s, err := sum(ctx); err == nil {
			m.show(s)
		} else if ctx.Err() == nil {
			log.Warn("the tenants cannot be counted", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (m *Metrics) show(s Sums) {
	for _, state := range States {
		m.tenants.WithLabelValues(string(state)).Set(float64(s.States[state]))
	}
	for _, p := range []Party{Person, Microsoft, DNS, Tandem} {
		m.waits.WithLabelValues(string(p)).Set(float64(s.Waits[p]))
		since := 0.0
		if at := s.Oldest[p]; !at.IsZero() {
			since = float64(at.Unix())
		}
		m.oldest.WithLabelValues(string(p)).Set(since)
	}
	m.lost.Set(float64(s.Lost))
}
