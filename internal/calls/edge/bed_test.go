package edge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/calls/leg"
	"github.com/tandemgw/tandem/internal/calls/record"
	"github.com/tandemgw/tandem/internal/calls/route"
	"github.com/tandemgw/tandem/internal/calls/sip"
	"github.com/tandemgw/tandem/internal/calls/sip/resolve"
	"github.com/tandemgw/tandem/internal/calls/sip/transaction"
	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/services"
	"github.com/tandemgw/tandem/internal/services/directrouting"
	"github.com/tandemgw/tandem/internal/services/operatorconnect"
	"github.com/tandemgw/tandem/internal/services/zoom"
)

// Numbers of the tests.
const (
	served  = "+442079460101" // provisioned for Operator Connect
	direct  = "+442079460102" // provisioned for Direct Routing
	open_   = "+442079460103" // provisioned for Zoom, whose test profile takes INVITEs without an offer
	outside = "+33140205050"  // not provisioned
)

// index is a route.View of the tests.
type index map[domain.E164]route.Number

func (x index) Number(n domain.E164) (route.Number, bool) { v, ok := x[n]; return v, ok }

func (x index) CustomHeader(n domain.E164) string {
	if _, ok := x[n]; ok {
		return "c-" + string(n[len(n)-3:])
	}
	return ""
}

func (x index) AccountByLabel(label string) *domain.AccountRouting {
	if label == account.Subdomain {
		return account
	}
	return nil
}

var account = &domain.AccountRouting{Name: "acme",
	Enabled:   domain.ServiceSet(0).With(operatorconnect.Service).With(directrouting.Service).With(zoom.Service),
	Subdomain: "acme", CallScreening: true}

func testIndex() index {
	n := func(s domain.Service) route.Number {
		return route.Number{Account: account, Services: domain.ServiceSet(0).With(s)}
	}
	return index{served: n(operatorconnect.Service), direct: n(directrouting.Service), open_: n(zoom.Service)}
}

// testProfile stands in for a service's profile: it names the service on what goes to it, and the custom header on what
// goes to the core.
type testProfile struct {
	service domain.Service
	rules   *leg.Rules
	hook    func(*sip.Message) // called with what is shaped; nil: nothing
}

func (p testProfile) Service() domain.Service { return p.service }
func (p testProfile) ToService(m *sip.Message, l *leg.Leg) {
	if p.hook != nil {
		p.hook(m)
	}
	leg.Address(m, l.Local, l.Remote)
	p.rules.Identify(m, l.Local, l)
}
func (p testProfile) ToCore(m *sip.Message, l *leg.Leg) {
	if p.hook != nil {
		p.hook(m)
	}
	p.rules.ShapeForCore(m, l)
}
func (p testProfile) Ping(m *sip.Message, l *leg.Leg) { p.rules.Identify(m, l.Local, l) }
func (p testProfile) NeedsOffer() bool                { return p.service != zoom.Service }

// bed is an edge with its neighbours.
type bed struct {
	t       *testing.T
	begun   time.Time
	e       *Edge
	core    *agent
	svc     *agent   // first peer of Operator Connect
	more    []*agent // its further peers
	zoom    *agent
	log     *syncBuffer
	reg     *prometheus.Registry // of the layers below the edge too
	stop    context.CancelFunc
	stopped chan error

	mu      sync.Mutex // guards the fields below
	records []*record.Record
	got     chan *record.Record
	view    route.View
}

// Put implements record.Sink.
func (b *bed) Put(r *record.Record) {
	b.mu.Lock()
	b.records = append(b.records, r)
	b.mu.Unlock()
	b.got <- r
}

// record waits for the next call record.
func (b *bed) record() *record.Record {
	b.t.Helper()
	select {
	case r := <-b.got:
		return r
	case <-time.After(patience):
		b.t.Fatalf("no call record came")
		return nil
	}
}

func (b *bed) setView(v route.View) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.view = v
}

