package transaction

import (
	"fmt"
	"runtime/debug"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics holds the layer's counters and is a prometheus.Collector.
type Metrics struct {
	layer *Layer

	Clients         atomic.Uint64 // client transactions started
	Servers         atomic.Uint64 // server transactions started
	Retransmissions atomic.Uint64 // by us
	Absorbed        atomic.Uint64 // retransmissions by the far side
	Timeouts        atomic.Uint64 // transactions that ended without a final response or ACK
	AutoTrying      atomic.Uint64 // 100s sent because the user had not responded in time
	Invalid         atomic.Uint64 // invalid requests that were answered
	Discarded       atomic.Uint64 // invalid messages that cannot be answered
	StrayResponses  atomic.Uint64
	StrayCancels    atomic.Uint64 // answered 481
	UnmatchedAcks   atomic.Uint64 // passed to the user outside a transaction
	Merged          atomic.Uint64 // answered 482
	Overload        atomic.Uint64 // refused with 503 or ErrOverload
	SendFailed      atomic.Uint64
	Resent          atomic.Uint64 // requests sent again because their connection was lost
	LargeFallbacks  atomic.Uint64 // large requests sent over UDP because TCP was unavailable
	Panics          atomic.Uint64 // in callbacks
}

var (
	descTx = prometheus.NewDesc("tandem_sip_transactions_total",
		"SIP transactions started, by side.", []string{"side"}, nil)
	descEvents = prometheus.NewDesc("tandem_sip_transaction_events_total",
		"SIP transaction layer events, by event.", []string{"event"}, nil)
	descLive = prometheus.NewDesc("tandem_sip_transactions",
		"SIP transactions held: pending have no final response yet, lingering absorb retransmissions.",
		[]string{"state"}, nil)
)

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, ch) }

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	count := func(d *prometheus.Desc, v *atomic.Uint64, label string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v.Load()), label)
	}
	count(descTx, &m.Clients, "client")
	count(descTx, &m.Servers, "server")
	for _, e := range []struct {
		name string
		v    *atomic.Uint64
	}{
		{"retransmission", &m.Retransmissions}, {"absorbed", &m.Absorbed}, {"timeout", &m.Timeouts},
		{"auto_trying", &m.AutoTrying}, {"invalid", &m.Invalid}, {"discarded", &m.Discarded},
		{"stray_response", &m.StrayResponses}, {"stray_cancel", &m.StrayCancels}, {"unmatched_ack", &m.UnmatchedAcks},
		{"merged", &m.Merged}, {"overload", &m.Overload}, {"send_failed", &m.SendFailed}, {"resent", &m.Resent},
		{"large_fallback", &m.LargeFallbacks}, {"panic", &m.Panics},
	} {
		count(descEvents, e.v, e.name)
	}
	live, pending := m.layer.live.Load(), m.layer.pending.Load()
	ch <- prometheus.MustNewConstMetric(descLive, prometheus.GaugeValue, float64(pending), "pending")
	ch <- prometheus.MustNewConstMetric(descLive, prometheus.GaugeValue, float64(live-pending), "lingering")
}

// recovered is deferred around callbacks, so that a fault in one call does not end the others.
func (l *Layer) recovered() {
	if r := recover(); r != nil {
		l.m.Panics.Add(1)
		l.log.Error("panic in a SIP transaction callback", "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
	}
}
