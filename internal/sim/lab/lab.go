// Package lab runs the simulated neighbours of a gateway: three trunks of an operator's core network, three Teams edges
// for Direct Routing, one each for Operator Connect and Teams Phone Mobile, a Zoom edge, a secondary name server, and
// on demand Microsoft's cloud with two tenants, with one certificate authority for all of them. It plays the calls of
// internal/sim/fixtures between them through a gateway and reports the results.
//
// It knows the gateway only by its addresses and names: any gateway can be put in the middle.
package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tandemgw/tandem/internal/sim/ca"
	"github.com/tandemgw/tandem/internal/sim/core"
	"github.com/tandemgw/tandem/internal/sim/fixtures"
	"github.com/tandemgw/tandem/internal/sim/microsoft"
	"github.com/tandemgw/tandem/internal/sim/nameserver"
	"github.com/tandemgw/tandem/internal/sim/teams"
	"github.com/tandemgw/tandem/internal/sim/ua"
	"github.com/tandemgw/tandem/internal/sim/zoom"
)

// Gateway is where the gateway in the middle listens for each neighbour: its socket addresses and its names.
type Gateway struct {
	Base string // base domain; customers are <label>.1r1.<base>
	// CoreFixed and CoreTransit listen on UDP, CoreMobile on TCP, the others on TLS.
	CoreFixed, CoreMobile, CoreTransit           string
	DirectRouting, OperatorConnect, Mobile, Zoom string
	DNS                                          string // its name server of Base, on UDP and TCP
	Front                                        string // its public front, on TLS
}

// FrontName returns the name of the public front's pages for administrators of tenants.
func (g Gateway) FrontName() string { return "onboard." + g.Base }

// The names of the gateway towards each service.
func (g Gateway) directRouting() string   { return "1r1." + g.Base }
func (g Gateway) operatorConnect() string { return "oc." + g.Base }
func (g Gateway) mobile() string          { return "tpm." + g.Base }
func (g Gateway) zoom() string            { return "zoom." + g.Base }

// CertificateNames returns the names that a gateway's certificate must cover in this lab.
func (g Gateway) CertificateNames() []string {
	return []string{g.directRouting(), "*." + g.directRouting(), g.operatorConnect(), g.mobile(), g.zoom(),
		"core." + g.Base, g.FrontName(), "127.0.0.1"}
}

// Usual returns a Gateway with the same loopback addresses every time: SIP's default ports and those above them.
func Usual(base string) Gateway {
	return Gateway{Base: base, CoreFixed: "127.0.0.1:5060", CoreMobile: "127.0.0.1:5062", CoreTransit: "127.0.0.1:5064",
		DirectRouting: "127.0.0.1:5061", OperatorConnect: "127.0.0.1:5063", Mobile: "127.0.0.1:5065",
		Zoom: "127.0.0.1:5067", DNS: "127.0.0.1:5053", Front: "127.0.0.1:5443"}
}

// Free returns a Gateway with free loopback addresses. They are free only until another process takes them: be ready to
// retry when the gateway does not start.
func Free(base string) (Gateway, error) {
	g := Gateway{Base: base}
	for _, to := range []*string{&g.CoreFixed, &g.CoreMobile, &g.CoreTransit, &g.DirectRouting, &g.OperatorConnect,
		&g.Mobile, &g.Zoom, &g.DNS, &g.Front} {
		a, err := FreeAddress("127.0.0.1")
		if err != nil {
			return g, err
		}
		*to = a
	}
	return g, nil
}

// issued holds the ports that FreeAddress has returned, so that it returns none of them twice.
var issued struct {
	mu    sync.Mutex
	ports map[int]bool
}

// FreeAddress returns an address of host, a loopback IP, that is free for UDP and TCP. Its port is below the range of
// ports for outgoing connections (32768 and up on Linux), so that no connection takes it before a listener does.
func FreeAddress(host string) (string, error) {
	issued.mu.Lock()
	defer issued.mu.Unlock()
	if issued.ports == nil {
		issued.ports = map[int]bool{}
	}
	var last error
	for range 500 {
		port := 12_000 + rand.IntN(20_000)
		if issued.ports[port] {
			continue
		}
		addr := net.JoinHostPort(host, strconv.Itoa(port))
		u, err := net.ListenPacket("udp", addr)
		if err != nil {
			last = err
			continue
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			last = errors.Join(err, u.Close())
			continue
		}
		if err := errors.Join(u.Close(), l.Close()); err != nil {
			return "", err
		}
		issued.ports[port] = true
		return addr, nil
	}
	return "", fmt.Errorf("find a free loopback port: %w", last)
}

