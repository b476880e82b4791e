// Package check asks the name servers of a zone, one by one, whether they answer what they should. It never asks a
// resolver about names of the zone: that would fill its cache with answers from before a change.
package check

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	attempts = 2
	wait     = 2 * time.Second // for one answer
	parallel = 16              // questions to one server at a time
)

// Server is an address of a name server.
type Server struct {
	Name string // its host name
	Addr netip.AddrPort
}

// Problem is what is wrong with a server.
type Problem string

// The problems.
const (
	Unreachable Problem = "unreachable" // no answer
	Lame        Problem = "lame"        // it does not answer for the zone, or for one of its names
	Stale       Problem = "stale"       // its version of the zone is older than the newest
	Missing     Problem = "missing"     // it lacks a record
	Wrong       Problem = "wrong"       // it has a record that should not be there
	// Of name servers of the parent zone.
	Delegation Problem = "delegation" // it lists other name servers
	Glue       Problem = "glue"       // it has other addresses of them
	Signed     Problem = "signed"     // it has a DS record, and the zone has no signatures
)

// Finding is one thing that is wrong.
type Finding struct {
	Server  Server
	Problem Problem
	Name    string // absolute; of the record, with Missing and Wrong
	Type    string
	Text    string // what was seen, for a person
}

// Name is a name and what servers should answer for it.
type Name struct {
	Name string // absolute
	// Addresses are all its addresses. If there are none, any will do, but at least one.
	Addresses []netip.Addr
	// NoAddress is set if its addresses do not matter.
	NoAddress bool
	// Text is a TXT record that it must have; others are allowed. Empty for none.
	Text string
	// Others are records of further types. It must have them, and no others of these types but TXT.
	Others []dns.RR
}

// questions is the number of questions about a Name.
const questions = 3

// Zone asks each server for the SOA record of a zone, and then about names. It returns the serial of each server, 0 if
// it answers none, and what is wrong, ordered by server; a server that is unreachable or lame is asked nothing more.
// newest is the serial that servers should have; 0 for the newest that any of them has.
func Zone(ctx context.Context, zone string, newest uint32, servers []Server, names []Name) ([]uint32, []Finding) {
	serials, bad := versions(ctx, dns.CanonicalName(zone), servers)
	found := make([][]Finding, len(servers))
	each(servers, func(i int, s Server) {
		if bad[i] != nil {
			found[i] = []Finding{*bad[i]}
			return
		}
		perName, silent := ask(ctx, s, names)
		if found[i] = slices.Concat(perName...); silent != nil {
			found[i] = []Finding{*silent}
		}
	})

	for _, n := range serials {
		if n != 0 && (newest == 0 || n-newest < 1<<31) {
			newest = n
		}
	}
	var all []Finding
	for i, s := range servers {
		if n := serials[i]; n != 0 && n != newest {
			all = append(all, Finding{Server: s, Problem: Stale,
				Text: fmt.Sprintf("it has serial %d; the newest is %d", n, newest)})
		}
		all = append(all, found[i]...)
	}

	return serials, all
}

// versions returns the serial of each server's version of a zone, or why it has none. All servers may have a larger
// zone instead; one that has only that, where others have the zone itself, is lame.
func versions(ctx context.Context, zone string, servers []Server) ([]uint32, []*Finding) {
	soas := make([]*dns.SOA, len(servers))
	bad := make([]*Finding, len(servers))
	each(servers, func(i int, s Server) { soas[i], bad[i] = soa(ctx, zone, s) })
	deepest := "."
	for _, x := range soas {
		if x != nil && dns.IsSubDomain(deepest, x.Hdr.Name) {
			deepest = x.Hdr.Name
		}
	}

	serials := make([]uint32, len(servers))
	for i, x := range soas {
		switch {
		case x == nil:
		case x.Hdr.Name != deepest:
			bad[i] = &Finding{Server: servers[i], Problem: Lame,
				Text: fmt.Sprintf("it has the zone %s, but not %s, as others have", x.Hdr.Name, deepest)}
		default:
			serials[i] = x.Serial
		}
	}

	return serials, bad
}

