package edge

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tandemgw/tandem/internal/calls/sip/resolve"
	"github.com/tandemgw/tandem/internal/calls/sip/transport"
	"github.com/tandemgw/tandem/internal/services"
	"github.com/tandemgw/tandem/internal/services/directrouting"
	"github.com/tandemgw/tandem/internal/testkit/pace"
)

// planGroup returns a group of peers for tests of plan alone.
func planGroup(peers ...Peer) *group {
	cfg := &Group{Name: "g", Transport: "udp", Peers: peers, Bind: Addresses{UDP: "127.0.0.1:0"}}
	var k checker
	k.group("g", cfg)
	if len(k.Problems) > 0 {
		panic(fmt.Sprint(k.Problems))
	}
	g := &group{cfg: cfg, proto: transport.UDP}
	g.live.Store(cfg)
	for i := range cfg.Peers {
		g.peers = append(g.peers, newPeer(g, &cfg.Peers[i]))
	}
	return g
}

func noDNS(resolve.Query) ([]netip.AddrPort, bool) { return nil, false }

func order(list []*address) string {
	var names []string
	for _, a := range list {
		names = append(names, a.peer.cfg.Name+"@"+a.addr.String())
	}
	return strings.Join(names, " ")
}

func TestPeersAreTriedByPriorityThenWeight(t *testing.T) {
	covers(t, "P1")
	g := planGroup(Peer{Name: "backup", Address: "192.0.2.9:5060", Priority: 1},
		Peer{Name: "heavy", Address: "192.0.2.1:5060", Weight: 3},
		Peer{Name: "light", Address: "192.0.2.2:5060", Weight: 1})
	// New sorts them.
	g.peers[0], g.peers[1], g.peers[2] = g.peers[1], g.peers[2], g.peers[0]
	first := map[string]int{}
	const n = 8000
	for range n {
		l := plan(nil, []*group{g}, noDNS, time.Now())
		if len(l) != 3 || l[2].peer.cfg.Name != "backup" {
			t.Fatalf("order = %s, want the backup last", order(l))
		}
		first[l[0].peer.cfg.Name]++
	}
	if got := float64(first["heavy"]) / n; got < 0.72 || got > 0.78 {
		t.Errorf("heavy came first in %.0f %% of calls, want 75 %%", 100*got)
	}
}

