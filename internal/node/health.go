package node

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/config"
)

// readiness says whether the node can serve now.
//
// The edge does not depend on the database: a node with the role edge stays ready without one, with a warning. HTTP
// load balancers ask for the role api alone (/readyz?role=api), which is unready while the database accepts no writes.
type readiness struct {
	ready    bool
	reasons  []string // why the node is not ready
	warnings []string // problems that do not make it unready
}

func (n *node) readiness(role string) readiness {
	r := readiness{}
	blocked := func(format string, args ...any) { r.reasons = append(r.reasons, fmt.Sprintf(format, args...)) }
	hasEdge := n.cfg.Has(config.RoleEdge) && (role == "" || role == config.RoleEdge)
	hasAPI := n.cfg.Has(config.RoleAPI) && (role == "" || role == config.RoleAPI)
	switch {
	case n.leaving.Load():
		blocked("shutting down")
	case n.draining.Load():
		blocked("draining: new calls are refused")
	}
	if hasEdge {
		if e := n.edge.Load(); e == nil {
			blocked("edge: restarting")
		} else if err := e.Ready(); err != nil && !n.draining.Load() {
			blocked("edge: %v", err)
		}
		if err := n.replica.Ready(); err != nil {
			blocked("index: %v", err)
		}
		if h := n.replica.Status().Held; h != nil {
			r.warnings = append(r.warnings, "index: "+h.Reason+"; the old index is used until tandem index accept")
		}
	}
	if s := n.core.db.Status(); !s.Writable {
		what := map[bool]string{true: "accepts no writes", false: "unavailable"}[s.Available]
		text := fmt.Sprintf("database %s: %s since %s: %s", s.Where, what, s.Since.UTC().Format(time.RFC3339), s.Cause)
		if hasEdge {
			r.warnings = append(r.warnings, text)
		} else {
			blocked("%s", text)
		}
	} else if s.Rival != "" {
		r.warnings = append(r.warnings, fmt.Sprintf("node id %q is held by %s: give each node its own id (calls.node)",
			n.cfg.Calls.Edge.Node, s.Rival))
	}
	if hasEdge {
		r.warnings = append(r.warnings, downGroups(n.peers())...)
	}
	for _, s := range n.supervisor.state() {
		if s.Running || role != "" && s.Name != role {
			continue
		}
		if (s.Name == "provisioning" && hasAPI || s.Name == "edge" && hasEdge) && !n.draining.Load() {
			blocked("%s: %s", s.Name, orStarting(s.Error))
		} else {
			r.warnings = append(r.warnings, s.Name+": "+orStarting(s.Error))
		}
	}
	r.ready = len(r.reasons) == 0
	return r
}

// downGroups returns a warning for each peer group whose peers are all down. A peer in the state unknown is tried.
func downGroups(groups []api.PeerGroup) (warnings []string) {
	for _, g := range groups {
		usable := func(p api.Peer) bool { return p.State != peerDown }
		if len(g.Peers) > 0 && !slices.ContainsFunc(g.Peers, usable) {
			warnings = append(warnings, fmt.Sprintf("peer group %s: every peer is down; calls to it fail", g.Name))
		}
	}
	return warnings
}

func orStarting(why string) string {
	if why == "" {
		return "not started yet"
	}
	return why
}

// health returns the state of the node, for the management API.
func (n *node) health(context.Context) api.Health {
	r := n.readiness("")
	h := api.Health{Status: api.StatusReady, Reasons: append(append([]string{}, r.reasons...), r.warnings...),
		Version: n.version, Node: n.cfg.Calls.Edge.Node,
		Roles: n.cfg.Roles, Started: n.started.UTC(), Parts: []api.Part{}, Database: n.core.database()}
	switch {
	case n.leaving.Load() || n.draining.Load():
		h.Status = api.StatusDraining
	case !r.ready:
		h.Status = api.StatusNotReady
	}
	for _, s := range n.supervisor.state() {
		h.Parts = append(h.Parts, api.Part{Name: s.Name, Running: s.Running, Restarts: s.Restarts, Since: s.Since.UTC(),
			Error: s.Error})
	}
	if n.replica != nil {
		s := n.replica.Status()
		h.Replica = &api.Replica{Loaded: s.Loaded, Current: s.Current(), Database: s.Database,
			Position: int64(s.Position), Head: int64(s.Head),
			Numbers: s.Numbers, Bytes: s.Bytes, Error: cmp.Or(s.SourceError, s.Reloading)}
		if x := s.Held; x != nil {
			h.Replica.Held = &api.HeldIndex{Reason: x.Reason, Database: x.Database, Numbers: x.Numbers,
				Since: x.Since.UTC()}
		}
		if !s.SyncedAt.IsZero() {
			at := s.SyncedAt.UTC()
			h.Replica.Synced = &at
		}
	}
	if e := n.edge.Load(); e != nil {
		h.Calls = &api.Calls{Active: e.Calls()}
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
		if !x.ready {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"ready": x.ready, "reasons": append([]string{}, x.reasons...),
			"warnings": append([]string{}, x.warnings...)})
	})
}
