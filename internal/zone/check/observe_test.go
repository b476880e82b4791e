package check_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/platform/feed"
	"github.com/tandemgw/tandem/internal/zone"
	"github.com/tandemgw/tandem/internal/zone/check"
)

const (
	provisioned    = domain.SubdomainProvisioned
	notProvisioned = domain.SubdomainNotProvisioned
	inconsistent   = domain.SubdomainInconsistent
)

// fakeServer is a name server whose content is set by the test.
type fakeServer struct {
	check.Server
	mu      sync.Mutex
	lame    bool
	drop    int             // questions about the zone that are answered as if it were lame, once each
	lacks   map[string]bool // labels without records
	without string          // label without its token
	asked   int             // SOA questions
}

// newFakeServer starts a server that has the records of every label that it does not lack.
func newFakeServer(t *testing.T, name string) *fakeServer {
	f := &fakeServer{lacks: map[string]bool{}}
	f.Server = server(t, name, func(q, r *dns.Msg) {
		f.mu.Lock()
		defer f.mu.Unlock()
		name, kind := q.Question[0].Name, q.Question[0].Qtype
		if kind == dns.TypeSOA {
			f.asked++
		}
		label := dns.SplitDomainName(name)[0]
		var text string
		switch {
		case f.lame, kind == dns.TypeSOA && f.drop > 0:
			f.drop = max(0, f.drop-1)
			r.Rcode, r.Authoritative = dns.RcodeRefused, false
		case kind == dns.TypeSOA:
			text = soa
		case f.lacks[label]:
			r.Rcode = dns.RcodeNameError
		case kind == dns.TypeA:
			text = name + " 60 A 192.0.2.1"
		case kind == dns.TypeTXT && f.without != label:
			text = name + ` 60 TXT "token of ` + label + `"`
		}
		if text != "" {
			rr, err := dns.NewRR(text)
			if err != nil {
				t.Error(err)
			}
			r.Answer = append(r.Answer, rr)
		}
	})

	return f
}

func (f *fakeServer) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// accounts are a directory and its feed in memory.
type accounts struct {
	mu      sync.Mutex
	all     map[string]*zone.Customer
	entries []feed.Entry
	batches []int
	changed chan struct{}
	failure error
}

func newAccounts(n int) *accounts {
	a := &accounts{all: map[string]*zone.Customer{}, changed: make(chan struct{}, 1)}
	for i := range n {
		name := fmt.Sprintf("a%04d", i)
		a.all[name] = customer(name, name)
	}

	return a
}

func customer(account, label string) *zone.Customer {
	return &zone.Customer{Account: account, Status: notProvisioned,
		Pending: domain.Label{Subdomain: label + "old", Region1Token: "x", Region2Token: "y"}, // no server has it
		Active:  domain.Label{Subdomain: label, Region1Token: "token of " + label, Region2Token: "token of " + label}}
}

func (a *accounts) Customer(_ context.Context, account string) (zone.Customer, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.all[account]; c != nil {
		return *c, nil
	}

	return zone.Customer{Account: account}, nil
}

func (a *accounts) Customers(_ context.Context, after string, limit int) ([]zone.Customer, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var page []zone.Customer
	for _, name := range slices.Sorted(maps.Keys(a.all)) {
		if name > after && len(page) < limit {
			page = append(page, *a.all[name])
		}
	}

	return page, nil
}

func (a *accounts) Observed(_ context.Context, all []check.Observed) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.failure; err != nil {
		return err
	}
	a.batches = append(a.batches, len(all))
	var changes []domain.Change
	for _, x := range all {
		if c := a.all[x.Account]; c != nil && c.Active.Subdomain == x.Label.Subdomain {
			c.Status = x.Status
			changes = append(changes, domain.Change{Observed: true,
				Account: &domain.AccountRouting{Name: x.Account, SubdomainStatus: x.Status}})
		}
	}
	a.publish(changes)

	return nil
}