// soa returns the SOA record of a server's version of a zone, or of the zone that the name is in: then it is in the
// authority section (RFC 2308 §3). Its name is canonical.
func soa(ctx context.Context, zone string, s Server) (*dns.SOA, *Finding) {
	r, err := Ask(ctx, s.Addr, zone, dns.TypeSOA)
	if err != nil {
		return nil, &Finding{Server: s, Problem: Unreachable, Text: err.Error()}
	}
	for _, rr := range slices.Concat(r.Answer, r.Ns) {
		if x, ok := rr.(*dns.SOA); ok && r.Authoritative {
			if x.Hdr.Name = dns.CanonicalName(x.Hdr.Name); dns.IsSubDomain(x.Hdr.Name, zone) {
				return x, nil
			}
		}
	}

	return nil, &Finding{Server: s, Problem: Lame, Text: fmt.Sprintf(
		"it answers %s for the SOA record of %s, and is %s", dns.RcodeToString[r.Rcode], zone, authoritative(r))}
}

func authoritative(r *dns.Msg) string {
	if r.Authoritative {
		return "authoritative, but without that record"
	}

	return "not authoritative"
}

// ask returns what is wrong with a server's answers about each name. If the server gives no answer, silent says so, and
// it is asked nothing more.
func ask(ctx context.Context, s Server, names []Name) (found [][]Finding, silent *Finding) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	found = make([][]Finding, len(names))
	room := make(chan struct{}, parallel)
	var running sync.WaitGroup
	var once sync.Once
	for i := range names {
		room <- struct{}{}
		running.Go(func() {
			defer func() { <-room }()
			if ctx.Err() != nil {
				return
			}
			var err error
			if found[i], err = one(ctx, s, &names[i]); err != nil {
				once.Do(func() {
					silent = &Finding{Server: s, Problem: Unreachable, Text: err.Error()}
					cancel()
				})
			}
		})
	}
	running.Wait()

	return found, silent
}

// one returns what is wrong with a server's answers about a name. The error is that it gives none.
func one(ctx context.Context, s Server, n *Name) ([]Finding, error) {
	q := &inquiry{server: s, name: n}
	if !n.NoAddress {
		q.addresses(ctx)
	}
	if n.Text != "" {
		q.other(ctx, &dns.TXT{Hdr: dns.RR_Header{Rrtype: dns.TypeTXT}, Txt: []string{n.Text}})
	}
	for _, rr := range n.Others {
		q.other(ctx, rr)
	}

	return q.found, q.err
}

// inquiry asks a server about a name, until an answer is none.
type inquiry struct {
	server Server
	name   *Name
	found  []Finding
	err    error // it gave no answer
	lame   bool
	had    map[uint16][]dns.RR // what Others were compared with, by type
}

func (q *inquiry) bad(p Problem, kind uint16, format string, args ...any) {
	q.found = append(q.found, Finding{q.server, p, q.name.Name, dns.TypeToString[kind], fmt.Sprintf(format, args...)})
}

// ask returns the server's records of a type. It reports false if it gives no answer, or refuses.
func (q *inquiry) ask(ctx context.Context, kind uint16) ([]dns.RR, bool) {
	if q.err != nil || q.lame {
		return nil, false
	}
	r, err := Ask(ctx, q.server.Addr, q.name.Name, kind)
	if err != nil {
		q.err = err
		return nil, false
	}
	if r.Rcode != dns.RcodeSuccess && r.Rcode != dns.RcodeNameError {
		q.lame = true
		q.bad(Lame, kind, "it answers %s for %s", dns.RcodeToString[r.Rcode], q.name.Name)
		return nil, false
	}
	var list []dns.RR
	for _, rr := range r.Answer {
		if rr.Header().Rrtype == kind {
			list = append(list, rr)
		}
	}

	return list, true
}

