package nameserver

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	queries    *prometheus.CounterVec // by rcode
	transfers  *prometheus.CounterVec // by type, result
	behind     *prometheus.GaugeVec   // by secondary
	limited    prometheus.Counter
	refused    prometheus.Counter
	signatures prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		queries: f.NewCounterVec(prometheus.CounterOpts{Name: "tandem_zone_queries_total",
			Help: "DNS requests answered, by response code."}, []string{"rcode"}),
		transfers: f.NewCounterVec(prometheus.CounterOpts{Name: "tandem_zone_transfers_total",
			Help: "Zone transfers to secondaries, by type and result: sent, failed or refused."},
			[]string{"type", "result"}),
		behind: f.NewGaugeVec(prometheus.GaugeOpts{Name: "tandem_zone_secondary_behind",
			Help: "1 while the secondary has not acknowledged the notification of the present version of the zone."},
			[]string{"secondary"}),
		limited: f.NewCounter(prometheus.CounterOpts{Name: "tandem_zone_answers_limited_total",
			Help: "DNS answers over UDP that the limit of equal answers held back or shortened."}),
		refused: f.NewCounter(prometheus.CounterOpts{Name: "tandem_zone_connections_refused_total",
			Help: "DNS connections over TCP closed at once, because too many were open."}),
		signatures: f.NewCounter(prometheus.CounterOpts{Name: "tandem_zone_bad_signatures_total",
			Help: "DNS requests refused because of an unknown key, an invalid signature or a wrong clock."}),
	}
}
