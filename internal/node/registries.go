package node

import (
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// registries holds one metrics registry for the process and one for each part that may be rebuilt: the new registry
// replaces the old one, because a collector cannot be registered twice.
type registries struct {
	process *prometheus.Registry

	mu    sync.Mutex
	names []string                        // guarded by mu, in the order of first use
	parts map[string]*prometheus.Registry // guarded by mu
}

func newRegistries() *registries {
	return &registries{process: prometheus.NewRegistry(), parts: map[string]*prometheus.Registry{}}
}

// fresh returns an empty registry for a part, in place of its previous one.
func (r *registries) fresh(part string) *prometheus.Registry {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.names, part) {
		r.names = append(r.names, part)
	}
	r.parts[part] = prometheus.NewRegistry()
	return r.parts[part]
}

// Gather returns the metrics of all registries.
func (r *registries) Gather() ([]*dto.MetricFamily, error) {
	r.mu.Lock()
	all := prometheus.Gatherers{r.process}
	for _, n := range r.names {
		all = append(all, r.parts[n])
	}
	r.mu.Unlock()
	return all.Gather()
}
