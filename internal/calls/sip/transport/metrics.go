package transport

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics holds the stack's counters and is a prometheus.Collector.
type Metrics struct {
	stack *Stack

	// MessagesIn, MessagesOut, BytesIn and BytesOut count by Proto.
	MessagesIn, MessagesOut, BytesIn, BytesOut [TLS + 1]atomic.Uint64

	UnknownSource    atomic.Uint64 // datagrams and connections that Accept rejected
	KeepAlives       atomic.Uint64 // CRLF pings and pongs received, and blank datagrams
	ConnsAccepted    atomic.Uint64
	ConnsDialled     atomic.Uint64
	ConnsClosed      atomic.Uint64 // after having been open
	ConnsFailed      atomic.Uint64 // never opened
	ConnsRefused     atomic.Uint64 // above a bound
	ConnsPerSource   atomic.Uint64 // of these, above the bound of one source
	ConnsIdle        atomic.Uint64 // closed after the idle time-out
	HandshakesFailed atomic.Uint64
	SlowPeers        atomic.Uint64 // connections closed because the far side did not read
	ReuseRefused     atomic.Uint64 // an available connection belonged to another identity
	ReplyFallbacks   atomic.Uint64 // responses whose connection had closed
	SendErrors       atomic.Uint64
	ReadErrors       atomic.Uint64
	AcceptErrors     atomic.Uint64
	Unreachable      atomic.Uint64 // ICMP errors for datagrams of ours
	Panics           atomic.Uint64 // in the handler
}

func (m *Metrics) received(p Proto, n int) {
	m.MessagesIn[p].Add(1)
	m.BytesIn[p].Add(uint64(n))
}

func (m *Metrics) sent(p Proto, n int) {
	m.MessagesOut[p].Add(1)
	m.BytesOut[p].Add(uint64(n))
}

var (
	descMessages = prometheus.NewDesc("tandem_sip_messages_total", "SIP messages, by transport and direction.",
		[]string{"transport", "direction"}, nil)
	descBytes = prometheus.NewDesc("tandem_sip_bytes_total", "Bytes of SIP messages, by transport and direction.",
		[]string{"transport", "direction"}, nil)
	descEvents = prometheus.NewDesc("tandem_sip_transport_events_total", "SIP transport events, by event.",
		[]string{"event"}, nil)
	descConns = prometheus.NewDesc("tandem_sip_connections", "TCP and TLS connections.", nil, nil)
)

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, ch) }

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	count := func(d *prometheus.Desc, v *atomic.Uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v.Load()), labels...)
	}
	for p := UDP; p <= TLS; p++ {
		count(descMessages, &m.MessagesIn[p], p.Param(), "in")
		count(descMessages, &m.MessagesOut[p], p.Param(), "out")
		count(descBytes, &m.BytesIn[p], p.Param(), "in")
		count(descBytes, &m.BytesOut[p], p.Param(), "out")
	}
	for _, e := range []struct {
		name string
		v    *atomic.Uint64
	}{
		{"unknown_source", &m.UnknownSource}, {"keep_alive", &m.KeepAlives},
		{"connection_accepted", &m.ConnsAccepted}, {"connection_dialled", &m.ConnsDialled},
		{"connection_closed", &m.ConnsClosed}, {"connection_failed", &m.ConnsFailed},
		{"connection_refused", &m.ConnsRefused}, {"connection_refused_source", &m.ConnsPerSource},
		{"connection_idle", &m.ConnsIdle},
		{"handshake_failed", &m.HandshakesFailed}, {"slow_peer", &m.SlowPeers},
		{"reuse_refused", &m.ReuseRefused}, {"reply_fallback", &m.ReplyFallbacks},
		{"send_error", &m.SendErrors}, {"read_error", &m.ReadErrors},
		{"accept_error", &m.AcceptErrors}, {"unreachable", &m.Unreachable}, {"panic", &m.Panics},
	} {
		count(descEvents, e.v, e.name)
	}
	m.stack.mu.Lock()
	n := len(m.stack.conns)
	m.stack.mu.Unlock()
	ch <- prometheus.MustNewConstMetric(descConns, prometheus.GaugeValue, float64(n))
}
