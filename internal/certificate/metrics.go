package certificate

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// The causes of failures, in metrics and in [Status].
const (
	causeRateLimited = "rateLimited"          // the authority accepts no order before a time
	causeUnavailable = "authorityUnavailable" // the authority does not answer, says that it cannot, or nothing of use
	causeServers     = "nameServers"          // a value could not be published, or a name server lacks it
	causeChallenge   = "challengeFailed"      // the authority did not find the value in the DNS
	causeRefused     = "orderRefused"         // the authority refused the account, the order or the names
	causeStore       = "store"                // the database cannot be read or written, or decrypted
	causeInterrupted = "interrupted"          // the node that ordered was killed
	causeInternal    = "internal"
)

type metrics struct {
	expiry   *prometheus.GaugeVec
	renewal  *prometheus.GaugeVec
	failed   *prometheus.GaugeVec
	failures *prometheus.CounterVec
	until    prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) metrics {
	f := promauto.With(reg)
	m := metrics{
		expiry: f.NewGaugeVec(prometheus.GaugeOpts{Name: "tandem_certificate_expiry_timestamp_seconds",
			Help: "Expiry of the ACME certificate in service, in Unix time."}, []string{"certificate"}),
		renewal: f.NewGaugeVec(prometheus.GaugeOpts{Name: "tandem_certificate_renewal_timestamp_seconds",
			Help: "When the ACME certificate in service is to be renewed, in Unix time."}, []string{"certificate"}),
		failed: f.NewGaugeVec(prometheus.GaugeOpts{Name: "tandem_certificate_failed_attempts",
			Help: "Attempts in a row to obtain the certificate that failed, of all nodes."}, []string{"certificate"}),
		failures: f.NewCounterVec(prometheus.CounterOpts{Name: "tandem_certificate_failures_total",
			Help: "Failures to obtain or store a certificate on this node, by cause."}, []string{"cause"}),
		until: f.NewGauge(prometheus.GaugeOpts{Name: "tandem_certificate_rate_limited_until_timestamp_seconds",
			Help: "Time before which the authority accepts no orders, in Unix time; 0 if there is none."}),
	}
	for _, c := range []string{causeRateLimited, causeUnavailable, causeServers, causeChallenge, causeRefused,
		causeStore, causeInternal} {
		m.failures.WithLabelValues(c) // increase() does not see the first event of a series
	}
	return m
}