func (q *inquiry) addresses(ctx context.Context) {
	var have []netip.Addr
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
		rrs, ok := q.ask(ctx, kind)
		if !ok {
			return
		}
		have = append(have, addresses(rrs)...)
	}
	n := q.name
	for _, a := range n.Addresses {
		if !slices.Contains(have, a) {
			q.bad(Missing, kindOf(a), "%s has no address %s", n.Name, a)
		}
	}
	for _, a := range have {
		if len(n.Addresses) > 0 && !slices.Contains(n.Addresses, a) {
			q.bad(Wrong, kindOf(a), "%s has the address %s, which is not one of this deployment", n.Name, a)
		}
	}
	if len(have) == 0 && len(n.Addresses) == 0 {
		q.bad(Missing, dns.TypeA, "%s has no address", n.Name)
	}
}

// addresses returns the addresses in A and AAAA records.
func addresses(rrs []dns.RR) []netip.Addr {
	var list []netip.Addr
	for _, rr := range rrs {
		switch x := rr.(type) {
		case *dns.A:
			a, _ := netip.AddrFromSlice(x.A)
			list = append(list, a.Unmap())
		case *dns.AAAA:
			a, _ := netip.AddrFromSlice(x.AAAA)
			list = append(list, a)
		}
	}

	return list
}

// other looks for Text or one of Others, and, once for each type, for records that are none of them.
func (q *inquiry) other(ctx context.Context, want dns.RR) {
	kind := want.Header().Rrtype
	have, known := q.had[kind]
	if !known {
		var ok bool
		if have, ok = q.ask(ctx, kind); !ok {
			return
		}
		if q.had == nil {
			q.had = map[uint16][]dns.RR{}
		}
		q.had[kind] = have
		for _, rr := range have {
			if kind != dns.TypeTXT && !slices.ContainsFunc(q.name.Others, func(x dns.RR) bool { return same(x, rr) }) {
				q.bad(Wrong, kind, "%s has %s %s, which should not be there", q.name.Name, dns.TypeToString[kind],
					data(rr))
			}
		}
	}
	if !slices.ContainsFunc(have, func(x dns.RR) bool { return same(x, want) }) {
		q.bad(Missing, kind, "%s has no %s record %q; it has %d others", q.name.Name, dns.TypeToString[kind],
			data(want), len(have))
	}
}

// same reports whether two records have the same type and data. TTLs do not matter.
func same(a, b dns.RR) bool {
	return a.Header().Rrtype == b.Header().Rrtype && strings.EqualFold(data(a), data(b)) &&
		(a.Header().Rrtype != dns.TypeTXT || data(a) == data(b))
}

// data returns the data of a record; of a TXT record its strings, joined.
func data(rr dns.RR) string {
	if x, ok := rr.(*dns.TXT); ok {
		return strings.Join(x.Txt, "")
	}

	return strings.TrimPrefix(rr.String(), rr.Header().String())
}

func kindOf(a netip.Addr) uint16 {
	if a.Is4() {
		return dns.TypeA
	}

	return dns.TypeAAAA
}

var errOther = errors.New("it answers another question")

// Ask sends a question to a name server, without recursion, over UDP and, if the answer is truncated or none comes,
// over TCP.
func Ask(ctx context.Context, at netip.AddrPort, name string, kind uint16) (*dns.Msg, error) {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), kind)
	m.RecursionDesired = false
	m.SetEdns0(1232, false)
	var err error
	for try := range attempts + 1 {
		network := "udp"
		if try == attempts {
			network = "tcp"
		}
		c := &dns.Client{Net: network, Timeout: wait}
		var r *dns.Msg
		r, _, err = c.ExchangeContext(ctx, m, at.String())
		if err == nil && r.Truncated && network == "udp" {
			c.Net = "tcp"
			r, _, err = c.ExchangeContext(ctx, m, at.String())
		}
		if err == nil && len(r.Question) == 1 && !asks(r.Question[0], m.Question[0]) {
			err = errOther
		}
		if err == nil {
			return r, nil
		}
		if ctx.Err() != nil {
			break
		}
	}

	return nil, err
}

// asks reports whether two questions are the same (RFC 5452 §3).
func asks(a, b dns.Question) bool {
	return a.Qtype == b.Qtype && a.Qclass == b.Qclass && dns.CanonicalName(a.Name) == dns.CanonicalName(b.Name)
}
