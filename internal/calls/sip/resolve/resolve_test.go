package resolve_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tandemgw/tandem/internal/calls/sip/resolve"
	"github.com/tandemgw/tandem/internal/calls/sip/transport"
)

// zone is a DNS client that answers from a table, which tests change.
type zone struct {
	mu    sync.Mutex
	srv   map[string][]resolve.SRV
	addr  map[string][]string
	bad   map[string]bool // names whose look-up fails
	ttl   time.Duration
	delay time.Duration
	asked map[string]int
}

func newZone() *zone {
	return &zone{srv: map[string][]resolve.SRV{}, addr: map[string][]string{}, bad: map[string]bool{},
		asked: map[string]int{}, ttl: time.Minute}
}

func (z *zone) begin(ctx context.Context, name string) error {
	z.mu.Lock()
	delay, bad := z.delay, z.bad[name] || z.bad["*"]
	z.asked[name]++
	z.mu.Unlock()
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if bad {
		return errors.New("SERVFAIL")
	}
	return nil
}

func (z *zone) LookupSRV(ctx context.Context, name string) ([]resolve.SRV, time.Duration, error) {
	if err := z.begin(ctx, name); err != nil {
		return nil, 0, err
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	if r, ok := z.srv[name]; ok {
		return slices.Clone(r), z.ttl, nil
	}
	return nil, time.Second, resolve.ErrNotFound
}

func (z *zone) LookupAddr(ctx context.Context, host string, v6 bool) ([]netip.Addr, time.Duration, error) {
	if err := z.begin(ctx, host); err != nil {
		return nil, 0, err
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	var out []netip.Addr
	for _, a := range z.addr[host] {
		if p := netip.MustParseAddr(a); p.Is4() || v6 {
			out = append(out, p)
		}
	}
	if len(out) == 0 {
		return nil, time.Second, resolve.ErrNotFound
	}
	return out, z.ttl, nil
}

func (z *zone) change(f func()) {
	z.mu.Lock()
	defer z.mu.Unlock()
	f()
}

func newResolver(t *testing.T, cfg resolve.Config, z *zone) *resolve.Resolver {
	t.Helper()
	r, err := resolve.New(cfg, z, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func show(addrs []netip.AddrPort) string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return strings.Join(out, " ")
}

// RFC 3263 §4.1 and §4.2: which records are queried, and the addresses made from them.
func TestRules(t *testing.T) {
	z := newZone()
	z.srv["_sip._udp.both.example.net"] = []resolve.SRV{{Host: "u.example.net", Port: 5070}}
	z.srv["_sip._tcp.both.example.net"] = []resolve.SRV{{Host: "t.example.net", Port: 5071}}
	z.srv["_sips._tcp.both.example.net"] = []resolve.SRV{{Host: "s.example.net", Port: 5072}}
	z.srv["_sip._tls.gw.example.net"] = []resolve.SRV{{Host: "s.example.net", Port: 5073}}
	z.srv["_sip._tls.core.example.net"] = []resolve.SRV{{Host: "s.example.net", Port: 5074, Priority: 2},
		{Host: "u.example.net", Port: 5074, Priority: 1}}
	z.srv["_sip._udp.off.example.net"] = []resolve.SRV{{Host: ""}}
	for host, addrs := range map[string][]string{
		"u.example.net": {"192.0.2.1"}, "t.example.net": {"192.0.2.2"},
		"s.example.net":     {"192.0.2.3", "192.0.2.4", "2001:db8::3"},
		"plain.example.net": {"192.0.2.9", "192.0.2.8"}, "both.example.net": {"192.0.2.99"},
	} {
		z.addr[host] = addrs
	}
	r := newResolver(t, resolve.Config{}, z)
	defer r.Close()
	for _, c := range []struct {
		name string
		q    resolve.Query
		want string // "" for an error
	}{
		{"numeric address", resolve.Query{Host: "192.0.2.7", Proto: transport.UDP}, "192.0.2.7:5060"},
		{"numeric address, TLS", resolve.Query{Host: "192.0.2.7", Proto: transport.TLS}, "192.0.2.7:5061"},
		{"numeric address, port, TCP", resolve.Query{Host: "192.0.2.7", Port: 5099, Proto: transport.TCP},
			"192.0.2.7:5099"},
		{"IPv6 in brackets", resolve.Query{Host: "[2001:db8::7]", Proto: transport.UDP}, "[2001:db8::7]:5060"},
		{"a port: addresses only", resolve.Query{Host: "both.example.net", Port: 5066, Proto: transport.UDP},
			"192.0.2.99:5066"},
		{"no port, UDP", resolve.Query{Host: "both.example.net", Proto: transport.UDP}, "192.0.2.1:5070"},
		{"no port, TCP", resolve.Query{Host: "both.example.net", Proto: transport.TCP}, "192.0.2.2:5071"},
		{"no port, TLS: _sips._tcp", resolve.Query{Host: "both.example.net", Proto: transport.TLS},
			"192.0.2.3:5072 192.0.2.4:5072"},
		{"no port, TLS: _sip._tls", resolve.Query{Host: "GW.example.net.", Proto: transport.TLS},
			"192.0.2.3:5073 192.0.2.4:5073"},
		{"no SRV: addresses at the default port", resolve.Query{Host: "plain.example.net", Proto: transport.UDP},
			"192.0.2.9:5060 192.0.2.8:5060"},
		{"no SRV, TLS", resolve.Query{Host: "plain.example.net", Proto: transport.TLS},
			"192.0.2.9:5061 192.0.2.8:5061"},
		{"an SRV name, priorities in order", resolve.Query{SRV: "_sip._tls.core.example.net", Host: "core.example.net",
			Proto: transport.TLS}, "192.0.2.1:5074 192.0.2.3:5074 192.0.2.4:5074"},
		{"an SRV name without a host", resolve.Query{SRV: "_sip._tls.gw.example.net", Proto: transport.TLS},
			"192.0.2.3:5073 192.0.2.4:5073"},
		{"an SRV name that is not there", resolve.Query{SRV: "_sip._tls.no.example.net", Proto: transport.TLS}, ""},
		{"a service that is not offered", resolve.Query{Host: "off.example.net", Proto: transport.UDP}, ""},
		{"nothing at all", resolve.Query{Host: "none.example.net", Proto: transport.UDP}, ""},
		{"no transport", resolve.Query{Host: "plain.example.net"}, ""},
		{"no name", resolve.Query{Proto: transport.UDP}, ""},
		{"a name that is too long", resolve.Query{Host: strings.Repeat("a.", 200), Proto: transport.UDP}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := r.Resolve(t.Context(), c.q)
			if (err != nil) != (c.want == "") || show(got) != c.want {
				t.Errorf("Resolve(%+v) = %s, %v; want %q", c.q, show(got), err, c.want)
			}
		})
	}
	six := newResolver(t, resolve.Config{IPv6: true}, z)
	defer six.Close()
	got, _ := six.Resolve(t.Context(), resolve.Query{Host: "gw.example.net", Proto: transport.TLS})
	if show(got) != "192.0.2.3:5073 192.0.2.4:5073 [2001:db8::3]:5073" {
		t.Errorf("with IPv6: %s", show(got))
	}
}

// RFC 2782: within a priority each record is first as often as its weight says, and every record occurs once.
func TestWeights(t *testing.T) {
	z := newZone()
	weights := map[string]uint16{"a": 10, "b": 30, "c": 60, "z": 0}
	host := map[netip.AddrPort]string{}
	for h, w := range weights {
		z.srv["_sip._udp.w"] = append(z.srv["_sip._udp.w"], resolve.SRV{Host: h, Port: 5060, Priority: 5, Weight: w})
		z.addr[h] = []string{"192.0.2." + fmt.Sprint(h[0])}
		host[netip.MustParseAddrPort(z.addr[h][0]+":5060")] = h
	}
	z.srv["_sip._udp.w"] = append(z.srv["_sip._udp.w"],
		resolve.SRV{Host: "last", Port: 5060, Priority: 9, Weight: 1000})
	z.addr["last"] = []string{"192.0.2.200"}
	r := newResolver(t, resolve.Config{}, z)
	defer r.Close()
	q := resolve.Query{Host: "w", Proto: transport.UDP}
	if _, err := r.Resolve(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	const draws = 20_000
	first := map[string]int{}
	for range draws {
		got, ok := r.Lookup(q)
		if !ok || len(got) != 5 || got[4].String() != "192.0.2.200:5060" {
			t.Fatalf("Lookup = %v: want all five, the lower priority last", got)
		}
		first[host[got[0]]]++
	}
	for h, w := range weights {
		want := float64(w) / 101 * draws // RFC 2782's draw is from 0 to the sum, both included; a weight of 0 wins on 0
		if w == 0 {
			want = draws / 101.0
		}
		if d := math.Abs(float64(first[h]) - want); d > 5*math.Sqrt(want)+1 {
			t.Errorf("host %s of weight %d came first %d times in %d, want about %.0f", h, w, first[h], draws, want)
		}
	}
}

// Lookup never blocks; the first one fetches its answer in the background.
func TestLookupDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone()
		z.addr["h"] = []string{"192.0.2.1"}
		z.delay = time.Second
		r := newResolver(t, resolve.Config{}, z)
		q := resolve.Query{Host: "h", Port: 5060, Proto: transport.UDP}
		begun := time.Now()
		if _, ok := r.Lookup(q); ok || time.Since(begun) != 0 {
			t.Errorf("the first Lookup: %v after %v, want nothing at once", ok, time.Since(begun))
		}
		r.Lookup(q)
		time.Sleep(1100 * time.Millisecond)
		if got, ok := r.Lookup(q); !ok || show(got) != "192.0.2.1:5060" {
			t.Errorf("Lookup = %s, %v", show(got), ok)
		}
		if z.asked["h"] != 1 {
			t.Errorf("queried %d times, want once", z.asked["h"])
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		begun = time.Now()
		q = resolve.Query{Host: "slow", Port: 1, Proto: transport.UDP}
		if _, err := r.Resolve(ctx, q); !errors.Is(err, context.DeadlineExceeded) ||
			time.Since(begun) != 100*time.Millisecond {
			t.Errorf("Resolve = %v after %v, want the deadline", err, time.Since(begun))
		}
		r.Close()
	})
}

// Records in use are refreshed before they expire, and stay in use while the name servers are unavailable.
func TestRefreshAndOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone()
		z.srv["_sip._udp.h"] = []resolve.SRV{{Host: "a", Port: 5060, Priority: 1, Weight: 1},
			{Host: "b", Port: 5060, Priority: 2, Weight: 1}}
		z.addr["a"], z.addr["b"] = []string{"192.0.2.1"}, []string{"192.0.2.2"}
		r := newResolver(t, resolve.Config{}, z)
		q := resolve.Query{Host: "h", Proto: transport.UDP}
		look := func() string {
			t.Helper()
			got, ok := r.Lookup(q)
			if !ok {
				t.Fatal("there is no answer any more")
			}
			synctest.Wait()
			return show(got)
		}
		both := "192.0.2.1:5060 192.0.2.2:5060"
		if _, err := r.Resolve(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		time.Sleep(40 * time.Second)
		look()
		if z.asked["a"] != 1 {
			t.Errorf("queried %d times within the time to live", z.asked["a"])
		}
		time.Sleep(10 * time.Second) // past four fifths of the minute
		z.change(func() { z.addr["a"] = []string{"192.0.2.11"} })
		if got := look(); got != both {
			t.Errorf("got %s, want the old answer while the new one is fetched", got)
		}
		if got := look(); got != "192.0.2.11:5060 192.0.2.2:5060" {
			t.Errorf("got %s, want the new address", got)
		}
		// One server of the set fails: its old address stays, the others are not affected (field-pains 12).
		time.Sleep(50 * time.Second)
		z.change(func() { z.bad["a"] = true; z.addr["b"] = []string{"192.0.2.22"} })
		look()
		if got := look(); got != "192.0.2.11:5060 192.0.2.22:5060" {
			t.Errorf("got %s with one name failing, want its old address beside the other's new one", got)
		}
		// All name servers are unavailable for a week.
		z.change(func() { z.bad["*"] = true })
		for range 7 * 24 {
			time.Sleep(time.Hour)
			if got := look(); got != "192.0.2.11:5060 192.0.2.22:5060" {
				t.Fatalf("got %s during the outage", got)
			}
		}
		z.change(func() { z.bad = map[string]bool{}; z.addr["a"] = []string{"192.0.2.33"} })
		time.Sleep(10 * time.Second)
		look()
		if got := look(); got != "192.0.2.33:5060 192.0.2.22:5060" {
			t.Errorf("got %s after the outage", got)
		}
		r.Close()
	})
}