// Lab is the set of running neighbours. It is safe for concurrent use if calls played at the same time go to different
// numbers.
type Lab struct {
	World     *fixtures.World
	Authority *ca.Authority
	Gateway   Gateway
	Cores     map[string]*core.Network
	Teams     map[string]*teams.Proxy
	Zoom      map[string]*zoom.Edge
	Secondary *nameserver.Server // answers for Gateway.Base from a copy

	// Microsoft is nil unless it was asked for. Operator is the operator's own tenant in it, and Customer another one.
	Microsoft          *microsoft.Cloud
	Operator, Customer *microsoft.Tenant

	directory func(number string) (n, account any)
	control   func() error // ends the control
}

// Options configures a lab. The zero value is usable.
type Options struct {
	PingEvery time.Duration // how often services send OPTIONS; 60 s if 0
	Loss      *ua.Loss      // packet loss at the fixed core's UDP socket
	Keep      int           // messages kept per neighbour
	Log       *slog.Logger
	// Directory, if not nil, returns a number of the gateway's directory and its account, as values that marshal to the
	// JSON of the Provisioning API; nil if there is none. It may wait until the gateway routes calls by them. The
	// services then know every number that is provisioned for them, as if its customer had set it up there, in addition
	// to the world's.
	Directory func(number string) (n, account any)
	Microsoft bool // add Microsoft's cloud
	// Observe, if not nil, is called after each request to Microsoft's cloud, as microsoft.Config says.
	Observe func(microsoft.Exchange)
	// Control, if not empty, is a directory through which other processes place calls with TryAt.
	Control string
}

