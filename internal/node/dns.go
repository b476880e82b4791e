package node

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	api "github.com/tandemgw/tandem/api/manage"
	"github.com/tandemgw/tandem/internal/config"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/provisioning/directory"
	"github.com/tandemgw/tandem/internal/zone"
	"github.com/tandemgw/tandem/internal/zone/check"
	"github.com/tandemgw/tandem/internal/zone/nameserver"
)

// names is the role dns: a name server of the base domain. It follows the database, and answers without it.
type names struct {
	server *nameserver.Server
	at     []string // as bound at the start
}

// buildDNS makes a name server, if the configuration has a zone and addresses to answer on.
func (n *node) buildDNS(_ context.Context, r *role) error {
	cfg := &n.cfg.Zone
	if len(cfg.Server.Listen) == 0 { // nor with publish: update or none
		return nil
	}
	log := n.log.With("part", "zone")
	z := zone.New(n.cfg.Calls.Routing.BaseDomain, cfg.Names.NameServers[0].Name, cfg.Names.Contact)
	server, err := nameserver.New(z, cfg.Server, log, n.metrics)
	if err != nil {
		return fmt.Errorf("zone: %w", err)
	}
	n.names, err = zone.Follow(z, n.cfg.Path("zone"), n.core.zone, server.Changed, log, n.metrics)
	if err != nil {
		return err
	}

	x := &names{server, slices.Clone(cfg.Server.Listen)}
	r.static = true
	r.parts = []part{running("zone", n.names.Run), {name: "dns", open: x.open, needed: true}}
	r.ready = func(r *readiness) {
		if z.Serial() == 0 {
			r.blocked("dns: the zone was never loaded; it is published by a node with the role worker")
		}
		if k := n.names.Kept(); k.Lost > 0 {
			r.warn("dns: the database lacks %d of the zone's %d records; the old zone is used until tandem zone accept",
				k.Lost, k.Records)
		}
	}
	r.started = func(*Ready) { log.Info("answering for the zone", "zone", z.Origin(), "addresses", x.at) }

	return nil
}

// open opens the sockets.
func (x *names) open(ctx context.Context) (func(context.Context) error, error) {
	var packets []net.PacketConn
	var streams []net.Listener
	var lc net.ListenConfig
	for i := range x.at {
		l, err := lc.Listen(ctx, "tcp", x.at[i])
		if err == nil {
			streams = append(streams, l)
			x.at[i] = l.Addr().String() // port 0 was replaced; a restart uses the same
			var p net.PacketConn
			if p, err = lc.ListenPacket(ctx, "udp", x.at[i]); err == nil {
				packets = append(packets, p)
			}
		}
		if err != nil {
			for _, p := range packets {
				_ = p.Close()
			}
			for _, l := range streams {
				_ = l.Close()
			}
			return nil, fault.CannotListen(fmt.Sprintf("zone.listen[%d]", i), x.at[i], err)
		}
	}

	return func(ctx context.Context) error { return x.server.Serve(ctx, packets, streams) }, nil
}

// keepZone returns the part that publishes the configuration and the customers in the zone; none if the operator does.
func (n *node) keepZone() []part {
	if !n.cfg.Zone.Published() {
		return nil
	}
	keeper := zone.NewKeeper(&n.cfg.Zone.Names, n.cfg.Calls.Routing.BaseDomain, n.cfg.Calls.Routing.Regions, frontHosts,
		n.core.zone, customers{n.core.directory}, n.log.With("part", "zone"))

	return []part{running("names", keeper.Run), running("provapi", zone.NewMover(keeper, n.core.zone).Run)}
}

// beat returns the part that says that this node serves the Provisioning API in its region; none if nobody publishes
// that.
func (n *node) beat() []part {
	if !n.cfg.Zone.Published() {
		return nil
	}
	node, region := n.cfg.Calls.Edge.Node, n.cfg.Calls.Headers.Region

	ready := func() bool { return n.readiness(config.RoleAPI).ready() }

	return []part{running("region", func(ctx context.Context) error {
		return zone.Report(ctx, n.core.zone, node, region, ready, n.log.With("part", "zone"))
	})}
}

