package resolve

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics holds the resolver's counters and is its prometheus.Collector.
type metrics struct {
	resolver *Resolver

	hit, stale, miss, ok, failed, skipped, evicted atomic.Uint64
}

var (
	descLookups = prometheus.NewDesc("tandem_sip_dns_lookups_total",
		"Look-ups of SIP targets in memory, by result: fresh, stale (records past their time to live) or missing.",
		[]string{"result"}, nil)
	descRefreshes = prometheus.NewDesc("tandem_sip_dns_refreshes_total",
		"Background refreshes from the name servers, by result: ok, failed or skipped (too many at once).",
		[]string{"result"}, nil)
	descEvicted = prometheus.NewDesc("tandem_sip_dns_evicted_total", "Cache entries dropped to make room.", nil, nil)
	descEntries = prometheus.NewDesc("tandem_sip_dns_entries", "Queries held in the cache.", nil, nil)
)

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, ch) }

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	count := func(d *prometheus.Desc, v *atomic.Uint64, label ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v.Load()), label...)
	}
	count(descLookups, &m.hit, "fresh")
	count(descLookups, &m.stale, "stale")
	count(descLookups, &m.miss, "missing")
	count(descRefreshes, &m.ok, "ok")
	count(descRefreshes, &m.failed, "failed")
	count(descRefreshes, &m.skipped, "skipped")
	count(descEvicted, &m.evicted)
	m.resolver.mu.Lock()
	n := len(m.resolver.entries)
	m.resolver.mu.Unlock()
	ch <- prometheus.MustNewConstMetric(descEntries, prometheus.GaugeValue, float64(n))
}
