package check_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/testkit/dnspeer"
	"github.com/tandemgw/tandem/internal/zone"
	"github.com/tandemgw/tandem/internal/zone/check"
)

// Owner implements check.Owners.
func (a *accounts) Owner(ctx context.Context, label string) (zone.Customer, error) {
	for name, c := range a.all {
		if c.Active.Subdomain == label || c.Pending.Subdomain == label {
			return a.Customer(ctx, name)
		}
	}

	return zone.Customer{}, nil
}

// problems returns what is wrong, as server and problem.
func problems(r *check.Report) []string {
	var list []string
	for _, f := range r.Findings {
		list = append(list, strings.TrimSpace(f.Server.Name+" "+string(f.Problem)+" "+f.Type))
	}
	slices.Sort(list)

	return slices.Compact(list)
}

// Where the operator publishes the zone, the inspector knows what should be there from the configuration and the
// accounts, and names for each server what is wrong.
func TestInspector(t *testing.T) {
	t.Parallel()
	one, two, three := newFakeServer(t, "one"), newFakeServer(t, "two"), newFakeServer(t, "three")
	four := check.Server{Name: "four.operator.example"}
	two.set(func() { two.lacks["a0001"], two.without = true, "a0002" })
	three.set(func() { three.lame = true })
	x := &check.Inspector{Names: &zone.Names{NameServers: append(hosts(one, two, three), zone.Host{Name: four.Name})},
		Base: zoneName, Regions: []string{"1r1", "1r2"}, Owners: newAccounts(3), Parents: &check.Parents{},
	}
	x.Servers = check.NewServers(x.Names.NameServers, func(context.Context, string) ([]netip.Addr, error) {
		return nil, errors.New("no such host")
	})
	always := []string{"four.operator.example unreachable", "three lame"}
	for _, c := range []struct {
		name  string
		names int
		want  []string
	}{
		{"a0000", 2, nil},
		{"A0000", 2, nil},
		{"a0000.1r2", 1, nil},
		{"a0000.1r2.GW.example.com.", 1, nil},
		{"a0001", 2, []string{"two missing A", "two missing TXT"}},
		{"a0002.1r1", 1, []string{"two missing TXT"}},
	} {
		r, err := x.Check(t.Context(), c.name)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		want := slices.Sorted(slices.Values(append(c.want, always...)))
		if got := problems(r); !slices.Equal(got, want) || len(r.Names) != c.names {
			t.Errorf("%s: asked for %v, found %v, want %v", c.name, r.Names, got, want)
		}
		if len(r.Servers) != 4 || !r.Until.IsZero() {
			t.Errorf("%s: servers %+v, until %v", c.name, r.Servers, r.Until)
		}
	}
	for _, name := range []string{"nosuch", "a0000.1r3", "a0000.example.com", "x.a0000.1r1", "*",
		strings.Repeat("a", 255)} {
		_, err := x.Check(t.Context(), name)
		if !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	x.Names = &zone.Names{}
	if _, err := x.View(t.Context(), ""); !fault.Is(err, fault.Conflict) {
		t.Errorf("without a zone: %v", err)
	}
}

// The parent zone must list the same name servers, with the same addresses, and no DS record.
func TestDelegation(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		records string
		want    []string
	}{
		"good": {"gw NS ns1.gw\ngw NS NS2.operator.example.\nns1.gw A 192.0.2.53\nns1.gw AAAA 2001:db8::53", nil},
		"a fourth, foreign server": {"gw NS ns1.gw\ngw NS ns2.operator.example.\ngw NS ns.foreign.example.\n" +
			"ns1.gw A 192.0.2.53\nns1.gw AAAA 2001:db8::53", []string{"parent delegation NS"}},
		"one is not listed": {"gw NS ns1.gw\nns1.gw A 192.0.2.53\nns1.gw AAAA 2001:db8::53",
			[]string{"parent delegation NS"}},
		"an old address": {"gw NS ns1.gw\ngw NS ns2.operator.example.\nns1.gw A 192.0.2.99\nns1.gw AAAA 2001:db8::53",
			[]string{"parent glue A"}},
		"one address only": {"gw NS ns1.gw\ngw NS ns2.operator.example.\nns1.gw A 192.0.2.53",
			[]string{"parent glue A"}},
		"signed": {"gw NS ns1.gw\ngw NS ns2.operator.example.\nns1.gw A 192.0.2.53\nns1.gw AAAA 2001:db8::53\n" +
			"gw DS 12345 13 2 " + strings.Repeat("AB", 32), []string{"parent signed DS"}},
		"not delegated": {"other A 192.0.2.1", []string{"parent delegation NS"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bind := dnspeer.BINDPrimary(t, "example.com", "$ORIGIN example.com.\n$TTL 60\n@ SOA a b 1 60 60 60 60\n"+
				"@ NS a\na A 127.0.0.1\n"+x.records+"\n", "")
			child := server(t, "ns1.gw.example.com", records(t, soa, "gw.example.com. 60 NS ns1.gw.example.com.",
				"gw.example.com. 60 NS ns2.operator.example."))
			at := []string{child.Addr.String()}
			in := &check.Inspector{Base: zoneName, Parents: &check.Parents{At: []netip.AddrPort{bind.Addr}},
				Names: &zone.Names{NameServers: []zone.Host{
					{Name: child.Name, Addresses: []string{"192.0.2.53", "2001:db8::53"}, CheckAt: at},
					{Name: "ns2.operator.example", CheckAt: at}}}}
			in.Servers = check.NewServers(in.Names.NameServers, nil)
			r, err := in.Check(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			if got := problems(r); !slices.Equal(got, x.want) {
				t.Errorf("found %+v, want %v", r.Findings, x.want)
			}
			if len(r.Servers) != 3 || !r.Servers[2].Parent || r.Servers[0].Serial != 7 {
				t.Errorf("servers %+v", r.Servers)
			}
		})
	}
}

// resolver knows the name servers of one zone, and does not answer about another one.
type resolver struct{ zone, silent string }

func (r resolver) LookupNS(_ context.Context, name string) ([]*net.NS, error) {
	switch name {
	case r.zone:
		return []*net.NS{{Host: "a.parent.example."}}, nil
	case r.silent:
		return nil, &net.DNSError{Err: "timeout", Name: name, IsTimeout: true}
	}

	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

func (r resolver) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
}

// The parent zone may begin above the next label. If nobody knows its name servers, that is a finding; those of a zone
// above it are not taken for them.
func TestParentsAreLookedUp(t *testing.T) {
	t.Parallel()
	child := server(t, "ns1.operator.example", records(t, soa, "gw.example.com. 60 NS ns1.operator.example."))
	for _, x := range []struct {
		resolver resolver
		want     string
		servers  int
	}{{resolver{zone: "example.com."}, "a.parent.example unreachable", 2},
		{resolver{zone: "com."}, "a.parent.example unreachable", 2},
		{resolver{zone: "com.", silent: "example.com."}, "parent unreachable", 1},
		{resolver{zone: "org."}, "parent unreachable", 1}} {
		in := &check.Inspector{Base: zoneName, Names: &zone.Names{NameServers: []zone.Host{
			{Name: child.Name, CheckAt: []string{child.Addr.String()}}}},
			Parents: &check.Parents{Lookup: x.resolver}}
		in.Servers = check.NewServers(in.Names.NameServers, nil)
		r, err := in.Check(t.Context(), zoneName)
		if err != nil {
			t.Fatal(err)
		}
		if got := problems(r); !slices.Equal(got, []string{x.want}) || len(r.Servers) != x.servers {
			t.Errorf("%+v: %v, %+v", x.resolver, r.Findings, r.Servers)
		}
	}
}

// Records other than addresses are compared as sets, TXT records as texts that others may stand beside.
func TestOthers(t *testing.T) {
	t.Parallel()
	rr := func(text string) dns.RR {
		x, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}

		return x
	}
	const srv = "_sips._tcp.r1.gw.example.com."
	s := server(t, "s", records(t, soa, srv+" 60 SRV 10 10 5061 E1.r1.gw.example.com.", srv+` 60 TXT "ab" "c"`,
		srv+` 60 TXT "of somebody else"`))
	for name, x := range map[string]struct {
		others []dns.RR
		want   []check.Problem
	}{
		"good": {[]dns.RR{rr(srv + " 3600 SRV 10 10 5061 e1.r1.gw.example.com."), rr(srv + ` 60 TXT "abc"`)}, nil},
		"another port": {[]dns.RR{rr(srv + " 60 SRV 10 10 5060 e1.r1.gw.example.com.")},
			[]check.Problem{check.Wrong, check.Missing}},
		"another text": {[]dns.RR{rr(srv + ` 60 TXT "ABC"`)}, []check.Problem{check.Missing}},
		"another type": {[]dns.RR{rr(srv + ` 60 CAA 0 issue "ca.example"`)}, []check.Problem{check.Missing}},
	} {
		_, found := check.Zone(t.Context(), zoneName, 0, []check.Server{s},
			[]check.Name{{Name: srv, NoAddress: true, Others: x.others}})
		var got []check.Problem
		for _, f := range found {
			got = append(got, f.Problem)
		}
		if !slices.Equal(got, x.want) {
			t.Errorf("%s: %+v, want %v", name, found, x.want)
		}
	}
}
