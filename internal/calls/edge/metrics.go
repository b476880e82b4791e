package edge

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/calls/record"
	"github.com/tandemgw/tandem/internal/calls/sip"
)

// metrics are the edge's metrics. Label values are bounded: groups, peers, services, rules, methods and classes, never
// a number or a reason text.
type metrics struct {
	e         *Edge
	ended_    *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
	delay     *prometheus.HistogramVec
	messages  *prometheus.CounterVec
	requests  *prometheus.CounterVec
	failovers *prometheus.CounterVec
	emergency prometheus.Gauge

	sendFailed prometheus.Counter
	dropped    prometheus.Counter
	panics     prometheus.Counter
	active     prometheus.GaugeFunc
	draining   prometheus.GaugeFunc
	ready      prometheus.GaugeFunc
}

var (
	descPeer = prometheus.NewDesc("tandem_peer_up", "1 if at least one address of the peer is up, 0 if all are down "+
		"or its name has no address. No sample while all are unknown: none has responded yet.",
		[]string{"group", "peer"}, nil)
	descAddr = prometheus.NewDesc("tandem_peer_addresses", "Addresses of the peer, by state.",
		[]string{"group", "peer", "state"}, nil)
	descLoad = prometheus.NewDesc("tandem_group_calls_active",
		"Calls from and to the peer group, being set up or in progress.", []string{"group", "service"}, nil)
	descCert = prometheus.NewDesc("tandem_sip_certificate_expiry_timestamp_seconds",
		"Expiry of the certificate in use on SIP connections, in Unix time. The file may hold a newer one already.",
		[]string{"file"}, nil)
)

func newMetrics(e *Edge) *metrics {
	return &metrics{
		e: e,
		ended_: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tandem_calls_total",
			Help: "Ended calls, by direction, service, outcome (answered, busy, canceled, noAnswer, refused: by the " +
				"called side, rejected: by this gateway, failed) and routing rule that decided, as in tandem explain."},
			[]string{"direction", "service", "outcome", "rule"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "tandem_call_duration_seconds",
			Help:    "Duration of answered calls, from answer to end.",
			Buckets: []float64{1, 10, 30, 60, 120, 300, 600, 1800, 3600, 14400}}, []string{"direction", "service"}),
		delay: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "tandem_call_post_dial_delay_seconds",
			Help:    "Time from INVITE to the first ringing, early media or answer that was relayed.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}},
			[]string{"direction", "service"}),
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tandem_sip_responses_total",
			Help: "SIP responses to and from peers, without retransmissions by the transaction layer."},
			[]string{"group", "method", "class", "way"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tandem_sip_requests_total",
			Help: "SIP requests to and from peers, without retransmissions."}, []string{"group", "method", "way"}),
		failovers: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tandem_failovers_total",
			Help: "Call attempts that failed over, by reason (408, 503, 504, silence, transport, local)."},
			[]string{"group", "reason"}),
		emergency: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tandem_emergency_calls_active",
			Help: "Emergency calls being set up or in progress."}),
		sendFailed: prometheus.NewCounter(prometheus.CounterOpts{Name: "tandem_edge_send_failures_total",
			Help: "SIP messages of calls that could not be sent."}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{Name: "tandem_edge_panics_total",
			Help: "Calls ended by a panic while handling them; the log has the stack."}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{Name: "tandem_edge_requests_dropped_total",
			Help: "Requests dropped unanswered because their certificate does not belong to the peer group of their " +
				"source address, or because they came over a connection opened by this node from an address that no " +
				"group allows."}),
		active: prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tandem_calls_active",
			Help: "Calls being set up or in progress."},
			func() float64 { return float64(e.active.Load()) }),
		draining: prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tandem_edge_draining",
			Help: "1 while new calls are refused because the edge is draining or stopping."},
			func() float64 { return truth(e.Draining()) }),
		ready: prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tandem_edge_ready",
			Help: "1 while new calls are accepted."},
			func() float64 { return truth(e.Ready() == nil) }),
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (m *metrics) register(reg prometheus.Registerer) error {
	for _, c := range []prometheus.Collector{m.ended_, m.seconds, m.delay, m.messages, m.requests, m.failovers,
		m.emergency, m.sendFailed, m.dropped, m.panics, m.active, m.draining, m.ready, m} {
		if err := reg.Register(c); err != nil {
			return fmt.Errorf("register edge metrics: %w", err)
		}
	}
	return nil
}

// Describe implements [prometheus.Collector] for the metrics read from peers and certificates.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- descPeer
	ch <- descAddr
	ch <- descLoad
	ch <- descCert
}