// A name that no longer exists is used for the grace time only.
func TestGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone()
		z.addr["h"] = []string{"192.0.2.1"}
		r := newResolver(t, resolve.Config{Grace: 5 * time.Minute}, z)
		q := resolve.Query{Host: "h", Port: 5060, Proto: transport.UDP}
		if _, err := r.Resolve(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		z.change(func() { delete(z.addr, "h") })
		time.Sleep(time.Minute)
		r.Lookup(q)
		synctest.Wait()
		time.Sleep(4 * time.Minute)
		if _, ok := r.Lookup(q); !ok {
			t.Error("the answer was dropped within the grace time")
		}
		time.Sleep(2 * time.Minute)
		if got, ok := r.Lookup(q); ok {
			t.Errorf("got %s after the grace time", show(got))
		}
		synctest.Wait()
		z.change(func() { z.addr["h"] = []string{"192.0.2.2"} })
		time.Sleep(time.Minute)
		r.Lookup(q)
		synctest.Wait()
		if got, _ := r.Lookup(q); show(got) != "192.0.2.2:5060" {
			t.Errorf("got %s once the name exists again", show(got))
		}
		r.Close()
	})
}

// A name that fails is not queried at each look-up.
func TestFailuresAreSpaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone()
		z.bad["h"] = true
		r := newResolver(t, resolve.Config{}, z)
		for range 100 {
			r.Lookup(resolve.Query{Host: "h", Port: 5060, Proto: transport.UDP})
			time.Sleep(100 * time.Millisecond)
		}
		if z.asked["h"] < 2 || z.asked["h"] > 3 {
			t.Errorf("queried %d times in 10 s, want every 5 s", z.asked["h"])
		}
		r.Close()
	})
}

func TestCacheIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone()
		for i := range 100 {
			z.addr[fmt.Sprint("h", i)] = []string{"192.0.2.1"}
		}
		z.ttl = time.Hour
		r := newResolver(t, resolve.Config{MaxEntries: 10, MaxRefreshes: 1000}, z)
		used := resolve.Query{Host: "h0", Port: 1, Proto: transport.UDP}
		for i := range 100 {
			r.Lookup(resolve.Query{Host: fmt.Sprint("h", i), Port: 1, Proto: transport.UDP})
			r.Lookup(used)
			synctest.Wait()
		}
		if z.asked["h0"] != 1 {
			t.Errorf("the name in use was queried %d times: it was evicted", z.asked["h0"])
		}
		if _, ok := r.Lookup(resolve.Query{Host: "h50", Port: 1, Proto: transport.UDP}); ok {
			t.Error("a name not used for long is still in the cache")
		}
		r.Close()
	})
}

func TestRefreshesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone()
		z.delay = time.Second
		r := newResolver(t, resolve.Config{MaxRefreshes: 4}, z)
		for i := range 20 {
			r.Lookup(resolve.Query{Host: fmt.Sprint("h", i), Port: 1, Proto: transport.UDP})
		}
		synctest.Wait()
		if len(z.asked) != 4 {
			t.Errorf("%d look-ups run, want 4", len(z.asked))
		}
		r.Close() // cancels them
	})
}
