package node

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	api "github.com/tandemgw/tandem/api/manage"
)

// health returns the state of the node, for the management API.
func (n *node) health(context.Context) api.Health {
	r := n.readiness("")
	h := api.Health{Status: api.StatusReady, Reasons: append(append([]string{}, r.reasons...), r.warnings...),
		Version: n.version, Node: n.cfg.Calls.Edge.Node,
		Roles: n.cfg.Roles, Started: n.started.UTC(), Parts: []api.Part{}}
	switch {
	case n.leaving.Load() || n.draining.Load():
		h.Status = api.StatusDraining
	case !r.ready():
		h.Status = api.StatusNotReady
	}
	for _, s := range n.supervisor.state() {
		h.Parts = append(h.Parts, api.Part{Name: s.Name, Running: s.Running, Restarts: s.Restarts, Since: s.Since.UTC(),
			Error: s.Error})
	}
	for _, x := range n.roles {
		if x.health != nil {
			x.health(&h)
		}
	}
	return h
}

// mountHealth adds the endpoints for load balancers and supervisors: /healthz is 200 while the process is alive,
// /readyz is 200 while the node can serve and 503 with the reasons while it cannot.
func (n *node) mountHealth(mux *http.ServeMux) {
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintln(w, `{"status":"alive"}`) // an error means that the client has disconnected
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		role := r.URL.Query().Get("role")
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		if role != "" && !slices.Contains(n.cfg.Roles, role) {
			w.WriteHeader(http.StatusNotFound)
			_ = json.NewEncoder(w).Encode(map[string]any{"ready": false,
				"reasons": []string{fmt.Sprintf("this node's roles are %s", strings.Join(n.cfg.Roles, ", "))}})
			return
		}
		x := n.readiness(role)
		if !x.ready() {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"ready": x.ready(), "reasons": append([]string{}, x.reasons...),
			"warnings": append([]string{}, x.warnings...)})
	})
}