// Collect implements [prometheus.Collector].
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	now := time.Now()
	for file, end := range m.e.certificates() {
		ch <- prometheus.MustNewConstMetric(descCert, prometheus.GaugeValue, float64(end.Unix()), file)
	}
	for _, g := range m.e.groups {
		ch <- prometheus.MustNewConstMetric(descLoad, prometheus.GaugeValue, float64(g.calls.Load()), g.cfg.Name,
			g.service.String())
		for _, p := range g.peers {
			n := map[string]int{"up": 0, "down": 0, "unknown": 0}
			p.mu.Lock()
			for _, a := range p.addrs {
				switch {
				case !a.gone.IsZero():
				case !a.known.Load():
					n["unknown"]++
				case a.usable(now):
					n["up"]++
				default:
					n["down"]++
				}
			}
			p.mu.Unlock()
			if n["up"] > 0 || n["unknown"] == 0 {
				ch <- prometheus.MustNewConstMetric(descPeer, prometheus.GaugeValue, truth(n["up"] > 0),
					g.cfg.Name, p.cfg.Name)
			}
			for state, count := range n {
				ch <- prometheus.MustNewConstMetric(descAddr, prometheus.GaugeValue, float64(count), g.cfg.Name,
					p.cfg.Name, state)
			}
		}
	}
}

// progress records the first response other than 100 relayed to the near side.
func (m *metrics) progress(c *call, now time.Time) {
	m.delay.WithLabelValues(c.dec.Outcome.String(), c.dec.Service.String()).Observe(now.Sub(c.start).Seconds())
}

// ended counts an ended call.
func (m *metrics) ended(c *call, r *record.Record) {
	outcome := "failed"
	switch s := r.Status; {
	case !r.Answer.IsZero():
		outcome = "answered"
		m.seconds.WithLabelValues(r.Direction, r.Service.String()).Observe(r.DurationSeconds)
	case c.near.group == nil, r.EndedBy == record.Tandem && len(r.Tried) == 0:
		outcome = "rejected"
	case s == 486 || s == 600:
		outcome = "busy"
	case s == 487 && r.EndedBy == record.Near:
		outcome = "canceled"
	case s == 480 || s == 408 && !r.Progress.IsZero():
		outcome = "noAnswer"
	case r.EndedBy == record.Far && s < 500 || s >= 600:
		outcome = "refused"
	}
	m.ended_.WithLabelValues(r.Direction, r.Service.String(), outcome, r.Rule).Inc()
}

// groupMetrics are the counters of one group, looked up once: label lookups cost too much per message.
type groupMetrics struct {
	responses [2][2][7]prometheus.Counter // way, method, class
	requests  [2][3]prometheus.Counter    // way, method
	failovers *prometheus.CounterVec
	group     string
}

// Ways and methods of groupMetrics. Metrics of the published gateway count OPTIONS and INVITE (gateway-calls §10);
// other methods are counted together.
const (
	waySent = iota
	wayReceived
)

var (
	wayNames    = [2]string{"sent", "received"}
	methodNames = [3]string{"INVITE", "OPTIONS", "other"}
)

func methodIndex(m sip.Method) int {
	switch m {
	case sip.INVITE:
		return 0
	case sip.OPTIONS:
		return 1
	}
	return 2
}

func (m *metrics) group(g *group) groupMetrics {
	gm := groupMetrics{failovers: m.failovers, group: g.cfg.Name}
	for w := range wayNames {
		for i, method := range methodNames {
			gm.requests[w][i] = m.requests.WithLabelValues(g.cfg.Name, method, wayNames[w])
			if i == 2 {
				continue
			}
			for class := 1; class <= 6; class++ {
				gm.responses[w][i][class] = m.messages.WithLabelValues(g.cfg.Name, method,
					fmt.Sprintf("%dxx", class), wayNames[w])
			}
		}
	}
	return gm
}

func (g *groupMetrics) response(way int, method sip.Method, status int) {
	i, class := methodIndex(method), status/100
	if i < 2 && class >= 1 && class <= 6 {
		g.responses[way][i][class].Inc()
	}
}

func (g *groupMetrics) sent(method sip.Method, status int) { g.response(waySent, method, status) }

func (g *groupMetrics) received(method sip.Method, status int) {
	g.response(wayReceived, method, status)
}

func (g *groupMetrics) got(method sip.Method) { g.requests[wayReceived][methodIndex(method)].Inc() }

func (g *groupMetrics) sentRequest(method sip.Method) {
	g.requests[waySent][methodIndex(method)].Inc()
}

func (g *groupMetrics) failover(reason string) { g.failovers.WithLabelValues(g.group, reason).Inc() }