// len returns the number of legs.
func (t *table) len() int {
	n := 0
	for i := range t.parts {
		p := &t.parts[i]
		p.mu.Lock()
		n += len(p.m)
		p.mu.Unlock()
	}
	return n
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// option changes a test's edge before it is made.
type option func(*bedConfig)

type bedConfig struct {
	cfg      Config
	tx       transaction.Config
	peers    int                // of Operator Connect
	passive  string             // name of the passive peer
	hook     func(*sip.Message) // of Operator Connect's profile
	route    route.Config
	core     *Group
	service  *Group
	zoom     *Group
	shutdown bool // the test stops the edge itself
	serial   bool // no other test may run at the same time
	resolver *resolve.Resolver
	tlsCore  *agent // in place of the core's agent
	gateways func() []string
	// hookPeers is called with the agents in place, before the edge runs.
	hookPeers func(*bed)
}

// setup starts an edge between a core, Operator Connect with its peers, and Zoom. OPTIONS to peers are off unless a
// test turns them on.
func setup(t *testing.T, opts ...option) *bed {
	t.Helper()
	bc := &bedConfig{cfg: Default(), peers: 1}
	// 64×T1 = 2 s, so that tests that need a timeout do not take long.
	bc.tx = transaction.Config{T1: 32 * time.Millisecond, T2: 128 * time.Millisecond, T4: 100 * time.Millisecond}
	group := func(name, service string) Group {
		return Group{Name: name, Service: service, Transport: "udp", Options: Options{Off: true}}
	}
	bc.cfg.Groups = []Group{group("core-a", ""), group("teams", "teamsOperatorConnect"),
		group("zoom", "zoomPhoneCloudPeering")}
	for i := range bc.cfg.Groups {
		// Groups that name the same address share a socket, so each gets its own; all agents send from 127.0.0.1.
		bc.cfg.Groups[i].Bind.UDP = fmt.Sprintf("127.0.0.%d:0", i+1)
	}
	bc.core, bc.service, bc.zoom = &bc.cfg.Groups[0], &bc.cfg.Groups[1], &bc.cfg.Groups[2]
	bc.route = route.Default()
	for _, o := range opts {
		o(bc)
	}
	if !bc.serial {
		t.Parallel()
	}
	b := &bed{t: t, begun: time.Now(), log: &syncBuffer{}, got: make(chan *record.Record, 4096), view: testIndex(),
		reg: prometheus.NewRegistry()}
	b.zoom = newAgent(t, "zoom")
	if b.core = bc.tlsCore; b.core == nil {
		b.core = newAgent(t, "core")
	}
	bc.core.Peers = append(bc.core.Peers, Peer{Name: "c1", Address: b.core.addr(), Passive: bc.passive == "c1"})
	bc.zoom.Peers = append(bc.zoom.Peers, Peer{Name: "z1", Address: b.zoom.addr()})
	for i := range bc.peers {
		a := newAgent(t, fmt.Sprintf("svc%d", i+1))
		bc.service.Peers = append(bc.service.Peers, Peer{Name: a.name, Address: a.addr(), Priority: i,
			Passive: bc.passive == a.name})
		if i == 0 {
			b.svc = a
		} else {
			b.more = append(b.more, a)
		}
	}
	if errs := bc.cfg.Validate(services.All().Services()); len(errs) > 0 {
		t.Fatalf("configuration: %v", errors.Join(errs...))
	}
	policy, errs := bc.route.Compile(services.All().Services(), bc.cfg.RouteGroups(services.All().Services()))
	if len(errs) > 0 {
		t.Fatalf("routing: %v", errors.Join(errs...))
	}
	lc := leg.Default()
	rules := lc.Rules("test")
	level := slog.LevelDebug
	log := slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: level}))
	var teams leg.Profile = testProfile{directrouting.Service, rules, nil}
	if bc.gateways != nil { // whose names the real one writes
		var err error
		if teams, err = directrouting.New(rules, leg.Names{BaseDomain: "gw.example",
			Regions: []string{"1r1", "1r2"}}); err != nil {
			t.Fatal(err)
		}
	}
	e, err := New(bc.cfg, Deps{Policy: policy, Rules: rules, Gateways: bc.gateways,
		Profiles: []leg.Profile{testProfile{operatorconnect.Service, rules, bc.hook},
			testProfile{zoom.Service, rules, nil}, teams},
		View: func() route.View {
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.view
		},
		Records: b, Resolver: bc.resolver, Log: log, Registerer: b.reg, Transaction: bc.tx})
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	b.e = e
	if bc.hookPeers != nil {
		bc.hookPeers(b)
	}
	for _, g := range e.groups {
		for _, p := range g.peers {
			for _, a := range append([]*agent{b.core, b.svc, b.zoom}, b.more...) {
				if a != nil && p.cfg.Address == a.addr() {
					a.edge = g.eps[g.proto].Local()
				}
			}
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.stop, b.stopped = cancel, make(chan error, 1)
	go func() { b.stopped <- e.Run(ctx) }()
	await(t, "the edge to run", func() bool { return e.running.Load() })
	t.Cleanup(func() {
		cancel()
		if !bc.shutdown {
			if err := <-b.stopped; err != nil {
				t.Errorf("Run: %v", err)
			}
		}
		n := b.events("tandem_sip_transaction_events_total", "panic")
		if n += b.events("tandem_sip_transport_events_total", "panic"); n != 0 {
			t.Errorf("%v panics; see the log:\n%s", n, b.log.String())
		}
		if n := e.calls.len(); n != 0 {
			t.Errorf("%d legs are left after the end", n)
		}
		if n := e.Calls(); n != 0 {
			t.Errorf("%d calls are left after the end", n)
		}
		if t.Failed() && testing.Verbose() {
			_, _ = os.Stderr.WriteString(b.log.String())
		}
	})
	return b
}

// await polls until cond holds.
func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	late := time.After(patience)
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for !cond() {
		select {
		case <-look.C:
		case <-late:
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}

// idle waits until no call and no leg is left.
func (b *bed) idle() {
	b.t.Helper()
	await(b.t, "calls and legs to end", func() bool { return b.e.Calls() == 0 && b.e.calls.len() == 0 })
}

// established sets up a call from one agent to another through the edge and returns both ends of it.
func (b *bed) established(from, to *agent, caller, called string) (up, down *talk) {
	b.t.Helper()
	up = from.newCall(caller, called)
	from.send(up.request("INVITE", sdp))
	from.expect("100")
	inv := to.expect("INVITE")
	down = to.called(inv)
	to.send(down.reply(inv, "180 Ringing", ""))
	from.expect("180")
	to.send(down.reply(inv, "200 OK", sdp))
	ok := from.expect("200")
	up.answered(ok)
	from.send(up.ack(1, ""))
	to.expect("ACK")
	return up, down
}

// over ends a call from one end and checks that the other gets BYE.
func (b *bed) over(by, other *talk) {
	b.t.Helper()
	by.a.send(by.request("BYE", ""))
	by.a.expect("200")
	bye := other.a.expect("BYE")
	other.a.send(other.reply(bye, "200 OK", ""))
}
