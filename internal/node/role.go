package node

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/certificate"
	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/platform/flow"
	"github.com/tandemgw/tandem/internal/zone/check"
	"github.com/tandemgw/tandem/internal/zone/update"
)

// role is what a process does in one of its roles: built, but not running. A function that is not set does nothing.
type role struct {
	name string // as in the configuration; empty for what belongs to no role
	// static is set if the role serves while the database accepts no writes: a node that has it stays ready then.
	static bool
	parts  []part // in the order in which they start
	// ready adds the reasons why the role cannot serve, and warnings. Parts that do not run are added by the node.
	ready func(*readiness)
	// health adds what the management API shows about the role.
	health func(*api.Health)
	// started logs what listens where, and every insecure setting, and enters the addresses. It is called once, when
	// all parts run.
	started func(*Ready)
	// reload checks what next changes in the role, and returns the function that applies it. That must not fail.
	reload func(next *config.Loaded) (apply func(), err error)
	// close releases what building the role acquired, also if building failed.
	close func()
}

// builder builds one role. The registry of roles is in the purposes below.
type builder struct {
	name  string // of the role; empty for what belongs to no role
	build func(n *node, ctx context.Context, r *role) error
}

var (
	dataRole   = builder{"", (*node).buildData}
	coreRole   = builder{"", (*node).buildCore}
	certRole   = builder{"", (*node).buildCertificates}
	tenantRole = builder{"", (*node).buildTenants}
	workerRole = builder{config.RoleWorker, (*node).buildWorker}
	dnsRole    = builder{config.RoleDNS, (*node).buildDNS}
	edgeRole   = builder{config.RoleEdge, (*node).buildEdge}
	apiRole    = builder{config.RoleAPI, (*node).buildAPI}
	frontRole  = builder{config.RoleFront, (*node).buildFront}
	manageRole = builder{"", (*node).buildManage}
)

// purpose is what a process is built for.
type purpose struct {
	serves  bool // its parts will run; else it does the work of one command
	creates bool // the database need not exist yet
	// roles are in the order in which their parts start. They stop in reverse order, so that the edge stops before the
	// records and the database that it writes to. Of a process that serves, only the configured roles are built.
	roles []builder
}

var (
	serving = purpose{true, true, []builder{dataRole, coreRole, certRole, tenantRole, workerRole, dnsRole, edgeRole,
		apiRole, frontRole, manageRole}}
	command   = purpose{false, false, []builder{dataRole, coreRole, apiRole, manageRole}}
	restoring = purpose{false, false, []builder{dataRole}}
)

// readiness says whether the node can serve now.
//
// The edge does not depend on the database: a node with the role edge stays ready without one, with a warning. HTTP
// load balancers ask for the role api alone (/readyz?role=api), which is unready while the database accepts no writes.
type readiness struct {
	static   bool     // one of the roles serves while the database accepts no writes
	reasons  []string // why the node is not ready
	warnings []string // problems that do not make it unready
}

func (r *readiness) ready() bool { return len(r.reasons) == 0 }

func (r *readiness) blocked(format string, args ...any) {
	r.reasons = append(r.reasons, fmt.Sprintf(format, args...))
}

func (r *readiness) warn(format string, args ...any) {
	r.warnings = append(r.warnings, fmt.Sprintf(format, args...))
}

// readiness returns the readiness of one role, or of the whole node if name is empty.
func (n *node) readiness(name string) *readiness {
	asked := func(r *role) bool { return name == "" || r.name == name }
	r := &readiness{static: slices.ContainsFunc(n.roles, func(r *role) bool { return asked(r) && r.static })}
	switch {
	case n.leaving.Load():
		r.blocked("shutting down")
	case n.draining.Load():
		r.blocked("draining: new calls are refused")
	}
	states := n.supervisor.state()
	for _, x := range n.roles {
		if x.ready != nil && (asked(x) || x.name == "") {
			x.ready(r)
		}
		for _, p := range x.parts {
			s := states[0]
			states = states[1:]
			switch why := cmp.Or(s.Error, "not started yet"); {
			case s.Running || !asked(x):
			case p.needed && !n.draining.Load():
				r.blocked("%s: %s", s.Name, why)
			default:
				r.warn("%s: %s", s.Name, why)
			}
		}
	}
	return r
}

// buildWorker makes the periodic maintenance of the database, and runs work on outside systems.
func (n *node) buildWorker(_ context.Context, r *role) error {
	var kinds []*flow.Kind // of the jobs
	drain := n.core.work.Drain
	if o := n.observer(); o != nil {
		kinds = append(kinds, o.Kind())
		drain = func(ctx context.Context) error {
			o.Drain()
			return n.core.work.Drain(ctx)
		}
	}
	if n.certificates != nil {
		kinds = append(kinds, n.certificates.Kind())
	}
	if n.tenants != nil {
		kinds = append(kinds, n.tenants.kinds()...)
	}
	if n.cfg.Zone.Publish == config.PublishUpdate {
		u, err := update.New(n.cfg.Zone.Update, n.cfg.Calls.Routing.BaseDomain, n.core.zone, n.log.With("part", "zone"),
			n.metrics)
		if err != nil {
			return fmt.Errorf("zone.update: %w", err)
		}
		kinds = append(kinds, u.Kind())
		r.ready = func(r *readiness) {
			if why := u.Problem(); why != "" {
				r.warn("zone: %s", why)
			}
		}
	}
	former := []string{check.Work().Kind, certificate.Work().Kind, update.Work().Kind} // less those that are present
	former = slices.DeleteFunc(former, func(name string) bool {
		return slices.ContainsFunc(kinds, func(k *flow.Kind) bool { return k.Name == name })
	})
	work := running("work", func(ctx context.Context) error { return n.core.work.Run(ctx, kinds, former...) })
	work.drain = drain
	r.parts = append([]part{running("directory", n.core.directory.Run), work}, n.keepZone()...)
	if n.tenants != nil {
		r.parts = append(r.parts, n.tenants.parts()...)
	}
	return nil
}