// inspector returns what answers questions about the zone.
func (n *node) inspector() *check.Inspector {
	cfg := &n.cfg.Zone
	parents := &check.Parents{Lookup: net.DefaultResolver}
	for _, a := range cfg.Parents {
		parents.At = append(parents.At, netip.MustParseAddrPort(a)) // validated
	}

	at := ""
	if cfg.Publish == config.PublishUpdate {
		at = cfg.Update.Zone
	}

	return &check.Inspector{Names: &cfg.Names, Base: n.cfg.Calls.Routing.BaseDomain,
		Regions: n.cfg.Calls.Routing.Regions, Fronts: frontHosts, Published: cfg.Published(),
		Serves: cfg.Publish == config.PublishServe, Store: n.core.zone, Owners: customers{n.core.directory},
		Servers: check.NewServers(cfg.Names.NameServers, nil), Parents: parents, Zone: at}
}

// zoneOperations implements the management API's operations on the zone (api/manage/v1.yaml).
type zoneOperations struct {
	check.Operations
	n *node
}

// AcceptZone implements the operation acceptZone. It writes to the audit log first.
func (o zoneOperations) AcceptZone(ctx context.Context,
	_ api.AcceptZoneRequestObject) (api.AcceptZoneResponseObject, error) {
	node := o.n.cfg.Calls.Edge.Node
	if o.n.names == nil {
		return nil, fault.New(fault.Conflict, "NotOnThisNode", "node %s has no name server; use a node that has the "+
			"role dns, and addresses in zone.listen", node)
	}

	return api.AcceptZone202Response{}, o.n.names.Accept(func(k zone.Kept) error {
		return o.n.core.audit(ctx, "zone.accept", node, 1,
			map[string]any{"database": k.Database, "records": k.Records, "lost": k.Lost})
	})
}

// observer returns what keeps subdomainStatus true; nil without a zone.
func (n *node) observer() *check.Observer {
	cfg := &n.cfg.Zone
	if !cfg.Enabled() {
		return nil
	}

	return check.NewObserver(&cfg.Names, n.cfg.Calls.Routing.BaseDomain, n.cfg.Calls.Routing.Regions, cfg.CheckEvery,
		check.NewServers(cfg.Names.NameServers, nil), customers{n.core.directory}, n.core.feed,
		n.log.With("part", "zone"), n.metrics)
}

// customers are the accounts of the directory with their labels.
type customers struct{ d *directory.Directory }

// Observed implements check.Accounts.
func (c customers) Observed(ctx context.Context, all []check.Observed) error {
	seen := make([]directory.Seen, len(all))
	for i, x := range all {
		seen[i] = directory.Seen(x)
	}

	return c.d.SetSubdomainStatus(ctx, seen)
}

// Customer implements zone.Customers.
func (c customers) Customer(ctx context.Context, account string) (zone.Customer, error) {
	a, err := c.d.Account(ctx, account)
	if fault.Is(err, fault.NotFound) {
		return zone.Customer{Account: account}, nil
	}
	if err != nil {
		return zone.Customer{}, err
	}

	return labels(&a), nil
}

// Owner implements check.Owners.
func (c customers) Owner(ctx context.Context, label string) (zone.Customer, error) {
	account, err := c.d.LabelOwner(ctx, label)
	if err != nil || account == "" {
		return zone.Customer{}, err
	}

	return c.Customer(ctx, account)
}

// Customers implements zone.Customers.
func (c customers) Customers(ctx context.Context, after string, limit int) ([]zone.Customer, error) {
	page, err := c.d.Accounts(ctx, directory.Query{After: after, Limit: limit})
	if err != nil {
		return nil, err
	}
	list := make([]zone.Customer, len(page.Items))
	for i := range page.Items {
		list[i] = labels(&page.Items[i])
	}

	return list, nil
}

// labels returns an account with its labels.
func labels(a *domain.Account) zone.Customer {
	c := zone.Customer{Account: a.Name, Active: a.Active(), Status: a.Services[a.Labelled()].SubdomainStatus}
	if a.Pending != nil {
		c.Pending = *a.Pending
	}

	return c
}