func TestAllAddressesOfANameComeBeforeTheNextPeer(t *testing.T) {
	covers(t, "P1", "P2", "P8", "P9")
	addr := func(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
	g := planGroup(Peer{Name: "one", Address: "sip.example.net:5061", Priority: 0},
		Peer{Name: "two", Address: "sip2.example.net", Priority: 1},
		Peer{Name: "three", Address: "192.0.2.30:5060", Priority: 2})
	find := func(q resolve.Query) ([]netip.AddrPort, bool) {
		switch q.Host {
		case "sip.example.net":
			if q.Port != 5061 {
				t.Errorf("query %+v for a peer with a port", q)
			}
			return []netip.AddrPort{addr("192.0.2.10:5061"), addr("192.0.2.11:5061")}, true
		case "sip2.example.net":
			return []netip.AddrPort{addr("192.0.2.20:5070"), addr("192.0.2.11:5061")}, true
		}
		return nil, false
	}
	now := time.Now()
	const first = "one@192.0.2.10:5061"
	const others = "one@192.0.2.11:5061 two@192.0.2.20:5070 two@192.0.2.11:5061 three@192.0.2.30:5060"
	got := order(plan(nil, []*group{g}, find, now))
	if want := first + " " + others; got != want {
		t.Errorf("order = %s, want %s", got, want)
	}
	// One address is down: it comes last, and the other of the same name first.
	a := g.peers[0].at(addr("192.0.2.10:5061"))
	a.bad(now, "test", 0, slog.New(slog.DiscardHandler))
	a.bad(now, "test", 0, slog.New(slog.DiscardHandler))
	got = order(plan(nil, []*group{g}, find, now))
	if want := others + " " + first; got != want {
		t.Errorf("order = %s, want %s", got, want)
	}
	// All are down: all are tried, in the usual order.
	for _, p := range g.peers {
		for _, a := range p.addresses(find, nil) {
			a.bad(now, "test", 0, slog.New(slog.DiscardHandler))
			a.bad(now, "test", 0, slog.New(slog.DiscardHandler))
		}
	}
	got = order(plan(nil, []*group{g}, find, now))
	if want := first + " " + others; got != want {
		t.Errorf("order with all down = %s, want %s", got, want)
	}
}

// Rotating DNS (Teams: by place, for seconds) removes an address from a name while it has calls.
func TestAnAddressThatLeavesItsNameStaysAKnownSource(t *testing.T) {
	covers(t, "S9")
	one, two := netip.MustParseAddrPort("192.0.2.10:5061"), netip.MustParseAddrPort("192.0.2.20:5061")
	now := time.Now()
	has := one
	find := func(resolve.Query) ([]netip.AddrPort, bool) { return []netip.AddrPort{has}, true }
	g := planGroup(Peer{Name: "one", Address: "sip.example.net:5061"})
	other := planGroup(Peer{Name: "other", Address: "192.0.2.30:5061", AllowedSources: []string{"192.0.2.40"}})
	e := &Edge{cfg: Config{Timers: Timers{MaxDuration: time.Hour}}, groups: []*group{g}, find: find,
		log: slog.New(slog.DiscardHandler)}
	w := newWatch(e)
	p := g.peers[0]
	source := func(a netip.AddrPort) *group { return newSources([]*group{g, other}, nil, g.proto).group(a.Addr()) }
	shown := func() (out string) {
		for _, s := range e.Peers() {
			out += s.Address + " "
		}
		return out
	}
	w.names(now, true)
	p.at(one).bad(now, "test", 0, e.log)
	p.at(one).bad(now, "test", 0, e.log)
	has = two
	w.names(now, false)
	if source(one) != g || source(two) != g {
		t.Errorf("after DNS has rotated the sources are %v and %v, want the group for both", source(one), source(two))
	}
	if got := order(plan(nil, []*group{g}, find, now)); got != "one@"+two.String() {
		t.Errorf("calls go to %s, want only what the name resolves to now", got)
	}
	if got := shown(); got != two.String()+" " {
		t.Errorf("peers shown: %s, want only what the name resolves to now", got)
	}
	if _, ok := w.due[ping{to: p.at(one)}]; ok {
		t.Errorf("an address that the name no longer has still gets OPTIONS")
	}
	// Back again: the state is kept, and OPTIONS is sent at once.
	has = one
	now = now.Add(59 * time.Minute)
	w.names(now, false)
	if p.at(one).usable(now) {
		t.Errorf("the address is no longer down after DNS had another one")
	}
	if due := w.due[ping{to: p.at(one)}]; due != now {
		t.Errorf("OPTIONS to an address that came back is due at %v, want now", due)
	}
	// The grace restarts when it leaves again, and ends.
	has = netip.MustParseAddrPort("192.0.2.40:5061") // the other group's own
	w.names(now, false)
	now = now.Add(59 * time.Minute)
	w.names(now, false)
	if source(one) != g {
		t.Errorf("an address that left less than the grace ago is unknown")
	}
	now = now.Add(2 * time.Minute)
	w.names(now, false)
	if source(one) != nil || source(two) != nil {
		t.Errorf("addresses that left longer ago than a call may last are still known sources")
	}
	if n := len(p.addrs); n != 1 {
		t.Errorf("%d addresses are remembered, want 1", n)
	}
	// An address that belongs to another group now is that group's.
	has = one
	w.names(now, false)
	if source(netip.MustParseAddrPort("192.0.2.40:5061")) != other {
		t.Errorf("an address that left a name does not belong to the group that has it now")
	}
}

func TestUpAndDownWithHysteresis(t *testing.T) {
	covers(t, "P4", "P5", "P7")
	log := slog.New(slog.DiscardHandler)
	now := time.Now()
	g := planGroup(Peer{Name: "p", Address: "192.0.2.1:5060"},
		Peer{Name: "quiet", Address: "192.0.2.2:5060", Passive: true})
	a := g.peers[0].fixed
	steps := []struct {
		what   string
		usable bool
	}{{"bad", true}, {"good", true}, {"bad", true}, {"bad", false}, {"good", false}, {"bad", false},
		{"good", false}, {"good", true}}
	for i, s := range steps {
		if s.what == "bad" {
			a.bad(now, "test", 0, log)
		} else {
			a.good(now, log)
		}
		if got := a.usable(now); got != s.usable {
			t.Fatalf("after step %d (%s) usable = %v, want %v", i, s.what, got, s.usable)
		}
	}
	// Retry-After takes effect at once, for its time only, and is bounded.
	a.bad(now, "503", 20*time.Second, log)
	if a.usable(now.Add(19 * time.Second)) {
		t.Errorf("usable within its Retry-After")
	}
	a.good(now, log)
	if !a.usable(now.Add(21 * time.Second)) {
		t.Errorf("not usable after its Retry-After")
	}
	a.bad(now, "503", 1000*time.Hour, log)
	a.good(now, log)
	if !a.usable(now.Add(maxBackoff + time.Second)) {
		t.Errorf("a Retry-After of weeks is not bounded")
	}
	// A passive peer is tried again without OPTIONS.
	q := g.peers[1].fixed
	q.bad(now, "silence", 0, log)
	q.bad(now, "silence", 0, log)
	if q.usable(now) {
		t.Errorf("a passive peer that failed twice is usable at once")
	}
	if !q.usable(now.Add(g.cfg.Options.Every)) {
		t.Errorf("a passive peer that failed is never tried again")
	}
}

func (b *bed) peerState(name string) PeerState {
	for _, p := range b.e.Peers() {
		if p.Peer == name {
			return p
		}
	}
	b.t.Fatalf("no state of peer %s", name)
	return PeerState{}
}

func TestOptionsDecideWhetherAPeerIsUp(t *testing.T) {
	covers(t, "P3", "P4", "P2")
	b := setup(t, func(c *bedConfig) {
		c.peers = 2
		c.service.Options = Options{Every: time.Second, Timeout: 32 * time.Second, DownAfter: 1, UpAfter: 1}
	})
	o := b.svc.expect("OPTIONS")
	if c := o.contact(); !strings.Contains(c, b.svc.edge.String()) {
		t.Errorf("Contact of OPTIONS = %q, want our address", c)
	}
	if o.get("Allow") == "" || o.get("Max-Forwards") != "70" || strings.Contains(o.get("From"), "@") {
		t.Errorf("OPTIONS came as\n%s", o.raw)
	}
	b.svc.send((&talk{a: b.svc, localTag: "o"}).reply(o, "200 OK", ""))
	notFound, fine := "404 Not Found", "200 OK"
	b.more[0].options.Store(&notFound) // any response means that it is available
	await(t, "the first answer to count", func() bool { return !b.peerState("svc1").Unknown })
	b.svc.send((&talk{a: b.svc, localTag: "o"}).reply(b.svc.expect("OPTIONS"), "503 Service Unavailable", "",
		"Retry-After: 1"))
	await(t, "svc1 to be down", func() bool { return !b.peerState("svc1").Up })
	if s := b.peerState("svc1"); !strings.Contains(s.Reason, "503") || s.RetryAfter.IsZero() {
		t.Errorf("state = %+v, want the reason and the time", s)
	}
	// The other one gets the call, despite its lower priority.
	await(t, "svc2 to be asked", func() bool { return !b.peerState("svc2").Unknown })
	for len(b.more[0].in) > 0 {
		<-b.more[0].in // an OPTIONS from before
	}
	up, down := b.established(b.core, b.more[0], outside, served)
	b.over(up, down)
	if s := b.peerState("svc2"); !s.Up {
		t.Errorf("svc2 answered 404 to OPTIONS and is down: %+v", s)
	}
	// It is available again.
	b.svc.options.Store(&fine)
	await(t, "svc1 to be up", func() bool { return b.peerState("svc1").Up })
}

// A name with a gateway object at Teams has OPTIONS of its own, as long as it has that. The answers to them say nothing
// about the peer.
func TestOptionsForGatewayObjects(t *testing.T) {
	covers(t, "P13")
	var labels atomic.Pointer[[]string]
	labels.Store(&[]string{"acme"})
	b := setup(t, func(c *bedConfig) {
		c.service.Service = directrouting.Service.String()
		c.service.Options = Options{Every: time.Second, Timeout: 32 * time.Second, DownAfter: 1, UpAfter: 1}
		c.route.EmergencyDialStrings = []string{"112"}
		c.gateways = func() []string { return *labels.Load() }
	})
	// named waits for OPTIONS with a name in Contact and From, and answers them.
	named := func(name, status string) {
		t.Helper()
		for {
			o := b.svc.expect("OPTIONS")
			has := func(header string) bool { return strings.Contains(o.get(header), "sip:"+name+":") }
			if has("Contact") != has("From") {
				t.Errorf("OPTIONS came as\n%s", o.raw)
			}
			if !has("Contact") {
				b.svc.send((&talk{a: b.svc, localTag: "o"}).reply(o, "200 OK", ""))
				continue
			}
			b.svc.send((&talk{a: b.svc, localTag: "o"}).reply(o, status, ""))
			return
		}
	}
	named("1r1.gw.example", "200 OK")
	await(t, "the first answer to count", func() bool { return !b.peerState("svc1").Unknown })
	for range 2 {
		named("acme.1r1.gw.example", "503 Service Unavailable")
	}
	if s := b.peerState("svc1"); !s.Up {
		t.Errorf("503 to the OPTIONS of a gateway object: %+v", s)
	}

	labels.Store(&[]string{"fab"})
	named("fab.1r1.gw.example", "200 OK")
	for range 5 { // two or three seconds
		if o := b.svc.expect("OPTIONS"); strings.Contains(o.contact(), "acme") {
			t.Errorf("OPTIONS for a gateway object that was removed:\n%s", o.raw)
		} else {
			b.svc.send((&talk{a: b.svc, localTag: "o"}).reply(o, "200 OK", ""))
		}
	}
}

func TestSilenceToOptionsMeansDown(t *testing.T) {
	covers(t, "P3", "P8")
	b := setup(t, func(c *bedConfig) {
		c.service.Options = Options{Every: time.Second, Timeout: 100 * time.Millisecond, DownAfter: 1, UpAfter: 1}
	})
	b.svc.expect("OPTIONS")
	await(t, "svc1 to be down", func() bool { return !b.peerState("svc1").Up })
	// It is the only one, so it still gets the call.
	up := b.core.newCall(outside, served)
	b.core.send(up.request("INVITE", sdp))
	b.core.expect("100")
	for m := b.svc.next(patience); ; m = b.svc.next(patience) {
		if m.is("INVITE") {
			b.svc.send(b.svc.called(m).reply(m, "486 Busy Here", ""))
			break
		}
		if m.raw == "" {
			t.Fatal("a peer that is down got no call although there is no other")
		}
	}
	b.core.send(up.ackFailure(b.core.expect("486")))
}

func TestCallsDecideWhetherAPeerIsUp(t *testing.T) {
	covers(t, "P5", "P6", "P7")
	b := setup(t, func(c *bedConfig) { c.peers = 2 })
	up := b.core.newCall(outside, served)
	b.core.send(up.request("INVITE", sdp))
	b.core.expect("100")
	inv := b.svc.expect("INVITE")
	b.svc.send(b.svc.called(inv).reply(inv, "503 Service Unavailable", "", "Retry-After: 60"))
	b.svc.expect("ACK")
	inv = b.more[0].expect("INVITE")
	b.more[0].send(b.more[0].called(inv).reply(inv, "486 Busy Here", ""))
	b.more[0].expect("ACK")
	b.core.send(up.ackFailure(b.core.expect("486")))
	// The next call does not try the first one.
	up2, down2 := b.established(b.core, b.more[0], outside, served)
	b.over(up2, down2)
	b.svc.quiet()
	if s := b.peerState("svc1"); s.RetryAfter.Before(time.Now().Add(30 * time.Second)) {
		t.Errorf("state = %+v, want a Retry-After of a minute", s)
	}
	// A transport failure counts at once.
	a := b.e.groups[1].peers[1].fixed
	before := a.fails
	a.bad(time.Now(), "connection refused", 0, b.e.log)
	if a.fails != before+1 {
		t.Errorf("a failed connection does not count")
	}
}

func TestATransportFailureLeadsToTheNextPeerAtOnce(t *testing.T) {
	covers(t, "P6", "A10")
	b := setup(t, func(c *bedConfig) {
		c.peers = 1
		c.service.Transport = "tcp"
		c.service.Bind.TCP = c.service.Bind.UDP
		// Nothing listens on TCP at the agent's port: the connection is refused.
	})
	up := b.core.newCall(outside, served)
	clock := pace.Start(t)
	b.core.send(up.request("INVITE", sdp))
	b.core.expect("100")
	m := b.core.expect("503")
	if !strings.Contains(m.get("Warning"), "could not be reached") {
		t.Errorf("Warning = %q", m.get("Warning"))
	}
	if d := clock.Now(); d > 2*time.Second {
		t.Errorf("it took %v to notice a refused connection", d)
	}
	b.core.send(up.ackFailure(m))
	r := b.record()
	if len(r.Tried) != 1 || r.Tried[0].Result != "transport" {
		t.Errorf("tried = %+v", r.Tried)
	}
	if s := b.peerState("svc1"); s.Reason == "" {
		t.Errorf("state = %+v, want the failure noted", s)
	}
	b.idle()
}

func TestSourcesByLongestPrefix(t *testing.T) {
	covers(t, "S2")
	mk := func(name string, ranges ...string) Group {
		return Group{Name: name, Transport: "udp", Bind: Addresses{UDP: "127.0.0.1:5060"}, AllowedSources: ranges}
	}
	c := Default()
	c.Groups = []Group{mk("wide", "192.0.2.0/24"), mk("narrow", "192.0.2.64/26"), mk("one", "192.0.2.65")}
	if errs := c.Validate(services.All().Services()); len(errs) > 0 {
		t.Fatalf("Validate: %v", errs)
	}
	var groups []*group
	for i := range c.Groups {
		groups = append(groups, &group{cfg: &c.Groups[i]})
		groups[i].live.Store(&c.Groups[i])
	}
	s := newSources(groups, nil, transport.UDP)
	for from, want := range map[string]string{"192.0.2.1": "wide", "192.0.2.64": "narrow", "192.0.2.65": "one",
		"::ffff:192.0.2.65": "one", "192.0.3.1": ""} {
		got := ""
		if g := s.group(netip.MustParseAddr(from)); g != nil {
			got = g.cfg.Name
		}
		if got != want {
			t.Errorf("%s belongs to %q, want %q", from, got, want)
		}
	}
	c.Groups = append(c.Groups, mk("again", "192.0.2.0/24"))
	errs := c.Validate(services.All().Services())
	if len(errs) != 1 || !strings.Contains(errs[0].Error(), "groups[3].allowedSources") ||
		!strings.Contains(errs[0].Error(), "different addresses or ports") {
		t.Errorf("Validate = %v, want the conflict and how to fix it", errs)
	}
}

func TestOnlyMoreThan100MeansThatAPeerTakesCalls(t *testing.T) {
	covers(t, "P10", "P4")
	for _, final := range []string{"503 Service Unavailable", "504 Server Time-out", "408 Request Timeout"} {
		t.Run(final, func(t *testing.T) {
			b := setup(t, func(c *bedConfig) { c.peers = 2 })
			refusing := b.svc
			for i := range 3 {
				up := b.core.newCall(outside, served)
				b.core.send(up.request("INVITE", sdp))
				b.core.expect("100")
				if i < 2 {
					inv := refusing.expect("INVITE")
					down := refusing.called(inv)
					refusing.send(down.reply(inv, "100 Trying", ""))
					refusing.send(down.reply(inv, final, ""))
					refusing.expect("ACK")
				}
				next := b.more[0] // at once when the first one is down
				inv := next.expect("INVITE")
				next.send(next.called(inv).reply(inv, "486 Busy Here", ""))
				next.expect("ACK")
				b.core.send(up.ackFailure(b.core.expect("486")))
			}
			if s := b.peerState("svc1"); s.Up || !strings.Contains(s.Reason, final[:3]) {
				t.Errorf("state after two times 100 and %s = %+v, want it down", final, s)
			}
			if s := b.peerState("svc2"); !s.Up {
				t.Errorf("a peer that says 486 is down: %+v", s)
			}
			refusing.quiet()
		})
	}
	t.Run("after ringing", func(t *testing.T) {
		b := setup(t)
		for range 3 {
			up, down, inv := b.ringing(b.core, b.svc, outside, served)
			b.svc.send(down.reply(inv, "408 Request Timeout", ""))
			b.svc.expect("ACK")
			b.core.send(up.ackFailure(b.core.expect("408")))
		}
		if s := b.peerState("svc1"); !s.Up {
			t.Errorf("state after three times 180 and 408 = %+v, want it up: whoever was called did not answer", s)
		}
	})
}

func TestAPeerThatSendsOnly100FailsOver(t *testing.T) {
	covers(t, "A18", "P10")
	b := setup(t, func(c *bedConfig) {
		c.peers = 2
		c.cfg.Timers.SetupTimeout = time.Second
		c.cfg.Timers.FailoverAfter = 2 * time.Second
	})
	up := b.core.newCall(outside, served)
	b.core.send(up.request("INVITE", sdp))
	b.core.expect("100")
	for i, a := range []*agent{b.svc, b.more[0]} {
		inv := a.expect("INVITE")
		down := a.called(inv)
		a.send(down.reply(inv, "100 Trying", ""))
		a.send(down.reply(a.expect("CANCEL"), "200 OK", ""))
		a.send(down.reply(inv, "487 Request Terminated", ""))
		a.expect("ACK")
		if s := b.peerState(fmt.Sprintf("svc%d", i+1)); s.Reason == "" {
			t.Errorf("state = %+v, want the failure noted", s)
		}
	}
	m := b.core.expect("408")
	if !strings.Contains(m.get("Warning"), "showed progress in time") {
		t.Errorf("Warning = %q", m.get("Warning"))
	}
	b.core.send(up.ackFailure(m))
	if r := b.record(); len(r.Tried) != 2 || r.Tried[0].Result != "silence" {
		t.Errorf("tried = %+v", r.Tried)
	}
	b.idle()
}
