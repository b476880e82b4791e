package check

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/zone"
)

const (
	maxRecords = 500 // in a view
	maxNames   = 100 // in a report
	// forgets is how long a resolver remembers that a name is not there: the lesser of the SOA record's TTL and MINIMUM
	// (RFC 2308 §5).
	forgets = time.Minute
)

// Owners finds accounts by their labels. Its methods are safe for concurrent use.
type Owners interface {
	// Owner returns the account that has a label, active or pending; one without labels if none has.
	Owner(ctx context.Context, label string) (zone.Customer, error)
}

// Inspector answers a person's questions about a zone. It is safe for concurrent use.
type Inspector struct {
	Names   *zone.Names // validated; without name servers there is no zone
	Base    string
	Regions []string // labels of Direct Routing
	Fronts  []string // labels of the hosts of the public front
	// Published is set if Tandem publishes the records, and Serves if it makes the versions that name servers answer.
	Published, Serves bool
	Store             zone.Store
	Owners            Owners
	Servers           *Servers
	Parents           *Parents
	Zone              string // that the name servers serve, if not the base domain but one above it
}

// View is what a zone has at a name and below it.
type View struct {
	Serial  zone.Serial // 0 if Tandem publishes no versions
	All     int64       // records in the database
	Records []zone.Published
	More    bool // there are further records
}

// Asked is a name server that was asked, and the serial of its version; 0 if it answered none.
type Asked struct {
	Server
	Serial uint32
	Parent bool // of the parent zone
}

// Report is what name servers answer.
type Report struct {
	Names    []string // absolute
	More     bool     // there are further names
	Servers  []Asked
	Findings []Finding
	Until    time.Time // until then, who asked before a record was added may be told that it is not there
}

// origin returns the base domain, absolute and in lower case.
func (x *Inspector) origin() string { return dns.CanonicalName(x.Base) }

// View returns what the zone has at a name and below it; at the base domain only for an empty name. The name is a
// label of a customer, relative to the base domain, or absolute. Errors: NoZone, NameNotFound.
func (x *Inspector) View(ctx context.Context, name string) (*View, error) {
	if len(x.Names.NameServers) == 0 {
		return nil, fault.New(fault.Conflict, "NoZone", "zone.nameServers is not set: Tandem neither publishes nor "+
			"checks a zone")
	}
	relative := strings.TrimSuffix(strings.ToLower(strings.TrimSpace(name)), ".")
	origin := strings.TrimSuffix(x.origin(), ".")
	names := []string{strings.TrimSuffix(relative, "."+origin)}
	switch {
	case relative == "" || relative == origin:
		names = []string{zone.Apex}
	case !strings.Contains(relative, "."): // a customer's label too
		for _, region := range x.Regions {
			names = append(names, relative+"."+region)
		}
	}
	read := x.expected
	if x.Published {
		read = x.published
	}
	v, err := read(ctx, names)
	if err != nil {
		return nil, err
	}
	if len(v.Records) == 0 {
		return nil, fault.New(fault.NotFound, "NameNotFound", "nothing in the zone %s is at or below %q, and no "+
			"account has it as a label", origin, name).At("name")
	}
	if len(v.Records) > maxRecords {
		v.Records, v.More = v.Records[:maxRecords], true
	}

	return v, nil
}

// published returns what is published at relative names and below them.
func (x *Inspector) published(ctx context.Context, names []string) (*View, error) {
	v := &View{}
	err := x.Store.View(ctx, func(ctx context.Context, r zone.Reader) (err error) {
		if v.All, err = r.Count(ctx); err == nil && x.Serves {
			v.Serial, err = r.Serial(ctx)
		}
		for i := 0; i < len(names) && err == nil; i++ {
			var found []zone.Published
			found, err = r.Below(ctx, names[i], maxRecords+1)
			v.Records = append(v.Records, found...)
		}
		return err
	})

	return v, err
}

// expected returns what the operator should publish at relative names and below them.
func (x *Inspector) expected(ctx context.Context, names []string) (*View, error) {
	v := &View{}
	for _, name := range names {
		var c zone.Customer
		if label, region, ok := strings.Cut(name, "."); ok && slices.Contains(x.Regions, region) {
			var err error
			if c, err = x.Owners.Owner(ctx, label); err != nil {
				return nil, err
			}
		}
		found := slices.DeleteFunc(x.Names.Expected(x.Base, x.Regions, x.Fronts, c), func(p zone.Published) bool {
			return p.Name != name && !strings.HasSuffix(p.Name, "."+name)
		})
		slices.SortFunc(found, func(a, b zone.Published) int { return zone.Compare(a.Record, b.Record) })
		v.Records = append(v.Records, found...)
	}

	return v, nil
}

// Check asks every name server for what View returns for a name, and for the base domain also those of the parent zone.
// Errors are those of View.
func (x *Inspector) Check(ctx context.Context, name string) (*Report, error) {
	v, err := x.View(ctx, name)
	if err != nil {
		return nil, err
	}
	names := x.wanted(v.Records)
	r := &Report{More: v.More}
	if len(names) > maxNames {
		names, r.More = names[:maxNames], true
	}
	for _, n := range names {
		r.Names = append(r.Names, n.Name)
	}
	for _, p := range v.Records {
		if until := p.Added.Add(forgets); until.After(time.Now()) && until.After(r.Until) {
			r.Until = until
		}
	}

	servers, unresolved := x.Servers.Present(ctx)
	r.Findings = append(r.Findings, unresolved...)
	servers = slices.DeleteFunc(servers, func(s Server) bool {
		if s.Addr.IsValid() {
			return false
		}
		r.Servers = append(r.Servers, Asked{Server: s})
		return true
	})
	serials, found := Zone(ctx, x.origin(), uint32(v.Serial), servers, names)
	for i, s := range servers {
		r.Servers = append(r.Servers, Asked{Server: s, Serial: serials[i]})
	}
	r.Findings = append(r.Findings, found...)

	if v.Records[0].Name == zone.Apex {
		parents, found := x.Parents.check(ctx, dns.CanonicalName(cmp.Or(x.Zone, x.Base)), x.Names.NameServers)
		for _, s := range parents {
			r.Servers = append(r.Servers, Asked{Server: s, Parent: true})
		}
		r.Findings = append(r.Findings, found...)
	}

	return r, ctx.Err()
}

// wanted returns what name servers should answer, by name.
func (x *Inspector) wanted(ps []zone.Published) []Name {
	var list []Name
	at := map[string]int{}
	for _, p := range ps {
		rr, err := p.RR(x.origin())
		if err != nil {
			continue // nothing like that is stored
		}
		i, ok := at[p.Name]
		if !ok {
			i = len(list)
			at[p.Name] = i
			list = append(list, Name{Name: rr.Header().Name, NoAddress: true})
		}
		n := &list[i]
		if as := addresses([]dns.RR{rr}); len(as) > 0 {
			n.NoAddress = false
			n.Addresses = append(n.Addresses, as...)
			continue
		}
		n.Others = append(n.Others, rr)
		if strings.HasPrefix(p.Source, "account:") {
			n.NoAddress = false // any will do if none is known
		}
	}
	slices.SortFunc(list, func(a, b Name) int { return cmp.Compare(a.Name, b.Name) })

	return list
}
