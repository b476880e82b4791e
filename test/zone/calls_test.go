//go:build deep

package zone_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/tandemgw/tandem/internal/cli/demo"
	"github.com/tandemgw/tandem/internal/sim/fixtures"
	"github.com/tandemgw/tandem/internal/sim/lab"
	"github.com/tandemgw/tandem/internal/testkit/dnspeer"
	"github.com/tandemgw/tandem/test/rig"
)

// The states of a name server of the operator.
const (
	silent int32 = iota // it answers nothing
	stale               // it has a version of the zone from before the customer
	correct
)

// operatorServer answers as its state says: for a zone with one customer, nwind.
func operatorServer(t *testing.T, base string, state *atomic.Int32) string {
	t.Helper()
	p, err := net.ListenPacket("udp", dnspeer.Address(t).String())
	if err != nil {
		t.Fatal(err)
	}
	up, done := make(chan struct{}), make(chan struct{})
	s := &dns.Server{PacketConn: p, NotifyStartedFunc: func() { close(up) },
		Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
			r := new(dns.Msg).SetReply(q)
			r.Authoritative = true
			name, records := q.Question[0].Name, ""
			switch now := state.Load(); {
			case now == silent:
				return
			case q.Question[0].Qtype == dns.TypeSOA:
				records = fmt.Sprintf("%s. 60 SOA ns1.%[1]s. dns.%[1]s. %d 900 60 1209600 60", base, 6+now)
			case now == stale:
				r.Rcode = dns.RcodeNameError
			case q.Question[0].Qtype == dns.TypeA:
				records = name + " 60 A 127.0.0.1"
			case q.Question[0].Qtype == dns.TypeTXT && name == "nwind.1r1."+base+".":
				records = name + ` 60 TXT "MS=ms10000001"`
			case q.Question[0].Qtype == dns.TypeTXT:
				records = name + ` 60 TXT "MS=ms10000002"`
			}
			if rr, err := dns.NewRR(records); err == nil && rr != nil {
				r.Answer = []dns.RR{rr}
			}
			_ = w.WriteMsg(r) // the client may have gone
		})}
	go func() {
		defer close(done)
		_ = s.ActivateAndServe() // ends with the test
	}()
	<-up
	t.Cleanup(func() {
		_ = s.ShutdownContext(context.Background())
		<-done
	})

	return p.LocalAddr().String()
}

// TestCallsWithoutNameServers: a database from before the zone, where the operator runs the DNS, is used by a program
// that checks the operator's name servers. They have old data or answer nothing for as many checks as there are in an
// hour by default; the status says so, and no call is rejected. The database is that of the program in TANDEM_BEFORE if
// set, an older release; else of this one without a zone.
func TestCallsWithoutNameServers(t *testing.T) {
	ctx := t.Context()
	world, calls, err := fixtures.Load()
	if err != nil {
		t.Fatal(err)
	}
	before := cmp.Or(os.Getenv("TANDEM_BEFORE"), rig.Binary(t))
	dir := t.TempDir()
	gateway, err := lab.Free(world.BaseDomain)
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.Start(world, gateway, lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	file, err := demo.WriteConfig(dir, l, true)
	if err != nil {
		t.Fatal(err)
	}
	old := withoutZone(t, file)
	start := func(program, file string, set ...string) *demo.Product {
		t.Helper()
		p, err := demo.StartProduct(ctx, program, file, dir, set...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Stop() })
		return p
	}
	played := 0
	play := func(what string) {
		t.Helper()
		for _, c := range calls {
			if c.Name != "direct-routing-in" && c.Name != "direct-routing-out" {
				continue
			}
			played++
			if r := l.Play(ctx, c); !r.Passed {
				t.Errorf("%s: %s: %d %s: %q", what, c.Name, r.Status, r.Warning, r.Problems)
			}
		}
	}

	p := start(before, old)
	if _, err := p.Provision(ctx, world, func(c fixtures.Customer) bool { return c.Demo }); err != nil {
		t.Fatal(err)
	}
	if err := p.WaitReady(ctx, l); err != nil {
		t.Fatal(err)
	}
	play("before")
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}

	var states [2]atomic.Int32
	servers := ""
	for i := range states {
		servers += fmt.Sprintf("{name: ns%d.operator.example, checkAt: [%q]}, ", i+1,
			operatorServer(t, world.BaseDomain, &states[i]))
	}
	for i := range states {
		states[i].Store(stale)
	}
	p = start(rig.Binary(t), old, "zone={publish: none, checkEvery: 1s, nameServers: ["+servers+"]}")
	if err := demo.WaitKnown(ctx, l); err != nil {
		t.Fatal(err)
	}
	status := func() string {
		t.Helper()
		a, err := p.API.Account(ctx, "northwind")
		if err != nil {
			t.Fatal(err)
		}
		return a.ServiceDetails.TeamsDirectRouting.SubdomainStatus
	}
	seen := map[string]bool{}
	const checks = 120 // an hour of them, one every 30 s
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for i := range checks {
		if i == checks/2 {
			for j := range states {
				states[j].Store(silent)
			}
		}
		play(fmt.Sprintf("check %d", i))
		seen[status()] = true
		<-tick.C
	}
	if s := status(); s != "notProvisioned" || seen["inconsistent"] {
		t.Errorf("status %s, seen %v, want provisioned at first and then notProvisioned", s, seen)
	}

	becomes := func(want string) {
		t.Helper()
		for range 60 {
			if status() == want {
				return
			}
			<-tick.C
		}
		t.Errorf("status %s, want %s", status(), want)
	}
	states[0].Store(correct)
	becomes("inconsistent")
	play("one server is correct")
	states[1].Store(correct)
	becomes("provisioned")
	t.Logf("%d calls, statuses seen without a correct name server: %v", played, seen)
}

// withoutZone returns the name of a copy of a configuration file without its zone.
func withoutZone(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	start := bytes.Index(content, []byte("\nzone:"))
	end := start + 1 + bytes.Index(content[start+1:], []byte("\n\n"))
	if start < 0 || end <= start {
		t.Fatalf("no zone in\n%s", content)
	}
	name := filepath.Join(filepath.Dir(file), "before.yaml")
	if err := os.WriteFile(name, slices.Delete(content, start, end), 0o600); err != nil {
		t.Fatal(err)
	}

	return name
}