// Start starts every neighbour and fills Microsoft's and Zoom's inventories from the world.
func Start(w *fixtures.World, g Gateway, o Options) (*Lab, error) {
	a, err := ca.New("Tandem lab authority")
	if err != nil {
		return nil, err
	}
	l := &Lab{World: w, Authority: a, Gateway: g, Cores: map[string]*core.Network{}, Teams: map[string]*teams.Proxy{},
		Zoom: map[string]*zoom.Edge{}, directory: o.Directory}
	err = l.start(o)
	if err == nil && o.Control != "" {
		l.control, err = l.serve(o.Control)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Lab) start(o Options) error {
	g := l.Gateway
	for name, c := range map[string]core.Config{
		"core-fixed":   {UDP: "127.0.0.1:0", TCP: "udp", Loss: o.Loss},
		"core-mobile":  {TCP: "127.0.0.1:0"},
		"core-transit": {UDP: "127.0.0.1:0"},
	} {
		c.Name, c.Keep, c.Log = name, o.Keep, o.Log
		n, err := core.New(c)
		if err != nil {
			return err
		}
		l.Cores[name] = n
	}

	cloud := &teams.Cloud{Ask: l.tenantOf, Owner: l.owner, Gateway: l.gateway}
	// The carrier's own tenant holds the trunk's name (gateway-calls §3.1); it has no numbers.
	cloud.AddTenant("carrier", g.directRouting())
	for _, c := range l.World.Customers {
		if c.Subdomain != "" {
			cloud.AddTenant(c.TenantID, c.Subdomain+"."+g.directRouting())
		}
		for _, b := range c.Numbers {
			if strings.HasPrefix(b.Service, "teams") {
				cloud.AddNumber(c.TenantID, b.List()...)
			}
		}
	}
	forbidden := []string{l.World.CustomHeader}
	for _, t := range []struct {
		name, host, gateway, addr string
		kind                      teams.Interface
	}{
		{"teams-1", "sip.pstnhub.microsoft.com", g.directRouting(), g.DirectRouting, teams.DirectRouting},
		{"teams-2", "sip2.pstnhub.microsoft.com", g.directRouting(), g.DirectRouting, teams.DirectRouting},
		{"teams-3", "sip3.pstnhub.microsoft.com", g.directRouting(), g.DirectRouting, teams.DirectRouting},
		{"oc-1", "oc.pstnhub.microsoft.com", g.operatorConnect(), g.OperatorConnect, teams.OperatorConnect},
		{"tpm-1", "tpm.pstnhub.microsoft.com", g.mobile(), g.Mobile, teams.PhoneMobile},
	} {
		p, err := teams.New(teams.Config{Cloud: cloud, Interface: t.kind, Host: t.host, Authority: l.Authority,
			Gateway: t.gateway, Resolve: l.resolver(t.addr), Forbidden: forbidden, PingEvery: o.PingEvery,
			Keep: o.Keep, Log: o.Log})
		if err != nil {
			return err
		}
		l.Teams[t.name] = p
	}
	z, err := zoom.New(zoom.Config{Authority: l.Authority, Gateway: g.zoom(), Resolve: l.resolver(g.Zoom),
		Ask: l.billing, Forbidden: forbidden, Keep: o.Keep, Log: o.Log})
	if err != nil {
		return err
	}
	for _, c := range l.World.Customers {
		for _, b := range c.Numbers {
			if b.Service == "zoomPhoneCloudPeering" {
				z.AddNumber(c.Account, b.List()...)
			}
		}
	}
	l.Zoom["zoom-1"] = z

	at, err := FreeAddress("127.0.0.1")
	if err == nil {
		l.Secondary, err = nameserver.New(nameserver.Config{Zone: g.Base, Primary: g.DNS, Listen: at,
			KeyName: "transfer." + g.Base})
	}
	if err == nil && o.Microsoft {
		err = l.startMicrosoft(o.Observe)
	}
	return err
}

// tenantOf returns the tenant of a number, and the tenant's domain: of one that is provisioned for a service of Teams,
// or, without its domain (see owner), of one that a user in Microsoft's cloud has.
func (l *Lab) tenantOf(number string) (tenant, domain string) {
	if id, _ := l.route(number, ""); id != "" {
		return id, ""
	}
	e := l.entry(number)
	if !strings.HasPrefix(e.service, "teams") {
		return "", ""
	}
	if e.label != "" {
		domain = e.label + "." + l.Gateway.directRouting()
	}
	if l.onboarded(domain) {
		return "", "" // no user of the tenant has it
	}
	return e.tenant, domain
}

// billing returns the billing reference of a number that is provisioned for Zoom.
func (l *Lab) billing(number string) string {
	if e := l.entry(number); e.service == "zoomPhoneCloudPeering" {
		return e.account
	}
	return ""
}

// resolver replaces DNS: every name of the gateway resolves to addr.
func (l *Lab) resolver(addr string) func(string, int) (string, error) {
	return func(host string, _ int) (string, error) {
		if !strings.HasSuffix(strings.ToLower(host), "."+l.Gateway.Base) {
			return "", fmt.Errorf("no such name: %s", host)
		}
		return addr, nil
	}
}

// Close stops every neighbour.
func (l *Lab) Close() error {
	var err error
	if l.control != nil {
		err = l.control()
	}
	if l.Secondary != nil {
		err = errors.Join(err, l.Secondary.Close())
	}
	if l.Microsoft != nil {
		err = errors.Join(err, l.Microsoft.Close())
	}
	for _, c := range l.Cores {
		err = errors.Join(err, c.Close())
	}
	for _, t := range l.Teams {
		err = errors.Join(err, t.Close())
	}
	for _, z := range l.Zoom {
		err = errors.Join(err, z.Close())
	}
	return err
}

// Agent returns the user agent of a neighbour, or nil.
func (l *Lab) Agent(name string) *ua.Agent {
	a, _ := l.agent(name)
	return a
}

// Script returns what a neighbour does with calls, or nil.
func (l *Lab) Script(name string) *ua.Script {
	_, s := l.agent(name)
	return s
}

// Place has a fixture's neighbour place the call. The caller handles the rest.
func (l *Lab) Place(ctx context.Context, f fixtures.Call) (*ua.Call, error) { return l.place(ctx, f) }

// agent returns the user agent and the script of a neighbour.
func (l *Lab) agent(name string) (*ua.Agent, *ua.Script) {
	if c, ok := l.Cores[name]; ok {
		return c.Agent, &c.Script
	}
	if t, ok := l.Teams[name]; ok {
		return t.Agent, &t.Script
	}
	if z, ok := l.Zoom[name]; ok {
		return z.Agent, &z.Script
	}
	return nil, nil
}

// Neighbours returns the names of all neighbours.
func (l *Lab) Neighbours() []string {
	var out []string
	for n := range l.Cores {
		out = append(out, n)
	}
	for n := range l.Teams {
		out = append(out, n)
	}
	for n := range l.Zoom {
		out = append(out, n)
	}
	return out
}

// Violations returns descriptions of the gateway's violations of the services' rules so far.
func (l *Lab) Violations() []string {
	var out []string
	for _, n := range []string{"teams-1", "teams-2", "teams-3", "oc-1", "tpm-1"} {
		out = append(out, l.Teams[n].Violations()...)
	}
	return append(out, l.Zoom["zoom-1"].Violations()...)
}

// Calls returns the number of calls that are up at all neighbours together.
func (l *Lab) Calls() int {
	n := 0
	for _, name := range l.Neighbours() {
		a, _ := l.agent(name)
		n += a.Calls()
	}
	return n
}

// Known reports whether every Teams edge has received OPTIONS from the gateway, before which it accepts no calls, and
// whether the gateway has answered theirs: for the trunk, and for the gateway objects of customers below it.
func (l *Lab) Known() (heard, answered bool) {
	g := l.Gateway
	heard, answered = true, true
	for name, p := range l.Teams {
		host := g.directRouting()
		switch name {
		case "oc-1":
			host = g.operatorConnect()
		case "tpm-1":
			host = g.mobile()
		}
		hosts := []string{host}
		if l.Microsoft != nil && host == g.directRouting() {
			hosts = append(hosts, l.Microsoft.Gateways()...)
		}
		for _, h := range hosts {
			if h == host || strings.HasSuffix(h, "."+host) {
				h, a := p.Knows(h)
				heard, answered = heard && h, answered && a
			}
		}
	}
	return heard, answered
}