// publish appends a feed entry.
func (a *accounts) publish(changes []domain.Change) {
	payload, err := json.Marshal(changes)
	if err != nil {
		panic(err)
	}
	n := len(a.entries) + 1
	a.entries = append(a.entries, feed.Entry{Position: feed.Position(n), ID: int64(n), Payload: payload})
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// write changes the label of an account, or removes it.
func (a *accounts) write(account, label string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all[account] = customer(account, label)
	if label == "" {
		delete(a.all, account)
	}
	a.publish([]domain.Change{{Account: &domain.AccountRouting{Name: account}}})
}

func (a *accounts) cursor(n int) feed.Cursor {
	return feed.Cursor{Database: "d", Position: feed.Position(n), Entry: int64(n)}
}

func (a *accounts) Head(context.Context) (feed.Cursor, error) {
	a.mu.Lock()
	defer a.mu.Unlock()

	return a.cursor(len(a.entries)), nil
}

func (a *accounts) Read(_ context.Context, _ string, after feed.Cursor, limit int) (feed.Page, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	es := a.entries[after.Position:]
	es = es[:min(limit, len(es))]

	return feed.Page{Entries: es, Next: a.cursor(int(after.Position) + len(es))}, nil
}

func (a *accounts) Wait(ctx context.Context, _ feed.Position) error {
	select {
	case <-a.changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// until waits until each status is that of so many accounts.
func (a *accounts) until(t *testing.T, what string, want map[domain.SubdomainStatus]int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		a.mu.Lock()
		got := map[domain.SubdomainStatus]int{}
		for _, c := range a.all {
			got[c.Status]++
		}
		a.mu.Unlock()
		if maps.Equal(got, want) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: statuses %v, want %v", what, got, want)
		}
	}
}

func hosts(fs ...*fakeServer) []zone.Host {
	var list []zone.Host
	for _, f := range fs {
		list = append(list, zone.Host{Name: f.Name, CheckAt: []string{f.Addr.String()}})
	}

	return list
}

// observe runs an observer until the returned function is called, or the test ends.
func observe(t *testing.T, a *accounts, reg prometheus.Registerer, s *check.Servers) (o *check.Observer, stop func()) {
	o = check.NewObserver(&zone.Names{Regions: []zone.Region{{Edges: []zone.Edge{{Addresses: []string{"192.0.2.1"}}}}}},
		zoneName, []string{"1r1", "1r2"}, 20*time.Millisecond, s, a, a, slog.New(slog.DiscardHandler), reg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		var err error
		for ctx.Err() == nil && err == nil {
			err = o.Run(ctx)
		}
		done <- err
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)

	return o, stop
}

// The status of each account is that of what every name server answers.
func TestObserver(t *testing.T) {
	t.Parallel()
	one, two := newFakeServer(t, "one"), newFakeServer(t, "two")
	a := newAccounts(4)
	one.set(func() { one.lacks["a0001"], one.without = true, "a0003" })
	two.set(func() { two.lacks["a0001"], two.lacks["a0002"] = true, true })
	reg := prometheus.NewRegistry()
	observe(t, a, reg, check.NewServers(hosts(one, two), nil))
	a.until(t, "at first", map[domain.SubdomainStatus]int{provisioned: 1, notProvisioned: 1, inconsistent: 2})
	if got := gauge(t, reg, "tandem_zone_accounts", "inconsistent"); got != 2 {
		t.Errorf("metric: %v inconsistent accounts", got)
	}

	for _, f := range []*fakeServer{one, two} {
		f.set(func() { clear(f.lacks); f.without = "" })
	}
	a.until(t, "repaired", map[domain.SubdomainStatus]int{provisioned: 4})

	// A change is looked for at once, and an account that is gone is not.
	two.set(func() { two.lacks["later"] = true })
	a.write("a0000", "new")
	a.write("a0001", "")
	a.until(t, "another label", map[domain.SubdomainStatus]int{provisioned: 3})
	a.write("a0000", "later")
	a.until(t, "a label that only one server has", map[domain.SubdomainStatus]int{provisioned: 2, inconsistent: 1})
	two.set(func() { clear(two.lacks) })
	a.until(t, "and then both", map[domain.SubdomainStatus]int{provisioned: 3})
}

func gauge(t *testing.T, reg *prometheus.Registry, name, label string) float64 {
	t.Helper()
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		for _, m := range f.Metric {
			for _, l := range m.Label {
				if f.GetName() == name && l.GetValue() == label {
					return m.GetGauge().GetValue()
				}
			}
		}
	}

	return -1
}

