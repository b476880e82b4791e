package node

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/platform/web"
)

// GetHealth returns the state of the node: the operation getHealth of the management API.
func (n *node) GetHealth(context.Context, api.GetHealthRequestObject) (api.GetHealthResponseObject, error) {
	r := n.readiness("")
	h := api.Health{Status: api.HealthStatusReady, Reasons: append(append([]string{}, r.reasons...), r.warnings...),
		Version: n.version, Node: n.cfg.Calls.Edge.Node,
		Roles: n.cfg.Roles, Started: n.started.UTC(), Parts: n.supervisor.state(),
		BaseDomain: n.cfg.Calls.Routing.BaseDomain}
	switch {
	case n.leaving.Load() || n.draining.Load():
		h.Status = api.HealthStatusDraining
	case !r.ready():
		h.Status = api.HealthStatusNotReady
	}
	for _, x := range n.roles {
		if x.health != nil {
			x.health(&h)
		}
	}
	return api.GetHealth200JSONResponse(h), nil
}

// mountHealth adds the endpoints for load balancers and supervisors: /healthz is 200 while the process is alive,
// /readyz is 200 while the node can serve and 503 with the reasons while it cannot.
func (n *node) mountHealth(mux *http.ServeMux) {
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		web.WriteJSON(w, http.StatusOK, "", map[string]string{"status": "alive"})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		role := r.URL.Query().Get("role")
		w.Header().Set("Cache-Control", "no-store")
		if role != "" && !slices.Contains(n.cfg.Roles, role) {
			web.WriteJSON(w, http.StatusNotFound, "", map[string]any{"ready": false,
				"reasons": []string{fmt.Sprintf("this node's roles are %s", strings.Join(n.cfg.Roles, ", "))}})
			return
		}
		x, status := n.readiness(role), http.StatusOK
		if !x.ready() {
			w.Header().Set("Retry-After", "1")
			status = http.StatusServiceUnavailable
		}
		web.WriteJSON(w, status, "", map[string]any{"ready": x.ready(), "reasons": append([]string{}, x.reasons...),
			"warnings": append([]string{}, x.warnings...)})
	})
}
