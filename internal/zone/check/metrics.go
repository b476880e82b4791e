package check

import (
	"maps"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tandemgw/tandem/internal/domain"
)

// snapshot is what metrics show of an observer.
type snapshot struct {
	at      time.Time
	targets []target
	counts  map[domain.SubdomainStatus]int
}

// show makes the present state that of the metrics.
func (o *Observer) show() {
	s := &snapshot{at: time.Now(), counts: maps.Clone(o.counts)}
	for _, t := range o.targets {
		s.targets = append(s.targets, *t)
	}
	o.shown.Store(s)
}

var (
	accountsDesc = desc("accounts", "Accounts with a Direct Routing label, by the state of its names in DNS "+
		"(subdomainStatus).", "status")
	upDesc = desc("server_up", "1 while the name server answers for the zone: not unreachable, not lame.", "server",
		"address")
	lameDesc   = desc("server_lame", "1 while the name server answers, but not for the zone.", "server", "address")
	serialDesc = desc("server_serial", "Serial of the zone that the name server answers.", "server", "address")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("tandem_zone_"+name, help+" Only the node that checks has it.", labels, nil)
}

func (o *Observer) register(reg prometheus.Registerer) {
	o.checks = promauto.With(reg).NewCounterVec(prometheus.CounterOpts{Name: "tandem_zone_checks_total",
		Help: "Checks of the names of an account at all name servers, by the status found."}, []string{"status"})
	if reg != nil {
		reg.MustRegister(o)
	}
}

// Describe implements prometheus.Collector.
func (o *Observer) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{accountsDesc, upDesc, lameDesc, serialDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. A node that no longer observes has nothing to say.
func (o *Observer) Collect(ch chan<- prometheus.Metric) {
	s := o.shown.Load()
	if s == nil || !o.running.Load() && time.Since(s.at) > handover {
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for x := domain.SubdomainProvisioned; x <= domain.SubdomainInconsistent; x++ {
		gauge(accountsDesc, float64(s.counts[x]), x.String())
	}
	for _, t := range s.targets {
		at := t.at()
		up, lame := 1.0, 0.0
		if t.down() {
			up = 0
			if t.problem == Lame {
				lame = 1
			}
		}
		gauge(upDesc, up, t.Name, at)
		gauge(lameDesc, lame, t.Name, at)
		if t.serial != 0 {
			gauge(serialDesc, float64(t.serial), t.Name, at)
		}
	}
}