// A server that stops changes all accounts, in batches; one that is lame once changes none. When it is back, all
// accounts are asked for again.
func TestObserverServerStops(t *testing.T) {
	t.Parallel()
	one, two := newFakeServer(t, "one"), newFakeServer(t, "two")
	const n = 520
	a := newAccounts(n)
	reg := prometheus.NewRegistry()
	observe(t, a, reg, check.NewServers(hosts(one, two), nil))
	a.until(t, "at first", map[domain.SubdomainStatus]int{provisioned: n})
	stored := func() int {
		a.mu.Lock()
		defer a.mu.Unlock()

		return len(a.batches)
	}

	before := stored()
	two.set(func() { two.drop, two.asked = 1, 0 })
	for asked := 0; asked < 4; time.Sleep(time.Millisecond) {
		two.set(func() { asked = two.asked })
	}
	if after := stored(); after != before {
		t.Errorf("%d batches stored after one answer was missing", after-before)
	}

	two.set(func() { two.lame = true })
	a.until(t, "lame", map[domain.SubdomainStatus]int{inconsistent: n})
	a.mu.Lock()
	batches := a.batches[before:]
	a.mu.Unlock()
	if !slices.Equal(batches, []int{500, n - 500}) {
		t.Errorf("batches of %d accounts", batches)
	}
	for name, want := range map[string]float64{"tandem_zone_server_up": 0, "tandem_zone_server_lame": 1} {
		for limit := time.Now().Add(time.Minute); gauge(t, reg, name, "two") != want; time.Sleep(time.Millisecond) {
			if time.Now().After(limit) { // it is shown after the batches are stored
				t.Fatalf("%s of the lame server is not %v", name, want)
			}
		}
	}
	one.set(func() { one.lame = true })
	a.until(t, "all lame", map[domain.SubdomainStatus]int{notProvisioned: n})

	two.set(func() { two.lacks["a0007"] = true }) // it is back with old content
	for _, f := range []*fakeServer{one, two} {
		f.set(func() { f.lame = false })
	}
	a.until(t, "back", map[domain.SubdomainStatus]int{provisioned: n - 1, inconsistent: 1})
}

// A node that takes over changes nothing that is true, and corrects what is not. While the database fails, the run
// fails; what was seen is stored afterwards.
func TestObserverTakesOver(t *testing.T) {
	t.Parallel()
	one := newFakeServer(t, "one")
	a := newAccounts(3)
	a.all["a0001"].Status = inconsistent
	one.set(func() { one.lacks["a0002"] = true })
	a.all["a0000"].Status, a.all["a0002"].Status = provisioned, provisioned
	_, stop := observe(t, a, nil, check.NewServers(hosts(one), nil))
	a.until(t, "an upgrade", map[domain.SubdomainStatus]int{provisioned: 2, notProvisioned: 1})
	stop()

	a.failure = errors.New("away")
	one.set(func() { one.lame = true })
	o := check.NewObserver(&zone.Names{}, zoneName, []string{"1r1"}, time.Millisecond,
		check.NewServers(hosts(one), nil), a, a, slog.New(slog.DiscardHandler), nil)
	if err := o.Run(t.Context()); !errors.Is(err, a.failure) {
		t.Fatalf("error %v", err)
	}
	a.failure = nil
	observe(t, a, nil, check.NewServers(hosts(one), nil))
	a.until(t, "the database is back", map[domain.SubdomainStatus]int{notProvisioned: 3})
	o.Drain()
	if err := o.Run(t.Context()); err != nil {
		t.Errorf("run after drain: %v", err)
	}
}

// The addresses of a host outside the zone are looked up; a host without any is unreachable, with the reason.
func TestServers(t *testing.T) {
	t.Parallel()
	calls, fails := 0, error(nil)
	s := check.NewServers([]zone.Host{
		{Name: "ns1.gw.example.com", Addresses: []string{"192.0.2.53", "192.0.2.53"}},
		{Name: "ns2.operator.example"},
		{Name: "ns3.operator.example", CheckAt: []string{"127.0.0.1:5300"}},
	}, func(_ context.Context, host string) ([]netip.Addr, error) {
		calls++
		return []netip.Addr{netip.MustParseAddr("::ffff:198.51.100.53")}, fails
	})
	want := []check.Server{{Name: "ns1.gw.example.com", Addr: netip.MustParseAddrPort("192.0.2.53:53")},
		{Name: "ns2.operator.example", Addr: netip.MustParseAddrPort("198.51.100.53:53")},
		{Name: "ns3.operator.example", Addr: netip.MustParseAddrPort("127.0.0.1:5300")}}
	for range 3 {
		got, bad := s.Present(t.Context())
		if !slices.Equal(got, want) || len(bad) > 0 {
			t.Errorf("servers %v, %v", got, bad)
		}
	}
	if calls != 1 {
		t.Errorf("%d look-ups", calls)
	}

	fails = errors.New("no such host")
	s = check.NewServers([]zone.Host{{Name: "ns2.operator.example"}}, func(context.Context, string) ([]netip.Addr,
		error) {
		return nil, fails
	})
	got, bad := s.Present(t.Context())
	if len(got) != 1 || got[0].Addr.IsValid() || len(bad) != 1 || bad[0].Problem != check.Unreachable ||
		bad[0].Server != got[0] {
		t.Errorf("servers %v, %+v", got, bad)
	}
}
