package zone_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/tandemgw/tandem/internal/domain"
	"github.com/tandemgw/tandem/internal/zone"
)

// Names that the configuration would give two purposes are refused; the case of letters does not matter.
func TestNames(t *testing.T) {
	for name, x := range map[string]struct {
		base    string
		regions []string
		server  string
		want    string // empty: valid
	}{
		"in the zone":               {"gw.example.com", []string{"1r1", "1r2"}, "ns1.gw.example.com", ""},
		"deeper":                    {"gw.example.com", []string{"1r1", "1r2"}, "a.ns.gw.example.com", ""},
		"outside":                   {"gw.example.com", []string{"1r1", "1r2"}, "r1.example.com", ""},
		"in capitals":               {"GW.Example.com", []string{"1R1", "1r2"}, "NS1.gw.EXAMPLE.com.", ""},
		"provapi":                   {"gw.example.com", []string{"1r1"}, "provapi.gw.example.com", "another purpose"},
		"onboard, in capitals":      {"gw.example.com", []string{"1r1"}, "OnBoard.GW.example.com.", "another purpose"},
		"a region":                  {"gw.example.com", []string{"1r1"}, "r1.gw.example.com", "another purpose"},
		"a region that may come":    {"gw.example.com", []string{"1r1"}, "r2.gw.example.com", "another purpose"},
		"an edge":                   {"gw.example.com", []string{"1r1"}, "e1.r1.gw.example.com", "another purpose"},
		"a region of customers":     {"gw.example.com", []string{"1r1"}, "1R1.gw.example.com", "another purpose"},
		"a customer":                {"gw.example.com", []string{"1r1"}, "acme.1r1.gw.example.com", "another purpose"},
		"the zone":                  {"gw.example.com", []string{"1r1"}, "gw.example.com", "the zone itself"},
		"twice":                     {"gw.example.com", []string{"1r1"}, "twice.example.com", "more than once"},
		"customers in a region":     {"gw.example.com", []string{"R1"}, "ns1.gw.example.com", `"r1"`},
		"customers below provapi":   {"gw.example.com", []string{"provapi"}, "ns1.gw.example.com", `"provapi"`},
		"customers below a website": {"gw.example.com", []string{"1r1", "hooks"}, "ns1.gw.example.com", `"hooks"`},
	} {
		host := zone.Host{Name: x.server}
		if strings.Contains(strings.ToLower(x.server), "gw.example.com") && x.want != "the zone itself" {
			host.Addresses = []string{"2001:db8::53"}
		}
		n := &zone.Names{NameServers: []zone.Host{host}, Contact: "dns@example.com"}
		if name == "twice" {
			n.NameServers = append(n.NameServers, zone.Host{Name: "TWICE.example.com."})
		}
		for range x.regions {
			edge := zone.Edge{Name: "E1", Addresses: []string{"2001:db8::1"}, TLS: 5061}
			n.Regions = append(n.Regions, zone.Region{Edges: []zone.Edge{edge}})
		}
		err := errors.Join(n.Validate(x.base, x.regions, true)...)
		if (err == nil) != (x.want == "") || err != nil && !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v, want %q", name, err, x.want)
		}
		if err != nil {
			continue
		}

		// What is valid can be published.
		v := &zone.Version{To: 1}
		acme := zone.Customer{Account: "contoso", Active: domain.Label{Subdomain: "Acme", Region1Token: "a",
			Region2Token: "b"}}
		for _, p := range n.Expected(x.base, x.regions, nil, acme) {
			if !slices.Contains(v.Added, p.Record) {
				v.Added = append(v.Added, p.Record)
			}
		}
		z := zone.New(x.base, x.server, n.Contact)
		if err := z.Apply(v); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if a := z.Look("acme.1r1.gw.example.com.", dns.TypeAAAA); len(a.Records) != 1 {
			t.Errorf("%s: %v", name, a)
		}
	}
}
