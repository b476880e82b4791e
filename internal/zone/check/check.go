// Package check asks the name servers of a zone, one by one, whether they answer what they should. It never asks a
// resolver about names of the zone: that would fill its cache with answers from before a change.
package check

import (
	"context"
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
	// Text is a TXT record that it must have; others are allowed. Empty for none.
	Text string
}

// questions is the number of questions about a Name.
const questions = 3

// Zone asks each server for the SOA record of a zone, and then about names. It returns what is wrong, ordered by
// server; a server that is unreachable or lame is asked nothing more. newest is the serial that servers should have; 0
// for the newest that any of them has.
func Zone(ctx context.Context, zone string, newest uint32, servers []Server, names []Name) []Finding {
	zone = dns.CanonicalName(zone)
	serials := make([]uint32, len(servers))
	found := make([][]Finding, len(servers))
	var running sync.WaitGroup
	for i, s := range servers {
		running.Go(func() {
			var bad *Finding
			if serials[i], bad = soa(ctx, zone, s); bad != nil {
				found[i] = []Finding{*bad}
				return
			}
			perName, silent := ask(ctx, s, names)
			if found[i] = slices.Concat(perName...); silent != nil {
				found[i] = []Finding{*silent}
			}
		})
	}
	running.Wait()

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

	return all
}

// soa returns the serial of a server's version of a zone.
func soa(ctx context.Context, zone string, s Server) (uint32, *Finding) {
	r, err := Ask(ctx, s.Addr, zone, dns.TypeSOA)
	if err != nil {
		return 0, &Finding{Server: s, Problem: Unreachable, Text: err.Error()}
	}
	for _, rr := range r.Answer {
		if x, ok := rr.(*dns.SOA); ok && r.Authoritative && dns.CanonicalName(x.Hdr.Name) == zone {
			return x.Serial, nil
		}
	}

	return 0, &Finding{Server: s, Problem: Lame, Text: fmt.Sprintf("it answers %s for the SOA record of %s, and is %s",
		dns.RcodeToString[r.Rcode], zone, authoritative(r))}
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
	var all []Finding
	bad := func(p Problem, kind uint16, format string, args ...any) {
		all = append(all, Finding{s, p, n.Name, dns.TypeToString[kind], fmt.Sprintf(format, args...)})
	}
	var have []netip.Addr
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
		rrs, rcode, err := records(ctx, s, n.Name, kind)
		if err != nil {
			return nil, err
		}
		if refused(rcode) {
			bad(Lame, kind, "it answers %s for %s", dns.RcodeToString[rcode], n.Name)
			return all, nil
		}
		for _, rr := range rrs {
			switch x := rr.(type) {
			case *dns.A:
				a, _ := netip.AddrFromSlice(x.A)
				have = append(have, a.Unmap())
			case *dns.AAAA:
				a, _ := netip.AddrFromSlice(x.AAAA)
				have = append(have, a)
			}
		}
	}
	for _, a := range n.Addresses {
		if !slices.Contains(have, a) {
			bad(Missing, kindOf(a), "%s has no address %s", n.Name, a)
		}
	}
	for _, a := range have {
		if len(n.Addresses) > 0 && !slices.Contains(n.Addresses, a) {
			bad(Wrong, kindOf(a), "%s has the address %s, which is not one of this deployment", n.Name, a)
		}
	}
	if len(have) == 0 && len(n.Addresses) == 0 {
		bad(Missing, dns.TypeA, "%s has no address", n.Name)
	}

	if n.Text == "" {
		return all, nil
	}
	rrs, rcode, err := records(ctx, s, n.Name, dns.TypeTXT)
	if err != nil {
		return nil, err
	}
	if refused(rcode) {
		bad(Lame, dns.TypeTXT, "it answers %s for %s", dns.RcodeToString[rcode], n.Name)
		return all, nil
	}
	for _, rr := range rrs {
		if x, ok := rr.(*dns.TXT); ok && strings.Join(x.Txt, "") == n.Text {
			return all, nil
		}
	}
	bad(Missing, dns.TypeTXT, "%s has no TXT record %q; it has %d others", n.Name, n.Text, len(rrs))

	return all, nil
}

func kindOf(a netip.Addr) uint16 {
	if a.Is4() {
		return dns.TypeA
	}

	return dns.TypeAAAA
}

// refused reports whether a server with the zone would not answer so.
func refused(rcode int) bool { return rcode != dns.RcodeSuccess && rcode != dns.RcodeNameError }

// records returns the records of a name and type that a server has, and its response code.
func records(ctx context.Context, s Server, name string, kind uint16) ([]dns.RR, int, error) {
	r, err := Ask(ctx, s.Addr, name, kind)
	if err != nil {
		return nil, 0, err
	}
	var list []dns.RR
	for _, rr := range r.Answer {
		if rr.Header().Rrtype == kind {
			list = append(list, rr)
		}
	}

	return list, r.Rcode, nil
}

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
		if err == nil {
			return r, nil
		}
		if ctx.Err() != nil {
			break
		}
	}

	return nil, err
}
